/* SPDX-License-Identifier: MIT */
/*
 * vm.c - a VM's life: creation, the exchange of its scheme, its end.
 *
 * Creation goes bottom-up (arena, frames, p2m, retire list, vCPUs, scheme) and its unwinding is the same list
 * backwards. What a VM owns hangs on its arena and its frame pool, so the end can prove that nothing leaked: in
 * debug builds an arena with live bytes or a pool with a frame in use is a bug.
 *
 * The exchange of the scheme. struct gn_vm has one place for the scheme in force (ops, scheme_data,
 * scheme_arena; per vCPU scheme_data and hw), and every operation finds its data there. So the new one is
 * built in place: save those fields, put empty ones, run the new scheme's init; on failure run its fini
 * and put the saved ones back. This is safe because nobody looks at these fields meanwhile: no vCPU is inside the
 * engine (the caller's promise), and everything from outside (p2m changes, device access, dirty log) takes
 * vm->lock, which we hold. The old scheme's tables stay correct while the new one is built, for they are
 * caches of guest tables and p2m and all a new scheme may do to those is fill unbacked gfns.
 * Contents of guest memory are not touched, and a dirty log goes on: the new scheme starts
 * with empty tables, i.e. with nothing writable.
 */
#include "vm.h"

#include <errno.h>
#include <string.h>

#include <gnomon/x86.h>

#define DEFAULT_PHYS_BITS 46

/* ---- Configuration ---------------------------------------------------------------------------------- */

static int refuse(const char *what)
{
	gn_log(GN_LOG_ERROR, "VM configuration: %s", what);
	return -EINVAL;
}

/* Fill in what was left 0 and check the rest. */
static int config_complete(struct gn_vm_config *c)
{
	if (!c->guest_phys_bits)
		c->guest_phys_bits = DEFAULT_PHYS_BITS;
	if (!c->backing_level)
		c->backing_level = 1;
	if (!c->max_leaf_level)
		c->max_leaf_level = 3;
	if (!c->nested_levels)
		c->nested_levels = 4;
	if (c->guest_phys_bits < 32 || c->guest_phys_bits > 52)
		return refuse("guest_phys_bits must be 32 to 52");
	if (!c->mem_bytes || c->mem_bytes % GN_PAGE_SIZE)
		return refuse("mem_bytes must be a positive multiple of 4096");
	if (c->mem_bytes > (uint64_t)1 << c->guest_phys_bits)
		return refuse("mem_bytes does not fit guest_phys_bits");
	if (c->vcpus < 1 || c->vcpus > GN_MAX_VCPUS)
		return refuse("vcpus must be 1 to 64");
	if (c->backing_level > 3 || c->max_leaf_level > 3)
		return refuse("backing_level and max_leaf_level must be 1, 2 or 3");
	if (c->pool > GN_POOL_TEMPLATE)
		return refuse("pool must be GN_POOL_MEMFD, _ANONYMOUS or _TEMPLATE");
	if (c->pool == GN_POOL_TEMPLATE && (c->backing_level != 1 || c->window_bytes))
		return refuse("over a template frames are of 4 KiB, and there is no window");
	if (c->nested_levels != 4 && c->nested_levels != 5)
		return refuse("nested_levels must be 4 or 5");
	if (c->frames && (c->pool_bytes || c->pool != GN_POOL_MEMFD))
		return refuse("pool_bytes and pool are those of the pool given as frames");
	if (c->frames && (c->home_frames || c->window_bytes))
		return refuse("home_frames and window_bytes need a pool of the VM's own");
	if (c->pool == GN_POOL_TEMPLATE && c->pool_bytes && c->pool_bytes < c->mem_bytes)
		return refuse("over a template the pool has all of RAM: pool_bytes is too small");
	c->home_frames |= c->pool == GN_POOL_TEMPLATE;
	if (!c->pool_bytes && !c->frames)
		c->pool_bytes = c->mem_bytes + gn_vm_tables_bytes(c->mem_bytes);
	return 0;
}

/* ---- The scheme in force ------------------------------------------------------------------------------ */

struct scheme_state {
	const struct gn_scheme_ops *ops;
	void *data;
	struct gn_arena *arena;
	struct {
		void *data;
		struct gn_hw hw;
	} vcpus[GN_MAX_VCPUS];
};

static void scheme_save(const struct gn_vm *vm, struct scheme_state *out)
{
	out->ops = vm->ops;
	out->data = vm->scheme_data;
	out->arena = vm->scheme_arena;
	for (unsigned i = 0; i < vm->config.vcpus; i++) {
		out->vcpus[i].data = vm->vcpus[i].scheme_data;
		out->vcpus[i].hw = vm->vcpus[i].hw;
	}
}

