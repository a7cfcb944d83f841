/* SPDX-License-Identifier: MIT */
/*
 * daemon.c - what gnomon-shared adds to the life of every daemon (control/base.h), and what is done each second.
 *
 * A reload: what a domain has had since it began (pool, index) changes for the next domain. VMs that their domain's section
 * names no more lose their connection; what they share stays shared until they write it. So do all VMs of a domain that becomes quiet, or
 * ceases to be: they come back and are told, or do not. New templates are read before a reload comes into force, which a file that will not do
 * refuses whole; VMs over one that it names no more keep it, and their connection.
 *
 * Stopping is nothing to VMs: they keep what they share.
 */
#include "daemon.h"

#include <stddef.h>
#include <string.h>

#define PERIOD_US  1000000
#define PAGE_BYTES 4096

static const char *const capabilities[] = { "sharing", "events" };

/* ---- Figures ----------------------------------------------------------------------------------------------------- */

static void add_broker(struct gn_broker_stats *sum, const struct gn_broker *broker)
{
	struct gn_broker_stats s;
	uint64_t *to = (uint64_t *)sum;
	const uint64_t *from = (const uint64_t *)&s;

	_Static_assert(sizeof(s) % sizeof(*to) == 0, "nothing but counts");
	gn_broker_get_stats(broker, &s);
	for (size_t i = 0; i < sizeof(s) / sizeof(*to); i++)
		to[i] += from[i];
}

/* No more than we know to have been merged, where we know it. */
static uint64_t shared_pages(const struct gn_shared_vm *vm)
{
	struct gn_broker_vm_stats s;

	if (!vm->broker_vm)
		return vm->pages_sharing;
	gn_broker_vm_get_stats(vm->broker_vm, &s);
	return vm->pages_sharing < s.merged ? vm->pages_sharing : s.merged;
}

void gn_shared_sum(const struct gn_shared *d, struct gn_shared_sums *out)
{
	uint64_t in_domains = 0, alone = 0, alone_frames = 0, stock = 0, used;

	memset(out, 0, sizeof(*out));
	for (const struct gn_shared_domain *domain = d->domains; domain; domain = domain->next)
		add_broker(&out->brokers, domain->broker);
	out->pages_scanned = d->gone_scanned;
	out->zero_pages = d->gone_zero_pages;
	out->full_scans = d->gone_full_scans;
	out->lost_vms = d->lost_count;
	for (const struct gn_shared_vm *vm = d->vms; vm; vm = vm->next) {
		out->pages_scanned += vm->pages_scanned;
		out->zero_pages += vm->zero_pages;
		out->full_scans += vm->full_scans;
		/* What a lost one has it tells again when it is back. */
		if (!vm->peer)
			continue;
		/* What it has not written was never its own, and is nothing to be given to others. */
		if (vm->over)
			continue;
		*(vm->domain ? &in_domains : &alone) += shared_pages(vm);
		alone_frames += vm->domain ? 0 : vm->pages_shared;
		stock += vm->stock_pages;
		out->pages_unshared += vm->pages_unshared;
		out->pages_volatile += vm->pages_volatile;
		out->pages_sealed += vm->pages_sealed;
	}
	out->pages_shared = out->brokers.pages_shared + alone_frames;
	out->pages_sharing =
		in_domains + alone > out->pages_shared ? in_domains + alone - out->pages_shared : 0;
	used = out->brokers.pool_resident_pages + alone_frames + stock;
	out->saved_bytes = in_domains + alone > used ? (in_domains + alone - used) * PAGE_BYTES : 0;
}

/* ---- Each second ------------------------------------------------------------------------------------------------- */

static int on_period(sd_event_source *source, uint64_t usec, void *ctx)
{
	struct gn_shared *d = ctx;
	struct gn_shared_sums sums;

	(void)usec;
	for (struct gn_shared_domain *domain = d->domains; domain; domain = domain->next) {
		gn_broker_tidy(domain->broker);
		gn_shared_domain_order(d, domain);
	}
	gn_shared_sum(d, &sums);
	gn_base_status(&d->base, "%u VMs, %llu MiB saved", d->vm_count,
		       (unsigned long long)(sums.saved_bytes >> 20));
	gn_base_write_textfile(&d->base);
	sd_event_source_set_time_relative(source, PERIOD_US);
	sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
	return 0;
}

/* ---- A life ------------------------------------------------------------------------------------------------------ */

static int accept_config(void *ctx, void *fresh, char *why, size_t why_bytes)
{
	return gn_shared_templates_read(ctx, fresh, why, why_bytes);
}

static void discarded(void *ctx)
{
	gn_shared_templates_discard(ctx);
}

static void applied(void *ctx, const void *old)
{
	(void)old;
	gn_shared_templates_apply(ctx);
	gn_shared_recheck(ctx);
	gn_shared_tell_budget(ctx, true);
}

static void paused(void *ctx)
{
	gn_shared_tell_budget(ctx, true);
}

static int start(void *ctx)
{
	struct gn_shared *d = ctx;
	char why[GN_WHY_BYTES];
	int err = gn_shared_templates_read(d, &d->config, why, sizeof(why));

	if (err) {
		gn_base_say(&d->base, "%s", why);
		return err;
	}
	gn_shared_templates_apply(d);
	err = gn_shared_links_start(d);
	if (!err)
		err = gn_shared_budget_start(d);
	if (!err)
		err = sd_event_add_time_relative(gn_service_event(d->base.service), &d->period,
						 CLOCK_MONOTONIC, PERIOD_US, 1000, on_period, d);
	return err < 0 ? err : 0;
}

static void destroy(void *ctx)
{
	struct gn_shared *d = ctx;

	while (d->vms)
		gn_shared_forget(d->vms);
	gn_shared_templates_end(d);
	gn_shared_links_stop(d);
	sd_event_source_disable_unref(d->period);
	sd_event_source_disable_unref(d->rest);
}

const struct gn_base_ops gn_shared_ops = {
	.name = "gnomon-shared",
	.release = GN_SHARED_RELEASE,
	.summary = "Share equal pages among virtual machines that agreed to it.",
	.config_path = "/etc/gnomon/shared.ini",
	.capabilities = capabilities,
	.capability_count = sizeof(capabilities) / sizeof(capabilities[0]),
	.daemon_bytes = sizeof(struct gn_shared),
	.config_at = offsetof(struct gn_shared, config),
	.schema = &gn_shared_schema,
	.check = gn_shared_templates_check,
	.commands = gn_shared_commands,
	.event = gn_shared_on_event,
	.gone = gn_shared_on_gone,
	.start = start,
	.destroy = destroy,
	.accept = accept_config,
	.discarded = discarded,
	.applied = applied,
	.paused = paused,
	.update_metrics = gn_shared_update_metrics,
};
