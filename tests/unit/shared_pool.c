/* SPDX-License-Identifier: MIT */
/*
 * shared_pool.c - frames and their segments: nobody but us can write one, however he opens it; memory comes back.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sharing/exchange.h"
#include "sharing/pool.h"

static struct gn_share_pool *pool;

static void make(unsigned segments)
{
	cr_assert_eq(gn_share_pool_create(segments * GN_SEGMENT_BYTES, &pool), 0);
	cr_assert_eq(gn_share_pool_segments(pool), segments);
}

static void tear_down(void)
{
	gn_share_pool_destroy(pool);
	pool = NULL;
}

TestSuite(shared_pool, .fini = tear_down);

static uint64_t alloc(void)
{
	uint64_t frame;

	cr_assert_eq(gn_share_pool_alloc(pool, &frame), 0);
	return frame;
}

Test(shared_pool, only_we_write)
{
	uint64_t frame;
	char path[64];
	uint8_t *view;
	int fd, again;

	make(1);
	frame = alloc();
	memset(gn_share_pool_at(pool, frame), 7, 4096);
	fd = gn_share_pool_view(pool, 0);
	cr_assert_geq(fd, 0);
	cr_assert_eq(fcntl(fd, F_GET_SEALS),
		     F_SEAL_FUTURE_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL);
	cr_assert_eq(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
	view = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
	cr_assert_neq(view, MAP_FAILED);
	cr_assert_neq(mprotect(view, 4096, PROT_READ | PROT_WRITE), 0);
	cr_assert_lt(write(fd, "x", 1), 0);
	/* Not through a descriptor opened anew either, by us or by root. */
	fchmod(fd, 0777);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	again = open(path, O_RDWR | O_CLOEXEC);
	if (again >= 0) {
		cr_assert_eq(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, again, 0),
			     MAP_FAILED);
		cr_assert_lt(pwrite(again, "x", 1, 0), 0);
		cr_assert_neq(ftruncate(again, 0), 0);
		cr_assert_neq(fallocate(again, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096),
			      0);
		close(again);
	}
	cr_assert_eq(view[0], 7);
	/* We still do. */
	gn_share_pool_at(pool, frame)[0] = 8;
	cr_assert_eq(view[0], 8);
	munmap(view, 4096);
}

/* References, and numbers that are none. */
Test(shared_pool, references)
{
	uint64_t a, b;

	make(2);
	a = alloc();
	b = alloc();
	cr_assert_eq(b, a + 1);
	gn_share_pool_get(pool, a);
	gn_share_pool_put(pool, a);
	cr_assert_eq(gn_share_pool_refs(pool, a), 1);
	gn_share_pool_put(pool, a);
	cr_assert_eq(gn_share_pool_refs(pool, a), 0);
	cr_assert_eq(gn_share_pool_refs(pool, GN_SEGMENT_FRAMES), 0, "no segment yet");
	cr_assert_eq(gn_share_pool_refs(pool, UINT64_MAX), 0);
	cr_assert_eq(alloc(), a, "the lowest place");
	cr_assert_eq(gn_share_pool_view(pool, 1), -ENOENT);
	cr_assert_eq(gn_share_pool_view(pool, 7), -ENOENT);
}

Test(shared_pool, memory_comes_back)
{
	struct gn_share_pool_stats stats;
	unsigned segment;
	uint64_t frame;

	make(2);
	for (unsigned i = 0; i < 2 * GN_SEGMENT_FRAMES; i++)
		alloc();
	cr_assert_eq(gn_share_pool_alloc(pool, &frame), -ENOSPC);
	cr_assert_not(gn_share_pool_retire(pool, &segment), "all are used");
	cr_assert_geq(gn_share_pool_view(pool, 0), 0);
	cr_assert_geq(gn_share_pool_view(pool, 1), 0);
	for (uint64_t i = 0; i < GN_SEGMENT_FRAMES; i++)
		gn_share_pool_put(pool, i);
	cr_assert(gn_share_pool_retire(pool, &segment));
	cr_assert_eq(segment, 0);
	cr_assert_not(gn_share_pool_retire(pool, &segment));
	gn_share_pool_get_stats(pool, &stats);
	cr_assert_eq(stats.used_pages, GN_SEGMENT_FRAMES);
	cr_assert_eq(stats.resident_pages, 2 * GN_SEGMENT_FRAMES, "a VM has it mapped");
	cr_assert_eq(gn_share_pool_alloc(pool, &frame), -ENOSPC, "and so its number is taken");
	cr_assert_eq(gn_share_pool_view(pool, 0), -ENOENT);
	gn_share_pool_unview(pool, 0);
	gn_share_pool_get_stats(pool, &stats);
	cr_assert_eq(stats.resident_pages, GN_SEGMENT_FRAMES);
	cr_assert_eq(alloc(), 0, "it is used again");
	for (uint64_t i = 0; i < GN_SEGMENT_FRAMES; i++)
		gn_share_pool_put(pool, GN_SEGMENT_FRAMES + i);
	gn_share_pool_unview(pool, 1);
	cr_assert(gn_share_pool_retire(pool, &segment));
	cr_assert_eq(segment, 1);
	gn_share_pool_get_stats(pool, &stats);
	cr_assert_eq(stats.resident_pages, 64);
	cr_assert_eq(stats.retirements, 2);
}

