/* SPDX-License-Identifier: MIT */
/*
 * balloon_device.c - any guest, to the balloon device; and a host that changes memory under it.
 *
 * An input is a program of one-byte operations with their arguments: register accesses of any width and place,
 * stores to guest memory, and what an honest driver does in one go (negotiate, set up queues, offer a chain), which
 * blind mutation would never find. All places are small numbers, so that rings, buffers and pages meet each other.
 *
 * Besides not crashing: after each input the pages the device says it holds are those that are ballooned and that
 * nobody else took; after a reset it holds none, and all memory is usable.
 *
 * One VM serves all inputs, and is put back between them.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <gnomon/balloon.h>

#include "support/bare_vm.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define PAGES	   32
#define QUEUE_SIZE 8
#define AVAIL_AT   0x100
#define USED_AT	   0x200

static struct gn_vm *vm;
static struct gn_balloon *balloon;
static bool is_taken[PAGES]; /* ballooned by the host's other hand */
static uint64_t now_ns, interrupts;

struct input {
	const uint8_t *at, *end;
};

static void require(bool truth)
{
	if (!truth)
		abort();
}

static uint64_t take(struct input *in, unsigned bytes)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < bytes && in->at < in->end; i++)
		value |= (uint64_t)*in->at++ << 8 * i;
	return value;
}

static void on_irq(void *ctx)
{
	(void)ctx;
	interrupts++;
}
static void on_event(void *ctx, unsigned events)
{
	(void)ctx;
	require(events != 0);
}
static void on_hint(void *ctx, gfn_t start, uint64_t count)
{
	(void)ctx;
	require(count && start.v < PAGES && count <= PAGES - start.v);
}
static uint64_t clock_ns(void *ctx)
{
	(void)ctx;
	return now_ns;
}

static void set_register(uint64_t offset, uint32_t value)
{
	gn_balloon_mmio_write(balloon, offset, 4, value);
}

/* ---- What a guest does ------------------------------------------------------------------------------------ */

static void raw_access(struct input *in)
{
	uint64_t offset = take(in, 2) % (GN_VIRTIO_MMIO_BYTES + 16);
	unsigned bytes = (unsigned)take(in, 1);

	if (bytes & 0x80)
		(void)gn_balloon_mmio_read(balloon, offset, bytes & 15);
	else
		gn_balloon_mmio_write(balloon, offset, bytes & 15, take(in, 8));
}

static void write_register(struct input *in)
{
	static const uint16_t registers[] = {
		GN_VIRTIO_DEVICE_FEATURES_SEL,
		GN_VIRTIO_DRIVER_FEATURES,
		GN_VIRTIO_DRIVER_FEATURES_SEL,
		GN_VIRTIO_QUEUE_SEL,
		GN_VIRTIO_QUEUE_NUM,
		GN_VIRTIO_QUEUE_READY,
		GN_VIRTIO_QUEUE_NOTIFY,
		GN_VIRTIO_INTERRUPT_ACK,
		GN_VIRTIO_STATUS,
		GN_VIRTIO_QUEUE_DESC_LOW,
		GN_VIRTIO_QUEUE_DESC_HIGH,
		GN_VIRTIO_QUEUE_DRIVER_LOW,
		GN_VIRTIO_QUEUE_DRIVER_HIGH,
		GN_VIRTIO_QUEUE_DEVICE_LOW,
		GN_VIRTIO_QUEUE_DEVICE_HIGH,
		GN_VIRTIO_SHM_SEL,
		GN_VIRTIO_CONFIG,
		GN_VIRTIO_CONFIG + 4,
		GN_VIRTIO_CONFIG + 8,
		GN_VIRTIO_CONFIG + 12,
	};
	uint64_t which = take(in, 1) % (sizeof(registers) / sizeof(registers[0]));

	set_register(registers[which], (uint32_t)take(in, 3));
}

