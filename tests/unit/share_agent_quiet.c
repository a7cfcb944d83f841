/* SPDX-License-Identifier: MIT */
/*
 * share_agent_quiet.c - a VM of a quiet domain, and a daemon that this test plays: two pages go the same way together, one of
 * which has its like elsewhere. All that happens to the one by its guest's use happens to the other, whatever is ordered.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control/clock.h"
#include "mmu/retire.h"
#include "sharing/agent_impl.h"
#include "sharing/pool.h"
#include "sharing/scanner_impl.h"
#include "support/p2m_rig.h"

#define RAM	  (4 * MIB)
#define RAM_PAGES (RAM / GN_PAGE_SIZE)

enum { ALIKE = 40, ALONE = 70 }; /* the two pages: 9s, which frame() holds too, and 8s */

static struct gn_share_agent agent;
static struct gn_share_pool *pool;
static struct gn_exchange *daemon_side;
static uint64_t nines; /* of the pool */
static uint32_t next_number;
static unsigned waits; /* for the guest's processors */

static void count_wait(struct gn_vm *of)
{
	(void)of;
	waits++;
}

static const struct gn_backend_ops backend = { .name = "waits",
					       .flush = plain_flush,
					       .quiesce = count_wait };

static void begin_session(void)
{
	static const uint8_t key[GN_EXCHANGE_KEY_BYTES] = "key";
	int fds[2];

	cr_assert_eq(gn_exchange_create(key, &daemon_side), 0);
	fds[0] = dup(gn_exchange_fd(daemon_side));
	fds[1] = -1; /* nobody is kicked */
	cr_assert_eq(gn_share_session_begin(&agent, fds), 0);
	cr_assert_eq(gn_share_window_attach(&agent.window, 0, gn_share_pool_view(pool, 0)), 0);
}

static void end_session(void)
{
	gn_share_session_end(&agent);
	gn_exchange_destroy(daemon_side);
	daemon_side = NULL;
}

static void make(uint64_t pool_bytes, bool home_frames)
{
	struct gn_vm_config config = plain_config(RAM);

	config.window_bytes = 2 * GN_SEGMENT_BYTES;
	config.pool_bytes = pool_bytes;
	config.home_frames = home_frames;
	config.backend = &backend;
	vm = plain_vm(&config);
	cr_assert_not_null(vm);
	agent.config.vm = vm;
	agent.pages = vm->p2m.gfn_count;
	agent.hinted = calloc(RAM_PAGES, sizeof(*agent.hinted));
	agent.is_quiet = agent.seals = true;
	cr_assert_eq(gn_share_window_init(&agent.window, vm->frames), 0);
	cr_assert_eq(gn_share_pool_create(GN_SEGMENT_BYTES, &pool), 0);
	cr_assert_eq(gn_share_pool_alloc(pool, &nines), 0);
	memset(gn_share_pool_at(pool, nines), 9, GN_PAGE_SIZE);
	begin_session();
}

static void tear_down(void)
{
	if (!vm)
		return;
	if (daemon_side)
		end_session();
	gn_frames_drop_anchors(vm->frames);
	(void)gn_frames_set_stock(vm->frames, 0);
	free(agent.hinted);
	rig_teardown();
	gn_share_window_fini(&agent.window);
	gn_share_pool_destroy(pool);
}

TestSuite(share_agent_quiet, .fini = tear_down);

static void set_up(void)
{
	make(16 * MIB, false);
}

static void sweep(void)
{
	cr_assert_eq(gn_scanner_sweep(agent.scanner), 0);
	gn_share_lift(&agent, gn_now_ns());
	while (!gn_scanner_step(agent.scanner))
		;
}

/* Of what was offered since: whether page @at was among it. */
static bool was_offered(uint64_t at)
{
	struct gn_exchange_offer offer;
	bool found = false;

	while (gn_exchange_take(daemon_side, GN_EXCHANGE_OFFERS, &offer) > 0)
		found |= offer.gfn == at;
	return found;
}

