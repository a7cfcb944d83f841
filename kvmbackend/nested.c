/* SPDX-License-Identifier: MIT */
/*
 * nested.c - the mode in which the guest's kernel runs at CPL 0 on tables of its own.
 *
 * KVM does the running; what is left is memory (see nested.h) and the few exits below. The engine hears of the guest's
 * registers only when its state is saved, for the ept room has no use for them.
 *
 * What a guest may do to memory that is not plain RAM:
 *
 *     MMIO, past the end        a device of the embedder's, or an empty bus: reads give ones, stores are dropped
 *     read-only                 stores are dropped, as a ROM does; counted
 *     ballooned                 counted, and the guest is stopped: it used what it gave away; or it gets the page back
 *                               (gn_vm_set_ballooned_touch)
 *     its tables there          what KVM makes of it: a #PF, a triple fault, an exit that stops it
 *
 * Completion. After an I/O or MMIO exit KVM finishes the instruction at the next KVM_RUN; before that its registers tell a
 * half-truth. When the vCPU has to stand at a boundary, KVM_RUN is made with immediate_exit set.
 *
 * The guest's state is nested_state.c's.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "nested.h"

#define BAD_ADDRESSES_MAX    1000
#define BAD_ADDRESS_PAUSE_NS 1000000

/* ---- Exits --------------------------------------------------------------------------------------------------- */

static enum gn_kvm_next port_exit(struct gn_kvm_cpu *cpu)
{
	struct kvm_run *run = cpu->run;
	uint8_t *data = (uint8_t *)run + run->io.data_offset;
	bool is_out = run->io.direction == KVM_EXIT_IO_OUT;
	enum gn_kvm_next next = GN_KVM_AGAIN;

	/* String instructions come with many at once. */
	for (uint32_t i = 0; i < run->io.count; i++, data += run->io.size) {
		uint32_t value = 0;

		if (is_out)
			memcpy(&value, data, run->io.size);
		if (next == GN_KVM_AGAIN)
			next = gn_kvm_port(cpu, run->io.port, run->io.size, is_out, &value);
		if (!is_out)
			memcpy(data, &value, run->io.size);
	}
	return next;
}

static enum gn_kvm_next ballooned(struct gn_kvm_cpu *cpu, gpa_t at, bool is_write)
{
	cpu->stats.denied++;
	return gn_kvm_end(cpu, GN_KVM_STOP_GUEST,
			  "the guest %s %#llx, a page it gave back to the balloon",
			  is_write ? "wrote to" : "touched", (unsigned long long)at.v);
}

/* Slots follow the p2m. */
static enum gn_kvm_next follow(struct gn_kvm_cpu *cpu, bool *changed)
{
	struct gn_kvm_nested *n = cpu->kvm->nested;
	char why[256];

	if (!gn_kvm_layout_follow(n, gfn(0), gfn(n->pages), changed, why, sizeof(why)))
		return GN_KVM_AGAIN;
	return gn_kvm_end(cpu, GN_KVM_STOP_ERROR, "%s", why);
}

/* The engine refuses a touch of it; it counted the touch. */
static bool is_denied(struct gn_kvm_cpu *cpu, gpa_t at)
{
	struct gn_vm *vm = cpu->kvm->vm;
	struct gn_p2m_info info = { .state = GN_P2M_MMIO };

	(void)gn_p2m_query(vm, gpa_to_gfn(at), &info);
	return info.state == GN_P2M_BALLOONED &&
	       atomic_load_explicit(&vm->touch_answer, memory_order_relaxed) == GN_TOUCH_DENY;
}

/* Memory after all: it changed kind under the guest's hands, or a BALLOONED page needs the engine. */
static enum gn_kvm_next memory_access(struct gn_kvm_cpu *cpu, gpa_t at, uint8_t *data,
				      unsigned bytes, bool is_write)
{
	struct gn_vm *vm = cpu->kvm->vm;
	bool changed;
	int err = is_write ? gn_vm_write(vm, at, data, bytes) : gn_vm_read(vm, at, data, bytes);

	if (err == -ENOMEM)
		return gn_kvm_end(cpu, GN_KVM_STOP_ERROR, "no memory for the page at %#llx",
				  (unsigned long long)at.v);
	if (err == -EFAULT && is_denied(cpu, at))
		return ballooned(cpu, at, is_write);
	return follow(cpu, &changed);
}

