/* SPDX-License-Identifier: MIT */
/*
 * direct_native.c - the baseline programs the hardware with nothing and answers what the p2m withholds.
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <string.h>

#include <gnomon/schemes.h>
#include <gnomon/x86.h>

#define RAM_BYTES ((uint64_t)4 << 20)

static struct gn_vm *native_vm(void)
{
	struct gn_vm_config config = { .scheme = "native", .mem_bytes = RAM_BYTES, .vcpus = 1 };
	struct gn_vm *vm = NULL;

	if (!gn_scheme_find("native"))
		cr_assert_eq(gn_scheme_register(&gn_scheme_native), 0);
	cr_assert_eq(gn_vm_create(&config, &vm), 0);
	return vm;
}

static enum gn_fix_kind touch(struct gn_vm *vm, uint64_t at, enum gn_access_kind kind,
			      bool on_table)
{
	struct gn_fault fault = { .access = { .kind = (uint8_t)kind, .size = 8 },
				  .nested = true,
				  .gpa = gpa((at << GN_PAGE_SHIFT) + 8),
				  .on_table = on_table };
	struct gn_fix fix;

	cr_assert_eq(gn_vcpu_fault(gn_vm_vcpu(vm, 0), &fault, &fix), 0);
	cr_assert_eq(fix.gpa.v, fault.gpa.v);
	return fix.kind;
}

static enum gn_p2m_state state_of(struct gn_vm *vm, uint64_t at)
{
	struct gn_p2m_info info;

	cr_assert_eq(gn_p2m_query(vm, gfn(at), &info), 0);
	return info.state;
}

Test(direct_native, programs_nothing_and_keeps_nothing)
{
	struct gn_vm *vm = native_vm();
	const struct gn_hw *hw = gn_vcpu_hw(gn_vm_vcpu(vm, 0));
	struct gn_table_usage usage;
	uint8_t bitmap[1];

	cr_assert_eq(hw->kind, GN_HW_GUEST);
	cr_assert_eq(hw->intercepts, 0);
	cr_assert_null(hw->fmt);
	gn_vm_table_usage(vm, &usage);
	cr_assert_eq(usage.frames_bytes, 0);
	cr_assert_eq(usage.meta_bytes, 0);
	cr_assert_eq(gn_dirty_start(vm), -EOPNOTSUPP);
	cr_assert_eq(gn_accessed_harvest(vm, gfn(0), 8, bitmap), -EOPNOTSUPP);
	gn_vm_destroy(vm);
}

Test(direct_native, a_missing_frame_is_filled)
{
	struct gn_vm *vm = native_vm();

	cr_assert_eq(touch(vm, 3, GN_READ, false), GN_FIX_RETRY);
	cr_assert_eq(state_of(vm, 3), GN_P2M_PRIVATE);
	cr_assert_eq(gn_vcpu_counters(gn_vm_vcpu(vm, 0))->nested_faults, 1);
	gn_vm_destroy(vm);
}

Test(direct_native, a_shared_frame_is_copied_for_a_write_and_for_the_walker)
{
	struct gn_vm *vm = native_vm();

	for (unsigned pass = 0; pass < 2; pass++) {
		for (uint64_t at = 1; at < 3; at++)
			touch(vm, at, GN_WRITE, false);
		cr_assert_eq(gn_p2m_share(vm, gfn(1), gfn(2)), 0);
		cr_assert_eq(touch(vm, 2, GN_READ, false), GN_FIX_RETRY);
		cr_assert_eq(state_of(vm, 2), GN_P2M_SHARED);
		cr_assert_eq(touch(vm, 2, pass ? GN_READ : GN_WRITE, pass), GN_FIX_RETRY);
		cr_assert_eq(state_of(vm, 2), GN_P2M_PRIVATE, "pass %u", pass);
	}
	gn_vm_destroy(vm);
}

Test(direct_native, what_the_p2m_withholds_is_answered)
{
	struct gn_vm *vm = native_vm();

	cr_assert_eq(touch(vm, RAM_BYTES >> GN_PAGE_SHIFT, GN_READ, false), GN_FIX_MMIO);
	touch(vm, 4, GN_WRITE, false);
	cr_assert_eq(gn_p2m_protect(vm, gfn(4), 1, true), 0);
	cr_assert_eq(touch(vm, 4, GN_READ, false), GN_FIX_RETRY);
	cr_assert_eq(touch(vm, 4, GN_WRITE, false), GN_FIX_DENIED);
	touch(vm, 5, GN_WRITE, false);
	cr_assert_eq(gn_p2m_balloon(vm, gfn(5), 1), 0);
	cr_assert_eq(touch(vm, 5, GN_READ, false), GN_FIX_DENIED);
	gn_vm_destroy(vm);
}

Test(direct_native, a_fault_of_the_guest_is_the_guests)
{
	struct gn_vm *vm = native_vm();
	struct gn_fault fault = { .access = { .va = gva(0x1000) }, .error_code = 4 };
	struct gn_fix fix;

	cr_assert_eq(gn_vcpu_fault(gn_vm_vcpu(vm, 0), &fault, &fix), 0);
	cr_assert_eq(fix.kind, GN_FIX_INJECT);
	cr_assert_eq(fix.error_code, 4);
	gn_vm_destroy(vm);
}

Test(direct_native, the_tag_follows_the_pcid)
{
	struct gn_vm *vm = native_vm();
	struct gn_vcpu *vcpu = gn_vm_vcpu(vm, 0);
	bool gp;

	cr_assert_eq(gn_vcpu_write_efer(vcpu, X86_EFER_LME, &gp), 0);
	cr_assert_eq(gn_vcpu_write_cr4(vcpu, X86_CR4_PAE, &gp), 0);
	cr_assert_eq(gn_vcpu_write_cr3(vcpu, 0x3000, &gp), 0);
	cr_assert_eq(gn_vcpu_write_cr0(vcpu, X86_CR0_PE | X86_CR0_PG, &gp), 0);
	cr_assert_eq(gn_vcpu_hw(vcpu)->pcid, 0);
	cr_assert_eq(gn_vcpu_write_cr4(vcpu, X86_CR4_PAE | X86_CR4_PCIDE, &gp), 0);
	cr_assert_not(gp);
	cr_assert_eq(gn_vcpu_write_cr3(vcpu, 0x3000 | 0x123, &gp), 0);
	cr_assert_eq(gn_vcpu_hw(vcpu)->pcid, 0x123);
	gn_vm_destroy(vm);
}
