/* SPDX-License-Identifier: MIT */
/*
 * share_races.c - pages of two VMs are published and merged while everybody goes on storing, and no store is ever lost, none
 * is seen by another, and what is shared stands still.
 *
 * In each VM a guest on the software machine, a device (gn_vm_write()) and a processor that stores as late after it translated as
 * it may each own a word in every page. They write few different values, so that pages are equal often, and remember what
 * they last wrote: their word must hold that, always. One thread publishes and merges, pages for data and the guests' page tables,
 * readable and sealed; it keeps some frames, with a copy of what is in them. Another moves pages, forms blocks, keeps a dirty log.
 * The guests clear the bits A and D of their entries and look whether they come back, and exchange their scheme.
 *
 * Once with a pool that the VMs have in common, once with a window in each, in which the pages of a third are.
 *
 * usage: share_races [SEED [CALLS]]
 */
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "mmu/vm.h"
#include "support/cases.h"
#include "support/racing.h"
#include "unit/soft_guest.h"

#define MIB	((uint64_t)1 << 20)
#define RAM	(16 * MIB)
#define VMS	2u
#define PAGES	24u
#define BLOCK	512u
#define FIRST	(4 * MIB / GN_PAGE_SIZE)
#define BASE	((uint64_t)0x40000000) /* maps gfn 0 */
#define WRITERS 3u		       /* of a VM; the guest is the first */
#define HELD	16u		       /* frames at a time */
#define BATCH	64u

static const unsigned offsets[WRITERS] = { 0, 2048, 4088 };
static const char *const schemes[] = { "native", "interp", "ept", "npt", "shadow" };
#define SCHEMES (sizeof(schemes) / sizeof(schemes[0]))

struct machine {
	struct guest guest;
	struct test_random random; /* the guest's */
	uint64_t first_table;	   /* gfn; the others follow, up to the end */
	uint64_t wrote[WRITERS][PAGES];
	bool has_slot[HELD]; /* the sharer's: lent and not returned */
};

/* A frame that the sharer has a reference to. */
struct held {
	bool is_held;
	pfn_t frame;
	uint8_t contents[GN_PAGE_SIZE];
};

static struct {
	const char *home;
	unsigned backing_level;
	bool has_window;
	uint64_t calls; /* of the sharer, to make at least */
	unsigned long failed_before;
	atomic_bool is_over;
	struct machine machines[VMS];
	struct gn_frames *pool; /* of both, or NULL */
	uint8_t *slots;		/* the window's, as their owner sees them: one for each held */
	pfn_t first_slot;
	struct held held[HELD]; /* the sharer's */
	uint64_t merged, copies_kept;
	_Atomic uint64_t changes, switches;
} world;

struct worker {
	struct machine *machine;
	unsigned writer;
	struct test_random random;
};

static gpa_t word_at(unsigned page, unsigned writer)
{
	uint64_t at = world.backing_level == 1 ? page : page / 8 * BLOCK + page % 8;

	return gpa((FIRST + at) * GN_PAGE_SIZE + offsets[writer]);
}

/* The engine's lock is not fair: who takes it in a loop leaves the others time. */
static void pause_us(long us)
{
	nanosleep(&(struct timespec){ .tv_nsec = us * 1000 }, NULL);
}

static uint64_t new_value(struct test_random *random)
{
	return test_random_once(random, 4) ? 2 : 1;
}

static void check(const char *what, unsigned writer, uint64_t have, uint64_t want)
{
	if (have != want)
		fail("%s, writer %u: %" PRIx64 ", must be %" PRIx64, what, writer, have, want);
}

/* ---- Who writes -------------------------------------------------------------------------------------------- */

static void access_page(struct machine *m, struct gn_soft_cpu *cpu, unsigned page)
{
	gva_t at = gva(BASE + word_at(page, 0).v);

	check("a load", 0, gn_soft_load(cpu, at, 8), m->wrote[0][page]);
	m->wrote[0][page] = new_value(&m->random);
	gn_soft_store(cpu, at, 8, m->wrote[0][page]);
}