static enum gn_kvm_next mmio_exit(struct gn_kvm_cpu *cpu)
{
	struct kvm_run *run = cpu->run;
	gpa_t at = gpa(run->mmio.phys_addr);
	struct gn_p2m_info info = { .state = GN_P2M_MMIO };

	(void)gn_p2m_query(cpu->kvm->vm, gpa_to_gfn(at), &info);
	switch (info.state) {
	case GN_P2M_MMIO:
		gn_kvm_count_exit(cpu, GN_EXIT_IO);
		gn_kvm_mmio(cpu, at, run->mmio.data, run->mmio.len, run->mmio.is_write);
		return GN_KVM_AGAIN;
	case GN_P2M_READONLY:
		if (run->mmio.is_write) {
			gn_kvm_count_exit(cpu, GN_EXIT_IO);
			cpu->stats.denied++;
			return GN_KVM_AGAIN;
		}
		/* fall through */
	default:
		return memory_access(cpu, at, run->mmio.data, run->mmio.len, run->mmio.is_write);
	}
}

static enum gn_kvm_next halt_exit(struct gn_kvm_cpu *cpu)
{
	gn_kvm_count_exit(cpu, GN_EXIT_HLT);
	if (!cpu->run->if_flag)
		return gn_kvm_end(cpu, GN_KVM_STOP_HALT,
				  "halted with interrupts off: nothing can wake it");
	cpu->is_halted = true;
	return GN_KVM_AGAIN;
}

static enum gn_kvm_next internal_error(struct gn_kvm_cpu *cpu)
{
	const struct kvm_run *run = cpu->run;
	enum gn_kvm_next next;
	bool changed;

	/* It may have run into memory that changed kind: then the instruction is fine, and runs again. */
	next = follow(cpu, &changed);
	if (next == GN_KVM_DONE || changed)
		return next;
	if (run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION)
		return gn_kvm_supplement(cpu);
	return gn_kvm_end(cpu, GN_KVM_STOP_GUEST,
			  "KVM cannot go on: internal error %u (%s), data %#llx %#llx",
			  run->internal.suberror,
			  run->internal.suberror == KVM_INTERNAL_ERROR_DELIVERY_EV
				  ? "an exit while an exception was delivered"
			  : run->internal.suberror == KVM_INTERNAL_ERROR_SIMUL_EX
				  ? "two exceptions at once"
				  : "an exit it does not expect",
			  run->internal.ndata > 0 ? (unsigned long long)run->internal.data[0] : 0,
			  run->internal.ndata > 1 ? (unsigned long long)run->internal.data[1] : 0);
}

enum gn_kvm_next gn_kvm_nested_exit(struct gn_kvm_cpu *cpu)
{
	const struct kvm_run *run = cpu->run;
	int err;

	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		return port_exit(cpu);
	case KVM_EXIT_MMIO:
		return mmio_exit(cpu);
	case KVM_EXIT_HLT:
		return halt_exit(cpu);
	case KVM_EXIT_INTR:
	case KVM_EXIT_IRQ_WINDOW_OPEN:
		return GN_KVM_AGAIN;
	case KVM_EXIT_DIRTY_RING_FULL:
		err = gn_kvm_layout_ring_full(cpu->kvm->nested);
		if (!err)
			return GN_KVM_AGAIN;
		gn_kvm_sys_fail(cpu->error, sizeof(cpu->error), "KVM_RESET_DIRTY_RINGS", -err);
		cpu->stop = GN_KVM_STOP_ERROR;
		return GN_KVM_DONE;
	case KVM_EXIT_SHUTDOWN:
		return gn_kvm_end(cpu, GN_KVM_STOP_SHUTDOWN, "triple fault");
	case KVM_EXIT_INTERNAL_ERROR:
		return internal_error(cpu);
	case KVM_EXIT_FAIL_ENTRY:
		return gn_kvm_end(
			cpu, GN_KVM_STOP_GUEST,
			"the CPU refuses the guest's state: entry failure %#llx",
			(unsigned long long)run->fail_entry.hardware_entry_failure_reason);
	default:
		return gn_kvm_end(cpu, GN_KVM_STOP_GUEST,
				  "KVM left the guest for reason %u, which this VM has no use for",
				  run->exit_reason);
	}
}

/* ---- Denied touches -------------------------------------------------------------------------------------------- */

/* The filler blocked a page this vCPU touched. */
static enum gn_kvm_next handle_denial(struct gn_kvm_cpu *cpu)
{
	struct gn_kvm_nested *n = cpu->kvm->nested;
	enum gn_kvm_next next;
	struct gn_kvm_denial denial;
	bool changed;

