/* SPDX-License-Identifier: MIT */
/*
 * exchange.c - how the exchange lies in memory.
 *
 * Positions run freely and wrap at 2^32; a ring's index is the position modulo its size. Each position has a cache line
 * of its own. The producer publishes `head` after the record (release), the consumer `tail` after it has copied the
 * record out (release); each acquires the other's.
 *
 * Records are copied by relaxed atomic words: the other side may write at the same time, and then the copy is torn, but
 * it is one copy, made once, whatever the compiler thinks.
 */
#include "exchange.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE_BYTES 4096u
#define LINE_BYTES 64u
#define MAGIC	   UINT64_C(0x676e6f6d6f6e0002) /* "gnomon", layout 2 */
#define WORDS	   (GN_EXCHANGE_RECORD_BYTES / 8)

struct record {
	_Atomic uint64_t words[WORDS];
};

struct ring_positions {
	_Alignas(LINE_BYTES) _Atomic uint32_t head; /* of the producer */
	_Alignas(LINE_BYTES) _Atomic uint32_t tail; /* of the consumer */
};

struct memory {
	uint64_t magic;
	uint8_t key[GN_EXCHANGE_KEY_BYTES];
	struct ring_positions positions[GN_EXCHANGE_RINGS];
	_Alignas(LINE_BYTES) struct record offers[GN_EXCHANGE_OFFERS_MAX];
	struct record orders[GN_EXCHANGE_ORDERS_MAX];
	struct record answers[GN_EXCHANGE_ANSWERS_MAX];
	_Alignas(PAGE_BYTES) uint8_t slots[GN_EXCHANGE_SLOTS][PAGE_BYTES];
};

_Static_assert(sizeof(struct gn_exchange_offer) == sizeof(struct record), "a record");
_Static_assert(sizeof(struct gn_exchange_order) == sizeof(struct record), "a record");
_Static_assert(sizeof(struct gn_exchange_answer) == sizeof(struct record), "a record");
_Static_assert(offsetof(struct memory, positions) == 64,
	       "both sides are built apart: this is wire");
_Static_assert(offsetof(struct memory, offers) == 64 + 3 * 128, "wire");
_Static_assert(offsetof(struct memory, slots) % PAGE_BYTES == 0, "wire");
_Static_assert(sizeof(struct memory) == 57 * PAGE_BYTES + GN_EXCHANGE_SLOTS * PAGE_BYTES, "wire");
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2 && ATOMIC_INT_LOCK_FREE == 2, "a lock is not shared");

static const uint32_t sizes[GN_EXCHANGE_RINGS] = {
	[GN_EXCHANGE_OFFERS] = GN_EXCHANGE_OFFERS_MAX,
	[GN_EXCHANGE_ORDERS] = GN_EXCHANGE_ORDERS_MAX,
	[GN_EXCHANGE_ANSWERS] = GN_EXCHANGE_ANSWERS_MAX,
};

struct gn_exchange {
	struct memory *memory;
	int fd; /* -1: the VM's side */
	uint8_t key[GN_EXCHANGE_KEY_BYTES];
	/* Ours of each ring, head or tail: a ring has one direction, so a side has only one of them. */
	uint32_t positions[GN_EXCHANGE_RINGS];
};

static struct record *record_at(struct memory *m, enum gn_exchange_ring ring, uint32_t position)
{
	struct record *const rings[] = { m->offers, m->orders, m->answers };

	return &rings[ring][position % sizes[ring]];
}

