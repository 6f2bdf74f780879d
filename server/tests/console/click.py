"""Clicks through the console of a cluster of three brokers, then of two that are left. Any error of the browser's console, any request
that fails, any page that is wider than a phone, and any dialog fails it. Screenshots of every page are left to be looked at.

    click.py BINARIES CHROMIUM DIR
"""

import contextlib
import json
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request

from playwright.sync_api import sync_playwright

BINARIES, CHROMIUM, OUT = pathlib.Path(sys.argv[1]), sys.argv[2], pathlib.Path(sys.argv[3])
HOSTILE = "</pre><script>alert(1)</script><img src=x onerror=alert(2)>"
VIEWS = {
    "light": dict(color_scheme="light", viewport=dict(width=1280, height=900)),
    "dark": dict(color_scheme="dark", viewport=dict(width=1280, height=900)),
    "phone": dict(color_scheme="light", viewport=dict(width=390, height=844), has_touch=True, device_scale_factor=2),
    "calm-dark-phone": dict(color_scheme="dark", viewport=dict(width=390, height=844), reduced_motion="reduce"),
    "no-script": dict(color_scheme="light", viewport=dict(width=1280, height=900), java_script_enabled=False),
}
# Where it is waited for figures to move.
MOVING = {"overview": ["light"], "charts": ["light", "dark", "phone"], "topic": ["light"], "group": ["dark"], "tail": ["light", "phone"]}
faults = []


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Cluster:
    """Three brokers on free ports, with data that is worth a look."""

    def __init__(self, directory):
        ports = free_ports(9)
        self.native, peers, self.http = ports[:3], ports[3:6], ports[6:]
        members = ",".join(f"{number}@127.0.0.1:{port}" for number, port in enumerate(peers))
        self.brokers = []
        for number in range(3):
            settings = {
                "broker.id": number,
                "broker.cluster_id": "console",
                "cores.count": 1,
                "cores.pin": "false",
                "cores.tail_buffer_bytes_max": "8MiB",
                "log.segment_size_bytes": "16MiB",
                "log.batch_size_bytes_max": "1MiB",
                "groups.offsets_partitions": 3,
                "cluster.listen": f"127.0.0.1:{peers[number]}",
                "cluster.members": members,
                "http.listen": f"127.0.0.1:{self.http[number]}",
                "http.console_writes": "true",
            }
            command = [BINARIES / "headwater-server", "--data-dir", f"{directory}/{number}", "--listen", f"127.0.0.1:{self.native[number]}"]
            for key, value in settings.items():
                command += ["--set", f"{key}={value}"]
            log = open(f"{directory}/{number}.log", "wb")
            self.brokers.append(subprocess.Popen(command, stdout=log, stderr=log))
        self.base = f"http://127.0.0.1:{self.http[0]}/console"
        until = time.time() + 60
        while not self.is_well():
            if time.time() > until:
                raise SystemExit("the cluster does not come up: " + pathlib.Path(f"{directory}/0.log").read_text()[-2000:])
            time.sleep(0.3)

    def is_well(self):
        with contextlib.suppress(OSError):
            # Whether all is well is not for this to say: the machine's disk may be nearly full.
            return urllib.request.urlopen(self.base, timeout=5).read().count(b'<span class="badge well">there</span>') == 3

    def cli(self, *arguments, text=None):
        command = [BINARIES / "headwater", "--server", f"127.0.0.1:{self.native[0]}", *arguments]
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise SystemExit(f"{arguments}: {done.stderr}")
        return done.stdout

    def fill(self):
        self.cli("topic", "create", "orders", "--partitions", "6", "--set", "retention.ms=604800000")
        for number in range(30):
            self.cli("topic", "create", f"metrics.of-a-service-with-a-long-name.{number:02}", "--partitions", "1")
        names = ["Ada", "Grace", "Barbara", "Edsger", "Radia"]
        order = lambda number: {"id": number, "customer": names[number % 5], "items": [{"sku": f"A-{number}", "count": number % 3 + 1}], "paid": number % 4 == 0}
        lines = [json.dumps({"key": names[number % 5], "value": json.dumps(order(number)), "headers": [{"name": "source", "value": "web"}]}) for number in range(400)]
        self.cli("produce", "orders", "--input", "json", text="\n".join(lines) + "\n")
        self.cli("produce", "orders", "--input", "raw", "--key", HOSTILE, "--header", f"{HOSTILE}=x", text=HOSTILE)
        self.cli("consume", "orders", "--group", "billing", "--count", "120")
        self.cli("consume", "orders", "--group", f"reports {HOSTILE}", "--count", "40")

    def load(self, stop):
        """A little that goes on, so that charts have something to show."""
        command = [BINARIES / "headwater", "--server", f"127.0.0.1:{self.native[0]}", "produce", "orders"]
        producer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True)
        with contextlib.suppress(BrokenPipeError):
            number = 0
            while not stop.wait(0.02):
                number += 1
                producer.stdin.write(("x" * (200 + 300 * (number % 7))) + f" {number}\n" * 3)
                producer.stdin.flush()
            producer.stdin.close()
        producer.wait(30)

    def stop(self, number):
        self.brokers[number].send_signal(signal.SIGKILL)
        self.brokers[number].wait()

    def end(self):
        for broker in self.brokers:
            if broker.poll() is None:
                broker.send_signal(signal.SIGTERM)
        for broker in self.brokers:
            with contextlib.suppress(subprocess.TimeoutExpired):
                broker.wait(20)
            broker.kill()


