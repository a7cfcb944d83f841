/* SPDX-License-Identifier: MIT */
/*
 * top.c - a terminal's view of gnomon-balloond, over its control socket.
 *
 * One line per VM: target, actual, working set, refaults, why, and a bar of its memory in which '#' is in use by
 * sampling, '=' is what it has beyond, '|' is the target and '.' is in the balloon. The screen is redrawn in place
 * by the few escape sequences that all terminals of today know; --once prints one view and ends, for scripts. A
 * daemon that is away is waited for, and said to be.
 */
#include "top.h"

#include <argp.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"
#include "control/client.h"
#include "control/json.h"

enum { CALL_MS = 2000, BAR_MIN = 10, BAR_MAX = 60, FIXED_COLUMNS = 78, BYTES_TEXT = 16 };

struct options {
	const char *socket;
	uint64_t interval_ms;
	bool once;
};

static const struct argp_option option_table[] = {
	{ "socket", 's', "PATH", 0, "the daemon's (default: /run/gnomon/balloond.sock)", 0 },
	{ "interval", 'i', "MS", 0, "milliseconds between views (default: 1000)", 0 },
	{ "once", '1', NULL, 0, "one view, then end", 0 },
	{ 0 },
};

static error_t parse(int key, char *text, struct argp_state *state)
{
	struct options *o = state->input;

	switch (key) {
	case 's':
		o->socket = text;
		return 0;
	case 'i':
		if (cli_parse_count(text, 50, 3600000, &o->interval_ms))
			argp_error(state, "--interval takes 50 to 3600000, not \"%s\"", text);
		return 0;
	case '1':
		o->once = true;
		return 0;
	case ARGP_KEY_ARG:
		argp_error(state, "no argument \"%s\" is expected", text);
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const char *text(const cJSON *object, const char *key)
{
	const char *value = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, key));

	return value ? value : "";
}

static const char *bytes(double value, char out[BYTES_TEXT])
{
	if (value < 0)
		return "-";
	return cli_format_bytes((uint64_t)value, out, BYTES_TEXT);
}

static void print_bar(FILE *to, const cJSON *vm, int width)
{
	double mem = gn_json_number(vm, "mem_bytes", 1),
	       actual = gn_json_number(vm, "actual_bytes", 0);
	double active = gn_json_number(vm, "active_bytes", actual);
	int target = (int)(gn_json_number(vm, "target_bytes", 0) / mem * width + 0.5);

	for (int i = 0; i < width; i++) {
		double at = (i + 0.5) / width * mem;

		fputc(i == target ? '|' : at < active ? '#' : at < actual ? '=' : '.', to);
	}
}

static void print_vm(FILE *to, const cJSON *vm, int bar)
{
	char target[BYTES_TEXT], actual[BYTES_TEXT], active[BYTES_TEXT];
	const bool is_late = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(vm, "late"));

	fprintf(to, "%-16.16s %10s %10s %10s %9.0f %-14.14s ", text(vm, "name"),
		bytes(gn_json_number(vm, "target_bytes", -1), target),
		bytes(gn_json_number(vm, "actual_bytes", -1), actual),
		bytes(gn_json_number(vm, "active_bytes", -1), active),
		gn_json_number(vm, "refaults_per_s", 0), is_late ? "late" : text(vm, "reason"));
	print_bar(to, vm, bar);
	fputc('\n', to);
}

