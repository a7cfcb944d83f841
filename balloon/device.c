/* SPDX-License-Identifier: MIT */
/*
 * device.c - the device's life, and its face to the host.
 *
 * What the driver claims and what is true are kept apart: `actual` of the configuration space is a claim and goes
 * nowhere but into the statistics; the pages held are known from the p2m changes that were made.
 *
 * A reset empties the balloon: whoever drives the device next (a rebooted kernel) knows nothing of what was given
 * away, and would be stopped at the first touch.
 */
#include "device.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "mmu/vm.h"

#define QUEUE_SIZE_DEFAULT 256
#define NS_PER_S	   1000000000

static const char *const fault_names[GN_BALLOON_FAULTS] = {
	[GN_BALLOON_FAULT_REGISTER] = "bad-register-access",
	[GN_BALLOON_FAULT_STATUS] = "bad-status-step",
	[GN_BALLOON_FAULT_FEATURES] = "bad-features",
	[GN_BALLOON_FAULT_QUEUE] = "bad-queue-setup",
	[GN_BALLOON_FAULT_NOTIFY] = "bad-notification",
	[GN_BALLOON_FAULT_RING] = "unreachable-ring",
	[GN_BALLOON_FAULT_INDEX] = "bad-ring-index",
	[GN_BALLOON_FAULT_CHAIN] = "bad-chain",
	[GN_BALLOON_FAULT_ADDRESS] = "bad-buffer-address",
	[GN_BALLOON_FAULT_LENGTH] = "bad-buffer-length",
	[GN_BALLOON_FAULT_DIRECTION] = "bad-buffer-direction",
	[GN_BALLOON_FAULT_RANGE] = "pfn-out-of-range",
	[GN_BALLOON_FAULT_OWNER] = "pfn-not-owned",
	[GN_BALLOON_FAULT_DUPLICATE] = "pfn-duplicate",
	[GN_BALLOON_FAULT_NOT_HELD] = "pfn-not-in-balloon",
	[GN_BALLOON_FAULT_CHURN] = "ping-pong",
	[GN_BALLOON_FAULT_STATS] = "forged-statistics",
	[GN_BALLOON_FAULT_HINT] = "stray-hint",
};

const char *gn_balloon_fault_name(enum gn_balloon_fault fault)
{
	return fault < GN_BALLOON_FAULTS ? fault_names[fault] : NULL;
}

/* ---- Told to the embedder ------------------------------------------------------------------------------------ */

void gn_balloon_lock(struct gn_balloon *b)
{
	pthread_mutex_lock(&b->lock);
}

void gn_balloon_unlock(struct gn_balloon *b)
{
	struct gn_balloon_outbox out = b->outbox;

	b->stats.interrupts += out.interrupt;
	b->outbox = (struct gn_balloon_outbox){ .events = 0 };
	pthread_mutex_unlock(&b->lock);
	if (out.interrupt && b->config.irq)
		b->config.irq(b->config.ctx);
	if (out.events && b->config.event)
		b->config.event(b->config.ctx, out.events);
}

void gn_balloon_interrupt(struct gn_balloon *b, uint32_t bit)
{
	if (!(b->interrupt_status & bit))
		b->outbox.interrupt = true;
	b->interrupt_status |= bit;
}

void gn_balloon_config_changed(struct gn_balloon *b)
{
	b->config_generation++;
	if (gn_balloon_is_live(b))
		gn_balloon_interrupt(b, GN_VIRTIO_INTERRUPT_CONFIG);
}

void gn_balloon_break(struct gn_balloon *b, const char *why)
{
	b->status |= GN_VIRTIO_STATUS_NEEDS_RESET;
	b->pending = 0;
	b->stats.broken_why = why;
	b->outbox.events |= GN_BALLOON_EVENT_BROKEN;
	/* 2.1.2: said by a configuration change if the driver was there already. */
	if (b->status & GN_VIRTIO_STATUS_DRIVER_OK)
		gn_balloon_interrupt(b, GN_VIRTIO_INTERRUPT_CONFIG);
}