def watched(context, view):
    """A page whose every complaint is a fault."""
    page = context.new_page()
    page.set_default_timeout(15_000)
    is_wrong = lambda message: message.type in ("error", "warning")
    page.on("console", lambda message: is_wrong(message) and faults.append(f"{view} {page.url}: {message.text}"))
    page.on("pageerror", lambda error: faults.append(f"{view} {page.url}: {error}"))
    page.on("dialog", lambda dialog: (faults.append(f"{view} {page.url}: a dialog: {dialog.message}"), dialog.dismiss()))
    page.on("response", lambda answer: answer.status >= 400 and faults.append(f"{view} {answer.url}: {answer.status}"))
    page.on("request", lambda request: request.url.startswith("http://127.0.0.1") or faults.append(f"{view}: asks {request.url}"))
    return page


def check(condition, what):
    if not condition:
        faults.append(what)


def until(page, expression):
    """Playwright's own way would have the page evaluate text, which its policy forbids."""
    for _ in range(100):
        with contextlib.suppress(Exception):
            if page.evaluate(expression):
                return
        page.wait_for_timeout(150)
    faults.append(f"{page.url}: it does not come to {expression}")


def group_address(id):
    return "/group?id=" + urllib.parse.quote(id, safe="")


def pages():
    records = "/topics/orders/records"
    return {
        "overview": "",
        "topics": "/topics",
        "topic": "/topics/orders",
        "records": records,
        "records-hex": records + "?partition=0&from=offset&offset=3&limit=3&as=hex",
        "records-key": records + "?key=Ada&has=paid&limit=5",
        "records-hostile": records + "?key=" + urllib.parse.quote(HOSTILE),
        "record": "/topics/orders/record?partition=0&offset=1",
        "tail": records + "?tail=1",
        "groups": "/groups",
        "group": group_address("billing"),
        "group-hostile": group_address(f"reports {HOSTILE}"),
        "reset": "/group/reset?id=billing&to=earliest",
        "brokers": "/brokers",
        "charts": "/charts",
        "security": "/security",
    }


