/* SPDX-License-Identifier: MIT */
/*
 * kvm_emulate.c - what is carried out for a guest at CPL 3 and needs no KVM: arithmetic against the real instructions,
 * whole instructions on memory of the test's, and the programs that tell hardware of changed tables.
 */
#include <criterion/criterion.h>
#include <string.h>

#include "kvmbackend/depriv.h"

#include "support/cases.h"

/* ---- Arithmetic: the processor is the oracle ------------------------------------------------------------------ */

#define DEFINED (X86_FLAG_CF | X86_FLAG_PF | X86_FLAG_AF | X86_FLAG_ZF | X86_FLAG_SF | X86_FLAG_OF)

/* Below the red zone. */
#define FLAGS_TO_1 "lea -128(%%rsp), %%rsp\n pushf\n pop %1\n lea 128(%%rsp), %%rsp"

/* One instruction of each width with CF given; *flags after it. */
#define BINARY(name, insn)                                                                         \
	static uint64_t name(uint64_t a, uint64_t b, unsigned bytes, uint64_t *flags)              \
	{                                                                                          \
		uint64_t f = *flags & X86_FLAG_CF;                                                 \
		uint8_t a1 = (uint8_t)a;                                                           \
		uint16_t a2 = (uint16_t)a;                                                         \
		uint32_t a4 = (uint32_t)a;                                                         \
		uint64_t a8 = a;                                                                   \
		switch (bytes) {                                                                   \
		case 1:                                                                            \
			__asm__("bt $0, %1\n" insn "b %2, %0\n " FLAGS_TO_1                        \
				: "+q"(a1), "+r"(f)                                                \
				: "q"((uint8_t)b)                                                  \
				: "cc");                                                           \
			a8 = a1;                                                                   \
			break;                                                                     \
		case 2:                                                                            \
			__asm__("bt $0, %1\n" insn "w %2, %0\n " FLAGS_TO_1                        \
				: "+r"(a2), "+r"(f)                                                \
				: "r"((uint16_t)b)                                                 \
				: "cc");                                                           \
			a8 = a2;                                                                   \
			break;                                                                     \
		case 4:                                                                            \
			__asm__("bt $0, %1\n" insn "l %2, %0\n " FLAGS_TO_1                        \
				: "+r"(a4), "+r"(f)                                                \
				: "r"((uint32_t)b)                                                 \
				: "cc");                                                           \
			a8 = a4;                                                                   \
			break;                                                                     \
		default:                                                                           \
			__asm__("bt $0, %1\n" insn "q %2, %0\n " FLAGS_TO_1                        \
				: "+r"(a8), "+r"(f)                                                \
				: "r"(b)                                                           \
				: "cc");                                                           \
			break;                                                                     \
		}                                                                                  \
		*flags = f;                                                                        \
		return a8;                                                                         \
	}
#define UNARY(name, insn)                                                                          \
	static uint64_t name(uint64_t a, uint64_t b, unsigned bytes, uint64_t *flags)              \
	{                                                                                          \
		uint64_t f = *flags & X86_FLAG_CF;                                                 \
		uint8_t a1 = (uint8_t)a;                                                           \
		uint16_t a2 = (uint16_t)a;                                                         \
		uint32_t a4 = (uint32_t)a;                                                         \
		uint64_t a8 = a;                                                                   \
		(void)b;                                                                           \
		switch (bytes) {                                                                   \
		case 1:                                                                            \
			__asm__("bt $0, %1\n" insn "b %0\n " FLAGS_TO_1                            \
				: "+q"(a1), "+r"(f)::"cc");                                        \
			a8 = a1;                                                                   \
			break;                                                                     \
		case 2:                                                                            \
			__asm__("bt $0, %1\n" insn "w %0\n " FLAGS_TO_1                            \
				: "+r"(a2), "+r"(f)::"cc");                                        \
			a8 = a2;                                                                   \
			break;                                                                     \
		case 4:                                                                            \
			__asm__("bt $0, %1\n" insn "l %0\n " FLAGS_TO_1                            \
				: "+r"(a4), "+r"(f)::"cc");                                        \
			a8 = a4;                                                                   \
			break;                                                                     \
		default:                                                                           \
			__asm__("bt $0, %1\n" insn "q %0\n " FLAGS_TO_1                            \
				: "+r"(a8), "+r"(f)::"cc");                                        \
			break;                                                                     \
		}                                                                                  \
		*flags = f;                                                                        \
		return a8;                                                                         \
	}
