/* SPDX-License-Identifier: MIT */
/*
 * control_server.c - the control socket: good peers are answered, hostile ones are bounded, and clients come back.
 *
 * Server and peers run in one thread: peers are non-blocking sockets, the loop is turned until what is expected has
 * happened or time is up.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "control/client.h"
#include "control/clock.h"
#include "control/server.h"

#define SECOND_NS ((uint64_t)1000000000)

struct rig {
	char directory[64], path[80];
	sd_event *event;
	struct gn_server *server;
	unsigned events, gone;
	char last_event[32];
};

static void run_echo(void *ctx, struct gn_peer *p, const cJSON *arguments, struct gn_reply *reply)
{
	const char *text = cJSON_GetStringValue(cJSON_GetObjectItem(arguments, "text"));

	(void)ctx;
	(void)p;
	if (!text)
		gn_reply_fail(reply, "InvalidArgument", "\"text\" is missing");
	else
		gn_json_put_text(reply->writer, "return", text);
}

static void run_nothing(void *ctx, struct gn_peer *p, const cJSON *arguments,
			struct gn_reply *reply)
{
	(void)ctx;
	(void)p;
	(void)arguments;
	(void)reply;
}

static void run_big(void *ctx, struct gn_peer *p, const cJSON *arguments, struct gn_reply *reply)
{
	static char text[100001];

	(void)ctx;
	(void)p;
	(void)arguments;
	memset(text, 'x', sizeof(text) - 1);
	gn_json_put_text(reply->writer, "return", text);
}

/* Two events to who asks, before the answer. */
static void run_shout(void *ctx, struct gn_peer *p, const cJSON *arguments, struct gn_reply *reply)
{
	(void)ctx;
	(void)arguments;
	(void)reply;
	for (unsigned i = 0; i < 2; i++) {
		gn_json_put_u64(gn_peer_begin_event(p, "SHOUT"), "n", i);
		gn_peer_end_event(p);
	}
}

/* A descriptor of a file that says "gift". */
static void run_gift(void *ctx, struct gn_peer *p, const cJSON *arguments, struct gn_reply *reply)
{
	int fd = memfd_create("gift", MFD_CLOEXEC);

	(void)ctx;
	(void)p;
	cr_assert_eq(pwrite(fd, "gift", 4, 0), 4);
	cr_assert_eq(gn_reply_attach(reply, fd), 0);
	close(fd);
	if (cJSON_GetObjectItem(arguments, "fail"))
		gn_reply_fail(reply, "Denied", "no gift");
}

static const struct gn_server_command commands[] = {
	{ "gift", run_gift, "fail" },	  { "echo", run_echo, "text" },
	{ "nothing", run_nothing, NULL }, { "big", run_big, NULL },
	{ "shout", run_shout, NULL },
};

static int on_event(void *ctx, struct gn_peer *p, const char *name, const cJSON *data)
{
	struct rig *r = ctx;

	(void)p;
	r->events++;
	snprintf(r->last_event, sizeof(r->last_event), "%s", name);
	return data ? 0 : -EINVAL;
}

static void on_gone(void *ctx, struct gn_peer *p)
{
	struct rig *r = ctx;

	(void)p;
	r->gone++;
}

static const char *const capabilities[] = { "testing" };

static int rig_listen(struct rig *r, struct gn_server_config *config)
{
	config->path = r->path;
	config->product = "test";
	config->release = "1";
	config->capabilities = capabilities;
	config->capability_count = 1;
	config->commands = commands;
	config->command_count = sizeof(commands) / sizeof(commands[0]);
	config->event = on_event;
	config->gone = on_gone;
	config->ctx = r;
	return gn_server_create(r->event, config, &r->server);
}

static void rig_init(struct rig *r, struct gn_server_config config)
{
	memset(r, 0, sizeof(*r));
	snprintf(r->directory, sizeof(r->directory), "/tmp/gn_control_XXXXXX");
	cr_assert_not_null(mkdtemp(r->directory));
	snprintf(r->path, sizeof(r->path), "%s/socket", r->directory);
	cr_assert_geq(sd_event_new(&r->event), 0);
	cr_assert_eq(rig_listen(r, &config), 0);
}

static void rig_fini(struct rig *r)
{
	char lock[100];

	gn_server_destroy(r->server);
	sd_event_unref(r->event);
	snprintf(lock, sizeof(lock), "%s.lock", r->path);
	unlink(lock);
	cr_assert_eq(rmdir(r->directory), 0, "the socket is gone with its server");
}

