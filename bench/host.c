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
#include "table.h"

static const char doc[] =
	"Tell what this machine is and which backends can run on it.\v"
	"Example:\n"
	"  gnomon host\n\n"
	"\"nested paging\" is what the loaded KVM module really uses; \"software\" means that it "
	"shadows guest tables, and nothing measured on it is the cost of EPT or NPT.";

static void print_host(const struct host_info *host, struct table *t)
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
	table_cell(t, TABLE_PLAIN,
		   "not in this build; the cost of an exit on this machine is therefore "
		   "not measured");
}

int host_command(int argc, char **argv)
{
	static const struct argp argp = { NULL, NULL, NULL, doc, NULL, NULL, NULL };
	struct host_info host;
	struct table t;

	argp_parse(&argp, argc, argv, 0, NULL, NULL);
	host_probe(&host);
	table_init(&t, 2, 3);
	print_host(&host, &t);
	table_print(&t, stdout, cli_may_colour(STDOUT_FILENO));
	table_fini(&t);
	return EXIT_FINE;
}
