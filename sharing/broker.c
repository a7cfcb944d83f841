/* SPDX-License-Identifier: MIT */
/*
 * broker.c - a domain's life and its VMs', its figures, and the proof of its books.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "block.h"
#include "broker_impl.h"
#include "entry.h"

/* Of the index, cleaned at each tidying: a 64th, and a little. */
#define CLEANED_PART 64

static uint64_t frame_words(const struct gn_broker *b)
{
	return (uint64_t)gn_share_pool_segments(b->pool) * GN_SEGMENT_FRAMES / 64;
}

int gn_broker_create(const struct gn_broker_config *config, struct gn_broker **out)
{
	struct gn_broker *b = calloc(1, sizeof(*b));
	int err = 0;

	if (!b)
		return -ENOMEM;
	b->config = *config;
	if (getrandom(b->key, sizeof(b->key), 0) != sizeof(b->key))
		err = -EIO;
	if (!err)
		err = gn_hasher_init(&b->hasher, b->key, sizeof(b->key), config->tag_bits);
	if (!err)
		err = gn_share_pool_create(config->pool_bytes, &b->pool);
	if (!err)
		err = gn_index_init(&b->index, config->index_pages);
	if (err) {
		gn_broker_destroy(b);
		return err;
	}
	*out = b;
	return 0;
}

void gn_broker_destroy(struct gn_broker *b)
{
	if (!b)
		return;
	for (unsigned i = 0; i < GN_BROKER_VMS; i++)
		if (b->vms[i])
			gn_broker_remove(b->vms[i]);
	if (b->index.entries)
		gn_index_fini(&b->index);
	gn_share_pool_destroy(b->pool);
	gn_hasher_fini(&b->hasher);
	explicit_bzero(b->key, sizeof(b->key));
	free(b);
}

static void free_vm(struct gn_broker_vm *vm)
{
	gn_exchange_destroy(vm->exchange);
	free(vm->checks);
	free(vm->met);
	free(vm->reach);
	free(vm->asked);
	free(vm->charged);
	free(vm->views);
	free(vm->wanted);
	free(vm);
}

/* That no VM has, and of which the index has fewest entries left. GN_BROKER_VMS: none. */
static unsigned find_number(const struct gn_broker *b)
{
	unsigned best = GN_BROKER_VMS;

	for (unsigned i = 0; i < GN_BROKER_VMS; i++)
		if (!b->vms[i] && (best == GN_BROKER_VMS || b->entries[i] < b->entries[best]))
			best = i;
	return best;
}

int gn_broker_add(struct gn_broker *b, uint64_t pages, struct gn_broker_vm **out)
{
	const unsigned id = find_number(b);
	struct gn_broker_vm *vm;
	int err = -ENOMEM;

	_Static_assert(GN_BROKER_VMS <= GN_ENTRY_VMS, "an entry names a VM");
	if (id == GN_BROKER_VMS)
		return -ENOSPC;
	if (!pages || pages >> GN_ENTRY_NUMBER_BITS)
		return -EINVAL;
	if (pages > b->config.index_pages - b->vm_pages)
		return -ENOSPC;
	vm = calloc(1, sizeof(*vm));
	if (!vm)
		return -ENOMEM;
	vm->broker = b;
	vm->id = id;
	vm->pages = pages;
	vm->free_slots = ((uint64_t)1 << GN_EXCHANGE_SLOTS) - 1;
	vm->checks = calloc(pages, sizeof(*vm->checks));
	vm->met = calloc(pages / GN_BLOCK_PAGES + 1, GN_BLOCK_PAGES / 8);
	vm->reach = calloc(pages / GN_BLOCK_PAGES + 1, GN_BLOCK_PAGES / 8);
	vm->asked = calloc(pages / GN_BLOCK_PAGES + 1, sizeof(*vm->asked));
	vm->charged = calloc(frame_words(b), sizeof(*vm->charged));
	vm->views = calloc(gn_share_pool_segments(b->pool) / 64 + 1, sizeof(*vm->views));
	if (vm->checks && vm->met && vm->reach && vm->asked && vm->charged && vm->views)
		err = gn_exchange_create(b->key, &vm->exchange);
	if (err) {
		free_vm(vm);
		return err;
	}
	b->vms[id] = vm;
	b->stats.vms++;
	b->vm_pages += pages;
	*out = vm;
	return 0;
}

void gn_broker_lose(struct gn_broker_vm *vm)
{
	/* First: its entries are void, and nobody asks it in the place of another. */
	vm->is_lost = true;
	vm->broker->vm_pages -= vm->pages;
	gn_broker_cancel_unseen(vm);
}

void gn_broker_remove(struct gn_broker_vm *vm)
{
	struct gn_broker *b = vm->broker;

	/* First its name: what is said of it below concerns others. */
	b->vms[vm->id] = NULL;
	b->stats.vms--;
	b->vm_pages -= vm->is_lost ? 0 : vm->pages;
	gn_broker_cancel(vm);
	for (uint64_t word = 0; word < frame_words(b); word++)
		for (; vm->charged[word]; vm->charged[word] &= vm->charged[word] - 1) {
			const uint64_t frame =
				word * 64 + (unsigned)__builtin_ctzll(vm->charged[word]);

			gn_share_pool_put(b->pool, frame);
			gn_broker_give_up(b, frame);
		}
	for (unsigned i = 0; i < gn_share_pool_segments(b->pool); i++)
		if (vm->views[i / 64] >> (i % 64) & 1)
			gn_share_pool_unview(b->pool, i);
	free_vm(vm);
}

