/* SPDX-License-Identifier: MIT */
/*
 * kernel_cache.c - the page cache of files, and how it gives memory back.
 *
 * A file is a number of pages whose contents are a formula (kernel_image_word), so a check needs no second copy and a
 * page that was dropped can be read again. Processes map files as they map images; a touch of a page that is not
 * there is a major fault: a frame, a read of the disk, then a mapping.
 *
 * The index of a file is two levels of tables in guest memory, a word a page, as Linux's xarray: 0, a page never
 * read; the address of a frame; or the shadow of a page that was evicted. A read that finds its shadow is
 * a *refault*: the guest paid for a page it once had. A shadow says how many pages had been evicted by then. If no more
 * than are resident have been evicted since, the page belongs to a working set that does not fit, and the refault is a
 * *close* one: these tell a machine that is squeezed from one that starts up or comes back to what it had long
 * forgotten (Linux's mm/workingset.c: its refault distance, and what it activates).
 *
 * Eviction is the two-handed clock of 4.3BSD over all files, in file order. The front hand takes a page's mappings away;
 * the back hand, some way behind, evicts the page unless it was mapped again meanwhile. So a reference bit is made of
 * faults, as on machines without one (Babaoglu and Joy, SOSP 1981): no decision depends on A bits, which CPUs may set
 * by speculation. Pages are clean, so nothing is written, and a guest with less memory than its files is slower and never
 * wrong.
 *
 * Invariants: a resident page holds one reference of its frame, each mapping one more. Only a page without mappings is
 * evicted, so nothing stale can be read. A frame that a fault is about to map or copy is *pinned*: the allocation in
 * between might otherwise evict it. Reclaim itself allocates nothing.
 *
 * What is read from a file is probably in other guests' caches, too. The machine is told of it, by runs of frames, as long as it
 * listens; it may find equal pages sooner, and makes nothing else of it.
 *
 * Absent: dirty pages, read-ahead, eviction of executables' pages and of index tables.
 */
#include "kernel_state.h"

#define SHADOW	    ((uint64_t)1) /* beside evictions << 1; addresses of frames are even */
#define TOLD_MAX    64u
#define SPREAD_PART 8	/* the front hand leads by this part of the resident pages */
#define LEAD_MOST   256 /* pages it goes ahead of that in one go */

static struct file *file_at(int number)
{
	return &k_now->cache.files[number - K_IMAGE_MAX];
}

bool k_is_file(int number)
{
	return number >= K_IMAGE_MAX && number < K_IMAGE_MAX + K_FILE_MAX && file_at(number)->pages;
}

uint64_t k_backing_pages(int number)
{
	const struct image *i;

	if (k_is_file(number))
		return file_at(number)->pages;
	i = number >= 0 && number < K_IMAGE_MAX ? &k_now->images[number] : NULL;
	return i && i->used ? (uint64_t)i->parts.text_pages + i->parts.data_pages : 0;
}

/* ---- The index ------------------------------------------------------------------------------------------------ */

/* Guest-physical address of the word of @page, or 0: its table is not there. */
static uint64_t slot_of(const struct file *f, uint64_t page)
{
	uint64_t table = cpu_load64(k_va(f->index + page / K_INDEX_SLOTS * 8));

	return table ? table + page % K_INDEX_SLOTS * 8 : 0;
}

static uint64_t slot_make(const struct file *f, uint64_t page)
{
	uint64_t slot = slot_of(f, page);

	if (slot)
		return slot;
	cpu_store64(k_va(f->index + page / K_INDEX_SLOTS * 8), k_gpa(k_frame_alloc_cleared()));
	return slot_of(f, page);
}

static void tell_read(struct cache *c)
{
	uint64_t hint =
		gn_guest_share_hint(k_gpa(c->read_first) / K_PAGE, c->read_count, GN_SHARE_LIKELY);

	c->is_untold = cpu_hypercall(GN_GUEST_HYPERCALL_SHARE_HINT, hint) == (uint64_t)K_ENOSYS;
	c->read_count = 0;
}

