/* SPDX-License-Identifier: MIT */
/*
 * smp_kernel.c - a guest with two CPUs that stresses translation: fork with copy on write, mprotect, unmap, and unmap of
 * what both CPUs have mapped, with a shootdown.
 *
 * Each CPU has a process of its own (PRIVATE pages at PRIVATE_VA) and frames of its own, so nothing needs a lock. The
 * pages at SHARED_VA are mapped by tables that all roots share; each is owned by one CPU, which alone unmaps and maps
 * it, and read by both.
 *
 * The shootdown: the owner clears the entry, invalidates, writes the address into the other's mailbox and waits for the
 * answer, serving its own mailbox meanwhile. Then no CPU may reach the frame by that address: the owner fills it with
 * poison before it uses it again. A reader that sees poison had a stale translation.
 *
 * Every page holds words that tell whose it is. A wrong word, a fault nobody expects, a write through a read-only entry:
 * the CPU writes down what it saw and stops the guest.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <gnomon/guest.h>
#include <gnomon/x86.h>

#include "smp.h"

#define PAGE	      4096
#define PRIVATE	      64
#define PRIVATE_VA    ((uint64_t)100 << 39)
#define SHARED	      32
#define SHARED_VA     ((uint64_t)101 << 39)
#define POISON	      0xdeadbeefdeadbeef
#define FRAMES	      (SMP_FRAMES_EACH / PAGE)
#define TABLE_FLAGS   (X86_PTE_P | X86_PTE_W | X86_PTE_U | X86_PTE_A)
#define PAGE_FLAGS    (TABLE_FLAGS | X86_PTE_D)
#define GATE_KERNEL   0x8e
#define GATE_USER     0xee
#define TSS_AVAILABLE 0x89

struct trap {
	uint64_t r11, r10, r9, r8, rdi, rsi, rdx, rcx, rax;
	uint64_t vector, error_code;
	uint64_t rip, cs, rflags, rsp, ss;
};

struct cpu {
	struct {
		uint16_t limit;
		uint64_t base;
		uint8_t pad[6];
	} __attribute__((packed)) pointers[2]; /* GDT, IDT */
	uint64_t gdt[8];
	uint8_t tss[104];
	uint64_t index;
	/* the process in force */
	uint64_t root, *leaves; /* PRIVATE entries */
	uint64_t fallback; /* where a fault on a shared page continues; 0: it is not expected */
	bool write_was_denied;
	uint64_t random;
	uint32_t free_count, free_list[FRAMES / 16];
	uint32_t fresh; /* frames never used begin here */
	uint8_t refs[FRAMES / 16];
};

extern char smp_vectors[], smp_user_return[], smp_stacks[];
uint64_t smp_user(uint64_t code, uint64_t rdi, uint64_t rsi, uint64_t stack, uint64_t *rsp0);
void *smp_descriptors(uint64_t index);
void smp_exception(struct trap *trap);
__attribute__((noreturn)) void smp_main(uint64_t index);

static struct smp_control *const control = (struct smp_control *)SMP_CONTROL;
static struct cpu cpus[SMP_CPUS];
static uint64_t idt[32][2];
static uint64_t shared_leaves;		 /* the level-1 table of SHARED_VA */
static uint64_t shared_frame[SHARED][2]; /* two frames take turns */
static volatile uint64_t mail_va[SMP_CPUS], mail_asked[SMP_CPUS],
	mail_answered[SMP_CPUS]; /* by receiver */

static struct gn_guest_boot *boot_page(void)
{
	return (struct gn_guest_boot *)(GN_GUEST_KERNEL_VA + GN_GUEST_BOOT_PA);
}

__attribute__((noreturn)) static void leave(uint32_t status)
{
	for (;;)
		__asm__ volatile("outl %0, %1"
				 :
				 : "a"(status), "d"((uint16_t)GN_GUEST_PORT_EXIT)
				 : "memory");
}