/* Its answer. */
static int order(enum gn_order_kind kind, uint64_t at, uint64_t what)
{
	const struct gn_exchange_order record = {
		.kind = kind, .number = next_number++, .gfn = at, .frame = what, .slot = 3
	};
	struct gn_exchange_answer said = { .kind = 0 };

	cr_assert_eq(gn_exchange_put(daemon_side, GN_EXCHANGE_ORDERS, &record), 0);
	gn_share_obey(&agent);
	do
		cr_assert_eq(gn_exchange_take(daemon_side, GN_EXCHANGE_ANSWERS, &said), 1);
	while (said.kind != GN_ANSWER_DONE);
	cr_assert_eq(said.number, next_number - 1);
	return said.result;
}

static uint64_t tag_of(uint8_t byte)
{
	uint8_t page[GN_PAGE_SIZE];

	memset(page, byte, sizeof(page));
	return gn_hasher_tag(&agent.hasher, page).bits;
}

static bool is_sealed(uint64_t at)
{
	const p2m_word_t w = gn_p2m_get(&vm->p2m, gfn(at));

	return gn_p2m_word_state(w) == GN_P2M_SHARED && (w.v & GN_P2M_SEALED) &&
	       !gn_p2m_word_rights(w);
}

static bool is_merged(uint64_t at)
{
	const struct gn_p2m_info info = plain_query(vm, at);

	return info.state == GN_P2M_SHARED && !gn_frames_is_own(vm->frames, info.pfn);
}

/* Both are sealed, and the daemon knows of them. */
static void settle(void)
{
	rig_fill(ALIKE, 9);
	rig_fill(ALONE, 8);
	for (unsigned i = 0; i < 3; i++)
		sweep();
	cr_assert(is_sealed(ALIKE) && is_sealed(ALONE));
	cr_assert(was_offered(ALONE));
}

/* ---- A use ------------------------------------------------------------------------------------------------------- */

/* All that a page's use comes to, as far as it can be seen in the engine. */
struct trace {
	enum gn_p2m_state before, after;
	gn_rights_t rights_before, rights_after;
	uint32_t refs_before; /* of the frame it had */
	uint32_t refs_after;  /* of that same frame, when nobody waits to put one */
	bool is_copied;
	uint64_t taken,
		put; /* frames of the pool: at the use, and when those that were left are put */
	uint64_t stock;
	unsigned flushes, ranges, waits;
};

static struct trace trace_use(uint64_t at, bool is_write)
{
	const struct gn_p2m_info before = plain_query(vm, at);
	struct trace t = { .before = before.state,
			   .rights_before = before.rights,
			   .refs_before = gn_frames_refs(vm->frames, before.pfn) };
	const uint64_t used = gn_frames_used(vm->frames), stock = gn_frames_stock(vm->frames);
	const unsigned flushes = plain.flushes, ranges = plain.ranges, waited = waits;
	uint64_t used_then;
	struct gn_p2m_info after;

	if (is_write)
		rig_fill(at, 5);
	else
		cr_assert_eq(rig_byte_of(at), at == ALIKE ? 9 : 8);
	after = plain_query(vm, at);
	t.after = after.state;
	t.rights_after = after.rights;
	t.is_copied = after.pfn.v != before.pfn.v;
	t.flushes = plain.flushes - flushes;
	t.ranges = plain.ranges - ranges;
	t.waits = waits - waited;
	t.stock = stock - gn_frames_stock(vm->frames);
	used_then = gn_frames_used(vm->frames);
	t.taken = used_then - used;
	gn_retire_drain(vm);
	t.put = used_then - gn_frames_used(vm->frames);
	t.refs_after = gn_frames_refs(vm->frames, before.pfn);
	return t;
}

