/* SPDX-License-Identifier: MIT */
/*
 * shared_broker.c - a domain of several VMs: equal pages meet, nothing else does, and the books are right whatever VMs say
 * and whenever they die.
 */
#include <criterion/criterion.h>

#include "sharing/broker_impl.h"
#include "support/fake_sharer.h"

#define VMS 4

struct rig {
	struct gn_broker *broker;
	struct sharer *vms[VMS];
	struct gn_broker_stats stats;
};

static void rig_init(struct rig *r, unsigned tag_bits)
{
	const struct gn_broker_config config = { .pool_bytes = SHARER_SEGMENTS * GN_SEGMENT_BYTES,
						 .index_pages = 4096,
						 .tag_bits = tag_bits };

	cr_assert_eq(gn_broker_create(&config, &r->broker), 0);
	for (unsigned i = 0; i < VMS; i++) {
		r->vms[i] = malloc(sizeof(struct sharer));
		cr_assert_eq(sharer_init(r->vms[i], r->broker, tag_bits), 0);
	}
}

static void check_books(struct rig *r)
{
	char why[128] = "";

	cr_assert_eq(gn_broker_audit(r->broker, why, sizeof(why)), 0, "%s", why);
	for (unsigned i = 0; i < VMS; i++)
		if (r->vms[i])
			sharer_look(r->vms[i]);
	for (unsigned i = 0; i < VMS; i++)
		cr_assert(!r->vms[i] || !r->vms[i]->wrong, "a frame changed under a VM");
	gn_broker_get_stats(r->broker, &r->stats);
}

static void rig_remove(struct rig *r, unsigned i)
{
	sharer_die(r->vms[i], false);
	free(r->vms[i]);
	r->vms[i] = NULL;
}

static void rig_fini(struct rig *r)
{
	for (unsigned i = 0; i < VMS; i++)
		if (r->vms[i])
			rig_remove(r, i);
	check_books(r);
	gn_broker_tidy(r->broker);
	gn_broker_get_stats(r->broker, &r->stats);
	cr_assert_eq(r->stats.pool_used_pages, 0, "no VM, no frame");
	cr_assert_eq(r->stats.pool_resident_pages, 0, "and no memory");
	gn_broker_destroy(r->broker);
}

/* Page @gfn of VMs 0..@count-1 is full of @byte, and offered. */
static void offer_all(struct rig *r, unsigned count, uint64_t gfn, uint8_t byte)
{
	for (unsigned i = 0; i < count; i++) {
		r->vms[i]->bytes[gfn] = byte;
		cr_assert_eq(sharer_offer(r->vms[i], gfn), 0);
	}
}

Test(shared_broker, equal_pages_meet)
{
	struct rig r;

	rig_init(&r, 0);
	for (unsigned gfn = 0; gfn < 200; gfn++)
		offer_all(&r, VMS, gfn, (uint8_t)gfn);
	r.vms[0]->bytes[300] = 255;
	sharer_offer(r.vms[0], 300);
	sharers_settle(r.vms, VMS);
	check_books(&r);
	for (unsigned i = 0; i < VMS; i++)
		cr_assert_eq(sharer_merged(r.vms[i]), 200);
	cr_assert_eq(r.stats.pages_shared, 200);
	cr_assert_eq(r.stats.pool_used_pages, 200);
	cr_assert_eq(r.stats.shows, 200, "each content is shown once");
	cr_assert_eq(r.stats.merged, VMS * 200);
	/* One that comes late merges into what is there; also with itself. */
	r.vms[1]->bytes[400] = r.vms[1]->bytes[401] = 7;
	sharer_offer(r.vms[1], 400);
	sharer_offer(r.vms[1], 401);
	sharers_settle(r.vms, VMS);
	check_books(&r);
	cr_assert_eq(r.vms[1]->frames[400], r.vms[0]->frames[7]);
	cr_assert_eq(r.vms[1]->frames[401], r.vms[0]->frames[7]);
	cr_assert_eq(r.stats.shows, 200);
	rig_fini(&r);
}

