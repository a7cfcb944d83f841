/* SPDX-License-Identifier: MIT */
/*
 * daemon_metrics.c - the daemon's figures, brought up to date when somebody looks. KSM's names (/sys/kernel/mm/ksm) where the
 * meaning is KSM's. docs/shared.md lists them.
 */
#include "daemon.h"

struct figure {
	enum gn_metric_kind kind;
	const char *name, *help;
	double value;
};

static void put_all(struct gn_shared *d, const struct figure *figures, size_t count)
{
	for (size_t i = 0; i < count; i++)
		gn_metrics_put(d->base.metrics, figures[i].kind, figures[i].name, figures[i].help,
			       figures[i].value);
}

static void put_sums(struct gn_shared *d, const struct gn_shared_sums *s)
{
	const struct figure figures[] = {
		{ GN_METRIC_GAUGE, "gnomon_pages_shared", "Frames that are shared (KSM's).",
		  (double)s->pages_shared },
		{ GN_METRIC_GAUGE, "gnomon_pages_sharing",
		  "Pages beyond those that have such a frame (KSM's).", (double)s->pages_sharing },
		{ GN_METRIC_GAUGE, "gnomon_pages_unshared",
		  "Pages whose like was not found, unchanged since (KSM's).",
		  (double)s->pages_unshared },
		{ GN_METRIC_GAUGE, "gnomon_pages_volatile",
		  "Pages that did not stand still for long enough yet (KSM's).",
		  (double)s->pages_volatile },
		{ GN_METRIC_GAUGE, "gnomon_pages_sealed",
		  "Pages of quiet domains whose next use is a copy, shared or not.",
		  (double)s->pages_sealed },
		{ GN_METRIC_COUNTER, "gnomon_pages_scanned_total", "Pages hashed (KSM's).",
		  (double)s->pages_scanned },
		{ GN_METRIC_COUNTER, "gnomon_full_scans_total",
		  "Sweeps that VMs registered now have completed (KSM's).", (double)s->full_scans },
		{ GN_METRIC_COUNTER, "gnomon_zero_pages_total",
		  "Pages of zeros that lost their frame.", (double)s->zero_pages },
		{ GN_METRIC_GAUGE, "gnomon_saved_bytes", "What guests have beyond what there is.",
		  (double)s->saved_bytes },
		{ GN_METRIC_GAUGE, "gnomon_vms", "VMs registered.", (double)d->vm_count },
		{ GN_METRIC_GAUGE, "gnomon_lost_vms",
		  "VMs without a connection that may use frames.", (double)s->lost_vms },
		{ GN_METRIC_COUNTER, "gnomon_vms_admitted_total", "Registrations.",
		  (double)d->admitted },
		{ GN_METRIC_COUNTER, "gnomon_vms_gone_total", "VMs whose frames came back.",
		  (double)d->gones },
		{ GN_METRIC_COUNTER, "gnomon_vms_broken_total", "VMs whose exchange made no sense.",
		  (double)d->broken },
		{ GN_METRIC_COUNTER, "gnomon_rests_total", "Times the CPU budget was used up.",
		  (double)d->rests },
		{ GN_METRIC_GAUGE, "gnomon_vm_cpu_ratio", "CPU time granted to each VM's scanning.",
		  (double)gn_shared_share_ppm(d) * 1e-6 },
	};

	put_all(d, figures, sizeof(figures) / sizeof(figures[0]));
}

