/* SPDX-License-Identifier: MIT */
/*
 * collapse_races.c - a guest that uses its memory while a balloon splits its blocks and they are formed again.
 *
 * vCPU threads are little machines as in p2m_stress.c, but with large translations: a TLB entry of a block that is one
 * covers all of it, so one that outlives a split, or a copy into another block, is used for real. A driver balloons
 * even pages and takes them back; a thread of the owner's forms blocks again, and takes frames of the pool and puts
 * them, so that a block's own place is now free and now not.
 *
 * What must hold: of an odd page no store is ever lost. An even page is all zeros or has its own stamp, and within one
 * read section a stamp that was seen stays. At the end no frame is lost, and the audit is clean.
 *
 * usage: collapse_races [seed]; GN_TEST_SCALE: percent of the full number of requests
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/balloon_driver.h"
#include "support/racing.h"

#define VCPUS	   3u
#define BLOCK	   512u
#define BLOCKS	   4u
#define PAGES	   (BLOCKS * BLOCK)
#define FIRST	   BLOCK /* the first block has the driver's rings */
#define SMALL	   64u	 /* TLB entries of one page */
#define OWN_AT	   16u	 /* a word of a page a vCPU, which only that vCPU writes */
#define LAST_WORD  511u
#define SQUATTERS  64u
#define AT_ONCE	   8u /* of them */
#define REQUESTS   200u
#define FORMED_MIN 20u

struct machine {
	struct gn_vcpu *vcpu;
	atomic_bool flush_posted;
	uint64_t x, visits, large_hits;
	uint64_t large[BLOCKS]; /* the word of a block's first page; 0: nothing */
	struct {
		uint64_t at, word;
	} small[SMALL];
	uint64_t own[PAGES]; /* what this machine last stored to its word of the page */
};

static struct gn_vm *vm;
static struct balloon_driver driver;
static struct machine machines[VCPUS];
static atomic_bool stop;
static atomic_ulong clock_ns, turns; /* of who forms */
static unsigned long requests = REQUESTS, formed, moved;

static void flush(struct gn_vcpu *vcpu, const struct gn_flush *what)
{
	struct machine *m = (struct machine *)vcpu->backend_data;

	(void)what;
	if (m)
		atomic_store_explicit(&m->flush_posted, true, memory_order_release);
}

static const struct gn_backend_ops backend = { .name = "collapse", .flush = flush };

/* Each look at the clock finds the balloon calm. */
static uint64_t now_ns(void *ctx)
{
	(void)ctx;
	return atomic_fetch_add(&clock_ns, GN_BALLOON_CALM_NS);
}

/* ---- Machines -------------------------------------------------------------------------------- */

static void enter(struct machine *m)
{
	gn_rcu_read_lock();
	if (atomic_exchange_explicit(&m->flush_posted, false, memory_order_acquire)) {
		memset(m->large, 0, sizeof(m->large));
		memset(m->small, 0, sizeof(m->small));
	}
}

/* Inside a read section: the page, or NULL when a fault is needed. */
static uint64_t *translate(struct machine *m, uint64_t at)
{
	uint64_t *large = &m->large[at / BLOCK];
	p2m_word_t w = { *large };

	if (w.v) {
		m->large_hits++;
		w.v += at % BLOCK << GN_P2M_PFN_SHIFT;
	} else if (m->small[at % SMALL].at == at && m->small[at % SMALL].word) {
		w.v = m->small[at % SMALL].word;
	} else {
		w = gn_p2m_get(&vm->p2m, gfn(at));
		if (!gn_p2m_word_grants(w, GN_RWX))
			return NULL;
		m->small[at % SMALL].at = at;
		m->small[at % SMALL].word = w.v;
		if (gn_p2m_word_level(w) == 2)
			*large = w.v - (at % BLOCK << GN_P2M_PFN_SHIFT);
	}
	return (uint64_t *)gn_p2m_pointer_of(vm, w, gfn_to_gpa(gfn(at)));
}

static uint64_t peek(const uint64_t *word)
{
	return __atomic_load_n(word, __ATOMIC_RELAXED);
}
static void poke(uint64_t *word, uint64_t value)
{
	__atomic_store_n(word, value, __ATOMIC_RELAXED);
}

