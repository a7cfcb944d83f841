/* SPDX-License-Identifier: MIT */
/*
 * control_descriptors.c - answers that bring descriptors: they come with their line, and none is left over.
 */
#include "control_rig.h"
#include "support/send_descriptor.h"

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

static size_t open_files(void)
{
	size_t count = 0;

	for (int fd = 0; fd < 256; fd++)
		count += fcntl(fd, F_GETFD) >= 0;
	return count;
}

/* A descriptor that is dropped is closed by the daemon, which may take long. */
Test(control_descriptors, none_are_taken)
{
	struct rig r;
	int fd;

	rig_init(&r, (struct gn_server_config){ 0 });
	fd = dial(&r);
	expect_descriptor_refused(fd);
	close(fd);
	rig_fini(&r);
}

/* Descriptors come with their line, also when they had to wait behind others, and none is left over. */
Test(control_descriptors, come_with_their_line)
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

Test(control_descriptors, client_takes_them)
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
