/* SPDX-License-Identifier: MIT */
/*
 * overcommit_results.c - results in memory, and what is computed from them.
 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "overcommit.h"

static int make_room(void **items, size_t count, size_t *capacity, size_t item_bytes)
{
	size_t wanted = *capacity ? *capacity * 2 : 256;
	void *more;

	if (count < *capacity)
		return 0;
	more = realloc(*items, wanted * item_bytes);
	if (!more)
		return -ENOMEM;
	*items = more;
	*capacity = wanted;
	return 0;
}

int overcommit_add_sample(struct overcommit_vm *vm, const struct overcommit_sample *sample)
{
	void *items = vm->samples;
	int err = make_room(&items, vm->sample_count, &vm->sample_capacity, sizeof(*sample));

	vm->samples = items;
	if (!err)
		vm->samples[vm->sample_count++] = *sample;
	return err;
}

int overcommit_add_wait(struct overcommit_run *run, double ms)
{
	void *items = run->waits_ms;
	int err = make_room(&items, run->wait_count, &run->wait_capacity, sizeof(ms));

	run->waits_ms = items;
	if (!err)
		run->waits_ms[run->wait_count++] = ms;
	return err;
}

void overcommit_results_fini(struct overcommit_results *results)
{
	for (size_t r = 0; r < results->run_count; r++) {
		free(results->runs[r].waits_ms);
		for (unsigned i = 0; i < OVERCOMMIT_MAX_VMS; i++)
			free(results->runs[r].vms[i].samples);
	}
}

double overcommit_worst_slowdown(const struct overcommit_results *r,
				 const struct overcommit_run *run)
{
	double worst = 0;

	for (unsigned i = 0; i < r->setup.vms; i++)
		worst = fmax(worst, run->vms[i].slowdown);
	return worst;
}

double overcommit_against_oracle(const struct overcommit_results *r,
				 const struct overcommit_run *run)
{
	for (size_t i = 0; i < r->run_count; i++)
		if (!strcmp(r->runs[i].policy, OVERCOMMIT_ORACLE))
			return overcommit_worst_slowdown(r, run) /
			       overcommit_worst_slowdown(r, &r->runs[i]);
	return 0;
}

double overcommit_turns(const struct overcommit_results *r, const struct overcommit_run *run)
{
	double most = 0;

	for (unsigned i = 0; i < r->setup.vms; i++)
		most = fmax(most, run->vms[i].turns_per_minute);
	return most;
}

unsigned overcommit_oom_kills(const struct overcommit_results *r, const struct overcommit_run *run)
{
	unsigned sum = 0;

	for (unsigned i = 0; i < r->setup.vms; i++)
		sum += run->vms[i].oom_kills;
	return sum;
}

uint64_t overcommit_refaults(const struct overcommit_results *r, const struct overcommit_run *run)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < r->setup.vms; i++)
		sum += run->vms[i].refaults;
	return sum;
}

void overcommit_turns_note(struct overcommit_turns *turns, double t_s, uint64_t old,
			   uint64_t new_target, bool counts)
{
	int direction = (new_target > old) - (new_target < old);

	if (counts && direction && direction == -turns->direction &&
	    turns->count < sizeof(turns->at_s) / sizeof(turns->at_s[0]))
		turns->at_s[turns->count++] = t_s;
	turns->direction = direction ? direction : turns->direction;
}

double overcommit_turns_most(const struct overcommit_turns *turns)
{
	unsigned most = 0;

	for (unsigned i = 0; i < turns->count; i++) {
		unsigned count = 0;

		for (unsigned j = i; j < turns->count && turns->at_s[j] < turns->at_s[i] + 60; j++)
			count++;
		most = count > most ? count : most;
	}
	return most;
}

static int compare_doubles(const void *a, const void *b)
{
	double left = *(const double *)a, right = *(const double *)b;

	return left < right ? -1 : left > right;
}

double overcommit_wait_ms(const struct overcommit_run *run, double quantile)
{
	size_t count = run->wait_count + run->asks_unmet;
	size_t rank = (size_t)ceil(quantile * (double)count);

	if (!count)
		return NAN;
	if (rank > run->wait_count)
		return INFINITY;
	qsort(run->waits_ms, run->wait_count, sizeof(double), compare_doubles);
	return run->waits_ms[rank ? rank - 1 : 0];
}

const char *overcommit_describe(const struct overcommit_results *r, char *out, size_t out_bytes)
{
	const struct overcommit_setup *s = &r->setup;
	char mem[32], budget[32], what[64];

	if (r->is_measured)
		snprintf(what, sizeof(what), "%u rounds of turns", s->rounds);
	else
		snprintf(what, sizeof(what), "%.0f s with phases and %.0f s at rest", s->phases_s,
			 s->rest_s);
	snprintf(out, out_bytes, "%u VMs of %s on %s (%.2gx), %s, seed %" PRIu64, s->vms,
		 cli_format_bytes(s->mem_bytes, mem, sizeof(mem)),
		 cli_format_bytes(s->budget_bytes, budget, sizeof(budget)), s->overcommit, what,
		 s->seed);
	return out;
}

const char *overcommit_label(const struct overcommit_results *r)
{
	return r->is_measured ? "Measured on this host: soft VMs in processes of their own; waits "
				"in wall time, "
				"slowdowns in the software machine's cycles"
			      : "Modelled: guests of a simple model, real policy code";
}
