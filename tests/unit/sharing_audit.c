/* SPDX-License-Identifier: MIT */
/*
 * sharing_audit.c - frames never cross from one domain to another, and the audit would tell.
 */
#include <errno.h>

#include "support/sharing_rig.h"

#define RAM (4 * MIB)

struct two {
	struct gn_frames *frames;
	struct gn_vm *vms[2];
	struct gn_domain *domains[2];
};

/* Two domains over one pool, a VM each; with the same key, if @key. */
static void two_init(struct two *t, const char *key)
{
	struct gn_domain_config config = { .max_pages = RAM / GN_PAGE_SIZE,
					   .key = key,
					   .key_bytes = key ? strlen(key) : 0 };

	t->frames = config.frames = rig_pool(32 * MIB, false);
	for (unsigned i = 0; i < 2; i++) {
		t->vms[i] = rig_vm(t->frames, "bare", RAM, 1);
		cr_assert_eq(gn_domain_create(&config, &t->domains[i]), 0);
		cr_assert_eq(gn_domain_add(t->domains[i], t->vms[i]), 0);
		for (uint64_t at = 0; at < 200; at++)
			rig_put(t->vms[i], at, 1 + at / 2);
	}
}

static void two_fini(struct two *t)
{
	for (unsigned i = 0; i < 2; i++) {
		gn_domain_destroy(t->domains[i]);
		gn_vm_destroy(t->vms[i]);
	}
	cr_assert_eq(gn_frames_used(t->frames), 0);
	gn_frames_destroy(t->frames);
}

static void two_settle(struct two *t)
{
	for (unsigned i = 0; i < 2 * RIG_SETTLE; i++) {
		bool done = false;

		cr_assert_eq(gn_domain_sweep(t->domains[i % 2]), 0);
		while (!done)
			cr_assert_eq(gn_domain_scan(t->domains[i % 2], 0, &done), 0);
	}
}

static int audit(struct two *t, struct gn_audit_report *report)
{
	return gn_domain_audit(t->domains, 2, report);
}

Test(sharing_audit, nothing_crosses)
{
	static const char *const keys[] = { NULL, "the same key" };

	for (unsigned k = 0; k < 2; k++) {
		struct gn_audit_report report;
		struct two t;

		two_init(&t, keys[k]);
		two_settle(&t);
		cr_assert_eq(audit(&t, &report), 0, "%s", report.first);
		cr_assert_eq(report.violations, 0);
		cr_assert_eq(report.tables, 200, "frames: a hundred in each domain");
		cr_assert_geq(report.entries, 400 + 200, "pages, and the entries of their frames");
		for (uint64_t at = 0; at < 200; at++)
			cr_assert_not(rig_share(t.vms[0], at, t.vms[1], at));
		two_fini(&t);
	}
}

Test(sharing_audit, a_frame_that_crossed)
{
	struct gn_merge page = { .at = gfn(0) };
	struct gn_audit_report report;
	struct two t;

	two_init(&t, NULL);
	two_settle(&t);
	cr_assert_eq(gn_p2m_publish(t.vms[0], &page, 1, GN_SHARE_READ), 0);
	cr_assert_eq(gn_p2m_merge(t.vms[1], &page, 1, GN_SHARE_READ, NULL), 0);
	gn_frames_put(t.frames, page.frame);
	cr_assert_eq(page.result, 0);
	cr_assert_eq(audit(&t, &report), -EBADMSG);
	cr_assert_geq(report.violations, 1);
	cr_assert_not_null(strstr(report.first, "domain 0 and in domain 1"), "%s", report.first);
	two_fini(&t);
}

Test(sharing_audit, a_reference_nobody_knows)
{
	static const uint64_t places[] = { 0, 300 }; /* shared, and alone */
	struct gn_audit_report report;
	struct two t;

	two_init(&t, NULL);
	rig_put(t.vms[0], 300, 12345);
	two_settle(&t);
	for (unsigned i = 0; i < 2; i++) {
		pfn_t frame = rig_query(t.vms[0], places[i]).pfn;

		gn_frames_get(t.frames, frame);
		cr_assert_eq(audit(&t, &report), -EBADMSG);
		cr_assert_neq(report.first[0], 0);
		gn_frames_put(t.frames, frame);
		cr_assert_eq(audit(&t, &report), 0, "%s", report.first);
	}
	gn_alloc_fail_nth(1);
	cr_assert_eq(audit(&t, &report), -ENOMEM);
	gn_alloc_fail_nth(0);
	two_fini(&t);
}

Test(sharing_audit, of_nothing)
{
	struct gn_audit_report report;

	cr_assert_eq(gn_domain_audit(NULL, 0, &report), 0);
	cr_assert_eq(report.entries, 0);
}
