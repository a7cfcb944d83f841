/* SPDX-License-Identifier: MIT */
/*
 * window.c - frames of another memory: attached, lent, merged into, copied from, returned; and the reserve for such copies.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mmu/audit.h"
#include "support/p2m_rig.h"

#define WINDOW (4 * MIB)

static int pool_fd = -1;
static uint8_t *pool; /* its owner's view */

static int make_file(uint64_t bytes, bool sealed)
{
	int fd = memfd_create("owner", MFD_ALLOW_SEALING);

	cr_assert_geq(fd, 0);
	cr_assert_eq(ftruncate(fd, (off_t)bytes), 0);
	if (sealed)
		cr_assert_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
	return fd;
}

static void make(void)
{
	struct gn_vm_config config = plain_config(4 * MIB);

	config.window_bytes = WINDOW;
	vm = plain_vm(&config);
	cr_assert_not_null(vm);
	pool_fd = make_file(MIB, true);
	pool = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_SHARED, pool_fd, 0);
	cr_assert_neq(pool, MAP_FAILED);
}

static void tear_down(void)
{
	rig_teardown();
	if (pool_fd >= 0)
		close(pool_fd);
}

TestSuite(window, .fini = tear_down);

static pfn_t attach(void)
{
	pfn_t first;

	cr_assert_eq(gn_frames_attach(vm->frames, pool_fd, MIB, &first), 0);
	return first;
}

static int merge(uint64_t at, pfn_t frame)
{
	struct gn_merge page = { .at = gfn(at), .frame = frame };

	cr_assert_eq(gn_p2m_merge(vm, &page, 1, GN_SHARE_READ, NULL), 0);
	return page.result;
}

/* ---- Memories -------------------------------------------------------------------------------------------- */

Test(window, what_may_be_attached)
{
	int loose, small, reader;
	char path[32];
	pfn_t first;

	make();
	loose = make_file(MIB, false);
	small = make_file(GN_PAGE_SIZE, true);
	cr_assert_eq(gn_frames_attach(vm->frames, loose, MIB, &first), -EPERM);
	cr_assert_eq(gn_frames_attach(vm->frames, small, 2 * GN_PAGE_SIZE, &first), -EINVAL);
	cr_assert_eq(gn_frames_attach(vm->frames, small, 100, &first), -EINVAL);
	cr_assert_eq(gn_frames_attach(vm->frames, small, 0, &first), -EINVAL);
	cr_assert_eq(gn_frames_attach(vm->frames, -1, GN_PAGE_SIZE, &first), -EBADF);
	gn_alloc_fail_nth(1);
	cr_assert_eq(gn_frames_attach(vm->frames, small, GN_PAGE_SIZE, &first), -ENOMEM);
	cr_assert_eq(gn_frames_attach(vm->frames, small, GN_PAGE_SIZE, &first), 0);
	cr_assert_eq(first.v, vm->frames->own_count);
	/* As its owner would hand it out. */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", pool_fd);
	reader = open(path, O_RDONLY);
	cr_assert_eq(gn_frames_attach(vm->frames, reader, MIB, &first), 0);
	pool[0] = 5;
	cr_assert_eq(*(uint8_t *)gn_frames_at(vm->frames, pfn_to_hpa(first)), 5);
	close(reader);
	cr_assert(!gn_frames_is_own(vm->frames, first) && gn_frames_valid(vm->frames, first));
	close(small);
	close(loose);
}

Test(window, memories_find_room)
{
	int large;
	pfn_t a, b, c, d;

	make();
	large = make_file(2 * MIB, true);
	cr_assert_eq(gn_frames_attach(vm->frames, pool_fd, MIB, &a), 0);
	cr_assert_eq(gn_frames_attach(vm->frames, large, 2 * MIB, &b), 0);
	cr_assert_eq(gn_frames_attach(vm->frames, pool_fd, MIB, &c), 0);
	cr_assert_eq(b.v, a.v + 256);
	cr_assert_eq(c.v, b.v + 512);
	cr_assert_eq(gn_frames_attach(vm->frames, pool_fd, MIB, &d), -ENOSPC);
	cr_assert_eq(gn_frames_detach(vm->frames, pfn(b.v + 1)), -EINVAL);
	cr_assert_eq(gn_frames_detach(vm->frames, b), 0);
	cr_assert_eq(gn_frames_detach(vm->frames, b), -EINVAL);
	cr_assert_eq(gn_frames_detach(vm->frames, pfn(0)), -EINVAL);
	cr_assert_eq(gn_frames_attach(vm->frames, pool_fd, MIB, &d), 0);
	cr_assert_eq(d.v, b.v, "the lowest place");
	cr_assert_eq(gn_frames_attach(vm->frames, large, 2 * MIB, &b), -ENOSPC);
	close(large);
}

