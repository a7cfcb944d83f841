/* SPDX-License-Identifier: MIT */
/*
 * step.h - where a daemon can be told to die.
 *
 * A daemon that anything may kill at any moment is tested by killing it at every moment: with GN_DIE_AT=step[:count]
 * in its environment it kills itself with SIGKILL at the count-th passing of that step. Always compiled in: what is
 * tested is what is shipped, and who can set our environment can kill us anyway. Each daemon lists its steps.
 */
#ifndef GN_CONTROL_STEP_H
#define GN_CONTROL_STEP_H

#ifdef __cplusplus
extern "C" {
#endif

/* Pass the step @name. */
void gn_step_pass(const char *name);

#ifdef __cplusplus
}
#endif

#endif
