#!/bin/sh
# Installs packages through apt-get, as root or with sudo: deploy/apt-install.sh PACKAGE...
# Several may be called at once: they wait for each other. No system service is left running or enabled by it.
set -eu

say() { echo "apt-install: $*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }
as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi; }

if ! have apt-get; then
    say "this machine has no apt-get; install yourself: $*"
    exit 1
fi
if [ "$(id -u)" -ne 0 ] && ! have sudo; then
    say "cannot install as this user, and there is no sudo: run as root: apt-get install $*"
    exit 1
fi

# One turn for each user; apt-get's own lock is not waited for where package lists are updated.
exec 9>"${TMPDIR:-/tmp}/slotway-apt-install.$(id -u).lock"
flock 9

# While this file stands and answers 101, packages do not start their services.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'as_root rm -f "$policy"' EXIT
    trap 'exit 1' HUP INT TERM
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
fi

say "installing $*"
# Descriptor 9 is this turn, not theirs.
as_root apt-get update -qq 9>&- || say "the package lists could not be updated; trying with those there are"
as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" 9>&- >&2
