/* SPDX-License-Identifier: MIT */
/*
 * sharing_guest.c - the guest's loop.
 *
 * Throughput is counted in the thread's own CPU time, faults included, because other jobs of the machine take wall time
 * from it and do so at any moment; and turn by turn, because they slow the memory down as well. What it waits for is in
 * the latencies, which are wall time; the longest ones are the machine's in both phases.
 */
#include "sharing_guest.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "control/clock.h"

enum { LOADS = 60, STORES = 4, LATENCIES = 1 << 20, TURNS = 4096, TRIMMED_PART = 10 };

/* (c) const after start, (g) the guest's thread only until it is stopped, (a) atomic. */
struct sharing_guest {
	struct sharing_guest_config config; /* (c) */
	pthread_t thread;
	_Atomic int phase;	  /* (a) enum sharing_phase */
	_Atomic bool is_stopping; /* (a) */
	uint64_t random;	  /* (g) */
	uint64_t mismatches;	  /* (g) */
	int err;		  /* (g) */
	struct tally {
		uint64_t operations;
		float *latency_ns; /* the last LATENCIES of them */
	} tallies[SHARING_PHASES]; /* (g) */
	struct turn {
		int phase;
		double per_ns;
	} turns[TURNS];	   /* (g) the first ones */
	size_t turn_count; /* (g) */
};

static void load(struct sharing_guest *g)
{
	const struct sharing_contents *contents = g->config.contents;
	uint64_t random = sharing_random(&g->random), page = random % contents->vm_pages, value;
	unsigned word = random >> 48 & (SHARING_PAGE_WORDS - 1);
	uint64_t at;

	if (!sharing_page(contents, g->config.vm, page))
		page = random % contents->hot_pages;
	at = page * SHARING_PAGE_BYTES + word * sizeof(value);
	if (g->config.cpu)
		value = gn_soft_load(g->config.cpu, gva(at), sizeof(value));
	else
		value = *(volatile uint64_t *)(g->config.memory + at);
	if (page >= contents->hot_pages)
		g->mismatches += value != sharing_page_word(
						  contents->seed,
						  sharing_page(contents, g->config.vm, page), word);
}

static void store(struct sharing_guest *g)
{
	uint64_t random = sharing_random(&g->random),
		 at = random % g->config.contents->hot_pages * SHARING_PAGE_BYTES +
		      (random >> 48 & (SHARING_PAGE_WORDS - 1)) * sizeof(random);

	if (g->config.cpu)
		gn_soft_store(g->config.cpu, gva(at), sizeof(random), random);
	else
		*(volatile uint64_t *)(g->config.memory + at) = random;
}

static void operate(struct sharing_guest *g)
{
	for (unsigned i = 0; i < LOADS; i++)
		load(g);
	for (unsigned i = 0; i < STORES; i++)
		store(g);
}

static void pause_guest(const struct sharing_guest *g)
{
	const struct timespec rest = { 0, (long)g->config.pause_ns };

	if (g->config.pause_ns)
		nanosleep(&rest, NULL);
}

static void run_phase(struct sharing_guest *g, int phase)
{
	struct tally *tally = &g->tallies[phase];
	uint64_t cpu_ns = gn_clock_ns(CLOCK_THREAD_CPUTIME_ID), before = tally->operations;

	while (!atomic_load_explicit(&g->is_stopping, memory_order_relaxed) &&
	       atomic_load_explicit(&g->phase, memory_order_relaxed) == phase) {
		uint64_t begin = gn_now_ns();

		operate(g);
		tally->latency_ns[tally->operations++ % LATENCIES] = (float)(gn_now_ns() - begin);
		pause_guest(g);
	}
	cpu_ns = gn_clock_ns(CLOCK_THREAD_CPUTIME_ID) - cpu_ns;
	if (g->turn_count < TURNS && tally->operations > before)
		g->turns[g->turn_count++] =
			(struct turn){ phase,
				       (double)(tally->operations - before) / (double)cpu_ns };
}

static void run(struct gn_soft_cpu *cpu, void *ctx)
{
	struct sharing_guest *g = ctx;

	(void)cpu;
	while (!atomic_load(&g->is_stopping))
		run_phase(g, atomic_load(&g->phase));
}

