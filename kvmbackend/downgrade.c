/* SPDX-License-Identifier: MIT */
/*
 * downgrade.c - table changes that the hardware must be told of.
 *
 * Our tables are what the hardware walks. Hardware with real nested paging reads them in memory, and a flush makes it
 * forget what it read. But a KVM without nested paging (kvm_pvm, npt=0, ept=0) shadows *our* tables once more, keeps its
 * copies in sync by write-protecting the pages they were made from, and our stores don't go through those
 * mappings. So it learns of an absent entry that becomes present (the CPU faults, and KVM reads the table again), and
 * of any entry that allows more, but never of one that now allows less or differs. What it does see is a store by code
 * inside the guest. So such changes are *touched*: the monitor's CPL 0 executes, on the entry or on the table,
 *
 *     lock or qword [entry], 0    KVM reads this entry again (emulated store), or lets the page go out of sync and
 *                                 reads it again at the next flush
 *     lock or word [table], 0     a store that fits no entry: KVM drops its copy of the whole table at once (seen on kvm_pvm),
 *                                 or reads it again at the next flush (seen on kvm_amd with npt=0)
 *
 * So a touch by itself proves nothing, and each one posts a flush with it.
 *
 * Locked and of no effect, because the word may be anything by now: an entry that another thread is changing, where
 * hardware sets A or D, or, when a retired table's frame has been given away, the guest's own data.
 *
 * The program that does it is straight code made from the queue, one instruction a touch (a CPL 0 that is emulated pays
 * for each), HLT at its end. It runs as a KVM_RUN of its own. So nothing of it can run into the guest: guest code
 * is entered by a write of all segment registers from outside, in the same write that flushes.
 *
 * Why nothing is missed. Two statements:
 *
 *  A. Guest code runs only after its vCPU found its queue empty. The thread drains, runs what it drained, and drains
 *     again; when nothing came out, it enters. Between that look and the entry something may be posted. Then the guest
 *     runs with the old translation until it next exits, as a CPU does with an entry in its TLB whose flush is on its way.
 *  B. Whoever needs the old translation to be unused waits for it. A frame is reused, a new shadow page is filled, a
 *     changed p2m range is let go on only after gn_vm_synchronize(), which returns when every vCPU that was in the guest
 *     has left it once (gn_kvm_quiesce()). Its next entry is preceded by A. The change and the post come before the call,
 *     in that order, and posting takes the queue's lock, so that drain sees the post and the hardware, when it re-reads
 *     the entry, the change.
 *
 * From A and B: when a frame changes hands, no vCPU executes guest code with a translation to its old use. A vCPU that
 * is kept in the midst of a program (kicked) executes our code only, and drains again after it.
 *
 * Who poses what: the scheme stores to the entry, then posts, under its lock. A store that overtakes on another thread
 * (entry changed again before the touch) posts too, so the last touch follows the last change. Every vCPU gets
 * every item although KVM's copies are the VM's: each is served at its own entry, so no vCPU waits for another.
 * A table that is retired was unlinked before, and its parent's entry was posted before: by the time its frame is made a
 * table again, at latest the first vCPU that enters has dropped both copies.
 *
 * Posting never fails: a queue of entries that is full becomes a set of tables (a bit a pool frame, made in advance),
 * which asks for more than was meant and never for less.
 *
 * Flushes have one width: everything. A flush in the write of the registers costs 2 us on a host that emulates CPL 0,
 * INVLPG in the monitor 8; and a change of root, the most common reason, flushes anyway.
 */
#include "downgrade.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BITS	       64
#define MOV_RBX_BYTES  10
#define TOUCH_BYTES    9
#define HLT	       ((uint8_t)0xf4)
#define ROOM_FOR_TOUCH (MOV_RBX_BYTES + TOUCH_BYTES + 1)

int gn_downgrades_init(struct gn_downgrades *queue, uint64_t frames)
{
	*queue = (struct gn_downgrades){ .word_count = (frames + BITS - 1) / BITS };
	queue->first_word = queue->word_count;
	queue->tables = (uint64_t *)calloc(queue->word_count, sizeof(*queue->tables));
	if (!queue->tables)
		return -ENOMEM;
	pthread_mutex_init(&queue->lock, NULL);
	return 0;
}

void gn_downgrades_fini(struct gn_downgrades *queue)
{
	if (!queue->tables)
		return;
	pthread_mutex_destroy(&queue->lock);
	free(queue->tables);
	queue->tables = NULL;
}

/* ---- Posting --------------------------------------------------------------------------------------------- */

static bool has_table(const struct gn_downgrades *queue, pfn_t table)
{
	return queue->tables[table.v / BITS] >> table.v % BITS & 1;
}

static void add_table(struct gn_downgrades *queue, pfn_t table)
{
	const uint64_t word = table.v / BITS;

	queue->tables[word] |= (uint64_t)1 << table.v % BITS;
	if (word < queue->first_word)
		queue->first_word = word;
	if (word >= queue->end_word)
		queue->end_word = word + 1;
}

