"""The page at the work station, in a real Chromium."""

import time

import numpy as np
import pytest
import simplejpeg

from tests.support import refusals
from tests.support.contrasts import CONTRASTS
from tests.support.live_data import serving

pytest.importorskip("sse_starlette", reason="needs the extra live")
pytest.importorskip("uvicorn", reason="needs the extra live")
playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")

TITLE = "pump · up"
JPEG = simplejpeg.encode_jpeg(np.full((48, 64, 3), 99, np.uint8))
EVIL = "<img src=x onerror=document.title='evil'>"
NAMES = ("Install pin", "Install wheel", f"Install {EVIL}", "Install lid")
# What the visible parts of the page say, to the eye or to a screen reader: lists and buttons end in
# a bar, what is current in «, what is off in (off). Times of the day are all the same, and whether
# a machine is so slow that there is no news for seconds is left out.
SHOWN = """() => {
  const say = (node) => {
    if (node.nodeType !== 1) return node.nodeType === 3 ? node.data : "";
    if (!node.checkVisibility()) return "";
    const said = node.matches("li[aria-label]") ? node.ariaLabel
      : node.alt || node.ariaValueText || [...node.childNodes].map(say).join(" ");
    return said + (node.ariaCurrent ? " «" : "") + (node.disabled ? " (off)" : "")
      + (node.matches("li, button, h1, h2, p, dd, summary") ? " |" : "");
  };
  const plain = (text) => text.replace(/\\d+:\\d\\d:\\d\\d( [AP]M)?/g, "TIME")
    .replace("No news from recognition |", "").replace(/\\s+/g, " ").trim();
  const parts = [...document.querySelectorAll("header, .alert, .card, footer, dialog")];
  return Object.fromEntries(parts.map((part) =>
    [part.id || part.classList[1] || part.localName, plain(say(part)) || "–"]));
}"""
STATES = {name: lines for name, _, lines in (case.values for case in refusals.cases("station.txt"))}


class Walk:
    """Looks at a page, state by state of snapshots/station.txt, each of which has what is new."""

    def __init__(self, tab, page):
        self.tab, self.shown = tab, {}
        tab.goto(page.url)

    def sees(self, state):
        end = time.monotonic() + 20
        while True:
            shown = self.tab.evaluate(SHOWN)
            new = [f"{k}: {v}" for k, v in shown.items() if self.shown.get(k, "–") != v]
            if new == STATES[state] or time.monotonic() > end:
                break
            self.tab.wait_for_timeout(20)
        assert new == STATES[state], state
        self.shown = shown

    def clicks(self, name):
        self.tab.get_by_role("button", name=name).click()


@pytest.fixture(scope="module")
def page(system):
    with serving(TITLE) as page:
        yield page


def view(*statuses, wrong=None, **more):
    rows = [
        {"step_id": 3 * i, "name": name, "status": status, "time_s": 61.5, "likely": 0.95}
        for i, (name, status) in enumerate(zip(NAMES, statuses, strict=False))
    ]
    rows += [
        {"step_id": step, "name": name, "status": "wrong"} for step, name in (wrong or {}).items()
    ]
    beliefs = [
        {"component": "pin", "right": 0.9, "wrong": 0.02},
        {"component": EVIL, "right": 0.1, "wrong": 0.8},
    ]
    shown = {"recording": "camera:0", "time_s": 75, "source": "live", "latency_ms": 42.4}
    return {**shown, "fps": 9.96, "dropped": 3, "checklist": rows, "beliefs": beliefs, **more}


def see(locator, text):
    playwright.expect(locator).to_have_text(text, timeout=20_000)


def look(tab, selector, name):
    return tab.locator(selector).evaluate(f"e => getComputedStyle(e).{name}")


def test_station_shows_and_follows_what_happens(system, tab):
    with serving(TITLE) as page:
        walk = Walk(tab, page)
        page.frame(None, {"recording": "camera:0", "source": "loading"})
        walk.sees("the model loads")
        box = {"x0": 0.25, "y0": 0.5, "x1": 0.75, "y1": 1, "label": "1000 0.93", "error": False}
        page.frame(JPEG, view("next", "open", "open", "open", box=box))
        walk.sees("a step is next")
        drawn = tab.locator("#overlay rect").first
        place = [float(drawn.get_attribute(k)) for k in ("x", "y", "width", "height")]
        assert place == [16, 24, 32, 24], "the box is where it is in the picture"

        event = {"type": "event", "step": "Install pin", "confidence": 0.93, "time_s": 61.5}
        page.send(event)
        page.frame(JPEG, view("done", "next", "open", "open"))
        walk.sees("it is done")
        see(tab.locator("#announcement"), "Next step: Install wheel")
        assert tab.locator("#progress").get_attribute("aria-valuenow") == "1"
        tab.evaluate("again()")  # as after a cut
        page.send(event | {"step": "Install wheel"})
        walk.sees("after a cut one more comes, and none twice")
        doubtful = view("done", "next", "open", "open")
        doubtful["checklist"][0]["likely"] = 0.83
        page.frame(None, doubtful)
        walk.sees("it may not hold any longer")

        page.send({"type": "alert", "message": f"{EVIL} is missing"})
        page.frame(None, view("done", "missing", "wrong", "next"))
        walk.sees("what is wrong comes first")
        assert look(tab, ".wrong-step", "backgroundColor") == "rgb(184, 15, 42)"
        walk.clicks("Dismiss alert")
        walk.sees("the alert is dismissed")
        page.frame(None, view("done", "done", "done", "done", source="lost"))
        walk.sees("all is done and the camera lost")
        assert "is-stale" in tab.locator("figure").get_attribute("class")

        statuses, shares = ("done", "missing", "wrong", "next"), {"product": "it is seen in 1 %"}
        page.frame(JPEG, view(*statuses, source="playing", fits=False, **shares))
        walk.sees("it may be another product: nothing is next")
        page.frame(None, view(*statuses, source="playing", fits=None, **shares))
        walk.sees("nobody knows whether it is")
        assert tab.title() == TITLE
        assert tab.locator("#checklist img").count() == 0


