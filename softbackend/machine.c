/* SPDX-License-Identifier: MIT */
/*
 * machine.c - making a machine from a preset, running a guest on it, stopping the guest.
 *
 * A guest is C code that runs on the caller's stack. Stopping it is a longjmp out of it, so guest code
 * owns no resource of the host; the machine itself holds none while guest code runs.
 */
#include "cpu.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const struct gn_backend_ops backend = {
	.name = "soft",
	.flush = gn_soft_backend_flush,
	.hw_changed = gn_soft_backend_hw_changed,
};

static uint32_t figure(const struct gn_cpu_preset *p, enum gn_figure f)
{
	return gn_cpu_preset_count(p, f);
}

static void read_costs(struct gn_soft_costs *c, const struct gn_cpu_preset *p)
{
	c->latency[GN_CACHE_L1] = figure(p, GN_FIG_L1_CYCLES);
	c->latency[GN_CACHE_L2] = figure(p, GN_FIG_L2_CYCLES);
	c->latency[GN_CACHE_L3] = figure(p, GN_FIG_L3_CYCLES);
	c->latency[GN_CACHE_MEMORY] = figure(p, GN_FIG_MEMORY_CYCLES);
	c->access = figure(p, GN_FIG_ACCESS_CYCLES);
	/* An L1 hit is part of the pipelined access; what goes further waits for the difference. */
	for (unsigned level = 0; level < GN_CACHE_LEVELS; level++)
		c->data[level] = c->access + (c->latency[level] > c->latency[GN_CACHE_L1]
						      ? c->latency[level] - c->latency[GN_CACHE_L1]
						      : 0);
	c->stlb = figure(p, GN_FIG_STLB_CYCLES);
	c->walk_start = figure(p, GN_FIG_WALK_START_CYCLES);
	c->pwc = figure(p, GN_FIG_PWC_CYCLES);
	c->instruction_q16 = (uint64_t)(p->figure[GN_FIG_INSTRUCTION_CYCLES].value * 65536 + 0.5);
	c->syscall = figure(p, GN_FIG_SYSCALL_CYCLES);
	c->guest_fault = figure(p, GN_FIG_GUEST_FAULT_CYCLES);
	c->cr3 = figure(p, GN_FIG_CR3_CYCLES);
	c->cr = figure(p, GN_FIG_CR_CYCLES);
	c->flush_va = figure(p, GN_FIG_FLUSH_VA_CYCLES);
	c->flush = figure(p, GN_FIG_FLUSH_CYCLES);
	c->exit = figure(p, GN_FIG_EXIT_CYCLES);
	c->vmm_shadow_fault = figure(p, GN_FIG_VMM_SHADOW_FAULT_CYCLES);
	c->vmm_emulate = figure(p, GN_FIG_VMM_EMULATE_CYCLES);
	c->vmm_nested_fault = figure(p, GN_FIG_VMM_NESTED_FAULT_CYCLES);
	c->vmm_inject = figure(p, GN_FIG_VMM_INJECT_CYCLES);
	c->vmm_cr3 = figure(p, GN_FIG_VMM_CR3_CYCLES);
	c->vmm_cr = figure(p, GN_FIG_VMM_CR_CYCLES);
	c->vmm_invalidate = figure(p, GN_FIG_VMM_INVALIDATE_CYCLES);
	c->vmm_other = figure(p, GN_FIG_VMM_OTHER_CYCLES);
	c->software_walk = figure(p, GN_FIG_SOFTWARE_WALK_CYCLES);
	c->pwc_holds_hpa = figure(p, GN_FIG_PWC_HOLDS_HPA);
	c->nested_pwc_for_data = figure(p, GN_FIG_NESTED_PWC_FOR_DATA);
	c->nested_tlb_for_data = figure(p, GN_FIG_NESTED_TLB_FOR_DATA);
}

/* Entries and ways of the array that begins at figure @f. */
static void shape_array(struct gn_tlb_shape *shape, unsigned array, const struct gn_cpu_preset *p,
			enum gn_figure f)
{
	shape->entries[array] = figure(p, f);
	shape->ways[array] = figure(p, (enum gn_figure)(f + 1));
}

