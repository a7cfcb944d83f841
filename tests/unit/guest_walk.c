/* SPDX-License-Identifier: MIT */
/*
 * guest_walk.c - the guest's walk, case by named case: modes, each cause of #PF with its error code, A and D, memory
 * that is no memory, references by leaf level, and a walk that races with the guest's own stores. The rights
 * logic as a whole is held against a second reading of the manual in tests/model/guest_walk_model.c.
 */
#include <criterion/criterion.h>

#include <pthread.h>
#include <string.h>

#include <gnomon/x86.h>

#include "support/bare_vm.h"

#define RAM_BYTES ((uint64_t)1 << 20)
#define PHYS_BITS 40
#define FULL	  (X86_PTE_P | X86_PTE_W | X86_PTE_U | X86_PTE_A | X86_PTE_D)
#define VA	  ((uint64_t)0x00005a1122334567)
#define DATA	  ((uint64_t)0x40000000) /* 1 GiB aligned; need not be memory */

struct rig {
	struct gn_vm *vm;
	struct gn_regs regs;
	struct gn_paging paging;
	unsigned levels;
};

static void mode(struct rig *rig, uint64_t cr0, uint64_t cr4, uint64_t efer)
{
	rig->regs.cr0 = X86_CR0_PE | X86_CR0_PG | cr0;
	rig->regs.cr4 = X86_CR4_PAE | cr4;
	rig->regs.efer = X86_EFER_LME | X86_EFER_LMA | efer;
	gn_paging_derive(&rig->regs, PHYS_BITS, &rig->paging);
	rig->levels = rig->paging.levels;
	rig->regs.cr3 = (uint64_t)rig->levels << GN_PAGE_SHIFT;
}

static struct rig rig_new(void)
{
	struct rig rig = { .vm = NULL };

	cr_assert_eq(bare_vm_new(RAM_BYTES, PHYS_BITS, 0, &rig.vm), 0);
	cr_assert_eq(gn_p2m_populate(rig.vm, gfn(1), 5), 0);
	mode(&rig, X86_CR0_WP, 0, X86_EFER_NXE);
	return rig;
}

/* The entry for VA in the table of @level, which stands in gfn @level. */
static uint64_t *slot(struct rig *rig, unsigned level)
{
	unsigned index = VA >> gn_level_shift(level) & 511;

	return gn_p2m_pointer(rig->vm, gpa(((uint64_t)level << GN_PAGE_SHIFT) + index * 8));
}

static void map(struct rig *rig, unsigned leaf_level, uint64_t leaf_bits)
{
	for (unsigned level = rig->levels; level > leaf_level; level--)
		*slot(rig, level) = ((uint64_t)(level - 1) << GN_PAGE_SHIFT) | FULL;
	*slot(rig, leaf_level) = DATA | leaf_bits | (leaf_level > 1 ? X86_PTE_PS : 0);
}

static struct gn_access access_of(uint8_t kind, bool user)
{
	return (struct gn_access){ .va = gva(VA), .kind = kind, .size = 1, .user = user };
}

static struct gn_guest_walk walk(struct rig *rig, struct gn_access a, unsigned flags)
{
	struct gn_guest_walk w;

	memset(&w, 0xee, sizeof(w));
	gn_rcu_read_lock();
	gn_guest_walk(rig->vm, &rig->paging, rig->regs.cr3, &a, flags, &w);
	gn_rcu_read_unlock();
	return w;
}

Test(guest_walk, mode_is_derived_from_registers)
{
	struct gn_regs r = { .cr0 = X86_CR0_PE,
			     .cr4 = X86_CR4_PAE | X86_CR4_SMEP | X86_CR4_SMAP | X86_CR4_PKE |
				    X86_CR4_PGE,
			     .efer = X86_EFER_NXE,
			     .pkru = 5 };
	struct gn_paging p;

	gn_paging_derive(&r, 46, &p);
	cr_assert(!p.fmt && p.levels == 0 && !p.wp && !p.smep && !p.smap && !p.nxe && !p.pke);
	r.cr0 |= X86_CR0_PG | X86_CR0_WP;
	gn_paging_derive(&r, 46, &p);
	cr_assert(p.fmt == &gn_fmt_x86_4 && p.levels == 4 && p.phys_bits == 46);
	cr_assert(p.wp && p.smep && p.smap && p.nxe && p.pke && p.pge && !p.pcide && p.pkru == 5);
	cr_assert_eq(p.reserved, (uint64_t)0x3f << 46);
	r.cr4 = X86_CR4_PAE | X86_CR4_LA57 | X86_CR4_PCIDE;
	r.efer = 0;
	gn_paging_derive(&r, 52, &p);
	cr_assert(p.fmt == &gn_fmt_x86_5 && p.levels == 5);
	cr_assert(!p.smep && !p.smap && !p.nxe && !p.pke && !p.pge && p.pcide);
	cr_assert_eq(p.reserved, X86_PTE_NX);
}

