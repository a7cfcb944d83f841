/* SPDX-License-Identifier: MIT */
/*
 * trace_reader.h - read a trace file, trusting nothing in it.
 *
 * Opening checks header, index and trailer: sizes, order, checksums, and that the parts fill the file
 * exactly. Each block is checked when it is read. An error is one line: file, byte, what is wrong, and
 * what would be right. Memory is bounded by the file's size (index, regions) and by one block, whatever
 * a hostile file claims about itself.
 *
 * Threads: a reader belongs to one thread.
 */
#ifndef GN_WORKLOADS_TRACE_READER_H
#define GN_WORKLOADS_TRACE_READER_H

#include "trace_format.h"

struct trace_reader;

/* -errno of the file; -EINVAL: not a trace, or of another version; -EBADMSG: torn or corrupt. */
int trace_reader_open(const char *path, struct trace_reader **out, struct trace_error *error);
/* A trace in memory, which must outlive the reader; @name stands in messages. */
int trace_reader_open_memory(const char *name, const void *bytes, size_t count,
			     struct trace_reader **out, struct trace_error *error);
/* As above, with every checksum taken as right, so that a fuzzer gets behind them. */
int trace_reader_open_unchecked(const char *name, const void *bytes, size_t count,
				struct trace_reader **out, struct trace_error *error);
void trace_reader_close(struct trace_reader *reader); /* NULL is fine */

const struct trace_info *trace_reader_info(const struct trace_reader *reader);
const char *trace_reader_provenance(const struct trace_reader *reader);
uint64_t trace_reader_file_bytes(const struct trace_reader *reader);
const struct trace_region *trace_reader_regions(const struct trace_reader *reader, size_t *count);

/* The next block's records, the reader's until the next call. *count = 0: the end, at which the totals
 * of the header have been checked too. -EBADMSG, -EIO. */
int trace_reader_next(struct trace_reader *reader, const struct trace_record **records,
		      size_t *count, struct trace_error *error);
/* Read and check all of the file at @path: 0, or the error that reading it would meet somewhere. */
int trace_reader_verify(const char *path, struct trace_error *error);
/* Go on with block @block (0: start over). -EINVAL past the last. */
int trace_reader_seek(struct trace_reader *reader, uint64_t block);

#endif
