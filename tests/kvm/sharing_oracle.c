/* SPDX-License-Identifier: MIT */
/*
 * sharing_oracle.c [SEED [OPERATIONS]] - two vCPUs read and write pages of few different contents at random, and know what each
 * holds, while the host shares what is alike, within the VM and with the memory of another, exchanges the scheme, takes pages for
 * the balloon and audits.
 *
 * Every operation of a guest is a page looked at, at both ends; one in sixteen is also written. Beside each page is one that
 * the balloon may take at any time: it holds what was stored there, or zeros.
 */
#include <gnomon/sharing.h>

#include "kvm/nested_guest.h"
#include "mmu/vm.h"
#include "support/cases.h"

/* rbx: the pages; rcx: their number, a power of two, - 1; rsi: a page of the guest's own: stop, operations done, the page that was
 * wrong, and from 0x800 on a byte of contents for each page. Ends with 0, or with 1 if one is wrong. */
RIG_CODE(wander, "mov %rsi, %r8\n"
		 "1: mov %r8, %rax\n shl $13, %rax\n xor %rax, %r8\n" /* xorshift64 */
		 "mov %r8, %rax\n shr $7, %rax\n xor %rax, %r8\n"
		 "mov %r8, %rax\n shl $17, %rax\n xor %rax, %r8\n"
		 "mov %r8, %rdi\n shr $20, %rdi\n and %rcx, %rdi\n"
		 "mov %rdi, %rdx\n shl $12, %rdx\n add %rbx, %rdx\n"
		 "movzbl 0x800(%rsi, %rdi), %eax\n"
		 "cmp %rax, (%rdx)\n jne 3f\n cmp %rax, 4088(%rdx)\n jne 3f\n"
		 "mov %r8, %r9\n shr $50, %r9\n test $15, %r9d\n jnz 2f\n"
		 "mov %r8, %rax\n shr $40, %rax\n and $7, %eax\n"
		 "mov %rax, (%rdx)\n mov %rax, 4088(%rdx)\n mov %al, 0x800(%rsi, %rdi)\n"
		 "2: lea 1(%rcx), %r10\n shl $12, %r10\n add %rdx, %r10\n"
		 "mov (%r10), %r11\n test %r11, %r11\n jz 4f\n cmp %rdx, %r11\n jne 3f\n"
		 "4: test $0xf0, %r9d\n jnz 5f\n mov %rdx, (%r10)\n"
		 "5: incq 8(%rsi)\n cmpq $0, (%rsi)\n je 1b\n xor %eax, %eax\n int3\n"
		 "3: mov %rdx, 16(%rsi)\n mov $1, %eax\n int3")

#define CPUS		  2
#define PAGES		  512
#define AREA		  (2 * PAGES * PAGE)
#define FULL		  10000000
#define CONTENTS	  8
#define BORROWED	  64
#define AUDIT_TURNS	  16
#define OPERATIONS_A_TURN 10000

static uint64_t area(unsigned cpu)
{
	return 32 * MIB + cpu * AREA;
}

static uint64_t control(unsigned cpu)
{
	return RIG_DATA + cpu * PAGE;
}

static uint64_t operations(struct gn_kvm *kvm)
{
	uint64_t sum = 0, one;

	for (unsigned cpu = 0; cpu < CPUS; cpu++) {
		RIG_CHECK(!gn_vm_read(gn_kvm_vm(kvm), gpa(control(cpu) + 8), &one, sizeof(one)),
			  "read");
		sum += one;
	}
	return sum;
}

/* Another's memory, with a page of each contents. */
static int owner_memory(void)
{
	int fd = owner_new(CONTENTS * PAGE);

	for (uint64_t word = 0; word < CONTENTS; word++) {
		owner_put(fd, word * PAGE, word);
		owner_put(fd, word * PAGE + PAGE - sizeof(word), word);
	}
	owner_seal(fd);
	return fd;
}

static int audit(void *ctx)
{
	struct gn_kvm *kvm = ctx;
	struct gn_audit_report report;

	RIG_CHECK(!gn_audit(gn_kvm_vm(kvm), &report), "audit: %s", report.first);
	return 0;
}

struct world {
	struct gn_kvm *kvm;
	struct gn_domain *domain;
	struct runner cpus[CPUS];
	struct test_random random;
	pfn_t owner; /* the first frame of its memory */
	uint64_t switches, ballooned, borrowed, audits;
};

/* Some pages that may hold just that get their frames from the owner. */
static void borrow(struct world *w)
{
	struct gn_frames *frames = gn_kvm_vm(w->kvm)->frames;
	struct gn_merge pages[BORROWED];
	pfn_t returned[CONTENTS];
	uint64_t at = area(test_random_next(&w->random) % CPUS) / PAGE, freed = 0;

	for (unsigned i = 0; i < BORROWED; i++) {
		at += 1 + test_random_next(&w->random) % (PAGES / BORROWED - 1);
		pages[i] = (struct gn_merge){
			.at = gfn(at),
			.frame = pfn(w->owner.v + test_random_next(&w->random) % CONTENTS)
		};
		RIG_CHECK(gn_frames_lend(frames, pages[i].frame) >= 0, "lend");
	}
	RIG_CHECK(!gn_p2m_merge(gn_kvm_vm(w->kvm), pages, BORROWED, GN_SHARE_READ, &freed),
		  "merge");
	for (unsigned i = 0; i < BORROWED; i++)
		gn_frames_put(frames, pages[i].frame);
	(void)gn_frames_take_returned(frames, returned, CONTENTS);
	w->borrowed += freed;
}

