#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# tidy.sh BUILD - clang-tidy over every source file of the rooms.
set -eu
git ls-files 'mmu/*.c' 'direct/*.c' 'shadow/*.c' 'ept/*.c' 'softbackend/*.c' 'workloads/*.c' 'bench/*.c' |
	xargs -P "$(nproc)" -n 4 clang-tidy -p "$1" --quiet
