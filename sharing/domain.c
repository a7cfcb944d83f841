/* SPDX-License-Identifier: MIT */
/*
 * domain.c - VMs that may share frames: life, sweeps, scans, and what it all came to.
 *
 * A domain is a hash key, an index and a scanner for each VM. Nothing of it is another domain's, so frames cannot cross: a page is
 * found only in the index it is in, and an index knows the pages of its own VMs only.
 *
 * A sweep asks each VM which pages were written, and a scan then goes over the VMs in turn, a step at a time, until its CPU budget is
 * spent. What was found equal is gathered, over several scans if they are short; whatever else is asked of the domain carries
 * it out first, and in quiet mode each scan does.
 *
 * Savings are a loan: when guests write shared pages, frames are needed. Frames that the index alone still holds are found
 * by looking through the index, a part in each sweep, and all of it when less is free than the reserve and as much again. A
 * sharer that writes copies, so while a storm of writes is on, frames pass from "shared by two" to "held by the index" as fast as
 * copies are made; the scan that is called then gives them back at once.
 *
 * One lock for all. Guests do not wait for it: they wait for changes of the engine only, which are short.
 */
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "domain_impl.h"
#include "mmu/arena.h"

#define FILL_PAGES   256  /* of the stock, in a scan: the host's page faults */
#define CLEAN_PARTS  64	  /* of the index, at a time, when frames are short */
#define CLEAN_LEAST  4096 /* buckets: some 100 us */
#define CLEAN_SWEEPS 128  /* the index is cleaned once in as many; each entry is a miss */

/* ---- Life ------------------------------------------------------------------------------------------ */

static int check_config(const struct gn_domain_config *c)
{
	const char *wrong = NULL;

	if (!c->frames)
		wrong = "it has no pool of frames";
	else if (!c->max_pages || c->max_pages >> GN_ENTRY_NUMBER_BITS)
		wrong = "max_pages must be 1 to 2^40";
	else if (c->settle_sweeps > GN_SETTLE_SWEEPS_MAX)
		wrong = "settle_sweeps must be at most 6";
	else if (c->tag_bits > 64)
		wrong = "tag_bits must be at most 64";
	else if (c->split_pages > GN_BLOCK_PAGES)
		wrong = "split_pages must be at most 512";
	else if (!c->key != !c->key_bytes)
		wrong = "a key and its length go together";
	if (wrong)
		gn_log(GN_LOG_ERROR, "sharing domain: %s", wrong);
	return wrong ? -EINVAL : 0;
}

int gn_domain_create(const struct gn_domain_config *config, struct gn_domain **out)
{
	struct gn_domain *d;
	int err = check_config(config);

	if (err)
		return err;
	d = gn_alloc_should_fail() ? NULL : calloc(1, sizeof(*d));
	if (!d)
		return -ENOMEM;
	d->gathering = gn_alloc_should_fail() ? NULL : malloc(sizeof(*d->gathering));
	err = d->gathering ? gn_index_init(&d->index, config->max_pages) : -ENOMEM;
	if (err)
		goto fail;
	err = gn_hasher_init(&d->hasher, config->key, config->key_bytes, config->tag_bits);
	if (err)
		goto fail_index;
	d->config = *config;
	d->config.key = NULL;
	if (!d->config.split_pages)
		d->config.split_pages = GN_SPLIT_PAGES_DEFAULT;
	d->access = config->quiet ? GN_SHARE_SEALED : GN_SHARE_READ;
	d->frames = config->frames;
	d->gathering->donor_count = 0;
	d->gathering->taker_count = 0;
	pthread_mutex_init(&d->lock, NULL);
	err = config->stock_pages ? gn_frames_set_stock(d->frames, config->stock_pages) : 0;
	if (err)
		goto fail_lock;
	if (config->reserve_pages)
		gn_frames_set_reserve(d->frames, config->reserve_pages);
	*out = d;
	return 0;

fail_lock:
	pthread_mutex_destroy(&d->lock);
	gn_hasher_fini(&d->hasher);
fail_index:
	gn_index_fini(&d->index);
fail:
	free(d->gathering);
	free(d);
	return err;
}

