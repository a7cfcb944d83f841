/* SPDX-License-Identifier: MIT */
/*
 * guest_walk_model.c - the guest walk against a second reading of the manual.
 *
 * The model below is written from Intel SDM vol. 3A chapter 4 alone, as plainly as possible: memory is a flat
 * array, each level is spelled out, each sentence of 4.6 is a condition. It shares with mmu/ nothing but the
 * names of bits in gnomon/x86.h. Millions of random (tables, registers, access) cases go through both; outcome,
 * error code, CR2's cause, translation, entries read and A/D bits written must be the same.
 *
 * Tables are random but biased: most entries are present, generous and point at tables of the next level, so
 * that walks go deep and often succeed; all the rest is drawn rarely enough to be met alone and in pairs. A few
 * table pages are not plain memory: unbacked, MMIO, ballooned, read-only, shared.
 */
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include <gnomon/x86.h>

#include "support/bare_vm.h"
#include "support/cases.h"

#define CASES	      6000000
#define BATCH	      512 /* cases between two sets of tables */
#define RAM_PAGES     256
#define RAM_BYTES     ((uint64_t)RAM_PAGES * 4096)
#define PHYS_BITS     40
#define TABLES	      32
#define SHARED_TWIN   40 /* the gfn that shares a table's frame */
#define FAILURES_TOLD 5

/* ---- The model ------------------------------------------------------------------------------------- */

enum memory_kind { PLAIN, UNBACKED, NOT_MEMORY, NOT_WRITABLE };

struct machine {
	uint64_t ram[RAM_PAGES][512];
	enum memory_kind kind[RAM_PAGES];
	uint64_t cr0, cr3, cr4, efer;
	uint32_t pkru;
};

enum model_end { MODEL_OK, MODEL_PF, MODEL_GP, MODEL_NO_TABLE };

struct model {
	enum model_end end;
	uint32_t code;
	uint64_t gpa;	/* the translation, or the entry that cannot be had */
	unsigned level; /* where the walk ended */
	unsigned refs;
	unsigned page_shift;
	unsigned key;
	bool user_page, writable, executable, global, dirty;
	uint64_t page[6], index[6], entry[6];
};

static uint64_t bits(uint64_t value, unsigned high, unsigned low)
{
	return value >> low & (((uint64_t)1 << (high - low) << 1) - 1);
}

/* 4.6.1, "Determination of Access Rights", and 4.6.2, "Protection Keys", sentence by sentence. */
static bool model_rights_allow(const struct machine *m, const struct model *w,
			       const struct gn_access *a)
{
	bool user_mode = a->user && !a->implicit;
	bool wp = m->cr0 & X86_CR0_WP, smap = m->cr4 & X86_CR4_SMAP, smep = m->cr4 & X86_CR4_SMEP;

	if (user_mode) {
		switch (a->kind) {
		case GN_READ:
			return w->user_page;
		case GN_WRITE:
			return w->user_page && w->writable;
		default:
			return w->user_page && w->executable;
		}
	}
	switch (a->kind) {
	case GN_READ:
		if (!w->user_page || !smap)
			return true;
		return a->ac && !a->implicit;
	case GN_WRITE:
		if (!w->user_page)
			return wp ? w->writable : true;
		if (smap && !(a->ac && !a->implicit))
			return false;
		return wp ? w->writable : true;
	default:
		if (!w->user_page)
			return w->executable;
		return smep ? false : w->executable;
	}
}

static bool model_key_allows(const struct machine *m, const struct model *w,
			     const struct gn_access *a)
{
	bool user_mode = a->user && !a->implicit;
	bool ad = bits(m->pkru, 2 * w->key, 2 * w->key);
	bool wd = bits(m->pkru, 2 * w->key + 1, 2 * w->key + 1);

	if (!(m->cr4 & X86_CR4_PKE) || a->kind == GN_FETCH || !w->user_page)
		return true;
	if (ad)
		return false;
	if (a->kind == GN_WRITE && wd)
		return !(user_mode || (m->cr0 & X86_CR0_WP));
	return true;
}

