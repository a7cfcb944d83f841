#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Each header compiles alone, in C and in C++; which source names an error of errno gets it by a header of the project or by <errno.h>, not by
# what some library happens to include (which differs with the flags).
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
errors="\\b(errno|$(echo '#include <errno.h>' | gcc -dM -E - | sed -n 's/^#define \(E[A-Z0-9]*\) .*/\1/p' | paste -sd '|'))\\b"
for source in $(git ls-files '*.c' | xargs grep -L '<errno.h>' | xargs grep -lE "$errors"); do
	gcc -fpreprocessed -dD -E -P "$source" 2>/dev/null | grep -qE "$errors" || continue
	flags="-D_GNU_SOURCE -Iinclude -I. -Itests -I$(dirname "$source")"
	for room in "$faces"/*; do flags="$flags -I$room"; done
	# shellcheck disable=SC2046,SC2086
	grep -q '<errno.h>' $(gcc -MM -MG $flags "$source" | tr -d '\\' | tr ' ' '\n' | grep '\.[ch]$' | xargs ls 2>/dev/null) /dev/null ||
		{ echo "errno.h: $source"; bad=1; }
done
exit $bad
