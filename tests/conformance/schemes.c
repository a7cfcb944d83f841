/* SPDX-License-Identifier: MIT */
/*
 * schemes.c - one suite, run over every registered scheme: what a guest does to its tables and registers.
 *
 * What a guest may rely on does not depend on how its memory is translated. Each scenario below is guest
 * code run under every scheme, with several shapes of host backing and guest paging; the rig holds each
 * access against the oracle and audits after it. A new scheme is covered by registering it. What the host
 * does to a running guest is in schemes_host.c.
 */
#include "conformance/schemes_rig.h"

/* ---- Guest tables ------------------------------------------------------------------------------- */

SCENARIO(map_unmap_protect)
{
	uint64_t va = USER + 0x5000, pde_table;

	touch(rig, va);
	map(rig, rig->root, va, 1, DATA, RW_U);
	touch(rig, va);
	store(rig, va, 0x1111);
	EXPECT(rig, load(rig, WINDOW + (DATA << GN_PAGE_SHIFT)) == 0x1111);
	map(rig, rig->root, va, 1, DATA + 1, RW_U); /* another frame */
	invlpg(rig, va);
	EXPECT(rig, load(rig, va) == 0);
	map(rig, rig->root, va, 1, DATA, X86_PTE_P | X86_PTE_U); /* read-only */
	invlpg(rig, va);
	touch(rig, va);
	EXPECT(rig, load(rig, va) == 0x1111);
	map(rig, rig->root, va, 1, DATA, RW_U | X86_PTE_NX);
	invlpg(rig, va);
	touch(rig, va);
	map(rig, rig->root, va, 1, DATA, X86_PTE_P | X86_PTE_W); /* kernel only */
	invlpg(rig, va);
	touch(rig, va);
	set_leaf(rig, rig->root, va, 1, 0);
	invlpg(rig, va);
	touch(rig, va);
	map(rig, rig->root, va, 1, DATA, RW_U); /* absent to present needs no flush */
	touch(rig, va);
	/* The same at the level above, for the whole table. */
	pde_table = table_for(rig, rig->root, va, 2);
	put(rig, pde_table, index_of(va, 2), get(rig, pde_table, index_of(va, 2)) & ~X86_PTE_W);
	reload_root(rig);
	touch(rig, va);
	put(rig, pde_table, index_of(va, 2), 0);
	reload_root(rig);
	touch(rig, va);
}

SCENARIO(switches_of_cr3)
{
	uint64_t other = new_root(rig), va = USER;

	map(rig, rig->root, va, 1, DATA, RW_U);
	map(rig, other, va, 1, DATA + 1, RW_U);
	for (unsigned i = 0; i < 4; i++) {
		store(rig, va, 0xa0 + i);
		load_root(rig, other);
		store(rig, va, 0xb0 + i);
		load_root(rig, rig->root);
		EXPECT(rig, load(rig, va) == 0xa0 + i);
	}
	/* The other address space ends; its root becomes data, and then another root. */
	map(rig, rig->root, va + 0x1000, 1, other, RW_U);
	for (unsigned i = 0; i < 64; i++)
		access_as(rig, va + 0x1000 + i * 8, GN_WRITE, true, 0x1234567 * i);
	for (unsigned i = 0; i < GN_TABLE_ENTRIES; i++)
		access_as(rig, va + 0x1000 + i * 8, GN_WRITE, true, 0);
	put(rig, other, index_of(WINDOW, rig->setup->guest_levels),
	    get(rig, rig->root, index_of(WINDOW, rig->setup->guest_levels)));
	load_root(rig, other);
	touch(rig, va);
	map(rig, other, va, 1, DATA + 2, RW_U);
	touch(rig, va);
}

