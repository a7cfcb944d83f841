/* SPDX-License-Identifier: MIT */
/*
 * sharing_kvm.c - the contents in the RAM of real guests, shared while they run.
 *
 * A VM on KVM owns its pool, and in one process sharing is within one pool. So the memories of all VMs of the case lie in the
 * RAM of one, one after the other, under nested paging. Its guest (sharing_kvm_guests.h) does what the guests of the other sides do
 * (sharing_guest.c), for all of them in turn: every 2 ms and for each VM 60 loads from anywhere but its pages of zeros and 4
 * stores to its hot pages.
 *
 * Over a template (cases of clones) each VM of the case is a VM of its own, in a domain of its own, and one thread runs their guests in
 * turn. The template holds, in each place, what most of the VMs hold there. All pages are written before the clock starts, also those
 * that are as the template has them, so all are copies: what the same VMs would have without one. What is saved is the copies that
 * went, less all pages of the template.
 *
 * CPU time is the process's but the vCPUs' thread's: the scanning thread, the thread that puts pages into the guest's
 * view when it touches them and the one that helps it, those of RCU. KVM's work for the guest is done in the vCPU's thread and is not in it, as the
 * page faults of KSM's guests are not in ksmd's.
 *
 * Before the clock starts all of the memory is in the guest's view and used, so that what is put in meanwhile was taken out
 * by sharing. At the end the guest walks over its memory, for a while: pages that share lie in the view as mappings of the
 * host's, a run one, and beyond what a process may have of those they stop sharing when they are used. Figures tell what that left
 * of the savings. Then all is read back from outside and held against the contents, and the VMs are audited.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "control/clock.h"
#include "mmu/frames.h"
#include "mmu/retire.h"
#include "mmu/vm.h"
#include "cli.h"
#include "micro_code.h"
#include "sharing.h"
#include "sharing_kvm_guests.h"
#include "sharing_passes.h"

#define WALK_S	    5 /* a touch of what is not in the view takes some 100 us where KVM shadows */
#define BLOCK_BYTES ((uint64_t)2 << 20)

struct side {
	struct sharing_kvm_guests guests;
	struct gn_domain *domains[SHARING_MAX_VMS + 1]; /* of each guest */
	int template_fd;				/* -1: none */
	/* Without a template: of the pool, before anything was shared; tables left out. */
	uint64_t used_pages;
};

/* ---- Whether it can be ------------------------------------------------------------------------------------------- */

/* A file that is one for all guests: @numbers of pages (NULL: nothing but zeros) where their data is. -errno. */
static int make_template(const struct sharing_contents *c, const uint64_t *numbers,
			 uint64_t data_bytes)
{
	const off_t begin = (off_t)gfn_to_gpa(micro_guest_data_gfn(data_bytes)).v;
	int fd = memfd_create("gnomon-template", MFD_CLOEXEC | MFD_ALLOW_SEALING), err;
	uint8_t bytes[SHARING_PAGE_BYTES];
	bool good = fd >= 0 && !ftruncate(fd, (off_t)micro_guest_bytes(data_bytes));

	for (uint64_t i = 0; good && numbers && i < c->vm_pages; i++) {
		sharing_page_fill(c->seed, numbers[i], bytes);
		good = pwrite(fd, bytes, sizeof(bytes), begin + (off_t)(i * sizeof(bytes))) ==
		       sizeof(bytes);
	}
	if (good && !fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK))
		return fd;
	err = -errno;
	if (fd >= 0)
		close(fd);
	return err;
}

static struct micro_guest *make_guest(uint64_t data_bytes, int template_fd, char *why,
				      size_t why_bytes)
{
	return template_fd >= 0
		       ? micro_guest_new_over("ept", data_bytes, template_fd, why, why_bytes)
		       : micro_guest_new("ept", data_bytes, false, why, why_bytes);
}

