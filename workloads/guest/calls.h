/* SPDX-License-Identifier: MIT */
/*
 * calls.h - what passes between the image's two halves: system calls, and where things stand in the user's part.
 *
 * A system call is INT3: one byte, RIP after it, a software interrupt on every host and in every mode of
 * running the kernel. Number in rax, arguments in rdi, rsi, rdx, rcx, r8; result in rax, more results in the
 * argument registers. r9 to r11 are lost.
 *
 * The user's part begins with a short head that the kernel knows: code to start at, code to come back from an
 * upcall through, how far the run is, and its parameters, which the kernel writes before the start.
 */
#ifndef GN_WORKLOADS_GUEST_CALLS_H
#define GN_WORKLOADS_GUEST_CALLS_H

/* Offsets in the user's part. */
#define GUEST_USER_ENTRY	0x00
#define GUEST_USER_UPCALL	0x20
#define GUEST_USER_PROGRESS	0x40 /* two words, done and total: the VMM reads them where they are */
#define GUEST_USER_PARAMS	0x50
#define GUEST_USER_PARAMS_BYTES (2 * 128 + 7 * 8)

#define GUEST_CALL_UPCALL_RETURN 0 /* entry.S knows it: the end of an upcall; result in rdi */

#ifndef __ASSEMBLER__
#include <stdint.h>

enum guest_call {
	/* Those of kernel.h. */
	GUEST_CALL_MMAP = GUEST_CALL_UPCALL_RETURN + 1,
	GUEST_CALL_MMAP_IMAGE,
	GUEST_CALL_MUNMAP,
	GUEST_CALL_MPROTECT,
	GUEST_CALL_SIGSEGV,
	GUEST_CALL_AUTOMAP,
	GUEST_CALL_GETPID,
	GUEST_CALL_FORK,
	GUEST_CALL_SWITCH,
	GUEST_CALL_EXIT,
	GUEST_CALL_WAIT,
	GUEST_CALL_IMAGE,
	GUEST_CALL_EXEC,
	GUEST_CALL_FILE,
	GUEST_CALL_PIPE,
	GUEST_CALL_PIPE_WRITE,
	GUEST_CALL_PIPE_READ,
	GUEST_CALL_PIPE_CLOSE,
	GUEST_CALL_TICK,
	/* Those of cpu.h that need the VMM, which is spoken to at CPL 0. */
	GUEST_CALL_MEASURE,
	GUEST_CALL_PHASE,  /* number, operations done */
	GUEST_CALL_PANIC,  /* text */
	GUEST_CALL_TRACE,  /* enum gn_guest_trace, buffer, bytes */
	GUEST_CALL_FINISH, /* result of the workload, text or 0 */
};

/* The argument registers, as the kernel's entry code saved them. */
struct guest_call_args {
	uint64_t a[5];
};

struct guest_user_params {
	char workload[128], argument[128];
	uint64_t size, seed, mem_bytes, levels, pcid, large_pages, has_devices;
};
#endif

#endif
