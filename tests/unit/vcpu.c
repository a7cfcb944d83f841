/* SPDX-License-Identifier: MIT */
/*
 * vcpu.c - register writes as the architecture answers them, the flushes they mean, faults and stores.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include <gnomon/x86.h>

#include "support/plain_scheme.h"

#define MIB ((uint64_t)1 << 20)

static struct gn_vm *vm;
static struct gn_vcpu *vcpu;

static void set_up(void)
{
	struct gn_vm_config config = plain_config(8 * MIB);

	vm = plain_vm(&config);
	cr_assert_not_null(vm);
	vcpu = gn_vm_vcpu(vm, 0);
}

static void tear_down(void)
{
	gn_vm_destroy(vm);
}

TestSuite(vcpu, .init = set_up, .fini = tear_down);

enum reg { CR0, CR3, CR4, EFER };

/* 0, or 1 for #GP. */
static int put(enum reg reg, uint64_t value)
{
	static int (*const write[])(struct gn_vcpu *, uint64_t, bool *) = {
		[CR0] = gn_vcpu_write_cr0,
		[CR3] = gn_vcpu_write_cr3,
		[CR4] = gn_vcpu_write_cr4,
		[EFER] = gn_vcpu_write_efer,
	};
	const struct gn_regs before = *gn_vcpu_regs(vcpu);
	bool gp = true;

	cr_assert_eq(write[reg](vcpu, value, &gp), 0);
	if (gp)
		cr_assert_eq(memcmp(&before, gn_vcpu_regs(vcpu), sizeof(before)), 0);
	return gp;
}

static void long_mode(void)
{
	cr_assert_eq(put(CR4, X86_CR4_PAE), 0);
	cr_assert_eq(put(EFER, X86_EFER_LME | X86_EFER_NXE), 0);
	cr_assert_eq(put(CR0, X86_CR0_PE | X86_CR0_PG | X86_CR0_WP), 0);
}

Test(vcpu, the_way_into_long_mode)
{
	cr_assert_eq(put(CR0, X86_CR0_PG), 1, "PG without PE");
	cr_assert_eq(put(CR0, X86_CR0_PE | X86_CR0_PG), 1, "32-bit paging");
	cr_assert_eq(put(EFER, X86_EFER_LME), 0);
	cr_assert_eq(gn_vcpu_regs(vcpu)->efer & X86_EFER_LMA, 0);
	cr_assert_eq(put(CR0, X86_CR0_PE | X86_CR0_PG), 1, "PG and LME without PAE");
	cr_assert_eq(put(CR4, X86_CR4_PAE), 0);
	cr_assert_null(vcpu->paging.fmt);
	cr_assert_eq(put(CR0, X86_CR0_PE | X86_CR0_PG), 0);
	cr_assert_eq(gn_vcpu_regs(vcpu)->efer, X86_EFER_LME | X86_EFER_LMA);
	cr_assert_eq(vcpu->paging.levels, 4);
	cr_assert_eq(put(CR0, X86_CR0_PE), 0);
	cr_assert_eq(gn_vcpu_regs(vcpu)->efer, X86_EFER_LME, "LMA follows PG");
	cr_assert_eq(put(CR4, X86_CR4_PAE | X86_CR4_LA57), 0);
	cr_assert_eq(put(CR0, X86_CR0_PE | X86_CR0_PG), 0);
	cr_assert_eq(vcpu->paging.levels, 5);
}

