/* SPDX-License-Identifier: MIT */
/*
 * guest_memory.c - guest-virtual memory, as the instruction we carry out would reach it.
 *
 * The translation is software's (mmu/software_access.h): the guest's tables by the guest's own privilege, A and D set,
 * frames filled in. So what the hardware's tables hold at the moment, or whose view is in force, is of no
 * concern, and the error codes are the guest's. Stores go through the engine, which tells the scheme.
 *
 * An access is cut at page borders. A store looks at all its pages before it changes the first, so a fault on the second
 * page leaves the first as it was (the guest's tables may change between look and store; then the part before is stored, as
 * a processor may do it too).
 *
 * What is no memory is a device's (devices.c); ROM swallows stores. A ballooned page stops the guest. A locked exchange
 * with a device does nothing.
 */
#include "depriv.h"

#include <errno.h>
#include <string.h>

#include "mmu/software_access.h"

enum outcome { IS_MEMORY, IS_DEVICE, IS_DROPPED };

static struct gn_access access_of(const struct gn_kvm_cpu *cpu, enum gn_as as, uint64_t va,
				  enum gn_access_kind kind, unsigned bytes)
{
	return (struct gn_access){ .va = gva(va),
				   .kind = kind,
				   .size = (uint8_t)bytes,
				   .user = cpu->depriv->user,
				   .implicit = as == GN_AS_SYSTEM,
				   .ac = cpu->depriv->v.rflags & X86_FLAG_AC };
}

/* The p2m forbids it. A store to ROM is dropped, as a memory controller would; a ballooned page the guest gave
 * away and must not touch. */
static enum gn_kvm_done denied(struct gn_kvm_cpu *cpu, const struct gn_access *access,
			       const struct gn_fix *fix, enum outcome *outcome)
{
	p2m_word_t word = gn_p2m_get(&cpu->kvm->vm->p2m, gpa_to_gfn(fix->gpa));

	*outcome = IS_DROPPED;
	if (access->kind == GN_WRITE && gn_p2m_word_state(word) == GN_P2M_READONLY)
		return GN_DONE;
	gn_kvm_end(cpu, GN_KVM_STOP_GUEST, "%s (address %#llx, guest-physical %#llx)",
		   fix->why ? fix->why : "the p2m forbids an access",
		   (unsigned long long)access->va.v, (unsigned long long)fix->gpa.v);
	return GN_ENDS;
}

static enum gn_kvm_done translate(struct gn_kvm_cpu *cpu, const struct gn_access *access, gpa_t *at,
				  enum outcome *outcome, struct gn_event *event)
{
	struct gn_fix fix = { .kind = GN_FIX_STOP };
	uint64_t filled = 0;
	int err = gn_software_access(cpu->vcpu, access, &fix, &filled);

	if (err) {
		gn_kvm_end(cpu, GN_KVM_STOP_ERROR,
			   "the host could not resolve an access to %#llx: %s",
			   (unsigned long long)access->va.v, strerror(-err));
		return GN_ENDS;
	}
	*outcome = IS_MEMORY;
	*at = fix.gpa;
	switch (fix.kind) {
	case GN_FIX_ACCESS:
		return GN_DONE;
	case GN_FIX_INJECT:
		*event = gn_event_fault(GN_VEC_PF, fix.error_code);
		event->cr2 = access->va.v;
		return GN_RAISES;
	case GN_FIX_INJECT_GP:
		*event = gn_event_fault(GN_VEC_GP, 0);
		return GN_RAISES;
	case GN_FIX_MMIO:
		*outcome = IS_DEVICE;
		return GN_DONE;
	case GN_FIX_DENIED:
		return denied(cpu, access, &fix, outcome);
	default:
		gn_kvm_end(cpu, GN_KVM_STOP_GUEST, "%s (address %#llx, guest-physical %#llx)",
			   fix.why ? fix.why : "the engine stopped the guest",
			   (unsigned long long)access->va.v, (unsigned long long)fix.gpa.v);
		return GN_ENDS;
	}
}

static unsigned up_to_page_end(uint64_t va, unsigned bytes)
{
	const uint64_t room = GN_PAGE_SIZE - (va & (GN_PAGE_SIZE - 1));

	return bytes < room ? bytes : (unsigned)room;
}

/* False: the frame went away since it was translated. */
static bool copy_out(struct gn_vm *vm, gpa_t at, void *buf, unsigned bytes)
{
	const void *from;

	gn_rcu_read_lock();
	from = gn_p2m_pointer(vm, at);
	if (from && bytes == sizeof(uint64_t) && at.v % sizeof(uint64_t) == 0) {
		const uint64_t word = __atomic_load_n((const uint64_t *)from, __ATOMIC_ACQUIRE);

		memcpy(buf, &word, sizeof(word));
	} else if (from) {
		memcpy(buf, from, bytes);
	}
	gn_rcu_read_unlock();
	return from;
}

/* Code is not fetched from a device's registers: such a fetch, and a longer access than a register's, finds an
 * empty bus. */
