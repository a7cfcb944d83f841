/* SPDX-License-Identifier: MIT */
/*
 * daemon_step.h - where the daemon can be told to die.
 *
 * A daemon that anything may kill at any moment is tested by killing it at every moment: with GN_DIE_AT=step[:count]
 * in its environment it kills itself with SIGKILL at the count-th passing of that step. Always compiled in: what is
 * tested is what is shipped, and who can set our environment can kill us anyway.
 */
#ifndef GN_BALLOON_DAEMON_STEP_H
#define GN_BALLOON_DAEMON_STEP_H

#ifdef __cplusplus
extern "C" {
#endif

/* Of each step that there is, its name; NULL past the last. */
const char *gn_daemon_step_at(unsigned index);
/* Pass the step @name. */
void gn_daemon_step(const char *name);

#ifdef __cplusplus
}
#endif

#endif
