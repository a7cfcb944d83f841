/* SPDX-License-Identifier: MIT */
/*
 * soft_cache_avx2.c - soft_cache.c once more, compiled for AVX2 (tests/CMakeLists.txt): sets in vectors of 32 bytes.
 */
#include "soft_cache.c"
