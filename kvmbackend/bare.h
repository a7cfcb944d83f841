/* SPDX-License-Identifier: MIT */
/*
 * bare.h - KVM_RUN in a loop with next to nothing around it: the least that any VMM pays for a trap of a guest at CPL 3.
 * For measurements, which hold this room's own exits against it.
 */
#ifndef GN_KVM_BARE_H
#define GN_KVM_BARE_H

#include <stddef.h>
#include <stdint.h>

struct gn_kvm_bare;

/* A guest of one page of position-independent code (@code, at most 4 KiB) and @data_pages pages of data, none of which is
 * present. -errno with @why. */
int gn_kvm_bare_new(const void *code, size_t code_bytes, uint64_t data_pages,
		    struct gn_kvm_bare **out, char *why, size_t why_bytes);
void gn_kvm_bare_destroy(struct gn_kvm_bare *bare); /* NULL is fine */

/* Run at CPL 3 from byte @entry of the code, with RDI the data's address and RCX @count, until it executes HLT or RET
 * (there is a HLT at its return address). Of what traps before that: an instruction of one byte that is privileged is
 * skipped, an absent page of the data becomes present by one store to its entry. *traps: how many.
 * -EIO: something else trapped; -errno of KVM_RUN. */
int gn_kvm_bare_run(struct gn_kvm_bare *bare, size_t entry, uint64_t count, uint64_t *traps);

/* Make the data absent again, in KVM's eyes too. -errno. */
int gn_kvm_bare_forget(struct gn_kvm_bare *bare);

#endif
