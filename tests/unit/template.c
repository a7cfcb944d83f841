/* SPDX-License-Identifier: MIT */
/*
 * template.c - VMs over a template: what they read, what a store makes of it, what is dropped and what stays, what is refused, and who
 * comes in between two looks.
 */
#include <errno.h>

#include "mmu/audit.h"
#include "support/p2m_rig.h"
#include "support/template.h"

TestSuite(template, .fini = rig_teardown);

static int template_fd;

static void make(const struct gn_backend_ops *backend)
{
	struct gn_vm_config config = plain_config(PAGES * GN_PAGE_SIZE);

	template_fd = template_new(PAGES, TEMPLATE_SEALS);
	cr_assert_geq(template_fd, 0);
	config.pool = GN_POOL_TEMPLATE;
	config.template_fd = template_fd;
	config.backend = backend ? backend : config.backend;
	vm = plain_vm(&config);
	cr_assert_not_null(vm);
}

static void store(uint64_t at, unsigned word, uint64_t value)
{
	cr_assert_eq(gn_vm_write(vm, gpa(at * GN_PAGE_SIZE + word * sizeof(value)), &value,
				 sizeof(value)),
		     0);
}

static uint64_t load(uint64_t at, unsigned word)
{
	uint64_t value;

	cr_assert_eq(gn_vm_read(vm, gpa(at * GN_PAGE_SIZE + word * sizeof(value)), &value,
				sizeof(value)),
		     0);
	return value;
}

/* What it holds is the template's, by a copy. */
static void rewrite(uint64_t at)
{
	store(at, 7, template_word(at, 7));
}

static uint64_t drop(uint64_t at, uint64_t count, const uint8_t *spared)
{
	uint64_t dropped = ~(uint64_t)0;
	struct gn_audit_report report;

	cr_assert_eq(gn_p2m_drop_copies(vm, gfn(at), count, spared, &dropped), 0);
	cr_assert_eq(gn_audit(vm, &report), 0, "%s", report.first);
	return dropped;
}

static uint64_t count_copies(void)
{
	uint64_t bitmap[PAGES / 64], count = 0;

	cr_assert_eq(gn_frames_find_copies(vm->frames, pfn(0), PAGES, bitmap), 0);
	for (unsigned i = 0; i < PAGES / 64; i++)
		count += (unsigned)__builtin_popcountll(bitmap[i]);
	return count;
}

/* ---- Contents -------------------------------------------------------------------------------------------- */

Test(template, reads_as_the_file_and_a_store_makes_a_copy)
{
	uint64_t page[512], expected[512];

	make(NULL);
	cr_assert_eq(vm->p2m.backed_pages, PAGES);
	for (uint64_t at = 0; at < PAGES; at += 97) {
		template_page(at, expected);
		cr_assert_eq(gn_vm_read(vm, gfn_to_gpa(gfn(at)), page, sizeof(page)), 0);
		cr_assert_arr_eq(page, expected, sizeof(page));
		cr_assert_eq(plain_query(vm, at).state, GN_P2M_PRIVATE);
		cr_assert_eq(plain_query(vm, at).pfn.v, at);
	}
	cr_assert_eq(count_copies(), 0, "who reads makes no copy");
	store(5, 1, 42);
	store(PAGES - 1, 0, 43);
	cr_assert_eq(count_copies(), 2);
	cr_assert_eq(load(5, 1), 42);
	cr_assert_eq(load(5, 2), template_word(5, 2));
	cr_assert_eq(load(PAGES - 1, 0), 43);
	cr_assert_eq(pread(template_fd, page, 8, 5 * GN_PAGE_SIZE + 8), 8);
	cr_assert_eq(page[0], template_word(5, 1), "the file is as it was");
}

Test(template, two_vms_see_nothing_of_each_other)
{
	struct gn_vm_config config = plain_config(PAGES * GN_PAGE_SIZE);
	struct gn_vm *other;
	uint64_t value;

	make(NULL);
	config.pool = GN_POOL_TEMPLATE;
	config.template_fd = template_fd;
	other = plain_vm(&config);
	store(9, 0, 1);
	cr_assert_eq(gn_vm_read(other, gfn_to_gpa(gfn(9)), &value, sizeof(value)), 0);
	cr_assert_eq(value, template_word(9, 0));
	gn_vm_destroy(other);
	cr_assert_eq(load(9, 0), 1);
}

/* ---- Copies ------------------------------------------------------------------------------------------------ */

Test(template, copies_that_are_equal_go_and_others_stay)
{
	make(NULL);
	for (uint64_t at = 100; at < 1600; at++)
		rewrite(at);
	store(700, 511, 1);
	store(1000, 0, 2);
	cr_assert_eq(count_copies(), 1500);
	cr_assert_eq(drop(0, PAGES, NULL), 1498);
	cr_assert_eq(count_copies(), 2);
	cr_assert_eq(load(700, 511), 1);
	cr_assert_eq(load(1000, 0), 2);
	cr_assert_eq(load(701, 511), template_word(701, 511));
	cr_assert_eq(plain_query(vm, 701).rights, GN_RWX);
	cr_assert_eq(drop(0, PAGES, NULL), 0);
	store(700, 511, template_word(700, 511));
	cr_assert_eq(drop(0, PAGES, NULL), 1);
	rewrite(701);
	store(701, 3, 9);
	cr_assert_eq(load(701, 3), 9, "what was dropped can be written as any");
}

