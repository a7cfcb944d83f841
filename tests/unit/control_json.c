/* SPDX-License-Identifier: MIT */
/*
 * control_json.c - JSON of peers: what is refused before the parser sees it, what the getters say, what the writer
 * makes of hostile strings; and lines cut from a stream.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <math.h>
#include <string.h>

#include "control/json.h"
#include "control/lines.h"
#include "control/protocol.h"

Test(control_json, texts)
{
	static const struct {
		const char *text, *why; /* why NULL: fine */
	} cases[] = {
		{ "{}", NULL },
		{ " [1, 2.5e3, true, null, \"x\"] \r\n", NULL },
		{ "\"\\\"[[[[[[[[[[[[[[[[[[[[[\"", NULL },
		{ "\"\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80 \\u00e9\"", NULL },
		{ "[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]", NULL },
		{ "[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]", "nested too deeply" },
		{ "{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{"
		  "\"a\":"
		  "{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":1}}}}}}}}}}}}}}}}}",
		  "nested too deeply" },
		{ "", "not JSON" },
		{ "{", "not JSON" },
		{ "{} {}", "not JSON" },
		{ "{}x", "not JSON" },
		{ "{\"a\" 1}", "not JSON" },
		{ "]]]]", "not JSON" },
		{ "\"\xff\"", "invalid UTF-8" },
		{ "\"\xc0\xaf\"", "invalid UTF-8" },	     /* overlong */
		{ "\"\xe0\x80\xaf\"", "invalid UTF-8" },     /* overlong */
		{ "\"\xed\xa0\x80\"", "invalid UTF-8" },     /* surrogate */
		{ "\"\xf4\x90\x80\x80\"", "invalid UTF-8" }, /* past U+10FFFF */
		{ "\"\xf5\x80\x80\x80\"", "invalid UTF-8" },
		{ "\"\xe2\x82\"", "invalid UTF-8" }, /* cut short */
		{ "\"root\\u0000x\"", "\\u0000 in a string" },
		{ "\"\\\\u0000 is four digits\"", NULL },
		{ "\"a\tb\"", "a control character in a string" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const char *why = NULL;
		cJSON *value = NULL;
		int err = gn_json_parse(cases[i].text, strlen(cases[i].text), &value, &why);

		cr_assert_eq(err, cases[i].why ? -EINVAL : 0, "%s: %d %s", cases[i].text, err,
			     why ? why : "");
		if (cases[i].why)
			cr_assert_str_eq(why, cases[i].why, "%s", cases[i].text);
		else
			cJSON_Delete(value);
	}
	{
		const char *why;
		cJSON *value;

		cr_assert_eq(gn_json_parse("{}\0{}", 5, &value, &why), -EINVAL);
		cr_assert_str_eq(why, "a NUL byte");
	}
}

