/* SPDX-License-Identifier: MIT */
/*
 * anchor_races.c - pages are sealed, anchored, merged into frames of others and their anchors lifted, while devices use them all the time,
 * in a pool that has hardly more frames than the guest has pages.
 *
 * Two devices own every second page each. They write few different values, so that pages often equal a frame of the window, and
 * read what they wrote last. Anchors of frames that nobody uses hold the pool full: so copies are made of frames that anchors yield, or
 * that are just being lifted, and none may fail.
 *
 * usage: anchor_races [SEED [CALLS]]
 */
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <gnomon/schemes.h>

#include "mmu/retire.h"
#include "mmu/vm.h"
#include "support/cases.h"
#include "support/racing.h"

#define POOL  ((uint64_t)8 << 20)
#define BATCH 64u /* published, and not anchored yet */
#define PAGES                                                                                      \
	(2048u - BATCH -                                                                           \
	 24u) /* of the guest: tables and copies under way are all that fits besides */
#define DEVICES	  2u
#define VALUES	  6u
#define CALLS	  6000
#define CALLS_MAX 60000

static struct gn_vm *vm;
static pfn_t first; /* of the window: VALUES pages, full of 1, 2, ... */
static uint8_t wrote[PAGES];
static uint64_t merged, fullest;
static atomic_bool is_over;

static void need(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "anchor_races: %s\n", what);
	exit(1);
}

static void write_page(uint64_t page, uint8_t value)
{
	uint8_t bytes[GN_PAGE_SIZE];
	int err;

	memset(bytes, value, sizeof(bytes));
	err = gn_vm_write(vm, gpa(page * GN_PAGE_SIZE), bytes, sizeof(bytes));
	if (err)
		fail("a write: %s", strerror(-err));
	wrote[page] = value;
}

static void read_page(uint64_t page)
{
	uint8_t bytes[GN_PAGE_SIZE];
	int err = gn_vm_read(vm, gpa(page * GN_PAGE_SIZE), bytes, sizeof(bytes));

	if (err)
		fail("a read: %s", strerror(-err));
	for (unsigned i = 0; i < sizeof(bytes) && !err; i++)
		if (bytes[i] != wrote[page]) {
			fail("page %" PRIu64 " holds %u at %u, not %u", page, bytes[i], i,
			     wrote[page]);
			break;
		}
}

struct device {
	unsigned number;
	struct test_random random;
};

static void *use_pages(void *ctx)
{
	struct device *d = ctx;

	while (!atomic_load(&is_over)) {
		uint64_t page =
			test_random_below(&d->random, PAGES / DEVICES) * DEVICES + d->number;

		if (test_random_once(&d->random, 2))
			read_page(page);
		else
			write_page(page, (uint8_t)(1 + test_random_below(&d->random, VALUES)));
	}
	return NULL;
}

/* Some pages, ascending. */
static size_t choose(struct test_random *random, struct gn_merge *pages)
{
	uint64_t at = test_random_below(random, PAGES / 2);
	size_t count = 0;

	for (; count < BATCH && at < PAGES; at += 1 + test_random_below(random, 30))
		pages[count++] = (struct gn_merge){ .at = gfn(at) };
	return count;
}

static void seal(struct test_random *random)
{
	struct gn_merge pages[BATCH];
	size_t count = choose(random, pages);

	if (gn_p2m_publish(vm, pages, count, GN_SHARE_SEALED))
		fail("publishing");
	for (size_t i = 0; i < count; i++)
		if (!pages[i].result)
			gn_frames_anchor(vm->frames, pages[i].frame);
}

static void merge(struct test_random *random)
{
	struct gn_merge pages[BATCH];
	size_t count = choose(random, pages);

	for (size_t i = 0; i < count; i++) {
		pages[i].frame = pfn(first.v + test_random_below(random, VALUES));
		if (gn_frames_lend(vm->frames, pages[i].frame) < 0)
			fail("lending");
	}
	if (gn_p2m_merge(vm, pages, count, GN_SHARE_RESEAL, NULL))
		fail("merging");
	for (size_t i = 0; i < count; i++) {
		merged += !pages[i].result;
		if (pages[i].result)
			gn_frames_put(vm->frames, pages[i].frame);
		else
			gn_frames_anchor(vm->frames, pages[i].frame);
	}
}

