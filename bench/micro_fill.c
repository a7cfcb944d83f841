/* SPDX-License-Identifier: MIT */
/*
 * micro_fill.c - what a fault costs that fills one leaf of the scheme's tables, the tables being there.
 *
 * A guest with 64 MiB mapped; before each sample all but one leaf of each 2 MiB are dropped by two p2m changes
 * (read-only and back), so tables stay and 511 leaves of each must be filled again. That they were absent,
 * and that a fault fills its own leaf and no other, is checked once at set-up.
 *
 * Limits: shadow, the guest's walk and a store; ept, a p2m look-up, a walk of the nested table and a store.
 */
#include "micro.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <gnomon/x86.h>

#include "guest_tables.h"
#include "mmu/vm.h"
#include "mmu/walk.h"

static const uint64_t data_bytes = (uint64_t)64 << 20;
static const uint64_t area_bytes = (uint64_t)2 << 20;
static const gva_t first_va = { 0x7f0000000000 };
#define DATA_PAGES (data_bytes >> GN_PAGE_SHIFT)
#define FILLS	   (DATA_PAGES / GN_TABLE_ENTRIES * (GN_TABLE_ENTRIES - 1))

struct fill_context {
	struct gn_vm *vm;
	struct gn_vcpu *vcpu;
	struct guest_tables tables;
	bool nested;
	uint64_t *sink; /* what the limit stores to: one entry a page */
};

static void fill_teardown(void *context)
{
	struct fill_context *c = context;

	if (c->vm)
		gn_vm_destroy(c->vm);
	free(c->sink);
	free(c);
}

static struct gn_fault fault_of(const struct fill_context *c, uint64_t page)
{
	struct gn_fault fault = {
		.access = { .va = gva(first_va.v + page * GN_PAGE_SIZE),
			    .kind = GN_WRITE,
			    .size = 8,
			    .user = true },
		.error_code = X86_PF_W | X86_PF_U,
		.nested = c->nested,
		.gpa = gpa(area_bytes + page * GN_PAGE_SIZE),
	};

	return fault;
}

static bool fill(const struct fill_context *c, uint64_t page)
{
	const struct gn_fault fault = fault_of(c, page);
	struct gn_fix fix;

	return !gn_vcpu_fault(c->vcpu, &fault, &fix) && fix.kind == GN_FIX_RETRY;
}

/* Drop all leaves but the first of each 2 MiB. */
static int drop(const struct fill_context *c)
{
	int err = 0;

	for (uint64_t page = 0; page < DATA_PAGES && !err; page += GN_TABLE_ENTRIES) {
		gfn_t start = gfn((area_bytes >> GN_PAGE_SHIFT) + page + 1);

		err = gn_p2m_protect(c->vm, start, GN_TABLE_ENTRIES - 1, true);
		if (!err)
			err = gn_p2m_protect(c->vm, start, GN_TABLE_ENTRIES - 1, false);
	}
	return err;
}

static void walk_scheme(const struct fill_context *c, uint64_t page, struct gn_walk *walk)
{
	const struct gn_hw *hw = gn_vcpu_hw(c->vcpu);
	const struct gn_fault fault = fault_of(c, page);

	gn_rcu_read_lock();
	gn_walk_any(hw->fmt, c->vm->frames, hw->root, c->nested ? fault.gpa.v : fault.access.va.v,
		    walk);
	gn_rcu_read_unlock();
}

/* NULL: the state is what the measurement says it is. */
static const char *check_state(const struct fill_context *c)
{
	struct gn_walk walk;

	for (uint64_t page = 0; page < DATA_PAGES; page++)
		if (!fill(c, page))
			return "a fault of the first fill was not resolved";
	if (drop(c))
		return "the leaves could not be dropped";
	walk_scheme(c, 5, &walk);
	if (walk.end != GN_WALK_ABSENT || walk.level != 1)
		return "dropping leaves did not leave an empty leaf in a present table";
	if (!fill(c, 5))
		return "a fault was not resolved";
	walk_scheme(c, 5, &walk);
	if (walk.end != GN_WALK_LEAF)
		return "a fault did not fill its leaf";
	walk_scheme(c, 6, &walk);
	if (walk.end != GN_WALK_ABSENT)
		return "a fault filled more than its leaf";
	return NULL;
}

