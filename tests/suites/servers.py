#!/usr/bin/env python3
"""Servers to run other people's programs against, on free loopback ports.

    Standalone   one redis-server
    Front        a cluster of three primaries with a replica each (`slotway local`), and `slotway serve` in front of it

Both have `port`, `is_well()`, `renew()` (as good as new for the next test file) and `stop()`.

As a program, it starts a Front, puts its address where the command says {host} and {port}, and stops it afterwards:

    tests/suites/servers.py [--server redis-server] [--proxy target/release/slotway] -- redis-cli -p {port} ping
"""

import argparse
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOST = "127.0.0.1"
# How long a server may take to start, and to answer a simple question, in seconds.
START, ANSWER = 30, 5


class Failed(Exception):
    """A server does not do what everything else here rests on."""


def default_proxy():
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "slotway"


def free_port():
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def free_node_port():
    """One for a node of a cluster: the port 10000 above is its bus's."""
    while True:
        port = free_port()
        with contextlib.suppress(OSError, OverflowError), socket.socket() as probe:
            probe.bind((HOST, port + 10_000))
            return port


class Redis:
    """A connection that sends one command and reads one RESP2 reply; errors are raised as `Failed`."""

    def __init__(self, port):
        self.socket = socket.create_connection((HOST, port), timeout=ANSWER)
        self.input = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def ask(self, *words):
        words = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        parts = [b"*%d\r\n" % len(words)] + [b"$%d\r\n%s\r\n" % (len(word), word) for word in words]
        self.socket.sendall(b"".join(parts))
        return self.reply()

    def reply(self):
        line = self.input.readline()
        if not line.endswith(b"\r\n"):
            raise Failed("the connection was closed")
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            raise Failed(rest.decode())
        if kind == b"+":
            return rest
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if rest == b"-1" else self.input.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return [self.reply() for _ in range(int(rest))]
        raise Failed(f"not a reply: {line!r}")


def wait(what, is_so, process=None):
    end = time.monotonic() + START
    while not is_so():
        if time.monotonic() > end or (process and process.poll() is not None):
            raise Failed(f"{what}: not within {START} s")
        time.sleep(0.05)


def answers(port):
    with contextlib.suppress(OSError, Failed), Redis(port) as redis:
        return redis.ask("PING") == b"PONG"
    return False


def end(process):
    """Ends a process that was started as the leader of its own group, and all that it has started."""
    for word in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, word)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
            if word == signal.SIGKILL:
                return


class Standalone:
    """One server without a configuration file, a new one after each `renew`."""

    name = "standalone"

    def __init__(self, server, _proxy):
        self.server = server
        self.start()

    def start(self):
        self.port = free_port()
        self.folder = tempfile.mkdtemp(prefix="suites-standalone-")
        options = ["--port", self.port, "--save", "", "--dir", self.folder, "--logfile", "server.log"]
        self.process = subprocess.Popen([self.server, *map(str, options)], start_new_session=True)
        wait("the standalone server", lambda: answers(self.port), self.process)

    def is_well(self):
        return None if answers(self.port) else "the server does not answer"

    def renew(self):
        self.stop()
        self.start()

    def stop(self):
        end(self.process)
        shutil.rmtree(self.folder, ignore_errors=True)


