/* SPDX-License-Identifier: MIT */
/*
 * tiny-vmm.c - a virtual machine monitor on raw KVM whose memory virtualization is Gnomon's.
 *
 * How the guest (guest.S) runs follows from what the engine wants the hardware to do:
 *
 *   GN_HW_NESTED  At CPL 0, with its own CR3. KVM's guest-physical memory is the guest's: one slot over
 *                 the engine's pool of host frames, in which each gfn has the frame of the same number.
 *   GN_HW_TABLES  At CPL 3, on tables that the engine builds. KVM's guest-physical memory is the whole
 *                 pool. Each exception becomes an exit (monitor.S): faults go to the engine, the guest's
 *                 three privileged instructions are emulated here.
 *
 * Absent: other vCPUs, devices, interrupts, exceptions handed on to the guest, an instruction decoder.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <gnomon/schemes.h>
#include <gnomon/x86.h>
#include "layout.h"

#define RAM_BYTES  ((uint64_t)4 << 20)
#define POOL_BYTES ((uint64_t)16 << 20) /* RAM, the engine's tables, the monitor */

struct vmm {
	int kvm, vm_fd, cpu_fd;
	int status;	     /* of the guest; -1: it still runs */
	struct kvm_run *run; /* registers come and go with it (sync-regs) */
	struct gn_vm *vm;
	struct gn_vcpu *vcpu;
	struct gn_pool pool;
	hpa_t desk;	  /* the monitor's last page */
	bool needs_flush; /* before the guest's next instruction */
	const char *what; /* failed */
};

/* Functions return 0 or -errno, and the first to fail says what did. */
static int failed(struct vmm *v, int err, const char *what)
{
	v->what = what;
	return err;
}

/* ioctl(), with its name in the error. */
#define CALL(v, fd, request, arg) call(v, fd, request, (uintptr_t)(arg), #request)
static int call(struct vmm *v, int fd, unsigned long request, uintptr_t arg, const char *name)
{
	int result = ioctl(fd, request, arg);

	return result < 0 ? failed(v, -errno, name) : result;
}

static void *in_pool(struct vmm *v, hpa_t hpa)
{
	return (uint8_t *)v->pool.base + hpa.v;
}

static int open_kvm(struct vmm *v)
{
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entries[256];
	} cpuid = { .head.nent = 256 };
	int bytes, err;

	v->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (v->kvm < 0)
		return failed(v, -errno, "opening /dev/kvm");
	if ((v->vm_fd = err = CALL(v, v->kvm, KVM_CREATE_VM, 0)) < 0 ||
	    (v->cpu_fd = err = CALL(v, v->vm_fd, KVM_CREATE_VCPU, 0)) < 0 ||
	    (err = CALL(v, v->kvm, KVM_GET_SUPPORTED_CPUID, &cpuid)) < 0 ||
	    (err = CALL(v, v->cpu_fd, KVM_SET_CPUID2, &cpuid)) < 0 ||
	    (bytes = err = CALL(v, v->kvm, KVM_GET_VCPU_MMAP_SIZE, 0)) < 0)
		return err;
	v->run = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_SHARED, v->cpu_fd, 0);
	if (v->run == MAP_FAILED)
		return failed(v, -errno, "mapping the vCPU");
	v->run->kvm_valid_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS;
	return CALL(v, v->cpu_fd, KVM_GET_SREGS, &v->run->s.regs.sregs);
}

/* The first @bytes of the pool become KVM's guest-physical memory. */
static int show_pool(struct vmm *v, uint64_t bytes)
{
	/* slot, flags, guest_phys_addr, memory_size, userspace_addr */
	struct kvm_userspace_memory_region slot = { 0, 0, 0, bytes, (uintptr_t)v->pool.base };

	return CALL(v, v->vm_fd, KVM_SET_USER_MEMORY_REGION, &slot);
}

/* Run in 64-bit mode at @cpl on the tables at @root until KVM exits, which must be for @reason. */
static int run_until(struct vmm *v, uint64_t root, uint8_t cpl, uint32_t reason)
{
	struct kvm_sregs *s = &v->run->s.regs.sregs;

	s->cr0 = 0x80050033; /* PG AM WP NE ET MP PE */
	s->cr3 = root;
	s->cr4 = X86_CR4_PAE;
	s->efer = X86_EFER_LME | X86_EFER_LMA | X86_EFER_NXE;
	/* base, limit, selector, type, present, dpl, db, s, l, g, avl, unusable, padding */
	s->cs = (struct kvm_segment){ 0, ~0u, 8 | cpl, 11, 1, cpl, 0, 1, 1, 1, 0, 0, 0 };
	s->ss = (struct kvm_segment){ 0, ~0u, 16 | cpl, 3, 1, cpl, 1, 1, 0, 1, 0, 0, 0 };
	s->ds = s->es = s->fs = s->gs = s->ss;
	s->tr = (struct kvm_segment){ MONITOR_TSS, 0x67, 24, 11, 1, 0, 0, 0, 0, 0, 0, 0, 0 };
	s->gdt = (struct kvm_dtable){ .base = MONITOR_DESK, .limit = 15 };
	s->idt = (struct kvm_dtable){ .base = MONITOR_IDT, .limit = 0xfff };
	v->run->kvm_dirty_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS;
	while (ioctl(v->cpu_fd, KVM_RUN, 0))
		if (errno != EINTR)
			return failed(v, -errno, "KVM_RUN");
	if (v->run->exit_reason == reason)
		return 0;
	fprintf(stderr, "KVM exit %u at %#llx\n", v->run->exit_reason, v->run->s.regs.regs.rip);
	return failed(v, -EIO, "an exit that this VMM does not expect");
}

