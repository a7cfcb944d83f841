/* SPDX-License-Identifier: MIT */
/*
 * sharing_json.c - results as JSON, schema gnomon.sharing/1; docs/results.md is the reference.
 */
#include <math.h>

#include "emit_json.h"
#include "host_json.h"
#include "sharing.h"

static void add_params(cJSON *to, const struct sharing_setup *s)
{
	cJSON *json = cJSON_AddObjectToObject(to, "params");

	cJSON_AddNumberToObject(json, "mem_bytes", (double)s->mem_bytes);
	cJSON_AddNumberToObject(json, "repeat", s->repeat);
	cJSON_AddNumberToObject(json, "seed", (double)s->seed);
	cJSON_AddBoolToObject(json, "quick", s->quick);
}

/* Columns, thinned to about 200 points. */
static void add_points(cJSON *to, const struct sharing_run *run)
{
	cJSON *json = cJSON_AddObjectToObject(to, "timeline"),
	      *t_s = cJSON_AddArrayToObject(json, "t_s"),
	      *cpu_s = cJSON_AddArrayToObject(json, "cpu_s"),
	      *saved = cJSON_AddArrayToObject(json, "saved_mib");
	size_t step = run->point_count / 200 + 1;

	for (size_t i = 0; i < run->point_count; i++) {
		const struct sharing_point *p = &run->points[i];

		if (i % step && i + 1 < run->point_count)
			continue;
		cJSON_AddItemToArray(t_s, cJSON_CreateNumber(round((double)p->t_s * 1e4) / 1e4));
		cJSON_AddItemToArray(cpu_s,
				     cJSON_CreateNumber(round((double)p->cpu_s * 1e4) / 1e4));
		cJSON_AddItemToArray(saved,
				     cJSON_CreateNumber(round((double)p->saved_mib * 100) / 100));
	}
}

static void add_run(cJSON *list, const struct sharing_case_result *c, enum sharing_side side,
		    const struct sharing_run *run)
{
	cJSON *json = cJSON_CreateObject();

	cJSON_AddItemToArray(list, json);
	cJSON_AddStringToObject(json, "side", sharing_side_name(side));
	if (sharing_side_scheme(side))
		cJSON_AddStringToObject(json, "scheme", sharing_side_scheme(side));
	if (sharing_side_backend(side))
		cJSON_AddStringToObject(json, "backend", sharing_side_backend(side));
	emit_json_number(json, "cpu_s_per_gib", sharing_cpu_per_gib(c, run));
	emit_json_number(json, "time_s", sharing_wall(c, run));
	emit_json_number(json, "first_pass_part", sharing_first_part(c, run));
	emit_json_number(json, "part", sharing_last_part(c, run));
	cJSON_AddNumberToObject(json, "saved_pages", (double)run->saved_pages);
	emit_json_number(json, "first_pass_cpu_s", run->first_pass_cpu_s);
	if (sharing_side_scheme(side))
		emit_json_number(json, "next_pass_cpu_s", run->next_pass_cpu_s);
	if (run->possible_pages)
		cJSON_AddNumberToObject(json, "possible_pages", (double)run->possible_pages);
	if (side == SHARING_KVM || side == SHARING_TEMPLATE) {
		cJSON_AddNumberToObject(json, "walked_pages", (double)run->walked_pages);
		cJSON_AddNumberToObject(json, "walk_s", run->walk_s);
		emit_json_number(json, "walk_part", sharing_walk_part(c, run));
		cJSON_AddNumberToObject(json, "mappings", (double)run->mappings);
		cJSON_AddNumberToObject(json, "broken_pages", (double)run->broken_pages);
	}
	if (side == SHARING_KVM) {
		cJSON_AddNumberToObject(json, "pass_faults", (double)run->pass_faults);
		cJSON_AddNumberToObject(json, "walk_faults", (double)run->walk_faults);
	}
	add_points(json, run);
}

static void add_case(cJSON *list, const struct sharing_results *r,
		     const struct sharing_case_result *c)
{
	cJSON *json = cJSON_CreateObject(), *runs;

	cJSON_AddItemToArray(list, json);
	cJSON_AddStringToObject(json, "name", c->of->name);
	cJSON_AddStringToObject(json, "what", c->of->what);
	cJSON_AddNumberToObject(json, "vms", c->of->vms);
	cJSON_AddNumberToObject(json, "total_pages", (double)c->oracle.total_pages);
	cJSON_AddNumberToObject(json, "zero_pages", (double)c->oracle.zero_pages);
	cJSON_AddNumberToObject(json, "oracle_saved_pages", (double)c->oracle.saved_pages);
	runs = cJSON_AddArrayToObject(json, "runs");
	for (unsigned n = 0; n < r->setup.repeat; n++)
		for (unsigned side = 0; side < SHARING_SIDES; side++)
			if (c->runs[side][n].is_there)
				add_run(runs, c, (enum sharing_side)side, &c->runs[side][n]);
}

static void add_figure(cJSON *list, const struct sharing_figure *f)
{
	cJSON *json = cJSON_CreateObject();

	cJSON_AddItemToArray(list, json);
	cJSON_AddStringToObject(json, "group", f->group);
	cJSON_AddStringToObject(json, "name", f->name);
	cJSON_AddStringToObject(json, "unit", f->unit);
	emit_json_number(json, "value", f->value);
	if (f->promise == SHARING_SHOWN)
		return;
	cJSON_AddStringToObject(json, "promise",
				f->promise == SHARING_AT_MOST ? "at_most" : "at_least");
	cJSON_AddNumberToObject(json, "goal", f->goal);
	cJSON_AddBoolToObject(json, "is_missed", sharing_is_missed(f));
}

int sharing_write_json(const struct sharing_results *r, const char *path)
{
	cJSON *json = cJSON_CreateObject(), *list;

	cJSON_AddStringToObject(json, "schema", SHARING_SCHEMA);
	cJSON_AddStringToObject(json, "kind", "sharing");
	cJSON_AddStringToObject(json, "origin", "measured");
	if (r->no_ksm[0])
		cJSON_AddStringToObject(json, "no_ksm", r->no_ksm);
	if (r->no_kvm[0])
		cJSON_AddStringToObject(json, "no_kvm", r->no_kvm);
	if (r->no_template[0])
		cJSON_AddStringToObject(json, "no_template", r->no_template);
	host_add_own_json(json);
	add_params(json, &r->setup);
	list = cJSON_AddArrayToObject(json, "cases");
	for (size_t i = 0; i < r->setup.case_count; i++)
		add_case(list, r, &r->cases[i]);
	list = cJSON_AddArrayToObject(json, "figures");
	for (size_t i = 0; i < r->figure_count; i++)
		add_figure(list, &r->figures[i]);
	return emit_json(json, path);
}
