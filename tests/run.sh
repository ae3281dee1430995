#!/usr/bin/env bash
# Runs every test program and the doc tests, two at a time: most of a program's time it waits for brokers. `cargo test --all-features` runs the same, one
# after the other. What a program prints is shown when it ends, whole, and those that failed are named at the end.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

AT_ONCE=2
# They take the longest: begun last, they would be waited for by themselves.
FIRST='tests/(outage|archive|archive_kill|bucket|spark|connect_sink|kafka|modes)\b'

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT

# run_one NAME COMMAND…
run_one() {
    local name=$1 log=$logs/${1//\//_} start=$SECONDS status=0
    "${@:2}" > "$log" 2>&1 < /dev/null || status=$?
    if ((status != 0)); then echo "$name" >> "$logs/failed"; fi
    printf '\n== %s: exit %d after %d s\n%s\n' "$name" "$status" $((SECONDS - start)) "$(< "$log")"
}

# Lines such as `Executable unittests src/lib.rs (target/debug/deps/predlog-0123456789abcdef)`.
cargo test --all-features --no-run |& tee "$logs/built" | grep --line-buffered -v '^ *Executable' >&2 || true
sed -nE 's/^ *Executable (unittests )?([^ ]+)\.rs \((.*)\)$/\2 \3/p' "$logs/built" | sed 's/\/main / /' > "$logs/programs"
test -s "$logs/programs" || exit 1

{ grep -E "$FIRST" "$logs/programs" || true; echo doc; grep -vE "$FIRST" "$logs/programs" || true; } > "$logs/order"
while read -r name program; do
    while (($(jobs -rp | wc -l) >= AT_ONCE)); do wait -n || true; done
    if [[ $name == doc ]]; then
        run_one 'doc tests' cargo test --all-features --doc &
    else
        run_one "$name" "$program" &
    fi
done < "$logs/order"
wait

if [[ -f $logs/failed ]]; then
    printf '\nfailed:\n%s\n' "$(< "$logs/failed")" >&2
    exit 1
fi
printf '\n%d test programs and the doc tests passed\n' "$(wc -l < "$logs/programs")"
