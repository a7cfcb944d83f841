/* SPDX-License-Identifier: MIT */
/*
 * sharing_domain.c - pages that are alike have one frame, those that are not never do, and nothing is lost: across VMs, with
 * hashes that collide, and with a guest that writes at each step of the way.
 */
#include <errno.h>

#include "sharing/scanner.h"
#include "support/sharing_rig.h"

#define RAM   (8 * MIB)
#define PAGES (RAM / GN_PAGE_SIZE)

static const struct gn_domain_config plain_config;

/* Lets the domain look at each page, also at those of which nothing tells. */
static void look_after_all(struct rig *r)
{
	for (unsigned i = 0; i < GN_LOOK_AFTER_PERIOD + 2; i++) {
		rig_settle(r);
		rig_audit(r);
	}
}

Test(sharing_domain, two_vms_one_frame)
{
	struct gn_sharing_stats stats;
	struct rig r;
	uint64_t used;

	rig_init(&r, "bare", 2, RAM, 1, &plain_config);
	for (uint64_t i = 0; i < 1000; i++) {
		rig_put(r.vms[0], i, i + 1);
		rig_put(r.vms[1], 1999 - i, i + 1); /* the other way round */
	}
	rig_put(r.vms[0], 1500, 7777);
	used = gn_frames_used(r.frames);
	rig_settle(&r);
	cr_assert_eq(used - gn_frames_used(r.frames), 1000);
	for (uint64_t i = 0; i < 1000; i++) {
		cr_assert(rig_share(r.vms[0], i, r.vms[1], 1999 - i));
		cr_assert(rig_holds(r.vms[0], i, i + 1));
		cr_assert(rig_holds(r.vms[1], 1999 - i, i + 1));
	}
	stats = rig_stats(&r);
	cr_assert_eq(stats.pages_shared, 1000);
	cr_assert_eq(stats.pages_sharing, 1000);
	cr_assert_eq(stats.pages_unshared, 1);
	cr_assert_eq(stats.pages_merged, 1000);
	cr_assert_eq(stats.pages_scanned, 2001);
	cr_assert_eq(stats.pages_differed, 0);
	/* Nothing changes, and nothing is done. */
	rig_settle(&r);
	cr_assert_eq(rig_stats(&r).pages_scanned, 2001);
	rig_fini(&r);
}

Test(sharing_domain, one_vm_alone)
{
	struct rig r;

	rig_init(&r, "ept", 1, RAM, 1, &plain_config);
	for (uint64_t i = 0; i < PAGES; i++)
		rig_put(r.vms[0], i, 1 + i % 2);
	rig_settle(&r);
	cr_assert_eq(rig_stats(&r).pages_shared, 2);
	cr_assert_eq(rig_stats(&r).pages_sharing, PAGES - 2);
	for (uint64_t i = 0; i < PAGES; i++)
		cr_assert(rig_holds(r.vms[0], i, 1 + i % 2));
	rig_fini(&r);
}

Test(sharing_domain, a_write_breaks_and_comes_back)
{
	struct rig r;

	rig_init(&r, "bare", 3, RAM, 1, &plain_config);
	for (unsigned v = 0; v < 3; v++)
		rig_put(r.vms[v], 10 + v, 5);
	rig_settle(&r);
	cr_assert(rig_share(r.vms[0], 10, r.vms[1], 11));
	cr_assert(rig_share(r.vms[0], 10, r.vms[2], 12));
	rig_put(r.vms[1], 11, 6);
	cr_assert(rig_holds(r.vms[0], 10, 5));
	cr_assert(rig_holds(r.vms[1], 11, 6));
	rig_settle(&r);
	cr_assert_eq(rig_stats(&r).pages_sharing, 1);
	rig_put(r.vms[1], 11, 5);
	rig_settle(&r);
	cr_assert(rig_share(r.vms[0], 10, r.vms[1], 11));
	cr_assert_eq(rig_stats(&r).pages_sharing, 2);
	rig_fini(&r);
}

