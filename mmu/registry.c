/* SPDX-License-Identifier: MIT */
/*
 * registry.c - schemes by name.
 *
 * A list of pointers, filled before the first VM and only read afterwards; hence no lock. An
 * embedder that wants one scheme registers one, and the linker leaves out the others.
 */
#include <errno.h>
#include <string.h>

#include "scheme.h"

#define SCHEMES_MAX 32

static const struct gn_scheme_ops *schemes[SCHEMES_MAX];
static unsigned scheme_count;

int gn_scheme_register(const struct gn_scheme_ops *ops)
{
	if (!ops || !ops->name || !ops->vm_init || !ops->vm_fini || !ops->vcpu_init ||
	    !ops->load_root)
		return -EINVAL;
	if (gn_scheme_find(ops->name))
		return -EEXIST;
	if (scheme_count == SCHEMES_MAX)
		return -ENOSPC;
	schemes[scheme_count++] = ops;
	return 0;
}

const struct gn_scheme_ops *gn_scheme_find(const char *name)
{
	for (unsigned i = 0; name && i < scheme_count; i++)
		if (!strcmp(schemes[i]->name, name))
			return schemes[i];
	return NULL;
}

const struct gn_scheme_ops *gn_scheme_at(unsigned index)
{
	return index < scheme_count ? schemes[index] : NULL;
}

const char *gn_scheme_name(const struct gn_scheme_ops *ops)
{
	return ops->name;
}

const char *gn_scheme_summary(const struct gn_scheme_ops *ops)
{
	return ops->summary ? ops->summary : "";
}

bool gn_scheme_keeps_tables(const struct gn_scheme_ops *ops)
{
	return ops->keeps_tables;
}