BINARY(real_add, "add")
BINARY(real_adc, "adc")
BINARY(real_sub, "sub")
BINARY(real_sbb, "sbb")
BINARY(real_and, "and")
BINARY(real_or, "or")
BINARY(real_xor, "xor")
UNARY(real_inc, "inc")
UNARY(real_dec, "dec")
UNARY(real_neg, "neg")
UNARY(real_not, "not")

static const struct {
	const char *name;
	enum gn_alu op;
	uint64_t (*real)(uint64_t a, uint64_t b, unsigned bytes, uint64_t *flags);
	uint64_t flags; /* that it sets */
} operations[] = {
	{ "add", GN_ALU_ADD, real_add, DEFINED },
	{ "adc", GN_ALU_ADC, real_adc, DEFINED },
	{ "sub", GN_ALU_SUB, real_sub, DEFINED },
	{ "sbb", GN_ALU_SBB, real_sbb, DEFINED },
	{ "and", GN_ALU_AND, real_and, DEFINED & ~X86_FLAG_AF },
	{ "or", GN_ALU_OR, real_or, DEFINED & ~X86_FLAG_AF },
	{ "xor", GN_ALU_XOR, real_xor, DEFINED & ~X86_FLAG_AF },
	{ "inc", GN_ALU_INC, real_inc, DEFINED },
	{ "dec", GN_ALU_DEC, real_dec, DEFINED },
	{ "neg", GN_ALU_NEG, real_neg, DEFINED },
	{ "not", GN_ALU_NOT, real_not, X86_FLAG_CF },
};

/* Values at the borders more often than not. */
static uint64_t operand(struct test_random *random)
{
	static const uint64_t edges[] = { 0,	       1,	   0x7f,       0x80,
					  0xff,	       0x7fff,	   0x8000,     0xffff,
					  0x7fffffff,  0x80000000, 0xffffffff, (uint64_t)1 << 63,
					  ~(uint64_t)0 };
	const uint64_t dice = test_random_next(random);

	return dice & 1 ? edges[(dice >> 1) % (sizeof(edges) / sizeof(edges[0]))]
			: test_random_next(random);
}

Test(kvm_emulate, arithmetic_is_the_processors)
{
	struct test_random random = test_random_seed(5);

	for (size_t i = 0; i < sizeof(operations) / sizeof(operations[0]); i++)
		for (unsigned n = 0; n < 20000; n++) {
			const unsigned bytes = 1u << n % 4;
			const uint64_t a = operand(&random), b = operand(&random);
			uint64_t real_flags = n >> 2 & 1, flags = real_flags;
			const uint64_t real = operations[i].real(a, b, bytes, &real_flags);
			const uint64_t ours = gn_alu(operations[i].op, a, b, bytes, &flags);

			cr_assert(real == ours && !((real_flags ^ flags) & operations[i].flags),
				  "%s%u %#lx, %#lx: %#lx flags %#lx, really %#lx flags %#lx",
				  operations[i].name, bytes, a, b, ours, flags, real, real_flags);
		}
}

