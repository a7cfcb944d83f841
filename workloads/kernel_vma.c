/* SPDX-License-Identifier: MIT */
/*
 * kernel_vma.c - regions of an address space: mmap, munmap, mprotect.
 *
 * A space is a list of regions by rising address; neighbours that say the same are one region, so flipping
 * the rights of single pages does not use the table up. Regions are the truth of what a process may touch;
 * page tables are filled from them on demand (kernel_fault.c) and may at any time hold less.
 *
 * munmap and mprotect edit the entries that exist, then flush once for the range. Page tables are given back
 * when the hole around the unmapped range covers them (Linux's free_pgtables).
 */
#include "kernel_state.h"

void k_vmas_boot(void)
{
	struct kernel *k = k_now;

	for (unsigned i = K_VMA_MAX; i-- > 0;) {
		k->vmas[i].next = k->vma_free;
		k->vma_free = &k->vmas[i];
	}
}

static struct vma *vma_alloc(void)
{
	struct vma *v = k_now->vma_free;

	if (!v)
		cpu_panic("guest kernel: out of memory regions");
	k_now->vma_free = v->next;
	k_now->stats.vmas++;
	return v;
}

static void vma_release(struct vma *v)
{
	v->next = k_now->vma_free;
	k_now->vma_free = v;
	k_now->stats.vmas--;
}

struct vma *k_vma_find(struct mm *mm, uint64_t va)
{
	struct vma *v = mm->vmas;

	while (v && v->end <= va)
		v = v->next;
	return v;
}

/* The link that leads to the first region that ends above @va. */
static struct vma **link_to(struct mm *mm, uint64_t va)
{
	struct vma **link = &mm->vmas;

	while (*link && (*link)->end <= va)
		link = &(*link)->next;
	return link;
}

struct vma *k_vma_add(struct mm *mm, uint64_t start, uint64_t end, unsigned prot)
{
	struct vma **link = link_to(mm, start);
	struct vma *v = vma_alloc();

	*v = (struct vma){
		.start = start, .end = end, .prot = (uint8_t)prot, .image = -1, .next = *link
	};
	*link = v;
	return v;
}

struct vma *k_vma_copy_all(const struct mm *from)
{
	struct vma *head = NULL, **link = &head;

	for (const struct vma *v = from->vmas; v; v = v->next) {
		*link = vma_alloc();
		**link = *v;
		link = &(*link)->next;
	}
	*link = NULL;
	return head;
}

static void split_region_at(struct mm *mm, uint64_t va)
{
	struct vma *v = k_vma_find(mm, va), *upper;

	if (!v || v->start >= va)
		return;
	upper = vma_alloc();
	*upper = *v;
	upper->start = va;
	upper->image_page += (uint32_t)((va - v->start) / K_PAGE);
	v->end = va;
	v->next = upper;
}

static bool is_continued_by(const struct vma *a, const struct vma *b)
{
	if (a->end != b->start || a->prot != b->prot || a->small != b->small ||
	    a->image != b->image)
		return false;
	return a->image < 0 || a->image_page + (a->end - a->start) / K_PAGE == b->image_page;
}

/* Make one of neighbours in and around [start, end). */
static void merge_around(struct mm *mm, uint64_t start, uint64_t end)
{
	struct vma *v = k_vma_find(mm, start ? start - 1 : 0);

	while (v && v->next && v->start < end) {
		struct vma *next = v->next;

		if (!is_continued_by(v, next)) {
			v = next;
			continue;
		}
		v->end = next->end;
		v->next = next->next;
		vma_release(next);
	}
}

static bool is_user_range(uint64_t va, uint64_t bytes)
{
	uint64_t end = k_now->user_end - K_PAGE;

	return va && !(va % K_PAGE) && !(bytes % K_PAGE) && bytes && bytes <= end &&
	       va <= end - bytes;
}

bool k_vma_allows(struct mm *mm, uint64_t va, uint64_t bytes, unsigned prot)
{
	uint64_t end = va + bytes;

	if (end < va || end > k_now->user_end)
		return false;
	for (struct vma *v = k_vma_find(mm, va); va < end; v = v->next) {
		if (!v || v->start > va || (v->prot & prot) != prot)
			return false;
		va = v->end;
	}
	return true;
}

/* ---- Unmapping ------------------------------------------------------------------------------------------ */

static void zap(void *ctx, uint64_t va, const struct pt_place *at)
{
	struct gather *g = ctx;
	bool large = at->level == 2;

	pt_set(at->entry, 0);
	if (at->value & X86_PTE_P)
		k_gather_range(g, va, large ? K_LARGE_PAGE : K_PAGE);
	k_gather_frame(g, k_frame_of(at->value), large);
}

void k_unmap(struct mm *mm, uint64_t start, uint64_t end)
{
	struct gather g;
	struct vma **link;
	uint64_t floor = 0;
	bool any = false;

	split_region_at(mm, start);
	split_region_at(mm, end);
	k_gather_init(&g, mm);
	pt_split_at(mm, start);
	pt_split_at(mm, end);
	for (const struct vma *v = mm->vmas; v && v->end <= start; v = v->next)
		floor = v->end;
	link = link_to(mm, start);
	while (*link && (*link)->start < end) {
		struct vma *v = *link;

		pt_for_each(mm, v->start, v->end, zap, &g);
		*link = v->next;
		vma_release(v);
		any = true;
	}
	if (any)
		pt_free_tables(mm, start, end, floor, *link ? (*link)->start : k_now->user_end, &g);
	k_gather_flush(&g);
}

