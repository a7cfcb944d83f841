/* SPDX-License-Identifier: MIT */
/*
 * fake_vms.h - many VMs without guests, in one thread, under a real gnomon-balloond: their memory is pages of one host
 * pool. A VM told to have more takes free pages, and there must be enough; told to have less it gives pages back, a few
 * at a time.
 */
#ifndef GN_TESTS_FAKE_VMS_H
#define GN_TESTS_FAKE_VMS_H

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "balloon/agent.h"
#include "control/clock.h"
#include "daemon_process.h"

#define FAKE_PAGE_BYTES ((uint64_t)1 << 20)

struct fake_host {
	char directory[64], socket[96], config[96];
	size_t pages, free_pages;
	unsigned overdrafts; /* a VM was told to take what was not there */
	unsigned max_batch;  /* pages that a VM gives back in one step; 0: all */
	pid_t daemon;
};

struct fake_vm {
	struct fake_host *host;
	struct gn_agent *agent;
	uint32_t id;
	uint64_t actual_pages, target_pages, active_pages, asks_pages, mem_pages;
	uint64_t asked_ns, granted_ns;
	bool is_stubborn; /* gives nothing back by itself */
	unsigned reclaims, targets;
};

static struct {
	unsigned passed, failed;
} fake_counts;

static inline void fake_check(bool holds, const char *what)
{
	if (holds) {
		fake_counts.passed++;
		return;
	}
	fake_counts.failed++;
	printf("FAIL: %s\n", what);
}

static inline void fake_take(struct fake_vm *vm)
{
	struct fake_host *h = vm->host;
	uint64_t want =
		vm->target_pages > vm->actual_pages ? vm->target_pages - vm->actual_pages : 0;

	if (want > h->free_pages) {
		if (!h->overdrafts++)
			fprintf(stderr, "vm%u has %llu, is told %llu\n", vm->id,
				(unsigned long long)vm->actual_pages,
				(unsigned long long)vm->target_pages);
		want = h->free_pages;
		vm->target_pages = vm->actual_pages + want;
	}
	h->free_pages -= want;
	vm->actual_pages += want;
}

static inline void fake_give(struct fake_vm *vm, uint64_t want)
{
	uint64_t pages = want < vm->actual_pages ? want : vm->actual_pages;

	vm->host->free_pages += pages;
	vm->actual_pages -= pages;
}

static inline void fake_set_target(void *ctx, uint64_t target_bytes)
{
	struct fake_vm *vm = ctx;

	vm->target_pages = target_bytes / FAKE_PAGE_BYTES;
	vm->targets++;
	fake_take(vm);
}

static inline void fake_sample(void *ctx, struct gn_agent_sample *out)
{
	struct fake_vm *vm = ctx;

	if (vm->actual_pages > vm->target_pages && !vm->is_stubborn) {
		uint64_t over = vm->actual_pages - vm->target_pages;

		if (vm->host->max_batch && over > vm->host->max_batch)
			over = vm->host->max_batch;
		fake_give(vm, over);
	}
	out->actual_bytes = vm->actual_pages * FAKE_PAGE_BYTES;
	out->active_bytes =
		(vm->active_pages < vm->actual_pages ? vm->active_pages : vm->actual_pages) *
		FAKE_PAGE_BYTES;
	if (vm->asks_pages > vm->actual_pages)
		out->asks_bytes = (vm->asks_pages - vm->actual_pages) * FAKE_PAGE_BYTES;
	else if (vm->asks_pages && !vm->granted_ns)
		vm->granted_ns = gn_now_ns();
}

static inline void fake_reclaim(void *ctx, uint64_t bytes)
{
	struct fake_vm *vm = ctx;

	vm->reclaims++;
	fake_give(vm, bytes / FAKE_PAGE_BYTES);
}

/* @lines: of the configuration besides socket and budget, each section complete. For the next start, or SIGHUP. */
static inline int fake_configure(const struct fake_host *h, size_t budget_pages, const char *lines)
{
	FILE *file = fopen(h->config, "w");

	if (!file)
		return -errno;
	fprintf(file, "[daemon]\nsocket = %s\n[memory]\nbudget = %zuM\n%s\n", h->socket,
		budget_pages, lines);
	return fclose(file) ? -errno : 0;
}

