/* SPDX-License-Identifier: MIT */
/*
 * json.h - JSON of peers that are believed nothing, in and out.
 *
 * In: a text is looked at once before the parser (cJSON) sees it: its UTF-8 is well formed, no nesting deeper
 * than GN_JSON_MAX_DEPTH, and no NUL or \u0000 that would end a C string early. Members are then taken by
 * typed getters, which say in words what is wrong.
 *
 * Out: a writer into one growing buffer. It never fails half-way: an allocation that fails is remembered, and
 * told by gn_json_finish().
 *
 * Any thread, for an object of its own; nothing here sleeps.
 */
#ifndef GN_CONTROL_JSON_H
#define GN_CONTROL_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#ifdef __cplusplus
extern "C" {
#endif

#define GN_JSON_MAX_DEPTH 16
/* The largest whole number that a JSON number (a double) carries exactly: 2^53. */
#define GN_JSON_MAX_WHOLE ((uint64_t)1 << 53)

/* Parse all @bytes of @text as one JSON value. 0; -EINVAL with *why (a constant string); -ENOMEM is not told
 * apart by the parser and reads as "not JSON". */
int gn_json_parse(const char *text, size_t bytes, cJSON **out, const char **why);

enum gn_json_presence { GN_JSON_OPTIONAL, GN_JSON_REQUIRED };

/* Errors of a whole set of getters: the first is kept in @why, later getters change nothing. */
struct gn_json_errors {
	bool failed;
	char why[160];
};

/* The member @key of @object (which may be NULL: no members). An absent optional member, and null, leave *out as
 * it is. Return whether *out was set. */
bool gn_json_get_u64(struct gn_json_errors *, const cJSON *object, const char *key,
		     enum gn_json_presence, uint64_t max, uint64_t *out);
bool gn_json_get_double(struct gn_json_errors *, const cJSON *object, const char *key,
			enum gn_json_presence, double min, double max, double *out);
bool gn_json_get_bool(struct gn_json_errors *, const cJSON *object, const char *key,
		      enum gn_json_presence, bool *out);
/* A string of 1..@bytes-1 bytes without control characters. */
bool gn_json_get_text(struct gn_json_errors *, const cJSON *object, const char *key,
		      enum gn_json_presence, char *out, size_t bytes);
/* Fails when @object has a member that is not among the @count names: a misspelt argument is no silent default. */
void gn_json_check_keys(struct gn_json_errors *, const cJSON *object, const char *const *names,
			size_t count);
/* For answers of a peer that is trusted: the member, or @absent where it is missing or no number. */
double gn_json_number(const cJSON *object, const char *key, double absent);

struct gn_json_writer {
	char *text;
	size_t bytes, capacity;
	bool failed;	  /* out of memory */
	bool needs_comma; /* the next member or item follows another */
};

/* Keys are NULL inside arrays and for the outermost value. Keys and values are escaped. */
void gn_json_begin_object(struct gn_json_writer *, const char *key);
void gn_json_end_object(struct gn_json_writer *);
void gn_json_begin_array(struct gn_json_writer *, const char *key);
void gn_json_end_array(struct gn_json_writer *);
/* Invalid UTF-8 becomes U+FFFD: what we send is valid whatever we were given. */
void gn_json_put_text(struct gn_json_writer *, const char *key, const char *value);
void gn_json_put_u64(struct gn_json_writer *, const char *key, uint64_t value);
/* A value that is no number (NaN, infinity) is written as null, for JSON has none. */
void gn_json_put_double(struct gn_json_writer *, const char *key, double value);
void gn_json_put_bool(struct gn_json_writer *, const char *key, bool value);
/* @text is JSON already. */
void gn_json_put_raw(struct gn_json_writer *, const char *key, const char *text, size_t bytes);
/* 0, or -ENOMEM if any write failed. The text is NUL-terminated and stays the writer's. */
int gn_json_finish(struct gn_json_writer *);
/* Empty again, memory kept. */
void gn_json_reset(struct gn_json_writer *);
void gn_json_fini(struct gn_json_writer *);

/* Bytes of the well-formed UTF-8 sequence at @text (Unicode 15, table 3-7), 0 if there is none. */
size_t gn_utf8_sequence(const unsigned char *text, size_t bytes);

#ifdef __cplusplus
}
#endif

#endif
