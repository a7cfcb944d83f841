/* SPDX-License-Identifier: MIT */
/*
 * p2m.h - which host frame a gfn has: the one truth.
 *
 * A flat array with one 64-bit word per gfn, so a lookup is a bounds check and a load. Every other
 * table of the engine is a cache of it. Readers take nothing (they are inside an RCU read section:
 * the frame they found is not reused before they leave). Writers are serialised by the p2m lock and
 * change a range in three steps:
 *
 *     begin (sequence becomes odd) -> the scheme drops what it caches of the range -> change -> end (even)
 *
 * A fault reads the sequence before it looks, and checks it again under its scheme's lock before it
 * installs (gn_p2m_retry): an install can never outlive the truth it was made from. Filling an
 * UNBACKED gfn needs none of that, for nothing caches the absence of a frame.
 *
 * While a range changes, the words of its frames keep state and frame but grant no right at all, or
 * none to write where contents will be the same. So a reader that goes by the word alone (native, software translation) must look at the word's
 * rights, not only at its state: what it may not do now is answered by gn_p2m_resolve(), which
 * waits for the change to end.
 *
 * Word: frame number, state, rights (R W X), and the largest level at which the gfn's aligned block
 * is one block of host frames with one state and rights, so that a large leaf may map it. A SHARED word may be
 * sealed: then it never has a right, and any access gives the gfn a frame of its own.
 */
#ifndef GN_MMU_P2M_H
#define GN_MMU_P2M_H

#include <gnomon/engine.h>

#include "arena.h"
#include "atomics.h"
#include "lock.h"

typedef struct p2m_word {
	uint64_t v;
} p2m_word_t;

/* Layout of the word (ours, not a hardware format). */
#define GN_P2M_STATE_SHIFT  0 /* 3 bits: enum gn_p2m_state */
#define GN_P2M_RIGHTS_SHIFT 3 /* 3 bits: GN_R, GN_W, GN_X */
#define GN_P2M_LEVEL_SHIFT  6 /* 2 bits: 1..3, 0 without a frame */
#define GN_P2M_SEALED	    ((uint64_t)1 << 8)
#define GN_P2M_LENT                                                                                \
	((uint64_t)1 << 9)  /* UNBACKED: its zeros were taken, see gn_frames_set_reserve() */
#define GN_P2M_PFN_SHIFT 12 /* the frame number, 40 bits */

static inline enum gn_p2m_state gn_p2m_word_state(p2m_word_t w)
{
	return (enum gn_p2m_state)(w.v & 7);
}
static inline gn_rights_t gn_p2m_word_rights(p2m_word_t w)
{
	return (w.v >> GN_P2M_RIGHTS_SHIFT) & GN_RWX;
}
static inline unsigned gn_p2m_word_level(p2m_word_t w)
{
	return (w.v >> GN_P2M_LEVEL_SHIFT) & 3;
}
static inline pfn_t gn_p2m_word_pfn(p2m_word_t w)
{
	return pfn(w.v >> GN_P2M_PFN_SHIFT);
}
static inline p2m_word_t gn_p2m_word(enum gn_p2m_state state, gn_rights_t rights, unsigned level,
				     pfn_t frame)
{
	p2m_word_t w;

	w.v = (uint64_t)state | (uint64_t)rights << GN_P2M_RIGHTS_SHIFT |
	      (uint64_t)level << GN_P2M_LEVEL_SHIFT | frame.v << GN_P2M_PFN_SHIFT;
	return w;
}
/* The rights it has outside of changes. */
static inline gn_rights_t gn_p2m_word_rights_at_rest(p2m_word_t w)
{
	switch (gn_p2m_word_state(w)) {
	case GN_P2M_PRIVATE:
		return GN_RWX;
	case GN_P2M_SHARED:
		return w.v & GN_P2M_SEALED ? 0 : GN_R | GN_X;
	case GN_P2M_READONLY:
		return GN_R | GN_X;
	default:
		return 0;
	}
}
/* The word of a change that came to nothing. */
static inline p2m_word_t gn_p2m_word_at_rest(p2m_word_t w)
{
	w.v |= (uint64_t)gn_p2m_word_rights_at_rest(w) << GN_P2M_RIGHTS_SHIFT;
	return w;
}
/* The same gfn in another frame, at rest. */
static inline p2m_word_t gn_p2m_word_moved(p2m_word_t w, unsigned level, pfn_t frame)
{
	p2m_word_t moved =
		gn_p2m_word(gn_p2m_word_state(w), gn_p2m_word_rights_at_rest(w), level, frame);

	moved.v |= w.v & GN_P2M_SEALED;
	return moved;
}
/* The word has a frame that grants all of @rights now. */
static inline bool gn_p2m_word_grants(p2m_word_t w, gn_rights_t rights)
{
	return (gn_p2m_word_rights(w) & rights) == rights; /* without a frame there are none */
}
/* PRIVATE, SHARED, READONLY have a frame. */
static inline bool gn_p2m_word_has_frame(p2m_word_t w)
{
	enum gn_p2m_state s = gn_p2m_word_state(w);

	return s == GN_P2M_PRIVATE || s == GN_P2M_SHARED || s == GN_P2M_READONLY;
}

