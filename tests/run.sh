#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# run.sh [--quick|--full] [STAGE...] - install what is needed, build, run all tests. The closing line counts the whole run.
#
# Stages, in order (default: all):
#   lint      clang-format, the arrows between rooms, each header alone in C and C++
#   unit      unit and conformance tests (Criterion), optimised build with run-time checks
#   model     every scheme against the oracle; audits after every operation
#   stress    threads
#   kvm       real guests on /dev/kvm; skipped, and counted, where there is none
#   clang     everything again compiles with clang; clang-tidy
#   asan      unit, conformance, model, stress and kvm under AddressSanitizer and UBSan
#   tsan      stress under ThreadSanitizer
#   fuzz      each fuzz target for a few seconds
#   coverage  line coverage of mmu, direct, shadow, ept: at least 90 %
#   cli       the gnomon command as a user meets it
#   install   the installed tree as an embedder meets it; examples/tiny-vmm
#   lab       the kvm suite on emulated machines with nested paging on and off: some minutes
# A run makes a quarter of the random cases; --full: all (20 million a scheme against the oracle, for one); --quick: a twentieth.
set -uo pipefail
cd "$(dirname "$0")/.."

size=usual stages=""
for arg in "$@"; do
	case $arg in
	--quick) size=quick ;;
	--full) size=full ;;
	-h | --help)
		sed -n '3,19s/^# \{0,1\}//p' "$0"
		exit 0
		;;
	-*)
		echo "run.sh: unknown option '$arg'; it knows --quick and --full" >&2
		exit 2
		;;
	*) stages="$stages $arg" ;;
	esac
done
all="lint unit model stress kvm clang asan tsan fuzz coverage cli install lab"
stages=${stages:-$all}
for stage in $stages; do
	case " $all " in *" $stage "*) ;; *)
		echo "run.sh: unknown stage '$stage'; it knows: $all" >&2
		exit 2
		;;
	esac
done

tests/packages.sh test || exit $?

passed=0 failed=0 skipped=0
cores=$(nproc)
logs=build/test-logs
rm -rf "$logs"
mkdir -p "$logs"

# count NAME PASSED FAILED [SKIPPED]: add a program's counts, say so.
count() {
	passed=$((passed + $2)) failed=$((failed + $3)) skipped=$((skipped + ${4:-0}))
	printf '%-6s %-44s %6s passed, %s failed%s\n' "$([ "$3" = 0 ] && echo ok || echo FAIL)" "$1" "$2" "$3" \
		"$([ "${4:-0}" = 0 ] || echo ", $4 skipped")"
}

# check NAME COMMAND...: one test that is a command.
check() {
	local name=$1 log
	shift
	log=$logs/$(echo "$name" | tr ' /' '__').log
	if "$@" >"$log" 2>&1; then
		count "$name" 1 0
	else
		tail -n 40 "$log"
		count "$name" 0 1
	fi
}

# build PRESET [CMAKE-ARG...]
build() {
	local preset=$1
	shift
	check "build $preset" sh -c 'preset=$1; shift; cmake --preset "$preset" "$@" && cmake --build --preset "$preset" -j "$0"' \
		"$cores" "$preset" -DGN_TESTS=ON "$@"
}

# criterion_run LABEL PROGRAM, criterion_count LABEL: counts from its synthesis line. A program that dies, or runs nothing, fails. So
# does one whose tests pass and whose teardown does not: Criterion tells of that and does not count it.
criterion_run() {
	mkdir -p "$(dirname "$logs/$1.log")"
	timeout 900 "$2" --jobs 1 >"$logs/$1.log" 2>&1
}
criterion_count() {
	local log="$logs/$1.log" line tested passing teardown
	line=$(sed 's/\x1b\[[0-9;]*m//g' "$log" | grep -o 'Tested: [0-9]* | Passing: [0-9]* | Failing: [0-9]* | Crashing: [0-9]*' | tail -n 1)
	tested=$(echo "$line" | sed -n 's/.*Tested: \([0-9]*\).*/\1/p')
	passing=$(echo "$line" | sed -n 's/.*Passing: \([0-9]*\).*/\1/p')
	teardown=$(grep -c 'Assertion Failed\|crashed during its setup or teardown' "$log")
	if [ "${tested:-0}" = 0 ]; then
		tail -n 20 "$log"
		count "$1" 0 1
	elif [ "$tested" = "$passing" ] && [ "$teardown" != 0 ]; then
		grep -v PASS "$log" | tail -n 40
		count "$1" "$passing" "$teardown"
	else
		[ "$tested" = "$passing" ] || grep -v PASS "$log" | tail -n 40
		count "$1" "$passing" $((tested - passing))
	fi
}

