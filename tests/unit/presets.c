/* SPDX-License-Identifier: MIT */
/*
 * presets.c - every figure of every preset has a source and is legal; files and their errors.
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <gnomon/soft.h>

#include "softbackend/preset.h"

Test(presets, every_figure_is_legal_and_has_a_source)
{
	static const char *const wanted[] = { "skylake-sp", "sapphire-rapids", "zen3", "zen4",
					      "dmt",	    "textbook" };
	const struct gn_cpu_preset *p;
	struct gn_preset_figure f;
	char why[200];

	for (unsigned i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++)
		cr_assert_not_null(gn_cpu_preset_find(wanted[i]), "%s", wanted[i]);
	for (unsigned i = 0; (p = gn_cpu_preset_at(i)); i++) {
		unsigned count = 0;

		cr_assert_eq(gn_cpu_preset_check(p, why, sizeof(why)), 0, "%s: %s", p->name, why);
		cr_assert(strlen(gn_cpu_preset_summary(p)) > 10);
		for (; gn_cpu_preset_figure(p, count, &f); count++)
			cr_assert(f.source && *f.source, "%s: %s has no source", p->name, f.key);
		cr_assert_eq(count, GN_FIGURES);
	}
	cr_assert_null(gn_cpu_preset_find("z80"));
}

static double value_of(const struct gn_cpu_preset *p, const char *key)
{
	return p->figure[gn_figure_find(key)].value;
}

Test(presets, varying_changes_one_figure)
{
	const struct gn_cpu_preset *base = gn_cpu_preset_at(0);
	struct gn_cpu_preset *p;

	cr_assert_eq(gn_cpu_preset_vary(base, "exit_cycles", 4000, &p), 0);
	cr_assert_eq(value_of(p, "exit_cycles"), 4000);
	cr_assert_str_eq(p->figure[gn_figure_find("exit_cycles")].source, "varied");
	for (unsigned f = 0; f < GN_FIGURES; f++)
		cr_assert((int)f == gn_figure_find("exit_cycles") ||
			  p->figure[f].value == base->figure[f].value);
	gn_cpu_preset_free(p);
	cr_assert_eq(gn_cpu_preset_vary(base, "no_such_key", 1, &p), -EINVAL);
	cr_assert_eq(gn_cpu_preset_vary(base, "stlb_entries", 1000, &p), -EINVAL);
	cr_assert_eq(gn_cpu_preset_vary(base, "exit_cycles", -1, &p), -EINVAL);
	cr_assert_eq(gn_cpu_preset_vary(base, "exit_cycles", 1.5, &p), -EINVAL);
	cr_assert_eq(gn_cpu_preset_vary(base, "dtlb_4k_entries", 0, &p), -EINVAL);
}

static int load(const char *text, struct gn_cpu_preset **out, char *why, size_t why_bytes)
{
	char path[] = "/tmp/gn-preset-XXXXXX";
	int fd = mkstemp(path), err;

	cr_assert(fd >= 0);
	cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
	err = gn_cpu_preset_load(path, out, why, why_bytes);
	unlink(path);
	return err;
}

Test(presets, a_file_changes_its_base)
{
	struct gn_cpu_preset *p;
	char why[300];

	cr_assert_eq(load("# bigger\nbase = zen4\n\nname = bigger  # a name\n"
			  "stlb_entries= 6144\nclock_ghz =3.25\n",
			  &p, why, sizeof(why)),
		     0, "%s", why);
	cr_assert_str_eq(gn_cpu_preset_name(p), "bigger");
	cr_assert_eq(value_of(p, "stlb_entries"), 6144);
	cr_assert_eq(value_of(p, "clock_ghz"), 3.25);
	cr_assert_eq(value_of(p, "stlb_ways"), 12);
	cr_assert(strstr(p->figure[GN_FIG_STLB_ENTRIES].source, "gn-preset"));
	cr_assert(!p->figure[GN_FIG_STLB_ENTRIES].estimate);
	gn_cpu_preset_free(p);
}

Test(presets, a_bad_file_says_what_and_where)
{
	static const struct {
		const char *text, *says;
	} cases[] = {
		{ "", "'base = PRESET' is missing" },
		{ "stlb_entries = 4\n", ":1: 'base = PRESET' must come first" },
		{ "base = z80\n", ":1: no preset 'z80'" },
		{ "base = zen4\nbase = zen4\n", ":2: base is given twice" },
		{ "base = zen4\nfrobs = 4\n", ":2: unknown key 'frobs'" },
		{ "base = zen4\n\nl1_cycles = fast\n", ":3: 'fast' is not a number" },
		{ "base = zen4\nl1_cycles 4\n", ":2: expected 'key = value'" },
		{ "base = zen4\nl1_cycles =\n", ":2: expected 'key = value'" },
		{ "base = zen4\nl1_ways = 99\n",
		  "l1_ways = 99: must be a whole number from 0 to 16" },
		{ "base = zen4\nl1_cycles = 4.5\n", "l1_cycles = 4.5: must be a whole number" },
		{ "base = zen4\nl1_cycles = nan\n", "l1_cycles = nan: must be" },
		{ "base = zen4\nstlb_ways = 5\n", "must be a whole power of two" },
		{ "base = zen4\nl2_kib = 1000\n", "must be a whole power of two" },
	};
	struct gn_cpu_preset *p;
	char why[300], line[700];

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		cr_assert_eq(load(cases[i].text, &p, why, sizeof(why)), -EINVAL, "%s",
			     cases[i].text);
		cr_assert(strstr(why, cases[i].says), "said '%s', not '%s'", why, cases[i].says);
		cr_assert_null(strchr(why, '\n'));
	}
	memset(line, 'x', sizeof(line) - 1);
	line[sizeof(line) - 1] = '\0';
	cr_assert_eq(load(line, &p, why, sizeof(why)), -EINVAL);
	cr_assert(strstr(why, ":1: the line is longer than"), "%s", why);
	cr_assert_eq(gn_cpu_preset_load("/nonexistent/file", &p, why, sizeof(why)), -EINVAL);
	cr_assert(strstr(why, "No such file"), "%s", why);
}

Test(presets, memory_may_run_out)
{
	struct gn_cpu_preset *p;

	gn_alloc_fail_nth(1);
	cr_assert_eq(gn_cpu_preset_vary(gn_cpu_preset_at(0), "l1_cycles", 5, &p), -ENOMEM);
	gn_alloc_fail_nth(0);
}
