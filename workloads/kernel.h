/* SPDX-License-Identifier: MIT */
/*
 * kernel.h - the guest kernel, as its workloads see it.
 *
 * A small Unix: processes with copy-on-write fork, demand paging, mmap, munmap, mprotect, executables with a
 * page cache, pipes, 2 MiB pages, PCIDs. It makes the page-table edits and the TLB flushes Linux makes on one
 * CPU, which is what tells translation schemes apart.
 *
 * Process model: hosted guest code has one C stack and cannot return twice from a fork. So a workload is
 * a *driver*: sys_fork() gives the child's pid and stays in the parent, and sys_switch(pid) makes another
 * process current; loads and stores then act in its address space, at CPL 3. The driver is the scheduler and
 * the program of every process at once.
 *
 * Each sys_*() is entered at CPL 3 and returns at CPL 3. Results: >= 0, or one of the K_E* values.
 * Out of guest memory, and a touch of memory a process does not have without a handler for it, stop
 * the guest with a text that says so (cpu_panic).
 */
#ifndef GN_WORKLOADS_KERNEL_H
#define GN_WORKLOADS_KERNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cpu.h"

#define K_PAGE	     ((uint64_t)4096)
#define K_LARGE_PAGE ((uint64_t)2 << 20)

enum {
	K_ENOSYS = -38,
	K_EPERM = -1,
	K_ESRCH = -3,
	K_EAGAIN = -11,
	K_ENOMEM = -12,
	K_EFAULT = -14,
	K_EINVAL = -22
};

struct kernel_config {
	uint64_t mem_bytes;	 /* guest RAM, from physical 0; at most 4 GiB is used */
	uint64_t reserved_bytes; /* from 0: image, firmware; 0: 1 MiB */
	uint64_t
		user_start; /* of the image's user part, up to reserved_bytes; 0: no image (hosted) */
	unsigned levels;    /* 4 or 5 */
	bool pcid, smep, smap;
	bool large_pages;    /* anonymous memory in 2 MiB pages where a region has room for one */
	uint64_t balloon_pa; /* a virtio-balloon device's registers, beyond RAM; 0: none */
	uint32_t
		free_poison; /* frames given back are filled with it, and checked when handed out; 0: not */
	bool dirty_ram; /* RAM beyond reserved_bytes holds anything, not zeros */
};

/* The kernel's own state lives in a zeroed block that the boot code provides. */
size_t kernel_state_bytes(void);
void kernel_attach(void *state); /* this thread's guest */

/* Entered at CPL 0 with paging off, or with the loader's tables in force (<gnomon/guest.h>); returns at CPL 3 in
 * process 1, which has an empty address space but for the image's windows. */
void kernel_boot(const struct kernel_config *config);
/* At CPL 3, the guest's last words: after it memory may be compared with that of the same guest elsewhere. */
void kernel_settle(void);

/* ---- Memory ------------------------------------------------------------------------------------------ */
enum { K_PROT_NONE = 0, K_READ = 1, K_WRITE = 2, K_EXEC = 4 };
enum {
	K_MAP_FIXED = 1, /* at the hint, replacing what is there */
	K_MAP_POPULATE =
		2,	 /* fill now, as a first touch of each page would (writable: by a write) */
	K_MAP_SMALL = 4, /* never in 2 MiB pages */
};
/* Anonymous, private, zero-filled. The address (never 0), or 0: no room, bad arguments. */
uint64_t sys_mmap(uint64_t hint, uint64_t bytes, unsigned prot, unsigned flags);
/* Pages [first, ...) of an image or file, private: read through the page cache, copied on write. */
uint64_t sys_mmap_image(int image, uint64_t first_page, uint64_t bytes, unsigned prot);
int sys_munmap(uint64_t va, uint64_t bytes);		      /* holes are fine; page multiples */
int sys_mprotect(uint64_t va, uint64_t bytes, unsigned prot); /* K_ENOMEM: a hole in the range */

/* Of the current process: called at CPL 3 when it touches memory it does not have or may not use.
 * True: the touch is tried again. */
