/* SPDX-License-Identifier: MIT */
/*
 * trace_source_guest.c - the freestanding source: batches that the VMM puts into a buffer of ours.
 *
 * Whether the trace fits the guest is the VMM's to check, which knows the file. A failed call leaves the
 * reason where the run's result is told, so no text is given here.
 */
#include "trace_source.h"

#include <gnomon/guest.h>

#include "guest/trace_feed.h"
#include "guest/user.h"

#define BATCH_RECORDS 8192

struct trace_source {
	struct trace_info info;
	size_t region_count;
	struct trace_region regions[TRACE_SOURCE_REGIONS_MAX];
};

static struct trace_source the_source;
static union {
	struct trace_feed_head head;
	struct trace_record records[BATCH_RECORDS];
} buffer;

static int ask(enum gn_guest_trace what, uint64_t *result, const char **why)
{
	struct guest_call_args args = { { what, (uint64_t)&buffer, sizeof(buffer) } };

	*result = guest_user_call(GUEST_CALL_TRACE, &args);
	*why = NULL;
	return *result == GN_GUEST_TRACE_FAILED ? -1 : 0;
}

int trace_source_open(const struct workload_params *params, struct trace_source **out,
		      const char **why)
{
	struct trace_source *source = &the_source;
	const struct trace_region *from = (const struct trace_region *)(&buffer.head + 1);
	uint64_t bytes;

	(void)params;
	if (ask(GN_GUEST_TRACE_OPEN, &bytes, why))
		return -1;
	if (buffer.head.regions > TRACE_SOURCE_REGIONS_MAX)
		return workload_fail(why, "the trace has too many regions");
	source->info.flags = (uint32_t)buffer.head.flags;
	source->info.records = buffer.head.records;
	source->region_count = buffer.head.regions;
	for (size_t i = 0; i < source->region_count; i++)
		source->regions[i] = from[i];
	*out = source;
	return 0;
}

void trace_source_close(struct trace_source *source)
{
	(void)source;
}

const struct trace_info *trace_source_info(const struct trace_source *source)
{
	return &source->info;
}

const struct trace_region *trace_source_regions(const struct trace_source *source, size_t *count)
{
	*count = source->region_count;
	return source->regions;
}

int trace_source_next(struct trace_source *source, const struct trace_record **records,
		      size_t *count, const char **why)
{
	uint64_t result;

	(void)source;
	if (ask(GN_GUEST_TRACE_NEXT, &result, why))
		return -1;
	if (result > BATCH_RECORDS)
		return workload_fail(why, "the VMM gave more records than there is room for");
	*records = buffer.records;
	*count = result;
	return 0;
}
