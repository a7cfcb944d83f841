/* SPDX-License-Identifier: MIT */
/*
 * share_agent_blocks.c - a VM of a group with frames of 2 MiB: what its agent offers, what it does when it is ordered to split a
 * block, and that the block is formed again. The daemon is played by this test.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include <gnomon/schemes.h>

#include "mmu/audit.h"
#include "support/agent_rig.h"
#include "support/p2m_rig.h"

#define MIB ((uint64_t)1 << 20)

static struct gn_share_agent agent;
static struct gn_exchange *daemon_side;

static void set_up(void)
{
	const struct gn_vm_config config = {
		.scheme = "ept", /* its accessed bits tell what is cold */
		.mem_bytes = 8 * MIB,
		.vcpus = 1,
		.backing_level = 2,
		.window_bytes = GN_SEGMENT_BYTES
	};

	cr_assert_eq(gn_schemes_register_all(), 0);
	cr_assert_eq(gn_vm_create(&config, &vm), 0);
	daemon_side = agent_rig_begin(&agent, vm, gn_share_offer);
	cr_assert_eq(gn_share_blocks_init(&agent), 0);
}

static void tear_down(void)
{
	gn_scanner_destroy(agent.scanner);
	rig_teardown();
	gn_share_blocks_fini(&agent);
	agent_rig_end(&agent, daemon_side);
}

TestSuite(share_agent_blocks, .init = set_up, .fini = tear_down);

/* What the daemon hears in @sweeps sweeps: offers by kind. */
static void scan(unsigned sweeps, unsigned heard[3])
{
	struct gn_exchange_offer offer;

	memset(heard, 0, 3 * sizeof(heard[0]));
	while (sweeps--) {
		cr_assert_eq(gn_scanner_sweep(agent.scanner), 0);
		while (!gn_scanner_step(agent.scanner))
			;
		gn_share_sweep_blocks(&agent);
		while (gn_exchange_take(daemon_side, GN_EXCHANGE_OFFERS, &offer) > 0) {
			cr_assert_leq(offer.kind, GN_OFFER_ZEROES_IN_BLOCK);
			heard[offer.kind]++;
		}
	}
}

static int ask(enum gn_order_kind kind, uint64_t at)
{
	const struct gn_exchange_order order = { .kind = kind, .gfn = at };
	struct gn_exchange_answer said = { .kind = 0 };

	cr_assert_eq(gn_exchange_put(daemon_side, GN_EXCHANGE_ORDERS, &order), 0);
	gn_share_obey(&agent);
	cr_assert_eq(gn_exchange_take(daemon_side, GN_EXCHANGE_ANSWERS, &said), 1);
	cr_assert_eq(said.kind, GN_ANSWER_DONE);
	return said.result;
}

static int order_split(uint64_t at)
{
	return ask(GN_ORDER_SPLIT, at);
}

static unsigned level_of(uint64_t at)
{
	return gn_p2m_word_level(gn_p2m_get(&vm->p2m, gfn(at)));
}

static void check_audit(void)
{
	struct gn_audit_report report;

	cr_assert_eq(gn_audit(vm, &report), 0, "%s", report.first);
}

/* A block of pages of their own, the last 40 of zeros. */
static void fill_block(void)
{
	for (uint64_t at = 0; at < 512 - 40; at++)
		rig_fill(at, (uint8_t)(at % 255 + 1));
	cr_assert_eq(level_of(0), 2);
}

Test(share_agent_blocks, a_block_is_split_when_it_is_ordered)
{
	unsigned heard[3];

	fill_block();
	scan(8, heard);
	cr_assert_eq(heard[GN_OFFER_IN_BLOCK], 512 - 40);
	cr_assert_eq(heard[GN_OFFER_ZEROES_IN_BLOCK], 40);
	cr_assert_eq(heard[GN_OFFER_PAGE], 0);
	cr_assert_eq(level_of(0), 2, "nobody has said that it pays");
	cr_assert_eq(order_split(0), 0);
	scan(8, heard);
	cr_assert_eq(level_of(0), 1);
	cr_assert_eq(heard[GN_OFFER_PAGE], 512 - 40, "they are pages like others");
	cr_assert_eq(heard[GN_OFFER_IN_BLOCK] + heard[GN_OFFER_ZEROES_IN_BLOCK], 0);
	for (uint64_t at = 0; at < 512; at++) {
		cr_assert(at < 512 - 40 || rig_state(at) == GN_P2M_UNBACKED);
		cr_assert_eq(rig_byte_of(at), at < 512 - 40 ? at % 255 + 1 : 0, "page %lu", at);
	}
	check_audit();
}

