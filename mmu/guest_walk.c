/* SPDX-License-Identifier: MIT */
/*
 * guest_walk.c - the guest's page walk.
 *
 * As walk_body.h, with three differences: a table's address is guest-physical and goes through the p2m,
 * the registers decide what is reserved, and at the end the access is held against the rights.
 *
 * The order of events is the architecture's: an entry that is not present ends the walk before its
 * reserved bits matter; both end it before any right is looked at, since without a translation there is
 * nothing to have rights on (SDM 4.7). Rights of all levels are combined first and checked once.
 *
 * The way of a walk that sets no bit is kept short (it runs per TLB miss of software translation and per
 * shadow fault): nothing is cleared beforehand, A and D are looked at once, on the AND of all entries, and
 * everything rare is out of line. Setting bits is rare; it starts from what the walk found and, when an
 * entry has changed meanwhile, walks again.
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

struct cursor {
	const uint8_t *frames;		/* host address of HPA 0 */
	const _Atomic(uint64_t) *words; /* the p2m's, and how many */
	uint64_t gfn_count;
	uint64_t va;
	uint64_t reserved; /* paging->reserved */
	uint64_t table;	   /* gfn of the next table to read */
	uint64_t granted;  /* AND of the entries read, GN_X86_FLIP applied: rights, and A of each */
};

static uint64_t entry_offset(const struct gn_fmt *f, unsigned level, gva_t va)
{
	return gn_fmt_index(f, level, va.v) * sizeof(uint64_t);
}

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

/* Ends that are rare, out of line. */
static __attribute__((noinline)) void end_early(struct gn_guest_walk *out, const struct gn_fmt *f,
						unsigned level, uint64_t granted,
						enum gn_guest_walk_end end, uint32_t error_code)
{
	out->end = end;
	out->error_code = error_code;
	out->refs = (uint8_t)(f->levels - level + 1);
	out->t = (struct gn_translation){ .rights = gn_x86_rights(granted),
					  .level = (uint8_t)level };
}

static __attribute__((noinline)) void end_not_canonical(struct gn_guest_walk *out)
{
	out->end = GN_GW_GP;
	out->error_code = 0;
	out->refs = 0;
	out->t = (struct gn_translation){ 0 };
}

/* The table has no frame. Unbacked memory reads as zeros, so the entry is not present; what is not memory
 * is the caller's problem. */
static __attribute__((noinline)) void end_unread(struct gn_guest_walk *out, const struct gn_fmt *f,
						 unsigned level, const struct gn_paging *paging,
						 const struct gn_access *access, gfn_t table,
						 uint64_t granted, bool unbacked)
{
	out->entry[level] = 0;
	out->gpa = gpa(gfn_to_gpa(table).v + entry_offset(f, level, access->va));
	if (unbacked)
		end_early(out, f, level, granted, GN_GW_PF, gn_paging_error_base(paging, access));
	else
		end_early(out, f, level, granted, GN_GW_NO_TABLE, 0);
}

/* The entry is not present or has a reserved bit set. */
static __attribute__((noinline)) void end_unusable(struct gn_guest_walk *out,
						   const struct gn_fmt *f, unsigned level,
						   const struct gn_paging *paging,
						   const struct gn_access *access, uint64_t granted,
						   uint64_t entry)
{
	uint32_t code = gn_paging_error_base(paging, access);

	if (gn_fmt_is_present(f, level, entry))
		code |= X86_PF_P | X86_PF_RSVD;
	end_early(out, f, level, granted, GN_GW_PF, code);
}

/* The walk has ended at a well-formed leaf. */
ALWAYS_INLINE void end_leaf(const struct gn_fmt *f, unsigned level, const struct cursor *cursor,
			    uint64_t entry, struct gn_guest_walk *out)
{
	const struct gn_fmt_level *l = &f->level[level];
	uint64_t offset_mask = gn_level_bytes(level) - 1;

	out->end = GN_GW_OK;
	out->error_code = 0;
	out->refs = (uint8_t)(f->levels - level + 1);
	out->t = (struct gn_translation){
		.rights = gn_x86_rights(cursor->granted),
		.level = (uint8_t)level,
		.pkey = (uint8_t)gn_fmt_pkey(f, level, entry),
		.global = entry & l->global,
		.dirty = entry & l->dirty,
		.gpa = gpa((entry & l->address & ~offset_mask) | (cursor->va & offset_mask)),
	};
}

