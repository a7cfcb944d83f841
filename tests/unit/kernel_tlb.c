/* SPDX-License-Identifier: MIT */
/*
 * kernel_tlb.c - the guest kernel on the most treacherous CPU the architecture allows.
 *
 * This program is a third implementation of cpu.h: RAM, the page walk, and a TLB and walk caches that never
 * evict. Whatever the kernel forgets to flush is therefore still there, however long ago it was loaded; and an
 * INVLPG drops one 4 KiB piece, even of a large page. Each access compares what is cached with what the
 * tables say now: any difference is a missing flush, which some scheme or real CPU would punish one day. Touching a
 * frame the kernel believes free is an error too, as is a table entry the kernel wrote with a reserved bit.
 *
 * All workloads run here at their quick size, in every mode of the kernel.
 */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <criterion/criterion.h>

#include "workloads/kernel_state.h"
#include "workloads/workload.h"

#define RAM_BYTES  ((uint64_t)256 << 20)
#define CACHE_SIZE (1u << 20) /* a power of two */
#define DEPTH_MAX  8

/* One thing cached: a page (level 0: a 4 KiB piece of a leaf) or a table of a level (1..4), under a tag. */
struct cached {
	uint64_t va;	/* of its first byte */
	uint64_t entry; /* address and rights it was made from */
	uint16_t pcid;
	uint8_t level;
	bool valid, global;
	uint32_t epoch;
};

static struct machine {
	uint8_t *ram;
	uint64_t cr0, cr3, cr4, efer;
	bool user, ac;
	unsigned depth;
	cpu_exception_fn *handler;
	struct cached *cache;
	uint32_t epoch[4096], table_epoch[4096]; /* an entry older than its tag's epoch is gone */
	uint32_t now;
	jmp_buf stop;
	const char *why;
	uint64_t accesses;
} m;

void cpu_panic(const char *why)
{
	m.why = why;
	longjmp(m.stop, 1);
}

static uint16_t tag(void)
{
	return m.cr4 & X86_CR4_PCIDE ? m.cr3 & X86_CR3_PCID_MASK : 0;
}

/* ---- What is cached -------------------------------------------------------------------------------------- */

static bool is_live(const struct cached *c)
{
	return c->valid && (c->global || c->epoch >= (c->level ? m.table_epoch : m.epoch)[c->pcid]);
}

static struct cached *slot_of(uint64_t va, unsigned level, uint16_t pcid, bool make)
{
	uint64_t h = (va >> 12 ^ (uint64_t)level << 40 ^ (uint64_t)pcid << 44) *
		     (uint64_t)0x9e3779b97f4a7c15;
	struct cached *free_slot = NULL;

	for (unsigned i = 0; i < 4096; i++) {
		struct cached *c = &m.cache[(h >> 40 ^ i) & (CACHE_SIZE - 1)];

		if (is_live(c) && c->va == va && c->level == level &&
		    (c->global || c->pcid == pcid))
			return c;
		if (!is_live(c) && !free_slot)
			free_slot = c;
		if (!c->valid)
			break;
	}
	if (make && !free_slot)
		cpu_panic("test: the cache is full");
	return make ? free_slot : NULL;
}

/* Compare with what is cached, or cache it. */
static void meet(uint64_t va, unsigned level, uint64_t entry, bool global)
{
	uint64_t seen = entry & (X86_PTE_ADDR | X86_PTE_W | X86_PTE_U | X86_PTE_NX);
	struct cached *c = slot_of(va, level, tag(), true);

	if (is_live(c) && c->va == va && c->level == level && (c->global || c->pcid == tag())) {
		if (c->entry != seen)
			cpu_panic("test: a stale translation was used: a flush is missing");
		return;
	}
	*c = (struct cached){ va, seen, tag(), (uint8_t)level, true, global, ++m.now };
}

/* Nothing is there now; was something? */
static void meet_nothing(uint64_t va, unsigned level)
{
	if (slot_of(va, level, tag(), false))
		cpu_panic("test: a translation outlived its entry: a flush is missing");
}

static void flush_tag(uint16_t pcid)
{
	m.epoch[pcid] = m.table_epoch[pcid] = ++m.now;
}

/* ---- The walk ----------------------------------------------------------------------------------------------- */

static uint64_t *entry_at(uint64_t gpa)
{
	if (gpa >= RAM_BYTES)
		cpu_panic("test: a table outside RAM");
	return (uint64_t *)(m.ram + gpa);
}

static bool fault(uint64_t va, uint32_t code)
{
	struct cpu_exception e = { X86_VEC_PF, code, va, m.user };
	bool user = m.user, ac = m.ac, again;

	if (++m.depth > DEPTH_MAX)
		cpu_panic("test: exceptions nest too deep");
	m.user = false;
	again = m.handler(&e);
	m.user = user;
	m.ac = ac;
	m.depth--;
	if (!again)
		cpu_panic("test: the handler gave up");
	return true;
}

