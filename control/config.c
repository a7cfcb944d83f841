/* SPDX-License-Identifier: MIT */
/*
 * config.c - INI files (inih) against a schema.
 *
 * inih is told nothing of line numbers as Debian builds it, so the reader that feeds it counts them: it hands out
 * one line at a time. Two habits of inih are switched off or caught, since both would read a file otherwise than its
 * author: an indented line as the continuation of the one above, and a line longer than its buffer cut in two.
 */
#include "config.h"

#include <errno.h>
#include <ini.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config_value.h"

/* Of a section inih keeps 49 bytes, and says nothing of the rest. */
enum { MAX_KEYS = 64, MAX_FILE_BYTES = 256 * 1024, MAX_SECTION_BYTES = 49 };

struct loading {
	const struct gn_config_schema *schema;
	const char *name, *at; /* the file's name; the text that is left */
	unsigned line;
	unsigned given[MAX_KEYS]; /* in which line, 0: not yet */
	void *values;
	char *why;
	size_t why_bytes;
	bool failed;
};

__attribute__((format(printf, 3, 4))) static void fail(struct loading *l, unsigned line,
						       const char *format, ...)
{
	va_list args;
	int at;

	if (l->failed)
		return;
	l->failed = true;
	at = line ? snprintf(l->why, l->why_bytes, "%s:%u: ", l->name, line)
		  : snprintf(l->why, l->why_bytes, "%s: ", l->name);
	if (at < 0 || (size_t)at >= l->why_bytes)
		return;
	va_start(args, format);
	vsnprintf(l->why + at, l->why_bytes - (size_t)at, format, args);
	va_end(args);
}

static bool is_long_section(const char *line)
{
	line += strspn(line, " \t");
	return *line == '[' && strcspn(line, "]\n") > MAX_SECTION_BYTES + 1;
}

static char *next_line(char *to, int bytes, void *stream)
{
	struct loading *l = stream;
	size_t length = strcspn(l->at, "\n");

	if (!*l->at)
		return NULL;
	l->line++;
	if (l->at[length] == '\n')
		length++;
	if (length + 1 > (size_t)bytes) {
		fail(l, l->line, "the line is longer than %d bytes", bytes - 3);
		return NULL;
	}
	memcpy(to, l->at, length);
	to[length] = '\0';
	l->at += length;
	if (is_long_section(to)) {
		fail(l, l->line, "a section's name has at most %d bytes", MAX_SECTION_BYTES);
		return NULL;
	}
	return to;
}

static bool is_named(const struct gn_config_key *key)
{
	return key->type == GN_CONFIG_NAMED || key->type == GN_CONFIG_NAMED_SWITCH;
}

/* The NAME of [SECTION NAME], where @key is of such sections; NULL: @section is none of them. */
static const char *named_part(const struct gn_config_key *key, const char *section)
{
	const size_t length = strlen(key->section) - 1;

	if (!is_named(key) || strncmp(section, key->section, length) != 0 || !section[length])
		return NULL;
	return section + length;
}

static bool is_of(const struct gn_config_key *key, const char *section)
{
	return !strcmp(key->section, section) || named_part(key, section);
}

static const struct gn_config_key *find(const struct loading *l, const char *section,
					const char *name)
{
	for (size_t i = 0; i < l->schema->count; i++)
		if (is_of(&l->schema->keys[i], section) && !strcmp(l->schema->keys[i].name, name))
			return &l->schema->keys[i];
	return NULL;
}

/* The keys of @section, or if there are none the sections, as words. */
static void list_known(const struct loading *l, const char *section, char *out, size_t bytes)
{
	const char *last = "";
	size_t at = 0;

	out[0] = '\0';
	for (size_t i = 0; i < l->schema->count && at < bytes; i++)
		if (is_of(&l->schema->keys[i], section))
			at += (size_t)snprintf(out + at, bytes - at, "%s%s", at ? ", " : "",
					       l->schema->keys[i].name);
	if (at)
		return;
	for (size_t i = 0; i < l->schema->count && at < bytes; i++) {
		if (strcmp(l->schema->keys[i].section, last) != 0)
			at += (size_t)snprintf(out + at, bytes - at, "%s[%s]", at ? ", " : "",
					       l->schema->keys[i].section);
		last = l->schema->keys[i].section;
	}
}

