/* SPDX-License-Identifier: MIT */
/*
 * sampler.c - the random sample and its moving averages.
 *
 * Three figures, and the largest counts: memory is given fast and taken slowly. The slow average forgets a burst after
 * many periods; the fast one follows a working set that grows within two; and the third adds what the running
 * period has seen so far, so that a spike need not wait for its end. The third can only raise the estimate: in a period
 * that has just begun nothing was accessed yet.
 *
 * The sample is drawn anew each period, without ballooned and MMIO gfns, with replacement (a gfn drawn twice counts
 * twice). A gfn that is ballooned during the period leaves the sample with it. One that never had a frame stays: it is RAM
 * the guest does not use.
 *
 * Large leaves have one accessed bit, which is cleared only by a harvest that covers the leaf's last gfn (ept/range.c). So
 * a sampled gfn is harvested with the block around it, once for all of the sample that lies in it, and sorted
 * samples make that one pass. Under large leaves the estimate is that of large pages: it says more than small ones would.
 *
 * Deliberately absent: a clock (who calls decides what a period is), and guest claims.
 */
#include "sampler.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "mmu/arena.h"
#include "mmu/p2m.h"
#include "mmu/vm.h"

enum { SAMPLES_DEFAULT = 128, SAMPLES_MAX = 65536, DRAWS_PER_SAMPLE = 32 };
static const double slow_default = 1.0 / 16, fast_default = 1.0 / 2;

struct sample {
	uint64_t gfn;
	bool is_accessed, is_gone;
};

struct gn_sampler {
	struct gn_vm *vm;
	struct gn_sampler_config config;
	uint64_t random;
	bool is_running;
	unsigned count; /* samples of the running period */
	struct gn_working_set set;
	uint8_t *bitmap; /* of the largest block */
	struct sample samples[];
};

/* ---- Life ------------------------------------------------------------------------------------------ */

static bool is_weight(double w)
{
	return w > 0 && w <= 1; /* no NaN is */
}

int gn_sampler_new(struct gn_vm *vm, const struct gn_sampler_config *config,
		   struct gn_sampler **out)
{
	struct gn_sampler_config c = *config;
	struct gn_sampler *s;

	if (!c.samples)
		c.samples = SAMPLES_DEFAULT;
	if (c.slow_weight == 0)
		c.slow_weight = slow_default;
	if (c.fast_weight == 0)
		c.fast_weight = fast_default;
	if (c.samples > SAMPLES_MAX || !is_weight(c.slow_weight) || !is_weight(c.fast_weight))
		return -EINVAL;
	if (gn_alloc_should_fail())
		return -ENOMEM;
	s = calloc(1, sizeof(*s) + c.samples * sizeof(s->samples[0]));
	if (!s)
		return -ENOMEM;
	s->bitmap = gn_alloc_should_fail()
			    ? NULL
			    : malloc(gn_level_pages(vm->config.backing_level) / 8 + 1);
	if (!s->bitmap) {
		free(s);
		return -ENOMEM;
	}
	s->vm = vm;
	s->config = c;
	s->random = c.seed;
	*out = s;
	return 0;
}

void gn_sampler_destroy(struct gn_sampler *sampler)
{
	if (!sampler)
		return;
	free(sampler->bitmap);
	free(sampler);
}

/* ---- The sample --------------------------------------------------------------------------------------- */

