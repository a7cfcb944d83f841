/* SPDX-License-Identifier: MIT */
/*
 * machine.c - a VM's creation and end, and the exchange of its scheme.
 *
 * Creation: probe, /dev/kvm, the VM, the engine's VM under the scheme `interp`, the vCPUs, the monitor (it must have its
 * root slot before a table scheme is in force), then the step that every later exchange makes too: put the wanted
 * scheme in charge, see from gn_hw.kind which mode runs it, enter that mode.
 *
 * An exchange takes the guest's state out of the vCPUs as the old mode sees it and puts it back as the new one does. When
 * anything fails the old scheme and mode come back; should even that fail (memory ran out), the VM is left without
 * a mode, and a run says so.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "machine.h"

#define CPUID_ENTRIES_MAX 256

/* ---- What the engine calls -------------------------------------------------------------------------------- */

static struct gn_kvm *kvm_of(struct gn_vm *vm)
{
	return (struct gn_kvm *)gn_vm_backend(vm);
}

static bool is_depriv(const struct gn_kvm *kvm)
{
	return kvm->mode == &gn_kvm_mode_depriv;
}

static void backend_flush(struct gn_vcpu *vcpu, const struct gn_flush *flush)
{
	struct gn_kvm_cpu *cpu = (struct gn_kvm_cpu *)gn_vcpu_backend(vcpu);

	if (cpu && is_depriv(cpu->kvm))
		gn_kvm_depriv_flush(cpu, flush);
}

static void backend_entry_changed(struct gn_vm *vm, hpa_t slot)
{
	if (is_depriv(kvm_of(vm)))
		gn_kvm_depriv_entry_changed(kvm_of(vm), slot);
}

static void backend_table_retired(struct gn_vm *vm, pfn_t table)
{
	if (is_depriv(kvm_of(vm)))
		gn_kvm_depriv_table_retired(kvm_of(vm), table);
}

/* In nested mode the kernel's notifiers do it: when a mapping has changed, no vCPU uses the old one. */
static void backend_quiesce(struct gn_vm *vm)
{
	if (is_depriv(kvm_of(vm)))
		gn_kvm_quiesce(kvm_of(vm));
}

static void backend_range_changing(struct gn_vm *vm, const struct gn_gfn_run *runs, size_t count,
				   enum gn_range_change change)
{
	gn_kvm_nested_range_changing(kvm_of(vm), runs, count, change);
}

static void backend_change_over(struct gn_vm *vm)
{
	gn_kvm_nested_change_over(kvm_of(vm));
}

static void backend_range_changed(struct gn_vm *vm, gfn_t start, gfn_t end)
{
	gn_kvm_nested_range_changed(kvm_of(vm), start, end);
}

static bool backend_shows_accesses(struct gn_vm *vm)
{
	return gn_kvm_nested_shows_accesses(kvm_of(vm));
}

static int backend_dirty_log(struct gn_vm *vm, bool on)
{
	return gn_kvm_nested_dirty_log(kvm_of(vm), on);
}

static int backend_dirty_sync(struct gn_vm *vm)
{
	return gn_kvm_nested_dirty_sync(kvm_of(vm));
}

static const struct gn_backend_ops backend = {
	.name = "kvm",
	.flush = backend_flush,
	.entry_changed = backend_entry_changed,
	.table_retired = backend_table_retired,
	.range_changing = backend_range_changing,
	.change_over = backend_change_over,
	.range_changed = backend_range_changed,
	.quiesce = backend_quiesce,
	.shows_accesses = backend_shows_accesses,
	.dirty_log = backend_dirty_log,
	.dirty_sync = backend_dirty_sync,
};

/* ---- Schemes and modes ------------------------------------------------------------------------------------- */

static const struct gn_kvm_mode *mode_for(const struct gn_kvm *kvm)
{
	switch (gn_vcpu_hw(kvm->cpus[0].vcpu)->kind) {
	case GN_HW_NESTED:
		return &gn_kvm_mode_nested;
	case GN_HW_TABLES:
		return &gn_kvm_mode_depriv;
	default:
		return NULL;
	}
}

