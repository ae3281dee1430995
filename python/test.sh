#!/usr/bin/env bash
# Tests the binding as its users get it. `test.sh build` makes the wheel, in an environment of its own below .cache; `test.sh run` runs the tests, and takes
# pytest's arguments; without either word it does both. The wheel has the profile of `cargo test`, whose dependencies it shares: `pip install ./python`
# compiles an optimised one, and all of these dependencies again.
set -euo pipefail
cd "$(dirname "$0")"
python=../.cache/python-wheel/bin/python

build() {
    # An environment that was moved here from elsewhere has a python, and nothing that it finds.
    "$python" -c 'import pip' 2> /dev/null || python3 -m venv --clear ../.cache/python-wheel
    "$python" -m pip install --quiet --disable-pip-version-check --config-settings build-args='--profile dev' '.[test]'
}

run() {
    "$python" -m pytest -q tests "$@"
}

case "${1:-}" in
build) build ;;
run) run "${@:2}" ;;
*)
    build
    run "$@"
    ;;
esac
