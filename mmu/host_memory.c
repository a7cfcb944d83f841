/* SPDX-License-Identifier: MIT */
/*
 * host_memory.c - the memory behind the pool.
 *
 * Three kinds. A memfd can be mapped elsewhere too (a second view of it, another process); giving a page of it back
 * is a hole punched into a file, whoever maps it. An anonymous mapping belongs to this process alone, and giving a page
 * back is the cheapest thing the kernel offers. A VMM that shares memory with nobody has the choice.
 *
 * The third begins with private memory over a file that others map as well, a template: the host makes a copy of a page when it is first
 * written, and to drop the copy is to have the template's page again. Whether a page is a copy nobody is told; the kernel's own
 * books are asked (/proc/self/pagemap), eight bytes a page. A hole of the file costs it a page once it is touched, for all who map it.
 *
 * What a call costs is not the page but the flush of the host's TLBs that ends it: tens of microseconds for one page
 * where the host is a guest itself, and an interrupt for each CPU that runs a thread of ours. process_madvise() takes
 * 1024 ranges and flushes once. Linux lets a process use it on itself for any advice since 6.13; an older
 * kernel refuses, and then each range is a call.
 *
 * Behind the pool addresses may be kept free, where memory of others is shown, read-only: a frame of theirs is then an addition
 * away like any other.
 *
 * Deliberately absent: MADV_FREE and balloon-like hints. What is given back is given back now, so that it can be
 * counted now.
 */
#include "host_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define BLOCK_BYTES	  ((uint64_t)2 << 20)
#define GAP_BYTES	  ((uint64_t)8 * GN_PAGE_SIZE)
#define ENTRIES		  512		      /* of the pagemap, read at a time */
#define PM_PRESENT	  ((uint64_t)1 << 63) /* Documentation/admin-guide/mm/pagemap.rst */
#define PM_SWAPPED	  ((uint64_t)1 << 62)
#define PM_FILE_OR_SHARED ((uint64_t)1 << 61)

