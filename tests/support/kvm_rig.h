/* SPDX-License-Identifier: MIT */
/*
 * kvm_rig.h - a hand-assembled guest: tables, descriptors, handlers that write down what they got.
 *
 *     K(pa) = 0xffffffff80000000 + pa   supervisor, the first 2 MiB, 4 KiB pages: tables, descriptors, stacks, kernel code
 *     U(pa) = 0x40000000 + pa - 2 MiB   user, the second 2 MiB
 *
 * Every vector has a handler that appends a record, and then ends the run with status 0x100 + vector, or, when .resumes is
 * set, goes on .skip bytes behind. Guest code is assembled here and copied to where it runs (so it is position independent).
 */
#ifndef TESTS_KVM_RIG_H
#define TESTS_KVM_RIG_H

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <gnomon/kvm.h>
#include <gnomon/schemes.h>
#include <gnomon/x86.h>

#define K(pa)	   (0xffffffff80000000ull + (pa))
#define U(pa)	   (0x40000000ull + (pa)-0x200000ull)
#define RIG_COMMON 0x6000ull
#define RIG_STUBS  0x7000ull
#define RIG_IDT	   0x8000ull
#define RIG_GDT	   0x9000ull
#define RIG_TSS	   0xa000ull
#define RIG_STACK  0xc000ull /* tops; a page each */
#define RIG_RSP0   0xd000ull
#define RIG_IST1   0xe000ull
#define RIG_RECORD 0xf000ull
#define RIG_PML4   0x10000ull
#define RIG_PDPT_K 0x11000ull
#define RIG_PD_K   0x12000ull
#define RIG_PT_K   0x13000ull
#define RIG_PDPT_U 0x14000ull
#define RIG_PD_U   0x15000ull
#define RIG_PT_U   0x16000ull
#define RIG_CODE   0x20000ull
#define RIG_DATA   0x30000ull
#define RIG_UCODE  0x200000ull
#define RIG_UDATA  0x210000ull
#define RIG_USTACK 0x220000ull
#define RIG_FREE   0x400000ull /* mapped nowhere */
#define RIG_RAM	   0x1000000ull

enum { SEL_CS0 = 0x08, SEL_SS0 = 0x10, SEL_SS3 = 0x1b, SEL_CS3 = 0x23, SEL_TSS = 0x28 };

