/* SPDX-License-Identifier: MIT */
/*
 * trace_writer.h - write a trace file: whole or not at all.
 *
 * Records go to a temporary file beside the destination, which takes the destination's name only in
 * trace_writer_commit(). Memory: two blocks, the index (32 bytes a block) and the set of pages.
 */
#ifndef GN_WORKLOADS_TRACE_WRITER_H
#define GN_WORKLOADS_TRACE_WRITER_H

#include "trace_format.h"

struct trace_writer;

/* @provenance: the command line, or where the trace comes from; cut at TRACE_PROVENANCE_MAX bytes.
 * -errno with the line in @error. */
int trace_writer_open(const char *path, enum trace_recorder recorder, const char *provenance,
		      struct trace_writer **out, struct trace_error *error);

/* -EINVAL: the record is flawed (@error says how), and the trace goes on without it. Any other error
 * is for good. */
int trace_writer_add(struct trace_writer *writer, const struct trace_record *record,
		     struct trace_error *error);

/* Executed instructions, as the recorder counts them. */
void trace_writer_add_instructions(struct trace_writer *writer, uint64_t count);
uint64_t trace_writer_records(const struct trace_writer *writer);
uint64_t
trace_writer_bytes(const struct trace_writer *writer); /* of finished blocks, in the file */

/* Finish the file, give it its name, free the writer - in every case. @flags: TRACE_FLAG_*. */
int trace_writer_commit(struct trace_writer *writer, uint32_t flags, struct trace_error *error);
/* Throw everything away; NULL is fine. */
void trace_writer_abort(struct trace_writer *writer);

#endif
