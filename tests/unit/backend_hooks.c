/* SPDX-License-Identifier: MIT */
/*
 * backend_hooks.c - what the engine offers a backend on real hardware: hooks for hardware that copies tables or is
 * programmed by ranges, the pool, home frames, a slot of each root, privilege as a report, translation by the guest's
 * tables.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <gnomon/x86.h>

#include "support/plain_scheme.h"

#define MIB ((uint64_t)1 << 20)

/* What the backend was told last, and what it answers. */
static struct {
	unsigned changed, retired, ranges, changes, logs, syncs;
	hpa_t slot;
	pfn_t table;
	gfn_t start, end; /* of the first, of the last */
	size_t runs;
	enum gn_range_change change;
	bool after_scheme, sequence_was_odd, had_frame, was_settled, log_on, hides_accesses;
	int log_error, sync_error;
	uint64_t logged_gfn; /* by the hardware itself; 0: none */
} told;

static void entry_changed(struct gn_vm *vm, hpa_t slot)
{
	(void)vm;
	told.changed++;
	told.slot = slot;
}

static void table_retired(struct gn_vm *vm, pfn_t table)
{
	told.retired++;
	told.table = table;
	cr_assert_geq(gn_frames_refs(vm->frames, table), 1, "not free yet");
}

static void range_changing(struct gn_vm *vm, const struct gn_gfn_run *runs, size_t count,
			   enum gn_range_change change)
{
	const gfn_t start = runs[0].start;

	told.ranges++;
	told.runs = count;
	told.start = start;
	told.end = gfn(runs[count - 1].start.v + runs[count - 1].count);
	told.change = change;
	told.after_scheme = plain.ranges == told.ranges;
	told.sequence_was_odd = vm->p2m.sequence & 1;
	told.had_frame = gn_p2m_word_has_frame(gn_p2m_get(&vm->p2m, start));
}

static void change_over(struct gn_vm *vm)
{
	p2m_word_t word = gn_p2m_get(&vm->p2m, told.start);

	told.changes++;
	told.was_settled = !gn_p2m_word_has_frame(word) || gn_p2m_word_rights(word);
	gn_lock_assert_held(&vm->p2m.lock);
}

static bool shows_accesses(struct gn_vm *vm)
{
	(void)vm;
	return !told.hides_accesses;
}

static int dirty_log(struct gn_vm *vm, bool on)
{
	cr_assert(gn_dirty_is_logged(vm), "from the first moment to the last");
	told.logs++;
	told.log_on = on;
	return on ? told.log_error : 0;
}

static int dirty_sync(struct gn_vm *vm)
{
	told.syncs++;
	if (told.logged_gfn)
		gn_dirty_note(vm, gfn(told.logged_gfn));
	return told.sync_error;
}

static const struct gn_backend_ops hardware = {
	.name = "hardware",
	.flush = plain_flush,
	.entry_changed = entry_changed,
	.table_retired = table_retired,
	.range_changing = range_changing,
	.change_over = change_over,
	.shows_accesses = shows_accesses,
	.dirty_log = dirty_log,
	.dirty_sync = dirty_sync,
};

static struct gn_vm *vm;

static void make(const struct gn_vm_config *with)
{
	struct gn_vm_config config = plain_config(16 * MIB);

	config.pool_bytes = with->pool_bytes;
	config.backing_level = with->backing_level;
	config.home_frames = with->home_frames;
	config.deprivileged = with->deprivileged;
	config.backend = &hardware;
	vm = plain_vm(&config);
	cr_assert_not_null(vm);
	memset(&told, 0, sizeof(told));
}

static void set_up(void)
{
	make(&(const struct gn_vm_config){ 0 });
}

static void tear_down(void)
{
	gn_vm_destroy(vm);
}

TestSuite(backend_hooks, .init = set_up, .fini = tear_down);

static void remake(const struct gn_vm_config *with)
{
	gn_vm_destroy(vm);
	make(with);
}

static void put(uint64_t at, uint64_t value)
{
	cr_assert_eq(gn_vm_write(vm, gpa(at), &value, sizeof(value)), 0);
}

