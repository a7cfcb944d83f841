/* SPDX-License-Identifier: MIT */
/*
 * match.c - a page that stands still looks for its like.
 *
 * Three things may be under its tag. Nothing: it becomes a candidate itself. A frame: the page will take it. Another candidate:
 * that one will be published, and the page takes its frame. In quiet mode there are no candidates: a page without its like
 * is published at once, and nobody can tell it from one that was merged.
 *
 * Candidates are not told when they are written. Whoever finds one asks its scanner whether it is current, and one that is not
 * is overwritten. Those that nobody finds are found by cleaning (gn_match_give_up()), as are frames whose users have all left
 * but one: to keep such a frame would make the last one's write cost a copy and save nothing.
 *
 * Different pages with one tag are rare and cost time when they meet: the page that was found to differ is offered again,
 * carefully, and is then compared with each page of its tag where it lies, before anything is protected. So are pages that
 * find several under their tag. It is a filter like the tag; what counts is the engine's comparison.
 *
 * Lines of the index are asked for sixteen pages ahead. That the compiler leaves those fetches in is seen in the assembly.
 */
#include <string.h>

#include "domain_impl.h"

#define AHEAD	   16
#define PAGE_WORDS (GN_PAGE_SIZE / sizeof(uint64_t))

/* ---- Entries --------------------------------------------------------------------------------------- */

/* The member a candidate is of; NULL: it is not current any more. */
static struct gn_member *member_of(const struct gn_domain *d, uint64_t value)
{
	struct gn_member *m = d->members[gn_entry_vm_of(value)];

	if (m && !gn_scanner_is_current(m->scanner, gfn(gn_entry_number_of(value)),
					gn_entry_check_of(value)))
		m = NULL;
	return m;
}

static pfn_t frame_of(const struct gn_index_entry *e)
{
	return pfn(gn_entry_number_of(e->value));
}

void gn_match_put_freed(struct gn_domain *d)
{
	gn_frames_put_runs(d->frames, d->freed, d->freed_count);
	d->freed_count = 0;
}

static void let_go(struct gn_domain *d, pfn_t frame)
{
	if (d->freed_count == sizeof(d->freed) / sizeof(d->freed[0]))
		gn_match_put_freed(d);
	d->freed[d->freed_count++] =
		(struct gn_frame_run){ .first = frame, .count = 1, .to_host = true };
	d->frame_entries--;
}

void gn_match_erase_frame(struct gn_domain *d, struct gn_index_entry *entry)
{
	let_go(d, frame_of(entry));
	gn_index_erase(&d->index, entry);
}

bool gn_match_give_up(void *domain, const struct gn_index_entry *entry)
{
	struct gn_domain *d = (struct gn_domain *)domain;
	const uint32_t worthless = d->config.quiet ? 1 : 2;

	switch (gn_entry_kind_of(entry->value)) {
	case GN_ENTRY_CANDIDATE:
		return !member_of(d, entry->value);
	case GN_ENTRY_FRAME:
		if (d->is_gathering || gn_frames_refs(d->frames, frame_of(entry)) > worthless)
			return false;
		let_go(d, frame_of(entry));
		d->sums.frames_given_up++;
		return true;
	default:
		return false;
	}
}

/* What it looks at lies anywhere. */
void gn_match_soon(const void *domain, const struct gn_index_entry *entry)
{
	const struct gn_domain *d = (const struct gn_domain *)domain;
	const struct gn_member *m;

	if (gn_entry_kind_of(entry->value) == GN_ENTRY_FRAME) {
		gn_frames_prefetch_refs(d->frames, frame_of(entry));
	} else if (gn_entry_kind_of(entry->value) == GN_ENTRY_CANDIDATE) {
		m = d->members[gn_entry_vm_of(entry->value)];
		if (m)
			gn_scanner_prefetch(m->scanner, gfn(gn_entry_number_of(entry->value)));
	}
}

/* ---- Comparing where they lie ------------------------------------------------------------------------ */

static const void *contents_of(const struct gn_domain *d, const struct gn_index_entry *e)
{
	const uint64_t number = gn_entry_number_of(e->value);
	const struct gn_donor *donor;

	switch (gn_entry_kind_of(e->value)) {
	case GN_ENTRY_CANDIDATE:
		return gn_p2m_pointer(d->members[gn_entry_vm_of(e->value)]->vm,
				      gfn_to_gpa(gfn(number)));
	case GN_ENTRY_PENDING:
		donor = &d->gathering->donors[number];
		return gn_p2m_pointer(d->members[donor->member]->vm, gfn_to_gpa(donor->at));
	default:
		return gn_frames_at(d->frames, pfn_to_hpa(pfn(number)));
	}
}

