/* SPDX-License-Identifier: MIT */
/*
 * balloon.c - memory taken from guests on /dev/kvm, under shadow and under nested paging: accessed bits say what was used,
 * zeros are taken from a guest that runs, and the guest image's driver brings its balloon wherever the device's target goes, with the workload right and the
 * tables sound at the end.
 */
#include <gnomon/balloon.h>

#include "balloon/sampler.h"
#include "kvm/nested_guest.h"
#include "support/guest_boot.h"

static const char *const schemes[] = { "ept", "shadow" };

/* ---- Accessed bits -------------------------------------------------------------------------------------------- */

static unsigned count_set(const uint8_t *bitmap, uint64_t from, uint64_t to)
{
	unsigned n = 0;

	for (uint64_t i = from; i < to; i++)
		n += bitmap[i / 8] >> (i % 8) & 1;
	return n;
}

/* Whatever was used says so. What was not may say so now and then, where a CPU looks ahead. */
static void ages(const char *scheme, unsigned backing_level)
{
	const uint64_t pages = 1024, used = 512, at = 32 * MIB;
	struct gn_kvm_config config = plain();
	uint8_t bitmap[128];
	struct gn_kvm *kvm;
	struct gn_vm *vm;

	config.vm.scheme = scheme;
	config.vm.backing_level = backing_level;
	kvm = rig_new(&config);
	if (!kvm)
		return;
	vm = gn_kvm_vm(kvm);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, write_pages, at, pages, 0), 0);
	RIG_CHECK(!gn_accessed_harvest(vm, gfn(at >> 12), pages, bitmap), "harvest");
	RIG_CHECK(count_set(bitmap, 0, pages) == pages, "%u accessed", count_set(bitmap, 0, pages));
	for (unsigned round = 0; round < 3; round++) {
		uint64_t first = round % 2 ? used : 0;

		RIG_EXPECT_EXIT(
			kvm, RIG_RUN(kvm, 3, read_pages, at + first * PAGE, used, 0),
			(uint32_t)(used * (at + first * PAGE) + used * (used - 1) / 2 * PAGE));
		RIG_CHECK(!gn_accessed_harvest(vm, gfn(at >> 12), pages, bitmap), "harvest");
		RIG_CHECK(count_set(bitmap, first, first + used) == used, "round %u: %u accessed",
			  round, count_set(bitmap, first, first + used));
		RIG_CHECK(count_set(bitmap, used - first, pages - first) <= used / 16,
			  "round %u: %u accessed that were not", round,
			  count_set(bitmap, used - first, pages - first));
	}
	gn_kvm_destroy(kvm);
}

/* ---- Zeros ------------------------------------------------------------------------------------------------------ */

/* Over and over: rcx pages from rbx go from zeros to a word of 1 and back, and rest as zeros for as many rounds as the word at rsi + 8
 * says. One that does not hold what was stored the last time ends with 1; a word at rsi that is not 0 with 0. */
RIG_CODE(toggle_pages, "xor %r8d, %r8d\n"
		       "1: mov %r8, %r9\n xor $1, %r8\n mov %rbx, %rdi\n mov %rcx, %rdx\n"
		       "2: cmp %r9, (%rdi)\n jne 3f\n mov %r8, (%rdi)\n"
		       "add $4096, %rdi\n dec %rdx\n jnz 2b\n"
		       "test %r8, %r8\n jnz 5f\n mov 8(%rsi), %rdx\n 4: dec %rdx\n jg 4b\n"
		       "5: cmpq $0, (%rsi)\n je 1b\n xor %eax, %eax\n int3\n"
		       "3: mov $1, %eax\n int3")

/* What is zeros at the moment is taken from a guest that runs; it stores again and misses nothing. All of a block's pages are zeros at
 * once for less time than a look at the block takes, unless the guest rests. */