static void check_stamp(const uint64_t *page, uint64_t at, unsigned word, bool *seen)
{
	uint64_t v = peek(&page[word]);

	if (v != at && (v || *seen))
		fail("gfn %u: %#llx in word %u", (unsigned)at, (unsigned long long)v, word);
	*seen |= v != 0;
}

static void use(struct machine *m, uint64_t *page, uint64_t at)
{
	const unsigned own = OWN_AT + m->vcpu->index;
	bool seen[2] = { at % 2, at % 2 };
	/* Now and then longer than a change takes. */
	unsigned looks = next(&m->x) % 256 ? 2 : 20000;

	for (unsigned i = 0; i < looks; i++) {
		check_stamp(page, at, 0, &seen[0]);
		check_stamp(page, at, LAST_WORD, &seen[1]);
	}
	if (at % 2) {
		if (peek(&page[own]) != m->own[at])
			fail("gfn %u: a store of vCPU %u is lost: %llu, not %llu", (unsigned)at,
			     m->vcpu->index, (unsigned long long)peek(&page[own]),
			     (unsigned long long)m->own[at]);
		poke(&page[own], ++m->own[at]);
	}
	poke(&page[0], at);
	poke(&page[LAST_WORD], at);
}

static void visit(struct machine *m, uint64_t at)
{
	struct gn_fix fix = { 0 };
	uint64_t *page;
	p2m_word_t w;

	for (;;) {
		enter(m);
		page = translate(m, at);
		if (page)
			use(m, page, at);
		gn_rcu_read_unlock();
		if (page)
			return;
		if (gn_p2m_resolve(vm, gfn(at), true, &w, &fix))
			fail("gfn %u: no memory", (unsigned)at);
		if (fix.kind != GN_FIX_RETRY)
			return;
	}
}

static void *run_machine(void *ctx)
{
	struct machine *m = (struct machine *)ctx;

	for (; !atomic_load_explicit(&stop, memory_order_relaxed); m->visits++)
		visit(m, FIRST + (next(&m->x) >> 20) % (PAGES - FIRST));
	return NULL;
}

/* ---- Who splits and who forms ---------------------------------------------------------------- */

/* Frames that left are taken by another meanwhile. */
static void await_turns(void)
{
	unsigned long end = atomic_load(&turns) + 2;

	while (atomic_load(&turns) < end)
		sched_yield();
}

static void *drive(void *ctx)
{
	uint64_t x = *(uint64_t *)ctx;
	uint32_t pfns[32];

	for (unsigned long i = 0;
	     i < requests || __atomic_load_n(&formed, __ATOMIC_RELAXED) < FORMED_MIN; i++) {
		uint64_t r = next(&x);
		uint32_t count = 1 + (uint32_t)(r >> 8) % 32;
		uint32_t first = FIRST + (uint32_t)(r >> 20) % (PAGES - FIRST - 2 * count) / 2 * 2;

		for (uint32_t k = 0; k < count; k++)
			pfns[k] = first + 2 * k;
		(void)driver_tell(&driver, 0, pfns, 4 * count);
		if (r >> 62 == 0)
			await_turns();
		(void)driver_tell(&driver, 1, pfns, 4 * count);
		sched_yield();
	}
	atomic_store(&stop, true);
	return NULL;
}

static pfn_t frame_of(unsigned block)
{
	return gn_p2m_word_pfn(gn_p2m_get(&vm->p2m, gfn(block * BLOCK + 1)));
}

/* Of some even page, where its block is now. */
static pfn_t place_of(uint64_t r)
{
	return pfn((frame_of((unsigned)(FIRST / BLOCK + (r >> 8) % (BLOCKS - FIRST / BLOCK))).v &
		    ~(uint64_t)(BLOCK - 1)) +
		   (r >> 20) % (BLOCK / 2) * 2);
}

static void *form(void *ctx)
{
	pfn_t taken[SQUATTERS] = { { 0 } };
	bool has[SQUATTERS] = { false };
	pfn_t before[BLOCKS];
	uint64_t x = *(uint64_t *)ctx;

	for (unsigned turn = 0; !atomic_load(&stop); turn++, atomic_fetch_add(&turns, 1)) {
		for (unsigned k = 0; k < AT_ONCE; k++) {
			unsigned i = (turn * AT_ONCE + k) % SQUATTERS;

			if (has[i])
				gn_frames_put(vm->frames, taken[i]);
			has[i] =
				!gn_frames_alloc_home(vm->frames, 1, place_of(next(&x)), &taken[i]);
		}
		for (unsigned block = 0; block < BLOCKS; block++)
			before[block] = frame_of(block);
		__atomic_fetch_add(&formed, gn_balloon_reform(driver.balloon, BLOCKS),
				   __ATOMIC_RELAXED);
		for (unsigned block = 0; block < BLOCKS; block++)
			moved += frame_of(block).v != before[block].v;
		sched_yield();
	}
	for (unsigned i = 0; i < SQUATTERS; i++)
		if (has[i])
			gn_frames_put(vm->frames, taken[i]);
	return NULL;
}

