#!/usr/bin/env bash
# Installs the real parts that the tests run against into <repository>/.cache, which git ignores.
#
#   tests/services/install.sh            everything
#   tests/services/install.sh readers    the Python readers alone
#   tests/services/install.sh minio toxiproxy
#
# What is there in the wanted version is left alone, so this is quick after the first time.
set -euo pipefail

MINIO_VERSION=v0.0.0-20260212201848-7aac2a2c5b7c
TOXIPROXY_VERSION=v2.12.0

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=$(cd "$here/../.." && pwd)/.cache
bin=$cache/bin
venv=$cache/venv

say() { printf 'services: %s\n' "$*"; }
die() {
    printf 'services: error: %s\n' "$*" >&2
    exit 1
}

# up_to_date NAME FILE VERSION: whether FILE exists and was installed by this script in that version.
up_to_date() {
    [[ -x $2 && -f $cache/stamps/$1 && $(<"$cache/stamps/$1") == "$3" ]]
}

# run_step NAME COMMAND…: runs it with its output in a log, and says how long it took.
run_step() {
    local name=$1 log=$cache/logs/$1.log start=$SECONDS pid
    shift
    "$@" >"$log" 2>&1 </dev/null &
    pid=$!
    while kill -0 "$pid" 2>/dev/null; do
        sleep 1
        if (((SECONDS - start) % 30 == 29)); then say "$name: still at it after $((SECONDS - start)) s"; fi
    done
    if ! wait "$pid"; then
        tail -n 20 "$log" >&2
        die "$name could not be installed; its whole output is in ${log#"$PWD"/}"
    fi
    say "$name: ready after $((SECONDS - start)) s"
}

# go_tool NAME BINARY PACKAGE VERSION: builds PACKAGE, whose binary go calls BINARY, as NAME.
go_tool() {
    local name=$1 binary=$2 package=$3 version=$4 target=$bin/$1
    if up_to_date "$name" "$target" "$version"; then
        say "$name: $version is there"
        return
    fi
    say "$name: building $package@$version"
    rm -f "$cache/stamps/$name"
    run_step "$name" env GOBIN="$cache/gobin" go install "$package@$version"
    mv -f "$cache/gobin/$binary" "$target"
    printf '%s' "$version" >"$cache/stamps/$name"
}

has_go() { command -v go >/dev/null; }

install_minio() {
    if has_go; then
        go_tool minio minio github.com/minio/minio "$MINIO_VERSION"
    else
        say "minio: Go is not installed, so the S3 tests run against moto (a stand-in written in Python), and what they need a real server for is skipped"
        python_packages moto requirements-moto.txt moto_server
    fi
}

install_toxiproxy() {
    if has_go; then
        go_tool toxiproxy-server server github.com/Shopify/toxiproxy/v2/cmd/server "$TOXIPROXY_VERSION"
    else
        say "toxiproxy: Go is not installed, so the tests that slow or cut connections through it are skipped"
    fi
}

# python_packages NAME REQUIREMENTS PROGRAM: into the venv; PROGRAM is one that is there afterwards.
python_packages() {
    local name=$1 requirements=$here/$2 program=$venv/bin/$3 python version
    python=$(command -v python3) || die "$name: python3 is not installed; Python 3.11 or later is needed, with its venv module"
    version="$("$python" --version) $(sha256sum <"$requirements")"
    if up_to_date "$name" "$program" "$version"; then
        say "$name: there"
        return
    fi
    say "$name: installing $(grep -v '^#' "$requirements" | tr '\n' ' ')"
    rm -f "$cache/stamps/$name"
    run_step "$name" fill_venv "$python" "$requirements"
    printf '%s' "$version" >"$cache/stamps/$name"
}

fill_venv() {
    "$1" -m venv "$venv" && "$venv/bin/python" -m pip install --disable-pip-version-check --no-input -r "$2"
}

install_readers() { python_packages readers requirements.txt python; }

main() {
    local part
    local -a parts=("$@")
    if ((${#parts[@]} == 0)); then parts=(readers toxiproxy minio); fi
    for part in "${parts[@]}"; do
        [[ $part =~ ^(readers|toxiproxy|minio)$ ]] || die "unknown part '$part'; known are readers, toxiproxy and minio"
    done
    mkdir -p "$bin" "$cache/stamps" "$cache/logs"
    # Two runs at once would install over each other.
    exec 9>"$cache/lock"
    flock 9
    for part in "${parts[@]}"; do "install_$part"; done
}

main "$@"
