/* SPDX-License-Identifier: MIT */
/*
 * stress.c - two vCPUs at work while everything below them changes.
 *
 * The guest (guest/smp_kernel.c) forks, copies on write, protects, unmaps, and shoots down translations that both
 * its CPUs have, checking all it reads. Meanwhile the host exchanges the scheme every 100 ms, in turn shadow, ept and the
 * virtual TLB, moves pages to other frames, logs and harvests dirty pages, and stops both vCPUs to audit every table.
 *
 * Usage: stress [SECONDS [SEED]]
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <gnomon/kvm.h>
#include <gnomon/schemes.h>

#include "guest/smp.h"

extern const struct gn_guest_image smp_image;

enum { SECONDS = 20, SWITCH_MS = 100, PATIENCE_SECONDS = 300 };

struct cpu_run {
	struct gn_kvm *kvm;
	unsigned index;
	enum gn_kvm_stop stop;
	uint32_t status;
	_Atomic(bool) is_over;
};

struct rig {
	struct gn_kvm *kvm;
	struct cpu_run cpu[SMP_CPUS];
	pthread_t thread[SMP_CPUS];
	uint64_t switches, refused, audits, moves, harvests, dirty_pages, problems;
	uint64_t random;
};

static void complain(struct rig *r, const char *what, const char *detail)
{
	if (r->problems++ < 10)
		printf("stress: %s: %s\n", what, detail);
}

static uint64_t draw(struct rig *r, uint64_t n)
{
	r->random = r->random * 6364136223846793005u + 1442695040888963407u;
	return (r->random >> 33) % n;
}

static void *run_cpu(void *arg)
{
	struct cpu_run *c = arg;

	c->stop = gn_kvm_run(c->kvm, c->index, &c->status);
	atomic_store(&c->is_over, true);
	return NULL;
}

/* ---- What the host does meanwhile ------------------------------------------------------------------------ */

static int audit(void *ctx)
{
	struct rig *r = ctx;
	struct gn_audit_report report;
	int err = gn_audit(gn_kvm_vm(r->kvm), &report);

	if (err)
		complain(r, "audit", err == -EBADMSG ? report.first : strerror(-err));
	return 0;
}

static void switch_scheme(struct rig *r)
{
	static const char *const schemes[] = { "shadow", "ept", "shadow-vtlb" };
	int err = gn_kvm_switch_scheme(r->kvm, schemes[++r->switches % 3]);

	if (err)
		complain(r, "scheme switch", strerror(-err));
}

static void move_pages(struct rig *r)
{
	uint64_t count = 1 + draw(r, 64), pages = SMP_MEM_BYTES / GN_PAGE_SIZE;
	int err = gn_p2m_move(gn_kvm_vm(r->kvm), gfn(draw(r, pages - count)), count);

	r->moves += !err;
	if (err && err != -ENOMEM)
		complain(r, "move", strerror(-err));
}

static void harvest(struct rig *r)
{
	static uint8_t bitmap[SMP_MEM_BYTES / GN_PAGE_SIZE / 8];
	struct gn_vm *vm = gn_kvm_vm(r->kvm);
	int err = gn_dirty_start(vm);

	for (unsigned i = 0; i < 3 && !err; i++) {
		usleep(5000);
		err = gn_dirty_harvest(vm, gfn(0), SMP_MEM_BYTES / GN_PAGE_SIZE, bitmap);
		for (size_t byte = 0; byte < sizeof(bitmap) && !err; byte++)
			r->dirty_pages += (unsigned)__builtin_popcount(bitmap[byte]);
		r->harvests += !err;
	}
	gn_dirty_stop(vm);
	if (err)
		complain(r, "dirty log", strerror(-err));
}

