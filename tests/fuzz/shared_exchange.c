/* SPDX-License-Identifier: MIT */
/*
 * shared_exchange.c - a VM that puts any bytes into its exchange, positions and slots too, and another that behaves. Whatever it
 * is, the broker's books are right, and what the other has merged is what it was.
 */
#include <stdint.h>

#include "support/fake_sharer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct gn_broker *broker;
static struct sharer good, hostile;

static void check(bool holds)
{
	if (!holds)
		abort();
}

static void set_up(void)
{
	const struct gn_broker_config config = { .pool_bytes = GN_SEGMENT_BYTES,
						 .index_pages = 1024 };

	check(!gn_broker_create(&config, &broker));
	check(!sharer_init(&good, broker, 0) && !sharer_init(&hostile, broker, 0));
	hostile.is_hostile = true;
	for (unsigned gfn = 0; gfn < 16; gfn++) {
		good.bytes[gfn] = hostile.bytes[gfn] = (uint8_t)gfn;
		sharer_offer(&good, gfn);
		sharer_offer(&hostile, gfn);
	}
}

/* Four bytes say where and how much, the rest is written there. */
static size_t write_anywhere(uint8_t *memory, size_t bytes, const uint8_t *data, size_t size)
{
	size_t at, count;

	if (size < 4)
		return size;
	at = (size_t)(data[0] | data[1] << 8 | (data[2] & 7) << 16) % bytes;
	count = data[3] % 40u;
	if (count > size - 4)
		count = size - 4;
	if (count > bytes - at)
		count = bytes - at;
	memcpy(memory + at, data + 4, count);
	return 4 + count;
}

static void turn(bool is_open)
{
	for (unsigned i = 0; is_open && i < 4; i++)
		sharer_obey(&hostile);
	(void)gn_broker_serve(hostile.vm, 64);
	check(gn_broker_serve(good.vm, 64) >= 0);
	gn_broker_vm_take_kick(hostile.vm);
	gn_broker_vm_take_kick(good.vm);
	while (sharer_obey(&good))
		;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const size_t bytes = (57 + GN_EXCHANGE_SLOTS) * 4096;
	char why[128];
	uint8_t *memory;

	set_up();
	memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
		      gn_broker_vm_exchange_fd(hostile.vm), 0);
	check(memory != MAP_FAILED);
	for (size_t at = 0; at < size;) {
		/* It obeys for a while, so that there are orders to lie about. */
		turn(at < size / 2);
		at += write_anywhere(memory, bytes, data + at, size - at);
	}
	turn(false);
	gn_broker_tidy(broker);
	check(!gn_broker_audit(broker, why, sizeof(why)));
	sharer_look(&good);
	check(!good.wrong);
	munmap(memory, bytes);
	hostile.is_deaf = true;
	sharer_die(&hostile, false);
	sharer_die(&good, false);
	check(!gn_broker_audit(broker, why, sizeof(why)));
	gn_broker_destroy(broker);
	return 0;
}
