/* SPDX-License-Identifier: MIT */
/*
 * sharing_tax.c - probe: what a guest loses while its memory is scanned, ours and KSM's.
 *
 * One guest runs without a pause; scanning is on and off in turns of some ten milliseconds, and goes on when everything has been
 * scanned. Turns, so that a slow moment of the machine is in both; the slowest are trimmed. While it is on it has a tenth of a core, which
 * is what a daemon grants that is told nothing else; what it takes from a guest when nobody limits it is shown beside that.
 *
 * What is called the limit is a thread that for as long in each turn reads and hashes memory that is not the guest's, as much as the VMs have,
 * and on its first pass gives half of it back to the host: what the machine's processors, caches and memory, and its host, take from a guest
 * to which nothing is done at all. Giving back is in it, for the host flushes the TLBs of all threads of a process.
 */
#include <errno.h>
#include <stdio.h>
#include <time.h>
#include <xxhash.h>

#include "control/clock.h"
#include "mmu/host_memory.h"
#include "sharing_peer.h"
#include "sharing_rig.h"

#define GROUP	  "guest tax while scanning"
#define BYTES	  ((uint64_t)2 << 30)
#define QUICK	  ((uint64_t)64 << 20)
#define TURN_NS	  20000000
#define GOAL_LOSS 1.0  /* per cent */
#define GOAL_P99  1.05 /* over that without scanning */
enum { TURNS = 400, QUICK_TURNS = 20, EXTENT_PAGES = 16 };

static unsigned turns_of(const struct sharing_results *r)
{
	return r->setup.quick ? QUICK_TURNS : TURNS;
}

/* How long of each turn it scans. */
static const struct pace {
	const char *name;
	double part;
	bool is_judged;
} paces[] = { { "a tenth of a core", 0.1, true }, { "no limit", 1, false } };
#define PACES (sizeof(paces) / sizeof(paces[0]))

static void rest_for(double part)
{
	if (part > 0)
		nanosleep(&(struct timespec){ 0, (long)(part * TURN_NS) }, NULL);
}

static void add(struct sharing_results *r, enum sharing_side side, const struct pace *pace,
		struct sharing_guest *guest)
{
	const bool is_judged = sharing_side_scheme(side) && pace->is_judged;
	const struct sharing_loss loss = sharing_guest_loss(guest);
	struct sharing_guest_figures off, on;
	char name[96];

	sharing_guest_figures(guest, SHARING_SCANNER_OFF, &off);
	sharing_guest_figures(guest, SHARING_SCANNER_ON, &on);
	snprintf(name, sizeof(name), "%s, %s: throughput lost", sharing_side_name(side),
		 pace->name);
	sharing_add_figure(r, GROUP, name, "%", 100 * loss.part,
			   is_judged ? SHARING_AT_MOST : SHARING_SHOWN, GOAL_LOSS);
	snprintf(name, sizeof(name), "%s, %s: its standard error", sharing_side_name(side),
		 pace->name);
	sharing_add_figure(r, GROUP, name, "%", 100 * loss.error, SHARING_SHOWN, 0);
	snprintf(name, sizeof(name), "%s, %s: p99 latency over that without",
		 sharing_side_name(side), pace->name);
	sharing_add_figure(r, GROUP, name, "x", on.p99_ns / off.p99_ns,
			   is_judged ? SHARING_AT_MOST : SHARING_SHOWN, GOAL_P99);
	snprintf(name, sizeof(name), "%s, %s: an operation, median", sharing_side_name(side),
		 pace->name);
	sharing_add_figure(r, GROUP, name, "ns", off.p50_ns, SHARING_SHOWN, 0);
}

/* What is done in a turn: for that long, or until there is nothing more to do. -errno. */
typedef int work_fn(void *ctx, uint64_t ns, bool *done);

static int take_turns(work_fn *work, void *ctx, struct sharing_guest *guest, unsigned turns,
		      double part)
{
	bool done = false;
	int err = 0;

	for (unsigned turn = 0; turn < turns && !err; turn++) {
		sharing_guest_set_phase(guest, SHARING_SCANNER_OFF);
		rest_for(1);
		sharing_guest_set_phase(guest, SHARING_SCANNER_ON);
		err = work(ctx, (uint64_t)(part * TURN_NS), &done);
		rest_for(done ? 1 : 1 - part);
	}
	sharing_guest_set_phase(guest, SHARING_NOT_COUNTED);
	return err;
}

struct scan {
	struct gn_domain *domain;
	bool is_under_way;
};

/* Sweeps go on until the turns are over: what was found is merged in the first ones. */
static int scan(void *ctx, uint64_t ns, bool *done)
{
	struct scan *s = ctx;
	int err = s->is_under_way ? 0 : gn_domain_sweep(s->domain);

	if (!err)
		err = gn_domain_scan(s->domain, ns, done);
	s->is_under_way = !*done;
	return err;
}

struct hashing {
	struct gn_host_memory memory;
	uint64_t extents, next;
	bool is_first_pass;
	volatile uint64_t sum; /* so that it is made */
};

static void hash_extent(struct hashing *h)
{
	const uint8_t *at =
		(const uint8_t *)h->memory.base + h->next * EXTENT_PAGES * SHARING_PAGE_BYTES;

	for (unsigned i = 0; i < EXTENT_PAGES; i++)
		h->sum ^= XXH3_128bits(at + i * SHARING_PAGE_BYTES, SHARING_PAGE_BYTES).low64;
}