Test(kvm_emulate, conditions)
{
	for (unsigned n = 0; n < 64; n++) {
		uint64_t flags = (n & 1 ? X86_FLAG_CF : 0) | (n & 2 ? X86_FLAG_ZF : 0) |
				 (n & 4 ? X86_FLAG_SF : 0) | (n & 8 ? X86_FLAG_OF : 0) |
				 (n & 16 ? X86_FLAG_PF : 0);
		uint8_t real[16];

#define SET(code, cc)                                                                              \
	__asm__("lea -128(%%rsp), %%rsp\n push %1\n popf\n lea 128(%%rsp), %%rsp\n set" cc " %0"   \
		: "=q"(real[code])                                                                 \
		: "r"(flags | 2)                                                                   \
		: "cc")
		SET(0, "o");
		SET(1, "no");
		SET(2, "b");
		SET(3, "ae");
		SET(4, "e");
		SET(5, "ne");
		SET(6, "be");
		SET(7, "a");
		SET(8, "s");
		SET(9, "ns");
		SET(10, "p");
		SET(11, "np");
		SET(12, "l");
		SET(13, "ge");
		SET(14, "le");
		SET(15, "g");
		for (unsigned code = 0; code < 16; code++)
			cr_assert_eq(gn_alu_condition(code, flags), real[code],
				     "code %u, flags %#lx", code, flags);
	}
}

/* ---- Whole instructions --------------------------------------------------------------------------------------------- */

#define BASE 0x1000
struct memory {
	uint8_t bytes[4096];
	unsigned stores;
	bool fails;
};

static int fake_read(void *ctx, uint64_t va, void *buf, unsigned bytes)
{
	struct memory *m = (struct memory *)ctx;

	if (va < BASE || va - BASE + bytes > sizeof(m->bytes))
		return 77;
	memcpy(buf, m->bytes + (va - BASE), bytes);
	return 0;
}
static int fake_write(void *ctx, uint64_t va, const void *buf, unsigned bytes)
{
	struct memory *m = (struct memory *)ctx;

	if (m->fails || va < BASE || va - BASE + bytes > sizeof(m->bytes))
		return 78;
	memcpy(m->bytes + (va - BASE), buf, bytes);
	m->stores++;
	return 0;
}
static int fake_exchange(void *ctx, uint64_t va, uint64_t expected, uint64_t desired,
			 unsigned bytes, bool *done)
{
	uint64_t now = 0;
	int err = fake_read(ctx, va, &now, bytes);

	*done = now == expected;
	return err ? err : *done ? fake_write(ctx, va, &desired, bytes) : 0;
}
static int fake_xmm(void *ctx, unsigned index, uint64_t value[2])
{
	(void)ctx;
	value[0] = 0x1000 + index;
	value[1] = 0x2000 + index;
	return 0;
}
static const struct gn_insn_memory fake = { fake_read, fake_write, fake_exchange, fake_xmm };

