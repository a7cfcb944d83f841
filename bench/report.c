/* SPDX-License-Identifier: MIT */
/*
 * report.c - `gnomon report`: from a result file to a folder.
 *
 *     DIR/index.html     self-contained: the plots are inside
 *     DIR/results.json   the numbers, as read
 *     DIR/results.csv
 *     DIR/plots/         per picture its data, its gnuplot script and the SVG, to redo or reuse it
 *
 * Each file is whole or absent. A picture with nothing to show is left out.
 */
#include "report.h"

#include <argp.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli.h"
#include "commands.h"
#include "emit.h"

/* Run gnuplot in @directory with @argument; its exit status, -1 when it could not be started. */
static int run_gnuplot(const char *directory, const char *option, const char *argument)
{
	int status;
	pid_t child = fork();

	if (child < 0)
		return -1;
	if (!child) {
		int null = open("/dev/null", O_RDWR);

		if (null >= 0) {
			dup2(null, STDIN_FILENO);
			dup2(null, STDOUT_FILENO);
			if (option)
				dup2(null, STDERR_FILENO);
		}
		if (directory && chdir(directory))
			_exit(126);
		execlp("gnuplot", "gnuplot", option ? option : argument, option ? argument : NULL,
		       (char *)NULL);
		_exit(127);
	}
	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

void report_check_tools(void)
{
	if (run_gnuplot(NULL, "-e", "set terminal svg"))
		cli_fail(EXIT_CANNOT, "a report needs gnuplot with its svg terminal; install it: "
				      "apt-get install gnuplot-nox");
}

static char *join(const char *directory, const char *name, const char *suffix)
{
	char *path;

	if (asprintf(&path, "%s/%s%s", directory, name, suffix) < 0)
		cli_fail(EXIT_CANNOT, "out of memory");
	return path;
}

static void open_file(struct emit *e, const char *path)
{
	int err = emit_open(e, path);

	if (err)
		cli_fail(EXIT_CANNOT, "%s: %s", path, strerror(-err));
}

static void commit_file(struct emit *e, const char *path)
{
	int err = emit_commit(e);

	if (err)
		cli_fail(EXIT_CANNOT, "%s: %s", path, strerror(-err));
}

/* The text of a file of ours; NULL: none. */
static char *read_text(const char *path)
{
	FILE *f = fopen(path, "re");
	char *text = NULL;
	size_t bytes = 0;

	if (!f)
		return NULL;
	if (getdelim(&text, &bytes, '\0', f) < 0) {
		free(text);
		text = NULL;
	}
	fclose(f);
	return text;
}

void report_files_open(struct report_files *files, const char *directory, const char *name)
{
	files->directory = directory;
	files->data_path = join(directory, name, ".dat");
	files->script_path = join(directory, name, ".gp");
	files->svg_path = join(directory, name, ".svg");
	files->script_name = join(".", name, ".gp");
	open_file(&files->data, files->data_path);
	open_file(&files->script, files->script_path);
}

static void free_paths(struct report_files *files)
{
	free(files->data_path);
	free(files->script_path);
	free(files->svg_path);
	free(files->script_name);
}

char *report_files_plot(struct report_files *files)
{
	char *svg;

	commit_file(&files->data, files->data_path);
	commit_file(&files->script, files->script_path);
	if (run_gnuplot(files->directory, NULL, files->script_name))
		cli_fail(EXIT_CANNOT, "gnuplot failed on %s", files->script_path);
	svg = read_text(files->svg_path);
	free_paths(files);
	return svg;
}

void report_files_abort(struct report_files *files)
{
	emit_abort(&files->data);
	emit_abort(&files->script);
	free_paths(files);
}

/* The SVG's text, or NULL when there was nothing to show. */
static char *make_plot(const struct report_plot *plot, const struct summary *s,
		       const char *directory)
{
	struct report_files files;

	report_files_open(&files, directory, plot->name);
	if (plot->write(s, files.data.file, files.script.file))
		return report_files_plot(&files);
	report_files_abort(&files);
	return NULL;
}

static void write_numbers(const struct results *r, const char *directory)
{
	char *json = join(directory, "results.json", ""), *csv = join(directory, "results.csv", "");
	struct emit e;

	open_file(&e, json);
	if (results_write_json(r, e.file))
		cli_fail(EXIT_CANNOT, "%s: cannot be written", json);
	commit_file(&e, json);
	open_file(&e, csv);
	if (results_write_csv(r, e.file))
		cli_fail(EXIT_CANNOT, "%s: cannot be written", csv);
	commit_file(&e, csv);
	free(json);
	free(csv);
}

/* The pictures of one backend's runs. */
static void make_section(struct report_section *section, const struct results *r,
			 const char *backend, const char *plots)
{
	const struct report_plot *plot;

	memset(section, 0, sizeof(*section));
	if (summary_init(&section->summary, r, backend))
		cli_fail(EXIT_CANNOT, "out of memory");
	for (unsigned i = 0; (plot = report_plot_at(i)) && i < REPORT_MAX_PLOTS; i++)
		if (plot->is_measured == section->summary.is_measured)
			section->svg[i] = make_plot(plot, &section->summary, plots);
}

void report_write(const struct results *r, const char *directory)
{
	char *plots = join(directory, "plots", ""), *page = join(directory, "index.html", "");
	struct report_section *sections;
	size_t count = 0;
	struct emit e;
	int err = emit_make_directory(plots);

	if (err)
		cli_fail(EXIT_CANNOT, "%s: %s", plots, strerror(-err));
	while (results_backend_at(r, (unsigned)count))
		count++;
	sections = calloc(count ? count : 1, sizeof(*sections));
	if (!sections)
		cli_fail(EXIT_CANNOT, "out of memory");
	write_numbers(r, directory);
	for (size_t i = 0; i < count; i++)
		make_section(&sections[i], r, results_backend_at(r, (unsigned)i), plots);
	open_file(&e, page);
	report_html_write(sections, count, e.file);
	commit_file(&e, page);
	for (size_t i = 0; i < count; i++) {
		for (unsigned n = 0; n < REPORT_MAX_PLOTS; n++)
			free(sections[i].svg[n]);
		summary_fini(&sections[i].summary);
	}
	free(sections);
	free(plots);
	free(page);
}

void report_folder_write(const struct report_folder *folder, const void *results,
			 const char *directory)
{
	char *plots = join(directory, "plots", ""), *json = join(directory, folder->json_name, ""),
	     *page = join(directory, "index", ".html");
	int err = emit_make_directory(plots);
	struct emit e;

	if (err)
		cli_fail(EXIT_CANNOT, "%s: %s", plots, strerror(-err));
	err = folder->write_json(results, json);
	if (err)
		cli_fail(EXIT_CANNOT, "%s: %s", json, strerror(-err));
	open_file(&e, page);
	folder->write_page(results, plots, e.file);
	commit_file(&e, page);
	free(plots);
	free(json);
	free(page);
}

struct report_options {
	const char *file, *directory;
};

static const struct argp_option options[] = {
	{ "output", 'o', "DIR", 0, "the folder to write, created if need be", 0 }, { 0 }
};

static const char doc[] = "Turn a result file into a web page with plots (needs gnuplot).\v"
			  "Example:\n"
			  "  gnomon compare --quick --sensitivity --json results.json\n"
			  "  gnomon report results.json -o out";

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct report_options *o = state->input;

	switch (key) {
	case 'o':
		o->directory = arg;
		return 0;
	case ARGP_KEY_ARG:
		if (o->file)
			cli_fail(EXIT_USAGE, "report: \"%s\" is one argument too many", arg);
		o->file = arg;
		return 0;
	case ARGP_KEY_END:
		if (!o->file || !o->directory)
			cli_fail(EXIT_USAGE,
				 "report needs a file and a folder, like `gnomon report "
				 "results.json -o out`");
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

int report_command(int argc, char **argv)
{
	static const struct argp argp = { options, parse, "FILE", doc, NULL, NULL, NULL };
	struct report_options o = { NULL, NULL };
	struct results r;
	char why[320];
	int err;

	argp_parse(&argp, argc, argv, 0, NULL, &o);
	if (results_read_json(&r, o.file, why, sizeof(why)))
		cli_fail(EXIT_USAGE, "%s: %s", o.file, why);
	report_check_tools();
	err = emit_make_directory(o.directory);
	if (err)
		cli_fail(EXIT_USAGE, "-o %s: %s", o.directory, strerror(-err));
	report_write(&r, o.directory);
	printf("%s/index.html\n", o.directory);
	results_fini(&r);
	return EXIT_FINE;
}
