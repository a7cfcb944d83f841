/* SPDX-License-Identifier: MIT */
/*
 * guest_image.c - the freestanding guest, as far as it can be known without running it: two ELF files that lie where
 * guest.h promises; and its twin on the software machine, which boots with the image's layout.
 */
#include <elf.h>
#include <errno.h>
#include <string.h>

#include <criterion/criterion.h>
#include <gnomon/schemes.h>
#include <gnomon/x86.h>

#include "support/guest_boot.h"
#include "workloads/cpu_hosted.h"
#include "workloads/hosted.h"
#include "workloads/kernel_state.h"

#define LARGE ((uint64_t)2 << 20)

static const Elf64_Phdr *segment(const void *elf, unsigned i)
{
	const Elf64_Ehdr *e = elf;

	return (const Elf64_Phdr *)((const char *)elf + e->e_phoff) + i;
}

/* A static program for [from, to) of physical memory, seen from @window on; needs nothing done but copies. */
static void check_elf(const void *elf, uint64_t bytes, uint64_t window, uint64_t from, uint64_t to)
{
	const Elf64_Ehdr *e = elf;
	unsigned loads = 0, entries = 0;
	uint64_t end = from;

	cr_assert_gt(bytes, sizeof(*e));
	cr_assert_eq(memcmp(e->e_ident, ELFMAG, SELFMAG), 0);
	cr_assert(e->e_ident[EI_CLASS] == ELFCLASS64 && e->e_machine == EM_X86_64 &&
		  e->e_type == ET_EXEC);
	cr_assert_eq(e->e_phentsize, sizeof(Elf64_Phdr));
	cr_assert_leq(e->e_phoff + e->e_phnum * sizeof(Elf64_Phdr), bytes);
	for (unsigned i = 0; i < e->e_phnum; i++) {
		const Elf64_Phdr *p = segment(elf, i);

		cr_assert(p->p_type == PT_LOAD, "segment %u is of type %#x", i, p->p_type);
		cr_assert_eq(p->p_vaddr, window + p->p_paddr, "segment %u", i);
		cr_assert(p->p_paddr >= end && p->p_paddr + p->p_memsz <= to,
			  "segment %u: %#lx, %#lx bytes", i, (unsigned long)p->p_paddr,
			  (unsigned long)p->p_memsz);
		cr_assert(p->p_filesz <= p->p_memsz && p->p_offset + p->p_filesz <= bytes);
		entries += (p->p_flags & PF_X) && e->e_entry >= p->p_vaddr &&
			   e->e_entry < p->p_vaddr + p->p_filesz;
		end = p->p_paddr + p->p_memsz;
		loads++;
	}
	cr_assert(loads >= 1 && entries == 1);
}

/* Nothing is left to link. */
static void check_sections(const void *elf, uint64_t bytes)
{
	const Elf64_Ehdr *e = elf;
	const Elf64_Shdr *s = (const Elf64_Shdr *)((const char *)elf + e->e_shoff);
	unsigned symbols = 0;

	cr_assert_leq(e->e_shoff + e->e_shnum * sizeof(*s), bytes);
	for (unsigned i = 0; i < e->e_shnum; i++) {
		const Elf64_Sym *sym = (const Elf64_Sym *)((const char *)elf + s[i].sh_offset);

		cr_assert(s[i].sh_type != SHT_REL && s[i].sh_type != SHT_RELA, "relocations");
		if (s[i].sh_type != SHT_SYMTAB)
			continue;
		for (size_t k = 1; k < s[i].sh_size / sizeof(*sym); k++, symbols++)
			cr_assert_neq(sym[k].st_shndx, SHN_UNDEF, "an undefined symbol");
	}
	cr_assert_gt(symbols, 10);
}

Test(guest_image, lies_where_the_contract_says)
{
	const struct gn_guest_image *i = &gn_guest_image;
	const Elf64_Ehdr *user = i->user;

	cr_assert(i->user_start % LARGE == 0 && i->reserved_bytes % LARGE == 0);
	check_elf(i->kernel, i->kernel_bytes, GN_GUEST_KERNEL_VA, GN_GUEST_IMAGE_PA, i->user_start);
	check_elf(i->user, i->user_bytes, GN_GUEST_USER_VA, i->user_start, i->reserved_bytes);
	check_sections(i->kernel, i->kernel_bytes);
	check_sections(i->user, i->user_bytes);
	cr_assert_eq(segment(i->user, 0)->p_paddr, i->user_start, "a loader takes it from there");
	cr_assert_eq(user->e_entry, GN_GUEST_USER_VA + i->user_start, "the kernel starts it there");
	cr_assert_leq(sizeof(struct gn_guest_boot), GN_PAGE_SIZE);
}

