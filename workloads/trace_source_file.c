/* SPDX-License-Identifier: MIT */
/*
 * trace_source_file.c - the hosted source: a trace file through trace_reader.h.
 *
 * A stopped guest leaves its code by a jump, past every close. The open source therefore hangs on its
 * thread: the next open there, or the thread's end, closes it.
 */
#include "trace_source_file.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <gnomon/types.h>

#include "trace_pages.h"
#include "trace_reader.h"

/* What the guest kernel needs beside a program's own pages: its reserved range, tasks, page tables. */
#define KERNEL_BYTES	   ((uint64_t)8 << 20)
#define PAGES_PER_OVERHEAD 128
#define USER_PAGES_4_LEVEL ((uint64_t)1 << (47 - GN_PAGE_SHIFT))
#define USER_PAGES_5_LEVEL ((uint64_t)1 << (56 - GN_PAGE_SHIFT))

struct trace_source {
	struct trace_reader *reader;
	struct trace_region *regions;
	size_t region_count;
};

static pthread_key_t open_of_thread;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool have_key;
static _Thread_local struct trace_error message;

static void destroy(void *pointer)
{
	struct trace_source *source = pointer;

	if (!source)
		return;
	trace_reader_close(source->reader);
	free(source->regions);
	free(source);
}

static void make_key(void)
{
	have_key = pthread_key_create(&open_of_thread, destroy) == 0;
}

static int refuse(const char **why)
{
	*why = message.text;
	return -1;
}

static int check_memory(const struct workload_params *params, const struct trace_info *info)
{
	uint64_t needed = info->pages + info->pages / PAGES_PER_OVERHEAD;
	bool whole = params->size == 0 || params->size >= info->records;

	if (!whole || (needed < params->mem_bytes / GN_PAGE_SIZE &&
		       needed * GN_PAGE_SIZE + KERNEL_BYTES <= params->mem_bytes))
		return 0;
	return trace_fail(&message, -1,
			  "%s: touches %" PRIu64 " MiB, guest RAM is %" PRIu64
			  " MiB: give the guest %" PRIu64 " MiB at least",
			  params->argument, info->pages >> (20 - GN_PAGE_SHIFT),
			  params->mem_bytes >> 20,
			  (needed >> (20 - GN_PAGE_SHIFT)) + 1 + (KERNEL_BYTES >> 20));
}

static int copy_regions(struct trace_source *source, const struct workload_params *params)
{
	size_t count;
	const struct trace_region *regions = trace_reader_regions(source->reader, &count);
	uint64_t end = params->levels == 5 ? USER_PAGES_5_LEVEL : USER_PAGES_4_LEVEL;

	if (count && (regions[0].start_page == 0 || regions[count - 1].end_page >= end))
		return trace_fail(&message, -1,
				  "%s: touches address %#" PRIx64
				  ", which no user process of the guest can have",
				  params->argument,
				  regions[0].start_page == 0
					  ? 0
					  : (regions[count - 1].end_page - 1) << GN_PAGE_SHIFT);
	source->regions = malloc((count + 1) * sizeof(*regions));
	if (!source->regions)
		return trace_fail(&message, -1, "%s: no memory to read it", params->argument);
	memcpy(source->regions, regions, count * sizeof(*regions));
	source->region_count =
		trace_regions_coalesce(source->regions, count, TRACE_SOURCE_REGIONS_MAX);
	return 0;
}

int trace_source_new(const struct workload_params *params, struct trace_source **out,
		     const char **why)
{
	struct trace_source *source;

	if (!params->argument || !params->argument[0]) {
		trace_fail(&message, -1, "trace: no file given; name it as trace:FILE");
		return refuse(why);
	}
	source = calloc(1, sizeof(*source));
	if (!source) {
		trace_fail(&message, -1, "%s: no memory to read it", params->argument);
		return refuse(why);
	}
	if (trace_reader_open(params->argument, &source->reader, &message) ||
	    check_memory(params, trace_reader_info(source->reader)) ||
	    copy_regions(source, params)) {
		destroy(source);
		return refuse(why);
	}
	*out = source;
	return 0;
}

int trace_source_open(const struct workload_params *params, struct trace_source **out,
		      const char **why)
{
	struct trace_source *source;

	pthread_once(&once, make_key);
	if (have_key)
		trace_source_close(pthread_getspecific(open_of_thread));
	if (trace_source_new(params, &source, why))
		return -1;
	if (!have_key || pthread_setspecific(open_of_thread, source)) {
		destroy(source);
		trace_fail(&message, -1, "%s: no memory to read it", params->argument);
		return refuse(why);
	}
	*out = source;
	return 0;
}

void trace_source_close(struct trace_source *source)
{
	if (source && have_key && source == pthread_getspecific(open_of_thread))
		pthread_setspecific(open_of_thread, NULL);
	destroy(source);
}

const struct trace_info *trace_source_info(const struct trace_source *source)
{
	return trace_reader_info(source->reader);
}

const struct trace_region *trace_source_regions(const struct trace_source *source, size_t *count)
{
	*count = source->region_count;
	return source->regions;
}

int trace_source_next(struct trace_source *source, const struct trace_record **records,
		      size_t *count, const char **why)
{
	return trace_reader_next(source->reader, records, count, &message) ? refuse(why) : 0;
}
