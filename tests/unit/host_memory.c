/* SPDX-License-Identifier: MIT */
/*
 * host_memory.c - both kinds of pool memory: what is dropped is the host's again and reads as zeros, what is beside it stays.
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "mmu/host_memory.h"
#include "support/resident.h"

#define MIB ((uint64_t)1 << 20)
enum { PAGE = GN_PAGE_SIZE };

static const struct {
	const char *name;
	enum gn_pool_kind kind;
	bool huge;
} kinds[] = {
	{ "memfd", GN_POOL_MEMFD, false },
	{ "anonymous", GN_POOL_ANONYMOUS, false },
	{ "anonymous, large pages", GN_POOL_ANONYMOUS, true },
};
#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

static struct gn_host_memory map(unsigned kind, uint64_t bytes)
{
	struct gn_host_memory m;

	cr_assert_eq(gn_host_memory_map(kinds[kind].kind, bytes, kinds[kind].huge, 0, &m), 0, "%s",
		     kinds[kind].name);
	cr_assert_eq(m.bytes, bytes);
	cr_assert_eq(m.fd >= 0, kinds[kind].kind == GN_POOL_MEMFD);
	if (kinds[kind].kind == GN_POOL_ANONYMOUS)
		cr_assert_eq((uintptr_t)m.base % (2 * MIB), 0);
	return m;
}

Test(host_memory, a_dropped_range_is_the_hosts)
{
	for (unsigned k = 0; k < KINDS; k++) {
		struct gn_host_memory m = map(k, 4 * MIB);

		cr_assert_eq(resident_pages(m.base, m.bytes), 0, "%s", kinds[k].name);
		memset(m.base, 7, m.bytes);
		cr_assert_eq(resident_pages(m.base, m.bytes), 1024, "%s", kinds[k].name);
		cr_assert_eq(gn_host_memory_drop(&m, (struct gn_host_range){ 3 * PAGE, 2 * PAGE }),
			     0);
		cr_assert_eq(resident_pages(m.base, m.bytes), 1022, "%s", kinds[k].name);
		cr_assert_eq(m.base[3 * PAGE - 1], 7);
		cr_assert_eq(m.base[3 * PAGE] | m.base[5 * PAGE - 1], 0);
		cr_assert_eq(m.base[5 * PAGE], 7);
		gn_host_memory_unmap(&m);
	}
}

Test(host_memory, a_populated_range_is_there_and_no_more)
{
	for (unsigned k = 0; k < KINDS; k++) {
		struct gn_host_memory m = map(k, 4 * MIB);

		m.base[2 * MIB] = 7;
		gn_host_memory_populate(&m, (struct gn_host_range){ 2 * MIB, 16 * PAGE });
		cr_assert_geq(resident_pages(m.base + 2 * MIB, 16 * PAGE), 16, "%s", kinds[k].name);
		cr_assert_eq(resident_pages(m.base, 2 * MIB), 0, "%s", kinds[k].name);
		cr_assert_eq(m.base[2 * MIB], 7, "what is there stays");
		gn_host_memory_unmap(&m);
	}
}

Test(host_memory, many_ranges_with_and_without_a_vectored_call)
{
	static struct gn_host_range ranges[GN_HOST_RANGES_MAX];

	for (unsigned k = 0; k < KINDS; k++) {
		for (unsigned vectored = 0; vectored < 2; vectored++) {
			struct gn_host_memory m = map(k, 8 * MIB);
			int self = m.self_fd;

			if (!vectored)
				m.self_fd = -1;
			memset(m.base, 7, m.bytes);
			for (unsigned i = 0; i < GN_HOST_RANGES_MAX; i++)
				ranges[i] = (struct gn_host_range){ 2 * i * PAGE, PAGE };
			cr_assert_eq(gn_host_memory_drop_all(&m, ranges, GN_HOST_RANGES_MAX),
				     GN_HOST_RANGES_MAX, "%s", kinds[k].name);
			cr_assert_eq(resident_pages(m.base, m.bytes), 1024, "%s", kinds[k].name);
			for (unsigned i = 0; i < GN_HOST_RANGES_MAX; i++)
				cr_assert(!m.base[2 * i * PAGE] && m.base[(2 * i + 1) * PAGE] == 7,
					  "%s, page %u", kinds[k].name, 2 * i);
			m.self_fd = self;
			gn_host_memory_unmap(&m);
		}
	}
}

/* Locked memory cannot be dropped: it is told which range failed, and those after it can be gone on with. */
Test(host_memory, a_range_the_host_refuses)
{
	struct gn_host_memory m = map(1, 2 * MIB);
	const struct gn_host_range ranges[] = {
		{ 0, PAGE }, { 2 * PAGE, PAGE }, { 4 * PAGE, PAGE }, { 6 * PAGE, PAGE }
	};

	memset(m.base, 7, m.bytes);
	/* The kernel's own: AddressSanitizer's mlock() does nothing. */
	cr_assert_eq(syscall(SYS_mlock, m.base + 4 * PAGE, PAGE), 0);
	cr_assert_eq(gn_host_memory_drop_all(&m, ranges, 4), 2);
	cr_assert_eq(gn_host_memory_drop_all(&m, ranges + 2, 2), 0);
	cr_assert_eq(gn_host_memory_drop(&m, ranges[2]), -EINVAL);
	cr_assert_eq(gn_host_memory_drop_all(&m, ranges + 3, 1), 1);
	cr_assert_eq(m.base[0] | m.base[2 * PAGE] | m.base[6 * PAGE], 0);
	cr_assert_eq(m.base[4 * PAGE], 7);
	gn_host_memory_unmap(&m);
}

Test(host_memory, more_than_there_can_be)
{
	struct gn_host_memory m;

	for (unsigned k = 0; k < KINDS; k++)
		cr_assert_neq(gn_host_memory_map(kinds[k].kind, (uint64_t)1 << 51, false, 0, &m),
			      0);
	cr_assert_eq(gn_host_memory_map(GN_POOL_ANONYMOUS, -2 * MIB, false, 0, &m), -ENOMEM);
}
