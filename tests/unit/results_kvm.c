/* SPDX-License-Identifier: MIT */
/*
 * results_kvm.c - runs on real hardware in result files and tables: what was written is read back, nothing unknown
 * becomes a number, the label is everywhere, and modelled runs are never held against measured ones.
 */
#include <criterion/criterion.h>
#include <errno.h>

#include "bench/compare_table.h"
#include "bench/measured.h"
#include "bench/results.h"
#include "bench/summary.h"

static struct results_run *add_run(struct results *r, const char *backend, const char *workload,
				   const char *scheme)
{
	struct results_run *run = results_add_run(r);

	cr_assert_not_null(run);
	snprintf(run->backend, sizeof(run->backend), "%s", backend);
	snprintf(run->workload, sizeof(run->workload), "%s", workload);
	snprintf(run->group, sizeof(run->group), "memory");
	snprintf(run->scheme, sizeof(run->scheme), "%s", scheme);
	run->mem_bytes = (uint64_t)1 << 30;
	return run;
}

static struct results_run *add_kvm(struct results *r, const char *workload, const char *scheme,
				   double seconds, size_t samples)
{
	struct results_run *run = add_run(r, "kvm", workload, scheme);

	run->kvm.is_present = true;
	snprintf(run->kvm.module, sizeof(run->kvm.module), "kvm_pvm");
	run->kvm.paging = RESULTS_PAGING_SOFTWARE;
	run->kvm.smap = true;
	for (size_t i = 0; i < samples; i++) {
		cr_assert_eq(results_add_sample(run, seconds + (double)i / 1024), 0);
		cr_assert_eq(results_add_whole(run, 2 + (double)i), 0);
	}
	run->kvm.has_exit_time = true;
	run->kvm.exit_of_s = seconds;
	run->kvm.exit_s[GN_EXIT_PT_WRITE] = seconds / 4;
	run->kvm.exit_s[GN_EXIT_PAGE_FAULT] = seconds / 8;
	run->exits_known = (1u << GN_EXIT_REASONS) - 1;
	run->counters.exits_by[GN_EXIT_PT_WRITE] = 812;
	run->counters.exits_by[GN_EXIT_PAGE_FAULT] = 96;
	run->counters.exits = 908;
	run->kvm.has_ops = true;
	run->kvm.ops.hash = 0xfedcba9876543210;
	run->kvm.ops.count[GN_GUEST_OP_TABLE_WRITE] = 4711;
	return run;
}

static char *to_text(int (*write)(const struct results *r, FILE *to), const struct results *r,
		     size_t *bytes)
{
	char *text = NULL;
	FILE *f = open_memstream(&text, bytes);

	cr_assert_eq(write(r, f), 0);
	fclose(f);
	return text;
}

Test(results_kvm, what_was_written_is_read)
{
	struct results r, back;
	char *text, *again, why[256];
	size_t bytes, again_bytes;
	const struct results_kvm *kvm;

	results_init(&r);
	add_kvm(&r, "random", "shadow", 0.25, 3);
	snprintf(add_kvm(&r, "random", "ept", 0.25, 0)->failure, RESULTS_TEXT, "it failed");
	text = to_text(results_write_json, &r, &bytes);
	cr_assert_null(strstr(text, "\"cpu\""), "no preset modelled this");
	cr_assert_null(strstr(text, "\"accesses\""), "unknown is absent");
	cr_assert_not_null(strstr(text, "none of this is the cost of EPT or NPT"));
	cr_assert_eq(results_parse_json(&back, text, bytes, why, sizeof(why)), 0, "%s", why);
	again = to_text(results_write_json, &back, &again_bytes);
	cr_assert_str_eq(text, again);
	kvm = &back.runs[0].kvm;
	cr_assert_eq(kvm->paging, RESULTS_PAGING_SOFTWARE);
	cr_assert(kvm->smap && !kvm->smep && kvm->has_exit_time && kvm->has_ops);
	cr_assert_eq(kvm->ops.hash, 0xfedcba9876543210);
	cr_assert_eq(kvm->ops.count[GN_GUEST_OP_TABLE_WRITE], 4711);
	cr_assert_float_eq(kvm->exit_s[GN_EXIT_PT_WRITE], 0.0625, 1e-12);
	cr_assert_eq(kvm->whole_count, 3);
	cr_assert_float_eq(results_whole_median(&back.runs[0]), 3, 1e-12);
	cr_assert_str_eq(back.runs[1].failure, "it failed");
	cr_assert(back.runs[1].kvm.is_present, "a failed run says where it failed");
	free(text);
	free(again);
	results_fini(&r);
	results_fini(&back);
}

