/* SPDX-License-Identifier: MIT */
/*
 * ept_races.c - vCPUs that fault, against p2m changes, the dirty log and the accessed harvest.
 *
 * Each vCPU thread is a small processor: a TLB and a cache of level-1 tables, both filled by walking the real
 * tables, both emptied by a posted flush that it looks for when it enters an RCU read section, as the
 * engine's contract has it. It sets A and D by compare-and-exchange, also in a table it reached through its
 * cache. So a table freed too early, a flush too late or an entry that outlived its p2m word is used for
 * real.
 *
 * How a wrong translation shows. Every page's first word is (gfn + 1) << 32 | version, or 0 when the page
 * is new. Whoever meets another gfn's stamp went through a stale translation.
 *
 * How a store through a translation from before shows when a page is published: the frame changes, though somebody has a reference.
 *
 * How a write that the dirty log missed shows. After harvest n the content of every page is noted (C[n]). A
 * page whose content at C[n] differs from C[n-1] must be in harvest n, or (written between the harvest
 * and the look) in harvest n + 1.
 *
 *     ept_races [SEED [CASES]]    CASES: p2m changes for each scheme
 */
#include <pthread.h>
#include <sched.h>
#include <string.h>

#include <gnomon/schemes.h>

#include "mmu/walk.h"
#include "mmu/vm.h"

#include "support/cases.h"

#define VCPUS	  3
#define RAM_BYTES ((uint64_t)8 << 20)
#define GFNS	  (RAM_BYTES >> GN_PAGE_SHIFT)
#define TLB_SIZE  64
#define PWC_SIZE  8

/* A grace period orders what came before it with what comes after; ThreadSanitizer cannot see that. These
 * functions are the ones that touch memory which others used before a grace period. */
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
	return "race:gn_frames_alloc\n"
	       "race:commit_move\n"
	       "race:share_locked\n"
	       "race:gn_p2m_unshare\n"
	       "race:gn_dirty_stop\n";
}

struct tlb_entry {
	uint64_t gfn; /* + 1; 0: empty */
	uint64_t frame;
	bool writable;
};
struct pwc_entry {
	uint64_t block; /* gfn >> 9, + 1 */
	uint64_t table;
};

struct cpu {
	_Atomic(int) flush; /* posted */
	struct gn_vm *vm;
	unsigned index;
	uint64_t seed, accesses, wrong, denied;
	struct tlb_entry tlb[TLB_SIZE];
	struct pwc_entry pwc[PWC_SIZE];
};

static struct cpu cpus[VCPUS];
static _Atomic(int) running; /* until enough was changed */

static void post_flush(struct gn_vcpu *vcpu, const struct gn_flush *flush)
{
	struct cpu *cpu = (struct cpu *)gn_vcpu_backend(vcpu);

	if (cpu && flush->scope == GN_FLUSH_ALL)
		atomic_store_explicit(&cpu->flush, 1, memory_order_seq_cst);
}
static const struct gn_backend_ops backend = { .name = "threads", .flush = post_flush };

static void enter(struct cpu *cpu)
{
	gn_rcu_read_lock();
	if (atomic_exchange_explicit(&cpu->flush, 0, memory_order_seq_cst)) {
		memset(cpu->tlb, 0, sizeof(cpu->tlb));
		memset(cpu->pwc, 0, sizeof(cpu->pwc));
	}
}

