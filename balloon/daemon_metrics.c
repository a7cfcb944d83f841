/* SPDX-License-Identifier: MIT */
/*
 * daemon_metrics.c - the daemon's figures, brought up to date when somebody looks. docs/balloond.md lists the names.
 */
#include "daemon.h"

static void put_counters(struct gn_daemon *d)
{
	const struct {
		const char *name, *help;
		double value;
	} counters[] = {
		{ "gnomon_rounds_total", "Rounds of the policy.", (double)d->rounds },
		{ "gnomon_early_rounds_total", "Rounds ahead of their time.",
		  (double)d->early_rounds },
		{ "gnomon_failed_rounds_total", "Rounds in which nothing was decided.",
		  (double)d->failed_rounds },
		{ "gnomon_vms_admitted_total", "Registrations.", (double)d->admitted },
		{ "gnomon_vms_gone_total", "VMs whose memory came back.", (double)d->gones },
		{ "gnomon_vms_late_total", "Deadlines missed.", (double)d->lates },
		{ "gnomon_targets_total", "Targets told.", (double)d->targets_told },
		{ "gnomon_asks_total", "Requests for memory back.", (double)d->asks },
	};

	for (size_t i = 0; i < sizeof(counters) / sizeof(counters[0]); i++)
		gn_metrics_put(d->base.metrics, GN_METRIC_COUNTER, counters[i].name,
			       counters[i].help, counters[i].value);
}

void gn_daemon_update_metrics(void *ctx)
{
	struct gn_daemon *d = ctx;

	put_counters(d);
	gn_base_put_metrics(&d->base);
	gn_metrics_put(d->base.metrics, GN_METRIC_GAUGE, "gnomon_round_seconds",
		       "Duration of the last round.", (double)d->last_round_took_ns * 1e-9);
	gn_metrics_put(d->base.metrics, GN_METRIC_GAUGE, "gnomon_longest_round_seconds",
		       "Duration of the longest round.", (double)d->longest_round_ns * 1e-9);
	gn_metrics_put(d->base.metrics, GN_METRIC_GAUGE, "gnomon_vms", "VMs registered.",
		       (double)d->count);
	gn_metrics_put(d->base.metrics, GN_METRIC_GAUGE, "gnomon_saved_bytes",
		       "Divided beyond the budget, because sharing saves it.",
		       (double)gn_daemon_saved_bytes(d));
	gn_metrics_put(d->base.metrics, GN_METRIC_GAUGE, "gnomon_lost_bytes",
		       "Withheld for VMs that have no connection.",
		       (double)gn_daemon_lost_bytes(d));
	gn_metrics_put(d->base.metrics, GN_METRIC_GAUGE, "gnomon_budget_bytes",
		       "Memory of all VMs together.", (double)d->config.budget_bytes);
	gn_metrics_put(d->base.metrics, GN_METRIC_GAUGE, "gnomon_reserved_bytes",
		       "Sum of the VMs' minima.", (double)gn_daemon_sum_min(d));
	gn_metrics_put(d->base.metrics, GN_METRIC_GAUGE, "gnomon_over_reserved_bytes",
		       "Minima beyond the budget.", (double)gn_daemon_over_reserved(d));
	gn_metrics_put(d->base.metrics, GN_METRIC_GAUGE, "gnomon_actual_bytes",
		       "Memory that VMs have.", (double)gn_daemon_sum_actual(d));
	gn_metrics_put(d->base.metrics, GN_METRIC_GAUGE, "gnomon_pressure_some_ratio",
		       "Host PSI, memory, some, 10 s.", d->host.psi_some);
	gn_metrics_put(d->base.metrics, GN_METRIC_GAUGE, "gnomon_pressure_full_ratio",
		       "Host PSI, memory, full, 10 s.", d->host.psi_full);
	for (size_t i = 0; i < d->count; i++) {
		const struct gn_daemon_vm *vm = d->vms[i];

		gn_metric_set(vm->target_metric, (double)vm->target_bytes);
		gn_metric_set(vm->actual_metric, (double)vm->actual_bytes);
		gn_metric_set(vm->active_metric, vm->active_bytes == GN_POLICY_UNKNOWN
							 ? (double)vm->actual_bytes
							 : (double)vm->active_bytes);
		gn_metric_set(vm->reclaimed_metric, (double)vm->reclaimed_bytes);
		gn_metric_set(vm->reformed_metric, (double)vm->reformed_blocks);
	}
}
