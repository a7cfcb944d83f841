/* SPDX-License-Identifier: MIT */
/*
 * cpu.h - struct gn_soft_cpu and struct gn_soft: what the files of this room share.
 *
 * Who does what:
 *   access.c     loads, stores, fetches, probes              privileged.c  registers, invalidations, modes
 *   batch.c      references in batches                       ahead.h       prefetching for them
 *   translate.c  TLB, else walk, then fill                   exits.c       faults: exits, the engine, the guest
 *   walk_*.c     the hardware walkers                        flush.c       flushes, posted or at once
 *   machine.c    creation, running, stopping                 stats.c       counters
 *
 * Each guest operation runs in one RCU read section, entered by gn_soft_enter(), which first applies flushes
 * that others posted. The engine is called outside of it, between gn_soft_call() and gn_soft_return().
 *
 * Field tags as in mmu/vm.h: (c) const after init, (v) vCPU thread only, (a) atomic, [m] lock m.
 */
#ifndef GN_SOFT_CPU_H
#define GN_SOFT_CPU_H

#include <pthread.h>
#include <setjmp.h>

#include <gnomon/soft.h>

#include "mmu/vm.h"

#include "ahead.h"
#include "cache.h"
#include "preset.h"
#include "pwc.h"
#include "tlb.h"

#define GN_SOFT_MAX_RETRIES 64 /* of one access, before the guest is stopped */
#define GN_SOFT_MAX_DEPTH   4  /* of faults inside fault handlers */
#define GN_SOFT_POSTED	    8  /* flushes kept apart; more become one of everything */

/* Who makes an access, as far as rights go. */
enum gn_soft_mode {
	GN_MODE_USER,
	GN_MODE_KERNEL,
	GN_MODE_KERNEL_AC, /* RFLAGS.AC set */
	GN_MODE_IMPLICIT,
};
static inline uint16_t gn_soft_access_bit(unsigned kind, unsigned mode)
{
	return (uint16_t)(1u << (kind * 4 + mode));
}

/* Figures of the preset, as the hot paths want them. */
struct gn_soft_costs {
	uint32_t latency[GN_CACHE_LEVELS];
	uint32_t data[GN_CACHE_LEVELS]; /* an access, by who served its line */
	uint32_t access, stlb, walk_start, pwc;
	uint64_t instruction_q16; /* 1/65536 cycles */
	uint32_t syscall, guest_fault, cr3, cr, flush_va, flush, exit;
	uint32_t vmm_shadow_fault, vmm_emulate, vmm_nested_fault, vmm_inject, vmm_cr3, vmm_cr,
		vmm_invalidate, vmm_other, software_walk;
	bool pwc_holds_hpa, nested_pwc_for_data, nested_tlb_for_data;
};

/* The translation used last, one for data and one for fetches: the first entry of its LRU order, so
 * using it again changes nothing in the TLB. allow = 0: none. */
struct gn_soft_recent {
	uint64_t base, mask, frame;
	uint16_t allow;
};

enum gn_soft_fault_kind {
	GN_SOFT_PF,	 /* #PF of the tables that were walked */
	GN_SOFT_GP,	 /* not canonical */
	GN_SOFT_NESTED,	 /* nested violation; under native: the p2m withholds something */
	GN_SOFT_SOFTWARE /* no tables: software translates */
};
struct gn_soft_fault {
	enum gn_soft_fault_kind kind;
	uint32_t error_code;
	gpa_t gpa;
	bool on_table;
};

/* A walk: what it cost, and what came of it. */
struct gn_soft_walk {
	uint64_t cycles;     /* without those of its references, which are queued */
	uint64_t meta;	     /* of a TLB entry, without decisions */
	uint64_t address;    /* the translated address, with the offset (GUEST: a GPA) */
	uint8_t level;	     /* page size the TLB may use: the smaller of both dimensions' leaves */
	uint8_t guest_level; /* the guest's leaf */
	struct gn_soft_fault fault; /* when the walk returned false */
};

/* A GPA translated by the nested dimension. */
struct gn_soft_nested {
	hpa_t hpa;
	gn_rights_t rights;
	uint8_t level;
	bool dirty;
};

struct gn_soft_cpu;
typedef bool gn_soft_walk_fn(struct gn_soft_cpu *cpu, const struct gn_access *access,
			     struct gn_soft_walk *w);

struct gn_soft_cpu {
	/* the hit path (v) */
	struct gn_soft_recent recent[2]; /* data, fetches */
	uint8_t *memory;		 /* (c) host address of HPA 0 */
	struct gn_counters *counters;
	uint64_t tag;		  /* hw.pcid, shifted into a key's place */
	uint8_t spare_bits;	  /* of an address, above the canonical ones */
	uint8_t mode;		  /* enum gn_soft_mode of what runs, to the hardware */
	bool is_native;		  /* TLB entries hold GPAs, the p2m translates at each access */
	_Atomic(bool) has_posted; /* (a) a flush or a change of hw waits in posted[] */
	struct gn_tlb l1[2];	  /* data, fetches */
	struct gn_caches caches;
	struct gn_soft_costs cost; /* (c) */

