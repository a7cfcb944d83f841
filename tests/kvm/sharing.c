/* SPDX-License-Identifier: MIT */
/*
 * sharing.c - guests on /dev/kvm whose pages share frames: merged while the guest writes them, broken by its stores, and
 * with no more mappings than the host allows.
 */
#include <gnomon/sharing.h>

#include "kvm/nested_guest.h"
#include "kvmbackend/nested.h"

/* Over and over: rcx pages from rbx go from one number to the next, in their first word. One that does not hold what was stored
 * the last time ends with 1; a word at rsi that is not 0 with 0. */
RIG_CODE(renumber, "xor %r8d, %r8d\n"
		   "1: mov %r8, %r9\n inc %r8\n mov %rbx, %rdi\n mov %rcx, %rdx\n"
		   "2: cmp %r9, (%rdi)\n jne 3f\n mov %r8, (%rdi)\n"
		   "add $4096, %rdi\n dec %rdx\n jnz 2b\n"
		   "cmpq $0, (%rsi)\n je 1b\n xor %eax, %eax\n int3\n"
		   "3: mov $1, %eax\n int3")
/* Over and over: the word at rbx goes to the one at rcx, until the one at rsi is not 0. */
RIG_CODE(follow,
	 "1: mov (%rbx), %rax\n mov %rax, (%rcx)\n cmpq $0, (%rsi)\n je 1b\n xor %eax, %eax\n int3")
/* For ever: rcx pages from rbx are read. */
RIG_CODE(read_for_ever, "1: mov %rbx, %rdi\n mov %rcx, %rdx\n"
			"2: mov (%rdi), %rax\n add $4096, %rdi\n dec %rdx\n jnz 2b\n jmp 1b")
#define AT (32 * MIB)

static unsigned count_shared(struct gn_vm *vm, uint64_t pages)
{
	unsigned count = 0;

	for (uint64_t i = 0; i < pages; i++) {
		struct gn_p2m_info info;

		RIG_CHECK(!gn_p2m_query(vm, gfn((AT >> 12) + i), &info), "query");
		count += info.state == GN_P2M_SHARED;
	}
	return count;
}

#define MOST_PAGES 64

/* The first page is published, and those of the others that hold the same are merged into it. Returns how many gave up a frame. */
static uint64_t merge_all(struct gn_vm *vm, uint64_t pages)
{
	struct gn_merge first = { .at = gfn(AT >> 12) }, rest[MOST_PAGES];
	uint64_t merged = 0;

	RIG_CHECK(!gn_p2m_publish(vm, &first, 1, GN_SHARE_READ), "publish");
	if (first.result == -EINVAL)
		return 0; /* the guest has not used it yet */
	RIG_CHECK(!first.result, "publish: %d", first.result);
	for (uint64_t i = 1; i < pages; i++)
		rest[i - 1] = (struct gn_merge){ gfn((AT >> 12) + i), first.frame, 0 };
	RIG_CHECK(!gn_p2m_merge(vm, rest, pages - 1, GN_SHARE_READ, &merged), "merge");
	gn_frames_put(vm->frames, first.frame);
	return merged;
}

/* What is equal at the moment is merged under a guest that runs; its stores break that, and it misses none. */
static void merged_while_it_runs(const char *scheme)
{
	const uint64_t pages = 32, wanted = 200;
	struct gn_kvm_config config = plain();
	struct gn_audit_report report;
	struct runner r;
	struct gn_kvm *kvm;
	uint64_t merged = 0;

	config.vm.scheme = scheme;
	kvm = rig_new(&config);
	if (!kvm)
		return;
	rig_program(kvm, 0, 3, renumber, renumber_end, AT, pages, RIG_DATA);
	start(&r, kvm, 0);
	for (unsigned i = 0; i < PATIENCE && merged < wanted && !atomic_load(&r.is_done); i++) {
		merged += merge_all(gn_kvm_vm(kvm), pages);
		pause_ms(1 + i % 10);
	}
	RIG_CHECK(merged >= wanted, "%llu merges", (unsigned long long)merged);
	rig_word(kvm, RIG_DATA, 1);
	RIG_EXPECT_EXIT(kvm, finish(&r), 0);
	RIG_CHECK(!gn_audit(gn_kvm_vm(kvm), &report), "%s", report.first);
	gn_kvm_destroy(kvm);
}

