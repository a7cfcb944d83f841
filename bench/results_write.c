/* SPDX-License-Identifier: MIT */
/*
 * results_write.c - the result file as JSON and as CSV.
 *
 * Whole numbers are written digit by digit (cJSON would pass them through a double), so two runs with one
 * seed give the same bytes. memory_sum is 64 bits of hash and travels as a string, because readers in other
 * languages hold numbers as doubles.
 */
#include "results.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "host_json.h"

static void add_u64(cJSON *to, const char *key, uint64_t value)
{
	char text[24];

	snprintf(text, sizeof(text), "%" PRIu64, value);
	cJSON_AddRawToObject(to, key, text);
}

static uint64_t counter_value(const struct results_run *run, const struct gn_counter_desc *desc)
{
	uint64_t value;

	memcpy(&value, (const char *)&run->counters + desc->offset, sizeof(value));
	return value;
}

static cJSON *counters_to_json(const struct results_run *run)
{
	cJSON *json = cJSON_CreateObject(), *by;
	const struct gn_counter_desc *desc;
	char text[24];

	for (unsigned i = 0; (desc = gn_counter_desc(i)); i++)
		if (run->known >> i & 1)
			add_u64(json, desc->name, counter_value(run, desc));
	by = cJSON_AddObjectToObject(json, "exits_by");
	for (unsigned i = 0; i < GN_EXIT_REASONS; i++)
		if (run->exits_known >> i & 1)
			add_u64(by, gn_exit_reason_name((enum gn_exit_reason)i),
				run->counters.exits_by[i]);
	if (run->has_tables) {
		add_u64(json, "table_bytes", run->table_bytes);
		add_u64(json, "table_bytes_peak", run->table_bytes_peak);
	}
	if (run->has_sum) {
		snprintf(text, sizeof(text), "0x%016" PRIx64, run->memory_sum);
		cJSON_AddStringToObject(json, "memory_sum", text);
	}
	if (run->kvm.has_ops) {
		snprintf(text, sizeof(text), "0x%016" PRIx64, run->kvm.ops.hash);
		cJSON_AddStringToObject(json, "ops_hash", text);
	}
	return json;
}

/* What a run on real hardware says of itself. */
static cJSON *kvm_to_json(const struct results_run *run)
{
	cJSON *json = cJSON_CreateObject();
	char label[512];

	cJSON_AddStringToObject(json, "label", results_label(run, label, sizeof(label)));
	if (run->kvm.module[0])
		cJSON_AddStringToObject(json, "module", run->kvm.module);
	cJSON_AddStringToObject(json, "nested_paging", results_paging_name(run->kvm.paging));
	cJSON_AddBoolToObject(json, "guest_smep", run->kvm.smep);
	cJSON_AddBoolToObject(json, "guest_smap", run->kvm.smap);
	return json;
}

static void add_exit_time(cJSON *to, const struct results_kvm *kvm)
{
	cJSON *json = cJSON_AddObjectToObject(to, "exit_time"), *by;

	cJSON_AddNumberToObject(json, "over_s", kvm->exit_of_s);
	by = cJSON_AddObjectToObject(json, "by_s");
	for (unsigned i = 0; i < GN_EXIT_REASONS; i++)
		cJSON_AddNumberToObject(by, gn_exit_reason_name((enum gn_exit_reason)i),
					kvm->exit_s[i]);
}

static void add_ops(cJSON *to, const struct gn_guest_ops *ops)
{
	cJSON *json = cJSON_AddObjectToObject(to, "guest_ops");

	for (unsigned i = 0; i < GN_GUEST_OPS; i++)
		add_u64(json, results_op_name(i), ops->count[i]);
}

static cJSON *params_to_json(const struct results_params *params)
{
	cJSON *json = cJSON_CreateObject();

	add_u64(json, "size", params->size);
	cJSON_AddBoolToObject(json, "large_pages", params->large_pages);
	cJSON_AddBoolToObject(json, "pcid", params->pcid);
	add_u64(json, "backing_level", params->backing_level);
	add_u64(json, "guest_levels", params->guest_levels);
	add_u64(json, "nested_levels", params->nested_levels);
	return json;
}

