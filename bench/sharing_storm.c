/* SPDX-License-Identifier: MIT */
/*
 * sharing_storm.c - probe: all guests rewrite all of their memory at once, after somebody else has taken every frame that the
 * reserve does not keep.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "control/clock.h"
#include "mmu/frames.h"
#include "sharing_rig.h"

#define GROUP "storm: all memory rewritten"
#define BYTES ((uint64_t)1 << 30)
#define QUICK ((uint64_t)64 << 20)

struct writer {
	pthread_t thread;
	struct sharing_rig *rig;
	unsigned vm;
	bool zeros; /* writes what held zeros, else all other pages */
	_Atomic bool is_over;
	uint64_t written_pages;
};

static bool is_zero(const struct sharing_rig *rig, unsigned vm, uint64_t page)
{
	return !sharing_page(rig->config.contents, vm, page);
}

static void write_all(struct gn_soft_cpu *cpu, void *ctx)
{
	struct writer *w = ctx;

	for (uint64_t page = 0; page < w->rig->config.contents->vm_pages; page++) {
		if (is_zero(w->rig, w->vm, page) != w->zeros)
			continue;
		gn_soft_store(cpu, gva(page * SHARING_PAGE_BYTES), 8, ~page);
		w->written_pages++;
	}
}

/* So that the tables are there: they are no part of what sharing has lent. */
static void read_all(struct gn_soft_cpu *cpu, void *ctx)
{
	const struct sharing_contents *c = ctx;

	for (uint64_t page = 0; page < c->vm_pages; page++)
		gn_soft_load(cpu, gva(page * SHARING_PAGE_BYTES), 8);
}

static void *writer_main(void *ctx)
{
	struct writer *w = ctx;

	sharing_rig_run(w->rig, w->vm, write_all, w); /* what it could not write is counted */
	atomic_store(&w->is_over, true);
	return NULL;
}

/* All that the pool gives to others than breaks. */
static uint64_t take_frames(struct gn_frames *frames, uint64_t reserve_pages, pfn_t *taken)
{
	uint64_t spare = frames->own_count - gn_frames_used(frames) - reserve_pages, count = 0;

	while (count < spare && !gn_frames_alloc(frames, 1, &taken[count]))
		count++;
	return count;
}

static int check_written(struct sharing_rig *rig, bool zeros_too)
{
	const struct sharing_contents *c = rig->config.contents;

	for (unsigned vm = 0; vm < c->vms; vm++)
		for (uint64_t page = 0; page < c->vm_pages; page++) {
			uint64_t words[2];
			int err;

			if (is_zero(rig, vm, page) && !zeros_too)
				continue;
			err = gn_vm_read(sharing_rig_vm(rig, vm), gpa(page * SHARING_PAGE_BYTES),
					 words, sizeof(words));

			if (err)
				return err;
			if (words[0] != ~page ||
			    words[1] != sharing_page_word(c->seed, sharing_page(c, vm, page), 1))
				return -EBADMSG;
		}
	return 0;
}

static uint64_t count_pages(const struct sharing_rig *rig, unsigned vm, bool zeros)
{
	uint64_t count = 0;

	for (uint64_t page = 0; page < rig->config.contents->vm_pages; page++)
		count += is_zero(rig, vm, page) == zeros;
	return count;
}

/* All guests at once, and sharing goes on. *failed_pages: that could not be written. */
static int storm(struct sharing_rig *rig, bool zeros, uint64_t *failed_pages)
{
	struct writer writers[SHARING_MAX_VMS] = { 0 };
	unsigned vms = rig->config.contents->vms, started = 0;
	int err = 0;

	for (; started < vms && !err; started++) {
		writers[started] = (struct writer){ .rig = rig, .vm = started, .zeros = zeros };
		err = -pthread_create(&writers[started].thread, NULL, writer_main,
				      &writers[started]);
	}
	*failed_pages = 0;
	for (unsigned i = 0; i < started; i++) {
		while (!err && !atomic_load(&writers[i].is_over))
			err = sharing_rig_pass(rig);
		pthread_join(writers[i].thread, NULL);
		*failed_pages += count_pages(rig, i, zeros) - writers[i].written_pages;
	}
	return err;
}

static int measure(struct sharing_results *r, struct sharing_rig *rig, uint64_t reserve_pages)
{
	uint64_t taken_count, failed_pages, failed_zeros = 0;
	pfn_t *taken = malloc(rig->frames->own_count * sizeof(*taken));
	struct gn_sharing_stats stats;
	double t0_s;
	int err;

	if (!taken)
		return -ENOMEM;
	taken_count = take_frames(rig->frames, reserve_pages, taken);
	t0_s = gn_now_s();
	err = storm(rig, false, &failed_pages);
	if (!err)
		err = storm(rig, true, &failed_zeros);
	t0_s = gn_now_s() - t0_s;
	gn_domain_stats(rig->domains[0], &stats);
	if (!err && !failed_pages)
		err = check_written(rig, !failed_zeros);
	for (uint64_t i = 0; i < taken_count; i++)
		gn_frames_put(rig->frames, taken[i]);
	free(taken);
	if (err)
		return err;
	sharing_add_figure(r, GROUP, "frames others took first", "", (double)taken_count,
			   SHARING_SHOWN, 0);
	sharing_add_figure(r, GROUP, "stores that found no frame", "", (double)failed_pages,
			   SHARING_AT_MOST, 0);
	sharing_add_figure(r, GROUP, "stores to pages that had been zero, likewise", "",
			   (double)failed_zeros, SHARING_AT_MOST, 0);
	sharing_add_figure(r, GROUP, "reserve", "frames", (double)reserve_pages, SHARING_SHOWN, 0);
	sharing_add_figure(r, GROUP, "least that was left of it", "frames",
			   (double)stats.reserve_low_pages, SHARING_AT_LEAST, 0);
	sharing_add_figure(r, GROUP, "time", "s", t0_s, SHARING_SHOWN, 0);
	return 0;
}

static int run_probe(struct sharing_results *r, struct sharing_ksm *ksm)
{
	struct sharing_rig_config config = { .scheme = "ept" };
	struct sharing_contents contents;
	struct sharing_oracle oracle;
	struct sharing_run run = { 0 };
	struct sharing_rig rig;
	int err = sharing_probe_contents(r, BYTES, QUICK, &contents, &oracle);

	(void)ksm;
	if (err)
		return err;
	config.contents = &contents;
	/* All sharers of a frame may write before the index lets go of it. */
	config.reserve_pages = oracle.saved_pages + oracle.distinct_pages / 2;
	err = sharing_rig_init(&rig, &config);
	if (!err) {
		for (unsigned vm = 0; vm < contents.vms && !err; vm++)
			err = sharing_rig_run(&rig, vm, read_all, &contents);
		if (!err)
			err = sharing_rig_converge(&rig, &oracle, &run);
		if (!err)
			err = measure(r, &rig, config.reserve_pages);
		sharing_run_fini(&run);
		sharing_rig_fini(&rig);
	}
	sharing_contents_fini(&contents);
	return err;
}

const struct sharing_probe sharing_probe_storm = {
	"storm",
	"all memory rewritten while nothing but the reserve is free",
	run_probe,
};
