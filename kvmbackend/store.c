/* SPDX-License-Identifier: MIT */
/*
 * store.c - instructions whose memory operand is carried out for the guest: stores to its page tables that must trap,
 * and all accesses to what is no memory.
 *
 * Every read-modify-write is an atomic exchange, locked or not: a page table is shared with the processors that walk
 * it, and an A or D bit set meanwhile must not be lost. Repeated string instructions do one iteration and leave RIP
 * where it is; the guest comes back for the next, as after an interrupt.
 *
 * Order: read memory, compute, write memory, and only then change registers. So a fault on the way leaves the
 * instruction undone, as the architecture wants it.
 *
 * Covered is what systems use on page tables and on device registers, and what compilers make of it. Not covered:
 * shifts and multiplications in memory, CMPXCHG8B/16B, stores from vectors wider than 128 bits, x87.
 */
#include "depriv.h"

#include <string.h>

struct run {
	struct gn_kvm_state *v;
	const struct gn_insn *insn;
	const struct gn_insn_memory *memory;
	void *ctx;
	uint64_t rflags; /* as they will be */
};

static int finish(struct run *run)
{
	run->v->rflags = run->rflags;
	run->v->rip += run->insn->length;
	return 0;
}

static int load(struct run *run, uint64_t va, uint64_t *value, unsigned bytes)
{
	if (!bytes || bytes > sizeof(*value))
		return GN_INSN_UNKNOWN;
	*value = 0;
	return run->memory->read(run->ctx, va, value, bytes);
}

static int save(struct run *run, uint64_t va, uint64_t value, unsigned bytes)
{
	if (!bytes || bytes > sizeof(value))
		return GN_INSN_UNKNOWN;
	return run->memory->write(run->ctx, va, &value, bytes);
}

static uint64_t sign_extend(uint64_t value, unsigned bytes)
{
	const unsigned shift = 64 - 8 * bytes;

	return (uint64_t)((int64_t)(value << shift) >> shift);
}

/* ---- Moves ------------------------------------------------------------------------------------------------- */

static int move(struct run *run)
{
	const struct gn_insn *insn = run->insn;
	const unsigned bytes = gn_insn_operand_bytes(insn, 0);
	const ZydisDecodedOperand *to = &insn->operands[0], *from = &insn->operands[1];
	uint64_t value;
	int err;

	if (gn_insn_is_memory(insn, 0)) {
		if (from->type == ZYDIS_OPERAND_TYPE_REGISTER && gn_insn_gpr(from->reg.value) < 0)
			return GN_INSN_UNKNOWN; /* a segment register */
		err = save(run, gn_insn_address(run->v, insn, 0), gn_insn_value(run->v, insn, 1),
			   bytes);
		return err ? err : finish(run);
	}
	if (!gn_insn_is_memory(insn, 1) || gn_insn_gpr(to->reg.value) < 0)
		return GN_INSN_UNKNOWN;
	err = load(run, gn_insn_address(run->v, insn, 1), &value, bytes);
	if (err)
		return err;
	gn_insn_set_register(run->v, to->reg.value, value);
	return finish(run);
}

static int move_extended(struct run *run, bool is_signed)
{
	const struct gn_insn *insn = run->insn;
	const unsigned bytes = gn_insn_operand_bytes(insn, 1);
	uint64_t value;
	int err;

	if (!gn_insn_is_memory(insn, 1))
		return GN_INSN_UNKNOWN;
	err = load(run, gn_insn_address(run->v, insn, 1), &value, bytes);
	if (err)
		return err;
	if (is_signed)
		value = sign_extend(value, bytes);
	gn_insn_set_register(run->v, insn->operands[0].reg.value, value);
	return finish(run);
}

/* A 128-bit register to memory, or the @bytes from word @word of it. */
static int store_vector(struct run *run, unsigned bytes, unsigned word)
{
	const struct gn_insn *insn = run->insn;
	const ZydisDecodedOperand *from = &insn->operands[1];
	uint64_t xmm[2];
	int err;

	if (!gn_insn_is_memory(insn, 0) || from->type != ZYDIS_OPERAND_TYPE_REGISTER ||
	    from->reg.value < ZYDIS_REGISTER_XMM0 || from->reg.value > ZYDIS_REGISTER_XMM15)
		return GN_INSN_UNKNOWN;
	err = run->memory->xmm(run->ctx, (unsigned)(from->reg.value - ZYDIS_REGISTER_XMM0), xmm);
	if (!err)
		err = run->memory->write(run->ctx, gn_insn_address(run->v, insn, 0), &xmm[word],
					 bytes);
	return err ? err : finish(run);
}