/* Little of it is shared any more: it is whole again, and asked about anew. */
Test(share_agent_blocks, what_has_ceased_to_pay_is_formed)
{
	unsigned heard[3];

	fill_block();
	scan(8, heard);
	cr_assert_eq(order_split(0), 0);
	scan(8, heard);
	cr_assert_eq(level_of(0), 1);
	scan(4, heard);
	cr_assert_eq(level_of(0), 1, "40 pages are saved");
	for (uint64_t at = 512 - 40; at < 512; at++)
		rig_fill(at, 7);
	scan(40, heard);
	cr_assert_eq(level_of(0), 2);
	cr_assert_eq(ask(GN_ORDER_SHOW, 3), -EBUSY, "it was a page when it was offered");
	cr_assert_eq(ask(GN_ORDER_MERGE, 3), -EBUSY);
	scan(8, heard);
	cr_assert_eq(level_of(0), 2);
	cr_assert_eq(heard[GN_OFFER_IN_BLOCK], 512);
	cr_assert_eq(heard[GN_OFFER_PAGE], 0);
	cr_assert_eq(order_split(0), -EAGAIN, "it was split lately");
	scan(8, heard);
	cr_assert_eq(level_of(0), 2);
	cr_assert_eq(order_split(0), 0, "but not for ever");
	scan(4, heard);
	cr_assert_eq(level_of(0), 1);
	cr_assert_eq(order_split(0), 0, "it is split: nothing is done");
	cr_assert_eq(rig_byte_of(3), 4);
	cr_assert_eq(rig_byte_of(511), 7);
	check_audit();
}

/* A balloon has taken a page of it: what was offered as a block's is offered as pages. */
Test(share_agent_blocks, a_block_that_somebody_else_split)
{
	unsigned heard[3];

	fill_block();
	scan(8, heard);
	cr_assert_eq(heard[GN_OFFER_IN_BLOCK], 512 - 40);
	cr_assert_eq(gn_p2m_balloon(vm, gfn(7), 1), 0);
	scan(8, heard);
	cr_assert_eq(heard[GN_OFFER_PAGE], 512 - 40 - 1);
	check_audit();
}

/* What is formed would tell what was merged. */
Test(share_agent_blocks, a_quiet_group_forms_nothing)
{
	unsigned heard[3];

	fill_block();
	scan(8, heard);
	cr_assert_eq(order_split(0), 0);
	scan(8, heard);
	for (uint64_t at = 512 - 40; at < 512; at++)
		rig_fill(at, 7);
	agent.is_quiet = true;
	scan(40, heard);
	cr_assert_eq(level_of(0), 1);
	agent.is_quiet = false;
	scan(40, heard);
	cr_assert_eq(level_of(0), 2);
}

Test(share_agent_blocks, orders_that_make_no_sense)
{
	unsigned heard[3];

	fill_block();
	scan(8, heard);
	cr_assert_eq(order_split(1), -EINVAL);
	cr_assert_eq(order_split(agent.pages), -EINVAL);
	cr_assert_eq(order_split(UINT64_MAX - 511), -EINVAL);
	cr_assert_eq(order_split(512), 0, "nothing is there, and nothing is done");
	agent.is_quiet = true;
	cr_assert_eq(order_split(0), -EINVAL);
	scan(8, heard);
	cr_assert_eq(level_of(0), 2);
	cr_assert_eq(heard[GN_OFFER_IN_BLOCK] + heard[GN_OFFER_PAGE], 0);
}
