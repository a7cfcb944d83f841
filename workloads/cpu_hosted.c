/* SPDX-License-Identifier: MIT */
/*
 * cpu_hosted.c - cpu.h as calls of the software machine.
 *
 * The guest is C code of this process; the machine it runs on is the thread's current one. Nothing is
 * added and nothing left out on the way: an operation here is one operation of the machine, so that the
 * counters count the guest and not its hosting.
 */
#include "cpu_hosted.h"

#include "cpu.h"

#define REFS_BATCH 256

static _Thread_local struct {
	struct gn_soft_cpu *cpu;
	cpu_exception_fn *handler;
	cpu_hosted_progress_fn *progress;
	cpu_hosted_phase_fn *phase;
	void *progress_ctx;
	bool fetch_reads;
} here;

void cpu_hosted_enter(struct gn_soft_cpu *cpu, cpu_hosted_progress_fn *progress, void *ctx)
{
	here.cpu = cpu;
	here.handler = NULL;
	here.progress = progress;
	here.phase = NULL;
	here.progress_ctx = ctx;
}

void cpu_hosted_leave(void)
{
	here.cpu = NULL;
}

void cpu_hosted_on_phase(cpu_hosted_phase_fn *phase)
{
	here.phase = phase;
}

void cpu_hosted_fetch_reads(bool on)
{
	here.fetch_reads = on;
}

uint64_t cpu_load64(uint64_t va)
{
	return gn_soft_load(here.cpu, gva(va), 8);
}

uint32_t cpu_load32(uint64_t va)
{
	return (uint32_t)gn_soft_load(here.cpu, gva(va), 4);
}

uint8_t cpu_load8(uint64_t va)
{
	return (uint8_t)gn_soft_load(here.cpu, gva(va), 1);
}

void cpu_store64(uint64_t va, uint64_t value)
{
	gn_soft_store(here.cpu, gva(va), 8, value);
}

void cpu_store32(uint64_t va, uint32_t value)
{
	gn_soft_store(here.cpu, gva(va), 4, value);
}

void cpu_store8(uint64_t va, uint8_t value)
{
	gn_soft_store(here.cpu, gva(va), 1, value);
}

void cpu_fetch(uint64_t va)
{
	gn_soft_fetch(here.cpu, gva(va));
}

void cpu_compute(uint64_t count)
{
	gn_soft_compute(here.cpu, count);
}

void cpu_refs(const struct cpu_ref *refs, size_t count)
{
	struct gn_soft_ref batch[REFS_BATCH];

	while (count) {
		size_t n = count < REFS_BATCH ? count : REFS_BATCH;

		for (size_t i = 0; i < n; i++) {
			batch[i].va = refs[i].va;
			batch[i].kind = here.fetch_reads && refs[i].kind == GN_FETCH ? GN_READ
										     : refs[i].kind;
		}
		gn_soft_refs(here.cpu, batch, n);
		refs += n;
		count -= n;
	}
}

void cpu_write_cr0(uint64_t value)
{
	gn_soft_write_cr0(here.cpu, value);
}

void cpu_write_cr3(uint64_t value)
{
	gn_soft_write_cr3(here.cpu, value);
}

void cpu_write_cr4(uint64_t value)
{
	gn_soft_write_cr4(here.cpu, value);
}

void cpu_write_efer(uint64_t value)
{
	gn_soft_write_efer(here.cpu, value);
}

void cpu_invlpg(uint64_t va)
{
	gn_soft_invlpg(here.cpu, gva(va));
}

void cpu_invpcid(unsigned type, uint64_t pcid, uint64_t va)
{
	gn_soft_invpcid(here.cpu, type, pcid, gva(va));
}

void cpu_set_ac(bool ac)
{
	gn_soft_set_ac(here.cpu, ac);
}

void cpu_enter_kernel(void)
{
	gn_soft_enter_kernel(here.cpu);
}

void cpu_enter_user(void)
{
	gn_soft_enter_user(here.cpu);
}

bool cpu_upcall(cpu_upcall_fn *fn, void *ctx, uint64_t va, bool write)
{
	bool result;

	cpu_enter_user();
	result = fn(ctx, va, write);
	cpu_enter_kernel();
	return result;
}

uint64_t cpu_hypercall(uint64_t nr, uint64_t arg)
{
	return gn_soft_hypercall(here.cpu, nr, arg);
}

void cpu_panic(const char *why)
{
	gn_soft_stop(here.cpu, why);
	__builtin_unreachable(); /* gn_soft_stop() does not return inside gn_soft_run() */
}

static bool deliver(struct gn_soft_cpu *cpu, const struct gn_soft_exception *e, void *ctx)
{
	struct cpu_exception exception = {
		.vector = e->vector, .error_code = e->error_code, .cr2 = e->cr2.v, .user = e->user
	};

	(void)cpu;
	(void)ctx;
	return here.handler(&exception);
}

void cpu_set_exception_handler(cpu_exception_fn *fn)
{
	here.handler = fn;
	gn_soft_set_handler(here.cpu, deliver, NULL);
}

void cpu_note_table_write(uint64_t pa, uint64_t value)
{
	struct gn_soft_op op = { .kind = GN_OP_TABLE_WRITE, .a = pa, .b = value };

	gn_soft_note(here.cpu, &op);
}

void cpu_measure(void)
{
	gn_soft_counters_reset(gn_soft_machine(here.cpu));
}

void cpu_progress(uint64_t done, uint64_t total)
{
	if (here.progress && total)
		here.progress(here.progress_ctx, (double)done / (double)total);
}

void cpu_phase(unsigned phase, uint64_t done)
{
	if (here.phase)
		here.phase(here.progress_ctx, phase, done);
}
