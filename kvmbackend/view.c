/* SPDX-License-Identifier: MIT */
/*
 * view.c - guest memory as KVM sees it: a mapping of the frame pool laid out by gfn.
 *
 * Most gfns have the frame of the same number (home_frames), so most of the view is one mapping of the pool's memfd
 * at offset 0. A gfn with another frame gets a piece of its own, mapped over.
 *
 * Everything is registered with a userfaultfd for missing pages *and* for minor faults: a page of the memfd that exists
 * (another gfn's, or one that waits to be reused) is not to be had by touching it. Pages come in by UFFDIO_CONTINUE
 * only, write-protected if the leaf is read-only.
 *
 * No window. A piece that was just mapped is not registered yet, and a vCPU that touched it then would have what
 * it may not have. So a piece is mapped and registered elsewhere and then moved (mremap) onto its place, in one step
 * for everybody who faults. The registration moves with it if UFFD_FEATURE_EVENT_REMAP is on; the kernel then waits until
 * somebody else has read the event: fill.c's stand-in, which takes no lock for it.
 *
 * How many. Neighbouring gfns with neighbouring frames of the pool are one mapping, and all of it is placed when one of them is
 * first touched; its pages come in by themselves, or with their neighbours (fill.c). Scattered ones are a mapping each, and a process may have so many
 * (vm.max_map_count). Up to half of them are the view's; from there on a SHARED page that is not at home is not put in: it gets
 * a frame of its own, which is its home, for nobody else ever has that (gn_p2m_publish()). And a page that is put in at home
 * amid a run of others takes the rest of that run along, so that the run has one end as before; those are not in the view then,
 * and stop sharing when they are touched.
 *
 * Taking out leaves a piece where it is, empty. Only putting in has to move pieces, and putting in may fail.
 *
 * Frames of the window (mmu/window.c) are of another file, sealed against writers, and a userfaultfd takes no mapping that
 * could never be written. So a piece of them is a *private* mapping. It must not be written all the same, or the kernel would
 * make the guest a page that the p2m knows nothing of: its pages are put in write-protected, or not at all (fill.c). Private
 * mappings that were filled apart stay apart, which those of the pool do not, and where one ends at another is remembered
 * (seams). When the guest loses such a page, its home is put in its place if the kernel lets us, so that the view does not keep
 * alive what its owner wants to be rid of. If it does not, the piece stays, and the number of the memory it is of
 * (gn_window_place.serial) keeps it from being taken for a piece of what comes there next.
 *
 * 2 MiB. UFFDIO_CONTINUE makes small mappings only. A block whose 512 frames are its own, with all rights, needs no
 * guard until the p2m changes it: it is unregistered, and the kernel maps it as large as it can. Where the host's
 * settings keep memfds from getting large pages at a touch, they get them by being asked for (MADV_COLLAPSE). Taking
 * out registers the block again first.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "nested.h"

#define BLOCK_PAGES ((uint64_t)512)
#define BLOCK_BYTES (BLOCK_PAGES * GN_PAGE_SIZE)
#define WORD_BITS   64
#define SERIAL_BIT  44 /* of a source: frames are numbered below that */
_Static_assert(GN_WINDOW_SERIALS - 1 <= UINT64_MAX >> SERIAL_BIT, "they fit above");
#define RUN_PAGES 512 /* looked at on either side of a page that is lent */
#define GAP_PAGES 8   /* between two that are taken out at once */
#define PIECES_PART                                                                                \
	2 /* of the mappings that a process may have; the rest is for what else it maps, and for blocked pages */

/* Newer than the headers of Debian 12: Linux 6.4, 5.18. */
#define CONTINUE_MODE_WP      ((uint64_t)1 << 1)
#define MADV_DONTNEED_LOCKED_ 24
#define MADV_COLLAPSE_	      25 /* 6.1 */

static bool bit_get(const uint64_t *map, uint64_t i)
{
	return map[i / WORD_BITS] >> (i % WORD_BITS) & 1;
}

static void bit_put(uint64_t *map, uint64_t i, bool value)
{
	uint64_t bit = (uint64_t)1 << (i % WORD_BITS);

	map[i / WORD_BITS] = value ? map[i / WORD_BITS] | bit : map[i / WORD_BITS] & ~bit;
}