Test(template, what_is_spared_read_only_or_no_memory_stays)
{
	const uint8_t spared[] = { 0x01, 0x80 }; /* 16 and 31 */
	struct gn_balloon_usage usage;

	make(NULL);
	for (uint64_t at = 16; at < 32; at++)
		rewrite(at);
	cr_assert_eq(gn_p2m_protect(vm, gfn(17), 1, true), 0);
	cr_assert_eq(gn_p2m_set_mmio(vm, gfn(18), 1), 0);
	cr_assert_eq(drop(16, 16, spared), 12);
	gn_vm_balloon_usage(vm, &usage);
	cr_assert_eq(usage.released_bytes, 12 * GN_PAGE_SIZE);
	cr_assert_eq(gn_p2m_protect(vm, gfn(17), 1, false), 0);
	cr_assert_eq(drop(16, 16, NULL), 3);
	cr_assert_eq(plain_query(vm, 18).state, GN_P2M_MMIO);
	cr_assert_eq(vm->p2m.backed_pages, PAGES - 1);
}

Test(template, a_range_may_begin_and_end_anywhere)
{
	make(NULL);
	for (uint64_t at = 0; at < PAGES; at++)
		rewrite(at);
	cr_assert_eq(drop(63, 2, NULL), 2);
	cr_assert_eq(drop(PAGES - 1, 1, NULL), 1);
	cr_assert_eq(drop(1, 511, NULL), 509);
	cr_assert_eq(drop(7, 0, NULL), 0);
	cr_assert_eq(drop(0, PAGES, NULL), PAGES - 512);
}

/* ---- Who comes in between -------------------------------------------------------------------------------------- */

static uint64_t storing_to;

/* A processor that stores through a translation from before, until it is waited for. */
static void store_late(struct gn_vm *v)
{
	uint8_t *p = gn_p2m_pointer(v, gfn_to_gpa(gfn(storing_to)));

	if (p)
		p[99] ^= 1;
}

static const struct gn_backend_ops meddling = { .name = "meddling",
						.flush = plain_flush,
						.quiesce = store_late };

Test(template, the_second_look_counts)
{
	storing_to = 5;
	make(&meddling);
	for (uint64_t at = 0; at < 16; at++)
		rewrite(at);
	cr_assert_eq(drop(0, 16, NULL), 15);
	cr_assert_eq(count_copies(), 1);
	cr_assert_eq(load(5, 0), template_word(5, 0));
	cr_assert_neq(load(5, 12), template_word(5, 12));
	storing_to = PAGES;
}

static unsigned told_times;

static void fail_once(struct gn_vm *v, const struct gn_gfn_run *runs, size_t count,
		      enum gn_range_change change)
{
	cr_assert(count == 1 && runs[0].count == 1 && change == GN_RANGE_ZAP);
	if (++told_times == 1)
		gn_p2m_note_unheld(v);
}

static const struct gn_backend_ops failing = { .name = "failing",
					       .flush = plain_flush,
					       .range_changing = fail_once };

Test(template, nothing_goes_where_stores_are_not_held_off)
{
	make(&failing);
	rewrite(3);
	told_times = 0;
	cr_assert_eq(drop(0, PAGES, NULL), 0);
	cr_assert_eq(count_copies(), 1);
	cr_assert_eq(plain_query(vm, 3).rights, GN_RWX);
	cr_assert_eq(drop(0, PAGES, NULL), 1);
}

/* ---- What is refused --------------------------------------------------------------------------------------------- */

Test(template, frames_are_kept)
{
	struct gn_merge merge = { .at = gfn(3), .frame = pfn(4) };
	uint64_t pages, dropped = 1;

	make(NULL);
	cr_assert_eq(gn_p2m_populate(vm, gfn(0), PAGES), 0);
	cr_assert_eq(gn_p2m_discard(vm, gfn(3), 1), -EINVAL);
	cr_assert_eq(gn_p2m_balloon(vm, gfn(3), 1), -EINVAL);
	cr_assert_eq(gn_p2m_unballoon(vm, gfn(3), 1), -EINVAL);
	cr_assert_eq(gn_p2m_move(vm, gfn(3), 1), -EINVAL);
	cr_assert_eq(gn_p2m_share(vm, gfn(3), gfn(4)), -EINVAL);
	cr_assert_eq(gn_p2m_collapse(vm, gfn(0)), -EINVAL);
	cr_assert_eq(gn_p2m_publish(vm, &merge, 1, GN_SHARE_READ), -EINVAL);
	cr_assert_eq(gn_p2m_merge(vm, &merge, 1, GN_SHARE_READ, NULL), -EINVAL);
	cr_assert_eq(gn_p2m_discard_zeroes(vm, gfn(0), PAGES, NULL, &pages), -EINVAL);
	cr_assert_eq(gn_p2m_drop_copies(vm, gfn(1), PAGES, NULL, &dropped), -EINVAL);
	cr_assert_eq(dropped, 0);
	for (uint64_t at = 0; at < PAGES; at++)
		cr_assert_eq(rig_state(at), GN_P2M_PRIVATE);
	cr_assert_eq(gn_p2m_set_mmio(vm, gfn(3), 1), 0);
	cr_assert_eq(gn_p2m_discard(vm, gfn(3), 1), -EINVAL, "nor does one come back");
}

