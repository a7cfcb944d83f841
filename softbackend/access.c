/* SPDX-License-Identifier: MIT */
/*
 * access.c - loads, stores, fetches, batches of references, probes.
 *
 * The common case, one page and an L1 TLB hit, is a handful of instructions on purpose and inlined into
 * each entry point. Everything else goes through access_pieces(): one piece per page, all translated in one
 * read section before any is written, with faults answered outside of it and the rest tried again.
 *
 * A piece whose answer is not memory (an emulated store, MMIO, a dropped store) keeps that answer over
 * the retries of the other one, and is carried out once both have a place to go; but not over a fault handler of the guest.
 */
#include "hit.h"

#include <errno.h>
#include <string.h>

struct piece {
	struct gn_access access;
	uint16_t bit;
	struct gn_soft_target target;
	unsigned offset; /* of its first byte in the datum */
};

static inline bool crosses_page(uint64_t va, unsigned bytes)
{
	return (va & (GN_PAGE_SIZE - 1)) + bytes > GN_PAGE_SIZE;
}

static inline uint64_t load_memory(const uint8_t *at, unsigned bytes)
{
	uint64_t value = 0;

	if (GN_LIKELY(bytes == 8 && !((uintptr_t)at & 7)))
		return __atomic_load_n((const uint64_t *)(const void *)at, __ATOMIC_RELAXED);
	if (bytes == 4 && !((uintptr_t)at & 3))
		return __atomic_load_n((const uint32_t *)(const void *)at, __ATOMIC_RELAXED);
	memcpy(&value, at, bytes);
	return value;
}

static inline void store_memory(uint8_t *at, unsigned bytes, uint64_t value)
{
	if (GN_LIKELY(bytes == 8 && !((uintptr_t)at & 7)))
		__atomic_store_n((uint64_t *)(void *)at, value, __ATOMIC_RELAXED);
	else if (bytes == 4 && !((uintptr_t)at & 3))
		__atomic_store_n((uint32_t *)(void *)at, (uint32_t)value, __ATOMIC_RELAXED);
	else
		memcpy(at, &value, bytes);
}

/* Pieces whose place is memory; inside the read section. @datum NULL: translate only. */
static void perform_memory(struct gn_soft_cpu *cpu, struct piece *pieces, unsigned count,
			   uint8_t *datum)
{
	for (unsigned i = 0; i < count; i++) {
		struct piece *p = &pieces[i];
		uint64_t value = 0;

		if (p->target.kind != GN_TARGET_MEMORY)
			continue;
		gn_soft_charge_base(cpu, gn_soft_data_cycles(cpu, p->access.kind, p->target.hpa) -
						 (i ? cpu->cost.access : 0));
		if (!datum || p->access.kind == GN_FETCH)
			continue;
		if (p->access.kind == GN_READ) {
			value = load_memory(cpu->memory + p->target.hpa, p->access.size);
			memcpy(datum + p->offset, &value, p->access.size);
		} else {
			memcpy(&value, datum + p->offset, p->access.size);
			store_memory(cpu->memory + p->target.hpa, p->access.size, value);
		}
	}
}

/* A device's registers, or an empty bus. A device may change the p2m, and flushes come of that. */
static void access_device(struct gn_soft_cpu *cpu, const struct piece *p, uint8_t *datum)
{
	const struct gn_soft *soft = cpu->soft;
	bool is_write = p->access.kind == GN_WRITE, is_answered = false;
	uint64_t value = 0;

	if (is_write)
		memcpy(&value, datum + p->offset, p->access.size);
	if (soft->mmio) {
		gn_soft_call(cpu);
		is_answered = soft->mmio(soft->mmio_ctx, cpu->vcpu->index, p->target.gpa.v,
					 p->access.size, is_write, &value);
		gn_soft_return(cpu);
	}
	if (!is_answered)
		value = ~(uint64_t)0;
	if (!is_write)
		memcpy(datum + p->offset, &value, p->access.size);
}

/* The others; outside the read section. False: the guest was stopped. */
static bool perform_special(struct gn_soft_cpu *cpu, struct piece *p, uint8_t *datum)
{
	int err;

	if (p->target.kind == GN_TARGET_MMIO && datum)
		access_device(cpu, p, datum);
	if (p->target.kind != GN_TARGET_MEMORY)
		gn_soft_charge_base(cpu, p->offset ? 0 : cpu->cost.access);
	if (p->target.kind != GN_TARGET_EMULATE || !datum)
		return true;
	gn_soft_call(cpu);
	err = gn_vcpu_store(cpu->vcpu, p->target.gpa, datum + p->offset, p->access.size);
	gn_soft_return(cpu);
	if (!err)
		return true;
	gn_soft_fail(cpu, err == -ENOMEM ? err : -ECANCELED,
		     "an emulated store to guest-physical %#llx failed: error %d",
		     (unsigned long long)p->target.gpa.v, -err);
	return false;
}

