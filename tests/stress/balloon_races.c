/* SPDX-License-Identifier: MIT */
/*
 * balloon_races.c - a balloon device whose driver, whose host and whose VM's memory all move at
 * once.
 *
 * One thread is the driver: it inflates and deflates runs of pages, and resets the device now and
 * then. One is another vCPU that reads and notifies. One is the host: targets, statistics, hints,
 * questions. One changes the p2m of the same pages: fills, discards, protects, and balloons a few
 * for itself, so that what the device has checked is no longer so when it changes it. The last is a
 * vCPU that touches the same pages, as the driver does at times: denied while they are in the balloon, or, on the
 * second device, granted, so that they leave it between the device's check and its change.
 *
 * After each round the device holds exactly the pages that are ballooned and that the fourth thread
 * did not take, and what went in has come out by deflation, by a reset or by a touch. Where touches
 * are granted the fourth thread takes no pages: one it took right after a grant, before the device
 * found that, would pass for the device's.
 *
 * usage: balloon_races [seed]; GN_TEST_SCALE: percent of the full number of requests
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "support/balloon_driver.h"

#define PAGES	  1024u
#define FIRST	  256u /* where the fight is */
#define ROUNDS	  2
#define REQUESTS  500u
#define FEATURES  GN_BALLOON_F_ALL
#define RUN_PAGES 64u
#define WORKERS	  5u

static struct gn_vm *vm;
static struct balloon_driver driver;
static bool is_taken[PAGES]; /* the changer's */
static atomic_bool stop;
static atomic_ulong interrupts, events;
static unsigned long requests = REQUESTS;
static enum gn_touch_answer touch_answer;
static unsigned passed, failed;

struct worker {
	pthread_t thread;
	uint64_t x;
};

static uint64_t next(struct worker *w)
{
	w->x ^= w->x << 13;
	w->x ^= w->x >> 7;
	w->x ^= w->x << 17;
	return w->x;
}

static void check(bool truth, const char *what)
{
	if (truth) {
		passed++;
	} else {
		failed++;
		printf("failed: %s\n", what);
	}
}

static void on_irq(void *ctx)
{
	(void)ctx;
	atomic_fetch_add(&interrupts, 1);
}
static void on_event(void *ctx, unsigned what)
{
	(void)ctx;
	(void)what;
	atomic_fetch_add(&events, 1);
}

static void touch_page(uint64_t page, bool write)
{
	const gpa_t at = gfn_to_gpa(gfn(page));
	uint8_t byte = 0;

	(void)(write ? gn_vm_write(vm, at, &byte, 1) : gn_vm_read(vm, at, &byte, 1));
}

static void *drive(void *ctx)
{
	struct worker *w = (struct worker *)ctx;

	for (unsigned long i = 0; i < requests; i++) {
		uint64_t r = next(w);
		uint32_t first = FIRST + (uint32_t)(r >> 8) % (PAGES - FIRST - RUN_PAGES);

		(void)driver_tell_pages(&driver, r & 1, first, 1 + (uint32_t)(r >> 32) % RUN_PAGES);
		if (r >> 62 == 0)
			touch_page(first, true); /* the other thread may never find one */
		if (r >> 54 == 0)
			(void)driver_start(&driver, FEATURES);
		sched_yield(); /* let the others in between */
	}
	atomic_store(&stop, true);
	return NULL;
}

static void *disturb(void *ctx)
{
	struct worker *w = (struct worker *)ctx;

	while (!atomic_load(&stop)) {
		uint64_t r = next(w);

		(void)gn_balloon_mmio_read(driver.balloon, (r >> 8) % GN_VIRTIO_MMIO_BYTES & ~3u,
					   4);
		gn_balloon_mmio_write(driver.balloon, GN_VIRTIO_QUEUE_NOTIFY, 4, r % 6);
		gn_balloon_mmio_write(driver.balloon, GN_VIRTIO_INTERRUPT_ACK, 4, 3);
		sched_yield();
	}
	return NULL;
}

static void *host(void *ctx)
{
	struct worker *w = (struct worker *)ctx;
	struct gn_balloon_stats stats;

	while (!atomic_load(&stop)) {
		uint64_t r = next(w);

		gn_balloon_set_target(driver.balloon, r % PAGES);
		(void)gn_balloon_request_stats(driver.balloon);
		(void)(r & 1 << 12 ? gn_balloon_hint_start(driver.balloon)
				   : gn_balloon_hint_done(driver.balloon));
		gn_balloon_stats(driver.balloon, &stats);
		if (stats.held_pages > PAGES)
			abort();
	}
	return NULL;
}

