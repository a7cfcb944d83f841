/* SPDX-License-Identifier: MIT */
/*
 * lent.c - guests on /dev/kvm that use frames of another process's memory: read in place, never written, and gone from the guest
 * when their owner gets them back, whatever comes to their place.
 */
#include <fcntl.h>
#include <sys/mman.h>

#include <gnomon/sharing.h>

#include "kvm/nested_guest.h"
#include "kvmbackend/nested.h"
#include "mmu/retire.h"

#define AT	   (32 * MIB)
#define PAGES	   64
#define SUM	   ((uint64_t)PAGES * (PAGES + 1) / 2)
#define FILE_BYTES (2 * MIB)

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
	int fd = memfd_create("owner", MFD_ALLOW_SEALING);
	bool done = fd >= 0 && !ftruncate(fd, (off_t)FILE_BYTES);

	for (uint64_t i = 0; i < PAGES && done; i++) {
		uint64_t word = first + i * step;

		done = pwrite(fd, &word, sizeof(word), (off_t)(i * PAGE)) == sizeof(word);
	}
	/* As the daemon does: who gets it can only read. */
	done = done && !fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE);
	RIG_CHECK(done, "the owner's memory: %s", strerror(errno));
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

static struct gn_kvm *guest(const char *scheme)
{
	struct gn_kvm_config config = plain();

	config.vm.scheme = scheme;
	config.vm.window_bytes = 4 * FILE_BYTES;
	return rig_new(&config);
}

static pfn_t attach(struct gn_vm *vm, int fd)
{
	pfn_t first = pfn(0);

	RIG_CHECK(!gn_frames_attach(vm->frames, fd, FILE_BYTES, &first), "attach");
	return first;
}

/* Page by page, those that hold what the owner's do, from @from on by @step. How many there were. */
static uint64_t borrow_some(struct gn_vm *vm, pfn_t first, uint64_t from, uint64_t step)
{
	struct gn_merge pages[PAGES];
	uint64_t freed, count = 0;

	for (uint64_t i = from; i < PAGES; i += step) {
		pages[count] = (struct gn_merge){ gfn((AT >> 12) + i), pfn(first.v + i), 0 };
		RIG_CHECK(gn_frames_lend(vm->frames, pages[count++].frame) >= 0, "lend");
	}
	RIG_CHECK(!gn_p2m_merge(vm, pages, count, GN_SHARE_READ, &freed), "merge");
	for (uint64_t i = 0; i < count; i++)
		gn_frames_put(vm->frames, pages[i].frame);
	return freed;
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
static void detach(struct gn_vm *vm, pfn_t first, size_t expected)
{
	pfn_t returned[2 * PAGES];
	size_t count;

	gn_retire_drain(vm);
	count = gn_frames_take_returned(vm->frames, returned, 2 * PAGES);
	RIG_CHECK(count == expected, "%zu frames were returned", count);
	RIG_CHECK(!gn_frames_detach(vm->frames, first), "detach");
}

static void end(struct gn_kvm *kvm)
{
	struct gn_audit_report report;

	RIG_CHECK(!gn_audit(gn_kvm_vm(kvm), &report), "%s", report.first);
	gn_kvm_destroy(kvm);
}

/* ---- Parts ------------------------------------------------------------------------------------------------------- */

/* Read where they are, copied when they are written; and another memory in the same place is not the one before. */
static void borrowed_and_given_back(const char *scheme)
{
	int one = owner_memory(1, 1), other = owner_memory(9, 0);
	struct gn_kvm *kvm = guest(scheme);
	struct gn_vm *vm;
	pfn_t first, next;

	if (!kvm)
		return;
	vm = gn_kvm_vm(kvm);
	first = attach(vm, one);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, number_pages, AT, PAGES, 1), 0);
	RIG_CHECK(borrow(vm, first) == PAGES, "not all pages gave up their frames");
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, read_pages, AT, PAGES, 0), SUM);
	RIG_CHECK(count_lent(vm) == (keeps_lent(kvm) ? PAGES : 0), "%u pages are left",
		  count_lent(vm));
	RIG_CHECK(!kvm->nested || kvm->nested->piece_ends <= 2, "%llu pieces of a run",
		  (unsigned long long)kvm->nested->piece_ends);

	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, fill_half, AT, PAGES / 2, 1000), 0);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, read_pages, AT, PAGES, 0),
			1000 * (PAGES / 2) + PAGES / 2 * (PAGES / 2 + 1));
	RIG_CHECK(count_lent(vm) == (keeps_lent(kvm) ? PAGES / 2 : 0), "%u pages are left",
		  count_lent(vm));
	RIG_CHECK(!keeps_lent(kvm) || gn_frames_detach(vm->frames, first) == -EBUSY,
		  "half of them are in use");
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, fill_pages, AT, PAGES, 9), 0);
	check_owner_memory(one, 1, 1);
	detach(vm, first, PAGES);
	RIG_CHECK(!kvm->nested || !kvm->nested->lent, "the view keeps %llu pages of what is gone",
		  (unsigned long long)kvm->nested->lent);

	next = attach(vm, other);
	RIG_CHECK(next.v == first.v, "it is not where the former was");
	RIG_CHECK(borrow(vm, next) == PAGES, "not all pages gave up their frames");
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, read_pages, AT, PAGES, 0), 9 * PAGES);
	RIG_CHECK(count_lent(vm) == (keeps_lent(kvm) ? PAGES : 0), "%u pages are left",
		  count_lent(vm));
	end(kvm);
	close(one);
	close(other);
}

