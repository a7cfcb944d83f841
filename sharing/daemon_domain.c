/* SPDX-License-Identifier: MIT */
/*
 * daemon_domain.c - domains of several VMs: each is there as long as it has any.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/step.h"
#include "daemon.h"
#include "link.h"

#define PAGE_BYTES 4096

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
	domain->is_quiet = gn_shared_config_is_quiet(&d->config, name);
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
	gn_metrics_forget(d->base.metrics, "domain", domain->name);
	gn_broker_destroy(domain->broker);
	free(domain);
}

void gn_shared_domain_order(struct gn_shared *d, const struct gn_shared_domain *domain)
{
	for (struct gn_shared_vm *vm = d->vms; vm; vm = vm->next)
		if (vm->domain == domain && vm->peer && gn_broker_vm_take_kick(vm->broker_vm))
			gn_link_kick(vm->link_fd);
}
