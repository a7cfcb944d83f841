/* SPDX-License-Identifier: MIT */
/*
 * engine.h - a virtual machine's memory, as its VMM sees it.
 *
 * A VMM (here: a backend) creates a VM with one scheme, creates its vCPUs, and from then on reports
 * what the guest does: it wrote CR3, it executed INVLPG, it faulted, it stored to a table. The engine
 * answers what the hardware is to be programmed with (struct gn_hw) and what to do about a fault
 * (struct gn_fix). The scheme behind the answers can be exchanged on a live guest.
 *
 * Threads: functions that take a vCPU are called by the thread that runs it; functions that take only a
 * VM may be called by any thread. All may sleep. None prints, exits or aborts, except on a broken
 * invariant of the engine's own (never on guest input). Errors are 0 or -errno; what a guest may see is
 * a result, not an error.
 */
#ifndef GNOMON_ENGINE_H
#define GNOMON_ENGINE_H

#include <gnomon/counters.h>
#include <gnomon/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct gn_vm;
struct gn_vcpu;
struct gn_frames;
struct gn_fmt;
struct gn_scheme_ops;

/* ---- What the hardware is programmed with ------------------------------------------------------ */

enum gn_hw_kind {
	GN_HW_SOFTWARE, /* nothing: every access is an exit (interp) */
	GN_HW_GUEST,	/* one dimension: the guest's own tables (native) */
	GN_HW_TABLES,	/* one dimension: tables the scheme keeps (shadow) */
	GN_HW_NESTED,	/* two dimensions: the guest's tables, then the scheme's (EPT, NPT) */
};

/* Guest events that must exit to the engine's caller; the others run without an exit. The caller
 * reports *all* of them to the engine (its state must follow), but pays for an exit only for these. */
enum gn_intercept {
	GN_ICPT_CR = 1 << 0, /* CR0, CR4, EFER */
	GN_ICPT_CR3 = 1 << 1,
	GN_ICPT_INVLPG = 1 << 2,
	GN_ICPT_INVPCID = 1 << 3,
	GN_ICPT_PF = 1 << 4, /* every #PF, also those the guest will get back */
};

/* Written by the scheme, read by the backend before each access (v: vCPU thread only). */
struct gn_hw {
	enum gn_hw_kind kind;
	const struct gn_fmt *fmt; /* of the scheme's tables; NULL for SOFTWARE and GUEST */
	hpa_t root;		  /* of the scheme's tables */
	uint16_t pcid;		  /* the tag translations are made under */
	uint32_t intercepts;	  /* enum gn_intercept */
	bool nested_ad; /* nested A/D bits enabled: guest table reads count as nested writes */
};

/* ---- Guest-visible registers that steer translation -------------------------------------------- */

struct gn_regs {
	uint64_t cr0, cr3, cr4, efer;
	uint32_t pkru;
};

/* ---- Faults ------------------------------------------------------------------------------------ */

/* What the hardware reported. For a 1-D fault only `access` is meaningful (and error_code, as given to
 * the #PF intercept); a nested violation also knows the gpa, and whether it struck on a table walk. */
struct gn_fault {
	struct gn_access access;
	uint32_t error_code;
	bool nested;
	gpa_t gpa;     /* nested only */
	bool on_table; /* nested only: the gpa is of a guest table entry, not of the datum */
};

enum gn_fix_kind {
	GN_FIX_RETRY,	  /* tables changed: run the instruction again */
	GN_FIX_INJECT,	  /* deliver #PF with .error_code, CR2 = access.va */
	GN_FIX_INJECT_GP, /* deliver #GP(0): the address is not canonical */
	GN_FIX_EMULATE, /* a store the tables can't allow (to a tracked guest table, mostly): carry it out
			 * with gn_vcpu_store(.gpa) */
	GN_FIX_ACCESS, /* software translated it: this one access may use .hpa */
	GN_FIX_MMIO,   /* .gpa is not memory */
	GN_FIX_DENIED, /* the p2m forbids it (read-only or ballooned gfn): .gpa, .why */
	GN_FIX_STOP,   /* the guest cannot go on: .why */
};

struct gn_fix {
	enum gn_fix_kind kind;
	uint32_t error_code;
	gpa_t gpa;
	hpa_t hpa;
	uint64_t sequence; /* ACCESS: of the p2m, see gn_fix_is_current() */
	const char *why;   /* static text */
};

/* ---- Flushes: what a scheme asks of the backend ------------------------------------------------- */

