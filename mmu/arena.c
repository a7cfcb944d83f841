/* SPDX-License-Identifier: MIT */
/*
 * arena.c - metadata memory on a jemalloc arena of its own.
 *
 * jemalloc can make an arena whose extents belong to nobody else, so freeing a VM is dropping its arena,
 * two VMs never share a cache line, and the bytes of one are countable. We bypass the thread cache
 * (MALLOCX_TCACHE_NONE): a cached object would come from, or go back to, somebody else's arena.
 *
 * A dropped arena is emptied and kept for the next VM, or the next scheme of one. Where jemalloc retains address space, as it does by
 * default on 64 bits, it does not give back that of an arena it destroys: 2 MiB and more each time, and a mapping, until the host has no
 * more of those.
 *
 * Accounting is by size class (sallocx): what is occupied, not what was asked for. `live` and `peak` are
 * relaxed atomics: they are statistics, nothing is ordered by them.
 *
 * Under AddressSanitizer and ThreadSanitizer the arena is plain malloc, since only then do they see
 * overflows and races of our objects; the accounting is kept, the leak check too.
 *
 * Deliberately absent: realloc, alignment beyond malloc's, and a per-arena limit.
 */
#include "arena.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "check.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define GN_PLAIN_MALLOC 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) ||                         \
	__has_feature(memory_sanitizer)
#define GN_PLAIN_MALLOC 1
#endif
#endif
#ifndef GN_PLAIN_MALLOC
#define GN_PLAIN_MALLOC 0
#endif

#if GN_PLAIN_MALLOC
#include <malloc.h>
#else
#include <jemalloc/jemalloc.h>
#include <pthread.h>
#endif

struct gn_arena {
	unsigned index;		     /* (c) jemalloc's */
	_Atomic uint64_t live_bytes; /* (a) */
	_Atomic uint64_t peak_bytes; /* (a) */
};

/* ---- Fault injection --------------------------------------------------------------------------- */

/* Counting starts with the first gn_alloc_fail_nth(): an embedder that never tests pays one load. */
static atomic_bool fail_counting;
static _Atomic uint64_t fail_made;	/* allocations since the last gn_alloc_fail_nth() */
static _Atomic uint64_t fail_countdown; /* the allocation that makes it 0 fails; 0: none */

uint64_t gn_alloc_fail_nth(uint64_t n)
{
	atomic_store(&fail_counting, true);
	atomic_store(&fail_countdown, n);
	return atomic_exchange(&fail_made, 0);
}

int gn_alloc_should_fail(void)
{
	uint64_t left;

	if (GN_LIKELY(!atomic_load_explicit(&fail_counting, memory_order_relaxed)))
		return 0;
	atomic_fetch_add_explicit(&fail_made, 1, memory_order_relaxed);
	left = atomic_load_explicit(&fail_countdown, memory_order_relaxed);
	while (left)
		if (atomic_compare_exchange_weak(&fail_countdown, &left, left - 1))
			return left == 1;
	return 0;
}

/* ---- jemalloc or malloc ------------------------------------------------------------------------- */

#if GN_PLAIN_MALLOC

static int backing_open(unsigned *index)
{
	*index = 0;
	return 0;
}

static void backing_close(unsigned index)
{
	(void)index;
}

static void *backing_alloc(unsigned index, size_t bytes, bool zero, size_t *occupied)
{
	void *p = zero ? calloc(1, bytes) : malloc(bytes);

	(void)index;
	if (p)
		*occupied = malloc_usable_size(p);
	return p;
}

static size_t backing_free(unsigned index, void *p, size_t bytes)
{
	size_t occupied = malloc_usable_size(p);

	(void)index;
	GN_BUG_ON(bytes > occupied);
	free(p);
	return occupied;
}

#else

enum { ARENAS_MAX = 4096 }; /* jemalloc has fewer */

static struct {
	pthread_mutex_t lock;
	unsigned count;		    /* [lock] */
	unsigned index[ARENAS_MAX]; /* [lock] */
} idle = { .lock = PTHREAD_MUTEX_INITIALIZER };

