/* SPDX-License-Identifier: MIT */
/*
 * vcpu_set_regs.c - gn_vcpu_set_regs(): all registers at once, as a restore or a change of hardware sets them.
 *
 * Translations are asked for on the software machine, under every scheme, from every state to every other: what the state
 * before had in TLBs, walk caches and shadow tables must be gone. Every leaf is global, and two states share a PCID.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "softbackend/cpu.h"

#include "support/plain_scheme.h"
#include "unit/soft_guest.h"

#define MIB ((uint64_t)1 << 20)

static const char *const schemes[] = { "native", "shadow", "shadow-vtlb", "ept", "npt", "interp" };
#define SCHEMES (sizeof(schemes) / sizeof(schemes[0]))

/* ---- States a guest can have ----------------------------------------------------------------------------------- */

enum root { OFF, ROOT_A, ROOT_B, ROOT_5, ROOTS };

#define CR0_ON	   (X86_CR0_PE | X86_CR0_WP | X86_CR0_PG)
#define EFER_LONG  (X86_EFER_LME | X86_EFER_LMA)
#define KEY	   1
#define KEY_DENIED ((uint32_t)1 << 2 * KEY) /* PKRU: AD of the key */

static const struct state {
	enum root root; /* its address is added to CR3 */
	struct gn_regs regs;
} states[] = {
	{ OFF, { .cr0 = X86_CR0_PE } },
	{ ROOT_A, { CR0_ON, 0, X86_CR4_PAE, EFER_LONG | X86_EFER_NXE, 0 } },
	{ ROOT_B, { CR0_ON, 0, X86_CR4_PAE, EFER_LONG | X86_EFER_NXE, 0 } },
	{ ROOT_A, { CR0_ON, 0, X86_CR4_PAE | X86_CR4_PGE, EFER_LONG, 0 } },
	{ ROOT_A, { CR0_ON & ~X86_CR0_WP, 0, X86_CR4_PAE, EFER_LONG | X86_EFER_NXE, 0 } },
	{ ROOT_A,
	  { CR0_ON, 0, X86_CR4_PAE | X86_CR4_SMEP | X86_CR4_SMAP, EFER_LONG | X86_EFER_NXE, 0 } },
	{ ROOT_A, { CR0_ON, 0, X86_CR4_PAE | X86_CR4_PKE, EFER_LONG | X86_EFER_NXE, 0 } },
	{ ROOT_A, { CR0_ON, 0, X86_CR4_PAE | X86_CR4_PKE, EFER_LONG | X86_EFER_NXE, KEY_DENIED } },
	{ ROOT_A,
	  { CR0_ON, 5, X86_CR4_PAE | X86_CR4_PGE | X86_CR4_PCIDE, EFER_LONG | X86_EFER_NXE, 0 } },
	{ ROOT_B,
	  { CR0_ON, 5, X86_CR4_PAE | X86_CR4_PGE | X86_CR4_PCIDE, EFER_LONG | X86_EFER_NXE, 0 } },
	{ ROOT_5, { CR0_ON, 0, X86_CR4_PAE | X86_CR4_LA57, EFER_LONG | X86_EFER_NXE, 0 } },
	{ ROOT_5,
	  { CR0_ON, 0xfff, X86_CR4_PAE | X86_CR4_LA57 | X86_CR4_PCIDE, EFER_LONG, KEY_DENIED } },
};
#define STATES (sizeof(states) / sizeof(states[0]))

/* ---- The guest ---------------------------------------------------------------------------------------------------- */

static struct guest g;
static struct gn_vcpu *vcpu;
static uint64_t roots[ROOTS];

enum page { PLAIN, READ_ONLY, KERNEL, NO_EXECUTE, KEYED, PAGES };

static const uint64_t page_flags[PAGES] = {
	[PLAIN] = GUEST_RW | X86_PTE_G,
	[READ_ONLY] = (GUEST_RW | X86_PTE_G) & ~(X86_PTE_U | X86_PTE_W),
	[KERNEL] = (GUEST_RW | X86_PTE_G) & ~X86_PTE_U,
	[NO_EXECUTE] = GUEST_RW | X86_PTE_G | X86_PTE_NX,
	[KEYED] = GUEST_RW | X86_PTE_G | (uint64_t)KEY << X86_PTE_PKEY_SHIFT,
};

static uint64_t va_of(enum page page)
{
	return 4 * MIB + page * GN_PAGE_SIZE;
}

