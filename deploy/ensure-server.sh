#!/bin/sh
# Makes sure that a server (redis-server or valkey-server) and redis-cli are installed, through apt-get where they are not.
# No system service is left running or enabled by it: the servers of tests and demos are started by slotway itself.
set -eu

have() { command -v "$1" >/dev/null 2>&1; }
as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi; }

set --
have redis-server || have valkey-server || set -- redis-server
have redis-cli || set -- "$@" redis-tools
[ $# -gt 0 ] || exit 0
sh "$(dirname "$0")/apt-install.sh" "$@"

# The package has only been kept from starting it; it would still start at the next boot.
case " $* " in
*" redis-server "*)
    if [ -d /run/systemd/system ] && have systemctl; then
        as_root systemctl disable --now redis-server >/dev/null 2>&1 || true
    fi
    ;;
esac
