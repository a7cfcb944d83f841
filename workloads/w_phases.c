/* SPDX-License-Identifier: MIT */
/*
 * w_phases.c - a server whose needs change: the tenant that memory is taken from and given to.
 *
 * Models what over-commit lives by (Waldspurger, OSDI 2002, section 5.3; Jones et al., ASPLOS 2006): most of the time a
 * guest uses a part of its memory, now and then all of it, and its file data can be read again while its anonymous
 * data cannot. A run is a schedule of phases. A phase has a working set of its own: so much anonymous memory, mapped
 * and filled when a phase needs more and given back when it needs less, and a window of a file, which moves on with each
 * phase, so that what an earlier phase read grows cold in the page cache. An operation touches one page of the
 * two, by their sizes: a file's word is checked against its formula; an anonymous page holds a count of the writes to
 * it and words that follow from the count, one operation in four writes.
 *
 * At the end of a phase all pages are read and their counts summed: a page that was lost on the way, or
 * came back as zeros, cannot hide. The file is read once before the measured part, so that reads of the disk in it are
 * refaults: with memory for all of it there are none.
 *
 * The argument is a schedule: phases "ANON/FILE/OPERATIONS" with commas between, sizes in per cent of the workload's
 * size, and perhaps "xROUNDS" at the end: "20/10/50000,90/10/20000x3". None: the one below, by the size.
 */
#include "list.h"
#include "region.h"
#include "rng.h"

#define PHASES_MAX	64
#define OPERATION_STEPS 50 /* instructions beside the touches: parse, hash, answer */
#define WRITE_ONE_IN	4
#define TICK_OPERATIONS 2048

struct phase {
	uint64_t anon_percent, file_percent, operations;
};

struct schedule {
	unsigned count, rounds;
	struct phase phases[PHASES_MAX];
};

struct tenant {
	uint64_t seed, unit; /* bytes that anonymous memory grows by */
	uint64_t anon, anon_pages;
	uint64_t file, file_pages, window, window_pages; /* window: its first page */
	uint64_t writes; /* that the anonymous pages there are have seen */
	uint64_t done, total;
	struct rng rng;
};

/* ---- The schedule ---------------------------------------------------------------------------------------------- */

static bool take_number(const char **text, uint64_t *out)
{
	const char *at = *text;

	for (*out = 0; *at >= '0' && *at <= '9' && *out < (uint64_t)1 << 48; at++)
		*out = *out * 10 + (uint64_t)(*at - '0');
	if (at == *text)
		return false;
	*text = at;
	return true;
}

static bool take_phase(const char **text, struct phase *p)
{
	if (!take_number(text, &p->anon_percent) || *(*text)++ != '/' ||
	    !take_number(text, &p->file_percent) || *(*text)++ != '/' ||
	    !take_number(text, &p->operations))
		return false;
	return p->anon_percent <= 100 && p->file_percent <= 100 && p->operations;
}

static bool parse(const char *text, struct schedule *s)
{
	uint64_t rounds = 1;

	do {
		if (s->count == PHASES_MAX || !take_phase(&text, &s->phases[s->count++]))
			return false;
	} while (*text == ',' && text++);
	if (*text == 'x') {
		text++;
		if (!take_number(&text, &rounds) || !rounds || rounds > 1000000)
			return false;
	}
	s->rounds = (unsigned)rounds;
	return !*text;
}

/* Quiet, a spike of anonymous memory, quiet again, a scan of many files, both. */
static void standard(uint64_t size, struct schedule *s)
{
	static const struct phase phases[] = {
		{ 15, 15, 0 }, { 70, 10, 0 }, { 15, 15, 0 }, { 10, 70, 0 }, { 45, 45, 0 }
	};

	s->rounds = 1;
	s->count = sizeof(phases) / sizeof(phases[0]);
	for (unsigned i = 0; i < s->count; i++) {
		s->phases[i] = phases[i];
		s->phases[i].operations = region_steps(size) / 4;
	}
}

/* ---- Anonymous memory ------------------------------------------------------------------------------------------- */

static uint64_t word_of(const struct tenant *t, uint64_t page, uint64_t version)
{
	return version ? mix64(t->seed ^ page << 32 ^ version) : 0;
}

/* The version of a page that is what it should be. */
static bool check_page(const struct tenant *t, uint64_t page, uint64_t *version)
{
	uint64_t at = t->anon + page * K_PAGE, word;

	*version = cpu_load64(at);
	word = word_of(t, page, *version);
	return cpu_load64(at + K_PAGE / 2) == word && cpu_load64(at + K_PAGE - 8) == word;
}

static void write_page(struct tenant *t, uint64_t page, uint64_t version)
{
	uint64_t at = t->anon + page * K_PAGE;

	cpu_store64(at, version);
	cpu_store64(at + K_PAGE / 2, word_of(t, page, version));
	cpu_store64(at + K_PAGE - 8, word_of(t, page, version));
	t->writes++;
}

static bool touch_anon(struct tenant *t, bool write)
{
	uint64_t page = rng_below(&t->rng, t->anon_pages), version;

	if (!check_page(t, page, &version))
		return false;
	if (write)
		write_page(t, page, version + 1);
	return true;
}

/* Sum of the versions from page @first on, or ~0: a page is not what it should be. */
static uint64_t sum_versions(const struct tenant *t, uint64_t first)
{
	uint64_t sum = 0, version;

	for (uint64_t page = first; page < t->anon_pages; page++) {
		if (!check_page(t, page, &version))
			return ~(uint64_t)0;
		sum += version;
	}
	return sum;
}

