/* SPDX-License-Identifier: MIT */
/*
 * hinting.c - free page hinting: rounds in which the guest tells what a migration need not carry.
 *
 * A round has a number, which the driver sends before its pages and follows with STOP when it has no more. Pages
 * outside the round in force are ignored (5.5.6.5).
 *
 * The pages are told to the embedder and not touched here. A hint is void as soon as the guest writes the page, which it
 * may do before we read the hint; only a dirty log that was begun with the round can tell, and that is the migration's.
 */
#include "device.h"

#include <errno.h>

static bool is_round(uint32_t command)
{
	return command > GN_BALLOON_HINT_DONE;
}

static void take_command(struct gn_balloon *b, const struct gn_virtq_desc *desc)
{
	uint32_t command;

	if (desc->len != sizeof(command)) {
		gn_balloon_fault(b, GN_BALLOON_FAULT_LENGTH);
		return;
	}
	if (gn_vm_read(b->vm, gpa(desc->addr), &command, sizeof(command))) {
		gn_balloon_fault(b, GN_BALLOON_FAULT_ADDRESS);
		return;
	}
	if (is_round(command) && command == b->space.free_page_hint_cmd_id) {
		b->is_hinting = true;
		return;
	}
	if (command != GN_BALLOON_HINT_STOP)
		gn_balloon_fault(b, GN_BALLOON_FAULT_HINT);
	else if (b->is_hinting)
		b->outbox.events |= GN_BALLOON_EVENT_HINTS_END;
	b->is_hinting = false;
}

void gn_balloon_take_hints(struct gn_balloon *b, unsigned descriptors)
{
	for (unsigned i = 0; i < descriptors; i++) {
		const struct gn_virtq_desc *desc = &b->chain[i];
		uint64_t count;
		gfn_t start;

		if (!(desc->flags & GN_VIRTQ_DESC_F_WRITE)) {
			take_command(b, desc);
			continue;
		}
		if (!b->is_hinting) {
			gn_balloon_fault(b, GN_BALLOON_FAULT_HINT);
			continue;
		}
		if (!gn_balloon_range(b, desc, &start, &count))
			continue;
		b->stats.hinted_pages += count;
		if (b->config.hint)
			b->config.hint(b->config.ctx, start, count);
	}
}

static int command(struct gn_balloon *b, bool begins, uint32_t ends_with)
{
	int err = 0;

	gn_balloon_lock(b);
	if (!gn_balloon_is_live(b) || !gn_balloon_has(b, GN_BALLOON_F_FREE_PAGE_HINT)) {
		err = -ENODEV;
	} else {
		/* Never a number again that the driver may still have in hand. */
		if (begins && !is_round(++b->hint_round))
			b->hint_round = GN_BALLOON_HINT_DONE + 1;
		b->space.free_page_hint_cmd_id = begins ? b->hint_round : ends_with;
		b->is_hinting = false;
		gn_balloon_config_changed(b);
	}
	gn_balloon_unlock(b);
	return err;
}

int gn_balloon_hint_start(struct gn_balloon *b)
{
	return command(b, true, 0);
}

int gn_balloon_hint_stop(struct gn_balloon *b)
{
	return command(b, false, GN_BALLOON_HINT_STOP);
}

int gn_balloon_hint_done(struct gn_balloon *b)
{
	return command(b, false, GN_BALLOON_HINT_DONE);
}

void gn_balloon_hint_reset(struct gn_balloon *b)
{
	b->space.free_page_hint_cmd_id = GN_BALLOON_HINT_STOP;
	b->is_hinting = false;
}
