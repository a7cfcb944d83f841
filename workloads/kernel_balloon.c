/* SPDX-License-Identifier: MIT */
/*
 * kernel_balloon.c - the driver of a virtio-balloon device (OASIS virtio 1.2, 5.5): the guest's half of taking memory
 * from a guest.
 *
 * The device names a target; the driver brings the balloon to it. Inflation takes whole 2 MiB blocks while the target has
 * room for one, then single frames, then evicts clean pages of files, and stops at a reserve that the kernel keeps for
 * itself. Page numbers go to the device a frame full of them at a time, eight such frames a notification, so that it can
 * work on 32 MiB at once; one such frame where pages have to be evicted, for somebody waits for them. Deflation gives
 * blocks back first: that is what a guest in need waits for. Either waits for the device's acknowledgement before a frame
 * changes hands (MUST_TELL_HOST asks no less).
 *
 * A frame in the balloon has one reference, the balloon's, and is linked by frames.next. One that comes back is a used
 * frame like any other: the specification promises nothing about its contents, and a request the device refused
 * leaves the old ones. So "never handed out, hence zero" (kernel_frames.c) is never said of it again.
 *
 * Out of memory: if nothing can be evicted the balloon gives back a little (DEFLATE_ON_OOM, or because the target is
 * lower already), and is not inflated again before the target moves, as in Linux.
 *
 * There are no interrupts in this kernel, so it looks: at a tick, and each POLL_EVENTS system calls or faults of user
 * code, it reads the interrupt status. Which operations that makes depends on the device alone; without one
 * there are none. Statistics are refreshed when the device gave the last ones back. Free pages are told elsewhere
 * (kernel_free.c).
 */
#include "kernel_state.h"

#define POLL_EVENTS    64
#define RETRY_POLLS    16  /* between attempts at a target that could not be reached */
#define RELIEF_FRAMES  256 /* as Linux: VIRTBALLOON_OOM_NR_PAGES */
#define PFNS_PER_FRAME (K_PAGE / 4)
#define BATCH_FRAMES   (K_BALLOON_BUFFERS * (uint32_t)PFNS_PER_FRAME)
#define RECLAIM_BATCH  256
#define WANTED_FEATURES                                                                            \
	(GN_VIRTIO_F_VERSION_1 | GN_BALLOON_F_MUST_TELL_HOST | GN_BALLOON_F_STATS_VQ |             \
	 GN_BALLOON_F_DEFLATE_ON_OOM | GN_BALLOON_F_FREE_PAGE_HINT | GN_BALLOON_F_PAGE_POISON |    \
	 GN_BALLOON_F_PAGE_REPORTING)
#define CONFIG(field) (GN_VIRTIO_CONFIG + offsetof(struct gn_virtio_balloon_config, field))

/* What the kernel keeps free of the balloon, as Linux its low watermark. */
static uint32_t reserve_frames(void)
{
	uint32_t part = k_now->frames.total / 128;

	return part < 64 ? 64 : part > 4096 ? 4096 : part;
}

/* ---- Requests: page numbers to a queue ----------------------------------------------------------------------------- */

static void write_pfn(uint32_t nr, uint32_t pfn)
{
	uint32_t buffer = k_now->balloon.buffers[nr / PFNS_PER_FRAME];

	cpu_store32(k_va(k_gpa(buffer)) + nr % PFNS_PER_FRAME * 4, pfn);
}

static void write_block(uint32_t nr, uint32_t first)
{
	for (uint32_t i = 0; i < K_LARGE_FRAMES; i++)
		write_pfn(nr + i, first + i);
}

/* The first @count numbers in the buffers. False: the device is no more. */
static bool tell(struct virtq *q, uint32_t count)
{
	struct balloon *b = &k_now->balloon;
	unsigned slot = 0;

	cpu_compute(K_WORK_BALLOON);
	for (uint32_t nr = 0; nr < count; nr += (uint32_t)PFNS_PER_FRAME, slot++) {
		uint32_t here = count - nr < PFNS_PER_FRAME ? count - nr : (uint32_t)PFNS_PER_FRAME;

		k_virtq_describe(q, slot,
				 &(struct gn_virtq_desc){ .addr = k_gpa(b->buffers[slot]),
							  .len = here * 4 });
		k_virtq_offer(q, slot);
	}
	k_virtq_kick(&b->dev, q);
	return k_virtq_wait(&b->dev, q);
}

