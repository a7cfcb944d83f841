/* SPDX-License-Identifier: MIT */
/*
 * view_template.c - guest memory as KVM sees it, over a template (GN_POOL_TEMPLATE): the pool itself.
 *
 * Private memory cannot be mapped a second time, and need not be: every gfn has the frame of its own number for good. So the memory
 * slots lead to the pool. A page that is not there is the host's to bring, from the template's file or as a copy of it, and nobody asks us:
 * the filler has nothing to do, and the nested scheme has no leaf but what the engine was asked for.
 *
 * What is left is to keep stores out of a range while the p2m changes it. A userfaultfd in write-protect mode does, and no more than that:
 * the kernel takes the range's writable translations from KVM (MMU notifiers) before the call returns, and a store, the processor's or
 * one that KVM emulates, waits in the kernel until the range is let go. Who reads need not wait: to drop a copy that equals the template
 * changes nothing for him. (A write-protected page that is dropped stays so: the kernel leaves a marker in its place.)
 *
 * A change holds off range by range, and lets all in when it is over, still under the p2m lock: so no two changes meet here, and one list of
 * ranges is enough. (It has an end; to lift the protection of what had none costs KVM's translations of it, and nothing else.)
 *
 * Who faulted before that and has not lain down to wait when it wakes all waits nevertheless: the kernel looks whether the page
 * is writable by now, and lifting the protection does not make it so (userfaultfd_must_wait()). He has queued his event before he looks.
 * So the filler (fill.c) lets in the page of each event it gets, if the change under way does not have it; if it has, that wakes him. Pages
 * between the runs of a change are held off with those, and let in like that. The filler takes view_lock for it and nothing else: an engine's
 * store may wait with any lock, and in a read section that the change waits for.
 *
 * The engine's own stores go to the same addresses. They look at the word in an RCU read section, and a change of the p2m waits for
 * those that saw the rights of before (p2m.c) ahead of its hold_off(): they would wait for the change, and the change for them. One that sees the
 * rights of after may be early, and waits a moment for the rest of the change, which waits for nobody.
 *
 * A gfn that becomes READONLY or MMIO is let in as well: for the guest it is RAM until the slots follow (layout.c), which happens before who
 * asked is told. To hold stores off until then would be to wait for a vCPU in the kernel that waits for us.
 */
#include <errno.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "nested.h"

#define GAP_PAGES 16 /* between two that are held off at once */

int gn_kvm_view_template_new(struct gn_kvm_nested *n, char *why, size_t why_bytes)
{
	struct uffdio_api api = { .api = UFFD_API,
				  .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP |
					      UFFD_FEATURE_WP_HUGETLBFS_SHMEM };
	struct uffdio_register what = {
		.range = { .start = (uintptr_t)n->kvm->pool.base, .len = n->pages * GN_PAGE_SIZE },
		.mode = UFFDIO_REGISTER_MODE_WP,
	};

	if (!n->kvm->host.uffd_wp_private) {
		snprintf(why, why_bytes,
			 "a template under nested paging needs a userfaultfd that write-protects "
			 "private memory over a memfd, which this host lacks (Linux 5.19, "
			 "CONFIG_PTE_MARKER_UFFD_WP)");
		return -EOPNOTSUPP;
	}
	n->view = (uint8_t *)n->kvm->pool.base;
	n->uffd = gn_kvm_userfaultfd_open();
	if (n->uffd < 0)
		return gn_kvm_sys_fail(why, why_bytes, "userfaultfd", -n->uffd);
	if (ioctl(n->uffd, UFFDIO_API, &api))
		return gn_kvm_sys_fail(why, why_bytes, "UFFDIO_API", errno);
	if (ioctl(n->uffd, UFFDIO_REGISTER, &what))
		return gn_kvm_sys_fail(why, why_bytes, "UFFDIO_REGISTER of the pool", errno);
	return 0;
}

static int write_protect(struct gn_kvm_nested *n, uint64_t start, uint64_t end, bool on)
{
	struct uffdio_writeprotect what = {
		.range = { .start = (uintptr_t)n->view + start * GN_PAGE_SIZE,
			   .len = (end - start) * GN_PAGE_SIZE },
		.mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
	};

	return ioctl(n->uffd, UFFDIO_WRITEPROTECT, &what) ? -errno : 0;
}

static void fail(struct gn_kvm_nested *n, int err)
{
	gn_log(GN_LOG_ERROR, "stores to guest memory cannot be let in again: %s; the VM stops",
	       strerror(-err));
	gn_kvm_stop(n->kvm);
}

static void hold_off(struct gn_kvm_nested *n, uint64_t start, uint64_t end)
{
	struct gn_gfn_run *last = &n->held[GN_KVM_HELD_RANGES - 1];
	int err = write_protect(n, start, end, true);

	if (n->held_count < GN_KVM_HELD_RANGES) {
		n->held[n->held_count++] = (struct gn_gfn_run){ gfn(start), end - start };
	} else {
		const uint64_t last_end = last->start.v + last->count;

		if (start < last->start.v)
			last->start = gfn(start);
		last->count = (end > last_end ? end : last_end) - last->start.v;
	}
	if (err) {
		gn_log(GN_LOG_WARN, "stores to guest memory cannot be held off: %s",
		       strerror(-err));
		gn_p2m_note_unheld(n->kvm->vm);
	}
}

void gn_kvm_view_template_hold_off(struct gn_kvm_nested *n, const struct gn_gfn_run *runs,
				   size_t count)
{
	for (size_t at = 0, next; at < count; at = next) {
		const uint64_t start = runs[at].start.v,
			       end = gn_kvm_hull_end(runs, count, at, GAP_PAGES, &next);

		if (start < end)
			hold_off(n, start, end);
	}
}

void gn_kvm_view_template_let_all_in(struct gn_kvm_nested *n)
{
	int first_err = 0;

	for (unsigned i = 0; i < n->held_count; i++) {
		const struct gn_gfn_run *held = &n->held[i];
		int err = write_protect(n, held->start.v, held->start.v + held->count, false);

		if (!first_err)
			first_err = err;
	}
	n->held_count = 0;
	if (first_err)
		fail(n, first_err);
}

void gn_kvm_view_template_answer(struct gn_kvm_nested *n, gfn_t at)
{
	const p2m_word_t word = gn_p2m_get(&n->kvm->vm->p2m, at);
	const bool is_changing = gn_p2m_word_has_frame(word) && !gn_p2m_word_rights(word);
	int err = is_changing ? 0 : write_protect(n, at.v, at.v + 1, false);

	if (err)
		fail(n, err);
}
