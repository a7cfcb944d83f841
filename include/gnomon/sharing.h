/* SPDX-License-Identifier: MIT */
/*
 * sharing.h - content-based page sharing: pages of VMs that hold the same bytes have one frame.
 *
 * A *domain* is a set of VMs that may share frames; nothing ever crosses from one domain to another. An embedder makes a pool of
 * frames (gn_frames_new()), VMs over it (gn_vm_config.frames) and a domain over the same pool, adds the VMs, and
 * from a thread of its own, now and then:
 *
 *     gn_domain_sweep(domain);                                       a few times a second, or less
 *     do gn_domain_scan(domain, budget_ns, &done); while (!done);    as its CPU budget allows
 *
 * A sweep learns which pages were written since the last one. Those that were not for a while are hashed, once, and found equal
 * to others by their hash, which is a filter and no proof: pages are merged by the engine, which compares them with all writers
 * held off. Pages of zeros lose their frame. A guest that writes a shared page gets one of its own.
 *
 * A VM over a template (GN_POOL_TEMPLATE) shares what it has not written from the start. It is in a domain of its own, over the pool
 * the VM made: there its copies are compared with the template, and what is equal is the template's again. Quiet is no such domain.
 *
 * Savings are a loan. When guests take them back, frames must be there: see reserve_pages, and gn_domain_reclaim().
 *
 * Threads: any; a lock of the domain's is inside, and one scan may hold it as long as its budget says. None may be inside a
 * guest access. All may sleep.
 */
#ifndef GNOMON_SHARING_H
#define GNOMON_SHARING_H

#include <gnomon/engine.h>
#include <gnomon/guest.h>