static int run_nested(struct vmm *v)
{
	struct gn_p2m_info info;
	int err = gn_p2m_populate(v->vm, gfn(0), RAM_BYTES / GN_PAGE_SIZE);

	if (err)
		return failed(v, err, "giving the guest its frames");
	for (uint64_t at = 0; at < RAM_BYTES / GN_PAGE_SIZE; at++)
		if (gn_p2m_query(v->vm, gfn(at), &info) || info.pfn.v != at)
			return failed(v, -EINVAL, "a gfn without the frame of the same number");
	err = show_pool(v, RAM_BYTES);
	v->run->s.regs.regs = (struct kvm_regs){ .rip = GUEST_CODE, .rflags = 2 };
	if (err || (err = run_until(v, GUEST_ROOT, 0, KVM_EXIT_IO)))
		return err;
	v->status = *((uint8_t *)v->run + v->run->io.data_offset);
	return 0;
}

/* Three tables for three pages, under one entry of every root. */
static int build_monitor(struct vmm *v)
{
	const uint64_t bits = X86_PTE_P | X86_PTE_W; /* not U */
	hpa_t pdpt, pd, pt, page[3], *all[] = { &pdpt, &pd, &pt, page, page + 1, page + 2 };
	struct gn_root_slot slot = { .index = MONITOR_SLOT };
	int err;

	for (unsigned i = 0; i < 6; i++)
		if ((err = gn_vm_pool_alloc(v->vm, all[i])))
			return failed(v, err, "frames for the monitor");
	slot.entry4 = pdpt.v | bits;
	*(uint64_t *)in_pool(v, pdpt) = pd.v | bits;
	*(uint64_t *)in_pool(v, pd) = pt.v | bits;
	for (unsigned i = 0; i < 3; i++) {
		((uint64_t *)in_pool(v, pt))[i] = page[i].v | bits;
		memcpy(in_pool(v, page[i]), monitor_image + i * GN_PAGE_SIZE, GN_PAGE_SIZE);
	}
	v->desk = page[2];
	err = gn_vm_set_root_slot(v->vm, &slot);
	return err ? failed(v, err, "the monitor's root slot") : 0;
}

/* The engine asks in the midst of a call: do it before the guest's next instruction. */
static void note_flush(struct gn_vcpu *vcpu, const struct gn_flush *flush)
{
	(void)flush; /* everything goes */
	((struct vmm *)gn_vm_backend(gn_vcpu_vm(vcpu)))->needs_flush = true;
}
static const struct gn_backend_ops backend_ops = { .name = "tiny-vmm", .flush = note_flush };

/* What the guest cannot do at CPL 3. With @fix: a store to a table the engine tracks. */
static int emulate(struct vmm *v, struct kvm_regs *guest, const struct gn_fix *fix)
{
	const struct gn_access fetch = { .va = gva(guest->rip), .kind = GN_FETCH, .size = 3 };
	uint8_t code[3];
	uint32_t error_code;
	bool gp = false;
	gpa_t at;
	int err = 0;

	if (!gn_vcpu_translate(v->vcpu, &fetch, &at, &error_code) || gn_vm_read(v->vm, at, code, 3))
		return failed(v, -EFAULT, "reading the guest's instruction");
	guest->rip += sizeof(code);
	if (fix && !memcmp(code, "\x48\x89\x07", 3)) /* mov %rax, (%rdi) */
		err = gn_vcpu_store(v->vcpu, fix->gpa, &guest->rax, sizeof(guest->rax));
	else if (!fix && !memcmp(code, "\x0f\x01\x3f", 3)) /* invlpg (%rdi) */
		gn_vcpu_invlpg(v->vcpu, gva(guest->rdi));
	else if (!fix && !memcmp(code, "\x0f\x22\xd8", 3)) /* mov %rax, %cr3 */
		err = gn_vcpu_write_cr3(v->vcpu, guest->rax, &gp);
	else if (!fix && !memcmp(code, "\xe6\xf4", 2)) /* out %al, $0xf4 */
		v->status = (uint8_t)guest->rax;
	else
		err = -EOPNOTSUPP;
	return err || gp ? failed(v, err ? err : -EINVAL, "emulating an instruction") : 0;
}

