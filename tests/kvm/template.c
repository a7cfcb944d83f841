/* SPDX-License-Identifier: MIT */
/*
 * template.c - guests on /dev/kvm whose memory is private over a sealed file: they read what is there, copy what they write, and lose no
 * store when copies that hold what the file holds are dropped under their hands; and the file stays as it is.
 */
#include "kvm/nested_guest.h"
#include "support/template.h"

#define MEMORY	 (16 * MIB)
#define AT	 (8 * MIB)
#define PAGES	 64
#define ALL	 (MEMORY / PAGE)
#define FIRST	 (AT / PAGE)
#define PROGRESS (RIG_DATA + 8)

/* What a page of the template begins with. */
#define TEMPLATE_RAX "mov %rdi, %rax\n shr $12, %rax\n inc %rax\n imul %r9, %rax\n"

/* Over and over: each of rcx pages from rbx begins as in the template and then with the round's number, which it has still when it
 * becomes the template's again. A page that says otherwise ends with 1; a word at rsi that is not 0 with 0. Its second word is the round. */
RIG_CODE(flicker, "xor %r8d, %r8d\n movabs $0x9e3779b97f4a7c15, %r9\n"
		  "1: inc %r8\n mov %rbx, %rdi\n mov %rcx, %rdx\n"
		  "2: " TEMPLATE_RAX "cmp %rax, (%rdi)\n jne 4f\n mov %r8, (%rdi)\n"
		  "add $4096, %rdi\n dec %rdx\n jnz 2b\n mov %rbx, %rdi\n mov %rcx, %rdx\n"
		  "3: " TEMPLATE_RAX "cmp %r8, (%rdi)\n jne 4f\n mov %rax, (%rdi)\n"
		  "add $4096, %rdi\n dec %rdx\n jnz 3b\n mov %r8, 8(%rsi)\n"
		  "cmpq $0, (%rsi)\n je 1b\n xor %eax, %eax\n int3\n"
		  "4: mov $1, %eax\n int3")
/* Each of rcx pages from rbx becomes the template's again. */
RIG_CODE(restore, "movabs $0x9e3779b97f4a7c15, %r9\n mov %rbx, %rdi\n"
		  "1: " TEMPLATE_RAX "mov %rax, (%rdi)\n add $4096, %rdi\n dec %rcx\n jnz 1b\n"
		  "xor %eax, %eax\n int3")

static int file = -1;

static uint32_t template_sum(uint64_t first, uint64_t count)
{
	uint32_t sum = 0;

	for (uint64_t i = 0; i < count; i++)
		sum += (uint32_t)template_word(first + i, 0);
	return sum;
}

static struct gn_kvm_config over_file(const char *scheme)
{
	struct gn_kvm_config config = { .vm = { .scheme = scheme,
						.mem_bytes = MEMORY,
						.vcpus = 3,
						.pool = GN_POOL_TEMPLATE,
						.template_fd = file } };

	return config;
}

static struct gn_kvm *begin(const char *scheme)
{
	struct gn_kvm_config config = over_file(scheme);

	return rig_new(&config);
}

static void end(struct gn_kvm *kvm)
{
	struct gn_audit_report report;

	RIG_CHECK(!gn_audit(gn_kvm_vm(kvm), &report), "%s", report.first);
	gn_kvm_destroy(kvm);
}

static uint64_t drop(struct gn_kvm *kvm, uint64_t first, uint64_t count)
{
	uint64_t dropped = 0;
	int err = gn_p2m_drop_copies(gn_kvm_vm(kvm), gfn(first), count, NULL, &dropped);

	RIG_CHECK(!err, "drop_copies: %d", err);
	return dropped;
}

/* ---- Parts ------------------------------------------------------------------------------------------------------- */

static void unsealed_is_refused(void)
{
	struct gn_kvm_config config = over_file("ept");
	struct gn_kvm *kvm = NULL;
	char why[512] = "";

	config.vm.template_fd = template_new(ALL, F_SEAL_SHRINK);
	RIG_CHECK(gn_kvm_create(&config, &kvm, why, sizeof(why)) == -EPERM, "made: %s", why);
	close(config.vm.template_fd);
}

