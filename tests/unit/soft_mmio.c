/* SPDX-License-Identifier: MIT */
/*
 * soft_mmio.c - devices of the embedder in the software machine: the hook, and a balloon that a guest drives by loads and
 * stores under every scheme.
 */
#include <criterion/criterion.h>
#include <errno.h>

#include <gnomon/balloon.h>

#include "unit/soft_guest.h"

#define MIB ((uint64_t)1 << 20)
#define DEVICE                                                                                     \
	((uint64_t)0xffff900000000000) /* GVA of the device's page, and of the one behind it */
#define DATA	((uint64_t)0xffff800000000000) /* GVA of GPA 1 MiB */
#define DATA_PA (1 * MIB)
#define BEYOND	((uint64_t)0x4000000000) /* GPA of no memory and no device */
#define QUEUE	16

static struct guest g;
static struct {
	uint64_t at, value;
	unsigned cpu, bytes, reads, writes;
	bool answers;
} seen;

static bool device(void *ctx, unsigned cpu, uint64_t at, unsigned bytes, bool is_write,
		   uint64_t *value)
{
	cr_assert_eq(ctx, &seen);
	seen.at = at;
	seen.cpu = cpu;
	seen.bytes = bytes;
	if (is_write) {
		seen.writes++;
		seen.value = *value;
	} else {
		seen.reads++;
		*value = 0x1122334455667788;
	}
	return seen.answers;
}

static void create(const char *scheme, bool deprivileged)
{
	const struct gn_soft_config config = {
		.vm = { .scheme = scheme, .mem_bytes = 16 * MIB, .vcpus = 1 },
		.deprivileged = deprivileged
	};

	guest_create(&g, &config, 4);
	for (uint64_t page = 0; page < 8; page++)
		guest_map(&g, DATA + page * GN_PAGE_SIZE, DATA_PA + page * GN_PAGE_SIZE, 1,
			  GUEST_RW);
	guest_map(&g, DEVICE, GN_BALLOON_MMIO_GPA, 1, GUEST_RW);
	guest_map(&g, DEVICE + GN_PAGE_SIZE, BEYOND, 1, GUEST_RW);
	guest_start(&g, 0);
}

static void use_hook(struct gn_soft_cpu *cpu, void *ctx)
{
	(void)ctx;
	memset(&seen, 0, sizeof(seen));
	cr_assert_eq(gn_soft_load(cpu, gva(DEVICE + 8), 4), UINT32_MAX, "nobody answers");
	seen.answers = true;
	cr_assert_eq(gn_soft_load(cpu, gva(DEVICE + 8), 8), 0x1122334455667788);
	cr_assert_eq(gn_soft_load(cpu, gva(DEVICE + 0x10), 4), 0x55667788);
	cr_assert_eq(seen.at, GN_BALLOON_MMIO_GPA + 0x10);
	cr_assert_eq(seen.bytes, 4);
	cr_assert_eq(seen.cpu, 0);
	cr_assert_eq(gn_soft_load(cpu, gva(DEVICE + 0x11), 1), 0x88);
	cr_assert_eq(seen.reads, 4);
	gn_soft_store(cpu, gva(DEVICE + 0x50), 4, 0xffffffff00000003);
	cr_assert_eq(seen.value, 3, "4 bytes of it");
	cr_assert_eq(seen.writes, 1);
	/* Across the border of two pages: one piece each. */
	gn_soft_store(cpu, gva(DEVICE + GN_PAGE_SIZE - 3), 8, 0x1122334455667788);
	cr_assert_eq(seen.writes, 3);
	cr_assert_eq(seen.at, BEYOND);
	cr_assert_eq(seen.bytes, 5);
	cr_assert_eq(seen.value, 0x1122334455);
	seen.reads = 0;
	gn_soft_fetch(cpu, gva(DEVICE));
	cr_assert_eq(seen.reads, 0, "no code in a device");
}

static uint64_t reg(struct gn_soft_cpu *cpu, unsigned offset)
{
	return gn_soft_load(cpu, gva(DEVICE + offset), 4);
}

static void set_reg(struct gn_soft_cpu *cpu, unsigned offset, uint64_t value)
{
	gn_soft_store(cpu, gva(DEVICE + offset), 4, value);
}

/* Queue @index lies in data page @index. */
static void set_queue(struct gn_soft_cpu *cpu, unsigned index)
{
	uint64_t at = DATA_PA + index * GN_PAGE_SIZE;

	set_reg(cpu, GN_VIRTIO_QUEUE_SEL, index);
	set_reg(cpu, GN_VIRTIO_QUEUE_NUM, QUEUE);
	set_reg(cpu, GN_VIRTIO_QUEUE_DESC_LOW, at);
	set_reg(cpu, GN_VIRTIO_QUEUE_DRIVER_LOW, at + 0x400);
	set_reg(cpu, GN_VIRTIO_QUEUE_DEVICE_LOW, at + 0x800);
	set_reg(cpu, GN_VIRTIO_QUEUE_READY, 1);
	cr_assert_eq(reg(cpu, GN_VIRTIO_QUEUE_READY), 1);
}

