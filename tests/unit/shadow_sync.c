/* SPDX-License-Identifier: MIT */
/*
 * shadow_sync.c - tables out of sync, and the windows between a guest's store and our learning of it.
 */
#include <unistd.h>

#include "unit/shadow_check.h"

#define USER	 ((uint64_t)0x40000000)
#define PAGE(n)	 ((uint64_t)(n) << 12)
#define FREE_GFN 2048

/* A store to the frame that has not been reported yet. */
static void store_unseen(struct rig *rig, uint64_t at, uint64_t value)
{
	gn_rcu_read_lock();
	__atomic_store_n((uint64_t *)gn_p2m_pointer(rig->vm, gpa(at)), value, __ATOMIC_SEQ_CST);
	gn_rcu_read_unlock();
}

/* A fault that sees an entry before the store that made it is reported must not fill the old table's page. */
Test(shadow_sync, trap03_store_seen_before_it_is_reported)
{
	const struct gn_vm_config config = { 0 };
	struct rig rig;
	uint64_t pde, old_entry, table;

	rig_start(&rig, &config);
	rig_map(&rig, rig.root, USER, 1, PAGE(FREE_GFN) | USER_RW);
	pde = rig_entry(&rig, rig.root, USER, 2);
	old_entry = rig_read(&rig, pde);
	table = rig_table(&rig);
	rig_write(&rig, table, PAGE(FREE_GFN + 1) | USER_RW);
	rig_write(&rig, table + 8, PAGE(FREE_GFN + 2) | USER_RW);
	CHECK_OK(rig_user_load(&rig, USER));
	store_unseen(&rig, pde, table | USER_RW);
	CHECK_OK(rig_user_load(&rig, USER + 4096));
	cr_assert_eq(rig_gpa(&rig, USER + 4096), PAGE(FREE_GFN + 2));
	rig_write(&rig, pde, table | USER_RW);
	rig_invlpg(&rig, USER);
	rig_invlpg(&rig, USER + 4096);
	CHECK_AUDIT(&rig);
	/* The same with a large page, and back. */
	store_unseen(&rig, pde, (PAGE(FREE_GFN) & ~(uint64_t)0x1fffff) | USER_RW | LARGE);
	CHECK_OK(rig_user_load(&rig, USER + 2 * 4096));
	rig_write(&rig, pde, rig_read(&rig, pde));
	CHECK_AUDIT(&rig);
	store_unseen(&rig, pde, old_entry);
	CHECK_PF(rig_user_load(&rig, USER + 3 * 4096), X86_PF_U);
	rig_write(&rig, pde, old_entry);
	CHECK_AUDIT(&rig);
	rig_end(&rig);
}

struct racer {
	struct rig *rig;
	struct rig_result result;
};

static void *fault_once(void *arg)
{
	struct racer *r = arg;

	r->result = rig_user_load(r->rig, USER);
	return NULL;
}

/* The guest's entry changes between the walk, which takes no lock, and the lock. */
Test(shadow_sync, trap03_entries_are_read_again_under_the_lock)
{
	for (unsigned level = 1; level <= 2; level++) {
		const struct gn_vm_config config = { 0 };
		struct racer racer;
		struct rig rig;
		pthread_t thread;
		uint64_t entry, other, faults;

		rig_start(&rig, &config);
		rig_map(&rig, rig.root, USER, 1, PAGE(FREE_GFN) | USER_RW);
		rig_map(&rig, rig.root, USER + 4096, 1, PAGE(FREE_GFN) | USER_RW);
		other = rig_table(&rig);
		rig_write(&rig, other, PAGE(FREE_GFN + 1) | USER_RW);
		entry = rig_entry(&rig, rig.root, USER, level);
		CHECK_OK(rig_user_load(&rig, USER + 4096));
		racer.rig = &rig;
		faults = rig.faults;
		gn_lock(&rig.vm->scheme_lock);
		cr_assert_eq(pthread_create(&thread, NULL, fault_once, &racer), 0);
		while (__atomic_load_n(&rig.faults, __ATOMIC_RELAXED) == faults)
			usleep(1000);
		usleep(50000); /* it has walked, and waits for the lock */
		store_unseen(&rig, entry, (level == 1 ? PAGE(FREE_GFN + 1) : other) | USER_RW);
		gn_unlock(&rig.vm->scheme_lock);
		pthread_join(thread, NULL);
		cr_assert_eq(racer.result.end, RIG_OK);
		cr_assert_eq(rig_gpa(&rig, USER), PAGE(FREE_GFN + 1), "level %u", level);
		rig_write(&rig, entry, rig_read(&rig, entry));
		CHECK_AUDIT(&rig);
		rig_end(&rig);
	}
}

