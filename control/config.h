/* SPDX-License-Identifier: MIT */
/*
 * config.h - a daemon's INI file, read against a typed schema.
 *
 * The schema is a table: each key with its type, range and default, and where in the daemon's struct its value goes.
 * A file either fits it whole or is refused with one line that says file:line, what is wrong, and what would be
 * right; the struct that was filled before is then untouched, which is what a reload needs.
 */
#ifndef GN_CONTROL_CONFIG_H
#define GN_CONTROL_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum gn_config_type {
	GN_CONFIG_TEXT,	  /* char[max]: shorter than max bytes */
	GN_CONFIG_SIZE,	  /* uint64_t bytes: 4096, 64K, 2 GiB */
	GN_CONFIG_COUNT,  /* uint64_t */
	GN_CONFIG_MS,	  /* uint64_t milliseconds: 250ms, 1s, 2min; the unit must be said */
	GN_CONFIG_SWITCH, /* bool: on, off, yes, no, true, false */
	GN_CONFIG_CHOICE, /* unsigned: index into choices */
	GN_CONFIG_NUMBER, /* double */
	GN_CONFIG_NAMED, /* struct gn_config_names: the text of this key in each section [SECTION NAME] */
	GN_CONFIG_NAMED_SWITCH, /* struct gn_config_switches: the same of a switch, which a section need not give */
};

/* Of sections that the file names. The section of such a key ends in " *"; there may be none of it, but one that is there gives all its
 * texts. */
#define GN_CONFIG_NAMES 32
struct gn_config_names {
	unsigned count;
	struct {
		char name[48], text[720];
	} of[GN_CONFIG_NAMES];
};
struct gn_config_switches {
	unsigned count;
	struct {
		char name[48];
		bool is_on;
	} of[GN_CONFIG_NAMES];
};

struct gn_config_key {
	const char *section, *name;
	enum gn_config_type type;
	size_t offset;		    /* into the daemon's struct */
	double min, max;	    /* in the type's unit; of a text: max bytes of the array */
	const char *const *choices; /* NULL-terminated, of GN_CONFIG_CHOICE */
	const char *fallback;	    /* as it would stand in the file; NULL: the key must be given */
	const char *summary;
};

struct gn_config_schema {
	const struct gn_config_key *keys;
	size_t count;
	size_t values_bytes; /* of the daemon's struct; at most GN_CONFIG_MAX_BYTES */
};

#define GN_CONFIG_MAX_BYTES 131072

/* Fill *values from the file at @path. 0; -EINVAL or -errno with a line in @why, and *values as it was. */
int gn_config_load(const struct gn_config_schema *, const char *path, void *values, char *why,
		   size_t why_bytes);
/* The same from text in memory; @name stands for the file in messages. */
int gn_config_parse(const struct gn_config_schema *, const char *name, const char *text,
		    void *values, char *why, size_t why_bytes);

/* One value by the rules of the types, for command lines. -EINVAL, -ERANGE. */
int gn_config_parse_size(const char *text, uint64_t *bytes);
int gn_config_parse_ms(const char *text, uint64_t *ms);

#ifdef __cplusplus
}
#endif

#endif
