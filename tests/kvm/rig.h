/* SPDX-License-Identifier: MIT */
/*
 * rig.h - a bare guest on /dev/kvm for tests: tables, descriptors and a few instructions, set up from outside.
 *
 * Guest memory: everything up to 1 GiB at its physical address, user-accessible, by 2 MiB pages. An exception ends
 * the run with status 0x100 + vector, INT3 with EAX. External interrupt RIG_VECTOR adds one to R15 and returns.
 *
 * Programs are written in assembly between RIG_CODE(name) and are position-independent.
 */
#ifndef GN_TESTS_KVM_RIG_H
#define GN_TESTS_KVM_RIG_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <gnomon/kvm.h>
#include <gnomon/schemes.h>
#include <gnomon/x86.h>

#define RIG_PML4      0x1000
#define RIG_PDPT      0x2000
#define RIG_PD	      0x3000
#define RIG_GDT	      0x5000
#define RIG_TSS	      0x6000
#define RIG_IDT	      0x7000
#define RIG_STUBS     0x8000 /* 32 bytes each */
#define RIG_STACK0    0xf000 /* of CPL 0; per vCPU 0x400 below */
#define RIG_CODE_PA   0x10000
#define RIG_STACK3    0x1f000
#define RIG_DATA      0x200000 /* tests are free from here on */
#define RIG_VECTOR    0x40
#define RIG_EXCEPTION 0x100