static void read_device(struct gn_kvm_cpu *cpu, const struct gn_access *access, gpa_t at, void *buf)
{
	if (access->kind == GN_FETCH || access->size > sizeof(uint64_t))
		memset(buf, 0xff, access->size);
	else
		gn_kvm_mmio(cpu, at, buf, access->size, false);
}

static enum gn_kvm_done read_page(struct gn_kvm_cpu *cpu, const struct gn_access *access, void *buf,
				  struct gn_event *event)
{
	enum outcome outcome;
	gpa_t at;

	do {
		enum gn_kvm_done done = translate(cpu, access, &at, &outcome, event);

		if (done != GN_DONE)
			return done;
		if (outcome != IS_MEMORY) {
			read_device(cpu, access, at, buf);
			return GN_DONE;
		}
	} while (!copy_out(cpu->kvm->vm, at, buf, access->size));
	return GN_DONE;
}

enum gn_kvm_done gn_kvm_read(struct gn_kvm_cpu *cpu, enum gn_as as, uint64_t va, void *buf,
			     unsigned bytes, struct gn_event *event)
{
	uint8_t *to = (uint8_t *)buf;

	while (bytes) {
		const unsigned part = up_to_page_end(va, bytes);
		const struct gn_access access = access_of(cpu, as, va, GN_READ, part);
		enum gn_kvm_done done = read_page(cpu, &access, to, event);

		if (done != GN_DONE)
			return done;
		va += part;
		to += part;
		bytes -= part;
	}
	return GN_DONE;
}

/* ---- Stores --------------------------------------------------------------------------------------------------- */

typedef int store_fn(struct gn_kvm_cpu *cpu, gpa_t at, const void *buf, unsigned bytes);

static int store_of_guest(struct gn_kvm_cpu *cpu, gpa_t at, const void *buf, unsigned bytes)
{
	return gn_vcpu_store(cpu->vcpu, at, buf, bytes);
}

static int store_of_system(struct gn_kvm_cpu *cpu, gpa_t at, const void *buf, unsigned bytes)
{
	return gn_vm_write(cpu->kvm->vm, at, buf, bytes);
}

static void write_device(struct gn_kvm_cpu *cpu, const struct gn_access *access, gpa_t at,
			 const void *buf)
{
	uint64_t value = 0;

	if (access->size > sizeof(value))
		return;
	memcpy(&value, buf, access->size);
	gn_kvm_mmio(cpu, at, &value, access->size, true);
}

static enum gn_kvm_done store_page(struct gn_kvm_cpu *cpu, const struct gn_access *access,
				   const void *buf, store_fn *store, struct gn_event *event)
{
	int err;

	do {
		enum outcome outcome;
		gpa_t at;
		enum gn_kvm_done done = translate(cpu, access, &at, &outcome, event);

		if (done != GN_DONE || outcome == IS_DROPPED)
			return done;
		if (outcome == IS_DEVICE) {
			write_device(cpu, access, at, buf);
			return GN_DONE;
		}
		err = store(cpu, at, buf, access->size);
	} while (err == -EFAULT); /* it was memory a moment ago: look again */
	if (!err)
		return GN_DONE;
	gn_kvm_end(cpu, GN_KVM_STOP_ERROR, "the host could not store to %#llx: %s",
		   (unsigned long long)access->va.v, strerror(-err));
	return GN_ENDS;
}

static enum gn_kvm_done store(struct gn_kvm_cpu *cpu, enum gn_as as, uint64_t va, const void *buf,
			      unsigned bytes, store_fn *fn, struct gn_event *event)
{
	const uint8_t *from = (const uint8_t *)buf;
	const unsigned first = up_to_page_end(va, bytes);
	enum gn_kvm_done done = GN_DONE;

	if (first < bytes) {
		const struct gn_access second =
			access_of(cpu, as, va + first, GN_WRITE, bytes - first);
		enum outcome outcome;
		gpa_t at;

		done = translate(cpu, &second, &at, &outcome, event);
	}
	while (bytes && done == GN_DONE) {
		const unsigned part = up_to_page_end(va, bytes);
		const struct gn_access access = access_of(cpu, as, va, GN_WRITE, part);

		done = store_page(cpu, &access, from, fn, event);
		va += part;
		from += part;
		bytes -= part;
	}
	return done;
}

enum gn_kvm_done gn_kvm_write(struct gn_kvm_cpu *cpu, enum gn_as as, uint64_t va, const void *buf,
			      unsigned bytes, struct gn_event *event)
{
	return store(cpu, as, va, buf, bytes, store_of_guest, event);
}

enum gn_kvm_done gn_kvm_push(struct gn_kvm_cpu *cpu, uint64_t va, const void *buf, unsigned bytes,
			     struct gn_event *event)
{
	return store(cpu, GN_AS_SYSTEM, va, buf, bytes, store_of_system, event);
}

