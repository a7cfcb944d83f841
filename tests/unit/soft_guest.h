/* SPDX-License-Identifier: MIT */
/*
 * soft_guest.h - a guest for tests of the software machine: page tables written from outside, by hand.
 *
 * Tables come from the top of guest RAM downwards; the rest is the test's own.
 */
#ifndef GN_TESTS_SOFT_GUEST_H
#define GN_TESTS_SOFT_GUEST_H

#include <stdlib.h>
#include <string.h>

#include <gnomon/schemes.h>
#include <gnomon/soft.h>
#include <gnomon/x86.h>

struct guest {
	struct gn_soft *soft;
	struct gn_soft_cpu *cpu;
	struct gn_vm *vm;
	unsigned levels;
	uint64_t cr3, next_table; /* GPAs */
};

#define GUEST_RW (X86_PTE_P | X86_PTE_W | X86_PTE_U | X86_PTE_A | X86_PTE_D)

static inline void guest_need(int err)
{
	if (err)
		abort();
}

static inline uint64_t guest_read_entry(struct guest *g, uint64_t at)
{
	uint64_t entry;

	guest_need(gn_vm_read(g->vm, gpa(at), &entry, sizeof(entry)));
	return entry;
}

static inline void guest_write_entry(struct guest *g, uint64_t at, uint64_t entry)
{
	guest_need(gn_vm_write(g->vm, gpa(at), &entry, sizeof(entry)));
}

static inline uint64_t guest_new_table(struct guest *g)
{
	uint64_t at = g->next_table;

	guest_need(gn_p2m_populate(g->vm, gfn(at >> GN_PAGE_SHIFT), 1));
	g->next_table -= GN_PAGE_SIZE;
	return at;
}

/* GPA of the entry of @level for @va, with tables made on the way. */
static inline uint64_t guest_entry_at(struct guest *g, uint64_t cr3, uint64_t va, unsigned level)
{
	uint64_t table = cr3;

	for (unsigned n = g->levels;; n--) {
		uint64_t at = table + ((va >> gn_level_shift(n)) & 511) * 8, entry;

		if (n == level)
			return at;
		entry = guest_read_entry(g, at);
		if (!(entry & X86_PTE_P)) {
			entry = guest_new_table(g) | X86_PTE_P | X86_PTE_W | X86_PTE_U | X86_PTE_A;
			guest_write_entry(g, at, entry);
		}
		table = entry & X86_PTE_ADDR;
	}
}

static inline void guest_map(struct guest *g, uint64_t va, uint64_t at, unsigned level,
			     uint64_t flags)
{
	guest_write_entry(g, guest_entry_at(g, g->cr3, va, level),
			  at | flags | (level > 1 ? X86_PTE_PS : 0));
}

/* Paging on, with @cr4 and CR0.WP, NXE. */
static inline void guest_start(struct guest *g, uint64_t cr4)
{
	cr4 |= X86_CR4_PAE | (g->levels == 5 ? X86_CR4_LA57 : 0);
	gn_soft_write_efer(g->cpu, X86_EFER_LME | X86_EFER_NXE);
	gn_soft_write_cr4(g->cpu, cr4 & ~X86_CR4_PCIDE);
	gn_soft_write_cr3(g->cpu, g->cr3);
	gn_soft_write_cr0(g->cpu, X86_CR0_PE | X86_CR0_PG | X86_CR0_WP);
	if (cr4 & X86_CR4_PCIDE)
		gn_soft_write_cr4(g->cpu, cr4);
}

static inline void guest_create(struct guest *g, const struct gn_soft_config *config,
				unsigned levels)
{
	static bool registered;

	if (!registered)
		guest_need(gn_schemes_register_all());
	registered = true;
	memset(g, 0, sizeof(*g));
	guest_need(gn_soft_create(config, &g->soft));
	g->vm = gn_soft_vm(g->soft);
	g->cpu = gn_soft_cpu(g->soft, 0);
	g->levels = levels;
	g->next_table = config->vm.mem_bytes - GN_PAGE_SIZE;
	g->cr3 = guest_new_table(g);
}

static inline void guest_destroy(struct guest *g)
{
	gn_soft_destroy(g->soft);
}

static inline struct gn_counters guest_counters(struct guest *g)
{
	struct gn_counters c;

	gn_soft_counters(g->soft, &c);
	return c;
}

static inline uint64_t guest_random(uint64_t *state)
{
	uint64_t x = *state;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	*state = x;
	return x * 0x2545f4914f6cdd1d;
}

#endif