/* All sharers write something else: the frame, which only the index has then, goes. The last one need not copy. */
Test(sharing_domain, frames_without_users_are_given_up)
{
	struct rig r;
	uint64_t used;

	rig_init(&r, "bare", 2, RAM, 1, &plain_config);
	for (uint64_t i = 0; i < 100; i++)
		for (unsigned v = 0; v < 2; v++)
			rig_put(r.vms[v], i, i + 1);
	used = gn_frames_used(r.frames);
	rig_settle(&r);
	for (uint64_t i = 0; i < 100; i++)
		rig_put(r.vms[0], i, 1000 + i);
	cr_assert_eq(gn_domain_reclaim(r.domain), 100);
	rig_audit(&r);
	for (uint64_t i = 0; i < 100; i++) {
		pfn_t frame = rig_query(r.vms[1], i).pfn;

		rig_put(r.vms[1], i, 2000 + i);
		cr_assert_eq(rig_query(r.vms[1], i).pfn.v, frame.v);
		cr_assert(rig_holds(r.vms[0], i, 1000 + i));
		cr_assert(rig_holds(r.vms[1], i, 2000 + i));
	}
	cr_assert_eq(gn_frames_used(r.frames), used);
	rig_fini(&r);
}

/* The sole user of a frame that was given up is a candidate again: by itself, for nothing tells of it. */
Test(sharing_domain, a_sole_user_is_found_again)
{
	struct rig r;

	rig_init(&r, "bare", 2, RAM, 1, &plain_config);
	rig_put(r.vms[0], 1, 5);
	rig_put(r.vms[1], 1, 5);
	rig_settle(&r);
	rig_put(r.vms[1], 1, 6);
	cr_assert_eq(gn_domain_reclaim(r.domain), 1);
	look_after_all(&r);
	rig_put(r.vms[1], 2, 5);
	rig_settle(&r);
	cr_assert(rig_share(r.vms[0], 1, r.vms[1], 2));
	rig_fini(&r);
}

static uint8_t check_of(const struct gn_hasher *hasher, uint64_t number)
{
	uint64_t page[512];

	rig_make_page(page, number);
	return gn_hasher_tag(hasher, page).check;
}

/*
 * A page is written anew, and its new check is by chance the old one: then both of its entries look current, and in one batch others
 * find both, so it is to be published twice.
 */
Test(sharing_domain, a_page_that_is_found_by_two_tags)
{
	struct gn_domain_config config = { .key = "key", .key_bytes = 3, .max_pages = 4096 };
	const uint64_t old = 7;
	struct gn_hasher hasher;
	uint64_t new = 8;
	struct rig r;

	cr_assert_eq(gn_hasher_init(&hasher, config.key, config.key_bytes, 0), 0);
	while (check_of(&hasher, new) != check_of(&hasher, old))
		new ++;
	gn_hasher_fini(&hasher);
	rig_init(&r, "bare", 2, RAM, 1, &config);
	rig_put(r.vms[0], 3, old);
	rig_settle(&r);
	rig_put(r.vms[0], 3, new);
	rig_settle(&r);
	rig_put(r.vms[1], 5, old);
	rig_put(r.vms[1], 6, new);
	rig_put(r.vms[1], 7, 5000); /* who finds nobody */
	look_after_all(&r);	    /* the wrong one of the two may have been kept at first */
	cr_assert(rig_share(r.vms[0], 3, r.vms[1], 6));
	cr_assert_eq(rig_query(r.vms[1], 5).state, GN_P2M_PRIVATE);
	cr_assert(rig_holds(r.vms[1], 5, old));
	cr_assert(rig_holds(r.vms[1], 6, new));
	rig_fini(&r);
}

/* ---- Hashes that collide --------------------------------------------------------------------------------- */

static const unsigned tag_bits[] = { 1, 4, 8 };

static void collide(unsigned bits)
{
	const struct gn_domain_config config = { .tag_bits = bits, .max_pages = 1 << 20 };
	const uint64_t contents = 100;
	struct rig r;

	rig_init(&r, "bare", 2, RAM, 1, &config);
	for (unsigned v = 0; v < 2; v++)
		for (uint64_t i = 0; i < contents; i++)
			rig_put(r.vms[v], 3 * i + v, i + 1);
	for (unsigned i = 0; i < 30; i++)
		rig_round(&r);
	rig_audit(&r);
	for (uint64_t i = 0; i < contents; i++) {
		cr_assert(rig_holds(r.vms[0], 3 * i, i + 1), "%u bits", bits);
		cr_assert(rig_holds(r.vms[1], 3 * i + 1, i + 1), "%u bits", bits);
		cr_assert(rig_share(r.vms[0], 3 * i, r.vms[1], 3 * i + 1),
			  "%u bits: page %d found its like among others of its tag", bits, (int)i);
	}
	rig_fini(&r);
}

