#!/usr/bin/env bash
# Serves a real model, replays its data set against it, and queries what was logged with DuckDB: once in Parquet, once in SQLite.
# `make demo` installs DuckDB first.
set -euo pipefail
cd "$(dirname "$0")/.."

python=.cache/venv/bin/python
[ -x "$python" ] || { echo "no DuckDB in .cache: run make demo" >&2; exit 1; }
cargo build --quiet --all-features --example axum_server --example replay_wine
bin="${CARGO_TARGET_DIR:-target}/debug/examples"
work=$(mktemp -d)
server=
trap 'if [ -n "$server" ]; then kill "$server" || true; fi; rm -rf "$work"' EXIT

for store in parquet sqlite; do
  dir="$work/$store"
  echo "== store = \"$store\""
  PREDLOG_DIRECT__STORE=$store PREDLOG_DIRECT__DIR="$dir" "$bin/axum_server" config/simple.toml 127.0.0.1:0 > "$work/$store.out" &
  server=$!
  until grep -q '^listening on ' "$work/$store.out"; do
    kill -0 "$server" || { echo "the server ended before it listened" >&2; exit 1; }
    sleep 0.1
  done
  url=$(sed -n 's/^listening on //p' "$work/$store.out")
  "$bin/replay_wine" "$url"
  kill -TERM "$server"
  wait "$server"
  server=
  echo "report: $(tail -n 1 "$work/$store.out")"
  "$python" examples/demo.py "$store" "$dir"
done
