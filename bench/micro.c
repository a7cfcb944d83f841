/* SPDX-License-Identifier: MIT */
/*
 * micro.c - `gnomon micro`: the cost of the engine's operations.
 *
 * Samples of the operation, its limit and its peer are taken in turn; medians with a confidence interval
 * are reported. CPU time, not wall time: the machines this runs on are shared.
 */
#include "micro.h"

#include <argp.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cjson/cJSON.h>

#include "cli.h"
#include "commands.h"
#include "emit_json.h"
#include "host_json.h"
#include "machine_kvm.h"
#include "progress.h"
#include "stats.h"
#include "table.h"

static const struct micro *const micros[] = {
	&micro_walk4_cached,	  &micro_p2m_lookup,	   &micro_shadow_fill,
	&micro_ept_fill,	  &micro_soft_hit,	   &micro_soft_scattered,
	&micro_soft_random_ept,	  &micro_kvm_gups,	   &micro_kvm_chase,
	&micro_kvm_trap,	  &micro_kvm_shadow_fault, &micro_balloon_scattered,
	&micro_balloon_coalesced, &micro_balloon_huge,	   &micro_balloon_return,
};
#define MICROS (sizeof(micros) / sizeof(micros[0]))

enum { SAMPLES_DEFAULT = 21, SAMPLES_MAX = 1001 };

struct micro_result {
	const struct micro *micro;
	struct stats_summary subject, limit, peer;
	struct stats_summary against; /* peer or limit, as promised; see enum micro_promise */
	char failure[256], skipped[256];
};

struct micro_options {
	const struct micro *chosen[MICROS];
	size_t count;
	const char *json;
	uint64_t samples;
};

uint64_t micro_now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Sample by sample of the same turn: a slow moment hits both and cancels. */
static struct stats_summary hold_against(enum micro_promise promise, const double *subject,
					 const double *other, size_t samples)
{
	struct stats_summary summary;
	double *values = calloc(samples, sizeof(*values));

	if (!values)
		cli_fail(EXIT_CANNOT, "out of memory");
	for (size_t i = 0; i < samples; i++)
		values[i] =
			promise == MICRO_OVER_PEER ? subject[i] - other[i] : subject[i] / other[i];
	summary = stats_summarise(values, samples);
	free(values);
	return summary;
}

static void measure(const struct micro *micro, size_t samples, struct progress *progress,
		    struct micro_result *result)
{
	const struct micro_side *sides[] = { &micro->subject, &micro->limit, &micro->peer };
	struct stats_summary *summaries[] = { &result->subject, &result->limit, &result->peer };
	double *values[3];
	void *context;

	result->micro = micro;
	if (micro->needs_kvm && !machine_kvm_host(false)->usable) {
		snprintf(result->skipped, sizeof(result->skipped), "%s",
			 machine_kvm_host(false)->why);
		return;
	}
	context = micro->setup(result->failure, sizeof(result->failure));
	if (!context)
		return;
	for (size_t i = 0; i < 3; i++) {
		values[i] = calloc(samples, sizeof(double));
		if (!values[i])
			cli_fail(EXIT_CANNOT, "out of memory");
		if (sides[i]->sample)
			sides[i]->sample(context); /* warm up */
	}
	for (size_t n = 0; n < samples; n++) {
		for (size_t i = 0; i < 3; i++)
			if (sides[i]->sample)
				values[i][n] = sides[i]->sample(context);
		progress_part(progress, (double)n / (double)samples);
	}
	if (micro->promise != MICRO_ABSOLUTE)
		result->against =
			hold_against(micro->promise, values[0],
				     values[micro->promise == MICRO_TIMES_LIMIT ? 1 : 2], samples);
	for (size_t i = 0; i < 3; i++) {
		*summaries[i] = (struct stats_summary){ .median = sides[i]->published };
		if (sides[i]->sample)
			*summaries[i] = stats_summarise(values[i], samples);
		free(values[i]);
	}
	if (!isfinite(result->subject.median) || !isfinite(result->peer.median) ||
	    !isfinite(result->limit.median))
		snprintf(result->failure, sizeof(result->failure), "samples could not be taken");
	micro->teardown(context);
}

static void side_to_json(cJSON *to, const char *key, const struct micro_side *side, double median)
{
	cJSON *json;

	if (!side->name)
		return;
	json = cJSON_AddObjectToObject(to, key);
	cJSON_AddStringToObject(json, "name", side->name);
	cJSON_AddNumberToObject(json, "median", median);
	cJSON_AddStringToObject(json, "origin",
				side->sample ? "measured in this run" : "recorded elsewhere");
}