static int make_l1(struct gn_tlb *tlb, const struct gn_cpu_preset *p, enum gn_figure first,
		   enum gn_figure unified, bool has_1g)
{
	struct gn_tlb_shape shape = { .home = { 0, 0, 1, 2 } };

	shape_array(&shape, 0, p, first);
	if (figure(p, unified)) {
		shape.home[2] = 0;
		shape.home[3] = 0;
	} else {
		shape_array(&shape, 1, p, (enum gn_figure)(first + 2));
		if (has_1g)
			shape_array(&shape, 2, p, (enum gn_figure)(first + 4));
	}
	return gn_tlb_init(tlb, &shape);
}

static int make_l2(struct gn_soft_cpu *cpu, const struct gn_cpu_preset *p)
{
	struct gn_tlb_shape data = { .home = { 0, 0, 0, 1 } }, fetch = { .home = { 0, 0, 0, 0 } };
	int err;

	shape_array(&data, 0, p, GN_FIG_STLB_ENTRIES);
	shape_array(&data, 1, p, GN_FIG_STLB_1G_ENTRIES);
	data.also_4k = figure(p, GN_FIG_STLB_1G_TAKES_4K);
	shape_array(&fetch, 0, p, GN_FIG_ISTLB_ENTRIES);
	cpu->l2_of[0] = &cpu->l2;
	cpu->l2_of[1] = fetch.entries[0] ? &cpu->l2_fetch : &cpu->l2;
	err = gn_tlb_init(&cpu->l2, &data);
	return err ? err : gn_tlb_init(&cpu->l2_fetch, &fetch);
}

static int make_walk_caches(struct gn_soft_cpu *cpu, const struct gn_cpu_preset *p)
{
	struct gn_pwc_shape guest = { { 0 }, { 0 } }, nested = { { 0 }, { 0 } };
	struct gn_tlb_shape tlb = { .home = { 0, 0, 0, 0 } };
	int err;

	for (unsigned level = 2; level <= GN_MAX_LEVELS; level++) {
		unsigned at = 2 * (GN_MAX_LEVELS - level); /* PML5E first */

		guest.entries[level] = figure(p, (enum gn_figure)(GN_FIG_PWC_PML5E_ENTRIES + at));
		guest.ways[level] = figure(p, (enum gn_figure)(GN_FIG_PWC_PML5E_WAYS + at));
		nested.entries[level] =
			figure(p, (enum gn_figure)(GN_FIG_NESTED_PWC_PML5E_ENTRIES + at));
		nested.ways[level] = figure(p, (enum gn_figure)(GN_FIG_NESTED_PWC_PML5E_WAYS + at));
	}
	shape_array(&tlb, 0, p, GN_FIG_NESTED_TLB_ENTRIES);
	err = gn_pwc_init(&cpu->pwc, &guest);
	if (!err)
		err = gn_pwc_init(&cpu->nested_pwc, &nested);
	return err ? err : gn_tlb_init(&cpu->nested_tlb, &tlb);
}

static uint32_t max_line(const struct gn_soft *soft)
{
	return (uint32_t)((soft->vm->frames->frame_count << (GN_PAGE_SHIFT - GN_LINE_SHIFT)) - 1);
}

static int make_caches(struct gn_soft_cpu *cpu, const struct gn_cpu_preset *p)
{
	int err = gn_cache_init(&cpu->caches.l1, figure(p, GN_FIG_L1_KIB),
				figure(p, GN_FIG_L1_WAYS), false, max_line(cpu->soft));

	cpu->caches.l3 = &cpu->soft->l3;
	cpu->caches.last_line = GN_CACHE_NO_LINE;
	cpu->caches.no_l1 = cpu->caches.l1.sets ? 0 : GN_CACHE_NO_LINE;
	if (!err)
		err = gn_alloc_should_fail() ? -ENOMEM : 0;
	if (!err)
		cpu->ahead = calloc(1, sizeof(*cpu->ahead));
	if (!err && !cpu->ahead)
		err = -ENOMEM;
	return err ? err
		   : gn_cache_init(&cpu->caches.l2, figure(p, GN_FIG_L2_KIB),
				   figure(p, GN_FIG_L2_WAYS), false, max_line(cpu->soft));
}

