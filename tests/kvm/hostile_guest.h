/* SPDX-License-Identifier: MIT */
/*
 * hostile_guest.h - a guest that means harm, made anew for each episode: code (random bytes, privileged instructions with
 * random operands, stores of every kind), page tables (self-maps, tables on the stack, entries that aim beyond RAM or at the
 * addresses the monitor lives at, reserved bits), descriptor tables and registers.
 *
 * Of its code, an episode gets all anew. Tables and descriptors stay from one episode to the next, and are set right or
 * spoiled now and then.
 */
#ifndef GN_TESTS_KVM_HOSTILE_GUEST_H
#define GN_TESTS_KVM_HOSTILE_GUEST_H

#include <errno.h>
#include <string.h>

#include <gnomon/kvm.h>

#include "kvm/hostile_dice.h"

struct hostile_guest {
	struct gn_kvm *kvm;
	/* Instructions that it must not have, for the sake of what this machine runs on. */
	bool shuns_ltr, shuns_mov_dr;
	uint64_t left_out; /* such instructions */
	uint64_t refused;  /* states that are none a CPU could be in */
};

static inline int put(struct hostile_guest *g, uint64_t at, const void *bytes, size_t count)
{
	return gn_vm_write(gn_kvm_vm(g->kvm), gpa(at), bytes, count);
}

/* ---- Tables ---------------------------------------------------------------------------------------------------------- */

/* Tables at TABLES: 0 root, 1 and 2 lead to 2 MiB pages of all RAM at 0, 3 and 4 to 4 KiB pages of DATA at SMALL_VA;
 * 5 to 7 are free for the guest's own mischief. */
static inline int reset_tables(struct hostile_guest *g)
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
	return put(g, TABLES, t, sizeof(t));
}

static inline int spoil_tables(struct hostile_guest *g)
{
	unsigned count = 1 + below(6);
	int err = 0;

	while (count-- && !err) {
		uint64_t entry = random_entry();
		/* The entries in use, mostly; else any. */
		unsigned index = one_in(2) ? below(2) : below(512);

		err = put(g, TABLES + below(TABLE_COUNT) * 0x1000 + index * 8, &entry, 8);
	}
	return err;
}

/* ---- Code ------------------------------------------------------------------------------------------------------------ */

struct code {
	uint8_t bytes[CHUNK_BYTES];
	unsigned count;
};

static inline void emit(struct code *c, const void *bytes, unsigned count)
{
	if (c->count + count <= sizeof(c->bytes)) {
		memcpy(c->bytes + c->count, bytes, count);
		c->count += count;
	}
}

static inline void emit_movabs(struct code *c, unsigned reg, uint64_t value)
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

static inline void write_chunk(struct code *c)
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

/* ---- Registers and descriptors --------------------------------------------------------------------------------------- */

static inline struct gn_kvm_segment flat(bool is_code, unsigned dpl, uint16_t selector)
{
	return (struct gn_kvm_segment){ .limit = 0xffffffff,
					.selector = (uint16_t)(selector | dpl),
					.attributes = (uint16_t)((is_code ? 0xa09b : 0xc093) |
								 dpl << 5) };
}

static inline void random_state(struct gn_kvm_state *s)
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
static inline int write_descriptors(struct hostile_guest *g)
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
	err = put(g, DESCRIPTORS, page, sizeof(page));
	/* RSP0 to 2, a hole, IST1 to 7: eight bytes each from offset 4 on. */
	for (unsigned i = 0; i < 11; i++) {
		uint64_t stack =
			one_in(12) ? interesting_address() : DATA + 0x1000 + below(256) * 8;

		memcpy(tss + 4 + 8 * i, &stack, 8);
	}
	if (!err)
		err = put(g, DESCRIPTORS + 0x1000, gdt, sizeof(gdt));
	if (!err)
		err = put(g, HANDLER, handler, sizeof(handler));
	return err ? err : put(g, DESCRIPTORS + 0x2000, tss, sizeof(tss));
}

/* ---- The whole of it ------------------------------------------------------------------------------------------------- */

/* The instruction at @at is one that this host's emulator would not survive. */
static inline bool is_shunned(const struct hostile_guest *g, const uint8_t *at)
{
	if (at[0] != 0x0f)
		return false;
	return (g->shuns_ltr && at[1] == 0x00 && (at[2] >> 3 & 7) == 3) ||
	       (g->shuns_mov_dr && at[1] == 0x23);
}

/* #UD instead, also where it lies between two instructions. */
static inline int leave_out(struct hostile_guest *g)
{
	uint8_t code[CHUNKS * CHUNK_BYTES];
	int err = gn_vm_read(gn_kvm_vm(g->kvm), gpa(CODE), code, sizeof(code));

	for (unsigned i = 0; i + 2 < sizeof(code); i++)
		if (is_shunned(g, code + i)) {
			code[i + 1] = 0x0b;
			g->left_out++;
		}
	return err ? err : put(g, CODE, code, sizeof(code));
}

/* Makes it anew, for one more episode. 0 or -errno. */
static inline int hostile_guest_renew(struct hostile_guest *g)
{
	struct gn_kvm_state state;
	struct code code;
	int err = 0;

	for (unsigned i = 0; i < CHUNKS && !err; i++) {
		write_chunk(&code);
		err = put(g, CODE + i * CHUNK_BYTES, code.bytes, code.count);
	}
	if (!err && (g->shuns_ltr || g->shuns_mov_dr))
		err = leave_out(g);
	if (!err && one_in(4))
		err = reset_tables(g);
	if (!err && one_in(3))
		err = spoil_tables(g);
	if (!err && one_in(8))
		err = write_descriptors(g);
	if (err)
		return err;
	do { /* some are none that a CPU could be in */
		random_state(&state);
		err = gn_kvm_set_state(g->kvm, 0, &state);
		g->refused += err == -EINVAL;
	} while (err == -EINVAL);
	return err;
}

#endif