/* 0 and *gpa, or the #PF error code with bit 31 set. */
static uint32_t translate(uint64_t va, unsigned access, uint64_t *gpa)
{
	unsigned levels = m.cr4 & X86_CR4_LA57 ? 5 : 4;
	uint64_t table = m.cr3 & X86_PTE_ADDR, *at = NULL, rights = X86_PTE_W | X86_PTE_U, page;
	uint32_t code = (access == 1 ? X86_PF_W : 0) | (access == 2 ? X86_PF_I : 0) |
			(m.user ? X86_PF_U : 0) | (uint32_t)1 << 31;
	bool nx = false;
	unsigned l;

	for (l = levels;; l--) {
		uint64_t span = (uint64_t)1 << (12 + 9 * (l - 1));

		at = entry_at(table + (va >> (12 + 9 * (l - 1)) & 511) * 8);
		if (!(*at & X86_PTE_P)) {
			meet_nothing(va & ~(uint64_t)0xfff, 0);
			if (l > 1)
				meet_nothing(va & ~(span - 1), l - 1);
			return code;
		}
		rights &= *at;
		nx |= *at >> 63;
		*at |= X86_PTE_A;
		if (l == 1 || (*at & X86_PTE_PS))
			break;
		meet(va & ~(span - 1), l - 1, *at, false);
		table = *at & X86_PTE_ADDR;
	}
	page = (*at & X86_PTE_ADDR) + (va & (((uint64_t)1 << (12 + 9 * (l - 1))) - 1));
	meet(va & ~(uint64_t)0xfff, 0, (page & X86_PTE_ADDR) | rights | (nx ? X86_PTE_NX : 0),
	     *at & X86_PTE_G);
	code |= X86_PF_P;
	if ((m.user && !(rights & X86_PTE_U)) || (access == 1 && !(rights & X86_PTE_W)) ||
	    (access == 2 && nx))
		return code;
	if (!m.user && (rights & X86_PTE_U) && !m.ac)
		cpu_panic("test: the kernel touched a user page without STAC");
	if (access == 1)
		*at |= X86_PTE_D;
	*gpa = page;
	return 0;
}

static uint8_t *reach(uint64_t va, unsigned access)
{
	uint64_t gpa = va;

	m.accesses++;
	if (m.cr0 & X86_CR0_PG) {
		uint32_t code;

		while ((code = translate(va, access, &gpa)))
			fault(va, code & ~((uint32_t)1 << 31));
	}
	if (gpa >= RAM_BYTES)
		cpu_panic("test: an access outside RAM");
	if (!k_now->frames.refs[gpa / K_PAGE])
		cpu_panic("test: a free frame was touched");
	return m.ram + gpa;
}

/* ---- cpu.h ---------------------------------------------------------------------------------------------------- */

uint64_t cpu_load64(uint64_t va)
{
	uint64_t v;

	memcpy(&v, reach(va, 0), 8);
	return v;
}

uint32_t cpu_load32(uint64_t va)
{
	uint32_t v;

	memcpy(&v, reach(va, 0), 4);
	return v;
}

uint8_t cpu_load8(uint64_t va)
{
	return *reach(va, 0);
}

void cpu_store64(uint64_t va, uint64_t value)
{
	memcpy(reach(va, 1), &value, 8);
}

void cpu_store32(uint64_t va, uint32_t value)
{
	memcpy(reach(va, 1), &value, 4);
}

void cpu_store8(uint64_t va, uint8_t value)
{
	*reach(va, 1) = value;
}

void cpu_fetch(uint64_t va)
{
	if (*reach(va, 2) != 0xc3)
		cpu_panic("test: a fetch found no RET");
}

void cpu_compute(uint64_t count)
{
	(void)count;
}

void cpu_refs(const struct cpu_ref *refs, size_t count)
{
	for (size_t i = 0; i < count; i++)
		reach(refs[i].va, refs[i].kind);
}

static void must_be_kernel(void)
{
	if (m.user)
		cpu_panic("test: a privileged operation at CPL 3");
}

void cpu_write_cr0(uint64_t value)
{
	must_be_kernel();
	m.cr0 = value;
}

void cpu_write_cr3(uint64_t value)
{
	must_be_kernel();
	m.cr3 = value & ~X86_CR3_NOFLUSH;
	if (!(m.cr4 & X86_CR4_PCIDE) || !(value & X86_CR3_NOFLUSH))
		flush_tag(tag());
}

void cpu_write_cr4(uint64_t value)
{
	must_be_kernel();
	if ((value & X86_CR4_PCIDE) && (!(m.cr0 & X86_CR0_PG) || (m.cr3 & X86_CR3_PCID_MASK)))
		cpu_panic("test: CR4.PCIDE set too early");
	m.cr4 = value;
}

