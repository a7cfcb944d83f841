/* SPDX-License-Identifier: MIT */
/*
 * monitor.c - the little that is needed at CPL 0 under a guest that runs at CPL 3.
 *
 * An exception at CPL 3 needs an IDT, a GDT, a TSS and a stack, and then it must become an exit. The handler of
 * vector n is the single byte HLT at offset n of one page: where the CPU lowers the flag, RIP tells the vector. No
 * instruction more, since a host that emulates CPL 0 takes half a microsecond for each, and nothing to go wrong.
 *
 * Invariants:
 * 1. Everything is mapped supervisor-only, so code at CPL 3 can't read it, write it or jump into it (jumping at
 *    the entry page is a page fault, and recognised: SYSCALL arrives so on some hosts).
 * 2. What is executable isn't writable. Programs are written from outside, while their vCPU isn't running.
 * 3. The frames come from the pool and are in no p2m word, so no guest-physical address leads to them.
 * 4. Gates are DPL 0 but for #BP and #OF, so INT n of the guest is a #GP that names its vector, and is emulated.
 * 5. There is no I/O bitmap within the TSS's limit: every IN and OUT of the guest is a #GP.
 * 6. #DF, NMI and #MC have a stack of their own: none can be lost to a bad one. They mean a broken host.
 *
 * TR is a busy 64-bit TSS (type 11), as VM entry on VMX wants it (SDM vol. 3C 26.3.1.2). Emulators that consult an
 * I/O bitmap only for type 9 are of no concern, see 5.
 *
 * What the guest can see of this without a trap: its own selectors differ when it reads CS or SS, LAR and LSL read
 * our GDT. SGDT, SIDT, SLDT, STR and SMSW trap where the CPU has UMIP (depriv.c sets it).
 */
#include "monitor.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <gnomon/x86.h>

#define GIB		 ((uint64_t)1 << 30)
#define LARGE_PAGE	 ((uint64_t)1 << 21)
#define CODE_GIB	 511 /* index in the PDPT of the window of code; the pool has those below */
#define HLT		 ((uint8_t)0xf4)
#define TSS_BYTES	 0x68 /* SDM vol. 3A 8.7 */
#define IST_OFFSET	 0x24
#define RSP0_OFFSET	 4
#define IO_MAP_OFFSET	 0x66
#define STACK_BYTES	 GN_PAGE_SIZE
#define GATE_INTERRUPT	 ((uint64_t)0x8e << 40)
#define GATE_DPL_3	 ((uint64_t)3 << 45)
#define GATE_IST_1	 ((uint64_t)1 << 32)
#define TABLE_ENTRY	 (X86_PTE_P | X86_PTE_W | X86_PTE_A)
#define RESERVED_VECTORS 32

enum { VEC_NMI = 2, VEC_BP = 3, VEC_OF = 4, VEC_DF = 8, VEC_MC = 18 };

static void *at(const struct gn_monitor *monitor, hpa_t frame)
{
	struct gn_pool pool;

	gn_vm_pool(monitor->vm, &pool);
	return (uint8_t *)pool.base + frame.v;
}

static uint64_t base_of(enum gn_monitor_set set)
{
	const unsigned shift = set == GN_MONITOR_LEVELS_5 ? gn_level_shift(5) : gn_level_shift(4);
	const uint64_t sign = ~(uint64_t)0 << (shift + GN_INDEX_BITS);

	return sign | (uint64_t)GN_MONITOR_ROOT_SLOT << shift;
}

uint64_t gn_monitor_va(enum gn_monitor_set set, hpa_t frame)
{
	return base_of(set) + frame.v;
}

static uint64_t code_va(enum gn_monitor_set set, unsigned page)
{
	return base_of(set) + CODE_GIB * GIB + page * GN_PAGE_SIZE;
}

uint64_t gn_monitor_program_va(enum gn_monitor_set set, unsigned vcpu)
{
	return code_va(set, 1 + vcpu);
}

uint64_t gn_monitor_entry_va(enum gn_monitor_set set, unsigned entry)
{
	return code_va(set, 0) + entry;
}

static int take(struct gn_monitor *monitor, hpa_t *out)
{
	int err;

	if (monitor->count == monitor->capacity) {
		size_t more = monitor->capacity ? 2 * monitor->capacity : 16;
		hpa_t *frames = (hpa_t *)realloc(monitor->frames, more * sizeof(*frames));

		if (!frames)
			return -ENOMEM;
		monitor->frames = frames;
		monitor->capacity = more;
	}
	err = gn_vm_pool_alloc(monitor->vm, out);
	if (!err)
		monitor->frames[monitor->count++] = *out;
	return err;
}

/* ---- Tables ---------------------------------------------------------------------------------------------- */

/* A table below entry @index of @table. */
static int take_table(struct gn_monitor *monitor, hpa_t table, unsigned index, hpa_t *out)
{
	int err = take(monitor, out);

	if (!err)
		((uint64_t *)at(monitor, table))[index] = out->v | TABLE_ENTRY;
	return err;
}

