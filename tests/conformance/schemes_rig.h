/* SPDX-License-Identifier: MIT */
/*
 * schemes_rig.h - a guest on the software machine whose every access is held against the oracle.
 *
 * A scenario is guest code: it edits its page tables by its own stores (through a window that maps all of RAM, so
 * a scheme that protects tables sees them), invalidates as an operating system would, and touches
 * memory. access() asks gn_guest_walk() and the p2m what must happen, lets the machine do it under the
 * scheme, compares (outcome, vector, error code, gpa, frame, datum, A and D), and audits.
 *
 * A failure is noted and the scenario goes on; the test asserts afterwards, outside of the machine.
 */
#ifndef GN_TESTS_SCHEMES_RIG_H
#define GN_TESTS_SCHEMES_RIG_H

#include <criterion/criterion.h>

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <gnomon/schemes.h>
#include <gnomon/soft.h>
#include <gnomon/x86.h>

#include "mmu/vm.h"

#define RAM_BYTES   ((uint64_t)16 << 20)
#define RAM_GFNS    (RAM_BYTES >> GN_PAGE_SHIFT)
#define FIRST_TABLE 16				   /* guest tables are taken from here up */
#define DATA	    512				   /* and data from here */
#define WINDOW	    ((uint64_t)0xffff800000000000) /* all of RAM, for the kernel */
#define USER	    ((uint64_t)0x400000000)

#define RW_U (X86_PTE_P | X86_PTE_W | X86_PTE_U)

struct setup {
	const char *label;
	unsigned backing_level, max_leaf_level, nested_levels;
	unsigned guest_levels, window_level;
};
static const struct setup setups[] = {
	{ "4 KiB frames", 1, 3, 4, 4, 2 },
	{ "2 MiB frames, five levels", 2, 3, 5, 5, 2 },
	{ "2 MiB frames, small leaves and window", 2, 1, 4, 4, 1 },
};
#define SETUPS (sizeof(setups) / sizeof(setups[0]))

struct rig {
	const struct setup *setup;
	const char *scheme;
	struct gn_soft *soft;
	struct gn_soft_cpu *cpu;
	struct gn_vm *vm;
	uint64_t root, next_table; /* gfns */
	uint64_t accesses;
	bool seldom; /* audit one access in 64 */
	bool grants; /* a touch of a ballooned page fills it */
	char failure[512];
	void (*run)(struct rig *rig);
};

