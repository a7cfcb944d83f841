/* SPDX-License-Identifier: MIT */
/*
 * sharing_kvm.c - the contents in the RAM of a real guest, shared while it runs.
 *
 * A VM on KVM owns its pool, and in one process sharing is within one pool. So the memories of all VMs of the case lie in the
 * RAM of one, one after the other, under nested paging. Its guest (micro_guest.h) does what the guests of the other sides do
 * (sharing_guest.c), for all of them in turn: every 2 ms and for each VM 60 loads from anywhere but its pages of zeros and 4
 * stores to its hot pages. Which ones is made up here and put into a list in the guest's RAM; the guest's code goes through
 * the list and counts the words that are not what they should be. What it stores is remembered, so that hot pages are
 * checked, too.
 *
 * CPU time is the process's but the vCPU's thread's: the scanning thread, the two threads that put pages into the guest's
 * view when it touches them, those of RCU. KVM's work for the guest is done in the vCPU's thread and is not in it, as the
 * page faults of KSM's guests are not in ksmd's.
 *
 * Before the clock starts all of the memory is in the guest's view and used, so that what is put in meanwhile was taken out
 * by sharing. At the end the guest walks over its memory, for a while: pages that share lie in the view as mappings of the
 * host's, a run one, and beyond what a process may have of those they stop sharing when they are used. Figures tell what that left
 * of the savings. Then all is read back from outside and held against the contents, and the VM is audited.
 */
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "control/clock.h"
#include "mmu/frames.h"
#include "mmu/retire.h"
#include "mmu/vm.h"
#include "cli.h"
#include "micro_code.h"
#include "micro_guest.h"
#include "sharing.h"
#include "sharing_passes.h"

#define GUEST_PAUSE_NS 2000000
#define WALK_S	       5 /* a touch of what is not in the view takes some 100 us where KVM shadows */
#define BLOCK_BYTES    ((uint64_t)2 << 20)
enum { LOADS = 60, STORES = 4 }; /* of each VM in a turn, as in sharing_guest.c */
enum { MOST_LOADS = 1 << 12 };	 /* in a list */
_Static_assert(SHARING_MAX_VMS *LOADS <= MOST_LOADS, "all VMs' fit");

/* As the guest reads it (micro_code_visit); a list of most loads and stores is far below a block. */
struct visit {
	uint64_t address, word;
};

/* (c) const after init, (g) the vCPU's thread only until it is stopped, (a) atomic. */
struct side {
	const struct sharing_contents *contents; /* (c) */
	struct micro_guest *guest;		 /* (c) */
	struct gn_domain *domain;		 /* (c) */
	uint64_t used_pages; /* (c) of the pool, before anything was shared; tables left out */
	uint64_t list_at;    /* (c) where the list is in the guest's data */
	pthread_t thread;    /* (c) */
	bool has_thread;     /* (c) */
	_Atomic bool is_stopping;
	uint64_t random;			       /* (g) */
	uint64_t *hot;				       /* (g) words of all hot pages */
	struct visit loads[MOST_LOADS];		       /* (g) */
	struct visit stores[SHARING_MAX_VMS * STORES]; /* (g) */
	uint64_t mismatches;			       /* (g) */
	int err;				       /* (g) */
};

bool sharing_kvm_is_possible(char *why, size_t why_bytes)
{
	struct gn_kvm_host host;
	struct micro_guest *guest;

	*why = 0;
	gn_kvm_probe(&host, false);
	if (!host.usable)
		snprintf(why, why_bytes, "%s", host.why);
	else if (!host.uffd_minor_shmem)
		snprintf(why, why_bytes, "no userfaultfd with minor faults on shared memory");
	if (*why)
		return false;
	/* What else may be in the way, a trial tells. */
	guest = micro_guest_new("ept", BLOCK_BYTES, false, why, why_bytes);
	micro_guest_destroy(guest);
	return guest;
}

/* ---- The guest --------------------------------------------------------------------------------------------------- */

static uint64_t contents_pages(const struct sharing_contents *c)
{
	return c->vms * c->vm_pages;
}

