/* SPDX-License-Identifier: MIT */
/*
 * vcpu.c - a vCPU's run: look for requests, enter the guest, see what it wants, again.
 *
 * The loop knows nothing of how a guest is run: a mode prepares the entry and answers the exit. What is the loop's own
 * is the border (who may want the vCPU outside it, see pause.c), the wait of a halted vCPU, and the books: exits by
 * reason, the time each took, counted from the return of KVM_RUN to its next call.
 */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "machine.h"

#define NO_REASON GN_EXIT_REASONS

/* ---- Ends, books, interrupts -------------------------------------------------------------------------- */

enum gn_kvm_next gn_kvm_end(struct gn_kvm_cpu *cpu, enum gn_kvm_stop stop, const char *format, ...)
{
	va_list arguments;

	cpu->stop = stop;
	va_start(arguments, format);
	vsnprintf(cpu->error, sizeof(cpu->error), format, arguments);
	va_end(arguments);
	return GN_KVM_DONE;
}

void gn_kvm_count_exit(struct gn_kvm_cpu *cpu, enum gn_exit_reason reason)
{
	struct gn_counters *counters = gn_vcpu_counters(cpu->vcpu);

	counters->exits++;
	counters->exits_by[reason]++;
	cpu->stats.exits_by[reason]++;
	cpu->exit_reason = reason;
}

static void book_time(struct gn_kvm_cpu *cpu)
{
	if (cpu->exit_reason != NO_REASON && cpu->exit_began_ns)
		cpu->stats.ns_by[cpu->exit_reason] += gn_kvm_now_ns() - cpu->exit_began_ns;
	cpu->exit_reason = NO_REASON;
	cpu->exit_began_ns = 0;
}

int gn_kvm_interrupt_pending(const struct gn_kvm_cpu *cpu)
{
	for (int word = 3; word >= 0; word--) {
		uint64_t bits = atomic_load(&cpu->interrupts[word]);

		if (bits)
			return word * 64 + 63 - __builtin_clzll(bits);
	}
	return -1;
}

void gn_kvm_interrupt_take(struct gn_kvm_cpu *cpu, uint8_t vector)
{
	atomic_fetch_and(&cpu->interrupts[vector / 64], ~((uint64_t)1 << (vector % 64)));
}

int gn_kvm_interrupt(struct gn_kvm *kvm, unsigned vcpu, uint8_t vector)
{
	if (vcpu >= kvm->cpu_count || vector < 32)
		return -EINVAL;
	atomic_fetch_or(&kvm->cpus[vcpu].interrupts[vector / 64], (uint64_t)1 << (vector % 64));
	gn_kvm_kick(&kvm->cpus[vcpu]);
	return 0;
}

/* ---- The loop ------------------------------------------------------------------------------------------ */

/* A halted vCPU sleeps until an interrupt or a request. */
static void sleep_halted(struct gn_kvm_cpu *cpu)
{
	struct gn_kvm *kvm = cpu->kvm;

	pthread_mutex_lock(&kvm->lock);
	atomic_store(&cpu->is_waiting, true);
	while (!atomic_load(&cpu->has_request) && gn_kvm_interrupt_pending(cpu) < 0)
		pthread_cond_wait(&kvm->changed, &kvm->lock);
	atomic_store(&cpu->is_waiting, false);
	pthread_mutex_unlock(&kvm->lock);
	if (gn_kvm_interrupt_pending(cpu) >= 0)
		cpu->is_halted = false;
}

static void leave_guest(struct gn_kvm_cpu *cpu)
{
	struct gn_kvm *kvm = cpu->kvm;

	atomic_fetch_add(&cpu->crossings, 1);
	if (!atomic_load(&kvm->watchers))
		return;
	pthread_mutex_lock(&kvm->lock);
	pthread_cond_broadcast(&kvm->changed);
	pthread_mutex_unlock(&kvm->lock);
}

/* Into the guest and back. False: turned back at the border, a request came. */
static bool visit_guest(struct gn_kvm_cpu *cpu, int *err)
{
	struct gn_kvm *kvm = cpu->kvm;
	bool may_enter;

	*err = 0;
	atomic_fetch_add(&cpu->crossings, 1);
	may_enter = !atomic_load(&cpu->has_request) ||
		    (!atomic_load(&kvm->holds) && !kvm->mode->is_at_boundary(cpu));
	if (may_enter && ioctl(cpu->fd, KVM_RUN, 0) < 0)
		*err = -errno;
	leave_guest(cpu);
	return may_enter;
}

