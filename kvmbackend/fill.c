/* SPDX-License-Identifier: MIT */
/*
 * fill.c - demand population: a touch of a page that is not in the view, answered.
 *
 * Two threads. The filler reads the userfaultfd and works on faults, one at a time, on behalf of the vCPU that is
 * blocked: it reports a nested violation to the engine and carries out the answer. The stand-in sleeps, but while somebody moves a
 * mapping: the kernel waits until the event of that is read (view.c), and the filler may be who moves, or wait for a lock that he
 * holds. The stand-in takes none but the queue's. What it reads of faults is the filler's; each wakes the other by an eventfd.
 *
 *     sequence = even -> gn_vcpu_fault -> the ept room's leaf -> view_lock -> sequence unchanged? -> put in
 *
 * A change of the p2m makes the sequence odd, then has the view take the range out under view_lock. So what is put in
 * from an old leaf is either refused by the check or taken out by the change.
 *
 * The change itself puts back what it took out along with its own (gn_kvm_fill_back()): the leaves of that stay while it holds the p2m lock. It
 * wakes nobody: a vCPU that touched such a page meanwhile may be in the filler's hands.
 *
 * A page that is sealed (GN_SHARE_SEALED) has no leaf, ever: the engine's answer to its first touch, a read too, is a page of its own,
 * and that is put in.
 *
 * What may not be granted (ballooned, MMIO, a store to read-only memory): the page is blocked, so that the kernel's
 * attempt fails and the vCPU comes out of KVM_RUN, where it finds the denial. The slots usually say so already
 * (layout.c); this is for memory that changed under a vCPU's hands, and for ballooned pages, which get no slot of their
 * own: there are too many of them.
 *
 * Which vCPU: the fault's thread id. A stray fault (of a vCPU that was called out meanwhile) is answered on vCPU 0's
 * account; what it puts in is right, whoever asked.
 *
 * Over a template nothing is filled or moved, and the filler answers otherwise: view_template.c.
 */
#include <errno.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "mmu/entry.h"
#include "mmu/walk.h"

#include "nested.h"

#define BLOCK_LEVEL 2
#define BLOCK_PAGES ((uint64_t)512)
#define EVENTS	    16 /* read at a time */
/* That come in with one that shares, it among them: aligned 512 KiB. The vCPU that touched it runs on meanwhile; the next fault and
 * who pauses the VM wait for that. */
#define AROUND_PAGES 128

/* ---- One fault --------------------------------------------------------------------------------------------- */

/* What the ept room made of a gfn. */
struct leaf {
	gfn_t start;
	uint64_t pages;
	pfn_t frame; /* of start */
	bool writable, can_open, is_shared, was_used;
};

/* False: there is none (any more). */
static bool find_leaf(const struct gn_kvm_nested *n, gfn_t at, struct leaf *out)
{
	struct gn_vm *vm = n->kvm->vm;
	const struct gn_hw *hw = gn_vcpu_hw(n->kvm->cpus[0].vcpu);
	struct gn_walk walk;
	uint64_t accessed;
	p2m_word_t word;
	unsigned level;

	gn_rcu_read_lock();
	gn_walk_any(hw->fmt, vm->frames, hw->root, gfn_to_gpa(at).v, &walk);
	word = gn_p2m_get(&vm->p2m, at);
	gn_rcu_read_unlock();
	if (walk.end != GN_WALK_LEAF)
		return false;
	accessed = hw->fmt->level[walk.level].accessed;
	/* A larger leaf is put in by blocks: a fault should not take as long as a GiB takes. */
	level = walk.level < BLOCK_LEVEL ? walk.level : BLOCK_LEVEL;
	out->pages = gn_level_pages(level);
	out->start = gfn(at.v & ~(out->pages - 1));
	out->frame = pfn((walk.address >> GN_PAGE_SHIFT) - (at.v - out->start.v));
	/* KVM logs dirty pages by itself, so the log's write protection of our leaves does not count. */
	out->writable =
		(walk.rights & GN_W) || (gn_dirty_is_logged(vm) && gn_p2m_word_grants(word, GN_W));
	out->is_shared = gn_p2m_word_state(word) == GN_P2M_SHARED;
	out->was_used = (walk.entry & accessed) == accessed;
	out->can_open = n->huge && level == BLOCK_LEVEL && out->writable &&
			gn_p2m_word_level(word) >= BLOCK_LEVEL && out->frame.v == out->start.v &&
			out->start.v + out->pages <= n->pages;
	return true;
}

