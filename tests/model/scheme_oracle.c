/* SPDX-License-Identifier: MIT */
/*
 * scheme_oracle.c - every scheme against the oracle.
 *
 * Two VMs hold the same guest memory. In one the software machine runs random accesses under the scheme; in
 * the other gn_guest_walk(), composed with the p2m, says what must happen. Compared for each case: outcome,
 * vector, error code, CR2, the GPA, the host frame and the datum; after each epoch every table page, so
 * a missing or a stray A or D bit shows. An epoch starts with new registers, and with entries changed from
 * outside and a full flush; inside one the guest changes entries itself, by stores to mapped tables.
 *
 * The schemes that keep 1-D tables run once more for a deprivileged guest, whose privilege is a choice of roots, one
 * slot of which is reserved.
 */
#include <errno.h>
#include <string.h>

#include <gnomon/schemes.h>

#include "mmu/vm.h"

#include "support/random_guest.h"

#define CASES_PER_EPOCH	   256
#define EPOCH_PATCHES	   12
#define DEFAULT_CASES	   20000000 /* a scheme */
#define REPORT_DIFFERENCES 5

struct rig {
	struct gn_soft *soft;
	struct gn_soft_cpu *cpu;
	struct gn_vm *vm;     /* under the scheme */
	struct gn_vm *oracle; /* the same memory */
	struct gn_regs regs;
	struct gn_paging paging;
	struct test_random random;
	const char *name;
	uint64_t cases, done, differences, faults, table_stores;
};

static const struct config {
	const char *label;
	unsigned backing_level, max_leaf_level, nested_levels;
	uint64_t table_limit_bytes;
	bool deprivileged;
} configs[] = {
	{ "4 KiB frames", 1, 1, 4, 0, false },
	{ "2 MiB frames", 2, 2, 5, 0, false },
	{ "tight table budget", 2, 3, 4, 40 << GN_PAGE_SHIFT, false },
	{ "deprivileged, 4 KiB frames", 1, 1, 4, 0, true },
	{ "deprivileged, 2 MiB frames", 2, 2, 4, 0, true },
	{ "deprivileged, tight table budget", 2, 3, 4, 40 << GN_PAGE_SHIFT, true },
};
#define PLAIN_CONFIGS 3

static void say(struct rig *rig, const struct gn_access *a, const char *what, uint64_t have,
		uint64_t want)
{
	if (rig->differences++ < REPORT_DIFFERENCES)
		printf("%s case %" PRIu64 ": va %#" PRIx64
		       " kind %d user %d ac %d implicit %d cr0 %#" PRIx64 " cr3 %#" PRIx64
		       " cr4 %#" PRIx64 " efer %#" PRIx64 ": %s is %#" PRIx64 ", must be %#" PRIx64
		       "\n",
		       rig->name, rig->done, a->va.v, a->kind, a->user, a->ac, a->implicit,
		       rig->regs.cr0, rig->regs.cr3, rig->regs.cr4, rig->regs.efer, what, have,
		       want);
}

static void set_both(struct rig *rig, gpa_t at, uint64_t value)
{
	if (gn_vm_write(rig->vm, at, &value, sizeof(value)) ||
	    gn_vm_write(rig->oracle, at, &value, sizeof(value)))
		abort();
}

static void flush_all(struct rig *rig)
{
	gn_soft_invpcid(rig->cpu, X86_INVPCID_ALL_GLOBAL, 0, gva(0));
}

static void new_epoch(struct rig *rig)
{
	struct test_random *r = &rig->random;
	struct gn_regs regs;

	for (unsigned i = 0; i < EPOCH_PATCHES; i++) {
		unsigned level = 1 + (unsigned)test_random_below(r, 5);
		uint64_t table = rg_random_table(r, level);

		set_both(rig, gpa((table << GN_PAGE_SHIFT) + rg_random_index(r) * 8),
			 rg_random_entry(r, level));
	}
	rg_random_mode(r, &regs);
	if (rig->vm->config.deprivileged)
		regs.cr4 &= ~(uint64_t)X86_CR4_PKE;
	rg_enter_mode(rig->cpu, &rig->regs, &regs, test_random_once(r, 2));
	flush_all(rig);
	rig->regs = *gn_vcpu_regs(gn_vm_vcpu(rig->vm, 0));
	gn_paging_derive(&rig->regs, RG_PHYS_BITS, &rig->paging);
}

/* Another root, as a context switch would. A PCID belongs to one root, so it may keep its translations; global
 * entries of two roots differ here, so they may not. */
static void switch_root(struct rig *rig)
{
	uint64_t root = rg_random_table(&rig->random, rig->paging.levels);
	uint64_t cr3 = root << GN_PAGE_SHIFT;

	if (rig->paging.pcide)
		cr3 |= root | (test_random_once(&rig->random, 2) ? X86_CR3_NOFLUSH : 0);
	gn_soft_write_cr3(rig->cpu, cr3);
	if (rig->paging.pge)
		flush_all(rig);
	rig->regs = *gn_vcpu_regs(gn_vm_vcpu(rig->vm, 0));
}

