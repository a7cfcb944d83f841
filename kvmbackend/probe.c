/* SPDX-License-Identifier: MIT */
/*
 * probe.c - what this machine's KVM is: by asking.
 *
 * Asked once a process and remembered. What can only be known by trying (peculiarities, costs) is trial.c's, run at the
 * first call that wants it. Nothing else in this room looks at /sys or guesses from a module's name.
 */
#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <gnomon/x86.h>

#include "machine.h"
#include "trial.h"

#define CPUID_ENTRIES_MAX 256

/* The first character of a small file, 0: not readable. */
static char peek(const char *path)
{
	char c = 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return 0;
	if (read(fd, &c, 1) != 1)
		c = 0;
	close(fd);
	return c;
}

/* Whose nested paging is in use is what the module says, never what the CPU could do. */
static void ask_module(struct gn_kvm_host *host)
{
	static const struct {
		const char *module, *parameter; /* parameter NULL: it has none, it always shadows */
		bool soft_traps_move_rip;
	} known[] = {
		{ "kvm_intel", "/sys/module/kvm_intel/parameters/ept", false },
		{ "kvm_amd", "/sys/module/kvm_amd/parameters/npt", false },
		{ "kvm_pvm", NULL, true },
	};
	char path[64];

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		char c;

		snprintf(path, sizeof(path), "/sys/module/%s", known[i].module);
		if (access(path, F_OK))
			continue;
		snprintf(host->module, sizeof(host->module), "%s", known[i].module);
		host->soft_traps_move_rip = known[i].soft_traps_move_rip;
		c = known[i].parameter ? peek(known[i].parameter) : 'N';
		if (c == 'Y' || c == '1')
			host->paging = GN_KVM_PAGING_HARDWARE;
		else if (c)
			host->paging = GN_KVM_PAGING_SOFTWARE;
		return;
	}
}

/* CPUID 1, ECX bit 31: there is one, and leaf 0x40000000 has its name. */
static void ask_hypervisor(struct gn_kvm_host *host)
{
	unsigned eax, name[3], ecx = 0, ignored;

	if (!__get_cpuid(1, &eax, &ignored, &ecx, &ignored) || !(ecx >> 31))
		return;
	__cpuid(0x40000000, eax, name[0], name[1], name[2]);
	memcpy(host->hypervisor, name, sizeof(name));
}

static void ask_capabilities(struct gn_kvm_host *host, int fd)
{
	host->readonly_mem = gn_kvm_sys_capability(fd, KVM_CAP_READONLY_MEM);
	host->sync_regs = (gn_kvm_sys_capability(fd, KVM_CAP_SYNC_REGS) & 7) == 7;
	host->immediate_exit = gn_kvm_sys_capability(fd, KVM_CAP_IMMEDIATE_EXIT);
	/* In bytes. */
	host->dirty_ring_entries = (unsigned)gn_kvm_sys_capability(fd, KVM_CAP_DIRTY_LOG_RING) /
				   (unsigned)sizeof(struct kvm_dirty_gfn);
	host->dirty_ring = host->dirty_ring_entries > 0;
	host->manual_dirty_protect = gn_kvm_sys_capability(fd, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2);
	host->irqchip = gn_kvm_sys_capability(fd, KVM_CAP_IRQCHIP);
	host->memory_fault_exit = gn_kvm_sys_capability(fd, GN_KVM_CAP_MEMORY_FAULT_INFO);
	host->binary_stats = gn_kvm_sys_capability(fd, KVM_CAP_BINARY_STATS_FD);
	host->emulation_exit = gn_kvm_sys_capability(fd, KVM_CAP_EXIT_ON_EMULATION_FAILURE);
	host->memslots = (unsigned)gn_kvm_sys_capability(fd, KVM_CAP_NR_MEMSLOTS);
	host->max_vcpus = (unsigned)gn_kvm_sys_capability(fd, KVM_CAP_MAX_VCPUS);
}

static void note_leaf(struct gn_kvm_host *host, const struct kvm_cpuid_entry2 *e)
{
	switch (e->function) {
	case 1:
		host->pcid = e->ecx >> 17 & 1;
		host->xsave = e->ecx >> 26 & 1;
		break;
	case 7:
		if (e->index)
			break;
		host->smep = e->ebx >> 7 & 1;
		host->invpcid = e->ebx >> 10 & 1;
		host->smap = e->ebx >> 20 & 1;
		host->pku = e->ecx >> 3 & 1;
		host->la57 = e->ecx >> 16 & 1;
		break;
	case 0xd: /* sub-leaf 9: PKRU's place in the standard XSAVE area */
		if (e->index == 9)
			host->pkru_offset = e->ebx;
		break;
	case 0x80000001:
		host->nx = e->edx >> 20 & 1;
		host->gib_pages = e->edx >> 26 & 1;
		break;
	case 0x80000008:
		host->phys_bits = e->eax & 0xff;
		break;
	default:
		break;
	}
}

