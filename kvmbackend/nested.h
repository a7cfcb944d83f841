/* SPDX-License-Identifier: MIT */
/*
 * nested.h - what the files of nested mode share: nested.c (the mode), nested_state.c (registers), nested_trap.c (what a kick
 * must not lose), view.c (the mapping), view_template.c (when there is none), fill.c (demand population), layout.c (slots, dirty log), supplement.c (instructions
 * KVM's emulator lacks).
 *
 * How the ept room's decisions reach the hardware. KVM's guest-physical space is the guest's; memory slots lead to the
 * *view*, a second mapping of the frame pool laid out by gfn. What the view maps, the guest has; nothing else. So
 *
 *     a page is in the view  =>  the ept room has a leaf for it, of that frame and at least these rights.
 *
 * The view starts out empty under a userfaultfd. A touch blocks the vCPU in the kernel; the filler asks the engine
 * on its behalf (gn_vcpu_fault), reads the leaf the ept room made, and puts that page in. A change of the p2m takes pages
 * out (range_changing), and the kernel's notifiers see to it that no vCPU uses them any more when that call returns.
 *
 * Over a template the view is the pool, and always whole: there a change holds stores off, and no more (view_template.c).
 *
 * Locks, outermost first: engine's vm lock, slots_lock; fill_lock, engine's p2m lock, view_lock, queue_lock; kvm->lock.
 * The filler takes the p2m lock, so nobody may wait for a vCPU to leave the guest while holding it: that vCPU may be
 * waiting for the filler.
 */
#ifndef GN_KVM_NESTED_H
#define GN_KVM_NESTED_H

#include <time.h>

#include "machine.h"

/* A touch that must not be granted: told to the vCPU, which is on its way out. */
struct gn_kvm_denial {
	gfn_t at;
	bool is_write;
	int err;	 /* 0: the p2m forbids it */
	const char *why; /* static text */
};

/* Of a vCPU outside the guest: has it raised a trap that KVM has not delivered, or is it behind an STI? See nested_trap.c. */
enum gn_kvm_trap_state { GN_TRAP_NONE, GN_TRAP_UNKNOWN, GN_TRAP_OWED };

struct gn_kvm_nested_cpu {
	enum gn_kvm_trap_state trap; /* (v) */
	bool has_alarm;		     /* (v) alarm rings until the guest is left */
	timer_t alarm;		     /* (v) */
	unsigned
		taken_bytes; /* (v) of an INT n of CPL 0 that is over and KVM's to deliver, see supplement.c */
	unsigned moments;     /* (v) for which the guest ran on, in a row */
	struct kvm_regs seen; /* (v) when it was looked at before */
	unsigned stays;	      /* (v) how often, in a row, they were the same */
	bool needs_completion; /* (v) an access was answered, KVM finishes the instruction at its next entry */
	unsigned bad_address_count;  /* (v) KVM_RUN said EFAULT and nobody knows why, in a row */
	_Atomic(bool) is_denied;     /* (a) denial is valid */
	struct gn_kvm_denial denial; /* [view_lock] */
	struct kvm_dirty_gfn *ring;  /* (c) NULL: dirty bitmap */
	uint32_t ring_next;	     /* [slots_lock] */
};

#define GN_KVM_QUEUE 128

#define GN_KVM_HELD_RANGES 128 /* as many as a change of sharing tells */

struct gn_kvm_nested {
	struct gn_kvm *kvm; /* (c) */
	bool uffd_wp; /* (c) pages can be put in write-protected; if not, none that is SHARED is */
	bool huge;    /* (c) 2 MiB blocks are worth a try */
	_Atomic(bool) is_active; /* (a) the mode is in force */

	/* view.c */
	pthread_mutex_t view_lock;
	uint8_t *
		view; /* (c) where gfn 0 is; 2 MiB aligned. Over a template that is the pool's, and nothing below is used but uffd */
	uint64_t pages; /* (c) */
	void *reserved; /* (c) the address space it lies in */
	size_t reserved_bytes;
	int uffd; /* (c) */
	uint64_t *
		placed; /* [view_lock] a word a gfn: the source (view.c) of its piece of the view, + 1; 0: home */
	uint64_t
		piece_ends; /* [view_lock] gfns that begin another piece than that of the gfn before */
	uint64_t piece_ends_max; /* (c) */
	uint64_t lent;		 /* [view_lock] gfns whose piece is of the window's */
	bool keeps_lent;	 /* [view_lock] some of those for no reason, which was told */
	uint64_t *
		seams; /* [view_lock] a bit a gfn: it goes on where the one before ends, in another mapping */
	uint64_t *
		open; /* [view_lock] a bit a 2 MiB block: taken from the userfaultfd, faults on its own */
	uint64_t *
		blocked; /* [view_lock] a bit a gfn: may not be touched (or written), the kernel says EFAULT */