static int backing_open(unsigned *index)
{
	size_t bytes = sizeof(*index);
	bool found;

	pthread_mutex_lock(&idle.lock);
	found = idle.count;
	if (found)
		*index = idle.index[--idle.count];
	pthread_mutex_unlock(&idle.lock);
	return !found && mallctl("arenas.create", index, &bytes, NULL, 0) ? -ENOMEM : 0;
}

static void arena_do(const char *what, unsigned index)
{
	size_t mib[3], length = 3;

	GN_BUG_ON(mallctlnametomib(what, mib, &length));
	mib[1] = index;
	GN_BUG_ON(mallctlbymib(mib, length, NULL, NULL, NULL, 0));
}

/* What is left in it goes, and its memory is the host's, but for what jemalloc knows of it. */
static void backing_close(unsigned index)
{
	arena_do("arena.0.reset", index);
	arena_do("arena.0.purge", index);
	pthread_mutex_lock(&idle.lock);
	GN_BUG_ON(idle.count == ARENAS_MAX);
	idle.index[idle.count++] = index;
	pthread_mutex_unlock(&idle.lock);
}

static void *backing_alloc(unsigned index, size_t bytes, bool zero, size_t *occupied)
{
	int flags = MALLOCX_ARENA(index) | MALLOCX_TCACHE_NONE | (zero ? MALLOCX_ZERO : 0);
	void *p = mallocx(bytes, flags);

	if (p)
		*occupied = sallocx(p, 0);
	return p;
}

static size_t backing_free(unsigned index, void *p, size_t bytes)
{
	size_t occupied = nallocx(bytes, MALLOCX_ARENA(index));

#ifdef GN_DEBUG
	GN_BUG_ON(sallocx(p, 0) != occupied);
#endif
	sdallocx(p, bytes, MALLOCX_TCACHE_NONE);
	return occupied;
}

#endif

/* ---- Arena ----------------------------------------------------------------------------------------- */

int gn_arena_new(struct gn_arena **out)
{
	struct gn_arena *arena;

	if (gn_alloc_should_fail())
		return -ENOMEM;
	arena = calloc(1, sizeof(*arena));
	if (!arena)
		return -ENOMEM;
	if (backing_open(&arena->index)) {
		free(arena);
		return -ENOMEM;
	}
	*out = arena;
	return 0;
}

void gn_arena_destroy(struct gn_arena *arena)
{
	uint64_t live;

	if (!arena)
		return;
	live = gn_arena_bytes(arena);
	if (live)
		gn_log(GN_LOG_ERROR, "arena destroyed with %llu live bytes",
		       (unsigned long long)live);
#ifdef GN_DEBUG
	GN_BUG_ON(live != 0);
#endif
	backing_close(arena->index);
	free(arena);
}

static void *alloc(struct gn_arena *arena, size_t bytes, bool zero)
{
	size_t occupied = 0;
	uint64_t live, peak;
	void *p;

	if (gn_alloc_should_fail())
		return NULL;
	p = backing_alloc(arena->index, bytes ? bytes : 1, zero, &occupied);
	if (!p)
		return NULL;
	live = atomic_fetch_add_explicit(&arena->live_bytes, occupied, memory_order_relaxed) +
	       occupied;
	peak = atomic_load_explicit(&arena->peak_bytes, memory_order_relaxed);
	while (live > peak &&
	       !atomic_compare_exchange_weak_explicit(&arena->peak_bytes, &peak, live,
						      memory_order_relaxed, memory_order_relaxed))
		;
	return p;
}

void *gn_arena_alloc(struct gn_arena *arena, size_t bytes)
{
	return alloc(arena, bytes, false);
}

void *gn_arena_zalloc(struct gn_arena *arena, size_t bytes)
{
	return alloc(arena, bytes, true);
}

void gn_arena_free(struct gn_arena *arena, void *p, size_t bytes)
{
	size_t occupied;

	if (!p)
		return;
	occupied = backing_free(arena->index, p, bytes ? bytes : 1);
	atomic_fetch_sub_explicit(&arena->live_bytes, occupied, memory_order_relaxed);
}

uint64_t gn_arena_bytes(const struct gn_arena *arena)
{
	return atomic_load_explicit(&arena->live_bytes, memory_order_relaxed);
}

uint64_t gn_arena_peak_bytes(const struct gn_arena *arena)
{
	return atomic_load_explicit(&arena->peak_bytes, memory_order_relaxed);
}
