/* SPDX-License-Identifier: MIT */
/*
 * dirtiness.h - how it is learned which pages of a VM were written.
 */
#ifndef GN_SHARING_DIRTINESS_H
#define GN_SHARING_DIRTINESS_H

#include <gnomon/engine.h>

enum gn_dirtiness {
	GN_DIRTINESS_LOG,      /* the dirty log, by write protection: exact */
	GN_DIRTINESS_ACCESSED, /* accessed bits: what was used may have been written */
	GN_DIRTINESS_UNKNOWN,  /* neither: pages tell by their hashes */
};

/* The best there is for @vm, started. -EBUSY: its dirty log is on already; -ENOMEM. */
int gn_dirtiness_start(struct gn_vm *vm, enum gn_dirtiness *kind);
void gn_dirtiness_stop(struct gn_vm *vm, enum gn_dirtiness kind);
/* As gn_dirty_harvest(). *is_known: the bitmap says something; otherwise the scheme in force cannot tell, or the log had been
 * stopped by someone, and is on again. */
int gn_dirtiness_harvest(struct gn_vm *vm, enum gn_dirtiness kind, gfn_t start, uint64_t count,
			 uint8_t *bitmap, bool *is_known);

#endif
