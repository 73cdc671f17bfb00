#!/usr/bin/env python3
"""Uses the status page as people do, in Chromium, before a real cluster of 3+3 that grows and shrinks under load.

    page.py PROGRAM CHROMIUM FOLDER      screenshots go into FOLDER; `run.sh` installs what this needs
"""

import re
import subprocess
import sys
import threading
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "suites"))
from servers import HOST, Administered, Redis, answers, end, free_node_port, wait  # noqa: E402

PASSWORD = Administered.password
KEYS, WIDE, NARROW = 3000, {"width": 1280, "height": 900}, {"width": 360, "height": 740}
# How long a job, and anything else, may take on a busy machine, in milliseconds.
JOB, PATIENCE = 60_000, 15_000


class Stage(Administered):
    """The cluster, its proxy, and a seventh node that is nobody's."""

    def start_seventh(self):
        folder, port = Path(self.folder) / "seventh", free_node_port()
        folder.mkdir()
        self.seventh = f"{HOST}:{port}"
        options = ["--port", port, "--cluster-enabled", "yes", "--save", "", "--dir", folder, "--logfile", "server.log"]
        self.extra = subprocess.Popen([self.server, *map(str, options)], start_new_session=True)
        wait("the seventh node", lambda: answers(port), self.extra)

    def stop(self):
        if hasattr(self, "extra"):
            end(self.extra)
        super().stop()


class Load:
    """A client that reads all the time, and wants the right answers."""

    def __init__(self, port):
        self.redis, self.over, self.fault = Redis(port), threading.Event(), None
        for n in range(KEYS):
            self.redis.ask("SET", f"key{n}", n)
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        n = 0
        # Some hundred requests each second: something to be seen, and no burden.
        while not self.over.wait(0.003) and self.fault is None:
            n = (n + 1) % KEYS
            try:
                answer = self.redis.ask("GET", f"key{n}")
                if answer != str(n).encode():
                    self.fault = f"key{n}: {answer}"
            except Exception as error:  # told where the main thread looks
                self.fault = f"key{n}: {error}"

    def stop(self):
        self.over.set()
        self.thread.join()
        assert self.fault is None, self.fault


class Watch:
    """What the page must not do: complain, ask others, be refused unawares."""

    def __init__(self, page, base):
        self.base, self.faults, self.awaited = base, [], None
        page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        page.on("console", self.hear)
        page.on("request", self.see)
        page.on("response", self.answered)

    def hear(self, message):
        # That a request was refused is looked at where it is answered.
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.faults.append(f"console: {message.text}")

    def see(self, request):
        if not request.url.startswith((self.base, "data:")):
            self.faults.append(f"asks elsewhere: {request.url}")

    def answered(self, response):
        if response.status >= 400 and response.status != self.awaited:
            self.faults.append(f"{response.status} {response.url}")

    def finds_nothing(self):
        assert not self.faults, "\n".join(self.faults)


# How many slots have which colour in their middle.
PAINTED = """() => {
    const copy = new OffscreenCanvas(768, 768).getContext('2d', { willReadFrequently: true });
    copy.drawImage(document.getElementById('map'), 0, 0);
    const { data } = copy.getImageData(0, 0, 768, 768);
    const seen = {};
    for (let slot = 0; slot < 16384; slot += 1) {
        const at = 4 * ((Math.floor(slot / 128) * 6 + 3) * 768 + (slot % 128) * 6 + 3);
        const colour = `rgb(${data[at]}, ${data[at + 1]}, ${data[at + 2]})`;
        seen[colour] = (seen[colour] ?? 0) + 1;
    }
    return seen;
}"""
LEGEND = """() => [...document.querySelectorAll('#legend li')].filter((row) => row.textContent.includes('Shard')).map((row) =>
    [row.children[0].style.backgroundColor, Number(row.children[2].textContent.replace(',', ''))])"""


def counts_of(page):
    return [count for _, count in page.evaluate(LEGEND)]


def sees_shards(page, owned):
    """The map's text says who owns how many slots; the legend says the same, and so do the pixels."""
    expect(page.locator("#legend li", has_text="Shard")).to_have_count(len(owned))
    expect(page.locator("#map")).to_have_attribute("aria-label", re.compile("; 0 without owner; 0 moving$"))
    text = page.locator("#map").get_attribute("aria-label")
    told = {address: int(n.replace(",", "")) for address, n in re.findall(r"shard \w, (\S+): ([\d,]+) slot", text)}
    assert told == owned, text
    legend, painted = page.evaluate(LEGEND), page.evaluate(PAINTED)
    assert len({colour for colour, _ in legend}) == len(owned), legend
    for colour, count in legend:
        # Letters stand on some.
        assert count * 0.8 < painted.get(colour, 0) <= count, (colour, count, painted)


def is_read_only(page):
    for button in page.locator("#orders button, td.acts button").all():
        expect(button).to_be_disabled()


