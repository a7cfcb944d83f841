/* SPDX-License-Identifier: MIT */
/*
 * arena.h - metadata memory: one jemalloc arena per VM, with exact accounting.
 *
 * Everything a VM allocates for itself or its scheme comes from its arena, so "memory used by tables"
 * is a fact and a leak is visible: destroying an arena with live bytes is a GN_BUG_ON in debug builds.
 * Bytes are counted by jemalloc's size classes (sallocx), i.e. what is really occupied.
 * Every allocation counts towards gn_alloc_fail_nth().
 */
#ifndef GN_MMU_ARENA_H
#define GN_MMU_ARENA_H

#include <stddef.h>
#include <stdint.h>

struct gn_arena;

int gn_arena_new(struct gn_arena **out); /* -ENOMEM */
void gn_arena_destroy(struct gn_arena *arena);

void *gn_arena_alloc(struct gn_arena *arena, size_t bytes); /* uninitialised; NULL: no memory */
void *gn_arena_zalloc(struct gn_arena *arena,
		      size_t bytes); /* zeroed; large ones are lazily backed */
void gn_arena_free(struct gn_arena *arena, void *p,
		   size_t bytes);		       /* the size it was asked with; NULL ok */
uint64_t gn_arena_bytes(const struct gn_arena *arena); /* live now */
uint64_t gn_arena_peak_bytes(const struct gn_arena *arena);

/* True when this allocation is the one chosen to fail. Call first at each allocation site that does
 * not go through an arena (host frames do). */
int gn_alloc_should_fail(void);

#endif