enum gn_flush_scope {
	GN_FLUSH_VA,	    /* one page, tag .pcid, and global entries of that page */
	GN_FLUSH_PCID,	    /* all non-global entries of one tag */
	GN_FLUSH_NONGLOBAL, /* all tags, global entries stay */
	GN_FLUSH_ALL,	    /* everything of this VM, nested structures too (INVEPT) */
};

struct gn_flush {
	enum gn_flush_scope scope;
	uint16_t pcid;
	gva_t va;
};

/* Pages in a row. */
struct gn_gfn_run {
	gfn_t start;
	uint64_t count;
};

/* What becomes of a range of gfns. */
enum gn_range_change {
	GN_RANGE_ZAP, /* forget every translation to the range; a guest table in it is unshadowed */
	GN_RANGE_WRPROTECT, /* remove W from every translation to the range (dirty log) */
	GN_RANGE_AGE, /* for backends only: accessed bits were cleared, the next use must set them again */
};

/* What a backend provides. All but flush may be NULL. */
struct gn_backend_ops {
	const char *name;
	/* Carry out @flush on @vcpu before its next access. Called by any thread; an asynchronous backend
	 * posts it. Complete for memory safety once a grace period has passed (mmu/retire.h). Who does not look for posted flushes
	 * before each access of its guest needs a quiesce(). */
	void (*flush)(struct gn_vcpu *vcpu, const struct gn_flush *flush);
	/* vcpu's struct gn_hw changed outside a call by its own thread (a scheme switch). */
	void (*hw_changed)(struct gn_vcpu *vcpu);

	/* For hardware that keeps copies of tables which a flush alone does not refresh (a host whose KVM
	 * shadows in software). Called with the scheme's lock held, by any thread; they post and never wait.
	 * The entry at @slot was present and now allows less or differs: */
	void (*entry_changed)(struct gn_vm *vm, hpa_t slot);
	/* The table page will be reused, for a table or for data, after a grace period: */
	void (*table_retired)(struct gn_vm *vm, pfn_t table);

	/* For hardware that is programmed by ranges (nested paging as KVM offers it): the scheme just
	 * dropped or write-protected @runs, ascending and disjoint; the p2m's words have not changed yet, and its sequence is odd
	 * (GN_RANGE_AGE: they do not change, and it is even).
	 * When it returns, no vCPU may use an old translation of any of them (a run may be of no pages). Called with the
	 * p2m lock held: must not call back into the engine. Over a template the engine's own stores to what changes are over
	 * (GN_RANGE_ZAP): it may hold off all. Pages that lie between may be taken along: they do not change, and keep
	 * their rights in the p2m. They may be out of reach for a moment; over a template that must end before the change does. */
	void (*range_changing)(struct gn_vm *vm, const struct gn_gfn_run *runs, size_t count,
			       enum gn_range_change change);
	/* The change that range_changing() told of, maybe in several calls, is over: all words are as they are to be. Called with the p2m lock
	 * held, which it was since. Must not call back into the engine, nor wait for who may be in it. */
	void (*change_over)(struct gn_vm *vm);
	/* The change of [start, end) is complete. No lock held; the thread that asked for it. */
	void (*range_changed)(struct gn_vm *vm, gfn_t start, gfn_t end);
	/* For hardware that goes on for a while with translations whose flush was posted: what is stored to a page's next frame must not be seen by
	 * a vCPU that then reads the last one. Each copy of a shared page is waited for then, and merging holds reads off. A grace period is about to
	 * be waited for. If the guest runs in a read section (gn_read_lock) that the flush makes it leave, that is enough, and an empty function
	 * will do. If not: when it returns, every vCPU has stopped using what it used at the time of the call: whatever it
	 * does next, it carries out first what was posted to it before. May be called with any lock of the engine held
	 * but the scheme's. */
	void (*quiesce)(struct gn_vm *vm);
	/* Do the scheme's tables show what the guest accessed? If not, gn_accessed_harvest() is -EOPNOTSUPP. NULL: they do. */
	bool (*shows_accesses)(struct gn_vm *vm);
	/* A dirty log begins or ends; and: mark (gn_dirty_note) what hardware logged by itself since the
	 * last call, and log it anew. No lock of the p2m held. */
	int (*dirty_log)(struct gn_vm *vm, bool on);
	int (*dirty_sync)(struct gn_vm *vm);
};

/* A read section, in which a backend whose hardware follows the engine's tables looks for posted flushes and runs its guest: a
 * grace period lasts until all sections are over that were under way when it began. May be nested; keep none over another
 * call of the engine, which may wait for exactly that. Any thread, without registration. */
