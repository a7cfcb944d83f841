/* SPDX-License-Identifier: MIT */
/*
 * trace_replay.c - a recorded program as a workload.
 *
 * The program's addresses are the guest process's own, one to one. What becomes of a record:
 *
 *   load, store, modify, fetch    the same reference (two, if it crosses a page), at CPL 3, in order;
 *                                 instructions without operand become cpu_compute()
 *   mmap, munmap, mprotect, brk   the guest kernel's system call
 *   cr3                           a context switch: the first value is the process we are, each new one a fork
 *                                 of it, a known one sys_switch()
 *   mark                          nothing
 *   cr, invlpg, invpcid,          nothing: those are what *its* kernel did. Here the guest kernel makes its
 *   table_write, p2m              own table writes and flushes for the same system calls and faults
 *
 * A trace without mapping records (lackey, ChampSim) says only what was touched: the file's regions are mapped
 * first, demand-zero, and a touch outside of them maps the memory around it.
 *
 * Self-check. References carry no data, so some are made to: the first store to a page (and again after it
 * fell out of the table of recent ones) really stores a word made of its address and its place in the trace; one
 * load in CHECK_EVERY from a page in the table reads that word back instead, and at the end each word of
 * the table is read. The words stand in the same page as the reference they replace, so translation sees
 * the very same stream. All pages ever stored to end with such a word: the guest's memory checksum compares
 * schemes over all of them.
 */
#include <gnomon/types.h>

#include "cpu.h"
#include "kernel.h"
#include "list.h"
#include "trace_source.h"

#define BATCH	    4096
#define STAMPS	    2048 /* a power of two */
#define CHECK_EVERY 1024
#define CONTEXTS    64
#define WORD	    8

struct stamp {
	uint64_t va; /* of the word; 0: none */
	uint64_t value;
	int pid;
};

struct replay {
	const char **why;
	struct cpu_ref refs[BATCH];
	size_t ref_count;
	uint64_t plain; /* instructions without operand, not yet executed */
	uint64_t done;	/* records */
	uint64_t loads;
	uint64_t brk;
	bool has_mappings;
	int pid;
	unsigned context, context_count;
	struct {
		uint64_t cr3, brk;
		int pid;
	} contexts[CONTEXTS];
	struct stamp stamps[STAMPS]; /* by page and process */
};

static CPU_OWN struct replay state;

static void flush(struct replay *r)
{
	if (r->ref_count)
		cpu_refs(r->refs, r->ref_count);
	if (r->plain)
		cpu_compute(r->plain);
	r->ref_count = 0;
	r->plain = 0;
}

static void refer(struct replay *r, uint64_t va, enum gn_access_kind kind)
{
	if (r->ref_count == BATCH)
		flush(r);
	r->refs[r->ref_count].va = va & (((uint64_t)1 << 60) - 1);
	r->refs[r->ref_count++].kind = kind;
}

/* ---- Self-check -------------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t x)
{
	x ^= x >> 31;
	x *= UINT64_C(0x7fb5d329728ea185);
	x ^= x >> 27;
	x *= UINT64_C(0x81dadef4bc2dd44d);
	return x ^ x >> 33;
}

static struct stamp *stamp_of(struct replay *r, uint64_t va)
{
	return &r->stamps[mix((va >> GN_PAGE_SHIFT) + ((uint64_t)r->pid << 52)) & (STAMPS - 1)];
}

static bool is_stamped(const struct replay *r, const struct stamp *s, uint64_t va)
{
	return s->va && s->pid == r->pid && s->va >> GN_PAGE_SHIFT == va >> GN_PAGE_SHIFT;
}

static int check(struct replay *r, const struct stamp *s)
{
	if (cpu_load64(s->va) == s->value)
		return 0;
	return workload_fail(r->why,
			     "a word of a page that the trace stored to did not read back as "
			     "it was stored: a wrong translation");
}

static void store(struct replay *r, uint64_t va)
{
	struct stamp *s = stamp_of(r, va);

	if (is_stamped(r, s, va)) {
		refer(r, va, GN_WRITE);
		return;
	}
	flush(r);
	s->va = va & ~(uint64_t)(WORD - 1);
	s->value = mix(va ^ mix(r->done));
	s->pid = r->pid;
	cpu_store64(s->va, s->value);
}

static int load(struct replay *r, uint64_t va)
{
	const struct stamp *s;

	if (++r->loads % CHECK_EVERY) {
		refer(r, va, GN_READ);
		return 0;
	}
	s = stamp_of(r, va);
	if (!is_stamped(r, s, va)) {
		r->loads--; /* the next load tries */
		refer(r, va, GN_READ);
		return 0;
	}
	flush(r);
	return check(r, s);
}

static void forget_stamps(struct replay *r, uint64_t start, uint64_t bytes)
{
	for (unsigned i = 0; i < STAMPS; i++)
		if (r->stamps[i].pid == r->pid && r->stamps[i].va - start < bytes)
			r->stamps[i].va = 0;
}

static int check_all(struct replay *r)
{
	for (unsigned i = 0; i < STAMPS; i++) {
		const struct stamp *s = &r->stamps[i];

		if (!s->va)
			continue;
		if (s->pid != r->pid && sys_switch(s->pid))
			return workload_fail(r->why, "a replayed process is gone");
		r->pid = s->pid;
		if (check(r, s))
			return -1;
	}
	return 0;
}

/* ---- System calls ------------------------------------------------------------------------------------- */

static unsigned protection(uint32_t rights)
{
	return (rights & GN_R ? K_READ : 0u) | (rights & GN_W ? K_WRITE : 0u) |
	       (rights & GN_X ? K_EXEC : 0u);
}