static enum gn_kvm_next step(struct gn_kvm_cpu *cpu)
{
	enum gn_kvm_next next = GN_KVM_AGAIN;
	const struct gn_kvm_mode *mode;
	int err;

	if (atomic_load(&cpu->has_request))
		next = gn_kvm_answer(cpu);
	if (next == GN_KVM_DONE)
		return next;
	if (cpu->is_halted) {
		sleep_halted(cpu);
		return GN_KVM_AGAIN;
	}
	mode = cpu->kvm->mode; /* stays until the next answer */
	if (!mode)
		return gn_kvm_end(cpu, GN_KVM_STOP_ERROR, "no scheme that KVM can run: %s",
				  cpu->kvm->why);
	if (!cpu->has_state)
		return gn_kvm_end(cpu, GN_KVM_STOP_ERROR, "vCPU %u was not given a state",
				  cpu->index);
	next = mode->before_run(cpu);
	if (next == GN_KVM_DONE)
		return next;
	book_time(cpu);
	if (!visit_guest(cpu, &err))
		return GN_KVM_AGAIN;
	cpu->stats.runs++;
	if (cpu->kvm->config.time_exits)
		cpu->exit_began_ns = gn_kvm_now_ns();
	return mode->after_run(cpu, err);
}

/* ---- Runs ----------------------------------------------------------------------------------------------- */

/* False: another thread runs it. */
static bool run_begin(struct gn_kvm_cpu *cpu)
{
	struct gn_kvm *kvm = cpu->kvm;
	bool is_free;

	pthread_mutex_lock(&kvm->lock);
	while (kvm->pauses)
		pthread_cond_wait(&kvm->changed, &kvm->lock);
	is_free = !cpu->is_running;
	if (is_free) {
		cpu->is_running = true;
		cpu->thread = pthread_self();
		atomic_store(&cpu->tid, (pid_t)syscall(SYS_gettid));
	}
	pthread_mutex_unlock(&kvm->lock);
	return is_free;
}

static void run_end(struct gn_kvm_cpu *cpu)
{
	struct gn_kvm *kvm = cpu->kvm;

	pthread_mutex_lock(&kvm->lock);
	cpu->is_running = false;
	atomic_store(&cpu->tid, 0);
	pthread_cond_broadcast(&kvm->changed);
	pthread_mutex_unlock(&kvm->lock);
}

/* The exits that config.max_exits allows are made, and the guest is at a boundary. */
static bool is_spent(const struct gn_kvm_cpu *cpu, uint64_t steps)
{
	const struct gn_kvm *kvm = cpu->kvm;

	return kvm->config.max_exits && steps >= kvm->config.max_exits && kvm->mode &&
	       kvm->mode->is_at_boundary(cpu);
}

enum gn_kvm_stop gn_kvm_run(struct gn_kvm *kvm, unsigned vcpu, uint32_t *status)
{
	struct gn_kvm_cpu *cpu = &kvm->cpus[vcpu];
	enum gn_kvm_next next;
	sigset_t old;
	uint64_t steps = 0;

	if (vcpu >= kvm->cpu_count || !run_begin(cpu))
		return GN_KVM_STOP_ERROR;
	gn_kvm_signal_begin(&old);
	cpu->status = 0;
	cpu->error[0] = '\0';
	cpu->exit_reason = NO_REASON;
	do
		next = step(cpu);
	while (next == GN_KVM_AGAIN && !is_spent(cpu, ++steps));
	if (next == GN_KVM_AGAIN)
		gn_kvm_end(cpu, GN_KVM_STOP_ASKED, "after %llu exits",
			   (unsigned long long)kvm->config.max_exits);
	book_time(cpu);
	run_end(cpu);
	gn_kvm_signal_end(&old);
	if (status)
		*status = cpu->status;
	return cpu->stop;
}

void gn_kvm_stop(struct gn_kvm *kvm)
{
	for (unsigned i = 0; i < kvm->cpu_count; i++) {
		atomic_store(&kvm->cpus[i].is_told_to_stop, true);
		gn_kvm_kick(&kvm->cpus[i]);
	}
}

const char *gn_kvm_error(struct gn_kvm *kvm, unsigned vcpu)
{
	return vcpu < kvm->cpu_count ? kvm->cpus[vcpu].error : "no such vCPU";
}
