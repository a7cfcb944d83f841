/* SPDX-License-Identifier: MIT */
/*
 * agent_session.c - one registration with a group: the exchange, the domain's key, and a scanner that uses it.
 *
 * Nothing of it outlives the connection but what is merged. The next session's key is another one, so all pages are looked
 * at again; those that have a frame of a former session move to the new one's when they meet their like there.
 */
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "agent_impl.h"

static int begin(struct gn_share_agent *a, int exchange_fd)
{
	struct gn_scanner_config scanner = {
		.vm = a->config.vm, .hasher = &a->hasher, .offers = gn_share_offer, .ctx = a
	};
	int err = gn_exchange_open(exchange_fd, &a->exchange);

	if (!err)
		err = gn_hasher_init(&a->hasher, gn_exchange_key(a->exchange),
				     GN_EXCHANGE_KEY_BYTES, 0);
	return err ? err : gn_scanner_new(&scanner, &a->scanner);
}

int gn_share_session_begin(struct gn_share_agent *a, const int fds[3])
{
	int err;

	a->daemon_fd = fds[1];
	a->orders_fd = fds[2];
	a->is_broken = a->is_asking = a->is_held_back = a->is_sweeping = false;
	a->refused_segment = UINT_MAX;
	err = begin(a, fds[0]);
	close(fds[0]);
	if (err)
		gn_share_session_end(a);
	return err;
}

void gn_share_session_end(struct gn_share_agent *a)
{
	gn_scanner_destroy(a->scanner);
	gn_exchange_destroy(a->exchange);
	gn_hasher_fini(&a->hasher);
	a->scanner = NULL;
	a->exchange = NULL;
	if (a->daemon_fd >= 0)
		close(a->daemon_fd);
	if (a->orders_fd >= 0)
		close(a->orders_fd);
	a->daemon_fd = a->orders_fd = -1;
	gn_share_window_orphan(&a->window);
}

void gn_share_session_kick(struct gn_share_agent *a)
{
	if (!a->has_put)
		return;
	a->has_put = false;
	/* Full means kicked already. */
	if (eventfd_write(a->daemon_fd, 1))
		return;
}
