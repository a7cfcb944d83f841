/* SPDX-License-Identifier: MIT */
/*
 * audit.c - the proof that no frame crosses: every reference is counted.
 *
 * A frame's references are its pages' and its index's. So: go over all words of the p2m of all VMs of a domain, and all entries of its index,
 * count what they refer to, and hold the counts against those the pool keeps. Whoever else had one of the frames (a VM of
 * another domain, a leak, a page that was forgotten) would make the pool's count the larger one. The domains that have one
 * pool are counted side by side, each frame belonging to the first that refers to it.
 *
 * What waits for a grace period is still referenced, and is waited for first. It works from nothing that sharing believes: neither
 * the states of the scanners nor the statistics.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "domain_impl.h"
#include "mmu/arena.h"

struct tally {
	uint32_t references;
	uint32_t owner; /* a domain's number + 1; 0: nobody's yet */
};

struct proof {
	struct gn_frames *frames;
	struct tally *tallies; /* by frame */
	uint32_t owner;	       /* the domain whose references are counted now */
	struct gn_audit_report *report;
};

__attribute__((format(printf, 2, 3))) static void violate(struct gn_audit_report *report,
							  const char *format, ...)
{
	va_list args;

	if (report->violations++)
		return;
	va_start(args, format);
	vsnprintf(report->first, sizeof(report->first), format, args);
	va_end(args);
}

static void count_reference(struct proof *p, pfn_t frame, const char *whose, uint64_t number)
{
	struct tally *t;

	p->report->entries++;
	if (!gn_frames_valid(p->frames, frame)) {
		violate(p->report, "domain %u: %s %#llx has a frame that does not exist: %#llx",
			p->owner - 1, whose, (unsigned long long)number,
			(unsigned long long)frame.v);
		return;
	}
	t = &p->tallies[frame.v];
	if (!t->owner)
		t->owner = p->owner;
	if (t->owner != p->owner)
		violate(p->report, "frame %#llx is in domain %u and in domain %u (%s %#llx)",
			(unsigned long long)frame.v, t->owner - 1, p->owner - 1, whose,
			(unsigned long long)number);
	t->references++;
}

static void count_vm(struct proof *p, struct gn_vm *vm)
{
	gn_retire_drain(vm);
	for (uint64_t i = 0; i < vm->p2m.gfn_count; i++) {
		p2m_word_t w = gn_p2m_get(&vm->p2m, gfn(i));

		if (!gn_p2m_word_has_frame(w))
			continue;
		count_reference(p, gn_p2m_word_pfn(w), "gfn", i);
		if (gn_p2m_word_state(w) != GN_P2M_SHARED &&
		    gn_frames_refs(p->frames, gn_p2m_word_pfn(w)) > 1)
			violate(p->report,
				"domain %u: gfn %#llx is not shared, and its frame %#llx is",
				p->owner - 1, (unsigned long long)i,
				(unsigned long long)gn_p2m_word_pfn(w).v);
	}
}

static void count_entry(void *proof, struct gn_index_entry *e)
{
	struct proof *p = (struct proof *)proof;

	if (gn_entry_kind_of(e->value) == GN_ENTRY_FRAME)
		count_reference(p, pfn(gn_entry_number_of(e->value)), "tag", e->tag);
}

static void count_domain(struct proof *p, struct gn_domain *d)
{
	for (unsigned i = 0; i < d->member_end; i++)
		if (d->members[i])
			count_vm(p, d->members[i]->vm);
	gn_index_visit(&d->index, count_entry, p);
}

static void compare_counts(struct proof *p)
{
	for (uint64_t i = 0; i < p->frames->frame_count; i++) {
		uint32_t references = gn_frames_refs(p->frames, pfn(i));

		if (!p->tallies[i].references)
			continue;
		p->report->tables++;
		if (references != p->tallies[i].references)
			violate(p->report,
				"domain %u: frame %#llx has %u references, and %u users are known",
				p->tallies[i].owner - 1, (unsigned long long)i, references,
				p->tallies[i].references);
	}
}

/* All of @domains that have the pool of domains[@first]. */
static int prove_pool(struct gn_domain *const *domains, size_t count, size_t first,
		      struct gn_audit_report *report)
{
	struct proof p = { .frames = domains[first]->frames, .report = report };

	p.tallies =
		gn_alloc_should_fail() ? NULL : calloc(p.frames->frame_count, sizeof(p.tallies[0]));
	if (!p.tallies)
		return -ENOMEM;
	for (size_t i = first; i < count; i++) {
		if (domains[i]->frames != p.frames)
			continue;
		p.owner = (uint32_t)i + 1;
		pthread_mutex_lock(&domains[i]->lock);
		count_domain(&p, domains[i]);
		pthread_mutex_unlock(&domains[i]->lock);
	}
	compare_counts(&p);
	free(p.tallies);
	return 0;
}

static bool has_earlier_one(struct gn_domain *const *domains, size_t i)
{
	for (size_t k = 0; k < i; k++)
		if (domains[k]->frames == domains[i]->frames)
			return true;
	return false;
}

int gn_domain_audit(struct gn_domain *const *domains, size_t count, struct gn_audit_report *report)
{
	*report = (struct gn_audit_report){ 0 };
	for (size_t i = 0; i < count; i++) {
		int err = has_earlier_one(domains, i) ? 0 : prove_pool(domains, count, i, report);

		if (err)
			return err;
	}
	return report->violations ? -EBADMSG : 0;
}
