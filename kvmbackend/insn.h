/* SPDX-License-Identifier: MIT */
/*
 * insn.h - one instruction of the guest: decoded, its operands, and what it does to memory.
 *
 * Nothing in here needs a VM: the guest's registers are a struct gn_kvm_state, memory is a table of operations.
 */
#ifndef GN_KVM_INSN_H
#define GN_KVM_INSN_H

#include <Zydis/Zydis.h>

#include <gnomon/kvm.h>

#define GN_INSN_MAX_BYTES 15
#define GN_INSN_OPERANDS  5 /* visible ones */

struct gn_insn {
	uint8_t bytes[GN_INSN_MAX_BYTES];
	uint8_t got; /* bytes that could be fetched */
	uint8_t length;
	ZydisDecodedInstruction z;
	ZydisDecodedOperand operands[GN_INSN_OPERANDS];
};

enum gn_gpr { GN_RAX, GN_RCX, GN_RDX, GN_RBX, GN_RSP, GN_RBP, GN_RSI, GN_RDI, GN_R11 = 11 };

/* insn->bytes[0..got) as 64-bit code. False: not an instruction, or not all of one. */
bool gn_insn_decode(struct gn_insn *insn);
/* "48 89 07 (mov [rdi], rax)" */
void gn_insn_text(const struct gn_insn *insn, uint64_t rip, char *text, size_t bytes);

/* The linear address of memory operand @index. */
uint64_t gn_insn_address(const struct gn_kvm_state *v, const struct gn_insn *insn, unsigned index);
bool gn_insn_is_memory(const struct gn_insn *insn, unsigned index);
unsigned gn_insn_operand_bytes(const struct gn_insn *insn, unsigned index);
/* A register or immediate operand, zero-extended (immediates sign-extended to the first operand's size). */
uint64_t gn_insn_value(const struct gn_kvm_state *v, const struct gn_insn *insn, unsigned index);
/* To a general register of any width, as the architecture does (32 bits clear the upper half). */
void gn_insn_set_register(struct gn_kvm_state *v, ZydisRegister reg, uint64_t value);
uint64_t gn_insn_register(const struct gn_kvm_state *v, ZydisRegister reg);
/* 0..15 of a general register of any width, -1: another kind. */
int gn_insn_gpr(ZydisRegister reg);

/* Bytes it stores to its memory operand or the stack; 8 when that isn't known. */
unsigned gn_insn_store_bytes(const struct gn_insn *insn);

/* ---- store.c */

/* 0: done. Another value ends the instruction, unchanged, and is its result. */
struct gn_insn_memory {
	int (*read)(void *ctx, uint64_t va, void *buf, unsigned bytes);
	int (*write)(void *ctx, uint64_t va, const void *buf, unsigned bytes);
	int (*exchange)(void *ctx, uint64_t va, uint64_t expected, uint64_t desired, unsigned bytes,
			bool *done);
	int (*xmm)(void *ctx, unsigned index, uint64_t value[2]);
};
#define GN_INSN_UNKNOWN (-1)

/* Carry out an instruction with a memory operand, or a string or stack instruction (one iteration of a repeated
 * one): memory, registers, flags, RIP. 0; GN_INSN_UNKNOWN: not covered; or what @memory answered. But for 0, nothing of @v has
 * changed. */
int gn_insn_execute(struct gn_kvm_state *v, const struct gn_insn *insn,
		    const struct gn_insn_memory *memory, void *ctx);

/* ---- alu.c */

enum gn_alu {
	GN_ALU_ADD,
	GN_ALU_ADC,
	GN_ALU_SUB,
	GN_ALU_SBB,
	GN_ALU_AND,
	GN_ALU_OR,
	GN_ALU_XOR,
	GN_ALU_INC,
	GN_ALU_DEC,
	GN_ALU_NEG,
	GN_ALU_NOT,
	GN_ALU_BT,
	GN_ALU_BTS,
	GN_ALU_BTR,
	GN_ALU_BTC,
};
/* The result of @bytes width; *rflags takes the flags the instruction defines (SDM vol. 2). For bit operations @b is
 * the bit's number. */
uint64_t gn_alu(enum gn_alu op, uint64_t a, uint64_t b, unsigned bytes, uint64_t *rflags);
/* A condition of Jcc, SETcc by its four-bit code. */
bool gn_alu_condition(unsigned code, uint64_t rflags);

#endif
