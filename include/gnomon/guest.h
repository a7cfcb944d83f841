/* SPDX-License-Identifier: MIT */
/*
 * guest.h - the contract between a guest image and the VMM that runs it on real hardware.
 *
 * The image is two ELF files, a kernel and a user program (the workloads), linked at fixed places of the top 2 GiB
 * of virtual addresses, so that both are reached by 32-bit displacements:
 *
 *     GN_GUEST_KERNEL_VA + pa   supervisor   pa in [0, user_start)
 *     GN_GUEST_USER_VA + pa     user         pa in [user_start, reserved_bytes)
 *
 * Physical memory from 0: the boot page, boot tables, the kernel (its stacks and all its data included), then, from
 * a 2 MiB boundary on, the user program, up to reserved_bytes, a 2 MiB boundary too. Everything above is
 * free RAM: zero, unless the boot page says that it is dirty.
 *
 * At entry: 64-bit mode, CPL 0, RIP at the kernel's ELF entry, CR3 at tables the loader made
 * (the two windows, and all RAM at its physical address), CR0 PE|PG|WP, CR4 PAE, EFER LME|LMA|NXE, interrupts off, no
 * IDT. The guest finds everything else in the boot page.
 *
 * A guest talks to its VMM by OUT to the ports below, at CPL 0 only. Under a scheme that runs the guest's kernel
 * at CPL 3 the instruction traps and the VMM does the same. Shared results lie in the boot page.
 */
#ifndef GNOMON_GUEST_H
#define GNOMON_GUEST_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define GN_GUEST_KERNEL_VA ((uint64_t)0xffffffff80000000)
#define GN_GUEST_USER_VA   ((uint64_t)0xffffffffc0000000)

#define GN_GUEST_BOOT_PA	((uint64_t)0x1000)
#define GN_GUEST_BOOT_TABLES_PA ((uint64_t)0x2000) /* up to the image */
#define GN_GUEST_IMAGE_PA	((uint64_t)0x100000)
#define GN_GUEST_MAGIC		((uint64_t)0x31746f6f62796e67)

/* Ports. 32-bit OUT but for the console, which takes bytes (a 16550's data register). */
enum gn_guest_port {
	GN_GUEST_PORT_CONSOLE = 0x3f8,
	GN_GUEST_PORT_EXIT = 0xf4,  /* ends the run; the value is enum gn_guest_exit */
	GN_GUEST_PORT_CALL = 0x5c0, /* enum gn_guest_call; argument and result in the boot page */
};
enum gn_guest_call {
	GN_GUEST_CALL_MEASURE = 1, /* warm-up is over: exit counters start here */
	GN_GUEST_CALL_TRACE,	   /* fill the trace buffer; call_nr: enum gn_guest_trace */
	GN_GUEST_CALL_HYPERCALL,   /* cpu_hypercall(): call_nr, call_argument */
	GN_GUEST_CALL_TEST,	   /* for guests of tests: call_nr and call_argument are theirs */
	GN_GUEST_CALL_END, /* the measured part is over: exit counters end here, tidying follows */
	GN_GUEST_CALL_REST, /* between phases, if boot->rests: call_result 1 = tick and ask again, 0 = go on */
};

/* Hypercalls (cpu_hypercall()). One that nobody serves gives -ENOSYS. */
enum gn_guest_hypercall {
	/* What sharing may make of a run of gfns: gn_guest_share_hint(). 0 or -errno. */
	GN_GUEST_HYPERCALL_SHARE_HINT = 1,
};
#define GN_GUEST_SHARE_HINT_MAX_PAGES 1024
/* What someone who knows the guest, or it itself, says of its pages. */
enum gn_share_hint {
	GN_SHARE_NONE,
	GN_SHARE_LIKELY, /* its like is probably elsewhere, too (page cache, a clone): looked at after one clean sweep */
	GN_SHARE_NEVER, /* secret, or short-lived: never looked at, left as it is if it is shared already */
};
/* @count: 1..GN_GUEST_SHARE_HINT_MAX_PAGES. */
static inline uint64_t gn_guest_share_hint(uint64_t gfn, uint64_t count, unsigned hint)
{
	return gfn << 12 | (count - 1) << 2 | hint;
}

enum gn_guest_exit {
	GN_GUEST_EXIT_GOOD = 0,
	GN_GUEST_EXIT_FAILED = 1, /* a self-check of the workload; boot->why */
	GN_GUEST_EXIT_PANIC = 2,  /* the guest stopped itself; boot->why */
};

