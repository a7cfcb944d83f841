/* SPDX-License-Identifier: MIT */
/*
 * virtqueue.h - the device's side of a split virtqueue (virtio 1.2, 2.7).
 *
 * The rings lie in guest memory and belong to an adversary. So everything is copied once and judged as a copy:
 * the available index, the heads, each descriptor. A page of a ring may be ballooned, read-only or gone at any time;
 * then the copy fails with -EFAULT and nothing else happens. Work is bounded by the queue's size.
 *
 * Errors mean the queue can't go on: -EFAULT (ring or table not reachable), -ERANGE (the available index ran ahead
 * by more than the size), -EPROTO (a chain that is none), -ENOMEM (the host could not fill the page).
 *
 * Neither INDIRECT_DESC nor EVENT_IDX is known here. Not locked: the owner's affair.
 */
#ifndef GN_BALLOON_VIRTQUEUE_H
#define GN_BALLOON_VIRTQUEUE_H

#include <gnomon/engine.h>
#include <gnomon/virtio.h>

#ifdef __cplusplus
extern "C" {
#endif

#define GN_VQ_SIZE_MAX 1024

struct gn_vq {
	gpa_t desc, avail, used; /* descriptor table, available ring, used ring */
	uint16_t size;		 /* of each; a power of two; 0: not told yet */
	bool is_ready;
	uint16_t next_avail, next_used; /* free running */
};

/* Size, alignment, and each part inside guest RAM of @mem_bytes. -EINVAL. */
int gn_vq_check(const struct gn_vq *vq, uint64_t mem_bytes);

/* Copy the heads of the buffers that are available, at most vq->size, into @heads. They are not taken: */
int gn_vq_peek(struct gn_vm *vm, const struct gn_vq *vq, uint16_t *heads, unsigned *count);
/* the next @count are. */
static inline void gn_vq_take(struct gn_vq *vq, unsigned count)
{
	vq->next_avail = (uint16_t)(vq->next_avail + count);
}

/* Copy the descriptors of the chain that begins at @head, at most vq->size. */
int gn_vq_chain(struct gn_vm *vm, const struct gn_vq *vq, uint16_t head,
		struct gn_virtq_desc *chain, unsigned *count);

/* The chains at @heads are used, nothing was written to them. *wants_interrupt: the driver did not ask for silence. */
int gn_vq_use(struct gn_vm *vm, struct gn_vq *vq, const uint16_t *heads, unsigned count,
	      bool *wants_interrupt);

#ifdef __cplusplus
}
#endif
#endif
