#!/usr/bin/env bash
# A work-out with redis-cli: redis_cli.sh HOST PORT
set -uo pipefail

key=work-out:redis-cli
code=0
cli() { timeout 20 redis-cli -h "$host" -p "$port" "$@" 2>&1; }
host=$1 port=$2

# step NAME EXPECTED FOUND
step() {
    if [[ $3 == "$2" ]]; then
        echo "ok $1"
    else
        code=1
        echo "failed $1: '$(head -c 200 <<<"$3" | tr '\n' ' ')' instead of '$(head -c 100 <<<"$2" | tr '\n' ' ')'"
    fi
}

echo "version $(redis-cli --version | awk '{ print $2 }')"
step handshake "PONG PONG" "$(echo $(cli ping) $(cli -3 ping))"
step get-set "OK value" "$(echo $(cli set $key value) $(cli -3 get $key))"
step pipeline "errors: 0, replies: 1000" \
    "$(for n in {1..1000}; do echo "SET $key:$n $n"; done | cli --pipe | tail -n 1)"
step multi "OK QUEUED QUEUED OK 2" "$(echo $(printf 'MULTI\nSET {%s}a 1\nINCR {%s}a\nEXEC\n' $key $key | cli))"
step watch "OK 1 OK QUEUED 2" "$(cli del "{$key}w" >/dev/null; echo $(printf 'WATCH {%s}w\nINCR {%s}w\nUNWATCH\nMULTI\nINCR {%s}w\nEXEC\n' $key $key $key | cli | sed '4{/OK/d}'))"
step pubsub "subscribe $key:news 1 message $key:news hello" "$(echo $(
    (timeout 3 redis-cli -h "$host" -p "$port" subscribe $key:news 2>&1) & 
    for _ in {1..20}; do
        sleep 0.1
        [[ $(cli publish $key:news hello) == 1 ]] && break
    done >/dev/null
    wait
))"
for n in {1..300}; do echo "SET $key:scan:$n 1"; done | cli --pipe >/dev/null
step scan 300 "$(cli --scan --pattern "$key:scan:*" | sort -u | wc -l)"
step bigkeys 1 "$(cli --bigkeys | grep -c 'Sampled [0-9]* keys in the keyspace')"
sha=$(cli script load "return redis.call('GET', KEYS[1])")
step script value "$(cli evalsha "$sha" 1 $key)"
step eval-file value "$(cli --eval <(echo "return redis.call('GET', KEYS[1])") $key)"
cli del $key:list >/dev/null
(sleep 0.3; cli rpush $key:list element >/dev/null) &
step blocking "$key:list element" "$(echo $(cli blpop $key:list 4))"
wait
exit $code
