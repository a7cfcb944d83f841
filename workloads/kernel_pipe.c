/* SPDX-License-Identifier: MIT */
/*
 * kernel_pipe.c - pipes: data between address spaces through a kernel buffer.
 *
 * The kernel copies word by word, its own side in the direct map, the process's side at its user address
 * between STAC and CLAC, so the copy faults user memory in as any touch would. A caller whose buffer is not
 * all its own gets K_EFAULT before the first word.
 */
#include "kernel_state.h"

#define PIPE_BYTES ((uint64_t)K_PIPE_FRAMES * K_PAGE)

int sys_pipe(void)
{
	struct kernel *k = k_now;
	int result = K_EAGAIN;
	bool is_zero;

	k_enter(K_WORK_PIPE);
	for (int i = 0; result < 0 && i < K_PIPE_MAX; i++) {
		struct pipe *p = &k->pipes[i];

		if (p->used)
			continue;
		*p = (struct pipe){ .used = true };
		for (unsigned f = 0; f < K_PIPE_FRAMES; f++)
			p->frames[f] = k_frame_alloc(&is_zero);
		result = i;
	}
	k_leave();
	return result;
}

static struct pipe *pipe_find(int pipe)
{
	struct pipe *p = pipe >= 0 && pipe < K_PIPE_MAX ? &k_now->pipes[pipe] : NULL;

	return p && p->used ? p : NULL;
}

static uint64_t buffer_va(const struct pipe *p, uint64_t position)
{
	uint64_t at = position % PIPE_BYTES;

	return k_va(k_gpa(p->frames[at / K_PAGE])) + at % K_PAGE;
}

static int64_t transfer(int pipe, uint64_t va, uint64_t bytes, bool write)
{
	struct pipe *p = pipe_find(pipe);
	uint64_t room;

	if (!p || va % 8 || bytes % 8)
		return K_EINVAL;
	if (!k_vma_allows(k_now->current->mm, va, bytes, write ? K_READ : K_WRITE))
		return K_EFAULT;
	room = write ? PIPE_BYTES - (p->head - p->tail) : p->head - p->tail;
	if (bytes > room)
		bytes = room;
	k_user_copy(true);
	for (uint64_t i = 0; i < bytes; i += 8) {
		if (write)
			cpu_store64(buffer_va(p, p->head + i), cpu_load64(va + i));
		else
			cpu_store64(va + i, cpu_load64(buffer_va(p, p->tail + i)));
	}
	k_user_copy(false);
	*(write ? &p->head : &p->tail) += bytes;
	return (int64_t)bytes;
}

int64_t sys_pipe_write(int pipe, uint64_t va, uint64_t bytes)
{
	int64_t result;

	k_enter(K_WORK_PIPE);
	result = transfer(pipe, va, bytes, true);
	k_leave();
	return result;
}

int64_t sys_pipe_read(int pipe, uint64_t va, uint64_t bytes)
{
	int64_t result;

	k_enter(K_WORK_PIPE);
	result = transfer(pipe, va, bytes, false);
	k_leave();
	return result;
}

int sys_pipe_close(int pipe)
{
	struct pipe *p = pipe_find(pipe);

	k_enter(K_WORK_PIPE);
	for (unsigned f = 0; p && f < K_PIPE_FRAMES; f++)
		k_frame_put(p->frames[f]);
	if (p)
		p->used = false;
	k_leave();
	return p ? 0 : K_EINVAL;
}