/* Pages that all share one frame are a mapping each. Those beyond what there may be stop sharing when they are used, in
 * their old places, and the guest sees what it wrote. */
static void mappings_have_a_ceiling(void)
{
	const uint64_t pages = MOST_PAGES, most = 8;
	struct gn_kvm_config config = plain();
	struct gn_kvm_stats stats;
	struct gn_kvm *kvm = rig_new(&config);
	struct gn_kvm_nested *n;
	unsigned shared;

	if (!kvm)
		return;
	n = kvm->nested;
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, fill_pages, AT, pages, 7), 0);
	RIG_CHECK(!n->piece_ends, "%llu pieces of what is at home",
		  (unsigned long long)n->piece_ends);
	RIG_CHECK(merge_all(gn_kvm_vm(kvm), pages) == pages - 1, "not all were merged");
	n->piece_ends_max = most;
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, read_pages, AT, pages, 0), 7 * pages);
	gn_kvm_stats(kvm, &stats);
	shared = count_shared(gn_kvm_vm(kvm), pages);
	RIG_CHECK(n->piece_ends <= most + 1, "%llu pieces", (unsigned long long)n->piece_ends);
	RIG_CHECK((shared > 2 || !n->uffd_wp) && shared + stats.uffd_breaks == pages,
		  "%u shared, %llu broken", shared, (unsigned long long)stats.uffd_breaks);

	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, fill_pages, AT, pages, 9), 0);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, read_pages, AT, pages, 0), 9 * pages);
	RIG_CHECK(!count_shared(gn_kvm_vm(kvm), pages), "a store left a page shared");
	/* But the one whose frame the others took, and the last of them, which has it now. */
	RIG_CHECK(n->piece_ends <= 4, "%llu pieces after each page got its home back",
		  (unsigned long long)n->piece_ends);
	gn_kvm_destroy(kvm);
}

/* Page by page, those of @pages at @other whose number is @first or a multiple of @step more are merged into those at @at. Returns how many. */
static uint64_t merge_some(struct gn_vm *vm, uint64_t at, uint64_t other, uint64_t pages,
			   uint64_t first, uint64_t step)
{
	struct gn_merge theirs[MOST_PAGES], ours[MOST_PAGES];
	uint64_t count = 0, merged;

	for (uint64_t i = first; i < pages; i += step)
		theirs[count++] = (struct gn_merge){ .at = gfn((at >> 12) + i) };
	RIG_CHECK(!gn_p2m_publish(vm, theirs, count, GN_SHARE_READ), "publish");
	for (uint64_t i = 0; i < count; i++)
		ours[i] = (struct gn_merge){ gfn((other >> 12) + first + i * step), theirs[i].frame,
					     0 };
	RIG_CHECK(!gn_p2m_merge(vm, ours, count, GN_SHARE_READ, &merged), "merge");
	RIG_CHECK(merged == count, "%llu of %llu were merged", (unsigned long long)merged,
		  (unsigned long long)count);
	for (uint64_t i = 0; i < count; i++)
		gn_frames_put(vm->frames, theirs[i].frame);
	return count;
}

static void merge_runs(struct gn_vm *vm, uint64_t at, uint64_t other, uint64_t pages)
{
	(void)merge_some(vm, at, other, pages, 0, 1);
}

