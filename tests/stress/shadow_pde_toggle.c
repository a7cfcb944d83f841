/* SPDX-License-Identifier: MIT */
/*
 * shadow_pde_toggle.c - one gfn is a page table and the first page of a 2 MiB page, and one PDE toggles between
 * the two while other vCPUs fault through it.
 *
 * That geometry confused direct with indirect shadow pages in another hypervisor for sixteen years
 * (CVE-2026-53359: use after free, escape to the host). Two vCPUs fault, a third toggles the PDE and rewrites
 * entries of the table, and from outside frames of both are moved. Each page of guest memory knows its own
 * gfn, so a wrong translation shows at once; the audit shows the rest.
 */
#include <sched.h>
#include <time.h>

#include "support/cases.h"
#include "unit/shadow_rig.h"

#define USER  ((uint64_t)0x40000000)
#define BLOCK ((uint64_t)4 << 20)
#define PAGES 8
#define STAMP 2048 /* offset in a page of its own gfn */

struct shared {
	struct rig rig;
	uint64_t pde, cases, seed;
	_Atomic uint64_t toggles, moves;
	_Atomic bool done;
	_Atomic unsigned failures;
};

struct worker {
	struct shared *shared;
	struct gn_vcpu *vcpu;
	unsigned index;
};

/* So that two cores leave the faulters some time. */
static void pause_us(long us)
{
	nanosleep(&(struct timespec){ .tv_nsec = us * 1000 }, NULL);
}

static void fail(struct shared *s, const char *what, uint64_t have)
{
	if (atomic_fetch_add(&s->failures, 1) < 5)
		printf("%s: %#" PRIx64 "\n", what, have);
}

/* Page i is gfn i of the block by the large page, gfn i + 1 or i + 2 by the table. */
static void *faulter(void *arg)
{
	struct worker *w = arg;
	struct shared *s = w->shared;
	struct test_random r = test_random_seed(s->seed + w->index);
	uint64_t base = BLOCK >> 12;

	for (uint64_t n = 0; n < s->cases && !atomic_load(&s->failures); n++) {
		uint64_t page = test_random_below(&r, PAGES), va = USER + page * 4096;
		struct rig_result got;

		if (test_random_once(&r, 3))
			got = rig_store_on(&s->rig, w->vcpu, va + STAMP + 8 * (1 + w->index), n,
					   true);
		else
			got = rig_load_on(&s->rig, w->vcpu, va + STAMP, true);
		if (got.end != RIG_OK && got.end != RIG_LOOP)
			fail(s, "an access ended", got.end);
		if (got.end == RIG_OK && got.value > 0xffffffff &&
		    (got.value >> 32 < base + page || got.value >> 32 > base + page + 2))
			fail(s, "a page of another gfn", got.value);
		if (test_random_once(&r, 4))
			gn_vcpu_invlpg(w->vcpu, gva(va));
		if (test_random_once(&r, 16))
			sched_yield();
		if (test_random_once(&r, 64)) {
			bool gp;

			if (gn_vcpu_write_cr3(w->vcpu, s->rig.root, &gp))
				fail(s, "CR3", 0);
		}
	}
	return NULL;
}

static void *toggler(void *arg)
{
	struct worker *w = arg;
	struct shared *s = w->shared;
	struct test_random r = test_random_seed(s->seed + 100);

	while (!atomic_load(&s->done)) {
		uint64_t i = test_random_below(&r, PAGES), at = RIG_LINEAR + s->pde, value;
		struct rig_result got;

		value = BLOCK | USER_RW | (test_random_once(&r, 2) ? LARGE : 0);
		if (test_random_once(&r, 3)) {
			at = RIG_LINEAR + BLOCK + i * 8;
			value = (BLOCK + (i + 1 + test_random_below(&r, 2)) * 4096) | USER_RW;
			if (test_random_once(&r, 4))
				value &= ~(X86_PTE_A | X86_PTE_D);
		}
		got = rig_store_on(&s->rig, w->vcpu, at, value, false);
		if (got.end != RIG_OK && got.end != RIG_LOOP)
			fail(s, "a table store ended", got.end);
		gn_vcpu_invlpg(w->vcpu, gva(USER + i * 4096));
		atomic_fetch_add(&s->toggles, 1);
		pause_us(5);
	}
	return NULL;
}