#define HEAD                                                                                       \
	"{\"schema\": \"gnomon.results/1\", \"runs\": [{\"backend\": \"kvm\", \"scheme\": "        \
	"\"ept\", \"workload\": \"w\", \"counters\": {}, "
static const struct {
	const char *text, *says; /* NULL: it is right */
} hostile[] = {
	{ HEAD "\"kvm\": {}}]}", NULL },
	{ HEAD "\"kvm\": {\"nested_paging\": \"by magic\"}}]}", NULL },
	{ HEAD "\"exit_time\": {\"over_s\": 0, \"by_s\": {}}}]}", NULL },
	{ HEAD "\"kvm\": 3}]}", "kvm is not an object" },
	{ HEAD "\"kvm\": {\"module\": 3}}]}", "module is not a string" },
	{ HEAD "\"kvm\": {\"guest_smep\": 3}}]}", "guest_smep is not true or false" },
	{ HEAD "\"exit_time\": {}}]}", "by_s is missing" },
	{ HEAD "\"exit_time\": {\"by_s\": {}}}]}", "over_s is missing" },
	{ HEAD "\"exit_time\": {\"over_s\": -1, \"by_s\": {}}}]}", "not a time" },
	{ HEAD "\"exit_time\": {\"over_s\": 1, \"by_s\": {\"hlt\": -1}}}]}", "not a time" },
	{ HEAD "\"time\": {\"whole_s\": [-1]}}]}", "not a time" },
	{ HEAD "\"guest_ops\": {\"cr3\": 1.5}}]}", "not a whole number" },
};

Test(results_kvm, hostile_files_end_in_one_line)
{
	for (size_t i = 0; i < sizeof(hostile) / sizeof(hostile[0]); i++) {
		char why[256] = "";
		struct results r;
		int err = results_parse_json(&r, hostile[i].text, strlen(hostile[i].text), why,
					     sizeof(why));

		cr_assert_eq(err, hostile[i].says ? -EINVAL : 0, "%s: %d %s", hostile[i].text, err,
			     why);
		if (err)
			cr_assert_not_null(strstr(why, hostile[i].says), "%s says: %s",
					   hostile[i].text, why);
		else
			results_fini(&r);
	}
}

Test(results_kvm, csv_carries_the_label_and_a_field_per_column)
{
	char *text, *line, *save = NULL;
	size_t bytes, columns = 0;
	struct results r;

	results_init(&r);
	add_kvm(&r, "random", "shadow", 0.25, 1);
	add_run(&r, "soft", "random", "shadow")->counters.cycles = 5;
	text = to_text(results_write_csv, &r, &bytes);
	cr_assert_not_null(strstr(text, "kvm_pvm,software,\"Measured on this host"));
	for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		bool quoted = false;
		size_t commas = 1;

		for (const char *at = line; *at; at++) {
			quoted ^= *at == '"';
			commas += *at == ',' && !quoted;
		}
		columns = columns ? columns : commas;
		cr_assert_eq(commas, columns, "%s", line);
	}
	free(text);
	results_fini(&r);
}