/* ---- Inflation -------------------------------------------------------------------------------------------------------- */

/* A frame may be taken: free, or made free, above the reserve. */
static bool is_there_room(uint32_t count)
{
	const struct frames *f = &k_now->frames;

	return f->free >= reserve_frames() + count;
}

static bool make_room(void)
{
	k_cache_reclaim(reserve_frames() + RECLAIM_BATCH - k_now->frames.free);
	return is_there_room(1);
}

static void hold_block(uint32_t first)
{
	struct balloon *b = &k_now->balloon;

	k_now->frames.next[first] = b->large_head;
	b->large_head = first;
	b->held += K_LARGE_FRAMES;
	b->blocks++;
}

static void hold_frame(uint32_t frame)
{
	struct balloon *b = &k_now->balloon;

	k_now->frames.next[frame] = b->small_head;
	b->small_head = frame;
	b->held++;
}

/* Up to @wanted frames into the balloon's lists and, by their numbers, into the buffers. */
static uint32_t take_batch(uint32_t wanted)
{
	uint32_t taken = 0, limit = wanted < BATCH_FRAMES ? wanted : BATCH_FRAMES;

	while (taken < limit) {
		uint32_t first = 0;

		if (limit - taken >= K_LARGE_FRAMES && is_there_room(K_LARGE_FRAMES))
			first = k_large_take();
		if (first) {
			write_block(taken, first);
			hold_block(first);
			taken += K_LARGE_FRAMES;
			continue;
		}
		/* What is there goes now; evicting for the rest takes time, in which the host has it. */
		if (!is_there_room(1) && (taken >= PFNS_PER_FRAME || !make_room()))
			break;
		first = k_frame_take();
		write_pfn(taken++, first);
		hold_frame(first);
	}
	return taken;
}

/* The host may want something else by the end of a batch: evicting one takes its time. */
static void inflate(struct balloon *b)
{
	if (b->target - b->held >= K_LARGE_FRAMES)
		k_frames_gather();
	while (b->held < b->target) {
		uint32_t taken = take_batch(b->target - b->held);

		if (!taken || !tell(&b->inflate, taken))
			return;
		b->target = k_virtio_read(&b->dev, CONFIG(num_pages));
	}
}

/* ---- Deflation -------------------------------------------------------------------------------------------------------- */

/* A block of the balloon as single frames of it. */
static void break_held(struct balloon *b)
{
	uint32_t first = b->large_head;

	b->large_head = k_now->frames.next[first];
	b->blocks--;
	b->held -= K_LARGE_FRAMES;
	for (uint32_t i = K_LARGE_FRAMES; i-- > 0;)
		hold_frame(first + i);
}

/* What comes from the host need not be reported to it, unless poison was written to it. */
static void mark_known(uint32_t first, uint32_t count)
{
	if (!k_now->config.free_poison)
		k_frames_mark_told(first, count);
}

static void release(struct balloon *b, uint32_t blocks, uint32_t singles)
{
	for (; blocks; blocks--) {
		uint32_t first = b->large_head;

		b->large_head = k_now->frames.next[first];
		b->held -= K_LARGE_FRAMES;
		b->blocks--;
		k_large_put(first);
		mark_known(first, K_LARGE_FRAMES);
	}
	for (; singles; singles--) {
		uint32_t frame = b->small_head;

		b->small_head = k_now->frames.next[frame];
		b->held--;
		k_frame_put(frame);
		mark_known(frame, 1);
	}
}

/* At most a batch of @count frames; how many. 0: the device is no more. */
static uint32_t deflate_batch(struct balloon *b, uint32_t count)
{
	uint32_t blocks = 0, singles = 0, nr = 0,
		 limit = count < BATCH_FRAMES ? count : BATCH_FRAMES;

	if (limit < K_LARGE_FRAMES && !b->small_head)
		break_held(b);
	for (uint32_t at = b->large_head; at && limit - nr >= K_LARGE_FRAMES;
	     at = k_now->frames.next[at], blocks++, nr += K_LARGE_FRAMES)
		write_block(nr, at);
	for (uint32_t at = b->small_head; at && nr < limit;
	     at = k_now->frames.next[at], singles++, nr++)
		write_pfn(nr, at);
	if (!tell(&b->deflate, nr))
		return 0;
	release(b, blocks, singles);
	return nr;
}

