/* SPDX-License-Identifier: MIT */
/*
 * results.c - result files: what was written is read back, what is wrong is told in one line, and what the
 * tables say follows from the numbers.
 */
#include <criterion/criterion.h>
#include <errno.h>

#include "bench/results.h"
#include "bench/host.h"
#include "bench/stats.h"
#include "bench/summary.h"

#define SEED 0x9e37

static struct results_run *add_run(struct results *r, const char *workload, const char *group,
				   const char *scheme, uint64_t cycles)
{
	struct results_run *run = results_add_run(r);

	cr_assert_not_null(run);
	snprintf(run->backend, sizeof(run->backend), "soft");
	snprintf(run->workload, sizeof(run->workload), "%s", workload);
	snprintf(run->group, sizeof(run->group), "%s", group);
	snprintf(run->scheme, sizeof(run->scheme), "%s", scheme);
	snprintf(run->cpu, sizeof(run->cpu), "skylake-sp");
	run->counters.cycles = cycles;
	run->known = ~(uint64_t)0;
	return run;
}

static void make_results(struct results *r)
{
	struct results_run *run;
	struct results_point *point;

	results_init(r);
	snprintf(r->command, sizeof(r->command), "gnomon compare \"quoted\" \\ back");
	snprintf(r->host.cpu, sizeof(r->host.cpu), "A CPU");
	r->quick = true;
	add_run(r, "random", "memory", "native", 9007199254740991);
	run = add_run(r, "random", "memory", "ept", 9007199254740991);
	run->exits_known = 5;
	run->counters.exits_by[0] = 17;
	run->counters.exits_by[2] = 19;
	run->has_sum = run->has_tables = run->has_causes = run->has_histogram = true;
	run->memory_sum = 0xfedcba9876543210;
	run->table_bytes = 4096;
	run->table_bytes_peak = 8192;
	run->table_frame_bytes = 4000;
	run->table_meta_bytes = 96;
	run->cause_cycles[RESULTS_WALK] = 123456789012;
	run->walk_histogram[24] = 7;
	run->params = (struct results_params){ 65536, true, false, 2, 5, 4 };
	run->seed = 42;
	run->vcpus = 3;
	run->mem_bytes = (uint64_t)1 << 40;
	cr_assert_eq(results_add_sample(run, 0.125), 0);
	cr_assert_eq(results_add_sample(run, 0.25), 0);
	run = add_run(r, "trace:a,b\"c", "trace", "shadow", 0);
	snprintf(run->failure, sizeof(run->failure), "the guest was stopped: why");
	point = results_add_point(r);
	snprintf(point->axis, sizeof(point->axis), "exit_cost");
	snprintf(point->scheme, sizeof(point->scheme), "ept");
	snprintf(point->workload, sizeof(point->workload), "random");
	point->factor = 0.25;
	point->value = 384.5;
	point->overhead = -0.125;
}

static char *to_json(const struct results *r, size_t *bytes)
{
	char *text = NULL;
	FILE *f = open_memstream(&text, bytes);

	cr_assert_eq(results_write_json(r, f), 0);
	fclose(f);
	return text;
}

Test(results, what_was_written_is_read)
{
	struct results r, back;
	size_t bytes, again_bytes;
	char *text, *again, why[256];

	make_results(&r);
	text = to_json(&r, &bytes);
	cr_assert_eq(results_parse_json(&back, text, bytes, why, sizeof(why)), 0, "%s", why);
	again = to_json(&back, &again_bytes);
	cr_assert_str_eq(text, again);
	cr_assert_eq(back.runs[0].counters.cycles, 9007199254740991);
	cr_assert_eq(back.runs[1].memory_sum, 0xfedcba9876543210);
	cr_assert_eq(back.runs[1].exits_known, 5);
	cr_assert_eq(back.runs[1].sample_count, 2);
	cr_assert_eq(back.runs[1].walk_histogram[24], 7);
	free(text);
	free(again);
	results_fini(&r);
	results_fini(&back);
}

Test(results, unknown_is_absent_and_never_zero)
{
	struct results r, back;
	char *text, why[256];
	size_t bytes;

	results_init(&r);
	add_run(&r, "random", "memory", "native", 1)->known = 1;
	text = to_json(&r, &bytes);
	cr_assert_not_null(strstr(text, "accesses"));
	cr_assert_null(strstr(text, "walk_refs"));
	cr_assert_null(strstr(text, "memory_sum"));
	cr_assert_null(strstr(text, "table_bytes"));
	cr_assert_eq(results_parse_json(&back, text, bytes, why, sizeof(why)), 0, "%s", why);
	cr_assert_eq(back.runs[0].known, 1);
	cr_assert(!back.runs[0].has_sum && !back.runs[0].has_tables);
	free(text);
	results_fini(&r);
	results_fini(&back);
}

#define HEAD "{\"schema\": \"gnomon.results/1\", "
#define RUN(x)                                                                                     \
	HEAD "\"runs\": [{\"backend\": \"soft\", \"scheme\": \"ept\", \"workload\": \"w\", " x "}" \
	     "]"                                                                                   \
	     "}"
