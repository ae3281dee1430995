#!/usr/bin/env bash
# Installs the real parts that the tests run against into <repository>/.cache, which git ignores.
#
#   tests/services/install.sh            everything that the tests run against
#   tests/services/install.sh readers    the Python readers alone
#   tests/services/install.sh minio toxiproxy
#   tests/services/install.sh kafka registry nats
#   tests/services/install.sh spark
#   tests/services/install.sh iceberg mq_bridge    what a bench alone compares with
#
# What is there in the wanted version is left alone, so this is quick after the first time.
set -euo pipefail

MINIO_VERSION=v0.0.0-20260212201848-7aac2a2c5b7c
TOXIPROXY_VERSION=v2.12.0
NATS_VERSION=v2.15.2
REGISTRY_VERSION=2.6.13.Final

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

# java_files NAME VERSION FILL: fills the folder .cache/NAME by the function FILL, which gets the path of a folder to make.
java_files() {
    local name=$1 version=$2 fill=$3 target=$cache/$1
    if up_to_date "$name" "$target" "$version"; then
        say "$name: there"
        return
    fi
    command -v mvn >/dev/null || die "$name: Maven (mvn) is not installed; Maven 3.8 or later is needed"
    command -v java >/dev/null || die "$name: Java is not installed; Java 17 or later is needed"
    say "$name: copying its jars with Maven"
    rm -rf "$cache/stamps/$name" "$target" "$target.new"
    run_step "$name" "$fill" "$target.new"
    mv "$target.new" "$target"
    printf '%s' "$version" >"$cache/stamps/$name"
}

install_kafka() {
    java_files kafka "$(sha256sum <"$here/kafka/pom.xml")" copy_kafka
    python_packages kafka-client requirements-kafka.txt python
}

copy_kafka() {
    mvn -B -f "$here/kafka/pom.xml" dependency:copy-dependencies -DoutputDirectory="$1"
}

install_registry() { java_files registry "$REGISTRY_VERSION" copy_registry; }

copy_registry() {
    local plugin=org.apache.maven.plugins:maven-dependency-plugin:3.8.1
    local artifact=io.apicurio:apicurio-registry-app:$REGISTRY_VERSION
    mkdir "$1" && cd "$1" &&
        mvn -B "$plugin:copy" -Dartifact="$artifact:tar.gz:all" -DoutputDirectory=. &&
        tar xzf "apicurio-registry-app-$REGISTRY_VERSION-all.tar.gz" &&
        rm "apicurio-registry-app-$REGISTRY_VERSION-all.tar.gz"
}

install_nats() {
    has_go || die "nats: Go is not installed; Go 1.26 or later is needed"
    go_tool nats-server nats-server github.com/nats-io/nats-server/v2 "$NATS_VERSION"
}

install_spark() {
    java_files spark "$(sha256sum <"$here/spark/pom.xml")" copy_spark
    python_packages pyspark requirements-spark.txt spark-submit
}

copy_spark() {
    mvn -B -f "$here/spark/pom.xml" dependency:copy-dependencies -DoutputDirectory="$1"
}

# Iceberg's sink for Connect, which the bench of the archiver compares with; its worker is Kafka's.
install_iceberg() {
    java_files iceberg "$(sha256sum <"$here/iceberg/pom.xml")" copy_iceberg
}

copy_iceberg() {
    mvn -B -f "$here/iceberg/pom.xml" dependency:copy-dependencies -DoutputDirectory="$1"
}

# mq-bridge, which the bench of the archiver compares with too. It is built outside of the workspace; what is compiled is not kept.
install_mq_bridge() {
    local source=$here/mq_bridge target=$bin/mq-bridge-peer version
    version=$(cat "$source/Cargo.toml" "$source/Cargo.lock" "$source"/src/*.rs | sha256sum)
    if up_to_date mq_bridge "$target" "$version"; then
        say "mq_bridge: there"
        return
    fi
    say "mq_bridge: building it, which takes minutes"
    rm -f "$cache/stamps/mq_bridge"
    run_step mq_bridge env CARGO_TARGET_DIR="$cache/mq_bridge-target" cargo install --locked --quiet --path "$source" --root "$cache" --no-track --force
    rm -rf "$cache/mq_bridge-target"
    printf '%s' "$version" >"$cache/stamps/mq_bridge"
}

install_readers() {
    python_packages readers requirements.txt python
    install_duckdb_delta
}

# DuckDB's delta extension is built for an older DuckDB than the venv's: both lie in a folder of their own, .cache/duckdb-delta.
install_duckdb_delta() {
    local target=$cache/duckdb-delta requirements=$here/requirements-duckdb-delta.txt version
    version=$(sha256sum <"$requirements")
    if up_to_date duckdb-delta "$target" "$version"; then
        say "duckdb-delta: there"
        return
    fi
    say "duckdb-delta: installing $(grep -v '^#' "$requirements" | tr '\n' ' ')"
    rm -rf "$cache/stamps/duckdb-delta" "$target"
    run_step duckdb-delta "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --target "$target" -r "$requirements"
    printf '%s' "$version" >"$cache/stamps/duckdb-delta"
}

main() {
    local part
    local -a tested=(readers toxiproxy minio kafka registry nats spark) parts=("$@")
    local -a known=("${tested[@]}" iceberg mq_bridge)
    if ((${#parts[@]} == 0)); then parts=("${tested[@]}"); fi
    for part in "${parts[@]}"; do
        [[ " ${known[*]} " == *" $part "* ]] || die "unknown part '$part'; known are ${known[*]}"
    done
    mkdir -p "$bin" "$cache/stamps" "$cache/logs"
    # Two runs at once would install over each other.
    exec 9>"$cache/lock"
    flock 9
    for part in "${parts[@]}"; do "install_$part"; done
}

main "$@"
