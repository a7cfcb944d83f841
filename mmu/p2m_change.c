/* SPDX-License-Identifier: MIT */
/*
 * p2m_change.c - changes of ranges, asked for from outside the guest: balloon, sharing, migration,
 * MMIO.
 *
 * Each operation has two halves. The first may fail: it checks every gfn's state and allocates all
 * it will need, into a plan of one word a gfn where the outcome is not uniform. The second can't
 * fail: begin, set the words, retire what was there, end. So an operation happens as a whole or not
 * at all. gn_p2m_drop_allowed() is the exception: who owns pages by the thousand can't hold them
 * still, so there what is refused is left out and told, and the rest happens.
 *
 * Who asks for equal or stable contents (share, move) gets them under protection: begin() with
 * settle waits until no vCPU holds a translation to the range any more, and only then are bytes
 * compared or copied. A comparison made before that would be a guess (TRAPS of every page sharer).
 *
 * States an operation refuses (-EINVAL), so that nothing is re-granted or lost behind the VMM's
 * back:
 *
 *             UNBACKED  PRIVATE  SHARED  READONLY  BALLOONED  MMIO
 *   populate     ok       ok       ok       ok       -         -
 *   discard      ok       ok       ok       ok       -         ok
 *   balloon      ok       ok       ok       -        -         -
 *   unballoon    -        -        -        -        ok        -
 *   protect      ok       ok       ok       ok       -         -
 *   set_mmio     ok       ok       ok       ok       ok        ok
 *   move         ok       ok       ok       ok       -         -
 *   share        -        ok       ok       -        -         -
 *
 * Over a template a gfn's frame is its own for good: what would take it away, or give it to others, is refused whatever the
 * state, but for set_mmio, after which the frame is the VM's still.
 *
 * Locks: gn_p2m_change_lock().
 */
#include <errno.h>
#include <string.h>

#include "p2m_writer.h"

#define LEAVERS	      64 /* runs told to the retire list at a time */
#define PARTS	      64 /* of runs, changed at a time */
#define BIT_OF(state) (1u << (state))
enum {
	WITH_FRAME = BIT_OF(GN_P2M_PRIVATE) | BIT_OF(GN_P2M_SHARED) | BIT_OF(GN_P2M_READONLY),
	RAM = WITH_FRAME | BIT_OF(GN_P2M_UNBACKED),
	ANY = RAM | BIT_OF(GN_P2M_BALLOONED) | BIT_OF(GN_P2M_MMIO),
};

/* Every gfn's state is allowed. The range lies in RAM. */
static int check(struct gn_vm *vm, gfn_t start, uint64_t count, unsigned allowed)
{
	const uint64_t end = start.v + count;
	unsigned seen = 0;

	for (uint64_t at = start.v; at < end;) {
		p2m_word_t w = gn_p2m_get(&vm->p2m, gfn(at));

		seen |= BIT_OF(gn_p2m_word_state(w));
		at += gn_p2m_alike(w, at, end);
	}
	return seen & ~allowed ? -EINVAL : 0;
}

static void unlock_after_change(struct gn_vm *vm, gfn_t start, uint64_t count)
{
	gn_p2m_change_unlock(vm);
	gn_p2m_change_tell(vm, start, count);
	gn_retire_poll(vm);
}

/* ---- Plans ----------------------------------------------------------------------------------- */

/* What each gfn of [start, start+count) will be; a word of 0 (UNBACKED) leaves it as it is. */
struct plan {
	gfn_t start;
	uint64_t count;
	p2m_word_t *words;
};

static int plan_new(struct gn_vm *vm, struct plan *plan, gfn_t start, uint64_t count)
{
	plan->start = start;
	plan->count = count;
	plan->words = gn_arena_zalloc(vm->arena, count * sizeof(plan->words[0]));
	return plan->words ? 0 : -ENOMEM;
}

static void plan_free(struct gn_vm *vm, struct plan *plan)
{
	gn_arena_free(vm->arena, plan->words, plan->count * sizeof(plan->words[0]));
}

