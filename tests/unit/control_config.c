/* SPDX-License-Identifier: MIT */
/*
 * control_config.c - a configuration is taken whole or refused with the line that says why.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control/config.h"

struct values {
	char path[16];
	uint64_t budget_bytes, count, period_ms;
	double tau;
	unsigned mode;
	bool is_on;
};

static const char *const modes[] = { "esx", "static", NULL };

static const struct gn_config_key keys[] = {
	{ "main", "path", GN_CONFIG_TEXT, offsetof(struct values, path), 0, 16, NULL, "/x", "" },
	{ "main", "budget", GN_CONFIG_SIZE, offsetof(struct values, budget_bytes), 0x1p20, 0x1p40,
	  NULL, NULL, "" },
	{ "main", "count", GN_CONFIG_COUNT, offsetof(struct values, count), 1, 10, NULL, "3", "" },
	{ "policy", "period", GN_CONFIG_MS, offsetof(struct values, period_ms), 100, 60000, NULL,
	  "1s", "" },
	{ "policy", "tau", GN_CONFIG_NUMBER, offsetof(struct values, tau), 0, 1, NULL, "0.75", "" },
	{ "policy", "mode", GN_CONFIG_CHOICE, offsetof(struct values, mode), 0, 0, modes, "esx",
	  "" },
	{ "policy", "on", GN_CONFIG_SWITCH, offsetof(struct values, is_on), 0, 0, NULL, "no", "" },
};

static const struct gn_config_schema schema = { keys, sizeof(keys) / sizeof(keys[0]),
						sizeof(struct values) };

Test(control_config, whole_file)
{
	static const char text[] =
		"\xef\xbb\xbf# comment\n[main]\npath = /a b\nbudget = 1.5 GiB ; of all\n\n"
		"[policy]\n  period: 250ms\n  tau = 0.5\n mode=static\non = Yes";
	struct values v;
	char why[300];

	cr_assert_eq(gn_config_parse(&schema, "f", text, &v, why, sizeof(why)), 0, "%s", why);
	cr_assert_str_eq(v.path, "/a b");
	cr_assert_eq(v.budget_bytes, (uint64_t)3 << 29);
	cr_assert_eq(v.count, 3, "the default");
	cr_assert_eq(v.period_ms, 250);
	cr_assert_eq(v.tau, 0.5);
	cr_assert_eq(v.mode, 1);
	cr_assert(v.is_on);
}

Test(control_config, refusals)
{
	static const struct {
		const char *text, *why;
	} cases[] = {
		{ "[main]\nbudget=1G\nbudgt=2G\n",
		  "f:3: no key \"budgt\" in [main]; it has path, budget, count" },
		{ "[mian]\nbudget=1G\n",
		  "f:2: \"budget\" in unknown section [mian]; there are [main], [policy]" },
		{ "budget=1G\n",
		  "f:1: \"budget\" in unknown section []; there are [main], [policy]" },
		{ "[main]\nbudget=1Q\n",
		  "f:2: budget = \"1Q\": it takes a size from 1M to 1T, such as 512M" },
		{ "[main]\nbudget=1K\n", "f:2: budget = \"1K\": it takes a size from 1M to 1T" },
		{ "[main]\nbudget=-1G\n", "f:2: budget = \"-1G\": it takes" },
		{ "[main]\nbudget=\n", "f:2: budget = \"\": it takes" },
		{ "[main]\nbudget=nan\n", "f:2: budget = \"nan\": it takes" },
		{ "[main]\nbudget=1e400\n", "f:2: budget = \"1e400\": it takes" },
		{ "[main]\nbudget=0x10000000\n", "f:2: budget" },
		{ "[main]\nbudget=1G\ncount=11\n",
		  "f:3: count = \"11\": it takes a whole number from 1 to 10" },
		{ "[main]\nbudget=1G\ncount=1.5\n", "f:3: count" },
		{ "[main]\nbudget=1G\ncount=3x\n", "f:3: count" },
		{ "[main]\nbudget=1G\n\n[policy]\nperiod=5\n",
		  "f:5: period = \"5\": it takes a time from 100 ms to 60000 ms with its unit" },
		{ "[main]\nbudget=1G\n[policy]\nperiod=2h\n", "f:4: period" },
		{ "[main]\nbudget=1G\n[policy]\ntau=1.5\n",
		  "f:4: tau = \"1.5\": it takes a number from 0 to 1" },
		{ "[main]\nbudget=1G\n[policy]\nmode=xen\n",
		  "f:4: mode = \"xen\": it takes one of esx static" },
		{ "[main]\nbudget=1G\n[policy]\non=maybe\n",
		  "f:4: on = \"maybe\": it takes on or off" },
		{ "[main]\npath=/0123456789012345\nbudget=1G\n", "f:2: path" },
		{ "[main]\nbudget=1G\nbudget=2G\n", "f:3: budget was given in line 2 already" },
		{ "[main]\nbudget 1G\n", "f:2: neither [section] nor key = value" },
		{ "[main\nbudget=1G\n", "f:1: neither" },
		{ "[main]\ncount=2\n", "f: budget in [main] is missing; it takes a size" },
		{ "", "f: budget in [main] is missing" },
		{ "[main]\nbudget=1G\n"
		  "#0123456789012345678901234567890123456789012345678901234567890123456789012345678"
		  "901234"
		  "56789012345678901234567890123456789012345678901234567890123456789012345678901234"
		  "567890"
		  "1234567890123456789012345678901234567890\n",
		  "f:3: the line is longer than" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct values v = { .count = 42 };
		char why[400] = "";

		cr_assert_eq(gn_config_parse(&schema, "f", cases[i].text, &v, why, sizeof(why)),
			     -EINVAL, "%s", cases[i].text);
		cr_assert(!strncmp(why, cases[i].why, strlen(cases[i].why)), "\"%s\" is not \"%s\"",
			  why, cases[i].why);
		cr_assert_null(strchr(why, '\n'), "%s", why);
		cr_assert_eq(v.count, 42, "nothing is taken of a wrong file");
	}
}

Test(control_config, files)
{
	char path[] = "/tmp/gn_config_XXXXXX", why[300];
	struct values v;
	int fd = mkstemp(path);

	cr_assert_geq(fd, 0);
	cr_assert_eq(write(fd, "[main]\nbudget=1G\n", 17), 17);
	cr_assert_eq(gn_config_load(&schema, path, &v, why, sizeof(why)), 0, "%s", why);
	cr_assert_eq(v.budget_bytes, (uint64_t)1 << 30);
	cr_assert_eq(write(fd, "\0x", 2), 2);
	cr_assert_eq(gn_config_load(&schema, path, &v, why, sizeof(why)), -EINVAL);
	cr_assert_not_null(strstr(why, "NUL"));
	cr_assert_eq(ftruncate(fd, 1 << 20), 0);
	cr_assert_eq(gn_config_load(&schema, path, &v, why, sizeof(why)), -EFBIG);
	close(fd);
	unlink(path);
	cr_assert_eq(gn_config_load(&schema, path, &v, why, sizeof(why)), -ENOENT);
	cr_assert_not_null(strstr(why, path));
	cr_assert_eq(gn_config_load(&schema, "/tmp", &v, why, sizeof(why)), -EIO);
}

/* Sections that the file names: each is told with its name, and only once. */
Test(control_config, named_sections)
{
	struct named {
		struct gn_config_names names;
		struct gn_config_switches switches;
	};
	static const struct gn_config_key named_keys[] = {
		{ "group *", "members", GN_CONFIG_NAMED, offsetof(struct named, names), 0, 0, NULL,
		  NULL, "" },
		{ "group *", "shy", GN_CONFIG_NAMED_SWITCH, offsetof(struct named, switches), 0, 0,
		  NULL, NULL, "" },
	};
	static const struct gn_config_schema named = { named_keys, 2, sizeof(struct named) };
	static const char *const wrong[][2] = {
		{ "[group x]\nmembers = a\nshy = very\n",
		  "f:3: shy = \"very\": it takes on or off" },
		{ "[group x]\nmembers = a\nshy = on\nshy = on\n",
		  "f:4: shy of [group x] was given" },
		{ "[group x]\nmembers = a\n[group y]\nshy = on\n",
		  "members in [group y] is missing; shy there" },
		{ "[group x]\nmembers = a\nsly = on\n", "it has members, shy" },
		{ "[group ]\nmembers = a\n", "unknown section" },
		{ "[group *]\nmember = a\n", "no key" },
		{ "[groups]\nmembers = a\n", "unknown section" },
		{ "[group x]\nmembers = a\n[group x]\nmembers = b\n", "given already" },
		{ "[group a-name-of-more-than-forty-seven-bytes-is-too-long]\nmembers = a\n",
		  "at most 49 bytes" },
	};
	static struct named v;
	char why[300];

	cr_assert_eq(gn_config_parse(&named, "f",
				     "[group a]\nmembers = x y*\n"
				     "[group b c]\nshy = yes\nmembers=\n"
				     "[group d]\nmembers=z\nshy = off\n",
				     &v, why, sizeof(why)),
		     0, "%s", why);
	cr_assert_eq(v.names.count, 3);
	cr_assert_str_eq(v.names.of[0].name, "a");
	cr_assert_str_eq(v.names.of[0].text, "x y*");
	cr_assert_str_eq(v.names.of[1].name, "b c");
	cr_assert_str_eq(v.names.of[1].text, "");
	cr_assert_eq(v.switches.count, 2);
	cr_assert_str_eq(v.switches.of[0].name, "b c");
	cr_assert(v.switches.of[0].is_on);
	cr_assert_str_eq(v.switches.of[1].name, "d");
	cr_assert_not(v.switches.of[1].is_on);
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		cr_assert_eq(gn_config_parse(&named, "f", wrong[i][0], &v, why, sizeof(why)),
			     -EINVAL);
		cr_assert(strstr(why, wrong[i][1]), "%s", why);
	}
	cr_assert_eq(gn_config_parse(&named, "f", "", &v, why, sizeof(why)), 0);
	cr_assert_eq(v.names.count, 0, "there may be none");
}
