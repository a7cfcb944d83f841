/* SPDX-License-Identifier: MIT */
/*
 * sharing_kvm_guests.c - real guests that use their memory while it is shared.
 *
 * Which words they load and store is made up here and put into a list in a guest's RAM; the guest's code goes through the list and
 * counts the words that are not what they should be. What it stores is remembered, so that hot pages are checked, too.
 */
#include "sharing_kvm_guests.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <time.h>

#include "control/clock.h"
#include "cli.h"
#include "micro_code.h"
#include "sharing.h"

#define PAUSE_NS    2000000
#define BLOCK_BYTES ((uint64_t)2 << 20)
#define VISIT_BYTES sizeof(struct sharing_kvm_visit)
_Static_assert(SHARING_MAX_VMS *SHARING_KVM_LOADS <= SHARING_KVM_MOST_LOADS, "all VMs' fit");
_Static_assert((SHARING_KVM_MOST_LOADS + SHARING_MAX_VMS * SHARING_KVM_STORES) * VISIT_BYTES <
		       BLOCK_BYTES,
	       "a list is less than a block");

int sharing_kvm_guests_init(struct sharing_kvm_guests *g, const struct sharing_contents *contents,
			    unsigned count)
{
	g->contents = contents;
	g->count = count;
	g->random = contents->seed;
	/* The list is in a block of its own, behind the contents. */
	g->list_at = (sharing_kvm_vms_each(g) * contents->vm_pages * SHARING_PAGE_BYTES +
		      BLOCK_BYTES - 1) &
		     ~(BLOCK_BYTES - 1);
	g->data_bytes = g->list_at + BLOCK_BYTES;
	g->hot = malloc(contents->vms * contents->hot_pages * SHARING_PAGE_BYTES);
	return g->hot ? 0 : -ENOMEM;
}

void sharing_kvm_guests_fini(struct sharing_kvm_guests *g)
{
	(void)sharing_kvm_guests_stop(g);
	for (unsigned i = 0; i < g->count; i++)
		micro_guest_destroy(g->guests[i]);
	free(g->hot);
}

/* ---- Lists ------------------------------------------------------------------------------------------------------- */

static uint64_t address_of(const struct sharing_kvm_guests *g, unsigned vm, uint64_t page,
			   unsigned word)
{
	return sharing_kvm_guest_of(g, vm)->data_va.v +
	       sharing_kvm_place_of(g, vm, page) * SHARING_PAGE_BYTES + word * sizeof(uint64_t);
}

static struct sharing_kvm_visit load_of(const struct sharing_kvm_guests *g, unsigned vm,
					uint64_t page, unsigned word)
{
	const struct sharing_contents *c = g->contents;

	return (struct sharing_kvm_visit){
		address_of(g, vm, page, word),
		page < c->hot_pages ? *sharing_kvm_hot_word(g, vm, page, word)
				    : sharing_page_word(c->seed, sharing_page(c, vm, page), word)
	};
}

static struct sharing_kvm_visit make_load(struct sharing_kvm_guests *g, unsigned vm)
{
	uint64_t random = sharing_random(&g->random), page = random % g->contents->vm_pages;

	if (!sharing_page(g->contents, vm, page))
		page = random % g->contents->hot_pages;
	return load_of(g, vm, page, random >> 48 & (SHARING_PAGE_WORDS - 1));
}

static struct sharing_kvm_visit make_store(struct sharing_kvm_guests *g, unsigned vm)
{
	uint64_t random = sharing_random(&g->random), page = random % g->contents->hot_pages;
	unsigned word = random >> 48 & (SHARING_PAGE_WORDS - 1);

	*sharing_kvm_hot_word(g, vm, page, word) = random;
	return (struct sharing_kvm_visit){ address_of(g, vm, page, word), random };
}