/* What was promised is not the median itself, but how it stands to the peer's or the limit's. */
static void against_to_json(cJSON *to, const struct micro_result *r)
{
	const double ci95[2] = { r->against.low, r->against.high };
	bool is_limit = r->micro->promise == MICRO_TIMES_LIMIT;
	cJSON *json = cJSON_AddObjectToObject(to, is_limit ? "against_limit" : "against_peer");

	cJSON_AddStringToObject(json, "kind",
				r->micro->promise == MICRO_OVER_PEER ? "over" : "times");
	cJSON_AddNumberToObject(json, "median", r->against.median);
	cJSON_AddItemToObject(json, "ci95", cJSON_CreateDoubleArray(ci95, 2));
	cJSON_AddNumberToObject(json, "target", r->micro->target);
}

static void write_json(const char *path, const struct micro_result *results, size_t count)
{
	cJSON *json = cJSON_CreateObject(), *list;
	int err;

	cJSON_AddStringToObject(json, "schema", "gnomon.micro/1");
	host_add_own_json(json);
	list = cJSON_AddArrayToObject(json, "results");
	for (size_t i = 0; i < count; i++) {
		const struct micro_result *r = &results[i];
		const double ci95[2] = { r->subject.low, r->subject.high };
		cJSON *item = cJSON_CreateObject();

		cJSON_AddItemToArray(list, item);
		cJSON_AddStringToObject(item, "name", r->micro->name);
		cJSON_AddStringToObject(item, "unit", r->micro->unit);
		cJSON_AddStringToObject(item, "what", r->micro->what);
		if (r->skipped[0] || r->failure[0]) {
			cJSON_AddStringToObject(item, r->skipped[0] ? "skipped" : "failure",
						r->skipped[0] ? r->skipped : r->failure);
			continue;
		}
		cJSON_AddNumberToObject(item, "median", r->subject.median);
		cJSON_AddItemToObject(item, "ci95", cJSON_CreateDoubleArray(ci95, 2));
		if (r->micro->promise != MICRO_ABSOLUTE)
			against_to_json(item, r);
		else if (r->micro->target > 0)
			cJSON_AddNumberToObject(item, "target", r->micro->target);
		side_to_json(item, "limit", &r->micro->limit, r->limit.median);
		side_to_json(item, "peer", &r->micro->peer, r->peer.median);
	}
	err = emit_json(json, path);
	if (err)
		cli_fail(EXIT_CANNOT, "--json %s: %s", path, strerror(-err));
}

static bool meets_target(const struct micro_result *r)
{
	double value = r->micro->promise == MICRO_ABSOLUTE ? r->subject.median : r->against.median;

	return r->micro->more_is_better ? value >= r->micro->target : value <= r->micro->target;
}

/* A row without figures: what became of it, and why. */
static void print_no_figures(struct table *t, enum table_style style, const char *what,
			     const char *why)
{
	table_cell(t, style, "%s", what);
	for (int i = 0; i < 3; i++)
		table_cell(t, TABLE_PLAIN, "%s", "");
	table_cell(t, style, "%s", why);
}

static void print_promise(struct table *t, const struct micro_result *r)
{
	const struct micro *m = r->micro;
	const char *missed = meets_target(r) ? "" : " MISSED";

	if (m->promise == MICRO_TIMES_PEER || m->promise == MICRO_TIMES_LIMIT)
		table_cell(t, TABLE_PLAIN, "%.3fx %s %s %gx%s", r->against.median,
			   m->promise == MICRO_TIMES_PEER ? "peer" : "limit",
			   m->more_is_better ? ">=" : "<=", m->target, missed);
	else if (m->promise == MICRO_OVER_PEER)
		table_cell(t, TABLE_PLAIN, "peer %+.0f <= %+g%s", r->against.median, m->target,
			   missed);
	else if (m->target > 0)
		table_cell(t, TABLE_PLAIN, "%s %g%s", m->more_is_better ? ">=" : "<=", m->target,
			   missed);
	else
		table_cell(t, TABLE_DIM, "none");
}

/* Three digits, but no exponents. */
static const char *figure(double value, char *out, size_t bytes)
{
	snprintf(out, bytes, value >= 1000 ? "%.0f" : "%.3g", value);
	return out;
}

static void print_beside(struct table *t, const struct micro_result *r)
{
	const struct micro *m = r->micro;
	char limit[64], peer[64];

	figure(r->limit.median, limit, sizeof(limit));
	figure(r->peer.median, peer, sizeof(peer));
	if (!m->peer.name)
		table_cell(t, TABLE_PLAIN, "limit %s (%s)", limit, m->limit.name);
	else if (!m->limit.name)
		table_cell(t, TABLE_PLAIN, "peer %s (%s)", peer, m->peer.name);
	else
		table_cell(t, TABLE_PLAIN, "limit %s (%s); peer %s (%s)", limit, m->limit.name,
			   peer, m->peer.name);
}