/* The frame number in data page 2 goes to queue @index as its buffer number @n. */
static void tell(struct gn_soft_cpu *cpu, unsigned index, unsigned n, uint32_t pfn)
{
	uint64_t queue = DATA + index * GN_PAGE_SIZE;

	gn_soft_store(cpu, gva(DATA + 2 * GN_PAGE_SIZE), 4, pfn);
	gn_soft_store(cpu, gva(queue), 8, DATA_PA + 2 * GN_PAGE_SIZE);
	gn_soft_store(cpu, gva(queue + 8), 8, 4);
	gn_soft_store(cpu, gva(queue + 0x404 + 2 * (n % QUEUE)), 2, 0);
	gn_soft_store(cpu, gva(queue + 0x402), 2, n + 1);
	set_reg(cpu, GN_VIRTIO_QUEUE_NOTIFY, index);
	cr_assert_eq(gn_soft_load(cpu, gva(queue + 0x802), 2), n + 1, "used");
}

static void drive_balloon(struct gn_soft_cpu *cpu, void *ctx)
{
	const uint64_t at = DATA + 7 * GN_PAGE_SIZE;
	const uint32_t pfn = (uint32_t)((DATA_PA >> GN_PAGE_SHIFT) + 7);
	uint32_t status = GN_VIRTIO_STATUS_ACKNOWLEDGE | GN_VIRTIO_STATUS_DRIVER;

	cr_assert_eq(reg(cpu, GN_VIRTIO_MAGIC), GN_VIRTIO_MAGIC_VALUE);
	set_reg(cpu, GN_VIRTIO_STATUS, status);
	set_reg(cpu, GN_VIRTIO_DRIVER_FEATURES_SEL, 0);
	set_reg(cpu, GN_VIRTIO_DRIVER_FEATURES, GN_BALLOON_F_MUST_TELL_HOST);
	set_reg(cpu, GN_VIRTIO_DRIVER_FEATURES_SEL, 1);
	set_reg(cpu, GN_VIRTIO_DRIVER_FEATURES, 1);
	set_reg(cpu, GN_VIRTIO_STATUS, status |= GN_VIRTIO_STATUS_FEATURES_OK);
	set_queue(cpu, 0);
	set_queue(cpu, 1);
	set_reg(cpu, GN_VIRTIO_STATUS, status | GN_VIRTIO_STATUS_DRIVER_OK);

	for (unsigned n = 0; n < 3; n++) {
		gn_soft_store(cpu, gva(at), 8, 42 + n);
		cr_assert_eq(gn_soft_load(cpu, gva(at), 8), 42 + n);
		tell(cpu, 0, n, pfn);
		cr_assert_eq(gn_balloon_actual_pages((struct gn_balloon *)ctx), 1);
		tell(cpu, 1, n, pfn);
		cr_assert_eq(gn_soft_load(cpu, gva(at), 8), 0, "another frame, or none");
	}
	tell(cpu, 0, 3, pfn);
	(void)gn_soft_load(cpu, gva(at), 8);
	cr_assert_fail("the guest touched what it had given away");
}

static void run(const char *scheme, bool deprivileged)
{
	const struct gn_balloon_config config = { .features = GN_BALLOON_F_ALL };
	struct gn_audit_report report;
	struct gn_balloon *balloon;

	create(scheme, deprivileged);
	gn_soft_set_mmio(g.soft, device, &seen);
	cr_assert_eq(gn_soft_run(g.cpu, use_hook, NULL), 0, "%s: %s", scheme,
		     gn_soft_stop_reason(g.cpu));
	cr_assert_eq(gn_balloon_create(g.vm, &config, &balloon), 0);
	gn_soft_set_mmio(g.soft, gn_balloon_mmio, balloon);
	cr_assert_eq(gn_soft_run(g.cpu, drive_balloon, balloon), -ECANCELED, "%s", scheme);
	cr_assert_not_null(strstr(gn_soft_stop_reason(g.cpu), "given back to the balloon"),
			   "%s: %s", scheme, gn_soft_stop_reason(g.cpu));
	cr_assert_eq(gn_audit(g.vm, &report), 0, "%s: %s", scheme, report.first);
	gn_balloon_destroy(balloon);
	guest_destroy(&g);
}

Test(soft_mmio, a_balloon_under_every_scheme)
{
	static const char *const schemes[] = { "native", "shadow", "shadow-vtlb",
					       "ept",	 "npt",	   "interp" };

	for (unsigned i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++)
		for (unsigned deprivileged = 0; deprivileged < 2; deprivileged++)
			run(schemes[i], deprivileged);
}
