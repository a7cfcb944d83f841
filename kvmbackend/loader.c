/* SPDX-License-Identifier: MIT */
/*
 * loader.c - a guest image put into a VM's memory: two ELF files, boot tables, boot page, entry state.
 *
 * The contract is include/gnomon/guest.h. Memory is zero when a VM is new, so of a segment only what the file has is
 * written; where it is not (over a template, or so the boot page says) all that the image takes is cleared first, and the guest clears the
 * rest when it uses it. The boot tables use 2 MiB pages, from GN_GUEST_BOOT_TABLES_PA up; their size bounds how much RAM a guest that
 * is loaded so can have (one table page per GiB).
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <gnomon/x86.h>

#include "elf.h"
#include "machine.h"

#define LARGE_BYTES  ((uint64_t)2 << 20)
#define GIB	     ((uint64_t)1 << 30)
#define WINDOW_BYTES GIB /* each of the two */
#define TABLES_END   GN_GUEST_IMAGE_PA

#define SUPERVISOR_PAGE (X86_PTE_P | X86_PTE_W)
#define USER_PAGE	(X86_PTE_P | X86_PTE_W | X86_PTE_U)

static uint64_t round_up(uint64_t value, uint64_t to)
{
	return (value + to - 1) / to * to;
}

/* ---- Boot tables ----------------------------------------------------------------------------------------------- */

struct tables {
	struct gn_vm *vm;
	uint64_t next; /* physical address of the next free page */
};

static int take_page(struct tables *t, uint64_t *pa)
{
	if (t->next + GN_PAGE_SIZE > TABLES_END)
		return -ENOSPC;
	*pa = t->next;
	t->next += GN_PAGE_SIZE;
	return 0;
}

static int set_entry(struct tables *t, uint64_t table, uint64_t index, uint64_t value)
{
	return gn_vm_write(t->vm, gpa(table + index * 8), &value, sizeof(value));
}

/* One GiB of 2 MiB pages under entry @index of the PDPT: physical [pa, pa + bytes). */
static int map_gib(struct tables *t, uint64_t pdpt, uint64_t index, uint64_t pa, uint64_t first,
		   uint64_t bytes, uint64_t rights)
{
	uint64_t entries[GN_TABLE_ENTRIES] = { 0 }, pd;
	int err = take_page(t, &pd);

	if (err)
		return err;
	for (uint64_t i = first; i < GN_TABLE_ENTRIES && i * LARGE_BYTES < bytes; i++)
		entries[i] = (pa + i * LARGE_BYTES) | X86_PTE_PS | rights;
	err = gn_vm_write(t->vm, gpa(pd), entries, sizeof(entries));
	return err ? err : set_entry(t, pdpt, index, pd | USER_PAGE);
}

/* All RAM at its physical address; the two windows. *root: for CR3. */
static int make_tables(struct gn_vm *vm, const struct gn_guest_boot *boot, uint64_t *root)
{
	struct tables t = { .vm = vm, .next = GN_GUEST_BOOT_TABLES_PA };
	uint64_t pml5 = 0, pml4, low = 0, high;
	int err = boot->levels == 5 ? take_page(&t, &pml5) : 0;

	if (!err)
		err = take_page(&t, &pml4);
	if (err)
		return err;
	/* PML4 entry i covers 512 GiB. */
	for (uint64_t pa = 0; pa < boot->mem_bytes && !err; pa += GIB) {
		uint64_t gib = pa / GIB;

		if (!(gib % GN_TABLE_ENTRIES)) {
			err = take_page(&t, &low);
			if (!err)
				err = set_entry(&t, pml4, gib / GN_TABLE_ENTRIES, low | USER_PAGE);
		}
		if (!err)
			err = map_gib(&t, low, gib % GN_TABLE_ENTRIES, pa, 0, boot->mem_bytes - pa,
				      SUPERVISOR_PAGE);
	}
	if (!err)
		err = take_page(&t, &high);
	if (!err)
		err = set_entry(&t, pml4, 511, high | USER_PAGE);
	if (!err)
		err = map_gib(&t, high, 510, 0, 0, boot->user_start, SUPERVISOR_PAGE);
	if (!err)
		err = map_gib(&t, high, 511, 0, boot->user_start / LARGE_BYTES,
			      boot->reserved_bytes, USER_PAGE);
	/* Both ends of the address space hang on one PML4. */
	if (!err && pml5) {
		err = set_entry(&t, pml5, 0, pml4 | USER_PAGE);
		if (!err)
			err = set_entry(&t, pml5, 511, pml4 | USER_PAGE);
	}
	*root = pml5 ? pml5 : pml4;
	return err;
}

