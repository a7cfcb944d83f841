/* SPDX-License-Identifier: MIT */
/*
 * zero_races.c - pages of zeros are taken from a guest that goes on storing, and no store is ever lost.
 *
 * A guest on the software machine, a device (gn_vm_write()) and a processor that stores as late after it translated as it may
 * each own a word in every page and write zero to it most of the time, so that pages become all zeros and cease to be at any
 * moment. Meanwhile one thread takes what it finds to be zeros, outright and cold, and another moves frames. Everybody
 * remembers what it last wrote: its word must hold that, always.
 * With small frames; and with large ones, of which two pages each are used, the first and the last.
 *
 * usage: zero_races [SEED [CALLS]]
 */
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "balloon/reclaim.h"
#include "mmu/vm.h"
#include "support/cases.h"
#include "unit/soft_guest.h"

#define MIB	   ((uint64_t)1 << 20)
#define RAM	   (32 * MIB)
#define PAGES	   16u
#define BLOCK	   512u
#define FIRST	   ((uint64_t)(8 * MIB / GN_PAGE_SIZE))
#define BASE	   ((uint64_t)0x40000000) /* maps gfn 0 */
#define WRITERS	   3u			  /* the guest is the first */
#define ZERO_PARTS 4			  /* one store in so many is not of zero */
#define WAITS_MAX  10000 /* calls more, a ms apart, on a host too busy to run the others meanwhile */

static const unsigned offsets[WRITERS] = { 0, 2048, 4088 };

struct races {
	struct guest guest;
	struct test_random random;
	unsigned backing_level;
	uint64_t calls; /* of the taker, to make */
	atomic_bool is_over;
	atomic_uint failures;
	_Atomic uint64_t freed_pages, moves;
	uint64_t wrote[WRITERS][PAGES]; /* each its writer's; all of them at the end */
};

struct worker {
	struct races *races;
	unsigned writer;
	struct test_random random;
};

static gpa_t word_at(const struct races *r, unsigned page, unsigned writer)
{
	uint64_t at = r->backing_level == 1 ? page : page / 2 * BLOCK + page % 2 * (BLOCK - 1);

	return gpa((FIRST + at) * GN_PAGE_SIZE + offsets[writer]);
}

static void fail(struct races *r, const char *what, unsigned writer, uint64_t have, uint64_t want)
{
	if (atomic_fetch_add(&r->failures, 1) < 5)
		printf("%s, writer %u: %" PRIu64 ", must be %" PRIu64 "\n", what, writer, have,
		       want);
}

/* The engine's lock is not fair: who takes it in a loop leaves the others time. */
static void pause_us(long us)
{
	nanosleep(&(struct timespec){ .tv_nsec = us * 1000 }, NULL);
}

static uint64_t new_value(struct test_random *random)
{
	return test_random_once(random, ZERO_PARTS) ? test_random_next(random) : 0;
}

/* ---- Who writes ---------------------------------------------------------------------------------------------- */

static void guest(struct gn_soft_cpu *cpu, void *ctx)
{
	struct races *r = ctx;

	guest_start(&r->guest, 0);
	while (!atomic_load(&r->is_over)) {
		unsigned page = (unsigned)test_random_below(&r->random, PAGES);
		gva_t at = gva(BASE + word_at(r, page, 0).v);
		uint64_t have = gn_soft_load(cpu, at, 8);

		if (have != r->wrote[0][page])
			fail(r, "a load", 0, have, r->wrote[0][page]);
		r->wrote[0][page] = new_value(&r->random);
		gn_soft_store(cpu, at, 8, r->wrote[0][page]);
	}
}

static void *device(void *ctx)
{
	struct worker *w = ctx;
	struct races *r = w->races;

	while (!atomic_load(&r->is_over)) {
		unsigned page = (unsigned)test_random_below(&w->random, PAGES);
		gpa_t at = word_at(r, page, w->writer);
		uint64_t *wrote = &r->wrote[w->writer][page], have = ~*wrote;

		if (gn_vm_read(r->guest.vm, at, &have, 8) || have != *wrote)
			fail(r, "a read", w->writer, have, *wrote);
		*wrote = new_value(&w->random);
		if (gn_vm_write(r->guest.vm, at, wrote, 8))
			fail(r, "a write", w->writer, 0, *wrote);
		pause_us(20);
	}
	return NULL;
}

/* False: no right to store, so far. */
static bool store_late(struct worker *w, gpa_t at, uint64_t *wrote)
{
	struct gn_vm *vm = w->races->guest.vm;
	p2m_word_t word;
	uint64_t *p, have;

	gn_rcu_read_lock();
	word = gn_p2m_get(&vm->p2m, gpa_to_gfn(at));
	if (!gn_p2m_word_grants(word, GN_W)) {
		gn_rcu_read_unlock();
		return false;
	}
	p = gn_p2m_pointer_of(vm, word, at);
	have = __atomic_load_n(p, __ATOMIC_RELAXED);
	if (have != *wrote)
		fail(w->races, "a late look", w->writer, have, *wrote);
	pause_us(50);
	*wrote = new_value(&w->random);
	__atomic_store_n(p, *wrote, __ATOMIC_RELAXED);
	gn_rcu_read_unlock();
	return true;
}

static void *late(void *ctx)
{
	struct worker *w = ctx;
	struct races *r = w->races;

	while (!atomic_load(&r->is_over)) {
		unsigned page = (unsigned)test_random_below(&w->random, PAGES);
		gpa_t at = word_at(r, page, w->writer);
		struct gn_fix fix = { 0 };
		p2m_word_t word;

		while (!store_late(w, at, &r->wrote[w->writer][page]))
			if (gn_p2m_resolve(r->guest.vm, gpa_to_gfn(at), true, &word, &fix))
				fail(r, "no memory", w->writer, 0, 0);
	}
	return NULL;
}

