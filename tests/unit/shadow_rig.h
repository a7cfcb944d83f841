/* SPDX-License-Identifier: MIT */
/*
 * shadow_rig.h - a guest and a tiny machine for tests of the shadow room.
 *
 * The machine walks hw.root with gn_walk_any(), judges rights as the hardware of this scheme does (CR0.WP=1,
 * NXE=1), keeps a small TLB that obeys posted flushes (so that a forgotten flush shows), takes faults to the
 * engine and does what it is told. Its TLB also drops the faulting address at each fault, as the architecture
 * says (SDM 4.10.4.1).
 *
 * In a deprivileged VM it makes every access as a user's, drops its TLB when the root changes, and tells the engine
 * the guest's privilege before each access (an implicit one is not the machine's to make: it goes to the engine as a
 * fault).
 *
 * Guest: RAM is mapped linearly for the kernel at RIG_LINEAR, by tables the rig builds from outside. Tables
 * come from rig_table(); a guest store to an entry goes through the linear map with rig_poke().
 */
#ifndef GN_TESTS_SHADOW_RIG_H
#define GN_TESTS_SHADOW_RIG_H

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <gnomon/schemes.h>
#include <gnomon/x86.h>

#include "mmu/vm.h"
#include "mmu/walk.h"

#define RIG_LINEAR    ((uint64_t)0xffff800000000000)
#define RIG_TABLES    64 /* first gfn of tables */
#define RIG_TLB_SLOTS 64
#define RIG_RETRIES   24

#define KERNEL_RW (X86_PTE_P | X86_PTE_W | X86_PTE_A | X86_PTE_D)
#define USER_RW	  (KERNEL_RW | X86_PTE_U)
#define USER_RO	  (X86_PTE_P | X86_PTE_U | X86_PTE_A)
#define LARGE	  X86_PTE_PS

struct rig_tlb {
	pthread_mutex_t lock;
	uint64_t flushes_all;
	uint64_t root; /* deprivileged: whose translations these are */
	struct rig_tlb_slot {
		bool valid, global;
		uint8_t level; /* of the hardware's leaf: INVLPG means all of it */
		uint16_t pcid;
		uint64_t page;
		uint64_t frame;
		gn_rights_t rights;
		uint8_t pkey;
	} slot[RIG_TLB_SLOTS];
};

struct rig {
	struct gn_vm *vm;
	struct gn_vcpu *vcpu; /* the first */
	struct rig_tlb tlb[4];
	bool no_tlb;
	uint64_t root; /* gpa of the rig's first root */
	uint64_t next_table;
	uint64_t faults, emulated, answered;
};

/* What became of one access. */
enum rig_end { RIG_OK, RIG_PF, RIG_GP, RIG_MMIO, RIG_DENIED, RIG_STOP, RIG_ERROR, RIG_LOOP };
struct rig_result {
	enum rig_end end;
	uint32_t error_code;
	int err;
	uint64_t hpa;
	uint64_t value;
	unsigned faults;
};

/* Called before a flush is carried out, if set. True: it is on its way, and not carried out. */
static bool (*rig_on_flush)(struct gn_vcpu *vcpu, const struct gn_flush *flush);

static void rig_flush(struct gn_vcpu *vcpu, const struct gn_flush *flush)
{
	struct rig_tlb *tlb = gn_vcpu_backend(vcpu);

	if ((rig_on_flush && rig_on_flush(vcpu, flush)) || !tlb)
		return;
	pthread_mutex_lock(&tlb->lock);
	tlb->flushes_all += flush->scope == GN_FLUSH_ALL;
	for (int i = 0; i < RIG_TLB_SLOTS; i++) {
		struct rig_tlb_slot *t = &tlb->slot[i];
		bool tag = t->pcid == flush->pcid;

		switch (flush->scope) {
		case GN_FLUSH_VA:
			if (t->valid && (tag || t->global) &&
			    !(((t->page << 12) ^ flush->va.v) >> gn_level_shift(t->level)))
				t->valid = false;
			break;
		case GN_FLUSH_PCID:
			t->valid &= !tag || t->global;
			break;
		case GN_FLUSH_NONGLOBAL:
			t->valid &= t->global;
			break;
		default:
			t->valid = false;
		}
	}
	pthread_mutex_unlock(&tlb->lock);
}

static const struct gn_backend_ops rig_backend = { .name = "rig", .flush = rig_flush };

static inline void rig_die(const char *what)
{
	printf("rig: %s\n", what);
	abort();
}

