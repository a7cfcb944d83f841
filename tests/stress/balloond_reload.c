/* SPDX-License-Identifier: MIT */
/*
 * balloond_reload.c - agents heed a period and a heartbeat that change while they run. The old ones are a minute, which is
 * longer than this waits.
 */
#include "support/fake_vms.h"

#define VMS	 4
#define LIMIT_NS ((uint64_t)20 * 1000000000)

/* Turn until each VM's @key is in [@least, @below) by the daemon's books. */
static bool await_each(struct fake_host *h, struct fake_vm *vms, const char *key, double least,
		       double below)
{
	uint64_t end = gn_now_ns() + LIMIT_NS;
	bool all = false;

	while (!all && gn_now_ns() < end) {
		cJSON *list = daemon_ask(h->socket, "query-vms");
		const cJSON *entry;

		all = cJSON_GetArraySize(list) == VMS;
		cJSON_ArrayForEach(entry, list) all &= fake_has_number(entry, key, least, below);
		cJSON_Delete(list);
		fake_turn(vms, VMS, 10);
	}
	return all;
}

static bool reload(struct fake_host *h, const char *lines)
{
	double before = fake_ask_number(h, "query-policy", "period_ms"), now = before;
	uint64_t end = gn_now_ns() + LIMIT_NS;

	if (fake_configure(h, h->pages, lines) || kill(h->daemon, SIGHUP))
		return false;
	while (now == before && gn_now_ns() < end)
		now = fake_ask_number(h, "query-policy", "period_ms");
	return now > 0 && now != before;
}

int main(void)
{
	struct fake_vm vms[VMS];
	struct fake_host h;
	bool ready = !fake_host_init(&h, VMS * 64,
				     "[policy]\nsettle = 0s\nperiod = 60s\nheartbeat = 60s\n");
	double rounds;

	for (unsigned i = 0; i < VMS; i++)
		ready &= !fake_vm_init(&vms[i], &h, i + 1, 64, 64);
	fake_check(ready && !fake_daemon_start(&h, NULL) && fake_await_registered(vms, VMS, 20000),
		   "set up");
	fake_check(fake_books_agree(&h, vms, VMS, 20000), "nothing moves");
	for (unsigned i = 0; i < VMS; i++)
		vms[i].active_pages = 7;
	fake_check(reload(&h, "[policy]\nperiod = 50ms\nheartbeat = 60s\n"), "a short period");
	fake_check(await_each(&h, vms, "active_bytes", 7.0 * FAKE_PAGE_BYTES,
			      7.0 * FAKE_PAGE_BYTES + 1),
		   "agents look once a period");
	rounds = fake_ask_number(&h, "query-policy", "rounds");
	for (uint64_t end = gn_now_ns() + LIMIT_NS;
	     fake_ask_number(&h, "query-policy", "rounds") < rounds + 5 && gn_now_ns() < end;)
		fake_turn(vms, VMS, 10);
	fake_check(fake_ask_number(&h, "query-policy", "rounds") >= rounds + 5,
		   "so does the daemon");
	fake_check(await_each(&h, vms, "report_age_ms", 1000, 60000),
		   "there is nothing new to say");
	fake_check(reload(&h, "[policy]\nperiod = 60ms\nheartbeat = 200ms\n"), "a short heartbeat");
	fake_check(await_each(&h, vms, "report_age_ms", 0, 800), "is kept");
	for (unsigned i = 0; i < VMS; i++)
		fake_vm_fini(&vms[i]);
	fake_host_fini(&h);
	printf("%u passed, %u failed\n", fake_counts.passed, fake_counts.failed);
	return fake_counts.failed != 0;
}
