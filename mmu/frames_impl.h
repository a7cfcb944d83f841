/* SPDX-License-Identifier: MIT */
/*
 * frames_impl.h - what the files of the pool share (frames.c: its books, and putting one; take.c: taking; give_back.c: putting many;
 * stock.c: those that stay resident; window.c: those of others; anchor.c: those that nobody is the last to leave); nobody else
 * includes it.
 */
#ifndef GN_MMU_FRAMES_IMPL_H
#define GN_MMU_FRAMES_IMPL_H

#include "atomics.h"
#include "frames.h"
#include "host_memory.h"
#include "lock.h"

#define GN_BLOCK_FRAMES ((uint64_t)GN_TABLE_ENTRIES)
#define GN_BLOCK_WORDS	(GN_BLOCK_FRAMES / 64)
#define GN_GIB_BLOCKS	((uint64_t)512)
#define GN_FULL_WORD	(~(uint64_t)0)

/* Memory of others that is shown in the window. */
struct gn_window_part {
	uint64_t first, count; /* frames, from the window's first on; no count: none */
	uint64_t lent;	       /* frames with a reference */
	int fd;		       /* our own */
	uint32_t serial;       /* not that of the memory which was there before */
};
#define GN_WINDOW_PARTS 128

struct gn_frames_impl {
	struct gn_lock lock;
	struct gn_host_memory memory; /* (c) */
	uint64_t block_count;	      /* (c) */
	uint64_t block_words;	      /* (c) words of a bitmap with one bit a block */
	uint64_t *taken;	      /* [lock] a bit a frame */
	uint64_t *dirty;	      /* [lock] a bit a frame: may hold a former owner's data */
	uint64_t *full;		      /* [lock] a bit a block: no frame is free */
	uint64_t *used;		      /* [lock] a bit a block: some frame is taken */
	uint64_t *kept;		      /* [lock] a bit a block: wholly free, not punched */
	uint16_t *taken_count;	      /* [lock] a block's frames that are taken */
	uint64_t full_hint;	      /* [lock] words of `full` below have no free frame */
	uint64_t full_top_hint;	      /* [lock] words of `full` above have no free frame */
	uint64_t used_hint;	      /* [lock] words of `used` below have no free block */
	unsigned kept_count;	      /* [lock] */
	struct gn_lock give_lock;     /* GN_RANK_GIVE: one who gives many back at a time */
	uint64_t *leaving; /* [give_lock] a bit a frame: to be given back, all zeros between */
	uint64_t *leaving_blocks;	  /* [give_lock] a bit a block: some frame is leaving */
	_Atomic(uint32_t) *refs;	  /* (a) one a frame, the window's too */
	_Atomic(uint64_t) used_frames;	  /* (a) own ones; written under lock */
	uint64_t reserve;		  /* [lock] frames that are not for more guest memory */
	uint64_t reserve_low;		  /* [lock] the fewest that were left by who may use them */
	uint64_t *stock;		  /* [lock] free frames that are resident: stock.c */
	uint64_t stock_count, stock_most; /* [lock] */
	struct gn_window_part parts[GN_WINDOW_PARTS]; /* [lock] */
	uint32_t part_serial;			      /* [lock] the last one */
	uint64_t
		*returned; /* [lock] a bit a frame of the window: put, and its owner was not told */
	uint64_t returned_hint; /* [lock] words of `returned` below have none */
	uint64_t *
		anchored; /* [lock] a bit a frame, the window's too: one of its references is ours */
	bool is_lifting;  /* [lock] some are anchored no more, and not free yet */
	void *tables;	  /* (c) the mapping that holds all of the above arrays */
	size_t tables_bytes; /* (c) */
};

static inline bool gn_bit_get(const uint64_t *map, uint64_t i)
{
	return map[i / 64] >> (i % 64) & 1;
}

static inline void gn_bit_set(uint64_t *map, uint64_t i)
{
	map[i / 64] |= (uint64_t)1 << (i % 64);
}

static inline void gn_bit_clear(uint64_t *map, uint64_t i)
{
	map[i / 64] &= ~((uint64_t)1 << (i % 64));
}

/* stock.c. Frames lock held. What is put is taken, and has no reference. */
bool gn_stock_has_room(const struct gn_frames_impl *impl);
void gn_stock_put(struct gn_frames_impl *impl, uint64_t frame);
bool gn_stock_take(struct gn_frames_impl *impl, uint64_t *frame);

/* frames.c. Frames lock held. */
void gn_count_used(struct gn_frames_impl *impl, uint64_t difference);
/* The lowest free frame, taken, without a reference. */
bool gn_frames_take_lowest(struct gn_frames_impl *impl, uint64_t *frame);
/* take.c. The first @count, of a new pool, with a reference each. */
void gn_frames_take_first(struct gn_frames *frames, uint64_t count);

/* anchor.c. Own frames that have nothing but their anchor are free; whether there were any. Frames lock held. */
bool gn_anchors_yield(struct gn_frames *frames);

/* give_back.c: gn_frames_put_runs(). Give lock held. */
uint64_t gn_give_back_runs(struct gn_frames *frames, const struct gn_frame_run *runs, size_t count);

/* gn_frames_put() of a frame of the window. */
bool gn_window_put(struct gn_frames *frames, pfn_t frame);
/* What is still in the window is let go. Nobody uses the pool any more. */
void gn_window_fini(struct gn_frames_impl *impl);

/* [first, first + count), whose references are gone, can be taken again. @is_clean: the host has their memory, and they
 * read as zeros. Frames lock held. */
void gn_frames_free_range(struct gn_frames *frames, uint64_t first, uint64_t count, bool is_clean);

#endif