/* 4.7, figure 4-12. */
static uint32_t model_error_code(const struct machine *m, const struct gn_access *a, bool present,
				 bool reserved, bool key)
{
	uint32_t code = 0;

	if (present)
		code |= X86_PF_P;
	if (a->kind == GN_WRITE)
		code |= X86_PF_W;
	if (a->user && !a->implicit)
		code |= X86_PF_U;
	if (reserved)
		code |= X86_PF_RSVD;
	if (a->kind == GN_FETCH &&
	    ((m->cr4 & X86_CR4_SMEP) || ((m->cr4 & X86_CR4_PAE) && (m->efer & X86_EFER_NXE))))
		code |= X86_PF_I;
	if (key)
		code |= X86_PF_PK;
	return code;
}

/* Tables 4-14 to 4-20. @size: the entry maps a page of its level. */
static bool model_reserved(const struct machine *m, uint64_t e, unsigned level, bool size)
{
	if (bits(e, 51, PHYS_BITS))
		return true;
	if (bits(e, 63, 63) && !(m->efer & X86_EFER_NXE))
		return true;
	if (level >= 4 && bits(e, 7, 7))
		return true;
	if (level == 3 && size && bits(e, 29, 13))
		return true;
	return level == 2 && size && bits(e, 20, 13);
}

static void model_pf(struct model *w, uint32_t code)
{
	w->end = MODEL_PF;
	w->code = code;
}

/* A and D, 4.8: by the one rule of guest_walk.h, and only where the memory can be written. */
static bool model_set_bits(struct machine *m, struct model *w, const struct gn_access *a,
			   unsigned levels)
{
	for (unsigned level = levels; level >= w->level; level--) {
		uint64_t want = w->entry[level] | X86_PTE_A;

		if (level == w->level && a->kind == GN_WRITE)
			want |= X86_PTE_D;
		if (want == w->entry[level])
			continue;
		if (m->kind[w->page[level]] != PLAIN) {
			w->end = MODEL_NO_TABLE;
			w->gpa = w->page[level] * 4096 + w->index[level] * 8;
			w->level = level;
			return false;
		}
		m->ram[w->page[level]][w->index[level]] = want;
		w->entry[level] = want;
	}
	w->dirty |= a->kind == GN_WRITE;
	return true;
}

static void model_walk(struct machine *m, const struct gn_access *a, bool set_bits, struct model *w)
{
	unsigned levels = m->cr4 & X86_CR4_LA57 ? 5 : 4;
	uint64_t va = a->va.v, table = m->cr3 & 0x000ffffffffff000, sign, e;
	bool key_ok;

	memset(w, 0, sizeof(*w));
	if (!(m->cr0 & X86_CR0_PG)) {
		w->end = MODEL_OK;
		w->gpa = va;
		return;
	}
	sign = levels == 5 ? bits(va, 63, 56) : bits(va, 63, 47);
	if (sign != 0 && sign != (levels == 5 ? 0xff : 0x1ffff)) {
		w->end = MODEL_GP;
		return;
	}
	w->user_page = w->writable = w->executable = true;
	for (w->level = levels;; w->level--) {
		static const unsigned shift[6] = { 0, 12, 21, 30, 39, 48 };
		unsigned l = w->level;
		bool size;

		w->page[l] = table / 4096;
		w->index[l] = bits(va, shift[l] + 8, shift[l]);
		w->refs++;
		if (w->page[l] >= RAM_PAGES || m->kind[w->page[l]] == NOT_MEMORY) {
			w->end = MODEL_NO_TABLE;
			w->gpa = table + w->index[l] * 8;
			return;
		}
		e = m->kind[w->page[l]] == UNBACKED ? 0 : m->ram[w->page[l]][w->index[l]];
		w->entry[l] = e;
		if (!(e & X86_PTE_P)) {
			model_pf(w, model_error_code(m, a, false, false, false));
			return;
		}
		size = (l == 2 || l == 3) && (e & X86_PTE_PS);
		if (model_reserved(m, e, l, size)) {
			model_pf(w, model_error_code(m, a, true, true, false));
			return;
		}
		w->user_page &= !!(e & X86_PTE_U);
		w->writable &= !!(e & X86_PTE_W);
		w->executable &= !(e & X86_PTE_NX);
		if (l == 1 || size) {
			w->page_shift = shift[l];
			break;
		}
		table = bits(e, 51, 12) * 4096;
	}
	w->global = e & X86_PTE_G;
	w->dirty = e & X86_PTE_D;
	w->key = bits(e, 62, 59);
	w->gpa = bits(e, 51, w->page_shift) << w->page_shift | bits(va, w->page_shift - 1, 0);
	key_ok = model_key_allows(m, w, a);
	if (!key_ok || !model_rights_allow(m, w, a)) {
		model_pf(w, model_error_code(m, a, true, false, !key_ok));
		return;
	}
	w->end = MODEL_OK;
	if (set_bits)
		model_set_bits(m, w, a, levels);
}