static inline void rig_write(struct rig *rig, uint64_t at, uint64_t value)
{
	if (gn_vm_write(rig->vm, gpa(at), &value, sizeof(value)))
		rig_die("write from outside");
}
static inline uint64_t rig_read(struct rig *rig, uint64_t at)
{
	uint64_t value;

	if (gn_vm_read(rig->vm, gpa(at), &value, sizeof(value)))
		rig_die("read from outside");
	return value;
}
/* A fresh table page: its gpa. */
static inline uint64_t rig_table(struct rig *rig)
{
	return rig->next_table++ << 12;
}
static inline unsigned rig_index(uint64_t va, unsigned level)
{
	return (va >> gn_level_shift(level)) & 511;
}
/* Gpa of the entry for @va in the table at @level under @root, made if missing. */
static inline uint64_t rig_entry(struct rig *rig, uint64_t root, uint64_t va, unsigned level)
{
	uint64_t table = root;

	for (unsigned l = gn_vcpu_regs(rig->vcpu)->cr4 & X86_CR4_LA57 ? 5 : 4; l > level; l--) {
		uint64_t at = table + rig_index(va, l) * 8, entry = rig_read(rig, at);

		if (!(entry & X86_PTE_P)) {
			entry = rig_table(rig) | USER_RW;
			rig_write(rig, at, entry);
		}
		table = entry & X86_PTE_ADDR;
	}
	return table + rig_index(va, level) * 8;
}
/* Map from outside. Returns the gpa of the entry. */
static inline uint64_t rig_map(struct rig *rig, uint64_t root, uint64_t va, unsigned level,
			       uint64_t entry)
{
	uint64_t at = rig_entry(rig, root, va, level);

	rig_write(rig, at, entry);
	return at;
}

/* ---- The machine -------------------------------------------------------------------------------------- */

static inline bool rig_tlb_find(struct rig_tlb *tlb, const struct gn_vcpu *vcpu,
				const struct gn_paging *hardware, const struct gn_access *a,
				uint64_t *hpa_out)
{
	struct rig_tlb_slot *t = &tlb->slot[(a->va.v >> 12) % RIG_TLB_SLOTS];
	bool hit = t->valid && t->page == a->va.v >> 12 &&
		   (t->pcid == vcpu->hw.pcid || (t->global && hardware->pge));
	struct gn_translation tr;

	if (!hit)
		return false;
	tr = (struct gn_translation){ .rights = t->rights, .pkey = t->pkey };
	if (gn_paging_access(hardware, &tr, a)) {
		t->valid = false; /* a fault drops the address */
		return false;
	}
	*hpa_out = t->frame | (a->va.v & 4095);
	return true;
}

/* The registers the hardware runs with, and whose access it makes. */
static inline void rig_hardware(const struct gn_vcpu *vcpu, struct rig_tlb *tlb,
				struct gn_paging *hardware, struct gn_access *a)
{
	*hardware = vcpu->paging;
	hardware->wp = hardware->nxe = true;
	if (!vcpu->vm->config.deprivileged)
		return;
	hardware->smep = hardware->smap = hardware->pke = hardware->pge = false;
	a->user = true;
	a->ac = false;
	if (tlb->root != vcpu->hw.root.v)
		memset(tlb->slot, 0, sizeof(tlb->slot));
	tlb->root = vcpu->hw.root.v;
}

/* Translate once. False: #PF. Inside an RCU read section. */
static inline bool rig_translate(struct rig *rig, struct gn_vcpu *vcpu,
				 const struct gn_access *guest, uint64_t *hpa_out)
{
	struct rig_tlb *tlb = gn_vcpu_backend(vcpu);
	const struct gn_hw *hw = &vcpu->hw;
	struct gn_access as_made = *guest, *a = &as_made;
	struct gn_paging hardware;
	struct gn_translation tr;
	struct gn_walk w;
	bool found = false;

	if (vcpu->vm->config.deprivileged && guest->implicit)
		return false;
	pthread_mutex_lock(&tlb->lock);
	rig_hardware(vcpu, tlb, &hardware, a);
	if (!rig->no_tlb && rig_tlb_find(tlb, vcpu, &hardware, a, hpa_out)) {
		found = true;
		goto out;
	}
	gn_walk_any(hw->fmt, rig->vm->frames, hw->root, a->va.v, &w);
	if (w.end == GN_WALK_MALFORMED)
		rig_die("a malformed shadow entry");
	if (w.end != GN_WALK_LEAF)
		goto out;
	tr = (struct gn_translation){ .rights = w.rights,
				      .pkey = (uint8_t)gn_fmt_pkey(hw->fmt, w.level, w.entry) };
	if (gn_paging_access(&hardware, &tr, a))
		goto out;
	tlb->slot[(a->va.v >> 12) % RIG_TLB_SLOTS] =
		(struct rig_tlb_slot){ .valid = true,
				       .global = w.entry & hw->fmt->level[w.level].global,
				       .level = w.level,
				       .pcid = hw->pcid,
				       .page = a->va.v >> 12,
				       .frame = w.address & ~(uint64_t)4095,
				       .rights = w.rights,
				       .pkey = tr.pkey };
	*hpa_out = w.address;
	found = true;
out:
	pthread_mutex_unlock(&tlb->lock);
	return found;
}

