/* SPDX-License-Identifier: MIT */
/*
 * main.c - the freestanding kernel's main: boot, start the user's part, answer its calls, end.
 *
 * The user's part cannot see the boot page; its parameters are written into its head through the direct map.
 * Texts that it names are copied within bounds; no pointer of the user's is followed but inside its window.
 */
#include "kernel_state.h"

#include "guest/ring0.h"

static struct kernel state;

/* User memory of the image, through the direct map, which stays clear of SMAP; NULL address: not in the window. */
static uint64_t window(uint64_t va, uint64_t bytes)
{
	uint64_t pa = va - GN_GUEST_USER_VA;
	uint64_t start = k_now->config.user_start, end = k_now->config.reserved_bytes;

	return pa >= start && pa < end && bytes <= end - pa ? k_va(pa) : 0;
}

static void take_text(uint64_t va)
{
	char *why = guest_boot()->why;
	size_t i = 0;

	for (; i < sizeof(guest_boot()->why) - 1; i++) {
		uint64_t at = window(va + i, 1);

		why[i] = at ? (char)cpu_load8(at) : 0;
		if (!why[i])
			break;
	}
	why[i] = 0;
}

/* ---- The end ------------------------------------------------------------------------------------------------- */

__attribute__((noreturn)) static void panic(uint64_t text)
{
	take_text(text);
	guest_boot()->result = -1;
	guest_exit(GN_GUEST_EXIT_PANIC);
}

__attribute__((noreturn)) static void finish(int64_t result, uint64_t text)
{
	guest_boot()->tsc_end = guest_tsc();
	guest_vmm_call(GN_GUEST_CALL_END);
	guest_boot()->result = result;
	if (text)
		take_text(text);
	kernel_settle();
	guest_exit(result ? GN_GUEST_EXIT_FAILED : GN_GUEST_EXIT_GOOD);
}

/* ---- Calls ------------------------------------------------------------------------------------------------------ */

static uint64_t image_call(const uint64_t *a)
{
	struct kernel_image parts = { .text_pages = (uint32_t)a[0],
				      .data_pages = (uint32_t)(a[0] >> 32),
				      .bss_pages = (uint32_t)a[1],
				      .stack_pages = (uint32_t)(a[1] >> 32) };

	return (uint64_t)sys_image(&parts, a[2]);
}

static uint64_t exec_call(uint64_t *a)
{
	struct kernel_layout layout = { 0 };
	int result = sys_exec((int)a[0], &layout);

	a[0] = layout.text;
	a[1] = layout.data;
	a[2] = layout.bss;
	a[3] = layout.stack;
	return (uint64_t)result;
}

static uint64_t trace_call(const uint64_t *a)
{
	struct gn_guest_boot *boot = guest_boot();

	if (!window(a[1], a[2]))
		return GN_GUEST_TRACE_FAILED;
	boot->trace_pa = a[1] - GN_GUEST_USER_VA;
	boot->trace_bytes = a[2];
	boot->call_nr = a[0];
	return guest_vmm_call(GN_GUEST_CALL_TRACE);
}

static void tick(void)
{
	sys_tick();
	guest_boot()->refaults = k_now->stats.refaults_close;
}

/* A phase ended. If the VMM has it rest, it idles for as long as that says, its timer ticking. */
static void end_phase(uint64_t phase, uint64_t operations)
{
	guest_boot()->phase = phase + 1;
	guest_boot()->operations = operations;
	while (guest_boot()->rests && guest_vmm_call(GN_GUEST_CALL_REST))
		tick();
}

/* Those of cpu.h, and the last. */
static uint64_t service(unsigned number, const uint64_t *a)
{
	switch (number) {
	case GUEST_CALL_MEASURE:
		cpu_measure();
		return 0;
	case GUEST_CALL_PHASE:
		end_phase(a[0], a[1]);
		return 0;
	case GUEST_CALL_TRACE:
		return trace_call(a);
	case GUEST_CALL_PANIC:
		panic(a[0]);
	case GUEST_CALL_FINISH:
		finish((int64_t)a[0], a[1]);
	default:
		cpu_panic("guest kernel: no such system call");
	}
}

