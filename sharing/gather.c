/* SPDX-License-Identifier: MIT */
/*
 * gather.c - pages that were found equal are gathered, and carried out together.
 *
 * The engine publishes and merges many pages by one change, with one wait, and wants them in ascending order. Takers come in
 * that order, for a VM is scanned that way; donors are anyone's, and are sorted by VM and place. First all donors are
 * published: from then on their frames stand still. Then the takers are merged, i.e. compared and given the frame.
 *
 * What can go wrong in between, and what becomes of it. A donor was written, or left: its frame, or none, is found not
 * to be equal. A taker was written: the same. Who differed is offered again, carefully; a donor nobody took is given up, and offered
 * again as well. A frame that a page differed from is hashed: is it what its entry says it is? It may be not, for it was
 * hashed while its guest could write.
 *
 * It may stay gathered from one scan to the next; whatever else is asked of the domain, that is carried out first.
 *
 * While anything is gathered the index is pointed into: no frame is given up, and nothing is cleaned.
 */
#include <errno.h>
#include <stdlib.h>

#include "domain_impl.h"

void gn_gather_make_room(struct gn_member *m, gfn_t at)
{
	struct gn_gathering *g = m->domain->gathering;

	if (g->taker_count == GN_GATHER_PAGES || g->donor_count == GN_GATHER_PAGES ||
	    (g->taker_count && g->takers[g->taker_count - 1].at.v >= at.v))
		gn_gather_carry_out(m);
}

void gn_gather_donor(struct gn_domain *d, struct gn_index_entry *entry)
{
	struct gn_gathering *g = d->gathering;
	struct gn_donor *donor = &g->donors[g->donor_count];

	*donor = (struct gn_donor){ .entry = entry,
				    .member = gn_entry_vm_of(entry->value),
				    .at = gfn(gn_entry_number_of(entry->value)),
				    .check = gn_entry_check_of(entry->value) };
	entry->value = gn_entry_value(GN_ENTRY_PENDING, 0, g->donor_count++, 0);
	d->is_gathering = true;
}

void gn_gather_taker(struct gn_domain *d, struct gn_index_entry *entry,
		     const struct gn_offer *offer)
{
	struct gn_gathering *g = d->gathering;
	const bool is_pending = gn_entry_kind_of(entry->value) == GN_ENTRY_PENDING;

	g->takers[g->taker_count++] = (struct gn_taker){
		.entry = entry,
		.donor = is_pending ? &g->donors[gn_entry_number_of(entry->value)] : NULL,
		.at = offer->at,
		.is_careful = offer->is_careful
	};
	d->is_gathering = true;
}

/* ---- Donors ---------------------------------------------------------------------------------------- */

/* By VM and place: what the engine wants. The key in one word is faster to compare than two fields. */
struct donor_key {
	uint64_t place;
	uint32_t donor;
};

static int by_place(const void *a, const void *b)
{
	const uint64_t x = ((const struct donor_key *)a)->place,
		       y = ((const struct donor_key *)b)->place;

	return (x > y) - (x < y);
}

static void sort_donors(struct gn_gathering *g)
{
	struct donor_key keys[GN_GATHER_PAGES];
	bool is_sorted = true;

	for (size_t i = 0; i < g->donor_count; i++) {
		keys[i].place =
			(uint64_t)g->donors[i].member << GN_ENTRY_NUMBER_BITS | g->donors[i].at.v;
		keys[i].donor = (uint32_t)i;
		is_sorted &= !i || keys[i - 1].place < keys[i].place;
	}
	if (!is_sorted)
		qsort(keys, g->donor_count, sizeof(keys[0]), by_place);
	for (size_t i = 0; i < g->donor_count; i++)
		g->order[i] = keys[i].donor;
}

static void settle_donor(struct gn_domain *d, struct gn_donor *donor, const struct gn_merge *merge)
{
	struct gn_member *m = d->members[donor->member];

	if (merge->result) {
		gn_index_erase(&d->index, donor->entry);
		d->sums.pages_busy++;
		if (merge->result == -EINVAL || merge->result == -ENOMEM)
			gn_scanner_reoffer(m->scanner, donor->at, false);
		return;
	}
	donor->is_published = true;
	donor->entry->value = gn_entry_value(GN_ENTRY_FRAME, 0, merge->frame.v, donor->check);
	d->frame_entries++;
	d->sums.pages_published++;
	gn_scanner_set_shared(m->scanner, donor->at);
	gn_blocks_note_small(m, donor->at);
}

/* The donors order[first..end) are one VM's. One page may be there twice, found by what it holds and by what it held before, for its
 * check can be the same: then one entry is wrong, nobody knows which, and the second goes. */
