/* SPDX-License-Identifier: MIT */
/*
 * retire.c - a retired frame stays untouched as long as somebody who could know it is inside a read section.
 */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "support/plain_scheme.h"

static struct gn_vm *vm;

static void set_up(void)
{
	struct gn_vm_config config = plain_config(16 << 20);

	vm = plain_vm(&config);
	cr_assert_not_null(vm);
}

static void tear_down(void)
{
	gn_vm_destroy(vm);
}

TestSuite(retire, .init = set_up, .fini = tear_down);

Test(retire, waits_for_the_drain)
{
	pfn_t p;
	uint64_t used = gn_frames_used(vm->frames);

	cr_assert_not(gn_retire_drain_since(vm, gn_retire_drains(vm)));
	cr_assert_eq(gn_frames_alloc(vm->frames, 1, &p), 0);
	gn_retire_frame(vm, p);
	cr_assert_eq(gn_frames_refs(vm->frames, p), 1);
	gn_retire_poll(vm);
	cr_assert_eq(gn_frames_refs(vm->frames, p), 1, "a short list is left alone");
	cr_assert(gn_retire_drain_since(vm, gn_retire_drains(vm)));
	cr_assert_eq(gn_frames_refs(vm->frames, p), 0);
	cr_assert_eq(gn_frames_used(vm->frames), used);
}

/* It was another's drain that put what we failed to get. */
Test(retire, a_drain_by_another_counts)
{
	uint64_t drains = gn_retire_drains(vm);
	pfn_t p;

	gn_retire_drain(vm);
	cr_assert_not(gn_retire_drain_since(vm, drains), "nothing was put");
	cr_assert_eq(gn_frames_alloc(vm->frames, 1, &p), 0);
	gn_retire_frame(vm, p);
	gn_retire_drain(vm);
	cr_assert(gn_retire_drain_since(vm, drains));
	cr_assert_not(gn_retire_drain_since(vm, gn_retire_drains(vm)));
}

Test(retire, a_long_list_is_drained_by_poll)
{
	uint64_t used = gn_frames_used(vm->frames);
	pfn_t p;

	for (unsigned i = 0; i < GN_RETIRE_BATCH; i++) {
		gn_retire_poll(vm);
		cr_assert_eq(gn_frames_used(vm->frames), used + i);
		cr_assert_eq(gn_frames_alloc(vm->frames, 1, &p), 0);
		gn_retire_frame(vm, p);
	}
	gn_retire_poll(vm);
	cr_assert_eq(gn_frames_used(vm->frames), used);
}

Test(retire, a_reference_is_put_and_not_the_frame)
{
	pfn_t p;

	cr_assert_eq(gn_frames_alloc(vm->frames, 1, &p), 0);
	gn_frames_get(vm->frames, p);
	gn_retire_frame(vm, p);
	gn_retire_drain(vm);
	cr_assert_eq(gn_frames_refs(vm->frames, p), 1);
	gn_retire_frame(vm, p);
	gn_retire_drain(vm);
	cr_assert_eq(gn_frames_refs(vm->frames, p), 0);
}

static atomic_int phase;
static int freed_too_early;

static void *reader(void *ctx)
{
	pfn_t *p = ctx;

	gn_rcu_read_lock();
	atomic_store(&phase, 1);
	usleep(50000);
	freed_too_early = gn_frames_refs(vm->frames, *p) == 0;
	gn_rcu_read_unlock();
	return NULL;
}

Test(retire, a_reader_keeps_the_frame)
{
	pthread_t thread;
	pfn_t p;

	cr_assert_eq(gn_frames_alloc(vm->frames, 1, &p), 0);
	cr_assert_eq(pthread_create(&thread, NULL, reader, &p), 0);
	while (!atomic_load(&phase))
		usleep(100);
	gn_retire_frame(vm, p);
	gn_retire_drain(vm);
	cr_assert_eq(gn_frames_refs(vm->frames, p), 0);
	pthread_join(thread, NULL);
	cr_assert_eq(freed_too_early, 0);
}

/* A drain that is held up in its grace period, by a vCPU that does not stop. */
static atomic_bool is_draining, may_go_on;

static void hold_up(struct gn_vm *of)
{
	(void)of;
	atomic_store(&is_draining, true);
	while (!atomic_load(&may_go_on))
		usleep(100);
}

static void *inflate(void *ctx)
{
	*(int *)ctx = gn_p2m_balloon(vm, gfn(0), 1);
	return NULL;
}

static void *touch(void *ctx)
{
	*(int *)ctx = gn_vm_write(vm, gpa(GN_PAGE_SIZE * (uint64_t)600), "x", 1);
	return NULL;
}

/* The pool is full, and its last frames are on their way out: who needs one waits for them, and gets one. */
Test(retire, memory_on_its_way_out_is_waited_for)
{
	static struct gn_backend_ops backend;
	struct gn_vm_config config = plain_config(16 << 20);
	pthread_t inflater, toucher;
	int inflated = -1, touched = -1;
	uint64_t backed = 0;

	gn_vm_destroy(vm);
	backend = plain_backend;
	backend.quiesce = hold_up;
	config.backend = &backend;
	config.pool_bytes = 2 << 20;
	vm = plain_vm(&config);
	cr_assert_not_null(vm);
	while (!gn_p2m_populate(vm, gfn(backed), 1))
		backed++;
	cr_assert(backed > 100 && backed < 600, "%d", (int)backed);
	cr_assert_eq(pthread_create(&inflater, NULL, inflate, &inflated), 0);
	while (!atomic_load(&is_draining))
		usleep(100);
	cr_assert_eq(pthread_create(&toucher, NULL, touch, &touched), 0);
	usleep(50000); /* it is without a frame by now, and waits */
	atomic_store(&may_go_on, true);
	pthread_join(toucher, NULL);
	pthread_join(inflater, NULL);
	cr_assert_eq(inflated, 0);
	cr_assert_eq(touched, 0);
}

Test(retire, room_for_every_reference_there_can_be)
{
	/* A discard of all of RAM retires it in one go. */
	cr_assert_eq(gn_p2m_populate(vm, gfn(0), vm->p2m.gfn_count), 0);
	cr_assert_eq(gn_p2m_discard(vm, gfn(0), vm->p2m.gfn_count), 0);
	gn_retire_drain(vm);
	cr_assert_eq(gn_frames_used(vm->frames), 1);
}