/* Memory comes back when the last use ends: frame by frame for new pages, by the segment for the host. */
Test(shared_broker, frames_come_back)
{
	struct rig r;

	rig_init(&r, 0);
	for (unsigned gfn = 0; gfn < 200; gfn++)
		offer_all(&r, VMS, gfn, (uint8_t)gfn);
	sharers_settle(r.vms, VMS);
	for (unsigned i = 0; i < VMS; i++)
		for (unsigned gfn = 1; gfn < 200; gfn++)
			sharer_write(r.vms[i], gfn, (uint8_t)(i + 200));
	sharers_settle(r.vms, VMS);
	gn_broker_tidy(r.broker);
	check_books(&r);
	cr_assert_eq(r.stats.pool_used_pages, 1);
	cr_assert_eq(r.stats.pool_resident_pages, 256, "its segment is still used");
	for (unsigned i = 0; i < VMS; i++)
		sharer_write(r.vms[i], 0, (uint8_t)(i + 200));
	sharers_settle(r.vms, VMS);
	r.vms[2]->is_deaf = true;
	/* As if it had asked for it, and then had no place for it. */
	for (unsigned i = 0; i < SHARER_SEGMENTS; i++)
		(void)sharer_detach(r.vms[3], i);
	gn_broker_tidy(r.broker);
	sharers_settle(r.vms, VMS);
	check_books(&r);
	cr_assert_eq(r.stats.pool_used_pages, 0);
	cr_assert_eq(r.stats.retired_segments, 1, "one VM has it still");
	cr_assert_eq(r.stats.pool_resident_pages, 256);
	r.vms[2]->is_deaf = false;
	sharers_settle(r.vms, VMS);
	check_books(&r);
	cr_assert_eq(r.stats.retired_segments, 0);
	cr_assert_eq(r.stats.pool_resident_pages, 0);
	rig_fini(&r);
}

/* A page that is no longer what was offered is no page to share; another is asked. */
Test(shared_broker, pages_change)
{
	struct rig r;

	rig_init(&r, 0);
	offer_all(&r, 3, 5, 9);
	r.vms[0]->bytes[5] = 1;
	sharers_settle(r.vms, VMS);
	check_books(&r);
	cr_assert_eq(r.stats.shows_differing, 1);
	cr_assert_eq(r.vms[0]->frames[5], SHARER_NONE);
	cr_assert_neq(r.vms[1]->frames[5], SHARER_NONE);
	cr_assert_eq(r.vms[1]->frames[5], r.vms[2]->frames[5]);
	/* All refuse: the frame is let go of. */
	for (unsigned i = 0; i < VMS; i++)
		r.vms[i]->refuses = -EBUSY;
	offer_all(&r, VMS, 6, 10);
	sharers_settle(r.vms, VMS);
	check_books(&r);
	cr_assert_eq(r.stats.refused_busy, VMS);
	cr_assert_eq(r.stats.pool_used_pages, 1);
	rig_fini(&r);
}

/* With three bits of tag nearly all pages have equal tags and differ: VMs compare, and only what is equal merges. */
Test(shared_broker, collisions_never_merge)
{
	struct rig r;

	rig_init(&r, 3);
	for (unsigned gfn = 0; gfn < 64; gfn++)
		offer_all(&r, VMS, gfn, (uint8_t)gfn);
	sharers_settle(r.vms, VMS);
	check_books(&r);
	for (unsigned gfn = 0; gfn < 64; gfn++)
		for (unsigned i = 1; i < VMS; i++)
			if (r.vms[i]->frames[gfn] != SHARER_NONE)
				cr_assert(is_full_of(sharer_at(r.vms[i], r.vms[i]->frames[gfn]),
						     (uint8_t)gfn));
	cr_assert_gt(r.stats.merged, 0);
	rig_fini(&r);
}

/* More of one kind than the index holds of a tag: those that found no room are asked again. */
Test(shared_broker, many_alike)
{
	struct rig r;

	rig_init(&r, 0);
	for (unsigned gfn = 0; gfn < 100; gfn++)
		offer_all(&r, VMS, gfn, 77);
	sharers_settle(r.vms, VMS);
	check_books(&r);
	cr_assert_gt(r.stats.index_full, 0);
	for (unsigned i = 0; i < VMS; i++)
		cr_assert_eq(sharer_merged(r.vms[i]), 100);
	cr_assert_eq(r.stats.pool_used_pages, 1);
	rig_fini(&r);
}

