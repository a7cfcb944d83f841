/* SPDX-License-Identifier: MIT */
/*
 * trace_format.h - the trace file: what a program (or a whole guest) did to its memory, in order.
 *
 * A trace is a sequence of records. Four kinds are accesses (load, store, modify, fetch); the others are
 * what an operating system and a VMM do around them, which no public trace format carries: mappings, CR3
 * switches, invalidations, stores to page tables, and p2m changes. Addresses are guest virtual unless the
 * kind says otherwise. Virtual time is the record's position; wall-clock time is deliberately absent.
 *
 * Layout of a file; integers are little endian, offsets count from the file's start. Parts touch: there is
 * no byte that no checksum covers, so a torn, truncated or flipped file is always noticed.
 *
 *     offset      bytes  field
 *     ---- header ---------------------------------------------------------------------------------------
 *     0           8      magic "GNTRACE\n"
 *     8           4      version, 1
 *     12          4      flags, TRACE_FLAG_*
 *     16          4      provenance bytes P (at most TRACE_PROVENANCE_MAX), without the padding
 *     20          4      recorder, enum trace_recorder
 *     24          8      records in all
 *     32          8      blocks B
 *     40          8      index offset
 *     48          8      index bytes
 *     56          8      regions
 *     64          8      bytes of all blocks before compression
 *     72          8      distinct 4 KiB pages accessed
 *     80          8      distinct 2 MiB pages accessed
 *     88          8      instructions executed (0: not known)
 *     96          8 x 16 records by kind
 *     224         24     zero
 *     248         8      XXH64 of [0, 248), then with that as seed of the padded provenance
 *     256         P'     provenance: UTF-8 text, padded with zeros to a multiple of 8
 *     ---- blocks ---------------------------------------------------------------------------------------
 *     256+P'      ...    B zstd frames. Each holds up to TRACE_BLOCK_RECORDS encoded records and can be
 *                        decoded by itself (the predictors of trace_codec.h start anew)
 *     ---- index ----------------------------------------------------------------------------------------
 *     +0          32 x B per block: offset (8), XXH64 of the frame (8), frame bytes (4), bytes before
 *                        compression (4), records (4), zero (4)
 *     +32 x B     ...    regions, ascending: varint gap (pages since the last region's end), varint length
 *                        (pages), rights (1 byte, GN_R | GN_W | GN_X as seen in use)
 *     ---- trailer --------------------------------------------------------------------------------------
 *     end-40      8      magic "GNTREND\n"
 *     end-32      8      bytes of the whole file
 *     end-24      8      XXH64 of the index
 *     end-16      8      the header's checksum again: this end belongs to that beginning
 *     end-8       8      XXH64 of [end-40, end-8)
 */
#ifndef GN_WORKLOADS_TRACE_FORMAT_H
#define GN_WORKLOADS_TRACE_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TRACE_MAGIC	     "GNTRACE\n"
#define TRACE_END_MAGIC	     "GNTREND\n"
#define TRACE_VERSION	     1
#define TRACE_HEADER_BYTES   256
#define TRACE_INDEX_BYTES    32 /* of one block's entry */
#define TRACE_TRAILER_BYTES  40
#define TRACE_BLOCK_RECORDS  65536
#define TRACE_PROVENANCE_MAX 65536
#define TRACE_LINE_BYTES     64	  /* granularity of fetch records */
#define TRACE_ACCESS_MAX     4096 /* bytes of one load or store (XSAVE areas are the largest) */

/* Why there is less than the whole program in the file, and what else a reader should know. */
#define TRACE_FLAG_CUT	    1u /* recording stopped at a record limit or by the user */
#define TRACE_FLAG_MAPPINGS 2u /* mmap, munmap, brk records are complete; else see the regions */
#define TRACE_FLAGS_KNOWN   3u

enum trace_recorder { TRACE_BY_OTHER, TRACE_BY_LACKEY, TRACE_BY_CHAMPSIM, TRACE_RECORDERS };

enum trace_kind {
	TRACE_NONE,	/* never in a file */
	TRACE_LOAD,	/* address, size in bytes */
	TRACE_STORE,	/* address, size in bytes */
	TRACE_MODIFY,	/* load, then store, by one instruction: address, size in bytes */
	TRACE_FETCH,	/* execution enters the 64-byte line at address; size: instructions without
			      a memory operand that were executed since the last fetch record */
	TRACE_MMAP,	/* address, value: bytes, size: rights */
	TRACE_MUNMAP,	/* address, value: bytes */
	TRACE_MPROTECT, /* address, value: bytes, size: rights */
	TRACE_BRK,	/* address: the new end of the heap */
	TRACE_MARK,	/* value: the recorder's own (phase of a program, thread switch) */
	TRACE_CR3,	/* value written to CR3 */
	TRACE_CR,	/* address: 0, 4, or 0xc0000080 (EFER); value written */
	TRACE_INVLPG,	/* address */
	TRACE_INVPCID,	/* address, value: PCID, size: type */
	TRACE_TABLE_WRITE, /* address: guest physical, of the entry; value stored; size: level, 0 unknown */
	TRACE_P2M,	   /* address: first gfn, value: frames, size: the new enum gn_p2m_state */
	TRACE_KINDS
};

struct trace_record {
	uint64_t address;
	uint64_t value;
	uint32_t size;
	uint8_t kind; /* enum trace_kind */
};

/* What a record of a kind may hold. A field that a kind does not use is zero. */
struct trace_kind_desc {
	const char *name;
	bool has_address, has_value;
	uint32_t size_min, size_max;
};
const struct trace_kind_desc *trace_kind_desc(unsigned kind); /* NULL: no such kind */
/* NULL, or what is wrong with @record (static text). */
const char *trace_record_flaw(const struct trace_record *record);

/* Pages [start_page, end_page) that the trace accesses. Instruction pages and others are never in one
 * region; rights are the union of what the region's pages were used for. */
struct trace_region {
	uint64_t start_page, end_page;
	uint8_t rights; /* GN_R | GN_W | GN_X */
};

/* The header, decoded. */
struct trace_info {
	uint32_t flags;
	enum trace_recorder recorder;
	uint64_t records;
	uint64_t blocks;
	uint64_t regions;
	uint64_t encoded_bytes; /* before compression */
	uint64_t pages, large_pages;
	uint64_t instructions;
	uint64_t by_kind[TRACE_KINDS];
};

/* One line for the user: which file, where in it, what is wrong, what would be right. */
struct trace_error {
	char text[400];
};
__attribute__((format(printf, 3, 4))) int trace_fail(struct trace_error *error, int code,
						     const char *format, ...);

#endif