void gn_read_lock(void);
void gn_read_unlock(void);

/* ---- VM ---------------------------------------------------------------------------------------- */

/* What is behind the pool of host frames. */
enum gn_pool_kind {
	GN_POOL_MEMFD = 0, /* can be mapped elsewhere as well (gn_pool.fd) */
	/* This process alone has it, and giving memory back costs a fraction. Not for the kvm backend. Host pages
	 * of 2 MiB are asked for if backing_level is 2 or more. */
	GN_POOL_ANONYMOUS,
	/* Guest RAM is private memory of this process over a file that many VMs begin with (gn_vm_config.template_fd): each gfn is PRIVATE from
	 * the start, in the frame of its own number, and reads as the file does. The host copies a page when it is first written, and
	 * gn_p2m_drop_copies() has the file's page there again. A gfn keeps its frame, so it can be neither discarded, ballooned, moved nor
	 * shared in other ways (-EINVAL). A page the file has no memory for costs it some when it is touched, once for all VMs. */
	GN_POOL_TEMPLATE,
};

/* A pool of several VMs, which may then share frames. It outlives them. @bytes is rounded up to 2 MiB. @huge: blocks of
 * 2 MiB will be asked for (some VM's backing_level is 2 or more). -EINVAL, -ENOMEM, -errno of memfd_create() and mmap(). */
int gn_frames_new(uint64_t bytes, enum gn_pool_kind kind, bool huge, struct gn_frames **out);
void gn_frames_destroy(struct gn_frames *frames);

struct gn_vm_config {
	const char *scheme;	  /* a registered name */
	uint64_t mem_bytes;	  /* guest RAM, from GPA 0; a multiple of 4 KiB */
	uint64_t pool_bytes;	  /* host frames the VM may use; 0: RAM + 1/4 + 64 MiB for tables */
	unsigned vcpus;		  /* 1..GN_MAX_VCPUS */
	unsigned guest_phys_bits; /* MAXPHYADDR the guest sees; 0: 46 */
	unsigned backing_level;	  /* 1: 4 KiB host frames, 2: 2 MiB, 3: 1 GiB; 0: 1 */
	unsigned max_leaf_level;  /* largest leaf a scheme may build; 0: 3 */
	unsigned nested_levels;	  /* 4 or 5 (EPT, NPT); 0: 4 */
	uint64_t
		scheme_table_limit_bytes; /* budget of table frames (shadow reclaims beyond); 0: none */
	const struct gn_backend_ops *backend; /* NULL: none; flushes go nowhere */
	void *backend_data;		      /* gn_vm_backend() gives it back */
	/* The hardware runs all of the guest at CPL 3. Then a table scheme gives each privilege a root of
	 * its own (gn_vcpu_set_privilege) in which every page that privilege may use is a user page. The
	 * hardware walks it with CR0.WP=1, EFER.NXE=1 and without SMEP, SMAP, PKE and PGE (the guest's are in
	 * the tables), and drops every translation when gn_hw.root changes: gn_hw.pcid is the guest's, and
	 * not a tag that tells the roots of one CR3 apart. The guest has no protection keys (CR4.PKE: #GP). */
	bool deprivileged;
	/* Give a gfn the frame of the same number while that is free, so that guest memory lies in the pool as
	 * the guest sees it. */
	bool home_frames;
	enum gn_pool_kind pool;
	/* GN_POOL_TEMPLATE: a memfd of at least mem_bytes that nobody can write or shrink any more (F_SEAL_WRITE and F_SEAL_SHRINK, else
	 * -EPERM); the caller's, who may close it afterwards. backing_level is 1 then, and home_frames true. */
	int template_fd;
	/* A pool of several VMs, the caller's; NULL: the VM makes one of its own. With it pool_bytes and pool are 0, and
	 * home_frames false. Tables come out of it, too, and out of its reserve: who does not trust all of the guests wants a
	 * scheme_table_limit_bytes for each. Not for the kvm backend. */
	struct gn_frames *frames;
	/* Room for frames of others behind the VM's own ones, see gn_frames_attach(). */
	uint64_t window_bytes;
};
#define GN_MAX_VCPUS 64

/* -EINVAL (bad config; see the log hook), -ENOENT (no such scheme), -ENOMEM. */
int gn_vm_create(const struct gn_vm_config *config, struct gn_vm **out);
void gn_vm_destroy(struct gn_vm *vm);