/* Some pages beside those that are known, of one of the CPUs. */
static void balloon(struct world *w)
{
	uint64_t count = 1 + test_random_next(&w->random) % 32;
	uint64_t at = PAGES + test_random_next(&w->random) % (PAGES - count);
	gfn_t first = gfn(area(test_random_next(&w->random) % CPUS) / PAGE + at);

	w->ballooned += gn_p2m_balloon(gn_kvm_vm(w->kvm), first, count) ? 0 : count;
}

static void disturb(struct world *w, unsigned turn, bool has_nested)
{
	static const char *const schemes[] = { "shadow", "ept", "shadow-vtlb", "npt" };
	bool is_done = false;

	RIG_CHECK(!gn_domain_sweep(w->domain), "sweep");
	while (!is_done)
		RIG_CHECK(!gn_domain_scan(w->domain, 1000000, &is_done), "scan");
	balloon(w);
	borrow(w);
	if (turn % 4 == 0) {
		const char *scheme = schemes[turn / 4 % 4];

		if (!has_nested)
			scheme = schemes[turn / 4 % 2 * 2];
		RIG_CHECK(!gn_kvm_switch_scheme(w->kvm, scheme), "to %s", scheme);
		w->switches++;
	}
	if (turn % AUDIT_TURNS == 0) {
		gn_kvm_pause(w->kvm, audit, w->kvm);
		w->audits++;
	}
}

static bool is_over(const struct world *w)
{
	for (unsigned cpu = 0; cpu < CPUS; cpu++)
		if (atomic_load(&w->cpus[cpu].is_done))
			return true;
	return false;
}

static void run(struct world *w, uint64_t wanted, bool has_nested)
{
	struct gn_sharing_stats stats;
	unsigned turn = 0;

	for (unsigned cpu = 0; cpu < CPUS; cpu++) {
		rig_program(w->kvm, cpu, 3, wander, wander_end, area(cpu), PAGES - 1, control(cpu));
		start(&w->cpus[cpu], w->kvm, cpu);
	}
	/* A guest that has all its pages gets far in a moment: the host's part counts as well. */
	while ((operations(w->kvm) < wanted || turn < wanted / OPERATIONS_A_TURN) && !is_over(w)) {
		disturb(w, ++turn, has_nested);
		pause_ms(10 + test_random_next(&w->random) % 190);
	}
	for (unsigned cpu = 0; cpu < CPUS; cpu++)
		rig_word(w->kvm, control(cpu), 1);
	for (unsigned cpu = 0; cpu < CPUS; cpu++)
		RIG_EXPECT_EXIT(w->kvm, finish(&w->cpus[cpu]), 0);
	(void)audit(w->kvm);
	gn_domain_stats(w->domain, &stats);
	printf("%" PRIu64 " operations, %" PRIu64 " merges, %" PRIu64 " zero pages, %" PRIu64
	       " ballooned, %" PRIu64 " borrowed, %" PRIu64 " switches, %" PRIu64 " audits\n",
	       operations(w->kvm), stats.pages_merged, stats.zero_pages, w->ballooned, w->borrowed,
	       w->switches, w->audits);
	RIG_CHECK(operations(w->kvm) >= wanted, "it ended early");
	RIG_CHECK(stats.pages_merged, "nothing was shared");
}

static void test(uint64_t seed, uint64_t wanted)
{
	struct world w = { .random = test_random_seed(seed) };
	struct gn_kvm_config config = plain();
	int fd = owner_memory();

	config.vm.scheme = "shadow";
	config.vm.window_bytes = 2 * MIB;
	w.kvm = rig_new(&config);
	if (!w.kvm)
		return;
	gn_vm_set_ballooned_touch(gn_kvm_vm(w.kvm), GN_TOUCH_GRANT, NULL, NULL);
	RIG_CHECK(!gn_domain_create(&(struct gn_domain_config){ .frames = gn_kvm_vm(w.kvm)->frames,
								.max_pages = MEM_BYTES / PAGE },
				    &w.domain),
		  "create");
	RIG_CHECK(!gn_frames_attach(gn_kvm_vm(w.kvm)->frames, fd, CONTENTS * PAGE, &w.owner),
		  "attach");
	RIG_CHECK(!gn_domain_add(w.domain, gn_kvm_vm(w.kvm)), "add");
	run(&w, wanted, host.uffd_minor_shmem);
	gn_domain_remove(w.domain, gn_kvm_vm(w.kvm));
	gn_domain_destroy(w.domain);
	gn_kvm_destroy(w.kvm);
	close(fd);
}

int main(int argc, char **argv)
{
	struct test_run options = test_run_start(argc, argv, 1, FULL);

	if (rig_start(&host)) {
		if (!host.uffd_minor_shmem)
			rig_skip("nested mode",
				 "no userfaultfd with minor faults on shared memory");
		test(options.seed, options.cases);
	}
	return rig_end();
}
