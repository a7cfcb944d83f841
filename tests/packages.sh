#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# packages.sh [build|bench|test|lab|lab_ept]... - install what those jobs need from Debian 12, asking only apt.
# Silent and instant when everything is there.
set -euo pipefail

build="gcc g++ cmake ninja-build pkg-config liburcu-dev libjemalloc-dev libxxhash-dev libzstd-dev libcjson-dev libzydis-dev libinih-dev
	libmicrohttpd-dev libsystemd-dev"
bench="$build gnuplot-nox valgrind sqlite3"
test="$bench python3 libcriterion-dev clang clang-format clang-tidy libclang-rt-14-dev gcovr"
lab="$build qemu-system-x86 cpio binutils xz-utils"
lab_ept="$lab bochs bochs-term bochsbios vgabios xorriso isolinux syslinux-common"

wanted=""
for job in "${@:-build}"; do
	case $job in
	build | bench | test | lab | lab_ept) wanted="$wanted ${!job}" ;;
	*)
		echo "packages.sh: unknown job '$job'; it knows build, bench, test, lab, lab_ept" >&2
		exit 2
		;;
	esac
done

missing=""
for package in $wanted; do
	dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q '^install ok installed$' ||
		missing="$missing $package"
done
[ -n "$missing" ] || exit 0

as_root=""
if [ "$(id -u)" != 0 ]; then
	command -v sudo >/dev/null || {
		echo "packages.sh: not root and no sudo; as root run: apt-get install$missing" >&2
		exit 3
	}
	as_root=sudo
fi
command -v apt-get >/dev/null || {
	echo "packages.sh: no apt-get here; Gnomon is built on Debian 12 and needs:$missing" >&2
	exit 3
}
echo "installing:$missing" >&2
log=$(mktemp)
trap 'rm -f "$log"' EXIT
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086
if ! { $as_root apt-get update && $as_root apt-get install -y --no-install-recommends $missing; } >"$log" 2>&1; then
	cat "$log" >&2
	echo "packages.sh: apt-get failed" >&2
	exit 3
fi