int gn_broker_vm_exchange_fd(const struct gn_broker_vm *vm)
{
	return gn_exchange_fd(vm->exchange);
}

int gn_broker_view(struct gn_broker_vm *vm, unsigned segment)
{
	struct gn_share_pool *pool = vm->broker->pool;
	int fd = gn_share_pool_view(pool, segment);

	if (fd < 0)
		return fd;
	if (vm->views[segment / 64] >> (segment % 64) & 1)
		gn_share_pool_unview(pool, segment); /* it asks again */
	vm->views[segment / 64] |= (uint64_t)1 << (segment % 64);
	return fd;
}

bool gn_broker_vm_take_kick(struct gn_broker_vm *vm)
{
	bool is_due;

	gn_broker_issue(vm);
	is_due = vm->needs_kick;
	vm->needs_kick = false;
	return is_due;
}

static void retire(struct gn_broker *b, unsigned segment)
{
	for (unsigned i = 0; i < GN_BROKER_VMS; i++)
		if (b->vms[i] && b->vms[i]->views[segment / 64] >> (segment % 64) & 1)
			gn_broker_want_detach(b->vms[i], segment);
	gn_broker_step(b, "retired");
}

void gn_broker_tidy(struct gn_broker *b)
{
	unsigned segment;

	b->tick++;
	for (unsigned i = 0; i < GN_BROKER_VMS; i++)
		if (b->vms[i] && !b->vms[i]->is_lost)
			gn_broker_expire(b->vms[i]);
	gn_index_clean(&b->index, gn_index_buckets(&b->index) / CLEANED_PART + 64,
		       gn_broker_entry_is_stale, NULL, b);
	while (gn_share_pool_retire(b->pool, &segment))
		retire(b, segment);
}

void gn_broker_get_stats(const struct gn_broker *b, struct gn_broker_stats *out)
{
	struct gn_share_pool_stats pool;

	gn_share_pool_get_stats(b->pool, &pool);
	*out = b->stats;
	out->pool_used_pages = pool.used_pages;
	out->pool_resident_pages = pool.resident_pages;
	out->live_segments = pool.live_segments;
	out->retired_segments = pool.retired_segments;
	out->retirements = pool.retirements;
	out->index_entries = b->index.used_count;
}

void gn_broker_vm_get_stats(const struct gn_broker_vm *vm, struct gn_broker_vm_stats *out)
{
	*out = vm->stats;
}

/* ---- The proof ------------------------------------------------------------------------------------------------- */

struct counts {
	uint32_t *frames;		 /* references */
	uint64_t entries[GN_BROKER_VMS]; /* of the index */
};

static void count_entry(void *ctx, struct gn_index_entry *entry)
{
	struct counts *counts = ctx;

	if (gn_entry_kind_of(entry->value) == GN_ENTRY_FRAME)
		counts->frames[gn_entry_number_of(entry->value)]++;
	else
		counts->entries[gn_entry_vm_of(entry->value)]++;
}

static void count_vm(const struct gn_broker_vm *vm, uint64_t frames, uint32_t *counts)
{
	for (uint64_t i = 0; i < frames; i++)
		counts[i] += vm->charged[i / 64] >> (i % 64) & 1;
	for (unsigned i = 0; i < GN_BROKER_ORDERS; i++)
		if (vm->orders[i].kind == GN_ORDER_MERGE)
			counts[vm->orders[i].frame]++;
	for (size_t i = 0; i < vm->wanted_count; i++) {
		const struct gn_broker_order *order =
			&vm->wanted[(vm->wanted_head + i) % vm->wanted_capacity];

		if (order->kind == GN_ORDER_MERGE)
			counts[order->frame]++;
	}
}

int gn_broker_audit(const struct gn_broker *b, char *why, size_t bytes)
{
	const uint64_t frames = (uint64_t)gn_share_pool_segments(b->pool) * GN_SEGMENT_FRAMES;
	struct counts counts = { .frames = calloc(frames, sizeof(*counts.frames)) };
	int err = 0;

	if (!counts.frames)
		return -ENOMEM;
	gn_index_visit(&b->index, count_entry, &counts);
	for (unsigned i = 0; i < GN_BROKER_VMS && !err; i++) {
		if (b->vms[i])
			count_vm(b->vms[i], frames, counts.frames);
		if (counts.entries[i] != b->entries[i]) {
			snprintf(why, bytes, "VM %u: %llu entries, %llu counted", i,
				 (unsigned long long)counts.entries[i],
				 (unsigned long long)b->entries[i]);
			err = -EBADMSG;
		}
	}
	for (uint64_t i = 0; i < frames && !err; i++)
		if (counts.frames[i] != gn_share_pool_refs(b->pool, i)) {
			snprintf(why, bytes, "frame %llu: %u references, %u users",
				 (unsigned long long)i, gn_share_pool_refs(b->pool, i),
				 counts.frames[i]);
			err = -EBADMSG;
		}
	free(counts.frames);
	return err;
}
