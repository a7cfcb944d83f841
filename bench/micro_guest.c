/* SPDX-License-Identifier: MIT */
/*
 * micro_guest.c - the smallest guest that has a user, a kernel and an end.
 *
 * The user's function returns to an INT3; the kernel's handler of vector 3 ends the run by a port, any other vector
 * ends it with status 1. There is no boot: memory is written and registers are set from outside.
 *
 * The data is mapped into this process from the engine's pool, frame by frame in the guest's order: the same physical
 * memory on both sides, at 1 GiB boundaries in both address spaces, so table pages are as many and as full. Large pages are
 * refused on this side (MADV_NOHUGEPAGE), and the guest's tables have 4 KiB leaves, which no scheme and no KVM may
 * widen.
 */
#include "micro_guest.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <gnomon/x86.h>

#include "guest_tables.h"
#include "micro.h"
#include "micro_code.h"

/* Guest-physical, and the same virtual: a page each. */
enum {
	CODE = 0x10000,
	IDT = 0x11000,
	GDT = 0x12000,
	TSS = 0x13000,
	KERNEL_STACK = 0x14000,
	USER_STACK = 0x15000,
	LOW_END = 0x16000,
	TABLES = 0x200000
};
enum { CS0 = 0x08, SS0 = 0x10, SS3 = 0x18 | 3, CS3 = 0x20 | 3, TR = 0x28 };
static const uint64_t least_tables_bytes = (uint64_t)6 << 20;
static const gva_t data_va = { 0x100000000000 };

#define SEGMENT_CODE 0xa09b /* present, code, 64-bit, 4 KiB granules, accessed */
#define SEGMENT_DATA 0xc093
#define SEGMENT_TSS  0x008b
#define DPL_3	     (3 << 5)

/* A table a 2 MiB of data, and some above them: whole blocks. */
static uint64_t tables_bytes_for(uint64_t data_bytes)
{
	const uint64_t block = (uint64_t)2 << 20;
	uint64_t bytes = ((data_bytes >> 9) + block / 2 + block - 1) & ~(block - 1);

	return bytes < least_tables_bytes ? least_tables_bytes : bytes;
}

static uint64_t code_at(const void *label)
{
	return CODE + (uint64_t)((const uint8_t *)label - micro_code_begin);
}

static int write_descriptors(struct gn_vm *vm)
{
	const uint64_t gdt[] = { 0,
				 0x00af9b000000ffff,
				 0x00cf93000000ffff,
				 0x00cff3000000ffff,
				 0x00affb000000ffff,
				 (uint64_t)0x8b << 40 | (uint64_t)TSS << 16 | 0x67,
				 0 };
	const uint64_t rsp0 =
		KERNEL_STACK + GN_PAGE_SIZE / 2; /* below a return address, see fill_guest() */
	uint64_t idt[512];
	int err;

	for (unsigned vector = 0; vector < 256; vector++) {
		uint64_t handler =
			code_at(vector == 3 ? micro_code_kernel_end : micro_code_kernel_fault);

		idt[2 * vector] = (handler & 0xffff) | (uint64_t)CS0 << 16 | (uint64_t)0xee << 40 |
				  (handler & 0xffff0000) << 32;
		idt[2 * vector + 1] = 0;
	}
	err = gn_vm_write(vm, gpa(IDT), idt, sizeof(idt));
	if (!err)
		err = gn_vm_write(vm, gpa(GDT), gdt, sizeof(gdt));
	if (!err)
		err = gn_vm_write(vm, gpa(TSS + 4), &rsp0, sizeof(rsp0));
	return err;
}

