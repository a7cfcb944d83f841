/* SPDX-License-Identifier: MIT */
/*
 * shadow_audit.c - the auditor finds what is wrong: each case breaks sound tables in one way.
 */
#include "unit/shadow_check.h"

#include "shadow/shadow.h"

#define USER	 ((uint64_t)0x40000000)
#define PAGE(n)	 ((uint64_t)(n) << 12)
#define FREE_GFN 2048

struct scene {
	struct rig rig;
	struct gn_shadow *s;
	struct gn_shadow_page *page; /* the level-1 page of USER */
	uint64_t *slot;		     /* of USER's leaf */
	uint64_t pte;		     /* gpa of the guest's entry */
};

static void scene_start(struct scene *c)
{
	const struct gn_vm_config config = { .backing_level = 2 };
	struct gn_walk w;

	rig_start(&c->rig, &config);
	c->pte = rig_map(&c->rig, c->rig.root, USER, 1, PAGE(FREE_GFN) | USER_RW);
	CHECK_OK(rig_user_store(&c->rig, USER, 1));
	CHECK_OK(rig_load(&c->rig, RIG_LINEAR + c->pte));
	rig_cr3(&c->rig, rig_table(&c->rig));
	rig_cr3(&c->rig, c->rig.root);
	CHECK_AUDIT(&c->rig);
	rig_walk_now(&c->rig, USER, &w);
	c->s = gn_shadow_of(c->rig.vm);
	c->slot = w.slot;
	c->page = gn_shadow_page_of_slot(c->s, w.slot);
}

/* A store to guest memory that nobody reports. */
static void guest_entry(struct scene *c, uint64_t at, uint64_t value)
{
	gn_rcu_read_lock();
	*(uint64_t *)gn_p2m_pointer(c->rig.vm, gpa(at)) = value;
	gn_rcu_read_unlock();
}

static uint64_t *linear_slot(struct scene *c, uint64_t at)
{
	struct gn_walk w;

	rig_walk_now(&c->rig, RIG_LINEAR + at, &w);
	return w.slot;
}

static void another_frame(struct scene *c)
{
	*c->slot += PAGE(1);
}
static void a_table_of_ours(struct scene *c)
{
	*c->slot = (*c->slot & ~X86_PTE_ADDR) | pfn_to_hpa(c->page->table).v;
}
static void writable_table(struct scene *c)
{
	*linear_slot(c, c->pte) |= X86_PTE_W;
}
static void rights_taken_by_the_guest(struct scene *c)
{
	guest_entry(c, c->pte, PAGE(FREE_GFN) | USER_RO | X86_PTE_D);
}
static void remapped_by_the_guest(struct scene *c)
{
	guest_entry(c, c->pte, PAGE(FREE_GFN + 1) | USER_RW);
}
static void unmapped_by_the_guest(struct scene *c)
{
	guest_entry(c, c->pte, 0);
}
static void clean_to_the_guest(struct scene *c)
{
	guest_entry(c, c->pte, PAGE(FREE_GFN) | (USER_RW & ~X86_PTE_D));
}
static void not_accessed_to_the_guest(struct scene *c)
{
	guest_entry(c, c->pte, PAGE(FREE_GFN) | (USER_RW & ~X86_PTE_A));
}
static void another_key(struct scene *c)
{
	*c->slot |= (uint64_t)7 << X86_PTE_PKEY_SHIFT;
}
static void global_by_mistake(struct scene *c)
{
	*c->slot |= X86_PTE_G;
}
static void leaf_unknown_to_the_rmap(struct scene *c)
{
	gn_slots_remove(c->rig.vm->scheme_arena, gn_rmap_leaves(c->s, gfn(FREE_GFN), 1), c->slot);
}
static void rmap_names_nothing(struct scene *c)
{
	*c->slot = 0;
}
static void entries_miscounted(struct scene *c)
{
	c->page->present_count++;
}
static void parent_forgotten(struct scene *c)
{
	gn_slots_remove(c->rig.vm->scheme_arena, &c->page->parents,
			gn_slots_last(&c->page->parents));
}
static void unsync_unmarked(struct scene *c)
{
	c->page->is_unsync = true;
}
static void standing_lost(struct scene *c)
{
	gn_rmap_peek(c->s, c->page->key.gfn)->word &= ~GN_SLOTS_MARKS;
}
static void block_miscounted(struct scene *c)
{
	c->s->rmap.blocks[0].shadowed_count++;
}
static void role_of_a_child(struct scene *c)
{
	c->page->key.role.level = 2;
}
static void dead_child(struct scene *c)
{
	c->page->is_hashed = false;
}
static void references_miscounted(struct scene *c)
{
	gn_shadow_vcpu_of(c->rig.vcpu)->root->live_refs++;
}
static void link_to_nowhere(struct scene *c)
{
	uint64_t *slot = gn_slots_last(&c->page->parents);

	*slot = (*slot & ~X86_PTE_ADDR) |
		pfn_to_hpa(gn_p2m_word_pfn(gn_p2m_get(&c->rig.vm->p2m, gfn(FREE_GFN)))).v;
}
static void pages_miscounted(struct scene *c)
{
	c->s->page_count++;
}
static void two_of_one_key(struct scene *c)
{
	c->page->key.role.word = gn_shadow_vcpu_of(c->rig.vcpu)->root->key.role.word;
	c->page->key.gfn = gn_shadow_vcpu_of(c->rig.vcpu)->root->key.gfn;
}

