/* SPDX-License-Identifier: MIT */
/*
 * forming.c - which areas may be formed, and forming them.
 */
#include "forming.h"

#include <errno.h>
#include <stdlib.h>

#include "mmu/arena.h"
#include "mmu/p2m.h"
#include "mmu/vm.h"

#define LOOKS	   64 /* areas looked at in a step, */
#define BLOCKS	   2  /* and formed */
#define DIVISOR	   4
#define CALM_LOOKS 8 /* after the last page of it was merged */

int gn_forming_init(struct gn_forming *f, struct gn_vm *vm, unsigned split_pages)
{
	*f = (struct gn_forming){ .vm = vm, .saved_most = split_pages / DIVISOR };
	if (vm->p2m.backing_level < 2 || vm->p2m.gfn_count < GN_BLOCK_PAGES)
		return 0;
	f->areas = vm->p2m.gfn_count / GN_BLOCK_PAGES;
	f->in = gn_alloc_should_fail() ? NULL : calloc(f->areas, sizeof(f->in[0]));
	return f->in ? 0 : -ENOMEM;
}

void gn_forming_fini(struct gn_forming *f)
{
	free(f->in);
	f->in = NULL;
}

bool gn_forming_note_small(struct gn_forming *f, gfn_t at)
{
	const uint64_t area = at.v / GN_BLOCK_PAGES;
	bool is_news;

	if (!f->in || area >= f->areas)
		return false;
	is_news = !f->in[area];
	f->in[area] = CALM_LOOKS;
	return is_news;
}

/* Pages of the area that forming it would give a frame. */
static unsigned count_saved(const struct gn_forming *f, uint64_t area)
{
	unsigned saved = 0;

	for (uint64_t i = 0; i < GN_BLOCK_PAGES; i++) {
		p2m_word_t w = gn_p2m_get(&f->vm->p2m, gfn(area * GN_BLOCK_PAGES + i));

		saved += gn_p2m_word_state(w) != GN_P2M_PRIVATE;
	}
	return saved;
}

static int form(const struct gn_forming *f, uint64_t area)
{
	for (uint64_t i = 0; i < GN_BLOCK_PAGES; i++) {
		const gfn_t at = gfn(area * GN_BLOCK_PAGES + i);
		p2m_word_t w = gn_p2m_get(&f->vm->p2m, at);
		int err = 0;

		if (gn_p2m_word_state(w) == GN_P2M_SHARED)
			err = gn_p2m_fault_in(f->vm, at, true, &w);
		if (err)
			return err;
	}
	return gn_p2m_collapse(f->vm, gfn(area * GN_BLOCK_PAGES));
}

unsigned gn_forming_step(struct gn_forming *f)
{
	const uint64_t areas = f->in ? f->areas : 0;
	unsigned tried = 0, formed = 0;

	for (uint64_t looks = 0; looks < areas && looks < LOOKS && tried < BLOCKS; looks++) {
		const uint64_t area = f->at;
		int err;

		f->at = (area + 1) % areas;
		f->in[area] -= f->in[area] > 1;
		if (f->in[area] != 1 || count_saved(f, area) > f->saved_most)
			continue;
		err = form(f, area);
		/* -ENOMEM is a matter of time, and so is a pinned frame. */
		f->in[area] = err == -ENOMEM || err == -EBUSY ? CALM_LOOKS : 0;
		formed += !err;
		tried++;
	}
	return formed;
}
