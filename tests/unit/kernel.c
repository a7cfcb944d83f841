/* SPDX-License-Identifier: MIT */
/*
 * kernel.c - the guest kernel's promises to its processes, on the software machine.
 *
 * Each case is guest code; expect() stops the guest with the broken promise as the reason. Every case runs under
 * every registered scheme and in every mode of the kernel, and must leave the engine's tables clean under audit,
 * the guest's memory the same under all schemes, and not a frame, table or region lost.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>
#include <gnomon/schemes.h>
#include <gnomon/soft.h>

#include "support/template.h"
#include "workloads/cpu_hosted.h"
#include "workloads/cpu.h"
#include "workloads/kernel.h"

#define RAM_BYTES ((uint64_t)64 << 20)
#define RW	  (K_READ | K_WRITE)

#define expect(cond)                                                                               \
	do {                                                                                       \
		if (!(cond))                                                                       \
			cpu_panic(#cond);                                                          \
	} while (0)

/* ---- A signal handler that mends, and what it saw ------------------------------------------------------------ */
static _Thread_local struct seen {
	unsigned count;
	uint64_t va;
	bool write;
	unsigned mend; /* rights to give the page; 0: map it anew */
} seen;

/* Images stay: a case that is run twice installs its own once. Set by guest(). */
static _Thread_local int installed;

static bool mend(void *ctx, uint64_t va, bool write)
{
	struct seen *s = ctx;
	uint64_t page = va & ~(K_PAGE - 1);

	s->count++;
	s->va = va;
	s->write = write;
	if (s->mend)
		return sys_mprotect(page, K_PAGE, s->mend) == 0;
	return sys_mmap(page, K_PAGE, RW, K_MAP_FIXED) == page;
}

static void watch(unsigned rights)
{
	seen = (struct seen){ .mend = rights };
	sys_sigsegv(mend, &seen);
}

static void in_child_then_exit(int pid)
{
	int parent = sys_getpid();

	expect(sys_switch(pid) == 0);
	sys_exit(0);
	expect(sys_getpid() == parent);
	expect(sys_wait(pid) == 0);
}

static uint64_t filled(uint64_t bytes)
{
	uint64_t base = sys_mmap(0, bytes, RW, 0);

	expect(base);
	for (uint64_t i = 0; i < bytes; i += K_PAGE)
		cpu_store64(base + i, base + i);
	return base;
}

/* ---- Cases ---------------------------------------------------------------------------------------------------- */

static void fresh_memory_is_zero_also_when_frames_are_reused(void)
{
	for (unsigned round = 0; round < 3; round++) {
		uint64_t base = sys_mmap(0, 3 * K_LARGE_PAGE, RW, 0);

		expect(base);
		for (uint64_t i = 0; i < 3 * K_LARGE_PAGE; i += 37 * K_PAGE) {
			expect(cpu_load64(base + i + 8) == 0);
			cpu_store64(base + i + 8, i + 1);
			expect(cpu_load64(base + i) == 0);
			expect(cpu_load64(base + i + 8) == i + 1);
		}
		expect(sys_munmap(base, 3 * K_LARGE_PAGE) == 0);
	}
}

static void fork_separates_what_is_written_later(void)
{
	uint64_t base = filled(2 * K_LARGE_PAGE), one = base + 5 * K_PAGE,
		 two = base + K_LARGE_PAGE;
	int parent = sys_getpid(), child = sys_fork(), grandchild;

	expect(child > 0 && sys_getpid() == parent);
	cpu_store64(one, 1);
	sys_switch(child);
	expect(cpu_load64(one) == one && cpu_load64(two) == two);
	cpu_store64(two, 2);
	grandchild = sys_fork();
	cpu_store64(two, 3);
	sys_switch(grandchild);
	expect(cpu_load64(two) == 2 && cpu_load64(one) == one);
	cpu_store64(one, 4);
	sys_switch(parent);
	expect(cpu_load64(one) == 1 && cpu_load64(two) == two);
	sys_switch(child);
	expect(cpu_load64(one) == one && cpu_load64(two) == 3);
	in_child_then_exit(grandchild);
	sys_switch(parent);
	in_child_then_exit(child);
	for (uint64_t i = 0; i < 2 * K_LARGE_PAGE; i += K_PAGE)
		expect(cpu_load64(base + i) == (base + i == one ? 1 : base + i));
	expect(sys_munmap(base, 2 * K_LARGE_PAGE) == 0);
}