static void scheme_restore(struct gn_vm *vm, const struct scheme_state *from)
{
	vm->ops = from->ops;
	vm->scheme_data = from->data;
	vm->scheme_arena = from->arena;
	for (unsigned i = 0; i < vm->config.vcpus; i++) {
		vm->vcpus[i].scheme_data = from->vcpus[i].data;
		vm->vcpus[i].hw = from->vcpus[i].hw;
	}
}

/* The first @vcpus vCPUs were initialised. Frees everything of the scheme in force. */
static void scheme_teardown(struct gn_vm *vm, unsigned vcpus)
{
	while (vcpus--)
		if (vm->ops->vcpu_fini)
			vm->ops->vcpu_fini(&vm->vcpus[vcpus]);
	vm->ops->vm_fini(vm);
	gn_retire_drain(vm);
	gn_arena_destroy(vm->scheme_arena);
	vm->scheme_arena = NULL;
}

/* Build @ops in the scheme's place. On failure the place is empty. */
static int scheme_build(struct gn_vm *vm, const struct gn_scheme_ops *ops)
{
	unsigned ready = 0;
	int err;

	vm->ops = ops;
	vm->scheme_data = NULL;
	vm->scheme_arena = NULL;
	err = gn_arena_new(&vm->scheme_arena);
	if (err)
		return err;
	err = ops->vm_init(vm);
	if (err) {
		gn_retire_drain(vm);
		gn_arena_destroy(vm->scheme_arena);
		return err;
	}
	for (; !err && ready < vm->config.vcpus; ready++) {
		struct gn_vcpu *vcpu = &vm->vcpus[ready];

		vcpu->scheme_data = NULL;
		memset(&vcpu->hw, 0, sizeof(vcpu->hw));
		err = ops->vcpu_init(vcpu);
		if (err)
			break;
	}
	if (err)
		scheme_teardown(vm, ready);
	return err;
}

/* ---- Creation -------------------------------------------------------------------------------------------- */

static int vcpus_new(struct gn_vm *vm)
{
	vm->vcpus = gn_arena_zalloc(vm->arena, vm->config.vcpus * sizeof(vm->vcpus[0]));
	if (!vm->vcpus)
		return -ENOMEM;
	for (unsigned i = 0; i < vm->config.vcpus; i++) {
		struct gn_vcpu *vcpu = &vm->vcpus[i];

		vcpu->vm = vm;
		vcpu->index = i;
		vcpu->view = vm->config.deprivileged ? GN_VIEW_KERNEL : GN_VIEW_BOTH;
		vcpu->regs.cr0 = X86_CR0_PE;
		gn_paging_derive(&vcpu->regs, vm->config.guest_phys_bits, &vcpu->paging);
	}
	return 0;
}

static int frames_init(struct gn_vm *vm)
{
	const struct gn_vm_config *c = &vm->config;

	vm->owns_frames = !c->frames;
	vm->frames = c->frames;
	if (c->frames)
		return 0;
	if (gn_vm_is_over_template(vm))
		return gn_frames_new_over(c->pool_bytes, c->template_fd, c->mem_bytes, &vm->frames);
	return gn_frames_new_windowed(c->pool_bytes, c->pool, c->backing_level > 1, c->window_bytes,
				      &vm->frames);
}

static void frames_fini(struct gn_vm *vm)
{
	if (vm->owns_frames)
		gn_frames_destroy(vm->frames);
}

/* Nobody but the VM took frames of a pool that is its own. */
static void check_frames(const struct gn_vm *vm)
{
	uint64_t used = gn_frames_used(vm->frames);

	if (!vm->owns_frames || !used)
		return;
	gn_log(GN_LOG_ERROR, "VM destroyed with %llu frames in use", (unsigned long long)used);
#ifdef GN_DEBUG
	GN_BUG_ON(used);
#endif
}

