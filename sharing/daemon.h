/* SPDX-License-Identifier: MIT */
/*
 * daemon.h - gnomon-shared: which pages of many VM processes are equal, and what that may cost.
 *
 * Each VM process has an agent (agent.h), which scans its own guest. A VM that names no domain is one of its own and needs of
 * us only its share of the CPU budget. VMs of a domain that both they and our configuration name share through a broker
 * (broker.h), which this daemon feeds with what they put into their exchanges.
 *
 * No state matters: killed at any moment, the daemon leaves VMs with frames that live as long as they have them mapped, and that
 * nobody can write any more. The next daemon begins with nothing, and VMs come to it as new ones.
 *
 * A domain that the configuration calls quiet is told so to its VMs, whose agents then see to it that guests learn nothing of each other by
 * timing (agent_quiet.c). We cannot see whether they do, and need not: who does not tells its own guest what it could tell it anyway, and
 * what others' guests can notice is done by their own agents. But we take none that does not know what quiet is, and none that wants it
 * into a domain that is not.
 *
 * A VM is charged with frames until its process is dead or it has unregistered. A connection that ends says neither; such a VM
 * is *lost*: nothing more is taken from its exchange, nothing ordered, and its charges stay.
 *
 * VMs may begin with a memory image of ours, a template (daemon_template.c), again if both say so. What they make of it is their own: such
 * a VM is in no domain of several.
 *
 * One thread, one event loop.
 */
#ifndef GN_SHARING_DAEMON_H
#define GN_SHARING_DAEMON_H

#include "broker.h"
#include "daemon_config.h"

