"""The page at the work station, in a real Chromium."""

import json
import subprocess
import sys

import numpy as np
import pytest
import simplejpeg

from tests.support.contrasts import CONTRASTS

pytest.importorskip("sse_starlette", reason="needs the extra live")
pytest.importorskip("uvicorn", reason="needs the extra live")
playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")

SERVER = """
import json, sys
from stormpsr_jax.live import serve
from stormpsr_jax.pages import access
host, port, token = sys.argv[1:]
reset = lambda: print("reset", flush=True)
confirm = lambda step: print("confirm", step, flush=True)
address = access.Address(host, int(port))
words = {"title": "pump · up", "token": token or None}
page = serve.Page(address, on_reset=reset, on_confirm=confirm, **words)
print(page.url, flush=True)
for line in sys.stdin:
    kind, value, jpeg = json.loads(line)
    jpeg = jpeg and bytes.fromhex(jpeg)
    if kind == "frame":
        page.frame(jpeg, value)
    elif kind == "snapshot":
        page.snapshot(value, jpeg)
    else:
        getattr(page, kind)(value)
page.close()
"""
JPEG = simplejpeg.encode_jpeg(np.full((48, 64, 3), 99, np.uint8))
EVIL = "<img src=x onerror=\"document.title='evil'\">"
NAMES = ("Install pin", "Install wheel", f"Install {EVIL}", "Install lid")


class Server:
    """A page in a process of its own, which can be killed."""

    def __init__(self, port=0, host="127.0.0.1", token=""):
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER, host, str(port), token],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.url = self.process.stdout.readline().strip()
        self.port = int(self.url.rstrip("/").rpartition(":")[2])

    def tell(self, kind, value, jpeg=None):
        line = json.dumps([kind, value, jpeg and jpeg.hex()])
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def end(self):
        self.process.communicate()

    def kill(self):
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def server(system):
    server = Server()
    yield server
    server.kill()


def view(*statuses, **more):
    rows = [
        {"step_id": 3 * i, "name": name, "status": status, "time_s": 61.5, "likely": 0.95}
        for i, (name, status) in enumerate(zip(NAMES, statuses, strict=False))
    ]
    beliefs = [
        {"component": "pin", "right": 0.9, "wrong": 0.02},
        {"component": EVIL, "right": 0.1, "wrong": 0.8},
    ]
    shown = {"recording": "camera:0", "time_s": 75, "source": "live", "latency_ms": 42.4}
    return {**shown, "fps": 9.96, "dropped": 3, "checklist": rows, "beliefs": beliefs, **more}


def see(locator, text):
    playwright.expect(locator).to_have_text(text, timeout=20_000)


def rows(tab):
    return [row.get_attribute("aria-label") for row in tab.locator("#checklist li").all()]


def test_station_shows_and_follows_what_happens(server, tab):
    tab.goto(server.url)
    see(tab.locator("#connection"), "Connected")
    box = {"x0": 0.25, "y0": 0.5, "x1": 0.75, "y1": 1, "label": "1000 0.93", "error": False}
    server.tell("frame", view("next", "open", "open", "open", box=box), JPEG)
    see(tab.locator("#next"), "Install pin")
    assert rows(tab)[0] == "Install pin: next"
    assert tab.locator("[aria-current=step] .name").inner_text() == "Install pin"
    for name, text in (("source", "Camera live"), ("latency", "42 ms"), ("fps", "10.0")):
        see(tab.locator(f"#{name}"), text)
    see(tab.locator("#dropped"), "3")
    tab.wait_for_selector("#picture:not([hidden])")
    tab.wait_for_selector("#overlay text")
    drawn = tab.locator("#overlay rect").first
    place = [float(drawn.get_attribute(k)) for k in ("x", "y", "width", "height")]
    assert place == [16, 24, 32, 24], "the box is where it is in the picture"
    assert tab.locator("#stale").is_hidden()

    event = {"type": "event", "step": "Install pin", "confidence": 0.93, "time_s": 61.5}
    server.tell("send", event)
    server.tell("frame", view("done", "next", "open", "open"), JPEG)
    see(tab.locator("#next"), "Install wheel")
    assert rows(tab)[:2] == ["Install pin: done", "Install wheel: next"]
    see(tab.locator("#checklist li:first-child .note"), "01:01")
    see(tab.locator("#records li:first-child .what"), "Install pin")
    see(tab.locator("#count"), "1 of 4 done")
    see(tab.locator("#announcement"), "Next step: Install wheel")
    assert tab.locator("#progress").get_attribute("aria-valuenow") == "1"
    tab.evaluate("again()")  # as after a cut
    server.tell("send", event | {"step": "Install wheel"})
    see(tab.locator("#records li .what").first, "Install wheel")
    assert tab.locator("#records li .what").all_inner_texts() == ["Install wheel", "Install pin"]

    doubtful = view("done", "next", "open", "open")
    doubtful["checklist"][0]["likely"] = 0.83
    server.tell("frame", doubtful)
    see(tab.locator("#checklist li:first-child .note"), "83 % sure")

    server.tell("send", {"type": "alert", "message": f"{EVIL} is missing"})
    server.tell("frame", view("done", "missing", "wrong", "next"))
    see(tab.locator("[role=alert]#alert-text"), f"{EVIL} is missing")
    see(tab.locator("#count"), "1 of 3 done · 1 missing · 1 wrong")
    assert rows(tab)[0] == f"Install {EVIL}: wrong", "what is wrong comes first"
    look = "e => getComputedStyle(e).backgroundColor"
    assert tab.locator(".wrong-step").evaluate(look) == "rgb(184, 15, 42)"
    meters = tab.get_by_role("meter")
    assert meters.nth(1).get_attribute("aria-valuetext") == "correct 10 %, incorrect 80 %"
    see(tab.locator("#beliefs .is-wrong .name"), f"✗ {EVIL}")
    tab.get_by_role("button", name="Dismiss alert").click()
    assert tab.locator("#alert").is_hidden()

    server.tell("frame", view("done", "done", "done", "done", source="lost"))
    see(tab.locator("#next"), "All steps done")
    see(tab.locator("#next-title"), "Finished")
    see(tab.locator("#source"), "Camera lost")
    see(tab.locator("#stale"), "Camera lost")
    assert "is-stale" in tab.locator("figure").get_attribute("class")
    assert tab.title() == "pump · up"
    assert tab.locator("#checklist img").count() == 0


