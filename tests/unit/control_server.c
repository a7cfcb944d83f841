/* SPDX-License-Identifier: MIT */
/*
 * control_server.c - the control socket: good peers are answered, hostile ones are bounded.
 */
#include <sys/resource.h>

#include "control_rig.h"

Test(control_server, conversation)
{
	static const struct {
		const char *say, *hear;
	} lines[] = {
		{ "{\"execute\": \"echo\", \"arguments\": {\"text\": \"h\\u00e9\"}, \"id\": 1}\n",
		  "{\"return\": \"h\xc3\xa9\", \"id\": 1}\n" },
		{ "{\"execute\": \"nothing\"}\r\n\n", "{\"return\": {}}\n" },
		{ "{\"execute\": \"nothing\", \"arguments\": {}, \"id\": \"a\"}\n",
		  "{\"return\": {}, \"id\": \"a\"}\n" },
		{ "{\"execute\": \"shout\", \"id\": 2}\n", "{\"return\": {}, \"id\": 2}\n" },
		{ "{\"execute\": \"nonsense\", \"id\": 3}\n",
		  "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"no command "
		  "\\\"nonsense\\\"\"}, \"id\": 3}\n" },
		{ "{\"execute\": \"echo\", \"arguments\": {\"txt\": 1}}\n", "takes text, not" },
		{ "{\"execute\": \"nothing\", \"arguments\": {\"x\": 1}}\n", "takes no arguments" },
		{ "{\"execute\": \"echo\"}\n", "InvalidArgument" },
		{ "{\"execute\": \"echo\", \"id\": 4, \"x\": 5}\n", "\"ProtocolError\"" },
		{ "]\n", "not JSON" },
		{ "\"\xff\"\n", "invalid UTF-8" },
		{ "{\"execute\": \"echo\", \"arguments\": {\"text\": \"a\\u0000\"}}\n",
		  "\\\\u0000 in a string" },
		{ "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]\n",
		  "nested too deeply" },
		{ "{\"execute\": \"nothing\", \"id\": 9}\n", "\"id\": 9" },
	};
	struct gn_server_stats stats;
	struct rig r;
	struct stat status;
	char out[4096];
	int fd;

	rig_init(&r, (struct gn_server_config){ 0 });
	cr_assert_eq(stat(r.path, &status), 0);
	cr_assert_eq(status.st_mode & 0777, 0600);
	fd = dial(&r);
	await(&r, fd, "\n", out, sizeof(out));
	cr_assert_str_eq(out,
			 "{\"gnomon\": {\"version\": {\"product\": \"test\", \"release\": \"1\", "
			 "\"protocol\": 1}, \"capabilities\": [\"testing\"]}}\n");
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		say(fd, lines[i].say);
		await(&r, fd, lines[i].hear, out, sizeof(out));
	}
	say(fd, "{\"event\": \"REPORT\", \"data\": {}}\n{\"event\": \"BAD\"}\n{\"execute\": "
		"\"nothing\"}\n");
	await(&r, fd, "{\"return\": {}}\n", out, sizeof(out));
	cr_assert_eq(r.events, 2);
	cr_assert_str_eq(r.last_event, "BAD");
	gn_server_get_stats(r.server, &stats);
	cr_assert_eq(stats.bad_events, 1);
	cr_assert_eq(stats.bad_lines, 5);
	cr_assert_eq(stats.errors, 4);
	close(fd);
	for (uint64_t end = gn_now_ns() + SECOND_NS; !r.gone && gn_now_ns() < end;)
		turn(&r);
	cr_assert_eq(r.gone, 1);
	rig_fini(&r);
}

/* A shell's `echo ... | nc -U`: the peer ends its side at once and still gets all answers. */
Test(control_server, half_closed_peer_is_answered)
{
	struct rig r;
	char out[8192];
	int fd;

	rig_init(&r, (struct gn_server_config){ 0 });
	fd = dial(&r);
	say(fd,
	    "{\"execute\": \"nothing\", \"id\": 1}\n{\"execute\": \"nothing\", \"id\": 2}\nrest");
	shutdown(fd, SHUT_WR);
	await(&r, fd, "\"id\": 2}", out, sizeof(out));
	await_hangup(&r, fd);
	cr_assert_eq(r.gone, 1);
	rig_fini(&r);
}