uint64_t guest_call(unsigned number, struct guest_call_args *args)
{
	uint64_t *a = args->a;

	switch (number) {
	case GUEST_CALL_MMAP:
		return sys_mmap(a[0], a[1], (unsigned)a[2], (unsigned)a[3]);
	case GUEST_CALL_MMAP_IMAGE:
		return sys_mmap_image((int)a[0], a[1], a[2], (unsigned)a[3]);
	case GUEST_CALL_MUNMAP:
		return (uint64_t)sys_munmap(a[0], a[1]);
	case GUEST_CALL_MPROTECT:
		return (uint64_t)sys_mprotect(a[0], a[1], (unsigned)a[2]);
	case GUEST_CALL_SIGSEGV:
		return (uint64_t)sys_sigsegv((kernel_segv_fn *)a[0], (void *)a[1]);
	case GUEST_CALL_AUTOMAP:
		return (uint64_t)sys_automap(a[0]);
	case GUEST_CALL_GETPID:
		return (uint64_t)sys_getpid();
	case GUEST_CALL_FORK:
		return (uint64_t)sys_fork();
	case GUEST_CALL_SWITCH:
		return (uint64_t)sys_switch((int)a[0]);
	case GUEST_CALL_EXIT:
		sys_exit((int)a[0]);
		return 0;
	case GUEST_CALL_WAIT:
		return (uint64_t)sys_wait((int)a[0]);
	case GUEST_CALL_IMAGE:
		return image_call(a);
	case GUEST_CALL_EXEC:
		return exec_call(a);
	case GUEST_CALL_FILE:
		return (uint64_t)sys_file(a[0], a[1]);
	case GUEST_CALL_PIPE:
		return (uint64_t)sys_pipe();
	case GUEST_CALL_PIPE_WRITE:
		return (uint64_t)sys_pipe_write((int)a[0], a[1], a[2]);
	case GUEST_CALL_PIPE_READ:
		return (uint64_t)sys_pipe_read((int)a[0], a[1], a[2]);
	case GUEST_CALL_PIPE_CLOSE:
		return (uint64_t)sys_pipe_close((int)a[0]);
	case GUEST_CALL_TICK:
		tick();
		return 0;
	default:
		return service(number, a);
	}
}

/* ---- The beginning -------------------------------------------------------------------------------------------------- */

_Static_assert(sizeof(struct guest_user_params) == GUEST_USER_PARAMS_BYTES, "the head has room");

static void write_params(struct gn_guest_boot *boot)
{
	struct guest_user_params params = { .size = boot->size,
					    .seed = boot->seed,
					    .mem_bytes = boot->mem_bytes,
					    .levels = boot->levels,
					    .pcid = boot->pcid,
					    .large_pages = boot->large_pages,
					    .has_devices = k_now->balloon.dev.is_ready };
	const uint8_t *from = (const uint8_t *)&params;
	const size_t text = sizeof(params.workload) - 1;
	uint64_t to = k_va(boot->user_start + GUEST_USER_PARAMS);

	for (size_t i = 0; i < text; i++) {
		params.workload[i] = boot->workload[i];
		params.argument[i] = boot->argument[i];
	}
	params.workload[text] = params.argument[text] = 0;
	for (size_t i = 0; i < sizeof(params); i++)
		cpu_store8(to + i, from[i]);
	boot->progress_pa = boot->user_start + GUEST_USER_PROGRESS;
}

void guest_kernel_main(void)
{
	struct gn_guest_boot *boot = guest_boot();
	const struct kernel_config config = { .mem_bytes = boot->mem_bytes,
					      .user_start = boot->user_start,
					      .reserved_bytes = boot->reserved_bytes,
					      .levels = (unsigned)boot->levels,
					      .pcid = boot->pcid,
					      .smep = boot->smep,
					      .smap = boot->smap,
					      .large_pages = boot->large_pages,
					      .balloon_pa = boot->balloon_pa,
					      .free_poison = (uint32_t)boot->free_poison,
					      .dirty_ram = boot->dirty_ram };

	if (boot->magic != GN_GUEST_MAGIC || !boot->user_start)
		cpu_panic("guest kernel: the boot page is not filled in");
	kernel_attach(&state);
	kernel_boot(&config);
	guest_user_base = GN_GUEST_USER_VA + boot->user_start;
	write_params(boot);
	cpu_measure();
	guest_start_user();
}
