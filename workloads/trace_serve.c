/* SPDX-License-Identifier: MIT */
/*
 * trace_serve.c - a trace file in batches that fit a guest's buffer.
 *
 * A block of the file is larger than the buffer, so its records go out in pieces. What a guest asks for is not
 * trusted: an unknown request, a buffer too small or a batch before the opening are answered as failures.
 */
#include "trace_serve.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <gnomon/guest.h>

#include "guest/trace_feed.h"
#include "trace_source_file.h"

#define BUFFER_MAX ((uint64_t)4 << 20) /* a guest may ask for more, and gets no more */

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
	trace_source_close((*serve)->source);
	**serve = (struct trace_serve){ 0 };
	return trace_source_new(&room, &(*serve)->source, why) ? GN_GUEST_TRACE_FAILED : 0;
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

int trace_serve_call(struct trace_serve **serve, const struct workload_params *params,
		     struct gn_vm *vm)
{
	struct gn_guest_boot boot;
	const char *why = "no memory for the trace's buffer";
	uint64_t used = 0;
	void *buffer;
	int err = gn_vm_read(vm, gpa(GN_GUEST_BOOT_PA), &boot, sizeof(boot));

	if (err)
		return err;
	if (boot.trace_bytes > BUFFER_MAX)
		boot.trace_bytes = BUFFER_MAX;
	boot.call_result = GN_GUEST_TRACE_FAILED;
	buffer = calloc(1, boot.trace_bytes + 1);
	if (buffer)
		boot.call_result = trace_serve(serve, params, boot.reserved_bytes, boot.call_nr,
					       buffer, boot.trace_bytes, &why);
	if (boot.call_result != GN_GUEST_TRACE_FAILED)
		used = boot.call_nr == GN_GUEST_TRACE_NEXT
			       ? boot.call_result * sizeof(struct trace_record)
			       : boot.call_result;
	if (gn_vm_write(vm, gpa(boot.trace_pa), buffer, used)) {
		boot.call_result = GN_GUEST_TRACE_FAILED;
		why = "the guest's trace buffer is not in its RAM";
	}
	free(buffer);
	if (boot.call_result == GN_GUEST_TRACE_FAILED) {
		snprintf(boot.why, sizeof(boot.why), "%s", why);
		err = gn_vm_write(vm, gpa(GN_GUEST_BOOT_PA + offsetof(struct gn_guest_boot, why)),
				  boot.why, sizeof(boot.why));
	}
	if (!err)
		err = gn_vm_write(
			vm, gpa(GN_GUEST_BOOT_PA + offsetof(struct gn_guest_boot, call_result)),
			&boot.call_result, sizeof(boot.call_result));
	return err;
}

void trace_serve_close(struct trace_serve *serve)
{
	if (serve)
		trace_source_close(serve->source);
	free(serve);
}
