/* SPDX-License-Identifier: MIT */
/*
 * host_cpu.h - has the host the instructions this room was compiled for?
 *
 * The room may be compiled for the CPU of the machine that builds it (GN_HOST_CPU). A program that is carried to a lesser
 * machine must say so, and not die of an instruction it does not know.
 */
#ifndef GN_SOFT_HOST_CPU_H
#define GN_SOFT_HOST_CPU_H

#include <stddef.h>

/* The first of them it lacks; NULL: it has all. */
static inline const char *gn_soft_host_lacks(void)
{
#ifdef __AVX2__
	if (!__builtin_cpu_supports("avx2"))
		return "AVX2";
	if (!__builtin_cpu_supports("fma"))
		return "FMA";
	if (!__builtin_cpu_supports("bmi"))
		return "BMI1";
	if (!__builtin_cpu_supports("bmi2"))
		return "BMI2";
#endif
	return NULL;
}

#endif
