/* SPDX-License-Identifier: MIT */
/*
 * soft_machine.c - the machine as its users see it: data, faults, flushes, stops, costs, determinism.
 */
#include <criterion/criterion.h>

#include <errno.h>

#include "soft_guest.h"

#define MIB  ((uint64_t)1 << 20)
#define PAGE GN_PAGE_SIZE
#define VA   ((uint64_t)0x400000000)

static const char *const schemes[] = { "native", "shadow", "shadow-vtlb", "ept", "npt", "interp" };
#define SCHEMES (sizeof(schemes) / sizeof(schemes[0]))

static void make(struct guest *g, const char *scheme)
{
	struct gn_soft_config config = {
		.vm = { .scheme = scheme, .mem_bytes = 32 * MIB, .vcpus = 1 }, .seed = 1
	};

	guest_create(g, &config, 4);
}

struct script {
	struct guest g;
	const char *scheme;
	unsigned step, faults;
	uint64_t last_cr2;
	uint32_t last_error;
	uint64_t value[8];
};

static int run(struct script *s, const char *scheme, void (*body)(struct gn_soft_cpu *, void *))
{
	*s = (struct script){ .scheme = scheme };
	make(&s->g, scheme);
	return gn_soft_run(s->g.cpu, body, s);
}

static void end(struct script *s)
{
	struct gn_audit_report report;

	cr_assert_eq(gn_audit(s->g.vm, &report), 0, "%s: %s", s->scheme, report.first);
	guest_destroy(&s->g);
}

/* ---- Data ------------------------------------------------------------------------------------------ */

static void store_and_load(struct gn_soft_cpu *cpu, void *ctx)
{
	struct script *s = ctx;

	guest_map(&s->g, VA, 4 * MIB, 1, GUEST_RW);
	guest_map(&s->g, VA + PAGE, 6 * MIB, 1, GUEST_RW); /* next in VA, far in GPA */
	guest_start(&s->g, 0);
	for (unsigned bytes = 1; bytes <= 8; bytes *= 2)
		for (uint64_t at = PAGE - 9; at < PAGE + 4; at++) {
			uint64_t value = 0x1122334455667788u * bytes + at;
			uint64_t want =
				bytes == 8 ? value : value & (((uint64_t)1 << 8 * bytes) - 1);

			gn_soft_store(cpu, gva(VA + at), bytes, value);
			cr_assert_eq(gn_soft_load(cpu, gva(VA + at), bytes), want,
				     "%s, %u bytes at %lu", s->scheme, bytes, (unsigned long)at);
		}
	gn_soft_store(cpu, gva(VA + PAGE - 4), 8, 0x8877665544332211);
}

Test(soft_machine, data_in_every_size_and_across_pages)
{
	struct script s;
	uint32_t low, high;

	for (size_t i = 0; i < SCHEMES; i++) {
		cr_assert_eq(run(&s, schemes[i], store_and_load), 0, "%s: %s", schemes[i],
			     gn_soft_stop_reason(s.g.cpu));
		cr_assert_eq(gn_vm_read(s.g.vm, gpa(4 * MIB + PAGE - 4), &low, 4), 0);
		cr_assert_eq(gn_vm_read(s.g.vm, gpa(6 * MIB), &high, 4), 0);
		cr_assert_eq(low, 0x44332211);
		cr_assert_eq(high, 0x88776655);
		end(&s);
	}
}

/* ---- Faults ------------------------------------------------------------------------------------------ */

static bool map_on_fault(struct gn_soft_cpu *cpu, const struct gn_soft_exception *e, void *ctx)
{
	struct script *s = ctx;

	cr_assert(!gn_soft_is_user(cpu));
	s->faults++;
	s->last_cr2 = e->cr2.v;
	s->last_error = e->error_code;
	if (e->vector != X86_VEC_PF)
		return false;
	guest_map(&s->g, e->cr2.v & ~(PAGE - 1), 8 * MIB + (e->cr2.v & (MIB - PAGE)), 1, GUEST_RW);
	gn_soft_invlpg(cpu, e->cr2);
	return true;
}