/* ---- Tables ---------------------------------------------------------------------------------------------- */

/* Told of a change exactly when a stale copy could hurt, with the entry's address. */
Test(backend_hooks, entries)
{
	const struct gn_fmt *f = &gn_fmt_x86_4;
	const uint64_t ro = gn_fmt_leaf(f, 1, pfn(3), GN_R | GN_U) | X86_PTE_A;
	static const struct {
		const char *name;
		uint64_t set, clear;
		bool drop, tells;
	} steps[] = {
		{ .name = "the same" },
		{ .name = "W gained", .set = X86_PTE_W },
		{ .name = "D set", .set = X86_PTE_D },
		{ .name = "W lost", .clear = X86_PTE_W, .tells = true },
		{ .name = "A cleared", .clear = X86_PTE_A, .tells = true },
		{ .name = "U lost", .clear = X86_PTE_U, .tells = true },
		{ .name = "another frame", .set = 0x4000, .tells = true },
		{ .name = "dropped", .drop = true, .tells = true },
		{ .name = "dropped again", .drop = true },
	};
	uint64_t entry = ro;
	pfn_t table;
	uint64_t *slot;

	cr_assert_eq(gn_table_new(vm, &table), 0);
	slot = &gn_table_entries(vm, table)[7];
	gn_entry_set(vm, f, 1, slot, entry);
	cr_assert_eq(told.changed, 0, "nothing was there");
	for (unsigned i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		unsigned before = told.changed;
		bool flush = false;

		entry = steps[i].drop ? 0 : (entry | steps[i].set) & ~steps[i].clear;
		if (i % 2) {
			uint64_t expected = gn_entry_get(slot);

			cr_assert(gn_entry_cmpxchg(vm, f, 1, slot, &expected, entry, &flush));
		} else {
			flush = gn_entry_set(vm, f, 1, slot, entry).must_flush;
		}
		cr_assert_eq(told.changed - before, steps[i].tells, "%s", steps[i].name);
		cr_assert_eq(flush, steps[i].tells, "%s", steps[i].name);
		if (steps[i].tells)
			cr_assert_eq(told.slot.v, pfn_to_hpa(table).v + 7 * 8);
	}
	/* A comparison that fails changes nothing. */
	gn_entry_set(vm, f, 1, slot, ro);
	told.changed = 0;
	cr_assert_not(gn_entry_cmpxchg(vm, f, 1, slot, &(uint64_t){ ro ^ X86_PTE_D }, 0,
				       &(bool){ false }));
	cr_assert_eq(told.changed, 0);
	gn_entry_set(vm, f, 1, slot, 0);
	cr_assert_eq(told.retired, 0);
	gn_table_retire(vm, table);
	cr_assert_eq(told.retired, 1);
	cr_assert_eq(told.table.v, table.v);
}

/* The old scheme's tables are told of when a scheme is exchanged, and a VM's at its end. */
Test(backend_hooks, tables_of_schemes_that_go)
{
	pfn_t table = *(pfn_t *)vm->scheme_data;

	cr_assert_eq(gn_vm_switch_scheme(vm, "plain-guest"), 0);
	cr_assert_eq(told.retired, 1);
	cr_assert_eq(told.table.v, table.v);
}

/* ---- Ranges and logs ---------------------------------------------------------------------------------------- */

Test(backend_hooks, ranges)
{
	put(20 * GN_PAGE_SIZE, 1);
	memset(&plain, 0, sizeof(plain));
	cr_assert_eq(gn_p2m_discard(vm, gfn(20), 2), 0);
	cr_assert_eq(told.ranges, 1);
	cr_assert(told.start.v == 20 && told.end.v == 22 && told.change == GN_RANGE_ZAP);
	cr_assert(told.after_scheme && told.sequence_was_odd && told.had_frame);
	cr_assert(told.changes == 1 && told.was_settled);
	put(20 * GN_PAGE_SIZE, 1);
	cr_assert_eq(told.ranges, 1, "first touch is no change");
	cr_assert_eq(gn_p2m_balloon(vm, gfn(9), 1), 0);
	cr_assert_eq(told.ranges, 2);
	cr_assert_eq(told.start.v, 9);
	cr_assert_not(told.had_frame);
	cr_assert_eq(gn_p2m_protect(vm, gfn(20), 1, true), 0);
	cr_assert(told.changes == 3 && told.was_settled && told.start.v == 20);
}