static int map(struct gn_exchange *x, int fd)
{
	void *at = mmap(NULL, sizeof(*x->memory), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (at == MAP_FAILED)
		return -errno;
	x->memory = at;
	return 0;
}

int gn_exchange_create(const uint8_t key[GN_EXCHANGE_KEY_BYTES], struct gn_exchange **out)
{
	struct gn_exchange *x = calloc(1, sizeof(*x));
	int err = 0;

	if (!x)
		return -ENOMEM;
	x->fd = memfd_create("gnomon-exchange", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (x->fd < 0 || ftruncate(x->fd, sizeof(*x->memory)) ||
	    fcntl(x->fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL))
		err = -errno;
	if (!err)
		err = map(x, x->fd);
	if (err) {
		gn_exchange_destroy(x);
		return err;
	}
	memcpy(x->key, key, sizeof(x->key));
	memcpy(x->memory->key, key, sizeof(x->key));
	x->memory->magic = MAGIC;
	*out = x;
	return 0;
}

int gn_exchange_open(int fd, struct gn_exchange **out)
{
	struct gn_exchange *x;
	struct stat status;
	int seals = fcntl(fd, F_GET_SEALS), err;

	if (seals < 0 || !(seals & F_SEAL_SHRINK) || fstat(fd, &status) ||
	    status.st_size != sizeof(*x->memory))
		return -EINVAL;
	x = calloc(1, sizeof(*x));
	if (!x)
		return -ENOMEM;
	x->fd = -1;
	err = map(x, fd);
	if (!err && x->memory->magic != MAGIC)
		err = -EINVAL;
	if (err) {
		gn_exchange_destroy(x);
		return err;
	}
	memcpy(x->key, x->memory->key, sizeof(x->key));
	*out = x;
	return 0;
}

void gn_exchange_destroy(struct gn_exchange *x)
{
	if (!x)
		return;
	if (x->memory)
		munmap(x->memory, sizeof(*x->memory));
	if (x->fd >= 0)
		close(x->fd);
	free(x);
}

int gn_exchange_fd(const struct gn_exchange *x)
{
	return x->fd;
}

const uint8_t *gn_exchange_key(const struct gn_exchange *x)
{
	return x->key;
}

void *gn_exchange_slot(struct gn_exchange *x, unsigned slot)
{
	return x->memory->slots[slot];
}

uint32_t gn_exchange_room(const struct gn_exchange *x, enum gn_exchange_ring ring)
{
	const _Atomic uint32_t *tail = &x->memory->positions[ring].tail;
	uint32_t queued = x->positions[ring] - atomic_load_explicit(tail, memory_order_relaxed);

	return queued > sizes[ring] ? 0 : sizes[ring] - queued;
}

int gn_exchange_put(struct gn_exchange *x, enum gn_exchange_ring ring, const void *record)
{
	struct ring_positions *p = &x->memory->positions[ring];
	uint32_t head = x->positions[ring];
	/* Acquires the consumer's release of tail: it has copied what we overwrite. */
	uint32_t queued = head - atomic_load_explicit(&p->tail, memory_order_acquire);
	struct record *to = record_at(x->memory, ring, head);
	uint64_t words[WORDS];

	if (queued > sizes[ring])
		return -EPROTO;
	if (queued == sizes[ring])
		return -EAGAIN;
	memcpy(words, record, sizeof(words));
	for (unsigned i = 0; i < WORDS; i++)
		atomic_store_explicit(&to->words[i], words[i], memory_order_relaxed);
	x->positions[ring] = head + 1;
	atomic_store_explicit(&p->head, head + 1, memory_order_release);
	return 0;
}

int gn_exchange_take(struct gn_exchange *x, enum gn_exchange_ring ring, void *record)
{
	struct ring_positions *p = &x->memory->positions[ring];
	uint32_t tail = x->positions[ring];
	/* Acquires the producer's release of head: the record is there. */
	uint32_t queued = atomic_load_explicit(&p->head, memory_order_acquire) - tail;
	struct record *from = record_at(x->memory, ring, tail);
	uint64_t words[WORDS];

	if (queued > sizes[ring])
		return -EPROTO;
	if (!queued)
		return 0;
	for (unsigned i = 0; i < WORDS; i++)
		words[i] = atomic_load_explicit(&from->words[i], memory_order_relaxed);
	memcpy(record, words, sizeof(words));
	x->positions[ring] = tail + 1;
	atomic_store_explicit(&p->tail, tail + 1, memory_order_release);
	return 1;
}
