#!/usr/bin/env bash
# Each test of redis-benchmark, without and with a pipeline: redis_benchmark.sh HOST PORT
set -uo pipefail

tests="ping_inline ping_mbulk set get incr lpush rpush lpop rpop sadd hset spop zadd zpopmin lrange_100 lrange_300 lrange_500
    lrange_600 mset"
code=0
echo "version $(redis-benchmark --version | awk '{ print $2 }')"
for name in $tests; do
    errors=
    for pipeline in 1 16; do
        errors+=$(timeout 60 redis-benchmark -h "$1" -p "$2" -t "$name" -n 1000 -c 20 -r 1000 -P $pipeline --csv 2>&1 >/dev/null ||
            echo " ended with $?")
    done
    if [[ -z $errors ]]; then
        echo "ok $name"
    else
        code=1
        echo "failed $name: $(head -c 200 <<<"$errors" | tr '\n' ' ')"
    fi
done
exit $code