/* What hardware does to an entry it uses. False: the entry changed, walk again. */
static bool set_accessed_dirty(const struct gn_fmt *fmt, unsigned level, uint64_t *slot,
			       uint64_t entry, bool write)
{
	const struct gn_fmt_level *l = &fmt->level[level];
	uint64_t want = entry | l->accessed | (write ? l->dirty : 0);

	return want == entry || __atomic_compare_exchange_n(slot, &entry, want, false,
							    __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

/* The leaf for @at, from the cached level-1 table if there is one. False: none. */
static bool lookup(struct cpu *cpu, uint64_t at, unsigned *level, uint64_t **slot, uint64_t *entry)
{
	const struct gn_hw *hw = gn_vcpu_hw(gn_vm_vcpu(cpu->vm, cpu->index));
	const struct gn_fmt *fmt = hw->fmt;
	struct pwc_entry *pwc = &cpu->pwc[(at >> GN_INDEX_BITS) % PWC_SIZE];
	uint64_t table = hw->root.v;

	*level = fmt->levels;
	if (pwc->block == (at >> GN_INDEX_BITS) + 1) {
		table = pwc->table;
		*level = 1;
	}
	for (;; --*level) {
		*slot = (uint64_t *)gn_frames_at(cpu->vm->frames, hpa(table)) +
			gn_fmt_index(fmt, *level, at << GN_PAGE_SHIFT);
		*entry = __atomic_load_n(*slot, __ATOMIC_ACQUIRE);
		if (!gn_fmt_is_present(fmt, *level, *entry))
			return false;
		if (gn_fmt_is_leaf(fmt, *level, *entry))
			return true;
		table = gn_fmt_address(fmt, *level, *entry);
		if (*level == 2)
			*pwc = (struct pwc_entry){ (at >> GN_INDEX_BITS) + 1, table };
	}
}

/* Fill the TLB by a walk. False: a violation. */
static bool walk(struct cpu *cpu, uint64_t at, bool write, struct tlb_entry *tlb)
{
	const struct gn_fmt *fmt = gn_vcpu_hw(gn_vm_vcpu(cpu->vm, cpu->index))->fmt;
	uint64_t *slot, entry;
	unsigned level;
	bool writable;

	do {
		if (!lookup(cpu, at, &level, &slot, &entry))
			return false;
		writable = gn_fmt_rights(fmt, level, entry) & GN_W;
		if (write && !writable)
			return false;
	} while (!set_accessed_dirty(fmt, level, slot, entry, write));
	tlb->gfn = at + 1;
	tlb->frame = (gn_fmt_address(fmt, level, entry) >> GN_PAGE_SHIFT) +
		     (at & (gn_level_pages(level) - 1));
	/* As hardware: writable only once D was set by a write. */
	tlb->writable = write;
	return true;
}

static void touch(struct cpu *cpu, uint64_t at, bool write, uint64_t frame)
{
	uint64_t *page = (uint64_t *)gn_frames_at(cpu->vm->frames, pfn_to_hpa(pfn(frame)));
	uint64_t word = __atomic_load_n(page, __ATOMIC_RELAXED);

	if (word && word >> 32 != at + 1 && cpu->wrong++ == 0)
		printf("vcpu %u: gfn %#" PRIx64 " has the stamp of gfn %#" PRIx64 "\n", cpu->index,
		       at, (word >> 32) - 1);
	if (write)
		__atomic_store_n(page, (at + 1) << 32 | (uint32_t)(word + 1), __ATOMIC_RELAXED);
}

static void one_access(struct cpu *cpu, uint64_t at, bool write)
{
	struct gn_fault fault = { .access = { .kind = write ? GN_WRITE : GN_READ, .size = 8 },
				  .nested = true,
				  .gpa = gfn_to_gpa(gfn(at)) };

	for (;;) {
		struct tlb_entry *tlb = &cpu->tlb[at % TLB_SIZE];
		struct gn_fix fix;
		bool hit;

		enter(cpu);
		hit = tlb->gfn == at + 1 && (!write || tlb->writable);
		if (!hit)
			hit = walk(cpu, at, write, tlb);
		if (hit)
			touch(cpu, at, write, tlb->frame);
		gn_rcu_read_unlock();
		if (hit)
			return;
		/* A violation drops the translation it struck on. */
		memset(tlb, 0, sizeof(*tlb));
		cpu->pwc[(at >> GN_INDEX_BITS) % PWC_SIZE].block = 0;
		if (gn_vcpu_fault(gn_vm_vcpu(cpu->vm, cpu->index), &fault, &fix)) {
			cpu->wrong++;
			printf("vcpu %u: a fault failed\n", cpu->index);
			return;
		}
		if (fix.kind != GN_FIX_RETRY) {
			cpu->denied++;
			return;
		}
	}
}

static void *run_cpu(void *arg)
{
	struct cpu *cpu = (struct cpu *)arg;
	struct test_random r = test_random_seed(cpu->seed);

	for (; atomic_load_explicit(&running, memory_order_relaxed); cpu->accesses++) {
		uint64_t at = test_random_below(&r, GFNS);

		if (test_random_once(&r, 2)) /* few pages, so that the processors meet */
			at = 8 + at % 8;
		one_access(cpu, at, test_random_once(&r, 2));
	}
	return NULL;
}

struct outside {
	struct gn_vm *vm;
	uint64_t seed, changes, harvests, missed, formed; /* .changes: to make */
	uint64_t published, unsteady;
};

static uint64_t stamp_of(struct gn_vm *vm, pfn_t frame)
{
	return __atomic_load_n((uint64_t *)gn_frames_at(vm->frames, pfn_to_hpa(frame)),
			       __ATOMIC_RELAXED);
}

/* Processors use the page. It comes to share, also with its like if that is one. */
static void publish(struct outside *o, gfn_t at)
{
	struct gn_merge page = { .at = at }, like = { .at = gfn(at.v ^ 1) };
	uint64_t stamp;

	if (gn_p2m_publish(o->vm, &page, 1, GN_SHARE_READ) || page.result)
		return;
	stamp = stamp_of(o->vm, page.frame);
	like.frame = page.frame;
	(void)gn_p2m_merge(o->vm, &like, 1, GN_SHARE_READ, NULL);
	for (unsigned i = 0; i < 4; i++)
		sched_yield();
	if (stamp != stamp_of(o->vm, page.frame) && o->unsteady++ == 0)
		printf("gfn %#" PRIx64 ": its frame is shared, and changes\n", at.v);
	gn_frames_put(o->vm->frames, page.frame);
	o->published++;
}

/* Ranges small and large; every kind of change. What a state refuses (-EINVAL) is fine. */
static void one_change(struct outside *o, struct test_random *r)
{
	uint64_t count = test_random_once(r, 4) ? 512 : 1 + test_random_below(r, 16);
	gfn_t start = gfn(test_random_below(r, GFNS - count + 1));

	if (count == 512)
		start.v &= ~(uint64_t)511;
	else if (!test_random_once(r, 4))
		start.v = 8 + start.v % 8; /* where the processors are */
	switch (test_random_below(r, 8)) {
	case 6:
	case 7:
		publish(o, start);
		break;
	case 5:
		o->formed += !gn_p2m_collapse(o->vm, gfn(start.v & ~(uint64_t)511));
		break;
	case 0:
		gn_p2m_discard(o->vm, start, count);
		break;
	case 1:
		gn_p2m_balloon(o->vm, start, count);
		gn_p2m_unballoon(o->vm, start, count);
		break;
	case 2:
		gn_p2m_protect(o->vm, start, count, true);
		gn_p2m_protect(o->vm, start, count, false);
		break;
	case 3:
		gn_p2m_move(o->vm, start, count);
		break;
	default: /* two new pages are equal */
		gn_p2m_discard(o->vm, gfn(8), 2);
		gn_p2m_populate(o->vm, gfn(8), 2);
		gn_p2m_share(o->vm, gfn(8), gfn(9));
		break;
	}
}

static void *run_changes(void *arg)
{
	struct outside *o = (struct outside *)arg;
	struct test_random r = test_random_seed(o->seed);

	for (uint64_t i = 0; i < o->changes; i++)
		one_change(o, &r);
	atomic_store(&running, 0);
	return NULL;
}

static void note_contents(struct gn_vm *vm, uint64_t *content)
{
	for (uint64_t at = 0; at < GFNS; at++) {
		const uint64_t *page;

		gn_rcu_read_lock();
		page = (const uint64_t *)gn_p2m_pointer(vm, gfn_to_gpa(gfn(at)));
		content[at] = page ? __atomic_load_n(page, __ATOMIC_RELAXED) : 0;
		gn_rcu_read_unlock();
	}
}

static bool bit(const uint8_t *bitmap, uint64_t i)
{
	return (bitmap[i / 8] >> (i % 8)) & 1;
}

static uint64_t content[2][GFNS];
static uint8_t marks[GFNS / 8], must_come[GFNS / 8];

/* One session of the log: some harvests, each held against the contents. */
static void log_session(struct outside *o, unsigned harvests)
{
	if (gn_dirty_start(o->vm)) {
		o->missed++;
		return;
	}
	note_contents(o->vm, content[0]);
	memset(must_come, 0, sizeof(must_come));
	for (unsigned n = 0; n < harvests; n++) {
		uint64_t *before = content[n & 1], *after = content[~n & 1];

		gn_dirty_harvest(o->vm, gfn(0), GFNS, marks);
		note_contents(o->vm, after);
		for (uint64_t at = 0; at < GFNS; at++) {
			if (bit(must_come, at) && !bit(marks, at) && o->missed++ == 0)
				printf("a write to gfn %#" PRIx64 " was never reported\n", at);
			must_come[at / 8] &= (uint8_t) ~(1u << (at % 8));
			if (before[at] != after[at] && !bit(marks, at))
				must_come[at / 8] |= (uint8_t)(1u << (at % 8));
		}
		o->harvests++;
	}
	gn_dirty_stop(o->vm);
}

static void *run_log(void *arg)
{
	struct outside *o = (struct outside *)arg;
	struct test_random r = test_random_seed(o->seed);
	uint8_t bitmap[GFNS / 8];

	while (atomic_load(&running)) {
		log_session(o, 2 + (unsigned)test_random_below(&r, 6));
		gn_accessed_harvest(o->vm, gfn(0), GFNS, bitmap);
	}
	return NULL;
}

static struct gn_vm *vm_for(const char *scheme, unsigned backing_level)
{
	struct gn_vm_config config = { .scheme = scheme,
				       .mem_bytes = RAM_BYTES,
				       .pool_bytes = 4 * RAM_BYTES,
				       .vcpus = VCPUS,
				       .backing_level = backing_level,
				       .backend = &backend };
	struct gn_vm *vm;

	if (gn_vm_create(&config, &vm))
		abort();
	return vm;
}

static bool race(const char *scheme, unsigned backing_level, uint64_t seed, uint64_t cases)
{
	struct gn_vm *vm = vm_for(scheme, backing_level);
	struct outside changes = { .vm = vm, .seed = seed + 101, .changes = cases };
	struct outside log = { .vm = vm, .seed = seed + 102 };
	struct gn_audit_report report;
	pthread_t threads[VCPUS + 2];
	uint64_t wrong = 0, denied = 0, accesses = 0;
	int err;

	atomic_store(&running, 1);
	memset(cpus, 0, sizeof(cpus));
	for (unsigned i = 0; i < VCPUS; i++) {
		cpus[i].vm = vm;
		cpus[i].index = i;
		cpus[i].seed = seed + i;
		gn_vcpu_set_backend(gn_vm_vcpu(vm, i), &cpus[i]);
	}
	for (unsigned i = 0; i < VCPUS; i++)
		pthread_create(&threads[i], NULL, run_cpu, &cpus[i]);
	pthread_create(&threads[VCPUS], NULL, run_changes, &changes);
	pthread_create(&threads[VCPUS + 1], NULL, run_log, &log);
	for (unsigned i = 0; i < VCPUS + 2; i++)
		pthread_join(threads[i], NULL);
	for (unsigned i = 0; i < VCPUS; i++) {
		wrong += cpus[i].wrong;
		denied += cpus[i].denied;
		accesses += cpus[i].accesses;
	}
	err = gn_audit(vm, &report);
	if (err)
		printf("audit: %s\n", report.first);
	printf("%s, level %u frames: %" PRIu64 " changes, %" PRIu64 " accesses, %" PRIu64
	       " denied, %" PRIu64 " blocks formed, %" PRIu64 " published, %" PRIu64
	       " harvests; %" PRIu64 " wrong, %" PRIu64 " missed, %" PRIu64 " unsteady\n",
	       scheme, backing_level, changes.changes, accesses, denied, changes.formed,
	       changes.published, log.harvests, wrong, log.missed, changes.unsteady);
	gn_vm_destroy(vm);
	return !err && !wrong && !log.missed && !changes.unsteady;
}

int main(int argc, char **argv)
{
	static const char *const schemes[] = { "ept", "npt" };
	struct test_run run = test_run_start(argc, argv, 1, 1500);

	if (gn_scheme_register(&gn_scheme_ept) || gn_scheme_register(&gn_scheme_npt))
		return 1;
	for (unsigned s = 0; s < 2; s++)
		for (unsigned level = 1; level <= 2; level++) {
			bool ok = race(schemes[s], level, run.seed * 1000 + s * 10 + level,
				       run.cases);

			run.passed += ok;
			run.failed += !ok;
		}
	return test_run_end(&run);
}