__attribute__((format(printf, 2, 3))) static inline void fail(struct rig *rig, const char *format,
							      ...)
{
	va_list args;

	if (rig->failure[0])
		return;
	va_start(args, format);
	vsnprintf(rig->failure, sizeof(rig->failure), format, args);
	va_end(args);
}
#define EXPECT(rig, cond)                                                                          \
	do {                                                                                       \
		if (!(cond))                                                                       \
			fail(rig, "line %d: %s", __LINE__, #cond);                                 \
	} while (0)

static inline void audit(struct rig *rig)
{
	struct gn_audit_report report;

	if (gn_audit(rig->vm, &report))
		fail(rig, "access %lu: audit: %s", (unsigned long)rig->accesses, report.first);
}

static inline struct gn_vcpu *vcpu_of(struct rig *rig)
{
	return gn_vm_vcpu(rig->vm, 0);
}

static inline void oracle(struct rig *rig, const struct gn_access *a, struct gn_guest_walk *walk)
{
	gn_rcu_read_lock();
	gn_guest_walk(rig->vm, &vcpu_of(rig)->paging, gn_vcpu_regs(vcpu_of(rig))->cr3, a, 0, walk);
	gn_rcu_read_unlock();
}

static inline uint64_t peek(struct rig *rig, uint64_t at)
{
	uint64_t value = 0;

	if (at < RAM_BYTES && gn_vm_read(rig->vm, gpa(at), &value, 8))
		fail(rig, "gn_vm_read(%#lx)", (unsigned long)at);
	return value;
}

static inline bool is_rom(struct rig *rig, gpa_t at)
{
	return gn_p2m_word_state(gn_p2m_get(&rig->vm->p2m, gpa_to_gfn(at))) == GN_P2M_READONLY;
}

/* What the p2m makes of an access that the guest's tables allow. */
enum memory { MEMORY, DENIED, DEVICE };
static inline enum memory memory_at(struct rig *rig, gpa_t at, bool write)
{
	p2m_word_t word = gn_p2m_get(&rig->vm->p2m, gpa_to_gfn(at));

	switch (gn_p2m_word_state(word)) {
	case GN_P2M_MMIO:
		return DEVICE;
	case GN_P2M_BALLOONED:
		return rig->grants ? MEMORY : DENIED;
	case GN_P2M_READONLY:
		return write ? DENIED : MEMORY;
	default:
		return MEMORY;
	}
}

/* A guest that walks a table or touches a page that is not there is stopped; a device answers, and
 * a store to ROM is dropped. */
static inline int expected_error(struct rig *rig, const struct gn_access *a,
				 const struct gn_guest_walk *want, enum memory memory)
{
	if (want->end == GN_GW_NO_TABLE)
		return -ECANCELED;
	if (want->end != GN_GW_OK || memory != DENIED)
		return 0;
	return a->kind == GN_WRITE && is_rom(rig, want->t.gpa) ? 0 : -ECANCELED;
}

static inline void compare_fault(struct rig *rig, const struct gn_access *a,
				 const struct gn_guest_walk *want,
				 const struct gn_soft_outcome *have)
{
	unsigned vector = want->end == GN_GW_GP ? X86_VEC_GP : X86_VEC_PF;

	if (have->vector != vector)
		fail(rig, "va %#lx: vector %u, must be %u", (unsigned long)a->va.v, have->vector,
		     vector);
	else if (vector == X86_VEC_PF && have->error_code != want->error_code)
		fail(rig, "va %#lx kind %u user %u: error code %#x, must be %#x",
		     (unsigned long)a->va.v, a->kind, a->user, have->error_code, want->error_code);
	else if (vector == X86_VEC_PF && have->cr2.v != a->va.v)
		fail(rig, "va %#lx: CR2 %#lx", (unsigned long)a->va.v, (unsigned long)have->cr2.v);
}

/* A and D as the architecture sets them for an access that is allowed. */
static inline void compare_marks(struct rig *rig, const struct gn_access *a,
				 const struct gn_guest_walk *before)
{
	struct gn_guest_walk after;

	oracle(rig, a, &after);
	for (unsigned level = vcpu_of(rig)->paging.levels; level >= 1 && level >= after.t.level;
	     level--)
		if (!(after.entry[level] & X86_PTE_A))
			fail(rig, "va %#lx: A is not set at level %u", (unsigned long)a->va.v,
			     level);
	if (vcpu_of(rig)->paging.levels &&
	    after.t.dirty != (before->t.dirty || a->kind == GN_WRITE))
		fail(rig, "va %#lx kind %u: D is %u", (unsigned long)a->va.v, a->kind,
		     after.t.dirty);
}

static inline void compare_success(struct rig *rig, const struct gn_access *a,
				   const struct gn_guest_walk *want,
				   const struct gn_soft_outcome *have, uint64_t value,
				   uint64_t expected)
{
	p2m_word_t word = gn_p2m_get(&rig->vm->p2m, gpa_to_gfn(want->t.gpa));

	if (have->gpa.v != want->t.gpa.v)
		fail(rig, "va %#lx: gpa %#lx, must be %#lx", (unsigned long)a->va.v,
		     (unsigned long)have->gpa.v, (unsigned long)want->t.gpa.v);
	else if (hpa_to_pfn(have->hpa).v != gn_p2m_word_pfn(word).v &&
		 !(a->kind == GN_WRITE && have->hpa.v == 0)) /* emulated: the VMM stored */
		fail(rig, "va %#lx: frame %#lx, the p2m says %#lx", (unsigned long)a->va.v,
		     (unsigned long)hpa_to_pfn(have->hpa).v,
		     (unsigned long)gn_p2m_word_pfn(word).v);
	else if (value != expected)
		fail(rig, "va %#lx: datum %#lx, must be %#lx", (unsigned long)a->va.v,
		     (unsigned long)value, (unsigned long)expected);
}

static inline uint64_t truncated(uint64_t value, unsigned bytes)
{
	return bytes == 8 ? value : value & (((uint64_t)1 << (8 * bytes)) - 1);
}

/* One access, all of it checked. Returns what was read. */
static inline uint64_t access_full(struct rig *rig, struct gn_access a, uint64_t value)
{
	struct gn_guest_walk want;
	struct gn_soft_outcome have;
	enum memory memory = MEMORY;
	int err;

	oracle(rig, &a, &want);
	if (want.end == GN_GW_OK)
		memory = memory_at(rig, want.t.gpa, a.kind == GN_WRITE);
	err = gn_soft_probe(rig->cpu, &a, &value, &have);
	rig->accesses++;
	if (err != expected_error(rig, &a, &want, memory))
		fail(rig, "va %#lx: the access returned %d, must be %d", (unsigned long)a.va.v, err,
		     expected_error(rig, &a, &want, memory));
	else if (want.end == GN_GW_NO_TABLE || memory != MEMORY)
		; /* answered by the backend's policy; the guest's tables have no say */
	else if (have.faulted != (want.end != GN_GW_OK))
		fail(rig,
		     "va %#lx kind %u user %u ac %u: faulted %u (vector %u, code %#x), must be %u",
		     (unsigned long)a.va.v, a.kind, a.user, a.ac, have.faulted, have.vector,
		     have.error_code, want.end != GN_GW_OK);
	else if (have.faulted)
		compare_fault(rig, &a, &want, &have);
	else {
		uint64_t now = truncated(peek(rig, want.t.gpa.v), a.size);

		compare_success(rig, &a, &want, &have,
				a.kind == GN_FETCH ? now : truncated(value, a.size), now);
		compare_marks(rig, &a, &want);
	}
	if (!rig->seldom || rig->accesses % 64 == 0)
		audit(rig);
	return a.kind == GN_READ ? value : 0;
}

static inline uint64_t access_as(struct rig *rig, uint64_t va, enum gn_access_kind kind, bool user,
				 uint64_t value)
{
	struct gn_access a = { .va = gva(va), .kind = (uint8_t)kind, .size = 8, .user = user };

	return access_full(rig, a, value);
}

/* Read, write and fetch, by kernel and user. */
static inline void touch(struct rig *rig, uint64_t va)
{
	for (unsigned user = 0; user < 2; user++) {
		access_as(rig, va, GN_READ, user, 0);
		access_as(rig, va, GN_FETCH, user, 0);
		access_as(rig, va, GN_WRITE, user, va ^ 0x5a5a5a5a ^ rig->accesses);
	}
}

static inline void store(struct rig *rig, uint64_t va, uint64_t value)
{
	access_as(rig, va, GN_WRITE, false, value);
}
static inline uint64_t load(struct rig *rig, uint64_t va)
{
	return access_as(rig, va, GN_READ, false, 0);
}

/* ---- The guest's tables ------------------------------------------------------------------------- */

static inline uint64_t window_of(struct rig *rig, uint64_t at)
{
	return (vcpu_of(rig)->paging.levels ? WINDOW : 0) + at;
}
static inline unsigned index_of(uint64_t va, unsigned level)
{
	return (va >> gn_level_shift(level)) & (GN_TABLE_ENTRIES - 1);
}
static inline uint64_t entry_at(uint64_t table, unsigned index)
{
	return (table << GN_PAGE_SHIFT) + index * 8;
}
static inline void put(struct rig *rig, uint64_t table, unsigned index, uint64_t entry)
{
	store(rig, window_of(rig, entry_at(table, index)), entry);
}
static inline uint64_t get(struct rig *rig, uint64_t table, unsigned index)
{
	return peek(rig, entry_at(table, index));
}

/* The table at @level on the way to @va, made where it is missing (with all rights). */
static inline uint64_t table_for(struct rig *rig, uint64_t root, uint64_t va, unsigned level)
{
	uint64_t table = root;

	for (unsigned l = rig->setup->guest_levels; l > level; l--) {
		uint64_t entry = get(rig, table, index_of(va, l));

		if (!(entry & X86_PTE_P)) {
			entry = rig->next_table++ << GN_PAGE_SHIFT | RW_U;
			put(rig, table, index_of(va, l), entry);
		}
		table = (entry & X86_PTE_ADDR) >> GN_PAGE_SHIFT;
	}
	return table;
}

static inline void set_leaf(struct rig *rig, uint64_t root, uint64_t va, unsigned level,
			    uint64_t entry)
{
	put(rig, table_for(rig, root, va, level), index_of(va, level), entry);
}

static inline void map(struct rig *rig, uint64_t root, uint64_t va, unsigned level, uint64_t at,
		       uint64_t bits)
{
	set_leaf(rig, root, va, level, at << GN_PAGE_SHIFT | bits | (level > 1 ? X86_PTE_PS : 0));
}

static inline void invlpg(struct rig *rig, uint64_t va)
{
	gn_soft_invlpg(rig->cpu, gva(va));
}
static inline void load_root(struct rig *rig, uint64_t root)
{
	gn_soft_write_cr3(rig->cpu, root << GN_PAGE_SHIFT);
}
static inline void reload_root(struct rig *rig)
{
	gn_soft_write_cr3(rig->cpu, gn_vcpu_regs(vcpu_of(rig))->cr3);
}

/* A root with the kernel's window in it. */
static inline uint64_t new_root(struct rig *rig)
{
	uint64_t root = rig->next_table++;
	unsigned top = index_of(WINDOW, rig->setup->guest_levels);

	if (rig->root) {
		put(rig, root, top, get(rig, rig->root, top));
		return root;
	}
	for (uint64_t at = 0; at < RAM_GFNS; at += gn_level_pages(rig->setup->window_level))
		map(rig, root, WINDOW + (at << GN_PAGE_SHIFT), rig->setup->window_level, at,
		    X86_PTE_P | X86_PTE_W);
	return root;
}

static inline void boot(struct rig *rig)
{
	uint64_t cr4 = X86_CR4_PAE | X86_CR4_PGE;

	rig->seldom = true;
	rig->next_table = FIRST_TABLE;
	rig->root = new_root(rig);
	gn_soft_write_efer(rig->cpu, X86_EFER_LME | X86_EFER_NXE);
	gn_soft_write_cr4(rig->cpu, cr4 | (rig->setup->guest_levels == 5 ? X86_CR4_LA57 : 0));
	load_root(rig, rig->root);
	gn_soft_write_cr0(rig->cpu, X86_CR0_PE | X86_CR0_PG | X86_CR0_WP);
	rig->seldom = false;
	audit(rig);
}

/* ---- Everywhere --------------------------------------------------------------------------------- */

static inline void enter_guest(struct gn_soft_cpu *cpu, void *ctx)
{
	struct rig *rig = (struct rig *)ctx;

	rig->cpu = cpu;
	boot(rig);
	rig->run(rig);
	audit(rig);
}

/* 0, or -1 with rig->failure. @sum: of the guest's memory at the end. */
static inline int run_one(struct rig *rig, uint64_t *sum)
{
	const struct setup *s = rig->setup;
	struct gn_soft_config config = { .vm = { .scheme = rig->scheme,
						 .mem_bytes = RAM_BYTES,
						 .vcpus = 1,
						 .backing_level = s->backing_level,
						 .max_leaf_level = s->max_leaf_level,
						 .nested_levels = s->nested_levels } };
	int err = gn_soft_create(&config, &rig->soft);

	if (err) {
		fail(rig, "gn_soft_create: %d", err);
		return -1;
	}
	rig->vm = gn_soft_vm(rig->soft);
	err = gn_soft_run(gn_soft_cpu(rig->soft, 0), enter_guest, rig);
	if (err)
		fail(rig, "the guest was stopped (%d): %s", err,
		     gn_soft_stop_reason(gn_soft_cpu(rig->soft, 0)));
	if (sum)
		*sum = gn_vm_memory_sum(rig->vm);
	gn_soft_destroy(rig->soft);
	return rig->failure[0] ? -1 : 0;
}

static inline void everywhere(const char *name, void (*run)(struct rig *rig))
{
	const struct gn_scheme_ops *ops;

	if (!gn_scheme_at(0))
		cr_assert_eq(gn_schemes_register_all(), 0);
	for (unsigned i = 0; (ops = gn_scheme_at(i)); i++)
		for (unsigned s = 0; s < SETUPS; s++) {
			struct rig rig = { .setup = &setups[s],
					   .scheme = gn_scheme_name(ops),
					   .run = run };
			int err = run_one(&rig, NULL);

			cr_assert_eq(err, 0, "%s under %s, %s: %s", name, rig.scheme,
				     setups[s].label, rig.failure);
			cr_assert_gt(rig.accesses, 0);
		}
}
#define SCENARIO(name)                                                                             \
	static void name(struct rig *rig);                                                         \
	Test(schemes, name, .timeout = 300)                                                        \
	{                                                                                          \
		everywhere(#name, name);                                                           \
	}                                                                                          \
	static void name(struct rig *rig)

#endif