static void *mover(void *arg)
{
	struct worker *w = arg;
	struct shared *s = w->shared;
	struct test_random r = test_random_seed(s->seed + 200);

	while (!atomic_load(&s->done)) {
		uint64_t at = (BLOCK >> 12) + test_random_below(&r, PAGES + 2);

		if (test_random_once(&r, 8))
			at = s->pde >> 12;
		if (gn_p2m_move(s->rig.vm, gfn(at), 1))
			fail(s, "a move", at);
		atomic_fetch_add(&s->moves, 1);
		pause_us(100);
	}
	return NULL;
}

static void set_up(struct shared *s, const char *scheme, unsigned backing)
{
	const struct gn_vm_config config = { .scheme = scheme,
					     .vcpus = 3,
					     .backing_level = backing };
	struct rig *rig = &s->rig;

	rig_create(rig, &config);
	rig_linear(rig, rig->root, 1);
	for (unsigned i = 0; i < 3; i++)
		rig_mode(gn_vm_vcpu(rig->vm, i), rig->root, X86_CR0_WP, X86_CR4_PGE);
	for (uint64_t i = 0; i < 512; i++)
		rig_write(rig, BLOCK + i * 4096 + STAMP, ((BLOCK >> 12) + i) << 32 | 1);
	for (uint64_t i = 0; i < PAGES; i++)
		rig_write(rig, BLOCK + i * 8, (BLOCK + (i + 1) * 4096) | USER_RW);
	s->pde = rig_entry(rig, rig->root, USER, 2);
	rig_write(rig, s->pde, BLOCK | USER_RW | LARGE);
}

static void one_run(struct test_run *run, const char *scheme, unsigned backing)
{
	static struct shared s;
	struct gn_audit_report report;
	struct worker w[4];
	pthread_t thread[4];

	memset(&s, 0, sizeof(s));
	s.seed = run->seed;
	s.cases = run->cases;
	set_up(&s, scheme, backing);
	for (unsigned i = 0; i < 4; i++) {
		w[i] = (struct worker){ &s, i < 3 ? gn_vm_vcpu(s.rig.vm, i) : NULL, i };
		if (pthread_create(&thread[i], NULL,
				   i < 2    ? faulter
				   : i == 2 ? toggler
					    : mover,
				   &w[i]))
			abort();
	}
	for (unsigned i = 0; i < 4; i++) {
		if (i == 2)
			atomic_store(&s.done, true);
		pthread_join(thread[i], NULL);
	}
	if (gn_audit(s.rig.vm, &report)) {
		printf("audit: %s\n", report.first);
		atomic_fetch_add(&s.failures, 1);
	}
	printf("%s, backing level %u: %" PRIu64 " faults, %" PRIu64 " emulated, %" PRIu64
	       " toggles, %" PRIu64 " moves, %u failures\n",
	       scheme, backing, s.rig.faults, s.rig.emulated, atomic_load(&s.toggles),
	       atomic_load(&s.moves), atomic_load(&s.failures));
	if (atomic_load(&s.failures) || !s.rig.faults || !atomic_load(&s.toggles))
		run->failed++;
	else
		run->passed++;
	rig_end(&s.rig);
}

int main(int argc, char **argv)
{
	struct test_run run = test_run_start(argc, argv, 0x746f67, 200000);

	for (unsigned backing = 1; backing <= 2; backing++) {
		one_run(&run, "shadow", backing);
		one_run(&run, "shadow-vtlb", backing);
	}
	return test_run_end(&run);
}