static void check_alike(const struct trace *a, const struct trace *b)
{
	cr_assert_eq(a->before, GN_P2M_SHARED);
	cr_assert_eq(a->rights_before, 0);
	cr_assert_eq(a->after, GN_P2M_PRIVATE);
	cr_assert(a->is_copied, "always");
	cr_assert(a->before == b->before && a->rights_before == b->rights_before, "before");
	cr_assert(a->after == b->after && a->rights_after == b->rights_after, "after");
	cr_assert_eq(a->is_copied, b->is_copied);
	cr_assert(a->refs_before == b->refs_before && a->refs_after == b->refs_after,
		  "references: %u and %u, then %u and %u", a->refs_before, b->refs_before,
		  a->refs_after, b->refs_after);
	cr_assert(a->taken == b->taken && a->put == b->put && a->stock == b->stock, "frames");
	cr_assert(a->flushes == b->flushes && a->ranges == b->ranges && a->waits == b->waits,
		  "changes: %u and %u flushes, %u and %u ranges, %u and %u waits", a->flushes,
		  b->flushes, a->ranges, b->ranges, a->waits, b->waits);
}

/* Sweeps until a page that is not sealed is sealed again. */
static unsigned sweeps_until_sealed(uint64_t at, unsigned *other_count, uint64_t other)
{
	unsigned counts[2] = { 0, 0 };

	for (unsigned i = 1; i < 20 && (!counts[0] || !counts[1]); i++) {
		sweep();
		counts[0] = counts[0] || !is_sealed(at) ? counts[0] : i;
		counts[1] = counts[1] || !is_sealed(other) ? counts[1] : i;
	}
	*other_count = counts[1];
	return counts[0];
}

static void check_next_seals(void)
{
	unsigned alone, alike = sweeps_until_sealed(ALIKE, &alone, ALONE);

	cr_assert_eq(alike, alone, "%u sweeps and %u", alike, alone);
	cr_assert_geq(alike, 2, "each stands still first");
}

/* ---- Tests ------------------------------------------------------------------------------------------------------- */

Test(share_agent_quiet, a_use_tells_nothing, .init = set_up)
{
	for (unsigned is_write = 0; is_write < 2; is_write++) {
		struct trace alike, alone;

		settle();
		cr_assert_eq(order(GN_ORDER_MERGE, ALIKE, nines), 0);
		cr_assert(is_merged(ALIKE) && !is_merged(ALONE));
		sweep();
		alike = trace_use(ALIKE, is_write);
		alone = trace_use(ALONE, is_write);
		check_alike(&alike, &alone);
		check_next_seals();
		/* And those that were sealed again. */
		cr_assert_eq(order(GN_ORDER_MERGE, ALIKE, nines), is_write ? -EAGAIN : 0);
	}
}

/* What has been used before its order comes is left alone, and sealed in its time. */
Test(share_agent_quiet, an_order_that_comes_late, .init = set_up)
{
	settle();
	cr_assert_eq(rig_byte_of(ALIKE), 9);
	cr_assert_eq(rig_byte_of(ALONE), 8);
	cr_assert_eq(order(GN_ORDER_MERGE, ALIKE, nines), -EBUSY);
	cr_assert_eq(order(GN_ORDER_REOFFER, ALIKE, 0), 0);
	cr_assert_eq(rig_state(ALIKE), GN_P2M_PRIVATE);
	sweep();
	cr_assert_eq(order(GN_ORDER_MERGE, ALIKE, nines), -EBUSY, "it ages");
	cr_assert_eq(order(GN_ORDER_REOFFER, ALIKE, 0), 0);
	cr_assert(!is_sealed(ALIKE) && !is_sealed(ALONE));
	sweep();
	cr_assert(is_sealed(ALIKE) && is_sealed(ALONE));
}

