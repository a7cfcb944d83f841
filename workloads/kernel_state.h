/* SPDX-License-Identifier: MIT */
/*
 * kernel_state.h - the guest kernel's own state and the face its parts show to each other.
 *
 * All state is one struct in fixed tables: no allocator of C memory, so that the same source is a
 * freestanding image. Decisions depend on this state alone, never on time, host addresses or what a
 * TLB holds, hence the same guest makes the same operations under every scheme.
 *
 * Numbers, not pointers, name guest memory: a frame is a guest-physical page number; k_va() gives the address
 * in the direct map (before paging: the physical address itself).
 */
#ifndef GN_WORKLOADS_KERNEL_STATE_H
#define GN_WORKLOADS_KERNEL_STATE_H

#include <gnomon/guest.h>
#include <gnomon/virtio.h>
#include <gnomon/x86.h>

#include "cpu.h"
#include "kernel.h"

#define K_FRAME_MAX	  (1u << 20) /* 4 GiB */
#define K_LARGE_FRAMES	  512u
#define K_PROC_MAX	  1024
#define K_VMA_MAX	  32768
#define K_PIPE_MAX	  32
#define K_PIPE_FRAMES	  16 /* 64 KiB, as Linux */
#define K_IMAGE_MAX	  16
#define K_IMAGE_PAGES_MAX 1024
#define K_FILE_MAX	  16 /* numbered after the images */
#define K_INDEX_SLOTS	  512u
#define K_FILE_PAGES_MAX  (K_INDEX_SLOTS * K_INDEX_SLOTS) /* 1 GiB */
#define K_BALLOON_BUFFERS 8
#define K_PCID_SLOTS	  6 /* as Linux: TLB_NR_DYN_ASIDS */
#define K_GATHER_FRAMES	  256

/*
 * Instructions a part of the kernel stands for beside the page-table work, the copies and the clears, which
 * are really done. Estimates: the instruction counts of the corresponding Linux paths differ by
 * version and mitigations; these give times of the order of LMbench on bare hardware (null call 0.1 us, page
 * fault 0.15-0.5 us, fork 80 us and exec 400 us for a small process). A read of the disk is the time of one: 77 us for
 * 4 KiB (Intel SSD DC P4510, product specification, typical), at 3 GHz and one instruction a cycle.
 */
enum kernel_work {
	K_WORK_SYSCALL = 120,
	K_WORK_FAULT = 600,
	K_WORK_SIGNAL = 1500,
	K_WORK_MMAP = 1000,
	K_WORK_MUNMAP = 1000,
	K_WORK_MPROTECT = 800,
	K_WORK_FORK = 20000,
	K_WORK_EXEC = 60000,
	K_WORK_EXIT = 15000,
	K_WORK_SWITCH = 1200,
	K_WORK_PIPE = 500,
	K_WORK_EVICT = 700,
	K_WORK_BALLOON = 2000,
	K_WORK_DISK_READ = 231000,
};

/* Entries, as Linux makes them: A is born set, D when the page is made for a write. */
#define K_PTE_TABLE_USER   (X86_PTE_P | X86_PTE_W | X86_PTE_U | X86_PTE_A)
#define K_PTE_TABLE_KERNEL (X86_PTE_P | X86_PTE_W | X86_PTE_A)
/* Software bit 9 with P clear: the page is there but PROT_NONE. */
#define K_PTE_NONE ((uint64_t)1 << 9)

struct vma {
	uint64_t start, end;
	uint8_t prot;
	bool small;	     /* no 2 MiB pages */
	int16_t image;	     /* or file; -1: anonymous */
	uint32_t image_page; /* of start; image >= 0 only */
	struct vma *next;    /* rising addresses; or the free list */
};

struct mm {
	uint64_t root;		 /* guest-physical */
	uint64_t context_id;	 /* never reused */
	uint64_t tlb_generation; /* rises when translations were dropped while not loaded */
	bool is_copy;		 /* by fork: entries may have A clear */
	struct vma *vmas;
	struct mm *next_free;
};

