/* SPDX-License-Identifier: MIT */
/*
 * p2m_stress.c - guests that use their memory while others move, balloon, discard, share and protect it.
 *
 * vCPU threads are little machines: each has a TLB of p2m words, looks at its posted flush when it enters an
 * RCU read section, and accesses frames through what the TLB holds. In one mode it fills the TLB from the
 * p2m itself (as native hardware does), in the other from a table of a scheme that follows the fault
 * protocol (sequence, resolve, scheme lock, check, install).
 *
 * gfns fall in four regions by their number mod 4, and every frame is stamped with its region's class:
 *   0, 1  may be discarded and ballooned: a frame holds zeros or its own gfn's stamp, and within one read
 *	   section a stamp that was seen stays (a reused frame would be zeroed or stamped by another)
 *   2	   moved and protected: no store is ever lost
 *   3	   shared, moved and written: no store is ever lost, and nobody else's store is ever seen
 *
 * usage: p2m_stress [seed [operations]]
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mmu/entry.h"
#include "mmu/vm.h"
#include "support/racing.h"

#define VCPUS	 3
#define CHANGERS 2
#define PAGES	 64u /* few, so that they meet */
#define STAMP_AT 0   /* and 511 */
#define OWN_AT	 16u /* a slot a vCPU, which only that vCPU writes */

struct machine {
	struct gn_vcpu *vcpu;
	atomic_bool flush_posted;
	uint64_t tlb[PAGES]; /* p2m words; 0: nothing */
	uint64_t own[PAGES]; /* what this machine last stored to its slot */
	uint64_t x, hits, fills, stores;
	_Atomic uint64_t accesses;
};

static struct gn_vm *vm;
static struct machine machines[VCPUS];
static bool with_table;
static _Atomic uint64_t table[PAGES];
static atomic_bool stop;
static _Atomic uint64_t changes, shares;
static uint64_t operations = 20000;

/* ---- The scheme and the backend ----------------------------------------------------------------------------- */

static int vm_init(struct gn_vm *v)
{
	(void)v;
	return 0;
}

static void vm_fini(struct gn_vm *v)
{
	(void)v;
}

static int vcpu_init(struct gn_vcpu *vcpu)
{
	vcpu->hw.kind = GN_HW_TABLES;
	return 0;
}

static void range(struct gn_vm *v, const struct gn_gfn_run *runs, size_t count,
		  enum gn_range_change change)
{
	(void)change;
	gn_lock(&v->scheme_lock);
	for (size_t i = 0; i < count; i++)
		for (uint64_t k = 0; k < runs[i].count; k++)
			atomic_store(&table[runs[i].start.v + k], 0);
	gn_unlock(&v->scheme_lock);
}

static const struct gn_scheme_ops scheme = { .name = "stress",
					     .summary = "a table of p2m words",
					     .keeps_tables = true,
					     .vm_init = vm_init,
					     .vm_fini = vm_fini,
					     .vcpu_init = vcpu_init,
					     .load_root = vcpu_init,
					     .range = range };

static void flush(struct gn_vcpu *vcpu, const struct gn_flush *what)
{
	struct machine *m = vcpu->backend_data;

	(void)what;
	if (m)
		atomic_store_explicit(&m->flush_posted, true, memory_order_release);
}

static const struct gn_backend_ops backend = { .name = "stress", .flush = flush };

/* ---- Machines ------------------------------------------------------------------------------------------------- */

/* Outside read sections. False: no such memory now. */
static bool fault(struct machine *m, uint64_t at, bool write)
{
	struct gn_fix fix = { 0 };
	p2m_word_t w;

	for (;;) {
		uint64_t sequence = gn_p2m_begin_read(&vm->p2m);
		bool stale;

		if (gn_p2m_resolve(vm, gfn(at), write, &w, &fix))
			return false;
		if (fix.kind != GN_FIX_RETRY)
			return false;
		if (!with_table)
			return true;
		if (next(&m->x) % 8 == 0)
			sched_yield(); /* let somebody change it */
		gn_lock(&vm->scheme_lock);
		stale = gn_p2m_retry(&vm->p2m, sequence);
		if (!stale)
			atomic_store(&table[at], w.v);
		gn_unlock(&vm->scheme_lock);
		if (!stale)
			return true;
	}
}

static void enter(struct machine *m)
{
	gn_rcu_read_lock();
	if (atomic_exchange_explicit(&m->flush_posted, false, memory_order_acquire))
		memset(m->tlb, 0, sizeof(m->tlb));
}

