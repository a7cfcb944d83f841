/* SPDX-License-Identifier: MIT */
/*
 * audit_operations.c - the auditor after every step.
 *
 * Under each scheme a long random history: accesses in random modes, guest table stores (trapped, unsync, or from
 * outside), CR3 loads, mode changes, invalidations, every p2m change, dirty log and accessed harvests, switches to
 * other schemes and back, and allocations that fail; and once more as a deprivileged guest, whose changes of privilege are
 * operations too. After each operation the audit must be clean. Whether an access
 * is right is scheme_oracle.c's question; here the tables are.
 */
#include <errno.h>
#include <string.h>

#include <gnomon/schemes.h>

#include "mmu/vm.h"

#include "support/random_guest.h"

#define DEFAULT_OPERATIONS 100000 /* a scheme */
#define DATA_GFN	   64

struct rig {
	struct gn_soft *soft;
	struct gn_soft_cpu *cpu;
	struct gn_vm *vm;
	const char *home;
	struct test_random random;
	uint64_t operations, done, accesses, enomem, switches, refused;
	bool dirty_log, is_starved;
	char failure[512];
};

static gfn_t random_data_gfn(struct rig *rig)
{
	return gfn(DATA_GFN + test_random_below(&rig->random, RG_RAM_GFNS - DATA_GFN - 16));
}

static const struct gn_regs *regs(struct rig *rig)
{
	return gn_vcpu_regs(gn_vm_vcpu(rig->vm, 0));
}

static unsigned levels(struct rig *rig)
{
	return regs(rig)->cr4 & X86_CR4_LA57 ? 5 : 4;
}

/* A result of an operation that the engine may answer with @err. */
static void expect(struct rig *rig, const char *what, int err)
{
	if (err == -ENOMEM)
		rig->enomem++;
	else if (err == -EINVAL || err == -ECANCELED || err == -EOPNOTSUPP || err == -EBUSY ||
		 err == -EALREADY)
		rig->refused++;
	else if (err)
		snprintf(rig->failure, sizeof(rig->failure), "%s returned %d", what, err);
}

static void access_once(struct rig *rig)
{
	struct gn_soft_outcome outcome;
	struct gn_access a;
	uint64_t value;

	rg_random_access(&rig->random, levels(rig), &a);
	if (rig->vm->config.deprivileged) {
		a.implicit |= a.kind != GN_FETCH && test_random_once(&rig->random, 8);
		/* As the guest is, mostly, and when it must not need memory to change. */
		if (rig->is_starved || test_random_once(&rig->random, 2)) {
			a.user = gn_soft_is_user(rig->cpu);
			a.ac = gn_vm_vcpu(rig->vm, 0)->view == GN_VIEW_KERNEL_AC;
		}
	}
	if (a.kind == GN_WRITE) {
		/* Keep tables plausible: a store to a table page writes an entry. */
		struct gn_guest_walk walk;

		gn_rcu_read_lock();
		gn_guest_walk(rig->vm, &gn_vm_vcpu(rig->vm, 0)->paging, regs(rig)->cr3, &a, 0,
			      &walk);
		gn_rcu_read_unlock();
		if (walk.end == GN_GW_OK && gpa_to_gfn(walk.t.gpa).v < 32) {
			unsigned level = 1 + (unsigned)test_random_below(&rig->random, 5);

			a.va = gva((a.va.v & ~(uint64_t)(GN_PAGE_SIZE - 1)) +
				   rg_random_index(&rig->random) * 8);
			value = rg_random_entry(&rig->random, level);
			goto probe;
		}
	}
	value = test_random_next(&rig->random);
probe:
	rig->accesses++;
	expect(rig, "an access", gn_soft_probe(rig->cpu, &a, &value, &outcome));
}

static void patch_from_outside(struct rig *rig)
{
	unsigned level = 1 + (unsigned)test_random_below(&rig->random, 5);
	uint64_t entry = rg_random_entry(&rig->random, level);
	gpa_t at = gpa((rg_random_table(&rig->random, level) << GN_PAGE_SHIFT) +
		       rg_random_index(&rig->random) * 8);

	expect(rig, "gn_vm_write", gn_vm_write(rig->vm, at, &entry, sizeof(entry)));
}

