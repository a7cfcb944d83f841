/* SPDX-License-Identifier: MIT */
/*
 * balloon_driver.h - a driver of the balloon as a guest would write it, in C, for tests of the device.
 *
 * It reaches registers by gn_balloon_mmio_*() and memory by gn_vm_*(), so a test can be an honest guest by the calls below and
 * a hostile one by writing to the rings itself. Each queue has 16 descriptors and lies in a page of its own; buffers
 * have one page a queue.
 */
#ifndef GN_TESTS_BALLOON_DRIVER_H
#define GN_TESTS_BALLOON_DRIVER_H

#include <stddef.h>
#include <string.h>

#include <gnomon/balloon.h>

#include "support/bare_vm.h"

#define DRIVER_QUEUE_SIZE 16
#define DRIVER_QUEUES_PA  ((uint64_t)0x10000) /* a page for each queue */
#define DRIVER_BUFFERS_PA ((uint64_t)0x20000) /* so */
#define DRIVER_AVAIL_AT	  ((uint64_t)0x400)   /* of the queue's page */
#define DRIVER_USED_AT	  ((uint64_t)0x800)

struct balloon_driver {
	struct gn_vm *vm;
	struct gn_balloon *balloon;
	uint16_t avail[GN_BALLOON_QUEUES], used[GN_BALLOON_QUEUES]; /* by index */
};

static inline uint32_t driver_read(struct balloon_driver *d, uint64_t offset)
{
	return (uint32_t)gn_balloon_mmio_read(d->balloon, offset, 4);
}
static inline void driver_write(struct balloon_driver *d, uint64_t offset, uint32_t value)
{
	gn_balloon_mmio_write(d->balloon, offset, 4, value);
}

/* ---- Places ---------------------------------------------------------------------------------------------- */

static inline uint64_t driver_queue_pa(unsigned index)
{
	return DRIVER_QUEUES_PA + index * GN_PAGE_SIZE;
}
static inline uint64_t driver_desc_pa(unsigned index, unsigned desc)
{
	return driver_queue_pa(index) + desc * sizeof(struct gn_virtq_desc);
}
static inline uint64_t driver_avail_pa(unsigned index)
{
	return driver_queue_pa(index) + DRIVER_AVAIL_AT;
}
static inline uint64_t driver_used_pa(unsigned index)
{
	return driver_queue_pa(index) + DRIVER_USED_AT;
}
static inline uint64_t driver_buffer_pa(unsigned index)
{
	return DRIVER_BUFFERS_PA + index * GN_PAGE_SIZE;
}

/* ---- Initialisation, 3.1.1 and 4.2.3 -------------------------------------------------------------------- */

/* Reset, features, FEATURES_OK. What the device says of it. */
static inline bool driver_negotiate(struct balloon_driver *d, uint64_t features)
{
	const uint32_t begun = GN_VIRTIO_STATUS_ACKNOWLEDGE | GN_VIRTIO_STATUS_DRIVER;

	memset(d->avail, 0, sizeof(d->avail));
	memset(d->used, 0, sizeof(d->used));
	driver_write(d, GN_VIRTIO_STATUS, 0);
	driver_write(d, GN_VIRTIO_STATUS, GN_VIRTIO_STATUS_ACKNOWLEDGE);
	driver_write(d, GN_VIRTIO_STATUS, begun);
	for (unsigned half = 0; half < 2; half++) {
		driver_write(d, GN_VIRTIO_DRIVER_FEATURES_SEL, half);
		driver_write(d, GN_VIRTIO_DRIVER_FEATURES, (uint32_t)(features >> 32 * half));
	}
	driver_write(d, GN_VIRTIO_STATUS, begun | GN_VIRTIO_STATUS_FEATURES_OK);
	return driver_read(d, GN_VIRTIO_STATUS) & GN_VIRTIO_STATUS_FEATURES_OK;
}

static inline bool driver_set_queue(struct balloon_driver *d, unsigned index, uint64_t desc,
				    uint64_t avail, uint64_t used, uint32_t size)
{
	driver_write(d, GN_VIRTIO_QUEUE_SEL, index);
	driver_write(d, GN_VIRTIO_QUEUE_NUM, size);
	driver_write(d, GN_VIRTIO_QUEUE_DESC_LOW, (uint32_t)desc);
	driver_write(d, GN_VIRTIO_QUEUE_DESC_HIGH, (uint32_t)(desc >> 32));
	driver_write(d, GN_VIRTIO_QUEUE_DRIVER_LOW, (uint32_t)avail);
	driver_write(d, GN_VIRTIO_QUEUE_DRIVER_HIGH, (uint32_t)(avail >> 32));
	driver_write(d, GN_VIRTIO_QUEUE_DEVICE_LOW, (uint32_t)used);
	driver_write(d, GN_VIRTIO_QUEUE_DEVICE_HIGH, (uint32_t)(used >> 32));
	driver_write(d, GN_VIRTIO_QUEUE_READY, 1);
	return driver_read(d, GN_VIRTIO_QUEUE_READY);
}

