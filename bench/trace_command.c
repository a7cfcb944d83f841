/* SPDX-License-Identifier: MIT */
/*
 * trace_command.c - find the part of `gnomon trace`, and `gnomon trace convert`.
 *
 * Converting streams: input in pieces, a block at a time out. The output appears under its name only when
 * all of the input was read and understood as far as its format allows.
 */
#include "trace_command.h"

#include <argp.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "workloads/trace_import.h"

#include "cli.h"

#define PIECE_BYTES ((size_t)256 << 10)

static const struct part {
	const char *name, *what;
	int (*run)(int argc, char **argv);
} parts[] = {
	{ "record", "run a program under valgrind and record its memory references",
	  trace_record_command },
	{ "info", "what is in a trace file", trace_info_command },
	{ "convert", "make a trace file of another recorder's output", trace_convert_command },
};
#define PARTS (sizeof(parts) / sizeof(parts[0]))

static const char *part_name(unsigned i)
{
	return i < PARTS ? parts[i].name : NULL;
}

static void print_help(FILE *to)
{
	fputs("Usage: gnomon trace record -o FILE [--max-records N] -- COMMAND [ARG...]\n"
	      "       gnomon trace info [--json] [--verify] FILE\n"
	      "       gnomon trace convert IN -o FILE --from lackey|champsim\n\n"
	      "Traces of real programs, to be replayed as the workload trace:FILE.\n\n",
	      to);
	for (size_t i = 0; i < PARTS; i++)
		fprintf(to, "  %-8s %s\n", parts[i].name, parts[i].what);
	fputs("\nExample:\n"
	      "  gnomon trace record -o ls.gntrace -- ls -l\n"
	      "  gnomon compare --workloads trace:ls.gntrace\n",
	      to);
}

int trace_command(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : NULL, *near;
	char title[64];

	if (!name) {
		print_help(stderr);
		return EXIT_USAGE;
	}
	if (!strcmp(name, "--help") || !strcmp(name, "-h") || !strcmp(name, "-?")) {
		print_help(stdout);
		return EXIT_FINE;
	}
	for (size_t i = 0; i < PARTS; i++)
		if (!strcmp(name, parts[i].name)) {
			snprintf(title, sizeof(title), "gnomon trace %s", name);
			argv[1] = title;
			return parts[i].run(argc - 1, argv + 1);
		}
	near = cli_nearest(name, part_name);
	if (near)
		cli_fail(EXIT_USAGE, "no command \"trace %s\"; did you mean \"trace %s\"?", name,
			 near);
	cli_fail(EXIT_USAGE, "no command \"trace %s\"; there are record, info and convert", name);
}

/* ---- convert ------------------------------------------------------------------------------------------ */

struct convert {
	const char *in, *out, *from;
	uint64_t limit;
	enum trace_recorder recorder;
	int fd;
	struct trace_lackey lackey;
	struct trace_champsim champsim;
};

