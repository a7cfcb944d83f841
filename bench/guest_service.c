/* SPDX-License-Identifier: MIT */
/*
 * guest_service.c - answer the calls of a guest image (include/gnomon/guest.h) and watch its progress.
 */
#include "guest_service.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "run_control.h"
#include "run_sharing.h"
#include "workloads/trace_serve.h"

#define BOOT_FIELD(field) gpa(GN_GUEST_BOOT_PA + offsetof(struct gn_guest_boot, field))

/* ---- What the guest asks for ------------------------------------------------------------------------------- */

static int answer(struct guest_service *service, uint64_t result)
{
	return gn_vm_write(service->vm, BOOT_FIELD(call_result), &result, sizeof(result));
}

/* As on the software machine. */
static int hypercall(struct guest_service *service)
{
	uint64_t nr, argument;

	if (!service->sharer)
		return answer(service, (uint64_t)-ENOSYS);
	if (gn_vm_read(service->vm, BOOT_FIELD(call_nr), &nr, sizeof(nr)) ||
	    gn_vm_read(service->vm, BOOT_FIELD(call_argument), &argument, sizeof(argument)))
		return -EFAULT;
	return answer(service, run_sharing_hypercall(service->sharer, nr, argument));
}

/* A tick of it; false: it is over. */
static bool rest(struct guest_service *service)
{
	if (service->rested_ms >= service->rest_ms) {
		service->rested_ms = 0;
		return false;
	}
	run_idle();
	service->rested_ms += RUN_IDLE_TICK_MS;
	return true;
}

/* The vCPU's thread, in an exit. False: no port of ours. */
bool guest_service_port(void *ctx, struct gn_kvm *kvm, unsigned vcpu, uint16_t port, unsigned bytes,
			bool is_out, uint32_t *value)
{
	struct guest_service *service = ctx;

	(void)vcpu;
	if (port != GN_GUEST_PORT_CALL || !is_out || bytes != 4)
		return false;
	switch (*value) {
	case GN_GUEST_CALL_MEASURE:
		gn_kvm_stats_reset(kvm);
		service->begin = tsc_now();
		service->has_begun = true;
		return true;
	case GN_GUEST_CALL_END:
		service->end = tsc_now();
		gn_kvm_stats(kvm, &service->stats);
		gn_kvm_counters(kvm, &service->counters);
		gn_vm_table_usage(service->vm, &service->tables);
		service->has_ended = true;
		return true;
	case GN_GUEST_CALL_TRACE:
		return !trace_serve_call(&service->trace, service->params, service->vm);
	case GN_GUEST_CALL_REST:
		return !answer(service, rest(service));
	case GN_GUEST_CALL_HYPERCALL:
		return !hypercall(service);
	}
	return false;
}

void guest_service_console(void *ctx, const char *text, size_t bytes)
{
	(void)ctx;
	fwrite(text, 1, bytes, stderr);
}

void guest_service_fini(struct guest_service *service)
{
	trace_serve_close(service->trace);
}

/* ---- Progress ----------------------------------------------------------------------------------------------- */

static void show_progress(const struct guest_watcher *w)
{
	uint64_t at, words[2]; /* done, total */

	if (gn_vm_read(w->vm, BOOT_FIELD(progress_pa), &at, sizeof(at)) || !at ||
	    gn_vm_read(w->vm, gpa(at), words, sizeof(words)) || !words[1])
		return;
	w->progress(w->ctx, (double)words[0] / (double)words[1]);
}

static void note_refaults(const struct guest_watcher *w)
{
	uint64_t refaults;

	if (!gn_vm_read(w->vm, BOOT_FIELD(refaults), &refaults, sizeof(refaults)))
		balloon_vm_note_refaults(w->memory, refaults);
}

static void *watch(void *ctx)
{
	struct guest_watcher *w = ctx;

	pthread_mutex_lock(&w->lock);
	while (!w->is_over) {
		struct timespec until;

		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_nsec += 100000000;
		until.tv_sec += until.tv_nsec / 1000000000;
		until.tv_nsec %= 1000000000;
		pthread_cond_timedwait(&w->ended, &w->lock, &until);
		if (!w->is_over && w->progress)
			show_progress(w);
		if (!w->is_over && w->memory)
			note_refaults(w);
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

void guest_watcher_begin(struct guest_watcher *w, struct gn_vm *vm, struct balloon_vm *memory,
			 void (*progress)(void *ctx, double done), void *ctx)
{
	memset(w, 0, sizeof(*w));
	w->vm = vm;
	w->memory = memory;
	w->progress = progress;
	w->ctx = ctx;
	if (!progress && !memory)
		return;
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->ended, NULL);
	w->is_running = !pthread_create(&w->thread, NULL, watch, w);
}

void guest_watcher_end(struct guest_watcher *w)
{
	if (!w->is_running)
		return;
	pthread_mutex_lock(&w->lock);
	w->is_over = true;
	pthread_cond_signal(&w->ended);
	pthread_mutex_unlock(&w->lock);
	pthread_join(w->thread, NULL);
}