static void the_last_owner_writes_without_a_copy(void)
{
	uint64_t base = sys_mmap(0, K_PAGE, RW, K_MAP_SMALL);
	struct kernel_stats before, after;

	cpu_store64(base, 1);
	in_child_then_exit(sys_fork());
	kernel_stats(&before);
	cpu_store64(base, 2);
	kernel_stats(&after);
	expect(after.cow_reuses == before.cow_reuses + 1 && after.cow_copies == before.cow_copies);
	expect(cpu_load64(base) == 2);
	sys_munmap(base, K_PAGE);
}

static void unread_pages_share_the_zero_page(void)
{
	uint64_t base = sys_mmap(0, 64 * K_PAGE, RW, K_MAP_SMALL);
	struct kernel_stats before, after;

	cpu_load64(base);
	kernel_stats(&before);
	for (uint64_t i = 0; i < 64; i++)
		expect(cpu_load64(base + i * K_PAGE) == 0);
	kernel_stats(&after);
	expect(after.frames_free == before.frames_free);
	cpu_store64(base + 9 * K_PAGE, 9);
	expect(cpu_load64(base + 8 * K_PAGE) == 0 && cpu_load64(base + 9 * K_PAGE) == 9);
	kernel_stats(&after);
	expect(after.frames_free == before.frames_free - 1);
	sys_munmap(base, 64 * K_PAGE);
}

static void munmap_takes_exactly_its_range(void)
{
	uint64_t bytes = 2 * K_LARGE_PAGE, base = filled(bytes);
	uint64_t holes[] = { 0, 3, 511, 512, 700, 1023 };

	watch(0);
	for (unsigned h = 0; h < 6; h++)
		expect(sys_munmap(base + holes[h] * K_PAGE, K_PAGE) == 0);
	for (uint64_t page = 0; page < bytes / K_PAGE; page++) {
		uint64_t at = base + page * K_PAGE, is_hole = 0;
		unsigned signals = seen.count;

		for (unsigned h = 0; h < 6; h++)
			is_hole |= holes[h] == page;
		expect(cpu_load64(at) == (is_hole ? 0 : at));
		expect(seen.count == signals + is_hole);
	}
	expect(seen.va == base + 1023 * K_PAGE && !seen.write);
	expect(sys_munmap(base, bytes) == 0 && sys_munmap(base, bytes) == 0);
	expect(sys_munmap(base + 1, K_PAGE) == K_EINVAL);
	expect(sys_munmap((uint64_t)1 << 63, K_PAGE) == K_EINVAL);
}

static void mprotect_holds_and_keeps_contents(void)
{
	uint64_t bytes = 2 * K_LARGE_PAGE, base = filled(bytes), at = base + 600 * K_PAGE;

	watch(RW);
	expect(sys_mprotect(base + 10 * K_PAGE, 700 * K_PAGE, K_READ) == 0);
	expect(cpu_load64(at) == at && seen.count == 0);
	cpu_store64(at, 1);
	expect(seen.count == 1 && seen.va == at && seen.write && cpu_load64(at) == 1);
	cpu_store64(at, 2);
	cpu_store64(base + 9 * K_PAGE, 3);
	cpu_store64(base + 710 * K_PAGE, 3);
	expect(seen.count == 1);
	expect(sys_mprotect(base, bytes, K_PROT_NONE) == 0);
	expect(cpu_load64(at + K_PAGE) == at + K_PAGE && seen.count == 2 && !seen.write);
	expect(cpu_load64(at) == 2 && seen.count == 3);
	cpu_store64(base, 4);
	expect(seen.count == 4 && seen.write && cpu_load64(base) == 4);
	expect(sys_mprotect(base, bytes, K_READ) == 0 &&
	       cpu_load64(base + K_PAGE) == base + K_PAGE);
	expect(sys_mprotect(base, bytes + K_PAGE, K_READ) == K_ENOMEM);
	expect(sys_munmap(base, bytes) == 0);
}

