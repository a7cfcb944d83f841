/* SPDX-License-Identifier: MIT */
/*
 * host.c - the probe: what it says agrees with what can be seen otherwise; making VMs when memory runs out.
 */
#include "kvm/rig.h"

static void probe(const struct gn_kvm_host *asked)
{
	struct gn_kvm_host host, again;

	gn_kvm_probe(&host, true);
	gn_kvm_probe(&again, true);
	RIG_CHECK(!memcmp(&host, &again, sizeof(host)), "the second answer differs");
	RIG_CHECK(host.usable && !host.why[0], "%s", host.why);
	RIG_CHECK(!strcmp(host.module, asked->module), "%s", host.module);
	RIG_CHECK(host.phys_bits >= 36 && host.phys_bits <= 52, "%u", host.phys_bits);
	RIG_CHECK(host.memslots >= 32, "%u memory slots", host.memslots);
	RIG_CHECK(host.ns_ioctl && host.ns_run_immediate && host.ns_hlt && host.ns_io &&
			  host.ns_mmio && host.ns_trap,
		  "a cost was not measured: %llu %llu %llu %llu %llu %llu",
		  (unsigned long long)host.ns_ioctl, (unsigned long long)host.ns_run_immediate,
		  (unsigned long long)host.ns_hlt, (unsigned long long)host.ns_io,
		  (unsigned long long)host.ns_mmio, (unsigned long long)host.ns_trap);
	/* What is known of the modules there are. */
	if (!strcmp(host.module, "kvm_pvm")) {
		RIG_CHECK(host.paging == GN_KVM_PAGING_SOFTWARE, "paging %d", host.paging);
		RIG_CHECK(host.kernel_mode_emulated && host.syscall_stays_at_cpl3 &&
				  host.int_n_is_ud,
			  "not what this module is known for");
	} else if (!strcmp(host.module, "kvm_amd") || !strcmp(host.module, "kvm_intel")) {
		RIG_CHECK(!host.kernel_mode_emulated && !host.syscall_stays_at_cpl3 &&
				  !host.int_n_is_ud,
			  "emulated %d, syscall %d, int %d", host.kernel_mode_emulated,
			  host.syscall_stays_at_cpl3, host.int_n_is_ud);
		RIG_CHECK(host.table_upgrades_only == (host.paging == GN_KVM_PAGING_SOFTWARE),
			  "upgrades only: %d", host.table_upgrades_only);
	} else {
		rig_skip("what the module is known for", "another module");
	}
}

/* GN_TEST_SCALE: so many percent of the allocations, evenly. */
static unsigned step(void)
{
	const char *scale = getenv("GN_TEST_SCALE");
	unsigned long percent = scale ? strtoul(scale, NULL, 10) : 100;

	return percent < 1 ? 100 : percent > 100 ? 1 : (unsigned)(100 / percent);
}

/* Each allocation fails once; nothing leaks (a sanitizer looks), and the message says what. */
static void failing_allocations(const char *scheme)
{
	struct gn_kvm_config config = {
		.vm = { .scheme = scheme, .mem_bytes = 4 << 20, .vcpus = 2 }, .populate = true
	};
	unsigned nth = 1, failed = 0;
	int err;

	gn_log_set(NULL, NULL);
	do {
		struct gn_kvm *kvm = NULL;
		char why[256] = "";

		gn_alloc_fail_nth(nth);
		err = gn_kvm_create(&config, &kvm, why, sizeof(why));
		gn_alloc_fail_nth(0);
		if (err)
			RIG_CHECK(err == -ENOMEM && why[0] && !kvm, "%u: %d: %s", nth, err, why);
		else
			gn_kvm_destroy(kvm);
		failed += err != 0;
		nth += step();
	} while (err && nth < 10000);
	RIG_CHECK(!err && nth > 10, "%u allocations", nth);
	printf("%s: %u allocations failed in turn\n", scheme, failed);
	gn_log_set(rig_log, NULL);
}

int main(void)
{
	struct gn_kvm_host host;

	if (!rig_start(&host))
		return rig_end();
	probe(&host);
	failing_allocations("ept");
	failing_allocations("shadow");
	return rig_end();
}