Test(vcpu, refused_in_long_mode)
{
	static const struct {
		enum reg reg;
		uint64_t value;
		int gp;
	} cases[] = {
		{ CR0, (uint64_t)1 << 32, 1 },
		{ CR0, X86_CR0_PE | X86_CR0_PG | X86_CR0_NW, 1 },
		{ CR0, X86_CR0_PE | X86_CR0_PG | X86_CR0_NW | X86_CR0_CD, 0 },
		{ CR0, X86_CR0_PG, 1 },
		{ CR4, 0, 1 },
		{ CR4, X86_CR4_PAE | X86_CR4_LA57, 1 },
		{ CR4, X86_CR4_PAE | (uint64_t)1 << 13, 1 }, /* VMXE */
		{ CR4, X86_CR4_PAE | (uint64_t)1 << 23, 1 }, /* CET */
		{ CR4, X86_CR4_PAE | (uint64_t)1 << 40, 1 },
		{ CR4, X86_CR4_PAE | X86_CR4_PGE | X86_CR4_SMEP | X86_CR4_SMAP | X86_CR4_PKE, 0 },
		{ EFER, X86_EFER_NXE, 1 }, /* LME cleared */
		{ EFER, X86_EFER_LME, 0 }, /* LMA is not written */
		{ EFER, X86_EFER_LME | (uint64_t)1 << 12, 1 },
		{ CR3, (uint64_t)1 << 45, 0 },
		{ CR3, (uint64_t)1 << 46, 1 },
		{ CR3, (uint64_t)1 << 63, 1 },
		{ CR3, 0x18, 0 },
	};

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const struct gn_regs fresh = { .cr0 = X86_CR0_PE };

		vcpu->regs = fresh;
		long_mode();
		cr_assert_eq(put(cases[i].reg, cases[i].value), cases[i].gp, "case %u", i);
		cr_assert(gn_vcpu_regs(vcpu)->efer & X86_EFER_LMA);
	}
}

Test(vcpu, pcid_rules)
{
	cr_assert_eq(put(CR4, X86_CR4_PAE | X86_CR4_PCIDE), 1, "outside long mode");
	long_mode();
	cr_assert_eq(put(CR3, 0x1001), 0);
	cr_assert_eq(put(CR4, X86_CR4_PAE | X86_CR4_PCIDE), 1, "with low bits in CR3");
	cr_assert_eq(gn_vcpu_guest_pcid(vcpu), 0);
	cr_assert_eq(put(CR3, 0x1000), 0);
	cr_assert_eq(put(CR4, X86_CR4_PAE | X86_CR4_PCIDE), 0);
	cr_assert_eq(put(CR0, X86_CR0_PE), 1, "PG cleared with PCIDE");
	cr_assert_eq(put(CR3, 0x2abc), 0);
	cr_assert_eq(gn_vcpu_guest_pcid(vcpu), 0xabc);
	cr_assert_eq(gn_vcpu_hw(vcpu)->pcid, 0xabc);
	cr_assert_eq(put(CR4, X86_CR4_PAE | X86_CR4_PCIDE | X86_CR4_PGE), 0, "set already");
	cr_assert_eq(put(CR4, X86_CR4_PAE), 0);
	cr_assert_eq(gn_vcpu_guest_pcid(vcpu), 0);
}

Test(vcpu, cr3_flushes_its_tag_unless_told_not_to)
{
	long_mode();
	memset(&plain, 0, sizeof(plain));
	cr_assert_eq(put(CR3, 0x5000), 0);
	cr_assert_eq(plain.loads, 1);
	cr_assert_eq(plain.guest_flushes, 1);
	cr_assert_eq(plain.guest_flush.scope, GN_FLUSH_PCID);
	cr_assert_eq(plain.flushes, 1);
	cr_assert_eq(plain.flush.pcid, 0);
	cr_assert_eq(put(CR4, X86_CR4_PAE | X86_CR4_PCIDE), 0);
	memset(&plain, 0, sizeof(plain));
	cr_assert_eq(put(CR3, 0x6003), 0);
	cr_assert_eq(plain.flush.scope, GN_FLUSH_PCID);
	cr_assert_eq(plain.flush.pcid, 3);
	cr_assert_eq(put(CR3, 0x7004 | X86_CR3_NOFLUSH), 0);
	cr_assert_eq(plain.loads, 2);
	cr_assert_eq(plain.flushes, 1);
	cr_assert_eq(plain.guest_flushes, 1);
	cr_assert_eq(gn_vcpu_regs(vcpu)->cr3, 0x7004, "bit 63 is an operand");
}

