/* SPDX-License-Identifier: MIT */
/*
 * matrix.c - the access matrix on the real CPU: every kind of entry at every level, every kind of access, against the
 * walk oracle.
 *
 * A guest (guest/matrix_kernel.c) makes each access with real instructions; the oracle (gn_guest_walk) makes the same one
 * on a copy of the same tables in memory of its own. Compared: whether it faulted, vector, #PF error code, CR2, the
 * word that was read, and the A and D bits of all four entries.
 *
 * Cases: first systematically, each deviation of an entry (P, RW, US, NX, A, D, PS, G, a reserved bit) alone and in pairs
 * over all levels, with each access, each CPL, and each setting of WP, NXE, SMEP, SMAP that the machine has; then by
 * dice.
 *
 * One freedom: the architecture lets a CPU set A on the way to a fault (SDM 4.8). Under nested paging the CPU's own
 * walker decides, so there an access that faults may leave A set in entries that were present; our shadow scheme
 * has to do as the oracle does.
 *
 * Left out under shadow: the kernel's fetches under SMAP without SMEP. A user page would have to be executable and not
 * readable, which no entry says; such a guest is stopped with a reason.
 *
 * Peculiarities of a host are probed (gn_kvm_probe), and what they make of a case is what is expected of it.
 *
 * Usage: matrix [SEED [CASES [SCHEME]]]
 */
#include <cpuid.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <gnomon/kvm.h>
#include <gnomon/schemes.h>
#include <gnomon/x86.h>

#include "mmu/vm.h"

#include "guest/matrix.h"

extern const struct gn_guest_image matrix_image;

static uint64_t rng_state;