Test(guest_walk, canonical_by_levels)
{
	static const struct {
		uint64_t va;
		bool four, five;
	} cases[] = { { 0, true, true },
		      { 0x00007fffffffffff, true, true },
		      { 0x0000800000000000, false, true },
		      { 0x00ffffffffffffff, false, true },
		      { 0x0100000000000000, false, false },
		      { 0xfeffffffffffffff, false, false },
		      { 0xff00000000000000, false, true },
		      { 0xffff7fffffffffff, false, true },
		      { 0xffff800000000000, true, true },
		      { ~(uint64_t)0, true, true } };
	struct rig rig = rig_new();
	struct gn_paging off = { .levels = 0 };

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		gva_t va = gva(cases[i].va);

		mode(&rig, 0, 0, 0);
		cr_assert_eq(gn_paging_is_canonical(&rig.paging, va), cases[i].four, "%#lx", va.v);
		mode(&rig, 0, X86_CR4_LA57, 0);
		cr_assert_eq(gn_paging_is_canonical(&rig.paging, va), cases[i].five, "%#lx", va.v);
		cr_assert(gn_paging_is_canonical(&off, va));
	}
	gn_vm_destroy(rig.vm);
}

Test(guest_walk, reserved_by_registers)
{
	struct rig rig = rig_new();

	for (unsigned nxe = 0; nxe <= 1; nxe++) {
		mode(&rig, 0, X86_CR4_LA57, nxe ? X86_EFER_NXE : 0);
		for (unsigned level = 1; level <= 5; level++) {
			cr_assert(!gn_paging_is_reserved(&rig.paging, level, FULL));
			cr_assert_eq(gn_paging_is_reserved(&rig.paging, level, FULL | X86_PTE_NX),
				     !nxe);
			cr_assert_eq(gn_paging_is_reserved(&rig.paging, level, FULL | X86_PTE_PS),
				     level >= 4);
			for (unsigned bit = 12; bit < 52; bit++)
				cr_assert_eq(gn_paging_is_reserved(&rig.paging, level,
								   FULL | (uint64_t)1 << bit),
					     bit >= PHYS_BITS, "level %u bit %u", level, bit);
		}
	}
	gn_vm_destroy(rig.vm);
}

Test(guest_walk, paging_off_is_identity)
{
	struct rig rig = rig_new();
	struct gn_guest_walk w;
	struct gn_access a = access_of(GN_WRITE, true);

	rig.regs.cr0 = X86_CR0_PE | X86_CR0_WP;
	rig.regs.cr4 = X86_CR4_SMEP | X86_CR4_SMAP | X86_CR4_PKE;
	gn_paging_derive(&rig.regs, PHYS_BITS, &rig.paging);
	for (unsigned i = 0; i < 12; i++) {
		a.kind = i % 3;
		a.user = i & 1;
		a.implicit = i & 2;
		w = walk(&rig, a, GN_GW_SET_AD);
		cr_assert(w.end == GN_GW_OK && w.t.gpa.v == VA && w.t.rights == GN_RWXU &&
			  w.refs == 0);
		cr_assert(w.t.level == GN_MAX_LEVELS && w.t.dirty && !w.t.global);
	}
	gn_vm_destroy(rig.vm);
}