#define CODE(name, text)                                                                           \
	extern const uint8_t name[], name##_end[];                                                 \
	__asm__(".pushsection .rodata\n" #name ":\n" text "\n" #name "_end:\n.popsection")

static int execute(struct gn_kvm_state *v, struct memory *m, const uint8_t *code,
		   const uint8_t *end)
{
	struct gn_insn insn = { .got = (uint8_t)(end - code) };

	memcpy(insn.bytes, code, insn.got);
	cr_assert(gn_insn_decode(&insn));
	cr_assert_eq(insn.length, insn.got);
	return gn_insn_execute(v, &insn, &fake, m);
}
#define EXECUTE(v, m, name) execute(v, m, name, name##_end)

static uint64_t word(const struct memory *m, unsigned at)
{
	uint64_t value;

	memcpy(&value, m->bytes + at, sizeof(value));
	return value;
}

CODE(c_mov_sib, "mov %ecx, 0x10(%rbx,%rsi,8)");
CODE(c_mov_ah, "mov %ah, (%rbx)");
CODE(c_mov_imm, "movq $-2, (%rbx)");
CODE(c_mov_gs, "mov %rcx, %gs:0x20");
CODE(c_mov_rip, "mov %rcx, 0x100(%rip)");
CODE(c_load32, "mov (%rbx), %ecx");
CODE(c_movsx, "movsbq (%rbx), %rcx");
CODE(c_movzx, "movzwl (%rbx), %ecx");
Test(kvm_emulate, moves)
{
	struct gn_kvm_state v = { .rip = 0x1200,
				  .gpr = { [GN_RBX] = BASE,
					   [GN_RCX] = 0x1122334455667788,
					   [GN_RSI] = 2,
					   [GN_RAX] = 0xabcd } };
	struct memory m = { { 0 }, 0, false };

	v.gs.base = BASE + 0x100;
	cr_assert_eq(EXECUTE(&v, &m, c_mov_sib), 0);
	cr_assert_eq(word(&m, 0x20), 0x55667788);
	cr_assert_eq(v.rip, 0x1200 + (uint64_t)(c_mov_sib_end - c_mov_sib));
	cr_assert_eq(EXECUTE(&v, &m, c_mov_ah), 0);
	cr_assert_eq(word(&m, 0), 0xab);
	cr_assert_eq(EXECUTE(&v, &m, c_mov_imm), 0);
	cr_assert_eq(word(&m, 0), (uint64_t)-2);
	cr_assert_eq(EXECUTE(&v, &m, c_mov_gs), 0);
	cr_assert_eq(word(&m, 0x120), 0x1122334455667788);
	v.rip = 0x1200;
	cr_assert_eq(EXECUTE(&v, &m, c_mov_rip), 0);
	cr_assert_eq(word(&m, 0x300 + (unsigned)(c_mov_rip_end - c_mov_rip)), 0x1122334455667788);
	cr_assert_eq(EXECUTE(&v, &m, c_load32), 0);
	cr_assert_eq(v.gpr[GN_RCX], 0xfffffffe);
	cr_assert_eq(EXECUTE(&v, &m, c_movsx), 0);
	cr_assert_eq(v.gpr[GN_RCX], (uint64_t)-2);
	cr_assert_eq(EXECUTE(&v, &m, c_movzx), 0);
	cr_assert_eq(v.gpr[GN_RCX], 0xfffe);
}

CODE(c_cmpxchg, "lock cmpxchg %rcx, (%rbx)");
CODE(c_xadd, "lock xadd %ecx, (%rbx)");
CODE(c_xchg, "xchg %cx, (%rbx)");
CODE(c_bts_far, "bts %rcx, (%rbx)");
CODE(c_sete, "sete (%rbx)");
CODE(c_cmp, "cmpb $1, (%rbx)");
Test(kvm_emulate, read_modify_write)
{
	struct gn_kvm_state v = { .gpr = { [GN_RBX] = BASE, [GN_RCX] = 7, [GN_RAX] = 5 } };
	struct memory m = { { 5 }, 0, false };

	cr_assert_eq(EXECUTE(&v, &m, c_cmpxchg), 0);
	cr_assert(word(&m, 0) == 7 && (v.rflags & X86_FLAG_ZF));
	cr_assert_eq(EXECUTE(&v, &m, c_cmpxchg), 0);
	cr_assert(word(&m, 0) == 7 && v.gpr[GN_RAX] == 7 && !(v.rflags & X86_FLAG_ZF));
	v.gpr[GN_RCX] = 0xffffffff00000003;
	cr_assert_eq(EXECUTE(&v, &m, c_xadd), 0);
	cr_assert(word(&m, 0) == 10 && v.gpr[GN_RCX] == 7);
	v.gpr[GN_RCX] = 0x99990001;
	cr_assert_eq(EXECUTE(&v, &m, c_xchg), 0);
	cr_assert(word(&m, 0) == 1 && v.gpr[GN_RCX] == 0x9999000a);
	cr_assert_eq(EXECUTE(&v, &m, c_cmp), 0);
	cr_assert(v.rflags & X86_FLAG_ZF);
	cr_assert_eq(EXECUTE(&v, &m, c_sete), 0);
	cr_assert_eq(word(&m, 0), 1);
	v.gpr[GN_RCX] = 64 * 3 + 2;
	cr_assert_eq(EXECUTE(&v, &m, c_bts_far), 0);
	cr_assert_eq(word(&m, 24), 4);
	v.gpr[GN_RBX] = BASE + 64;
	v.gpr[GN_RCX] = (uint64_t)-1;
	cr_assert_eq(EXECUTE(&v, &m, c_bts_far), 0);
	cr_assert_eq(word(&m, 56), (uint64_t)1 << 63);
}

CODE(c_rep_stosq, "rep stosq");
CODE(c_movsb, "movsb");
CODE(c_push_imm, "push $-1");
CODE(c_pop_mem, "pop 8(%rsp)");
CODE(c_call, "call *(%rbx)");
CODE(c_movaps, "movaps %xmm3, (%rbx)");
CODE(c_movhps, "movhps %xmm2, (%rbx)");
Test(kvm_emulate, strings_stack_vectors)
{
	struct gn_kvm_state v = { .rip = 0x400,
				  .gpr = { [GN_RDI] = BASE + 64,
					   [GN_RCX] = 2,
					   [GN_RAX] = 9,
					   [GN_RSI] = BASE,
					   [GN_RBX] = BASE,
					   [GN_RSP] = BASE + 512 } };
	struct memory m = { { 0x34, 0x12 }, 0, false };

	cr_assert_eq(EXECUTE(&v, &m, c_rep_stosq), 0);
	cr_assert(v.rip == 0x400 && v.gpr[GN_RCX] == 1 && v.gpr[GN_RDI] == BASE + 72);
	cr_assert_eq(EXECUTE(&v, &m, c_rep_stosq), 0);
	cr_assert(v.rip == 0x403 && v.gpr[GN_RCX] == 0 && word(&m, 72) == 9);
	v.rflags |= X86_FLAG_DF;
	cr_assert_eq(EXECUTE(&v, &m, c_movsb), 0);
	cr_assert(m.bytes[80] == 0x34 && v.gpr[GN_RSI] == BASE - 1 && v.gpr[GN_RDI] == BASE + 79);
	cr_assert_eq(EXECUTE(&v, &m, c_push_imm), 0);
	cr_assert(v.gpr[GN_RSP] == BASE + 504 && word(&m, 504) == ~(uint64_t)0);
	cr_assert_eq(EXECUTE(&v, &m, c_pop_mem), 0);
	cr_assert(v.gpr[GN_RSP] == BASE + 512 && word(&m, 520) == ~(uint64_t)0);
	v.rip = 0x500;
	cr_assert_eq(EXECUTE(&v, &m, c_call), 0);
	cr_assert(v.rip == 0x1234 && word(&m, 504) == 0x502);
	cr_assert_eq(EXECUTE(&v, &m, c_movaps), 0);
	cr_assert(word(&m, 0) == 0x1003 && word(&m, 8) == 0x2003);
	cr_assert_eq(EXECUTE(&v, &m, c_movhps), 0);
	cr_assert(word(&m, 0) == 0x2002);
}

CODE(c_add, "add %rcx, (%rbx)");
CODE(c_shl, "shlq $1, (%rbx)");
Test(kvm_emulate, a_failed_store_leaves_everything)
{
	static const struct {
		const uint8_t *code, *end;
	} all[] = { { c_add, c_add_end },	    { c_xchg, c_xchg_end },
		    { c_cmpxchg, c_cmpxchg_end },   { c_rep_stosq, c_rep_stosq_end },
		    { c_push_imm, c_push_imm_end }, { c_pop_mem, c_pop_mem_end },
		    { c_call, c_call_end },	    { c_movsb, c_movsb_end },
		    { c_bts_far, c_bts_far_end },   { c_mov_imm, c_mov_imm_end },
		    { c_movaps, c_movaps_end },	    { c_sete, c_sete_end } };

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		struct gn_kvm_state v = { .rip = 0x400,
					  .gpr = { [GN_RDI] = BASE + 64,
						   [GN_RCX] = 2,
						   [GN_RSI] = BASE,
						   [GN_RBX] = BASE,
						   [GN_RSP] = BASE + 512 } };
		const struct gn_kvm_state before = v;
		struct memory m = { { 0 }, 0, true };

		cr_assert_eq(execute(&v, &m, all[i].code, all[i].end), 78, "case %zu", i);
		cr_assert(!memcmp(&v, &before, sizeof(v)), "case %zu", i);
	}
}

