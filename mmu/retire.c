/* SPDX-License-Identifier: MIT */
/*
 * retire.c - the list of frames that wait for a grace period.
 *
 * gn_retire_frame() must not fail, for it is called half-way through a commit. So the list has room for
 * the worst case from the start, and the memory behind that room is only backed when used. The bound: a
 * reference waits on the list either as the only one of its frame, and then that frame can't be handed
 * out again before a drain (<= frame_count entries); or as a sharer's, that was dropped by a copy on write,
 * which took a frame that stays out of the pool just as long (<= frame_count more, on top of the
 * gfn_count sharers there can be to begin with). Hence 2 * frame_count + gfn_count. A run of frames is one entry. A page that
 * goes from one shared frame to another takes nothing out of the pool: merging asks for room first, and a list with
 * MERGED_MAX entries is drained. So as many more, and a batch.
 *
 * A drain swaps the two lists under the list's lock, waits, and puts what it took; frames retired
 * meanwhile belong to the next drain, since the grace period may have begun before they were unmapped.
 * Only one drain runs at a time, and a second one waits: its caller needs the frames, not just a promise. It then
 * may find an empty list, all of it put by the first one, and so "is another try worth it" can't be asked of
 * the list: completed drains are counted, and the count that matters is that of before the failed allocation.
 *
 * Why no call_rcu: its thread would free frames at times of its own choosing, and the numbers of the
 * frames handed out next (hence the cache behaviour that is modelled on them) would differ from run to run.
 */
#include "retire.h"

#include <errno.h>
#include <string.h>

#include "vm.h"

#define MERGED_MAX 32768

int gn_retire_init(struct gn_vm *vm)
{
	struct gn_retire *r = &vm->retire;

	r->capacity =
		2 * vm->frames->frame_count + vm->p2m.gfn_count + MERGED_MAX + GN_RETIRE_MERGE_RUNS;
	r->list = gn_arena_zalloc(vm->arena, r->capacity * sizeof(struct gn_frame_run));
	if (!r->list)
		return -ENOMEM;
	r->draining = gn_arena_zalloc(vm->arena, r->capacity * sizeof(struct gn_frame_run));
	if (!r->draining) {
		gn_arena_free(vm->arena, r->list, r->capacity * sizeof(struct gn_frame_run));
		return -ENOMEM;
	}
	gn_lock_init(&r->drain_lock, GN_RANK_DRAIN);
	gn_lock_init(&r->lock, GN_RANK_RETIRE);
	r->count = 0;
	atomic_init(&r->drains, 0);
	return 0;
}

void gn_retire_fini(struct gn_vm *vm)
{
	struct gn_retire *r = &vm->retire;

	gn_retire_drain(vm);
	gn_lock_fini(&r->lock);
	gn_lock_fini(&r->drain_lock);
	gn_arena_free(vm->arena, r->draining, r->capacity * sizeof(struct gn_frame_run));
	gn_arena_free(vm->arena, r->list, r->capacity * sizeof(struct gn_frame_run));
}

void gn_retire_frame(struct gn_vm *vm, pfn_t frame)
{
	const struct gn_frame_run run = { .first = frame, .count = 1 };

	gn_retire_runs(vm, &run, 1);
}

void gn_retire_runs(struct gn_vm *vm, const struct gn_frame_run *runs, size_t count)
{
	struct gn_retire *r = &vm->retire;

	gn_lock(&r->lock);
	GN_BUG_ON(count > r->capacity - r->count);
	memcpy(&r->list[r->count], runs, count * sizeof(*runs));
	__atomic_store_n(&r->count, r->count + count, __ATOMIC_RELAXED);
	gn_unlock(&r->lock);
}

uint64_t gn_retire_drains(const struct gn_vm *vm)
{
	return atomic_load_explicit(&vm->retire.drains, memory_order_relaxed);
}

/* Relaxed will do: what matters is a drain that put frames after an allocation failed. The failed allocation left the
 * pool's lock before that drain took it, so the number taken before does not count it. */
bool gn_retire_drain_since(struct gn_vm *vm, uint64_t drains)
{
	gn_retire_drain(vm);
	return gn_retire_drains(vm) != drains;
}

static void drain(struct gn_vm *vm, bool always)
{
	struct gn_retire *r = &vm->retire;
	size_t count;
	struct gn_frame_run *list;

	gn_lock(&r->drain_lock);
	gn_lock(&r->lock);
	count = r->count;
	list = r->list;
	r->list = r->draining;
	r->draining = list;
	__atomic_store_n(&r->count, 0, __ATOMIC_RELAXED);
	gn_unlock(&r->lock);
	if (count || always)
		gn_vm_synchronize(vm);
	if (count) {
		atomic_fetch_add_explicit(&vm->released_bytes,
					  gn_frames_put_runs(vm->frames, list, count),
					  memory_order_relaxed);
		atomic_fetch_add_explicit(&r->drains, 1, memory_order_relaxed);
	}
	gn_unlock(&r->drain_lock);
}

void gn_retire_drain(struct gn_vm *vm)
{
	drain(vm, false);
}

void gn_retire_drain_always(struct gn_vm *vm)
{
	drain(vm, true);
}

void gn_retire_make_room(struct gn_vm *vm)
{
	gn_lock_assert_held(&vm->p2m.lock);
	if (GN_UNLIKELY(__atomic_load_n(&vm->retire.count, __ATOMIC_RELAXED) >= MERGED_MAX))
		gn_retire_drain(vm);
}

void gn_retire_poll(struct gn_vm *vm)
{
	if (__atomic_load_n(&vm->retire.count, __ATOMIC_RELAXED) >= GN_RETIRE_BATCH)
		gn_retire_drain(vm);
}