/* Some KVMs pass the CPU's LA57 on to guests and refuse the CR4 bit: where their own host walks four levels. -errno: it could not be
 * tried, which tells nothing of the host. */
static int try_la57(int vm, struct kvm_cpuid2 *cpuid, bool *takes)
{
	int vcpu = gn_kvm_ioctl_value(vm, KVM_CREATE_VCPU, 0), err;
	struct kvm_sregs sregs = { .cr4 = 0 };

	if (vcpu < 0)
		return vcpu;
	err = gn_kvm_ioctl(vcpu, KVM_GET_SREGS, &sregs);
	if (!err)
		err = gn_kvm_ioctl(vcpu, KVM_SET_CPUID2, cpuid);
	sregs.cr4 |= X86_CR4_PAE | X86_CR4_LA57;
	if (!err)
		err = gn_kvm_ioctl(vcpu, KVM_SET_SREGS, &sregs);
	*takes = !err;
	close(vcpu);
	return err == -EINVAL ? 0 : err;
}

/* *asked: what for, when it fails. */
static int ask_cpuid(struct gn_kvm_host *host, int fd, int vm, const char **asked)
{
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entries[CPUID_ENTRIES_MAX];
	} *block = calloc(1, sizeof(*block));
	int err;

	*asked = "KVM_GET_SUPPORTED_CPUID";
	if (!block)
		return -ENOMEM;
	block->head.nent = CPUID_ENTRIES_MAX;
	err = gn_kvm_ioctl(fd, KVM_GET_SUPPORTED_CPUID, block);
	for (unsigned i = 0; !err && i < block->head.nent; i++)
		note_leaf(host, &block->entries[i]);
	if (!err && host->la57) {
		*asked = "trying LA57 on a vCPU";
		err = try_la57(vm, &block->head, &host->la57);
	}
	free(block);
	/* The engine's addresses are at most 52 bits wide, a CPU without the leaf has 36. */
	if (!host->phys_bits)
		host->phys_bits = 36;
	if (host->phys_bits > 52)
		host->phys_bits = 52;
	return err;
}

/* A byte of the file goes to @at by the kernel's hand. */
static bool can_store(int fd, uint8_t *at)
{
	return pread(fd, at, 1, 0) == 1;
}

static bool write_protect(int uffd, uint8_t *at, size_t bytes, bool on)
{
	struct uffdio_writeprotect what = { .range = { .start = (uintptr_t)at, .len = bytes },
					    .mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0 };

	return !ioctl(uffd, UFFDIO_WRITEPROTECT, &what);
}

/* @at: two pages over @fd. One that nobody has touched, and a copy that is dropped while it is protected: stores stay out of both, and then
 * they do not. With UFFD_FEATURE_SIGBUS a store of the kernel's fails where another would wait. */
static bool holds_stores_off(int uffd, int fd, uint8_t *at)
{
	struct uffdio_api api = { .api = UFFD_API,
				  .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP |
					      UFFD_FEATURE_WP_HUGETLBFS_SHMEM |
					      UFFD_FEATURE_SIGBUS };
	struct uffdio_register what = { .range = { .start = (uintptr_t)at,
						   .len = 2 * GN_PAGE_SIZE },
					.mode = UFFDIO_REGISTER_MODE_WP };
	uint8_t *copy = at + GN_PAGE_SIZE;

	*(volatile uint8_t *)copy = 1;
	return !ioctl(uffd, UFFDIO_API, &api) && !ioctl(uffd, UFFDIO_REGISTER, &what) &&
	       write_protect(uffd, at, 2 * GN_PAGE_SIZE, true) &&
	       !madvise(copy, GN_PAGE_SIZE, MADV_DONTNEED) && !*(volatile uint8_t *)copy &&
	       !can_store(fd, at) && !can_store(fd, copy) &&
	       write_protect(uffd, at, 2 * GN_PAGE_SIZE, false) && can_store(fd, at) &&
	       can_store(fd, copy);
}

/* Of private memory over a file that nobody can write any more. */
static bool has_private_protection(void)
{
	int fd = memfd_create("gnomon-probe", MFD_CLOEXEC | MFD_ALLOW_SEALING), uffd;
	bool works = false;
	void *at;

	if (fd < 0)
		return false;
	at = ftruncate(fd, 2 * GN_PAGE_SIZE) || fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK)
		     ? MAP_FAILED
		     : mmap(NULL, 2 * GN_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	uffd = gn_kvm_userfaultfd_open();
	if (at != MAP_FAILED && uffd >= 0)
		works = holds_stores_off(uffd, fd, (uint8_t *)at);
	if (uffd >= 0)
		close(uffd);
	if (at != MAP_FAILED)
		munmap(at, 2 * GN_PAGE_SIZE);
	close(fd);
	return works;
}

