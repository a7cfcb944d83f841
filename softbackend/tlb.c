/* SPDX-License-Identifier: MIT */
/*
 * tlb.c - making and emptying a TLB.
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
	t->of[0] = &t->array[0];
	for (unsigned level = 1; level <= GN_TLB_LEVELS; level++) {
		t->of[level] = &t->array[shape->home[level]];
		t->level_of[level] = t->of[level]->ways ? (uint8_t)level : t->level_of[level - 1];
		if (gn_assoc_is_narrow(t->of[level]) && !(level == 1 && t->also_4k))
			t->quick |= (uint8_t)(1u << level);
	}
	return 0;
}

void gn_tlb_fini(struct gn_tlb *t)
{
	for (unsigned i = 0; i < 3; i++)
		gn_assoc_fini(&t->array[i]);
	memset(t->live, 0, sizeof(t->live));
	t->present = t->last = t->hot = 0;
}

static void count_out(void *ctx, uint64_t key)
{
	struct gn_tlb *t = (struct gn_tlb *)ctx;
	unsigned level = (key >> GN_KEY_LEVEL_SHIFT) & 3;

	if (!--t->live[level])
		t->present &= (uint8_t) ~(1u << level);
}

void gn_tlb_recount(struct gn_tlb *t, unsigned level, uint64_t replaced)
{
	if (replaced)
		count_out(t, replaced);
	t->live[level]++;
	t->present |= (uint8_t)(1u << level);
}

/* Where @address would be in a page of @level. */
static void locate(struct gn_tlb *t, uint64_t address, uint64_t tag, unsigned level,
		   struct gn_tlb_place *p)
{
	struct gn_assoc *a = t->of[level];

	if (t->also_4k && level == 1 && ((gn_tlb_page(address, level) >> a->set_bits) & 1))
		a = &t->array[1];
	gn_tlb_locate(a, address, tag, level, p);
}

static void note_use(struct gn_tlb *t, unsigned level)
{
	t->last = (uint8_t)level;
	t->hot = (t->quick >> level) & 1 ? (uint8_t)level : 0;
}

static struct gn_assoc_entry *find_at(struct gn_tlb *t, uint64_t address, uint64_t tag,
				      unsigned level, struct gn_tlb_place *p)
{
	struct gn_tlb_place there;
	struct gn_assoc_entry *e;

	if (!((t->present >> level) & 1))
		return NULL;
	locate(t, address, tag, level, &there);
	e = gn_assoc_get(there.array, &there.at);
	if (!e)
		return NULL;
	note_use(t, level);
	*p = there;
	return e;
}

struct gn_assoc_entry *gn_tlb_find_other(struct gn_tlb *t, uint64_t address, uint64_t tag,
					 struct gn_tlb_place *p)
{
	const unsigned last = t->last;
	struct gn_assoc_entry *e = last == t->hot ? NULL : find_at(t, address, tag, last, p);

	for (unsigned level = 1; level <= GN_TLB_LEVELS && !e; level++)
		if (level != last)
			e = find_at(t, address, tag, level, p);
	return e;
}

struct gn_assoc_entry *gn_tlb_insert_other(struct gn_tlb *t, uint64_t address, uint64_t tag,
					   bool is_global, unsigned kept)
{
	struct gn_tlb_place p;
	struct gn_assoc_entry *e;
	uint64_t replaced;

	locate(t, address, tag, kept, &p);
	p.at.key |= is_global ? GN_KEY_GLOBAL : 0;
	e = gn_assoc_put(p.array, &p.at, &replaced);
	gn_tlb_recount(t, kept, replaced);
	note_use(t, kept);
	return e;
}

void gn_tlb_drop(struct gn_tlb *t, uint64_t address, uint64_t tag)
{
	for (unsigned level = 1; level <= GN_TLB_LEVELS; level++) {
		struct gn_tlb_place p;

		while ((t->present >> level) & 1) {
			int way;

			locate(t, address, tag, level, &p);
			way = gn_assoc_find(p.array, &p.at);
			if (way < 0)
				break;
			gn_assoc_drop(p.array, p.at.set, (unsigned)way);
			count_out(t, p.at.key);
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
		gn_assoc_clear(&t->array[i]);
	memset(t->live, 0, sizeof(t->live));
	t->present = 0;
}

void gn_tlb_forget_decisions(struct gn_tlb *t)
{
	for (unsigned i = 0; i < 3; i++)
		gn_assoc_clear_meta(&t->array[i], GN_TLB_DECISIONS);
}
