/* SPDX-License-Identifier: MIT */
/*
 * protocol.h - the messages of the control socket, in the manner of QMP (the QEMU machine protocol).
 *
 * One JSON object per line. The server greets; then each side may send
 *
 *     {"execute": NAME, "arguments": {...}, "id": any}      client: do, and answer
 *     {"return": value, "id": the same}                      server: done
 *     {"error": {"class": NAME, "desc": text}, "id": ...}    server: not done, and why
 *     {"event": NAME, "data": {...}}                         either: told, not answered
 *
 * Unlike QMP a client may send events too: a VM's reports need no answer, and a thousand VMs send many. The id is a
 * number or a string, short, and comes back as it was. A server's event carries a "timestamp" as in QMP.
 */
#ifndef GN_CONTROL_PROTOCOL_H
#define GN_CONTROL_PROTOCOL_H

#include "json.h"

#ifdef __cplusplus
extern "C" {
#endif

#define GN_LINE_MAX_BYTES (64 * 1024)
#define GN_NAME_BYTES	  48 /* of a command, an event or an error class, with NUL */
#define GN_ID_BYTES	  72 /* of an id as JSON text, with NUL */

enum gn_message_kind {
	GN_MESSAGE_EXECUTE,
	GN_MESSAGE_EVENT,
	GN_MESSAGE_RETURN,
	GN_MESSAGE_ERROR,
	GN_MESSAGE_GREETING,
};

struct gn_message {
	enum gn_message_kind kind;
	char name[GN_NAME_BYTES]; /* command, event, error class; "" for the others */
	char id[GN_ID_BYTES];	  /* JSON text; "": none */
	/* Arguments, data, return value, error or greeting; borrowed from @whole. NULL: none. */
	const cJSON *body;
	cJSON *whole;
};

/* Take one line apart. 0, or -EINVAL with *why; whatever could be read of the id is in @out either way, so that
 * the error finds its sender. */
int gn_message_parse(const char *line, size_t bytes, struct gn_message *out, const char **why);
void gn_message_fini(struct gn_message *);

/* Whole lines, with their newline, appended to @w. @id as in gn_message. A body is what the caller writes between
 * _begin and _end: one value under the key given there. */
void gn_protocol_put_greeting(struct gn_json_writer *, const char *product, const char *version,
			      const char *const *capabilities, size_t count);
void gn_protocol_put_error(struct gn_json_writer *, const char *id, const char *class_name,
			   const char *text);
/* A client's request. Members of the line follow, as a rule one, "arguments". */
void gn_protocol_begin_command(struct gn_json_writer *, const char *name);
void gn_protocol_end_command(struct gn_json_writer *, const char *id);
void gn_protocol_begin_return(struct gn_json_writer *);
void gn_protocol_end_return(struct gn_json_writer *, const char *id);
/* @wall_us: the timestamp, 0 for none (a client's event). Members of "data" follow. */
void gn_protocol_begin_event(struct gn_json_writer *, const char *name);
void gn_protocol_end_event(struct gn_json_writer *, uint64_t wall_us);

#ifdef __cplusplus
}
#endif

#endif