static bool has_section(const struct loading *l, const char *section)
{
	for (size_t i = 0; i < l->schema->count; i++)
		if (is_of(&l->schema->keys[i], section))
			return true;
	return false;
}

static void *at_key(const struct loading *l, const struct gn_config_key *key)
{
	return (char *)l->values + key->offset;
}

/* Of sections that were named: where the @i-th's name is; NULL: past the last. */
static const char *named_at(const struct loading *l, const struct gn_config_key *key, unsigned i)
{
	const struct gn_config_names *names = at_key(l, key);
	const struct gn_config_switches *switches = at_key(l, key);

	if (key->type == GN_CONFIG_NAMED)
		return i < names->count ? names->of[i].name : NULL;
	return i < switches->count ? switches->of[i].name : NULL;
}

/* Is @key given in the section of @name? *count: in how many it is. */
static bool has_named(const struct loading *l, const struct gn_config_key *key, const char *name,
		      unsigned *count)
{
	bool has = false;

	for (*count = 0; named_at(l, key, *count); ++*count)
		has |= !strcmp(named_at(l, key, *count), name);
	return has;
}

static void store_text(struct loading *l, const struct gn_config_key *key, const char *name,
		       const char *text)
{
	struct gn_config_names *names = at_key(l, key);

	if (strlen(text) >= sizeof(names->of[0].text)) {
		fail(l, l->line, "%s: it takes a text of at most %zu bytes", key->name,
		     sizeof(names->of[0].text) - 1);
		return;
	}
	memcpy(names->of[names->count].name, name, strlen(name) + 1);
	memcpy(names->of[names->count++].text, text, strlen(text) + 1);
}

static void store_switch(struct loading *l, const struct gn_config_key *key, const char *name,
			 const char *text)
{
	static const struct gn_config_key plain = { .type = GN_CONFIG_SWITCH };
	struct gn_config_switches *switches = at_key(l, key);
	char expected[40];

	if (gn_config_value_parse(&plain, text, &switches->of[switches->count].is_on)) {
		gn_config_value_expect(key, expected, sizeof(expected));
		fail(l, l->line, "%s = \"%s\": it takes %s", key->name, text, expected);
		return;
	}
	memcpy(switches->of[switches->count++].name, name, strlen(name) + 1);
}

static int take_named(struct loading *l, const struct gn_config_key *key, const char *section,
		      const char *text)
{
	const size_t name_bytes = sizeof(((struct gn_config_names *)0)->of[0].name);
	const char *name = named_part(key, section);
	unsigned count;

	_Static_assert(sizeof(((struct gn_config_names *)0)->of[0].name) ==
			       sizeof(((struct gn_config_switches *)0)->of[0].name),
		       "names of one kind");
	if (!name || strlen(name) >= name_bytes)
		fail(l, l->line, "[%s]: the section needs a name of 1 to %zu bytes, as in [%sx]",
		     section, name_bytes - 1, key->section);
	else if (has_named(l, key, name, &count))
		fail(l, l->line, "%s of [%s] was given already", key->name, section);
	else if (count == GN_CONFIG_NAMES)
		fail(l, l->line, "[%s]: there can be %d such sections", section, GN_CONFIG_NAMES);
	else if (key->type == GN_CONFIG_NAMED)
		store_text(l, key, name, text);
	else
		store_switch(l, key, name, text);
	return !l->failed;
}

static int take(void *user, const char *section, const char *name, const char *text)
{
	struct loading *l = user;
	const struct gn_config_key *key = find(l, section, name);
	char known[400];
	size_t index;

	if (!key) {
		list_known(l, section, known, sizeof(known));
		if (has_section(l, section))
			fail(l, l->line, "no key \"%s\" in [%s]; it has %s", name, section, known);
		else
			fail(l, l->line, "\"%s\" in unknown section [%s]; there are %s", name,
			     section, known);
		return 0;
	}
	if (is_named(key))
		return take_named(l, key, section, text);
	index = (size_t)(key - l->schema->keys);
	if (l->given[index]) {
		fail(l, l->line, "%s was given in line %u already", name, l->given[index]);
		return 0;
	}
	l->given[index] = l->line;
	if (gn_config_value_parse(key, text, l->values)) {
		gn_config_value_expect(key, known, sizeof(known));
		fail(l, l->line, "%s = \"%s\": it takes %s", name, text, known);
		return 0;
	}
	return 1;
}

