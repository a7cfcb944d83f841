/* SPDX-License-Identifier: MIT */
/*
 * nested.c - nested mode on /dev/kvm, end to end: registers, ports, stops, demand population, every state of a gfn, large
 * pages, tables that are no memory. What is done to a guest that runs is nested_running.c, the dirty log nested_dirty.c.
 */
#include "kvm/nested_guest.h"
#include "kvmbackend/nested.h"

/* ---- Guest programs: arguments in rbx, rcx, rsi ------------------------------------------------------------- */

/* At CPL 0: hello, then exit with ecx. */
RIG_CODE(hello, "mov $0x3f8, %dx\n mov $'h', %al\n out %al, %dx\n mov $'i', %al\n out %al, %dx\n"
		"mov $0x3fd, %dx\n in %dx, %al\n mov %al, %bl\n"
		"mov %ecx, %eax\n mov $0xf4, %dx\n out %eax, %dx\n hlt")
RIG_CODE(halt_off, "cli\n hlt")
RIG_CODE(undefined, "ud2")
RIG_CODE(call_port, "mov %ecx, %eax\n mov $0x5c0, %dx\n out %eax, %dx\n mov $0x777, %dx\n"
		    "in %dx, %eax\n mov $0xf4, %dx\n out %eax, %dx")
RIG_CODE(string_out, "mov $0x3f8, %dx\n mov %rbx, %rsi\n cld\n rep outsb\n mov $7, %eax\n"
		     "mov $0xf4, %dx\n out %eax, %dx")
RIG_CODE(jump_to, "jmp *%rbx")
RIG_CODE(load_cr3, "mov %rbx, %cr3\n mov $5, %eax\n mov $0xf4, %dx\n out %eax, %dx")
RIG_CODE(triple_fault, "push $0\n push $0\n lidt (%rsp)\n ud2")
/* Instructions KVM's emulator lacks, with what must come of them. */
RIG_CODE(int_n, "int $0x40\n int $0x40\n mov %r15d, %eax\n mov $0xf4, %dx\n out %eax, %dx")
RIG_CODE(int_3, "mov %ecx, %eax\n int3")
RIG_CODE(stac_clac, "stac\n pushfq\n pop %rax\n clac\n pushfq\n pop %rbx\n shr $18, %eax\n"
		    "and $1, %eax\n shr $17, %ebx\n and $2, %ebx\n or %ebx, %eax\n"
		    "mov $0xf4, %dx\n out %eax, %dx")
RIG_CODE(inv_pcid, "push $0\n push $0\n mov $2, %eax\n invpcid (%rsp), %rax\n mov $9, %eax\n"
		   "mov $0xf4, %dx\n out %eax, %dx")
RIG_CODE(store_byte, "movb $0x5a, (%rbx)\n mov (%rbx), %al\n movzx %al, %eax\n int3")
RIG_CODE(load_word, "mov (%rbx), %eax\n int3")

/* ---- Registers, ports, stops ----------------------------------------------------------------------------------------- */

struct console {
	char text[256];
	size_t bytes;
	unsigned calls;
};

static void console_text(void *ctx, const char *text, size_t bytes)
{
	struct console *c = (struct console *)ctx;

	if (c->bytes + bytes < sizeof(c->text)) {
		memcpy(c->text + c->bytes, text, bytes);
		c->bytes += bytes;
	}
}

static bool console_port(void *ctx, struct gn_kvm *kvm, unsigned vcpu, uint16_t port,
			 unsigned bytes, bool is_out, uint32_t *value)
{
	struct console *c = (struct console *)ctx;

	(void)kvm;
	(void)vcpu;
	(void)bytes;
	c->calls++;
	if (port != 0x777 || is_out)
		return port == GN_GUEST_PORT_CALL;
	*value = 0x1234;
	return true;
}