/* ---- Read, modify, write ----------------------------------------------------------------------------------------- */

/* BT and its kin with a register: the bit may lie beyond the operand (SDM vol. 2, BT). */
static uint64_t bit_address(const struct run *run, uint64_t number, unsigned bytes)
{
	const int64_t bit = (int64_t)sign_extend(number, bytes);
	uint64_t address = gn_insn_address(run->v, run->insn, 0);

	if (run->insn->operands[1].type == ZYDIS_OPERAND_TYPE_REGISTER)
		address += (uint64_t)((bit >> (bytes == 8 ? 6 : bytes == 4 ? 5 : 4)) * (int)bytes);
	return address;
}

/* [memory] = @op([memory], @b); *old is what was there. */
static int modify_at(struct run *run, uint64_t va, enum gn_alu op, uint64_t b, unsigned bytes,
		     uint64_t *old)
{
	const uint64_t before = run->rflags;
	bool done = false;

	while (!done) {
		uint64_t new_value;
		int err = load(run, va, old, bytes);

		if (err)
			return err;
		run->rflags = before;
		new_value = gn_alu(op, *old, b, bytes, &run->rflags);
		err = run->memory->exchange(run->ctx, va, *old, new_value, bytes, &done);
		if (err)
			return err;
	}
	return 0;
}

static int alu(struct run *run, enum gn_alu op)
{
	const struct gn_insn *insn = run->insn;
	const unsigned bytes = gn_insn_operand_bytes(insn, 0);
	const uint64_t b = insn->z.operand_count_visible > 1 ? gn_insn_value(run->v, insn, 1) : 0;
	uint64_t va, value;
	int err;

	if (gn_insn_is_memory(insn, 0)) {
		va = op >= GN_ALU_BT ? bit_address(run, b, bytes)
				     : gn_insn_address(run->v, insn, 0);
		err = op == GN_ALU_BT ? load(run, va, &value, bytes)
				      : modify_at(run, va, op, b, bytes, &value);
		if (!err && op == GN_ALU_BT)
			gn_alu(op, value, b, bytes, &run->rflags);
		return err ? err : finish(run);
	}
	if (!gn_insn_is_memory(insn, 1))
		return GN_INSN_UNKNOWN;
	err = load(run, gn_insn_address(run->v, insn, 1), &value, bytes);
	if (err)
		return err;
	value = gn_alu(op, gn_insn_value(run->v, insn, 0), value, bytes, &run->rflags);
	gn_insn_set_register(run->v, insn->operands[0].reg.value, value);
	return finish(run);
}

/* CMP, TEST: flags only. */
static int compare(struct run *run, enum gn_alu op)
{
	const struct gn_insn *insn = run->insn;
	const unsigned bytes = gn_insn_operand_bytes(insn, 0);
	const unsigned memory = gn_insn_is_memory(insn, 0) ? 0 : 1;
	uint64_t operand[2];
	int err;

	if (!gn_insn_is_memory(insn, memory))
		return GN_INSN_UNKNOWN;
	err = load(run, gn_insn_address(run->v, insn, memory), &operand[memory], bytes);
	if (err)
		return err;
	operand[!memory] = gn_insn_value(run->v, insn, !memory);
	gn_alu(op, operand[0], operand[1], bytes, &run->rflags);
	return finish(run);
}

static bool has_memory(const struct run *run)
{
	return gn_insn_is_memory(run->insn, 0) || gn_insn_is_memory(run->insn, 1);
}

static int exchange(struct run *run)
{
	const struct gn_insn *insn = run->insn;
	const unsigned memory = gn_insn_is_memory(insn, 0) ? 0 : 1;
	const unsigned bytes = gn_insn_operand_bytes(insn, 0);
	const uint64_t va = gn_insn_address(run->v, insn, memory);
	const uint64_t desired = gn_insn_value(run->v, insn, !memory);
	uint64_t old;
	bool done = false;

	while (!done) {
		int err = load(run, va, &old, bytes);

		if (!err)
			err = run->memory->exchange(run->ctx, va, old, desired, bytes, &done);
		if (err)
			return err;
	}
	gn_insn_set_register(run->v, insn->operands[!memory].reg.value, old);
	return finish(run);
}