Test(guest_walk, references_are_the_closed_form)
{
	struct rig rig = rig_new();

	for (unsigned five = 0; five <= 1; five++)
		for (unsigned leaf = 1; leaf <= 3; leaf++) {
			struct gn_guest_walk w;

			mode(&rig, 0, five ? X86_CR4_LA57 : 0, X86_EFER_NXE);
			map(&rig, leaf, FULL);
			w = walk(&rig, access_of(GN_READ, true), 0);
			cr_assert_eq(w.end, GN_GW_OK);
			cr_assert_eq(w.refs, rig.levels - leaf + 1);
			cr_assert_eq(w.t.level, leaf);
			cr_assert_eq(w.t.gpa.v, DATA | (VA & (gn_level_bytes(leaf) - 1)));
			for (unsigned level = rig.levels; level >= leaf; level--) {
				cr_assert_eq(w.table[level].v, level);
				cr_assert_eq(w.entry[level], *slot(&rig, level));
				cr_assert_eq(w.above[level], GN_RWXU);
			}
		}
	gn_vm_destroy(rig.vm);
}

/* Frames need not lie as their gfns do: every split of the tables between two
 * distances from their frames, in both forms of the walk. */
Test(guest_walk, tables_lie_anywhere)
{
	for (unsigned far = 0; far < 32; far++) {
		struct rig rig = { .vm = NULL };

		cr_assert_eq(bare_vm_new(RAM_BYTES, PHYS_BITS, 0, &rig.vm), 0);
		for (unsigned pass = 0; pass <= 1; pass++) {
			for (unsigned level = 1; level <= 5; level++)
				if ((far >> (level - 1) & 1) == pass)
					cr_assert_eq(gn_p2m_populate(rig.vm, gfn(level), 1), 0);
			cr_assert_eq(gn_p2m_populate(rig.vm, gfn(16), 7), 0); /* between them */
		}
		mode(&rig, X86_CR0_WP, X86_CR4_LA57, X86_EFER_NXE);
		map(&rig, 1, FULL);
		for (unsigned flags = 0; flags <= GN_GW_BRIEF; flags += GN_GW_BRIEF) {
			struct gn_guest_walk w = walk(&rig, access_of(GN_WRITE, true), flags);

			cr_assert_eq(w.end, GN_GW_OK, "far %#x, flags %u", far, flags);
			cr_assert_eq(w.t.gpa.v, DATA | (VA & 0xfff));
		}
		gn_vm_destroy(rig.vm);
	}
}

