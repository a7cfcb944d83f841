/* SPDX-License-Identifier: MIT */
/*
 * twin.c - the guest image on KVM against its twin on the software machine.
 *
 * Every workload, under every scheme that KVM can run: it ends well, makes the same operations on translation in
 * the same order (tables written, registers loaded, invalidations, faults with their addresses and error codes),
 * leaves the same memory behind, and exits as often for each reason that the architecture fixes (exits.h; the others
 * are told). Then the tables are audited.
 *
 *     twin [WORKLOAD [SCHEME]]
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <gnomon/kvm.h>
#include <gnomon/schemes.h>
#include <gnomon/soft.h>

#include "kvm/exits.h"
#include "support/guest_boot.h"
#include "support/trace_forge.h"
#include "workloads/hosted.h"
#include "workloads/trace_serve.h"

#define TRACE_RECORDS 3000

static struct {
	unsigned passed, failed, skipped;
	struct gn_kvm_host host;
	char trace[64];		/* a trace file */
	struct exits_sums sums; /* of the scheme at hand */
} test;

static const struct variant {
	const char *name;
	unsigned levels;
	bool pcid, large, work, dirty;
} variants[] = {
	{ "4 levels", 4, false, false, false, false },
	{ "4 levels, PCID, large pages, kernel work", 4, true, true, true, false },
	{ "5 levels, PCID", 5, true, false, false, false },
	{ "4 levels, large pages, dirty RAM", 4, false, true, false, true },
};

/* What a run leaves behind. */
struct outcome {
	struct gn_guest_boot boot;
	uint64_t sum;
	struct gn_counters counters;
};

static uint64_t memory_sum(struct gn_vm *vm)
{
	uint64_t first = gn_guest_image.reserved_bytes / GN_PAGE_SIZE;

	return gn_vm_memory_sum_range(vm, gfn(first), GUEST_RAM_BYTES / GN_PAGE_SIZE - first);
}

/* What the guest does not expect to be zeros is not. */
static bool make_dirty(struct gn_vm *vm, const struct gn_guest_boot *boot)
{
	static uint64_t dirt[GN_PAGE_SIZE / sizeof(uint64_t)];
	int err = 0;

	for (size_t i = 0; i < sizeof(dirt) / sizeof(dirt[0]); i++)
		dirt[i] = (i + 1) * 0x9e3779b97f4a7c15u;
	for (uint64_t at = boot->reserved_bytes; boot->dirty_ram && at < boot->mem_bytes && !err;
	     at += sizeof(dirt))
		err = gn_vm_write(vm, gpa(at), dirt, sizeof(dirt));
	return !err;
}

/* ---- On KVM ------------------------------------------------------------------------------------------------- */

struct served {
	struct trace_serve *serve;
	struct workload_params params;
	uint64_t pieces; /* of the trace, since exits are counted */
};

static bool port(void *ctx, struct gn_kvm *kvm, unsigned vcpu, uint16_t at, unsigned bytes,
		 bool is_out, uint32_t *value)
{
	struct served *served = ctx;

	(void)vcpu;
	(void)bytes;
	if (at != GN_GUEST_PORT_CALL || !is_out)
		return false;
	if (*value == GN_GUEST_CALL_MEASURE)
		served->pieces = 0;
	if (*value != GN_GUEST_CALL_TRACE)
		return false;
	served->pieces++;
	return !trace_serve_call(&served->serve, &served->params, gn_kvm_vm(kvm));
}

static int audit(void *ctx)
{
	struct gn_audit_report report;
	int err = gn_audit(ctx, &report);

	if (err)
		printf("  audit: %s\n", report.first);
	return err;
}

static bool run_kvm(struct gn_kvm *kvm, struct outcome *out)
{
	enum gn_kvm_stop stop;
	uint32_t status = 99;
	int err = gn_kvm_load(kvm, &gn_guest_image, &out->boot);

	if (err) {
		printf("  gn_kvm_load: %d: %s\n", err, gn_kvm_error(kvm, 0));
		return false;
	}
	if (!make_dirty(gn_kvm_vm(kvm), &out->boot))
		return false;
	stop = gn_kvm_run(kvm, 0, &status);
	if (gn_vm_read(gn_kvm_vm(kvm), gpa(GN_GUEST_BOOT_PA), &out->boot, sizeof(out->boot)))
		return false;
	out->sum = memory_sum(gn_kvm_vm(kvm));
	gn_kvm_counters(kvm, &out->counters);
	if (stop != GN_KVM_STOP_EXIT || status != GN_GUEST_EXIT_GOOD) {
		printf("  stop %d, status %u: %s; the guest: %s\n", stop, status,
		       gn_kvm_error(kvm, 0), out->boot.why);
		return false;
	}
	return gn_kvm_pause(kvm, audit, gn_kvm_vm(kvm)) == 0;
}