static void zeros_are_taken(const char *scheme, unsigned backing_level)
{
	const uint64_t rest_rounds = backing_level > 1 ? 1 << 20 : 0;
	const uint64_t pages = 64, at = 32 * MIB, wanted = 4 * gn_level_pages(backing_level);
	struct gn_kvm_config config = plain();
	struct gn_audit_report report;
	struct runner r;
	struct gn_kvm *kvm;
	uint64_t taken = 0;

	config.vm.scheme = scheme;
	config.vm.backing_level = backing_level;
	kvm = rig_new(&config);
	if (!kvm)
		return;
	rig_program(kvm, 0, 3, toggle_pages, toggle_pages_end, at, pages, RIG_DATA);
	rig_word(kvm, RIG_DATA + 8, rest_rounds);
	start(&r, kvm, 0);
	for (unsigned i = 0; i < PATIENCE && taken < wanted && !atomic_load(&r.is_done); i++) {
		uint64_t freed;
		int err = gn_p2m_discard_zeroes(gn_kvm_vm(kvm), gfn(at >> 12), 512, NULL, &freed);

		RIG_CHECK(!err, "discard: %d", err);
		taken += freed;
		pause_ms(1 + i % 10);
	}
	RIG_CHECK(taken >= wanted, "%llu pages were taken", (unsigned long long)taken);
	rig_word(kvm, RIG_DATA, 1);
	RIG_EXPECT_EXIT(kvm, finish(&r), 0);
	RIG_CHECK(!gn_audit(gn_kvm_vm(kvm), &report), "%s", report.first);
	gn_kvm_destroy(kvm);
}

/* ---- The image's driver ------------------------------------------------------------------------------------------- */

#define PAGES(bytes) ((bytes) / PAGE)
#define TICKS_MOST   2000 /* that a target may take */

/* Targets one after the other, each awaited while the guest rests between two phases. */
struct course {
	struct gn_balloon *balloon;
	struct gn_sampler *sampler;
	unsigned next, ticks, periods;
	bool is_stuck;
	double active; /* part of its memory that a guest at rest was found to use */
};
static const uint64_t targets[] = { PAGES(24 * MIB), PAGES(3 * MIB), PAGES(30 * MIB) + 5, 0,
				    PAGES(16 * MIB) };
#define TARGETS (sizeof(targets) / sizeof(targets[0]))
#define PERIODS 4

static bool look_at_rest(struct course *c)
{
	struct gn_working_set set;
	int err = gn_sampler_next_period(c->sampler);

	RIG_CHECK(!err, "sampling: %d", err);
	gn_sampler_estimate(c->sampler, &set);
	c->active = set.fast;
	return !err && ++c->periods < PERIODS;
}

/* 1: tick, and ask again. */
static uint64_t rest(struct course *c)
{
	uint64_t actual = gn_balloon_actual_pages(c->balloon);

	if (c->next && actual != targets[c->next - 1]) {
		c->is_stuck = ++c->ticks > TICKS_MOST;
		return !c->is_stuck;
	}
	c->ticks = 0;
	if (c->next < TARGETS) {
		gn_balloon_set_target(c->balloon, targets[c->next++]);
		return 1;
	}
	return c->periods < PERIODS && look_at_rest(c);
}

static bool port(void *ctx, struct gn_kvm *kvm, unsigned vcpu, uint16_t at, unsigned bytes,
		 bool is_out, uint32_t *value)
{
	uint64_t result;

	(void)vcpu, (void)bytes;
	if (at != GN_GUEST_PORT_CALL || !is_out || *value != GN_GUEST_CALL_REST)
		return false;
	result = rest(ctx);
	return !gn_vm_write(gn_kvm_vm(kvm),
			    gpa(GN_GUEST_BOOT_PA + offsetof(struct gn_guest_boot, call_result)),
			    &result, sizeof(result));
}

static int audit(void *vm)
{
	struct gn_audit_report report;
	int err = gn_audit(vm, &report);

	RIG_CHECK(!err, "audit: %s", report.first);
	return err;
}

static uint64_t count_ballooned(struct gn_vm *vm)
{
	uint64_t n = 0;

	for (uint64_t at = 0; at < PAGES(GUEST_RAM_BYTES); at++) {
		struct gn_p2m_info info = { .state = GN_P2M_MMIO };

		(void)gn_p2m_query(vm, gfn(at), &info);
		n += info.state == GN_P2M_BALLOONED;
	}
	return n;
}

