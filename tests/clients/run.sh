#!/usr/bin/env bash
# Real clients, each at its latest version, do a work-out through the proxy before a cluster of three primaries and replicas.
#
#   tests/clients/run.sh [CLIENT...]      all clients, or those whose names begin so: redis-py ioredis redis-cli ...
#   tests/clients/run.sh --install        only gets what they need, so that the rest can be quick
#
# Clients come from their registries into a folder of their own: CLIENTS_DIR, else target/clients. A registry that cannot be
# reached is a failure, never a reason to leave clients out. The proxy is a debug build, which the tests make anyway, or the
# program that SLOTWAY names.
set -euo pipefail
cd "$(dirname "$0")/../.."

target=${CARGO_TARGET_DIR:-$PWD/target}
slotway=${SLOTWAY:-$target/debug/slotway}
dir=${CLIENTS_DIR:-$target/clients}

say() { echo "clients: $*" >&2; }
fail() { say "FAILED: $*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

is_install=
if [[ ${1:-} == --install ]]; then is_install=yes; shift; fi

# wants NAME: whether this client is to be run.
only=("$@")
wants() {
    [[ ${#only[@]} -gt 0 ]] || return 0
    local name
    for name in "${only[@]}"; do if [[ $1 == "$name"* ]]; then return 0; fi; done
    return 1
}

install_tools() {
    sh deploy/ensure-server.sh
    local packages=()
    have redis-benchmark || packages+=(redis-tools)
    have python3 && python3 -c 'import venv, ensurepip' 2>/dev/null || packages+=(python3 python3-venv)
    { have node && have npm; } || packages+=(nodejs npm)
    [[ ${#packages[@]} -gt 0 ]] || return 0
    sh deploy/apt-install.sh "${packages[@]}"
}

install_python() {
    [[ -x $dir/python/bin/python ]] || python3 -m venv "$dir/python"
    "$dir/python/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade redis >&2 ||
        fail "redis-py cannot be had from its registry"
}

install_node() {
    mkdir -p "$dir/node"
    # The folder is not to be taken for a part of a package further up.
    [[ -e $dir/node/package.json ]] || echo '{"private": true}' >"$dir/node/package.json"
    npm install --prefix "$dir/node" --silent --no-audit --no-fund ioredis@latest redis@latest >&2 ||
        fail "ioredis and node-redis cannot be had from their registry"
}

install_rust() {
    local manifest=tests/clients/rust/Cargo.toml
    cargo update --quiet --manifest-path "$manifest" || fail "redis-rs and fred cannot be had from their registry"
    cargo build --quiet --manifest-path "$manifest" --target-dir "$dir/rust" ||
        fail "the programs of redis-rs and fred cannot be built with the latest versions"
}

mkdir -p "$dir"
install_tools
if wants redis-py; then install_python; fi
if wants ioredis || wants node-redis; then install_node; fi
if wants redis-rs || wants fred; then install_rust; fi
[[ -z $is_install ]] || exit 0
if [[ -z ${SLOTWAY:-} ]]; then cargo build --quiet; fi
[[ -x $slotway ]] || fail "there is no $slotway"

python3 tests/suites/servers.py --proxy "$slotway" -- python3 tests/clients/table.py "$dir" {host} {port} "$@"
