/* SPDX-License-Identifier: MIT */
/*
 * daemon_step.h - the steps at which gnomon-shared can be told to die (control/step.h).
 */
#ifndef GN_SHARING_DAEMON_STEP_H
#define GN_SHARING_DAEMON_STEP_H

#ifdef __cplusplus
extern "C" {
#endif

/* Of each step that there is, its name; NULL past the last. */
const char *gn_shared_step_at(unsigned index);

#ifdef __cplusplus
}
#endif

#endif