Test(backend_hooks, runs_of_one_change_come_together)
{
	const struct gn_gfn_run runs[] = { { gfn(20), 2 }, { gfn(23), 1 }, { gfn(90), 4 } };

	cr_assert_eq(gn_p2m_discard_runs(vm, runs, 3, NULL), 0);
	cr_assert(told.ranges == 1 && told.runs == 3);
	cr_assert(told.start.v == 20 && told.end.v == 94 && told.change == GN_RANGE_ZAP);
}

Test(backend_hooks, dirty_log)
{
	uint8_t bitmap[512];

	memset(bitmap, 0xee, sizeof(bitmap));
	gn_dirty_stop(vm);
	cr_assert_eq(told.logs, 0);
	cr_assert_eq(gn_dirty_start(vm), 0);
	cr_assert(told.logs == 1 && told.log_on);
	cr_assert(told.ranges == 1 && told.change == GN_RANGE_WRPROTECT);
	cr_assert(told.start.v == 0 && told.end.v == 16 * MIB / GN_PAGE_SIZE);
	/* What the hardware logged by itself comes with the harvest. */
	told.logged_gfn = 77;
	told.sync_error = -EIO;
	cr_assert_eq(gn_dirty_harvest(vm, gfn(64), 64, bitmap), -EIO);
	cr_assert_eq(bitmap[1], 0xee);
	told.sync_error = 0;
	cr_assert_eq(gn_dirty_harvest(vm, gfn(64), 64, bitmap), 0);
	cr_assert_eq(told.syncs, 2);
	cr_assert_eq(bitmap[1], 1 << (77 - 72));
	cr_assert(told.change == GN_RANGE_WRPROTECT && told.start.v == 77 && told.end.v == 78);
	told.logged_gfn = 0;
	cr_assert_eq(gn_dirty_harvest(vm, gfn(64), 64, bitmap), 0);
	cr_assert_eq(bitmap[1], 0);
	gn_dirty_stop(vm);
	cr_assert(told.logs == 2 && !told.log_on);
	cr_assert_eq(gn_dirty_harvest(vm, gfn(64), 64, bitmap), -EINVAL);
	cr_assert_eq(told.syncs, 3, "nobody asks when there is no log");
	/* Hardware that cannot: there is no log. */
	told.log_error = -ENODEV;
	cr_assert_eq(gn_dirty_start(vm), -ENODEV);
	cr_assert_not(gn_dirty_is_logged(vm));
	told.log_error = 0;
	cr_assert_eq(gn_dirty_start(vm), 0);
	cr_assert_eq(gn_dirty_start(vm), -EALREADY);
	cr_assert_eq(told.logs, 4);
}

/* The range of what was found accessed is aged. */
Test(backend_hooks, aging)
{
	uint8_t bitmap[3];

	cr_assert_eq(gn_accessed_harvest(vm, gfn(0), 20, bitmap), 0);
	cr_assert(told.ranges == 1 && told.change == GN_RANGE_AGE);
	cr_assert(told.start.v == 0 && told.end.v == 20);
	cr_assert_not(told.sequence_was_odd, "no word of the p2m changes");
	cr_assert_eq(gn_accessed_harvest(vm, gfn(1), 0, bitmap), 0);
	cr_assert_eq(told.ranges, 1, "nothing was");
	told.hides_accesses = true;
	cr_assert_eq(gn_accessed_harvest(vm, gfn(0), 20, bitmap), -EOPNOTSUPP);
}

/* ---- The pool ------------------------------------------------------------------------------------------------- */

