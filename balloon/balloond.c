/* SPDX-License-Identifier: MIT */
/*
 * balloond.c - the gnomon-balloond program.
 */
#include "control/program.h"
#include "daemon.h"

int main(int argc, char **argv)
{
	return gn_program_main(&gn_daemon_ops, argc, argv);
}
