/* SPDX-License-Identifier: MIT */
/*
 * walk_body.h - the walk itself, once. Included by walk.c alone, which instantiates it per format.
 *
 *     root --[index 4]--> entry --address--> table --[index 3]--> ... --> leaf
 *
 * Each level is a call with a constant level instead of a turn of a loop: with a constant descriptor
 * every mask becomes an immediate, and a compiler at -O2 need not be talked into unrolling.
 *
 * An entry that points outside the pool ends the walk as malformed: whoever wrote it, this process will
 * not follow it.
 */
#ifndef GN_MMU_WALK_BODY_H
#define GN_MMU_WALK_BODY_H

#include "walk.h"

#define GN_ALWAYS_INLINE static inline __attribute__((always_inline))

struct gn_walk_cursor {
	uint64_t table;	    /* address of the next table to read */
	gn_rights_t rights; /* of the entries above it */
};

/* Read one level. True: go on, one level down. */
GN_ALWAYS_INLINE bool gn_walk_level(const struct gn_fmt *f, unsigned level,
				    const struct gn_frames *frames, uint64_t address,
				    struct gn_walk_cursor *cursor, struct gn_walk *out)
{
	uint64_t *slot =
		(uint64_t *)(frames->base + cursor->table) + gn_fmt_index(f, level, address);
	uint64_t entry = __atomic_load_n(slot, __ATOMIC_ACQUIRE);
	enum gn_walk_end end;

	if (__builtin_expect(!gn_fmt_is_present(f, level, entry), 0)) {
		end = GN_WALK_ABSENT;
	} else if (__builtin_expect(gn_fmt_is_malformed(f, level, entry, f->phys_bits), 0)) {
		end = GN_WALK_MALFORMED;
	} else {
		uint64_t next = gn_fmt_address(f, level, entry);

		cursor->rights &= gn_fmt_rights(f, level, entry);
		if (gn_fmt_is_leaf(f, level, entry)) {
			out->address = next | (address & (gn_level_bytes(level) - 1));
			end = GN_WALK_LEAF;
		} else if (__builtin_expect(gn_frames_valid(frames, hpa_to_pfn(hpa(next))), 1)) {
			cursor->table = next;
			return true;
		} else {
			end = GN_WALK_MALFORMED;
		}
	}
	out->end = end;
	out->level = (uint8_t)level;
	out->refs = (uint8_t)(f->levels - level + 1);
	out->rights = cursor->rights;
	out->entry = entry;
	out->slot = slot;
	return false;
}

GN_ALWAYS_INLINE void gn_walk_body(const struct gn_fmt *f, const struct gn_frames *frames,
				   hpa_t root, uint64_t address, struct gn_walk *out)
{
	struct gn_walk_cursor cursor = { .table = root.v, .rights = GN_RWXU };

	if (f->levels >= 5 && !gn_walk_level(f, 5, frames, address, &cursor, out))
		return;
	if (f->levels >= 4 && !gn_walk_level(f, 4, frames, address, &cursor, out))
		return;
	if (f->levels >= 3 && !gn_walk_level(f, 3, frames, address, &cursor, out))
		return;
	if (!gn_walk_level(f, 2, frames, address, &cursor, out))
		return;
	gn_walk_level(f, 1, frames, address, &cursor, out);
}

#endif