Test(sharing_domain, hashes_that_collide_cost_time_only)
{
	for (unsigned i = 0; i < sizeof(tag_bits) / sizeof(tag_bits[0]); i++)
		collide(tag_bits[i]);
}

/* More different pages than fit under their one tag. */
Test(sharing_domain, a_flood_of_one_tag)
{
	const struct gn_domain_config config = { .tag_bits = 1, .max_pages = 1 << 20 };
	struct rig r;

	rig_init(&r, "bare", 1, RAM, 1, &config);
	for (uint64_t i = 0; i < 600; i++)
		rig_put(r.vms[0], i, i + 1);
	rig_put(r.vms[0], 700, 3);
	for (unsigned i = 0; i < 12; i++)
		rig_round(&r);
	rig_audit(&r);
	cr_assert_gt(rig_stats(&r).index_full, 0);
	for (uint64_t i = 0; i < 600; i++)
		cr_assert(rig_holds(r.vms[0], i, i + 1));
	rig_fini(&r);
}

/* ---- Someone comes in between -------------------------------------------------------------------------------- */

struct intruder {
	struct rig *r;
	enum gn_share_step step;
	unsigned vm;
	uint64_t at, number;
	unsigned left; /* times to come */
};

static void intrude(void *ctx, enum gn_share_step step)
{
	struct intruder *i = ctx;

	if (step != i->step || !i->left)
		return;
	i->left--;
	rig_put(i->r->vms[i->vm], i->at, i->number);
}

/* A write of either page at each step: whatever it comes to, both hold what was written last. */
static void write_at_step(enum gn_share_step step, unsigned vm, unsigned times, bool quiet)
{
	const struct gn_domain_config config = { .quiet = quiet };
	struct intruder intruder = { .step = step, .vm = vm, .at = 3, .number = 99, .left = times };
	struct rig r;

	rig_init(&r, "bare", 2, RAM, 1, &config);
	intruder.r = &r;
	rig_put(r.vms[0], 3, 5);
	rig_put(r.vms[1], 3, 5);
	r.domain->step = intrude;
	r.domain->step_ctx = &intruder;
	for (unsigned i = 0; i < 6; i++) {
		rig_round(&r);
		rig_audit(&r);
	}
	r.domain->step = NULL;
	cr_assert_lt(intruder.left, times, "step %d was never taken", (int)step);
	cr_assert(rig_holds(r.vms[vm], 3, 99), "step %d", (int)step);
	cr_assert(rig_holds(r.vms[!vm], 3, 5), "step %d", (int)step);
	cr_assert_not(rig_share(r.vms[0], 3, r.vms[1], 3));
	/* And the same once more, with its like. */
	rig_put(r.vms[!vm], 3, 99);
	for (unsigned i = 0; i < 10; i++)
		rig_round(&r);
	rig_audit(&r);
	cr_assert(rig_share(r.vms[0], 3, r.vms[1], 3) || quiet, "step %d", (int)step);
	rig_fini(&r);
}

Test(sharing_domain, a_write_at_each_step)
{
	for (unsigned step = 0; step < GN_STEPS; step++)
		for (unsigned vm = 0; vm < 2; vm++)
			for (unsigned times = 1; times < 4; times += 2)
				write_at_step((enum gn_share_step)step, vm, times, times > 1 && vm);
}

static void take_away(void *ctx, enum gn_share_step step)
{
	struct intruder *i = ctx;

	if (step == i->step && i->left && i->left--)
		cr_assert_eq(gn_p2m_balloon(i->r->vms[i->vm], gfn(i->at), 1), 0);
}

Test(sharing_domain, a_page_is_ballooned_at_each_step)
{
	for (unsigned step = 0; step < GN_STEPS; step++)
		for (unsigned vm = 0; vm < 2; vm++) {
			struct intruder intruder = {
				.step = (enum gn_share_step)step, .vm = vm, .at = 3, .left = 1
			};
			struct rig r;

			rig_init(&r, "bare", 2, RAM, 1, &plain_config);
			intruder.r = &r;
			rig_put(r.vms[0], 3, 5);
			rig_put(r.vms[1], 3, 5);
			for (unsigned i = 0; i < 2; i++)
				rig_round(&r);
			r.domain->step = take_away;
			r.domain->step_ctx = &intruder;
			for (unsigned i = 0; i < 3; i++)
				rig_round(&r);
			rig_audit(&r);
			cr_assert_eq(rig_query(r.vms[vm], 3).state, GN_P2M_BALLOONED);
			cr_assert(rig_holds(r.vms[!vm], 3, 5));
			r.domain->step = NULL;
			rig_fini(&r);
		}
}