static error_t parse_convert(int key, char *arg, struct argp_state *state)
{
	struct convert *c = state->input;

	switch (key) {
	case 'o':
		c->out = arg;
		return 0;
	case 'f':
		c->from = arg;
		return 0;
	case 'n':
		if (cli_parse_count(arg, 1, UINT64_MAX, &c->limit))
			cli_fail(EXIT_USAGE, "--max-records %s: not a count of at least 1", arg);
		return 0;
	case ARGP_KEY_ARG:
		if (c->in)
			cli_fail(EXIT_USAGE, "trace convert takes one input, not also \"%s\"", arg);
		c->in = arg;
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static void parse_convert_arguments(int argc, char **argv, struct convert *c)
{
	static const struct argp_option options[] = {
		{ "output", 'o', "FILE", 0, "the trace file to write", 0 },
		{ "from", 'f', "RECORDER", 0, "what IN is: lackey (text) or champsim (records)",
		  0 },
		{ "max-records", 'n', "N", 0, "stop after N records", 0 },
		{ 0 }
	};
	static const struct argp argp = {
		.options = options,
		.parser = parse_convert,
		.args_doc = "IN",
		.doc = "Make a trace file of another recorder's output. IN may be - for stdin.\v"
		       "Examples:\n"
		       "  valgrind --tool=lackey --trace-mem=yes --log-file=ls.txt ls\n"
		       "  gnomon trace convert ls.txt -o ls.gntrace --from lackey\n"
		       "  xz -dc mcf.xz | gnomon trace convert - -o mcf.gntrace --from champsim",
	};

	argp_parse(&argp, argc, argv, 0, NULL, c);
	if (!c->in)
		cli_fail(EXIT_USAGE, "trace convert needs an input file, or - for stdin");
	if (!c->out)
		cli_fail(EXIT_USAGE, "trace convert needs -o FILE to write to");
	if (!c->from)
		cli_fail(EXIT_USAGE, "trace convert needs --from lackey or --from champsim");
	if (!strcmp(c->from, "lackey"))
		c->recorder = TRACE_BY_LACKEY;
	else if (!strcmp(c->from, "champsim"))
		c->recorder = TRACE_BY_CHAMPSIM;
	else
		cli_fail(EXIT_USAGE, "--from %s: known are lackey and champsim", c->from);
}

static int feed(struct convert *c, const char *piece, size_t bytes, struct trace_error *error)
{
	return c->recorder == TRACE_BY_LACKEY
		       ? trace_lackey_feed(&c->lackey, piece, bytes, error)
		       : trace_champsim_feed(&c->champsim, (const uint8_t *)piece, bytes, error);
}

static bool is_full(const struct convert *c)
{
	return c->recorder == TRACE_BY_LACKEY ? c->lackey.import.is_full
					      : c->champsim.import.is_full;
}

/* All of the input into the importer. -EBADMSG: the input is wrong; else as of the writer. */
static int convert_input(struct convert *c, struct trace_error *error)
{
	char *piece = malloc(PIECE_BYTES);
	const char *packer;
	uint64_t offset = 0;
	int err = piece ? 0 : trace_fail(error, -ENOMEM, "no memory to read it");

	while (!err && !is_full(c)) {
		ssize_t got = read(c->fd, piece, PIECE_BYTES);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			err = trace_fail(error, -EBADMSG, "cannot read: %s", strerror(errno));
		if (got <= 0)
			break;
		packer = offset ? NULL : trace_compressed_by((uint8_t *)piece, (size_t)got);
		if (packer)
			err = trace_fail(error, -EBADMSG,
					 "compressed by %s; unpack it first: %s -dc FILE | gnomon "
					 "trace convert - ...",
					 packer, packer);
		else
			err = feed(c, piece, (size_t)got, error);
		offset += (uint64_t)got;
	}
	if (!err && c->recorder == TRACE_BY_CHAMPSIM)
		err = trace_champsim_end(&c->champsim, error);
	else if (!err)
		trace_lackey_end(&c->lackey);
	free(piece);
	return err;
}

static void tell_bad_input(const struct convert *c)
{
	const struct trace_lackey *l = &c->lackey;
	uint64_t flawed = l->import.flawed + c->champsim.import.flawed;

	if (l->bad_lines)
		cli_warn("%s: %" PRIu64 " of %" PRIu64 " lines are not lackey's, left out; the "
			 "first is line %" PRIu64 ": \"%s\"",
			 c->in, l->bad_lines, l->lines, l->first_bad_line, l->first_bad);
	if (flawed)
		cli_warn("%s: %" PRIu64 " accesses cannot be (they wrap around, or have more than "
			 "%d bytes), left out",
			 c->in, flawed, TRACE_ACCESS_MAX);
}

static int nothing_found(const struct convert *c, struct trace_writer *writer)
{
	trace_writer_abort(writer);
	if (c->lackey.bad_lines)
		cli_warn("%s: not one line of lackey's (\" L 1ffefff0,8\") in it; line %" PRIu64
			 " is \"%s\"",
			 c->in, c->lackey.first_bad_line, c->lackey.first_bad);
	else
		cli_warn("%s: no %s records in it", c->in, c->from);
	return EXIT_USAGE;
}

int trace_convert_command(int argc, char **argv)
{
	struct convert c = { .fd = STDIN_FILENO };
	struct trace_writer *writer;
	struct trace_error error;
	char provenance[512];
	uint64_t records;
	int err;

	parse_convert_arguments(argc, argv, &c);
	if (strcmp(c.in, "-"))
		c.fd = open(c.in, O_RDONLY | O_CLOEXEC);
	if (c.fd < 0)
		cli_fail(EXIT_USAGE, "%s: cannot open: %s", c.in, strerror(errno));
	snprintf(provenance, sizeof(provenance), "converted from %s: %s", c.from, c.in);
	if (trace_writer_open(c.out, c.recorder, provenance, &writer, &error))
		cli_fail(EXIT_USAGE, "%s", error.text);
	trace_lackey_init(&c.lackey, writer, c.limit);
	trace_champsim_init(&c.champsim, writer, c.limit);
	err = convert_input(&c, &error);
	if (c.fd != STDIN_FILENO)
		close(c.fd);
	if (err) {
		trace_writer_abort(writer);
		cli_warn("%s: %s", c.in, error.text);
		return err == -EBADMSG ? EXIT_USAGE : EXIT_CANNOT;
	}
	records = trace_writer_records(writer);
	if (!records)
		return nothing_found(&c, writer);
	tell_bad_input(&c);
	if (trace_writer_commit(writer, is_full(&c) ? TRACE_FLAG_CUT : 0, &error))
		cli_fail(EXIT_CANNOT, "%s", error.text);
	cli_warn("%s: %" PRIu64 " records%s", c.out, records,
		 is_full(&c) ? ", cut at --max-records" : "");
	return EXIT_FINE;
}
