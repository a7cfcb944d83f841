/* SPDX-License-Identifier: MIT */
/*
 * sharing_guest.h - what a guest does while its memory is shared, on a thread of its own.
 *
 * An operation is 60 loads from pages anywhere and 4 stores to its hot pages. Pages of zeros are its free memory, which it
 * leaves alone. The same numbers drive it natively (for KSM) and on a software machine. What it loads is held against what should be there. With a pause between operations it is
 * what runs meanwhile; without one it measures what sharing costs it.
 */
#ifndef GN_BENCH_SHARING_GUEST_H
#define GN_BENCH_SHARING_GUEST_H

#include <gnomon/soft.h>

#include "sharing_contents.h"

/* Operations are counted in the phase that is set while they run. */
enum sharing_phase { SHARING_SCANNER_OFF, SHARING_SCANNER_ON, SHARING_NOT_COUNTED, SHARING_PHASES };

struct sharing_guest;

struct sharing_guest_config {
	const struct sharing_contents *contents;
	unsigned vm;
	uint64_t pause_ns;	 /* between operations */
	uint8_t *memory;	 /* native: of this VM */
	struct gn_soft_cpu *cpu; /* else; page N is at address N * 4 KiB */
};
/* It begins in SHARING_NOT_COUNTED. -ENOMEM, -errno of the thread. */
int sharing_guest_start(const struct sharing_guest_config *config, struct sharing_guest **out);
/* It takes effect with the next operation. */
void sharing_guest_set_phase(struct sharing_guest *guest, enum sharing_phase phase);
/* Wait for its end. 0; -EBADMSG: it loaded what was not there; or what ended a software machine. NULL: 0. */
int sharing_guest_stop(struct sharing_guest *guest);
void sharing_guest_free(struct sharing_guest *guest);

struct sharing_guest_figures {
	double p50_ns, p99_ns; /* of an operation, wall time */
};
/* After it was stopped. */
void sharing_guest_figures(struct sharing_guest *guest, enum sharing_phase phase,
			   struct sharing_guest_figures *out);
/* The part of its throughput, operations for CPU time of its thread, that it loses in a turn with the scanner on, against those with it
 * off before and after: the mean over such turns, without the tenth that lost most and the tenth that lost least, and its standard
 * error. NAN: there are too few. After it was stopped. */
struct sharing_loss {
	double part, error;
};
struct sharing_loss sharing_guest_loss(const struct sharing_guest *guest);

#endif
