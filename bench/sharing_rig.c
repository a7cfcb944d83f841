/* SPDX-License-Identifier: MIT */
/*
 * sharing_rig.c - build the VMs, fill them, share them.
 *
 * What was saved is told by the pool: frames in use before and after, those of tables left out.
 */
#include "sharing_rig.h"

#include "mmu/frames.h"
#include "mmu/retire.h"
#include "sharing_passes.h"

#define GUEST_PAUSE_NS 2000000
#define STOCK_PART     1024 /* of the memory, as an agent keeps it */

struct gn_vm *sharing_rig_vm(const struct sharing_rig *rig, unsigned vm)
{
	return gn_soft_vm(rig->vms[vm].soft);
}

struct gn_soft_cpu *sharing_rig_cpu(const struct sharing_rig *rig, unsigned vm)
{
	return gn_soft_cpu(rig->vms[vm].soft, 0);
}

static uint64_t table_pages(const struct sharing_rig *rig)
{
	uint64_t pages = 0;

	for (unsigned vm = 0; vm < rig->config.contents->vms; vm++) {
		struct gn_table_usage usage;

		gn_vm_table_usage(sharing_rig_vm(rig, vm), &usage);
		pages += usage.frames_bytes / GN_PAGE_SIZE;
	}
	return pages;
}

uint64_t sharing_rig_saved(const struct sharing_rig *rig)
{
	uint64_t used;

	for (unsigned vm = 0; vm < rig->config.contents->vms; vm++)
		gn_retire_drain(sharing_rig_vm(rig, vm));
	used = gn_frames_used(rig->frames) - table_pages(rig);
	used += gn_frames_stock(rig->frames); /* free, but not the host's */
	return used < rig->used_pages ? rig->used_pages - used : 0;
}

static int add_vm(struct sharing_rig *rig, unsigned vm)
{
	const struct sharing_rig_config *c = &rig->config;
	const struct gn_vm_config config = { .scheme = c->scheme,
					     .backing_level = c->backing_level,
					     .frames = rig->frames };

	return sharing_vm_init(&rig->vms[vm], c->contents, vm, &config, c->guest_leaf);
}

static int add_domain(struct sharing_rig *rig, unsigned vm)
{
	const struct gn_domain_config config = {
		.frames = rig->frames,
		.quiet = rig->config.quiet,
		.split_pages = rig->config.split_pages,
		.reserve_pages = rig->config.reserve_pages,
		/* Of one of the pool's domains. */
		.stock_pages = vm ? 0
				  : rig->config.contents->vms * rig->config.contents->vm_pages /
					       STOCK_PART,
		.max_pages = rig->config.contents->vms * sharing_vm_bytes(rig->config.contents) /
			     GN_PAGE_SIZE,
	};

	return vm && !rig->config.is_apart ? 0 : gn_domain_create(&config, &rig->domains[vm]);
}

int sharing_rig_init(struct sharing_rig *rig, const struct sharing_rig_config *config)
{
	const struct sharing_contents *contents = config->contents;
	uint64_t memory = contents->vms * sharing_vm_bytes(contents),
		 bytes = memory + memory / 64 + ((uint64_t)32 << 20) +
			 config->reserve_pages * GN_PAGE_SIZE;
	bool is_huge = config->backing_level > 1;
	int err;

	*rig = (struct sharing_rig){ .config = *config };
	if (!rig->config.guest_leaf)
		rig->config.guest_leaf = 2;
	err = gn_frames_new(bytes, GN_POOL_ANONYMOUS, is_huge, &rig->frames);
	for (unsigned vm = 0; vm < contents->vms && !err; vm++) {
		struct gn_domain **domain = &rig->domains[config->is_apart ? vm : 0];

		err = add_vm(rig, vm);
		if (!err)
			err = add_domain(rig, vm);
		if (!err)
			err = gn_domain_add(*domain, sharing_rig_vm(rig, vm));
		/* Tables of guests alike are alike, and no part of the contents. */
		if (!err)
			err = gn_domain_hint(
				*domain, sharing_rig_vm(rig, vm),
				gfn(sharing_vm_contents_bytes(contents) / GN_PAGE_SIZE),
				SHARING_TABLE_BYTES / GN_PAGE_SIZE, GN_SHARE_NEVER);
	}
	if (err) {
		sharing_rig_fini(rig);
		return err;
	}
	rig->used_pages = gn_frames_used(rig->frames) - table_pages(rig);
	return 0;
}

