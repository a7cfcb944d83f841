/* SPDX-License-Identifier: MIT */
/*
 * insn.c - decoding (Zydis), operands, registers.
 *
 * A guest's registers stand in the order of their encoding, and so do Zydis's names of them, so a register's number is a
 * difference. Segment bases count for FS and GS only: this is 64-bit code.
 */
#include "insn.h"

#include <stdio.h>
#include <string.h>

static void init(ZydisDecoder *decoder)
{
	ZydisDecoderInit(decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
}

bool gn_insn_decode(struct gn_insn *insn)
{
	ZydisDecoderContext context;
	ZydisDecoder decoder;
	unsigned count;

	insn->length = 0;
	init(&decoder);
	if (!ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&decoder, &context, insn->bytes, insn->got,
							&insn->z)))
		return false;
	count = insn->z.operand_count_visible;
	if (count > GN_INSN_OPERANDS)
		count = GN_INSN_OPERANDS;
	if (!ZYAN_SUCCESS(ZydisDecoderDecodeOperands(&decoder, &context, &insn->z, insn->operands,
						     (ZyanU8)count)))
		return false;
	insn->length = insn->z.length;
	return true;
}

void gn_insn_text(const struct gn_insn *insn, uint64_t rip, char *text, size_t bytes)
{
	const unsigned shown = insn->length ? insn->length : insn->got;
	ZydisFormatter formatter;
	char words[128] = "not an instruction";
	size_t used = 0;

	if (insn->length) {
		ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
		if (!ZYAN_SUCCESS(ZydisFormatterFormatInstruction(
			    &formatter, &insn->z, insn->operands, insn->z.operand_count_visible,
			    words, sizeof(words), rip, NULL)))
			strcpy(words, "?");
	}
	for (unsigned i = 0; i < shown && used < bytes; i++)
		used += (size_t)snprintf(text + used, bytes - used, "%02x ", insn->bytes[i]);
	if (used < bytes)
		snprintf(text + used, bytes - used, "(%s)", words);
}

/* ---- Registers --------------------------------------------------------------------------------------------- */

int gn_insn_gpr(ZydisRegister reg)
{
	if (reg >= ZYDIS_REGISTER_RAX && reg <= ZYDIS_REGISTER_R15)
		return reg - ZYDIS_REGISTER_RAX;
	if (reg >= ZYDIS_REGISTER_EAX && reg <= ZYDIS_REGISTER_R15D)
		return reg - ZYDIS_REGISTER_EAX;
	if (reg >= ZYDIS_REGISTER_AX && reg <= ZYDIS_REGISTER_R15W)
		return reg - ZYDIS_REGISTER_AX;
	if (reg >= ZYDIS_REGISTER_AL && reg <= ZYDIS_REGISTER_BL)
		return reg - ZYDIS_REGISTER_AL;
	if (reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH)
		return reg - ZYDIS_REGISTER_AH;
	if (reg >= ZYDIS_REGISTER_SPL && reg <= ZYDIS_REGISTER_R15B)
		return reg - ZYDIS_REGISTER_SPL + GN_RSP;
	return -1;
}

static bool is_high_byte(ZydisRegister reg)
{
	return reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH;
}

static unsigned register_bits(ZydisRegister reg)
{
	return ZydisRegisterGetWidth(ZYDIS_MACHINE_MODE_LONG_64, reg);
}

static uint64_t mask_of_bits(unsigned bits)
{
	return bits >= 64 ? ~(uint64_t)0 : ((uint64_t)1 << bits) - 1;
}

uint64_t gn_insn_register(const struct gn_kvm_state *v, ZydisRegister reg)
{
	const int index = gn_insn_gpr(reg);

	if (index < 0)
		return 0;
	if (is_high_byte(reg))
		return v->gpr[index] >> 8 & 0xff;
	return v->gpr[index] & mask_of_bits(register_bits(reg));
}

void gn_insn_set_register(struct gn_kvm_state *v, ZydisRegister reg, uint64_t value)
{
	const int index = gn_insn_gpr(reg);
	const unsigned bits = register_bits(reg);
	uint64_t mask = mask_of_bits(bits);

	if (index < 0)
		return;
	if (is_high_byte(reg)) {
		v->gpr[index] = (v->gpr[index] & ~(uint64_t)0xff00) | (value & 0xff) << 8;
		return;
	}
	if (bits == 32)
		v->gpr[index] = 0;
	v->gpr[index] = (v->gpr[index] & ~mask) | (value & mask);
}

/* ---- Operands ------------------------------------------------------------------------------------------------- */

bool gn_insn_is_memory(const struct gn_insn *insn, unsigned index)
{
	return index < insn->z.operand_count_visible && index < GN_INSN_OPERANDS &&
	       insn->operands[index].type == ZYDIS_OPERAND_TYPE_MEMORY;
}

unsigned gn_insn_operand_bytes(const struct gn_insn *insn, unsigned index)
{
	return insn->operands[index].size / 8;
}

uint64_t gn_insn_address(const struct gn_kvm_state *v, const struct gn_insn *insn, unsigned index)
{
	const ZydisDecodedOperandMem *mem = &insn->operands[index].mem;
	uint64_t address = mem->disp.has_displacement ? (uint64_t)mem->disp.value : 0;

	if (mem->base == ZYDIS_REGISTER_RIP || mem->base == ZYDIS_REGISTER_EIP)
		address += v->rip + insn->length;
	else if (mem->base != ZYDIS_REGISTER_NONE)
		address += gn_insn_register(v, mem->base);
	if (mem->index != ZYDIS_REGISTER_NONE)
		address += gn_insn_register(v, mem->index) * mem->scale;
	address &= mask_of_bits(insn->z.address_width);
	if (mem->segment == ZYDIS_REGISTER_FS)
		address += v->fs.base;
	else if (mem->segment == ZYDIS_REGISTER_GS)
		address += v->gs.base;
	return address;
}

uint64_t gn_insn_value(const struct gn_kvm_state *v, const struct gn_insn *insn, unsigned index)
{
	const ZydisDecodedOperand *operand = &insn->operands[index];

	switch (operand->type) {
	case ZYDIS_OPERAND_TYPE_REGISTER:
		return gn_insn_register(v, operand->reg.value);
	case ZYDIS_OPERAND_TYPE_IMMEDIATE:
		return operand->imm.value.u & mask_of_bits(insn->operands[0].size);
	default:
		return 0;
	}
}

unsigned gn_insn_store_bytes(const struct gn_insn *insn)
{
	unsigned bytes;

	for (unsigned i = 0; i < insn->z.operand_count_visible && i < GN_INSN_OPERANDS; i++)
		if (gn_insn_is_memory(insn, i)) {
			bytes = gn_insn_operand_bytes(insn, i);
			return bytes && bytes <= 64 ? bytes : 8;
		}
	switch (insn->z.mnemonic) {
	case ZYDIS_MNEMONIC_STOSB:
	case ZYDIS_MNEMONIC_MOVSB:
		return 1;
	case ZYDIS_MNEMONIC_STOSW:
	case ZYDIS_MNEMONIC_MOVSW:
		return 2;
	case ZYDIS_MNEMONIC_STOSD:
	case ZYDIS_MNEMONIC_MOVSD:
		return 4;
	default:
		return 8;
	}
}