enum process_state { PROCESS_FREE, PROCESS_ALIVE, PROCESS_ZOMBIE };
struct process {
	enum process_state state;
	int pid, parent, status;
	bool automap;
	uint32_t task_frame; /* kernel stack and task struct */
	struct mm *mm;
	kernel_segv_fn *segv;
	void *segv_ctx;
};

/* Invariant: refs[f] counts the mappings of frame f plus one for each kernel owner (page cache, table,
 * task, pipe, balloon); 0: free. Frames in [low, high) were never handed out since boot, so they are zero, but for
 * config.dirty_ram; other free ones, from first on, are on a list. */
struct frames {
	uint32_t total, free, first, low, high, free_head, large_head;
	uint64_t freed;			 /* frames given back since boot */
	uint64_t told[K_FRAME_MAX / 64]; /* bit: the host was told that it is free */
	uint16_t refs[K_FRAME_MAX];
	uint32_t next[K_FRAME_MAX];
};

struct image {
	bool used;
	struct kernel_image parts;
	uint64_t seed;
	uint32_t cache[K_IMAGE_PAGES_MAX]; /* frames; 0: not read yet */
};

struct file {
	uint32_t pages; /* 0: no such file */
	uint64_t seed;
	uint64_t index;			  /* guest-physical address of its first table */
	uint16_t resident[K_INDEX_SLOTS]; /* pages, by the table of the index */
};

struct clock_hand {
	unsigned file;
	uint32_t page; /* the next to look at */
};

struct cache {
	struct file files[K_FILE_MAX];
	struct clock_hand front, back;
	uint64_t lead_pages;		 /* of the front hand, in resident pages */
	uint32_t pinned;		 /* a frame that must stay as it is; 0: none */
	uint32_t read_first, read_count; /* frames read and not yet told of */
	bool is_untold;			 /* the machine does not want to be */
};

/* A virtio device by its registers, and a split queue of one. */
struct virtio {
	uint64_t mmio;	   /* guest-physical */
	uint64_t features; /* offered, then agreed */
	bool is_ready;
};

struct virtq {
	uint32_t frame; /* descriptors and both rings; 0: no such queue */
	uint16_t index, size;
	uint16_t available; /* buffers ever offered, modulo 2^16 */
};

struct balloon {
	struct virtio dev;
	struct virtq inflate, deflate, stats, hinting, reporting;
	uint32_t buffers[K_BALLOON_BUFFERS]; /* frames for page numbers */
	uint32_t stats_frame;
	uint32_t small_head, large_head; /* what it holds; linked by frames.next */
	uint32_t held, blocks, target;	 /* held: frames, those of blocks included */
	unsigned events;		 /* since the last poll */
	unsigned retry_polls;		 /* until the next attempt at a target */
	bool is_relieved;      /* gave back for want of memory: waits for another target */
	uint32_t hint_command; /* the last seen */
	uint32_t report_hand;  /* the frame where a round of reports goes on; 0: none under way */
	uint64_t report_freed; /* frames.freed when it began */
	uint64_t minor_faults; /* as told last; sums must not fall */
};

struct pipe {
	bool used;
	uint64_t head, tail; /* bytes ever written, read */
	uint32_t frames[K_PIPE_FRAMES];
};

struct pcid_slot {
	uint64_t context_id, generation;
};

struct kernel {
	struct kernel_config config;
	uint64_t direct_base, user_end, mmap_base, mmap_end;
	struct kernel_stats stats;
	uint32_t zero_frame;
	bool user_copy; /* see k_user_copy(): faults on user addresses at CPL 0 are legal */
	uint64_t spurious_va;
	unsigned spurious_row;
	struct mm init_mm, *loaded, *mm_free;
	uint64_t next_context_id;
	unsigned next_pcid_slot;
	struct pcid_slot pcid[K_PCID_SLOTS];
	struct process *current;
	struct vma *vma_free;
	struct process procs[K_PROC_MAX + 1]; /* by pid; [0] unused */
	struct mm mms[K_PROC_MAX + 2];
	struct vma vmas[K_VMA_MAX];
	struct pipe pipes[K_PIPE_MAX];
	struct image images[K_IMAGE_MAX];
	struct cache cache;
	struct balloon balloon;
	struct frames frames;
};