/* What a backend needs to map a frame elsewhere. */
Test(window, frames_are_found)
{
	struct gn_window_place one, other;
	struct stat ours, theirs;
	uint32_t serial;
	pfn_t a, b;

	make();
	cr_assert_eq(gn_window_find(vm->frames, pfn(vm->frames->own_count), &one), -EINVAL,
		     "nothing is attached");
	cr_assert_eq(gn_frames_attach(vm->frames, pool_fd, MIB, &a), 0);
	cr_assert_eq(gn_frames_attach(vm->frames, pool_fd, GN_PAGE_SIZE, &b), 0);
	cr_assert_eq(gn_window_find(vm->frames, pfn(a.v - 1), &one), -EINVAL, "our own");
	cr_assert_eq(gn_window_find(vm->frames, pfn(b.v + 1), &one), -EINVAL, "behind them");
	cr_assert_eq(gn_window_find(vm->frames, pfn(vm->frames->frame_count), &one), -EINVAL);
	cr_assert_eq(gn_window_find(vm->frames, pfn(a.v + 7), &one), 0);
	cr_assert_eq(one.offset, 7 * GN_PAGE_SIZE);
	cr_assert_eq(gn_window_find(vm->frames, b, &other), 0);
	cr_assert_eq(other.offset, 0);
	cr_assert(one.serial && other.serial && one.serial != other.serial);
	cr_assert_neq(one.fd, pool_fd, "that may be closed");
	cr_assert_eq(fstat(one.fd, &ours) | fstat(pool_fd, &theirs), 0);
	cr_assert_eq(ours.st_ino, theirs.st_ino);

	serial = one.serial;
	cr_assert_eq(gn_frames_detach(vm->frames, a), 0);
	cr_assert_eq(fcntl(one.fd, F_GETFD), -1, "nobody has it any more");
	cr_assert_eq(gn_window_find(vm->frames, pfn(a.v + 7), &one), -EINVAL);
	cr_assert_eq(gn_frames_attach(vm->frames, pool_fd, MIB, &a), 0);
	cr_assert_eq(gn_window_find(vm->frames, pfn(a.v + 7), &one), 0);
	cr_assert_neq(one.serial, serial, "the same file, and another time");
}

Test(window, memories_are_bounded)
{
	pfn_t first;

	make();
	for (unsigned i = 0; i < 128; i++)
		cr_assert_eq(gn_frames_attach(vm->frames, pool_fd, 2 * GN_PAGE_SIZE, &first), 0);
	cr_assert_eq(gn_frames_attach(vm->frames, pool_fd, GN_PAGE_SIZE, &first), -ENOSPC);
}

/* ---- Frames ----------------------------------------------------------------------------------------------- */

Test(window, lent_referenced_returned)
{
	pfn_t first, out[2];

	make();
	cr_assert_eq(gn_frames_lend(vm->frames, pfn(vm->frames->own_count)), -EINVAL,
		     "not attached");
	first = attach();
	cr_assert_eq(gn_frames_lend(vm->frames, pfn(0)), -EINVAL, "an own one");
	cr_assert_eq(gn_frames_lend(vm->frames, pfn(first.v + 256)), -EINVAL, "behind it");
	cr_assert_eq(gn_frames_lend(vm->frames, pfn(vm->frames->frame_count)), -EINVAL);
	cr_assert_eq(gn_frames_lend(vm->frames, first), 0);
	cr_assert_eq(gn_frames_lend(vm->frames, first), 1);
	cr_assert_eq(gn_frames_refs(vm->frames, first), 2);
	cr_assert_eq(gn_frames_detach(vm->frames, first), -EBUSY);
	cr_assert(!gn_frames_put(vm->frames, first));
	cr_assert_eq(gn_frames_take_returned(vm->frames, out, 2), 0);
	cr_assert(gn_frames_put(vm->frames, first));
	cr_assert_eq(gn_frames_lend(vm->frames, first), 1, "its owner was not told yet");
	cr_assert_eq(gn_frames_take_returned(vm->frames, out, 2), 0);
	cr_assert(gn_frames_put(vm->frames, first));
	cr_assert_eq(gn_frames_take_returned(vm->frames, out, 2), 1);
	cr_assert_eq(out[0].v, first.v);
	cr_assert_eq(gn_frames_take_returned(vm->frames, out, 2), 0);
	cr_assert_eq(gn_frames_lend(vm->frames, first), 0);
	cr_assert(gn_frames_put(vm->frames, first));
	cr_assert_eq(gn_frames_detach(vm->frames, first), 0);
	cr_assert_eq(gn_frames_take_returned(vm->frames, out, 2), 0, "nobody to tell");
}

