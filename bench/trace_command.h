/* SPDX-License-Identifier: MIT */
/*
 * trace_command.h - `gnomon trace record | info | convert`.
 */
#ifndef GN_BENCH_TRACE_COMMAND_H
#define GN_BENCH_TRACE_COMMAND_H

/* argv[0] is "gnomon trace". The exit code (cli.h); wrong arguments exit there. */
int trace_command(int argc, char **argv);

/* Its parts; argv[0] is "gnomon trace record" and so on. */
int trace_record_command(int argc, char **argv);
int trace_info_command(int argc, char **argv);
int trace_convert_command(int argc, char **argv);

#endif