	pthread_mutex_lock(&n->view_lock);
	denial = cpu->nested->denial;
	atomic_store(&cpu->nested->is_denied, false);
	pthread_mutex_unlock(&n->view_lock);
	cpu->nested->bad_address_count = 0;
	if (denial.err)
		return gn_kvm_end(cpu, GN_KVM_STOP_ERROR, "guest memory at %#llx: %s: %s",
				  (unsigned long long)gfn_to_gpa(denial.at).v,
				  denial.why ? denial.why : "it cannot be mapped",
				  strerror(-denial.err));
	if (is_denied(cpu, gfn_to_gpa(denial.at)))
		next = ballooned(cpu, gfn_to_gpa(denial.at), denial.is_write);
	else
		next = follow(cpu, &changed);
	/* The block has served: the next touch is told as the first was. */
	pthread_mutex_lock(&n->view_lock);
	gn_kvm_view_take(n, denial.at, gfn(denial.at.v + 1));
	pthread_mutex_unlock(&n->view_lock);
	return next;
}

/* KVM_RUN could not reach guest memory and no denial says why: another vCPU's touch had the page blocked, and that vCPU
 * is about to lift the block. */
static enum gn_kvm_next handle_bad_address(struct gn_kvm_cpu *cpu)
{
	const struct timespec while_it_does = { .tv_nsec = BAD_ADDRESS_PAUSE_NS };
	bool changed;

	if (++cpu->nested->bad_address_count > BAD_ADDRESSES_MAX)
		return gn_kvm_end(cpu, GN_KVM_STOP_ERROR,
				  "KVM_RUN: guest memory cannot be reached (EFAULT)");
	nanosleep(&while_it_does, NULL);
	return follow(cpu, &changed);
}

/* ---- The loop's calls ---------------------------------------------------------------------------------------------- */

/* The vCPU is to come to a boundary soon. */
static enum gn_kvm_next towards_boundary(struct gn_kvm_cpu *cpu)
{
	int err = 0;

	if (cpu->nested->needs_completion || cpu->nested->trap == GN_TRAP_UNKNOWN)
		__atomic_store_n(&cpu->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
	else if (cpu->nested->trap == GN_TRAP_OWED)
		err = gn_kvm_nested_run_on(cpu);
	if (!err)
		return GN_KVM_AGAIN;
	gn_kvm_sys_fail(cpu->error, sizeof(cpu->error), "timer_create", -err);
	cpu->stop = GN_KVM_STOP_ERROR;
	return GN_KVM_DONE;
}

static enum gn_kvm_next before_run(struct gn_kvm_cpu *cpu)
{
	struct kvm_run *run = cpu->run;
	int vector = gn_kvm_interrupt_pending(cpu);

	if (vector >= 0 && run->ready_for_interrupt_injection) {
		struct kvm_interrupt interrupt = { .irq = (uint32_t)vector };
		int err = gn_kvm_ioctl(cpu->fd, KVM_INTERRUPT, &interrupt);

		if (err) {
			gn_kvm_sys_fail(cpu->error, sizeof(cpu->error), "KVM_INTERRUPT", -err);
			cpu->stop = GN_KVM_STOP_ERROR;
			return GN_KVM_DONE;
		}
		run->ready_for_interrupt_injection = 0; /* until KVM says so again */
		cpu->nested->taken_bytes = 0;		/* that one was delivered */
		gn_kvm_interrupt_take(cpu, (uint8_t)vector);
		vector = gn_kvm_interrupt_pending(cpu);
	}
	run->request_interrupt_window = vector >= 0;
	return atomic_load(&cpu->has_request) || cpu->nested->trap == GN_TRAP_OWED
		       ? towards_boundary(cpu)
		       : GN_KVM_AGAIN;
}

static enum gn_kvm_next after_run(struct gn_kvm_cpu *cpu, int err)
{
	enum gn_kvm_next next = GN_KVM_AGAIN;