/* Runs that share are one mapping each, and stay few when the guest takes every second page out of one. */
static void runs_have_few_ends(void)
{
	const uint64_t pages = MOST_PAGES, most = 8, sum = pages * (pages + 1) / 2;
	struct gn_kvm_config config = plain();
	struct gn_kvm *kvm = rig_new(&config);
	struct gn_audit_report report;
	struct gn_kvm_nested *n;

	if (!kvm)
		return;
	n = kvm->nested;
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, number_pages, AT, pages, 1), 0);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, number_pages, AT + pages * PAGE, pages, 1), 0);
	merge_runs(gn_kvm_vm(kvm), AT, AT + pages * PAGE, pages);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, read_pages, AT, 2 * pages, 0), 2 * sum);
	RIG_CHECK(n->piece_ends <= 4, "%llu pieces of two runs", (unsigned long long)n->piece_ends);
	n->piece_ends_max = most;
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, fill_half, AT + pages * PAGE, pages / 2, 1000), 0);
	RIG_CHECK(n->piece_ends <= most + 1, "%llu pieces", (unsigned long long)n->piece_ends);
	/* Of the second run the numbers 2, 4, ... are left. */
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, read_pages, AT, 2 * pages, 0),
			sum + 1000 * (pages / 2) + pages / 2 * (pages / 2 + 1));
	RIG_CHECK(n->piece_ends <= most + 1, "%llu pieces when all was read",
		  (unsigned long long)n->piece_ends);
	RIG_CHECK(!gn_audit(gn_kvm_vm(kvm), &report), "%s", report.first);
	gn_kvm_destroy(kvm);
}

static void expect_used(struct gn_kvm *kvm, uint64_t va, uint64_t pages, uint64_t used)
{
	uint8_t bitmap[MOST_PAGES / 8];
	uint64_t count = 0;

	RIG_CHECK(!gn_accessed_harvest(gn_kvm_vm(kvm), gfn(va >> 12), pages, bitmap), "harvest");
	for (uint64_t i = 0; i < pages; i++)
		count += bitmap[i / 8] >> i % 8 & 1;
	RIG_CHECK(count == used, "%llu pages are marked as used, not %llu",
		  (unsigned long long)count, (unsigned long long)used);
}

/* How many faults it takes to read page after page. */
static uint64_t faults_of_reading(struct gn_kvm *kvm, uint64_t va, uint64_t pages, uint64_t sum)
{
	const struct gn_counters *counters = gn_vcpu_counters(gn_vm_vcpu(gn_kvm_vm(kvm), 0));
	const uint64_t violations = counters->nested_faults;
	struct gn_kvm_stats before, after;
	uint64_t faults;

	gn_kvm_stats(kvm, &before);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, read_pages, va, pages, 0), sum);
	gn_kvm_stats(kvm, &after);
	faults = after.uffd_faults - before.uffd_faults;
	/* Where a read breaks, it is told as a store, too. */
	RIG_CHECK(!kvm->nested->uffd_wp || counters->nested_faults - violations == faults,
		  "%llu violations for %llu touches",
		  (unsigned long long)(counters->nested_faults - violations),
		  (unsigned long long)faults);
	return faults;
}

/* A run that shares comes in with the page that is touched first, but not beyond 512 KiB. From when on somebody wants to know which pages
 * are used, each comes by itself. */
static void neighbours_come_along(void)
{
	/* The second run has a quarter of its pages before a multiple of 512 KiB. */
	const uint64_t pages = MOST_PAGES, second = AT + MIB / 2 - pages / 4 * PAGE,
		       third = AT + MIB, sum = pages * (pages + 1) / 2, middle = pages / 2;
	struct gn_kvm_config config = plain();
	struct gn_kvm *kvm = rig_new(&config);
	struct gn_audit_report report;
	uint64_t faults;

	if (!kvm)
		return;
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, number_pages, AT, pages, 1), 0);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, number_pages, second, pages, 1), 0);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, number_pages, third, pages, 1), 0);
	merge_runs(gn_kvm_vm(kvm), AT, second, pages);
	merge_runs(gn_kvm_vm(kvm), AT, third, pages);
	(void)faults_of_reading(kvm, third + middle * PAGE, 1, middle + 1);
	(void)faults_of_reading(kvm, second + middle * PAGE, 1, middle + 1);
	faults = faults_of_reading(kvm, second + pages / 4 * PAGE, pages / 4 * 3,
				   sum - pages / 4 * (pages / 4 + 1) / 2);
	RIG_CHECK(!faults || !kvm->nested->uffd_wp, "%llu more faults of a run",
		  (unsigned long long)faults);
	(void)faults_of_reading(kvm, second, 1, 1);
	faults = faults_of_reading(kvm, second, pages, sum);
	RIG_CHECK(!faults || !kvm->nested->uffd_wp, "%llu more faults of its beginning",
		  (unsigned long long)faults);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, fill_half, second, pages / 2, 1000), 0);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, read_pages, second, pages, 0),
			1000 * (pages / 2) + pages / 2 * (pages / 2 + 1));

	expect_used(kvm, AT, pages, 0);
	expect_used(kvm, third, pages, kvm->nested->uffd_wp ? pages : 1);
	expect_used(kvm, second, pages, pages);
	expect_used(kvm, second, pages, 0);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, read_pages, AT, 1, 0), 1);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, read_pages, second + PAGE, 1, 0), 2);
	expect_used(kvm, AT, pages, 1);
	expect_used(kvm, second, pages, 1);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, read_pages, AT, pages, 0), sum);
	RIG_CHECK(!gn_audit(gn_kvm_vm(kvm), &report), "%s", report.first);
	gn_kvm_destroy(kvm);
}