int gn_vm_create(const struct gn_vm_config *config, struct gn_vm **out)
{
	struct gn_vm_config complete = *config;
	const struct gn_scheme_ops *ops = gn_scheme_find(config->scheme);
	struct gn_arena *arena;
	struct gn_vm *vm;
	int err;

	if (!ops) {
		gn_log(GN_LOG_ERROR, "no scheme is called '%s'",
		       config->scheme ? config->scheme : "");
		return -ENOENT;
	}
	err = config_complete(&complete);
	if (err)
		return err;
	err = gn_arena_new(&arena);
	if (err)
		return err;
	err = -ENOMEM;
	vm = gn_arena_zalloc(arena, sizeof(*vm));
	if (!vm)
		goto fail_arena;
	vm->arena = arena;
	vm->config = complete;
	vm->config.scheme = ops->name; /* the caller's string may go */
	gn_lock_init(&vm->lock, GN_RANK_VM);
	gn_lock_init(&vm->scheme_lock, GN_RANK_SCHEME);
	vm->scratch = gn_arena_zalloc(arena, GN_PAGE_SIZE);
	if (!vm->scratch)
		goto fail_vm;
	err = frames_init(vm);
	if (err)
		goto fail_scratch;
	err = gn_p2m_init(&vm->p2m, vm, complete.mem_bytes / GN_PAGE_SIZE, complete.backing_level);
	if (err)
		goto fail_frames;
	err = gn_retire_init(vm);
	if (err)
		goto fail_p2m;
	err = vcpus_new(vm);
	if (err)
		goto fail_retire;
	err = scheme_build(vm, ops);
	if (err)
		goto fail_vcpus;
	*out = vm;
	return 0;

fail_vcpus:
	gn_arena_free(arena, vm->vcpus, vm->config.vcpus * sizeof(vm->vcpus[0]));
fail_retire:
	gn_retire_fini(vm);
fail_p2m:
	gn_p2m_fini(&vm->p2m, vm);
fail_frames:
	frames_fini(vm);
fail_scratch:
	gn_arena_free(arena, vm->scratch, GN_PAGE_SIZE);
fail_vm:
	gn_lock_fini(&vm->scheme_lock);
	gn_lock_fini(&vm->lock);
	gn_arena_free(arena, vm, sizeof(*vm));
fail_arena:
	gn_arena_destroy(arena);
	return err;
}

void gn_vm_destroy(struct gn_vm *vm)
{
	struct gn_arena *arena;

	if (!vm)
		return;
	arena = vm->arena;
	gn_dirty_stop(vm);
	scheme_teardown(vm, vm->config.vcpus);
	gn_arena_free(arena, vm->vcpus, vm->config.vcpus * sizeof(vm->vcpus[0]));
	gn_retire_fini(vm);
	gn_p2m_fini(&vm->p2m, vm);
	check_frames(vm);
	frames_fini(vm);
	gn_arena_free(arena, vm->scratch, GN_PAGE_SIZE);
	gn_lock_fini(&vm->scheme_lock);
	gn_lock_fini(&vm->lock);
	gn_arena_free(arena, vm, sizeof(*vm));
	gn_arena_destroy(arena);
}

/* ---- Exchange ---------------------------------------------------------------------------------------------- */

/* A machine that walks the guest's own tables can't be made to tell what it writes. */
static bool can_log_dirty(const struct gn_vm *vm)
{
	return vm->vcpus[0].hw.kind != GN_HW_GUEST;
}

static int switch_locked(struct gn_vm *vm, const struct gn_scheme_ops *ops)
{
	const struct gn_flush everything = { .scope = GN_FLUSH_ALL };
	const struct gn_backend_ops *backend = vm->config.backend;
	struct scheme_state old, new;
	int err;

	scheme_save(vm, &old);
	err = scheme_build(vm, ops);
	if (!err && gn_dirty_is_logged(vm) && !can_log_dirty(vm)) {
		gn_log(GN_LOG_ERROR, "scheme '%s' cannot log dirty pages: stop the log first",
		       ops->name);
		scheme_teardown(vm, vm->config.vcpus);
		err = -EBUSY;
	}
	if (err) {
		scheme_restore(vm, &old);
		return err;
	}
	gn_vm_flush(vm, &everything);
	if (backend && backend->hw_changed)
		for (unsigned i = 0; i < vm->config.vcpus; i++)
			backend->hw_changed(&vm->vcpus[i]);
	/* The old one's fini finds its data in the one place there is. */
	scheme_save(vm, &new);
	scheme_restore(vm, &old);
	scheme_teardown(vm, vm->config.vcpus);
	scheme_restore(vm, &new);
	vm->config.scheme = ops->name;
	return 0;
}

int gn_vm_switch_scheme(struct gn_vm *vm, const char *scheme)
{
	const struct gn_scheme_ops *ops = gn_scheme_find(scheme);
	int err = 0;

	if (!ops) {
		gn_log(GN_LOG_ERROR, "no scheme is called '%s'", scheme ? scheme : "");
		return -ENOENT;
	}
	gn_lock(&vm->lock);
	if (ops != vm->ops) {
		gn_retire_drain(vm); /* for a while there are tables of both: make room */
		err = switch_locked(vm, ops);
	}
	gn_unlock(&vm->lock);
	return err;
}