static void ask_userfaultfd(struct gn_kvm_host *host)
{
	struct uffdio_api api = { .api = UFFD_API };
	int fd = gn_kvm_userfaultfd_open();

	if (fd < 0)
		return;
	if (!ioctl(fd, UFFDIO_API, &api)) {
		host->uffd_missing = api.features & UFFD_FEATURE_MISSING_SHMEM;
		host->uffd_minor_shmem = api.features & UFFD_FEATURE_MINOR_SHMEM;
		host->uffd_wp_shmem = api.features & UFFD_FEATURE_WP_HUGETLBFS_SHMEM;
	}
	close(fd);
	host->uffd_wp_private = host->uffd_wp_shmem && has_private_protection();
}

int gn_kvm_userfaultfd_open(void)
{
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK), err = errno, device;

	if (fd >= 0)
		return fd;
	device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	if (device < 0)
		return -err;
	/* USERFAULTFD_IOC_NEW, since Linux 6.1 */
	fd = ioctl(device, _IO(0xAA, 0), O_CLOEXEC | O_NONBLOCK);
	close(device);
	return fd < 0 ? -err : fd;
}

/* "always within_size [advise] never ...": anything but never and deny lets MADV_HUGEPAGE work on a memfd. */
static bool has_shmem_huge_pages(void)
{
	char text[128] = "";
	int fd = open("/sys/kernel/mm/transparent_hugepage/shmem_enabled", O_RDONLY | O_CLOEXEC);
	ssize_t got;

	if (fd < 0)
		return false;
	got = read(fd, text, sizeof(text) - 1);
	close(fd);
	return got > 0 && !strstr(text, "[never]") && !strstr(text, "[deny]");
}

/* Else MADV_COLLAPSE (Linux 6.1) makes them, whatever the settings: tried on a block of our own. */
static bool has_shmem_collapse(void)
{
	const size_t block = (size_t)2 << 20;
	int fd = memfd_create("gnomon-probe", MFD_CLOEXEC);
	uint8_t *base;
	bool works;

	if (fd < 0)
		return false;
	base = ftruncate(fd, (off_t)(2 * block))
		       ? MAP_FAILED
		       : mmap(NULL, 2 * block, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (base == MAP_FAILED)
		return false;
	/* Some block in it is aligned in memory; the kernel looks for one aligned in both. */
	base[0] = base[block] = 1;
	works = !madvise(base, 2 * block, 25 /* MADV_COLLAPSE */);
	munmap(base, 2 * block);
	return works;
}

/* Linux's default if it does not say. */
static unsigned mappings_max(void)
{
	FILE *file = fopen("/proc/sys/vm/max_map_count", "re");
	unsigned count = 65530;

	if (!file)
		return count;
	if (fscanf(file, "%u", &count) != 1)
		count = 65530;
	fclose(file);
	return count;
}

static void refuse(struct gn_kvm_host *host, const char *what)
{
	snprintf(host->why, sizeof(host->why),
		 "this KVM lacks %s, which every Linux since 5.4 has on x86-64", what);
}

static void ask(const char *path, struct gn_kvm_host *host)
{
	const char *asked = "";
	int fd, vm, err;

	memset(host, 0, sizeof(*host));
	ask_module(host);
	ask_hypervisor(host);
	ask_userfaultfd(host);
	host->mappings_max = mappings_max();
	host->shmem_huge_pages = has_shmem_huge_pages();
	host->shmem_collapse = host->shmem_huge_pages || has_shmem_collapse();
	if (gn_kvm_sys_open(path, &fd, host->why, sizeof(host->why)))
		return;
	ask_capabilities(host, fd);
	vm = gn_kvm_ioctl_value(fd, KVM_CREATE_VM, 0);
	err = ask_cpuid(host, fd, vm, &asked);
	if (vm < 0)
		gn_kvm_sys_fail(host->why, sizeof(host->why), "KVM_CREATE_VM", -vm);
	else if (err)
		gn_kvm_sys_fail(host->why, sizeof(host->why), asked, -err);
	else if (!host->immediate_exit)
		refuse(host, "KVM_CAP_IMMEDIATE_EXIT");
	else if (!gn_kvm_sys_capability(fd, KVM_CAP_SYNC_MMU))
		refuse(host, "KVM_CAP_SYNC_MMU");
	else if (!host->sync_regs)
		refuse(host, "KVM_CAP_SYNC_REGS");
	else
		host->usable = true;
	if (vm >= 0)
		close(vm);
	close(fd);
}

void gn_kvm_probe_at(const char *path, struct gn_kvm_host *out, bool measure)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static struct gn_kvm_host known;
	static bool is_asked, is_tried;

	if (strcmp(path, GN_KVM_DEVICE) != 0) {
		ask(path, out);
		return;
	}
	pthread_mutex_lock(&lock);
	/* What went wrong may be mended meanwhile: only success is remembered. */
	if (!is_asked)
		ask(path, &known);
	is_asked = known.usable;
	if (measure && known.usable && !is_tried) {
		gn_kvm_trial(&known);
		is_tried = true;
	}
	*out = known;
	pthread_mutex_unlock(&lock);
}

void gn_kvm_probe(struct gn_kvm_host *out, bool measure)
{
	gn_kvm_probe_at(GN_KVM_DEVICE, out, measure);
}
