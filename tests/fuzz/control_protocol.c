/* SPDX-License-Identifier: MIT */
/*
 * control_protocol.c - a peer's bytes through all that the control socket does with them before a command runs: lines,
 * the look before the parser, the message, its members. What is accepted must be writable again and mean the same.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "control/lines.h"
#include "control/protocol.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
	if (!holds)
		abort();
}

static void take_members(const cJSON *body)
{
	struct gn_json_errors errors = { 0 };
	char text[32];
	uint64_t whole = 0;
	double number = 0;
	bool flag;

	if (gn_json_get_u64(&errors, body, "n", GN_JSON_OPTIONAL, 1000, &whole))
		check(whole <= 1000);
	if (gn_json_get_double(&errors, body, "d", GN_JSON_OPTIONAL, -1, 1, &number))
		check(number >= -1 && number <= 1);
	if (gn_json_get_text(&errors, body, "s", GN_JSON_OPTIONAL, text, sizeof(text)))
		check(strlen(text) > 0 && strlen(text) < sizeof(text));
	gn_json_get_bool(&errors, body, "b", GN_JSON_REQUIRED, &flag);
	check(!errors.failed || errors.why[0]);
}

static void take_line(const char *line, size_t bytes)
{
	struct gn_json_writer w = { 0 };
	struct gn_message m, back;
	const char *why = NULL;

	if (gn_message_parse(line, bytes, &m, &why)) {
		check(why && !m.whole);
		gn_protocol_put_error(&w, m.id, "ProtocolError", why);
	} else {
		take_members(m.body);
		gn_protocol_put_error(&w, m.id, "Fine", m.name);
	}
	/* The answer is one valid line, and carries the id. */
	check(!gn_json_finish(&w) && memchr(w.text, '\n', w.bytes) == w.text + w.bytes - 1);
	check(!gn_message_parse(w.text, w.bytes, &back, &why));
	check(back.kind == GN_MESSAGE_ERROR && !strcmp(back.id, m.id));
	gn_message_fini(&back);
	gn_message_fini(&m);
	gn_json_fini(&w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct gn_lines lines;
	size_t piece = size ? 1 + data[0] % 64 : 1;

	gn_lines_init(&lines, 512);
	for (size_t at = size ? 1 : 0; at < size; at += piece) {
		size_t n = size - at < piece ? size - at : piece, space, bytes;
		char *to = gn_lines_space(&lines, &space), *line;
		int more;

		check(to && space >= n);
		memcpy(to, data + at, n);
		gn_lines_received(&lines, n);
		while ((more = gn_lines_next(&lines, &line, &bytes)) > 0) {
			check(bytes <= 512 && !line[bytes]);
			take_line(line, bytes);
		}
		if (more < 0)
			break;
		gn_lines_relax(&lines);
	}
	gn_lines_fini(&lines);
	return 0;
}
