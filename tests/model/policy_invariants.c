/* SPDX-License-Identifier: MIT */
/*
 * policy_invariants.c - what holds for every policy in every round, whatever the VMs say and do.
 *
 * Random worlds: VMs come and go, obey, dawdle, grow past what they were told a while ago, lie in every
 * statistic, are late; the budget is cut and raised, the host stalls. After each round:
 *
 *   - a target is within [min, max] (a VM that has less than its minimum may wait below it), in whole pages
 *     but for a limit that is none;
 *   - the sum of charges, max(actual, target), is not above the budget, or not above what it was before;
 *   - under esx and static the sum of targets is not above the budget, if that holds the reservations;
 *   - who would be below the reservation is not made to shrink, and if the pool could serve all reservations
 *     it has.
 *
 * Then the long run of esx: in worlds at rest the targets come to the fixpoint of the formula, to within the dead
 * band, and stay; with noisy estimates no VM
 * turns more than twice a minute.
 *
 *     policy_invariants [SEED [ROUNDS]]
 */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "support/cases.h"
#include "support/policy_world.h"

#define ROUNDS	      2000000
#define WORLD_ROUNDS  200
#define PAGE	      UINT64_C(4096)
#define FAILURES_TOLD 5

static struct test_random random_source;

static uint64_t below(uint64_t n)
{
	return test_random_below(&random_source, n);
}

static uint64_t pages_up_to(uint64_t bytes)
{
	return below(bytes / PAGE + 1) * PAGE;
}

static uint64_t charge_of(const struct gn_policy_vm *vm, uint64_t target)
{
	return target == GN_POLICY_UNKNOWN || target < vm->actual_bytes ? vm->actual_bytes : target;
}

/* ---- Random worlds ----------------------------------------------------------------------------------- */

static uint64_t next_id;

static void join(struct policy_world *w)
{
	uint64_t mem = (1 + below(64)) * 16 * MIB;
	struct gn_policy_vm *vm = policy_world_add(w, mem, pages_up_to(mem), 0);

	vm->id = ++next_id * 0x9e3779b97f4a7c15; /* ids in no order */
	vm->min_bytes = PAGE + pages_up_to(mem / 4);
	vm->max_bytes = vm->min_bytes + pages_up_to(mem - vm->min_bytes);
	vm->shares = 1 + (uint32_t)below(4000);
	if (below(2))
		vm->target_bytes = GN_POLICY_UNKNOWN;
}

static void leave(struct policy_world *w, size_t index)
{
	w->vms[index] = w->vms[--w->count];
}

static void act(struct gn_policy_vm *vm)
{
	uint64_t target =
		vm->target_bytes == GN_POLICY_UNKNOWN ? vm->actual_bytes : vm->target_bytes;

	switch (below(5)) {
	case 0: /* dawdles */
		break;
	case 1: /* part of the way */
		if (target > vm->actual_bytes)
			vm->actual_bytes += pages_up_to(target - vm->actual_bytes);
		else
			vm->actual_bytes -= pages_up_to(vm->actual_bytes - target);
		break;
	case 2: /* deflates on its own */
		if (!below(20))
			vm->actual_bytes += pages_up_to(vm->mem_bytes - vm->actual_bytes);
		break;
	default:
		vm->actual_bytes = target;
	}
	vm->active_bytes = below(8) ? pages_up_to(vm->mem_bytes) : GN_POLICY_UNKNOWN;
	vm->recent_bytes = below(8) ? pages_up_to(vm->mem_bytes) : GN_POLICY_UNKNOWN;
	vm->asks_bytes = below(6) ? 0 : below(10) ? pages_up_to(vm->mem_bytes) : UINT64_MAX;
	vm->refaults_per_s = below(6) ? 0 : below(10) ? (double)below(10000) : 1e300;
	vm->guest_free_bytes = below(4) ? pages_up_to(vm->actual_bytes) : below(UINT64_MAX);
	vm->guest_available_bytes = below(4) ? pages_up_to(vm->actual_bytes) : below(UINT64_MAX);
	vm->claims_trusted = below(4) != 0;
	vm->is_late = target < vm->actual_bytes && !below(4);
}

static uint64_t reservations_of(const struct policy_world *w)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < w->count; i++)
		sum += w->vms[i].min_bytes;
	return sum;
}

static void shake(struct policy_world *w)
{
	struct gn_policy_host *host = &w->host;

	if (w->count < WORLD_VMS && !below(30))
		join(w);
	if (w->count > 1 && !below(40))
		leave(w, below(w->count));
	for (size_t i = 0; i < w->count; i++)
		act(&w->vms[i]);
	if (!below(25))
		host->budget_bytes = pages_up_to(8192 * MIB);
	host->psi_some = below(4) ? 0 : (double)below(100) / 100;
	host->psi_full = host->psi_some * (double)below(100) / 100;
	w->now_ns += below(20) ? below(2 * SECOND_NS) : below(100 * SECOND_NS);
}

