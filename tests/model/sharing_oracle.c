/* SPDX-License-Identifier: MIT */
/*
 * sharing_oracle.c - guests whose pages are shared, held against an oracle of contents.
 *
 * Three guests on the software machine over one pool, two in one domain and the third in another of its own. They load and
 * store through their page tables; in between devices read and write, domains sweep and scan, frames are reclaimed, pages are
 * ballooned, discarded and hinted about, schemes are exchanged; and at the steps of a scan itself someone writes. Pages hold few
 * different things, zeros among them, so that most have their like. Every load must give what was stored last. Now and then all of
 * memory is compared, and everything audited: the tables of each VM, and that each frame's users are of one domain and counted.
 *
 * Guests over a template are in a domain each; what they share is the template's pages.
 *
 * In the end all is still, and sharing must have saved what an oracle would: as many frames as there are different pages.
 *
 *     sharing_oracle [SEED [OPERATIONS]]
 *
 * 1000000000 operations take some minutes; the default is a tenth.
 */
#include <errno.h>
#include <string.h>

#include <gnomon/sharing.h>

#include "sharing/scanner.h"
#include "sharing/domain_impl.h"
#include "support/cases.h"
#include "support/template.h"
#include "unit/soft_guest.h"

#define MIB	     ((uint64_t)1 << 20)
#define OPERATIONS   100000000 /* of all configurations together */
#define VMS	     3u
#define DOMAINS	     VMS  /* at most */
#define PAGES	     512u /* of a VM, with data */
#define WORDS	     4u
#define RAM	     (6 * MIB)
#define FIRST	     (2 * MIB) /* where data begins: a block's start */
#define BASE	     ((uint64_t)0x40000000)
#define GUEST_RUN    4096 /* operations of a guest in a row, */
#define GUEST_PAGES  24	  /* on so many pages: the others come to rest */
#define CHECK_PERIOD 2048 /* turns between looks at everything */
/* Each area has its turn, and its pages their time. */
#define ROUNDS_TO_END (2 * GN_LOOK_AFTER_PERIOD + 8)
#define FAILURES_TOLD 5

static const unsigned offsets[WORDS] = { 0, 8, 2048, 4088 };

static const struct config {
	const char *label, *scheme;
	unsigned backing_level, tag_bits, values;
	bool quiet, over_template;
} configs[] = {
	{ "shadow", "shadow", 1, 0, 3, false, false },
	{ "ept", "ept", 1, 0, 3, false, false },
	{ "8-bit tags", "ept", 1, 8, 3, false, false },
	{ "1-bit tags", "npt", 1, 1, 3, false, false },
	{ "blocks", "ept", 2, 0, 2, false, false },
	{ "quiet", "shadow", 1, 0, 3, true, false },
	{ "quiet, 8-bit tags", "ept", 1, 8, 3, true, false },
	{ "no log", "native", 1, 0, 3, false, false },
	{ "template, ept", "ept", 1, 0, 3, false, true },
	{ "template, no log", "native", 1, 0, 3, false, true },
};
#define CONFIGS (sizeof(configs) / sizeof(configs[0]))

static const char *const schemes[] = { "ept", "npt", "shadow", "shadow-vtlb", "interp" };
#define SCHEMES (sizeof(schemes) / sizeof(schemes[0]))

struct machine {
	struct guest guest;
	uint64_t words[PAGES][WORDS]; /* the oracle; all else of a page is zeros */
	bool is_ballooned[PAGES];
};

static struct {
	const struct config *config;
	struct gn_frames *frames; /* NULL: over the template each has its own */
	int template_fd;
	struct machine machines[VMS];
	struct gn_domain *domains[DOMAINS];
	unsigned domain_count;
	struct test_random random;
	struct machine *running;
	uint64_t operations, failures;
	bool is_still; /* nobody comes in between any more */
} world;

static uint64_t below(uint64_t n)
{
	return test_random_below(&world.random, n);
}

static void fail(const char *what, const struct machine *m, unsigned page, uint64_t have,
		 uint64_t want)
{
	if (world.failures++ < FAILURES_TOLD)
		printf("%s, operation %" PRIu64 ": %s: VM %d, page %u: %#" PRIx64
		       ", must be %#" PRIx64 "\n",
		       world.config->label, world.operations, what, (int)(m - world.machines), page,
		       have, want);
}

static void need(int err)
{
	if (err) {
		printf("%s: the engine refuses with %d\n", world.config->label, err);
		abort();
	}
}

