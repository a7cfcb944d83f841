/* SPDX-License-Identifier: MIT */
/*
 * balloond_scale.c - a thousand VMs under one daemon: its CPU time in steady state, its memory per VM, how long a round
 * takes; and how soon a VM has 256 MiB that others must first give back.
 *
 * What hangs on time is printed beside its goal and held by nobody: this is no benchmark of a quiet machine. Memory is
 * held. GN_TEST_SCALE below 25 (the sanitizers' builds) runs fewer VMs and holds no memory either.
 */
#include "support/fake_vms.h"

static double cpu_seconds(pid_t pid)
{
	unsigned long user = 0, kernel = 0;
	char path[64];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	file = fopen(path, "r");
	if (!file)
		return 0;
	if (fscanf(file, "%*d %*s %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user,
		   &kernel) != 2)
		user = kernel = 0;
	fclose(file);
	return (double)(user + kernel) / (double)sysconf(_SC_CLK_TCK);
}

static double resident_kib(pid_t pid)
{
	unsigned long pages = 0;
	char path[64];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/statm", (int)pid);
	file = fopen(path, "r");
	if (!file)
		return 0;
	if (fscanf(file, "%*u %lu", &pages) != 1)
		pages = 0;
	fclose(file);
	return (double)pages * (double)sysconf(_SC_PAGESIZE) / 1024;
}

static void run_for(struct fake_vm *vms, size_t count, unsigned ms)
{
	uint64_t end = gn_now_ns() + ms * (uint64_t)1000000;

	while (gn_now_ns() < end)
		fake_turn(vms, count, 20);
}

static void many(size_t count, bool holds_memory)
{
	struct fake_vm *vms = calloc(count, sizeof(*vms));
	double before_kib, kib_per_vm, share, longest_ms, cpu_ms, cpu;
	const unsigned seconds = 10;
	struct fake_host h;
	bool ready = vms && !fake_host_init(&h, count * 32, "[policy]\nsettle = 0s\n") &&
		     !fake_daemon_start(&h, NULL);

	if (!ready) {
		fake_check(false, "set up");
		return;
	}
	fake_check(fake_await_daemon(&h, 10000), "the daemon answers");
	before_kib = resident_kib(h.daemon);
	for (size_t i = 0; i < count; i++)
		ready &= !fake_vm_init(&vms[i], &h, (uint32_t)i + 1, 64, 8);
	fake_check(ready && fake_await_registered(vms, count, 20000), "all are registered");
	run_for(vms, count, 5000);
	cpu = cpu_seconds(h.daemon);
	for (unsigned s = 0; s < seconds; s++) {
		/* A tenth of them has something new to say. */
		for (size_t i = s; i < count; i += 10)
			vms[i].active_pages = vms[i].active_pages == 32 ? 30 : 32;
		run_for(vms, count, 1000);
	}
	share = (cpu_seconds(h.daemon) - cpu) / seconds * 100;
	kib_per_vm = (resident_kib(h.daemon) - before_kib) / (double)count;
	longest_ms = fake_ask_number(&h, "query-policy", "longest_round_ms");
	cpu_ms = fake_ask_number(&h, "query-policy", "costliest_round_cpu_ms");
	/* A round in CPU time: how long it is preempted depends on what else runs. */
	printf("%zu VMs: %.2f %% of a core (goal 2), %.1f KiB of the daemon's memory per VM (64), "
	       "costliest round %.2f ms of CPU time (50), longest %.2f ms\n",
	       count, share, kib_per_vm, cpu_ms, longest_ms);
	fake_check(cpu_ms >= 0, "the daemon tells what its rounds cost");
	fake_check(fake_registered(vms, count) == count, "all stay registered");
	fake_check(!h.overdrafts, "never more than there is");
	fake_check(fake_books_agree(&h, vms, count, 20000), "the daemon's books say what is so");
	if (holds_memory)
		fake_check(kib_per_vm <= 64, "at most 64 KiB per VM");
	for (size_t i = 0; i < count; i++)
		fake_vm_fini(&vms[i]);
	free(vms);
	fake_host_fini(&h);
}

enum { SPIKE_VMS = 4, SPIKES = 20, SPIKE_PAGES = 256 };

/* Four idle VMs fill half their memory, which is all of the budget; the one that has least spikes by 256 MiB, for which
 * others must give back. A daemon of its own each time, for the policy remembers who needed what. Milliseconds;
 * negative: not granted within 20 s. */
static double spike(void)
{
	struct fake_vm vms[SPIKE_VMS], *least = vms;
	struct fake_host h;
	double took_ms = -1;
	bool ready = !fake_host_init(&h, 2048, "[policy]\nsettle = 0s\n") &&
		     !fake_daemon_start(&h, NULL);

	h.max_batch = 64;
	for (unsigned i = 0; i < SPIKE_VMS; i++) {
		ready &= !fake_vm_init(&vms[i], &h, i + 1, 1024, 128);
		vms[i].active_pages = 200;
	}
	fake_check(ready && fake_await_registered(vms, SPIKE_VMS, 20000), "spike: set up");
	run_for(vms, SPIKE_VMS, 1500);
	for (unsigned i = 1; i < SPIKE_VMS; i++)
		if (vms[i].actual_pages < least->actual_pages)
			least = &vms[i];
	least->active_pages = least->actual_pages;
	least->asks_pages = least->actual_pages + SPIKE_PAGES;
	least->asked_ns = gn_now_ns();
	gn_agent_kick(least->agent);
	while (!least->granted_ns && gn_now_ns() - least->asked_ns < 20000000000u)
		fake_turn(vms, SPIKE_VMS, 5);
	if (least->granted_ns)
		took_ms = (double)(least->granted_ns - least->asked_ns) / 1e6;
	fake_check(!h.overdrafts, "spike: never more than there is");
	for (unsigned i = 0; i < SPIKE_VMS; i++)
		fake_vm_fini(&vms[i]);
	fake_host_fini(&h);
	return took_ms;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void spikes(unsigned count)
{
	double took_ms[SPIKES];

	for (unsigned i = 0; i < count; i++)
		took_ms[i] = spike();
	qsort(took_ms, count, sizeof(took_ms[0]), by_value);
	printf("256 MiB after a spike: median %.1f ms, most %.1f ms (goal 100), of %u spikes\n",
	       took_ms[count / 2], took_ms[count - 1], count);
	fake_check(took_ms[0] >= 0, "spikes: each is granted");
}

int main(void)
{
	const char *scale = getenv("GN_TEST_SCALE");
	const bool is_full = !scale || atoi(scale) >= 25;

	many(is_full ? 1000 : 50, is_full);
	spikes(is_full ? SPIKES : 2);
	printf("%u passed, %u failed\n", fake_counts.passed, fake_counts.failed);
	return fake_counts.failed != 0;
}
