/* SPDX-License-Identifier: MIT */
/*
 * link.h - how VM and daemon wake each other: a pair of sockets, and a byte is a kick.
 *
 * Not an eventfd, for both sides would have one open file: who is hostile makes it blocking, and the other sleeps in it.
 */
#ifndef GN_SHARING_LINK_H
#define GN_SHARING_LINK_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

/* -errno. Both are closed on exec; what is sent to *ours brings no descriptors, where the kernel can refuse them. */
int gn_link_create(int *ours, int *theirs);
/* Wake the other side. Never waits: a link that is full has a kick in it. */
void gn_link_kick(int fd);
/* Take the kicks out that are there, and not for ever those that come meanwhile: then there are some left, and poll() says so. False: the other
 * side is gone. */
bool gn_link_drain(int fd);

#ifdef __cplusplus
}
#endif

#endif
