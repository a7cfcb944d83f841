/* SPDX-License-Identifier: MIT */
/*
 * policy_esx.c - shares, an idle memory tax, and memory at once for who is short of it.
 *
 * The long-run division is ESX Server's (Waldspurger, "Memory Resource Management in VMware ESX Server",
 * OSDI'02, section 5): shares say what a VM may have, the tax says what it loses of what it does not use
 * (policy_fill.c has the formula), min is a reservation. On top of it stand three things the paper leaves to
 * the hypervisor's own paging, which we do not have: a guest that runs out of memory here dies or thrashes.
 *
 *   Entitlement. What a trusted guest says it cannot free, up to its division by shares alone, is not taxed.
 *	It takes nothing that is not its own, and spares idle guests that hold anonymous memory.
 *   Evidence of need. Sampling cannot see a working set larger than the memory it runs in. A guest that asks,
 *	or fetches again what it had evicted (refaults), shows it. Evidence raises a floor under the VM's
 *	memory: an ask to what was asked, refaults by what would hold the refaults of two seconds. Floors are
 *	filled out of what others leave idle, lowest ratio first, never out of what others use; when all have
 *	floors and these do not fit, shares divide. What others use is here the fast average: memory that has been
 *	idle for seconds waits for its owner's return only as long as nobody is in need. Who proves a need now
 *	goes before who proved one earlier; but what a VM was granted in the last seconds it keeps, for
 *	sampling cannot have seen it used. A floor that is no longer proved halves its distance to the sampled
 *	working set every 20 s.
 *   A reserve. As ESX keeps 6 % free ("high"), so do we, out of idle memory only, so that a spike's first
 *	megabytes are there; when working sets fill the budget there is none.
 *
 * Claims that sampling does not bear out prove nothing: such a VM is divided by formula.
 *
 * Pace. What somebody lacks is taken and given at once. Otherwise memory moves slowly (a wrong estimate
 * costs refaults), changes below the dead band do not happen, and a VM turns round at most once in
 * reversal_ns: twice a minute by default.
 *
 * The host's pressure (PSI) shrinks what is divided, faster the worse it stalls; it returns when the stalls
 * are gone. The thresholds are ours: PSI counts wall time stalled, and VMs' work that waits on memory a tenth
 * of the time is the harm that ballooning was to prevent.
 *
 * A late VM is counted at what it has, so others are divided what is really there, while its own target stays.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "policy_impl.h"

#define SECOND_NS	  1e9
#define ALL_ACTIVE	  (31.0 / 32)
#define UNSEEN_PART	  (1.0 / 8)
#define ERROR_PART	  (1.0 / 16) /* of an estimate, given the benefit of the doubt */
#define UNTOLD_PART	  (1.0 / 64) /* of memory: a change of what is free that agents do not tell */
#define FLOOR_HALVING_S	  20.0
#define REFAULT_HORIZON_S 2.0
#define RAISE_NS	  UINT64_C(1000000000) /* refaults are a rate: one raise a second */
#define FRESH_NS	  UINT64_C(3000000000)
#define PSI_SOME_BAD	  0.10
#define PSI_SOME_GOOD	  0.05
#define PSI_FULL_BAD	  0.02
#define SQUEEZE_PER_S	  0.02 /* of the budget, at the threshold */
#define SQUEEZE_MOST	  0.25
#define SQUEEZE_HALVING_S 30.0

struct esx_entry {
	struct gn_policy_entry entry;
	double proof_bytes;  /* need that is being shown; 0: none */
	double floor_bytes;  /* need that was shown, fading; 0: none */
	uint64_t raised_ns;  /* last raise by refaults */
	uint64_t told_bytes; /* the VM's target when last seen */
	uint64_t turned_ns, moved_ns;
	int direction; /* of the last move: -1, +1, or 0 for none yet */
	bool has_turned, has_raised, is_known;
};

struct esx {
	struct gn_policy policy;
	struct gn_policy_config config;
	double k;	/* price of an idle page in active pages: 1 / (1 - tau) */
	double squeeze; /* part of the budget withheld for the host's sake */
	struct gn_policy_claim *claims;
	size_t claim_capacity;
};

/* One round's view, so that the steps below need not be told it again. */
struct esx_round {
	struct esx *esx;
	uint64_t now_ns;
	double elapsed_s;
	const struct gn_policy_host *host;
	const struct gn_policy_vm *vms;
	size_t count;
	struct gn_policy_decision *decisions;
	double total;	/* to divide */
	bool has_proof; /* somebody shows a need right now that the formula does not meet */
};

