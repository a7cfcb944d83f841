/* SPDX-License-Identifier: MIT */
/*
 * sharing_touch.c - time touches, and try to learn from the times.
 *
 * The classifier has every advantage: labels of half of the samples from the same run, and it may choose between two rules by
 * their success there. A shift over time cannot help it, for the kinds are mixed.
 */
#include "sharing_touch.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <x86intrin.h>

#include "control/clock.h"
#include "tsc.h"

enum { THRESHOLDS = 200 };

/* How many pages there are of each kind, the hot ones left out. */
static void count_kinds(const struct sharing_contents *contents, unsigned vm, size_t counts[2])
{
	counts[0] = counts[1] = 0;
	for (uint64_t page = contents->hot_pages; page < contents->vm_pages; page++) {
		uint64_t number = sharing_page(contents, vm, page);

		counts[sharing_page_is_common(number)] += number != 0;
	}
}

static size_t least(size_t a, size_t b)
{
	return a < b ? a : b;
}

static void shuffle(struct sharing_touch *items, size_t count, uint64_t random)
{
	for (size_t i = count; i > 1; i--) {
		size_t other = sharing_random(&random) % i;
		struct sharing_touch kept = items[i - 1];

		items[i - 1] = items[other];
		items[other] = kept;
	}
}

/* Of all pages, shuffled, the first ones of each kind, shuffled again, since one kind ends first: neither order nor place tells the kind. */
int sharing_touches_pick(const struct sharing_contents *contents, unsigned vm, size_t most,
			 bool both, struct sharing_touches *out)
{
	size_t there[2], want[2] = { 0, most }, have[2] = { 0, 0 }, all = 0;

	count_kinds(contents, vm, there);
	if (both)
		want[0] = want[1] = least(most / 2, least(there[0], there[1]));
	out->count = 0;
	out->pause_ns = 0;
	out->items = malloc((there[0] + there[1] + 1) * sizeof(*out->items));
	if (!out->items)
		return -ENOMEM;
	for (uint64_t page = contents->hot_pages; page < contents->vm_pages; page++) {
		uint64_t number = sharing_page(contents, vm, page);

		if (number)
			out->items[all++] = (struct sharing_touch){
				.page = page, .is_common = sharing_page_is_common(number)
			};
	}
	shuffle(out->items, all, contents->seed + 77);
	for (size_t i = 0; i < all; i++)
		if (have[out->items[i].is_common]++ < want[out->items[i].is_common])
			out->items[out->count++] = out->items[i];
	shuffle(out->items, out->count, contents->seed + 78);
	return 0;
}

void sharing_touches_fini(struct sharing_touches *touches)
{
	free(touches->items);
	touches->items = NULL;
}

static uint64_t now_tsc(void)
{
	uint64_t tsc;

	_mm_lfence();
	tsc = __rdtsc();
	_mm_lfence();
	return tsc;
}

static uint64_t address_of(const struct sharing_touch *touch)
{
	return touch->page * SHARING_PAGE_BYTES + touch->page % SHARING_PAGE_WORDS * 8;
}

static void to_ns(struct sharing_touches *touches, struct tsc_stamp since)
{
	double ns_per_tick = 1e9 / tsc_hz(since);

	for (size_t i = 0; i < touches->count; i++)
		touches->items[i].ns *= (float)ns_per_tick;
}

static void pause_after(const struct sharing_touches *touches)
{
	uint64_t until_ns = touches->pause_ns ? gn_now_ns() + touches->pause_ns : 0;

	while (until_ns && gn_now_ns() < until_ns)
		;
}

void sharing_warm_host(uint64_t bytes)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (memory != MAP_FAILED)
		munmap(memory, bytes);
}

static void warm_host(const struct sharing_touches *touches)
{
	sharing_warm_host((touches->count * 2 + 1) * SHARING_PAGE_BYTES);
}

/* What this kernel did to this thread so far. Not asked while a touch is timed. */
static long events(void)
{
	struct rusage u;

	getrusage(RUSAGE_THREAD, &u);
	return u.ru_minflt + u.ru_majflt + u.ru_nvcsw + u.ru_nivcsw;
}

void sharing_touches_native(struct sharing_touches *touches, uint8_t *memory, bool is_write)
{
	struct tsc_stamp since = tsc_now();

	warm_host(touches);
	for (size_t i = 0; i < touches->count; i++) {
		volatile uint64_t *word =
			(volatile uint64_t *)(memory + address_of(&touches->items[i]));
		const long before = events();
		uint64_t begin = now_tsc();

		if (is_write)
			*word = i;
		else
			(void)*word;
		touches->items[i].ns = (float)(now_tsc() - begin);
		touches->items[i].has_event = events() != before;
		pause_after(touches);
	}
	to_ns(touches, since);
}

