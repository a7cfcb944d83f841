/* SPDX-License-Identifier: MIT */
/*
 * virtio.h - what lies on the wire between a virtio-balloon device and its driver.
 *
 * Constants and layouts of the OASIS specification "Virtual I/O Device (VIRTIO) Version 1.2": 2.1 device status, 2.7
 * split virtqueues, 4.2 virtio over MMIO, 5.5 traditional memory balloon. For both sides: it needs nothing but
 * <stdint.h>, so guest code may include it. All fields are little endian.
 */
#ifndef GNOMON_VIRTIO_H
#define GNOMON_VIRTIO_H

#include <stdint.h>

/* ---- 4.2.2: registers, by their offset. 32 bits wide, but for the configuration space --------------- */

enum gn_virtio_register {
	GN_VIRTIO_MAGIC = 0x000,	       /* R: "virt" */
	GN_VIRTIO_VERSION = 0x004,	       /* R: 2 */
	GN_VIRTIO_DEVICE_ID = 0x008,	       /* R */
	GN_VIRTIO_VENDOR_ID = 0x00c,	       /* R */
	GN_VIRTIO_DEVICE_FEATURES = 0x010,     /* R: 32 of them, by DEVICE_FEATURES_SEL */
	GN_VIRTIO_DEVICE_FEATURES_SEL = 0x014, /* W */
	GN_VIRTIO_DRIVER_FEATURES = 0x020,     /* W */
	GN_VIRTIO_DRIVER_FEATURES_SEL = 0x024, /* W */
	GN_VIRTIO_QUEUE_SEL = 0x030,	       /* W: the queue that QUEUE_* are of */
	GN_VIRTIO_QUEUE_NUM_MAX = 0x034,       /* R: 0: there is no such queue */
	GN_VIRTIO_QUEUE_NUM = 0x038,	       /* W */
	GN_VIRTIO_QUEUE_READY = 0x044,	       /* RW */
	GN_VIRTIO_QUEUE_NOTIFY = 0x050,	       /* W: a queue's index */
	GN_VIRTIO_INTERRUPT_STATUS = 0x060,    /* R: enum gn_virtio_interrupt */
	GN_VIRTIO_INTERRUPT_ACK = 0x064,       /* W */
	GN_VIRTIO_STATUS = 0x070,	       /* RW: enum gn_virtio_status; 0: reset */
	GN_VIRTIO_QUEUE_DESC_LOW = 0x080,      /* W */
	GN_VIRTIO_QUEUE_DESC_HIGH = 0x084,     /* W */
	GN_VIRTIO_QUEUE_DRIVER_LOW = 0x090,    /* W: available ring */
	GN_VIRTIO_QUEUE_DRIVER_HIGH = 0x094,   /* W */
	GN_VIRTIO_QUEUE_DEVICE_LOW = 0x0a0,    /* W: used ring */
	GN_VIRTIO_QUEUE_DEVICE_HIGH = 0x0a4,   /* W */
	GN_VIRTIO_SHM_SEL = 0x0ac,	       /* W */
	GN_VIRTIO_SHM_LEN_LOW = 0x0b0,	       /* R */
	GN_VIRTIO_SHM_LEN_HIGH = 0x0b4,	       /* R */
	GN_VIRTIO_SHM_BASE_LOW = 0x0b8,	       /* R */
	GN_VIRTIO_SHM_BASE_HIGH = 0x0bc,       /* R */
	GN_VIRTIO_QUEUE_RESET = 0x0c0,	       /* RW with RING_RESET only */
	GN_VIRTIO_CONFIG_GENERATION = 0x0fc,   /* R */
	GN_VIRTIO_CONFIG = 0x100,	       /* RW: struct gn_virtio_balloon_config */
};
#define GN_VIRTIO_MMIO_BYTES   0x200
#define GN_VIRTIO_MAGIC_VALUE  0x74726976u
#define GN_VIRTIO_MMIO_VERSION 2u
#define GN_VIRTIO_ID_BALLOON   5u /* 5.5.1 */

/* 2.1 */
enum gn_virtio_status {
	GN_VIRTIO_STATUS_ACKNOWLEDGE = 1,
	GN_VIRTIO_STATUS_DRIVER = 2,
	GN_VIRTIO_STATUS_DRIVER_OK = 4,
	GN_VIRTIO_STATUS_FEATURES_OK = 8,
	GN_VIRTIO_STATUS_NEEDS_RESET = 64, /* the device's */
	GN_VIRTIO_STATUS_FAILED = 128,
};

