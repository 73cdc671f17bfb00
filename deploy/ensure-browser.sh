#!/bin/sh
# Makes sure that Chromium, a font for it and Python's venv are installed, through apt-get where they are not. CHROMIUM names
# a browser that is there.
set -eu

have() { command -v "$1" >/dev/null 2>&1; }

set --
have "${CHROMIUM:-chromium}" || set -- chromium fonts-dejavu-core
{ have python3 && python3 -c 'import venv, ensurepip' 2>/dev/null; } || set -- "$@" python3 python3-venv
[ $# -eq 0 ] || sh "$(dirname "$0")/apt-install.sh" "$@"
