/* SPDX-License-Identifier: MIT */
/*
 * fake_sharer.h - VMs of a broker without guests: pages that are one byte throughout, in a process's own array, and the
 * VM's side of the exchange, which does as it is ordered. What a merged page holds is read in the pool's segment as a
 * VM would read it: a frame that is written while it is used is found out.
 */
#ifndef GN_TESTS_FAKE_SHARER_H
#define GN_TESTS_FAKE_SHARER_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "sharing/broker.h"
#include "sharing/hash.h"
#include "sharing/pool.h"

#define SHARER_PAGES	512
#define SHARER_SEGMENTS 4
#define SHARER_NONE	UINT64_MAX

struct sharer {
	struct gn_broker_vm *vm;
	struct gn_exchange *exchange;
	struct gn_hasher hasher;
	uint8_t bytes[SHARER_PAGES];   /* what each page is full of */
	uint64_t frames[SHARER_PAGES]; /* merged into; SHARER_NONE */
	const uint8_t *segments[SHARER_SEGMENTS];
	uint32_t uses[SHARER_SEGMENTS * GN_SEGMENT_FRAMES];
	uint64_t wrong; /* merged pages that were found to be something else */
	int refuses;	/* merges are answered with this */
	unsigned
		block_pages; /* so many, from 0 on, are offered as pages of a block until that is to be split */
	unsigned splits;
	bool is_deaf;	 /* it answers nothing */
	bool is_hostile; /* its exchange may hold anything */
};

static inline int sharer_init(struct sharer *s, struct gn_broker *broker, unsigned tag_bits)
{
	int err;

	memset(s, 0, sizeof(*s));
	for (unsigned i = 0; i < SHARER_PAGES; i++)
		s->frames[i] = SHARER_NONE;
	err = gn_broker_add(broker, SHARER_PAGES, &s->vm);
	if (!err)
		err = gn_exchange_open(gn_broker_vm_exchange_fd(s->vm), &s->exchange);
	if (!err)
		err = gn_hasher_init(&s->hasher, gn_exchange_key(s->exchange),
				     GN_EXCHANGE_KEY_BYTES, tag_bits);
	return err;
}

/* Its process dies: what it has mapped goes first. */
static inline void sharer_die(struct sharer *s, bool is_removed)
{
	for (unsigned i = 0; i < SHARER_SEGMENTS; i++)
		if (s->segments[i])
			munmap((void *)s->segments[i], GN_SEGMENT_BYTES);
	gn_exchange_destroy(s->exchange);
	gn_hasher_fini(&s->hasher);
	if (!is_removed)
		gn_broker_remove(s->vm);
}

static inline int sharer_offer(struct sharer *s, uint64_t gfn)
{
	uint8_t page[4096];
	struct gn_tag tag;
	struct gn_exchange_offer offer = { .gfn = gfn };

	memset(page, s->bytes[gfn], sizeof(page));
	tag = gn_hasher_tag(&s->hasher, page);
	offer.tag = tag.bits;
	offer.check = tag.check;
	offer.kind = gfn < s->block_pages ? GN_OFFER_IN_BLOCK : GN_OFFER_PAGE;
	return gn_exchange_put(s->exchange, GN_EXCHANGE_OFFERS, &offer);
}

static inline const uint8_t *sharer_at(const struct sharer *s, uint64_t frame)
{
	return s->segments[frame / GN_SEGMENT_FRAMES] + frame % GN_SEGMENT_FRAMES * 4096;
}

static inline bool is_full_of(const uint8_t *page, uint8_t byte)
{
	return page[0] == byte && !memcmp(page, page + 1, 4095);
}

static inline void sharer_answer(struct sharer *s, const struct gn_exchange_answer *answer)
{
	if (gn_exchange_put(s->exchange, GN_EXCHANGE_ANSWERS, answer) && !s->is_hostile)
		abort(); /* there is room for all that may be asked */
}

/* The guest writes the page: its use of a frame ends. */
static inline void sharer_write(struct sharer *s, uint64_t gfn, uint8_t byte)
{
	const uint64_t frame = s->frames[gfn];

	s->bytes[gfn] = byte;
	s->frames[gfn] = SHARER_NONE;
	if (frame != SHARER_NONE && !--s->uses[frame])
		sharer_answer(s, &(struct gn_exchange_answer){ .kind = GN_ANSWER_RETURNED,
							       .frame = frame });
}

