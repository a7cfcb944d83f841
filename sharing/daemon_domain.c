/* SPDX-License-Identifier: MIT */
/*
 * daemon_domain.c - domains of several VMs, and the loop that serves their exchanges.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "control/step.h"
#include "daemon.h"

#define PAGE_BYTES  4096
#define RECORDS_MAX 512 /* of one VM in a turn */

static int make_broker(struct gn_shared *d, struct gn_broker **out)
{
	const struct gn_broker_config config = { .pool_bytes = d->config.pool_bytes,
						 .index_pages = d->config.index_bytes / PAGE_BYTES,
						 .is_dry = d->base.is_dry,
						 .step = gn_step_pass };

	return gn_broker_create(&config, out);
}

struct gn_shared_domain *gn_shared_domain_get(struct gn_shared *d, const char *name)
{
	struct gn_shared_domain *domain = d->domains;

	while (domain && strcmp(domain->name, name) != 0)
		domain = domain->next;
	if (domain)
		return domain;
	domain = calloc(1, sizeof(*domain));
	if (!domain || make_broker(d, &domain->broker)) {
		free(domain);
		return NULL;
	}
	snprintf(domain->name, sizeof(domain->name), "%s", name);
	domain->next = d->domains;
	d->domains = domain;
	return domain;
}

void gn_shared_domain_leave(struct gn_shared *d, struct gn_shared_domain *domain)
{
	struct gn_shared_domain **at = &d->domains;

	if (domain->vm_count)
		return;
	while (*at != domain)
		at = &(*at)->next;
	*at = domain->next;
	gn_broker_destroy(domain->broker);
	free(domain);
}

void gn_shared_domain_order(struct gn_shared *d, const struct gn_shared_domain *domain)
{
	for (struct gn_shared_vm *vm = d->vms; vm; vm = vm->next)
		if (vm->domain == domain && vm->peer && gn_broker_vm_take_kick(vm->broker_vm))
			/* Full means kicked already. */
			(void)eventfd_write(vm->vm_fd, 1);
}

/* What it says makes no sense: it is heard no more, and charged until its process is dead. */
static void give_up(struct gn_shared_vm *vm)
{
	struct gn_shared *d = vm->daemon;

	d->broken++;
	gn_json_put_text(gn_event_log_begin(d->base.log, "broken"), "vm", vm->name);
	gn_event_log_end(d->base.log);
	gn_peer_drop(vm->peer);
	sd_event_source_set_enabled(vm->kicks, SD_EVENT_OFF);
}

int gn_shared_on_kick(sd_event_source *source, int fd, uint32_t events, void *ctx)
{
	struct gn_shared_vm *vm = ctx;
	eventfd_t kicks;
	int count;

	(void)source;
	(void)events;
	if (!gn_shared_may_work(vm->daemon))
		return 0;
	/* Before looking, so that what comes later kicks again. Empty after all: nothing to see. */
	(void)eventfd_read(fd, &kicks);
	count = gn_broker_serve(vm->broker_vm, RECORDS_MAX);
	if (count < 0) {
		give_up(vm);
		return 0;
	}
	/* There may be more, which is looked at after the others' had their turn. */
	if (count == RECORDS_MAX)
		(void)eventfd_write(fd, 1);
	gn_shared_domain_order(vm->daemon, vm->domain);
	return 0;
}