static void note_read(struct cache *c, uint32_t frame)
{
	if (c->is_untold)
		return;
	if (c->read_count && (frame != c->read_first + c->read_count || c->read_count == TOLD_MAX))
		tell_read(c);
	if (!c->read_count)
		c->read_first = frame;
	c->read_count++;
}

static uint32_t read_page(const struct file *f, uint64_t page)
{
	uint32_t frame = k_frame_alloc_cleared();

	cpu_compute(K_WORK_DISK_READ);
	for (unsigned line = 0; line < K_PAGE / 64; line++)
		cpu_store64(k_va(k_gpa(frame)) + line * 64, kernel_image_word(f->seed, page, line));
	k_now->stats.file_reads++;
	k_now->stats.cache_pages++;
	note_read(&k_now->cache, frame);
	return frame;
}

static void note_refault(uint64_t shadow)
{
	struct kernel_stats *s = &k_now->stats;

	s->refaults++;
	s->refaults_close += s->evictions - (shadow >> 1) <= s->cache_pages;
}

static uint32_t file_frame(struct file *f, uint64_t page)
{
	uint64_t slot = slot_make(f, page), word = cpu_load64(k_va(slot));
	uint32_t frame;

	if (word && !(word & SHADOW))
		return k_frame_of(word);
	if (word & SHADOW)
		note_refault(word);
	frame = read_page(f, page);
	cpu_store64(k_va(slot), k_gpa(frame));
	f->resident[page / K_INDEX_SLOTS]++;
	return frame;
}

uint32_t k_backing_frame(int number, uint32_t page)
{
	return k_is_file(number) ? file_frame(file_at(number), page) : k_image_frame(number, page);
}

int sys_file(uint64_t pages, uint64_t seed)
{
	struct cache *c = &k_now->cache;
	int result = pages && pages <= K_FILE_PAGES_MAX ? K_ENOMEM : K_EINVAL;

	k_enter(0);
	for (int i = 0; result == K_ENOMEM && i < K_FILE_MAX; i++) {
		if (c->files[i].pages)
			continue;
		c->files[i] = (struct file){ .pages = (uint32_t)pages,
					     .seed = seed,
					     .index = k_gpa(k_frame_alloc_cleared()) };
		result = K_IMAGE_MAX + i;
	}
	k_leave();
	return result;
}

/* ---- Taking mappings away --------------------------------------------------------------------------------------- */

struct resident {
	int number;
	uint32_t page, frame;
	uint64_t slot;
};

/* What the front hand takes away in one go: flushed once, as Linux's batches are (TTU_BATCH_FLUSH). */
struct unmapping {
	struct gather gather;
	struct mm *mm;	    /* where the last entry was found; NULL: nowhere yet */
	uint64_t va;	    /* that it is for */
	struct pt_place at; /* of level 1 */
};

/* Neighbours have their entries in one table: a walk each 2 MiB will do, for none is freed meanwhile. */
static void find_leaf(struct unmapping *u, struct mm *mm, uint64_t va)
{
	bool is_near = u->mm == mm && u->at.level == 1 && (va ^ u->va) < K_LARGE_PAGE;

	if (is_near) {
		u->at.entry += (pt_index(va, 1) - (uint64_t)pt_index(u->va, 1)) * 8;
		u->at.value = pt_get(u->at.entry);
	} else {
		pt_find(mm, va, &u->at);
	}
	u->mm = mm;
	u->va = va;
}

static void unmap_in(struct unmapping *u, struct mm *mm, const struct vma *v, uint32_t page,
		     uint32_t frame)
{
	uint64_t va = v->start + (uint64_t)(page - v->image_page) * K_PAGE;

	find_leaf(u, mm, va);
	if (u->at.level != 1 || !u->at.value || k_frame_of(u->at.value) != frame)
		return; /* not touched yet, or a private copy */
	if (u->gather.mm != mm) {
		k_gather_flush(&u->gather);
		k_gather_init(&u->gather, mm);
	}
	pt_set(u->at.entry, 0);
	if (u->at.value & X86_PTE_P)
		k_gather_range(&u->gather, va, K_PAGE);
	k_gather_frame(&u->gather, frame, false);
}