static uint8_t *at_gfn(const struct gn_kvm_nested *n, uint64_t at)
{
	return n->view + at * GN_PAGE_SIZE;
}

/* ---- userfaultfd ------------------------------------------------------------------------------------------ */

static int open_uffd(struct gn_kvm_nested *n, char *why, size_t why_bytes)
{
	struct uffdio_api api = { .api = UFFD_API,
				  .features = UFFD_FEATURE_MISSING_SHMEM |
					      UFFD_FEATURE_MINOR_SHMEM | UFFD_FEATURE_THREAD_ID |
					      UFFD_FEATURE_EVENT_REMAP };

	if (n->kvm->host.uffd_wp_shmem)
		api.features |= UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_HUGETLBFS_SHMEM;
	n->uffd = gn_kvm_userfaultfd_open();
	if (n->uffd < 0)
		return gn_kvm_sys_fail(why, why_bytes, "userfaultfd", -n->uffd);
	if (!ioctl(n->uffd, UFFDIO_API, &api))
		return 0;
	return gn_kvm_sys_fail(why, why_bytes,
			       "UFFDIO_API: minor faults on shared memory need Linux 5.14", errno);
}

static int enroll(struct gn_kvm_nested *n, void *start, uint64_t bytes)
{
	struct uffdio_register what = {
		.range = { .start = (uintptr_t)start, .len = bytes },
		.mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR |
			(n->kvm->host.uffd_wp_shmem ? UFFDIO_REGISTER_MODE_WP : 0),
	};

	return ioctl(n->uffd, UFFDIO_REGISTER, &what) ? -errno : 0;
}

void gn_kvm_view_wake(struct gn_kvm_nested *n, gfn_t at)
{
	struct uffdio_range range = { .start = (uintptr_t)at_gfn(n, at.v), .len = GN_PAGE_SIZE };

	(void)ioctl(n->uffd, UFFDIO_WAKE, &range);
}

/* Can a page be put in write-protected? Tried on one that the view has no use for yet. */
static bool has_continue_wp(struct gn_kvm_nested *n)
{
	struct uffdio_continue what = {
		.range = { .start = (uintptr_t)n->view, .len = GN_PAGE_SIZE },
		.mode = CONTINUE_MODE_WP,
	};
	const uint8_t *pool = (const uint8_t *)n->kvm->pool.base;
	bool works;

	if (!n->kvm->host.uffd_wp_shmem)
		return false;
	(void)*(const volatile uint8_t *)pool; /* the memfd has its first page now */
	works = !ioctl(n->uffd, UFFDIO_CONTINUE, &what);
	(void)madvise(n->view, GN_PAGE_SIZE, MADV_DONTNEED);
	return works;
}

/* A program under mlockall() needs the newer call, an older kernel has only the other. */
static void drop(void *at, size_t bytes)
{
	if (madvise(at, bytes, MADV_DONTNEED_LOCKED_))
		(void)madvise(at, bytes, MADV_DONTNEED);
}

/* ---- Birth and end ------------------------------------------------------------------------------------------ */

static int map_home(struct gn_kvm_nested *n)
{
	const struct gn_pool *pool = &n->kvm->pool;
	uint64_t bytes = n->pages * GN_PAGE_SIZE;
	int err;

	/* A guest larger than the pool: offsets past it are never any frame's, but must be of the file. */
	if (bytes > pool->bytes && ftruncate(pool->fd, (off_t)bytes))
		return -errno;
	if (mmap(n->view, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE | MAP_FIXED,
		 pool->fd, 0) == MAP_FAILED)
		return -errno;
	if (n->huge)
		(void)madvise(n->view, bytes, MADV_HUGEPAGE);
	err = enroll(n, n->view, bytes);
	drop(n->view, bytes); /* which mlockall() may have filled */
	return err;
}

static void *zeros(uint64_t words)
{
	return gn_alloc_should_fail() ? NULL : calloc(words, sizeof(uint64_t));
}