static bool deflate(uint32_t count)
{
	struct balloon *b = &k_now->balloon;
	uint32_t done = 1;

	for (; count && done; count -= done)
		done = deflate_batch(b, count);
	return done;
}

static void write_actual(const struct balloon *b)
{
	if (b->dev.is_ready)
		k_virtio_write(&b->dev, CONFIG(actual), b->held);
}

bool k_balloon_relieve(void)
{
	struct balloon *b = &k_now->balloon;
	uint32_t count = b->held < RELIEF_FRAMES ? b->held : RELIEF_FRAMES, before = b->held;

	if (!b->dev.is_ready)
		return false;
	if (!(b->dev.features & GN_BALLOON_F_DEFLATE_ON_OOM)) {
		uint32_t target = k_virtio_read(&b->dev, CONFIG(num_pages));

		if (target >= b->held)
			return false;
		if (b->held - target < count)
			count = b->held - target;
	}
	if (!count)
		return false;
	deflate(count);
	write_actual(b);
	b->is_relieved = true;
	k_now->stats.balloon_relieved += before - b->held;
	return b->held < before;
}

/* ---- Statistics ----------------------------------------------------------------------------------------------------- */

/* A page may be read without a fault, and a fault be counted before its page is read: the difference can fall. */
static uint64_t minor_faults(struct balloon *b)
{
	const struct kernel_stats *s = &k_now->stats;

	if (s->faults > b->minor_faults + s->file_reads)
		b->minor_faults = s->faults - s->file_reads;
	return b->minor_faults;
}

static void write_stats(struct balloon *b)
{
	const struct kernel_stats *s = &k_now->stats;
	const struct frames *f = &k_now->frames;
	uint64_t spare = f->free + s->cache_pages, reserve = reserve_frames();
	const struct {
		enum gn_balloon_stat tag;
		uint64_t value;
	} stats[] = {
		{ GN_BALLOON_STAT_MAJFLT, s->file_reads },
		{ GN_BALLOON_STAT_MINFLT, minor_faults(b) },
		{ GN_BALLOON_STAT_MEMFREE, f->free * K_PAGE },
		{ GN_BALLOON_STAT_MEMTOT, (f->total - (uint64_t)b->held) * K_PAGE },
		{ GN_BALLOON_STAT_AVAIL, spare > reserve ? (spare - reserve) * K_PAGE : 0 },
		{ GN_BALLOON_STAT_CACHES, s->cache_pages * K_PAGE },
	};
	uint64_t at = k_va(k_gpa(b->stats_frame));

	for (unsigned i = 0; i < sizeof(stats) / sizeof(stats[0]);
	     i++, at += GN_BALLOON_STAT_BYTES) {
		cpu_store8(at, (uint8_t)stats[i].tag);
		cpu_store8(at + 1, 0);
		cpu_store64(at + 2, stats[i].value);
	}
	k_virtq_describe(&b->stats, 0,
			 &(struct gn_virtq_desc){ .addr = k_gpa(b->stats_frame),
						  .len = sizeof(stats) / sizeof(stats[0]) *
							 GN_BALLOON_STAT_BYTES });
}

static void offer_stats(struct balloon *b)
{
	write_stats(b);
	k_virtq_offer(&b->stats, 0);
	k_virtq_kick(&b->dev, &b->stats);
	k_now->stats.balloon_answers++;
}

uint32_t k_balloon_hint_command(void)
{
	return k_virtio_read(&k_now->balloon.dev, CONFIG(free_page_hint_cmd_id));
}

/* ---- Polling ----------------------------------------------------------------------------------------------------------- */

static void on_config(struct balloon *b)
{
	b->target = k_virtio_read(&b->dev, CONFIG(num_pages));
	b->is_relieved = false;
	b->retry_polls = 0;
	if (b->dev.features & GN_BALLOON_F_FREE_PAGE_HINT)
		k_free_hint(k_balloon_hint_command());
}

static void adjust(struct balloon *b)
{
	uint32_t before = b->held;

	if (b->held > b->target) {
		deflate(b->held - b->target);
	} else if (b->held < b->target && !b->is_relieved) {
		if (b->retry_polls && --b->retry_polls)
			return;
		inflate(b);
		b->retry_polls = RETRY_POLLS;
	}
	if (b->held != before)
		write_actual(b);
}