static inline void rig_perform(struct rig *rig, const struct gn_access *a, uint64_t at,
			       uint64_t *value)
{
	uint8_t *p = gn_frames_at(rig->vm->frames, hpa(at));

	if (a->kind == GN_WRITE) {
		if (a->size == 8 && at % 8 == 0)
			__atomic_store_n((uint64_t *)p, *value, __ATOMIC_SEQ_CST);
		else
			memcpy(p, value, a->size);
	} else if (a->size == 8 && at % 8 == 0) {
		*value = __atomic_load_n((uint64_t *)p, __ATOMIC_SEQ_CST);
	} else {
		memcpy(value, p, a->size);
	}
}

static inline struct rig_result rig_run(struct rig *rig, struct gn_vcpu *vcpu,
					const struct gn_access *a, uint64_t value)
{
	struct rig_result r = { .end = RIG_LOOP, .value = value };

	if (!a->implicit)
		r.err = gn_vcpu_set_privilege(vcpu, a->user, a->ac);
	if (r.err) {
		r.end = RIG_ERROR;
		return r;
	}
	for (; r.faults < RIG_RETRIES; r.faults++) {
		struct gn_fault fault = { .access = *a };
		struct gn_fix fix;

		gn_rcu_read_lock();
		if (rig_translate(rig, vcpu, a, &r.hpa)) {
			rig_perform(rig, a, r.hpa, &r.value);
			gn_rcu_read_unlock();
			r.end = RIG_OK;
			return r;
		}
		gn_rcu_read_unlock();
		__atomic_fetch_add(&rig->faults, 1, __ATOMIC_RELAXED);
		r.err = gn_vcpu_fault(vcpu, &fault, &fix);
		if (r.err) {
			r.end = RIG_ERROR;
			return r;
		}
		switch (fix.kind) {
		case GN_FIX_RETRY:
			continue;
		case GN_FIX_EMULATE:
			__atomic_fetch_add(&rig->emulated, 1, __ATOMIC_RELAXED);
			r.faults++;
			r.err = gn_vcpu_store(vcpu, fix.gpa, &value, a->size);
			r.end = r.err ? RIG_ERROR : RIG_OK;
			return r;
		case GN_FIX_ACCESS:
			__atomic_fetch_add(&rig->answered, 1, __ATOMIC_RELAXED);
			r.hpa = fix.hpa.v;
			r.faults++;
			rig_perform(rig, a, r.hpa, &r.value);
			r.end = RIG_OK;
			return r;
		case GN_FIX_INJECT:
			r.end = RIG_PF;
			r.error_code = fix.error_code;
			return r;
		case GN_FIX_INJECT_GP:
			r.end = RIG_GP;
			return r;
		case GN_FIX_MMIO:
			r.end = RIG_MMIO;
			return r;
		case GN_FIX_DENIED:
			r.end = RIG_DENIED;
			return r;
		default:
			r.end = RIG_STOP;
			return r;
		}
	}
	return r;
}

