/* SPDX-License-Identifier: MIT */
/*
 * host.c - `gnomon host`: what this machine is, and what gnomon can do on it.
 */
#include "commands.h"

#include <argp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "host.h"
#include "host_kvm.h"
#include "table.h"

static const char doc[] =
	"Tell what this machine is and which backends can run on it.\v"
	"Example:\n"
	"  gnomon host\n\n"
	"\"nested paging\" is what the loaded KVM module really uses; \"software\" means that it "
	"shadows guest tables, and nothing measured on it is the cost of EPT or NPT. What stands "
	"under "
	"\"tried\" and \"measured\" was found with a guest of a few instructions.";

static void print_host(const struct host_info *host, const struct gn_kvm_host *kvm, struct table *t)
{
	const struct host_field *field;

	for (unsigned i = 0; (field = host_field(i)); i++) {
		const char *text = (const char *)host + field->offset;

		table_cell(t, TABLE_HEAD, "%s", field->title);
		table_cell(t, *text ? TABLE_PLAIN : TABLE_DIM, "%s", *text ? text : "not known");
	}
	table_cell(t, TABLE_HEAD, "backend soft");
	table_cell(t, TABLE_PLAIN, "can run here: it needs nothing of the machine");
	table_cell(t, TABLE_HEAD, "backend kvm");
	if (!kvm->usable) {
		table_cell(t, TABLE_BAD, "cannot run here: %s", kvm->why);
		return;
	}
	table_cell(t, TABLE_PLAIN, "can run here");
	host_kvm_print(kvm, t);
}

int host_command(int argc, char **argv)
{
	static const struct argp argp = { NULL, NULL, NULL, doc, NULL, NULL, NULL };
	struct host_info host;
	struct gn_kvm_host kvm;
	struct table t;

	argp_parse(&argp, argc, argv, 0, NULL, NULL);
	host_probe(&host);
	gn_kvm_probe(&kvm, true);
	table_init(&t, 2, 3);
	print_host(&host, &kvm, &t);
	table_print(&t, stdout, cli_may_colour(STDOUT_FILENO));
	table_fini(&t);
	return EXIT_FINE;
}
