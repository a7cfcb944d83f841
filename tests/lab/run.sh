#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# run.sh [OPTION...] [-- PROGRAM [ARG...]] - a program of this machine in a KVM host with real nested paging, emulated.
#
# QEMU emulates an AMD machine with SVM and NPT; Debian's kernel in it loads kvm-amd; PROGRAM (with its libraries)
# runs there beside /dev/kvm. Its output comes out here, and its exit status is this script's. Without PROGRAM: the programs
# of tests/kvm and a quick `gnomon compare --backend kvm`, with npt=1 and with npt=0, and their counts in the last line.
#
#   --npt 0|1|both  nested paging, KVM's shadow paging, or one after the other (default: 1; without PROGRAM: both)
#   --ept 0|1       an Intel machine instead, kvm-intel with ept=0|1, in Bochs: about a processor minute to boot
#   --kernel K      Debian's own (stable, the default), or the newer one for it (backports), with what KVM has learned since
#   --cpus N        processors of the lab (default 1)
#   --mem MIB       its memory (default 2048)
#   --exact         an instruction takes 2 ns of the time inside, whatever this machine is busy with (one processor)
#   --timeout S     kill a lab that has not ended by then (default 600, --ept 1800; without PROGRAM 1200)
#   --with FILE     a file that PROGRAM needs; it gets the same path there (may be repeated)
#   --prepare       only see to it that this machine has what a lab needs: exit status 0 or 3
#
# Variables GN_* of the environment are passed on. Lines that begin with "lab: " are the lab's own.
# Exit status: PROGRAM's (at most 126); 2 wrong use; 3 this machine cannot do what was asked; 124 timeout.
set -uo pipefail

say() { echo "lab: $*" >&2; }
wrong_use() {
	say "$1; see tests/lab/run.sh --help"
	exit 2
}
cannot() {
	say "$1"
	exit 3
}
number() { case $2 in '' | *[!0-9]* | 0) wrong_use "$1 wants a positive number, not '$2'" ;; esac; }

npt="" ept="" release=stable cpus=1 mem=2048 timeout="" with=() prepare=no exact=no
while [ $# -gt 0 ]; do
	case $1 in
	-h | --help)
		sed -n '3,20s/^# \{0,1\}//p' "$0"
		exit 0
		;;
	--npt | --ept | --kernel | --cpus | --mem | --timeout | --with)
		[ $# -ge 2 ] || wrong_use "$1 wants a value"
		case $1 in
		--npt) npt=$2 ;;
		--ept) ept=$2 ;;
		--kernel) release=$2 ;;
		--cpus) cpus=$2 ;;
		--mem) mem=$2 ;;
		--timeout) timeout=$2 ;;
		--with) with+=("$2") ;;
		esac
		shift 2
		;;
	--exact)
		exact=yes
		shift
		;;
	--prepare)
		prepare=yes
		shift
		;;
	--)
		shift
		break
		;;
	-*) wrong_use "unknown option '$1'" ;;
	*) wrong_use "'$1': put -- before the program" ;;
	esac
done
if [ -z "$timeout" ]; then
	timeout=1200
	[ $# = 0 ] || timeout=600
	[ -z "$ept" ] || timeout=1800
fi
number --cpus "$cpus"
number --mem "$mem"
number --timeout "$timeout"
case $npt in '' | 0 | 1 | both) ;; *) wrong_use "--npt is 0, 1 or both, not '$npt'" ;; esac
case $release in stable | backports) ;; *) wrong_use "--kernel is stable or backports, not '$release'" ;; esac
case $ept in '' | 0 | 1) ;; *) wrong_use "--ept is 0 or 1, not '$ept'" ;; esac
[ -z "$ept" ] || [ -z "$npt" ] || wrong_use "--npt and --ept are of different machines: give one"
[ $exact = no ] || [ -z "$ept" ] || wrong_use "--exact is QEMU's: not with --ept"
[ $exact = no ] || [ "$cpus" = 1 ] || wrong_use "--exact has one processor, not $cpus"