/* ---- Small change -------------------------------------------------------------------------------------------- */

const char *gn_vm_scheme(const struct gn_vm *vm)
{
	return vm->ops->name;
}

struct gn_vcpu *gn_vm_vcpu(struct gn_vm *vm, unsigned index)
{
	return index < vm->config.vcpus ? &vm->vcpus[index] : NULL;
}

unsigned gn_vm_vcpu_count(const struct gn_vm *vm)
{
	return vm->config.vcpus;
}

void *gn_vm_backend(const struct gn_vm *vm)
{
	return vm->config.backend_data;
}

void gn_vm_pool(const struct gn_vm *vm, struct gn_pool *out)
{
	out->base = vm->frames->base;
	out->bytes = vm->frames->own_count * GN_PAGE_SIZE;
	out->window_bytes = (vm->frames->frame_count - vm->frames->own_count) * GN_PAGE_SIZE;
	out->fd = gn_frames_fd(vm->frames);
	out->template_bytes = gn_vm_is_over_template(vm) ? vm->config.mem_bytes : 0;
}

struct gn_frames *gn_vm_frames(const struct gn_vm *vm)
{
	return vm->frames;
}

int gn_vm_pool_alloc(struct gn_vm *vm, hpa_t *out)
{
	const uint64_t drains = gn_retire_drains(vm);
	pfn_t frame;
	int err = gn_frames_alloc_table(vm->frames, &frame);

	if (err == -ENOMEM && gn_retire_drain_since(vm, drains))
		err = gn_frames_alloc_table(vm->frames, &frame);
	if (!err)
		*out = pfn_to_hpa(frame);
	return err;
}

void gn_vm_pool_free(struct gn_vm *vm, hpa_t frame)
{
	gn_frames_put(vm->frames, hpa_to_pfn(frame));
}

/* Absent, or a pointer to a table in the pool. */
static bool is_root_entry(const struct gn_vm *vm, unsigned level, uint64_t entry)
{
	const struct gn_fmt *f = &gn_fmt_x86_5;

	return !gn_fmt_is_present(f, level, entry) ||
	       (!gn_fmt_is_malformed(f, level, entry, f->phys_bits) &&
		gn_frames_is_own(vm->frames, hpa_to_pfn(hpa(gn_fmt_address(f, level, entry)))));
}

int gn_vm_set_root_slot(struct gn_vm *vm, const struct gn_root_slot *slot)
{
	int err = 0;

	if (slot->index >= GN_TABLE_ENTRIES || !is_root_entry(vm, 4, slot->entry4) ||
	    !is_root_entry(vm, 5, slot->entry5))
		return -EINVAL;
	gn_lock(&vm->lock);
	if (vm->vcpus[0].hw.kind == GN_HW_TABLES)
		err = -EBUSY;
	else
		vm->root_slot = *slot;
	vm->has_root_slot |= !err;
	gn_unlock(&vm->lock);
	return err;
}

void gn_vm_table_usage(struct gn_vm *vm, struct gn_table_usage *out)
{
	uint64_t peak = atomic_load_explicit(&vm->table_peak_bytes, memory_order_relaxed), sum;

	gn_lock(&vm->lock); /* the arena is exchanged under it */
	out->frames_bytes =
		atomic_load_explicit(&vm->table_pages, memory_order_relaxed) * GN_PAGE_SIZE;
	out->meta_bytes = gn_arena_bytes(vm->scheme_arena);
	gn_unlock(&vm->lock);
	sum = out->frames_bytes + out->meta_bytes;
	while (sum > peak && !atomic_compare_exchange_weak(&vm->table_peak_bytes, &peak, sum))
		;
	out->peak_bytes = sum > peak ? sum : peak;
}

void gn_vm_flush(struct gn_vm *vm, const struct gn_flush *flush)
{
	for (unsigned i = 0; i < vm->config.vcpus; i++)
		gn_vcpu_flush(&vm->vcpus[i], flush);
}

unsigned gn_vm_leaf_level(struct gn_vm *vm, p2m_word_t word)
{
	unsigned level = gn_p2m_word_level(word);

	if (gn_dirty_is_logged(vm)) /* one bit is one page */
		return 1;
	return level < vm->config.max_leaf_level ? level : vm->config.max_leaf_level;
}
