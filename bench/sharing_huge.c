/* SPDX-License-Identifier: MIT */
/*
 * sharing_huge.c - probe: sharing breaks large pages; what that costs in references of page walks, under each scheme.
 *
 * Guest and host have pages of 2 MiB. In a quarter of the blocks nearly all pages have a like in the other VM, in the others
 * one in twenty. The guest uses one half of the blocks. Shared three ways: not at all, with every block split that has
 * anything to share, and with the domain's own policy. Then random loads: from the half in use, and from all.
 */
#include <stdio.h>

#include "sharing_rig.h"

#define GROUP "large pages: walk references per access"
#define BYTES ((uint64_t)1 << 30)
#define QUICK ((uint64_t)64 << 20)
enum {
	BLOCK_PAGES = 512,
	VMS = 2,
	DENSE_EVERY = 4,
	DENSE_PERCENT = 90,
	SPARSE_PERCENT = 5,
	LOADS = 400000,
	WARM_LOADS = 20000,
	PASSES = 12,
	SPLIT_ALWAYS = 1
};

/* The used half is the lower one; dense blocks are spread over both. */
static uint64_t number_of(const void *ctx, unsigned vm, uint64_t page)
{
	uint64_t random = page, block = page / BLOCK_PAGES;
	unsigned percent = block % DENSE_EVERY ? SPARSE_PERCENT : DENSE_PERCENT;

	(void)ctx;
	return sharing_random(&random) % 100 < percent ? sharing_common_number(page)
						       : sharing_own_number(vm, page);
}

struct loads {
	uint64_t pages, count, random;
};

static void load_random(struct gn_soft_cpu *cpu, void *ctx)
{
	struct loads *l = ctx;

	for (uint64_t i = 0; i < l->count; i++) {
		uint64_t random = sharing_random(&l->random);

		gn_soft_load(cpu,
			     gva(random % l->pages * SHARING_PAGE_BYTES + (random >> 50 & 511) * 8),
			     8);
	}
}

static int use(struct sharing_rig *rig, uint64_t pages, uint64_t count)
{
	struct loads loads = { pages, count, 5 };
	int err = 0;

	for (unsigned vm = 0; vm < VMS && !err; vm++)
		err = sharing_rig_run(rig, vm, load_random, &loads);
	return err;
}

/* Of VM 0, warm. */
static int count_references(struct sharing_rig *rig, uint64_t pages, double *per_access)
{
	struct loads loads = { pages, LOADS, 9 };
	struct gn_counters counters;
	int err = sharing_rig_run(rig, 0, load_random, &loads);

	gn_soft_counters_reset(rig->vms[0].soft);
	if (!err)
		err = sharing_rig_run(rig, 0, load_random, &loads);
	gn_soft_counters(rig->vms[0].soft, &counters);
	*per_access = (double)counters.walk_refs / (double)counters.accesses;
	return err;
}

static int add(struct sharing_results *r, struct sharing_rig *rig, const char *how)
{
	const struct sharing_contents *c = rig->config.contents;
	const struct {
		const char *what;
		uint64_t pages;
	} halves[] = { { "used half", c->vm_pages / 2 }, { "all", c->vm_pages } };
	double saved_mib = (double)sharing_rig_saved(rig) * SHARING_PAGE_BYTES / 1048576;
	char name[64];
	int err = 0;

	for (unsigned i = 0; i < 2 && !err; i++) {
		double references;

		err = count_references(rig, halves[i].pages, &references);
		snprintf(name, sizeof(name), "%s, %s: %s", rig->config.scheme, how, halves[i].what);
		sharing_add_figure(r, GROUP, name, "", references, SHARING_SHOWN, 0);
	}
	snprintf(name, sizeof(name), "%s, %s: saved", rig->config.scheme, how);
	sharing_add_figure(r, GROUP, name, "MiB", saved_mib, SHARING_SHOWN, 0);
	return err;
}

static int measure(struct sharing_results *r, const struct sharing_contents *contents,
		   const char *scheme, unsigned split_pages, bool with_before)
{
	const struct sharing_rig_config config = { .contents = contents,
						   .scheme = scheme,
						   .backing_level = 2,
						   .split_pages = split_pages };
	struct sharing_rig rig;
	int err = sharing_rig_init(&rig, &config);

	if (err)
		return err;
	if (with_before)
		err = add(r, &rig, "not shared");
	for (unsigned pass = 0; pass < PASSES && !err; pass++) {
		err = use(&rig, contents->vm_pages / 2, WARM_LOADS);
		if (!err)
			err = sharing_rig_pass(&rig);
	}
	if (!err)
		err = add(r, &rig, split_pages == SPLIT_ALWAYS ? "always split" : "policy");
	sharing_rig_fini(&rig);
	return err;
}

static int run_probe(struct sharing_results *r, struct sharing_ksm *ksm)
{
	static const char *const schemes[] = { "ept", "shadow" };
	uint64_t bytes = r->setup.quick ? QUICK : BYTES;
	struct sharing_contents contents;
	struct sharing_oracle oracle;
	int err = sharing_contents_init_by(&contents, VMS, bytes / SHARING_PAGE_BYTES / VMS,
					   r->setup.seed, number_of, NULL);

	(void)ksm;
	if (!err)
		err = sharing_contents_oracle(&contents, &oracle);
	if (!err)
		sharing_add_figure(r, GROUP, "what could be saved", "MiB",
				   (double)oracle.saved_pages * SHARING_PAGE_BYTES / 1048576,
				   SHARING_SHOWN, 0);
	for (unsigned i = 0; i < 2 && !err; i++) {
		err = measure(r, &contents, schemes[i], SPLIT_ALWAYS, true);
		if (!err)
			err = measure(r, &contents, schemes[i], 0, false);
	}
	sharing_contents_fini(&contents);
	return err;
}

const struct sharing_probe sharing_probe_huge = {
	"huge",
	"large pages broken by sharing, and what walks then cost",
	run_probe,
};