static int dial(struct rig *r)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	memcpy(address.sun_path, r->path, strlen(r->path) + 1);
	cr_assert_eq(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

static void turn(struct rig *r)
{
	cr_assert_geq(sd_event_run(r->event, 2000), 0);
}

/* Turn until @wanted is in what came from @fd; all of it in @out. */
static void await(struct rig *r, int fd, const char *wanted, char *out, size_t bytes)
{
	uint64_t end = gn_now_ns() + 5 * SECOND_NS;
	size_t have = 0;

	out[0] = '\0';
	while (!strstr(out, wanted)) {
		ssize_t got;

		turn(r);
		got = recv(fd, out + have, bytes - 1 - have, 0);
		if (got > 0)
			have += (size_t)got;
		out[have] = '\0';
		cr_assert_lt(gn_now_ns(), end, "no \"%s\" in: %s", wanted, out);
	}
}

/* Turn until the server has hung up on @fd; what it sent before is read away. */
static void await_hangup(struct rig *r, int fd)
{
	uint64_t end = gn_now_ns() + 5 * SECOND_NS;
	char away[4096];
	ssize_t got;

	do {
		turn(r);
		got = recv(fd, away, sizeof(away), 0);
		cr_assert_lt(gn_now_ns(), end, "no hang-up");
	} while (got > 0 || (got < 0 && errno == EAGAIN));
	close(fd);
}

static void say(int fd, const char *text)
{
	cr_assert_eq(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

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

/* Lines up to the one with @id, which brings @fd (-1: none came). */
static void await_with_fd(struct rig *r, int from, const char *id, int *fd)
{
	uint64_t end = gn_now_ns() + 5 * SECOND_NS;
	static char out[256 * 1024];
	size_t have = 0;

	*fd = -1;
	out[0] = '\0';
	while (!strstr(out, id)) {
		_Alignas(struct cmsghdr) char space[CMSG_SPACE(4 * sizeof(int))];
		struct iovec bytes = { out + have, sizeof(out) - 1 - have };
		struct msghdr m = { .msg_iov = &bytes,
				    .msg_iovlen = 1,
				    .msg_control = space,
				    .msg_controllen = sizeof(space) };
		ssize_t got;

		turn(r);
		got = recvmsg(from, &m, MSG_CMSG_CLOEXEC);
		if (got > 0) {
			struct cmsghdr *head = CMSG_FIRSTHDR(&m);

			if (head) {
				cr_assert_eq(*fd, -1, "one, and once");
				cr_assert_eq(head->cmsg_len, CMSG_LEN(sizeof(*fd)));
				memcpy(fd, CMSG_DATA(head), sizeof(*fd));
			}
			have += (size_t)got;
			out[have] = '\0';
		}
		cr_assert_lt(gn_now_ns(), end, "no \"%s\"", id);
	}
}

static void check_gift(int fd)
{
	char text[5] = "";

	cr_assert_eq(pread(fd, text, 4, 0), 4);
	cr_assert_str_eq(text, "gift");
	close(fd);
}

static size_t open_files(void)
{
	size_t count = 0;

	for (int fd = 0; fd < 256; fd++)
		count += fcntl(fd, F_GETFD) >= 0;
	return count;
}

/* Descriptors come with their line, also when they had to wait behind others, and none is left over. */
Test(control_server, descriptors)
{
	struct rig r;
	size_t files;
	int fd, gift;

	rig_init(&r, (struct gn_server_config){ 0 });
	fd = dial(&r);
	await_with_fd(&r, fd, "testing", &gift);
	files = open_files();
	say(fd, "{\"execute\": \"gift\", \"id\": \"a\"}\n");
	await_with_fd(&r, fd, "\"a\"", &gift);
	check_gift(gift);
	say(fd, "{\"execute\": \"gift\", \"arguments\": {\"fail\": 1}, \"id\": \"b\"}\n");
	await_with_fd(&r, fd, "\"b\"", &gift);
	cr_assert_eq(gift, -1);
	/* Far more than a socket buffer holds, so that the gift waits; then another. */
	for (unsigned i = 0; i < 8; i++)
		say(fd, "{\"execute\": \"big\"}\n{\"execute\": \"gift\", \"id\": \"c\"}\n");
	for (unsigned i = 0; i < 20; i++)
		turn(&r);
	for (unsigned i = 0; i < 8; i++) {
		await_with_fd(&r, fd, "\"c\"", &gift);
		check_gift(gift);
	}
	cr_assert_eq(open_files(), files);
	/* One that is never fetched. */
	for (unsigned i = 0; i < 8; i++)
		say(fd, "{\"execute\": \"big\"}\n{\"execute\": \"gift\"}\n");
	for (unsigned i = 0; i < 20; i++)
		turn(&r);
	close(fd);
	while (!r.gone)
		turn(&r);
	cr_assert_eq(open_files(), files - 2);
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

struct side {
	unsigned up, down, messages;
};

static void client_up(void *ctx, struct gn_client *c)
{
	static const char hello[] = "{\"execute\": \"shout\", \"id\": \"hello\"}\n";
	struct side *side = ctx;

	side->up++;
	cr_assert_eq(gn_client_send(c, hello, sizeof(hello) - 1), 0);
}

static void client_down(void *ctx, struct gn_client *c)
{
	struct side *side = ctx;

	cr_assert_not(gn_client_is_up(c));
	side->down++;
}

static void client_message(void *ctx, struct gn_client *c, const struct gn_message *m)
{
	struct side *side = ctx;

	(void)c;
	(void)m;
	side->messages++;
}

static void turn_both(struct rig *r, struct gn_client *c)
{
	uint64_t now = gn_now_ns();
	struct pollfd fd;

	gn_client_prepare(c, &fd, now);
	if (poll(&fd, 1, 1) < 0)
		fd.revents = 0;
	gn_client_step(c, fd.revents, gn_now_ns());
	turn(r);
}

Test(control_server, client_comes_back)
{
	struct side side = { 0 };
	struct gn_client_config config = { .up = client_up,
					   .down = client_down,
					   .message = client_message,
					   .ctx = &side,
					   .max_pause_ms = 50 };
	struct gn_server_config server = { 0 };
	struct gn_client *c;
	struct rig r;
	uint64_t end = gn_now_ns() + 10 * SECOND_NS;

	rig_init(&r, server);
	config.path = r.path;
	cr_assert_eq(gn_client_create(&config, &c), 0);
	cr_assert_eq(gn_client_send(c, "x\n", 2), -ENOTCONN);
	for (unsigned life = 1; life <= 3; life++) {
		while (side.messages < 3 * life && gn_now_ns() < end)
			turn_both(&r, c);
		cr_assert_eq(side.up, life);
		cr_assert_eq(side.messages, 3 * life, "two events and an answer in each life");
		gn_server_destroy(r.server);
		r.server = NULL;
		while (side.down < life && gn_now_ns() < end)
			turn_both(&r, c);
		cr_assert_eq(side.down, life);
		/* Away for a while: attempts fail, and say so. */
		for (unsigned i = 0; i < 20; i++)
			turn_both(&r, c);
		cr_assert_lt(gn_client_error(c), 0);
		cr_assert_eq(rig_listen(&r, &server), 0);
	}
	gn_client_destroy(c);
	rig_fini(&r);
}

static void ask_gift(void *ctx, struct gn_client *c)
{
	static const char twice[] = "{\"execute\": \"gift\"}\n{\"execute\": \"gift\"}\n";

	(void)ctx;
	gn_client_send(c, twice, strlen(twice));
}

static void take_gift(void *ctx, struct gn_client *c, const struct gn_message *m)
{
	unsigned *gifts = ctx;
	int fds[GN_CLIENT_FDS];

	cr_assert_eq(m->kind, GN_MESSAGE_RETURN);
	cr_assert_eq(gn_client_take_fds(c, fds, 1), 1);
	check_gift(fds[0]);
	++*gifts;
}

Test(control_server, client_takes_descriptors)
{
	unsigned gifts = 0;
	struct gn_client_config config = { .up = ask_gift, .message = take_gift, .ctx = &gifts };
	uint64_t end = gn_now_ns() + 10 * SECOND_NS;
	struct gn_client *c;
	struct rig r;

	rig_init(&r, (struct gn_server_config){ 0 });
	config.path = r.path;
	cr_assert_eq(gn_client_create(&config, &c), 0);
	while (gifts < 2 && gn_now_ns() < end)
		turn_both(&r, c);
	cr_assert_eq(gifts, 2);
	gn_client_destroy(c);
	rig_fini(&r);
}

/* What a blocking call does with daemons that are absent, silent, or answer with an error. */
Test(control_server, calls)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct gn_client_config config = { 0 };
	struct gn_client *c;
	char directory[] = "/tmp/gn_control_XXXXXX";
	cJSON *answer = NULL;
	int fd;

	cr_assert_not_null(mkdtemp(directory));
	snprintf(address.sun_path, sizeof(address.sun_path), "%s/silent", directory);
	config.path = address.sun_path;
	cr_assert_eq(gn_client_create(&config, &c), 0);
	cr_assert_eq(gn_client_call(c, "nothing", NULL, 1000, &answer), -ENOENT);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	cr_assert_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	cr_assert_eq(gn_client_call(c, "nothing", NULL, 1000, &answer), -ECONNREFUSED);
	cr_assert_eq(listen(fd, 1), 0);
	cr_assert_eq(gn_client_call(c, "nothing", NULL, 50, &answer), -ETIMEDOUT);
	gn_client_destroy(c);
	close(fd);
	unlink(address.sun_path);
	rmdir(directory);
}
