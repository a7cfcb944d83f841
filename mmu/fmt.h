/* SPDX-License-Identifier: MIT */
/*
 * fmt.h - an entry format is data: an array of levels.
 *
 * Which bit means what is said here and in fmt_*.h, nowhere else. The functions below are inlined; when
 * the descriptor is a compile-time constant (the walks of walk.c) they fold to the masks themselves.
 *
 * A right is granted by an entry when all its `grant` bits are set and none of its `deny` bits is
 * (x86: W grants, NX denies; EPT: R, W, X grant). A right with neither is not expressed by the format and
 * counts as granted. In every format R is granted by a present bit, so an entry encoded without any
 * right is not present. Invariants, checked by a unit test over every format: fields of a level do not
 * overlap; software bits are ignored by the hardware; encode and decode are inverse.
 */
#ifndef GN_MMU_FMT_H
#define GN_MMU_FMT_H

#include <gnomon/types.h>

enum gn_right_index { GN_RI_R, GN_RI_W, GN_RI_X, GN_RI_U, GN_RIGHTS };

struct gn_fmt_level {
	uint8_t shift; /* of the index in the address */
	bool leaf_allowed;
	uint64_t present; /* any of these set: the hardware uses the entry */
	uint64_t leaf;	  /* set: a leaf. 0 at level 1, where every entry is one */
	uint64_t address; /* of a table, or of a 4 KiB leaf; a large leaf drops the low bits */
	uint64_t grant[GN_RIGHTS], deny[GN_RIGHTS];
	uint64_t fixed;	     /* bits the hardware wants set in a present entry that is a table */
	uint64_t fixed_leaf; /* the same for a leaf (EPT: memory type) */
	uint64_t accessed, dirty; /* dirty: leaves only. 0: the format has none */
	uint64_t global;	  /* leaves only, as are dirty and pkey */
	uint64_t pkey;		  /* protection key, one contiguous field. 0: the format has none */
	uint64_t reserved_table, reserved_leaf; /* must be zero, beyond the physical width */
	uint64_t software;			/* ours: see entry.h for the owners */
};

struct gn_fmt {
	const char *name;
	uint8_t levels;	       /* the root's level */
	uint8_t phys_bits;     /* widest physical address of the format */
	bool rights_need_read; /* an entry that grants W without R is a misconfiguration (EPT) */
	bool sign_extended; /* translates canonical addresses: bits above the top index copy it */
	struct gn_fmt_level level[GN_MAX_LEVELS + 1]; /* [0] unused */
};

/* Readers of entries: always inlined, so that they fold wherever the descriptor is known. */
#define GN_FMT_INLINE static inline __attribute__((always_inline))

extern const struct gn_fmt gn_fmt_x86_4, gn_fmt_x86_5;
extern const struct gn_fmt gn_fmt_ept_4, gn_fmt_ept_5;
extern const struct gn_fmt gn_fmt_npt_4, gn_fmt_npt_5;
extern const struct gn_fmt gn_fmt_fake; /* bits moved about per level: catches literals in tests */

GN_FMT_INLINE unsigned gn_fmt_index(const struct gn_fmt *f, unsigned level, uint64_t address)
{
	return (address >> f->level[level].shift) & (GN_TABLE_ENTRIES - 1);
}
/* The address the hardware would translate: the bits above the top index follow the format's rule. */
GN_FMT_INLINE uint64_t gn_fmt_extend(const struct gn_fmt *f, uint64_t address)
{
	unsigned spare_bits = 64 - (GN_PAGE_SHIFT + GN_INDEX_BITS * f->levels);

	return f->sign_extended ? (uint64_t)((int64_t)(address << spare_bits) >> spare_bits)
				: address << spare_bits >> spare_bits;
}
GN_FMT_INLINE bool gn_fmt_is_present(const struct gn_fmt *f, unsigned level, uint64_t entry)
{
	return entry & f->level[level].present;
}
/* Of a present entry. */
GN_FMT_INLINE bool gn_fmt_is_leaf(const struct gn_fmt *f, unsigned level, uint64_t entry)
{
	return level == 1 || (entry & f->level[level].leaf);
}
GN_FMT_INLINE uint64_t gn_fmt_address(const struct gn_fmt *f, unsigned level, uint64_t entry)
{
	uint64_t a = entry & f->level[level].address;

	return gn_fmt_is_leaf(f, level, entry) ? a & ~(gn_level_bytes(level) - 1) : a;
}
/* One right as its bit of gn_rights_t. A right of one bit in a descriptor known at compile time is
 * moved into place; compilers make nothing as short of the comparison. */