/* Machine code of the guest: RIG_CODE(name, "instructions") defines name[] and name##_end[]. */
#define RIG_CODE(name, text)                                                                       \
	__asm__(".pushsection .rodata\n" #name ": " text "\n" #name "_end:\n.popsection\n");       \
	extern const uint8_t name[], name##_end[];

struct rig_counts {
	unsigned passed, failed, skipped;
};
static struct rig_counts rig_counts;

#define RIG_CHECK(condition, ...)                                                                  \
	do {                                                                                       \
		if (condition) {                                                                   \
			rig_counts.passed++;                                                       \
		} else {                                                                           \
			rig_counts.failed++;                                                       \
			printf("%s:%d: failed: %s: ", __func__, __LINE__, #condition);             \
			printf(__VA_ARGS__);                                                       \
			printf("\n");                                                              \
		}                                                                                  \
	} while (0)

static inline void rig_skip(const char *what, const char *why)
{
	printf("SKIPPED: %s: %s\n", what, why);
	rig_counts.skipped++;
}

static inline int rig_end(void)
{
	printf("%u passed, %u failed, %u skipped\n", rig_counts.passed, rig_counts.failed,
	       rig_counts.skipped);
	return rig_counts.failed != 0;
}

static inline void rig_log(void *ctx, enum gn_log_level level, const char *text)
{
	(void)ctx;
	if (level <= GN_LOG_WARN)
		printf("log: %s\n", text);
}

/* False: this machine has no usable KVM; said and counted as a skip. */
static inline int rig_start(struct gn_kvm_host *host)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	gn_log_set(rig_log, NULL);
	if (gn_schemes_register_all())
		return 0;
	gn_kvm_probe(host, false);
	if (!host->usable)
		rig_skip("everything", host->why);
	return host->usable;
}

static inline void rig_write(struct gn_kvm *kvm, uint64_t at, const void *what, size_t bytes)
{
	int err = gn_vm_write(gn_kvm_vm(kvm), gpa(at), what, bytes);

	RIG_CHECK(!err, "write to %#llx: %d", (unsigned long long)at, err);
}

static inline void rig_word(struct gn_kvm *kvm, uint64_t at, uint64_t value)
{
	rig_write(kvm, at, &value, sizeof(value));
}

static inline uint64_t rig_read(struct gn_kvm *kvm, uint64_t at)
{
	uint64_t value = 0;
	int err = gn_vm_read(gn_kvm_vm(kvm), gpa(at), &value, sizeof(value));

	RIG_CHECK(!err, "read of %#llx: %d", (unsigned long long)at, err);
	return value;
}

static inline void rig_gate(struct gn_kvm *kvm, unsigned vector, uint64_t handler)
{
	uint64_t gate[2] = { (handler & 0xffff) | 0x08ull << 16 | 0xee00ull << 32 |
				     (handler >> 16 & 0xffff) << 48,
			     handler >> 32 };

	rig_write(kvm, RIG_IDT + vector * 16, gate, sizeof(gate));
}

static inline void rig_descriptors(struct gn_kvm *kvm)
{
	const uint64_t gdt[] = { 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00affb000000ffff,
				 0x00cff3000000ffff };
	uint64_t tss[13] = { 0 };
	uint64_t stack = RIG_STACK0;
	/* mov $status, %eax; mov $0xf4, %dx; out %eax, %dx */
	uint8_t stub[] = { 0xb8, 0, 1, 0, 0, 0x66, 0xba, 0xf4, 0, 0xef };
	const uint8_t on_int3[] = { 0x66, 0xba, 0xf4, 0, 0xef };
	const uint8_t on_interrupt[] = { 0x49, 0xff, 0xc7, 0x48, 0xcf }; /* inc r15; iretq */

	memcpy((uint8_t *)tss + 4, &stack, sizeof(stack));
	rig_write(kvm, RIG_GDT, gdt, sizeof(gdt));
	rig_write(kvm, RIG_TSS, tss, sizeof(tss));
	for (unsigned v = 0; v < 32; v++) {
		stub[1] = (uint8_t)v;
		rig_write(kvm, RIG_STUBS + 32 * v, stub, sizeof(stub));
		rig_gate(kvm, v, RIG_STUBS + 32 * v);
	}
	rig_write(kvm, RIG_STUBS + 32 * 3, on_int3, sizeof(on_int3));
	rig_write(kvm, RIG_STUBS + 32 * 32, on_interrupt, sizeof(on_interrupt));
	rig_gate(kvm, RIG_VECTOR, RIG_STUBS + 32 * 32);
}

static inline void rig_tables(struct gn_kvm *kvm)
{
	uint64_t pd[512];

	for (uint64_t i = 0; i < 512; i++)
		pd[i] = i << 21 | X86_PTE_PS | X86_PTE_P | X86_PTE_W | X86_PTE_U;
	rig_write(kvm, RIG_PD, pd, sizeof(pd));
	rig_word(kvm, RIG_PDPT, RIG_PD | X86_PTE_P | X86_PTE_W | X86_PTE_U);
	rig_word(kvm, RIG_PML4, RIG_PDPT | X86_PTE_P | X86_PTE_W | X86_PTE_U);
}

/* 64-bit mode at @rip. */
static inline void rig_state(struct gn_kvm_state *state, uint64_t rip, unsigned cpl, unsigned vcpu)
{
	memset(state, 0, sizeof(*state));
	state->rip = rip;
	state->rflags = 2;
	state->gpr[4] = (cpl ? RIG_STACK3 : RIG_STACK0) - 0x400 * vcpu;
	state->regs.cr0 = 0x80010031; /* PG WP NE ET PE */
	state->regs.cr3 = RIG_PML4;
	state->regs.cr4 = X86_CR4_PAE | 0x600; /* OSFXSR OSXMMEXCPT */
	state->regs.efer = X86_EFER_LME | X86_EFER_LMA | X86_EFER_NXE;
	state->cs =
		(struct gn_kvm_segment){ 0, UINT32_MAX, cpl ? 0x1b : 0x08, cpl ? 0xa0fb : 0xa09b };
	state->ss = state->ds = state->es = state->fs = state->gs =
		(struct gn_kvm_segment){ 0, UINT32_MAX, cpl ? 0x23 : 0x10, cpl ? 0xc0f3 : 0xc093 };
	state->tr = (struct gn_kvm_segment){ RIG_TSS, 0x67, 0x28, 0x008b };
	state->gdtr = (struct gn_kvm_table){ RIG_GDT, 5 * 8 - 1 };
	state->idtr = (struct gn_kvm_table){ RIG_IDT, 4095 };
}

static inline struct gn_kvm *rig_new(const struct gn_kvm_config *config)
{
	char why[512] = "";
	struct gn_kvm *kvm = NULL;
	int err = gn_kvm_create(config, &kvm, why, sizeof(why));

	RIG_CHECK(!err, "gn_kvm_create: %d: %s", err, why);
	if (err)
		return NULL;
	rig_tables(kvm);
	rig_descriptors(kvm);
	return kvm;
}

/* Put code at @pa and vCPU @vcpu there. rbx, rcx, rsi: the program's arguments. */
static inline void rig_program(struct gn_kvm *kvm, unsigned vcpu, unsigned cpl, const uint8_t *code,
			       const uint8_t *end, uint64_t rbx, uint64_t rcx, uint64_t rsi)
{
	uint64_t pa = RIG_CODE_PA + 0x1000 * (uint64_t)vcpu;
	struct gn_kvm_state state;
	int err;

	rig_write(kvm, pa, code, (size_t)(end - code));
	rig_state(&state, pa, cpl, vcpu);
	state.gpr[1] = rcx;
	state.gpr[3] = rbx;
	state.gpr[6] = rsi;
	err = gn_kvm_set_state(kvm, vcpu, &state);
	RIG_CHECK(!err, "gn_kvm_set_state: %d", err);
}
#define RIG_RUN(kvm, cpl, name, rbx, rcx, rsi)                                                     \
	(rig_program(kvm, 0, cpl, name, name##_end, rbx, rcx, rsi), rig_run(kvm, 0))

struct rig_result {
	enum gn_kvm_stop stop;
	uint32_t status;
};
static inline struct rig_result rig_run(struct gn_kvm *kvm, unsigned vcpu)
{
	struct rig_result r = { .status = 0 };

	r.stop = gn_kvm_run(kvm, vcpu, &r.status);
	return r;
}

#define RIG_EXPECT_EXIT(kvm, result, value)                                                        \
	do {                                                                                       \
		struct rig_result r_ = (result);                                                   \
		RIG_CHECK(r_.stop == GN_KVM_STOP_EXIT && r_.status == (uint32_t)(value),           \
			  "stop %d, status %#x, not %#x: %s", r_.stop, r_.status,                  \
			  (unsigned)(value), gn_kvm_error(kvm, 0));                                \
	} while (0)

#endif
