/* SPDX-License-Identifier: MIT */
/*
 * dirty.c - which pages the guest wrote, by write protection; and which it used, by accessed bits.
 *
 * One bit a gfn. While the log is on, a scheme maps nothing writable without marking the gfn first, and
 * leaves are 4 KiB; a harvest takes the marks away and write-protects what was marked again. So "not
 * marked" means "nobody can write it": the log is never too small.
 *
 * Starting and harvesting are changes in the sense of p2m.c (the sequence is odd meanwhile): a fault that
 * marked before the harvest took its mark, or looked before the log was on, may not install what it found.
 * Both end with a grace period, after which no CPU writes through a translation from before; whoever copies
 * the harvested pages afterwards misses nothing.
 *
 * Who stores through a p2m word, and not through a scheme's leaf, marks first, looks whether the word allows it,
 * and stores, all in one read section; or holds the p2m's sequence from before the mark against the present one
 * in the section in which it stores. A harvest that takes the mark waits for that section, and changes the
 * sequence. And a change that withdrew W and then finds no mark need not wait for anybody
 * (gn_dirty_rules_out_stores()): pages that stood still until they are merged cost no grace period.
 */
#include <errno.h>
#include <string.h>

#include "vm.h"

static size_t bitmap_bytes(const struct gn_vm *vm)
{
	return (vm->p2m.gfn_count + 7) / 8;
}

static void sequence_step(struct gn_vm *vm)
{
	uint64_t s = atomic_load_explicit(&vm->p2m.sequence, memory_order_relaxed);

	atomic_store_explicit(&vm->p2m.sequence, s + 1, memory_order_release);
}

static void wrprotect(struct gn_vm *vm, gfn_t start, gfn_t end)
{
	const struct gn_gfn_run run = { start, end.v - start.v };

	if (vm->ops->range)
		vm->ops->range(vm, &run, 1, GN_RANGE_WRPROTECT);
	gn_vm_range_changing(vm, &run, 1, GN_RANGE_WRPROTECT);
}

/* Hardware that keeps a log of its own starts or stops it. vm->lock held. */
static int hardware_log(struct gn_vm *vm, bool on)
{
	const struct gn_backend_ops *backend = vm->config.backend;

	return backend && backend->dirty_log ? backend->dirty_log(vm, on) : 0;
}

/* What it logged so far becomes marks of ours. vm->lock held. */
static int hardware_sync(struct gn_vm *vm)
{
	const struct gn_backend_ops *backend = vm->config.backend;

	return backend && backend->dirty_sync ? backend->dirty_sync(vm) : 0;
}

/* What the hardware caches of the tables is no longer true; nobody uses it after this. */
static void flush_and_settle(struct gn_vm *vm)
{
	const struct gn_flush everything = { .scope = GN_FLUSH_ALL };

	gn_vm_flush(vm, &everything);
	gn_vm_synchronize(vm);
}

bool gn_dirty_is_marked(struct gn_vm *vm, gfn_t at)
{
	uint8_t *bitmap;
	bool marked = false;

	gn_rcu_read_lock();
	bitmap = atomic_load_explicit(&vm->dirty_bitmap, memory_order_acquire);
	if (bitmap && at.v < vm->p2m.gfn_count)
		marked = __atomic_load_n(&bitmap[at.v / 8], __ATOMIC_RELAXED) >> (at.v % 8) & 1;
	gn_rcu_read_unlock();
	return marked;
}

void gn_dirty_mark(struct gn_vm *vm, gfn_t at)
{
	uint8_t bit = (uint8_t)(1u << (at.v % 8)), *bitmap;

	gn_rcu_read_lock();
	bitmap = atomic_load_explicit(&vm->dirty_bitmap, memory_order_acquire);
	if (bitmap && at.v < vm->p2m.gfn_count)
		__atomic_fetch_or(&bitmap[at.v / 8], bit, __ATOMIC_SEQ_CST);
	gn_rcu_read_unlock();
}

