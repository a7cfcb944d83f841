/* SPDX-License-Identifier: MIT */
/*
 * sharing_kvm_guests.h - guests on KVM that have the contents of a case in their data, and use it while it is shared.
 */
#ifndef GN_BENCH_SHARING_KVM_GUESTS_H
#define GN_BENCH_SHARING_KVM_GUESTS_H

#include <pthread.h>

#include "mmu/atomics.h"
#include "micro_guest.h"
#include "sharing_contents.h"

enum {
	SHARING_KVM_LOADS = 60,
	SHARING_KVM_STORES = 4
};					   /* of each VM in a turn, as in sharing_guest.c */
enum { SHARING_KVM_MOST_LOADS = 1 << 12 }; /* in a list */

/* As the guest reads it (micro_code_visit). */
struct sharing_kvm_visit {
	uint64_t address, word;
};

/* (c) const after init, (g) the vCPUs' thread only until it is stopped, (a) atomic. */
struct sharing_kvm_guests {
	const struct sharing_contents *contents; /* (c) */
	unsigned count;	     /* (c) one for all VMs of the case, or one for each */
	uint64_t list_at;    /* (c) where the list is in a guest's data, which ends with it */
	uint64_t data_bytes; /* (c) of each */
	struct micro_guest
		*guests[SHARING_MAX_VMS]; /* (c) the caller's, who makes them and fills them */
	pthread_t thread;		  /* (c) */
	bool has_thread;		  /* (c) */
	_Atomic(bool) is_stopping;
	uint64_t random;					/* (g) */
	uint64_t *hot;						/* (g) words of all hot pages */
	struct sharing_kvm_visit loads[SHARING_KVM_MOST_LOADS]; /* (g) */
	struct sharing_kvm_visit stores[SHARING_MAX_VMS * SHARING_KVM_STORES]; /* (g) */
	uint64_t mismatches;						       /* (g) */
	int err;							       /* (g) */
};

/* @count: 1, or the contents' VMs. -ENOMEM. */
int sharing_kvm_guests_init(struct sharing_kvm_guests *g, const struct sharing_contents *contents,
			    unsigned count);
/* Stops and destroys them all. */
void sharing_kvm_guests_fini(struct sharing_kvm_guests *g);

/* VMs of the case in each guest. */
static inline unsigned sharing_kvm_vms_each(const struct sharing_kvm_guests *g)
{
	return g->contents->vms / g->count;
}
static inline struct micro_guest *sharing_kvm_guest_of(const struct sharing_kvm_guests *g,
						       unsigned vm)
{
	return g->guests[vm / sharing_kvm_vms_each(g)];
}
/* Where in its guest's data a page of a VM is, in pages; and in its memory. */
static inline uint64_t sharing_kvm_place_of(const struct sharing_kvm_guests *g, unsigned vm,
					    uint64_t page)
{
	return vm % sharing_kvm_vms_each(g) * g->contents->vm_pages + page;
}
static inline gfn_t sharing_kvm_gfn_of(const struct sharing_kvm_guests *g, unsigned vm,
				       uint64_t page)
{
	return gfn(sharing_kvm_guest_of(g, vm)->data_gfn.v + sharing_kvm_place_of(g, vm, page));
}
/* A word of a hot page: what it holds, or should. */
static inline uint64_t *sharing_kvm_hot_word(const struct sharing_kvm_guests *g, unsigned vm,
					     uint64_t page, unsigned word)
{
	return &g->hot[(vm * g->contents->hot_pages + page) * SHARING_PAGE_WORDS + word];
}

/* A thread runs all guests in turn, every 2 ms. -errno. */
int sharing_kvm_guests_start(struct sharing_kvm_guests *g);
/* -EBADMSG: a guest read what was not there; -errno. */
int sharing_kvm_guests_stop(struct sharing_kvm_guests *g);
/* Each page but those of zeros is loaded from once, in order, while no other thread runs the guests; for @most_s at most.
 * *pages: how many. As _stop(). */
int sharing_kvm_guests_walk(struct sharing_kvm_guests *g, double most_s, uint64_t *pages);

#endif