static void text_is_fetched_and_data_is_not(void)
{
	uint64_t base = sys_mmap(0, K_PAGE, RW, K_MAP_SMALL);

	cpu_store8(base, 0xc3);
	watch(K_READ | K_EXEC);
	cpu_fetch(base);
	expect(seen.count == 1 && seen.va == base && !seen.write);
	cpu_fetch(base);
	expect(seen.count == 1);
	seen.mend = RW;
	cpu_store8(base, 0xc3);
	expect(seen.count == 2 && seen.write);
	sys_munmap(base, K_PAGE);
}

static void flipping_pages_uses_no_regions_up(void)
{
	uint64_t base = filled(256 * K_PAGE);
	struct kernel_stats before, after;

	kernel_stats(&before);
	for (uint64_t i = 0; i < 256; i++)
		expect(sys_mprotect(base + (i * 37 % 256) * K_PAGE, K_PAGE, K_READ) == 0);
	kernel_stats(&after);
	expect(after.vmas == before.vmas);
	sys_munmap(base, 256 * K_PAGE);
}

static void fixed_mmap_replaces(void)
{
	uint64_t base = filled(16 * K_PAGE);

	expect(sys_mmap(base + 4 * K_PAGE, 4 * K_PAGE, RW, K_MAP_FIXED) == base + 4 * K_PAGE);
	for (uint64_t i = 0; i < 16; i++) {
		uint64_t at = base + i * K_PAGE;

		expect(cpu_load64(at) == (i / 4 == 1 ? 0 : at));
	}
	expect(sys_mmap(1, K_PAGE, RW, K_MAP_FIXED) == 0);
	expect(sys_mmap(0, 0, RW, 0) == 0 && sys_mmap(0, (uint64_t)1 << 60, RW, 0) == 0);
	sys_munmap(base, 16 * K_PAGE);
}

static void exec_replaces_the_address_space(void)
{
	static const struct kernel_image parts = { 4, 2, 2, 4 };
	int image = installed = installed < 0 ? sys_image(&parts, 99) : installed, child;
	uint64_t base = filled(K_PAGE);
	struct kernel_layout l;

	expect(image >= 0 && sys_exec(image + 1, &l) == K_EINVAL);
	for (unsigned run = 0; run < 2; run++) {
		child = sys_fork();
		sys_switch(child);
		expect(sys_exec(image, &l) == 0 && l.text == K_TEXT_VA);
		for (uint64_t page = 0; page < 6; page++)
			for (unsigned line = 0; line < 64; line += 21)
				expect(cpu_load64(l.text + page * K_PAGE + line * 64) ==
				       kernel_image_word(99, page, line));
		cpu_fetch(l.text + 3 * K_PAGE + 128);
		cpu_store64(l.data, run); /* private: the next run sees the file again */
		expect(cpu_load64(l.data) == run && cpu_load64(l.bss) == 0);
		cpu_store64(l.bss + K_PAGE, 5);
		expect(cpu_load64(l.stack + 4 * K_PAGE - 8) == 8);
		watch(0);
		expect(cpu_load64(base) == 0 && seen.count == 1);
		sys_exit(0);
		expect(sys_wait(child) == 0 && cpu_load64(base) == base);
	}
	sys_munmap(base, K_PAGE);
}