/* Shadow tables translate to host addresses without ever naming a GPA, and TLB entries don't keep it: the
 * guest's tables say it. Asked before a store that might change them; inside the read section. */
static gpa_t find_gpa(struct gn_soft_cpu *cpu, const struct gn_access *access)
{
	struct gn_guest_walk walk;

	gn_guest_walk(cpu->vm, &cpu->vcpu->paging, cpu->vcpu->regs.cr3, access, 0, &walk);
	return walk.end == GN_GW_OK ? walk.t.gpa : gpa(0);
}

/* Translate what has no place yet. The index of a piece that faulted, or @count. Read section. */
static unsigned translate_pieces(struct gn_soft_cpu *cpu, struct piece *pieces, unsigned count,
				 struct gn_soft_fault *fault)
{
	for (unsigned i = 0; i < count; i++) {
		struct piece *p = &pieces[i];

		if (p->target.kind != GN_TARGET_NONE)
			continue;
		if (GN_UNLIKELY(cpu->is_deprivileged && p->access.implicit)) {
			*fault = (struct gn_soft_fault){ .kind = GN_SOFT_SOFTWARE };
			return i;
		}
		if (!gn_soft_translate(cpu, &p->access, p->bit, NULL, &p->target.hpa, fault))
			return i;
	}
	return count;
}

/* Memory that software found for us (interp) stays found; what the hardware found is looked up again. */
static void mark_memory(struct piece *pieces, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		if (pieces[i].target.kind == GN_TARGET_NONE)
			pieces[i].target.kind = GN_TARGET_MEMORY;
}

/* What software found is a place of the p2m as it was then: if that has changed, it is looked for anew. Inside the read section,
 * whose end a change that begins later waits for before the place is another's. */
static void forget_stale(struct gn_soft_cpu *cpu, struct piece *pieces, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		struct gn_soft_target *target = &pieces[i].target;

		if (GN_UNLIKELY(target->kind == GN_TARGET_MEMORY) &&
		    gn_p2m_retry(&cpu->vm->p2m, target->sequence))
			target->kind = GN_TARGET_NONE;
	}
}

static void forget_all(struct piece *pieces, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		pieces[i].target.kind = GN_TARGET_NONE;
}

static __attribute__((noinline)) bool access_pieces(struct gn_soft_cpu *cpu, struct piece *pieces,
						    unsigned count, uint8_t *datum)
{
	struct gn_soft_fault fault;

	cpu->counters->accesses++;
	for (unsigned tries = 0;; tries++) {
		unsigned at;
		enum gn_soft_verdict verdict;

		gn_soft_enter(cpu);
		forget_stale(cpu, pieces, count);
		at = translate_pieces(cpu, pieces, count, &fault);
		if (GN_LIKELY(at == count)) {
			mark_memory(pieces, count);
			if (GN_UNLIKELY(cpu->probe != NULL))
				cpu->probe->gpa = find_gpa(cpu, &pieces[0].access);
			perform_memory(cpu, pieces, count, datum);
			gn_soft_leave();
			break;
		}
		gn_soft_leave();
		verdict = gn_soft_answer(cpu, &pieces[at].access, &fault, &pieces[at].target);
		if (verdict == GN_SOFT_END)
			return false;
		/* The guest's handler may have made anything of its tables, and of what the other piece is. */
		if (verdict == GN_SOFT_RESTART)
			forget_all(pieces, count);
		if (GN_UNLIKELY(tries == GN_SOFT_MAX_RETRIES)) {
			gn_soft_fail(cpu, -ECANCELED,
				     "an access to %#llx did not get through in %d tries",
				     (unsigned long long)pieces[at].access.va.v,
				     GN_SOFT_MAX_RETRIES);
			return false;
		}
	}
	for (unsigned i = 0; i < count; i++)
		if (pieces[i].target.kind != GN_TARGET_MEMORY &&
		    !perform_special(cpu, &pieces[i], datum))
			return false;
	return true;
}