/* ---- Quiet --------------------------------------------------------------------------------------------------- */

Test(sharing_domain, quiet_pages_look_alike)
{
	const struct gn_domain_config config = { .quiet = true };
	struct rig r;

	rig_init(&r, "bare", 2, RAM, 1, &config);
	rig_put(r.vms[0], 1, 5);
	rig_put(r.vms[1], 1, 5);
	rig_put(r.vms[0], 2, 6); /* nobody has it */
	for (unsigned i = 0; i < 3; i++)
		rig_round(&r);
	rig_audit(&r);
	cr_assert(rig_share(r.vms[0], 1, r.vms[1], 1));
	/* The same state, the same rights, and the same to come. */
	for (uint64_t at = 1; at <= 2; at++) {
		struct gn_p2m_info before = rig_query(r.vms[0], at), after;

		cr_assert_eq(before.state, GN_P2M_SHARED);
		cr_assert_eq(before.rights, 0);
		cr_assert(rig_holds(r.vms[0], at, at + 4)); /* a read */
		after = rig_query(r.vms[0], at);
		cr_assert_eq(after.state, GN_P2M_PRIVATE);
		cr_assert_neq(after.pfn.v, before.pfn.v, "copied");
	}
	rig_audit(&r);
	/* They settle, and are sealed again. */
	for (unsigned i = 0; i < 4; i++)
		rig_round(&r);
	for (uint64_t at = 1; at <= 2; at++)
		cr_assert_eq(rig_query(r.vms[0], at).rights, 0);
	cr_assert(rig_share(r.vms[0], 1, r.vms[1], 1));
	rig_fini(&r);
}

/* ---- Reserve --------------------------------------------------------------------------------------------------- */

/* Every shared page is written: no write fails, though the pool is no larger than all of RAM and the reserve. */
Test(sharing_domain, a_storm_of_writes)
{
	const uint64_t mem = 4 * MIB, pages = mem / GN_PAGE_SIZE, reserve = 256;
	struct gn_domain_config config = { .reserve_pages = reserve, .max_pages = 2 * pages };
	struct rig r = { .vm_count = 2 };
	bool done;

	r.frames = rig_pool(2 * mem + 2 * MIB, false);
	config.frames = r.frames;
	cr_assert_eq(gn_domain_create(&config, &r.domain), 0);
	for (unsigned v = 0; v < 2; v++) {
		r.vms[v] = rig_vm(r.frames, "ept", mem, 1);
		cr_assert_eq(gn_domain_add(r.domain, r.vms[v]), 0);
		for (uint64_t i = 0; i < pages; i++)
			rig_put(r.vms[v], i, i + 1);
	}
	rig_settle(&r);
	cr_assert_eq(rig_stats(&r).pages_sharing, pages);
	for (unsigned v = 0; v < 2; v++)
		for (uint64_t i = 0; i < pages; i++) {
			rig_put(r.vms[v], i, 5000 * (v + 1) + i);
			if (i % 128 == 0)
				cr_assert_eq(gn_domain_scan(r.domain, 0, &done), 0);
		}
	cr_assert_gt(rig_stats(&r).frames_given_up, 0);
	cr_assert_eq(rig_stats(&r).reserve_pages, reserve);
	for (unsigned v = 0; v < 2; v++)
		for (uint64_t i = 0; i < pages; i++)
			cr_assert(rig_holds(r.vms[v], i, 5000 * (v + 1) + i));
	rig_settle(&r);
	rig_fini(&r);
}

/* Its frames would be other pages' homes. */
Test(sharing_domain, no_stock_of_homes)
{
	struct gn_vm_config vm_config = {
		.scheme = "bare", .mem_bytes = RAM, .vcpus = 1, .home_frames = true
	};
	struct gn_domain_config config = { .max_pages = 2 * PAGES, .stock_pages = 1 };
	struct gn_domain *domain;
	struct gn_vm *vm;
	struct rig r;

	rig_init(&r, "bare", 1, RAM, 1, &plain_config); /* registers schemes */
	cr_assert_eq(gn_vm_create(&vm_config, &vm), 0);
	config.frames = vm->frames;
	cr_assert_eq(gn_domain_create(&config, &domain), 0);
	cr_assert_eq(gn_domain_add(domain, vm), -EINVAL);
	gn_domain_destroy(domain);
	config.stock_pages = 0;
	cr_assert_eq(gn_domain_create(&config, &domain), 0);
	cr_assert_eq(gn_domain_add(domain, vm), 0);
	gn_domain_remove(domain, vm);
	gn_domain_destroy(domain);
	gn_vm_destroy(vm);
	rig_fini(&r);
}