# Paths are the caller's, the rest happens at the root of the sources.
program=""
if [ $# -gt 0 ]; then
	program=$(command -v -- "$1") && program=$(realpath "$program") || wrong_use "no such program: '$1'"
	shift
fi
for i in "${!with[@]}"; do
	[ -r "${with[i]}" ] || wrong_use "cannot read '${with[i]}'"
	with[i]=$(realpath "${with[i]}")
done
cd "$(dirname "$0")/../.." || exit 3
lab=$PWD/build/lab
kernel=$lab
[ $release = stable ] || kernel=$lab/$release
mkdir -p "$kernel"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# ---- What stays: kernel, modules, init ----------------------------------------------------------------------------------

# How apt is asked: as this machine asks it; or with lists of its own, so that the machine's stay without backports.
apt_options=()
ask_backports() {
	local archive='[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian'
	mkdir -p "$work"/apt/{lists,cache}/partial
	echo "deb $archive bookworm-backports main" >"$work/apt/sources"
	apt_options=(-o Dir::Etc::SourceList="$work/apt/sources" -o Dir::Etc::SourceParts=/dev/null -o Dir::State="$work/apt"
		-o Dir::State::status=/dev/null -o Dir::Cache="$work/apt/cache" -o APT::Sandbox::User="$(id -un)")
}
find_package() {
	apt-cache "${apt_options[@]}" depends linux-image-cloud-amd64 2>/dev/null |
		sed -n 's/.*Depends: \(linux-image-[0-9][^ ]*\).*/\1/p' | head -n 1
}
update_lists() {
	if [ $release = backports ] || [ "$(id -u)" = 0 ]; then
		apt-get "${apt_options[@]}" update
	else
		sudo -n apt-get update
	fi >"$work/log" 2>&1
}

# take_module NAME: debug sections and signatures only slow the boot down.
take_module() {
	find "$work/kernel/lib/modules" \( -name "$1.ko" -o -name "$1.ko.xz" \) -exec cp {} "$kernel/modules/" \;
	[ ! -e "$kernel/modules/$1.ko.xz" ] || xz -df "$kernel/modules/$1.ko.xz" || return
	strip -g "$kernel/modules/$1.ko"
}

# The kernel comes from apt, into build/lab, unpacked and never installed.
fetch_kernel() {
	local package
	[ ! -e "$kernel/vmlinuz" ] || return 0
	command -v apt-get >/dev/null || cannot "no apt-get here: the lab's kernel is Debian's"
	[ $release = stable ] || ask_backports
	package=$(find_package)
	[ -n "$package" ] || { update_lists && package=$(find_package); }
	[ -n "$package" ] || cannot "apt knows no linux-image-cloud-amd64 in $release: run apt-get update, with a network"
	say "fetching $package"
	mkdir -p "$work/kernel" "$kernel/modules"
	if ! (cd "$work/kernel" && apt-get "${apt_options[@]}" download "$package" && dpkg -x ./*.deb .) >"$work/log" 2>&1; then
		tail -n 3 "$work/log" >&2
		cannot "cannot download $package (no network?); once it is in build/lab none is needed"
	fi
	for module in irqbypass kvm kvm-amd kvm-intel; do
		take_module "$module" || cannot "$package has no module $module.ko to use"
	done
	cp "$work"/kernel/boot/vmlinuz-* "$kernel/vmlinuz.new" && mv "$kernel/vmlinuz.new" "$kernel/vmlinuz" # last: all is there
	rm -rf "$work/kernel"
}

build_init() {
	[ "$lab/init" -nt tests/lab/init.c ] && return
	"${CC:-cc}" -std=gnu17 -D_GNU_SOURCE -Wall -Wextra -O2 -static -s -o "$lab/init" tests/lab/init.c ||
		cannot "cannot build tests/lab/init.c as a static program (see above)"
}

# ---- What a run adds: programs, their libraries, the commands ------------------------------------------------------------

# put FILE: at its own path, without debug information.
put() {
	[ ! -e "$work/root$1" ] || return 0
	mkdir -p "$work/root$(dirname "$1")"
	cp -L "$1" "$work/root$1"
}
put_program() {
	local library
	put "$1"
	strip -s "$work/root$1" 2>/dev/null
	for library in $(ldd "$1" 2>/dev/null | grep -o '/[^ )]*'); do put "$library"; done
}
commands=0
# add_command PROGRAM [ARG...]
add_command() {
	put_program "$1"
	mkdir -p "$work/root/lab"
	printf '%s\0' "$@" >"$work/root/lab/$(printf %02d $commands)"
	commands=$((commands + 1))
}
pack() {
	local file
	for file in "${with[@]}"; do put_program "$file"; done
	mkdir -p "$work/root/modules" "$work/root"/{dev,proc,sys,tmp}
	cp "$kernel"/modules/*.ko "$work/root/modules/"
	cp "$lab/init" "$work/root/init"
	# The kernel opens /dev/console for init before anything is mounted; without the node it only warns.
	(cd "$work/root" && find . -print0 | cpio --quiet -0 -o -H newc) >"$work/initrd" || cannot "cpio failed"
}

# ---- The machines ---------------------------------------------------------------------------------------------------------

# kernel_words MODULE PARAMS: the command line. GN_* words reach init as environment.
kernel_words() {
	echo -n "console=ttyS0 panic=-1 oops=panic quiet mitigations=off nokaslr random.trust_cpu=on tsc=reliable"
	[ $exact = no ] || echo -n " norandmaps"
	echo -n " LAB_MODULE=$1 LAB_PARAMS=$2"
	env | grep -E '^GN_[A-Z_]+=[^ "]*$' | tr '\n' ' ' | sed 's/^/ /'
}

# boot_qemu 0|1: output on stdout; the status is the commands'.
boot_qemu() {
	local code clock=()
	[ $exact = no ] || clock=(-icount "shift=1,sleep=off" -rtc "base=2024-01-01T00:00:00,clock=vm" -seed 1)
	timeout --foreground -k 5 "$timeout" qemu-system-x86_64 -accel tcg,thread=single -M pc -cpu EPYC,+svm,+npt,+la57,-cx16 \
		"${clock[@]}" -smp "$cpus" -m "$mem" -nodefaults -no-user-config -display none -no-reboot -serial stdio \
		-device isa-debug-exit,iobase=0xf4,iosize=4 -kernel "$kernel/vmlinuz" -initrd "$work/initrd" \
		-append "$(kernel_words kvm-amd "npt=$1")" </dev/null \
		2> >(grep -v "TCG doesn't support requested feature" >&2)
	code=$?
	case $code in
	124 | 137) say "no end after $timeout s: qemu killed (--timeout S gives it longer)" && return 124 ;;
	0) say "the lab's kernel died or was reset (see above)" && return 1 ;;
	1) cannot "qemu-system-x86_64 could not run the lab (see above)" ;;
	esac
	[ $((code % 2)) = 1 ] && return $((code / 2 - 1))
	say "qemu-system-x86_64 died: exit status $code"
	return 1
}

# boot_bochs 0|1: the same on a Haswell with VMX and EPT. Bochs boots from a disc only, has no exit port, and is a build with
# a debugger, which must be told to continue. The machine switches itself off after the line "lab: status N".
boot_bochs() {
	local pid status deadline=$((SECONDS + timeout))
	mkdir -p "$work/iso"
	cp "$kernel/vmlinuz" "$work/initrd" "$isolinux/isolinux.bin" "$syslinux/ldlinux.c32" "$work/iso/"
	echo "default vmlinuz initrd=initrd $(kernel_words kvm-intel "ept=$1")" >"$work/iso/isolinux.cfg"
	xorriso -as mkisofs -quiet -o "$work/lab.iso" -b isolinux.bin -c boot.cat -no-emul-boot -boot-load-size 4 \
		-boot-info-table "$work/iso" 2>"$work/log" || cannot "xorriso failed: $(tail -n 1 "$work/log")"
	cat >"$work/bochsrc" <<-END
		cpu: model=corei7_haswell_4770, count=$cpus, ips=50000000
		memory: guest=$((mem > 2048 ? 2048 : mem)), host=$((mem > 2048 ? 2048 : mem))
		romimage: file=/usr/share/bochs/BIOS-bochs-latest
		vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
		display_library: rfb, options="timeout=0"
		ata0-master: type=cdrom, path="$work/lab.iso", status=inserted
		boot: cdrom
		com1: enabled=1, mode=file, dev="$work/serial"
		log: $work/bochs.log
		clock: sync=none
		panic: action=fatal
	END
	echo c >"$work/debugger"
	: >"$work/serial"
	BXSHARE=/usr/share/bochs bochs-bin -q -f "$work/bochsrc" -rc "$work/debugger" </dev/null >"$work/bochs.out" 2>&1 &
	pid=$!
	tail -n +1 -f --pid="$pid" "$work/serial" &
	while kill -0 $pid 2>/dev/null && [ $SECONDS -lt $deadline ] && ! grep -q '^lab: status ' "$work/serial"; do sleep 0.2; done
	status=$(sed -n 's/^lab: status \([0-9]*\).*/\1/p' "$work/serial" | tail -n 1)
	sleep 1 # the last lines on their way through tail
	kill -9 $pid 2>/dev/null
	wait 2>/dev/null
	[ -z "$status" ] || return "$status"
	[ $SECONDS -lt "$deadline" ] || { say "no end after $timeout s: bochs killed (--timeout S gives it longer)" && return 124; }
	say "bochs ended before the lab did: $(grep -h '>>PANIC<<' "$work/bochs.out" "$work/bochs.log" | head -n 1)"
	return 1
}

# boot KIND: npt=1, ept=0, ...
boot() {
	case $1 in
	npt=*) boot_qemu "${1#npt=}" ;;
	ept=*) boot_bochs "${1#ept=}" ;;
	esac
}