static struct esx_entry *entry_of(const struct esx_round *r, size_t index)
{
	return gn_policy_entry_at(&r->esx->policy, index);
}

static double clamped(double value, double least, double most)
{
	return value < least ? least : value > most ? most : value;
}

static double halved(double value, double elapsed_s, double halving_s)
{
	return value * exp2(-elapsed_s / halving_s);
}

/*
 * What sampling says of a VM, within what it has. Memory that a trusted guest says is free was used by something that
 * has ended; the averages only do not know it yet.
 */
static double sampled(const struct gn_policy_vm *vm, uint64_t average_bytes)
{
	uint64_t bytes = average_bytes < vm->actual_bytes ? average_bytes : vm->actual_bytes;

	if (vm->claims_trusted && vm->guest_free_bytes <= vm->actual_bytes &&
	    bytes > vm->actual_bytes - vm->guest_free_bytes)
		bytes = vm->actual_bytes - vm->guest_free_bytes;
	return (double)bytes;
}

/* What this VM uses in the long run. */
static double active_of(const struct gn_policy_vm *vm)
{
	return sampled(vm, vm->active_bytes);
}

/* What it uses right now: what is left to it when another is in need. */
static double recent_of(const struct gn_policy_vm *vm)
{
	if (vm->recent_bytes == GN_POLICY_UNKNOWN || vm->recent_bytes > vm->active_bytes)
		return active_of(vm);
	return sampled(vm, vm->recent_bytes);
}

/*
 * What it may be using right now, sampling's error considered. What is free is no estimate: of that the doubt is only
 * how much the guest took since it told.
 */
static double recent_at_most(const struct gn_policy_vm *vm)
{
	double uses = recent_of(vm) * (1 + ERROR_PART);

	if (!vm->claims_trusted || vm->guest_free_bytes > vm->actual_bytes)
		return uses;
	return fmin(uses, (double)(vm->actual_bytes - vm->guest_free_bytes) +
				  (double)vm->mem_bytes * UNTOLD_PART);
}

/* And what it would use: of a VM that uses all it has (f = 1) one cannot see how much more it would use. */
static double demand_of(const struct gn_policy_vm *vm)
{
	double active = active_of(vm);

	return active >= (double)vm->actual_bytes * ALL_ACTIVE ? active * (1 + UNSEEN_PART)
							       : active;
}

static bool is_refaulting(const struct esx_round *r, const struct gn_policy_vm *vm)
{
	return vm->claims_trusted && gn_policy_is_refaulting(vm, r->esx->config.refaults_per_s);
}

static bool is_asking(const struct gn_policy_vm *vm)
{
	return vm->claims_trusted && vm->asks_bytes;
}

static bool is_proving(const struct esx_round *r, const struct gn_policy_vm *vm)
{
	return is_asking(vm) || is_refaulting(r, vm);
}

/* What came of the last round's wish: a wish that was not granted, or a target that was lost, is no move. */
static void see_move(const struct esx_round *r, size_t index)
{
	struct esx_entry *entry = entry_of(r, index);
	uint64_t told = gn_policy_base(&r->vms[index]);
	int direction = (told > entry->told_bytes) - (told < entry->told_bytes);

	if (!entry->is_known) {
		entry->moved_ns = r->now_ns;
		entry->is_known = true;
	} else if (direction) {
		entry->moved_ns = r->esx->policy.last_ns;
		if (direction == -entry->direction) {
			entry->turned_ns = entry->moved_ns;
			entry->has_turned = true;
		}
		entry->direction = direction;
	}
	entry->told_bytes = told;
}

/* Step 1: what each VM has shown to need. */
static void weigh_evidence(const struct esx_round *r, size_t index)
{
	const struct gn_policy_vm *vm = &r->vms[index];
	struct esx_entry *entry = entry_of(r, index);
	double mem = (double)vm->mem_bytes, active = active_of(vm), proved = 0;

	if (is_asking(vm))
		proved = (double)vm->actual_bytes + (double)vm->asks_bytes;
	if (is_refaulting(r, vm) &&
	    (!entry->has_raised || r->now_ns - entry->raised_ns >= RAISE_NS)) {
		double step = vm->refaults_per_s * GN_POLICY_PAGE_BYTES * REFAULT_HORIZON_S;

		proved = fmax(proved, (double)vm->actual_bytes + clamped(step, mem / 32, mem / 4));
		entry->raised_ns = r->now_ns;
		entry->has_raised = true;
	}
	if (proved > 0)
		entry->proof_bytes = fmin(proved, (double)vm->max_bytes);
	else if (!is_proving(r, vm))
		entry->proof_bytes = 0;
	if (!vm->claims_trusted || entry->floor_bytes <= active * 1.01)
		entry->floor_bytes = 0;
	else
		entry->floor_bytes =
			active + halved(entry->floor_bytes - active, r->elapsed_s, FLOOR_HALVING_S);
	entry->floor_bytes = fmax(entry->floor_bytes, entry->proof_bytes);
}