/* Runs near each other are taken out at once. What lies between them was in, and is, with all its rights, and nothing else is. */
static void what_lies_between_stays(void)
{
	const uint64_t pages = MOST_PAGES, other = AT + pages * PAGE, sum = pages * (pages + 1) / 2;
	struct gn_kvm_config config = plain();
	struct gn_kvm *kvm = rig_new(&config);
	struct gn_audit_report report;
	struct gn_kvm_stats before, after;
	uint64_t count, faults;

	if (!kvm)
		return;
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, number_pages, AT, pages, 1), 0);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, number_pages, other, pages, 1), 0);
	count = merge_some(gn_kvm_vm(kvm), AT, other, pages, 0, 3);
	gn_kvm_stats(kvm, &before);
	for (uint64_t i = 1; i < pages; i += 3)
		RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, fill_pages, other + i * PAGE, 1, i + 1), 0);
	gn_kvm_stats(kvm, &after);
	RIG_CHECK(after.uffd_faults == before.uffd_faults, "stores between them faulted");
	faults = faults_of_reading(kvm, other, pages, sum);
	RIG_CHECK(faults == count, "%llu faults to read %llu pages that share",
		  (unsigned long long)faults, (unsigned long long)count);

	/* Of two that lie side by side, one shares. */
	count = merge_some(gn_kvm_vm(kvm), AT, other, pages, 2, 3);
	faults = faults_of_reading(kvm, other, pages, sum);
	RIG_CHECK(faults == count, "%llu faults to read %llu more", (unsigned long long)faults,
		  (unsigned long long)count);

	expect_used(kvm, other, pages, pages);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, read_pages, other + 2 * PAGE, 2, 0), 3 + 4);
	(void)merge_some(gn_kvm_vm(kvm), AT, other, pages, 1, 3);
	RIG_CHECK(!faults_of_reading(kvm, other + 2 * PAGE, 2, 3 + 4), "those in use went");
	RIG_CHECK(faults_of_reading(kvm, other + 6 * PAGE, 1, 7) == 1, "one came that was not");
	expect_used(kvm, other, pages, 3);
	(void)faults_of_reading(kvm, other, pages, sum);
	RIG_CHECK(!gn_audit(gn_kvm_vm(kvm), &report), "%s", report.first);
	gn_kvm_destroy(kvm);
}

/* A page that is put back wakes nobody: a vCPU that waits for the filler goes on when the filler has its answer, and not before, for its books are the
 * filler's until then. */
