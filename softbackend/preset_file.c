/* SPDX-License-Identifier: MIT */
/*
 * preset_file.c - a preset from a text file.
 *
 *     # a Skylake with twice the L2 TLB
 *     base = skylake-sp
 *     name = bigger
 *     stlb_entries = 3072
 *
 * `base` comes first and is required; everything not said is the base's. A file's figures are the
 * user's own: their source is the file, and they aren't estimates of ours. The file is checked as a whole
 * at the end, so entries and ways may be changed in either order.
 */
#include "preset.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINE_BYTES 512

struct draft {
	struct gn_cpu_preset preset; /* borrows the base's texts */
	bool has_base;
	bool given[GN_FIGURES];
	char name[64];
	char summary[160];
};

static char *trim(char *s)
{
	char *end;

	while (isspace((unsigned char)*s))
		s++;
	end = s + strlen(s);
	while (end > s && isspace((unsigned char)end[-1]))
		end--;
	*end = '\0';
	return s;
}

static int set_base(struct draft *d, const char *value, char *why, size_t why_bytes)
{
	const struct gn_cpu_preset *base = gn_cpu_preset_find(value);

	if (!base) {
		snprintf(why, why_bytes, "no preset '%s' to base on", value);
		return -EINVAL;
	}
	if (d->has_base) {
		snprintf(why, why_bytes, "base is given twice");
		return -EINVAL;
	}
	d->preset = *base;
	d->has_base = true;
	snprintf(d->name, sizeof(d->name), "%s (changed)", base->name);
	snprintf(d->summary, sizeof(d->summary), "%s, with changes from a file", base->name);
	return 0;
}

static int set_figure(struct draft *d, const char *key, const char *value, char *why,
		      size_t why_bytes)
{
	int f = gn_figure_find(key);
	char *end;
	double number;

	if (f < 0) {
		snprintf(why, why_bytes, "unknown key '%s'", key);
		return -EINVAL;
	}
	number = strtod(value, &end);
	if (end == value || *end) {
		snprintf(why, why_bytes, "'%s' is not a number", value);
		return -EINVAL;
	}
	d->preset.figure[f].value = number;
	d->given[f] = true;
	return 0;
}

/* One line, its end already cut. 0 or -EINVAL with the reason. */
static int take_line(struct draft *d, char *line, char *why, size_t why_bytes)
{
	char *key, *value, *equals;

	line[strcspn(line, "#")] = '\0';
	line = trim(line);
	if (!*line)
		return 0;
	equals = strchr(line, '=');
	if (!equals) {
		snprintf(why, why_bytes, "expected 'key = value'");
		return -EINVAL;
	}
	*equals = '\0';
	key = trim(line);
	value = trim(equals + 1);
	if (!*key || !*value) {
		snprintf(why, why_bytes, "expected 'key = value'");
		return -EINVAL;
	}
	if (strcmp(key, "base") == 0)
		return set_base(d, value, why, why_bytes);
	if (!d->has_base) {
		snprintf(why, why_bytes, "'base = PRESET' must come first");
		return -EINVAL;
	}
	if (strcmp(key, "name") == 0) {
		snprintf(d->name, sizeof(d->name), "%s", value);
		return 0;
	}
	if (strcmp(key, "summary") == 0) {
		snprintf(d->summary, sizeof(d->summary), "%s", value);
		return 0;
	}
	return set_figure(d, key, value, why, why_bytes);
}

static int read_file(FILE *file, const char *path, struct draft *d, char *why, size_t why_bytes)
{
	char line[LINE_BYTES], reason[160];

	for (unsigned number = 1; fgets(line, sizeof(line), file); number++) {
		size_t length = strlen(line);
		int err = 0;

		if (length == sizeof(line) - 1 && line[length - 1] != '\n') {
			snprintf(reason, sizeof(reason), "the line is longer than %d characters",
				 LINE_BYTES - 2);
			err = -EINVAL;
		} else {
			err = take_line(d, line, reason, sizeof(reason));
		}
		if (err) {
			snprintf(why, why_bytes, "%s:%u: %s", path, number, reason);
			return err;
		}
	}
	if (ferror(file)) {
		snprintf(why, why_bytes, "%s: %s", path, strerror(EIO));
		return -EINVAL;
	}
	if (!d->has_base) {
		snprintf(why, why_bytes, "%s: 'base = PRESET' is missing", path);
		return -EINVAL;
	}
	if (gn_cpu_preset_check(&d->preset, reason, sizeof(reason))) {
		snprintf(why, why_bytes, "%s: %s", path, reason);
		return -EINVAL;
	}
	return 0;
}

int gn_cpu_preset_load(const char *path, struct gn_cpu_preset **out, char *why, size_t why_bytes)
{
	struct draft d = { .has_base = false };
	struct gn_cpu_preset *preset;
	FILE *file = fopen(path, "re");
	int err;

	if (!file) {
		snprintf(why, why_bytes, "%s: %s", path, strerror(errno));
		return -EINVAL;
	}
	err = read_file(file, path, &d, why, why_bytes);
	fclose(file);
	if (err)
		return err;
	for (int f = 0; f < GN_FIGURES; f++)
		if (d.given[f])
			d.preset.figure[f] =
				(struct gn_preset_entry){ d.preset.figure[f].value, path, false };
	preset = gn_cpu_preset_copy(&d.preset, d.name, d.summary, path);
	if (!preset) {
		snprintf(why, why_bytes, "%s: %s", path, strerror(ENOMEM));
		return -ENOMEM;
	}
	*out = preset;
	return 0;
}
