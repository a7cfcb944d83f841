/* SPDX-License-Identifier: MIT */
/*
 * guest_walk.c - the guest's page walk, twice: as the manual tells it, and a short way for walks that end well.
 *
 * As walk_body.h, with three differences: a table's address is guest-physical and goes through the p2m,
 * the registers decide what is reserved, and at the end the access is held against the rights.
 *
 * The order of events is the architecture's: an entry that is not present ends the walk before its
 * reserved bits matter; both end it before any right is looked at, since without a translation there is
 * nothing to have rights on (SDM 4.7). Rights of all levels are combined first and checked once.
 *
 * The short way runs per TLB miss of software translation and per shadow fault. It knows one outcome, an
 * allowed access that sets no bit, and gives up at anything else; the plain walk then starts over and finds out
 * what it was. So a fault costs two walks, and what is hard to get right is written once, plainly. The short way
 * is bound by its instructions as much as by its loads, hence:
 *   - an entry is tested once, against a mask that the registers' derivation has made;
 *   - A and the rights are looked at once, on the AND of all entries;
 *   - a table's host address is guessed, so that the p2m's answer is no link in the chain of loads. The frames
 *     of a guest's tables mostly lie as far from their gpas as the frame of the table before did. The p2m's word is
 *     always compared before the guess is used; when it says otherwise, it is the next guess.
 *
 * Absent on purpose: 32-bit and PAE paging, CET shadow stacks, HLAT, protection keys for supervisor
 * pages (PKS), linear-address masking.
 */
#include "guest_walk.h"

#include "fmt_x86.h"
#include "vm.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))

static const struct gn_fmt x86_4 = GN_FMT_X86_4_INIT;
static const struct gn_fmt x86_5 = GN_FMT_X86_5_INIT;

static gpa_t entry_gpa(const struct gn_fmt *f, unsigned level, gfn_t table, gva_t va)
{
	return gpa(gfn_to_gpa(table).v + gn_fmt_index(f, level, va.v) * sizeof(uint64_t));
}

/* ---- The walk as the manual tells it ---------------------------------------------------------------- */

static void end_fault(struct gn_guest_walk *out, uint32_t error_code)
{
	out->end = GN_GW_PF;
	out->error_code = error_code;
}

/* The leaf @entry, in full: the AND of the entries' rights is in out->t.rights. */
static void end_leaf(const struct gn_fmt *f, const struct gn_paging *paging,
		     const struct gn_access *access, uint64_t entry, struct gn_guest_walk *out)
{
	struct gn_translation *t = &out->t;
	const struct gn_fmt_level *l = &f->level[t->level];
	uint32_t denied;

	t->pkey = (uint8_t)gn_fmt_pkey(f, t->level, entry);
	t->global = entry & l->global;
	t->dirty = entry & l->dirty;
	t->gpa = gpa(gn_fmt_address(f, t->level, entry) |
		     (access->va.v & (gn_level_bytes(t->level) - 1)));
	denied = gn_paging_access(paging, t, access);
	if (denied)
		end_fault(out, denied);
}

/* Read one level. True: go on, one level down; *table is the next one. */
static bool walk_level(struct gn_vm *vm, const struct gn_paging *paging,
		       const struct gn_access *access, gfn_t *table, struct gn_guest_walk *out)
{
	const struct gn_fmt *f = paging->fmt;
	unsigned level = out->t.level;
	p2m_word_t word = gn_p2m_get(&vm->p2m, *table);
	gpa_t at = entry_gpa(f, level, *table, access->va);
	uint64_t entry = 0;

	out->refs++;
	out->table[level] = *table;
	out->above[level] = out->t.rights;
	if (gn_p2m_word_level(word)) { /* 0 where there is no frame */
		entry = __atomic_load_n((uint64_t *)gn_p2m_pointer_of(vm, word, at),
					__ATOMIC_ACQUIRE);
	} else if (gn_p2m_word_state(word) != GN_P2M_UNBACKED) { /* which reads as zeros */
		out->end = GN_GW_NO_TABLE;
		out->gpa = at;
		return false;
	}
	out->entry[level] = entry;
	if (!gn_fmt_is_present(f, level, entry)) {
		end_fault(out, gn_paging_error_base(paging, access));
		return false;
	}
	if (gn_paging_is_reserved(paging, level, entry)) {
		end_fault(out, gn_paging_error_base(paging, access) | X86_PF_P | X86_PF_RSVD);
		return false;
	}
	out->t.rights &= gn_fmt_rights(f, level, entry);
	if (gn_fmt_is_leaf(f, level, entry)) {
		end_leaf(f, paging, access, entry, out);
		return false;
	}
	*table = gpa_to_gfn(gpa(gn_fmt_address(f, level, entry)));
	return true;
}

