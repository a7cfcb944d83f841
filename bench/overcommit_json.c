/* SPDX-License-Identifier: MIT */
/*
 * overcommit_json.c - results as JSON, schema gnomon.overcommit/1; docs/results.md is the reference.
 */
#include <math.h>

#include "emit_json.h"
#include "host_json.h"
#include "overcommit.h"

static void add_params(cJSON *to, const struct overcommit_setup *s)
{
	cJSON *json = cJSON_AddObjectToObject(to, "params");

	cJSON_AddNumberToObject(json, "vms", s->vms);
	cJSON_AddNumberToObject(json, "mem_bytes", (double)s->mem_bytes);
	cJSON_AddNumberToObject(json, "min_bytes", (double)s->min_bytes);
	cJSON_AddNumberToObject(json, "budget_bytes", (double)s->budget_bytes);
	cJSON_AddNumberToObject(json, "overcommit", s->overcommit);
	cJSON_AddNumberToObject(json, "phases_s", s->phases_s);
	cJSON_AddNumberToObject(json, "rest_s", s->rest_s);
	cJSON_AddNumberToObject(json, "seed", (double)s->seed);
	cJSON_AddNumberToObject(json, "tau", s->policy.tau);
	cJSON_AddNumberToObject(json, "grant_bytes", (double)OVERCOMMIT_GRANT_BYTES);
}

/* One column of a VM's samples. */
static void add_column(cJSON *to, const char *key, const struct overcommit_vm *vm, size_t offset)
{
	cJSON *column = cJSON_AddArrayToObject(to, key);

	for (size_t i = 0; i < vm->sample_count; i++) {
		float value = *(const float *)((const char *)&vm->samples[i] + offset);

		cJSON_AddItemToArray(column, cJSON_CreateNumber(round((double)value * 100) / 100));
	}
}

static void add_vm(cJSON *list, const struct overcommit_vm *vm,
		   const struct overcommit_demand *demand)
{
	cJSON *json = cJSON_CreateObject(), *timeline;

	cJSON_AddItemToArray(list, json);
	cJSON_AddNumberToObject(json, "low_bytes", (double)demand->low_bytes);
	cJSON_AddNumberToObject(json, "high_bytes", (double)demand->high_bytes);
	emit_json_number(json, "slowdown", vm->slowdown);
	cJSON_AddNumberToObject(json, "refaults", (double)vm->refaults);
	cJSON_AddNumberToObject(json, "oom_kills", vm->oom_kills);
	cJSON_AddNumberToObject(json, "turns_per_minute", vm->turns_per_minute);
	timeline = cJSON_AddObjectToObject(json, "timeline");
	add_column(timeline, "t_s", vm, offsetof(struct overcommit_sample, t_s));
	add_column(timeline, "target_mib", vm, offsetof(struct overcommit_sample, target_mib));
	add_column(timeline, "actual_mib", vm, offsetof(struct overcommit_sample, actual_mib));
	add_column(timeline, "working_set_mib", vm,
		   offsetof(struct overcommit_sample, working_mib));
	add_column(timeline, "refaults_per_s", vm,
		   offsetof(struct overcommit_sample, faults_per_s));
}

static void add_run(cJSON *list, const struct overcommit_results *r,
		    const struct overcommit_run *run)
{
	cJSON *json = cJSON_CreateObject(), *grants, *vms;
	double against = overcommit_against_oracle(r, run);

	cJSON_AddItemToArray(list, json);
	cJSON_AddStringToObject(json, "policy", run->policy);
	cJSON_AddStringToObject(json, "summary", run->summary);
	emit_json_number(json, "worst_slowdown", overcommit_worst_slowdown(r, run));
	if (against > 0)
		emit_json_number(json, "against_oracle", against);
	grants = cJSON_AddObjectToObject(json, "grants");
	cJSON_AddNumberToObject(grants, "asks", (double)run->asks);
	cJSON_AddNumberToObject(grants, "unmet", (double)run->asks_unmet);
	emit_json_number(grants, "p50_ms", overcommit_wait_ms(run, 0.5));
	emit_json_number(grants, "p99_ms", overcommit_wait_ms(run, 0.99));
	emit_json_number(grants, "max_ms", overcommit_wait_ms(run, 1));
	cJSON_AddNumberToObject(json, "oom_kills", overcommit_oom_kills(r, run));
	cJSON_AddNumberToObject(json, "reservations_broken", (double)run->reservations_broken);
	cJSON_AddNumberToObject(json, "over_budget", (double)run->over_budget);
	cJSON_AddNumberToObject(json, "turns_per_minute", overcommit_turns(r, run));
	cJSON_AddNumberToObject(json, "refaults", (double)overcommit_refaults(r, run));
	cJSON_AddNumberToObject(json, "rounds", (double)run->rounds);
	if (run->round_us_worst > 0)
		cJSON_AddNumberToObject(json, "round_us_worst", run->round_us_worst);
	vms = cJSON_AddArrayToObject(json, "vms");
	for (unsigned i = 0; i < r->setup.vms; i++)
		add_vm(vms, &run->vms[i], &r->setup.demand[i]);
}

int overcommit_write_json(const struct overcommit_results *r, const char *path)
{
	cJSON *json = cJSON_CreateObject(), *list;

	cJSON_AddStringToObject(json, "schema", OVERCOMMIT_SCHEMA);
	cJSON_AddStringToObject(json, "kind", "balloon");
	cJSON_AddStringToObject(json, "origin", r->is_measured ? "measured" : "modelled");
	cJSON_AddStringToObject(json, "label", overcommit_label(r));
	host_add_own_json(json);
	add_params(json, &r->setup);
	list = cJSON_AddArrayToObject(json, "runs");
	for (size_t i = 0; i < r->run_count; i++)
		add_run(list, r, &r->runs[i]);
	return emit_json(json, path);
}