/* Run guest @i through its list, of so many of ->loads and ->stores. -EIO: it stopped; -errno. */
static int visit(struct sharing_kvm_guests *g, unsigned i, uint64_t loads, uint64_t stores)
{
	struct micro_guest *guest = g->guests[i];
	const gpa_t at = gpa(gfn_to_gpa(guest->data_gfn).v + g->list_at);
	uint64_t wrong = 0;
	int err = gn_vm_write(guest->vm, at, g->loads, loads * VISIT_BYTES);

	if (!err)
		err = gn_vm_write(guest->vm, gpa(at.v + loads * VISIT_BYTES), g->stores,
				  stores * VISIT_BYTES);
	if (err)
		return err;
	if (isinf(micro_guest_call(guest, micro_code_visit, true, guest->data_va.v + g->list_at,
				   stores, 0, loads, &wrong))) {
		cli_warn("the guest on KVM stopped: %s", gn_kvm_error(guest->kvm, 0));
		return -EIO;
	}
	g->mismatches += wrong;
	return 0;
}

/* ---- Turns ------------------------------------------------------------------------------------------------------- */

/* For all VMs of guest @i. All loads come before the first store. */
static int take_turn(struct sharing_kvm_guests *g, unsigned i)
{
	const unsigned vms = sharing_kvm_vms_each(g), first = i * vms;

	for (unsigned k = 0; k < vms * SHARING_KVM_LOADS; k++)
		g->loads[k] = make_load(g, first + k % vms);
	for (unsigned k = 0; k < vms * SHARING_KVM_STORES; k++)
		g->stores[k] = make_store(g, first + k % vms);
	return visit(g, i, vms * SHARING_KVM_LOADS, vms * SHARING_KVM_STORES);
}

static void *run(void *ctx)
{
	struct sharing_kvm_guests *g = ctx;

	while (!atomic_load_explicit(&g->is_stopping, memory_order_relaxed) && !g->err) {
		for (unsigned i = 0; i < g->count && !g->err; i++)
			g->err = take_turn(g, i);
		nanosleep(&(struct timespec){ 0, PAUSE_NS }, NULL);
	}
	return NULL;
}

int sharing_kvm_guests_start(struct sharing_kvm_guests *g)
{
	int err = -pthread_create(&g->thread, NULL, run, g);

	g->has_thread = !err;
	return err;
}

int sharing_kvm_guests_stop(struct sharing_kvm_guests *g)
{
	if (!g->has_thread)
		return 0;
	atomic_store(&g->is_stopping, true);
	pthread_join(g->thread, NULL);
	g->has_thread = false;
	return g->err ? g->err : g->mismatches ? -EBADMSG : 0;
}

/* ---- The walk ---------------------------------------------------------------------------------------------------- */

static int walk(struct sharing_kvm_guests *g, unsigned i, double end_s, uint64_t *pages)
{
	const struct sharing_contents *c = g->contents;
	const uint64_t all = sharing_kvm_vms_each(g) * c->vm_pages;
	uint64_t count = 0;
	int err = 0;

	for (uint64_t k = 0; k < all && !err && gn_now_s() < end_s; k++) {
		const unsigned vm = i * sharing_kvm_vms_each(g) + (unsigned)(k / c->vm_pages);

		if (sharing_page(c, vm, k % c->vm_pages))
			g->loads[count++] = load_of(g, vm, k % c->vm_pages, 0);
		if (!count || (count < SHARING_KVM_MOST_LOADS && k + 1 < all))
			continue;
		err = visit(g, i, count, 0);
		*pages += count;
		count = 0;
	}
	return err;
}

int sharing_kvm_guests_walk(struct sharing_kvm_guests *g, double most_s, uint64_t *pages)
{
	const double end_s = gn_now_s() + most_s;
	int err = 0;

	*pages = 0;
	for (unsigned i = 0; i < g->count && !err; i++)
		err = walk(g, i, end_s, pages);
	return err ? err : g->mismatches ? -EBADMSG : 0;
}
