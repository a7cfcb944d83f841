/* SPDX-License-Identifier: MIT */
/*
 * vtlb.c - the virtual TLB: the shadow scheme of the textbooks (Intel SDM vol. 3C "VMM Software TLB
 * Management"), for comparison.
 *
 * Our tables are a TLB with much room. Nothing of the guest's tables is watched: its stores run free, and
 * what we made of an entry stays until the guest flushes, as in the real thing. MOV CR3 and every wider
 * flush throw all of a vCPU's translations away; INVLPG throws one away; faults fill. The price is paid
 * at each context switch, as hidden faults.
 *
 * The pages are those of the shadow scheme, with differences that follow from the above: no hash table, no
 * tracking, no unsync, no sharing. Each vCPU has a tree of its own in which each page has one
 * parent, and its root page lasts as long as the vCPU.
 *
 * INVLPG of an address in a large guest page means all of that page, of which we may have many pieces: those
 * below direct pages. The topmost of these goes as a whole, and the hardware is flushed wider than asked.
 */
#include "shadow.h"

static void flush_own(struct gn_shadow *s, struct gn_vcpu *vcpu)
{
	const struct gn_flush everything = { .scope = GN_FLUSH_ALL };

	/* Nobody else's hardware ever saw these pages. */
	if (s->flush_due)
		gn_vcpu_flush(vcpu, &everything);
	s->flush_due = false;
}

static void empty(struct gn_vcpu *vcpu)
{
	struct gn_shadow *s = gn_shadow_of(vcpu->vm);

	gn_shadow_enter(s);
	gn_shadow_page_empty(s, gn_shadow_vcpu_of(vcpu)->root);
	flush_own(s, vcpu);
	gn_shadow_leave(s);
}

static int make_root(struct gn_vcpu *vcpu, const struct gn_shadow_key *key)
{
	struct gn_shadow *s = gn_shadow_of(vcpu->vm);
	struct gn_shadow_vcpu *sv = gn_shadow_vcpu_of(vcpu);
	int err = gn_shadow_reserve_need(s, &sv->reserve, 1, 0);

	if (err)
		return err;
	gn_shadow_enter(s);
	sv->root = gn_shadow_page_take(s, &sv->reserve, key, false);
	sv->root->live_refs = 1;
	gn_shadow_leave(s);
	return 0;
}

int gn_shadow_vtlb_load_root(struct gn_vcpu *vcpu)
{
	struct gn_shadow_vcpu *sv = gn_shadow_vcpu_of(vcpu);
	union gn_shadow_role base = gn_shadow_role_base(&vcpu->paging);
	struct gn_shadow_key key = gn_shadow_root_key(vcpu, base);

	if (!sv->root) {
		int err = make_root(vcpu, &key);

		if (err)
			return err;
	}
	empty(vcpu);
	sv->root->key = key;
	sv->base = base;
	gn_shadow_hw(vcpu, sv->root);
	return 0;
}

void gn_shadow_vtlb_flush_guest(struct gn_vcpu *vcpu, const struct gn_flush *what)
{
	(void)what;
	empty(vcpu);
}

void gn_shadow_vtlb_invlpg(struct gn_vcpu *vcpu, gva_t va)
{
	struct gn_shadow *s = gn_shadow_of(vcpu->vm);
	struct gn_shadow_page *page, *child;

	gn_shadow_enter(s);
	for (page = gn_shadow_vcpu_of(vcpu)->root;; page = child) {
		unsigned index = gn_fmt_index(s->fmt, page->key.role.level, va.v);

		child = gn_shadow_child(s, page, index);
		if (!child || child->key.role.direct) {
			gn_shadow_entry_drop(s, page, index);
			break;
		}
	}
	flush_own(s, vcpu);
	gn_shadow_leave(s);
}
