/* SPDX-License-Identifier: MIT */
/*
 * balloon_vm.c - what the agent of a VM tells and does.
 *
 * What the VM has is memory less balloon. Before the driver has first moved the balloon nothing is in it, and yet
 * the guest is not about to take all memory: until then what counts is what the guest was told to begin with. A guest
 * whose driver does not come within DRIVER_NS is taken at its pages.
 *
 * The working set comes from sampling accessed bits; where the scheme keeps no tables it stays unknown, and all
 * memory counts as used. The guest's claims are virtio's statistics. They are as old as the guest's last look at the
 * device, and the balloon moves faster: what it moved since is taken off or added, so that an honest guest is not
 * found lying because it was asked too early. They are asked for at each look, which is seldom while nothing moves, and when
 * the guest reports free pages: memory it freed may be what somebody waits for.
 *
 * Who asks: the owner, if it knows what its guest is about to do. Otherwise a guest that takes pages out of the balloon
 * below the device's target (deflate on OOM) shows that it could not wait; it is an ask for as much again and RELIEF_PART
 * of its memory, until it has gone on for RELIEF_NS without.
 *
 * Blocks that the balloon split and gave back are formed again here, a few at each look, so never on the guest's thread.
 *
 * RECLAIM: what a guest reports as free is discarded when it is reported, and there is no swap to put cold pages on. What is left
 * to take are cold pages of zeros (balloon/reclaim.h). The guest may use them again at any time, without a word, so they
 * stay on the VM's account: it is the host's memory that is relieved, not the budget. Sampling looks first, since
 * reclaim uses up the accessed bits it would have seen.
 */
#include "balloon_vm.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "balloon/agent.h"
#include "balloon/reclaim.h"
#include "balloon/sampler.h"
#include "control/clock.h"

#define PAGE_BYTES  4096u
#define SAMPLE_NS   UINT64_C(2000000000)
#define RATE_NS	    UINT64_C(500000000)
#define DRIVER_NS   UINT64_C(5000000000)
#define RELIEF_NS   UINT64_C(1000000000)
#define RELIEF_PART 32
#define FREED_PART                                                                                 \
	64 /* of its memory: so much more free is told at once, for somebody may wait for it */
#define SAMPLES	   1024 /* an error of 1.6 % */
#define AWAIT_NS   2000000
#define REFORM_MAX 2 /* blocks at a look, 2 MiB each to copy at most */

/* Statistics of the guest, and what it had when they came. */
struct claims {
	bool are_known, are_plausible;
	uint64_t free_bytes, available_bytes, actual_bytes;
};

/* Fields: (c) const after create, (t) the agent's thread, (a) atomic, (l) under `lock`. */
struct balloon_vm {
	struct balloon_vm_config config; /* (c) */
	struct gn_balloon *balloon;	 /* (c) */
	struct gn_sampler *sampler;	 /* (t) */
	struct gn_reclaim reclaim;	 /* (t) */
	struct gn_agent *agent;		 /* (c) */
	_Atomic uint64_t admitted_ns;	 /* (a) 0: not yet */
	atomic_bool has_moved;		 /* (a) the driver moved the balloon, or need not */
	_Atomic uint64_t told_bytes, goal_bytes, refaults;	      /* (a) */
	uint64_t active_bytes, recent_bytes;			      /* (t) */
	_Atomic uint64_t targets, reliefs, reclaims, reclaimed_bytes; /* (a) */
	_Atomic uint64_t relieved_ns;		       /* (a) the last time; 0: never */
	uint64_t sampled_ns, rated_ns, rated_refaults; /* (t) */
	_Atomic double refaults_per_s;		       /* (a) */
	pthread_mutex_t lock;
	struct claims claims;	  /* (l) */
	uint64_t told_free_bytes; /* (l) of the claims the daemon was told last */
	uint64_t held_pages;	  /* (l) when the driver last told */
};

/* Whether what is not in the balloon is what the guest has. */
static bool is_balloon_true(struct balloon_vm *vm)
{
	uint64_t admitted_ns = atomic_load(&vm->admitted_ns);

	return atomic_load(&vm->has_moved) ||
	       (admitted_ns && gn_now_ns() - admitted_ns > DRIVER_NS);
}