/* Exchange the scheme of a live guest: between two guest operations, no vCPU inside the engine. On any
 * error the old scheme is still in charge and nothing was lost. -ENOENT, -ENOMEM. */
int gn_vm_switch_scheme(struct gn_vm *vm, const char *scheme);
const char *gn_vm_scheme(const struct gn_vm *vm);

struct gn_vcpu *gn_vm_vcpu(struct gn_vm *vm, unsigned index);
unsigned gn_vm_vcpu_count(const struct gn_vm *vm);
void *gn_vm_backend(const struct gn_vm *vm);

/* The pool of host frames: an HPA is an offset into it. For a backend that shows it to its hardware. */
struct gn_pool {
	void *base; /* where HPA 0 is mapped in this process */
	uint64_t bytes;
	/* Behind those: what gn_frames_attach() shows, read-only, and else nothing. Frames there can be in the guest's translations. */
	uint64_t window_bytes;
	int fd; /* the memfd behind it, the engine's; -1: none, this process alone has it */
	uint64_t
		template_bytes; /* the first ones are private over a template; 0: GN_POOL_TEMPLATE it is not */
};
void gn_vm_pool(const struct gn_vm *vm, struct gn_pool *out);
/* The same as what gn_domain_create() and other functions of pools take; one of the VM's own ends with it. */
struct gn_frames *gn_vm_frames(const struct gn_vm *vm);
/* A zeroed frame of the pool for the backend's own use, out of the guest's reach. -ENOMEM. */
int gn_vm_pool_alloc(struct gn_vm *vm, hpa_t *out);
void gn_vm_pool_free(struct gn_vm *vm, hpa_t frame);

/* One entry of every root that a table scheme builds belongs to the backend: what it needs mapped whatever
 * the guest does (its exception handlers). The guest's own translations of that slot are out of its
 * reach while such a scheme is in force. Entry 4 goes into 4-level roots, entry 5 into 5-level ones; an
 * entry is the hardware's, written as it is. -EBUSY: a scheme that keeps 1-D tables is in force already;
 * -EINVAL: no such index, or an entry that is neither absent nor a pointer to a table in the pool. */
struct gn_root_slot {
	unsigned index; /* 0..511 */
	uint64_t entry4, entry5;
};
int gn_vm_set_root_slot(struct gn_vm *vm, const struct gn_root_slot *slot);

/* Bytes the scheme's tables cost now and at their highest: table frames + metadata. Any thread. */
struct gn_table_usage {
	uint64_t frames_bytes; /* pages the hardware walks */
	uint64_t meta_bytes;   /* what the scheme keeps beside them */
	uint64_t peak_bytes;   /* highest sum */
};
void gn_vm_table_usage(struct gn_vm *vm, struct gn_table_usage *out);

/* ---- Guest memory, from outside ------------------------------------------------------------------ */

/* Copy between guest RAM and a buffer, populating as a device would. Stores keep every cache of the
 * p2m right (tracked tables, dirty log). -EFAULT outside RAM, -ENOMEM. Any thread. */
int gn_vm_read(struct gn_vm *vm, gpa_t at, void *buf, size_t bytes);
int gn_vm_write(struct gn_vm *vm, gpa_t at, const void *buf, size_t bytes);

/* A checksum (XXH3-64) of guest RAM: unbacked pages count as zeros. */
uint64_t gn_vm_memory_sum(struct gn_vm *vm);
/* Of the gfns [start, start + count) only; what lies outside RAM is left out. */
uint64_t gn_vm_memory_sum_range(struct gn_vm *vm, gfn_t start, uint64_t count);

/* ---- p2m changes (ballooning, sharing, migration, MMIO) ------------------------------------------- */

enum gn_p2m_state {
	GN_P2M_UNBACKED = 0, /* RAM without a frame yet: filled on demand with zeros */
	GN_P2M_PRIVATE,	     /* a frame of its own */
	GN_P2M_SHARED,	     /* a frame others map too: read-only, copy on write */
	GN_P2M_READONLY,     /* a frame the guest may not write (ROM) */
	GN_P2M_BALLOONED, /* given back: a touch is answered by policy, never silently re-granted */
	GN_P2M_MMIO,	  /* not memory */
	GN_P2M_STATES
};

/* Each is one serialised p2m change; every scheme table follows before it returns. -EINVAL for a range
 * outside RAM or a state that forbids it, -ENOMEM. Any thread that is not inside a guest access. */