Test(vcpu, modes_flush_everything_and_only_when_paging_changes)
{
	long_mode();
	memset(&plain, 0, sizeof(plain));
	cr_assert_eq(put(CR4, X86_CR4_PAE | 0x600), 0);
	cr_assert_eq(put(EFER, X86_EFER_LME | X86_EFER_NXE | X86_EFER_SCE), 0);
	cr_assert_eq(put(CR0, X86_CR0_PE | X86_CR0_PG | X86_CR0_WP | 8), 0);
	cr_assert_eq(plain.modes + plain.flushes + plain.guest_flushes, 0);
	cr_assert_eq(put(CR0, X86_CR0_PE | X86_CR0_PG), 0);
	cr_assert_eq(put(EFER, X86_EFER_LME), 0);
	cr_assert_eq(put(CR4, X86_CR4_PAE | X86_CR4_PGE), 0);
	cr_assert_eq(plain.modes, 3);
	cr_assert_eq(plain.flushes, 3);
	cr_assert_eq(plain.guest_flushes, 3);
	cr_assert_eq(plain.flush.scope, GN_FLUSH_ALL);
	cr_assert_not(vcpu->paging.wp || vcpu->paging.nxe);
	gn_vcpu_write_pkru(vcpu, 0x55);
	cr_assert_eq(gn_vcpu_regs(vcpu)->pkru, 0x55);
	cr_assert_eq(vcpu->paging.pkru, 0x55);
}

Test(vcpu, a_scheme_that_cannot_follow_leaves_the_registers)
{
	long_mode();
	const struct gn_regs before = *gn_vcpu_regs(vcpu);
	bool gp;

	plain.load_error = -ENOMEM;
	cr_assert_eq(gn_vcpu_write_cr3(vcpu, 0x9000, &gp), -ENOMEM);
	cr_assert_eq(gn_vcpu_write_cr0(vcpu, X86_CR0_PE | X86_CR0_PG, &gp), -ENOMEM);
	cr_assert_not(gp);
	cr_assert_eq(memcmp(&before, gn_vcpu_regs(vcpu), sizeof(before)), 0);
	cr_assert(vcpu->paging.wp);
}

Test(vcpu, invlpg)
{
	long_mode();
	memset(&plain, 0, sizeof(plain));
	gn_vcpu_invlpg(vcpu, gva((uint64_t)1 << 60));
	cr_assert_eq(plain.invlpgs + plain.flushes, 0, "not canonical: nothing");
	gn_vcpu_invlpg(vcpu, gva(0xffff800000001234));
	cr_assert_eq(plain.invlpgs, 1);
	cr_assert_eq(plain.invlpg.v, 0xffff800000001234);
	cr_assert_eq(plain.flushes, 1);
	cr_assert_eq(plain.flush.scope, GN_FLUSH_VA);
	cr_assert_eq(plain.flush.va.v, 0xffff800000001234);
}

Test(vcpu, invpcid)
{
	const uint64_t wild = (uint64_t)1 << 60;
	static const enum gn_flush_scope scopes[] = { GN_FLUSH_VA, GN_FLUSH_PCID, GN_FLUSH_ALL,
						      GN_FLUSH_NONGLOBAL };
	bool gp;

	long_mode();
	gn_vcpu_invpcid(vcpu, X86_INVPCID_SINGLE, 1, gva(0), &gp);
	cr_assert(gp, "a PCID without PCIDE");
	cr_assert_eq(put(CR4, X86_CR4_PAE | X86_CR4_PCIDE), 0);
	gn_vcpu_invpcid(vcpu, 4, 0, gva(0), &gp);
	cr_assert(gp);
	gn_vcpu_invpcid(vcpu, X86_INVPCID_ADDR, 0, gva(wild), &gp);
	cr_assert(gp);
	gn_vcpu_invpcid(vcpu, X86_INVPCID_ALL, 0x1000, gva(0), &gp);
	cr_assert(gp, "reserved bits of the descriptor");
	for (unsigned type = 0; type < 4; type++) {
		memset(&plain, 0, sizeof(plain));
		gn_vcpu_invpcid(vcpu, type, 0xfff, gva(type ? wild : 0x4000), &gp);
		cr_assert_not(gp, "type %u", type);
		cr_assert_eq(plain.guest_flushes, 1);
		cr_assert_eq(plain.flushes, 1);
		cr_assert_eq(plain.flush.scope, scopes[type]);
		cr_assert_eq(plain.flush.pcid, 0xfff);
	}
}

