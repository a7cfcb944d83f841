/* SPDX-License-Identifier: MIT */
/*
 * state.c - the vCPU's registers, between this room's picture (struct gn_kvm_state) and KVM's structures.
 *
 * Pure conversion, the same for both modes. Nothing is judged here: KVM refuses what the CPU could not be in.
 */
#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "machine.h"

/* Attributes are bits 40..55 of a descriptor: type 0-3, S 4, DPL 5-6, P 7, AVL 12, L 13, D/B 14, G 15. */
void gn_kvm_segment_to(const struct gn_kvm_segment *from, struct kvm_segment *to)
{
	const unsigned a = from->attributes;

	*to = (struct kvm_segment){
		.base = from->base,
		.limit = from->limit,
		.selector = from->selector,
		.type = a & 15,
		.s = a >> 4 & 1,
		.dpl = a >> 5 & 3,
		.present = a >> 7 & 1,
		.avl = a >> 12 & 1,
		.l = a >> 13 & 1,
		.db = a >> 14 & 1,
		.g = a >> 15 & 1,
		.unusable = !(a >> 7 & 1),
	};
}

void gn_kvm_segment_from(const struct kvm_segment *from, struct gn_kvm_segment *to)
{
	const bool is_present = from->present && !from->unusable;

	*to = (struct gn_kvm_segment){
		.base = from->base,
		.limit = from->limit,
		.selector = from->selector,
		.attributes = (uint16_t)((unsigned)from->type | (unsigned)from->s << 4 |
					 (unsigned)from->dpl << 5 | (unsigned)is_present << 7 |
					 (unsigned)from->avl << 12 | (unsigned)from->l << 13 |
					 (unsigned)from->db << 14 | (unsigned)from->g << 15),
	};
}

/* kvm_regs has rax rbx rcx rdx rsi rdi rsp rbp r8..r15; ours is in the order of encoding. */
void gn_kvm_regs_to(const struct gn_kvm_state *from, struct kvm_regs *to)
{
	const uint64_t *g = from->gpr;

	*to = (struct kvm_regs){
		.rax = g[0],
		.rcx = g[1],
		.rdx = g[2],
		.rbx = g[3],
		.rsp = g[4],
		.rbp = g[5],
		.rsi = g[6],
		.rdi = g[7],
		.rip = from->rip,
		.rflags = from->rflags | 2, /* bit 1 is always set */
	};
	memcpy(&to->r8, &g[8], 8 * sizeof(g[0]));
}

void gn_kvm_regs_from(const struct kvm_regs *from, struct gn_kvm_state *to)
{
	const uint64_t low[8] = { from->rax, from->rcx, from->rdx, from->rbx,
				  from->rsp, from->rbp, from->rsi, from->rdi };

	memcpy(to->gpr, low, sizeof(low));
	memcpy(&to->gpr[8], &from->r8, 8 * sizeof(to->gpr[0]));
	to->rip = from->rip;
	to->rflags = from->rflags;
}
_Static_assert(offsetof(struct kvm_regs, r15) - offsetof(struct kvm_regs, r8) == 7 * 8,
	       "r8 to r15 lie in a row");

void gn_kvm_sregs_to(const struct gn_kvm_state *from, struct kvm_sregs *to)
{
	gn_kvm_segment_to(&from->cs, &to->cs);
	gn_kvm_segment_to(&from->ss, &to->ss);
	gn_kvm_segment_to(&from->ds, &to->ds);
	gn_kvm_segment_to(&from->es, &to->es);
	gn_kvm_segment_to(&from->fs, &to->fs);
	gn_kvm_segment_to(&from->gs, &to->gs);
	gn_kvm_segment_to(&from->ldtr, &to->ldt);
	gn_kvm_segment_to(&from->tr, &to->tr);
	to->gdt.base = from->gdtr.base;
	to->gdt.limit = from->gdtr.limit;
	to->idt.base = from->idtr.base;
	to->idt.limit = from->idtr.limit;
	to->cr0 = from->regs.cr0;
	to->cr2 = from->cr2;
	to->cr3 = from->regs.cr3;
	to->cr4 = from->regs.cr4;
	to->cr8 = from->cr8;
	to->efer = from->regs.efer;
	memset(to->interrupt_bitmap, 0, sizeof(to->interrupt_bitmap));
}

void gn_kvm_sregs_from(const struct kvm_sregs *from, struct gn_kvm_state *to)
{
	gn_kvm_segment_from(&from->cs, &to->cs);
	gn_kvm_segment_from(&from->ss, &to->ss);
	gn_kvm_segment_from(&from->ds, &to->ds);
	gn_kvm_segment_from(&from->es, &to->es);
	gn_kvm_segment_from(&from->fs, &to->fs);
	gn_kvm_segment_from(&from->gs, &to->gs);
	gn_kvm_segment_from(&from->ldt, &to->ldtr);
	gn_kvm_segment_from(&from->tr, &to->tr);
	to->gdtr.base = from->gdt.base;
	to->gdtr.limit = from->gdt.limit;
	to->idtr.base = from->idt.base;
	to->idtr.limit = from->idt.limit;
	to->regs.cr0 = from->cr0;
	to->cr2 = from->cr2;
	to->regs.cr3 = from->cr3;
	to->regs.cr4 = from->cr4;
	to->cr8 = from->cr8;
	to->regs.efer = from->efer;
}

/* ---- MSRs -------------------------------------------------------------------------------------------- */

#define MSRS 4
struct msr_block {
	struct kvm_msrs head;
	struct kvm_msr_entry entries[MSRS];
};
/* AMD APM vol. 2, appendix A. */
static const uint32_t msr_index[MSRS] = { 0xc0000081, 0xc0000082, 0xc0000084, 0xc0000102 };

static void msr_block_init(struct msr_block *block)
{
	memset(block, 0, sizeof(*block));
	block->head.nmsrs = MSRS;
	for (unsigned i = 0; i < MSRS; i++)
		block->entries[i].index = msr_index[i];
}

int gn_kvm_msrs_set(struct gn_kvm_cpu *cpu, const struct gn_kvm_state *from)
{
	const uint64_t values[MSRS] = { from->star, from->lstar, from->sfmask,
					from->kernel_gs_base };
	struct msr_block block;
	int done;

	msr_block_init(&block);
	for (unsigned i = 0; i < MSRS; i++)
		block.entries[i].data = values[i];
	done = gn_kvm_ioctl(cpu->fd, KVM_SET_MSRS, &block);
	if (done < 0)
		return done;
	return done == MSRS ? 0 : -EINVAL;
}

int gn_kvm_msrs_get(struct gn_kvm_cpu *cpu, struct gn_kvm_state *to)
{
	struct msr_block block;
	int done;

	msr_block_init(&block);
	done = gn_kvm_ioctl(cpu->fd, KVM_GET_MSRS, &block);
	if (done != MSRS)
		return done < 0 ? done : -EINVAL;
	to->star = block.entries[0].data;
	to->lstar = block.entries[1].data;
	to->sfmask = block.entries[2].data;
	to->kernel_gs_base = block.entries[3].data;
	return 0;
}