static void make_states(struct micro_guest *guest, gpa_t root)
{
	const struct gn_kvm_segment data3 = { .limit = ~0u,
					      .selector = SS3,
					      .attributes = SEGMENT_DATA | DPL_3 };
	struct gn_kvm_state *s = &guest->user;

	s->rflags = 2;
	s->regs.cr0 = X86_CR0_PE | X86_CR0_PG | X86_CR0_WP | 0x30; /* ET, NE */
	s->regs.cr3 = root.v;
	s->regs.cr4 = X86_CR4_PAE;
	s->regs.efer = X86_EFER_LME | X86_EFER_LMA | X86_EFER_NXE;
	s->cs = (struct gn_kvm_segment){ .limit = ~0u,
					 .selector = CS3,
					 .attributes = SEGMENT_CODE | DPL_3 };
	s->ss = s->ds = s->es = s->fs = s->gs = data3;
	s->tr = (struct gn_kvm_segment){
		.base = TSS, .limit = 0x67, .selector = TR, .attributes = SEGMENT_TSS
	};
	s->gdtr = (struct gn_kvm_table){ GDT, 7 * 8 - 1 };
	s->idtr = (struct gn_kvm_table){ IDT, 4095 };
	guest->kernel = *s;
	guest->kernel.cs = (struct gn_kvm_segment){ .limit = ~0u,
						    .selector = CS0,
						    .attributes = SEGMENT_CODE };
	guest->kernel.ss = (struct gn_kvm_segment){ .limit = ~0u,
						    .selector = SS0,
						    .attributes = SEGMENT_DATA };
}

static int fill_guest(struct micro_guest *guest)
{
	const uint64_t user_end = code_at(micro_code_user_end);
	const uint64_t kernel_end = code_at(micro_code_kernel_end);
	const uint64_t data_pa = guest->data_gfn.v << GN_PAGE_SHIFT;
	struct guest_tables tables;
	int err =
		gn_p2m_populate(guest->vm, gfn(0), (data_pa + guest->data_bytes) >> GN_PAGE_SHIFT);

	if (!err)
		err = gn_vm_write(guest->vm, gpa(CODE), micro_code_begin,
				  (size_t)(micro_code_end - micro_code_begin));
	if (!err)
		err = write_descriptors(guest->vm);
	if (!err)
		err = gn_vm_write(guest->vm, gpa(USER_STACK + GN_PAGE_SIZE - 8), &user_end, 8);
	if (!err)
		err = gn_vm_write(guest->vm, gpa(KERNEL_STACK + GN_PAGE_SIZE - 8), &kernel_end, 8);
	if (!err)
		err = guest_tables_init(&tables, guest->vm, 4, gpa(TABLES), data_pa - TABLES);
	if (!err)
		err = guest_tables_map(&tables, gva(CODE), gpa(CODE), 1,
				       (LOW_END - CODE) >> GN_PAGE_SHIFT);
	if (!err)
		err = guest_tables_map(&tables, guest->data_va, gpa(data_pa), 1,
				       guest->data_bytes >> GN_PAGE_SHIFT);
	if (!err)
		make_states(guest, tables.root);
	return err;
}

/* A GiB-aligned place for the data, then the frames into it, run by run. */
static int map_data(struct micro_guest *guest)
{
	const uint64_t gib = (uint64_t)1 << 30, count = guest->data_bytes >> GN_PAGE_SHIFT;
	struct gn_pool pool;
	uint8_t *place = mmap(NULL, guest->data_bytes + gib, PROT_NONE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0),
		*aligned;

	if (place == MAP_FAILED)
		return -errno;
	aligned = (uint8_t *)(((uintptr_t)place + gib - 1) & ~(gib - 1));
	munmap(place, (size_t)(aligned - place));
	munmap(aligned + guest->data_bytes, (size_t)(place + gib - aligned));
	guest->data = aligned;
	gn_vm_pool(guest->vm, &pool);
	for (uint64_t i = 0, run; i < count; i += run) {
		struct gn_p2m_info first, next;
		int err = gn_p2m_query(guest->vm, gfn(guest->data_gfn.v + i), &first);

		if (err)
			return err;
		for (run = 1; i + run < count; run++)
			if (gn_p2m_query(guest->vm, gfn(guest->data_gfn.v + i + run), &next) ||
			    next.pfn.v != first.pfn.v + run)
				break;
		if (mmap(aligned + i * GN_PAGE_SIZE, run * GN_PAGE_SIZE, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_FIXED, pool.fd,
			 (off_t)(first.pfn.v << GN_PAGE_SHIFT)) == MAP_FAILED)
			return -errno;
	}
	madvise(aligned, guest->data_bytes, MADV_NOHUGEPAGE);
	for (uint64_t at = 0; at < guest->data_bytes; at += GN_PAGE_SIZE)
		*(volatile uint8_t *)(aligned + at) = 0;
	return 0;
}