	/* beyond it (v) */
	struct gn_tlb l2, l2_fetch;
	struct gn_tlb *l2_of[2]; /* (c) fetches may share l2 */
	struct gn_pwc pwc, nested_pwc;
	struct gn_tlb nested_tlb;
	struct gn_paging paging; /* rules of the tables walked; shadow tables have their own */
	enum gn_hw_kind kind;
	const struct gn_fmt *fmt;
	uint64_t
		reserved; /* bits no entry of the guest's may have: beyond its width, NX without NXE */
	gn_rights_t table_need; /* rights a guest table's page needs in the nested dimension */
	bool is_fractured;	/* an entry is smaller than its guest page */
	gn_soft_walk_fn *walk;
	uint64_t leaf_address; /* address bits of a 4 KiB leaf, in every format there is */
	struct gn_ahead *ahead;
	struct gn_soft_stats stats;

	struct gn_soft *soft; /* (c) */
	struct gn_vcpu *vcpu; /* (c) */
	struct gn_vm *vm;     /* (c) */
	bool user, ac;	      /* CPL 3; RFLAGS.AC: the guest's */
	bool is_deprivileged; /* tables in force are used at CPL 3, whatever the guest's */
	hpa_t root;	      /* then: whose translations the TLBs hold */
	uint32_t instruction_rest_q16;

	/* running and stopping (v) */
	bool running;
	jmp_buf out;
	int error; /* why it ended: -ECANCELED, -errno */
	char reason[256];
	gn_soft_handler *handler;
	void *handler_ctx;
	unsigned depth; /* of handlers */
	gn_soft_op_fn *op_hook;
	void *op_ctx;
	struct gn_soft_outcome *probe; /* set: faults are returned, not delivered */

	pthread_mutex_t post_mutex;
	struct gn_flush posted[GN_SOFT_POSTED]; /* [post_mutex] */
	unsigned posted_count;			/* [post_mutex] */
	bool posted_hw_change;			/* [post_mutex] */
};

struct gn_soft {
	struct gn_vm *vm;
	struct gn_soft_cpu *cpus;
	unsigned cpu_count;
	struct gn_cache l3; /* shared; one thread at a time uses it */
	uint64_t seed;
	bool deprivileged;     /* (c) config */
	gn_soft_mmio_fn *mmio; /* (c) while a CPU runs */
	void *mmio_ctx;
	gn_soft_hypercall_fn *hypercall; /* as mmio */
	void *hypercall_ctx;
};

/* flush.c */
void gn_soft_backend_flush(struct gn_vcpu *vcpu, const struct gn_flush *flush);
void gn_soft_backend_hw_changed(struct gn_vcpu *vcpu);
void gn_soft_apply_posted(struct gn_soft_cpu *cpu);
void gn_soft_flush_everything(struct gn_soft_cpu *cpu);
/* The engine may have changed what the hardware is programmed with. */
void gn_soft_refresh(struct gn_soft_cpu *cpu);
/* Around every call of the engine by this CPU's thread: flushes asked for in between are applied at
 * once. */
void gn_soft_call(struct gn_soft_cpu *cpu);
void gn_soft_return(struct gn_soft_cpu *cpu);

static inline void gn_soft_enter(struct gn_soft_cpu *cpu)
{
	gn_rcu_read_lock();
	if (GN_UNLIKELY(atomic_load_explicit(&cpu->has_posted, memory_order_acquire)))
		gn_soft_apply_posted(cpu);
}
static inline void gn_soft_leave(void)
{
	gn_rcu_read_unlock();
}
static inline void gn_soft_forget_recent(struct gn_soft_cpu *cpu)
{
	cpu->recent[0].allow = 0;
	cpu->recent[1].allow = 0;
}

/* Count what the queued references cost. */
void gn_soft_settle_queue(struct gn_soft_cpu *cpu);

static inline void gn_soft_settle(struct gn_soft_cpu *cpu)
{
	if (cpu->caches.queued)
		gn_soft_settle_queue(cpu);
}
/* Room in the queue for a walk, and for the data of a batch behind it. */
static inline void gn_soft_make_room(struct gn_soft_cpu *cpu)
{
	if (GN_UNLIKELY(cpu->caches.queued > GN_CACHE_QUEUE - GN_CACHE_ROOM))
		gn_soft_settle_queue(cpu);
}

/* translate.c: inside the read section. The walk's references stay queued: whoever calls this settles, before
 * the next reference out of the queue and before anybody reads a counter. @missed: where the L1 TLB was asked and has no entry; NULL: not asked
 * yet. True: *address is host-physical and the access may use it.
 * False: *fault. */
bool gn_soft_translate_queueing(struct gn_soft_cpu *cpu, const struct gn_access *access,
				uint16_t bit, struct gn_tlb_place *missed, uint64_t *address,
				struct gn_soft_fault *fault);