def test_station_asks_for_what_is_not_sure_and_takes_a_tap(system, tab):
    with serving(TITLE) as page:
        walk = Walk(tab, page)
        page.snapshot(5, JPEG)
        asks = [{"step_id": 3, "component": "wheel", "like": 5}, {"step_id": 9, "component": EVIL}]
        page.frame(JPEG, view("done", "unsure", "next", "unsure", unsure=asks))
        walk.sees("two steps are not sure")
        walk.clicks("I have checked: it is correct")
        assert page.confirmed.get(timeout=20) == 3
        walk.sees("no second answer before the next question")
        page.send({"type": "confirmed", "step": "Install wheel", "frame": 8, "step_id": 3})
        page.frame(None, view("done", "done", "next", "unsure", unsure=asks[1:]))
        walk.sees("the next question")
        walk.clicks("It is incorrect")
        assert page.confirmed.get(timeout=20) == 10
        unit = {"type": "unit", "unit": 1, "ended": "key", "unsure": [{"step": "Install lid"}]}
        page.send(unit)
        wrong = {1: "Incorrectly installed pin"}
        page.frame(None, view("done", "done", "next", "unsure", unsure=asks[1:], wrong=wrong))
        walk.sees("what is wrong comes before what is not sure")
        asks = [{"step_id": 0, "component": "pin", "like": None}]
        page.frame(None, view("seen", "next", "open", "open", unsure=asks))
        walk.sees("how sure a part is that is not sure is left out")
        meter = tab.get_by_role("meter").first
        assert meter.get_attribute("aria-valuenow") == "0"
        assert meter.locator("div").first.bounding_box()["width"] == 0
        page.frame(None, view("done", "done", "next", "open"))
        walk.sees("nothing is asked")


def test_station_shows_problems_before_the_next_step_and_hollow_marks_of_what_was_seen(system, tab):
    with serving(TITLE) as page:
        walk = Walk(tab, page)
        statuses = ("seen", "next", "missing", "done")
        page.frame(JPEG, view(*statuses))
        walk.sees("a step is missing, and one seen")
        assert look(tab, "#checklist .seen .sign", "backgroundColor") == "rgba(0, 0, 0, 0)"
        assert look(tab, "#checklist .done .sign", "backgroundColor") != "rgba(0, 0, 0, 0)"
        page.frame(None, view(*statuses, wrong={4: "Incorrectly installed wheel"}))
        page.send({"type": "alert", "message": "wheel may be incorrect", "step_id": 4})
        walk.sees("a step is wrong, and its alert not said twice")
        tab.locator("#ask-right").click()
        assert page.confirmed.get(timeout=20) == 3
        page.frame(None, view(*statuses))
        walk.sees("the alert stays")
        line = {"type": "seen", "step": "Install rim", "component": "rim", "step_id": 6, "frame": 1}
        page.send(line)
        walk.sees("a step is seen")
        page.send(line | {"type": "event", "frame": 2})
        walk.sees("then it is right")
        page.send(line | {"type": "gone", "frame": 3, "step_id": 8})
        walk.sees("then it is gone")
        over = {"type": "alert", "alert": "withdrawn", "message": "cap is not incorrect"}
        page.send(over | {"step_id": 7})
        walk.sees("an alert is withdrawn, which is another one")
        page.send(over | {"step_id": 4})
        walk.sees("the alert is withdrawn")


