/* SPDX-License-Identifier: MIT */
/*
 * p2m.c - the array of words, and what every writer of it goes through.
 *
 * A writer holds the p2m lock, so words change under one hand; readers load a word and take it as it is.
 * The one way to change a gfn that has a frame is begin -> set -> end:
 *
 *   begin  makes the sequence odd, takes all rights from the range's words, has the scheme forget the
 *          range, and posts the flush. From here on nobody can make a new translation to the range: who
 *          installs into a table checks the sequence, who goes by the word finds no right in it. Whoever
 *          still holds an old translation is inside an RCU read section that began before.
 *   set    gives the words their new meaning. The flush was posted before, so a CPU that sees an effect of
 *          the new word (another CPU's store to the new frame) sees the posted flush as well. One that does not look
 *          for flushes before each access has to be waited for: its backend has a quiesce().
 *   end    makes the sequence even. Old frames were retired, not freed: the sections mentioned
 *          above are over before they are handed out again.
 *
 * Where all gfns hold the same bytes afterwards (p2m_merge.c), only W is taken and only stores are held off; translations that remain are
 * moved to the new frames between set and end, with a flush of their own. A read through an old one finds the same bytes, in a frame that is
 * not reused before the flush has settled.
 *
 * Large blocks: a word's level says that its whole aligned block is one block of frames with one state and one
 * right. A change of a part splits the block first, i.e. lowers the level of every word in it; blocks do
 * not grow together again by themselves (p2m_collapse.c makes them whole).
 *
 * Deliberately absent: a tree. 8 bytes a gfn, lazily backed, are 0.2 % of the guest's RAM, and a lookup
 * is one load.
 */
#include "p2m.h"

#include <errno.h>

#include "p2m_writer.h"

#define LEAVING_RUNS 512 /* put at a time by a VM that ends */

/* Over a template RAM has all its frames from the start, and its frames are RAM's to the end. */
static void back_all(struct gn_p2m *p2m)
{
	for (uint64_t i = 0; i < p2m->gfn_count; i++)
		atomic_init(&p2m->words[i], gn_p2m_word(GN_P2M_PRIVATE, GN_RWX, 1, pfn(i)).v);
	atomic_init(&p2m->backed_pages, p2m->gfn_count);
}

int gn_p2m_init(struct gn_p2m *p2m, struct gn_vm *vm, uint64_t gfn_count, unsigned backing_level)
{
	p2m->words = gn_arena_zalloc(vm->arena, gfn_count * sizeof(p2m->words[0]));
	if (!p2m->words)
		return -ENOMEM;
	p2m->gfn_count = gfn_count;
	p2m->backing_level = backing_level;
	atomic_init(&p2m->sequence, 0);
	atomic_init(&p2m->backed_pages, 0);
	atomic_init(&p2m->ballooned_pages, 0);
	if (gn_vm_is_over_template(vm))
		back_all(p2m);
	gn_lock_init(&p2m->lock, GN_RANK_P2M);
	return 0;
}

/* The scheme is gone and no vCPU runs: frames go straight back. Those of a pool that stays go to the host. */
void gn_p2m_fini(struct gn_p2m *p2m, struct gn_vm *vm)
{
	uint64_t left = atomic_load_explicit(&p2m->backed_pages, memory_order_relaxed), pages;
	struct gn_frame_run runs[LEAVING_RUNS];
	size_t count = 0;

	if (gn_vm_is_over_template(vm)) {
		runs[count++] = (struct gn_frame_run){ .count = p2m->gfn_count, .to_host = true };
		left = 0;
	}
	for (uint64_t at = 0; at < p2m->gfn_count && left; at += pages) {
		p2m_word_t w = gn_p2m_get(p2m, gfn(at));

		pages = gn_p2m_alike(w, at, p2m->gfn_count);
		if (!gn_p2m_word_has_frame(w))
			continue;
		runs[count++] = (struct gn_frame_run){ .first = gn_p2m_word_pfn(w),
						       .count = pages,
						       .to_host = !vm->owns_frames };
		left -= pages;
		if (count == LEAVING_RUNS) {
			gn_frames_put_runs(vm->frames, runs, count);
			count = 0;
		}
	}
	gn_frames_put_runs(vm->frames, runs, count);
	gn_lock_fini(&p2m->lock);
	gn_arena_free(vm->arena, (void *)p2m->words, p2m->gfn_count * sizeof(p2m->words[0]));
}