static gpa_t place(unsigned page, unsigned word)
{
	return gpa(FIRST + page * GN_PAGE_SIZE + offsets[word]);
}

static struct gn_domain *domain_of(const struct machine *m)
{
	const unsigned v = (unsigned)(m - world.machines);

	return world.domains[world.config->over_template ? v : v == VMS - 1];
}

static struct machine *any_machine(void)
{
	return &world.machines[below(VMS)];
}

/* ---- The guests ---------------------------------------------------------------------------------------- */

static void guest(struct gn_soft_cpu *cpu, void *ctx)
{
	const unsigned first = (unsigned)below(PAGES - GUEST_PAGES);
	struct machine *m = ctx;

	for (unsigned i = 0; i < GUEST_RUN; i++) {
		uint64_t r = test_random_next(&world.random);
		unsigned page = first + (unsigned)(r >> 8) % GUEST_PAGES,
			 word = (unsigned)(r >> 32) % WORDS;
		gva_t at = gva(BASE + place(page, word).v);
		uint64_t *is = &m->words[page][word];

		world.operations++;
		if (m->is_ballooned[page])
			continue;
		if (r & 7) {
			uint64_t have = gn_soft_load(cpu, at, 8);

			if (have != *is)
				fail("a load", m, page, have, *is);
		} else {
			*is = (r >> 40) % world.config->values;
			gn_soft_store(cpu, at, 8, *is);
		}
	}
}

static void boot(struct gn_soft_cpu *cpu, void *ctx)
{
	struct machine *m = ctx;

	(void)cpu;
	guest_start(&m->guest, 0);
}

static void run_guest(struct machine *m)
{
	need(gn_soft_run(m->guest.cpu, guest, m));
}

/* ---- Everybody else ------------------------------------------------------------------------------------ */

static void device(struct machine *m)
{
	unsigned page = (unsigned)below(PAGES), word = (unsigned)below(WORDS);
	uint64_t *is = &m->words[page][word], have;

	world.operations++;
	if (m->is_ballooned[page])
		return;
	if (below(2)) {
		need(gn_vm_read(m->guest.vm, place(page, word), &have, 8));
		if (have != *is)
			fail("a read", m, page, have, *is);
	} else {
		*is = below(world.config->values);
		need(gn_vm_write(m->guest.vm, place(page, word), is, 8));
	}
}

static void come_in_between(void *ctx, enum gn_share_step step)
{
	(void)ctx;
	(void)step;
	for (uint64_t times = world.is_still ? 0 : below(8); times; times--)
		device(any_machine());
}

static void balloon(struct machine *m)
{
	unsigned page = (unsigned)below(PAGES);
	gfn_t at = gpa_to_gfn(place(page, 0));

	if (world.config->over_template)
		return; /* it keeps its frames */
	if (m->is_ballooned[page])
		need(gn_p2m_unballoon(m->guest.vm, at, 1));
	else if (below(2))
		need(gn_p2m_balloon(m->guest.vm, at, 1));
	else
		need(gn_p2m_discard(m->guest.vm, at, 1));
	m->is_ballooned[page] =
		gn_p2m_word_state(gn_p2m_get(&m->guest.vm->p2m, at)) == GN_P2M_BALLOONED;
	memset(m->words[page], 0, sizeof(m->words[page]));
}

static void hint(struct machine *m)
{
	unsigned page = (unsigned)below(PAGES);

	need(gn_domain_hint(domain_of(m), m->guest.vm, gpa_to_gfn(place(page, 0)), 1,
			    (enum gn_share_hint)below(3)));
}

static void switch_scheme(struct machine *m)
{
	if (strcmp(world.config->scheme, "native"))
		need(gn_vm_switch_scheme(m->guest.vm, schemes[below(SCHEMES)]));
}

static void act(void)
{
	struct gn_domain *d = world.domains[below(world.domain_count)];
	bool done;

	world.operations++;
	switch (below(64)) {
	case 0:
	case 1:
	case 2:
	case 3:
		need(gn_domain_sweep(d));
		break;
	case 4:
		gn_domain_reclaim(d);
		break;
	case 5:
		balloon(any_machine());
		break;
	case 6:
		hint(any_machine());
		break;
	case 7:
		if (!below(8))
			switch_scheme(any_machine());
		break;
	case 8:
	case 9:
	case 10:
	case 11:
		run_guest(any_machine());
		break;
	default:
		if (below(2))
			device(any_machine());
		else
			need(gn_domain_scan(d, 0, &done));
	}
}