def unlock(page, password):
    page.get_by_label("Administrators’ password").fill(password)
    page.keyboard.press("Enter")


def tab_to(page, text):
    """Goes on by the keyboard until a control of this name has the focus."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent").strip() == text:
            return
    raise AssertionError(f"{text!r} is not reached by the keyboard")


def walks_the_map(page):
    page.locator("#map").focus()
    page.keyboard.press("End")
    expect(page.locator("#slot")).to_contain_text("Slot 16383: shard C")
    page.keyboard.press("ArrowUp")
    expect(page.locator("#slot")).to_contain_text("Slot 16255: shard C")


def adds_by_keyboard(page, address):
    tab_to(page, "Add a node…")
    page.keyboard.press("Enter")
    page.keyboard.type(address)
    page.keyboard.press("Enter")
    plan = page.locator("#order .plan")
    expect(plan).to_contain_text(f"{address} joins the cluster")
    expect(plan).to_contain_text("The plan: 4,096 slots move")
    lines = plan.locator("summary").all_inner_texts()
    assert len(lines) == 3, lines
    for line in lines:
        assert re.search(rf"^{HOST}:\d+ gives 1,36\d slots to {address}$", line), line
    tab_to(page, "Do it")
    page.keyboard.press("Enter")


def sees_job(page, title, state):
    row = page.locator("#past li").first
    expect(row.locator("summary")).to_contain_text(f"{title} {state}", timeout=JOB)
    expect(page.locator("#running")).to_contain_text("No job runs.")
    return row


def is_refused(page, watch, primaries):
    """What is wrong is told, and as text, whatever it looks like."""
    watch.awaited = 400
    page.get_by_role("button", name="Add a node…").click()
    page.get_by_label("Address").fill("<img src=x>")
    page.get_by_role("button", name="Show the plan").click()
    expect(page.locator("#order [role=alert]")).to_contain_text('BADARG: "<img src=x>" is no address')
    assert page.locator("img").count() == 0
    page.keyboard.press("Escape")
    expect(page.locator("#order")).not_to_be_visible()
    watch.awaited = 409
    page.get_by_role("button", name="Create a cluster…").click()
    page.get_by_label("Empty nodes").fill(" ".join(primaries))
    page.get_by_role("button", name="Show the plan").click()
    expect(page.locator("#order [role=alert]")).to_contain_text(f"NOTEMPTY: {primaries[0]}")
    page.keyboard.press("Escape")
    watch.awaited = None


def removes_haltingly(page, address, shoot):
    """It drains slowly, is held, made faster and let go on."""
    page.get_by_role("button", name=f"Remove… {address}").click()
    page.get_by_label("Most keys each second").fill("100")
    page.get_by_role("button", name="Show the plan").click()
    plan = page.locator("#order .plan")
    expect(plan).to_contain_text(f"{address} is removed")
    expect(plan.locator("summary")).to_have_count(3)
    shoot("plan")
    page.get_by_role("button", name="Do it").click()
    running = page.locator("#running")
    expect(running.locator("progress")).not_to_have_js_property("value", 0)
    expect(page.locator("#busy")).to_contain_text("Removing a node")
    running.get_by_role("button", name="Pause").click()
    expect(running).to_contain_text("paused")
    shoot("job")
    running.get_by_label("most keys each second").fill("0")
    running.get_by_role("button", name="Set speed").click()
    running.get_by_role("button", name="Resume").click()


def plans_only(page, order, fill, expected):
    """A plan that is looked at and left."""
    page.get_by_role("button", name=f"{order}…", exact=True).click()
    fill(page.locator("#order"))
    page.get_by_role("button", name="Show the plan").click()
    expect(page.locator("#order .plan")).to_contain_text(expected)
    page.get_by_role("button", name="Close").click()


def plans_moves(page, stage):
    first, second, third = stage.primaries

    def reshard(form):
        form.get_by_label("How many slots").fill("300")
        form.get_by_label("To", exact=True).select_option(label=f"{second} (shard B)")
        form.get_by_label(f"{third} (shard C)").check()

    def rebalance(form):
        form.get_by_label(f"{first} (shard A)").fill("2")

    plans_only(page, "Reshard", reshard, f"{third} gives 300 slots to {second}")
    plans_only(page, "Rebalance", rebalance, f"slots to {first}")


def fails_over(page, stage):
    """A shard keeps its letter and colour when another node of it takes over."""
    replica = page.locator("tr.node", has_text="replica").first.locator("strong").inner_text()
    before = page.evaluate(LEGEND)
    page.get_by_role("button", name=f"Make primary… {replica}").click()
    page.get_by_role("button", name="Show the plan").click()
    expect(page.locator("#order .plan")).to_contain_text(f"{replica} takes the place of its primary")
    page.get_by_role("button", name="Do it").click()
    sees_job(page, "Failing over", "completed")
    expect(page.locator("#legend li").first).to_contain_text(replica)
    expect(page.locator("tr.node", has_text=replica)).to_contain_text("primary")
    stage.primaries[0] = replica
    assert page.evaluate(LEGEND) == before


def repairs(page, stage):
    """A slot that somebody has left half open is closed."""
    first, second = (Redis(int(address.rsplit(":", 1)[1])) for address in stage.primaries[:2])
    own = next(line for line in first.ask("CLUSTER", "NODES").decode().splitlines() if "myself" in line)
    slot = own.split()[8].split("-")[0]
    first.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", second.ask("CLUSTER", "MYID"))
    page.get_by_role("button", name="Repair…", exact=True).click()
    page.get_by_role("button", name="Show the plan").click()
    expect(page.locator("#order .plan")).to_contain_text(f"slots {slot}: ")
    page.get_by_role("button", name="Do it").click()
    sees_job(page, "Repairing", "completed")
    assert f"[{slot}->-" not in first.ask("CLUSTER", "NODES").decode()


def controls_have_names(page):
    nameless = page.evaluate("""() => [...document.querySelectorAll('button, input, select, canvas, progress')].filter((one) =>
        !(one.labels?.length || one.ariaLabel || one.textContent.trim())).map((one) => one.outerHTML)""")
    assert not nameless, nameless


def shooter(page, folder):
    """Takes screenshots at both widths, light and dark; nothing may be wider than the narrow one."""

    def shoot(name):
        for width, size in (("wide", WIDE), ("narrow", NARROW)):
            page.set_viewport_size(size)
            for scheme in ("light", "dark"):
                page.emulate_media(color_scheme=scheme)
                page.screenshot(path=folder / f"{name}-{width}-{scheme}.png", full_page=name != "plan")
            assert page.evaluate("document.scrollingElement.scrollWidth") <= size["width"], (name, width)
        page.set_viewport_size(WIDE)
        page.emulate_media(color_scheme="light")

    return shoot


def looks(page, stage):
    """Whoever comes sees all, and can change nothing without the password."""
    sees_shards(page, dict(zip(stage.primaries, [5461, 5462, 5461])))
    expect(page.locator("tr.node")).to_have_count(6)
    expect(page.locator("#notice")).to_have_text("All slots are covered, and all nodes agree.")
    expect(page.locator("#why")).to_contain_text("Read-only")
    is_read_only(page)
    unlock(page, "another")
    expect(page.locator("#why")).to_contain_text("That is not")
    is_read_only(page)
    walks_the_map(page)
    unlock(page, PASSWORD)
    expect(page.locator("#unlocked")).to_be_visible()
    assert "word" not in page.url


def grows_and_shrinks(page, stage, watch, shoot):
    adds_by_keyboard(page, stage.seventh)
    sees_job(page, "Adding a node", "completed")
    sees_shards(page, dict.fromkeys([*stage.primaries, stage.seventh], 4096))
    controls_have_names(page)
    shoot("four")
    is_refused(page, watch, stage.primaries)
    removes_haltingly(page, stage.seventh, shoot)
    row = sees_job(page, "Removing a node", "completed")
    row.locator("summary").click()
    expect(row.locator("pre")).to_contain_text("phase moving")
    expect(page.locator("table")).not_to_contain_text(stage.seventh)
    counts = counts_of(page)
    assert sum(counts) == 16384, counts
    sees_shards(page, dict(zip(stage.primaries, counts)))
    plans_moves(page, stage)
    fails_over(page, stage)
    sees_shards(page, dict(zip(stage.primaries, counts)))
    repairs(page, stage)


def locks(page):
    page.get_by_role("button", name="Lock", exact=True).click()
    expect(page.locator("#why")).to_contain_text("Read-only")
    is_read_only(page)


def says_what_is_old(page, stage):
    end(stage.process)
    expect(page.locator("#notice")).to_contain_text("The proxy does not answer")
    expect(page.locator("body")).to_have_class("stale")


def use(page, stage, folder):
    base = f"http://{HOST}:{stage.http}/"
    watch, shoot, load = Watch(page, base), shooter(page, folder), Load(stage.port)
    try:
        page.goto(base)
        looks(page, stage)
        grows_and_shrinks(page, stage, watch, shoot)
        locks(page)
        watch.finds_nothing()
    except BaseException:
        page.screenshot(path=folder / "failed.png", full_page=True)
        print(*watch.faults, sep="\n", file=sys.stderr)
        raise
    finally:
        load.stop()
    says_what_is_old(page, stage)


def main():
    program, chromium, folder = sys.argv[1:]
    stage = Stage("redis-server", program)
    try:
        stage.start_seventh()
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
            page = browser.new_page(viewport=WIDE)
            page.set_default_timeout(PATIENCE)
            expect.set_options(timeout=PATIENCE)
            use(page, stage, Path(folder))
            browser.close()
    finally:
        stage.stop()


if __name__ == "__main__":
    main()
