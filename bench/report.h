/* SPDX-License-Identifier: MIT */
/*
 * report.h - a result file as a web page: one self-contained index.html with its plots inside, and the
 * numbers beside it as JSON, CSV and gnuplot data.
 */
#ifndef GN_BENCH_REPORT_H
#define GN_BENCH_REPORT_H

#include <stdio.h>

#include "emit.h"
#include "summary.h"

/* End the command with exit code 3 and what to install when gnuplot is missing. */
void report_check_tools(void);
/* Write everything into @directory, which is created. Ends the command when it cannot. */
void report_write(const struct results *r, const char *directory);

/* The files of one picture, DIRECTORY/NAME.dat, .gp and .svg. Whatever fails ends the command. */
struct report_files {
	const char *directory;
	char *data_path, *script_path, *svg_path, *script_name;
	struct emit data, script;
};
void report_files_open(struct report_files *files, const char *directory, const char *name);
/* Commit data and script and run gnuplot: the SVG's text, for free(); NULL: it cannot be read. */
char *report_files_plot(struct report_files *files);
void report_files_abort(struct report_files *files); /* there is nothing to show */

/* The folder of a command that has results of its own kind: them as JSON, its pictures, a page. Whatever fails ends the
 * command. */
struct report_folder {
	const char *json_name;					  /* of the file */
	int (*write_json)(const void *results, const char *path); /* -errno */
	void (*write_page)(const void *results, const char *plots,
			   FILE *html); /* @plots: their folder */
};
void report_folder_write(const struct report_folder *folder, const void *results,
			 const char *directory);

/* One picture: its data file and gnuplot script are written, gnuplot makes the SVG. */
struct report_plot {
	const char *name; /* of the files: NAME.dat, NAME.gp, NAME.svg */
	const char *title;
	bool is_measured; /* of measured runs; else of modelled ones */
	/* Write data and script. False: there is nothing to show. */
	bool (*write)(const struct summary *s, FILE *data, FILE *script);
	/* One sentence on what the picture shows, computed from the data. */
	void (*sentence)(const struct summary *s, FILE *html);
};
const struct report_plot *report_plot_at(unsigned index);

enum { REPORT_MAX_PLOTS = 16 };
/* One backend's part of the page; svg[i] holds the text of plot i, NULL where there is none. */
struct report_section {
	struct summary summary;
	char *svg[REPORT_MAX_PLOTS];
};
void report_html_write(const struct report_section *sections, size_t count, FILE *to);
/* The tables and the words of a section of measured runs. */
void report_measured_tables(const struct summary *s, FILE *to);
void report_measured_origin(const struct summary *s, FILE *to);
/* Pages of other commands in the same dress. */
void report_html_begin(const char *title, FILE *to);
void report_html_svg(const char *svg, FILE *to); /* black becomes the page's ink */
void report_html_end(FILE *to);
/* @text with <, >, & and quotes escaped. */
void report_html_text(const char *text, FILE *to);
/* A workload's label, escaped; a <dt> and its <dd>, unless @text is empty. */
void report_html_label(const char *workload, FILE *to);
void report_html_term(const char *term, const char *text, FILE *to);

#endif