static void registers_and_ports(void)
{
	struct console c = { .bytes = 0 };
	struct gn_kvm_config config = plain();
	struct gn_kvm_stats stats;
	struct gn_kvm_state before, after;
	struct gn_kvm *kvm;

	config.console = console_text;
	config.port = console_port;
	config.ctx = &c;
	config.time_exits = true;
	kvm = rig_new(&config);
	if (!kvm)
		return;
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 0, hello, 0, 42, 0), 42);
	RIG_CHECK(!strcmp(c.text, "hi"), "console has '%s'", c.text);
	RIG_CHECK(!gn_kvm_get_state(kvm, 0, &after), "get_state");
	RIG_CHECK((after.gpr[3] & 0xff) == 0x60, "line status read as %#llx",
		  (unsigned long long)after.gpr[3]);
	gn_kvm_stats(kvm, &stats);
	RIG_CHECK(stats.exits_by[GN_EXIT_IO] == 4 && stats.ns_by[GN_EXIT_IO] > 0, "%llu port exits",
		  (unsigned long long)stats.exits_by[GN_EXIT_IO]);
	/* Its memory is the code it made. */
	RIG_CHECK(stats.uffd_faults > 0, "nothing was populated on demand");

	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 0, call_port, 0, GN_GUEST_CALL_TEST, 0), 0x1234);
	RIG_CHECK(c.calls == 2, "%u port calls", c.calls);
	c.bytes = 0;
	memset(c.text, 0, sizeof(c.text));
	rig_write(kvm, RIG_DATA, "a string", 8);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 0, string_out, RIG_DATA, 8, 0), 7);
	RIG_CHECK(!strcmp(c.text, "a string"), "console has '%s'", c.text);

	/* State survives a round trip. */
	rig_state(&before, RIG_CODE_PA, 3, 0);
	for (unsigned i = 0; i < 16; i++)
		before.gpr[i] = 0x0101010101010101 * (uint64_t)(i + 1);
	before.rflags = 0x246;
	before.star = 0x1b000800000000;
	before.lstar = 0xffffffff80001000;
	before.sfmask = 0x700;
	before.kernel_gs_base = 0xffff888000000000;
	before.fs.base = 0x7f0000001000;
	before.cr2 = 0xdeadbeef000;
	RIG_CHECK(!gn_kvm_set_state(kvm, 1, &before), "set_state");
	RIG_CHECK(!gn_kvm_get_state(kvm, 1, &after), "get_state");
	RIG_CHECK(!memcmp(&before, &after, sizeof(before)), "state changed on its way");
	RIG_CHECK(!memcmp(gn_vcpu_regs(gn_vm_vcpu(gn_kvm_vm(kvm), 1)), &before.regs,
			  sizeof(before.regs)),
		  "the engine has other registers");
	before.regs.cr0 |= X86_CR0_PG;
	before.regs.cr4 = 0; /* long mode without PAE */
	RIG_CHECK(gn_kvm_set_state(kvm, 1, &before) == -EINVAL, "an impossible state was taken");
	gn_kvm_destroy(kvm);
}

static void stops(void)
{
	struct gn_kvm_config config = plain();
	struct gn_kvm *kvm = rig_new(&config);
	struct rig_result r;

	if (!kvm)
		return;
	r = RIG_RUN(kvm, 0, halt_off, 0, 0, 0);
	RIG_CHECK(r.stop == GN_KVM_STOP_HALT, "stop %d: %s", r.stop, gn_kvm_error(kvm, 0));
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, halt_off, 0, 0, 0), RIG_EXCEPTION + 13);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, undefined, 0, 0, 0), RIG_EXCEPTION + 6);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 0, undefined, 0, 0, 0), RIG_EXCEPTION + 6);
	r = RIG_RUN(kvm, 0, triple_fault, 0, 0, 0);
	RIG_CHECK(r.stop == GN_KVM_STOP_SHUTDOWN, "stop %d: %s", r.stop, gn_kvm_error(kvm, 0));
	/* Told to stop before it runs. */
	rig_program(kvm, 0, 3, count_up, count_up_end, RIG_DATA, 0, 0);
	gn_kvm_stop(kvm);
	r = rig_run(kvm, 0);
	RIG_CHECK(r.stop == GN_KVM_STOP_ASKED, "stop %d", r.stop);
	gn_kvm_destroy(kvm);
}