/* UFFDIO_CONTINUE wants the pages in the page cache: reading brings them there. */
static void make_resident(struct gn_kvm_nested *n, const struct leaf *leaf)
{
	const uint8_t *pool = (const uint8_t *)n->kvm->pool.base;

	for (uint64_t i = 0; i < leaf->pages; i++)
		(void)*(const volatile uint8_t *)(pool + (leaf->frame.v + i) * GN_PAGE_SIZE);
}

/* KVM walks tables of its own, so accessed bits of ours are set here: before the page is in, for then the vCPU runs on at
 * once. With view_lock held, under which aging takes pages out after it cleared their bits: what is in the view stays
 * marked. */
static void mark_accessed(struct gn_kvm_nested *n, gfn_t at)
{
	struct gn_vm *vm = n->kvm->vm;
	const struct gn_hw *hw = gn_vcpu_hw(n->kvm->cpus[0].vcpu);
	uint64_t accessed;
	struct gn_walk walk;
	bool must_flush;

	gn_rcu_read_lock();
	do {
		gn_walk_any(hw->fmt, vm->frames, hw->root, gfn_to_gpa(at).v, &walk);
		accessed = hw->fmt->level[walk.level].accessed;
	} while (walk.end == GN_WALK_LEAF && (walk.entry & accessed) != accessed &&
		 !gn_entry_cmpxchg(vm, hw->fmt, walk.level, walk.slot, &walk.entry,
				   walk.entry | accessed, &must_flush));
	gn_rcu_read_unlock();
}

/* The host has no way to put in a page that shares its frame, no mapping left for it or none that keeps it from being written: it
 * stops sharing, as if written. view_lock held. */
static bool must_break(const struct gn_kvm_nested *n, const struct leaf *leaf)
{
	return leaf->is_shared &&
	       (!n->uffd_wp || !gn_kvm_view_has_room(n, leaf->start, leaf->frame));
}

/* What became of a leaf. */
enum put_end {
	PUT_AGAIN, /* something has changed */
	PUT_DONE,
	PUT_BREAK, /* the page has to stop sharing */
};

/* @keeps: there is no memory to break it with; a mapping more than there should be is the lesser evil. */
static int put(struct gn_kvm_nested *n, const struct leaf *leaf, uint64_t sequence, bool keeps,
	       enum put_end *end)
{
	const bool is_own = gn_frames_is_own(n->kvm->vm->frames, leaf->frame);
	int err = -EINVAL;

	*end = PUT_AGAIN;
	if (!leaf->can_open && is_own)
		make_resident(n, leaf);
	pthread_mutex_lock(&n->view_lock);
	if (must_break(n, leaf) && (!n->uffd_wp || !keeps)) {
		*end = PUT_BREAK;
		err = 0;
	} else if (atomic_load(&n->is_active) && !gn_p2m_retry(&n->kvm->vm->p2m, sequence)) {
		/* Only what the p2m is known to have is sure to be in the window still. */
		if (!is_own)
			make_resident(n, leaf);
		mark_accessed(n, leaf->start);
		if (leaf->can_open)
			err = gn_kvm_view_open(n, leaf->start);
		if (err)
			err = gn_kvm_view_put(n, leaf->start, leaf->pages, leaf->frame,
					      leaf->writable);
		*end = err ? PUT_AGAIN : PUT_DONE;
		if (err && err != -EAGAIN && leaf->is_shared && !keeps) {
			*end = PUT_BREAK; /* no mapping is left for it */
			err = 0;
		}
	} else {
		err = 0;
	}
	pthread_mutex_unlock(&n->view_lock);
	return err == -EAGAIN ? 0 : err;
}

static void deny(struct gn_kvm_nested *n, struct gn_kvm_cpu *cpu, gfn_t at, bool is_write,
		 const struct gn_fix *fix, int err, uint64_t sequence, bool *done)
{
	struct gn_p2m_info info = { .state = GN_P2M_MMIO };
	bool only_writes;

	(void)gn_p2m_query(n->kvm->vm, at, &info);
	only_writes = is_write && info.state == GN_P2M_READONLY;
	pthread_mutex_lock(&n->view_lock);
	*done = err || !gn_p2m_retry(&n->kvm->vm->p2m, sequence);
	if (*done) {
		int blocked = gn_kvm_view_block(n, at, only_writes);

		cpu->nested->denial =
			(struct gn_kvm_denial){ .at = at,
						.is_write = is_write,
						.err = err ? err : blocked,
						.why = err ? "no memory for it" : fix->why };
		atomic_store(&cpu->nested->is_denied, true);
	}
	pthread_mutex_unlock(&n->view_lock);
	if (*done)
		gn_kvm_kick(cpu);
}

