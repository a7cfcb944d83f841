/* SPDX-License-Identifier: MIT */
/*
 * json_read.c - the look before the parser, and typed members after it.
 *
 * cJSON is a fine parser with habits that matter when the text is hostile: it recurses up to 1000 levels, passes
 * bytes that are no UTF-8, and turns "\u0000" into a string that C cuts short (so that "root\u0000x" would be
 * equal to "root"). All three end at the scan below. It tracks strings only as far as needed to know what is
 * inside one; whether the text is JSON at all remains the parser's question.
 */
#include "json.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static bool in_range(unsigned char c, unsigned char low, unsigned char high)
{
	return c >= low && c <= high;
}

size_t gn_utf8_sequence(const unsigned char *s, size_t bytes)
{
	unsigned char low = 0x80, high = 0xbf;
	size_t length;

	if (!bytes)
		return 0;
	if (s[0] < 0x80)
		return 1;
	if (in_range(s[0], 0xc2, 0xdf))
		length = 2;
	else if (in_range(s[0], 0xe0, 0xef))
		length = 3;
	else if (in_range(s[0], 0xf0, 0xf4))
		length = 4;
	else
		return 0;
	/* The second byte excludes overlong forms, surrogates and what is past U+10FFFF. */
	if (s[0] == 0xe0)
		low = 0xa0;
	else if (s[0] == 0xed)
		high = 0x9f;
	else if (s[0] == 0xf0)
		low = 0x90;
	else if (s[0] == 0xf4)
		high = 0x8f;
	if (length > bytes || !in_range(s[1], low, high))
		return 0;
	for (size_t i = 2; i < length; i++)
		if (!in_range(s[i], 0x80, 0xbf))
			return 0;
	return length;
}

/* A constant string if the text is refused, else NULL. */
static const char *scan(const unsigned char *text, size_t bytes)
{
	bool in_string = false;
	unsigned depth = 0;

	for (size_t i = 0, step; i < bytes; i += step) {
		unsigned char c = text[i];

		step = gn_utf8_sequence(text + i, bytes - i);
		if (!step)
			return "invalid UTF-8";
		if (!c)
			return "a NUL byte";
		if (in_string && c == '\\') {
			if (bytes - i >= 6 && !memcmp(text + i, "\\u0000", 6))
				return "\\u0000 in a string";
			step = bytes - i >= 2 && text[i + 1] < 0x80 ? 2 : 1;
		} else if (c == '"') {
			in_string = !in_string;
		} else if (in_string && c < ' ') {
			return "a control character in a string";
		} else if (!in_string && (c == '{' || c == '[')) {
			if (++depth > GN_JSON_MAX_DEPTH)
				return "nested too deeply";
		} else if (!in_string && (c == '}' || c == ']') && depth) {
			depth--;
		}
	}
	return NULL;
}

int gn_json_parse(const char *text, size_t bytes, cJSON **out, const char **why)
{
	const char *end = NULL;
	cJSON *value;

	*why = scan((const unsigned char *)text, bytes);
	if (*why)
		return -EINVAL;
	value = cJSON_ParseWithLengthOpts(text, bytes, &end, false);
	while (value && end < text + bytes && strchr(" \t\r\n", *end))
		end++;
	if (!value || end != text + bytes) {
		cJSON_Delete(value);
		*why = "not JSON";
		return -EINVAL;
	}
	*out = value;
	return 0;
}

__attribute__((format(printf, 2, 3))) static void fail(struct gn_json_errors *errors,
						       const char *format, ...)
{
	va_list args;

	if (errors->failed)
		return;
	errors->failed = true;
	va_start(args, format);
	vsnprintf(errors->why, sizeof(errors->why), format, args);
	va_end(args);
}

static const cJSON *member(struct gn_json_errors *errors, const cJSON *object, const char *key,
			   enum gn_json_presence presence)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);

	if (item && !cJSON_IsNull(item))
		return item;
	if (presence == GN_JSON_REQUIRED)
		fail(errors, "\"%s\" is missing", key);
	return NULL;
}

bool gn_json_get_double(struct gn_json_errors *errors, const cJSON *object, const char *key,
			enum gn_json_presence presence, double min, double max, double *out)
{
	const cJSON *item = member(errors, object, key, presence);

	if (!item)
		return false;
	if (!cJSON_IsNumber(item) || !(item->valuedouble >= min && item->valuedouble <= max)) {
		fail(errors, "\"%s\" is not a number from %g to %g", key, min, max);
		return false;
	}
	*out = item->valuedouble;
	return true;
}

bool gn_json_get_u64(struct gn_json_errors *errors, const cJSON *object, const char *key,
		     enum gn_json_presence presence, uint64_t max, uint64_t *out)
{
	const cJSON *item = member(errors, object, key, presence);
	double value;

	if (!item)
		return false;
	if (max > GN_JSON_MAX_WHOLE)
		max = GN_JSON_MAX_WHOLE;
	value = cJSON_IsNumber(item) ? item->valuedouble : -1;
	if (!(value >= 0 && value <= (double)max) || value != floor(value)) {
		fail(errors, "\"%s\" is not a whole number from 0 to %llu", key,
		     (unsigned long long)max);
		return false;
	}
	*out = (uint64_t)value;
	return true;
}

bool gn_json_get_bool(struct gn_json_errors *errors, const cJSON *object, const char *key,
		      enum gn_json_presence presence, bool *out)
{
	const cJSON *item = member(errors, object, key, presence);

	if (!item)
		return false;
	if (!cJSON_IsBool(item)) {
		fail(errors, "\"%s\" is not true or false", key);
		return false;
	}
	*out = cJSON_IsTrue(item);
	return true;
}

static bool is_clean_text(const char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < ' ' || *text == 0x7f)
			return false;
	return true;
}

bool gn_json_get_text(struct gn_json_errors *errors, const cJSON *object, const char *key,
		      enum gn_json_presence presence, char *out, size_t bytes)
{
	const cJSON *item = member(errors, object, key, presence);

	if (!item)
		return false;
	if (!cJSON_IsString(item) || !item->valuestring[0] || strlen(item->valuestring) >= bytes ||
	    !is_clean_text(item->valuestring)) {
		fail(errors, "\"%s\" is not a string of 1 to %zu bytes without control characters",
		     key, bytes - 1);
		return false;
	}
	memcpy(out, item->valuestring, strlen(item->valuestring) + 1);
	return true;
}

void gn_json_check_keys(struct gn_json_errors *errors, const cJSON *object,
			const char *const *names, size_t count)
{
	const cJSON *item;

	cJSON_ArrayForEach(item, object)
	{
		size_t i = 0;

		while (i < count && (!item->string || strcmp(item->string, names[i]) != 0))
			i++;
		if (i == count)
			fail(errors, "\"%.40s\" is not known here", item->string);
	}
}

double gn_json_number(const cJSON *object, const char *key, double absent)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);

	return cJSON_IsNumber(item) ? item->valuedouble : absent;
}