static uint64_t least_of(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static const char *broken(const struct policy_world *w)
{
	uint64_t before = 0, after = 0, lacks = 0, unserved = 0;

	for (size_t i = 0; i < w->count; i++) {
		const struct gn_policy_vm *vm = &w->vms[i];
		uint64_t old = charge_of(vm, vm->target_bytes),
			 target = w->decisions[i].target_bytes, new = charge_of(vm, target);

		if (target > vm->max_bytes)
			return "a target above the maximum";
		if (target < least_of(vm->min_bytes, old))
			return "a reservation broken";
		if (target % PAGE && target != vm->min_bytes && target != vm->max_bytes &&
		    target != old)
			return "half a page";
		before += old;
		after += new;
		lacks += vm->min_bytes > old ? vm->min_bytes - old : 0;
		unserved += vm->min_bytes > target ? vm->min_bytes - target : 0;
		/* A promise taken back is not spent at once. */
		if (new < old)
			after += old - new;
	}
	for (size_t i = 0; i < w->count && before > w->host.budget_bytes; i++)
		if (w->decisions[i].target_bytes > w->vms[i].target_bytes &&
		    w->decisions[i].target_bytes > w->vms[i].min_bytes)
			return "over budget, a VM is told to stop shrinking";
	if (after > w->host.budget_bytes && after > before)
		return "more is promised than there is";
	if (unserved && before + lacks <= w->host.budget_bytes)
		return "a reservation waits while memory is there";
	return NULL;
}

/* Over budget, esx and static take back at once what was promised beyond it: all but a page a VM, and who is late. */
static const char *over_promised(const struct policy_world *w)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < w->count; i++) {
		if (w->vms[i].is_late)
			return NULL;
		sum += w->decisions[i].target_bytes;
	}
	return sum > w->host.budget_bytes + w->count * PAGE ? "promises beyond the budget stand"
							    : NULL;
}

static bool live(const char *name, uint64_t rounds)
{
	const bool takes_back = !strcmp(name, "esx") || !strcmp(name, "static");
	struct policy_world w;
	const char *what = NULL;

	if (policy_world_init(&w, name, NULL, pages_up_to(8192 * MIB)))
		return false;
	for (size_t i = below(WORLD_VMS); i-- > 0;)
		join(&w);
	for (uint64_t round = 0; round < rounds && !what; round++) {
		shake(&w);
		if (reservations_of(&w) > w.host.budget_bytes && below(10))
			w.host.budget_bytes = reservations_of(&w);
		if (gn_policy_round(w.policy, w.now_ns, &w.host, w.vms, w.count, w.decisions)) {
			what = "a round failed";
			break;
		}
		what = broken(&w);
		if (!what && takes_back && reservations_of(&w) <= w.host.budget_bytes)
			what = over_promised(&w);
		/* Some messages get lost. */
		for (size_t i = 0; i < w.count; i++)
			if (below(20))
				w.vms[i].target_bytes = w.decisions[i].target_bytes;
		if (what)
			printf("%s: %s in round %llu of a world of %zu VMs\n", name, what,
			       (unsigned long long)round, w.count);
	}
	policy_world_fini(&w);
	return !what;
}

/* ---- The long run of esx --------------------------------------------------------------------------------- */

/* What the formula gives a VM at a level: the size whose price is shares * level. */
static double size_at(const struct gn_policy_vm *vm, double active, double k, double level)
{
	double price = vm->shares * level, size = price;

	if (price > active)
		size = active + (price - active) / k;
	return fmin(fmax(size, (double)vm->min_bytes), (double)vm->max_bytes);
}

static void find_fixpoint(const struct policy_world *w, double k, double *sizes)
{
	double low = 0, high = 1e15;

	for (int step = 0; step < 200; step++) {
		double level = (low + high) / 2, sum = 0;

		for (size_t i = 0; i < w->count; i++) {
			const struct gn_policy_vm *vm = &w->vms[i];
			double active = (double)vm->active_bytes;

			if (vm->active_bytes >= vm->actual_bytes / 32 * 31)
				active += active / 8;
			sizes[i] = size_at(vm, active, k, level);
			sum += sizes[i];
		}
		if (sum > (double)w->host.budget_bytes)
			high = level;
		else
			low = level;
	}
}

/* Each VM is within its dead band of the fixpoint; or below, by what the dead bands of others keep from it. */
static bool is_fixpoint(const struct policy_world *w, double k, double band_fraction)
{
	double sizes[WORLD_VMS], kept = 0;

	find_fixpoint(w, k, sizes);
	for (size_t i = 0; i < w->count; i++)
		kept += fmax((double)w->vms[i].target_bytes - sizes[i], 0);
	for (size_t i = 0; i < w->count; i++) {
		double off = (double)w->vms[i].target_bytes - sizes[i];
		double band = band_fraction * (double)w->vms[i].mem_bytes + 2 * (double)PAGE;

		if (off > band || off < -band - kept)
			return false;
	}
	return true;
}