/* Step 2: what the host leaves us. */
static void weigh_host(struct esx_round *r)
{
	const struct gn_policy_host *host = r->host;
	struct esx *esx = r->esx;
	double bad = fmax(host->psi_some / PSI_SOME_BAD, host->psi_full / PSI_FULL_BAD);

	if (bad >= 1)
		esx->squeeze =
			fmin(esx->squeeze + SQUEEZE_PER_S * bad * r->elapsed_s, SQUEEZE_MOST);
	else if (host->psi_some <= PSI_SOME_GOOD)
		esx->squeeze = halved(esx->squeeze, r->elapsed_s, SQUEEZE_HALVING_S);
	if (esx->squeeze < 0.001)
		esx->squeeze = 0;
	r->total = (double)host->budget_bytes * (1 - esx->squeeze);
}

/* What the tax spares: the reservation, and of its division by shares what the guest cannot free. */
static void set_least(const struct esx_round *r)
{
	struct gn_policy_claim *claims = r->esx->claims;

	for (size_t i = 0; i < r->count; i++) {
		const struct gn_policy_vm *vm = &r->vms[i];

		claims[i] = (struct gn_policy_claim){ .shares = vm->shares,
						      .active = demand_of(vm),
						      .least = (double)vm->min_bytes,
						      .most = (double)vm->max_bytes };
		if (vm->is_late)
			claims[i].least = claims[i].most = (double)vm->actual_bytes;
	}
	gn_policy_fill(claims, r->count, 1, r->total);
	for (size_t i = 0; i < r->count; i++) {
		const struct gn_policy_vm *vm = &r->vms[i];

		if (vm->is_late || !vm->claims_trusted ||
		    vm->guest_available_bytes >= vm->actual_bytes)
			continue;
		claims[i].least = fmax(claims[i].least,
				       fmin((double)(vm->actual_bytes - vm->guest_available_bytes),
					    claims[i].gets));
	}
}

/* The reserve comes out of what nobody uses. */
static double keep_reserve(const struct esx_round *r)
{
	const struct gn_policy_claim *claims = r->esx->claims;
	double needs = 0;

	for (size_t i = 0; i < r->count; i++)
		needs += clamped(fmax(recent_of(&r->vms[i]), entry_of(r, i)->floor_bytes),
				 claims[i].least, claims[i].most);
	return r->total - clamped(r->total - needs, 0,
				  r->esx->config.reserve_fraction * (double)r->host->budget_bytes);
}

static double need_of(const struct esx_round *r, size_t index)
{
	return r->has_proof ? entry_of(r, index)->proof_bytes : entry_of(r, index)->floor_bytes;
}

/* In need: the formula gives less than was shown to be needed. */
static bool is_needy(const struct esx_round *r, size_t index)
{
	return !r->vms[index].is_late && need_of(r, index) > r->esx->claims[index].gets;
}

/* It was given memory so lately that sampling cannot have seen it used. */
static bool is_fresh(const struct esx_round *r, size_t index)
{
	const struct esx_entry *entry = entry_of(r, index);

	return entry->direction > 0 && r->now_ns - entry->moved_ns < FRESH_NS;
}

/*
 * What one that is not in need keeps: what it uses now, or was given so lately that it had no time to use it; of
 * what the formula gives it or of a need shown earlier.
 */
static double kept_by(const struct esx_round *r, size_t index, bool honours_floors)
{
	const struct gn_policy_claim *claim = &r->esx->claims[index];
	const struct esx_entry *entry = entry_of(r, index);
	double uses = recent_at_most(&r->vms[index]), may = claim->gets;

	if (is_fresh(r, index))
		uses = fmax(uses, entry->floor_bytes);
	if (honours_floors)
		may = fmax(may, entry->floor_bytes);
	return clamped(fmin(uses, may), claim->least, claim->most);
}

