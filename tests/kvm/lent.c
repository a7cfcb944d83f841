/* SPDX-License-Identifier: MIT */
/*
 * lent.c - guests on /dev/kvm that use frames of another process's memory: read in place, never written, and gone from the guest
 * when their owner gets them back, whatever comes to their place.
 */
#include <sys/eventfd.h>
#include <sys/resource.h>

#include <gnomon/sharing.h>

#include "kvm/nested_guest.h"
#include "kvmbackend/nested.h"
#include "mmu/retire.h"

#define AT	   (32 * MIB)
#define PAGES	   64
#define SUM	   ((uint64_t)PAGES * (PAGES + 1) / 2)
#define FILE_BYTES (2 * MIB)
/* Every second page became 1000, and the others are 2, 4, ... */
#define HALF_SUM (1000 * (PAGES / 2) + PAGES / 2 * (PAGES / 2 + 1))

/* Over and over: are rcx pages from rbx still numbered from 1? If not it ends with 1; if the word at rsi is not 0, with 0. */
RIG_CODE(check_numbers, "1: mov %rbx, %rdi\n xor %edx, %edx\n"
			"2: inc %rdx\n cmp %rdx, (%rdi)\n jne 3f\n add $4096, %rdi\n"
			"cmp %rcx, %rdx\n jne 2b\n"
			"cmpq $0, (%rsi)\n je 1b\n xor %eax, %eax\n int3\n"
			"3: mov $1, %eax\n int3")

/* Every second page is read. */
RIG_CODE(read_half, "1: mov (%rbx), %eax\n add $8192, %rbx\n dec %rcx\n jnz 1b\n"
		    "xor %eax, %eax\n int3")

/* ---- The owner's memory: pages whose first words are numbers from @first on, by @step -------------------------- */

static int owner_memory(uint64_t first, uint64_t step)
{
	int fd = owner_new(FILE_BYTES);

	for (uint64_t i = 0; i < PAGES; i++)
		owner_put(fd, i * PAGE, first + i * step);
	owner_seal(fd);
	return fd;
}

static void check_owner_memory(int fd, uint64_t first, uint64_t step)
{
	for (uint64_t i = 0; i < PAGES; i++) {
		uint64_t word = 0;

		RIG_CHECK(pread(fd, &word, sizeof(word), (off_t)(i * PAGE)) == sizeof(word) &&
				  word == first + i * step,
			  "the owner's page %llu holds %llu", (unsigned long long)i,
			  (unsigned long long)word);
	}
}

/* ---- A guest that gets it ---------------------------------------------------------------------------------------- */

static pfn_t attach(struct gn_vm *vm, int fd)
{
	pfn_t first = pfn(0);

	RIG_CHECK(!gn_frames_attach(vm->frames, fd, FILE_BYTES, &first), "attach");
	return first;
}

/* Page by page, those that hold what the owner's do, from @from on by @step. How many there were. */
static uint64_t borrow_as(struct gn_vm *vm, pfn_t first, uint64_t from, uint64_t step,
			  enum gn_share_access access)
{
	struct gn_merge pages[PAGES];
	uint64_t freed, count = 0;

	for (uint64_t i = from; i < PAGES; i += step) {
		pages[count] = (struct gn_merge){ gfn((AT >> 12) + i), pfn(first.v + i), 0 };
		RIG_CHECK(gn_frames_lend(vm->frames, pages[count++].frame) >= 0, "lend");
	}
	RIG_CHECK(!gn_p2m_merge(vm, pages, count, access, &freed), "merge");
	for (uint64_t i = 0; i < count; i++)
		gn_frames_put(vm->frames, pages[i].frame);
	return freed;
}

static uint64_t borrow_some(struct gn_vm *vm, pfn_t first, uint64_t from, uint64_t step)
{
	return borrow_as(vm, first, from, step, GN_SHARE_READ);
}

