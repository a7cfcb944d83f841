#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# run.sh [--build-only] [--quick] [OUT] - install what is needed, build, compare the schemes on every workload and on
# a recorded real program, and write the report into OUT (default: report/).
# --build-only stops after the build and prints the path of the gnomon binary as its last line.
set -euo pipefail
cd "$(dirname "$0")/.."

build_only=no quick="" out=report
for arg in "$@"; do
	case $arg in
	--build-only) build_only=yes ;;
	--quick) quick=--quick ;;
	-h | --help)
		sed -n '3,5s/^# //p' "$0"
		exit 0
		;;
	-*)
		echo "run.sh: unknown option '$arg'; it knows --build-only and --quick" >&2
		exit 2
		;;
	*) out=$arg ;;
	esac
done

tests/packages.sh bench
cmake --preset release -DGN_HOST_CPU=ON >build.log 2>&1 && cmake --build --preset release >>build.log 2>&1 || {
	cat build.log >&2
	echo "run.sh: the build failed" >&2
	exit 1
}
mv build.log build/release/build.log
gnomon=$PWD/build/release/gnomon
if [ $build_only = yes ]; then
	echo "$gnomon"
	exit 0
fi

mkdir -p "$out"
# A real program: sqlite3 fills a table, indexes it and queries it. Recorded once.
trace=$out/sqlite.gntrace
if [ ! -s "$trace" ]; then
	echo "recording sqlite3 under valgrind ..." >&2
	"$gnomon" trace record -o "$trace" --max-records 3000000 -- sqlite3 :memory: \
		"create table t(id integer primary key, name text, score integer);
		 with recursive n(i) as (select 1 union all select i + 1 from n where i < 4000)
		   insert into t select i, 'name' || (i * 7919 % 4001), i * 104729 % 1009 from n;
		 create index by_name on t(name);
		 select count(*), sum(score) from t where name between 'name1' and 'name3';
		 select score, count(*) from t group by score order by 2 desc limit 3;" >/dev/null
fi
"$gnomon" trace info "$trace" >&2
"$gnomon" compare $quick --workloads "all,trace:$trace" --json "$out/results.json" --csv "$out/results.csv" --report "$out"
echo
echo "report: $(cd "$out" && pwd)/index.html"
