/* SPDX-License-Identifier: MIT */
/*
 * direct_interp.c - every access translated by software: the answer to each kind of access, A and D in the
 * guest's tables, the dirty log, and p2m states under table and datum.
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <string.h>

#include <gnomon/schemes.h>
#include <gnomon/x86.h>

#define RAM_BYTES  ((uint64_t)4 << 20)
#define TABLE_BITS (X86_PTE_P | X86_PTE_W | X86_PTE_U)

/* Four tables at gfns 1..4 map VA 0 + n * 4 KiB to gfn 16 + n for n < 64. */
#define FIRST_DATA 16

static void set_entry(struct gn_vm *vm, uint64_t table, unsigned index, uint64_t entry)
{
	cr_assert_eq(gn_vm_write(vm, gpa((table << GN_PAGE_SHIFT) + index * 8), &entry, 8), 0);
}

static uint64_t get_entry(struct gn_vm *vm, uint64_t table, unsigned index)
{
	uint64_t entry;

	cr_assert_eq(gn_vm_read(vm, gpa((table << GN_PAGE_SHIFT) + index * 8), &entry, 8), 0);
	return entry;
}

static struct gn_vm *interp_vm(void)
{
	struct gn_vm_config config = { .scheme = "interp", .mem_bytes = RAM_BYTES, .vcpus = 1 };
	struct gn_vm *vm = NULL;
	struct gn_vcpu *vcpu;
	bool gp;

	if (!gn_scheme_find("interp"))
		cr_assert_eq(gn_scheme_register(&gn_scheme_interp), 0);
	cr_assert_eq(gn_vm_create(&config, &vm), 0);
	for (uint64_t table = 1; table < 4; table++)
		set_entry(vm, table, 0, (table + 1) << GN_PAGE_SHIFT | TABLE_BITS);
	for (unsigned n = 0; n < 64; n++)
		set_entry(vm, 4, n, (uint64_t)(FIRST_DATA + n) << GN_PAGE_SHIFT | TABLE_BITS);
	vcpu = gn_vm_vcpu(vm, 0);
	gn_vcpu_write_efer(vcpu, X86_EFER_LME | X86_EFER_NXE, &gp);
	gn_vcpu_write_cr4(vcpu, X86_CR4_PAE, &gp);
	gn_vcpu_write_cr3(vcpu, 1 << GN_PAGE_SHIFT, &gp);
	gn_vcpu_write_cr0(vcpu, X86_CR0_PE | X86_CR0_PG | X86_CR0_WP, &gp);
	cr_assert_not(gp);
	return vm;
}

static int access(struct gn_vm *vm, uint64_t va, enum gn_access_kind kind, struct gn_fix *fix)
{
	struct gn_fault fault = { .access = { .va = gva(va), .kind = (uint8_t)kind, .size = 8 } };

	return gn_vcpu_fault(gn_vm_vcpu(vm, 0), &fault, fix);
}

static struct gn_fix access_ok(struct gn_vm *vm, uint64_t va, enum gn_access_kind kind)
{
	struct gn_fix fix;
	int err = access(vm, va, kind, &fix);

	cr_assert_eq(err, 0, "va %#lx: %d", (unsigned long)va, err);
	return fix;
}

Test(direct_interp, every_access_comes_here)
{
	struct gn_vm *vm = interp_vm();

	cr_assert_eq(gn_vcpu_hw(gn_vm_vcpu(vm, 0))->kind, GN_HW_SOFTWARE);
	cr_assert_eq(gn_vcpu_hw(gn_vm_vcpu(vm, 0))->intercepts, 0);
	gn_vm_destroy(vm);
}

Test(direct_interp, composes_both_tables)
{
	struct gn_vm *vm = interp_vm();
	struct gn_p2m_info info;
	struct gn_fix fix = access_ok(vm, 0x5008, GN_WRITE);

	cr_assert_eq(fix.kind, GN_FIX_ACCESS);
	cr_assert_eq(fix.gpa.v, ((FIRST_DATA + 5) << GN_PAGE_SHIFT) + 8);
	cr_assert_eq(gn_p2m_query(vm, gfn(FIRST_DATA + 5), &info), 0);
	cr_assert_eq(fix.hpa.v, pfn_to_hpa(info.pfn).v + 8);
	cr_assert_eq(get_entry(vm, 4, 5) & (X86_PTE_A | X86_PTE_D), X86_PTE_A | X86_PTE_D);
	cr_assert_eq(access_ok(vm, 0x6000, GN_READ).kind, GN_FIX_ACCESS);
	cr_assert_eq(get_entry(vm, 4, 6) & (X86_PTE_A | X86_PTE_D), X86_PTE_A);
	cr_assert_eq(get_entry(vm, 4, 7) & X86_PTE_A, 0);
	gn_vm_destroy(vm);
}

