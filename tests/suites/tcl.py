"""The Tcl suite that comes with Redis, one file at a time, in external-server mode."""

import random
import re
import shutil
import subprocess
from pathlib import Path

from servers import HOST, end

# Seconds without any test ending after which the suite gives up on a file and says which test is stuck; for a whole file;
# how many stuck tests of a file are left out one after the other to see the rest of it; and how often it may try to start.
IDLE, WHOLE, STUCK, STARTS = 90, 900, 6, 5

# What the suite does around its tests is not to fail them: a server that refuses one of these loses the tests that need
# it, not the whole file. A failed test is not to leave its connection inside MULTI, or watching keys, a script that runs for
# ever, a client that waits to take an element, messages that nobody has read, or a server that is paused or has no memory for
# the next one. And a server that never blocks is not waited for five seconds each time. With each text, how often version 7.0 has it.
AROUND = [
    ("server.tcl", 1, "    r flushall\n    r function flush\n",
     "    catch {r client unpause}\n    catch {r script kill}\n    r flushall\n    catch {r function flush}\n"),
    ("server.tcl", 1,
     "dict set saved_config $param [lindex [r config get $param] 1]\n        r config set $param $val\n",
     "if {[catch {dict set saved_config $param [lindex [r config get $param] 1]\n        r config set $param $val}]} continue\n"),
    ("server.tcl", 1,
     "    dict for {param val} $saved_config {\n        r config set $param $val\n    }\n\n    set srv",
     "    dict for {param val} $saved_config {\n        catch {r config set $param $val}\n    }\n\n    set srv"),
    ("util.tcl", 1, "wait_for_condition 50 100 {\n        [s $idx blocked_clients] ne 0",
     "wait_for_condition 20 100 {\n        [s $idx blocked_clients] ne 0"),
    ("test.tcl", 2, "            incr ::num_failed\n", """            incr ::num_failed
            catch {uplevel 1 {if {[info exists rd_redirection]} {
                foreach client [list [srv 0 client] $rd_sg $rd_redirection] {
                    $client write [formatCommand PING all-read]
                    $client flush
                    while {![string match *all-read [$client read]]} {}
                }
            }}}
            catch {r readraw 0; r discard}
            catch {r unwatch}
            if {![catch {r script kill}] || ![catch {r function kill}]} {after 200}
            catch {r config set maxmemory 0}
            set blocked {id=(\\d+) [^\\n]* flags=\\w*b}
            catch {foreach {_ id} [regexp -all -inline $blocked [r client list]] {r client kill id $id}}
"""),
]

LINE = re.compile(r"^\[(ok|err|exception|skip|ignore|ready|testing|done|TIMEOUT|\d+/\d+ done)\]: ?(.*)$")
ANSI = re.compile(r"\x1b\[[0-9;]*m")