def visit_all(browser, cluster, suffix, only=None, views=VIEWS):
    for view in views:
        settings = VIEWS[view]
        context = browser.new_context(**settings)
        page = watched(context, view)
        for name, path in pages().items():
            if only and name not in only:
                continue
            page.goto(cluster.base + path, wait_until="load")
            if name in MOVING and view in MOVING[name]:
                page.wait_for_timeout(8_000)
            wide = page.evaluate("document.scrollingElement.scrollWidth - document.documentElement.clientWidth") if view != "no-script" else 0
            check(wide <= 0, f"{view} {name}: {wide} pixels wider than the screen")
            check(page.locator("h1").count() == 1, f"{view} {name}: not one heading")
            page.screenshot(path=OUT / f"{name}{suffix}.{view}.png", full_page=True)
        context.close()


def click_through(browser, cluster):
    """What somebody does with a mouse and with keys."""
    context = browser.new_context(**VIEWS["light"])
    page = watched(context, "clicks")
    page.goto(cluster.base)
    for part in ["Topics", "Groups", "Brokers", "Charts", "Security", "Overview"]:
        page.locator("header nav").get_by_role("link", name=part, exact=True).click()
        check(page.locator("header nav a[aria-current=page]").inner_text() == part, f"{part}: is not marked")
    # Keys: the first is the way past the navigation; / goes to the filter, whose answer is the topic.
    page.keyboard.press("Tab")
    check(page.evaluate("document.activeElement.className") == "skip", "the first key does not skip the navigation")
    page.goto(cluster.base + "/topics")
    page.keyboard.press("/")
    page.keyboard.type("order")
    page.keyboard.press("Enter")
    until(page, "location.search.includes('q=order') && document.readyState === 'complete'")
    check(page.locator("tbody tr").count() == 1, "the filter does not filter")
    page.get_by_role("link", name="orders", exact=True).click()
    page.get_by_role("link", name="Watch what comes").click()
    page.locator("[data-tail] li").first.wait_for()
    page.get_by_role("button", name="Stop").click()
    check(page.get_by_role("button", name="Go on").is_visible(), "watching cannot go on")
    # A chart moves, and its values can be read with keys.
    page.goto(cluster.base + "/charts")
    until(page, "[...document.querySelectorAll('path.line')].some((line) => line.getAttribute('d').includes('L'))")
    page.locator("figure").first.focus()
    page.keyboard.press("ArrowLeft")
    check(page.locator("figure").first.locator(".when").inner_text() != "", "no cursor by keys")
    # Nothing is asked for while nobody looks.
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.evaluate("Object.defineProperty(document, 'visibilityState', { get: () => 'hidden', configurable: true }); document.dispatchEvent(new Event('visibilitychange'))")
    page.wait_for_timeout(1_000)
    asked.clear()
    page.wait_for_timeout(4_000)
    check(not asked, f"a hidden page asks for {asked}")
    # A group: preview, then done, once.
    page.goto(cluster.base + group_address("billing"))
    page.get_by_role("link", name="Set its offsets").click()
    page.locator("select[name=to]").select_option("latest")
    page.get_by_role("button", name="Preview").click()
    check("skips" in page.locator("main").inner_text(), "the preview does not say what is skipped")
    page.get_by_role("button", name="Set these offsets").click()
    page.locator(".done").wait_for()
    context.close()


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=OUT) as directory:
        cluster = Cluster(directory)
        stop = threading.Event()
        try:
            cluster.fill()
            load = threading.Thread(target=cluster.load, args=(stop,))
            load.start()
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
                visit_all(browser, cluster, "")
                click_through(browser, cluster)
                cluster.stop(2)
                time.sleep(4)
                visit_all(browser, cluster, "-one-down", only=("overview", "topics", "topic", "records", "groups", "group", "brokers"), views=("light", "phone"))
                browser.close()
        except Exception as error:  # What was found before it is worth to be seen.
            faults.append(f"it went no further: {error}")
        finally:
            stop.set()
            cluster.end()
    if faults:
        raise SystemExit("\n".join(dict.fromkeys(faults)))
    print(f"every page of the console was looked at, screenshots are in {OUT}")


main()