static void touch_unmapped(struct gn_soft_cpu *cpu, void *ctx)
{
	struct script *s = ctx;

	gn_soft_set_handler(cpu, map_on_fault, s);
	guest_start(&s->g, 0);
	gn_soft_enter_user(cpu);
	gn_soft_store(cpu, gva(VA + PAGE - 2), 4, 0xabcd1234); /* both pages missing */
	s->value[0] = gn_soft_load(cpu, gva(VA + PAGE - 2), 4);
	cr_assert(gn_soft_is_user(cpu));
	gn_soft_fetch(cpu, gva(VA + 4 * PAGE));
}

Test(soft_machine, a_fault_runs_the_handler_and_the_access_again)
{
	struct script s;

	for (size_t i = 0; i < SCHEMES; i++) {
		cr_assert_eq(run(&s, schemes[i], touch_unmapped), 0, "%s: %s", schemes[i],
			     gn_soft_stop_reason(s.g.cpu));
		cr_assert_eq(s.value[0], 0xabcd1234);
		cr_assert_eq(s.faults, 3, "%s: %u faults", schemes[i], s.faults);
		cr_assert_eq(s.last_error, X86_PF_U | X86_PF_I);
		cr_assert_eq(s.last_cr2, VA + 4 * PAGE);
		cr_assert_eq(guest_counters(&s.g).guest_faults, 3);
		end(&s);
	}
}

static bool fault_again(struct gn_soft_cpu *cpu, const struct gn_soft_exception *e, void *ctx)
{
	struct script *s = ctx;

	s->faults++;
	gn_soft_load(cpu, e->cr2, 8);
	return true;
}

static void touch_once(struct gn_soft_cpu *cpu, void *ctx)
{
	struct script *s = ctx;

	guest_start(&s->g, 0);
	gn_soft_set_handler(cpu, fault_again, s);
	gn_soft_load(cpu, gva(VA), 8);
	s->step = 1; /* never reached */
}

Test(soft_machine, faults_inside_handlers_end)
{
	struct script s;

	cr_assert_eq(run(&s, "ept", touch_once), -ECANCELED);
	cr_assert_eq(s.step, 0);
	cr_assert_eq(s.faults, 4);
	cr_assert(strstr(gn_soft_stop_reason(s.g.cpu), "inside too many fault handlers"));
	end(&s);
}

static bool do_nothing(struct gn_soft_cpu *cpu, const struct gn_soft_exception *e, void *ctx)
{
	(void)cpu;
	(void)e;
	((struct script *)ctx)->faults++;
	return true;
}

static void touch_in_vain(struct gn_soft_cpu *cpu, void *ctx)
{
	guest_start(&((struct script *)ctx)->g, 0);
	gn_soft_set_handler(cpu, do_nothing, ctx);
	gn_soft_load(cpu, gva(VA), 8);
}

static void touch_without_handler(struct gn_soft_cpu *cpu, void *ctx)
{
	guest_start(&((struct script *)ctx)->g, 0);
	gn_soft_load(cpu, gva(VA), 8);
}

static void privileged_in_vain(struct gn_soft_cpu *cpu, void *ctx)
{
	gn_soft_set_handler(cpu, do_nothing, ctx);
	gn_soft_enter_user(cpu);
	gn_soft_write_cr3(cpu, 0);
}

static void stop_in_a_nested_call(struct gn_soft_cpu *cpu, void *ctx)
{
	((struct script *)ctx)->step++;
	gn_soft_stop(cpu, "enough");
	((struct script *)ctx)->step++;
}

static void start_over(struct gn_soft_cpu *cpu, void *ctx)
{
	gn_soft_enter_kernel(cpu);
	gn_soft_set_handler(cpu, NULL, NULL);
	store_and_load(cpu, ctx);
}

