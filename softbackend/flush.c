/* SPDX-License-Identifier: MIT */
/*
 * flush.c - invalidations: of one page, a tag, all but globals, everything.
 *
 * A flush asked for while this CPU's own thread is inside the engine is applied at once: it is the
 * INVLPG, or the VMM's INVVPID, at that very point. Any other is posted and applied when the CPU next
 * enters a read section, before it looks at its TLBs; together with the grace period the poster waits for,
 * nobody uses a frame that was taken away (mmu/retire.h).
 *
 * What goes: INVLPG takes the page's entries under the tag, global ones of the page, and the tag's walk
 * caches as a whole (SDM 4.10.4.1 allows it; it must take those for the address). If some guest page is
 * fractured into smaller entries, one page's flush cannot find its pieces and takes the whole tag and all
 * globals, as hardware does. Only GN_FLUSH_ALL touches the nested structures, as INVEPT.
 */
#include "cpu.h"

static __thread struct gn_soft_cpu *inside; /* whose engine call this thread is making */

static void clear_tlbs(struct gn_soft_cpu *cpu)
{
	gn_tlb_clear(&cpu->l1[0]);
	gn_tlb_clear(&cpu->l1[1]);
	gn_tlb_clear(&cpu->l2);
	gn_tlb_clear(&cpu->l2_fetch);
	cpu->is_fractured = false;
}

void gn_soft_flush_everything(struct gn_soft_cpu *cpu)
{
	clear_tlbs(cpu);
	gn_tlb_clear(&cpu->nested_tlb);
	gn_pwc_clear(&cpu->pwc);
	gn_pwc_clear(&cpu->nested_pwc);
	gn_soft_forget_recent(cpu);
}

static void flush_page(struct gn_soft_cpu *cpu, uint64_t va, uint64_t tag)
{
	if (cpu->is_fractured) {
		clear_tlbs(cpu);
	} else {
		gn_tlb_drop(&cpu->l1[0], va, tag);
		gn_tlb_drop(&cpu->l1[1], va, tag);
		gn_tlb_drop(&cpu->l2, va, tag);
		gn_tlb_drop(&cpu->l2_fetch, va, tag);
	}
	gn_pwc_drop_tag(&cpu->pwc, tag);
}

static void flush_tag(struct gn_soft_cpu *cpu, uint64_t tag)
{
	gn_tlb_drop_tag(&cpu->l1[0], tag);
	gn_tlb_drop_tag(&cpu->l1[1], tag);
	gn_tlb_drop_tag(&cpu->l2, tag);
	gn_tlb_drop_tag(&cpu->l2_fetch, tag);
	gn_pwc_drop_tag(&cpu->pwc, tag);
}

static void flush_nonglobal(struct gn_soft_cpu *cpu)
{
	gn_tlb_drop_nonglobal(&cpu->l1[0]);
	gn_tlb_drop_nonglobal(&cpu->l1[1]);
	gn_tlb_drop_nonglobal(&cpu->l2);
	gn_tlb_drop_nonglobal(&cpu->l2_fetch);
	gn_pwc_clear(&cpu->pwc);
}

static void apply(struct gn_soft_cpu *cpu, const struct gn_flush *flush)
{
	uint64_t tag = (uint64_t)flush->pcid << GN_KEY_TAG_SHIFT & GN_KEY_TAG_MASK;
	uint32_t cycles = flush->scope == GN_FLUSH_VA ? cpu->cost.flush_va : cpu->cost.flush;

	switch (flush->scope) {
	case GN_FLUSH_VA:
		flush_page(cpu, flush->va.v, tag);
		break;
	case GN_FLUSH_PCID:
		flush_tag(cpu, tag);
		break;
	case GN_FLUSH_NONGLOBAL:
		flush_nonglobal(cpu);
		break;
	case GN_FLUSH_ALL:
		gn_soft_flush_everything(cpu);
		break;
	}
	gn_soft_forget_recent(cpu);
	cpu->counters->flushes++;
	cpu->counters->cycles += cycles;
	cpu->stats.tlb_flush_cycles += cycles;
}

void gn_soft_backend_flush(struct gn_vcpu *vcpu, const struct gn_flush *flush)
{
	struct gn_soft_cpu *cpu = (struct gn_soft_cpu *)gn_vcpu_backend(vcpu);

	if (!cpu)
		return; /* the VM is being made */
	if (inside == cpu) {
		apply(cpu, flush);
		return;
	}
	pthread_mutex_lock(&cpu->post_mutex);
	if (cpu->posted_count == GN_SOFT_POSTED) {
		cpu->posted[0] = (struct gn_flush){ .scope = GN_FLUSH_ALL };
		cpu->posted_count = 1;
	} else {
		cpu->posted[cpu->posted_count++] = *flush;
	}
	/* Acquired by gn_soft_enter(). */
	atomic_store_explicit(&cpu->has_posted, true, memory_order_release);
	pthread_mutex_unlock(&cpu->post_mutex);
}

void gn_soft_backend_hw_changed(struct gn_vcpu *vcpu)
{
	struct gn_soft_cpu *cpu = (struct gn_soft_cpu *)gn_vcpu_backend(vcpu);

	if (!cpu)
		return;
	pthread_mutex_lock(&cpu->post_mutex);
	cpu->posted_hw_change = true;
	atomic_store_explicit(&cpu->has_posted, true, memory_order_release);
	pthread_mutex_unlock(&cpu->post_mutex);
}