/* ---- The exchange ------------------------------------------------------------------------------------------------ */

Test(shared_exchange, rings)
{
	const uint8_t key[GN_EXCHANGE_KEY_BYTES] = { 1, 2, 3 };
	struct gn_exchange_offer offer = { .gfn = 0 }, got;
	struct gn_exchange *daemon, *vm;

	cr_assert_eq(gn_exchange_create(key, &daemon), 0);
	cr_assert_eq(gn_exchange_open(gn_exchange_fd(daemon), &vm), 0);
	cr_assert_arr_eq(gn_exchange_key(vm), key, sizeof(key));
	cr_assert_eq(gn_exchange_take(daemon, GN_EXCHANGE_OFFERS, &got), 0);
	/* Many times around, full at times, each once and in order. */
	for (uint64_t put = 0, taken = 0; taken < 20000;) {
		while (put < taken + GN_EXCHANGE_OFFERS_MAX) {
			offer.gfn = put++;
			cr_assert_eq(gn_exchange_put(vm, GN_EXCHANGE_OFFERS, &offer), 0);
		}
		cr_assert_eq(gn_exchange_put(vm, GN_EXCHANGE_OFFERS, &offer), -EAGAIN);
		cr_assert_eq(gn_exchange_room(vm, GN_EXCHANGE_OFFERS), 0);
		for (unsigned i = 0; i < 777; i++) {
			cr_assert_eq(gn_exchange_take(daemon, GN_EXCHANGE_OFFERS, &got), 1);
			cr_assert_eq(got.gfn, taken++);
		}
	}
	gn_exchange_destroy(vm);
	gn_exchange_destroy(daemon);
}

/* A position that makes no sense is told to whichever side looks at it. */
Test(shared_exchange, nonsense)
{
	const uint8_t key[GN_EXCHANGE_KEY_BYTES] = { 0 };
	struct gn_exchange_order order = { .kind = GN_ORDER_SHOW };
	struct gn_exchange *daemon, *vm;
	uint32_t *memory;

	cr_assert_eq(gn_exchange_create(key, &daemon), 0);
	cr_assert_eq(gn_exchange_open(gn_exchange_fd(daemon), &vm), 0);
	memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, gn_exchange_fd(daemon), 0);
	memory[(64 + 128 * GN_EXCHANGE_ORDERS) / 4] = GN_EXCHANGE_ORDERS_MAX + 1; /* head */
	cr_assert_eq(gn_exchange_take(vm, GN_EXCHANGE_ORDERS, &order), -EPROTO);
	memory[(64 + 128 * GN_EXCHANGE_ORDERS + 64) / 4] = 5; /* tail, of what was never put */
	cr_assert_eq(gn_exchange_put(daemon, GN_EXCHANGE_ORDERS, &order), -EPROTO);
	cr_assert_eq(gn_exchange_room(daemon, GN_EXCHANGE_ORDERS), 0);
	munmap(memory, 4096);
	gn_exchange_destroy(vm);
	gn_exchange_destroy(daemon);
}

Test(shared_exchange, other_files)
{
	struct gn_exchange *x;
	int fd = memfd_create("x", MFD_ALLOW_SEALING);

	cr_assert_eq(ftruncate(fd, (57 + GN_EXCHANGE_SLOTS) * 4096), 0);
	cr_assert_eq(gn_exchange_open(fd, &x), -EINVAL, "it could shrink");
	cr_assert_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
	cr_assert_eq(gn_exchange_open(fd, &x), -EINVAL, "no magic");
	close(fd);
	cr_assert_eq(gn_exchange_open(fd, &x), -EINVAL, "no file");
}
