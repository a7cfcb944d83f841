/* SPDX-License-Identifier: MIT */
/*
 * user.c - the user's part: kernel.h and the user's share of cpu.h as system calls, and main.
 *
 * What cpu.h has for CPL 0 only is absent: a workload that uses it does not link.
 */
#include <gnomon/guest.h>
#include <gnomon/types.h>

#include "cpu.h"
#include "guest/user.h"
#include "kernel.h"
#include "workload.h"

/* user_entry.S */
extern struct guest_user_params guest_user_params;
extern volatile uint64_t guest_user_progress[2];
void guest_user_main(void);

uint64_t guest_user_call(enum guest_call number, struct guest_call_args *args)
{
	uint64_t result = number;
	register uint64_t r8 __asm__("r8") = args->a[4];

	__asm__ volatile("int3"
			 : "+a"(result), "+D"(args->a[0]), "+S"(args->a[1]), "+d"(args->a[2]),
			   "+c"(args->a[3]), "+r"(r8)
			 :
			 : "r9", "r10", "r11", "memory", "cc");
	return result;
}

static uint64_t call4(enum guest_call number, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
	return guest_user_call(number, &(struct guest_call_args){ { a, b, c, d, 0 } });
}

static uint64_t call2(enum guest_call number, uint64_t a, uint64_t b)
{
	return call4(number, a, b, 0, 0);
}

/* ---- kernel.h ----------------------------------------------------------------------------------------------- */

uint64_t sys_mmap(uint64_t hint, uint64_t bytes, unsigned prot, unsigned flags)
{
	return call4(GUEST_CALL_MMAP, hint, bytes, prot, flags);
}

uint64_t sys_mmap_image(int image, uint64_t first_page, uint64_t bytes, unsigned prot)
{
	return call4(GUEST_CALL_MMAP_IMAGE, (uint64_t)image, first_page, bytes, prot);
}

int sys_munmap(uint64_t va, uint64_t bytes)
{
	return (int)call2(GUEST_CALL_MUNMAP, va, bytes);
}

int sys_mprotect(uint64_t va, uint64_t bytes, unsigned prot)
{
	return (int)call4(GUEST_CALL_MPROTECT, va, bytes, prot, 0);
}

int sys_sigsegv(kernel_segv_fn *fn, void *ctx)
{
	return (int)call2(GUEST_CALL_SIGSEGV, (uint64_t)fn, (uint64_t)ctx);
}

int sys_automap(bool on)
{
	return (int)call2(GUEST_CALL_AUTOMAP, on, 0);
}

int sys_getpid(void)
{
	return (int)call2(GUEST_CALL_GETPID, 0, 0);
}

int sys_fork(void)
{
	return (int)call2(GUEST_CALL_FORK, 0, 0);
}

int sys_switch(int pid)
{
	return (int)call2(GUEST_CALL_SWITCH, (uint64_t)pid, 0);
}

void sys_exit(int status)
{
	call2(GUEST_CALL_EXIT, (uint64_t)status, 0);
}

int sys_wait(int pid)
{
	return (int)call2(GUEST_CALL_WAIT, (uint64_t)pid, 0);
}

int sys_image(const struct kernel_image *image, uint64_t seed)
{
	return (int)call4(GUEST_CALL_IMAGE, image->text_pages | (uint64_t)image->data_pages << 32,
			  image->bss_pages | (uint64_t)image->stack_pages << 32, seed, 0);
}

int sys_exec(int image, struct kernel_layout *layout)
{
	struct guest_call_args args = { { (uint64_t)image } };
	int result = (int)guest_user_call(GUEST_CALL_EXEC, &args);

	if (!result)
		*layout = (struct kernel_layout){ args.a[0], args.a[1], args.a[2], args.a[3] };
	return result;
}

int sys_file(uint64_t pages, uint64_t seed)
{
	return (int)call2(GUEST_CALL_FILE, pages, seed);
}

int sys_pipe(void)
{
	return (int)call2(GUEST_CALL_PIPE, 0, 0);
}

int64_t sys_pipe_write(int pipe, uint64_t va, uint64_t bytes)
{
	return (int64_t)call4(GUEST_CALL_PIPE_WRITE, (uint64_t)pipe, va, bytes, 0);
}

int64_t sys_pipe_read(int pipe, uint64_t va, uint64_t bytes)
{
	return (int64_t)call4(GUEST_CALL_PIPE_READ, (uint64_t)pipe, va, bytes, 0);
}

int sys_pipe_close(int pipe)
{
	return (int)call2(GUEST_CALL_PIPE_CLOSE, (uint64_t)pipe, 0);
}

void sys_tick(void)
{
	if (guest_user_params.has_devices)
		call2(GUEST_CALL_TICK, 0, 0);
}

/* ---- cpu.h ------------------------------------------------------------------------------------------------------ */

void cpu_fetch(uint64_t va)
{
	__asm__ volatile("call *%0" : : "r"(va) : "memory", "cc");
}

void cpu_compute(uint64_t count)
{
	uint64_t turns = count / 2; /* of two instructions */

	if (turns)
		__asm__ volatile("1: dec %0; jnz 1b" : "+r"(turns) : : "cc");
}

/* A store that changes nothing. Locked, because its fault must be one of a write everywhere: an emulator may read
 * first for a plain OR. */
static void touch_for_write(uint64_t va)
{
	__asm__ volatile("lock orb $0, (%0)" : : "r"(va) : "memory", "cc");
}

void cpu_refs(const struct cpu_ref *refs, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (refs[i].kind == GN_WRITE)
			touch_for_write(refs[i].va);
		else
			cpu_load8(refs[i].va);
	}
}

void cpu_measure(void)
{
	call2(GUEST_CALL_MEASURE, 0, 0);
}

void cpu_progress(uint64_t done, uint64_t total)
{
	guest_user_progress[1] = total;
	guest_user_progress[0] = done;
}

void cpu_phase(unsigned phase, uint64_t done)
{
	call2(GUEST_CALL_PHASE, phase, done);
}

void cpu_panic(const char *why)
{
	call2(GUEST_CALL_PANIC, (uint64_t)why, 0);
	__builtin_unreachable();
}

/* ---- main -------------------------------------------------------------------------------------------------------- */

void guest_user_main(void)
{
	const struct guest_user_params *from = &guest_user_params;
	const struct workload *workload = workload_find(from->workload);
	const struct workload_params params = { .size = from->size,
						.seed = from->seed,
						.mem_bytes = from->mem_bytes,
						.large_pages = from->large_pages,
						.pcid = from->pcid,
						.levels = (unsigned)from->levels,
						.argument = from->argument };
	const char *why = NULL;
	int result;

	if (!workload)
		cpu_panic("guest: no such workload in the image");
	result = workload->run(&params, &why);
	call2(GUEST_CALL_FINISH, (uint64_t)(int64_t)result, result ? (uint64_t)why : 0);
}