/* Pages that change and change again: what they were makes room. */
Test(shared_broker, old_offers_give_way)
{
	struct rig r;

	rig_init(&r, 0);
	for (unsigned n = 0; n < 100000; n++) {
		struct gn_exchange_offer offer = { .gfn = n % SHARER_PAGES,
						   .tag = n * UINT64_C(0x9e3779b97f4a7c15),
						   .check = (uint8_t)(n / SHARER_PAGES) };

		cr_assert_eq(gn_exchange_put(r.vms[0]->exchange, GN_EXCHANGE_OFFERS, &offer), 0);
		cr_assert_geq(gn_broker_serve(r.vms[0]->vm, 16), 0);
		if (n % 1000 == 0)
			gn_broker_tidy(r.broker);
	}
	gn_broker_get_stats(r.broker, &r.stats);
	cr_assert_eq(r.stats.index_full, 0);
	offer_all(&r, VMS, 5, 9);
	sharers_settle(r.vms, VMS);
	check_books(&r);
	for (unsigned i = 0; i < VMS; i++)
		cr_assert_eq(sharer_merged(r.vms[i]), 1, "there is room for what is new");
	rig_fini(&r);
}

/* Nothing is ordered, and what could be is counted. */
Test(shared_broker, dry)
{
	const struct gn_broker_config config = { .pool_bytes = GN_SEGMENT_BYTES,
						 .index_pages = 4096,
						 .is_dry = true };
	struct rig r;

	rig_init(&r, 0);
	for (unsigned i = 0; i < VMS; i++)
		sharer_die(r.vms[i], false);
	gn_broker_destroy(r.broker);
	cr_assert_eq(gn_broker_create(&config, &r.broker), 0);
	for (unsigned i = 0; i < VMS; i++)
		cr_assert_eq(sharer_init(r.vms[i], r.broker, 0), 0);
	for (unsigned gfn = 0; gfn < 200; gfn++)
		offer_all(&r, VMS, gfn, (uint8_t)gfn);
	sharers_settle(r.vms, VMS);
	check_books(&r);
	cr_assert_eq(r.stats.could_merge, (VMS - 1) * 200);
	for (unsigned i = 0; i < 2; i++) {
		r.vms[i]->block_pages = SHARER_PAGES;
		for (unsigned gfn = 200; gfn < 400; gfn++) {
			r.vms[i]->bytes[gfn] = (uint8_t)gfn;
			sharer_offer(r.vms[i], gfn);
		}
	}
	sharers_settle(r.vms, VMS);
	gn_broker_get_stats(r.broker, &r.stats);
	cr_assert_eq(r.stats.splits_ordered, 0);
	cr_assert_eq(r.stats.shows + r.stats.merges_ordered, 0);
	rig_fini(&r);
}

/* VM @i has @pages pages in a block, each full of its number, and offers them. */
static void offer_block(struct rig *r, unsigned i, unsigned pages)
{
	r->vms[i]->block_pages = pages;
	for (unsigned gfn = 0; gfn < pages; gfn++) {
		r->vms[i]->bytes[gfn] = (uint8_t)gfn;
		cr_assert_eq(sharer_offer(r->vms[i], gfn), 0);
	}
}

/* Two that wait for each other are split both, and share then; one with too little stays whole. */
Test(shared_broker, blocks_are_split_where_it_pays)
{
	struct rig r;

	rig_init(&r, 0);
	offer_block(&r, 0, 200);
	sharers_settle(r.vms, VMS);
	cr_assert_eq(r.vms[0]->splits, 0, "nobody else has any of it");
	offer_block(&r, 2, 127);
	sharers_settle(r.vms, VMS);
	cr_assert_eq(r.vms[0]->splits + r.vms[2]->splits, 0);
	offer_block(&r, 1, 200);
	sharers_settle(r.vms, VMS);
	check_books(&r);
	cr_assert_eq(r.vms[0]->splits, 1);
	cr_assert_eq(r.vms[1]->splits, 1);
	cr_assert_eq(r.vms[2]->splits, 0);
	cr_assert_eq(r.stats.splits_ordered, 2);
	cr_assert_eq(sharer_merged(r.vms[0]), 200);
	cr_assert_eq(sharer_merged(r.vms[1]), 200);
	cr_assert_eq(sharer_merged(r.vms[2]), 0, "what is in a block is not merged");
	/* A small page of another meets the frames, and one more page of the block. */
	r.vms[2]->bytes[127] = 127;
	r.vms[2]->block_pages = 128;
	cr_assert_eq(sharer_offer(r.vms[2], 127), 0);
	sharers_settle(r.vms, VMS);
	check_books(&r);
	cr_assert_eq(r.vms[2]->splits, 1);
	cr_assert_eq(sharer_merged(r.vms[2]), 128);
	rig_fini(&r);
}

