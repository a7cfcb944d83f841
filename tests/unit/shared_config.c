/* SPDX-License-Identifier: MIT */
/*
 * shared_config.c - the sharing daemon's schema against what it stands for: the sample file and its page, and who is named where.
 */
#include <criterion/criterion.h>
#include <string.h>

#include "sharing/daemon_config.h"
#include "support/schema_files.h"

static struct gn_shared_config parsed(const char *text)
{
	static struct gn_shared_config c;
	char why[400] = "";

	cr_assert_eq(gn_config_parse(&gn_shared_schema, "f", text, &c, why, sizeof(why)), 0, "%s",
		     why);
	return c;
}

Test(shared_config, sample_is_the_defaults)
{
	static struct gn_shared_config sample, least;

	schema_check_sample(&gn_shared_schema, "/packaging/shared.ini", "", &sample, &least);
}

Test(shared_config, every_key_is_in_the_sample_and_the_page)
{
	schema_check_file(&gn_shared_schema, "/packaging/shared.ini");
	schema_check_file(&gn_shared_schema, "/docs/shared.md");
}

Test(shared_config, templates_and_domains_name_their_own)
{
	struct gn_shared_config c = parsed("[domain a]\nvms = d-*\n"
					   "[template a]\nvms = t-*, x\nfile = /a b\n"
					   "[template b]\nfile = /b\nvms =\n");
	static const struct {
		const char *name, *vm;
		bool is_of_domain, is_given;
	} cases[] = {
		{ "a", "d-1", true, false }, { "a", "t-1", false, true }, { "a", "x", false, true },
		{ "a", "xx", false, false }, { "b", "x", false, false },  { "b", "", false, false },
		{ "c", "x", false, false },
	};

	cr_assert(gn_shared_config_has_template(&c, "a") && gn_shared_config_has_template(&c, "b"));
	cr_assert(!gn_shared_config_has_template(&c, "c") &&
		  !gn_shared_config_has_template(&c, ""));
	cr_assert_str_eq(c.template_files.of[0].text, "/a b");
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		cr_assert_eq(gn_shared_config_allows(&c, cases[i].name, cases[i].vm),
			     cases[i].is_of_domain, "case %zu", i);
		cr_assert_eq(gn_shared_config_gives(&c, cases[i].name, cases[i].vm),
			     cases[i].is_given, "case %zu", i);
	}
}

Test(shared_config, a_template_has_a_file_and_vms)
{
	static const struct {
		const char *text, *wanted;
	} wrong[] = {
		{ "[template a]\nfile = /x\n", "vms in [template a] is missing" },
		{ "[template a]\nvms = x\n", "file in [template a] is missing" },
		{ "[template ]\nvms = x\n", ":2:" },
		{ "[template a]\nfile = /x\nquiet = on\n", ":3: no key \"quiet\"" },
		{ "[template a]\nfile = /x\nfile = /y\n", ":3: file of [template a] was given" },
	};
	static struct gn_shared_config c;
	char why[400];

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		cr_assert_eq(gn_config_parse(&gn_shared_schema, "f", wrong[i].text, &c, why,
					     sizeof(why)),
			     -22, "%s", wrong[i].text);
		cr_assert_not_null(strstr(why, wrong[i].wanted), "%s", why);
	}
}