/* The entry that maps the page loses A and D, and has both after a store. */
static void clear_bits(struct machine *m, struct gn_soft_cpu *cpu, unsigned page)
{
	uint64_t va = BASE + word_at(page, 0).v;
	gva_t at = gva(BASE + guest_entry_at(&m->guest, m->guest.cr3, va, world.backing_level));
	uint64_t entry = gn_soft_load(cpu, at, 8) & ~(uint64_t)(X86_PTE_A | X86_PTE_D);

	gn_soft_store(cpu, at, 8, entry);
	gn_soft_invlpg(cpu, gva(va));
	access_page(m, cpu, page);
	check("an entry", 0, gn_soft_load(cpu, at, 8), entry | X86_PTE_A | X86_PTE_D);
}

static void switch_scheme(struct machine *m)
{
	bool away = strcmp(gn_vm_scheme(m->guest.vm), world.home) != 0;
	const char *to = away ? world.home : schemes[test_random_below(&m->random, SCHEMES)];

	/* -EBUSY: native can't go on with the log. */
	if (!gn_vm_switch_scheme(m->guest.vm, to))
		atomic_fetch_add(&world.switches, 1);
}

static void guest(struct gn_soft_cpu *cpu, void *ctx)
{
	struct machine *m = ctx;

	guest_start(&m->guest, 0);
	while (!atomic_load(&world.is_over)) {
		unsigned page = (unsigned)test_random_below(&m->random, PAGES);

		if (test_random_once(&m->random, 16))
			clear_bits(m, cpu, page);
		else
			access_page(m, cpu, page);
		if (test_random_once(&m->random, 512))
			switch_scheme(m);
	}
}

static void *run_guest(void *ctx)
{
	struct worker *w = ctx;

	if (gn_soft_run(w->machine->guest.cpu, guest, w->machine))
		fail("the guest: %s", gn_soft_stop_reason(w->machine->guest.cpu));
	return NULL;
}

static void *device(void *ctx)
{
	struct worker *w = ctx;
	struct gn_vm *vm = w->machine->guest.vm;

	while (!atomic_load(&world.is_over)) {
		unsigned page = (unsigned)test_random_below(&w->random, PAGES);
		uint64_t *wrote = &w->machine->wrote[w->writer][page], have = 0;

		if (gn_vm_read(vm, word_at(page, w->writer), &have, 8))
			fail("a read");
		check("a read", w->writer, have, *wrote);
		*wrote = new_value(&w->random);
		if (gn_vm_write(vm, word_at(page, w->writer), wrote, 8))
			fail("a write");
		pause_us(20);
	}
	return NULL;
}

/* False: no right to store, so far. */
static bool store_late(struct worker *w, gpa_t at, uint64_t *wrote)
{
	struct gn_vm *vm = w->machine->guest.vm;
	p2m_word_t word;
	uint64_t *p;

	gn_rcu_read_lock();
	word = gn_p2m_get_to_store(vm, gpa_to_gfn(at));
	if (!gn_p2m_word_grants(word, GN_W)) {
		gn_rcu_read_unlock();
		return false;
	}
	p = gn_p2m_pointer_of(vm, word, at);
	check("a late look", w->writer, __atomic_load_n(p, __ATOMIC_RELAXED), *wrote);
	pause_us(50);
	*wrote = new_value(&w->random);
	__atomic_store_n(p, *wrote, __ATOMIC_RELAXED);
	gn_rcu_read_unlock();
	return true;
}

static void *late(void *ctx)
{
	struct worker *w = ctx;

	while (!atomic_load(&world.is_over)) {
		unsigned page = (unsigned)test_random_below(&w->random, PAGES);
		gpa_t at = word_at(page, w->writer);
		uint64_t *wrote = &w->machine->wrote[w->writer][page];

		while (!store_late(w, at, wrote))
			if (gn_vm_write(w->machine->guest.vm, at, wrote, 8)) /* for the right */
				fail("a write");
	}
	return NULL;
}

/* ---- Who shares --------------------------------------------------------------------------------------------- */