def test_station_asks_whether_this_is_the_product(server, tab):
    tab.goto(server.url)
    server.tell("send", {"type": "alert", "message": "careful"})
    statuses = ("done", "missing", "wrong", "next")
    shares = {"product": "it is seen in 1 % of the pictures"}
    server.tell("frame", view(*statuses, source="playing", fits=False, **shares), JPEG)
    text = "Is this the product? In the last minutes it is seen in 1 % of the pictures."
    see(tab.locator("#fits-text"), text)
    see(tab.locator("#source"), "Video plays")
    playwright.expect(tab.locator("#next")).to_be_hidden()
    assert tab.locator("[aria-current=step]").count() == 0
    assert "Install lid: open" in rows(tab)
    for fits in (True, None):
        server.tell("frame", view(*statuses, fits=fits, **shares))
        playwright.expect(tab.locator("#fits")).to_be_hidden()
        assert tab.locator("#next").is_visible()


def test_station_asks_for_what_is_not_sure_and_takes_a_tap(server, tab):
    tab.goto(server.url)
    server.tell("snapshot", 5, JPEG)
    asks = [{"step_id": 3, "component": "wheel", "like": 5}, {"step_id": 9, "component": EVIL}]
    server.tell("frame", view("done", "unsure", "next", "unsure", unsure=asks))
    see(tab.locator("#ask-text"), "Show the wheel to the camera")
    see(tab.locator("#ask-more"), f"Not sure whether it is installed correctly. Then: {EVIL}.")
    playwright.expect(tab.locator("#ask-picture")).to_be_visible()
    assert "Install wheel: not sure" in rows(tab)
    see(tab.locator("#count"), "1 of 4 done · 2 not sure")
    tab.get_by_role("button", name="I have checked: it is correct").click()
    assert server.process.stdout.readline() == "confirm 3\n"
    assert tab.locator("#ask-right").is_disabled(), "until the next question"
    server.tell("send", {"type": "confirmed", "step": "Install wheel", "frame": 8, "step_id": 3})
    server.tell("frame", view("done", "done", "next", "unsure", unsure=asks[1:]))
    see(tab.locator("#ask-text"), f"Show the {EVIL} to the camera")
    tab.get_by_role("button", name="It is incorrect").click()
    assert server.process.stdout.readline() == "confirm 10\n"
    assert tab.locator("#ask-picture").is_hidden()
    see(tab.locator("#records .what").first, "Install wheel (confirmed by a person)")
    unit = {"type": "unit", "unit": 1, "ended": "key", "unsure": [{"step": "Install lid"}]}
    server.tell("send", unit)
    see(tab.locator("#alert-text"), "Unit 1: not sure: Install lid")
    server.tell("frame", view("done", "done", "next", "open"))
    playwright.expect(tab.locator("#ask")).to_be_hidden()


