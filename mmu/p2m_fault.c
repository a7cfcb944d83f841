/* SPDX-License-Identifier: MIT */
/*
 * p2m_fault.c - a gfn gets its frame: on first touch, and on the first write to a shared one.
 *
 * First touch needs no begin and end: nothing caches the absence of a frame, so publishing the word
 * is the whole change. With a backing level above 1 the block around the gfn is given as one if
 * nothing of it has a frame yet; when the pool has no such block, smaller ones do.
 *
 * The write to a shared frame, or any access to a sealed one, is a change of one gfn: copy, revoke, publish. The copy may be made
 * first, for nobody may write a shared frame. If the others have all left, the frame, if it is the pool's own, is simply ours
 * again: an upgrade, after which stale read-only translations cost a fault and nothing else. An anchored frame (anchor.c) is never left
 * by the others, and so always copied, as long as there is a frame for the copy.
 *
 * gn_p2m_resolve() adds the verdict every scheme needs: this much memory is there, that much is
 * not. Every access that meets a BALLOONED gfn comes by here, whatever the scheme and whoever
 * accesses, so here touches are counted and answered.
 */
#include <errno.h>
#include <string.h>

#include "p2m_writer.h"

/* The largest level <= the backing level at which the block around @at is unbacked RAM as a whole,
 * and begins at @floor or above. */
static unsigned unbacked_level(const struct gn_p2m *p2m, gfn_t at, gfn_t floor)
{
	unsigned level = p2m->backing_level;

	for (; level > 1; level--) {
		uint64_t pages = gn_level_pages(level), start = at.v & ~(pages - 1), i = 0;

		if (start < floor.v || start + pages > p2m->gfn_count)
			continue;
		while (i < pages &&
		       gn_p2m_word_state(gn_p2m_get(p2m, gfn(start + i))) == GN_P2M_UNBACKED)
			i++;
		if (i == pages)
			break;
	}
	return level;
}

static int alloc_for(struct gn_vm *vm, gfn_t at, unsigned level, pfn_t *out)
{
	pfn_t home = pfn(at.v & ~(gn_level_pages(level) - 1));

	return vm->config.home_frames ? gn_frames_alloc_home(vm->frames, level, home, out)
				      : gn_frames_alloc(vm->frames, level, out);
}

/* What was taken from a guest that did not ask for it comes back out of the reserve, if need be. */
static int alloc_page(struct gn_vm *vm, gfn_t at, pfn_t *out)
{
	const pfn_t place = pfn(at.v);

	if (!(gn_p2m_get(&vm->p2m, at).v & GN_P2M_LENT))
		return alloc_for(vm, at, 1, out);
	return gn_frames_alloc_lent(vm->frames, vm->config.home_frames ? &place : NULL, out);
}

int gn_p2m_fill_alloc(struct gn_vm *vm, gfn_t at, gfn_t floor, struct gn_p2m_fill *out)
{
	const uint64_t drains = gn_retire_drains(vm);
	unsigned level = unbacked_level(&vm->p2m, at, floor);

	while (level > 1 && alloc_for(vm, at, level, &out->frame))
		level--;
	if (level == 1) {
		int err = alloc_page(vm, at, &out->frame);

		if (err == -ENOMEM && gn_retire_drain_since(vm, drains))
			err = alloc_page(vm, at, &out->frame);
		if (err)
			return err;
	}
	out->level = level;
	out->start = gfn(at.v & ~(gn_level_pages(level) - 1));
	return 0;
}

static int fill(struct gn_vm *vm, gfn_t at)
{
	struct gn_p2m_fill f;
	int err = gn_p2m_fill_alloc(vm, at, gfn(0), &f);

	if (err)
		return err;
	for (uint64_t i = 0; i < gn_level_pages(f.level); i++)
		gn_p2m_set(vm, gfn(f.start.v + i), gn_p2m_fill_word(&f, i));
	return 0;
}

/* A page that could be at home, and is not, goes there: each one away may cost the backend a mapping. */
static bool is_at_home(const struct gn_vm *vm, gfn_t at, pfn_t frame)
{
	return !vm->config.home_frames || frame.v == at.v;
}

/* The frame is ours for good: nobody else has a reference, and so nobody can get one. */
static bool take_over(struct gn_vm *vm, gfn_t at, pfn_t frame)
{
	if (!gn_frames_is_own(vm->frames, frame) || gn_frames_refs(vm->frames, frame) != 1)
		return false;
	gn_p2m_set(vm, at, gn_p2m_word(GN_P2M_PRIVATE, GN_RWX, 1, frame));
	return true;
}

/* Could a vCPU go on for a while with what was shared, after it has seen what somebody stored to the copy, or stored later? Not if its hardware
 * is programmed by ranges: range_changing() has waited. */
static bool must_settle(const struct gn_vm *vm)
{
	const struct gn_backend_ops *backend = vm->config.backend;

	return backend && backend->quiesce &&
	       !(backend->range_changing && vm->vcpus[0].hw.kind == GN_HW_NESTED);
}

