/* SPDX-License-Identifier: MIT */
/*
 * alloc_failure.c - fail the Nth allocation, for every N an operation has: each failure is -ENOMEM, leaves
 * nothing behind and the VM usable, and the operation succeeds once memory is there.
 *
 * Leaks are caught twice: by the counts compared here, and by gn_vm_destroy(), which in debug builds
 * aborts on live bytes or frames.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "support/plain_scheme.h"

#define MIB ((uint64_t)1 << 20)

/* All that an operation that failed must not have changed. */
struct footprint {
	uint64_t arena_bytes, scheme_bytes, frames_used, backed, tables, memory_sum;
};

static struct footprint measure(struct gn_vm *vm)
{
	struct footprint f;

	gn_retire_drain(vm);
	f.arena_bytes = gn_arena_bytes(vm->arena);
	f.scheme_bytes = gn_arena_bytes(vm->scheme_arena);
	f.frames_used = gn_frames_used(vm->frames);
	f.backed = vm->p2m.backed_pages;
	f.tables = vm->table_pages;
	f.memory_sum = gn_vm_memory_sum(vm);
	return f;
}

static void put(struct gn_vm *vm, uint64_t at, uint8_t byte)
{
	uint8_t page[GN_PAGE_SIZE];

	memset(page, byte, sizeof(page));
	cr_assert_eq(gn_vm_write(vm, gfn_to_gpa(gfn(at)), page, sizeof(page)), 0);
}

static int op_populate(struct gn_vm *vm)
{
	return gn_p2m_populate(vm, gfn(500), 40);
}

static int op_write(struct gn_vm *vm)
{
	return gn_vm_write(vm, gpa(0x300000), "x", 1);
}

static int op_copy_shared(struct gn_vm *vm)
{
	return gn_vm_write(vm, gpa(0x1000), "x", 1);
}

static int op_store_shared(struct gn_vm *vm)
{
	return gn_vcpu_store(gn_vm_vcpu(vm, 0), gpa(0x1000), "x", 1);
}

static int op_read_sealed(struct gn_vm *vm)
{
	struct gn_merge page = { .at = gfn(4) };
	uint8_t byte;
	int err;

	cr_assert_eq(gn_p2m_publish(vm, &page, 1, GN_SHARE_SEALED), 0);
	err = gn_vm_read(vm, gpa(0x4000), &byte, 1);
	gn_frames_put(vm->frames, page.frame);
	return err;
}

static int op_move(struct gn_vm *vm)
{
	return gn_p2m_move(vm, gfn(1), 5);
}

static int op_protect(struct gn_vm *vm)
{
	return gn_p2m_protect(vm, gfn(3), 1, true);
}

static int op_dirty(struct gn_vm *vm)
{
	int err = gn_dirty_start(vm);

	gn_dirty_stop(vm);
	return err;
}

static int op_switch(struct gn_vm *vm)
{
	const char *old = gn_vm_scheme(vm);
	int err = gn_vm_switch_scheme(vm, strcmp(old, "plain") ? "plain" : "plain-guest");

	cr_assert_eq(err != 0, gn_vm_scheme(vm) == old);
	return err;
}

static const struct {
	const char *name;
	int (*run)(struct gn_vm *vm);
	unsigned sites_min; /* failures there must at least be */
} ops[] = {
	{ "populate", op_populate, 41 },      { "write", op_write, 1 },
	{ "copy shared", op_copy_shared, 1 }, { "store shared", op_store_shared, 1 },
	{ "read sealed", op_read_sealed, 1 }, { "move", op_move, 6 },
	{ "protect", op_protect, 1 },	      { "dirty", op_dirty, 1 },
	{ "switch", op_switch, 4 },
};

Test(alloc_failure, create)
{
	static const char *const schemes[] = { "plain", "plain-guest" };
	struct gn_vm *vm = NULL;

	for (unsigned s = 0; s < 2; s++) {
		struct gn_vm_config config = plain_config(16 * MIB);
		uint64_t n = 1;

		config.scheme = schemes[s];
		config.vcpus = 3;
		for (;; n++) {
			gn_alloc_fail_nth(n);
			int err = gn_vm_create(&config, &vm);

			if (!err)
				break;
			cr_assert_eq(err, -ENOMEM, "allocation %d", (int)n);
			cr_assert_null(vm);
		}
		gn_alloc_fail_nth(0);
		cr_assert_geq((long)n, 14, "only %d sites", (int)n);
		put(vm, 3, 3);
		gn_vm_destroy(vm);
		vm = NULL;
	}
}

Test(alloc_failure, operations)
{
	for (unsigned i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
		for (unsigned backing = 1; backing <= 2; backing++) {
			struct gn_vm_config config = plain_config(16 * MIB);
			unsigned failures = 0;
			struct gn_vm *vm;

			config.backing_level = backing;
			vm = plain_vm(&config);
			cr_assert_not_null(vm);
			for (uint64_t at = 0; at < 6; at++)
				put(vm, at, 1);
			for (uint64_t at = 1; at < 4; at++)
				cr_assert_eq(gn_p2m_share(vm, gfn(0), gfn(at)), 0);
			for (uint64_t n = 1;; n++) {
				struct footprint before = measure(vm), after;

				gn_alloc_fail_nth(n);
				int err = ops[i].run(vm);

				if (gn_alloc_fail_nth(0) < n)
					break;
				if (!err) /* a smaller block did, or retired frames */
					continue;
				failures++;
				cr_assert_eq(err, -ENOMEM, "%s: %d", ops[i].name, err);
				after = measure(vm);
				/* Giving a gfn its frame is invisible, and may stay. */
				cr_assert_eq(before.arena_bytes, after.arena_bytes, "%s",
					     ops[i].name);
				cr_assert_eq(before.scheme_bytes, after.scheme_bytes, "%s",
					     ops[i].name);
				cr_assert_eq(after.frames_used - before.frames_used,
					     after.backed - before.backed, "%s", ops[i].name);
				cr_assert_eq(before.tables, after.tables, "%s", ops[i].name);
				cr_assert_eq(before.memory_sum, after.memory_sum, "%s",
					     ops[i].name);
			}
			if (backing == 1)
				cr_assert_geq(failures, ops[i].sites_min, "%s", ops[i].name);
			cr_assert_eq(ops[i].run(vm), 0, "%s", ops[i].name);
			gn_vm_destroy(vm);
		}
	}
}