void cpu_write_efer(uint64_t value)
{
	must_be_kernel();
	m.efer = value;
}

void cpu_invlpg(uint64_t va)
{
	struct cached *c = slot_of(va & ~(uint64_t)0xfff, 0, tag(), false);

	must_be_kernel();
	if (c)
		c->epoch = 0;
	m.table_epoch[tag()] = ++m.now;
}

void cpu_invpcid(unsigned type, uint64_t pcid, uint64_t va)
{
	(void)va;
	must_be_kernel();
	if (type != X86_INVPCID_SINGLE)
		cpu_panic("test: an INVPCID type this CPU does not have");
	flush_tag((uint16_t)pcid);
}

void cpu_set_ac(bool ac)
{
	must_be_kernel();
	m.ac = ac;
}

void cpu_enter_kernel(void)
{
	if (!m.user)
		cpu_panic("test: SYSCALL at CPL 0");
	m.user = false;
}

void cpu_enter_user(void)
{
	must_be_kernel();
	m.user = true;
}

bool cpu_upcall(cpu_upcall_fn *fn, void *ctx, uint64_t va, bool write)
{
	bool result;

	cpu_enter_user();
	result = fn(ctx, va, write);
	cpu_enter_kernel();
	return result;
}

uint64_t cpu_hypercall(uint64_t nr, uint64_t arg)
{
	(void)nr;
	return arg;
}

void cpu_set_exception_handler(cpu_exception_fn *fn)
{
	m.handler = fn;
}

void cpu_note_table_write(uint64_t pa, uint64_t value)
{
	if (pa % 8 || ((value & X86_PTE_P) && (value & X86_PTE_ADDR) >= RAM_BYTES))
		cpu_panic("test: the kernel wrote a malformed entry");
}

void cpu_measure(void)
{
}

void cpu_progress(uint64_t done, uint64_t total)
{
	(void)done;
	(void)total;
}

void cpu_phase(unsigned phase, uint64_t done)
{
	(void)phase;
	(void)done;
}

/* ---- The tests -------------------------------------------------------------------------------------------------- */

static const struct mode {
	const char *name;
	unsigned levels;
	bool pcid, large;
} modes[] = {
	{ "4 levels", 4, false, false },
	{ "4 levels, PCID", 4, true, false },
	{ "5 levels, PCID, large", 5, true, true },
	{ "5 levels, large", 5, false, true },
};

static uint64_t evicted; /* pages of files, in the last run */

/* NULL: it ran to its end. */
static const char *run(const struct workload *w, const struct mode *mode, uint64_t size,
		       uint64_t mem_bytes)
{
	struct kernel_config config = { .mem_bytes = mem_bytes,
					.levels = mode->levels,
					.pcid = mode->pcid,
					.smep = true,
					.smap = true,
					.large_pages = mode->large };
	struct workload_params params = { .size = size,
					  .seed = 7,
					  .mem_bytes = mem_bytes,
					  .large_pages = mode->large,
					  .pcid = mode->pcid,
					  .levels = mode->levels };
	struct cached *cache = calloc(CACHE_SIZE, sizeof(*cache));
	void *state = calloc(1, kernel_state_bytes());
	const char *why = NULL;

	memset(&m, 0, sizeof(m));
	m.cr0 = X86_CR0_PE;
	m.cache = cache;
	m.now = 1;
	m.ram = mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	kernel_attach(state);
	if (setjmp(m.stop) == 0) {
		kernel_boot(&config);
		w->run(&params, &why);
	} else {
		why = m.why;
	}
	evicted = k_now->stats.evictions;
	munmap(m.ram, RAM_BYTES);
	free(state);
	free(cache);
	return why;
}

Test(kernel_tlb, every_workload_flushes_what_it_must)
{
	unsigned ran = 0;

	for (unsigned i = 0; workload_at(i); i++) {
		if (workload_at(i)->kind == WORKLOAD_TRACE)
			continue;
		for (unsigned j = 0; j < sizeof(modes) / sizeof(modes[0]); j++) {
			const char *why = run(workload_at(i), &modes[j], workload_at(i)->size_quick,
					      RAM_BYTES);

			cr_assert_null(why, "%s, %s: %s", workload_at(i)->name, modes[j].name, why);
			ran++;
		}
	}
	cr_assert_geq(ran, 18 * 4);
}

/* Eviction takes pages from under their mappings. */
Test(kernel_tlb, a_squeezed_guest_flushes_what_it_must)
{
	const struct workload *w = workload_find("phases");

	for (unsigned j = 0; j < sizeof(modes) / sizeof(modes[0]); j++) {
		const char *why = run(w, &modes[j], (uint64_t)8 << 20, (uint64_t)10 << 20);

		cr_assert_null(why, "%s: %s", modes[j].name, why);
		cr_assert_gt(evicted, 1000);
	}
}
