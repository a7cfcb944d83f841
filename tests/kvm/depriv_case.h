/* SPDX-License-Identifier: MIT */
/*
 * depriv_case.h - cases of guests whose kernel runs at CPL 3, on /dev/kvm: checks, what a guest ended with, and the run of all.
 *
 * A case is a function that is given a fresh VM (support/kvm_rig.h) and checks what became of its guest. Each runs once under
 * each table scheme, is one test whatever number of checks it makes, and has failed, too, when the audit after it is not clean.
 */
#ifndef GN_TESTS_KVM_DEPRIV_CASE_H
#define GN_TESTS_KVM_DEPRIV_CASE_H

#include "support/kvm_rig.h"

struct depriv_case {
	const char *name;
	void (*run)(struct rig *r);
};
#define DEPRIV_CASE(name)                                                                          \
	{                                                                                          \
#name, name                                                                        \
	}

static const char *current_scheme, *current_case;
static bool is_failed, is_skipped;
static struct gn_kvm_host host;

static inline void skip(const char *why)
{
	printf("SKIPPED: %s/%s: %s\n", current_scheme, current_case, why);
	is_skipped = true;
}

#define CHECK(condition, ...)                                                                      \
	do {                                                                                       \
		if (!(condition)) {                                                                \
			is_failed = true;                                                          \
			printf("%s/%s: %s:%d: %s: ", current_scheme, current_case, __FILE__,       \
			       __LINE__, #condition);                                              \
			printf(__VA_ARGS__);                                                       \
			printf("\n");                                                              \
		}                                                                                  \
	} while (0)
#define CHECK_EQ(a, b)                                                                             \
	do {                                                                                       \
		const unsigned long long a_ = (unsigned long long)(a),                             \
					 b_ = (unsigned long long)(b);                             \
		CHECK(a_ == b_, "%s is %#llx, not %#llx", #a, a_, b_);                             \
	} while (0)

enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 };

static inline void check_stop(struct rig *r, enum gn_kvm_stop want)
{
	enum gn_kvm_stop got = rig_run(r);

	CHECK(got == want, "stopped with %d, not %d: %s", got, want, gn_kvm_error(r->kvm, 0));
}

static inline struct record last_record(struct rig *r)
{
	struct record_page page;

	rig_get_record(r, &page);
	CHECK(page.count > 0 && page.count < 60, "%llu records", (unsigned long long)page.count);
	return page.count && page.count < 60 ? page.at[page.count - 1] : (struct record){ 0 };
}

/* The run ended in vector @vector's handler. */
static inline struct record check_exception(struct rig *r, unsigned vector, uint64_t error)
{
	struct record record;

	check_stop(r, GN_KVM_STOP_EXIT);
	CHECK_EQ(r->status, 0x100 + vector);
	record = last_record(r);
	CHECK_EQ(record.vector, vector);
	CHECK_EQ(record.error, error);
	return record;
}

/* Handlers go on @skip bytes behind the fault. */
static inline void set_resume(struct rig *r, uint64_t skip)
{
	rig_put8(r, RIG_RECORD + 8, skip);
	rig_put8(r, RIG_RECORD + 16, 1);
}

/* A load that may fault: from RSI. */
GUEST(g_load, "mov (%rsi), %rbx\n hlt\n");

/* Runs the cases, or the one that the command line names, under both table schemes. Returns main()'s status. */
static inline int depriv_run(int argc, char **argv, const struct depriv_case *cases, size_t count)
{
	static const char *const schemes[] = { "shadow", "shadow-vtlb" };
	unsigned passed = 0, failed = 0, skipped = 0;

	gn_kvm_probe(&host, true);
	if (!host.usable) {
		printf("SKIPPED, all of it: %s\n", host.why);
		printf("0 passed, 0 failed, %zu skipped\n", 2 * count);
		return 0;
	}
	gn_schemes_register_all();
	for (size_t s = 0; s < 2; s++)
		for (size_t i = 0; i < count; i++) {
			struct rig r;

			if (argc > 1 && strcmp(argv[1], cases[i].name))
				continue;
			current_scheme = schemes[s];
			current_case = cases[i].name;
			is_failed = is_skipped = false;
			if (!rig_new(&r, schemes[s], 1, NULL)) {
				failed++;
				continue;
			}
			cases[i].run(&r);
			CHECK(rig_audit(&r), "the audit is not clean");
			rig_destroy(&r);
			if (is_failed)
				failed++;
			else if (is_skipped)
				skipped++;
			else
				passed++;
		}
	printf("%u passed, %u failed, %u skipped\n", passed, failed, skipped);
	return failed != 0;
}

#endif