Test(soft_machine, a_guest_that_cannot_go_on_is_stopped)
{
	static const struct {
		void (*body)(struct gn_soft_cpu *, void *);
		const char *reason;
	} cases[] = { { touch_in_vain, "did not get through in 64 tries" },
		      { touch_without_handler,
			"#PF at 0x400000000 (error code 0, CPL 0) and no handler" },
		      { privileged_in_vain, "raised #GP in each of 64 tries" },
		      { stop_in_a_nested_call, "enough" } };
	struct script s;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		cr_assert_eq(run(&s, "ept", cases[i].body), -ECANCELED);
		cr_assert(strstr(gn_soft_stop_reason(s.g.cpu), cases[i].reason), "%s",
			  gn_soft_stop_reason(s.g.cpu));
		cr_assert(s.step <= 1);
		cr_assert_eq(gn_soft_run(s.g.cpu, start_over, &s), 0, "%s",
			     gn_soft_stop_reason(s.g.cpu));
		end(&s);
	}
}

/* ---- What is not plain memory ------------------------------------------------------------------------- */

static void touch_odd_memory(struct gn_soft_cpu *cpu, void *ctx)
{
	struct script *s = ctx;

	guest_map(&s->g, VA, 64 * MIB, 1, GUEST_RW); /* beyond RAM */
	guest_map(&s->g, VA + PAGE, 5 * MIB, 1, GUEST_RW);
	guest_start(&s->g, 0);
	gn_soft_store(cpu, gva(VA + PAGE), 8, 77);
	cr_assert_eq(gn_p2m_protect(s->g.vm, gfn(5 * MIB / PAGE), 1, true), 0);
	gn_soft_store(cpu, gva(VA), 8, 5);
	gn_soft_store(cpu, gva(VA + PAGE), 8, 78);
	s->value[0] = gn_soft_load(cpu, gva(VA), 4);
	s->value[1] = gn_soft_load(cpu, gva(VA + PAGE), 8);
	s->value[2] = gn_soft_load(cpu, gva(VA + PAGE - 4), 8); /* half MMIO, half ROM */
}

Test(soft_machine, mmio_reads_ones_and_rom_keeps_its_contents)
{
	struct script s;

	for (size_t i = 0; i < SCHEMES; i++) {
		cr_assert_eq(run(&s, schemes[i], touch_odd_memory), 0, "%s: %s", schemes[i],
			     gn_soft_stop_reason(s.g.cpu));
		cr_assert_eq(s.value[0], 0xffffffff);
		cr_assert_eq(s.value[1], 77, "%s", schemes[i]);
		cr_assert_eq(s.value[2], (uint64_t)77 << 32 | 0xffffffff);
		end(&s);
	}
}

static void touch_balloon(struct gn_soft_cpu *cpu, void *ctx)
{
	struct script *s = ctx;

	guest_map(&s->g, VA, 5 * MIB, 1, GUEST_RW);
	guest_start(&s->g, 0);
	gn_soft_store(cpu, gva(VA), 8, 1);
	cr_assert_eq(gn_p2m_balloon(s->g.vm, gfn(5 * MIB / PAGE), 1), 0);
	gn_soft_load(cpu, gva(VA), 8);
	s->step = 1;
}

Test(soft_machine, a_ballooned_page_stops_the_guest)
{
	struct script s;

	for (size_t i = 0; i < SCHEMES; i++) {
		cr_assert_eq(run(&s, schemes[i], touch_balloon), -ECANCELED, "%s", schemes[i]);
		cr_assert_eq(s.step, 0);
		cr_assert(strstr(gn_soft_stop_reason(s.g.cpu), "0x500000"), "%s",
			  gn_soft_stop_reason(s.g.cpu));
		end(&s);
	}
}

/* ---- Flushes ------------------------------------------------------------------------------------------ */

