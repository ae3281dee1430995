#!/usr/bin/env bash
# Builds the wheel, installs it into an environment of its own below .cache, and runs its tests.
set -euo pipefail
cd "$(dirname "$0")"
venv=../.cache/python-wheel
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check '.[test]'
"$venv/bin/python" -m pytest -q tests "$@"