Test(kvm_emulate, what_is_not_covered_is_told)
{
	struct gn_kvm_state v = { .gpr = { [GN_RBX] = BASE } };
	struct memory m = { { 0 }, 0, false };
	struct gn_insn insn = { .got = 3, .bytes = { 0x48, 0xd1, 0x23 } };
	char text[128];

	cr_assert_eq(EXECUTE(&v, &m, c_shl), GN_INSN_UNKNOWN);
	cr_assert(gn_insn_decode(&insn));
	gn_insn_text(&insn, 0, text, sizeof(text));
	cr_assert(strstr(text, "48 d1 23 (shl"), "%s", text);
	insn = (struct gn_insn){ .got = 1, .bytes = { 0x06 } };
	cr_assert_not(gn_insn_decode(&insn));
	gn_insn_text(&insn, 0, text, sizeof(text));
	cr_assert_str_eq(text, "06 (not an instruction)");
}

/* ---- Programs -------------------------------------------------------------------------------------------------------------- */

#define FRAMES 4096
#define LINEAR 0xfffff00000000000ull

/* What a program touches, read back by decoding it. */
static unsigned touched(const uint8_t *program, const struct gn_downgrade_work *work, uint64_t *at,
			bool *is_table)
{
	struct gn_kvm_state v = { .gpr = { [GN_RBX] = work->base } };
	unsigned count = 0;

	for (unsigned offset = 0; offset < work->program_bytes;) {
		const unsigned left = work->program_bytes - offset;
		struct gn_insn insn = { .got = (uint8_t)(left < 15 ? left : 15) };

		memcpy(insn.bytes, program + offset, insn.got);
		cr_assert(gn_insn_decode(&insn));
		offset += insn.length;
		if (insn.z.mnemonic == ZYDIS_MNEMONIC_HLT) {
			cr_assert_eq(offset, work->program_bytes);
			break;
		}
		if (insn.z.mnemonic == ZYDIS_MNEMONIC_MOV) {
			v.gpr[GN_RBX] = insn.operands[1].imm.value.u;
			continue;
		}
		cr_assert_eq(insn.z.mnemonic, ZYDIS_MNEMONIC_OR);
		cr_assert(insn.z.attributes & ZYDIS_ATTRIB_HAS_LOCK);
		cr_assert_eq(insn.operands[1].imm.value.u, 0);
		at[count] = gn_insn_address(&v, &insn, 0) - LINEAR;
		is_table[count++] = insn.operands[0].size == 16;
	}
	return count;
}