Test(backend_hooks, pool)
{
	uint64_t used = gn_frames_used(vm->frames);
	struct gn_audit_report report;
	struct gn_pool pool;
	uint8_t byte = 1;
	hpa_t a, b;

	gn_vm_pool(vm, &pool);
	cr_assert_eq(pool.bytes, vm->frames->frame_count * GN_PAGE_SIZE);
	cr_assert_eq(gn_vm_pool_alloc(vm, &a), 0);
	cr_assert_eq(gn_vm_pool_alloc(vm, &b), 0);
	cr_assert(a.v != b.v && a.v % GN_PAGE_SIZE == 0 && a.v < pool.bytes && b.v < pool.bytes);
	cr_assert_eq(gn_frames_used(vm->frames), used + 2);
	/* One memory, by either way. */
	((uint8_t *)pool.base)[a.v + 5] = 42;
	cr_assert_eq(pread(pool.fd, &byte, 1, (off_t)(a.v + 5)), 1);
	cr_assert_eq(byte, 42);
	cr_assert_eq(gn_audit(vm, &report), 0, "%s", report.first);
	/* Out of the guest's reach, also when it uses all it may. */
	cr_assert_eq(gn_p2m_populate(vm, gfn(0), 16 * MIB / GN_PAGE_SIZE), 0);
	for (uint64_t i = 0; i < 16 * MIB / GN_PAGE_SIZE; i++)
		cr_assert_neq(plain_query(vm, i).pfn.v, hpa_to_pfn(a).v);
	gn_vm_pool_free(vm, a);
	gn_vm_pool_free(vm, b);
	cr_assert_eq(gn_vm_pool_alloc(vm, &a), 0);
	cr_assert_eq(((uint8_t *)pool.base)[a.v + 5], 0, "zeroed");
	gn_vm_pool_free(vm, a);
	gn_alloc_fail_nth(1);
	cr_assert_eq(gn_vm_pool_alloc(vm, &a), -ENOMEM);
	gn_alloc_fail_nth(0);
}

/* A full pool gives what waits for its grace period. */
Test(backend_hooks, pool_that_is_full)
{
	const struct gn_vm_config small = { .pool_bytes = 2 * MIB };
	hpa_t taken[512], one;
	pfn_t table;
	unsigned n = 0;

	remake(&small);
	cr_assert_eq(gn_table_new(vm, &table), 0);
	while (!gn_vm_pool_alloc(vm, &taken[n]))
		n++;
	gn_table_retire(vm, table);
	cr_assert_eq(gn_vm_pool_alloc(vm, &one), 0);
	cr_assert_eq(hpa_to_pfn(one).v, table.v);
	gn_vm_pool_free(vm, one);
	while (n)
		gn_vm_pool_free(vm, taken[--n]);
}

Test(backend_hooks, home_frames)
{
	for (unsigned level = 1; level <= 2; level++) {
		const struct gn_vm_config config = { .home_frames = true, .backing_level = level };
		struct gn_audit_report report;
		pfn_t squatter = { 0 };

		remake(&config);
		/* Any order, and a frame of the guest's taken by another. */
		cr_assert_eq(gn_frames_alloc_home(vm->frames, 1, pfn(1030), &squatter), 0);
		cr_assert_eq(squatter.v, 1030);
		for (unsigned n = 0; n < 4096; n++) {
			uint64_t at = n * 1103u % 4096;

			put(at << GN_PAGE_SHIFT, at + 1);
		}
		for (uint64_t at = 0; at < 4096; at++) {
			struct gn_p2m_info info = plain_query(vm, at);
			uint64_t value;

			cr_assert_eq(info.pfn.v == at, at != 1030, "gfn %d has frame %d", (int)at,
				     (int)info.pfn.v);
			cr_assert_eq(info.level, at / 512 == 1030 / 512 ? 1 : level);
			cr_assert_eq(gn_vm_read(vm, gfn_to_gpa(gfn(at)), &value, 8), 0);
			cr_assert_eq(value, at + 1);
		}
		/* Given back, filled again: at home, and zero. */
		cr_assert_eq(gn_p2m_discard(vm, gfn(1024), 512), 0);
		cr_assert(gn_frames_put(vm->frames, squatter));
		gn_retire_drain(vm);
		cr_assert_eq(gn_p2m_populate(vm, gfn(1024), 512), 0);
		for (uint64_t at = 1024; at < 1536; at++) {
			uint64_t value;

			cr_assert_eq(plain_query(vm, at).pfn.v, at);
			cr_assert_eq(gn_vm_read(vm, gfn_to_gpa(gfn(at)), &value, 8), 0);
			cr_assert_eq(value, 0);
		}
		cr_assert_eq(gn_audit(vm, &report), 0, "%s", report.first);
	}
}

