/* SPDX-License-Identifier: MIT */
/*
 * kernel_exec.c - executables: a page cache of images, and exec.
 *
 * An image is a file of text then data pages; its contents are a formula, so a check needs no second
 * copy. A page is "read from disk" into the page cache at its first use and stays. All processes map the
 * cached frames of text; a write to data makes a private copy.
 *
 * exec builds a new space, loads it, writes the arguments to the new stack as the kernel does (a fault at
 * CPL 0 on a user address), and only then takes the old space apart.
 *
 * Absent: writing files; eviction, which files have that are data (kernel_cache.c).
 */
#include "kernel_state.h"

#define ARGV_BYTES  256
#define STACK_GUARD ((uint64_t)16 << 12)

static uint32_t read_page(const struct image *i, uint32_t page)
{
	uint32_t frame = k_frame_alloc_cleared();

	for (unsigned line = 0; line < K_PAGE / 64; line++)
		cpu_store64(k_va(k_gpa(frame)) + line * 64, kernel_image_word(i->seed, page, line));
	return frame;
}

uint32_t k_image_frame(int image, uint32_t page)
{
	struct image *i = &k_now->images[image];

	if (!i->cache[page])
		i->cache[page] = read_page(i, page);
	return i->cache[page];
}

int sys_image(const struct kernel_image *parts, uint64_t seed)
{
	struct kernel *k = k_now;
	int result = K_ENOMEM;

	k_enter(0);
	if ((uint64_t)parts->text_pages + parts->data_pages > K_IMAGE_PAGES_MAX)
		result = K_EINVAL;
	for (int i = 0; result == K_ENOMEM && i < K_IMAGE_MAX; i++) {
		if (k->images[i].used)
			continue;
		k->images[i].used = true;
		k->images[i].parts = *parts;
		k->images[i].seed = seed;
		result = i;
	}
	k_leave();
	return result;
}

static uint64_t add_part(struct mm *mm, uint64_t at, uint32_t pages, unsigned prot, int image,
			 uint32_t first_page)
{
	struct vma *v;

	if (!pages)
		return at;
	v = k_vma_add(mm, at, at + pages * K_PAGE, prot);
	v->image = (int16_t)image;
	v->image_page = first_page;
	return v->end;
}

static void lay_out(struct mm *mm, int image, struct kernel_layout *l)
{
	const struct kernel_image *p = &k_now->images[image].parts;
	uint64_t stack_top = ((uint64_t)1 << 47) - STACK_GUARD;

	l->text = K_TEXT_VA;
	l->data = add_part(mm, l->text, p->text_pages, K_READ | K_EXEC, image, 0);
	l->bss = add_part(mm, l->data, p->data_pages, K_READ | K_WRITE, image, p->text_pages);
	add_part(mm, l->bss, p->bss_pages, K_READ | K_WRITE, -1, 0);
	l->stack = stack_top - p->stack_pages * K_PAGE;
	add_part(mm, l->stack, p->stack_pages, K_READ | K_WRITE, -1, 0);
}

static void push_arguments(const struct kernel_layout *l, const struct kernel_image *parts)
{
	uint64_t top = l->stack + parts->stack_pages * K_PAGE;

	if (!parts->stack_pages)
		return;
	k_user_copy(true);
	for (uint64_t i = 8; i <= ARGV_BYTES; i += 8)
		cpu_store64(top - i, i);
	k_user_copy(false);
}

int sys_exec(int image, struct kernel_layout *layout)
{
	struct process *p = k_now->current;
	struct mm *old = p->mm;

	if (image < 0 || image >= K_IMAGE_MAX || !k_now->images[image].used)
		return K_EINVAL;
	k_enter(K_WORK_EXEC);
	p->mm = k_mm_new();
	p->segv = NULL;
	p->automap = false;
	lay_out(p->mm, image, layout);
	k_load_mm(p->mm);
	push_arguments(layout, &k_now->images[image].parts);
	k_mm_destroy(old);
	k_now->stats.execs++;
	k_leave();
	return 0;
}