static void load_cr3(struct rig *rig)
{
	uint64_t cr3 = rg_random_table(&rig->random, levels(rig)) << GN_PAGE_SHIFT;

	if (regs(rig)->cr4 & X86_CR4_PCIDE)
		cr3 |= test_random_below(&rig->random, 4) |
		       (test_random_once(&rig->random, 2) ? X86_CR3_NOFLUSH : 0);
	gn_soft_write_cr3(rig->cpu, cr3);
}

static void change_mode(struct rig *rig)
{
	struct gn_regs next;

	rg_random_mode(&rig->random, &next);
	if (rig->vm->config.deprivileged)
		next.cr4 &= ~(uint64_t)X86_CR4_PKE;
	rg_enter_mode(rig->cpu, regs(rig), &next, test_random_once(&rig->random, 2));
}

static void invalidate(struct rig *rig)
{
	gva_t va = gva(rg_random_address(&rig->random, levels(rig)));

	if (test_random_once(&rig->random, 2))
		gn_soft_invlpg(rig->cpu, va);
	else
		gn_soft_invpcid(rig->cpu,
				X86_INVPCID_SINGLE + (unsigned)test_random_below(&rig->random, 3),
				0, va);
}

/* Runs with gaps between them, some of them empty; taken, given back or dropped by one change. */
static int change_runs(struct rig *rig, gfn_t at)
{
	struct test_random *r = &rig->random;
	struct gn_gfn_run runs[6];
	size_t count = 1 + test_random_below(r, 6);

	for (size_t i = 0; i < count; i++) {
		runs[i] = (struct gn_gfn_run){ at, test_random_below(r, 8) };
		at.v += runs[i].count + test_random_below(r, 3);
	}
	switch (test_random_below(r, 4)) {
	case 0:
		return gn_p2m_balloon_runs(rig->vm, runs, count, NULL);
	case 1:
		return gn_p2m_discard_runs(rig->vm, runs, count, NULL);
	default:
		return gn_p2m_unballoon_runs(rig->vm, runs, count, NULL);
	}
}

/* What keeps a block from being one is seldom absent by itself. */
static int form_block(struct rig *rig)
{
	gfn_t start = gfn(test_random_below(&rig->random, RG_RAM_GFNS / 512) * 512);

	if (test_random_once(&rig->random, 2)) {
		for (uint64_t i = 0; i < 512; i++)
			if (gn_p2m_word_state(gn_p2m_get(&rig->vm->p2m, gfn(start.v + i))) ==
			    GN_P2M_BALLOONED)
				gn_p2m_unballoon(rig->vm, gfn(start.v + i), 1);
		gn_p2m_protect(rig->vm, start, 512, true); /* unshares */
		gn_p2m_protect(rig->vm, start, 512, false);
	}
	return gn_p2m_collapse(rig->vm, start);
}

/* Pages all over, guest tables too, take the frame of one if they are alike (most are all zeros). */
static int share_pages(struct rig *rig)
{
	struct test_random *r = &rig->random;
	enum gn_share_access access = test_random_once(r, 2) ? GN_SHARE_SEALED : GN_SHARE_READ;
	struct gn_merge model = { .at = gfn(test_random_below(r, RG_RAM_GFNS)) }, pages[8];
	const uint64_t step = RG_RAM_GFNS / 8;
	int err = gn_p2m_publish(rig->vm, &model, 1, access);

	if (err || model.result)
		return err;
	for (unsigned i = 0; i < 8; i++)
		pages[i] = (struct gn_merge){ .at = gfn(i * step + test_random_below(r, step)),
					      .frame = model.frame };
	err = gn_p2m_merge(rig->vm, pages, 8, access, NULL);
	gn_frames_put(rig->vm->frames, model.frame);
	return err;
}