Test(control_json, getters)
{
	static const struct {
		const char *text, *why;
	} cases[] = {
		{ "{\"n\": 0, \"s\": \"ab\"}", NULL },
		{ "{\"n\": 9007199254740992, \"s\": \"abcdefg\"}", NULL },
		{ "{\"s\": \"x\"}", "\"n\" is missing" },
		{ "{\"n\": null, \"s\": \"x\"}", "\"n\" is missing" },
		{ "{\"n\": -1, \"s\": \"x\"}", "\"n\" is not a whole number" },
		{ "{\"n\": 1.5, \"s\": \"x\"}", "\"n\" is not a whole number" },
		{ "{\"n\": 9007199254740994, \"s\": \"x\"}", "\"n\" is not a whole number" },
		{ "{\"n\": 1e999, \"s\": \"x\"}", "\"n\" is not a whole number" },
		{ "{\"n\": \"1\", \"s\": \"x\"}", "\"n\" is not a whole number" },
		{ "{\"n\": true, \"s\": \"x\"}", "\"n\" is not a whole number" },
		{ "{\"n\": [], \"s\": \"x\"}", "\"n\" is not a whole number" },
		{ "{\"n\": 1, \"s\": \"abcdefgh\"}", "\"s\" is not a string" },
		{ "{\"n\": 1, \"s\": \"\"}", "\"s\" is not a string" },
		{ "{\"n\": 1, \"s\": \"a\\nb\"}", "\"s\" is not a string" },
		{ "{\"n\": 1, \"s\": 5}", "\"s\" is not a string" },
		{ "{\"n\": 1, \"s\": \"x\", \"b\": 0}", "\"b\" is not true or false" },
		{ "{\"n\": 1, \"s\": \"x\", \"d\": 2}", "\"d\" is not a number from 0 to 1" },
		{ "{\"n\": 1, \"s\": \"x\", \"D\": 1}", "\"D\" is not known here" },
	};
	static const char *const keys[] = { "n", "s", "b", "d" };

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct gn_json_errors errors = { 0 };
		const char *why;
		uint64_t n = 77;
		double d = 0;
		bool b = false;
		char s[8] = "";
		cJSON *value;

		cr_assert_eq(gn_json_parse(cases[i].text, strlen(cases[i].text), &value, &why), 0);
		gn_json_check_keys(&errors, value, keys, 4);
		gn_json_get_u64(&errors, value, "n", GN_JSON_REQUIRED, UINT64_MAX, &n);
		gn_json_get_text(&errors, value, "s", GN_JSON_REQUIRED, s, sizeof(s));
		gn_json_get_bool(&errors, value, "b", GN_JSON_OPTIONAL, &b);
		gn_json_get_double(&errors, value, "d", GN_JSON_OPTIONAL, 0, 1, &d);
		cr_assert_eq(errors.failed, cases[i].why != NULL, "%s: %s", cases[i].text,
			     errors.why);
		if (cases[i].why)
			cr_assert(!strncmp(errors.why, cases[i].why, strlen(cases[i].why)),
				  "%s: %s", cases[i].text, errors.why);
		cJSON_Delete(value);
	}
}

Test(control_json, written_is_read_back)
{
	static const char hostile[] = "q\"b\\ n\n t\t \x01 \x7f \xc3\xa9 \xff \xed\xa0\x80 end";
	struct gn_json_writer w = { 0 };
	const char *why;
	cJSON *value, *inner;

	gn_json_begin_object(&w, NULL);
	gn_json_put_text(&w, "key \"\n", hostile);
	gn_json_put_u64(&w, "u", (uint64_t)1 << 53);
	gn_json_put_double(&w, "nan", NAN);
	gn_json_put_double(&w, "d", -0.125);
	gn_json_begin_array(&w, "list");
	gn_json_put_bool(&w, NULL, true);
	gn_json_begin_object(&w, NULL);
	gn_json_end_object(&w);
	gn_json_begin_array(&w, NULL);
	gn_json_end_array(&w);
	gn_json_put_bool(&w, NULL, false);
	gn_json_end_array(&w);
	gn_json_end_object(&w);
	cr_assert_eq(gn_json_finish(&w), 0);
	cr_assert_eq(gn_json_parse(w.text, w.bytes, &value, &why), 0, "%s", w.text);
	cr_assert_str_eq(cJSON_GetStringValue(cJSON_GetObjectItem(value, "key \"\n")),
			 "q\"b\\ n\n t\t \x01 \x7f \xc3\xa9 \xef\xbf\xbd "
			 "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd end");
	cr_assert_eq(cJSON_GetNumberValue(cJSON_GetObjectItem(value, "u")), 0x1p53);
	cr_assert_eq(cJSON_GetNumberValue(cJSON_GetObjectItem(value, "d")), -0.125);
	cr_assert(cJSON_IsNull(cJSON_GetObjectItem(value, "nan")));
	inner = cJSON_GetObjectItem(value, "list");
	cr_assert_eq(cJSON_GetArraySize(inner), 4);
	cJSON_Delete(value);
	gn_json_fini(&w);
}

static void feed(struct gn_lines *l, const char *text, size_t bytes)
{
	while (bytes) {
		size_t space;
		char *to = gn_lines_space(l, &space);
		size_t n = bytes < space ? bytes : space;

		cr_assert_not_null(to);
		memcpy(to, text, n);
		gn_lines_received(l, n);
		text += n;
		bytes -= n;
	}
}

