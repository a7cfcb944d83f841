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

	cr_assert_not(gn_retire_drain(vm));
	cr_assert_eq(gn_frames_alloc(vm->frames, 1, &p), 0);
	gn_retire_frame(vm, p);
	cr_assert_eq(gn_frames_refs(vm->frames, p), 1);
	gn_retire_poll(vm);
	cr_assert_eq(gn_frames_refs(vm->frames, p), 1, "a short list is left alone");
	cr_assert(gn_retire_drain(vm));
	cr_assert_eq(gn_frames_refs(vm->frames, p), 0);
	cr_assert_eq(gn_frames_used(vm->frames), used);
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

	rcu_read_lock();
	atomic_store(&phase, 1);
	usleep(50000);
	freed_too_early = gn_frames_refs(vm->frames, *p) == 0;
	rcu_read_unlock();
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

Test(retire, room_for_every_reference_there_can_be)
{
	/* A discard of all of RAM retires it in one go. */
	cr_assert_eq(gn_p2m_populate(vm, gfn(0), vm->p2m.gfn_count), 0);
	cr_assert_eq(gn_p2m_discard(vm, gfn(0), vm->p2m.gfn_count), 0);
	gn_retire_drain(vm);
	cr_assert_eq(gn_frames_used(vm->frames), 1);
}