struct soft_run {
	struct sharing_touches *touches;
	bool is_write;
};

static void touch_all(struct gn_soft_cpu *cpu, void *ctx)
{
	struct soft_run *run = ctx;

	for (size_t i = 0; i < run->touches->count; i++) {
		gva_t at = gva(address_of(&run->touches->items[i]));
		const long before = events();
		uint64_t begin = now_tsc();

		if (run->is_write)
			gn_soft_store(cpu, at, 8, i);
		else
			gn_soft_load(cpu, at, 8);
		run->touches->items[i].ns = (float)(now_tsc() - begin);
		run->touches->items[i].has_event = events() != before;
		pause_after(run->touches);
	}
}

int sharing_touches_soft(struct sharing_touches *touches, struct gn_soft_cpu *cpu, bool is_write)
{
	struct soft_run run = { touches, is_write };
	struct tsc_stamp since = tsc_now();
	int err;

	warm_host(touches);
	err = gn_soft_run(cpu, touch_all, &run);

	to_ns(touches, since);
	return err;
}

static int compare_floats(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;

	return (x > y) - (x < y);
}

/* Times of one kind among the first @count, sorted. */
static size_t sorted_times(const struct sharing_touch *items, size_t count, bool is_common,
			   float *out)
{
	size_t n = 0;

	for (size_t i = 0; i < count; i++)
		if (items[i].is_common == is_common)
			out[n++] = items[i].ns;
	qsort(out, n, sizeof(*out), compare_floats);
	return n;
}

static double part_below(const struct sharing_touches *touches, bool is_common, double median_ns)
{
	size_t slow = 0, below = 0;

	for (size_t i = 0; i < touches->count; i++) {
		const struct sharing_touch *touch = &touches->items[i];
		const bool is_slow =
			touch->is_common == is_common && (double)touch->ns > 2 * median_ns;

		slow += is_slow;
		below += is_slow && !touch->has_event;
	}
	return slow ? (double)below / (double)slow : (double)NAN;
}

int sharing_touches_times(const struct sharing_touches *touches, bool is_common,
			  struct sharing_touch_times *out)
{
	float *times = malloc((touches->count + 1) * sizeof(*times));
	size_t n;

	if (!times)
		return -ENOMEM;
	n = sorted_times(touches->items, touches->count, is_common, times);
	out->median_ns = n ? (double)times[n / 2] : (double)NAN;
	out->p99_ns = n ? (double)times[n * 99 / 100] : (double)NAN;
	out->below = part_below(touches, is_common, out->median_ns);
	free(times);
	return 0;
}

/* The rule: common are those above (or below) a threshold. */
struct rule {
	float threshold;
	bool is_common_above;
};

static double accuracy_of(const struct sharing_touch *items, size_t count, struct rule rule)
{
	size_t right = 0;

	for (size_t i = 0; i < count; i++)
		right += ((items[i].ns > rule.threshold) == rule.is_common_above) ==
			 items[i].is_common;
	return count ? (double)right / (double)count : (double)NAN;
}

static void try_rule(const struct sharing_touch *items, size_t count, float threshold,
		     struct rule *best, double *best_accuracy)
{
	for (unsigned above = 0; above < 2; above++) {
		struct rule rule = { threshold, above };
		double accuracy = accuracy_of(items, count, rule);

		if (accuracy > *best_accuracy) {
			*best = rule;
			*best_accuracy = accuracy;
		}
	}
}

int sharing_touches_tell(const struct sharing_touches *touches, double *accuracy)
{
	size_t half = touches->count / 2, n;
	float *times = malloc((touches->count + 1) * sizeof(*times)), medians[2] = { 0, 0 };
	struct rule best = { 0, true };
	double on_first = -1;

	if (!times)
		return -ENOMEM;
	for (unsigned kind = 0; kind < 2; kind++) {
		n = sorted_times(touches->items, half, kind, times);
		medians[kind] = n ? times[n / 2] : 0;
		for (unsigned i = 1; i < THRESHOLDS && n; i++)
			try_rule(touches->items, half, times[n * i / THRESHOLDS], &best, &on_first);
	}
	try_rule(touches->items, half, (medians[0] + medians[1]) / 2, &best, &on_first);
	*accuracy = accuracy_of(touches->items + half, touches->count - half, best);
	free(times);
	return 0;
}
