/* SPDX-License-Identifier: MIT */
/*
 * micro_guest.h - a guest of one page of code (micro_code.h) and an area of data, under a scheme on KVM; and the same data,
 * in the same frames, mapped into this process.
 */
#ifndef GN_BENCH_MICRO_GUEST_H
#define GN_BENCH_MICRO_GUEST_H

#include <gnomon/kvm.h>

struct micro_guest {
	struct gn_kvm *kvm;
	struct gn_vm *vm;
	uint64_t data_bytes;
	gva_t data_va; /* in the guest, 4 KiB pages */
	gfn_t data_gfn;
	uint8_t *data; /* here, the same frames in the same order, 4 KiB pages */
	struct gn_kvm_state user, kernel;
};

/* @data_bytes: a multiple of 2 MiB. With @is_mapped, ->data is there. NULL with @why. */
struct micro_guest *micro_guest_new(const char *scheme, uint64_t data_bytes, bool is_mapped,
				    char *why, size_t why_bytes);
/* The same over a template (GN_POOL_TEMPLATE) of micro_guest_bytes(), which holds zeros but in the data; not mapped here. */
struct micro_guest *micro_guest_new_over(const char *scheme, uint64_t data_bytes, int template_fd,
					 char *why, size_t why_bytes);
/* RAM of a guest with that much data, and where in it the data begins. */
uint64_t micro_guest_bytes(uint64_t data_bytes);
gfn_t micro_guest_data_gfn(uint64_t data_bytes);
void micro_guest_destroy(struct micro_guest *guest); /* NULL is fine */

/* Call @function of micro_code.h in the guest, at CPL 3 or as its kernel. CPU time of this thread, ns; infinite when it
 * did not return. *result (may be NULL): what a user's function returned. */
double micro_guest_call(struct micro_guest *guest, const void *function, bool is_user, uint64_t rdi,
			uint64_t rsi, uint64_t rdx, uint64_t rcx, uint64_t *result);

#endif