static uint64_t borrow(struct gn_vm *vm, pfn_t first)
{
	return borrow_some(vm, first, 0, 1);
}

/* Does a page that is read stay where it is? */
static bool keeps_lent(const struct gn_kvm *kvm)
{
	return !kvm->nested || kvm->nested->uffd_wp;
}

static unsigned count_lent(struct gn_vm *vm)
{
	unsigned count = 0;

	for (uint64_t i = 0; i < PAGES; i++) {
		struct gn_p2m_info info;

		RIG_CHECK(!gn_p2m_query(vm, gfn((AT >> 12) + i), &info), "query");
		count += info.state == GN_P2M_SHARED && !gn_frames_is_own(vm->frames, info.pfn);
	}
	return count;
}

/* No page has a frame of @first's memory any more, and it goes. */
static void detach(struct gn_vm *vm, pfn_t first)
{
	pfn_t returned[2 * PAGES];
	size_t count;

	gn_retire_drain(vm);
	count = gn_frames_take_returned(vm->frames, returned, 2 * PAGES);
	RIG_CHECK(count == PAGES, "%zu frames were returned", count);
	RIG_CHECK(!gn_frames_detach(vm->frames, first), "detach");
}

/* A guest whose pages are numbered as those of the memory that is attached, and that has none of them yet. */
struct loan {
	struct gn_kvm *kvm;
	struct gn_vm *vm;
	int fd;
	pfn_t first;
};

static bool begin(struct loan *l, const char *scheme)
{
	struct gn_kvm_config config = plain();

	config.vm.scheme = scheme;
	config.vm.window_bytes = 4 * FILE_BYTES;
	l->kvm = rig_new(&config);
	if (!l->kvm)
		return false;
	l->vm = gn_kvm_vm(l->kvm);
	l->fd = owner_memory(1, 1);
	l->first = attach(l->vm, l->fd);
	RIG_EXPECT_EXIT(l->kvm, RIG_RUN(l->kvm, 3, number_pages, AT, PAGES, 1), 0);
	return true;
}

static void end(struct loan *l)
{
	struct gn_audit_report report;

	check_owner_memory(l->fd, 1, 1);
	RIG_CHECK(!gn_audit(l->vm, &report), "%s", report.first);
	gn_kvm_destroy(l->kvm);
	close(l->fd);
}

/* @expected pages have frames of the owner's; where a read takes them out, none. */
static void check_lent(const struct loan *l, unsigned expected)
{
	unsigned count = count_lent(l->vm);

	RIG_CHECK(count == (keeps_lent(l->kvm) ? expected : 0), "%u pages are left, not %u", count,
		  expected);
}

/* ---- Parts ------------------------------------------------------------------------------------------------------- */

/* Read where they are, copied when they are written; and another memory in the same place is not the one before. */
static void borrowed_and_given_back(const char *scheme)
{
	int other = owner_memory(9, 0);
	struct loan l;
	pfn_t next;

	if (!begin(&l, scheme))
		return;
	RIG_CHECK(borrow(l.vm, l.first) == PAGES, "not all pages gave up their frames");
	RIG_EXPECT_EXIT(l.kvm, RIG_RUN(l.kvm, 3, read_pages, AT, PAGES, 0), SUM);
	check_lent(&l, PAGES);
	RIG_CHECK(!l.kvm->nested || l.kvm->nested->piece_ends <= 2, "%llu pieces of a run",
		  (unsigned long long)l.kvm->nested->piece_ends);

	RIG_EXPECT_EXIT(l.kvm, RIG_RUN(l.kvm, 3, fill_half, AT, PAGES / 2, 1000), 0);
	RIG_EXPECT_EXIT(l.kvm, RIG_RUN(l.kvm, 3, read_pages, AT, PAGES, 0), HALF_SUM);
	check_lent(&l, PAGES / 2);
	RIG_CHECK(!keeps_lent(l.kvm) || gn_frames_detach(l.vm->frames, l.first) == -EBUSY,
		  "half of them are in use");
	RIG_EXPECT_EXIT(l.kvm, RIG_RUN(l.kvm, 3, fill_pages, AT, PAGES, 9), 0);
	detach(l.vm, l.first);
	RIG_CHECK(!l.kvm->nested || !l.kvm->nested->lent,
		  "the view keeps %llu pages of what is gone",
		  (unsigned long long)l.kvm->nested->lent);

	next = attach(l.vm, other);
	RIG_CHECK(next.v == l.first.v, "it is not where the former was");
	RIG_CHECK(borrow(l.vm, next) == PAGES, "not all pages gave up their frames");
	RIG_EXPECT_EXIT(l.kvm, RIG_RUN(l.kvm, 3, read_pages, AT, PAGES, 0), 9 * PAGES);
	check_lent(&l, PAGES);
	end(&l);
	close(other);
}