static void compare_tables(struct rig *rig)
{
	static uint8_t a[GN_PAGE_SIZE], b[GN_PAGE_SIZE];
	const struct gn_access none = { .va = gva(0) };

	for (uint64_t f = RG_FIRST_TABLE; f < RG_FIRST_TABLE + RG_TABLES; f++) {
		if (gn_vm_read(rig->vm, gfn_to_gpa(gfn(f)), a, sizeof(a)) ||
		    gn_vm_read(rig->oracle, gfn_to_gpa(gfn(f)), b, sizeof(b)))
			abort();
		for (size_t i = 0; i < sizeof(a); i += 8)
			if (memcmp(a + i, b + i, 8) != 0) {
				uint64_t have, want;

				memcpy(&have, a + i, 8);
				memcpy(&want, b + i, 8);
				say(rig, &none, "a table entry (A/D)", have, want);
			}
	}
}

static uint64_t peek(struct gn_vm *vm, gpa_t at)
{
	uint64_t value = 0;

	gn_rcu_read_lock();
	const uint64_t *p = gn_p2m_pointer(vm, at);
	if (p)
		value = *p;
	gn_rcu_read_unlock();
	return value;
}

static void compare_success(struct rig *rig, const struct gn_access *a,
			    const struct gn_guest_walk *want, const struct gn_soft_outcome *have,
			    uint64_t value, uint64_t expected)
{
	p2m_word_t word = gn_p2m_get(&rig->vm->p2m, gpa_to_gfn(want->t.gpa));

	if (have->gpa.v != want->t.gpa.v)
		say(rig, a, "the gpa", have->gpa.v, want->t.gpa.v);
	if (!gn_p2m_word_has_frame(word))
		return;
	/* A store that the VMM emulated used no translation: its outcome names no frame. */
	if (hpa_to_pfn(have->hpa).v != gn_p2m_word_pfn(word).v &&
	    !(a->kind == GN_WRITE && !have->hpa.v))
		say(rig, a, "the frame", hpa_to_pfn(have->hpa).v, gn_p2m_word_pfn(word).v);
	if (a->kind == GN_WRITE)
		value = peek(rig->vm, want->t.gpa);
	if (a->kind != GN_FETCH && value != expected)
		say(rig, a, "the datum", value, expected);
}

static void one_case(struct rig *rig)
{
	struct test_random *r = &rig->random;
	struct gn_guest_walk want;
	struct gn_soft_outcome have;
	struct gn_access a;
	uint64_t value = 0, expected = 0;
	bool stores_table, stores;

	rg_random_access(r, rig->paging.levels, &a);
	/* First look: a store to a table page is followed by a flush, so keep them few. */
	gn_rcu_read_lock();
	gn_guest_walk(rig->oracle, &rig->paging, rig->regs.cr3, &a, 0, &want);
	gn_rcu_read_unlock();
	stores_table = a.kind == GN_WRITE && want.end == GN_GW_OK && gpa_to_gfn(want.t.gpa).v < 32;
	if (stores_table && !test_random_once(r, 6)) {
		a.kind = GN_READ;
		stores_table = false;
	}
	gn_rcu_read_lock();
	gn_guest_walk(rig->oracle, &rig->paging, rig->regs.cr3, &a, GN_GW_SET_AD, &want);
	gn_rcu_read_unlock();
	if (want.end == GN_GW_NO_TABLE)
		return; /* no table lies outside RAM here; kept for configurations that change that */
	if (a.kind == GN_WRITE)
		value = stores_table ? rg_random_entry(r, 1 + (unsigned)test_random_below(r, 5))
				     : test_random_next(r);
	stores = a.kind == GN_WRITE && want.end == GN_GW_OK && want.t.gpa.v < RG_RAM_BYTES &&
		 gn_p2m_word_state(gn_p2m_get(&rig->oracle->p2m, gpa_to_gfn(want.t.gpa))) !=
			 GN_P2M_READONLY;
	if (stores && gn_vm_write(rig->oracle, want.t.gpa, &value, 8))
		abort();
	if (want.end == GN_GW_OK)
		expected = peek(rig->oracle, want.t.gpa);

	int err = gn_soft_probe(rig->cpu, &a, &value, &have);
	if (err) {
		say(rig, &a, "the result of the access (errno)", (uint64_t)-err, 0);
		return;
	}
	if (have.faulted != (want.end != GN_GW_OK)) {
		say(rig, &a, "faulted", have.faulted, want.end != GN_GW_OK);
	} else if (have.faulted) {
		rig->faults++;
		if (have.vector != (want.end == GN_GW_PF ? X86_VEC_PF : X86_VEC_GP))
			say(rig, &a, "the vector", have.vector, want.end);
		else if (want.end == GN_GW_PF && have.error_code != want.error_code)
			say(rig, &a, "the error code", have.error_code, want.error_code);
		else if (want.end == GN_GW_PF && have.cr2.v != a.va.v)
			say(rig, &a, "CR2", have.cr2.v, a.va.v);
	} else {
		compare_success(rig, &a, &want, &have, value, expected);
	}
	if (stores_table) {
		rig->table_stores++;
		flush_all(rig);
	}
}

