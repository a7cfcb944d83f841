/* SPDX-License-Identifier: MIT */
/*
 * fmt_ept.c - the EPT descriptors as objects, for code that takes a format as an argument.
 */
#include "fmt_ept.h"

_Static_assert(!(GN_EPT_SOFTWARE & GN_EPT_HARDWARE), "a software bit the hardware uses");

const struct gn_fmt gn_fmt_ept_4 = GN_FMT_EPT_4_INIT;
const struct gn_fmt gn_fmt_ept_5 = GN_FMT_EPT_5_INIT;
