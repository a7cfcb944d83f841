/* SPDX-License-Identifier: MIT */
/*
 * kernel_proc.c - processes: fork, switch, exit, wait; the making and unmaking of address spaces.
 *
 * fork copies the page tables, not the pages: each writable private page becomes read-only in the parent
 * (then one flush), the child's entry is a copy with A clear, and the frame has one reference more. Regions that
 * map an image unchanged are not copied at all: the child faults them in from the page cache (Linux's
 * vma_needs_copy). That is the burst of page-table stores and write-protections by which shadow schemes are
 * judged.
 *
 * exit first loads the next process's space and then takes the dead one apart: no flush is needed, because
 * nothing can use it any more. Under PCIDs its stale translations stay in the TLB under a tag that is not
 * loaded again without a flush, since context ids are never reused.
 */
#include "kernel_state.h"

struct mm *k_mm_new(void)
{
	struct kernel *k = k_now;
	struct mm *mm = k->mm_free;

	if (!mm)
		cpu_panic("guest kernel: out of address spaces");
	k->mm_free = mm->next_free;
	*mm = (struct mm){ .root = pt_table_new(), .context_id = ++k->next_context_id };
	for (uint64_t entry = 256 * 8; entry < K_PAGE; entry += 8) {
		uint64_t value = pt_get(k->init_mm.root + entry);

		if (value)
			pt_set(mm->root + entry, value);
	}
	return mm;
}

void k_mm_destroy(struct mm *mm)
{
	k_unmap(mm, 0, k_now->user_end);
	k_frame_put((uint32_t)(mm->root / K_PAGE));
	k_now->stats.tables--;
	mm->next_free = k_now->mm_free;
	k_now->mm_free = mm;
}

static struct process *process_new(int parent)
{
	struct kernel *k = k_now;
	bool is_zero;

	for (int pid = 1; pid <= K_PROC_MAX; pid++) {
		struct process *p = &k->procs[pid];

		if (p->state != PROCESS_FREE)
			continue;
		*p = (struct process){ .state = PROCESS_ALIVE, .pid = pid, .parent = parent };
		p->task_frame = k_frame_alloc(&is_zero);
		return p;
	}
	return NULL;
}

static struct process *process_find(int pid)
{
	struct process *p = pid > 0 && pid <= K_PROC_MAX ? &k_now->procs[pid] : NULL;

	return p && p->state != PROCESS_FREE ? p : NULL;
}

void k_procs_boot(void)
{
	struct kernel *k = k_now;

	for (unsigned i = K_PROC_MAX + 2; i-- > 0;) {
		k->mms[i].next_free = k->mm_free;
		k->mm_free = &k->mms[i];
	}
	k->current = process_new(1);
	k->current->mm = k_mm_new();
	k_load_mm(k->current->mm);
	k_touch_task(k->current);
}

/* ---- fork --------------------------------------------------------------------------------------------------- */

struct copy {
	struct gather parent;
	struct mm *child;
	uint64_t region; /* 2 MiB of the child whose level-1 table is .table */
	uint64_t table;
};

static uint64_t child_entry(struct copy *c, uint64_t va, unsigned level)
{
	if (level == 2)
		return pt_slot(c->child, va, 2);
	if (!c->table || va / K_LARGE_PAGE != c->region) {
		c->region = va / K_LARGE_PAGE;
		c->table = pt_slot(c->child, va, 1) & ~(K_PAGE - 1);
	}
	return c->table + pt_index(va, 1) * 8;
}

static void copy_page(void *ctx, uint64_t va, const struct pt_place *at)
{
	struct copy *c = ctx;
	bool large = at->level == 2;
	uint64_t value = at->value;

	if (value & X86_PTE_W) {
		value &= ~X86_PTE_W;
		pt_set(at->entry, value);
		k_gather_range(&c->parent, va, large ? K_LARGE_PAGE : K_PAGE);
	}
	if (large)
		k_large_get(k_frame_of(value));
	else
		k_frame_get(k_frame_of(value));
	pt_set(child_entry(c, va, at->level), value & ~X86_PTE_A);
}

