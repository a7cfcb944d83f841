/* SPDX-License-Identifier: MIT */
/*
 * balloond.c - real guests under a real gnomon-balloond: `gnomon run --backend kvm --control`, one under nested paging and
 * one under shadow, whose memory together is more than the budget. Both end well with their self-checks and an audit, no
 * more is promised than there is, and the daemon learns what a VM tells: working set by sampling, claims of the driver.
 */
#include "kvm/nested_guest.h"
#include "kvm/run_guest.h"
#include "support/fake_vms.h"

#define BUDGET_MIB 80
#define MIN_MIB	   16
#define CONFIG	   "[policy]\nperiod = 100ms\nsettle = 0s\n"
#define POLL_MS	   20
#define POLLS	   30000 /* of an emulated machine that does other things too */

struct guest {
	struct run_guest run;
	unsigned moves; /* targets seen that differ from the one before */
	uint64_t target_bytes;
	bool has_working_set, has_claims, is_kvm;
};
static struct guest guests[] = { { .run = { "ept", "kvm", "ept", 0, false } },
				 { .run = { "shadow", "kvm", "shadow", 0, false } } };
#define GUESTS (sizeof(guests) / sizeof(guests[0]))

static void guest_look(struct guest *g, const cJSON *vm)
{
	const cJSON *target = cJSON_GetObjectItem(vm, "target_bytes");
	const cJSON *backend = cJSON_GetObjectItem(vm, "backend");
	uint64_t bytes = (uint64_t)cJSON_GetNumberValue(target);

	RIG_CHECK(bytes >= MIN_MIB * MIB && bytes <= 64 * MIB, "%s is told %llu bytes", g->run.name,
		  (unsigned long long)bytes);
	g->moves += g->target_bytes && g->target_bytes != bytes;
	g->target_bytes = bytes;
	g->has_working_set |= cJSON_IsNumber(cJSON_GetObjectItem(vm, "active_bytes"));
	g->has_claims |= cJSON_IsNumber(cJSON_GetObjectItem(vm, "available_bytes")) &&
			 cJSON_IsTrue(cJSON_GetObjectItem(vm, "claims_trusted"));
	g->is_kvm |= cJSON_IsString(backend) && !strcmp(backend->valuestring, "kvm");
}

/* What the daemon says of all. */
static void look(const struct fake_host *h)
{
	cJSON *list = daemon_ask(h->socket, "query-vms");
	const cJSON *vm;
	double promised = 0;

	cJSON_ArrayForEach(vm, list)
	{
		const cJSON *name = cJSON_GetObjectItem(vm, "name");

		promised += cJSON_GetNumberValue(cJSON_GetObjectItem(vm, "target_bytes"));
		for (unsigned i = 0; i < GUESTS; i++)
			if (cJSON_IsString(name) && !strcmp(name->valuestring, guests[i].run.name))
				guest_look(&guests[i], vm);
	}
	RIG_CHECK(promised <= BUDGET_MIB * MIB, "%.0f bytes are promised", promised);
	cJSON_Delete(list);
}

/* How many run. */
static unsigned count_running(const struct fake_host *h)
{
	unsigned running = 0;

	for (unsigned i = 0; i < GUESTS; i++)
		running += run_guest_runs(&guests[i].run, h->directory, "balloon: ");
	return running;
}

static void share(struct fake_host *h)
{
	char min[16];
	const char *const more[] = { "--mem",	"64M",	      "--size",
				     "8M",	"--argument", "20/20/2000,90/10/2000,10/80/2000x2",
				     "--rest",	"1",	      "--control",
				     h->socket, "--min",      min,
				     NULL };
	unsigned polls = 0;

	snprintf(min, sizeof(min), "%uM", MIN_MIB);
	RIG_CHECK(!fake_daemon_start(h, NULL) && fake_await_daemon(h, 60000), "the daemon answers");
	for (unsigned i = 0; i < GUESTS; i++)
		run_guest_start(&guests[i].run, h->directory, more);
	for (; count_running(h) && polls < POLLS; polls++) {
		look(h);
		pause_ms(POLL_MS);
	}
	for (unsigned i = 0; i < GUESTS; i++) {
		struct guest *g = &guests[i];

		run_guest_end(&g->run, h->directory);
		RIG_CHECK(g->is_kvm && g->moves, "%s: told to move %u times", g->run.name,
			  g->moves);
		RIG_CHECK(g->has_working_set, "%s: its working set is known", g->run.name);
		RIG_CHECK(g->has_claims, "%s: its claims are known, and trusted", g->run.name);
	}
}

int main(void)
{
	struct fake_host h;

	if (!nested_start() || !host.uffd_minor_shmem)
		return rig_end();
	if (access(GN_BALLOOND, X_OK) || access(GN_BINARY, X_OK)) {
		rig_skip("everything", "no gnomon or gnomon-balloond at its place");
		return rig_end();
	}
	RIG_CHECK(!fake_host_init(&h, BUDGET_MIB, CONFIG), "set up");
	share(&h);
	fake_host_fini(&h);
	return rig_end();
}
