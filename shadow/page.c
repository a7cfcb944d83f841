/* SPDX-License-Identifier: MIT */
/*
 * page.c - shadow pages: made, found, zapped, buried.
 *
 * Life of a page: made into a vCPU's reserve before the lock is taken (memory may be short, and finding
 * more may take long); taken from it under the lock, when it gets its key, enters the hash table and its gfn
 * becomes tracked; linked, filled, unlinked, linked again; zapped; doomed until the lock is released, when its
 * flush has been posted and its frame can be retired.
 *
 * The hash table is keyed by gfn alone, so that all shadows of one guest table are in one chain: a
 * trapped write wants them all, whatever their roles. Removing a page leaves its own chain pointer as it
 * was and frees nothing before the lock is released, so a loop over a chain may zap what it likes.
 *
 * A page without parents stays: the guest is likely to link that table again (a process that runs again, a
 * protection toggled back), and its entries are kept right meanwhile. Direct pages are cheap to make and go at
 * once. See reclaim.c for when memory is short.
 *
 * From a table frame to its page: an array of 512 pointers per 2 MiB of the pool that ever held a table.
 */
#include "shadow.h"

#include <errno.h>
#include <string.h>

#define FIRST_BUCKETS 256
#define CHUNK_BYTES   (GN_TABLE_ENTRIES * sizeof(struct gn_shadow_page *))
#define GFNS_BYTES    (GN_TABLE_ENTRIES * sizeof(uint32_t))

static struct gn_arena *arena_of(const struct gn_shadow *s)
{
	return s->vm->scheme_arena;
}

/* ---- Frames to pages ------------------------------------------------------------------------------ */

static int owner_prepare(struct gn_shadow *s, pfn_t table)
{
	_Atomic(struct gn_shadow_page **) *place = &s->owners[table.v / GN_TABLE_ENTRIES];
	struct gn_shadow_page **none = NULL, **chunk;

	if (atomic_load_explicit(place, memory_order_acquire))
		return 0;
	chunk = gn_arena_zalloc(arena_of(s), CHUNK_BYTES);
	if (!chunk)
		return -ENOMEM;
	if (!atomic_compare_exchange_strong_explicit(place, &none, chunk, memory_order_acq_rel,
						     memory_order_acquire))
		gn_arena_free(arena_of(s), chunk, CHUNK_BYTES);
	return 0;
}

static struct gn_shadow_page **owner_of(struct gn_shadow *s, pfn_t table)
{
	struct gn_shadow_page **chunk =
		atomic_load_explicit(&s->owners[table.v / GN_TABLE_ENTRIES], memory_order_acquire);

	return chunk ? &chunk[table.v % GN_TABLE_ENTRIES] : NULL;
}

struct gn_shadow_page *gn_shadow_page_of(struct gn_shadow *s, pfn_t table)
{
	struct gn_shadow_page **owner = owner_of(s, table);

	return owner ? *owner : NULL;
}

struct gn_shadow_page *gn_shadow_page_of_slot(struct gn_shadow *s, const uint64_t *slot)
{
	uint64_t at = (uint64_t)((const uint8_t *)slot - s->vm->frames->base);

	return gn_shadow_page_of(s, hpa_to_pfn(hpa(at)));
}

/* ---- The reserve ---------------------------------------------------------------------------------- */

static int page_new(struct gn_shadow *s, struct gn_shadow_page **out)
{
	struct gn_shadow_page *page = gn_arena_zalloc(arena_of(s), sizeof(*page));
	int err;

	if (!page)
		return -ENOMEM;
	err = gn_table_new(s->vm, &page->table);
	if (err)
		goto free_page;
	err = owner_prepare(s, page->table);
	if (err)
		goto retire_table;
	page->entries = gn_table_entries(s->vm, page->table);
	*out = page;
	return 0;

retire_table:
	gn_table_retire(s->vm, page->table);
free_page:
	gn_arena_free(arena_of(s), page, sizeof(*page));
	return err;
}

static void page_free(struct gn_shadow *s, struct gn_shadow_page *page)
{
	gn_table_retire(s->vm, page->table);
	if (page->gfns)
		gn_arena_free(arena_of(s), page->gfns, GFNS_BYTES);
	gn_arena_free(arena_of(s), page, sizeof(*page));
}

int gn_shadow_reserve_fill(struct gn_shadow *s, struct gn_shadow_reserve *reserve,
			   unsigned page_count, unsigned gfns_count)
{
	GN_BUG_ON(page_count > GN_MAX_LEVELS || gfns_count > GN_MAX_LEVELS);
	while (reserve->gfns_count < gfns_count) {
		uint32_t *gfns = gn_arena_alloc(arena_of(s), GFNS_BYTES);

		if (!gfns)
			return -ENOMEM;
		reserve->gfns[reserve->gfns_count++] = gfns;
	}
	while (reserve->page_count < page_count) {
		int err = page_new(s, &reserve->page[reserve->page_count]);

		if (err)
			return err;
		reserve->page_count++;
	}
	return 0;
}