int gn_kvm_view_new(struct gn_kvm_nested *n, char *why, size_t why_bytes)
{
	uint64_t bytes = n->pages * GN_PAGE_SIZE;
	void *reserved;
	int err;

	n->placed = zeros(n->pages); /* lazily backed, as the others */
	n->open = zeros(n->pages / BLOCK_PAGES / WORD_BITS + 1);
	n->blocked = zeros(n->pages / WORD_BITS + 1);
	n->seams = zeros(n->pages / WORD_BITS + 1);
	if (!n->placed || !n->open || !n->blocked || !n->seams)
		return gn_kvm_sys_fail(why, why_bytes, "the view's books", ENOMEM);
	err = open_uffd(n, why, why_bytes);
	if (err)
		return err;
	n->reserved_bytes = bytes + BLOCK_BYTES;
	reserved = mmap(NULL, n->reserved_bytes, PROT_NONE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (reserved == MAP_FAILED)
		return gn_kvm_sys_fail(why, why_bytes, "mmap of guest memory", errno);
	n->reserved = reserved;
	n->view = (uint8_t *)(((uintptr_t)reserved + BLOCK_BYTES - 1) & ~(BLOCK_BYTES - 1));
	n->huge = n->kvm->vm->config.backing_level > 1;
	n->piece_ends_max = n->kvm->host.mappings_max / PIECES_PART;
	err = map_home(n);
	if (err)
		return gn_kvm_sys_fail(why, why_bytes, "mmap of guest memory", -err);
	n->uffd_wp = has_continue_wp(n);
	return 0;
}

void gn_kvm_view_destroy(struct gn_kvm_nested *n)
{
	if (n->reserved)
		munmap(n->reserved, n->reserved_bytes);
	if (n->uffd >= 0)
		close(n->uffd);
	free(n->placed);
	free(n->open);
	free(n->blocked);
	free(n->seams);
}

/* ---- Putting in ------------------------------------------------------------------------------------------------ */

/*
 * What a page of the view is of: the number of the frame, and above that, if it is one of the window's, the serial of its
 * memory. That of the next page of the same memory is one more. A gfn's own number is its home, whether the pool has such
 * a frame or not.
 */
static uint64_t source_at(const struct gn_kvm_nested *n, uint64_t at)
{
	return n->placed[at] ? n->placed[at] - 1 : at;
}

static pfn_t frame_of(uint64_t source)
{
	return pfn(source & (((uint64_t)1 << SERIAL_BIT) - 1));
}

static bool is_lent(uint64_t source)
{
	return source >> SERIAL_BIT;
}

static uint64_t source_of(const struct gn_kvm_nested *n, pfn_t frame)
{
	struct gn_window_place lent = { .serial = 0 };

	(void)gn_window_find(n->kvm->vm->frames, frame, &lent);
	return frame.v | (uint64_t)lent.serial << SERIAL_BIT;
}

/* Are @at and the page before of one piece? */
static bool joins(const struct gn_kvm_nested *n, uint64_t at)
{
	return source_at(n, at) == source_at(n, at - 1) + 1 && !bit_get(n->seams, at);
}

/* How many pieces end in (start, end]. */
static uint64_t ends_within(const struct gn_kvm_nested *n, uint64_t start, uint64_t end)
{
	uint64_t count = 0;

	for (uint64_t at = start + 1; at <= end && at < n->pages; at++)
		count += !joins(n, at);
	return count;
}

bool gn_kvm_view_has_room(const struct gn_kvm_nested *n, gfn_t start, pfn_t frame)
{
	uint64_t source = source_of(n, frame);

	return source == source_at(n, start.v) || source == start.v ||
	       n->piece_ends < n->piece_ends_max;
}

/* A piece that is nowhere yet. */
static void *map_piece(const struct gn_kvm_nested *n, uint64_t bytes, uint64_t source)
{
	const pfn_t frame = frame_of(source);
	struct gn_window_place lent;

	if (!is_lent(source))
		return mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
			    n->kvm->pool.fd, (off_t)(frame.v * GN_PAGE_SIZE));
	GN_BUG_ON(!n->uffd_wp);
	/* Its owner cannot want it back meanwhile: a page of the p2m has it. */
	GN_BUG_ON(gn_window_find(n->kvm->vm->frames, frame, &lent));
	return mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, lent.fd,
		    (off_t)lent.offset);
}

