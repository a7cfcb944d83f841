/* SPDX-License-Identifier: MIT */
/*
 * user.h - the user part's files to each other.
 */
#ifndef GN_WORKLOADS_GUEST_USER_H
#define GN_WORKLOADS_GUEST_USER_H

#include "calls.h"

/* One system call; results come back in @args too. */
uint64_t guest_user_call(enum guest_call number, struct guest_call_args *args);

#endif