/* The last page that it takes may be a single one, and pages of zeros are worth as much. */
Test(shared_broker, what_makes_a_block_pay)
{
	struct gn_exchange_offer zeroes = { .kind = GN_OFFER_ZEROES_IN_BLOCK };
	struct rig r;

	rig_init(&r, 0);
	offer_block(&r, 0, 130);
	for (zeroes.gfn = 300; zeroes.gfn < 400; zeroes.gfn++)
		cr_assert_eq(gn_exchange_put(r.vms[0]->exchange, GN_EXCHANGE_OFFERS, &zeroes), 0);
	offer_all(&r, 1, 500, 99); /* page 99 is alike in its own block; offered as a page */
	sharers_settle(r.vms, VMS);
	for (unsigned gfn = 0; gfn < 26; gfn++) {
		r.vms[1]->bytes[gfn] = (uint8_t)gfn;
		cr_assert_eq(sharer_offer(r.vms[1], gfn), 0);
	}
	sharers_settle(r.vms, VMS);
	cr_assert_eq(r.vms[0]->splits, 0, "127 of 128");
	/* Written meanwhile: it is worth nothing until it is met again. */
	r.vms[0]->bytes[5] = 255;
	cr_assert_eq(sharer_offer(r.vms[0], 5), 0);
	sharers_settle(r.vms, VMS);
	r.vms[1]->bytes[26] = 26;
	cr_assert_eq(sharer_offer(r.vms[1], 26), 0);
	sharers_settle(r.vms, VMS);
	cr_assert_eq(r.vms[0]->splits, 0);
	r.vms[1]->bytes[27] = 27;
	cr_assert_eq(sharer_offer(r.vms[1], 27), 0);
	sharers_settle(r.vms, VMS);
	check_books(&r);
	cr_assert_eq(r.vms[0]->splits, 1);
	/* Page 5 changed; of page 99 there are two. */
	cr_assert_eq(sharer_merged(r.vms[0]), 27 + 2);
	cr_assert_eq(sharer_merged(r.vms[1]), 27);
	rig_fini(&r);
}

/* What one block has is scattered over blocks that stay whole: it stays whole, too, however often it is offered. */
Test(shared_broker, scattered_blocks_stay_whole)
{
	struct rig r;

	rig_init(&r, 0);
	offer_block(&r, 0, 240);
	for (unsigned i = 1; i < VMS; i++) {
		r.vms[i]->block_pages = 80;
		for (unsigned gfn = 0; gfn < 80; gfn++) {
			r.vms[i]->bytes[gfn] = (uint8_t)((i - 1) * 80 + gfn);
			cr_assert_eq(sharer_offer(r.vms[i], gfn), 0);
		}
	}
	for (unsigned n = 0; n < 5; n++) {
		sharers_settle(r.vms, VMS);
		for (unsigned i = 0; i < VMS; i++)
			sharer_offer_block(r.vms[i], r.vms[i]->block_pages);
	}
	sharers_settle(r.vms, VMS);
	check_books(&r);
	cr_assert_eq(r.stats.splits_ordered, 0);
	rig_fini(&r);
}