SCENARIO(pcids)
{
	uint64_t other = new_root(rig), va = USER;
	uint64_t one = rig->root << GN_PAGE_SHIFT | 1, two = other << GN_PAGE_SHIFT | 2;

	map(rig, rig->root, va, 1, DATA, RW_U);
	map(rig, other, va, 1, DATA + 1, RW_U);
	gn_soft_write_cr4(rig->cpu, gn_vcpu_regs(vcpu_of(rig))->cr4 | X86_CR4_PCIDE);
	for (unsigned type = 0; type < 4; type++) {
		gn_soft_write_cr3(rig->cpu, one | X86_CR3_NOFLUSH);
		store(rig, va, 0xa0);
		gn_soft_write_cr3(rig->cpu, two | X86_CR3_NOFLUSH);
		store(rig, va, 0xb0);
		gn_soft_write_cr3(rig->cpu, one | X86_CR3_NOFLUSH);
		EXPECT(rig, load(rig, va) == 0xa0);
		gn_soft_write_cr3(rig->cpu, two | X86_CR3_NOFLUSH);
		/* Change the space we are not in, and say so. */
		map(rig, rig->root, va, 1, DATA + 2 + type, RW_U);
		gn_soft_invpcid(rig->cpu, type, type < 2 ? 1 : 0, gva(va));
		gn_soft_write_cr3(rig->cpu, one | X86_CR3_NOFLUSH);
		EXPECT(rig, load(rig, va) == 0);
		touch(rig, va);
		map(rig, rig->root, va, 1, DATA, RW_U);
		invlpg(rig, va);
		touch(rig, va);
	}
	/* Without NOFLUSH a load of CR3 drops its own tag. */
	map(rig, rig->root, va, 1, DATA + 7, RW_U);
	gn_soft_write_cr3(rig->cpu, one);
	touch(rig, va);
}

SCENARIO(global_pages)
{
	uint64_t other, va = WINDOW + ((uint64_t)1 << 30);

	map(rig, rig->root, va, 1, DATA, X86_PTE_P | X86_PTE_W | X86_PTE_G);
	other = new_root(rig);
	load_root(rig, other);
	touch(rig, va);
	map(rig, other, va, 1, DATA + 1, X86_PTE_P | X86_PTE_W | X86_PTE_G);
	invlpg(rig, va);
	touch(rig, va);
	load_root(rig, rig->root);
	touch(rig, va);
	map(rig, rig->root, va, 1, DATA + 2, X86_PTE_P | X86_PTE_G);
	gn_soft_invpcid(rig->cpu, X86_INVPCID_ALL_GLOBAL, 0, gva(0));
	touch(rig, va);
	set_leaf(rig, rig->root, va, 1, 0);
	gn_soft_write_cr4(rig->cpu, gn_vcpu_regs(vcpu_of(rig))->cr4 & ~X86_CR4_PGE);
	touch(rig, va);
}

/* ---- Large pages -------------------------------------------------------------------------------- */

SCENARIO(large_pages)
{
	static const uint64_t offsets[] = { 0, 0x1000, 0xff000, 0x1ff000 };
	uint64_t va = USER + ((uint64_t)2 << 21), small = USER + ((uint64_t)8 << 21);
	uint64_t table, pd;

	map(rig, rig->root, va, 2, 1024, RW_U);
	for (unsigned i = 0; i < 4; i++)
		touch(rig, va + offsets[i]);
	map(rig, rig->root, va, 2, 1024, X86_PTE_P | X86_PTE_U);
	invlpg(rig, va + 0x3000);
	for (unsigned i = 0; i < 4; i++)
		touch(rig, va + offsets[i]);
	/* One entry, in turn a leaf and a table of the same gfn's pages in another order. */
	map(rig, rig->root, small, 1, 1030, RW_U);
	table = table_for(rig, rig->root, small, 1);
	pd = table_for(rig, rig->root, va, 2);
	for (unsigned i = 0; i < 4; i++) {
		put(rig, table, index_of(va + offsets[i], 1),
		    (uint64_t)(1024 + 7 * i) << GN_PAGE_SHIFT | RW_U);
	}
	for (unsigned round = 0; round < 3; round++) {
		put(rig, pd, index_of(va, 2), table << GN_PAGE_SHIFT | RW_U);
		reload_root(rig);
		for (unsigned i = 0; i < 4; i++)
			touch(rig, va + offsets[i]);
		map(rig, rig->root, va, 2, 1024, round ? X86_PTE_P : RW_U);
		reload_root(rig);
		for (unsigned i = 0; i < 4; i++)
			touch(rig, va + offsets[i]);
	}
	/* A leaf of the gfn the table itself has: the table's page lies inside the large page. */
	put(rig, pd, index_of(va, 2), RW_U | X86_PTE_PS);
	reload_root(rig);
	touch(rig, va + 0x100010);
	access_as(rig, va + entry_at(table, 9), GN_WRITE, true,
		  (uint64_t)1500 << GN_PAGE_SHIFT | RW_U);
	touch(rig, small + 0x9000);
	/* A leaf of 1 GiB, most of it beyond RAM. */
	map(rig, rig->root, USER + ((uint64_t)4 << 30), 3, 0, RW_U);
	touch(rig, USER + ((uint64_t)4 << 30) + (DATA << GN_PAGE_SHIFT));
	touch(rig, USER + ((uint64_t)4 << 30) + RAM_BYTES - 8);
	access_as(rig, USER + ((uint64_t)4 << 30) + RAM_BYTES, GN_READ, true, 0);
	access_as(rig, USER + ((uint64_t)5 << 30) - 8, GN_WRITE, true, 1);
}