/* [start, start + count) of the view shall be of @source on. */
static int place(struct gn_kvm_nested *n, uint64_t start, uint64_t count, uint64_t source)
{
	uint64_t bytes = count * GN_PAGE_SIZE, before = start ? start - 1 : 0, end = start + count;
	void *piece = map_piece(n, bytes, source);
	int err;

	if (piece == MAP_FAILED)
		return -errno;
	if (n->huge) /* as its neighbours, so that pieces can grow together */
		(void)madvise(piece, bytes, MADV_HUGEPAGE);
	err = enroll(n, piece, bytes);
	/* mlockall() may have filled it before it was guarded, with copies of what is lent. */
	drop(piece, bytes);
	if (!err) {
		gn_kvm_fill_move_begins(n);
		if (mremap(piece, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, at_gfn(n, start)) ==
		    MAP_FAILED)
			err = -errno;
		gn_kvm_fill_move_ends(n);
	}
	if (err) {
		munmap(piece, bytes);
		return err;
	}
	n->piece_ends -= ends_within(n, before, end);
	/* It was never filled, so the kernel joins it to one neighbour, but not two that were. */
	if (end < n->pages)
		bit_put(n->seams, end,
			is_lent(source) && start && source == source_at(n, start - 1) + 1 &&
				source + count == source_at(n, end));
	for (uint64_t i = 0; i < count; i++) {
		bit_put(n->seams, start + i, false);
		n->lent -= is_lent(source_at(n, start + i));
		n->lent += is_lent(source);
		n->placed[start + i] = source == start ? 0 : source + i + 1;
		bit_put(n->blocked, start + i, false);
	}
	n->piece_ends += ends_within(n, before, end);
	return 0;
}

/* Where a home piece has to end, at @end or later, for the pieces not to become too many. */
static uint64_t widen(const struct gn_kvm_nested *n, uint64_t end)
{
	if (n->piece_ends < n->piece_ends_max)
		return end;
	while (end < n->pages && n->placed[end] && n->placed[end - 1] && joins(n, end))
		end++;
	return end;
}

/* Not if it is sealed: it will never be in, and by a place made for it its first touch would be told from that of one that has none. */
bool gn_kvm_view_may_share(const struct gn_kvm_nested *n, gfn_t at, pfn_t frame)
{
	p2m_word_t word = gn_p2m_get(&n->kvm->vm->p2m, at);

	return gn_p2m_word_state(word) == GN_P2M_SHARED && gn_p2m_word_grants(word, GN_R) &&
	       gn_p2m_word_pfn(word).v == frame.v;
}

/* Is @at to have @source by the p2m, and has it not in the view? */
static bool wants(const struct gn_kvm_nested *n, uint64_t at, uint64_t source)
{
	return source_at(n, at) != source && gn_kvm_view_may_share(n, gfn(at), frame_of(source)) &&
	       source_of(n, frame_of(source)) == source;
}

/* [*from, *to), which is to have @source at *from, grown by the neighbours that are to have what is before and behind it. The p2m
 * stands still. */
static void find_run(const struct gn_kvm_nested *n, uint64_t *from, uint64_t *to, uint64_t *source)
{
	const uint64_t first = *from > RUN_PAGES ? *from - RUN_PAGES : 0;
	const uint64_t last = *to + RUN_PAGES < n->pages ? *to + RUN_PAGES : n->pages;

	gn_rcu_read_lock();
	for (; *from > first && wants(n, *from - 1, *source - 1); --*from)
		--*source;
	while (*to < last && wants(n, *to, *source + (*to - *from)))
		++*to;
	gn_rcu_read_unlock();
}

/* The page is in: it may have to become writable. */
static int make_writable(struct gn_kvm_nested *n, uint64_t at)
{
	struct uffdio_writeprotect what = {
		.range = { .start = (uintptr_t)at_gfn(n, at), .len = GN_PAGE_SIZE },
	};

	if (!n->kvm->host.uffd_wp_shmem)
		return 0; /* then it was put in writable */
	return ioctl(n->uffd, UFFDIO_WRITEPROTECT, &what) ? -errno : 0;
}

