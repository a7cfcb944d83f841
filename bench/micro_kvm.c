/* SPDX-License-Identifier: MIT */
/*
 * micro_kvm.c - what a guest under shadow paging pays on real hardware, beside the same work without a guest.
 *
 * kvm_gups, kvm_chase: user code of the guest, after its tables are built, runs as fast as the same code in a process,
 * because nothing is between it and the CPU. "The same" is meant literally: both sides execute the same bytes
 * (micro_code.S) on the same physical frames (micro_guest.c maps the guest's into this process, in the guest's order,
 * 4 KiB pages on both sides, at the same alignment). Frames from the pool follow one another on both sides alike, so a
 * CPU that merges neighbouring translations does it for both. Both tables are touched before the first sample. The peer's
 * translations go through the host kernel's tables for this process, the guest's through KVM's for the VM; whether there
 * is a second dimension under them is the machine's affair, and the same where KVM shadows in software. With hardware
 * nested paging the guest's walks are two-dimensional and the peer's are not: then the ratio tells the price of that too,
 * and the promise does not bind.
 *
 * kvm_trap: a loop of CLI in the guest's kernel, each of which traps at CPL 3, is decoded and emulated, and resumed after.
 * The peer runs the same loop under a bare KVM_RUN loop (kvmbackend/bare.c) that skips the instruction.
 *
 * kvm_shadow_fault: the guest reads pages whose leaves the shadow has dropped; each read is a fault that fills one. The
 * peer is the bare loop's page fault, whose handler is one store. KVM itself has to fill its own copy in both.
 *
 * The two sides walk through other parts of the data: what the first had just pulled into the caches would otherwise be a
 * present to the second. That both do the same work is shown once at set-up, by equal results.
 *
 * Samples of both sides are taken in turn, and the promise is on sample over sample. CPU time of this thread, which includes
 * the guest's; the TSC would count other programs' turns too.
 */
#include "micro.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kvmbackend/bare.h"
#include "micro_code.h"
#include "micro_guest.h"

enum {
	GUPS_UPDATES = 1 << 23,
	CHASE_LINKS = 1 << 20,
	CHECK_STEPS = 1 << 12,
	TRAPS = 1000,
	LINE = 64,
	FAULT_TABLES = 4, /* of 512 leaves, all but the first dropped */
};
static const uint64_t large_bytes = (uint64_t)1 << 30;
#define FAULT_PAGES ((uint64_t)FAULT_TABLES * GN_TABLE_ENTRIES)
#define FAULTS	    ((uint64_t)FAULT_TABLES * (GN_TABLE_ENTRIES - 1))

struct kvm_context {
	struct micro_guest *guest;
	struct gn_kvm_bare *bare;
	uint64_t guest_at, native_at; /* where each side is: the generator's state, or an offset */
};

static void kvm_teardown(void *context)
{
	struct kvm_context *c = context;

	micro_guest_destroy(c->guest);
	gn_kvm_bare_destroy(c->bare);
	free(c);
}

static void *kvm_setup(uint64_t data_bytes, bool is_mapped, uint64_t bare_pages, char *why,
		       size_t why_bytes)
{
	struct kvm_context *c = calloc(1, sizeof(*c));
	int err = 0;

	if (!c)
		return NULL;
	c->guest = micro_guest_new("shadow", data_bytes, is_mapped, why, why_bytes);
	if (c->guest && !is_mapped)
		err = gn_kvm_bare_new(micro_code_begin, (size_t)(micro_code_end - micro_code_begin),
				      bare_pages, &c->bare, why, why_bytes);
	if (c->guest && !err)
		return c;
	kvm_teardown(c);
	return NULL;
}

static double guest_call(struct kvm_context *c, const void *function, uint64_t rsi, uint64_t rdx,
			 uint64_t count, uint64_t *result)
{
	return micro_guest_call(c->guest, function, true, c->guest->data_va.v, rsi, rdx, count,
				result);
}

/* ---- User code ------------------------------------------------------------------------------------------------- */

/* All the guest's tables built, and KVM's. NULL: not possible. */
static void *touched(struct kvm_context *c, char *why, size_t why_bytes)
{
	uint64_t pages = c->guest->data_bytes >> GN_PAGE_SHIFT;

	if (isfinite(guest_call(c, (const void *)(uintptr_t)micro_code_touch, 0, 0, pages, NULL)))
		return c;
	snprintf(why, why_bytes, "the guest could not touch its memory: %s",
		 gn_kvm_error(c->guest->kvm, 0));
	kvm_teardown(c);
	return NULL;
}