static void look(void)
{
	const uint64_t used = gn_frames_used(vm->frames);
	pfn_t returned[VALUES];

	fullest = used > fullest ? used : fullest;
	if (gn_frames_take_returned(vm->frames, returned, VALUES) > VALUES)
		fail("more was returned than was lent");
}

static bool was_full(void)
{
	return fullest + 8 >= vm->frames->own_count;
}

/* As often as asked, and on until the pool was full: how soon the devices fill it is the machine's affair. */
static void seal_and_merge(struct test_random *random, uint64_t calls)
{
	struct gn_anchors left;

	for (uint64_t i = 0; i < calls || (!was_full() && i < CALLS_MAX); i++) {
		seal(random);
		merge(random);
		look();
		if (!test_random_once(random, 8))
			continue;
		gn_retire_drain_always(vm);
		gn_frames_lift_anchors(vm->frames, &left);
	}
}

static void set_up(void)
{
	const struct gn_vm_config config = { .scheme = "ept",
					     .mem_bytes = PAGES * GN_PAGE_SIZE,
					     .pool_bytes = POOL,
					     .vcpus = 1,
					     .window_bytes = (uint64_t)2 << 20 };
	int fd = memfd_create("owner", MFD_ALLOW_SEALING);
	uint8_t *owner;

	need(!gn_schemes_register_all() && !gn_vm_create(&config, &vm), "no VM");
	need(fd >= 0 && !ftruncate(fd, VALUES * GN_PAGE_SIZE) &&
		     !fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK),
	     "no memory of others");
	owner = mmap(NULL, VALUES * GN_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	need(owner != MAP_FAILED, "nor a mapping of it");
	for (unsigned i = 0; i < VALUES; i++)
		memset(owner + i * GN_PAGE_SIZE, (int)i + 1, GN_PAGE_SIZE);
	munmap(owner, VALUES * GN_PAGE_SIZE);
	need(!gn_frames_attach(vm->frames, fd, VALUES * GN_PAGE_SIZE, &first), "nor a window");
	close(fd);
	for (uint64_t page = 0; page < PAGES; page++)
		write_page(page, 1);
}

static void check_end(void)
{
	struct gn_audit_report report;
	pfn_t returned[VALUES];

	for (uint64_t page = 0; page < PAGES; page++)
		read_page(page);
	gn_retire_drain(vm);
	gn_frames_drop_anchors(vm->frames);
	if (gn_audit(vm, &report))
		fail("audit: %s", report.first);
	(void)gn_frames_take_returned(vm->frames, returned, VALUES);
	if (gn_frames_detach(vm->frames, first))
		fail("the window is in use, and every page was read");
	if (!merged || !was_full())
		fail("%" PRIu64 " merged, %" PRIu64 " frames used at most", merged, fullest);
}

int main(int argc, char **argv)
{
	struct test_run run = test_run_start(argc, argv, 0x616e, CALLS);
	struct test_random random = test_random_seed(run.seed);
	struct device devices[DEVICES];
	pthread_t threads[DEVICES];

	set_up();
	for (unsigned i = 0; i < DEVICES; i++) {
		devices[i] = (struct device){ i, test_random_seed(run.seed + 1 + i) };
		need(!pthread_create(&threads[i], NULL, use_pages, &devices[i]), "no thread");
	}
	seal_and_merge(&random, run.cases);
	atomic_store(&is_over, true);
	for (unsigned i = 0; i < DEVICES; i++)
		pthread_join(threads[i], NULL);
	check_end();
	gn_vm_destroy(vm);
	printf("%" PRIu64 " pages merged, %" PRIu64 " frames of %" PRIu64 " used at most\n", merged,
	       fullest, POOL / GN_PAGE_SIZE);
	*(atomic_load(&failures) ? &run.failed : &run.passed) += 1;
	return test_run_end(&run);
}