/* One line for each cause: what is set up, who asks, the code. */
struct pf_case {
	const char *name;
	uint64_t leaf; /* bits of the 4 KiB leaf */
	uint64_t cr0, cr4, efer;
	uint32_t pkru;
	uint8_t kind;
	bool user, implicit, ac;
	uint32_t code; /* 0: allowed */
};
#define P   X86_PTE_P
#define W   X86_PTE_W
#define U   X86_PTE_U
#define NX  X86_PTE_NX
#define KEY ((uint64_t)3 << X86_PTE_PKEY_SHIFT)
#define AD3 ((uint32_t)1 << 6)
#define WD3 ((uint32_t)2 << 6)
#define WP  X86_CR0_WP
#define NXE X86_EFER_NXE
static const struct pf_case pf_cases[] = {
	{ "user read not present", 0, 0, 0, NXE, 0, GN_READ, true, false, false, X86_PF_U },
	{ "kernel write not present", 0, 0, 0, NXE, 0, GN_WRITE, false, false, false, X86_PF_W },
	{ "fetch not present, NXE", 0, 0, 0, NXE, 0, GN_FETCH, true, false, false,
	  X86_PF_U | X86_PF_I },
	{ "fetch not present, no NXE", 0, 0, 0, 0, 0, GN_FETCH, true, false, false, X86_PF_U },
	{ "fetch not present, SMEP", 0, 0, X86_CR4_SMEP, 0, 0, GN_FETCH, false, false, false,
	  X86_PF_I },
	{ "user read of a kernel page", P | W, 0, 0, NXE, 0, GN_READ, true, false, false,
	  X86_PF_P | X86_PF_U },
	{ "user write to read-only", P | U, 0, 0, NXE, 0, GN_WRITE, true, false, false,
	  X86_PF_P | X86_PF_W | X86_PF_U },
	{ "kernel write to read-only, WP", P, WP, 0, NXE, 0, GN_WRITE, false, false, false,
	  X86_PF_P | X86_PF_W },
	{ "kernel write to read-only, no WP", P, 0, 0, NXE, 0, GN_WRITE, false, false, false, 0 },
	{ "kernel write to read-only user, no WP", P | U, 0, 0, NXE, 0, GN_WRITE, false, false,
	  false, 0 },
	{ "user fetch of NX", P | U | NX, 0, 0, NXE, 0, GN_FETCH, true, false, false,
	  X86_PF_P | X86_PF_U | X86_PF_I },
	{ "kernel fetch of NX", P | NX, 0, 0, NXE, 0, GN_FETCH, false, false, false,
	  X86_PF_P | X86_PF_I },
	{ "NX is reserved without NXE", P | U | NX, 0, 0, 0, 0, GN_READ, true, false, false,
	  X86_PF_P | X86_PF_U | X86_PF_RSVD },
	{ "a physical bit too many", P | U | (uint64_t)1 << PHYS_BITS, 0, 0, NXE, 0, GN_READ, false,
	  false, false, X86_PF_P | X86_PF_RSVD },
	{ "kernel fetch of user, SMEP", P | U, 0, X86_CR4_SMEP, 0, 0, GN_FETCH, false, false, false,
	  X86_PF_P | X86_PF_I },
	{ "kernel fetch of user, no SMEP", P | U, 0, 0, NXE, 0, GN_FETCH, false, false, false, 0 },
	{ "kernel read of user, SMAP", P | U, 0, X86_CR4_SMAP, NXE, 0, GN_READ, false, false, false,
	  X86_PF_P },
	{ "kernel read of user, SMAP, AC", P | U, 0, X86_CR4_SMAP, NXE, 0, GN_READ, false, false,
	  true, 0 },
	{ "implicit read of user, SMAP, AC", P | U, 0, X86_CR4_SMAP, NXE, 0, GN_READ, false, true,
	  true, X86_PF_P },
	{ "implicit read by user code", P | U, 0, X86_CR4_SMAP, NXE, 0, GN_READ, true, true, true,
	  X86_PF_P },
	{ "implicit read by user code of a kernel page", P, 0, X86_CR4_SMAP, NXE, 0, GN_READ, true,
	  true, false, 0 },
	{ "kernel write to read-only user, SMAP, AC, WP", P | U, WP, X86_CR4_SMAP, NXE, 0, GN_WRITE,
	  false, false, true, X86_PF_P | X86_PF_W },
	{ "key, access disabled", P | W | U | KEY, 0, X86_CR4_PKE, NXE, AD3, GN_READ, true, false,
	  false, X86_PF_P | X86_PF_U | X86_PF_PK },
	{ "key, access disabled, kernel", P | W | U | KEY, 0, X86_CR4_PKE, NXE, AD3, GN_READ, false,
	  false, false, X86_PF_P | X86_PF_PK },
	{ "key, but a kernel page", P | W | KEY, 0, X86_CR4_PKE, NXE, AD3, GN_READ, false, false,
	  false, 0 },
	{ "key, but a fetch", P | W | U | KEY, 0, X86_CR4_PKE, NXE, AD3, GN_FETCH, true, false,
	  false, 0 },
	{ "key, but no PKE", P | W | U | KEY, 0, 0, NXE, AD3, GN_READ, true, false, false, 0 },
	{ "another key", P | W | U, 0, X86_CR4_PKE, NXE, AD3 | WD3, GN_WRITE, true, false, false,
	  0 },
	{ "key, write disabled, read", P | W | U | KEY, 0, X86_CR4_PKE, NXE, WD3, GN_READ, true,
	  false, false, 0 },
	{ "key, write disabled, user", P | W | U | KEY, 0, X86_CR4_PKE, NXE, WD3, GN_WRITE, true,
	  false, false, X86_PF_P | X86_PF_W | X86_PF_U | X86_PF_PK },
	{ "key, write disabled, kernel, WP", P | W | U | KEY, WP, X86_CR4_PKE, NXE, WD3, GN_WRITE,
	  false, false, false, X86_PF_P | X86_PF_W | X86_PF_PK },
	{ "key, write disabled, kernel, no WP", P | W | U | KEY, 0, X86_CR4_PKE, NXE, WD3, GN_WRITE,
	  false, false, false, 0 },
	{ "key and rights both deny", P | U | KEY, 0, X86_CR4_PKE, NXE, WD3, GN_WRITE, true, false,
	  false, X86_PF_P | X86_PF_W | X86_PF_U | X86_PF_PK },
};