class Suite:
    """A copy of the checkout's tests with the tools they call, since running them writes beside them."""

    name = "tcl"
    # Nothing passes without a server.
    needs_nothing = False

    def __init__(self, args, scratch):
        self.checkout, self.scratch, self.tags = Path(args.checkout), scratch, args.tags
        if not (self.checkout / "runtest").exists():
            raise SystemExit(f"{self.checkout} has no runtest: not a checkout of Redis")
        self.server = Path(shutil.which(args.server) or args.server)

    def units(self):
        text = (self.checkout / "tests/test_helper.tcl").read_text()
        listed = re.search(r"set ::all_tests \{(.*?)\}", text, re.S).group(1).split()
        # The others start servers of their own throughout.
        tools = {"integration/redis-cli", "integration/redis-benchmark"}
        return [unit for unit in listed if unit.startswith("unit/") or unit in tools]

    def prepare(self, target):
        home = self.scratch / target
        if home.exists():
            return home
        shutil.copytree(self.checkout / "tests", home / "tests")
        shutil.copy(self.checkout / "runtest", home)
        (home / "tests/tmp").mkdir(exist_ok=True)
        (home / "src").mkdir()
        for tool in ("redis-server", "redis-cli", "redis-benchmark"):
            found = self.server.with_name(tool)
            if found.exists():
                (home / "src" / tool).symlink_to(found.resolve())
        for name, count, old, new in AROUND:
            harness = home / "tests/support" / name
            text = harness.read_text()
            if text.count(old) != count:
                raise SystemExit(f"tests/support/{name} is not that of Redis 7.0: no {old!r}")
            harness.write_text(text.replace(old, new))
        return home

    def run(self, unit, target, port):
        """The outcome of each test, as {name: (status, what it said)}, and a remark on the file, or None."""
        skipped, outcomes, remarks = [], {}, []
        while True:
            output, in_time = self.started(unit, target, port, skipped)
            found, remark, stuck = parse(output)
            if f"Testing {unit}" not in output:
                remark = f"the suite did not start: {output.strip()[-300:]}"
            for name, outcome in found.items():
                outcomes.setdefault(name, outcome)
            if remark and remark not in remarks:
                remarks.append(remark)
            if stuck is None and in_time:
                break
            remarks.append(f"stuck in '{stuck}'" if stuck else f"not done within {WHOLE} s")
            if stuck:
                outcomes[stuck] = ("stuck", f"no end within {IDLE} s")
            if not stuck or stuck in skipped or len(skipped) + 1 == STUCK:
                break
            skipped.append(stuck)
        return outcomes, "; ".join(remarks) or None

    def started(self, *how):
        """The suite talks to itself on a port that others may have got hold of: then again on another one."""
        for _ in range(STARTS):
            output, in_time = self.runtest(*how)
            if "couldn't open socket: address already in use" not in output:
                break
        return output, in_time

    def runtest(self, unit, target, port, skipped):
        # One of the 32 ports below, if the one 10000 above is free as well.
        base = random.randrange(12000, 30000)
        command = ["./runtest", "--host", HOST, "--port", str(port), "--singledb", "--ignore-encoding", "--ignore-digest",
                   "--durable", "--timeout", str(IDLE), "--baseport", str(base), "--tags", self.tags, "--single", unit]
        for name in skipped:
            command += ["--skiptest", name]
        process = subprocess.Popen(command, cwd=self.prepare(target), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   start_new_session=True)
        try:
            output, in_time = process.communicate(timeout=WHOLE)[0], True
        except subprocess.TimeoutExpired:
            end(process)
            output, in_time = process.communicate()[0], False
        finally:
            end(process)
        return ANSI.sub("", output.decode("utf-8", "replace")), in_time


def parse(output):
    """Outcomes, what went wrong outside of tests, and the test that was stuck."""
    outcomes, remarks, stuck = {}, [], None
    for kind, text in records(output):
        first, *more = text.split("\n")
        if kind == "ok":
            put(outcomes, re.sub(r" \(\d+ ms\)$", "", first), "ok", "")
        elif kind == "skip":
            put(outcomes, first, "skipped", "")
        elif kind == "err":
            named = re.match(r"(.*) in tests/\S+\.tcl$", first)
            if named:
                put(outcomes, named.group(1), "failed", words(more))
            else:
                remarks.append("outside of tests: " + words([first, *more]))
        elif kind == "exception":
            remarks.append("broken off: " + first.removeprefix("Executing test client: "))
        elif kind == "TIMEOUT":
            found = re.search(r"=> \(IN PROGRESS\) (.*)", text)
            stuck = found.group(1) if found else None
            if not found:
                remarks.append("stuck outside of tests")
    return outcomes, "; ".join(remarks), stuck


def records(output):
    """The records of the log: a kind and its text, which can be several lines."""
    kind, lines = None, []
    for line in output.split("\n"):
        if line.strip() == "The End":
            break
        start = LINE.match(line)
        if start:
            if kind:
                yield kind, "\n".join(lines)
            kind, lines = start.group(1), [start.group(2)]
        else:
            lines.append(line)
    if kind:
        yield kind, "\n".join(lines)


def put(outcomes, name, status, said):
    """Some tests have the same name: the second is `name #2`."""
    n, key = 1, name
    while key in outcomes:
        n += 1
        key = f"{name} #{n}"
    outcomes[key] = (status, said)


def words(lines):
    """What went wrong, in a line: of an error that is no assertion, the suite cuts ten characters off at first."""
    lines = [line.strip() for line in lines if line.strip()]
    if len(lines) > 1 and lines[1].endswith(lines[0]) and lines[1] != lines[0]:
        return lines[1]
    return lines[0] if lines else "?"