/* ---- The twin ---------------------------------------------------------------------------------------------- */

static struct gn_soft *machine(const char *scheme)
{
	struct gn_soft_config config = {
		.vm = { .scheme = scheme, .mem_bytes = GUEST_RAM_BYTES, .vcpus = 1 }, .seed = 1
	};
	struct gn_soft *soft;

	cr_assert_eq(gn_soft_create(&config, &soft), 0, "%s", scheme);
	return soft;
}

static uint64_t sum_of(struct gn_soft *soft)
{
	uint64_t first = gn_guest_image.reserved_bytes / GN_PAGE_SIZE;

	return gn_vm_memory_sum_range(gn_soft_vm(soft), gfn(first),
				      GUEST_RAM_BYTES / GN_PAGE_SIZE - first);
}

static void run_twin(const char *scheme, struct gn_guest_boot *boot, uint64_t *sum)
{
	struct gn_soft *soft = machine(scheme);
	struct gn_audit_report report;

	cr_assert_eq(workload_run_twin(gn_soft_cpu(soft, 0), boot, NULL), 0, "%s, %s: %s", scheme,
		     boot->workload, boot->why);
	cr_assert_eq(gn_audit(gn_soft_vm(soft), &report), 0, "%s: %s", scheme, report.first);
	*sum = sum_of(soft);
	gn_soft_destroy(soft);
}

static void register_schemes(void)
{
	cr_assert_eq(gn_schemes_register_all(), 0);
}

/* Levels, features and page size as a VMM may choose them. */
static const struct {
	unsigned levels;
	bool pcid, smep, smap, large;
} choices[] = { { 4, false, false, false, false }, { 5, true, true, true, true } };

Test(guest_image, its_twin_makes_the_same_operations_under_every_scheme, .init = register_schemes)
{
	for (unsigned i = 0; workload_at(i); i++) {
		const struct workload *w = workload_at(i);

		for (unsigned c = 0; c < 2 && w->kind != WORKLOAD_TRACE; c++) {
			struct gn_guest_ops first = { 0 };
			uint64_t first_sum = 0;

			for (unsigned s = 0; gn_scheme_at(s); s++) {
				struct gn_guest_boot boot =
					guest_boot_for(w->name, guest_tiny_size(w));
				uint64_t sum;

				boot.levels = choices[c].levels;
				boot.pcid = choices[c].pcid;
				boot.smep = choices[c].smep;
				boot.smap = choices[c].smap;
				boot.large_pages = choices[c].large;
				run_twin(gn_scheme_name(gn_scheme_at(s)), &boot, &sum);
				if (!s) {
					first = boot.ops;
					first_sum = sum;
				}
				cr_assert(!memcmp(&boot.ops, &first, sizeof(first)) &&
						  sum == first_sum,
					  "%s under %s", w->name, gn_scheme_name(gn_scheme_at(s)));
			}
			cr_assert(first.count[GN_GUEST_OP_TABLE_WRITE] > 40 &&
				  first.count[GN_GUEST_OP_CR] == (choices[c].pcid ? 4u : 3u));
		}
	}
}

Test(guest_image, an_account_tells_guests_apart, .init = register_schemes)
{
	struct gn_guest_boot one = guest_boot_for("cow", 256 << 10), two = one;
	uint64_t sum, other_sum;

	two.seed++;
	run_twin("native", &one, &sum);
	run_twin("native", &two, &other_sum);
	cr_assert_eq(one.ops.count[GN_GUEST_OP_TABLE_WRITE],
		     two.ops.count[GN_GUEST_OP_TABLE_WRITE]);
	cr_assert_neq(one.ops.hash, two.ops.hash);
	cr_assert_neq(sum, other_sum);
}