GN_FMT_INLINE unsigned gn_fmt_right(const struct gn_fmt_level *l, enum gn_right_index i,
				    uint64_t entry)
{
	uint64_t mask = l->grant[i] | l->deny[i];

	if (__builtin_constant_p(mask) && __builtin_popcountll(mask) == 1) {
		unsigned from = (unsigned)__builtin_ctzll(mask), to = (unsigned)i;
		uint64_t granted = l->grant[i] ? entry : ~entry;

		return (unsigned)(from >= to ? granted >> (from - to) : granted << (to - from)) &
		       1u << to;
	}
	return (unsigned)((entry & mask) == l->grant[i]) << i;
}
/* Written out, not looped: so it folds to shifts and masks at -O2. */
GN_FMT_INLINE gn_rights_t gn_fmt_rights(const struct gn_fmt *f, unsigned level, uint64_t entry)
{
	const struct gn_fmt_level *l = &f->level[level];

	return (gn_rights_t)(gn_fmt_right(l, GN_RI_R, entry) | gn_fmt_right(l, GN_RI_W, entry) |
			     gn_fmt_right(l, GN_RI_X, entry) | gn_fmt_right(l, GN_RI_U, entry));
}
/* The protection key of a leaf, and the bits that say one. 0 in a format without keys. */
GN_FMT_INLINE unsigned gn_fmt_pkey(const struct gn_fmt *f, unsigned level, uint64_t entry)
{
	uint64_t mask = f->level[level].pkey;

	return mask ? (unsigned)((entry & mask) >> __builtin_ctzll(mask)) : 0;
}
static inline uint64_t gn_fmt_pkey_bits(const struct gn_fmt *f, unsigned level, unsigned pkey)
{
	uint64_t mask = f->level[level].pkey;

	return mask ? ((uint64_t)pkey << __builtin_ctzll(mask)) & mask : 0;
}
/* The bits that say @rights, without address, A/D or leaf mark. */
static inline uint64_t gn_fmt_rights_bits(const struct gn_fmt *f, unsigned level,
					  gn_rights_t rights)
{
	const struct gn_fmt_level *l = &f->level[level];
	uint64_t bits = 0;

	for (unsigned i = 0; i < GN_RIGHTS; i++)
		bits |= (rights >> i) & 1 ? l->grant[i] : l->deny[i];
	return bits;
}
/* A leaf at @level; accessed and dirty are set by the caller with the masks if wanted. */
static inline uint64_t gn_fmt_leaf(const struct gn_fmt *f, unsigned level, pfn_t frame,
				   gn_rights_t rights)
{
	const struct gn_fmt_level *l = &f->level[level];

	return pfn_to_hpa(frame).v | gn_fmt_rights_bits(f, level, rights) | l->leaf | l->fixed_leaf;
}
/* A pointer to the table @frame, at @level (>= 2). */
static inline uint64_t gn_fmt_table(const struct gn_fmt *f, unsigned level, pfn_t frame,
				    gn_rights_t rights)
{
	return pfn_to_hpa(frame).v | gn_fmt_rights_bits(f, level, rights) | f->level[level].fixed;
}
/* Is @entry as nearly all are: a table's, or a leaf of level 1, that grants every right, has A, and is well formed?
 * @forbidden: bits beyond the format's own that must not be set. One comparison says so. */
GN_FMT_INLINE bool gn_fmt_is_plain(const struct gn_fmt *f, unsigned level, uint64_t entry,
				   uint64_t forbidden)
{
	const struct gn_fmt_level *l = &f->level[level];
	/* Written out, as in gn_fmt_rights(). */
	uint64_t set = l->present | l->accessed | l->grant[GN_RI_R] | l->grant[GN_RI_W] |
		       l->grant[GN_RI_X] | l->grant[GN_RI_U];
	uint64_t clear = l->deny[GN_RI_R] | l->deny[GN_RI_W] | l->deny[GN_RI_X] | l->deny[GN_RI_U] |
			 (level == 1 ? l->reserved_leaf : l->reserved_table | l->leaf);

	if (f->phys_bits < 52)
		clear |= l->address & ~(((uint64_t)1 << f->phys_bits) - 1);
	return (entry & (set | clear | forbidden)) == set;
}
/* Reserved bits set, physical width @phys_bits exceeded, or rights the format forbids: a present
 * entry the hardware answers with a reserved-bit fault or a misconfiguration. */
GN_FMT_INLINE bool gn_fmt_is_malformed(const struct gn_fmt *f, unsigned level, uint64_t entry,
				       unsigned phys_bits)
{
	const struct gn_fmt_level *l = &f->level[level];
	bool leaf = gn_fmt_is_leaf(f, level, entry);

	if (entry & (leaf ? l->reserved_leaf : l->reserved_table))
		return true;
	if (leaf && !l->leaf_allowed)
		return true;
	if (phys_bits < 52 && (entry & l->address & ~(((uint64_t)1 << phys_bits) - 1)))
		return true;
	return f->rights_need_read && !(entry & l->grant[GN_RI_R]) && (entry & l->grant[GN_RI_W]);
}

#endif
