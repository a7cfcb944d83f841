/* SPDX-License-Identifier: MIT */
/*
 * sharing_vm.c - create it, fill it, map it.
 */
#include "sharing_vm.h"

#define BLOCK_BYTES ((uint64_t)2 << 20)

uint64_t sharing_vm_contents_bytes(const struct sharing_contents *contents)
{
	return (contents->vm_pages * GN_PAGE_SIZE + BLOCK_BYTES - 1) & ~(BLOCK_BYTES - 1);
}

uint64_t sharing_vm_bytes(const struct sharing_contents *contents)
{
	return sharing_vm_contents_bytes(contents) + SHARING_TABLE_BYTES;
}

static int fill(struct gn_vm *vm, const struct sharing_contents *contents, unsigned number)
{
	uint8_t bytes[SHARING_PAGE_BYTES];
	int err = 0;

	for (uint64_t page = 0; page < contents->vm_pages && !err; page++) {
		sharing_page_fill(contents->seed, sharing_page(contents, number, page), bytes);
		err = gn_vm_write(vm, gpa(page * GN_PAGE_SIZE), bytes, sizeof(bytes));
	}
	return err;
}

static int map(struct sharing_vm *vm, const struct sharing_contents *contents, unsigned leaf)
{
	uint64_t bytes = sharing_vm_contents_bytes(contents);
	int err = guest_tables_init(&vm->tables, gn_soft_vm(vm->soft), 4, gpa(bytes),
				    SHARING_TABLE_BYTES);

	return err ? err
		   : guest_tables_map(&vm->tables, gva(0), gpa(0), leaf,
				      bytes / gn_level_bytes(leaf));
}

/* Long mode on the tables, executed by the machine. */
static void load_tables(struct gn_soft_cpu *cpu, void *ctx)
{
	guest_tables_load_soft(ctx, cpu);
}

int sharing_vm_init(struct sharing_vm *vm, const struct sharing_contents *contents, unsigned number,
		    const struct gn_vm_config *config, unsigned guest_leaf)
{
	struct gn_soft_config soft = { .vm = *config, .seed = contents->seed + number };
	int err;

	soft.vm.mem_bytes = sharing_vm_bytes(contents);
	soft.vm.vcpus = 1;
	err = gn_soft_create(&soft, &vm->soft);
	if (err) {
		vm->soft = NULL;
		return err;
	}
	err = fill(gn_soft_vm(vm->soft), contents, number);
	if (!err)
		err = map(vm, contents, guest_leaf);
	return err ? err : gn_soft_run(gn_soft_cpu(vm->soft, 0), load_tables, &vm->tables);
}

void sharing_vm_fini(struct sharing_vm *vm)
{
	if (vm->soft)
		gn_soft_destroy(vm->soft);
	vm->soft = NULL;
}