/* The first store to a level-1 table traps, the others do not; what the guest flushes is fresh. */
Test(shadow_sync, trap04_unsync_and_resync)
{
	const struct gn_vm_config config = { 0 };
	struct rig rig;
	uint64_t pte, traps;

	rig_start(&rig, &config);
	for (unsigned i = 0; i < 4; i++)
		pte = rig_map(&rig, rig.root, USER + PAGE(i), 1, PAGE(FREE_GFN + i) | USER_RW);
	pte -= 24;
	for (unsigned i = 0; i < 4; i++)
		CHECK_OK(rig_user_load(&rig, USER + PAGE(i)));
	CHECK_OK(rig_poke(&rig, pte, PAGE(FREE_GFN + 8) | USER_RW));
	traps = rig.faults;
	for (unsigned i = 1; i < 4; i++)
		CHECK_QUIET(rig_poke(&rig, pte + 8 * i, PAGE(FREE_GFN + 8 + i) | USER_RW));
	cr_assert_eq(rig.faults, traps);
	cr_assert_eq(rig.emulated, 0);
	CHECK_AUDIT(&rig);
	rig_invlpg(&rig, USER);
	CHECK_OK(rig_user_load(&rig, USER));
	cr_assert_eq(rig_gpa(&rig, USER), PAGE(FREE_GFN + 8));
	rig_cr3(&rig, rig.root);
	for (unsigned i = 1; i < 4; i++) {
		CHECK_OK(rig_user_load(&rig, USER + PAGE(i)));
		cr_assert_eq(rig_gpa(&rig, USER + PAGE(i)), PAGE(FREE_GFN + 8 + i));
	}
	CHECK_AUDIT(&rig);
	/* Rights too. */
	CHECK_OK(rig_user_store(&rig, USER, 1));
	CHECK_OK(rig_poke(&rig, pte, PAGE(FREE_GFN + 8) | USER_RO | X86_PTE_D));
	rig_invlpg(&rig, USER);
	CHECK_PF(rig_user_store(&rig, USER, 1), X86_PF_P | X86_PF_W | X86_PF_U);
	rig_end(&rig);
}

/* Out of sync for nothing: after some flushes that find nothing new the table is protected again. */
Test(shadow_sync, trap04_calm_tables_are_taken_back)
{
	const struct gn_vm_config config = { 0 };
	struct rig rig;
	uint64_t pte;

	rig_start(&rig, &config);
	pte = rig_map(&rig, rig.root, USER, 1, PAGE(FREE_GFN) | USER_RW);
	CHECK_OK(rig_user_load(&rig, USER));
	CHECK_OK(rig_poke(&rig, pte + 8, 0));
	cr_assert(rig_rights(&rig, RIG_LINEAR + pte) & GN_W);
	for (unsigned i = 0; i < 6; i++)
		rig_cr3(&rig, rig.root);
	cr_assert_not(rig_rights(&rig, RIG_LINEAR + pte) & GN_W);
	CHECK_AUDIT(&rig);
	CHECK_OK(rig_poke(&rig, pte, PAGE(FREE_GFN + 1) | USER_RW));
	rig_invlpg(&rig, USER);
	CHECK_OK(rig_user_load(&rig, USER));
	cr_assert_eq(rig_gpa(&rig, USER), PAGE(FREE_GFN + 1));
	CHECK_AUDIT(&rig);
	rig_end(&rig);
}

