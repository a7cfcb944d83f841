/* SPDX-License-Identifier: MIT */
/*
 * results_read.c - a result file back into memory, believing nothing.
 *
 * A result file may come from another machine, another version or a hand. Each value is checked for type
 * and range where it is read; the first that is wrong ends the reading with its path ("runs[3].counters.
 * walks is not a whole number"). Unknown keys are ignored, so that files of later versions stay readable
 * as long as the schema's number does not change. Keys missing that a run cannot do without are errors;
 * missing counters are merely not known.
 */
#include "results.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cjson/cJSON.h>

struct reader {
	char at[128]; /* the object being read, for messages: "runs[3].counters" */
	char *why;
	size_t why_bytes;
	bool failed;
};

enum presence { OPTIONAL, REQUIRED };

__attribute__((format(printf, 3, 4))) static void fail(struct reader *rd, const char *key,
						       const char *format, ...)
{
	char text[160];
	va_list args;

	if (rd->failed)
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	snprintf(rd->why, rd->why_bytes, "%s%s%s %s", rd->at, rd->at[0] && key[0] ? "." : "", key,
		 text);
	rd->failed = true;
}

/* The member @key, or NULL (a failure when it is required). JSON null counts as absent. */
static const cJSON *member(struct reader *rd, const cJSON *object, const char *key,
			   enum presence presence)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);

	if (item && !cJSON_IsNull(item))
		return item;
	if (presence == REQUIRED)
		fail(rd, key, "is missing");
	return NULL;
}

/* Names go into tables, web pages and plots: control characters have no business there. */
static bool is_clean_text(const char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < ' ' || *text == 0x7f)
			return false;
	return true;
}

static void read_text(struct reader *rd, const cJSON *object, const char *key,
		      enum presence presence, char *out, size_t bytes)
{
	const cJSON *item = member(rd, object, key, presence);

	if (!item)
		return;
	if (!cJSON_IsString(item))
		fail(rd, key, "is not a string");
	else if (presence == REQUIRED && !item->valuestring[0])
		fail(rd, key, "is empty");
	else if (strlen(item->valuestring) >= bytes)
		fail(rd, key, "is longer than %zu characters", bytes - 1);
	else if (!is_clean_text(item->valuestring))
		fail(rd, key, "contains control characters");
	else
		snprintf(out, bytes, "%s", item->valuestring);
}

static bool read_number(struct reader *rd, const cJSON *object, const char *key,
			enum presence presence, double *out)
{
	const cJSON *item = member(rd, object, key, presence);

	if (!item)
		return false;
	if (!cJSON_IsNumber(item) || !isfinite(item->valuedouble)) {
		fail(rd, key, "is not a number");
		return false;
	}
	*out = item->valuedouble;
	return true;
}

/* A whole number up to 2^64: past 2^53 a JSON number is not exact, and no counter gets there. */
static bool read_u64(struct reader *rd, const cJSON *object, const char *key,
		     enum presence presence, uint64_t *out)
{
	double value;

	if (!read_number(rd, object, key, presence, &value))
		return false;
	if (value < 0 || value != floor(value) || value >= 0x1p64) {
		fail(rd, key, "is not a whole number");
		return false;
	}
	*out = (uint64_t)value;
	return true;
}

static void read_unsigned(struct reader *rd, const cJSON *object, const char *key, uint64_t max,
			  unsigned *out)
{
	uint64_t value;

	if (!read_u64(rd, object, key, OPTIONAL, &value))
		return;
	if (value > max)
		fail(rd, key, "is more than %llu", (unsigned long long)max);
	else
		*out = (unsigned)value;
}

static void read_bool(struct reader *rd, const cJSON *object, const char *key, bool *out)
{
	const cJSON *item = member(rd, object, key, OPTIONAL);

	if (!item)
		return;
	if (!cJSON_IsBool(item))
		fail(rd, key, "is not true or false");
	else
		*out = cJSON_IsTrue(item);
}

static const cJSON *read_object(struct reader *rd, const cJSON *object, const char *key,
				enum presence presence)
{
	const cJSON *item = member(rd, object, key, presence);

	if (item && !cJSON_IsObject(item)) {
		fail(rd, key, "is not an object");
		return NULL;
	}
	return item;
}

static const cJSON *read_array(struct reader *rd, const cJSON *object, const char *key,
			       enum presence presence, size_t max)
{
	const cJSON *item = member(rd, object, key, presence);

	if (item && !cJSON_IsArray(item)) {
		fail(rd, key, "is not a list");
		return NULL;
	}
	if (item && (size_t)cJSON_GetArraySize(item) > max) {
		fail(rd, key, "has more than %zu items", max);
		return NULL;
	}
	return item;
}