def test_station_shows_problems_before_the_next_step_and_hollow_marks_of_what_was_seen(server, tab):
    tab.goto(server.url)
    shown = view("seen", "next", "missing", "done")
    server.tell("frame", shown)
    see(tab.locator("#next-title"), "Missing: do this first")
    see(tab.locator("#next"), NAMES[2])
    see(tab.locator("#count"), "1 of 4 done · 1 missing · 1 seen")
    fill = "e => getComputedStyle(e).backgroundColor"
    marks = [tab.locator(f"#checklist .{of} .sign").evaluate(fill) for of in ("seen", "done")]
    assert (marks[0], marks[1] != marks[0]) == ("rgba(0, 0, 0, 0)", True)
    wrong = {"step_id": 4, "name": "Incorrectly installed wheel", "status": "wrong"}
    server.tell("frame", shown | {"checklist": [*shown["checklist"], wrong]})
    see(tab.locator("#next-title"), "Correct this first")
    see(tab.locator("#next"), wrong["name"])
    tab.locator("#settle").click()
    assert server.process.stdout.readline() == "confirm 3\n"
    line = {"type": "seen", "step": "Install rim", "component": "rim", "step_id": 6, "frame": 1}
    server.tell("send", line)
    see(tab.locator("#records .what").first, "Install rim (seen)")
    server.tell("send", line | {"type": "event", "frame": 2})
    see(tab.locator("#records .what").first, "Install rim")
    assert tab.get_by_text("Install rim (seen)").count() == 0
    server.tell("send", line | {"type": "gone", "frame": 3, "step_id": 8})
    see(tab.locator("#records .what").first, "rim was taken off again")


def test_station_ends_an_alert_that_no_longer_holds_and_no_other(server, tab):
    tab.goto(server.url)
    over = {"type": "alert", "alert": "withdrawn", "message": "cap is not installed incorrectly"}
    server.tell("send", {"type": "alert", "message": "look", "step_id": 1})
    server.tell("send", over | {"step_id": 4})
    see(tab.locator("#records .what").first, over["message"])
    see(tab.locator("#alert-text"), "look")
    server.tell("send", over | {"step_id": 1})
    see(tab.locator("#alert-text"), "")
    assert tab.locator("#alert").is_hidden()


def test_station_shows_the_units_of_today(server, tab):
    step = {"step_id": 0, "step": f"Install {EVIL}", "time_s": 63.5, "frame": 7}
    step["wall_time"] = "2026-05-06T09:30:00+00:00"  # before a restart, that is
    server.tell("snapshot", 7, JPEG)
    unit = {"unit": 1, "ended": "key", "start_s": 60, "duration_s": 75, "done": [step]}
    unit |= {"wall_time": "2026-05-06T10:00:00+00:00", "time_s": 140, "late": [], "wrong": []}
    unit |= {"missing": [{"step": "Install lid"}]}
    unit |= {"steps": [step, step | {"frame": 8, "confirmed": True}]}
    unit |= {"type": "unit", "alerts": [{"message": "careful", "time_s": 70, "frame": 9}]}
    now = {"type": "now", "unit": 2, "steps": [], "alerts": [], "time_s": 150}
    server.tell("past", [unit, now | {"wall_time": "2026-05-06T10:00:10+00:00"}])
    tab.goto(server.url)
    tab.get_by_role("button", name="Today").click()
    units = tab.locator("#units summary")
    see(units.first, "Now: unit 2")
    assert units.last.inner_text().endswith(
        "Unit 1 ended: steps done: 1 in 01:15 · missing: Install lid · alerts: 1"
    )
    time = "t => new Date(t).toLocaleTimeString()"
    started = tab.evaluate(time, "2026-05-06T09:29:56.500Z")
    assert units.last.inner_text().startswith(started)
    units.last.click()
    assert tab.locator("#units .time").first.inner_text() == tab.evaluate(time, step["wall_time"])
    shown = tab.locator("#units details").last.locator("li")
    assert [row.locator("span").last.inner_text() for row in shown.all()] == [
        f"Install {EVIL}",
        f"Install {EVIL} (confirmed by a person)",
        "careful",
    ]
    seen = "i => i.complete && i.naturalWidth"
    tab.wait_for_function("() => document.querySelectorAll('#units img').length == 1")
    assert shown.first.locator("img").evaluate(seen) == 64, "the others are kept no more"
    tab.get_by_role("button", name="Close").click()
    assert tab.locator("#today").is_hidden()


