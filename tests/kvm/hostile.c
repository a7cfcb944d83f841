/* SPDX-License-Identifier: MIT */
/*
 * hostile.c - guests that mean harm.
 *
 * Each episode makes a guest out of dice: code (random bytes, privileged instructions with random operands, stores of
 * every kind), page tables (self-maps, tables on the stack, entries that aim beyond RAM or at the addresses the
 * monitor lives at, reserved bits), descriptor tables and registers. It runs for a few exits, and whatever it
 * does must end as an answered fault or as a stop with a reason. What is checked:
 *
 *   - the VMM lives, and each episode ends in time (a watchdog asks it to stop; a hang is a failure);
 *   - the auditor: no table of ours names a frame outside the VM, or grants what guest and p2m do not;
 *   - frames of the pool that are not the guest's keep their contents;
 *   - memory of the guest that belongs to nobody's episode keeps its contents where the guest had no way to it.
 *
 * One VM serves many episodes, so that what one of them breaks is met by the next.
 *
 * Usage: hostile [SEED [EPISODES [SCHEME]]]
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <gnomon/kvm.h>
#include <gnomon/schemes.h>
#include <gnomon/x86.h>

enum {
	RAM_BYTES = 16 << 20,
	CODE = 0x100000, /* one page, at the same virtual address */
	DATA = 0x200000, /* 2 MiB that small pages map */
	SMALL_VA = 0x40000000,
	TABLES = 0x2000, /* eight pages */
	TABLE_COUNT = 8,
	DESCRIPTORS = 0x10000, /* IDT, GDT, TSS: a page each */
	HANDLER = DESCRIPTORS + 0x3000,
	CHUNKS = 8, /* of code; chunk i at CODE + i * CHUNK_BYTES */
	CHUNK_BYTES = 128,
	CANARIES = 8,
	EXITS = 24, /* an episode */
	AUDIT_EVERY = 512,
	HANG_TURNS = 5000, /* of the watchdog, a millisecond or more each */
};
#define MONITOR_VA ((uint64_t)0xfffff00000000000)

static struct gn_kvm_host host;

static uint64_t rng_state;

