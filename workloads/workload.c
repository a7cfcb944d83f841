/* SPDX-License-Identifier: MIT */
/*
 * workload.c - the list of all workloads: memory first, then operating system, the trace replayer last.
 */
#include "workload.h"

#include "list.h"

static const struct workload *const all[] = {
	&workload_sequential, &workload_stride,	     &workload_random,	   &workload_chase,
	&workload_hash,	      &workload_btree,	     &workload_bfs,	   &workload_transpose,
	&workload_kv,	      &workload_demand_zero, &workload_fork_exec,  &workload_cow,
	&workload_mmap_churn, &workload_mprotect_gc, &workload_ctx_switch, &workload_pipeline,
	&workload_build,      &workload_phases,	     &workload_trace,
};

const struct workload *workload_at(unsigned index)
{
	return index < sizeof(all) / sizeof(all[0]) ? all[index] : NULL;
}

/* Equal up to the end of @name, or up to the colon in it. */
static bool is_named(const struct workload *w, const char *name)
{
	const char *a = w->name;

	while (*a && *a == *name) {
		a++;
		name++;
	}
	return !*a && (!*name || (*name == ':' && w->kind == WORKLOAD_TRACE));
}

const struct workload *workload_find(const char *name)
{
	for (unsigned i = 0; workload_at(i); i++)
		if (is_named(workload_at(i), name))
			return workload_at(i);
	return NULL;
}
