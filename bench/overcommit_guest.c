/* SPDX-License-Identifier: MIT */
/*
 * overcommit_guest.c - the model of a guest: what memory does to its speed.
 *
 * The guest's workload touches pages of its working set, uniformly, 4 us of work a touch. Anonymous pages must be
 * there; file pages that are not are read, 100 us each (a flash disk). At full speed it makes 250,000 touches a
 * second; when a part m of touches miss it slows down by 1 + m * 25. A page that was read stays if there is
 * room (free memory, then pages of earlier phases); when there is none another page of the set makes room, so
 * misses go on.
 *
 * A phase change moves both parts at once: anonymous memory is allocated or freed, file pages of the larger set
 * are read as they are touched, those of a smaller set stay cached until somebody wants the memory. An allocation
 * that finds no memory evicts file pages; one that finds nothing to evict waits, and with it the workload. After
 * 2 s of waiting the guest kills it (out of memory): its work of this phase is lost.
 *
 * The balloon takes free pages at 5 GiB/s, cached ones at 2 GiB/s (least recently used first), and cannot
 * take anonymous ones; it gives back at 8 GiB/s. The guest's kernel keeps a 32nd of the memory. These figures are
 * assumptions in the middle of what is measured on real machines; the model is for comparing policies in seconds,
 * not for predicting a machine.
 */
#include "overcommit_guest.h"

#include <math.h>

#define PAGE_BYTES	    4096.0
#define TOUCH_S		    4e-6
#define READ_S		    100e-6
#define PATIENCE_S	    2.0
#define KERNEL_PART	    (1.0 / 32)
#define INFLATE_FREE_PER_S  (5.0 * 1073741824)
#define INFLATE_EVICT_PER_S (2.0 * 1073741824)
#define DEFLATE_PER_S	    (8.0 * 1073741824)
#define FAST_S		    2.0
#define SLOW_S		    20.0

double overcommit_guest_free(const struct overcommit_guest *guest)
{
	return fmax(guest->actual - guest->kernel - guest->anonymous - guest->resident -
			    guest->stale,
		    0);
}

double overcommit_guest_lack(const struct overcommit_guest *guest)
{
	return guest->is_killed ? 0 : fmax(guest->kernel + guest->wanted - guest->actual, 0);
}

static double file_wanted(const struct overcommit_guest *guest)
{
	return guest->wanted * (1 - guest->demand->anonymous_fraction);
}

/* Up to @bytes of file pages, stale ones first. What could be had. */
static double evict(struct overcommit_guest *guest, double bytes)
{
	double stale = fmin(bytes, guest->stale), resident = fmin(bytes - stale, guest->resident);

	guest->stale -= stale;
	guest->resident -= resident;
	return stale + resident;
}

static void move_balloon(struct overcommit_guest *guest, double step_s)
{
	double excess = guest->actual - guest->target, taken;

	if (excess <= 0) {
		guest->actual += fmin(-excess, DEFLATE_PER_S * step_s);
		return;
	}
	taken = fmin(fmin(excess, overcommit_guest_free(guest)), INFLATE_FREE_PER_S * step_s);
	if (taken < excess)
		taken += evict(guest, fmin(excess - taken,
					   INFLATE_EVICT_PER_S * step_s *
						   (1 - taken / (INFLATE_FREE_PER_S * step_s))));
	guest->actual -= taken;
}

/* The working set of now. */
static void change_phase(struct overcommit_guest *guest, double t_s)
{
	bool is_high;
	double wanted = (double)overcommit_demand_at(guest->demand, t_s, &is_high), file, cached;

	if (is_high != guest->is_high)
		guest->is_killed = false;
	guest->is_high = is_high;
	if (wanted == guest->wanted) /* exact: it is one of two values */
		return;
	guest->wanted = wanted;
	file = file_wanted(guest);
	cached = guest->resident + guest->stale;
	guest->resident = fmin(cached, file);
	guest->stale = cached - guest->resident;
}

static void allocate(struct overcommit_guest *guest, double t_s)
{
	double wanted = guest->is_killed ? 0 : guest->wanted - file_wanted(guest);
	double more = wanted - guest->anonymous, room = overcommit_guest_free(guest);

	if (more <= 0) {
		guest->anonymous = wanted;
		guest->is_short = false;
		return;
	}
	if (room < more)
		room += evict(guest, more - room);
	guest->anonymous += fmin(room, more);
	if (room >= more) {
		guest->is_short = false;
	} else if (!guest->is_short) {
		guest->is_short = true;
		guest->short_since_s = t_s;
	} else if (t_s - guest->short_since_s > PATIENCE_S) {
		guest->oom_kills++;
		guest->is_killed = true;
		guest->is_short = false;
	}
}

static void work(struct overcommit_guest *guest, double step_s)
{
	double file = file_wanted(guest), part = file / guest->wanted;
	double miss = file > 0 ? fmax(1 - guest->resident / file, 0) * part : 0;
	double touches, read, room;

	if (guest->is_short || guest->is_killed)
		return;
	touches = step_s / (TOUCH_S + miss * READ_S);
	guest->work += touches * TOUCH_S;
	guest->refaults += touches * miss;
	read = fmin(touches * miss * PAGE_BYTES, file - guest->resident);
	room = overcommit_guest_free(guest);
	if (room < read) {
		double stale = fmin(read - room, guest->stale);

		guest->stale -= stale;
		room += stale;
	}
	guest->resident += fmin(read, room);
}

/* The host sees what was touched: not what would be, were there memory. */
static void sample(struct overcommit_guest *guest, double step_s)
{
	double touched = guest->kernel + guest->anonymous + guest->resident;

	guest->fast += (touched - guest->fast) * fmin(step_s / FAST_S, 1);
	guest->slow += (touched - guest->slow) * fmin(step_s / SLOW_S, 1);
}

void overcommit_guest_init(struct overcommit_guest *guest, const struct overcommit_demand *demand,
			   double mem_bytes, double actual_bytes)
{
	double room;

	*guest = (struct overcommit_guest){ .demand = demand,
					    .kernel = mem_bytes * KERNEL_PART,
					    .actual = actual_bytes,
					    .target = actual_bytes };
	change_phase(guest, 0);
	guest->anonymous = fmin(guest->wanted - file_wanted(guest), actual_bytes - guest->kernel);
	room = overcommit_guest_free(guest);
	guest->resident = fmin(file_wanted(guest), room);
	guest->fast = guest->slow = guest->kernel + guest->anonymous + guest->resident;
}

void overcommit_guest_step(struct overcommit_guest *guest, double t_s, double step_s)
{
	change_phase(guest, t_s);
	move_balloon(guest, step_s);
	allocate(guest, t_s);
	work(guest, step_s);
	sample(guest, step_s);
}