# ---- Runs ------------------------------------------------------------------------------------------------------------------

isolinux=/usr/lib/ISOLINUX syslinux=/usr/lib/syslinux/modules/bios
# need FILE-OR-COMMAND PACKAGE JOB
need() {
	[ -e "$1" ] || command -v "$1" >/dev/null || cannot "no $1 here: tests/packages.sh $3 installs it (Debian package $2)"
}
need cpio cpio lab
need strip binutils lab
[ $release = stable ] || need xz xz-utils lab
if [ -z "$ept" ]; then
	need qemu-system-x86_64 qemu-system-x86 lab
else
	need bochs-bin bochs lab_ept
	need /usr/share/bochs/BIOS-bochs-latest bochsbios lab_ept
	need xorriso xorriso lab_ept
	need $isolinux/isolinux.bin isolinux lab_ept
	need $syslinux/ldlinux.c32 syslinux-common lab_ept
fi
fetch_kernel
build_init
[ $prepare = no ] || exit 0

[ -n "$npt" ] || npt=$([ -n "$program" ] && echo 1 || echo both)
kinds="npt=$npt"
[ "$npt" != both ] || kinds="npt=1 npt=0"
[ -z "$ept" ] || kinds="ept=$ept"

if [ -n "$program" ]; then
	add_command "$program" "$@"
	pack
	status=0
	for kind in $kinds; do
		boot "$kind"
		one=$?
		[ $status != 0 ] || status=$one
	done
	exit $status
