/* SPDX-License-Identifier: MIT */
/*
 * audit.h - the auditor's tools: report a violation, walk naively.
 *
 * What is proved, for each table a scheme keeps:
 *   1. each entry is no more permissive than guest ∘ p2m (nested: than the p2m), and points at the frame
 *      the p2m names;
 *   2. every shadowed guest table is write-protected everywhere or marked unsync;
 *   3. reverse map and reality agree, both ways;
 *   4. no entry points outside the VM's frames, and no table page is mapped for the guest;
 *   5. the count of table pages equals what is reachable.
 * The auditor shares no code with the tables' builders but the format descriptors.
 */
#ifndef GN_MMU_AUDIT_H
#define GN_MMU_AUDIT_H

#include "vm.h"

__attribute__((format(printf, 2, 3))) void gn_audit_fail(struct gn_audit_report *report,
							 const char *format, ...);

/* Visit every present entry below @root, depth first. */
typedef void gn_audit_visit(void *ctx, unsigned level, uint64_t address, uint64_t *slot,
			    uint64_t entry);
void gn_audit_walk_table(struct gn_vm *vm, const struct gn_fmt *fmt, hpa_t root,
			 gn_audit_visit *visit, void *ctx, struct gn_audit_report *report);
/* The same, entry @skipped of the root left out. */
void gn_audit_walk_table_but(struct gn_vm *vm, const struct gn_fmt *fmt, hpa_t root,
			     unsigned skipped, gn_audit_visit *visit, void *ctx,
			     struct gn_audit_report *report);

#endif