static inline bool gn_soft_translate(struct gn_soft_cpu *cpu, const struct gn_access *access,
				     uint16_t bit, struct gn_tlb_place *missed, uint64_t *address,
				     struct gn_soft_fault *fault)
{
	bool done = gn_soft_translate_queueing(cpu, access, bit, missed, address, fault);

	gn_soft_settle(cpu);
	return done;
}
static inline bool gn_soft_is_canonical(const struct gn_soft_cpu *cpu, uint64_t va)
{
	return (uint64_t)((int64_t)(va << cpu->spare_bits) >> cpu->spare_bits) == va;
}
/* native: the free half of the translation. False: the p2m withholds it. */
static inline bool gn_soft_native(const struct gn_soft_cpu *cpu, unsigned kind, uint64_t *address)
{
	p2m_word_t word = gn_p2m_get(&cpu->vm->p2m, gpa_to_gfn(gpa(*address)));
	gn_rights_t need = kind == GN_WRITE ? GN_W : kind == GN_FETCH ? GN_X : GN_R;

	if (GN_UNLIKELY(!gn_p2m_word_has_frame(word) || (need & ~gn_p2m_word_rights(word)) ||
			(kind == GN_WRITE && gn_p2m_word_state(word) != GN_P2M_PRIVATE)))
		return false;
	*address = pfn_to_hpa(gn_p2m_word_pfn(word)).v | (*address & (GN_PAGE_SIZE - 1));
	return true;
}

/* walk_tables.c, walk_guest.c: the walkers for what hw says; NULL: none. */
gn_soft_walk_fn *gn_soft_table_walker(const struct gn_fmt *fmt, bool as_user);
gn_soft_walk_fn *gn_soft_guest_walker(unsigned levels, const struct gn_fmt *nested);

/* exits.c */
enum gn_soft_verdict {
	GN_SOFT_AGAIN,	 /* try the access again */
	GN_SOFT_RESTART, /* from its beginning, for the guest has run meanwhile */
	GN_SOFT_TARGET,	 /* it has a place to go to: *target */
	GN_SOFT_END,	 /* the probe is answered, or the guest is stopped */
};
enum gn_soft_target_kind {
	GN_TARGET_NONE, /* not known yet */
	GN_TARGET_MEMORY,
	GN_TARGET_EMULATE,
	GN_TARGET_MMIO,
	GN_TARGET_DROP, /* a store to read-only memory */
};
struct gn_soft_target {
	enum gn_soft_target_kind kind;
	uint64_t hpa;
	gpa_t gpa;
	uint64_t sequence; /* of the p2m when software found the memory */
};
enum gn_soft_verdict gn_soft_answer(struct gn_soft_cpu *cpu, const struct gn_access *access,
				    const struct gn_soft_fault *fault,
				    struct gn_soft_target *target);
/* An exception for the guest's handler. RESTART or END. */
enum gn_soft_verdict gn_soft_deliver(struct gn_soft_cpu *cpu, unsigned vector, uint32_t error_code,
				     gva_t cr2);
void gn_soft_charge_exit(struct gn_soft_cpu *cpu, enum gn_exit_reason reason, uint32_t vmm_cycles);
/* End the run (or the probe) with an error. Returns only outside gn_soft_run() and in a probe. */
__attribute__((format(printf, 3, 4))) void gn_soft_fail(struct gn_soft_cpu *cpu, int error,
							const char *format, ...);
/* Inside the read section neither of the two may be called. */

/* privileged.c: what runs from now on. A deprivileged machine has the engine put another root in force; when that
 * fails (false), nothing has changed and the run (or the probe) has ended. */
bool gn_soft_set_privilege(struct gn_soft_cpu *cpu, bool user, bool ac);
/* It also leaves for that to the VMM, who emulates the instruction or the event. */
void gn_soft_charge_privilege(struct gn_soft_cpu *cpu);

/* The hardware's rights of the guest's access. */
static inline unsigned gn_soft_mode_of(const struct gn_soft_cpu *cpu,
				       const struct gn_access *access)
{
	if (cpu->is_deprivileged)
		return GN_MODE_USER;
	if (access->implicit)
		return GN_MODE_IMPLICIT;
	if (access->user)
		return GN_MODE_USER;
	return access->ac ? GN_MODE_KERNEL_AC : GN_MODE_KERNEL;
}
static inline void gn_soft_set_mode(struct gn_soft_cpu *cpu)
{
	const struct gn_access any = { .user = cpu->user, .ac = cpu->ac };

	cpu->mode = (uint8_t)gn_soft_mode_of(cpu, &any);
}
static inline void gn_soft_charge(struct gn_soft_cpu *cpu, uint64_t cycles)
{
	cpu->counters->cycles += cycles;
}
static inline void gn_soft_charge_base(struct gn_soft_cpu *cpu, uint64_t cycles)
{
	cpu->counters->cycles_base += cycles;
	cpu->counters->cycles += cycles;
}

#endif