/* One that is asked for again, and used before that: as if it had not been asked for. */
Test(share_agent_quiet, offers_again, .init = set_up)
{
	settle();
	cr_assert_eq(order(GN_ORDER_REOFFER, ALIKE, 0), 0);
	sweep();
	cr_assert(is_sealed(ALIKE) && is_sealed(ALONE));
	cr_assert(was_offered(ALIKE));
	cr_assert_eq(order(GN_ORDER_MERGE, ALIKE, nines), 0);
	cr_assert_eq(order(GN_ORDER_REOFFER, ALIKE, 0), 0);
	cr_assert_eq(rig_byte_of(ALIKE), 9);
	cr_assert_eq(rig_byte_of(ALONE), 8);
	check_next_seals();
	/* A frame that is not what was said: refused, offered again, used. */
	rig_fill(ALIKE, 7);
	cr_assert_eq(rig_byte_of(ALONE), 8);
	for (unsigned i = 0; i < 4; i++)
		sweep();
	cr_assert_eq(order(GN_ORDER_MERGE, ALIKE, nines), -EAGAIN);
	cr_assert(is_sealed(ALIKE) && is_sealed(ALONE));
	cr_assert_eq(rig_byte_of(ALIKE), 7);
	cr_assert_eq(rig_byte_of(ALONE), 8);
	check_next_seals();
}

/* A page is used after it was looked at, and before it is sealed. One that is shared is left alone then; the others are sealed. */
Test(share_agent_quiet, used_when_it_is_sealed, .init = set_up)
{
	const struct gn_offer offers[] = { { .at = gfn(ALIKE), .is_shared = true },
					   { .at = gfn(ALONE) } };
	bool may_tell[2];

	settle();
	cr_assert_eq(rig_byte_of(ALIKE), 9);
	cr_assert_eq(rig_byte_of(ALONE), 8);
	gn_scanner_set_state(agent.scanner, ALIKE, GN_PAGE_OFFERED);
	gn_share_seal(&agent, offers, 2, may_tell);
	cr_assert(!is_sealed(ALIKE) && !may_tell[0]);
	cr_assert(is_sealed(ALONE) && may_tell[1]);
	cr_assert_eq(rig_byte_of(ALONE), 8);
	check_next_seals();
}

/* A page is written after it was hashed, and before it is sealed: a sweep tells, and it ages with its seal on, whatever is ordered. */
Test(share_agent_quiet, written_before_it_is_sealed, .init = set_up)
{
	settle();
	gn_dirty_note(vm, gfn(ALIKE));
	gn_dirty_note(vm, gfn(ALONE));
	sweep();
	cr_assert(is_sealed(ALIKE) && is_sealed(ALONE));
	cr_assert_eq(order(GN_ORDER_MERGE, ALIKE, nines), 0);
	sweep();
	cr_assert_eq(rig_byte_of(ALIKE), 9);
	cr_assert_eq(rig_byte_of(ALONE), 8);
	sweep();
	cr_assert_eq(is_sealed(ALIKE), is_sealed(ALONE));
	sweep();
	cr_assert(is_sealed(ALIKE) && is_sealed(ALONE));
}

Test(share_agent_quiet, showing_is_no_use, .init = set_up)
{
	const uint8_t *slot = gn_exchange_slot(daemon_side, 3);

	settle();
	cr_assert_eq(order(GN_ORDER_SHOW, ALIKE, tag_of(9)), 0);
	cr_assert_eq(slot[0], 9);
	cr_assert_eq(slot[4095], 9);
	cr_assert(is_sealed(ALIKE) && is_sealed(ALONE));
	cr_assert_eq(order(GN_ORDER_SHOW, ALIKE, tag_of(8)), -EAGAIN, "it is something else");
	cr_assert_eq(rig_byte_of(ALIKE), 9);
	cr_assert_eq(order(GN_ORDER_SHOW, ALIKE, tag_of(9)), -EAGAIN, "it is in use");
	rig_fill(ALIKE + 1, 9);
	cr_assert_eq(order(GN_ORDER_SHOW, ALIKE + 1, tag_of(9)), -EAGAIN, "never sealed");
	cr_assert_eq(rig_state(ALIKE + 1), GN_P2M_PRIVATE);
}