static cJSON *run_to_json(const struct results_run *run)
{
	cJSON *json = cJSON_CreateObject(), *time, *array;

	cJSON_AddStringToObject(json, "backend", run->backend);
	cJSON_AddStringToObject(json, "scheme", run->scheme);
	cJSON_AddStringToObject(json, "workload", run->workload);
	cJSON_AddStringToObject(json, "group", run->group);
	if (run->cpu[0])
		cJSON_AddStringToObject(json, "cpu", run->cpu);
	add_u64(json, "seed", run->seed);
	add_u64(json, "vcpus", run->vcpus);
	add_u64(json, "mem_bytes", run->mem_bytes);
	cJSON_AddItemToObject(json, "params", params_to_json(&run->params));
	if (run->kvm.is_present)
		cJSON_AddItemToObject(json, "kvm", kvm_to_json(run));
	if (run->failure[0]) {
		cJSON_AddStringToObject(json, "failure", run->failure);
		return json;
	}
	cJSON_AddItemToObject(json, "counters", counters_to_json(run));
	if (run->has_causes) {
		cJSON *causes = cJSON_AddObjectToObject(json, "cycles_by_cause");

		for (unsigned i = 0; i < RESULTS_CAUSES; i++)
			add_u64(causes, results_cause_name((enum results_cause)i),
				(uint64_t)run->cause_cycles[i]);
	}
	if (run->has_histogram) {
		array = cJSON_AddArrayToObject(json, "walk_refs_histogram");
		for (unsigned i = 0; i < RESULTS_WALK_REFS; i++) {
			char text[24];

			snprintf(text, sizeof(text), "%" PRIu64, run->walk_histogram[i]);
			cJSON_AddItemToArray(array, cJSON_CreateRaw(text));
		}
	}
	time = cJSON_AddObjectToObject(json, "time");
	cJSON_AddItemToObject(time, "samples_s",
			      cJSON_CreateDoubleArray(run->samples_s, (int)run->sample_count));
	cJSON_AddNumberToObject(time, "median_s", run->median_s);
	cJSON_AddItemToObject(time, "ci95_s", cJSON_CreateDoubleArray(run->ci95_s, 2));
	if (run->kvm.whole_count)
		cJSON_AddItemToObject(
			time, "whole_s",
			cJSON_CreateDoubleArray(run->kvm.whole_s, (int)run->kvm.whole_count));
	if (run->kvm.has_exit_time)
		add_exit_time(json, &run->kvm);
	if (run->kvm.has_ops)
		add_ops(json, &run->kvm.ops);
	if (run->has_tables) {
		cJSON *tables = cJSON_AddObjectToObject(json, "tables");

		add_u64(tables, "frames_bytes", run->table_frame_bytes);
		add_u64(tables, "meta_bytes", run->table_meta_bytes);
		add_u64(tables, "peak_bytes", run->table_bytes_peak);
	}
	return json;
}

static cJSON *points_to_json(const struct results *r)
{
	cJSON *array = cJSON_CreateArray();

	for (size_t i = 0; i < r->point_count; i++) {
		const struct results_point *point = &r->points[i];
		cJSON *json = cJSON_CreateObject();

		cJSON_AddStringToObject(json, "axis", point->axis);
		cJSON_AddStringToObject(json, "scheme", point->scheme);
		cJSON_AddStringToObject(json, "workload", point->workload);
		cJSON_AddNumberToObject(json, "factor", point->factor);
		cJSON_AddNumberToObject(json, "value", point->value);
		cJSON_AddNumberToObject(json, "overhead", point->overhead);
		cJSON_AddItemToArray(array, json);
	}
	return array;
}

int results_write_json(const struct results *r, FILE *to)
{
	cJSON *json = cJSON_CreateObject(), *runs;
	char *text;
	int err = 0;

	cJSON_AddStringToObject(json, "schema", RESULTS_SCHEMA);
	if (r->command[0])
		cJSON_AddStringToObject(json, "command", r->command);
	cJSON_AddBoolToObject(json, "quick", r->quick);
	host_add_json(json, &r->host);
	runs = cJSON_AddArrayToObject(json, "runs");
	for (size_t i = 0; i < r->run_count; i++)
		cJSON_AddItemToArray(runs, run_to_json(&r->runs[i]));
	if (r->point_count)
		cJSON_AddItemToObject(json, "sensitivity", points_to_json(r));
	text = cJSON_Print(json);
	cJSON_Delete(json);
	if (!text)
		return -ENOMEM;
	if (fputs(text, to) < 0 || fputc('\n', to) < 0)
		err = -EIO;
	free(text);
	return err;
}

/* Quoted when it must be (RFC 4180). */
static void csv_text(FILE *to, const char *text)
{
	if (!text[strcspn(text, ",\"\r\n")]) {
		fputs(text, to);
		return;
	}
	fputc('"', to);
	for (; *text; text++) {
		if (*text == '"')
			fputc('"', to);
		fputc(*text, to);
	}
	fputc('"', to);
}

