/* SPDX-License-Identifier: MIT */
/*
 * fmt_npt.c - the nested-paging descriptors as objects, for code that takes a format as an argument.
 */
#include "fmt_npt.h"

_Static_assert(!(GN_NPT_SOFTWARE & GN_NPT_HARDWARE), "a software bit the hardware uses");

const struct gn_fmt gn_fmt_npt_4 = GN_FMT_NPT_4_INIT;
const struct gn_fmt gn_fmt_npt_5 = GN_FMT_NPT_5_INIT;
