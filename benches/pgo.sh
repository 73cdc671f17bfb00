#!/bin/bash
# Builds target/release/slotway with a profile of itself under load: an instrumented build goes through the shapes of
# benches/load on a cluster of its own, and tells the compiler which ways are taken. Needs rustup, redis-benchmark, and twice the
# time of a release build.
set -euo pipefail
cd "$(dirname "$0")/.."

rustup component add llvm-tools
profdata=$(find "$(rustc --print sysroot)" -name llvm-profdata -print -quit)
[ -n "$profdata" ] || { echo "llvm-profdata is not in the toolchain: rustup component add llvm-tools" >&2; exit 1; }

target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
pgo=$target/pgo
rm -rf "$pgo/profiles"
mkdir -p "$pgo/profiles"

echo ">>> the instrumented build"
CARGO_TARGET_DIR=$pgo RUSTFLAGS="-Cprofile-generate=$pgo/profiles" cargo build --release --bin slotway
# The build's own programs have left profiles, too.
rm -f "$pgo"/profiles/*.profraw

echo ">>> the loads"
LLVM_PROFILE_FILE=$pgo/profiles/%p-%m.profraw CARGO_TARGET_DIR=$pgo python3 benches/load/run.py table --rounds 1 --seconds 3 \
  --shapes get_p1,set_p1,mix_p16,get_p64,set1k_p16,mget10,get16k --target slotway
"$profdata" merge -o "$pgo/slotway.profdata" "$pgo"/profiles/*.profraw

echo ">>> the build with their profile"
RUSTFLAGS="-Cprofile-use=$pgo/slotway.profdata" cargo build --release --bin slotway