static void release_frame(void *domain, struct gn_index_entry *e)
{
	struct gn_domain *d = (struct gn_domain *)domain;

	if (gn_entry_kind_of(e->value) == GN_ENTRY_FRAME)
		gn_frames_put(d->frames, pfn(gn_entry_number_of(e->value)));
}

static void member_free(struct gn_member *m)
{
	gn_scanner_destroy(m->scanner);
	gn_blocks_fini(m);
	free(m);
}

void gn_domain_destroy(struct gn_domain *domain)
{
	if (!domain)
		return;
	for (unsigned i = 0; i < domain->member_end; i++)
		if (domain->members[i])
			member_free(domain->members[i]);
	gn_index_visit(&domain->index, release_frame, domain);
	if (domain->config.reserve_pages)
		gn_frames_set_reserve(domain->frames, 0);
	if (domain->config.stock_pages)
		(void)gn_frames_set_stock(domain->frames, 0); /* none needs no memory */
	gn_index_fini(&domain->index);
	gn_hasher_fini(&domain->hasher);
	pthread_mutex_destroy(&domain->lock);
	free(domain->gathering);
	free(domain);
}

/* What earlier scans gathered is merged: it points into the index, which only scans leave as it is. */
static void finish_gathering(struct gn_domain *d)
{
	if (d->is_gathering)
		gn_gather_carry_out(d->members[d->scan_member]);
}

/* ---- Members ----------------------------------------------------------------------------------------- */

static struct gn_member *member_of_vm(const struct gn_domain *d, const struct gn_vm *vm)
{
	for (unsigned i = 0; i < d->member_end; i++)
		if (d->members[i] && d->members[i]->vm == vm)
			return d->members[i];
	return NULL;
}

static int check_vm(const struct gn_domain *d, const struct gn_vm *vm)
{
	if (vm->frames != d->frames) {
		gn_log(GN_LOG_ERROR,
		       "sharing domain: the VM's frames are not of the domain's pool");
		return -EINVAL;
	}
	if (d->config.stock_pages && vm->config.home_frames) {
		gn_log(GN_LOG_ERROR,
		       "sharing domain: a stock would take the homes of a VM with home frames");
		return -EINVAL;
	}
	/* A read breaks nothing there, and a write takes another time on the template's page than on a copy. */
	if (d->config.quiet && gn_vm_is_over_template(vm)) {
		gn_log(GN_LOG_ERROR,
		       "sharing domain: a VM over a template cannot be of a quiet one");
		return -EINVAL;
	}
	if (member_of_vm(d, vm))
		return -EEXIST;
	return d->page_count + vm->p2m.gfn_count > d->config.max_pages ? -ENOSPC : 0;
}

static int member_new(struct gn_domain *d, unsigned number, struct gn_vm *vm,
		      struct gn_member **out)
{
	struct gn_member *m = gn_alloc_should_fail() ? NULL : calloc(1, sizeof(*m));
	const struct gn_scanner_config config = { .vm = vm,
						  .hasher = &d->hasher,
						  .settle_sweeps = d->config.settle_sweeps,
						  .quiet = d->config.quiet,
						  .offers = gn_match_offers,
						  .ctx = m };
	int err;

	if (!m)
		return -ENOMEM;
	m->domain = d;
	m->number = number;
	m->vm = vm;
	err = gn_blocks_init(m);
	if (!err)
		err = gn_scanner_new(&config, &m->scanner);
	if (err) {
		gn_blocks_fini(m);
		free(m);
		return err;
	}
	*out = m;
	return 0;
}