/* A table that is out of sync at level 1 is linked as an upper level: its level-1 shadows end. */
Test(shadow_sync, trap04_upper_level_ends_unsync)
{
	const struct gn_vm_config config = { 0 };
	struct rig rig;
	uint64_t pte, table, other;

	rig_start(&rig, &config);
	pte = rig_map(&rig, rig.root, USER, 1, PAGE(FREE_GFN) | USER_RW);
	table = pte & ~(uint64_t)4095;
	CHECK_OK(rig_user_load(&rig, USER));
	CHECK_OK(rig_poke(&rig, pte + 8, PAGE(FREE_GFN) | USER_RW));
	other = rig_table(&rig);
	rig_write(&rig, other, PAGE(FREE_GFN + 5) | USER_RW);
	CHECK_QUIET(rig_poke(&rig, pte + 16, other | USER_RW)); /* as a PDE: index 2 */
	rig_map(&rig, rig.root, 2 * USER, 3, table | USER_RW);
	CHECK_OK(rig_user_load(&rig, 2 * USER + ((uint64_t)2 << 21)));
	cr_assert_eq(rig_gpa(&rig, 2 * USER + ((uint64_t)2 << 21)), PAGE(FREE_GFN + 5));
	CHECK_AUDIT(&rig);
	CHECK_OK(rig_poke(&rig, pte + 16, 0));
	rig_invlpg(&rig, 2 * USER + ((uint64_t)2 << 21));
	CHECK_PF(rig_user_load(&rig, 2 * USER + ((uint64_t)2 << 21)), X86_PF_U);
	CHECK_OK(rig_user_load(&rig, USER));
	CHECK_AUDIT(&rig);
	rig_end(&rig);
}

/* Absent to present needs no flush of the guest's, so what is linked anew must be fresh. */
Test(shadow_sync, trap05_sync_before_linking)
{
	const struct gn_vm_config config = { 0 };
	struct rig rig;
	uint64_t pte, table;

	rig_start(&rig, &config);
	pte = rig_map(&rig, rig.root, USER, 1, PAGE(FREE_GFN) | USER_RW);
	table = pte & ~(uint64_t)4095;
	rig_write(&rig, pte + 8, PAGE(FREE_GFN) | USER_RW);
	CHECK_OK(rig_user_load(&rig, USER));
	CHECK_OK(rig_user_load(&rig, USER + 4096));
	CHECK_OK(rig_poke(&rig, pte + 8, PAGE(FREE_GFN + 1) | USER_RW));
	/* No flush for USER: stale there is right. A second way to the same table: */
	rig_map(&rig, rig.root, USER + ((uint64_t)2 << 20), 2, table | USER_RW);
	CHECK_OK(rig_user_load(&rig, USER + ((uint64_t)2 << 20)));
	CHECK_OK(rig_user_load(&rig, USER + ((uint64_t)2 << 20) + 4096));
	cr_assert_eq(rig_gpa(&rig, USER + ((uint64_t)2 << 20) + 4096), PAGE(FREE_GFN + 1));
	CHECK_AUDIT(&rig);
	rig_end(&rig);
}

/* INVLPG of a global page under one PCID counts for all of them; not canonical, it is nothing. */
Test(shadow_sync, trap12_invlpg_global_and_cached_roots)
{
	const struct gn_vm_config config = { 0 };
	struct rig rig;
	uint64_t second, pte;

	rig_create(&rig, &config);
	rig_linear(&rig, rig.root, 1);
	second = rig_table(&rig);
	for (unsigned i = 256; i < 512; i++) /* the kernel's half is common */
		rig_write(&rig, second + i * 8, rig_read(&rig, rig.root + i * 8));
	pte = rig_map(&rig, rig.root, RIG_LINEAR + ((uint64_t)1 << 38), 1,
		      PAGE(FREE_GFN) | KERNEL_RW | X86_PTE_G);
	rig_write(&rig, second + 256 * 8, rig_read(&rig, rig.root + 256 * 8));
	rig_mode(rig.vcpu, rig.root, X86_CR0_WP, X86_CR4_PGE | X86_CR4_PCIDE);
	CHECK_OK(rig_load(&rig, RIG_LINEAR + ((uint64_t)1 << 38)));
	rig_cr3(&rig, second | 1);
	CHECK_OK(rig_load(&rig, RIG_LINEAR + ((uint64_t)1 << 38)));
	CHECK_OK(rig_poke(&rig, pte, PAGE(FREE_GFN + 1) | KERNEL_RW | X86_PTE_G));
	rig_invlpg(&rig, (uint64_t)1 << 60);
	rig_invlpg(&rig, RIG_LINEAR + ((uint64_t)1 << 38));
	CHECK_OK(rig_load(&rig, RIG_LINEAR + ((uint64_t)1 << 38)));
	cr_assert_eq(rig_gpa(&rig, RIG_LINEAR + ((uint64_t)1 << 38)), PAGE(FREE_GFN + 1));
	rig_cr3(&rig, rig.root | X86_CR3_NOFLUSH);
	CHECK_OK(rig_load(&rig, RIG_LINEAR + ((uint64_t)1 << 38)));
	cr_assert_eq(rig_gpa(&rig, RIG_LINEAR + ((uint64_t)1 << 38)), PAGE(FREE_GFN + 1));
	CHECK_AUDIT(&rig);
	rig_end(&rig);
}

