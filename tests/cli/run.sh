#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# run.sh GNOMON - the command as a user meets it: exit codes, one-line errors, files complete or absent.
set -u
gnomon=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
passed=0 failed=0

ok() { passed=$((passed + 1)); }
bad() {
	failed=$((failed + 1))
	echo "FAIL: $1"
	tail -n 5 out err 2>/dev/null
}
# expect CODE NAME ARG...: run gnomon with ARGs; its exit code must be CODE. Output in files out and err.
expect() {
	local code=$1 name=$2 have
	shift 2
	timeout 300 "$gnomon" "$@" >out 2>err </dev/null
	have=$?
	if [ "$have" = "$code" ]; then ok; else bad "$name: exit code $have, not $code: gnomon $*"; fi
}
says() { if grep -qE "$2" "$1"; then ok; else bad "no /$2/ in $1"; fi; }
# One error line (an argp usage hint may follow it).
one_line() { if [ "$(wc -l <err)" -le 2 ] && [ -s err ]; then ok; else bad "the error is not one line: $1"; fi; }

# Help and lists.
expect 0 "help" --help
says out 'compare'
for command in compare list host micro run report repro trace overcommit; do
	expect 0 "$command --help" $command --help
	says out '[Uu]sage'
done
for what in schemes workloads backends cpus; do expect 0 "list $what" list $what; done
expect 0 "list schemes" list schemes
for scheme in native shadow shadow-vtlb interp ept npt; do says out "^ *$scheme "; done
expect 0 "list workloads" list workloads
for workload in sequential stride random chase hash btree bfs transpose kv demand-zero fork-exec cow mmap-churn mprotect-gc \
	ctx-switch pipeline build phases; do says out "^ *$workload "; done
expect 0 "list cpus" list cpus
for cpu in skylake-sp sapphire-rapids zen3 zen4; do says out "$cpu"; done
expect 0 "host" host

# Wrong use: exit 2, one clear line, nothing written.
expect 2 "no command"
expect 2 "unknown command" compar
says err 'compare'
expect 2 "unknown option" compare --no-such-option
expect 2 "unknown scheme" compare --schemes shadw --quick
says err 'shadw'
one_line "unknown scheme"
expect 2 "unknown workload" compare --workloads rndom --quick
says err 'rndom'
one_line "unknown workload"
expect 2 "unknown cpu" compare --cpu z80 --quick
one_line "unknown cpu"
expect 2 "bad size" compare --mem 12Q --quick
expect 2 "bad count" compare --repeat 0 --quick
expect 2 "bad backend" compare --backend paper --quick
expect 2 "report of nothing" report no-such-file.json -o r
one_line "report of nothing"
[ ! -e r ] && ok || bad "a failed report left its folder"
echo '{"schema": "other/1"}' >wrong.json
expect 2 "report of another schema" report wrong.json -o r
one_line "report of another schema"
echo '{"schema": "gnomon.results/1", "runs": [{"scheme": 7}]}' >wrong.json
expect 2 "report of wrong types" report wrong.json -o r
one_line "report of wrong types"
head -c 100 /dev/urandom >wrong.json
expect 2 "report of noise" report wrong.json -o r
expect 2 "list nothing" list
expect 2 "list unknown" list colours
expect 2 "micro unknown" micro walk5_cached
# Real guests: what makes no sense there, what cannot run there, and what can where this machine has /dev/kvm.
expect 2 "a preset for kvm" compare --backend kvm --cpu zen4 --quick
one_line "a preset for kvm"
expect 2 "a preset before kvm" run --cpu zen4 --backend kvm shadow random
expect 2 "nested levels for kvm" compare --backend kvm --nested-levels 5
expect 2 "sensitivity of kvm" compare --backend kvm --sensitivity
expect 2 "quick and full" compare --quick --full
for scheme in native interp; do
	expect 3 "$scheme on kvm" run --backend kvm $scheme random --quick
	one_line "$scheme on kvm"
	says err "$scheme cannot run on kvm"