/* Frames that were planned and will not be used. */
static void plan_put_frames(struct gn_vm *vm, struct plan *plan)
{
	for (uint64_t i = 0; i < plan->count; i++)
		if (plan->words[i].v)
			gn_frames_put(vm->frames, gn_p2m_word_pfn(plan->words[i]));
}

/* ---- Populate -------------------------------------------------------------------------------- */

static int populate_locked(struct gn_vm *vm, gfn_t start, uint64_t count)
{
	uint64_t pages = gn_level_pages(vm->p2m.backing_level);
	uint64_t first = start.v & ~(pages - 1);
	uint64_t end = (start.v + count + pages - 1) & ~(pages - 1);
	gfn_t planned = { 0 }; /* the end of the last fill */
	struct plan plan;
	int err;

	/* Blocks that begin or end beyond the range are filled whole. */
	if (end > vm->p2m.gfn_count)
		end = vm->p2m.gfn_count;
	err = plan_new(vm, &plan, gfn(first), end - first);
	if (err)
		return err;
	for (uint64_t at = start.v; at < start.v + count; at++) {
		struct gn_p2m_fill fill;

		if (plan.words[at - first].v ||
		    gn_p2m_word_state(gn_p2m_get(&vm->p2m, gfn(at))) != GN_P2M_UNBACKED)
			continue;
		err = gn_p2m_fill_alloc(vm, gfn(at), planned, &fill);
		if (err) {
			plan_put_frames(vm, &plan);
			goto out;
		}
		for (uint64_t i = 0; i < gn_level_pages(fill.level); i++)
			plan.words[fill.start.v - first + i] = gn_p2m_fill_word(&fill, i);
		planned = gfn(fill.start.v + gn_level_pages(fill.level));
	}
	for (uint64_t i = 0; i < plan.count; i++)
		if (plan.words[i].v)
			gn_p2m_set(vm, gfn(first + i), plan.words[i]);
out:
	plan_free(vm, &plan);
	return err;
}

int gn_p2m_populate(struct gn_vm *vm, gfn_t start, uint64_t count)
{
	int err;

	if (!gn_p2m_is_in_ram(&vm->p2m, start, count))
		return -EINVAL;
	if (!count)
		return 0;
	gn_p2m_change_lock(vm);
	err = check(vm, start, count, RAM);
	if (!err)
		err = populate_locked(vm, start, count);
	unlock_after_change(vm, start, count);
	return err;
}

/* ---- Frames leave ---------------------------------------------------------------------------- */

/* Frames that were gfns' a moment ago, joined where they are neighbours and told to the retire list
 * in lots. */
struct leavers {
	struct gn_vm *vm;
	size_t count;
	struct gn_frame_run runs[LEAVERS];
};

static void leavers_flush(struct leavers *l)
{
	gn_retire_runs(l->vm, l->runs, l->count);
	l->count = 0;
}

static inline void leavers_add(struct leavers *l, pfn_t first, uint64_t count)
{
	struct gn_frame_run *last = l->count ? &l->runs[l->count - 1] : NULL;

	if (last && last->first.v + last->count == first.v) {
		last->count += count;
		return;
	}
	if (l->count == LEAVERS)
		leavers_flush(l);
	l->runs[l->count++] =
		(struct gn_frame_run){ .first = first, .count = count, .to_host = true };
}

/* Every word of the run becomes @state, which has no frame. */
static void drop_run(struct gn_vm *vm, const struct gn_gfn_run *run, enum gn_p2m_state state,
		     struct leavers *leavers)
{
	const p2m_word_t word = gn_p2m_word(state, 0, 0, pfn(0));
	const uint64_t end = run->start.v + run->count;
	const bool is_logged = gn_dirty_is_logged(vm);
	uint64_t unbacked = 0, unballooned = 0;