bool sharing_kvm_is_possible(bool over_template, char *why, size_t why_bytes)
{
	struct gn_kvm_host host;
	struct micro_guest *guest;
	int fd = -1;

	*why = 0;
	gn_kvm_probe(&host, false);
	if (!host.usable)
		snprintf(why, why_bytes, "%s", host.why);
	else if (!over_template && !host.uffd_minor_shmem)
		snprintf(why, why_bytes, "no userfaultfd with minor faults on shared memory");
	if (*why)
		return false;
	/* What else may be in the way, a trial tells. */
	if (over_template)
		fd = make_template(NULL, NULL, BLOCK_BYTES);
	if (over_template && fd < 0) {
		snprintf(why, why_bytes, "a sealed memfd: %s", strerror(-fd));
		return false;
	}
	guest = make_guest(BLOCK_BYTES, fd, why, why_bytes);
	micro_guest_destroy(guest);
	if (fd >= 0)
		close(fd);
	return guest;
}

/* ---- What is counted --------------------------------------------------------------------------------------------- */

static double cpu_s(void *ctx)
{
	struct side *s = ctx;
	clockid_t vcpus;

	if (pthread_getcpuclockid(s->guests.thread, &vcpus))
		return NAN;
	return ((double)gn_clock_ns(CLOCK_PROCESS_CPUTIME_ID) - (double)gn_clock_ns(vcpus)) * 1e-9;
}

static uint64_t used_pages(const struct side *s)
{
	struct gn_vm *vm = s->guests.guests[0]->vm;
	struct gn_table_usage usage;

	gn_retire_drain(vm);
	gn_vm_table_usage(vm, &usage);
	return gn_frames_used(gn_vm_frames(vm)) - usage.frames_bytes / GN_PAGE_SIZE;
}

/* By the domains, as they go: the host's own books are held against it in the end. */
static uint64_t template_saved_pages(const struct side *s)
{
	const uint64_t kept = s->guests.contents->vm_pages;
	uint64_t dropped = 0;

	for (unsigned i = 0; i < s->guests.count; i++) {
		struct gn_sharing_stats stats;

		gn_domain_stats(s->domains[i], &stats);
		dropped += stats.pages_merged;
	}
	return dropped > kept ? dropped - kept : 0;
}