done
expect 0 "list backends" list backends
says out '^ *soft .*can run here'
says out '^ *kvm '
if grep -q '^ *kvm .*can run here' out; then
	small="--backend kvm --quick --mem 64M"
	expect 0 "kvm compare" compare $small --workloads sequential,demand-zero --schemes shadow,ept --audit --json k.json --csv k.csv
	says out 'Measured on this host: KVM module'
	says out 'exits that cost most'
	says k.json '"ops_hash"'
	says k.json '"label":.*Measured on this host'
	says k.csv 'Measured on this host'
	if grep -qE '"(accesses|walks|cycles)"' k.json; then bad "kvm: an unknown counter is in the file"; else ok; fi
	expect 0 "kvm run" run $small shadow demand-zero
	says out 'guest_ops.table_write'
	expect 0 "kvm repeat" run $small ept demand-zero --repeat 2 --json -
	says out '"whole_s"'
	expect 0 "kvm micro" micro kvm_trap kvm_shadow_fault --samples 1 --json m.json
	says out 'kvm_trap .*x peer'
	says m.json '"against_peer"'
	if grep -qE '"(failure|skipped)"' m.json; then bad "kvm: a micro measurement failed"; else ok; fi
	expect 0 "kvm report" report k.json -o kvm-folder
	says kvm-folder/index.html 'Measured on this host'
	says kvm-folder/index.html '<svg'
	if grep -q 'modelled' kvm-folder/index.html; then bad "a report of real guests speaks of a model"; else ok; fi
else
	echo "SKIPPED: real guests: $(grep '^ *kvm ' out)"
	expect 3 "kvm without kvm" compare --backend kvm --quick
	one_line "kvm without kvm"
	expect 3 "kvm micro without kvm" micro kvm_trap
	one_line "kvm micro without kvm"
fi