/* ---- Loading ---------------------------------------------------------------------------------------------------- */

/* A page that is zeros stays as it is: over a template it would become a copy. */
static int clear_page(struct gn_vm *vm, gpa_t at)
{
	static const uint8_t zeros[GN_PAGE_SIZE];
	uint8_t page[GN_PAGE_SIZE];
	int err = gn_vm_read(vm, at, page, sizeof(page));

	return err || !memcmp(page, zeros, sizeof(page))
		       ? err
		       : gn_vm_write(vm, at, zeros, sizeof(zeros));
}

static int clear(struct gn_vm *vm, uint64_t bytes)
{
	int err = 0;

	for (uint64_t at = 0; at < bytes && !err; at += GN_PAGE_SIZE)
		err = clear_page(vm, gpa(at));
	return err;
}

static int copy_segments(struct gn_vm *vm, const struct gn_elf *elf, const void *file)
{
	int err = 0;

	for (unsigned i = 0; i < elf->count && !err; i++) {
		const struct gn_elf_segment *s = &elf->segments[i];

		err = gn_vm_write(vm, gpa(s->pa), (const uint8_t *)file + s->file_offset,
				  s->file_bytes);
	}
	return err;
}

static void entry_state(struct gn_kvm_state *state, uint64_t entry, uint64_t root, bool la57)
{
	/* Descriptors as the CPU would cache them; the guest loads a GDT of its own. */
	const struct gn_kvm_segment code = { .limit = UINT32_MAX,
					     .selector = 0x08,
					     .attributes = 0xa09b };
	const struct gn_kvm_segment data = { .limit = UINT32_MAX,
					     .selector = 0x10,
					     .attributes = 0xc093 };
	const struct gn_kvm_segment task = { .limit = 0x67, .attributes = 0x008b };

	memset(state, 0, sizeof(*state));
	state->rip = entry;
	state->rflags = 2;
	state->regs.cr0 = X86_CR0_PG | X86_CR0_WP | X86_CR0_PE | ((uint64_t)1 << 4); /* ET */
	state->regs.cr3 = root;
	state->regs.cr4 = X86_CR4_PAE | (la57 ? X86_CR4_LA57 : 0);
	state->regs.efer = X86_EFER_LME | X86_EFER_LMA | X86_EFER_NXE;
	state->cs = code;
	state->ss = state->ds = state->es = state->fs = state->gs = data;
	state->tr = task;
}

/* Where the image says its parts are; or, of one that does not say, as its user part demands. */
static int place_parts(const struct gn_guest_image *image, struct gn_guest_boot *boot, char *why,
		       size_t why_bytes)
{
	const uint64_t limit = boot->mem_bytes < WINDOW_BYTES ? boot->mem_bytes : WINDOW_BYTES;
	const uint64_t start = image->user_start, reserved = image->reserved_bytes;

	boot->user_start = start ? start : GN_GUEST_IMAGE_PA;
	boot->reserved_bytes = reserved ? reserved : limit / LARGE_BYTES * LARGE_BYTES;
	if (start % LARGE_BYTES || reserved % LARGE_BYTES ||
	    boot->user_start >= boot->reserved_bytes) {
		snprintf(why, why_bytes, "the image's layout: its user part at %#llx to %#llx",
			 (unsigned long long)start, (unsigned long long)reserved);
		return -EINVAL;
	}
	if (boot->reserved_bytes > limit) {
		snprintf(why, why_bytes, "the image takes %llu MiB of RAM, the guest has %llu",
			 (unsigned long long)(boot->reserved_bytes >> 20),
			 (unsigned long long)(boot->mem_bytes >> 20));
		return -EINVAL;
	}
	return 0;
}