/* The view could not send pages home when the guest lost them; what is attached there next is not taken for what was. */
static void left_in_the_view(void)
{
	int other = owner_memory(9, 0), uffd;
	struct gn_kvm_nested *n;
	struct loan l;
	pfn_t next;

	if (!begin(&l, "ept"))
		return;
	n = l.kvm->nested;
	RIG_CHECK(borrow(l.vm, l.first) == PAGES, "not all pages gave up their frames");
	RIG_EXPECT_EXIT(l.kvm, RIG_RUN(l.kvm, 3, read_pages, AT, PAGES, 0), SUM);
	uffd = n->uffd;
	n->uffd = -1; /* no piece can be guarded */
	for (uint64_t i = 0; i < PAGES; i++)
		rig_word(l.kvm, AT + i * PAGE, 9);
	detach(l.vm, l.first);

	next = attach(l.vm, other);
	RIG_CHECK(next.v == l.first.v, "it is not where the former was");
	RIG_CHECK(borrow(l.vm, next) == PAGES, "not all pages gave up their frames");
	RIG_CHECK(n->lent == (keeps_lent(l.kvm) ? PAGES : 0), "%llu pages were left",
		  (unsigned long long)n->lent);
	n->uffd = uffd;
	(void)eventfd_write(n->filler_fd, 1); /* it may be waiting for what was there meanwhile */
	RIG_EXPECT_EXIT(l.kvm, RIG_RUN(l.kvm, 3, read_pages, AT, PAGES, 0), 9 * PAGES);
	RIG_EXPECT_EXIT(l.kvm, RIG_RUN(l.kvm, 3, fill_pages, AT, PAGES, 5), 0);
	RIG_EXPECT_EXIT(l.kvm, RIG_RUN(l.kvm, 3, read_pages, AT, PAGES, 0), 5 * PAGES);
	RIG_CHECK(!n->lent, "they are still there");
	check_owner_memory(other, 9, 0);
	end(&l);
	close(other);
}

/* Every second page is sealed: how many still are. */
static unsigned count_sealed(const struct loan *l)
{
	unsigned count = 0;

	for (uint64_t i = 1; i < PAGES; i += 2) {
		struct gn_p2m_info info;

		RIG_CHECK(!gn_p2m_query(l->vm, gfn((AT >> 12) + i), &info), "query");
		count += info.state == GN_P2M_SHARED && !info.rights;
		RIG_CHECK(info.state == GN_P2M_SHARED ||
				  (info.state == GN_P2M_PRIVATE && info.pfn.v == (AT >> 12) + i),
			  "page %llu is not at home", (unsigned long long)i);
	}
	return count;
}

