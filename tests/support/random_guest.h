/* SPDX-License-Identifier: MIT */
/*
 * random_guest.h - a guest made of random page tables, biased so that walks often succeed and tables are
 * shared, nested in each other, and aimed at themselves.
 *
 * Guest RAM is small. Its first gfns are the table pages, a few per level; the rest is data. Only a handful of
 * indexes of a table are ever used, so that random addresses meet.
 */
#ifndef GN_TESTS_RANDOM_GUEST_H
#define GN_TESTS_RANDOM_GUEST_H

#include <gnomon/soft.h>
#include <gnomon/x86.h>

#include "cases.h"

#define RG_RAM_BYTES	((uint64_t)16 << 20)
#define RG_RAM_GFNS	(RG_RAM_BYTES >> GN_PAGE_SHIFT)
#define RG_FIRST_TABLE	1
#define RG_TABLES	24
#define RG_PHYS_BITS	40
#define RG_READONLY_GFN 600 /* [600, 608) is ROM, where the test asks for it */

/* Table pages [first, first + count) of each level. */
static const struct {
	uint8_t first, count;
} rg_level[GN_MAX_LEVELS + 1] = { { 0, 0 }, { 1, 10 }, { 11, 6 }, { 17, 3 }, { 20, 3 }, { 23, 2 } };

static const uint16_t rg_index[] = { 0, 1, 2, 3, 255, 256, 510, 511 };
#define RG_INDEXES (sizeof(rg_index) / sizeof(rg_index[0]))

/* A deprivileged machine under @scheme, made as a backend of such hardware does: a slot of each root is its own. No
 * address of this guest leads there. *@table: to be given back before the end. */
#define RG_RESERVED_INDEX 480
static inline int rg_deprivileged(struct gn_soft_config *config, struct gn_soft **out, hpa_t *table)
{
	const char *scheme = config->vm.scheme;
	struct gn_root_slot slot = { .index = RG_RESERVED_INDEX };
	int err;

	config->deprivileged = true;
	config->vm.scheme = "interp";
	err = gn_soft_create(config, out);
	config->vm.scheme = scheme;
	if (err)
		return err;
	err = gn_vm_pool_alloc(gn_soft_vm(*out), table);
	slot.entry4 = slot.entry5 = table->v | X86_PTE_P | X86_PTE_W;
	if (!err)
		err = gn_vm_set_root_slot(gn_soft_vm(*out), &slot);
	return err ? err : gn_vm_switch_scheme(gn_soft_vm(*out), scheme);
}

static inline unsigned rg_random_index(struct test_random *r)
{
	return rg_index[test_random_below(r, RG_INDEXES)];
}

static inline uint64_t rg_random_table(struct test_random *r, unsigned level)
{
	return rg_level[level].first + test_random_below(r, rg_level[level].count);
}

/* A random entry for a table of @level. */
static inline uint64_t rg_random_entry(struct test_random *r, unsigned level)
{
	uint64_t e = 0, frame;
	bool leaf = level == 1 || (level == 2 && test_random_once(r, 3)) ||
		    (level == 3 && test_random_once(r, 6)) || test_random_once(r, 200);

	if (!test_random_once(r, 48))
		e |= X86_PTE_P;
	if (!test_random_once(r, 8))
		e |= X86_PTE_W;
	if (!test_random_once(r, 8))
		e |= X86_PTE_U;
	if (test_random_once(r, 2))
		e |= X86_PTE_A;
	if (test_random_once(r, 2))
		e |= X86_PTE_D;
	if (test_random_once(r, 4))
		e |= X86_PTE_G;
	if (test_random_once(r, 20))
		e |= X86_PTE_NX;
	if (test_random_once(r, 3))
		e |= test_random_below(r, 16) << X86_PTE_PKEY_SHIFT;
	if (leaf && level > 1)
		e |= X86_PTE_PS;
	if (!leaf)
		frame = rg_random_table(r, test_random_once(r, 64) ? 1 + test_random_below(r, 5)
								   : level - 1);
	else if (test_random_once(r, 10))
		frame = RG_FIRST_TABLE + test_random_below(r, RG_TABLES);
	else if (test_random_once(r, 40))
		frame = RG_RAM_GFNS + test_random_below(r, 4096);
	else
		frame = 32 + test_random_below(r, RG_RAM_GFNS - 32);
	if (leaf)
		frame &= ~(gn_level_pages(level < 4 ? level : 1) - 1);
	e |= frame << GN_PAGE_SHIFT;
	if (test_random_once(r, 128)) /* reserved: above MAXPHYADDR, or low bits of a large leaf */
		e |= (uint64_t)1 << (test_random_once(r, 2) ? RG_PHYS_BITS + test_random_below(r, 8)
							    : 13 + test_random_below(r, 7));
	return e;
}

