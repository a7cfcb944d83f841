/* SPDX-License-Identifier: MIT */
/*
 * kernel_virtq.c - virtio over MMIO, and split virtqueues, as a driver sees them (OASIS virtio 1.2: 3.1, 4.2, 2.7).
 *
 * The registers are uncached memory in the direct map's manner. A queue is one frame: descriptors, available ring, used
 * ring. This kernel waits for each batch of buffers before it makes another, so descriptors are handed out from 0
 * for each batch and none is ever in doubt; only the statistics queue keeps a buffer with the device.
 *
 * A device that wants a reset, or does not answer, is not used again: what it holds stays with it.
 */
#include "kernel_state.h"

#define QUEUE_SIZE_MAX 128 /* rings and table fit into a frame */
#define WAIT_LOOKS     (1u << 20)

uint32_t k_virtio_read(const struct virtio *v, unsigned offset)
{
	return cpu_load32(k_va(v->mmio + offset));
}

void k_virtio_write(const struct virtio *v, unsigned offset, uint32_t value)
{
	cpu_store32(k_va(v->mmio + offset), value);
}

/* ---- 3.1: from reset to DRIVER_OK ------------------------------------------------------------------------------- */

static void map_registers(uint64_t mmio)
{
	pt_set(pt_slot(&k_now->init_mm, k_va(mmio), 1), mmio | X86_PTE_P | X86_PTE_W | X86_PTE_A |
								X86_PTE_D | X86_PTE_G | X86_PTE_NX |
								X86_PTE_PCD | X86_PTE_PWT);
}

static void add_status(const struct virtio *v, uint32_t bits)
{
	k_virtio_write(v, GN_VIRTIO_STATUS, k_virtio_read(v, GN_VIRTIO_STATUS) | bits);
}

static uint64_t offered(const struct virtio *v)
{
	uint64_t features = 0;

	for (unsigned half = 0; half < 2; half++) {
		k_virtio_write(v, GN_VIRTIO_DEVICE_FEATURES_SEL, half);
		features |= (uint64_t)k_virtio_read(v, GN_VIRTIO_DEVICE_FEATURES) << half * 32;
	}
	return features;
}

bool k_virtio_find(struct virtio *v, uint64_t mmio, uint32_t id)
{
	v->mmio = mmio;
	map_registers(mmio);
	if (k_virtio_read(v, GN_VIRTIO_MAGIC) != GN_VIRTIO_MAGIC_VALUE ||
	    k_virtio_read(v, GN_VIRTIO_VERSION) != GN_VIRTIO_MMIO_VERSION ||
	    k_virtio_read(v, GN_VIRTIO_DEVICE_ID) != id)
		return false;
	k_virtio_write(v, GN_VIRTIO_STATUS, 0);
	add_status(v, GN_VIRTIO_STATUS_ACKNOWLEDGE);
	add_status(v, GN_VIRTIO_STATUS_DRIVER);
	v->features = offered(v);
	return v->features & GN_VIRTIO_F_VERSION_1;
}

bool k_virtio_agree(struct virtio *v, uint64_t features)
{
	v->features &= features;
	for (unsigned half = 0; half < 2; half++) {
		k_virtio_write(v, GN_VIRTIO_DRIVER_FEATURES_SEL, half);
		k_virtio_write(v, GN_VIRTIO_DRIVER_FEATURES, (uint32_t)(v->features >> half * 32));
	}
	add_status(v, GN_VIRTIO_STATUS_FEATURES_OK);
	return k_virtio_read(v, GN_VIRTIO_STATUS) & GN_VIRTIO_STATUS_FEATURES_OK;
}

void k_virtio_start(struct virtio *v)
{
	add_status(v, GN_VIRTIO_STATUS_DRIVER_OK);
	v->is_ready = true;
}

void k_virtio_give_up(struct virtio *v)
{
	add_status(v, GN_VIRTIO_STATUS_FAILED);
	v->is_ready = false;
}

/* ---- 2.7: a queue -------------------------------------------------------------------------------------------------- */

static uint64_t avail_of(const struct virtq *q)
{
	return k_gpa(q->frame) + (uint64_t)q->size * sizeof(struct gn_virtq_desc);
}

static uint64_t used_of(const struct virtq *q)
{
	/* Head, ring, and the word of EVENT_IDX, which is there though not negotiated. */
	uint64_t end = avail_of(q) + sizeof(struct gn_virtq_avail) + 2 * (uint64_t)q->size + 2;

	return (end + GN_VIRTQ_USED_ALIGN - 1) & ~(uint64_t)(GN_VIRTQ_USED_ALIGN - 1);
}

static void write_address(const struct virtio *v, unsigned low, uint64_t pa)
{
	k_virtio_write(v, low, (uint32_t)pa);
	k_virtio_write(v, low + 4, (uint32_t)(pa >> 32));
}

bool k_virtq_make(const struct virtio *v, struct virtq *q, unsigned index)
{
	uint32_t most;

	k_virtio_write(v, GN_VIRTIO_QUEUE_SEL, index);
	most = k_virtio_read(v, GN_VIRTIO_QUEUE_NUM_MAX);
	if (!most)
		return false;
	*q = (struct virtq){ .index = (uint16_t)index,
			     .size = (uint16_t)(most < QUEUE_SIZE_MAX ? most : QUEUE_SIZE_MAX),
			     .frame = k_frame_alloc_cleared() };
	k_virtio_write(v, GN_VIRTIO_QUEUE_NUM, q->size);
	write_address(v, GN_VIRTIO_QUEUE_DESC_LOW, k_gpa(q->frame));
	write_address(v, GN_VIRTIO_QUEUE_DRIVER_LOW, avail_of(q));
	write_address(v, GN_VIRTIO_QUEUE_DEVICE_LOW, used_of(q));
	k_virtio_write(v, GN_VIRTIO_QUEUE_READY, 1);
	return k_virtio_read(v, GN_VIRTIO_QUEUE_READY) & 1;
}

void k_virtq_describe(const struct virtq *q, unsigned slot, const struct gn_virtq_desc *d)
{
	uint64_t at = k_va(k_gpa(q->frame)) + slot * sizeof(*d);

	cpu_store64(at, d->addr);
	cpu_store64(at + 8, d->len | (uint64_t)d->flags << 32 | (uint64_t)d->next << 48);
}

void k_virtq_offer(struct virtq *q, unsigned head)
{
	uint64_t at = k_va(avail_of(q)) + sizeof(struct gn_virtq_avail) +
		      2 * (uint64_t)(q->available % q->size);

	cpu_store8(at, (uint8_t)head);
	cpu_store8(at + 1, (uint8_t)(head >> 8));
	q->available++;
}

void k_virtq_kick(const struct virtio *v, const struct virtq *q)
{
	/* One store: flags, which are 0, and the index. x86 keeps the order of stores. */
	cpu_store32(k_va(avail_of(q)), (uint32_t)q->available << 16);
	k_virtio_write(v, GN_VIRTIO_QUEUE_NOTIFY, q->index);
}

uint16_t k_virtq_used(const struct virtq *q)
{
	return (uint16_t)(cpu_load32(k_va(used_of(q))) >> 16);
}

bool k_virtq_wait(struct virtio *v, const struct virtq *q)
{
	for (unsigned looks = 0; looks < WAIT_LOOKS; looks++) {
		if (k_virtq_used(q) == q->available)
			return true;
		if (k_virtio_read(v, GN_VIRTIO_STATUS) & GN_VIRTIO_STATUS_NEEDS_RESET)
			break;
	}
	k_virtio_give_up(v);
	return false;
}