static int put_run(struct gn_kvm_nested *n, uint64_t start, uint64_t count, bool writable,
		   bool wakes)
{
	uint64_t done = 0;
	int err = 0;

	while (done < count && !err) {
		struct uffdio_continue what = {
			.range = { .start = (uintptr_t)at_gfn(n, start + done),
				   .len = (count - done) * GN_PAGE_SIZE },
			.mode = (writable || !n->uffd_wp ? 0 : CONTINUE_MODE_WP) |
				(wakes ? 0 : UFFDIO_CONTINUE_MODE_DONTWAKE),
		};
		int error = ioctl(n->uffd, UFFDIO_CONTINUE, &what) ? errno : 0;

		if (!error)
			break;
		if (what.mapped > 0) {
			done += (uint64_t)what.mapped / GN_PAGE_SIZE;
		} else if (error == EEXIST) {
			err = writable ? make_writable(n, start + done) : 0;
			done++;
		} else {
			/* EFAULT: no such page in the page cache. EAGAIN: mappings are changing. */
			err = error == EFAULT ? -EAGAIN : -error;
		}
	}
	return err;
}

/* Nothing has to be placed for [start, start + count) to be put in. */
static bool is_placed(const struct gn_kvm_nested *n, uint64_t start, uint64_t count,
		      uint64_t source)
{
	/* A blocked page whose unblocking failed is replaced, too. */
	for (uint64_t i = 0; i < count; i++)
		if (source_at(n, start + i) != source + i || bit_get(n->blocked, start + i))
			return false;
	return true;
}

bool gn_kvm_view_has_place(const struct gn_kvm_nested *n, gfn_t start, uint64_t count, pfn_t frame)
{
	return is_placed(n, start.v, count, source_of(n, frame));
}

int gn_kvm_view_put(struct gn_kvm_nested *n, gfn_t start, uint64_t count, pfn_t frame,
		    bool writable)
{
	uint64_t from = start.v, to = from + count, source = source_of(n, frame);
	int err = 0;

	GN_BUG_ON(writable && is_lent(source));
	if (!is_placed(n, from, count, source)) {
		if (source == from)
			to = widen(n, to);
		else
			find_run(n, &from, &to, &source);
		err = place(n, from, to - from, source);
	}
	return err ? err : put_run(n, start.v, count, writable, true);
}

bool gn_kvm_view_put_back(struct gn_kvm_nested *n, gfn_t start, uint64_t count, pfn_t frame,
			  bool writable)
{
	return is_placed(n, start.v, count, source_of(n, frame)) &&
	       !put_run(n, start.v, count, writable, false);
}

/* Small pages become a large one; a block with holes under a userfaultfd would be refused. It may fail, then they stay. */
static void make_large(struct gn_kvm_nested *n, uint64_t start)
{
	uint8_t *pool = (uint8_t *)n->kvm->pool.base + start * GN_PAGE_SIZE;

	if (!madvise(pool, BLOCK_BYTES, MADV_POPULATE_WRITE))
		(void)madvise(at_gfn(n, start), BLOCK_BYTES, MADV_COLLAPSE_);
}

int gn_kvm_view_open(struct gn_kvm_nested *n, gfn_t start)
{
	struct uffdio_range range = { .start = (uintptr_t)at_gfn(n, start.v), .len = BLOCK_BYTES };

	for (uint64_t i = 0; i < BLOCK_PAGES; i++)
		if (source_at(n, start.v + i) != start.v + i || bit_get(n->blocked, start.v + i))
			return -EINVAL;
	if (!n->kvm->host.shmem_huge_pages)
		make_large(n, start.v);
	if (ioctl(n->uffd, UFFDIO_UNREGISTER, &range))
		return -errno;
	bit_put(n->open, start.v / BLOCK_PAGES, true);
	return 0;
}

/* ---- Taking out ------------------------------------------------------------------------------------------------ */

static void zap(struct gn_kvm_nested *n, uint64_t start, uint64_t end)
{
	drop(at_gfn(n, start), (end - start) * GN_PAGE_SIZE);
}

