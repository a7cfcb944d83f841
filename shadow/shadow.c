/* SPDX-License-Identifier: MIT */
/*
 * shadow.c - the schemes `shadow` and `shadow-vtlb`: the hardware walks tables that we keep.
 *
 * Each vCPU's hardware walks a table that translates guest-virtual to host-physical in one go, built from
 * the guest's tables and the p2m as faults ask for it. So a TLB miss costs what it costs without
 * virtualization; the price is paid where the guest changes its tables and switches between them. Where
 * that price is paid, and how it is kept low, is told in the files of this room: fault.c (filling),
 * write.c (trapped stores), sync.c (tables let go out of sync), root.c (context switches), vtlb.c (the
 * textbook's way, for comparison).
 *
 * The hardware runs these tables with CR0.WP=1 and EFER.NXE=1, without a physical width of the guest's, and with the
 * guest's CR4.SMEP, SMAP, PKE, PGE and PKRU (all off while the guest's paging is off): user/supervisor,
 * protection key and global mark of a guest page are in the shadow leaf.
 *
 * In a deprivileged VM the hardware knows but one privilege, CPL 3, so the guest's privileges are different roots
 * (views): see link.c for their leaves and root.c for which is in force when.
 *
 * One lock, the VM's scheme_lock, guards all of it. The walk of the guest's tables, frames and page
 * allocation are outside; what is under it is short. Finer locks are for the day when vCPUs are many.
 */
#include "shadow.h"

#include <errno.h>

void gn_shadow_leave_slow(struct gn_shadow *s)
{
	const struct gn_flush everything = { .scope = GN_FLUSH_ALL };

	if (s->flush_due) {
		gn_vm_flush(s->vm, &everything);
		s->flush_seq++;
		s->flush_due = s->flush_owed = false;
	}
	gn_shadow_pages_bury(s);
}

static size_t vcpus_bytes(const struct gn_vm *vm)
{
	return vm->config.vcpus * sizeof(struct gn_shadow_vcpu *);
}

static int tables_init(struct gn_vm *vm, bool is_vtlb)
{
	struct gn_shadow *s = (struct gn_shadow *)gn_arena_zalloc(vm->scheme_arena, sizeof(*s));
	int err = -ENOMEM;

	if (!s)
		return -ENOMEM;
	s->vm = vm;
	s->fmt = &gn_fmt_x86_5;
	s->is_vtlb = is_vtlb;
	s->is_single = vm->config.vcpus == 1;
	s->reserved_index = vm->has_root_slot ? vm->root_slot.index : GN_TABLE_ENTRIES;
	s->vcpus = (struct gn_shadow_vcpu **)gn_arena_zalloc(vm->scheme_arena, vcpus_bytes(vm));
	if (!s->vcpus)
		goto free_self;
	err = gn_shadow_pages_init(s);
	if (err)
		goto free_vcpus;
	err = gn_rmap_init(s);
	if (err)
		goto fini_pages;
	vm->scheme_data = s;
	return 0;

fini_pages:
	gn_shadow_pages_fini(s);
free_vcpus:
	gn_arena_free(vm->scheme_arena, s->vcpus, vcpus_bytes(vm));
free_self:
	gn_arena_free(vm->scheme_arena, s, sizeof(*s));
	return err;
}

static int shadow_vm_init(struct gn_vm *vm)
{
	return tables_init(vm, false);
}

static int vtlb_vm_init(struct gn_vm *vm)
{
	return tables_init(vm, true);
}

static void vm_fini(struct gn_vm *vm)
{
	struct gn_shadow *s = gn_shadow_of(vm);

	gn_shadow_enter(s);
	while (!gn_shadow_list_is_empty(&s->pages))
		gn_shadow_page_zap(s, (struct gn_shadow_page *)s->pages.next);
	gn_shadow_leave(s);
	gn_rmap_fini(s);
	gn_shadow_pages_fini(s);
	gn_arena_free(vm->scheme_arena, s->vcpus, vcpus_bytes(vm));
	gn_arena_free(vm->scheme_arena, s, sizeof(*s));
	vm->scheme_data = NULL;
}

const struct gn_scheme_ops gn_scheme_shadow = {
	.name = "shadow",
	.summary = "shadow page tables: write-protected guest tables, out-of-sync leaves, cached "
		   "roots",
	.keeps_tables = true,
	.vm_init = shadow_vm_init,
	.vm_fini = vm_fini,
	.vcpu_init = gn_shadow_vcpu_init,
	.vcpu_fini = gn_shadow_vcpu_fini,
	.load_root = gn_shadow_load_root,
	.invlpg = gn_shadow_invlpg,
	.flush_guest = gn_shadow_flush_guest,
	.fault = gn_shadow_fault,
	.memory_written = gn_shadow_memory_written,
	.range = gn_shadow_range,
	.moved = gn_shadow_moved,
	.harvest_accessed = gn_shadow_harvest_accessed,
	.audit = gn_shadow_audit,
};

const struct gn_scheme_ops gn_scheme_shadow_vtlb = {
	.name = "shadow-vtlb",
	.summary = "shadow page tables as a virtual TLB: guest tables unwatched, flushed at each "
		   "CR3 load",
	.keeps_tables = true,
	.vm_init = vtlb_vm_init,
	.vm_fini = vm_fini,
	.vcpu_init = gn_shadow_vcpu_init,
	.vcpu_fini = gn_shadow_vcpu_fini,
	.load_root = gn_shadow_vtlb_load_root,
	.invlpg = gn_shadow_vtlb_invlpg,
	.flush_guest = gn_shadow_vtlb_flush_guest,
	.fault = gn_shadow_fault,
	.range = gn_shadow_range,
	.moved = gn_shadow_moved,
	.harvest_accessed = gn_shadow_harvest_accessed,
	.audit = gn_shadow_audit,
};
