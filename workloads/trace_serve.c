/* SPDX-License-Identifier: MIT */
/*
 * trace_serve.c - a trace file in batches that fit a guest's buffer.
 *
 * A block of the file is larger than the buffer, so its records go out in pieces. What a guest asks for is not
 * trusted: an unknown request, a buffer too small or a batch before the opening are answered as failures.
 */
#include "trace_serve.h"

#include <stdlib.h>
#include <string.h>

#include <gnomon/guest.h>

#include "guest/trace_feed.h"
#include "trace_source.h"

struct trace_serve {
	struct trace_source *source;
	const struct trace_record *records; /* of the block in hand, not yet given */
	size_t left;
};

static uint64_t refuse(const char **why, const char *text)
{
	*why = text;
	return GN_GUEST_TRACE_FAILED;
}

static uint64_t open_source(struct trace_serve **serve, const struct workload_params *params,
			    uint64_t reserved_bytes, const char **why)
{
	struct workload_params room = *params;

	room.mem_bytes -= reserved_bytes < room.mem_bytes ? reserved_bytes : room.mem_bytes;
	if (!*serve)
		*serve = calloc(1, sizeof(**serve));
	if (!*serve)
		return refuse(why, "no memory to read the trace");
	**serve = (struct trace_serve){ 0 };
	return trace_source_open(&room, &(*serve)->source, why) ? GN_GUEST_TRACE_FAILED : 0;
}

static uint64_t give_head(const struct trace_serve *serve, void *buffer, size_t bytes,
			  const char **why)
{
	const struct trace_info *info = trace_source_info(serve->source);
	size_t count, size;
	const struct trace_region *regions = trace_source_regions(serve->source, &count);
	const struct trace_feed_head head = { info->flags, info->records, count };

	size = sizeof(head) + count * sizeof(*regions);
	if (size > bytes)
		return refuse(why, "the guest's trace buffer is too small for the trace's regions");
	memcpy(buffer, &head, sizeof(head));
	memcpy((char *)buffer + sizeof(head), regions, count * sizeof(*regions));
	return size;
}

static uint64_t give_records(struct trace_serve *serve, void *buffer, size_t bytes,
			     const char **why)
{
	size_t count = bytes / sizeof(*serve->records);

	if (!serve || !serve->source)
		return refuse(why, "the guest asked for records before it opened the trace");
	if (!serve->left && trace_source_next(serve->source, &serve->records, &serve->left, why))
		return GN_GUEST_TRACE_FAILED;
	if (count > serve->left)
		count = serve->left;
	memcpy(buffer, serve->records, count * sizeof(*serve->records));
	serve->records += count;
	serve->left -= count;
	return count;
}

uint64_t trace_serve(struct trace_serve **serve, const struct workload_params *params,
		     uint64_t reserved_bytes, uint64_t what, void *buffer, size_t bytes,
		     const char **why)
{
	uint64_t failed;

	switch (what) {
	case GN_GUEST_TRACE_OPEN:
		failed = open_source(serve, params, reserved_bytes, why);
		return failed ? failed : give_head(*serve, buffer, bytes, why);
	case GN_GUEST_TRACE_NEXT:
		return give_records(*serve, buffer, bytes, why);
	default:
		return refuse(why, "the guest asked for a trace in a way that is not known");
	}
}

void trace_serve_close(struct trace_serve *serve)
{
	if (serve)
		trace_source_close(serve->source);
	free(serve);
}
