/* SPDX-License-Identifier: MIT */
/*
 * look.c - pages that have been clean for long enough are looked at: zeros, or hashed and offered.
 *
 * Pages are read in place, with the guest running: inside RCU read sections of up to 64 pages, so that no frame is
 * reused meanwhile. Nothing is made of what is read but candidates, for whoever merges, or takes zeros, looks again with the
 * writers held off. So a page that changes under our eyes is nobody's harm.
 *
 * Most pages say in their first words that they are not zeros, and those words are in the cache when the hash wants them. While one page is
 * hashed the next one is fetched: the processor's own prefetching ends at a page's end, and knows neighbours only. It is fetched as what is
 * read once (PREFETCHNTA), so that a scan does not drive out of the caches what the guests have there.
 *
 * A large block is looked at as a whole or not at all, for it is split or not.
 */
#include <string.h>

#include "mmu/vm.h"
#include "scanner_impl.h"

#define PAGE_WORDS (GN_PAGE_SIZE / sizeof(uint64_t))
#define LINE_WORDS 8
/* What a step does, at most: areas where nothing waits cost a few words of bits each. */
#define AREAS_A_STEP 2048
#define WORDS_A_STEP 16 /* of bits with pages that wait */

/* ---- Zeros --------------------------------------------------------------------------------------- */

__attribute__((no_sanitize("thread"))) static bool is_zero_line(const uint64_t *line)
{
	uint64_t any = 0;

	for (unsigned i = 0; i < LINE_WORDS; i++)
		any |= __atomic_load_n(&line[i], __ATOMIC_RELAXED);
	return !any;
}

/* Zeros seldom come alone, and are read again under protection: the page behind is fetched meanwhile, whether it is looked at or not. */
static bool seems_zero(const uint64_t *words)
{
	const uint64_t *end = words + PAGE_WORDS;

	for (; words < end && is_zero_line(words); words += LINE_WORDS)
		__builtin_prefetch(words + PAGE_WORDS);
	return words == end;
}

/* Hash the page; meanwhile @next (may be NULL) is fetched. */
static struct gn_tag hash(struct gn_scanner *s, const uint64_t *words, const uint64_t *next)
{
	for (unsigned at = 0; next && at < PAGE_WORDS; at += LINE_WORDS)
		__builtin_prefetch(&next[at], 0, 0);
	s->pages_hashed++;
	return gn_hasher_tag(s->config.hasher, words);
}

/* ---- Offers -------------------------------------------------------------------------------------- */

static void deliver(struct gn_scanner *s, bool is_block)
{
	size_t count = s->offer_count;

	s->offer_count = 0;
	if (count)
		s->config.offers(s->config.ctx, s, s->offers, count, is_block);
}

static void offer(struct gn_scanner *s, uint64_t page, struct gn_tag tag, bool is_shared)
{
	s->offers[s->offer_count++] = (struct gn_offer){ .at = gfn(page),
							 .tag = tag,
							 .is_careful = s->pages[page].is_careful,
							 .is_shared = is_shared };
	s->pages[page].check = tag.check;
	gn_scanner_set_state(s, page, GN_PAGE_OFFERED);
}

/* ---- Small pages --------------------------------------------------------------------------------- */

/* A page to look at, found by its word. */
struct sight {
	uint64_t page;
	const uint64_t *words; /* NULL: it is not to be hashed */
	bool is_shared;
};

/* What it takes to hash it. */
static struct sight see(struct gn_scanner *s, uint64_t page)
{
	const p2m_word_t w = gn_p2m_get(&s->vm->p2m, gfn(page));
	struct sight sight = { .page = page, .is_shared = gn_p2m_word_state(w) == GN_P2M_SHARED };

	if (!gn_p2m_word_has_frame(w)) {
		gn_scanner_set_state(s, page, GN_PAGE_EMPTY);
		return sight;
	}
	if (gn_p2m_word_state(w) == GN_P2M_READONLY || gn_p2m_word_level(w) > 1)
		return sight;
	/* It was to be offered again, and has been used since: the next sweep finds that. */
	if (s->config.quiet && s->pages[page].age == GN_AGE_MAX && !sight.is_shared)
		return sight;
	sight.words = gn_p2m_pointer_of(s->vm, w, gfn_to_gpa(gfn(page)));
	return sight;
}

/* No harvest tells whether it was written: it is clean if its hash is what it was. */
static bool is_same_hash(const struct gn_scanner *s, struct gn_page *p, struct gn_tag tag)
{
	bool same = p->check == tag.check;

	if (!same)
		p->age = 0;
	p->check = tag.check;
	return same && p->age >= s->config.settle_sweeps;
}

static void look_at(struct gn_scanner *s, const struct sight *sight, const uint64_t *next)
{
	struct gn_tag tag;

	if (is_zero_line(sight->words) && seems_zero(sight->words)) {
		gn_known_note(s, sight->page);
		return;
	}
	tag = hash(s, sight->words, next);
	if (!s->by_hash || is_same_hash(s, &s->pages[sight->page], tag))
		offer(s, sight->page, tag, sight->is_shared);
}

