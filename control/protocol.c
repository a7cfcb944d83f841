/* SPDX-License-Identifier: MIT */
/*
 * protocol.c - one line into a message, and messages into lines.
 *
 * A line with an error still has a sender who waits: so the id is looked for first, and everything else after it.
 * Keys that a message of its kind does not have are errors, because a misspelt "argumnets" would otherwise run the
 * command without any.
 */
#include "protocol.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static int take_id(const cJSON *whole, struct gn_message *m)
{
	const cJSON *id = cJSON_GetObjectItemCaseSensitive(whole, "id");
	char text[GN_ID_BYTES];

	if (!id)
		return 0;
	if (!cJSON_IsNumber(id) && !cJSON_IsString(id))
		return -EINVAL;
	/* cJSON's printer wants five bytes more than it needs. */
	if (cJSON_IsString(id) && strlen(id->valuestring) > 48)
		return -EINVAL;
	if (!cJSON_PrintPreallocated((cJSON *)id, text, sizeof(text), false))
		return -EINVAL;
	memcpy(m->id, text, sizeof(text));
	return 0;
}

/* The name of a command or event: lower- and upper-case letters, digits, '-' and '_'. */
static bool take_name(const cJSON *item, struct gn_message *m)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				      "0123456789-_";

	if (!cJSON_IsString(item) || !item->valuestring[0] ||
	    strlen(item->valuestring) >= sizeof(m->name) ||
	    item->valuestring[strspn(item->valuestring, letters)])
		return false;
	memcpy(m->name, item->valuestring, strlen(item->valuestring) + 1);
	return true;
}

static const char *take_request(const cJSON *whole, struct gn_message *m, const char *verb,
				const char *body)
{
	const char *const keys[] = { verb, body, "id", "timestamp" };
	const bool is_event = m->kind == GN_MESSAGE_EVENT;
	struct gn_json_errors errors = { 0 };

	if (!take_name(cJSON_GetObjectItemCaseSensitive(whole, verb), m))
		return is_event ? "\"event\" is not a name" : "\"execute\" is not a name";
	gn_json_check_keys(&errors, whole, keys, is_event ? 4 : 3);
	if (errors.failed)
		return is_event ? "an event has the keys event, data, timestamp"
				: "a request has the keys execute, arguments, id";
	m->body = cJSON_GetObjectItemCaseSensitive(whole, body);
	if (m->body && !cJSON_IsObject(m->body)) {
		m->body = NULL;
		return is_event ? "\"data\" is not an object" : "\"arguments\" is not an object";
	}
	return NULL;
}

static const char *take_error(const cJSON *error, struct gn_message *m)
{
	m->body = error;
	if (!take_name(cJSON_GetObjectItemCaseSensitive(error, "class"), m) ||
	    !cJSON_IsString(cJSON_GetObjectItemCaseSensitive(error, "desc")))
		return "an error has a class and a desc";
	return NULL;
}

static const char *take_kind(const cJSON *whole, struct gn_message *m)
{
	static const struct {
		const char *key;
		enum gn_message_kind kind;
	} kinds[] = {
		{ "execute", GN_MESSAGE_EXECUTE }, { "event", GN_MESSAGE_EVENT },
		{ "return", GN_MESSAGE_RETURN },   { "error", GN_MESSAGE_ERROR },
		{ "gnomon", GN_MESSAGE_GREETING },
	};
	const cJSON *item = NULL;

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]) && !item; i++) {
		item = cJSON_GetObjectItemCaseSensitive(whole, kinds[i].key);
		m->kind = kinds[i].kind;
	}
	if (!item)
		return "neither execute nor event";
	switch (m->kind) {
	case GN_MESSAGE_EXECUTE:
		return take_request(whole, m, "execute", "arguments");
	case GN_MESSAGE_EVENT:
		return take_request(whole, m, "event", "data");
	case GN_MESSAGE_ERROR:
		return take_error(item, m);
	case GN_MESSAGE_RETURN:
	case GN_MESSAGE_GREETING:
		m->body = item;
		return NULL;
	}
	return "neither execute nor event";
}

int gn_message_parse(const char *line, size_t bytes, struct gn_message *out, const char **why)
{
	struct gn_message m = { .kind = GN_MESSAGE_EXECUTE };
	int err = gn_json_parse(line, bytes, &m.whole, why);

	if (!err && !cJSON_IsObject(m.whole)) {
		*why = "not an object";
		err = -EINVAL;
	}
	if (!err && take_id(m.whole, &m)) {
		*why = "\"id\" is not a number or a short string";
		err = -EINVAL;
	}
	if (!err) {
		*why = take_kind(m.whole, &m);
		err = *why ? -EINVAL : 0;
	}
	if (err) {
		cJSON_Delete(m.whole);
		m.whole = NULL;
		m.body = NULL;
	}
	*out = m;
	return err;
}

void gn_message_fini(struct gn_message *m)
{
	cJSON_Delete(m->whole);
	m->whole = NULL;
	m->body = NULL;
}

static void begin_line(struct gn_json_writer *w)
{
	w->needs_comma = false;
	gn_json_begin_object(w, NULL);
}

static void end_line(struct gn_json_writer *w)
{
	gn_json_end_object(w);
	w->needs_comma = false;
	gn_json_put_raw(w, NULL, "\n", 1);
	w->needs_comma = false;
}

static void put_id(struct gn_json_writer *w, const char *id)
{
	if (id[0])
		gn_json_put_raw(w, "id", id, strlen(id));
}

void gn_protocol_put_greeting(struct gn_json_writer *w, const char *product, const char *version,
			      const char *const *capabilities, size_t count)
{
	begin_line(w);
	gn_json_begin_object(w, "gnomon");
	gn_json_begin_object(w, "version");
	gn_json_put_text(w, "product", product);
	gn_json_put_text(w, "release", version);
	gn_json_put_u64(w, "protocol", 1);
	gn_json_end_object(w);
	gn_json_begin_array(w, "capabilities");
	for (size_t i = 0; i < count; i++)
		gn_json_put_text(w, NULL, capabilities[i]);
	gn_json_end_array(w);
	gn_json_end_object(w);
	end_line(w);
}

void gn_protocol_put_error(struct gn_json_writer *w, const char *id, const char *class_name,
			   const char *text)
{
	begin_line(w);
	gn_json_begin_object(w, "error");
	gn_json_put_text(w, "class", class_name);
	gn_json_put_text(w, "desc", text);
	gn_json_end_object(w);
	put_id(w, id);
	end_line(w);
}

void gn_protocol_begin_command(struct gn_json_writer *w, const char *name)
{
	begin_line(w);
	gn_json_put_text(w, "execute", name);
}

void gn_protocol_end_command(struct gn_json_writer *w, const char *id)
{
	put_id(w, id);
	end_line(w);
}

void gn_protocol_begin_return(struct gn_json_writer *w)
{
	begin_line(w);
}

void gn_protocol_end_return(struct gn_json_writer *w, const char *id)
{
	put_id(w, id);
	end_line(w);
}

void gn_protocol_begin_event(struct gn_json_writer *w, const char *name)
{
	begin_line(w);
	gn_json_put_text(w, "event", name);
	gn_json_begin_object(w, "data");
}

void gn_protocol_end_event(struct gn_json_writer *w, uint64_t wall_us)
{
	gn_json_end_object(w);
	if (wall_us) {
		gn_json_begin_object(w, "timestamp");
		gn_json_put_u64(w, "seconds", wall_us / 1000000);
		gn_json_put_u64(w, "microseconds", wall_us % 1000000);
		gn_json_end_object(w);
	}
	end_line(w);
}
