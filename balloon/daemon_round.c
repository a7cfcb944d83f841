/* SPDX-License-Identifier: MIT */
/*
 * daemon_round.c - the rounds: ask the policy, tell the VMs, watch deadlines.
 *
 * A round comes each period, and ahead of it when something cannot wait: a guest that asks, memory that arrives for
 * somebody who waits, a VM that comes or goes. Such rounds begin SOON_NS apart, and not before as
 * much time has passed after the last one as it took: a storm of reasons costs half a core at most.
 *
 * A daemon that settles makes no round. The moment that is over it makes one, and only then has it settled: VMs come
 * with what they took while no daemon ran, which together may be more than there is.
 *
 * A VM that is not where it should be when its deadline is over has another one if it gave a good part of what it had
 * to give; a large guest, or one that is short of processor time, shrinks slowly, and reclaiming from it would make it
 * slower. One that did not is late: its own host side is told to reclaim cold pages, each
 * round anew, and the policy counts what it has as gone. Nothing is taken from others for its sake twice.
 */
#include "daemon.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "control/clock.h"
#include "control/step.h"

#define SOON_NS		((uint64_t)5000000)
#define TOLERANCE_BYTES ((uint64_t)1 << 20)
#define PROGRESS_PART	8

/* /proc/pressure/memory: shares of the last 10 s. A kernel without it tells no pressure. */
static void read_pressure(struct gn_policy_host *host)
{
	FILE *file = fopen("/proc/pressure/memory", "re");
	double some = 0, full = 0;

	if (file) {
		if (fscanf(file, "some avg10=%lf %*[^\n] full avg10=%lf", &some, &full) < 1)
			some = 0;
		fclose(file);
	}
	host->psi_some = some / 100;
	host->psi_full = full / 100;
}

static void log_target(struct gn_daemon *d, const char *event, const struct gn_daemon_vm *vm,
		       uint64_t target_bytes)
{
	struct gn_json_writer *w = gn_event_log_begin(d->base.log, event);

	gn_json_put_text(w, "vm", vm->name);
	gn_json_put_u64(w, "from_bytes", vm->target_bytes);
	gn_json_put_u64(w, "target_bytes", target_bytes);
	gn_json_put_u64(w, "actual_bytes", vm->actual_bytes);
	gn_json_put_text(w, "reason", gn_policy_reason_text(vm->decision.reason));
	gn_event_log_end(d->base.log);
}

static void set_deadline(const struct gn_daemon *d, struct gn_daemon_vm *vm, uint64_t now)
{
	vm->deadline_ns = now + d->config.deadline_ms * 1000000;
	vm->due_from_bytes = vm->actual_bytes;
}

/* Since the deadline was set it gave a good part of what it had to give, of which @over_bytes are left. */
static bool has_progressed(const struct gn_daemon_vm *vm, uint64_t over_bytes)
{
	uint64_t given =
		vm->due_from_bytes > vm->actual_bytes ? vm->due_from_bytes - vm->actual_bytes : 0;

	return given >= (given + over_bytes) / PROGRESS_PART;
}

void gn_daemon_tell(struct gn_daemon *d, struct gn_daemon_vm *vm, uint64_t target_bytes)
{
	struct gn_json_writer *w;

	if (d->base.is_dry) {
		log_target(d, "would-target", vm, target_bytes);
		return;
	}
	log_target(d, "target", vm, target_bytes);
	if (vm->target_bytes > vm->unconfirmed_bytes)
		vm->unconfirmed_bytes = vm->target_bytes;
	if (target_bytes > vm->unconfirmed_bytes)
		vm->unconfirmed_bytes = target_bytes;
	vm->target_bytes = target_bytes;
	vm->serial++;
	if (target_bytes >= vm->actual_bytes)
		vm->deadline_ns = 0;
	else if (!vm->deadline_ns)
		set_deadline(d, vm, gn_now_ns());
	d->targets_told++;
	gn_step_pass("telling");
	w = gn_peer_begin_event(vm->peer, "TARGET");
	gn_json_put_text(w, "vm", vm->name);
	gn_json_put_u64(w, "target_bytes", target_bytes);
	gn_json_put_u64(w, "serial", vm->serial);
	gn_json_put_u64(w, "deadline_ms", d->config.deadline_ms);
	gn_peer_end_event(vm->peer);
	gn_step_pass("told");
}

static void watch_deadline(struct gn_daemon *d, struct gn_daemon_vm *vm, uint64_t now)
{
	uint64_t over =
		vm->actual_bytes > vm->target_bytes ? vm->actual_bytes - vm->target_bytes : 0;
	struct gn_json_writer *w;

	if (over <= TOLERANCE_BYTES) {
		vm->is_late = false;
		vm->deadline_ns = 0;
		return;
	}
	if (!vm->deadline_ns || now < vm->deadline_ns)
		return;
	if (!vm->is_late && has_progressed(vm, over)) {
		set_deadline(d, vm, now);
		return;
	}
	if (!vm->is_late) {
		vm->is_late = true;
		d->lates++;
		log_target(d, "late", vm, vm->target_bytes);
		gn_step_pass("late");
	}
	w = gn_peer_begin_event(vm->peer, "RECLAIM");
	gn_json_put_text(w, "vm", vm->name);
	gn_json_put_u64(w, "bytes", over);
	gn_peer_end_event(vm->peer);
}