/* Change the leaf behind the TLB's back: host memory, no notification. */
static void repoint(struct guest *g, uint64_t cr3, uint64_t va, uint64_t to, uint64_t flags)
{
	guest_write_entry(g, guest_entry_at(g, cr3, va, 1), to | flags);
}

static void stale_entries(struct gn_soft_cpu *cpu, void *ctx)
{
	struct script *s = ctx;
	struct guest *g = &s->g;
	uint64_t other = guest_new_table(g), a = 4 * MIB, b = 5 * MIB;

	guest_map(g, VA, a, 1, GUEST_RW);
	guest_map(g, VA + PAGE, a, 1, GUEST_RW | X86_PTE_G);
	/* The other address space has the upper tables in common. */
	guest_write_entry(g, other + ((VA >> 39) & 511) * 8,
			  guest_read_entry(g, g->cr3 + ((VA >> 39) & 511) * 8));
	cr_assert_eq(gn_vm_write(g->vm, gpa(a), &(uint64_t){ 1 }, 8), 0);
	cr_assert_eq(gn_vm_write(g->vm, gpa(b), &(uint64_t){ 2 }, 8), 0);
	guest_start(g, X86_CR4_PGE | X86_CR4_PCIDE);
	s->value[0] = gn_soft_load(cpu, gva(VA), 8) + gn_soft_load(cpu, gva(VA + PAGE), 8);
	repoint(g, g->cr3, VA, b, GUEST_RW);
	repoint(g, g->cr3, VA + PAGE, b, GUEST_RW | X86_PTE_G);
	s->value[1] = gn_soft_load(cpu, gva(VA), 8); /* stale */
	gn_soft_write_cr3(cpu, other | 5);
	s->value[2] = gn_soft_load(cpu, gva(VA), 8);	    /* other PCID: walks */
	s->value[3] = gn_soft_load(cpu, gva(VA + PAGE), 8); /* global: stale */
	gn_soft_write_cr3(cpu, g->cr3 | X86_CR3_NOFLUSH);
	s->value[4] = gn_soft_load(cpu, gva(VA), 8); /* still there, stale */
	gn_soft_write_cr3(cpu, g->cr3);
	s->value[5] = gn_soft_load(cpu, gva(VA), 8);	    /* flushed */
	s->value[6] = gn_soft_load(cpu, gva(VA + PAGE), 8); /* global: stale */
	gn_soft_invlpg(cpu, gva(VA + PAGE));
	s->value[7] = gn_soft_load(cpu, gva(VA + PAGE), 8);
}

Test(soft_machine, the_tlb_keeps_what_was_not_flushed)
{
	static const uint64_t expected[] = { 2, 1, 2, 1, 1, 2, 1, 2 };
	static const char *const cached[] = { "native", "ept", "npt" };
	struct script s;

	for (size_t i = 0; i < sizeof(cached) / sizeof(cached[0]); i++) {
		cr_assert_eq(run(&s, cached[i], stale_entries), 0);
		for (unsigned n = 0; n < 8; n++)
			cr_assert_eq(s.value[n], expected[n], "%s: step %u read %lu", cached[i], n,
				     (unsigned long)s.value[n]);
		end(&s);
	}
}

static void fractured(struct gn_soft_cpu *cpu, void *ctx)
{
	struct script *s = ctx;
	struct guest *g = &s->g;

	/* A 2 MiB guest page on 4 KiB frames: 4 KiB pieces in the TLB. INVLPG of one address takes all. */
	guest_map(g, VA, 4 * MIB, 2, GUEST_RW);
	cr_assert_eq(gn_vm_write(g->vm, gpa(4 * MIB + 8 * PAGE), &(uint64_t){ 1 }, 8), 0);
	cr_assert_eq(gn_vm_write(g->vm, gpa(6 * MIB + 8 * PAGE), &(uint64_t){ 2 }, 8), 0);
	guest_start(g, 0);
	gn_soft_load(cpu, gva(VA), 8);
	s->value[0] = gn_soft_load(cpu, gva(VA + 8 * PAGE), 8);
	guest_write_entry(g, guest_entry_at(g, g->cr3, VA, 2), 6 * MIB | GUEST_RW | X86_PTE_PS);
	s->value[1] = gn_soft_load(cpu, gva(VA + 8 * PAGE), 8);
	gn_soft_invlpg(cpu, gva(VA));
	s->value[2] = gn_soft_load(cpu, gva(VA + 8 * PAGE), 8);
}