int gn_domain_add(struct gn_domain *domain, struct gn_vm *vm)
{
	struct gn_member *m = NULL;
	unsigned number = 0;
	int err;

	pthread_mutex_lock(&domain->lock);
	while (number < domain->member_end && domain->members[number])
		number++;
	err = check_vm(domain, vm);
	if (!err && number == GN_ENTRY_VMS)
		err = -ENOSPC;
	if (!err)
		err = member_new(domain, number, vm, &m);
	if (!err) {
		domain->members[number] = m;
		domain->page_count += vm->p2m.gfn_count;
		if (number == domain->member_end)
			domain->member_end++;
	}
	pthread_mutex_unlock(&domain->lock);
	return err;
}

void gn_domain_remove(struct gn_domain *domain, struct gn_vm *vm)
{
	struct gn_member *m;

	pthread_mutex_lock(&domain->lock);
	finish_gathering(domain);
	m = member_of_vm(domain, vm);
	if (m) {
		domain->members[m->number] = NULL;
		domain->page_count -= vm->p2m.gfn_count;
		/* Its candidates are nobody's now, and go before the number is another's. */
		gn_index_clean(&domain->index, gn_index_buckets(&domain->index), gn_match_give_up,
			       gn_match_soon, domain);
		gn_match_put_freed(domain);
		member_free(m);
	}
	pthread_mutex_unlock(&domain->lock);
}

int gn_domain_hint(struct gn_domain *domain, struct gn_vm *vm, gfn_t start, uint64_t count,
		   enum gn_share_hint hint)
{
	struct gn_member *m;
	int err = 0;

	pthread_mutex_lock(&domain->lock);
	if (hint == GN_SHARE_NEVER)
		finish_gathering(domain);
	m = member_of_vm(domain, vm);
	if (!m)
		err = -ENOENT;
	else if (hint > GN_SHARE_NEVER || !gn_p2m_is_in_ram(&vm->p2m, start, count))
		err = -EINVAL;
	else
		gn_scanner_hint(m->scanner, start, count, hint);
	pthread_mutex_unlock(&domain->lock);
	return err;
}

/* ---- Sweeps and scans -------------------------------------------------------------------------------- */

static uint64_t cpu_now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* A frame that was left is referenced until nobody can use it any more: that is waited for, or few would be found. */
static void drain(struct gn_domain *d)
{
	for (unsigned i = 0; i < d->member_end; i++)
		if (d->members[i])
			gn_retire_drain(d->members[i]->vm);
}

static uint64_t clean(struct gn_domain *d, uint64_t buckets)
{
	const uint64_t before = d->sums.frames_given_up;

	drain(d);
	gn_index_clean(&d->index, buckets, gn_match_give_up, gn_match_soon, d);
	gn_match_put_freed(d);
	return d->sums.frames_given_up - before;
}

/* As much of it as half of the time allows; the next call goes on where this one stopped. */
static void clean_for(struct gn_domain *d, uint64_t start_ns, uint64_t cpu_ns)
{
	const uint64_t part = gn_index_buckets(&d->index) / CLEAN_PARTS + CLEAN_LEAST;

	drain(d);
	for (unsigned i = 0; i < CLEAN_PARTS && (!i || cpu_now_ns() - start_ns < cpu_ns / 2); i++)
		gn_index_clean(&d->index, part, gn_match_give_up, gn_match_soon, d);
	gn_match_put_freed(d);
}

static bool is_short_of_frames(const struct gn_domain *d)
{
	return d->frame_entries &&
	       d->frames->own_count - gn_frames_used(d->frames) < 2 * d->config.reserve_pages;
}

int gn_domain_sweep(struct gn_domain *domain)
{
	uint64_t start_ns = cpu_now_ns();
	int first_err = 0;

	pthread_mutex_lock(&domain->lock);
	finish_gathering(domain);
	for (unsigned i = 0; i < domain->member_end; i++) {
		int err;

		if (!domain->members[i])
			continue;
		err = gn_scanner_sweep(domain->members[i]->scanner);
		if (!first_err)
			first_err = err;
		gn_domain_tell_step(domain, GN_STEP_HARVESTED);
		gn_blocks_form(domain->members[i]);
	}
	clean(domain, gn_index_buckets(&domain->index) / CLEAN_SWEEPS + 1);
	domain->scan_left = domain->member_end;
	domain->sums.cpu_ns += cpu_now_ns() - start_ns;
	pthread_mutex_unlock(&domain->lock);
	return first_err;
}

