/* SPDX-License-Identifier: MIT */
/*
 * requests.c - pages a guest names: each is checked, all are gathered, then the p2m is changed by
 * runs.
 *
 * Checked: the page is RAM of this VM, nobody else's (reserved, read-only, MMIO, ballooned by
 * another hand), named once, and in the balloon or not as the request wants. What fails is counted
 * and left as it was; the rest of the request is not affected. A state that was looked at may
 * change before the p2m does (a touch by another vCPU that is granted, another thread of the
 * host's), so the engine looks again under its lock, leaves out what does not fit any more, and
 * tells us: it then counts as if it had been found when the request was checked.
 *
 * Gathered in a set, so a request of any order and repetition becomes the fewest runs there are;
 * pages that lie together leave as 2 MiB blocks wherever they came from in the request.
 *
 * A page whose touch was granted by policy is in use again, though the driver never asked for it
 * back. It is found at its next mention, when it should leave, or when the host asks how many there
 * are, and is then no longer held. What is known of it until then is its state: should another hand
 * balloon it meanwhile, it passes for the device's.
 */
#include "device.h"

#include <errno.h>

#include "mmu/vm.h"

/* ---- Checks ---------------------------------------------------------------------------------- */

static enum gn_p2m_state state_of(const struct gn_balloon *b, uint64_t page)
{
	return gn_p2m_word_state(gn_p2m_get(&b->vm->p2m, gfn(page)));
}

/* What a balloon may take, and free page reporting discard. */
static bool is_owned_ram(const struct gn_balloon *b, uint64_t page)
{
	enum gn_p2m_state state = state_of(b, page);

	return page >= b->reserved_pages &&
	       (state == GN_P2M_UNBACKED || state == GN_P2M_PRIVATE || state == GN_P2M_SHARED);
}

static void note_granted(struct gn_balloon *b, uint64_t page)
{
	gn_page_set_remove_run(&b->held, page, 1);
	gn_reform_note_left(b, page, 1);
	b->stats.granted_pages++;
}

/* In the balloon, and not granted again since. */
static bool is_held(struct gn_balloon *b, uint64_t page, bool *was_granted)
{
	*was_granted = false;
	if (!gn_page_set_has(&b->held, page))
		return false;
	if (state_of(b, page) == GN_P2M_BALLOONED)
		return true;
	note_granted(b, page);
	*was_granted = true;
	return false;
}

static void gather_pfn(struct gn_balloon *b, unsigned kind, uint64_t page)
{
	bool was_granted;

	if (page >= b->pages) {
		gn_balloon_fault(b, GN_BALLOON_FAULT_RANGE);
		return;
	}
	if (kind == GN_BALLOON_INFLATE) {
		if (is_held(b, page, &was_granted)) {
			gn_balloon_fault(b, GN_BALLOON_FAULT_DUPLICATE);
			return;
		}
		if (!is_owned_ram(b, page)) {
			gn_balloon_fault(b, GN_BALLOON_FAULT_OWNER);
			return;
		}
	} else if (!is_held(b, page, &was_granted)) {
		if (!was_granted)
			gn_balloon_fault(b, GN_BALLOON_FAULT_NOT_HELD);
		return;
	}
	if (!gn_page_set_add(&b->request, page))
		gn_balloon_fault(b, GN_BALLOON_FAULT_DUPLICATE);
}

static uint64_t chain_bytes(const struct gn_balloon *b, unsigned descriptors)
{
	uint64_t bytes = 0;

	for (unsigned i = 0; i < descriptors; i++)
		bytes += b->chain[i].len;
	return bytes;
}

/* A chain cannot name more elements than the guest has pages, not even if it names each once. */
static bool is_too_long(const struct gn_balloon *b, unsigned descriptors, uint64_t bytes_per_page)
{
	return chain_bytes(b, descriptors) > b->pages * bytes_per_page;
}

/* What is too long is not looked at. */
static uint64_t named(const struct gn_balloon *b, unsigned descriptors, uint64_t bytes_per_page)
{
	return is_too_long(b, descriptors, bytes_per_page)
		       ? 0
		       : chain_bytes(b, descriptors) / bytes_per_page;
}

uint64_t gn_balloon_pfns_named(const struct gn_balloon *b, unsigned descriptors)
{
	return named(b, descriptors, sizeof(b->pfns[0]));
}

uint64_t gn_balloon_pages_named(const struct gn_balloon *b, unsigned descriptors)
{
	return named(b, descriptors, GN_PAGE_SIZE);
}

/* ---- Arrays of page numbers (inflate, deflate) ----------------------------------------------- */

