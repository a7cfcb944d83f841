/* SPDX-License-Identifier: MIT */
/*
 * vm.h - struct gn_vm and struct gn_vcpu, shared by the engine and its schemes.
 *
 * Field tags: (c) const after init, (v) vCPU thread only, (a) atomic, [m] lock m,
 * [m+r] lock m to write, RCU to read.
 */
#ifndef GN_MMU_VM_H
#define GN_MMU_VM_H

#include "arena.h"
#include "check.h"
#include "frames.h"
#include "p2m.h"
#include "rcu.h"
#include "retire.h"
#include "scheme.h"

/* Whose root is in force, where the hardware runs all of the guest at CPL 3. */
enum gn_view {
	GN_VIEW_BOTH, /* the hardware knows privilege: one root for all */
	GN_VIEW_KERNEL,
	GN_VIEW_KERNEL_AC, /* SMAP lifted */
	GN_VIEW_USER,
};

struct gn_vcpu {
	struct gn_vm *vm;	     /* (c) */
	unsigned index;		     /* (c) */
	enum gn_view view;	     /* (v) BOTH unless config.deprivileged */
	struct gn_regs regs;	     /* (v) */
	struct gn_paging paging;     /* (v) derived from regs */
	struct gn_hw hw;	     /* (v) written by the scheme */
	struct gn_counters counters; /* (v) */
	void *scheme_data;	     /* (v) */
	void *backend_data;	     /* (c) */
};

/* What a pool has beside @mem_bytes of RAM, for tables, if nobody says otherwise (gn_vm_config.pool_bytes). */
static inline uint64_t gn_vm_tables_bytes(uint64_t mem_bytes)
{
	return mem_bytes / 4 + ((uint64_t)64 << 20);
}

struct gn_vm {
	struct gn_vm_config config;	 /* (c) defaults filled in */
	const struct gn_scheme_ops *ops; /* [lock], changed while no vCPU is inside */
	void *scheme_data;		 /* as ops */
	struct gn_arena *arena;		 /* (c) everything else of the VM */
	struct gn_arena *scheme_arena;	 /* as ops: the scheme's metadata, so its bytes are exact */
	struct gn_frames *frames;	 /* (c) */
	bool owns_frames;		 /* (c) false: the pool is several VMs' */
	struct gn_p2m p2m;
	bool is_unheld; /* [p2m.lock] of the change under way, over a template: somebody may store */
	struct gn_retire retire;
	struct gn_lock lock;		    /* GN_RANK_VM */
	struct gn_lock scheme_lock;	    /* GN_RANK_SCHEME, for schemes that need one */
	_Atomic(uint64_t) table_pages;	    /* (a) frames in use as scheme tables */
	_Atomic(uint64_t) table_peak_bytes; /* (a) */
	_Atomic(uint64_t) released_bytes;   /* (a) given back to the host so far */
	_Atomic(enum gn_touch_answer)
		touch_answer;		   /* (a) to touches of BALLOONED gfns; written under
						     * p2m.lock, as the two below */
	gn_touch_fn *touch_told;	   /* [p2m.lock] */
	void *touch_ctx;		   /* [p2m.lock] */
	_Atomic(uint64_t) touches_denied;  /* (a) */
	_Atomic(uint64_t) touches_granted; /* (a) */
	_Atomic(uint8_t *) dirty_bitmap;   /* [p2m.lock + r] one bit a gfn; NULL: no dirty log */
	struct gn_root_slot root_slot;	   /* (c) once a table scheme is in force */
	bool has_root_slot;		   /* as root_slot */
	uint64_t *scratch;		   /* (c) one zero page for what must read as nothing */
	struct gn_vcpu *vcpus;		   /* (c) */
};

/* GN_POOL_TEMPLATE: each gfn has the frame of its own number, for the VM's life. */
static inline bool gn_vm_is_over_template(const struct gn_vm *vm)
{
	return vm->config.pool == GN_POOL_TEMPLATE;
}

/* Ask every vCPU's backend (or one's) to flush. Never waits. */
void gn_vm_flush(struct gn_vm *vm, const struct gn_flush *flush);
void gn_vcpu_flush(struct gn_vcpu *vcpu, const struct gn_flush *flush);

/* Tell a backend that programs its hardware by ranges. */
static inline void gn_vm_range_changing(struct gn_vm *vm, const struct gn_gfn_run *runs,
					size_t count, enum gn_range_change change)
{
	if (vm->config.backend && vm->config.backend->range_changing)
		vm->config.backend->range_changing(vm, runs, count, change);
}

/* Wait until nobody uses a translation or a table that went away before the call, its flush posted. */
static inline void gn_vm_synchronize(struct gn_vm *vm)
{
	if (vm->config.backend && vm->config.backend->quiesce)
		vm->config.backend->quiesce(vm);
	gn_rcu_synchronize();
}

/* The tag the guest's translations live under: CR3's PCID with CR4.PCIDE, else 0. */
uint16_t gn_vcpu_guest_pcid(const struct gn_vcpu *vcpu);

/* Dirty log. Who maps a gfn writable marks it first; who stores to it as its p2m word allows marks it before
 * looking at that (gn_p2m_get_to_store(); dirty.c tells why). */
static inline bool gn_dirty_is_logged(struct gn_vm *vm)
{
	return atomic_load_explicit(&vm->dirty_bitmap, memory_order_acquire) != NULL;
}
bool gn_dirty_is_marked(struct gn_vm *vm, gfn_t at);
void gn_dirty_mark(struct gn_vm *vm, gfn_t at);
/* The word of @at for who stores as it allows, in the read section in which this is asked: the log knows before. */
static inline p2m_word_t gn_p2m_get_to_store(struct gn_vm *vm, gfn_t at)
{
	if (gn_dirty_is_logged(vm))
		gn_dirty_mark(vm, at);
	return gn_p2m_get(&vm->p2m, at);
}
/* In a change, when the runs' words have lost W and range() was told: does the log say that nobody can be
 * storing to them? Not if there is none, nor if hardware keeps one of its own: its marks come later. p2m lock
 * held. */
bool gn_dirty_rules_out_stores(struct gn_vm *vm, const struct gn_gfn_run *runs, size_t count);

/* The smallest leaf level everyone agrees on for mapping @at: p2m block, config.max_leaf_level. */
unsigned gn_vm_leaf_level(struct gn_vm *vm, p2m_word_t word);

#endif