/* Some pages, in ascending order; or very few, of which the dirty log may know that nobody can write any. */
static size_t choose_pages(const struct machine *m, struct test_random *random,
			   struct gn_merge *pages)
{
	const unsigned one_in = test_random_once(random, 2) ? 2 : PAGES;
	size_t count = 0;

	for (unsigned page = 0; page < PAGES; page++)
		if (test_random_once(random, one_in))
			pages[count++].at = gpa_to_gfn(word_at(page, 0));
	for (uint64_t at = m->first_table; at < RAM / GN_PAGE_SIZE && count < BATCH; at++)
		if (test_random_once(random, 2 * one_in))
			pages[count++].at = gfn(at);
	return count;
}

static struct gn_frames *frames_of(unsigned i)
{
	return world.machines[i].guest.vm->frames;
}

static uint8_t *memory_of(pfn_t frame)
{
	return gn_frames_at(frames_of(0), pfn_to_hpa(frame));
}

static void hold(unsigned i, pfn_t frame)
{
	world.held[i].is_held = true;
	world.held[i].frame = frame;
	memcpy(world.held[i].contents, memory_of(frame), GN_PAGE_SIZE);
}

static void let_go(unsigned i)
{
	pfn_t frame = world.held[i].frame;

	if (!world.held[i].is_held)
		return;
	if (memcmp(world.held[i].contents, memory_of(frame), GN_PAGE_SIZE))
		fail("a frame that is shared has changed");
	world.copies_kept++;
	for (unsigned v = 0; v < (world.has_window ? VMS : 1); v++)
		gn_frames_put(frames_of(v), frame);
	world.held[i].is_held = false;
}

static void take_returned(unsigned v)
{
	struct machine *m = &world.machines[v];
	pfn_t out[HELD];
	size_t count = gn_frames_take_returned(frames_of(v), out, HELD);

	for (size_t i = 0; i < count; i++) {
		uint64_t slot = out[i].v - world.first_slot.v;

		if (slot >= HELD || !m->has_slot[slot])
			fail("a frame is returned that was not lent");
		else
			m->has_slot[slot] = false;
	}
}

/* What the owner of the window offers: made up, for it has no pages. */
static void offer_slot(unsigned i, struct test_random *random)
{
	uint8_t *page = world.slots + i * GN_PAGE_SIZE;
	pfn_t frame = pfn(world.first_slot.v + i);

	if (world.held[i].is_held || world.machines[0].has_slot[i] || world.machines[1].has_slot[i])
		return;
	for (unsigned w = 0; w < WRITERS; w++) {
		uint64_t value = new_value(random);

		memcpy(page + offsets[w], &value, 8);
	}
	for (unsigned v = 0; v < VMS; v++) {
		if (gn_frames_lend(frames_of(v), frame))
			fail("a frame was lent before");
		world.machines[v].has_slot[i] = true;
	}
	hold(i, frame);
}

static void publish(const struct machine *m, struct test_random *random,
		    enum gn_share_access access)
{
	struct gn_merge pages[BATCH];
	size_t count = choose_pages(m, random, pages);

	if (gn_p2m_publish(m->guest.vm, pages, count, access))
		fail("publishing");
	for (size_t i = 0; i < count; i++) {
		unsigned at = (unsigned)test_random_below(random, HELD);

		if (pages[i].result)
			continue;
		let_go(at);
		hold(at, pages[i].frame);
	}
}

static void merge(const struct machine *m, struct test_random *random, enum gn_share_access access)
{
	struct gn_merge pages[BATCH];
	size_t count = choose_pages(m, random, pages), n = 0;
	uint64_t merged;

	for (size_t i = 0; i < count; i++) {
		const struct held *held = &world.held[test_random_below(random, HELD)];

		if (held->is_held)
			pages[n++] = (struct gn_merge){ .at = pages[i].at, .frame = held->frame };
	}
	if (gn_p2m_merge(m->guest.vm, pages, n, access, &merged))
		fail("merging");
	world.merged += merged;
}

