#!/usr/bin/env bash
# Builds the wheel, installs it into an environment of its own below .cache, looks at its crate with clippy, and runs its tests.
set -euo pipefail
cd "$(dirname "$0")"
venv=../.cache/python-wheel
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check '.[test]'
# Here, where what the crate depends on was just compiled: as a part of `make lint` it would be compiled twice.
PYO3_PYTHON=$PWD/$venv/bin/python cargo clippy --quiet --release --all-targets -- -D warnings
"$venv/bin/python" -m pytest -q tests "$@"
