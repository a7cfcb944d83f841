/* SPDX-License-Identifier: MIT */
/*
 * virtqueue.c - heads out of the available ring, chains out of the table, elements into the used ring.
 *
 * Order against a driver on another CPU: the index is read before the heads, the elements are written before the index,
 * and the driver's flags are read after it. gn_vm_read() and gn_vm_write() each take and leave a lock, which
 * orders the former two; the last is store against load and needs a fence.
 */
#include "virtqueue.h"

#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the rings are little endian");
_Static_assert(sizeof(struct gn_virtq_desc) == 16 && sizeof(struct gn_virtq_used_elem) == 8,
	       "layouts of virtio 1.2, 2.7");

static uint64_t avail_bytes(const struct gn_vq *vq)
{
	return sizeof(struct gn_virtq_avail) + (uint64_t)vq->size * sizeof(uint16_t);
}

static uint64_t used_bytes(const struct gn_vq *vq)
{
	return sizeof(struct gn_virtq_used) +
	       (uint64_t)vq->size * sizeof(struct gn_virtq_used_elem);
}

static bool is_inside(gpa_t at, uint64_t bytes, uint64_t align, uint64_t mem_bytes)
{
	return at.v % align == 0 && at.v <= mem_bytes && bytes <= mem_bytes - at.v;
}

int gn_vq_check(const struct gn_vq *vq, uint64_t mem_bytes)
{
	if (!vq->size || vq->size > GN_VQ_SIZE_MAX || (vq->size & (vq->size - 1)))
		return -EINVAL;
	if (!is_inside(vq->desc, (uint64_t)vq->size * sizeof(struct gn_virtq_desc),
		       GN_VIRTQ_DESC_ALIGN, mem_bytes) ||
	    !is_inside(vq->avail, avail_bytes(vq), GN_VIRTQ_AVAIL_ALIGN, mem_bytes) ||
	    !is_inside(vq->used, used_bytes(vq), GN_VIRTQ_USED_ALIGN, mem_bytes))
		return -EINVAL;
	return 0;
}

/* Of @count ring slots from free running index @from on: how many lie before the ring's end. */
static unsigned before_end(const struct gn_vq *vq, uint16_t from, unsigned count)
{
	unsigned room = vq->size - from % vq->size;

	return count < room ? count : room;
}

static gpa_t avail_slot(const struct gn_vq *vq, uint16_t index)
{
	return gpa(vq->avail.v + sizeof(struct gn_virtq_avail) +
		   sizeof(uint16_t) * (index % vq->size));
}

static gpa_t used_slot(const struct gn_vq *vq, uint16_t index)
{
	return gpa(vq->used.v + sizeof(struct gn_virtq_used) +
		   sizeof(struct gn_virtq_used_elem) * (index % vq->size));
}

int gn_vq_peek(struct gn_vm *vm, const struct gn_vq *vq, uint16_t *heads, unsigned *count)
{
	unsigned first, ahead;
	uint16_t idx;
	int err = gn_vm_read(vm, gpa(vq->avail.v + offsetof(struct gn_virtq_avail, idx)), &idx,
			     sizeof(idx));

	if (err)
		return err;
	ahead = (uint16_t)(idx - vq->next_avail);
	if (ahead > vq->size)
		return -ERANGE;
	first = before_end(vq, vq->next_avail, ahead);
	err = gn_vm_read(vm, avail_slot(vq, vq->next_avail), heads, first * sizeof(*heads));
	if (!err)
		err = gn_vm_read(vm, avail_slot(vq, 0), heads + first,
				 (ahead - first) * sizeof(*heads));
	if (err)
		return err;
	*count = ahead;
	return 0;
}

int gn_vq_chain(struct gn_vm *vm, const struct gn_vq *vq, uint16_t head,
		struct gn_virtq_desc *chain, unsigned *count)
{
	unsigned n = 0;

	for (uint16_t at = head;; at = chain[n - 1].next) {
		int err;

		/* As many descriptors as the table has, and more to come: a loop. */
		if (at >= vq->size || n == vq->size)
			return -EPROTO;
		err = gn_vm_read(vm, gpa(vq->desc.v + sizeof(*chain) * at), &chain[n],
				 sizeof(*chain));
		if (err)
			return err;
		if (chain[n].flags & GN_VIRTQ_DESC_F_INDIRECT)
			return -EPROTO;
		if (!(chain[n++].flags & GN_VIRTQ_DESC_F_NEXT))
			break;
	}
	*count = n;
	return 0;
}

/* @count elements into the used ring from next_used on, which do not wrap. */
static int write_elements(struct gn_vm *vm, struct gn_vq *vq, const uint16_t *heads, unsigned count)
{
	struct gn_virtq_used_elem elements[64];

	while (count) {
		unsigned n = count < 64 ? count : 64;
		int err;

		for (unsigned i = 0; i < n; i++)
			elements[i] = (struct gn_virtq_used_elem){ .id = heads[i], .len = 0 };
		err = gn_vm_write(vm, used_slot(vq, vq->next_used), elements,
				  n * sizeof(elements[0]));
		if (err)
			return err;
		vq->next_used = (uint16_t)(vq->next_used + n);
		heads += n;
		count -= n;
	}
	return 0;
}

int gn_vq_use(struct gn_vm *vm, struct gn_vq *vq, const uint16_t *heads, unsigned count,
	      bool *wants_interrupt)
{
	unsigned first = before_end(vq, vq->next_used, count);
	uint16_t flags;
	int err = write_elements(vm, vq, heads, first);

	if (!err)
		err = write_elements(vm, vq, heads + first, count - first);
	if (!err)
		err = gn_vm_write(vm, gpa(vq->used.v + offsetof(struct gn_virtq_used, idx)),
				  &vq->next_used, sizeof(vq->next_used));
	atomic_thread_fence(memory_order_seq_cst);
	if (!err)
		err = gn_vm_read(vm, vq->avail, &flags, sizeof(flags));
	if (err)
		return err;
	*wants_interrupt = !(flags & GN_VIRTQ_AVAIL_F_NO_INTERRUPT);
	return 0;
}