/* ---- Readers ------------------------------------------------------------------------------------- */

uint64_t gn_p2m_begin_read(const struct gn_p2m *p2m)
{
	uint64_t sequence = atomic_load_explicit(&p2m->sequence, memory_order_acquire);

#ifdef GN_DEBUG
	GN_BUG_ON(gn_rcu_is_reading());
#endif
	while (GN_UNLIKELY(sequence & 1)) {
		/* The change ends before its writer lets go of the lock. */
		struct gn_lock *lock = (struct gn_lock *)&p2m->lock;

		gn_lock(lock);
		gn_unlock(lock);
		sequence = atomic_load_explicit(&p2m->sequence, memory_order_acquire);
	}
	return sequence;
}

/*
 * Why a plain load is enough: the caller holds its scheme's lock. If it took the lock before the writer's
 * range() did, what it installs is found and dropped by range(). If after, the writer's odd sequence is visible
 * through that lock. Or it is inside an RCU read section: one that begins when the writer waits for readers, or later, sees
 * the odd sequence, and the writer waits for one that began before. If it need not, for the dirty log says that none stores, who reads has
 * the frame until its section ends.
 */
bool gn_p2m_retry(const struct gn_p2m *p2m, uint64_t sequence)
{
	return atomic_load_explicit(&p2m->sequence, memory_order_acquire) != sequence;
}

void *gn_p2m_pointer(struct gn_vm *vm, gpa_t at)
{
	p2m_word_t w = gn_p2m_get(&vm->p2m, gpa_to_gfn(at));

	return gn_p2m_word_has_frame(w) ? gn_p2m_pointer_of(vm, w, at) : NULL;
}

void *gn_p2m_pointer_of(struct gn_vm *vm, p2m_word_t word, gpa_t at)
{
	return (uint8_t *)gn_frames_at(vm->frames, pfn_to_hpa(gn_p2m_word_pfn(word))) +
	       (at.v & (GN_PAGE_SIZE - 1));
}

int gn_p2m_query(struct gn_vm *vm, gfn_t at, struct gn_p2m_info *out)
{
	p2m_word_t w = gn_p2m_get(&vm->p2m, at);

	if (at.v >= vm->p2m.gfn_count)
		return -EINVAL;
	out->state = gn_p2m_word_state(w);
	out->pfn = gn_p2m_word_pfn(w);
	out->rights = gn_p2m_word_rights(w);
	out->level = gn_p2m_word_level(w);
	return 0;
}

/* ---- Writers --------------------------------------------------------------------------------------- */

void gn_p2m_set(struct gn_vm *vm, gfn_t at, p2m_word_t word)
{
	struct gn_p2m *p2m = &vm->p2m;
	p2m_word_t old = gn_p2m_get(p2m, at);

	gn_p2m_count(&p2m->backed_pages,
		     (uint64_t)gn_p2m_word_has_frame(word) - (uint64_t)gn_p2m_word_has_frame(old));
	/* Pairs with the acquire of gn_p2m_get(): the frame's contents come before its number. */
	atomic_store_explicit(&p2m->words[at.v], word.v, memory_order_release);
}

/* Afterwards no block crosses from below @boundary to @boundary or above. */
static void split(struct gn_vm *vm, gfn_t boundary)
{
	for (;;) {
		p2m_word_t w = gn_p2m_get(&vm->p2m, boundary);
		unsigned level = gn_p2m_word_level(w);
		uint64_t pages, start;

		if (level <= 1 || !(boundary.v & (gn_level_pages(level) - 1)))
			return;
		pages = gn_level_pages(level);
		start = boundary.v & ~(pages - 1);
		for (uint64_t i = start; i < start + pages; i++) {
			w = gn_p2m_get(&vm->p2m, gfn(i));
			gn_p2m_set(vm, gfn(i),
				   gn_p2m_word(gn_p2m_word_state(w), gn_p2m_word_rights(w),
					       level - 1, gn_p2m_word_pfn(w)));
		}
	}
}

