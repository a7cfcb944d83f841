/* SPDX-License-Identifier: MIT */
/*
 * nested_dirty.c - the dirty log in nested mode on /dev/kvm, by KVM's bitmap and, where it has one, by its ring: what was
 * written since the last harvest is in the next, no page else is, and none is lost; also while the guest writes.
 */
#include "kvm/nested_guest.h"

static unsigned count_bits(const uint8_t *bitmap, size_t bytes)
{
	unsigned n = 0;

	for (size_t i = 0; i < bytes; i++)
		n += (unsigned)__builtin_popcount(bitmap[i]);
	return n;
}

static void dirty_log(unsigned ring_entries, unsigned backing_level)
{
	const uint64_t pages = MEM_BYTES / PAGE, written = 600;
	const gfn_t data = gfn(32 * MIB >> 12);
	struct gn_kvm_config config = plain();
	uint8_t bitmap[MEM_BYTES / PAGE / 8];
	struct gn_kvm *kvm;
	struct gn_vm *vm;
	unsigned bits;

	config.dirty_ring_entries = ring_entries;
	config.vm.backing_level = backing_level;
	kvm = rig_new(&config);
	if (!kvm)
		return;
	vm = gn_kvm_vm(kvm);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, write_pages, 32 * MIB, written, 0), 0);
	RIG_CHECK(!gn_dirty_start(vm), "start");
	RIG_CHECK(!gn_dirty_harvest(vm, gfn(0), pages, bitmap), "harvest");
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, read_pages, 32 * MIB, written, 0),
			(uint32_t)(written * 32 * MIB + written * (written - 1) / 2 * PAGE));
	RIG_CHECK(!gn_dirty_harvest(vm, data, written, bitmap), "harvest");
	bits = count_bits(bitmap, written / 8);
	RIG_CHECK(bits == 0, "%u pages dirty after reading", bits);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, write_pages, 32 * MIB, written, 1), 0);
	RIG_CHECK(!gn_dirty_harvest(vm, data, written, bitmap), "harvest");
	bits = count_bits(bitmap, written / 8);
	RIG_CHECK(bits == written, "%u of %u pages dirty", bits, (unsigned)written);
	RIG_CHECK(!gn_dirty_harvest(vm, data, written, bitmap), "harvest");
	RIG_CHECK(count_bits(bitmap, written / 8) == 0, "harvested twice");
	/* Pages the guest never had, and a write from outside. */
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, write_pages, 48 * MIB, 8, 1), 0);
	rig_word(kvm, 49 * MIB, 1);
	RIG_CHECK(!gn_dirty_harvest(vm, gfn(48 * MIB >> 12), 512, bitmap), "harvest");
	RIG_CHECK(bitmap[0] == 0xff && bitmap[32] == 1 && count_bits(bitmap, 64) == 9,
		  "%u pages dirty", count_bits(bitmap, 64));
	/* A slot that goes takes nothing along. */
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, write_pages, 32 * MIB, 3, 2), 0);
	RIG_CHECK(!gn_p2m_set_mmio(vm, gfn(60 * MIB >> 12), 1), "set_mmio");
	RIG_CHECK(!gn_dirty_harvest(vm, data, 8, bitmap), "harvest");
	RIG_CHECK((bitmap[0] & 7) == 7, "lost with its slot: %#x", bitmap[0]);
	gn_dirty_stop(vm);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, write_pages, 32 * MIB, written, 3), 0);
	RIG_CHECK(!gn_dirty_start(vm), "start again");
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, write_pages, 32 * MIB, 5, 3), 0);
	RIG_CHECK(!gn_dirty_harvest(vm, data, 8, bitmap), "harvest");
	RIG_CHECK((bitmap[0] & 31) == 31, "%#x", bitmap[0]);
	gn_kvm_destroy(kvm);
}

/* While a vCPU writes. What changed from look n-1 to look n is in harvest n, or (written between the harvest and the
 * look) in harvest n+1. */
static void dirty_log_while_running(unsigned ring_entries)
{
	const uint64_t pages = 64, at = 32 * MIB, flag = RIG_DATA;
	struct gn_kvm_config config = plain();
	uint64_t older[64], before[64], after[64];
	uint8_t previous[8], bitmap[8];
	struct runner r;
	struct gn_kvm *kvm;
	struct gn_vm *vm;

	config.dirty_ring_entries = ring_entries;
	kvm = rig_new(&config);
	if (!kvm)
		return;
	vm = gn_kvm_vm(kvm);
	for (uint64_t p = 0; p < pages; p++)
		rig_word(kvm, at + p * PAGE, at + p * PAGE);
	RIG_CHECK(!gn_dirty_start(vm), "start");
	rig_program(kvm, 0, 3, patrol, patrol_end, at, pages, flag);
	start(&r, kvm, 0);
	memset(previous, 0xff, sizeof(previous));
	memset(before, 0, sizeof(before));
	memset(older, 0, sizeof(older));
	for (unsigned round = 0; round < 50 || (round < PATIENCE && before[pages - 1] < 2);
	     round++) {
		RIG_CHECK(!gn_dirty_harvest(vm, gfn(at >> 12), pages, bitmap), "harvest");
		for (uint64_t p = 0; p < pages; p++)
			(void)gn_vm_read(vm, gpa(at + p * PAGE + 8), &after[p], 8);
		for (uint64_t p = 0; p < pages && round > 1; p++)
			RIG_CHECK(older[p] == before[p] ||
					  ((previous[p / 8] | bitmap[p / 8]) >> (p % 8) & 1),
				  "round %u: page %llu changed and is in no harvest", round,
				  (unsigned long long)p);
		memcpy(previous, bitmap, sizeof(previous));
		memcpy(older, before, sizeof(older));
		memcpy(before, after, sizeof(before));
		pause_ms(round < 50 ? 1 : 10);
	}
	RIG_CHECK(before[pages - 1] > 1, "it did not patrol");
	rig_word(kvm, flag, 1);
	finish(&r);
	RIG_CHECK(r.result.stop == GN_KVM_STOP_EXIT && !r.result.status, "stop %d, %#x: %s",
		  r.result.stop, r.result.status, gn_kvm_error(kvm, 0));
	gn_kvm_destroy(kvm);
}

int main(void)
{
	if (!nested_start())
		return rig_end();
	PART(dirty_log(0, 1));
	PART(dirty_log(0, 2));
	PART(dirty_log_while_running(0));
	if (host.dirty_ring) {
		PART(dirty_log(1024, 1));
		PART(dirty_log_while_running(1024));
	} else {
		rig_skip("dirty ring", "this KVM has none");
	}
	return rig_end();
}
