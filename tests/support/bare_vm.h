/* SPDX-License-Identifier: MIT */
/*
 * bare_vm.h - a VM under a scheme that keeps nothing: for tests of what stands below the schemes.
 */
#ifndef GN_TESTS_BARE_VM_H
#define GN_TESTS_BARE_VM_H

#include <errno.h>

#include "mmu/vm.h"

static inline int bare_vm_init(struct gn_vm *vm)
{
	(void)vm;
	return 0;
}
static inline void bare_vm_fini(struct gn_vm *vm)
{
	(void)vm;
}
static inline int bare_vcpu(struct gn_vcpu *vcpu)
{
	(void)vcpu;
	return 0;
}
static const struct gn_scheme_ops bare_scheme = { .name = "bare",
						  .summary = "no tables at all",
						  .keeps_tables = true,
						  .vm_init = bare_vm_init,
						  .vm_fini = bare_vm_fini,
						  .vcpu_init = bare_vcpu,
						  .load_root = bare_vcpu };

/* May be called again in one program. */
static inline int bare_vm_new(uint64_t mem_bytes, unsigned phys_bits, uint64_t table_limit_bytes,
			      struct gn_vm **out)
{
	const struct gn_vm_config config = { .scheme = "bare",
					     .mem_bytes = mem_bytes,
					     .vcpus = 1,
					     .guest_phys_bits = phys_bits,
					     .scheme_table_limit_bytes = table_limit_bytes };
	int err = gn_scheme_register(&bare_scheme);

	return err && err != -EEXIST ? err : gn_vm_create(&config, out);
}

#endif