static inline int fake_host_init(struct fake_host *h, size_t pages, const char *lines)
{
	memset(h, 0, sizeof(*h));
	h->pages = h->free_pages = pages;
	snprintf(h->directory, sizeof(h->directory), "/tmp/gn_balloond_XXXXXX");
	if (!mkdtemp(h->directory))
		return -errno;
	snprintf(h->socket, sizeof(h->socket), "%s/socket", h->directory);
	snprintf(h->config, sizeof(h->config), "%s/ini", h->directory);
	return fake_configure(h, pages, lines);
}

static inline double fake_ask_number(const struct fake_host *h, const char *command,
				     const char *key)
{
	return daemon_ask_number(h->socket, command, key);
}

/* @die_at: GN_DIE_AT, or NULL. */
static inline int fake_daemon_start(struct fake_host *h, const char *die_at)
{
	h->daemon = daemon_spawn(GN_BALLOOND, h->config, die_at);
	return h->daemon < 0 ? (int)h->daemon : 0;
}

/* Until it answers, or @ms are over. */
static inline bool fake_await_daemon(const struct fake_host *h, uint64_t ms)
{
	uint64_t end = gn_now_ns() + ms * 1000000;

	while (fake_ask_number(h, "query-policy", "rounds") < 0) {
		if (gn_now_ns() >= end)
			return false;
		usleep(10000);
	}
	return true;
}

static inline void fake_daemon_kill(struct fake_host *h)
{
	daemon_kill(&h->daemon);
}

static inline void fake_host_fini(struct fake_host *h)
{
	char lock[120];

	fake_daemon_kill(h);
	snprintf(lock, sizeof(lock), "%s.lock", h->socket);
	unlink(lock);
	unlink(h->socket);
	unlink(h->config);
	rmdir(h->directory);
}

static inline int fake_vm_init(struct fake_vm *vm, struct fake_host *h, uint32_t id,
			       uint64_t mem_pages, uint64_t min_pages)
{
	static const struct gn_agent_ops ops = { fake_set_target, fake_sample, fake_reclaim };
	char name[32];
	struct gn_agent_config config = { .socket = h->socket,
					  .name = name,
					  .backend = "fake",
					  .mem_bytes = mem_pages * FAKE_PAGE_BYTES,
					  .min_bytes = min_pages * FAKE_PAGE_BYTES,
					  .max_bytes = mem_pages * FAKE_PAGE_BYTES,
					  .shares = 1000,
					  .max_pause_ms = 100,
					  .ops = &ops,
					  .ctx = vm };

	memset(vm, 0, sizeof(*vm));
	snprintf(name, sizeof(name), "vm%u", id);
	vm->host = h;
	vm->id = id;
	vm->mem_pages = mem_pages;
	vm->active_pages = mem_pages / 2;
	return gn_agent_create(&config, &vm->agent);
}

/* The VM dies: its connection ends, its pages are free. */
static inline void fake_vm_fini(struct fake_vm *vm)
{
	gn_agent_destroy(vm->agent);
	vm->agent = NULL;
	fake_give(vm, vm->actual_pages);
}

/* One turn of all @count VMs, waiting at most @wait_ms. */
static inline void fake_turn(struct fake_vm *vms, size_t count, int wait_ms)
{
	struct pollfd *fds = calloc(count * GN_AGENT_FDS, sizeof(*fds));
	uint64_t now = gn_now_ns();

	if (!fds)
		abort();
	for (size_t i = 0; i < count; i++) {
		int due_ms = -1;

		fds[i * GN_AGENT_FDS].fd = fds[i * GN_AGENT_FDS + 1].fd = -1;
		if (vms[i].agent)
			due_ms = gn_agent_prepare(vms[i].agent, fds + i * GN_AGENT_FDS, now);
		if (due_ms >= 0 && due_ms < wait_ms)
			wait_ms = due_ms;
	}
	if (poll(fds, count * GN_AGENT_FDS, wait_ms) < 0)
		memset(fds, 0, count * GN_AGENT_FDS * sizeof(*fds));
	now = gn_now_ns();
	for (size_t i = 0; i < count; i++)
		if (vms[i].agent)
			gn_agent_step(vms[i].agent, fds + i * GN_AGENT_FDS, now);
	free(fds);
}