struct gn_p2m {
	_Atomic(uint64_t) *words;	   /* (c) one per gfn */
	uint64_t gfn_count;		   /* (c) */
	_Atomic(uint64_t) sequence;	   /* (a) odd while a range changes; written under lock */
	struct gn_lock lock;		   /* writers */
	unsigned backing_level;		   /* (c) */
	_Atomic(uint64_t) backed_pages;	   /* (a) gfns with a frame; written under lock */
	_Atomic(uint64_t) ballooned_pages; /* as backed_pages: BALLOONED gfns */
};

int gn_p2m_init(struct gn_p2m *p2m, struct gn_vm *vm, uint64_t gfn_count, unsigned backing_level);
void gn_p2m_fini(struct gn_p2m *p2m, struct gn_vm *vm);

/* Past the end reads as MMIO. */
static inline p2m_word_t gn_p2m_get(const struct gn_p2m *p2m, gfn_t at)
{
	p2m_word_t w;

	if (__builtin_expect(at.v >= p2m->gfn_count, 0))
		w.v = GN_P2M_MMIO;
	else
		w.v = atomic_load_explicit(&p2m->words[at.v], memory_order_acquire);
	return w;
}

static inline bool gn_p2m_is_in_ram(const struct gn_p2m *p2m, gfn_t start, uint64_t count)
{
	return start.v <= p2m->gfn_count && count <= p2m->gfn_count - start.v;
}

/* For faults: an even sequence to hold against gn_p2m_retry(); waits out a running change, so it
 * must not be called inside an RCU read section (the change may wait for that section) or under a
 * lock. */
uint64_t gn_p2m_begin_read(const struct gn_p2m *p2m);
/* Under the scheme's lock, before installing. True: throw the walk away and start again. */
bool gn_p2m_retry(const struct gn_p2m *p2m, uint64_t sequence);

/* Give an UNBACKED gfn its frame (a block of the backing level when the whole block is unbacked RAM
 * and the pool has one), or copy a SHARED one for a write, a sealed one for any access. Idempotent. *out is the word afterwards.
 * 0 even when the state has no frame to give (MMIO, BALLOONED): look at *out. -ENOMEM. Not inside
 * an RCU read section. */
int gn_p2m_fault_in(struct gn_vm *vm, gfn_t at, bool write, p2m_word_t *out);

/* gn_p2m_fault_in() and the verdict: 0 with fix->kind GN_FIX_RETRY when *word has a frame usable
 * for the access, or GN_FIX_MMIO or GN_FIX_DENIED filled in (.gpa is the page's; refine it if you
 * know the offset). -ENOMEM. Not inside an RCU read section. */
int gn_p2m_resolve(struct gn_vm *vm, gfn_t at, bool write, p2m_word_t *word, struct gn_fix *fix);

/* gn_p2m_discard_zeroes(), or gn_p2m_drop_copies() for a VM over a template, for who has looked at the pages that are not spared a moment ago
 * and found zeros, or copies that hold what the template holds: they are read once, when it counts, and not before. */
int gn_p2m_discard_seen(struct gn_vm *vm, gfn_t start, uint64_t count, const uint8_t *spared,
			uint64_t *freed_pages);

/* gn_p2m_balloon_runs() and its like for an owner whose pages others change, too: gfns in a state
 * the operation refuses are left out, each told to @left_out with the p2m lock held; all others
 * change. @runs are in RAM, in ascending order and disjoint. Any thread that is not inside a guest
 * access. */
enum gn_p2m_drop_kind {
	GN_P2M_DROP_DISCARD,
	GN_P2M_DROP_BALLOON,
	GN_P2M_DROP_UNBALLOON,
	GN_P2M_DROP_TO_MMIO,
};
typedef void gn_p2m_left_out_fn(void *ctx, gfn_t at);
void gn_p2m_drop_allowed(struct gn_vm *vm, const struct gn_gfn_run *runs, size_t count,
			 enum gn_p2m_drop_kind kind, gn_p2m_left_out_fn *left_out, void *ctx);

/* Host pointer to the datum at @at when it is memory, else NULL. RCU read section. To read: who
 * writes looks at the word's rights in the same section. */
void *gn_p2m_pointer(struct gn_vm *vm, gpa_t at);
/* The same for a word that was looked at already and has a frame. */
void *gn_p2m_pointer_of(struct gn_vm *vm, p2m_word_t word, gpa_t at);

#endif