Test(soft_machine, invlpg_reaches_every_piece_of_a_fractured_page)
{
	struct script s;

	cr_assert_eq(run(&s, "ept", fractured), 0);
	cr_assert_eq(s.value[0], 1);
	cr_assert_eq(s.value[1], 1);
	cr_assert_eq(s.value[2], 2);
	end(&s);
}

static void move_under(struct gn_soft_cpu *cpu, void *ctx)
{
	struct script *s = ctx;

	guest_map(&s->g, VA, 5 * MIB, 1, GUEST_RW);
	guest_start(&s->g, 0);
	gn_soft_store(cpu, gva(VA), 8, 41);
	for (unsigned i = 0; i < 20; i++) {
		cr_assert_eq(gn_p2m_move(s->g.vm, gfn(5 * MIB / PAGE), 1), 0);
		gn_soft_store(cpu, gva(VA), 8, gn_soft_load(cpu, gva(VA), 8) + 1);
	}
	for (size_t i = 0; i < SCHEMES; i++) {
		cr_assert_eq(gn_vm_switch_scheme(s->g.vm, schemes[i]), 0);
		gn_soft_store(cpu, gva(VA), 8, gn_soft_load(cpu, gva(VA), 8) + 1);
	}
	s->value[0] = gn_soft_load(cpu, gva(VA), 8);
}

Test(soft_machine, frames_and_schemes_may_change_under_a_running_guest)
{
	struct script s;

	for (size_t i = 0; i < SCHEMES; i++) {
		cr_assert_eq(run(&s, schemes[i], move_under), 0, "%s: %s", schemes[i],
			     gn_soft_stop_reason(s.g.cpu));
		cr_assert_eq(s.value[0], 61 + SCHEMES, "%s", schemes[i]);
		end(&s);
	}
}

/* ---- Rights ------------------------------------------------------------------------------------------- */

static void rights(struct gn_soft_cpu *cpu, void *ctx)
{
	struct script *s = ctx;
	struct guest *g = &s->g;
	const struct gn_access read = { .va = gva(VA), .kind = GN_READ, .size = 8, .user = true };
	const struct gn_access write = { .va = gva(VA), .kind = GN_WRITE, .size = 8, .user = true };
	struct gn_soft_outcome out;
	uint64_t value = 9;

	guest_map(g, VA, 5 * MIB, 1, GUEST_RW & ~(X86_PTE_W | X86_PTE_D) & ~(uint64_t)X86_PTE_A);
	guest_start(g, X86_CR4_PKE);
	cr_assert_eq(gn_soft_probe(cpu, &read, &value, &out), 0);
	cr_assert(!out.faulted);
	cr_assert_eq(gn_soft_probe(cpu, &write, &value, &out), 0);
	cr_assert(out.faulted && out.error_code == (X86_PF_P | X86_PF_W | X86_PF_U));
	/* Rights that grow need no flush: the stale entry is dropped before anything faults. */
	repoint(g, g->cr3, VA, 5 * MIB, X86_PTE_P | X86_PTE_W | X86_PTE_U | X86_PTE_A);
	if (strcmp(s->scheme, "shadow-vtlb") == 0)
		gn_soft_invlpg(cpu, gva(VA)); /* a virtual TLB may keep it */
	value = 9;
	cr_assert_eq(gn_soft_probe(cpu, &write, &value, &out), 0);
	cr_assert(!out.faulted, "%s: error code %#x", s->scheme, out.error_code);
	cr_assert(guest_read_entry(g, guest_entry_at(g, g->cr3, VA, 1)) & X86_PTE_D, "%s",
		  s->scheme);
	/* PKRU binds what is in the TLB already. */
	gn_soft_write_pkru(cpu, 1);
	cr_assert_eq(gn_soft_probe(cpu, &read, &value, &out), 0);
	cr_assert(out.faulted && out.error_code == (X86_PF_P | X86_PF_U | X86_PF_PK));
	gn_soft_write_pkru(cpu, 0);
	cr_assert_eq(gn_soft_probe(cpu, &read, &value, &out), 0);
	cr_assert(!out.faulted);
	cr_assert_eq(value, 9);
}