static void poll(struct balloon *b)
{
	uint32_t status = k_virtio_read(&b->dev, GN_VIRTIO_INTERRUPT_STATUS);

	if (status)
		k_virtio_write(&b->dev, GN_VIRTIO_INTERRUPT_ACK, status);
	if ((status & GN_VIRTIO_INTERRUPT_CONFIG) &&
	    (k_virtio_read(&b->dev, GN_VIRTIO_STATUS) & GN_VIRTIO_STATUS_NEEDS_RESET)) {
		k_virtio_give_up(&b->dev);
		return;
	}
	if (status & GN_VIRTIO_INTERRUPT_CONFIG)
		on_config(b);
	if (b->dev.is_ready)
		adjust(b);
	if (b->dev.is_ready && b->stats.frame && k_virtq_used(&b->stats) == b->stats.available)
		offer_stats(b);
	if (b->dev.is_ready && b->reporting.frame)
		k_free_report();
	k_now->stats.balloon_pages = b->held;
	k_now->stats.balloon_blocks = b->blocks;
}

void k_balloon_poll(unsigned events)
{
	struct balloon *b = &k_now->balloon;

	b->events += events;
	if (b->events < POLL_EVENTS)
		return;
	b->events = 0;
	poll(b);
}

void sys_tick(void)
{
	if (!k_now->balloon.dev.is_ready)
		return;
	k_enter(0);
	if (k_now->balloon.dev.is_ready)
		k_balloon_poll(POLL_EVENTS);
	k_leave();
}

/* ---- The start ---------------------------------------------------------------------------------------------------------- */

static uint64_t features_for(const struct virtio *v)
{
	uint64_t wanted = WANTED_FEATURES;

	if (!k_now->config.free_poison)
		return wanted & ~GN_BALLOON_F_PAGE_POISON;
	/* Free frames hold a value that a hint or a report may destroy: a hint always, a report unless the
	 * device was told the value. */
	wanted &= ~GN_BALLOON_F_FREE_PAGE_HINT;
	if (!(v->features & GN_BALLOON_F_PAGE_POISON))
		wanted &= ~GN_BALLOON_F_PAGE_REPORTING;
	return wanted;
}

/* In the order of 5.5.2: numbers close up where a feature is absent. */
static bool make_queues(struct balloon *b)
{
	const struct {
		struct virtq *queue;
		uint64_t feature;
	} queues[] = {
		{ &b->inflate, GN_VIRTIO_F_VERSION_1 },
		{ &b->deflate, GN_VIRTIO_F_VERSION_1 },
		{ &b->stats, GN_BALLOON_F_STATS_VQ },
		{ &b->hinting, GN_BALLOON_F_FREE_PAGE_HINT },
		{ &b->reporting, GN_BALLOON_F_PAGE_REPORTING },
	};
	unsigned index = 0;

	for (unsigned i = 0; i < sizeof(queues) / sizeof(queues[0]); i++)
		if ((b->dev.features & queues[i].feature) &&
		    !k_virtq_make(&b->dev, queues[i].queue, index++))
			return false;
	return b->inflate.size >= K_BALLOON_BUFFERS && b->deflate.size >= K_BALLOON_BUFFERS;
}

void k_balloon_boot(uint64_t mmio)
{
	struct balloon *b = &k_now->balloon;

	if (mmio < k_now->config.mem_bytes)
		cpu_panic("guest kernel: the balloon device lies in RAM");
	if (!k_virtio_find(&b->dev, mmio, GN_VIRTIO_ID_BALLOON))
		return;
	if (!k_virtio_agree(&b->dev, features_for(&b->dev)) || !make_queues(b)) {
		k_virtio_give_up(&b->dev);
		return;
	}
	for (unsigned i = 0; i < K_BALLOON_BUFFERS; i++)
		b->buffers[i] = k_frame_alloc_cleared();
	b->stats_frame = k_frame_alloc_cleared();
	if (b->dev.features & GN_BALLOON_F_PAGE_POISON)
		k_virtio_write(&b->dev, CONFIG(poison_val), k_now->config.free_poison);
	k_virtio_start(&b->dev);
	if (b->stats.frame)
		offer_stats(b);
	b->target = k_virtio_read(&b->dev, CONFIG(num_pages));
}
