/* SPDX-License-Identifier: MIT */
/*
 * pause.c - vCPUs kept out of the guest, in three strengths.
 *
 *   quiesce   each vCPU that is in the guest leaves it once. What a grace period is to readers. Waits under locks.
 *   hold      no vCPU is in the guest until the release, wherever it is in its exit. For changes of memory slots,
 *             which the kernel makes one by one: a guest that looked between two would see a hole in its RAM.
 *   pause     every vCPU stands at a boundary of its guest's instructions. For switches and audits.
 *
 * All rest on one handshake. A vCPU makes `crossings` odd, then looks for requests, then enters; a kick sets the request
 * and immediate_exit, then looks at `crossings` and sends a signal if it is odd. Either the vCPU sees the request or
 * the kicker sees the vCPU inside. (Both sides are sequentially consistent.) A signal that comes between the vCPU's look
 * and KVM_RUN finds immediate_exit set, one that comes later makes KVM_RUN return.
 *
 * On its way out a vCPU takes the lock only if `watchers` says that somebody waits for that.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>
#include <sys/syscall.h>

#include "machine.h"

static bool is_inside(const struct gn_kvm_cpu *cpu)
{
	return atomic_load(&cpu->crossings) & 1;
}

void gn_kvm_kick(struct gn_kvm_cpu *cpu)
{
	struct gn_kvm *kvm = cpu->kvm;

	atomic_store(&cpu->has_request, true);
	__atomic_store_n(&cpu->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
	if (!is_inside(cpu) && !atomic_load(&cpu->is_waiting))
		return;
	pthread_mutex_lock(&kvm->lock);
	if (cpu->is_running)
		pthread_kill(cpu->thread, GN_KVM_SIGNAL);
	pthread_cond_broadcast(&kvm->changed);
	pthread_mutex_unlock(&kvm->lock);
}

/* Wait until @cpu is outside, or has been since its crossings were @seen. Lock held, watchers counted. */
static void wait_outside(struct gn_kvm_cpu *cpu, uint64_t seen)
{
	while (is_inside(cpu) && atomic_load(&cpu->crossings) == seen)
		pthread_cond_wait(&cpu->kvm->changed, &cpu->kvm->lock);
}

void gn_kvm_quiesce(struct gn_kvm *kvm)
{
	uint64_t seen[GN_MAX_VCPUS];
	unsigned inside = 0;

	for (unsigned i = 0; i < kvm->cpu_count; i++) {
		seen[i] = atomic_load(&kvm->cpus[i].crossings);
		inside += seen[i] & 1;
	}
	if (!inside)
		return;
	atomic_fetch_add(&kvm->watchers, 1);
	for (unsigned i = 0; i < kvm->cpu_count; i++)
		if (seen[i] & 1)
			gn_kvm_kick(&kvm->cpus[i]);
	pthread_mutex_lock(&kvm->lock);
	for (unsigned i = 0; i < kvm->cpu_count; i++)
		if (seen[i] & 1)
			wait_outside(&kvm->cpus[i], seen[i]);
	pthread_mutex_unlock(&kvm->lock);
	atomic_fetch_sub(&kvm->watchers, 1);
}

void gn_kvm_hold(struct gn_kvm *kvm)
{
	atomic_fetch_add(&kvm->holds, 1);
	atomic_fetch_add(&kvm->watchers, 1);
	for (unsigned i = 0; i < kvm->cpu_count; i++)
		gn_kvm_kick(&kvm->cpus[i]);
	pthread_mutex_lock(&kvm->lock);
	/* It may look in and turn back at the request, so "inside" is asked anew each time. */
	for (unsigned i = 0; i < kvm->cpu_count; i++)
		while (is_inside(&kvm->cpus[i]))
			pthread_cond_wait(&kvm->changed, &kvm->lock);
	pthread_mutex_unlock(&kvm->lock);
	atomic_fetch_sub(&kvm->watchers, 1);
}

