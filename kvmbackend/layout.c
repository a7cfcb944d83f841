/* SPDX-License-Identifier: MIT */
/*
 * layout.c - what the memory slots make of the guest's gfns, and the dirty log that hangs on them.
 *
 * Three kinds of gfn have slots to tell them apart: RAM, read-only memory (a store comes out as an MMIO exit), and
 * nothing (any access does). A ballooned gfn is RAM here: it is merely never in the view. Balloons take single pages from
 * all over the place, and a slot is a precious thing; the view has no such limit.
 *
 * A SHARED one is RAM as well, which the view guards. A read-only slot would not do: what the processor itself writes, a
 * stack at an exception, bits of the guest's tables and descriptors, would end in KVM's emulator, which can't make it so.
 *
 * The kernel changes slots one by one, so a change is made while all vCPUs are held outside. Who follows: the thread that
 * changed the p2m, when its change is complete; and a vCPU that was faster, when it finds out.
 *
 * Dirty log: KVM's, by bitmap or by ring. What was in a slot that goes is noted as dirty as a whole (slots.c): the log may
 * be too large, never too small. A ring's entries may still sit in a processor's own log buffer while its vCPU is in
 * the guest, so a harvest has each come out once.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "nested.h"

enum kind { KIND_RAM, KIND_ROM, KIND_NOTHING };

static enum kind kind_of(const struct gn_kvm_nested *n, uint64_t at)
{
	switch (gn_p2m_word_state(gn_p2m_get(&n->kvm->vm->p2m, gfn(at)))) {
	case GN_P2M_MMIO:
		return KIND_NOTHING;
	case GN_P2M_READONLY:
		return KIND_ROM;
	default:
		return KIND_RAM;
	}
}

/* Bring [start, end) of the kinds up to the p2m. */
static bool update_kinds(struct gn_kvm_nested *n, uint64_t start, uint64_t end)
{
	bool changed = false;

	for (uint64_t at = start; at < end; at++) {
		uint8_t kind = (uint8_t)kind_of(n, at);

		changed |= n->kinds[at] != kind;
		n->kinds[at] = kind;
	}
	return changed;
}

static uint64_t run_end(const struct gn_kvm_nested *n, uint64_t start)
{
	uint64_t end = start + 1;

	while (end < n->pages && n->kinds[end] == n->kinds[start])
		end++;
	return end;
}

static size_t count_slots(const struct gn_kvm_nested *n)
{
	size_t count = 0;

	for (uint64_t at = 0; at < n->pages; at = run_end(n, at))
		count += n->kinds[at] != KIND_NOTHING;
	return count;
}

/* Make the slots what the kinds say. slots_lock held, every vCPU outside. */
static int declare(struct gn_kvm_nested *n, char *why, size_t why_bytes)
{
	struct gn_kvm_slot *slots;
	size_t count = count_slots(n), i = 0;
	int err;

	slots = gn_alloc_should_fail() ? NULL : calloc(count ? count : 1, sizeof(*slots));
	if (!slots)
		return gn_kvm_sys_fail(why, why_bytes, "memory slots", ENOMEM);
	for (uint64_t at = 0, end; at < n->pages; at = end) {
		end = run_end(n, at);
		if (n->kinds[at] == KIND_NOTHING)
			continue;
		slots[i++] = (struct gn_kvm_slot){
			.gpa = at * GN_PAGE_SIZE,
			.bytes = (end - at) * GN_PAGE_SIZE,
			.host = n->view + at * GN_PAGE_SIZE,
			.is_readonly = n->kinds[at] == KIND_ROM,
			/* A read-only slot has nothing to log, and KVM refuses it. */
			.logs_dirty = n->logs_dirty && n->kinds[at] == KIND_RAM,
		};
	}
	err = gn_kvm_slots_set(n->kvm, slots, count, why, why_bytes);
	free(slots);
	return err;
}

int gn_kvm_layout_follow(struct gn_kvm_nested *n, gfn_t start, gfn_t end, bool *changed, char *why,
			 size_t why_bytes)
{
	uint64_t last = end.v < n->pages ? end.v : n->pages;
	int err = 0;

	*changed = false;
	pthread_mutex_lock(&n->slots_lock);
	if (atomic_load(&n->is_active))
		*changed = update_kinds(n, start.v, last);
	if (*changed) {
		gn_kvm_hold(n->kvm);
		err = declare(n, why, why_bytes);
		gn_kvm_release(n->kvm);
	}
	pthread_mutex_unlock(&n->slots_lock);
	return err;
}

int gn_kvm_layout_enter(struct gn_kvm_nested *n)
{
	int err;

	pthread_mutex_lock(&n->slots_lock);
	n->logs_dirty = gn_dirty_is_logged(n->kvm->vm);
	(void)update_kinds(n, 0, n->pages);
	err = declare(n, n->kvm->why, sizeof(n->kvm->why));
	pthread_mutex_unlock(&n->slots_lock);
	return err;
}

/* ---- Dirty log ------------------------------------------------------------------------------------------------ */

static void drain_ring(struct gn_kvm_nested *n, struct gn_kvm_nested_cpu *cpu)
{
	uint32_t mask = n->kvm->config.dirty_ring_entries - 1;

	for (;; cpu->ring_next++) {
		struct kvm_dirty_gfn *entry = &cpu->ring[cpu->ring_next & mask];
		struct gn_kvm_slot slot;

		/* Pairs with the kernel's release of the flag; what we store releases the entry to it. */
		if (!(__atomic_load_n(&entry->flags, __ATOMIC_ACQUIRE) & KVM_DIRTY_GFN_F_DIRTY))
			break;
		if (gn_kvm_slots_get(n->kvm, entry->slot & 0xffff, &slot))
			gn_dirty_note(n->kvm->vm, gfn((slot.gpa >> GN_PAGE_SHIFT) + entry->offset));
		__atomic_store_n(&entry->flags, KVM_DIRTY_GFN_F_RESET, __ATOMIC_RELEASE);
	}
}