Test(direct_interp, the_guests_faults_are_injected)
{
	struct gn_vm *vm = interp_vm();
	struct gn_fix fix;

	set_entry(vm, 4, 1, 0);
	fix = access_ok(vm, 0x1000, GN_WRITE);
	cr_assert_eq(fix.kind, GN_FIX_INJECT);
	cr_assert_eq(fix.error_code, X86_PF_W);
	set_entry(vm, 4, 1, (uint64_t)FIRST_DATA << GN_PAGE_SHIFT | X86_PTE_P | X86_PTE_NX);
	fix = access_ok(vm, 0x1000, GN_FETCH);
	cr_assert_eq(fix.kind, GN_FIX_INJECT);
	cr_assert_eq(fix.error_code, X86_PF_P | X86_PF_I);
	fix = access_ok(vm, (uint64_t)1 << 62, GN_READ);
	cr_assert_eq(fix.kind, GN_FIX_INJECT_GP);
	gn_vm_destroy(vm);
}

Test(direct_interp, without_paging_the_address_is_physical)
{
	struct gn_vm *vm = interp_vm();
	struct gn_fix fix;
	bool gp;

	gn_vcpu_write_cr0(gn_vm_vcpu(vm, 0), X86_CR0_PE, &gp);
	fix = access_ok(vm, 0x33010, GN_WRITE);
	cr_assert_eq(fix.kind, GN_FIX_ACCESS);
	cr_assert_eq(fix.gpa.v, 0x33010);
	fix = access_ok(vm, RAM_BYTES + 0x10, GN_WRITE);
	cr_assert_eq(fix.kind, GN_FIX_MMIO);
	cr_assert_eq(fix.gpa.v, RAM_BYTES + 0x10);
	gn_vm_destroy(vm);
}

Test(direct_interp, p2m_states_under_the_datum)
{
	struct gn_vm *vm = interp_vm();
	struct gn_p2m_info info;

	access_ok(vm, 0x1000, GN_WRITE);
	access_ok(vm, 0x2000, GN_WRITE);
	cr_assert_eq(gn_p2m_share(vm, gfn(FIRST_DATA + 1), gfn(FIRST_DATA + 2)), 0);
	cr_assert_eq(access_ok(vm, 0x2000, GN_READ).kind, GN_FIX_ACCESS);
	cr_assert_eq(access_ok(vm, 0x2000, GN_FETCH).kind, GN_FIX_ACCESS);
	cr_assert_eq(access_ok(vm, 0x2000, GN_WRITE).kind, GN_FIX_ACCESS);
	gn_p2m_query(vm, gfn(FIRST_DATA + 2), &info);
	cr_assert_eq(info.state, GN_P2M_PRIVATE);
	cr_assert_eq(gn_p2m_protect(vm, gfn(FIRST_DATA + 2), 1, true), 0);
	cr_assert_eq(access_ok(vm, 0x2000, GN_READ).kind, GN_FIX_ACCESS);
	cr_assert_eq(access_ok(vm, 0x2010, GN_WRITE).kind, GN_FIX_DENIED);
	cr_assert_eq(access_ok(vm, 0x2010, GN_WRITE).gpa.v,
		     ((FIRST_DATA + 2) << GN_PAGE_SHIFT) + 0x10);
	cr_assert_eq(gn_p2m_balloon(vm, gfn(FIRST_DATA + 3), 1), 0);
	cr_assert_eq(access_ok(vm, 0x3000, GN_READ).kind, GN_FIX_DENIED);
	gn_vm_destroy(vm);
}