static void *change(void *ctx)
{
	struct worker *w = (struct worker *)ctx;

	while (!atomic_load(&stop)) {
		uint64_t r = next(w), page = FIRST + (r >> 8) % (PAGES - FIRST);

		switch (r % 5) {
		case 0:
			(void)gn_p2m_populate(vm, gfn(page), 1);
			break;
		case 1:
			(void)gn_p2m_discard(vm, gfn(page), 1);
			break;
		case 2:
			(void)gn_p2m_protect(vm, gfn(page), 1, r & 1 << 20);
			break;
		case 3:
			if (!is_taken[page] && touch_answer == GN_TOUCH_DENY)
				is_taken[page] = !gn_p2m_balloon(vm, gfn(page), 1);
			break;
		default:
			if (is_taken[page])
				is_taken[page] = gn_p2m_unballoon(vm, gfn(page), 1) != 0;
		}
	}
	return NULL;
}

static void *touch(void *ctx)
{
	struct worker *w = (struct worker *)ctx;

	while (!atomic_load(&stop)) {
		uint64_t r = next(w);

		touch_page(FIRST + (r >> 8) % (PAGES - FIRST), r & 1);
		sched_yield();
	}
	return NULL;
}

static uint64_t ballooned_by_device(void)
{
	uint64_t count = 0;

	for (uint64_t page = 0; page < PAGES; page++)
		count += !is_taken[page] &&
			 gn_p2m_word_state(gn_p2m_get(&vm->p2m, gfn(page))) == GN_P2M_BALLOONED;
	return count;
}

/* However the race went: a page goes in, and is touched. */
static void touch_one_that_is_in(void)
{
	(void)gn_p2m_protect(vm, gfn(FIRST), 1, false);
	check(driver_start(&driver, FEATURES), "the device starts again");
	(void)driver_tell_pages(&driver, GN_BALLOON_INFLATE, FIRST, 1);
	touch_page(FIRST, true);
}

static void round_of(uint64_t seed)
{
	static void *(*const bodies[WORKERS])(void *) = { drive, disturb, host, change, touch };
	struct worker workers[WORKERS];
	struct gn_balloon_stats stats;

	atomic_store(&stop, false);
	check(driver_start(&driver, FEATURES), "the device starts");
	for (unsigned i = 0; i < WORKERS; i++) {
		workers[i].x = (seed + 1) * 0x9e3779b97f4a7c15u + i;
		pthread_create(&workers[i].thread, NULL, bodies[i], &workers[i]);
	}
	for (unsigned i = 0; i < WORKERS; i++)
		pthread_join(workers[i].thread, NULL);
	touch_one_that_is_in();
	gn_balloon_stats(driver.balloon, &stats);
	check(stats.held_pages == ballooned_by_device(), "the device holds what it took");
	check(stats.interrupts == atomic_load(&interrupts), "each interrupt was told");
	gn_balloon_mmio_write(driver.balloon, GN_VIRTIO_STATUS, 4, 0);
	check(ballooned_by_device() == 0 && gn_balloon_actual_pages(driver.balloon) == 0,
	      "a reset returns all");
}

static void rounds_of(enum gn_touch_answer answer, uint64_t seed)
{
	const struct gn_balloon_config config = { .irq = on_irq,
						  .event = on_event,
						  .touch_answer = answer };
	struct gn_balloon_stats stats;

	touch_answer = answer;
	memset(is_taken, 0, sizeof(is_taken)); /* of the last VM's pages */
	atomic_store(&interrupts, 0);
	atomic_store(&events, 0);
	if (bare_vm_new(PAGES * GN_PAGE_SIZE, 0, 0, &vm) ||
	    gn_balloon_create(vm, &config, &driver.balloon))
		abort();
	driver.vm = vm;
	for (unsigned i = 0; i < ROUNDS; i++)
		round_of(seed + i);
	gn_balloon_stats(driver.balloon, &stats);
	check(stats.inflated_pages &&
		      stats.deflated_pages + stats.returned_pages + stats.granted_pages ==
			      stats.inflated_pages,
	      "what went in came out");
	check(!stats.granted_pages == (answer == GN_TOUCH_DENY),
	      "some touches were granted, or none");
	check(!stats.host_failures, "nothing was given up");
	gn_balloon_destroy(driver.balloon);
	gn_vm_destroy(vm);
	printf("seed %llu, touches %s: %llu pages in, %llu by touches out, %llu changes, %lu "
	       "interrupts, "
	       "%lu events\n",
	       (unsigned long long)seed, answer == GN_TOUCH_DENY ? "denied" : "granted",
	       (unsigned long long)stats.inflated_pages, (unsigned long long)stats.granted_pages,
	       (unsigned long long)stats.runs, atomic_load(&interrupts), atomic_load(&events));
}

int main(int argc, char **argv)
{
	const char *scale = getenv("GN_TEST_SCALE");
	uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;

	if (scale)
		requests = REQUESTS * strtoul(scale, NULL, 10) / 100 + 1;
	rounds_of(GN_TOUCH_DENY, seed);
	rounds_of(GN_TOUCH_GRANT, seed);
	printf("%u passed, %u failed\n", passed, failed);
	return failed != 0;
}