static const struct {
	const char *name;
	void (*break_it)(struct scene *c);
} cases[] = {
#define CASE(f)                                                                                    \
	{                                                                                          \
#f, f                                                                              \
	}
	CASE(another_frame),
	CASE(a_table_of_ours),
	CASE(writable_table),
	CASE(rights_taken_by_the_guest),
	CASE(remapped_by_the_guest),
	CASE(unmapped_by_the_guest),
	CASE(clean_to_the_guest),
	CASE(not_accessed_to_the_guest),
	CASE(another_key),
	CASE(global_by_mistake),
	CASE(leaf_unknown_to_the_rmap),
	CASE(rmap_names_nothing),
	CASE(entries_miscounted),
	CASE(parent_forgotten),
	CASE(unsync_unmarked),
	CASE(standing_lost),
	CASE(block_miscounted),
	CASE(role_of_a_child),
	CASE(dead_child),
	CASE(references_miscounted),
	CASE(link_to_nowhere),
	CASE(pages_miscounted),
	CASE(two_of_one_key),
};

/* A broken VM is past saving, and left as it is. */
Test(shadow_audit, finds_what_is_broken)
{
	static struct scene scenes[sizeof(cases) / sizeof(cases[0])];

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct gn_audit_report report;
		struct scene *c = &scenes[i];

		scene_start(c);
		cases[i].break_it(c);
		cr_assert_eq(gn_audit(c->rig.vm, &report), -EBADMSG, "%s went unseen",
			     cases[i].name);
		cr_assert_gt(report.violations, 0);
		cr_assert_neq(report.first[0], '\0', "%s", cases[i].name);
	}
}

/* Many tables: the hash table grows, and nothing is lost. */
Test(shadow_audit, many_pages)
{
	const struct gn_vm_config config = { .mem_bytes = 32 << 20 };
	struct rig rig;

	rig_start(&rig, &config);
	for (uint64_t i = 0; i < 1500; i++) {
		rig_map(&rig, rig.root, USER + (i << 21), 1, PAGE(4096 + i) | USER_RW);
		CHECK_OK(rig_user_store(&rig, USER + (i << 21), i));
	}
	CHECK_AUDIT(&rig);
	for (uint64_t i = 0; i < 1500; i++)
		cr_assert_eq(rig_user_load(&rig, USER + (i << 21)).value, i);
	rig_end(&rig);
}