extern CPU_OWN struct kernel *k_now;

static inline uint64_t k_va(uint64_t gpa)
{
	return k_now->direct_base + gpa;
}
static inline uint64_t k_gpa(uint32_t frame)
{
	return (uint64_t)frame * K_PAGE;
}
static inline uint32_t k_frame_of(uint64_t entry)
{
	return (uint32_t)((entry & X86_PTE_ADDR) / K_PAGE);
}

/* ---- kernel_boot.c ------------------------------------------------------------------------------------- */
void k_enter(uint64_t work); /* CPL 3 to 0, and the entry path's touches of the kernel stack */
void k_leave(void);
void k_user_copy(bool on); /* around loads and stores of user addresses at CPL 0 */
void k_touch_task(const struct process *p);

/* ---- kernel_frames.c ------------------------------------------------------------------------------------ */
void k_frames_boot(uint32_t reserved, uint32_t total);
uint32_t k_frame_alloc(bool *is_zero); /* one reference; may evict files, deflate; no more: panic */
uint32_t k_frame_alloc_cleared(void);
uint32_t k_large_alloc_cleared(void); /* first of 512 aligned frames, or 0: none left */
void k_frame_get(uint32_t frame);     /* no-op on the zero frame, as put */
void k_frame_put(uint32_t frame);
void k_large_get(uint32_t first);
void k_large_put(uint32_t first);
bool k_frame_is_exclusive(uint32_t frame);
bool k_large_is_exclusive(uint32_t first);
/* For the balloon: nothing is evicted and nothing cleared; 0: none free. */
uint32_t k_frame_take(void);
uint32_t k_large_take(void);
void k_frames_gather(void); /* make blocks of what free frames make whole ones */
void k_frames_mark_told(uint32_t first, uint32_t count);
bool k_frame_is_listed(uint32_t frame); /* free, and used before */
void k_frame_clear(uint32_t frame);
void k_frame_copy(uint32_t to, uint32_t from);

/* ---- kernel_pt.c ---------------------------------------------------------------------------------------- */
struct gather;
struct pt_place {
	uint64_t entry; /* guest-physical address of the entry */
	unsigned level;
	uint64_t value; /* a leaf, a PROT_NONE page, or 0 */
};
uint64_t pt_get(uint64_t entry);
void pt_set(uint64_t entry, uint64_t value); /* the one writer of guest entries */
uint64_t pt_table_new(void);
unsigned pt_index(uint64_t va, unsigned level);
/* The entry for @va at @level; tables on the way are made. */
uint64_t pt_slot(struct mm *mm, uint64_t va, unsigned level);
/* Where the walk of @va ends. */
void pt_find(struct mm *mm, uint64_t va, struct pt_place *out);
/* Each entry that is not 0 and maps something in [start, end), in order. */
typedef void pt_visit(void *ctx, uint64_t va, const struct pt_place *at);
void pt_for_each(struct mm *mm, uint64_t start, uint64_t end, pt_visit *visit, void *ctx);
/* If a large leaf straddles @va, break it into 4 KiB ones. Flushes. */
void pt_split_at(struct mm *mm, uint64_t va);
void pt_split(struct mm *mm, uint64_t va, const struct pt_place *large);
/* Unlink tables that lie wholly in [floor, ceiling) and overlap [start, end). */
void pt_free_tables(struct mm *mm, uint64_t start, uint64_t end, uint64_t floor, uint64_t ceiling,
		    struct gather *g);

