/* SPDX-License-Identifier: MIT */
/*
 * entry.c - the one writer: when a change must be flushed, in every format; what it refuses to write; table pages and
 * their budget. And the auditor's tools on tables made by hand.
 */
#include <criterion/criterion.h>

#include <signal.h>
#include <string.h>

#include "mmu/audit.h"
#include "mmu/entry.h"

#include "support/bare_vm.h"

static const struct gn_fmt *const formats[] = { &gn_fmt_x86_4, &gn_fmt_x86_5, &gn_fmt_ept_4,
						&gn_fmt_ept_5, &gn_fmt_npt_4, &gn_fmt_npt_5,
						&gn_fmt_fake };
#define FORMATS (sizeof(formats) / sizeof(formats[0]))

static struct gn_vm *vm_new(uint64_t limit_bytes)
{
	struct gn_vm *vm;

	cr_assert_eq(bare_vm_new((uint64_t)16 << 20, 46, limit_bytes, &vm), 0);
	return vm;
}

/* Both writers say the same. */
static bool flushes(struct gn_vm *vm, const struct gn_fmt *f, unsigned level, uint64_t from,
		    uint64_t to)
{
	uint64_t slot = from, expected = from;
	struct gn_entry_change change = gn_entry_set(vm, f, level, &slot, to);
	bool again = !change.must_flush;

	cr_assert_eq(change.old, from);
	cr_assert_eq(slot, to);
	slot = from;
	cr_assert(gn_entry_cmpxchg(vm, f, level, &slot, &expected, to, &again));
	cr_assert_eq(slot, to);
	cr_assert_eq(again, change.must_flush);
	return again;
}

static void check_leaf_rules(struct gn_vm *vm, const struct gn_fmt *f, unsigned level)
{
	const struct gn_fmt_level *l = &f->level[level];
	pfn_t frame = pfn(0), other = pfn(level == 1 ? 1 : 512);
	uint64_t born = gn_fmt_leaf(f, level, frame, GN_RWXU) | l->accessed | l->dirty;

	for (unsigned from = 0; from <= GN_RWXU; from++)
		for (unsigned to = 0; to <= GN_RWXU; to++) {
			uint64_t a = gn_fmt_leaf(f, level, frame, (gn_rights_t)from) | l->accessed;
			uint64_t b = gn_fmt_leaf(f, level, frame, (gn_rights_t)to) | l->accessed;
			gn_rights_t had = gn_fmt_rights(f, level, a),
				    has = gn_fmt_rights(f, level, b);
			bool want = gn_fmt_is_present(f, level, a) &&
				    (!gn_fmt_is_present(f, level, b) || (had & ~has));

			if (gn_fmt_is_malformed(f, level, a, 52) ||
			    gn_fmt_is_malformed(f, level, b, 52))
				continue;
			cr_assert_eq(flushes(vm, f, level, a, b), want, "%s level %u: %x to %x",
				     f->name, level, from, to);
		}
	cr_assert(!flushes(vm, f, level, 0, born));
	cr_assert(flushes(vm, f, level, born, 0));
	cr_assert(!flushes(vm, f, level, born, born));
	cr_assert(flushes(vm, f, level, born,
			  gn_fmt_leaf(f, level, other, GN_RWXU) | l->accessed | l->dirty),
		  "%s level %u: another frame", f->name, level);
	/* A and D: set freely, taken away with a flush. */
	cr_assert(!flushes(vm, f, level, born & ~(l->accessed | l->dirty), born));
	cr_assert(flushes(vm, f, level, born, born & ~l->accessed));
	cr_assert(flushes(vm, f, level, born, born & ~l->dirty));
	cr_assert(!flushes(vm, f, level, born, born | l->software));
	cr_assert(!flushes(vm, f, level, born | l->software, born));
	if (l->global)
		cr_assert(flushes(vm, f, level, born | l->global, born));
	if (l->pkey)
		cr_assert(flushes(vm, f, level, born, born | gn_fmt_pkey_bits(f, level, 5)));
}

