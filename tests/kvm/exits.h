/* SPDX-License-Identifier: MIT */
/*
 * exits.h - exits by reason of one guest, on KVM and on the software machine: what must agree, and what need not.
 *
 * Both count from the guest's last GN_GUEST_CALL_MEASURE to its end. The software machine runs it deprivileged
 * (gn_soft_config.deprivileged), as KVM does under a scheme that keeps 1-D tables. From its counts those of KVM follow,
 * where the architecture fixes them, to the last one:
 *
 *   MOV CR, MOV CR3, INVLPG, INVPCID   one each; under nested paging none
 *   guest faults                       the #PFs that the guest gets: what its own tables forbid
 *   stores to trapped tables           a table is watched from the first touch through it on. Both machines forget their
 *                                      translations at each change of privilege, so what a TLB chose to keep has
 *                                      no say in it
 *   privilege                          what the software machine calls a hypercall (SYSCALL, SYSRET, IRET, STAC, CLAC) is
 *                                      a trap of an instruction here. The image has a few more: it reads CR2 in each
 *                                      fault, and asks for each piece of a trace, and tells the end of each
 *                                      phase, by a system call
 *   ports                              the image says by a port what the hosted kernel says by a call: the end of
 *                                      the measured part, the end, each piece of a trace
 *
 * The rest depends on what hardware chooses to keep or to fetch ahead, or on memory that only the image has. It is told,
 * both counts and why.
 */
#ifndef GN_TESTS_KVM_EXITS_H
#define GN_TESTS_KVM_EXITS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include <gnomon/counters.h>

#define EXITS_PORTS_AT_THE_END 2 /* GN_GUEST_CALL_END, GN_GUEST_PORT_EXIT */
#define EXITS_OF_A_CALL	       2 /* INT3, IRET */

/* NULL: the counts agree. */
static const char *const exits_may_differ[GN_EXIT_REASONS] = {
	[GN_EXIT_PAGE_FAULT] =
		"fills: the image's code, data and stacks are guest memory, too, and a virtual TLB "
		"loses them at each flush; what a TLB still has needs no filling",
	[GN_EXIT_NESTED] = "fills: the image's code, data and stacks are guest memory, too; where "
			   "KVM shadows, it reads the guest's tables itself",
};

struct exits {
	uint64_t by[GN_EXIT_REASONS]; /* of page faults, those that the guest did not get */
	uint64_t guest_faults;
};

/* As they were counted. @is_nested: the guest takes its faults without an exit, and nobody counts them. */
static inline struct exits exits_of(const struct gn_counters *c, bool is_nested)
{
	struct exits e = { .guest_faults = is_nested ? 0 : c->guest_faults };

	for (unsigned i = 0; i < GN_EXIT_REASONS; i++)
		e.by[i] = c->exits_by[i];
	e.by[GN_EXIT_PAGE_FAULT] -= e.guest_faults;
	return e;
}

/* What KVM must count of the guest that made @soft on the software machine. @pieces: of a trace; @phases: that ended. */
static inline struct exits exits_expected(struct exits soft, uint64_t pieces, uint64_t phases,
					  bool is_nested)
{
	struct exits e = soft;

	e.by[GN_EXIT_IO] += EXITS_PORTS_AT_THE_END + pieces;
	if (is_nested)
		return e;
	e.by[GN_EXIT_TRAP] += soft.by[GN_EXIT_HYPERCALL] + soft.guest_faults +
			      EXITS_OF_A_CALL * (pieces + phases);
	e.by[GN_EXIT_HYPERCALL] = 0;
	return e;
}

static inline bool exits_agree(const struct exits *kvm, const struct exits *expected)
{
	bool agree = kvm->guest_faults == expected->guest_faults;

	if (!agree)
		printf("  faults of the guest: %llu on KVM, %llu expected\n",
		       (unsigned long long)kvm->guest_faults,
		       (unsigned long long)expected->guest_faults);
	for (unsigned i = 0; i < GN_EXIT_REASONS; i++) {
		if (exits_may_differ[i] || kvm->by[i] == expected->by[i])
			continue;
		agree = false;
		printf("  exits, %s: %llu on KVM, %llu expected\n", gn_exit_reason_name(i),
		       (unsigned long long)kvm->by[i], (unsigned long long)expected->by[i]);
	}
	return agree;
}

/* ---- Sums over runs ------------------------------------------------------------------------------------------- */

struct exits_sums {
	struct exits kvm, expected;
	unsigned runs;
};

static inline void exits_add(struct exits *sum, const struct exits *e)
{
	for (unsigned i = 0; i < GN_EXIT_REASONS; i++)
		sum->by[i] += e->by[i];
	sum->guest_faults += e->guest_faults;
}

static inline void exits_row(const char *name, uint64_t kvm, uint64_t expected, const char *why)
{
	if (kvm || expected)
		printf("  %-22s %12llu %12llu  %s\n", name, (unsigned long long)kvm,
		       (unsigned long long)expected, why ? why : "must be equal in each run");
}

static inline void exits_tell(const char *scheme, const struct exits_sums *sums)
{
	if (!sums->runs)
		return;
	printf("%s, exits of %u runs    on KVM     expected\n", scheme, sums->runs);
	exits_row("faults of the guest", sums->kvm.guest_faults, sums->expected.guest_faults, NULL);
	for (unsigned i = 0; i < GN_EXIT_REASONS; i++)
		exits_row(gn_exit_reason_name(i), sums->kvm.by[i], sums->expected.by[i],
			  exits_may_differ[i]);
}

#endif
