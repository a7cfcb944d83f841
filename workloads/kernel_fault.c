/* SPDX-License-Identifier: MIT */
/*
 * kernel_fault.c - the exception handler: demand paging, copy on write, signals.
 *
 * A touch a region allows is made good: the zero page for a first read, a cleared frame for a first
 * write, a page-cache frame for a file, a private copy when a shared frame is written (or just the right to
 * write, when no one else holds it any more). Where a region has room, anonymous memory comes in 2 MiB
 * pages; a shared one that is written is split first, as Linux does since 5.8. Any other touch is a signal.
 *
 * Present from not-present needs no flush. Each change of a present entry is followed by one, also a mere
 * gain of rights, so no scheme's faults can come twice. Should the entry allow the touch already, the kernel
 * flushes and tries again, a few times: an endless loop here would be a defect of the machine below.
 */
#include "kernel_state.h"

#define SPURIOUS_LIMIT 3

uint64_t k_rights(unsigned prot)
{
	return X86_PTE_U | (prot & K_EXEC ? 0 : X86_PTE_NX);
}

/* A leaf for @v, without the right to write. */
static uint64_t leaf(const struct vma *v, uint32_t frame)
{
	return k_gpa(frame) | X86_PTE_P | X86_PTE_A | k_rights(v->prot);
}

static uint64_t writable_leaf(const struct vma *v, uint32_t frame)
{
	return leaf(v, frame) | X86_PTE_W | X86_PTE_D;
}

static uint32_t private_copy(uint32_t of)
{
	bool is_zero;
	uint32_t frame;

	if (of == k_now->zero_frame)
		return k_frame_alloc_cleared();
	frame = k_frame_alloc(&is_zero);
	k_frame_copy(frame, of);
	k_now->stats.cow_copies++;
	return frame;
}

/* ---- First touch ------------------------------------------------------------------------------------------ */

static bool has_room_for_large(const struct vma *v, uint64_t va)
{
	uint64_t base = va & ~(K_LARGE_PAGE - 1);

	return k_now->config.large_pages && v->image < 0 && !v->small && (v->prot & K_WRITE) &&
	       base >= v->start && base + K_LARGE_PAGE <= v->end;
}

static bool map_large(struct mm *mm, const struct vma *v, uint64_t va)
{
	uint32_t first = k_large_alloc_cleared();

	if (!first)
		return false;
	pt_set(pt_slot(mm, va, 2), writable_leaf(v, first) | X86_PTE_PS);
	k_now->stats.large_pages++;
	return true;
}

static void map_file(struct mm *mm, const struct vma *v, uint64_t va, bool write)
{
	uint32_t page = v->image_page + (uint32_t)((va - v->start) / K_PAGE);
	uint32_t cached = k_backing_frame(v->image, page);
	uint64_t entry;

	k_now->cache.pinned = cached;
	entry = pt_slot(mm, va, 1);
	k_now->stats.file_maps++;
	if (write) {
		pt_set(entry, writable_leaf(v, private_copy(cached)));
	} else {
		k_frame_get(cached);
		pt_set(entry, leaf(v, cached));
	}
	k_now->cache.pinned = 0;
}

static void map_first(struct mm *mm, const struct vma *v, uint64_t va, bool write)
{
	if (v->image >= 0) {
		map_file(mm, v, va, write);
	} else if (write) {
		uint64_t entry = pt_slot(mm, va, 1);

		pt_set(entry, writable_leaf(v, k_frame_alloc_cleared()));
		k_now->stats.anon_pages++;
	} else {
		pt_set(pt_slot(mm, va, 1), leaf(v, k_now->zero_frame));
		k_now->stats.zero_maps++;
	}
}

/* ---- Copy on write ---------------------------------------------------------------------------------------- */

static void break_cow(struct mm *mm, const struct vma *v, uint64_t va, const struct pt_place *at)
{
	uint64_t page = va & ~(K_PAGE - 1);
	uint32_t frame = k_frame_of(at->value);

	if (k_frame_is_exclusive(frame)) {
		k_now->stats.cow_reuses++;
		pt_set(at->entry, at->value | X86_PTE_W | X86_PTE_A | X86_PTE_D);
		k_flush_range(mm, page, page + K_PAGE);
		return;
	}
	k_now->cache.pinned = frame;
	pt_set(at->entry, writable_leaf(v, private_copy(frame)));
	k_now->cache.pinned = 0;
	k_flush_range(mm, page, page + K_PAGE);
	k_frame_put(frame);
}

