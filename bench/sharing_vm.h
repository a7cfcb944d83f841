/* SPDX-License-Identifier: MIT */
/*
 * sharing_vm.h - a software machine whose memory has the contents of a case.
 *
 * Its guest maps its memory one to one: page N of the contents is at guest-physical and guest-virtual address N * 4 KiB, its
 * tables lie behind it.
 */
#ifndef GN_BENCH_SHARING_VM_H
#define GN_BENCH_SHARING_VM_H

#include <gnomon/soft.h>

#include "guest_tables.h"
#include "sharing_contents.h"

#define SHARING_TABLE_BYTES ((uint64_t)2 << 20)

struct sharing_vm {
	struct gn_soft *soft; /* NULL: not there */
	struct guest_tables tables;
};

/* Of each VM's memory: the contents, in whole blocks of 2 MiB; all of it. */
uint64_t sharing_vm_contents_bytes(const struct sharing_contents *contents);
uint64_t sharing_vm_bytes(const struct sharing_contents *contents);

/* Number @number of the case, filled. @config: its scheme and frames. @guest_leaf: level of the guest's leaves. -errno; fini it
 * in any case. */
int sharing_vm_init(struct sharing_vm *vm, const struct sharing_contents *contents, unsigned number,
		    const struct gn_vm_config *config, unsigned guest_leaf);
void sharing_vm_fini(struct sharing_vm *vm);

#endif