Test(guest_image, a_twin_that_cannot_run_says_so, .init = register_schemes)
{
	struct gn_soft *soft = machine("native");
	struct gn_guest_boot boot = guest_boot_for("no-such", 1);

	cr_assert_eq(workload_run_twin(gn_soft_cpu(soft, 0), &boot, NULL), -ENOENT);
	gn_soft_destroy(soft);
	soft = machine("native");
	boot = guest_boot_for("random", GUEST_RAM_BYTES);
	cr_assert_eq(workload_run_twin(gn_soft_cpu(soft, 0), &boot, NULL), -ECANCELED);
	cr_assert_not_null(strstr(boot.why, "out of memory"), "%s", boot.why);
	cr_assert_eq(boot.result, -1);
	gn_soft_destroy(soft);
	soft = machine("native");
	boot = guest_boot_for("random", 1 << 20);
	boot.user_start += GN_PAGE_SIZE;
	cr_assert_eq(workload_run_twin(gn_soft_cpu(soft, 0), &boot, NULL), -ECANCELED);
	cr_assert_not_null(strstr(boot.why, "2 MiB"), "%s", boot.why);
	gn_soft_destroy(soft);
}

/* ---- The windows ------------------------------------------------------------------------------------------- */

static bool may(struct gn_soft *soft, uint64_t va, enum gn_access_kind kind, bool user)
{
	struct gn_access access = { .va = gva(va), .kind = kind, .user = user, .size = 8 };
	uint64_t window = va >= GN_GUEST_USER_VA ? GN_GUEST_USER_VA : GN_GUEST_KERNEL_VA;
	uint32_t error_code;
	gpa_t at;

	if (!gn_vcpu_translate(gn_vm_vcpu(gn_soft_vm(soft), 0), &access, &at, &error_code))
		return false;
	cr_assert_eq(at.v, va - window);
	return true;
}

Test(guest_image, its_windows_keep_user_and_kernel_apart, .init = register_schemes)
{
	uint64_t user = GN_GUEST_USER_VA + gn_guest_image.user_start;
	uint64_t user_end = GN_GUEST_USER_VA + gn_guest_image.reserved_bytes;
	uint64_t kernel = GN_GUEST_KERNEL_VA + GN_GUEST_IMAGE_PA;

	for (unsigned levels = 4; levels <= 5; levels++) {
		struct gn_guest_boot boot = guest_boot_for("sequential", 65536);
		struct gn_soft *soft = machine("native");

		boot.levels = levels;
		boot.smep = boot.smap = true;
		cr_assert_eq(workload_run_twin(gn_soft_cpu(soft, 0), &boot, NULL), 0);
		for (unsigned kind = GN_READ; kind <= GN_FETCH; kind++) {
			cr_assert(may(soft, user, kind, true) &&
				  may(soft, user_end - 8, kind, true));
			cr_assert(!may(soft, user, kind, false), "SMAP and SMEP hold");
			cr_assert(!may(soft, user_end, kind, true) &&
				  !may(soft, user - 8, kind, true));
			cr_assert(may(soft, kernel, kind, false) && !may(soft, kernel, kind, true));
		}
		gn_soft_destroy(soft);
	}
}

/* ---- The last words ---------------------------------------------------------------------------------------- */

static void fork_and_settle(struct gn_soft_cpu *cpu, void *ctx)
{
	const struct kernel_config config = { .mem_bytes = GUEST_RAM_BYTES, .levels = 4 };
	struct pt_place at;
	uint64_t va;
	int child;

	(void)cpu;
	kernel_boot(&config);
	va = sys_mmap(0, K_PAGE, K_READ | K_WRITE, K_MAP_POPULATE);
	child = sys_fork();
	for (unsigned i = 0; i < 2; i++) {
		cpu_enter_kernel();
		pt_find(k_now->procs[child].mm, va, &at);
		cpu_enter_user();
		((uint64_t *)ctx)[i] = at.value;
		kernel_settle();
	}
}

Test(guest_image, settling_sets_what_a_cpu_may_set_early, .init = register_schemes)
{
	struct gn_soft *soft = machine("native");
	void *state = calloc(1, kernel_state_bytes());
	uint64_t entries[2];

	kernel_attach(state);
	cpu_hosted_enter(gn_soft_cpu(soft, 0), NULL, NULL);
	cr_assert_eq(gn_soft_run(gn_soft_cpu(soft, 0), fork_and_settle, entries), 0);
	cr_assert(entries[0] && !(entries[0] & X86_PTE_A), "a fork's copy has A clear");
	cr_assert_eq(entries[1], entries[0] | X86_PTE_A);
	cpu_hosted_leave();
	kernel_attach(NULL);
	free(state);
	gn_soft_destroy(soft);
}