uint64_t gn_balloon_now_ns(const struct gn_balloon *b)
{
	struct timespec now;

	if (b->config.now_ns)
		return b->config.now_ns(b->config.ctx);
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

/* ---- Life ------------------------------------------------------------------------------------------------------ */

static const char *config_fault(const struct gn_balloon_config *config)
{
	unsigned size = config->queue_size_max;

	if (config->features & ~GN_BALLOON_F_ALL)
		return "the balloon has no such feature";
	if (size > GN_VQ_SIZE_MAX || (size & (size - 1)))
		return "a virtqueue's size is a power of two up to 1024";
	if (config->reserved_bytes % GN_PAGE_SIZE)
		return "reserved memory is whole pages";
	if (config->mmio_gpa % GN_PAGE_SIZE)
		return "the device's place is a page's address";
	if (config->churn_pages_per_s && !config->churn_burst_pages)
		return "a limit of ping-pong needs a burst of at least a page";
	return NULL;
}

static void fill_in_defaults(struct gn_balloon_config *config)
{
	if (!config->mmio_gpa)
		config->mmio_gpa = GN_BALLOON_MMIO_GPA;
	if (!config->features)
		config->features = GN_BALLOON_F_ALL;
	if (!config->queue_size_max)
		config->queue_size_max = QUEUE_SIZE_DEFAULT;
}

static uint64_t cut_target(const struct gn_balloon *b, uint64_t pages)
{
	uint64_t most = b->pages - b->reserved_pages;

	if (most > UINT32_MAX)
		most = UINT32_MAX;
	return pages < most ? pages : most;
}

static void dispose(struct gn_balloon *b)
{
	gn_page_set_fini(&b->held);
	gn_page_set_fini(&b->request);
	gn_reform_fini(b);
	pthread_mutex_destroy(&b->lock);
	free(b);
}

int gn_balloon_create(struct gn_vm *vm, const struct gn_balloon_config *config,
		      struct gn_balloon **out)
{
	const char *fault = config_fault(config);
	struct gn_balloon *b;
	int err;

	if (!fault && gn_p2m_word_state(gn_p2m_get(
			      &vm->p2m, gpa_to_gfn(gpa(config->mmio_gpa ? config->mmio_gpa
									: GN_BALLOON_MMIO_GPA)))) !=
			      GN_P2M_MMIO)
		fault = "the device's place is guest memory";
	if (fault) {
		gn_log(GN_LOG_ERROR, "balloon: %s", fault);
		return -EINVAL;
	}
	b = gn_alloc_should_fail() ? NULL : calloc(1, sizeof(*b));
	if (!b)
		return -ENOMEM;
	b->vm = vm;
	b->config = *config;
	fill_in_defaults(&b->config);
	b->pages = vm->p2m.gfn_count;
	b->reserved_pages = config->reserved_bytes >> GN_PAGE_SHIFT;
	if (b->reserved_pages > b->pages)
		b->reserved_pages = b->pages;
	pthread_mutex_init(&b->lock, NULL);
	err = gn_page_set_init(&b->held, b->pages);
	if (!err)
		err = gn_page_set_init(&b->request, b->pages);
	if (!err)
		err = gn_reform_init(b);
	if (err) {
		dispose(b);
		return err;
	}
	gn_churn_init(&b->churn, &b->config, gn_balloon_now_ns(b));
	gn_vm_set_ballooned_touch(vm, config->touch_answer, config->touch, config->ctx);
	b->space.num_pages = (uint32_t)cut_target(b, config->target_pages);
	b->hint_round = GN_BALLOON_HINT_DONE;
	*out = b;
	return 0;
}

void gn_balloon_destroy(struct gn_balloon *b)
{
	if (!b)
		return;
	/* The pages stay in the balloon, so their touches keep their answer; who was told of them may be gone. */
	gn_vm_set_ballooned_touch(b->vm, b->config.touch_answer, NULL, NULL);
	dispose(b);
}

void gn_balloon_reset(struct gn_balloon *b)
{
	b->status = 0;
	b->interrupt_status = 0;
	b->device_features_sel = b->driver_features_sel = 0;
	b->driver_features = 0;
	b->queue_sel = 0;
	memset(b->queues, 0, sizeof(b->queues));
	b->pending = b->turn = 0;
	b->has_stats_buffer = false;
	b->space.actual = 0;
	b->space.poison_val = 0;
	gn_balloon_hint_reset(b);
	b->stats.broken_why = NULL;
	b->stats.claims_known = 0; /* counts begin anew */
	b->stats.claims_are_plausible = false;
	b->stats.resets++;
	b->outbox.events |= GN_BALLOON_EVENT_RESET;
	gn_balloon_return_all(b);
}

/* ---- The host's side ---------------------------------------------------------------------------------------------- */

void gn_balloon_set_target(struct gn_balloon *b, uint64_t balloon_pages)
{
	uint32_t target = (uint32_t)cut_target(b, balloon_pages);

	gn_balloon_lock(b);
	if (b->space.num_pages != target) {
		b->space.num_pages = target;
		gn_balloon_config_changed(b);
	}
	gn_balloon_unlock(b);
}

uint64_t gn_balloon_actual_pages(struct gn_balloon *b)
{
	uint64_t pages;

	gn_balloon_lock(b);
	gn_balloon_find_granted(b);
	pages = b->held.count;
	gn_balloon_unlock(b);
	return pages;
}

void gn_balloon_stats(struct gn_balloon *b, struct gn_balloon_stats *out)
{
	struct gn_balloon_usage usage;

	gn_vm_balloon_usage(b->vm, &usage);
	gn_balloon_lock(b);
	gn_balloon_find_granted(b);
	*out = b->stats;
	out->target_pages = b->space.num_pages;
	out->held_pages = b->held.count;
	out->split_blocks = b->reform.split.count;
	out->status = b->status;
	out->features = b->status & GN_VIRTIO_STATUS_FEATURES_OK ? b->driver_features : 0;
	out->claimed_pages = b->space.actual;
	out->poison = b->space.poison_val;
	out->touches_denied = usage.touches_denied;
	out->touches_granted = usage.touches_granted;
	gn_balloon_unlock(b);
}