Test(soft_machine, rights_are_checked_on_every_hit)
{
	struct script s;

	for (size_t i = 0; i < SCHEMES; i++) {
		cr_assert_eq(run(&s, schemes[i], rights), 0, "%s: %s", schemes[i],
			     gn_soft_stop_reason(s.g.cpu));
		end(&s);
	}
}

static void self_map(struct gn_soft_cpu *cpu, void *ctx)
{
	struct script *s = ctx;
	const unsigned index = 300;
	uint64_t va = ~(uint64_t)0 << 48, at = s->g.cr3 + index * 8;

	for (unsigned level = 1; level <= 4; level++)
		va |= (uint64_t)index << gn_level_shift(level);
	guest_write_entry(&s->g, at, s->g.cr3 | X86_PTE_P | X86_PTE_W | X86_PTE_U); /* no A, no D */
	guest_start(&s->g, 0);
	s->value[0] = gn_soft_load(cpu, gva(va + index * 8), 8);
	gn_soft_store(cpu, gva(va + 8 * 8), 8, 0);
	s->value[1] = guest_read_entry(&s->g, at);
}

/* One entry is read on all four levels, and A is set in it by the first. */
Test(soft_machine, a_table_that_maps_itself)
{
	struct script s;

	for (size_t i = 0; i < SCHEMES; i++) {
		cr_assert_eq(run(&s, schemes[i], self_map), 0, "%s: %s", schemes[i],
			     gn_soft_stop_reason(s.g.cpu));
		cr_assert_eq(s.value[0] & ~(uint64_t)X86_PTE_A & ~(uint64_t)X86_PTE_D,
			     s.g.cr3 | X86_PTE_P | X86_PTE_W | X86_PTE_U);
		cr_assert_eq(s.value[1],
			     s.g.cr3 | X86_PTE_P | X86_PTE_W | X86_PTE_U | X86_PTE_A | X86_PTE_D,
			     "%s", schemes[i]);
		end(&s);
	}
}

/* ---- Costs, determinism --------------------------------------------------------------------------------- */

static void mixed_work(struct gn_soft_cpu *cpu, void *ctx)
{
	struct script *s = ctx;
	uint64_t seed = 3;

	gn_soft_set_handler(cpu, map_on_fault, s);
	guest_start(&s->g, 0);
	for (unsigned i = 0; i < 20000; i++) {
		uint64_t va = VA + (guest_random(&seed) % MIB & ~(uint64_t)7);

		if (i % 3)
			gn_soft_load(cpu, gva(va), 8);
		else
			gn_soft_store(cpu, gva(va), 8, i);
		gn_soft_compute(cpu, 3);
		if (i % 1000 == 0)
			gn_soft_write_cr3(cpu, s->g.cr3);
		if (i % 700 == 0)
			gn_soft_fetch(cpu, gva(va));
	}
}

