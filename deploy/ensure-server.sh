#!/bin/sh
# Makes sure that a server (redis-server or valkey-server) and redis-cli are installed, through apt-get where they are not.
# No system service is left running or enabled by it: the servers of tests and demos are started by slotway itself.
set -eu

say() { echo "ensure-server: $*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }
as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi; }

wanted=
have redis-server || have valkey-server || wanted=redis-server
have redis-cli || wanted="$wanted redis-tools"
[ -n "$wanted" ] || exit 0

if ! have apt-get; then
    say "this machine has no apt-get: install redis (or valkey) and redis-cli yourself; missing: $wanted"
    exit 1
fi
if [ "$(id -u)" -ne 0 ] && ! have sudo; then
    say "cannot install $wanted as this user, and there is no sudo: run as root: apt-get install $wanted"
    exit 1
fi

# While this file stands and answers 101, packages do not start their services.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'as_root rm -f "$policy"' EXIT
    trap 'exit 1' HUP INT TERM
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
fi

say "installing $wanted"
as_root apt-get update -qq || say "the package lists could not be updated; trying with those there are"
# $wanted is one word per package.
# shellcheck disable=SC2086
as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $wanted >&2

# The package has only been kept from starting it; it would still start at the next boot.
case $wanted in
*redis-server*)
    if [ -d /run/systemd/system ] && have systemctl; then
        as_root systemctl disable --now redis-server >/dev/null 2>&1 || true
    fi
    ;;
esac