static void change_p2m(struct rig *rig)
{
	struct test_random *r = &rig->random;
	gfn_t at = random_data_gfn(rig);
	uint64_t count = 1 + test_random_below(r, 8), zeroes;
	int err = 0;

	switch (test_random_below(r, 13)) {
	case 0:
		err = gn_p2m_populate(rig->vm, at, count);
		break;
	case 1:
		err = gn_p2m_discard(rig->vm, at, count);
		break;
	case 2:
		err = gn_p2m_balloon(rig->vm, at, count);
		break;
	case 3:
		err = gn_p2m_unballoon(rig->vm, at, count);
		break;
	case 4:
		err = gn_p2m_protect(rig->vm, at, count, true);
		break;
	case 5:
		err = gn_p2m_protect(rig->vm, at, count, false);
		break;
	case 6:
		err = gn_p2m_move(rig->vm, at, count);
		break;
	case 7:
		err = gn_p2m_share(rig->vm, at, random_data_gfn(rig));
		break;
	case 8:
		err = change_runs(rig, at);
		break;
	case 9: /* guest tables, too */
		err = gn_p2m_discard_zeroes(rig->vm, gfn(0), RG_RAM_GFNS, NULL, &zeroes);
		break;
	case 10:
		err = form_block(rig);
		break;
	case 11:
		err = share_pages(rig);
		break;
	default: /* a guest table moves to another frame */
		err = gn_p2m_move(rig->vm, gfn(RG_FIRST_TABLE + test_random_below(r, RG_TABLES)),
				  1);
		break;
	}
	expect(rig, "a p2m change", err);
}

static void use_logs(struct rig *rig)
{
	static uint8_t bitmap[RG_RAM_GFNS / 8];
	int err = 0;

	switch (test_random_below(&rig->random, 4)) {
	case 0:
		if (!rig->dirty_log) {
			err = gn_dirty_start(rig->vm);
			rig->dirty_log = !err;
		} else if (test_random_once(&rig->random, 4)) {
			gn_dirty_stop(rig->vm);
			rig->dirty_log = false;
		}
		break;
	case 1:
	case 2:
		if (rig->dirty_log)
			err = gn_dirty_harvest(rig->vm, gfn(0), RG_RAM_GFNS, bitmap);
		break;
	default:
		err = gn_accessed_harvest(rig->vm, gfn(0), RG_RAM_GFNS, bitmap);
		break;
	}
	expect(rig, "a dirty or accessed log", err);
}

static void switch_scheme(struct rig *rig)
{
	const struct gn_scheme_ops *ops;
	unsigned count = 0;

	if (strcmp(gn_vm_scheme(rig->vm), rig->home) != 0) {
		expect(rig, "switching back", gn_vm_switch_scheme(rig->vm, rig->home));
		return;
	}
	while (gn_scheme_at(count))
		count++;
	ops = gn_scheme_at((unsigned)test_random_below(&rig->random, count));
	expect(rig, "a scheme switch", gn_vm_switch_scheme(rig->vm, gn_scheme_name(ops)));
	rig->switches++;
}

static void change_privilege(struct rig *rig, bool must_be_kernel)
{
	unsigned privilege = (unsigned)test_random_below(&rig->random, must_be_kernel ? 2 : 4);

	gn_soft_enter_kernel(rig->cpu);
	if (privilege == 1)
		gn_soft_set_ac(rig->cpu, true);
	else if (privilege > 1)
		gn_soft_enter_user(rig->cpu);
}