static void copied_and_dropped(const char *scheme)
{
	struct gn_kvm *kvm = begin(scheme);
	uint64_t dropped;

	if (!kvm)
		return;
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, read_pages, AT, PAGES, 0), template_sum(FIRST, PAGES));
	RIG_CHECK(!drop(kvm, FIRST, PAGES), "a read made copies");
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, fill_pages, AT, PAGES, 7), 0);
	RIG_CHECK(!drop(kvm, FIRST, PAGES), "a page that was written was dropped");
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, read_pages, AT, PAGES, 0), 7 * PAGES);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, restore, AT, PAGES / 2, 0), 0);
	dropped = drop(kvm, 0, ALL);
	RIG_CHECK(dropped == PAGES / 2, "%llu were dropped", (unsigned long long)dropped);
	RIG_CHECK(!drop(kvm, 0, ALL), "dropped twice");
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, read_pages, AT, PAGES, 0),
			7 * PAGES / 2 + template_sum(FIRST, PAGES / 2));
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, number_pages, AT, PAGES, 1), 0);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, read_pages, AT, PAGES, 0), PAGES * (PAGES + 1) / 2);
	RIG_CHECK(rig_read(kvm, AT) == 1 && rig_read(kvm, AT + 8) == template_word(FIRST, 1),
		  "from outside it is another");
	end(kvm);
}

static void two_do_not_meet(const char *scheme)
{
	struct gn_kvm *a = begin(scheme), *b = begin(scheme);

	if (!a || !b)
		return;
	RIG_EXPECT_EXIT(a, RIG_RUN(a, 3, fill_pages, AT, PAGES, 3), 0);
	RIG_EXPECT_EXIT(b, RIG_RUN(b, 3, read_pages, AT, PAGES, 0), template_sum(FIRST, PAGES));
	RIG_EXPECT_EXIT(b, RIG_RUN(b, 3, fill_pages, AT, PAGES / 2, 5), 0);
	RIG_EXPECT_EXIT(a, RIG_RUN(a, 3, read_pages, AT, PAGES, 0), 3 * PAGES);
	RIG_EXPECT_EXIT(b, RIG_RUN(b, 3, restore, AT, PAGES, 0), 0);
	RIG_CHECK(drop(b, FIRST, PAGES) == PAGES, "not all were dropped");
	RIG_EXPECT_EXIT(a, RIG_RUN(a, 3, read_pages, AT, PAGES, 0), 3 * PAGES);
	end(a);
	end(b);
}

/* The VMM's threads: one stores to pages of its own, with the engine's lock and, as a vCPU's would, without; one drops copies as main() does. */
struct helper {
	struct gn_kvm *kvm;
	pthread_t thread;
	_Atomic(bool) is_over;
	bool always_locks; /* schemes are exchanged, and vCPUs' threads would stand still then */
	uint64_t rounds, dropped;
	bool is_wrong;
};

static bool device_store(const struct helper *h, uint64_t at, uint64_t value, bool is_locked)
{
	struct gn_vm *vm = gn_kvm_vm(h->kvm);
	uint64_t now = 0;
	int err = is_locked || h->always_locks
			  ? gn_vm_write(vm, gpa(at), &value, sizeof(value))
			  : gn_vcpu_store(gn_vm_vcpu(vm, 2), gpa(at), &value, sizeof(value));

	return !err && !gn_vm_read(vm, gpa(at), &now, sizeof(now)) && now == value;
}

static void *device(void *ctx)
{
	struct helper *h = (struct helper *)ctx;

	for (; !atomic_load(&h->is_over) && !h->is_wrong; h->rounds++)
		for (uint64_t i = 2 * PAGES; i < 3 * PAGES; i++) {
			const uint64_t at = AT + i * PAGE, page = at / PAGE;

			h->is_wrong |= !device_store(h, at, h->rounds, i & 1) ||
				       !device_store(h, at, template_word(page, 0), i & 2);
		}
	return NULL;
}

static void *dropper(void *ctx)
{
	struct helper *h = (struct helper *)ctx;
	uint64_t dropped;

	for (; !atomic_load(&h->is_over) && !h->is_wrong; h->rounds++) {
		h->is_wrong = gn_p2m_drop_copies(gn_kvm_vm(h->kvm), gfn(FIRST), 3 * PAGES, NULL,
						 &dropped) != 0;
		h->dropped += dropped;
		pause_ms(1 + h->rounds % 3);
	}
	return NULL;
}

static void help(struct helper *h, struct gn_kvm *kvm, void *(*what)(void *), bool always_locks)
{
	memset(h, 0, sizeof(*h));
	h->kvm = kvm;
	h->always_locks = always_locks;
	RIG_CHECK(!pthread_create(&h->thread, NULL, what, h), "pthread_create");
}

static void helped(struct helper *h)
{
	atomic_store(&h->is_over, true);
	pthread_join(h->thread, NULL);
	RIG_CHECK(!h->is_wrong, "round %llu went wrong", (unsigned long long)h->rounds);
}

/* Two vCPUs and a device store to pages of theirs, and two threads drop what is like the template, until each has made progress. With @others the
 * guest's scheme is exchanged meanwhile. */