/* SplitMix64 (Steele, Lea, Flood 2014). */
static uint64_t next_random(struct gn_sampler *s)
{
	uint64_t z = s->random += 0x9e3779b97f4a7c15;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

static bool is_gone(const struct gn_sampler *s, uint64_t at)
{
	enum gn_p2m_state state = gn_p2m_word_state(gn_p2m_get(&s->vm->p2m, gfn(at)));

	return state == GN_P2M_BALLOONED || state == GN_P2M_MMIO;
}

static int by_gfn(const void *a, const void *b)
{
	const struct sample *x = a, *y = b;

	return (x->gfn > y->gfn) - (x->gfn < y->gfn);
}

/* A VM that is nearly all balloon may get a smaller sample. */
static void draw(struct gn_sampler *s)
{
	uint64_t draws = (uint64_t)s->config.samples * DRAWS_PER_SAMPLE;

	s->count = 0;
	while (s->count < s->config.samples && draws--) {
		uint64_t at = next_random(s) % s->vm->p2m.gfn_count;

		if (!is_gone(s, at))
			s->samples[s->count++] = (struct sample){ .gfn = at };
	}
	qsort(s->samples, s->count, sizeof(s->samples[0]), by_gfn);
}

/* Test and clear the sample's accessed bits, block by block. */
static int harvest(struct gn_sampler *s)
{
	int err = 0;

	for (unsigned i = 0; i < s->count && !err;) {
		uint64_t at = s->samples[i].gfn;
		p2m_word_t word = gn_p2m_get(&s->vm->p2m, gfn(at));
		uint64_t pages =
			gn_p2m_word_level(word) > 1 ? gn_level_pages(gn_p2m_word_level(word)) : 1;
		uint64_t first = at & ~(pages - 1);

		err = gn_accessed_harvest(s->vm, gfn(first), pages, s->bitmap);
		for (; !err && i < s->count && s->samples[i].gfn < first + pages; i++) {
			uint64_t bit = s->samples[i].gfn - first;

			s->samples[i].is_accessed |= s->bitmap[bit / 8] >> (bit % 8) & 1;
			s->samples[i].is_gone |= is_gone(s, s->samples[i].gfn);
		}
	}
	s->is_running &= !err;
	return err;
}

/* The part of the sample that was accessed; false: there is no sample. */
static bool part_accessed(const struct gn_sampler *s, double *part)
{
	unsigned count = 0, accessed = 0;

	for (unsigned i = 0; i < s->count; i++) {
		count += !s->samples[i].is_gone;
		accessed += !s->samples[i].is_gone && s->samples[i].is_accessed;
	}
	if (count)
		*part = (double)accessed / count;
	return count != 0;
}

/* ---- Periods --------------------------------------------------------------------------------------------- */

static void end_period(struct gn_sampler *s)
{
	struct gn_working_set *set = &s->set;
	double part;

	if (!part_accessed(s, &part))
		return;
	if (!set->periods++) {
		set->slow = set->fast = part;
	} else {
		set->slow += s->config.slow_weight * (part - set->slow);
		set->fast += s->config.fast_weight * (part - set->fast);
	}
	set->rising = set->fast;
}

int gn_sampler_next_period(struct gn_sampler *sampler)
{
	int err;

	if (sampler->is_running) {
		err = harvest(sampler);
		if (err)
			return err;
		end_period(sampler);
	}
	draw(sampler);
	err = harvest(sampler); /* from here on */
	for (unsigned i = 0; i < sampler->count; i++)
		sampler->samples[i].is_accessed = false;
	sampler->is_running = !err;
	return err;
}

int gn_sampler_look(struct gn_sampler *sampler)
{
	struct gn_working_set *set = &sampler->set;
	double part;
	int err;

	if (!sampler->is_running)
		return 0;
	err = harvest(sampler);
	if (!err && set->periods && part_accessed(sampler, &part))
		set->rising = fmax(set->fast,
				   set->fast + sampler->config.fast_weight * (part - set->fast));
	return err;
}

void gn_sampler_estimate(const struct gn_sampler *sampler, struct gn_working_set *out)
{
	const struct gn_p2m *p2m = &sampler->vm->p2m;
	double part;

	*out = sampler->set;
	out->population_pages =
		p2m->gfn_count - atomic_load_explicit(&p2m->ballooned_pages, memory_order_relaxed);
	part = out->periods ? fmax(fmax(out->slow, out->fast), out->rising) : 1;
	out->active_pages = (uint64_t)(part * (double)out->population_pages + 0.5);
}
