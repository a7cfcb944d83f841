#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# run.sh BUILD - what `cmake --install` of BUILD gives an embedder, used as an embedder would: from an empty prefix, moved
# to another place, with nothing of the sources but examples/tiny-vmm. Last line: N passed, N failed, N skipped.
set -u
build=$(realpath "$1")
source=$(realpath "$(dirname "$0")/../..")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
passed=0 failed=0 skipped=0

# check NAME COMMAND...: its output is shown when it fails.
check() {
	local name=$1
	shift
	if "$@" >log 2>&1 </dev/null; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
		echo "FAIL: $name"
		tail -n 15 log
	fi
}
skip() {
	skipped=$((skipped + 1))
	echo "SKIPPED: $1"
}

check "cmake --install" cmake --install "$build" --prefix "$work/first"
mkdir elsewhere && mv first elsewhere/prefix
prefix=$work/elsewhere/prefix
cp -r "$source/examples/tiny-vmm" tiny-vmm
libdir=$(dirname "$(find "$prefix" -name libgnomon.a)")
export PKG_CONFIG_PATH=$libdir/pkgconfig
check "the command runs from there" "$prefix/bin/gnomon" list schemes
check "no file names the sources" sh -c '! grep -rlE "$0|$1" "$2"/lib/pkgconfig "$2"/lib/cmake "$2"/include' \
	"$source" "$build" "$prefix"

# Every public header is there, and enough for itself: as strict C and as strict C++.
check "all public headers" diff -r "$source/include/gnomon" "$prefix/include/gnomon"
for header in "$prefix"/include/gnomon/*.h; do
	name=gnomon/$(basename "$header")
	printf '#include <%s>\n#include <%s>\nint main(void) { return 0; }\n' "$name" "$name" >one.c
	cp one.c one.cc
	for std in c17 c11; do
		check "$name as $std" gcc -std=$std -pedantic -Wall -Wextra -Werror -fsyntax-only -I"$prefix/include" one.c
	done
	check "$name as C++" g++ -std=c++17 -pedantic -Wall -Wextra -Werror -fsyntax-only -I"$prefix/include" one.cc
done

# The archive is code that any linker takes, and pollutes nobody's name space.
check "no compiler-internal code in the archive" sh -c '! objdump -h "$0" | grep -q gnu.lto' "$libdir/libgnomon.a"
check "all global names begin with gn_" sh -c \
	'! nm -g --defined-only "$0" 2>/dev/null | awk "NF == 3 { print \$3 }" | grep -v "^gn_" | grep .' "$libdir/libgnomon.a"
# A room that is called but was left out of the archive would only fail the embedder who gets that far.
symbols() { nm "$libdir/libgnomon.a" 2>/dev/null | awk -v kinds="$1" 'NF >= 2 && $(NF - 1) ~ kinds && $NF ~ /^gn_/ { print $NF }' | sort -u; }
self_contained() {
	symbols '^[A-TV-Z]$' >defined
	symbols '^U$' >used
	[ -s defined ] && [ -s used ] && ! comm -13 defined used | grep .
}
check "the archive lacks none of its own functions" self_contained
# Functions that a header declares: name, then parenthesis, outside comments and inline bodies.
declared() {
	sed '/^typedef/d; /^static inline/,/^}/d' "$prefix"/include/gnomon/*.h | tr '\n' ' ' | sed 's:/\*[^*]*\*\+\([^/*][^*]*\*\+\)*/: :g' |
		grep -oE '[ *]gn_[a-z0-9_]+\([a-z]' | grep -oE 'gn_[a-z0-9_]+' | sort -u
}
promises_kept() {
	declared >promised
	[ "$(wc -l <promised)" -gt 40 ] && ! comm -23 promised defined | grep .
}
check "the archive has every function that a header declares" promises_kept
cat >use.c <<'CODE'
#include <gnomon/schemes.h>
int main(void)
{
	struct gn_vm_config config = { .scheme = "shadow", .mem_bytes = 4 << 20, .vcpus = 1 };
	struct gn_vm *vm;
	char byte = 7, back = 0;
	if (gn_schemes_register_all() || gn_vm_create(&config, &vm) || gn_vm_write(vm, gpa(4096), &byte, 1) ||
	    gn_vm_read(vm, gpa(4096), &back, 1) || gn_vm_switch_scheme(vm, "ept"))
		return 1;
	gn_vm_destroy(vm);
	return back != 7;
}
CODE
# link COMPILER ARG...: of a program, which then runs.
link() {
	# shellcheck disable=SC2046
	"$@" -o use use.c $(pkg-config --cflags --libs gnomon) && ./use
}
check "gcc" link gcc -O2
check "gcc with link-time optimisation" link gcc -O2 -flto
check "as a position-independent program" link gcc -O2 -fPIE -pie
if command -v clang >/dev/null; then check "clang" link clang -O2; else skip "clang is not installed"; fi
sed 's/struct gn_vm_config config = .*/struct gn_vm_config config = {}; config.scheme = "shadow"; config.mem_bytes = 4 << 20; config.vcpus = 1;/' \
	use.c >use.cc
