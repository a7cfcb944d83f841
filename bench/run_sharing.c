/* SPDX-License-Identifier: MIT */
/*
 * run_sharing.c - parse them; get a template from the daemon; join it.
 *
 * A VM begins with its template, so that is asked for before there is a VM, over a connection of its own.
 */
#include "run_sharing.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <gnomon/guest.h>

#include "cli.h"
#include "control/client.h"
#include "control/clock.h"
#include "mmu/vm.h"
#include "sharing/pool.h"

#define ADMISSION_NS UINT64_C(10000000000)
#define AWAIT_NS     2000000
/* Address space, not memory. */
#define WINDOW_BYTES (64 * GN_SEGMENT_BYTES)

#define ANSWER_MS 10000

enum { OPT_SHARING = 0x500, OPT_DOMAIN, OPT_QUIET, OPT_TEMPLATE };

static const struct argp_option options[] = {
	{ "sharing", OPT_SHARING, "SOCKET", 0,
	  "share equal pages under the gnomon-shared that serves this socket", 30 },
	{ "sharing-domain", OPT_DOMAIN, "NAME", 0,
	  "with the VMs of this domain, if the daemon's configuration names this one there "
	  "(--name); else within itself only",
	  30 },
	{ "sharing-quiet", OPT_QUIET, NULL, 0,
	  "only if the daemon's configuration calls the domain quiet: then the time that the "
	  "guest's accesses take does not tell which of its pages others have as well. On kvm it "
	  "also makes room for all of its pages to be shared in such a domain",
	  30 },
	{ "template", OPT_TEMPLATE, "NAME", 0,
	  "begin with this memory image of the daemon's, if its configuration names this VM there "
	  "(--name), instead of with zeros: pages that stay as in the image are there once for all "
	  "VMs over it",
	  30 },
	{ 0 }
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct run_sharing *o = state->input;

	switch (key) {
	case OPT_SHARING:
		o->socket = arg;
		return 0;
	case OPT_DOMAIN:
		if (!*arg || strlen(arg) > 42)
			cli_fail(EXIT_USAGE,
				 "--sharing-domain \"%s\": must have 1 to 42 characters", arg);
		o->domain = arg;
		return 0;
	case OPT_QUIET:
		o->quiet = true;
		return 0;
	case OPT_TEMPLATE:
		if (!*arg || strlen(arg) > 40)
			cli_fail(EXIT_USAGE, "--template \"%s\": must have 1 to 40 characters",
				 arg);
		o->template_name = arg;
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

const struct argp run_sharing_argp = { options, parse, NULL, NULL, NULL, NULL, NULL };

void run_sharing_complete(struct run_sharing *o, const struct machine *machine, const char *name)
{
	if (o->domain && !o->socket)
		cli_fail(EXIT_USAGE, "--sharing-domain: goes with --sharing only");
	if (o->quiet && !o->domain)
		cli_fail(EXIT_USAGE, "--sharing-quiet: goes with --sharing-domain only; a VM "
				     "without one shares with nobody");
	if (o->template_name && !o->socket)
		cli_fail(EXIT_USAGE, "--template: goes with --sharing only, whose daemon has it");
	if (o->template_name && o->domain)
		cli_fail(EXIT_USAGE,
			 "--template, --sharing-domain: a VM over a template is in no domain, for "
			 "its frames stay its own; choose one");
	if (o->template_name && machine->backing_level != 1)
		cli_fail(EXIT_USAGE,
			 "--template: frames over a template are of 4 KiB; leave out --backing");
	if (!o->socket)
		return;
	o->backend = machine_backend_name(machine);
	snprintf(o->own_name, sizeof(o->own_name), "%d", (int)getpid());
	o->name = name ? name : o->own_name;
}

/* Asked for over @client. 0, or -errno; -EREMOTEIO: *answer says why. */
static int ask_template(const struct run_sharing *o, struct gn_client *client, cJSON **answer,
			int *fd)
{
	struct gn_json_writer w = { .text = NULL };
	int err;

	gn_json_begin_object(&w, NULL);
	gn_json_put_text(&w, "template", o->template_name);
	gn_json_put_text(&w, "name", o->name);
	gn_json_end_object(&w);
	err = gn_json_finish(&w);
	if (!err)
		err = gn_client_call(client, "get-template", w.text, ANSWER_MS, answer);
	gn_json_fini(&w);
	if (!err && gn_client_take_fds(client, fd, 1) != 1)
		err = -EPROTO;
	return err;
}

static const char *described(const cJSON *error)
{
	const cJSON *text = cJSON_GetObjectItemCaseSensitive(error, "desc");

	return cJSON_IsString(text) ? text->valuestring : "it gave no reason";
}

static void check_size(const struct run_sharing *o, uint64_t mem_bytes)
{
	char has[32], wanted[32];
	struct stat st;

	if (fstat(o->template_fd, &st))
		cli_fail(EXIT_CANNOT, "template %s: %s", o->template_name, strerror(errno));
	if ((uint64_t)st.st_size < mem_bytes)
		cli_fail(EXIT_USAGE,
			 "--mem %s: template %s has %s, and the guest can have no more memory than "
			 "that",
			 cli_format_bytes(mem_bytes, wanted, sizeof(wanted)), o->template_name,
			 cli_format_bytes((uint64_t)st.st_size, has, sizeof(has)));
}

void run_sharing_get_template(struct run_sharing *o, uint64_t mem_bytes)
{
	const struct gn_client_config config = { .path = o->socket };
	struct gn_client *client = NULL;
	cJSON *answer = NULL;
	int err;

	if (!o->template_name)
		return;
	err = gn_client_create(&config, &client);
	if (!err)
		err = ask_template(o, client, &answer, &o->template_fd);
	if (err == -EREMOTEIO)
		cli_fail(EXIT_CANNOT, "the daemon at %.120s does not give template %s: %s",
			 o->socket, o->template_name, described(answer));
	if (err)
		cli_fail(EXIT_CANNOT, "no daemon at %.120s gives template %s: %s", o->socket,
			 o->template_name, strerror(-err));
	cJSON_Delete(answer);
	gn_client_destroy(client);
	check_size(o, mem_bytes);
}

bool run_sharing_is_dirty(const struct run_sharing *sharing)
{
	return sharing && sharing->template_name;
}

void run_sharing_fini(struct run_sharing *o)
{
	if (o->template_name)
		close(o->template_fd);
}

void run_sharing_prepare(const struct run_sharing *sharing, struct gn_vm_config *config)
{
	if (sharing->domain)
		config->window_bytes = WINDOW_BYTES;
	if (sharing->template_name) {
		config->pool = GN_POOL_TEMPLATE;
		config->template_fd = sharing->template_fd;
	}
	/* With home frames a page is sealed elsewhere (sharing/agent_quiet.c). Of the pool's size only what is used is memory. */
	if (sharing->quiet && !strcmp(sharing->backend, "kvm"))
		config->pool_bytes = 2 * config->mem_bytes + gn_vm_tables_bytes(config->mem_bytes);
}

static bool await_registration(const struct gn_share_agent *agent)
{
	const struct timespec pause = { .tv_nsec = AWAIT_NS };
	const uint64_t end_ns = gn_now_ns() + ADMISSION_NS;

	while (!gn_share_agent_is_registered(agent) &&
	       !gn_share_agent_is_refused_as_not_quiet(agent) && gn_now_ns() < end_ns)
		nanosleep(&pause, NULL);
	return gn_share_agent_is_registered(agent);
}

int run_sharing_join(const struct run_sharing *sharing, const struct gn_vm_config *config,
		     struct gn_vm *vm, struct results_run *run, struct gn_share_agent **out)
{
	const struct gn_share_agent_config agent = { .socket = sharing->socket,
						     .name = sharing->name,
						     .group = sharing->domain,
						     .template_name = sharing->template_name,
						     .backend = sharing->backend,
						     .scheme = config->scheme,
						     .quiet = sharing->quiet,
						     .mem_bytes = config->mem_bytes,
						     .vm = vm };
	int err = gn_share_agent_create(&agent, out);

	if (!err)
		err = gn_share_agent_start(*out);
	if (!err && !await_registration(*out))
		err = -ETIMEDOUT;
	if (err == -ETIMEDOUT && gn_share_agent_is_refused_as_not_quiet(*out))
		snprintf(
			run->failure, sizeof(run->failure),
			"the daemon at %.120s does not take it: --sharing-quiet, and the domain %s "
			"is not quiet by its configuration (quiet = on)",
			sharing->socket, sharing->domain);
	else if (err)
		snprintf(run->failure, sizeof(run->failure), "no daemon at %.120s takes it: %s",
			 sharing->socket,
			 err == -ETIMEDOUT
				 ? "is one there, and does its configuration name this VM?"
				 : strerror(-err));
	return err;
}

uint64_t run_sharing_hypercall(void *ctx, uint64_t nr, uint64_t arg)
{
	if (nr != GN_GUEST_HYPERCALL_SHARE_HINT)
		return (uint64_t)-ENOSYS;
	return (uint64_t)(int64_t)gn_share_agent_hint(
		(struct gn_share_agent *)ctx, gfn(arg >> 12),
		(arg >> 2) % GN_GUEST_SHARE_HINT_MAX_PAGES + 1, (enum gn_share_hint)(arg & 3));
}

void run_sharing_print(const struct gn_share_agent_stats *s, FILE *to)
{
	char zeros[32], shared[32], sealed[32];

	fprintf(to,
		"sharing: %s of pages in shared frames at the end, %s of zeros given back; %" PRIu64
		" pages hashed in %" PRIu64 " sweeps, %" PRIu64 " merged, %.3f s of CPU time\n",
		cli_format_bytes(s->pages_sharing * GN_PAGE_SIZE, shared, sizeof(shared)),
		cli_format_bytes(s->zero_pages * GN_PAGE_SIZE, zeros, sizeof(zeros)),
		s->pages_scanned, s->full_scans, s->merged, (double)s->cpu_ns / 1e9);
	if (s->pages_sealed)
		fprintf(to, "sharing: quiet, %s of pages sealed at the end\n",
			cli_format_bytes(s->pages_sealed * GN_PAGE_SIZE, sealed, sizeof(sealed)));
}