	for (uint64_t at = run->start.v, pages; at < end; at += pages) {
		p2m_word_t old = gn_p2m_get(&vm->p2m, gfn(at));

		pages = gn_p2m_alike(old, at, end);
		for (uint64_t i = 0; i < pages; i++)
			atomic_store_explicit(&vm->p2m.words[at + i], word.v, memory_order_release);
		unballooned += gn_p2m_word_state(old) == GN_P2M_BALLOONED;
		if (!gn_p2m_word_has_frame(old))
			continue;
		unbacked += pages;
		if (!gn_vm_is_over_template(vm))
			leavers_add(leavers, gn_p2m_word_pfn(old), pages);
		for (uint64_t i = 0; is_logged && i < pages; i++)
			gn_dirty_mark(vm, gfn(at + i)); /* its contents are gone */
	}
	gn_p2m_count(&vm->p2m.backed_pages, -unbacked);
	gn_p2m_count(&vm->p2m.ballooned_pages,
		     (state == GN_P2M_BALLOONED ? run->count : 0) - unballooned);
}

static void drop_locked(struct gn_vm *vm, const struct gn_gfn_run *runs, size_t count,
			enum gn_p2m_state state)
{
	struct leavers leavers;

	leavers.vm = vm;
	leavers.count = 0;
	gn_p2m_change_begin_runs(vm, runs, count);
	for (size_t i = 0; i < count; i++)
		drop_run(vm, &runs[i], state, &leavers);
	leavers_flush(&leavers);
	gn_p2m_change_end(vm);
}

/* In RAM, sorted, disjoint; *pages is their sum. */
static int check_runs(const struct gn_vm *vm, const struct gn_gfn_run *runs, size_t count,
		      uint64_t *pages)
{
	uint64_t floor = 0;

	*pages = 0;
	for (size_t i = 0; i < count; i++) {
		if (!gn_p2m_is_in_ram(&vm->p2m, runs[i].start, runs[i].count) ||
		    runs[i].start.v < floor)
			return -EINVAL;
		floor = runs[i].start.v + runs[i].count;
		*pages += runs[i].count;
	}
	return 0;
}

/* What the operations on runs make of a gfn, and which they refuse. */
static const struct drop_kind {
	unsigned allowed;
	enum gn_p2m_state state;
} drop_kinds[] = {
	[GN_P2M_DROP_DISCARD] = { ANY & ~BIT_OF(GN_P2M_BALLOONED), GN_P2M_UNBACKED },
	[GN_P2M_DROP_BALLOON] = { RAM & ~BIT_OF(GN_P2M_READONLY), GN_P2M_BALLOONED },
	[GN_P2M_DROP_UNBALLOON] = { BIT_OF(GN_P2M_BALLOONED), GN_P2M_UNBACKED },
	[GN_P2M_DROP_TO_MMIO] = { ANY, GN_P2M_MMIO },
};

static unsigned allowed_by(const struct gn_vm *vm, const struct drop_kind *kind)
{
	return gn_vm_is_over_template(vm) && kind->state != GN_P2M_MMIO ? 0 : kind->allowed;
}

/* The gfns whose state is allowed, by as few changes as there is room for; the others are told. */
static void drop_parts(struct gn_vm *vm, const struct gn_gfn_run *runs, size_t count,
		       const struct drop_kind *kind, gn_p2m_left_out_fn *left_out, void *ctx)
{
	const unsigned allowed = allowed_by(vm, kind);
	struct gn_gfn_run parts[PARTS];
	uint64_t part_end = 0;
	size_t n = 0;

	for (size_t i = 0; i < count; i++) {
		const uint64_t end = runs[i].start.v + runs[i].count;

		for (uint64_t at = runs[i].start.v; at < end; at++) {
			if (!(allowed & BIT_OF(gn_p2m_word_state(gn_p2m_get(&vm->p2m, gfn(at)))))) {
				left_out(ctx, gfn(at));
				continue;
			}
			if (!n || part_end != at) {
				if (n == PARTS) {
					drop_locked(vm, parts, n, kind->state);
					n = 0;
				}
				parts[n++] = (struct gn_gfn_run){ gfn(at), 0 };
			}
			parts[n - 1].count++;
			part_end = at + 1;
		}
	}
	drop_locked(vm, parts, n, kind->state);
}