	if (!err || err == -EINTR)
		cpu->nested->needs_completion = gn_kvm_nested_is_unfinished(cpu, err);
	gn_kvm_nested_look_for_trap(cpu, err);
	if (!err)
		cpu->nested->bad_address_count = 0;
	if (atomic_load(&cpu->nested->is_denied))
		next = handle_denial(cpu);
	else if (err == -EFAULT)
		next = handle_bad_address(cpu);
	if (next == GN_KVM_DONE)
		return next;
	switch (err) {
	case 0:
		return gn_kvm_nested_exit(cpu);
	case -EINTR:
	case -EAGAIN:
	case -EFAULT:
		return GN_KVM_AGAIN;
	default:
		gn_kvm_sys_fail(cpu->error, sizeof(cpu->error), "KVM_RUN", -err);
		cpu->stop = GN_KVM_STOP_ERROR;
		return GN_KVM_DONE;
	}
}

static bool is_at_boundary(const struct gn_kvm_cpu *cpu)
{
	return !cpu->nested->needs_completion && cpu->nested->trap == GN_TRAP_NONE;
}

/* ---- What the engine tells us --------------------------------------------------------------------------------------------- */

void gn_kvm_nested_range_changing(struct gn_kvm *kvm, const struct gn_gfn_run *runs, size_t count,
				  enum gn_range_change change)
{
	struct gn_kvm_nested *n = kvm->nested;