static int map(struct replay *r, uint64_t start, uint64_t bytes, uint32_t rights)
{
	forget_stamps(r, start, bytes);
	if (sys_mmap(start, bytes, protection(rights), K_MAP_FIXED) != start)
		return workload_fail(r->why, "the guest kernel cannot map what the trace maps");
	return 0;
}

static int unmap(struct replay *r, uint64_t start, uint64_t bytes)
{
	forget_stamps(r, start, bytes);
	if (sys_munmap(start, bytes))
		return workload_fail(r->why, "the guest kernel cannot unmap what the trace unmaps");
	return 0;
}

static int protect(struct replay *r, const struct trace_record *record)
{
	forget_stamps(r, record->address, record->value);
	if (sys_mprotect(record->address, record->value, protection(record->size)) &&
	    r->has_mappings)
		return workload_fail(r->why, "the trace protects memory that it did not map");
	return 0;
}

static int move_brk(struct replay *r, uint64_t brk)
{
	uint64_t old = r->brk;

	brk = (brk + K_PAGE - 1) & ~(K_PAGE - 1);
	r->brk = brk;
	if (old && brk > old)
		return map(r, old, brk - old, GN_R | GN_W);
	if (old && brk < old)
		return unmap(r, brk, old - brk);
	return 0;
}

static int switch_context(struct replay *r, uint64_t cr3)
{
	unsigned i = 0;

	while (i < r->context_count && r->contexts[i].cr3 != cr3)
		i++;
	if (i == CONTEXTS)
		return workload_fail(r->why,
				     "the trace switches between more than 64 values of CR3");
	if (i == r->context_count) {
		r->contexts[i].cr3 = cr3;
		r->contexts[i].brk = r->brk;
		r->contexts[i].pid = i ? sys_fork() : r->pid;
		if (r->contexts[i].pid < 0)
			return workload_fail(r->why, "the guest kernel cannot fork for a new CR3");
		r->context_count++;
	}
	r->contexts[r->context].brk = r->brk;
	r->context = i;
	r->brk = r->contexts[i].brk;
	if (r->contexts[i].pid != r->pid && sys_switch(r->contexts[i].pid))
		return workload_fail(r->why, "a replayed process is gone");
	r->pid = r->contexts[i].pid;
	return 0;
}

static int replay_event(struct replay *r, const struct trace_record *record)
{
	switch ((enum trace_kind)record->kind) {
	case TRACE_MMAP:
		flush(r);
		return map(r, record->address, record->value, record->size);
	case TRACE_MUNMAP:
		flush(r);
		return unmap(r, record->address, record->value);
	case TRACE_MPROTECT:
		flush(r);
		return protect(r, record);
	case TRACE_BRK:
		flush(r);
		return move_brk(r, record->address);
	case TRACE_CR3:
		flush(r);
		return switch_context(r, record->value);
	default:
		return 0;
	}
}

/* ---- References --------------------------------------------------------------------------------------- */

static int replay_access(struct replay *r, const struct trace_record *record)
{
	uint64_t va = record->address, last = va + record->size - 1;
	int err = 0;

	while (!err) {
		if (record->kind != TRACE_STORE)
			err = load(r, va);
		if (record->kind != TRACE_LOAD)
			store(r, va);
		if (va >> GN_PAGE_SHIFT == last >> GN_PAGE_SHIFT)
			break;
		va = (va | (GN_PAGE_SIZE - 1)) + 1;
	}
	return err;
}

static int replay_one(struct replay *r, const struct trace_record *record)
{
	if (record->kind == TRACE_FETCH) {
		r->plain += record->size;
		refer(r, record->address, GN_FETCH);
		return 0;
	}
	return record->kind < TRACE_FETCH ? replay_access(r, record) : replay_event(r, record);
}

static int map_regions(struct replay *r, struct trace_source *source)
{
	size_t count;
	const struct trace_region *region = trace_source_regions(source, &count);
	int err = 0;

	for (; count && !err; region++, count--)
		err = map(r, region->start_page << GN_PAGE_SHIFT,
			  (region->end_page - region->start_page) << GN_PAGE_SHIFT, region->rights);
	return err;
}

static int replay_all(struct replay *r, struct trace_source *source, uint64_t limit)
{
	const struct trace_record *records;
	uint64_t total = trace_source_info(source)->records;
	size_t count;

	total = limit && limit < total ? limit : total;
	while (r->done < total) {
		if (trace_source_next(source, &records, &count, r->why))
			return -1;
		if (count == 0)
			return workload_fail(r->why, "the trace ended early");
		for (size_t i = 0; i < count && r->done < total; i++, r->done++)
			if (replay_one(r, &records[i]))
				return -1;
		kernel_tick(r->done, total);
	}
	flush(r);
	return check_all(r);
}

static int run(const struct workload_params *params, const char **why)
{
	struct replay *r = &state;
	struct trace_source *source;
	int err = 0;

	if (trace_source_open(params, &source, why))
		return -1;
	*r = (struct replay){ .why = why, .pid = sys_getpid() };
	r->has_mappings = trace_source_info(source)->flags & TRACE_FLAG_MAPPINGS;
	if (!r->has_mappings) {
		err = map_regions(r, source);
		if (!err && sys_automap(true))
			err = workload_fail(why, "the guest kernel cannot map on touch");
	}
	cpu_measure();
	if (!err)
		err = replay_all(r, source, params->size);
	trace_source_close(source);
	return err;
}

const struct workload workload_trace = {
	.name = "trace",
	.kind = WORKLOAD_TRACE,
	.models = "a recorded program, reference by reference (trace:FILE)",
	.size_unit = "records",
	.size_default = 0, /* all of them */
	.size_quick = 1000000,
	.run = run,
};