/* Addresses nobody else gets, without access. */
static int reserve(uint64_t bytes, uint8_t **out)
{
	uint64_t head, total = bytes + BLOCK_BYTES;
	uint8_t *p;

	if (total < bytes)
		return -ENOMEM;
	p = mmap(NULL, total, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		return -errno;
	head = -(uintptr_t)p & (BLOCK_BYTES - 1);
	if (head)
		munmap(p, head);
	munmap(p + head + bytes, BLOCK_BYTES - head);
	*out = p + head;
	return 0;
}

static int map_memfd(struct gn_host_memory *m)
{
	int err;

	m->fd = memfd_create("gnomon-frames", MFD_CLOEXEC);
	if (m->fd < 0)
		return -errno;
	if (ftruncate(m->fd, (off_t)m->bytes) ||
	    mmap(m->base, m->bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE | MAP_FIXED,
		 m->fd, 0) == MAP_FAILED) {
		err = -errno;
		close(m->fd);
		return err;
	}
	/* Fewer host TLB misses where the host allows huge pages in shared memory; no harm elsewhere. */
	(void)madvise(m->base, m->bytes, MADV_HUGEPAGE);
	return 0;
}

static int map_anonymous(struct gn_host_memory *m, bool huge)
{
	m->fd = -1;
	if (mmap(m->base, m->bytes, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED)
		return -errno;
	/* Frames of 4 KiB on pages of 2 MiB: the host would back what nobody asked for, and dropping one page
	 * of a large one frees nothing before the host is short of memory. */
	m->huge = huge && !madvise(m->base, m->bytes, MADV_HUGEPAGE);
	if (!m->huge)
		(void)madvise(m->base, m->bytes, MADV_NOHUGEPAGE);
	/* A child has no use for a guest's memory, and copy on write would double it. */
	(void)madvise(m->base, m->bytes, MADV_DONTFORK);
	return 0;
}

int gn_host_memory_map(enum gn_pool_kind kind, uint64_t bytes, bool huge, uint64_t tail_bytes,
		       struct gn_host_memory *out)
{
	struct gn_host_memory m = { .bytes = bytes, .tail_bytes = tail_bytes, .pagemap_fd = -1 };
	int err = bytes + tail_bytes < bytes ? -ENOMEM : reserve(bytes + tail_bytes, &m.base);

	if (err)
		return err;
	err = kind == GN_POOL_ANONYMOUS ? map_anonymous(&m, huge) : map_memfd(&m);
	if (err) {
		munmap(m.base, bytes + tail_bytes);
		return err;
	}
	m.self_fd = (int)syscall(SYS_pidfd_open, getpid(), 0);
	*out = m;
	return 0;
}

int gn_host_memory_check(int fd, int seals, uint64_t bytes)
{
	int has = fcntl(fd, F_GET_SEALS);
	struct statfs fs;
	struct stat st;

	if (has < 0 || fstat(fd, &st) || fstatfs(fd, &fs))
		return -errno;
	if ((has & seals) != seals)
		return -EPERM;
	return fs.f_type != TMPFS_MAGIC || (uint64_t)st.st_size < bytes ? -EINVAL : 0;
}

/* ---- Over a template ----------------------------------------------------------------------------- */

/* The private memory, and the template beside it. Before Linux 6.7 a file that is sealed against writers has no shared mappings; a private
 * one that nobody can write is as good. */
static int map_template(struct gn_host_memory *m, int fd)
{
	void *pages = mmap(NULL, m->template_bytes, PROT_READ, MAP_PRIVATE, fd, 0);

	if (pages == MAP_FAILED)
		return -errno;
	m->template_pages = pages; /* gn_host_memory_unmap()'s from here on */
	if (mmap(m->base, m->template_bytes, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED, fd, 0) == MAP_FAILED)
		return -errno;
	/* A child has no use for a guest's memory. */
	(void)madvise(m->base, m->template_bytes, MADV_DONTFORK);
	return 0;
}

int gn_host_memory_map_template(int template_fd, uint64_t template_bytes, uint64_t bytes,
				struct gn_host_memory *out)
{
	struct gn_host_memory m;
	int err = gn_host_memory_check(template_fd, F_SEAL_WRITE | F_SEAL_SHRINK, template_bytes);

	if (err)
		return err;
	err = gn_host_memory_map(GN_POOL_ANONYMOUS, bytes, false, 0, &m);
	if (err)
		return err;
	m.template_bytes = template_bytes;
	err = map_template(&m, template_fd);
	if (err)
		goto fail;
	m.pagemap_fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (m.pagemap_fd < 0) {
		err = -errno;
		goto fail;
	}
	*out = m;
	return 0;

fail:
	gn_host_memory_unmap(&m);
	return err;
}

int gn_host_memory_find_copies(const struct gn_host_memory *memory, uint64_t first, uint64_t count,
			       uint64_t *bitmap)
{
	const uint64_t start = (uintptr_t)memory->base / GN_PAGE_SIZE + first;
	uint64_t entries[ENTRIES];

	memset(bitmap, 0, (count + 63) / 64 * sizeof(bitmap[0]));
	for (uint64_t at = 0, n; at < count; at += n) {
		ssize_t got;

		n = count - at < ENTRIES ? count - at : ENTRIES;
		got = pread(memory->pagemap_fd, entries, n * sizeof(entries[0]),
			    (off_t)((start + at) * sizeof(entries[0])));
		if (got != (ssize_t)(n * sizeof(entries[0])))
			return got < 0 ? -errno : -EIO;
		for (uint64_t i = 0; i < n; i++) {
			uint64_t e = entries[i];
			bool is_copy = e & (PM_PRESENT | PM_SWAPPED) && !(e & PM_FILE_OR_SHARED);

			bitmap[(at + i) / 64] |= (uint64_t)is_copy << ((at + i) % 64);
		}
	}
	return 0;
}

/* ---- Showing, and giving back -------------------------------------------------------------------- */

int gn_host_memory_show(const struct gn_host_memory *memory, uint64_t offset, uint64_t bytes,
			int fd)
{
	uint8_t *at = memory->base + memory->bytes + offset;
	void *p = fd < 0 ? mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
				-1, 0)
			 : mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
	int err;

	if (p == MAP_FAILED)
		return -errno;
	/* A mapping that is refused onto its place may have taken away what was there; one that is there already is moved. */
	if (mremap(p, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, at) != MAP_FAILED)
		return 0;
	err = -errno;
	munmap(p, bytes);
	return err;
}

void gn_host_memory_unmap(struct gn_host_memory *memory)
{
	munmap(memory->base, memory->bytes + memory->tail_bytes);
	if (memory->template_pages)
		munmap((void *)(uintptr_t)memory->template_pages, memory->template_bytes);
	if (memory->pagemap_fd >= 0)
		close(memory->pagemap_fd);
	if (memory->fd >= 0)
		close(memory->fd);
	if (memory->self_fd >= 0)
		close(memory->self_fd);
}

void gn_host_memory_populate(const struct gn_host_memory *memory, struct gn_host_range range)
{
	(void)madvise(memory->base + range.offset, range.bytes, MADV_POPULATE_WRITE);
}

int gn_host_memory_drop(const struct gn_host_memory *memory, struct gn_host_range range)
{
	int failed;

	if (memory->fd >= 0)
		failed = fallocate(memory->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				   (off_t)range.offset, (off_t)range.bytes);
	else
		failed = madvise(memory->base + range.offset, range.bytes, MADV_DONTNEED);
	return failed ? -errno : 0;
}

/*
 * A hole flushes the TLBs once for each range of it that is mapped here, also in a vectored call: pages of a file are dirty, and the kernel will not
 * put that off. So they are unmapped first, together with the few between two of them, which are mapped again by a touch and at less cost.
 */
static void unmap_near(const struct gn_host_memory *memory, const struct gn_host_range *ranges,
		       size_t count)
{
	for (size_t i = 0, next; i < count; i = next) {
		uint64_t end = ranges[i].offset + ranges[i].bytes;

		for (next = i + 1; next < count && ranges[next].offset >= end &&
				   ranges[next].offset - end <= GAP_BYTES;
		     next++)
			end = ranges[next].offset + ranges[next].bytes;
		if (next > i + 1)
			(void)madvise(memory->base + ranges[i].offset, end - ranges[i].offset,
				      MADV_DONTNEED);
	}
}

/* How many of the first ranges one vectored call dropped. */
static size_t drop_vector(const struct gn_host_memory *memory, const struct gn_host_range *ranges,
			  size_t count)
{
	int advice = memory->fd >= 0 ? MADV_REMOVE : MADV_DONTNEED;
	struct iovec vector[GN_HOST_RANGES_MAX];
	size_t done = 0;
	long bytes;

	for (size_t i = 0; i < count; i++)
		vector[i] = (struct iovec){ .iov_base = memory->base + ranges[i].offset,
					    .iov_len = ranges[i].bytes };
	if (memory->fd >= 0)
		unmap_near(memory, ranges, count);
	bytes = syscall(SYS_process_madvise, memory->self_fd, vector, count, advice, 0);
	while (done < count && bytes > 0 && (uint64_t)bytes >= ranges[done].bytes)
		bytes -= (long)ranges[done++].bytes;
	return done;
}

size_t gn_host_memory_drop_all(const struct gn_host_memory *memory,
			       const struct gn_host_range *ranges, size_t count)
{
	size_t done = 0;

	if (memory->self_fd >= 0 && count > 1)
		done = drop_vector(memory, ranges, count);
	while (done < count && !gn_host_memory_drop(memory, ranges[done]))
		done++;
	return done;
}