static uint8_t program[GN_MONITOR_PROGRAM_BYTES];
static uint64_t at[1024];
static bool is_table[1024];

Test(kvm_emulate, downgrade_programs)
{
	struct gn_downgrades queue;
	struct gn_downgrade_work work;

	cr_assert_eq(gn_downgrades_init(&queue, FRAMES), 0);
	gn_downgrades_drain(&queue, LINEAR, program, &work);
	cr_assert(!work.operations && !work.flush);
	gn_downgrades_post_flush(&queue);
	gn_downgrades_drain(&queue, LINEAR, program, &work);
	cr_assert(!work.operations && work.flush);
	gn_downgrades_post_entry(&queue, hpa(0x5008));
	gn_downgrades_post_entry(&queue, hpa(0x5008));
	gn_downgrades_post_table(&queue, pfn(7));
	gn_downgrades_post_entry(&queue, hpa(0x7010)); /* its table is touched as a whole */
	gn_downgrades_drain(&queue, LINEAR, program, &work);
	cr_assert_eq(work.operations, 2);
	cr_assert(work.flush);
	cr_assert_eq(touched(program, &work, at, is_table), 2);
	cr_assert(at[0] == 0x5008 && !is_table[0] && at[1] == 0x7000 && is_table[1]);
	gn_downgrades_drain(&queue, LINEAR, program, &work);
	cr_assert(!work.operations && !work.flush);
	gn_downgrades_fini(&queue);
}

