/* SPDX-License-Identifier: MIT */
/*
 * control_client.c - the other end of the control socket, which comes back and never waits for ever.
 */
#include "control_rig.h"

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

Test(control_client, comes_back)
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

/* What a blocking call does with daemons that are absent, silent, or answer with an error. */
Test(control_client, calls)
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
