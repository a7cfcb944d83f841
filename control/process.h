/* SPDX-License-Identifier: MIT */
/*
 * process.h - whether a peer's process lives, by a descriptor of it, so that a number that is used again deceives nobody.
 *
 * A connection that ends says nothing of what its process still holds: a process that is stopped, or too busy to read,
 * is dropped by the server and keeps all it has.
 */
#ifndef GN_CONTROL_PROCESS_H
#define GN_CONTROL_PROCESS_H

#include <stdbool.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A descriptor that becomes readable when the process dies, for the caller to close. -1: the kernel gives none (another pid
 * namespace, or descriptors have run out); the end of the connection must do for death then. */
int gn_process_open(pid_t pid);
/* False for -1. */
bool gn_process_lives(int fd);

#ifdef __cplusplus
}
#endif

#endif