/* ---- Looks at everything ------------------------------------------------------------------------------- */

static void audit(void)
{
	struct gn_audit_report report;

	for (unsigned v = 0; v < VMS; v++)
		if (gn_audit(world.machines[v].guest.vm, &report)) {
			fail("an audit", &world.machines[v], 0, report.violations, 0);
			printf("%s\n", report.first);
		}
	if (gn_domain_audit(world.domains, world.domain_count, &report)) {
		fail("an audit of domains", world.machines, 0, report.violations, 0);
		printf("%s\n", report.first);
	}
}

static void compare_all(void)
{
	for (unsigned v = 0; v < VMS; v++) {
		struct machine *m = &world.machines[v];

		for (unsigned page = 0; page < PAGES; page++) {
			uint8_t have[GN_PAGE_SIZE], want[GN_PAGE_SIZE] = { 0 };

			if (m->is_ballooned[page])
				continue;
			for (unsigned w = 0; w < WORDS; w++)
				memcpy(want + offsets[w], &m->words[page][w], 8);
			need(gn_vm_read(m->guest.vm, place(page, 0), have, sizeof(have)));
			if (memcmp(have, want, sizeof(have)))
				fail("a page", m, page, 0, 0);
		}
	}
}

/* A number for what a page holds; 0: zeros. */
static unsigned number_of(const struct machine *m, unsigned page)
{
	unsigned number = 0;

	for (unsigned w = 0; w < WORDS; w++)
		number = number * world.config->values + (unsigned)m->words[page][w];
	return number;
}

/* All that is alike in a domain has one frame, and zeros none. */
static void check_savings(unsigned first_vm, unsigned end_vm)
{
	uint64_t frames[81]; /* of each number; 0: none yet */

	memset(frames, 0, sizeof(frames));
	for (unsigned v = first_vm; v < end_vm; v++)
		for (unsigned page = 0; page < PAGES; page++) {
			const struct machine *m = &world.machines[v];
			unsigned number = number_of(m, page);
			struct gn_p2m_info is;

			need(gn_p2m_query(m->guest.vm, gpa_to_gfn(place(page, 0)), &is));
			if (m->is_ballooned[page])
				continue;
			if (!number && is.state != GN_P2M_UNBACKED)
				fail("zeros have a frame", m, page, is.pfn.v, 0);
			if (number && frames[number] && frames[number] != is.pfn.v)
				fail("not shared", m, page, is.pfn.v, frames[number]);
			frames[number] = is.pfn.v;
		}
}

/* What the template holds in the data pages: not all of it zeros. */
static uint64_t template_word_of(unsigned page, unsigned word)
{
	return word ? 0 : page % world.config->values;
}

/* What is as the template has it is no copy. */
static void check_copies(const struct machine *m)
{
	uint64_t copies[PAGES / 64];

	need(gn_frames_find_copies(m->guest.vm->frames, pfn(FIRST / GN_PAGE_SIZE), PAGES, copies));
	for (unsigned page = 0; page < PAGES; page++) {
		bool is_equal = true;

		for (unsigned w = 0; w < WORDS; w++)
			is_equal &= m->words[page][w] == template_word_of(page, w);
		if (is_equal && copies[page / 64] >> page % 64 & 1)
			fail("a copy of the template", m, page, 1, 0);
	}
}

static void check_end(unsigned d)
{
	if (world.config->over_template)
		check_copies(&world.machines[d]);
	else if (world.config->backing_level == 1) /* of blocks policy has its say */
		check_savings(d ? VMS - 1 : 0, d ? VMS : VMS - 1);
}

static void come_to_rest(void)
{
	world.is_still = true;
	for (unsigned v = 0; v < VMS; v++)
		need(gn_domain_hint(domain_of(&world.machines[v]), world.machines[v].guest.vm,
				    gfn(0), RAM / GN_PAGE_SIZE, GN_SHARE_NONE));
	for (unsigned d = 0; d < world.domain_count; d++) {
		bool done;

		for (unsigned round = 0; round < ROUNDS_TO_END; round++) {
			need(gn_domain_sweep(world.domains[d]));
			do
				need(gn_domain_scan(world.domains[d], 1000000, &done));
			while (!done);
		}
		check_end(d);
	}
	world.is_still = false;
}

/* ---- Worlds -------------------------------------------------------------------------------------------- */

