/* SPDX-License-Identifier: MIT */
/*
 * hash.c - keyed XXH3-128.
 *
 * The secret XXH3 mixes its input with is derived from the key by XXH3_generateSecret(), which makes a good secret of any
 * key. The library's dispatching functions are used: they take the widest vectors this processor has, and on a page in
 * cache that is three times what the baseline instructions give.
 *
 * The tag is the hash's low half, and the check eight bits of its high half; so the check tells apart, as far as
 * eight bits can, also what a tag of few bits does not. The bits that are kept are the high ones, for the index finds an entry's
 * home by those.
 */
#include "hash.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#define XXH_STATIC_LINKING_ONLY /* XXH3_generateSecret() */
#include <xxhash.h>
#include <xxh_x86dispatch.h>

#include <gnomon/types.h>

#define RANDOM_KEY_BYTES 64
#define TAG_BITS_MAX	 64

static int random_key(uint8_t key[RANDOM_KEY_BYTES])
{
	ssize_t got = getrandom(key, RANDOM_KEY_BYTES, 0);

	if (got < 0)
		return -errno;
	return got == RANDOM_KEY_BYTES ? 0 : -EIO;
}

int gn_hasher_init(struct gn_hasher *hasher, const void *key, size_t key_bytes, unsigned tag_bits)
{
	uint8_t random[RANDOM_KEY_BYTES];
	XXH_errorcode made;
	int err = 0;

	if (tag_bits > TAG_BITS_MAX || !key != !key_bytes)
		return -EINVAL;
	if (!key) {
		err = random_key(random);
		key = random;
		key_bytes = sizeof(random);
	}
	if (err)
		return err;
	made = XXH3_generateSecret(hasher->secret, sizeof(hasher->secret), key, key_bytes);
	explicit_bzero(random, sizeof(random));
	if (made != XXH_OK)
		return -EINVAL;
	hasher->tag_mask = tag_bits ? ~(uint64_t)0 << (TAG_BITS_MAX - tag_bits) : ~(uint64_t)0;
	return 0;
}

void gn_hasher_fini(struct gn_hasher *hasher)
{
	explicit_bzero(hasher->secret, sizeof(hasher->secret));
}

struct gn_tag gn_hasher_tag(const struct gn_hasher *hasher, const void *page)
{
	XXH128_hash_t h =
		XXH3_128bits_withSecret(page, GN_PAGE_SIZE, hasher->secret, sizeof(hasher->secret));
	struct gn_tag tag = { h.low64 & hasher->tag_mask, (uint8_t)(h.high64 >> 56) };

	return tag;
}
