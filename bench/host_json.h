/* SPDX-License-Identifier: MIT */
/*
 * host_json.h - the machine as part of a result file.
 */
#ifndef GN_BENCH_HOST_JSON_H
#define GN_BENCH_HOST_JSON_H

#include <cjson/cJSON.h>

#include "host.h"

/* An object "host" of @to, with what is known. */
void host_add_json(cJSON *to, const struct host_info *host);
/* Of the machine we are on. */
void host_add_own_json(cJSON *to);

#endif
