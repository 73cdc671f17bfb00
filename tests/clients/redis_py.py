"""A work-out with redis-py: redis_py.py HOST PORT sync|asyncio 2|3

Prints a line for each step, `ok STEP` or `failed STEP: why`, and fails if one did.
"""

import asyncio
import sys
import threading
import time

import redis
import redis.asyncio

HOST, PORT, STYLE, PROTOCOL = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
OPTIONS = {"host": HOST, "port": PORT, "protocol": PROTOCOL, "decode_responses": True, "socket_timeout": 5,
           "client_name": "work-out"}
KEY = f"work-out:redis-py:{STYLE}:{PROTOCOL}"
SCRIPT = "redis.call('SET', KEYS[1], ARGV[1]) return redis.call('GET', KEYS[1])"


def same(found, expected):
    assert found == expected, f"{found!r} instead of {expected!r}"


# --- sync ---

def handshake(r):
    same(r.ping(), True)
    same(r.client_getname(), "work-out")


def get_set(r):
    same(r.set(KEY, "value"), True)
    same(r.get(KEY), "value")
    same(r.delete(f"{KEY}:h"), 0)
    same(r.hset(f"{KEY}:h", mapping={"a": "1", "b": "2"}), 2)
    same(r.hgetall(f"{KEY}:h"), {"a": "1", "b": "2"})


def pipeline(r):
    with r.pipeline(transaction=False) as pipe:
        for n in range(100):
            pipe.set(f"{KEY}:{n}", n).get(f"{KEY}:{n}")
        same(pipe.execute()[1::2], [str(n) for n in range(100)])


def multi(r):
    with r.pipeline() as pipe:
        pipe.set(f"{{{KEY}}}a", 1).incr(f"{{{KEY}}}a").get(f"{{{KEY}}}a")
        same(pipe.execute(), [True, 2, "2"])


def watch(r):
    key = f"{{{KEY}}}watched"
    r.set(key, 1)
    same(r.transaction(lambda pipe: (pipe.get(key), pipe.multi(), pipe.incr(key)), key), [2])
    with r.pipeline() as pipe:
        pipe.watch(key)
        r.set(key, 10)
        pipe.multi()
        pipe.incr(key)
        try:
            pipe.execute()
        except redis.WatchError:
            return
    raise AssertionError("a change of the watched key went by unnoticed")


def pubsub(r):
    with r.pubsub(ignore_subscribe_messages=True) as p:
        p.subscribe(f"{KEY}:news")
        p.psubscribe(f"{KEY}:p*")
        settle(p)
        for n in range(3):
            r.publish(f"{KEY}:news", n)
        r.publish(f"{KEY}:pattern", "last")
        found, end = [], time.monotonic() + 5
        while len(found) < 4 and time.monotonic() < end:
            message = p.get_message(timeout=1)
            if message:
                found.append(message["data"])
        same([data for data in found if data != "last"], ["0", "1", "2"])
        same(sorted(found)[-1], "last")


def settle(p):
    """The two confirmations: `get_message` swallows them, and says None for each."""
    for _ in range(2):
        p.get_message(timeout=5)


def scan(r):
    keys = {f"{KEY}:scan:{n}" for n in range(300)}
    for key in keys:
        r.set(key, 1)
    same(set(r.scan_iter(match=f"{KEY}:scan:*", count=50)), keys)


def script(r):
    sha = r.script_load(SCRIPT)
    same(r.evalsha(sha, 1, KEY, "by script"), "by script")
    same(r.register_script(SCRIPT + " -- again")(keys=[KEY], args=["again"]), "again")


def blocking(r):
    key = f"{KEY}:list"
    r.delete(key)
    same(r.blpop(key, timeout=1), None)
    later = threading.Timer(0.1, lambda: redis.Redis(**OPTIONS).rpush(key, "element"))
    later.start()
    found = r.blpop(key, timeout=4)
    later.join()
    same(list(found), [key, "element"])


# --- asyncio ---

async def a_handshake(r):
    same(await r.ping(), True)
    same(await r.client_getname(), "work-out")


async def a_get_set(r):
    same(await r.set(KEY, "value"), True)
    same(await r.get(KEY), "value")


async def a_pipeline(r):
    async with r.pipeline(transaction=False) as pipe:
        for n in range(100):
            pipe.set(f"{KEY}:{n}", n).get(f"{KEY}:{n}")
        same((await pipe.execute())[1::2], [str(n) for n in range(100)])


async def a_multi(r):
    async with r.pipeline() as pipe:
        pipe.set(f"{{{KEY}}}a", 1).incr(f"{{{KEY}}}a")
        same(await pipe.execute(), [True, 2])


async def a_watch(r):
    key = f"{{{KEY}}}watched"
    async with r.pipeline() as pipe:
        await pipe.watch(key)
        await r.set(key, 10)
        pipe.multi()
        pipe.incr(key)
        try:
            await pipe.execute()
        except redis.WatchError:
            return
    raise AssertionError("a change of the watched key went by unnoticed")


async def a_pubsub(r):
    async with r.pubsub() as p:
        await p.subscribe(f"{KEY}:news")
        same((await p.get_message(timeout=5))["type"], "subscribe")
        for n in range(3):
            await r.publish(f"{KEY}:news", n)
        same([(await p.get_message(timeout=5))["data"] for _ in range(3)], ["0", "1", "2"])


async def a_scan(r):
    keys = {f"{KEY}:scan:{n}" for n in range(300)}
    for key in keys:
        await r.set(key, 1)
    same({key async for key in r.scan_iter(match=f"{KEY}:scan:*", count=50)}, keys)


async def a_script(r):
    same(await r.evalsha(await r.script_load(SCRIPT), 1, KEY, "by script"), "by script")


async def a_blocking(r):
    key = f"{KEY}:list"
    await r.delete(key)
    same(await r.blpop(key, timeout=1), None)
    waiting = asyncio.create_task(r.blpop(key, timeout=4))
    await asyncio.sleep(0.1)
    await r.rpush(key, "element")
    same(list(await waiting), [key, "element"])


# --- both ---

SYNC = [handshake, get_set, pipeline, multi, watch, pubsub, scan, script, blocking]
ASYNC = [a_handshake, a_get_set, a_pipeline, a_multi, a_watch, a_pubsub, a_scan, a_script, a_blocking]


def report(step, error):
    name = step.__name__.removeprefix("a_").replace("_", "-")
    print(f"failed {name}: {type(error).__name__}: {error}" if error else f"ok {name}", flush=True)
    return error is None


def work_out():
    for step in SYNC:
        try:
            with redis.Redis(**OPTIONS) as r:
                step(r)
            yield report(step, None)
        except Exception as error:
            yield report(step, error)


async def a_work_out():
    good = []
    for step in ASYNC:
        try:
            async with redis.asyncio.Redis(**OPTIONS) as r:
                await asyncio.wait_for(step(r), 20)
            good.append(report(step, None))
        except Exception as error:
            good.append(report(step, error))
    return good


print(f"version {redis.__version__}")
passed = list(work_out()) if STYLE == "sync" else asyncio.run(a_work_out())
sys.exit(0 if all(passed) else 1)