static void gather_array(struct gn_balloon *b, unsigned kind, const struct gn_virtq_desc *desc)
{
	uint64_t at = desc->addr, count = desc->len / sizeof(b->pfns[0]), done = 0;

	while (done < count) {
		uint64_t n = count - done;
		int err;

		if (n > GN_BALLOON_PFNS_AT_ONCE)
			n = GN_BALLOON_PFNS_AT_ONCE;
		err = gn_vm_read(b->vm, gpa(at), b->pfns, n * sizeof(b->pfns[0]));
		if (err == -EFAULT) {
			gn_balloon_fault(b, GN_BALLOON_FAULT_ADDRESS);
			break;
		}
		if (err) {
			b->stats.host_failures++;
			break;
		}
		for (uint64_t i = 0; i < n; i++)
			gather_pfn(b, kind, b->pfns[i]);
		at += n * sizeof(b->pfns[0]);
		done += n;
	}
}

void gn_balloon_gather_pfns(struct gn_balloon *b, unsigned kind, unsigned descriptors)
{
	if (is_too_long(b, descriptors, sizeof(b->pfns[0]))) {
		gn_balloon_fault(b, GN_BALLOON_FAULT_LENGTH);
		return;
	}
	for (unsigned i = 0; i < descriptors; i++) {
		const struct gn_virtq_desc *desc = &b->chain[i];

		if (desc->flags & GN_VIRTQ_DESC_F_WRITE)
			gn_balloon_fault(b, GN_BALLOON_FAULT_DIRECTION);
		else if (!desc->len || desc->len % sizeof(b->pfns[0]))
			gn_balloon_fault(b, GN_BALLOON_FAULT_LENGTH);
		else
			gather_array(b, kind, desc);
	}
}

/* ---- Ranges (free page reporting, hinting) --------------------------------------------------- */

bool gn_balloon_range(struct gn_balloon *b, const struct gn_virtq_desc *desc, gfn_t *start,
		      uint64_t *count)
{
	uint64_t mem_bytes = b->pages << GN_PAGE_SHIFT, first, end;

	if (!(desc->flags & GN_VIRTQ_DESC_F_WRITE)) {
		gn_balloon_fault(b, GN_BALLOON_FAULT_DIRECTION);
		return false;
	}
	if (desc->addr > mem_bytes || desc->len > mem_bytes - desc->addr) {
		gn_balloon_fault(b, GN_BALLOON_FAULT_ADDRESS);
		return false;
	}
	first = (desc->addr + GN_PAGE_SIZE - 1) >> GN_PAGE_SHIFT;
	end = (desc->addr + desc->len) >> GN_PAGE_SHIFT;
	if (end <= first) {
		gn_balloon_fault(b, GN_BALLOON_FAULT_LENGTH);
		return false;
	}
	*start = gfn(first);
	*count = end - first;
	return true;
}

/* A frame is zero when it comes back, which is not what a guest with another poison expects. */
static bool wants_poison_back(const struct gn_balloon *b)
{
	return gn_balloon_has(b, GN_BALLOON_F_PAGE_POISON) && b->space.poison_val;
}

void gn_balloon_gather_ranges(struct gn_balloon *b, unsigned descriptors)
{
	uint64_t count;
	gfn_t start;

	if (is_too_long(b, descriptors, GN_PAGE_SIZE)) {
		gn_balloon_fault(b, GN_BALLOON_FAULT_LENGTH);
		return;
	}
	for (unsigned i = 0; i < descriptors; i++) {
		if (!gn_balloon_range(b, &b->chain[i], &start, &count))
			continue;
		if (wants_poison_back(b)) {
			b->stats.withheld_pages += count;
			continue;
		}
		for (uint64_t page = start.v; page < start.v + count; page++)
			if (!is_owned_ram(b, page))
				gn_balloon_fault(b, GN_BALLOON_FAULT_OWNER);
			else if (state_of(b, page) != GN_P2M_UNBACKED)
				gn_page_set_add(&b->request, page);
	}
}

/* ---- The change ------------------------------------------------------------------------------ */

/* The next runs of the request from @at on, as many as one change takes; moves @at behind them. */
static size_t collect(struct gn_balloon *b, uint64_t *at)
{
	uint64_t start, count;
	size_t n = 0;

	while (n < GN_BALLOON_RUNS_AT_ONCE &&
	       gn_page_set_next_run(&b->request, *at, &start, &count)) {
		b->runs[n++] = (struct gn_gfn_run){ gfn(start), count };
		*at = start + count;
	}
	return n;
}

struct change {
	struct gn_balloon *b;
	unsigned kind;
};

/* The page was fit for the request when it was looked at, and is not any more. */
static void leave_out(void *ctx, gfn_t at)
{
	const struct change *change = (const struct change *)ctx;
	struct gn_balloon *b = change->b;

	gn_page_set_remove_run(&b->request, at.v, 1);
	if (change->kind == GN_BALLOON_DEFLATE)
		note_granted(b, at.v);
	else
		gn_balloon_fault(b, GN_BALLOON_FAULT_OWNER);
}

