/* SPDX-License-Identifier: MIT */
/*
 * software_access.h - one guest access translated by software, for a scheme that has no tables (interp)
 * or meets an access its tables cannot express (nested paging: guest tables in read-only memory).
 */
#ifndef GN_MMU_SOFTWARE_ACCESS_H
#define GN_MMU_SOFTWARE_ACCESS_H

#include "vm.h"

/* Walk the guest's tables (setting A and D) and the p2m, filling what is missing. *fix is ACCESS with gpa and
 * hpa, the guest's fault (INJECT, INJECT_GP), MMIO or DENIED for the datum, or STOP when a table is no
 * memory, or must be written and may not. -ENOMEM. On the vCPU's thread, outside read sections, no locks held.
 * *filled counts the gfns that were resolved on the way. */
int gn_software_access(struct gn_vcpu *vcpu, const struct gn_access *access, struct gn_fix *fix,
		       uint64_t *filled);

#endif