static void guest(struct gn_soft_cpu *cpu, void *ctx)
{
	struct rig *rig = ctx;

	rig->cpu = cpu;
	rig->regs = *gn_vcpu_regs(gn_vm_vcpu(rig->vm, 0));
	while (rig->done < rig->cases && rig->differences < 1000) {
		new_epoch(rig);
		for (unsigned i = 0; i < CASES_PER_EPOCH; i++, rig->done++) {
			if (test_random_once(&rig->random, 32))
				switch_root(rig);
			one_case(rig);
		}
		compare_tables(rig);
	}
}

static void fill(struct rig *rig)
{
	struct test_random *r = &rig->random;

	for (unsigned level = 1; level <= GN_MAX_LEVELS; level++)
		for (unsigned t = 0; t < rg_level[level].count; t++)
			for (unsigned i = 0; i < RG_INDEXES; i++)
				set_both(rig,
					 gpa(((uint64_t)(rg_level[level].first + t)
					      << GN_PAGE_SHIFT) +
					     rg_index[i] * 8u),
					 rg_random_entry(r, level));
	for (unsigned i = 0; i < 4096; i++)
		set_both(rig,
			 gpa(((uint64_t)32 << GN_PAGE_SHIFT) +
			     (test_random_below(r, RG_RAM_BYTES - (32 << GN_PAGE_SHIFT)) &
			      ~(uint64_t)7)),
			 test_random_next(r));
	if (gn_p2m_protect(rig->vm, gfn(RG_READONLY_GFN), 8, true) ||
	    gn_p2m_protect(rig->oracle, gfn(RG_READONLY_GFN), 8, true))
		abort();
}

static void run_config(struct test_run *run, const char *scheme, const struct config *config,
		       uint64_t cases)
{
	struct gn_vm_config vm = { .scheme = scheme,
				   .mem_bytes = RG_RAM_BYTES,
				   .vcpus = 1,
				   .guest_phys_bits = RG_PHYS_BITS,
				   .backing_level = config->backing_level,
				   .max_leaf_level = config->max_leaf_level,
				   .nested_levels = config->nested_levels,
				   .scheme_table_limit_bytes = config->table_limit_bytes };
	struct gn_soft_config machine = { .vm = vm, .seed = run->seed };
	struct rig rig = { .random = test_random_seed(run->seed), .name = scheme, .cases = cases };
	struct gn_audit_report report;
	hpa_t reserved = { 0 };
	int err;

	vm.scheme = "interp";
	vm.scheme_table_limit_bytes = 0;
	err = config->deprivileged ? rg_deprivileged(&machine, &rig.soft, &reserved)
				   : gn_soft_create(&machine, &rig.soft);
	if (err || gn_vm_create(&vm, &rig.oracle))
		abort();
	rig.vm = gn_soft_vm(rig.soft);
	fill(&rig);
	err = gn_soft_run(gn_soft_cpu(rig.soft, 0), guest, &rig);
	if (err)
		printf("%s: the guest was stopped: %s\n", scheme, gn_soft_stop_reason(rig.cpu));
	if (gn_audit(rig.vm, &report)) {
		printf("%s: audit: %s\n", scheme, report.first);
		rig.differences++;
	}
	printf("%s, %s: %" PRIu64 " cases, %" PRIu64 " faults, %" PRIu64 " table stores, %" PRIu64
	       " differences\n",
	       scheme, config->label, rig.done, rig.faults, rig.table_stores, rig.differences);
	if (err || rig.differences || !rig.faults || rig.done < cases)
		run->failed++;
	else
		run->passed++;
	gn_vm_destroy(rig.oracle);
	if (config->deprivileged)
		gn_vm_pool_free(rig.vm, reserved);
	gn_soft_destroy(rig.soft);
}

int main(int argc, char **argv)
{
	struct test_run run = test_run_start(argc, argv, 0x676e6f6d6f6e, DEFAULT_CASES);
	const size_t count = sizeof(configs) / sizeof(configs[0]);
	const struct gn_scheme_ops *ops;

	if (gn_schemes_register_all())
		abort();
	for (unsigned s = 0; (ops = gn_scheme_at(s)); s++) {
		bool is_shadow = strncmp(gn_scheme_name(ops), "shadow", 6) == 0;

		if (argc > 3 && strcmp(argv[3], gn_scheme_name(ops)) != 0)
			continue;
		for (size_t i = 0; i < (is_shadow ? count : PLAIN_CONFIGS); i++)
			run_config(&run, gn_scheme_name(ops), &configs[i],
				   (run.cases + PLAIN_CONFIGS - 1) / PLAIN_CONFIGS);
	}
	return test_run_end(&run);
}
