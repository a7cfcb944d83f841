/* SPDX-License-Identifier: MIT */
/*
 * daemon_metrics.c - the daemon's figures, brought up to date when somebody looks. docs/balloond.md lists the names.
 */
#include "daemon.h"

#include <string.h>
#include <sys/resource.h>

static void put(struct gn_daemon *d, enum gn_metric_kind kind, const char *name, const char *help,
		double value)
{
	gn_metric_set(gn_metrics_get(d->metrics, kind, name, help, NULL, NULL), value);
}

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
		{ "gnomon_vms_refused_total", "Registrations refused.", (double)d->refused },
		{ "gnomon_vms_gone_total", "VMs whose memory came back.", (double)d->gones },
		{ "gnomon_vms_late_total", "Deadlines missed.", (double)d->lates },
		{ "gnomon_targets_total", "Targets told.", (double)d->targets_told },
		{ "gnomon_asks_total", "Requests for memory back.", (double)d->asks },
		{ "gnomon_reloads_total", "Configurations taken over.", (double)d->reloads },
		{ "gnomon_reloads_refused_total", "Configurations refused.",
		  (double)d->refused_reloads },
		{ "gnomon_textfile_failures_total", "Times the textfile was not written.",
		  (double)d->textfile_failures },
		{ "gnomon_event_log_lost_total", "Lines the event log lost.",
		  (double)gn_event_log_lost(d->log) },
	};

	for (size_t i = 0; i < sizeof(counters) / sizeof(counters[0]); i++)
		put(d, GN_METRIC_COUNTER, counters[i].name, counters[i].help, counters[i].value);
}

static void put_server(struct gn_daemon *d)
{
	struct gn_server_stats s;

	gn_server_get_stats(d->server, &s);
	put(d, GN_METRIC_GAUGE, "gnomon_connections", "Connections now.", (double)s.peers);
	put(d, GN_METRIC_COUNTER, "gnomon_requests_total", "Commands executed.",
	    (double)s.requests);
	put(d, GN_METRIC_COUNTER, "gnomon_reports_total", "Events from VMs.", (double)s.events);
	put(d, GN_METRIC_COUNTER, "gnomon_bad_lines_total", "Lines that were no message.",
	    (double)s.bad_lines);
	put(d, GN_METRIC_COUNTER, "gnomon_bad_reports_total", "Events that made no sense.",
	    (double)s.bad_events);
	put(d, GN_METRIC_COUNTER, "gnomon_connections_refused_total",
	    "Connections of strangers, or too many.", (double)(s.refused_uid + s.refused_full));
	put(d, GN_METRIC_COUNTER, "gnomon_slow_peers_dropped_total", "Peers that did not read.",
	    (double)s.dropped_slow);
}

static double cpu_seconds(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

void gn_daemon_update_metrics(void *ctx)
{
	struct gn_daemon *d = ctx;

	put_counters(d);
	put_server(d);
	put(d, GN_METRIC_COUNTER, "gnomon_cpu_seconds_total", "CPU time of the daemon.",
	    cpu_seconds());
	put(d, GN_METRIC_GAUGE, "gnomon_round_seconds", "Duration of the last round.",
	    (double)d->last_round_took_ns * 1e-9);
	put(d, GN_METRIC_GAUGE, "gnomon_longest_round_seconds", "Duration of the longest round.",
	    (double)d->longest_round_ns * 1e-9);
	put(d, GN_METRIC_GAUGE, "gnomon_vms", "VMs registered.", (double)d->count);
	put(d, GN_METRIC_GAUGE, "gnomon_lost_bytes", "Withheld for VMs that have no connection.",
	    (double)gn_daemon_lost_bytes(d));
	put(d, GN_METRIC_GAUGE, "gnomon_budget_bytes", "Memory of all VMs together.",
	    (double)d->config.budget_bytes);
	put(d, GN_METRIC_GAUGE, "gnomon_reserved_bytes", "Sum of the VMs' minima.",
	    (double)gn_daemon_sum_min(d));
	put(d, GN_METRIC_GAUGE, "gnomon_over_reserved_bytes", "Minima beyond the budget.",
	    (double)gn_daemon_over_reserved(d));
	put(d, GN_METRIC_GAUGE, "gnomon_actual_bytes", "Memory that VMs have.",
	    (double)gn_daemon_sum_actual(d));
	put(d, GN_METRIC_GAUGE, "gnomon_pressure_some_ratio", "Host PSI, memory, some, 10 s.",
	    d->host.psi_some);
	put(d, GN_METRIC_GAUGE, "gnomon_pressure_full_ratio", "Host PSI, memory, full, 10 s.",
	    d->host.psi_full);
	for (size_t i = 0; i < d->count; i++) {
		const struct gn_daemon_vm *vm = d->vms[i];

		gn_metric_set(vm->target_metric, (double)vm->target_bytes);
		gn_metric_set(vm->actual_metric, (double)vm->actual_bytes);
		gn_metric_set(vm->active_metric, vm->active_bytes == GN_POLICY_UNKNOWN
							 ? (double)vm->actual_bytes
							 : (double)vm->active_bytes);
		gn_metric_set(vm->reclaimed_metric, (double)vm->reclaimed_bytes);
	}
}

void gn_daemon_write_textfile(struct gn_daemon *d)
{
	int err;

	if (!d->config.textfile[0])
		return;
	gn_daemon_update_metrics(d);
	err = gn_metrics_write_file(d->metrics, d->config.textfile);
	if (err)
		d->textfile_failures++;
	if (err && err != d->textfile_errno) {
		struct gn_json_writer *w = gn_event_log_begin(d->log, "textfile-failed");

		gn_json_put_text(w, "path", d->config.textfile);
		gn_json_put_text(w, "why", strerror(-err));
		gn_event_log_end(d->log);
		gn_daemon_say(d, "textfile %s: %s", d->config.textfile, strerror(-err));
	}
	d->textfile_errno = err;
}
