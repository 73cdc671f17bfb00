#!/usr/bin/env bash
# Sends all that the OpenAPI document allows, and much that it does not, to a proxy before a real cluster: no answer may be an
# error of the proxy, or one that the document does not have.
#
#   tests/api/run.sh
#
# What cannot be installed is a failure, never a reason to leave the test out. The proxy is a debug build, which the tests make
# anyway, or the program that SLOTWAY names.
set -euo pipefail
cd "$(dirname "$0")/../.."

schemathesis=4.32.5

target=${CARGO_TARGET_DIR:-$PWD/target}
dir=$target/api
python=$dir/python/bin/python

sh deploy/ensure-server.sh
[[ -x $python ]] || python3 -m venv "$dir/python"
"$python" -m pip install --quiet --disable-pip-version-check "schemathesis==$schemathesis"
if [[ -z ${SLOTWAY:-} ]]; then cargo build --quiet; fi
"$python" tests/api/api.py "${SLOTWAY:-$target/debug/slotway}" "$dir/python/bin/schemathesis"