static void print_view(FILE *to, const cJSON *host, const cJSON *policy, const cJSON *vms, int rows,
		       int bar)
{
	char budget[BYTES_TEXT], actual[BYTES_TEXT], reserved[BYTES_TEXT];
	const cJSON *vm;
	int shown = 0, count = cJSON_GetArraySize(vms);

	fprintf(to,
		"%d VMs: %s of %s in use, %s reserved; policy %s, round %.2f ms; pressure %.1f "
		"%%%s%s%s\n\n",
		count, bytes(gn_json_number(host, "actual_bytes", -1), actual),
		bytes(gn_json_number(host, "budget_bytes", -1), budget),
		bytes(gn_json_number(host, "reserved_bytes", -1), reserved), text(policy, "name"),
		gn_json_number(policy, "last_round_ms", 0),
		100 * gn_json_number(host, "psi_some", 0),
		cJSON_IsTrue(cJSON_GetObjectItem(host, "paused")) ? "; paused" : "",
		cJSON_IsTrue(cJSON_GetObjectItem(host, "settling")) ? "; settling" : "",
		cJSON_IsTrue(cJSON_GetObjectItem(host, "dry_run")) ? "; dry run" : "");
	fprintf(to, "%-16s %10s %10s %10s %9s %-14s %s\n", "VM", "TARGET", "ACTUAL", "ACTIVE",
		"REFAULTS", "WHY", "#active =actual |target .balloon");
	cJSON_ArrayForEach(vm, vms)
	{
		if (rows && shown >= rows)
			break;
		print_vm(to, vm, bar);
		shown++;
	}
	if (shown < count)
		fprintf(to, "... and %d more\n", count - shown);
}

/* Ask for all three and print. 0; -errno of the first that failed. */
static int view(struct gn_client *client, FILE *to, int rows, int bar)
{
	static const char *const questions[] = { "query-host", "query-policy", "query-vms" };
	cJSON *answers[3] = { NULL, NULL, NULL };
	int err = 0;

	for (unsigned i = 0; i < 3 && !err; i++)
		err = gn_client_call(client, questions[i], NULL, CALL_MS, &answers[i]);
	if (!err)
		print_view(to, answers[0], answers[1], answers[2], rows, bar);
	for (unsigned i = 0; i < 3; i++)
		cJSON_Delete(answers[i]);
	return err;
}

static int bar_width(int columns)
{
	int width = columns - FIXED_COLUMNS;

	return width < BAR_MIN ? BAR_MIN : width > BAR_MAX ? BAR_MAX : width;
}

static void live(struct gn_client *client, const struct options *o)
{
	struct timespec pause = { .tv_sec = (time_t)(o->interval_ms / 1000),
				  .tv_nsec = (long)(o->interval_ms % 1000) * 1000000 };

	for (;;) {
		struct winsize size = { .ws_row = 24, .ws_col = 100 };
		int err;

		ioctl(STDOUT_FILENO, TIOCGWINSZ, &size);
		fputs("\033[H\033[2J", stdout);
		err = view(client, stdout, size.ws_row > 5 ? size.ws_row - 5 : 1,
			   bar_width(size.ws_col));
		if (err)
			printf("%s: %s; waiting for the daemon\n", o->socket, strerror(-err));
		if (fflush(stdout))
			return;
		nanosleep(&pause, NULL);
	}
}

int top_command(int argc, char **argv)
{
	static const struct argp argp = {
		option_table,
		parse,
		NULL,
		"Show who has how much memory under gnomon-balloond.\vExample: gnomon top --once",
		NULL,
		NULL,
		NULL
	};
	struct options o = { .socket = "/run/gnomon/balloond.sock", .interval_ms = 1000 };
	struct gn_client_config config = { .max_pause_ms = 100 };
	struct gn_client *client;
	int err;

	argp_parse(&argp, argc, argv, 0, NULL, &o);
	config.path = o.socket;
	err = gn_client_create(&config, &client);
	if (err)
		cli_fail(EXIT_USAGE, "%s: %s", o.socket, strerror(-err));
	if (o.once)
		err = view(client, stdout, 0, bar_width(100));
	else
		live(client, &o);
	gn_client_destroy(client);
	if (err)
		cli_fail(EXIT_CANNOT, "%s: %s; is gnomon-balloond running?", o.socket,
			 strerror(-err));
	return EXIT_FINE;
}
