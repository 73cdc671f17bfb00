#!/usr/bin/env bash
# A local cluster with slotway in front of it, both left running.
#
#   deploy/demo.sh [start]   start what does not run yet, and say what to try
#   deploy/demo.sh stop      stop both, and delete the cluster's data
#   deploy/demo.sh status    show the cluster and whether the proxy is ready
#
# SLOTWAY names the program, else it is the release build.
set -euo pipefail
cd "$(dirname "$0")/.."

slotway=${SLOTWAY:-${CARGO_TARGET_DIR:-target}/release/slotway}
dir=.slotway-local
pid_file=$dir/proxy.pid
log=$dir/proxy.log
data=6380 http=9380

say() { echo "demo: $*" >&2; }
fail() { say "$*"; exit 1; }

# Prints the proxy's process id; fails unless that process is a `slotway serve`.
proxy() {
    local pid
    pid=$(cat "$pid_file" 2>/dev/null) || return 1
    [[ $(tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline") == *slotway\ serve\ * ]] && echo "$pid"
}

is_taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

is_ready() {
    proxy >/dev/null || return 1
    if command -v curl >/dev/null; then
        curl -fs -o /dev/null --max-time 2 "http://127.0.0.1:$http/readyz"
    else
        (
            exec 3<>"/dev/tcp/127.0.0.1/$http"
            printf 'GET /readyz HTTP/1.0\r\n\r\n' >&3
            read -r -t 2 status <&3
            [[ $status == *" 200 "* ]]
        ) 2>/dev/null
    fi
}

start() {
    [[ -x $slotway ]] || fail "there is no $slotway: build it with 'cargo build --release'"
    if is_ready; then
        say "already running"
    else
        stop_proxy
        check_ports
        start_cluster
        start_proxy
    fi
    invite
}

check_ports() {
    local port taken=
    for port in $data $http; do
        if is_taken "$port"; then taken+=" $port"; fi
    done
    [[ -z $taken ]] || fail "the proxy needs ports $data and $http; stop what listens on:$taken"
}

start_cluster() {
    if "$slotway" local status --dir "$dir" >/dev/null 2>&1; then return; fi
    # Nodes that a reboot or a kill has left in pieces are of no use to a demo.
    if [[ -e $dir/local.toml ]]; then "$slotway" local down --dir "$dir"; fi
    "$slotway" local up --detach --dir "$dir" >/dev/null
}

start_proxy() {
    local nodes pid
    nodes=$("$slotway" local status --dir "$dir" | awk '$2 == "primary" { print $1 }')
    say "starting the proxy"
    # A session of its own: neither Ctrl-C nor closing the terminal ends it. The nodes are words without blanks.
    # shellcheck disable=SC2086
    setsid "$slotway" serve $nodes >"$log" 2>&1 </dev/null &
    pid=$!
    echo "$pid" >"$pid_file"
    for _ in {1..300}; do
        if is_ready; then return; fi
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
    done
    say "the proxy does not get ready; its last words:"
    tail -n 20 "$log" >&2
    stop_proxy
    fail "the cluster still runs: 'make demo' tries again with it, 'make demo-stop' stops it"
}

stop_proxy() {
    local pid
    if pid=$(proxy); then
        kill "$pid"
        for _ in {1..150}; do
            proxy >/dev/null || break
            sleep 0.1
        done
        if proxy >/dev/null; then kill -KILL "$pid"; fi
        say "the proxy has stopped"
    fi
    rm -f "$pid_file"
}

stop() {
    stop_proxy
    rm -f "$log"
    "$slotway" local down --dir "$dir"
}

status() {
    if is_ready; then
        say "the proxy is ready on 127.0.0.1:$data"
    else
        say "the proxy does not run, or is not ready"
    fi
    "$slotway" local status --dir "$dir"
}

invite() {
    "$slotway" local status --dir "$dir"
    cat <<TXT

In front of this cluster runs slotway:
  127.0.0.1:$data          one plain Redis address for all of it
  http://127.0.0.1:$http   /metrics, /livez, /readyz

Try:
  redis-cli -p $data set greeting hello
  redis-cli -p $data mset a 1 b 2 c 3
  redis-cli -p $data mget a b c greeting

The keys lie on different nodes. 'make demo-stop' stops everything and deletes the data; the proxy's log is $log.
TXT
}

case ${1:-start} in
start) start ;;
stop) stop ;;
status) status ;;
*) fail "usage: deploy/demo.sh [start|stop|status]" ;;
esac
