/* SPDX-License-Identifier: MIT */
/*
 * repro_walkrefs.c - how many entries a page walk reads when every cache is cold.
 *
 * A guest walk of g entries in a nested machine whose walks read h entries makes (g + 1)(h + 1) - 1
 * references: each of the g guest entries, and the datum, must be translated first. For one dimension the
 * count is g. Every geometry of 4 and 5 levels and leaves of 4 KiB, 2 MiB and 1 GiB is run on the machine:
 * one access to make the tables, everything cold, one access counted. The CPU is the preset without walk caches:
 * a real one fills them during the very walk that is counted.
 *
 * Published: Bhargava et al., ASPLOS 2008 (24 for 4 on 4 levels, 4 KiB; large leaves by the same formula).
 */
#include "repro.h"

#include <errno.h>
#include <stdio.h>

#include "guest_tables.h"
#include "table.h"

struct geometry {
	const char *scheme;
	unsigned guest_levels, guest_leaf, nested_levels, nested_leaf;
};

static const gva_t probe_va = { 0x140000000 };	 /* 5 GiB: not index 0 everywhere */
static const gpa_t area = { 0x200000 };		 /* tables */
static const gpa_t data = { (uint64_t)1 << 30 }; /* the page: aligned for every leaf */
static const uint64_t mem_bytes = (uint64_t)2 << 30;

static int access_once(struct gn_soft_cpu *cpu)
{
	const struct gn_access access = { .va = probe_va, .kind = GN_READ, .size = 8 };
	struct gn_soft_outcome outcome;
	uint64_t value;
	int err = gn_soft_probe(cpu, &access, &value, &outcome);

	return err ? err : outcome.faulted ? -EFAULT : 0;
}

static void guest_main(struct gn_soft_cpu *cpu, void *context)
{
	guest_tables_load_soft(context, cpu);
}

/* References of one cold walk, or -errno. */
static int count_refs(const struct geometry *g)
{
	const struct gn_soft_config config = {
		.vm = { .scheme = g->scheme,
			.mem_bytes = mem_bytes,
			.pool_bytes = mem_bytes + ((uint64_t)2 << 30), /* room for aligned blocks */
			.vcpus = 1,
			.backing_level = g->nested_leaf,
			.max_leaf_level = g->nested_leaf,
			.nested_levels = g->nested_levels },
		.cpu = gn_cpu_preset_find("textbook"),
		.seed = 1,
	};
	struct guest_tables tables;
	struct gn_counters counters;
	struct gn_soft *soft;
	int err = gn_soft_create(&config, &soft);

	if (err)
		return err;
	err = guest_tables_init(&tables, gn_soft_vm(soft), g->guest_levels, area, 1 << 20);
	if (!err)
		err = guest_tables_map(&tables, probe_va, data, g->guest_leaf, 1);
	if (!err)
		err = gn_soft_run(gn_soft_cpu(soft, 0), guest_main, &tables);
	if (!err)
		err = access_once(gn_soft_cpu(soft, 0));
	if (!err) {
		gn_soft_cold(gn_soft_cpu(soft, 0), true);
		gn_soft_counters_reset(soft);
		err = access_once(gn_soft_cpu(soft, 0));
	}
	gn_soft_counters(soft, &counters);
	gn_soft_destroy(soft);
	if (!err && counters.walks != 1)
		return -EIO; /* one access, one walk: a retry would mean the tables were not complete */
	return err ? err : (int)counters.walk_refs;
}

/* 0: no figure of this geometry is known to us as published. */
static int published(const struct geometry *g, bool nested)
{
	static const struct {
		unsigned guest_levels, guest_leaf, nested_levels, nested_leaf;
		int refs;
	} known[] = {
		{ 4, 1, 4, 1, 24 }, { 4, 1, 4, 2, 19 }, { 4, 1, 4, 3, 14 }, { 4, 2, 4, 1, 19 },
		{ 4, 2, 4, 2, 15 }, { 4, 2, 4, 3, 11 }, { 4, 3, 4, 1, 14 }, { 4, 3, 4, 2, 11 },
		{ 4, 3, 4, 3, 8 },  { 5, 1, 5, 1, 35 }, { 5, 1, 4, 1, 29 },
	};

	if (!nested)
		return g->guest_levels == 4 ? 5 - (int)g->guest_leaf : 0;
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (known[i].guest_levels == g->guest_levels &&
		    known[i].guest_leaf == g->guest_leaf &&
		    known[i].nested_levels == g->nested_levels &&
		    known[i].nested_leaf == g->nested_leaf)
			return known[i].refs;
	return 0;
}