/* NULL when the two sides do not come to the same. */
static void *checked(struct kvm_context *c, bool is_same, char *why, size_t why_bytes)
{
	if (is_same)
		return c;
	snprintf(why, why_bytes, "the guest's results are not those of this process");
	kvm_teardown(c);
	return NULL;
}

static uint64_t gups_mask(const struct kvm_context *c)
{
	return c->guest->data_bytes / sizeof(uint64_t) - 1;
}

static double guest_gups(struct kvm_context *c, uint64_t count)
{
	return guest_call(c, (const void *)(uintptr_t)micro_code_gups, gups_mask(c), c->guest_at,
			  count, &c->guest_at);
}

static void *setup_gups(char *why, size_t why_bytes)
{
	struct kvm_context *c = kvm_setup(large_bytes, true, 0, why, why_bytes);
	bool is_same;

	if (!c || !touched(c, why, why_bytes))
		return NULL;
	/* Both update the same words: each takes back what the other did. */
	c->guest_at = 1;
	c->native_at =
		micro_code_gups((uint64_t *)(void *)c->guest->data, gups_mask(c), 1, CHECK_STEPS);
	is_same = isfinite(guest_gups(c, CHECK_STEPS)) && c->guest_at == c->native_at;
	for (uint64_t i = 0; i <= gups_mask(c) && is_same; i++)
		is_same = !((const uint64_t *)(const void *)c->guest->data)[i];
	c->native_at = 0x9e3779b97f4a7c15;
	return checked(c, is_same, why, why_bytes);
}

static double sample_gups_guest(void *context)
{
	return guest_gups(context, GUPS_UPDATES) / GUPS_UPDATES;
}

static double sample_gups_native(void *context)
{
	struct kvm_context *c = context;
	uint64_t begin = micro_now_ns();

	c->native_at = micro_code_gups((uint64_t *)(void *)c->guest->data, gups_mask(c),
				       c->native_at, GUPS_UPDATES);
	return (double)(micro_now_ns() - begin) / GUPS_UPDATES;
}

/* A bijection of 24 bits that leaves no pattern to a prefetcher: odd factors and shifts right. */
static uint64_t scramble(uint64_t i, uint64_t mask)
{
	i = i * 0x9e3779b1 & mask;
	i ^= i >> 13;
	i = i * 0x85ebca6b & mask;
	return i ^ i >> 11;
}

static double guest_chase(struct kvm_context *c, uint64_t count)
{
	return guest_call(c, (const void *)(uintptr_t)micro_code_chase, c->guest_at, 0, count,
			  &c->guest_at);
}

static void *setup_chase(char *why, size_t why_bytes)
{
	struct kvm_context *c = kvm_setup(large_bytes, true, 0, why, why_bytes);
	uint64_t mask = large_bytes / LINE - 1;
	bool is_same;

	if (!c)
		return NULL;
	/* One cycle through every line: the i-th stop links to the next. */
	for (uint64_t i = 0; i <= mask; i++)
		*(uint64_t *)(void *)(c->guest->data + scramble(i, mask) * LINE) =
			scramble((i + 1) & mask, mask) * LINE;
	if (!touched(c, why, why_bytes))
		return NULL;
	is_same = isfinite(guest_chase(c, CHECK_STEPS)) &&
		  c->guest_at == micro_code_chase(c->guest->data, 0, 0, CHECK_STEPS);
	c->native_at = scramble(mask / 2, mask) * LINE; /* half the way round */
	return checked(c, is_same, why, why_bytes);
}

static double sample_chase_guest(void *context)
{
	return guest_chase(context, CHASE_LINKS) / CHASE_LINKS;
}

static double sample_chase_native(void *context)
{
	struct kvm_context *c = context;
	uint64_t begin = micro_now_ns();

	c->native_at = micro_code_chase(c->guest->data, c->native_at, 0, CHASE_LINKS);
	return (double)(micro_now_ns() - begin) / CHASE_LINKS;
}

const struct micro micro_kvm_gups = {
	"kvm_gups",
	"ns",
	"a random update of 1 GiB by guest user code under shadow",
	false,
	1.03,
	setup_gups,
	kvm_teardown,
	{ "guest under shadow", sample_gups_guest, 0 },
	{ NULL, NULL, 0 },
	{ "the same code and frames in this process", sample_gups_native, 0 },
	MICRO_TIMES_PEER,
	true,
};