/* One table reached with different rights; two large leaves of one block with different rights. */
SCENARIO(shared_tables_and_blocks)
{
	uint64_t va = USER, ro = USER + ((uint64_t)1 << 30), kernel = USER + ((uint64_t)2 << 30);
	uint64_t pd, top;

	map(rig, rig->root, va, 1, DATA, RW_U);
	map(rig, rig->root, va + 0x1000, 1, DATA + 1, X86_PTE_P | X86_PTE_U);
	pd = table_for(rig, rig->root, va, 2);
	top = table_for(rig, rig->root, va, 3);
	put(rig, top, index_of(ro, 3), pd << GN_PAGE_SHIFT | X86_PTE_P | X86_PTE_U);
	put(rig, top, index_of(kernel, 3),
	    pd << GN_PAGE_SHIFT | X86_PTE_P | X86_PTE_W | X86_PTE_NX);
	for (unsigned i = 0; i < 3; i++) {
		touch(rig, ro + i * 0x1000);
		touch(rig, kernel + i * 0x1000);
		touch(rig, va + i * 0x1000);
	}
	map(rig, rig->root, va + 0x2000, 1, DATA + 2, RW_U);
	for (unsigned i = 0; i < 3; i++) {
		touch(rig, va + i * 0x1000);
		touch(rig, ro + i * 0x1000);
		touch(rig, kernel + i * 0x1000);
	}
	map(rig, rig->root, va + ((uint64_t)4 << 21), 2, 1024, RW_U);
	map(rig, rig->root, va + ((uint64_t)5 << 21), 2, 1024, X86_PTE_P | X86_PTE_U);
	map(rig, rig->root, va + ((uint64_t)6 << 21), 2, 1024, X86_PTE_P | X86_PTE_W | X86_PTE_NX);
	for (unsigned i = 0; i < 9; i++)
		touch(rig, va + ((uint64_t)(4 + i % 3) << 21) + (uint64_t)(i / 3) * 0x1000);
}

/* ---- Rights ------------------------------------------------------------------------------------- */

static uint64_t combination(unsigned i)
{
	return X86_PTE_P | (i & 1 ? X86_PTE_W : 0) | (i & 2 ? X86_PTE_U : 0) |
	       (i & 4 ? X86_PTE_NX : 0);
}

static void touch_with_ac(struct rig *rig, uint64_t va)
{
	for (unsigned i = 0; i < 18; i++) {
		struct gn_access a = { .va = gva(va),
				       .kind = i % 3,
				       .size = 8,
				       .user = i / 3 % 3 == 1,
				       .ac = i >= 9,
				       .implicit = i / 3 % 3 == 2 && i % 3 != GN_FETCH };

		access_full(rig, a, i);
	}
}

