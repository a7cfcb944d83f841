/* SPDX-License-Identifier: MIT */
/*
 * trace_import.h - from what other recorders say to records.
 *
 * Recorders report each instruction and its operands. Here instructions become fetch records: one when
 * execution enters another 64-byte line (an instruction that crosses two lines makes two), which carries
 * how many instructions without a memory operand went before. So nothing that matters to translation is
 * lost, and a trace has about half the records that lackey has lines.
 */
#ifndef GN_WORKLOADS_TRACE_IMPORT_H
#define GN_WORKLOADS_TRACE_IMPORT_H

#include "trace_writer.h"

struct trace_import {
	struct trace_writer *writer;
	uint64_t limit;	 /* records to stop at; 0: none */
	bool is_full;	 /* the limit was reached: all that follows is ignored */
	uint64_t flawed; /* accesses that no record can hold, left out */

	uint64_t line;	     /* the line execution is in */
	uint32_t plain;	     /* instructions without operand since the last fetch record */
	bool in_instruction; /* one was begun ... */
	bool has_operand;    /* ... and accessed memory */
};

void trace_import_init(struct trace_import *import, struct trace_writer *writer, uint64_t limit);
/* An instruction of @bytes at @address begins. -errno of the writer. */
int trace_import_instruction(struct trace_import *import, uint64_t address, uint32_t bytes,
			     struct trace_error *error);
/* It accesses memory. @kind: TRACE_LOAD, TRACE_STORE or TRACE_MODIFY. */
int trace_import_access(struct trace_import *import, enum trace_kind kind, uint64_t address,
			uint32_t bytes, struct trace_error *error);

/* ---- valgrind --tool=lackey --trace-mem=yes -------------------------------------------------------- */

#define TRACE_LACKEY_LINE_MAX 256

/* Text in pieces of any size. Valgrind's own lines (==pid==) are skipped; a line that is neither is
 * counted, and the first is kept for the user. */
struct trace_lackey {
	struct trace_import import;
	uint64_t lines, bad_lines;
	uint64_t first_bad_line; /* its number, from 1 */
	bool ended_by_valgrind;	 /* the last line was valgrind's own: it saw the program end */
	char first_bad[80];
	char carry[TRACE_LACKEY_LINE_MAX]; /* a line whose end has not come yet */
	size_t carried;
};
void trace_lackey_init(struct trace_lackey *lackey, struct trace_writer *writer, uint64_t limit);
int trace_lackey_feed(struct trace_lackey *lackey, const char *text, size_t bytes,
		      struct trace_error *error);
/* The text ended: a line without its newline is torn, so counted as bad. */
void trace_lackey_end(struct trace_lackey *lackey);

/* ---- ChampSim ------------------------------------------------------------------------------------------ */

#define TRACE_CHAMPSIM_BYTES 64

/* struct input_instr of ChampSim's inc/trace_instruction.h: ip (8), is_branch, branch_taken (1 each),
 * destination registers (2), source registers (4), destination memory (2 x 8), source memory (4 x 8); an
 * address of 0 is none. Sizes of accesses are not in it: 1 byte is recorded, which crosses nothing. */
struct trace_champsim {
	struct trace_import import;
	uint64_t instructions;
	uint8_t carry[TRACE_CHAMPSIM_BYTES];
	size_t carried;
};
void trace_champsim_init(struct trace_champsim *champsim, struct trace_writer *writer,
			 uint64_t limit);
/* -EBADMSG: not ChampSim records; @error says at which byte and why. */
int trace_champsim_feed(struct trace_champsim *champsim, const uint8_t *bytes, size_t count,
			struct trace_error *error);
/* -EBADMSG: the last record is torn. */
int trace_champsim_end(struct trace_champsim *champsim, struct trace_error *error);

/* "xz", "gzip", "zstd", "bzip2" when @bytes start as such a file does; else NULL. */
const char *trace_compressed_by(const uint8_t *bytes, size_t count);

#endif
