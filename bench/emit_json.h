/* SPDX-License-Identifier: MIT */
/*
 * emit_json.h - JSON as result files have it: numbers that may not be known, and the file.
 */
#ifndef GN_BENCH_EMIT_JSON_H
#define GN_BENCH_EMIT_JSON_H

#include <cjson/cJSON.h>

/* What is not finite (not known, or never came) is null. */
void emit_json_number(cJSON *to, const char *key, double value);
/* Write @json, which is deleted, to @path, as emit_open() takes it. -ENOMEM, -errno. */
int emit_json(cJSON *json, const char *path);

#endif