/* ---- Against each other --------------------------------------------------------------------------------------- */

static bool run_soft(const struct workload *w, const char *scheme, struct outcome *out)
{
	const char *argument = w->kind == WORKLOAD_TRACE ? test.trace : NULL;
	struct gn_soft_config config = {
		.vm = { .scheme = scheme, .mem_bytes = GUEST_RAM_BYTES, .vcpus = 1 },
		.seed = 1,
		.deprivileged = true,
	};
	struct gn_soft *soft;
	int err = gn_soft_create(&config, &soft);

	if (!err) {
		err = make_dirty(gn_soft_vm(soft), &out->boot) ? 0 : -ENOMEM;
		err = err ? err : workload_run_twin(gn_soft_cpu(soft, 0), &out->boot, argument);
		out->sum = memory_sum(gn_soft_vm(soft));
		gn_soft_counters(soft, &out->counters);
		gn_soft_destroy(soft);
	}
	if (err)
		printf("  the twin: %d: %s\n", err, out->boot.why);
	return !err;
}

static bool is_same(const struct outcome *kvm, const struct outcome *soft)
{
	static const char *const kinds[] = { "table writes", "CR3 loads", "other registers",
					     "INVLPG",	     "INVPCID",	  "page faults" };
	_Static_assert(sizeof(kinds) / sizeof(kinds[0]) == GN_GUEST_OPS, "a name for each kind");

	for (unsigned i = 0; i < GN_GUEST_OPS; i++)
		if (kvm->boot.ops.count[i] != soft->boot.ops.count[i])
			printf("  %s: %llu on KVM, %llu on the software machine\n", kinds[i],
			       (unsigned long long)kvm->boot.ops.count[i],
			       (unsigned long long)soft->boot.ops.count[i]);
	if (kvm->boot.ops.hash != soft->boot.ops.hash)
		printf("  the operations differ\n");
	if (kvm->sum != soft->sum)
		printf("  memory differs\n");
	return !memcmp(&kvm->boot.ops, &soft->boot.ops, sizeof(kvm->boot.ops)) &&
	       kvm->sum == soft->sum;
}

static bool exits_the_same(const struct outcome *kvm, const struct outcome *soft, uint64_t pieces,
			   bool nested)
{
	const struct exits on_kvm = exits_of(&kvm->counters, nested);
	const struct exits expected =
		exits_expected(exits_of(&soft->counters, nested), pieces, kvm->boot.phase, nested);

	exits_add(&test.sums.kvm, &on_kvm);
	exits_add(&test.sums.expected, &expected);
	test.sums.runs++;
	return exits_agree(&on_kvm, &expected);
}

/* CPU features: those the scheme's guests have on this host. A variant without PCIDs is one without SMEP and SMAP. */
static bool choose(struct gn_guest_boot *boot, const struct variant *v, bool nested)
{
	bool invalidates = test.host.pcid && test.host.invpcid;

	boot->levels = v->levels;
	boot->large_pages = v->large;
	boot->dirty_ram = v->dirty;
	/* Where an emulator runs the kernel it is a matter of minutes. */
	boot->kernel_work = v->work && !(nested && test.host.kernel_mode_emulated);
	boot->pcid = v->pcid && (!nested || invalidates);
	boot->smep = v->pcid && (!nested || test.host.smep);
	boot->smap = v->pcid && (!nested || test.host.smap);
	return v->levels == 4 || test.host.la57;
}