/* ---- A slot of every root ----------------------------------------------------------------------------------------- */

static int tables_vcpu_init(struct gn_vcpu *vcpu)
{
	int err = plain_vcpu_init(vcpu);

	vcpu->hw.kind = GN_HW_TABLES;
	return err;
}

Test(backend_hooks, root_slot)
{
	static struct gn_scheme_ops tables;
	struct gn_root_slot slot = { .index = 511 };
	struct gn_root_slot bad;
	hpa_t table;

	cr_assert_eq(gn_vm_pool_alloc(vm, &table), 0);
	slot.entry4 = table.v | X86_PTE_P | X86_PTE_W | X86_PTE_A;
	for (unsigned i = 0; i < 5; i++) {
		struct gn_pool pool;

		gn_vm_pool(vm, &pool);
		bad = slot;
		switch (i) {
		case 0:
			bad.index = 512;
			break;
		case 1: /* a leaf cannot stand there */
			bad.entry4 |= X86_PTE_PS;
			break;
		case 2:
			bad.entry5 = pool.bytes | X86_PTE_P;
			break;
		case 3:
			bad.entry4 = pool.bytes | X86_PTE_P;
			break;
		default:
			bad.entry5 = slot.entry4 | X86_PTE_PS;
			break;
		}
		cr_assert_eq(gn_vm_set_root_slot(vm, &bad), -EINVAL, "case %u", i);
		cr_assert_not(vm->has_root_slot);
	}
	cr_assert_eq(gn_vm_set_root_slot(vm, &slot), 0);
	cr_assert(vm->has_root_slot && vm->root_slot.entry4 == slot.entry4);
	slot.index = 480;
	cr_assert_eq(gn_vm_set_root_slot(vm, &slot), 0, "again, while there are no tables");
	tables = plain_scheme;
	tables.name = "plain-tables";
	tables.vcpu_init = tables_vcpu_init;
	cr_assert_eq(gn_scheme_register(&tables), 0);
	cr_assert_eq(gn_vm_switch_scheme(vm, "plain-tables"), 0);
	slot.index = 3;
	cr_assert_eq(gn_vm_set_root_slot(vm, &slot), -EBUSY);
	cr_assert(vm->has_root_slot && vm->root_slot.index == 480);
	gn_vm_pool_free(vm, table);
}

/* ---- Privilege ------------------------------------------------------------------------------------------------------- */

static void set_cr4(struct gn_vcpu *vcpu, uint64_t value)
{
	bool gp;

	cr_assert(!gn_vcpu_write_cr4(vcpu, value, &gp) && !gp);
}