# A small comparison, its files, and determinism.
expect 0 "compare" compare --quick --workloads random,fork-exec --schemes native,shadow,ept,npt --audit --json a.json --csv a.csv
says out 'fork-exec'
says a.json '"schema":[[:space:]]*"gnomon.results/1"'
says a.json '"memory_sum"'
says a.csv 'walk_refs'
expect 0 "compare again" compare --quick --workloads random,fork-exec --schemes native,shadow,ept,npt --audit --json b.json
strip() { grep -vE 'samples_s|median_s|ci95_s|"date"|"time"|wall' "$1"; }
counters() { python3 -c '
import json, sys
print(json.dumps([[r["scheme"], r["workload"], r["counters"], r["tables"]] for r in json.load(open(sys.argv[1]))["runs"]]))' "$1"; }
if [ "$(counters a.json)" = "$(counters b.json)" ]; then ok; else bad "two runs with one seed differ in their counters"; fi
expect 0 "compare to stdout" compare --quick --workloads random --schemes native,ept --json -
python3 -c 'import json,sys; json.load(open("out"))' 2>/dev/null && ok || bad "--json - is not JSON alone"
expect 0 "run" run --quick --workload random --scheme shadow
says out 'walk_refs'
expect 0 "report" report a.json -o folder
[ -s folder/index.html ] && ok || bad "no index.html"
says folder/index.html '<svg'
if grep -qE '(src|href)="(https?:)?//' folder/index.html; then bad "the report is not self-contained"; else ok; fi
# Modelled and measured runs in one file: a section each, no common table.
python3 - <<-'EOF'
	import json
	both = json.load(open("a.json"))
	both["runs"].append({"backend": "kvm", "scheme": "ept", "workload": "random", "group": "memory",
		"kvm": {"module": "kvm_pvm", "nested_paging": "software"}, "counters": {"exits": 3},
		"time": {"samples_s": [0.5]}})
	json.dump(both, open("both.json", "w"))
EOF
expect 0 "report of both backends" report both.json -o both
says both/index.html '2 backends, a section each'
says both/index.html 'none of this is the cost of EPT or NPT'
says both/index.html '500 ms'
mkdir full && chmod 000 full
if [ "$(id -u)" != 0 ]; then expect 2 "unwritable" report a.json -o full/x; fi
expect 2 "csv into nowhere" compare --quick --workloads random --schemes native --csv nowhere/a.csv

# Overcommitted memory, modelled.
expect 2 "overcommit nothing" overcommit
one_line "overcommit nothing"
expect 2 "overcommit unknown" overcommit ballon --simulate
expect 2 "overcommit policy" overcommit balloon --simulate --policies exs
says err 'did you mean "esx"'
one_line "overcommit policy"
expect 2 "overcommit bad tau" overcommit balloon --simulate --tau 1
expect 2 "overcommit bad factor" overcommit balloon --simulate --overcommit 0.5
expect 2 "overcommit one VM" overcommit balloon --simulate --vms 1
expect 0 "overcommit" overcommit balloon --simulate --quick --json o.json --report o-folder
says out '^ *esx .*x '
says out 'Modelled'
says o-folder/index.html '<svg'
says o-folder/index.html 'Modelled'
[ -s o-folder/plots/overcommit-esx.svg ] && ok || bad "no picture of esx"
if python3 - <<-'EOF'; then ok; else bad "the overcommit file"; fi
	import json
	d = json.load(open("o.json"))
	runs = {r["policy"]: r for r in d["runs"]}
	esx = runs["esx"]
	assert d["schema"] == "gnomon.overcommit/1" and d["origin"] == "modelled"
	assert list(runs) == ["static-oracle", "esx", "static", "mom", "ksmtuned"]
	assert esx["against_oracle"] <= 1.10 and esx["grants"]["p99_ms"] <= 100 and esx["oom_kills"] == 0
	assert esx["turns_per_minute"] <= 2
	assert all(r["reservations_broken"] == 0 and r["over_budget"] == 0 for r in runs.values())
	assert runs["static"]["grants"]["p99_ms"] is None
	columns = esx["vms"][0]["timeline"]
	assert len(columns) == 5 and len({len(c) for c in columns.values()}) == 1 and len(columns["t_s"]) > 100
EOF
expect 0 "overcommit again" overcommit balloon --simulate --quick --policies esx --json -
python3 -c 'import json; d = json.load(open("out")); o = json.load(open("o.json")); assert d["runs"][1]["vms"] == o["runs"][1]["vms"]' \
	2>/dev/null && ok || bad "two simulations with one seed differ"

# The same with real VMs, small ones.
expect 0 "overcommit, real" overcommit balloon --quick --mem 64M --vms 2 --operations 20000 --policies esx --json real.json
says out '^Measured'
if python3 - <<-'EOF'; then ok; else bad "the overcommit file of real VMs"; fi
	import json
	d = json.load(open("real.json"))
	assert d["origin"] == "measured" and [r["policy"] for r in d["runs"]] == ["static-oracle", "esx"]
	assert all(r["reservations_broken"] == 0 and r["oom_kills"] == 0 and r["rounds"] > 1 for r in d["runs"])
	assert all(vm["slowdown"] > 0.5 for r in d["runs"] for vm in r["vms"])
EOF

# Many VMs, and one of them that dies.
expect 2 "scale, no VMs" overcommit scale --vms 0
one_line "scale, no VMs"
expect 2 "scale, bad size" overcommit scale --mem 1M
expect 2 "scale, one word too many" overcommit scale balloon
expect 3 "scale, too many" overcommit scale --vms 4000 --mem 1G
says err 'vms takes fewer'
one_line "scale, too many"
expect 0 "scale" overcommit scale --vms 12 --seconds 2 --settle 1 --json scale.json
says out '^daemon: of a core, steady .* <= 2$'
if python3 - <<-'EOF'; then ok; else bad "the scale file"; fi
	import json
	d = json.load(open("scale.json"))
	assert d["schema"] == "gnomon.scale/1" and d["failed"] == 0
	assert d["params"]["budget_bytes"] == 12 * d["params"]["mem_bytes"] / 2
	assert [s["vms"] for s in d["steps"]] == [3, 6, 12]
	for s in d["steps"]:
	    assert 0 < s["daemon_core_percent"] < 50 and 0 < s["costliest_round_cpu_ms"] < 50 and s["rounds_per_s"] > 0.2
	    assert 1024 < s["host_kib_per_vm"] < 64 * 1024 and 0 < s["boot_s"] < 60
EOF
"$gnomon" overcommit scale --vms 4 --seconds 5 --settle 1 >out 2>err &
bench=$!
victim=
for _ in $(seq 100); do # the daemon is its first child, VMs come after it
	victim=$(pgrep -P $bench | sed -n 2p)
	[ "$victim" ] && break
	sleep 0.05
done
sleep 1
kill -9 "$victim"
wait $bench
[ $? = 1 ] && ok || bad "a VM's death does not show"
says out 'FAILED; the first: VM [1-4]: killed by signal 9'
[ "$(pgrep -fc "$gnomon overcommit scale")" = 0 ] && ok || bad "scale leaves processes behind"

# Equal pages shared, beside KSM where it can be driven.
expect 2 "sharing, unknown case" overcommit sharing --case mixd
says err 'did you mean "mixed"'
one_line "sharing, unknown case"
expect 2 "sharing, unknown peer" overcommit sharing --peer kms
expect 2 "sharing, unknown probe" overcommit sharing --probe stomr
says err 'did you mean "storm"'
expect 2 "sharing, bad size" overcommit sharing --mem 1M
expect 2 "sharing, not named first" overcommit --quick sharing
expect 2 "sharing, one word too many" overcommit sharing balloon
expect 0 "sharing" overcommit sharing --quick --mem 64M --case mixed,zero --probe fan-out,storm,timing --json s.json --report s-folder
says out '^mixed: .*to save'
says s-folder/index.html '<svg'
[ -s s-folder/plots/sharing.svg ] && ok || bad "no picture of sharing"
if python3 - <<-'EOF'; then ok; else bad "the sharing file"; fi
	import json
	d = json.load(open("s.json"))
	assert d["schema"] == "gnomon.sharing/1" and [c["name"] for c in d["cases"]] == ["mixed", "zero"]
	for c in d["cases"]:
	    sides = {r["side"] for r in c["runs"]}
	    assert {"limit", "gnomon, ept", "gnomon, shadow"} <= sides and ("KSM" in sides) == ("no_ksm" not in d)
	    assert ("gnomon, kvm" in sides) == ("no_kvm" not in d)
	    for r in c["runs"]:
	        assert (r.get("scheme"), r.get("backend")) == {"gnomon, ept": ("ept", "soft"), "gnomon, shadow": ("shadow", "soft"),
	                                                       "gnomon, kvm": ("ept", "kvm")}.get(r["side"], (None, None))
	        assert (r["side"] == "gnomon, kvm") == ("mappings" in r)
	    assert all(0.995 <= r["part"] <= 1 for r in c["runs"] if r["side"] != "KSM")
	f = {(f["group"].split(":")[0].split(" (")[0], f["name"]): f["value"] for f in d["figures"]}
	assert f["storm", "stores that found no frame"] == 0
	assert f["what timing tells", "across domains, stores"] < 0.56 < 0.9 < f["what timing tells", "one domain, stores"]
EOF
# Killed in the middle, it leaves KSM as it was.
ksm=/sys/kernel/mm/ksm
ksm_settings() { cat $ksm/run $ksm/sleep_millisecs $ksm/pages_to_scan $ksm/use_zero_pages; }
if [ ! -w $ksm/run ]; then
	expect 3 "sharing, no KSM" overcommit sharing --quick --peer ksm
	one_line "sharing, no KSM"
elif flock -n $ksm/run true && [ "$(cat $ksm/run)" = 0 ]; then # and nobody else measures it
	before=$(ksm_settings)
	"$gnomon" overcommit sharing --mem 256M --peer ksm >out 2>err &
	bench=$!
	for _ in $(seq 100); do
		[ "$(cat $ksm/run)" = 1 ] && break
		sleep 0.05
	done
	[ "$(cat $ksm/run)" = 1 ] && ok || bad "KSM was not switched on"
	kill -9 $bench
	wait $bench 2>/dev/null
	for _ in $(seq 100); do
		[ "$(ksm_settings)" = "$before" ] && break
		sleep 0.05
	done
	[ "$(ksm_settings)" = "$before" ] && ok || bad "KSM's settings are not back"
fi

# Published tables.
expect 0 "repro walkrefs" repro walkrefs
says out '24'
says out '35'

# Traces of real programs.
expect 0 "record" trace record -o t.gntrace --max-records 200000 -- /bin/true
expect 0 "info" trace info t.gntrace
expect 0 "replay" compare --quick --workloads trace:t.gntrace --schemes native,shadow,ept --audit
expect 2 "info of nothing" trace info nothing.gntrace
one_line "info of nothing"
head -c 2000 t.gntrace >torn.gntrace
expect 2 "info of a torn trace" trace info torn.gntrace
one_line "info of a torn trace"
expect 2 "replay of a torn trace" compare --quick --workloads trace:torn.gntrace --schemes native
printf '\0\0\0\0' | dd of=t.gntrace bs=1 seek=300 conv=notrunc 2>/dev/null
expect 2 "verify a corrupt trace" trace info --verify t.gntrace
one_line "verify a corrupt trace"
printf 'I  04000000,3\n L 1ffeffe7e0,8\n S 1ffeffe7d8,8\n M 0421c7cc,4\n' >lackey.txt
expect 0 "convert lackey" trace convert --from lackey lackey.txt -o l.gntrace
expect 0 "info of it" trace info l.gntrace
expect 2 "convert unknown" trace convert --from pin lackey.txt -o x.gntrace

echo "$passed passed, $failed failed"
[ $failed = 0 ]