Test(results_kvm, labels_never_sell_software_as_ept)
{
	static const struct {
		const char *module;
		enum results_paging paging;
		const char *says;
	} cases[] = {
		{ "kvm_pvm", RESULTS_PAGING_SOFTWARE, "none of this is the cost of EPT or NPT" },
		{ "kvm_intel", RESULTS_PAGING_SOFTWARE, "none of this is the cost of EPT or NPT" },
		{ "kvm_intel", RESULTS_PAGING_HARDWARE, "hardware nested paging (EPT)" },
		{ "kvm_amd", RESULTS_PAGING_HARDWARE, "hardware nested paging (NPT)" },
		{ "kvm_new", RESULTS_PAGING_HARDWARE, "hardware nested paging," },
		{ "", RESULTS_PAGING_UNKNOWN, "not known" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct results_run run = { .kvm = { .paging = cases[i].paging } };
		char label[512];

		snprintf(run.kvm.module, sizeof(run.kvm.module), "%s", cases[i].module);
		results_label(&run, label, sizeof(label));
		cr_assert_not_null(strstr(label, cases[i].says), "%zu: %s", i, label);
	}
}

Test(results_kvm, backends_are_never_mixed_in_a_grid)
{
	struct results_run *run;
	struct results r;
	struct summary s;

	results_init(&r);
	run = add_run(&r, "soft", "random", "native");
	run->counters.cycles = 1000;
	run = add_run(&r, "soft", "random", "ept");
	run->counters.cycles = 1500;
	add_kvm(&r, "random", "ept", 0.5, 1);
	add_kvm(&r, "random", "shadow", 0.25, 1);
	cr_assert_str_eq(results_backend_at(&r, 0), "soft");
	cr_assert_str_eq(results_backend_at(&r, 1), "kvm");
	cr_assert_null(results_backend_at(&r, 2));
	cr_assert_eq(summary_init(&s, &r, "soft"), 0);
	cr_assert(!s.is_measured && s.has_baseline && s.scheme_count == 2);
	cr_assert_float_eq(summary_ratio(&s, 0, 1), 1.5, 1e-12);
	summary_fini(&s);
	cr_assert_eq(summary_init(&s, &r, "kvm"), 0);
	cr_assert(s.is_measured && !s.has_baseline && s.scheme_count == 2);
	cr_assert_str_eq(s.schemes[summary_best(&s, 0)], "shadow");
	cr_assert_float_eq(summary_ratio(&s, 0, 0), 2, 1e-12, "over the fastest");
	summary_fini(&s);
	results_fini(&r);
}

/* Two schemes a hair apart are both best, once there are enough samples to say that they cannot be told apart. */
Test(results_kvm, overlapping_intervals_are_a_tie)
{
	for (size_t samples = 5; samples <= 9; samples += 4) {
		struct results r;
		struct summary s;

		results_init(&r);
		add_kvm(&r, "random", "shadow", 0.2500, samples);
		add_kvm(&r, "random", "ept", 0.2501, samples);
		add_kvm(&r, "random", "shadow-vtlb", 0.5, samples);
		cr_assert_eq(summary_init(&s, &r, "kvm"), 0);
		cr_assert(summary_is_best(&s, 0, 0));
		cr_assert_eq(summary_is_best(&s, 0, 1), samples >= 6, "%zu samples", samples);
		cr_assert(!summary_is_best(&s, 0, 2));
		summary_fini(&s);
		results_fini(&r);
	}
}

Test(results_kvm, the_table_says_who_was_faster_and_why)
{
	struct results r;
	struct summary s;
	char *text = NULL;
	size_t bytes;
	FILE *f;

	results_init(&r);
	add_kvm(&r, "random", "shadow", 0.25, 1);
	add_kvm(&r, "random", "ept", 0.75, 1);
	snprintf(add_kvm(&r, "kv", "shadow", 0, 0)->failure, RESULTS_TEXT, "it failed");
	cr_assert_eq(summary_init(&s, &r, "kvm"), 0);
	f = open_memstream(&text, &bytes);
	compare_table_print(&s, f, false);
	fclose(f);
	cr_assert_not_null(strstr(text, "none of this is the cost of EPT or NPT"));
	cr_assert_not_null(strstr(text, "250 ms  *"), "%s", text);
	cr_assert_not_null(strstr(text, "750 ms  ×3.0"), "%s", text);
	cr_assert_not_null(strstr(text, "pt_write 812 (25 %), page_fault 96 (12 %)"), "%s", text);
	cr_assert_not_null(strstr(text, "failed"));
	cr_assert_null(strstr(text, "modelled"));
	cr_assert_null(strstr(text, "native"));
	free(text);
	summary_fini(&s);
	results_fini(&r);
}

Test(results_kvm, times_for_people)
{
	static const struct {
		double seconds;
		const char *text;
	} times[] = { { 12.345, "12.3 s" },	{ 1, "1.00 s" },       { 0.25, "250 ms" },
		      { 0.0099996, "10.0 ms" }, { 4.5e-5, "45.0 us" }, { 3e-9, "3.00 ns" },
		      { 0.9999, "1.00 s" },	{ 123.4, "123 s" } };
	static const struct {
		double ratio;
		const char *text;
	} ratios[] = { { 0, "" },	  { 1, "" },	   { 1.0004, "" }, { 1.004, "+0.4 %" },
		       { 1.23, "+23 %" }, { 2.4, "×2.4" }, { 46.2, "×46" } };
	char text[32];

	for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++)
		cr_assert_str_eq(summary_format_seconds(times[i].seconds, text, sizeof(text)),
				 times[i].text, "%s", text);
	for (size_t i = 0; i < sizeof(ratios) / sizeof(ratios[0]); i++)
		cr_assert_str_eq(summary_format_slower(ratios[i].ratio, text, sizeof(text)),
				 ratios[i].text, "%s", text);
}