/* Every other extent goes back, those of a turn by one call. */
static int hash(void *ctx, uint64_t ns, bool *done)
{
	const uint64_t until_ns = gn_now_ns() + ns, bytes = EXTENT_PAGES * SHARING_PAGE_BYTES;
	struct gn_host_range ranges[GN_HOST_RANGES_MAX];
	struct hashing *h = ctx;
	size_t count = 0;

	*done = false;
	while (gn_now_ns() < until_ns && count < GN_HOST_RANGES_MAX) {
		hash_extent(h);
		if (h->is_first_pass && h->next % 2)
			ranges[count++] = (struct gn_host_range){ h->next * bytes, bytes };
		h->next += h->is_first_pass ? 1 : 2;
		h->is_first_pass &= h->next < h->extents;
		if (h->next >= h->extents)
			h->next = 0;
	}
	return gn_host_memory_drop_all(&h->memory, ranges, count) == count ? 0 : -ENOMEM;
}

/* @work goes on beside a guest on the software machine; with NULL for @ctx on its domain. */
static int tax_soft(struct sharing_results *r, const struct sharing_contents *contents,
		    enum sharing_side side, const struct pace *pace, work_fn *work, void *ctx)
{
	const enum sharing_side guests = side == SHARING_LIMIT ? SHARING_EPT : side;
	const struct sharing_rig_config config = { .contents = contents,
						   .scheme = sharing_side_scheme(guests) };
	struct sharing_guest *guest = NULL;
	struct sharing_rig rig;
	struct scan own = { NULL, false };
	int err = sharing_rig_init(&rig, &config), failed;

	if (err)
		return err;
	own.domain = rig.domains[0];
	err = sharing_guest_start(&(struct sharing_guest_config){ .contents = contents,
								  .cpu = sharing_rig_cpu(&rig, 0) },
				  &guest);
	if (!err)
		err = take_turns(work, ctx ? ctx : &own, guest, turns_of(r), pace->part);
	failed = sharing_guest_stop(guest);
	if (!err && !failed)
		add(r, side, pace, guest);
	sharing_guest_free(guest);
	sharing_rig_fini(&rig);
	return err ? err : failed;
}

static int tax_limit(struct sharing_results *r, const struct sharing_contents *contents,
		     const struct pace *pace)
{
	const uint64_t bytes = contents->vms * contents->vm_pages * SHARING_PAGE_BYTES;
	struct hashing h = { .extents = bytes / SHARING_PAGE_BYTES / EXTENT_PAGES,
			     .is_first_pass = true };
	int err = gn_host_memory_map(GN_POOL_ANONYMOUS, bytes, false, 0, &h.memory);

	if (err)
		return err;
	/* Or all would be the kernel's page of zeros. */
	for (uint64_t at = 0; at < bytes; at += SHARING_PAGE_BYTES)
		((uint8_t *)h.memory.base)[at] = 1;
	err = tax_soft(r, contents, SHARING_LIMIT, pace, hash, &h);
	gn_host_memory_unmap(&h.memory);
	return err;
}

static int tax_ksm(struct sharing_results *r, struct sharing_ksm *ksm,
		   const struct sharing_contents *contents, const struct pace *pace)
{
	struct sharing_guest *guest = NULL;
	struct sharing_peer peer;
	int err = sharing_peer_init(&peer, ksm, contents), failed;

	if (err)
		return err;
	err = sharing_guest_start(
		&(struct sharing_guest_config){ .contents = contents, .memory = peer.memory[0] },
		&guest);
	for (unsigned turn = 0; turn < turns_of(r) && !err; turn++) {
		sharing_guest_set_phase(guest, SHARING_SCANNER_OFF);
		rest_for(1);
		sharing_guest_set_phase(guest, SHARING_SCANNER_ON);
		err = sharing_ksm_start(ksm);
		rest_for(pace->part);
		sharing_ksm_stop(ksm);
		rest_for(1 - pace->part);
		sharing_guest_set_phase(guest, SHARING_NOT_COUNTED);
	}
	failed = sharing_guest_stop(guest);
	if (!err && !failed)
		add(r, SHARING_KSM, pace, guest);
	sharing_guest_free(guest);
	sharing_peer_fini(&peer);
	return err ? err : failed;
}

static int run_probe(struct sharing_results *r, struct sharing_ksm *ksm)
{
	struct sharing_contents contents;
	struct sharing_oracle oracle;
	int err = sharing_probe_contents(r, BYTES, QUICK, &contents, &oracle);

	if (err)
		return err;
	for (size_t i = 0; i < PACES && !err; i++) {
		if (ksm)
			err = tax_ksm(r, ksm, &contents, &paces[i]);
		if (!err)
			err = tax_soft(r, &contents, SHARING_EPT, &paces[i], scan, NULL);
		if (!err)
			err = tax_soft(r, &contents, SHARING_SHADOW, &paces[i], scan, NULL);
		if (!err)
			err = tax_limit(r, &contents, &paces[i]);
	}
	sharing_contents_fini(&contents);
	return err;
}

const struct sharing_probe sharing_probe_tax = {
	"tax",
	"what a guest loses while it is scanned",
	run_probe,
};
