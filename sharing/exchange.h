/* SPDX-License-Identifier: MIT */
/*
 * exchange.h - the memory over which one VM and gnomon-shared speak of pages: three rings and a few pages.
 *
 *     offers    VM to daemon: this page has this tag
 *     orders    daemon to VM: show a page, merge one into a frame, split a block, let a segment go
 *     answers   VM to daemon: how an order went; frames that are no longer used
 *     slots     pages into which the VM copies what it was asked to show
 *
 * The daemon makes it, a memfd of fixed size (sealed), and the VM has it by the control socket. Neither believes the
 * other: a side keeps its own positions to itself and only publishes them, reads the other's once and holds it against
 * the ring's size, and takes a record by one copy, word by word, before it looks at it. So whatever the other side
 * writes, and whenever, a record is some 32 bytes, and what they mean is checked by who takes them.
 *
 * One thread a side. Nothing here sleeps or wakes; whoever put something kicks the other side (link.h).
 */
#ifndef GN_SHARING_EXCHANGE_H
#define GN_SHARING_EXCHANGE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define GN_EXCHANGE_KEY_BYTES 32
#define GN_EXCHANGE_SLOTS     32

enum gn_exchange_ring {
	GN_EXCHANGE_OFFERS,
	GN_EXCHANGE_ORDERS,
	GN_EXCHANGE_ANSWERS,
	GN_EXCHANGE_RINGS,
};
#define GN_EXCHANGE_OFFERS_MAX	4096 /* records of each ring */
#define GN_EXCHANGE_ORDERS_MAX	1024
#define GN_EXCHANGE_ANSWERS_MAX 2048

/* The records. What is unused is zero. */
#define GN_EXCHANGE_RECORD_BYTES 32

enum gn_offer_kind {
	GN_OFFER_PAGE,		  /* one that may be shown and merged */
	GN_OFFER_IN_BLOCK,	  /* of a large block: to be counted */
	GN_OFFER_ZEROES_IN_BLOCK, /* the same, of zeros and without a tag */
};
struct gn_exchange_offer {
	uint64_t gfn;
	uint64_t tag;  /* struct gn_tag's bits */
	uint8_t check; /* and check */
	uint8_t kind;
	uint8_t unused[14];
};

enum gn_order_kind {
	GN_ORDER_SHOW =
		1, /* copy gfn into slot, if its tag's bits are `frame`: nothing else is the domain's business */
	GN_ORDER_MERGE,	  /* merge gfn into frame */
	GN_ORDER_REOFFER, /* offer gfn again if it is still what it was */
	GN_ORDER_DETACH,  /* the segment that begins at frame is no more: unmap it */
	GN_ORDER_SPLIT, /* many pages of the block that begins at gfn have their like: offer them as pages */
};
struct gn_exchange_order {
	uint32_t kind, number; /* number: comes back with the answer */
	uint64_t gfn, frame;
	uint32_t slot, unused;
};

enum gn_answer_kind {
	GN_ANSWER_DONE = 1, /* the order `number` came to `result`: 0 or -errno */
	GN_ANSWER_RETURNED, /* the VM uses `frame` no longer */
};
struct gn_exchange_answer {
	uint32_t kind, number;
	int32_t result;
	uint32_t unused_half;
	uint64_t frame, unused;
};

struct gn_exchange;

/* The daemon's side. -ENOMEM, -errno. */
int gn_exchange_create(const uint8_t key[GN_EXCHANGE_KEY_BYTES], struct gn_exchange **out);
/* The VM's side, of the descriptor it was given, which stays the caller's. -EINVAL: it is no exchange of this kind, or
 * its size is not sealed. */
int gn_exchange_open(int fd, struct gn_exchange **out);
void gn_exchange_destroy(struct gn_exchange *exchange);

/* The daemon's only. */
int gn_exchange_fd(const struct gn_exchange *exchange);
/* The domain's key, as the daemon wrote it and the VM found it when it opened. */
const uint8_t *gn_exchange_key(const struct gn_exchange *exchange);
/* The page of @slot. The other side may write it at any time: copy, then look. */
void *gn_exchange_slot(struct gn_exchange *exchange, unsigned slot);

/* @record: GN_EXCHANGE_RECORD_BYTES. Put: 0, or -EAGAIN when the ring is full. Take: 1, or 0 when it is empty. Either:
 * -EPROTO, the other side's position makes no sense; it is to be given up. */
int gn_exchange_put(struct gn_exchange *exchange, enum gn_exchange_ring ring, const void *record);
int gn_exchange_take(struct gn_exchange *exchange, enum gn_exchange_ring ring, void *record);

/* How many more may be put, as far as the other side's position makes sense. */
uint32_t gn_exchange_room(const struct gn_exchange *exchange, enum gn_exchange_ring ring);

#ifdef __cplusplus
}
#endif

#endif
