/* SPDX-License-Identifier: MIT */
/*
 * guest_tables.c - write x86 tables through the device's door (gn_vm_write), as a loader would.
 */
#include "guest_tables.h"

#include <errno.h>

#include <gnomon/x86.h>

static int new_table(struct guest_tables *tables, gpa_t *out)
{
	static const uint8_t zeros[GN_PAGE_SIZE];
	int err;

	if (tables->next.v + GN_PAGE_SIZE > tables->end.v)
		return -ENOSPC;
	err = gn_vm_write(tables->vm, tables->next, zeros, sizeof(zeros));
	if (err)
		return err;
	*out = tables->next;
	tables->next.v += GN_PAGE_SIZE;
	return 0;
}

int guest_tables_init(struct guest_tables *tables, struct gn_vm *vm, unsigned levels, gpa_t area,
		      uint64_t bytes)
{
	tables->vm = vm;
	tables->levels = levels;
	tables->next = area;
	tables->end = gpa(area.v + bytes);
	return new_table(tables, &tables->root);
}

/* The table at @leaf_level that covers @va, made on the way. */
static int find_table(struct guest_tables *tables, gva_t va, unsigned leaf_level, gpa_t *out)
{
	gpa_t table = tables->root;

	for (unsigned level = tables->levels; level > leaf_level; level--) {
		uint64_t index = va.v >> gn_level_shift(level) & (GN_TABLE_ENTRIES - 1), entry;
		gpa_t slot = gpa(table.v + index * sizeof(entry));
		int err = gn_vm_read(tables->vm, slot, &entry, sizeof(entry));

		if (err)
			return err;
		if (entry & X86_PTE_P) {
			table = gpa(entry & X86_PTE_ADDR);
			continue;
		}
		err = new_table(tables, &table);
		if (err)
			return err;
		entry = table.v | X86_PTE_P | X86_PTE_W | X86_PTE_U | X86_PTE_A;
		err = gn_vm_write(tables->vm, slot, &entry, sizeof(entry));
		if (err)
			return err;
	}
	*out = table;
	return 0;
}

int guest_tables_map(struct guest_tables *tables, gva_t va, gpa_t at, unsigned leaf_level,
		     uint64_t count)
{
	const uint64_t bits = X86_PTE_P | X86_PTE_W | X86_PTE_U | X86_PTE_A | X86_PTE_D |
			      (leaf_level > 1 ? X86_PTE_PS : 0);
	uint64_t entries[GN_TABLE_ENTRIES], step = gn_level_bytes(leaf_level);

	while (count) {
		uint64_t index = va.v >> gn_level_shift(leaf_level) & (GN_TABLE_ENTRIES - 1);
		uint64_t run = GN_TABLE_ENTRIES - index < count ? GN_TABLE_ENTRIES - index : count;
		gpa_t table;
		int err = find_table(tables, va, leaf_level, &table);

		if (err)
			return err;
		for (uint64_t i = 0; i < run; i++)
			entries[i] = (at.v + i * step) | bits;
		err = gn_vm_write(tables->vm, gpa(table.v + index * sizeof(*entries)), entries,
				  run * sizeof(*entries));
		if (err)
			return err;
		va.v += run * step;
		at.v += run * step;
		count -= run;
	}
	return 0;
}

static uint64_t cr4_of(const struct guest_tables *tables)
{
	return X86_CR4_PAE | (tables->levels == 5 ? X86_CR4_LA57 : 0);
}

int guest_tables_load(const struct guest_tables *tables, struct gn_vcpu *vcpu)
{
	bool gp = false;
	int err = gn_vcpu_write_cr4(vcpu, cr4_of(tables), &gp);

	if (!err && !gp)
		err = gn_vcpu_write_efer(vcpu, X86_EFER_LME | X86_EFER_NXE, &gp);
	if (!err && !gp)
		err = gn_vcpu_write_cr3(vcpu, tables->root.v, &gp);
	if (!err && !gp)
		err = gn_vcpu_write_cr0(vcpu, X86_CR0_PE | X86_CR0_PG | X86_CR0_WP, &gp);
	return err ? err : gp ? -EINVAL : 0;
}

void guest_tables_load_soft(const struct guest_tables *tables, struct gn_soft_cpu *cpu)
{
	gn_soft_write_cr4(cpu, cr4_of(tables));
	gn_soft_write_efer(cpu, X86_EFER_LME | X86_EFER_NXE);
	gn_soft_write_cr3(cpu, tables->root.v);
	gn_soft_write_cr0(cpu, X86_CR0_PE | X86_CR0_PG | X86_CR0_WP);
}
