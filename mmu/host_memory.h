/* SPDX-License-Identifier: MIT */
/*
 * host_memory.h - the memory behind the pool of frames: one mapping of this process, and the ways to give parts of
 * it back to the host.
 *
 * Threads: any; nothing is taken. Who drops a range sees to it that nobody uses it.
 */
#ifndef GN_MMU_HOST_MEMORY_H
#define GN_MMU_HOST_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <gnomon/engine.h>

struct gn_host_memory {
	uint8_t *base;	     /* (c) 2 MiB aligned */
	uint64_t bytes;	     /* (c) */
	uint64_t tail_bytes; /* (c) addresses kept free behind them */
	int fd;		     /* (c) the memfd; -1: anonymous */
	int self_fd;	     /* (c) a pidfd of this process, for vectored calls; -1: none */
	bool huge;	     /* (c) anonymous, and the host is asked for large pages */
	const uint8_t *template_pages; /* (c) to be compared with; NULL: there is none */
	uint64_t template_bytes;       /* (c) */
	int pagemap_fd; /* (c) over a template: it tells copies from the template's own pages; else -1 */
};

/* A range of the pool, in bytes. */
struct gn_host_range {
	uint64_t offset, bytes;
};
#define GN_HOST_RANGES_MAX 1024 /* of one call (UIO_MAXIOV) */

/* @bytes and @tail_bytes are multiples of 2 MiB. Nothing is backed yet. @huge: large host pages are worth having (a memfd always
 * asks). -errno of mmap and memfd_create. */
int gn_host_memory_map(enum gn_pool_kind kind, uint64_t bytes, bool huge, uint64_t tail_bytes,
		       struct gn_host_memory *out);
/* The same, but the first @template_bytes (a multiple of 4 KiB, at most @bytes) are private memory over the file @template_fd: they read as
 * the file does until they are written, and again once they are dropped. The rest is anonymous. -EPERM: the file could still be written
 * or shrunk (F_SEAL_WRITE, F_SEAL_SHRINK); other errors of gn_host_memory_check(); -errno of mmap() and open(). */
int gn_host_memory_map_template(int template_fd, uint64_t template_bytes, uint64_t bytes,
				struct gn_host_memory *out);
/* Somebody else's memfd can be mapped: it has @seals (else -EPERM), @bytes, and pages of 4 KiB (else -EINVAL: of a hugetlb file
 * a mapping would be larger than what was asked for). -errno of fcntl(), fstat() and fstatfs(). */
int gn_host_memory_check(int fd, int seals, uint64_t bytes);
/* Which of the pages [first, first + count) of a template's are no longer the template's, but copies: one bit a page, bit 0 of word 0
 * first, @bitmap is overwritten. A glimpse: who writes makes a copy. -errno of pread(). */
int gn_host_memory_find_copies(const struct gn_host_memory *memory, uint64_t first, uint64_t count,
			       uint64_t *bitmap);
/* Show @fd's first @bytes read-only at @offset of the tail, instead of what was there; -1: nothing, and any access faults. */
int gn_host_memory_show(const struct gn_host_memory *memory, uint64_t offset, uint64_t bytes,
			int fd);
void gn_host_memory_unmap(struct gn_host_memory *memory);

/* @range will be written as a whole: have the host find memory for it by one call, for a touch costs a fault a page. A hint: who writes what
 * the host did not find has the fault. */
void gn_host_memory_populate(const struct gn_host_memory *memory, struct gn_host_range range);

/* Give @range back: it reads as zeros afterwards, or as the template does. -errno: it is as it was (locked memory, for one). */
int gn_host_memory_drop(const struct gn_host_memory *memory, struct gn_host_range range);
/* The same for up to GN_HOST_RANGES_MAX ranges, in as few calls as the host allows. Returns how many of the
 * first ones were dropped; the next one could not be, and nothing is known of those behind it. */
size_t gn_host_memory_drop_all(const struct gn_host_memory *memory,
			       const struct gn_host_range *ranges, size_t count);

#endif