/* ---- Life ----------------------------------------------------------------------------------------------------------- */

Test(sharing_domain, a_vm_leaves_and_another_comes)
{
	struct gn_vm *other;
	struct rig r;

	rig_init(&r, "bare", 2, RAM, 1, &plain_config);
	rig_put(r.vms[0], 1, 5);
	rig_put(r.vms[1], 1, 5);
	rig_put(r.vms[0], 2, 6); /* a candidate that goes with its VM */
	rig_settle(&r);
	gn_domain_remove(r.domain, r.vms[0]);
	gn_domain_remove(r.domain, r.vms[0]); /* it is not there: nothing */
	cr_assert_not(gn_dirty_is_logged(r.vms[0]));
	cr_assert(rig_holds(r.vms[0], 1, 5), "what is merged stays merged");
	other = r.vms[0];
	r.vms[0] = rig_vm(r.frames, "bare", RAM, 1);
	cr_assert_eq(gn_domain_add(r.domain, r.vms[0]), 0);
	rig_put(r.vms[0], 7, 5);
	rig_put(r.vms[1], 7, 6);
	gn_vm_destroy(other);
	look_after_all(&r); /* the one that is left has a frame to itself, which is found in time */
	cr_assert(rig_share(r.vms[0], 7, r.vms[1], 1));
	cr_assert_eq(rig_query(r.vms[1], 7).state, GN_P2M_PRIVATE);
	rig_fini(&r);
}

Test(sharing_domain, hints)
{
	struct rig r;

	rig_init(&r, "bare", 2, RAM, 1, &plain_config);
	for (unsigned v = 0; v < 2; v++) {
		rig_put(r.vms[v], 1, 5);
		rig_put(r.vms[v], 2, 6);
		cr_assert_eq(gn_domain_hint(r.domain, r.vms[v], gfn(1), 1, GN_SHARE_LIKELY), 0);
		cr_assert_eq(gn_domain_hint(r.domain, r.vms[v], gfn(2), 1, GN_SHARE_NEVER), 0);
	}
	rig_round(&r);
	rig_round(&r);
	cr_assert(rig_share(r.vms[0], 1, r.vms[1], 1));
	rig_settle(&r);
	cr_assert_eq(rig_query(r.vms[0], 2).state, GN_P2M_PRIVATE);
	cr_assert_eq(gn_domain_hint(r.domain, r.vms[0], gfn(PAGES), 1, GN_SHARE_NONE), -EINVAL);
	cr_assert_eq(gn_domain_hint(r.domain, r.vms[0], gfn(0), 1, (enum gn_share_hint)3), -EINVAL);
	gn_domain_remove(r.domain, r.vms[0]);
	cr_assert_eq(gn_domain_hint(r.domain, r.vms[0], gfn(0), 1, GN_SHARE_NONE), -ENOENT);
	rig_fini(&r);
}

/* A scan of no time makes a step and leaves what it found gathered: nothing that may come in between trips over that. */
enum between {
	BETWEEN_REMOVE,
	BETWEEN_RECLAIM,
	BETWEEN_HINT,
	BETWEEN_SWEEP,
	BETWEEN_WRITE,
	BETWEEN_DESTROY,
	BETWEENS
};

static void come_between(struct rig *r, enum between what)
{
	switch (what) {
	case BETWEEN_REMOVE:
		gn_domain_remove(r->domain, r->vms[0]);
		cr_assert_eq(gn_domain_add(r->domain, r->vms[0]), 0);
		break;
	case BETWEEN_RECLAIM:
		gn_domain_reclaim(r->domain);
		break;
	case BETWEEN_HINT:
		cr_assert_eq(gn_domain_hint(r->domain, r->vms[1], gfn(0), 1, GN_SHARE_NEVER), 0);
		break;
	case BETWEEN_SWEEP:
		cr_assert_eq(gn_domain_sweep(r->domain), 0);
		break;
	default:
		for (unsigned i = 0; i < 2; i++)
			rig_put(r->vms[i], 10, 5000 + i);
	}
}