static void apply_defaults(struct loading *l)
{
	for (size_t i = 0; i < l->schema->count; i++) {
		const struct gn_config_key *key = &l->schema->keys[i];

		if (key->fallback && gn_config_value_parse(key, key->fallback, l->values))
			fail(l, 0, "the default of %s is wrong", key->name);
	}
}

/* A section that gives some key has to give the text of @key, too: it may be a name that was mistyped. */
static void check_sections(struct loading *l, const struct gn_config_key *key)
{
	for (size_t i = 0; i < l->schema->count; i++) {
		const struct gn_config_key *other = &l->schema->keys[i];
		const char *name;
		unsigned count;

		if (!is_named(other) || strcmp(other->section, key->section) != 0)
			continue;
		for (unsigned k = 0; (name = named_at(l, other, k)); k++)
			if (!has_named(l, key, name, &count))
				fail(l, 0, "%s in [%.*s%s] is missing; %s there is of no use",
				     key->name, (int)strlen(key->section) - 1, key->section, name,
				     other->name);
	}
}

static void check_required(struct loading *l)
{
	char expected[200];

	for (size_t i = 0; i < l->schema->count; i++) {
		const struct gn_config_key *key = &l->schema->keys[i];

		if (key->type == GN_CONFIG_NAMED)
			check_sections(l, key);
		if (key->fallback || l->given[i] || is_named(key))
			continue;
		gn_config_value_expect(key, expected, sizeof(expected));
		fail(l, 0, "%s in [%s] is missing; it takes %s", key->name, key->section, expected);
	}
}

int gn_config_parse(const struct gn_config_schema *schema, const char *name, const char *text,
		    void *values, char *why, size_t why_bytes)
{
	_Alignas(max_align_t) char filled[GN_CONFIG_MAX_BYTES] = { 0 };
	struct loading l = { .schema = schema,
			     .name = name,
			     .at = text,
			     .values = filled,
			     .why = why,
			     .why_bytes = why_bytes };
	int line;

	if (schema->values_bytes > sizeof(filled) || schema->count > MAX_KEYS) {
		fail(&l, 0, "the schema is too large");
		return -EINVAL;
	}
	apply_defaults(&l);
	ini_allow_multiline = false;
	ini_stop_on_first_error = true;
	line = ini_parse_stream(next_line, &l, take, &l);
	if (line > 0)
		fail(&l, (unsigned)line, "neither [section] nor key = value");
	else if (line < 0)
		fail(&l, 0, "out of memory");
	check_required(&l);
	if (l.failed)
		return -EINVAL;
	memcpy(values, filled, schema->values_bytes);
	return 0;
}

int gn_config_load(const struct gn_config_schema *schema, const char *path, void *values, char *why,
		   size_t why_bytes)
{
	FILE *file = fopen(path, "re");
	size_t bytes;
	char *text;
	int err;

	if (!file) {
		err = -errno;
		snprintf(why, why_bytes, "%s: %s", path, strerror(-err));
		return err;
	}
	text = malloc(MAX_FILE_BYTES);
	bytes = text ? fread(text, 1, MAX_FILE_BYTES, file) : 0;
	if (!text || ferror(file) || bytes == MAX_FILE_BYTES) {
		err = !text ? -ENOMEM : ferror(file) ? -EIO : -EFBIG;
		snprintf(why, why_bytes, "%s: %s", path, strerror(-err));
	} else if (memchr(text, '\0', bytes)) {
		err = -EINVAL;
		snprintf(why, why_bytes, "%s: a NUL byte: this is not a text file", path);
	} else {
		text[bytes] = '\0';
		err = gn_config_parse(schema, path, text, values, why, why_bytes);
	}
	free(text);
	fclose(file);
	return err;
}