/* Locked across a page border or misaligned: two steps here, where a processor takes a bus lock. */
static enum gn_kvm_done exchange_torn(struct gn_kvm_cpu *cpu, uint64_t va, uint64_t expected,
				      uint64_t desired, unsigned bytes, bool *done,
				      struct gn_event *event)
{
	uint64_t now = 0;
	enum gn_kvm_done end = gn_kvm_read(cpu, GN_AS_GUEST, va, &now, bytes, event);

	*done = now == expected;
	if (end != GN_DONE || !*done)
		return end;
	return gn_kvm_write(cpu, GN_AS_GUEST, va, &desired, bytes, event);
}

enum gn_kvm_done gn_kvm_exchange(struct gn_kvm_cpu *cpu, uint64_t va, uint64_t expected,
				 uint64_t desired, unsigned bytes, bool *done,
				 struct gn_event *event)
{
	const struct gn_access access = access_of(cpu, GN_AS_GUEST, va, GN_WRITE, bytes);
	int err;

	if (va % bytes)
		return exchange_torn(cpu, va, expected, desired, bytes, done, event);
	do {
		enum outcome outcome;
		gpa_t at;
		enum gn_kvm_done end = translate(cpu, &access, &at, &outcome, event);

		*done = true;
		if (end != GN_DONE || outcome != IS_MEMORY)
			return end;
		err = gn_vcpu_exchange(cpu->vcpu, at, expected, desired, bytes, done);
	} while (err == -EFAULT);
	if (!err)
		return GN_DONE;
	gn_kvm_end(cpu, GN_KVM_STOP_ERROR, "the host could not store to %#llx: %s",
		   (unsigned long long)va, strerror(-err));
	return GN_ENDS;
}

/* ---- Instructions --------------------------------------------------------------------------------------------------- */

/* Decoding takes longer than all else, so what was decoded at an address is kept, and is good while the bytes are the
 * same. Bytes of the second page are asked for only if the instruction needs them. */
enum gn_kvm_done gn_kvm_fetch(struct gn_kvm_cpu *cpu, const struct gn_insn **insn,
			      struct gn_event *event)
{
	const uint64_t rip = cpu->depriv->v.rip;
	struct gn_insn *kept = &cpu->depriv->decoded[rip % GN_DECODED];
	uint8_t bytes[GN_INSN_MAX_BYTES];
	unsigned got = 0, part = up_to_page_end(rip, sizeof(bytes));

	*insn = kept;
	for (; got < sizeof(bytes); part = (unsigned)sizeof(bytes) - got) {
		const struct gn_access access =
			access_of(cpu, GN_AS_GUEST, rip + got, GN_FETCH, part);
		enum gn_kvm_done done = read_page(cpu, &access, bytes + got, event);

		if (done != GN_DONE)
			return done;
		got += part;
		if (kept->length && kept->length <= got &&
		    !memcmp(kept->bytes, bytes, kept->length))
			return GN_DONE;
		memcpy(kept->bytes, bytes, got);
		kept->got = (uint8_t)got;
		if (gn_insn_decode(kept))
			return GN_DONE;
	}
	return GN_UNKNOWN;
}

/* ---- For store.c ------------------------------------------------------------------------------------------------------ */

static int reach_read(void *ctx, uint64_t va, void *buf, unsigned bytes)
{
	struct gn_kvm_reach *reach = (struct gn_kvm_reach *)ctx;

	return gn_kvm_read(reach->cpu, GN_AS_GUEST, va, buf, bytes, reach->event);
}

static int reach_write(void *ctx, uint64_t va, const void *buf, unsigned bytes)
{
	struct gn_kvm_reach *reach = (struct gn_kvm_reach *)ctx;

	return gn_kvm_write(reach->cpu, GN_AS_GUEST, va, buf, bytes, reach->event);
}

static int reach_exchange(void *ctx, uint64_t va, uint64_t expected, uint64_t desired,
			  unsigned bytes, bool *done)
{
	struct gn_kvm_reach *reach = (struct gn_kvm_reach *)ctx;

	return gn_kvm_exchange(reach->cpu, va, expected, desired, bytes, done, reach->event);
}

static int reach_xmm(void *ctx, unsigned index, uint64_t value[2])
{
	struct gn_kvm_reach *reach = (struct gn_kvm_reach *)ctx;
	struct kvm_fpu fpu;
	int err = gn_kvm_ioctl(reach->cpu->fd, KVM_GET_FPU, &fpu);

	if (err < 0) {
		gn_kvm_sys_fail(reach->cpu->error, sizeof(reach->cpu->error), "KVM_GET_FPU", -err);
		reach->cpu->stop = GN_KVM_STOP_ERROR;
		return GN_ENDS;
	}
	memcpy(value, fpu.xmm[index], sizeof(fpu.xmm[index]));
	return 0;
}

const struct gn_insn_memory gn_kvm_reach_memory = {
	.read = reach_read, .write = reach_write, .exchange = reach_exchange, .xmm = reach_xmm
};
_Static_assert(GN_DONE == 0, "an answer of 0 means done in both vocabularies");