/* What was split and merged is asked for no more, whoever comes later; and of who is gone nothing counts. */
Test(shared_broker, blocks_are_not_asked_for_again)
{
	struct rig r;
	uint64_t offers;

	rig_init(&r, 0);
	offer_block(&r, 0, 200);
	offer_block(&r, 1, 200);
	sharers_settle(r.vms, 2);
	gn_broker_get_stats(r.broker, &r.stats);
	cr_assert_eq(r.stats.splits_ordered, 2);
	cr_assert_eq(sharer_merged(r.vms[0]) + sharer_merged(r.vms[1]), 400);
	offers = r.stats.offers;
	for (unsigned n = 0; n < 3; n++)
		for (unsigned gfn = 0; gfn < 200; gfn++) {
			r.vms[2]->bytes[300] = (uint8_t)gfn;
			cr_assert_eq(sharer_offer(r.vms[2], 300), 0);
			offers++;
			sharers_settle(r.vms, VMS);
		}
	check_books(&r);
	cr_assert_eq(r.stats.splits_ordered, 2);
	cr_assert_eq(r.stats.offers, offers, "of the others nobody offered anything");
	rig_fini(&r);

	rig_init(&r, 0);
	offer_block(&r, 0, 200);
	sharers_settle(r.vms, 1);
	rig_remove(&r, 0);
	r.vms[0] = malloc(sizeof(struct sharer));
	cr_assert_eq(sharer_init(r.vms[0], r.broker, 0), 0);
	offer_block(&r, 1, 200);
	sharers_settle(r.vms, VMS);
	check_books(&r);
	cr_assert_eq(r.stats.splits_ordered, 0, "its like is gone");
	rig_fini(&r);
}

/* Whatever is said, and whoever dies when, and what a VM merged stays what it was. */
Test(shared_broker, anything_goes)
{
	uint64_t seed = 0x5eed, bad;
	struct rig r;
	unsigned deaths = 0;

	rig_init(&r, 0);
	for (unsigned n = 0; n < 200000; n++) {
		const unsigned i = n % VMS;
		struct sharer *s = r.vms[i];
		uint64_t x, record[4];

		seed = seed * 6364136223846793005u + 1442695040888963407u;
		x = seed >> 33;
		switch (x % 16) {
		case 0:
			sharer_write(s, x / 16 % SHARER_PAGES, (uint8_t)(x / 16384 % 24));
			break;
		case 1: /* nonsense, some of it near sense */
			for (unsigned w = 0; w < 4; w++)
				record[w] = seed >> (13 * w) & (w ? 0xfff : UINT64_MAX);
			record[0] = x & 64 ? 1 + (x >> 7 & 1) : record[0];
			gn_exchange_put(s->exchange,
					x & 32 ? GN_EXCHANGE_OFFERS : GN_EXCHANGE_ANSWERS, record);
			break;
		case 2: /* seldom: it is a second to those who are to show something */
			if (x / 16 % 64 == 0)
				gn_broker_tidy(r.broker);
			break;
		case 3:
			if (x / 16 % 512)
				break;
			sharer_die(s, false);
			cr_assert_eq(sharer_init(s, r.broker, 0), 0);
			deaths++;
			break;
		case 4:
		case 5:
			(void)sharer_obey(s);
			break;
		case 6:
		case 7:
			cr_assert_geq(gn_broker_serve(s->vm, (unsigned)(x / 16 % 8)), 0);
			for (unsigned j = 0; j < VMS; j++)
				gn_broker_vm_take_kick(r.vms[j]->vm);
			break;
		default:
			s->block_pages = x / 8192 % 16 ? s->block_pages : SHARER_PAGES / 4;
			(void)sharer_offer(s, x / 16 % SHARER_PAGES);
		}
		if (n % 4096 == 0)
			check_books(&r);
	}
	check_books(&r);
	bad = r.stats.bad_records;
	cr_assert_gt(bad, 100);
	cr_assert_gt(deaths, 0);
	cr_assert_gt(r.stats.merged, 1000);
	cr_assert_gt(r.stats.returns, 10);
	rig_fini(&r);
}

/* A ring whose position makes no sense is no ring. */
Test(shared_broker, broken_exchange)
{
	struct rig r;
	uint32_t *memory;

	rig_init(&r, 0);
	offer_all(&r, VMS, 5, 9);
	sharers_settle(r.vms, VMS);
	memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED,
		      gn_broker_vm_exchange_fd(r.vms[1]->vm), 0);
	memory[64 / 4] += 100000; /* the head of the offers */
	cr_assert_eq(gn_broker_serve(r.vms[1]->vm, 16), -EPROTO);
	cr_assert_eq(gn_broker_serve(r.vms[1]->vm, 16), -EPROTO, "once is for good");
	cr_assert_not(gn_broker_vm_take_kick(r.vms[1]->vm));
	check_books(&r);
	munmap(memory, 4096);
	rig_fini(&r);
}