static void who_waits_gets_the_answer(void)
{
	const uint64_t pages = 5, other = AT + MIB, middle = pages / 2;
	struct gn_kvm_config config = plain();
	struct gn_kvm *kvm = rig_new(&config);
	const gfn_t at = gfn((other >> 12) + middle);
	struct gn_kvm_stats before, after;
	struct runner r;
	bool is_early;

	if (!kvm)
		return;
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, number_pages, AT, pages, 1), 0);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, number_pages, other, pages, 1), 0);
	gn_kvm_stats(kvm, &before);
	pthread_mutex_lock(&kvm->nested->fill_lock);
	pthread_mutex_lock(&kvm->nested->view_lock);
	gn_kvm_view_take(kvm->nested, at, gfn(at.v + 1));
	pthread_mutex_unlock(&kvm->nested->view_lock);
	rig_program(kvm, 0, 3, read_pages, read_pages_end, other + middle * PAGE, 1, 0);
	start(&r, kvm, 0);
	pause_ms(50);
	(void)merge_some(gn_kvm_vm(kvm), AT, other, pages, 1, 2);
	pause_ms(50);
	is_early = atomic_load(&r.is_done);
	pthread_mutex_unlock(&kvm->nested->fill_lock);
	RIG_EXPECT_EXIT(kvm, finish(&r), middle + 1);
	pause_ms(10);
	gn_kvm_stats(kvm, &after);
	/* On a slow machine the page may be back before it is touched. */
	RIG_CHECK(!is_early || after.uffd_faults == before.uffd_faults, "it did not wait");
	gn_kvm_destroy(kvm);
}

/* Not by PAUSE, at which an emulated processor lets the others go first. */
static void spin(uint64_t turns)
{
	for (volatile uint64_t i = 0; i < turns; i++)
		;
}

/* Pages are shared and written by the host again and again, while the guest does nothing but read one of them: it sees each store. */
static void stores_of_the_host_are_seen(void)
{
	const uint64_t pages = 2, at = AT + pages * PAGE, seen = RIG_DATA + 64;
	const unsigned rounds = 200;
	struct gn_kvm_config config = plain();
	struct gn_kvm *kvm = rig_new(&config);
	bool is_stale = false;
	struct runner r;

	if (!kvm)
		return;
	rig_program(kvm, 0, 3, follow, follow_end, at, seen, RIG_DATA);
	start(&r, kvm, 0);
	for (uint64_t round = 1; round <= rounds && !is_stale; round++) {
		for (uint64_t i = 0; i < pages; i++) {
			rig_word(kvm, AT + i * PAGE, round << 8 | i);
			rig_word(kvm, at + i * PAGE, round << 8 | i);
		}
		merge_runs(gn_kvm_vm(kvm), AT, at, pages);
		spin(round % 64 * 64);
		rig_word(kvm, at, round << 32);
		for (unsigned i = 0; i < PATIENCE / 20 && rig_read(kvm, seen) != round << 32; i++)
			pause_ms(i ? 10 : 0);
		is_stale = rig_read(kvm, seen) != round << 32;
		RIG_CHECK(!is_stale, "round %llu: the guest still reads %#llx",
			  (unsigned long long)round, (unsigned long long)rig_read(kvm, seen));
	}
	rig_word(kvm, RIG_DATA, 1);
	RIG_EXPECT_EXIT(kvm, finish(&r), 0);
	gn_kvm_destroy(kvm);
}

/* A VM may end while pages are put into its guest's view and mappings move. */
static void ends_while_pages_come(void)
{
	const uint64_t pages = MOST_PAGES;

	for (unsigned round = 0; round < 20; round++) {
		struct gn_kvm_config config = plain();
		struct gn_kvm *kvm = rig_new(&config);
		struct rig_result result;
		struct runner r;

		if (!kvm)
			return;
		RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, fill_pages, AT, pages, 7), 0);
		RIG_CHECK(merge_all(gn_kvm_vm(kvm), pages) == pages - 1, "not all were merged");
		rig_program(kvm, 0, 3, read_for_ever, read_for_ever_end, AT, pages, 0);
		start(&r, kvm, 0);
		spin(round * 2000);
		gn_kvm_stop(kvm);
		result = finish(&r);
		RIG_CHECK(result.stop == GN_KVM_STOP_ASKED, "stop %d: %s", result.stop,
			  gn_kvm_error(kvm, 0));
		gn_kvm_destroy(kvm);
	}
}