__attribute__((noreturn)) static void fail(const struct cpu *c, enum smp_error error,
					   uint64_t detail)
{
	uint64_t cr2;

	__asm__ volatile("mov %%cr2, %0" : "=r"(cr2));
	control->cpu[c->index].cr2 = cr2;
	control->cpu[c->index].detail = detail;
	control->cpu[c->index].error = error;
	leave(GN_GUEST_EXIT_FAILED);
}

static uint64_t mix(uint64_t x)
{
	return gn_guest_mix(x + 1);
}

static uint64_t draw(struct cpu *c, uint64_t n)
{
	c->random = c->random * 6364136223846793005u + 1442695040888963407u;
	return (c->random >> 33) % n;
}

/* ---- CPUs ---------------------------------------------------------------------------------------------- */

static struct cpu *this_cpu(void)
{
	uint64_t rsp;

	__asm__("mov %%rsp, %0" : "=r"(rsp));
	return &cpus[(rsp - 1 - (uint64_t)smp_stacks) / SMP_STACK_BYTES];
}

static void set_gate(unsigned vector, uint64_t to, unsigned type)
{
	idt[vector][0] =
		(to & 0xffff) | 0x08 << 16 | (uint64_t)type << 40 | (to >> 16 & 0xffff) << 48;
	idt[vector][1] = to >> 32;
}

void *smp_descriptors(uint64_t index)
{
	struct cpu *c = &cpus[index];
	uint64_t tss = (uint64_t)c->tss;

	for (unsigned v = 0; v < 32; v++) /* both CPUs write the same */
		set_gate(v, (uint64_t)smp_vectors + (uint64_t)v * 16, GATE_KERNEL);
	set_gate(3, (uint64_t)smp_user_return, GATE_USER);
	c->index = index;
	c->gdt[1] = 0x00af9a000000ffff;
	c->gdt[2] = 0x00cf93000000ffff;
	c->gdt[3] = 0x00cff3000000ffff;
	c->gdt[4] = 0x00affb000000ffff;
	c->gdt[5] = (sizeof(c->tss) - 1) | (tss & 0xffffff) << 16 | (uint64_t)TSS_AVAILABLE << 40 |
		    (tss >> 24 & 0xff) << 56;
	c->gdt[6] = tss >> 32;
	c->tss[102] = sizeof(c->tss); /* no I/O bitmap */
	c->pointers[0].limit = sizeof(c->gdt) - 1;
	c->pointers[0].base = (uint64_t)c->gdt;
	c->pointers[1].limit = sizeof(idt) - 1;
	c->pointers[1].base = (uint64_t)idt;
	return c->pointers;
}

static void invlpg(uint64_t va)
{
	__asm__ volatile("invlpg (%0)" : : "r"(va) : "memory");
}

static void load_root(struct cpu *c, uint64_t root)
{
	c->root = root;
	__asm__ volatile("mov %0, %%cr3" : : "r"(root) : "memory");
}

static uint64_t user(struct cpu *c, uint64_t code, uint64_t rdi, uint64_t rsi)
{
	uint64_t base = GN_GUEST_USER_VA + boot_page()->user_start;

	control->cpu[c->index].user_calls++;
	return smp_user(base + code, rdi, rsi, base + SMP_USER_STACK + (c->index + 1) * PAGE,
			(uint64_t *)(void *)(c->tss + 4));
}

/* ---- Frames -------------------------------------------------------------------------------------------- */

static uint64_t frame_address(const struct cpu *c, uint32_t frame)
{
	return SMP_FRAMES + c->index * SMP_FRAMES_EACH + (uint64_t)frame * PAGE;
}

static uint32_t frame_of(const struct cpu *c, uint64_t entry)
{
	return (uint32_t)(((entry & X86_PTE_ADDR) - SMP_FRAMES - c->index * SMP_FRAMES_EACH) /
			  PAGE);
}

static uint64_t frame_new(struct cpu *c)
{
	uint64_t at, count = PAGE / 8;
	uint32_t frame;

	if (c->free_count)
		frame = c->free_list[--c->free_count];
	else if (c->fresh < FRAMES / 16)
		frame = c->fresh++;
	else
		fail(c, SMP_OUT_OF_FRAMES, c->fresh);
	c->refs[frame] = 1;
	at = frame_address(c, frame);
	__asm__ volatile("rep stosq" : "+D"(at), "+c"(count) : "a"(0) : "memory");
	return frame_address(c, frame);
}