static void count_left_out(void *ctx, gfn_t at)
{
	(void)at;
	++*(unsigned *)ctx;
}

Test(template, a_balloon_is_told_of_each_page)
{
	const struct gn_gfn_run run = { gfn(8), 8 };
	unsigned left_out = 0;

	make(NULL);
	gn_p2m_drop_allowed(vm, &run, 1, GN_P2M_DROP_BALLOON, count_left_out, &left_out);
	cr_assert_eq(left_out, 8);
	cr_assert_eq(rig_state(8), GN_P2M_PRIVATE);
}

Test(template, other_vms_have_none)
{
	uint64_t dropped = 1;

	rig_make(PAGES * GN_PAGE_SIZE, 1);
	cr_assert_eq(gn_p2m_drop_copies(vm, gfn(0), 1, NULL, &dropped), -EINVAL);
	cr_assert_eq(dropped, 0);
}

Test(template, files_that_will_not_do)
{
	static const struct {
		uint64_t pages;
		int seals, err;
	} files[] = {
		{ PAGES, 0, -EPERM },
		{ PAGES, F_SEAL_WRITE, -EPERM },
		{ PAGES, F_SEAL_SHRINK, -EPERM },
		{ PAGES, F_SEAL_FUTURE_WRITE | F_SEAL_SHRINK, -EPERM },
		{ PAGES - 1, TEMPLATE_SEALS, -EINVAL },
	};
	struct gn_vm_config config = plain_config(PAGES * GN_PAGE_SIZE);

	rig_make(MIB, 1);
	config.pool = GN_POOL_TEMPLATE;
	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		struct gn_vm *none;

		config.template_fd = template_new(files[i].pages, files[i].seals);
		cr_assert_geq(config.template_fd, 0);
		cr_assert_eq(gn_vm_create(&config, &none), files[i].err, "file %zu", i);
		close(config.template_fd);
	}
	config.template_fd = -1;
	cr_assert_eq(gn_vm_create(&config, &(struct gn_vm *){ NULL }), -EBADF);
	/* A mapping of large pages would reach beyond what was asked for. */
	config.template_fd = memfd_create("large", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB);
	if (config.template_fd < 0)
		return;
	cr_assert_eq(ftruncate(config.template_fd, 64 * MIB), 0);
	cr_assert_eq(fcntl(config.template_fd, F_ADD_SEALS, TEMPLATE_SEALS), 0);
	cr_assert_eq(gn_vm_create(&config, &(struct gn_vm *){ NULL }), -EINVAL);
	close(config.template_fd);
}

#define REFUSED(field, value)                                                                      \
	do {                                                                                       \
		struct gn_vm_config c = config;                                                    \
		c.field = value;                                                                   \
		cr_assert_eq(gn_vm_create(&c, &none), -EINVAL, #field);                            \
	} while (0)

Test(template, configurations_that_will_not_do)
{
	struct gn_vm_config config = plain_config(PAGES * GN_PAGE_SIZE);
	struct gn_frames *frames;
	struct gn_vm *none;

	rig_make(MIB, 1);
	config.pool = GN_POOL_TEMPLATE;
	config.template_fd = template_new(PAGES, TEMPLATE_SEALS);
	REFUSED(backing_level, 2);
	REFUSED(window_bytes, 2 * MIB);
	REFUSED(pool_bytes, (PAGES - 1) * GN_PAGE_SIZE);
	REFUSED(frames, vm->frames);
	cr_assert_eq(gn_frames_new(2 * MIB, GN_POOL_TEMPLATE, false, &frames), -EINVAL,
		     "a template is one VM's to be over");
	close(config.template_fd);
}

Test(template, out_of_memory_leaves_nothing)
{
	struct gn_vm_config config = plain_config(PAGES * GN_PAGE_SIZE);
	struct gn_vm *other = NULL;
	unsigned n = 0;
	int err;

	rig_make(MIB, 1);
	config.pool = GN_POOL_TEMPLATE;
	config.template_fd = template_new(PAGES, TEMPLATE_SEALS);
	do {
		gn_alloc_fail_nth(++n);
		err = gn_vm_create(&config, &other);
		gn_alloc_fail_nth(0);
		cr_assert(!err || err == -ENOMEM);
	} while (err);
	cr_assert_gt(n, 4);
	gn_vm_destroy(other);
	close(config.template_fd);
}