int gn_p2m_populate(struct gn_vm *vm, gfn_t start, uint64_t count);
int gn_p2m_discard(struct gn_vm *vm, gfn_t start,
		   uint64_t count); /* back to UNBACKED: contents lost */
int gn_p2m_balloon(struct gn_vm *vm, gfn_t start, uint64_t count); /* to BALLOONED: contents lost */
int gn_p2m_unballoon(struct gn_vm *vm, gfn_t start, uint64_t count); /* BALLOONED to UNBACKED */
int gn_p2m_protect(struct gn_vm *vm, gfn_t start, uint64_t count, bool readonly);
int gn_p2m_set_mmio(struct gn_vm *vm, gfn_t start, uint64_t count);
int gn_p2m_move(struct gn_vm *vm, gfn_t start, uint64_t count); /* same contents, other frames */
int gn_p2m_share(struct gn_vm *vm, gfn_t keep, gfn_t give); /* equal contents: one frame, SHARED */
/* The 2 MiB block at @start, all PRIVATE or UNBACKED, gets one block of frames, so that a large leaf may map it: same
 * contents. Frames it leaves are the host's again. -EALREADY: it is one; -EINVAL, also for a VM whose backing_level is 1;
 * -EBUSY: a frame has another reference; -ENOMEM: no block is free (with home_frames: not its home). */
int gn_p2m_collapse(struct gn_vm *vm, gfn_t start);

/* The same for many runs, in ascending order and disjoint (or -EINVAL): one change, one flush, one wait for those
 * who still use an old translation. All of it happens or nothing. What discard and balloon take is the host's
 * again before they return, by vectored system calls; memory that the host would not take back (it is locked)
 * stays with the pool. *done_pages (may be NULL): the sum of the counts; 0 on error. Balloon refuses
 * pages that are BALLOONED already. */
int gn_p2m_discard_runs(struct gn_vm *vm, const struct gn_gfn_run *runs, size_t count,
			uint64_t *done_pages);
int gn_p2m_balloon_runs(struct gn_vm *vm, const struct gn_gfn_run *runs, size_t count,
			uint64_t *done_pages);
int gn_p2m_unballoon_runs(struct gn_vm *vm, const struct gn_gfn_run *runs, size_t count,
			  uint64_t *done_pages);

/* What a host can take unasked: pages of [start, start+count) with a frame of their own that hold nothing but zeros lose it, and
 * read as zeros from their next use on. All others keep contents and state: shared, read-only, ballooned, MMIO, those in
 * @spared (one bit a gfn of the range, as gn_accessed_harvest() gives them; NULL: none), blocks of 1 GiB. A block of 2 MiB goes
 * as a whole or, also if a part is spared or beyond the range, not at all. The guest may run, and none of its stores is lost.
 * The frames are the host's before we return.
 * Reads each page up to its first words that are not zero, and what is zero a second time. Every 2 MiB of zeros, or 128 runs of
 * them, is a change, with a flush, one wait for those who use an old translation while faults wait for it and for the second
 * reading, and one wait after it. *freed_pages: how many went. -EINVAL for a range outside RAM; needs no memory. Any thread that
 * is not inside a guest access. */
int gn_p2m_discard_zeroes(struct gn_vm *vm, gfn_t start, uint64_t count, const uint8_t *spared,
			  uint64_t *freed_pages);

/* The same for a VM over a template, where it is not zeros that the host has anyway: pages of [start, start+count) that were written and
 * hold what the template holds again cease to be copies. READONLY and MMIO gfns, and those in @spared, stay as they are. -EINVAL also
 * for any other VM; -errno of reading /proc/self/pagemap, which tells what is a copy: some pages may have gone by then. */
int gn_p2m_drop_copies(struct gn_vm *vm, gfn_t start, uint64_t count, const uint8_t *spared,
		       uint64_t *dropped_pages);
/* From a backend's range_changing() over a template: stores could not be held off. Then nothing is dropped in this change. */
void gn_p2m_note_unheld(struct gn_vm *vm);

/* ---- Sharing of frames ------------------------------------------------------------------------------ */

/* What a SHARED gfn lets its guest do without a copy. */
enum gn_share_access {
	GN_SHARE_READ, /* read and execute */
	GN_SHARE_SEALED, /* nothing: its first access, a read too, copies, so that all accesses take the same time */
	/* The same, for who seals pages first and finds their likes later. gn_p2m_publish() seals those that are SHARED, and no
	 * others; gn_p2m_merge() merges those that are sealed, and no others: nobody is waited for then, and the frames that they
	 * leave go to the host some time later. The others (-EBUSY) have been used meanwhile. */
	GN_SHARE_RESEAL,
};

