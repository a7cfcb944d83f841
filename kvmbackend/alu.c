/* SPDX-License-Identifier: MIT */
/*
 * alu.c - integer arithmetic with its flags, as the processor does it (SDM vol. 2, each instruction's "Flags
 * Affected"; vol. 1 3.4.3.1 for what each flag says).
 *
 * In plain C rather than by executing the instruction: then it is the same on every compiler and under sanitizers, and
 * the test holds it against the real instructions. Flags the architecture leaves undefined get what current
 * processors give: AF 0 after logic, all but CF unchanged after bit tests.
 */
#include "depriv.h"

#define ARITHMETIC                                                                                 \
	(X86_FLAG_CF | X86_FLAG_PF | X86_FLAG_AF | X86_FLAG_ZF | X86_FLAG_SF | X86_FLAG_OF)

static uint64_t mask_of(unsigned bytes)
{
	return bytes >= 8 ? ~(uint64_t)0 : ((uint64_t)1 << 8 * bytes) - 1;
}

static uint64_t sign_of(unsigned bytes)
{
	return (uint64_t)1 << (8 * bytes - 1);
}

/* Of the result alone. */
static uint64_t result_flags(uint64_t result, unsigned bytes)
{
	uint64_t flags = 0;

	if (!result)
		flags |= X86_FLAG_ZF;
	if (result & sign_of(bytes))
		flags |= X86_FLAG_SF;
	if (!(__builtin_popcount((unsigned)result & 0xff) & 1))
		flags |= X86_FLAG_PF;
	return flags;
}

static uint64_t add(uint64_t a, uint64_t b, bool carry, unsigned bytes, uint64_t *flags)
{
	const unsigned __int128 sum = (unsigned __int128)a + b + carry;
	const uint64_t result = (uint64_t)sum & mask_of(bytes);

	*flags = result_flags(result, bytes);
	if (sum >> 8 * bytes)
		*flags |= X86_FLAG_CF;
	if ((a ^ b ^ result) & 0x10)
		*flags |= X86_FLAG_AF;
	if ((a ^ result) & (b ^ result) & sign_of(bytes))
		*flags |= X86_FLAG_OF;
	return result;
}

static uint64_t subtract(uint64_t a, uint64_t b, bool borrow, unsigned bytes, uint64_t *flags)
{
	const uint64_t result = (a - b - borrow) & mask_of(bytes);

	*flags = result_flags(result, bytes);
	if ((unsigned __int128)a < (unsigned __int128)b + borrow)
		*flags |= X86_FLAG_CF;
	if ((a ^ b ^ result) & 0x10)
		*flags |= X86_FLAG_AF;
	if ((a ^ b) & (a ^ result) & sign_of(bytes))
		*flags |= X86_FLAG_OF;
	return result;
}

static uint64_t logic(uint64_t result, unsigned bytes, uint64_t *flags)
{
	*flags = result_flags(result, bytes);
	return result;
}

static uint64_t bit(enum gn_alu op, uint64_t a, uint64_t number, unsigned bytes, uint64_t *rflags)
{
	const uint64_t mask = (uint64_t)1 << (number & (8 * bytes - 1));

	*rflags = (*rflags & ~X86_FLAG_CF) | (a & mask ? X86_FLAG_CF : 0);
	switch (op) {
	case GN_ALU_BTS:
		return a | mask;
	case GN_ALU_BTR:
		return a & ~mask;
	case GN_ALU_BTC:
		return a ^ mask;
	default:
		return a;
	}
}

uint64_t gn_alu(enum gn_alu op, uint64_t a, uint64_t b, unsigned bytes, uint64_t *rflags)
{
	const bool carry = *rflags & X86_FLAG_CF;
	uint64_t kept = *rflags & ~ARITHMETIC, flags = 0, result;

	if (op >= GN_ALU_BT)
		return bit(op, a & mask_of(bytes), b, bytes, rflags);
	a &= mask_of(bytes);
	b &= mask_of(bytes);
	switch (op) {
	case GN_ALU_ADD:
		result = add(a, b, false, bytes, &flags);
		break;
	case GN_ALU_ADC:
		result = add(a, b, carry, bytes, &flags);
		break;
	case GN_ALU_SUB:
		result = subtract(a, b, false, bytes, &flags);
		break;
	case GN_ALU_SBB:
		result = subtract(a, b, carry, bytes, &flags);
		break;
	case GN_ALU_AND:
		result = logic(a & b, bytes, &flags);
		break;
	case GN_ALU_OR:
		result = logic(a | b, bytes, &flags);
		break;
	case GN_ALU_XOR:
		result = logic(a ^ b, bytes, &flags);
		break;
	case GN_ALU_INC:
		result = add(a, 1, false, bytes, &flags);
		break;
	case GN_ALU_DEC:
		result = subtract(a, 1, false, bytes, &flags);
		break;
	case GN_ALU_NEG:
		result = subtract(0, a, false, bytes, &flags);
		break;
	default: /* NOT */
		return ~a & mask_of(bytes);
	}
	if (op == GN_ALU_INC || op == GN_ALU_DEC)
		flags = (flags & ~X86_FLAG_CF) | (*rflags & X86_FLAG_CF);
	*rflags = kept | flags;
	return result;
}

bool gn_alu_condition(unsigned code, uint64_t rflags)
{
	const bool cf = rflags & X86_FLAG_CF, zf = rflags & X86_FLAG_ZF, sf = rflags & X86_FLAG_SF,
		   of = rflags & X86_FLAG_OF, pf = rflags & X86_FLAG_PF;
	const bool holds[8] = { of, cf, zf, cf || zf, sf, pf, sf != of, zf || sf != of };

	return holds[code >> 1 & 7] != (code & 1);
}