#define COUNTS(x) RUN("\"counters\": {" x "}")

static const struct {
	const char *text, *says; /* NULL: it is right */
} hostile[] = {
	{ COUNTS(""), NULL },
	{ COUNTS("\"unheard_of\": [1, {}]"), NULL },
	{ COUNTS("\"walks\": null"), NULL },
	{ COUNTS("\"walks\": 18446744073709549568"), NULL },
	{ RUN("\"failure\": \"the guest was stopped\""), NULL },
	{ "", "not JSON" },
	{ "{", "not JSON" },
	{ "nonsense", "not JSON" },
	{ "null", "not an object" },
	{ "[]", "not an object" },
	{ "{}", "schema is missing" },
	{ "{\"schema\": 1}", "schema is not a string" },
	{ "{\"schema\": \"gnomon.results/2\"}", "this version reads" },
	{ "{\"schema\": \"gnomon.micro/1\"}", "this version reads" },
	{ HEAD "\"runs\": []}", "nothing to report" },
	{ HEAD "\"runs\": {}}", "runs is not a list" },
	{ HEAD "\"x\": 1}", "runs is missing" },
	{ HEAD "\"runs\": [7]}", "runs[0] is not an object" },
	{ HEAD "\"runs\": [{}]}", "runs[0].backend is missing" },
	{ HEAD "\"host\": 3, \"runs\": []}", "host is not an object" },
	{ HEAD "\"host\": {\"cpu\": {}}, \"runs\": []}", "host.cpu is not a string" },
	{ HEAD "\"quick\": 1, \"runs\": []}", "quick is not true or false" },
	{ HEAD "\"runs\": [{\"backend\": \"soft\", \"scheme\": 7}]}", "scheme is not a string" },
	{ HEAD "\"runs\": [{\"backend\": \"soft\", \"scheme\": \"\"}]}", "scheme is empty" },
	{ HEAD "\"runs\": [{\"backend\": \"a\\u0007\"}]}", "control characters" },
	{ RUN("\"x\": 1"), "counters is missing" },
	{ RUN("\"counters\": []"), "counters is not an object" },
	{ COUNTS("\"walks\": -1"), "runs[0].walks is not a whole number" },
	{ COUNTS("\"walks\": 1.5"), "not a whole number" },
	{ COUNTS("\"walks\": 1e300"), "not a whole number" },
	{ COUNTS("\"walks\": 1e999"), "not a number" },
	{ COUNTS("\"walks\": \"many\""), "not a number" },
	{ COUNTS("\"exits_by\": 1"), "exits_by is not an object" },
	{ COUNTS("\"memory_sum\": 12"), "memory_sum is not a string" },
	{ COUNTS("\"memory_sum\": \"12\""), "hexadecimal" },
	{ COUNTS("\"memory_sum\": \"0xzz\""), "hexadecimal" },
	{ RUN("\"counters\": {}, \"time\": {\"samples_s\": [\"a\"]}"), "not a time" },
	{ RUN("\"counters\": {}, \"time\": {\"samples_s\": [-1]}"), "not a time" },
	{ RUN("\"counters\": {}, \"walk_refs_histogram\": {}"), "not a list" },
	{ RUN("\"counters\": {}, \"walk_refs_histogram\": [-1]"), "not a whole number" },
	{ RUN("\"counters\": {}, \"vcpus\": 1000000"), "vcpus is more than" },
	{ RUN("\"counters\": {}, \"params\": {\"pcid\": 3}"), "pcid is not true or false" },
	{ COUNTS("") " {}", "something follows" },
	{ HEAD "\"runs\": ["
	       "{\"backend\": \"soft\", \"scheme\": \"ept\", \"workload\": \"w\", \"counters\": {}}"
	       "], \"sensitivity\": [{}]}",
	  "sensitivity[0].axis is missing" },
};

Test(results, hostile_files_end_in_one_line)
{
	for (size_t i = 0; i < sizeof(hostile) / sizeof(hostile[0]); i++) {
		char why[256] = "";
		struct results r;
		int err = results_parse_json(&r, hostile[i].text, strlen(hostile[i].text), why,
					     sizeof(why));

		cr_assert_eq(err, hostile[i].says ? -EINVAL : 0, "%s: %d %s", hostile[i].text, err,
			     why);
		if (err) {
			cr_assert_not_null(strstr(why, hostile[i].says), "%s says: %s",
					   hostile[i].text, why);
			cr_assert_null(strchr(why, '\n'));
		} else {
			results_fini(&r);
		}
	}
}

