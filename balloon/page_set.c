/* SPDX-License-Identifier: MIT */
/*
 * page_set.c - runs in, runs out; see the header for what a set is for.
 */
#include "page_set.h"

#include <errno.h>
#include <stdlib.h>

#include "mmu/arena.h"

static uint64_t words_of(uint64_t pages)
{
	return (pages + 63) / 64;
}

int gn_page_set_init(struct gn_page_set *set, uint64_t pages)
{
	uint64_t words = words_of(pages);

	*set = (struct gn_page_set){ .pages = pages };
	set->words = gn_alloc_should_fail() ? NULL : calloc(words, sizeof(*set->words));
	set->groups = gn_alloc_should_fail() ? NULL : calloc(words_of(words), sizeof(*set->groups));
	if (set->words && set->groups)
		return 0;
	gn_page_set_fini(set);
	return -ENOMEM;
}

void gn_page_set_fini(struct gn_page_set *set)
{
	free(set->words);
	free(set->groups);
	*set = (struct gn_page_set){ .pages = 0 };
}

/* Bits of word @word that belong to pages [start, end). */
static uint64_t mask_of(uint64_t word, uint64_t start, uint64_t end)
{
	uint64_t mask = ~(uint64_t)0;

	if (start > word * 64)
		mask &= ~(uint64_t)0 << (start - word * 64);
	if (end < (word + 1) * 64)
		mask &= ((uint64_t)1 << (end - word * 64)) - 1;
	return mask;
}

void gn_page_set_add_run(struct gn_page_set *set, uint64_t start, uint64_t count)
{
	uint64_t end = start + count;

	for (uint64_t word = start / 64; word * 64 < end; word++) {
		uint64_t fresh = mask_of(word, start, end) & ~set->words[word];

		set->words[word] |= fresh;
		set->groups[word / 64] |= (uint64_t)1 << (word % 64);
		set->count += (unsigned)__builtin_popcountll(fresh);
	}
}

void gn_page_set_remove_run(struct gn_page_set *set, uint64_t start, uint64_t count)
{
	uint64_t end = start + count;

	for (uint64_t word = start / 64; word * 64 < end; word++) {
		uint64_t gone = mask_of(word, start, end) & set->words[word];

		set->words[word] &= ~gone;
		set->count -= (unsigned)__builtin_popcountll(gone);
		if (!set->words[word])
			set->groups[word / 64] &= ~((uint64_t)1 << (word % 64));
	}
}

void gn_page_set_clear(struct gn_page_set *set)
{
	uint64_t groups = words_of(words_of(set->pages));

	for (uint64_t group = 0; group < groups; group++)
		for (; set->groups[group]; set->groups[group] &= set->groups[group] - 1)
			set->words[group * 64 + (unsigned)__builtin_ctzll(set->groups[group])] = 0;
	set->count = 0;
}

/* The first word at or after @word that is not 0, or the number of words. */
static uint64_t next_word(const struct gn_page_set *set, uint64_t word)
{
	uint64_t words = words_of(set->pages), groups = words_of(words), group = word / 64;
	uint64_t bits;

	if (word >= words)
		return words;
	bits = set->groups[group] & (~(uint64_t)0 << (word % 64));
	while (!bits) {
		if (++group == groups)
			return words;
		bits = set->groups[group];
	}
	return group * 64 + (unsigned)__builtin_ctzll(bits);
}

bool gn_page_set_next_run(const struct gn_page_set *set, uint64_t from, uint64_t *start,
			  uint64_t *count)
{
	uint64_t words = words_of(set->pages), word = from / 64, bits = 0, end;

	if (from >= set->pages)
		return false;
	bits = set->words[word] & (~(uint64_t)0 << (from % 64));
	if (!bits) {
		word = next_word(set, word + 1);
		if (word == words)
			return false;
		bits = set->words[word];
	}
	*start = word * 64 + (unsigned)__builtin_ctzll(bits);
	/* Up to the first page that is no member; what is below the start does not matter. */
	bits = ~(bits | (((uint64_t)1 << (*start % 64)) - 1));
	while (!bits && ++word < words)
		bits = ~set->words[word];
	end = bits ? word * 64 + (unsigned)__builtin_ctzll(bits) : words * 64;
	*count = end - *start;
	return true;
}