/* ---- Random guests ------------------------------------------------------------------------------------ */

/* Table pages of each level: first, count. The last two of levels 1 and 2 and the last of level 3 are the
 * special pages. */
static const struct {
	uint8_t first, count;
} tables_of[6] = { { 0, 0 }, { 1, 10 }, { 11, 8 }, { 19, 5 }, { 24, 4 }, { 28, 3 } };
#define UNBACKED_PAGE 10
#define MMIO_PAGE     18
#define BALLOON_PAGE  23
#define READONLY_PAGE 9
#define SHARED_PAGE   17

static const uint16_t used_index[] = { 0, 1, 2, 255, 256, 511 };
#define USED_INDEXES (sizeof(used_index) / sizeof(used_index[0]))

struct rig {
	struct machine m;
	struct gn_vm *vm;
	uint64_t
		*page[RAM_PAGES]; /* the engine's copy of a table page; NULL: not to be looked at */
	struct gn_paging paging;
	struct test_random random;
	uint64_t by_end[4], deep;
};

static unsigned random_index(struct test_random *r)
{
	return used_index[test_random_below(r, USED_INDEXES)];
}

/* A table page of @level; the special ones less often than they would come up. */
static uint64_t random_table(struct test_random *r, unsigned level)
{
	unsigned plain = tables_of[level].count - (level < 4) - (level < 3);

	if (test_random_once(r, 16))
		plain = tables_of[level].count;
	return tables_of[level].first + test_random_below(r, plain);
}

static uint64_t random_entry(struct test_random *r, unsigned level)
{
	uint64_t e = 0, frame;
	bool leaf = level == 1 || (level == 2 && test_random_once(r, 5)) ||
		    (level == 3 && test_random_once(r, 8)) || test_random_once(r, 60);

	if (!test_random_once(r, 40))
		e |= X86_PTE_P;
	if (!test_random_once(r, 6))
		e |= X86_PTE_W;
	if (!test_random_once(r, 6))
		e |= X86_PTE_U;
	if (test_random_once(r, 12))
		e |= X86_PTE_NX;
	if (test_random_once(r, 2))
		e |= X86_PTE_A;
	if (test_random_once(r, 2))
		e |= X86_PTE_D;
	e |= test_random_next(r) & (X86_PTE_G | X86_PTE_PWT | X86_PTE_PCD | (uint64_t)7 << 9 |
				    (uint64_t)0x7f << 52 | X86_PTE_PKEY_MASK);
	if (leaf && (level > 1 || test_random_once(r, 2)))
		e |= X86_PTE_PS;
	if (leaf)
		frame = test_random_next(r) & (((uint64_t)1 << (PHYS_BITS - 12)) - 1);
	else if (test_random_once(r, 40))
		frame = test_random_below(r, RAM_PAGES * 2);
	else
		frame = random_table(r, level - 1);
	if (leaf && level < 4 && !test_random_once(r, 20))
		frame &= ~(gn_level_pages(level) - 1);
	e |= frame << 12;
	if (leaf && level > 1 && test_random_once(r, 4))
		e |= X86_PTE_PAT_LARGE;
	if (leaf && level > 1 && test_random_once(r, 20)) /* a single bit, reserved or not */
		e |= (uint64_t)1 << (13 + test_random_below(r, 18));
	if (test_random_once(r, 50))
		e |= (uint64_t)1 << (PHYS_BITS + test_random_below(r, 52 - PHYS_BITS));
	return e;
}

