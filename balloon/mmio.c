/* SPDX-License-Identifier: MIT */
/*
 * mmio.c - registers (virtio 1.2, 4.2.2), negotiation (3.1), the balloon's configuration space
 * (5.5.4).
 *
 * The order a driver has to keep is kept by the device: a step out of order is ignored and counted,
 * and the driver reads back that it did not happen. Features are settled at FEATURES_OK; a queue's
 * addresses while it is not ready; the poison before DRIVER_OK.
 *
 * MUST_TELL_HOST may be offered or not, but who refuses it is refused (5.5.3.2): a page in the
 * balloon cannot be used before the device was told, for it is not there.
 */
#include "device.h"

#include <errno.h>
#include <stddef.h>

#define DRIVER_STATUS                                                                              \
	(GN_VIRTIO_STATUS_ACKNOWLEDGE | GN_VIRTIO_STATUS_DRIVER | GN_VIRTIO_STATUS_DRIVER_OK |     \
	 GN_VIRTIO_STATUS_FEATURES_OK | GN_VIRTIO_STATUS_FAILED)
#define VENDOR_ID 0x4d4f4e47u /* "GNOM" */

static uint64_t offered(const struct gn_balloon *b)
{
	return b->config.features | GN_VIRTIO_F_VERSION_1;
}

/* The selected queue; NULL: there is none. */
static struct gn_vq *selected(struct gn_balloon *b)
{
	unsigned kind;

	return gn_balloon_queue_kind(b, b->queue_sel, &kind) ? &b->queues[kind] : NULL;
}

/* ---- Configuration space --------------------------------------------------------------------- */

static uint64_t config_read(struct gn_balloon *b, uint64_t offset, unsigned bytes)
{
	const uint32_t fields[] = {
		b->space.num_pages,
		b->space.actual,
		gn_balloon_has(b, GN_BALLOON_F_FREE_PAGE_HINT) ? b->space.free_page_hint_cmd_id : 0,
		gn_balloon_has(b, GN_BALLOON_F_PAGE_POISON) ? b->space.poison_val : 0,
	};
	uint64_t field;

	if ((bytes != 1 && bytes != 2 && bytes != 4) || offset % bytes ||
	    offset >= sizeof(fields)) {
		gn_balloon_fault(b, GN_BALLOON_FAULT_REGISTER);
		return 0;
	}
	field = fields[offset / sizeof(fields[0])] >> 8 * (offset % sizeof(fields[0]));
	return bytes == 4 ? field : field & (((uint64_t)1 << 8 * bytes) - 1);
}

static void config_write(struct gn_balloon *b, uint64_t offset, unsigned bytes, uint32_t value)
{
	bool may_set_poison = gn_balloon_has(b, GN_BALLOON_F_PAGE_POISON) &&
			      !(b->status & GN_VIRTIO_STATUS_DRIVER_OK);

	if (bytes == 4 && offset == offsetof(struct gn_virtio_balloon_config, actual)) {
		b->space.actual = value;
		b->outbox.events |= GN_BALLOON_EVENT_ACTUAL;
	} else if (bytes == 4 && may_set_poison &&
		   offset == offsetof(struct gn_virtio_balloon_config, poison_val)) {
		b->space.poison_val = value;
	} else {
		gn_balloon_fault(b, GN_BALLOON_FAULT_REGISTER);
	}
}

/* ---- Negotiation ----------------------------------------------------------------------------- */

static bool are_features_good(const struct gn_balloon *b)
{
	uint64_t must = GN_VIRTIO_F_VERSION_1 | (b->config.features & GN_BALLOON_F_MUST_TELL_HOST);

	return !(b->driver_features & ~offered(b)) && (b->driver_features & must) == must;
}

/* The next step of 3.1.1 may be taken. */
static bool may_step(struct gn_balloon *b, uint32_t before, uint32_t bit)
{
	if ((b->status & before) != before) {
		gn_balloon_fault(b, GN_BALLOON_FAULT_STATUS);
		return false;
	}
	if (bit == GN_VIRTIO_STATUS_FEATURES_OK && !are_features_good(b)) {
		gn_balloon_fault(b, GN_BALLOON_FAULT_FEATURES);
		return false;
	}
	return true;
}

/* Bits come one after the other and never go; @value: all of them, as the driver wants them. Steps
 * that come in one write are taken in their order. FAILED is no step: a driver may give up at any
 * time. */