static struct gn_fault violation(gfn_t at, bool is_write)
{
	return (struct gn_fault){ .access = { .kind = is_write ? GN_WRITE : GN_READ, .size = 1 },
				  .nested = true,
				  .gpa = gfn_to_gpa(at) };
}

/* Report the violation until its answer is carried out. @leaf: what was put in, of no pages if nothing was. */
static int resolve(struct gn_kvm_nested *n, struct gn_kvm_cpu *cpu, gfn_t at, bool is_write,
		   bool may_deny, struct leaf *leaf)
{
	struct gn_fault fault = violation(at, is_write);
	bool done = false, is_forced = false, keeps = false;
	int err = 0;

	*leaf = (struct leaf){ .pages = 0 };
	while (!done && atomic_load(&n->is_active)) {
		uint64_t sequence = gn_p2m_begin_read(&n->kvm->vm->p2m);
		struct leaf found;
		enum put_end end;
		struct gn_fix fix;

		err = gn_vcpu_fault(cpu->vcpu, &fault, &fix);
		if (err == -ENOMEM && is_forced && !keeps) {
			fault.access.kind = is_write ? GN_WRITE : GN_READ;
			keeps = true;
			continue;
		}
		if (err || fix.kind != GN_FIX_RETRY) {
			if (!may_deny)
				break;
			deny(n, cpu, at, is_write, &fix, err, sequence, &done);
			continue;
		}
		if (!find_leaf(n, at, &found) || (is_write && !found.writable))
			continue;
		err = put(n, &found, sequence, keeps, &end);
		done = end == PUT_DONE;
		if (end == PUT_BREAK) {
			fault.access.kind = GN_WRITE;
			is_forced = true;
			cpu->stats.uffd_breaks++;
			continue;
		}
		if (err && may_deny)
			deny(n, cpu, at, is_write, &fix, err, sequence, &done);
		if (err)
			break;
		*leaf = found;
	}
	return err;
}

/* Where the entry of @at stands, if it is a small leaf; entries of the aligned 512 pages around it stand around it, in the same table. NULL: it
 * is none (any more). Under RCU. */
static uint64_t *find_slot(const struct gn_kvm_nested *n, uint64_t at)
{
	const struct gn_hw *hw = gn_vcpu_hw(n->kvm->cpus[0].vcpu);
	struct gn_walk walk;

	gn_walk_any(hw->fmt, n->kvm->vm->frames, hw->root, gfn_to_gpa(gfn(at)).v, &walk);
	return walk.end == GN_WALK_LEAF && walk.level == 1 ? walk.slot : NULL;
}

/* @at, whose entry stands at @slot, shares @frame and was not used since it does: it has no leaf. */
static bool is_unused(const struct gn_kvm_nested *n, uint64_t at, uint64_t frame,
		      const uint64_t *slot)
{
	return gn_kvm_view_may_share(n, gfn(at), pfn(frame)) &&
	       !gn_fmt_is_present(gn_vcpu_hw(n->kvm->cpus[0].vcpu)->fmt, 1,
				  __atomic_load_n(slot, __ATOMIC_ACQUIRE));
}

/* @at, and the pages on either side whose frames lie as they do and which are not in either: [*from, *to). None if @at has another
 * frame by now. */
static void find_around(const struct gn_kvm_nested *n, uint64_t at, uint64_t frame, uint64_t *from,
			uint64_t *to)
{
	const uint64_t first = at & ~(uint64_t)(AROUND_PAGES - 1), end = first + AROUND_PAGES,
		       last = end < n->pages ? end : n->pages;
	const uint64_t *slot;

	*from = *to = at;
	gn_rcu_read_lock();
	slot = find_slot(n, at);
	if (slot && gn_kvm_view_may_share(n, gfn(at), pfn(frame))) {
		++*to;
		while (*from > first &&
		       is_unused(n, *from - 1, frame - (at - *from) - 1, slot - (at - *from) - 1))
			--*from;
		while (*to < last && is_unused(n, *to, frame + (*to - at), slot + (*to - at)))
			++*to;
	}
	gn_rcu_read_unlock();
}

/* Leaves for [from, to), as if each had been read: they are born accessed. Who clears that has the pages taken out afterwards, under the p2m
 * lock. It is held: they share, so they are left as they are. */
