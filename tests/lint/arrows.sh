#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The arrows of docs/architecture.md: who may include whom. A wrong one prints and fails.
set -u
declare -A below=(
	[mmu]="" [direct]="mmu" [shadow]="mmu" [ept]="mmu" [softbackend]="mmu" [kvmbackend]="mmu" [workloads]="" [control]=""
	[balloon]="mmu control" [sharing]="mmu control"
	[bench]="balloon sharing mmu direct shadow ept softbackend kvmbackend workloads control"
)
bad=0
for room in "${!below[@]}"; do
	while IFS=: read -r file line text; do
		target=$(echo "$text" | sed -n 's/.*[<"]\([a-z_]*\)\/.*[>"].*/\1/p')
		[ -n "$target" ] && [ -n "${below[$target]+room}" ] || continue
		case " $room ${below[$room]} " in
		*" $target "*) ;;
		*) echo "$file:$line: $room may not include $target"; bad=1 ;;
		esac
	done < <(grep -rnE '^\s*#\s*include' --include='*.[ch]' "$room")
done
if grep -rn 'linux/kvm\.h' --include='*.[ch]' include mmu direct shadow ept softbackend workloads control balloon sharing bench; then
	echo "only kvmbackend may include <linux/kvm.h>"
	bad=1
fi
# Guest code sees neither libc nor the machine: only the hosted files may.
grep -rnE '#\s*include <(stdio|stdlib|gnomon/soft)\.h>' workloads --include='w_*.[ch]' --include='kernel*.[ch]' && {
	echo "guest code includes only freestanding headers"
	bad=1
}
exit $bad