/* Few calls may meet nothing that is equal: it goes on until some have. */
static bool is_enough(uint64_t calls)
{
	bool any = world.merged && world.copies_kept && atomic_load(&world.changes);

	return atomic_load(&failures) != world.failed_before || (any && calls >= world.calls);
}

static void *sharer(void *ctx)
{
	struct worker *w = ctx;

	for (uint64_t i = 0; !is_enough(i); i++) {
		struct machine *m = &world.machines[test_random_below(&w->random, VMS)];
		enum gn_share_access access =
			test_random_once(&w->random, 3) ? GN_SHARE_SEALED : GN_SHARE_READ;
		unsigned at = (unsigned)test_random_below(&w->random, HELD);

		for (unsigned v = 0; v < VMS && world.has_window; v++)
			take_returned(v);
		if (world.has_window)
			offer_slot(at, &w->random);
		else if (test_random_once(&w->random, 3))
			publish(m, &w->random, access);
		merge(m, &w->random, access);
		merge(m, &w->random,
		      GN_SHARE_RESEAL); /* of those that are sealed, from frame to frame */
		if (test_random_once(&w->random, 4))
			let_go((unsigned)test_random_below(&w->random, HELD));
		pause_us(200);
	}
	for (unsigned i = 0; i < HELD; i++)
		let_go(i);
	atomic_store(&world.is_over, true);
	return NULL;
}

/* ---- Who else changes something ---------------------------------------------------------------------------- */

static void use_log(struct gn_vm *vm, struct test_random *random)
{
	static uint8_t bitmap[RAM / GN_PAGE_SIZE / 8];

	/* native can't have one. */
	if (gn_dirty_start(vm) && test_random_once(random, 3))
		gn_dirty_stop(vm);
	else
		(void)gn_dirty_harvest(vm, gfn(0), RAM / GN_PAGE_SIZE, bitmap);
}

static void *changer(void *ctx)
{
	struct worker *w = ctx;

	while (!atomic_load(&world.is_over)) {
		struct gn_vm *vm = world.machines[test_random_below(&w->random, VMS)].guest.vm;
		gfn_t a = gpa_to_gfn(word_at((unsigned)test_random_below(&w->random, PAGES), 0));
		gfn_t b = gpa_to_gfn(word_at((unsigned)test_random_below(&w->random, PAGES), 0));
		gfn_t block = gfn(a.v & ~(uint64_t)(BLOCK - 1));

		switch (test_random_below(&w->random, 5)) {
		case 0:
			if (gn_p2m_move(vm, a, 1))
				fail("a move");
			break;
		case 1:
			if (gn_p2m_protect(vm, block, BLOCK, false))
				fail("a protection");
			break;
		case 2:
			(void)gn_p2m_share(vm, a, b); /* they may differ */
			break;
		case 3:
			(void)gn_p2m_collapse(vm, block); /* part of it may be shared */
			break;
		default:
			use_log(vm, &w->random);
			break;
		}
		atomic_fetch_add(&world.changes, 1);
		pause_us(300);
	}
	return NULL;
}

/* ---- Runs ----------------------------------------------------------------------------------------------------- */

static void make_machine(struct machine *m, uint64_t seed)
{
	const struct gn_soft_config config = {
		.vm = { .scheme = world.home,
			.mem_bytes = RAM,
			.vcpus = 1,
			.backing_level = world.backing_level,
			.frames = world.pool,
			.pool_bytes = world.pool ? 0 : 4 * RAM,
			.window_bytes = world.has_window ? HELD * GN_PAGE_SIZE : 0 },
	};
	uint64_t step = gn_level_pages(world.backing_level) * GN_PAGE_SIZE;

	guest_create(&m->guest, &config, 4);
	m->random = test_random_seed(seed);
	for (uint64_t at = 0; at < RAM; at += step)
		guest_map(&m->guest, BASE + at, at, world.backing_level, GUEST_RW);
	m->first_table = m->guest.next_table / GN_PAGE_SIZE + 1;
}