typedef bool kernel_segv_fn(void *ctx, uint64_t va, bool write);
int sys_sigsegv(kernel_segv_fn *fn, void *ctx); /* NULL: none; inherited by fork, not by exec */

/* Any touch outside a region makes a read-write-execute region of the 2 MiB around it (as far as
 * others leave room): for replayed traces, whose mmap calls are not recorded. */
int sys_automap(bool on);

/* ---- Processes ---------------------------------------------------------------------------------------- */
int sys_getpid(void);
int sys_fork(void);	   /* the child's pid; the parent stays current */
int sys_switch(int pid);   /* K_ESRCH */
void sys_exit(int status); /* the current process ends; its parent becomes current */
int sys_wait(
	int pid); /* reap: the status; K_ESRCH, K_EAGAIN while it lives. Parents only: K_EPERM */

/* ---- Executables --------------------------------------------------------------------------------------- */
struct kernel_image {
	uint32_t text_pages, data_pages, bss_pages, stack_pages;
};
/* Where exec puts the parts. */
#define K_TEXT_VA ((uint64_t)0x400000)
struct kernel_layout {
	uint64_t text, data, bss, stack; /* lowest address of each */
};
/* "Write a file": text_pages + data_pages in the page cache, filled at first use. The image's number. */
int sys_image(const struct kernel_image *image, uint64_t seed);
/* Replace the current address space. */
int sys_exec(int image, struct kernel_layout *layout);
/* "Find a file": its pages are read from disk as they are touched, and dropped when memory runs short. A number for
 * sys_mmap_image(); K_EINVAL, K_ENOMEM. Contents as of images. */
int sys_file(uint64_t pages, uint64_t seed);
/* What the first 8 bytes of each 64-byte line of an image's page hold (the rest is zero); every word
 * begins with the byte of a RET, so text can be fetched. */
uint64_t kernel_image_word(uint64_t seed, uint64_t page, unsigned line);

/* ---- Pipes: 64 KiB of kernel buffer, whole 8-byte words ------------------------------------------------- */
int sys_pipe(void);
/* Bytes moved, at most what the pipe holds or has room for; 0: full or empty. K_EFAULT. */
int64_t sys_pipe_write(int pipe, uint64_t va, uint64_t bytes);
int64_t sys_pipe_read(int pipe, uint64_t va, uint64_t bytes);
int sys_pipe_close(int pipe);

/* ---- Time --------------------------------------------------------------------------------------------- */
/* What a timer interrupt would be: the kernel sees to what waits for it. A guest without devices makes no operation
 * here. */
void sys_tick(void);
/* For workloads that make few system calls: now and then, with how far the run is. */
static inline void kernel_tick(uint64_t done, uint64_t total)
{
	cpu_progress(done, total);
	sys_tick();
}

/* ---- For tests and reports: no system call, no guest work ------------------------------------------------ */
struct kernel_stats {
	uint64_t faults, zero_maps, anon_pages, large_pages, file_maps;
	uint64_t cow_copies, cow_reuses, splits, spurious, signals;
	uint64_t forks, execs, exits, switches, switches_noflush;
	uint64_t table_writes, invlpg, full_flushes;
	uint64_t file_reads, refaults, evictions; /* refaults: reads of pages that were evicted */
	uint64_t refaults_close;   /* of pages that a little more memory would have kept */
	uint64_t cache_pages;	   /* of files, resident */
	uint64_t balloon_pages;	   /* in the balloon, blocks included */
	uint64_t balloon_blocks;   /* of them, in blocks of 2 MiB */
	uint64_t balloon_relieved; /* pages taken back for want of memory, in all */
	uint64_t balloon_answers;  /* statistics given */
	uint64_t reported_frames, hinted_frames; /* in all */
	uint64_t frames_free, frames_total;	 /* 4 KiB */
	uint64_t tables;			 /* page-table pages in use */
	uint64_t vmas;				 /* regions in use, all processes */
};
void kernel_stats(struct kernel_stats *out);

#endif