static inline int sharer_view(struct sharer *s, uint64_t frame)
{
	const unsigned segment = (unsigned)(frame / GN_SEGMENT_FRAMES);
	void *at;
	int fd;

	if (segment >= SHARER_SEGMENTS || s->segments[segment])
		return segment < SHARER_SEGMENTS ? 0 : -ENOSPC;
	fd = gn_broker_view(s->vm, segment);
	at = fd < 0 ? MAP_FAILED : mmap(NULL, GN_SEGMENT_BYTES, PROT_READ, MAP_SHARED, fd, 0);
	if (at == MAP_FAILED)
		return -ENOENT;
	s->segments[segment] = at;
	return 0;
}

static inline int sharer_merge(struct sharer *s, uint64_t gfn, uint64_t frame)
{
	int err = s->refuses ? s->refuses : sharer_view(s, frame);

	if (err)
		return err;
	if (!is_full_of(sharer_at(s, frame), s->bytes[gfn]))
		return -EAGAIN;
	if (s->frames[gfn] == frame)
		return 0;
	sharer_write(s, gfn, s->bytes[gfn]);
	s->frames[gfn] = frame;
	s->uses[frame]++;
	return 0;
}

static inline void sharer_offer_block(struct sharer *s, unsigned pages)
{
	for (unsigned gfn = 0; gfn < pages; gfn++)
		(void)sharer_offer(s, gfn);
}

static inline void sharer_split(struct sharer *s)
{
	const unsigned pages = s->block_pages;

	s->block_pages = 0;
	s->splits++;
	sharer_offer_block(s, pages);
}

static inline int sharer_detach(struct sharer *s, unsigned segment)
{
	if (!s->segments[segment])
		return -ENOENT;
	munmap((void *)s->segments[segment], GN_SEGMENT_BYTES);
	s->segments[segment] = NULL;
	return 0;
}

/* One order, if there is one. */
static inline bool sharer_obey(struct sharer *s)
{
	struct gn_exchange_order order;
	struct gn_exchange_answer answer = { .kind = GN_ANSWER_DONE };

	if (s->is_deaf || gn_exchange_take(s->exchange, GN_EXCHANGE_ORDERS, &order) <= 0)
		return false;
	if (order.gfn >= SHARER_PAGES || order.slot >= GN_EXCHANGE_SLOTS ||
	    (order.kind != GN_ORDER_SHOW && order.frame >= SHARER_SEGMENTS * GN_SEGMENT_FRAMES))
		return s->is_hostile;
	answer.number = order.number;
	if (order.kind == GN_ORDER_SHOW) {
		memset(gn_exchange_slot(s->exchange, order.slot), s->bytes[order.gfn], 4096);
	} else if (order.kind == GN_ORDER_MERGE) {
		answer.result = sharer_merge(s, order.gfn, order.frame);
	} else if (order.kind == GN_ORDER_REOFFER && order.gfn < s->block_pages) {
		sharer_offer_block(s, s->block_pages);
	} else if (order.kind == GN_ORDER_REOFFER) {
		(void)sharer_offer(s, order.gfn);
	} else if (order.kind == GN_ORDER_SPLIT) {
		sharer_split(s);
	} else {
		answer.result = sharer_detach(s, (unsigned)(order.frame / GN_SEGMENT_FRAMES));
	}
	sharer_answer(s, &answer);
	return true;
}

static inline void sharer_look(struct sharer *s)
{
	for (unsigned i = 0; i < SHARER_PAGES; i++)
		if (s->frames[i] != SHARER_NONE)
			s->wrong += !is_full_of(sharer_at(s, s->frames[i]), s->bytes[i]);
}

static inline unsigned sharer_merged(const struct sharer *s)
{
	unsigned count = 0;

	for (unsigned i = 0; i < SHARER_PAGES; i++)
		count += s->frames[i] != SHARER_NONE;
	return count;
}

/* Both sides until nothing moves. */
static inline void sharers_settle(struct sharer *const *sharers, unsigned count)
{
	bool moves = true;

	while (moves) {
		moves = false;
		for (unsigned i = 0; i < count; i++) {
			moves |= gn_broker_serve(sharers[i]->vm, 256) > 0;
			for (unsigned j = 0; j < count; j++)
				moves |= gn_broker_vm_take_kick(sharers[j]->vm);
			while (sharer_obey(sharers[i]))
				moves = true;
		}
	}
}

#endif