Test(guest_walk, error_codes)
{
	struct rig rig = rig_new();

	for (unsigned five = 0; five <= 1; five++)
		for (unsigned i = 0; i < sizeof(pf_cases) / sizeof(pf_cases[0]); i++) {
			const struct pf_case *c = &pf_cases[i];
			struct gn_access a = access_of(c->kind, c->user);
			struct gn_guest_walk w;
			uint64_t leaf = c->leaf & P ? DATA | c->leaf : c->leaf;

			a.implicit = c->implicit;
			a.ac = c->ac;
			rig.regs.pkru = c->pkru;
			mode(&rig, c->cr0, c->cr4 | (five ? X86_CR4_LA57 : 0), c->efer);
			map(&rig, 1, FULL);
			*slot(&rig, 1) = leaf;
			w = walk(&rig, a, GN_GW_SET_AD);
			cr_assert_eq(w.end, c->code || !(c->leaf & P) ? GN_GW_PF : GN_GW_OK,
				     "%s: end %d", c->name, (int)w.end);
			cr_assert_eq(w.error_code, c->code, "%s: %#x", c->name, w.error_code);
			/* A denied access leaves no trace. */
			if (w.end == GN_GW_PF)
				cr_assert_eq(*slot(&rig, 1), leaf, "%s", c->name);
		}
	gn_vm_destroy(rig.vm);
}

/* What ends the walk is the first thing on the way down. */
Test(guest_walk, upper_levels_come_first)
{
	struct rig rig = rig_new();

	for (unsigned five = 0; five <= 1; five++) {
		mode(&rig, WP, five ? X86_CR4_LA57 : 0, NXE);
		for (unsigned level = 2; level <= rig.levels; level++) {
			struct gn_guest_walk w;

			map(&rig, 1, 0);
			*slot(&rig, level) |= (uint64_t)1 << PHYS_BITS;
			w = walk(&rig, access_of(GN_READ, false), GN_GW_SET_AD);
			cr_assert(w.end == GN_GW_PF && w.error_code == (X86_PF_P | X86_PF_RSVD) &&
				  w.t.level == level);
			cr_assert_eq(w.refs, rig.levels - level + 1);
			*slot(&rig, level) &= ~P; /* not present comes before reserved */
			w = walk(&rig, access_of(GN_READ, false), GN_GW_SET_AD);
			cr_assert(w.end == GN_GW_PF && w.error_code == 0 && w.t.level == level);
			if (level >= 4) {
				map(&rig, 1, FULL);
				*slot(&rig, level) |= X86_PTE_PS;
				w = walk(&rig, access_of(GN_READ, false), 0);
				cr_assert(w.end == GN_GW_PF &&
					  w.error_code == (X86_PF_P | X86_PF_RSVD));
			}
			/* A right missing above is missing. */
			map(&rig, 1, FULL);
			*slot(&rig, level) &= ~W;
			w = walk(&rig, access_of(GN_WRITE, true), GN_GW_SET_AD);
			cr_assert(w.end == GN_GW_PF &&
				  w.error_code == (X86_PF_P | X86_PF_W | X86_PF_U));
			cr_assert_eq(w.t.rights, GN_RWXU & ~GN_W);
			cr_assert_eq(w.above[1], GN_RWXU & ~GN_W);
		}
	}
	gn_vm_destroy(rig.vm);
}

Test(guest_walk, accessed_and_dirty)
{
	struct rig rig = rig_new();
	const uint64_t clean = P | W | U;

	for (unsigned leaf = 1; leaf <= 3; leaf++)
		for (unsigned kind = GN_READ; kind <= GN_FETCH; kind++) {
			struct gn_guest_walk w;

			map(&rig, leaf, clean);
			for (unsigned level = rig.levels; level > leaf; level--)
				*slot(&rig, level) &= ~(X86_PTE_A | X86_PTE_D);
			w = walk(&rig, access_of((uint8_t)kind, true), 0);
			cr_assert(w.end == GN_GW_OK && !w.t.dirty &&
				  !(*slot(&rig, leaf) & X86_PTE_A));
			w = walk(&rig, access_of((uint8_t)kind, true), GN_GW_SET_AD);
			cr_assert_eq(w.end, GN_GW_OK);
			cr_assert_eq(w.t.dirty, kind == GN_WRITE);
			for (unsigned level = rig.levels; level >= leaf; level--) {
				uint64_t e = *slot(&rig, level);

				cr_assert(e & X86_PTE_A);
				cr_assert_eq(!!(e & X86_PTE_D), kind == GN_WRITE && level == leaf);
				cr_assert_eq(w.entry[level], e);
			}
			/* And once they stand, a read leaves them alone. */
			w = walk(&rig, access_of(GN_READ, true), GN_GW_SET_AD);
			cr_assert_eq(w.t.dirty, kind == GN_WRITE);
		}
	gn_vm_destroy(rig.vm);
}