/* Without paging an address is its own frame's. */
static uint64_t frame_of(enum root root, enum page page)
{
	return va_of(page) + root * MIB;
}

static uint64_t mark_of(enum root root, enum page page)
{
	return 0x100 * (root + 1) + page;
}

static void create(const char *scheme, bool deprivileged)
{
	const struct gn_soft_config config = {
		.vm = { .scheme = scheme, .mem_bytes = 16 * MIB, .vcpus = 1 },
		.deprivileged = deprivileged,
	};

	guest_create(&g, &config, 4);
	vcpu = gn_vm_vcpu(g.vm, 0);
	for (unsigned root = 0; root < ROOTS; root++) {
		g.levels = root == ROOT_5 ? 5 : 4;
		g.cr3 = roots[root] = root == OFF ? 0 : guest_new_table(&g);
		for (unsigned page = 0; page < PAGES; page++) {
			uint64_t mark = mark_of(root, page);

			if (root != OFF)
				guest_map(&g, va_of(page), frame_of(root, page), 1,
					  page_flags[page]);
			guest_need(gn_vm_write(g.vm, gpa(frame_of(root, page)), &mark, 8));
		}
	}
}

static struct gn_regs regs_of(const struct state *s)
{
	struct gn_regs regs = s->regs;

	regs.cr3 |= roots[s->root];
	return regs;
}

/* Not memcmp(): there is padding. */
static bool is_same_regs(const struct gn_regs *a, const struct gn_regs *b)
{
	return a->cr0 == b->cr0 && a->cr3 == b->cr3 && a->cr4 == b->cr4 && a->efer == b->efer &&
	       a->pkru == b->pkru;
}

static int put(const struct gn_regs *regs)
{
	int err;

	gn_soft_call(g.cpu);
	err = gn_vcpu_set_regs(vcpu, regs);
	gn_soft_return(g.cpu);
	return err;
}

/* ---- What it must see ------------------------------------------------------------------------------------------------- */

static const struct probe {
	enum page page;
	enum gn_access_kind kind;
	bool user;
} probes[] = {
	{ PLAIN, GN_READ, true },	{ PLAIN, GN_WRITE, true },
	{ PLAIN, GN_READ, false },	{ PLAIN, GN_FETCH, false },
	{ READ_ONLY, GN_WRITE, false }, { READ_ONLY, GN_READ, false },
	{ KERNEL, GN_READ, true },	{ KERNEL, GN_WRITE, false },
	{ NO_EXECUTE, GN_FETCH, true }, { NO_EXECUTE, GN_READ, true },
	{ KEYED, GN_READ, true },
};

/* The error code of the #PF, 0: none. SDM vol. 3A 4.6 and 4.7, for these few pages. */
static uint32_t fault_of(const struct gn_regs *r, const struct probe *p)
{
	const bool nxe = r->efer & X86_EFER_NXE, smep = r->cr4 & X86_CR4_SMEP;
	const bool is_user_page = page_flags[p->page] & X86_PTE_U;
	const uint32_t base = X86_PF_P | (p->user ? X86_PF_U : 0) |
			      (p->kind == GN_WRITE ? X86_PF_W : 0) |
			      (p->kind == GN_FETCH && (nxe || smep) ? X86_PF_I : 0);
	bool bad;

	if (!(r->cr0 & X86_CR0_PG))
		return 0;
	if (p->page == NO_EXECUTE && !nxe)
		return base | X86_PF_RSVD;
	if (p->page == KEYED && (r->cr4 & X86_CR4_PKE) && (r->pkru & KEY_DENIED))
		return base | X86_PF_PK;
	if (p->user)
		bad = !is_user_page || (p->kind == GN_FETCH && p->page == NO_EXECUTE);
	else if (p->kind == GN_FETCH)
		bad = is_user_page && smep;
	else
		bad = (is_user_page && (r->cr4 & X86_CR4_SMAP)) ||
		      (p->kind == GN_WRITE && p->page == READ_ONLY && (r->cr0 & X86_CR0_WP));
	return bad ? base : 0;
}