/* What KVM's emulator lacks on hosts that emulate CPL 0; on the others the CPU does it. */
static void lacking_instructions(void)
{
	struct gn_kvm_config config = plain();
	struct gn_kvm *kvm = rig_new(&config);
	struct rig_result r;

	if (!kvm)
		return;
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 0, int_n, 0, 0, 0), 2);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 0, int_3, 0, 77, 0), 77);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 0, stac_clac, 0, 0, 0),
			host.smap ? 1 : RIG_EXCEPTION + 6);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 0, inv_pcid, 0, 0, 0),
			host.invpcid ? 9 : RIG_EXCEPTION + 6);
	/* One that may not be emulated stops the guest and is named. */
	RIG_CHECK(!gn_p2m_set_mmio(gn_kvm_vm(kvm), gfn((32 * MIB) >> 12), 1), "set_mmio");
	r = RIG_RUN(kvm, 0, jump_to, 32 * MIB, 0, 0);
	RIG_CHECK(r.stop == GN_KVM_STOP_GUEST || r.stop == GN_KVM_STOP_SHUTDOWN ||
			  r.stop == GN_KVM_STOP_EXIT,
		  "a jump into MMIO: stop %d", r.stop);
	RIG_CHECK(gn_kvm_error(kvm, 0)[0], "no reason");
	printf("a jump into MMIO: %s\n", gn_kvm_error(kvm, 0));
	gn_kvm_destroy(kvm);
}

/* ---- Memory ------------------------------------------------------------------------------------------------------ */

static void demand_and_ahead(bool populate)
{
	struct gn_kvm_config config = plain();
	const uint64_t pages = 1000;
	struct gn_kvm_stats stats;
	struct gn_audit_report report;
	struct gn_kvm *kvm;
	uint64_t faults;

	config.populate = populate;
	kvm = rig_new(&config);
	if (!kvm)
		return;
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, read_pages, RIG_DATA, pages, 0), 0);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, write_pages, RIG_DATA, pages, 5), 0);
	for (uint64_t i = 0; i < pages; i += 97)
		RIG_CHECK(rig_read(kvm, RIG_DATA + i * PAGE) == RIG_DATA + i * PAGE + 5,
			  "page %llu", (unsigned long long)i);
	gn_kvm_stats(kvm, &stats);
	faults = stats.uffd_faults;
	RIG_CHECK(populate ? faults == 0 : faults >= pages, "%llu faults",
		  (unsigned long long)faults);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, write_pages, RIG_DATA, pages, 6), 0);
	gn_kvm_stats(kvm, &stats);
	RIG_CHECK(stats.uffd_faults == faults, "pages that are there fault again");
	RIG_CHECK(!gn_audit(gn_kvm_vm(kvm), &report), "%s", report.first);
	gn_kvm_destroy(kvm);
}

/* What a run cost is in the books when it is over. */
static void books(void)
{
	struct gn_kvm_config config = plain();
	struct gn_kvm_stats before, after;
	struct gn_kvm *kvm;

	config.time_exits = true;
	kvm = rig_new(&config);
	if (!kvm)
		return;
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, load_word, RIG_DATA, 0, 0), 0);
	gn_kvm_stats(kvm, &before);
	for (unsigned i = 1; i <= 300; i++) {
		RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, load_word, RIG_DATA + i * PAGE, 0, 0), 0);
		gn_kvm_stats(kvm, &after);
		RIG_CHECK(after.uffd_faults == before.uffd_faults + 1 &&
				  after.uffd_bytes == before.uffd_bytes + PAGE &&
				  after.ns_by[GN_EXIT_NESTED] > before.ns_by[GN_EXIT_NESTED],
			  "page %u: %llu faults, %llu bytes, %llu ns", i,
			  (unsigned long long)(after.uffd_faults - before.uffd_faults),
			  (unsigned long long)(after.uffd_bytes - before.uffd_bytes),
			  (unsigned long long)(after.ns_by[GN_EXIT_NESTED] -
					       before.ns_by[GN_EXIT_NESTED]));
		before = after;
	}
	gn_kvm_destroy(kvm);
}

static uint64_t device_written;

static bool device(void *ctx, unsigned vcpu, uint64_t at, unsigned bytes, bool is_write,
		   uint64_t *value)
{
	(void)ctx;
	(void)vcpu;
	(void)at;
	(void)bytes;
	if (is_write)
		device_written = *value;
	else
		*value = 0x1122334455667788;
	return true;
}