static inline size_t fake_registered(const struct fake_vm *vms, size_t count)
{
	size_t n = 0;

	for (size_t i = 0; i < count; i++)
		n += vms[i].agent && gn_agent_is_registered(vms[i].agent);
	return n;
}

/* Turn until all that live are registered, or @ms are over. */
static inline bool fake_await_registered(struct fake_vm *vms, size_t count, uint64_t ms)
{
	uint64_t end = gn_now_ns() + ms * 1000000;
	size_t living = 0;

	for (size_t i = 0; i < count; i++)
		living += vms[i].agent != NULL;
	while (fake_registered(vms, count) < living && gn_now_ns() < end)
		fake_turn(vms, count, 10);
	return fake_registered(vms, count) == living;
}

/* Turn until all have seen that their daemon is gone, or @ms are over. */
static inline bool fake_await_away(struct fake_vm *vms, size_t count, uint64_t ms)
{
	uint64_t end = gn_now_ns() + ms * 1000000;

	while (fake_registered(vms, count) && gn_now_ns() < end)
		fake_turn(vms, count, 10);
	return !fake_registered(vms, count);
}

static inline bool fake_has_number(const cJSON *object, const char *key, double least, double below)
{
	const cJSON *item = cJSON_GetObjectItem(object, key);

	return cJSON_IsNumber(item) && cJSON_GetNumberValue(item) >= least &&
	       cJSON_GetNumberValue(item) < below;
}

static inline bool fake_is_known(const cJSON *list, const struct fake_vm *vm)
{
	double actual = (double)(vm->actual_pages * FAKE_PAGE_BYTES);
	double target = (double)(vm->target_pages * FAKE_PAGE_BYTES);
	const cJSON *entry;
	char name[32];

	snprintf(name, sizeof(name), "vm%u", vm->id);
	cJSON_ArrayForEach(entry, list)
	{
		const char *its = cJSON_GetStringValue(cJSON_GetObjectItem(entry, "name"));

		if (its && !strcmp(its, name))
			return fake_has_number(entry, "actual_bytes", actual, actual + 1) &&
			       fake_has_number(entry, "target_bytes", target,
					       target + (double)FAKE_PAGE_BYTES) &&
			       cJSON_IsFalse(cJSON_GetObjectItem(entry, "lost"));
	}
	return false;
}

/*
 * Turn until the daemon's books say what is so: all that live are in them and nobody else, with what they have and what
 * they were told. False: not within @ms, or more was promised than there is.
 */
static inline bool fake_books_agree(const struct fake_host *h, struct fake_vm *vms, size_t count,
				    uint64_t ms)
{
	uint64_t end = gn_now_ns() + ms * 1000000;
	bool agree = false, is_kept = true;

	while (!agree && is_kept && gn_now_ns() < end) {
		cJSON *list = daemon_ask(h->socket, "query-vms");
		double promised = 0;
		size_t living = 0;
		const cJSON *entry;

		agree = true;
		for (size_t i = 0; i < count; i++) {
			living += vms[i].agent != NULL;
			agree &= !vms[i].agent || fake_is_known(list, &vms[i]);
		}
		agree &= (size_t)cJSON_GetArraySize(list) == living;
		cJSON_ArrayForEach(entry, list) promised +=
			cJSON_GetNumberValue(cJSON_GetObjectItem(entry, "target_bytes"));
		is_kept = promised <= (double)(h->pages * FAKE_PAGE_BYTES);
		cJSON_Delete(list);
		if (!agree)
			fake_turn(vms, count, 10);
	}
	return agree && is_kept;
}

#endif