static int resize_anon(struct tenant *t, uint64_t pages, const char **why)
{
	uint64_t have = t->anon_pages, at = t->anon + have * K_PAGE;

	if (pages > have) {
		if (sys_mmap(at, (pages - have) * K_PAGE, K_READ | K_WRITE, K_MAP_FIXED) != at)
			return workload_fail(why, "phases: anonymous memory cannot grow");
		for (uint64_t page = have; page < pages; page++) {
			t->anon_pages = page + 1;
			if (sum_versions(t, page)) /* new memory is zero */
				return workload_fail(why, "phases: new memory holds old data");
			write_page(t, page, 1);
		}
	} else if (pages < have) {
		t->writes -= sum_versions(t, pages);
		if (sys_munmap(t->anon + pages * K_PAGE, (have - pages) * K_PAGE))
			return workload_fail(why, "phases: anonymous memory cannot shrink");
	}
	t->anon_pages = pages;
	return 0;
}

/* ---- The file ---------------------------------------------------------------------------------------------------- */

/* A window that reaches the end of the file goes on at its start. */
static uint64_t around(const struct tenant *t, uint64_t page)
{
	return page < t->file_pages ? page : page - t->file_pages;
}

static bool touch_file(struct tenant *t)
{
	uint64_t page = around(t, t->window + rng_below(&t->rng, t->window_pages));
	unsigned line = (unsigned)rng_below(&t->rng, K_PAGE / 64);

	return cpu_load64(t->file + page * K_PAGE + line * 64) ==
	       kernel_image_word(t->seed, page, line);
}

static int open_file(struct tenant *t, const char **why)
{
	int file = sys_file(t->file_pages, t->seed);

	t->file = file < 0 ? 0 : sys_mmap_image(file, 0, t->file_pages * K_PAGE, K_READ);
	if (!t->file)
		return workload_fail(why, "phases: no room for the file: 1 GiB is the most");
	for (uint64_t page = 0; page < t->file_pages; page++) {
		if (cpu_load64(t->file + page * K_PAGE) != kernel_image_word(t->seed, page, 0))
			return workload_fail(why, "phases: the file holds other data");
		if (!(page % TICK_OPERATIONS))
			sys_tick();
	}
	return 0;
}

/* ---- A phase ------------------------------------------------------------------------------------------------------ */

static uint64_t part(const struct tenant *t, uint64_t percent)
{
	return t->file_pages * percent / 100;
}

static bool operate(struct tenant *t)
{
	bool write = rng_below(&t->rng, WRITE_ONE_IN) == 0;

	cpu_compute(OPERATION_STEPS);
	if (rng_below(&t->rng, t->anon_pages + t->window_pages) < t->anon_pages)
		return touch_anon(t, write);
	return touch_file(t);
}

static int run_phase(struct tenant *t, const struct phase *p, const char **why)
{
	uint64_t unit_pages = t->unit / K_PAGE;
	uint64_t pages = (part(t, p->anon_percent) + unit_pages - 1) / unit_pages * unit_pages;

	t->window = around(t, t->window + t->window_pages);
	t->window_pages = part(t, p->file_percent);
	if (resize_anon(t, pages, why))
		return -1;
	if (!t->anon_pages && !t->window_pages)
		t->window_pages = 1;
	for (uint64_t i = 0; i < p->operations; i++, t->done++) {
		if (!operate(t))
			return workload_fail(why,
					     "phases: a page holds other data than were put there");
		if (!(t->done % TICK_OPERATIONS))
			kernel_tick(t->done, t->total);
	}
	if (sum_versions(t, 0) != t->writes)
		return workload_fail(why, "phases: writes were lost");
	return 0;
}

static int run(const struct workload_params *params, const char **why)
{
	struct tenant t = { .seed = params->seed,
			    .unit = params->large_pages ? K_LARGE_PAGE : K_PAGE,
			    .rng = rng_seeded(params->seed),
			    .file_pages = params->size / K_PAGE + 1 };
	const char *argument = params->argument && *params->argument ? params->argument : NULL;
	struct schedule s = { 0 };
	uint64_t room;

	if (!argument)
		standard(params->size, &s);
	else if (!parse(argument, &s))
		return workload_fail(why,
				     "phases: the schedule is not ANON/FILE/OPERATIONS,...xROUNDS");
	for (unsigned i = 0; i < s.count; i++)
		t.total += s.phases[i].operations * s.rounds;
	if (open_file(&t, why))
		return -1;
	/* Room for all it may ever need, of which a phase maps its part. */
	room = (t.file_pages * K_PAGE / t.unit + 2) * t.unit;
	t.anon = sys_mmap(0, room, K_READ | K_WRITE, 0);
	if (!t.anon || sys_munmap(t.anon, room))
		return workload_fail(why, "phases: no room for anonymous memory");
	cpu_measure();
	for (unsigned i = 0; i < s.count * s.rounds; i++) {
		if (run_phase(&t, &s.phases[i % s.count], why))
			return -1;
		cpu_phase(i, t.done);
	}
	cpu_progress(t.total, t.total);
	return 0;
}

const struct workload workload_phases = {
	.name = "phases",
	.kind = WORKLOAD_OS,
	.models = "server whose working set, anonymous and file data, grows and shrinks",
	.size_unit = "bytes",
	.size_default = (uint64_t)64 << 20,
	.size_quick = (uint64_t)1 << 20,
	.run = run,
};
