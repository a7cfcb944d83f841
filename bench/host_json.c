/* SPDX-License-Identifier: MIT */
/*
 * host_json.c - the same keys in every result file.
 */
#include "host_json.h"

void host_add_json(cJSON *to, const struct host_info *host)
{
	cJSON *json = cJSON_AddObjectToObject(to, "host");
	const struct host_field *field;

	for (unsigned i = 0; (field = host_field(i)); i++) {
		const char *text = (const char *)host + field->offset;

		if (*text)
			cJSON_AddStringToObject(json, field->key, text);
	}
}

void host_add_own_json(cJSON *to)
{
	struct host_info host;

	host_probe(&host);
	host_add_json(to, &host);
}
