/* SPDX-License-Identifier: MIT */
/*
 * vm.c - a VM's life, the exchange of its scheme, guest memory from outside, the registry and the names.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <gnomon/x86.h>

#include "support/plain_scheme.h"

#define MIB ((uint64_t)1 << 20)

static char logged[512];

static void log_hook(void *ctx, enum gn_log_level level, const char *text)
{
	(void)level;
	strncpy(ctx, text, sizeof(logged) - 1);
}

Test(vm, configurations_are_checked)
{
	struct gn_vm_config good = plain_config(4 * MIB);
	struct gn_vm *vm = NULL;

	gn_log_set(log_hook, logged);
	for (unsigned i = 0; i < 14; i++) {
		struct gn_vm_config c = good;
		int want = -EINVAL;

		switch (i) {
		case 0:
			c.scheme = "nonesuch", want = -ENOENT;
			break;
		case 1:
			c.scheme = NULL, want = -ENOENT;
			break;
		case 2:
			c.mem_bytes = 0;
			break;
		case 3:
			c.mem_bytes = 4097;
			break;
		case 4:
			c.vcpus = 0;
			break;
		case 5:
			c.vcpus = GN_MAX_VCPUS + 1;
			break;
		case 6:
			c.guest_phys_bits = 31;
			break;
		case 7:
			c.guest_phys_bits = 53;
			break;
		case 8:
			c.backing_level = 4;
			break;
		case 9:
			c.max_leaf_level = 4;
			break;
		case 10:
			c.nested_levels = 3;
			break;
		case 11:
			c.mem_bytes = (uint64_t)1 << 47;
			break;
		case 12:
			c.pool_bytes = UINT64_MAX;
			break;
		default:
			c.guest_phys_bits = 32, c.mem_bytes = ((uint64_t)1 << 32) + 4096;
			break;
		}
		logged[0] = 0;
		cr_assert_eq(gn_vm_create(&c, &vm), want, "case %u", i);
		cr_assert_null(vm);
		cr_assert_neq(logged[0], 0, "case %u: the log says why", i);
	}
	gn_log_set(NULL, NULL);
	gn_vm_destroy(NULL);
}

Test(vm, defaults_and_first_registers)
{
	struct gn_vm_config config = plain_config(64 * MIB);

	config.vcpus = 3;
	struct gn_vm *vm = plain_vm(&config);

	cr_assert_not_null(vm);
	cr_assert_eq(vm->config.guest_phys_bits, 46);
	cr_assert_eq(vm->config.backing_level, 1);
	cr_assert_eq(vm->config.max_leaf_level, 3);
	cr_assert_eq(vm->config.nested_levels, 4);
	cr_assert_eq(vm->frames->frame_count * GN_PAGE_SIZE, 64 * MIB + 16 * MIB + 64 * MIB);
	cr_assert_eq(gn_vm_vcpu_count(vm), 3);
	cr_assert_null(gn_vm_vcpu(vm, 3));
	for (unsigned i = 0; i < 3; i++) {
		struct gn_vcpu *vcpu = gn_vm_vcpu(vm, i);
		const struct gn_regs *regs = gn_vcpu_regs(vcpu);

		cr_assert_eq(regs->cr0, X86_CR0_PE);
		cr_assert(!regs->cr3 && !regs->cr4 && !regs->efer && !regs->pkru);
		cr_assert_eq(gn_vcpu_vm(vcpu), vm);
		cr_assert_eq(gn_vcpu_hw(vcpu)->kind, GN_HW_SOFTWARE);
		cr_assert_null(gn_vcpu_backend(vcpu));
		gn_vcpu_set_backend(vcpu, &config);
		cr_assert_eq(gn_vcpu_backend(vcpu), &config);
		cr_assert_eq(gn_vcpu_counters(vcpu)->exits, 0);
	}
	cr_assert_str_eq(gn_vm_scheme(vm), "plain");
	gn_vm_destroy(vm);
}

Test(vm, table_usage_is_exact_and_remembers_its_peak)
{
	struct gn_vm_config config = plain_config(4 * MIB);
	struct gn_vm *vm = plain_vm(&config);
	struct gn_table_usage before, more, after;
	pfn_t table;

	gn_vm_table_usage(vm, &before);
	cr_assert_eq(before.frames_bytes, 4096);
	cr_assert_geq(before.meta_bytes, 100 + sizeof(pfn_t));
	cr_assert_geq(before.peak_bytes, before.frames_bytes + before.meta_bytes);
	cr_assert_eq(gn_table_new(vm, &table), 0);
	void *p = gn_arena_alloc(vm->scheme_arena, 8192);

	gn_vm_table_usage(vm, &more);
	cr_assert_eq(more.frames_bytes, 8192);
	cr_assert_eq(more.meta_bytes, before.meta_bytes + 8192);
	gn_arena_free(vm->scheme_arena, p, 8192);
	gn_table_retire(vm, table);
	gn_vm_table_usage(vm, &after);
	cr_assert_eq(after.frames_bytes, before.frames_bytes);
	cr_assert_eq(after.meta_bytes, before.meta_bytes);
	cr_assert_eq(after.peak_bytes, more.frames_bytes + more.meta_bytes);
	gn_vm_destroy(vm);
}

Test(vm, switch_keeps_memory_and_leaks_nothing)
{
	struct gn_vm_config config = plain_config(4 * MIB);

	config.vcpus = 2;
	struct gn_vm *vm = plain_vm(&config);
	uint64_t sum;

	gn_vm_write(vm, gpa(12345), "hello", 5);
	sum = gn_vm_memory_sum(vm);
	for (unsigned i = 0; i < 50; i++) {
		const char *to = i & 1 ? "plain" : "plain-guest";

		memset(&plain, 0, sizeof(plain));
		cr_assert_eq(gn_vm_switch_scheme(vm, to), 0);
		cr_assert_str_eq(gn_vm_scheme(vm), to);
		cr_assert_eq(vm->vcpus[1].hw.kind, i & 1 ? GN_HW_SOFTWARE : GN_HW_GUEST);
		cr_assert_eq(plain.flushes, 2);
		cr_assert_eq(plain.flush.scope, GN_FLUSH_ALL);
		cr_assert_eq(plain.hw_changes, 2);
		cr_assert_eq(vm->table_pages, 1);
		cr_assert_eq(gn_frames_used(vm->frames), 2);
	}
	memset(&plain, 0, sizeof(plain));
	cr_assert_eq(gn_vm_switch_scheme(vm, "plain"), 0);
	cr_assert_eq(plain.flushes, 0, "already there");
	cr_assert_eq(gn_vm_switch_scheme(vm, "nonesuch"), -ENOENT);
	cr_assert_eq(gn_vm_switch_scheme(vm, NULL), -ENOENT);
	cr_assert_str_eq(gn_vm_scheme(vm), "plain");
	cr_assert_eq(gn_vm_memory_sum(vm), sum);
	gn_vm_destroy(vm);
}

Test(vm, switch_without_room_keeps_the_old_scheme)
{
	struct gn_vm_config config = plain_config(4 * MIB);

	config.pool_bytes = 2 * MIB;
	struct gn_vm *vm = plain_vm(&config);

	cr_assert_eq(gn_p2m_populate(vm, gfn(0), 511), 0);
	cr_assert_eq(gn_vm_switch_scheme(vm, "plain-guest"), -ENOMEM);
	cr_assert_str_eq(gn_vm_scheme(vm), "plain");
	cr_assert_eq(vm->vcpus[0].hw.kind, GN_HW_SOFTWARE);
	/* Room that waits for its grace period is used. */
	cr_assert_eq(gn_p2m_discard(vm, gfn(0), 1), 0);
	cr_assert_eq(gn_vm_switch_scheme(vm, "plain-guest"), 0);
	gn_vm_destroy(vm);
}

