/* SPDX-License-Identifier: MIT */
/*
 * balloond_kill.c - the daemon is killed at every step of its protocol, and VMs die under it. VMs run on and come
 * back, the next daemon's books say what is so, and nobody is ever told to take memory that another still has.
 *
 * The VMs' working sets move all the while, so that targets are always under way when the daemon dies.
 */
#include "balloon/daemon_step.h"
#include "support/fake_vms.h"

#define VMS    8
#define PAGES  1024
#define VM_MEM 256
#define VM_MIN 32
/* What is to happen happens in milliseconds; so long it may take where the machine has other work. */
#define LIMIT_MS 30000
/* Less than the sum of the minima. */
#define CUT_PAGES 200
#define CONFIG                                                                                     \
	"[policy]\nperiod = 50ms\nsettle = 1s\nheartbeat = 200ms\ndeadline = 100ms\n"              \
	"reversal = 0s\ncalm_shrink = 10\n"

static uint64_t seed = 0x5eed;

static unsigned draw(unsigned below)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (unsigned)(seed >> 33) % below;
}

static void shake(struct fake_vm *vms)
{
	struct fake_vm *vm = &vms[draw(VMS)];

	vm->active_pages = VM_MIN + draw(VM_MEM - VM_MIN);
	vm->asks_pages = draw(3) ? 0 : vm->active_pages;
	vm->granted_ns = 0;
	if (vm->agent)
		gn_agent_kick(vm->agent);
}

/* Run until the daemon has died, or @ms are over. Whether it died. */
static bool run_until_death(struct fake_host *h, struct fake_vm *vms, unsigned ms)
{
	uint64_t end = gn_now_ns() + ms * (uint64_t)1000000;

	while (gn_now_ns() < end) {
		int status;

		shake(vms);
		fake_turn(vms, VMS, 10);
		if (waitpid(h->daemon, &status, WNOHANG) == h->daemon) {
			h->daemon = 0;
			return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
		}
	}
	return false;
}

/* Until all VMs are registered, or the daemon is dead. */
static void run_until_registered(struct fake_host *h, struct fake_vm *vms)
{
	uint64_t end = gn_now_ns() + LIMIT_MS * (uint64_t)1000000;
	siginfo_t dead = { .si_pid = 0 };

	while (fake_registered(vms, VMS) < VMS && !dead.si_pid && gn_now_ns() < end) {
		fake_turn(vms, VMS, 10);
		waitid(P_PID, (id_t)h->daemon, &dead, WEXITED | WNOHANG | WNOWAIT);
	}
}

/* What makes a rare step happen. */
static void provoke(const char *step, struct fake_host *h, struct fake_vm *vms)
{
	if (!strcmp(step, "gone"))
		fake_vm_fini(&vms[1]);
	if (!strcmp(step, "stopping"))
		kill(h->daemon, SIGTERM);
	vms[2].is_stubborn = !strcmp(step, "late");
	if (vms[2].is_stubborn) {
		/* Less than it has is what it is told as soon as another asks for the rest. */
		vms[2].active_pages = VM_MIN;
		for (unsigned i = 3; i < VMS; i++)
			vms[i].asks_pages = vms[i].active_pages = VM_MEM;
	}
}

static void kill_at(const char *step, unsigned count)
{
	struct fake_vm vms[VMS];
	struct fake_host h;
	char at[48];
	bool ready;

	snprintf(at, sizeof(at), "%s:%u", step, count);
	ready = !fake_host_init(&h, PAGES, CONFIG);
	h.max_batch = 16;
	for (unsigned i = 0; i < VMS; i++)
		ready &= !fake_vm_init(&vms[i], &h, i + 1, VM_MEM, VM_MIN);
	ready = ready && !fake_daemon_start(&h, at);
	daemon_check(ready, at, "set up");
	run_until_registered(&h, vms);
	provoke(step, &h, vms);
	daemon_check(run_until_death(&h, vms, LIMIT_MS), at, "the daemon dies there");
	daemon_check(fake_await_away(vms, VMS, LIMIT_MS), at, "all see it");
	daemon_check(!fake_daemon_start(&h, NULL), at, "restart");
	daemon_check(fake_await_registered(vms, VMS, LIMIT_MS), at, "all are back");
	vms[2].is_stubborn = false;
	for (unsigned i = 0; i < 60; i++) {
		shake(vms);
		fake_turn(vms, VMS, 10);
	}
	daemon_check(fake_books_agree(&h, vms, VMS, LIMIT_MS), at,
		     "the new daemon knows what is so");
	daemon_check(!h.overdrafts, at, "never more than there is");
	for (unsigned i = 0; i < VMS; i++)
		fake_vm_fini(&vms[i]);
	fake_host_fini(&h);
}