/* slots_lock held. */
static int drain_rings(struct gn_kvm_nested *n)
{
	int done;

	for (unsigned i = 0; i < n->kvm->cpu_count; i++)
		drain_ring(n, n->kvm->cpus[i].nested);
	done = gn_kvm_ioctl_value(n->kvm->vm_fd, KVM_RESET_DIRTY_RINGS, 0);
	return done < 0 ? done : 0;
}

int gn_kvm_layout_ring_full(struct gn_kvm_nested *n)
{
	int err;

	pthread_mutex_lock(&n->slots_lock);
	err = drain_rings(n);
	pthread_mutex_unlock(&n->slots_lock);
	return err;
}

static int fetch_bitmap(struct gn_kvm_nested *n, uint32_t id, const struct gn_kvm_slot *slot,
			uint64_t *bitmap)
{
	struct kvm_dirty_log log = { .slot = id, .dirty_bitmap = bitmap };
	uint64_t pages = slot->bytes / GN_PAGE_SIZE, first = slot->gpa / GN_PAGE_SIZE;
	int err;

	memset(bitmap, 0, (pages + 63) / 64 * 8);
	err = gn_kvm_ioctl(n->kvm->vm_fd, KVM_GET_DIRTY_LOG, &log);
	for (uint64_t word = 0; !err && word < (pages + 63) / 64; word++)
		for (uint64_t bits = bitmap[word]; bits; bits &= bits - 1)
			gn_dirty_note(n->kvm->vm,
				      gfn(first + word * 64 + (unsigned)__builtin_ctzll(bits)));
	return err;
}

/* slots_lock held. */
static int fetch_bitmaps(struct gn_kvm_nested *n)
{
	uint64_t *bitmap = gn_alloc_should_fail() ? NULL : malloc((n->pages + 63) / 64 * 8);
	struct gn_kvm_slot slot;
	int err = bitmap ? 0 : -ENOMEM;

	for (uint32_t id = 0; !err && gn_kvm_slots_get(n->kvm, id, &slot); id++)
		if (slot.bytes && slot.logs_dirty)
			err = fetch_bitmap(n, id, &slot, bitmap);
	free(bitmap);
	return err;
}

static int fetch_log(struct gn_kvm_nested *n)
{
	int err;

	if (n->kvm->config.dirty_ring_entries)
		gn_kvm_quiesce(n->kvm);
	pthread_mutex_lock(&n->slots_lock);
	err = n->kvm->config.dirty_ring_entries ? drain_rings(n) : fetch_bitmaps(n);
	pthread_mutex_unlock(&n->slots_lock);
	return err;
}

int gn_kvm_nested_dirty_sync(struct gn_kvm *kvm)
{
	struct gn_kvm_nested *n = kvm->nested;

	return n && atomic_load(&n->is_active) ? fetch_log(n) : 0;
}

/* Flags of slots are changed in place: nothing a guest could notice. */
int gn_kvm_nested_dirty_log(struct gn_kvm *kvm, bool on)
{
	struct gn_kvm_nested *n = kvm->nested;
	char why[256];
	int err;

	if (!n || !atomic_load(&n->is_active))
		return 0; /* entering asks the engine */
	pthread_mutex_lock(&n->slots_lock);
	n->logs_dirty = on;
	err = declare(n, why, sizeof(why));
	if (err)
		gn_log(GN_LOG_ERROR, "dirty log: %s", why);
	pthread_mutex_unlock(&n->slots_lock);
	return err;
}

/* Translations go with the slots. What they logged is fetched first, if the log goes on. */
void gn_kvm_layout_leave(struct gn_kvm_nested *n)
{
	char why[256];

	if (gn_dirty_is_logged(n->kvm->vm))
		(void)fetch_log(n);
	pthread_mutex_lock(&n->slots_lock);
	if (gn_kvm_slots_set(n->kvm, NULL, 0, why, sizeof(why)))
		gn_log(GN_LOG_ERROR, "memory slots stay: %s", why);
	pthread_mutex_unlock(&n->slots_lock);
}

/* ---- Birth and end --------------------------------------------------------------------------------------------- */

static int map_ring(struct gn_kvm_nested *n, struct gn_kvm_cpu *cpu)
{
	size_t bytes = n->kvm->config.dirty_ring_entries * sizeof(struct kvm_dirty_gfn);
	void *ring = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, cpu->fd,
			  KVM_DIRTY_LOG_PAGE_OFFSET * (off_t)GN_PAGE_SIZE);

	if (ring == MAP_FAILED)
		return -errno;
	cpu->nested->ring = (struct kvm_dirty_gfn *)ring;
	return 0;
}

int gn_kvm_layout_new(struct gn_kvm_nested *n)
{
	int err = 0;

	n->kinds = gn_alloc_should_fail() ? NULL : calloc(n->pages, 1);
	if (!n->kinds)
		return -ENOMEM;
	for (unsigned i = 0; n->kvm->config.dirty_ring_entries && i < n->kvm->cpu_count && !err;
	     i++)
		err = map_ring(n, &n->kvm->cpus[i]);
	return err;
}

void gn_kvm_layout_destroy(struct gn_kvm_nested *n)
{
	for (unsigned i = 0; i < n->kvm->cpu_count; i++) {
		struct gn_kvm_nested_cpu *cpu = n->kvm->cpus[i].nested;

		if (cpu && cpu->ring)
			munmap(cpu->ring, n->kvm->config.dirty_ring_entries * sizeof(*cpu->ring));
	}
	free(n->kinds);
}