gfn_t micro_guest_data_gfn(uint64_t data_bytes)
{
	return gpa_to_gfn(gpa(TABLES + tables_bytes_for(data_bytes)));
}

uint64_t micro_guest_bytes(uint64_t data_bytes)
{
	return gfn_to_gpa(micro_guest_data_gfn(data_bytes)).v + data_bytes;
}

static struct micro_guest *make(const struct gn_kvm_config *config, uint64_t data_bytes,
				bool is_mapped, char *why, size_t why_bytes)
{
	struct micro_guest *guest = calloc(1, sizeof(*guest));
	int err;

	if (!guest) {
		snprintf(why, why_bytes, "no memory");
		return NULL;
	}
	guest->data_bytes = data_bytes;
	guest->data_va = data_va;
	guest->data_gfn = micro_guest_data_gfn(data_bytes);
	err = gn_kvm_create(config, &guest->kvm, why, why_bytes);
	if (err) {
		free(guest);
		return NULL;
	}
	guest->vm = gn_kvm_vm(guest->kvm);
	err = fill_guest(guest);
	if (!err && is_mapped)
		err = map_data(guest);
	if (!err)
		return guest;
	snprintf(why, why_bytes, "setting up the guest: %s", strerror(-err));
	micro_guest_destroy(guest);
	return NULL;
}

struct micro_guest *micro_guest_new(const char *scheme, uint64_t data_bytes, bool is_mapped,
				    char *why, size_t why_bytes)
{
	const struct gn_kvm_config config = {
		.vm = { .scheme = scheme, .mem_bytes = micro_guest_bytes(data_bytes), .vcpus = 1 },
		.populate = true, /* nested: and mapped, page by page */
	};

	return make(&config, data_bytes, is_mapped, why, why_bytes);
}

struct micro_guest *micro_guest_new_over(const char *scheme, uint64_t data_bytes, int template_fd,
					 char *why, size_t why_bytes)
{
	const struct gn_kvm_config config = {
		.vm = { .scheme = scheme,
			.mem_bytes = micro_guest_bytes(data_bytes),
			.vcpus = 1,
			.pool = GN_POOL_TEMPLATE,
			.template_fd = template_fd },
	};

	return make(&config, data_bytes, false, why, why_bytes);
}

void micro_guest_destroy(struct micro_guest *guest)
{
	if (!guest)
		return;
	if (guest->data)
		munmap(guest->data, guest->data_bytes);
	gn_kvm_destroy(guest->kvm);
	free(guest);
}

double micro_guest_call(struct micro_guest *guest, const void *function, bool is_user, uint64_t rdi,
			uint64_t rsi, uint64_t rdx, uint64_t rcx, uint64_t *result)
{
	struct gn_kvm_state state = is_user ? guest->user : guest->kernel;
	enum gn_kvm_stop stop;
	uint32_t status = 1;
	uint64_t begin, end;

	/* rax rcx rdx rbx rsp rbp rsi rdi */
	state.rip = code_at(function);
	state.gpr[1] = rcx;
	state.gpr[2] = rdx;
	state.gpr[4] = (is_user ? USER_STACK : KERNEL_STACK) + GN_PAGE_SIZE - 8;
	state.gpr[6] = rsi;
	state.gpr[7] = rdi;
	if (gn_kvm_set_state(guest->kvm, 0, &state))
		return INFINITY;
	begin = micro_now_ns();
	stop = gn_kvm_run(guest->kvm, 0, &status);
	end = micro_now_ns();
	if (stop != GN_KVM_STOP_EXIT || status)
		return INFINITY;
	if (result && gn_kvm_get_state(guest->kvm, 0, &state))
		return INFINITY;
	if (result)
		*result = state.gpr[3];
	return (double)(end - begin);
}
