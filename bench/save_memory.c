/* SPDX-License-Identifier: MIT */
/*
 * save_memory.c - page by page, past those that nobody wrote.
 */
#include "save_memory.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <gnomon/engine.h>

/* Whether @at has contents at all; a look at a page without a frame would fill it. */
static bool has_contents(struct gn_vm *vm, gfn_t at)
{
	struct gn_p2m_info info;

	return !gn_p2m_query(vm, at, &info) &&
	       (info.state == GN_P2M_PRIVATE || info.state == GN_P2M_SHARED ||
		info.state == GN_P2M_READONLY);
}

static bool is_zero(const uint8_t *page)
{
	return !page[0] && !memcmp(page, page + 1, GN_PAGE_SIZE - 1);
}

static int put_page(int fd, const uint8_t *page, off_t at)
{
	for (size_t done = 0; done < GN_PAGE_SIZE;) {
		ssize_t n = pwrite(fd, page + done, GN_PAGE_SIZE - done, at + (off_t)done);

		if (n < 0 && errno != EINTR)
			return -errno;
		done += n > 0 ? (size_t)n : 0;
	}
	return 0;
}

static int put_memory(struct gn_vm *vm, uint64_t bytes, int fd)
{
	uint8_t page[GN_PAGE_SIZE];
	int err = ftruncate(fd, (off_t)bytes) ? -errno : 0;

	for (uint64_t at = 0; at < bytes && !err; at += GN_PAGE_SIZE) {
		if (!has_contents(vm, gpa_to_gfn(gpa(at))))
			continue;
		err = gn_vm_read(vm, gpa(at), page, sizeof(page));
		if (!err && !is_zero(page))
			err = put_page(fd, page, (off_t)at);
	}
	return err;
}

int save_memory_open(struct emit *e, const char *path)
{
	int err = emit_open(e, path);

	if (!err && fchmod(fileno(e->file), 0600)) {
		err = -errno;
		emit_abort(e);
	}
	return err;
}

int save_memory(struct gn_vm *vm, const struct emit *to, struct results_run *run)
{
	int err = put_memory(vm, run->mem_bytes, fileno(to->file));

	if (err)
		snprintf(run->failure, sizeof(run->failure), "the memory was not saved: %s",
			 strerror(-err));
	return err;
}