static void frame_put(struct cpu *c, uint64_t entry)
{
	uint32_t frame = frame_of(c, entry);

	if (!--c->refs[frame])
		c->free_list[c->free_count++] = frame;
}

/* ---- Tables -------------------------------------------------------------------------------------------- */

/* A level-1 table at @slot of @root, and the tables on the way. */
static uint64_t make_path(struct cpu *c, uint64_t root, unsigned slot)
{
	uint64_t table = root, index = slot;

	for (unsigned level = 4; level > 1; level--) {
		uint64_t next = frame_new(c);

		((volatile uint64_t *)table)[index] = next | TABLE_FLAGS;
		table = next;
		index = 0;
	}
	return table;
}

static uint64_t make_root(struct cpu *c)
{
	const volatile uint64_t *from = (const volatile uint64_t *)SMP_ROOT;
	volatile uint64_t *root = (volatile uint64_t *)frame_new(c);

	root[0] = from[0];
	root[101] = from[101];
	root[511] = from[511];
	return (uint64_t)root;
}

static void free_path(struct cpu *c, uint64_t root)
{
	uint64_t table = ((volatile uint64_t *)root)[100];

	for (unsigned level = 3; level; level--) {
		uint64_t next = *(volatile uint64_t *)(table & X86_PTE_ADDR);

		frame_put(c, table);
		table = next;
	}
	frame_put(c, root);
}

/* ---- Faults ---------------------------------------------------------------------------------------------- */

static void copy_frame(uint64_t to, uint64_t from)
{
	uint64_t count = 512;

	__asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
}

static bool private_fault(struct cpu *c, uint64_t va, uint64_t error)
{
	volatile uint64_t *leaf = (volatile uint64_t *)c->leaves + (va - PRIVATE_VA) / PAGE;
	uint64_t entry = *leaf;

	if (!(entry & X86_PTE_P)) {
		*leaf = frame_new(c) | PAGE_FLAGS;
		return true;
	}
	if (!(error & X86_PF_W))
		return false;
	c->write_was_denied = true;
	if (c->refs[frame_of(c, entry)] > 1) {
		uint64_t own = frame_new(c);

		copy_frame(own, entry & X86_PTE_ADDR);
		*leaf = own | PAGE_FLAGS;
		frame_put(c, entry);
		control->cpu[c->index].cow++;
	} else {
		*leaf = entry | X86_PTE_W | X86_PTE_D;
	}
	invlpg(va);
	return true;
}

void smp_exception(struct trap *trap)
{
	struct cpu *c = this_cpu();
	uint64_t va;

	__asm__ volatile("mov %%cr2, %0" : "=r"(va));
	control->cpu[c->index].faults++;
	if (trap->vector == X86_VEC_PF && va >= PRIVATE_VA && va < PRIVATE_VA + PRIVATE * PAGE &&
	    private_fault(c, va, trap->error_code))
		return;
	if (trap->vector == X86_VEC_PF && va >= SHARED_VA && va < SHARED_VA + SHARED * PAGE &&
	    !(trap->error_code & X86_PF_P) && c->fallback) {
		trap->rip = c->fallback;
		return;
	}
	fail(c, SMP_UNEXPECTED_EXCEPTION,
	     trap->vector << 56 | (trap->error_code & 0xff) << 48 | (trap->rip & 0xffffffffffff));
}

/* ---- Shared pages ------------------------------------------------------------------------------------------- */

static void serve_mail(struct cpu *c)
{
	if (mail_asked[c->index] == mail_answered[c->index])
		return;
	invlpg(mail_va[c->index]);
	mail_answered[c->index] = mail_asked[c->index];
}

static void shoot_down(struct cpu *c, uint64_t va)
{
	uint64_t other = 1 - c->index, number = mail_asked[other] + 1;

	mail_va[other] = va;
	__atomic_thread_fence(__ATOMIC_RELEASE);
	mail_asked[other] = number;
	while (mail_answered[other] != number && !(control->stop & 2))
		serve_mail(c);
	control->cpu[c->index].shootdowns++;
}

