/* SPDX-License-Identifier: MIT */
/*
 * balloon_virtqueue.c - the device's side of a split virtqueue, by itself.
 */
#include <criterion/criterion.h>
#include <errno.h>

#include "balloon/virtqueue.h"
#include "support/bare_vm.h"

#define MEM_BYTES ((uint64_t)1 << 20)

static struct gn_vm *vm;
static struct gn_vq vq;

static void setup(void)
{
	cr_assert_eq(bare_vm_new(MEM_BYTES, 0, 0, &vm), 0);
	vq = (struct gn_vq){
		.desc = { 0x1000 }, .avail = { 0x2000 }, .used = { 0x3000 }, .size = 8
	};
}
static void teardown(void)
{
	gn_vm_destroy(vm);
}

TestSuite(balloon_virtqueue, .init = setup, .fini = teardown);

static void put16(uint64_t at, uint16_t value)
{
	cr_assert_eq(gn_vm_write(vm, gpa(at), &value, 2), 0);
}
static uint16_t get16(uint64_t at)
{
	uint16_t value;

	cr_assert_eq(gn_vm_read(vm, gpa(at), &value, 2), 0);
	return value;
}

Test(balloon_virtqueue, peeks_around_the_ring_and_around_the_index)
{
	static const uint16_t starts[] = { 0, 1, 5, 7, 8, 65531, 65535 };
	uint16_t heads[8];
	unsigned count;

	for (unsigned i = 0; i < 8; i++)
		put16(0x2004 + 2 * i, (uint16_t)(100 + i));
	for (unsigned s = 0; s < sizeof(starts) / sizeof(starts[0]); s++)
		for (uint16_t ahead = 0; ahead <= 9; ahead++) {
			int err;

			vq.next_avail = starts[s];
			put16(0x2002, (uint16_t)(starts[s] + ahead));
			err = gn_vq_peek(vm, &vq, heads, &count);
			if (ahead > 8) {
				cr_assert_eq(err, -ERANGE);
				continue;
			}
			cr_assert_eq(err, 0);
			cr_assert_eq(count, ahead);
			for (unsigned i = 0; i < count; i++)
				cr_assert_eq(heads[i], 100 + (starts[s] + i) % 8);
			cr_assert_eq(vq.next_avail, starts[s], "a look takes nothing");
		}
}

Test(balloon_virtqueue, uses_around_the_ring_and_around_the_index)
{
	const uint16_t heads[] = { 7, 6, 5, 4, 3, 2, 1, 0 };

	for (unsigned start = 65530; start < 65536 + 10; start++)
		for (unsigned count = 1; count <= 8; count++) {
			bool wants = false;

			vq.next_used = (uint16_t)start;
			put16(0x2000, count % 2);
			cr_assert_eq(gn_vq_use(vm, &vq, heads, count, &wants), 0);
			cr_assert_eq(wants, count % 2 == 0);
			cr_assert_eq(get16(0x3002), (uint16_t)(start + count));
			for (unsigned i = 0; i < count; i++)
				cr_assert_eq(get16(0x3004 + 8 * ((start + i) % 8)), heads[i]);
		}
}

Test(balloon_virtqueue, a_chain_may_be_as_long_as_the_table)
{
	struct gn_virtq_desc chain[8];
	unsigned count;

	for (uint16_t i = 0; i < 8; i++) {
		struct gn_virtq_desc d = { .addr = i,
					   .len = 4,
					   .flags = i < 7 ? GN_VIRTQ_DESC_F_NEXT : 0,
					   .next = (uint16_t)(i + 1) };

		cr_assert_eq(gn_vm_write(vm, gpa(0x1000 + 16 * i), &d, sizeof(d)), 0);
	}
	cr_assert_eq(gn_vq_chain(vm, &vq, 0, chain, &count), 0);
	cr_assert_eq(count, 8);
	for (unsigned i = 0; i < 8; i++)
		cr_assert_eq(chain[i].addr, i);
	cr_assert_eq(gn_vq_chain(vm, &vq, 7, chain, &count), 0);
	cr_assert_eq(count, 1);
	put16(0x1000 + 16 * 7 + 12, GN_VIRTQ_DESC_F_NEXT);
	put16(0x1000 + 16 * 7 + 14, 0);
	cr_assert_eq(gn_vq_chain(vm, &vq, 0, chain, &count), -EPROTO, "a loop of all");
	cr_assert_eq(gn_vq_chain(vm, &vq, 8, chain, &count), -EPROTO);
}

Test(balloon_virtqueue, no_part_may_be_missing)
{
	const uint16_t head = 0;
	struct gn_virtq_desc chain[8];
	uint16_t heads[8];
	unsigned count;
	bool wants;

	put16(0x2002, 3);
	cr_assert_eq(gn_p2m_balloon(vm, gfn(1), 1), 0);
	cr_assert_eq(gn_vq_chain(vm, &vq, 0, chain, &count), -EFAULT);
	cr_assert_eq(gn_p2m_balloon(vm, gfn(3), 1), 0);
	cr_assert_eq(gn_vq_use(vm, &vq, &head, 1, &wants), -EFAULT);
	cr_assert_eq(gn_p2m_balloon(vm, gfn(2), 1), 0);
	cr_assert_eq(gn_vq_peek(vm, &vq, heads, &count), -EFAULT);
}