Test(guest_walk, tables_that_are_no_plain_memory)
{
	struct rig rig = rig_new();
	struct gn_guest_walk w;
	uint64_t entry_offset = (VA >> 12 & 511) * 8, level1 = 2;

	/* Unbacked: reads as zeros, and nobody gave it a frame. */
	map(&rig, 2, FULL);
	*slot(&rig, 2) = 9 << 12 | FULL;
	w = walk(&rig, access_of(GN_WRITE, true), GN_GW_SET_AD);
	cr_assert(w.end == GN_GW_PF && w.error_code == (X86_PF_W | X86_PF_U) && w.t.level == 1 &&
		  w.refs == 4);
	cr_assert_eq(gn_p2m_word_state(gn_p2m_get(&rig.vm->p2m, gfn(9))), GN_P2M_UNBACKED);

	/* MMIO, ballooned, beyond RAM: the caller's problem, and it learns which entry. */
	cr_assert_eq(gn_p2m_set_mmio(rig.vm, gfn(10), 1), 0);
	cr_assert_eq(gn_p2m_balloon(rig.vm, gfn(11), 1), 0);
	for (uint64_t table = 10; table < 13; table++) {
		uint64_t at = table == 12 ? RAM_BYTES >> 12 : table;

		*slot(&rig, level1) = at << 12 | FULL;
		w = walk(&rig, access_of(GN_READ, true), 0);
		cr_assert(w.end == GN_GW_NO_TABLE && w.t.level == 1 &&
			  w.gpa.v == (at << 12) + entry_offset);
	}
	rig.regs.cr3 = RAM_BYTES;
	w = walk(&rig, access_of(GN_READ, true), 0);
	cr_assert(w.end == GN_GW_NO_TABLE && w.t.level == 4 &&
		  w.gpa.v == RAM_BYTES + (VA >> 39 & 511) * 8);

	/* Read-only: fine until A must be set. */
	mode(&rig, WP, 0, NXE);
	map(&rig, 1, P | W | U);
	cr_assert_eq(gn_p2m_protect(rig.vm, gfn(1), 1, true), 0);
	w = walk(&rig, access_of(GN_READ, true), 0);
	cr_assert_eq(w.end, GN_GW_OK);
	w = walk(&rig, access_of(GN_READ, true), GN_GW_SET_AD);
	cr_assert(w.end == GN_GW_NO_TABLE && w.t.level == 1 && w.gpa.v == 0x1000 + entry_offset);
	cr_assert_eq(*slot(&rig, 1) & X86_PTE_A, 0);
	cr_assert_eq(gn_p2m_protect(rig.vm, gfn(1), 1, false), 0);
	w = walk(&rig, access_of(GN_READ, true), GN_GW_SET_AD);
	cr_assert(w.end == GN_GW_OK && (*slot(&rig, 1) & X86_PTE_A));
	gn_vm_destroy(rig.vm);
}

/* A shared table is copied by the caller's resolve; its twin never sees the bit. */
Test(guest_walk, a_shared_table_is_not_written)
{
	struct rig rig = rig_new();
	struct gn_guest_walk w;
	struct gn_fix fix;
	p2m_word_t word;
	uint64_t *twin;

	map(&rig, 1, P | W | U);
	cr_assert_eq(gn_p2m_populate(rig.vm, gfn(20), 1), 0);
	memcpy(gn_p2m_pointer(rig.vm, gfn_to_gpa(gfn(20))),
	       gn_p2m_pointer(rig.vm, gfn_to_gpa(gfn(1))), GN_PAGE_SIZE);
	cr_assert_eq(gn_p2m_share(rig.vm, gfn(1), gfn(20)), 0);
	w = walk(&rig, access_of(GN_WRITE, true), GN_GW_SET_AD);
	cr_assert_eq(w.end, GN_GW_NO_TABLE);
	cr_assert_eq(gn_p2m_resolve(rig.vm, gpa_to_gfn(w.gpa), true, &word, &fix), 0);
	cr_assert_eq(fix.kind, GN_FIX_RETRY);
	w = walk(&rig, access_of(GN_WRITE, true), GN_GW_SET_AD);
	cr_assert_eq(w.end, GN_GW_OK);
	cr_assert(*slot(&rig, 1) & X86_PTE_D);
	twin = gn_p2m_pointer(rig.vm, gpa(20 * GN_PAGE_SIZE + (VA >> 12 & 511) * 8));
	cr_assert_eq(*twin & (X86_PTE_A | X86_PTE_D), 0);
	gn_vm_destroy(rig.vm);
}