/* Put @scheme in charge and enter its mode. On failure some scheme is in charge and no mode entered. */
static int adopt(struct gn_kvm *kvm, const char *scheme)
{
	int err = gn_vm_switch_scheme(kvm->vm, scheme);

	if (err) {
		snprintf(kvm->why, sizeof(kvm->why), "scheme '%s': %s", scheme ? scheme : "",
			 err == -ENOENT ? "no scheme is called so" : strerror(-err));
		return err;
	}
	kvm->mode = mode_for(kvm);
	if (!kvm->mode) {
		snprintf(kvm->why, sizeof(kvm->why),
			 "scheme '%s' does not run on KVM: it needs hardware that does what the "
			 "software machine models (use --backend soft)",
			 scheme);
		return -EOPNOTSUPP;
	}
	err = kvm->mode->enter(kvm);
	if (err)
		kvm->mode = NULL;
	return err;
}

/* ---- Creation ------------------------------------------------------------------------------------------------ */

struct cpuid_block {
	struct kvm_cpuid2 head;
	struct kvm_cpuid_entry2 entries[CPUID_ENTRIES_MAX];
};

/* The guest sees what KVM supports, but for a physical address width that was asked for, and five levels that KVM only claims. */
static int set_cpuid(struct gn_kvm *kvm, struct gn_kvm_cpu *cpu, struct cpuid_block *block)
{
	for (unsigned i = 0; i < block->head.nent; i++) {
		struct kvm_cpuid_entry2 *e = &block->entries[i];

		if (e->function == 0x80000008)
			e->eax = (e->eax & ~0xffu) | kvm->vm->config.guest_phys_bits;
		if (e->function == 1) /* bits 31..24 of EBX: initial APIC ID */
			e->ebx = (e->ebx & 0x00ffffffu) | cpu->index << 24;
		if (e->function == 7 && !e->index && !kvm->host.la57)
			e->ecx &= ~(1u << 16);
	}
	return gn_kvm_ioctl(cpu->fd, KVM_SET_CPUID2, block);
}

static int cpu_init(struct gn_kvm *kvm, struct gn_kvm_cpu *cpu, struct cpuid_block *cpuid,
		    char *why, size_t why_bytes)
{
	void *run;
	int err;

	cpu->fd = gn_kvm_ioctl_value(kvm->vm_fd, KVM_CREATE_VCPU, cpu->index);
	if (cpu->fd < 0)
		return gn_kvm_sys_fail(why, why_bytes, "KVM_CREATE_VCPU", -cpu->fd);
	run = mmap(NULL, kvm->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, cpu->fd, 0);
	if (run == MAP_FAILED)
		return gn_kvm_sys_fail(why, why_bytes, "mmap of a vCPU's page", errno);
	cpu->run = (struct kvm_run *)run;
	err = set_cpuid(kvm, cpu, cpuid);
	if (err)
		return gn_kvm_sys_fail(why, why_bytes, "KVM_SET_CPUID2", -err);
	gn_vcpu_set_backend(cpu->vcpu, cpu);
	return 0;
}

static int make_cpus(struct gn_kvm *kvm, char *why, size_t why_bytes)
{
	struct cpuid_block *cpuid;
	int err;

	kvm->cpus =
		gn_alloc_should_fail() ? NULL : calloc(kvm->config.vm.vcpus, sizeof(*kvm->cpus));
	if (!kvm->cpus)
		return gn_kvm_sys_fail(why, why_bytes, "vCPUs", ENOMEM);
	for (unsigned i = 0; i < kvm->config.vm.vcpus; i++) {
		struct gn_kvm_cpu *cpu = &kvm->cpus[i];

		cpu->kvm = kvm;
		cpu->index = i;
		cpu->vcpu = gn_vm_vcpu(kvm->vm, i);
		cpu->fd = -1;
	}
	kvm->cpu_count = kvm->config.vm.vcpus;
	cpuid = gn_alloc_should_fail() ? NULL : calloc(1, sizeof(*cpuid));
	if (!cpuid)
		return gn_kvm_sys_fail(why, why_bytes, "CPUID", ENOMEM);
	cpuid->head.nent = CPUID_ENTRIES_MAX;
	err = gn_kvm_ioctl(kvm->fd, KVM_GET_SUPPORTED_CPUID, cpuid);
	if (err)
		err = gn_kvm_sys_fail(why, why_bytes, "KVM_GET_SUPPORTED_CPUID", -err);
	for (unsigned i = 0; i < kvm->cpu_count && !err; i++)
		err = cpu_init(kvm, &kvm->cpus[i], cpuid, why, why_bytes);
	free(cpuid);
	return err;
}