/* One change of all, or an error and none; with @left_out, what is not allowed is left out. What
 * had a frame goes to the host before we return. */
static int drop(struct gn_vm *vm, const struct gn_gfn_run *runs, size_t count,
		enum gn_p2m_drop_kind kind, gn_p2m_left_out_fn *left_out, void *ctx,
		uint64_t *done_pages)
{
	const struct drop_kind *how = &drop_kinds[kind];
	uint64_t pages;
	int err = check_runs(vm, runs, count, &pages);

	if (done_pages)
		*done_pages = 0;
	if (err || !pages)
		return err;
	gn_p2m_change_lock(vm);
	for (size_t i = 0; i < count && !err; i++)
		err = check(vm, runs[i].start, runs[i].count, allowed_by(vm, how));
	if (!err) {
		drop_locked(vm, runs, count, how->state);
	} else if (left_out) {
		drop_parts(vm, runs, count, how, left_out, ctx);
		err = 0;
	}
	gn_p2m_change_unlock(vm);
	if (err)
		return err;
	for (size_t i = 0; i < count; i++)
		gn_p2m_change_tell(vm, runs[i].start, runs[i].count);
	gn_retire_drain(vm);
	if (done_pages)
		*done_pages = pages;
	return 0;
}

void gn_p2m_drop_allowed(struct gn_vm *vm, const struct gn_gfn_run *runs, size_t count,
			 enum gn_p2m_drop_kind kind, gn_p2m_left_out_fn *left_out, void *ctx)
{
	int err = drop(vm, runs, count, kind, left_out, ctx, NULL);

	GN_BUG_ON(err);
}

int gn_p2m_discard_runs(struct gn_vm *vm, const struct gn_gfn_run *runs, size_t count,
			uint64_t *done_pages)
{
	return drop(vm, runs, count, GN_P2M_DROP_DISCARD, NULL, NULL, done_pages);
}

int gn_p2m_discard(struct gn_vm *vm, gfn_t start, uint64_t count)
{
	const struct gn_gfn_run run = { start, count };

	return drop(vm, &run, 1, GN_P2M_DROP_DISCARD, NULL, NULL, NULL);
}

int gn_p2m_balloon_runs(struct gn_vm *vm, const struct gn_gfn_run *runs, size_t count,
			uint64_t *done_pages)
{
	return drop(vm, runs, count, GN_P2M_DROP_BALLOON, NULL, NULL, done_pages);
}

int gn_p2m_balloon(struct gn_vm *vm, gfn_t start, uint64_t count)
{
	const struct gn_gfn_run run = { start, count };

	return drop(vm, &run, 1, GN_P2M_DROP_BALLOON, NULL, NULL, NULL);
}

int gn_p2m_unballoon_runs(struct gn_vm *vm, const struct gn_gfn_run *runs, size_t count,
			  uint64_t *done_pages)
{
	return drop(vm, runs, count, GN_P2M_DROP_UNBALLOON, NULL, NULL, done_pages);
}

int gn_p2m_unballoon(struct gn_vm *vm, gfn_t start, uint64_t count)
{
	const struct gn_gfn_run run = { start, count };

	return drop(vm, &run, 1, GN_P2M_DROP_UNBALLOON, NULL, NULL, NULL);
}

int gn_p2m_set_mmio(struct gn_vm *vm, gfn_t start, uint64_t count)
{
	const struct gn_gfn_run run = { start, count };

	return drop(vm, &run, 1, GN_P2M_DROP_TO_MMIO, NULL, NULL, NULL);
}

/* ---- The balloon's rules and books ----------------------------------------------------------- */

void gn_vm_set_ballooned_touch(struct gn_vm *vm, enum gn_touch_answer answer, gn_touch_fn *told,
			       void *ctx)
{
	gn_lock(&vm->p2m.lock);
	atomic_store_explicit(&vm->touch_answer, answer, memory_order_relaxed);
	vm->touch_told = told;
	vm->touch_ctx = ctx;
	gn_unlock(&vm->p2m.lock);
}

