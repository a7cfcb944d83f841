/* SPDX-License-Identifier: MIT */
/*
 * json_write.c - JSON into one growing buffer, without a tree in between: what the daemon says most often is a
 * line of a few numbers, and a tree of ten allocations for it would be most of its cost.
 */
#include "json.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool reserve(struct gn_json_writer *w, size_t bytes)
{
	size_t capacity = w->capacity ? w->capacity : 256;
	char *text;

	if (w->failed)
		return false;
	if (w->bytes + bytes + 1 <= w->capacity)
		return true;
	while (capacity < w->bytes + bytes + 1)
		capacity *= 2;
	text = realloc(w->text, capacity);
	if (!text) {
		w->failed = true;
		return false;
	}
	w->text = text;
	w->capacity = capacity;
	return true;
}

static void append(struct gn_json_writer *w, const char *text, size_t bytes)
{
	if (!reserve(w, bytes))
		return;
	memcpy(w->text + w->bytes, text, bytes);
	w->bytes += bytes;
	w->text[w->bytes] = '\0';
}

static void append_escape(struct gn_json_writer *w, unsigned char c)
{
	char escape[8];

	if (c == '"' || c == '\\')
		snprintf(escape, sizeof(escape), "\\%c", c);
	else
		snprintf(escape, sizeof(escape), "\\u%04x", c);
	append(w, escape, strlen(escape));
}

static void append_quoted(struct gn_json_writer *w, const char *value)
{
	const unsigned char *at = (const unsigned char *)value;
	size_t left = strlen(value);

	append(w, "\"", 1);
	while (left) {
		size_t step = gn_utf8_sequence(at, left);

		if (!step) {
			append(w, "\xef\xbf\xbd", 3);
			step = 1;
		} else if (*at < ' ' || *at == '"' || *at == '\\' || *at == 0x7f) {
			append_escape(w, *at);
		} else {
			append(w, (const char *)at, step);
		}
		at += step;
		left -= step;
	}
	append(w, "\"", 1);
}

/* What precedes a value: the comma, the key. */
static void lead(struct gn_json_writer *w, const char *key)
{
	if (w->needs_comma)
		append(w, ", ", 2);
	if (key) {
		append_quoted(w, key);
		append(w, ": ", 2);
	}
	w->needs_comma = true;
}

static void begin(struct gn_json_writer *w, const char *key, const char *bracket)
{
	lead(w, key);
	append(w, bracket, 1);
	w->needs_comma = false;
}

static void end(struct gn_json_writer *w, const char *bracket)
{
	append(w, bracket, 1);
	w->needs_comma = true;
}

void gn_json_begin_object(struct gn_json_writer *w, const char *key)
{
	begin(w, key, "{");
}

void gn_json_end_object(struct gn_json_writer *w)
{
	end(w, "}");
}

void gn_json_begin_array(struct gn_json_writer *w, const char *key)
{
	begin(w, key, "[");
}

void gn_json_end_array(struct gn_json_writer *w)
{
	end(w, "]");
}

void gn_json_put_text(struct gn_json_writer *w, const char *key, const char *value)
{
	lead(w, key);
	append_quoted(w, value);
}

void gn_json_put_u64(struct gn_json_writer *w, const char *key, uint64_t value)
{
	char digits[24];

	snprintf(digits, sizeof(digits), "%llu", (unsigned long long)value);
	gn_json_put_raw(w, key, digits, strlen(digits));
}

void gn_json_put_double(struct gn_json_writer *w, const char *key, double value)
{
	char digits[32];

	if (isfinite(value))
		snprintf(digits, sizeof(digits), "%.9g", value);
	else
		snprintf(digits, sizeof(digits), "null");
	gn_json_put_raw(w, key, digits, strlen(digits));
}

void gn_json_put_bool(struct gn_json_writer *w, const char *key, bool value)
{
	if (value)
		gn_json_put_raw(w, key, "true", 4);
	else
		gn_json_put_raw(w, key, "false", 5);
}

void gn_json_put_raw(struct gn_json_writer *w, const char *key, const char *text, size_t bytes)
{
	lead(w, key);
	append(w, text, bytes);
}

int gn_json_finish(struct gn_json_writer *w)
{
	reserve(w, 0);
	return w->failed ? -ENOMEM : 0;
}

void gn_json_reset(struct gn_json_writer *w)
{
	w->bytes = 0;
	w->failed = false;
	w->needs_comma = false;
}

void gn_json_fini(struct gn_json_writer *w)
{
	free(w->text);
	memset(w, 0, sizeof(*w));
}