static uint64_t *hot_word(const struct side *s, unsigned vm, uint64_t page, unsigned word)
{
	return &s->hot[(vm * s->contents->hot_pages + page) * SHARING_PAGE_WORDS + word];
}

static uint64_t address_of(const struct side *s, unsigned vm, uint64_t page, unsigned word)
{
	return s->guest->data_va.v + (vm * s->contents->vm_pages + page) * SHARING_PAGE_BYTES +
	       word * sizeof(uint64_t);
}

static struct visit load_of(const struct side *s, unsigned vm, uint64_t page, unsigned word)
{
	const struct sharing_contents *c = s->contents;

	return (struct visit){
		address_of(s, vm, page, word),
		page < c->hot_pages ? *hot_word(s, vm, page, word)
				    : sharing_page_word(c->seed, sharing_page(c, vm, page), word)
	};
}

static struct visit make_load(struct side *s, unsigned vm)
{
	uint64_t random = sharing_random(&s->random), page = random % s->contents->vm_pages;

	if (!sharing_page(s->contents, vm, page))
		page = random % s->contents->hot_pages;
	return load_of(s, vm, page, random >> 48 & (SHARING_PAGE_WORDS - 1));
}

static struct visit make_store(struct side *s, unsigned vm)
{
	uint64_t random = sharing_random(&s->random), page = random % s->contents->hot_pages;
	unsigned word = random >> 48 & (SHARING_PAGE_WORDS - 1);

	*hot_word(s, vm, page, word) = random;
	return (struct visit){ address_of(s, vm, page, word), random };
}

/* All loads come before the first store. -errno. */
static int write_list(struct side *s)
{
	const unsigned vms = s->contents->vms;
	const gpa_t at = gpa((s->guest->data_gfn.v << GN_PAGE_SHIFT) + s->list_at);
	int err;

	for (unsigned i = 0; i < vms * LOADS; i++)
		s->loads[i] = make_load(s, i % vms);
	for (unsigned i = 0; i < vms * STORES; i++)
		s->stores[i] = make_store(s, i % vms);
	err = gn_vm_write(s->guest->vm, at, s->loads, vms * LOADS * sizeof(struct visit));
	return err ? err
		   : gn_vm_write(s->guest->vm, gpa(at.v + vms * LOADS * sizeof(struct visit)),
				 s->stores, vms * STORES * sizeof(struct visit));
}

/* Run the guest through the list. -EIO: it stopped. */
static int visit(struct side *s, uint64_t loads, uint64_t stores)
{
	uint64_t wrong = 0;

	if (isinf(micro_guest_call(s->guest, micro_code_visit, true,
				   s->guest->data_va.v + s->list_at, stores, 0, loads, &wrong))) {
		cli_warn("the guest on KVM stopped: %s", gn_kvm_error(s->guest->kvm, 0));
		return -EIO;
	}
	s->mismatches += wrong;
	return 0;
}

static void *guest_main(void *ctx)
{
	struct side *s = ctx;

	while (!atomic_load_explicit(&s->is_stopping, memory_order_relaxed) && !s->err) {
		s->err = write_list(s);
		if (!s->err)
			s->err = visit(s, s->contents->vms * LOADS, s->contents->vms * STORES);
		nanosleep(&(struct timespec){ 0, GUEST_PAUSE_NS }, NULL);
	}
	return NULL;
}

/* Each page but those of zeros is loaded from once, in order, while no other thread runs the guest; not for longer than WALK_S.
 * *pages: how many. -errno. */
static int walk(struct side *s, uint64_t *pages)
{
	const struct sharing_contents *c = s->contents;
	const gpa_t at = gpa((s->guest->data_gfn.v << GN_PAGE_SHIFT) + s->list_at);
	const double end_s = gn_now_s() + WALK_S;
	uint64_t count = 0;
	int err = 0;

	*pages = 0;
	for (uint64_t i = 0; i < contents_pages(c) && !err && gn_now_s() < end_s; i++) {
		const unsigned vm = (unsigned)(i / c->vm_pages);

		if (sharing_page(c, vm, i % c->vm_pages))
			s->loads[count++] = load_of(s, vm, i % c->vm_pages, 0);
		if (!count || (count < MOST_LOADS && i + 1 < contents_pages(c)))
			continue;
		err = gn_vm_write(s->guest->vm, at, s->loads, count * sizeof(struct visit));
		if (!err)
			err = visit(s, count, 0);
		*pages += count;
		count = 0;
	}
	return err;
}