static void dropped_while_it_runs(const char *scheme, const char *const *others, unsigned count)
{
	const uint64_t rounds = 20, enough = 100;
	struct gn_kvm *kvm = begin(scheme);
	struct helper stores, drops;
	uint64_t dropped = 0, switches = 0;
	struct runner r[2];

	if (!kvm)
		return;
	for (unsigned i = 0; i < 2; i++) {
		const uint64_t flag = RIG_DATA + i * PAGE;

		rig_word(kvm, flag, 0);
		rig_word(kvm, flag + 8, 0);
		rig_program(kvm, i, 3, flicker, flicker_end, AT + i * PAGES * PAGE, PAGES, flag);
	}
	help(&stores, kvm, device, count != 0);
	help(&drops, kvm, dropper, false);
	for (unsigned i = 0; i < 2; i++)
		start(&r[i], kvm, i);
	for (unsigned round = 0; round < PATIENCE * 10; round++) {
		dropped += drop(kvm, FIRST, 3 * PAGES);
		if (count && !(round % 16)) {
			const char *next = others[switches++ % count];

			RIG_CHECK(!gn_kvm_switch_scheme(kvm, next), "to %s", next);
		}
		if (atomic_load(&r[0].is_done) || atomic_load(&r[1].is_done))
			break;
		if (rig_read(kvm, PROGRESS) > rounds && rig_read(kvm, PROGRESS + PAGE) > rounds &&
		    dropped > enough && switches >= 2 * count)
			break;
		pause_ms(round % 4);
	}
	for (unsigned i = 0; i < 2; i++) {
		RIG_CHECK(!atomic_load(&r[i].is_done), "vCPU %u saw something else", i);
		rig_word(kvm, RIG_DATA + i * PAGE, 1);
	}
	helped(&stores);
	helped(&drops);
	for (unsigned i = 0; i < 2; i++)
		RIG_EXPECT_EXIT(kvm, finish(&r[i]), 0);
	RIG_CHECK(dropped > enough, "only %llu copies were dropped", (unsigned long long)dropped);
	printf("  %llu and %llu rounds, the device %llu, %llu + %llu copies dropped, %llu "
	       "switches\n",
	       (unsigned long long)rig_read(kvm, PROGRESS),
	       (unsigned long long)rig_read(kvm, PROGRESS + PAGE),
	       (unsigned long long)stores.rounds, (unsigned long long)dropped,
	       (unsigned long long)drops.dropped, (unsigned long long)switches);
	end(kvm);
}

static void kinds_change(const char *scheme)
{
	struct gn_kvm *kvm = begin(scheme);
	struct gn_vm *vm;

	if (!kvm)
		return;
	vm = gn_kvm_vm(kvm);
	RIG_CHECK(!gn_p2m_protect(vm, gfn(FIRST + 1), 2, true), "protect");
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, fill_pages, AT, 4, 7), 0);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, read_pages, AT, 4, 0),
			2 * 7 + template_sum(FIRST + 1, 2));
	RIG_CHECK(!drop(kvm, 0, ALL), "nothing equals the template");
	RIG_CHECK(!gn_p2m_protect(vm, gfn(FIRST + 1), 2, false), "unprotect");
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, fill_pages, AT, 4, 8), 0);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, read_pages, AT, 4, 0), 4 * 8);
	RIG_CHECK(!gn_p2m_set_mmio(vm, gfn(FIRST + 2), 1), "set_mmio");
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, fill_pages, AT, 4, 9), 0);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, read_pages, AT, 4, 0), 3 * 9 - 1);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, restore, AT, 4, 0), 0);
	RIG_CHECK(drop(kvm, 0, ALL) == 3, "not all were dropped");
	end(kvm);
}

/* When protect() has returned no store of a guest that runs reaches the page. */
static void protected_while_it_runs(const char *scheme)
{
	const unsigned rounds = 30;
	struct gn_kvm *kvm = begin(scheme);
	uint64_t last = 0;
	struct runner r;
	struct gn_vm *vm;

	if (!kvm)
		return;
	vm = gn_kvm_vm(kvm);
	rig_word(kvm, AT, 0);
	rig_program(kvm, 0, 3, count_up, count_up_end, AT, 0, 0);
	start(&r, kvm, 0);
	for (unsigned round = 0; round < rounds; round++) {
		uint64_t stands;

		for (unsigned i = 0; i < PATIENCE && rig_read(kvm, AT) == last; i++)
			pause_ms(1);
		RIG_CHECK(!gn_p2m_protect(vm, gfn(FIRST), 1, true), "protect");
		stands = rig_read(kvm, AT);
		RIG_CHECK(stands > last, "it does not count");
		pause_ms(round % 4);
		last = rig_read(kvm, AT);
		RIG_CHECK(last == stands, "%llu stores", (unsigned long long)(last - stands));
		RIG_CHECK(!gn_p2m_protect(vm, gfn(FIRST), 1, false), "unprotect");
	}
	gn_kvm_stop(kvm);
	RIG_CHECK(finish(&r).stop == GN_KVM_STOP_ASKED, "%s", gn_kvm_error(kvm, 0));
	end(kvm);
}