static void check_parts(const struct script *s)
{
	struct gn_counters c;
	struct gn_soft_stats stats;
	uint64_t exits = 0, by = 0, walks = 0;

	gn_soft_counters(s->g.soft, &c);
	gn_soft_stats(s->g.soft, &stats);
	for (unsigned i = 0; i < GN_EXIT_REASONS; i++) {
		exits += c.exits_by[i];
		by += stats.exit_cycles_by[i];
	}
	for (unsigned i = 0; i <= GN_SOFT_MAX_WALK_REFS; i++)
		walks += stats.walk_refs_histogram[i];
	cr_assert_eq(c.exits, exits);
	cr_assert_eq(c.exit_cycles, by);
	cr_assert_eq(c.walks, walks, "%s", s->scheme);
	cr_assert_eq(c.walk_refs, stats.cache_refs[0] + stats.cache_refs[1] + stats.cache_refs[2] +
					  stats.cache_refs[3]);
	cr_assert_eq(c.cycles,
		     c.cycles_base + stats.tlb_cycles + c.walk_cycles + c.exit_cycles +
			     stats.guest_fault_cycles + stats.tlb_flush_cycles,
		     "%s", s->scheme);
	cr_assert_eq(stats.l2_tlb_hits + stats.l2_tlb_misses, c.l1_tlb_misses);
	cr_assert_eq(c.accesses, 20000 + 29);
	cr_assert_eq(c.guest_faults, s->faults);
	if (strcmp(s->scheme, "native") == 0)
		cr_assert_eq(c.exits, 0);
	if (strcmp(s->scheme, "interp") == 0)
		cr_assert(c.exits_by[GN_EXIT_SOFTWARE] >= c.accesses && c.walks == 0);
}

Test(soft_machine, the_parts_make_the_whole_and_runs_repeat)
{
	struct gn_counters first, second;
	struct gn_soft_stats a, b;
	struct script s;

	for (size_t i = 0; i < SCHEMES; i++) {
		cr_assert_eq(run(&s, schemes[i], mixed_work), 0, "%s: %s", schemes[i],
			     gn_soft_stop_reason(s.g.cpu));
		check_parts(&s);
		gn_soft_counters(s.g.soft, &first);
		gn_soft_stats(s.g.soft, &a);
		end(&s);
		cr_assert_eq(run(&s, schemes[i], mixed_work), 0);
		gn_soft_counters(s.g.soft, &second);
		gn_soft_stats(s.g.soft, &b);
		end(&s);
		cr_assert_eq(memcmp(&first, &second, sizeof(first)), 0, "%s", schemes[i]);
		cr_assert_eq(memcmp(&a, &b, sizeof(a)), 0, "%s", schemes[i]);
	}
}

#define REFS 5000

static void by_refs(struct gn_soft_cpu *cpu, void *ctx)
{
	static struct gn_soft_ref refs[REFS];
	struct script *s = ctx;
	uint64_t seed = 9;

	for (size_t i = 0; i < REFS; i++) {
		uint64_t r = guest_random(&seed);

		refs[i].va = VA + (r % (4 * MIB) & ~(uint64_t)7);
		refs[i].kind = (r >> 40) % 3;
	}
	gn_soft_set_handler(cpu, map_on_fault, s);
	guest_start(&s->g, 0);
	gn_soft_refs(cpu, refs, s->step ? REFS : 0);
	for (size_t i = 0; !s->step && i < REFS; i++) {
		if (refs[i].kind == GN_FETCH)
			gn_soft_fetch(cpu, gva(refs[i].va));
		else if (refs[i].kind == GN_READ)
			gn_soft_load(cpu, gva(refs[i].va), 1);
		else
			gn_soft_store(cpu, gva(refs[i].va), 1, 0);
	}
}

static void in_a_batch(struct gn_soft_cpu *cpu, void *ctx)
{
	((struct script *)ctx)->step = 1;
	by_refs(cpu, ctx);
}

