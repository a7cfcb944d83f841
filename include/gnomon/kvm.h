/* SPDX-License-Identifier: MIT */
/*
 * kvm.h - the KVM-backed VMM core: a real guest on /dev/kvm whose memory the engine virtualizes.
 *
 * What runs depends on the scheme in force (struct gn_hw.kind):
 *
 *   GN_HW_NESTED  the guest kernel runs at CPL 0 with its own CR3. KVM's guest-physical space is the guest's; the
 *                 ept room decides, memory slots and userfaultfd carry it out.
 *   GN_HW_TABLES  trap and emulate. All of the guest runs at CPL 3 on the shadow room's tables. KVM's
 *                 guest-physical space is the engine's host-physical one: the frame pool. A monitor in a
 *                 reserved root slot turns each exception into an exit; this room emulates privileged
 *                 instructions and reflects the guest's own exceptions.
 *   others        cannot run on KVM: -EOPNOTSUPP.
 *
 * A scheme switch on a live guest exchanges the slots and carries the vCPU's state over.
 *
 * Threads: one thread runs each vCPU (gn_kvm_run); everything else may be called by any thread. Every failing
 * ioctl is an error with its name, errno and what to do about it, in gn_kvm_error().
 */
#ifndef GNOMON_KVM_H
#define GNOMON_KVM_H

#include <signal.h>

#include <gnomon/engine.h>
#include <gnomon/guest.h>