uint64_t balloon_vm_actual_bytes(struct balloon_vm *vm)
{
	if (!is_balloon_true(vm))
		return vm->config.boot_bytes;
	return vm->config.mem_bytes - gn_balloon_actual_pages(vm->balloon) * PAGE_BYTES;
}

uint64_t balloon_vm_target_bytes(const struct balloon_vm *vm)
{
	return atomic_load(&vm->told_bytes);
}

void balloon_vm_ask(struct balloon_vm *vm, uint64_t goal_bytes)
{
	if (atomic_exchange(&vm->goal_bytes, goal_bytes) != goal_bytes)
		gn_agent_kick(vm->agent);
}

void balloon_vm_note_refaults(struct balloon_vm *vm, uint64_t refaults)
{
	atomic_store(&vm->refaults, refaults);
}

double balloon_vm_refaults_per_s(const struct balloon_vm *vm)
{
	return atomic_load(&vm->refaults_per_s);
}

/* ---- The device's events, on the guest's thread ----------------------------------------------------------------- */

static void take_claims(struct balloon_vm *vm)
{
	struct gn_balloon_stats stats;
	struct claims now;
	bool is_news;

	gn_balloon_stats(vm->balloon, &stats);
	now = (struct claims){
		.are_known = stats.claims_known >> GN_BALLOON_STAT_MEMFREE & 1 &&
			     stats.claims_known >> GN_BALLOON_STAT_AVAIL & 1,
		.are_plausible = stats.claims_are_plausible,
		.free_bytes = stats.claims[GN_BALLOON_STAT_MEMFREE],
		.available_bytes = stats.claims[GN_BALLOON_STAT_AVAIL],
		.actual_bytes = vm->config.mem_bytes - stats.held_pages * PAGE_BYTES,
	};
	pthread_mutex_lock(&vm->lock);
	is_news = now.free_bytes > vm->told_free_bytes + vm->config.mem_bytes / FREED_PART;
	vm->claims = now;
	pthread_mutex_unlock(&vm->lock);
	if (is_news)
		gn_agent_kick(vm->agent);
}

/* The driver has brought the balloon where it could: to the target, or below it in need. */
static void note_move(struct balloon_vm *vm)
{
	struct gn_balloon_stats stats;
	bool is_relief;

	gn_balloon_stats(vm->balloon, &stats);
	pthread_mutex_lock(&vm->lock);
	is_relief = stats.held_pages < vm->held_pages && stats.held_pages < stats.target_pages;
	vm->held_pages = stats.held_pages;
	pthread_mutex_unlock(&vm->lock);
	atomic_store(&vm->has_moved, true);
	if (is_relief) {
		atomic_store(&vm->relieved_ns, gn_now_ns());
		atomic_fetch_add(&vm->reliefs, 1);
	}
	gn_agent_kick(vm->agent);
	if (vm->config.changed)
		vm->config.changed(vm->config.ctx);
}

/* Who frees a lot at once soon reports free pages. Statistics say how much it is, and come at the guest's next poll. */
static void note_report(struct balloon_vm *vm)
{
	(void)gn_balloon_request_stats(vm->balloon); /* refused: they are under way */
}

static void on_event(void *ctx, unsigned events)
{
	if (events & GN_BALLOON_EVENT_REPORTED)
		note_report(ctx);
	if (events & GN_BALLOON_EVENT_STATS)
		take_claims(ctx);
	if (events & GN_BALLOON_EVENT_ACTUAL)
		note_move(ctx);
}

/* ---- The agent's thread ------------------------------------------------------------------------------------------- */

static void set_target(void *ctx, uint64_t target_bytes)
{
	struct balloon_vm *vm = ctx;

	atomic_store(&vm->told_bytes, target_bytes);
	atomic_fetch_add(&vm->targets, 1);
	if (target_bytes == vm->config.mem_bytes)
		atomic_store(&vm->has_moved, true);
	gn_balloon_set_target(vm->balloon, (vm->config.mem_bytes - target_bytes) / PAGE_BYTES);
}

static void reclaim(void *ctx, uint64_t bytes)
{
	struct balloon_vm *vm = ctx;
	uint64_t freed_bytes;

	atomic_fetch_add(&vm->reclaims, 1);
	/* Either may fail: then less is known, or taken, this time. */
	(void)gn_sampler_look(vm->sampler);
	(void)gn_reclaim_run(&vm->reclaim, bytes, &freed_bytes);
	atomic_fetch_add(&vm->reclaimed_bytes, freed_bytes);
}