static void negotiate(struct input *in)
{
	uint32_t features = (uint32_t)take(in, 1), status = GN_VIRTIO_STATUS_ACKNOWLEDGE;

	set_register(GN_VIRTIO_STATUS, 0);
	set_register(GN_VIRTIO_DRIVER_FEATURES_SEL, 1);
	set_register(GN_VIRTIO_DRIVER_FEATURES, 1);
	set_register(GN_VIRTIO_DRIVER_FEATURES_SEL, 0);
	set_register(GN_VIRTIO_DRIVER_FEATURES, (features & 0x3f) | 1);
	status |= GN_VIRTIO_STATUS_DRIVER | GN_VIRTIO_STATUS_FEATURES_OK;
	set_register(GN_VIRTIO_STATUS, status);
	if (features & 0x80)
		set_register(GN_VIRTIO_CONFIG + 12, features);
	for (uint32_t index = 0; index < GN_BALLOON_QUEUES; index++) {
		uint32_t at = index * GN_PAGE_SIZE;

		set_register(GN_VIRTIO_QUEUE_SEL, index);
		set_register(GN_VIRTIO_QUEUE_NUM, QUEUE_SIZE);
		set_register(GN_VIRTIO_QUEUE_DESC_LOW, at);
		set_register(GN_VIRTIO_QUEUE_DRIVER_LOW, at + AVAIL_AT);
		set_register(GN_VIRTIO_QUEUE_DEVICE_LOW, at + USED_AT);
		set_register(GN_VIRTIO_QUEUE_READY, 1);
	}
	if (!(features & 0x40))
		set_register(GN_VIRTIO_STATUS, status | GN_VIRTIO_STATUS_DRIVER_OK);
}

static void poke(struct input *in)
{
	uint64_t at = take(in, 3) % (PAGES * GN_PAGE_SIZE);
	uint8_t bytes[16];
	size_t count = take(in, 1) % sizeof(bytes);

	for (size_t i = 0; i < count; i++)
		bytes[i] = (uint8_t)take(in, 1);
	(void)gn_vm_write(vm, gpa(at), bytes, count);
}

/* Page numbers of one byte each, spread to the four that the device reads. */
static void poke_pfns(struct input *in)
{
	uint64_t at = (8 + take(in, 1) % 8) * GN_PAGE_SIZE;
	uint32_t pfns[32];
	size_t count = take(in, 1) % 32;

	for (size_t i = 0; i < count; i++)
		pfns[i] = (uint32_t)take(in, 1) % (PAGES + 4);
	(void)gn_vm_write(vm, gpa(at), pfns, count * sizeof(pfns[0]));
}

static void set_desc(struct input *in)
{
	uint64_t index = take(in, 1) % GN_BALLOON_QUEUES;
	uint64_t slot = take(in, 1) % QUEUE_SIZE;
	uint64_t at = (take(in, 1) % (PAGES + 2)) * GN_PAGE_SIZE + take(in, 1) % 8;
	uint16_t flags = (uint16_t)take(in, 1);
	struct gn_virtq_desc desc = { .addr = at,
				      .len = (uint32_t)take(in, 2) << (flags & 0x80 ? 4 : 0),
				      .flags = flags & 0x40 ? flags & 7 : flags & 3,
				      .next = (uint16_t)take(in, 1) % (QUEUE_SIZE + 1) };

	(void)gn_vm_write(vm, gpa(index * GN_PAGE_SIZE + slot * sizeof(desc)), &desc, sizeof(desc));
}

static void offer(struct input *in)
{
	uint64_t index = take(in, 1), queue = index % GN_BALLOON_QUEUES * GN_PAGE_SIZE;
	uint16_t head = (uint16_t)take(in, 1) % (QUEUE_SIZE + 1), idx = 0;

	(void)gn_vm_read(vm, gpa(queue + AVAIL_AT + 2), &idx, sizeof(idx));
	(void)gn_vm_write(vm, gpa(queue + AVAIL_AT + 4 + 2 * (idx % QUEUE_SIZE)), &head,
			  sizeof(head));
	idx++;
	(void)gn_vm_write(vm, gpa(queue + AVAIL_AT + 2), &idx, sizeof(idx));
	if (!(index & 0x80))
		set_register(GN_VIRTIO_QUEUE_NOTIFY, (uint32_t)(index % GN_BALLOON_QUEUES));
}

/* ---- What the host does --------------------------------------------------------------------------------------- */