/* Inside a read section: the frame, or NULL when a fault is needed. */
static uint64_t *translate(struct machine *m, uint64_t at, bool write)
{
	const gn_rights_t need = write ? GN_W : GN_R;
	p2m_word_t w = { m->tlb[at] };

	if (!gn_p2m_word_has_frame(w) || !gn_p2m_word_grants(w, need)) {
		w.v = with_table ? atomic_load(&table[at]) : gn_p2m_get(&vm->p2m, gfn(at)).v;
		if (!gn_p2m_word_has_frame(w) || !gn_p2m_word_grants(w, need))
			return NULL;
		m->tlb[at] = w.v;
		m->fills++;
	} else {
		m->hits++;
	}
	return gn_frames_at(vm->frames, pfn_to_hpa(gn_p2m_word_pfn(w)));
}

static uint64_t stamp_of(uint64_t at)
{
	return at % 4 == 3 ? 0xc000 : 0x10000 + at;
}

static uint64_t peek(const uint64_t *p)
{
	return __atomic_load_n(p, __ATOMIC_RELAXED);
}

static void poke(uint64_t *p, uint64_t v)
{
	__atomic_store_n(p, v, __ATOMIC_RELAXED);
}

static void check_stamp(const uint64_t *p, uint64_t at, unsigned slot, bool *seen)
{
	uint64_t v = peek(&p[slot]);

	if (v != stamp_of(at) && (v || *seen))
		fail("gfn %u: stamp %#llx in word %u", (unsigned)at, (unsigned long long)v, slot);
	*seen |= v != 0;
}

/* One access; false when the page is not to be had. */
static bool visit(struct machine *m, uint64_t at, bool write)
{
	unsigned slot = OWN_AT + m->vcpu->index;
	bool seen[2] = { false, false };
	unsigned looks = next(&m->x) % 64 ? 2 : 20000; /* now and then longer than a change takes */
	uint64_t *p;

	for (;;) {
		enter(m);
		p = translate(m, at, write);
		if (p)
			break;
		gn_rcu_read_unlock();
		if (!fault(m, at, write))
			return false;
	}
	for (unsigned i = 0; i < looks; i++) {
		check_stamp(p, at, STAMP_AT, &seen[0]);
		check_stamp(p, at, 511, &seen[1]);
	}
	if (!gn_frames_refs(vm->frames, gn_p2m_word_pfn((p2m_word_t){ m->tlb[at] })))
		fail("gfn %u: its frame is free while it is looked at", (unsigned)at);
	if (at % 4 >= 2 && peek(&p[slot]) != m->own[at])
		fail("gfn %u: a store of vCPU %u is lost: %llu, not %llu", (unsigned)at,
		     m->vcpu->index, (unsigned long long)peek(&p[slot]),
		     (unsigned long long)m->own[at]);
	if (write) {
		/* Slots of the sharing class are 0 or 1, so that pages are often equal. */
		uint64_t v = at % 4 == 2 ? m->own[at] + 1 : !m->own[at];

		poke(&p[STAMP_AT], stamp_of(at));
		poke(&p[511], stamp_of(at));
		if (at % 4 >= 2) {
			poke(&p[slot], v);
			m->own[at] = v;
		}
		m->stores++;
	}
	gn_rcu_read_unlock();
	return true;
}

static void *run_machine(void *ctx)
{
	struct machine *m = ctx;

	while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
		uint64_t r = next(&m->x), at = (r >> 20) % PAGES;
		bool write = (r >> 50) % (at % 4 == 3 ? 16 : 4) == 0;

		visit(m, at, write);
		atomic_fetch_add_explicit(&m->accesses, 1, memory_order_relaxed);
	}
	return NULL;
}

/* ---- Changers ----------------------------------------------------------------------------------------------------- */

/* Some of the volatile gfns from @at on, by one change. */
static void balloon_scattered(uint64_t at)
{
	struct gn_gfn_run runs[4];
	size_t count = 0;

	for (at &= ~(uint64_t)3; at < PAGES && count < 4; at += 8)
		runs[count++] = (struct gn_gfn_run){ gfn(at), 2 };
	if (!gn_p2m_balloon_runs(vm, runs, count, NULL))
		gn_p2m_unballoon_runs(vm, runs, count, NULL);
}

static void change_volatile(uint64_t r, uint64_t at)
{
	uint64_t count = 1 + (at % 4 == 0 && (r >> 60) % 2), zeroes;

	switch ((r >> 40) % 7) {
	case 0:
		gn_p2m_discard(vm, gfn(at), count);
		break;
	case 5:
		balloon_scattered(at);
		break;
	case 6:
		gn_p2m_discard_zeroes(vm, gfn(0), PAGES, NULL,
				      &zeroes); /* takes stamps from nobody */
		break;
	case 1:
		if (!gn_p2m_balloon(vm, gfn(at), count))
			gn_p2m_unballoon(vm, gfn(at), count);
		break;
	case 2:
		gn_p2m_set_mmio(vm, gfn(at), count);
		gn_p2m_discard(vm, gfn(at), count);
		break;
	case 3:
		gn_p2m_populate(vm, gfn(at), 1 + (r >> 44) % 8);
		break;
	default:
		gn_p2m_move(vm, gfn(at), 1 + (r >> 44) % 8);
		break;
	}
}

