/* SPDX-License-Identifier: MIT */
/*
 * micro_engine.c - what every scheme stands on: the guest's walk and the p2m look-up.
 *
 * walk4_cached: gn_guest_walk() over 64 pages whose entries (11 cache lines) stay in the first-level cache, in its
 * brief form, which says fault or guest-physical address and no more. Its limit follows the same entries through
 * host memory: four dependent loads, no rights, no p2m. Beside it stands the walk's other form, which also returns
 * the rights and every entry on the way.
 * p2m_lookup: look-ups scattered over a guest of 256 MiB; its limit loads the same words from a plain array.
 */
#include "micro.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <gnomon/x86.h>

#include "guest_tables.h"
#include "mmu/vm.h"

enum {
	WALK_PAGES = 64,
	WALK_ROUNDS = 8192,
	LOOKUPS = 1 << 21,
};
static const uint64_t mem_bytes = (uint64_t)256 << 20;
static const uint64_t area_bytes = (uint64_t)2 << 20; /* tables at GPA 0 .. 2 MiB */
static const gva_t first_va = { 0x7f0000000000 };

struct engine_context {
	struct gn_vm *vm;
	struct guest_tables tables;
	uint8_t *area; /* host address of GPA 0; the area is contiguous there */
	uint64_t *words;
};

static void engine_teardown(void *context)
{
	struct engine_context *c = context;

	if (c->vm)
		gn_vm_destroy(c->vm);
	free(c->words);
	free(c);
}

static int engine_prepare(struct engine_context *c)
{
	const struct gn_vm_config config = { .scheme = "native",
					     .mem_bytes = mem_bytes,
					     .vcpus = 1 };
	int err = gn_vm_create(&config, &c->vm);

	if (!err)
		err = gn_p2m_populate(c->vm, gfn(0), mem_bytes >> GN_PAGE_SHIFT);
	if (!err)
		err = guest_tables_init(&c->tables, c->vm, 4, gpa(0), area_bytes);
	if (!err)
		err = guest_tables_map(&c->tables, first_va, gpa(area_bytes), 1, WALK_PAGES);
	if (!err)
		err = guest_tables_load(&c->tables, gn_vm_vcpu(c->vm, 0));
	if (err)
		return err;
	gn_rcu_read_lock();
	c->area = gn_p2m_pointer(c->vm, gpa(0));
	for (uint64_t at = 0; at < area_bytes; at += GN_PAGE_SIZE)
		if ((uint8_t *)gn_p2m_pointer(c->vm, gpa(at)) != c->area + at)
			err = -ENXIO; /* the limit follows host addresses by adding */
	gn_rcu_read_unlock();
	c->words = malloc(c->vm->p2m.gfn_count * sizeof(uint64_t));
	if (!c->words)
		return -ENOMEM;
	for (uint64_t i = 0; i < c->vm->p2m.gfn_count; i++)
		c->words[i] = gn_p2m_get(&c->vm->p2m, gfn(i)).v;
	return err;
}

static void *engine_setup(char *why, size_t why_bytes)
{
	struct engine_context *c = calloc(1, sizeof(*c));
	int err = c ? engine_prepare(c) : -ENOMEM;

	if (!err)
		return c;
	snprintf(why, why_bytes, "setting up the guest: %s", strerror(-err));
	if (c)
		engine_teardown(c);
	return NULL;
}

static inline double sample_walk(struct engine_context *c, unsigned flags)
{
	struct gn_vcpu *vcpu = gn_vm_vcpu(c->vm, 0);
	struct gn_access access = { .kind = GN_READ, .size = 8, .user = true };
	struct gn_guest_walk walk;
	uint64_t sum = 0, begin = micro_now_ns();

	gn_rcu_read_lock();
	for (unsigned round = 0; round < WALK_ROUNDS; round++)
		for (unsigned page = 0; page < WALK_PAGES; page++) {
			access.va = gva(first_va.v + page * GN_PAGE_SIZE);
			gn_guest_walk(c->vm, &vcpu->paging, vcpu->regs.cr3, &access, flags, &walk);
			sum += walk.t.gpa.v;
		}
	gn_rcu_read_unlock();
	micro_use(sum);
	return (double)(micro_now_ns() - begin) / (WALK_ROUNDS * WALK_PAGES);
}

static double sample_guest_walk(void *context)
{
	return sample_walk(context, GN_GW_BRIEF);
}

static double sample_guest_path(void *context)
{
	return sample_walk(context, 0);
}

static double sample_chase(void *context)
{
	struct engine_context *c = context;
	uint64_t sum = 0, begin = micro_now_ns();

	for (unsigned round = 0; round < WALK_ROUNDS; round++)
		for (unsigned page = 0; page < WALK_PAGES; page++) {
			uint64_t va = first_va.v + page * GN_PAGE_SIZE, entry = c->tables.root.v;

			for (unsigned level = 4; level; level--) {
				uint64_t index =
					va >> gn_level_shift(level) & (GN_TABLE_ENTRIES - 1);
				const uint64_t *slot =
					(const void *)(c->area + (entry & X86_PTE_ADDR));

				entry = __atomic_load_n(slot + index, __ATOMIC_RELAXED);
			}
			sum += entry;
		}
	micro_use(sum);
	return (double)(micro_now_ns() - begin) / (WALK_ROUNDS * WALK_PAGES);
}

const struct micro micro_walk4_cached = {
	"walk4_cached",
	"ns",
	"the guest's walk, four levels, all entries cached",
	false,
	10,
	engine_setup,
	engine_teardown,
	{ "guest walk", sample_guest_walk, 0 },
	{ "4 dependent loads of the same entries", sample_chase, 0 },
	{ "the walk that also returns every entry on the way, as shadow paging needs it",
	  sample_guest_path, 0 },
	MICRO_ABSOLUTE,
	false,
};

/* A scattered sequence without a chain from one index to the next. */
static inline uint64_t scatter(uint64_t i, uint64_t mask)
{
	return i * 0x9e3779b97f4a7c15u >> 20 & mask;
}

static double sample_lookup(void *context)
{
	struct engine_context *c = context;
	const struct gn_p2m *p2m = &c->vm->p2m;
	uint64_t mask = p2m->gfn_count - 1, sum = 0, begin = micro_now_ns();

	gn_rcu_read_lock();
	for (uint64_t i = 0; i < LOOKUPS; i++)
		sum += gn_p2m_get(p2m, gfn(scatter(i, mask))).v;
	gn_rcu_read_unlock();
	micro_use(sum);
	return (double)(micro_now_ns() - begin) / LOOKUPS;
}

static double sample_array(void *context)
{
	struct engine_context *c = context;
	uint64_t mask = c->vm->p2m.gfn_count - 1, sum = 0, begin = micro_now_ns();

	for (uint64_t i = 0; i < LOOKUPS; i++)
		sum += __atomic_load_n(&c->words[scatter(i, mask)], __ATOMIC_RELAXED);
	micro_use(sum);
	return (double)(micro_now_ns() - begin) / LOOKUPS;
}

const struct micro micro_p2m_lookup = {
	"p2m_lookup",
	"ns",
	"which frame a gfn has",
	false,
	3,
	engine_setup,
	engine_teardown,
	{ "p2m look-up", sample_lookup, 0 },
	{ "one load from an array", sample_array, 0 },
	{ NULL, NULL, 0 },
	MICRO_ABSOLUTE,
	false,
};