def test_station_shows_the_units_of_today(page, tab):
    step = {"step_id": 0, "step": f"Install {EVIL}", "time_s": 63.5, "frame": 7}
    step["wall_time"] = "2026-05-06T09:30:00+00:00"  # before a restart, that is
    page.snapshot(7, JPEG)
    unit = {"unit": 1, "ended": "key", "start_s": 60, "duration_s": 75, "done": [step]}
    unit |= {"wall_time": "2026-05-06T10:00:00+00:00", "time_s": 140, "late": [], "wrong": []}
    unit |= {"missing": [{"step": "Install lid"}]}
    unit |= {"steps": [step, step | {"frame": 8, "confirmed": True}]}
    unit |= {"type": "unit", "alerts": [{"message": "careful", "time_s": 70, "frame": 9}]}
    now = {"type": "now", "unit": 2, "steps": [], "alerts": [], "time_s": 150}
    page.past([unit, now | {"wall_time": "2026-05-06T10:00:10+00:00"}])
    page.frame(JPEG, view("next"))
    walk = Walk(tab, page)
    walk.sees("a unit is at hand")
    walk.clicks("Today")
    units = tab.locator("#units summary")
    units.last.click()
    tab.wait_for_function("() => document.querySelectorAll('#units img').length == 1")
    walk.sees("the units of today")
    time = "t => new Date(t).toLocaleTimeString()"
    started = tab.evaluate(time, "2026-05-06T09:29:56.500Z")
    assert units.last.inner_text().startswith(started)
    assert tab.locator("#units .time").first.inner_text() == tab.evaluate(time, step["wall_time"])
    picture = tab.locator("#units details li").first.locator("img")
    assert picture.evaluate("i => i.complete && i.naturalWidth") == 64, "others are kept no more"
    walk.clicks("Close")
    assert tab.locator("#today").is_hidden()


def test_station_asks_for_the_token_once_and_finds_the_next_server(system, tab):
    """Which has been killed amid all, or has ended with its file."""
    token = "a-token-of-24-characters"
    with serving(TITLE, "0.0.0.0", token=token) as page:
        page.frame(JPEG, view("next", "open"))
        page.send({"type": "event", "step": "before"})
        tab.goto(f"http://127.0.0.1:{page.port}/")
        tab.get_by_label("Token of this work station").fill("wrong")
        tab.get_by_role("button", name="Watch").click()
        see(tab.get_by_role("alert"), "That is not the token.")
        tab.get_by_label("Token of this work station").fill(token)
        tab.keyboard.press("Enter")
        see(tab.locator("#records li .what"), "before")
        assert token not in tab.content() + tab.url
        page._process.kill()
    see(tab.locator("#connection"), "No connection")
    assert tab.locator("#stale").inner_text().startswith("No connection since")
    assert tab.locator("#reset").is_disabled()

    with serving(TITLE, "0.0.0.0", page.port, token) as page:
        page.send({"type": "event", "step": "in between"})
        page.frame(JPEG, view("done", "next"))
        see(tab.locator("#connection"), "Connected")
        see(tab.locator("#next"), "Install wheel")
        see(tab.locator("#records li .what"), "in between")  # the other server's are gone
        playwright.expect(tab.locator("#stale")).to_be_hidden()
        tab.get_by_role("button", name="New unit").click()
        tab.get_by_role("button", name="Begin a new unit").click()
        assert page.resets.acquire(timeout=20), "with the token of the new server"
        page.send({"type": "unit", "unit": 1, "ended": "end", "done": []})
        page.frame(None, view("next", "open", source="ended"))
    see(tab.locator("#connection"), "Finished")
    assert tab.locator("#connection").get_attribute("data-state") == "waiting"
    see(tab.locator("#source"), "Video finished")
    assert tab.locator("#stale").inner_text() == "The video is finished"
    see(tab.locator("#next"), "The recording has ended")
    rows = [row.get_attribute("aria-label") for row in tab.locator("#checklist li").all()]
    assert rows == ["Install pin: done", "Install wheel: next"], "of the unit that it had"
    assert "Unit 1" in tab.locator("#records li .what").first.inner_text()
    tab.get_by_role("button", name="Today").click()
    see(tab.locator("#units"), "The recording has ended, and recognition with it.")


@pytest.mark.parametrize(
    ("scheme", "width", "height"),
    [
        ("light", 1280, 800),
        ("dark", 1024, 768),
        ("light", 390, 844),
    ],
)
def test_station_contrast_size_and_room(page, browser, scheme, width, height):
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce"
    )
    tab = context.new_page()
    asks = [{"step_id": 3, "component": "wheel", "like": None}]
    page.frame(JPEG, view("done", "missing", "wrong", "next", unsure=asks))
    for _ in range(5):
        page.send({"type": "event", "step": "Install pin", "confidence": 0.9})
    page.send({"type": "alert", "message": "Install wheel is missing"})
    tab.goto(page.url)
    see(tab.locator("#next"), NAMES[2])
    playwright.expect(tab.locator("#ask-right")).to_be_hidden()
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
    moves = "parseFloat(getComputedStyle(document.querySelector('.meter div')).transitionDuration)"
    assert tab.evaluate(moves) == 0, "as the reader asks for reduced motion"
    for button in tab.locator("button:visible").all():
        assert button.bounding_box()["height"] >= 40, "for a finger"
    context.close()
