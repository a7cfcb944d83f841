/* SPDX-License-Identifier: MIT */
/*
 * shadow_check.h - what the unit tests of the shadow room assert, over shadow_rig.h.
 */
#ifndef GN_TESTS_SHADOW_CHECK_H
#define GN_TESTS_SHADOW_CHECK_H

#include <criterion/criterion.h>

#include "unit/shadow_rig.h"

#define CHECK_OK(run)                                                                              \
	do {                                                                                       \
		struct rig_result r_ = (run);                                                      \
		cr_assert_eq(r_.end, RIG_OK, "%s: end %d, error code %#x, errno %d", #run, r_.end, \
			     r_.error_code, r_.err);                                               \
	} while (0)

#define CHECK_PF(run, code)                                                                        \
	do {                                                                                       \
		struct rig_result r_ = (run);                                                      \
		cr_assert(r_.end == RIG_PF && r_.error_code == (code),                             \
			  "%s: end %d, error code %#x, must be %#x", #run, r_.end, r_.error_code,  \
			  (unsigned)(code));                                                       \
	} while (0)

/* Done without a fault. */
#define CHECK_QUIET(run)                                                                           \
	do {                                                                                       \
		struct rig_result r_ = (run);                                                      \
		cr_assert(r_.end == RIG_OK && r_.faults == 0, "%s: end %d, %u faults", #run,       \
			  r_.end, r_.faults);                                                      \
	} while (0)

#define CHECK_AUDIT(rig)                                                                           \
	do {                                                                                       \
		struct gn_audit_report report_;                                                    \
		int err_ = gn_audit((rig)->vm, &report_);                                          \
		cr_assert_eq(err_, 0, "audit: %s", report_.first);                                 \
	} while (0)

static inline void rig_walk_now(struct rig *rig, uint64_t va, struct gn_walk *w)
{
	gn_walk_any(rig->vcpu->hw.fmt, rig->vm->frames, rig->vcpu->hw.root, va, w);
}
/* The gpa whose frame the tables map at @va; ~0: none. */
static inline uint64_t rig_gpa(struct rig *rig, uint64_t va)
{
	struct gn_walk w;

	rig_walk_now(rig, va, &w);
	if (w.end != GN_WALK_LEAF)
		return ~(uint64_t)0;
	for (uint64_t g = 0; g < rig->vm->p2m.gfn_count; g++)
		if (gn_p2m_word_has_frame(gn_p2m_get(&rig->vm->p2m, gfn(g))) &&
		    gn_p2m_word_pfn(gn_p2m_get(&rig->vm->p2m, gfn(g))).v == w.address >> 12)
			return g << 12;
	return ~(uint64_t)0;
}
/* 0: not mapped. */
static inline unsigned rig_leaf_level(struct rig *rig, uint64_t va)
{
	struct gn_walk w;

	rig_walk_now(rig, va, &w);
	return w.end == GN_WALK_LEAF ? w.level : 0;
}
static inline gn_rights_t rig_rights(struct rig *rig, uint64_t va)
{
	struct gn_walk w;

	rig_walk_now(rig, va, &w);
	return w.end == GN_WALK_LEAF ? w.rights : 0;
}

#endif
