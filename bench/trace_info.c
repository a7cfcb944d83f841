/* SPDX-License-Identifier: MIT */
/*
 * trace_info.c - `gnomon trace info`: what is in a trace file, for people or as JSON.
 *
 * Header and index alone tell it, so it takes no longer for a large trace; --verify reads and checks
 * every block too. The provenance is somebody else's text: what a terminal might obey is not printed.
 */
#include "trace_command.h"

#include <argp.h>
#include <cjson/cJSON.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <gnomon/types.h>

#include "workloads/trace_reader.h"

#include "cli.h"

#define SCHEMA		 "gnomon.trace/1"
#define PROVENANCE_SHOWN 240

struct info_options {
	const char *path;
	bool json, verify;
};

static const char *const recorder_names[TRACE_RECORDERS] = {
	[TRACE_BY_OTHER] = "other",
	[TRACE_BY_LACKEY] = "lackey",
	[TRACE_BY_CHAMPSIM] = "champsim",
};

static error_t parse_info(int key, char *arg, struct argp_state *state)
{
	struct info_options *o = state->input;

	switch (key) {
	case 'j':
		o->json = true;
		return 0;
	case 'v':
		o->verify = true;
		return 0;
	case ARGP_KEY_ARG:
		if (o->path)
			cli_fail(EXIT_USAGE, "trace info takes one file, not also \"%s\"", arg);
		o->path = arg;
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static void parse_info_arguments(int argc, char **argv, struct info_options *o)
{
	static const struct argp_option options[] = {
		{ "json", 'j', NULL, 0, "JSON on stdout instead of the table", 0 },
		{ "verify", 'v', NULL, 0, "read and check every record", 0 },
		{ 0 }
	};
	static const struct argp argp = {
		.options = options,
		.parser = parse_info,
		.args_doc = "FILE",
		.doc = "What is in a trace file. A torn or corrupt file: exit code 2.",
	};

	argp_parse(&argp, argc, argv, 0, NULL, o);
	if (!o->path)
		cli_fail(EXIT_USAGE, "trace info needs a trace file");
}

/* 1,234,567 */
static const char *grouped(uint64_t value, char out[32])
{
	char digits[24];
	int length = snprintf(digits, sizeof(digits), "%" PRIu64, value), to = 0;

	for (int i = 0; i < length; i++) {
		if (i && (length - i) % 3 == 0)
			out[to++] = ',';
		out[to++] = digits[i];
	}
	out[to] = '\0';
	return out;
}

/* @text as printable ASCII on one line, at most @max bytes; the length. */
static size_t printable(const char *text, size_t max, char *out)
{
	size_t to = 0;

	for (; *text && to < max; text++) {
		unsigned char c = (unsigned char)*text;

		if (c == '\n' || c == '\t')
			c = ' ';
		if (c == ' ' && to && out[to - 1] == ' ')
			continue;
		out[to++] = c < ' ' || c >= 0x7f ? '?' : (char)c;
	}
	out[to] = '\0';
	return to;
}

static bool is_replayed(unsigned kind)
{
	return kind <= TRACE_MARK || kind == TRACE_CR3;
}

static void print_kinds(const struct trace_info *info)
{
	char number[32];

	for (unsigned kind = 1; kind < TRACE_KINDS; kind++)
		if (info->by_kind[kind])
			printf("    %-11s %16s  %5.1f %%%s\n", trace_kind_desc(kind)->name,
			       grouped(info->by_kind[kind], number),
			       100.0 * (double)info->by_kind[kind] / (double)info->records,
			       is_replayed(kind) ? "" : "  (not replayed)");
}

static void print_table(const struct trace_reader *reader, const struct info_options *o)
{
	const struct trace_info *info = trace_reader_info(reader);
	uint64_t bytes = trace_reader_file_bytes(reader);
	char shown[PROVENANCE_SHOWN + 1], number[32], size[32];
	size_t length = printable(trace_reader_provenance(reader), PROVENANCE_SHOWN, shown);

	printf("%s\n", o->path);
	printf("  program       %s%s\n", shown, length == PROVENANCE_SHOWN ? " ..." : "");
	printf("  recorded by   %s%s\n", recorder_names[info->recorder],
	       info->flags & TRACE_FLAG_CUT ? ", cut before the program's end" : "");
	printf("  records         %16s\n", grouped(info->records, number));
	print_kinds(info);
	if (info->instructions)
		printf("  instructions    %16s\n", grouped(info->instructions, number));
	printf("  4 KiB pages     %16s  %s\n", grouped(info->pages, number),
	       cli_format_bytes(info->pages << GN_PAGE_SHIFT, size, sizeof(size)));
	printf("  2 MiB pages     %16s  %s\n", grouped(info->large_pages, number),
	       cli_format_bytes(info->large_pages << gn_level_shift(2), size, sizeof(size)));
	printf("  regions         %16s  %s\n", grouped(info->regions, number),
	       info->flags & TRACE_FLAG_MAPPINGS ? "mappings are recorded"
						 : "derived from the pages used");
	printf("  file            %16s  in %" PRIu64 " blocks\n",
	       cli_format_bytes(bytes, size, sizeof(size)), info->blocks);
	if (info->records)
		printf("  compression     %15.1fx  of the encoded records; %.2f bytes a record\n",
		       (double)info->encoded_bytes / (double)bytes,
		       (double)bytes / (double)info->records);
	printf("  %s\n", o->verify ? "every block was read and is sound"
				   : "header and index are sound (--verify reads the rest)");
}

static int print_json(const struct trace_reader *reader, const struct info_options *o)
{
	const struct trace_info *info = trace_reader_info(reader);
	cJSON *root = cJSON_CreateObject(), *kinds;
	char *text, *shown = malloc(TRACE_PROVENANCE_MAX + 1);
	bool printed = false;

	if (!shown)
		return EXIT_CANNOT;
	printable(trace_reader_provenance(reader), TRACE_PROVENANCE_MAX, shown);
	cJSON_AddStringToObject(root, "schema", SCHEMA);
	cJSON_AddStringToObject(root, "file", o->path);
	cJSON_AddStringToObject(root, "program", shown);
	cJSON_AddStringToObject(root, "recorder", recorder_names[info->recorder]);
	cJSON_AddBoolToObject(root, "cut", info->flags & TRACE_FLAG_CUT);
	cJSON_AddBoolToObject(root, "mappings", info->flags & TRACE_FLAG_MAPPINGS);
	cJSON_AddNumberToObject(root, "records", (double)info->records);
	kinds = cJSON_AddObjectToObject(root, "records_by");
	for (unsigned kind = 1; kind < TRACE_KINDS; kind++)
		if (info->by_kind[kind])
			cJSON_AddNumberToObject(kinds, trace_kind_desc(kind)->name,
						(double)info->by_kind[kind]);
	if (info->instructions)
		cJSON_AddNumberToObject(root, "instructions", (double)info->instructions);
	cJSON_AddNumberToObject(root, "pages_4k", (double)info->pages);
	cJSON_AddNumberToObject(root, "pages_2m", (double)info->large_pages);
	cJSON_AddNumberToObject(root, "regions", (double)info->regions);
	cJSON_AddNumberToObject(root, "blocks", (double)info->blocks);
	cJSON_AddNumberToObject(root, "encoded_bytes", (double)info->encoded_bytes);
	cJSON_AddNumberToObject(root, "file_bytes", (double)trace_reader_file_bytes(reader));
	cJSON_AddBoolToObject(root, "verified", o->verify);
	text = cJSON_Print(root);
	if (text)
		printed = puts(text) >= 0;
	free(text);
	free(shown);
	cJSON_Delete(root);
	return printed ? EXIT_FINE : EXIT_CANNOT;
}

int trace_info_command(int argc, char **argv)
{
	struct info_options o = { 0 };
	struct trace_reader *reader;
	struct trace_error error;
	int code = EXIT_FINE;

	parse_info_arguments(argc, argv, &o);
	if ((o.verify && trace_reader_verify(o.path, &error)) ||
	    trace_reader_open(o.path, &reader, &error))
		cli_fail(EXIT_USAGE, "%s", error.text);
	if (o.json)
		code = print_json(reader, &o);
	else
		print_table(reader, &o);
	trace_reader_close(reader);
	return code;
}