static uint64_t saved_pages(void *ctx)
{
	const struct side *s = ctx;
	uint64_t used;

	if (s->template_fd >= 0)
		return template_saved_pages(s);
	used = used_pages(s);
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

/* ---- VMs --------------------------------------------------------------------------------------------------------- */

static int fill(struct side *s, unsigned vm)
{
	const struct sharing_contents *c = s->guests.contents;
	struct gn_vm *to = sharing_kvm_guest_of(&s->guests, vm)->vm;
	uint8_t bytes[SHARING_PAGE_BYTES];
	int err = 0;

	for (uint64_t page = 0; page < c->vm_pages && !err; page++) {
		sharing_page_fill(c->seed, sharing_page(c, vm, page), bytes);
		err = gn_vm_write(to, gfn_to_gpa(sharing_kvm_gfn_of(&s->guests, vm, page)), bytes,
				  sizeof(bytes));
		if (page < c->hot_pages)
			memcpy(sharing_kvm_hot_word(&s->guests, vm, page, 0), bytes, sizeof(bytes));
	}
	return err;
}

/* What is no part of the contents is not shared: the guest's code and tables before them, its list behind. */
static int add_domain(const struct micro_guest *guest, uint64_t data_pages,
		      struct gn_domain **domain)
{
	struct gn_vm *vm = guest->vm;
	const uint64_t begin = guest->data_gfn.v, end = begin + data_pages,
		       pages = begin + guest->data_bytes / GN_PAGE_SIZE;
	const struct gn_domain_config config = { .frames = gn_vm_frames(vm), .max_pages = pages };
	int err = gn_domain_create(&config, domain);

	if (!err)
		err = gn_domain_add(*domain, vm);
	if (!err)
		err = gn_domain_hint(*domain, vm, gfn(0), begin, GN_SHARE_NEVER);
	if (!err)
		err = gn_domain_hint(*domain, vm, gfn(end), pages - end, GN_SHARE_NEVER);
	return err;
}

/* With all its VMs' pages, mapped as a guest that has run for a while has it, the pages that are zeros now, too. -errno. */
static int add_guest(struct side *s, unsigned i)
{
	const unsigned vms = sharing_kvm_vms_each(&s->guests);
	const uint64_t pages = vms * s->guests.contents->vm_pages;
	struct micro_guest *guest;
	char why[256] = "";
	int err = 0;

	guest = make_guest(s->guests.data_bytes, s->template_fd, why, sizeof(why));
	if (*why)
		cli_warn("the guest on KVM: %s", why);
	if (!guest)
		return -ENOMEM;
	s->guests.guests[i] = guest;
	for (unsigned vm = i * vms; vm < (i + 1) * vms && !err; vm++)
		err = fill(s, vm);
	if (!err)
		err = add_domain(guest, pages, &s->domains[i]);
	if (err)
		return err;
	if (isinf(micro_guest_call(guest, (const void *)(uintptr_t)micro_code_touch, true,
				   guest->data_va.v, 0, 0, pages, NULL))) {
		cli_warn("the guest on KVM stopped: %s", gn_kvm_error(guest->kvm, 0));
		return -EIO;
	}
	return 0;
}

/* The template of the case, and what it can save. -errno. */
static int add_template(struct side *s, struct sharing_run *run)
{
	const struct sharing_contents *c = s->guests.contents;
	uint64_t *numbers = malloc(c->vm_pages * sizeof(*numbers));

	if (!numbers)
		return -ENOMEM;
	sharing_contents_template(c, numbers, &run->possible_pages);
	s->template_fd = make_template(c, numbers, s->guests.data_bytes);
	free(numbers);
	return s->template_fd < 0 ? s->template_fd : 0;
}

static void fini(struct side *s)
{
	(void)sharing_kvm_guests_stop(&s->guests);
	for (unsigned i = 0; i < s->guests.count; i++) {
		if (s->domains[i])
			gn_domain_remove(s->domains[i], s->guests.guests[i]->vm);
		gn_domain_destroy(s->domains[i]);
	}
	sharing_kvm_guests_fini(&s->guests);
	if (s->template_fd >= 0)
		close(s->template_fd);
	free(s);
}

/* Filled; nothing shared, no guest runs. -errno, and *out is NULL. */
static int init(const struct sharing_contents *contents, bool over_template,
		struct sharing_run *run, struct side **out)
{
	struct side *s = calloc(1, sizeof(*s));
	int err;

	*out = NULL;
	if (!s)
		return -ENOMEM;
	s->template_fd = -1;
	err = sharing_kvm_guests_init(&s->guests, contents, over_template ? contents->vms : 1);
	if (!err && over_template)
		err = add_template(s, run);
	for (unsigned i = 0; i < s->guests.count && !err; i++)
		err = add_guest(s, i);
	if (err) {
		fini(s);
		return err;
	}
	if (!over_template)
		s->used_pages = used_pages(s);
	*out = s;
	return 0;
}

/* ---- Proof ------------------------------------------------------------------------------------------------------- */

/* The host's own count of copies. -EBADMSG: more are left than the domains say. */
static int check_copies(const struct side *s)
{
	const struct sharing_kvm_guests *g = &s->guests;
	const uint64_t pages = g->contents->vm_pages, words = (pages + 63) / 64;
	uint64_t *bitmap = malloc(words * sizeof(*bitmap)), shared = g->count * pages;
	int err = bitmap ? 0 : -ENOMEM;

	for (unsigned i = 0; i < g->count && !err; i++) {
		err = gn_frames_find_copies(gn_vm_frames(g->guests[i]->vm),
					    pfn(g->guests[i]->data_gfn.v), pages, bitmap);
		for (uint64_t w = 0; w < words && !err; w++)
			shared -= (unsigned)__builtin_popcountll(bitmap[w]);
	}
	free(bitmap);
	if (!err && shared < template_saved_pages(s) + pages)
		err = -EBADMSG;
	return err;
}

static int check_vm(const struct side *s, unsigned vm)
{
	const struct sharing_contents *c = s->guests.contents;
	struct gn_vm *of = sharing_kvm_guest_of(&s->guests, vm)->vm;
	uint8_t is[SHARING_PAGE_BYTES], should[SHARING_PAGE_BYTES];
	int err = 0;

	for (uint64_t page = 0; page < c->vm_pages && !err; page++) {
		err = gn_vm_read(of, gfn_to_gpa(sharing_kvm_gfn_of(&s->guests, vm, page)), is,
				 sizeof(is));
		if (page < c->hot_pages)
			memcpy(should, sharing_kvm_hot_word(&s->guests, vm, page, 0),
			       sizeof(should));
		else
			sharing_page_fill(c->seed, sharing_page(c, vm, page), should);
		if (!err && memcmp(is, should, sizeof(is)) != 0)
			err = -EBADMSG;
	}
	return err;
}

/* -EBADMSG: the memory has not what was filled in, or stored since; or the tables are wrong. */
static int check(const struct side *s)
{
	struct gn_audit_report report;
	int err = 0;

	for (unsigned vm = 0; vm < s->guests.contents->vms && !err; vm++)
		err = check_vm(s, vm);
	for (unsigned i = 0; i < s->guests.count && !err; i++) {
		err = gn_audit(s->guests.guests[i]->vm, &report);
		if (err == -EBADMSG)
			cli_warn("the audit of the guest on KVM: %s", report.first);
	}
	return err || s->template_fd < 0 ? err : check_copies(s);
}

static struct gn_kvm_stats stats_of(const struct side *s)
{
	struct gn_kvm_stats all = { .uffd_faults = 0 }, one;

	for (unsigned i = 0; i < s->guests.count; i++) {
		gn_kvm_stats(s->guests.guests[i]->kvm, &one);
		all.uffd_faults += one.uffd_faults;
		all.uffd_breaks += one.uffd_breaks;
	}
	return all;
}

/* What is left when the guest has used all that is shared: a mapping a run of it, or none and a frame. -errno. */
static int note_end(struct side *s, uint64_t mappings, struct sharing_run *run)
{
	const struct gn_kvm_stats before = stats_of(s);
	const double begin_s = gn_now_s();
	struct gn_kvm_stats after;
	int err;

	run->saved_pages = saved_pages(s);
	err = sharing_kvm_guests_walk(&s->guests, WALK_S, &run->walked_pages);
	run->walk_s = gn_now_s() - begin_s;
	after = stats_of(s);
	run->walk_faults = after.uffd_faults - before.uffd_faults;
	run->broken_pages = after.uffd_breaks;
	run->walk_saved_pages = saved_pages(s);
	run->mappings = count_mappings();
	run->mappings -= mappings < run->mappings ? mappings : run->mappings;
	return err;
}

int sharing_kvm_run(const struct sharing_contents *contents, const struct sharing_oracle *oracle,
		    bool over_template, struct sharing_run *run)
{
	struct sharing_oracle possible = *oracle;
	uint64_t mappings, faults;
	struct side *s;
	int err = init(contents, over_template, run, &s), failed;

	if (err)
		return err;
	mappings = count_mappings();
	faults = stats_of(s).uffd_faults;
	err = sharing_kvm_guests_start(&s->guests);
	if (!err) {
		const struct sharing_passes passes = {
			.domains = s->domains,
			.most_domains = s->guests.count,
			.kept_pages = over_template ? contents->vm_pages : 0,
			.saved_pages = saved_pages,
			.cpu_s = cpu_s,
			.ctx = s,
		};

		if (over_template)
			possible.saved_pages = run->possible_pages;
		err = sharing_converge(&passes, &possible, run);
	}
	failed = sharing_kvm_guests_stop(&s->guests);
	run->pass_faults = stats_of(s).uffd_faults - faults;
	if (!err)
		err = failed ? failed : note_end(s, mappings, run);
	if (!err)
		err = check(s);
	fini(s);
	return err;
}