int sys_munmap(uint64_t va, uint64_t bytes)
{
	int result = K_EINVAL;

	k_enter(K_WORK_MUNMAP);
	if (is_user_range(va, bytes)) {
		k_unmap(k_now->current->mm, va, va + bytes);
		result = 0;
	}
	k_leave();
	return result;
}

/* ---- Mapping -------------------------------------------------------------------------------------------- */

/* The lowest hole of @bytes in the mmap area, or 0. */
static uint64_t find_hole(struct mm *mm, uint64_t bytes, uint64_t align)
{
	uint64_t at = k_now->mmap_base;

	for (struct vma *v = k_vma_find(mm, at); v && v->start < at + bytes; v = v->next)
		at = (v->end + align - 1) & ~(align - 1);
	return at + bytes <= k_now->mmap_end ? at : 0;
}

static uint64_t map_at(struct mm *mm, uint64_t hint, uint64_t bytes, unsigned flags, bool large)
{
	if (flags & K_MAP_FIXED) {
		if (!is_user_range(hint, bytes))
			return 0;
		k_unmap(mm, hint, hint + bytes);
		return hint;
	}
	return find_hole(mm, bytes, large ? K_LARGE_PAGE : K_PAGE);
}

static uint64_t map_region(uint64_t hint, uint64_t bytes, unsigned prot, unsigned flags, int image,
			   uint64_t first_page)
{
	struct mm *mm = k_now->current->mm;
	bool large = k_now->config.large_pages && bytes >= K_LARGE_PAGE && image < 0 &&
		     !(flags & K_MAP_SMALL);
	uint64_t va;
	struct vma *v;

	if (!is_user_range(K_PAGE, bytes))
		return 0;
	va = map_at(mm, hint, bytes, flags, large);
	if (!va)
		return 0;
	v = k_vma_add(mm, va, va + bytes, prot);
	v->small = flags & K_MAP_SMALL;
	v->image = (int16_t)image;
	v->image_page = (uint32_t)first_page;
	if ((flags & K_MAP_POPULATE) && prot)
		k_populate(mm, v);
	merge_around(mm, va, va + bytes);
	return va;
}

uint64_t sys_mmap(uint64_t hint, uint64_t bytes, unsigned prot, unsigned flags)
{
	uint64_t va;

	k_enter(K_WORK_MMAP);
	va = map_region(hint, bytes, prot, flags, -1, 0);
	k_leave();
	return va;
}

uint64_t sys_mmap_image(int image, uint64_t first_page, uint64_t bytes, unsigned prot)
{
	uint64_t pages = k_backing_pages(image), va = 0;

	k_enter(K_WORK_MMAP);
	if (first_page <= pages && bytes / K_PAGE <= pages - first_page)
		va = map_region(0, bytes, prot, 0, image, first_page);
	k_leave();
	return va;
}

/* ---- Protection ------------------------------------------------------------------------------------------ */

struct protect {
	struct gather g;
	unsigned prot;
};

static void protect(void *ctx, uint64_t va, const struct pt_place *at)
{
	struct protect *p = ctx;
	bool large = at->level == 2;
	uint32_t frame = k_frame_of(at->value);
	uint64_t value = at->value & ~(X86_PTE_P | X86_PTE_W | X86_PTE_NX | K_PTE_NONE);

	value |= p->prot ? X86_PTE_P | k_rights(p->prot) : K_PTE_NONE;
	/* A page no one else holds need not fault again to become writable. */
	if ((p->prot & K_WRITE) &&
	    (large ? k_large_is_exclusive(frame) : k_frame_is_exclusive(frame)))
		value |= X86_PTE_W;
	if (value == at->value)
		return;
	pt_set(at->entry, value);
	if (at->value & X86_PTE_P)
		k_gather_range(&p->g, va, large ? K_LARGE_PAGE : K_PAGE);
}

int sys_mprotect(uint64_t va, uint64_t bytes, unsigned prot)
{
	struct mm *mm = k_now->current->mm;
	struct protect p = { .prot = prot };
	int result = K_EINVAL;

	k_enter(K_WORK_MPROTECT);
	if (is_user_range(va, bytes))
		result = k_vma_allows(mm, va, bytes, 0) ? 0 : K_ENOMEM;
	if (!result) {
		split_region_at(mm, va);
		split_region_at(mm, va + bytes);
		pt_split_at(mm, va);
		pt_split_at(mm, va + bytes);
		for (struct vma *v = k_vma_find(mm, va); v && v->start < va + bytes; v = v->next)
			v->prot = (uint8_t)prot;
		k_gather_init(&p.g, mm);
		pt_for_each(mm, va, va + bytes, protect, &p);
		k_gather_flush(&p.g);
		merge_around(mm, va, va + bytes);
	}
	k_leave();
	return result;
}