static void signals_tell_where_and_how(void)
{
	uint64_t wild = (uint64_t)0x123456 << 12;

	watch(0);
	cpu_store64(wild + 24, 1);
	expect(seen.count == 1 && seen.va == wild + 24 && seen.write);
	expect(cpu_load64(wild + 24) == 1);
	sys_munmap(wild, K_PAGE);
	in_child_then_exit(sys_fork());
	expect(cpu_load64(wild + 24) == 0 && seen.count == 2 && !seen.write);
	sys_munmap(wild, K_PAGE);
}

static void wait_and_switch_answer_errors(void)
{
	int parent = sys_getpid(), child = sys_fork(), grandchild;

	expect(sys_wait(child) == K_EAGAIN && sys_wait(777) == K_ESRCH && sys_wait(-1) == K_ESRCH);
	expect(sys_switch(0) == K_ESRCH && sys_switch(5000) == K_ESRCH);
	sys_switch(child);
	grandchild = sys_fork();
	sys_switch(parent);
	expect(sys_wait(grandchild) == K_EPERM);
	sys_switch(child);
	sys_exit(42);
	expect(sys_getpid() == parent && sys_switch(child) == K_ESRCH);
	expect(sys_wait(child) == 42 && sys_wait(child) == K_ESRCH);
	in_child_then_exit(grandchild); /* adopted by process 1, which is the parent here */
}

static void pipes_carry_between_spaces(void)
{
	int pipe = sys_pipe(), child;
	uint64_t from = sys_mmap(0, 64 * K_PAGE, RW, 0), to = sys_mmap(0, 64 * K_PAGE, RW, 0);

	expect(pipe >= 0 && sys_pipe_read(pipe, to, 8) == 0);
	child = sys_fork();
	for (uint64_t round = 0; round < 3; round++) {
		for (uint64_t i = 0; i < 40000; i += 8)
			cpu_store64(from + i, i ^ round);
		expect(sys_pipe_write(pipe, from, 40000) == 40000);
		expect(sys_pipe_write(pipe, from, 40000) == 65536 - 40000);
		sys_switch(child);
		expect(sys_pipe_read(pipe, to + 8, 40000) == 40000);
		expect(sys_pipe_read(pipe, to + 40008, 262136 - 40000) == 65536 - 40000);
		for (uint64_t i = 0; i < 65536; i += 8)
			expect(cpu_load64(to + 8 + i) == (i % 40000 ^ round));
		expect(cpu_load64(from) == 0);
		sys_switch(1);
	}
	expect(sys_pipe_write(pipe, 8 * K_PAGE, 8) == K_EFAULT);
	expect(sys_mprotect(from, K_PAGE, K_READ) == 0);
	expect(sys_pipe_read(pipe, from, 8) == K_EFAULT && sys_pipe_write(pipe, from, 8) == 8);
	expect(sys_pipe_write(pipe, from + 1, 8) == K_EINVAL);
	in_child_then_exit(child);
	expect(sys_pipe_close(pipe) == 0 && sys_pipe_close(pipe) == K_EINVAL);
	sys_munmap(from, 64 * K_PAGE);
	sys_munmap(to, 64 * K_PAGE);
}

static void automap_maps_on_touch(void)
{
	uint64_t at = (uint64_t)0x7abc << 28;

	sys_automap(true);
	cpu_store64(at - 8, 1);
	cpu_store64(at, 2);
	cpu_fetch(at + K_PAGE * 2 + (cpu_store8(at + K_PAGE * 2, 0xc3), 0));
	expect(cpu_load64(at - 8) == 1 && cpu_load64(at) == 2);
	sys_munmap(at - K_LARGE_PAGE, 2 * K_LARGE_PAGE);
	sys_automap(false);
}

static void many_processes_come_and_go(void)
{
	uint64_t base = filled(8 * K_PAGE);
	int pids[40], self = sys_getpid();

	for (int i = 0; i < 40; i++) {
		pids[i] = sys_fork();
		expect(pids[i] > 0);
		sys_switch(pids[i]);
		cpu_store64(base + 3 * K_PAGE, (uint64_t)i);
		sys_switch(self);
	}
	for (int i = 39; i >= 0; i--) {
		sys_switch(pids[i]);
		expect(cpu_load64(base + 3 * K_PAGE) == (uint64_t)i);
		expect(cpu_load64(base + 4 * K_PAGE) == base + 4 * K_PAGE);
		sys_exit(i);
		expect(sys_wait(pids[i]) == i);
	}
	expect(cpu_load64(base + 3 * K_PAGE) == base + 3 * K_PAGE);
	sys_munmap(base, 8 * K_PAGE);
}

