/* SPDX-License-Identifier: MIT */
/*
 * config_value.c - one value of a configuration from its text. Sizes are binary (1G is 1 GiB) as memory is; a time
 * says its unit, because a bare "5" has been read as seconds and as milliseconds by too many people.
 */
#include "config_value.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* A number without sign and its unit, with blanks between allowed. */
static int split_number(const char *text, double *value, const char **unit)
{
	char *end;

	if ((*text < '0' || *text > '9') ||
	    ((text[0] == '0') && (text[1] == 'x' || text[1] == 'X')))
		return -EINVAL;
	*value = strtod(text, &end);
	if (!isfinite(*value))
		return -ERANGE;
	while (*end == ' ' || *end == '\t')
		end++;
	*unit = end;
	return 0;
}

static int scaled(const char *text, const struct gn_unit *units, double *out)
{
	const char *unit;
	double value;
	int err = split_number(text, &value, &unit);

	if (err)
		return err;
	while (units->name && strcasecmp(units->name, unit) != 0)
		units++;
	if (!units->name)
		return -EINVAL;
	value *= units->factor;
	if (value != floor(value))
		return -EINVAL;
	if (value > 0x1p53)
		return -ERANGE;
	*out = value;
	return 0;
}

int gn_config_parse_size(const char *text, uint64_t *bytes)
{
	static const struct gn_unit units[] = {
		{ "", 1 },	   { "B", 1 },	      { "K", 0x1p10 },	 { "KB", 0x1p10 },
		{ "KiB", 0x1p10 }, { "M", 0x1p20 },   { "MB", 0x1p20 },	 { "MiB", 0x1p20 },
		{ "G", 0x1p30 },   { "GB", 0x1p30 },  { "GiB", 0x1p30 }, { "T", 0x1p40 },
		{ "TB", 0x1p40 },  { "TiB", 0x1p40 }, { NULL, 0 },
	};
	double value;
	int err = scaled(text, units, &value);

	if (!err)
		*bytes = (uint64_t)value;
	return err;
}

int gn_config_parse_ms(const char *text, uint64_t *ms)
{
	static const struct gn_unit units[] = {
		{ "ms", 1 },	  { "s", 1000 },    { "sec", 1000 },
		{ "min", 60000 }, { "h", 3600000 }, { NULL, 0 },
	};
	double value;
	int err = scaled(text, units, &value);

	if (!err)
		*ms = (uint64_t)value;
	return err;
}

static int parse_switch(const char *text, bool *out)
{
	static const char *const words[] = { "off", "on", "no", "yes", "false", "true" };

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (!strcasecmp(text, words[i])) {
			*out = i & 1;
			return 0;
		}
	return -EINVAL;
}

static int parse_choice(const char *text, const char *const *choices, unsigned *out)
{
	for (unsigned i = 0; choices[i]; i++)
		if (!strcmp(text, choices[i])) {
			*out = i;
			return 0;
		}
	return -EINVAL;
}

static int parse_number(const char *text, double *out)
{
	const char *rest;
	int err = split_number(text, out, &rest);

	return err ? err : *rest ? -EINVAL : 0;
}

static int parse_whole(const struct gn_config_key *key, const char *text, uint64_t *out)
{
	double value = 0;
	int err = 0;

	if (key->type == GN_CONFIG_SIZE)
		err = gn_config_parse_size(text, out);
	else if (key->type == GN_CONFIG_MS)
		err = gn_config_parse_ms(text, out);
	else
		err = parse_number(text, &value);
	if (!err && key->type == GN_CONFIG_COUNT) {
		if (value != floor(value))
			return -EINVAL;
		if (value > 0x1p53)
			return -ERANGE;
		*out = (uint64_t)value;
	}
	if (!err && ((double)*out < key->min || (double)*out > key->max))
		err = -ERANGE;
	return err;
}

int gn_config_value_parse(const struct gn_config_key *key, const char *text, void *values)
{
	void *to = (char *)values + key->offset;
	uint64_t whole = 0;
	double number = 0;
	int err;

	switch (key->type) {
	case GN_CONFIG_TEXT:
		if (strlen(text) >= (size_t)key->max)
			return -ERANGE;
		memcpy(to, text, strlen(text) + 1);
		return 0;
	case GN_CONFIG_SWITCH:
		return parse_switch(text, to);
	case GN_CONFIG_CHOICE:
		return parse_choice(text, key->choices, to);
	case GN_CONFIG_NUMBER:
		err = parse_number(text, &number);
		if (!err && !(number >= key->min && number <= key->max))
			err = -ERANGE;
		if (!err)
			memcpy(to, &number, sizeof(number));
		return err;
	case GN_CONFIG_SIZE:
	case GN_CONFIG_COUNT:
	case GN_CONFIG_MS:
		err = parse_whole(key, text, &whole);
		if (!err)
			memcpy(to, &whole, sizeof(whole));
		return err;
	case GN_CONFIG_NAMED: /* config.c knows the section */
	case GN_CONFIG_NAMED_SWITCH:
		break;
	}
	return -EINVAL;
}

static void list_choices(const struct gn_config_key *key, char *out, size_t bytes)
{
	size_t at = (size_t)snprintf(out, bytes, "one of");

	for (unsigned i = 0; key->choices[i] && at < bytes; i++)
		at += (size_t)snprintf(out + at, bytes - at, " %s", key->choices[i]);
}

/* A size in the largest unit that shows it whole. */
static void format_size(double value, char *out, size_t bytes)
{
	static const char *const units[] = { "", "K", "M", "G", "T" };
	unsigned unit = 0;

	while (unit < 4 && value >= 1024 && fmod(value, 1024) == 0) {
		value /= 1024;
		unit++;
	}
	snprintf(out, bytes, "%.0f%s", value, units[unit]);
}

void gn_config_value_expect(const struct gn_config_key *key, char *out, size_t bytes)
{
	char low[32], high[32];

	switch (key->type) {
	case GN_CONFIG_TEXT:
		snprintf(out, bytes, "at most %.0f bytes", key->max - 1);
		break;
	case GN_CONFIG_SWITCH:
	case GN_CONFIG_NAMED_SWITCH:
		snprintf(out, bytes, "on or off");
		break;
	case GN_CONFIG_CHOICE:
		list_choices(key, out, bytes);
		break;
	case GN_CONFIG_SIZE:
		format_size(key->min, low, sizeof(low));
		format_size(key->max, high, sizeof(high));
		snprintf(out, bytes, "a size from %s to %s, such as 512M", low, high);
		break;
	case GN_CONFIG_MS:
		snprintf(out, bytes,
			 "a time from %.0f ms to %.0f ms with its unit, such as 250ms or 2s",
			 key->min, key->max);
		break;
	case GN_CONFIG_COUNT:
		snprintf(out, bytes, "a whole number from %.0f to %.0f", key->min, key->max);
		break;
	case GN_CONFIG_NUMBER:
		snprintf(out, bytes, "a number from %g to %g", key->min, key->max);
		break;
	case GN_CONFIG_NAMED:
		snprintf(out, bytes, "a text");
		break;
	}
}
