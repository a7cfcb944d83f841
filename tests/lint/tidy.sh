#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# tidy.sh BUILD - clang-tidy over every source file of the rooms.
set -eu
git ls-files 'mmu/*.c' 'direct/*.c' 'shadow/*.c' 'ept/*.c' 'softbackend/*.c' 'kvmbackend/*.c' 'workloads/*.c' 'control/*.c' 'balloon/*.c' 'sharing/*.c' 'bench/*.c' |
	grep -v '^workloads/guest/' | xargs -P "$(nproc)" -n 4 clang-tidy -p "$1" --quiet
# The image is built by rules of its own, which leave no compile commands.
git ls-files 'workloads/guest/*.c' |
	xargs -P "$(nproc)" -I{} clang-tidy --quiet {} -- -std=gnu17 -ffreestanding -mgeneral-regs-only -DGN_FREESTANDING \
		-Iworkloads -Iinclude
