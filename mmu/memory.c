/* SPDX-License-Identifier: MIT */
/*
 * memory.c - guest memory from outside: a device reads, a loader writes, a checksum proves.
 *
 * Both copies go page by page: resolve (which fills, or copies a shared frame), then copy inside one
 * RCU section after looking at the word again, since the p2m may have moved on. Stores are reported to the
 * dirty log and to the scheme, which may be shadowing the page as a table.
 *
 * vm->lock is held throughout, for the scheme may be exchanged by another thread.
 *
 * The checksum is XXH3-64 over one 64-bit XXH3 digest a page, in the order of gfns. The digest of a zero
 * page is computed once, so RAM that was never touched costs nothing to speak of, and a frame full of zeros
 * counts as if it were not there. Ballooned and MMIO pages count as zeros as well.
 */
#include <errno.h>
#include <string.h>

#define XXH_STATIC_LINKING_ONLY /* the state on our stack */
#include <xxhash.h>

#include "vm.h"

/* Copy within one page. @to_guest: from @buf to the guest. */
static int copy_page(struct gn_vm *vm, gpa_t at, void *buf, size_t bytes, bool to_guest)
{
	const gn_rights_t need = to_guest ? GN_W : GN_R;

	for (;;) {
		struct gn_fix fix = { 0 };
		p2m_word_t w;
		void *p;
		int err = gn_p2m_resolve(vm, gpa_to_gfn(at), to_guest, &w, &fix);

		if (err)
			return err;
		if (fix.kind != GN_FIX_RETRY)
			return -EFAULT;
		gn_rcu_read_lock();
		w = to_guest ? gn_p2m_get_to_store(vm, gpa_to_gfn(at))
			     : gn_p2m_get(&vm->p2m, gpa_to_gfn(at));
		if (!gn_p2m_word_grants(w, need)) {
			gn_rcu_read_unlock();
			continue;
		}
		p = gn_p2m_pointer_of(vm, w, at);
		if (to_guest)
			memcpy(p, buf, bytes);
		else
			memcpy(buf, p, bytes);
		gn_rcu_read_unlock();
		return 0;
	}
}

static int copy(struct gn_vm *vm, gpa_t at, void *buf, size_t bytes, bool to_guest)
{
	uint8_t *p = buf;
	int err = 0;

	if (at.v > vm->config.mem_bytes || bytes > vm->config.mem_bytes - at.v)
		return -EFAULT;
	gn_lock(&vm->lock);
	while (bytes && !err) {
		size_t n = GN_PAGE_SIZE - (at.v & (GN_PAGE_SIZE - 1));

		if (n > bytes)
			n = bytes;
		err = copy_page(vm, at, p, n, to_guest);
		if (!err && to_guest && vm->ops->memory_written)
			vm->ops->memory_written(vm, NULL, at, (unsigned)n);
		at.v += n;
		p += n;
		bytes -= n;
	}
	gn_unlock(&vm->lock);
	gn_retire_poll(vm);
	return err;
}

int gn_vm_read(struct gn_vm *vm, gpa_t at, void *buf, size_t bytes)
{
	return copy(vm, at, buf, bytes, false);
}

int gn_vm_write(struct gn_vm *vm, gpa_t at, const void *buf, size_t bytes)
{
	return copy(vm, at, (void *)(uintptr_t)buf, bytes, true);
}

uint64_t gn_vm_memory_sum(struct gn_vm *vm)
{
	return gn_vm_memory_sum_range(vm, gfn(0), vm->p2m.gfn_count);
}

uint64_t gn_vm_memory_sum_range(struct gn_vm *vm, gfn_t start, uint64_t count)
{
	static const uint8_t zero_page[GN_PAGE_SIZE];
	const uint64_t zero = XXH3_64bits(zero_page, GN_PAGE_SIZE);
	XXH3_state_t state;

	XXH3_64bits_reset(&state);
	for (uint64_t i = start.v; i < vm->p2m.gfn_count && i - start.v < count; i++) {
		uint64_t digest = zero;
		const void *p;

		gn_rcu_read_lock();
		p = gn_p2m_pointer(vm, gfn_to_gpa(gfn(i)));
		if (p)
			digest = XXH3_64bits(p, GN_PAGE_SIZE);
		gn_rcu_read_unlock();
		XXH3_64bits_update(&state, &digest, sizeof(digest));
	}
	return XXH3_64bits_digest(&state);
}