/* Leaf rights x rights above x WP, SMEP, SMAP, PKE x access. */
SCENARIO(rights)
{
	for (unsigned up = 0; up < 8; up++)
		for (unsigned leaf = 0; leaf < 8; leaf++) {
			uint64_t va =
				USER + ((uint64_t)up << 21) + ((uint64_t)leaf << GN_PAGE_SHIFT);

			map(rig, rig->root, va, 1, DATA + up * 8 + leaf,
			    combination(leaf) | (uint64_t)(leaf & 3) << X86_PTE_PKEY_SHIFT);
		}
	for (unsigned up = 0; up < 8; up++) {
		uint64_t va = USER + ((uint64_t)up << 21), pd = table_for(rig, rig->root, va, 2);

		put(rig, pd, index_of(va, 2),
		    (get(rig, pd, index_of(va, 2)) & X86_PTE_ADDR) | combination(up));
	}
	rig->seldom = true;
	for (unsigned mode = 0; mode < 16; mode++) {
		uint64_t cr4 = gn_vcpu_regs(vcpu_of(rig))->cr4 &
			       ~(X86_CR4_SMEP | X86_CR4_SMAP | X86_CR4_PKE);

		gn_soft_write_cr0(rig->cpu, X86_CR0_PE | X86_CR0_PG | (mode & 1 ? X86_CR0_WP : 0));
		gn_soft_write_cr4(rig->cpu, cr4 | (mode & 2 ? X86_CR4_SMEP : 0) |
						    (mode & 4 ? X86_CR4_SMAP : 0) |
						    (mode & 8 ? X86_CR4_PKE : 0));
		gn_soft_write_pkru(rig->cpu, 0x24); /* key 1: no access; key 2: no writes */
		for (unsigned i = 0; i < 64; i++)
			touch_with_ac(rig, USER + ((uint64_t)(i / 8) << 21) +
						   ((uint64_t)(i % 8) << GN_PAGE_SHIFT));
	}
	audit(rig);
}

SCENARIO(pkru_counts_at_once)
{
	uint64_t va = USER;

	map(rig, rig->root, va, 1, DATA, RW_U | (uint64_t)5 << X86_PTE_PKEY_SHIFT);
	gn_soft_write_cr4(rig->cpu, gn_vcpu_regs(vcpu_of(rig))->cr4 | X86_CR4_PKE);
	for (unsigned i = 0; i < 8; i++) {
		gn_soft_write_pkru(rig->cpu, (uint32_t)(i & 3) << 10);
		touch(rig, va);
	}
}

SCENARIO(nx_needs_nxe)
{
	uint64_t va = USER;

	map(rig, rig->root, va, 1, DATA, RW_U | X86_PTE_NX);
	touch(rig, va);
	gn_soft_write_efer(rig->cpu, X86_EFER_LME); /* NX is a reserved bit now */
	touch(rig, va);
	gn_soft_write_efer(rig->cpu, X86_EFER_LME | X86_EFER_NXE);
	touch(rig, va);
}

SCENARIO(paging_off_and_on)
{
	map(rig, rig->root, USER, 1, DATA, RW_U);
	store(rig, USER, 0x77);
	gn_soft_write_cr0(rig->cpu, X86_CR0_PE);
	EXPECT(rig, load(rig, DATA << GN_PAGE_SHIFT) == 0x77);
	touch(rig, (DATA + 3) << GN_PAGE_SHIFT);
	access_as(rig, RAM_BYTES + 0x100, GN_READ, false, 0);
	gn_soft_write_cr0(rig->cpu, X86_CR0_PE | X86_CR0_PG | X86_CR0_WP);
	EXPECT(rig, load(rig, USER) == 0x77);
}

SCENARIO(accessed_and_dirty)
{
	uint64_t va = USER;

	map(rig, rig->root, va, 1, DATA, RW_U);
	map(rig, rig->root, va + ((uint64_t)1 << 21), 2, 1024, RW_U);
	for (unsigned round = 0; round < 3; round++) {
		access_as(rig, va, GN_READ, true, 0);
		access_as(rig, va, GN_WRITE, true, 1);
		access_as(rig, va, GN_READ, true, 0);
		access_as(rig, va + 0x200000, GN_FETCH, true, 0);
		access_as(rig, va + 0x201000, GN_WRITE, true, 1);
		/* An operating system ages its pages. */
		map(rig, rig->root, va, 1, DATA, RW_U | (round == 1 ? X86_PTE_A : 0));
		map(rig, rig->root, va + 0x200000, 2, 1024, RW_U | (round == 1 ? X86_PTE_A : 0));
		put(rig, table_for(rig, rig->root, va, 2), index_of(va, 2),
		    get(rig, table_for(rig, rig->root, va, 2), index_of(va, 2)) & ~X86_PTE_A);
		if (round & 1)
			reload_root(rig);
		invlpg(rig, va);
		invlpg(rig, va + 0x200000);
	}
}