/* By the regions that show the page, as Linux's walk of a file's interval tree. */
static void unmap_everywhere(struct unmapping *u, const struct resident *r)
{
	for (int pid = 1; pid <= K_PROC_MAX; pid++) {
		struct mm *mm = k_now->procs[pid].mm;

		for (const struct vma *v = mm ? mm->vmas : NULL; v; v = v->next)
			if (v->image == r->number && r->page >= v->image_page &&
			    r->page - v->image_page < (v->end - v->start) / K_PAGE)
				unmap_in(u, mm, v, r->page, r->frame);
	}
}

/* ---- The clock ---------------------------------------------------------------------------------------------------- */

static void hand_next_file(struct clock_hand *hand)
{
	hand->file = (hand->file + 1) % K_FILE_MAX;
	hand->page = 0;
}

/* The next resident page of the table that @hand stands in. False: no more, and the hand is past it. */
static bool find_in_table(const struct file *f, struct clock_hand *hand, struct resident *out)
{
	uint32_t table = hand->page / K_INDEX_SLOTS, end = (table + 1) * K_INDEX_SLOTS;

	if (!f->resident[table])
		hand->page = end;
	else
		out->slot = slot_of(f, hand->page);
	for (; hand->page < end; out->slot += 8) {
		uint64_t word = cpu_load64(k_va(out->slot));

		out->page = hand->page++;
		if (word && !(word & SHADOW)) {
			out->number = K_IMAGE_MAX + (int)hand->file;
			out->frame = k_frame_of(word);
			return true;
		}
	}
	return false;
}

/* The next resident page from @hand on, and past it. There is one: cache_pages is not 0. */
static void hand_advance(struct clock_hand *hand, struct resident *out)
{
	for (;;) {
		const struct file *f = &k_now->cache.files[hand->file];

		if (hand->page >= f->pages)
			hand_next_file(hand);
		else if (find_in_table(f, hand, out))
			return;
	}
}

/* The front hand goes ahead, so that the back hand may go up to @wanted pages; how many. */
static uint64_t lead(struct cache *c, uint64_t wanted)
{
	uint64_t spread = k_now->stats.cache_pages / SPREAD_PART + 1;
	uint64_t most = spread < LEAD_MOST ? spread : LEAD_MOST, go = wanted < most ? wanted : most;
	struct unmapping u = { .mm = NULL };

	for (; c->lead_pages < spread + go - 1; c->lead_pages++) {
		struct resident r;

		hand_advance(&c->front, &r);
		if (r.frame != c->pinned && !k_frame_is_exclusive(r.frame))
			unmap_everywhere(&u, &r);
	}
	k_gather_flush(&u.gather);
	return go;
}

static bool evict(const struct cache *c, const struct resident *r)
{
	if (r->frame == c->pinned || !k_frame_is_exclusive(r->frame))
		return false;
	cpu_compute(K_WORK_EVICT);
	cpu_store64(k_va(r->slot), k_now->stats.evictions << 1 | SHADOW);
	k_frame_put(r->frame);
	file_at(r->number)->resident[r->page / K_INDEX_SLOTS]--;
	k_now->stats.cache_pages--;
	k_now->stats.evictions++;
	return true;
}

/* The process does not run meanwhile: in its second turn the back hand finds every page but a pinned one unmapped. */
uint64_t k_cache_reclaim(uint64_t wanted)
{
	struct cache *c = &k_now->cache;
	uint64_t visits = 2 * k_now->stats.cache_pages + 2, freed = 0, led = 0;

	for (; freed < wanted && visits && k_now->stats.cache_pages; visits--, led--) {
		struct resident r;

		if (!led)
			led = lead(c, wanted - freed);
		hand_advance(&c->back, &r);
		c->lead_pages--;
		freed += evict(c, &r);
	}
	return freed;
}
