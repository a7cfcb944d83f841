/* SPDX-License-Identifier: MIT */
/*
 * template.h - a sealed file that VMs begin with, and VMs over it.
 */
#ifndef GN_TESTS_TEMPLATE_H
#define GN_TESTS_TEMPLATE_H

#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <gnomon/types.h>

/* A word of the template: no two pages are alike, and none is zeros. */
static inline uint64_t template_word(uint64_t page, unsigned word)
{
	return (page + 1) * 0x9e3779b97f4a7c15u + word;
}

static inline void template_page(uint64_t page, uint64_t *out)
{
	for (unsigned i = 0; i < GN_PAGE_SIZE / sizeof(out[0]); i++)
		out[i] = template_word(page, i);
}

#define TEMPLATE_SEALS (F_SEAL_WRITE | F_SEAL_SHRINK)

/* A memfd of zeros, to be written and then sealed with TEMPLATE_SEALS. -1: none could be had. */
static inline int template_empty(uint64_t bytes)
{
	int fd = memfd_create("template", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd >= 0 && !ftruncate(fd, (off_t)bytes))
		return fd;
	if (fd >= 0)
		close(fd);
	return -1;
}

/* A memfd of @pages such pages with @seals. -1: none could be had. */
static inline int template_new(uint64_t pages, int seals)
{
	int fd = memfd_create("template", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	uint64_t page[GN_PAGE_SIZE / sizeof(uint64_t)];
	bool good = fd >= 0;

	for (uint64_t i = 0; good && i < pages; i++) {
		template_page(i, page);
		good = pwrite(fd, page, sizeof(page), (off_t)(i * sizeof(page))) == sizeof(page);
	}
	if (good && !fcntl(fd, F_ADD_SEALS, seals))
		return fd;
	if (fd >= 0)
		close(fd);
	return -1;
}

#endif
