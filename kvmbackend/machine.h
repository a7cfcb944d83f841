/* SPDX-License-Identifier: MIT */
/*
 * machine.h - struct gn_kvm and its vCPUs: what the files of this room share.
 *
 * Who does what:
 *   sys.c       /dev/kvm and its ioctls, with errors that teach        probe.c     what this host's KVM is
 *   machine.c   creation, the end, scheme switches, pauses             vcpu.c      the run loop, kicks, stops
 *   slots.c     memory slots of either mode                            devices.c   console, ports, MMIO
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
	/* Every vCPU is outside the guest. Make, take away, the memory slots. -errno. */
	int (*enter)(struct gn_kvm *kvm);
	void (*leave)(struct gn_kvm *kvm);
	/* Between this room's picture of the guest and the vCPU as KVM has it. -errno. */
	int (*set_state)(struct gn_kvm_cpu *cpu, const struct gn_kvm_state *state);
	int (*get_state)(struct gn_kvm_cpu *cpu, struct gn_kvm_state *state);
	/* vCPU thread. Before KVM_RUN: what must be in force before the guest's next instruction. */
	enum gn_kvm_next (*before_run)(struct gn_kvm_cpu *cpu);
	/* After it: @err 0 or -errno of KVM_RUN (never EINTR). */
	enum gn_kvm_next (*after_run)(struct gn_kvm_cpu *cpu, int err);
	/* The vCPU is at a boundary of the guest's instructions (a mode with code of its own in the guest may
	 * be in the midst of that; then the loop runs on until it is not). */
	bool (*is_at_boundary)(const struct gn_kvm_cpu *cpu);
	bool reads_under_rcu; /* KVM_RUN happens inside an RCU read section: translations follow the engine's tables
			       * and its grace periods */
};
extern const struct gn_kvm_mode gn_kvm_mode_nested; /* nested.c */
extern const struct gn_kvm_mode gn_kvm_mode_depriv; /* depriv.c */

struct gn_kvm_nested; /* nested.c: mode data */
struct gn_kvm_depriv; /* depriv.c: mode data; the monitor */
struct gn_kvm_depriv_cpu;

struct gn_kvm_cpu {
	struct gn_kvm *kvm;   /* (c) */
	struct gn_vcpu *vcpu; /* (c) */
	unsigned index;	      /* (c) */
	int fd;		      /* (c) */
	struct kvm_run *run;  /* (c) the shared page; kicks write run->immediate_exit */
	pthread_t thread;     /* [kvm->lock] valid while is_running */
	bool is_running;      /* [kvm->lock] inside gn_kvm_run() */
	bool is_parked;	      /* [kvm->lock] at a boundary, waiting for a pause to end */
	_Atomic(bool)
		has_request; /* (a) a pause, a stop or posted work waits: look before KVM_RUN */
	_Atomic(bool) is_told_to_stop;	  /* (a) */
	enum gn_kvm_stop stop;		  /* (v) */
	uint32_t status;		  /* (v) with GN_KVM_STOP_EXIT */
	char error[512];		  /* (v) */
	struct gn_kvm_stats stats;	  /* (v) */
	uint64_t exit_began_ns;		  /* (v) config.time_exits */
	_Atomic(uint32_t) interrupt;	  /* (a) pending vector + 1; 0: none */
	struct gn_kvm_depriv_cpu *depriv; /* (v) depriv.c's own */
};

struct gn_kvm {
	struct gn_kvm_config config;	/* (c) */
	struct gn_kvm_host host;	/* (c) what the probe found (cached for the process) */
	struct gn_vm *vm;		/* (c) */
	struct gn_pool pool;		/* (c) */
	int fd, vm_fd;			/* (c) /dev/kvm, the VM */
	size_t run_bytes;		/* (c) of a vCPU's shared page */
	const struct gn_kvm_mode *mode; /* changed while every vCPU is parked */
	struct gn_kvm_nested *nested;	/* (c) */
	struct gn_kvm_depriv *depriv;	/* (c) */
	struct gn_kvm_cpu *cpus;	/* (c) config.vm.vcpus of them */
	pthread_mutex_t lock;
	pthread_cond_t changed; /* [lock] a vCPU parked or left, a pause ended */
	unsigned pauses;	/* [lock] who wants every vCPU parked */
};

/* sys.c. @what: "KVM_CREATE_VM"; fills @why with name, errno and what to do. Returns -errno. */
int gn_kvm_sys_fail(char *why, size_t why_bytes, const char *what, int error);

/* vcpu.c */
void gn_kvm_kick(struct gn_kvm_cpu *cpu); /* out of the guest soon; any thread */
/* End the run. Returns GN_KVM_DONE. */
__attribute__((format(printf, 3, 4))) enum gn_kvm_next
gn_kvm_end(struct gn_kvm_cpu *cpu, enum gn_kvm_stop stop, const char *format, ...);
/* An exit for @reason begins (counted; timed until the next entry). */
void gn_kvm_count_exit(struct gn_kvm_cpu *cpu, enum gn_exit_reason reason);

/* devices.c: a port access of the guest at CPL 0, from a KVM_EXIT_IO or an emulated instruction. */
enum gn_kvm_next gn_kvm_port(struct gn_kvm_cpu *cpu, uint16_t port, unsigned bytes, bool is_out,
			     uint32_t *value);

/* slots.c */
struct gn_kvm_slot {
	uint64_t gpa, bytes;
	void *host;
	bool is_readonly, logs_dirty;
};
/* Make the VM's slots exactly @slots; what stays as it is isn't touched. -errno. */
int gn_kvm_slots_set(struct gn_kvm *kvm, const struct gn_kvm_slot *slots, size_t count, char *why,
		     size_t why_bytes);

/* nested.c, fill.c: struct gn_backend_ops parts */
int gn_kvm_nested_new(struct gn_kvm *kvm, char *why, size_t why_bytes);
void gn_kvm_nested_destroy(struct gn_kvm *kvm);
void gn_kvm_nested_range_changing(struct gn_kvm *kvm, gfn_t start, gfn_t end,
				  enum gn_range_change change);
int gn_kvm_nested_dirty_log(struct gn_kvm *kvm, bool on);
int gn_kvm_nested_dirty_sync(struct gn_kvm *kvm);

/* depriv.c, downgrade.c: the others. Called under the scheme's lock: post, kick, return. */
int gn_kvm_depriv_new(struct gn_kvm *kvm, char *why, size_t why_bytes);
void gn_kvm_depriv_destroy(struct gn_kvm *kvm);
void gn_kvm_depriv_flush(struct gn_kvm_cpu *cpu, const struct gn_flush *flush);
void gn_kvm_depriv_entry_changed(struct gn_kvm *kvm, hpa_t slot);
void gn_kvm_depriv_table_retired(struct gn_kvm *kvm, pfn_t table);

#endif
