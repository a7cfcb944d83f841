/* SPDX-License-Identifier: MIT */
/*
 * sharing_keeper.c - its loop.
 */
#include "sharing_keeper.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "control/clock.h"

#define SWEEP_NS ((uint64_t)500000000)
#define REST_NS	 5000000
#define SCAN_NS	 1000000

/* (c) const after start, (k) the keeper's thread only until it is stopped, (a) atomic. */
struct sharing_keeper {
	struct gn_domain *domain; /* (c) */
	pthread_t thread;
	_Atomic bool is_stopping; /* (a) */
	int err;		  /* (k) */
};

static void *run(void *ctx)
{
	struct sharing_keeper *k = ctx;
	uint64_t sweep_at_ns = gn_now_ns();
	bool done;

	while (!k->err && !atomic_load(&k->is_stopping)) {
		if (gn_now_ns() >= sweep_at_ns) {
			k->err = gn_domain_sweep(k->domain);
			sweep_at_ns += SWEEP_NS;
		}
		if (!k->err)
			k->err = gn_domain_scan(k->domain, SCAN_NS, &done);
		nanosleep(&(struct timespec){ 0, REST_NS }, NULL);
	}
	return NULL;
}

int sharing_keeper_start(struct sharing_rig *rig, struct sharing_keeper **out)
{
	struct sharing_keeper *k = calloc(1, sizeof(*k));
	int err;

	if (!k)
		return -ENOMEM;
	k->domain = rig->domains[0];
	err = -pthread_create(&k->thread, NULL, run, k);
	if (err)
		free(k);
	else
		*out = k;
	return err;
}

int sharing_keeper_stop(struct sharing_keeper *k)
{
	int err;

	if (!k)
		return 0;
	atomic_store(&k->is_stopping, true);
	pthread_join(k->thread, NULL);
	err = k->err;
	free(k);
	return err;
}