static void random_tables(struct rig *rig)
{
	for (unsigned level = 1; level <= 5; level++)
		for (unsigned i = 0; i < tables_of[level].count; i++) {
			unsigned page = tables_of[level].first + i;

			for (unsigned j = 0; j < USED_INDEXES; j++) {
				uint64_t e = random_entry(&rig->random, level);

				if (!rig->page[page])
					continue;
				rig->m.ram[page][used_index[j]] = e;
				rig->page[page][used_index[j]] = e;
			}
		}
}

static void random_registers(struct rig *rig)
{
	struct test_random *r = &rig->random;
	struct machine *m = &rig->m;
	uint64_t coin = test_random_next(r);
	unsigned levels;
	struct gn_regs regs;

	m->cr0 = X86_CR0_PE | (test_random_once(r, 50) ? 0 : X86_CR0_PG) |
		 (coin & 1 ? X86_CR0_WP : 0);
	m->cr4 = X86_CR4_PAE | (coin & 2 ? X86_CR4_LA57 : 0) | (coin & 4 ? X86_CR4_SMEP : 0) |
		 (coin & 8 ? X86_CR4_SMAP : 0) | (coin & 16 ? X86_CR4_PKE : 0) |
		 (coin & 32 ? X86_CR4_PGE : 0) | (coin & 64 ? X86_CR4_PCIDE : 0);
	m->efer = X86_EFER_LME | X86_EFER_LMA | (test_random_once(r, 5) ? 0 : X86_EFER_NXE);
	/* Mostly permissive keys, or nothing else would ever be seen. */
	m->pkru = test_random_next(r) & test_random_next(r) & test_random_next(r);
	levels = m->cr4 & X86_CR4_LA57 ? 5 : 4;
	m->cr3 = random_table(r, levels) << 12;
	if (test_random_once(r, 100))
		m->cr3 = test_random_below(r, RAM_PAGES * 2) << 12;
	m->cr3 |= test_random_next(r) & 0xfff; /* PCID, or PWT and PCD: not of the address */
	regs = (struct gn_regs){ m->cr0, m->cr3, m->cr4, m->efer, m->pkru };
	gn_paging_derive(&regs, PHYS_BITS, &rig->paging);
}

static void random_access_of(struct rig *rig, struct gn_access *a)
{
	struct test_random *r = &rig->random;
	unsigned levels = rig->m.cr4 & X86_CR4_LA57 ? 5 : 4, top = 12 + 9 * levels;
	uint64_t va = 0, coin = test_random_next(r);

	for (unsigned level = 1; level <= levels; level++)
		va |= (uint64_t)random_index(r) << (12 + 9 * (level - 1));
	va |= test_random_next(r) & 0xfff;
	if (va >> (top - 1) & 1)
		va |= ~(uint64_t)0 << top;
	if (test_random_once(r, 40))
		va ^= (uint64_t)1 << (top - 1 + test_random_below(r, 64 - top + 1));
	a->va = gva(va);
	a->kind = (uint8_t)test_random_below(r, 3);
	a->size = 1;
	a->user = coin & 1;
	a->implicit = !(coin & 0xe) && a->kind != GN_FETCH;
	a->ac = coin & 16;
}

/* ---- Both, side by side --------------------------------------------------------------------------------- */