link_cxx() {
	# shellcheck disable=SC2046
	g++ -O2 -o use use.cc $(pkg-config --cflags --libs gnomon) && ./use
}
check "g++" link_cxx

# The example, by either way to find the library.
check "tiny-vmm by pkg-config" make -C tiny-vmm
check "tiny-vmm by find_package: configure" cmake -S tiny-vmm -B tiny-build -DCMAKE_PREFIX_PATH="$prefix" \
	-DCMAKE_FIND_USE_PACKAGE_REGISTRY=OFF
check "it found this prefix" grep -q "gnomon_DIR:PATH=$prefix" tiny-build/CMakeCache.txt
check "tiny-vmm by find_package: build" cmake --build tiny-build
check "another version is refused" sh -c '! cmake -S "$0" -B refused -DCMAKE_PREFIX_PATH="$1"' \
	"$(sed -i.bak 's/gnomon 0.1/gnomon 99.0/' tiny-vmm/CMakeLists.txt && echo tiny-vmm)" "$prefix"
check "tiny-vmm.c is at most 300 lines" sh -c '[ "$(wc -l <tiny-vmm/tiny-vmm.c)" -le 300 ]'

exits() { # CODE PROGRAM [ARG...]
	local code=$1 have
	shift
	timeout 60 "$@"
	have=$?
	[ "$have" = "$code" ] || { echo "exit status $have, not $code" && return 1; }
}
for program in tiny-vmm/tiny-vmm tiny-build/tiny-vmm; do
	check "$program: wrong use" exits 2 $program --shadow
	for scheme in shadow shadow-vtlb ept npt; do
		if [ -r /dev/kvm ] && [ -w /dev/kvm ]; then
			check "$program --scheme $scheme" exits 0 $program --scheme $scheme
		else
			skip "$program --scheme $scheme: no /dev/kvm that can be opened here"
		fi
	done
done
# A VMM that is deaf to flushes: its guest reads wrong data, so the guest does look. Only where KVM shadows our tables is
# there for certain a stale copy to read from; with EPT or NPT the exits may happen to flush.
deaf="a VMM that is deaf to flushes"
if ! [ -r /dev/kvm ] || ! [ -w /dev/kvm ]; then
	skip "$deaf: no /dev/kvm that can be opened here"
elif grep -qs '^[Y1]' /sys/module/kvm_intel/parameters/ept /sys/module/kvm_amd/parameters/npt; then
	skip "$deaf: nested paging in hardware may forgive it"
else
	sed 's/->needs_flush = true/->needs_flush = false/' tiny-vmm/tiny-vmm.c >deaf.c
	check "$deaf: it differs" sh -c '! cmp -s deaf.c tiny-vmm/tiny-vmm.c'
	check "$deaf: build" sh -c 'gcc -O2 -Itiny-vmm -o deaf deaf.c tiny-vmm/*.S $(pkg-config --cflags --libs gnomon)'
	check "$deaf: its guest reads wrong data" sh -c './deaf | grep -q "wrong data"'
fi

echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