static void cpu_fini(struct gn_soft_cpu *cpu)
{
	gn_tlb_fini(&cpu->l1[0]);
	gn_tlb_fini(&cpu->l1[1]);
	gn_tlb_fini(&cpu->l2);
	gn_tlb_fini(&cpu->l2_fetch);
	gn_tlb_fini(&cpu->nested_tlb);
	gn_pwc_fini(&cpu->pwc);
	gn_pwc_fini(&cpu->nested_pwc);
	gn_cache_fini(&cpu->caches.l1);
	gn_cache_fini(&cpu->caches.l2);
	free(cpu->ahead);
	pthread_mutex_destroy(&cpu->post_mutex);
}

static int cpu_init(struct gn_soft_cpu *cpu, struct gn_soft *soft, unsigned index,
		    const struct gn_cpu_preset *p)
{
	int err;

	cpu->soft = soft;
	cpu->vm = soft->vm;
	cpu->vcpu = gn_vm_vcpu(soft->vm, index);
	cpu->counters = gn_vcpu_counters(cpu->vcpu);
	cpu->memory = soft->vm->frames->base;
	pthread_mutex_init(&cpu->post_mutex, NULL);
	atomic_init(&cpu->has_posted, false);
	cpu->leaf_address = gn_fmt_x86_4.level[1].address;
	read_costs(&cpu->cost, p);
	err = make_l1(&cpu->l1[0], p, GN_FIG_DTLB_4K_ENTRIES, GN_FIG_DTLB_UNIFIED, true);
	if (!err)
		err = make_l1(&cpu->l1[1], p, GN_FIG_ITLB_4K_ENTRIES, GN_FIG_ITLB_UNIFIED, false);
	if (!err)
		err = make_l2(cpu, p);
	if (!err)
		err = make_walk_caches(cpu, p);
	if (!err)
		err = make_caches(cpu, p);
	if (err) {
		cpu_fini(cpu);
		return err;
	}
	gn_soft_refresh(cpu);
	gn_vcpu_set_backend(cpu->vcpu, cpu);
	return 0;
}

static int make_cpus(struct gn_soft *soft, const struct gn_cpu_preset *p)
{
	unsigned count = gn_vm_vcpu_count(soft->vm);
	int err = gn_cache_init(&soft->l3, figure(p, GN_FIG_L3_KIB), figure(p, GN_FIG_L3_WAYS),
				true, max_line(soft));

	if (err)
		return err;
	if (gn_alloc_should_fail())
		return -ENOMEM;
	soft->cpus = aligned_alloc(64, (count * sizeof(*soft->cpus) + 63) / 64 * 64);
	if (!soft->cpus)
		return -ENOMEM;
	memset(soft->cpus, 0, count * sizeof(*soft->cpus));
	for (; soft->cpu_count < count; soft->cpu_count++) {
		err = cpu_init(&soft->cpus[soft->cpu_count], soft, soft->cpu_count, p);
		if (err)
			return err;
	}
	return 0;
}

/* The first instruction set this room was compiled for (GN_HOST_CPU) and the host lacks; NULL: it has all. A program that is carried to a
 * lesser machine must say so, and not die of an instruction it does not know. */
static const char *host_lacks(void)
{
#ifdef __AVX2__
	if (!__builtin_cpu_supports("avx2"))
		return "AVX2";
	if (!__builtin_cpu_supports("fma"))
		return "FMA";
	if (!__builtin_cpu_supports("bmi"))
		return "BMI1";
	if (!__builtin_cpu_supports("bmi2"))
		return "BMI2";
#endif
	return NULL;
}