/* Read one level. True: go on, one level down. At a leaf out->t is complete and out->end is OK. */
ALWAYS_INLINE bool walk_level(const struct gn_fmt *f, unsigned level, bool brief,
			      const struct gn_paging *paging, const struct gn_access *access,
			      struct cursor *cursor, struct gn_guest_walk *out)
{
	const struct gn_fmt_level *l = &f->level[level];
	uint64_t table = cursor->table, above = cursor->granted, never, entry;
	p2m_word_t word = { GN_P2M_MMIO };
	const uint8_t *slots;

	if (!brief) {
		out->table[level] = gfn(table);
		out->above[level] = level == f->levels ? GN_RWXU : gn_x86_rights(above);
	}
	if (GN_LIKELY(table < cursor->gfn_count))
		word.v = atomic_load_explicit(&cursor->words[table], memory_order_acquire);
	if (GN_UNLIKELY(!gn_p2m_word_level(word))) { /* 0 where there is no frame */
		end_unread(out, f, level, paging, access, gfn(table), above,
			   gn_p2m_word_state(word) == GN_P2M_UNBACKED);
		return false;
	}
	/* The frame's address is the last thing known: add it last. */
	slots = cursor->frames + gn_fmt_index(f, level, cursor->va) * sizeof(uint64_t);
	entry = load_entry(slots, pfn_to_hpa(gn_p2m_word_pfn(word)));
	if (!brief)
		out->entry[level] = entry;
	cursor->granted &= entry ^ GN_X86_FLIP;

	/* A table pointer, in one comparison: present, no leaf mark, nothing reserved. */
	never = cursor->reserved | l->reserved_table | l->leaf;
	if (level > 1 && GN_LIKELY((entry & (never | l->present)) == l->present)) {
		cursor->table = (entry & l->address) >> GN_PAGE_SHIFT;
		return true;
	}
	never = cursor->reserved | l->reserved_leaf;
	if (l->leaf_allowed &&
	    GN_LIKELY((entry & (never | l->leaf | l->present)) == (l->leaf | l->present)))
		end_leaf(f, level, cursor, entry, out);
	else
		end_unusable(out, f, level, paging, access, above, entry);
	return false;
}

/* Set A in the entries used, D in the leaf on a write. False: an entry is no longer what the walk
 * read, so what the walk decided may be wrong too.
 *
 * A table may be written where its p2m word grants it: a shared frame is copied first, and that is the
 * caller's to do. A frame is logged as dirty after the store, so that a harvest in between reports it
 * (again) the next time. */