static int page_fault(struct vmm *v, struct kvm_regs *guest, uint32_t error_code)
{
	/* .user is the guest's own privilege, not the CPL it really has: this guest is all kernel. */
	struct gn_fault fault = { .access.va = gva(v->run->s.regs.sregs.cr2) };
	struct gn_fix fix;
	int err;

	fault.access.kind = error_code & X86_PF_W ? GN_WRITE : GN_READ;
	if (error_code & X86_PF_I)
		fault.access.kind = GN_FETCH;
	fault.error_code = error_code;
	if ((err = gn_vcpu_fault(v->vcpu, &fault, &fix)))
		return failed(v, err, "the engine at a fault");
	if (fix.kind == GN_FIX_EMULATE)
		return emulate(v, guest, &fix);
	return fix.kind == GN_FIX_RETRY ? 0 : failed(v, -EFAULT, "a fault that is the guest's own");
}

static int run_tables(struct vmm *v)
{
	struct kvm_regs guest = { .rip = GUEST_CODE, .rflags = 2 }, *regs = &v->run->s.regs.regs;
	uint64_t vector, *frame;
	int err = show_pool(v, v->pool.bytes);

	if (gn_vcpu_hw(v->vcpu)->kind != GN_HW_TABLES)
		return failed(v, -EOPNOTSUPP, "KVM cannot run this scheme");
	while (!err && v->status < 0) {
		/* A KVM that shadows our tables in software keeps more of them than a TLB would, where
		 * no flush in the guest reaches. Without memory it forgets (not fast: docs/embedding.md). */
		if (v->needs_flush && !(err = show_pool(v, 0)))
			err = show_pool(v, v->pool.bytes);
		v->needs_flush = false;
		*regs = guest;
		if (err || (err = run_until(v, gn_vcpu_hw(v->vcpu)->root.v, 3, KVM_EXIT_HLT)))
			break;
		/* On the monitor's stack: error code, RIP, CS, RFLAGS, RSP, SS. */
		vector = (regs->rip - 1 - MONITOR_STUBS) / STUB_BYTES;
		frame = in_pool(v, hpa(v->desk.v + (regs->rsp - MONITOR_DESK)));
		guest = *regs;
		guest.rip = frame[1];
		guest.rflags = frame[3];
		guest.rsp = frame[4];
		if (vector == X86_VEC_PF)
			err = page_fault(v, &guest, (uint32_t)frame[0]);
		else if (vector == X86_VEC_GP)
			err = emulate(v, &guest, NULL);
		else
			err = failed(v, -EFAULT, "an exception that is neither #PF nor #GP");
	}
	return err;
}

static int boot(struct vmm *v, const char *scheme)
{
	struct gn_vm_config config = { .scheme = "interp", .vcpus = 1, .mem_bytes = RAM_BYTES };
	bool gp;
	int err = gn_schemes_register_all();

	config.pool_bytes = POOL_BYTES;
	config.backend = &backend_ops;
	config.backend_data = v;
	config.deprivileged = config.home_frames = true;
	if (err || (err = gn_vm_create(&config, &v->vm)))
		return failed(v, err, "creating the engine's VM");
	v->vcpu = gn_vm_vcpu(v->vm, 0);
	gn_vm_pool(v->vm, &v->pool);
	if ((err = build_monitor(v))) /* "interp" keeps no tables: there is no root yet */
		return err;
	if ((err = gn_vm_switch_scheme(v->vm, scheme)))
		return failed(v, err, scheme);
	/* The guest's memory, and what its boot code would have told the CPU. */
	if ((err = gn_vm_write(v->vm, gpa(0), guest_image, guest_image_end - guest_image)) ||
	    (err = gn_vcpu_write_efer(v->vcpu, X86_EFER_LME | X86_EFER_NXE, &gp)) ||
	    (err = gn_vcpu_write_cr4(v->vcpu, X86_CR4_PAE, &gp)) ||
	    (err = gn_vcpu_write_cr3(v->vcpu, GUEST_ROOT, &gp)) ||
	    (err = gn_vcpu_write_cr0(v->vcpu, X86_CR0_PE | X86_CR0_WP | X86_CR0_PG, &gp)))
		return failed(v, err, "booting the guest");
	return 0;
}

int main(int argc, char **argv)
{
	static struct vmm v = { .status = -1 };
	const char *scheme = argc == 3 ? argv[2] : "shadow";
	struct gn_audit_report audit;
	int err;

	if (argc != 1 && (argc != 3 || strcmp(argv[1], "--scheme"))) {
		fprintf(stderr, "usage: tiny-vmm [--scheme shadow|shadow-vtlb|ept|npt]\n");
		return 2;
	}
	err = open_kvm(&v);
	if (!err)
		err = boot(&v, scheme);
	if (!err)
		err = gn_vcpu_hw(v.vcpu)->kind == GN_HW_NESTED ? run_nested(&v) : run_tables(&v);
	if (!err && gn_audit(v.vm, &audit))
		err = failed(&v, -EBADMSG, audit.first);
	if (err)
		fprintf(stderr, "tiny-vmm: %s: %s\n", v.what, strerror(-err));
	else
		printf("%s: %s\n", scheme, v.status ? "wrong data" : "all as it should be");
	gn_vm_destroy(v.vm);
	return err ? (v.kvm < 0 ? 3 : 1) : v.status;
}