/* Who says half a line and waits is waited for, and holds up nobody. */
Test(control_server, half_a_line)
{
	struct gn_server_stats stats;
	struct rig r;
	char out[4096];
	int slow, other;

	rig_init(&r, (struct gn_server_config){ 0 });
	slow = dial(&r);
	await(&r, slow, "\n", out, sizeof(out));
	say(slow, "{\"execute\": \"noth");
	other = dial(&r);
	await(&r, other, "\n", out, sizeof(out));
	say(other, "{\"execute\": \"nothing\", \"id\": 1}\n");
	await(&r, other, "\"id\": 1", out, sizeof(out));
	gn_server_get_stats(r.server, &stats);
	cr_assert_eq(stats.peers, 2);
	cr_assert_eq(stats.bad_lines, 0);
	say(slow, "ing\", \"id\": 2}\n");
	await(&r, slow, "\"id\": 2", out, sizeof(out));
	close(slow);
	close(other);
	rig_fini(&r);
}

Test(control_server, line_without_end)
{
	static char noise[16384];
	struct gn_server_stats stats;
	struct rig r;
	int fd;

	memset(noise, 'a', sizeof(noise));
	rig_init(&r, (struct gn_server_config){ 0 });
	fd = dial(&r);
	for (unsigned i = 0; i < 64; i++) {
		if (send(fd, noise, sizeof(noise), MSG_NOSIGNAL) < 0 && errno != EAGAIN)
			break;
		turn(&r);
	}
	await_hangup(&r, fd);
	gn_server_get_stats(r.server, &stats);
	cr_assert_eq(stats.bad_lines, 1);
	cr_assert_eq(stats.peers, 0);
	rig_fini(&r);
}

/* Asks for megabytes and reads nothing: the server stops reading it, then drops it; others are served meanwhile. */
Test(control_server, slow_reader)
{
	static const char ask[] = "{\"execute\": \"big\"}\n";
	struct gn_server_stats stats;
	struct rig r;
	struct rusage before, after;
	char out[8192];
	int slow, good;
	uint64_t end;

	rig_init(&r, (struct gn_server_config){ .slow_ms = 200 });
	getrusage(RUSAGE_SELF, &before);
	slow = dial(&r);
	good = dial(&r);
	for (unsigned i = 0; i < 2000; i++) {
		if (send(slow, ask, sizeof(ask) - 1, MSG_NOSIGNAL) < 0)
			break;
		if (i % 50 == 0)
			turn(&r);
	}
	say(good, "{\"execute\": \"nothing\", \"id\": 5}\n");
	await(&r, good, "\"id\": 5", out, sizeof(out));
	end = gn_now_ns() + 5 * SECOND_NS;
	do {
		turn(&r);
		gn_server_get_stats(r.server, &stats);
	} while (!r.gone && gn_now_ns() < end);
	getrusage(RUSAGE_SELF, &after);
	cr_assert_eq(stats.dropped_slow, 1);
	cr_assert_eq(r.gone, 1);
	cr_assert_geq(stats.paused, 1);
	cr_assert_lt(stats.requests, 20, "it was not read on: %llu requests",
		     (unsigned long long)stats.requests);
	cr_assert_lt(after.ru_maxrss - before.ru_maxrss, 8192, "KiB");
	close(slow);
	close(good);
	rig_fini(&r);
}

/* Events pile up only to a bound. */
Test(control_server, deaf_listener)
{
	struct gn_server_stats stats;
	struct gn_peer *p;
	struct rig r;
	int fd;

	rig_init(&r, (struct gn_server_config){ .max_out_bytes = 32768 });
	fd = dial(&r);
	turn(&r);
	p = gn_server_next_peer(r.server, NULL);
	cr_assert_not_null(p);
	cr_assert_eq(gn_peer_pid(p), getpid());
	for (unsigned i = 0; i < 20000 && gn_server_next_peer(r.server, NULL); i++) {
		gn_json_put_u64(gn_peer_begin_event(p, "NOISE"), "n", i);
		gn_peer_end_event(p);
	}
	await_hangup(&r, fd);
	gn_server_get_stats(r.server, &stats);
	cr_assert_eq(stats.dropped_slow, 1);
	rig_fini(&r);
}