static bool is_running(struct rig *r)
{
	for (unsigned i = 0; i < SMP_CPUS; i++)
		if (atomic_load(&r->cpu[i].is_over))
			return false;
	return true;
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void look(struct rig *r, struct smp_control *control)
{
	if (gn_vm_read(gn_kvm_vm(r->kvm), gpa(SMP_CONTROL), control, sizeof(*control)))
		abort();
}

/* Each CPU of the guest has done some of everything. */
static bool has_worked(struct rig *r)
{
	struct smp_control control;
	bool all = true;

	look(r, &control);
	for (unsigned i = 0; i < SMP_CPUS; i++)
		all &= control.cpu[i].forks && control.cpu[i].cow && control.cpu[i].protects &&
		       control.cpu[i].unmaps && control.cpu[i].shootdowns;
	return all;
}

/* For so many seconds, and on a slow host until the guest has done something worth it. */
static void disturb(struct rig *r, uint64_t seconds)
{
	uint64_t began = now_ms(), end = began + seconds * 1000;
	uint64_t last = began + PATIENCE_SECONDS * 1000;

	for (unsigned turn = 1; (now_ms() < end || (!has_worked(r) && now_ms() < last)) &&
				is_running(r) && !r->problems;
	     turn++) {
		usleep(SWITCH_MS * 1000);
		switch_scheme(r);
		if (turn % 3 == 0)
			move_pages(r);
		if (turn % 7 == 0)
			harvest(r);
		if (turn % 5 == 0) {
			gn_kvm_pause(r->kvm, audit, r);
			r->audits++;
		}
	}
}

/* ---- A run -------------------------------------------------------------------------------------------------- */

static int start(struct rig *r, uint64_t seed)
{
	const struct gn_kvm_config config = {
		.vm = { .scheme = "shadow", .mem_bytes = SMP_MEM_BYTES, .vcpus = SMP_CPUS },
	};
	struct gn_guest_boot boot = { .levels = 4, .vcpus = SMP_CPUS, .seed = seed };
	struct gn_kvm_state state;
	char why[512] = "";
	int err = gn_kvm_create(&config, &r->kvm, why, sizeof(why));

	if (err) {
		printf("stress: %s\n", why);
		return err;
	}
	err = gn_kvm_load(r->kvm, &smp_image, &boot);
	if (!err)
		err = gn_kvm_get_state(r->kvm, 0, &state);
	for (unsigned i = 0; i < SMP_CPUS && !err; i++) {
		state.gpr[7] = i; /* rdi: which CPU it is */
		err = gn_kvm_set_state(r->kvm, i, &state);
	}
	for (unsigned i = 0; i < SMP_CPUS && !err; i++) {
		r->cpu[i].kvm = r->kvm;
		r->cpu[i].index = i;
		err = -pthread_create(&r->thread[i], NULL, run_cpu, &r->cpu[i]);
	}
	if (err)
		printf("stress: the guest was not started: %s %s\n", strerror(-err),
		       gn_kvm_error(r->kvm, 0));
	return err;
}

/* Ask the guest to end, and make it. */
static void finish(struct rig *r)
{
	const uint64_t one = 1;
	uint64_t end = now_ms() + PATIENCE_SECONDS * 1000;

	gn_vm_write(gn_kvm_vm(r->kvm), gpa(SMP_CONTROL + offsetof(struct smp_control, stop)), &one,
		    sizeof(one));
	while (now_ms() < end &&
	       !(atomic_load(&r->cpu[0].is_over) && atomic_load(&r->cpu[1].is_over)))
		usleep(10000);
	gn_kvm_stop(r->kvm);
	for (unsigned i = 0; i < SMP_CPUS; i++)
		pthread_join(r->thread[i], NULL);
}

static void judge(struct rig *r)
{
	struct smp_control control;
	struct gn_kvm_stats stats;

	audit(r);
	look(r, &control);
	if (!has_worked(r))
		complain(r, "the guest did little", "it was not run for long enough");
	gn_kvm_stats(r->kvm, &stats);
	for (unsigned i = 0; i < SMP_CPUS; i++) {
		char text[160];

		printf("vCPU %u: %" PRIu64 " forks, %" PRIu64 " copies on write, %" PRIu64
		       " protects, %" PRIu64 " unmaps, %" PRIu64 " shootdowns, %" PRIu64
		       " shared reads, %" PRIu64 " calls of user code, %" PRIu64 " faults\n",
		       i, control.cpu[i].forks, control.cpu[i].cow, control.cpu[i].protects,
		       control.cpu[i].unmaps, control.cpu[i].shootdowns,
		       control.cpu[i].shared_reads, control.cpu[i].user_calls,
		       control.cpu[i].faults);
		snprintf(text, sizeof(text),
			 "error %" PRIu64 ", detail %#" PRIx64 ", CR2 %#" PRIx64,
			 control.cpu[i].error, control.cpu[i].detail, control.cpu[i].cr2);
		if (control.cpu[i].error)
			complain(r, "the guest found something wrong", text);
		if (r->cpu[i].stop != GN_KVM_STOP_EXIT || r->cpu[i].status) {
			snprintf(text, sizeof(text), "stop %d, status %u: %.100s", r->cpu[i].stop,
				 r->cpu[i].status, gn_kvm_error(r->kvm, i));
			complain(r, "a vCPU did not end well", text);
		}
	}
	printf("host: %" PRIu64 " scheme switches (%.1f ms each), %" PRIu64 " audits, %" PRIu64
	       " moves, %" PRIu64 " harvests with %" PRIu64 " dirty pages\n",
	       r->switches, r->switches ? (double)stats.switch_ns / 1e6 / (double)r->switches : 0,
	       r->audits, r->moves, r->harvests, r->dirty_pages);
}

int main(int argc, char **argv)
{
	const char *scale = getenv("GN_TEST_SCALE");
	uint64_t seconds = argc > 1 ? strtoull(argv[1], NULL, 0)
				    : SECONDS * (scale ? strtoull(scale, NULL, 10) : 100) / 100 + 1;
	struct gn_kvm_host host;
	struct rig r = { .random = argc > 2 ? strtoull(argv[2], NULL, 0) : 1 };

	setvbuf(stdout, NULL, _IOLBF, 0);
	gn_kvm_probe(&host, false);
	if (!host.usable) {
		printf("SKIPPED: the stress of two vCPUs needs /dev/kvm: %s\n", host.why);
		printf("0 passed, 0 failed, 1 skipped\n");
		return 0;
	}
	if (gn_schemes_register_all() || start(&r, r.random)) {
		printf("0 passed, 1 failed, 0 skipped\n");
		return 1;
	}
	printf("%" PRIu64 " s, seed %" PRIu64 "\n", seconds, r.random);
	disturb(&r, seconds);
	finish(&r);
	judge(&r);
	gn_kvm_destroy(r.kvm);
	printf("%d passed, %d failed, 0 skipped\n", !r.problems, r.problems != 0);
	return r.problems != 0;
}