fi

# ---- The suite --------------------------------------------------------------------------------------------------------------

cmake --preset checked -DGN_TESTS=ON >"$work/log" 2>&1 && cmake --build --preset checked -j "$(nproc)" >>"$work/log" 2>&1 || {
	tail -n 20 "$work/log" >&2
	cannot "the build failed (see above)"
}
# Emulation is slow: three in a hundred of the cases, unless told otherwise.
export GN_TEST_SCALE=${GN_TEST_SCALE:-3}
for source in tests/kvm/*.c; do
	[ -e "$source" ] && add_command "$PWD/build/checked/tests/kvm/$(basename "$source" .c)"
done
# compare runs once the command knows the backend.
if build/checked/gnomon list backends | grep -q '^ *kvm'; then
	put_program "$PWD/build/checked/gnomon-balloond"
	put_program "$PWD/build/checked/gnomon-shared"
	add_command "$PWD/build/checked/gnomon" host
	add_command "$PWD/build/checked/gnomon" compare --backend kvm --quick --audit --mem 128M --workloads os,hash,btree,kv
fi
[ $commands -gt 0 ] || cannot "no programs in tests/kvm to run"
pack

# Of each command, its own last count, or its status as one test; a bad status without a failure is a failure, and
# so is a command that did not come to its end.
count_tests() {
	awk '
		function close_command() {
			if (counted && status != 0 && f == 0) f = 1
			if (!counted) { p = status == 0; f = status != 0 }
			passed += p; failed += f; skipped += s
			began = 0
		}
		$1 == "lab:" && $2 == "run" { began = 1; counted = p = f = s = 0 }
		/^[0-9]+ passed, [0-9]+ failed/ { counted = 1; p = $1; f = $3; s = /skipped/ ? $5 : 0 }
		$1 == "lab:" && $2 == "end" { status = $5; close_command() }
		END {
			if (began) { status = 1; close_command() }
			if (passed + failed + skipped == 0) failed = 1
			print passed + 0, failed + 0, skipped + 0
		}' "$1"
}
passed=0 failed=0 skipped=0 status=0
for kind in $kinds; do
	echo "lab: the kvm suite with $kind"
	boot "$kind" | tee "$work/out"
	one=${PIPESTATUS[0]}
	read -r p f s < <(count_tests "$work/out")
	passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
	[ "$one" = 0 ] || [ "$f" != 0 ] || failed=$((failed + 1))
	[ $status != 0 ] || status=$one
done
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ] || [ $status != 0 ] || status=1
exit $status
