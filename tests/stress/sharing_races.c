/* SPDX-License-Identifier: MIT */
/*
 * sharing_races.c - a domain sweeps and scans while its guests run, their devices store, VMs leave it and come back, hints are given and
 * frames reclaimed, and no store is ever lost.
 *
 * In each VM a guest on the software machine and a device each own a word in every page, and remember what they last wrote:
 * their word must hold that, always. They write few different values, to a few pages at a time, so that most pages rest and
 * have their like. The guests exchange their schemes. In the last run each is over a template, in a domain of its own.
 *
 * usage: sharing_races [SEED [ROUNDS]]
 */
#include <pthread.h>
#include <string.h>
#include <time.h>

#include <gnomon/sharing.h>

#include "mmu/vm.h"
#include "support/cases.h"
#include "support/racing.h"
#include "support/template.h"
#include "unit/soft_guest.h"

#define MIB	((uint64_t)1 << 20)
#define RAM	(8 * MIB)
#define VMS	2u
#define PAGES	256u
#define FIRST	(2 * MIB / GN_PAGE_SIZE)
#define BASE	((uint64_t)0x40000000)
#define WRITERS 2u  /* of a VM; the guest is the first */
#define AT_ONCE 16u /* pages that are written for a while */
#define ROUNDS	2000

static const unsigned offsets[WRITERS] = { 0, 4088 };
static const char *const schemes[] = { "interp", "ept", "npt", "shadow" };
#define SCHEMES (sizeof(schemes) / sizeof(schemes[0]))

struct machine {
	struct guest guest;
	uint64_t wrote[WRITERS][PAGES];
};

static struct {
	struct machine machines[VMS];
	struct gn_frames *pool; /* NULL: each has its own, over the template */
	int template_fd;
	struct gn_domain *domains[VMS];
	unsigned domain_count; /* one for all, or one for each */
	uint64_t rounds;
	atomic_bool is_over;
} world;

struct worker {
	struct machine *machine;
	struct test_random random;
};

static gpa_t word_at(unsigned page, unsigned writer)
{
	return gpa((FIRST + page) * GN_PAGE_SIZE + offsets[writer]);
}

static struct gn_domain *domain_of(const struct machine *m)
{
	return world.domains[world.domain_count > 1 ? m - world.machines : 0];
}

static void pause_us(long us)
{
	nanosleep(&(struct timespec){ .tv_nsec = us * 1000 }, NULL);
}

static void check(const char *what, uint64_t have, uint64_t want)
{
	if (have != want)
		fail("%s: %" PRIx64 ", must be %" PRIx64, what, have, want);
}

/* ---- Who writes ---------------------------------------------------------------------------------------- */

static void switch_scheme(struct worker *w)
{
	if (gn_vm_switch_scheme(w->machine->guest.vm,
				schemes[test_random_below(&w->random, SCHEMES)]))
		fail("a switch");
}

static void guest(struct gn_soft_cpu *cpu, void *ctx)
{
	struct worker *w = ctx;
	struct machine *m = w->machine;

	guest_start(&m->guest, 0);
	while (!atomic_load(&world.is_over)) {
		unsigned first = (unsigned)test_random_below(&w->random, PAGES - AT_ONCE);

		for (unsigned i = 0; i < 64; i++) {
			unsigned page = first + (unsigned)test_random_below(&w->random, AT_ONCE);
			gva_t at = gva(BASE + word_at(page, 0).v);

			check("a load", gn_soft_load(cpu, at, 8), m->wrote[0][page]);
			m->wrote[0][page] = test_random_below(&w->random, 3);
			gn_soft_store(cpu, at, 8, m->wrote[0][page]);
		}
		if (test_random_once(&w->random, 256))
			switch_scheme(w);
		pause_us(50);
	}
}

static void *run_guest(void *ctx)
{
	struct worker *w = ctx;

	if (gn_soft_run(w->machine->guest.cpu, guest, w))
		fail("the guest: %s", gn_soft_stop_reason(w->machine->guest.cpu));
	return NULL;
}

static void *run_device(void *ctx)
{
	struct worker *w = ctx;
	struct gn_vm *vm = w->machine->guest.vm;

	while (!atomic_load(&world.is_over)) {
		unsigned page = (unsigned)test_random_below(&w->random, PAGES);
		uint64_t *wrote = &w->machine->wrote[1][page], have = 0;

		if (gn_vm_read(vm, word_at(page, 1), &have, 8))
			fail("a read");
		check("a read", have, *wrote);
		*wrote = test_random_below(&w->random, 2);
		if (gn_vm_write(vm, word_at(page, 1), wrote, 8))
			fail("a write");
		pause_us(200);
	}
	return NULL;
}

/* ---- Who shares ------------------------------------------------------------------------------------------ */

static void sweep_and_scan(struct gn_domain *domain)
{
	bool done;

	if (gn_domain_sweep(domain))
		fail("a sweep");
	do {
		if (gn_domain_scan(domain, 100000, &done))
			fail("a scan");
	} while (!done);
}

static void *run_domain(void *ctx)
{
	struct gn_sharing_stats stats = { 0 };

	(void)ctx;
	/* Nothing may stand still for long where threads are slow: it goes on until something was merged. */
	for (uint64_t i = 0; (i < world.rounds || !stats.pages_merged) && !atomic_load(&failures);
	     i++) {
		for (unsigned d = 0; d < world.domain_count; d++)
			sweep_and_scan(world.domains[d]);
		gn_domain_stats(world.domains[0], &stats);
		pause_us(300);
	}
	atomic_store(&world.is_over, true);
	if (!stats.pages_merged)
		fail("nothing was merged");
	printf("%" PRIu64 " merged, %" PRIu64 " zeros, %" PRIu64 " differed, %" PRIu64
	       " given up\n",
	       stats.pages_merged, stats.zero_pages, stats.pages_differed, stats.frames_given_up);
	return NULL;
}

