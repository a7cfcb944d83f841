/* SPDX-License-Identifier: MIT */
/*
 * host.h - what the machine that ran a measurement is.
 *
 * Every field is text a person can read; an empty one is not known and left out of files.
 */
#ifndef GN_BENCH_HOST_H
#define GN_BENCH_HOST_H

#include <stdbool.h>
#include <stddef.h>

struct host_info {
	char cpu[128];
	char cpus[16];
	char memory[32];
	char kernel[160];
	char hypervisor[64];	 /* vendor the CPU names, or "none" */
	char kvm_module[64];	 /* "kvm_intel", "kvm_amd", ..., "none" */
	char nested_paging[160]; /* "yes (ept)", "no (npt=0)", "software (kvm_pvm ...)", "no" */
	char kvm_device[160];	 /* "usable", or why not */
	char thp[64], ksm[64];
	char gnomon[32], compiler[96];
};

void host_probe(struct host_info *host);
/* The text behind "@key:" in a file of such lines, as /proc has many. False: there is none. */
bool host_read_key(const char *path, const char *key, char *out, size_t bytes);

/* Field i for tables and files, from 0 until NULL: key in the file, title, and the text. */
struct host_field {
	const char *key, *title;
	size_t offset, bytes;
};
const struct host_field *host_field(unsigned i);

#endif
