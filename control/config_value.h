/* SPDX-License-Identifier: MIT */
/*
 * config_value.h - one value of a configuration, for config.c.
 */
#ifndef GN_CONTROL_CONFIG_VALUE_H
#define GN_CONTROL_CONFIG_VALUE_H

#include "config.h"

#ifdef __cplusplus
extern "C" {
#endif

struct gn_unit {
	const char *name;
	double factor;
};

/* @text into the place of @key in *values. -EINVAL: not of its type; -ERANGE. The place is untouched then. */
int gn_config_value_parse(const struct gn_config_key *, const char *text, void *values);
/* What would have been right, in words. */
void gn_config_value_expect(const struct gn_config_key *, char *out, size_t bytes);

#ifdef __cplusplus
}
#endif

#endif