	/* Write protection is for the dirty log, which KVM keeps by itself. Aged pages come back at their next use. */
	if (!n || change == GN_RANGE_WRPROTECT)
		return;
	/* Before pages are taken out: what is put in later is put in by who knows. */
	if (change == GN_RANGE_AGE)
		atomic_store(&n->is_aged, true);
	if (!atomic_load(&n->is_active))
		return;
	pthread_mutex_lock(&n->view_lock);
	if (gn_vm_is_over_template(kvm->vm)) {
		if (change == GN_RANGE_ZAP)
			gn_kvm_view_template_hold_off(n, runs, count);
	} else {
		gn_kvm_view_take_runs(n, runs, count);
		for (size_t i = 0; i < count && change != GN_RANGE_AGE; i++)
			gn_kvm_view_send_home(n, runs[i].start,
					      gfn(runs[i].start.v + runs[i].count));
	}
	pthread_mutex_unlock(&n->view_lock);
}

/* Over a template KVM finds pages without us. */
bool gn_kvm_nested_shows_accesses(const struct gn_kvm *kvm)
{
	return !gn_vm_is_over_template(kvm->vm) ||
	       gn_vcpu_hw(gn_vm_vcpu(kvm->vm, 0))->kind != GN_HW_NESTED;
}

void gn_kvm_nested_change_over(struct gn_kvm *kvm)
{
	struct gn_kvm_nested *n = kvm->nested;

	/* Also one that began before the mode was left. */
	if (!n || !gn_vm_is_over_template(kvm->vm))
		return;
	pthread_mutex_lock(&n->view_lock);
	gn_kvm_view_template_let_all_in(n);
	pthread_mutex_unlock(&n->view_lock);
}

void gn_kvm_nested_range_changed(struct gn_kvm *kvm, gfn_t start, gfn_t end)
{
	struct gn_kvm_nested *n = kvm->nested;
	char why[256];
	bool changed;

	if (!n || !gn_kvm_layout_follow(n, start, end, &changed, why, sizeof(why)))
		return;
	/* Whoever changed the p2m did; it is the guest that cannot go on. */
	gn_log(GN_LOG_ERROR, "%s", why);
	gn_kvm_stop(kvm);
}

/* ---- The mode's life -------------------------------------------------------------------------------------------------------- */

static int build(struct gn_kvm *kvm)
{
	struct gn_kvm_nested *n = gn_alloc_should_fail() ? NULL : calloc(1, sizeof(*n));
	pthread_mutexattr_t recursive;
	int err;

	if (!n)
		return gn_kvm_sys_fail(kvm->why, sizeof(kvm->why), "nested mode", ENOMEM);
	n->kvm = kvm;
	n->pages = kvm->vm->p2m.gfn_count;
	n->uffd = -1;
	pthread_mutex_init(&n->view_lock, NULL);
	pthread_mutexattr_init(&recursive);
	pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
	pthread_mutex_init(&n->fill_lock, &recursive);
	pthread_mutexattr_destroy(&recursive);
	pthread_mutex_init(&n->queue_lock, NULL);
	pthread_mutex_init(&n->slots_lock, NULL);
	pthread_cond_init(&n->move_begun, NULL);
	kvm->nested = n;
	for (unsigned i = 0; i < kvm->cpu_count; i++) {
		kvm->cpus[i].nested =
			gn_alloc_should_fail() ? NULL : calloc(1, sizeof(*kvm->cpus[i].nested));
		if (!kvm->cpus[i].nested)
			return gn_kvm_sys_fail(kvm->why, sizeof(kvm->why), "nested mode", ENOMEM);
	}
	err = gn_vm_is_over_template(kvm->vm)
		      ? gn_kvm_view_template_new(n, kvm->why, sizeof(kvm->why))
		      : gn_kvm_view_new(n, kvm->why, sizeof(kvm->why));
	if (err)
		return err;
	err = gn_kvm_layout_new(n);
	if (err)
		return gn_kvm_sys_fail(kvm->why, sizeof(kvm->why), "mmap of a dirty ring", -err);
	err = gn_kvm_fill_start(n);
	if (err)
		return gn_kvm_sys_fail(kvm->why, sizeof(kvm->why), "pthread_create", -err);
	return 0;
}

void gn_kvm_nested_destroy(struct gn_kvm *kvm)
{
	struct gn_kvm_nested *n = kvm->nested;

	if (!n)
		return;
	/* A change that is under way has looked, or finds none. */
	gn_lock(&kvm->vm->p2m.lock);
	kvm->nested = NULL;
	gn_unlock(&kvm->vm->p2m.lock);
	gn_kvm_fill_stop(n);
	gn_kvm_layout_destroy(n);
	gn_kvm_view_destroy(n);
	for (unsigned i = 0; i < kvm->cpu_count; i++) {
		free(kvm->cpus[i].nested);
		kvm->cpus[i].nested = NULL;
	}
	pthread_cond_destroy(&n->move_begun);
	pthread_mutex_destroy(&n->slots_lock);
	pthread_mutex_destroy(&n->queue_lock);
	pthread_mutex_destroy(&n->fill_lock);
	pthread_mutex_destroy(&n->view_lock);
	free(n);
}

/* Give all RAM that has no frame yet one, by runs, for a range with a ballooned page in it is refused. */
static int populate(struct gn_kvm_nested *n)
{
	struct gn_vm *vm = n->kvm->vm;
	int err = 0;

	for (uint64_t at = 0, end; at < n->pages && !err; at = end + 1) {
		for (end = at; end < n->pages; end++) {
			enum gn_p2m_state state = gn_p2m_word_state(gn_p2m_get(&vm->p2m, gfn(end)));

			if (state == GN_P2M_BALLOONED || state == GN_P2M_MMIO)
				break;
		}
		if (end > at)
			err = gn_p2m_populate(vm, gfn(at), end - at);
	}
	return err;
}

static void leave(struct gn_kvm *kvm)
{
	struct gn_kvm_nested *n = kvm->nested;

	gn_kvm_layout_leave(n);
	pthread_mutex_lock(&n->view_lock);
	atomic_store(&n->is_active, false);
	if (!gn_vm_is_over_template(kvm->vm)) {
		gn_kvm_view_take(n, gfn(0), gfn(n->pages));
		gn_kvm_view_send_home(n, gfn(0), gfn(n->pages));
	}
	pthread_mutex_unlock(&n->view_lock);
	for (unsigned i = 0; i < kvm->cpu_count; i++)
		atomic_store(&kvm->cpus[i].nested->is_denied, false);
}

static int enter(struct gn_kvm *kvm)
{
	int err = kvm->nested ? 0 : build(kvm);
	struct gn_kvm_nested *n = kvm->nested;

	if (err) {
		gn_kvm_nested_destroy(kvm);
		return err;
	}
	/* From here on changes of the p2m reach the view. If that is empty, one that is under way does no harm; over a template it is not. */
	gn_lock(&kvm->vm->p2m.lock);
	atomic_store(&n->is_active, true);
	gn_unlock(&kvm->vm->p2m.lock);
	err = gn_kvm_layout_enter(n);
	if (!err && kvm->config.populate && !gn_vm_is_over_template(kvm->vm)) {
		err = populate(n);
		if (!err)
			err = gn_kvm_fill_ahead(n);
		if (err)
			gn_kvm_sys_fail(kvm->why, sizeof(kvm->why), "populating guest memory",
					-err);
	}
	if (err)
		leave(kvm);
	return err;
}

/* While held the filler works on nothing. */
static void hold(struct gn_kvm *kvm, bool on)
{
	if (on)
		pthread_mutex_lock(&kvm->nested->fill_lock);
	else
		pthread_mutex_unlock(&kvm->nested->fill_lock);
}

const struct gn_kvm_mode gn_kvm_mode_nested = {
	.name = "nested",
	.enter = enter,
	.leave = leave,
	.set_state = gn_kvm_nested_set_state,
	.get_state = gn_kvm_nested_get_state,
	.before_run = before_run,
	.after_run = after_run,
	.is_at_boundary = is_at_boundary,
	.hold = hold,
};
