/* SPDX-License-Identifier: MIT */
/*
 * guest_boot.h - a boot page for the guest image, and sizes at which each workload is over soon even where the
 * guest's kernel is run by an instruction emulator.
 */
#ifndef GN_TESTS_GUEST_BOOT_H
#define GN_TESTS_GUEST_BOOT_H

#include <stdio.h>
#include <string.h>

#include <gnomon/guest.h>

#include "workloads/workload.h"

#define GUEST_RAM_BYTES ((uint64_t)64 << 20)

/* CPU features are left out: add those that are there. */
static inline struct gn_guest_boot guest_boot_for(const char *workload, uint64_t size)
{
	struct gn_guest_boot boot = { .magic = GN_GUEST_MAGIC,
				      .mem_bytes = GUEST_RAM_BYTES,
				      .user_start = gn_guest_image.user_start,
				      .reserved_bytes = gn_guest_image.reserved_bytes,
				      .levels = 4,
				      .size = size,
				      .seed = 5,
				      .vcpus = 1 };

	snprintf(boot.workload, sizeof(boot.workload), "%s", workload);
	return boot;
}

static inline uint64_t guest_tiny_size(const struct workload *w)
{
	static const struct {
		const char *name;
		uint64_t size;
	} own[] = {
		{ "demand-zero", 256 << 10 },
		{ "cow", 256 << 10 },
		{ "mprotect-gc", 64 << 10 },
		{ "mmap-churn", 20 },
		{ "fork-exec", 2 },
		{ "ctx-switch", 3 },
		{ "pipeline", 1 },
		{ "phases", 128 << 10 },
		{ "transpose", 256 << 10 },
	};

	for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++)
		if (!strcmp(w->name, own[i].name))
			return own[i].size;
	return w->kind == WORKLOAD_MEMORY && w->size_quick > (1 << 20) ? 1 << 20 : w->size_quick;
}

#endif