static void set_status(struct gn_balloon *b, uint32_t value)
{
	static const uint32_t steps[] = { GN_VIRTIO_STATUS_ACKNOWLEDGE, GN_VIRTIO_STATUS_DRIVER,
					  GN_VIRTIO_STATUS_FEATURES_OK,
					  GN_VIRTIO_STATUS_DRIVER_OK };
	uint32_t now = b->status & DRIVER_STATUS, fresh = value & DRIVER_STATUS & ~now, before = 0;

	if ((value & now) != now) {
		gn_balloon_fault(b, GN_BALLOON_FAULT_STATUS);
		return;
	}
	b->status |= fresh & GN_VIRTIO_STATUS_FAILED;
	for (unsigned i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		if ((fresh & steps[i]) && may_step(b, before, steps[i])) {
			b->status |= steps[i];
			if (steps[i] == GN_VIRTIO_STATUS_DRIVER_OK)
				b->outbox.events |= GN_BALLOON_EVENT_READY;
		}
		before |= steps[i];
	}
}

static void set_driver_features(struct gn_balloon *b, uint32_t value)
{
	unsigned shift = b->driver_features_sel * 32;

	if (b->status & GN_VIRTIO_STATUS_FEATURES_OK) {
		gn_balloon_fault(b, GN_BALLOON_FAULT_REGISTER);
	} else if (b->driver_features_sel > 1) {
		if (value) /* features nobody has */
			gn_balloon_fault(b, GN_BALLOON_FAULT_REGISTER);
	} else {
		b->driver_features &= ~((uint64_t)UINT32_MAX << shift);
		b->driver_features |= (uint64_t)value << shift;
	}
}

/* ---- Queues ---------------------------------------------------------------------------------- */

static void set_half(gpa_t *address, bool high, uint32_t value)
{
	unsigned shift = high ? 32 : 0;

	address->v = (address->v & ~((uint64_t)UINT32_MAX << shift)) | (uint64_t)value << shift;
}

static void set_queue_ready(struct gn_balloon *b, struct gn_vq *vq, uint32_t value)
{
	if (value != 1 || vq->is_ready) { /* stopped: it begins anew */
		if (value == 0) {
			if (vq == &b->queues[GN_BALLOON_STATS])
				b->has_stats_buffer = false;
			vq->is_ready = false;
			vq->next_avail = vq->next_used = 0;
		} else if (value != 1) {
			gn_balloon_fault(b, GN_BALLOON_FAULT_QUEUE);
		}
		return;
	}
	if (gn_vq_check(vq, b->pages << GN_PAGE_SHIFT))
		gn_balloon_fault(b, GN_BALLOON_FAULT_QUEUE);
	else
		vq->is_ready = true;
}

/* Writes that describe the selected queue while it is not ready. */
static void set_queue(struct gn_balloon *b, uint64_t offset, uint32_t value)
{
	struct gn_vq *vq = selected(b);

	if (!vq || vq->is_ready) {
		gn_balloon_fault(b, GN_BALLOON_FAULT_REGISTER);
		return;
	}
	switch (offset) {
	case GN_VIRTIO_QUEUE_NUM:
		if (!value || value > b->config.queue_size_max || (value & (value - 1)))
			gn_balloon_fault(b, GN_BALLOON_FAULT_QUEUE);
		else
			vq->size = (uint16_t)value;
		break;
	case GN_VIRTIO_QUEUE_DESC_LOW:
	case GN_VIRTIO_QUEUE_DESC_HIGH:
		set_half(&vq->desc, offset == GN_VIRTIO_QUEUE_DESC_HIGH, value);
		break;
	case GN_VIRTIO_QUEUE_DRIVER_LOW:
	case GN_VIRTIO_QUEUE_DRIVER_HIGH:
		set_half(&vq->avail, offset == GN_VIRTIO_QUEUE_DRIVER_HIGH, value);
		break;
	default:
		set_half(&vq->used, offset == GN_VIRTIO_QUEUE_DEVICE_HIGH, value);
		break;
	}
}

static void notify(struct gn_balloon *b, uint32_t index)
{
	unsigned kind;

	b->stats.notifications++;
	if (gn_balloon_queue_kind(b, index, &kind))
		b->pending |= 1u << kind;
	else
		gn_balloon_fault(b, GN_BALLOON_FAULT_NOTIFY);
}

/* ---- Registers ------------------------------------------------------------------------------- */