/* Both files, checked against each other and the RAM. -EINVAL with @why. */
static int parse_image(const struct gn_guest_image *image, struct gn_guest_boot *boot,
		       struct gn_elf *kernel, struct gn_elf *user, char *why, size_t why_bytes)
{
	char reason[192];
	int err = place_parts(image, boot, why, why_bytes);

	if (err)
		return err;
	err = gn_elf_parse(image->user, image->user_bytes, GN_GUEST_USER_VA, boot->user_start,
			   boot->reserved_bytes, user, reason, sizeof(reason));
	if (err) {
		snprintf(why, why_bytes, "the image's user part: %s", reason);
		return err;
	}
	if (!image->user_start)
		boot->user_start = user->start / LARGE_BYTES * LARGE_BYTES;
	if (!image->reserved_bytes)
		boot->reserved_bytes = round_up(user->end, LARGE_BYTES);
	err = gn_elf_parse(image->kernel, image->kernel_bytes, GN_GUEST_KERNEL_VA,
			   GN_GUEST_IMAGE_PA, boot->user_start, kernel, reason, sizeof(reason));
	if (err)
		snprintf(why, why_bytes, "the image's kernel: %s", reason);
	return err;
}

static int load(struct gn_kvm *kvm, const struct gn_guest_image *image, struct gn_guest_boot *boot,
		char *why, size_t why_bytes)
{
	struct gn_kvm_state state;
	struct gn_elf kernel, user;
	uint64_t root = 0;
	int err;

	boot->magic = GN_GUEST_MAGIC;
	boot->dirty_ram |= gn_vm_is_over_template(kvm->vm);
	boot->mem_bytes = kvm->vm->config.mem_bytes;
	if (!boot->levels)
		boot->levels = 4;
	if (boot->levels != 4 && (boot->levels != 5 || !kvm->host.la57)) {
		snprintf(why, why_bytes, "%llu table levels: this host's guests have 4%s",
			 (unsigned long long)boot->levels, kvm->host.la57 ? " or 5" : "");
		return -EINVAL;
	}
	err = parse_image(image, boot, &kernel, &user, why, why_bytes);
	if (err)
		return err;
	err = boot->dirty_ram ? clear(kvm->vm, boot->reserved_bytes) : 0;
	if (!err)
		err = copy_segments(kvm->vm, &kernel, image->kernel);
	if (!err)
		err = copy_segments(kvm->vm, &user, image->user);
	if (!err)
		err = make_tables(kvm->vm, boot, &root);
	if (!err)
		err = gn_vm_write(kvm->vm, gpa(GN_GUEST_BOOT_PA), boot, sizeof(*boot));
	if (err) {
		snprintf(why, why_bytes, "loading the image: %s",
			 err == -ENOSPC ? "more RAM than the boot tables can map" : strerror(-err));
		return err == -ENOSPC ? -EINVAL : err;
	}
	entry_state(&state, kernel.entry, root, boot->levels == 5);
	err = gn_kvm_set_state(kvm, 0, &state);
	if (err)
		snprintf(why, why_bytes, "the image's entry state: %s", strerror(-err));
	return err;
}
_Static_assert(sizeof(struct gn_guest_boot) <= GN_PAGE_SIZE, "the boot page is one page");

int gn_kvm_load(struct gn_kvm *kvm, const struct gn_guest_image *image, struct gn_guest_boot *boot)
{
	struct gn_kvm_cpu *cpu = &kvm->cpus[0];

	return load(kvm, image, boot, cpu->error, sizeof(cpu->error));
}
