/* SPDX-License-Identifier: MIT */
/*
 * emit_json.c - see emit_json.h.
 */
#include "emit_json.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "emit.h"

void emit_json_number(cJSON *to, const char *key, double value)
{
	if (isfinite(value))
		cJSON_AddNumberToObject(to, key, value);
	else
		cJSON_AddNullToObject(to, key);
}

int emit_json(cJSON *json, const char *path)
{
	char *text = cJSON_Print(json);
	struct emit e;
	int err;

	cJSON_Delete(json);
	if (!text)
		return -ENOMEM;
	err = emit_open(&e, path);
	if (!err) {
		fprintf(e.file, "%s\n", text);
		err = emit_commit(&e);
	}
	free(text);
	return err;
}