static void states(void)
{
	const uint64_t at = 32 * MIB;
	const gfn_t page = gfn(at >> 12);
	struct gn_kvm_config config = plain();
	struct gn_kvm *kvm = rig_new(&config);
	struct gn_kvm_stats stats;
	struct gn_vm *vm;
	struct rig_result r;

	if (!kvm)
		return;
	vm = gn_kvm_vm(kvm);
	rig_word(kvm, at, 0x11);

	/* Read-only: loads see it, stores are dropped. */
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, store_byte, at, 0, 0), 0x5a);
	RIG_CHECK(!gn_p2m_protect(vm, page, 1, true), "protect");
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, load_word, at, 0, 0), 0x5a);
	RIG_CHECK(gn_vm_write(vm, gpa(at), "x", 1) == -EFAULT, "read-only, but not for devices");
	RIG_CHECK(!gn_p2m_protect(vm, page, 1, false), "unprotect");
	rig_word(kvm, at, 0x22);
	RIG_CHECK(!gn_p2m_protect(vm, page, 1, true), "protect");
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, store_byte, at, 0, 0), 0x22);
	gn_kvm_stats(kvm, &stats);
	RIG_CHECK(stats.denied == 1, "%llu denied", (unsigned long long)stats.denied);
	RIG_CHECK(!gn_p2m_protect(vm, page, 1, false), "unprotect");
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, store_byte, at, 0, 0), 0x5a);

	/* MMIO: ones, dropped. */
	RIG_CHECK(!gn_p2m_set_mmio(vm, page, 1), "set_mmio");
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, load_word, at, 0, 0), UINT32_MAX);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, store_byte, at, 0, 0), 0xff);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, load_word, MEM_BYTES + 8, 0, 0), UINT32_MAX);
	/* A device of the embedder's answers, in RAM's place and beyond it. */
	gn_kvm_set_mmio(kvm, device, NULL);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, load_word, at, 0, 0), 0x55667788);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 0, load_word, MEM_BYTES + 8, 0, 0), 0x55667788);
	device_written = 0;
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, store_byte, at, 0, 0), 0x88);
	RIG_CHECK(device_written == 0x5a, "%#llx written", (unsigned long long)device_written);
	gn_kvm_set_mmio(kvm, NULL, NULL);
	/* And back to memory: zero. */
	RIG_CHECK(!gn_p2m_discard(vm, page, 1), "discard");
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, load_word, at, 0, 0), 0);
	rig_word(kvm, at, 0x33);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, load_word, at, 0, 0), 0x33);
	RIG_CHECK(!gn_p2m_discard(vm, page, 1), "discard");
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, load_word, at, 0, 0), 0);

	/* Ballooned: a touch is counted and stops the guest; given back it is zero. */
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, store_byte, at, 0, 0), 0x5a);
	gn_kvm_stats_reset(kvm);
	RIG_CHECK(!gn_p2m_balloon(vm, page, 1), "balloon");
	for (unsigned cpl = 0; cpl <= 3; cpl += 3) {
		r = RIG_RUN(kvm, cpl, load_word, at, 0, 0);
		RIG_CHECK(r.stop == GN_KVM_STOP_GUEST && strstr(gn_kvm_error(kvm, 0), "balloon"),
			  "load at CPL %u: stop %d: %s", cpl, r.stop, gn_kvm_error(kvm, 0));
		r = RIG_RUN(kvm, cpl, store_byte, at, 0, 0);
		RIG_CHECK(r.stop == GN_KVM_STOP_GUEST && strstr(gn_kvm_error(kvm, 0), "balloon"),
			  "stop %d: %s", r.stop, gn_kvm_error(kvm, 0));
	}
	/* Why it stopped is still told when another scheme has taken over. */
	RIG_CHECK(!gn_kvm_switch_scheme(kvm, "npt") && !gn_kvm_switch_scheme(kvm, "ept"), "switch");
	RIG_CHECK(strstr(gn_kvm_error(kvm, 0), "balloon"), "after: %s", gn_kvm_error(kvm, 0));
	gn_kvm_stats(kvm, &stats);
	RIG_CHECK(stats.denied == 4, "%llu denied", (unsigned long long)stats.denied);
	RIG_CHECK(!gn_p2m_unballoon(vm, page, 1), "unballoon");
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, load_word, at, 0, 0), 0);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, store_byte, at, 0, 0), 0x5a);
	gn_kvm_destroy(kvm);
}