/* 64 bits of hash, "0x...". False: it is not there. */
static bool read_hash(struct reader *rd, const cJSON *json, const char *key, uint64_t *out)
{
	char text[32] = "", *end;

	read_text(rd, json, key, OPTIONAL, text, sizeof(text));
	if (!text[0])
		return false;
	*out = strtoull(text, &end, 16);
	if (strncmp(text, "0x", 2) != 0 || *end)
		fail(rd, key, "is not a hexadecimal number like 0x1f");
	return true;
}

static void read_counters(struct reader *rd, const cJSON *run_json, struct results_run *run)
{
	const cJSON *json = read_object(rd, run_json, "counters", REQUIRED), *by;
	const struct gn_counter_desc *desc;
	uint64_t value;

	if (!json)
		return;
	for (unsigned i = 0; (desc = gn_counter_desc(i)); i++)
		if (read_u64(rd, json, desc->name, OPTIONAL, &value)) {
			memcpy((char *)&run->counters + desc->offset, &value, sizeof(value));
			run->known |= (uint64_t)1 << i;
		}
	by = read_object(rd, json, "exits_by", OPTIONAL);
	for (unsigned i = 0; by && i < GN_EXIT_REASONS; i++)
		if (read_u64(rd, by, gn_exit_reason_name((enum gn_exit_reason)i), OPTIONAL,
			     &run->counters.exits_by[i]))
			run->exits_known |= (uint64_t)1 << i;
	run->has_tables = read_u64(rd, json, "table_bytes", OPTIONAL, &run->table_bytes);
	read_u64(rd, json, "table_bytes_peak", OPTIONAL, &run->table_bytes_peak);
	run->has_sum = read_hash(rd, json, "memory_sum", &run->memory_sum);
	run->kvm.has_ops = read_hash(rd, json, "ops_hash", &run->kvm.ops.hash);
}

static void read_causes(struct reader *rd, const cJSON *run_json, struct results_run *run)
{
	const cJSON *json = read_object(rd, run_json, "cycles_by_cause", OPTIONAL);

	if (!json)
		return;
	run->has_causes = true;
	for (unsigned i = 0; i < RESULTS_CAUSES; i++) {
		uint64_t value = 0;

		read_u64(rd, json, results_cause_name((enum results_cause)i), OPTIONAL, &value);
		run->cause_cycles[i] = (double)value;
	}
}

static void read_histogram(struct reader *rd, const cJSON *run_json, struct results_run *run)
{
	const cJSON *json =
		read_array(rd, run_json, "walk_refs_histogram", OPTIONAL, RESULTS_WALK_REFS);
	const cJSON *item;
	unsigned i = 0;

	if (!json)
		return;
	run->has_histogram = true;
	cJSON_ArrayForEach(item, json)
	{
		double value = cJSON_IsNumber(item) ? item->valuedouble : -1;

		if (!(value >= 0 && value < 0x1p64 && value == floor(value))) {
			fail(rd, "walk_refs_histogram",
			     "holds something that is not a whole number");
			return;
		}
		run->walk_histogram[i++] = (uint64_t)value;
	}
}

/* A list of times, each handed to @add. */
static void read_times(struct reader *rd, const cJSON *json, const char *key,
		       int (*add)(struct results_run *run, double seconds), struct results_run *run)
{
	const cJSON *list = read_array(rd, json, key, OPTIONAL, 100000), *item;

	if (!list)
		return;
	cJSON_ArrayForEach(item, list)
	{
		if (!cJSON_IsNumber(item) || !isfinite(item->valuedouble) ||
		    item->valuedouble < 0) {
			fail(rd, key, "holds something that is not a time");
			return;
		}
		if (add(run, item->valuedouble)) {
			fail(rd, key, "does not fit into memory");
			return;
		}
	}
}

static void read_time(struct reader *rd, const cJSON *run_json, struct results_run *run)
{
	const cJSON *json = read_object(rd, run_json, "time", OPTIONAL);

	if (!json)
		return;
	read_times(rd, json, "samples_s", results_add_sample, run);
	read_times(rd, json, "whole_s", results_add_whole, run);
}

static void read_kvm(struct reader *rd, const cJSON *run_json, struct results_kvm *kvm)
{
	const cJSON *json = read_object(rd, run_json, "kvm", OPTIONAL);
	char paging[32] = "";

	if (!json)
		return;
	kvm->is_present = true;
	read_text(rd, json, "module", OPTIONAL, kvm->module, sizeof(kvm->module));
	read_text(rd, json, "nested_paging", OPTIONAL, paging, sizeof(paging));
	/* A word of a later version is as good as none. */
	for (unsigned i = 0; i < RESULTS_PAGINGS; i++)
		if (!strcmp(paging, results_paging_name((enum results_paging)i)))
			kvm->paging = (enum results_paging)i;
	read_bool(rd, json, "guest_smep", &kvm->smep);
	read_bool(rd, json, "guest_smap", &kvm->smap);
}