void gn_vm_balloon_usage(const struct gn_vm *vm, struct gn_balloon_usage *out)
{
	out->ballooned_pages = atomic_load_explicit(&vm->p2m.ballooned_pages, memory_order_relaxed);
	out->touches_denied = atomic_load_explicit(&vm->touches_denied, memory_order_relaxed);
	out->touches_granted = atomic_load_explicit(&vm->touches_granted, memory_order_relaxed);
	out->released_bytes = atomic_load_explicit(&vm->released_bytes, memory_order_relaxed);
}

/* ---- Protect --------------------------------------------------------------------------------- */

/* A read-only gfn owns its frame: what has none gets one, what shares one gets a copy. Invisible to
 * the guest, so it may stay if the protection then fails. */
static int own_frames_locked(struct gn_vm *vm, gfn_t start, uint64_t count)
{
	int err = populate_locked(vm, start, count);

	for (uint64_t i = start.v; !err && i < start.v + count; i++)
		if (gn_p2m_word_state(gn_p2m_get(&vm->p2m, gfn(i))) == GN_P2M_SHARED)
			err = gn_p2m_unshare(vm, gfn(i));
	return err;
}

int gn_p2m_protect(struct gn_vm *vm, gfn_t start, uint64_t count, bool readonly)
{
	enum gn_p2m_state from = readonly ? GN_P2M_PRIVATE : GN_P2M_READONLY;
	enum gn_p2m_state to = readonly ? GN_P2M_READONLY : GN_P2M_PRIVATE;
	gn_rights_t rights = readonly ? GN_R | GN_X : GN_RWX;
	int err;

	if (!gn_p2m_is_in_ram(&vm->p2m, start, count))
		return -EINVAL;
	if (!count)
		return 0;
	gn_p2m_change_lock(vm);
	err = check(vm, start, count, RAM);
	if (!err && readonly)
		err = own_frames_locked(vm, start, count);
	if (err)
		goto out;
	/* Settled, so that after we return no store of the guest reaches what is read-only now. */
	gn_p2m_change_begin(vm, start, gfn(start.v + count), readonly);
	for (uint64_t i = start.v; i < start.v + count; i++) {
		p2m_word_t w = gn_p2m_get(&vm->p2m, gfn(i));
		enum gn_p2m_state state = gn_p2m_word_state(w);

		/* What was SHARED stays as it was (only when unprotecting). */
		gn_p2m_set(
			vm, gfn(i),
			state == from || state == to
				? gn_p2m_word(to, rights, gn_p2m_word_level(w), gn_p2m_word_pfn(w))
				: gn_p2m_word_at_rest(w));
	}
	gn_p2m_change_end(vm);
out:
	unlock_after_change(vm, start, count);
	return err;
}

/* ---- Move ------------------------------------------------------------------------------------ */

/* New frames for every gfn that has one, in blocks as large as the old ones where they fit the
 * range. */
static int plan_move(struct gn_vm *vm, struct plan *plan)
{
	uint64_t end = plan->start.v + plan->count, pages;

	for (uint64_t at = plan->start.v; at < end; at += pages) {
		p2m_word_t w = gn_p2m_get(&vm->p2m, gfn(at));
		unsigned level = gn_p2m_word_level(w);
		pfn_t frame;
		int err;

		pages = 1;
		if (!gn_p2m_word_has_frame(w))
			continue;
		while (level > 1 &&
		       ((at & (gn_level_pages(level) - 1)) || gn_level_pages(level) > end - at))
			level--;
		while ((err = gn_p2m_alloc(vm, level, &frame)) && level > 1)
			level--;
		if (err)
			return err;
		pages = gn_level_pages(level);
		for (uint64_t i = 0; i < pages; i++)
			plan->words[at - plan->start.v + i] =
				gn_p2m_word_moved(w, level, pfn(frame.v + i));
	}
	return 0;
}

