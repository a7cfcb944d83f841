/* SPDX-License-Identifier: MIT */
/*
 * machine.h - struct gn_kvm and its vCPUs: what the files of this room share.
 *
 * Who does what:
 *   sys.c       /dev/kvm and its ioctls, with errors that teach        probe.c     what this host's KVM is
 *   machine.c   creation, the end, scheme switches                     vcpu.c      the run loop, kicks, stops
 *   pause.c     vCPUs kept out of the guest                            state.c     registers, ours and KVM's
 *   slots.c     memory slots of either mode                            devices.c   console, ports
 *   loader.c    guest images                                           stats.c     counters
 *   nested.c    mode: the guest's kernel at CPL 0, memory by slots     fill.c      its demand population
 *   depriv.c    mode: all of the guest at CPL 3 (shadow)               monitor.c   what lives in the reserved root slot
 *   downgrade.c table changes applied inside the guest                 reflect.c   exceptions the guest gets
 *   emulate.c   privileged instructions
 *
 * A *mode* is a way to run the guest; which one follows from gn_hw.kind. The run loop knows nothing else of the
 * difference.
 *
 * Field tags as in mmu/vm.h: (c) const after init, (v) vCPU thread only, (a) atomic, [m] lock m.
 */
#ifndef GN_KVM_MACHINE_H
#define GN_KVM_MACHINE_H

#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>

#include <gnomon/kvm.h>

#include "mmu/vm.h"

struct gn_kvm_cpu;

/* What became of an exit. */
enum gn_kvm_next {
	GN_KVM_AGAIN, /* run on */
	GN_KVM_DONE,  /* cpu->stop is set */
};

struct gn_kvm_mode {
	const char *name;
	/* Every vCPU is outside the guest. Make, take away, the memory slots. -errno, kvm->why says it. */
	int (*enter)(struct gn_kvm *kvm);
	void (*leave)(struct gn_kvm *kvm);
	/* Between this room's picture of the guest and the vCPU as KVM has it; the engine hears of the registers that
	 * steer translation (gn_vcpu_set_regs). The vCPU is at a boundary. -errno. */
	int (*set_state)(struct gn_kvm_cpu *cpu, const struct gn_kvm_state *state);
	int (*get_state)(struct gn_kvm_cpu *cpu, struct gn_kvm_state *state);
	/* vCPU thread. Before KVM_RUN: what must be in force before the guest's next instruction. */
	enum gn_kvm_next (*before_run)(struct gn_kvm_cpu *cpu);
	/* After it: @err 0 or -errno of KVM_RUN (-EINTR: kicked). */
	enum gn_kvm_next (*after_run)(struct gn_kvm_cpu *cpu, int err);
	/* The vCPU is at a boundary of the guest's instructions: get_state() would tell the truth. When it is not (a
	 * mode's own code inside the guest was interrupted, or KVM has an access to complete), the loop runs on until
	 * it is; a mode sees to it that it then comes back and does not run into the guest (has_request is set). */
	bool (*is_at_boundary)(const struct gn_kvm_cpu *cpu);
	/* May be NULL. While held, threads of the mode's own stand still, outside the engine. */
	void (*hold)(struct gn_kvm *kvm, bool hold);
};
extern const struct gn_kvm_mode gn_kvm_mode_nested; /* nested.c */
extern const struct gn_kvm_mode gn_kvm_mode_depriv; /* depriv.c */

struct gn_kvm_nested; /* nested.c: mode data */
struct gn_kvm_nested_cpu;
struct gn_kvm_depriv; /* depriv.c: mode data; the monitor */
struct gn_kvm_depriv_cpu;

struct gn_kvm_cpu {
	struct gn_kvm *kvm;   /* (c) */
	struct gn_vcpu *vcpu; /* (c) */
	unsigned index;	      /* (c) */
	int fd;		      /* (c) */
	struct kvm_run *run;  /* (c) the shared page; kicks write run->immediate_exit */
	pthread_t thread;     /* [kvm->lock] valid while is_running */
	_Atomic(pid_t) tid;   /* (a) of the thread, 0: not running */
	bool is_running;      /* [kvm->lock] inside gn_kvm_run() */
	bool is_parked;	      /* [kvm->lock] at a boundary, waiting for a pause to end */
	/* (a) Crossings of the border to the guest: odd while the vCPU is inside KVM_RUN. */
	_Atomic(uint64_t) crossings;
	_Atomic(bool)
		has_request; /* (a) a pause, a stop or posted work waits: look before KVM_RUN */
	_Atomic(bool) is_told_to_stop; /* (a) */
	_Atomic(bool) is_waiting;      /* (a) halted, asleep until an interrupt or a request */
	bool has_state; /* [v, or parked] the guest's state was set once: there is something to run */
	bool is_halted; /* (v) executed HLT with interrupts on; an interrupt ends it. A mode sets it. */
	enum gn_kvm_stop stop;	   /* (v) */
	uint32_t status;	   /* (v) with GN_KVM_STOP_EXIT */
	char error[512];	   /* (v) */
	struct gn_kvm_stats stats; /* (v) */
	uint64_t exit_began_ns;	   /* (v) config.time_exits */
	unsigned exit_reason;	   /* (v) what the time until the next entry is booked under */
	_Atomic(uint64_t) interrupts[4];  /* (a) pending external interrupts, a bit a vector */
	struct gn_kvm_nested_cpu *nested; /* (c) nested.c's own, NULL until it is entered */
	struct gn_kvm_depriv_cpu *depriv; /* (v) depriv.c's own */
};