#define GUEST(name, text)                                                                          \
	extern const uint8_t name[], name##_end[];                                                 \
	__asm__(".pushsection .rodata\n" #name ":\n" text "\n" #name "_end:\n.popsection")

#define ASM_EXIT(status) "mov $" #status ", %eax\n out %eax, $0xf4\n"

struct record {
	uint64_t vector, error, rip, cs, rflags, rsp, ss, cr2;
};
struct record_page {
	uint64_t count, skip, resumes, pad[5];
	struct record at[60];
};

GUEST(rig_handler,
      "push %rax\n push %rcx\n mov $0xffffffff8000f000, %rcx\n"
      "mov (%rcx), %rax\n incq (%rcx)\n shl $6, %rax\n lea 64(%rcx,%rax), %rcx\n"
      "mov 16(%rsp), %rax\n mov %rax, (%rcx)\n mov 24(%rsp), %rax\n mov %rax, 8(%rcx)\n"
      "mov 32(%rsp), %rax\n mov %rax, 16(%rcx)\n mov 40(%rsp), %rax\n mov %rax, 24(%rcx)\n"
      "mov 48(%rsp), %rax\n mov %rax, 32(%rcx)\n mov 56(%rsp), %rax\n mov %rax, 40(%rcx)\n"
      "mov 64(%rsp), %rax\n mov %rax, 48(%rcx)\n mov %cr2, %rax\n mov %rax, 56(%rcx)\n"
      "mov $0xffffffff8000f000, %rcx\n cmpq $0, 16(%rcx)\n jne 1f\n"
      "mov 16(%rsp), %rax\n or $0x100, %eax\n out %eax, $0xf4\n"
      "1: mov 8(%rcx), %rax\n add %rax, 32(%rsp)\n pop %rcx\n pop %rax\n add $16, %rsp\n iretq\n");

struct rig {
	struct gn_kvm *kvm;
	struct gn_vm *vm;
	struct gn_kvm_state state; /* what the next run of vCPU 0 starts from */
	uint32_t status;
};

static void rig_put(struct rig *r, uint64_t pa, const void *bytes, size_t count)
{
	if (gn_vm_write(r->vm, gpa(pa), bytes, count))
		abort();
}

static void rig_put8(struct rig *r, uint64_t pa, uint64_t value)
{
	rig_put(r, pa, &value, sizeof(value));
}

static inline uint64_t rig_get8(struct rig *r, uint64_t pa)
{
	uint64_t value = 0;

	if (gn_vm_read(r->vm, gpa(pa), &value, sizeof(value)))
		abort();
	return value;
}

static inline void rig_get_record(struct rig *r, struct record_page *page)
{
	if (gn_vm_read(r->vm, gpa(RIG_RECORD), page, sizeof(*page)))
		abort();
}

/* type: 0xe interrupt gate, 0xf trap gate. */
static void rig_gate(struct rig *r, unsigned vector, uint64_t target, unsigned type, unsigned dpl,
		     unsigned ist)
{
	const uint64_t low = (target & 0xffff) | (uint64_t)SEL_CS0 << 16 | (uint64_t)ist << 32 |
			     (uint64_t)(type | dpl << 5 | 0x80) << 40 | (target & 0xffff0000) << 32;

	rig_put8(r, RIG_IDT + 16ull * vector, low);
	rig_put8(r, RIG_IDT + 16ull * vector + 8, target >> 32);
}

static void rig_handlers(struct rig *r)
{
	for (unsigned v = 0; v < 256; v++) {
		const bool has_error = v < 32 && (0x60227d00u >> v & 1);
		const uint64_t at = RIG_STUBS + 16ull * v;
		uint8_t code[16];
		unsigned n = 0;
		int32_t distance;

		if (!has_error) {
			code[n++] = 0x6a; /* push 0 */
			code[n++] = 0;
		}
		code[n++] = 0x68; /* push vector */
		memcpy(code + n, &(const uint32_t){ v }, 4);
		n += 4;
		code[n++] = 0xe9; /* jmp */
		distance = (int32_t)(RIG_COMMON - (at + n + 4));
		memcpy(code + n, &distance, 4);
		n += 4;
		rig_put(r, at, code, n);
		rig_gate(r, v, K(at), 0xe, v == 3 || v == 4 || v >= 0x80 ? 3 : 0, 0);
	}
	rig_put(r, RIG_COMMON, rig_handler, (size_t)(rig_handler_end - rig_handler));
}

static void rig_tables(struct rig *r)
{
	const uint64_t table = X86_PTE_P | X86_PTE_W | X86_PTE_U;

	rig_put8(r, RIG_PML4 + 511 * 8, RIG_PDPT_K | table);
	rig_put8(r, RIG_PDPT_K + 510 * 8, RIG_PD_K | table);
	rig_put8(r, RIG_PD_K, RIG_PT_K | table);
	rig_put8(r, RIG_PML4, RIG_PDPT_U | table);
	rig_put8(r, RIG_PDPT_U + 8, RIG_PD_U | table);
	rig_put8(r, RIG_PD_U, RIG_PT_U | table);
	for (uint64_t i = 0; i < 512; i++) {
		rig_put8(r, RIG_PT_K + 8 * i, i << 12 | X86_PTE_P | X86_PTE_W);
		rig_put8(r, RIG_PT_U + 8 * i, (0x200000 + (i << 12)) | table);
	}
}

static void rig_descriptors(struct rig *r)
{
	const uint64_t tss = K(RIG_TSS);
	const uint64_t gdt[] = {
		0,
		0x00af9b000000ffff,
		0x00cf93000000ffff,
		0x00cff3000000ffff,
		0x00affb000000ffff,
		0x0000890000000067 | (tss & 0xffffff) << 16 | (tss & 0xff000000) << 32,
		tss >> 32,
	};

	rig_put(r, RIG_GDT, gdt, sizeof(gdt));
	rig_put8(r, RIG_TSS + 4, K(RIG_RSP0));
	rig_put8(r, RIG_TSS + 0x24, K(RIG_IST1));
}

static void rig_state(struct rig *r)
{
	const struct gn_kvm_segment code = { 0, 0xffffffff, SEL_CS0, 0xa09b },
				    data = { 0, 0xffffffff, SEL_SS0, 0xc093 };

	r->state = (struct gn_kvm_state){
		.rip = K(RIG_CODE),
		.rflags = 2,
		.regs = { .cr0 = 0x80010033, .cr3 = RIG_PML4, .cr4 = 0x620, .efer = 0xd01 },
		.cs = code,
		.ss = data,
		.ds = data,
		.es = data,
		.fs = data,
		.gs = data,
		.tr = { K(RIG_TSS), 0x67, SEL_TSS, 0x8b },
		.gdtr = { K(RIG_GDT), 7 * 8 - 1 },
		.idtr = { K(RIG_IDT), 0xfff },
	};
	r->state.gpr[4] = K(RIG_STACK);
}

/* To user code at @pa. */
static inline void rig_state_user(struct rig *r, uint64_t pa)
{
	r->state.cs = (struct gn_kvm_segment){ 0, 0xffffffff, SEL_CS3, 0xa0fb };
	r->state.ss = (struct gn_kvm_segment){ 0, 0xffffffff, SEL_SS3, 0xc0f3 };
	r->state.rip = U(pa);
	r->state.gpr[4] = U(RIG_USTACK);
}

/* Memory and state as at the start. */
static void rig_reset(struct rig *r)
{
	rig_handlers(r);
	rig_tables(r);
	rig_descriptors(r);
	rig_state(r);
	rig_put(r, RIG_RECORD, &(const struct record_page){ 0 }, sizeof(struct record_page));
}

static inline bool rig_new(struct rig *r, const char *scheme, unsigned vcpus,
			   const struct gn_kvm_config *base)
{
	struct gn_kvm_config config = base ? *base : (struct gn_kvm_config){ 0 };
	char why[512] = "";

	config.vm.scheme = scheme;
	config.vm.mem_bytes = RIG_RAM;
	config.vm.vcpus = vcpus;
	memset(r, 0, sizeof(*r));
	if (gn_kvm_create(&config, &r->kvm, why, sizeof(why))) {
		fprintf(stderr, "cannot make a VM: %s\n", why);
		return false;
	}
	r->vm = gn_kvm_vm(r->kvm);
	rig_reset(r);
	return true;
}

static inline void rig_destroy(struct rig *r)
{
	gn_kvm_destroy(r->kvm);
}

#define rig_code(r, pa, name) rig_put(r, pa, name, (size_t)(name##_end - name))

/* Run vCPU 0 from r->state; which then has where it ended. */
static inline enum gn_kvm_stop rig_run(struct rig *r)
{
	enum gn_kvm_stop stop;

	if (gn_kvm_set_state(r->kvm, 0, &r->state)) {
		fprintf(stderr, "state refused: %s\n", gn_kvm_error(r->kvm, 0));
		return GN_KVM_STOP_ERROR;
	}
	r->status = 0;
	stop = gn_kvm_run(r->kvm, 0, &r->status);
	gn_kvm_get_state(r->kvm, 0, &r->state);
	if (stop == GN_KVM_STOP_ERROR)
		fprintf(stderr, "host error: %s\n", gn_kvm_error(r->kvm, 0));
	return stop;
}

static inline int rig_audit_now(void *ctx)
{
	struct gn_audit_report report = { 0 };
	int err = gn_audit((struct gn_vm *)ctx, &report);

	if (err)
		fprintf(stderr, "audit: %s\n", report.first);
	return err;
}

static inline bool rig_audit(struct rig *r)
{
	return !gn_kvm_pause(r->kvm, rig_audit_now, r->vm);
}

#endif