/* A page that lost its mapping by the guest's doing may linger in a TLB; the p2m's change may not. */
Test(shadow_sync, owed_flushes_are_paid_before_a_frame_goes)
{
	const struct gn_vm_config config = { 0 };
	struct rig rig;
	uint64_t pte, flushes;

	rig_start(&rig, &config);
	pte = rig_map(&rig, rig.root, USER, 1, PAGE(FREE_GFN) | USER_RW);
	CHECK_OK(rig_poke(&rig, PAGE(FREE_GFN + 3), 0));
	CHECK_OK(rig_user_store(&rig, USER, 5));
	CHECK_OK(rig_poke(&rig, pte, 0));
	rig_cr3(&rig, rig.root);
	flushes = rig.tlb[0].flushes_all;
	cr_assert_eq(gn_p2m_balloon(rig.vm, gfn(FREE_GFN), 1), 0);
	cr_assert_gt(rig.tlb[0].flushes_all, flushes);
	CHECK_AUDIT(&rig);
	rig_end(&rig);
}

/* A change of the p2m or the dirty log has taken the right to write from an unsync table, and its flush is on its way: one vCPU may
 * write the table still, while another resyncs it for the third time. It must not be believed to be watched. */
static struct rig *torn;
static uint64_t torn_entry;
static bool still_maps, is_second_flush;

static bool write_while_the_flush_is_on_its_way(struct gn_vcpu *vcpu, const struct gn_flush *flush)
{
	struct gn_vcpu *other = gn_vm_vcpu(torn->vm, 1);
	struct gn_walk walk;
	bool gp;

	if (flush->scope != GN_FLUSH_ALL || vcpu->index)
		return false;
	/* The first one is posted with the scheme's lock held. */
	if (!is_second_flush) {
		is_second_flush = true;
		return true;
	}
	rig_on_flush = NULL;
	for (unsigned i = 0; i < 4; i++)
		cr_assert_eq(gn_vcpu_write_cr3(other, torn->root, &gp), 0);
	CHECK_QUIET(rig_poke(torn, torn_entry, 0));
	gn_vcpu_invlpg(other, gva(USER));
	gn_walk_any(other->hw.fmt, torn->vm->frames, other->hw.root, USER, &walk);
	still_maps = walk.end == GN_WALK_LEAF;
	return false;
}

static void publish_table(struct rig *rig)
{
	struct gn_merge page = { .at = gfn(torn_entry >> 12) };

	cr_assert_eq(gn_p2m_publish(rig->vm, &page, 1, GN_SHARE_READ), 0);
	cr_assert_eq(page.result, 0);
	gn_frames_put(rig->vm->frames, page.frame);
}

static void harvest(struct rig *rig)
{
	uint8_t bitmap[512];

	cr_assert_eq(gn_dirty_harvest(rig->vm, gfn(0), 4096, bitmap), 0);
}

Test(shadow_sync, tables_are_not_taken_back_before_a_flush_has_settled)
{
	static void (*const changes[])(struct rig *) = { publish_table, harvest };
	const struct gn_vm_config config = { .vcpus = 2 };

	for (unsigned i = 0; i < 2; i++) {
		struct rig rig;

		rig_start(&rig, &config);
		rig_mode(gn_vm_vcpu(rig.vm, 1), rig.root, X86_CR0_WP, X86_CR4_PGE);
		torn = &rig;
		torn_entry = rig_map(&rig, rig.root, USER, 1, PAGE(FREE_GFN) | USER_RW);
		if (changes[i] == harvest)
			cr_assert_eq(gn_dirty_start(rig.vm), 0);
		CHECK_OK(rig_user_load(&rig, USER));
		CHECK_OK(rig_load_on(&rig, gn_vm_vcpu(rig.vm, 1), USER, true));
		CHECK_OK(rig_poke(&rig, torn_entry + 8, 0));
		CHECK_QUIET(rig_poke(&rig, torn_entry + 8, 0)); /* unsync now */
		still_maps = true;
		is_second_flush = false;
		rig_on_flush = write_while_the_flush_is_on_its_way;
		changes[i](&rig);
		cr_assert_null(rig_on_flush, "change %u posted no flush", i);
		cr_assert_not(still_maps, "change %u", i);
		CHECK_AUDIT(&rig);
		rig_end(&rig);
	}
}