static void copy_mm(struct mm *parent, struct mm *child)
{
	struct copy c = { .child = child };

	child->vmas = k_vma_copy_all(parent);
	child->is_copy = true;
	k_gather_init(&c.parent, parent);
	for (const struct vma *v = parent->vmas; v; v = v->next)
		if (v->image < 0 || (v->prot & K_WRITE))
			pt_for_each(parent, v->start, v->end, copy_page, &c);
	k_gather_flush(&c.parent);
}

int sys_fork(void)
{
	struct kernel *k = k_now;
	struct process *parent = k->current, *child;

	k_enter(K_WORK_FORK);
	child = process_new(parent->pid);
	if (child) {
		child->segv = parent->segv;
		child->segv_ctx = parent->segv_ctx;
		child->automap = parent->automap;
		child->mm = k_mm_new();
		copy_mm(parent->mm, child->mm);
		k->stats.forks++;
	}
	k_leave();
	return child ? child->pid : K_EAGAIN;
}

/* ---- switch, exit, wait --------------------------------------------------------------------------------------- */

static void switch_to(struct process *next)
{
	struct kernel *k = k_now;

	k->current = next;
	k_load_mm(next->mm);
	k_touch_task(next);
	k->stats.switches++;
}

int sys_switch(int pid)
{
	struct process *next = process_find(pid);
	int result = K_ESRCH;

	k_enter(K_WORK_SWITCH);
	if (next && next->state == PROCESS_ALIVE) {
		if (next != k_now->current)
			switch_to(next);
		result = 0;
	}
	k_leave();
	return result;
}

int sys_getpid(void)
{
	int pid;

	k_enter(0);
	pid = k_now->current->pid;
	k_leave();
	return pid;
}

void sys_exit(int status)
{
	struct kernel *k = k_now;
	struct process *dead = k->current;

	k_enter(K_WORK_EXIT);
	if (dead->pid == 1)
		cpu_panic("guest: process 1 exited");
	for (int pid = 1; pid <= K_PROC_MAX; pid++)
		if (k->procs[pid].parent == dead->pid)
			k->procs[pid].parent = 1;
	dead->state = PROCESS_ZOMBIE;
	dead->status = status;
	switch_to(&k->procs[dead->parent]);
	k_mm_destroy(dead->mm);
	dead->mm = NULL;
	k->stats.exits++;
	k_leave();
}

int sys_wait(int pid)
{
	struct process *p = process_find(pid);
	int result = K_ESRCH;

	k_enter(0);
	if (p && p->parent != k_now->current->pid) {
		result = K_EPERM;
	} else if (p && p->state == PROCESS_ALIVE) {
		result = K_EAGAIN;
	} else if (p) {
		result = p->status;
		k_frame_put(p->task_frame);
		*p = (struct process){ .state = PROCESS_FREE };
	}
	k_leave();
	return result;
}

/* ---- The end --------------------------------------------------------------------------------------------------- */

static void set_accessed(void *ctx, uint64_t va, const struct pt_place *at)
{
	(void)ctx;
	(void)va;
	if (!(at->value & X86_PTE_A))
		cpu_store64(k_va(at->entry), at->value | X86_PTE_A);
}

/* A real CPU may set A for an access that it only speculated on (SDM vol. 3A 4.8), so two runs may differ in entries
 * whose A is still clear. They are set: a fork's copies are the only ones that ever have it clear. */
void kernel_settle(void)
{
	struct kernel *k = k_now;

	cpu_enter_kernel();
	for (int pid = 1; pid <= K_PROC_MAX; pid++)
		if (k->procs[pid].mm && k->procs[pid].mm->is_copy)
			pt_for_each(k->procs[pid].mm, 0, k->user_end, set_accessed, NULL);
	cpu_enter_user();
}
