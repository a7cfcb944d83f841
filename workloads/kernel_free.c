/* SPDX-License-Identifier: MIT */
/*
 * kernel_free.c - telling the host which frames are free: free page reporting and hinting (OASIS virtio 1.2, 5.5.6.7 and
 * 5.5.6.5).
 *
 * A report gives the host the frames' contents to drop; the frames stay this kernel's and can be used when the report
 * was acknowledged, which it waits for. It is made now and then, when enough was freed since the last round, of runs
 * long enough to be worth it, and of each free frame once (frames.told, cleared when it is freed again). A round is made of
 * short reports, one a poll, and the balloon goes first: the host may want the very frames back that the round is about.
 *
 * A hint tells a migration what need not be sent. The device names a round; the driver names the round, hints every run of
 * free frames, and ends with STOP. Hinted frames are not set aside: their contents are not trusted anyway, and a
 * write by the next owner overrides the hint (the specification allows that).
 *
 * Both are about frames that were used: those never handed out are known to be zero on both sides, and must stay so. (Where RAM began dirty
 * they might be told as well; but what they hold then is a template's, which a host has no gain by dropping.)
 */
#include "kernel_state.h"

#define REPORT_FRAMES_LEAST 32	/* of a run: 128 KiB */
#define REPORT_RUNS	    32	/* of one report, as Linux: PAGE_REPORTING_CAPACITY */
#define REPORT_FREED	    512 /* frames given back before a round of reports begins */
/* The driver waits for a report, and meanwhile its balloon stands still. A run that is longer ends at the next block. */
#define REPORT_FRAMES_MOST 2048
#define RUN_FRAMES_MOST	   (1u << 18)

struct run_of_frames {
	uint32_t start, count;
};

static bool is_told(const struct frames *f, uint32_t frame)
{
	return f->told[frame / 64] >> frame % 64 & 1;
}

/*
 * The next run of at least @least free frames from *at on, and past it; untold ones only, if asked. It is cut where it
 * has @most and a block of 2 MiB ends, so that blocks stay whole.
 */
static bool next_run(uint32_t *at, uint32_t least, uint32_t most, bool untold,
		     struct run_of_frames *out)
{
	const struct frames *f = &k_now->frames;

	out->count = 0;
	for (; *at < f->total; (*at)++) {
		if (k_frame_is_listed(*at) && !(untold && is_told(f, *at)) &&
		    (out->count < most || *at % K_LARGE_FRAMES)) {
			if (!out->count++)
				out->start = *at;
			continue;
		}
		if (out->count >= least)
			return true;
		out->count = 0;
	}
	return out->count >= least;
}

/* ---- Reports ------------------------------------------------------------------------------------------------------------ */

static void describe_run(const struct virtq *q, unsigned slot, const struct run_of_frames *run,
			 bool more)
{
	k_virtq_describe(q, slot,
			 &(struct gn_virtq_desc){ .addr = k_gpa(run->start),
						  .len = run->count * (uint32_t)K_PAGE,
						  .flags = GN_VIRTQ_DESC_F_WRITE |
							   (more ? GN_VIRTQ_DESC_F_NEXT : 0),
						  .next = (uint16_t)(slot + 1) });
}

void k_free_report(void)
{
	struct balloon *b = &k_now->balloon;
	struct frames *f = &k_now->frames;
	struct run_of_frames runs[REPORT_RUNS];
	uint32_t frames = 0;
	unsigned count = 0,
		 most = b->reporting.size < REPORT_RUNS ? b->reporting.size : REPORT_RUNS;

	if (!b->report_hand && f->freed - b->report_freed < REPORT_FREED)
		return;
	if (!b->report_hand)
		b->report_freed = f->freed;
	while (count < most && frames < REPORT_FRAMES_MOST &&
	       next_run(&b->report_hand, REPORT_FRAMES_LEAST, REPORT_FRAMES_MOST, true,
			&runs[count]))
		frames += runs[count++].count;
	if (b->report_hand >= f->total)
		b->report_hand = 0;
	if (!count)
		return;
	cpu_compute(K_WORK_BALLOON);
	for (unsigned i = 0; i < count; i++)
		describe_run(&b->reporting, i, &runs[i], i + 1 < count);
	k_virtq_offer(&b->reporting, 0);
	k_virtq_kick(&b->dev, &b->reporting);
	if (!k_virtq_wait(&b->dev, &b->reporting))
		return;
	for (unsigned i = 0; i < count; i++) {
		k_frames_mark_told(runs[i].start, runs[i].count);
		k_now->stats.reported_frames += runs[i].count;
	}
}

/* ---- Hints ---------------------------------------------------------------------------------------------------------------- */

/* A command to the device. The buffer for page numbers serves: nothing else is under way. */
static void describe_command(const struct balloon *b, unsigned slot, uint32_t command)
{
	uint64_t pa = k_gpa(b->buffers[0]) + slot * 4;

	cpu_store32(k_va(pa), command);
	k_virtq_describe(&b->hinting, slot, &(struct gn_virtq_desc){ .addr = pa, .len = 4 });
}

/* All the free frames there are, as many to a notification as the queue has room for beside a command at either end. */
static void hint_round(struct balloon *b, uint32_t round)
{
	struct virtq *q = &b->hinting;
	uint32_t at = 0;
	bool first = true, more = true;

	while (more) {
		unsigned slot = 0;

		if (first)
			describe_command(b, slot++, round);
		for (struct run_of_frames run; slot < q->size - 1u; slot++) {
			more = next_run(&at, 1, RUN_FRAMES_MOST, false, &run);
			if (!more)
				break;
			describe_run(q, slot, &run, false);
			k_now->stats.hinted_frames += run.count;
		}
		if (!more)
			describe_command(b, slot++, GN_BALLOON_HINT_STOP);
		for (unsigned i = 0; i < slot; i++)
			k_virtq_offer(q, i);
		cpu_compute(K_WORK_BALLOON);
		k_virtq_kick(&b->dev, q);
		if (!k_virtq_wait(&b->dev, q))
			return;
		first = false;
		if (more && k_balloon_hint_command() != round)
			return; /* the device has no use for the rest */
	}
}

void k_free_hint(uint32_t command)
{
	struct balloon *b = &k_now->balloon;

	if (command == b->hint_command)
		return;
	b->hint_command = command;
	if (command > GN_BALLOON_HINT_DONE)
		hint_round(b, command);
}
