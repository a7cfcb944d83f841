/* SPDX-License-Identifier: MIT */
/*
 * depriv_races.c - vCPUs on shadow tables, against changes of the p2m, of the guest's tables, of schemes, and audits.
 *
 * Every page of a window has a stamp, (page + 1) << 32 | anything, or 0 when it is new. Each vCPU goes over the window, checks
 * each stamp and writes it anew, while another thread moves, discards and protects pages, logs dirt, pauses for an audit and
 * exchanges the scheme. Frames that one page loses others get at once, and so do tables. So a translation that outlived its
 * frame shows: a page has another's stamp, or a table has been written to and the audit finds it.
 *
 * vCPU 0 unmaps and maps pages of the window meanwhile, all reload CR3 now and then. A fault of the guest is tried again.
 *
 *     depriv_races [SEED [ROUNDS]]    ROUNDS: changes per scheme
 */
#include <errno.h>

#include "support/cases.h"
#include "support/kvm_rig.h"

#define VCPUS 2
/* A race takes until each vCPU came round and schemes were exchanged so often, be the host ever so slow; it is lost after so
 * many changes more. */
#define MIN_TURNS     3
#define MIN_EXCHANGES 3
#define EXTRA_ROUNDS  6000

#define PAGES	 512u
#define WINDOW	 0x400000ull /* guest-physical */
#define WINDOW_V 0x40200000ull
#define TABLE	 0x17000ull
#define SCRATCH	 0x31000ull /* a word a vCPU: turns */

/* RSI window, R8 its level-1 table, R9 bits: 1 toggles entries, R15 where turns are counted. */
GUEST(g_walker, "0: xor %ecx, %ecx\n"
		"1: mov %rcx, %rdi\n shl $12, %rdi\n add %rsi, %rdi\n"
		"mov (%rdi), %rax\n test %rax, %rax\n jz 2f\n shr $32, %rax\n lea 1(%rcx), %rdx\n "
		"cmp %rdx, %rax\n jne 9f\n"
		"2: lea 1(%rcx), %rax\n shl $32, %rax\n add %r10, %rax\n mov %rax, (%rdi)\n"
		"test $1, %r9d\n jz 3f\n"
		"imul $1103515245, %r10d, %ebx\n add %ecx, %ebx\n and $31, %ebx\n jnz 3f\n"
		"lock btrq $0, (%r8,%rcx,8)\n invlpg (%rdi)\n lock btsq $0, (%r8,%rcx,8)\n"
		"3: inc %ecx\n cmp $512, %ecx\n jne 1b\n"
		"inc %r10\n incq (%r15)\n test $3, %r10d\n jnz 0b\n mov %cr3, %rax\n mov %rax, "
		"%cr3\n jmp 0b\n"
		"9: out %eax, $0xf4\n");
GUEST(g_retry, "add $8, %rsp\n iretq\n");

struct runner {
	struct rig *rig;
	unsigned index;
	enum gn_kvm_stop stop;
	uint32_t status;
};

static void *run_vcpu(void *ctx)
{
	struct runner *runner = (struct runner *)ctx;

	runner->stop = gn_kvm_run(runner->rig->kvm, runner->index, &runner->status);
	return NULL;
}

static void set_up(struct rig *r)
{
	const uint64_t flags = X86_PTE_P | X86_PTE_W | X86_PTE_U;

	for (uint64_t i = 0; i < PAGES; i++)
		rig_put8(r, TABLE + 8 * i, (WINDOW + (i << 12)) | flags);
	rig_put8(r, RIG_PD_U + 8, TABLE | flags);
	rig_code(r, RIG_CODE, g_walker);
	rig_code(r, RIG_CODE + 0x1000, g_retry);
	rig_gate(r, 14, K(RIG_CODE) + 0x1000, 0xe, 0, 0);
	for (unsigned i = 0; i < VCPUS; i++) {
		r->state.gpr[6] = WINDOW_V;
		r->state.gpr[8] = K(TABLE);
		r->state.gpr[9] = i == 0;
		r->state.gpr[15] = K(SCRATCH + 8 * i);
		r->state.gpr[4] = K(RIG_STACK - 0x800 * i);
		if (gn_kvm_set_state(r->kvm, i, &r->state))
			abort();
	}
}

/* True: it may be tried. */
static bool change(struct rig *r, struct test_random *random, const char *const schemes[],
		   unsigned scheme_count)
{
	static uint8_t bitmap[PAGES / 8];
	const uint64_t dice = test_random_next(random) % 100;
	const uint64_t first = test_random_next(random) % PAGES;
	uint64_t count = 1 + test_random_next(random) % 16;
	const gfn_t at = gfn((WINDOW >> 12) + first);

	if (first + count > PAGES)
		count = PAGES - first;
	if (dice < 50)
		return !gn_p2m_move(r->vm, at, count);
	if (dice < 80)
		return !gn_p2m_discard(r->vm, at, count);
	if (dice < 86) {
		gn_dirty_start(r->vm); /* it may be on already */
		return !gn_dirty_harvest(r->vm, gfn(WINDOW >> 12), PAGES, bitmap);
	}
	if (dice < 90) {
		gn_dirty_stop(r->vm);
		return true;
	}
	if (dice < 93) {
		const int err = gn_accessed_harvest(r->vm, gfn(WINDOW >> 12), PAGES, bitmap);

		return !err || err == -EOPNOTSUPP;
	}
	if (dice < 97 || scheme_count < 2)
		return rig_audit(r);
	return !gn_kvm_switch_scheme(r->kvm, schemes[test_random_next(random) % scheme_count]);
}