#ifdef __cplusplus
extern "C" {
#endif

struct gn_kvm;

/* vCPU threads are called out of the guest by this signal. A handler that does nothing is installed for it, unless the
 * program has one of its own. */
#define GN_KVM_SIGNAL (SIGRTMIN + 6)

/* ---- The host (gnomon host) ------------------------------------------------------------------------ */

enum gn_kvm_nested_paging { GN_KVM_PAGING_UNKNOWN, GN_KVM_PAGING_HARDWARE, GN_KVM_PAGING_SOFTWARE };

/* What this machine's KVM is, found by asking and by trying. Times in ns, 0: not measured. */
struct gn_kvm_host {
	bool usable;	     /* a VM can be made */
	char why[256];	     /* when not usable: what is wrong and what to do */
	char hypervisor[13]; /* below this machine: "KVMKVMKVM", "TCGTCGTCGTCG", ...; "" none */
	char module[32];     /* kvm_intel, kvm_amd, kvm_pvm, ...; "" unknown */
	enum gn_kvm_nested_paging
		paging; /* who walks guest tables: EPT/NPT, or KVM's own shadow MMU */
	bool soft_traps_move_rip; /* KVM delivers INT3 and INTO of CPL 3 itself, RIP behind them: by the module's name */
	/* Peculiarities, each probed. */
	bool kernel_mode_emulated;  /* CPL 0 code runs in KVM's instruction emulator */
	bool table_upgrades_only;   /* outside stores to present table entries go unseen */
	bool syscall_stays_at_cpl3; /* SYSCALL at CPL 3 jumps to LSTAR without changing the CPL */
	bool int_n_is_ud;	    /* INT n at CPL 3 raises #UD */
	bool reserved_fault_without_p; /* reserved-bit faults lack P in the error code */
	bool null_tss_loads;	/* LTR takes a null selector: a guest can end the host's emulator */
	bool breakpoints_lost;	/* breakpoints in the guest's debug registers do not fire */
	bool stack_fault_is_gp; /* a stack access to no canonical address raises #GP, not #SS */
	/* Guest CPU features. */
	bool pcid, invpcid, smep, smap, pku, la57, nx, gib_pages, xsave;
	unsigned phys_bits,
		pkru_offset; /* the latter: of PKRU in the standard XSAVE area, 0: none */
	/* Capabilities. */
	bool readonly_mem, sync_regs, immediate_exit, dirty_ring, manual_dirty_protect, irqchip,
		uffd_missing, uffd_minor_shmem, uffd_wp_shmem, uffd_wp_private, memory_fault_exit,
		shmem_huge_pages, shmem_collapse, binary_stats, emulation_exit;
	unsigned memslots, dirty_ring_entries, max_vcpus;
	unsigned mappings_max; /* that this process may have (vm.max_map_count) */
	/* Measured cost of each kind of exit, there and back. */
	uint64_t ns_ioctl, ns_run_immediate, ns_hlt, ns_io, ns_mmio, ns_cpuid, ns_trap;
};
/* Cheap facts, or with @measure also peculiarities and costs (some 100 ms). Never fails: see .usable. */
void gn_kvm_probe(struct gn_kvm_host *out, bool measure);

/* ---- Architectural state -------------------------------------------------------------------------------- */

struct gn_kvm_segment {
	uint64_t base;
	uint32_t limit; /* bytes - 1 */
	uint16_t selector;
	uint16_t attributes; /* as in a descriptor's bits 40..55: type, S, DPL, P, AVL, L, DB, G */
};
struct gn_kvm_table {
	uint64_t base;
	uint16_t limit;
};
/* The guest's state as the guest would see it, whatever runs it. gpr: rax rcx rdx rbx rsp rbp rsi rdi r8..r15. */
struct gn_kvm_state {
	uint64_t gpr[16], rip, rflags;
	struct gn_regs regs; /* cr0 cr3 cr4 efer pkru */
	uint64_t cr2, cr8;
	struct gn_kvm_segment cs, ss, ds, es, fs, gs, ldtr, tr;
	struct gn_kvm_table gdtr, idtr;
	uint64_t star, lstar, sfmask, kernel_gs_base;
};

/* ---- VM --------------------------------------------------------------------------------------------------- */

/* An OUT or IN of the guest at CPL 0 to a port no device here has. @value: in for OUT, out for IN. True: answered. */
typedef bool gn_kvm_port_fn(void *ctx, struct gn_kvm *kvm, unsigned vcpu, uint16_t port,
			    unsigned bytes, bool is_out, uint32_t *value);
typedef void gn_kvm_console_fn(void *ctx, const char *text, size_t bytes);

struct gn_kvm_config {
	struct gn_vm_config
		vm; /* .backend, .deprivileged, .home_frames are filled in here, and .pool unless it is GN_POOL_TEMPLATE */
	bool populate; /* nested: give all RAM its frames before the run; else on demand */
	unsigned dirty_ring_entries; /* 0: dirty bitmap */
	bool time_exits;      /* measure the time of each exit by reason (costs two clock reads) */
	uint64_t max_exits;   /* gn_kvm_run() stops with ASKED after so many; 0: never */
	gn_kvm_port_fn *port; /* may be NULL */
	gn_kvm_console_fn *console; /* may be NULL */
	void *ctx;
};

/* -ENODEV, -EACCES (no /dev/kvm, no permission), -EOPNOTSUPP (scheme, capability), -ENOMEM, -errno; @why says it. */
int gn_kvm_create(const struct gn_kvm_config *config, struct gn_kvm **out, char *why,
		  size_t why_bytes);
void gn_kvm_destroy(struct gn_kvm *kvm);
struct gn_vm *gn_kvm_vm(struct gn_kvm *kvm);

/* Devices in the guest-physical space. A guest's access to what is no memory goes to @fn, up to 8 bytes of one page:
 * true, and *value (little endian; in for a write, out for a read) is the answer; false, and it is an empty bus: ones,
 * and nothing stored. Called by the vCPU's thread outside the guest with no lock held, so it may change the p2m. A
 * fetch and a locked read-modify-write never get there. Set while no vCPU runs; NULL: none. */
typedef bool gn_kvm_mmio_fn(void *ctx, unsigned vcpu, uint64_t at, unsigned bytes, bool is_write,
			    uint64_t *value);
void gn_kvm_set_mmio(struct gn_kvm *kvm, gn_kvm_mmio_fn *fn, void *ctx);

/* Of a vCPU that is not running. Set: -EINVAL for a state that is none of 64-bit or real x86's. */
int gn_kvm_set_state(struct gn_kvm *kvm, unsigned vcpu, const struct gn_kvm_state *state);
int gn_kvm_get_state(struct gn_kvm *kvm, unsigned vcpu, struct gn_kvm_state *state);

/* Load an image, fill the boot page's layout fields from it (@boot's other fields are the caller's) and set
 * vCPU 0 to its entry. Over a template .dirty_ram is set; with it the memory that the image takes is cleared first.
 * -EINVAL: not an image, or it does not fit the RAM; see gn_kvm_error(). */
int gn_kvm_load(struct gn_kvm *kvm, const struct gn_guest_image *image, struct gn_guest_boot *boot);

enum gn_kvm_stop {
	GN_KVM_STOP_EXIT,     /* the guest wrote GN_GUEST_PORT_EXIT */
	GN_KVM_STOP_HALT,     /* HLT with interrupts off: nothing can wake it */
	GN_KVM_STOP_SHUTDOWN, /* triple fault */
	GN_KVM_STOP_GUEST,    /* the guest cannot go on; gn_kvm_error() says why */
	GN_KVM_STOP_ASKED,    /* gn_kvm_stop() */
	GN_KVM_STOP_ERROR,    /* the host failed; gn_kvm_error() */
};
/* Run vCPU @vcpu on the calling thread until it stops. May be called again after ASKED. */
enum gn_kvm_stop gn_kvm_run(struct gn_kvm *kvm, unsigned vcpu, uint32_t *status);
/* Every vCPU stops soon with ASKED (or what it came to); one that does not run now does so when it is run next. */
void gn_kvm_stop(struct gn_kvm *kvm);
const char *gn_kvm_error(struct gn_kvm *kvm, unsigned vcpu);

/* Raise an external interrupt: taken when the guest's IF allows. One that is pending already is not counted twice, as
 * in an interrupt controller's request register. -EINVAL: an exception's vector. */
int gn_kvm_interrupt(struct gn_kvm *kvm, unsigned vcpu, uint8_t vector);

/* Exchange the scheme at an instruction boundary of every vCPU. Called by any thread, also while vCPUs run, but not
 * from a callback of a running vCPU (-EDEADLK); returns when it is done. Errors as of gn_vm_switch_scheme(), or
 * -EOPNOTSUPP: then nothing changed. */
int gn_kvm_switch_scheme(struct gn_kvm *kvm, const char *scheme);
/* Run @fn while every vCPU is at an instruction boundary, outside guest and engine, and the engine knows the guest's
 * registers (audits). Returns what @fn did, -EDEADLK in a callback of a running vCPU, or -errno. */
int gn_kvm_pause(struct gn_kvm *kvm, int (*fn)(void *ctx), void *ctx);

/* ---- Results ------------------------------------------------------------------------------------------------ */
struct gn_kvm_stats {
	uint64_t exits_by[GN_EXIT_REASONS], ns_by[GN_EXIT_REASONS];
	uint64_t runs;		  /* KVM_RUN calls */
	uint64_t stub_operations; /* table downgrades and flushes carried out inside the guest */
	uint64_t reflected;	  /* exceptions handed on to the guest's own IDT */
	uint64_t emulated;	  /* privileged instructions */
	uint64_t denied;	  /* stores to read-only memory, touches of ballooned memory */
	uint64_t uffd_faults;	  /* nested: demand population */
	uint64_t uffd_bytes;	  /* given by them */
	uint64_t
		uffd_breaks; /* of them, shared pages that got a frame of their own for want of mappings, or of a way to guard them */
	uint64_t emulation_failures;  /* KVM's emulator gave up, this room's did not */
	uint64_t switches, switch_ns; /* live exchanges of the scheme, time of the pause */
};
void gn_kvm_stats(struct gn_kvm *kvm, struct gn_kvm_stats *sum);
void gn_kvm_stats_reset(struct gn_kvm *kvm); /* and the engine's counters of each vCPU */
void gn_kvm_counters(struct gn_kvm *kvm, struct gn_counters *sum);

#ifdef __cplusplus
}
#endif
#endif