	/* view_template.c */
	/* [view_lock] stores are held off in here; the last one may have more in it than that */
	struct gn_gfn_run held[GN_KVM_HELD_RANGES];
	unsigned held_count;

	/* fill.c */
	_Atomic(bool) is_aged; /* (a) somebody harvests accessed bits */
	pthread_mutex_t
		fill_lock; /* held while a fault is worked on; recursive: a switch fills ahead in a pause */
	pthread_t filler, stand_in; /* (c) */
	int filler_fd, stand_in_fd; /* (c) eventfds: look again */
	bool has_threads;	    /* (c) */
	pthread_mutex_t queue_lock;
	pthread_cond_t move_begun;
	bool is_stopping, is_stand_in_stopping; /* [queue_lock] */
	uint64_t moves, moves_over; /* [queue_lock] of mappings: begun, and known to be over */
	unsigned queued;	    /* [queue_lock] */
	struct gn_kvm_touch {
		uint64_t gfn;
		pid_t tid;
		bool is_write;
	} queue[GN_KVM_QUEUE]; /* [queue_lock] oldest first */

	/* layout.c */
	pthread_mutex_t slots_lock;
	uint8_t *kinds;	 /* [slots_lock] a byte a gfn: what the slots make of it */
	bool logs_dirty; /* [slots_lock] */
};

/* Runs of one change that lie near each other are dealt with at once, for what a call costs is not the page but the flush of the host's TLBs. Joins to
 * @runs[at] those that follow, as long as each begins at most @gap pages behind the end of the one before. Returns where the last
 * ends; *next is the first left over. */
static inline uint64_t gn_kvm_hull_end(const struct gn_gfn_run *runs, size_t count, size_t at,
				       uint64_t gap, size_t *next)
{
	uint64_t end = runs[at].start.v + runs[at].count;

	for (*next = at + 1; *next < count && runs[*next].start.v <= end + gap; ++*next)
		end = runs[*next].start.v + runs[*next].count;
	return end;
}

/* ---- view.c: all but new and destroy with view_lock held --------------------------------------------------- */

int gn_kvm_view_new(struct gn_kvm_nested *n, char *why, size_t why_bytes);
void gn_kvm_view_destroy(struct gn_kvm_nested *n);
/* @start may have @frame: it is there already, or at home, or a piece more is not one too many. */
bool gn_kvm_view_has_room(const struct gn_kvm_nested *n, gfn_t start, pfn_t frame);
/* By the p2m @at shares @frame, and may be seen there. In an RCU read section. */
bool gn_kvm_view_may_share(const struct gn_kvm_nested *n, gfn_t at, pfn_t frame);
/* [start, start + count) can be put in, of frames from @frame on, without a change of mappings. */
bool gn_kvm_view_has_place(const struct gn_kvm_nested *n, gfn_t start, uint64_t count, pfn_t frame);
/* Put [start, start + count) in, of frames from @frame on. Pages that are in already stay, made writable if they
 * shall be. -EAGAIN: the frames were not in the pool's page cache; -errno. */
int gn_kvm_view_put(struct gn_kvm_nested *n, gfn_t start, uint64_t count, pfn_t frame,
		    bool writable);
/* The same with what was in until a moment ago: nothing is placed for it, and who waits for one of the pages waits for his answer. False:
 * they are not all in. */
bool gn_kvm_view_put_back(struct gn_kvm_nested *n, gfn_t start, uint64_t count, pfn_t frame,
			  bool writable);
/* A whole 2 MiB block of its home frames, all rights: let the kernel map it as it can. */
int gn_kvm_view_open(struct gn_kvm_nested *n, gfn_t start);
/* Take [start, end) out. When it returns no vCPU uses it. Cannot fail: on a host out of memory the VM is stopped. */
void gn_kvm_view_take(struct gn_kvm_nested *n, gfn_t start, gfn_t end);
/* The same for all of @runs, ascending and disjoint. The engine's p2m lock is held; the ept room has no leaves for them any more, or they were aged. */
void gn_kvm_view_take_runs(struct gn_kvm_nested *n, const struct gn_gfn_run *runs, size_t count);
/* After gn_kvm_view_take(), if their pages lose their frames: those of the window are in the view's way no more. */
void gn_kvm_view_send_home(struct gn_kvm_nested *n, gfn_t start, gfn_t end);
/* From now on a touch (or only a write) fails, so that a vCPU blocked on it gets out of the kernel. Until taken out. */
int gn_kvm_view_block(struct gn_kvm_nested *n, gfn_t at, bool only_writes);
/* Let vCPUs blocked on @at touch it again. */
void gn_kvm_view_wake(struct gn_kvm_nested *n, gfn_t at);

