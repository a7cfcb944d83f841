/* SPDX-License-Identifier: MIT */
/*
 * hash.h - the tag of a page: what is kept of its keyed XXH3-128.
 *
 * A tag is a filter and never a proof: equal pages have equal tags, and that is all. Who merges compares bytes, with the
 * writers held off. The key keeps a guest from choosing pages whose tags collide; each domain has one of its own, so that a tag
 * says nothing outside its domain.
 *
 * Threads: any; a hasher does not change after its init.
 */
#ifndef GN_SHARING_HASH_H
#define GN_SHARING_HASH_H

#include <stddef.h>
#include <stdint.h>

#define GN_HASHER_SECRET_BYTES 192

struct gn_hasher {
	uint8_t secret[GN_HASHER_SECRET_BYTES];
	uint64_t tag_mask;
};

struct gn_tag {
	uint64_t bits; /* what pages are found by */
	uint8_t check; /* other bits of the hash: whether a page still is what it was */
};

/* @key of @key_bytes, or NULL for a random one. @tag_bits: 1..64, 0 for all; with few of them different pages collide, for
 * tests. -EINVAL; -errno of getrandom(). */
int gn_hasher_init(struct gn_hasher *hasher, const void *key, size_t key_bytes, unsigned tag_bits);
/* The key is gone from memory. */
void gn_hasher_fini(struct gn_hasher *hasher);

/* Of the 4 KiB at @page. They may change meanwhile; then the tag is that of no page at all. */
struct gn_tag gn_hasher_tag(const struct gn_hasher *hasher, const void *page);

#endif