/* Put as a run that goes on from the pool's own frames into the window. */
Test(window, runs_across_the_border)
{
	struct gn_frames *frames;
	pfn_t own, first, out[256];
	int fd = make_file(MIB, true);

	cr_assert_eq(gn_frames_new_windowed(2 * MIB, GN_POOL_MEMFD, false, WINDOW, &frames), 0);
	cr_assert_eq(gn_frames_attach(frames, fd, MIB, &first), 0);
	close(fd);
	cr_assert_eq(gn_frames_alloc_table(frames, &own), 0);
	cr_assert_eq(own.v + 1, first.v);
	for (unsigned i = 0; i < 100; i++)
		cr_assert_eq(gn_frames_lend(frames, pfn(first.v + i)), 0);
	for (unsigned to_host = 0; to_host < 2; to_host++) {
		struct gn_frame_run run = { .first = own, .count = 101, .to_host = to_host };

		gn_frames_put_runs(frames, &run, 1);
		cr_assert_eq(gn_frames_refs(frames, own), 0);
		cr_assert_eq(gn_frames_take_returned(frames, out, 7), 7);
		cr_assert_eq(gn_frames_take_returned(frames, out + 7, 249), 93);
		for (unsigned i = 0; i < 100; i++)
			cr_assert_eq(out[i].v, first.v + i);
		cr_assert_eq(gn_frames_alloc_home(frames, 1, own, &own), 0);
		for (unsigned i = 0; i < 100; i++)
			cr_assert_eq(gn_frames_lend(frames, pfn(first.v + i)), 0);
	}
	gn_frames_put(frames, own);
	for (unsigned i = 0; i < 100; i++)
		gn_frames_put(frames, pfn(first.v + i));
	gn_frames_destroy(frames);
}

Test(window, pages_are_merged_into_and_copied_from)
{
	pfn_t frame, out[4];

	make();
	frame = pfn(attach().v + 5);
	memset(pool + 5 * GN_PAGE_SIZE, 9, GN_PAGE_SIZE);
	for (unsigned i = 0; i < 4; i++)
		rig_fill(i, i < 3 ? 9 : 8);
	cr_assert_eq(gn_frames_lend(vm->frames, frame), 0);
	for (unsigned i = 0; i < 4; i++)
		cr_assert_eq(merge(i, frame), i < 3 ? 0 : -EAGAIN);
	cr_assert_eq(gn_frames_refs(vm->frames, frame), 4);
	gn_frames_put(vm->frames, frame);
	/* Each write copies, the last sharer's too. */
	for (unsigned i = 0; i < 3; i++) {
		struct gn_p2m_info info;

		cr_assert_eq(rig_byte_of(i), 9);
		rig_fill(i, 7);
		info = plain_query(vm, i);
		cr_assert(info.state == GN_P2M_PRIVATE && gn_frames_is_own(vm->frames, info.pfn));
		cr_assert_eq(pool[5 * GN_PAGE_SIZE], 9);
		gn_retire_drain(vm);
		cr_assert_eq(gn_frames_take_returned(vm->frames, out, 4), i == 2, "%u", i);
	}
	cr_assert_eq(out[0].v, frame.v);
}