static bool make_leaves(struct gn_kvm_cpu *cpu, uint64_t from, uint64_t to)
{
	struct gn_counters *counters = gn_vcpu_counters(cpu->vcpu);
	const uint64_t violations = counters->nested_faults;
	bool done = true;

	for (uint64_t at = from; at < to && done; at++) {
		const struct gn_fault fault = violation(gfn(at), false);
		struct gn_fix fix;

		done = !gn_vcpu_fault(cpu->vcpu, &fault, &fix) && fix.kind == GN_FIX_RETRY;
	}
	counters->nested_faults = violations; /* the vCPU had none of those */
	return done;
}

/*
 * A run of pages that share was taken out when they began to, and a fault for each would cost more than merging it did. So the first
 * brings in its neighbours. What is not touched counts as used by that, so nothing is brought in from the first harvest on that found
 * something used. The p2m stands still meanwhile: pages that are looked at here nobody has touched, so they must not be what a touch
 * changes. Returns how many came.
 */
static uint64_t put_around(struct gn_kvm_nested *n, struct gn_kvm_cpu *cpu, const struct leaf *leaf)
{
	struct gn_p2m *p2m = &n->kvm->vm->p2m;
	const uint64_t at = leaf->start.v;
	uint64_t from, to;
	bool done = false;

	if (leaf->pages != 1 || !leaf->is_shared || atomic_load(&n->is_aged))
		return 0;
	gn_lock(&p2m->lock);
	find_around(n, at, leaf->frame.v, &from, &to);
	if (to - from > 1 && make_leaves(cpu, from, to)) {
		const pfn_t first = pfn(leaf->frame.v - (at - from));

		pthread_mutex_lock(&n->view_lock);
		done = atomic_load(&n->is_active) && !atomic_load(&n->is_aged) &&
		       gn_kvm_view_has_place(n, gfn(from), to - from, first);
		/* A page that the host does not have at hand is touched again. */
		done = done && !gn_kvm_view_put(n, gfn(from), to - from, first, false);
		pthread_mutex_unlock(&n->view_lock);
	}
	gn_unlock(&p2m->lock);
	return done ? to - from - 1 : 0;
}

static bool belongs_in(const struct gn_kvm_nested *n, uint64_t at, struct leaf *out)
{
	return find_leaf(n, gfn(at), out) && out->pages == 1 && out->was_used &&
	       (n->uffd_wp || !out->is_shared);
}

void gn_kvm_fill_back(struct gn_kvm_nested *n, uint64_t start, uint64_t end)
{
	struct leaf first, next;

	if (!atomic_load(&n->is_active))
		return;
	for (uint64_t at = start, run; at < end; at += run) {
		run = 1;
		if (!belongs_in(n, at, &first))
			continue;
		while (at + run < end && belongs_in(n, at + run, &next) &&
		       next.frame.v == first.frame.v + run && next.writable == first.writable &&
		       gn_kvm_view_has_place(n, gfn(at), run + 1, first.frame))
			run++;
		(void)gn_kvm_view_put_back(n, gfn(at), run, first.frame, first.writable);
	}
}

static struct gn_kvm_cpu *cpu_of(struct gn_kvm *kvm, pid_t tid)
{
	for (unsigned i = 0; i < kvm->cpu_count; i++)
		if (atomic_load(&kvm->cpus[i].tid) == tid)
			return &kvm->cpus[i];
	return &kvm->cpus[0];
}

/* The vCPU is blocked in KVM_RUN: its books are ours meanwhile, and for a moment longer, since the page that is put in
 * (or the kick) wakes it: gn_kvm_fill_settle(). */
static void answer(struct gn_kvm_nested *n, const struct gn_kvm_touch *touch)
{
	struct gn_kvm_cpu *cpu = cpu_of(n->kvm, touch->tid);
	struct gn_counters *counters = gn_vcpu_counters(cpu->vcpu);
	uint64_t began = n->kvm->config.time_exits ? gn_kvm_now_ns() : 0;
	struct leaf leaf = { .pages = 0 };

	if (atomic_load(&n->is_active) && touch->gfn < n->pages) {
		counters->exits++;
		counters->exits_by[GN_EXIT_NESTED]++;
		cpu->stats.exits_by[GN_EXIT_NESTED]++;
		cpu->stats.uffd_faults++;
		(void)resolve(n, cpu, gfn(touch->gfn), touch->is_write, true, &leaf);
		if (began)
			cpu->stats.ns_by[GN_EXIT_NESTED] += gn_kvm_now_ns() - began;
	}
	/* A page that was in already woke nobody. */
	gn_kvm_view_wake(n, gfn(touch->gfn));
	leaf.pages += put_around(n, cpu, &leaf);
	cpu->stats.uffd_bytes += leaf.pages * GN_PAGE_SIZE;
}