/* A page of a VM, and a frame. */
struct gn_merge {
	gfn_t at;
	pfn_t frame;
	int result;
};

/* PRIVATE pages become SHARED in their frames (with home_frames in others, so that their homes are free for them when they are
 * written): when it returns, nobody can write them. For each with result 0, .frame is
 * filled in, and one more reference to it is the caller's (gn_frames_put()); while anybody holds one, the frame's contents
 * stand still. A page that is SHARED already keeps its frame, which is told and referenced just the same, and may get a seal; it
 * never loses one.
 * Large blocks around a page are split.
 * result: -EBUSY: somebody else has a reference to the PRIVATE frame, or GN_SHARE_RESEAL was asked for a PRIVATE page; -EINVAL: another
 * state; -ENOMEM: with home_frames only.
 * @pages are in RAM, in ascending order of .at and disjoint, or -EINVAL for all. Every 1024 pages are one change, with one
 * wait for those who use an old translation, during which reads go on, and none if a dirty log is on and no page was written since it was
 * harvested; 256 and not even reads if they are sealed, or if the backend is programmed by ranges, has a quiesce(), or the scheme has no way to
 * move a translation. Any thread that is not inside a guest access. */
int gn_p2m_publish(struct gn_vm *vm, struct gn_merge *pages, size_t count,
		   enum gn_share_access access);

/* Pages take the frame .frame, if they hold the same: compared while nobody can write them. The caller has a reference to each
 * frame, of the VM's pool, that nobody can write: a published one. A page that takes it takes a reference of its own, and its
 * former frame, unless others have it too, is the host's before we return.
 * result: 0: it has that frame now; -EAGAIN: the contents differ; -EBUSY: somebody else has a reference to its PRIVATE frame, or
 * two thousand million have one to .frame, or GN_SHARE_RESEAL was asked for a page that is not sealed;
 * -EINVAL: neither PRIVATE nor SHARED. *merged_pages (may be NULL): those that gave up another frame.
 * Otherwise as gn_p2m_publish(); also -EINVAL for all if a .frame is none in use. */
int gn_p2m_merge(struct gn_vm *vm, struct gn_merge *merges, size_t count,
		 enum gn_share_access access, uint64_t *merged_pages);

/* What sharing saved is a loan: @pages of a pool stay free for the copies that accesses to SHARED gfns make, for pages whose
 * zeros were taken (gn_p2m_discard_zeroes()), and for tables, without which neither can be mapped; every other allocation fails sooner.
 * And the fewest free frames that such a copy, page or table has left since then (the size of the pool: there was none). Any thread. */
void gn_frames_set_reserve(struct gn_frames *frames, uint64_t pages);
uint64_t gn_frames_reserve_low(struct gn_frames *frames);
/* Of the free frames, @pages stay resident for those same uses, which are then spared the host's page fault: frames that merging
 * frees do not go to the host until there are so many (0: none, as at first). VMs with home frames want a certain frame and use
 * none. -EINVAL: more than the pool has; -ENOMEM. */
int gn_frames_set_stock(struct gn_frames *frames, uint64_t pages);
/* How many there are now. */
uint64_t gn_frames_stock(struct gn_frames *frames);
/* Up to @most more, by faulting them in here. How many. Any thread, as for all of them. */
uint64_t gn_frames_fill_stock(struct gn_frames *frames, uint64_t most);

/* Frames of another process's memory, to be merged into. Show @bytes of the memfd @fd, read-only, in the window; its first page
 * is the frame *first. The file can't shrink (F_SEAL_SHRINK), or a read of a page that is gone would be a signal. The caller's @fd may
 * be closed afterwards (one of ours is open until it is detached). -EINVAL: a size that is no multiple of 4 KiB, or more than the file has; -EPERM: no such seal; -ENOSPC: no room
 * is left in the window, or 128 memories are in it; -errno of fcntl(), fstat() and mmap(). Any thread, as for all of them. */
int gn_frames_attach(struct gn_frames *frames, int fd, uint64_t bytes, pfn_t *first);
/* Forget what was attached at @first. -EBUSY: one of its frames is still referenced; -EINVAL: nothing was. */
int gn_frames_detach(struct gn_frames *frames, pfn_t first);
/* A reference to a frame of the window for the caller. Its owner lends it, and has it returned when the last reference is put.
 * 0: this is the first one. 1: it was referenced before, or was put and not yet taken by gn_frames_take_returned(): whoever counts
 * what was lent counts one. -EINVAL: no such frame is attached. */