/* Whatever else may happen to a page whose frame is another's. */
Test(window, other_changes)
{
	pfn_t frame, out[4];

	make();
	frame = attach();
	memset(pool, 9, GN_PAGE_SIZE);
	cr_assert_eq(gn_frames_lend(vm->frames, frame), 0);
	for (unsigned i = 0; i < 4; i++) {
		rig_fill(i, 9);
		cr_assert_eq(merge(i, frame), 0);
	}
	gn_frames_put(vm->frames, frame);
	cr_assert_eq(gn_p2m_move(vm, gfn(0), 1), 0);
	cr_assert_eq(gn_p2m_protect(vm, gfn(1), 1, true), 0);
	cr_assert_eq(gn_p2m_balloon(vm, gfn(2), 1), 0);
	cr_assert_eq(gn_p2m_share(vm, gfn(0), gfn(3)), 0);
	gn_retire_drain(vm);
	cr_assert_eq(rig_byte_of(0), 9);
	cr_assert_eq(rig_byte_of(1), 9);
	cr_assert_eq(rig_byte_of(3), 9);
	cr_assert_eq(gn_frames_refs(vm->frames, frame), 0);
	cr_assert_eq(gn_frames_take_returned(vm->frames, out, 4), 1);
}

Test(window, a_vm_that_ends_with_lent_frames)
{
	struct gn_pool info;
	pfn_t frame;

	make();
	frame = attach();
	cr_assert_eq(gn_frames_lend(vm->frames, frame), 0);
	rig_fill(0, 0);
	cr_assert_eq(merge(0, frame), 0);
	gn_frames_put(vm->frames, frame);
	gn_vm_pool(vm, &info);
	cr_assert_eq(info.bytes, vm->frames->own_count * GN_PAGE_SIZE, "the window is no part");
}

/* ---- The reserve -------------------------------------------------------------------------------------------- */

#define ALIKE 64u

/* A VM of twice the memory there is, whose first pages hold nines. */
static void make_alike(void)
{
	struct gn_vm_config config = plain_config(4 * MIB);

	config.pool_bytes = 2 * MIB;
	vm = plain_vm(&config);
	cr_assert_not_null(vm);
	for (unsigned i = 0; i < ALIKE; i++)
		rig_fill(i, 9);
}

/* They share one frame, to which we have a reference. */
static pfn_t share_alike(void)
{
	struct gn_merge pages[ALIKE] = { { .at = gfn(0) } };
	const pfn_t *frame = &pages[0].frame;

	cr_assert_eq(gn_p2m_publish(vm, pages, 1, GN_SHARE_READ), 0);
	for (unsigned i = 1; i < ALIKE; i++)
		pages[i] = (struct gn_merge){ .at = gfn(i), .frame = *frame };
	cr_assert_eq(gn_p2m_merge(vm, pages, ALIKE, GN_SHARE_READ, NULL), 0);
	return *frame;
}

Test(window, a_reserve_is_for_copies)
{
	pfn_t frame, table;
	uint64_t left;

	make_alike();
	frame = share_alike();
	gn_frames_set_reserve(vm->frames, 63);
	cr_assert_eq(gn_frames_reserve_low(vm->frames), 512);
	left = 512 - gn_frames_used(vm->frames);
	cr_assert_eq(gn_p2m_populate(vm, gfn(100), left - 62), -ENOMEM);
	cr_assert_eq(gn_p2m_populate(vm, gfn(100), left - 63), 0);
	cr_assert_eq(gn_p2m_populate(vm, gfn(99), 1), -ENOMEM);
	cr_assert_eq(gn_frames_alloc(vm->frames, 1, &(pfn_t){ 0 }), -ENOMEM);
	cr_assert_eq(gn_frames_alloc_home(vm->frames, 1, pfn(500), &(pfn_t){ 0 }), -ENOMEM);
	cr_assert_eq(gn_frames_alloc_table(vm->frames, &table), 0,
		     "what maps a copy is needed too");
	gn_frames_put(vm->frames, table);
	for (unsigned i = 0; i < 63; i++) {
		rig_fill(i, (uint8_t)i);
		cr_assert_eq(gn_frames_reserve_low(vm->frames), 62 - i);
	}
	gn_frames_put(vm->frames, frame);
	rig_fill(63, 63); /* the last one needs none */
	for (unsigned i = 0; i < 64; i++)
		cr_assert_eq(rig_byte_of(i), i);
	gn_frames_set_reserve(vm->frames, 0);
	cr_assert_eq(gn_frames_reserve_low(vm->frames), 512);
}