/* The pages of a word of bits, one read section. */
static void look_at_word(struct gn_scanner *s, uint64_t first, uint64_t bits)
{
	struct sight sights[64 + 1];
	unsigned count = 0;

	gn_rcu_read_lock();
	for (; bits; bits &= bits - 1) {
		uint64_t page = first + (unsigned)__builtin_ctzll(bits);

		if (!gn_scanner_is_ripe(s, &s->pages[page]) && !s->by_hash)
			continue;
		sights[count] = see(s, page);
		count += sights[count].words != NULL;
	}
	for (unsigned i = 0; i < count; i++)
		look_at(s, &sights[i], i + 1 < count ? sights[i + 1].words : NULL);
	gn_rcu_read_unlock();
}

/* ---- Blocks -------------------------------------------------------------------------------------- */

/* The 512 pages of an area are one block, and it is cold: each of its pages is. */
static bool is_cold_block(struct gn_scanner *s, uint64_t first)
{
	bool is_cold = !s->by_hash;

	for (uint64_t i = first; i < first + GN_AREA_PAGES; i++) {
		struct gn_page *p = &s->pages[i];

		is_cold &= p->hint != GN_SHARE_NEVER;
		if (gn_scanner_is_todo(s, i))
			is_cold &= gn_scanner_is_ripe(s, p);
	}
	for (uint64_t word = first / 64; word < first / 64 + GN_AREA_WORDS; word++)
		is_cold &= !s->dirty[word];
	return is_cold;
}

static void look_at_block_word(struct gn_scanner *s, uint64_t first)
{
	gn_rcu_read_lock();
	for (uint64_t page = first; page < first + 64; page++) {
		p2m_word_t w = gn_p2m_get(&s->vm->p2m, gfn(page));
		const uint64_t *words, *next;

		if (gn_p2m_word_level(w) != 2) /* it is just being split */
			continue;
		words = gn_p2m_pointer_of(s->vm, w, gfn_to_gpa(gfn(page)));
		next = page + 1 < first + 64 ? words + PAGE_WORDS : NULL;
		if (is_zero_line(words) && seems_zero(words)) {
			offer(s, page, (struct gn_tag){ 0 }, false);
			s->offers[s->offer_count - 1].is_zero = true;
			gn_scanner_set_state(s, page, GN_PAGE_EMPTY);
			continue;
		}
		offer(s, page, hash(s, words, next), false);
	}
	gn_rcu_read_unlock();
}

static size_t count_zeroes(const struct gn_scanner *s)
{
	size_t zeroes = 0;

	for (size_t i = 0; i < s->offer_count; i++)
		zeroes += s->offers[i].is_zero;
	return zeroes;
}

/* What was gathered is not offered: the pages wait as before. */
static void withdraw_offers(struct gn_scanner *s)
{
	for (size_t i = 0; i < s->offer_count; i++)
		gn_scanner_set_state(s, s->offers[i].at.v, GN_PAGE_AGING);
	s->offer_count = 0;
}

static void look_at_block(struct gn_scanner *s, uint64_t first)
{
	if (!is_cold_block(s, first))
		return;
	deliver(s, false);
	for (uint64_t page = first; page < first + GN_AREA_PAGES; page += 64)
		look_at_block_word(s, page);
	if (s->offer_count < GN_AREA_PAGES) { /* it was split just now */
		withdraw_offers(s);
	} else if (count_zeroes(s) == GN_AREA_PAGES) { /* it goes as a whole */
		withdraw_offers(s);
		for (uint64_t page = first; page < first + GN_AREA_PAGES; page++)
			gn_known_note(s, page);
	} else {
		deliver(s, true);
	}
}

/* ---- Steps --------------------------------------------------------------------------------------- */

static bool any_waits(const struct gn_scanner *s, uint64_t first_word)
{
	uint64_t any = 0;

	for (uint64_t word = first_word; word < first_word + GN_AREA_WORDS; word++)
		any |= gn_scanner_waiting(s, word);
	return any != 0;
}

/* Returns how many words of bits had pages that waited. */
static unsigned look_at_area(struct gn_scanner *s, uint64_t index)
{
	const uint64_t first_word = index * GN_AREA_WORDS;
	unsigned words = 0;

	if (!s->areas[index].is_due || !any_waits(s, first_word))
		return 0;
	gn_known_move_window(s, index * GN_AREA_PAGES);
	if (gn_vm_is_over_template(s->vm))
		return gn_copies_look_at_area(s, index);
	if (gn_p2m_word_level(gn_p2m_get(&s->vm->p2m, gfn(index * GN_AREA_PAGES))) > 1) {
		look_at_block(s, index * GN_AREA_PAGES);
		return GN_AREA_WORDS;
	}
	for (uint64_t word = first_word; word < first_word + GN_AREA_WORDS; word++) {
		uint64_t bits = gn_scanner_waiting(s, word);

		if (!bits)
			continue;
		if (s->offer_count + 64 > GN_SCANNER_BATCH)
			deliver(s, false);
		look_at_word(s, word * 64, bits);
		gn_known_drop_if_many(s);
		words++;
	}
	return words;
}

bool gn_scanner_step(struct gn_scanner *scanner)
{
	unsigned words = 0;

	for (unsigned i = 0; i < AREAS_A_STEP && words < WORDS_A_STEP && scanner->to_look; i++) {
		words += look_at_area(scanner, scanner->cursor);
		if (++scanner->cursor == scanner->area_count)
			scanner->cursor = 0;
		if (!--scanner->to_look)
			scanner->full_scans++;
	}
	deliver(scanner, false);
	if (!scanner->to_look)
		gn_known_drop(scanner);
	return !scanner->to_look;
}
