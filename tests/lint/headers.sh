#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Each header compiles alone, in C and in C++.
set -u
bad=0
faces=$(mktemp -d)
trap 'rm -rf "$faces"' EXIT
for room in mmu direct shadow ept softbackend workloads control balloon sharing bench; do
	mkdir -p "$faces/$room"
	ln -s "$PWD/$room" "$faces/$room/$room"
done
for header in include/gnomon/*.h workloads/guest/*.h {mmu,direct,shadow,ept,softbackend,workloads,control,balloon,sharing,bench}/*.h; do
	[ -e "$header" ] || continue
	flags="-D_GNU_SOURCE -Iinclude -I$(dirname "$header")"
	for room in mmu workloads control; do flags="$flags -I$faces/$room"; done
	# shellcheck disable=SC2086
	echo "#include \"$header\"" | gcc -std=gnu17 -Wall -Wextra -Werror -fsyntax-only -I. $flags -x c - || { echo "C: $header"; bad=1; }
	# shellcheck disable=SC2086
	echo "#include \"$header\"" | g++ -std=gnu++17 -fsyntax-only -I. $flags -x c++ - || { echo "C++: $header"; bad=1; }
done
exit $bad