static void walk_plainly(struct gn_vm *vm, const struct gn_paging *paging, uint64_t cr3,
			 const struct gn_access *access, struct gn_guest_walk *out)
{
	gfn_t table = gpa_to_gfn(gpa(cr3 & paging->fmt->level[paging->levels].address));

	out->end = GN_GW_OK;
	out->error_code = 0;
	out->refs = 0;
	out->t = (struct gn_translation){ .rights = GN_RWXU, .level = paging->levels };
	if (!gn_paging_is_canonical(paging, access->va)) {
		out->end = GN_GW_GP;
		out->t = (struct gn_translation){ 0 };
		return;
	}
	while (walk_level(vm, paging, access, &table, out))
		out->t.level--;
}

/* Set A in the entries used, D in the leaf on a write. False: an entry is no longer what the walk
 * read, so what the walk decided may be wrong too.
 *
 * A table may be written where its p2m word grants it: a shared frame is copied first, and that is the
 * caller's to do. */
static bool set_accessed_dirty(struct gn_vm *vm, const struct gn_fmt *f,
			       const struct gn_access *access, struct gn_guest_walk *out)
{
	for (unsigned level = f->levels; level >= out->t.level; level--) {
		const struct gn_fmt_level *l = &f->level[level];
		bool dirty = level == out->t.level && access->kind == GN_WRITE;
		uint64_t entry = out->entry[level];
		uint64_t want = entry | l->accessed | (dirty ? l->dirty : 0);
		gpa_t at = entry_gpa(f, level, out->table[level], access->va);
		p2m_word_t word;

		if (want == entry)
			continue;
		word = gn_p2m_get_to_store(vm, out->table[level]);
		if (!gn_p2m_word_grants(word, GN_W)) {
			out->gpa = at;
			out->end = GN_GW_NO_TABLE;
			out->t.level = (uint8_t)level;
			return true;
		}
		if (!__atomic_compare_exchange_n((uint64_t *)gn_p2m_pointer_of(vm, word, at),
						 &entry, want, false, __ATOMIC_ACQ_REL,
						 __ATOMIC_ACQUIRE))
			return false;
		out->entry[level] = want;
	}
	out->t.dirty |= access->kind == GN_WRITE;
	return true;
}

/* The plain walk, until nothing has changed between it and the setting of bits. */
static __attribute__((noinline)) void walk_in_full(struct gn_vm *vm, const struct gn_paging *paging,
						   uint64_t cr3, const struct gn_access *access,
						   unsigned flags, struct gn_guest_walk *out)
{
	do
		walk_plainly(vm, paging, cr3, access, out);
	while ((flags & GN_GW_SET_AD) && out->end == GN_GW_OK &&
	       !set_accessed_dirty(vm, paging->fmt, access, out));
}

/* ---- The short way ---------------------------------------------------------------------------------- */

struct cursor {
	const struct gn_paging *paging;
	const _Atomic(uint64_t) *words; /* the p2m's, and how many */
	uint64_t gfn_count;
	const uint8_t *frames; /* host address of HPA 0 */
	const uint8_t *guess;  /* a table's host address less its gpa */
	uint64_t distance;     /* p2m word less the table's gpa, where the guess holds */
	uint64_t va;
	uint64_t entry;	  /* read last */
	uint64_t granted; /* AND of the entries read, GN_X86_FLIP applied: rights, and A of each */
	uint64_t gpa;	  /* at the leaf: the translation */
	unsigned level;
};

enum step { STEP_DOWN, STEP_LEAF, STEP_GIVE_UP };

/* One load of an entry that others write. The next table's address depends on it, which orders what
 * follows. __atomic_load_n() would do, but compilers then compute the address apart from the load,
 * one step later on the walk's critical path (measured: 0.7 of 10.6 ns); so a plain load, which the empty
 * asm keeps from being done twice. */