int gn_p2m_unshare(struct gn_vm *vm, gfn_t at)
{
	p2m_word_t w = gn_p2m_get(&vm->p2m, at);
	pfn_t old = gn_p2m_word_pfn(w), own;
	int err;

	GN_BUG_ON(gn_p2m_word_state(w) != GN_P2M_SHARED);
	if (is_at_home(vm, at, old) && take_over(vm, at, old))
		return 0;
	err = gn_p2m_alloc_copy(vm, at, &own);
	/* The others' references may only have been waiting to be put, or one be the anchor. */
	if (err == -ENOMEM && gn_frames_is_own(vm->frames, old))
		(void)gn_frames_give_anchor(vm->frames, old);
	if (err == -ENOMEM && take_over(vm, at, old))
		return 0;
	if (err)
		return err;
	memcpy(gn_frames_at(vm->frames, pfn_to_hpa(own)), gn_frames_at(vm->frames, pfn_to_hpa(old)),
	       GN_PAGE_SIZE);
	gn_p2m_change_begin(vm, at, gfn(at.v + 1), must_settle(vm));
	gn_p2m_set(vm, at, gn_p2m_word(GN_P2M_PRIVATE, GN_RWX, 1, own));
	gn_retire_frame(vm, old);
	gn_p2m_change_end(vm);
	return 0;
}

/* The word needs nothing of us: usable, or without a frame to give. In the midst of a change it has
 * no rights, and the caller waits for the lock. */
static bool is_settled(p2m_word_t w, bool write)
{
	switch (gn_p2m_word_state(w)) {
	case GN_P2M_PRIVATE:
		return gn_p2m_word_grants(w, GN_RWX);
	case GN_P2M_SHARED:
		return !write && gn_p2m_word_grants(w, GN_R);
	case GN_P2M_READONLY:
		return gn_p2m_word_grants(w, GN_R);
	case GN_P2M_UNBACKED:
		return false;
	default:
		return true;
	}
}

int gn_p2m_fault_in(struct gn_vm *vm, gfn_t at, bool write, p2m_word_t *out)
{
	p2m_word_t w = gn_p2m_get(&vm->p2m, at);
	int err = 0;

	if (GN_LIKELY(is_settled(w, write))) {
		*out = w;
		return 0;
	}
#ifdef GN_DEBUG
	GN_BUG_ON(gn_rcu_is_reading());
#endif
	gn_lock(&vm->p2m.lock);
	w = gn_p2m_get(&vm->p2m, at);
	if (gn_p2m_word_state(w) == GN_P2M_UNBACKED)
		err = fill(vm, at);
	else if (gn_p2m_word_state(w) == GN_P2M_SHARED && !is_settled(w, write))
		err = gn_p2m_unshare(vm, at);
	w = gn_p2m_get(&vm->p2m, at);
	gn_unlock(&vm->p2m.lock);
	if (!err)
		*out = w;
	return err;
}

/* Out of the balloon and filled. p2m lock held. */
static int grant(struct gn_vm *vm, gfn_t at)
{
	struct gn_p2m_fill f;
	int err = gn_p2m_fill_alloc(vm, at, gfn(0), &f);

	if (err)
		return err;
	GN_BUG_ON(f.level != 1); /* the gfn itself is not UNBACKED */
	gn_p2m_change_begin(vm, at, gfn(at.v + 1), false);
	gn_p2m_set(vm, at, gn_p2m_fill_word(&f, 0));
	gn_p2m_count(&vm->p2m.ballooned_pages, -(uint64_t)1);
	gn_p2m_change_end(vm);
	return 0;
}

/* By policy; what should be granted and finds no memory is denied, and an error. *again: the gfn is
 * not BALLOONED any more. */
static int touch_ballooned(struct gn_vm *vm, gfn_t at, bool write, bool *again)
{
	enum gn_touch_answer answer;
	int err = 0;

#ifdef GN_DEBUG
	GN_BUG_ON(gn_rcu_is_reading());
#endif
	gn_lock(&vm->p2m.lock);
	*again = gn_p2m_word_state(gn_p2m_get(&vm->p2m, at)) != GN_P2M_BALLOONED;
	if (*again)
		goto out;
	answer = atomic_load_explicit(&vm->touch_answer, memory_order_relaxed);
	if (answer == GN_TOUCH_GRANT) {
		err = grant(vm, at);
		if (err)
			answer = GN_TOUCH_DENY;
		*again = !err;
	}
	atomic_fetch_add_explicit(*again ? &vm->touches_granted : &vm->touches_denied, 1,
				  memory_order_relaxed);
	if (vm->touch_told)
		vm->touch_told(vm, at, write, answer, vm->touch_ctx);
out:
	gn_unlock(&vm->p2m.lock);
	return err;
}

int gn_p2m_resolve(struct gn_vm *vm, gfn_t at, bool write, p2m_word_t *word, struct gn_fix *fix)
{
	bool again;
	int err;

	do {
		again = false;
		err = gn_p2m_fault_in(vm, at, write, word);
		if (!err && GN_UNLIKELY(gn_p2m_word_state(*word) == GN_P2M_BALLOONED))
			err = touch_ballooned(vm, at, write, &again);
	} while (!err && again);
	if (err)
		return err;
	fix->kind = GN_FIX_RETRY;
	fix->gpa = gfn_to_gpa(at);
	switch (gn_p2m_word_state(*word)) {
	case GN_P2M_READONLY:
		if (write) {
			fix->kind = GN_FIX_DENIED;
			fix->why = "write to read-only memory";
		}
		break;
	case GN_P2M_BALLOONED:
		fix->kind = GN_FIX_DENIED;
		fix->why = "touch of a page given back to the balloon";
		break;
	case GN_P2M_MMIO:
		fix->kind = GN_FIX_MMIO;
		break;
	default:
		break;
	}
	return 0;
}