void sharing_rig_fini(struct sharing_rig *rig)
{
	sharing_rig_stop_guests(rig);
	for (unsigned vm = 0; vm < SHARING_MAX_VMS; vm++) {
		struct gn_domain *domain = rig->domains[rig->config.is_apart ? vm : 0];

		if (rig->vms[vm].soft && domain)
			gn_domain_remove(domain, sharing_rig_vm(rig, vm));
	}
	for (unsigned vm = 0; vm < SHARING_MAX_VMS; vm++)
		gn_domain_destroy(rig->domains[vm]);
	for (unsigned vm = 0; vm < SHARING_MAX_VMS; vm++)
		sharing_vm_fini(&rig->vms[vm]);
	if (rig->frames)
		gn_frames_destroy(rig->frames);
}

int sharing_rig_run(struct sharing_rig *rig, unsigned vm,
		    void (*guest)(struct gn_soft_cpu *cpu, void *ctx), void *ctx)
{
	return gn_soft_run(sharing_rig_cpu(rig, vm), guest, ctx);
}

int sharing_rig_start_guests(struct sharing_rig *rig, uint64_t pause_ns)
{
	int err = 0;

	for (unsigned vm = 0; vm < rig->config.contents->vms && !err; vm++) {
		const struct sharing_guest_config config = { .contents = rig->config.contents,
							     .vm = vm,
							     .pause_ns = pause_ns,
							     .cpu = sharing_rig_cpu(rig, vm) };

		err = sharing_guest_start(&config, &rig->guests[vm]);
	}
	return err;
}

int sharing_rig_stop_guests(struct sharing_rig *rig)
{
	int err = 0;

	for (unsigned vm = 0; vm < SHARING_MAX_VMS; vm++) {
		int failed = sharing_guest_stop(rig->guests[vm]);

		if (failed)
			err = failed;
		sharing_guest_free(rig->guests[vm]);
		rig->guests[vm] = NULL;
	}
	return err;
}

static uint64_t saved_pages(void *ctx)
{
	return sharing_rig_saved(ctx);
}

static struct sharing_passes passes_of(struct sharing_rig *rig)
{
	return (struct sharing_passes){ .domains = rig->domains,
					.most_domains = SHARING_MAX_VMS,
					.saved_pages = saved_pages,
					.ctx = rig };
}

int sharing_rig_pass(struct sharing_rig *rig)
{
	const struct sharing_passes passes = passes_of(rig);

	return sharing_pass(&passes);
}

int sharing_rig_converge(struct sharing_rig *rig, const struct sharing_oracle *oracle,
			 struct sharing_run *run)
{
	const struct sharing_passes passes = passes_of(rig);

	return sharing_converge(&passes, oracle, run);
}

int sharing_own_run(const char *scheme, const struct sharing_contents *contents,
		    const struct sharing_oracle *oracle, struct sharing_run *run)
{
	const struct sharing_rig_config config = { .contents = contents, .scheme = scheme };
	struct sharing_rig rig;
	int err = sharing_rig_init(&rig, &config), failed;

	if (err)
		return err;
	err = sharing_rig_start_guests(&rig, GUEST_PAUSE_NS);
	if (!err)
		err = sharing_rig_converge(&rig, oracle, run);
	failed = sharing_rig_stop_guests(&rig);
	run->saved_pages = sharing_rig_saved(&rig);
	sharing_rig_fini(&rig);
	return err ? err : failed;
}