ALWAYS_INLINE uint64_t load_entry(const uint8_t *slots, hpa_t frame)
{
#ifdef GN_TSAN
	return __atomic_load_n((const uint64_t *)(slots + frame.v), __ATOMIC_ACQUIRE);
#else
	uint64_t entry = *(const uint64_t *)(slots + frame.v);

	__asm__("" : "+r"(entry));
	return entry;
#endif
}

/* @entry has all bits of @ones and no other of @mask, in one test: subtracting @ones, which are in @mask, clears
 * them when all are set, and else sets the lowest one that is missing. */
ALWAYS_INLINE bool entry_has(uint64_t entry, uint64_t ones, uint64_t mask)
{
	return !((entry - ones) & mask);
}

/* True: @table has a frame, and c->guess is right for it. A gpa of a table has no low bits, so a distance keeps those
 * of the word: where it is equal, so are state, rights and level, and there is a frame as there was before. */
ALWAYS_INLINE bool find_table(struct cursor *c, uint64_t table, bool is_root)
{
	uint64_t distance;
	p2m_word_t word;

	if (GN_UNLIKELY(table >> GN_PAGE_SHIFT >= c->gfn_count))
		return false;
	word.v = atomic_load_explicit(&c->words[table >> GN_PAGE_SHIFT], memory_order_acquire);
	distance = word.v - table;
	if (!is_root && GN_LIKELY(distance == c->distance))
		return true;
	if (GN_UNLIKELY(!gn_p2m_word_level(word))) /* 0 where there is no frame */
		return false;
	c->distance = distance;
	c->guess = c->frames + (distance & ~(GN_PAGE_SIZE - 1));
	/* Not to be made again from a later word that was found equal: that is the chain. */
	__asm__("" : "+r"(c->guess));
	return true;
}

ALWAYS_INLINE enum step quick_level(const struct gn_fmt *f, unsigned level, bool brief,
				    struct cursor *c, struct gn_guest_walk *out)
{
	const struct gn_fmt_level *l = &f->level[level];
	uint64_t table = c->entry & f->level[f->levels].address;
	uint64_t offset_mask = gn_level_bytes(level) - 1;

	if (!find_table(c, table, level == f->levels))
		return STEP_GIVE_UP;
	if (!brief) {
		out->table[level] = gpa_to_gfn(gpa(table));
		out->above[level] = level == f->levels ? GN_RWXU : gn_x86_rights(c->granted);
	}
	c->entry =
		load_entry(c->guess + gn_fmt_index(f, level, c->va) * sizeof(uint64_t), hpa(table));
	c->granted &= brief ? c->entry : c->entry ^ GN_X86_FLIP;
	if (!brief)
		out->entry[level] = c->entry;
	if (level > 1 && GN_LIKELY(entry_has(c->entry, l->present, c->paging->pointer_mask)))
		return STEP_DOWN;
	if (GN_UNLIKELY(!l->leaf_allowed ||
			!entry_has(c->entry, l->leaf | l->present,
				   c->paging->leaf_mask | l->leaf | l->reserved_leaf)))
		return STEP_GIVE_UP;
	c->level = level;
	c->gpa = (c->entry & l->address & ~offset_mask) | (c->va & offset_mask);
	return STEP_LEAF;
}

/* True: *out is the answer. A brief walk is no fetch, so it does not care how NX reads. */
ALWAYS_INLINE bool walk_quickly(const struct gn_fmt *f, bool brief, struct gn_vm *vm,
				const struct gn_paging *paging, uint64_t cr3,
				const struct gn_access *access, unsigned flags,
				struct gn_guest_walk *out)
{
	const struct gn_fmt_level *leaf =
		&f->level[1]; /* A, D, G, key: at one place in all leaves */
	struct cursor c = {
		.paging = paging,
		.words = vm->p2m.words,
		.gfn_count = vm->p2m.gfn_count,
		.frames = vm->frames->base,
		.va = access->va.v,
		.entry = cr3,
		.granted = ~(uint64_t)0,
	};
	enum step step = STEP_DOWN;
	gn_rights_t rights;
	unsigned pkey;

