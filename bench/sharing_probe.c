/* SPDX-License-Identifier: MIT */
/*
 * sharing_probe.c - the list of probes.
 */
#include "sharing.h"

static const struct sharing_probe *const probes[] = {
	&sharing_probe_break, &sharing_probe_tax,    &sharing_probe_steady, &sharing_probe_fan_out,
	&sharing_probe_storm, &sharing_probe_timing, &sharing_probe_huge,
};

const struct sharing_probe *sharing_probe_at(unsigned index)
{
	return index < sizeof(probes) / sizeof(probes[0]) ? probes[index] : NULL;
}

int sharing_probe_contents(const struct sharing_results *r, uint64_t bytes, uint64_t quick_bytes,
			   struct sharing_contents *contents, struct sharing_oracle *oracle)
{
	int err = sharing_contents_init(contents, sharing_case_find("mixed"),
					r->setup.quick ? quick_bytes : bytes, r->setup.seed);

	if (!err)
		err = sharing_contents_oracle(contents, oracle);
	if (err)
		sharing_contents_fini(contents);
	return err;
}