static void read_exit_time(struct reader *rd, const cJSON *run_json, struct results_kvm *kvm)
{
	const cJSON *json = read_object(rd, run_json, "exit_time", OPTIONAL);
	const cJSON *by = json ? read_object(rd, json, "by_s", REQUIRED) : NULL;

	if (!by)
		return;
	kvm->has_exit_time = true;
	read_number(rd, json, "over_s", REQUIRED, &kvm->exit_of_s);
	for (unsigned i = 0; i < GN_EXIT_REASONS; i++) {
		const char *name = gn_exit_reason_name((enum gn_exit_reason)i);

		if (read_number(rd, by, name, OPTIONAL, &kvm->exit_s[i]) && kvm->exit_s[i] < 0)
			fail(rd, name, "is not a time");
	}
	if (kvm->exit_of_s < 0)
		fail(rd, "over_s", "is not a time");
}

static void read_ops(struct reader *rd, const cJSON *run_json, struct gn_guest_ops *ops)
{
	const cJSON *json = read_object(rd, run_json, "guest_ops", OPTIONAL);

	for (unsigned i = 0; json && i < GN_GUEST_OPS; i++)
		read_u64(rd, json, results_op_name(i), OPTIONAL, &ops->count[i]);
}

static void read_params(struct reader *rd, const cJSON *run_json, struct results_params *params)
{
	const cJSON *json = read_object(rd, run_json, "params", OPTIONAL);

	if (!json)
		return;
	read_u64(rd, json, "size", OPTIONAL, &params->size);
	read_bool(rd, json, "large_pages", &params->large_pages);
	read_bool(rd, json, "pcid", &params->pcid);
	read_unsigned(rd, json, "backing_level", 3, &params->backing_level);
	read_unsigned(rd, json, "guest_levels", 5, &params->guest_levels);
	read_unsigned(rd, json, "nested_levels", 5, &params->nested_levels);
}

static void read_run(struct reader *rd, const cJSON *json, struct results_run *run)
{
	const cJSON *tables;

	if (!cJSON_IsObject(json)) {
		fail(rd, "", "is not an object");
		return;
	}
	read_text(rd, json, "backend", REQUIRED, run->backend, sizeof(run->backend));
	read_text(rd, json, "scheme", REQUIRED, run->scheme, sizeof(run->scheme));
	read_text(rd, json, "workload", REQUIRED, run->workload, sizeof(run->workload));
	read_text(rd, json, "group", OPTIONAL, run->group, sizeof(run->group));
	read_text(rd, json, "cpu", OPTIONAL, run->cpu, sizeof(run->cpu));
	read_u64(rd, json, "seed", OPTIONAL, &run->seed);
	read_u64(rd, json, "mem_bytes", OPTIONAL, &run->mem_bytes);
	read_unsigned(rd, json, "vcpus", 1 << 16, &run->vcpus);
	read_params(rd, json, &run->params);
	read_kvm(rd, json, &run->kvm);
	read_text(rd, json, "failure", OPTIONAL, run->failure, sizeof(run->failure));
	if (run->failure[0] || rd->failed)
		return;
	read_counters(rd, json, run);
	read_causes(rd, json, run);
	read_histogram(rd, json, run);
	read_time(rd, json, run);
	read_exit_time(rd, json, &run->kvm);
	read_ops(rd, json, &run->kvm.ops);
	tables = read_object(rd, json, "tables", OPTIONAL);
	if (tables) {
		read_u64(rd, tables, "frames_bytes", OPTIONAL, &run->table_frame_bytes);
		read_u64(rd, tables, "meta_bytes", OPTIONAL, &run->table_meta_bytes);
	}
}

static void read_runs(struct reader *rd, const cJSON *json, struct results *r)
{
	const cJSON *list = read_array(rd, json, "runs", REQUIRED, RESULTS_MAX_RUNS), *item;
	size_t index = 0;

	if (!list)
		return;
	cJSON_ArrayForEach(item, list)
	{
		struct results_run *run = results_add_run(r);

		snprintf(rd->at, sizeof(rd->at), "runs[%zu]", index++);
		if (!run)
			fail(rd, "", "does not fit into memory");
		else
			read_run(rd, item, run);
		if (rd->failed)
			return;
	}
	rd->at[0] = '\0';
	if (!r->run_count)
		fail(rd, "runs", "is empty: there is nothing to report");
}

