/* SPDX-License-Identifier: MIT */
/*
 * commands.h - the subcommands. Each is a main of its own: argv[0] is "gnomon NAME", the result is the
 * exit code (cli.h).
 */
#ifndef GN_BENCH_COMMANDS_H
#define GN_BENCH_COMMANDS_H

int compare_command(int argc, char **argv);
int run_command(int argc, char **argv);
int list_command(int argc, char **argv);
int host_command(int argc, char **argv);
int micro_command(int argc, char **argv);
int report_command(int argc, char **argv);
int repro_command(int argc, char **argv);
int overcommit_command(int argc, char **argv);
int sharing_command(int argc, char **argv); /* `gnomon overcommit sharing` */
int scale_command(int argc, char **argv);   /* `gnomon overcommit scale` */

#endif