static void change_kept(uint64_t r, uint64_t at)
{
	uint64_t other;

	if (at % 4 == 3 && (r >> 40) % 2) {
		other = ((r >> 24) % (PAGES / 4)) * 4 + 3;
		if (other != at && !gn_p2m_share(vm, gfn(at), gfn(other)))
			atomic_fetch_add(&shares, 1);
		return;
	}
	if ((r >> 41) % 4) {
		gn_p2m_move(vm, gfn(at), 1);
	} else {
		gn_p2m_protect(vm, gfn(at), 1, true);
		gn_p2m_protect(vm, gfn(at), 1, false);
	}
}

static uint64_t accesses_made(void)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < VCPUS; i++)
		sum += atomic_load_explicit(&machines[i].accesses, memory_order_relaxed);
	return sum;
}

static void *run_changer(void *ctx)
{
	uint64_t x = *(uint64_t *)ctx;

	for (uint64_t i = 0; i < operations / CHANGERS || accesses_made() < 2 * operations; i++) {
		uint64_t r = next(&x), at = (r >> 8) % PAGES;
		uint8_t byte;

		if (at % 4 < 2)
			change_volatile(r, at);
		else
			change_kept(r, at);
		if (at % 4 < 2)
			gn_retire_drain(vm); /* have frames reused soon */
		if (i % 64 == 0)
			gn_vm_read(vm, gpa((((r >> 30) % PAGES) << GN_PAGE_SHIFT) + 800), &byte, 1);
		atomic_fetch_add_explicit(&changes, 1, memory_order_relaxed);
	}
	return NULL;
}

/* ---- Runs -------------------------------------------------------------------------------------------------------------- */

static void run(uint64_t seed, bool table_mode)
{
	struct gn_vm_config config = { .scheme = "stress",
				       .mem_bytes = PAGES * GN_PAGE_SIZE,
				       .vcpus = VCPUS,
				       .pool_bytes = (uint64_t)2 << 20,
				       .backend = &backend };
	pthread_t threads[VCPUS + CHANGERS];
	uint64_t seeds[CHANGERS], hits = 0, fills = 0, stores = 0;

	with_table = table_mode;
	atomic_store(&stop, false);
	atomic_store(&changes, 0);
	atomic_store(&shares, 0);
	memset(machines, 0, sizeof(machines));
	memset((void *)table, 0, sizeof(table));
	if (gn_vm_create(&config, &vm)) {
		fail("no VM");
		return;
	}
	for (unsigned i = 0; i < VCPUS; i++) {
		machines[i].vcpu = gn_vm_vcpu(vm, i);
		machines[i].x = seed * 1000003 + i + 1;
		gn_vcpu_set_backend(machines[i].vcpu, &machines[i]);
		pthread_create(&threads[i], NULL, run_machine, &machines[i]);
	}
	for (unsigned i = 0; i < CHANGERS; i++) {
		seeds[i] = seed * 7919 + 77 + i;
		pthread_create(&threads[VCPUS + i], NULL, run_changer, &seeds[i]);
	}
	for (unsigned i = 0; i < CHANGERS; i++)
		pthread_join(threads[VCPUS + i], NULL);
	atomic_store(&stop, true);
	for (unsigned i = 0; i < VCPUS; i++) {
		pthread_join(threads[i], NULL);
		hits += machines[i].hits;
		fills += machines[i].fills;
		stores += machines[i].stores;
	}
	gn_retire_drain(vm);
	if (gn_frames_used(vm->frames) > vm->p2m.backed_pages)
		fail("%llu frames for %llu backed pages",
		     (unsigned long long)gn_frames_used(vm->frames),
		     (unsigned long long)vm->p2m.backed_pages);
	gn_vm_destroy(vm);
	fprintf(stderr, "%s: %llu changes, %llu shares, %llu TLB hits, %llu fills, %llu stores\n",
		table_mode ? "table" : "native", (unsigned long long)changes,
		(unsigned long long)shares, (unsigned long long)hits, (unsigned long long)fills,
		(unsigned long long)stores);
}

int main(int argc, char **argv)
{
	uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 0) : 1, bad = 0;

	if (argc > 2)
		operations = strtoull(argv[2], NULL, 0);
	fprintf(stderr, "seed %llu, %llu operations\n", (unsigned long long)seed,
		(unsigned long long)operations);
	gn_scheme_register(&scheme);
	for (unsigned mode = 0; mode < 2; mode++) {
		atomic_store(&failures, 0);
		run(seed, mode);
		bad += atomic_load(&failures) != 0;
	}
	printf("%d passed, %d failed\n", (int)(2 - bad), (int)bad);
	return bad != 0;
}