static void check_probes(const struct gn_regs *regs, enum root root, const char *what)
{
	for (unsigned i = 0; i < sizeof(probes) / sizeof(probes[0]); i++) {
		const struct probe *p = &probes[i];
		const struct gn_access access = {
			.va = gva(va_of(p->page)), .kind = p->kind, .size = 8, .user = p->user
		};
		const uint64_t mark = mark_of(root, p->page);
		uint64_t value = p->kind == GN_WRITE ? mark : 0;
		struct gn_soft_outcome out;
		uint32_t code = fault_of(regs, p);
		int err;

		err = gn_soft_probe(g.cpu, &access, &value, &out);
		cr_assert_eq(err, 0, "%s: probe %u: %d", what, i, err);
		cr_assert_eq(out.faulted, code != 0, "%s: probe %u", what, i);
		cr_assert_eq(out.error_code, code, "%s: probe %u: %#x, not %#x", what, i,
			     out.error_code, code);
		if (p->kind == GN_READ && !code)
			cr_assert_eq(value, mark, "%s: probe %u: another page", what, i);
	}
}

static void check_audit(const char *what)
{
	struct gn_audit_report report;

	cr_assert_eq(gn_audit(g.vm, &report), 0, "%s: %s", what, report.first);
}

/* A deprivileged guest has no protection keys where a scheme's tables are walked. */
static bool is_possible(const struct gn_regs *regs, bool deprivileged)
{
	return !deprivileged || !(regs->cr4 & X86_CR4_PKE) ||
	       gn_vcpu_hw(vcpu)->kind != GN_HW_TABLES;
}

static void from_each_to_each(const char *scheme, bool deprivileged)
{
	char what[96];

	create(scheme, deprivileged);
	for (unsigned from = 0; from < STATES; from++)
		for (unsigned to = 0; to < STATES; to++) {
			const struct gn_regs before = regs_of(&states[from]),
					     after = regs_of(&states[to]);

			if (!is_possible(&before, deprivileged) ||
			    !is_possible(&after, deprivileged))
				continue;
			snprintf(what, sizeof(what), "%s%s, state %u to %u", scheme,
				 deprivileged ? ", deprivileged" : "", from, to);
			cr_assert_eq(put(&before), 0, "%s", what);
			check_probes(&before, states[from].root, what);
			cr_assert_eq(put(&after), 0, "%s", what);
			cr_assert(is_same_regs(gn_vcpu_regs(vcpu), &after), "%s", what);
			cr_assert_eq(gn_vcpu_hw(vcpu)->pcid,
				     after.cr4 & X86_CR4_PCIDE ? after.cr3 & X86_CR3_PCID_MASK : 0,
				     "%s", what);
			check_probes(&after, states[to].root, what);
			check_audit(what);
		}
	guest_destroy(&g);
}

Test(vcpu_set_regs, translations_follow)
{
	for (unsigned s = 0; s < SCHEMES; s++)
		for (unsigned deprivileged = 0; deprivileged < 2; deprivileged++)
			from_each_to_each(schemes[s], deprivileged);
}

/* ---- What no guest can have ---------------------------------------------------------------------------------------- */

#define LONG_CR4 X86_CR4_PAE
static const struct {
	const char *what;
	struct gn_regs regs;
} impossible[] = {
	{ "reserved bit of CR0", { CR0_ON | (uint64_t)1 << 32, 0, LONG_CR4, EFER_LONG, 0 } },
	{ "PG without PE", { CR0_ON & ~X86_CR0_PE, 0, LONG_CR4, EFER_LONG, 0 } },
	{ "NW without CD", { CR0_ON | X86_CR0_NW, 0, LONG_CR4, EFER_LONG, 0 } },
	{ "32-bit paging", { CR0_ON, 0, 0, 0, 0 } },
	{ "PAE paging", { CR0_ON, 0, X86_CR4_PAE, 0, 0 } },
	{ "long mode without PAE", { CR0_ON, 0, 0, EFER_LONG, 0 } },
	{ "LMA not set in long mode", { CR0_ON, 0, LONG_CR4, X86_EFER_LME, 0 } },
	{ "LMA without PG", { X86_CR0_PE, 0, LONG_CR4, EFER_LONG, 0 } },
	{ "LMA without LME", { X86_CR0_PE, 0, LONG_CR4, X86_EFER_LMA, 0 } },
	{ "reserved bit of EFER", { CR0_ON, 0, LONG_CR4, EFER_LONG | (uint64_t)1 << 12, 0 } },
	{ "reserved bit of CR4", { CR0_ON, 0, LONG_CR4 | (uint64_t)1 << 40, EFER_LONG, 0 } },
	{ "VMXE", { CR0_ON, 0, LONG_CR4 | (uint64_t)1 << 13, EFER_LONG, 0 } },
	{ "PCIDE without paging", { X86_CR0_PE, 0, LONG_CR4 | X86_CR4_PCIDE, X86_EFER_LME, 0 } },
	{ "CR3 beyond the physical width", { CR0_ON, (uint64_t)1 << 46, LONG_CR4, EFER_LONG, 0 } },
	{ "bit 63 of CR3", { CR0_ON, X86_CR3_NOFLUSH, LONG_CR4 | X86_CR4_PCIDE, EFER_LONG, 0 } },
};
#define IMPOSSIBLE (sizeof(impossible) / sizeof(impossible[0]))