static void check_table_rules(struct gn_vm *vm, const struct gn_fmt *f, unsigned level)
{
	uint64_t table = gn_fmt_table(f, level, pfn(1), GN_RWXU) | f->level[level].accessed;
	uint64_t less = gn_fmt_table(f, level, pfn(1), GN_R | GN_U) | f->level[level].accessed;

	cr_assert(flushes(vm, f, level, table,
			  gn_fmt_table(f, level, pfn(2), GN_RWXU) | f->level[level].accessed));
	cr_assert(flushes(vm, f, level, table, less), "%s level %u", f->name, level);
	cr_assert(!flushes(vm, f, level, less, table));
	if (f->level[level].leaf_allowed && level == 2) {
		uint64_t leaf = gn_fmt_leaf(f, level, pfn(0), GN_RWXU) | f->level[level].accessed;

		table = gn_fmt_table(f, level, pfn(0), GN_RWXU) | f->level[level].accessed;
		cr_assert(flushes(vm, f, level, table, leaf), "%s: table to leaf", f->name);
		cr_assert(flushes(vm, f, level, leaf, table), "%s: leaf to table", f->name);
	}
}

Test(entry, flush_when_and_only_when)
{
	struct gn_vm *vm = vm_new(0);

	for (unsigned i = 0; i < FORMATS; i++)
		for (unsigned level = 1; level <= formats[i]->levels; level++) {
			if (level <= 2)
				check_leaf_rules(vm, formats[i], level);
			if (level > 1)
				check_table_rules(vm, formats[i], level);
		}
	gn_vm_destroy(vm);
}

Test(entry, cmpxchg_tells_what_is_there)
{
	struct gn_vm *vm = vm_new(0);
	uint64_t slot = gn_fmt_leaf(&gn_fmt_x86_4, 1, pfn(1), GN_RWX), expected = 0;
	bool flush = true;

	cr_assert(!gn_entry_cmpxchg(vm, &gn_fmt_x86_4, 1, &slot, &expected, 0, &flush));
	cr_assert_eq(expected, gn_fmt_leaf(&gn_fmt_x86_4, 1, pfn(1), GN_RWX));
	cr_assert_eq(gn_entry_get(&slot), expected);
	gn_vm_destroy(vm);
}

Test(entry, software_bits_are_distinct)
{
	for (unsigned i = 0; i < FORMATS; i++)
		for (unsigned level = 1; level <= formats[i]->levels; level++) {
			uint64_t seen = 0;

			for (unsigned bit = 0; bit < GN_SW_BITS; bit++) {
				uint64_t mask = gn_entry_software(formats[i], level, bit);

				cr_assert_eq(__builtin_popcountll(mask), 1);
				cr_assert(mask & formats[i]->level[level].software);
				cr_assert(!(mask & seen));
				seen |= mask;
			}
		}
}

Test(entry, outside_the_pool_is_a_bug, .signal = SIGABRT)
{
	struct gn_vm *vm = vm_new(0);
	uint64_t slot = 0;

	gn_entry_set(vm, &gn_fmt_ept_4, 1, &slot,
		     gn_fmt_leaf(&gn_fmt_ept_4, 1, pfn(vm->frames->frame_count), GN_R));
}

Test(entry, a_leaf_half_outside_is_a_bug, .signal = SIGABRT)
{
	struct gn_vm *vm = vm_new(0);
	uint64_t slot = 0;

	gn_entry_set(vm, &gn_fmt_ept_4, 3, &slot, gn_fmt_leaf(&gn_fmt_ept_4, 3, pfn(0), GN_R));
}

Test(entry, malformed_is_a_bug, .signal = SIGABRT)
{
	struct gn_vm *vm = vm_new(0);
	uint64_t slot = 0;

	gn_entry_set(vm, &gn_fmt_ept_4, 1, &slot, gn_fmt_leaf(&gn_fmt_ept_4, 1, pfn(1), GN_W));
}

