/* SPDX-License-Identifier: MIT */
/*
 * slots.c - the VM's memory slots, as a list one declares rather than calls one makes.
 *
 * A mode says what the slots shall be; this file finds the difference to what they are and makes the calls: what goes
 * is deleted, flags are changed in place, what is new is added. A slot whose range, host address and right are the
 * same is not touched, for the kernel drops translations when a slot goes.
 *
 * The list is sorted by guest-physical address. Numbers of slots are handed out from a bitmap and mean nothing.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "machine.h"

struct entry {
	struct gn_kvm_slot slot;
	uint32_t id;
	bool stays;
};

struct gn_kvm_slots {
	struct entry *list; /* sorted by gpa; room for @limit */
	size_t count, limit;
	uint64_t *used; /* a bit an id */
	size_t used_words;
	struct gn_kvm_slot *by_id;
};

int gn_kvm_slots_new(struct gn_kvm *kvm)
{
	struct gn_kvm_slots *slots;

	if (gn_alloc_should_fail())
		return -ENOMEM;
	slots = calloc(1, sizeof(*slots));
	if (!slots)
		return -ENOMEM;
	slots->limit = kvm->host.memslots ? kvm->host.memslots : 32;
	slots->used_words = (slots->limit + 63) / 64;
	/* Lazily backed: a VM has a handful of its thousands. */
	slots->list = calloc(slots->limit, sizeof(*slots->list));
	slots->used = calloc(slots->used_words, sizeof(*slots->used));
	slots->by_id = calloc(slots->limit, sizeof(*slots->by_id));
	kvm->slots = slots;
	if (slots->list && slots->used && slots->by_id)
		return 0;
	gn_kvm_slots_destroy(kvm);
	return -ENOMEM;
}

void gn_kvm_slots_destroy(struct gn_kvm *kvm)
{
	struct gn_kvm_slots *slots = kvm->slots;

	if (!slots)
		return;
	free(slots->list);
	free(slots->used);
	free(slots->by_id);
	free(slots);
	kvm->slots = NULL;
}

bool gn_kvm_slots_get(const struct gn_kvm *kvm, uint32_t id, struct gn_kvm_slot *out)
{
	if (id >= kvm->slots->limit)
		return false;
	*out = kvm->slots->by_id[id];
	return true;
}

/* ---- One call ------------------------------------------------------------------------------------------ */

/* @bytes 0 deletes. */
static int set_region(struct gn_kvm *kvm, uint32_t id, const struct gn_kvm_slot *slot,
		      uint64_t bytes)
{
	struct kvm_userspace_memory_region region = {
		.slot = id,
		.flags = (slot->is_readonly ? KVM_MEM_READONLY : 0) |
			 (slot->logs_dirty ? KVM_MEM_LOG_DIRTY_PAGES : 0),
		.guest_phys_addr = slot->gpa,
		.memory_size = bytes,
		.userspace_addr = (uintptr_t)slot->host,
	};

	return gn_kvm_ioctl(kvm->vm_fd, KVM_SET_USER_MEMORY_REGION, &region);
}

static bool id_take(struct gn_kvm_slots *slots, uint32_t *id)
{
	for (size_t word = 0; word < slots->used_words; word++) {
		uint64_t is_free = ~slots->used[word];

		if (!is_free)
			continue;
		*id = (uint32_t)(word * 64 + (unsigned)__builtin_ctzll(is_free));
		if (*id >= slots->limit)
			return false;
		slots->used[word] |= is_free & -is_free;
		return true;
	}
	return false;
}

static void id_drop(struct gn_kvm_slots *slots, uint32_t id)
{
	slots->used[id / 64] &= ~((uint64_t)1 << (id % 64));
	slots->by_id[id] = (struct gn_kvm_slot){ 0 };
}

static bool is_same_but_log(const struct gn_kvm_slot *a, const struct gn_kvm_slot *b)
{
	return a->gpa == b->gpa && a->bytes == b->bytes && a->host == b->host &&
	       a->is_readonly == b->is_readonly;
}

/* ---- The three passes ----------------------------------------------------------------------------------- */

static int remove_gone(struct gn_kvm *kvm)
{
	struct gn_kvm_slots *slots = kvm->slots;
	size_t kept = 0;
	int err = 0;

	for (size_t i = 0; i < slots->count; i++) {
		struct entry *e = &slots->list[i];

		if (!e->stays && !err)
			err = set_region(kvm, e->id, &e->slot, 0);
		if (e->stays || err) {
			slots->list[kept++] = *e;
			continue;
		}
		if (e->slot.logs_dirty)
			for (uint64_t at = 0; at < e->slot.bytes; at += GN_PAGE_SIZE)
				gn_dirty_note(kvm->vm, gpa_to_gfn(gpa(e->slot.gpa + at)));
		id_drop(slots, e->id);
	}
	slots->count = kept;
	return err;
}

static int change_flags(struct gn_kvm *kvm, struct entry *e, bool logs_dirty)
{
	struct gn_kvm_slot slot = e->slot;
	int err;

	if (slot.logs_dirty == logs_dirty)
		return 0;
	slot.logs_dirty = logs_dirty;
	err = set_region(kvm, e->id, &slot, slot.bytes);
	if (!err)
		e->slot = kvm->slots->by_id[e->id] = slot;
	return err;
}

static int add(struct gn_kvm *kvm, const struct gn_kvm_slot *slot)
{
	struct gn_kvm_slots *slots = kvm->slots;
	uint32_t id;
	int err;

	if (slots->count == slots->limit || !id_take(slots, &id))
		return -ENOSPC;
	err = set_region(kvm, id, slot, slot->bytes);
	if (err) {
		id_drop(slots, id);
		return err;
	}
	slots->by_id[id] = *slot;
	slots->list[slots->count++] = (struct entry){ .slot = *slot, .id = id };
	return 0;
}

static int by_gpa(const void *a, const void *b)
{
	uint64_t x = ((const struct entry *)a)->slot.gpa, y = ((const struct entry *)b)->slot.gpa;

	return (x > y) - (x < y);
}

static int set(struct gn_kvm *kvm, const struct gn_kvm_slot *wanted, size_t count)
{
	struct gn_kvm_slots *slots = kvm->slots;
	size_t at = 0, old;
	int err;

	for (size_t i = 0; i < slots->count; i++) {
		struct entry *e = &slots->list[i];

		while (at < count && wanted[at].gpa < e->slot.gpa)
			at++;
		e->stays = at < count && is_same_but_log(&wanted[at], &e->slot);
	}
	err = remove_gone(kvm);
	old = slots->count;
	for (size_t i = 0, j = 0; i < count && !err; i++) {
		while (j < old && slots->list[j].slot.gpa < wanted[i].gpa)
			j++;
		if (j < old && slots->list[j].slot.gpa == wanted[i].gpa)
			err = change_flags(kvm, &slots->list[j], wanted[i].logs_dirty);
		else
			err = add(kvm, &wanted[i]);
	}
	qsort(slots->list, slots->count, sizeof(slots->list[0]), by_gpa);
	return err;
}

int gn_kvm_slots_set(struct gn_kvm *kvm, const struct gn_kvm_slot *slots, size_t count, char *why,
		     size_t why_bytes)
{
	int err = set(kvm, slots, count);

	if (err == -ENOSPC)
		snprintf(why, why_bytes,
			 "the guest's memory is in too many pieces: KVM has %zu memory slots here",
			 kvm->slots->limit);
	else if (err)
		gn_kvm_sys_fail(why, why_bytes, "KVM_SET_USER_MEMORY_REGION", -err);
	return err;
}