/*
 * Through a leaf: it was made writable before range() was told, so there is a mark by then, or it is not until
 * the change is over. Through a word: mark and look here are read-modify-writes of one byte, so one comes first.
 * If it is the mark, we see it. If it is ours, the mark acquires what we released, and who made it sees that the
 * word has lost W.
 */
static bool is_any_marked(uint8_t *bitmap, const struct gn_gfn_run *run)
{
	const uint64_t end = run->start.v + run->count;

	for (uint64_t at = run->start.v, next; at < end; at = next) {
		unsigned bits = 0xff << (at % 8);

		next = (at | 7) + 1;
		if (next > end) {
			bits &= 0xff >> (next - end);
			next = end;
		}
		if (__atomic_fetch_or(&bitmap[at / 8], 0, __ATOMIC_ACQ_REL) & bits)
			return true;
	}
	return false;
}

bool gn_dirty_rules_out_stores(struct gn_vm *vm, const struct gn_gfn_run *runs, size_t count)
{
	const struct gn_backend_ops *backend = vm->config.backend;
	uint8_t *bitmap = atomic_load_explicit(&vm->dirty_bitmap, memory_order_relaxed);

	gn_lock_assert_held(&vm->p2m.lock);
	if (!bitmap || (backend && backend->dirty_sync))
		return false;
	for (size_t i = 0; i < count; i++)
		if (is_any_marked(bitmap, &runs[i]))
			return false;
	return true;
}

void gn_dirty_note(struct gn_vm *vm, gfn_t at)
{
	gn_dirty_mark(vm, at);
}

/* vm->lock held. */
static int start(struct gn_vm *vm)
{
	uint8_t *bitmap;
	int err = 0;

	gn_lock(&vm->p2m.lock);
	/* (A scheme that keeps tables is none such, and its vCPUs may be writing what they run on.) */
	if (!vm->ops->keeps_tables && vm->vcpus[0].hw.kind == GN_HW_GUEST) {
		err = -EOPNOTSUPP;
		goto out;
	}
	if (gn_dirty_is_logged(vm)) {
		err = -EALREADY;
		goto out;
	}
	bitmap = gn_arena_zalloc(vm->arena, bitmap_bytes(vm));
	if (!bitmap) {
		err = -ENOMEM;
		goto out;
	}
	sequence_step(vm);
	atomic_store_explicit(&vm->dirty_bitmap, bitmap, memory_order_release);
	wrprotect(vm, gfn(0), gfn(vm->p2m.gfn_count));
	flush_and_settle(vm);
	sequence_step(vm);
out:
	gn_unlock(&vm->p2m.lock);
	return err;
}

/* vm->lock held. The scheme's leaves stay as they are: the next fault on each gives W back. */
static void stop(struct gn_vm *vm)
{
	uint8_t *bitmap;

	gn_lock(&vm->p2m.lock);
	bitmap = atomic_load_explicit(&vm->dirty_bitmap, memory_order_relaxed);
	atomic_store_explicit(&vm->dirty_bitmap, NULL, memory_order_release);
	if (bitmap) {
		gn_rcu_synchronize(); /* its readers are of the engine: the guest may run on */
		gn_arena_free(vm->arena, bitmap, bitmap_bytes(vm));
	}
	gn_unlock(&vm->p2m.lock);
}

int gn_dirty_start(struct gn_vm *vm)
{
	int err;

	gn_lock(&vm->lock);
	err = start(vm);
	if (!err) {
		err = hardware_log(vm, true);
		if (err)
			stop(vm);
	}
	if (!err && vm->ops->dirty_started)
		vm->ops->dirty_started(vm);
	gn_unlock(&vm->lock);
	return err;
}

/* How many gfns from @at on, below @end, are surely unmarked: 64, of a word without a mark, or none. */
static uint64_t unmarked(const uint8_t *bitmap, uint64_t at, uint64_t end)
{
	if (at % 64 || end - at < 64)
		return 0;
	return __atomic_load_n((const uint64_t *)(const void *)&bitmap[at / 8], __ATOMIC_RELAXED)
		       ? 0
		       : 64;
}

