/* SPDX-License-Identifier: MIT */
/*
 * scale_results.c - what `gnomon overcommit scale` found: a table for people, and JSON, schema gnomon.scale/1.
 */
#include <stddef.h>

#include "cli.h"
#include "emit_json.h"
#include "host_json.h"
#include "scale.h"
#include "table.h"

/* A row of the table, which has a column a step. Goals are those of the last, with all VMs. */
static const struct figure {
	const char *name, *key, *format;
	size_t offset;
	double goal; /* at most; 0: shown only */
} figures[] = {
	{ "daemon: of a core, steady", "daemon_core_percent", "%.2f %%",
	  offsetof(struct scale_step, core_percent), SCALE_GOAL_CORE_PERCENT },
	{ "daemon: memory per VM", "daemon_kib_per_vm", "%.1f KiB",
	  offsetof(struct scale_step, kib_per_vm), SCALE_GOAL_KIB_PER_VM },
	{ "costliest round, CPU time", "costliest_round_cpu_ms", "%.2f ms",
	  offsetof(struct scale_step, round_cpu_ms), SCALE_GOAL_ROUND_MS },
	{ "longest round, preemption included", "longest_round_ms", "%.2f ms",
	  offsetof(struct scale_step, round_ms), SCALE_GOAL_ROUND_MS },
	{ "rounds", "rounds_per_s", "%.1f /s", offsetof(struct scale_step, rounds_per_s), 0 },
	{ "targets told", "targets_per_s", "%.0f /s", offsetof(struct scale_step, targets_per_s),
	  0 },
	{ "guests' checked operations", "operations_per_s", "%.0f /s",
	  offsetof(struct scale_step, operations_per_s), 0 },
	{ "a VM's process", "host_kib_per_vm", "%.0f KiB",
	  offsetof(struct scale_step, host_kib_per_vm), 0 },
	{ "until these had booted", "boot_s", "%.1f s", offsetof(struct scale_step, boot_s), 0 },
};
enum { FIGURES = sizeof(figures) / sizeof(figures[0]) };

static double value_of(const struct figure *f, const struct scale_step *s)
{
	return *(const double *)(const void *)((const char *)s + f->offset);
}

void scale_print(const struct scale_results *r, FILE *to, bool colour)
{
	char memory[32], budget[32];
	struct table t;

	fprintf(to,
		"Measured on this host: VMs of %s on the software machine, a process each; all of "
		"them "
		"have %s.\n\n",
		cli_format_bytes(r->mem_bytes, memory, sizeof(memory)),
		cli_format_bytes(r->budget_bytes, budget, sizeof(budget)));
	table_init(&t, r->step_count + 2, 1);
	table_cell(&t, TABLE_HEAD, "%s", "");
	for (unsigned i = 0; i < r->step_count; i++)
		table_cell(&t, TABLE_HEAD, "%u VM%s", r->steps[i].vms,
			   r->steps[i].vms == 1 ? "" : "s");
	table_cell(&t, TABLE_HEAD, "%s", "goal");
	for (unsigned n = 0; n < FIGURES; n++) {
		const struct figure *f = &figures[n];

		table_cell(&t, TABLE_PLAIN, "%s", f->name);
		for (unsigned i = 0; i < r->step_count; i++) {
			char text[32];
			double value = value_of(f, &r->steps[i]);
			bool is_missed = i + 1 == r->step_count && f->goal > 0 && value > f->goal;

			snprintf(text, sizeof(text), f->format, value);
			table_cell(&t, is_missed ? TABLE_BAD : TABLE_PLAIN, "%s%s", text,
				   is_missed ? " MISSED" : "");
		}
		if (f->goal > 0)
			table_cell(&t, TABLE_DIM, "<= %.0f", f->goal);
		else
			table_cell(&t, TABLE_DIM, "%s", "");
	}
	table_print(&t, to, colour);
	table_fini(&t);
	if (r->failed)
		fprintf(to, "\n%u VM%s FAILED; the first: %s\n", r->failed,
			r->failed == 1 ? "" : "s", r->first_failure);
}

int scale_write_json(const struct scale_results *r, const char *path)
{
	cJSON *json = cJSON_CreateObject(), *params, *steps;

	cJSON_AddStringToObject(json, "schema", SCALE_SCHEMA);
	cJSON_AddStringToObject(json, "origin", "measured");
	host_add_own_json(json);
	params = cJSON_AddObjectToObject(json, "params");
	cJSON_AddNumberToObject(params, "vms", r->vms);
	cJSON_AddNumberToObject(params, "mem_bytes", (double)r->mem_bytes);
	cJSON_AddNumberToObject(params, "min_bytes", (double)r->min_bytes);
	cJSON_AddNumberToObject(params, "budget_bytes", (double)r->budget_bytes);
	cJSON_AddNumberToObject(params, "settle_s", r->settle_s);
	cJSON_AddNumberToObject(params, "window_s", r->window_s);
	cJSON_AddNumberToObject(params, "seed", (double)r->seed);
	steps = cJSON_AddArrayToObject(json, "steps");
	for (unsigned i = 0; i < r->step_count; i++) {
		cJSON *step = cJSON_CreateObject();

		cJSON_AddItemToArray(steps, step);
		cJSON_AddNumberToObject(step, "vms", r->steps[i].vms);
		for (unsigned n = 0; n < FIGURES; n++)
			emit_json_number(step, figures[n].key, value_of(&figures[n], &r->steps[i]));
	}
	cJSON_AddNumberToObject(json, "failed", r->failed);
	if (r->failed)
		cJSON_AddStringToObject(json, "first_failure", r->first_failure);
	return emit_json(json, path);
}
