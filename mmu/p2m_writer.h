/* SPDX-License-Identifier: MIT */
/*
 * p2m_writer.h - what the writers of the p2m share (p2m_change.c, p2m_fault.c, p2m_known.c ...); nobody else includes it.
 *
 * All of it with the p2m lock held and outside RCU read sections.
 */
#ifndef GN_MMU_P2M_WRITER_H
#define GN_MMU_P2M_WRITER_H

#include "vm.h"

/* Publish a word and keep the count of backed pages. */
void gn_p2m_set(struct gn_vm *vm, gfn_t at, p2m_word_t word);

/* One of the p2m's counts changes by @difference (modulo 2^64). */
static inline void gn_p2m_count(_Atomic(uint64_t) *count, uint64_t difference)
{
	uint64_t old = atomic_load_explicit(count, memory_order_relaxed);

	atomic_store_explicit(count, old + difference, memory_order_relaxed);
}

/* How many gfns from @at on, below @end, have @at's word @w but for the frame, which is the next one each time: the rest
 * of its block. */
static inline uint64_t gn_p2m_alike(p2m_word_t w, uint64_t at, uint64_t end)
{
	unsigned level = gn_p2m_word_level(w);
	uint64_t rest;

	if (level <= 1)
		return 1;
	rest = gn_level_pages(level) - (at & (gn_level_pages(level) - 1));
	return rest < end - at ? rest : end - at;
}

/* The locks of a change: vm->lock around the p2m's, for a scheme switch exchanges what range() goes to. Who takes them
 * waits for grace periods: not inside an RCU read section. */
void gn_p2m_change_lock(struct gn_vm *vm);
void gn_p2m_change_unlock(struct gn_vm *vm);
/* Between two changes of many: faults and others that wait come first. Neither lock held. */
void gn_p2m_change_give_way(struct gn_vm *vm);
/* The backend learns that the change is complete. No lock held. */
void gn_p2m_change_tell(struct gn_vm *vm, gfn_t start, uint64_t count);

/* A change of [start, end): the sequence becomes odd, blocks that cross a boundary are split, words with a
 * frame lose their rights, the scheme forgets the range, a flush of everything is posted if there was
 * anything to cache. Then the caller sets each word anew, and ends. @settle: also wait until nobody uses
 * an old translation, so that the contents of the range's frames stand still until the end. */
void gn_p2m_change_begin(struct gn_vm *vm, gfn_t start, gfn_t end, bool settle);
/* The same for runs as gn_p2m_balloon_runs() takes them, with one flush for all, and no settling. */
void gn_p2m_change_begin_runs(struct gn_vm *vm, const struct gn_gfn_run *runs, size_t count);
/* A change after which all gfns hold what they held before. Only stores are held off, and contents stand still
 * when it returns: where the dirty log knows that nobody stores, nobody is waited for. Reads of what is mapped go
 * on. When the words are set, and before frames they had are retired, gn_p2m_change_moved() has translations
 * follow. For schemes and backends with which reads can go on. */
bool gn_p2m_reads_can_go_on(const struct gn_vm *vm);
void gn_p2m_change_begin_readable(struct gn_vm *vm, const struct gn_gfn_run *runs, size_t count);
void gn_p2m_change_moved(struct gn_vm *vm, const struct gn_gfn_run *runs, size_t count);
/* The running change takes in another range. */
void gn_p2m_change_extend(struct gn_vm *vm, gfn_t start, gfn_t end, bool settle);
void gn_p2m_change_end(struct gn_vm *vm);

/* A zeroed frame or block. Waits for retired frames before it says -ENOMEM. */
int gn_p2m_alloc(struct gn_vm *vm, unsigned level, pfn_t *out);

/* A frame to copy @at's shared one to, as gn_frames_alloc_copy() has it. */
int gn_p2m_alloc_copy(struct gn_vm *vm, gfn_t at, pfn_t *out);

/* Frames for the UNBACKED gfn @at: a block of the backing level if the block around @at is unbacked as a
 * whole and the pool has one, else smaller. Nothing below @floor is given: it has frames in a plan that no
 * word tells of yet. The caller sets the words of the block. */
struct gn_p2m_fill {
	gfn_t start;
	unsigned level;
	pfn_t frame;
};
int gn_p2m_fill_alloc(struct gn_vm *vm, gfn_t at, gfn_t floor, struct gn_p2m_fill *out);
/* The word of the ith gfn of a fill. */
static inline p2m_word_t gn_p2m_fill_word(const struct gn_p2m_fill *fill, uint64_t i)
{
	return gn_p2m_word(GN_P2M_PRIVATE, GN_RWX, fill->level, pfn(fill->frame.v + i));
}

/* Give a SHARED gfn a frame of its own with the same contents. */
int gn_p2m_unshare(struct gn_vm *vm, gfn_t at);

#endif