/* ---- Memory from outside --------------------------------------------------------------------------------- */

Test(memory, what_is_written_is_read)
{
	struct gn_vm_config config = plain_config(4 * MIB);
	struct gn_vm *vm = plain_vm(&config);
	static uint8_t buf[3 * 4096], got[3 * 4096];

	for (unsigned i = 0; i < sizeof(buf); i++)
		buf[i] = (uint8_t)(i * 31 + i / 256);
	/* Every alignment of a range over page boundaries. */
	for (uint64_t at = 4090; at < 4103; at++) {
		for (size_t n = 1; n < sizeof(buf); n = n * 3 + 1) {
			cr_assert_eq(gn_vm_write(vm, gpa(at), buf, n), 0);
			cr_assert_eq(gn_vm_read(vm, gpa(at), got, n), 0);
			cr_assert_eq(memcmp(buf, got, n), 0);
		}
	}
	memset(&plain, 0, sizeof(plain));
	cr_assert_eq(gn_vm_write(vm, gpa(4094), buf, 5), 0);
	cr_assert_eq(plain.writes, 2, "once a page");
	cr_assert_eq(plain.written.v, 4096);
	cr_assert_eq(plain.written_bytes, 3);
	cr_assert(plain.written_from_outside);
	cr_assert_eq(gn_vm_write(vm, gpa(4 * MIB - 1), buf, 2), -EFAULT);
	cr_assert_eq(gn_vm_write(vm, gpa(4 * MIB), buf, 0), 0);
	cr_assert_eq(gn_vm_read(vm, gpa(4 * MIB + 1), got, 0), -EFAULT);
	cr_assert_eq(gn_vm_read(vm, gpa(UINT64_MAX), got, 2), -EFAULT);
	cr_assert_eq(gn_p2m_balloon(vm, gfn(1), 1), 0);
	cr_assert_eq(gn_vm_read(vm, gpa(4096), got, 1), -EFAULT);
	gn_vm_destroy(vm);
}