/* Of all domains there are now, so a domain that ends takes its counts along: gauges. */
static void put_brokers(struct gn_shared *d, const struct gn_broker_stats *s)
{
	const struct figure figures[] = {
		{ GN_METRIC_GAUGE, "gnomon_pool_used_pages", "Frames in use.",
		  (double)s->pool_used_pages },
		{ GN_METRIC_GAUGE, "gnomon_pool_resident_pages",
		  "Memory of pools, unused frames too.", (double)s->pool_resident_pages },
		{ GN_METRIC_GAUGE, "gnomon_pool_segments", "Segments.", (double)s->live_segments },
		{ GN_METRIC_GAUGE, "gnomon_pool_retired_segments",
		  "Segments that VMs have not let go of yet.", (double)s->retired_segments },
		{ GN_METRIC_GAUGE, "gnomon_index_entries", "Entries of the indexes.",
		  (double)s->index_entries },
		{ GN_METRIC_GAUGE, "gnomon_offers", "Pages offered.", (double)s->offers },
		{ GN_METRIC_GAUGE, "gnomon_merged", "Pages merged.", (double)s->merged },
		{ GN_METRIC_GAUGE, "gnomon_splits_ordered", "Orders to split a large block.",
		  (double)s->splits_ordered },
		{ GN_METRIC_GAUGE, "gnomon_refused_differing", "Merges refused: contents differed.",
		  (double)s->refused_differing },
		{ GN_METRIC_GAUGE, "gnomon_refused_busy", "Merges refused: pinned.",
		  (double)s->refused_busy },
		{ GN_METRIC_GAUGE, "gnomon_refused_state", "Merges refused: not a page to share.",
		  (double)s->refused_state },
		{ GN_METRIC_GAUGE, "gnomon_could_merge", "Dry run: offers that met their like.",
		  (double)s->could_merge },
		{ GN_METRIC_GAUGE, "gnomon_bad_records", "Records of VMs that made no sense.",
		  (double)s->bad_records },
	};

	put_all(d, figures, sizeof(figures) / sizeof(figures[0]));
}

static void put_domain(struct gn_shared *d, const struct gn_shared_domain *domain)
{
	gn_metric_set(gn_metrics_get(d->base.metrics, GN_METRIC_GAUGE, "gnomon_domain_quiet",
				     "Whether the domain is quiet.", "domain", domain->name),
		      domain->is_quiet);
}

static void put_vm(struct gn_shared *d, const struct gn_shared_vm *vm)
{
	gn_metric_set(gn_metrics_get(d->base.metrics, GN_METRIC_GAUGE, "gnomon_vm_pages_sharing",
				     "Pages that have a shared frame.", "vm", vm->name),
		      (double)vm->pages_sharing);
	gn_metric_set(gn_metrics_get(d->base.metrics, GN_METRIC_COUNTER,
				     "gnomon_vm_cpu_seconds_total",
				     "CPU time of the VM's scanning.", "vm", vm->name),
		      (double)vm->cpu_us * 1e-6);
}

/* How pages are merged is there to be seen: of each mechanism that VMs named, how many use it. */
static void put_mechanisms(struct gn_shared *d)
{
	static const char name[] = "gnomon_mechanism_vms", label[] = "mechanism";

	for (unsigned is_counting = 0; is_counting < 2; is_counting++)
		for (const struct gn_shared_vm *vm = d->vms; vm; vm = vm->next) {
			struct gn_metric *m =
				vm->mechanism[0]
					? gn_metrics_get(d->base.metrics, GN_METRIC_GAUGE, name,
							 "VMs by how their pages are merged.",
							 label, vm->mechanism)
					: NULL;

			if (!is_counting)
				gn_metric_set(m, 0);
			else if (vm->peer)
				gn_metric_add(m, 1);
		}
}

void gn_shared_update_metrics(void *ctx)
{
	struct gn_shared *d = ctx;
	struct gn_shared_sums sums;

	gn_shared_sum(d, &sums);
	put_sums(d, &sums);
	put_brokers(d, &sums.brokers);
	put_mechanisms(d);
	for (const struct gn_shared_domain *domain = d->domains; domain; domain = domain->next)
		put_domain(d, domain);
	gn_shared_put_templates(d);
	gn_base_put_metrics(&d->base);
	for (const struct gn_shared_vm *vm = d->vms; vm; vm = vm->next)
		if (vm->peer)
			put_vm(d, vm);
}
