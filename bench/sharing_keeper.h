/* SPDX-License-Identifier: MIT */
/*
 * sharing_keeper.h - a thread that goes on scanning a rig's first domain, as a daemon's agent does: a sweep each half second, and
 * every few milliseconds what is left to do.
 */
#ifndef GN_BENCH_SHARING_KEEPER_H
#define GN_BENCH_SHARING_KEEPER_H

#include "sharing_rig.h"

struct sharing_keeper;

/* -errno of pthread_create(), -ENOMEM. */
int sharing_keeper_start(struct sharing_rig *rig, struct sharing_keeper **out);
/* Its first error. NULL: 0. */
int sharing_keeper_stop(struct sharing_keeper *keeper);

#endif