static void run_guest(struct gn_kvm *kvm, struct course *c)
{
	struct gn_guest_boot boot = guest_boot_for("phases", 2 * MIB);
	struct gn_balloon_stats stats;
	enum gn_kvm_stop stop;
	uint32_t status = 99;

	boot.balloon_pa = GN_BALLOON_MMIO_GPA;
	boot.rests = 1;
	snprintf(boot.argument, sizeof(boot.argument), "20/30/3000,60/20/3000x2");
	RIG_CHECK(!gn_kvm_load(kvm, &gn_guest_image, &boot), "load: %s", gn_kvm_error(kvm, 0));
	stop = gn_kvm_run(kvm, 0, &status);
	RIG_CHECK(!gn_vm_read(gn_kvm_vm(kvm), gpa(GN_GUEST_BOOT_PA), &boot, sizeof(boot)),
		  "boot page");
	RIG_CHECK(stop == GN_KVM_STOP_EXIT && status == GN_GUEST_EXIT_GOOD,
		  "stop %d, status %u: %s; the guest: %s", stop, status, gn_kvm_error(kvm, 0),
		  boot.why);
	RIG_CHECK(boot.phase == 4, "%llu phases by the argument", (unsigned long long)boot.phase);
	RIG_CHECK(!c->is_stuck && c->next == TARGETS, "stuck at target %u: %llu pages", c->next,
		  (unsigned long long)gn_balloon_actual_pages(c->balloon));
	gn_balloon_stats(c->balloon, &stats);
	RIG_CHECK(stats.claims_known >> GN_BALLOON_STAT_MEMFREE & 1 && stats.claims_are_plausible,
		  "it told statistics");
	RIG_CHECK(stats.touches_denied + stats.touches_granted == 0,
		  "no page of the balloon was used");
	RIG_CHECK(count_ballooned(gn_kvm_vm(kvm)) == targets[TARGETS - 1],
		  "%llu pages are ballooned", (unsigned long long)count_ballooned(gn_kvm_vm(kvm)));
	RIG_CHECK(c->periods == PERIODS && c->active > 0 && c->active < 0.2,
		  "at rest it uses %.2f of its memory", c->active);
	gn_kvm_pause(kvm, audit, gn_kvm_vm(kvm));
}

static void drives_the_device(const char *scheme, unsigned backing_level)
{
	struct course course = { .next = 0 };
	struct gn_kvm_config config = { .vm = { .scheme = scheme,
						.mem_bytes = GUEST_RAM_BYTES,
						.vcpus = 1,
						.backing_level = backing_level },
					.port = port,
					.ctx = &course };
	const struct gn_balloon_config device = { .target_pages = PAGES(8 * MIB) };
	const struct gn_sampler_config sampling = { .samples = 1024, .seed = 1 };
	char why[512] = "";
	struct gn_kvm *kvm;
	int err = gn_kvm_create(&config, &kvm, why, sizeof(why));

	RIG_CHECK(!err, "gn_kvm_create: %d: %s", err, why);
	if (err)
		return;
	err = gn_balloon_create(gn_kvm_vm(kvm), &device, &course.balloon);
	if (!err)
		err = gn_sampler_new(gn_kvm_vm(kvm), &sampling, &course.sampler);
	RIG_CHECK(!err, "balloon and sampler: %d", err);
	if (!err) {
		gn_kvm_set_mmio(kvm, gn_balloon_mmio, course.balloon);
		run_guest(kvm, &course);
	}
	gn_sampler_destroy(course.sampler);
	gn_balloon_destroy(course.balloon);
	gn_kvm_destroy(kvm);
}

int main(void)
{
	if (!rig_start(&host))
		return rig_end();
	for (unsigned i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++) {
		if (!i && !host.uffd_minor_shmem) {
			rig_skip("nested mode",
				 "no userfaultfd with minor faults on shared memory");
			continue;
		}
		printf("%s\n", schemes[i]);
		PART(ages(schemes[i], 1));
		PART(zeros_are_taken(schemes[i], 1));
		PART(zeros_are_taken(schemes[i], 2));
		PART(drives_the_device(schemes[i], 1));
		if (!i)
			PART(drives_the_device(schemes[i], 2));
	}
	return rig_end();
}
