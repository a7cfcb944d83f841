/* SPDX-License-Identifier: MIT */
/*
 * trace_record.c - `gnomon trace record`: a program under valgrind's lackey, converted as it runs.
 *
 * Lackey's text comes through a pipe of its own (--log-fd), so the program keeps its stdin, stdout and
 * stderr. Nothing of it is stored: 14 bytes of text become 1 or 2 in the file. What is recorded is one process:
 * children it forks are silent, programs they exec run outside valgrind.
 *
 * It ends when the program does, at --max-records, or when the user interrupts: in each case what was
 * recorded so far becomes the file. A program that is stopped early is asked (SIGTERM), then, after
 * GRACE_MS, killed. The output of the pipe is drained meanwhile, for a program blocked on it cannot hear.
 */
#include "trace_command.h"

#include <argp.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "control/clock.h"
#include "workloads/trace_import.h"

#include "cli.h"

#define PIECE_BYTES ((size_t)256 << 10)
#define PIPE_BYTES  (1 << 20) /* fewer switches between recorder and recorded; a wish, not a need */
#define POLL_MS	    100
#define GRACE_MS    2000

struct record {
	const char *out;
	char **command;
	uint64_t limit;
	char *valgrind;
	pid_t pid;
	int fd;
	bool is_reaped;
	int status;
	struct trace_writer *writer;
	struct trace_lackey lackey;
	bool show_progress;
	double started_s, drawn_s;
};

static volatile sig_atomic_t interrupted;

static void note_interrupt(int signal_number)
{
	interrupted = signal_number;
}

/* ---- Arguments ------------------------------------------------------------------------------------------ */