static void sample_working_set(struct balloon_vm *vm, uint64_t now_ns)
{
	struct gn_working_set set;

	if (now_ns - vm->sampled_ns < SAMPLE_NS)
		return;
	vm->sampled_ns = now_ns;
	if (gn_sampler_next_period(vm->sampler))
		return;
	gn_sampler_estimate(vm->sampler, &set);
	if (!set.periods)
		return;
	vm->active_bytes = set.active_pages * PAGE_BYTES;
	vm->recent_bytes =
		(uint64_t)(fmax(set.fast, set.rising) * (double)set.population_pages) * PAGE_BYTES;
}

static void rate_refaults(struct balloon_vm *vm, uint64_t now_ns)
{
	uint64_t refaults = atomic_load(&vm->refaults), since_ns = now_ns - vm->rated_ns;

	if (since_ns < RATE_NS)
		return;
	atomic_store(&vm->refaults_per_s,
		     (double)(refaults - vm->rated_refaults) / ((double)since_ns / 1e9));
	vm->rated_refaults = refaults;
	vm->rated_ns = now_ns;
}

/* What a claim of so many bytes comes to by now. */
static uint64_t update_claim(uint64_t bytes, uint64_t actual_then, uint64_t actual_now)
{
	uint64_t sum = bytes + actual_now;

	sum = sum > actual_then ? sum - actual_then : 0;
	return sum < actual_now ? sum : actual_now;
}

static void tell_claims(struct balloon_vm *vm, struct gn_agent_sample *out)
{
	struct claims c;

	pthread_mutex_lock(&vm->lock);
	c = vm->claims;
	vm->told_free_bytes = c.free_bytes;
	pthread_mutex_unlock(&vm->lock);
	/* The next ones; refused while the guest has not answered the last request. */
	gn_balloon_request_stats(vm->balloon);
	if (!c.are_known)
		return;
	out->claims_trusted = c.are_plausible;
	out->free_bytes = update_claim(c.free_bytes, c.actual_bytes, out->actual_bytes);
	out->available_bytes = update_claim(c.available_bytes, c.actual_bytes, out->actual_bytes);
}

static uint64_t asks(struct balloon_vm *vm, uint64_t now_ns, uint64_t actual_bytes)
{
	uint64_t goal = atomic_load(&vm->goal_bytes), relieved = atomic_load(&vm->relieved_ns);
	uint64_t bytes = goal > actual_bytes ? goal - actual_bytes : 0;
	uint64_t relief = vm->config.mem_bytes / RELIEF_PART;

	if (relieved && now_ns < relieved + RELIEF_NS && bytes < relief)
		bytes = relief;
	if (bytes > vm->config.max_bytes - actual_bytes)
		bytes = vm->config.max_bytes - actual_bytes;
	return actual_bytes < vm->config.max_bytes ? bytes : 0;
}

static void take_sample(void *ctx, struct gn_agent_sample *out)
{
	struct balloon_vm *vm = ctx;
	struct gn_balloon_stats stats;
	uint64_t now_ns = gn_now_ns();

	out->actual_bytes = balloon_vm_actual_bytes(vm);
	sample_working_set(vm, now_ns);
	rate_refaults(vm, now_ns);
	gn_balloon_reform(vm->balloon, REFORM_MAX);
	gn_balloon_stats(vm->balloon, &stats);
	out->active_bytes = vm->active_bytes;
	out->recent_bytes = vm->recent_bytes;
	out->refaults_per_s = balloon_vm_refaults_per_s(vm);
	out->touches = stats.touches_denied + stats.touches_granted;
	out->reclaimed_bytes = atomic_load(&vm->reclaimed_bytes);
	out->reformed_blocks = stats.reformed_blocks;
	out->asks_bytes = asks(vm, now_ns, out->actual_bytes);
	tell_claims(vm, out);
}

/* ---- Life ----------------------------------------------------------------------------------------------------------- */