static void print_row(struct table *t, const struct micro_result *r)
{
	const struct micro *m = r->micro;
	char low[64], high[64];

	table_cell(t, TABLE_HEAD, "%s", m->name);
	if (r->skipped[0] || r->failure[0]) {
		print_no_figures(t, r->skipped[0] ? TABLE_DIM : TABLE_BAD,
				 r->skipped[0] ? "skipped" : "failed",
				 r->skipped[0] ? r->skipped : r->failure);
		return;
	}
	table_cell(t, meets_target(r) ? TABLE_BEST : TABLE_BAD, "%s",
		   figure(r->subject.median, low, sizeof(low)));
	table_cell(t, TABLE_DIM, "%s-%s", figure(r->subject.low, low, sizeof(low)),
		   figure(r->subject.high, high, sizeof(high)));
	table_cell(t, TABLE_PLAIN, "%s", m->unit);
	print_promise(t, r);
	print_beside(t, r);
}

static void print_results(const struct micro_result *results, size_t count)
{
	struct table t;

	puts("Measured on this host, CPU time of one thread; medians with 95 % confidence "
	     "intervals.\n");
	table_init(&t, 6, 1 | 1 << 3 | 1 << 4 | 1 << 5);
	table_cell(&t, TABLE_HEAD, "operation");
	table_cell(&t, TABLE_HEAD, "median");
	table_cell(&t, TABLE_HEAD, "95 %%");
	table_cell(&t, TABLE_HEAD, "unit");
	table_cell(&t, TABLE_HEAD, "promised");
	table_cell(&t, TABLE_HEAD, "beside it");
	for (size_t i = 0; i < count; i++)
		print_row(&t, &results[i]);
	table_print(&t, stdout, cli_may_colour(STDOUT_FILENO));
	table_fini(&t);
}

enum { OPT_JSON = 0x200, OPT_SAMPLES };

static const struct argp_option options[] = {
	{ "json", OPT_JSON, "FILE", 0, "write the results (- is stdout)", 0 },
	{ "samples", OPT_SAMPLES, "N", 0, "samples of each side (21)", 0 },
	{ 0 }
};

static const char doc[] =
	"Measure the engine's operations, each beside the least any implementation must do.\v"
	"Operations: walk4_cached, p2m_lookup, shadow_fill, ept_fill, soft_hit, "
	"soft_scattered, soft_random_ept, balloon_scattered, balloon_coalesced, balloon_huge, "
	"balloon_return; where /dev/kvm is usable kvm_gups, kvm_chase, kvm_trap, "
	"kvm_shadow_fault.\n\n"
	"Examples:\n"
	"  gnomon micro\n"
	"  gnomon micro walk4_cached p2m_lookup --json micro.json\n"
	"  gnomon micro kvm_gups kvm_chase kvm_trap kvm_shadow_fault";

static const char *micro_name(unsigned i)
{
	return i < MICROS ? micros[i]->name : NULL;
}

static void choose(struct micro_options *o, const char *name)
{
	const char *near;

	for (size_t i = 0; i < MICROS; i++)
		if (!strcmp(micros[i]->name, name)) {
			for (size_t j = 0; j < o->count; j++)
				if (o->chosen[j] == micros[i])
					return;
			o->chosen[o->count++] = micros[i];
			return;
		}
	near = cli_nearest(name, micro_name);
	if (near)
		cli_fail(EXIT_USAGE, "no operation \"%s\"; did you mean \"%s\"?", name, near);
	cli_fail(EXIT_USAGE, "no operation \"%s\"; `gnomon micro --help` lists them", name);
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct micro_options *o = state->input;

	switch (key) {
	case OPT_JSON:
		o->json = arg;
		return 0;
	case OPT_SAMPLES:
		if (cli_parse_count(arg, 1, SAMPLES_MAX, &o->samples))
			cli_fail(EXIT_USAGE, "--samples %s: must be 1 to %d", arg, SAMPLES_MAX);
		return 0;
	case ARGP_KEY_ARG:
		choose(o, arg);
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

int micro_command(int argc, char **argv)
{
	static const struct argp argp = { options, parse, "[OPERATION...]", doc, NULL, NULL, NULL };
	struct micro_result results[MICROS];
	struct micro_options o = { .samples = SAMPLES_DEFAULT };
	struct progress progress;
	size_t skipped = 0;
	bool fine = true;

	argp_parse(&argp, argc, argv, 0, NULL, &o);
	if (!o.count)
		for (size_t i = 0; i < MICROS; i++)
			choose(&o, micros[i]->name);
	memset(results, 0, sizeof(results));
	progress_begin(&progress, o.count);
	for (size_t i = 0; i < o.count; i++) {
		progress_step(&progress, o.chosen[i]->name);
		measure(o.chosen[i], o.samples, &progress, &results[i]);
		fine &= !results[i].failure[0];
		skipped += results[i].skipped[0] != '\0';
	}
	progress_end(&progress);
	if (skipped == o.count)
		cli_fail(EXIT_CANNOT, "%s: %s", o.chosen[0]->name, results[0].skipped);
	if (!o.json || strcmp(o.json, "-") != 0)
		print_results(results, o.count);
	if (o.json)
		write_json(o.json, results, o.count);
	return fine ? EXIT_FINE : EXIT_CANNOT;
}