/* ---- kernel_tlb.c --------------------------------------------------------------------------------------- */
void k_load_mm(struct mm *mm);
void k_flush_range(struct mm *mm, uint64_t start, uint64_t end);
/* Frames on their way out: given back only after the flush. */
struct gather {
	struct mm *mm;
	uint64_t start, end; /* to be flushed; empty: start == end */
	uint32_t count;
	uint32_t frames[K_GATHER_FRAMES];
	bool large[K_GATHER_FRAMES];
};
void k_gather_init(struct gather *g, struct mm *mm);
void k_gather_range(struct gather *g, uint64_t va, uint64_t bytes);
void k_gather_frame(struct gather *g, uint32_t frame, bool large);
void k_gather_flush(struct gather *g);

/* ---- kernel_vma.c ---------------------------------------------------------------------------------------- */
void k_vmas_boot(void);
struct vma *k_vma_find(struct mm *mm, uint64_t va); /* the first that ends above va */
/* A new region; NULL: out of regions. The range must be free. */
struct vma *k_vma_add(struct mm *mm, uint64_t start, uint64_t end, unsigned prot);
struct vma *k_vma_copy_all(const struct mm *from); /* for fork */
bool k_vma_allows(struct mm *mm, uint64_t va, uint64_t bytes, unsigned prot);
void k_unmap(struct mm *mm, uint64_t start, uint64_t end);

/* ---- kernel_fault.c --------------------------------------------------------------------------------------- */
bool k_exception(const struct cpu_exception *e);
void k_fault_in(struct mm *mm, const struct vma *v, uint64_t va, bool write);
void k_populate(struct mm *mm, const struct vma *v);
uint64_t k_rights(unsigned prot); /* U and NX; W is the fault handler's to give */

/* ---- kernel_proc.c ---------------------------------------------------------------------------------------- */
struct mm *k_mm_new(void);
void k_mm_destroy(struct mm *mm); /* not loaded */
void k_procs_boot(void);

/* ---- kernel_exec.c ---------------------------------------------------------------------------------------- */
uint32_t k_image_frame(int image, uint32_t page); /* page cache */

/* ---- kernel_virtq.c ---------------------------------------------------------------------------------------- */
bool k_virtio_find(struct virtio *v, uint64_t mmio, uint32_t id); /* as far as DRIVER */
bool k_virtio_agree(struct virtio *v, uint64_t features);	  /* of those offered */
void k_virtio_start(struct virtio *v);
void k_virtio_give_up(struct virtio *v);
uint32_t k_virtio_read(const struct virtio *v, unsigned offset);
void k_virtio_write(const struct virtio *v, unsigned offset, uint32_t value);
bool k_virtq_make(const struct virtio *v, struct virtq *q, unsigned index);
void k_virtq_describe(const struct virtq *q, unsigned slot, const struct gn_virtq_desc *d);
void k_virtq_offer(struct virtq *q, unsigned head);
void k_virtq_kick(const struct virtio *v, const struct virtq *q); /* publish and notify */
uint16_t k_virtq_used(const struct virtq *q);
/* Until the device used all that was offered. False: it is broken, and given up. */
bool k_virtq_wait(struct virtio *v, const struct virtq *q);

/* ---- kernel_balloon.c, kernel_free.c ------------------------------------------------------------------------- */
void k_balloon_boot(uint64_t mmio);   /* without a device there: nothing */
void k_balloon_poll(unsigned events); /* with a device */
bool k_balloon_relieve(void);	      /* memory came back */
uint32_t k_balloon_hint_command(void);
void k_free_report(void);
void k_free_hint(uint32_t command);

/* ---- kernel_cache.c: files, and what vmas call images: either ------------------------------------------------ */
bool k_is_file(int number);
uint64_t k_backing_pages(int number); /* of an image or file; 0: no such one */
uint32_t k_backing_frame(int number, uint32_t page);
uint64_t k_cache_reclaim(uint64_t wanted); /* frames freed, 0: none can be */

#endif