/* The queue of entries is full: their tables instead. */
static void widen(struct gn_downgrades *queue)
{
	for (unsigned i = 0; i < queue->slot_count; i++)
		add_table(queue, hpa_to_pfn(queue->slots[i]));
	queue->slot_count = 0;
}

void gn_downgrades_post_entry(struct gn_downgrades *queue, hpa_t slot)
{
	pthread_mutex_lock(&queue->lock);
	if (!has_table(queue, hpa_to_pfn(slot))) {
		if (queue->slot_count == GN_DOWNGRADE_SLOTS)
			widen(queue);
		if (has_table(queue, hpa_to_pfn(slot)))
			goto out;
		if (!queue->slot_count || queue->slots[queue->slot_count - 1].v != slot.v)
			queue->slots[queue->slot_count++] = slot;
	}
out:
	queue->flush = true;
	pthread_mutex_unlock(&queue->lock);
}

void gn_downgrades_post_table(struct gn_downgrades *queue, pfn_t table)
{
	pthread_mutex_lock(&queue->lock);
	add_table(queue, table);
	queue->flush = true;
	pthread_mutex_unlock(&queue->lock);
}

void gn_downgrades_post_flush(struct gn_downgrades *queue)
{
	pthread_mutex_lock(&queue->lock);
	queue->flush = true;
	pthread_mutex_unlock(&queue->lock);
}

static void forget_tables(struct gn_downgrades *queue)
{
	queue->first_word = queue->word_count;
	queue->end_word = 0;
}

void gn_downgrades_clear(struct gn_downgrades *queue)
{
	pthread_mutex_lock(&queue->lock);
	memset(queue->tables, 0, queue->word_count * sizeof(*queue->tables));
	forget_tables(queue);
	queue->slot_count = 0;
	queue->flush = false;
	pthread_mutex_unlock(&queue->lock);
}

/* ---- The program ----------------------------------------------------------------------------------------------- */

struct assembler {
	uint8_t *code;
	unsigned bytes, operations;
	uint64_t linear_base;	 /* of HPA 0 */
	uint64_t first_rbx, rbx; /* 0: none yet */
};

static void emit(struct assembler *as, const void *bytes, unsigned count)
{
	memcpy(as->code + as->bytes, bytes, count);
	as->bytes += count;
}

static bool has_room(const struct assembler *as)
{
	return as->bytes + ROOM_FOR_TOUCH <= GN_MONITOR_PROGRAM_BYTES;
}

/* lock or [rbx + displacement], 0 */
static void emit_touch(struct assembler *as, hpa_t at, bool is_table)
{
	static const uint8_t qword[] = { 0xf0, 0x48, 0x83, 0x8b },
			     word[] = { 0x66, 0xf0, 0x83, 0x8b };
	static const uint8_t mov_rbx[] = { 0x48, 0xbb }, zero = 0;
	const uint64_t va = as->linear_base + at.v;
	int64_t distance = (int64_t)(va - as->rbx);
	int32_t displacement;

	if (!as->rbx || distance != (int32_t)distance) {
		if (as->rbx) {
			emit(as, mov_rbx, sizeof(mov_rbx));
			emit(as, &va, sizeof(va));
		} else {
			as->first_rbx = va;
		}
		as->rbx = va;
		distance = 0;
	}
	displacement = (int32_t)distance;
	emit(as, is_table ? word : qword, sizeof(qword));
	emit(as, &displacement, sizeof(displacement));
	emit(as, &zero, sizeof(zero));
	as->operations++;
}

static void assemble_entries(struct gn_downgrades *queue, struct assembler *as)
{
	while (queue->slot_count && has_room(as)) {
		const hpa_t slot = queue->slots[--queue->slot_count];

		if (!has_table(queue, hpa_to_pfn(slot)))
			emit_touch(as, slot, false);
	}
}

static void assemble_tables(struct gn_downgrades *queue, struct assembler *as)
{
	for (; queue->first_word < queue->end_word; queue->first_word++) {
		uint64_t *word = &queue->tables[queue->first_word];

		while (*word) {
			const unsigned bit = (unsigned)__builtin_ctzll(*word);

			if (!has_room(as))
				return;
			emit_touch(as, pfn_to_hpa(pfn(queue->first_word * BITS + bit)), true);
			*word &= *word - 1;
		}
	}
	forget_tables(queue);
}

void gn_downgrades_drain(struct gn_downgrades *queue, uint64_t linear_base, uint8_t *program,
			 struct gn_downgrade_work *work)
{
	static const uint8_t hlt = HLT;
	struct assembler as = { .code = program, .linear_base = linear_base };

	pthread_mutex_lock(&queue->lock);
	assemble_entries(queue, &as);
	assemble_tables(queue, &as);
	work->flush = queue->flush;
	queue->flush = false;
	pthread_mutex_unlock(&queue->lock);
	if (as.operations)
		emit(&as, &hlt, sizeof(hlt));
	*work = (struct gn_downgrade_work){ .operations = as.operations,
					    .program_bytes = as.bytes,
					    .base = as.first_rbx,
					    .flush = work->flush };
}