void gn_kvm_fill_settle(struct gn_kvm *kvm)
{
	if (!kvm->nested)
		return;
	pthread_mutex_lock(&kvm->nested->fill_lock);
	pthread_mutex_unlock(&kvm->nested->fill_lock);
}

int gn_kvm_fill_ahead(struct gn_kvm_nested *n)
{
	uint64_t at = 0;
	int err = 0;

	pthread_mutex_lock(&n->fill_lock);
	while (at < n->pages && !err) {
		struct leaf leaf = { .pages = 1 };
		struct gn_p2m_info info;

		(void)gn_p2m_query(n->kvm->vm, gfn(at), &info);
		/* What is sealed stays out: it would stop being so. */
		if (info.state == GN_P2M_PRIVATE || info.state == GN_P2M_READONLY ||
		    (info.state == GN_P2M_SHARED && (info.rights & GN_R) && n->uffd_wp))
			err = resolve(n, &n->kvm->cpus[0], gfn(at), false, false, &leaf);
		at = (at | ((leaf.pages ? leaf.pages : 1) - 1)) + 1;
	}
	pthread_mutex_unlock(&n->fill_lock);
	return err;
}

/* ---- Threads -------------------------------------------------------------------------------------------------- */

/* A fault that is queued already is answered once. A full queue: let the vCPU ask again. */
static void enqueue(struct gn_kvm_nested *n, const struct gn_kvm_touch *touch)
{
	unsigned i = 0;

	pthread_mutex_lock(&n->queue_lock);
	while (i < n->queued && (n->queue[i].gfn != touch->gfn || n->queue[i].tid != touch->tid ||
				 n->queue[i].is_write != touch->is_write))
		i++;
	if (i == n->queued && n->queued < GN_KVM_QUEUE)
		n->queue[n->queued++] = *touch;
	else if (i == n->queued)
		gn_kvm_view_wake(n, gfn(touch->gfn));
	pthread_mutex_unlock(&n->queue_lock);
}

static void take_fault(struct gn_kvm_nested *n, const struct uffd_msg *msg)
{
	uint64_t address = msg->arg.pagefault.address - (uintptr_t)n->view;
	struct gn_kvm_touch touch = {
		.gfn = address / GN_PAGE_SIZE,
		.tid = (pid_t)msg->arg.pagefault.feat.ptid,
		.is_write = msg->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WRITE,
	};

	if (!gn_vm_is_over_template(n->kvm->vm)) {
		enqueue(n, &touch);
		return;
	}
	pthread_mutex_lock(&n->view_lock);
	gn_kvm_view_template_answer(n, gfn(touch.gfn));
	pthread_mutex_unlock(&n->view_lock);
}

struct seen {
	unsigned faults, moves;
};

/* All that wait are read at once: another look, that finds nothing, is a system call more for each fault. */
static struct seen read_events(struct gn_kvm_nested *n)
{
	struct uffd_msg messages[EVENTS];
	const ssize_t bytes = read(n->uffd, messages, sizeof(messages));
	struct seen seen = { 0, 0 };

	for (ssize_t i = 0; i < bytes / (ssize_t)sizeof(messages[0]); i++) {
		if (messages[i].event == UFFD_EVENT_PAGEFAULT) {
			take_fault(n, &messages[i]);
			seen.faults++;
		}
		seen.moves += messages[i].event == UFFD_EVENT_REMAP;
	}
	return seen;
}

/* Until there are events, or the other thread has something to say. */
static void await_events(const struct gn_kvm_nested *n, int word_fd)
{
	struct pollfd fds[2] = { { .fd = n->uffd, .events = POLLIN },
				 { .fd = word_fd, .events = POLLIN } };
	eventfd_t said;

	(void)poll(fds, 2, -1);
	if (fds[1].revents & POLLIN)
		(void)eventfd_read(word_fd, &said);
}