/* ---- Stores to tables --------------------------------------------------------------------------- */

SCENARIO(stores_to_tables_of_every_size)
{
	static const struct {
		unsigned offset, size;
	} stores[] = { { 0, 8 }, { 0, 4 }, { 4, 4 }, { 6, 2 }, { 1, 1 },
		       { 7, 1 }, { 0, 1 }, { 2, 4 }, { 4, 8 }, { 3, 8 } };
	uint64_t va = USER, table;

	for (unsigned i = 0; i < 4; i++)
		map(rig, rig->root, va + i * 0x1000, 1, DATA + i, RW_U);
	table = table_for(rig, rig->root, va, 1);
	for (unsigned i = 0; i < sizeof(stores) / sizeof(stores[0]); i++) {
		struct gn_access a = { .va = gva(window_of(rig,
							   entry_at(table, 1) + stores[i].offset)),
				       .kind = GN_WRITE,
				       .size = (uint8_t)stores[i].size };
		uint64_t fresh = (DATA + 8 + i) << GN_PAGE_SHIFT | RW_U;

		access_full(rig, a, fresh >> (8 * (stores[i].offset % 8)));
		reload_root(rig);
		touch(rig, va + 0x1000);
		touch(rig, va + 0x2000);
		for (unsigned n = 0; n < 4; n++)
			map(rig, rig->root, va + n * 0x1000, 1, DATA + n, RW_U);
		reload_root(rig);
	}
}

/* A page is a table, then data, then a table: nothing of its past may bite. */
SCENARIO(a_table_becomes_data_and_a_table_again)
{
	uint64_t va = USER, table, pd;

	map(rig, rig->root, va, 1, DATA, RW_U);
	touch(rig, va);
	table = table_for(rig, rig->root, va, 1);
	pd = table_for(rig, rig->root, va, 2);
	for (unsigned round = 0; round < 3; round++) {
		put(rig, pd, index_of(va, 2), 0);
		reload_root(rig);
		map(rig, rig->root, va + 0x40000000, 1, table, RW_U);
		invlpg(rig, va + 0x40000000);
		for (unsigned i = 0; i < 16; i++)
			access_as(rig, va + 0x40000000 + i * 8, GN_WRITE, true, ~(uint64_t)i);
		for (unsigned i = 0; i < 16; i++)
			access_as(rig, va + 0x40000000 + i * 8, GN_WRITE, true,
				  (DATA + i + round) << GN_PAGE_SHIFT | RW_U);
		put(rig, pd, index_of(va, 2), table << GN_PAGE_SHIFT | RW_U);
		touch(rig, va + 0x3000);
		touch(rig, va + 0x5000);
	}
}

/* ---- Hostile guests ----------------------------------------------------------------------------- */

/* A store that may change its own translation: only the machine's health is checked. */
static void store_blindly(struct rig *rig, uint64_t va, uint64_t value)
{
	struct gn_access a = { .va = gva(va), .kind = GN_WRITE, .size = 8 };
	struct gn_soft_outcome outcome;

	EXPECT(rig, !gn_soft_probe(rig->cpu, &a, &value, &outcome));
	audit(rig);
}

SCENARIO(self_maps)
{
	unsigned levels = rig->setup->guest_levels, slot = 300;
	uint64_t va = USER, base = 0, entry;

	map(rig, rig->root, va, 1, DATA, RW_U);
	put(rig, rig->root, slot, rig->root << GN_PAGE_SHIFT | X86_PTE_P | X86_PTE_W);
	/* The address at which the recursive slot shows the root itself. */
	for (unsigned level = 1; level <= levels; level++)
		base |= (uint64_t)slot << gn_level_shift(level);
	base |= ~(uint64_t)0 << gn_level_shift(levels + 1);
	EXPECT(rig, load(rig, base + slot * 8) == get(rig, rig->root, slot));
	entry = load(rig, base + index_of(va, levels) * 8);
	EXPECT(rig, (entry & X86_PTE_ADDR) != 0);
	/* Edit the root through itself. */
	store_blindly(rig, base + index_of(va, levels) * 8, 0);
	reload_root(rig);
	touch(rig, va);
	store_blindly(rig, base + index_of(va, levels) * 8, entry);
	touch(rig, va);
	store_blindly(rig, base + slot * 8, 0); /* and cut it off */
	reload_root(rig);
	touch(rig, base);
}