static void still_world(struct policy_world *w)
{
	w->count = 0;
	for (size_t i = 2 + below(6); i-- > 0;) {
		struct gn_policy_vm *vm;
		uint64_t share = w->host.budget_bytes / 8;

		vm = policy_world_add(w, (256 + below(768)) * MIB, share, pages_up_to(share));
		vm->shares = 500 + (uint32_t)below(2000);
	}
}

static bool comes_to_rest(uint64_t seed)
{
	struct gn_policy_config config;
	struct policy_world w;
	uint64_t rest[WORLD_VMS], active[WORLD_VMS];
	bool fine = true;

	gn_policy_config_init(&config);
	config.reserve_fraction = 0;
	config.tau = (double)below(90) / 100;
	if (policy_world_init(&w, "esx", &config, (512 + below(1024)) * MIB))
		return false;
	still_world(&w);
	for (size_t i = 0; i < w.count; i++)
		active[i] = w.vms[i].active_bytes;
	for (int round = 0; round < 900; round++) {
		for (size_t i = 0; i < w.count; i++)
			w.vms[i].active_bytes = least_of(active[i], w.vms[i].actual_bytes);
		fine = fine && !policy_world_round(&w, SECOND_NS);
		policy_world_obey(&w);
		for (size_t i = 0; i < w.count && round >= 600; i++) {
			if (round == 600)
				rest[i] = w.vms[i].target_bytes;
			else if (rest[i] != w.vms[i].target_bytes)
				fine = false;
		}
	}
	fine = fine && is_fixpoint(&w, 1 / (1 - config.tau), config.dead_band_fraction);
	if (!fine) {
		printf("esx: world %llu, tau %.2f, budget %llu MiB does not come to rest at the "
		       "fixpoint:",
		       (unsigned long long)seed, config.tau,
		       (unsigned long long)(w.host.budget_bytes / MIB));
		for (size_t i = 0; i < w.count; i++)
			printf(" %u/%llu/%llu/%llu", w.vms[i].shares,
			       (unsigned long long)(w.vms[i].target_bytes / MIB),
			       (unsigned long long)(active[i] / MIB),
			       (unsigned long long)(w.vms[i].mem_bytes / MIB));
		printf("\n");
	}
	policy_world_fini(&w);
	return fine;
}

/* Ten minutes of working sets at rest, estimated with an error of up to 30 %. */
static bool does_not_flutter(uint64_t seed)
{
	struct policy_world w;
	uint64_t active[WORLD_VMS], turned[WORLD_VMS][2] = { { 0 } };
	int direction[WORLD_VMS] = { 0 };
	bool fine = true;

	if (policy_world_init(&w, "esx", NULL, (512 + below(1024)) * MIB))
		return false;
	still_world(&w);
	for (size_t i = 0; i < w.count; i++)
		active[i] = w.vms[i].active_bytes;
	for (int round = 0; round < 1200 && fine; round++) {
		uint64_t before[WORLD_VMS];

		for (size_t i = 0; i < w.count; i++) {
			before[i] = w.vms[i].target_bytes;
			w.vms[i].active_bytes =
				least_of(active[i] * (70 + below(61)) / 100, w.vms[i].actual_bytes);
		}
		fine = !policy_world_round(&w, SECOND_NS / 2);
		policy_world_obey(&w);
		for (size_t i = 0; i < w.count; i++) {
			int now = (w.vms[i].target_bytes > before[i]) -
				  (w.vms[i].target_bytes < before[i]);

			if (now && now == -direction[i]) {
				if (turned[i][1] && w.now_ns - turned[i][1] <= 60 * SECOND_NS)
					fine = false;
				turned[i][1] = turned[i][0];
				turned[i][0] = w.now_ns;
			}
			direction[i] = now ? now : direction[i];
		}
	}
	if (!fine)
		printf("esx: world %llu: three turns within a minute\n", (unsigned long long)seed);
	policy_world_fini(&w);
	return fine;
}

static void count(struct test_run *run, bool fine)
{
	run->passed += fine;
	run->failed += !fine;
}

int main(int argc, char **argv)
{
	struct test_run run = test_run_start(argc, argv, 0x5eed, ROUNDS);

	random_source = test_random_seed(run.seed);
	for (uint64_t done = 0; done < run.cases && run.failed < FAILURES_TOLD;
	     done += WORLD_ROUNDS)
		count(&run,
		      live(gn_policy_at((unsigned)(done / WORLD_ROUNDS % 4))->name, WORLD_ROUNDS));
	for (uint64_t i = 0; i < 1 + run.cases / 10000 && run.failed < FAILURES_TOLD; i++) {
		count(&run, comes_to_rest(i));
		count(&run, does_not_flutter(i));
	}
	return test_run_end(&run);
}