/* All that a refusal must leave alone. */
struct picture {
	struct gn_regs regs;
	struct gn_paging paging;
	struct gn_hw hw;
};

static struct picture take_picture(const struct gn_vcpu *of)
{
	return (struct picture){ *gn_vcpu_regs(of), of->paging, *gn_vcpu_hw(of) };
}

static bool is_same_paging(const struct gn_paging *a, const struct gn_paging *b)
{
	return a->fmt == b->fmt && a->levels == b->levels && a->phys_bits == b->phys_bits &&
	       a->wp == b->wp && a->smep == b->smep && a->smap == b->smap && a->nxe == b->nxe &&
	       a->pke == b->pke && a->pge == b->pge && a->pcide == b->pcide && a->pkru == b->pkru &&
	       a->reserved == b->reserved && a->pointer_mask == b->pointer_mask &&
	       a->leaf_mask == b->leaf_mask;
}

static void check_picture(const struct picture *before, const struct gn_vcpu *of, const char *what)
{
	const struct gn_hw *a = &before->hw, *b = gn_vcpu_hw(of);

	cr_assert(is_same_regs(&before->regs, gn_vcpu_regs(of)), "%s", what);
	cr_assert(a->kind == b->kind && a->fmt == b->fmt && a->root.v == b->root.v &&
			  a->pcid == b->pcid && a->intercepts == b->intercepts &&
			  a->nested_ad == b->nested_ad,
		  "%s", what);
	cr_assert(is_same_paging(&before->paging, &of->paging), "%s", what);
}

static void refuse_each_in(const char *scheme, bool deprivileged, unsigned state)
{
	const struct gn_regs base = regs_of(&states[state]);
	char what[128];

	if (!is_possible(&base, deprivileged))
		return;
	cr_assert_eq(put(&base), 0);
	check_probes(&base, states[state].root, scheme);
	for (unsigned i = 0; i < IMPOSSIBLE; i++) {
		const struct picture before = take_picture(vcpu);
		struct gn_regs regs = impossible[i].regs;

		snprintf(what, sizeof(what), "%s, state %u, %s", scheme, state, impossible[i].what);
		regs.cr3 |= roots[ROOT_B];
		cr_assert_eq(put(&regs), -EINVAL, "%s", what);
		check_picture(&before, vcpu, what);
		check_probes(&base, states[state].root, what);
	}
	check_audit(what);
}

Test(vcpu_set_regs, refused_with_nothing_changed)
{
	for (unsigned s = 0; s < SCHEMES; s++)
		for (unsigned deprivileged = 0; deprivileged < 2; deprivileged++) {
			create(schemes[s], deprivileged);
			for (unsigned state = 0; state < STATES; state++)
				refuse_each_in(schemes[s], deprivileged, state);
			guest_destroy(&g);
		}
}

/* A leaf of a view has no key: the engine must not take such a guest over. */
Test(vcpu_set_regs, keys_of_a_deprivileged_guest)
{
	for (unsigned s = 0; s < SCHEMES; s++) {
		struct gn_regs regs;
		struct picture before;

		create(schemes[s], true);
		regs = regs_of(&states[1]);
		cr_assert_eq(put(&regs), 0);
		before = take_picture(vcpu);
		regs.cr4 |= X86_CR4_PKE;
		if (gn_vcpu_hw(vcpu)->kind == GN_HW_TABLES) {
			cr_assert_eq(put(&regs), -EINVAL, "%s", schemes[s]);
			check_picture(&before, vcpu, schemes[s]);
		} else {
			cr_assert_eq(put(&regs), 0, "%s", schemes[s]);
		}
		guest_destroy(&g);
	}
}

/* ---- What the scheme and the hardware are told ------------------------------------------------------------------------ */