void gn_shadow_reserve_drop(struct gn_shadow *s, struct gn_shadow_reserve *reserve)
{
	while (reserve->page_count)
		page_free(s, reserve->page[--reserve->page_count]);
	while (reserve->gfns_count)
		gn_arena_free(arena_of(s), reserve->gfns[--reserve->gfns_count], GFNS_BYTES);
}

/* ---- The hash table --------------------------------------------------------------------------------- */

static struct gn_shadow_page **bucket_of(const struct gn_shadow *s, gfn_t at)
{
	uint64_t mixed = at.v * 0x9e3779b97f4a7c15; /* 2^64 / golden ratio: Fibonacci hashing */

	return &s->buckets[(mixed >> 32) & (s->bucket_count - 1)];
}

/* Longer chains are slower, not wrong: a failure is forgotten. */
static void grow(struct gn_shadow *s)
{
	size_t old_count = s->bucket_count, count = 4 * old_count;
	struct gn_shadow_page **old = s->buckets;
	struct gn_shadow_page **buckets =
		gn_arena_zalloc(arena_of(s), count * sizeof(struct gn_shadow_page *));

	if (!buckets)
		return;
	s->buckets = buckets;
	s->bucket_count = count;
	for (size_t i = 0; i < old_count; i++) {
		struct gn_shadow_page *page = old[i], *next;

		for (; page; page = next) {
			struct gn_shadow_page **bucket = bucket_of(s, page->key.gfn);

			next = page->chain;
			page->chain = *bucket;
			*bucket = page;
		}
	}
	gn_arena_free(arena_of(s), old, old_count * sizeof(struct gn_shadow_page *));
}

static void hash_insert(struct gn_shadow *s, struct gn_shadow_page *page)
{
	struct gn_shadow_page **bucket;

	if (s->hashed_count >= 2 * s->bucket_count)
		grow(s);
	bucket = bucket_of(s, page->key.gfn);
	page->chain = *bucket;
	*bucket = page;
	page->is_hashed = true;
	s->hashed_count++;
}

static void hash_remove(struct gn_shadow *s, struct gn_shadow_page *page)
{
	struct gn_shadow_page **at = bucket_of(s, page->key.gfn);

	for (; *at && *at != page; at = &(*at)->chain)
		;
	GN_BUG_ON(!*at);
	*at = page->chain;
	page->is_hashed = false;
	s->hashed_count--;
}

struct gn_shadow_page *gn_shadow_page_find(struct gn_shadow *s, const struct gn_shadow_key *key)
{
	struct gn_shadow_page *page = *bucket_of(s, key->gfn);

	while (page && !gn_shadow_key_equal(&page->key, key))
		page = page->chain;
	return page;
}

static struct gn_shadow_page *skip_others(struct gn_shadow_page *page, gfn_t at)
{
	while (page && (!page->is_hashed || page->key.gfn.v != at.v || page->key.role.direct))
		page = page->chain;
	return page;
}

struct gn_shadow_page *gn_shadow_page_first(struct gn_shadow *s, gfn_t at)
{
	return skip_others(*bucket_of(s, at), at);
}

struct gn_shadow_page *gn_shadow_page_next(struct gn_shadow_page *page)
{
	return skip_others(page->chain, page->key.gfn);
}

/* ---- Beginning and end ------------------------------------------------------------------------------- */

/* The standing of the gfn once @page is one of its shadows. */
static void track(struct gn_shadow *s, struct gn_shadow_page *page)
{
	gfn_t at = page->key.gfn;

	if (page->key.role.level == 1 && (gn_rmap_marks(s, at) & GN_RMAP_UNSYNC)) {
		page->is_unsync = true;
		return;
	}
	page->protect_seq = gn_rmap_set_standing(s, at, GN_RMAP_TRACKED);
}

struct gn_shadow_page *gn_shadow_page_take(struct gn_shadow *s, struct gn_shadow_reserve *reserve,
					   const struct gn_shadow_key *key, bool hash)
{
	struct gn_shadow_page *page = reserve->page[--reserve->page_count];

	page->key = *key;
	page->used = true;
	gn_shadow_page_set_reserved(s, page);
	if (gn_shadow_key_needs_gfns(key))
		page->gfns = reserve->gfns[--reserve->gfns_count];
	*owner_of(s, page->table) = page;
	gn_shadow_list_append(&s->pages, &page->link);
	s->page_count++;
	if (hash) {
		/* An upper level of a table that level-1 pages let go unsync: those end. */
		if (!key->role.direct && key->role.level > 1 &&
		    (gn_rmap_marks(s, key->gfn) & GN_RMAP_UNSYNC))
			gn_shadow_unshadow(s, key->gfn);
		if (!key->role.direct)
			track(s, page);
		hash_insert(s, page);
	}
	return page;
}