/* The view has them in no way: not ahead, not with their neighbours, not by a place of their own. A read is a copy, at home. */
static void sealed_pages_stay_out(const char *scheme)
{
	struct gn_merge own[PAGES / 2];
	struct gn_kvm_nested *n;
	struct loan l;

	if (!begin(&l, scheme))
		return;
	n = l.kvm->nested;
	RIG_CHECK(borrow_some(l.vm, l.first, 0, 2) == PAGES / 2, "not all could be read");
	RIG_CHECK(borrow_as(l.vm, l.first, 1, 2, GN_SHARE_SEALED) == PAGES / 2, "nor sealed");
	RIG_CHECK(!n || !gn_kvm_fill_ahead(n), "filling ahead");
	RIG_CHECK(count_sealed(&l) == PAGES / 2, "%u are sealed", count_sealed(&l));
	RIG_EXPECT_EXIT(l.kvm, RIG_RUN(l.kvm, 3, read_half, AT, PAGES / 2, 0), 0);
	RIG_CHECK(count_sealed(&l) == PAGES / 2, "%u are sealed, others were read",
		  count_sealed(&l));
	RIG_CHECK(!n || n->lent == (keeps_lent(l.kvm) ? PAGES / 2 : 0), "%llu have a place",
		  (unsigned long long)n->lent);
	RIG_EXPECT_EXIT(l.kvm, RIG_RUN(l.kvm, 3, read_pages, AT, PAGES, 0), SUM);
	RIG_CHECK(!count_sealed(&l), "%u are sealed, and were read", count_sealed(&l));

	/* Sealed where they are, and merged later. */
	for (unsigned i = 0; i < PAGES / 2; i++)
		own[i] = (struct gn_merge){ .at = gfn((AT >> 12) + 2 * i + 1) };
	RIG_CHECK(!gn_p2m_publish(l.vm, own, PAGES / 2, GN_SHARE_SEALED), "publish");
	RIG_CHECK(borrow_as(l.vm, l.first, 1, 2, GN_SHARE_RESEAL) == PAGES / 2, "merged later");
	for (unsigned i = 0; i < PAGES / 2; i++)
		gn_frames_put(l.vm->frames, own[i].frame);
	RIG_CHECK(count_sealed(&l) == PAGES / 2, "%u are sealed again", count_sealed(&l));
	RIG_EXPECT_EXIT(l.kvm, RIG_RUN(l.kvm, 3, read_pages, AT, PAGES, 0), SUM);
	RIG_CHECK(!count_sealed(&l), "%u are sealed, and were read", count_sealed(&l));
	RIG_EXPECT_EXIT(l.kvm, RIG_RUN(l.kvm, 3, fill_pages, AT, PAGES, 9), 0);
	detach(l.vm, l.first);
	end(&l);
}

/* Pages go to the owner's frames and come back while a guest reads them. */
static void borrowed_while_it_runs(const char *scheme)
{
	const unsigned rounds = 50;
	struct runner r;
	struct loan l;

	if (!begin(&l, scheme))
		return;
	rig_program(l.kvm, 0, 3, check_numbers, check_numbers_end, AT, PAGES, RIG_DATA);
	start(&r, l.kvm, 0);
	for (unsigned round = 0; round < rounds && !atomic_load(&r.is_done); round++) {
		(void)borrow(l.vm, l.first);
		pause_ms(round % 10);
		for (uint64_t i = round % 3; i < PAGES; i += 1 + round % 4)
			rig_word(l.kvm, AT + i * PAGE, i + 1);
		pause_ms(round % 7);
	}
	RIG_CHECK(!atomic_load(&r.is_done), "it saw something else");
	rig_word(l.kvm, RIG_DATA, 1);
	RIG_EXPECT_EXIT(l.kvm, finish(&r), 0);
	end(&l);
}