static int exchange_add(struct run *run)
{
	const struct gn_insn *insn = run->insn;
	uint64_t old;
	int err = modify_at(run, gn_insn_address(run->v, insn, 0), GN_ALU_ADD,
			    gn_insn_value(run->v, insn, 1), gn_insn_operand_bytes(insn, 0), &old);

	if (err)
		return err;
	gn_insn_set_register(run->v, insn->operands[1].reg.value, old);
	return finish(run);
}

static const ZydisRegister accumulators[] = { [1] = ZYDIS_REGISTER_AL,
					      [2] = ZYDIS_REGISTER_AX,
					      [4] = ZYDIS_REGISTER_EAX,
					      [8] = ZYDIS_REGISTER_RAX };

/* Writes what was there when it differs, as the processor does. */
static int compare_exchange(struct run *run)
{
	const struct gn_insn *insn = run->insn;
	const unsigned bytes = gn_insn_operand_bytes(insn, 0);
	const uint64_t va = gn_insn_address(run->v, insn, 0);
	const uint64_t desired = gn_insn_value(run->v, insn, 1);
	const ZydisRegister accumulator = accumulators[bytes];
	const uint64_t expected = gn_insn_register(run->v, accumulator);
	uint64_t old;
	bool done = false;

	while (!done) {
		int err = load(run, va, &old, bytes);

		if (!err)
			err = run->memory->exchange(run->ctx, va, old,
						    old == expected ? desired : old, bytes, &done);
		if (err)
			return err;
	}
	gn_alu(GN_ALU_SUB, expected, old, bytes, &run->rflags);
	if (old != expected)
		gn_insn_set_register(run->v, accumulator, old);
	return finish(run);
}

static int set_condition(struct run *run)
{
	const struct gn_insn *insn = run->insn;
	int err;

	if (!gn_insn_is_memory(insn, 0))
		return GN_INSN_UNKNOWN;
	err = save(run, gn_insn_address(run->v, insn, 0),
		   gn_alu_condition(insn->z.opcode & 0xf, run->rflags), 1);
	return err ? err : finish(run);
}

/* ---- Strings ------------------------------------------------------------------------------------------------------ */

static uint64_t index_of(const struct run *run, enum gn_gpr reg)
{
	const uint64_t value = run->v->gpr[reg];

	return run->insn->z.address_width == 32 ? (uint32_t)value : value;
}

static void step(struct run *run, enum gn_gpr reg, unsigned bytes)
{
	const bool down = run->rflags & X86_FLAG_DF;
	uint64_t value = index_of(run, reg) + (down ? ~(uint64_t)bytes + 1 : bytes);

	run->v->gpr[reg] = run->insn->z.address_width == 32 ? (uint32_t)value : value;
}

/* FS and GS apply to the source of MOVS. */
static uint64_t source_base(const struct run *run)
{
	if (run->insn->z.attributes & ZYDIS_ATTRIB_HAS_SEGMENT_FS)
		return run->v->fs.base;
	if (run->insn->z.attributes & ZYDIS_ATTRIB_HAS_SEGMENT_GS)
		return run->v->gs.base;
	return 0;
}

static int string(struct run *run, unsigned bytes, bool is_move)
{
	const bool repeats =
		run->insn->z.attributes &
		(ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE);
	const unsigned width = run->insn->z.address_width;
	uint64_t count = index_of(run, GN_RCX), value = run->v->gpr[GN_RAX];
	int err = 0;

	if (repeats && !count)
		return finish(run);
	if (is_move)
		err = load(run, source_base(run) + index_of(run, GN_RSI), &value, bytes);
	if (!err)
		err = save(run, index_of(run, GN_RDI), value, bytes);
	if (err)
		return err;
	step(run, GN_RDI, bytes);
	if (is_move)
		step(run, GN_RSI, bytes);
	if (!repeats)
		return finish(run);
	count--;
	run->v->gpr[GN_RCX] = width == 32 ? (uint32_t)count : count;
	return count ? 0 : finish(run);
}

/* ---- The stack ------------------------------------------------------------------------------------------------------ */

static int source(struct run *run, unsigned index, uint64_t *value, unsigned bytes)
{
	if (gn_insn_is_memory(run->insn, index))
		return load(run, gn_insn_address(run->v, run->insn, index), value, bytes);
	*value = gn_insn_value(run->v, run->insn, index);
	return 0;
}