static inline uint64_t rg_random_address(struct test_random *r, unsigned levels)
{
	uint64_t va = test_random_below(r, GN_PAGE_SIZE) & ~(uint64_t)7;
	unsigned top = GN_PAGE_SHIFT + GN_INDEX_BITS * levels;

	for (unsigned level = 1; level <= levels; level++)
		va |= (uint64_t)rg_random_index(r) << gn_level_shift(level);
	if (va >> (top - 1))
		va |= ~(uint64_t)0 << top;
	if (test_random_once(r, 100)) /* not canonical */
		va ^= (uint64_t)1 << 62;
	return va;
}

/* Registers of a random paging mode. PCIDE is left to the caller. */
static inline void rg_random_mode(struct test_random *r, struct gn_regs *regs)
{
	bool five = test_random_once(r, 3);

	*regs = (struct gn_regs){ .cr0 = X86_CR0_PE | X86_CR0_PG,
				  .cr4 = X86_CR4_PAE,
				  .efer = X86_EFER_LME,
				  .pkru = (uint32_t)test_random_next(r) };
	regs->cr0 |= test_random_once(r, 3) ? 0 : X86_CR0_WP;
	regs->cr4 |= five ? X86_CR4_LA57 : 0;
	regs->cr4 |= test_random_once(r, 2) ? X86_CR4_SMEP : 0;
	regs->cr4 |= test_random_once(r, 2) ? X86_CR4_SMAP : 0;
	regs->cr4 |= test_random_once(r, 2) ? X86_CR4_PKE : 0;
	regs->cr4 |= test_random_once(r, 3) ? 0 : X86_CR4_PGE;
	regs->efer |= test_random_once(r, 8) ? 0 : X86_EFER_NXE;
	regs->cr3 = rg_random_table(r, five ? 5 : 4) << GN_PAGE_SHIFT;
	if (test_random_once(r, 4))
		regs->pkru = 0;
}

/* Put @cpu into @regs through paging off, as software must. */
static inline void rg_enter_mode(struct gn_soft_cpu *cpu, const struct gn_regs *now,
				 const struct gn_regs *regs, bool pcide)
{
	gn_soft_write_cr4(cpu, now->cr4 & ~X86_CR4_PCIDE);
	gn_soft_write_cr0(cpu, X86_CR0_PE);
	gn_soft_write_efer(cpu, regs->efer);
	gn_soft_write_cr4(cpu, regs->cr4);
	gn_soft_write_cr3(cpu, regs->cr3);
	gn_soft_write_cr0(cpu, regs->cr0);
	gn_soft_write_pkru(cpu, regs->pkru);
	if (pcide)
		gn_soft_write_cr4(cpu, regs->cr4 | X86_CR4_PCIDE);
}

static inline void rg_random_access(struct test_random *r, unsigned levels, struct gn_access *a)
{
	*a = (struct gn_access){ .va = gva(rg_random_address(r, levels)),
				 .kind = (uint8_t)test_random_below(r, 3),
				 .size = 8,
				 .user = test_random_once(r, 2),
				 .ac = test_random_once(r, 3) };
	a->implicit = !a->user && a->kind != GN_FETCH && test_random_once(r, 6);
}

#endif