class Front:
    """A 3+3 cluster with a proxy in front. `renew` starts a new proxy, and resets the nodes to how they came up."""

    name = "proxy"
    # What the proxy is told: all that it can do to look like one server.
    config = """[client]
cross_slot = "emulate"
transactions = "per_slot"
queueing = "nodes"
ping = "nodes"
"""

    def __init__(self, server, proxy):
        self.server, self.program = server, Path(proxy).resolve()
        if not self.program.exists():
            raise Failed(f"there is no {self.program}: cargo build --release")
        self.folder = tempfile.mkdtemp(prefix="suites-front-")
        self.start_cluster()
        self.start_proxy()

    def local(self, verb, *options):
        command = [self.program, "local", verb, "--dir", Path(self.folder) / "cluster", *options]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        if done.returncode != 0 and verb != "down":
            raise Failed(f"slotway local {verb}: {done.stdout}{done.stderr}")
        return done.stdout

    def start_cluster(self):
        self.local("up", "--detach", "--port", "0", "--server", self.server)
        rows = [line.split() for line in self.local("status").splitlines()]
        self.primaries = [row[0] for row in rows if len(row) > 1 and row[1] == "primary"]
        ports = [row[0].rsplit(":", 1)[1] for row in rows if len(row) > 1 and row[1] in ("primary", "replica")]
        self.nodes = [int(port) for port in ports]
        if len(self.primaries) != 3 or len(self.nodes) != 6:
            raise Failed(f"a cluster of other nodes than 3+3: {rows}")
        self.settings = {port: settings(port) for port in self.nodes}

    def start_proxy(self):
        self.port, self.http = free_port(), free_port()
        self.log = Path(self.folder) / "proxy.log"
        listeners = ["--listen", f"{HOST}:{self.port}", "--http", f"{HOST}:{self.http}", "--admin", "off"]
        config = Path(self.folder) / "slotway.toml"
        config.write_text(self.config.format(folder=self.folder))
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [str(self.program), "serve", *listeners, "--config", str(config), *self.primaries],
                stdout=log, stderr=log, start_new_session=True,
            )
        wait("the proxy", self.is_ready, self.process)

    def is_ready(self):
        try:
            with urllib.request.urlopen(f"http://{HOST}:{self.http}/readyz", timeout=ANSWER) as answer:
                return answer.status == 200
        except (OSError, urllib.error.URLError):
            return False

    def is_well(self):
        """None, or what is wrong: the proxy has died or panicked, or does not serve each shard any more."""
        if self.process.poll() is not None:
            return f"the proxy has ended with {self.process.returncode}"
        if "panicked at" in self.log.read_text(errors="replace"):
            return f"the proxy has panicked: {self.log}"
        try:
            with Redis(self.port) as redis:
                for n in range(30):
                    redis.ask("EXISTS", f"well{n}")
        except (OSError, Failed) as error:
            return f"the proxy does not answer: {error}"
        return None

    def renew(self):
        end(self.process)
        try:
            for port in self.nodes:
                reset(port, self.settings[port], f"{HOST}:{port}" in self.primaries)
            self.start_proxy()
        except (OSError, Failed) as error:
            print(f"starting another cluster: {error}", file=sys.stderr)
            end(self.process)
            self.local("down")
            self.start_cluster()
            self.start_proxy()

    def stop(self):
        end(self.process)
        self.local("down")
        shutil.rmtree(self.folder, ignore_errors=True)


class Administered(Front):
    """One whose cluster can be changed over HTTP."""

    password = "the word"

    config = f'[admin]\npassword = "{password}"\nstate_folder = "{{folder}}/state"\n'


def settings(port):
    with Redis(port) as redis:
        flat = redis.ask("CONFIG", "GET", "*")
        return dict(zip(flat[::2], flat[1::2]))


def reset(port, wanted, is_primary):
    """Undoes what tests leave behind in a node."""
    with Redis(port) as redis:
        for kind in ("SCRIPT", "FUNCTION"):
            with contextlib.suppress(Failed):  # none runs
                redis.ask(kind, "KILL")
        redis.ask("CLIENT", "UNPAUSE")
        for name, value in settings(port).items():
            if value != wanted[name]:
                with contextlib.suppress(Failed):  # some cannot be set
                    redis.ask("CONFIG", "SET", name, wanted[name])
        if is_primary:
            redis.ask("FLUSHALL")
            redis.ask("FUNCTION", "FLUSH")
        redis.ask("SCRIPT", "FLUSH")
        redis.ask("CONFIG", "RESETSTAT")
        redis.ask("SLOWLOG", "RESET")
        others = [user for user in redis.ask("ACL", "USERS") if user != b"default"]
        if others:
            redis.ask("ACL", "DELUSER", *others)


def options(parser):
    parser.add_argument("--server", default="redis-server", help="the server program (default: %(default)s)")
    parser.add_argument("--proxy", default=default_proxy(), help="the proxy (default: %(default)s)")


def main():
    parser = argparse.ArgumentParser(description="Runs a command against a cluster with the proxy in front.")
    options(parser)
    parser.add_argument("command", nargs="+", help="with {host} and {port} where the address belongs")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("broken off"))
    front = Front(args.server, args.proxy)
    try:
        words = [word.replace("{host}", HOST).replace("{port}", str(front.port)) for word in args.command]
        code = subprocess.run(words).returncode
        complaint = front.is_well()
        if complaint:
            sys.exit(complaint)
        sys.exit(code)
    finally:
        front.stop()


if __name__ == "__main__":
    main()
