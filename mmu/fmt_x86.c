/* SPDX-License-Identifier: MIT */
/*
 * fmt_x86.c - the x86-64 descriptors as objects, for code that takes a format as an argument.
 */
#include "fmt_x86.h"

_Static_assert(!(GN_X86_SOFTWARE & GN_X86_HARDWARE), "a software bit the hardware uses");

const struct gn_fmt gn_fmt_x86_4 = GN_FMT_X86_4_INIT;
const struct gn_fmt gn_fmt_x86_5 = GN_FMT_X86_5_INIT;