static void pcids_keep_tlbs_over_switches(void)
{
	struct kernel_stats s;
	int child = sys_fork();
	bool is_used;

	for (unsigned i = 0; i < 4; i++) {
		sys_switch(child);
		sys_switch(1);
	}
	kernel_stats(&s);
	is_used = s.switches_noflush > 0;
	expect(is_used == seen.write); /* the mode, left here by guest() */
	in_child_then_exit(child);
}

#define CASE(fn)                                                                                   \
	{                                                                                          \
#fn, fn                                                                            \
	}
static const struct test_case {
	const char *name;
	void (*fn)(void);
} cases[] = {
	CASE(fresh_memory_is_zero_also_when_frames_are_reused),
	CASE(fork_separates_what_is_written_later),
	CASE(the_last_owner_writes_without_a_copy),
	CASE(unread_pages_share_the_zero_page),
	CASE(munmap_takes_exactly_its_range),
	CASE(mprotect_holds_and_keeps_contents),
	CASE(text_is_fetched_and_data_is_not),
	CASE(flipping_pages_uses_no_regions_up),
	CASE(fixed_mmap_replaces),
	CASE(exec_replaces_the_address_space),
	CASE(signals_tell_where_and_how),
	CASE(wait_and_switch_answer_errors),
	CASE(pipes_carry_between_spaces),
	CASE(automap_maps_on_touch),
	CASE(many_processes_come_and_go),
	CASE(pcids_keep_tlbs_over_switches),
};
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static const struct mode {
	const char *name;
	unsigned levels;
	bool pcid, large, dirty; /* dirty: over a template without a page of zeros */
} modes[] = {
	{ "4 levels", 4, false, false, false },
	{ "4 levels, PCID, large", 4, true, true, false },
	{ "5 levels, PCID", 5, true, false, false },
	{ "5 levels, large", 5, false, true, false },
	{ "4 levels, PCID, dirty RAM", 4, true, false, true },
	{ "5 levels, large, dirty RAM", 5, false, true, true },
};

/* ---- The harness --------------------------------------------------------------------------------------------------- */

struct job {
	const struct mode *mode;
	void (*fn)(void);
	bool twice; /* once to warm the page cache up, once to see that nothing is lost */
};

static void guest(struct gn_soft_cpu *cpu, void *ctx)
{
	const struct job *job = ctx;
	struct kernel_config config = { .mem_bytes = RAM_BYTES,
					.levels = job->mode->levels,
					.pcid = job->mode->pcid,
					.smep = true,
					.smap = true,
					.large_pages = job->mode->large,
					.dirty_ram = job->mode->dirty };
	struct kernel_stats before, after;

	(void)cpu;
	installed = -1;
	kernel_boot(&config);
	seen.write = job->mode->pcid;
	job->fn();
	if (!job->twice)
		return;
	kernel_stats(&before);
	seen.write = job->mode->pcid;
	job->fn();
	kernel_stats(&after);
	expect(after.frames_free == before.frames_free);
	expect(after.tables == before.tables);
	expect(after.vmas == before.vmas);
	expect(after.spurious == 0);
}

static int dirt_fd(void)
{
	static int fd = -1;

	if (fd < 0)
		fd = template_new(RAM_BYTES / K_PAGE, TEMPLATE_SEALS);
	cr_assert_geq(fd, 0);
	return fd;
}

