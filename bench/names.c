/* SPDX-License-Identifier: MIT */
/*
 * names.c - schemes and workloads by name.
 *
 * The native baseline is not added behind the user's back: without it the table shows cycles and says so.
 */
#include "names.h"

#include <stdlib.h>
#include <string.h>

#include <gnomon/engine.h>

#include "run_one.h"
#include "workloads/trace_reader.h"

static const char *scheme_name(unsigned i)
{
	const struct gn_scheme_ops *ops = gn_scheme_at(i);

	return ops ? gn_scheme_name(ops) : NULL;
}

static const char *workload_name(unsigned i)
{
	const struct workload *workload = workload_at(i);

	return workload ? workload->name : NULL;
}

__attribute__((noreturn)) static void unknown(const char *what, const char *plural,
					      const char *name,
					      const char *(*name_at)(unsigned index))
{
	const char *near = cli_nearest(name, name_at);

	if (near)
		cli_fail(EXIT_USAGE, "no %s \"%s\"; did you mean \"%s\"?", what, name, near);
	cli_fail(EXIT_USAGE, "no %s \"%s\"; `gnomon list %s` lists them", what, name, plural);
}

/* What the scheme would have the hardware do, found by asking a small VM. -errno. */
static int kind_of(const char *scheme, enum gn_hw_kind *kind)
{
	const struct gn_vm_config config = { .scheme = scheme, .mem_bytes = 16u << 20, .vcpus = 1 };
	struct gn_vm *vm;
	int err = gn_vm_create(&config, &vm);

	if (err)
		return err;
	*kind = gn_vcpu_hw(gn_vm_vcpu(vm, 0))->kind;
	gn_vm_destroy(vm);
	return 0;
}

const char *names_why_not_kvm(const char *scheme)
{
	enum gn_hw_kind kind;

	if (kind_of(scheme, &kind))
		return "a VM with it could not be made";
	switch (kind) {
	case GN_HW_TABLES:
	case GN_HW_NESTED:
		return NULL;
	case GN_HW_GUEST:
		return "it has the hardware walk the guest's own tables alone, and a KVM guest is "
		       "never "
		       "without a second dimension; it is a baseline of --backend soft";
	case GN_HW_SOFTWARE:
		break;
	}
	return "it translates every access in software, and a CPU cannot be stopped at each; it is "
	       "a "
	       "demonstration of --backend soft";
}

void names_check_scheme(const char *name, enum machine_backend backend)
{
	const char *why;

	if (!gn_scheme_find(name))
		unknown("scheme", "schemes", name, scheme_name);
	why = backend == MACHINE_KVM ? names_why_not_kvm(name) : NULL;
	if (why)
		cli_fail(EXIT_CANNOT, "%s cannot run on kvm: %s", name, why);
}

void names_check_workload(const char *name)
{
	if (strlen(name) >= RESULTS_TEXT)
		cli_fail(EXIT_USAGE, "workload \"%.40s...\": a name has at most %d characters",
			 name, RESULTS_TEXT - 1);
	if (!strncmp(name, "trace:", 6)) {
		struct trace_error error;

		if (!name[6])
			cli_fail(EXIT_USAGE,
				 "workload \"trace:\" needs a file, like trace:prog.gntrace");
		/* Now, in full: a torn recording must not end a comparison half-way. */
		if (trace_reader_verify(name + 6, &error))
			cli_fail(EXIT_USAGE, "%s", error.text);
		return;
	}
	if (!workload_find(name))
		unknown("workload", "workloads", name, workload_name);
}

static void parse_list(const char *option, const char *text, struct cli_list *out)
{
	if (cli_parse_list(text, out))
		cli_fail(EXIT_CANNOT, "out of memory");
	if (!out->count)
		cli_fail(EXIT_USAGE, "--%s is empty; give names separated by commas", option);
}

/* Append a copy of @name unless it is there. */
static void append(struct cli_list *list, const char *name)
{
	char **larger;

	for (size_t i = 0; i < list->count; i++)
		if (!strcmp(list->items[i], name))
			return;
	larger = realloc(list->items, (list->count + 1) * sizeof(*larger));
	if (!larger || !(larger[list->count] = strdup(name)))
		cli_fail(EXIT_CANNOT, "out of memory");
	list->items = larger;
	list->count++;
}

/* All that can run on KVM, which builds the nested tables itself: their formats are one scheme to it. */
static void append_for_kvm(struct cli_list *out)
{
	bool has_nested = false;
	enum gn_hw_kind kind;

	for (unsigned i = 0; scheme_name(i); i++) {
		if (names_why_not_kvm(scheme_name(i)) || kind_of(scheme_name(i), &kind))
			continue;
		if (kind != GN_HW_NESTED || !has_nested)
			append(out, scheme_name(i));
		has_nested |= kind == GN_HW_NESTED;
	}
}

void names_schemes(const char *text, enum machine_backend backend, struct cli_list *out)
{
	memset(out, 0, sizeof(*out));
	if (!text || !strcmp(text, "all")) {
		if (backend == MACHINE_KVM)
			append_for_kvm(out);
		else
			for (unsigned i = 0; scheme_name(i); i++)
				append(out, scheme_name(i));
		return;
	}
	parse_list("schemes", text, out);
	for (size_t i = 0; i < out->count; i++)
		names_check_scheme(out->items[i], backend);
}

/* The workloads of a group word. False: @word is none. */
static bool append_group(struct cli_list *list, const char *word)
{
	bool all = !strcmp(word, "all");

	if (!all && strcmp(word, run_group_name(WORKLOAD_MEMORY)) != 0 &&
	    strcmp(word, run_group_name(WORKLOAD_OS)) != 0)
		return false;
	for (unsigned i = 0; workload_at(i); i++) {
		const struct workload *workload = workload_at(i);

		/* The replayer needs a file: it is asked for by trace:FILE only. */
		if (workload->kind != WORKLOAD_TRACE &&
		    (all || !strcmp(word, run_group_name(workload->kind))))
			append(list, workload->name);
	}
	return true;
}

void names_workloads(const char *text, struct cli_list *out)
{
	struct cli_list asked;

	memset(out, 0, sizeof(*out));
	parse_list("workloads", text ? text : "all", &asked);
	for (size_t i = 0; i < asked.count; i++) {
		if (append_group(out, asked.items[i]))
			continue;
		names_check_workload(asked.items[i]);
		append(out, asked.items[i]);
	}
	cli_list_fini(&asked);
}