static void read_points(struct reader *rd, const cJSON *json, struct results *r)
{
	const cJSON *list = read_array(rd, json, "sensitivity", OPTIONAL, RESULTS_MAX_RUNS), *item;
	size_t index = 0;

	if (!list)
		return;
	cJSON_ArrayForEach(item, list)
	{
		struct results_point *point = results_add_point(r);

		snprintf(rd->at, sizeof(rd->at), "sensitivity[%zu]", index++);
		if (!point)
			fail(rd, "", "does not fit into memory");
		else if (!cJSON_IsObject(item))
			fail(rd, "", "is not an object");
		else {
			read_text(rd, item, "axis", REQUIRED, point->axis, sizeof(point->axis));
			read_text(rd, item, "scheme", REQUIRED, point->scheme,
				  sizeof(point->scheme));
			read_text(rd, item, "workload", REQUIRED, point->workload,
				  sizeof(point->workload));
			read_number(rd, item, "factor", REQUIRED, &point->factor);
			read_number(rd, item, "value", REQUIRED, &point->value);
			read_number(rd, item, "overhead", REQUIRED, &point->overhead);
		}
		if (rd->failed)
			return;
	}
	rd->at[0] = '\0';
}

static void read_host(struct reader *rd, const cJSON *json, struct host_info *host)
{
	const cJSON *object = read_object(rd, json, "host", OPTIONAL);
	const struct host_field *field;

	if (!object)
		return;
	snprintf(rd->at, sizeof(rd->at), "host");
	for (unsigned i = 0; (field = host_field(i)); i++)
		read_text(rd, object, field->key, OPTIONAL, (char *)host + field->offset,
			  field->bytes);
	rd->at[0] = '\0';
}

static void read_file(struct reader *rd, const cJSON *json, struct results *r)
{
	char schema[64] = "";

	if (!cJSON_IsObject(json)) {
		fail(rd, "", "is not a result file: the outermost value is not an object");
		return;
	}
	read_text(rd, json, "schema", REQUIRED, schema, sizeof(schema));
	if (!rd->failed && strcmp(schema, RESULTS_SCHEMA) != 0)
		fail(rd, "schema", "is \"%.60s\", this version reads \"%s\"", schema,
		     RESULTS_SCHEMA);
	if (rd->failed)
		return;
	read_text(rd, json, "command", OPTIONAL, r->command, sizeof(r->command));
	read_bool(rd, json, "quick", &r->quick);
	read_host(rd, json, &r->host);
	read_runs(rd, json, r);
	read_points(rd, json, r);
}

int results_parse_json(struct results *r, const char *text, size_t bytes, char *why,
		       size_t why_bytes)
{
	struct reader rd = { .at = "", .why = why, .why_bytes = why_bytes };
	const char *end = NULL;
	cJSON *json;

	json = cJSON_ParseWithLengthOpts(text, bytes, &end, 0);
	if (!json) {
		snprintf(why, why_bytes, "not JSON (or torn): trouble at byte %zu of %zu",
			 end ? (size_t)(end - text) : 0, bytes);
		return -EINVAL;
	}
	while (end < text + bytes && (*end == ' ' || *end == '\n' || *end == '\r' || *end == '\t'))
		end++;
	if (end < text + bytes)
		fail(&rd, "", "something follows the JSON value, at byte %zu",
		     (size_t)(end - text));
	results_init(r);
	if (!rd.failed)
		read_file(&rd, json, r);
	cJSON_Delete(json);
	if (!rd.failed)
		return 0;
	results_fini(r);
	return -EINVAL;
}

int results_read_json(struct results *r, const char *path, char *why, size_t why_bytes)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), err = 0;
	char *text = NULL;
	size_t bytes = 0;
	struct stat st;

	if (fd < 0 || fstat(fd, &st)) {
		err = -errno;
		snprintf(why, why_bytes, "cannot be read: %s", strerror(-err));
		goto out;
	}
	if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size > RESULTS_MAX_BYTES) {
		snprintf(why, why_bytes, "%s",
			 S_ISREG(st.st_mode) ? "is larger than 256 MiB: not a result file"
					     : "is not a regular file");
		err = -EINVAL;
		goto out;
	}
	text = malloc((size_t)st.st_size + 1);
	if (!text) {
		snprintf(why, why_bytes, "does not fit into memory");
		err = -ENOMEM;
		goto out;
	}
	while (bytes < (size_t)st.st_size) {
		ssize_t got = read(fd, text + bytes, (size_t)st.st_size - bytes);

		if (got <= 0)
			break;
		bytes += (size_t)got;
	}
	err = results_parse_json(r, text, bytes, why, why_bytes);
out:
	free(text);
	if (fd >= 0)
		close(fd);
	return err;
}