/* Take the marks of [start, start+count) into @out; write-protect each run of marked gfns. */
static bool take_marks(struct gn_vm *vm, uint8_t *bitmap, gfn_t start, uint64_t count, uint8_t *out)
{
	uint64_t run = 0; /* length of the run of marked gfns that ends before i */
	bool any = false;

	for (uint64_t i = 0, skipped; i < count; i += skipped ? skipped : 1) {
		uint64_t at = start.v + i;
		uint8_t bit = (uint8_t)(1u << (at % 8));
		uint8_t *byte = &bitmap[at / 8];

		skipped = unmarked(bitmap, at, start.v + count);
		if (!skipped && (__atomic_load_n(byte, __ATOMIC_RELAXED) & bit)) {
			__atomic_fetch_and(byte, (uint8_t)~bit, __ATOMIC_SEQ_CST);
			out[i / 8] |= (uint8_t)(1u << (i % 8));
			run++;
			any = true;
			continue;
		}
		if (run)
			wrprotect(vm, gfn(at - run), gfn(at));
		run = 0;
	}
	if (run)
		wrprotect(vm, gfn(start.v + count - run), gfn(start.v + count));
	return any;
}

int gn_dirty_harvest(struct gn_vm *vm, gfn_t start, uint64_t count, uint8_t *bitmap)
{
	uint8_t *marks;
	int err = 0;

	if (!gn_p2m_is_in_ram(&vm->p2m, start, count))
		return -EINVAL;
	gn_lock(&vm->lock);
	if (gn_dirty_is_logged(vm)) {
		err = hardware_sync(vm);
		if (err) {
			gn_unlock(&vm->lock);
			return err;
		}
	}
	gn_lock(&vm->p2m.lock);
	marks = atomic_load_explicit(&vm->dirty_bitmap, memory_order_relaxed);
	if (!marks) {
		err = -EINVAL;
		goto out;
	}
	memset(bitmap, 0, (count + 7) / 8);
	sequence_step(vm);
	if (take_marks(vm, marks, start, count, bitmap))
		flush_and_settle(vm);
	sequence_step(vm);
out:
	gn_unlock(&vm->p2m.lock);
	gn_unlock(&vm->lock);
	return err;
}

void gn_dirty_stop(struct gn_vm *vm)
{
	gn_lock(&vm->lock);
	if (gn_dirty_is_logged(vm)) {
		(void)hardware_log(vm, false); /* what it goes on logging is not asked for */
		stop(vm);
	}
	gn_unlock(&vm->lock);
}

static bool shows_accesses(struct gn_vm *vm)
{
	const struct gn_backend_ops *backend = vm->config.backend;

	return vm->ops->keeps_tables && vm->ops->harvest_accessed &&
	       (!backend || !backend->shows_accesses || backend->shows_accesses(vm));
}

int gn_accessed_harvest(struct gn_vm *vm, gfn_t start, uint64_t count, uint8_t *bitmap)
{
	const struct gn_flush everything = { .scope = GN_FLUSH_ALL };
	const struct gn_gfn_run run = { start, count };
	bool any = false;
	int err = 0;

	if (!gn_p2m_is_in_ram(&vm->p2m, start, count))
		return -EINVAL;
	gn_lock(&vm->lock);
	if (!shows_accesses(vm)) {
		err = -EOPNOTSUPP;
		goto out;
	}
	memset(bitmap, 0, (count + 7) / 8);
	vm->ops->harvest_accessed(vm, start, gfn(start.v + count), bitmap);
	for (size_t i = 0; i < (count + 7) / 8; i++)
		any |= bitmap[i] != 0;
	/* A cached translation is used without setting the bit again. */
	if (any) {
		gn_vm_flush(vm, &everything);
		gn_lock(&vm->p2m.lock);
		gn_vm_range_changing(vm, &run, 1, GN_RANGE_AGE);
		gn_unlock(&vm->p2m.lock);
	}
out:
	gn_unlock(&vm->lock);
	return err;
}