Test(entry, table_pages_are_counted_and_limited)
{
	struct gn_vm *vm = vm_new(4 * GN_PAGE_SIZE);
	struct gn_table_usage usage;
	pfn_t table[5] = { { 0 } };

	for (unsigned i = 0; i < 4; i++) {
		uint64_t *slots;

		cr_assert_eq(gn_table_new(vm, &table[i]), 0);
		slots = gn_table_entries(vm, table[i]);
		for (unsigned j = 0; j < GN_TABLE_ENTRIES; j++)
			cr_assert_eq(slots[j], 0);
		memset(slots, 0xff, GN_PAGE_SIZE);
		cr_assert_eq(vm->table_pages, i + 1);
	}
	table[4] = pfn(0x1234);
	cr_assert_eq(gn_table_new(vm, &table[4]), -ENOMEM);
	cr_assert_eq(table[4].v, 0x1234);
	cr_assert_eq(vm->table_pages, 4);
	gn_vm_table_usage(vm, &usage);
	cr_assert_eq(usage.frames_bytes, 4 * GN_PAGE_SIZE);
	cr_assert_geq(usage.peak_bytes, 4 * GN_PAGE_SIZE);
	gn_table_retire(vm, table[0]);
	cr_assert_eq(vm->table_pages, 3);
	gn_retire_drain(vm);
	/* The frame comes again, and clean. */
	cr_assert_eq(gn_table_new(vm, &table[4]), 0);
	cr_assert_eq(table[4].v, table[0].v);
	cr_assert_eq(gn_table_entries(vm, table[4])[7], 0);
	cr_assert_eq(gn_table_new(vm, &table[0]), -ENOMEM);
	for (unsigned i = 1; i < 5; i++)
		gn_table_retire(vm, table[i]);
	gn_vm_table_usage(vm, &usage);
	cr_assert_eq(usage.frames_bytes, 0);
	cr_assert_geq(usage.peak_bytes, 4 * GN_PAGE_SIZE);
	gn_vm_destroy(vm);
}

Test(entry, a_table_that_cannot_be_had)
{
	struct gn_vm *vm = vm_new(0);
	pfn_t table = pfn(77);

	gn_alloc_fail_nth(1);
	cr_assert_eq(gn_table_new(vm, &table), -ENOMEM);
	cr_assert_eq(table.v, 77);
	cr_assert_eq(vm->table_pages, 0);
	gn_vm_destroy(vm);
}

/* ---- The auditor --------------------------------------------------------------------------------------- */

struct visits {
	uint64_t count, leaves, last_address;
};

static void visit(void *ctx, unsigned level, uint64_t address, uint64_t *slot, uint64_t entry)
{
	struct visits *v = ctx;

	cr_assert_eq(*slot, entry);
	v->count++;
	if (level == 1) {
		v->leaves++;
		v->last_address = address;
	}
}

static void build(struct gn_vm *vm, const struct gn_fmt *f, pfn_t *table, uint64_t address)
{
	for (unsigned level = f->levels; level >= 1; level--) {
		uint64_t *slot =
			gn_table_entries(vm, table[level]) + gn_fmt_index(f, level, address);

		gn_entry_set(vm, f, level, slot,
			     level > 1 ? gn_fmt_table(f, level, table[level - 1], GN_RWXU)
				       : gn_fmt_leaf(f, level, table[1], GN_R | GN_U));
	}
}

Test(audit, walks_every_entry_once)
{
	struct gn_vm *vm = vm_new(0);

	for (unsigned i = 0; i < FORMATS; i++) {
		const struct gn_fmt *f = formats[i];
		struct gn_audit_report report = { 0 };
		struct visits v = { 0 };
		pfn_t table[GN_MAX_LEVELS + 1];
		unsigned top = gn_level_shift(f->levels + 1);
		uint64_t high = ((uint64_t)1 << top) - GN_PAGE_SIZE;

		for (unsigned level = 1; level <= f->levels; level++)
			cr_assert_eq(gn_table_new(vm, &table[level]), 0);
		build(vm, f, table, 0x5000);
		build(vm, f, table, high);
		gn_audit_walk_table(vm, f, pfn_to_hpa(table[f->levels]), visit, &v, &report);
		cr_assert_eq(report.violations, 0, "%s: %s", f->name, report.first);
		/* Two ways of `levels` entries that share the lower tables: each table is seen once a way. */
		cr_assert_eq(v.leaves, (uint64_t)1 << f->levels, "%s: %lu leaves", f->name,
			     v.leaves);
		cr_assert_eq(report.entries, v.count);
		cr_assert_eq(v.last_address, f->sign_extended ? high | ~(uint64_t)0 << top : high,
			     "%s: %#lx", f->name, v.last_address);
		for (unsigned level = 1; level <= f->levels; level++)
			gn_table_retire(vm, table[level]);
	}
	gn_vm_destroy(vm);
}

