/* SPDX-License-Identifier: MIT */
/*
 * metrics.c - the registry and its text form.
 *
 * https://prometheus.io/docs/instrumenting/exposition_formats/ (text format 0.0.4): HELP and TYPE once per family,
 * before its values, which stand together; label values escape backslash, quote and newline, help text backslash and
 * newline. A name is checked once, when its family is made.
 */
#include "metrics.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct gn_metric {
	struct gn_metric *next;
	double value;
	char label_value[]; /* "" if the family has no label */
};

struct family {
	struct family *next;
	enum gn_metric_kind kind;
	const char *name, *help, *label; /* label NULL: one value without */
	struct gn_metric *values;
};

struct gn_metrics {
	struct family *first, *last; /* in the order they were made */
};

int gn_metrics_create(struct gn_metrics **out)
{
	*out = calloc(1, sizeof(**out));
	return *out ? 0 : -ENOMEM;
}

static void free_values(struct family *f)
{
	for (struct gn_metric *v = f->values, *next; v; v = next) {
		next = v->next;
		free(v);
	}
}

void gn_metrics_destroy(struct gn_metrics *m)
{
	if (!m)
		return;
	for (struct family *f = m->first, *next; f; f = next) {
		next = f->next;
		free_values(f);
		free(f);
	}
	free(m);
}

/* [a-zA-Z_][a-zA-Z0-9_]*, for families and labels alike. */
static bool is_name(const char *text)
{
	static const char letters[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789";

	return *text && (*text < '0' || *text > '9') && !text[strspn(text, letters)];
}

static struct family *add_family(struct gn_metrics *m, enum gn_metric_kind kind, const char *name,
				 const char *help, const char *label)
{
	struct family *f;

	if (!is_name(name) || (label && !is_name(label)))
		return NULL;
	f = calloc(1, sizeof(*f));
	if (!f)
		return NULL;
	*f = (struct family){ .kind = kind, .name = name, .help = help, .label = label };
	if (m->last)
		m->last->next = f;
	else
		m->first = f;
	m->last = f;
	return f;
}

static bool same_label(const char *a, const char *b)
{
	return a && b ? !strcmp(a, b) : a == b;
}

struct gn_metric *gn_metrics_get(struct gn_metrics *m, enum gn_metric_kind kind, const char *name,
				 const char *help, const char *label, const char *value)
{
	struct family *f = m->first;
	struct gn_metric *v;

	while (f && strcmp(f->name, name) != 0)
		f = f->next;
	if (!f)
		f = add_family(m, kind, name, help, label);
	if (!f || f->kind != kind || !same_label(f->label, label))
		return NULL;
	if (!value)
		value = "";
	for (v = f->values; v; v = v->next)
		if (!strcmp(v->label_value, value))
			return v;
	v = calloc(1, sizeof(*v) + strlen(value) + 1);
	if (!v)
		return NULL;
	memcpy(v->label_value, value, strlen(value) + 1);
	v->next = f->values;
	f->values = v;
	return v;
}

void gn_metric_set(struct gn_metric *v, double value)
{
	if (v)
		v->value = value;
}

void gn_metric_add(struct gn_metric *v, double increment)
{
	if (v)
		v->value += increment;
}

double gn_metric_value(const struct gn_metric *v)
{
	return v ? v->value : 0;
}

void gn_metrics_put(struct gn_metrics *m, enum gn_metric_kind kind, const char *name,
		    const char *help, double value)
{
	gn_metric_set(gn_metrics_get(m, kind, name, help, NULL, NULL), value);
}

void gn_metrics_forget(struct gn_metrics *m, const char *label, const char *value)
{
	for (struct family *f = m->first; f; f = f->next) {
		if (!same_label(f->label, label))
			continue;
		for (struct gn_metric **at = &f->values; *at;) {
			struct gn_metric *v = *at;

			if (strcmp(v->label_value, value) != 0) {
				at = &v->next;
				continue;
			}
			*at = v->next;
			free(v);
		}
	}
}

static void put_escaped(FILE *to, const char *text, bool quotes)
{
	for (; *text; text++) {
		if (*text == '\n')
			fputs("\\n", to);
		else if (*text == '\\' || (quotes && *text == '"'))
			fprintf(to, "\\%c", *text);
		else
			fputc(*text, to);
	}
}

static void put_value(FILE *to, double value)
{
	if (isnan(value))
		fputs("NaN", to);
	else if (isinf(value))
		fputs(value > 0 ? "+Inf" : "-Inf", to);
	else if (value == floor(value) && fabs(value) < 0x1p53)
		fprintf(to, "%.0f", value);
	else
		fprintf(to, "%.9g", value);
}

static void put_family(FILE *to, const struct family *f)
{
	fprintf(to, "# HELP %s ", f->name);
	put_escaped(to, f->help, false);
	fprintf(to, "\n# TYPE %s %s\n", f->name,
		f->kind == GN_METRIC_COUNTER ? "counter" : "gauge");
	for (const struct gn_metric *v = f->values; v; v = v->next) {
		fputs(f->name, to);
		if (f->label) {
			fprintf(to, "{%s=\"", f->label);
			put_escaped(to, v->label_value, true);
			fputs("\"}", to);
		}
		fputc(' ', to);
		put_value(to, v->value);
		fputc('\n', to);
	}
}

int gn_metrics_format(const struct gn_metrics *m, char **text, size_t *bytes)
{
	FILE *to = open_memstream(text, bytes);
	bool failed;

	if (!to)
		return -ENOMEM;
	for (const struct family *f = m->first; f; f = f->next)
		if (f->values)
			put_family(to, f);
	failed = ferror(to);
	if (fclose(to) || failed) {
		free(*text);
		*text = NULL;
		return -ENOMEM;
	}
	return 0;
}

static int write_all(int fd, const char *text, size_t bytes)
{
	while (bytes) {
		ssize_t n = write(fd, text, bytes);

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0) {
			text += n;
			bytes -= (size_t)n;
		}
	}
	return 0;
}

int gn_metrics_write_file(const struct gn_metrics *m, const char *path)
{
	char temporary[4096], *text;
	size_t bytes;
	int fd, err;

	/* The collector reads *.prom: the temporary name must not end so. */
	if ((size_t)snprintf(temporary, sizeof(temporary), "%s.%d", path, (int)getpid()) >=
	    sizeof(temporary))
		return -ENAMETOOLONG;
	err = gn_metrics_format(m, &text, &bytes);
	if (err)
		return err;
	fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
	err = fd < 0 ? -errno : write_all(fd, text, bytes);
	/* The collector is another user; a daemon's umask is strict. */
	if (!err && fchmod(fd, 0644))
		err = -errno;
	if (fd >= 0 && close(fd) && !err)
		err = -errno;
	if (!err && rename(temporary, path))
		err = -errno;
	if (err && fd >= 0)
		unlink(temporary);
	free(text);
	return err;
}