/* Far apart: more than a displacement can reach. */
Test(kvm_emulate, downgrades_over_a_large_pool)
{
	const uint64_t far = (uint64_t)5 << 30;
	struct gn_downgrades queue;
	struct gn_downgrade_work work;

	cr_assert_eq(gn_downgrades_init(&queue, far / 4096 + 16), 0);
	gn_downgrades_post_entry(&queue, hpa(0x1000));
	gn_downgrades_post_entry(&queue, hpa(far));
	gn_downgrades_post_entry(&queue, hpa(0x2000));
	gn_downgrades_drain(&queue, LINEAR, program, &work);
	cr_assert_eq(touched(program, &work, at, is_table), 3);
	cr_assert(at[0] == 0x2000 && at[1] == far && at[2] == 0x1000);
	gn_downgrades_fini(&queue);
}

/* No item is lost, however many are posted between two drains. */
Test(kvm_emulate, no_downgrade_is_lost)
{
	struct test_random random = test_random_seed(9);
	struct gn_downgrades queue;
	struct gn_downgrade_work work;
	static uint8_t wants_entry[FRAMES][8], wants_table[FRAMES];

	cr_assert_eq(gn_downgrades_init(&queue, FRAMES), 0);
	for (unsigned round = 0; round < 50; round++) {
		const unsigned count = (unsigned)(test_random_next(&random) % 2000);

		memset(wants_entry, 0, sizeof(wants_entry));
		memset(wants_table, 0, sizeof(wants_table));
		for (unsigned i = 0; i < count; i++) {
			const uint64_t frame = test_random_next(&random) % FRAMES;
			const unsigned slot = (unsigned)(test_random_next(&random) % 8);

			if (test_random_next(&random) % 4) {
				wants_entry[frame][slot] = 1;
				gn_downgrades_post_entry(&queue, hpa(frame << 12 | slot << 3));
			} else {
				wants_table[frame] = 1;
				gn_downgrades_post_table(&queue, pfn(frame));
			}
		}
		for (;;) {
			gn_downgrades_drain(&queue, LINEAR, program, &work);
			if (!work.operations)
				break;
			cr_assert(work.program_bytes <= sizeof(program));
			cr_assert_eq(touched(program, &work, at, is_table), work.operations);
			for (unsigned i = 0; i < work.operations; i++) {
				cr_assert(at[i] >> 12 < FRAMES);
				if (is_table[i]) {
					wants_table[at[i] >> 12] = 0;
					memset(wants_entry[at[i] >> 12], 0, 8);
				} else {
					wants_entry[at[i] >> 12][at[i] >> 3 & 7] = 0;
				}
			}
		}
		for (unsigned i = 0; i < FRAMES; i++) {
			cr_assert(!wants_table[i], "round %u: table %u", round, i);
			for (unsigned s = 0; s < 8; s++)
				cr_assert(!wants_entry[i][s], "round %u: entry %u of %u", round, s,
					  i);
		}
	}
	gn_downgrades_fini(&queue);
}