/* Neither a merge nor what follows holds the guest off; what does is the same in each sweep. */
Test(share_agent_quiet, nobody_is_waited_for, .init = set_up)
{
	unsigned with, without;

	settle();
	waits = 0;
	sweep();
	without = waits;
	waits = 0;
	cr_assert_eq(order(GN_ORDER_SHOW, ALIKE, tag_of(9)), 0);
	cr_assert_eq(order(GN_ORDER_MERGE, ALIKE, nines), 0);
	cr_assert_eq(waits, 0);
	sweep();
	with = waits;
	cr_assert_eq(with, without, "%u and %u", with, without);
}

/* Memory that a merge saves, and frames of others that nobody uses: each goes back. */
Test(share_agent_quiet, memory_comes_back, .init = set_up)
{
	struct gn_exchange_answer said = { .kind = 0 };
	uint64_t used;

	settle();
	used = gn_frames_used(vm->frames);
	cr_assert_eq(order(GN_ORDER_MERGE, ALIKE, nines), 0);
	sweep();
	cr_assert_eq(gn_frames_used(vm->frames), used - 1, "its own is free");
	cr_assert_eq(agent.anchors.lent_uses, 1);
	cr_assert_eq(rig_byte_of(ALIKE), 9);
	cr_assert_eq(rig_byte_of(ALONE), 8);
	sweep();
	gn_share_obey(&agent);
	cr_assert_eq(gn_exchange_take(daemon_side, GN_EXCHANGE_ANSWERS, &said), 1);
	cr_assert_eq(said.kind, GN_ANSWER_RETURNED);
	cr_assert_eq(said.frame, nines);
	cr_assert_eq(gn_frames_used(vm->frames), used, "one for each page");
	cr_assert_eq(agent.anchors.lent, 0);
	cr_assert_eq(order(GN_ORDER_DETACH, 0, 0), 0, "nothing of the segment is in use");
}

/* The daemon dies: nothing changes, in no way; under the next one the pages are offered again, sealed all the time. */
Test(share_agent_quiet, without_a_daemon, .init = set_up)
{
	struct trace alike, alone;

	settle();
	cr_assert_eq(order(GN_ORDER_MERGE, ALIKE, nines), 0);
	sweep();
	end_session();
	gn_share_lift(&agent, gn_now_ns());
	cr_assert(is_sealed(ALIKE) && is_sealed(ALONE));
	begin_session();
	for (unsigned i = 0; i < 3; i++)
		sweep();
	cr_assert(is_sealed(ALIKE) && is_sealed(ALONE));
	cr_assert(was_offered(ALIKE));
	end_session();
	alike = trace_use(ALIKE, false);
	alone = trace_use(ALONE, false);
	check_alike(&alike, &alone);
	gn_share_lift(&agent, gn_now_ns());
	cr_assert_eq(agent.anchors.own + agent.anchors.lent, 0, "looked after without it, too");
}

/* What was shared before the domain was quiet is sealed when it is offered. */
Test(share_agent_quiet, from_a_plain_domain, .init = set_up)
{
	struct trace alike, alone;

	agent.is_quiet = agent.seals = false;
	end_session();
	begin_session();
	rig_fill(ALIKE, 9);
	rig_fill(ALONE, 8);
	cr_assert_eq(order(GN_ORDER_MERGE, ALIKE, nines), 0);
	cr_assert(is_merged(ALIKE) && !is_sealed(ALIKE));
	agent.is_quiet = agent.seals = true;
	end_session();
	begin_session();
	for (unsigned i = 0; i < 4; i++)
		sweep();
	cr_assert(is_merged(ALIKE));
	alike = trace_use(ALIKE, false);
	alone = trace_use(ALONE, false);
	check_alike(&alike, &alone);
}