static bool stamps_are_right(struct rig *r)
{
	for (uint64_t i = 0; i < PAGES; i++) {
		const uint64_t stamp = rig_get8(r, WINDOW + (i << 12));

		if (stamp && stamp >> 32 != i + 1) {
			printf("page %llu has the stamp %#llx\n", (unsigned long long)i,
			       (unsigned long long)stamp);
			return false;
		}
	}
	return true;
}

static bool is_run(struct rig *r, unsigned scheme_count)
{
	struct gn_kvm_stats stats;
	bool all;

	gn_kvm_stats(r->kvm, &stats);
	all = scheme_count < 2 || stats.switches >= MIN_EXCHANGES;
	for (unsigned i = 0; i < VCPUS; i++)
		all &= rig_get8(r, SCRATCH + 8 * i) >= MIN_TURNS;
	return all;
}

static bool race(struct test_run *run, const char *name, const char *const schemes[],
		 unsigned scheme_count)
{
	struct test_random random = test_random_seed(run->seed);
	struct runner runners[VCPUS];
	struct gn_kvm_stats stats;
	pthread_t threads[VCPUS];
	uint64_t turns[VCPUS], rounds = 0;
	struct rig r;
	bool ok = true;

	if (!rig_new(&r, schemes[0], VCPUS, NULL))
		return false;
	set_up(&r);
	for (unsigned i = 0; i < VCPUS; i++) {
		runners[i] = (struct runner){ .rig = &r, .index = i };
		pthread_create(&threads[i], NULL, run_vcpu, &runners[i]);
	}
	while (ok && rounds < run->cases + EXTRA_ROUNDS) {
		const bool is_extra = rounds >= run->cases;

		if (is_extra && is_run(&r, scheme_count))
			break;
		ok = change(&r, &random, schemes, scheme_count);
		if (!ok)
			printf("%s: change %llu failed\n", name, (unsigned long long)rounds);
		rounds++;
		if (is_extra || rounds % 8 == 0)
			usleep(is_extra ? 20000 : 2000);
	}
	gn_kvm_stop(r.kvm);
	for (unsigned i = 0; i < VCPUS; i++) {
		pthread_join(threads[i], NULL);
		if (runners[i].stop != GN_KVM_STOP_ASKED) {
			printf("%s: vCPU %u ended with %d, status %u: %s\n", name, i,
			       runners[i].stop, runners[i].status, gn_kvm_error(r.kvm, i));
			ok = false;
		}
		turns[i] = rig_get8(&r, SCRATCH + 8 * i);
		if (turns[i] < MIN_TURNS) {
			printf("%s: vCPU %u did not get through the window\n", name, i);
			ok = false;
		}
	}
	gn_dirty_stop(r.vm);
	ok &= rig_audit(&r) && stamps_are_right(&r);
	gn_kvm_stats(r.kvm, &stats);
	printf("%s: %llu changes, turns %llu and %llu, %llu runs, %llu touches, %llu exchanges\n",
	       name, (unsigned long long)rounds, (unsigned long long)turns[0],
	       (unsigned long long)turns[1], (unsigned long long)stats.runs,
	       (unsigned long long)stats.stub_operations, (unsigned long long)stats.switches);
	rig_destroy(&r);
	return ok;
}

int main(int argc, char **argv)
{
	static const char *const shadow[] = { "shadow" }, *const vtlb[] = { "shadow-vtlb" };
	static const char *const tables[] = { "shadow", "shadow-vtlb" };
	static const char *const all[] = { "shadow", "ept", "shadow-vtlb" };
	static const struct {
		const char *name;
		const char *const *schemes;
		unsigned count;
	} races[] = { { "shadow", shadow, 1 },
		      { "shadow-vtlb", vtlb, 1 },
		      { "shadow <-> shadow-vtlb", tables, 2 },
		      { "shadow <-> ept <-> shadow-vtlb", all, 3 } };
	struct test_run run = test_run_start(argc, argv, 1, 1000);
	struct gn_kvm_host host;

	gn_kvm_probe(&host, false);
	if (!host.usable) {
		printf("SKIPPED, all of it: %s\n0 passed, 0 failed, 4 skipped\n", host.why);
		return 0;
	}
	gn_schemes_register_all();
	for (size_t i = 0; i < sizeof(races) / sizeof(races[0]); i++)
		if (race(&run, races[i].name, races[i].schemes, races[i].count))
			run.passed++;
		else
			run.failed++;
	return test_run_end(&run);
}
