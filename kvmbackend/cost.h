/* SPDX-License-Identifier: MIT */
/*
 * cost.h - what trap and emulate costs on this host, beside what it can't cost less than: for `gnomon micro`.
 */
#ifndef GN_KVM_COST_H
#define GN_KVM_COST_H

#include <gnomon/kvm.h>

enum gn_kvm_cost_kind {
	GN_KVM_COST_TRAP,	  /* CLI of the guest's kernel */
	GN_KVM_COST_SHADOW_FAULT, /* first store to a page: all that lacks is the shadow's leaf */
};

/* Both run the same instructions at CPL 3. Bare: a VM of raw ioctls whose handler does nothing but what lets the guest go
 * on (RIP behind CLI; the entry made present). */
struct gn_kvm_cost;
int gn_kvm_cost_new(enum gn_kvm_cost_kind kind, struct gn_kvm_cost **out, char *why,
		    size_t why_bytes);
void gn_kvm_cost_destroy(struct gn_kvm_cost *cost);
/* A batch of each; CPU time of one trap. -errno. */
int gn_kvm_cost_sample(struct gn_kvm_cost *cost, double *ours_ns, double *bare_ns);

#endif