#ifdef __cplusplus
extern "C" {
#endif

#define GN_SHARED_RELEASE "0.1.0"

/* VMs that share; it is there as long as it has any. */
struct gn_shared_domain {
	char name[48];
	bool is_quiet; /* as those of its VMs that have a connection were told */
	struct gn_broker *broker;
	unsigned vm_count; /* lost ones too */
	struct gn_shared_domain *next;
};

struct gn_shared_vm {
	struct gn_shared *daemon;
	struct gn_shared_vm *next;
	struct gn_peer *peer; /* NULL: lost */
	char name[64], backend[16], scheme[24];
	char mechanism[16]; /* how its pages are merged */
	pid_t pid;	    /* by the kernel's word */
	int process_fd;	    /* -1: not known */
	sd_event_source *death;
	uint64_t mem_bytes;
	struct gn_shared_domain *domain; /* NULL: one of its own */
	struct gn_broker_vm *broker_vm;
	struct gn_shared_template *over; /* NULL: it began with zeros */
	bool wants_quiet;		 /* no domain that is not */
	int link_fd;			 /* link.h; -1: none */
	bool wants_turn;		 /* there may be more than was looked at */
	/* What it last told. */
	uint64_t pages_sharing, pages_shared, pages_unshared, pages_volatile, pages_sealed;
	uint64_t pages_scanned, full_scans, zero_pages, stock_pages, cpu_us;
};

struct gn_shared {
	struct gn_base base;
	struct gn_shared_config config;
	sd_event_source *period, *rest;
	int links_fd; /* an epoll of all VMs' links, so that all of them rest by one switch */
	sd_event_source *links;
	struct gn_shared_vm *vms; /* lost ones too */
	struct gn_shared_domain *domains;
	struct gn_shared_template *templates, *fresh_templates; /* fresh: not in force yet */
	unsigned vm_count;					/* with a connection */
	uint64_t told_ppm;					/* the share that VMs know */
	unsigned lost_count;
	/* Our own share of the budget: a bucket of CPU time. */
	int64_t tokens_ns;
	uint64_t refilled_ns;
	bool is_resting;
	uint64_t admitted, gones, broken, rests;
	/* Of VMs that are gone, so that sums never fall. */
	uint64_t gone_scanned, gone_zero_pages, gone_full_scans;
};

/* A dry run counts what could be shared and orders nothing. */
extern const struct gn_base_ops gn_shared_ops;

/* daemon_vm.c: the books. */
/* One with a connection; NULL: none has the name. */
struct gn_shared_vm *gn_shared_vm_find(const struct gn_shared *daemon, const char *name);
gn_command_fn gn_shared_register, gn_shared_unregister, gn_shared_get_segment;
int gn_shared_on_event(void *daemon, struct gn_peer *peer, const char *name, const cJSON *data);
void gn_shared_on_gone(void *daemon, struct gn_peer *peer);
/* Its process is dead, or the daemon ends. */
void gn_shared_forget(struct gn_shared_vm *vm);
/* VMs that the configuration names in their domain no more are let go; and all of a domain that became quiet, or ceased to be. */
void gn_shared_recheck(struct gn_shared *daemon);

/* daemon_domain.c: domains. */
/* The domain @name, made if need be. NULL: out of memory. */
struct gn_shared_domain *gn_shared_domain_get(struct gn_shared *daemon, const char *name);
/* One VM less; without any it is gone. */
void gn_shared_domain_leave(struct gn_shared *daemon, struct gn_shared_domain *domain);

/* daemon_template.c: templates. */
gn_command_fn gn_shared_get_template, gn_shared_query_templates;
/* Whether the files that @config names will do. -EINVAL, and @why. */
int gn_shared_templates_check(const void *config, char *why, size_t why_bytes);
/* Read those that are new or have changed, to be in force after _apply(), or dropped by _discard(). -errno, and @why. */
int gn_shared_templates_read(struct gn_shared *daemon, const struct gn_shared_config *config,
			     char *why, size_t why_bytes);
void gn_shared_templates_discard(struct gn_shared *daemon);
void gn_shared_templates_apply(struct gn_shared *daemon);
void gn_shared_templates_end(struct gn_shared *daemon);
/* By the configuration as it is; NULL: there is none. */
struct gn_shared_template *gn_shared_template_find(const struct gn_shared *daemon,
						   const char *name);
const char *gn_shared_template_name(const struct gn_shared_template *t);
/* Whether there is @name and it names @vm; else @reply says what is wrong. */
bool gn_shared_template_admits(const struct gn_shared *daemon, const char *name, const char *vm,
			       struct gn_reply *reply);
/* One VM more, or less, is over it. */
void gn_shared_template_join(struct gn_shared_template *t);
void gn_shared_template_leave(struct gn_shared *daemon, struct gn_shared_template *t);
void gn_shared_put_templates(struct gn_shared *daemon);

/* daemon_serve.c: what VMs put. */
/* Listen to the VM's link; and no more. -errno. */
int gn_shared_link(struct gn_shared_vm *vm);
void gn_shared_unlink(struct gn_shared_vm *vm);
int gn_shared_links_start(struct gn_shared *daemon);
void gn_shared_links_stop(struct gn_shared *daemon);
/* Tell what is to be ordered. */
void gn_shared_domain_order(struct gn_shared *daemon, const struct gn_shared_domain *domain);

/* daemon_budget.c: who may use how much CPU time. */
/* Parts per million of a core, of each VM and of the daemon. */
uint64_t gn_shared_share_ppm(const struct gn_shared *daemon);
/* Tell VMs if that has changed, or if @always. */
void gn_shared_tell_budget(struct gn_shared *daemon, bool always);
/* False: the budget is used up, and all VMs' kicks wait. */
bool gn_shared_may_work(struct gn_shared *daemon);
/* Charge what was used since @cpu_ns of this thread's clock. */
void gn_shared_charge(struct gn_shared *daemon, uint64_t cpu_ns);
int gn_shared_budget_start(struct gn_shared *daemon);

/* Of all domains; what is saved is what guests have beyond what there is. */
struct gn_shared_sums {
	struct gn_broker_stats brokers;
	uint64_t pages_shared, pages_sharing;	 /* KSM's: frames; pages beyond them */
	uint64_t pages_unshared, pages_volatile; /* KSM's */
	uint64_t pages_sealed;
	uint64_t pages_scanned, zero_pages, full_scans;
	uint64_t saved_bytes, lost_vms;
};
void gn_shared_sum(const struct gn_shared *daemon, struct gn_shared_sums *out);

extern const struct gn_server_command gn_shared_commands[];

void gn_shared_update_metrics(void *daemon);

#ifdef __cplusplus
}
#endif

#endif