static int run(const char *scheme, bool deprivileged, const struct job *job, char *why,
	       size_t why_bytes, uint64_t *sum)
{
	struct gn_soft_config config = {
		.vm = { .scheme = scheme, .mem_bytes = RAM_BYTES, .vcpus = 1 },
		.seed = 1,
		.deprivileged = deprivileged,
	};
	struct gn_audit_report report;
	void *state = calloc(1, kernel_state_bytes());
	struct gn_soft *soft;
	int err;

	if (job->mode->dirty) {
		config.vm.pool = GN_POOL_TEMPLATE;
		config.vm.template_fd = dirt_fd();
	}
	err = gn_soft_create(&config, &soft);
	cr_assert_eq(err, 0, "%s: gn_soft_create: %d", scheme, err);
	kernel_attach(state);
	cpu_hosted_enter(gn_soft_cpu(soft, 0), NULL, NULL);
	err = gn_soft_run(gn_soft_cpu(soft, 0), guest, (void *)job);
	snprintf(why, why_bytes, "%s", err ? gn_soft_stop_reason(gn_soft_cpu(soft, 0)) : "");
	cr_assert_eq(gn_audit(gn_soft_vm(soft), &report), 0, "%s: audit: %s", scheme, report.first);
	*sum = gn_vm_memory_sum(gn_soft_vm(soft));
	gn_soft_destroy(soft);
	free(state);
	return err;
}

static void run_case(const struct test_case *c, const struct mode *mode)
{
	struct job job = { mode, c->fn, true };
	uint64_t sum, first = 0;
	char why[200];

	/* Shadow twice: as a guest that is deprivileged it must notice nothing. */
	for (unsigned s = 0; gn_scheme_at(s / 2); s++) {
		const char *scheme = gn_scheme_name(gn_scheme_at(s / 2));
		int err;

		if ((s & 1) && strncmp(scheme, "shadow", 6) != 0)
			continue;
		err = run(scheme, s & 1, &job, why, sizeof(why), &sum);

		cr_assert_eq(err, 0, "%s, %s, %s %u: %d: %s", c->name, mode->name, scheme, s & 1,
			     err, why);
		if (!s)
			first = sum;
		cr_assert_eq(sum, first, "%s, %s, %s %u: memory differs from the first scheme's",
			     c->name, mode->name, scheme, s & 1);
	}
}

static void register_schemes(void)
{
	cr_assert_eq(gn_schemes_register_all(), 0);
}

Test(kernel, keeps_its_promises_under_every_scheme, .init = register_schemes)
{
	for (unsigned c = 0; c < COUNT(cases); c++)
		for (unsigned m = 0; m < COUNT(modes); m++)
			run_case(&cases[c], &modes[m]);
	cr_assert_not_null(gn_scheme_at(0));
}

/* ---- Guests that must be stopped ------------------------------------------------------------------------------------ */

static void touches_nothing_it_has(void)
{
	cpu_load64(0x1000);
}

static void touches_the_kernel(void)
{
	cpu_load64((uint64_t)0xffff888000000000);
}

static void uses_all_memory(void)
{
	sys_mmap(0, RAM_BYTES, RW, K_MAP_POPULATE);
}

static void exits_the_first_process(void)
{
	sys_exit(0);
}

static void executes_privileged(void)
{
	cpu_write_cr3(0);
}

Test(kernel, stops_with_a_reason, .init = register_schemes)
{
	static const struct {
		void (*fn)(void);
		const char *reason;
	} stops[] = {
		{ touches_nothing_it_has, "segmentation fault" },
		{ touches_the_kernel, "segmentation fault" },
		{ uses_all_memory, "out of memory" },
		{ exits_the_first_process, "process 1 exited" },
		{ executes_privileged, "general protection" },
	};

	for (unsigned i = 0; i < COUNT(stops); i++) {
		struct job job = { &modes[0], stops[i].fn, false };
		char why[200];
		uint64_t sum;

		cr_assert_eq(run("native", false, &job, why, sizeof(why), &sum), -ECANCELED);
		cr_assert_not_null(strstr(why, stops[i].reason), "wanted \"%s\", got \"%s\"",
				   stops[i].reason, why);
	}
}