static int make_parts(struct balloon_vm *vm, struct gn_vm *machine)
{
	static const struct gn_agent_ops ops = { .set_target = set_target,
						 .sample = take_sample,
						 .reclaim = reclaim };
	const struct balloon_vm_config *c = &vm->config;
	const struct gn_balloon_config device = { .target_pages = (c->mem_bytes - c->boot_bytes) /
								  PAGE_BYTES,
						  .event = on_event,
						  .ctx = vm };
	const struct gn_sampler_config sampling = { .samples = SAMPLES, .seed = c->seed };
	const struct gn_agent_config agent = { .socket = c->socket,
					       .name = c->name,
					       .backend = c->backend,
					       .scheme = c->scheme,
					       .mem_bytes = c->mem_bytes,
					       .min_bytes = c->min_bytes,
					       .max_bytes = c->max_bytes,
					       .shares = c->shares,
					       .ops = &ops,
					       .ctx = vm };
	int err = gn_balloon_create(machine, &device, &vm->balloon);

	if (!err)
		err = gn_sampler_new(machine, &sampling, &vm->sampler);
	if (!err)
		err = gn_agent_create(&agent, &vm->agent);
	return err ? err : gn_agent_start(vm->agent);
}

int balloon_vm_create(struct gn_vm *machine, const struct balloon_vm_config *config,
		      struct balloon_vm **out)
{
	struct balloon_vm *vm = calloc(1, sizeof(*vm));
	int err;

	if (!vm)
		return -ENOMEM;
	vm->config = *config;
	vm->reclaim.vm = machine;
	if (!vm->config.boot_bytes)
		vm->config.boot_bytes = config->min_bytes;
	pthread_mutex_init(&vm->lock, NULL);
	atomic_store(&vm->told_bytes, vm->config.boot_bytes);
	vm->active_bytes = GN_AGENT_UNKNOWN;
	vm->recent_bytes = GN_AGENT_UNKNOWN;
	vm->sampled_ns = vm->rated_ns = gn_now_ns();
	err = make_parts(vm, machine);
	if (err)
		balloon_vm_destroy(vm);
	else
		*out = vm;
	return err;
}

void balloon_vm_destroy(struct balloon_vm *vm)
{
	if (!vm)
		return;
	gn_agent_destroy(vm->agent);
	gn_sampler_destroy(vm->sampler);
	gn_balloon_destroy(vm->balloon);
	pthread_mutex_destroy(&vm->lock);
	free(vm);
}

struct gn_balloon *balloon_vm_device(const struct balloon_vm *vm)
{
	return vm->balloon;
}

bool balloon_vm_await_admission(struct balloon_vm *vm, unsigned timeout_ms)
{
	const struct timespec pause = { .tv_nsec = AWAIT_NS };
	uint64_t end_ns = gn_now_ns() + timeout_ms * UINT64_C(1000000);

	while (!gn_agent_is_registered(vm->agent) && gn_now_ns() < end_ns)
		nanosleep(&pause, NULL);
	if (!gn_agent_is_registered(vm->agent))
		return false;
	atomic_store(&vm->admitted_ns, gn_now_ns());
	return true;
}

int balloon_vm_join(struct gn_soft *soft, const struct balloon_vm_config *config,
		    unsigned timeout_ms, struct balloon_vm **out)
{
	struct gn_vm *machine = gn_soft_vm(soft);
	struct balloon_vm_config c = *config;
	int err;

	c.backend = "soft";
	c.scheme = gn_vm_scheme(machine);
	if (!c.max_bytes)
		c.max_bytes = c.mem_bytes;
	err = balloon_vm_create(machine, &c, out);
	if (err)
		return err;
	gn_soft_set_mmio(soft, gn_balloon_mmio, balloon_vm_device(*out));
	return balloon_vm_await_admission(*out, timeout_ms) ? 0 : -ETIMEDOUT;
}

void balloon_vm_stats(struct balloon_vm *vm, struct balloon_vm_stats *out)
{
	struct gn_balloon_stats stats;

	gn_balloon_stats(vm->balloon, &stats);
	*out = (struct balloon_vm_stats){
		.target_bytes = balloon_vm_target_bytes(vm),
		.actual_bytes = balloon_vm_actual_bytes(vm),
		.targets = atomic_load(&vm->targets),
		.reliefs = atomic_load(&vm->reliefs),
		.reclaims = atomic_load(&vm->reclaims),
		.reformed_blocks = stats.reformed_blocks,
		.reclaimed_bytes = atomic_load(&vm->reclaimed_bytes),
		.touches = stats.touches_denied + stats.touches_granted,
	};
}
