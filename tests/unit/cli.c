/* SPDX-License-Identifier: MIT */
/*
 * cli.c - what the command's arguments are understood as.
 */
#include <criterion/criterion.h>
#include <errno.h>

#include "bench/cli.h"

Test(cli, sizes)
{
	static const struct {
		const char *text;
		int err;
		uint64_t bytes;
	} cases[] = {
		{ "0", 0, 0 },
		{ "4096", 0, 4096 },
		{ "1K", 0, 1024 },
		{ "1k", 0, 1024 },
		{ "64KiB", 0, 65536 },
		{ "64KB", 0, 65536 },
		{ "512M", 0, (uint64_t)512 << 20 },
		{ "1G", 0, (uint64_t)1 << 30 },
		{ "1.5G", 0, (uint64_t)3 << 29 },
		{ "2T", 0, (uint64_t)2 << 40 },
		{ "10B", 0, 10 },
		{ "9007199254740993", 0, 9007199254740993 },
		{ "18446744073709551615", 0, UINT64_MAX },
		{ "18446744073709551616", -ERANGE, 0 },
		{ "16777216T", -ERANGE, 0 },
		{ "1e30G", -ERANGE, 0 },
		{ "0.3", -EINVAL, 0 },
		{ "0.0001K", -EINVAL, 0 },
		{ "", -EINVAL, 0 },
		{ "G", -EINVAL, 0 },
		{ "-1", -EINVAL, 0 },
		{ "+1", -EINVAL, 0 },
		{ " 1", -EINVAL, 0 },
		{ "1 G", -EINVAL, 0 },
		{ "1Q", -EINVAL, 0 },
		{ "1GG", -EINVAL, 0 },
		{ "1Gi", -EINVAL, 0 },
		{ "12Q", -EINVAL, 0 },
		{ "0x10", -EINVAL, 0 },
		{ "nan", -EINVAL, 0 },
		{ "inf", -EINVAL, 0 },
		{ "1.5.5G", -EINVAL, 0 },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t bytes = 0;

		cr_assert_eq(cli_parse_size(cases[i].text, &bytes), cases[i].err, "\"%s\"",
			     cases[i].text);
		cr_assert_eq(bytes, cases[i].bytes, "\"%s\"", cases[i].text);
	}
}

Test(cli, counts)
{
	static const struct {
		const char *text;
		int err;
		uint64_t value;
	} cases[] = {
		{ "1", 0, 1 },	      { "10", 0, 10 },	     { "0xa", 0, 10 },
		{ "0", -ERANGE, 0 },  { "11", -ERANGE, 0 },  { "99999999999999999999", -ERANGE, 0 },
		{ "", -EINVAL, 0 },   { "-1", -EINVAL, 0 },  { "3x", -EINVAL, 0 },
		{ "0x", -EINVAL, 0 }, { "1.5", -EINVAL, 0 }, { " 3", -EINVAL, 0 },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t value = 0;

		cr_assert_eq(cli_parse_count(cases[i].text, 1, 10, &value), cases[i].err, "\"%s\"",
			     cases[i].text);
		cr_assert_eq(value, cases[i].value, "\"%s\"", cases[i].text);
	}
}

Test(cli, switches)
{
	bool on = false;

	cr_assert(!cli_parse_switch("on", &on) && on);
	cr_assert(!cli_parse_switch("no", &on) && !on);
	cr_assert_eq(cli_parse_switch("maybe", &on), -EINVAL);
}

Test(cli, lists)
{
	static const struct {
		const char *text, *joined;
	} cases[] = {
		{ "a", "a" },	   { "a,b", "a|b" },   { "a, b ,c", "a|b|c" },
		{ "a,,b", "a|b" }, { "a,b,a", "a|b" }, { ",", "" },
		{ "", "" },	   { " , ,", "" },     { "x y,z", "x y|z" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char joined[64] = "";
		struct cli_list list;

		cr_assert_eq(cli_parse_list(cases[i].text, &list), 0);
		for (size_t j = 0; j < list.count; j++) {
			strcat(joined, j ? "|" : "");
			strcat(joined, list.items[j]);
		}
		cr_assert_str_eq(joined, cases[i].joined, "\"%s\"", cases[i].text);
		cli_list_fini(&list);
	}
}

static const char *name_at(unsigned i)
{
	static const char *const names[] = { "compare", "run", "report", "shadow-vtlb" };

	return i < 4 ? names[i] : NULL;
}

Test(cli, nearest)
{
	static const struct {
		const char *text, *near;
	} cases[] = {
		{ "comapre", "compare" },
		{ "compar", "compare" },
		{ "rnu", "run" },
		{ "rep", "report" },
		{ "shadow_vtlb", "shadow-vtlb" },
		{ "zzz", NULL },
		{ "", NULL },
		{ "c", NULL },
	};
	char longest[300];

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const char *near = cli_nearest(cases[i].text, name_at);

		if (!cases[i].near)
			cr_assert_null(near, "\"%s\"", cases[i].text);
		else
			cr_assert_str_eq(near, cases[i].near, "\"%s\"", cases[i].text);
	}
	memset(longest, 'a', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	cr_assert_null(cli_nearest(longest, name_at));
}

Test(cli, bytes)
{
	static const struct {
		uint64_t bytes;
		const char *text;
	} cases[] = {
		{ 0, "0 B" },
		{ 1023, "1023 B" },
		{ 4096, "4 KiB" },
		{ 1536, "1.5 KiB" },
		{ (uint64_t)1 << 30, "1 GiB" },
		{ 123456789, "118 MiB" },
		{ (uint64_t)5 << 50, "5120 TiB" },
	};
	char out[32];

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		cr_assert_str_eq(cli_format_bytes(cases[i].bytes, out, sizeof(out)), cases[i].text);
}