static const char *leaf_name(unsigned level)
{
	static const char *const names[] = { "", "4K", "2M", "1G" };

	return names[level];
}

/* 0: equal; 1: differs; -errno. */
static int check_geometry(const struct geometry *g, bool nested, struct table *t)
{
	unsigned guest = g->guest_levels - g->guest_leaf + 1;
	unsigned host = g->nested_levels - g->nested_leaf + 1;
	int expected = nested ? (int)((guest + 1) * (host + 1) - 1) : (int)guest;
	int refs = count_refs(g), theirs = published(g, nested);

	if (refs < 0)
		return refs;
	table_cell(t, TABLE_PLAIN, "%s", g->scheme);
	table_cell(t, TABLE_PLAIN, "%u x %s", g->guest_levels, leaf_name(g->guest_leaf));
	if (nested)
		table_cell(t, TABLE_PLAIN, "%u x %s", g->nested_levels, leaf_name(g->nested_leaf));
	else
		table_cell(t, TABLE_DIM, "-");
	table_cell(t, refs == expected ? TABLE_BEST : TABLE_BAD, "%d", refs);
	table_cell(t, TABLE_PLAIN, "%d", expected);
	if (theirs)
		table_cell(t, TABLE_PLAIN, "%d", theirs);
	else
		table_cell(t, TABLE_DIM, "-");
	table_cell(t, refs == expected ? TABLE_PLAIN : TABLE_BAD, "%s",
		   refs == expected ? "equal" : "DIFFERS");
	return refs != expected;
}

static int check_scheme(const char *scheme, bool nested, struct table *t, unsigned *checked)
{
	int differs = 0;

	for (unsigned guest_levels = 4; guest_levels <= 5; guest_levels++)
		for (unsigned guest_leaf = 1; guest_leaf <= 3; guest_leaf++)
			for (unsigned nested_levels = 4; nested_levels <= (nested ? 5 : 4);
			     nested_levels++)
				for (unsigned nested_leaf = 1; nested_leaf <= 3; nested_leaf++) {
					/* Shadow leaves are as large as both sides allow, so the
					 * guest's leaf decides when the host's is as large. */
					const struct geometry g = { scheme, guest_levels,
								    guest_leaf, nested_levels,
								    nested ? nested_leaf
									   : guest_leaf };
					int result = check_geometry(&g, nested, t);

					if (result < 0)
						return result;
					differs |= result;
					(*checked)++;
					if (!nested)
						break;
				}
	return differs;
}

static int run(bool colour)
{
	static const struct {
		const char *scheme;
		bool nested;
	} schemes[] = {
		{ "native", false }, { "shadow", false }, { "ept", true }, { "npt", true }
	};
	unsigned checked = 0;
	struct table t;
	int differs = 0;

	table_init(&t, 7, 1 | 1 << 6);
	table_cell(&t, TABLE_HEAD, "scheme");
	table_cell(&t, TABLE_HEAD, "guest");
	table_cell(&t, TABLE_HEAD, "nested");
	table_cell(&t, TABLE_HEAD, "counted");
	table_cell(&t, TABLE_HEAD, "closed form");
	table_cell(&t, TABLE_HEAD, "published");
	table_cell(&t, TABLE_HEAD, "%s", "");
	for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]) && differs >= 0; i++) {
		int result = check_scheme(schemes[i].scheme, schemes[i].nested, &t, &checked);

		differs = result < 0 ? result : differs | result;
	}
	if (differs >= 0) {
		table_print(&t, stdout, colour);
		printf("\n%u geometries, %s. Guest and nested: levels x leaf. Counted on the "
		       "software "
		       "machine, cold, preset textbook.\nPublished: Bhargava et al., ASPLOS 2008, "
		       "and its "
		       "closed form (g+1)(h+1)-1.\n",
		       checked, differs ? "NOT all equal" : "all equal to the closed form");
	}
	table_fini(&t);
	return differs;
}

const struct repro repro_walkrefs = { "walkrefs", "entries read by one page walk, nothing cached",
				      run };