Test(vcpu_set_regs, one_reload_and_one_flush_of_everything)
{
	struct gn_vm_config config = plain_config(8 * MIB);
	struct gn_vm *vm = plain_vm(&config);
	struct gn_regs regs = states[8].regs;

	cr_assert_not_null(vm);
	vcpu = gn_vm_vcpu(vm, 0);
	cr_assert_eq(gn_vcpu_set_regs(vcpu, &regs), 0);
	cr_assert_eq(plain.modes, 1);
	cr_assert_eq(plain.loads, 0);
	cr_assert_eq(plain.guest_flushes, 1);
	cr_assert_eq(plain.guest_flush.scope, GN_FLUSH_ALL);
	cr_assert_eq(plain.flushes, 1);
	cr_assert_eq(plain.flush.scope, GN_FLUSH_ALL);
	memset(&plain, 0, sizeof(plain));
	cr_assert_eq(gn_vcpu_set_regs(vcpu, &regs), 0, "the same ones");
	cr_assert_eq(plain.flushes, 1, "what hardware did meanwhile is not known");
	memset(&plain, 0, sizeof(plain));
	for (unsigned i = 0; i < IMPOSSIBLE; i++)
		cr_assert_eq(gn_vcpu_set_regs(vcpu, &impossible[i].regs), -EINVAL);
	cr_assert_eq(plain.modes + plain.loads + plain.flushes + plain.guest_flushes, 0);
	gn_vm_destroy(vm);
}

Test(vcpu_set_regs, a_scheme_that_cannot_follow)
{
	struct gn_vm_config config = plain_config(8 * MIB);
	struct gn_vm *vm = plain_vm(&config);
	const struct gn_regs regs = states[1].regs, other = states[10].regs;
	struct picture before;

	cr_assert_not_null(vm);
	vcpu = gn_vm_vcpu(vm, 0);
	cr_assert_eq(gn_vcpu_set_regs(vcpu, &regs), 0);
	before = take_picture(vcpu);
	memset(&plain, 0, sizeof(plain));
	plain.load_error = -ENOMEM;
	cr_assert_eq(gn_vcpu_set_regs(vcpu, &other), -ENOMEM);
	cr_assert_eq(plain.flushes + plain.guest_flushes, 0);
	check_picture(&before, vcpu, "plain");
	gn_vm_destroy(vm);
}

/* ---- Memory that is short ------------------------------------------------------------------------------------------------ */

/* Each allocation of one change fails once. Returns how many of the tries were refused. */
static unsigned starve(const char *scheme, bool deprivileged, unsigned from, unsigned to)
{
	unsigned refused = 0;
	char what[96];

	for (uint64_t nth = 1;; nth++) {
		struct gn_regs old, new;
		struct picture before;
		uint64_t made;
		int err;

		create(scheme, deprivileged);
		old = regs_of(&states[from]);
		new = regs_of(&states[to]);
		cr_assert_eq(put(&old), 0);
		before = take_picture(vcpu);
		snprintf(what, sizeof(what), "%s, state %u to %u, allocation %d", scheme, from, to,
			 (int)nth);
		gn_alloc_fail_nth(nth);
		err = put(&new);
		made = gn_alloc_fail_nth(0);
		if (err) {
			cr_assert_eq(err, -ENOMEM, "%s", what);
			check_picture(&before, vcpu, what);
			check_audit(what);
			check_probes(&old, states[from].root, what);
			cr_assert_eq(put(&new), 0, "%s: once more", what);
			refused++;
		}
		check_probes(&new, states[to].root, what);
		check_audit(what);
		guest_destroy(&g);
		if (made < nth)
			return refused;
	}
}

/* From the first state `shadow` has no old root to give up for a new one, so it must refuse; from another it makes do
 * with that. The virtual TLB empties the root it has, the others need none. */
Test(vcpu_set_regs, every_allocation_may_fail)
{
	static const unsigned targets[] = { 2, 5, 8, 10 };

	for (unsigned s = 0; s < SCHEMES; s++)
		for (unsigned deprivileged = 0; deprivileged < 2; deprivileged++)
			for (unsigned i = 0; i < sizeof(targets) / sizeof(targets[0]); i++) {
				bool makes_root = !strcmp(schemes[s], "shadow");
				unsigned refused = starve(schemes[s], deprivileged, 0, targets[i]);

				cr_assert(!makes_root || refused, "%s: to state %u: never refused",
					  schemes[s], targets[i]);
				starve(schemes[s], deprivileged, 1, targets[i]);
			}
}