static void machine_init(struct machine *m)
{
	struct gn_soft_config config = { .vm = { .scheme = world.config->scheme,
						 .mem_bytes = RAM,
						 .vcpus = 1,
						 .backing_level = world.config->backing_level,
						 .frames = world.frames } };

	if (world.config->over_template) {
		config.vm.pool = GN_POOL_TEMPLATE;
		config.vm.template_fd = world.template_fd;
	}
	for (unsigned i = 0; i < PAGES * WORDS; i++)
		m->words[i / WORDS][i % WORDS] =
			world.config->over_template ? template_word_of(i / WORDS, i % WORDS) : 0;
	memset(m->is_ballooned, 0, sizeof(m->is_ballooned));
	guest_create(&m->guest, &config, 4);
	for (unsigned page = 0; page < PAGES; page++)
		guest_map(&m->guest, BASE + place(page, 0).v, place(page, 0).v, 1, GUEST_RW);
	need(gn_soft_run(m->guest.cpu, boot, m));
}

static int make_template(void)
{
	int fd = template_empty(RAM);

	for (unsigned page = 0; page < PAGES; page++) {
		const uint64_t word = template_word_of(page, 0);

		if (pwrite(fd, &word, sizeof(word), (off_t)place(page, 0).v) != sizeof(word))
			need(-EIO);
	}
	return fcntl(fd, F_ADD_SEALS, TEMPLATE_SEALS) ? -1 : fd;
}

static void world_init(const struct config *config)
{
	world.config = config;
	world.frames = NULL;
	world.template_fd = -1;
	world.domain_count = config->over_template ? VMS : 2;
	if (config->over_template)
		world.template_fd = make_template();
	else
		need(gn_frames_new(2 * VMS * RAM + 32 * MIB, GN_POOL_ANONYMOUS,
				   config->backing_level > 1, &world.frames));
	for (unsigned v = 0; v < VMS; v++)
		machine_init(&world.machines[v]);
	for (unsigned d = 0; d < world.domain_count; d++) {
		struct gn_vm *vm = world.machines[d].guest.vm;
		const struct gn_domain_config domain = { .frames = gn_vm_frames(vm),
							 .key = "known",
							 .key_bytes = 5,
							 .tag_bits = config->tag_bits,
							 .quiet = config->quiet,
							 .max_pages = 1 << 16 };

		need(gn_domain_create(&domain, &world.domains[d]));
		world.domains[d]->step = come_in_between;
	}
	for (unsigned v = 0; v < VMS; v++)
		need(gn_domain_add(domain_of(&world.machines[v]), world.machines[v].guest.vm));
}

static void world_fini(void)
{
	for (unsigned d = 0; d < world.domain_count; d++)
		gn_domain_destroy(world.domains[d]);
	for (unsigned v = 0; v < VMS; v++)
		guest_destroy(&world.machines[v].guest);
	if (world.template_fd >= 0)
		close(world.template_fd);
	if (world.frames && gn_frames_used(world.frames))
		fail("frames leak", world.machines, 0, gn_frames_used(world.frames), 0);
	gn_frames_destroy(world.frames);
}

static void live(const struct config *config, uint64_t operations)
{
	struct gn_sharing_stats stats;

	world.operations = 0;
	world_init(config);
	for (uint64_t turn = 1; world.operations < operations && !world.failures; turn++) {
		act();
		if (turn % CHECK_PERIOD == 0) {
			audit();
			compare_all();
		}
	}
	come_to_rest();
	audit();
	gn_domain_stats(world.domains[0], &stats);
	compare_all();
	printf("%s: %" PRIu64 " operations, %" PRIu64 " merged, %" PRIu64 " of zeros, %" PRIu64
	       " differed, %" PRIu64 " stale, %" PRIu64 " split, %" PRIu64 " formed\n",
	       config->label, world.operations, stats.pages_merged, stats.zero_pages,
	       stats.pages_differed, stats.pages_stale, stats.blocks_split, stats.blocks_formed);
	if (!stats.pages_merged || (!stats.zero_pages && !config->over_template))
		fail("nothing was shared", world.machines, 0, stats.pages_merged, 1);
	world_fini();
}

int main(int argc, char **argv)
{
	struct test_run run = test_run_start(argc, argv, 0x5a1e, OPERATIONS);

	world.random = test_random_seed(run.seed);
	for (unsigned i = 0; i < CONFIGS; i++) {
		world.failures = 0;
		live(&configs[i], run.cases / CONFIGS);
		run.passed += !world.failures;
		run.failed += world.failures != 0;
	}
	return test_run_end(&run);
}
