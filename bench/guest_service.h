/* SPDX-License-Identifier: MIT */
/*
 * guest_service.h - the VMM's side of the guest image: what it asks for, what it prints, how far it is.
 */
#ifndef GN_BENCH_GUEST_SERVICE_H
#define GN_BENCH_GUEST_SERVICE_H

#include <pthread.h>

#include <gnomon/kvm.h>

#include "balloon_vm.h"
#include "tsc.h"
#include "workloads/workload.h"

struct gn_share_agent;
struct trace_serve;

/* Of one guest; used by the thread that runs its vCPU. */
struct guest_service {
	const struct workload_params *params;
	struct gn_vm *vm;
	struct trace_serve *trace;
	struct gn_share_agent *sharer; /* NULL: nobody hears hypercalls */
	unsigned rest_ms,
		rested_ms; /* the guest idles after each phase; since the last one ended */
	/* The measured part: when it began (the counters were reset then) and ended, and what was counted in it. */
	bool has_begun, has_ended;
	struct tsc_stamp begin, end;
	struct gn_kvm_stats stats;
	struct gn_counters counters;
	struct gn_table_usage tables;
};
/* For struct gn_kvm_config; ctx is the struct guest_service. The console goes to stderr. */
gn_kvm_port_fn guest_service_port;
gn_kvm_console_fn guest_service_console;
void guest_service_fini(struct guest_service *service);

/* Calls @progress ten times a second from a thread of its own, and passes on the guest's refaults to @memory. Either may be
 * NULL. Without a thread there is neither, and that is all. */
struct guest_watcher {
	struct gn_vm *vm;
	struct balloon_vm *memory;
	void (*progress)(void *ctx, double done);
	void *ctx;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t ended;
	bool is_over, is_running;
};
void guest_watcher_begin(struct guest_watcher *watcher, struct gn_vm *vm, struct balloon_vm *memory,
			 void (*progress)(void *ctx, double done), void *ctx);
void guest_watcher_end(struct guest_watcher *watcher);

#endif
