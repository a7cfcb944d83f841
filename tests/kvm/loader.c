/* SPDX-License-Identifier: MIT */
/*
 * loader.c - guest images loaded and entered: what guest.h promises a guest at its entry is what it finds.
 */
#include <elf.h>

#include "kvm/rig.h"

#define MIB ((uint64_t)1 << 20)

/* At CPL 0: the user's first word through its window, RAM's last word at its physical address, the boot page's
 * magic, then the exit port with their sum. */
RIG_CODE(kernel_code, "mov $0xffffffffc0200000, %rax\n mov (%rax), %eax\n"
		      "mov $0xffffffff80001000, %rbx\n add (%rbx), %eax\n"
		      "mov 8(%rbx), %rcx\n add -8(%rcx), %eax\n"
		      "mov $0xf4, %dx\n out %eax, %dx")

struct elf_file {
	Elf64_Ehdr header;
	Elf64_Phdr segment;
	uint8_t bytes[256];
};

static void forge(struct elf_file *f, uint64_t window, uint64_t pa, const void *bytes, size_t count)
{
	memset(f, 0, sizeof(*f));
	memcpy(f->header.e_ident, ELFMAG, SELFMAG);
	f->header.e_ident[EI_CLASS] = ELFCLASS64;
	f->header.e_ident[EI_DATA] = ELFDATA2LSB;
	f->header.e_type = ET_EXEC;
	f->header.e_machine = EM_X86_64;
	f->header.e_phoff = offsetof(struct elf_file, segment);
	f->header.e_phentsize = sizeof(Elf64_Phdr);
	f->header.e_phnum = 1;
	f->header.e_entry = window + pa;
	f->segment = (Elf64_Phdr){ .p_type = PT_LOAD,
				   .p_offset = offsetof(struct elf_file, bytes),
				   .p_vaddr = window + pa,
				   .p_paddr = pa,
				   .p_filesz = count,
				   .p_memsz = count + 0x3000 };
	memcpy(f->bytes, bytes, count);
}

static void entry(const struct gn_kvm_host *host, const char *scheme, uint64_t mem_bytes,
		  unsigned levels)
{
	struct gn_kvm_config config = {
		.vm = { .scheme = scheme, .mem_bytes = mem_bytes, .vcpus = 1 }
	};
	struct gn_guest_boot boot = { .levels = levels, .seed = 5 }, seen;
	const uint32_t word = 1000;
	struct elf_file kernel, user;
	struct gn_guest_image image = { .kernel = &kernel,
					.user = &user,
					.kernel_bytes = sizeof(kernel),
					.user_bytes = sizeof(user) };
	struct gn_kvm *kvm = rig_new(&config);
	int err;

	if (!kvm)
		return;
	forge(&kernel, GN_GUEST_KERNEL_VA, GN_GUEST_IMAGE_PA, kernel_code,
	      (size_t)(kernel_code_end - kernel_code));
	forge(&user, GN_GUEST_USER_VA, 2 * MIB, &word, sizeof(word));
	err = gn_kvm_load(kvm, &image, &boot);
	if (levels == 5 && !host->la57) {
		RIG_CHECK(err == -EINVAL && strstr(gn_kvm_error(kvm, 0), "levels"), "%d: %s", err,
			  gn_kvm_error(kvm, 0));
		gn_kvm_destroy(kvm);
		return;
	}
	RIG_CHECK(!err, "%d: %s", err, gn_kvm_error(kvm, 0));
	RIG_CHECK(boot.magic == GN_GUEST_MAGIC && boot.mem_bytes == mem_bytes &&
			  boot.user_start == 2 * MIB && boot.reserved_bytes == 4 * MIB &&
			  boot.levels == levels,
		  "the boot page");
	RIG_CHECK(!gn_vm_read(gn_kvm_vm(kvm), gpa(GN_GUEST_BOOT_PA), &seen, sizeof(seen)) &&
			  !memcmp(&seen, &boot, sizeof(boot)),
		  "the boot page in memory");
	rig_word(kvm, mem_bytes - 8, 234);
	RIG_EXPECT_EXIT(kvm, rig_run(kvm, 0), (uint32_t)GN_GUEST_MAGIC + 1234);
	gn_kvm_destroy(kvm);
}

static void refused(void)
{
	struct gn_kvm_config config = {
		.vm = { .scheme = "ept", .mem_bytes = 4 * MIB, .vcpus = 1 }
	};
	struct elf_file kernel, user;
	struct gn_guest_image image = { .kernel = &kernel,
					.user = &user,
					.kernel_bytes = sizeof(kernel),
					.user_bytes = sizeof(user) };
	struct gn_guest_boot boot = { .seed = 1 };
	struct gn_kvm *kvm = rig_new(&config);
	const uint64_t places[][2] = {
		{ GN_GUEST_IMAGE_PA, 4 * MIB },	       /* user past RAM */
		{ GN_GUEST_IMAGE_PA, 4 * MIB - 4096 }, /* its zeros past RAM */
		{ 2 * MIB, 2 * MIB },		       /* kernel in the user's part */
		{ GN_GUEST_BOOT_PA, 2 * MIB },	       /* kernel over the boot page */
	};

	const uint64_t layouts[][2] = {
		{ 2 * MIB, 2 * MIB },	     { 4 * MIB, 2 * MIB },
		{ 2 * MIB + 4096, 4 * MIB }, { 2 * MIB, 4 * MIB - 4096 },
		{ 2 * MIB, 64 * MIB },	     { UINT64_MAX << 21, UINT64_MAX << 21 },
		{ 4 * MIB, 6 * MIB }
	};

	if (!kvm)
		return;
	for (unsigned i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		int err;

		forge(&kernel, GN_GUEST_KERNEL_VA, places[i][0], kernel_code, 32);
		forge(&user, GN_GUEST_USER_VA, places[i][1], kernel_code, 32);
		err = gn_kvm_load(kvm, &image, &boot);
		RIG_CHECK(err == -EINVAL && strstr(gn_kvm_error(kvm, 0), "image"), "%u: %d: %s", i,
			  err, gn_kvm_error(kvm, 0));
	}
	/* A layout that is none, or not the files'. */
	forge(&kernel, GN_GUEST_KERNEL_VA, GN_GUEST_IMAGE_PA, kernel_code, 32);
	forge(&user, GN_GUEST_USER_VA, 2 * MIB, kernel_code, 32);
	for (unsigned i = 0; i < sizeof(layouts) / sizeof(layouts[0]); i++) {
		image.user_start = layouts[i][0];
		image.reserved_bytes = layouts[i][1];
		RIG_CHECK(gn_kvm_load(kvm, &image, &boot) == -EINVAL, "layout %u", i);
	}
	image.user_start = 2 * MIB;
	image.reserved_bytes = 4 * MIB;
	RIG_CHECK(!gn_kvm_load(kvm, &image, &boot), "%s", gn_kvm_error(kvm, 0));
	gn_kvm_destroy(kvm);
}

int main(void)
{
	struct gn_kvm_host host;

	if (!rig_start(&host))
		return rig_end();
	for (unsigned levels = 4; levels <= 5; levels++) {
		entry(&host, "ept", 8 * MIB, levels);
		entry(&host, "shadow", 8 * MIB, levels);
	}
	entry(&host, "ept", 3000 * MIB, 4);
	refused();
	return rig_end();
}