/* A step of whose turn it is. */
static void step(struct gn_domain *d)
{
	struct gn_member *m = d->members[d->scan_member];

	if (m && !gn_scanner_step(m->scanner))
		return;
	if (m)
		gn_gather_carry_out(m);
	d->scan_member = d->scan_member + 1 < d->member_end ? d->scan_member + 1 : 0;
	if (!--d->scan_left)
		d->sums.full_scans++;
}

int gn_domain_scan(struct gn_domain *domain, uint64_t cpu_ns, bool *done)
{
	uint64_t start_ns = cpu_now_ns(), spent_ns;

	pthread_mutex_lock(&domain->lock);
	if (is_short_of_frames(domain)) {
		finish_gathering(domain);
		clean_for(domain, start_ns, cpu_ns);
	}
	do {
		if (domain->scan_left)
			step(domain);
		spent_ns = cpu_now_ns() - start_ns;
	} while (domain->scan_left && spent_ns < cpu_ns);
	/* Few at a time cost whoever runs beside as many interruptions as many do. In quiet mode nothing waits that can be used meanwhile. */
	if (domain->config.quiet)
		finish_gathering(domain);
	gn_match_put_freed(domain);
	*done = !domain->scan_left;
	if (*done && domain->config.stock_pages)
		gn_frames_fill_stock(domain->frames, FILL_PAGES);
	domain->sums.cpu_ns += cpu_now_ns() - start_ns;
	pthread_mutex_unlock(&domain->lock);
	return 0;
}

uint64_t gn_domain_reclaim(struct gn_domain *domain)
{
	uint64_t given_up;

	pthread_mutex_lock(&domain->lock);
	finish_gathering(domain);
	given_up = clean(domain, gn_index_buckets(&domain->index));
	pthread_mutex_unlock(&domain->lock);
	return given_up;
}

/* ---- What it came to --------------------------------------------------------------------------------- */

static void add_member(struct gn_sharing_stats *out, const struct gn_member *m)
{
	struct gn_scanner_stats s;

	gn_scanner_stats(m->scanner, &s);
	out->pages_sharing += s.pages_shared;
	out->pages_unshared += s.pages_offered;
	out->pages_volatile += s.pages_aging;
	out->pages_empty += s.pages_empty;
	out->volatile_areas += s.volatile_areas;
	out->page_bytes += s.state_bytes;
	out->pages_scanned += s.pages_hashed;
	if (gn_vm_is_over_template(m->vm)) {
		out->template_pages += s.pages_shared;
		out->pages_merged += s.known_pages;
	} else {
		out->zero_pages += s.known_pages;
	}
}

void gn_domain_stats(struct gn_domain *domain, struct gn_sharing_stats *out)
{
	pthread_mutex_lock(&domain->lock);
	*out = domain->sums;
	for (unsigned i = 0; i < domain->member_end; i++)
		if (domain->members[i])
			add_member(out, domain->members[i]);
	/* Each frame is saved by all of its sharers but one. */
	out->pages_shared = domain->frame_entries < out->pages_sharing ? domain->frame_entries
								       : out->pages_sharing;
	out->pages_sharing -= out->pages_shared;
	out->index_entries = domain->index.used_count;
	out->index_bytes = domain->index.bytes;
	out->reserve_pages = domain->config.reserve_pages;
	out->reserve_low_pages = gn_frames_reserve_low(domain->frames);
	out->stock_pages = gn_frames_stock(domain->frames);
	pthread_mutex_unlock(&domain->lock);
}