int gn_frames_lend(struct gn_frames *frames, pfn_t frame);
/* Frames of the window whose last reference was put; each is told once. Returns how many there are in @out. */
size_t gn_frames_take_returned(struct gn_frames *frames, pfn_t *out, size_t max);

struct gn_p2m_info {
	enum gn_p2m_state state;
	pfn_t pfn;
	gn_rights_t rights;
	unsigned level;
};
int gn_p2m_query(struct gn_vm *vm, gfn_t at, struct gn_p2m_info *out);

/* What a touch of a BALLOONED page comes to, by the guest or by a device on its behalf. */
enum gn_touch_answer {
	GN_TOUCH_DENY, /* GN_FIX_DENIED, or -EFAULT for a device */
	/* The page is taken out of the balloon and filled with zeros; without memory for it the touch is -ENOMEM, counted
	 * and told as denied. */
	GN_TOUCH_GRANT,
};
/* Told of each touch, after it was counted, by the thread that touched. Must not call back into the engine. */
typedef void gn_touch_fn(struct gn_vm *vm, gfn_t at, bool write, enum gn_touch_answer answer,
			 void *ctx);
/* DENY and untold unless set. Any thread; a touch that is under way may still be answered as before, and told is not
 * called with the old @ctx once this returns (do not call it from told). */
void gn_vm_set_ballooned_touch(struct gn_vm *vm, enum gn_touch_answer answer, gn_touch_fn *told,
			       void *ctx);

/* Any thread; a glimpse. */
struct gn_balloon_usage {
	uint64_t ballooned_pages; /* now */
	uint64_t touches_denied;  /* since the VM was created, as those below */
	uint64_t touches_granted;
	uint64_t released_bytes; /* given back to the host (by discards, too) */
};
void gn_vm_balloon_usage(const struct gn_vm *vm, struct gn_balloon_usage *out);

/* ---- Dirty log and accessed bits ------------------------------------------------------------------ */

/* One bit per gfn, bit 0 of byte 0 first; @bitmap has (count+7)/8 bytes and is overwritten. */
int gn_dirty_start(struct gn_vm *vm);
int gn_dirty_harvest(struct gn_vm *vm, gfn_t start, uint64_t count, uint8_t *bitmap);
void gn_dirty_stop(struct gn_vm *vm);
/* From a backend's dirty_sync(): the hardware logged a write to @at. */
void gn_dirty_note(struct gn_vm *vm, gfn_t at);
/* Test and clear: which gfns were accessed through the scheme's tables since the last harvest.
 * -EOPNOTSUPP for a scheme that keeps no tables, or whose tables do not show it under this backend. */
int gn_accessed_harvest(struct gn_vm *vm, gfn_t start, uint64_t count, uint8_t *bitmap);

/* ---- vCPU: reports of what the guest did ----------------------------------------------------------- */

const struct gn_regs *gn_vcpu_regs(const struct gn_vcpu *vcpu);
const struct gn_hw *gn_vcpu_hw(const struct gn_vcpu *vcpu);
struct gn_counters *gn_vcpu_counters(struct gn_vcpu *vcpu);
void *gn_vcpu_backend(const struct gn_vcpu *vcpu);
void gn_vcpu_set_backend(struct gn_vcpu *vcpu, void *backend);
struct gn_vm *gn_vcpu_vm(const struct gn_vcpu *vcpu);

/* The guest wrote a register. *gp is set when the value is one the architecture answers with #GP(0)
 * (then nothing changed). The scheme reloads its root and asks for the flushes it needs; the flushes
 * of *guest* semantics (MOV CR3 without bit 63, CR4.PGE toggles ...) are requested here as well, so a
 * backend needs no rules of its own. -ENOMEM. */
int gn_vcpu_write_cr0(struct gn_vcpu *vcpu, uint64_t value, bool *gp);
int gn_vcpu_write_cr3(struct gn_vcpu *vcpu, uint64_t value, bool *gp);
int gn_vcpu_write_cr4(struct gn_vcpu *vcpu, uint64_t value, bool *gp);
int gn_vcpu_write_efer(struct gn_vcpu *vcpu, uint64_t value, bool *gp);
void gn_vcpu_write_pkru(struct gn_vcpu *vcpu, uint32_t value);
void gn_vcpu_invlpg(struct gn_vcpu *vcpu, gva_t va);
void gn_vcpu_invpcid(struct gn_vcpu *vcpu, unsigned type, uint64_t pcid, gva_t va, bool *gp);