/* ---- Who takes -------------------------------------------------------------------------------------------------- */

/* Something was taken, and something moved meanwhile. */
static bool has_raced(struct races *r)
{
	return atomic_load(&r->freed_pages) && atomic_load(&r->moves);
}

static void *taker(void *ctx)
{
	struct worker *w = ctx;
	struct races *r = w->races;
	struct gn_reclaim reclaim = { .vm = r->guest.vm, .hand = gfn(FIRST) };

	for (uint64_t i = 0; !atomic_load(&r->failures); i++) {
		uint64_t freed;
		int err;

		if (i >= r->calls && (has_raced(r) || i >= r->calls + WAITS_MAX))
			break;
		if (i >= r->calls)
			pause_us(1000);

		if (test_random_once(&w->random, 4)) {
			err = gn_reclaim_run(&reclaim, 2 * MIB, &freed);
			freed /= GN_PAGE_SIZE;
		} else {
			err = gn_p2m_discard_zeroes(r->guest.vm, gfn(FIRST), PAGES / 2 * BLOCK,
						    NULL, &freed);
		}
		if (err)
			fail(r, "reclaim", w->writer, (uint64_t)-err, 0);
		atomic_fetch_add(&r->freed_pages, freed);
	}
	atomic_store(&r->is_over, true);
	return NULL;
}

static void *mover(void *ctx)
{
	struct worker *w = ctx;
	struct races *r = w->races;

	while (!atomic_load(&r->is_over)) {
		uint64_t page = test_random_below(&w->random, PAGES);
		gfn_t at = gpa_to_gfn(word_at(r, (unsigned)page, 0));
		uint64_t pages = gn_level_pages(r->backing_level);

		if (gn_p2m_move(r->guest.vm, gfn(at.v & ~(pages - 1)), pages))
			fail(r, "a move", w->writer, at.v, 0);
		atomic_fetch_add(&r->moves, 1);
		pause_us(100);
	}
	return NULL;
}

/* ---- Runs -------------------------------------------------------------------------------------------------------- */

static void set_up(struct races *r, const char *scheme)
{
	const struct gn_soft_config config = { .vm = { .scheme = scheme,
						       .mem_bytes = RAM,
						       .vcpus = 1,
						       .backing_level = r->backing_level,
						       .pool_bytes = 4 * RAM } };
	uint64_t step = gn_level_pages(r->backing_level) * GN_PAGE_SIZE;

	guest_create(&r->guest, &config, 4);
	for (uint64_t at = FIRST * GN_PAGE_SIZE; at < 3 * RAM / 4; at += step)
		guest_map(&r->guest, BASE + at, at, r->backing_level, GUEST_RW);
}

static void check_end(struct races *r)
{
	struct gn_audit_report report;

	for (unsigned writer = 0; writer < WRITERS; writer++) {
		for (unsigned page = 0; page < PAGES; page++) {
			uint64_t have = 0;

			if (gn_vm_read(r->guest.vm, word_at(r, page, writer), &have, 8) ||
			    have != r->wrote[writer][page])
				fail(r, "at the end", writer, have, r->wrote[writer][page]);
		}
	}
	if (gn_audit(r->guest.vm, &report)) {
		printf("audit: %s\n", report.first);
		atomic_fetch_add(&r->failures, 1);
	}
	if (!has_raced(r))
		fail(r, "nothing was taken or moved", 0, atomic_load(&r->freed_pages), 1);
}

static void one_run(struct test_run *run, const char *scheme, unsigned backing_level)
{
	static void *(*const bodies[])(void *) = { device, late, taker, mover };
	enum { WORKERS = sizeof(bodies) / sizeof(bodies[0]) };
	static struct races r;
	struct worker workers[WORKERS];
	pthread_t threads[WORKERS];

	memset(&r, 0, sizeof(r));
	r.random = test_random_seed(run->seed);
	r.backing_level = backing_level;
	r.calls = run->cases;
	set_up(&r, scheme);
	for (unsigned i = 0; i < WORKERS; i++) {
		workers[i] = (struct worker){ &r, 1 + i, test_random_seed(run->seed + 1 + i) };
		if (pthread_create(&threads[i], NULL, bodies[i], &workers[i]))
			abort();
	}
	if (gn_soft_run(r.guest.cpu, guest, &r))
		fail(&r, gn_soft_stop_reason(r.guest.cpu), 0, 0, 0);
	for (unsigned i = 0; i < WORKERS; i++)
		pthread_join(threads[i], NULL);
	check_end(&r);
	printf("%s, backing level %u: %" PRIu64 " pages taken, %" PRIu64 " moves, %u failures\n",
	       scheme, backing_level, atomic_load(&r.freed_pages), atomic_load(&r.moves),
	       atomic_load(&r.failures));
	if (atomic_load(&r.failures))
		run->failed++;
	else
		run->passed++;
	guest_destroy(&r.guest);
}

int main(int argc, char **argv)
{
	static const char *const schemes[] = { "native", "ept", "npt", "shadow" };
	struct test_run run = test_run_start(argc, argv, 0x7a65726f, 400);

	for (unsigned i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++)
		for (unsigned level = 1; level <= 2; level++)
			one_run(&run, schemes[i], level);
	return test_run_end(&run);
}