Test(backend_hooks, privilege)
{
	const struct gn_vm_config config = { .deprivileged = true };
	struct gn_vcpu *vcpu = gn_vm_vcpu(vm, 0);
	bool gp;

	cr_assert_eq(gn_vcpu_set_privilege(vcpu, true, false), 0);
	cr_assert(vcpu->view == GN_VIEW_BOTH && plain.loads == 0, "the hardware's business");
	remake(&config);
	vcpu = gn_vm_vcpu(vm, 0);
	cr_assert_eq(vcpu->view, GN_VIEW_KERNEL);
	set_cr4(vcpu, X86_CR4_PAE);
	cr_assert(!gn_vcpu_write_efer(vcpu, X86_EFER_LME, &gp) && !gp);
	cr_assert(!gn_vcpu_write_cr0(vcpu, X86_CR0_PE | X86_CR0_PG, &gp) && !gp);
	memset(&plain, 0, sizeof(plain));
	cr_assert_eq(gn_vcpu_set_privilege(vcpu, false, false), 0);
	cr_assert_eq(plain.loads, 0, "as it was");
	cr_assert_eq(gn_vcpu_set_privilege(vcpu, false, true), 0);
	cr_assert(plain.loads == 0 && vcpu->view == GN_VIEW_KERNEL_AC, "without SMAP one root");
	cr_assert_eq(gn_vcpu_set_privilege(vcpu, true, true), 0);
	cr_assert(plain.loads == 1 && vcpu->view == GN_VIEW_USER);
	cr_assert_eq(gn_vcpu_set_privilege(vcpu, true, false), 0);
	cr_assert_eq(plain.loads, 1, "AC is nothing to a user");
	set_cr4(vcpu, X86_CR4_PAE | X86_CR4_SMAP);
	cr_assert_eq(gn_vcpu_set_privilege(vcpu, false, true), 0);
	cr_assert_eq(gn_vcpu_set_privilege(vcpu, false, false), 0);
	cr_assert_eq(plain.loads, 3);
	plain.load_error = -ENOMEM;
	cr_assert_eq(gn_vcpu_set_privilege(vcpu, true, false), -ENOMEM);
	cr_assert_eq(vcpu->view, GN_VIEW_KERNEL);
	plain.load_error = 0;
	cr_assert(!gn_vcpu_write_cr4(vcpu, X86_CR4_PAE | X86_CR4_PKE, &gp) && gp, "no keys");
	cr_assert_eq(plain.flushes, plain.guest_flushes, "no flush of the guest's");
}

/* ---- Translation -------------------------------------------------------------------------------------------------------- */

/* By the guest's tables, and not a bit of them changes. */
Test(backend_hooks, translate)
{
	const uint64_t root = 0x1000, va = 0x8040203000;
	struct gn_access a = { .va = gva(va + 0x123), .kind = GN_READ, .size = 8 };
	struct gn_vcpu *vcpu = gn_vm_vcpu(vm, 0);
	uint32_t code = 99;
	gpa_t at = gpa(7);
	uint64_t entry;
	bool gp;

	cr_assert(gn_vcpu_translate(vcpu, &a, &at, &code), "without paging");
	cr_assert_eq(at.v, a.va.v);
	for (unsigned level = 4; level > 1; level--)
		put(root * (5 - level) + 8, root * (6 - level) | X86_PTE_P | X86_PTE_W | X86_PTE_U);
	put(root * 4 + 3 * 8, 0x5000 | X86_PTE_P | X86_PTE_U);
	put(root + 2 * 8, (uint64_t)32 * MIB | X86_PTE_P);
	set_cr4(vcpu, X86_CR4_PAE);
	cr_assert(!gn_vcpu_write_efer(vcpu, X86_EFER_LME | X86_EFER_NXE, &gp) && !gp);
	cr_assert(!gn_vcpu_write_cr3(vcpu, root, &gp) && !gp);
	cr_assert(!gn_vcpu_write_cr0(vcpu, X86_CR0_PE | X86_CR0_PG | X86_CR0_WP, &gp) && !gp);
	cr_assert(gn_vcpu_translate(vcpu, &a, &at, &code));
	cr_assert(at.v == 0x5123 && code == 0);
	a.kind = GN_WRITE;
	a.user = true;
	at = gpa(7);
	cr_assert_not(gn_vcpu_translate(vcpu, &a, &at, &code));
	cr_assert(at.v == 7 && code == (X86_PF_P | X86_PF_W | X86_PF_U));
	a.va = gva(va + GN_PAGE_SIZE);
	cr_assert_not(gn_vcpu_translate(vcpu, &a, &at, &code));
	cr_assert_eq(code, X86_PF_W | X86_PF_U);
	a.va = gva((uint64_t)1 << 62);
	cr_assert_not(gn_vcpu_translate(vcpu, &a, &at, &code));
	cr_assert_eq(code, 0, "#GP");
	code = 99;
	a.va = gva((uint64_t)2 << 39);
	cr_assert_not(gn_vcpu_translate(vcpu, &a, &at, &code));
	cr_assert_eq(code, 0, "a table that is no memory");
	cr_assert_eq(gn_vm_read(vm, gpa(root * 4 + 3 * 8), &entry, 8), 0);
	cr_assert_eq(entry, 0x5000 | X86_PTE_P | X86_PTE_U, "neither A nor D");
}