static int map_pool(struct gn_monitor *monitor, hpa_t pdpt)
{
	struct gn_pool pool;

	gn_vm_pool(monitor->vm, &pool);
	if (pool.bytes > CODE_GIB * GIB)
		return -E2BIG;
	for (uint64_t gib = 0; gib * GIB < pool.bytes; gib++) {
		uint64_t *entries;
		hpa_t table;
		int err = take_table(monitor, pdpt, (unsigned)gib, &table);

		if (err)
			return err;
		entries = (uint64_t *)at(monitor, table);
		for (uint64_t i = 0; i < GN_TABLE_ENTRIES; i++)
			if (gib * GIB + i * LARGE_PAGE < pool.bytes)
				entries[i] = (gib * GIB + i * LARGE_PAGE) | TABLE_ENTRY |
					     X86_PTE_D | X86_PTE_PS | X86_PTE_NX;
	}
	return 0;
}

/* The entry page and the programs. */
static int map_code(struct gn_monitor *monitor, hpa_t pdpt)
{
	const unsigned vcpus = gn_vm_vcpu_count(monitor->vm);
	uint64_t *entries;
	hpa_t table;
	int err = take_table(monitor, pdpt, CODE_GIB, &table);

	if (!err)
		err = take_table(monitor, table, 0, &table);
	if (err)
		return err;
	entries = (uint64_t *)at(monitor, table);
	entries[0] = monitor->entries.v | X86_PTE_P | X86_PTE_A;
	for (unsigned i = 0; i < vcpus; i++)
		entries[1 + i] = monitor->cpus[i].program.v | X86_PTE_P | X86_PTE_A;
	return 0;
}

static int build_tables(struct gn_monitor *monitor)
{
	hpa_t pdpt, pml4;
	int err = take(monitor, &pdpt);

	if (!err)
		err = map_pool(monitor, pdpt);
	if (!err)
		err = map_code(monitor, pdpt);
	if (!err)
		err = take(monitor, &pml4);
	if (err)
		return err;
	((uint64_t *)at(monitor, pml4))[0] = pdpt.v | TABLE_ENTRY;
	monitor->slot = (struct gn_root_slot){ .index = GN_MONITOR_ROOT_SLOT,
					       .entry4 = pdpt.v | TABLE_ENTRY,
					       .entry5 = pml4.v | TABLE_ENTRY };
	return 0;
}

/* ---- Descriptors -------------------------------------------------------------------------------------------- */

static void fill_gdt(struct gn_monitor *monitor)
{
	uint64_t *gdt = (uint64_t *)at(monitor, monitor->gdt);

	/* Flat, present, accessed (the CPU need not write it): 64-bit code, data; DPL 0 and 3. */
	gdt[GN_MONITOR_CS0 >> 3] = 0x00af9b000000ffff;
	gdt[GN_MONITOR_SS0 >> 3] = 0x00cf93000000ffff;
	gdt[GN_MONITOR_SS3 >> 3] = 0x00cff3000000ffff;
	gdt[GN_MONITOR_CS3 >> 3] = 0x00affb000000ffff;
}

static uint64_t gate_type(unsigned vector)
{
	switch (vector) {
	case VEC_BP:
	case VEC_OF:
		return GATE_INTERRUPT | GATE_DPL_3;
	case VEC_NMI:
	case VEC_DF:
	case VEC_MC:
		return GATE_INTERRUPT | GATE_IST_1;
	default:
		return GATE_INTERRUPT;
	}
}

static void fill_idt(struct gn_monitor *monitor, enum gn_monitor_set set)
{
	uint64_t *idt = (uint64_t *)at(monitor, monitor->idt[set]);

	for (unsigned vector = 0; vector < 256; vector++) {
		uint64_t entry = gn_monitor_entry_va(set, vector);

		idt[2 * vector] = (entry & 0xffff) | (uint64_t)GN_MONITOR_CS0 << 16 |
				  gate_type(vector) | (entry & 0xffff0000) << 32;
		idt[2 * vector + 1] = entry >> 32;
	}
}

static void fill_tss(struct gn_monitor *monitor, enum gn_monitor_set set, unsigned vcpu)
{
	const struct gn_monitor_cpu *cpu = &monitor->cpus[vcpu];
	const uint64_t stack = gn_monitor_va(set, cpu->stack);
	const uint64_t rsp0 = stack + STACK_BYTES, ist1 = stack + STACK_BYTES / 2;
	const uint16_t io_map = TSS_BYTES;
	uint8_t *tss = (uint8_t *)at(monitor, cpu->tss[set]);

	memcpy(tss + RSP0_OFFSET, &rsp0, sizeof(rsp0));
	memcpy(tss + IST_OFFSET, &ist1, sizeof(ist1));
	memcpy(tss + IO_MAP_OFFSET, &io_map, sizeof(io_map));
}

