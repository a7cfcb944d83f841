/* SPDX-License-Identifier: MIT */
/*
 * devices.c - the ports a guest finds: a console, an exit, a call; anything else is the embedder's.
 *
 * The console is the data and line-status register of a 16550 that is always ready. A port nobody answers reads as
 * ones and swallows what is written, as an empty bus does. Memory-mapped devices are the embedder's (gn_kvm_set_mmio); a
 * guest-physical address that is no memory and that nobody answers behaves as an empty bus too.
 */
#include <string.h>

#include "machine.h"

#define CONSOLE_LINE_STATUS (GN_GUEST_PORT_CONSOLE + 5)
#define TRANSMITTER_EMPTY   0x60 /* 16550: THRE and TEMT */

static uint32_t ones(unsigned bytes)
{
	return bytes >= 4 ? UINT32_MAX : ((uint32_t)1 << 8 * bytes) - 1;
}

static bool console(struct gn_kvm_cpu *cpu, uint16_t port, bool is_out, uint32_t *value)
{
	const struct gn_kvm_config *config = &cpu->kvm->config;
	char text = (char)*value;

	if (port == CONSOLE_LINE_STATUS && !is_out) {
		*value = TRANSMITTER_EMPTY;
		return true;
	}
	if (port != GN_GUEST_PORT_CONSOLE || !is_out)
		return false;
	if (config->console)
		config->console(config->ctx, &text, 1);
	return true;
}

enum gn_kvm_next gn_kvm_port(struct gn_kvm_cpu *cpu, uint16_t port, unsigned bytes, bool is_out,
			     uint32_t *value)
{
	struct gn_kvm *kvm = cpu->kvm;
	const struct gn_kvm_config *config = &kvm->config;
	bool is_call = port == GN_GUEST_PORT_CALL && is_out;

	gn_kvm_count_exit(cpu, is_call && *value == GN_GUEST_CALL_HYPERCALL ? GN_EXIT_HYPERCALL
									    : GN_EXIT_IO);
	if (port == GN_GUEST_PORT_EXIT && is_out) {
		cpu->status = *value;
		return gn_kvm_end(cpu, GN_KVM_STOP_EXIT, "the guest ended with status %u", *value);
	}
	if (console(cpu, port, is_out, value))
		return GN_KVM_AGAIN;
	if (is_call && *value == GN_GUEST_CALL_MEASURE)
		gn_kvm_stats_reset(kvm);
	if (config->port && config->port(config->ctx, kvm, cpu->index, port, bytes, is_out, value))
		return GN_KVM_AGAIN;
	if (!is_out)
		*value = ones(bytes);
	return GN_KVM_AGAIN;
}

void gn_kvm_set_mmio(struct gn_kvm *kvm, gn_kvm_mmio_fn *fn, void *ctx)
{
	kvm->mmio = fn;
	kvm->mmio_ctx = ctx;
}

void gn_kvm_mmio(struct gn_kvm_cpu *cpu, gpa_t at, void *data, unsigned bytes, bool is_write)
{
	const struct gn_kvm *kvm = cpu->kvm;
	uint64_t value = 0;

	if (is_write)
		memcpy(&value, data, bytes);
	if (!kvm->mmio || !kvm->mmio(kvm->mmio_ctx, cpu->index, at.v, bytes, is_write, &value))
		value = ~(uint64_t)0;
	if (!is_write)
		memcpy(data, &value, bytes);
}
