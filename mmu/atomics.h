/* SPDX-License-Identifier: MIT */
/*
 * atomics.h - C17 atomics, spelled so that a C++ compiler can read our headers too.
 */
#ifndef GN_MMU_ATOMICS_H
#define GN_MMU_ATOMICS_H

#ifdef __cplusplus
#include <atomic>
#define _Atomic(T) std::atomic<T>
using std::atomic_load_explicit;
using std::atomic_store_explicit;
using std::memory_order_acquire;
using std::memory_order_relaxed;
#else
#include <stdatomic.h>
#endif

#endif
