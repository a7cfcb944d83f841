/* SPDX-License-Identifier: MIT */
/*
 * soft.h - the software machine: a model CPU that executes guest operations on an engine VM.
 *
 * The machine owns TLBs, page-walk caches, a data-cache model and a cost model; page walks read the
 * real tables in the VM's frames. A guest is C code that calls gn_soft_load(), gn_soft_store() and the
 * privileged operations; each goes through translation exactly as an instruction would. Deterministic:
 * the same guest, seed and preset give the same counters to the last digit.
 *
 * A guest fault calls the guest's handler (as CPL 0 code, with CR2 and the error code) and then runs
 * the operation again. A guest that cannot go on is *stopped*: control leaves the guest code and
 * gn_soft_run() returns with the reason.
 *
 * Threads: one thread per machine (deterministic mode).
 */
#ifndef GNOMON_SOFT_H
#define GNOMON_SOFT_H

#include <gnomon/engine.h>

#ifdef __cplusplus
extern "C" {
#endif

struct gn_soft;	    /* the machine */
struct gn_soft_cpu; /* one of its CPUs */
struct gn_cpu_preset;

/* ---- CPU presets (softbackend/presets.c: figures with a source each) ----------------------------- */
const struct gn_cpu_preset *gn_cpu_preset_find(const char *name); /* NULL: unknown */
const struct gn_cpu_preset *gn_cpu_preset_at(unsigned index);
const char *gn_cpu_preset_name(const struct gn_cpu_preset *preset);
const char *gn_cpu_preset_summary(const struct gn_cpu_preset *preset);

/* A preset from a text file of `key = value` lines over a base preset (key: base). -EINVAL with the
 * line and reason in @why (bytes long). Free with gn_cpu_preset_free(). */
int gn_cpu_preset_load(const char *path, struct gn_cpu_preset **out, char *why, size_t why_bytes);
void gn_cpu_preset_free(struct gn_cpu_preset *preset);
/* A copy with one figure changed, for sensitivity sweeps: @key as in the file. -EINVAL. */
int gn_cpu_preset_vary(const struct gn_cpu_preset *base, const char *key, double value,
		       struct gn_cpu_preset **out);
/* Figures of a preset, for tables: walk i from 0 until it returns false. */
struct gn_preset_figure {
	const char *key;
	double value;
	const char *source;
	bool estimate;
};
bool gn_cpu_preset_figure(const struct gn_cpu_preset *preset, unsigned i,
			  struct gn_preset_figure *out);

/* ---- Machine --------------------------------------------------------------------------------------- */
struct gn_soft_config {
	struct gn_vm_config vm;		 /* .backend is filled in by the machine */
	const struct gn_cpu_preset *cpu; /* NULL: the first preset */
	uint64_t seed;
	/* Trap-and-emulate, as on hardware that runs all of the guest at CPL 3: a scheme's 1-D tables are used as a
	 * user's whatever the guest's privilege, a change of which is an exit, another root, and no translation
	 * left in the TLBs. Other schemes are not affected. Sets vm.deprivileged. */
	bool deprivileged;
};
int gn_soft_create(const struct gn_soft_config *config, struct gn_soft **out);
void gn_soft_destroy(struct gn_soft *soft);
struct gn_vm *gn_soft_vm(struct gn_soft *soft);
struct gn_soft_cpu *gn_soft_cpu(struct gn_soft *soft, unsigned index);
struct gn_soft *gn_soft_machine(const struct gn_soft_cpu *cpu); /* the one it belongs to */

/* Run @guest on @cpu until it returns or is stopped. 0; -ECANCELED: stopped (see gn_soft_stop_reason);
 * -ENOMEM: the host ran out. */
int gn_soft_run(struct gn_soft_cpu *cpu, void (*guest)(struct gn_soft_cpu *cpu, void *ctx),
		void *ctx);
const char *gn_soft_stop_reason(const struct gn_soft_cpu *cpu);

/* ---- Results ----------------------------------------------------------------------------------------- */
void gn_soft_counters(struct gn_soft *soft, struct gn_counters *sum); /* all CPUs */
void gn_soft_counters_reset(struct gn_soft *soft); /* after warm-up; caches stay warm */
#define GN_SOFT_MAX_WALK_REFS 40
struct gn_soft_stats {
	uint64_t walk_refs_histogram[GN_SOFT_MAX_WALK_REFS + 1]; /* walks by references they made */
	uint64_t l2_tlb_hits, l2_tlb_misses, pwc_hits, nested_tlb_hits, nested_tlb_misses;
	uint64_t cache_refs[4]; /* walk references served by L1, L2, L3, memory */
	uint64_t tlb_cycles;	/* L2 TLB lookups */
	uint64_t exit_cycles_by[GN_EXIT_REASONS];
	uint64_t guest_fault_cycles; /* delivery of #PF to the guest's own handler */
	uint64_t tlb_flush_cycles;
};
void gn_soft_stats(struct gn_soft *soft, struct gn_soft_stats *sum);

/* ---- Guest operations: unprivileged ------------------------------------------------------------------ */
/* 1, 2, 4 or 8 bytes, any alignment (page crossings are split as hardware does: both pages are
 * translated before either is written). Little endian. */
uint64_t gn_soft_load(struct gn_soft_cpu *cpu, gva_t va, unsigned bytes);
void gn_soft_store(struct gn_soft_cpu *cpu, gva_t va, unsigned bytes, uint64_t value);
void gn_soft_fetch(struct gn_soft_cpu *cpu, gva_t va);
/* Instructions that do not touch memory: @count of them at the preset's base cost. */
void gn_soft_compute(struct gn_soft_cpu *cpu, uint64_t count);

/* A batch of references (trace replay, streams): translate each, touching no data. Faults are
 * delivered as for the single operations. */
struct gn_soft_ref {
	uint64_t va : 60;
	uint64_t kind : 4; /* enum gn_access_kind */
};
void gn_soft_refs(struct gn_soft_cpu *cpu, const struct gn_soft_ref *refs, size_t count);

/* ---- Guest operations: privileged (at CPL 3 they raise #GP) ------------------------------------------- */
void gn_soft_write_cr0(struct gn_soft_cpu *cpu, uint64_t value);
void gn_soft_write_cr3(struct gn_soft_cpu *cpu, uint64_t value);
void gn_soft_write_cr4(struct gn_soft_cpu *cpu, uint64_t value);
void gn_soft_write_efer(struct gn_soft_cpu *cpu, uint64_t value);
void gn_soft_write_pkru(struct gn_soft_cpu *cpu, uint32_t value); /* unprivileged in fact */
void gn_soft_invlpg(struct gn_soft_cpu *cpu, gva_t va);
void gn_soft_invpcid(struct gn_soft_cpu *cpu, unsigned type, uint64_t pcid, gva_t va);
void gn_soft_set_ac(struct gn_soft_cpu *cpu, bool ac); /* STAC, CLAC */
uint64_t gn_soft_hypercall(struct gn_soft_cpu *cpu, uint64_t nr, uint64_t arg);

/* Mode changes: SYSCALL and SYSRET (or an interrupt and IRET): CPL and their cost. */
void gn_soft_enter_kernel(struct gn_soft_cpu *cpu);
void gn_soft_enter_user(struct gn_soft_cpu *cpu);
bool gn_soft_is_user(const struct gn_soft_cpu *cpu);

/* The guest's exception handler. Runs at CPL 0; returns true to run the operation again, false to have
 * the guest stopped. Faults inside the handler nest (to a depth of 4, then the guest is stopped). */
struct gn_soft_exception {
	unsigned vector;
	uint32_t error_code;
	gva_t cr2;
	bool user;
};
typedef bool gn_soft_handler(struct gn_soft_cpu *cpu, const struct gn_soft_exception *e, void *ctx);
void gn_soft_set_handler(struct gn_soft_cpu *cpu, gn_soft_handler *handler, void *ctx);
void gn_soft_stop(struct gn_soft_cpu *cpu,
		  const char *why); /* does not return inside gn_soft_run */

/* One access without a handler, for tests and tools: translate and perform; a guest fault is returned
 * instead of delivered. */
struct gn_soft_outcome {
	bool faulted;
	unsigned vector;
	uint32_t error_code;
	gva_t cr2;
	gpa_t gpa;
	hpa_t hpa;
};
int gn_soft_probe(struct gn_soft_cpu *cpu, const struct gn_access *access, uint64_t *value,
		  struct gn_soft_outcome *out);

/* Empty the TLBs and walk caches; optionally the data caches as well ("cold" measurements). */
void gn_soft_cold(struct gn_soft_cpu *cpu, bool data_caches);

/* Devices in the guest-physical space. An access to what is no memory goes to @fn, up to 8 bytes of one page:
 * true, and *value (little endian; in for a write, out for a read) is the answer; false, and it is an empty bus: ones,
 * and nothing stored. Called by the CPU's thread with no lock held and outside read sections, so it may change the p2m.
 * Set while no CPU runs; NULL: none. */
typedef bool gn_soft_mmio_fn(void *ctx, unsigned cpu, uint64_t at, unsigned bytes, bool is_write,
			     uint64_t *value);
void gn_soft_set_mmio(struct gn_soft *soft, gn_soft_mmio_fn *fn, void *ctx);
/* What gn_soft_hypercall() answers. Called and set as the devices; NULL: -ENOSYS to all. */
typedef uint64_t gn_soft_hypercall_fn(void *ctx, uint64_t nr, uint64_t arg);
void gn_soft_set_hypercalls(struct gn_soft *soft, gn_soft_hypercall_fn *fn, void *ctx);

/* Every guest operation as text-free records, for twin tests: called before the operation takes effect. */
enum gn_soft_op_kind {
	GN_OP_TABLE_WRITE, /* a: guest-physical address, b: value */
	GN_OP_CR3,	   /* a: value */
	GN_OP_CR,	   /* a: 0, 4 or GN_OP_CR_EFER, b: value */
	GN_OP_INVLPG,	   /* a: address */
	GN_OP_INVPCID,	   /* a: type << 16 | PCID, b: address */
	GN_OP_FAULT	   /* a #PF for the guest; a: CR2, b: error code */
};
#define GN_OP_CR_EFER 8
struct gn_soft_op {
	enum gn_soft_op_kind kind;
	uint64_t a, b;
};
typedef void gn_soft_op_fn(void *ctx, const struct gn_soft_op *op);
void gn_soft_set_op_hook(struct gn_soft_cpu *cpu, gn_soft_op_fn *fn, void *ctx);
/* The guest's own note of an operation the machine cannot tell from others (GN_OP_TABLE_WRITE: a the
 * guest-physical address, b the value): passed to the hook, nothing else. */
void gn_soft_note(struct gn_soft_cpu *cpu, const struct gn_soft_op *op);

#ifdef __cplusplus
}
#endif
#endif
