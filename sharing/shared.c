/* SPDX-License-Identifier: MIT */
/*
 * shared.c - the gnomon-shared program.
 */
#include "control/program.h"
#include "daemon.h"

int main(int argc, char **argv)
{
	return gn_program_main(&gn_shared_ops, argc, argv);
}