static void sharing(void)
{
	const uint64_t a = 32 * MIB, b = 40 * MIB;
	struct gn_kvm_config config = plain();
	struct gn_kvm *kvm = rig_new(&config);
	struct gn_p2m_info info;
	struct gn_vm *vm;

	if (!kvm)
		return;
	vm = gn_kvm_vm(kvm);
	rig_word(kvm, a, 0x77);
	rig_word(kvm, b, 0x77);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, read_pages, a, 1, 0), 0x77);
	RIG_CHECK(!gn_p2m_share(vm, gfn(a >> 12), gfn(b >> 12)), "share");
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, read_pages, b, 1, 0), 0x77);
	/* Where it cannot be guarded against stores, it must not stay. */
	RIG_CHECK(!gn_p2m_query(vm, gfn(b >> 12), &info) &&
			  (info.state == GN_P2M_SHARED) == kvm->nested->uffd_wp,
		  "state %d after a read", info.state);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, store_byte, b, 0, 0), 0x5a);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, read_pages, a, 1, 0), 0x77);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, read_pages, b, 1, 0), 0x5a);
	/* The last sharer owns the frame again. */
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, store_byte, a, 0, 0), 0x5a);
	RIG_CHECK(!gn_p2m_query(vm, gfn(a >> 12), &info) && info.state == GN_P2M_PRIVATE,
		  "state %d", info.state);
	gn_kvm_destroy(kvm);
}

/* ---- Large pages, hostile tables ---------------------------------------------------------------------------------------- */

/* KiB of "ShmemPmdMapped:" of this process. */
static unsigned long pmd_mapped_kib(void)
{
	FILE *f = fopen("/proc/self/smaps_rollup", "re");
	unsigned long kib = 0;
	char line[256];

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "ShmemPmdMapped: %lu", &kib) == 1)
			break;
	if (f)
		fclose(f);
	return kib;
}

static void large_backing(void)
{
	struct gn_kvm_config config = plain();
	struct gn_kvm_stats stats;
	struct gn_kvm *kvm;
	unsigned long before;

	config.vm.backing_level = 2;
	kvm = rig_new(&config);
	if (!kvm)
		return;
	before = pmd_mapped_kib();
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, write_pages, 16 * MIB, 8192, 1), 0);
	gn_kvm_stats(kvm, &stats);
	RIG_CHECK(stats.uffd_faults <= 20, "%llu faults for 16 large pages",
		  (unsigned long long)stats.uffd_faults);
	if (host.shmem_collapse)
		RIG_CHECK(pmd_mapped_kib() >= before + 8 * 2048, "%lu KiB in large pages",
			  pmd_mapped_kib() - before);
	else
		rig_skip("large mappings of the host", "its shmem has no transparent huge pages");
	printf("large backing: %llu faults, %lu KiB mapped by 2 MiB\n",
	       (unsigned long long)stats.uffd_faults, pmd_mapped_kib() - before);
	/* One page of a block goes: the rest stays right. */
	RIG_CHECK(!gn_p2m_discard(gn_kvm_vm(kvm), gfn((16 * MIB >> 12) + 7), 1), "discard");
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, load_word, 16 * MIB + 7 * PAGE, 0, 0), 0);
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 3, load_word, 16 * MIB + 8 * PAGE, 0, 0),
			16 * MIB + 8 * PAGE + 1);
	gn_kvm_destroy(kvm);
}

/* Run vCPU 0 for some seconds at most. */
static struct rig_result run_bounded(struct gn_kvm *kvm)
{
	struct runner r;

	start(&r, kvm, 0);
	for (unsigned i = 0; i < 300 && !atomic_load(&r.is_done); i++)
		pause_ms(10);
	if (!atomic_load(&r.is_done))
		gn_kvm_stop(kvm);
	return finish(&r);
}