static inline struct rig_result rig_load_on(struct rig *rig, struct gn_vcpu *vcpu, uint64_t va,
					    bool user)
{
	const struct gn_access a = { .va = gva(va), .kind = GN_READ, .size = 8, .user = user };

	return rig_run(rig, vcpu, &a, 0);
}
static inline struct rig_result rig_store_on(struct rig *rig, struct gn_vcpu *vcpu, uint64_t va,
					     uint64_t value, bool user)
{
	const struct gn_access a = { .va = gva(va), .kind = GN_WRITE, .size = 8, .user = user };

	return rig_run(rig, vcpu, &a, value);
}
static inline struct rig_result rig_fetch(struct rig *rig, uint64_t va, bool user)
{
	const struct gn_access a = { .va = gva(va), .kind = GN_FETCH, .size = 1, .user = user };

	return rig_run(rig, rig->vcpu, &a, 0);
}
static inline struct rig_result rig_load(struct rig *rig, uint64_t va)
{
	return rig_load_on(rig, rig->vcpu, va, false);
}
static inline struct rig_result rig_store(struct rig *rig, uint64_t va, uint64_t value)
{
	return rig_store_on(rig, rig->vcpu, va, value, false);
}
static inline struct rig_result rig_user_load(struct rig *rig, uint64_t va)
{
	return rig_load_on(rig, rig->vcpu, va, true);
}
static inline struct rig_result rig_user_store(struct rig *rig, uint64_t va, uint64_t value)
{
	return rig_store_on(rig, rig->vcpu, va, value, true);
}
/* The guest kernel stores to memory through its linear map. */
static inline struct rig_result rig_poke(struct rig *rig, uint64_t at, uint64_t value)
{
	return rig_store(rig, RIG_LINEAR + at, value);
}
static inline void rig_cr3(struct rig *rig, uint64_t value)
{
	bool gp;

	if (gn_vcpu_write_cr3(rig->vcpu, value, &gp) || gp)
		rig_die("CR3");
}
static inline void rig_invlpg(struct rig *rig, uint64_t va)
{
	gn_vcpu_invlpg(rig->vcpu, gva(va));
}

/* ---- Begin and end --------------------------------------------------------------------------------------- */

static inline void rig_mode(struct gn_vcpu *vcpu, uint64_t cr3, uint64_t cr0, uint64_t cr4)
{
	bool gp;

	if (gn_vcpu_write_efer(vcpu, X86_EFER_LME | X86_EFER_NXE, &gp) || gp ||
	    gn_vcpu_write_cr4(vcpu, X86_CR4_PAE | (cr4 & ~X86_CR4_PCIDE), &gp) || gp ||
	    gn_vcpu_write_cr3(vcpu, cr3, &gp) || gp ||
	    gn_vcpu_write_cr0(vcpu, X86_CR0_PE | X86_CR0_PG | cr0, &gp) || gp)
		rig_die("mode");
	if ((cr4 & X86_CR4_PCIDE) && (gn_vcpu_write_cr4(vcpu, X86_CR4_PAE | cr4, &gp) || gp))
		rig_die("PCIDE");
}

/* The linear map under @root, by pages of @level (1 or 2). */
static inline void rig_linear(struct rig *rig, uint64_t root, unsigned level)
{
	uint64_t step = gn_level_bytes(level);

	for (uint64_t at = 0; at < rig->vm->config.mem_bytes; at += step)
		rig_map(rig, root, RIG_LINEAR + at, level,
			at | KERNEL_RW | X86_PTE_G | (level > 1 ? LARGE : 0));
}

static inline void rig_create(struct rig *rig, const struct gn_vm_config *config)
{
	static bool registered;
	struct gn_vm_config c = *config;

	memset(rig, 0, sizeof(*rig));
	if (!registered &&
	    (gn_scheme_register(&gn_scheme_shadow) || gn_scheme_register(&gn_scheme_shadow_vtlb) ||
	     gn_scheme_register(&gn_scheme_interp)))
		rig_die("register");
	registered = true;
	if (!c.scheme)
		c.scheme = "shadow";
	if (!c.mem_bytes)
		c.mem_bytes = (uint64_t)16 << 20;
	if (!c.vcpus)
		c.vcpus = 1;
	c.backend = &rig_backend;
	if (gn_vm_create(&c, &rig->vm))
		rig_die("create");
	for (unsigned i = 0; i < c.vcpus; i++) {
		pthread_mutex_init(&rig->tlb[i].lock, NULL);
		gn_vcpu_set_backend(gn_vm_vcpu(rig->vm, i), &rig->tlb[i]);
	}
	rig->vcpu = gn_vm_vcpu(rig->vm, 0);
	rig->next_table = RIG_TABLES;
	rig->root = rig_table(rig);
}

/* Paging on, CR0.WP and global pages on, linear map by 4 KiB. */
static inline void rig_start(struct rig *rig, const struct gn_vm_config *config)
{
	rig_create(rig, config);
	rig_linear(rig, rig->root, 1);
	rig_mode(rig->vcpu, rig->root, X86_CR0_WP, X86_CR4_PGE);
}

static inline void rig_end(struct rig *rig)
{
	gn_vm_destroy(rig->vm);
}

#endif