const struct micro micro_kvm_chase = {
	"kvm_chase",
	"ns",
	"a link of a chain through 1 GiB, by guest user code under shadow",
	false,
	1.03,
	setup_chase,
	kvm_teardown,
	{ "guest under shadow", sample_chase_guest, 0 },
	{ NULL, NULL, 0 },
	{ "the same code and frames in this process", sample_chase_native, 0 },
	MICRO_TIMES_PEER,
	true,
};

/* ---- Exits ------------------------------------------------------------------------------------------------------- */

static size_t offset_of(const void *label)
{
	return (size_t)((const uint8_t *)label - micro_code_begin);
}

static void *setup_trap(char *why, size_t why_bytes)
{
	return kvm_setup((uint64_t)2 << 20, false, 0, why, why_bytes);
}

static double sample_trap(void *context)
{
	struct kvm_context *c = context;

	return micro_guest_call(c->guest, micro_code_traps, false, 0, 0, 0, TRAPS, NULL) / TRAPS;
}

static double sample_bare_trap(void *context)
{
	struct kvm_context *c = context;
	uint64_t begin = micro_now_ns(), traps;

	if (gn_kvm_bare_run(c->bare, offset_of(micro_code_traps), TRAPS, &traps) || traps != TRAPS)
		return INFINITY;
	return (double)(micro_now_ns() - begin) / TRAPS;
}

static void *setup_fault(char *why, size_t why_bytes)
{
	return kvm_setup(FAULT_PAGES * GN_PAGE_SIZE, false, FAULT_PAGES, why, why_bytes);
}

/* All leaves but the first of each table, so that tables stay. */
static int drop(struct kvm_context *c)
{
	struct gn_vm *vm = c->guest->vm;
	int err = 0;

	for (uint64_t page = 0; page < FAULT_PAGES && !err; page += GN_TABLE_ENTRIES) {
		gfn_t start = gfn(c->guest->data_gfn.v + page + 1);

		err = gn_p2m_protect(vm, start, GN_TABLE_ENTRIES - 1, true);
		if (!err)
			err = gn_p2m_protect(vm, start, GN_TABLE_ENTRIES - 1, false);
	}
	return err;
}

static uint64_t shadow_faults(struct kvm_context *c)
{
	struct gn_counters counters;

	gn_kvm_counters(c->guest->kvm, &counters);
	return counters.shadow_faults;
}

static double sample_fault(void *context)
{
	struct kvm_context *c = context;
	uint64_t before, faults;
	double ns;

	/* What dropping left to do inside the guest is done by an entry before. */
	if (drop(c) || !isfinite(guest_call(c, micro_code_user_end, 0, 0, 0, NULL)))
		return INFINITY;
	before = shadow_faults(c);
	ns = guest_call(c, (const void *)(uintptr_t)micro_code_touch, 0, 0, FAULT_PAGES, NULL);
	faults = shadow_faults(c) - before;
	/* The first sample builds the tables too. */
	return faults >= FAULTS && faults <= FAULT_PAGES + 16 ? ns / (double)faults : INFINITY;
}

static double sample_bare_fault(void *context)
{
	struct kvm_context *c = context;
	uint64_t begin, faults;

	if (gn_kvm_bare_forget(c->bare))
		return INFINITY;
	begin = micro_now_ns();
	if (gn_kvm_bare_run(c->bare, offset_of((const void *)(uintptr_t)micro_code_touch),
			    FAULT_PAGES, &faults) ||
	    faults != FAULT_PAGES)
		return INFINITY;
	return (double)(micro_now_ns() - begin) / (double)FAULT_PAGES;
}

const struct micro micro_kvm_trap = {
	"kvm_trap",
	"ns",
	"a privileged instruction of a guest kernel at CPL 3: trap, emulation, resumption",
	false,
	1.10,
	setup_trap,
	kvm_teardown,
	{ "guest under shadow", sample_trap, 0 },
	{ NULL, NULL, 0 },
	{ "the same instructions, a bare KVM_RUN loop", sample_bare_trap, 0 },
	MICRO_TIMES_PEER,
	true,
};

const struct micro micro_kvm_shadow_fault = {
	"kvm_shadow_fault",
	"ns",
	"a page fault that the shadow resolves by filling one leaf",
	false,
	1500,
	setup_fault,
	kvm_teardown,
	{ "guest under shadow", sample_fault, 0 },
	{ NULL, NULL, 0 },
	{ "the same faults, a bare KVM_RUN loop and one store", sample_bare_fault, 0 },
	MICRO_OVER_PEER,
	true,
};
