#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# coverage.sh BUILD PERCENT - line coverage of the engine's rooms, each at least PERCENT.
set -u
bad=0
for room in mmu direct shadow ept; do
	summary=$(gcovr --root . --object-directory "$1" --filter "$room/" --print-summary "$1" 2>/dev/null | grep '^lines:')
	percent=$(echo "$summary" | sed -n 's/^lines: \([0-9.]*\)%.*/\1/p')
	echo "$room: ${summary:-no data}"
	awk -v have="${percent:-0}" -v want="$2" 'BEGIN { exit !(have >= want) }' || bad=1
done
[ $bad = 0 ] || gcovr --root . --object-directory "$1" --filter '(mmu|direct|shadow|ept)/' "$1" 2>/dev/null | grep -vE ' (9[0-9]|100)% '
exit $bad