/* Every queue there is, empty. False: one was refused. */
static inline bool driver_set_queues(struct balloon_driver *d)
{
	static const uint8_t zeros[GN_PAGE_SIZE];

	for (unsigned index = 0; index < GN_BALLOON_QUEUES; index++) {
		driver_write(d, GN_VIRTIO_QUEUE_SEL, index);
		if (!driver_read(d, GN_VIRTIO_QUEUE_NUM_MAX))
			break;
		if (gn_vm_write(d->vm, gpa(driver_queue_pa(index)), zeros, sizeof(zeros)) ||
		    !driver_set_queue(d, index, driver_desc_pa(index, 0), driver_avail_pa(index),
				      driver_used_pa(index), DRIVER_QUEUE_SIZE))
			return false;
	}
	return true;
}

static inline void driver_ok(struct balloon_driver *d)
{
	driver_write(d, GN_VIRTIO_STATUS,
		     driver_read(d, GN_VIRTIO_STATUS) | GN_VIRTIO_STATUS_DRIVER_OK);
}

static inline bool driver_start(struct balloon_driver *d, uint64_t features)
{
	if (!driver_negotiate(d, features | GN_VIRTIO_F_VERSION_1) || !driver_set_queues(d))
		return false;
	driver_ok(d);
	return driver_read(d, GN_VIRTIO_STATUS) & GN_VIRTIO_STATUS_DRIVER_OK;
}

/* ---- Buffers ----------------------------------------------------------------------------------------------- */

static inline void driver_set_desc(struct balloon_driver *d, unsigned index, unsigned desc,
				   struct gn_virtq_desc value)
{
	gn_vm_write(d->vm, gpa(driver_desc_pa(index, desc)), &value, sizeof(value));
}

/* Make the chain that begins at @head available. */
static inline void driver_offer(struct balloon_driver *d, unsigned index, uint16_t head)
{
	uint16_t slot = d->avail[index]++ % DRIVER_QUEUE_SIZE;

	gn_vm_write(d->vm, gpa(driver_avail_pa(index) + 4 + 2 * slot), &head, sizeof(head));
	gn_vm_write(d->vm, gpa(driver_avail_pa(index) + 2), &d->avail[index], 2);
}
static inline void driver_notify(struct balloon_driver *d, unsigned index)
{
	driver_write(d, GN_VIRTIO_QUEUE_NOTIFY, index);
}

static inline uint16_t driver_used_idx(struct balloon_driver *d, unsigned index)
{
	uint16_t idx = 0;

	gn_vm_read(d->vm, gpa(driver_used_pa(index) + 2), &idx, sizeof(idx));
	return idx;
}
/* The next used element, if there is one. */
static inline bool driver_collect(struct balloon_driver *d, unsigned index,
				  struct gn_virtq_used_elem *out)
{
	if (driver_used_idx(d, index) == d->used[index])
		return false;
	gn_vm_read(d->vm,
		   gpa(driver_used_pa(index) + 4 +
		       (d->used[index]++ % DRIVER_QUEUE_SIZE) * sizeof(*out)),
		   out, sizeof(*out));
	return true;
}

/* Offer @bytes of @data through descriptor 0, as Linux's tell_host(). True: used at once, with length 0. */
static inline bool driver_tell(struct balloon_driver *d, unsigned index, const void *data,
			       uint32_t bytes)
{
	struct gn_virtq_used_elem used;

	gn_vm_write(d->vm, gpa(driver_buffer_pa(index)), data, bytes);
	driver_set_desc(d, index, 0,
			(struct gn_virtq_desc){ .addr = driver_buffer_pa(index), .len = bytes });
	driver_offer(d, index, 0);
	driver_notify(d, index);
	return driver_collect(d, index, &used) && used.id == 0 && used.len == 0;
}

/* @count <= 1024 page numbers from @first on. */
static inline bool driver_tell_pages(struct balloon_driver *d, unsigned index, uint32_t first,
				     uint32_t count)
{
	uint32_t pfns[1024];

	for (uint32_t i = 0; i < count; i++)
		pfns[i] = first + i;
	return driver_tell(d, index, pfns, count * 4);
}

#endif