/* A VM whose connection ended: nobody waits for what it offered, or was to show, and what it has merged is charged. */
Test(shared_broker, a_lost_vm_blocks_nobody)
{
	struct rig r;

	rig_init(&r, 0);
	offer_all(&r, 2, 1, 1);
	sharers_settle(r.vms, VMS);
	r.vms[0]->bytes[5] = 5;
	cr_assert_eq(sharer_offer(r.vms[0], 5), 0); /* a candidate, when it is lost */
	sharers_settle(r.vms, 2);
	r.vms[0]->is_deaf = true;
	offer_all(&r, 2, 6, 6); /* and the one to show this */
	sharers_settle(r.vms, 2);
	gn_broker_lose(r.vms[0]->vm);
	for (unsigned i = 1; i < VMS; i++) {
		r.vms[i]->bytes[5] = 5;
		r.vms[i]->bytes[6] = 6;
		cr_assert_eq(sharer_offer(r.vms[i], 5), 0);
		cr_assert_eq(sharer_offer(r.vms[i], 6), 0);
	}
	sharers_settle(&r.vms[1], VMS - 1);
	check_books(&r);
	for (unsigned i = 1; i < VMS; i++) {
		cr_assert_neq(r.vms[i]->frames[5], SHARER_NONE);
		cr_assert_neq(r.vms[i]->frames[6], SHARER_NONE);
	}
	sharer_write(r.vms[1], 1, 99);
	sharers_settle(&r.vms[1], VMS - 1);
	check_books(&r);
	cr_assert(is_full_of(sharer_at(r.vms[0], r.vms[0]->frames[1]), 1),
		  "the lost one has it still");
	cr_assert_eq(r.stats.pool_used_pages, 3);
	rig_fini(&r);
}

/* Who is asked to show and does not is asked no more, and his answer is nothing when it comes. */
Test(shared_broker, a_show_that_is_not_answered_expires)
{
	struct rig r;

	rig_init(&r, 0);
	r.vms[0]->is_deaf = true;
	offer_all(&r, 3, 5, 9);
	sharers_settle(r.vms, VMS);
	cr_assert_eq(r.vms[1]->frames[5], SHARER_NONE);
	for (unsigned i = 0; i < 10; i++)
		gn_broker_tidy(r.broker);
	sharers_settle(r.vms, VMS);
	check_books(&r);
	cr_assert_eq(r.stats.shows_late, 1);
	cr_assert_neq(r.vms[1]->frames[5], SHARER_NONE);
	cr_assert_eq(r.vms[1]->frames[5], r.vms[2]->frames[5]);
	r.vms[0]->is_deaf = false;
	sharers_settle(r.vms, VMS);
	check_books(&r);
	cr_assert_eq(r.stats.pages_shared, 1);
	cr_assert_eq(r.stats.bad_records, 0);
	rig_fini(&r);
}

/* More than can be under way: what still waits to be asked of a silent VM is asked of another as well. */
Test(shared_broker, shows_that_wait_expire_too)
{
	struct rig r;

	rig_init(&r, 0);
	r.vms[0]->is_deaf = true;
	for (unsigned gfn = 0; gfn < 100; gfn++)
		offer_all(&r, 3, gfn, (uint8_t)gfn);
	sharers_settle(r.vms, VMS);
	cr_assert_eq(sharer_merged(r.vms[1]), 0);
	for (unsigned i = 0; i < 10; i++)
		gn_broker_tidy(r.broker);
	sharers_settle(r.vms, VMS);
	check_books(&r);
	cr_assert_eq(r.stats.shows_late, 100);
	cr_assert_eq(sharer_merged(r.vms[1]), 100);
	cr_assert_eq(sharer_merged(r.vms[2]), 100);
	r.vms[0]->is_deaf = false;
	sharers_settle(r.vms, VMS);
	check_books(&r);
	cr_assert_eq(r.stats.bad_records, 0);
	rig_fini(&r);
}

