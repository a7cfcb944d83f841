/* SPDX-License-Identifier: MIT */
/*
 * daemon_budget.c - the CPU budget: a fifth is the daemon's, the rest is divided evenly among the VMs' agents.
 *
 * VMs hold their share themselves (agent_scan.c). The daemon holds its own by a bucket: when it is empty, it does not look at
 * exchanges until some time is there again. Rings fill meanwhile, and who offers waits. What else the daemon does, it does for
 * those who ask, and is not charged.
 */
#include "control/clock.h"
#include "daemon.h"

#define REST_US	  10000
#define BUCKET_NS 50000000
#define OWN_PART  5 /* of the budget */

uint64_t gn_shared_share_ppm(const struct gn_shared *d)
{
	const double all_ppm = d->config.cpu_percent * 10000;
	const double ppm = (all_ppm - all_ppm / OWN_PART) / (d->vm_count ? d->vm_count : 1);

	if (d->base.is_paused)
		return 0;
	return ppm < 1 ? 1 : ppm > 1000000 ? 1000000 : (uint64_t)ppm;
}

void gn_shared_tell_budget(struct gn_shared *d, bool always)
{
	const uint64_t ppm = gn_shared_share_ppm(d);

	if (ppm == d->told_ppm && !always)
		return;
	d->told_ppm = ppm;
	for (struct gn_shared_vm *vm = d->vms; vm; vm = vm->next)
		if (vm->peer) {
			struct gn_json_writer *w = gn_peer_begin_event(vm->peer, "SETTINGS");

			gn_json_put_u64(w, "cpu_ppm", ppm);
			gn_json_put_u64(w, "sweep_ms", d->config.sweep_ms);
			gn_peer_end_event(vm->peer);
		}
}

static int on_rested(sd_event_source *source, uint64_t usec, void *ctx)
{
	struct gn_shared *d = ctx;

	(void)source;
	(void)usec;
	d->is_resting = false;
	sd_event_source_set_enabled(d->links, SD_EVENT_ON);
	return 0;
}

bool gn_shared_may_work(struct gn_shared *d)
{
	const uint64_t now_ns = gn_now_ns();
	const double ppm = d->base.is_paused ? 0 : d->config.cpu_percent * 10000 / OWN_PART;

	d->tokens_ns += (int64_t)((double)(now_ns - d->refilled_ns) * ppm / 1e6);
	d->refilled_ns = now_ns;
	if (d->tokens_ns > BUCKET_NS)
		d->tokens_ns = BUCKET_NS;
	if (d->tokens_ns > 0)
		return true;
	if (!d->is_resting) {
		d->is_resting = true;
		d->rests++;
		sd_event_source_set_enabled(d->links, SD_EVENT_OFF);
		sd_event_source_set_time_relative(d->rest, REST_US);
		sd_event_source_set_enabled(d->rest, SD_EVENT_ONESHOT);
	}
	return false;
}

void gn_shared_charge(struct gn_shared *d, uint64_t cpu_ns)
{
	d->tokens_ns -= (int64_t)(gn_clock_ns(CLOCK_THREAD_CPUTIME_ID) - cpu_ns);
	/* One turn that took long is no debt for ever. */
	if (d->tokens_ns < -BUCKET_NS)
		d->tokens_ns = -BUCKET_NS;
}

int gn_shared_budget_start(struct gn_shared *d)
{
	int err = sd_event_add_time(gn_service_event(d->base.service), &d->rest, CLOCK_MONOTONIC, 0,
				    1000, on_rested, d);

	if (err >= 0)
		err = sd_event_source_set_enabled(d->rest, SD_EVENT_OFF);
	d->refilled_ns = gn_now_ns();
	return err < 0 ? err : 0;
}
