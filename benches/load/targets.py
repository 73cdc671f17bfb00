"""Clusters to load, and the programs in front of them."""

import binascii
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "suites"))
from servers import Failed, Redis, answers, end, free_node_port, free_port, wait  # noqa: E402
from shapes import BIG, BIG_KEYS, HUGE, HUGE_KEYS, KEYS  # noqa: E402

TICKS = os.sysconf("SC_CLK_TCK")


class Cluster:
    """So many primaries of its own, without replicas and with nothing on disk; `with` stops them."""

    def __init__(self, program, nodes, cpu):
        self.program, self.folder = program, tempfile.mkdtemp(prefix="load-cluster-")
        pinned = ["taskset", "-c", cpu] if cpu else []
        self.local(pinned, "up", "--detach", "--port", 0, "--nodes", nodes, "--replicas", 0)
        rows = [line.split() for line in self.local([], "status").splitlines()]
        self.nodes = [row[0] for row in rows if len(row) > 1 and row[1] == "primary"]
        self.owners = owners(port_of(self.nodes[0]))

    def local(self, before, verb, *options):
        command = [*before, self.program, "local", verb, "--dir", Path(self.folder) / "cluster", *options]
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
        if done.returncode != 0:
            raise Failed(f"slotway local {verb}: {done.stdout}{done.stderr}")
        return done.stdout

    def fill(self):
        """Gives every key that a shape may ask for a value, at its owner."""
        for size, count, prefix in ((64, KEYS, "memtier-"), (BIG, BIG_KEYS, "big-"), (HUGE, HUGE_KEYS, "huge-")):
            names = [f"{prefix}{n}" for n in range(count + 1)]
            # redis-benchmark's have twelve digits.
            names += [f"{prefix}{n:012d}" for n in range(count)]
            by_owner = defaultdict(list)
            for name in names:
                by_owner[self.owners[slot_of(name)]].append(name.encode())
            for port, own in by_owner.items():
                store(port, own, b"x" * size)

    def redirect_half(self):
        """Makes every other slot one that is on its way, with all its keys already at the next node: asked redirects."""
        ports = sorted(set(self.owners.values()))
        after = dict(zip(ports, ports[1:] + ports[:1]))
        ids = {port: ask(port, "CLUSTER", "MYID").decode() for port in ports}
        for slot in range(0, 16384, 2):
            source = self.owners[slot]
            ask(after[source], "CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
            ask(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", ids[after[source]])
        for source in ports:
            with Redis(source) as redis:
                for slot in (slot for slot in range(0, 16384, 2) if self.owners[slot] == source):
                    keys = redis.ask("CLUSTER", "GETKEYSINSLOT", slot, 1_000_000)
                    if keys:
                        redis.ask("MIGRATE", "127.0.0.1", after[source], "", 0, 5000, "KEYS", *keys)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.local([], "down")
        shutil.rmtree(self.folder, ignore_errors=True)


class SecureCluster(Cluster):
    """The same of nodes that the proxy speaks TLS with; they are filled without it."""

    def __init__(self, program, nodes, cpu, papers):
        self.folder, self.processes = tempfile.mkdtemp(prefix="load-cluster-"), []
        ports = [self.start(free_port(), free_node_port(), ["taskset", "-c", cpu] if cpu else [], papers) for _ in range(nodes)]
        self.nodes = [f"127.0.0.1:{tls}" for _, tls in ports]
        command = [program, "cluster", "create", "--tls", "--cacert", papers.ca, "--yes", *self.nodes]
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
        if done.returncode != 0:
            self.__exit__()
            raise Failed(f"slotway cluster create: {done.stdout}{done.stderr}")
        self.owners = owners(ports[0][0])

    def start(self, port, tls, pinned, papers):
        folder = Path(self.folder) / str(tls)
        folder.mkdir()
        options = ["--port", port, *papers.node_options(tls), "--cluster-enabled", "yes", "--save", "", "--dir", folder, "--logfile", "log"]
        command = [str(word) for word in [*pinned, "redis-server", *options]]
        self.processes.append(subprocess.Popen(command, start_new_session=True))
        wait("a node", lambda: answers(port), self.processes[-1])
        return port, tls

    def __exit__(self, *_):
        for process in self.processes:
            end(process)
        shutil.rmtree(self.folder, ignore_errors=True)


class Given:
    """A cluster that is there already. It is not filled: its keys are what they are."""

    def __init__(self, nodes):
        self.nodes = nodes

    def fill(self):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


class Target:
    """A proxy: one that already listens at host:port (with `pid`, if its processor time is to be told), or a command to start.

    A command has {port}, {nodes} (host:port with spaces between), {nodes_csv}, {first} (of them), {workers} in it, and {conf}, a file made
    of the template `conf` with the same placeholders, braces doubled; and {tls}, what has slotway speak TLS if there are `papers`.
    `port` is without TLS, `load_port` is where the load goes."""

    def __init__(self, name, command, nodes, cpu, conf=None, workers=1, papers=None):
        self.name, self.process = name, None
        if is_address(command):
            self.port, _, pid = command.rsplit(":", 1)[1].partition("#")
            self.port, self.pid = int(self.port), int(pid) if pid else None
            self.load_port = self.port
            return
        self.port, self.folder = free_port(), tempfile.mkdtemp(prefix=f"load-{name}-")
        words = {"port": self.port, "nodes": " ".join(nodes), "nodes_csv": ",".join(nodes), "first": nodes[0], "workers": workers, "conf": f"{self.folder}/conf"}
        self.load_port = free_port() if papers and papers.side == "clients" else self.port
        words["tls"] = f"--config {papers.config(self.load_port)}" if papers else ""
        if conf:
            Path(words["conf"]).write_text(Path(conf).read_text().format(**words))
        pinned = ["taskset", "-c", cpu] if cpu else []
        log = open(f"{self.folder}/log", "wb")
        command = [*pinned, *shlex.split(command.format(**words))]
        self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        self.pid = self.process.pid
        try:
            wait(name, self.serves, self.process)
        except Failed as failed:
            log = Path(f"{self.folder}/log").read_text(errors="replace")
            self.stop()
            raise Failed(f"{failed}: {log[-300:]}") from None

    def serves(self):
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as probe:
                probe.settimeout(1)
                probe.sendall(b"*2\r\n$3\r\nGET\r\n$9\r\nmemtier-1\r\n")
                return probe.recv(1) == b"$"
        except OSError:
            return False

    def cpu_seconds(self):
        if self.pid is None:
            return None
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return sum(map(int, fields[11:15])) / TICKS

    def rss_kib(self):
        if self.pid is None:
            return None
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))

    def stop(self):
        if self.process:
            end(self.process)
            shutil.rmtree(self.folder, ignore_errors=True)


def is_address(text):
    host, colon, port = text.rpartition(":")
    return bool(colon) and " " not in host and port.partition("#")[0].isdigit()


def port_of(address):
    return int(address.rsplit(":", 1)[1])


def ask(port, *words):
    with Redis(port) as redis:
        return redis.ask(*words)


def owners(port):
    return {
        slot: row[2][1]
        for row in ask(port, "CLUSTER", "SLOTS")
        for slot in range(row[0], row[1] + 1)
    }


def slot_of(name):
    return binascii.crc_hqx(name.encode(), 0) % 16384


def store(port, names, value):
    with socket.create_connection(("127.0.0.1", port)) as stream:
        for at in range(0, len(names), 200):
            some = names[at:at + 200]
            stream.sendall(b"".join(b"*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n" % (len(n), n, len(value), value) for n in some))
            missing = 5 * len(some)  # +OK\r\n
            while missing > 0:
                missing -= len(stream.recv(65536))