SCENARIO(a_table_on_top_of_itself)
{
	uint64_t va = USER, table;

	map(rig, rig->root, va, 1, DATA, RW_U);
	table = table_for(rig, rig->root, va, 1);
	map(rig, rig->root, va + 0x7000, 1, table, RW_U); /* an entry that maps its own table */
	access_as(rig, va + 0x7000, GN_READ, true, 0);
	store_blindly(rig, va + 0x7000 + 3 * 8, (DATA + 3) << GN_PAGE_SHIFT | RW_U);
	touch(rig, va + 0x3000);
	store_blindly(rig, va + 0x7000 + 3 * 8, (DATA + 4) << GN_PAGE_SHIFT | RW_U);
	invlpg(rig, va + 0x3000);
	touch(rig, va + 0x3000);
	store_blindly(rig, va + 0x7000 + 7 * 8, 0);
	invlpg(rig, va + 0x7000);
	touch(rig, va + 0x7000);
}

SCENARIO(a_root_at_every_level)
{
	uint64_t root = rig->next_table++;
	unsigned top = index_of(WINDOW, rig->setup->guest_levels);

	put(rig, root, top, get(rig, rig->root, top));
	put(rig, root, 0, root << GN_PAGE_SHIFT | RW_U);
	put(rig, root, 1, root << GN_PAGE_SHIFT | RW_U | X86_PTE_PS);
	load_root(rig, root);
	touch(rig, 0x700); /* not where an entry in use stands */
	touch(rig, 0x1700);
	touch(rig, ((uint64_t)1 << 21) + 0x700);
	touch(rig, ((uint64_t)1 << 30) + 0x700);
	load_root(rig, rig->root);
	touch(rig, USER);
}

SCENARIO(tables_that_are_not_memory)
{
	uint64_t va = USER, pd;

	map(rig, rig->root, va, 1, DATA, RW_U);
	pd = table_for(rig, rig->root, va, 2);
	put(rig, pd, index_of(va, 2) + 1, (RAM_GFNS + 5) << GN_PAGE_SHIFT | RW_U);
	access_as(rig, va + 0x200000, GN_READ, true, 0);
	map(rig, rig->root, va + 0x1000, 1, RAM_GFNS + 9, RW_U);
	access_as(rig, va + 0x1000, GN_READ, true, 0);
	access_as(rig, va + 0x1000, GN_WRITE, true, 1);
	gn_soft_write_cr3(rig->cpu, RAM_BYTES + 0x3000);
	access_as(rig, va, GN_READ, false, 0);
	access_as(rig, va, GN_WRITE, true, 0);
	load_root(rig, rig->root);
	touch(rig, va);
	/* A table that becomes a device, and memory again. */
	EXPECT(rig, gn_p2m_set_mmio(rig->vm, gfn(table_for(rig, rig->root, va, 1)), 1) == 0);
	reload_root(rig); /* a translation made before may live on until then */
	access_as(rig, va, GN_READ, true, 0);
	EXPECT(rig, gn_p2m_discard(rig->vm, gfn(table_for(rig, rig->root, va, 1)), 1) == 0);
	touch(rig, va);
	map(rig, rig->root, va, 1, DATA, RW_U);
	touch(rig, va);
}

SCENARIO(reserved_bits_and_canonical_addresses)
{
	uint64_t va = USER;

	map(rig, rig->root, va, 1, DATA, RW_U);
	set_leaf(rig, rig->root, va + 0x1000, 1, (uint64_t)1 << 50 | DATA << GN_PAGE_SHIFT | RW_U);
	touch(rig, va + 0x1000);
	set_leaf(rig, rig->root, va + 0x200000, 2, (uint64_t)0x3000 | RW_U | X86_PTE_PS);
	touch(rig, va + 0x200000);
	touch(rig, (uint64_t)1 << 62);
	touch(rig, WINDOW - 8);
	invlpg(rig, (uint64_t)1 << 62);
	touch(rig, va);
}