static void operate(struct rig *rig)
{
	struct test_random *r = &rig->random;
	bool away = strcmp(gn_vm_scheme(rig->vm), rig->home) != 0;
	unsigned operation = (unsigned)test_random_below(r, 16);
	/* A guest whose privileged instruction finds no memory is stopped; the rest goes on. */
	bool starve = operation > 2 && test_random_once(r, 64);

	if (rig->vm->config.deprivileged && (operation <= 2 || test_random_once(r, 3)))
		change_privilege(rig, operation <= 2);
	rig->is_starved = starve;
	if (starve)
		gn_alloc_fail_nth(1 + test_random_below(r, 3));
	switch (operation) {
	case 0:
		load_cr3(rig);
		break;
	case 1:
		invalidate(rig);
		break;
	case 2:
		if (test_random_once(r, 16))
			change_mode(rig);
		break;
	case 3:
		patch_from_outside(rig);
		break;
	case 4:
		change_p2m(rig);
		break;
	case 5:
		if (test_random_once(r, 4))
			use_logs(rig);
		break;
	case 6:
		if (test_random_once(r, away ? 4 : 24))
			switch_scheme(rig);
		break;
	default:
		access_once(rig);
		break;
	}
	if (starve)
		gn_alloc_fail_nth(0);
}

static void guest(struct gn_soft_cpu *cpu, void *ctx)
{
	struct rig *rig = ctx;
	struct gn_audit_report report;

	rig->cpu = cpu;
	change_mode(rig);
	while (rig->done < rig->operations && !rig->failure[0]) {
		operate(rig);
		if (gn_audit(rig->vm, &report))
			snprintf(rig->failure, sizeof(rig->failure),
				 "operation %" PRIu64 " under %s: %s", rig->done,
				 gn_vm_scheme(rig->vm), report.first);
		rig->done += strcmp(gn_vm_scheme(rig->vm), rig->home) == 0;
	}
	gn_dirty_stop(rig->vm);
}

static void run_scheme(struct test_run *run, const char *scheme, bool deprivileged)
{
	struct gn_soft_config config = { .vm = { .scheme = scheme,
						 .mem_bytes = RG_RAM_BYTES,
						 .vcpus = 1,
						 .guest_phys_bits = RG_PHYS_BITS,
						 .backing_level = 2,
						 .scheme_table_limit_bytes = 64 << GN_PAGE_SHIFT },
					 .seed = run->seed };
	struct rig rig = { .random = test_random_seed(run->seed),
			   .home = scheme,
			   .operations = run->cases };
	hpa_t reserved = { 0 };
	int err;

	err = deprivileged ? rg_deprivileged(&config, &rig.soft, &reserved)
			   : gn_soft_create(&config, &rig.soft);
	if (err)
		abort();
	rig.vm = gn_soft_vm(rig.soft);
	for (unsigned i = 0; i < 400; i++)
		patch_from_outside(&rig);
	err = gn_soft_run(gn_soft_cpu(rig.soft, 0), guest, &rig);
	if (err)
		snprintf(rig.failure, sizeof(rig.failure), "the guest was stopped: %s",
			 gn_soft_stop_reason(gn_soft_cpu(rig.soft, 0)));
	printf("%s%s: %" PRIu64 " operations audited, %" PRIu64 " accesses, %" PRIu64
	       " switches, %" PRIu64 " without memory, %" PRIu64 " refused%s%s\n",
	       scheme, deprivileged ? ", deprivileged" : "", rig.done, rig.accesses, rig.switches,
	       rig.enomem, rig.refused, rig.failure[0] ? ": " : "", rig.failure);
	if (rig.failure[0] || rig.done < rig.operations)
		run->failed++;
	else
		run->passed++;
	if (deprivileged)
		gn_vm_pool_free(rig.vm, reserved);
	gn_soft_destroy(rig.soft);
}

int main(int argc, char **argv)
{
	struct test_run run = test_run_start(argc, argv, 0x617564697421, DEFAULT_OPERATIONS);
	const struct gn_scheme_ops *ops;

	if (gn_schemes_register_all())
		abort();
	for (unsigned s = 0; (ops = gn_scheme_at(s)); s++) {
		if (argc > 3 && strcmp(argv[3], gn_scheme_name(ops)) != 0)
			continue;
		run_scheme(&run, gn_scheme_name(ops), false);
		if (strncmp(gn_scheme_name(ops), "shadow", 6) == 0)
			run_scheme(&run, gn_scheme_name(ops), true);
	}
	return test_run_end(&run);
}