/* VMs are killed: what they had goes to the others, at once. */
static void vm_dies(void)
{
	struct fake_vm vms[VMS];
	struct fake_host h;
	uint64_t start, took_ms;
	bool ready = !fake_host_init(&h, PAGES, CONFIG);

	for (unsigned i = 0; i < VMS; i++)
		ready &= !fake_vm_init(&vms[i], &h, i + 1, VM_MEM, VM_MIN);
	ready = ready && !fake_daemon_start(&h, NULL) && fake_await_registered(vms, VMS, LIMIT_MS);
	daemon_check(ready, "vm dies", "set up");
	for (unsigned i = 0; i < VMS; i++) {
		vms[i].active_pages = vms[i].asks_pages = VM_MEM;
		gn_agent_kick(vms[i].agent);
	}
	start = gn_now_ns();
	while (h.free_pages && gn_now_ns() - start < LIMIT_MS * (uint64_t)1000000)
		fake_turn(vms, VMS, 10);
	daemon_check(!h.free_pages, "vm dies", "all memory is in use");
	for (unsigned i = 0; i < VMS / 2; i++)
		fake_vm_fini(&vms[i]);
	start = gn_now_ns();
	while (h.free_pages && gn_now_ns() - start < LIMIT_MS * (uint64_t)1000000)
		fake_turn(vms, VMS, 10);
	took_ms = (gn_now_ns() - start) / 1000000;
	daemon_check(!h.free_pages, "vm dies", "the living have it");
	printf("memory of 4 dead VMs was in use again after %llu ms\n",
	       (unsigned long long)took_ms);
	daemon_check(!h.overdrafts, "vm dies", "never more than there is");
	for (unsigned i = VMS / 2; i < VMS; i++)
		fake_vm_fini(&vms[i]);
	fake_host_fini(&h);
}

static uint64_t least_pages(const struct fake_vm *vms)
{
	uint64_t least = VM_MEM;

	for (unsigned i = 0; i < VMS; i++)
		least = vms[i].actual_pages < least ? vms[i].actual_pages : least;
	return least;
}

/* The budget is cut below the reservations while no daemon runs: all are taken in again, and squeezed to their minima. */
static void budget_is_cut(void)
{
	const char *what = "budget cut";
	struct fake_vm vms[VMS];
	struct fake_host h;
	bool ready = !fake_host_init(&h, PAGES, CONFIG);
	uint64_t start;

	for (unsigned i = 0; i < VMS; i++)
		ready &= !fake_vm_init(&vms[i], &h, i + 1, VM_MEM, VM_MIN);
	ready = ready && !fake_daemon_start(&h, NULL) && fake_await_registered(vms, VMS, LIMIT_MS);
	daemon_check(ready, what, "set up");
	start = gn_now_ns();
	while (least_pages(vms) <= VM_MIN && gn_now_ns() - start < LIMIT_MS * (uint64_t)1000000)
		fake_turn(vms, VMS, 10);
	daemon_check(least_pages(vms) > VM_MIN, what, "all have more than they must");
	fake_daemon_kill(&h);
	daemon_check(fake_await_away(vms, VMS, LIMIT_MS), what,
		     "all see that their daemon is gone");
	daemon_check(!fake_configure(&h, CUT_PAGES, CONFIG) && !fake_daemon_start(&h, NULL), what,
		     "restart");
	daemon_check(fake_await_registered(vms, VMS, LIMIT_MS), what, "all are taken in");
	start = gn_now_ns();
	while (PAGES - h.free_pages > VMS * VM_MIN &&
	       gn_now_ns() - start < LIMIT_MS * (uint64_t)1000000)
		fake_turn(vms, VMS, 10);
	daemon_check(PAGES - h.free_pages == VMS * VM_MIN, what, "all shrink to their minima");
	daemon_check(fake_ask_number(&h, "query-host", "reserved_bytes") ==
			     (double)(VMS * VM_MIN * FAKE_PAGE_BYTES),
		     what, "all are charged");
	for (unsigned i = 0; i < VMS; i++)
		fake_vm_fini(&vms[i]);
	fake_host_fini(&h);
}

int main(void)
{
	const char *step, *scale = getenv("GN_TEST_SCALE");
	const bool is_full = !scale || atoi(scale) >= 25;

	for (unsigned i = 0; (step = gn_daemon_step_at(i)); i++) {
		kill_at(step, 1);
		if (is_full && strcmp(step, "gone") != 0 && strcmp(step, "stopping") != 0 &&
		    strcmp(step, "late") != 0)
			kill_at(step, 6);
	}
	vm_dies();
	budget_is_cut();
	return daemon_counts_print();
}