Test(results, long_lists_and_names_are_refused)
{
	char why[256], *text;
	struct results r;

	text = malloc(100000);
	strcpy(text, HEAD "\"runs\": [{\"backend\": \"");
	memset(text + strlen(text) + 1, 0, 1);
	for (int i = 0; i < 5000; i++)
		strcat(text, "a");
	strcat(text, "\"}]}");
	cr_assert_eq(results_parse_json(&r, text, strlen(text), why, sizeof(why)), -EINVAL);
	cr_assert_not_null(strstr(why, "longer than"));
	strcpy(text, RUN("\"counters\": {}, \"walk_refs_histogram\": [0"));
	text[strlen(text) - strlen("}]}")] = '\0';
	for (int i = 0; i < 50; i++)
		strcat(text, ",0");
	strcat(text, "]}]}");
	cr_assert_eq(results_parse_json(&r, text, strlen(text), why, sizeof(why)), -EINVAL);
	cr_assert_not_null(strstr(why, "more than"), "%s", why);
	/* Deep nesting must not eat the stack. */
	memset(text, '[', 50000);
	cr_assert_eq(results_parse_json(&r, text, 50000, why, sizeof(why)), -EINVAL);
	free(text);
}

Test(results, torn_and_flipped_files_do_no_harm)
{
	struct results r, back;
	char *text, why[256];
	uint64_t state = SEED;
	size_t bytes;

	make_results(&r);
	text = to_json(&r, &bytes);
	for (size_t cut = 0; cut + 2 < bytes; cut += 13)
		cr_assert_eq(results_parse_json(&back, text, cut, why, sizeof(why)), -EINVAL,
			     "cut at %zu", cut);
	for (int i = 0; i < 5000; i++) {
		size_t at;
		char kept;
		int err;

		state = state * 6364136223846793005u + 1442695040888963407u;
		at = (size_t)(state >> 33) % bytes;
		kept = text[at];
		text[at] = (char)(state >> 25);
		err = results_parse_json(&back, text, bytes, why, sizeof(why));
		cr_assert(err == 0 || err == -EINVAL, "seed %#x, flip %d at %zu: %d", SEED, i, at,
			  err);
		if (!err)
			results_fini(&back);
		text[at] = kept;
	}
	free(text);
	results_fini(&r);
}

Test(results, csv_has_a_field_per_column)
{
	struct results r;
	char *text = NULL, *line, *save = NULL;
	size_t bytes, columns = 0;
	FILE *f;

	make_results(&r);
	f = open_memstream(&text, &bytes);
	cr_assert_eq(results_write_csv(&r, f), 0);
	fclose(f);
	cr_assert_not_null(strstr(text, "\"trace:a,b\"\"c\""));
	for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		bool quoted = false;
		size_t commas = 1;

		for (const char *at = line; *at; at++) {
			quoted ^= *at == '"';
			commas += *at == ',' && !quoted;
		}
		if (!columns)
			columns = commas;
		cr_assert_eq(commas, columns, "%s", line);
	}
	free(text);
	results_fini(&r);
}

Test(results, medians_and_intervals)
{
	double three[] = { 3, 1, 2 }, four[] = { 4, 1, 3, 2 }, many[21];
	struct stats_summary s = stats_summarise(three, 3);

	cr_assert(s.median == 2 && s.low == 1 && s.high == 3);
	s = stats_summarise(four, 4);
	cr_assert(s.median == 2.5 && s.low == 1 && s.high == 4);
	for (int i = 0; i < 21; i++)
		many[i] = (i * 8) % 21;
	/* P(Binomial(21, 1/2) < 6) = 0.013, < 7 is 0.039: the 6th from each end. */
	s = stats_summarise(many, 21);
	cr_assert(s.median == 10 && s.low == 5 && s.high == 15, "%g %g", s.low, s.high);
}

Test(results, the_grid_tells_the_winner)
{
	struct results r;
	struct summary s;
	char text[32];

	results_init(&r);
	add_run(&r, "fork", "os", "native", 100);
	add_run(&r, "fork", "os", "shadow", 400);
	add_run(&r, "fork", "os", "ept", 150);
	add_run(&r, "fork", "os", "interp", 20000);
	add_run(&r, "random", "memory", "native", 1000);
	add_run(&r, "random", "memory", "shadow", 1010);
	add_run(&r, "random", "memory", "ept", 1500);
	add_run(&r, "random", "memory", "interp", 99000);
	cr_assert_eq(summary_init(&s, &r, "soft"), 0);
	cr_assert_eq(s.workload_count, 2);
	cr_assert_str_eq(s.workloads[0], "random", "memory comes before os");
	cr_assert_str_eq(s.schemes[summary_best(&s, 0)], "shadow");
	cr_assert_str_eq(s.schemes[summary_worst(&s, 0)], "ept", "interp is no worst");
	cr_assert_str_eq(s.schemes[summary_best(&s, 1)], "ept");
	cr_assert_float_eq(summary_geomean(&s, 2, NULL), 1.5, 1e-12);
	cr_assert_float_eq(summary_geomean(&s, 1, NULL), 2.00998, 1e-4);
	cr_assert_float_eq(summary_geomean(&s, 1, "os"), 4, 1e-12);
	cr_assert_str_eq(summary_format_overhead(1.5, text, sizeof(text)), "50");
	cr_assert_str_eq(summary_format_overhead(1.0449, text, sizeof(text)), "4.5");
	cr_assert_str_eq(summary_format_overhead(99, text, sizeof(text)), "×99");
	cr_assert_str_eq(summary_format_overhead(0, text, sizeof(text)), "-");
	summary_fini(&s);
	results_fini(&r);
}