/* The view could not send pages home when the guest lost them; what is attached there next is not taken for what was. */
static void left_in_the_view(void)
{
	int one = owner_memory(1, 1), other = owner_memory(9, 0), uffd;
	struct gn_kvm *kvm = guest("ept");
	struct gn_vm *vm;
	pfn_t first, next;

	if (!kvm || !keeps_lent(kvm)) { /* then none is ever in it */
		gn_kvm_destroy(kvm);
		return;
	}
	vm = gn_kvm_vm(kvm);
	first = attach(vm, one);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, number_pages, AT, PAGES, 1), 0);
	RIG_CHECK(borrow(vm, first) == PAGES, "not all pages gave up their frames");
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, read_pages, AT, PAGES, 0), SUM);
	uffd = kvm->nested->uffd;
	kvm->nested->uffd = -1; /* no piece can be guarded */
	for (uint64_t i = 0; i < PAGES; i++)
		rig_word(kvm, AT + i * PAGE, 9);
	detach(vm, first, PAGES);

	next = attach(vm, other);
	RIG_CHECK(next.v == first.v, "it is not where the former was");
	RIG_CHECK(borrow(vm, next) == PAGES, "not all pages gave up their frames");
	RIG_CHECK(kvm->nested->lent == PAGES, "%llu pages were left",
		  (unsigned long long)kvm->nested->lent);
	kvm->nested->uffd = uffd;
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, read_pages, AT, PAGES, 0), 9 * PAGES);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, fill_pages, AT, PAGES, 5), 0);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, read_pages, AT, PAGES, 0), 5 * PAGES);
	RIG_CHECK(!kvm->nested->lent, "they are still there");
	check_owner_memory(one, 1, 1);
	check_owner_memory(other, 9, 0);
	end(kvm);
	close(one);
	close(other);
}

/* Pages go to the owner's frames and come back while a guest reads them. */
static void borrowed_while_it_runs(const char *scheme)
{
	const unsigned rounds = 50;
	int fd = owner_memory(1, 1);
	struct gn_kvm *kvm = guest(scheme);
	struct gn_vm *vm;
	struct runner r;
	pfn_t first;

	if (!kvm)
		return;
	vm = gn_kvm_vm(kvm);
	first = attach(vm, fd);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, number_pages, AT, PAGES, 1), 0);
	rig_program(kvm, 0, 3, check_numbers, check_numbers_end, AT, PAGES, RIG_DATA);
	start(&r, kvm, 0);
	for (unsigned round = 0; round < rounds && !atomic_load(&r.is_done); round++) {
		(void)borrow(vm, first);
		pause_ms(round % 10);
		for (uint64_t i = round % 3; i < PAGES; i += 1 + round % 4)
			rig_word(kvm, AT + i * PAGE, i + 1);
		pause_ms(round % 7);
	}
	RIG_CHECK(!atomic_load(&r.is_done), "it saw something else");
	rig_word(kvm, RIG_DATA, 1);
	RIG_EXPECT_EXIT(kvm, finish(&r), 0);
	check_owner_memory(fd, 1, 1);
	end(kvm);
	close(fd);
}

/* Frames that are lent stay under a scheme's successor. */
static void borrowed_over_switches(void)
{
	static const char *const schemes[] = { "shadow", "ept", "shadow-vtlb", "npt", "ept" };
	int fd = owner_memory(1, 1);
	struct gn_kvm *kvm = guest("ept");

	if (!kvm)
		return;
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, number_pages, AT, PAGES, 1), 0);
	RIG_CHECK(borrow(gn_kvm_vm(kvm), attach(gn_kvm_vm(kvm), fd)) == PAGES, "borrow");
	for (unsigned i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++) {
		RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, read_pages, AT, PAGES, 0), SUM);
		RIG_CHECK(!gn_kvm_switch_scheme(kvm, schemes[i]), "to %s", schemes[i]);
	}
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, read_pages, AT, PAGES, 0), SUM);
	RIG_CHECK(count_lent(gn_kvm_vm(kvm)) == (keeps_lent(kvm) ? PAGES : 0), "%u pages are left",
		  count_lent(gn_kvm_vm(kvm)));
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, fill_pages, AT, PAGES, 9), 0);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, read_pages, AT, PAGES, 0), 9 * PAGES);
	check_owner_memory(fd, 1, 1);
	end(kvm);
	close(fd);
}