Test(audit, bad_tables_are_told)
{
	struct gn_vm *vm = vm_new(0);
	const struct gn_fmt *f = &gn_fmt_ept_4;
	struct gn_audit_report report = { 0 };
	struct visits v = { 0 };
	pfn_t root;
	uint64_t *slots;

	cr_assert_eq(gn_table_new(vm, &root), 0);
	slots = gn_table_entries(vm, root);
	gn_audit_walk_table(vm, f, pfn_to_hpa(pfn(vm->frames->frame_count)), visit, &v, &report);
	cr_assert_eq(report.violations, 1);
	slots[0] = gn_fmt_table(f, 4, pfn(vm->frames->frame_count), GN_RWX);
	slots[1] = gn_fmt_table(f, 4, root, GN_W); /* W without R */
	slots[2] = gn_fmt_table(f, 4, pfn(0), GN_RWX);
	memset(&report, 0, sizeof(report));
	gn_audit_walk_table(vm, f, pfn_to_hpa(root), visit, &v, &report);
	cr_assert_eq(report.violations, 3, "%lu: %s", report.violations, report.first);
	cr_assert(strstr(report.first, "outside"), "%s", report.first);
	cr_assert_eq(v.count, 2);
	gn_table_retire(vm, root);
	gn_vm_destroy(vm);
}

static void poke(struct gn_vm *vm, uint64_t at, uint64_t word)
{
	atomic_store(&vm->p2m.words[at], word);
}

/* Each corruption of the p2m is found, and undone it is clean again. */
Test(audit, a_corrupt_p2m_is_told)
{
	struct gn_vm *vm = vm_new(0);
	struct gn_audit_report report;
	uint64_t good[8], bad[8];

	cr_assert_eq(gn_audit(vm, &report), 0);
	cr_assert_eq(gn_p2m_populate(vm, gfn(0), 4), 0);
	cr_assert_eq(gn_audit(vm, &report), 0, "%s", report.first);
	for (unsigned i = 0; i < 8; i++)
		good[i] = gn_p2m_get(&vm->p2m, gfn(i)).v;
	bad[0] = gn_p2m_word(GN_P2M_PRIVATE, GN_RWX, 1, pfn(vm->frames->frame_count))
			 .v; /* outside */
	bad[1] = gn_p2m_word(GN_P2M_PRIVATE, GN_RWX, 1, pfn(vm->frames->frame_count - 1))
			 .v; /* free */
	bad[2] = good[3];    /* named twice */
	bad[3] = gn_p2m_word(GN_P2M_READONLY, GN_RWX, 1,
			     gn_p2m_word_pfn(gn_p2m_get(&vm->p2m, gfn(3))))
			 .v;
	bad[4] = 7;			  /* no state */
	bad[5] = 1 << GN_P2M_LEVEL_SHIFT; /* a level, no frame */
	bad[6] = good[0];		  /* one more backed than counted */
	bad[7] = GN_P2M_STATES;
	for (unsigned i = 0; i < 8; i++) {
		poke(vm, i, bad[i]);
		cr_assert_eq(gn_audit(vm, &report), -EBADMSG, "corruption %u", i);
		cr_assert_geq(report.violations, 1);
		cr_assert_neq(report.first[0], 0);
		poke(vm, i, good[i]);
		cr_assert_eq(gn_audit(vm, &report), 0, "%s", report.first);
	}
	/* A word that claims a block it is not part of. */
	poke(vm, 1,
	     (good[1] & ~((uint64_t)3 << GN_P2M_LEVEL_SHIFT)) | (uint64_t)2 << GN_P2M_LEVEL_SHIFT);
	cr_assert_eq(gn_audit(vm, &report), -EBADMSG);
	poke(vm, 1, good[1]);
	gn_vm_destroy(vm);
}