/* A block of 2 MiB would use it up. */
Test(window, a_reserve_keeps_blocks_from_being_taken)
{
	struct gn_vm_config config = plain_config(8 * MIB);
	pfn_t block;

	config.pool_bytes = 4 * MIB;
	config.backing_level = 2;
	vm = plain_vm(&config);
	cr_assert_not_null(vm);
	gn_frames_set_reserve(vm->frames, 512);
	cr_assert_eq(gn_frames_alloc(vm->frames, 2, &block), -ENOMEM, "a table is in use");
	gn_frames_set_reserve(vm->frames, 511);
	cr_assert_eq(gn_frames_alloc(vm->frames, 2, &block), 0);
	for (unsigned i = 0; i < 512; i++)
		gn_frames_put(vm->frames, pfn(block.v + i));
}

/* ---- The stock --------------------------------------------------------------------------------------------------- */

/* Frames that leave stay there until the stock is full, serve copies and tables, and more memory only when all else is taken. */
Test(window, a_stock_serves_copies)
{
	pfn_t taken, rest[512];
	uint64_t used, count = 0;

	make_alike();
	cr_assert_eq(gn_frames_set_stock(vm->frames, 513), -EINVAL);
	cr_assert_eq(gn_frames_set_stock(vm->frames, 16), 0);
	gn_frames_put(vm->frames, share_alike());
	cr_assert_eq(gn_frames_stock(vm->frames), 16);
	used = gn_frames_used(vm->frames);
	for (unsigned i = 0; i < 8; i++)
		rig_fill(i, (uint8_t)i);
	cr_assert_eq(gn_frames_stock(vm->frames), 8);
	cr_assert_eq(gn_frames_alloc_table(vm->frames, &taken), 0);
	cr_assert_eq(gn_frames_stock(vm->frames), 7);
	cr_assert_eq(*(uint64_t *)gn_frames_at(vm->frames, pfn_to_hpa(taken)), 0);
	cr_assert_eq(gn_frames_used(vm->frames), used + 9);
	gn_frames_put(vm->frames, taken);
	for (unsigned i = 0; i < 64; i++)
		cr_assert_eq(rig_byte_of(i), i < 8 ? i : 9);

	cr_assert_eq(gn_frames_fill_stock(vm->frames, 4), 4);
	cr_assert_eq(gn_frames_stock(vm->frames), 11);
	cr_assert_eq(gn_frames_fill_stock(vm->frames, 100), 5);
	cr_assert_eq(gn_frames_stock(vm->frames), 16);
	cr_assert_eq(gn_frames_used(vm->frames), used + 8);

	while (!gn_frames_alloc(vm->frames, 1, &rest[count])) {
		const uint64_t *word = gn_frames_at(vm->frames, pfn_to_hpa(rest[count++]));

		cr_assert_eq(word[0] | word[511], 0, "memory is zeros, wherever it was");
	}
	cr_assert_eq(gn_frames_used(vm->frames), 512);
	cr_assert_eq(gn_frames_stock(vm->frames), 0);
	cr_assert_eq(gn_frames_fill_stock(vm->frames, 1), 0);
	while (count)
		gn_frames_put(vm->frames, rest[--count]);
}

Test(window, a_stock_that_is_given_up_is_free)
{
	struct gn_vm_config config = plain_config(4 * MIB);
	uint64_t used;

	vm = plain_vm(&config);
	cr_assert_not_null(vm);
	used = gn_frames_used(vm->frames);
	cr_assert_eq(gn_frames_set_stock(vm->frames, 64), 0);
	cr_assert_eq(gn_frames_fill_stock(vm->frames, 64), 64);
	cr_assert_eq(gn_frames_used(vm->frames), used);
	cr_assert_eq(gn_frames_set_stock(vm->frames, 3), 0);
	cr_assert_eq(gn_frames_stock(vm->frames), 0);
	cr_assert_eq(gn_frames_fill_stock(vm->frames, 64), 3);
	cr_assert_eq(gn_frames_set_stock(vm->frames, 0), 0);
	cr_assert_eq(gn_frames_used(vm->frames), used);
}