static bool set_accessed_dirty(struct gn_vm *vm, const struct gn_fmt *f,
			       const struct gn_access *access, struct gn_guest_walk *out)
{
	for (unsigned level = f->levels; level >= out->t.level; level--) {
		const struct gn_fmt_level *l = &f->level[level];
		bool dirty = level == out->t.level && access->kind == GN_WRITE;
		uint64_t entry = out->entry[level];
		uint64_t want = entry | l->accessed | (dirty ? l->dirty : 0);
		uint64_t offset = entry_offset(f, level, access->va);
		p2m_word_t word;
		hpa_t slot;

		if (want == entry)
			continue;
		word = gn_p2m_get(&vm->p2m, out->table[level]);
		if (!gn_p2m_word_grants(word, GN_W)) {
			out->gpa = gpa(gfn_to_gpa(out->table[level]).v + offset);
			out->end = GN_GW_NO_TABLE;
			out->t.level = (uint8_t)level;
			return true;
		}
		slot = hpa(pfn_to_hpa(gn_p2m_word_pfn(word)).v + offset);
		if (!__atomic_compare_exchange_n((uint64_t *)gn_frames_at(vm->frames, slot), &entry,
						 want, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
			return false;
		if (gn_dirty_is_logged(vm))
			gn_dirty_mark(vm, out->table[level]);
		out->entry[level] = want;
	}
	out->t.dirty |= access->kind == GN_WRITE;
	return true;
}

/* An allowed access needs A or D set: walk for the whole way to the leaf and set them, until nothing has
 * changed in between. */
static __attribute__((noinline)) void
walk_setting_bits(struct gn_vm *vm, const struct gn_paging *paging, uint64_t cr3,
		  const struct gn_access *access, struct gn_guest_walk *out)
{
	do
		gn_guest_walk(vm, paging, cr3, access, 0, out);
	while (out->end == GN_GW_OK && !set_accessed_dirty(vm, paging->fmt, access, out));
}

ALWAYS_INLINE void walk(const struct gn_fmt *f, bool brief, struct gn_vm *vm,
			const struct gn_paging *paging, uint64_t cr3,
			const struct gn_access *access, unsigned flags, struct gn_guest_walk *out)
{
	const struct gn_fmt_level *root = &f->level[f->levels];
	struct cursor c = {
		.frames = vm->frames->base,
		.words = vm->p2m.words,
		.gfn_count = vm->p2m.gfn_count,
		.va = access->va.v,
		.reserved = paging->reserved,
		.table = gpa_to_gfn(gpa(cr3 & root->address)).v,
		.granted = ~(uint64_t)0,
	};
	uint32_t denied;

	if (GN_UNLIKELY(gn_fmt_extend(f, c.va) != c.va)) {
		end_not_canonical(out);
		return;
	}
	if ((f->levels < 5 || walk_level(f, 5, brief, paging, access, &c, out)) &&
	    walk_level(f, 4, brief, paging, access, &c, out) &&
	    walk_level(f, 3, brief, paging, access, &c, out) &&
	    walk_level(f, 2, brief, paging, access, &c, out))
		walk_level(f, 1, brief, paging, access, &c, out);
	if (GN_UNLIKELY(out->end != GN_GW_OK))
		return;
	denied = gn_paging_access(paging, &out->t, access);
	if (GN_UNLIKELY(denied)) {
		out->end = GN_GW_PF;
		out->error_code = denied;
		return;
	}
	if ((flags & GN_GW_SET_AD) && GN_UNLIKELY(!(c.granted & root->accessed) ||
						  (access->kind == GN_WRITE && !out->t.dirty)))
		walk_setting_bits(vm, paging, cr3, access, out);
}

static __attribute__((noinline)) void walk_4(struct gn_vm *vm, const struct gn_paging *paging,
					     uint64_t cr3, const struct gn_access *access,
					     unsigned flags, struct gn_guest_walk *out)
{
	walk(&x86_4, false, vm, paging, cr3, access, flags, out);
}

static __attribute__((noinline)) void walk_4_brief(struct gn_vm *vm, const struct gn_paging *paging,
						   uint64_t cr3, const struct gn_access *access,
						   unsigned flags, struct gn_guest_walk *out)
{
	walk(&x86_4, true, vm, paging, cr3, access, flags, out);
}

static __attribute__((noinline)) void walk_5(struct gn_vm *vm, const struct gn_paging *paging,
					     uint64_t cr3, const struct gn_access *access,
					     unsigned flags, struct gn_guest_walk *out)
{
	walk(&x86_5, false, vm, paging, cr3, access, flags, out);
}

static __attribute__((noinline)) void walk_5_brief(struct gn_vm *vm, const struct gn_paging *paging,
						   uint64_t cr3, const struct gn_access *access,
						   unsigned flags, struct gn_guest_walk *out)
{
	walk(&x86_5, true, vm, paging, cr3, access, flags, out);
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
	if (GN_UNLIKELY(!paging->levels))
		identity(access, out);
	else if (paging->levels == 4 && !(flags & GN_GW_BRIEF))
		walk_4(vm, paging, cr3, access, flags, out);
	else if (paging->levels == 4)
		walk_4_brief(vm, paging, cr3, access, flags, out);
	else if (!(flags & GN_GW_BRIEF))
		walk_5(vm, paging, cr3, access, flags, out);
	else
		walk_5_brief(vm, paging, cr3, access, flags, out);
}