static void make_pool(void)
{
	int fd;

	if (!world.has_window) {
		guest_need(gn_frames_new(8 * RAM, GN_POOL_ANONYMOUS, world.backing_level > 1,
					 &world.pool));
		return;
	}
	fd = memfd_create("slots", MFD_ALLOW_SEALING);
	guest_need(fd < 0 || ftruncate(fd, HELD * GN_PAGE_SIZE) ||
		   fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK));
	world.slots = mmap(NULL, HELD * GN_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	guest_need(world.slots == MAP_FAILED);
	for (unsigned v = 0; v < VMS; v++)
		guest_need(
			gn_frames_attach(frames_of(v), fd, HELD * GN_PAGE_SIZE, &world.first_slot));
	close(fd);
}

static void set_up(struct test_run *run, const char *scheme, unsigned backing_level,
		   bool has_window)
{
	memset(&world, 0, sizeof(world));
	world.home = scheme;
	world.backing_level = backing_level;
	world.has_window = has_window;
	world.calls = run->cases;
	world.failed_before = atomic_load(&failures);
	if (!has_window)
		make_pool();
	for (unsigned v = 0; v < VMS; v++)
		make_machine(&world.machines[v], run->seed + v);
	if (has_window)
		make_pool();
}

static void check_end(void)
{
	struct gn_audit_report report;

	for (unsigned v = 0; v < VMS; v++) {
		struct machine *m = &world.machines[v];

		for (unsigned writer = 0; writer < WRITERS; writer++) {
			for (unsigned page = 0; page < PAGES; page++) {
				uint64_t have = 0;

				if (gn_vm_read(m->guest.vm, word_at(page, writer), &have, 8))
					fail("a read");
				check("at the end", writer, have, m->wrote[writer][page]);
			}
		}
		if (gn_audit(m->guest.vm, &report))
			fail("audit: %s", report.first);
	}
	if (!world.merged || !world.copies_kept || !atomic_load(&world.changes))
		fail("nothing was merged, kept or changed");
}

static void tear_down(void)
{
	for (unsigned v = 0; v < VMS; v++)
		guest_destroy(&world.machines[v].guest);
	if (world.slots)
		munmap(world.slots, HELD * GN_PAGE_SIZE);
	if (!world.pool)
		return;
	if (gn_frames_used(world.pool))
		fail("%" PRIu64 " frames are left", gn_frames_used(world.pool));
	gn_frames_destroy(world.pool);
}

static void one_run(struct test_run *run, const char *scheme, unsigned backing_level,
		    bool has_window)
{
	static void *(*const bodies[])(void *) = { run_guest, device, late };
	enum { WORKERS = VMS * WRITERS + 2 };
	struct worker workers[WORKERS];
	pthread_t threads[WORKERS];

	set_up(run, scheme, backing_level, has_window);
	for (unsigned i = 0; i < WORKERS; i++) {
		workers[i] = (struct worker){ &world.machines[i % VMS], i / VMS,
					      test_random_seed(run->seed + 10 + i) };
		guest_need(pthread_create(&threads[i], NULL,
					  i / VMS < WRITERS ? bodies[i / VMS]
					  : i % VMS	    ? sharer
							    : changer,
					  &workers[i]));
	}
	for (unsigned i = 0; i < WORKERS; i++)
		pthread_join(threads[i], NULL);
	check_end();
	tear_down();
	printf("%s, backing level %u, %s: %" PRIu64 " pages merged, %" PRIu64 " changes, %" PRIu64
	       " switches, %lu failures\n",
	       scheme, backing_level, has_window ? "windows" : "one pool", world.merged,
	       atomic_load(&world.changes), atomic_load(&world.switches),
	       atomic_load(&failures) - world.failed_before);
	if (atomic_load(&failures) != world.failed_before)
		run->failed++;
	else
		run->passed++;
}

int main(int argc, char **argv)
{
	struct test_run run = test_run_start(argc, argv, 0x73686172, 60);

	for (unsigned i = 0; i < SCHEMES; i++)
		for (unsigned level = 1; level <= 2; level++)
			for (unsigned has_window = 0; has_window < 2; has_window++)
				one_run(&run, schemes[i], level, has_window);
	return test_run_end(&run);
}