Test(guest_walk, setting_bits_dirties_the_table)
{
	struct rig rig = rig_new();
	uint8_t bitmap[1];

	map(&rig, 1, P | W | U);
	cr_assert_eq(gn_dirty_start(rig.vm), 0);
	walk(&rig, access_of(GN_READ, true), 0);
	cr_assert_eq(gn_dirty_harvest(rig.vm, gfn(0), 8, bitmap), 0);
	cr_assert_eq(bitmap[0], 0);
	walk(&rig, access_of(GN_READ, true), GN_GW_SET_AD);
	cr_assert_eq(gn_dirty_harvest(rig.vm, gfn(0), 8, bitmap), 0);
	cr_assert_eq(bitmap[0], 1 << 1); /* the leaf's table; the others had A */
	walk(&rig, access_of(GN_READ, true), GN_GW_SET_AD);
	cr_assert_eq(gn_dirty_harvest(rig.vm, gfn(0), 8, bitmap), 0);
	cr_assert_eq(bitmap[0], 0);
	/* It is marked before it is known whether it may be written. */
	*slot(&rig, 1) &= ~(uint64_t)X86_PTE_A;
	cr_assert_eq(gn_p2m_protect(rig.vm, gfn(1), 1, true), 0);
	cr_assert_eq(walk(&rig, access_of(GN_READ, true), GN_GW_SET_AD).end, GN_GW_NO_TABLE);
	cr_assert_eq(gn_dirty_harvest(rig.vm, gfn(0), 8, bitmap), 0);
	cr_assert_eq(bitmap[0], 1 << 1);
	gn_dirty_stop(rig.vm);
	gn_vm_destroy(rig.vm);
}

struct racer {
	uint64_t *slot;
	_Atomic(bool) stop;
	_Atomic(uint64_t) rounds, seen_dirty, lost;
};

/* A guest that takes A and D away, again and again, as a page scanner does, and each time takes and sets a bit of
 * its own: if that is not where it was left, a store was overwritten. */
#define OWN_BIT ((uint64_t)1 << 9)
static void *race(void *ctx)
{
	struct racer *r = ctx;

	while (!atomic_load_explicit(&r->stop, memory_order_relaxed)) {
		uint64_t old = __atomic_exchange_n(r->slot, DATA | P | W | U, __ATOMIC_ACQ_REL);

		if (!(old & OWN_BIT))
			atomic_fetch_add_explicit(&r->lost, 1, memory_order_relaxed);
		if (old & X86_PTE_D)
			atomic_fetch_add_explicit(&r->seen_dirty, 1, memory_order_relaxed);
		__atomic_fetch_or(r->slot, OWN_BIT, __ATOMIC_ACQ_REL);
		atomic_fetch_add_explicit(&r->rounds, 1, memory_order_release);
	}
	return NULL;
}

/* The walk runs until both have met often. */
Test(guest_walk, no_store_of_the_guest_is_lost)
{
	struct rig rig = rig_new();
	struct racer racer = { .slot = NULL };
	pthread_t thread;

	map(&rig, 1, P | W | U | OWN_BIT);
	racer.slot = slot(&rig, 1);
	cr_assert_eq(pthread_create(&thread, NULL, race, &racer), 0);
	while (atomic_load(&racer.rounds) < 100000 || atomic_load(&racer.seen_dirty) < 1000) {
		struct gn_guest_walk w = walk(&rig, access_of(GN_WRITE, true), GN_GW_SET_AD);

		cr_assert(w.end == GN_GW_OK && w.t.dirty && w.t.gpa.v == (DATA | (VA & 0xfff)));
		cr_assert_eq(w.entry[1] & ~OWN_BIT, DATA | FULL);
	}
	atomic_store(&racer.stop, true);
	pthread_join(thread, NULL);
	cr_assert_eq(racer.lost, 0, "%lu stores of the guest were overwritten", racer.lost);
	gn_vm_destroy(rig.vm);
}
