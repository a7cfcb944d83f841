/* SPDX-License-Identifier: MIT */
/*
 * p2m_rig.h - a VM under the plain scheme whose p2m is changed and looked at, page by page; for the
 * tests of the p2m's states (p2m.c) and of its blocks (p2m_blocks.c).
 */
#ifndef GN_TESTS_P2M_RIG_H
#define GN_TESTS_P2M_RIG_H

#include <criterion/criterion.h>
#include <string.h>

#include "support/plain_scheme.h"

#define MIB   ((uint64_t)1 << 20)
#define PAGES 2048u

static struct gn_vm *vm;

static inline void rig_make(uint64_t mem_bytes, unsigned backing_level)
{
	struct gn_vm_config config = plain_config(mem_bytes);

	config.backing_level = backing_level;
	vm = plain_vm(&config);
	cr_assert_not_null(vm);
}

static inline void rig_teardown(void)
{
	struct gn_audit_report report;

	if (vm)
		cr_assert_eq(gn_audit(vm, &report), 0, "%s", report.first);
	gn_vm_destroy(vm); /* debug builds abort on a leak */
}

static inline void rig_fill(uint64_t at, uint8_t byte)
{
	uint8_t page[GN_PAGE_SIZE];

	memset(page, byte, sizeof(page));
	cr_assert_eq(gn_vm_write(vm, gfn_to_gpa(gfn(at)), page, sizeof(page)), 0);
}

static inline uint8_t rig_byte_of(uint64_t at)
{
	uint8_t b;

	cr_assert_eq(gn_vm_read(vm, gpa(at * GN_PAGE_SIZE + 777), &b, 1), 0);
	return b;
}

static inline enum gn_p2m_state rig_state(uint64_t at)
{
	return plain_query(vm, at).state;
}

/* A page of @byte where the state has contents. The page after a SHARED one shares its frame. */
static inline void rig_make_state(uint64_t at, enum gn_p2m_state state, uint8_t byte)
{
	int err = 0;

	switch (state) {
	case GN_P2M_UNBACKED:
		err = gn_p2m_discard(vm, gfn(at), 1);
		break;
	case GN_P2M_PRIVATE:
		rig_fill(at, byte);
		break;
	case GN_P2M_SHARED:
		rig_fill(at, byte);
		rig_fill(at + 1, byte);
		err = gn_p2m_share(vm, gfn(at), gfn(at + 1));
		break;
	case GN_P2M_READONLY:
		rig_fill(at, byte);
		err = gn_p2m_protect(vm, gfn(at), 1, true);
		break;
	case GN_P2M_BALLOONED:
		err = gn_p2m_balloon(vm, gfn(at), 1);
		break;
	default:
		err = gn_p2m_set_mmio(vm, gfn(at), 1);
	}
	cr_assert_eq(err, 0);
	cr_assert_eq(rig_state(at), state);
}

/* The operations on ranges, by number. */
#define OPS 8

static inline int rig_run(unsigned op, uint64_t at, uint64_t count)
{
	switch (op) {
	case 0:
		return gn_p2m_populate(vm, gfn(at), count);
	case 1:
		return gn_p2m_discard(vm, gfn(at), count);
	case 2:
		return gn_p2m_balloon(vm, gfn(at), count);
	case 3:
		return gn_p2m_unballoon(vm, gfn(at), count);
	case 4:
		return gn_p2m_protect(vm, gfn(at), count, true);
	case 5:
		return gn_p2m_protect(vm, gfn(at), count, false);
	case 6:
		return gn_p2m_set_mmio(vm, gfn(at), count);
	default:
		return gn_p2m_move(vm, gfn(at), count);
	}
}

#endif