static void *run_owner(void *ctx)
{
	struct worker *w = ctx;

	while (!atomic_load(&world.is_over)) {
		struct machine *m = &world.machines[test_random_below(&w->random, VMS)];
		struct gn_domain *domain = domain_of(m);
		struct gn_vm *vm = m->guest.vm;
		gfn_t at = gfn(FIRST + test_random_below(&w->random, PAGES));

		switch (test_random_below(&w->random, 16)) {
		case 0:
			gn_domain_remove(domain, vm);
			if (gn_domain_add(domain, vm))
				fail("coming back");
			break;
		case 1:
			gn_domain_reclaim(domain);
			break;
		case 2:
			(void)gn_p2m_collapse(vm, gfn(FIRST)); /* part of it may be shared */
			break;
		default:
			if (gn_domain_hint(domain, vm, at, 1,
					   (enum gn_share_hint)test_random_below(&w->random, 3)))
				fail("a hint");
		}
		pause_us(1000);
	}
	return NULL;
}

/* ---- Runs --------------------------------------------------------------------------------------------------- */

static void make_machine(struct machine *m, unsigned backing_level)
{
	struct gn_soft_config config = { .vm = { .scheme = "shadow",
						 .mem_bytes = RAM,
						 .vcpus = 1,
						 .backing_level = backing_level,
						 .frames = world.pool } };

	if (world.template_fd >= 0) {
		config.vm.pool = GN_POOL_TEMPLATE;
		config.vm.template_fd = world.template_fd;
	}
	guest_create(&m->guest, &config, 4);
	for (uint64_t at = 0; at < RAM; at += GN_PAGE_SIZE)
		guest_map(&m->guest, BASE + at, at, 1, GUEST_RW);
}

static void make_pool(unsigned backing_level, bool over_template)
{
	world.template_fd = -1;
	if (!over_template) {
		guest_need(gn_frames_new(4 * VMS * RAM, GN_POOL_ANONYMOUS, backing_level > 1,
					 &world.pool));
		return;
	}
	world.template_fd = template_empty(RAM);
	guest_need(fcntl(world.template_fd, F_ADD_SEALS, TEMPLATE_SEALS));
}

static void set_up(const struct test_run *run, unsigned backing_level, bool quiet,
		   bool over_template)
{
	struct gn_domain_config config = { .quiet = quiet,
					   .settle_sweeps = 1,
					   .split_pages = 8,
					   .max_pages = VMS * RAM / GN_PAGE_SIZE };

	memset(&world, 0, sizeof(world));
	world.rounds = run->cases;
	world.domain_count = over_template ? VMS : 1;
	make_pool(backing_level, over_template);
	for (unsigned v = 0; v < VMS; v++)
		make_machine(&world.machines[v], backing_level);
	for (unsigned d = 0; d < world.domain_count; d++) {
		config.frames = gn_vm_frames(world.machines[d].guest.vm);
		guest_need(gn_domain_create(&config, &world.domains[d]));
	}
	for (unsigned v = 0; v < VMS; v++)
		guest_need(
			gn_domain_add(domain_of(&world.machines[v]), world.machines[v].guest.vm));
}

static void check_end(void)
{
	struct gn_audit_report report;

	if (gn_domain_audit(world.domains, world.domain_count, &report))
		fail("audit of the domain: %s", report.first);
	for (unsigned v = 0; v < VMS; v++) {
		struct machine *m = &world.machines[v];

		for (unsigned i = 0; i < WRITERS * PAGES; i++) {
			uint64_t have = 0;

			if (gn_vm_read(m->guest.vm, word_at(i / WRITERS, i % WRITERS), &have, 8))
				fail("a read");
			check("at the end", have, m->wrote[i % WRITERS][i / WRITERS]);
		}
		if (gn_audit(m->guest.vm, &report))
			fail("audit: %s", report.first);
	}
}

static void tear_down(void)
{
	for (unsigned d = 0; d < world.domain_count; d++)
		gn_domain_destroy(world.domains[d]);
	for (unsigned v = 0; v < VMS; v++)
		guest_destroy(&world.machines[v].guest);
	if (world.template_fd >= 0)
		close(world.template_fd);
	if (world.pool && gn_frames_used(world.pool))
		fail("%" PRIu64 " frames are left", gn_frames_used(world.pool));
	gn_frames_destroy(world.pool);
}

static void race(struct test_run *run, unsigned backing_level, bool quiet, bool over_template)
{
	static void *(*const jobs[])(void *) = { run_guest,  run_guest,	 run_device,
						 run_device, run_domain, run_owner };
	enum { JOBS = sizeof(jobs) / sizeof(jobs[0]) };
	const unsigned long failed_before = atomic_load(&failures);
	struct worker workers[JOBS];
	pthread_t threads[JOBS];

	set_up(run, backing_level, quiet, over_template);
	for (unsigned i = 0; i < JOBS; i++) {
		workers[i].machine = &world.machines[i % VMS];
		workers[i].random = test_random_seed(run->seed + i);
		guest_need(pthread_create(&threads[i], NULL, jobs[i], &workers[i]));
	}
	for (unsigned i = 0; i < JOBS; i++)
		pthread_join(threads[i], NULL);
	check_end();
	tear_down();
	if (atomic_load(&failures) == failed_before)
		run->passed++;
	else
		run->failed++;
}

int main(int argc, char **argv)
{
	struct test_run run = test_run_start(argc, argv, 0x5ace, ROUNDS);

	race(&run, 1, false, false);
	race(&run, 1, true, false);
	race(&run, 2, false, false);
	race(&run, 1, false, true);
	return test_run_end(&run);
}
