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
 * namespace, or descriptors have run out): then nobody will ever know. */
int gn_process_open(pid_t pid);
/* False if it cannot be told. */
bool gn_process_is_dead(int fd);

#ifdef __cplusplus
}
#endif

#endif