/* The scheme ends later and flushes as it does: then there is nobody to tell. */
static void drop_cpus(struct gn_kvm *kvm)
{
	for (unsigned i = 0; i < kvm->cpu_count; i++) {
		gn_vcpu_set_backend(kvm->cpus[i].vcpu, NULL);
		if (kvm->cpus[i].run)
			munmap(kvm->cpus[i].run, kvm->run_bytes);
		if (kvm->cpus[i].fd >= 0)
			close(kvm->cpus[i].fd);
	}
	kvm->cpu_count = 0;
	free(kvm->cpus);
	kvm->cpus = NULL;
}

/* Before the first vCPU: what is chosen for the VM as a whole. */
static int set_up_vm(struct gn_kvm *kvm, char *why, size_t why_bytes)
{
	struct kvm_enable_cap cap = { 0 };
	int err;

	if (kvm->host.emulation_exit) {
		cap.cap = KVM_CAP_EXIT_ON_EMULATION_FAILURE;
		cap.args[0] = 1;
		err = gn_kvm_ioctl(kvm->vm_fd, KVM_ENABLE_CAP, &cap);
		if (err)
			return gn_kvm_sys_fail(why, why_bytes,
					       "KVM_ENABLE_CAP(EXIT_ON_EMULATION_FAILURE)", -err);
	}
	if (!kvm->config.dirty_ring_entries)
		return 0;
	if (!kvm->host.dirty_ring) {
		snprintf(why, why_bytes,
			 "this KVM has no dirty ring: use the dirty bitmap "
			 "(dirty_ring_entries 0)");
		return -EOPNOTSUPP;
	}
	cap = (struct kvm_enable_cap){ .cap = KVM_CAP_DIRTY_LOG_RING };
	cap.args[0] = (uint64_t)kvm->config.dirty_ring_entries * sizeof(struct kvm_dirty_gfn);
	err = gn_kvm_ioctl(kvm->vm_fd, KVM_ENABLE_CAP, &cap);
	if (!err)
		return 0;
	snprintf(why, why_bytes, "a dirty ring of %u entries: %s: it takes a power of two up to %u",
		 kvm->config.dirty_ring_entries, strerror(-err), kvm->host.dirty_ring_entries);
	return err;
}