# plain LABEL PROGRAM [ARG...]: a program with its own main, whose last line is "N passed, N failed".
plain() {
	plain_run "$@"
	plain_count "$1"
}
plain_run() {
	local log=$logs/$1.log
	mkdir -p "$(dirname "$log")"
	shift
	timeout 1800 "$@" >"$log" 2>&1
	echo $? >"$log.code"
}
plain_count() {
	local log=$logs/$1.log line p f s code
	code=$(cat "$log.code")
	line=$(grep -E '^[0-9]+ passed, [0-9]+ failed' "$log" | tail -n 1)
	p=$(echo "$line" | sed -n 's/^\([0-9]*\) passed.*/\1/p')
	f=$(echo "$line" | sed -n 's/.* \([0-9]*\) failed.*/\1/p')
	s=$(echo "$line" | sed -n 's/.* \([0-9]*\) skipped.*/\1/p')
	if [ -z "$line" ] || { [ "$code" != 0 ] && [ "${f:-0}" = 0 ]; }; then
		tail -n 20 "$log"
		echo "$1: exit code $code"
		count "$1" "${p:-0}" $((${f:-0} + 1)) "${s:-0}"
	else
		[ "$f" = 0 ] || tail -n 20 "$log"
		count "$1" "$p" "$f" "${s:-0}"
	fi
}

# programs PRESET KIND: paths of the built tests, one a line.
programs() {
	local source
	for source in tests/"$2"/*.c; do
		[ -e "$source" ] && echo "build/$1/tests/$2/$(basename "$source" .c)"
	done
}

# label PRESET PROGRAM
label() { echo "$1/$(basename "$(dirname "$2")")/$(basename "$2")"; }

# A place among this many jobs is free.
wait_for_place() { while [ "$(jobs -rp | wc -l)" -ge "$1" ]; do wait -n; done; }

run_criterion() { # PRESET
	local program all
	all=$(programs "$1" conformance; programs "$1" unit) # the longest first
	for program in $all; do
		wait_for_place "$cores"
		criterion_run "$(label "$1" "$program")" "$program" &
	done
	wait
	for program in $all; do criterion_count "$(label "$1" "$program")"; done
}

# share_of PROGRAM SCALE: the access matrix on this machine's CPU is a million cases in the usual run, too.
share_of() {
	case "$size $1" in
	usual*/checked/tests/kvm/matrix) echo 100 ;;
	*) echo "$2" ;;
	esac
}

# run_plain PRESET KIND SCALE: SCALE is passed on as GN_TEST_SCALE, the share in percent of the full number of cases. Models have
# one thread each and no clock, so they share the cores.
run_plain() {
	local program jobs=1
	[ "$2" != model ] || jobs=$cores
	for program in $(programs "$1" "$2"); do
		wait_for_place "$jobs"
		GN_TEST_SCALE=$(share_of "$program" "$3") plain_run "$(label "$1" "$program")" "$program" &
	done
	wait
	for program in $(programs "$1" "$2"); do plain_count "$(label "$1" "$program")"; done
}

# Percent of the random cases, the sanitizers' part of the stress tests among them, and seconds of each fuzz target.
case $size in
quick) scale=5 sanitized_scale=1 fuzz_seconds=3 ;;
usual) scale=25 sanitized_scale=10 fuzz_seconds=20 ;;
full) scale=100 sanitized_scale=20 fuzz_seconds=120 ;;
esac