static int fill_prepare(struct fill_context *c, const char *scheme)
{
	const struct gn_vm_config config = { .scheme = scheme,
					     .mem_bytes = area_bytes + data_bytes,
					     .vcpus = 1 };
	int err = gn_vm_create(&config, &c->vm);

	if (err)
		return err;
	c->vcpu = gn_vm_vcpu(c->vm, 0);
	c->sink = calloc(DATA_PAGES, sizeof(*c->sink));
	if (!c->sink)
		return -ENOMEM;
	err = gn_p2m_populate(c->vm, gfn(0), (area_bytes + data_bytes) >> GN_PAGE_SHIFT);
	if (!err)
		err = guest_tables_init(&c->tables, c->vm, 4, gpa(0), area_bytes);
	if (!err)
		err = guest_tables_map(&c->tables, first_va, gpa(area_bytes), 1, DATA_PAGES);
	if (!err)
		err = guest_tables_load(&c->tables, c->vcpu);
	c->nested = gn_vcpu_hw(c->vcpu)->kind == GN_HW_NESTED;
	return err;
}

static void *fill_setup(const char *scheme, char *why, size_t why_bytes)
{
	struct fill_context *c = calloc(1, sizeof(*c));
	int err = c ? fill_prepare(c, scheme) : -ENOMEM;
	const char *wrong = err ? strerror(-err) : check_state(c);

	if (!wrong)
		return c;
	snprintf(why, why_bytes, "setting up the guest: %s", wrong);
	if (c)
		fill_teardown(c);
	return NULL;
}

static void *setup_shadow(char *why, size_t why_bytes)
{
	return fill_setup("shadow", why, why_bytes);
}

static void *setup_ept(char *why, size_t why_bytes)
{
	return fill_setup("ept", why, why_bytes);
}

static double sample_fill(void *context)
{
	struct fill_context *c = context;
	uint64_t begin, resolved = 0;

	if (drop(c))
		return INFINITY;
	begin = micro_now_ns();
	for (uint64_t page = 0; page < DATA_PAGES; page++)
		if (page % GN_TABLE_ENTRIES)
			resolved += fill(c, page);
	return resolved == FILLS ? (double)(micro_now_ns() - begin) / (double)FILLS : INFINITY;
}

static double sample_shadow_limit(void *context)
{
	struct fill_context *c = context;
	uint64_t begin = micro_now_ns();
	struct gn_guest_walk walk;

	gn_rcu_read_lock();
	for (uint64_t page = 0; page < DATA_PAGES; page++) {
		const struct gn_fault fault = fault_of(c, page);

		if (page % GN_TABLE_ENTRIES == 0)
			continue;
		gn_guest_walk(c->vm, &c->vcpu->paging, c->vcpu->regs.cr3, &fault.access,
			      GN_GW_SET_AD, &walk);
		__atomic_store_n(&c->sink[page], walk.t.gpa.v, __ATOMIC_RELEASE);
	}
	gn_rcu_read_unlock();
	return (double)(micro_now_ns() - begin) / (double)FILLS;
}

static double sample_ept_limit(void *context)
{
	struct fill_context *c = context;
	const struct gn_hw *hw = gn_vcpu_hw(c->vcpu);
	uint64_t begin = micro_now_ns();
	struct gn_walk walk;

	gn_rcu_read_lock();
	for (uint64_t page = 0; page < DATA_PAGES; page++) {
		gpa_t at = gpa(area_bytes + page * GN_PAGE_SIZE);

		if (page % GN_TABLE_ENTRIES == 0)
			continue;
		gn_walk_ept_4(c->vm->frames, hw->root, at.v, &walk);
		__atomic_store_n(&c->sink[page],
				 gn_p2m_get(&c->vm->p2m, gpa_to_gfn(at)).v + walk.entry,
				 __ATOMIC_RELEASE);
	}
	gn_rcu_read_unlock();
	return (double)(micro_now_ns() - begin) / (double)FILLS;
}

const struct micro micro_shadow_fill = {
	"shadow_fill",
	"ns",
	"a shadow fault that fills one leaf",
	false,
	250,
	setup_shadow,
	fill_teardown,
	{ "shadow fault", sample_fill, 0 },
	{ "guest walk and a store", sample_shadow_limit, 0 },
	{ NULL, NULL, 0 },
	MICRO_ABSOLUTE,
	false,
};

const struct micro micro_ept_fill = {
	"ept_fill",
	"ns",
	"a nested violation that fills one leaf",
	false,
	150,
	setup_ept,
	fill_teardown,
	{ "ept violation", sample_fill, 0 },
	{ "p2m look-up, nested walk and a store", sample_ept_limit, 0 },
	{ NULL, NULL, 0 },
	MICRO_ABSOLUTE,
	false,
};