static double all_kept(const struct esx_round *r, bool honours_floors)
{
	double sum = 0;

	for (size_t i = 0; i < r->count; i++)
		sum += is_needy(r, i) ? 0 : kept_by(r, i, honours_floors);
	return sum;
}

/* A grant is under way: it is not taken back for the sake of another's need. */
static bool is_being_granted(const struct esx_round *r, size_t index)
{
	return is_needy(r, index) && is_asking(&r->vms[index]) && is_fresh(r, index);
}

/*
 * What a VM has at least where needs do not fit: what it keeps, or if it is in need what the formula gives it. While
 * grants are honoured nobody gains at their expense, and nobody loses by them what is less than that.
 */
static double least_of(const struct esx_round *r, size_t index, bool honours_floors,
		       bool honours_grants)
{
	const struct gn_policy_claim *claim = &r->esx->claims[index];
	double has = (double)gn_policy_base(&r->vms[index]);
	double least = is_needy(r, index) ? claim->gets : kept_by(r, index, honours_floors);

	if (!honours_grants)
		return least;
	if (is_being_granted(r, index))
		return fmax(least, fmin(has, need_of(r, index)));
	return fmax(fmin(least, has), claim->least);
}

static bool can_honour_grants(const struct esx_round *r, double total, bool honours_floors)
{
	double sum = 0;
	bool any = false;

	for (size_t i = 0; i < r->count; i++) {
		sum += least_of(r, i, honours_floors, true);
		any |= is_being_granted(r, i);
	}
	return any && sum <= total;
}

/*
 * Step 3b: floors above the formula's division are filled out of what others leave idle. Who proves a need
 * now goes before who proved it earlier; both have at least what the formula gives them. A need that is shown is no
 * idle memory: where needs do not fit they are not taxed.
 */
static void fill_floors(struct esx_round *r, double total)
{
	struct gn_policy_claim *claims = r->esx->claims;
	double floors = 0, entitled = 0;
	bool honours_floors, honours_grants, fits;

	r->has_proof = false;
	for (size_t i = 0; i < r->count; i++)
		r->has_proof |= !r->vms[i].is_late && entry_of(r, i)->proof_bytes > claims[i].gets;
	for (size_t i = 0; i < r->count; i++) {
		floors += is_needy(r, i) ? need_of(r, i) : 0;
		entitled += is_needy(r, i) ? claims[i].gets : 0;
	}
	if (!(floors > 0))
		return;
	honours_floors = all_kept(r, true) + entitled <= total;
	fits = all_kept(r, honours_floors) + floors <= total;
	honours_grants = can_honour_grants(r, total, honours_floors);
	for (size_t i = 0; i < r->count; i++) {
		struct gn_policy_claim *claim = &claims[i];

		if (is_needy(r, i)) {
			claim->least = fits ? need_of(r, i)
					    : least_of(r, i, honours_floors, honours_grants);
			claim->most = need_of(r, i);
			claim->active = fmax(claim->active, claim->most);
		} else {
			claim->least = least_of(r, i, honours_floors, !fits && honours_grants);
			claim->most = fits ? fmax(claim->gets, claim->least) : claim->least;
		}
	}
	gn_policy_fill(claims, r->count, r->esx->k, total);
}

/* Step 3: the division. */
static void divide(struct esx_round *r)
{
	struct gn_policy_claim *claims = r->esx->claims;
	double total;

	set_least(r);
	total = keep_reserve(r);
	gn_policy_fill(claims, r->count, r->esx->k, total);
	fill_floors(r, total);
	for (size_t i = 0; i < r->count; i++) {
		const struct gn_policy_vm *vm = &r->vms[i];
		uint64_t wish = (uint64_t)claims[i].gets;

		if (vm->is_late)
			wish = vm->target_bytes == GN_POLICY_UNKNOWN ? vm->min_bytes
								     : vm->target_bytes;
		r->decisions[i].wish_bytes = wish;
	}
}

/* Why a VM that is to shrink may not be spared for now; GN_POLICY_SHARE: nobody presses. */
static enum gn_policy_reason find_pressure(const struct esx_round *r)
{
	double charges = 0, lacks = 0;

