/* SPDX-License-Identifier: MIT */
/*
 * walk.h - the walk of a table in host frames, one named function per format.
 *
 * One body (walk_body.h) is instantiated with each constant descriptor; there is no function pointer
 * per entry (measured: 26 ns against 7 ns for a cached 4-level walk). These walks read and change
 * nothing; the guest's walk, with the architecture's rights and faults, is guest_walk.h.
 */
#ifndef GN_MMU_WALK_H
#define GN_MMU_WALK_H

#include "fmt.h"
#include "frames.h"

enum gn_walk_end { GN_WALK_LEAF, GN_WALK_ABSENT, GN_WALK_MALFORMED };

struct gn_walk {
	enum gn_walk_end end;
	uint8_t level;	    /* of the entry the walk ended at */
	uint8_t refs;	    /* entries read */
	gn_rights_t rights; /* AND over the present, well-formed entries read */
	uint64_t entry;	    /* the last one */
	uint64_t *slot;	    /* where it stands */
	uint64_t address;   /* GN_WALK_LEAF: the translated address, offset included */
};

typedef void gn_walk_fn(const struct gn_frames *frames, hpa_t root, uint64_t address,
			struct gn_walk *out);
gn_walk_fn gn_walk_x86_4, gn_walk_x86_5, gn_walk_ept_4, gn_walk_ept_5, gn_walk_npt_4, gn_walk_npt_5,
	gn_walk_fake;

/* By descriptor, for code that is not hot. */
void gn_walk_any(const struct gn_fmt *fmt, const struct gn_frames *frames, hpa_t root,
		 uint64_t address, struct gn_walk *out);

#endif
