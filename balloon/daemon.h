/* SPDX-License-Identifier: MIT */
/*
 * daemon.h - gnomon-balloond: who has how much memory.
 *
 * VM processes connect and register; reports come in, the policy (policy.h) decides, targets go out. One thread, one
 * event loop, and no state that matters: what a VM has is known by the VM, so a daemon that was killed learns all of
 * it from those that come back, and moves nothing until they had time to (settle).
 *
 * The one rule: no VM is told that it may have memory which another may still hold. gn_policy_round() keeps it for
 * what the daemon knows; the daemon keeps it for what is under way: a target is charged until the VM has confirmed
 * a later one (unconfirmed_bytes), a VM until its process is dead or has given its memory up, not only until its
 * connection ends (daemon_gone.c), and a newcomer waits while the daemon settles.
 */
#ifndef GN_BALLOON_DAEMON_H
#define GN_BALLOON_DAEMON_H

#include "daemon_config.h"
#include "daemon_trust.h"

#ifdef __cplusplus
extern "C" {
#endif

#define GN_DAEMON_RELEASE "0.1.0"

/* One registered VM. */
struct gn_daemon_vm {
	struct gn_peer *peer;	  /* NULL: lost (daemon_gone.c) */
	int process_fd;		  /* its process; -1: not known */
	struct gn_daemon *daemon; /* these three while it is lost */
	sd_event_source *death;
	struct gn_daemon_vm *next_lost;
	char name[64], backend[16], scheme[24];
	uint64_t id;
	pid_t pid; /* by the kernel's word */
	uint64_t mem_bytes, min_bytes, max_bytes;
	uint32_t shares;
	uint64_t actual_bytes, target_bytes;
	/* Targets are numbered; a report names the last one that the VM obeys. Until that is the last one told, it
	 * may be on its way to any of those before: unconfirmed_bytes is the largest. */
	uint64_t serial, confirmed_serial, unconfirmed_bytes;
	uint64_t active_bytes, recent_bytes; /* GN_POLICY_UNKNOWN until sampled */
	uint64_t guest_free_bytes, guest_available_bytes, asks_bytes;
	double refaults_per_s;
	uint64_t touches, reclaimed_bytes, reformed_blocks;
	bool claims_trusted;
	struct gn_trust trust;
	uint64_t deadline_ns;	 /* 0: nothing is due */
	uint64_t due_from_bytes; /* what it had when the deadline was set */
	bool is_late;
	uint64_t reported_ns;
	struct gn_policy_decision decision; /* of the last round */
	struct gn_metric *target_metric, *actual_metric, *active_metric, *reclaimed_metric,
		*reformed_metric;
};

struct gn_daemon {
	struct gn_base base;
	struct gn_daemon_config config;
	bool is_waiting; /* somebody lacks memory that has to arrive */
	struct gn_policy *policy;
	struct gn_policy *fresh_policy; /* of a configuration that is about to come into force */
	sd_event_source *period, *soon;
	bool is_soon; /* a round is planned ahead of its time; while it settles, the first of all */
	bool is_settling; /* no round has been made yet, for VMs have to have time to come back */
	uint64_t round_ns, stop_by_ns;
	uint64_t last_round_took_ns, longest_round_ns,
		costliest_round_ns; /* the last: of CPU time */
	struct gn_daemon_vm **vms;  /* with a connection */
	struct gn_daemon_vm *lost;  /* without one */
	struct gn_policy_vm *policy_vms;
	struct gn_policy_decision *decisions;
	size_t count, capacity;
	uint64_t next_id;
	struct gn_policy_host host;
	struct gn_daemon_sharing *sharing; /* NULL: no sharing daemon is configured */
	uint64_t rounds, early_rounds, failed_rounds, admitted, targets_told, lates, gones, asks;
};

extern const struct gn_base_ops gn_daemon_ops;

/* daemon_vm.c: the books. */
gn_command_fn gn_daemon_register;
int gn_daemon_on_event(void *daemon, struct gn_peer *, const char *name, const cJSON *data);
struct gn_daemon_vm *gn_daemon_find(struct gn_daemon *, const char *name);
/* What its registration was answered with, and what is its own, after any of it has changed. */
void gn_daemon_tell_settings(struct gn_daemon *, struct gn_daemon_vm *vm);
uint64_t gn_daemon_sum_min(const struct gn_daemon *);
/* Of the budget; and how far the reservations are above it, which VMs of an earlier daemon may bring about. */
uint64_t gn_daemon_unreserved(const struct gn_daemon *);
uint64_t gn_daemon_over_reserved(const struct gn_daemon *);
uint64_t gn_daemon_sum_actual(const struct gn_daemon *);
/* What there is to divide: the budget less what lost VMs may hold; and with what sharing saves. */
uint64_t gn_daemon_own_budget(const struct gn_daemon *);
uint64_t gn_daemon_budget(const struct gn_daemon *);
/* What the policy is to know of @vm. */
void gn_daemon_vm_describe(const struct gn_daemon_vm *vm, struct gn_policy_vm *out);

/* daemon_gone.c: leaving the books, and VMs whose connection ended while their process lives. */
gn_command_fn gn_daemon_unregister;
void gn_daemon_on_gone(void *daemon, struct gn_peer *);
void gn_daemon_vm_free(struct gn_daemon_vm *vm);
struct gn_daemon_vm *gn_daemon_find_lost(const struct gn_daemon *, const char *name);
/* It is back under another entry, or the daemon ends. */
void gn_daemon_drop_lost(struct gn_daemon *, struct gn_daemon_vm *vm);
/* Withheld for @vm, for all of them. */
uint64_t gn_daemon_lost_bytes_of(const struct gn_daemon_vm *vm);
uint64_t gn_daemon_lost_bytes(const struct gn_daemon *);

/* daemon_sharing.c: what a gnomon-shared saves. */
int gn_daemon_sharing_start(struct gn_daemon *);
void gn_daemon_sharing_stop(struct gn_daemon *);
/* What is so now; the answer is there in the next period. */
void gn_daemon_ask_sharing(struct gn_daemon *);
/* Less its reserve. */
uint64_t gn_daemon_saved_bytes(const struct gn_daemon *);

/* daemon_round.c: the rounds. */
int gn_daemon_rounds_start(struct gn_daemon *);
/* The next one of the period is a period from now. */
void gn_daemon_restart_period(struct gn_daemon *);
/* One round ahead of its time, very soon; many calls make one round. */
void gn_daemon_want_round(struct gn_daemon *);
/* Tell @vm its target. */
void gn_daemon_tell(struct gn_daemon *, struct gn_daemon_vm *vm, uint64_t target_bytes);

/* daemon_commands.c */
extern const struct gn_server_command gn_daemon_commands[];

/* daemon_metrics.c */
void gn_daemon_update_metrics(void *daemon);

#ifdef __cplusplus
}
#endif

#endif