Test(soft_machine, a_batch_counts_what_single_references_count)
{
	struct gn_counters a, b;
	struct script s;

	for (size_t i = 0; i < SCHEMES; i++) {
		cr_assert_eq(run(&s, schemes[i], in_a_batch), 0, "%s",
			     gn_soft_stop_reason(s.g.cpu));
		a = guest_counters(&s.g);
		end(&s);
		cr_assert_eq(run(&s, schemes[i], by_refs), 0);
		b = guest_counters(&s.g);
		end(&s);
		cr_assert_eq(a.accesses, REFS);
		cr_assert_eq(memcmp(&a, &b, sizeof(a)), 0, "%s", schemes[i]);
	}
}

/* ---- The rest of the face --------------------------------------------------------------------------------- */

static unsigned hook_calls[6];

static void hook(void *ctx, const struct gn_soft_op *op)
{
	(void)ctx;
	hook_calls[op->kind]++;
}

static void operations(struct gn_soft_cpu *cpu, void *ctx)
{
	struct script *s = ctx;

	gn_soft_set_op_hook(cpu, hook, NULL);
	gn_soft_set_handler(cpu, map_on_fault, s);
	guest_start(&s->g, 0);
	gn_soft_load(cpu, gva(VA), 8);
	gn_soft_invpcid(cpu, X86_INVPCID_ALL, 0, gva(0));
	gn_soft_note(cpu, &(const struct gn_soft_op){ GN_OP_TABLE_WRITE, 1, 2 });
	s->value[0] = gn_soft_hypercall(cpu, 1, 2);
}

Test(soft_machine, operations_are_reported)
{
	struct script s;

	memset(hook_calls, 0, sizeof(hook_calls));
	cr_assert_eq(run(&s, "ept", operations), 0);
	cr_assert_eq(hook_calls[GN_OP_CR], 3);
	cr_assert_eq(hook_calls[GN_OP_CR3], 1);
	cr_assert_eq(hook_calls[GN_OP_FAULT], 1);
	cr_assert_eq(hook_calls[GN_OP_INVLPG], 1);
	cr_assert_eq(hook_calls[GN_OP_INVPCID], 1);
	cr_assert_eq(hook_calls[GN_OP_TABLE_WRITE], 1);
	cr_assert_eq(s.value[0], (uint64_t)-ENOSYS);
	cr_assert_eq(guest_counters(&s.g).exits_by[GN_EXIT_HYPERCALL], 1);
	end(&s);
}

Test(soft_machine, bad_arguments_are_refused)
{
	struct gn_soft_config config = {
		.vm = { .scheme = "ept", .mem_bytes = 4 * MIB, .vcpus = 2 }
	};
	struct gn_access a = { .va = gva(PAGE - 4), .kind = GN_READ, .size = 8 };
	struct gn_soft_outcome out;
	struct gn_soft *soft;
	uint64_t value;

	cr_assert_eq(gn_schemes_register_all(), 0);
	cr_assert_eq(gn_soft_create(&config, &soft), 0);
	cr_assert_null(gn_soft_cpu(soft, 2));
	cr_assert_not_null(gn_soft_cpu(soft, 1));
	cr_assert_eq(gn_soft_probe(gn_soft_cpu(soft, 0), &a, &value, &out), -EINVAL);
	gn_soft_destroy(soft);
	config.vm.scheme = "none";
	cr_assert_eq(gn_soft_create(&config, &soft), -ENOENT);
	gn_soft_destroy(NULL);
}

Test(soft_machine, creation_unwinds_at_every_allocation)
{
	struct gn_soft_config config = {
		.vm = { .scheme = "shadow", .mem_bytes = 4 * MIB, .vcpus = 2 }
	};
	struct gn_soft *soft;
	unsigned n = 0;
	int err;

	cr_assert_eq(gn_schemes_register_all(), 0);
	do {
		gn_alloc_fail_nth(++n);
		err = gn_soft_create(&config, &soft);
		cr_assert(!err || err == -ENOMEM, "allocation %u: %d", n, err);
	} while (err);
	gn_alloc_fail_nth(0);
	cr_assert(n > 10);
	gn_soft_destroy(soft);
}