/* Frames that are lent stay under a scheme's successor. */
static void borrowed_over_switches(void)
{
	static const char *const schemes[] = { "shadow", "ept", "shadow-vtlb", "npt", "ept" };
	struct loan l;

	if (!begin(&l, "ept"))
		return;
	RIG_CHECK(borrow(l.vm, l.first) == PAGES, "not all pages gave up their frames");
	for (unsigned i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++) {
		RIG_EXPECT_EXIT(l.kvm, RIG_RUN(l.kvm, 3, read_pages, AT, PAGES, 0), SUM);
		RIG_CHECK(!gn_kvm_switch_scheme(l.kvm, schemes[i]), "to %s", schemes[i]);
	}
	RIG_EXPECT_EXIT(l.kvm, RIG_RUN(l.kvm, 3, read_pages, AT, PAGES, 0), SUM);
	check_lent(&l, PAGES);
	RIG_EXPECT_EXIT(l.kvm, RIG_RUN(l.kvm, 3, fill_pages, AT, PAGES, 9), 0);
	RIG_EXPECT_EXIT(l.kvm, RIG_RUN(l.kvm, 3, read_pages, AT, PAGES, 0), 9 * PAGES);
	end(&l);
}

/* Aging takes pages out of the view for a moment, and they stay where they are. */
static void borrowed_pages_age(void)
{
	static uint8_t accessed[MEM_BYTES / PAGE / 8];
	struct loan l;

	if (!begin(&l, "ept"))
		return;
	RIG_CHECK(borrow(l.vm, l.first) == PAGES, "not all pages gave up their frames");
	RIG_EXPECT_EXIT(l.kvm, RIG_RUN(l.kvm, 3, read_pages, AT, PAGES, 0), SUM);
	RIG_CHECK(!gn_accessed_harvest(l.vm, gfn(AT / PAGE), PAGES, accessed), "harvest");
	RIG_CHECK(!keeps_lent(l.kvm) || l.kvm->nested->lent == PAGES, "%llu pages are in pieces",
		  (unsigned long long)l.kvm->nested->lent);
	RIG_EXPECT_EXIT(l.kvm, RIG_RUN(l.kvm, 3, read_pages, AT, PAGES, 0), SUM);
	check_lent(&l, PAGES);
	end(&l);
}

/* With no more mappings than there may be: what does not fit gets frames of its own, and what does holds what it held. */
static void mappings_have_a_ceiling(void)
{
	const uint64_t most = 8;
	struct gn_kvm_nested *n;
	struct loan l;

	if (!begin(&l, "ept"))
		return;
	n = l.kvm->nested;
	RIG_CHECK(borrow(l.vm, l.first) == PAGES, "not all pages gave up their frames");
	n->piece_ends_max = most;
	RIG_EXPECT_EXIT(l.kvm, RIG_RUN(l.kvm, 3, read_pages, AT, PAGES, 0), SUM);
	RIG_EXPECT_EXIT(l.kvm, RIG_RUN(l.kvm, 3, fill_half, AT, PAGES / 2, 1000), 0);
	RIG_CHECK(n->piece_ends <= most + 2, "%llu pieces", (unsigned long long)n->piece_ends);
	RIG_EXPECT_EXIT(l.kvm, RIG_RUN(l.kvm, 3, read_pages, AT, PAGES, 0), HALF_SUM);
	RIG_CHECK(n->piece_ends <= most + 2, "%llu pieces when all was read",
		  (unsigned long long)n->piece_ends);
	end(&l);
}

/* Where the kernel has no more mappings of that kind for us, pages stop sharing; the guest sees what it wrote. */
static void no_mapping_is_left(void)
{
	struct rlimit old, none;
	struct loan l;

	if (!begin(&l, "ept"))
		return;
	RIG_CHECK(borrow(l.vm, l.first) == PAGES, "not all pages gave up their frames");
	RIG_CHECK(!getrlimit(RLIMIT_DATA, &old), "getrlimit");
	none = (struct rlimit){ .rlim_cur = PAGE, .rlim_max = old.rlim_max };
	RIG_CHECK(!setrlimit(RLIMIT_DATA, &none), "setrlimit");
	RIG_EXPECT_EXIT(l.kvm, RIG_RUN(l.kvm, 3, read_pages, AT, PAGES, 0), SUM);
	RIG_CHECK(!setrlimit(RLIMIT_DATA, &old), "setrlimit");
	RIG_CHECK(!count_lent(l.vm), "%u pages are left", count_lent(l.vm));
	end(&l);
}