static uint64_t draw(void)
{
	uint64_t z = rng_state += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

static unsigned below(unsigned n)
{
	return (unsigned)(draw() % n);
}

/* ---- Cases ----------------------------------------------------------------------------------------------- */

enum deviation {
	NONE,
	NOT_PRESENT,
	READ_ONLY,
	SUPERVISOR,
	NO_EXECUTE,
	NOT_ACCESSED,
	CLEAN,
	LARGE, /* levels 2 and 3: a leaf; 4: reserved */
	GLOBAL,
	RESERVED,	/* an address bit beyond the width */
	RESERVED_LARGE, /* a low address bit of a large leaf */
	DEVIATIONS
};

struct config {
	bool wp, nxe, smep, smap;
};

struct test {
	struct gn_kvm *kvm;
	struct gn_vm *oracle;
	const struct gn_kvm_host *host;
	bool is_nested, is_amd;
	struct config configs[16];
	unsigned config_count, config;
	uint64_t cases, target, skipped, differences;
	uint64_t systematic; /* the next one */
	struct matrix_batch *batch, *sent;
	char first[400];
};

static uint64_t table_of(unsigned level)
{
	return level == 4 ? MATRIX_ROOT : MATRIX_TABLES + (3 - level) * 0x1000;
}

/* What @level's entry leads to, as long as nothing deviates. */
static uint64_t plain_entry(unsigned level, uint64_t va)
{
	uint64_t flags = X86_PTE_P | X86_PTE_W | X86_PTE_U | X86_PTE_A;
	uint64_t page = va >> GN_PAGE_SHIFT & (MATRIX_DATA_PAGES - 1);

	if (level == 1)
		return (MATRIX_DATA + page * GN_PAGE_SIZE) | flags | X86_PTE_D;
	return table_of(level - 1) | flags;
}

/* The address of the part of a large leaf at @level that puts @va into the data. */
static uint64_t large_frame(unsigned level)
{
	return level == 3 ? 0 : MATRIX_DATA & ~(((uint64_t)2 << 20) - 1);
}

static void deviate(const struct test *t, uint64_t *entry, unsigned level, enum deviation d)
{
	switch (d) {
	case NOT_PRESENT:
		*entry &= ~X86_PTE_P;
		break;
	case READ_ONLY:
		*entry &= ~X86_PTE_W;
		break;
	case SUPERVISOR:
		*entry &= ~X86_PTE_U;
		break;
	case NO_EXECUTE:
		*entry |= X86_PTE_NX;
		break;
	case NOT_ACCESSED:
		*entry &= ~X86_PTE_A;
		break;
	case CLEAN:
		*entry &= ~X86_PTE_D;
		break;
	case LARGE:
	case RESERVED_LARGE:
		if (level == 1)
			break;
		*entry |= X86_PTE_PS;
		if (level == 4 || (level == 3 && !t->host->gib_pages))
			break;
		*entry = (*entry & ~X86_PTE_ADDR) | large_frame(level) | X86_PTE_D;
		if (d == RESERVED_LARGE)
			*entry |= (uint64_t)1 << (13 + below(level == 3 ? 17 : 8));
		break;
	case GLOBAL:
		*entry |= X86_PTE_G;
		break;
	case RESERVED:
		if (t->host->phys_bits < 52)
			*entry |= (uint64_t)1
				  << (t->host->phys_bits + below(52 - t->host->phys_bits));
		break;
	default:
		break;
	}
}

static void fill_plain(struct matrix_case *c)
{
	c->va = (uint64_t)MATRIX_SLOT << 39 | MATRIX_DATA |
		(uint64_t)below(MATRIX_DATA_PAGES) * GN_PAGE_SIZE;
	for (unsigned level = 4; level; level--)
		c->entry[level] = plain_entry(level, c->va);
}

/* Two deviations anywhere, an access: numbered. False: all were there. */
static bool fill_systematic(const struct test *t, uint64_t n, struct matrix_case *c)
{
	unsigned first = (unsigned)(n % (4 * DEVIATIONS)), second;

	n /= 4 * DEVIATIONS;
	second = (unsigned)(n % (4 * DEVIATIONS));
	n /= 4 * DEVIATIONS;
	if (n >= 12)
		return false;
	memset(c, 0, sizeof(*c));
	fill_plain(c);
	c->kind = (uint32_t)(n % 3);
	c->user = (uint32_t)(n / 3 % 2);
	c->ac = (uint32_t)(n / 6);
	deviate(t, &c->entry[1 + first / DEVIATIONS], 1 + first / DEVIATIONS,
		(enum deviation)(first % DEVIATIONS));
	deviate(t, &c->entry[1 + second / DEVIATIONS], 1 + second / DEVIATIONS,
		(enum deviation)(second % DEVIATIONS));
	return true;
}

static void fill_random(const struct test *t, struct matrix_case *c)
{
	unsigned count = below(6);

	memset(c, 0, sizeof(*c));
	fill_plain(c);
	c->kind = below(3);
	c->user = below(2);
	c->ac = below(2);
	while (count--) {
		unsigned level = 1 + below(4);

		deviate(t, &c->entry[level], level, (enum deviation)below(DEVIATIONS));
	}
	if (!below(8)) /* bits that mean nothing: ignored, PAT, PWT, PCD of a mapping to RAM */
		c->entry[1 + below(4)] |= draw() & ((uint64_t)0x7 << 9 | (uint64_t)0x7f << 52);
}

static void make_case(struct test *t, const struct config *config, struct matrix_case *c)
{
	/* All of the systematic ones go through each configuration in turn. */
	if (t->cases % 2 == 0 &&
	    fill_systematic(t, t->systematic * 7919 % (16u * DEVIATIONS * DEVIATIONS * 12), c))
		t->systematic++;
	else
		fill_random(t, c);
	if (!t->is_nested && config->smap && !config->smep && c->kind == MATRIX_FETCH && !c->user)
		c->kind = MATRIX_READ;
}

/* ---- The guest's side --------------------------------------------------------------------------------------- */

static uint64_t cr0_of(const struct config *c)
{
	return X86_CR0_PE | X86_CR0_PG | 0x20 /* NE */ | 0x10 /* ET */ | (c->wp ? X86_CR0_WP : 0);
}
static uint64_t cr4_of(const struct config *c)
{
	return X86_CR4_PAE | (c->smep ? X86_CR4_SMEP : 0) | (c->smap ? X86_CR4_SMAP : 0);
}
static uint64_t efer_of(const struct config *c)
{
	return X86_EFER_LME | X86_EFER_LMA | (c->nxe ? X86_EFER_NXE : 0);
}

static int send_batch(struct test *t)
{
	const struct config *c = &t->configs[t->config++ % t->config_count];
	uint64_t left = t->target - t->cases;

	t->sent->count = left < MATRIX_CASES ? left : MATRIX_CASES;
	t->sent->cr0 = cr0_of(c);
	t->sent->cr4 = cr4_of(c);
	t->sent->efer = efer_of(c);
	for (uint64_t i = 0; i < t->sent->count; i++) {
		make_case(t, c, &t->sent->cases[i]);
		t->cases++;
	}
	return gn_vm_write(gn_kvm_vm(t->kvm), gpa(MATRIX_BATCH), t->sent, sizeof(*t->sent));
}

/* ---- The oracle's side ----------------------------------------------------------------------------------------- */

static uint64_t *oracle_slot(struct test *t, unsigned level, uint64_t va)
{
	uint64_t at = table_of(level) + (va >> (12 + 9 * (level - 1)) & 511) * 8;

	return gn_p2m_pointer(t->oracle, gpa(at));
}

static void run_oracle(struct test *t, const struct gn_paging *paging, const struct matrix_case *c,
		       struct gn_guest_walk *walk, uint64_t after[5])
{
	static const uint64_t offset[] = { MATRIX_STAMP_OFFSET, MATRIX_WRITE_OFFSET,
					   MATRIX_RET_OFFSET };
	const struct gn_access access = { .va = gva(c->va + offset[c->kind]),
					  .kind = (uint8_t)c->kind,
					  .size = c->kind == MATRIX_FETCH ? 1 : 8,
					  .user = c->user,
					  .ac = c->ac && !c->user };

	for (unsigned level = 4; level; level--)
		*oracle_slot(t, level, c->va) = c->entry[level];
	gn_rcu_read_lock();
	gn_guest_walk(t->oracle, paging, MATRIX_ROOT, &access, GN_GW_SET_AD, walk);
	gn_rcu_read_unlock();
	for (unsigned level = 4; level; level--)
		after[level] = *oracle_slot(t, level, c->va);
}

/* Where the CPU walks the guest's tables, with what it is known to get wrong. */
static uint32_t expected_error(const struct test *t, const struct gn_guest_walk *walk)
{
	const bool lacks_p = t->is_nested && t->host->reserved_fault_without_p &&
			     (walk->error_code & X86_PF_RSVD);

	return walk->error_code & ~(lacks_p ? (uint32_t)X86_PF_P : 0);
}

/* NULL: as the oracle says. */
static const char *compare(const struct test *t, const struct matrix_case *in,
			   const struct matrix_case *out, const struct gn_guest_walk *walk,
			   const uint64_t after[5])
{
	bool faulted = out->vector == X86_VEC_PF;

	if (!faulted && out->vector != 0xff)
		return "another exception than #PF";
	if (faulted != (walk->end == GN_GW_PF))
		return faulted ? "a fault the oracle does not have"
			       : "no fault, the oracle has one";
	if (faulted && out->error_code != expected_error(t, walk))
		return "another error code";
	if (faulted && (out->cr2 & ~(uint64_t)31) != (in->va & ~(uint64_t)31))
		return "another CR2";
	if (!faulted && in->kind == MATRIX_READ &&
	    out->value != (walk->t.gpa.v & ~(GN_PAGE_SIZE - 1)))
		return "the word read is another page's";
	for (unsigned level = 4; level; level--) {
		uint64_t free = 0;

		if (faulted && t->is_nested && (in->entry[level] & X86_PTE_P))
			free = X86_PTE_A;
		if ((out->entry[level] ^ after[level]) & ~free)
			return "other A or D bits";
	}
	return NULL;
}

/* AMD's CPUs reserve bit 8 in entries of levels 3 and 4 that are no leaves (APM vol. 2, 5.3.4); Intel's ignore it, and so
 * does the engine, whatever the CPU. */
static bool is_amd(void)
{
	unsigned eax, ebx, ecx, edx;

	return __get_cpuid(0, &eax, &ebx, &ecx, &edx) && ebx == signature_AMD_ebx;
}

static bool has_nonleaf_global(const struct matrix_case *c)
{
	return (c->entry[4] & X86_PTE_G) ||
	       ((c->entry[3] & X86_PTE_G) && !(c->entry[3] & X86_PTE_PS));
}

static bool is_skipped(const struct test *t, const struct matrix_case *in)
{
	return t->is_nested && t->is_amd && has_nonleaf_global(in);
}

static void tell(struct test *t, const char *what, const struct matrix_case *in,
		 const struct matrix_case *out, const struct gn_guest_walk *walk,
		 const uint64_t after[5])
{
	static const char *const kinds[] = { "read", "write", "fetch" };

	if (t->differences++)
		return;
	snprintf(t->first, sizeof(t->first),
		 "%s: %s%s%s of %#" PRIx64 ", cr0 %#" PRIx64 " cr4 %#" PRIx64 " efer %#" PRIx64
		 ", entries %#" PRIx64 " %#" PRIx64 " %#" PRIx64 " %#" PRIx64
		 ": vector %u error %#x; the oracle: %s error %#x; entries after %#" PRIx64
		 " %#" PRIx64 " %#" PRIx64 " %#" PRIx64 ", oracle %#" PRIx64 " %#" PRIx64
		 " %#" PRIx64 " %#" PRIx64,
		 what, kinds[in->kind], in->user ? " by user" : "", in->ac ? " AC" : "", in->va,
		 t->sent->cr0, t->sent->cr4, t->sent->efer, in->entry[4], in->entry[3],
		 in->entry[2], in->entry[1], out->vector, out->error_code,
		 walk->end == GN_GW_PF ? "fault" : "no fault", walk->error_code, out->entry[4],
		 out->entry[3], out->entry[2], out->entry[1], after[4], after[3], after[2],
		 after[1]);
}

static int check_batch(struct test *t)
{
	const struct gn_regs regs = {
		.cr0 = t->sent->cr0, .cr3 = MATRIX_ROOT, .cr4 = t->sent->cr4, .efer = t->sent->efer
	};
	struct gn_paging paging;
	int err = gn_vm_read(gn_kvm_vm(t->kvm), gpa(MATRIX_BATCH), t->batch, sizeof(*t->batch));

	gn_paging_derive(&regs, t->host->phys_bits, &paging);
	for (uint64_t i = 0; i < t->sent->count && !err; i++) {
		const struct matrix_case *in = &t->sent->cases[i], *out = &t->batch->cases[i];
		struct gn_guest_walk walk;
		uint64_t after[5];
		const char *what;

		run_oracle(t, &paging, in, &walk, after);
		if (is_skipped(t, in)) {
			t->skipped++;
			continue;
		}
		what = compare(t, in, out, &walk, after);
		if (what)
			tell(t, what, in, out, &walk, after);
	}
	return err;
}

static bool port(void *ctx, struct gn_kvm *kvm, unsigned vcpu, uint16_t number, unsigned bytes,
		 bool is_out, uint32_t *value)
{
	struct test *t = ctx;
	int err = 0;

	(void)kvm;
	(void)vcpu;
	(void)bytes;
	if (number != GN_GUEST_PORT_CALL || !is_out || *value != GN_GUEST_CALL_TEST)
		return false;
	if (t->sent->count)
		err = check_batch(t);
	if (!err)
		err = send_batch(t);
	return !err;
}

/* ---- A run ---------------------------------------------------------------------------------------------------- */

static void choose_configs(struct test *t)
{
	for (unsigned bits = 0; bits < 16; bits++) {
		const struct config c = { bits & 1, bits & 2, bits & 4, bits & 8 };

		/* Under shadow they are the engine's own, whatever the CPU has. */
		if ((c.smep && t->is_nested && !t->host->smep) ||
		    (c.smap && t->is_nested && !t->host->smap))
			continue;
		t->configs[t->config_count++] = c;
	}
}

static int make_data(struct gn_vm *vm)
{
	uint64_t page[512] = { 0 };
	int err = 0;

	for (uint64_t i = 0; i < MATRIX_DATA_PAGES && !err; i++) {
		uint64_t at = MATRIX_DATA + i * GN_PAGE_SIZE;

		page[0] = 0xc3;
		page[MATRIX_STAMP_OFFSET / 8] = at;
		err = gn_vm_write(vm, gpa(at), page, sizeof(page));
	}
	return err;
}

static int prepare(struct test *t, const char *scheme, char *why, size_t why_bytes)
{
	const struct gn_kvm_config config = {
		.vm = { .scheme = scheme,
			.mem_bytes = MATRIX_MEM_BYTES,
			.vcpus = 1,
			.guest_phys_bits = t->host->phys_bits },
		.port = port,
		.ctx = t,
	};
	const struct gn_vm_config oracle = { .scheme = "interp",
					     .mem_bytes = MATRIX_MEM_BYTES,
					     .vcpus = 1,
					     .guest_phys_bits = t->host->phys_bits };
	struct gn_guest_boot boot = { .levels = 4 };
	int err;

	t->batch = calloc(1, sizeof(*t->batch));
	t->sent = calloc(1, sizeof(*t->sent));
	if (!t->batch || !t->sent)
		return -ENOMEM;
	err = gn_vm_create(&oracle, &t->oracle);
	if (!err)
		err = gn_p2m_populate(t->oracle, gfn(0), MATRIX_MEM_BYTES >> GN_PAGE_SHIFT);
	if (!err)
		err = gn_kvm_create(&config, &t->kvm, why, why_bytes);
	if (!err) {
		err = gn_kvm_load(t->kvm, &matrix_image, &boot);
		if (err)
			snprintf(why, why_bytes, "%s", gn_kvm_error(t->kvm, 0));
	}
	if (!err)
		err = make_data(gn_kvm_vm(t->kvm));
	return err;
}

static void finish(struct test *t)
{
	gn_kvm_destroy(t->kvm);
	gn_vm_destroy(t->oracle);
	free(t->batch);
	free(t->sent);
}

static bool run_scheme(const struct gn_kvm_host *host, const char *scheme, uint64_t seed,
		       uint64_t cases)
{
	struct test t = { .host = host,
			  .target = cases,
			  .is_nested = !strncmp(scheme, "ept", 3),
			  .is_amd = is_amd() };
	char why[512] = "";
	struct gn_audit_report report;
	enum gn_kvm_stop stop = GN_KVM_STOP_ERROR;
	uint32_t status = 0;
	int err;

	rng_state = seed;
	choose_configs(&t);
	err = prepare(&t, scheme, why, sizeof(why));
	if (err) {
		printf("%s: %s\n", scheme, why[0] ? why : strerror(-err));
	} else {
		stop = gn_kvm_run(t.kvm, 0, &status);
		if (stop != GN_KVM_STOP_EXIT || status)
			printf("%s: the guest ended with stop %d, status %u: %s\n", scheme, stop,
			       status, gn_kvm_error(t.kvm, 0));
		if (gn_audit(gn_kvm_vm(t.kvm), &report))
			printf("%s: audit: %s\n", scheme, report.first);
		else if (stop == GN_KVM_STOP_EXIT && !status && t.cases == cases)
			err = 1;
		printf("%-12s %" PRIu64 " accesses in %u configurations, seed %" PRIu64 ": %" PRIu64
		       " differences, %" PRIu64 " skipped (G above leaves, which AMD reserves)\n",
		       scheme, t.cases, t.config_count, seed, t.differences, t.skipped);
		if (t.differences)
			printf("%s: the first: %s\n", scheme, t.first);
	}
	finish(&t);
	return err == 1 && !t.differences;
}

static uint64_t scaled(uint64_t n)
{
	const char *text = getenv("GN_TEST_SCALE");
	uint64_t percent = text ? strtoull(text, NULL, 10) : 100;

	return n * percent / 100 + 1;
}

int main(int argc, char **argv)
{
	enum { PLANS = 3 };
	static const struct {
		const char *scheme;
		uint64_t cases;
	} plan[PLANS] = { { "ept", 600000 }, { "shadow", 260000 }, { "shadow-vtlb", 150000 } };
	uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
	unsigned passed = 0, failed = 0;
	struct gn_kvm_host host;
	pid_t child[PLANS];

	setvbuf(stdout, NULL, _IOLBF, 0);
	gn_kvm_probe(&host, true);
	if (!host.usable) {
		printf("SKIPPED: the access matrix needs /dev/kvm: %s\n", host.why);
		printf("0 passed, 0 failed, 3 skipped\n");
		return 0;
	}
	if (gn_schemes_register_all()) {
		printf("0 passed, 1 failed\n");
		return 1;
	}
	/* A process each: they share nothing, and most of their time is the host's. */
	for (unsigned i = 0; i < PLANS; i++) {
		uint64_t cases = argc > 2 ? strtoull(argv[2], NULL, 0) : scaled(plan[i].cases);

		child[i] = -1;
		if (argc > 3 && strcmp(argv[3], plan[i].scheme) != 0)
			continue;
		child[i] = fork();
		if (!child[i])
			_exit(run_scheme(&host, plan[i].scheme, seed + i, cases) ? 0 : 1);
		failed += child[i] < 0;
	}
	for (unsigned i = 0; i < PLANS; i++) {
		int status = 1;

		if (child[i] <= 0)
			continue;
		if (waitpid(child[i], &status, 0) == child[i] && !status)
			passed++;
		else
			failed++;
	}
	printf("%u passed, %u failed, 0 skipped\n", passed, failed);
	return failed != 0;
}