/* False: this scheme cannot be run on KVM at all. */
static bool one(const struct workload *w, const char *scheme, const struct variant *v)
{
	struct served served = { .params = { .mem_bytes = GUEST_RAM_BYTES,
					     .levels = v->levels,
					     .argument = test.trace } };
	struct gn_kvm_config config = {
		.vm = { .scheme = scheme, .mem_bytes = GUEST_RAM_BYTES, .vcpus = 1 },
		.port = port,
		.ctx = &served,
	};
	struct outcome kvm_run = { .boot = guest_boot_for(w->name, guest_tiny_size(w)) }, soft_run;
	struct gn_kvm *kvm;
	char why[512];
	int err = gn_kvm_create(&config, &kvm, why, sizeof(why));
	bool good, nested;

	if (err) {
		printf("SKIPPED: %s: %s\n", scheme, why);
		test.skipped++;
		return false;
	}
	nested = gn_vcpu_hw(gn_vm_vcpu(gn_kvm_vm(kvm), 0))->kind == GN_HW_NESTED;
	if (choose(&kvm_run.boot, v, nested)) {
		soft_run = kvm_run;
		good = run_kvm(kvm, &kvm_run) && run_soft(w, scheme, &soft_run) &&
		       is_same(&kvm_run, &soft_run) &&
		       exits_the_same(&kvm_run, &soft_run, served.pieces, nested);
		if (!good)
			printf("FAILED: %s, %s, %s\n", w->name, scheme, v->name);
		test.passed += good;
		test.failed += !good;
	}
	trace_serve_close(served.serve);
	gn_kvm_destroy(kvm);
	return true;
}

/* ---- Main ----------------------------------------------------------------------------------------------------- */

/* GN_TEST_SCALE: so many percent of the combinations, spread over all. */
static bool is_chosen(void)
{
	static unsigned share, owed;

	if (!share) {
		const char *scale = getenv("GN_TEST_SCALE");
		unsigned long percent = scale ? strtoul(scale, NULL, 10) : 100;

		share = percent < 1 ? 1 : percent > 100 ? 100 : (unsigned)percent;
	}
	owed += share;
	if (owed < 100)
		return false;
	owed -= 100;
	return true;
}

/* Mappings, and references to them: loads, stores, fetches, a fork by a new CR3. */
static bool make_trace(void)
{
	static struct trace_record records[TRACE_RECORDS];
	struct test_random random = test_random_seed(1);
	const uint64_t base = 0x10000000, bytes = 0x40000;

	for (unsigned i = 0; i < TRACE_RECORDS; i++) {
		uint64_t pick = test_random_next(&random), at = base + (pick >> 8) % bytes;
		struct trace_record r = { .kind = (uint8_t)(TRACE_LOAD + pick % 4), .size = 8 };

		r.address = r.kind == TRACE_FETCH ? at & ~(uint64_t)63 : at & ~(uint64_t)7;
		if (i == 0)
			r = (struct trace_record){ base, bytes, GN_R | GN_W | GN_X, TRACE_MMAP };
		else if (i % 500 == 1)
			r = (struct trace_record){ 0, i % 1000, 0, TRACE_CR3 };
		else if (i % 500 == 250)
			r = (struct trace_record){ base, bytes / 4, GN_R | GN_W | GN_X,
						   i % 1000 == 250 ? TRACE_MMAP : TRACE_MPROTECT };
		records[i] = r;
	}
	forge_path(test.trace);
	return forge_file(test.trace, records, TRACE_RECORDS, "", TRACE_FLAG_MAPPINGS) == 0;
}

static void run_scheme(const char *scheme, const char *only)
{
	for (unsigned i = 0; workload_at(i); i++)
		for (unsigned v = 0; v < sizeof(variants) / sizeof(variants[0]); v++)
			if (only ? !strcmp(workload_at(i)->name, only) : is_chosen())
				if (!one(workload_at(i), scheme, &variants[v]))
					return;
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	gn_kvm_probe(&test.host, true);
	if (!test.host.usable) {
		printf("SKIPPED: twin: %s\n0 passed, 0 failed, 1 skipped\n", test.host.why);
		return 0;
	}
	if (gn_schemes_register_all() || !make_trace()) {
		printf("no schemes, or no trace file\n0 passed, 1 failed\n");
		return 1;
	}
	for (unsigned s = 0; gn_scheme_at(s); s++) {
		const char *scheme = gn_scheme_name(gn_scheme_at(s));

		/* The others need the guest's own tables walked, or no hardware at all: not for KVM. */
		if (!gn_scheme_keeps_tables(gn_scheme_at(s)) ||
		    (argc > 2 && strcmp(scheme, argv[2])))
			continue;
		test.sums = (struct exits_sums){ .runs = 0 };
		run_scheme(scheme, argc > 1 ? argv[1] : NULL);
		exits_tell(scheme, &test.sums);
	}
	unlink(test.trace);
	printf("%u passed, %u failed, %u skipped\n", test.passed, test.failed, test.skipped);
	return test.failed != 0;
}