static int open_kvm(struct gn_kvm *kvm, const char *path, char *why, size_t why_bytes)
{
	int err = gn_kvm_sys_open(path, &kvm->fd, why, why_bytes);
	int bytes;

	if (err)
		return err;
	gn_kvm_probe_at(path, &kvm->host, false);
	if (!kvm->host.usable) {
		snprintf(why, why_bytes, "%s", kvm->host.why);
		return -EOPNOTSUPP;
	}
	bytes = gn_kvm_ioctl_value(kvm->fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (bytes < 0)
		return gn_kvm_sys_fail(why, why_bytes, "KVM_GET_VCPU_MMAP_SIZE", -bytes);
	kvm->run_bytes = (size_t)bytes;
	kvm->vm_fd = gn_kvm_ioctl_value(kvm->fd, KVM_CREATE_VM, 0);
	if (kvm->vm_fd < 0)
		return gn_kvm_sys_fail(why, why_bytes, "KVM_CREATE_VM", -kvm->vm_fd);
	return set_up_vm(kvm, why, why_bytes);
}

static int make_engine_vm(struct gn_kvm *kvm, char *why, size_t why_bytes)
{
	struct gn_vm_config config = kvm->config.vm;
	int err;

	if (config.frames) {
		snprintf(why, why_bytes, "frames: KVM maps the pool, which has to be the VM's own");
		return -EINVAL;
	}
	config.scheme = "interp";
	config.backend = &backend;
	config.backend_data = kvm;
	config.deprivileged = true;
	config.home_frames = true;
	if (config.pool != GN_POOL_TEMPLATE)
		config.pool = GN_POOL_MEMFD; /* the view maps it a second time */
	if (!config.guest_phys_bits)
		config.guest_phys_bits = kvm->host.phys_bits;
	if (config.guest_phys_bits > kvm->host.phys_bits) {
		snprintf(why, why_bytes, "guest_phys_bits %u: guests have %u bits on this host",
			 config.guest_phys_bits, kvm->host.phys_bits);
		return -EINVAL;
	}
	err = gn_vm_create(&config, &kvm->vm);
	if (err) {
		snprintf(why, why_bytes, "the engine cannot make the VM: %s", strerror(-err));
		return err;
	}
	gn_vm_pool(kvm->vm, &kvm->pool);
	return 0;
}

static int build(struct gn_kvm *kvm, const char *path, char *why, size_t why_bytes)
{
	int err = open_kvm(kvm, path, why, why_bytes);

	if (!err)
		err = make_engine_vm(kvm, why, why_bytes);
	if (!err)
		err = make_cpus(kvm, why, why_bytes);
	if (!err && (err = gn_kvm_slots_new(kvm)))
		gn_kvm_sys_fail(why, why_bytes, "memory slots", -err);
	if (!err)
		err = gn_kvm_depriv_new(kvm, why, why_bytes);
	if (!err && (err = adopt(kvm, kvm->config.vm.scheme)))
		snprintf(why, why_bytes, "%s", kvm->why);
	return err;
}

int gn_kvm_create_at(const char *path, const struct gn_kvm_config *config, struct gn_kvm **out,
		     char *why, size_t why_bytes)
{
	struct gn_kvm *kvm = gn_alloc_should_fail() ? NULL : calloc(1, sizeof(*kvm));
	int err;

	if (!kvm)
		return gn_kvm_sys_fail(why, why_bytes, "VM", ENOMEM);
	kvm->config = *config;
	kvm->fd = kvm->vm_fd = -1;
	pthread_mutex_init(&kvm->pause_lock, NULL);
	pthread_mutex_init(&kvm->lock, NULL);
	pthread_cond_init(&kvm->changed, NULL);
	err = build(kvm, path, why, why_bytes);
	if (err) {
		gn_kvm_destroy(kvm);
		return err;
	}
	*out = kvm;
	return 0;
}

int gn_kvm_create(const struct gn_kvm_config *config, struct gn_kvm **out, char *why,
		  size_t why_bytes)
{
	return gn_kvm_create_at(GN_KVM_DEVICE, config, out, why, why_bytes);
}

/* Also of one that was built in part. */
void gn_kvm_destroy(struct gn_kvm *kvm)
{
	if (!kvm)
		return;
	if (kvm->mode)
		kvm->mode->leave(kvm);
	kvm->mode = NULL;
	/* The guest's last translations go with the VM, then what they led to. */
	gn_kvm_depriv_destroy(kvm);
	gn_kvm_nested_destroy(kvm);
	gn_kvm_slots_destroy(kvm);
	if (kvm->cpus)
		drop_cpus(kvm);
	if (kvm->vm_fd >= 0)
		close(kvm->vm_fd);
	gn_vm_destroy(kvm->vm);
	if (kvm->fd >= 0)
		close(kvm->fd);
	pthread_cond_destroy(&kvm->changed);
	pthread_mutex_destroy(&kvm->lock);
	pthread_mutex_destroy(&kvm->pause_lock);
	free(kvm);
}

struct gn_vm *gn_kvm_vm(struct gn_kvm *kvm)
{
	return kvm->vm;
}

/* ---- State from outside ------------------------------------------------------------------------------------------ */

/* -EBUSY: it runs. (A pause's function sees it parked.) */
static int check_at_rest(struct gn_kvm *kvm, unsigned vcpu)
{
	int err;

	if (vcpu >= kvm->cpu_count)
		return -EINVAL;
	pthread_mutex_lock(&kvm->lock);
	err = kvm->cpus[vcpu].is_running && !kvm->cpus[vcpu].is_parked ? -EBUSY : 0;
	pthread_mutex_unlock(&kvm->lock);
	if (!err && !kvm->mode)
		err = -EOPNOTSUPP;
	return err;
}

int gn_kvm_set_state(struct gn_kvm *kvm, unsigned vcpu, const struct gn_kvm_state *state)
{
	int err = check_at_rest(kvm, vcpu);

	if (err)
		return err;
	err = kvm->mode->set_state(&kvm->cpus[vcpu], state);
	if (err)
		return err;
	kvm->cpus[vcpu].is_halted = false;
	kvm->cpus[vcpu].has_state = true;
	return 0;
}

int gn_kvm_get_state(struct gn_kvm *kvm, unsigned vcpu, struct gn_kvm_state *state)
{
	int err = check_at_rest(kvm, vcpu);

	return err ? err : kvm->mode->get_state(&kvm->cpus[vcpu], state);
}

/* ---- Exchange ------------------------------------------------------------------------------------------------------ */

struct exchange {
	struct gn_kvm *kvm;
	const char *scheme;
	struct gn_kvm_state *states; /* one a vCPU */
};

static int save_all(const struct exchange *x)
{
	int err = 0;

	for (unsigned i = 0; i < x->kvm->cpu_count && !err; i++)
		if (x->kvm->cpus[i].has_state)
			err = x->kvm->mode->get_state(&x->kvm->cpus[i], &x->states[i]);
	return err;
}

/* Why the vCPU's last run ended stays what gn_kvm_error() says. */
static int restore(struct gn_kvm_cpu *cpu, const struct gn_kvm_state *state)
{
	struct gn_kvm *kvm = cpu->kvm;
	char last[sizeof(cpu->error)];
	int err;

	memcpy(last, cpu->error, sizeof(last));
	cpu->error[0] = '\0';
	err = kvm->mode->set_state(cpu, state);
	if (err)
		snprintf(kvm->why, sizeof(kvm->why), "scheme '%s' cannot take over vCPU %u: %.300s",
			 gn_vm_scheme(kvm->vm), cpu->index,
			 cpu->error[0] ? cpu->error : strerror(-err));
	memcpy(cpu->error, last, sizeof(last));
	return err;
}

static int restore_all(const struct exchange *x)
{
	int err = 0;

	for (unsigned i = 0; i < x->kvm->cpu_count && !err; i++)
		if (x->kvm->cpus[i].has_state)
			err = restore(&x->kvm->cpus[i], &x->states[i]);
	return err;
}

static int exchange(void *ctx)
{
	const struct exchange *x = (const struct exchange *)ctx;
	struct gn_kvm *kvm = x->kvm;
	const char *old = gn_vm_scheme(kvm->vm);
	int err = kvm->mode ? save_all(x) : -EOPNOTSUPP;

	if (err)
		return err;
	kvm->mode->leave(kvm);
	err = adopt(kvm, x->scheme);
	if (!err) {
		err = restore_all(x);
		if (err)
			kvm->mode->leave(kvm);
	}
	if (!err)
		return 0;
	gn_log(GN_LOG_WARN, "scheme '%s' is not in charge: %s", x->scheme, kvm->why);
	kvm->mode = NULL;
	if (adopt(kvm, old) || restore_all(x)) {
		gn_log(GN_LOG_ERROR, "and '%s' cannot come back: %s", old, kvm->why);
		kvm->mode = NULL;
	}
	return err;
}

int gn_kvm_switch_scheme(struct gn_kvm *kvm, const char *scheme)
{
	struct exchange x = { .kvm = kvm, .scheme = scheme };
	uint64_t began = gn_kvm_now_ns();
	int err;

	if (!gn_scheme_find(scheme))
		return -ENOENT;
	if (!strcmp(scheme, gn_vm_scheme(kvm->vm)))
		return 0;
	x.states = gn_alloc_should_fail() ? NULL : calloc(kvm->cpu_count, sizeof(x.states[0]));
	if (!x.states)
		return -ENOMEM;
	err = gn_kvm_pause(kvm, exchange, &x);
	free(x.states);
	if (err)
		return err;
	pthread_mutex_lock(&kvm->lock);
	kvm->switches++;
	kvm->switch_ns += gn_kvm_now_ns() - began;
	pthread_mutex_unlock(&kvm->lock);
	return 0;
}