/* More messages than the bucket holds wait, and all are answered in the end. */
Test(control_server, chatterbox)
{
	static const char ask[] = "{\"execute\": \"nothing\"}\n";
	struct gn_server_stats stats;
	uint64_t start, took;
	struct rig r;
	char out[16384];
	int fd;

	rig_init(&r, (struct gn_server_config){ .messages_per_s = 100 });
	fd = dial(&r);
	start = gn_now_ns();
	for (unsigned i = 0; i < 150; i++)
		cr_assert_gt(send(fd, ask, sizeof(ask) - 1, MSG_NOSIGNAL), 0);
	say(fd, "{\"execute\": \"nothing\", \"id\": \"last\"}\n");
	await(&r, fd, "\"last\"", out, sizeof(out));
	took = gn_now_ns() - start;
	cr_assert_gt(took, SECOND_NS * 4 / 10, "151 messages at 100/s after 100 at once");
	gn_server_get_stats(r.server, &stats);
	cr_assert_geq(stats.paused, 1);
	cr_assert_eq(stats.requests, 151);
	close(fd);
	rig_fini(&r);
}

Test(control_server, too_many_peers)
{
	struct gn_server_stats stats;
	int fds[12];
	struct rig r;
	char out[4096];

	rig_init(&r, (struct gn_server_config){ .max_peers = 8 });
	for (unsigned i = 0; i < 12; i++) {
		fds[i] = dial(&r);
		turn(&r);
	}
	for (unsigned i = 8; i < 12; i++)
		await_hangup(&r, fds[i]);
	gn_server_get_stats(r.server, &stats);
	cr_assert_eq(stats.peers, 8);
	cr_assert_eq(stats.refused_full, 4);
	close(fds[0]);
	while (!r.gone)
		turn(&r);
	fds[0] = dial(&r);
	await(&r, fds[0], "gnomon", out, sizeof(out));
	for (unsigned i = 0; i < 8; i++)
		close(fds[i]);
	rig_fini(&r);
}

/* No descriptors left: newcomers are turned away, the loop does not spin on them, and old peers are served. */
Test(control_server, out_of_descriptors)
{
	struct gn_server_stats stats;
	struct rlimit old, low;
	struct rig r;
	char out[4096];
	int good, bad;

	rig_init(&r, (struct gn_server_config){ 0 });
	good = dial(&r);
	await(&r, good, "\n", out, sizeof(out));
	bad = dial(&r);
	getrlimit(RLIMIT_NOFILE, &old);
	low = old;
	low.rlim_cur = (rlim_t)bad + 1;
	setrlimit(RLIMIT_NOFILE, &low);
	await_hangup(&r, bad);
	setrlimit(RLIMIT_NOFILE, &old);
	gn_server_get_stats(r.server, &stats);
	cr_assert_eq(stats.refused_full, 1);
	say(good, "{\"execute\": \"nothing\", \"id\": 1}\n");
	await(&r, good, "\"id\": 1", out, sizeof(out));
	close(good);
	rig_fini(&r);
}

Test(control_server, one_daemon_per_socket)
{
	struct gn_server *first;
	struct gn_server_config config = { 0 };
	struct rig r;
	char long_path[200];

	rig_init(&r, config);
	first = r.server;
	cr_assert_eq(rig_listen(&r, &config), -EADDRINUSE);
	r.server = first;
	gn_server_destroy(first);
	/* What a killed daemon leaves: a socket file that nobody listens on. */
	close(open(r.path, O_CREAT | O_WRONLY, 0600));
	cr_assert_eq(rig_listen(&r, &config), 0);
	memset(long_path, 'a', sizeof(long_path) - 1);
	long_path[sizeof(long_path) - 1] = '\0';
	config.path = long_path;
	cr_assert_eq(gn_server_create(r.event, &config, &first), -ENAMETOOLONG);
	rig_fini(&r);
}