Test(direct_interp, p2m_states_under_a_table)
{
	struct gn_vm *vm = interp_vm();
	struct gn_p2m_info info;
	struct gn_fix fix;

	/* A shared table is read as it is, and copied when A must be set. */
	access_ok(vm, 0x1000, GN_READ);
	cr_assert_eq(gn_vm_write(vm, gpa((uint64_t)100 << GN_PAGE_SHIFT), "", 1), 0);
	for (unsigned n = 0; n < 512; n++)
		set_entry(vm, 100, n, get_entry(vm, 4, n));
	cr_assert_eq(gn_p2m_share(vm, gfn(100), gfn(4)), 0);
	cr_assert_eq(access_ok(vm, 0x1000, GN_READ).kind, GN_FIX_ACCESS);
	gn_p2m_query(vm, gfn(4), &info);
	cr_assert_eq(info.state, GN_P2M_SHARED);
	cr_assert_eq(access_ok(vm, 0x2000, GN_READ).kind, GN_FIX_ACCESS);
	gn_p2m_query(vm, gfn(4), &info);
	cr_assert_eq(info.state, GN_P2M_PRIVATE);
	cr_assert_eq(get_entry(vm, 100, 2) & X86_PTE_A, 0, "the other sharer saw nothing");
	/* In ROM it works until A must be set. */
	cr_assert_eq(gn_p2m_protect(vm, gfn(4), 1, true), 0);
	cr_assert_eq(access_ok(vm, 0x2000, GN_READ).kind, GN_FIX_ACCESS);
	fix = access_ok(vm, 0x3000, GN_READ);
	cr_assert_eq(fix.kind, GN_FIX_STOP);
	cr_assert_eq(fix.gpa.v, (4 << GN_PAGE_SHIFT) + 3 * 8);
	/* Beyond RAM there are no tables. */
	set_entry(vm, 3, 0, RAM_BYTES | TABLE_BITS);
	fix = access_ok(vm, 0x3000, GN_READ);
	cr_assert_eq(fix.kind, GN_FIX_STOP);
	cr_assert_not_null(fix.why);
	cr_assert_eq(fix.gpa.v, RAM_BYTES + 3 * 8);
	gn_vm_destroy(vm);
}

Test(direct_interp, the_dirty_log_is_exact)
{
	struct gn_vm *vm = interp_vm();
	uint8_t bitmap[16];

	access_ok(vm, 0x1000, GN_WRITE); /* the upper tables are accessed from here on */
	cr_assert_eq(gn_dirty_start(vm), 0);
	access_ok(vm, 0x1000, GN_WRITE);
	access_ok(vm, 0x1000, GN_READ);
	cr_assert_eq(gn_dirty_harvest(vm, gfn(0), 128, bitmap), 0);
	for (unsigned at = 0; at < 128; at++)
		cr_assert_eq((bitmap[at / 8] >> (at % 8)) & 1, at == FIRST_DATA + 1, "gfn %u", at);
	access_ok(vm, 0x7000, GN_READ); /* sets A in the level-1 table */
	cr_assert_eq(gn_dirty_harvest(vm, gfn(0), 128, bitmap), 0);
	for (unsigned at = 0; at < 128; at++)
		cr_assert_eq((bitmap[at / 8] >> (at % 8)) & 1, at == 4, "gfn %u", at);
	gn_dirty_stop(vm);
	gn_vm_destroy(vm);
}

Test(direct_interp, out_of_frames_is_an_error_and_then_works)
{
	struct gn_vm *vm = interp_vm();
	struct gn_fix fix;

	gn_alloc_fail_nth(1);
	cr_assert_eq(access(vm, 0x9000, GN_WRITE, &fix), -ENOMEM);
	gn_alloc_fail_nth(0);
	cr_assert_eq(access_ok(vm, 0x9000, GN_WRITE).kind, GN_FIX_ACCESS);
	gn_vm_destroy(vm);
}

Test(direct_interp, the_tag_follows_the_pcid)
{
	struct gn_vm *vm = interp_vm();
	struct gn_vcpu *vcpu = gn_vm_vcpu(vm, 0);
	bool gp;

	cr_assert_eq(gn_vcpu_write_cr4(vcpu, X86_CR4_PAE | X86_CR4_PCIDE, &gp), 0);
	cr_assert_eq(gn_vcpu_write_cr3(vcpu, 0x1000 | 0x77, &gp), 0);
	cr_assert_eq(gn_vcpu_hw(vcpu)->pcid, 0x77);
	gn_vm_destroy(vm);
}
