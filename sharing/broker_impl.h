/* SPDX-License-Identifier: MIT */
/*
 * broker_impl.h - the broker's insides, for broker*.c only.
 */
#ifndef GN_SHARING_BROKER_IMPL_H
#define GN_SHARING_BROKER_IMPL_H

#include "broker.h"
#include "hash.h"
#include "index.h"
#include "pool.h"

#define GN_BROKER_ORDERS 512 /* under way to one VM: their answers fit into the ring */
#define GN_BROKER_VMS	 4096

/* Something a VM is to be ordered, or was. */
struct gn_broker_order {
	enum gn_order_kind kind; /* 0: a free place */
	uint16_t generation;	 /* of the place: an answer names it too */
	uint8_t slot;
	uint64_t gfn, frame; /* merge: the VM is charged. Detach: the segment's first */
	struct gn_tag tag;
	uint64_t tick;	 /* when it was issued; before that: wanted */
	bool is_expired; /* a show: another VM was asked instead, and an answer comes too late */
};

struct gn_broker_vm {
	struct gn_broker *broker;
	unsigned id; /* in the index */
	uint64_t pages;
	struct gn_exchange *exchange;
	uint8_t *checks;       /* of each page's last offer: what was offered before is void */
	uint64_t *met, *reach; /* of pages of blocks, a bit a page: broker_blocks.c */
	uint8_t *asked;	       /* by area: what its VM was asked for */
	uint64_t *charged;     /* a bit a frame: it has merged, and not returned */
	uint64_t *views;       /* a bit a segment: it has it mapped, or may */
	bool needs_kick, is_broken, is_lost;
	struct gn_broker_order orders[GN_BROKER_ORDERS]; /* under way */
	unsigned order_count, place_hint;
	uint64_t free_slots; /* a bit each */
	/* Not yet under way, in order; a ring of capacity 2^n. */
	struct gn_broker_order *wanted;
	size_t wanted_head, wanted_count, wanted_capacity;
	struct gn_broker_vm_stats stats;
};

struct gn_broker {
	struct gn_broker_config config;
	uint8_t key[GN_EXCHANGE_KEY_BYTES];
	struct gn_hasher hasher;
	struct gn_index index;
	struct gn_share_pool *pool;
	struct gn_broker_vm *vms[GN_BROKER_VMS];
	/* Of the index, by the number they name: pages of its VM, void ones too, and of those that had the number before. */
	uint64_t entries[GN_BROKER_VMS];
	uint64_t vm_pages; /* of all of them */
	uint64_t tick;	   /* gn_broker_tidy() */
	struct gn_broker_stats stats;
};

static inline void gn_broker_step(const struct gn_broker *b, const char *name)
{
	if (b->config.step)
		b->config.step(name);
}

/* A VM has as many frames, and entries in the index, as it has pages, and some that are void and not cleaned away yet. */
static inline uint64_t gn_broker_most(const struct gn_broker_vm *vm)
{
	return 2 * vm->pages + 4096;
}

/* broker_index.c: the entries of a tag. */
struct gn_index_entry *gn_broker_find(struct gn_broker *broker, struct gn_tag tag, uint64_t value);
/* The candidate that was to be shown is none. */
void gn_broker_drop_pending(struct gn_broker_vm *vm, uint64_t gfn, struct gn_tag tag);
/* If there are two candidates of @tag, and no frame, one is to be shown. */
void gn_broker_elect(struct gn_broker *broker, struct gn_tag tag);
/* Take a VM's entry out. */
void gn_broker_erase(struct gn_broker *broker, struct gn_index_entry *entry);
/* Add an entry; old ones give way. False: no room. */
bool gn_broker_enter(struct gn_broker *broker, struct gn_tag tag, uint64_t value);
/* If nobody but the index has @frame, nobody needs it. */
void gn_broker_give_up(struct gn_broker *broker, uint64_t frame);
/* Whether an entry stands for nothing any more; if so it has been let go of. @broker: the index's owner. */
bool gn_broker_entry_is_stale(void *broker, const struct gn_index_entry *entry);

/* broker_blocks.c: pages of large blocks. */
/* The page is offered anew. */
void gn_broker_forget_met(struct gn_broker_vm *vm, uint64_t gfn);
/* It has its like elsewhere, or is of zeros. */
void gn_broker_note_met(struct gn_broker_vm *vm, uint64_t gfn, bool is_within_reach);
/* The page at @gfn, in a block or not, meets @entry, which is not stale and no frame. Whether that is within its reach. */
bool gn_broker_meet(struct gn_broker_vm *vm, uint64_t gfn, bool is_in_block,
		    const struct gn_index_entry *entry);
/* The block that begins at @gfn was to be split, and the VM has answered. */
void gn_broker_on_split(struct gn_broker_vm *vm, uint64_t gfn);
/* A page in a block may have an entry: there are few under its tag. */
bool gn_broker_has_room_beside(struct gn_broker *broker, struct gn_tag tag);

/* broker_orders.c: what a VM is to do. */
/* Both take effect when the VM has room for them. A merge charges the VM at once. */
void gn_broker_want_show(struct gn_broker_vm *vm, uint64_t gfn, struct gn_tag tag);
void gn_broker_want_merge(struct gn_broker_vm *vm, uint64_t gfn, uint64_t frame, struct gn_tag tag);
void gn_broker_want_reoffer(struct gn_broker_vm *vm, uint64_t gfn);
void gn_broker_want_detach(struct gn_broker_vm *vm, unsigned segment);
/* False: it cannot be told. */
bool gn_broker_want_split(struct gn_broker_vm *vm, uint64_t gfn);
/* Put what there is room for. */
void gn_broker_issue(struct gn_broker_vm *vm);
/* The order that an answer names, which is over now; false: there is none. */
bool gn_broker_finish(struct gn_broker_vm *vm, uint32_t number, struct gn_broker_order *out);
/* All orders are over, unanswered. */
void gn_broker_cancel(struct gn_broker_vm *vm);
/* Those that it cannot have seen, and shows; what it may have merged stays charged. */
void gn_broker_cancel_unseen(struct gn_broker_vm *vm);
/* Shows that wait too long: others are asked. */
void gn_broker_expire(struct gn_broker_vm *vm);

#endif