/* ---- Registers, without a machine --------------------------------------------------------------- */

struct register_case {
	char which; /* '0', '3', '4', 'e' */
	uint64_t value;
	bool gp;
};
/* In this order, from the state a vCPU is created in. SDM 3A 2.5, 4.1, 4.10.1. */
static const struct register_case register_cases[] = {
	{ '0', X86_CR0_PG, true },		/* PG without PE */
	{ '0', X86_CR0_PE | X86_CR0_PG, true }, /* 32-bit paging */
	{ '0', (uint64_t)1 << 40, true },
	{ 'e', X86_EFER_LME | X86_EFER_NXE, false },
	{ 'e', (uint64_t)1 << 30, true },
	{ '0', X86_CR0_PE | X86_CR0_PG, true },	    /* without PAE */
	{ '4', X86_CR4_PCIDE | X86_CR4_PAE, true }, /* outside long mode */
	{ '4', (uint64_t)1 << 40, true },
	{ '4', X86_CR4_PAE, false },
	{ '3', (uint64_t)1 << 46, true },
	{ '3', 0x10000 | 3, false },
	{ '0', X86_CR0_PE | X86_CR0_PG | X86_CR0_WP, false },
	{ '4', X86_CR4_PAE | X86_CR4_PCIDE, true }, /* low bits of CR3 */
	{ '4', 0, true },			    /* PAE cleared in long mode */
	{ '4', X86_CR4_PAE | X86_CR4_LA57, true },
	{ 'e', X86_EFER_NXE, true }, /* LME cleared with paging on */
	{ '3', 0x10000, false },
	{ '3', 0x10000 | X86_CR3_NOFLUSH, true }, /* no PCIDs yet */
	{ '4', X86_CR4_PAE | X86_CR4_PCIDE, false },
	{ '3', 0x10000 | X86_CR3_NOFLUSH | 0xfff, false },
	{ '0', X86_CR0_PE, true }, /* PG cleared with PCIDE */
	{ '4', X86_CR4_PAE, false },
	{ '0', X86_CR0_PE, false },
};

static int write_register(struct gn_vcpu *vcpu, const struct register_case *c, bool *gp)
{
	switch (c->which) {
	case '0':
		return gn_vcpu_write_cr0(vcpu, c->value, gp);
	case '3':
		return gn_vcpu_write_cr3(vcpu, c->value, gp);
	case '4':
		return gn_vcpu_write_cr4(vcpu, c->value, gp);
	default:
		return gn_vcpu_write_efer(vcpu, c->value, gp);
	}
}

Test(schemes, registers_take_and_refuse_the_same_values)
{
	const struct gn_scheme_ops *ops;

	cr_assert_eq(gn_schemes_register_all(), 0);
	for (unsigned i = 0; (ops = gn_scheme_at(i)); i++) {
		struct gn_vm_config config = { .scheme = gn_scheme_name(ops),
					       .mem_bytes = RAM_BYTES,
					       .vcpus = 1 };
		struct gn_vm *vm;

		cr_assert_eq(gn_vm_create(&config, &vm), 0);
		for (unsigned c = 0; c < sizeof(register_cases) / sizeof(register_cases[0]); c++) {
			struct gn_regs before = *gn_vcpu_regs(gn_vm_vcpu(vm, 0));
			const struct gn_regs *after = gn_vcpu_regs(gn_vm_vcpu(vm, 0));
			struct gn_audit_report report;
			bool gp;

			cr_assert_eq(write_register(gn_vm_vcpu(vm, 0), &register_cases[c], &gp), 0);
			cr_assert_eq(gp, register_cases[c].gp, "%s, case %u", config.scheme, c);
			if (gp)
				cr_assert_eq(memcmp(&before, after, sizeof(before)), 0,
					     "%s, case %u: #GP, yet changed", config.scheme, c);
			cr_assert_eq(gn_audit(vm, &report), 0, "%s, case %u: %s", config.scheme, c,
				     report.first);
		}
		gn_vm_destroy(vm);
	}
}