struct gn_kvm_slots; /* slots.c */

struct gn_kvm {
	struct gn_kvm_config config;	/* (c) */
	struct gn_kvm_host host;	/* (c) what the probe found (cached for the process) */
	struct gn_vm *vm;		/* (c) */
	struct gn_pool pool;		/* (c) */
	gn_kvm_mmio_fn *mmio;		/* (c) while a vCPU runs */
	void *mmio_ctx;			/* as mmio */
	int fd, vm_fd;			/* (c) /dev/kvm, the VM */
	size_t run_bytes;		/* (c) of a vCPU's shared page */
	const struct gn_kvm_mode *mode; /* changed while every vCPU is parked; NULL: none can run */
	struct gn_kvm_slots *slots;	/* (c) */
	struct gn_kvm_nested *nested;	/* (c) once nested mode was entered */
	struct gn_kvm_depriv *depriv;	/* (c) */
	struct gn_kvm_cpu *cpus;	/* (c) cpu_count of them */
	unsigned cpu_count;		/* (c) */
	char why[512];			/* of the last mode->enter() that failed */
	uint64_t switches, switch_ns;	/* [lock] */
	pthread_mutex_t pause_lock;	/* one pause at a time; before any lock of the engine */
	pthread_mutex_t lock; /* innermost: nothing of the engine is called with it held */
	pthread_cond_t
		changed; /* [lock] a vCPU parked, left the guest or gn_kvm_run(); a pause ended */
	_Atomic(unsigned) watchers; /* (a) threads that wait for a vCPU to leave the guest */
	_Atomic(unsigned) holds;    /* (a) who wants every vCPU outside the guest */
	unsigned pauses;	    /* [lock] who wants every vCPU parked at a boundary */
};

/* ---- sys.c ------------------------------------------------------------------------------------------- */

/* @what: "KVM_CREATE_VM"; fills @why with name, errno and what to do. Returns -@error. */
int gn_kvm_sys_fail(char *why, size_t why_bytes, const char *what, int error);
/* ioctl() that goes on after EINTR. The result, or -errno. */
int gn_kvm_ioctl(int fd, unsigned long request, void *argument);
int gn_kvm_ioctl_value(int fd, unsigned long request, unsigned long value);
/* @path: GN_KVM_DEVICE but for tests. *fd is the device, its API version checked. */
#define GN_KVM_DEVICE "/dev/kvm"
int gn_kvm_sys_open(const char *path, int *fd, char *why, size_t why_bytes);
/* 0: absent, else what KVM_CHECK_EXTENSION says. */
int gn_kvm_sys_capability(int fd, unsigned long capability);
uint64_t gn_kvm_now_ns(void);
/* Around a thread's KVM_RUN calls: GN_KVM_SIGNAL can end them. *old: the thread's mask before. */
void gn_kvm_signal_begin(sigset_t *old);
void gn_kvm_signal_end(const sigset_t *old);
/* Until timer_delete(*alarm) the calling thread gets GN_KVM_SIGNAL each @ns. -errno. */
int gn_kvm_alarm(uint64_t ns, timer_t *alarm);

/* Newer than the headers of Debian 12. */
#define GN_KVM_CAP_MEMORY_FAULT_INFO 232
#define GN_KVM_EXIT_MEMORY_FAULT     39
/* A userfaultfd, by the call or by way of its device, before its UFFDIO_API; it does not block. -errno of the call. */
int gn_kvm_userfaultfd_open(void);

/* probe.c, machine.c: the public functions with the device's path to choose. */
void gn_kvm_probe_at(const char *path, struct gn_kvm_host *out, bool measure);
int gn_kvm_create_at(const char *path, const struct gn_kvm_config *config, struct gn_kvm **out,
		     char *why, size_t why_bytes);

/* ---- vcpu.c ------------------------------------------------------------------------------------------ */

void gn_kvm_kick(struct gn_kvm_cpu *cpu); /* out of the guest soon; any thread */
/* End the run. Returns GN_KVM_DONE. */
__attribute__((format(printf, 3, 4))) enum gn_kvm_next
gn_kvm_end(struct gn_kvm_cpu *cpu, enum gn_kvm_stop stop, const char *format, ...);
/* An exit for @reason begins (counted; timed until the next entry). */
void gn_kvm_count_exit(struct gn_kvm_cpu *cpu, enum gn_exit_reason reason);
/* The highest pending external interrupt, -1: none. Take it once it was delivered. */
int gn_kvm_interrupt_pending(const struct gn_kvm_cpu *cpu);
void gn_kvm_interrupt_take(struct gn_kvm_cpu *cpu, uint8_t vector);

