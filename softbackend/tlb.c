/* SPDX-License-Identifier: MIT */
/*
 * tlb.c - filling and emptying a TLB.
 */
#include "tlb.h"

#include <string.h>

int gn_tlb_init(struct gn_tlb *t, const struct gn_tlb_shape *shape)
{
	int err = 0;

	memset(t, 0, sizeof(*t));
	for (unsigned i = 0; i < 3 && !err; i++)
		err = gn_assoc_init(&t->array[i], shape->entries[i], shape->ways[i]);
	if (err) {
		gn_tlb_fini(t);
		return err;
	}
	t->also_4k = shape->also_4k && t->array[0].ways && t->array[1].ways;
	t->hot = 1;
	for (unsigned level = 1; level <= GN_TLB_LEVELS; level++) {
		bool exists = t->array[shape->home[level]].ways != 0;

		t->home[level] = shape->home[level];
		t->level_of[level] = exists ? (uint8_t)level : t->level_of[level - 1];
	}
	return 0;
}

void gn_tlb_fini(struct gn_tlb *t)
{
	for (unsigned i = 0; i < 3; i++)
		gn_assoc_fini(&t->array[i]);
	memset(t->live, 0, sizeof(t->live));
	t->present = 0;
}

static void count_out_level(struct gn_tlb *t, unsigned level)
{
	if (!--t->live[level])
		t->present &= (uint8_t) ~(1u << level);
}

static void count_out(void *ctx, uint64_t key)
{
	count_out_level((struct gn_tlb *)ctx, (key >> GN_KEY_LEVEL_SHIFT) & 3);
}

struct gn_assoc_entry *gn_tlb_find_other(struct gn_tlb *t, uint64_t address, uint64_t tag,
					 unsigned *level)
{
	for (unsigned other = 1; other <= GN_TLB_LEVELS; other++) {
		struct gn_assoc_entry *e;

		if (other == t->hot || !((t->present >> other) & 1))
			continue;
		e = gn_tlb_find_level(t, address, tag, other);
		if (e) {
			t->hot = (uint8_t)other;
			*level = other;
			return e;
		}
	}
	return NULL;
}

struct gn_assoc_entry *gn_tlb_insert(struct gn_tlb *t, uint64_t address, uint64_t tag,
				     bool is_global, unsigned *level)
{
	unsigned kept = t->level_of[*level];
	uint64_t page, replaced;
	struct gn_assoc_entry *e;

	if (!kept)
		return NULL;
	page = gn_tlb_page(address, kept);
	e = gn_assoc_insert(gn_tlb_array(t, kept, page), page,
			    gn_tlb_key(page, kept, tag) | (is_global ? GN_KEY_GLOBAL : 0),
			    &replaced);
	if (replaced)
		count_out(t, replaced);
	t->live[kept]++;
	t->present |= (uint8_t)(1u << kept);
	t->hot = (uint8_t)kept;
	*level = kept;
	return e;
}

void gn_tlb_drop(struct gn_tlb *t, uint64_t address, uint64_t tag)
{
	for (unsigned level = 1; level <= GN_TLB_LEVELS; level++) {
		uint64_t page = gn_tlb_page(address, level);
		struct gn_assoc *a = gn_tlb_array(t, level, page);
		uint64_t key = gn_tlb_key(page, level, tag);

		while (t->live[level] && a->ways) {
			struct gn_assoc_slot s = gn_assoc_slot(a, page);
			int way = gn_assoc_find(a, &s, key);

			if (way < 0)
				break;
			gn_assoc_drop(a, &s, (unsigned)way);
			count_out_level(t, level);
		}
	}
}

static void drop_matching(struct gn_tlb *t, uint64_t mask, uint64_t match)
{
	for (unsigned i = 0; i < 3; i++)
		gn_assoc_drop_matching(&t->array[i], mask, match, count_out, t);
}

void gn_tlb_drop_tag(struct gn_tlb *t, uint64_t tag)
{
	drop_matching(t, GN_KEY_GLOBAL | GN_KEY_TAG_MASK, tag);
}

void gn_tlb_drop_nonglobal(struct gn_tlb *t)
{
	drop_matching(t, GN_KEY_GLOBAL, 0);
}

void gn_tlb_clear(struct gn_tlb *t)
{
	for (unsigned i = 0; i < 3; i++)
		if (t->array[i].used)
			gn_assoc_clear(&t->array[i]);
	memset(t->live, 0, sizeof(t->live));
	t->present = 0;
}

void gn_tlb_forget_decisions(struct gn_tlb *t)
{
	for (unsigned i = 0; i < 3; i++)
		gn_assoc_forget_decisions(&t->array[i]);
}
