/* SPDX-License-Identifier: MIT */
/*
 * schema_files.h - a schema against the files that explain it.
 */
#ifndef GN_TESTS_SCHEMA_FILES_H
#define GN_TESTS_SCHEMA_FILES_H

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "control/base.h"
#include "control/config.h"

/* The file, of the source tree, mentions each key. */
static inline void schema_check_file(const struct gn_config_schema *schema, const char *name)
{
	static char text[65536];
	char path[512];
	size_t got;
	FILE *file;

	snprintf(path, sizeof(path), GN_SOURCE_DIR "%s", name);
	file = fopen(path, "r");
	cr_assert_not_null(file, "%s", path);
	got = fread(text, 1, sizeof(text) - 1, file);
	text[got] = '\0';
	fclose(file);
	for (size_t i = 0; i < schema->count; i++)
		cr_assert_not_null(strstr(text, schema->keys[i].name), "%s does not mention %s",
				   name, schema->keys[i].name);
}

/* The sample file shows all defaults: it is like @least, which has what must be there and no more. @sample, @least: room for the values,
 * zeroed. */
static inline void schema_check_sample(const struct gn_config_schema *schema, const char *name,
				       const char *text, void *sample, void *least)
{
	char path[512], why[GN_WHY_BYTES] = "";

	snprintf(path, sizeof(path), GN_SOURCE_DIR "%s", name);
	cr_assert_eq(gn_config_load(schema, path, sample, why, sizeof(why)), 0, "%s", why);
	cr_assert_eq(gn_config_parse(schema, "f", text, least, why, sizeof(why)), 0, "%s", why);
	cr_assert_eq(memcmp(sample, least, schema->values_bytes), 0, "%s", name);
}

#endif