static void unlink_parents(struct gn_shadow *s, struct gn_shadow_page *page)
{
	while (!gn_slots_is_empty(&page->parents)) {
		uint64_t *slot = gn_slots_last(&page->parents);

		gn_shadow_entry_drop(s, gn_shadow_page_of_slot(s, slot),
				     gn_shadow_slot_index(slot));
	}
}

static void unhash(struct gn_shadow *s, struct gn_shadow_page *page)
{
	hash_remove(s, page);
	if (!page->key.role.direct && !gn_shadow_page_first(s, page->key.gfn))
		gn_rmap_set_standing(s, page->key.gfn, 0);
}

bool gn_shadow_is_reserved(const struct gn_shadow *s, const struct gn_shadow_page *page,
			   unsigned index)
{
	return GN_UNLIKELY(index == s->reserved_index) && gn_shadow_role_is_top(page->key.role);
}

void gn_shadow_page_set_reserved(struct gn_shadow *s, struct gn_shadow_page *page)
{
	const struct gn_root_slot *slot = &s->vm->root_slot;
	unsigned level = page->key.role.level;
	struct gn_entry_change change;

	if (GN_LIKELY(!gn_shadow_is_reserved(s, page, slot->index)))
		return;
	change = gn_entry_set(s->vm, s->fmt, level, &page->entries[slot->index],
			      level == 5 ? slot->entry5 : slot->entry4);
	s->flush_due |= change.must_flush;
}

void gn_shadow_page_empty(struct gn_shadow *s, struct gn_shadow_page *page)
{
	for (unsigned i = 0; page->present_count && i < GN_TABLE_ENTRIES; i++)
		if (gn_fmt_is_present(s->fmt, page->key.role.level,
				      gn_entry_get(&page->entries[i])))
			gn_shadow_entry_drop(s, page, i);
	GN_BUG_ON(page->present_count);
	memset(page->unsync_below, 0, sizeof(page->unsync_below));
	page->is_unsync = false;
}

void gn_shadow_page_doom(struct gn_shadow *s, struct gn_shadow_page *page)
{
	if (page->is_doomed || page->live_refs || page->cache_refs)
		return;
	page->is_doomed = true;
	*owner_of(s, page->table) = NULL;
	gn_shadow_list_remove(&page->link);
	s->page_count--;
	gn_shadow_list_append(&s->doomed, &page->link);
	/* Walk caches may point into it. */
	s->flush_due = true;
}

void gn_shadow_page_zap(struct gn_shadow *s, struct gn_shadow_page *page)
{
	if (page->is_doomed)
		return;
	if (page->is_hashed)
		unhash(s, page);
	unlink_parents(s, page);
	if (page->is_doomed) /* a direct page dies with its last parent */
		return;
	gn_shadow_page_empty(s, page);
	if (page->cache_refs)
		gn_shadow_roots_forget(s, page);
	gn_shadow_page_doom(s, page);
}

void gn_shadow_pages_bury(struct gn_shadow *s)
{
	while (!gn_shadow_list_is_empty(&s->doomed)) {
		struct gn_shadow_page *page = (struct gn_shadow_page *)s->doomed.next;

		gn_shadow_list_remove(&page->link);
		page_free(s, page);
	}
}

int gn_shadow_pages_init(struct gn_shadow *s)
{
	s->owner_chunk_count =
		(s->vm->frames->frame_count + GN_TABLE_ENTRIES - 1) / GN_TABLE_ENTRIES;
	s->owners = gn_arena_zalloc(arena_of(s), s->owner_chunk_count * sizeof(*s->owners));
	if (!s->owners)
		return -ENOMEM;
	s->bucket_count = FIRST_BUCKETS;
	s->buckets = gn_arena_zalloc(arena_of(s), FIRST_BUCKETS * sizeof(struct gn_shadow_page *));
	if (!s->buckets) {
		gn_arena_free(arena_of(s), s->owners, s->owner_chunk_count * sizeof(*s->owners));
		return -ENOMEM;
	}
	gn_shadow_list_init(&s->pages);
	gn_shadow_list_init(&s->doomed);
	return 0;
}

void gn_shadow_pages_fini(struct gn_shadow *s)
{
	for (size_t i = 0; i < s->owner_chunk_count; i++)
		gn_arena_free(arena_of(s),
			      atomic_load_explicit(&s->owners[i], memory_order_relaxed),
			      CHUNK_BYTES);
	gn_arena_free(arena_of(s), s->owners, s->owner_chunk_count * sizeof(*s->owners));
	gn_arena_free(arena_of(s), s->buckets, s->bucket_count * sizeof(struct gn_shadow_page *));
}