/* All of them at once, as a VMM restores a saved guest or takes over from hardware that let the guest write them by
 * itself. Every cached translation is dropped. -EINVAL: no guest can have these values; -ENOMEM. Then nothing
 * has changed. */
int gn_vcpu_set_regs(struct gn_vcpu *vcpu, const struct gn_regs *regs);

/* The guest's privilege changed (and RFLAGS.AC, which matters under SMAP). For backends whose VM is
 * config.deprivileged: a table scheme puts another root in force, see gn_vcpu_hw(). Otherwise it does
 * nothing. -ENOMEM: nothing has changed.
 * Faults are then told with the guest's privilege in gn_access and never the hardware's. Those of the privilege in
 * force fill the tables; any other access, and an implicit one, is the VMM's on the guest's behalf and is answered
 * with its place: GN_FIX_ACCESS, or GN_FIX_EMULATE for a store. */
int gn_vcpu_set_privilege(struct gn_vcpu *vcpu, bool user, bool ac);

/* Translate by the guest's tables, changing nothing: what the guest would see. For emulation and tools.
 * True: *at; false: @error_code is of the #PF the access would raise, 0 for #GP or for a table
 * that is no memory. */
bool gn_vcpu_translate(struct gn_vcpu *vcpu, const struct gn_access *access, gpa_t *at,
		       uint32_t *error_code);

/* A fault of the tables in force. *fix says what to do; -ENOMEM or -errno: the VM cannot go on now. */
int gn_vcpu_fault(struct gn_vcpu *vcpu, const struct gn_fault *fault, struct gn_fix *fix);

/* GN_FIX_ACCESS: is .hpa the place of the access still? It is what the p2m said at .sequence. Asked inside a read section
 * (gn_read_lock), the answer true is good until the section ends: a later change includes what is stored by then, and the place is used anew
 * only afterwards. False: report the fault anew. Any thread. */
bool gn_fix_is_current(const struct gn_vm *vm, const struct gn_fix *fix);

/* A store by the VMM on the guest's behalf (emulated, GN_FIX_EMULATE): atomic for aligned 1, 2, 4, 8.
 * The range does not cross a page. -EFAULT if it is not writable RAM. */
int gn_vcpu_store(struct gn_vcpu *vcpu, gpa_t at, const void *buf, unsigned bytes);
/* The same if @expected is there (*done), in one step: for emulated read-modify-writes of tables that processors and
 * other vCPUs change meanwhile. An aligned 1, 2, 4 or 8. */
int gn_vcpu_exchange(struct gn_vcpu *vcpu, gpa_t at, uint64_t expected, uint64_t desired,
		     unsigned bytes, bool *done);

/* ---- Audit ------------------------------------------------------------------------------------------ */

/* Prove, slowly and naively, that every table the scheme keeps is a correct cache of guest ∘ p2m.
 * 0: clean. -EBADMSG: violations; the first is told in @report. All vCPUs must be outside the engine. */
struct gn_audit_report {
	uint64_t tables, entries, violations;
	char first[320];
};
int gn_audit(struct gn_vm *vm, struct gn_audit_report *report);

/* ---- Schemes ----------------------------------------------------------------------------------------- */

/* The registry: schemes are found by name. Register before the first VM; not thread-safe. */
int gn_scheme_register(const struct gn_scheme_ops *ops); /* -EEXIST, -ENOSPC */
const struct gn_scheme_ops *gn_scheme_find(const char *name);
const struct gn_scheme_ops *gn_scheme_at(unsigned index); /* NULL past the last */
const char *gn_scheme_name(const struct gn_scheme_ops *ops);
const char *gn_scheme_summary(const struct gn_scheme_ops *ops);
bool gn_scheme_keeps_tables(const struct gn_scheme_ops *ops);

/* ---- Hooks --------------------------------------------------------------------------------------------- */

enum gn_log_level { GN_LOG_ERROR, GN_LOG_WARN, GN_LOG_INFO, GN_LOG_DEBUG };
typedef void gn_log_fn(void *ctx, enum gn_log_level level, const char *text);
void gn_log_set(gn_log_fn *fn, void *ctx); /* NULL: silence, the default */

/* Fail the Nth allocation from now (1 = the next), once; 0: off. For tests. Returns how many
 * allocations were made since the last call. */
uint64_t gn_alloc_fail_nth(uint64_t n);

#ifdef __cplusplus
}
#endif
#endif
