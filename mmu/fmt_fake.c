/* SPDX-License-Identifier: MIT */
/*
 * fmt_fake.c - the test format as an object. It is part of the library so that an embedder's own scheme
 * can be tested with it too.
 */
#include "fmt_fake.h"

const struct gn_fmt gn_fmt_fake = GN_FMT_FAKE_INIT;
