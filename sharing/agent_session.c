/* SPDX-License-Identifier: MIT */
/*
 * agent_session.c - one registration with a group: the exchange, the domain's key, and a scanner that uses it.
 *
 * Nothing of it outlives the connection but what is merged, and what the guest said of its pages. The next session's key is
 * another one, so all pages are looked at again; those that have a frame of a former session move to the new one's when they
 * meet their like there.
 */
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "agent_impl.h"

static int begin(struct gn_share_agent *a, int exchange_fd)
{
	struct gn_scanner_config scanner = { .vm = a->config.vm,
					     .hasher = &a->hasher,
					     .quiet = a->seals,
					     .offers = gn_share_offer,
					     .ctx = a };
	int err = gn_exchange_open(exchange_fd, &a->exchange);

	if (!err)
		err = gn_hasher_init(&a->hasher, gn_exchange_key(a->exchange),
				     GN_EXCHANGE_KEY_BYTES, 0);
	if (!err)
		err = gn_scanner_new(&scanner, &a->scanner);
	for (uint64_t i = 0; i < a->pages && !err; i++)
		if (a->hinted[i] != GN_SHARE_NONE)
			gn_scanner_hint(a->scanner, gfn(i), 1, (enum gn_share_hint)a->hinted[i]);
	return err;
}

int gn_share_session_begin(struct gn_share_agent *a, const int fds[2])
{
	int err;

	a->link_fd = fds[1];
	a->is_broken = a->is_over = a->is_asking = a->is_held_back = a->is_sweeping = false;
	a->refused_segment = UINT_MAX;
	gn_share_forget_blocks(a);
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
	if (a->link_fd >= 0)
		close(a->link_fd);
	a->link_fd = -1;
	a->is_over = false;
	/* Nobody is left to be told. */
	a->return_count = 0;
	gn_share_window_orphan(&a->window);
}

void gn_share_session_kick(struct gn_share_agent *a)
{
	if (!a->has_put)
		return;
	a->has_put = false;
	gn_link_kick(a->link_fd);
}