/* Returns whether any word had a frame. */
static bool revoke_rights(struct gn_vm *vm, gfn_t start, gfn_t end, gn_rights_t what)
{
	const uint64_t rights = (uint64_t)what << GN_P2M_RIGHTS_SHIFT;
	const uint64_t next_frame = (uint64_t)1 << GN_P2M_PFN_SHIFT;
	bool any = false;

	for (uint64_t at = start.v, pages; at < end.v; at += pages) {
		p2m_word_t w = gn_p2m_get(&vm->p2m, gfn(at));

		pages = gn_p2m_alike(w, at, end.v);
		if (!gn_p2m_word_has_frame(w))
			continue;
		for (uint64_t i = 0; i < pages; i++)
			atomic_store_explicit(&vm->p2m.words[at + i],
					      (w.v & ~rights) + i * next_frame,
					      memory_order_release);
		any = true;
	}
	return any;
}

/* Nobody can make a new translation to the range any more that allows what is withdrawn. Returns whether there was anything to
 * cache: then a flush is owed. */
static bool withdraw(struct gn_vm *vm, gfn_t start, gfn_t end, gn_rights_t rights)
{
	if (start.v == end.v)
		return false;
	split(vm, start);
	split(vm, end);
	return revoke_rights(vm, start, end, rights);
}

static bool withdraw_runs(struct gn_vm *vm, const struct gn_gfn_run *runs, size_t count,
			  gn_rights_t rights)
{
	bool any = false;

	for (size_t i = 0; i < count; i++)
		any |= withdraw(vm, runs[i].start, gfn(runs[i].start.v + runs[i].count), rights);
	return any;
}

/* Over a template a backend may hold stores off at the memory itself. One of our own that looked at a word while it had rights must be over
 * by then: it would wait for the end of the change, and the change for it. */
static void await_stores(struct gn_vm *vm)
{
	if (gn_vm_is_over_template(vm))
		gn_rcu_synchronize();
}

/* Translations that there are go. */
static void forget(struct gn_vm *vm, const struct gn_gfn_run *runs, size_t count)
{
	if (count && vm->ops && vm->ops->range)
		vm->ops->range(vm, runs, count, GN_RANGE_ZAP);
	if (count)
		gn_vm_range_changing(vm, runs, count, GN_RANGE_ZAP);
}

static void sequence_begin(struct gn_vm *vm)
{
	struct gn_p2m *p2m = &vm->p2m;
	uint64_t sequence = atomic_load_explicit(&p2m->sequence, memory_order_relaxed);

	gn_lock_assert_held(&p2m->lock);
	GN_BUG_ON(sequence & 1);
	vm->is_unheld = false;
	atomic_store_explicit(&p2m->sequence, sequence + 1, memory_order_release);
}

void gn_p2m_note_unheld(struct gn_vm *vm)
{
	gn_lock_assert_held(&vm->p2m.lock);
	vm->is_unheld = true;
}

void gn_p2m_change_lock(struct gn_vm *vm)
{
#ifdef GN_DEBUG
	GN_BUG_ON(gn_rcu_is_reading());
#endif
	gn_lock(&vm->lock);
	gn_lock(&vm->p2m.lock);
}

void gn_p2m_change_unlock(struct gn_vm *vm)
{
	gn_unlock(&vm->p2m.lock);
	gn_unlock(&vm->lock);
}

void gn_p2m_change_give_way(struct gn_vm *vm)
{
	gn_lock_give_way(&vm->p2m.lock);
	gn_lock_give_way(&vm->lock);
}

void gn_p2m_change_tell(struct gn_vm *vm, gfn_t start, uint64_t count)
{
	const struct gn_backend_ops *backend = vm->config.backend;

	if (count && backend && backend->range_changed)
		backend->range_changed(vm, start, gfn(start.v + count));
}

void gn_p2m_change_begin(struct gn_vm *vm, gfn_t start, gfn_t end, bool settle)
{
	sequence_begin(vm);
	gn_p2m_change_extend(vm, start, end, settle);
}

