/* SPDX-License-Identifier: MIT */
/*
 * copies.c - a VM over a template: which of its pages are copies, and which of those need not be.
 *
 * Such a VM shares by being what it is: a page that was never written is the template's, as it is in all others over it. So there is
 * nothing to be found but copies that hold what the template holds in the same place, and nothing to be hashed: a page is compared with the
 * one page it can be equal to, and most copies differ from it in their first words. Nobody else is looked at.
 *
 * The kernel tells of each page whether it is a copy, eight bytes a page; that is asked only of areas where some page waits to be looked at.
 *
 *     AGING --not a copy--> SHARED        AGING --differs--> OFFERED        AGING --equal--> dropped: SHARED
 *
 * OFFERED means what it means elsewhere: looked at, and not to be looked at again before it is written.
 */
#include "mmu/vm.h"
#include "scanner_impl.h"

#define PAGE_WORDS (GN_PAGE_SIZE / sizeof(uint64_t))
#define LINE_WORDS 8

/* While the guest writes: a guess, as all that is seen here. Memory is what is waited for, so the lines ahead of both are fetched. */
__attribute__((no_sanitize("thread"))) static bool seems_equal(const uint64_t *words,
							       const uint64_t *template)
{
	uint64_t any = 0;

	for (unsigned at = 0; at < PAGE_WORDS && !any; at += LINE_WORDS) {
		__builtin_prefetch(&words[at + 4 * LINE_WORDS]);
		__builtin_prefetch(&template[at + 4 * LINE_WORDS]);
		for (unsigned i = at; i < at + LINE_WORDS; i++)
			any |= __atomic_load_n(&words[i], __ATOMIC_RELAXED) ^ template[i];
	}
	return !any;
}

static void look_at(struct gn_scanner *s, uint64_t page, p2m_word_t w)
{
	const uint64_t *words = gn_p2m_pointer_of(s->vm, w, gfn_to_gpa(gfn(page)));

	/* The VMM has a mind about it, and nobody tells when it has not any more: it waits. */
	if (gn_p2m_word_state(w) != GN_P2M_PRIVATE)
		return;
	s->pages_hashed++;
	if (seems_equal(words, gn_frames_template_of(s->vm->frames, gn_p2m_word_pfn(w))))
		gn_known_note(s, page);
	else
		gn_scanner_set_state(s, page, GN_PAGE_OFFERED);
}

/* The pages of a word of bits, one read section. */
static void look_at_word(struct gn_scanner *s, uint64_t first, uint64_t bits, uint64_t copies)
{
	gn_rcu_read_lock();
	for (; bits; bits &= bits - 1) {
		const unsigned bit = (unsigned)__builtin_ctzll(bits);
		const uint64_t page = first + bit;
		const p2m_word_t w = gn_p2m_get(&s->vm->p2m, gfn(page));

		if (!gn_p2m_word_has_frame(w))
			gn_scanner_set_state(s, page, GN_PAGE_EMPTY);
		else if (!(copies >> bit & 1))
			gn_scanner_set_state(s, page, GN_PAGE_SHARED);
		else if (gn_scanner_is_ripe(s, &s->pages[page]) || s->by_hash)
			look_at(s, page, w);
	}
	gn_rcu_read_unlock();
}

unsigned gn_copies_look_at_area(struct gn_scanner *s, uint64_t index)
{
	const uint64_t first = index * GN_AREA_PAGES, rest = s->page_count - first;
	const uint64_t pages = rest < GN_AREA_PAGES ? rest : GN_AREA_PAGES;
	uint64_t copies[GN_AREA_WORDS] = { 0 };
	unsigned words = 0;

	/* Without an answer they wait for the next sweep. */
	if (gn_frames_find_copies(s->vm->frames, pfn(first), pages, copies))
		return 1;
	for (unsigned i = 0; i < GN_AREA_WORDS; i++) {
		const uint64_t bits = gn_scanner_waiting(s, first / 64 + i);

		if (!bits)
			continue;
		look_at_word(s, first + i * 64, bits, copies[i]);
		gn_known_drop_if_many(s);
		words++;
	}
	return words;
}