/* However the stream is cut into pieces, the lines are the same. */
Test(control_json, lines_in_pieces)
{
	static const char stream[] = "one\n\ntwo\r\nthree and more\nrest";
	static const char *const expected[] = { "one", "", "two", "three and more" };

	for (size_t piece = 1; piece <= sizeof(stream); piece++) {
		struct gn_lines l;
		unsigned seen = 0;

		gn_lines_init(&l, 14);
		for (size_t at = 0; at < sizeof(stream) - 1; at += piece) {
			size_t left = sizeof(stream) - 1 - at, bytes;
			char *line;

			feed(&l, stream + at, piece < left ? piece : left);
			while (gn_lines_next(&l, &line, &bytes) == 1) {
				cr_assert_lt(seen, 4);
				cr_assert_str_eq(line, expected[seen]);
				cr_assert_eq(bytes, strlen(line));
				seen++;
			}
			gn_lines_relax(&l);
		}
		cr_assert_eq(seen, 4, "pieces of %zu", piece);
		gn_lines_fini(&l);
	}
}

Test(control_json, line_too_long)
{
	struct gn_lines l;
	char *line;
	size_t bytes;

	gn_lines_init(&l, 4);
	feed(&l, "1234\n1234", 9);
	cr_assert_eq(gn_lines_next(&l, &line, &bytes), 1);
	cr_assert_eq(gn_lines_next(&l, &line, &bytes), 0);
	feed(&l, "5", 1);
	cr_assert_eq(gn_lines_next(&l, &line, &bytes), -EMSGSIZE, "told before its end");
	gn_lines_fini(&l);
}

Test(control_json, messages)
{
	static const struct {
		const char *line;
		int kind; /* -1: refused */
		const char *name, *id;
	} cases[] = {
		{ "{\"execute\": \"query-vms\"}", GN_MESSAGE_EXECUTE, "query-vms", "" },
		{ "{\"execute\": \"x\", \"arguments\": {}, \"id\": 7}", GN_MESSAGE_EXECUTE, "x",
		  "7" },
		{ "{\"execute\": \"x\", \"id\": \"a\\\"b\"}", GN_MESSAGE_EXECUTE, "x",
		  "\"a\\\"b\"" },
		{ "{\"event\": \"REPORT\", \"data\": {\"a\": 1}}", GN_MESSAGE_EVENT, "REPORT", "" },
		{ "{\"return\": [1], \"id\": 2}", GN_MESSAGE_RETURN, "", "2" },
		{ "{\"error\": {\"class\": \"C\", \"desc\": \"d\"}}", GN_MESSAGE_ERROR, "C", "" },
		{ "{\"gnomon\": {}}", GN_MESSAGE_GREETING, "", "" },
		{ "{\"execute\": \"x\", \"argumnets\": {}, \"id\": 3}", -1, "x", "3" },
		{ "{\"execute\": \"x\", \"arguments\": [], \"id\": 4}", -1, "x", "4" },
		{ "{\"execute\": \"a b\"}", -1, "", "" },
		{ "{\"execute\": \"\"}", -1, "", "" },
		{ "{\"execute\": 5}", -1, "", "" },
		{ "{\"execute\": "
		  "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"}",
		  -1, "", "" },
		{ "{\"execute\": \"x\", \"id\": {}}", -1, "", "" },
		{ "{\"execute\": \"x\", \"id\": "
		  "\"0123456789012345678901234567890123456789012345678\"}",
		  -1, "", "" },
		{ "{\"error\": {\"class\": \"C\"}}", -1, "C", "" },
		{ "{}", -1, "", "" },
		{ "[]", -1, "", "" },
		{ "5", -1, "", "" },
		{ "not", -1, "", "" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct gn_message m;
		const char *why = NULL;
		int err = gn_message_parse(cases[i].line, strlen(cases[i].line), &m, &why);

		cr_assert_eq(err, cases[i].kind < 0 ? -EINVAL : 0, "%s: %s", cases[i].line,
			     why ? why : "");
		cr_assert_str_eq(m.name, cases[i].name, "%s", cases[i].line);
		cr_assert_str_eq(m.id, cases[i].id, "%s: id", cases[i].line);
		if (err)
			cr_assert_not_null(why, "%s", cases[i].line);
		else
			cr_assert_eq((int)m.kind, cases[i].kind, "%s", cases[i].line);
		gn_message_fini(&m);
	}
}