static void break_cow_large(struct mm *mm, const struct vma *v, uint64_t va, struct pt_place *at)
{
	uint64_t base = va & ~(K_LARGE_PAGE - 1);

	if (k_large_is_exclusive(k_frame_of(at->value))) {
		k_now->stats.cow_reuses++;
		pt_set(at->entry, at->value | X86_PTE_W | X86_PTE_A | X86_PTE_D);
		k_flush_range(mm, base, base + K_LARGE_PAGE);
		return;
	}
	pt_split(mm, va, at);
	pt_find(mm, va, at);
	break_cow(mm, v, va, at);
}

static void spurious(struct mm *mm, uint64_t va)
{
	struct kernel *k = k_now;

	k->stats.spurious++;
	k->spurious_row = va == k->spurious_va ? k->spurious_row + 1 : 1;
	k->spurious_va = va;
	if (k->spurious_row > SPURIOUS_LIMIT)
		cpu_panic("guest kernel: a touch faults on though its page-table entry allows it");
	k_flush_range(mm, va & ~(K_PAGE - 1), (va & ~(K_PAGE - 1)) + K_PAGE);
}

/* ---- The handler -------------------------------------------------------------------------------------------- */

void k_fault_in(struct mm *mm, const struct vma *v, uint64_t va, bool write)
{
	struct pt_place at;

	pt_find(mm, va, &at);
	if (!at.value) {
		if (at.level >= 2 && has_room_for_large(v, va) && map_large(mm, v, va))
			return;
		map_first(mm, v, va, write);
	} else if (write && !(at.value & X86_PTE_W)) {
		if (at.level == 2)
			break_cow_large(mm, v, va, &at);
		else
			break_cow(mm, v, va, &at);
	} else {
		spurious(mm, va);
	}
}

void k_populate(struct mm *mm, const struct vma *v)
{
	bool write = v->prot & K_WRITE;

	for (uint64_t va = v->start; va < v->end;) {
		struct pt_place at;

		pt_find(mm, va, &at);
		if (!at.value)
			k_fault_in(mm, v, va, write);
		va = at.level == 2 && at.value ? (va & ~(K_LARGE_PAGE - 1)) + K_LARGE_PAGE
					       : va + K_PAGE;
	}
}

static bool signal(const struct cpu_exception *e)
{
	struct process *p = k_now->current;

	if (!e->user)
		cpu_panic("guest kernel: a copy from or to user memory faulted");
	if (!p->segv)
		cpu_panic("guest process: segmentation fault and no handler");
	k_now->stats.signals++;
	cpu_compute(K_WORK_SIGNAL);
	if (!cpu_upcall(p->segv, p->segv_ctx, e->cr2, e->error_code & X86_PF_W))
		cpu_panic("guest process: segmentation fault its handler did not mend");
	return true;
}

/* The 2 MiB around @va, less what other regions have of it. */
static struct vma *automap(struct mm *mm, uint64_t va, const struct vma *above)
{
	uint64_t start = va & ~(K_LARGE_PAGE - 1), end = start + K_LARGE_PAGE;

	for (const struct vma *v = mm->vmas; v && v->end <= va; v = v->next)
		if (v->end > start)
			start = v->end;
	if (above && above->start < end)
		end = above->start;
	return k_vma_add(mm, start, end, K_READ | K_WRITE | K_EXEC);
}

static unsigned needed(uint32_t error_code)
{
	if (error_code & X86_PF_W)
		return K_WRITE;
	return error_code & X86_PF_I ? K_EXEC : K_READ;
}

bool k_exception(const struct cpu_exception *e)
{
	struct kernel *k = k_now;
	struct process *p = k->current;
	struct vma *v;

	if (e->vector != X86_VEC_PF)
		cpu_panic("guest: general protection fault");
	if (e->error_code & X86_PF_RSVD)
		cpu_panic("guest kernel: reserved bit set in a page table");
	if (!e->user && (e->cr2 >= k->user_end || !k->user_copy))
		cpu_panic("guest kernel: page fault in the kernel");
	k->stats.faults++;
	cpu_compute(K_WORK_FAULT);
	k_touch_task(p);
	if (e->user && k->balloon.dev.is_ready)
		k_balloon_poll(1);
	if (e->cr2 >= k->user_end)
		return signal(e);
	v = k_vma_find(p->mm, e->cr2);
	if (!v || v->start > e->cr2) {
		if (!p->automap)
			return signal(e);
		v = automap(p->mm, e->cr2, v);
	}
	if (!(v->prot & needed(e->error_code)))
		return signal(e);
	k_fault_in(p->mm, v, e->cr2, e->error_code & X86_PF_W);
	return true;
}

int sys_sigsegv(kernel_segv_fn *fn, void *ctx)
{
	k_enter(0);
	k_now->current->segv = fn;
	k_now->current->segv_ctx = ctx;
	k_leave();
	return 0;
}

int sys_automap(bool on)
{
	k_enter(0);
	k_now->current->automap = on;
	k_leave();
	return 0;
}