/* Tables that are no memory: any stop will do, as long as it says why. Where hardware walks them the guest may also
 * take faults for ever, as it may spin; then it can be told to stop. */
static void hostile_tables(void)
{
	const uint64_t cr3s[] = { 32 * MIB, MEM_BYTES + 16 * PAGE, (uint64_t)1 << 34, 40 * MIB };
	struct gn_kvm_config config = plain();
	struct rig_result r;

	for (unsigned i = 0; i < sizeof(cr3s) / sizeof(cr3s[0]); i++) {
		struct gn_kvm *kvm = rig_new(&config);

		if (!kvm)
			return;
		RIG_CHECK(!gn_p2m_set_mmio(gn_kvm_vm(kvm), gfn(32 * MIB >> 12), 1), "set_mmio");
		RIG_CHECK(!gn_p2m_balloon(gn_kvm_vm(kvm), gfn(40 * MIB >> 12), 1), "balloon");
		rig_program(kvm, 0, 0, load_cr3, load_cr3_end, cr3s[i], 0, 0);
		r = run_bounded(kvm);
		RIG_CHECK(r.stop != GN_KVM_STOP_ERROR && r.stop != GN_KVM_STOP_EXIT &&
				  gn_kvm_error(kvm, 0)[0],
			  "CR3 %#llx: stop %d: %s", (unsigned long long)cr3s[i], r.stop,
			  gn_kvm_error(kvm, 0));
		printf("CR3 %#llx: %s\n", (unsigned long long)cr3s[i], gn_kvm_error(kvm, 0));
		/* A leaf table there. */
		rig_word(kvm, RIG_PDPT + 8, cr3s[i] | 7);
		rig_program(kvm, 0, 3, load_word, load_word_end, (uint64_t)1 << 30, 0, 0);
		r = run_bounded(kvm);
		RIG_CHECK(r.stop != GN_KVM_STOP_ERROR && gn_kvm_error(kvm, 0)[0],
			  "a table at %#llx: stop %d: %s", (unsigned long long)cr3s[i], r.stop,
			  gn_kvm_error(kvm, 0));
		printf("a table at %#llx: %s\n", (unsigned long long)cr3s[i], gn_kvm_error(kvm, 0));
		gn_kvm_destroy(kvm);
	}
}

static void refusals(void)
{
	struct gn_kvm_config config = plain();
	struct gn_kvm *kvm = NULL;
	char why[256] = "";
	int err;

	config.vm.scheme = "native";
	err = gn_kvm_create(&config, &kvm, why, sizeof(why));
	RIG_CHECK(err == -EOPNOTSUPP && strstr(why, "native"), "%d: %s", err, why);
	config.vm.scheme = "nonsense";
	err = gn_kvm_create(&config, &kvm, why, sizeof(why));
	RIG_CHECK(err == -ENOENT && strstr(why, "nonsense"), "%d: %s", err, why);
	config.vm.scheme = "ept";
	config.vm.guest_phys_bits = 52;
	if (host.phys_bits < 52) {
		err = gn_kvm_create(&config, &kvm, why, sizeof(why));
		RIG_CHECK(err == -EINVAL && strstr(why, "guest_phys_bits"), "%d: %s", err, why);
	}
	config = plain();
	kvm = rig_new(&config);
	if (!kvm)
		return;
	RIG_CHECK(gn_kvm_switch_scheme(kvm, "interp") == -EOPNOTSUPP, "interp on KVM");
	RIG_CHECK(!strcmp(gn_vm_scheme(gn_kvm_vm(kvm)), "ept"), "'%s' is in charge",
		  gn_vm_scheme(gn_kvm_vm(kvm)));
	RIG_EXPECT_EXIT(kvm, RIG_RUN(kvm, 0, hello, 0, 3, 0), 3);
	gn_kvm_destroy(kvm);
}

int main(void)
{
	if (!nested_start())
		return rig_end();
	PART(registers_and_ports());
	PART(stops());
	PART(lacking_instructions());
	PART(demand_and_ahead(false));
	PART(demand_and_ahead(true));
	PART(books());
	PART(states());
	PART(sharing());
	PART(large_backing());
	PART(hostile_tables());
	PART(refusals());
	return rig_end();
}