static void stores_are_logged(const char *scheme, unsigned ring_entries)
{
	struct gn_kvm_config config = over_file(scheme);
	uint8_t dirty[PAGES / 8], expected[PAGES / 8] = { 0xff, 0xff };
	struct gn_kvm *kvm;
	struct gn_vm *vm;

	config.dirty_ring_entries = ring_entries;
	kvm = rig_new(&config);
	if (!kvm)
		return;
	vm = gn_kvm_vm(kvm);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, fill_pages, AT, PAGES, 7), 0);
	RIG_CHECK(!gn_dirty_start(vm), "start");
	RIG_CHECK(!gn_dirty_harvest(vm, gfn(FIRST), PAGES, dirty), "harvest");
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, read_pages, AT, PAGES, 0), 7 * PAGES);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, restore, AT, 16, 0), 0);
	RIG_CHECK(drop(kvm, FIRST, PAGES) == 16, "not all were dropped");
	RIG_CHECK(!gn_dirty_harvest(vm, gfn(FIRST), PAGES, dirty), "harvest");
	RIG_CHECK(!memcmp(dirty, expected, sizeof(dirty)), "others, or not all");
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, restore, AT, 16, 0), 0);
	RIG_CHECK(!gn_dirty_harvest(vm, gfn(FIRST), PAGES, dirty), "harvest");
	RIG_CHECK(!memcmp(dirty, expected, sizeof(dirty)),
		  "others, or not all, of what was dropped");
	gn_dirty_stop(vm);
	end(kvm);
}

static void accesses_are_not_known(void)
{
	struct gn_kvm *kvm = begin("ept");
	uint8_t accessed[PAGES / 8];

	if (!kvm)
		return;
	RIG_CHECK(gn_accessed_harvest(gn_kvm_vm(kvm), gfn(FIRST), PAGES, accessed) == -EOPNOTSUPP,
		  "ept");
	RIG_CHECK(!gn_kvm_switch_scheme(kvm, "shadow"), "switch");
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, read_pages, AT, PAGES, 0), template_sum(FIRST, PAGES));
	RIG_CHECK(!gn_accessed_harvest(gn_kvm_vm(kvm), gfn(FIRST), PAGES, accessed) &&
			  accessed[0] == 0xff,
		  "shadow");
	end(kvm);
}

static void file_is_as_it_was(void)
{
	uint64_t is[PAGE / 8], was[PAGE / 8];
	uint64_t others = 0;

	for (uint64_t i = 0; i < ALL; i++) {
		template_page(i, was);
		others += pread(file, is, PAGE, (off_t)(i * PAGE)) != PAGE ||
			  memcmp(is, was, PAGE) != 0;
	}
	RIG_CHECK(!others, "%llu pages of it are others", (unsigned long long)others);
}

static void nested(void)
{
	static const char *const modes[] = { "shadow", "ept", "shadow-vtlb", "npt" };

	PART(copied_and_dropped("ept"));
	PART(copied_and_dropped("npt"));
	PART(two_do_not_meet("ept"));
	PART(dropped_while_it_runs("ept", NULL, 0));
	PART(dropped_while_it_runs("ept", modes, 4));
	PART(kinds_change("ept"));
	PART(protected_while_it_runs("ept"));
	PART(stores_are_logged("ept", 0));
	if (host.dirty_ring)
		PART(stores_are_logged("ept", 1024));
	PART(accesses_are_not_known());
}

int main(void)
{
	if (!rig_start(&host))
		return rig_end();
	file = template_new(ALL, TEMPLATE_SEALS);
	RIG_CHECK(file >= 0, "no template: %s", strerror(errno));
	PART(unsealed_is_refused());
	PART(copied_and_dropped("shadow"));
	PART(two_do_not_meet("shadow"));
	PART(dropped_while_it_runs("shadow", NULL, 0));
	PART(kinds_change("shadow"));
	PART(stores_are_logged("shadow", 0));
	if (host.uffd_wp_private)
		nested();
	else
		rig_skip("nested mode",
			 "no userfaultfd that write-protects private memory over a memfd");
	file_is_as_it_was();
	close(file);
	return rig_end();
}