/* What is left of the request in [at, end) was changed. */
static void note_changed(struct gn_balloon *b, unsigned kind, uint64_t at, uint64_t end,
			 uint64_t *sum)
{
	uint64_t start, count, now_ns = gn_balloon_now_ns(b);

	for (; gn_page_set_next_run(&b->request, at, &start, &count) && start < end;
	     at = start + count) {
		if (kind == GN_BALLOON_INFLATE) {
			gn_page_set_add_run(&b->held, start, count);
			gn_reform_note_taken(b, start, count, now_ns);
		} else if (kind == GN_BALLOON_DEFLATE) {
			gn_page_set_remove_run(&b->held, start, count);
			gn_reform_note_left(b, start, count);
		}
		*sum += count;
		b->stats.runs++;
	}
	b->stats.changes++;
}

/* The request is carried out, *sum grows by the pages it was. */
static void change_all(struct gn_balloon *b, unsigned kind, uint64_t *sum)
{
	static const enum gn_p2m_drop_kind drops[GN_BALLOON_QUEUES] = {
		[GN_BALLOON_INFLATE] = GN_P2M_DROP_BALLOON,
		[GN_BALLOON_DEFLATE] = GN_P2M_DROP_UNBALLOON,
		[GN_BALLOON_REPORTING] = GN_P2M_DROP_DISCARD,
	};
	struct change change = { b, kind };
	uint64_t at = 0, next = 0;
	size_t runs;

	for (; (runs = collect(b, &next)); at = next) {
		gn_p2m_drop_allowed(b->vm, b->runs, runs, drops[kind], leave_out, &change);
		note_changed(b, kind, at, next, sum);
	}
}

/* Over the limit of ping-pong. True: go on all the same. */
static bool allow_churn(struct gn_balloon *b)
{
	b->stats.faults[GN_BALLOON_FAULT_CHURN] += b->request.count;
	b->outbox.events |= GN_BALLOON_EVENT_CHURN;
	if (b->config.churn_answer == GN_BALLOON_CHURN_BREAK)
		gn_balloon_break(b, "pages go into the balloon and out of it too fast");
	return b->config.churn_answer == GN_BALLOON_CHURN_COUNT;
}

/* Granted pages left the balloon, too. Those that were found since the last inflation, in one
 * go. */
static void charge_granted(struct gn_balloon *b, uint64_t now_ns)
{
	gn_churn_spend(&b->churn, b->stats.granted_pages - b->charged_pages, now_ns);
	b->charged_pages = b->stats.granted_pages;
}

static void inflate(struct gn_balloon *b)
{
	uint64_t now_ns = gn_balloon_now_ns(b);

	charge_granted(b, now_ns);
	if (!gn_churn_is_over(&b->churn, now_ns) || allow_churn(b))
		change_all(b, GN_BALLOON_INFLATE, &b->stats.inflated_pages);
}

static void deflate(struct gn_balloon *b, uint64_t *sum)
{
	uint64_t before = *sum;

	change_all(b, GN_BALLOON_DEFLATE, sum);
	gn_churn_spend(&b->churn, *sum - before, gn_balloon_now_ns(b));
}

bool gn_balloon_change(struct gn_balloon *b, unsigned kind)
{
	if (!b->request.count)
		return true;
	if (kind == GN_BALLOON_INFLATE)
		inflate(b);
	else if (kind == GN_BALLOON_DEFLATE)
		deflate(b, &b->stats.deflated_pages);
	else
		change_all(b, kind, &b->stats.reported_pages);
	gn_page_set_clear(&b->request);
	return gn_balloon_is_live(b);
}

void gn_balloon_return_all(struct gn_balloon *b)
{
	uint64_t start, count;

	for (uint64_t at = 0; gn_page_set_next_run(&b->held, at, &start, &count);
	     at = start + count)
		gn_page_set_add_run(&b->request, start, count);
	deflate(b, &b->stats.returned_pages);
	gn_page_set_clear(&b->request);
}

void gn_balloon_find_granted(struct gn_balloon *b)
{
	struct gn_balloon_usage usage;
	uint64_t start, count;

	gn_vm_balloon_usage(b->vm, &usage);
	if (usage.touches_granted == b->touches_granted)
		return;
	b->touches_granted = usage.touches_granted;
	for (uint64_t at = 0; gn_page_set_next_run(&b->held, at, &start, &count);
	     at = start + count)
		for (uint64_t page = start; page < start + count; page++) {
			bool was_granted;

			(void)is_held(b, page, &was_granted);
		}
}
