/* SPDX-License-Identifier: MIT */
/*
 * ept_rig.h - a VM on nested tables without a machine: violations are reported by hand, and a backend
 * that only watches which flushes are asked for, and what the tables look like at that moment.
 */
#ifndef GN_TESTS_EPT_RIG_H
#define GN_TESTS_EPT_RIG_H

#include <criterion/criterion.h>
#include <string.h>

#include <gnomon/schemes.h>

#include "ept/builder.h"
#include "mmu/walk.h"

static const struct gn_scheme_ops *const rig_schemes[] = { &gn_scheme_native, &gn_scheme_ept,
							   &gn_scheme_npt };

struct rig_variant {
	const char *scheme;
	unsigned levels;
};
static const struct rig_variant rig_variants[] = {
	{ "ept", 4 }, { "ept", 5 }, { "npt", 4 }, { "npt", 5 }
};
#define RIG_VARIANTS (sizeof(rig_variants) / sizeof(rig_variants[0]))

static unsigned rig_flushes; /* of GN_FLUSH_ALL */
static void (*rig_on_flush)(struct gn_vm *vm);

static void rig_flush(struct gn_vcpu *vcpu, const struct gn_flush *flush)
{
	if (flush->scope != GN_FLUSH_ALL)
		return;
	rig_flushes++;
	if (rig_on_flush)
		rig_on_flush(gn_vcpu_vm(vcpu));
}

static const struct gn_backend_ops rig_backend = { .name = "watcher", .flush = rig_flush };

static inline struct gn_vm_config rig_config(const struct rig_variant *variant, uint64_t mem_bytes,
					     unsigned backing_level)
{
	return (struct gn_vm_config){ .scheme = variant->scheme,
				      .mem_bytes = mem_bytes,
				      .vcpus = 2,
				      .backing_level = backing_level,
				      .nested_levels = variant->levels,
				      .backend = &rig_backend };
}

static inline struct gn_vm *rig_vm(const struct gn_vm_config *config)
{
	struct gn_vm *vm = NULL;
	int err;

	if (!gn_scheme_find("ept"))
		for (unsigned i = 0; i < 3; i++)
			cr_assert_eq(gn_scheme_register(rig_schemes[i]), 0);
	err = gn_vm_create(config, &vm);
	cr_assert_eq(err, 0, "gn_vm_create: %d", err);
	rig_flushes = 0;
	rig_on_flush = NULL;
	return vm;
}

static inline void rig_audit(struct gn_vm *vm, const char *when)
{
	struct gn_audit_report report;
	int err = gn_audit(vm, &report);

	cr_assert_eq(err, 0, "%s, %s: %s", gn_vm_scheme(vm), when, report.first);
}

static inline int rig_fault_of(struct gn_vm *vm, unsigned vcpu, gfn_t at, enum gn_access_kind kind,
			       bool on_table, struct gn_fix *fix)
{
	struct gn_fault fault = {
		.access = { .va = gva(gfn_to_gpa(at).v), .kind = (uint8_t)kind, .size = 8 },
		.nested = true,
		.gpa = gfn_to_gpa(at),
		.on_table = on_table
	};

	memset(fix, 0, sizeof(*fix));
	return gn_vcpu_fault(gn_vm_vcpu(vm, vcpu), &fault, fix);
}

static inline enum gn_fix_kind rig_touch(struct gn_vm *vm, uint64_t at, enum gn_access_kind kind)
{
	struct gn_fix fix;
	int err = rig_fault_of(vm, 0, gfn(at), kind, false, &fix);

	cr_assert_eq(err, 0, "fault at gfn %#lx: %d", (unsigned long)at, err);
	return fix.kind;
}

static inline void rig_range(struct gn_vm *vm, uint64_t start, uint64_t end,
			     enum gn_range_change change)
{
	const struct gn_gfn_run run = { gfn(start), end - start };

	gn_ept_range(vm, &run, 1, change);
}

static inline struct gn_ept *rig_ept(struct gn_vm *vm)
{
	return (struct gn_ept *)vm->scheme_data;
}

/* The entry for @at in its table at @level. */
static inline uint64_t *rig_slot(struct gn_vm *vm, uint64_t at, unsigned level)
{
	struct gn_ept *ept = rig_ept(vm);
	pfn_t table = ept->root;

	for (unsigned l = ept->fmt->levels; l > level; l--)
		table = gn_ept_child(ept, l,
				     gn_entry_get(gn_ept_slot_of(vm, ept, table, l, gfn(at))));
	return gn_ept_slot_of(vm, ept, table, level, gfn(at));
}

static inline struct gn_walk rig_walk(struct gn_vm *vm, uint64_t at)
{
	const struct gn_hw *hw = gn_vcpu_hw(gn_vm_vcpu(vm, 0));
	struct gn_walk walk;

	gn_walk_any(hw->fmt, vm->frames, hw->root, gfn_to_gpa(gfn(at)).v, &walk);
	return walk;
}

static inline bool rig_maps(struct gn_vm *vm, uint64_t at, gn_rights_t rights)
{
	struct gn_walk walk = rig_walk(vm, at);

	return walk.end == GN_WALK_LEAF && (walk.rights & rights) == rights;
}

static inline uint64_t rig_tables(struct gn_vm *vm)
{
	struct gn_table_usage usage;

	gn_vm_table_usage(vm, &usage);
	return usage.frames_bytes / GN_PAGE_SIZE;
}

#endif