bool gn_soft_access(struct gn_soft_cpu *cpu, uint64_t va, unsigned kind, unsigned bytes,
		    uint64_t *value)
{
	struct piece pieces[2] = { { .bit = gn_soft_access_bit(kind, cpu->mode) } };
	unsigned first = crosses_page(va, bytes) ? (unsigned)(-va & (GN_PAGE_SIZE - 1)) : bytes;
	unsigned count = first < bytes ? 2 : 1;

	pieces[0].access = (struct gn_access){ .va = gva(va),
					       .kind = (uint8_t)kind,
					       .size = (uint8_t)first,
					       .user = cpu->user,
					       .ac = cpu->ac };
	if (count == 2) {
		pieces[1] = pieces[0];
		pieces[1].access.va = gva(va + first);
		pieces[1].access.size = (uint8_t)(bytes - first);
		pieces[1].offset = first;
	}
	return access_pieces(cpu, pieces, count, (uint8_t *)value);
}

static inline void count_hit(struct gn_soft_cpu *cpu, unsigned kind, uint64_t hpa)
{
	cpu->counters->accesses++;
	gn_soft_charge_base(cpu, gn_soft_data_cycles(cpu, kind, hpa));
}

uint64_t gn_soft_load(struct gn_soft_cpu *cpu, gva_t va, unsigned bytes)
{
	uint64_t hpa, value = 0;

	if (GN_LIKELY(!crosses_page(va.v, bytes))) {
		gn_soft_enter(cpu);
		if (GN_LIKELY(gn_soft_reach(cpu, va.v, GN_READ, cpu->mode, &hpa))) {
			value = load_memory(cpu->memory + hpa, bytes);
			count_hit(cpu, GN_READ, hpa);
			gn_soft_leave();
			return value;
		}
		gn_soft_leave();
	}
	if (!gn_soft_access(cpu, va.v, GN_READ, bytes, &value))
		return ~(uint64_t)0;
	return value;
}

void gn_soft_store(struct gn_soft_cpu *cpu, gva_t va, unsigned bytes, uint64_t value)
{
	uint64_t hpa;

	if (GN_LIKELY(!crosses_page(va.v, bytes))) {
		gn_soft_enter(cpu);
		if (GN_LIKELY(gn_soft_reach(cpu, va.v, GN_WRITE, cpu->mode, &hpa))) {
			store_memory(cpu->memory + hpa, bytes, value);
			count_hit(cpu, GN_WRITE, hpa);
			gn_soft_leave();
			return;
		}
		gn_soft_leave();
	}
	gn_soft_access(cpu, va.v, GN_WRITE, bytes, &value);
}

void gn_soft_fetch(struct gn_soft_cpu *cpu, gva_t va)
{
	uint64_t hpa;

	gn_soft_enter(cpu);
	if (GN_LIKELY(gn_soft_reach(cpu, va.v, GN_FETCH, cpu->mode, &hpa))) {
		count_hit(cpu, GN_FETCH, hpa);
		gn_soft_leave();
		return;
	}
	gn_soft_leave();
	gn_soft_access(cpu, va.v, GN_FETCH, 1, NULL);
}

void gn_soft_compute(struct gn_soft_cpu *cpu, uint64_t count)
{
	uint64_t q16 = count * cpu->cost.instruction_q16 + cpu->instruction_rest_q16;

	cpu->instruction_rest_q16 = q16 & 0xffff;
	gn_soft_charge_base(cpu, q16 >> 16);
}

int gn_soft_probe(struct gn_soft_cpu *cpu, const struct gn_access *access, uint64_t *value,
		  struct gn_soft_outcome *out)
{
	struct piece piece = { .access = *access,
			       .bit = gn_soft_access_bit(access->kind,
							 gn_soft_mode_of(cpu, access)) };
	uint64_t datum = access->kind == GN_WRITE && value ? *value : 0;
	bool user = cpu->user, ac = cpu->ac, done;
	/* An implicit access is no instruction's own: in a deprivileged machine the VMM makes it. */
	bool has_privilege = cpu->soft->deprivileged && !access->implicit;
	int err;

	if (!access->size || access->size > 8 || crosses_page(access->va.v, access->size) ||
	    access->kind > GN_FETCH)
		return -EINVAL;
	*out = (struct gn_soft_outcome){ .faulted = false };
	cpu->probe = out;
	cpu->error = 0;
	if (has_privilege && !gn_soft_set_privilege(cpu, access->user, access->ac)) {
		has_privilege = false;
		done = false;
	} else {
		done = access_pieces(cpu, &piece, 1, (uint8_t *)&datum);
	}
	cpu->probe = NULL;
	err = done ? 0 : cpu->error;
	if (!done) /* told here, and not once more at the end of the run */
		cpu->error = 0;
	if (has_privilege && !gn_soft_set_privilege(cpu, user, ac))
		return cpu->error;
	if (!done)
		return err;
	if (access->kind == GN_READ && value)
		*value = datum;
	if (piece.target.kind == GN_TARGET_MEMORY)
		out->hpa = hpa(piece.target.hpa);
	else
		out->gpa = piece.target.gpa;
	return 0;
}