static int start_guest(struct side *s)
{
	int err = -pthread_create(&s->thread, NULL, guest_main, s);

	s->has_thread = !err;
	return err;
}

static int stop_guest(struct side *s)
{
	if (!s->has_thread)
		return 0;
	atomic_store(&s->is_stopping, true);
	pthread_join(s->thread, NULL);
	s->has_thread = false;
	return s->err ? s->err : s->mismatches ? -EBADMSG : 0;
}

/* ---- What is counted --------------------------------------------------------------------------------------------- */

static double cpu_s(void *ctx)
{
	struct side *s = ctx;
	clockid_t vcpu;

	if (pthread_getcpuclockid(s->thread, &vcpu))
		return NAN;
	return ((double)gn_clock_ns(CLOCK_PROCESS_CPUTIME_ID) - (double)gn_clock_ns(vcpu)) * 1e-9;
}

static uint64_t used_pages(const struct side *s)
{
	struct gn_table_usage usage;

	gn_retire_drain(s->guest->vm);
	gn_vm_table_usage(s->guest->vm, &usage);
	return gn_frames_used(s->guest->vm->frames) - usage.frames_bytes / GN_PAGE_SIZE;
}

static uint64_t saved_pages(void *ctx)
{
	const struct side *s = ctx;
	uint64_t used = used_pages(s);

	return used < s->used_pages ? s->used_pages - used : 0;
}

/* Mappings of this process. 0: it cannot be told. */
static uint64_t count_mappings(void)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	uint64_t count = 0;
	int c;

	while (maps && (c = getc(maps)) != EOF)
		count += c == '\n';
	if (maps)
		fclose(maps);
	return count;
}

/* ---- The VM ------------------------------------------------------------------------------------------------------ */

static int fill(struct side *s)
{
	const struct sharing_contents *c = s->contents;
	uint8_t bytes[SHARING_PAGE_BYTES];
	int err = 0;

	for (uint64_t i = 0; i < contents_pages(c) && !err; i++) {
		sharing_page_fill(c->seed, c->pages[i], bytes);
		err = gn_vm_write(s->guest->vm, gfn_to_gpa(gfn(s->guest->data_gfn.v + i)), bytes,
				  sizeof(bytes));
		if (i % c->vm_pages < c->hot_pages)
			memcpy(hot_word(s, (unsigned)(i / c->vm_pages), i % c->vm_pages, 0), bytes,
			       sizeof(bytes));
	}
	return err;
}

/* What is no part of the contents is not shared: the guest's code and tables before them, its list behind. */
static int add_domain(struct side *s)
{
	struct gn_vm *vm = s->guest->vm;
	const uint64_t begin = s->guest->data_gfn.v, end = begin + contents_pages(s->contents),
		       pages = begin + s->guest->data_bytes / GN_PAGE_SIZE;
	const struct gn_domain_config config = { .frames = vm->frames, .max_pages = pages };
	int err = gn_domain_create(&config, &s->domain);

	if (!err)
		err = gn_domain_add(s->domain, vm);
	if (!err)
		err = gn_domain_hint(s->domain, vm, gfn(0), begin, GN_SHARE_NEVER);
	if (!err)
		err = gn_domain_hint(s->domain, vm, gfn(end), pages - end, GN_SHARE_NEVER);
	return err;
}

static void fini(struct side *s)
{
	stop_guest(s);
	if (s->domain)
		gn_domain_remove(s->domain, s->guest->vm);
	gn_domain_destroy(s->domain);
	micro_guest_destroy(s->guest);
	free(s->hot);
	free(s);
}