/* It is to have more than it was told, or asks for more than it is to have: memory that comes by now is for it. */
static bool is_waiting(const struct gn_daemon_vm *vm)
{
	const struct gn_policy_decision *decision = &vm->decision;

	return decision->wished_now_bytes > decision->target_bytes ||
	       (vm->asks_bytes && decision->target_bytes < vm->actual_bytes + vm->asks_bytes);
}

static void decide(struct gn_daemon *d)
{
	d->is_waiting = false;
	for (size_t i = 0; i < d->count; i++)
		gn_daemon_vm_describe(d->vms[i], &d->policy_vms[i]);
	d->host.budget_bytes = gn_daemon_budget(d);
	if (gn_policy_round(d->policy, d->round_ns, &d->host, d->policy_vms, d->count,
			    d->decisions)) {
		d->failed_rounds++;
		return;
	}
	gn_step_pass("decided");
	for (size_t i = 0; i < d->count; i++) {
		struct gn_daemon_vm *vm = d->vms[i];
		bool changes = d->decisions[i].target_bytes != vm->target_bytes;
		bool repeats =
			d->base.is_dry && d->decisions[i].target_bytes == vm->decision.target_bytes;

		vm->decision = d->decisions[i];
		d->is_waiting |= is_waiting(vm);
		if (changes && !repeats)
			gn_daemon_tell(d, vm, vm->decision.target_bytes);
	}
	gn_step_pass("round-done");
}

static void make_round(struct gn_daemon *d)
{
	uint64_t start = gn_now_ns(), cpu_ns = gn_clock_ns(CLOCK_THREAD_CPUTIME_ID);

	if (d->base.is_stopping)
		return;
	gn_step_pass("round");
	d->round_ns = start;
	d->rounds++;
	if (!d->base.is_dry)
		for (size_t i = 0; i < d->count; i++)
			watch_deadline(d, d->vms[i], start);
	if (!d->base.is_paused)
		decide(d);
	d->last_round_took_ns = gn_now_ns() - start;
	if (d->last_round_took_ns > d->longest_round_ns)
		d->longest_round_ns = d->last_round_took_ns;
	cpu_ns = gn_clock_ns(CLOCK_THREAD_CPUTIME_ID) - cpu_ns;
	if (cpu_ns > d->costliest_round_ns)
		d->costliest_round_ns = cpu_ns;
}

static int on_soon(sd_event_source *source, uint64_t usec, void *ctx)
{
	struct gn_daemon *d = ctx;

	(void)source;
	(void)usec;
	d->is_soon = false;
	if (!d->is_settling)
		d->early_rounds++;
	make_round(d);
	d->is_settling = false;
	return 0;
}

static void plan_round(struct gn_daemon *d, uint64_t wait_ns)
{
	d->is_soon = true;
	sd_event_source_set_time_relative(d->soon, wait_ns / 1000);
	sd_event_source_set_enabled(d->soon, SD_EVENT_ONESHOT);
}

void gn_daemon_want_round(struct gn_daemon *d)
{
	uint64_t since_ns = gn_now_ns() - d->round_ns;
	uint64_t apart_ns = 2 * d->last_round_took_ns;

	if (apart_ns < SOON_NS)
		apart_ns = SOON_NS;
	if (!d->is_soon && !d->base.is_stopping)
		plan_round(d, since_ns < apart_ns ? apart_ns - since_ns : 0);
}

static void tell_status(struct gn_daemon *d)
{
	gn_base_status(&d->base, "%zu VMs, %llu of %llu MiB", d->count,
		       (unsigned long long)(gn_daemon_sum_actual(d) >> 20),
		       (unsigned long long)(d->config.budget_bytes >> 20));
}

void gn_daemon_restart_period(struct gn_daemon *d)
{
	sd_event_source_set_time_relative(d->period, d->config.period_ms * 1000);
	sd_event_source_set_enabled(d->period, SD_EVENT_ONESHOT);
}

static int on_period(sd_event_source *source, uint64_t usec, void *ctx)
{
	struct gn_daemon *d = ctx;

	(void)source;
	(void)usec;
	gn_daemon_restart_period(d);
	read_pressure(&d->host);
	gn_daemon_ask_sharing(d);
	if (!d->is_settling)
		make_round(d);
	tell_status(d);
	gn_base_write_textfile(&d->base);
	return 0;
}

int gn_daemon_rounds_start(struct gn_daemon *d)
{
	sd_event *event = gn_service_event(d->base.service);
	int err = sd_event_add_time_relative(event, &d->period, CLOCK_MONOTONIC,
					     d->config.period_ms * 1000, 1000, on_period, d);

	if (err >= 0)
		err = sd_event_add_time(event, &d->soon, CLOCK_MONOTONIC, 0, 100, on_soon, d);
	if (err >= 0)
		err = sd_event_source_set_enabled(d->soon, SD_EVENT_OFF);
	if (err < 0)
		return err;
	d->is_settling = d->config.settle_ms > 0;
	if (d->is_settling)
		plan_round(d, d->config.settle_ms * 1000000);
	return 0;
}