/* Mappings that the kernel has of the view. */
static uint64_t count_mappings(const struct gn_kvm_nested *n)
{
	const uintptr_t start = (uintptr_t)n->view, last = start + n->pages * PAGE;
	FILE *maps = fopen("/proc/self/maps", "r");
	unsigned long long from, to;
	uint64_t count = 0;
	char line[512];

	while (maps && fgets(line, sizeof(line), maps))
		count += sscanf(line, "%llx-%llx", &from, &to) == 2 && from < last && to > start;
	if (maps)
		fclose(maps);
	return count;
}

/* Private mappings that were filled apart are not joined by the kernel, and are counted as it does; a run that is there when it is
 * touched is one. */
static void mappings_are_counted(void)
{
	struct gn_kvm_nested *n;
	uint64_t mappings;
	struct loan l;

	if (!begin(&l, "ept"))
		return;
	n = l.kvm->nested;
	RIG_CHECK(borrow(l.vm, l.first) == PAGES, "not all pages gave up their frames");
	RIG_EXPECT_EXIT(l.kvm, RIG_RUN(l.kvm, 3, read_half, AT, PAGES / 2, 0), 0);
	RIG_EXPECT_EXIT(l.kvm, RIG_RUN(l.kvm, 3, read_pages, AT, PAGES, 0), SUM);
	mappings = count_mappings(n);
	RIG_CHECK(mappings == n->piece_ends + 1 && mappings == (keeps_lent(l.kvm) ? 3 : 1),
		  "a run: %llu mappings, %llu ends", (unsigned long long)mappings,
		  (unsigned long long)n->piece_ends);

	RIG_EXPECT_EXIT(l.kvm, RIG_RUN(l.kvm, 3, number_pages, AT, PAGES, 1), 0);
	RIG_CHECK(!n->piece_ends, "%llu ends", (unsigned long long)n->piece_ends);
	RIG_CHECK(borrow_some(l.vm, l.first, 0, 2) == PAGES / 2,
		  "not all pages gave up their frames");
	RIG_EXPECT_EXIT(l.kvm, RIG_RUN(l.kvm, 3, read_half, AT, PAGES / 2, 0), 0);
	RIG_CHECK(borrow_some(l.vm, l.first, 1, 2) == PAGES / 2,
		  "not all pages gave up their frames");
	RIG_EXPECT_EXIT(l.kvm, RIG_RUN(l.kvm, 3, read_pages, AT, PAGES, 0), SUM);
	mappings = count_mappings(n);
	RIG_CHECK(mappings > PAGES / 4 || !keeps_lent(l.kvm), "%llu mappings",
		  (unsigned long long)mappings);
	RIG_CHECK(mappings <= n->piece_ends + 1 && n->piece_ends < 2 * mappings,
		  "%llu mappings, %llu ends", (unsigned long long)mappings,
		  (unsigned long long)n->piece_ends);
	end(&l);
}

/* A host program that locks all that it maps has the kernel fill mappings before they are guarded. */
static void borrowed_by_who_locks_memory(void)
{
	struct loan l;

	if (!begin(&l, "ept"))
		return;
	RIG_CHECK(!mlockall(MCL_FUTURE), "mlockall: %s", strerror(errno));
	RIG_CHECK(borrow(l.vm, l.first) == PAGES, "not all pages gave up their frames");
	RIG_EXPECT_EXIT(l.kvm, RIG_RUN(l.kvm, 3, read_pages, AT, PAGES, 0), SUM);
	check_lent(&l, PAGES);
	RIG_EXPECT_EXIT(l.kvm, RIG_RUN(l.kvm, 3, fill_pages, AT, PAGES, 9), 0);
	RIG_CHECK(!count_lent(l.vm), "%u stores were not seen", count_lent(l.vm));
	for (uint64_t i = 0, word; i < PAGES; i++)
		RIG_CHECK(!gn_vm_read(l.vm, gpa(AT + i * PAGE), &word, sizeof(word)) && word == 9,
			  "page %llu holds something else", (unsigned long long)i);
	munlockall();
	end(&l);
}

