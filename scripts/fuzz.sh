#!/bin/sh
# Fuzzes the targets in fuzz/ with the stable compiler and no other tool, each for some seconds, and says how many cases it
# tried: scripts/fuzz.sh [SECONDS] [TARGET…]. What breaks one is left in fuzz/artifacts/, what it has learnt in fuzz/corpus/.
set -eu
case ${1:-} in -h | --help) sed -n '2,3s/^# //p' "$0" && exit 0 ;; esac
unknown() {
    echo "✗ $1 is not known. scripts/fuzz.sh --help says how it is used" >&2
    exit 1
}
cd "$(dirname "$0")/../fuzz"
seconds=${1:-60}
case $seconds in '' | *[!0-9]*) unknown "$seconds" ;; esac
[ $# -gt 0 ] && shift
for target in "$@"; do
    [ -f "fuzz_targets/$target.rs" ] || unknown "$target"
done
if [ $# -eq 0 ]; then
    for target in fuzz_targets/*.rs; do
        set -- "$@" "$(basename "$target" .rs)"
    done
fi
export RUSTC_WRAPPER="$PWD/rustc.sh" CARGO_INCREMENTAL=0
for target in "$@"; do
    cargo build --locked --quiet --bin "$target"
done
failed=0
for target in "$@"; do
    mkdir -p "corpus/$target" "artifacts/$target"
    log=artifacts/$target.log
    case $target in
    stream) seeds=../tests/fixtures/streams ;;
    *) seeds=seeds/$target ;;
    esac
    [ -d "$seeds" ] || seeds=
    if "target/debug/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 \
        -artifact_prefix="artifacts/$target/" "corpus/$target" ${seeds:+"$seeds"} >"$log" 2>&1; then
        echo "$target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") cases, $(find "corpus/$target" -type f | wc -l) that lead somewhere"
    else
        echo "$target: broken, see fuzz/$log"
        failed=1
    fi
done
exit "$failed"