static const char *differ(const struct rig *rig, const struct gn_guest_walk *g,
			  const struct model *w, bool brief)
{
	unsigned levels = rig->m.cr4 & X86_CR4_LA57 ? 5 : 4;
	gn_rights_t rights = GN_RWXU;

	if ((int)g->end != (int)w->end)
		return "end";
	if (w->end == MODEL_GP)
		return NULL;
	if (w->end == MODEL_PF && g->error_code != w->code)
		return "error code";
	if (w->end == MODEL_OK && g->t.gpa.v != w->gpa)
		return "gpa";
	if (!(rig->m.cr0 & X86_CR0_PG))
		return g->t.rights == GN_RWXU && g->t.level == GN_MAX_LEVELS ? NULL : "identity";
	if (w->end == MODEL_NO_TABLE && g->gpa.v != w->gpa)
		return "gpa of the missing entry";
	if (brief) /* promises no more */
		return NULL;
	if (g->refs != w->refs)
		return "references";
	if (g->t.level != w->level)
		return "level";
	for (unsigned level = levels; level >= w->level; level--) {
		if (g->table[level].v != w->page[level])
			return "table[]";
		if (g->above[level] != rights)
			return "above[]";
		if (w->end == MODEL_NO_TABLE && level == w->level)
			return NULL;
		if (g->entry[level] != w->entry[level])
			return "entry[]";
		if (!(w->entry[level] & X86_PTE_W))
			rights &= (gn_rights_t)~GN_W;
		if (!(w->entry[level] & X86_PTE_U))
			rights &= (gn_rights_t)~GN_U;
		if (w->entry[level] & X86_PTE_NX)
			rights &= (gn_rights_t)~GN_X;
	}
	if (w->end != MODEL_OK)
		return NULL;
	if (g->t.rights != rights)
		return "rights";
	if (g->t.pkey != w->key || g->t.global != w->global || g->t.dirty != w->dirty)
		return "pkey, global or dirty";
	return NULL;
}

static const char *tables_differ(const struct rig *rig)
{
	for (unsigned page = 1; page < TABLES; page++)
		if (rig->page[page] && memcmp(rig->page[page], rig->m.ram[page], 4096))
			return "tables' contents";
	return NULL;
}

static bool one_case(struct rig *rig)
{
	struct gn_guest_walk g;
	struct gn_access a;
	struct model w;
	const char *what;
	bool set_bits = !test_random_once(&rig->random, 4);
	bool brief = test_random_once(&rig->random, 4);

	random_access_of(rig, &a);
	memset(&g, 0xa5, sizeof(g)); /* nothing may depend on what was there */
	gn_rcu_read_lock();
	gn_guest_walk(rig->vm, &rig->paging, rig->m.cr3, &a,
		      (set_bits ? GN_GW_SET_AD : 0) | (brief ? GN_GW_BRIEF : 0), &g);
	gn_rcu_read_unlock();
	model_walk(&rig->m, &a, set_bits, &w);
	rig->by_end[w.end]++;
	rig->deep += w.end == MODEL_OK && w.level == 1;
	what = differ(rig, &g, &w, brief);
	if (!what && w.end == MODEL_OK && (rig->m.cr0 & X86_CR0_PG))
		for (unsigned level = w.level; level <= rig->paging.levels && !what; level++)
			if (rig->page[w.page[level]] &&
			    rig->page[w.page[level]][w.index[level]] !=
				    rig->m.ram[w.page[level]][w.index[level]])
				what = "an entry in memory";
	if (!what)
		return true;
	printf("differs in %s: va %#" PRIx64 " kind %u user %d implicit %d ac %d, cr0 %#" PRIx64
	       " cr3 %#" PRIx64 " cr4 %#" PRIx64 " efer %#" PRIx64 " pkru %#x: engine end %d code "
	       "%#x level %u, model end %d code %#x level %u\n",
	       what, a.va.v, a.kind, a.user, a.implicit, a.ac, rig->m.cr0, rig->m.cr3, rig->m.cr4,
	       rig->m.efer, rig->m.pkru, (int)g.end, g.error_code, g.t.level, (int)w.end, w.code,
	       w.level);
	return false;
}

/* ---- The VM ----------------------------------------------------------------------------------------------- */

