/* SPDX-License-Identifier: MIT */
/*
 * plain_scheme.h - a scheme and a backend for tests of the engine below the schemes: the scheme keeps one
 * table page and some metadata per VM and vCPU (so that a leak would show) and both write down what they
 * were told. One VM at a time.
 */
#ifndef GN_TESTS_PLAIN_SCHEME_H
#define GN_TESTS_PLAIN_SCHEME_H

#include <string.h>

#include "mmu/entry.h"
#include "mmu/vm.h"

struct plain_log {
	unsigned ranges, flushes, hw_changes, loads, modes, invlpgs, guest_flushes, writes;
	gfn_t start, end;
	enum gn_range_change change;
	struct gn_flush flush, guest_flush;
	gva_t invlpg;
	gpa_t written;
	unsigned written_bytes;
	bool written_from_outside;
	bool sequence_was_odd; /* at the last range() */
	int load_error;	       /* what load_root answers */
};
static struct plain_log plain;

static inline int plain_vm_init(struct gn_vm *vm)
{
	pfn_t table;
	pfn_t *data = gn_arena_alloc(vm->scheme_arena, sizeof(*data));
	int err;

	if (!data)
		return -12;
	err = gn_table_new(vm, &table);
	if (err) {
		gn_arena_free(vm->scheme_arena, data, sizeof(*data));
		return err;
	}
	*data = table;
	vm->scheme_data = data;
	return 0;
}

static inline void plain_vm_fini(struct gn_vm *vm)
{
	gn_table_retire(vm, *(pfn_t *)vm->scheme_data);
	gn_arena_free(vm->scheme_arena, vm->scheme_data, sizeof(pfn_t));
}

static inline int plain_vcpu_init(struct gn_vcpu *vcpu)
{
	vcpu->hw.kind = GN_HW_SOFTWARE;
	vcpu->scheme_data = gn_arena_zalloc(vcpu->vm->scheme_arena, 100);
	return vcpu->scheme_data ? 0 : -12;
}

static inline int plain_guest_vcpu_init(struct gn_vcpu *vcpu)
{
	int err = plain_vcpu_init(vcpu);

	vcpu->hw.kind = GN_HW_GUEST;
	return err;
}

static inline void plain_vcpu_fini(struct gn_vcpu *vcpu)
{
	gn_arena_free(vcpu->vm->scheme_arena, vcpu->scheme_data, 100);
}

static inline int plain_load_root(struct gn_vcpu *vcpu)
{
	plain.loads++;
	vcpu->hw.pcid = gn_vcpu_guest_pcid(vcpu);
	return plain.load_error;
}

static inline int plain_mode_change(struct gn_vcpu *vcpu)
{
	(void)vcpu;
	plain.modes++;
	return plain.load_error;
}

static inline void plain_invlpg(struct gn_vcpu *vcpu, gva_t va)
{
	(void)vcpu;
	plain.invlpgs++;
	plain.invlpg = va;
}

static inline void plain_flush_guest(struct gn_vcpu *vcpu, const struct gn_flush *what)
{
	(void)vcpu;
	plain.guest_flushes++;
	plain.guest_flush = *what;
}

static inline void plain_memory_written(struct gn_vm *vm, struct gn_vcpu *vcpu, gpa_t at,
					unsigned bytes)
{
	(void)vm;
	plain.writes++;
	plain.written = at;
	plain.written_bytes = bytes;
	plain.written_from_outside = !vcpu;
}

static inline void plain_range(struct gn_vm *vm, const struct gn_gfn_run *runs, size_t count,
			       enum gn_range_change change)
{
	plain.ranges++;
	plain.start = runs[0].start;
	plain.end = gfn(runs[count - 1].start.v + runs[count - 1].count);
	plain.change = change;
	plain.sequence_was_odd = vm->p2m.sequence & 1;
}

static inline void plain_harvest_accessed(struct gn_vm *vm, gfn_t start, gfn_t end, uint8_t *bitmap)
{
	(void)vm;
	if (start.v < end.v)
		bitmap[0] |= 1;
}

static const struct gn_scheme_ops plain_scheme = {
	.name = "plain",
	.summary = "writes down what it is told",
	.keeps_tables = true,
	.vm_init = plain_vm_init,
	.vm_fini = plain_vm_fini,
	.vcpu_init = plain_vcpu_init,
	.vcpu_fini = plain_vcpu_fini,
	.load_root = plain_load_root,
	.mode_change = plain_mode_change,
	.invlpg = plain_invlpg,
	.flush_guest = plain_flush_guest,
	.memory_written = plain_memory_written,
	.range = plain_range,
	.harvest_accessed = plain_harvest_accessed,
};

/* The least a scheme can be; the hardware walks the guest's tables, so no dirty log. */
static const struct gn_scheme_ops plain_guest_scheme = {
	.name = "plain-guest",
	.vm_init = plain_vm_init,
	.vm_fini = plain_vm_fini,
	.vcpu_init = plain_guest_vcpu_init,
	.vcpu_fini = plain_vcpu_fini,
	.load_root = plain_load_root,
};

static inline void plain_flush(struct gn_vcpu *vcpu, const struct gn_flush *flush)
{
	(void)vcpu;
	plain.flushes++;
	plain.flush = *flush;
}

static inline void plain_hw_changed(struct gn_vcpu *vcpu)
{
	(void)vcpu;
	plain.hw_changes++;
}

static const struct gn_backend_ops plain_backend = {
	.name = "plain",
	.flush = plain_flush,
	.hw_changed = plain_hw_changed,
};

static inline struct gn_vm_config plain_config(uint64_t mem_bytes)
{
	struct gn_vm_config config = {
		.scheme = "plain", .mem_bytes = mem_bytes, .vcpus = 1, .backend = &plain_backend
	};

	gn_scheme_register(&plain_scheme); /* -EEXIST the second time */
	gn_scheme_register(&plain_guest_scheme);
	return config;
}

/* NULL if it cannot be created. Also forgets what was written down. */
static inline struct gn_vm *plain_vm(const struct gn_vm_config *config)
{
	struct gn_vm *vm = NULL;
	int err = gn_vm_create(config, &vm);

	memset(&plain, 0, sizeof(plain));
	return err ? NULL : vm;
}

static inline struct gn_p2m_info plain_query(struct gn_vm *vm, uint64_t at)
{
	struct gn_p2m_info info = { 0 };

	gn_p2m_query(vm, gfn(at), &info);
	return info;
}

#endif
