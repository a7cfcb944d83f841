/* SPDX-License-Identifier: MIT */
/*
 * sharing_rig.h - VMs over one pool, in a sharing domain; pages that are told by a number, which is what they hold. 0: zeros.
 */
#ifndef GN_TESTS_SHARING_RIG_H
#define GN_TESTS_SHARING_RIG_H

#include <criterion/criterion.h>
#include <string.h>

#include <gnomon/schemes.h>
#include <gnomon/sharing.h>

#include "mmu/vm.h"
#include "sharing/domain_impl.h"
#include "support/bare_vm.h"

#define RIG_VMS	   3
#define RIG_SETTLE 4 /* rounds after which all is looked at */
#define MIB	   ((uint64_t)1 << 20)

struct rig {
	struct gn_frames *frames;
	struct gn_vm *vms[RIG_VMS];
	unsigned vm_count;
	struct gn_domain *domain;
};

static inline struct gn_frames *rig_pool(uint64_t bytes, bool huge)
{
	struct gn_frames *frames = NULL;

	cr_assert_eq(gn_frames_new(bytes, GN_POOL_ANONYMOUS, huge, &frames), 0);
	return frames;
}

static inline struct gn_vm *rig_vm(struct gn_frames *frames, const char *scheme, uint64_t mem_bytes,
				   unsigned backing_level)
{
	const struct gn_vm_config config = { .scheme = scheme,
					     .mem_bytes = mem_bytes,
					     .vcpus = 1,
					     .frames = frames,
					     .backing_level = backing_level };
	struct gn_vm *vm = NULL;
	static bool registered;

	if (!registered) {
		cr_assert_eq(gn_schemes_register_all(), 0);
		cr_assert_eq(gn_scheme_register(&bare_scheme), 0);
	}
	registered = true;
	cr_assert_eq(gn_vm_create(&config, &vm), 0);
	return vm;
}

/* @count VMs of @mem_bytes each, and a domain with what @config says of it. */
static inline void rig_init(struct rig *r, const char *scheme, unsigned count, uint64_t mem_bytes,
			    unsigned backing_level, const struct gn_domain_config *config)
{
	struct gn_domain_config c = *config;

	memset(r, 0, sizeof(*r));
	r->vm_count = count;
	r->frames = rig_pool(2 * count * mem_bytes + 16 * MIB, backing_level > 1);
	c.frames = r->frames;
	c.max_pages = c.max_pages ? c.max_pages : count * mem_bytes / GN_PAGE_SIZE;
	cr_assert_eq(gn_domain_create(&c, &r->domain), 0);
	for (unsigned i = 0; i < count; i++) {
		r->vms[i] = rig_vm(r->frames, scheme, mem_bytes, backing_level);
		cr_assert_eq(gn_domain_add(r->domain, r->vms[i]), 0);
	}
}

static inline void rig_fini(struct rig *r)
{
	for (unsigned i = 0; i < r->vm_count; i++)
		gn_domain_remove(r->domain, r->vms[i]);
	gn_domain_destroy(r->domain);
	for (unsigned i = 0; i < r->vm_count; i++)
		gn_vm_destroy(r->vms[i]);
	cr_assert_eq(gn_frames_used(r->frames), 0, "frames leak");
	gn_frames_destroy(r->frames);
}

static inline void rig_make_page(uint64_t page[512], uint64_t number)
{
	for (uint64_t i = 0; i < 512; i++)
		page[i] = number * (2 * i + 1);
}

static inline void rig_put(struct gn_vm *vm, uint64_t at, uint64_t number)
{
	uint64_t page[512];

	rig_make_page(page, number);
	cr_assert_eq(gn_vm_write(vm, gfn_to_gpa(gfn(at)), page, sizeof(page)), 0);
}

static inline bool rig_holds(struct gn_vm *vm, uint64_t at, uint64_t number)
{
	uint64_t page[512], expected[512];

	rig_make_page(expected, number);
	cr_assert_eq(gn_vm_read(vm, gfn_to_gpa(gfn(at)), page, sizeof(page)), 0);
	return !memcmp(page, expected, sizeof(page));
}

static inline struct gn_p2m_info rig_query(struct gn_vm *vm, uint64_t at)
{
	struct gn_p2m_info info = { 0 };

	cr_assert_eq(gn_p2m_query(vm, gfn(at), &info), 0);
	return info;
}

static inline bool rig_share(struct gn_vm *a, uint64_t at, struct gn_vm *b, uint64_t bt)
{
	struct gn_p2m_info x = rig_query(a, at), y = rig_query(b, bt);

	return x.state == GN_P2M_SHARED && y.state == GN_P2M_SHARED && x.pfn.v == y.pfn.v;
}

static inline void rig_audit(struct rig *r)
{
	struct gn_audit_report report;

	cr_assert_eq(gn_domain_audit(&r->domain, 1, &report), 0, "%s", report.first);
	for (unsigned i = 0; i < r->vm_count; i++)
		cr_assert_eq(gn_audit(r->vms[i], &report), 0, "%s", report.first);
}

static inline void rig_round(struct rig *r)
{
	bool done = false;

	cr_assert_eq(gn_domain_sweep(r->domain), 0);
	while (!done)
		cr_assert_eq(gn_domain_scan(r->domain, 1000000, &done), 0);
}

static inline void rig_settle(struct rig *r)
{
	for (unsigned i = 0; i < RIG_SETTLE; i++)
		rig_round(r);
	rig_audit(r);
}

static inline struct gn_sharing_stats rig_stats(struct rig *r)
{
	struct gn_sharing_stats stats;

	gn_domain_stats(r->domain, &stats);
	return stats;
}

#endif
