/* SPDX-License-Identifier: MIT */
/*
 * kvm_sys.c - what the KVM room says when the machine does not play along. Needs no /dev/kvm.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include <gnomon/schemes.h>

#include "kvmbackend/machine.h"

static int create_at(const char *path, char *why, size_t bytes)
{
	const struct gn_kvm_config config = {
		.vm = { .scheme = "ept", .mem_bytes = 1 << 20, .vcpus = 1 }
	};
	struct gn_kvm *kvm = NULL;
	int err = gn_kvm_create_at(path, &config, &kvm, why, bytes);

	cr_assert(err && !kvm);
	return err;
}

Test(kvm_sys, device)
{
	static const struct {
		const char *path;
		int err;
		const char *told[2];
	} cases[] = {
		{ "/nonexistent/kvm", -ENODEV, { "/nonexistent/kvm", "no KVM" } },
		{ "/dev/null", -ENODEV, { "/dev/null", "is not KVM" } },
		{ "/", -EISDIR, { "open /", "directory" } },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct gn_kvm_host host;
		char why[256] = "";

		cr_assert(create_at(cases[i].path, why, sizeof(why)) == cases[i].err, "%s",
			  cases[i].path);
		for (unsigned w = 0; w < 2; w++)
			cr_assert(strstr(why, cases[i].told[w]), "%s: \"%s\"", cases[i].path, why);
		gn_kvm_probe_at(cases[i].path, &host, true);
		cr_assert(!host.usable && strstr(host.why, cases[i].told[0]), "\"%s\"", host.why);
	}
}

Test(kvm_sys, advice)
{
	static const struct {
		const char *what;
		int error;
		const char *advice;
	} cases[] = {
		{ "open /dev/kvm", EACCES, "group" },
		{ "open /dev/kvm", EPERM, "container" },
		{ "userfaultfd", EPERM, "vm.unprivileged_userfaultfd" },
		{ "KVM_CREATE_VM", EBUSY, "another hypervisor" },
		{ "KVM_CREATE_VM", ENOMEM, "memory" },
		{ "KVM_CREATE_VCPU", EMFILE, "ulimit" },
		{ "mmap of guest memory", ENOMEM, "max_map_count" },
	};
	char why[256], small[12];

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		cr_assert(gn_kvm_sys_fail(why, sizeof(why), cases[i].what, cases[i].error) ==
			  -cases[i].error);
		cr_assert(strstr(why, cases[i].what) && strstr(why, strerror(cases[i].error)) &&
				  strstr(why, cases[i].advice),
			  "\"%s\"", why);
	}
	/* No advice is better than a wrong one, and a short buffer is no disaster. */
	gn_kvm_sys_fail(why, sizeof(why), "KVM_RUN", EBADF);
	cr_assert_str_eq(why, "KVM_RUN: Bad file descriptor");
	gn_kvm_sys_fail(small, sizeof(small), "KVM_CREATE_VM", ENOMEM);
	cr_assert_str_eq(small, "KVM_CREATE_");
	gn_kvm_sys_fail(NULL, 0, "KVM_CREATE_VM", ENOMEM);
}

Test(kvm_sys, segments)
{
	/* All attributes there are survive; a segment that is not present is unusable. */
	for (unsigned a = 0; a < 0x10000; a++) {
		struct gn_kvm_segment in = { .base = a, .limit = a, .selector = (uint16_t)a }, out;
		struct kvm_segment kvm;

		in.attributes = (uint16_t)(a & 0xf0ff);
		gn_kvm_segment_to(&in, &kvm);
		gn_kvm_segment_from(&kvm, &out);
		cr_assert(kvm.unusable == !(a >> 7 & 1));
		cr_assert(!memcmp(&in, &out, sizeof(in)), "%#x", a);
	}
}
