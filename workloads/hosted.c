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
#include <stdlib.h>

#include "cpu_hosted.h"
#include "kernel.h"

#define DEFAULT_MEM_BYTES ((uint64_t)1 << 30)

struct run {
	const struct workload *workload;
	struct workload_params params;
	struct gn_soft *soft;
	int result;
	const char *why;
};

static void guest(struct gn_soft_cpu *cpu, void *ctx)
{
	struct run *run = ctx;
	struct kernel_config config = { .mem_bytes = run->params.mem_bytes,
					.levels = run->params.levels,
					.pcid = run->params.pcid,
					.smep = true,
					.smap = true,
					.large_pages = run->params.large_pages };

	(void)cpu;
	kernel_boot(&config);
	gn_soft_counters_reset(run->soft);
	run->result = run->workload->run(&run->params, &run->why);
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

int workload_run_hosted(struct gn_soft_cpu *cpu, const struct workload *workload,
			const struct workload_params *params,
			void (*progress)(void *ctx, double done), void *ctx, const char **why)
{
	struct run run = { .workload = workload,
			   .params = complete(workload, params),
			   .soft = gn_soft_machine(cpu),
			   .why = "the workload gave no reason" };
	void *state = calloc(1, kernel_state_bytes());
	int err;

	*why = "no memory on the host";
	if (!state)
		return -ENOMEM;
	kernel_attach(state);
	cpu_hosted_enter(cpu, progress, ctx);
	err = gn_soft_run(cpu, guest, &run);
	cpu_hosted_leave();
	kernel_attach(NULL);
	free(state);
	if (err == -ECANCELED)
		*why = gn_soft_stop_reason(cpu);
	if (!err && run.result) {
		err = -EBADMSG;
		*why = run.why;
	}
	if (!err)
		*why = NULL;
	return err;
}