static bool dequeue(struct gn_kvm_nested *n, struct gn_kvm_touch *touch, bool *is_stopping)
{
	bool any;

	pthread_mutex_lock(&n->queue_lock);
	any = n->queued;
	*is_stopping = n->is_stopping;
	if (any) {
		*touch = n->queue[0];
		memmove(&n->queue[0], &n->queue[1], --n->queued * sizeof(n->queue[0]));
	}
	pthread_mutex_unlock(&n->queue_lock);
	return any;
}

static void *fill(void *ctx)
{
	struct gn_kvm_nested *n = (struct gn_kvm_nested *)ctx;
	struct gn_kvm_touch touch;
	bool is_stopping = false;

	while (!is_stopping) {
		if (dequeue(n, &touch, &is_stopping)) {
			pthread_mutex_lock(&n->fill_lock);
			answer(n, &touch);
			pthread_mutex_unlock(&n->fill_lock);
		} else if (!is_stopping) {
			await_events(n, n->filler_fd);
			(void)read_events(n);
		}
	}
	return NULL;
}

void gn_kvm_fill_move_begins(struct gn_kvm_nested *n)
{
	pthread_mutex_lock(&n->queue_lock);
	n->moves++;
	pthread_cond_signal(&n->move_begun);
	pthread_mutex_unlock(&n->queue_lock);
}

/* The filler may have read the event, or there was none: then the stand-in waits in vain. */
void gn_kvm_fill_move_ends(struct gn_kvm_nested *n)
{
	bool is_watched;

	pthread_mutex_lock(&n->queue_lock);
	is_watched = n->moves_over != n->moves;
	n->moves_over = n->moves;
	pthread_mutex_unlock(&n->queue_lock);
	if (is_watched)
		(void)eventfd_write(n->stand_in_fd, 1);
}

/* An event that is read after move @seen began is of that move or of a later one. Returns the move to watch, 0: stop. */
static uint64_t next_move(struct gn_kvm_nested *n, uint64_t seen)
{
	uint64_t move;

	pthread_mutex_lock(&n->queue_lock);
	if (seen > n->moves_over)
		n->moves_over = seen;
	while (n->moves_over == n->moves && !n->is_stand_in_stopping)
		pthread_cond_wait(&n->move_begun, &n->queue_lock);
	move = n->is_stand_in_stopping ? 0 : n->moves;
	pthread_mutex_unlock(&n->queue_lock);
	return move;
}

static void *stand_in(void *ctx)
{
	struct gn_kvm_nested *n = (struct gn_kvm_nested *)ctx;
	uint64_t move = next_move(n, 0);

	while (move) {
		const struct seen seen = read_events(n);

		if (seen.faults)
			(void)eventfd_write(n->filler_fd, 1);
		if (!seen.faults && !seen.moves)
			await_events(n, n->stand_in_fd);
		move = next_move(n, seen.moves ? move : 0);
	}
	return NULL;
}

static void close_words(struct gn_kvm_nested *n)
{
	if (n->filler_fd >= 0)
		close(n->filler_fd);
	if (n->stand_in_fd >= 0)
		close(n->stand_in_fd);
}

static void stop_filler(struct gn_kvm_nested *n)
{
	pthread_mutex_lock(&n->queue_lock);
	n->is_stopping = true;
	pthread_mutex_unlock(&n->queue_lock);
	(void)eventfd_write(n->filler_fd, 1);
	pthread_join(n->filler, NULL);
}

/* Nobody moves a mapping any more. */
static void stop_stand_in(struct gn_kvm_nested *n)
{
	pthread_mutex_lock(&n->queue_lock);
	n->is_stand_in_stopping = true;
	pthread_cond_signal(&n->move_begun);
	pthread_mutex_unlock(&n->queue_lock);
	(void)eventfd_write(n->stand_in_fd, 1);
	pthread_join(n->stand_in, NULL);
}

int gn_kvm_fill_start(struct gn_kvm_nested *n)
{
	sigset_t all, old;
	int err;

	n->filler_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	n->stand_in_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (n->filler_fd < 0 || n->stand_in_fd < 0) {
		err = errno;
		close_words(n);
		return -err;
	}
	/* The program's signals are for its own threads. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	err = pthread_create(&n->stand_in, NULL, stand_in, n);
	if (!err) {
		err = pthread_create(&n->filler, NULL, fill, n);
		if (err)
			stop_stand_in(n);
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	n->has_threads = !err;
	if (err)
		close_words(n);
	return -err;
}

void gn_kvm_fill_stop(struct gn_kvm_nested *n)
{
	if (!n->has_threads)
		return;
	stop_filler(n);
	stop_stand_in(n);
	close_words(n);
	n->has_threads = false;
}
