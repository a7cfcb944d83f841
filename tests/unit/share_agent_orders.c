/* SPDX-License-Identifier: MIT */
/*
 * share_agent_orders.c - a VM's agent and the orders of a daemon that this test plays: what is shown, what is merged, and when a
 * frame is told to be used no longer.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "mmu/retire.h"
#include "sharing/pool.h"
#include "support/agent_rig.h"
#include "support/p2m_rig.h"

#define MIB ((uint64_t)1 << 20)

static struct gn_share_agent agent;
static struct gn_share_pool *pool;
static struct gn_exchange *daemon_side;
static uint64_t frame; /* of the pool: full of nines */
static uint32_t next_number;

static void offer_nothing(void *ctx, struct gn_scanner *scanner, const struct gn_offer *offers,
			  size_t count, bool is_block)
{
	(void)ctx;
	(void)scanner;
	(void)offers;
	(void)count;
	(void)is_block;
}

static void set_up(void)
{
	struct gn_vm_config config = plain_config(4 * MIB);

	config.window_bytes = GN_SEGMENT_BYTES;
	vm = plain_vm(&config);
	cr_assert_not_null(vm);
	daemon_side = agent_rig_begin(&agent, vm, offer_nothing);
	cr_assert_eq(gn_share_pool_create(GN_SEGMENT_BYTES, &pool), 0);
	cr_assert_eq(gn_share_pool_alloc(pool, &frame), 0);
	memset(gn_share_pool_at(pool, frame), 9, GN_PAGE_SIZE);
	cr_assert_eq(gn_share_window_attach(&agent.window, 0, gn_share_pool_view(pool, 0)), 0);
}

static void tear_down(void)
{
	gn_scanner_destroy(agent.scanner);
	rig_teardown();
	gn_share_pool_destroy(pool);
	agent_rig_end(&agent, daemon_side);
}

TestSuite(share_agent_orders, .init = set_up, .fini = tear_down);

static void order(enum gn_order_kind kind, uint64_t gfn_number, uint64_t what)
{
	const struct gn_exchange_order record = {
		.kind = kind, .number = next_number++, .gfn = gfn_number, .frame = what, .slot = 3
	};

	cr_assert_eq(gn_exchange_put(daemon_side, GN_EXCHANGE_ORDERS, &record), 0);
}

static struct gn_exchange_answer hear(void)
{
	struct gn_exchange_answer record = { .kind = 0 };

	(void)gn_exchange_take(daemon_side, GN_EXCHANGE_ANSWERS, &record);
	return record;
}

/* Its answer, once it has obeyed. */
static int ask(enum gn_order_kind kind, uint64_t gfn_number, uint64_t what)
{
	struct gn_exchange_answer said;

	order(kind, gfn_number, what);
	gn_share_obey(&agent);
	said = hear();
	cr_assert_eq(said.kind, GN_ANSWER_DONE);
	cr_assert_eq(said.number, next_number - 1);
	return said.result;
}

/* The guest writes the page: its use of a frame is over. */
static void write_page(uint64_t at, uint8_t byte)
{
	rig_fill(at, byte);
	gn_retire_drain(vm);
}

static uint64_t tag_of(uint8_t byte)
{
	uint8_t page[GN_PAGE_SIZE];

	memset(page, byte, sizeof(page));
	return gn_hasher_tag(&agent.hasher, page).bits;
}

Test(share_agent_orders, only_what_was_offered_is_shown)
{
	const uint8_t *slot = gn_exchange_slot(daemon_side, 3);

	rig_fill(5, 1);
	cr_assert_eq(ask(GN_ORDER_SHOW, 5, tag_of(2)), -EAGAIN, "it holds something else");
	cr_assert_eq(slot[0], 0, "which nobody gets to see");
	cr_assert_eq(ask(GN_ORDER_SHOW, 5, tag_of(1)), 0);
	cr_assert_eq(slot[0], 1);
	cr_assert_eq(slot[4095], 1);
	cr_assert_eq(ask(GN_ORDER_SHOW, 6, tag_of(0)), -EINVAL, "it has no frame");
	cr_assert_eq(ask(GN_ORDER_SHOW, agent.pages, tag_of(1)), -EINVAL);
	rig_fill(7, 9);
	gn_scanner_hint(agent.scanner, gfn(7), 1, GN_SHARE_NEVER);
	cr_assert_eq(ask(GN_ORDER_SHOW, 7, tag_of(9)), -EINVAL, "never");
	cr_assert_eq(ask(GN_ORDER_MERGE, 7, frame), -EINVAL, "nor merged");
	cr_assert_eq(slot[0], 1);
}

Test(share_agent_orders, frames_are_returned)
{
	struct gn_exchange_answer said;

	rig_fill(1, 9);
	rig_fill(2, 8);
	cr_assert_eq(ask(GN_ORDER_MERGE, 1, frame), 0);
	cr_assert_eq(ask(GN_ORDER_MERGE, 2, frame), -EAGAIN);
	cr_assert_eq(hear().kind, 0, "it is in use");
	write_page(1, 3);
	gn_share_obey(&agent);
	said = hear();
	cr_assert_eq(said.kind, GN_ANSWER_RETURNED);
	cr_assert_eq(said.frame, frame);
	cr_assert_eq(hear().kind, 0);
}

/*
 * A frame whose use has ended waits to be told, because the ring of answers is full; meanwhile it is merged into again. To tell
 * of it now would let the daemon write it while we have it.
 */
Test(share_agent_orders, a_frame_in_use_again_is_not_returned)
{
	struct gn_exchange_answer said;

	rig_fill(1, 9);
	cr_assert_eq(ask(GN_ORDER_MERGE, 1, frame), 0);
	while (gn_exchange_room(agent.exchange, GN_EXCHANGE_ANSWERS) > 1024) {
		order(GN_ORDER_REOFFER, 2, 0);
		gn_share_obey(&agent);
	}
	write_page(1, 3);
	gn_share_obey(&agent);
	cr_assert_eq(agent.return_count, 1, "it waits to be told");
	rig_fill(4, 9);
	order(GN_ORDER_MERGE, 4, frame);
	gn_share_obey(&agent);
	do {
		said = hear();
		cr_assert_neq(said.kind, GN_ANSWER_RETURNED, "page 4 has it");
	} while (said.kind);
	gn_share_obey(&agent);
	cr_assert_eq(hear().kind, 0);
	cr_assert_eq(rig_byte_of(4), 9);
	write_page(4, 1);
	gn_share_obey(&agent);
	said = hear();
	cr_assert_eq(said.kind, GN_ANSWER_RETURNED, "now it is over");
	cr_assert_eq(said.frame, frame);
}
