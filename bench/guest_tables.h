/* SPDX-License-Identifier: MIT */
/*
 * guest_tables.h - a guest's page tables, written from outside: for measurements that need a certain
 * geometry and no kernel.
 *
 * Table pages come one after another from an area of guest RAM. Entries are born with A and D set, so that
 * no walk has a reason to write.
 */
#ifndef GN_BENCH_GUEST_TABLES_H
#define GN_BENCH_GUEST_TABLES_H

#include <gnomon/engine.h>
#include <gnomon/soft.h>

struct guest_tables {
	struct gn_vm *vm;
	unsigned levels; /* 4 or 5 */
	gpa_t root, next, end;
};

/* Tables live in [area, area + bytes). -errno of the first write. */
int guest_tables_init(struct guest_tables *tables, struct gn_vm *vm, unsigned levels, gpa_t area,
		      uint64_t bytes);
/* Map @count leaves of @leaf_level from @va to @at. -ENOSPC: the area is full; -errno. */
int guest_tables_map(struct guest_tables *tables, gva_t va, gpa_t at, unsigned leaf_level,
		     uint64_t count);

/* Long mode on these tables: reported to the engine (no backend), or executed on the machine. */
int guest_tables_load(const struct guest_tables *tables, struct gn_vcpu *vcpu);
void guest_tables_load_soft(const struct guest_tables *tables, struct gn_soft_cpu *cpu);

#endif