/* Faults of the blocks that meet [start, end) go to the userfaultfd again. */
static void close_blocks(struct gn_kvm_nested *n, uint64_t start, uint64_t end)
{
	uint64_t first = start / BLOCK_PAGES, last = (end - 1) / BLOCK_PAGES;

	for (uint64_t block = first; block <= last; block++) {
		if (!bit_get(n->open, block))
			continue;
		if (enroll(n, at_gfn(n, block * BLOCK_PAGES), BLOCK_BYTES)) {
			/* Too many pieces: all of it in one piece needs none more. */
			if (enroll(n, n->view, n->pages * GN_PAGE_SIZE)) {
				gn_log(GN_LOG_ERROR,
				       "guest memory cannot be guarded: %s; the VM "
				       "stops",
				       strerror(errno));
				gn_kvm_stop(n->kvm);
			}
			memset(n->open, 0, (n->pages / BLOCK_PAGES / WORD_BITS + 1) * 8);
			zap(n, 0, n->pages);
			return;
		}
		bit_put(n->open, block, false);
		/* The ept room's leaf goes as a whole. */
		zap(n, block * BLOCK_PAGES, (block + 1) * BLOCK_PAGES);
	}
}

static void unblock(struct gn_kvm_nested *n, uint64_t start, uint64_t end)
{
	for (uint64_t at = start; at < end; at++) {
		if (!(at % WORD_BITS) && !n->blocked[at / WORD_BITS]) {
			at += WORD_BITS - 1;
			continue;
		}
		if (!bit_get(n->blocked, at))
			continue;
		/* If the kernel can't split a mapping, putting in will replace it. A private one is replaced now: to make it
		 * writable fills it where all is locked, and that would wait for ourselves. */
		if (is_lent(source_at(n, at)))
			(void)place(n, at, 1, at);
		else if (!mprotect(at_gfn(n, at), GN_PAGE_SIZE, PROT_READ | PROT_WRITE))
			bit_put(n->blocked, at, false);
	}
}

void gn_kvm_view_take(struct gn_kvm_nested *n, gfn_t start, gfn_t end)
{
	uint64_t last = end.v < n->pages ? end.v : n->pages;

	if (start.v >= last)
		return;
	close_blocks(n, start.v, last);
	zap(n, start.v, last);
	unblock(n, start.v, last);
}

/* A flush for each run would cost more than to put back what lies between them. Blocked pages stay so. */
void gn_kvm_view_take_runs(struct gn_kvm_nested *n, const struct gn_gfn_run *runs, size_t count)
{
	for (size_t at = 0, next; at < count; at = next) {
		const uint64_t start = runs[at].start.v,
			       end = gn_kvm_hull_end(runs, count, at, GAP_PAGES, &next);

		if (start == end)
			continue;
		close_blocks(n, start, end);
		zap(n, start, end);
		for (size_t i = at; i < next; i++)
			unblock(n, runs[i].start.v, runs[i].start.v + runs[i].count);
		for (size_t i = at + 1; i < next; i++)
			gn_kvm_fill_back(n, runs[i - 1].start.v + runs[i - 1].count,
					 runs[i].start.v);
	}
}

void gn_kvm_view_send_home(struct gn_kvm_nested *n, gfn_t start, gfn_t end)
{
	uint64_t first = start.v, last = end.v < n->pages ? end.v : n->pages;
	int err;

	if (!n->lent)
		return;
	while (first < last && !is_lent(source_at(n, first)))
		first++;
	while (last > first && !is_lent(source_at(n, last - 1)))
		last--;
	if (first == last)
		return;
	/* None of them is in: one piece does for all. */
	err = place(n, first, widen(n, last) - first, first);
	if (err && !n->keeps_lent)
		gn_log(GN_LOG_WARN,
		       "guest memory keeps pages of others mapped that it has no use for: %s",
		       strerror(-err));
	n->keeps_lent = err != 0;
}

int gn_kvm_view_block(struct gn_kvm_nested *n, gfn_t at, bool only_writes)
{
	if (mprotect(at_gfn(n, at.v), GN_PAGE_SIZE, only_writes ? PROT_READ : PROT_NONE))
		return -errno;
	bit_put(n->blocked, at.v, true);
	return 0;
}