void gn_soft_apply_posted(struct gn_soft_cpu *cpu)
{
	struct gn_flush flushes[GN_SOFT_POSTED];
	unsigned count;
	bool changed;

	pthread_mutex_lock(&cpu->post_mutex);
	count = cpu->posted_count;
	for (unsigned i = 0; i < count; i++)
		flushes[i] = cpu->posted[i];
	changed = cpu->posted_hw_change;
	cpu->posted_count = 0;
	cpu->posted_hw_change = false;
	atomic_store_explicit(&cpu->has_posted, false, memory_order_relaxed);
	pthread_mutex_unlock(&cpu->post_mutex);

	for (unsigned i = 0; i < count; i++)
		apply(cpu, &flushes[i]);
	if (changed) {
		gn_soft_flush_everything(cpu);
		gn_soft_refresh(cpu);
	}
}

static bool has_same_rules(const struct gn_paging *a, const struct gn_paging *b)
{
	return a->levels == b->levels && a->phys_bits == b->phys_bits && a->wp == b->wp &&
	       a->smep == b->smep && a->smap == b->smap && a->nxe == b->nxe && a->pke == b->pke &&
	       a->pge == b->pge && a->pkru == b->pkru;
}

/* The rules of the tables that are walked: the guest's own, or what a shadowing VMM sets. */
static struct gn_paging rules(const struct gn_vcpu *vcpu, bool is_deprivileged)
{
	struct gn_paging p = vcpu->paging;

	if (vcpu->hw.kind == GN_HW_TABLES) {
		p.fmt = vcpu->hw.fmt;
		p.levels = vcpu->hw.fmt->levels;
		p.phys_bits = 52;
		p.wp = true;
		p.nxe = true;
	}
	if (is_deprivileged)
		p.smep = p.smap = p.pke = p.pge = false;
	return p;
}

/* Bits the mode reserves in every entry. A hint that saves asking gn_paging_is_reserved() each time. */
static uint64_t reserved_bits(const struct gn_paging *paging)
{
	const struct gn_fmt_level *l;

	if (!paging->fmt)
		return 0;
	l = &paging->fmt->level[1];
	return (l->address & ~(((uint64_t)1 << paging->phys_bits) - 1)) |
	       (paging->nxe ? 0 : l->deny[GN_RI_X]);
}

void gn_soft_refresh(struct gn_soft_cpu *cpu)
{
	const struct gn_hw *hw = &cpu->vcpu->hw;
	bool is_deprivileged = cpu->soft->deprivileged && hw->kind == GN_HW_TABLES;
	struct gn_paging paging = rules(cpu->vcpu, is_deprivileged);
	uint64_t tag = (uint64_t)hw->pcid << GN_KEY_TAG_SHIFT & GN_KEY_TAG_MASK;
	unsigned levels = cpu->vcpu->paging.levels;

	if (!has_same_rules(&paging, &cpu->paging)) {
		gn_tlb_forget_decisions(&cpu->l1[0]);
		gn_tlb_forget_decisions(&cpu->l1[1]);
		gn_soft_forget_recent(cpu);
	}
	if (tag != cpu->tag)
		gn_soft_forget_recent(cpu);
	/* Without PCIDs a load of CR3 leaves nothing. What it costs is in the price of the exit. */
	if (hw->kind != cpu->kind || hw->fmt != cpu->fmt ||
	    (is_deprivileged && hw->root.v != cpu->root.v))
		gn_soft_flush_everything(cpu);
	cpu->paging = paging;
	cpu->tag = tag;
	cpu->kind = hw->kind;
	cpu->fmt = hw->fmt;
	cpu->root = hw->root;
	cpu->is_deprivileged = is_deprivileged;
	gn_soft_set_mode(cpu);
	cpu->is_native = hw->kind == GN_HW_GUEST;
	cpu->spare_bits =
		(uint8_t)(64 - (GN_PAGE_SHIFT + GN_INDEX_BITS * (levels ? levels : GN_MAX_LEVELS)));
	cpu->reserved = reserved_bits(&paging);
	cpu->walk = NULL;
	switch (hw->kind) {
	case GN_HW_SOFTWARE:
		break;
	case GN_HW_GUEST:
		cpu->walk = gn_soft_guest_walker(levels, NULL);
		break;
	case GN_HW_TABLES:
		cpu->walk = gn_soft_table_walker(hw->fmt, is_deprivileged);
		break;
	case GN_HW_NESTED:
		cpu->walk = gn_soft_guest_walker(levels, hw->fmt);
		cpu->table_need = GN_R | GN_U;
		/* A format that walks as user is AMD's, which asks for W on guest tables always. */
		if (hw->nested_ad || hw->fmt->level[1].grant[GN_RI_U])
			cpu->table_need |= GN_W;
		break;
	}
}

void gn_soft_call(struct gn_soft_cpu *cpu)
{
	inside = cpu;
}

void gn_soft_return(struct gn_soft_cpu *cpu)
{
	inside = NULL;
	gn_soft_refresh(cpu);
}