static uint32_t register_read(struct gn_balloon *b, uint64_t offset)
{
	const struct gn_vq *vq;

	switch (offset) {
	case GN_VIRTIO_MAGIC:
		return GN_VIRTIO_MAGIC_VALUE;
	case GN_VIRTIO_VERSION:
		return GN_VIRTIO_MMIO_VERSION;
	case GN_VIRTIO_DEVICE_ID:
		return GN_VIRTIO_ID_BALLOON;
	case GN_VIRTIO_VENDOR_ID:
		return VENDOR_ID;
	case GN_VIRTIO_DEVICE_FEATURES:
		return b->device_features_sel > 1
			       ? 0
			       : (uint32_t)(offered(b) >> 32 * b->device_features_sel);
	case GN_VIRTIO_QUEUE_NUM_MAX:
		return selected(b) ? b->config.queue_size_max : 0;
	case GN_VIRTIO_QUEUE_READY:
		vq = selected(b);
		return vq && vq->is_ready;
	case GN_VIRTIO_INTERRUPT_STATUS:
		return b->interrupt_status;
	case GN_VIRTIO_STATUS:
		return b->status;
	case GN_VIRTIO_SHM_LEN_LOW: /* there is no shared memory: length and base are -1 */
	case GN_VIRTIO_SHM_LEN_HIGH:
	case GN_VIRTIO_SHM_BASE_LOW:
	case GN_VIRTIO_SHM_BASE_HIGH:
		return UINT32_MAX;
	case GN_VIRTIO_QUEUE_RESET:
		return 0;
	case GN_VIRTIO_CONFIG_GENERATION:
		return b->config_generation;
	default:
		gn_balloon_fault(b, GN_BALLOON_FAULT_REGISTER);
		return 0;
	}
}

static void register_write(struct gn_balloon *b, uint64_t offset, uint32_t value)
{
	struct gn_vq *vq;

	switch (offset) {
	case GN_VIRTIO_DEVICE_FEATURES_SEL:
		b->device_features_sel = value;
		break;
	case GN_VIRTIO_DRIVER_FEATURES:
		set_driver_features(b, value);
		break;
	case GN_VIRTIO_DRIVER_FEATURES_SEL:
		b->driver_features_sel = value;
		break;
	case GN_VIRTIO_QUEUE_SEL:
		b->queue_sel = value;
		break;
	case GN_VIRTIO_QUEUE_NUM:
	case GN_VIRTIO_QUEUE_DESC_LOW:
	case GN_VIRTIO_QUEUE_DESC_HIGH:
	case GN_VIRTIO_QUEUE_DRIVER_LOW:
	case GN_VIRTIO_QUEUE_DRIVER_HIGH:
	case GN_VIRTIO_QUEUE_DEVICE_LOW:
	case GN_VIRTIO_QUEUE_DEVICE_HIGH:
		set_queue(b, offset, value);
		break;
	case GN_VIRTIO_QUEUE_READY:
		vq = selected(b);
		if (vq)
			set_queue_ready(b, vq, value);
		else
			gn_balloon_fault(b, GN_BALLOON_FAULT_QUEUE);
		break;
	case GN_VIRTIO_QUEUE_NOTIFY:
		notify(b, value);
		break;
	case GN_VIRTIO_INTERRUPT_ACK:
		b->interrupt_status &= ~value;
		break;
	case GN_VIRTIO_STATUS:
		if (value)
			set_status(b, value);
		else
			gn_balloon_reset(b);
		break;
	case GN_VIRTIO_SHM_SEL:
		break;
	default:
		gn_balloon_fault(b, GN_BALLOON_FAULT_REGISTER);
	}
}

uint64_t gn_balloon_mmio_read(struct gn_balloon *b, uint64_t offset, unsigned bytes)
{
	uint64_t value = 0;

	gn_balloon_lock(b);
	gn_balloon_work(b);
	if (offset >= GN_VIRTIO_CONFIG && offset < GN_VIRTIO_MMIO_BYTES)
		value = config_read(b, offset - GN_VIRTIO_CONFIG, bytes);
	else if (bytes == 4)
		value = register_read(b, offset);
	else
		gn_balloon_fault(b, GN_BALLOON_FAULT_REGISTER);
	gn_balloon_unlock(b);
	return value;
}

void gn_balloon_mmio_write(struct gn_balloon *b, uint64_t offset, unsigned bytes, uint64_t value)
{
	gn_balloon_lock(b);
	if (offset >= GN_VIRTIO_CONFIG && offset < GN_VIRTIO_MMIO_BYTES)
		config_write(b, offset - GN_VIRTIO_CONFIG, bytes, (uint32_t)value);
	else if (bytes == 4)
		register_write(b, offset, (uint32_t)value);
	else
		gn_balloon_fault(b, GN_BALLOON_FAULT_REGISTER);
	gn_balloon_work(b);
	gn_balloon_unlock(b);
}

bool gn_balloon_mmio(void *balloon, unsigned cpu, uint64_t at, unsigned bytes, bool is_write,
		     uint64_t *value)
{
	struct gn_balloon *b = (struct gn_balloon *)balloon;
	uint64_t offset = at - b->config.mmio_gpa;

	(void)cpu;
	if (offset >= GN_VIRTIO_MMIO_BYTES)
		return false;
	if (is_write)
		gn_balloon_mmio_write(b, offset, bytes, *value);
	else
		*value = gn_balloon_mmio_read(b, offset, bytes);
	return true;
}
