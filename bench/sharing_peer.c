/* SPDX-License-Identifier: MIT */
/*
 * sharing_peer.c - the contents in plain memory, shared by KSM while natively running guests use it.
 *
 * The memory is this process's own, a mapping a VM, told to KSM by MADV_MERGEABLE and kept to small pages. The clock starts when
 * KSM does; its CPU time is its kernel thread's.
 */
#include <errno.h>
#include <sys/mman.h>
#include <time.h>

#include "control/clock.h"
#include "sharing.h"
#include "sharing_guest.h"
#include "sharing_peer.h"

#define GUEST_PAUSE_NS 2000000
#define POLL_NS	       5000000
/* It has converged when two whole scans found next to nothing more, or is given up after this. */
#define GIVE_UP_S(pages) (20 + 60 * (double)(pages) / 262144)

static void rest(long ns)
{
	nanosleep(&(struct timespec){ 0, ns }, NULL);
}

static int start_guests(struct sharing_peer *peer, uint64_t pause_ns)
{
	int err = 0;

	for (unsigned vm = 0; vm < peer->contents->vms && !err; vm++) {
		const struct sharing_guest_config config = { .contents = peer->contents,
							     .vm = vm,
							     .pause_ns = pause_ns,
							     .memory = peer->memory[vm] };

		err = sharing_guest_start(&config, &peer->guests[vm]);
	}
	return err;
}

int sharing_peer_stop_guests(struct sharing_peer *peer)
{
	int err = 0;

	for (unsigned vm = 0; vm < peer->contents->vms; vm++) {
		int failed = sharing_guest_stop(peer->guests[vm]);

		if (failed)
			err = failed;
		sharing_guest_free(peer->guests[vm]);
		peer->guests[vm] = NULL;
	}
	return err;
}

int sharing_peer_init(struct sharing_peer *peer, struct sharing_ksm *ksm,
		      const struct sharing_contents *contents)
{
	uint64_t bytes = contents->vm_pages * SHARING_PAGE_BYTES;
	int err = 0;

	*peer = (struct sharing_peer){ .ksm = ksm, .contents = contents };
	for (unsigned vm = 0; vm < contents->vms && !err; vm++) {
		uint8_t *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
				       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

		if (memory == MAP_FAILED) {
			err = -errno;
			break;
		}
		peer->memory[vm] = memory;
		madvise(memory, bytes, MADV_NOHUGEPAGE);
		for (uint64_t page = 0; page < contents->vm_pages; page++)
			sharing_page_fill(contents->seed, sharing_page(contents, vm, page),
					  memory + page * SHARING_PAGE_BYTES);
		/* A page of zeros that was written is a page all the same. */
		if (madvise(memory, bytes, MADV_MERGEABLE))
			err = -errno;
	}
	if (err)
		sharing_peer_fini(peer);
	return err;
}

void sharing_peer_fini(struct sharing_peer *peer)
{
	sharing_peer_stop_guests(peer);
	sharing_ksm_stop(peer->ksm);
	for (unsigned vm = 0; vm < peer->contents->vms; vm++)
		if (peer->memory[vm])
			munmap(peer->memory[vm], peer->contents->vm_pages * SHARING_PAGE_BYTES);
	sharing_ksm_forget(peer->ksm);
}

/* Whether another look is worth it: it gains, or has not yet seen all pages three times. */
struct gain {
	uint64_t saved_pages, at_scan;
};

static bool goes_on(struct gain *seen, const struct sharing_ksm_counts *now,
		    const struct sharing_oracle *oracle)
{
	if (now->saved_pages > seen->saved_pages + oracle->total_pages / 10000) {
		seen->saved_pages = now->saved_pages;
		seen->at_scan = now->full_scans;
	}
	if (oracle->saved_pages && now->saved_pages >= oracle->saved_pages)
		return false;
	return now->full_scans < seen->at_scan + 3;
}

int sharing_peer_converge(struct sharing_peer *peer, const struct sharing_oracle *oracle,
			  struct sharing_run *run)
{
	struct sharing_ksm_counts before, now;
	struct gain seen = { 0, 0 };
	double t0_s, t_s, cpu_s;
	int err;

	sharing_ksm_read(peer->ksm, &before);
	seen.at_scan = before.full_scans;
	err = sharing_ksm_start(peer->ksm);
	t0_s = gn_now_s();
	do {
		rest(POLL_NS);
		sharing_ksm_read(peer->ksm, &now);
		now.saved_pages -=
			before.saved_pages < now.saved_pages ? before.saved_pages : now.saved_pages;
		t_s = gn_now_s() - t0_s;
		cpu_s = (double)(now.cpu_ns - before.cpu_ns) * 1e-9;
		if (!err)
			err = sharing_add_point(run, t_s, cpu_s, now.saved_pages);
		if (run->first_pass_cpu_s <= 0 && now.full_scans > before.full_scans) {
			run->first_pass_pages = now.saved_pages;
			run->first_pass_cpu_s = cpu_s;
		}
		if (!run->reached_pages && oracle->saved_pages &&
		    now.saved_pages >= sharing_enough_pages(oracle)) {
			run->reached_pages = now.saved_pages;
			run->wall_s = t_s;
			run->cpu_s = cpu_s;
		}
	} while (!err && goes_on(&seen, &now, oracle) && t_s < GIVE_UP_S(oracle->total_pages));
	run->saved_pages = now.saved_pages;
	run->is_there = true;
	if (!oracle->saved_pages)
		run->cpu_s = run->first_pass_cpu_s;
	return err;
}

int sharing_peer_init_converged(struct sharing_peer *peer, struct sharing_ksm *ksm,
				const struct sharing_contents *contents,
				const struct sharing_oracle *oracle)
{
	struct sharing_run run = { 0 };
	int err = sharing_peer_init(peer, ksm, contents);

	if (err)
		return err;
	err = sharing_peer_converge(peer, oracle, &run);
	sharing_run_fini(&run);
	if (err)
		sharing_peer_fini(peer);
	return err;
}

int sharing_ksm_run(struct sharing_ksm *ksm, const struct sharing_contents *contents,
		    const struct sharing_oracle *oracle, struct sharing_run *run)
{
	struct sharing_peer peer;
	int err = sharing_peer_init(&peer, ksm, contents), failed;

	if (err)
		return err;
	err = start_guests(&peer, GUEST_PAUSE_NS);
	if (!err)
		err = sharing_peer_converge(&peer, oracle, run);
	failed = sharing_peer_stop_guests(&peer);
	sharing_peer_fini(&peer);
	return err ? err : failed;
}