static void publish_run(struct gn_domain *d, size_t first, size_t end)
{
	struct gn_gathering *g = d->gathering;
	struct gn_member *m = d->members[g->donors[g->order[first]].member];
	size_t count = 0;
	int err;

	for (size_t i = first; i < end; i++) {
		struct gn_donor *donor = &g->donors[g->order[i]];

		if (count && g->merges[count - 1].at.v == donor->at.v) {
			settle_donor(d, donor, &(const struct gn_merge){ .result = -EBUSY });
			continue;
		}
		g->order[first + count] = g->order[i];
		g->merges[count++] = (struct gn_merge){ .at = donor->at };
	}
	err = gn_p2m_publish(m->vm, g->merges, count, d->access);
	for (size_t i = 0; i < count; i++) {
		g->merges[i].result = err ? err : g->merges[i].result;
		settle_donor(d, &g->donors[g->order[first + i]], &g->merges[i]);
	}
}

static void publish(struct gn_domain *d)
{
	struct gn_gathering *g = d->gathering;

	sort_donors(g);
	for (size_t first = 0, end; first < g->donor_count; first = end) {
		const unsigned member = g->donors[g->order[first]].member;

		for (end = first + 1;
		     end < g->donor_count && g->donors[g->order[end]].member == member; end++)
			;
		publish_run(d, first, end);
	}
}

/* ---- Takers ---------------------------------------------------------------------------------------- */

/* A page differed from that frame: does the frame have the tag it is found by? */
static bool has_its_tag(const struct gn_domain *d, const struct gn_index_entry *e)
{
	const void *page = gn_frames_at(d->frames, pfn_to_hpa(pfn(gn_entry_number_of(e->value))));

	return gn_hasher_tag(&d->hasher, page).bits == e->tag;
}

static void settle_taker(struct gn_member *m, const struct gn_taker *taker,
			 const struct gn_merge *merge)
{
	struct gn_domain *d = m->domain;

	switch (merge->result) {
	case 0:
		gn_scanner_set_shared(m->scanner, taker->at);
		gn_blocks_note_small(m, taker->at);
		if (taker->donor)
			taker->donor->was_taken = true;
		break;
	case -EAGAIN:
		d->sums.pages_differed++;
		gn_scanner_reoffer(m->scanner, taker->at, true);
		break;
	case -EBUSY: /* until it is written */
		d->sums.pages_busy++;
		break;
	default:
		d->sums.pages_busy++;
		gn_scanner_reoffer(m->scanner, taker->at, false);
	}
}

/* Entries whose frame is not what they say, found by who differed. Only once all takers were settled: several may point to one. */
static void erase_wrong(struct gn_domain *d, size_t count)
{
	struct gn_gathering *g = d->gathering;

	for (size_t i = 0; i < count; i++) {
		struct gn_index_entry *e = g->takers[g->order[i]].entry;

		if (g->merges[i].result == -EAGAIN &&
		    gn_entry_kind_of(e->value) == GN_ENTRY_FRAME && !has_its_tag(d, e))
			gn_match_erase_frame(d, e);
	}
}

static void merge(struct gn_member *m)
{
	struct gn_domain *d = m->domain;
	struct gn_gathering *g = d->gathering;
	uint64_t merged = 0;
	size_t count = 0;
	int err;

	for (size_t i = 0; i < g->taker_count; i++) {
		const struct gn_taker *taker = &g->takers[i];

		if (gn_entry_kind_of(taker->entry->value) != GN_ENTRY_FRAME) {
			gn_scanner_reoffer(m->scanner, taker->at, taker->is_careful);
			continue; /* its donor left */
		}
		g->order[count] = (uint32_t)i;
		g->merges[count++] =
			(struct gn_merge){ .at = taker->at,
					   .frame = pfn(gn_entry_number_of(taker->entry->value)) };
	}
	err = gn_p2m_merge(m->vm, g->merges, count, d->access, &merged);
	d->sums.pages_merged += merged;
	for (size_t i = 0; i < count; i++) {
		g->merges[i].result = err ? err : g->merges[i].result;
		settle_taker(m, &g->takers[g->order[i]], &g->merges[i]);
	}
	erase_wrong(d, count);
}

/* Donors nobody took save nothing. */
static void give_up_donors(struct gn_domain *d)
{
	struct gn_gathering *g = d->gathering;

	for (size_t i = 0; i < g->donor_count; i++) {
		struct gn_donor *donor = &g->donors[i];

		if (!donor->is_published || donor->was_taken ||
		    gn_entry_kind_of(donor->entry->value) != GN_ENTRY_FRAME)
			continue;
		gn_match_erase_frame(d, donor->entry);
		gn_scanner_reoffer(d->members[donor->member]->scanner, donor->at, false);
	}
}

void gn_gather_carry_out(struct gn_member *m)
{
	struct gn_domain *d = m->domain;

	if (!d->is_gathering)
		return;
	gn_domain_tell_step(d, GN_STEP_PUBLISHING);
	publish(d);
	gn_domain_tell_step(d, GN_STEP_MERGING);
	merge(m);
	if (!d->config.quiet)
		give_up_donors(d);
	d->gathering->donor_count = 0;
	d->gathering->taker_count = 0;
	d->is_gathering = false;
	gn_match_put_freed(d);
	gn_domain_tell_step(d, GN_STEP_MERGED);
}