static void csv_header(FILE *to)
{
	const struct gn_counter_desc *desc;

	fputs("backend,scheme,workload,group,cpu,seed,vcpus,mem_bytes,size,large_pages,pcid,"
	      "backing_level,guest_levels,nested_levels",
	      to);
	for (unsigned i = 0; (desc = gn_counter_desc(i)); i++)
		fprintf(to, ",%s", desc->name);
	for (unsigned i = 0; i < GN_EXIT_REASONS; i++)
		fprintf(to, ",exits_by.%s", gn_exit_reason_name((enum gn_exit_reason)i));
	for (unsigned i = 0; i < RESULTS_CAUSES; i++)
		fprintf(to, ",cycles_by_cause.%s", results_cause_name((enum results_cause)i));
	fputs(",table_bytes,table_bytes_peak,memory_sum,overhead,median_s,failure"
	      ",ops_hash,whole_s",
	      to);
	for (unsigned i = 0; i < GN_EXIT_REASONS; i++)
		fprintf(to, ",exit_time.%s", gn_exit_reason_name((enum gn_exit_reason)i));
	fputs(",kvm_module,nested_paging,label\n", to);
}

/* The columns that only a run on real hardware fills. */
static void csv_kvm(const struct results_run *run, FILE *to)
{
	const struct results_kvm *kvm = &run->kvm;
	char label[512] = "";

	fputc(',', to);
	if (kvm->has_ops)
		fprintf(to, "0x%016" PRIx64, kvm->ops.hash);
	fputc(',', to);
	if (kvm->whole_count)
		fprintf(to, "%.6f", results_whole_median(run));
	for (unsigned i = 0; i < GN_EXIT_REASONS; i++) {
		fputc(',', to);
		if (kvm->has_exit_time)
			fprintf(to, "%.9f", kvm->exit_s[i]);
	}
	fputc(',', to);
	csv_text(to, kvm->module);
	fprintf(to, ",%s,", kvm->is_present ? results_paging_name(kvm->paging) : "");
	if (kvm->is_present)
		csv_text(to, results_label(run, label, sizeof(label)));
}

static void csv_run(const struct results *r, const struct results_run *run, FILE *to)
{
	const char *const names[] = { run->backend, run->scheme, run->workload, run->group,
				      run->cpu };
	const struct gn_counter_desc *desc;
	double ratio;

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		csv_text(to, names[i]);
		fputc(',', to);
	}
	fprintf(to, "%" PRIu64 ",%u,%" PRIu64 ",%" PRIu64 ",%d,%d,%u,%u,%u", run->seed, run->vcpus,
		run->mem_bytes, run->params.size, run->params.large_pages, run->params.pcid,
		run->params.backing_level, run->params.guest_levels, run->params.nested_levels);
	for (unsigned i = 0; (desc = gn_counter_desc(i)); i++) {
		fputc(',', to);
		if (run->known >> i & 1)
			fprintf(to, "%" PRIu64, counter_value(run, desc));
	}
	for (unsigned i = 0; i < GN_EXIT_REASONS; i++) {
		fputc(',', to);
		if (run->exits_known >> i & 1)
			fprintf(to, "%" PRIu64, run->counters.exits_by[i]);
	}
	for (unsigned i = 0; i < RESULTS_CAUSES; i++) {
		fputc(',', to);
		if (run->has_causes)
			fprintf(to, "%.0f", run->cause_cycles[i]);
	}
	if (run->has_tables)
		fprintf(to, ",%" PRIu64 ",%" PRIu64, run->table_bytes, run->table_bytes_peak);
	else
		fputs(",,", to);
	fputc(',', to);
	if (run->has_sum)
		fprintf(to, "0x%016" PRIx64, run->memory_sum);
	fputc(',', to);
	if (results_ratio(r, run, &ratio))
		fprintf(to, "%.6f", ratio - 1);
	fputc(',', to);
	if (run->sample_count)
		fprintf(to, "%.6f", run->median_s);
	fputc(',', to);
	csv_text(to, run->failure);
	csv_kvm(run, to);
	fputc('\n', to);
}

int results_write_csv(const struct results *r, FILE *to)
{
	csv_header(to);
	for (size_t i = 0; i < r->run_count; i++)
		csv_run(r, &r->runs[i], to);
	return ferror(to) ? -EIO : 0;
}