/* In a dry run nothing is sealed, so nothing can be merged. */
Test(share_agent_quiet, a_dry_run, .init = set_up)
{
	agent.seals = false;
	end_session();
	begin_session();
	rig_fill(ALIKE, 9);
	for (unsigned i = 0; i < 3; i++)
		sweep();
	cr_assert(was_offered(ALIKE));
	cr_assert_eq(rig_state(ALIKE), GN_P2M_PRIVATE);
	cr_assert_eq(order(GN_ORDER_MERGE, ALIKE, nines), -EBUSY);
	cr_assert_eq(order(GN_ORDER_SHOW, ALIKE, tag_of(9)), -EAGAIN);
}

/* The stock is as full whether pages were merged or only sealed, and nothing but merged pages counts as saved. */
Test(share_agent_quiet, stock_and_reports, .init = set_up)
{
	const uint64_t most = gn_share_stock_most(&agent);

	cr_assert_eq(gn_frames_set_stock(vm->frames, most), 0);
	agent.cpu_ppm = 1000000;
	agent.sweep_ns = 1;
	agent.refilled_ns = gn_now_ns() - 1000000000;
	atomic_store(&agent.cpu_ns, gn_clock_ns(CLOCK_THREAD_CPUTIME_ID));
	rig_fill(ALIKE, 9);
	rig_fill(ALONE, 8);
	for (unsigned i = 0; i < 8; i++)
		gn_share_scan(&agent, gn_now_ns());
	cr_assert_eq(gn_frames_stock(vm->frames), most);
	cr_assert_eq(atomic_load(&agent.pages_sealed), 2);
	cr_assert_eq(atomic_load(&agent.pages_sharing), 0);
	cr_assert_eq(atomic_load(&agent.pages_unshared), 2);
	cr_assert_eq(order(GN_ORDER_MERGE, ALIKE, nines), 0);
	for (unsigned i = 0; i < 2; i++)
		gn_share_scan(&agent, gn_now_ns());
	cr_assert_eq(gn_frames_stock(vm->frames), most);
	cr_assert_eq(atomic_load(&agent.pages_sealed), 2);
	cr_assert_eq(atomic_load(&agent.pages_sharing), 1);
	cr_assert_eq(atomic_load(&agent.pages_unshared), 1);
}

/* A VM whose pages have homes: so many are sealed as leave all homes and the tables' part of the pool alone, merged or not. */
Test(share_agent_quiet, homes_stay_free)
{
	const uint64_t tables = RAM_PAGES / 4 + (64 * MIB) / GN_PAGE_SIZE,
		       most = 384; /* a pool is whole blocks */
	uint64_t sealed = 0, merged = 0;

	make(RAM + (tables / 2 + most) * GN_PAGE_SIZE, true);
	for (unsigned i = 0; i < 500; i++)
		rig_fill(i, 9);
	for (unsigned i = 0; i < 4; i++)
		sweep();
	for (unsigned i = 0; i < 500; i++) {
		cr_assert(!is_sealed(i) || plain_query(vm, i).pfn.v >= RAM_PAGES, "no home");
		sealed += is_sealed(i);
	}
	cr_assert_eq(sealed, most);
	for (unsigned i = 0; i < 500; i++)
		merged += !order(GN_ORDER_MERGE, i, nines);
	cr_assert_eq(merged, most);
	for (unsigned i = 500; i < 600; i++)
		rig_fill(i, 7);
	for (unsigned i = 0; i < 4; i++)
		sweep();
	for (unsigned i = 500; i < 600; i++)
		cr_assert_not(is_sealed(i), "that would tell that others were merged");
	for (unsigned i = 0; i < 50; i++)
		cr_assert_eq(rig_byte_of(i), 9);
	for (unsigned i = 0; i < 50; i++)
		cr_assert_eq(plain_query(vm, i).pfn.v, i, "at home");
	for (unsigned i = 600; i < 700; i++)
		rig_fill(i, 7);
	for (unsigned i = 0; i < 4; i++)
		sweep();
	sealed = 0;
	for (unsigned i = 0; i < 700; i++)
		sealed += is_sealed(i);
	cr_assert_eq(sealed, most, "others come in their place: %d", (int)sealed);
}