/* Filled; nothing shared, the guest does not run. -errno, and *out is NULL. */
static int init(const struct sharing_contents *contents, struct side **out)
{
	const uint64_t bytes = contents_pages(contents) * SHARING_PAGE_BYTES;
	struct side *s = calloc(1, sizeof(*s));
	char why[256] = "";
	int err;

	*out = NULL;
	if (!s)
		return -ENOMEM;
	s->contents = contents;
	s->random = contents->seed;
	/* The list is in a block of its own, behind the contents. */
	s->list_at = (bytes + BLOCK_BYTES - 1) & ~(BLOCK_BYTES - 1);
	s->hot = malloc(contents->vms * contents->hot_pages * SHARING_PAGE_BYTES);
	s->guest = micro_guest_new("ept", s->list_at + BLOCK_BYTES, false, why, sizeof(why));
	if (*why)
		cli_warn("the guest on KVM: %s", why);
	err = s->hot && s->guest ? fill(s) : -ENOMEM;
	if (!err)
		err = add_domain(s);
	if (err) {
		fini(s);
		return err;
	}
	/* As a guest that has run for a while has it: all of its memory is mapped, the pages that are zeros now, too. */
	if (isinf(micro_guest_call(s->guest, (const void *)(uintptr_t)micro_code_touch, true,
				   s->guest->data_va.v, 0, 0, contents_pages(contents), NULL))) {
		cli_warn("the guest on KVM stopped: %s", gn_kvm_error(s->guest->kvm, 0));
		fini(s);
		return -EIO;
	}
	s->used_pages = used_pages(s);
	*out = s;
	return 0;
}

/* -EBADMSG: the memory has not what was filled in, or stored since; or the tables are wrong. */
static int check(const struct side *s)
{
	const struct sharing_contents *c = s->contents;
	uint8_t is[SHARING_PAGE_BYTES], should[SHARING_PAGE_BYTES];
	struct gn_audit_report report;
	int err = 0;

	for (uint64_t i = 0; i < contents_pages(c) && !err; i++) {
		err = gn_vm_read(s->guest->vm, gfn_to_gpa(gfn(s->guest->data_gfn.v + i)), is,
				 sizeof(is));
		if (i % c->vm_pages < c->hot_pages)
			memcpy(should, hot_word(s, (unsigned)(i / c->vm_pages), i % c->vm_pages, 0),
			       sizeof(should));
		else
			sharing_page_fill(c->seed, c->pages[i], should);
		if (!err && memcmp(is, should, sizeof(is)) != 0)
			err = -EBADMSG;
	}
	if (!err) {
		err = gn_audit(s->guest->vm, &report);
		if (err == -EBADMSG)
			cli_warn("the audit of the guest on KVM: %s", report.first);
	}
	return err;
}

/* What is left when the guest has used all that is shared: a mapping a run of it, or none and a frame. -errno. */
static int note_end(struct side *s, uint64_t mappings, struct sharing_run *run)
{
	const double begin_s = gn_now_s();
	struct gn_kvm_stats stats;
	int err;

	run->saved_pages = saved_pages(s);
	err = walk(s, &run->walked_pages);
	run->walk_s = gn_now_s() - begin_s;
	gn_kvm_stats(s->guest->kvm, &stats);
	run->broken_pages = stats.uffd_breaks;
	run->walk_saved_pages = saved_pages(s);
	run->mappings = count_mappings();
	run->mappings -= mappings < run->mappings ? mappings : run->mappings;
	return err ? err : s->mismatches ? -EBADMSG : 0;
}

int sharing_kvm_run(const struct sharing_contents *contents, const struct sharing_oracle *oracle,
		    struct sharing_run *run)
{
	uint64_t mappings;
	struct side *s;
	int err = init(contents, &s), failed;

	if (err)
		return err;
	mappings = count_mappings();
	err = start_guest(s);
	if (!err) {
		const struct sharing_passes passes = { &s->domain, 1, saved_pages, cpu_s, s };

		err = sharing_converge(&passes, oracle, run);
	}
	failed = stop_guest(s);
	if (!err)
		err = failed ? failed : note_end(s, mappings, run);
	if (!err)
		err = check(s);
	fini(s);
	return err;
}