/* The word at @va, or @missing when it is not mapped. */
static __attribute__((noinline)) uint64_t read_shared(struct cpu *c, uint64_t va, uint64_t missing)
{
	uint64_t value = missing;

	__asm__ volatile("lea 1f(%%rip), %%rcx\n"
			 "mov %%rcx, %2\n"
			 "mov (%1), %0\n"
			 "1:"
			 : "+r"(value), "+r"(va), "=m"(c->fallback)
			 :
			 : "rcx", "memory");
	c->fallback = 0;
	return value;
}

static void read_some(struct cpu *c)
{
	for (unsigned i = 0; i < 8; i++) {
		uint64_t page = draw(c, SHARED), stamp = mix(page);

		if (read_shared(c, SHARED_VA + page * PAGE, stamp) != stamp)
			fail(c, SMP_STALE_TRANSLATION, page);
		control->cpu[c->index].shared_reads++;
	}
}

static void remap_shared(struct cpu *c)
{
	uint64_t page = draw(c, SHARED / 2) * 2 + c->index, va = SHARED_VA + page * PAGE;
	volatile uint64_t *leaf = (volatile uint64_t *)shared_leaves + page;
	uint64_t old = *leaf & X86_PTE_ADDR;
	uint64_t next =
		shared_frame[page][0] == old ? shared_frame[page][1] : shared_frame[page][0];

	*leaf = 0;
	invlpg(va);
	shoot_down(c, va);
	*(volatile uint64_t *)old = POISON;
	*(volatile uint64_t *)next = mix(page);
	*leaf = next | PAGE_FLAGS;
}

/* ---- The process --------------------------------------------------------------------------------------------- */

static uint64_t stamp_of(const struct cpu *c, uint64_t page)
{
	return mix(c->index << 32 | page);
}

static volatile uint64_t *word_at(uint64_t page)
{
	return (volatile uint64_t *)(PRIVATE_VA + page * PAGE);
}

static uint64_t sum_of(const uint64_t *words)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < PRIVATE; i++)
		sum += words[i];
	return sum;
}

static void check_process(struct cpu *c, const uint64_t *words, enum smp_error error)
{
	for (unsigned i = 0; i < PRIVATE; i++)
		if (*word_at(i) != words[i])
			fail(c, error, i);
	if (user(c, SMP_USER_SUM, PRIVATE, PRIVATE_VA) != sum_of(words))
		fail(c, SMP_USER_SEES_WRONG, 0);
}

/* The child's tables: the same frames, nobody may write. */
static uint64_t copy_process(struct cpu *c, uint64_t *leaves)
{
	uint64_t root = make_root(c), table = make_path(c, root, 100);
	volatile uint64_t *from = (volatile uint64_t *)c->leaves, *to = (volatile uint64_t *)table;

	for (unsigned i = 0; i < PRIVATE; i++) {
		uint64_t entry = from[i];

		if (!(entry & X86_PTE_P))
			continue;
		if (entry & X86_PTE_W) {
			entry &= ~X86_PTE_W;
			from[i] = entry;
		}
		c->refs[frame_of(c, entry)]++;
		to[i] = entry;
	}
	*leaves = table;
	load_root(c, c->root); /* the flush that ends the parent's right to write */
	return root;
}