void gn_p2m_change_begin_runs(struct gn_vm *vm, const struct gn_gfn_run *runs, size_t count)
{
	const struct gn_flush everything = { .scope = GN_FLUSH_ALL };
	bool cached;

	sequence_begin(vm);
	cached = withdraw_runs(vm, runs, count, GN_RWX);
	await_stores(vm);
	forget(vm, runs, count);
	if (cached)
		gn_vm_flush(vm, &everything);
}

bool gn_p2m_reads_can_go_on(const struct gn_vm *vm)
{
	const struct gn_backend_ops *backend = vm->config.backend;

	/* What is programmed by ranges forgets what moves. What goes on with a translation after its flush was posted would read the old frame
	 * when others have stored to the page's next one. */
	return vm->ops && (!vm->ops->range || vm->ops->moved) &&
	       !(backend && (backend->range_changing || backend->quiesce));
}

void gn_p2m_change_begin_readable(struct gn_vm *vm, const struct gn_gfn_run *runs, size_t count)
{
	const struct gn_flush everything = { .scope = GN_FLUSH_ALL };
	bool cached;

	GN_BUG_ON(!gn_p2m_reads_can_go_on(vm));
	sequence_begin(vm);
	cached = withdraw_runs(vm, runs, count, GN_W);
	if (vm->ops->range)
		vm->ops->range(vm, runs, count, GN_RANGE_WRPROTECT);
	if (cached)
		gn_vm_flush(vm, &everything);
	if (!gn_dirty_rules_out_stores(vm, runs, count))
		gn_vm_synchronize(vm);
}

void gn_p2m_change_moved(struct gn_vm *vm, const struct gn_gfn_run *runs, size_t count)
{
	const struct gn_flush everything = { .scope = GN_FLUSH_ALL };

	if (!vm->ops->moved || vm->ops->moved(vm, runs, count))
		gn_vm_flush(vm, &everything);
}

void gn_p2m_change_extend(struct gn_vm *vm, gfn_t start, gfn_t end, bool settle)
{
	const struct gn_flush everything = { .scope = GN_FLUSH_ALL };
	const struct gn_gfn_run run = { start, end.v - start.v };
	bool cached = withdraw(vm, start, end, GN_RWX);

	await_stores(vm);
	forget(vm, &run, 1);
	if (cached)
		gn_vm_flush(vm, &everything);
	if (cached && settle)
		gn_vm_synchronize(vm);
}

void gn_p2m_change_end(struct gn_vm *vm)
{
	const struct gn_backend_ops *backend = vm->config.backend;
	uint64_t sequence = atomic_load_explicit(&vm->p2m.sequence, memory_order_relaxed);

	GN_BUG_ON(!(sequence & 1));
	if (backend && backend->change_over)
		backend->change_over(vm);
	atomic_store_explicit(&vm->p2m.sequence, sequence + 1, memory_order_release);
}

/* A frame that is no gfn's home stays out of the way of those that will ask for theirs. */
static int alloc_away(struct gn_vm *vm, unsigned level, pfn_t *out)
{
	return vm->config.home_frames && level == 1 ? gn_frames_alloc_away(vm->frames, out)
						    : gn_frames_alloc(vm->frames, level, out);
}

int gn_p2m_alloc_copy(struct gn_vm *vm, gfn_t at, pfn_t *out)
{
	const uint64_t drains = gn_retire_drains(vm);
	const pfn_t place = pfn(at.v), *home = vm->config.home_frames ? &place : NULL;
	int err = gn_frames_alloc_copy(vm->frames, home, out);
	pfn_t other;

	if (err == -ENOMEM && gn_retire_drain_since(vm, drains))
		err = gn_frames_alloc_copy(vm->frames, home, out);
	/* A home that was given up a moment ago may only be waiting to be put; a page away from home costs the backend a mapping. */
	if (!err && home && out->v != home->v && gn_retire_drain_since(vm, drains) &&
	    !gn_frames_alloc_copy(vm->frames, home, &other)) {
		gn_frames_put(vm->frames, *out);
		*out = other;
	}
	return err;
}

int gn_p2m_alloc(struct gn_vm *vm, unsigned level, pfn_t *out)
{
	const uint64_t drains = gn_retire_drains(vm);
	int err = alloc_away(vm, level, out);

	if (err == -ENOMEM && gn_retire_drain_since(vm, drains))
		err = alloc_away(vm, level, out);
	return err;
}
