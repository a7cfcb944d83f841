/* SPDX-License-Identifier: MIT */
/*
 * paging.c - a paging mode: which registers make which mode, which bits it reserves, and what an error
 * code says of the access (SDM vol. 3A 4.7). Whether an access may use a translation is inlined in
 * guest_walk.h.
 *
 * A mode is derived once per register write and not at each walk. It knows nothing of tables.
 */
#include "guest_walk.h"

/* With paging off the protections that ride on it are off as well, so that the identity translation,
 * which grants everything, passes every check. Paging on means long mode here (guest_walk.h). */
void gn_paging_derive(const struct gn_regs *regs, unsigned phys_bits, struct gn_paging *out)
{
	bool on = regs->cr0 & X86_CR0_PG;
	bool five = regs->cr4 & X86_CR4_LA57;
	struct gn_paging p = {
		.fmt = !on ? NULL : (five ? &gn_fmt_x86_5 : &gn_fmt_x86_4),
		.levels = !on ? 0 : (five ? 5 : 4),
		.phys_bits = (uint8_t)phys_bits,
		.wp = on && (regs->cr0 & X86_CR0_WP),
		.smep = on && (regs->cr4 & X86_CR4_SMEP),
		.smap = on && (regs->cr4 & X86_CR4_SMAP),
		.nxe = on && (regs->efer & X86_EFER_NXE),
		.pke = on && (regs->cr4 & X86_CR4_PKE),
		.pge = on && (regs->cr4 & X86_CR4_PGE),
		.pcide = on && (regs->cr4 & X86_CR4_PCIDE),
		.pkru = regs->pkru,
	};

	if (on) {
		p.reserved = (p.fmt->level[1].address & ~(((uint64_t)1 << phys_bits) - 1)) |
			     (p.nxe ? 0 : p.fmt->level[1].deny[GN_RI_X]);
		p.leaf_mask = p.reserved | p.fmt->level[1].present;
		p.pointer_mask = p.leaf_mask | p.fmt->level[2].leaf; /* reserved where not a mark */
	}
	*out = p;
}

bool gn_paging_is_reserved(const struct gn_paging *paging, unsigned level, uint64_t entry)
{
	return (entry & paging->reserved) ||
	       gn_fmt_is_malformed(paging->fmt, level, entry, paging->phys_bits);
}

/* SDM 4.7: W/R and U/S describe the access. I/D does so only where fetches can be forbidden at all,
 * under EFER.NXE or CR4.SMEP. */
uint32_t gn_paging_error_base(const struct gn_paging *paging, const struct gn_access *access)
{
	uint32_t code = 0;

	if (access->kind == GN_WRITE)
		code |= X86_PF_W;
	if (!gn_access_is_supervisor(access))
		code |= X86_PF_U;
	if (access->kind == GN_FETCH && (paging->nxe || paging->smep))
		code |= X86_PF_I;
	return code;
}

uint32_t gn_paging_error_present(const struct gn_paging *paging, const struct gn_access *access,
				 bool by_key)
{
	return gn_paging_error_base(paging, access) | X86_PF_P | (by_key ? X86_PF_PK : 0);
}