def test_station_asks_for_the_token_once_and_finds_the_next_server(system, tab):
    """Which has been killed amid all, or has ended with its file."""
    token = "a-token-of-24-characters"
    server = Server(host="0.0.0.0", token=token)
    try:
        server.tell("frame", view("next", "open"), JPEG)
        server.tell("send", {"type": "event", "step": "before"})
        tab.goto(f"http://127.0.0.1:{server.port}/")
        tab.get_by_label("Token of this work station").fill("wrong")
        tab.get_by_role("button", name="Watch").click()
        see(tab.get_by_role("alert"), "That is not the token.")
        tab.get_by_label("Token of this work station").fill(token)
        tab.keyboard.press("Enter")
        see(tab.locator("#records li .what"), "before")
        assert token not in tab.content() + tab.url
        server.kill()
        see(tab.locator("#connection"), "No connection")
        assert tab.locator("#stale").inner_text().startswith("No connection since")
        assert tab.locator("#reset").is_disabled()

        server = Server(port=server.port, host="0.0.0.0", token=token)
        server.tell("send", {"type": "event", "step": "in between"})
        server.tell("frame", view("done", "next"), JPEG)
        see(tab.locator("#connection"), "Connected")
        see(tab.locator("#next"), "Install wheel")
        see(tab.locator("#records li .what").first, "in between")
        playwright.expect(tab.locator("#stale")).to_be_hidden()
        assert tab.locator("#records li .what").count() == 1, "the other server's are gone"
        tab.get_by_role("button", name="New unit").click()
        tab.get_by_role("button", name="Begin a new unit").click()
        assert server.process.stdout.readline() == "reset\n", "with the token of the new server"

        server.tell("send", {"type": "unit", "unit": 1, "ended": "end", "done": []})
        server.tell("frame", view("done", "done", source="ended"))
        server.end()
        see(tab.locator("#connection"), "Finished")
        assert tab.locator("#connection").get_attribute("data-state") == "waiting"
        see(tab.locator("#source"), "Video finished")
        assert tab.locator("#stale").inner_text() == "The video is finished"
        see(tab.locator("#next"), "All steps done")
        assert "Unit 1" in tab.locator("#records li .what").first.inner_text()
    finally:
        server.kill()


# Rows of which a part is seen, at the edge of their list.
CUT = """() => {
  const list = document.getElementById("records").getBoundingClientRect();
  const cut = (row) => row.top < list.bottom - 1 && row.bottom > list.bottom + 1;
  return [...document.querySelectorAll("#records li")].map((row) => row.getBoundingClientRect())
    .filter(cut).map((row) => [row.top, row.bottom, list.bottom]);
}"""


@pytest.mark.parametrize(
    ("scheme", "width", "height"),
    [
        ("light", 1440, 900),
        ("light", 1280, 800),
        ("dark", 1280, 800),
        ("dark", 1024, 768),
        ("light", 390, 844),
    ],
)
def test_station_contrast_size_and_room(server, browser, scheme, width, height):
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce"
    )
    tab = context.new_page()
    asks = [{"step_id": 3, "component": "wheel", "like": None}]
    server.tell("frame", view("done", "missing", "wrong", "next", unsure=asks), JPEG)
    for _ in range(5):
        server.tell("send", {"type": "event", "step": "Install pin", "confidence": 0.9})
    server.tell("send", {"type": "alert", "message": "Install wheel is missing"})
    tab.goto(server.url)
    see(tab.locator("#next"), NAMES[2])
    see(tab.locator("#alert-text"), "Install wheel is missing")
    texts = tab.evaluate(CONTRASTS)
    tab.locator("#reset").click()
    texts += tab.evaluate(CONTRASTS)
    assert len(texts) > 40
    assert {text: contrast for text, contrast, _ in texts if contrast < 4.5} == {}
    sizes = {text: pixels for text, _, pixels in texts}
    assert sizes["Install lid"] >= 20
    assert sizes["Install wheel is missing"] >= 24
    next_size = tab.locator("#next").evaluate("e => parseFloat(getComputedStyle(e).fontSize)")
    assert next_size >= 38, "some 10 mm on usual screens, for two metres"
    scrolls = "document.documentElement.scroll{0} > inner{0}"
    assert not tab.evaluate(scrolls.format("Width")), "nothing sticks out at the side"
    if width > 800:
        assert not tab.evaluate(scrolls.format("Height")), "all on one screen"
        assert tab.evaluate(CUT) == [], "no row of the latest is cut"
    moves = "parseFloat(getComputedStyle(document.querySelector('.meter div')).transitionDuration)"
    assert tab.evaluate(moves) == 0, "as the reader asks for reduced motion"
    for button in tab.locator("button:visible").all():
        assert button.bounding_box()["height"] >= 40, "for a finger"
    context.close()