	if (GN_UNLIKELY(gn_fmt_extend(f, c.va) != c.va))
		return false;
	if (f->levels == 5)
		step = quick_level(f, 5, brief, &c, out);
	if (step == STEP_DOWN)
		step = quick_level(f, 4, brief, &c, out);
	if (step == STEP_DOWN)
		step = quick_level(f, 3, brief, &c, out);
	if (step == STEP_DOWN)
		step = quick_level(f, 2, brief, &c, out);
	if (step == STEP_DOWN)
		step = quick_level(f, 1, brief, &c, out);
	if (step == STEP_GIVE_UP)
		return false;
	rights = gn_x86_rights(c.granted);
	pkey = gn_fmt_pkey(f, 1, c.entry);
	if (GN_UNLIKELY(gn_paging_rights_deny(paging, rights, access)))
		return false;
	if (GN_UNLIKELY(paging->pke) && (paging->pkru >> (2 * pkey) & 3))
		return false; /* the key denies something, perhaps this */
	if ((flags & GN_GW_SET_AD) &&
	    GN_UNLIKELY(!(c.granted & leaf->accessed) ||
			(access->kind == GN_WRITE && !(c.entry & leaf->dirty))))
		return false;
	out->end = GN_GW_OK;
	out->error_code = 0;
	out->t.gpa = gpa(c.gpa);
	if (!brief) {
		out->refs = (uint8_t)(f->levels - c.level + 1);
		out->t.rights = rights;
		out->t.level = (uint8_t)c.level;
		out->t.pkey = (uint8_t)pkey;
		out->t.global = c.entry & leaf->global;
		out->t.dirty = c.entry & leaf->dirty;
	}
	return true;
}

static __attribute__((noinline)) void walk_4(struct gn_vm *vm, const struct gn_paging *paging,
					     uint64_t cr3, const struct gn_access *access,
					     unsigned flags, struct gn_guest_walk *out)
{
	if (GN_UNLIKELY(!walk_quickly(&x86_4, false, vm, paging, cr3, access, flags, out)))
		walk_in_full(vm, paging, cr3, access, flags, out);
}

static __attribute__((noinline)) void walk_4_brief(struct gn_vm *vm, const struct gn_paging *paging,
						   uint64_t cr3, const struct gn_access *access,
						   unsigned flags, struct gn_guest_walk *out)
{
	if (GN_UNLIKELY(!walk_quickly(&x86_4, true, vm, paging, cr3, access, flags, out)))
		walk_in_full(vm, paging, cr3, access, flags, out);
}

static __attribute__((noinline)) void walk_5(struct gn_vm *vm, const struct gn_paging *paging,
					     uint64_t cr3, const struct gn_access *access,
					     unsigned flags, struct gn_guest_walk *out)
{
	if (GN_UNLIKELY(!walk_quickly(&x86_5, false, vm, paging, cr3, access, flags, out)))
		walk_in_full(vm, paging, cr3, access, flags, out);
}

static __attribute__((noinline)) void walk_5_brief(struct gn_vm *vm, const struct gn_paging *paging,
						   uint64_t cr3, const struct gn_access *access,
						   unsigned flags, struct gn_guest_walk *out)
{
	if (GN_UNLIKELY(!walk_quickly(&x86_5, true, vm, paging, cr3, access, flags, out)))
		walk_in_full(vm, paging, cr3, access, flags, out);
}

/* Paging is off. */
static void identity(const struct gn_access *access, struct gn_guest_walk *out)
{
	out->end = GN_GW_OK;
	out->error_code = 0;
	out->refs = 0;
	out->t = (struct gn_translation){
		.rights = GN_RWXU, .level = GN_MAX_LEVELS, .dirty = true, .gpa = gpa(access->va.v)
	};
}

void gn_guest_walk(struct gn_vm *vm, const struct gn_paging *paging, uint64_t cr3,
		   const struct gn_access *access, unsigned flags, struct gn_guest_walk *out)
{
	bool brief = (flags & GN_GW_BRIEF) && access->kind != GN_FETCH;

	if (GN_UNLIKELY(!paging->levels))
		identity(access, out);
	else if (paging->levels == 4 && !brief)
		walk_4(vm, paging, cr3, access, flags, out);
	else if (paging->levels == 4)
		walk_4_brief(vm, paging, cr3, access, flags, out);
	else if (!brief)
		walk_5(vm, paging, cr3, access, flags, out);
	else
		walk_5_brief(vm, paging, cr3, access, flags, out);
}