/* Without operations of its own, a scheme gets frames for nested faults and #PFs for the guest. */
Test(vcpu, default_faults)
{
	struct gn_fault fault = { .access = { .va = { 0x1000 }, .kind = GN_WRITE, .size = 8 },
				  .error_code = X86_PF_W };
	struct gn_fix fix;

	cr_assert_eq(gn_vcpu_fault(vcpu, &fault, &fix), 0);
	cr_assert_eq(fix.kind, GN_FIX_INJECT);
	cr_assert_eq(fix.error_code, X86_PF_W);
	fault.nested = true;
	fault.gpa = gpa(0x3000);
	cr_assert_eq(gn_vcpu_fault(vcpu, &fault, &fix), 0);
	cr_assert_eq(fix.kind, GN_FIX_RETRY);
	cr_assert_eq(plain_query(vm, 3).state, GN_P2M_PRIVATE);
	fault.gpa = gpa(8 * MIB);
	cr_assert_eq(gn_vcpu_fault(vcpu, &fault, &fix), 0);
	cr_assert_eq(fix.kind, GN_FIX_MMIO);
}

Test(vcpu, stores)
{
	uint8_t model[GN_PAGE_SIZE] = { 0 }, got[GN_PAGE_SIZE];
	uint64_t value = 0x1122334455667788;

	for (unsigned bytes = 1; bytes <= 16; bytes++) {
		for (unsigned at = 0; at < 20; at++) {
			uint8_t data[16];

			for (unsigned i = 0; i < 16; i++)
				data[i] = (uint8_t)(bytes * 16 + at + i);
			cr_assert_eq(gn_vcpu_store(vcpu, gpa(0x5000 + at), data, bytes), 0);
			memcpy(model + at, data, bytes);
			gn_vm_read(vm, gpa(0x5000), got, sizeof(got));
			cr_assert_eq(memcmp(model, got, sizeof(got)), 0, "%u at %u", bytes, at);
		}
	}
	cr_assert_eq(gn_vcpu_counters(vcpu)->pt_writes_trapped, 16 * 20);
	cr_assert_eq(plain.written_bytes, 16);
	cr_assert_not(plain.written_from_outside);
	cr_assert_eq(gn_vcpu_store(vcpu, gpa(0x5ff8), &value, 8), 0);
	cr_assert_eq(gn_vcpu_store(vcpu, gpa(0x5ff9), &value, 8), -EFAULT, "crosses a page");
	cr_assert_eq(gn_vcpu_store(vcpu, gpa(0x5000), &value, 0), -EFAULT);
	cr_assert_eq(gn_vcpu_store(vcpu, gpa(8 * MIB), &value, 8), -EFAULT);
	cr_assert_eq(gn_p2m_protect(vm, gfn(5), 1, true), 0);
	cr_assert_eq(gn_vcpu_store(vcpu, gpa(0x5000), &value, 8), -EFAULT);
	/* A store to a shared page copies it. */
	cr_assert_eq(gn_vcpu_store(vcpu, gpa(0x6000), &value, 8), 0);
	cr_assert_eq(gn_vcpu_store(vcpu, gpa(0x7000), &value, 8), 0);
	cr_assert_eq(gn_p2m_share(vm, gfn(6), gfn(7)), 0);
	cr_assert_eq(gn_vcpu_store(vcpu, gpa(0x7008), &value, 8), 0);
	cr_assert_eq(plain_query(vm, 6).state, GN_P2M_SHARED);
	cr_assert_eq(plain_query(vm, 7).state, GN_P2M_PRIVATE);
}