/* Pages that share the last frame of one memory and the first of the next, which follow one another here, are of two pieces, also when a change on either
 * side of them takes them out and puts them back. The first memory's file may go on (@extra pages) or end there. */
static void neighbours_of_two_memories(uint64_t extra)
{
	const uint64_t pages = FILE_BYTES / PAGE;
	struct gn_kvm_config config = plain();
	struct gn_merge lent[2], near[2];
	int first = owner_new(FILE_BYTES + extra * PAGE), second = owner_new(FILE_BYTES);
	struct gn_kvm *kvm;
	uint64_t freed;
	pfn_t from;

	owner_put(first, (pages - 1) * PAGE, 3);
	if (extra)
		owner_put(first, pages * PAGE, 666);
	owner_put(second, 0, 4);
	owner_seal(first);
	owner_seal(second);
	config.vm.window_bytes = 4 * FILE_BYTES;
	kvm = rig_new(&config);
	if (!kvm)
		return;
	from = attach(gn_kvm_vm(kvm), first);
	RIG_CHECK(attach(gn_kvm_vm(kvm), second).v == from.v + pages, "they lie apart");
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, number_pages, AT, PAGES, 1), 0);
	for (unsigned i = 0; i < 2; i++) {
		lent[i] = (struct gn_merge){ gfn((AT >> 12) + 2 + i), pfn(from.v + pages - 1 + i),
					     0 };
		RIG_CHECK(gn_frames_lend(gn_kvm_vm(kvm)->frames, lent[i].frame) >= 0, "lend");
	}
	RIG_CHECK(!gn_p2m_merge(gn_kvm_vm(kvm), lent, 2, GN_SHARE_READ, &freed), "merge");
	RIG_CHECK(freed == 2, "%llu merged", (unsigned long long)freed);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, read_pages, AT, 4, 0), 1 + 2 + 3 + 4);
	near[0] = (struct gn_merge){ .at = gfn((AT >> 12) + 1) };
	near[1] = (struct gn_merge){ .at = gfn((AT >> 12) + 4) };
	RIG_CHECK(!gn_p2m_publish(gn_kvm_vm(kvm), near, 2, GN_SHARE_READ), "publish");
	for (unsigned i = 0; i < 2; i++) {
		gn_frames_put(gn_kvm_vm(kvm)->frames, lent[i].frame);
		gn_frames_put(gn_kvm_vm(kvm)->frames, near[i].frame);
	}
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, read_pages, AT, 5, 0), 1 + 2 + 3 + 4 + 5);
	gn_kvm_destroy(kvm);
	close(first);
	close(second);
}

int main(void)
{
	if (rig_start(&host)) {
		PART(borrowed_and_given_back("shadow"));
		PART(borrowed_while_it_runs("shadow"));
		PART(sealed_pages_stay_out("shadow"));
		if (!host.uffd_minor_shmem) {
			rig_skip("nested mode",
				 "no userfaultfd with minor faults on shared memory");
		} else {
			PART(borrowed_and_given_back("ept"));
			PART(left_in_the_view());
			PART(borrowed_while_it_runs("ept"));
			PART(sealed_pages_stay_out("ept"));
			PART(borrowed_over_switches());
			PART(borrowed_pages_age());
			PART(mappings_have_a_ceiling());
			PART(no_mapping_is_left());
			PART(mappings_are_counted());
			PART(borrowed_by_who_locks_memory());
			PART(neighbours_of_two_memories(0));
			PART(neighbours_of_two_memories(1));
		}
	}
	return rig_end();
}
