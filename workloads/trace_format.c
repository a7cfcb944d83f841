/* SPDX-License-Identifier: MIT */
/*
 * trace_format.c - which fields a kind of record has, and what they may hold.
 *
 * Writer and reader share this one table: what cannot be written is refused when read, so replay code
 * never meets a load of zero bytes or an unknown p2m state.
 */
#include "trace_format.h"

#include <stdarg.h>
#include <stdio.h>

#include <gnomon/engine.h>

static const struct trace_kind_desc kinds[TRACE_KINDS] = {
	[TRACE_LOAD] = { "load", true, false, 1, TRACE_ACCESS_MAX },
	[TRACE_STORE] = { "store", true, false, 1, TRACE_ACCESS_MAX },
	[TRACE_MODIFY] = { "modify", true, false, 1, TRACE_ACCESS_MAX },
	[TRACE_FETCH] = { "fetch", true, false, 0, UINT32_MAX },
	[TRACE_MMAP] = { "mmap", true, true, 0, GN_RWX },
	[TRACE_MUNMAP] = { "munmap", true, true, 0, 0 },
	[TRACE_MPROTECT] = { "mprotect", true, true, 0, GN_RWX },
	[TRACE_BRK] = { "brk", true, false, 0, 0 },
	[TRACE_MARK] = { "mark", false, true, 0, 0 },
	[TRACE_CR3] = { "cr3", false, true, 0, 0 },
	[TRACE_CR] = { "cr", true, true, 0, 0 },
	[TRACE_INVLPG] = { "invlpg", true, false, 0, 0 },
	[TRACE_INVPCID] = { "invpcid", true, true, 0, 3 },
	[TRACE_TABLE_WRITE] = { "table_write", true, true, 0, GN_MAX_LEVELS },
	[TRACE_P2M] = { "p2m", true, true, 0, GN_P2M_STATES - 1 },
};

const struct trace_kind_desc *trace_kind_desc(unsigned kind)
{
	return kind > TRACE_NONE && kind < TRACE_KINDS ? &kinds[kind] : NULL;
}

static const char *range_flaw(uint64_t start, uint64_t bytes)
{
	if ((start | bytes) & (GN_PAGE_SIZE - 1))
		return "a mapping that is not made of whole pages";
	if (bytes == 0 || start + bytes - 1 < start)
		return "a mapping that is empty or wraps around";
	return NULL;
}

static const char *fields_flaw(const struct trace_record *r)
{
	switch ((enum trace_kind)r->kind) {
	case TRACE_LOAD:
	case TRACE_STORE:
	case TRACE_MODIFY:
		return r->address + r->size - 1 < r->address ? "an access that wraps around" : NULL;
	case TRACE_FETCH:
		return r->address % TRACE_LINE_BYTES ? "a fetch not of a line's start" : NULL;
	case TRACE_MMAP:
	case TRACE_MUNMAP:
	case TRACE_MPROTECT:
		return range_flaw(r->address, r->value);
	case TRACE_CR:
		return r->address == 0 || r->address == 4 || r->address == 0xc0000080
			       ? NULL
			       : "a control register other than CR0, CR4 and EFER";
	case TRACE_TABLE_WRITE:
		return r->address % 8 ? "a table entry not at a multiple of 8" : NULL;
	case TRACE_P2M:
		return r->value == 0 || r->address + r->value - 1 < r->address
			       ? "a p2m range that is empty or wraps around"
			       : NULL;
	default:
		return NULL;
	}
}

const char *trace_record_flaw(const struct trace_record *r)
{
	const struct trace_kind_desc *desc = trace_kind_desc(r->kind);

	if (!desc)
		return "an unknown kind of record";
	if (r->size < desc->size_min || r->size > desc->size_max)
		return "a size that its kind does not have";
	if ((!desc->has_address && r->address) || (!desc->has_value && r->value))
		return "a field that its kind does not have";
	return fields_flaw(r);
}

int trace_fail(struct trace_error *error, int code, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(error->text, sizeof(error->text), format, args);
	va_end(args);
	return code;
}