/* A trace is fed to the guest in pieces. The guest names a buffer (trace_pa, trace_bytes) and asks for a piece by
 * call_nr; the VMM fills it and answers in call_result, or with GN_GUEST_TRACE_FAILED and the reason in boot->why.
 * What lies in the buffer is an affair of the two halves of a guest's software, workloads/guest/trace_feed.h. */
enum gn_guest_trace {
	GN_GUEST_TRACE_OPEN, /* begin at the start; result: bytes of the head */
	GN_GUEST_TRACE_NEXT, /* result: records, 0: the end */
};
#define GN_GUEST_TRACE_FAILED (~(uint64_t)0)

/* Operations on translation that a guest makes, hashed in order: equal streams, equal hashes. */
#define GN_GUEST_OP_IGNORED                                                                        \
	((uint64_t)1 << 5) /* of an entry: A, which a CPU may set by mere speculation */
enum gn_guest_op {
	GN_GUEST_OP_TABLE_WRITE, /* a: guest-physical address of the entry, b: its new value, but for A */
	GN_GUEST_OP_CR3,	 /* b: value */
	GN_GUEST_OP_CR,		 /* a: 0, 4, or 8 for EFER; b: value */
	GN_GUEST_OP_INVLPG,  /* a: address */
	GN_GUEST_OP_INVPCID, /* a: type << 12 | pcid, b: address */
	GN_GUEST_OP_FAULT,   /* a: CR2, b: error code */
	GN_GUEST_OPS
};
struct gn_guest_ops {
	uint64_t hash;
	uint64_t count[GN_GUEST_OPS];
};
static inline uint64_t gn_guest_mix(uint64_t x)
{
	x = (x ^ x >> 30) * (uint64_t)0xbf58476d1ce4e5b9;
	x = (x ^ x >> 27) * (uint64_t)0x94d049bb133111eb;
	return x ^ x >> 31;
}
static inline void gn_guest_op_add(struct gn_guest_ops *ops, unsigned kind, uint64_t a, uint64_t b)
{
	ops->hash = gn_guest_mix(ops->hash + kind);
	ops->hash = gn_guest_mix(ops->hash ^ a);
	ops->hash = gn_guest_mix(ops->hash ^ b);
	ops->count[kind]++;
}

/* The boot page. The VMM fills the first part before entry, the guest the second; words only. */
struct gn_guest_boot {
	uint64_t magic;
	uint64_t mem_bytes, user_start, reserved_bytes;
	uint64_t levels; /* 4 or 5: what the loader's tables have */
	/* Flags, 0 or 1. The CPU features are used if set; kernel_work: instructions that stand for kernel code
	 * which is not there (cpu_compute() at CPL 0) are executed. They mean nothing where CPL 0 is emulated. */
	uint64_t pcid, smep, smap, large_pages, kernel_work;
	char workload[128]; /* or "trace" */
	char argument[128]; /* of the workload; "": none */
	uint64_t size, seed;
	uint64_t vcpus;
	uint64_t balloon_pa;  /* of a virtio-mmio balloon device (virtio.h); 0: none */
	uint64_t free_poison; /* 32 bits that free frames are filled with; 0: they are not */
	uint64_t
		dirty_ram; /* flag: RAM beyond reserved_bytes holds anything, and the guest clears what it uses */
	uint64_t
		rests; /* flag: between the phases of its workload the guest asks how long to idle */

	uint64_t trace_pa, trace_bytes; /* the trace buffer */
	uint64_t call_nr, call_argument, call_result;
	int64_t result;	      /* of the workload, valid after GN_GUEST_PORT_EXIT */
	char why[256];	      /* when it failed */
	uint64_t progress_pa; /* where the guest keeps two words, done and total; 0: nowhere */
	uint64_t tsc_measure, tsc_end; /* of the measured part; 0: not reached */
	uint64_t phase,
		operations; /* of a workload in phases: how many ended, and operations in them */
	uint64_t refaults;  /* that a little more memory would have spared; at the last tick */
	struct gn_guest_ops ops; /* since entry */
};

/* A guest image as it is linked into a program. */
struct gn_guest_image {
	const void *kernel, *user; /* ELF files */
	uint64_t kernel_bytes, user_bytes;
	uint64_t user_start,
		reserved_bytes; /* as in the boot page; what the files were linked for */
};
/* The kernel and all workloads. In the library gn_guest, not in the engine. */
extern const struct gn_guest_image gn_guest_image;

#ifdef __cplusplus
}
#endif
#endif
