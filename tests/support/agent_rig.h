/* SPDX-License-Identifier: MIT */
/*
 * agent_rig.h - the agent of a VM of a group as its thread would have it in a session, without thread and socket: a test is the
 * daemon, at the other end of the exchange.
 */
#ifndef GN_TESTS_AGENT_RIG_H
#define GN_TESTS_AGENT_RIG_H

#include <criterion/criterion.h>
#include <limits.h>

#include "mmu/vm.h"
#include "sharing/agent_impl.h"

/* The daemon's side of the exchange. */
static inline struct gn_exchange *agent_rig_begin(struct gn_share_agent *a, struct gn_vm *of,
						  gn_scanner_offers_fn *offers)
{
	static const uint8_t key[GN_EXCHANGE_KEY_BYTES] = "key";
	const struct gn_scanner_config scanner = {
		.vm = of, .hasher = &a->hasher, .offers = offers, .ctx = a
	};
	struct gn_exchange *daemon_side = NULL;

	a->config.vm = of;
	a->pages = of->p2m.gfn_count;
	a->refused_segment = UINT_MAX;
	cr_assert_eq(gn_exchange_create(key, &daemon_side), 0);
	cr_assert_eq(gn_exchange_open(gn_exchange_fd(daemon_side), &a->exchange), 0);
	cr_assert_eq(gn_hasher_init(&a->hasher, key, sizeof(key), 0), 0);
	cr_assert_eq(gn_scanner_new(&scanner, &a->scanner), 0);
	cr_assert_eq(gn_share_window_init(&a->window, of->frames), 0);
	return daemon_side;
}

/* The scanner goes before the VM does, the rest after it. */
static inline void agent_rig_end(struct gn_share_agent *a, struct gn_exchange *daemon_side)
{
	gn_share_window_fini(&a->window);
	gn_exchange_destroy(a->exchange);
	gn_exchange_destroy(daemon_side);
	gn_hasher_fini(&a->hasher);
}

#endif
