/* SPDX-License-Identifier: MIT */
/*
 * soft_host_cpu.c - a program built for another CPU is refused: the host is made to lack one thing after the other.
 * This file is compiled for AVX2 (tests/CMakeLists.txt); the room itself is where GN_HOST_CPU is on, and then it is asked too.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include <gnomon/soft.h>

#include "softbackend/host_cpu.h"

/* What __builtin_cpu_supports() looks at, of libgcc and of compiler-rt: common/config/i386/cpuinfo.h of gcc. */
extern struct {
	unsigned vendor, type, subtype, features[1];
} __cpu_model;

static const struct {
	const char *name;
	unsigned bit; /* enum processor_features */
} needed[] = { { "AVX2", 10 }, { "FMA", 14 }, { "BMI1", 16 }, { "BMI2", 17 } };

static void check_machine(void)
{
#ifdef GN_HOST_CPU
	const struct gn_soft_config config = {
		.vm = { .scheme = "native", .mem_bytes = 16 << 20, .vcpus = 1 }, .seed = 1
	};
	struct gn_soft *soft;

	cr_assert_eq(gn_soft_create(&config, &soft), -EOPNOTSUPP);
#endif
}

Test(soft_host_cpu, a_lesser_cpu_is_refused)
{
	if (gn_soft_host_lacks())
		cr_skip_test("this CPU has no AVX2");
	for (size_t i = 0; i < sizeof(needed) / sizeof(needed[0]); i++) {
		__cpu_model.features[0] &= ~(1u << needed[i].bit);
		cr_assert(gn_soft_host_lacks(), "%s", needed[i].name);
		cr_assert_str_eq(gn_soft_host_lacks(), needed[i].name);
		check_machine();
		__cpu_model.features[0] |= 1u << needed[i].bit;
	}
	cr_assert_null(gn_soft_host_lacks());
}