static void fork_and_exit(struct cpu *c, uint64_t *words)
{
	uint64_t parent = c->root, *parent_leaves = c->leaves, child_words[PRIVATE], leaves;
	uint64_t child = copy_process(c, &leaves);

	for (unsigned i = 0; i < PRIVATE; i++)
		child_words[i] = words[i];
	load_root(c, child);
	c->leaves = (uint64_t *)leaves;
	for (unsigned i = 0; i < 6; i++) {
		uint64_t page = draw(c, PRIVATE);

		child_words[page] = mix(c->random);
		if (i & 1)
			*word_at(page) = child_words[page];
		else
			user(c, SMP_USER_WRITE, child_words[page], PRIVATE_VA + page * PAGE);
		serve_mail(c);
	}
	check_process(c, child_words, SMP_CHILD_SEES_WRONG);
	load_root(c, parent);
	c->leaves = parent_leaves;
	check_process(c, words, SMP_PARENT_SEES_WRONG);
	for (unsigned i = 0; i < PRIVATE; i++)
		if (((volatile uint64_t *)leaves)[i] & X86_PTE_P)
			frame_put(c, ((volatile uint64_t *)leaves)[i]);
	free_path(c, child);
	for (unsigned i = 0; i < 3; i++) {
		uint64_t page = draw(c, PRIVATE);

		words[page] = mix(c->random);
		*word_at(page) = words[page];
	}
	control->cpu[c->index].forks++;
}

static void protect(struct cpu *c, uint64_t *words)
{
	uint64_t page = draw(c, PRIVATE), value = mix(c->random);
	volatile uint64_t *leaf = (volatile uint64_t *)c->leaves + page;

	*leaf &= ~X86_PTE_W;
	invlpg(PRIVATE_VA + page * PAGE);
	c->write_was_denied = false;
	if (draw(c, 2))
		user(c, SMP_USER_WRITE, value, PRIVATE_VA + page * PAGE);
	else
		*word_at(page) = value;
	if (!c->write_was_denied)
		fail(c, SMP_READ_ONLY_WRITTEN, page);
	if (*word_at(page) != value)
		fail(c, SMP_WRITE_LOST, page);
	words[page] = value;
	control->cpu[c->index].protects++;
}

static void unmap(struct cpu *c, uint64_t *words)
{
	uint64_t page = draw(c, PRIVATE);
	volatile uint64_t *leaf = (volatile uint64_t *)c->leaves + page;
	uint64_t entry = *leaf;

	*leaf = 0;
	invlpg(PRIVATE_VA + page * PAGE);
	if (*word_at(page))
		fail(c, SMP_FRESH_NOT_ZERO, page);
	frame_put(c, entry);
	words[page] = stamp_of(c, page);
	*word_at(page) = words[page];
	control->cpu[c->index].unmaps++;
}

/* ---- Beginning and end ------------------------------------------------------------------------------------------ */

static void make_shared(struct cpu *c)
{
	shared_leaves = make_path(c, SMP_ROOT, 101);
	for (unsigned page = 0; page < SHARED; page++) {
		for (unsigned i = 0; i < 2; i++)
			shared_frame[page][i] = frame_new(c);
		*(volatile uint64_t *)shared_frame[page][0] = mix(page);
		((volatile uint64_t *)shared_leaves)[page] = shared_frame[page][0] | PAGE_FLAGS;
	}
	__atomic_store_n(&control->ready, 1, __ATOMIC_RELEASE);
}

static void step(struct cpu *c, uint64_t *words)
{
	switch (draw(c, 4)) {
	case 0:
		fork_and_exit(c, words);
		break;
	case 1:
		protect(c, words);
		break;
	case 2:
		unmap(c, words);
		break;
	default:
		remap_shared(c);
	}
	serve_mail(c);
	read_some(c);
}

void smp_main(uint64_t index)
{
	struct cpu *c = &cpus[index];
	uint64_t words[PRIVATE], root;

	c->random = index + boot_page()->seed;
	if (!index)
		make_shared(c);
	while (!__atomic_load_n(&control->ready, __ATOMIC_ACQUIRE))
		;
	root = make_root(c);
	c->leaves = (uint64_t *)make_path(c, root, 100);
	load_root(c, root);
	for (unsigned i = 0; i < PRIVATE; i++) {
		words[i] = stamp_of(c, i);
		*word_at(i) = words[i];
	}
	while (!__atomic_load_n(&control->stop, __ATOMIC_ACQUIRE))
		step(c, words);
	/* The other may still wait for an answer. */
	__atomic_fetch_or(&control->stop, 2, __ATOMIC_ACQ_REL);
	check_process(c, words, SMP_PARENT_SEES_WRONG);
	leave(GN_GUEST_EXIT_GOOD);
}
