#!/usr/bin/env bash
# Uses the status page in a real browser, before a real cluster.
#
#   tests/page/run.sh [--install]     with --install: only gets what it needs, so that the rest can be quick
#
# Screenshots go into target/page. What cannot be installed is a failure, never a reason to leave the test out. The proxy is a
# debug build, which the tests make anyway, or the program that SLOTWAY names; CHROMIUM names another browser.
set -euo pipefail
cd "$(dirname "$0")/../.."

# The driver; a release of it speaks with browsers that are newer.
playwright=1.65.2

target=${CARGO_TARGET_DIR:-$PWD/target}
dir=$target/page
python=$dir/python/bin/python

sh deploy/ensure-browser.sh
[[ -x $python ]] || python3 -m venv "$dir/python"
"$python" -m pip install --quiet --disable-pip-version-check "playwright==$playwright"
[[ ${1:-} != --install ]] || exit 0

sh deploy/ensure-server.sh
if [[ -z ${SLOTWAY:-} ]]; then cargo build --quiet; fi
slotway=${SLOTWAY:-$target/debug/slotway}
"$python" tests/page/page.py "$slotway" "$(command -v "${CHROMIUM:-chromium}")" "$dir"
echo "page: used in $(${CHROMIUM:-chromium} --version 2>/dev/null); screenshots are in $dir" >&2
