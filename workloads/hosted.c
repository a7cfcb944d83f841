/* SPDX-License-Identifier: MIT */
/*
 * hosted.c - boot the guest kernel on the software machine and run one workload.
 *
 * The kernel's state is memory of this process, zeroed for each run: two runs share nothing, and threads may run
 * guests side by side. A guest that stops (gn_soft_stop jumps out of it) leaves nothing behind either, because
 * its C code owns nothing but this block.
 */
#include "hosted.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include <gnomon/x86.h>

#include "cpu_hosted.h"
#include "kernel.h"

#define DEFAULT_MEM_BYTES ((uint64_t)1 << 30)

struct run {
	const struct workload *workload;
	struct workload_params params;
	struct kernel_config config;
	struct workload_hosting hosting;
	struct gn_soft *soft;
	bool settles;
	int result;
	const char *why;
};

static void guest(struct gn_soft_cpu *cpu, void *ctx)
{
	struct run *run = ctx;

	(void)cpu;
	kernel_boot(&run->config);
	gn_soft_counters_reset(run->soft);
	run->result = run->workload->run(&run->params, &run->why);
	if (run->settles)
		kernel_settle();
}

static struct workload_params complete(const struct workload *workload,
				       const struct workload_params *params)
{
	struct workload_params p = *params;

	if (!p.size)
		p.size = workload->size_default;
	if (!p.mem_bytes)
		p.mem_bytes = DEFAULT_MEM_BYTES;
	if (!p.levels)
		p.levels = 4;
	return p;
}

/* 0, -errno of the machine, or -EBADMSG with run->why. */
static int run_guest(struct gn_soft_cpu *cpu, struct run *run)
{
	void *state = calloc(1, kernel_state_bytes());
	int err;

	if (!state) {
		run->why = "no memory on the host";
		return -ENOMEM;
	}
	run->soft = gn_soft_machine(cpu);
	run->why = "the workload gave no reason";
	kernel_attach(state);
	cpu_hosted_enter(cpu, run->hosting.progress, run->hosting.ctx);
	cpu_hosted_on_phase(run->hosting.phase);
	err = gn_soft_run(cpu, guest, run);
	cpu_hosted_leave();
	if (run->hosting.stats)
		kernel_stats(run->hosting.stats);
	kernel_attach(NULL);
	free(state);
	if (err == -ECANCELED)
		run->why = gn_soft_stop_reason(cpu);
	if (!err && run->result)
		err = -EBADMSG;
	return err;
}

int workload_run_hosting(struct gn_soft_cpu *cpu, const struct workload *workload,
			 const struct workload_params *params,
			 const struct workload_hosting *hosting, const char **why)
{
	struct run run = { .workload = workload,
			   .params = complete(workload, params),
			   .hosting = *hosting };
	int err;

	run.config = (struct kernel_config){ .mem_bytes = run.params.mem_bytes,
					     .levels = run.params.levels,
					     .pcid = run.params.pcid,
					     .smep = true,
					     .smap = true,
					     .large_pages = run.params.large_pages,
					     .balloon_pa = hosting->balloon_pa,
					     .free_poison = hosting->free_poison,
					     .dirty_ram = hosting->dirty_ram };
	err = run_guest(cpu, &run);
	*why = err ? run.why : NULL;
	return err;
}

int workload_run_hosted(struct gn_soft_cpu *cpu, const struct workload *workload,
			const struct workload_params *params,
			void (*progress)(void *ctx, double done), void *ctx, const char **why)
{
	const struct workload_hosting hosting = { .progress = progress, .ctx = ctx };

	return workload_run_hosting(cpu, workload, params, &hosting, why);
}

/* ---- The twin of an image ---------------------------------------------------------------------------------- */

/* In the words of struct gn_guest_ops what the machine reports in its own. */
static void account(void *ctx, const struct gn_soft_op *op)
{
	struct gn_guest_ops *ops = ctx;

	switch (op->kind) {
	case GN_OP_TABLE_WRITE:
		gn_guest_op_add(ops, GN_GUEST_OP_TABLE_WRITE, op->a, op->b & ~GN_GUEST_OP_IGNORED);
		break;
	case GN_OP_CR3:
		gn_guest_op_add(ops, GN_GUEST_OP_CR3, 0, op->a);
		break;
	case GN_OP_CR:
		gn_guest_op_add(ops, GN_GUEST_OP_CR, op->a, op->b);
		break;
	case GN_OP_INVLPG:
		gn_guest_op_add(ops, GN_GUEST_OP_INVLPG, op->a, 0);
		break;
	case GN_OP_INVPCID:
		gn_guest_op_add(ops, GN_GUEST_OP_INVPCID,
				op->a >> 16 << 12 | (op->a & X86_CR3_PCID_MASK), op->b);
		break;
	case GN_OP_FAULT:
		gn_guest_op_add(ops, GN_GUEST_OP_FAULT, op->a, op->b);
		break;
	}
}

int workload_run_twin(struct gn_soft_cpu *cpu, struct gn_guest_boot *boot, const char *argument)
{
	struct run run = { .workload = workload_find(boot->workload), .settles = true };
	int err;

	if (!run.workload)
		return -ENOENT;
	/* As the image gets them, nothing completed: see guest/main.c and guest/user.c. */
	run.params = (struct workload_params){ .size = boot->size,
					       .seed = boot->seed,
					       .mem_bytes = boot->mem_bytes,
					       .large_pages = boot->large_pages,
					       .pcid = boot->pcid,
					       .levels = (unsigned)boot->levels,
					       .argument = argument ? argument : boot->argument };
	run.config = (struct kernel_config){ .mem_bytes = boot->mem_bytes,
					     .user_start = boot->user_start,
					     .reserved_bytes = boot->reserved_bytes,
					     .levels = (unsigned)boot->levels,
					     .pcid = boot->pcid,
					     .smep = boot->smep,
					     .smap = boot->smap,
					     .large_pages = boot->large_pages,
					     .balloon_pa = boot->balloon_pa,
					     .free_poison = (uint32_t)boot->free_poison,
					     .dirty_ram = boot->dirty_ram };
	boot->ops = (struct gn_guest_ops){ 0 };
	gn_soft_set_op_hook(cpu, account, &boot->ops);
	cpu_hosted_fetch_reads(true);
	err = run_guest(cpu, &run);
	cpu_hosted_fetch_reads(false);
	gn_soft_set_op_hook(cpu, NULL, NULL);
	boot->result = err ? -1 : 0;
	snprintf(boot->why, sizeof(boot->why), "%s", err ? run.why : "");
	return err;
}