stage_lint() {
	check "clang-format" sh -c 'git ls-files "*.[ch]" | xargs clang-format --dry-run -Werror'
	check "arrows between rooms" tests/lint/arrows.sh
	check "each header alone" tests/lint/headers.sh
	check "shell scripts parse" sh -c 'git ls-files "*.sh" .ci/run | xargs -n 1 bash -n'
}
stage_unit() {
	build checked
	run_criterion checked
}
stage_model() {
	build checked
	run_plain checked model $scale
}
stage_stress() {
	build checked
	run_plain checked stress $scale
}
stage_kvm() {
	build checked
	run_plain checked kvm $scale
}
stage_clang() {
	build clang
	check "clang-tidy" tests/lint/tidy.sh build/clang
}
# Is there a lab to be had? Its emulator and its kernel come over the network, once.
# lab_is_ready [KERNEL]
lab_is_ready() {
	local log=$logs/lab-prepare.log
	tests/packages.sh lab >"$log" 2>&1 && tests/lab/run.sh --kernel "${1:-stable}" --prepare >>"$log" 2>&1 && return
	tail -n 3 "$log"
	return 1
}
# Where there is no KVM, what makes and ends VMs and what shares them among threads goes to the lab.
asan_kvm() {
	local name
	if [ -e /dev/kvm ]; then
		run_plain asan kvm 1
	elif lab_is_ready; then
		for name in host depriv_races lent; do
			GN_TEST_SCALE=1 plain "asan/lab/$name" tests/lab/run.sh -- "build/asan/tests/kvm/$name"
		done
	else
		count "asan/kvm" 0 0 1
	fi
}
stage_asan() {
	local report
	build asan
	export ASAN_OPTIONS=log_path=$PWD/$logs/asan.report:detect_stack_use_after_return=0 UBSAN_OPTIONS=print_stacktrace=1
	run_criterion asan
	run_plain asan model 1
	run_plain asan stress $sanitized_scale
	asan_kvm
	unset ASAN_OPTIONS UBSAN_OPTIONS
	# LeakSanitizer's finding does not fail a Criterion test by itself.
	for report in "$logs"/asan.report.*; do
		[ -e "$report" ] || continue
		head -n 30 "$report"
		count "sanitizer report $(basename "$report")" 0 1
	done
}
stage_tsan() {
	build tsan
	export TSAN_OPTIONS=halt_on_error=1
	run_plain tsan stress $sanitized_scale
	unset TSAN_OPTIONS
}
stage_fuzz() {
	local program
	build fuzz
	for program in $(programs fuzz fuzz); do
		mkdir -p "build/fuzz/corpus/$(basename "$program")"
		check "fuzz/$(basename "$program")" "$program" -max_total_time=$fuzz_seconds -timeout=10 -rss_limit_mb=2048 \
			-artifact_prefix="$logs/" "build/fuzz/corpus/$(basename "$program")"
	done
}
# Tests of the rooms above what is counted add time and no lines.
stage_coverage() {
	local above='/(balloon|control|guest_[bi]|kernel|kvm|overcommit|policy|results|sharing|shared|soft_|trace|workloads)[a-z_]*$'
	build coverage
	find build/coverage -name '*.gcda' -delete
	{
		programs coverage unit
		programs coverage conformance
		programs coverage model
		programs coverage stress
	} | grep -vE "$above" | GN_TEST_SCALE=1 xargs -P "$cores" -n 1 sh -c '"$0" >/dev/null 2>&1 || true'
	check "coverage" tests/lint/coverage.sh build/coverage 90
	cat "$logs/coverage.log"
}
stage_cli() {
	check "build release" bench/run.sh --build-only
	plain "cli" tests/cli/run.sh build/release/gnomon
	plain "balloond" python3 tests/cli/balloond.py build/release/gnomon-balloond build/release/gnomon
	plain "shared" python3 tests/cli/shared.py build/release/gnomon-shared build/release/gnomon
	plain "templates" python3 tests/cli/template.py build/release/gnomon-shared build/release/gnomon
	plain "balloond, VMs" python3 tests/cli/balloond_vms.py build/release/gnomon-balloond build/release/gnomon
}
stage_install() {
	check "build release" bench/run.sh --build-only
	plain "install" tests/install/run.sh build/release
}
stage_lab() {
	local name npt with=(--with build/checked/gnomon --with build/checked/gnomon-shared)
	if lab_is_ready; then
		plain "lab" tests/lab/run.sh
	else
		count "lab" 0 0 1
	fi
	if lab_is_ready backports; then
		for name in nested nested_dirty nested_running template sharing lent shared; do
			for npt in 1 0; do
				plain "lab/backports/npt=$npt/$name" tests/lab/run.sh --kernel backports --npt $npt "${with[@]}" -- \
					"build/checked/tests/kvm/$name"
			done
		done
	else
		count "lab/backports" 0 0 1
	fi
}

start=$SECONDS
for stage in $stages; do
	echo "== $stage"
	stage_start=$SECONDS
	"stage_$stage"
	echo "   ($stage: $((SECONDS - stage_start)) s)"
done
echo "all stages: $((SECONDS - start)) s; logs in $logs"
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ] && [ $passed -gt 0 ]