/* Where pages cannot be put in write-protected, a read makes them the guest's own; and only there. */
static void reads_break_where_they_must(void)
{
	const uint64_t pages = MOST_PAGES;
	struct gn_kvm_config config = plain();
	struct gn_audit_report report;
	struct gn_kvm *kvm = rig_new(&config);
	struct gn_vm *vm;

	if (!kvm)
		return;
	vm = gn_kvm_vm(kvm);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, fill_pages, AT, pages, 7), 0);
	RIG_CHECK(merge_all(vm, pages) == pages - 1, "not all were merged");
	RIG_CHECK(count_shared(vm, pages) == pages, "%u pages share", count_shared(vm, pages));
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, read_pages, AT, pages, 0), 7 * pages);
	RIG_CHECK(count_shared(vm, pages) == (kvm->nested->uffd_wp ? pages : 0),
		  "%u pages share when they were read", count_shared(vm, pages));
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, fill_pages, AT, pages, 9), 0);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, read_pages, AT, pages, 0), 9 * pages);
	RIG_CHECK(!count_shared(vm, pages), "a store left a page shared");
	RIG_CHECK(!gn_audit(vm, &report), "%s", report.first);
	gn_kvm_destroy(kvm);
}

/* ---- A domain --------------------------------------------------------------------------------------------------- */

static void sweep(struct gn_domain *domain)
{
	bool is_done = false;

	RIG_CHECK(!gn_domain_sweep(domain), "sweep");
	while (!is_done)
		RIG_CHECK(!gn_domain_scan(domain, 1000000, &is_done), "scan");
}

/* Pages that stand still are found. */
static void settle(struct gn_domain *domain, struct gn_vm *vm, uint64_t pages)
{
	struct gn_sharing_stats stats;

	for (unsigned i = 0; i < 20 && count_shared(vm, pages) < pages; i++)
		sweep(domain);
	gn_domain_stats(domain, &stats);
	RIG_CHECK(stats.pages_sharing >= pages * 99 / 100, "%llu pages are saved",
		  (unsigned long long)stats.pages_sharing);
	RIG_CHECK(count_shared(vm, pages) == pages, "not all are shared");
}

/* A scanner finds pages that are alike by KVM's dirty log, and again others while the guest writes them anew. */
static void a_domain_finds_its_pages(const char *scheme)
{
	const uint64_t pages = 256;
	struct gn_kvm_config config = plain();
	struct gn_audit_report report;
	struct gn_domain *domain;
	struct runner r;
	struct gn_kvm *kvm;

	config.vm.scheme = scheme;
	kvm = rig_new(&config);
	if (!kvm)
		return;
	RIG_CHECK(!gn_domain_create(&(struct gn_domain_config){ .frames = gn_kvm_vm(kvm)->frames,
								.max_pages = MEM_BYTES / PAGE },
				    &domain),
		  "create");
	RIG_CHECK(!gn_domain_add(domain, gn_kvm_vm(kvm)), "add");
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, fill_pages, AT, pages, 7), 0);
	settle(domain, gn_kvm_vm(kvm), pages);

	rig_program(kvm, 0, 3, fill_pages, fill_pages_end, AT, pages, 9);
	start(&r, kvm, 0);
	for (unsigned i = 0; i < PATIENCE && !atomic_load(&r.is_done); i++) {
		sweep(domain);
		pause_ms(10);
	}
	RIG_EXPECT_EXIT(kvm, finish(&r), 0);
	settle(domain, gn_kvm_vm(kvm), pages);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, read_pages, AT, pages, 0), 9 * pages);
	RIG_CHECK(!gn_audit(gn_kvm_vm(kvm), &report), "%s", report.first);
	gn_domain_remove(domain, gn_kvm_vm(kvm));
	gn_domain_destroy(domain);
	gn_kvm_destroy(kvm);
}

int main(void)
{
	if (rig_start(&host)) {
		PART(merged_while_it_runs("shadow"));
		PART(a_domain_finds_its_pages("shadow"));
		if (!host.uffd_minor_shmem) {
			rig_skip("nested mode",
				 "no userfaultfd with minor faults on shared memory");
		} else {
			PART(merged_while_it_runs("ept"));
			PART(a_domain_finds_its_pages("ept"));
			PART(mappings_have_a_ceiling());
			PART(runs_have_few_ends());
			PART(neighbours_come_along());
			PART(what_lies_between_stays());
			PART(who_waits_gets_the_answer());
			PART(stores_of_the_host_are_seen());
			PART(ends_while_pages_come());
			PART(reads_break_where_they_must());
		}
	}
	return rig_end();
}
