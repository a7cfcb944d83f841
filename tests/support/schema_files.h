/* SPDX-License-Identifier: MIT */
/*
 * schema_files.h - a schema's keys against the files that explain them.
 */
#ifndef GN_TESTS_SCHEMA_FILES_H
#define GN_TESTS_SCHEMA_FILES_H

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

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

#endif