Test(memory, the_sum_is_of_contents_alone)
{
	struct gn_vm_config config = plain_config(4 * MIB);
	struct gn_vm *vm = plain_vm(&config);
	uint64_t empty = gn_vm_memory_sum(vm), one;
	uint8_t zero[4096] = { 0 };

	cr_assert_eq(gn_p2m_populate(vm, gfn(7), 100), 0);
	cr_assert_eq(gn_vm_memory_sum(vm), empty, "zeros are nothing");
	gn_vm_write(vm, gpa(5 * 4096), "a", 1);
	one = gn_vm_memory_sum(vm);
	cr_assert_neq(one, empty);
	gn_vm_write(vm, gpa(5 * 4096), zero, 1);
	gn_vm_write(vm, gpa(6 * 4096), "a", 1);
	cr_assert_neq(gn_vm_memory_sum(vm), one, "the place counts");
	gn_vm_write(vm, gpa(6 * 4096), zero, 1);
	cr_assert_eq(gn_vm_memory_sum(vm), empty);
	gn_vm_destroy(vm);
}

/* ---- Names ------------------------------------------------------------------------------------------------- */

Test(registry, finds_by_name_and_refuses_doubles)
{
	static struct gn_scheme_ops more[40];
	static char names[40][8];
	unsigned n = 0;

	plain_config(4096);
	cr_assert_eq(gn_scheme_find("plain"), &plain_scheme);
	cr_assert_null(gn_scheme_find("plai"));
	cr_assert_null(gn_scheme_find(NULL));
	cr_assert_eq(gn_scheme_register(&plain_scheme), -EEXIST);
	cr_assert_eq(gn_scheme_register(NULL), -EINVAL);
	more[0].name = "incomplete";
	cr_assert_eq(gn_scheme_register(&more[0]), -EINVAL);
	cr_assert_eq(gn_scheme_at(0), &plain_scheme);
	cr_assert_str_eq(gn_scheme_name(&plain_scheme), "plain");
	cr_assert_str_eq(gn_scheme_summary(&plain_guest_scheme), "");
	cr_assert(gn_scheme_keeps_tables(&plain_scheme));
	for (; n < 40; n++) {
		more[n] = plain_scheme;
		snprintf(names[n], sizeof(names[n]), "s%u", n);
		more[n].name = names[n];
		if (gn_scheme_register(&more[n]))
			break;
	}
	cr_assert_eq(gn_scheme_register(&more[n]), -ENOSPC);
	cr_assert_null(gn_scheme_at(n + 2));
}

Test(counters, every_counter_has_a_name_and_no_two_the_same)
{
	static const struct gn_counters one;
	unsigned n = 0;

	for (const struct gn_counter_desc *d; (d = gn_counter_desc(n)); n++) {
		cr_assert_lt(d->offset, sizeof(one));
		cr_assert_neq(d->what[0], 0);
		for (unsigned k = 0; k < n; k++) {
			cr_assert_str_neq(gn_counter_desc(k)->name, d->name);
			cr_assert_neq(gn_counter_desc(k)->offset, d->offset);
		}
	}
	cr_assert_eq(n, sizeof(one) / 8 - GN_EXIT_REASONS, "all but the array");
	for (unsigned i = 0; i < GN_EXIT_REASONS; i++)
		for (unsigned k = 0; k < i; k++)
			cr_assert_str_neq(gn_exit_reason_name((enum gn_exit_reason)i),
					  gn_exit_reason_name((enum gn_exit_reason)k));
	cr_assert_str_eq(gn_exit_reason_name(GN_EXIT_REASONS), "unknown");
	cr_assert_str_eq(gn_exit_reason_name(GN_EXIT_NESTED), "nested_fault");
}