/* ---- The run --------------------------------------------------------------------------------- */

static void start(uint64_t seed)
{
	const struct gn_vm_config config = { .scheme = "bare",
					     .mem_bytes = PAGES * GN_PAGE_SIZE,
					     .vcpus = VCPUS,
					     .backing_level = 2,
					     .backend = &backend };
	const struct gn_balloon_config device = { .now_ns = now_ns };

	if (gn_scheme_register(&bare_scheme) || gn_vm_create(&config, &vm) ||
	    gn_balloon_create(vm, &device, &driver.balloon))
		abort();
	driver.vm = vm;
	if (!driver_start(&driver, GN_BALLOON_F_MUST_TELL_HOST))
		abort();
	for (unsigned i = 0; i < VCPUS; i++) {
		machines[i].vcpu = gn_vm_vcpu(vm, i);
		machines[i].x = (seed + 1) * 1000003 + i;
		gn_vcpu_set_backend(machines[i].vcpu, &machines[i]);
	}
	for (uint64_t at = FIRST + 1; at < PAGES; at += 2)
		if (gn_vm_write(vm, gfn_to_gpa(gfn(at)), &at, sizeof(at)) ||
		    gn_vm_write(vm, gpa(gfn_to_gpa(gfn(at)).v + LAST_WORD * 8), &at, sizeof(at)))
			abort();
}

static void check_end(void)
{
	struct gn_audit_report report;

	for (uint64_t at = FIRST + 1; at < PAGES; at += 2)
		for (unsigned i = 0; i < VCPUS; i++) {
			uint64_t value = 0;

			gn_vm_read(vm, gpa(gfn_to_gpa(gfn(at)).v + (OWN_AT + i) * 8), &value, 8);
			if (value != machines[i].own[at])
				fail("gfn %u: vCPU %u's store is lost at the end", (unsigned)at, i);
		}
	gn_retire_drain(vm);
	if (gn_frames_used(vm->frames) != vm->p2m.backed_pages)
		fail("%llu frames for %llu pages", (unsigned long long)gn_frames_used(vm->frames),
		     (unsigned long long)vm->p2m.backed_pages);
	if (gn_audit(vm, &report))
		fail("audit: %s", report.first);
	if (!moved || moved == formed)
		fail("%lu blocks formed and %lu of them elsewhere: one way was not taken", formed,
		     moved);
}

int main(int argc, char **argv)
{
	const char *scale = getenv("GN_TEST_SCALE");
	uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
	uint64_t seeds[2] = { seed * 7919 + 1, seed * 104729 + 1 };
	pthread_t threads[VCPUS + 2];
	unsigned long visits = 0, large_hits = 0;

	if (scale)
		requests = REQUESTS * strtoul(scale, NULL, 10) / 100 + 1;
	start(seed);
	for (unsigned i = 0; i < VCPUS; i++)
		pthread_create(&threads[i], NULL, run_machine, &machines[i]);
	pthread_create(&threads[VCPUS], NULL, drive, &seeds[0]);
	pthread_create(&threads[VCPUS + 1], NULL, form, &seeds[1]);
	for (unsigned i = 0; i < VCPUS + 2; i++)
		pthread_join(threads[i], NULL);
	for (unsigned i = 0; i < VCPUS; i++) {
		visits += machines[i].visits;
		large_hits += machines[i].large_hits;
	}
	check_end();
	gn_balloon_destroy(driver.balloon);
	gn_vm_destroy(vm);
	printf("seed %llu: %lu visits, %lu by large translations; %lu blocks formed, %lu of them "
	       "elsewhere\n",
	       (unsigned long long)seed, visits, large_hits, formed, moved);
	printf("%d passed, %d failed\n", !failures, failures != 0);
	return failures != 0;
}