static uint64_t draw(void)
{
	uint64_t z = rng_state += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

static unsigned below(unsigned n)
{
	return (unsigned)(draw() % n);
}

static bool one_in(unsigned n)
{
	return below(n) == 0;
}

/* ---- The guest's memory -------------------------------------------------------------------------- */

struct rig {
	struct gn_kvm *kvm;
	struct gn_pool pool;
	hpa_t canary[CANARIES];
	bool shuns_ltr, shuns_mov_dr;
	uint64_t stops[GN_KVM_STOP_ERROR + 1], violations, errors, hangs, refused, left_out;
	char first[600];
};

static void complain(struct rig *r, uint64_t episode, const char *what)
{
	if (!r->first[0])
		snprintf(r->first, sizeof(r->first), "episode %" PRIu64 ": %s", episode, what);
}

static int put(struct rig *r, uint64_t at, const void *bytes, size_t count)
{
	return gn_vm_write(gn_kvm_vm(r->kvm), gpa(at), bytes, count);
}

static uint64_t interesting_address(void)
{
	static const uint64_t some[] = {
		CODE,
		DATA,
		SMALL_VA,
		TABLES,
		DESCRIPTORS,
		MONITOR_VA,
		0,
		0xfee00000,
		(uint64_t)RAM_BYTES - 4,
		RAM_BYTES,
		0x800000000000,
		0xffff800000000000,
		0x7ffffffffff8,
		~(uint64_t)0,
		~(uint64_t)7,
	};
	uint64_t base = some[below(sizeof(some) / sizeof(some[0]))];

	switch (below(4)) {
	case 0:
		return base;
	case 1:
		return base + below(0x8000);
	case 2:
		return base + (uint64_t)below(4096) * 8;
	default:
		return one_in(4) ? draw() : base + below(64) - 32;
	}
}

static uint64_t random_entry(void)
{
	uint64_t flags = draw() & 0x1ff, frame;

	if (!one_in(8))
		flags |= X86_PTE_P | X86_PTE_W | X86_PTE_U;
	if (!one_in(3))
		flags &= ~X86_PTE_PS;
	switch (below(6)) {
	case 0: /* a table, or itself */
		frame = TABLES + below(TABLE_COUNT) * 0x1000;
		break;
	case 1:
		frame = draw() & X86_PTE_ADDR;
		break;
	case 2: /* beyond RAM, the local APIC */
		frame = one_in(2) ? RAM_BYTES + below(64) * 0x1000u : 0xfee00000;
		break;
	case 3:
		frame = below(RAM_BYTES >> 21) * ((uint64_t)2 << 20);
		break;
	default:
		frame = below(RAM_BYTES >> 12) * (uint64_t)0x1000;
	}
	return frame | flags | (one_in(6) ? X86_PTE_NX : 0) | (one_in(12) ? draw() : 0);
}

/* Tables at TABLES: 0 root, 1 and 2 lead to 2 MiB pages of all RAM at 0, 3 and 4 to 4 KiB pages of DATA at SMALL_VA;
 * 5 to 7 are free for the guest's own mischief. */
static int reset_tables(struct rig *r)
{
	static uint64_t t[TABLE_COUNT][512];
	const uint64_t all = X86_PTE_P | X86_PTE_W | X86_PTE_U;

	memset(t, 0, sizeof(t));
	t[0][0] = (TABLES + 0x1000) | all;
	t[1][0] = (TABLES + 0x2000) | all;
	t[1][SMALL_VA >> 30] = (TABLES + 0x3000) | all;
	for (unsigned i = 0; i < RAM_BYTES >> 21; i++)
		t[2][i] = (uint64_t)i << 21 | all | X86_PTE_PS;
	t[3][0] = (TABLES + 0x4000) | all;
	for (unsigned i = 0; i < 512; i++)
		t[4][i] = (DATA + i * 0x1000u) | all;
	return put(r, TABLES, t, sizeof(t));
}

static int spoil_tables(struct rig *r)
{
	unsigned count = 1 + below(6);
	int err = 0;

	while (count-- && !err) {
		uint64_t entry = random_entry();
		/* The entries in use, mostly; else any. */
		unsigned index = one_in(2) ? below(2) : below(512);

		err = put(r, TABLES + below(TABLE_COUNT) * 0x1000 + index * 8, &entry, 8);
	}
	return err;
}

/* ---- Its code -------------------------------------------------------------------------------------- */

struct code {
	uint8_t bytes[CHUNK_BYTES];
	unsigned count;
};

static void emit(struct code *c, const void *bytes, unsigned count)
{
	if (c->count + count <= sizeof(c->bytes)) {
		memcpy(c->bytes + c->count, bytes, count);
		c->count += count;
	}
}

static void emit_movabs(struct code *c, unsigned reg, uint64_t value)
{
	uint8_t b[10] = { (uint8_t)(0x48 | reg >> 3), (uint8_t)(0xb8 | (reg & 7)) };

	memcpy(b + 2, &value, 8);
	emit(c, b, sizeof(b));
}

/* What traps, what should not, what nobody expects; operands are rax rbx rcx rdx rdi rsi. */
static const struct template
{
	uint8_t count;
	uint8_t bytes[11];
}
templates[] = {
	{ 1, { 0xf4 } },			 /* hlt */
	{ 1, { 0xfa } },			 /* cli */
	{ 1, { 0xfb } },			 /* sti */
	{ 3, { 0x0f, 0x22, 0xd8 } },		 /* mov cr3, rax */
	{ 3, { 0x0f, 0x20, 0xd8 } },		 /* mov rax, cr3 */
	{ 3, { 0x0f, 0x22, 0xc0 } },		 /* mov cr0, rax */
	{ 3, { 0x0f, 0x22, 0xe0 } },		 /* mov cr4, rax */
	{ 4, { 0x44, 0x0f, 0x22, 0xc0 } },	 /* mov cr8, rax */
	{ 3, { 0x0f, 0x23, 0xf8 } },		 /* mov dr7, rax */
	{ 2, { 0x0f, 0x06 } },			 /* clts */
	{ 3, { 0x0f, 0x01, 0x3b } },		 /* invlpg [rbx] */
	{ 5, { 0x66, 0x0f, 0x38, 0x82, 0x03 } }, /* invpcid rax, [rbx] */
	{ 3, { 0x0f, 0x01, 0x13 } },		 /* lgdt [rbx] */
	{ 3, { 0x0f, 0x01, 0x1b } },		 /* lidt [rbx] */
	{ 3, { 0x0f, 0x01, 0x03 } },		 /* sgdt [rbx] */
	{ 3, { 0x0f, 0x00, 0xd8 } },		 /* ltr ax */
	{ 3, { 0x0f, 0x00, 0xd0 } },		 /* lldt ax */
	{ 3, { 0x0f, 0x01, 0xf8 } },		 /* swapgs */
	{ 2, { 0x48, 0xcf } },			 /* iretq */
	{ 3, { 0x48, 0x0f, 0x07 } },		 /* sysretq */
	{ 2, { 0x0f, 0x05 } },			 /* syscall */
	{ 2, { 0x0f, 0x34 } },			 /* sysenter */
	{ 1, { 0xcc } },			 /* int3 */
	{ 2, { 0xcd, 0x80 } },			 /* int 0x80 */
	{ 2, { 0xcd, 0x0e } },			 /* int 14 */
	{ 2, { 0x0f, 0x0b } },			 /* ud2 */
	{ 2, { 0x0f, 0x32 } },			 /* rdmsr */
	{ 2, { 0x0f, 0x30 } },			 /* wrmsr */
	{ 2, { 0x0f, 0xa2 } },			 /* cpuid */
	{ 1, { 0xee } },			 /* out dx, al */
	{ 1, { 0xef } },			 /* out dx, eax */
	{ 1, { 0xed } },			 /* in eax, dx */
	{ 2, { 0xf3, 0x6e } },			 /* rep outsb */
	{ 2, { 0xf3, 0x6d } },			 /* rep insd */
	{ 3, { 0x0f, 0x01, 0xcb } },		 /* stac */
	{ 3, { 0x0f, 0x01, 0xca } },		 /* clac */
	{ 3, { 0x0f, 0x01, 0xc1 } },		 /* vmcall */
	{ 3, { 0x0f, 0x01, 0xd1 } },		 /* xsetbv */
	{ 3, { 0x0f, 0x01, 0xef } },		 /* wrpkru */
	{ 2, { 0x0f, 0x09 } },			 /* wbinvd */
	{ 1, { 0x9d } },			 /* popfq */
	{ 1, { 0x9c } },			 /* pushfq */
	{ 2, { 0x8e, 0xd8 } },			 /* mov ds, ax */
	{ 2, { 0x8e, 0xd0 } },			 /* mov ss, ax */
	{ 2, { 0x48, 0xcb } },			 /* retfq */
	{ 3, { 0x48, 0x89, 0x03 } },		 /* mov [rbx], rax */
	{ 2, { 0x89, 0x03 } },
	{ 3, { 0x66, 0x89, 0x03 } },
	{ 2, { 0x88, 0x03 } },
	{ 3, { 0x48, 0x8b, 0x03 } },		 /* mov rax, [rbx] */
	{ 3, { 0x48, 0x87, 0x03 } },		 /* xchg [rbx], rax */
	{ 5, { 0xf0, 0x48, 0x0f, 0xb1, 0x0b } }, /* lock cmpxchg [rbx], rcx */
	{ 5, { 0xf0, 0x48, 0x0f, 0xc7, 0x0b } }, /* lock cmpxchg16b [rbx] */
	{ 5, { 0xf0, 0x48, 0x0f, 0xc1, 0x0b } }, /* lock xadd [rbx], rcx */
	{ 5, { 0xf0, 0x48, 0x0f, 0xab, 0x03 } }, /* lock bts [rbx], rax */
	{ 4, { 0xf0, 0x48, 0x09, 0x03 } },	 /* lock or [rbx], rax */
	{ 3, { 0x48, 0xf7, 0x1b } },		 /* neg qword [rbx] */
	{ 3, { 0x48, 0xff, 0x03 } },		 /* inc qword [rbx] */
	{ 2, { 0xff, 0x33 } },			 /* push qword [rbx] */
	{ 2, { 0x8f, 0x03 } },			 /* pop qword [rbx] */
	{ 2, { 0xff, 0x13 } },			 /* call [rbx] */
	{ 2, { 0xff, 0xe3 } },			 /* jmp rbx */
	{ 3, { 0xf3, 0x48, 0xab } },		 /* rep stosq */
	{ 3, { 0xf3, 0x48, 0xa5 } },		 /* rep movsq */
	{ 4, { 0x48, 0x0f, 0xc3, 0x03 } },	 /* movnti [rbx], rax */
	{ 4, { 0x0f, 0x29, 0x03, 0x90 } },	 /* movaps [rbx], xmm0 */
	{ 4, { 0x0f, 0xae, 0x03, 0x90 } },	 /* fxsave [rbx] */
	{ 4, { 0x0f, 0x94, 0x03, 0x90 } },	 /* sete [rbx] */
	{ 1, { 0x50 } },			 /* push rax */
	{ 1, { 0x58 } },			 /* pop rax */
	{ 3, { 0x48, 0x89, 0xdc } },		 /* mov rsp, rbx */
	{ 2, { 0xeb, 0xfe } },			 /* jmp . */
	{ 4, { 0x48, 0x8b, 0x05, 0x00 } },	 /* the start of something longer */
	{ 2, { 0x66, 0x66 } },
	{ 2, { 0xc4, 0xe2 } },
	{ 2, { 0x62, 0xf1 } },
};

static uint64_t interesting_value(void)
{
	static const uint64_t some[] = {
		0,
		1,
		0xc0000080,
		0xc0000082,
		0x1b,
		0x277,
		0xc0000100, /* MSRs */
		0x80050033,
		0x80010001,
		0x11,
		0x6a0,
		0x20,
		0x1000a0,
		0x3006a0,
		0x4006a0,
		0x1020,
		TABLES,
		TABLES + 0x1000,
		CODE,
		0xf4,
		0x5c0,
		0x3f8,
		8,
		0x10,
		0x1b,
		0x23,
		0x33,
		(uint64_t)1 << 63,
	};

	if (one_in(4))
		return one_in(2) ? random_entry() : interesting_address();
	if (one_in(8))
		return draw();
	return some[below(sizeof(some) / sizeof(some[0]))] |
	       (one_in(10) ? (uint64_t)1 << below(64) : 0);
}

/* What the sound gates lead to: on to the next chunk of the code, at CPL 0. So an episode goes on after a fault. */
static const uint8_t handler[] = {
	0x48, 0xff, 0x05,	0x39, 0x00,
	0x00, 0x00, /* inc qword [rip + 0x39]: the word at 0x40 */
	0x48, 0x8b, 0x05,	0x32, 0x00,
	0x00, 0x00,			    /* mov rax, [rip + 0x32] */
	0x83, 0xe0, CHUNKS - 1,		    /* and eax, CHUNKS - 1 */
	0xc1, 0xe0, 0x07,		    /* shl eax, 7: CHUNK_BYTES */
	0x05, 0x00, 0x00,	0x10, 0x00, /* add eax, CODE */
	0xff, 0xe0,			    /* jmp rax */
};

static void write_chunk(struct code *c)
{
	unsigned count = 1 + below(5);

	c->count = 0;
	if (one_in(8)) {
		while (c->count < CHUNK_BYTES)
			c->bytes[c->count++] = (uint8_t)draw();
		return;
	}
	while (count-- && c->count < CHUNK_BYTES - 40) {
		const struct template *t =
			&templates[below(sizeof(templates) / sizeof(templates[0]))];
		static const uint8_t regs[] = { 0, 3, 1, 2, 7, 6 };

		if (!one_in(4))
			emit_movabs(c, 3, interesting_address());
		if (one_in(2))
			emit_movabs(c, regs[below(6)], interesting_value());
		emit(c, t->bytes, t->count);
	}
	emit(c, one_in(2) ? "\xf4" : "\xcc", 1);
}

/* ---- An episode -------------------------------------------------------------------------------------- */

static struct gn_kvm_segment flat(bool is_code, unsigned dpl, uint16_t selector)
{
	return (struct gn_kvm_segment){ .limit = 0xffffffff,
					.selector = (uint16_t)(selector | dpl),
					.attributes = (uint16_t)((is_code ? 0xa09b : 0xc093) |
								 dpl << 5) };
}

static void random_state(struct gn_kvm_state *s)
{
	unsigned dpl = one_in(3) ? 3 : 0;

	memset(s, 0, sizeof(*s));
	for (unsigned i = 0; i < 16; i++)
		s->gpr[i] = one_in(2) ? interesting_address() : interesting_value();
	s->gpr[1] &= 0xff; /* rcx counts repetitions; templates set others */
	s->rip = one_in(16) ? interesting_address() : CODE;
	if (!one_in(3))
		s->gpr[4] = one_in(3) ? TABLES + below(TABLE_COUNT * 0x1000u) : DATA + 0x800;
	s->rflags = 2 | (one_in(4) ? draw() & 0x40ed5 : 0);
	s->regs.cr0 = X86_CR0_PE | X86_CR0_PG | 0x30 | (one_in(4) ? 0 : X86_CR0_WP);
	s->regs.cr3 = one_in(8) ? random_entry() & X86_PTE_ADDR & (RAM_BYTES - 1) : TABLES;
	s->regs.cr4 = X86_CR4_PAE | (one_in(2) ? X86_CR4_PGE : 0);
	s->regs.efer = X86_EFER_LME | X86_EFER_LMA | X86_EFER_SCE | (one_in(4) ? 0 : X86_EFER_NXE);
	s->cs = flat(true, dpl, dpl ? 0x18 : 0x08);
	s->ss = s->ds = s->es = s->fs = s->gs = flat(false, dpl, dpl ? 0x20 : 0x10);
	s->tr = (struct gn_kvm_segment){
		.base = DESCRIPTORS + 0x2000, .limit = 0x67, .selector = 0x28, .attributes = 0x8b
	};
	s->gdtr = (struct gn_kvm_table){ DESCRIPTORS + 0x1000, 0x7f };
	s->idtr = (struct gn_kvm_table){ DESCRIPTORS, 0xfff };
	if (one_in(6))
		s->idtr.base = interesting_address();
	if (one_in(6))
		s->idtr.limit = (uint16_t)draw();
	if (one_in(8))
		s->tr.base = interesting_address();
	s->lstar = one_in(2) ? CODE : interesting_address();
	s->star = draw();
}

/* Gates to CODE, some of them broken. */
static int write_descriptors(struct rig *r)
{
	uint64_t page[512], gdt[16] = { 0, 0x00af9b000000ffff, 0x00cf93000000ffff,
					0x00affb000000ffff, 0x00cff3000000ffff };
	uint8_t tss[104] = { 0 };
	int err;

	for (unsigned v = 0; v < 256; v++) {
		bool is_sound = !one_in(12);
		uint64_t to = is_sound ? HANDLER : interesting_address();
		uint64_t type = one_in(12) && !is_sound ? draw() & 0xff : one_in(4) ? 0xee : 0x8e;

		page[2 * v] = (to & 0xffff) |
			      (uint64_t)(one_in(3) && !is_sound ? draw() & 0xffff : 8) << 16 |
			      (uint64_t)below(3) << 32 | type << 40 | (to >> 16 & 0xffff) << 48;
		page[2 * v + 1] = to >> 32;
	}
	err = put(r, DESCRIPTORS, page, sizeof(page));
	/* RSP0 to 2, a hole, IST1 to 7: eight bytes each from offset 4 on. */
	for (unsigned i = 0; i < 11; i++) {
		uint64_t stack =
			one_in(12) ? interesting_address() : DATA + 0x1000 + below(256) * 8;

		memcpy(tss + 4 + 8 * i, &stack, 8);
	}
	if (!err)
		err = put(r, DESCRIPTORS + 0x1000, gdt, sizeof(gdt));
	if (!err)
		err = put(r, HANDLER, handler, sizeof(handler));
	return err ? err : put(r, DESCRIPTORS + 0x2000, tss, sizeof(tss));
}

/* The instruction at @at is one that this host's emulator would not survive: see shuns(). */
static bool is_shunned(const struct rig *r, const uint8_t *at)
{
	if (at[0] != 0x0f)
		return false;
	return (r->shuns_ltr && at[1] == 0x00 && (at[2] >> 3 & 7) == 3) ||
	       (r->shuns_mov_dr && at[1] == 0x23);
}

/* #UD instead, also where it lies between two instructions. */
static int leave_out(struct rig *r)
{
	uint8_t code[CHUNKS * CHUNK_BYTES];
	int err = gn_vm_read(gn_kvm_vm(r->kvm), gpa(CODE), code, sizeof(code));

	for (unsigned i = 0; i + 2 < sizeof(code); i++)
		if (is_shunned(r, code + i)) {
			code[i + 1] = 0x0b;
			r->left_out++;
		}
	return err ? err : put(r, CODE, code, sizeof(code));
}

static int prepare(struct rig *r)
{
	struct gn_kvm_state state;
	struct code code;
	int err = 0;

	for (unsigned i = 0; i < CHUNKS && !err; i++) {
		write_chunk(&code);
		err = put(r, CODE + i * CHUNK_BYTES, code.bytes, code.count);
	}
	if (!err && (r->shuns_ltr || r->shuns_mov_dr))
		err = leave_out(r);
	if (!err && one_in(4))
		err = reset_tables(r);
	if (!err && one_in(3))
		err = spoil_tables(r);
	if (!err && one_in(8))
		err = write_descriptors(r);
	if (err)
		return err;
	do { /* some are none that a CPU could be in */
		random_state(&state);
		err = gn_kvm_set_state(r->kvm, 0, &state);
		r->refused += err == -EINVAL;
	} while (err == -EINVAL);
	return err;
}

static bool canaries_live(struct rig *r)
{
	for (unsigned i = 0; i < CANARIES; i++) {
		const uint64_t *words =
			(const uint64_t *)(const void *)((uint8_t *)r->pool.base + r->canary[i].v);

		for (unsigned w = 0; w < 512; w++)
			if (words[w] != (0xca9a50000000u | i << 12 | w))
				return false;
	}
	return true;
}

static void check(struct rig *r, uint64_t episode)
{
	struct gn_audit_report report;
	int err = gn_audit(gn_kvm_vm(r->kvm), &report);

	if (err) {
		r->violations++;
		complain(r, episode, err == -EBADMSG ? report.first : strerror(-err));
	}
	if (!canaries_live(r)) {
		r->violations++;
		complain(r, episode, "a frame that is not the guest's was written");
	}
}

/* ---- The watchdog -------------------------------------------------------------------------------------- */

/* Asks a guest that runs without exits to stop; a VMM that does not come back at all is the failure looked for. It is told
 * by the watchdog's own turns: a machine that is busy elsewhere gives neither of them any time. */
struct watchdog {
	struct gn_kvm *kvm;
	_Atomic(uint64_t) began_ns; /* 0: nothing runs */
	_Atomic(bool) ends, hung;
};

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void *watch(void *arg)
{
	struct watchdog *w = arg;
	uint64_t seen = 0, turns = 0;

	while (!atomic_load(&w->ends)) {
		uint64_t began = atomic_load(&w->began_ns);

		turns = began == seen ? turns + 1 : 0;
		seen = began;
		if (began && now_ns() > began + 2000000)
			gn_kvm_stop(w->kvm);
		if (began && turns > HANG_TURNS)
			atomic_store(&w->hung, true);
		usleep(1000);
	}
	return NULL;
}

/* ---- All episodes of a scheme -------------------------------------------------------------------------- */

static int rig_init(struct rig *r, const char *scheme)
{
	const struct gn_kvm_config config = {
		.vm = { .scheme = scheme, .mem_bytes = RAM_BYTES, .vcpus = 1 },
		.max_exits = EXITS,
	};
	char why[512] = "";
	int err;

	memset(r, 0, sizeof(*r));
	err = gn_kvm_create(&config, &r->kvm, why, sizeof(why));
	if (err) {
		printf("creating a VM under %s: %s\n", scheme, why);
		return err;
	}
	gn_vm_pool(gn_kvm_vm(r->kvm), &r->pool);
	for (unsigned i = 0; i < CANARIES && !err; i++) {
		uint64_t *words;

		err = gn_vm_pool_alloc(gn_kvm_vm(r->kvm), &r->canary[i]);
		words = (uint64_t *)(void *)((uint8_t *)r->pool.base + r->canary[i].v);
		for (unsigned w = 0; w < 512 && !err; w++)
			words[w] = 0xca9a50000000u | i << 12 | w;
	}
	if (!err)
		err = reset_tables(r);
	return err ? err : write_descriptors(r);
}

static void rig_fini(struct rig *r)
{
	for (unsigned i = 0; i < CANARIES; i++)
		gn_vm_pool_free(gn_kvm_vm(r->kvm), r->canary[i]);
	gn_kvm_destroy(r->kvm);
}

static void run_episode(struct rig *r, struct watchdog *w, uint64_t episode)
{
	enum gn_kvm_stop stop;
	uint32_t status = 0;
	int err = prepare(r);

	if (err) {
		r->errors++;
		complain(r, episode, strerror(-err));
		return;
	}
	atomic_store(&w->began_ns, now_ns());
	stop = gn_kvm_run(r->kvm, 0, &status);
	atomic_store(&w->began_ns, 0);
	r->stops[stop]++;
	if (stop == GN_KVM_STOP_ERROR) {
		r->errors++;
		complain(r, episode, gn_kvm_error(r->kvm, 0));
	}
	if (stop == GN_KVM_STOP_GUEST && !*gn_kvm_error(r->kvm, 0)) {
		r->errors++;
		complain(r, episode, "a guest was stopped without a reason");
	}
	if (atomic_exchange(&w->hung, false)) {
		r->hangs++;
		complain(r, episode, "the VMM did not come back for seconds");
	}
	if (episode % AUDIT_EVERY == 0)
		check(r, episode);
}

/* QEMU itself ends when a guest at CPL 0 does certain things to its emulated CPU (kvmbackend/trial.c says which): no fault of
 * ours, but an end of the test. */
static bool shuns_ltr(const char *scheme)
{
	return host.null_tss_loads && !strcmp(scheme, "ept");
}

static bool shuns_mov_dr(const char *scheme)
{
	return host.breakpoints_lost && !strcmp(host.hypervisor, "TCGTCGTCGTCG") &&
	       !strcmp(scheme, "ept");
}

/* True: nothing was found. */
static bool run_scheme(const char *scheme, uint64_t seed, uint64_t episodes)
{
	struct rig r;
	struct watchdog w = { 0 };
	pthread_t thread;

	rng_state = seed;
	if (rig_init(&r, scheme))
		return false;
	r.shuns_ltr = shuns_ltr(scheme);
	r.shuns_mov_dr = shuns_mov_dr(scheme);
	w.kvm = r.kvm;
	if (pthread_create(&thread, NULL, watch, &w)) {
		rig_fini(&r);
		return false;
	}
	for (uint64_t i = 1; i <= episodes && !r.first[0]; i++)
		run_episode(&r, &w, i);
	check(&r, episodes);
	atomic_store(&w.ends, true);
	pthread_join(thread, NULL);
	printf("%-12s %" PRIu64 " episodes, seed %" PRIu64 ": exit %" PRIu64 ", halt %" PRIu64
	       ", shutdown %" PRIu64 ", stopped guest %" PRIu64 ", budget or time %" PRIu64
	       "; %" PRIu64 " states refused\n",
	       scheme, episodes, seed, r.stops[GN_KVM_STOP_EXIT], r.stops[GN_KVM_STOP_HALT],
	       r.stops[GN_KVM_STOP_SHUTDOWN], r.stops[GN_KVM_STOP_GUEST],
	       r.stops[GN_KVM_STOP_ASKED], r.refused);
	if (r.left_out)
		printf("SKIPPED: %s:%s%s in %" PRIu64
		       " places: they would end the emulator below this "
		       "machine (gnomon host)\n",
		       scheme, r.shuns_ltr ? " LTR" : "", r.shuns_mov_dr ? " MOV to DR" : "",
		       r.left_out);
	if (r.first[0])
		printf("%s: %s\n", scheme, r.first);
	rig_fini(&r);
	return !r.violations && !r.errors && !r.hangs && !r.first[0];
}

static uint64_t scaled(uint64_t n)
{
	const char *text = getenv("GN_TEST_SCALE");
	uint64_t percent = text ? strtoull(text, NULL, 10) : 100;

	return n * percent / 100 + 1;
}

int main(int argc, char **argv)
{
	enum { PLANS = 3 };
	static const struct {
		const char *scheme;
		uint64_t episodes;
	} plan[PLANS] = { { "shadow", 50000 }, { "shadow-vtlb", 25000 }, { "ept", 50000 } };
	uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
	unsigned passed = 0, failed = 0, skipped = 0;
	pid_t child[PLANS];

	setvbuf(stdout, NULL, _IOLBF, 0);
	gn_kvm_probe(&host, true);
	if (!host.usable) {
		printf("SKIPPED: hostile guests need /dev/kvm: %s\n", host.why);
		printf("0 passed, 0 failed, 3 skipped\n");
		return 0;
	}
	if (gn_schemes_register_all()) {
		printf("0 passed, 1 failed\n");
		return 1;
	}
	/* A process each: they share nothing, and most of their time is the host's. */
	for (unsigned i = 0; i < PLANS; i++) {
		uint64_t episodes =
			argc > 2 ? strtoull(argv[2], NULL, 0) : scaled(plan[i].episodes);

		child[i] = -1;
		if (argc > 3 && strcmp(argv[3], plan[i].scheme) != 0)
			continue;
		child[i] = fork();
		if (!child[i])
			_exit(run_scheme(plan[i].scheme, seed + i, episodes) ? 0 : 1);
		failed += child[i] < 0;
		skipped += shuns_ltr(plan[i].scheme) + shuns_mov_dr(plan[i].scheme);
	}
	for (unsigned i = 0; i < PLANS; i++) {
		int status = 1;

		if (child[i] <= 0)
			continue;
		if (waitpid(child[i], &status, 0) == child[i] && !status)
			passed++;
		else
			failed++;
	}
	printf("%u passed, %u failed, %u skipped\n", passed, failed, skipped);
	return failed != 0;
}