Test(sharing_domain, what_is_gathered_waits_for_the_next_scan)
{
	for (unsigned what = 0; what < BETWEENS; what++) {
		bool done = false;
		struct rig r;

		rig_init(&r, "ept", 2, 16 * MIB, 1, &plain_config);
		for (unsigned i = 0; i < 2; i++)
			for (uint64_t at = 0; at < 4000; at++)
				rig_put(r.vms[i], at, at < 300 ? at + 1 : 9999 * (i + 1) + at);
		for (unsigned round = 0; round < 2; round++)
			rig_round(&r);
		cr_assert_eq(gn_domain_sweep(r.domain), 0);
		while (!r.domain->is_gathering && !done)
			cr_assert_eq(gn_domain_scan(r.domain, 0, &done), 0);
		cr_assert(r.domain->is_gathering && !done);
		cr_assert_eq(rig_query(r.vms[1], 1).state, GN_P2M_PRIVATE);
		rig_audit(&r);
		if (what == BETWEEN_DESTROY) {
			gn_domain_destroy(r.domain);
			for (unsigned i = 0; i < 2; i++)
				gn_vm_destroy(r.vms[i]);
			cr_assert_eq(gn_frames_used(r.frames), 0);
			gn_frames_destroy(r.frames);
			continue;
		}
		come_between(&r, (enum between)what);
		cr_assert_eq(r.domain->is_gathering, what == BETWEEN_WRITE);
		rig_audit(&r);
		rig_settle(&r);
		cr_assert(rig_share(r.vms[0], 1, r.vms[1], 1));
		for (unsigned i = 0; i < 2; i++)
			cr_assert(rig_holds(r.vms[i], 10, what == BETWEEN_WRITE ? 5000 + i : 11));
		rig_fini(&r);
	}
}

Test(sharing_domain, what_is_refused)
{
	struct gn_frames *frames = rig_pool(32 * MIB, false), *others = rig_pool(32 * MIB, false);
	struct gn_vm *vm = rig_vm(frames, "bare", RAM, 1), *alien = rig_vm(others, "bare", RAM, 1);
	const struct gn_domain_config good = { .frames = frames, .max_pages = PAGES };
	struct gn_domain_config c;
	struct gn_domain *domain;

#define REFUSED(field, value)                                                                      \
	do {                                                                                       \
		c = good;                                                                          \
		c.field = value;                                                                   \
		cr_assert_eq(gn_domain_create(&c, &domain), -EINVAL, #field);                      \
	} while (0)
	REFUSED(frames, NULL);
	REFUSED(max_pages, 0);
	REFUSED(max_pages, UINT64_MAX);
	REFUSED(settle_sweeps, 7);
	REFUSED(tag_bits, 65);
	REFUSED(split_pages, 513);
	REFUSED(key_bytes, 1);
	cr_assert_eq(gn_domain_create(&good, &domain), 0);
	cr_assert_eq(gn_domain_add(domain, alien), -EINVAL);
	cr_assert_eq(gn_dirty_start(vm), 0);
	cr_assert_eq(gn_domain_add(domain, vm), -EBUSY);
	gn_dirty_stop(vm);
	cr_assert_eq(gn_domain_add(domain, vm), 0);
	cr_assert_eq(gn_domain_add(domain, vm), -EEXIST);
	gn_vm_destroy(alien);
	alien = rig_vm(frames, "bare", RAM, 1);
	cr_assert_eq(gn_domain_add(domain, alien), -ENOSPC, "the index is full");
	gn_domain_destroy(domain); /* with a VM in it */
	gn_domain_destroy(NULL);
	gn_vm_destroy(vm);
	gn_vm_destroy(alien);
	gn_frames_destroy(frames);
	gn_frames_destroy(others);
}

Test(sharing_domain, each_allocation_may_fail)
{
	struct gn_frames *frames = rig_pool(32 * MIB, true);
	struct gn_vm *vm = rig_vm(frames, "ept", RAM, 2);
	const struct gn_domain_config config = { .frames = frames, .max_pages = PAGES };
	unsigned failures = 0;

	for (;; failures++) {
		struct gn_domain *domain = NULL;
		int err;

		gn_alloc_fail_nth(failures + 1);
		err = gn_domain_create(&config, &domain);
		if (!err)
			err = gn_domain_add(domain, vm);
		gn_alloc_fail_nth(0);
		gn_domain_destroy(domain);
		if (!err)
			break;
		cr_assert_eq(err, -ENOMEM, "allocation %u", failures + 1);
	}
	cr_assert_geq(failures, 10);
	gn_vm_destroy(vm);
	gn_frames_destroy(frames);
}