static void change_page(struct input *in)
{
	uint64_t page = take(in, 1) % PAGES;

	switch (take(in, 1) % 5) {
	case 0:
		(void)gn_p2m_protect(vm, gfn(page), 1, true);
		break;
	case 1:
		(void)gn_p2m_protect(vm, gfn(page), 1, false);
		break;
	case 2:
		if (!gn_p2m_balloon(vm, gfn(page), 1))
			is_taken[page] = true;
		break;
	case 3:
		(void)gn_p2m_populate(vm, gfn(page), 1);
		break;
	default:
		(void)gn_p2m_discard(vm, gfn(page), 1);
	}
}

static void host(struct input *in)
{
	switch (take(in, 1) % 6) {
	case 0:
		gn_balloon_set_target(balloon, take(in, 1));
		break;
	case 1:
		(void)gn_balloon_request_stats(balloon);
		break;
	case 2:
		(void)gn_balloon_hint_start(balloon);
		break;
	case 3:
		(void)gn_balloon_hint_stop(balloon);
		break;
	case 4:
		(void)gn_balloon_hint_done(balloon);
		break;
	default:
		now_ns += take(in, 3) << 8;
	}
}

static void step(struct input *in)
{
	static void (*const operations[])(struct input *) = {
		raw_access, write_register, negotiate, poke,	    poke_pfns, set_desc,
		set_desc,   offer,	    offer,     change_page, host,
	};

	operations[take(in, 1) % (sizeof(operations) / sizeof(operations[0]))](in);
}

/* ---- Judgement ----------------------------------------------------------------------------------------------------- */

static uint64_t ballooned_by_device(void)
{
	uint64_t count = 0;

	for (uint64_t page = 0; page < PAGES; page++) {
		bool is_ballooned =
			gn_p2m_word_state(gn_p2m_get(&vm->p2m, gfn(page))) == GN_P2M_BALLOONED;

		require(is_ballooned || !is_taken[page]);
		count += is_ballooned && !is_taken[page];
	}
	return count;
}

static void judge(void)
{
	struct gn_balloon_stats s;
	const uint32_t known = (1u << GN_BALLOON_STATS_TAGS) - 1;

	gn_balloon_stats(balloon, &s);
	require(s.held_pages == ballooned_by_device());
	require(s.target_pages <= PAGES && !(s.claims_known & ~known));
	require(!!(s.status & GN_VIRTIO_STATUS_NEEDS_RESET) == (s.broken_why != NULL));
	require(s.interrupts == interrupts);
	set_register(GN_VIRTIO_STATUS, 0);
	require(gn_balloon_actual_pages(balloon) == 0 && ballooned_by_device() == 0);
}

/* All memory has its frame again, writable and zero. Frames stay where they can, for to take them away costs system calls. */
static void put_back(void)
{
	for (uint64_t page = 0; page < PAGES; page++) {
		if (is_taken[page])
			require(!gn_p2m_unballoon(vm, gfn(page), 1));
		if (gn_p2m_word_state(gn_p2m_get(&vm->p2m, gfn(page))) == GN_P2M_READONLY)
			require(!gn_p2m_protect(vm, gfn(page), 1, false));
	}
	memset(is_taken, 0, sizeof(is_taken));
	require(!gn_p2m_populate(vm, gfn(0), PAGES));
	gn_rcu_read_lock();
	for (uint64_t page = 0; page < PAGES; page++)
		memset(gn_p2m_pointer(vm, gfn_to_gpa(gfn(page))), 0, GN_PAGE_SIZE);
	gn_rcu_read_unlock();
	gn_balloon_set_target(balloon, 0);
}

static void create(void)
{
	const struct gn_balloon_config config = { .queue_size_max = 2 * QUEUE_SIZE,
						  .reserved_bytes = 2 * GN_PAGE_SIZE,
						  .churn_pages_per_s = 1000,
						  .churn_burst_pages = 200,
						  .churn_answer = GN_BALLOON_CHURN_IGNORE,
						  .now_ns = clock_ns,
						  .irq = on_irq,
						  .event = on_event,
						  .hint = on_hint };

	require(!bare_vm_new(PAGES * GN_PAGE_SIZE, 0, 0, &vm));
	require(!gn_balloon_create(vm, &config, &balloon));
	put_back();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, data + size };

	if (!vm)
		create();
	while (in.at < in.end)
		step(&in);
	judge();
	put_back();
	return 0;
}