/* ---- pause.c ----------------------------------------------------------------------------------------- */

/* vCPU thread, with a request waiting: park, stop, or go on. */
enum gn_kvm_next gn_kvm_answer(struct gn_kvm_cpu *cpu);
/* Keep every vCPU out of KVM_RUN until the release; at any place of its run, not only at a boundary. Counted.
 * Any thread, a vCPU's in its exit too; no lock of the engine's held that a vCPU may want. */
void gn_kvm_hold(struct gn_kvm *kvm);
void gn_kvm_release(struct gn_kvm *kvm);
/* Wait until each vCPU that is in the guest now has left it once; it may be back. So what was posted to it before
 * this call was seen: before_run() drains. Waits for vCPUs only, so any lock may be held that they don't want inside
 * KVM_RUN. */
void gn_kvm_quiesce(struct gn_kvm *kvm);

/* ---- state.c ----------------------------------------------------------------------------------------- */

void gn_kvm_segment_to(const struct gn_kvm_segment *from, struct kvm_segment *to);
void gn_kvm_segment_from(const struct kvm_segment *from, struct gn_kvm_segment *to);
/* gpr, rip, rflags */
void gn_kvm_regs_to(const struct gn_kvm_state *from, struct kvm_regs *to);
void gn_kvm_regs_from(const struct kvm_regs *from, struct gn_kvm_state *to);
/* Segments, tables, control registers, EFER; @to keeps what the picture does not have (apic_base). */
void gn_kvm_sregs_to(const struct gn_kvm_state *from, struct kvm_sregs *to);
void gn_kvm_sregs_from(const struct kvm_sregs *from, struct gn_kvm_state *to);
/* STAR, LSTAR, SFMASK, KERNEL_GS_BASE. -errno. */
int gn_kvm_msrs_set(struct gn_kvm_cpu *cpu, const struct gn_kvm_state *from);
int gn_kvm_msrs_get(struct gn_kvm_cpu *cpu, struct gn_kvm_state *to);

/* ---- devices.c --------------------------------------------------------------------------------------- */

/* An access of the guest to what is no memory, within a page; its exit is the caller's to count. */
void gn_kvm_mmio(struct gn_kvm_cpu *cpu, gpa_t at, void *data, unsigned bytes, bool is_write);
/* A port access of the guest at CPL 0, from a KVM_EXIT_IO or an emulated instruction; counts its exit. */
enum gn_kvm_next gn_kvm_port(struct gn_kvm_cpu *cpu, uint16_t port, unsigned bytes, bool is_out,
			     uint32_t *value);

/* ---- slots.c ----------------------------------------------------------------------------------------- */

struct gn_kvm_slot {
	uint64_t gpa, bytes;
	void *host;
	bool is_readonly, logs_dirty;
};
int gn_kvm_slots_new(struct gn_kvm *kvm);
void gn_kvm_slots_destroy(struct gn_kvm *kvm);
/* Make the VM's slots exactly @slots (rising, apart); what stays as it is isn't touched. Every vCPU is outside the
 * guest if one goes that the guest can reach. What a slot logged as dirty and nobody fetched is noted as dirty
 * as a whole. On failure some may be missing. -errno. */
int gn_kvm_slots_set(struct gn_kvm *kvm, const struct gn_kvm_slot *slots, size_t count, char *why,
		     size_t why_bytes);
/* Slot by its number: false past the last; @out->bytes is 0 for one not in use. */
bool gn_kvm_slots_get(const struct gn_kvm *kvm, uint32_t id, struct gn_kvm_slot *out);

/* ---- nested.c, fill.c: struct gn_backend_ops parts ------------------------------------------------------ */

void gn_kvm_nested_destroy(struct gn_kvm *kvm);
/* When it returns, the faults whose vCPUs were awake before are in their books. May wait for the engine. */
void gn_kvm_fill_settle(struct gn_kvm *kvm);
void gn_kvm_nested_range_changing(struct gn_kvm *kvm, const struct gn_gfn_run *runs, size_t count,
				  enum gn_range_change change);
void gn_kvm_nested_change_over(struct gn_kvm *kvm);
void gn_kvm_nested_range_changed(struct gn_kvm *kvm, gfn_t start, gfn_t end);
bool gn_kvm_nested_shows_accesses(const struct gn_kvm *kvm);
int gn_kvm_nested_dirty_log(struct gn_kvm *kvm, bool on);
int gn_kvm_nested_dirty_sync(struct gn_kvm *kvm);

/* ---- depriv.c, downgrade.c: the others. Called under the scheme's lock: post, kick, return. ------------- */

int gn_kvm_depriv_new(struct gn_kvm *kvm, char *why, size_t why_bytes);
void gn_kvm_depriv_destroy(struct gn_kvm *kvm);
void gn_kvm_depriv_flush(struct gn_kvm_cpu *cpu, const struct gn_flush *flush);
void gn_kvm_depriv_entry_changed(struct gn_kvm *kvm, hpa_t slot);
void gn_kvm_depriv_table_retired(struct gn_kvm *kvm, pfn_t table);

#endif