/* Every way in which a word can fail to be part of the block it claims. */
Test(audit, a_broken_block_is_told)
{
	const struct gn_vm_config config = {
		.scheme = "bare", .mem_bytes = (uint64_t)9 << 20, .vcpus = 1, .backing_level = 2
	};
	struct gn_audit_report report;
	struct gn_vm *vm = vm_new(0);
	uint64_t step = (uint64_t)1 << GN_P2M_PFN_SHIFT,
		 level_mask = (uint64_t)3 << GN_P2M_LEVEL_SHIFT, good, last;

	gn_vm_destroy(vm); /* only to have the scheme registered */
	cr_assert_eq(gn_vm_create(&config, &vm), 0);
	cr_assert_eq(gn_p2m_populate(vm, gfn(0), 9 * 256), 0);
	cr_assert_eq(gn_p2m_word_level(gn_p2m_get(&vm->p2m, gfn(0))), 2);
	cr_assert_eq(gn_p2m_word_level(gn_p2m_get(&vm->p2m, gfn(9 * 256 - 1))), 1);
	cr_assert_eq(gn_audit(vm, &report), 0, "%s", report.first);
	for (unsigned i = 0; i < 1024; i += 511) {
		good = gn_p2m_get(&vm->p2m, gfn(i)).v;
		for (unsigned damage = 0; damage < 3; damage++) {
			uint64_t bad =
				damage == 0 ? good ^ step
				: damage == 1
					? (good & ~level_mask) | (uint64_t)1 << GN_P2M_LEVEL_SHIFT
					: good & ~((uint64_t)GN_W << GN_P2M_RIGHTS_SHIFT);

			poke(vm, i, bad);
			cr_assert_eq(gn_audit(vm, &report), -EBADMSG, "gfn %u damage %u", i,
				     damage);
			poke(vm, i, good);
		}
	}
	/* The last, half block of RAM cannot be one. */
	last = 9 * 256 - 1;
	good = gn_p2m_get(&vm->p2m, gfn(last)).v;
	poke(vm, last, (good & ~level_mask) | (uint64_t)2 << GN_P2M_LEVEL_SHIFT);
	cr_assert_eq(gn_audit(vm, &report), -EBADMSG);
	poke(vm, last, good);
	cr_assert_eq(gn_audit(vm, &report), 0, "%s", report.first);
	gn_vm_destroy(vm);
}

static void audit_of_scheme(struct gn_vm *vm, struct gn_audit_report *report)
{
	report->tables = vm->config.vcpus;
	gn_audit_fail(report, "the scheme's own");
}

Test(audit, the_scheme_is_asked)
{
	struct gn_vm *vm = vm_new(0);
	struct gn_scheme_ops ops = bare_scheme;
	const struct gn_scheme_ops *real = vm->ops;
	struct gn_audit_report report = { .violations = 99, .tables = 99 };

	cr_assert_eq(gn_audit(vm, &report), 0);
	cr_assert(report.violations == 0 && report.tables == 0);
	ops.audit = audit_of_scheme;
	vm->ops = &ops;
	cr_assert_eq(gn_audit(vm, &report), -EBADMSG);
	cr_assert_eq(report.tables, 1);
	cr_assert_str_eq(report.first, "the scheme's own");
	vm->ops = real;
	gn_vm_destroy(vm);
}

Test(audit, needs_memory_and_says_so)
{
	struct gn_vm *vm = vm_new(0);
	struct gn_audit_report report;

	gn_alloc_fail_nth(1);
	cr_assert_eq(gn_audit(vm, &report), -ENOMEM);
	cr_assert_eq(gn_audit(vm, &report), 0);
	gn_vm_destroy(vm);
}

static uint64_t logged;

static void log_line(void *ctx, enum gn_log_level level, const char *text)
{
	(void)ctx;
	(void)level;
	logged += strstr(text, "first of them 1") != NULL;
}

Test(audit, the_first_violation_is_kept_and_logged)
{
	struct gn_audit_report report = { 0 };

	gn_log_set(log_line, NULL);
	gn_audit_fail(&report, "first of them %d", 1);
	gn_audit_fail(&report, "second");
	gn_log_set(NULL, NULL);
	cr_assert_eq(report.violations, 2);
	cr_assert_str_eq(report.first, "first of them 1");
	cr_assert_eq(logged, 1);
}