/* ---- view_template.c: over a template. view_new()'s part and, with view_lock held, view_take()'s ------------------- */

int gn_kvm_view_template_new(struct gn_kvm_nested *n, char *why, size_t why_bytes);
/* When it returns no vCPU stores to any of @runs, and one that will has to wait; without memory for it the engine is told that they do not. */
void gn_kvm_view_template_hold_off(struct gn_kvm_nested *n, const struct gn_gfn_run *runs,
				   size_t count);
/* The change is over: whoever waits goes on. */
void gn_kvm_view_template_let_all_in(struct gn_kvm_nested *n);
/* Somebody waits, or is about to. */
void gn_kvm_view_template_answer(struct gn_kvm_nested *n, gfn_t at);

/* ---- fill.c ---------------------------------------------------------------------------------------------------- */

int gn_kvm_fill_start(struct gn_kvm_nested *n);
void gn_kvm_fill_stop(struct gn_kvm_nested *n);
/* Around an mremap() of what is registered, one at a time: the kernel ends it when another thread has read the event. */
void gn_kvm_fill_move_begins(struct gn_kvm_nested *n);
void gn_kvm_fill_move_ends(struct gn_kvm_nested *n);
/* Pages that were taken out with others are put in again if the ept room has leaves for them and they were used, as far as that needs no change
 * of mappings. What is missing comes at its next touch. View_lock and the engine's p2m lock held, so that the leaves stay. */
void gn_kvm_fill_back(struct gn_kvm_nested *n, uint64_t start, uint64_t end);
/* Put in what has a frame, before the guest asks. -errno. */
int gn_kvm_fill_ahead(struct gn_kvm_nested *n);

/* ---- layout.c -------------------------------------------------------------------------------------------------- */

int gn_kvm_layout_new(struct gn_kvm_nested *n);
void gn_kvm_layout_destroy(struct gn_kvm_nested *n);
/* Slots for the p2m as it is now. Every vCPU is outside. -errno with kvm->why. */
int gn_kvm_layout_enter(struct gn_kvm_nested *n);
void gn_kvm_layout_leave(struct gn_kvm_nested *n);
/* The p2m of [start, end) may have changed kind. *changed: slots did. Any thread, outside the guest. -errno. */
int gn_kvm_layout_follow(struct gn_kvm_nested *n, gfn_t start, gfn_t end, bool *changed, char *why,
			 size_t why_bytes);
/* vCPU thread: its ring is full. */
int gn_kvm_layout_ring_full(struct gn_kvm_nested *n);

/* ---- nested.c, nested_state.c, nested_trap.c --------------------------------------------------------------------- */

enum gn_kvm_next gn_kvm_nested_exit(struct gn_kvm_cpu *cpu);
bool gn_kvm_nested_is_unfinished(const struct gn_kvm_cpu *cpu, int err);
int gn_kvm_nested_get_state(struct gn_kvm_cpu *cpu, struct gn_kvm_state *state);
int gn_kvm_nested_set_state(struct gn_kvm_cpu *cpu, const struct gn_kvm_state *state);
/* A byte of code at CPL 3 or 0, as the guest would fetch it. After gn_kvm_nested_get_state(), which tells the engine where
 * its tables are. False: it could not. */
bool gn_kvm_nested_fetch(struct gn_kvm_cpu *cpu, bool user, uint64_t va, uint8_t *byte);
/* After each KVM_RUN, which returned @err: .trap, and the guest runs on for no longer. */
void gn_kvm_nested_look_for_trap(struct gn_kvm_cpu *cpu, int err);
/* Before KVM_RUN: the guest shall be left soon. -errno. */
int gn_kvm_nested_run_on(struct gn_kvm_cpu *cpu);

/* ---- supplement.c ---------------------------------------------------------------------------------------------- */

/* KVM's emulator gave up: do it here, or stop the guest and say at what. */
enum gn_kvm_next gn_kvm_supplement(struct gn_kvm_cpu *cpu);

#endif