static int rig_init(struct rig *rig, uint64_t seed)
{
	int err = bare_vm_new(RAM_BYTES, PHYS_BITS, 0, &rig->vm);

	rig->random = test_random_seed(seed);
	if (err)
		return err;
	/* The second half gets its frames first: tables lie at two distances from their frames, so that a walk
	 * meets the one it knows and the other. */
	for (unsigned i = 1; i < TABLES; i++) {
		unsigned page = 1 + (i - 1 + TABLES / 2) % (TABLES - 1);

		if (page == UNBACKED_PAGE || page == MMIO_PAGE || page == BALLOON_PAGE)
			continue;
		err = err ? err : gn_p2m_populate(rig->vm, gfn(page), 1);
		rig->page[page] = gn_p2m_pointer(rig->vm, gfn_to_gpa(gfn(page)));
	}
	rig->m.kind[0] = UNBACKED;
	for (unsigned page = TABLES; page < RAM_PAGES; page++)
		rig->m.kind[page] = UNBACKED;
	rig->m.kind[UNBACKED_PAGE] = UNBACKED;
	rig->m.kind[MMIO_PAGE] = rig->m.kind[BALLOON_PAGE] = NOT_MEMORY;
	rig->m.kind[READONLY_PAGE] = rig->m.kind[SHARED_PAGE] = NOT_WRITABLE;
	rig->m.kind[SHARED_TWIN] = NOT_WRITABLE;
	err = err ? err : gn_p2m_set_mmio(rig->vm, gfn(MMIO_PAGE), 1);
	err = err ? err : gn_p2m_balloon(rig->vm, gfn(BALLOON_PAGE), 1);
	err = err ? err : gn_p2m_protect(rig->vm, gfn(READONLY_PAGE), 1, true);
	err = err ? err : gn_p2m_populate(rig->vm, gfn(SHARED_TWIN), 1);
	err = err ? err : gn_p2m_share(rig->vm, gfn(SHARED_PAGE), gfn(SHARED_TWIN));
	/* Sharing keeps one of the two frames; and the twin reads as the table does. */
	rig->page[SHARED_PAGE] = gn_p2m_pointer(rig->vm, gfn_to_gpa(gfn(SHARED_PAGE)));
	return err;
}

int main(int argc, char **argv)
{
	struct test_run run = test_run_start(argc, argv, 0x67756573742d7761, CASES);
	static struct rig rig;
	struct gn_audit_report report;
	const char *what;
	int err = rig_init(&rig, run.seed);

	if (err) {
		printf("set-up failed: %s\n0 passed, 1 failed\n", strerror(-err));
		return 1;
	}
	for (uint64_t i = 0; i < run.cases && run.failed < FAILURES_TOLD; i++) {
		if (i % BATCH == 0) {
			what = tables_differ(&rig);
			if (what) {
				printf("case %" PRIu64 ": %s differ\n", i, what);
				run.failed++;
			}
			random_tables(&rig);
			memcpy(rig.m.ram[SHARED_TWIN], rig.m.ram[SHARED_PAGE], 4096);
		}
		if (i % 8 == 0)
			random_registers(&rig);
		if (!one_case(&rig))
			run.failed++;
	}
	run.passed += !run.failed; /* the cases are one test */
	printf("translated %" PRIu64 " (%" PRIu64 " to 4 KiB pages), #PF %" PRIu64 ", #GP %" PRIu64
	       ", no table %" PRIu64 "\n",
	       rig.by_end[MODEL_OK], rig.deep, rig.by_end[MODEL_PF], rig.by_end[MODEL_GP],
	       rig.by_end[MODEL_NO_TABLE]);
	if (rig.deep < run.cases / 50) {
		printf("too few walks went all the way: the tables are badly drawn\n");
		run.failed++;
	}
	if (gn_audit(rig.vm, &report)) {
		printf("audit: %s\n", report.first);
		run.failed++;
	}
	gn_vm_destroy(rig.vm);
	return test_run_end(&run);
}