static int build_cpus(struct gn_monitor *monitor)
{
	const unsigned vcpus = gn_vm_vcpu_count(monitor->vm);
	int err = 0;

	monitor->cpus = (struct gn_monitor_cpu *)calloc(vcpus, sizeof(*monitor->cpus));
	if (!monitor->cpus)
		return -ENOMEM;
	for (unsigned i = 0; i < vcpus && !err; i++) {
		struct gn_monitor_cpu *cpu = &monitor->cpus[i];

		err = take(monitor, &cpu->stack);
		if (!err)
			err = take(monitor, &cpu->program);
		if (err)
			break;
		cpu->stack_end = (const uint8_t *)at(monitor, cpu->stack) + STACK_BYTES;
		cpu->program_code = (uint8_t *)at(monitor, cpu->program);
		for (unsigned set = 0; set < monitor->sets && !err; set++) {
			err = take(monitor, &cpu->tss[set]);
			if (!err)
				fill_tss(monitor, (enum gn_monitor_set)set, i);
		}
	}
	return err;
}

static int build_descriptors(struct gn_monitor *monitor)
{
	int err = take(monitor, &monitor->entries);

	if (!err)
		err = take(monitor, &monitor->gdt);
	for (unsigned set = 0; set < monitor->sets && !err; set++) {
		err = take(monitor, &monitor->idt[set]);
		if (!err)
			fill_idt(monitor, (enum gn_monitor_set)set);
	}
	if (err)
		return err;
	memset(at(monitor, monitor->entries), HLT, GN_MONITOR_SYSCALL + 1);
	fill_gdt(monitor);
	return 0;
}

int gn_monitor_init(struct gn_monitor *monitor, struct gn_vm *vm, bool has_5_levels)
{
	int err;

	*monitor = (struct gn_monitor){ .vm = vm, .sets = has_5_levels ? GN_MONITOR_SETS : 1 };
	err = build_descriptors(monitor);
	if (!err)
		err = build_cpus(monitor);
	if (!err)
		err = build_tables(monitor);
	if (!err)
		err = gn_vm_set_root_slot(vm, &monitor->slot);
	if (err)
		gn_monitor_fini(monitor);
	return err;
}

void gn_monitor_fini(struct gn_monitor *monitor)
{
	for (size_t i = 0; i < monitor->count; i++)
		gn_vm_pool_free(monitor->vm, monitor->frames[i]);
	free(monitor->frames);
	free(monitor->cpus);
	*monitor = (struct gn_monitor){ 0 };
}

/* ---- Registers ------------------------------------------------------------------------------------------------ */

static struct kvm_segment flat(uint16_t selector, bool is_code)
{
	return (struct kvm_segment){ .limit = 0xffffffff,
				     .selector = selector,
				     .type = is_code ? 11 : 3,
				     .present = 1,
				     .dpl = selector & 3,
				     .db = !is_code,
				     .s = 1,
				     .l = is_code,
				     .g = 1 };
}

void gn_monitor_sregs(const struct gn_monitor *monitor, enum gn_monitor_set set, unsigned vcpu,
		      struct kvm_sregs *sregs)
{
	sregs->cs = flat(GN_MONITOR_CS3, true);
	sregs->ss = flat(GN_MONITOR_SS3, false);
	sregs->ds = sregs->es = sregs->fs = sregs->gs = sregs->ss;
	sregs->tr = (struct kvm_segment){ .base = gn_monitor_va(set, monitor->cpus[vcpu].tss[set]),
					  .limit = TSS_BYTES - 1,
					  .selector = GN_MONITOR_TR,
					  .type = 11,
					  .present = 1 };
	sregs->ldt = (struct kvm_segment){ .type = 2, .unusable = 1 };
	sregs->gdt.base = gn_monitor_va(set, monitor->gdt);
	sregs->gdt.limit = GN_PAGE_SIZE - 1;
	sregs->idt.base = gn_monitor_va(set, monitor->idt[set]);
	sregs->idt.limit = GN_PAGE_SIZE - 1;
}

void gn_monitor_segments_cpl0(struct kvm_sregs *sregs)
{
	sregs->cs = flat(GN_MONITOR_CS0, true);
	sregs->ss = flat(GN_MONITOR_SS0, false);
}

/* ---- Exceptions --------------------------------------------------------------------------------------------------- */

/* SDM vol. 3A, table 6-1. */
bool gn_vector_has_error(unsigned vector)
{
	return vector < RESERVED_VECTORS && (0x60227d00u >> vector & 1);
}

void gn_monitor_frame(const struct gn_monitor *monitor, unsigned vcpu, unsigned vector,
		      struct gn_monitor_frame *frame, uint32_t *error)
{
	const uint8_t *top = monitor->cpus[vcpu].stack_end;

	*error = 0;
	memcpy(frame, top - sizeof(*frame), sizeof(*frame));
	if (gn_vector_has_error(vector))
		memcpy(error, top - sizeof(*frame) - sizeof(uint64_t), sizeof(*error));
}
