/* SPDX-License-Identifier: MIT */
/*
 * nested_guest.h - the guest of the nested programs: a bare VM under "ept" (kvm/rig.h), the code that more than one of them
 * has it run, and its vCPUs on threads, to do things to it meanwhile.
 */
#ifndef GN_TESTS_KVM_NESTED_GUEST_H
#define GN_TESTS_KVM_NESTED_GUEST_H

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <time.h>

#include "kvm/rig.h"

#define MIB	  ((uint64_t)1 << 20)
#define MEM_BYTES (64 * MIB)
#define PAGE	  GN_PAGE_SIZE

static struct gn_kvm_host host;

static inline struct gn_kvm_config plain(void)
{
	struct gn_kvm_config config = {
		.vm = { .scheme = "ept", .mem_bytes = MEM_BYTES, .vcpus = 2 }
	};

	return config;
}

static inline void pause_ms(unsigned ms)
{
	struct timespec t = { ms / 1000, (long)(ms % 1000) * 1000000 };

	nanosleep(&t, NULL);
}

/* ---- Code: arguments in rbx, rcx, rsi -------------------------------------------------------------------------------- */

/* Ends with the sum of the low halves of rcx pages' first words, from rbx. */
RIG_CODE(read_pages, "xor %eax, %eax\n"
		     "1: add (%rbx), %eax\n add $4096, %rbx\n dec %rcx\n jnz 1b\n"
		     "int3")
/* Each page's first word becomes its address + rsi. */
RIG_CODE(write_pages, "1: lea (%rbx, %rsi), %rax\n mov %rax, (%rbx)\n add $4096, %rbx\n"
		      "dec %rcx\n jnz 1b\n xor %eax, %eax\n int3")
/* Each page's first word becomes rsi. */
RIG_CODE(fill_pages, "1: mov %rsi, (%rbx)\n add $4096, %rbx\n dec %rcx\n jnz 1b\n"
		     "xor %eax, %eax\n int3")
/* The same, and rsi rises. */
RIG_CODE(number_pages, "1: mov %rsi, (%rbx)\n inc %rsi\n add $4096, %rbx\n dec %rcx\n jnz 1b\n"
		       "xor %eax, %eax\n int3")
/* Every second page's. */
RIG_CODE(fill_half, "1: mov %rsi, (%rbx)\n add $8192, %rbx\n dec %rcx\n jnz 1b\n"
		    "xor %eax, %eax\n int3")
/* The word at rbx is counted up for ever. */
RIG_CODE(count_up, "1: incq (%rbx)\n jmp 1b")
/* Over and over: each of rcx pages from rbx holds its own address, and then in its second word a count that
 * only ever rises by one. A page that says otherwise ends with 1; a word at rsi that is not 0 with 0. */
RIG_CODE(patrol, "xor %r8d, %r8d\n"
		 "1: inc %r8\n mov %rbx, %rdi\n mov %rcx, %rdx\n"
		 "2: cmp %rdi, (%rdi)\n jne 3f\n lea -1(%r8), %rax\n cmp %rax, 8(%rdi)\n jne 3f\n"
		 "mov %r8, 8(%rdi)\n add $4096, %rdi\n dec %rdx\n jnz 2b\n"
		 "cmpq $0, (%rsi)\n je 1b\n xor %eax, %eax\n int3\n"
		 "3: mov $1, %eax\n int3")

/* ---- Another process's memory, to be borrowed from -------------------------------------------------------------------- */

static inline int owner_new(uint64_t bytes)
{
	int fd = memfd_create("owner", MFD_ALLOW_SEALING);

	RIG_CHECK(fd >= 0 && !ftruncate(fd, (off_t)bytes), "memfd: %s", strerror(errno));
	return fd;
}
static inline void owner_put(int fd, uint64_t at, uint64_t word)
{
	RIG_CHECK(pwrite(fd, &word, sizeof(word), (off_t)at) == sizeof(word), "pwrite: %s",
		  strerror(errno));
}
/* As the daemon does: who gets it can only read. */
static inline void owner_seal(int fd)
{
	RIG_CHECK(!fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE),
		  "F_ADD_SEALS: %s", strerror(errno));
}

/* ---- vCPUs on threads ------------------------------------------------------------------------------------------------ */

struct runner {
	struct gn_kvm *kvm;
	unsigned vcpu;
	struct rig_result result;
	pthread_t thread;
	_Atomic(bool) is_done;
};

static inline void *run_thread(void *ctx)
{
	struct runner *r = (struct runner *)ctx;

	r->result = rig_run(r->kvm, r->vcpu);
	atomic_store(&r->is_done, true);
	return NULL;
}

static inline void start(struct runner *r, struct gn_kvm *kvm, unsigned vcpu)
{
	memset(r, 0, sizeof(*r));
	r->kvm = kvm;
	r->vcpu = vcpu;
	RIG_CHECK(!pthread_create(&r->thread, NULL, run_thread, r), "pthread_create");
}

static inline struct rig_result finish(struct runner *r)
{
	pthread_join(r->thread, NULL);
	return r->result;
}

/* What a guest is waited for is its progress, however slow the host is; but not for ever. */
#define PATIENCE 6000 /* pauses of 10 ms */

/* ---- Running --------------------------------------------------------------------------------------------------------- */

/* Is there nested mode here? If not, that is said and counted. */
static inline bool nested_start(void)
{
	if (!rig_start(&host))
		return false;
	printf("KVM module %s, %s nested paging\n", host.module[0] ? host.module : "unknown",
	       host.paging == GN_KVM_PAGING_HARDWARE ? "hardware" : "software");
	if (!host.uffd_minor_shmem)
		rig_skip("nested mode", "no userfaultfd with minor faults on shared memory");
	return host.uffd_minor_shmem;
}

/* Said before it begins: of a test that does not end one wants to know where it is. */
#define PART(call)                                                                                 \
	do {                                                                                       \
		printf("%s\n", #call);                                                             \
		call;                                                                              \
	} while (0)

#endif
