/* SPDX-License-Identifier: MIT */
/*
 * sharing_agents.c - start the daemon and the VMs, and wait for what they do.
 *
 * The agents have all the CPU time they want, and look often. In the end the daemon is told to pause, so that what is measured then is
 * what the guests do, and no agent's work.
 */
#include "sharing_agents.h"

#include <errno.h>
#include <time.h>

#include "control/clock.h"
#include "sharing/pool.h"

#define PAUSE_NS 20000000
#define LIMIT_NS UINT64_C(120000000000)
#define REST_NS	 200000000 /* until all agents have heard that they are to rest */
#define SPARE_PART                                                                                 \
	100 /* of the pages, that may have been missed: hashes that were taken amid a write */

static void write_config(FILE *to, const void *ctx)
{
	const struct sharing_agents *a = ctx;

	fprintf(to,
		"[sharing]\ncpu_percent = 10000\nsweep = 10ms\n[domain bench]\nvms = *\nquiet = "
		"%s\n",
		a->is_quiet ? "on" : "off");
}

static int add(struct sharing_agents *a, unsigned number, const char *scheme)
{
	const uint64_t bytes = sharing_vm_contents_bytes(a->contents);
	const struct gn_vm_config vm = { .scheme = scheme,
					 /* All that is alike may be in one VM's window. */
					 .window_bytes = (bytes / GN_SEGMENT_BYTES + 2) *
							 GN_SEGMENT_BYTES };
	struct gn_share_agent_config config = { .socket = a->daemon.socket,
						.group = "bench",
						.quiet = a->is_quiet,
						.mem_bytes = sharing_vm_bytes(a->contents) };
	char name[24];
	int err = sharing_vm_init(&a->vms[number], a->contents, number, &vm, 2);

	if (err)
		return err;
	snprintf(name, sizeof(name), "vm-%u", number);
	config.name = name;
	config.scheme = scheme;
	config.vm = gn_soft_vm(a->vms[number].soft);
	err = gn_share_agent_create(&config, &a->agents[number]);
	/* Tables of guests alike are alike, and no part of the contents. */
	if (!err)
		err = gn_share_agent_hint(a->agents[number], gfn(bytes / GN_PAGE_SIZE),
					  SHARING_TABLE_BYTES / GN_PAGE_SIZE, GN_SHARE_NEVER);
	return err ? err : gn_share_agent_start(a->agents[number]);
}

int sharing_agents_init(struct sharing_agents *a, const struct sharing_contents *contents,
			const char *scheme, bool is_quiet)
{
	int err;

	*a = (struct sharing_agents){ .contents = contents, .is_quiet = is_quiet };
	err = child_daemon_start(&a->daemon, "gnomon-shared", 0, write_config, a);
	for (unsigned i = 0; i < contents->vms && !err; i++)
		err = add(a, i, scheme);
	if (err)
		sharing_agents_fini(a);
	return err;
}

void sharing_agents_fini(struct sharing_agents *a)
{
	for (unsigned i = 0; i < SHARING_MAX_VMS; i++)
		gn_share_agent_destroy(a->agents[i]);
	for (unsigned i = 0; i < SHARING_MAX_VMS; i++)
		sharing_vm_fini(&a->vms[i]);
	child_daemon_stop(&a->daemon);
}

static bool has_converged(const struct sharing_agents *a, const struct sharing_oracle *oracle)
{
	/* Each page that is alike is in a frame of the daemon's: also the one of each kind that is kept. */
	uint64_t alike = 0, sharing = 0, sealed = 0, spare = oracle->total_pages / SPARE_PART;

	for (unsigned vm = 0; vm < a->contents->vms; vm++) {
		struct gn_share_agent_stats s;

		for (uint64_t page = 0; page < a->contents->vm_pages; page++)
			alike += sharing_page_is_common(sharing_page(a->contents, vm, page));
		gn_share_agent_get_stats(a->agents[vm], &s);
		sharing += s.pages_sharing;
		sealed += s.pages_sealed;
	}
	return sharing + spare >= alike &&
	       (!a->is_quiet || sealed + spare >= oracle->total_pages - oracle->zero_pages);
}

static void rest(uint64_t ns)
{
	nanosleep(&(struct timespec){ .tv_nsec = (long)ns }, NULL);
}

int sharing_agents_converge(struct sharing_agents *a, const struct sharing_oracle *oracle)
{
	const uint64_t end_ns = gn_now_ns() + LIMIT_NS;
	int err;

	while (!has_converged(a, oracle)) {
		if (gn_now_ns() > end_ns)
			return -ETIMEDOUT;
		rest(PAUSE_NS);
	}
	err = child_daemon_ask(&a->daemon, "pause", NULL);
	rest(REST_NS);
	return err;
}