static void commit_move(struct gn_vm *vm, const struct plan *plan)
{
	for (uint64_t i = 0; i < plan->count; i++) {
		gfn_t at = gfn(plan->start.v + i);
		pfn_t old = gn_p2m_word_pfn(gn_p2m_get(&vm->p2m, at));

		if (!plan->words[i].v)
			continue;
		memcpy(gn_frames_at(vm->frames, pfn_to_hpa(gn_p2m_word_pfn(plan->words[i]))),
		       gn_frames_at(vm->frames, pfn_to_hpa(old)), GN_PAGE_SIZE);
		gn_p2m_set(vm, at, plan->words[i]);
		gn_retire_frame(vm, old);
	}
}

int gn_p2m_move(struct gn_vm *vm, gfn_t start, uint64_t count)
{
	struct plan plan;
	int err;

	if (!gn_p2m_is_in_ram(&vm->p2m, start, count) || gn_vm_is_over_template(vm))
		return -EINVAL;
	if (!count)
		return 0;
	gn_p2m_change_lock(vm);
	err = check(vm, start, count, RAM);
	if (err)
		goto out;
	err = plan_new(vm, &plan, start, count);
	if (err)
		goto out;
	err = plan_move(vm, &plan);
	if (err) {
		plan_put_frames(vm, &plan);
	} else {
		gn_p2m_change_begin(vm, start, gfn(start.v + count), true);
		commit_move(vm, &plan);
		gn_p2m_change_end(vm);
	}
	plan_free(vm, &plan);
out:
	unlock_after_change(vm, start, count);
	return err;
}

/* ---- Share ----------------------------------------------------------------------------------- */

/* One change of two gfns that need not be neighbours. */
static int share_locked(struct gn_vm *vm, gfn_t keep, gfn_t give)
{
	pfn_t kept = gn_p2m_word_pfn(gn_p2m_get(&vm->p2m, keep));
	pfn_t given = gn_p2m_word_pfn(gn_p2m_get(&vm->p2m, give));
	p2m_word_t old_keep, old_give;
	bool equal;

	if (kept.v == given.v)
		return 0;
	gn_p2m_change_begin(vm, keep, gfn(keep.v + 1), false);
	gn_p2m_change_extend(vm, give, gfn(give.v + 1), true);
	old_keep = gn_p2m_get(&vm->p2m, keep);
	old_give = gn_p2m_get(&vm->p2m, give);
	equal = !memcmp(gn_frames_at(vm->frames, pfn_to_hpa(kept)),
			gn_frames_at(vm->frames, pfn_to_hpa(given)), GN_PAGE_SIZE);
	if (equal) {
		/* A seal is kept, and covers both: by neither may be told that they are one. */
		p2m_word_t shared = gn_p2m_word(GN_P2M_SHARED, 0, 1, kept);

		gn_frames_get(vm->frames, kept);
		shared.v |= (old_keep.v | old_give.v) & GN_P2M_SEALED;
		gn_p2m_set(vm, keep, gn_p2m_word_at_rest(shared));
		gn_p2m_set(vm, give, gn_p2m_word_at_rest(shared));
		gn_retire_frame(vm, given);
	} else {
		gn_p2m_set(vm, keep, gn_p2m_word_at_rest(old_keep));
		gn_p2m_set(vm, give, gn_p2m_word_at_rest(old_give));
	}
	gn_p2m_change_end(vm);
	return equal ? 0 : -EINVAL;
}

int gn_p2m_share(struct gn_vm *vm, gfn_t keep, gfn_t give)
{
	const unsigned allowed = BIT_OF(GN_P2M_PRIVATE) | BIT_OF(GN_P2M_SHARED);
	int err = -EINVAL;

	if (keep.v == give.v || !gn_p2m_is_in_ram(&vm->p2m, keep, 1) ||
	    !gn_p2m_is_in_ram(&vm->p2m, give, 1) || gn_vm_is_over_template(vm))
		return -EINVAL;
	gn_p2m_change_lock(vm);
	if (!check(vm, keep, 1, allowed) && !check(vm, give, 1, allowed))
		err = share_locked(vm, keep, give);
	unlock_after_change(vm, keep, 1);
	gn_p2m_change_tell(vm, give, 1);
	return err;
}