int gn_soft_create(const struct gn_soft_config *config, struct gn_soft **out)
{
	const struct gn_cpu_preset *p = config->cpu ? config->cpu : gn_cpu_preset_at(0);
	struct gn_vm_config vm = config->vm;
	struct gn_soft *soft;
	char why[160];
	int err;

	if (host_lacks()) {
		gn_log(GN_LOG_ERROR,
		       "this program was built for a CPU with %s (GN_HOST_CPU); build it on "
		       "this machine",
		       host_lacks());
		return -EOPNOTSUPP;
	}
	if (gn_cpu_preset_check(p, why, sizeof(why))) {
		gn_log(GN_LOG_ERROR, "preset %s: %s", p->name, why);
		return -EINVAL;
	}
	if (gn_alloc_should_fail())
		return -ENOMEM;
	soft = calloc(1, sizeof(*soft));
	if (!soft)
		return -ENOMEM;
	vm.backend = &backend;
	vm.deprivileged |= config->deprivileged;
	soft->seed = config->seed;
	soft->deprivileged = vm.deprivileged;
	err = gn_vm_create(&vm, &soft->vm);
	if (err) {
		free(soft);
		return err;
	}
	if (soft->vm->frames->frame_count << GN_PAGE_SHIFT > GN_CACHE_MAX_BYTES) {
		gn_log(GN_LOG_ERROR, "the pool is larger than the cache model's 256 GiB");
		err = -EINVAL;
	} else {
		err = make_cpus(soft, p);
	}
	if (err) {
		gn_soft_destroy(soft);
		return err;
	}
	*out = soft;
	return 0;
}

void gn_soft_destroy(struct gn_soft *soft)
{
	if (!soft)
		return;
	for (unsigned i = 0; i < soft->cpu_count; i++)
		gn_vcpu_set_backend(soft->cpus[i].vcpu, NULL);
	gn_vm_destroy(soft->vm);
	for (unsigned i = 0; i < soft->cpu_count; i++)
		cpu_fini(&soft->cpus[i]);
	gn_cache_fini(&soft->l3);
	free(soft->cpus);
	free(soft);
}

void gn_soft_set_mmio(struct gn_soft *soft, gn_soft_mmio_fn *fn, void *ctx)
{
	soft->mmio = fn;
	soft->mmio_ctx = ctx;
}

void gn_soft_set_hypercalls(struct gn_soft *soft, gn_soft_hypercall_fn *fn, void *ctx)
{
	soft->hypercall = fn;
	soft->hypercall_ctx = ctx;
}

struct gn_vm *gn_soft_vm(struct gn_soft *soft)
{
	return soft->vm;
}

struct gn_soft_cpu *gn_soft_cpu(struct gn_soft *soft, unsigned index)
{
	return index < soft->cpu_count ? &soft->cpus[index] : NULL;
}

struct gn_soft *gn_soft_machine(const struct gn_soft_cpu *cpu)
{
	return cpu->soft;
}

int gn_soft_run(struct gn_soft_cpu *cpu, void (*guest)(struct gn_soft_cpu *cpu, void *ctx),
		void *ctx)
{
	if (cpu->running)
		return -EBUSY;
	cpu->error = 0;
	cpu->reason[0] = '\0';
	cpu->depth = 0;
	cpu->probe = NULL;
	cpu->running = true;
	if (!setjmp(cpu->out))
		guest(cpu, ctx);
	cpu->running = false;
	return cpu->error;
}

const char *gn_soft_stop_reason(const struct gn_soft_cpu *cpu)
{
	return cpu->reason;
}

void gn_soft_stop(struct gn_soft_cpu *cpu, const char *why)
{
	gn_soft_fail(cpu, -ECANCELED, "%s", why);
}

void gn_soft_set_handler(struct gn_soft_cpu *cpu, gn_soft_handler *handler, void *ctx)
{
	cpu->handler = handler;
	cpu->handler_ctx = ctx;
}

void gn_soft_set_op_hook(struct gn_soft_cpu *cpu, gn_soft_op_fn *fn, void *ctx)
{
	cpu->op_hook = fn;
	cpu->op_ctx = ctx;
}

void gn_soft_note(struct gn_soft_cpu *cpu, const struct gn_soft_op *op)
{
	if (cpu->op_hook)
		cpu->op_hook(cpu->op_ctx, op);
}

void gn_soft_cold(struct gn_soft_cpu *cpu, bool data_caches)
{
	gn_soft_flush_everything(cpu);
	if (!data_caches)
		return;
	cpu->caches.last_line = GN_CACHE_NO_LINE;
	gn_cache_clear(&cpu->caches.l1);
	gn_cache_clear(&cpu->caches.l2);
	gn_cache_clear(cpu->caches.l3);
}