static error_t parse_record(int key, char *arg, struct argp_state *state)
{
	struct record *r = state->input;

	switch (key) {
	case 'o':
		r->out = arg;
		return 0;
	case 'n':
		if (cli_parse_count(arg, 1, UINT64_MAX, &r->limit))
			cli_fail(EXIT_USAGE, "--max-records %s: not a count of at least 1", arg);
		return 0;
	case ARGP_KEY_ARG:
		r->command = &state->argv[state->next - 1];
		state->next = state->argc;
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static void parse_record_arguments(int argc, char **argv, struct record *r)
{
	static const struct argp_option options[] = {
		{ "output", 'o', "FILE", 0, "the trace file to write", 0 },
		{ "max-records", 'n', "N", 0, "stop the program after N records", 0 },
		{ 0 }
	};
	static const struct argp argp = {
		.options = options,
		.parser = parse_record,
		.args_doc = "-- COMMAND [ARG...]",
		.doc = "Run COMMAND under valgrind's lackey and record its memory references.\v"
		       "About half a million records are made a second. Exit code: 0 the trace is "
		       "written; 1 it is, but COMMAND failed; 3 valgrind is missing.\n\n"
		       "Example:\n"
		       "  gnomon trace record -o sort.gntrace --max-records 5000000 -- sort "
		       "/etc/services",
	};

	argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, r);
	if (!r->out)
		cli_fail(EXIT_USAGE, "trace record needs -o FILE to write to");
	if (!r->command)
		cli_fail(EXIT_USAGE, "trace record needs a command: -- COMMAND [ARG...]");
}

/* ---- Starting the program --------------------------------------------------------------------------------- */

/* The path execvp would run, to be freed; NULL: there is none. */
static char *find_program(const char *name)
{
	const char *path = getenv("PATH");
	char *copy, *rest, *folder, *found = NULL;

	if (strchr(name, '/'))
		return access(name, X_OK) ? NULL : strdup(name);
	copy = rest = strdup(path ? path : "/usr/bin:/bin");
	while (copy && !found && (folder = strsep(&rest, ":"))) {
		if (asprintf(&found, "%s/%s", *folder ? folder : ".", name) < 0)
			found = NULL;
		if (found && access(found, X_OK)) {
			free(found);
			found = NULL;
		}
	}
	free(copy);
	return found;
}

static void find_programs(struct record *r)
{
	char *program = find_program(r->command[0]);

	if (!program)
		cli_fail(EXIT_USAGE, "%s: no such program to record", r->command[0]);
	free(program);
	r->valgrind = find_program("valgrind");
	if (!r->valgrind)
		cli_fail(EXIT_CANNOT,
			 "valgrind is not installed, it does the recording; on Debian: "
			 "apt-get install valgrind");
}

/* As a shell would take it, so that it can be pasted. */
static char *command_line(char **command)
{
	char *text = NULL;
	size_t bytes;
	FILE *to = open_memstream(&text, &bytes);

	if (!to)
		return NULL;
	for (char **word = command; *word; word++) {
		bool plain = **word && !(*word)[strspn(*word, "abcdefghijklmnopqrstuvwxyz"
							      "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
							      "0123456789+-_./:=,@%")];

		if (word != command)
			fputc(' ', to);
		if (plain) {
			fputs(*word, to);
			continue;
		}
		fputc('\'', to);
		for (const char *c = *word; *c; c++)
			*c == '\'' ? (void)fputs("'\\''", to) : (void)fputc(*c, to);
		fputc('\'', to);
	}
	if (fclose(to)) {
		free(text);
		return NULL;
	}
	return text;
}

__attribute__((noreturn)) static void become_valgrind(const struct record *r, int log_fd)
{
	static const char *const options[] = {
		"--command-line-only=yes", /* not what ~/.valgrindrc says */
		"-q",
		"--tool=lackey",
		"--trace-mem=yes",
		"--basic-counts=no",
		"--trace-children=no",
		"--child-silent-after-fork=yes",
		"--vgdb=no",
		"--stats=yes", /* last words, which an exec leaves unsaid */
	};
	enum { OPTIONS = sizeof(options) / sizeof(options[0]) };
	size_t words = 0;
	char log_option[32];
	const char **argv;

	while (r->command[words])
		words++;
	argv = calloc(words + OPTIONS + 4, sizeof(*argv));
	if (argv && fcntl(log_fd, F_SETFD, 0) == 0) {
		size_t n = 0;

		snprintf(log_option, sizeof(log_option), "--log-fd=%d", log_fd);
		argv[n++] = r->valgrind;
		memcpy(&argv[n], options, sizeof(options));
		n += OPTIONS;
		argv[n++] = log_option;
		argv[n++] = "--";
		memcpy(&argv[n], r->command, words * sizeof(*argv));
		execv(r->valgrind, (char *const *)argv);
	}
	_exit(127);
}

static int start(struct record *r)
{
	struct sigaction note = { .sa_handler = note_interrupt };
	int ends[2];

	if (pipe2(ends, O_CLOEXEC))
		return -errno;
	fcntl(ends[0], F_SETPIPE_SZ, PIPE_BYTES);
	r->pid = fork();
	if (r->pid == 0)
		become_valgrind(r, ends[1]);
	close(ends[1]);
	if (r->pid < 0) {
		close(ends[0]);
		return -errno;
	}
	r->fd = ends[0];
	sigaction(SIGINT, &note, NULL);
	sigaction(SIGTERM, &note, NULL);
	sigaction(SIGHUP, &note, NULL);
	return 0;
}

/* ---- Recording -------------------------------------------------------------------------------------------- */

static void show_progress(struct record *r)
{
	double now = r->show_progress ? gn_now_s() : 0;

	if (!r->show_progress || now - r->drawn_s < 0.2)
		return;
	r->drawn_s = now;
	fprintf(stderr, "\r\033[Krecording: %" PRIu64 " records, %.1f MB, %.0f s",
		trace_writer_records(r->writer), (double)trace_writer_bytes(r->writer) / 1e6,
		now - r->started_s);
	fflush(stderr);
}

static void end_progress(const struct record *r)
{
	if (r->show_progress && r->drawn_s > 0)
		fputs("\r\033[K", stderr);
}

static bool try_reap(struct record *r)
{
	if (!r->is_reaped && waitpid(r->pid, &r->status, WNOHANG) == r->pid)
		r->is_reaped = true;
	return r->is_reaped;
}

/* One piece of text. Bytes, 0 at the end of it all, -EAGAIN: none now. The pipe may stay open after the
 * program's end, in a child of its own; so its silence then is the end too. */
static ssize_t read_piece(struct record *r, char *piece)
{
	struct pollfd p = { .fd = r->fd, .events = POLLIN };
	int ready = poll(&p, 1, POLL_MS);
	ssize_t got;

	if (ready == 0)
		return try_reap(r) ? 0 : -EAGAIN;
	if (ready < 0)
		return errno == EINTR ? -EAGAIN : -errno;
	got = read(r->fd, piece, PIECE_BYTES);
	if (got < 0)
		return errno == EINTR ? -EAGAIN : -errno;
	return got;
}

static int pump(struct record *r, char *piece, struct trace_error *error)
{
	while (!interrupted && !r->lackey.import.is_full) {
		ssize_t got = read_piece(r, piece);
		int err;

		show_progress(r);
		if (got == -EAGAIN)
			continue;
		if (got < 0)
			return trace_fail(error, (int)got, "cannot read from valgrind: %s",
					  strerror((int)-got));
		if (got == 0)
			return 0;
		err = trace_lackey_feed(&r->lackey, piece, (size_t)got, error);
		if (err)
			return err;
	}
	return 0;
}

/* The program has ended, or ends now. */
static void stop(struct record *r, char *piece)
{
	double deadline_s = gn_now_s() + GRACE_MS / 1000.0;

	if (!try_reap(r) && (interrupted || r->lackey.import.is_full))
		kill(r->pid, SIGTERM);
	else
		deadline_s = 0;
	while (deadline_s > 0 && !try_reap(r) && gn_now_s() < deadline_s)
		if (read_piece(r, piece) == 0)
			break;
	while (deadline_s > 0 && !try_reap(r) && gn_now_s() < deadline_s)
		usleep(POLL_MS * 100);
	if (deadline_s > 0 && !try_reap(r))
		kill(r->pid, SIGKILL);
	close(r->fd);
	while (!r->is_reaped) {
		if (waitpid(r->pid, &r->status, 0) == r->pid || errno != EINTR)
			r->is_reaped = true;
		else if (interrupted)
			kill(r->pid, SIGKILL);
	}
}

/* ---- Ending ------------------------------------------------------------------------------------------------- */

/* A wrapper: valgrind is gone with the image it ran, and what matters came after. */
static void tell_exec(const struct record *r)
{
	if (!r->lackey.ended_by_valgrind && WIFEXITED(r->status))
		cli_warn("%s executed another program in its place, which is not in the trace; "
			 "record that one directly",
			 r->command[0]);
}

static int tell_status(const struct record *r)
{
	tell_exec(r);
	if (WIFEXITED(r->status) && WEXITSTATUS(r->status) == 0)
		return EXIT_FINE;
	if (WIFEXITED(r->status))
		cli_warn("%s failed with exit status %d; the trace holds what it did until then",
			 r->command[0], WEXITSTATUS(r->status));
	else
		cli_warn("%s was killed by signal %d (%s); the trace holds what it did until then",
			 r->command[0], WTERMSIG(r->status), strsignal(WTERMSIG(r->status)));
	return EXIT_MISMATCH;
}

static int finish(struct record *r)
{
	bool cut = r->lackey.import.is_full || interrupted;
	uint64_t records = trace_writer_records(r->writer);
	struct trace_error error;

	if (!records) {
		trace_writer_abort(r->writer);
		if (interrupted)
			cli_fail(EXIT_CANNOT, "interrupted before anything was recorded");
		cli_fail(EXIT_CANNOT, "valgrind recorded nothing of %s (its exit status: %d)%s%s",
			 r->command[0],
			 WIFEXITED(r->status) ? WEXITSTATUS(r->status) : 128 + WTERMSIG(r->status),
			 r->lackey.bad_lines ? "; it said: " : "", r->lackey.first_bad);
	}
	if (trace_writer_commit(r->writer, cut ? TRACE_FLAG_CUT : 0, &error))
		cli_fail(EXIT_CANNOT, "%s", error.text);
	cli_warn("%s: %" PRIu64 " records%s", r->out, records,
		 interrupted		    ? ", interrupted"
		 : r->lackey.import.is_full ? ", stopped at --max-records"
					    : "");
	return cut ? EXIT_FINE : tell_status(r);
}

int trace_record_command(int argc, char **argv)
{
	struct record r = { .fd = -1 };
	struct trace_error error;
	char *provenance, *piece = malloc(PIECE_BYTES);
	int err;

	parse_record_arguments(argc, argv, &r);
	find_programs(&r);
	provenance = command_line(r.command);
	if (!provenance || !piece)
		cli_fail(EXIT_CANNOT, "no memory");
	if (trace_writer_open(r.out, TRACE_BY_LACKEY, provenance, &r.writer, &error))
		cli_fail(EXIT_USAGE, "%s", error.text);
	trace_lackey_init(&r.lackey, r.writer, r.limit);
	r.show_progress = isatty(STDERR_FILENO);
	r.started_s = gn_now_s();
	err = start(&r);
	if (err) {
		trace_writer_abort(r.writer);
		cli_fail(EXIT_CANNOT, "cannot start valgrind: %s", strerror(-err));
	}
	err = pump(&r, piece, &error);
	if (err)
		kill(r.pid, SIGTERM);
	stop(&r, piece);
	end_progress(&r);
	free(provenance);
	free(piece);
	free(r.valgrind);
	if (err) {
		trace_writer_abort(r.writer);
		cli_fail(EXIT_CANNOT, "%s", error.text);
	}
	return finish(&r);
}