/* With no more mappings than there may be: what does not fit gets frames of its own, and what does holds what it held. */
static void mappings_have_a_ceiling(void)
{
	const uint64_t most = 8;
	int fd = owner_memory(1, 1);
	struct gn_kvm *kvm = guest("ept");
	struct gn_kvm_nested *n;

	if (!kvm)
		return;
	n = kvm->nested;
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, number_pages, AT, PAGES, 1), 0);
	RIG_CHECK(borrow(gn_kvm_vm(kvm), attach(gn_kvm_vm(kvm), fd)) == PAGES, "borrow");
	n->piece_ends_max = most;
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, read_pages, AT, PAGES, 0), SUM);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, fill_half, AT, PAGES / 2, 1000), 0);
	RIG_CHECK(n->piece_ends <= most + 2, "%llu pieces", (unsigned long long)n->piece_ends);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, read_pages, AT, PAGES, 0),
			1000 * (PAGES / 2) + PAGES / 2 * (PAGES / 2 + 1));
	RIG_CHECK(n->piece_ends <= most + 2, "%llu pieces when all was read",
		  (unsigned long long)n->piece_ends);
	check_owner_memory(fd, 1, 1);
	end(kvm);
	close(fd);
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
	int fd = owner_memory(1, 1);
	struct gn_kvm *kvm = guest("ept");
	struct gn_kvm_nested *n;
	struct gn_vm *vm;
	uint64_t mappings;
	pfn_t first;

	if (!kvm || !keeps_lent(kvm)) {
		gn_kvm_destroy(kvm);
		return;
	}
	n = kvm->nested;
	vm = gn_kvm_vm(kvm);
	first = attach(vm, fd);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, number_pages, AT, PAGES, 1), 0);
	RIG_CHECK(borrow(vm, first) == PAGES, "borrow");
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, read_half, AT, PAGES / 2, 0), 0);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, read_pages, AT, PAGES, 0), SUM);
	RIG_CHECK(count_mappings(n) == 3 && n->piece_ends == 2, "a run: %llu mappings, %llu ends",
		  (unsigned long long)count_mappings(n), (unsigned long long)n->piece_ends);

	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, number_pages, AT, PAGES, 1), 0);
	RIG_CHECK(!n->piece_ends, "%llu ends", (unsigned long long)n->piece_ends);
	RIG_CHECK(borrow_some(vm, first, 0, 2) == PAGES / 2, "borrow");
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, read_half, AT, PAGES / 2, 0), 0);
	RIG_CHECK(borrow_some(vm, first, 1, 2) == PAGES / 2, "borrow");
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, read_pages, AT, PAGES, 0), SUM);
	mappings = count_mappings(n);
	RIG_CHECK(mappings > PAGES / 4 && mappings <= n->piece_ends + 1 &&
			  n->piece_ends < 2 * mappings,
		  "%llu mappings, %llu ends", (unsigned long long)mappings,
		  (unsigned long long)n->piece_ends);
	end(kvm);
	close(fd);
}

/* A host program that locks all that it maps has the kernel fill mappings before they are guarded. */
static void borrowed_by_who_locks_memory(void)
{
	int fd = owner_memory(1, 1);
	struct gn_kvm *kvm = guest("ept");
	struct gn_vm *vm;

	if (!kvm)
		return;
	vm = gn_kvm_vm(kvm);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, number_pages, AT, PAGES, 1), 0);
	RIG_CHECK(!mlockall(MCL_FUTURE), "mlockall: %s", strerror(errno));
	RIG_CHECK(borrow(vm, attach(vm, fd)) == PAGES, "borrow");
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, read_pages, AT, PAGES, 0), SUM);
	RIG_CHECK(count_lent(vm) == (keeps_lent(kvm) ? PAGES : 0), "%u pages are left",
		  count_lent(vm));
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, fill_pages, AT, PAGES, 9), 0);
	RIG_CHECK(!count_lent(vm), "%u stores were not seen", count_lent(vm));
	for (uint64_t i = 0, word; i < PAGES; i++)
		RIG_CHECK(!gn_vm_read(vm, gpa(AT + i * PAGE), &word, sizeof(word)) && word == 9,
			  "page %llu holds something else", (unsigned long long)i);
	munlockall();
	check_owner_memory(fd, 1, 1);
	end(kvm);
	close(fd);
}

int main(void)
{
	if (rig_start(&host)) {
		PART(borrowed_and_given_back("shadow"));
		PART(borrowed_while_it_runs("shadow"));
		if (!host.uffd_minor_shmem) {
			rig_skip("nested mode",
				 "no userfaultfd with minor faults on shared memory");
		} else {
			PART(borrowed_and_given_back("ept"));
			PART(left_in_the_view());
			PART(borrowed_while_it_runs("ept"));
			PART(borrowed_over_switches());
			PART(mappings_have_a_ceiling());
			PART(mappings_are_counted());
			PART(borrowed_by_who_locks_memory());
		}
	}
	return rig_end();
}