	for (size_t i = 0; i < r->count; i++) {
		const struct gn_policy_vm *vm = &r->vms[i];
		double charge = (double)gn_policy_charge(vm),
		       wish = (double)r->decisions[i].wish_bytes;

		charges += charge;
		if (is_proving(r, vm))
			lacks += fmax(wish - charge, 0);
		else
			lacks += fmax((double)vm->min_bytes - charge, 0);
	}
	if (charges > (double)r->host->budget_bytes)
		return GN_POLICY_OVER_BUDGET;
	if (charges > r->total)
		return GN_POLICY_HOST_PRESSURE;
	if (lacks > (double)gn_policy_pool(r->host, r->vms, r->count))
		return GN_POLICY_FOR_OTHERS;
	return GN_POLICY_SHARE;
}

/* Step 4: from the division to a move. */
static void pace(const struct esx_round *r, size_t index, enum gn_policy_reason pressure)
{
	const struct gn_policy_config *config = &r->esx->config;
	const struct gn_policy_vm *vm = &r->vms[index];
	struct gn_policy_decision *decision = &r->decisions[index];
	const struct esx_entry *entry = entry_of(r, index);
	double base = (double)gn_policy_base(vm);
	double mem = (double)vm->mem_bytes, delta = (double)decision->wish_bytes - base;
	double band = config->dead_band_fraction * mem;
	int direction = delta < 0 ? -1 : 1;

	decision->wished_now_bytes = (uint64_t)base;
	decision->reason = direction < 0 ? pressure : GN_POLICY_SHARE;
	if (direction > 0 && is_proving(r, vm))
		decision->reason = is_asking(vm) ? GN_POLICY_ASKED : GN_POLICY_REFAULTS;
	if (direction < 0 && decision->reason == GN_POLICY_SHARE) {
		double since_s =
			entry->is_known ? (double)(r->now_ns - entry->moved_ns) / SECOND_NS : 1;

		delta = fmax(delta, -config->calm_shrink_per_s * mem * fmin(since_s, 10));
	}
	if (decision->reason != GN_POLICY_SHARE)
		band = GN_POLICY_PAGE_BYTES;
	if (fabs(delta) < band) {
		decision->reason = GN_POLICY_STEADY;
		return;
	}
	if (decision->reason == GN_POLICY_SHARE && direction == -entry->direction &&
	    entry->has_turned && r->now_ns - entry->turned_ns <= config->reversal_ns) {
		decision->reason = GN_POLICY_HELD;
		return;
	}
	decision->wished_now_bytes = (uint64_t)(base + delta);
}

static int reserve_claims(struct esx *esx, size_t count)
{
	struct gn_policy_claim *more;

	if (count <= esx->claim_capacity)
		return 0;
	more = realloc(esx->claims, count * sizeof(*more));
	if (!more)
		return -ENOMEM;
	esx->claims = more;
	esx->claim_capacity = count;
	return 0;
}

static int esx_round(struct gn_policy *policy, uint64_t now_ns, const struct gn_policy_host *host,
		     const struct gn_policy_vm *vms, size_t count,
		     struct gn_policy_decision *decisions)
{
	struct esx *esx = (struct esx *)policy;
	struct esx_round r = { .esx = esx,
			       .now_ns = now_ns,
			       .host = host,
			       .vms = vms,
			       .count = count,
			       .decisions = decisions };
	enum gn_policy_reason pressure;

	if (reserve_claims(esx, count))
		return -ENOMEM;
	if (policy->last_ns)
		r.elapsed_s = fmin((double)(now_ns - policy->last_ns) / SECOND_NS, 10);
	for (size_t i = 0; i < count; i++) {
		see_move(&r, i);
		weigh_evidence(&r, i);
	}
	weigh_host(&r);
	divide(&r);
	pressure = find_pressure(&r);
	for (size_t i = 0; i < count; i++)
		pace(&r, i, pressure);
	return 0;
}

static int esx_create(const struct gn_policy_config *config, struct gn_policy **out)
{
	struct esx *esx = calloc(1, sizeof(*esx));

	if (!esx)
		return -ENOMEM;
	gn_policy_init(&esx->policy, &gn_policy_esx, sizeof(struct esx_entry));
	esx->config = *config;
	esx->k = 1 / (1 - config->tau);
	*out = &esx->policy;
	return 0;
}

static void esx_destroy(struct gn_policy *policy)
{
	struct esx *esx = (struct esx *)policy;

	gn_policy_fini(policy);
	free(esx->claims);
	free(esx);
}

const struct gn_policy_ops gn_policy_esx = {
	.name = "esx",
	.summary = "shares, idle memory tax, memory at once for who is short of it",
	.create = esx_create,
	.destroy = esx_destroy,
	.round = esx_round,
};