#ifdef __cplusplus
extern "C" {
#endif

struct gn_domain;

/*
 * Quiet: by the time it takes, a VM must not learn which of its pages others have as well. So every page that was looked at
 * is sealed, merged or not: its next access, a read too, copies it. The price is that copy, and that a page that is read often
 * is not shared for long. Large blocks are left alone.
 */
struct gn_domain_config {
	struct gn_frames *frames; /* the pool of all VMs of the domain; outlives it */
	/* Of the hashes; NULL: a random one. Who knows it can make pages whose hashes collide, which costs time and
	 * nothing else. */
	const void *key;
	size_t key_bytes;
	unsigned
		settle_sweeps; /* in which a page must not be written to be looked at, 1..6; 0: 2 */
	unsigned tag_bits;     /* of a hash that are kept; 0: 64. Fewer in tests: collisions */
	bool quiet;	       /* see below */
	/* Frames of the pool that only the breaks of sharing may use (gn_frames_set_reserve()); 0: none. One domain of a
	 * pool may ask for it. */
	uint64_t reserve_pages;
	/* Free frames of the pool that stay resident, so that a break need not wait for the host (gn_frames_set_stock()). Scans
	 * that are complete fill them up again, also if they had nothing to do. 0: none. The same goes for it. Not for VMs with
	 * home frames, whose breaks want a certain frame. */
	uint64_t stock_pages;
	uint64_t max_pages;   /* of all VMs together: the size of the index, 21 bytes each */
	unsigned split_pages; /* of a block of 2 MiB that must be sharable to split it; 0: 128 */
};

/* -EINVAL (see the log hook), -ENOMEM, -errno of getrandom(). */
int gn_domain_create(const struct gn_domain_config *config, struct gn_domain **out);
/* What is merged stays merged. NULL is allowed. */
void gn_domain_destroy(struct gn_domain *domain);

/* A VM over the domain's pool; it must be removed before it is destroyed. From here on the domain uses its dirty log (or, if its
 * backing_level is 2 or more, its accessed bits), and nobody else may harvest those. -EINVAL: another pool, or not of a kind that
 * can share; -EEXIST; -ENOSPC: too many VMs, or pages for the index; -EBUSY: its dirty log is someone else's; -ENOMEM. */
int gn_domain_add(struct gn_domain *domain, struct gn_vm *vm);
/* What is merged stays merged. A VM that is not there: nothing. This, like sweeps, scans and hints that say NEVER, is for a thread that is not
 * inside a guest access: it may merge what scans found. */
void gn_domain_remove(struct gn_domain *domain, struct gn_vm *vm);

/* enum gn_share_hint: <gnomon/guest.h>, for guests say it too. */
/* -EINVAL: outside RAM; -ENOENT: not a VM of the domain. */
int gn_domain_hint(struct gn_domain *domain, struct gn_vm *vm, gfn_t start, uint64_t count,
		   enum gn_share_hint hint);

/* Begin a sweep: learn what was written since the last. Pages the last one did not get to come first in this one. The first error
 * of a VM; the others were swept all the same. */
int gn_domain_sweep(struct gn_domain *domain);
/* Go on with the sweep for about @cpu_ns of this thread's CPU time (0: one step; a step takes some 200 us, or up to 3 ms
 * if all it meets is merged). What is found alike is merged some 2,000 pages at a time, and when a VM was gone through; in quiet mode before
 * each return. *done: it is complete. */
int gn_domain_scan(struct gn_domain *domain, uint64_t cpu_ns, bool *done);
/* Frames nobody uses but the index go back to the host now. A scan does it by itself, bit by bit, and with half of its time when less
 * than twice the reserve is free. Returns how many went. */
uint64_t gn_domain_reclaim(struct gn_domain *domain);

/* KSM's names where the meaning is KSM's (Documentation/admin-guide/mm/ksm.rst). */
struct gn_sharing_stats {
	/* Now. */
	uint64_t pages_shared;	/* frames that are shared */
	uint64_t pages_sharing; /* pages beyond those: what is saved */
	uint64_t
		template_pages; /* of them: a template's, as in all VMs over it, also if nobody has touched them */
	uint64_t pages_unshared; /* pages whose like was not found, unchanged since */
	uint64_t
		pages_volatile; /* pages with a frame that did not stand still for long enough yet */
	uint64_t pages_empty;	/* looked at, and without a frame */
	uint64_t volatile_areas; /* of 2 MiB, written so often that they are looked at less often */
	uint64_t index_entries, index_bytes,
		page_bytes; /* memory: the index; the state of all pages */
	uint64_t reserve_pages,
		reserve_low_pages; /* asked for; and the fewest free frames that a break ever left */
	uint64_t stock_pages;	   /* free and resident: to be subtracted from what is saved */
	/* Sums. */
	uint64_t full_scans;	/* sweeps that were completed */
	uint64_t pages_scanned; /* pages hashed, or compared with the template */
	uint64_t
		zero_pages; /* pages of zeros that lost their frame (KSM: ksm_zero_pages, of those there are now) */
	uint64_t pages_published; /* became shared frames */
	uint64_t
		pages_merged; /* took a shared frame, or are the template's again; their own went */
	uint64_t pages_differed;	      /* looked equal, and were not when it counted */
	uint64_t pages_busy;		      /* pinned, or in a state that cannot be shared */
	uint64_t pages_stale;		      /* were found by their hash, and written since */
	uint64_t index_full;		      /* pages that found no place in the index */
	uint64_t frames_given_up;	      /* shared frames that nobody used any more */
	uint64_t blocks_split, blocks_formed; /* of 2 MiB */
	uint64_t cpu_ns;		      /* spent in sweeps and scans */
};
void gn_domain_stats(struct gn_domain *domain, struct gn_sharing_stats *out);

/* Prove by counting references that no frame is used in two of the domains, and that each frame's references are its pages' and its
 * index's and nobody else's. All guests stand still. Slow. report->tables counts frames, report->entries pages and
 * index entries. 0; -EBADMSG: the first violation is told in @report; -ENOMEM. */
int gn_domain_audit(struct gn_domain *const *domains, size_t count, struct gn_audit_report *report);

#ifdef __cplusplus
}
#endif
#endif