static void *guest_main(void *ctx)
{
	struct sharing_guest *g = ctx;

	if (g->config.cpu)
		g->err = gn_soft_run(g->config.cpu, run, g);
	else
		run(NULL, g);
	return NULL;
}

int sharing_guest_start(const struct sharing_guest_config *config, struct sharing_guest **out)
{
	struct sharing_guest *g = calloc(1, sizeof(*g));
	int err = 0;

	if (!g)
		return -ENOMEM;
	g->config = *config;
	g->random = config->contents->seed + config->vm;
	g->phase = SHARING_NOT_COUNTED;
	for (unsigned i = 0; i < SHARING_PHASES && !err; i++) {
		g->tallies[i].latency_ns = malloc(LATENCIES * sizeof(float));
		err = g->tallies[i].latency_ns ? 0 : -ENOMEM;
	}
	if (!err)
		err = -pthread_create(&g->thread, NULL, guest_main, g);
	if (err) {
		sharing_guest_free(g);
		return err;
	}
	*out = g;
	return 0;
}

void sharing_guest_set_phase(struct sharing_guest *guest, enum sharing_phase phase)
{
	atomic_store(&guest->phase, phase);
}

int sharing_guest_stop(struct sharing_guest *guest)
{
	if (!guest)
		return 0;
	atomic_store(&guest->is_stopping, true);
	pthread_join(guest->thread, NULL);
	return guest->err ? guest->err : guest->mismatches ? -EBADMSG : 0;
}

void sharing_guest_free(struct sharing_guest *guest)
{
	for (unsigned i = 0; guest && i < SHARING_PHASES; i++)
		free(guest->tallies[i].latency_ns);
	free(guest);
}

static int compare_floats(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;

	return (x > y) - (x < y);
}

void sharing_guest_figures(struct sharing_guest *guest, enum sharing_phase phase,
			   struct sharing_guest_figures *out)
{
	struct tally *tally = &guest->tallies[phase];
	uint64_t kept = tally->operations < LATENCIES ? tally->operations : LATENCIES;

	*out = (struct sharing_guest_figures){ NAN, NAN };
	if (!kept)
		return;
	qsort(tally->latency_ns, kept, sizeof(float), compare_floats);
	out->p50_ns = (double)tally->latency_ns[kept / 2];
	out->p99_ns = (double)tally->latency_ns[kept * 99 / 100];
}

/* Of turns with the scanner on, against both neighbours. Returns how many. */
static size_t losses_of_turns(const struct sharing_guest *guest, float *losses)
{
	const struct turn *turns = guest->turns;
	size_t count = 0;

	for (size_t i = 1; i + 1 < guest->turn_count; i++)
		if (turns[i].phase == SHARING_SCANNER_ON &&
		    turns[i - 1].phase == SHARING_SCANNER_OFF &&
		    turns[i + 1].phase == SHARING_SCANNER_OFF)
			losses[count++] =
				(float)(1 - 2 * turns[i].per_ns /
						    (turns[i - 1].per_ns + turns[i + 1].per_ns));
	return count;
}

/* Its error is that of a trimmed mean: what was cut off counts as the last that was not (Yuen, Biometrika 61, 1974). */
struct sharing_loss sharing_guest_loss(const struct sharing_guest *guest)
{
	float losses[TURNS];
	const size_t count = losses_of_turns(guest, losses), cut = count / TRIMMED_PART,
		     kept = count - 2 * cut;
	double sum = 0, all = 0, squares = 0;

	if (count < 2)
		return (struct sharing_loss){ NAN, NAN };
	qsort(losses, count, sizeof(losses[0]), compare_floats);
	for (size_t i = 0; i < count; i++) {
		const size_t as = i < cut ? cut : i < count - cut ? i : count - cut - 1;

		sum += as == i ? (double)losses[i] : 0;
		all += (double)losses[as];
		squares += (double)losses[as] * (double)losses[as];
	}
	return (struct sharing_loss){
		.part = sum / (double)kept,
		.error = sqrt(fmax(squares - all * all / (double)count, 0) /
			      ((double)kept * (double)(kept - 1))),
	};
}