void gn_kvm_release(struct gn_kvm *kvm)
{
	pthread_mutex_lock(&kvm->lock);
	atomic_fetch_sub(&kvm->holds, 1);
	pthread_cond_broadcast(&kvm->changed);
	pthread_mutex_unlock(&kvm->lock);
}

/* ---- The vCPU's side --------------------------------------------------------------------------------- */

enum gn_kvm_next gn_kvm_answer(struct gn_kvm_cpu *cpu)
{
	struct gn_kvm *kvm = cpu->kvm;
	bool at_boundary = !kvm->mode || kvm->mode->is_at_boundary(cpu);

	/* In this order: a kick sets the request first. */
	__atomic_store_n(&cpu->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
	if (at_boundary)
		atomic_store(&cpu->has_request, false);
	if (at_boundary && atomic_exchange(&cpu->is_told_to_stop, false))
		return gn_kvm_end(cpu, GN_KVM_STOP_ASKED, "asked to stop");
	pthread_mutex_lock(&kvm->lock);
	while (atomic_load(&kvm->holds) || (at_boundary && kvm->pauses)) {
		if (at_boundary && !cpu->is_parked) {
			cpu->is_parked = true;
			pthread_cond_broadcast(&kvm->changed);
		}
		pthread_cond_wait(&kvm->changed, &kvm->lock);
	}
	cpu->is_parked = false;
	pthread_mutex_unlock(&kvm->lock);
	return GN_KVM_AGAIN;
}

/* ---- Pauses ------------------------------------------------------------------------------------------- */

static bool is_own_thread(struct gn_kvm *kvm)
{
	pid_t self = (pid_t)syscall(SYS_gettid);

	for (unsigned i = 0; i < kvm->cpu_count; i++)
		if (atomic_load(&kvm->cpus[i].tid) == self)
			return true;
	return false;
}

static void park_all(struct gn_kvm *kvm)
{
	pthread_mutex_lock(&kvm->lock);
	kvm->pauses++;
	pthread_mutex_unlock(&kvm->lock);
	for (unsigned i = 0; i < kvm->cpu_count; i++)
		gn_kvm_kick(&kvm->cpus[i]);
	pthread_mutex_lock(&kvm->lock);
	for (unsigned i = 0; i < kvm->cpu_count; i++)
		while (kvm->cpus[i].is_running && !kvm->cpus[i].is_parked)
			pthread_cond_wait(&kvm->changed, &kvm->lock);
	pthread_mutex_unlock(&kvm->lock);
}

static void unpark_all(struct gn_kvm *kvm)
{
	pthread_mutex_lock(&kvm->lock);
	kvm->pauses--;
	pthread_cond_broadcast(&kvm->changed);
	pthread_mutex_unlock(&kvm->lock);
}

/* The engine learns what the guest wrote to its registers without an exit. */
static int tell_engine(struct gn_kvm *kvm)
{
	struct gn_kvm_state state;
	int err = 0;

	for (unsigned i = 0; kvm->mode && i < kvm->cpu_count && !err; i++)
		if (kvm->cpus[i].has_state)
			err = kvm->mode->get_state(&kvm->cpus[i], &state);
	return err;
}

int gn_kvm_pause(struct gn_kvm *kvm, int (*fn)(void *ctx), void *ctx)
{
	const struct gn_kvm_mode *mode;
	int err;

	if (is_own_thread(kvm))
		return -EDEADLK;
	pthread_mutex_lock(&kvm->pause_lock);
	park_all(kvm);
	mode = kvm->mode;
	if (mode && mode->hold)
		mode->hold(kvm, true);
	err = tell_engine(kvm);
	if (!err)
		err = fn(ctx);
	if (mode && mode->hold)
		mode->hold(kvm, false);
	unpark_all(kvm);
	pthread_mutex_unlock(&kvm->pause_lock);
	return err;
}