static int push_value(struct run *run, uint64_t value, unsigned bytes)
{
	int err = save(run, run->v->gpr[GN_RSP] - bytes, value, bytes);

	if (!err)
		run->v->gpr[GN_RSP] -= bytes;
	return err;
}

static int push(struct run *run)
{
	const struct gn_insn *insn = run->insn;
	const unsigned bytes = insn->z.operand_width == 16 ? 2 : 8;
	const ZydisDecodedOperand *from = &insn->operands[0];
	uint64_t value;
	int err;

	if (from->type == ZYDIS_OPERAND_TYPE_REGISTER && gn_insn_gpr(from->reg.value) < 0)
		return GN_INSN_UNKNOWN;
	err = source(run, 0, &value, bytes);
	if (!err && from->type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
		value = from->imm.value.u;
	if (!err)
		err = push_value(run, value, bytes);
	return err ? err : finish(run);
}

/* The address is computed with RSP as it is afterwards (SDM vol. 2, POP). */
static int pop(struct run *run)
{
	const unsigned bytes = run->insn->z.operand_width == 16 ? 2 : 8;
	struct gn_kvm_state *v = run->v;
	uint64_t value, va;
	int err;

	err = load(run, v->gpr[GN_RSP], &value, bytes);
	if (err)
		return err;
	if (!gn_insn_is_memory(run->insn, 0)) {
		if (gn_insn_gpr(run->insn->operands[0].reg.value) < 0)
			return GN_INSN_UNKNOWN;
		v->gpr[GN_RSP] += bytes;
		gn_insn_set_register(v, run->insn->operands[0].reg.value, value);
		return finish(run);
	}
	v->gpr[GN_RSP] += bytes;
	va = gn_insn_address(v, run->insn, 0);
	err = save(run, va, value, bytes);
	if (err)
		v->gpr[GN_RSP] -= bytes;
	return err ? err : finish(run);
}

static int push_flags(struct run *run)
{
	const unsigned bytes = run->insn->z.operand_width == 16 ? 2 : 8;
	int err = push_value(run, run->rflags & ~(X86_FLAG_RF | X86_FLAG_VM), bytes);

	return err ? err : finish(run);
}

static int call(struct run *run)
{
	const struct gn_insn *insn = run->insn;
	const uint64_t next = run->v->rip + insn->length;
	uint64_t target = 0;
	int err;

	if (insn->z.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
		return GN_INSN_UNKNOWN;
	if (insn->operands[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
		target = next + insn->operands[0].imm.value.u;
		err = 0;
	} else {
		err = source(run, 0, &target, sizeof(target));
	}
	if (!err)
		err = push_value(run, next, sizeof(next));
	if (err)
		return err;
	run->v->rip = target;
	return 0;
}

/* ---- Which --------------------------------------------------------------------------------------------------------------- */

static int vector_store(struct run *run)
{
	switch (run->insn->z.mnemonic) {
	case ZYDIS_MNEMONIC_MOVAPS:
	case ZYDIS_MNEMONIC_MOVUPS:
	case ZYDIS_MNEMONIC_MOVAPD:
	case ZYDIS_MNEMONIC_MOVUPD:
	case ZYDIS_MNEMONIC_MOVDQA:
	case ZYDIS_MNEMONIC_MOVDQU:
	case ZYDIS_MNEMONIC_MOVNTDQ:
	case ZYDIS_MNEMONIC_MOVNTPS:
	case ZYDIS_MNEMONIC_MOVNTPD:
		return store_vector(run, 16, 0);
	case ZYDIS_MNEMONIC_MOVQ:
	case ZYDIS_MNEMONIC_MOVLPS:
	case ZYDIS_MNEMONIC_MOVLPD:
		return store_vector(run, 8, 0);
	case ZYDIS_MNEMONIC_MOVHPS:
	case ZYDIS_MNEMONIC_MOVHPD:
		return store_vector(run, 8, 1);
	case ZYDIS_MNEMONIC_MOVD:
	case ZYDIS_MNEMONIC_MOVSS:
		return store_vector(run, 4, 0);
	default:
		return GN_INSN_UNKNOWN;
	}
}

static int transfer(struct run *run)
{
	switch (run->insn->z.mnemonic) {
	case ZYDIS_MNEMONIC_PUSH:
		return push(run);
	case ZYDIS_MNEMONIC_POP:
		return pop(run);
	case ZYDIS_MNEMONIC_PUSHF:
	case ZYDIS_MNEMONIC_PUSHFQ:
		return push_flags(run);
	case ZYDIS_MNEMONIC_CALL:
		return call(run);
	case ZYDIS_MNEMONIC_STOSB:
		return string(run, 1, false);
	case ZYDIS_MNEMONIC_STOSW:
		return string(run, 2, false);
	case ZYDIS_MNEMONIC_STOSD:
		return string(run, 4, false);
	case ZYDIS_MNEMONIC_STOSQ:
		return string(run, 8, false);
	case ZYDIS_MNEMONIC_MOVSB:
		return string(run, 1, true);
	case ZYDIS_MNEMONIC_MOVSW:
		return string(run, 2, true);
	case ZYDIS_MNEMONIC_MOVSD: /* of strings, or of doubles */
		return gn_insn_is_memory(run->insn, 0) &&
				       run->insn->operands[1].type == ZYDIS_OPERAND_TYPE_REGISTER
			       ? store_vector(run, 8, 0)
			       : string(run, 4, true);
	case ZYDIS_MNEMONIC_MOVSQ:
		return string(run, 8, true);
	default:
		return run->insn->z.meta.category == ZYDIS_CATEGORY_SETCC ? set_condition(run)
									  : vector_store(run);
	}
}

int gn_insn_execute(struct gn_kvm_state *v, const struct gn_insn *insn,
		    const struct gn_insn_memory *memory, void *ctx)
{
	static const struct {
		ZydisMnemonic mnemonic;
		enum gn_alu op;
	} alus[] = {
		{ ZYDIS_MNEMONIC_ADD, GN_ALU_ADD }, { ZYDIS_MNEMONIC_ADC, GN_ALU_ADC },
		{ ZYDIS_MNEMONIC_SUB, GN_ALU_SUB }, { ZYDIS_MNEMONIC_SBB, GN_ALU_SBB },
		{ ZYDIS_MNEMONIC_AND, GN_ALU_AND }, { ZYDIS_MNEMONIC_OR, GN_ALU_OR },
		{ ZYDIS_MNEMONIC_XOR, GN_ALU_XOR }, { ZYDIS_MNEMONIC_INC, GN_ALU_INC },
		{ ZYDIS_MNEMONIC_DEC, GN_ALU_DEC }, { ZYDIS_MNEMONIC_NEG, GN_ALU_NEG },
		{ ZYDIS_MNEMONIC_NOT, GN_ALU_NOT }, { ZYDIS_MNEMONIC_BT, GN_ALU_BT },
		{ ZYDIS_MNEMONIC_BTS, GN_ALU_BTS }, { ZYDIS_MNEMONIC_BTR, GN_ALU_BTR },
		{ ZYDIS_MNEMONIC_BTC, GN_ALU_BTC },
	};
	struct run run = { v, insn, memory, ctx, v->rflags & ~X86_FLAG_RF };

	switch (insn->z.mnemonic) {
	case ZYDIS_MNEMONIC_MOV:
	case ZYDIS_MNEMONIC_MOVNTI:
		return move(&run);
	case ZYDIS_MNEMONIC_MOVZX:
		return move_extended(&run, false);
	case ZYDIS_MNEMONIC_MOVSX:
	case ZYDIS_MNEMONIC_MOVSXD:
		return move_extended(&run, true);
	case ZYDIS_MNEMONIC_CMP:
		return compare(&run, GN_ALU_SUB);
	case ZYDIS_MNEMONIC_TEST:
		return compare(&run, GN_ALU_AND);
	case ZYDIS_MNEMONIC_XCHG:
		return has_memory(&run) ? exchange(&run) : GN_INSN_UNKNOWN;
	case ZYDIS_MNEMONIC_XADD:
		return has_memory(&run) ? exchange_add(&run) : GN_INSN_UNKNOWN;
	case ZYDIS_MNEMONIC_CMPXCHG:
		return has_memory(&run) ? compare_exchange(&run) : GN_INSN_UNKNOWN;
	default:
		break;
	}
	for (size_t i = 0; i < sizeof(alus) / sizeof(alus[0]); i++)
		if (alus[i].mnemonic == insn->z.mnemonic)
			return alu(&run, alus[i].op);
	return transfer(&run);
}