/* While guests write: ThreadSanitizer need not tell. */
__attribute__((no_sanitize("thread"))) static bool is_equal(const uint64_t *a, const uint64_t *b)
{
	uint64_t differs = 0;

	for (unsigned i = 0; i < PAGE_WORDS && !differs; i++)
		differs = __atomic_load_n(&a[i], __ATOMIC_RELAXED) ^
			  __atomic_load_n(&b[i], __ATOMIC_RELAXED);
	return !differs;
}

static bool seems_equal(const struct gn_member *m, gfn_t at, const struct gn_index_entry *e)
{
	const void *a, *b;
	bool equal;

	gn_rcu_read_lock();
	a = gn_p2m_pointer(m->vm, gfn_to_gpa(at));
	b = contents_of(m->domain, e);
	equal = a && b && is_equal((const uint64_t *)a, (const uint64_t *)b);
	gn_rcu_read_unlock();
	return equal;
}

/* ---- Finding ----------------------------------------------------------------------------------------- */

/* The next that is not the page's own and not stale. */
static struct gn_index_entry *next_other(struct gn_member *m, const struct gn_offer *offer,
					 struct gn_index_entry *last, bool *is_known)
{
	struct gn_domain *d = m->domain;
	struct gn_index_entry *e = last;

	while ((e = gn_index_next(&d->index, offer->tag.bits, e))) {
		if (gn_entry_kind_of(e->value) != GN_ENTRY_CANDIDATE)
			return e;
		if (!member_of(d, e->value)) {
			gn_index_erase(&d->index, e);
			d->sums.pages_stale++;
		} else if (gn_entry_vm_of(e->value) == m->number &&
			   gn_entry_number_of(e->value) == offer->at.v) {
			*is_known = true;
		} else {
			return e;
		}
	}
	return NULL;
}

struct gn_index_entry *gn_match_find(struct gn_member *m, const struct gn_offer *offer,
				     bool *is_known)
{
	struct gn_index_entry *e, *second;

	*is_known = false;
	e = next_other(m, offer, NULL, is_known);
	if (!e)
		return NULL;
	second = next_other(m, offer, e, is_known);
	if (!second && !offer->is_careful)
		return e;
	while (e && !seems_equal(m, offer->at, e)) {
		e = second;
		second = e ? next_other(m, offer, e, is_known) : NULL;
	}
	return e;
}

static struct gn_index_entry *insert(struct gn_member *m, const struct gn_offer *offer)
{
	struct gn_domain *d = m->domain;
	uint64_t value =
		gn_entry_value(GN_ENTRY_CANDIDATE, m->number, offer->at.v, offer->tag.check);
	struct gn_index_entry *entry;

	if (!gn_index_insert(&d->index, offer->tag.bits, value, gn_match_give_up, d, &entry))
		return entry;
	d->sums.index_full++;
	return NULL;
}

void gn_match_insert(struct gn_member *m, const struct gn_offer *offer)
{
	insert(m, offer);
}

void gn_match_offer(struct gn_member *m, const struct gn_offer *offer)
{
	struct gn_domain *d = m->domain;
	struct gn_index_entry *e;
	bool is_known;

	gn_gather_make_room(m, offer->at);
	e = gn_match_find(m, offer, &is_known);
	if (e && gn_blocks_is_out_of_reach(d, e)) {
		if (!is_known)
			gn_blocks_insert_beside(m, offer);
		return;
	}
	if (e) {
		if (gn_entry_kind_of(e->value) == GN_ENTRY_CANDIDATE)
			gn_gather_donor(d, e);
		gn_gather_taker(d, e, offer);
		return;
	}
	if (is_known)
		return;
	e = insert(m, offer);
	if (e && d->config.quiet)
		gn_gather_donor(d, e);
}

void gn_match_offers(void *ctx, struct gn_scanner *scanner, const struct gn_offer *offers,
		     size_t count, bool is_block)
{
	struct gn_member *m = (struct gn_member *)ctx;
	const struct gn_index *index = &m->domain->index;

	(void)scanner;
	gn_domain_tell_step(m->domain, GN_STEP_HASHED);
	if (is_block) {
		gn_blocks_offers(m, offers);
		return;
	}
	for (size_t i = 0; i < count && i < AHEAD; i++)
		gn_index_prefetch(index, offers[i].tag.bits);
	for (size_t i = 0; i < count; i++) {
		if (i + AHEAD < count)
			gn_index_prefetch(index, offers[i + AHEAD].tag.bits);
		gn_match_offer(m, &offers[i]);
	}
}