/* A lost one has its room in the index no more: its VM comes back and wants it. */
Test(shared_broker, a_lost_vm_leaves_its_room)
{
	const uint64_t room = 4096 - VMS * SHARER_PAGES;
	struct gn_broker_vm *again;
	struct rig r;

	rig_init(&r, 0);
	cr_assert_eq(gn_broker_add(r.broker, room + 1, &again), -ENOSPC);
	gn_broker_lose(r.vms[0]->vm);
	cr_assert_eq(gn_broker_add(r.broker, room + SHARER_PAGES + 1, &again), -ENOSPC);
	cr_assert_eq(gn_broker_add(r.broker, room + SHARER_PAGES, &again), 0);
	rig_remove(&r, 0);
	cr_assert_eq(gn_broker_add(r.broker, 1, &(struct gn_broker_vm *){ NULL }), -ENOSPC);
	gn_broker_remove(again);
	rig_fini(&r);
}

/* The VM offers one page with any number of tags. */
static void flood(struct rig *r, unsigned vm, uint64_t salt)
{
	for (uint64_t i = 0; i < 20000; i++) {
		const struct gn_exchange_offer offer = { .gfn = 3,
							 .tag = 0x9e3779b97f4a7c15 * (salt + i),
							 .check = 7 };

		if (gn_exchange_put(r->vms[vm]->exchange, GN_EXCHANGE_OFFERS, &offer)) {
			sharers_settle(&r->vms[vm], 1);
			i--;
		}
	}
	sharers_settle(r->vms, VMS);
	gn_broker_get_stats(r->broker, &r->stats);
}

static void expect_sharing(struct rig *r, unsigned first)
{
	for (unsigned i = first; i < VMS; i++) {
		r->vms[i]->bytes[1] = 1;
		sharer_offer(r->vms[i], 1);
	}
	sharers_settle(r->vms, VMS);
	check_books(r);
	for (unsigned i = first; i < VMS; i++)
		cr_assert_neq(r->vms[i]->frames[1], SHARER_NONE, "VM %u", i);
}

/* That takes no more of the index than its VM has coming, and others find room. */
Test(shared_broker, no_vm_fills_the_index)
{
	struct rig r;

	rig_init(&r, 0);
	flood(&r, 0, 0);
	cr_assert_leq(r.stats.index_entries, 2 * SHARER_PAGES + 4096);
	cr_assert_gt(r.stats.index_full, 10000);
	expect_sharing(&r, 1);
	rig_fini(&r);
}

static void renew(struct rig *r, unsigned i)
{
	rig_remove(r, i);
	r->vms[i] = malloc(sizeof(struct sharer));
	cr_assert_eq(sharer_init(r->vms[i], r->broker, 0), 0);
}

/* Nor one that comes and goes: what the number it had means to the next one is not more than that has coming. Who comes then is not in need
 * either. */
Test(shared_broker, who_comes_and_goes_does_not_fill_the_index)
{
	uint64_t full;
	struct rig r;

	rig_init(&r, 0);
	for (unsigned i = 0; i < 4; i++) {
		renew(&r, 0);
		flood(&r, 0, i * 20000);
	}
	expect_sharing(&r, 1);
	flood(&r, 0, 4 * 20000);
	renew(&r, 0);
	cr_assert_eq(r.broker->entries[r.vms[0]->vm->id], 0, "a number with nothing left to it");
	full = r.stats.index_full;
	expect_sharing(&r, 0);
	cr_assert_eq(r.stats.index_full, full);
	rig_fini(&r);
}

Test(shared_broker, more_pages_than_the_index_has_room_for)
{
	struct gn_broker_vm *vm;
	struct rig r;

	rig_init(&r, 0);
	cr_assert_eq(gn_broker_add(r.broker, 4096 - VMS * SHARER_PAGES + 1, &vm), -ENOSPC);
	cr_assert_eq(gn_broker_add(r.broker, 4096 - VMS * SHARER_PAGES, &vm), 0);
	cr_assert_eq(gn_broker_add(r.broker, 1, &(struct gn_broker_vm *){ NULL }), -ENOSPC);
	gn_broker_remove(vm);
	cr_assert_eq(gn_broker_add(r.broker, 1, &vm), 0);
	gn_broker_remove(vm);
	rig_fini(&r);
}