enum gn_virtio_interrupt {
	GN_VIRTIO_INTERRUPT_USED = 1,	/* a buffer was used */
	GN_VIRTIO_INTERRUPT_CONFIG = 2, /* the configuration space or NEEDS_RESET changed */
};

/* 6 */
#define GN_VIRTIO_F_INDIRECT_DESC ((uint64_t)1 << 28)
#define GN_VIRTIO_F_EVENT_IDX	  ((uint64_t)1 << 29)
#define GN_VIRTIO_F_VERSION_1	  ((uint64_t)1 << 32)

/* ---- 2.7: split virtqueues ---------------------------------------------------------------------------- */

enum gn_virtq_desc_flag {
	GN_VIRTQ_DESC_F_NEXT = 1,
	GN_VIRTQ_DESC_F_WRITE = 2, /* the device may write it, else it reads it */
	GN_VIRTQ_DESC_F_INDIRECT = 4,
};
struct gn_virtq_desc {
	uint64_t addr; /* guest-physical */
	uint32_t len;  /* bytes */
	uint16_t flags;
	uint16_t next;
};
#define GN_VIRTQ_DESC_ALIGN 16

/* Available ring: this head, `size` indices of descriptors, and a word for EVENT_IDX. */
#define GN_VIRTQ_AVAIL_F_NO_INTERRUPT 1
#define GN_VIRTQ_AVAIL_ALIGN	      2
struct gn_virtq_avail {
	uint16_t flags;
	uint16_t idx;
};
/* Used ring: this head, `size` elements, and a word for EVENT_IDX. */
#define GN_VIRTQ_USED_F_NO_NOTIFY 1
#define GN_VIRTQ_USED_ALIGN	  4
struct gn_virtq_used {
	uint16_t flags;
	uint16_t idx;
};
struct gn_virtq_used_elem {
	uint32_t id;  /* head of the chain */
	uint32_t len; /* bytes the device wrote */
};

/* ---- 5.5: the balloon ------------------------------------------------------------------------------------ */

#define GN_BALLOON_F_MUST_TELL_HOST ((uint64_t)1 << 0)
#define GN_BALLOON_F_STATS_VQ	    ((uint64_t)1 << 1)
#define GN_BALLOON_F_DEFLATE_ON_OOM ((uint64_t)1 << 2)
#define GN_BALLOON_F_FREE_PAGE_HINT ((uint64_t)1 << 3)
#define GN_BALLOON_F_PAGE_POISON    ((uint64_t)1 << 4)
#define GN_BALLOON_F_PAGE_REPORTING ((uint64_t)1 << 5)
#define GN_BALLOON_F_ALL	    ((uint64_t)0x3f)

/* Virtqueues in their order. The first two are always there; the others are if their feature was negotiated, and
 * close up when one is not: with PAGE_REPORTING alone, its queue is number 2. So Linux counts them, too. */
enum gn_balloon_queue {
	GN_BALLOON_INFLATE,
	GN_BALLOON_DEFLATE,
	GN_BALLOON_STATS,
	GN_BALLOON_HINTING,
	GN_BALLOON_REPORTING,
	GN_BALLOON_QUEUES
};

/* Pages are of 4 KiB, whatever the guest's are. */
struct gn_virtio_balloon_config {
	uint32_t num_pages;		/* the target */
	uint32_t actual;		/* the driver writes what it reached */
	uint32_t free_page_hint_cmd_id; /* enum gn_balloon_hint_command, or a round's number */
	uint32_t poison_val; /* the driver writes it before DRIVER_OK, with PAGE_POISON */
};

enum gn_balloon_hint_command { GN_BALLOON_HINT_STOP = 0, GN_BALLOON_HINT_DONE = 1 };

/* A buffer of the statistics queue is an array of these, 10 bytes each: 16 bits of tag, 64 bits of value. */
#define GN_BALLOON_STAT_BYTES 10
enum gn_balloon_stat {
	GN_BALLOON_STAT_SWAP_IN,      /* bytes */
	GN_BALLOON_STAT_SWAP_OUT,     /* bytes */
	GN_BALLOON_STAT_MAJFLT,	      /* count */
	GN_BALLOON_STAT_MINFLT,	      /* count */
	GN_BALLOON_STAT_MEMFREE,      /* bytes */
	GN_BALLOON_STAT_MEMTOT,	      /* bytes */
	GN_BALLOON_STAT_AVAIL,	      /* bytes: for new programs, without swapping */
	GN_BALLOON_STAT_CACHES,	      /* bytes: given back without I/O */
	GN_BALLOON_STAT_HTLB_PGALLOC, /* count */
	GN_BALLOON_STAT_HTLB_PGFAIL,  /* count */
	GN_BALLOON_STATS_TAGS
};

#endif
