import json
import time

from tests.data_prep.test_label_page import jump, playwright, press, saved
from tests.support.guide import SMALL, film
from tests.support.label_page import LabelPage
from tests.support.own_data import PROCEDURE

FPS = int(PROCEDURE.fps)
FILMS = {f"bench{i}": [4 * FPS + i, 8 * FPS, 12 * FPS] for i in range(4)}  # when parts are in place
FLAGS = [f"--config.{key}={value}" for key, value in SMALL.items()]
LONG = 30 * 60_000  # milliseconds
# The page, which starts what it shows with a few steps of the smallest models.
PROGRAM = f"""
from data_prep.label import __main__, project
whole = project.training
def training(*given):
    (own, main), *folders = whole(*given)
    return [own, main + {FLAGS}], *folders
project.training = training
__main__.main()
"""


def wait_for(tab, name):
    playwright.expect(tab.locator("#recording")).to_have_text(name)
    tab.wait_for_selector("body.is-open")


def train(tab, page):
    press(tab, "Shift+T")
    playwright.expect(tab.locator("#train-plan")).to_contain_text("3 of 4, 0.8 min")
    tab.locator("#train-start").click()
    state = tab.locator("#train-state")
    playwright.expect(state).to_have_text("Runs")
    playwright.expect(state).not_to_have_text("Runs", timeout=LONG)
    assert state.inner_text() == "Is finished", tab.locator("#train-line").inner_text()
    press(tab, "Escape")
    while not (page.folder / "labels/.label/proposals/bench3/events.jsonl").exists():
        time.sleep(0.1)


def test_films_are_labelled_and_trained_on_and_the_next_one_is_recognised(tab, tmp_path):
    tab.set_default_timeout(LONG)
    (tmp_path / "videos").mkdir()
    for i, (name, frames) in enumerate(FILMS.items()):
        film(tmp_path / f"videos/{name}.mp4", [frame / FPS for frame in frames], i, seconds=16)
    (tmp_path / "pump.json").write_text(json.dumps(PROCEDURE.to_json()))
    with LabelPage(tmp_path, tmp_path / "pump.json", program=("-c", PROGRAM)) as page:
        tab.goto(page.url)
        for name, frames in list(FILMS.items())[:3]:
            wait_for(tab, name)
            for key, frame in zip("123", frames, strict=True):
                jump(tab, frame)
                press(tab, key)
            press(tab, "Shift+D")
            saved(tab)
            press(tab, "Shift+N")
        train(tab, page)
        wait_for(tab, "bench3")
        proposals = page.ask("/api/videos/bench3")[2]["proposals"]
        playwright.expect(tab.locator(".tick.proposal")).to_have_count(len(proposals))
        # The next training, of what is corrected, goes on from these weights.
        press(tab, "Shift+T")
        commands = f"{tmp_path}/runs/pump_2 --config.init_from={tmp_path}/runs/pump/pretrain/best."
        playwright.expect(tab.locator("#commands")).to_contain_text(commands)
        playwright.expect(tab.locator("#train-replaces")).to_contain_text("labels have changed")
        playwright.expect(tab.locator("#train-plan")).to_contain_text("Record next")
        start = tab.locator("#train-start")
        playwright.expect(start).to_be_disabled()
        tab.locator("#train-replace").check()
        playwright.expect(start).to_be_enabled()
