"""Films are labelled, trained on, and the next one recognised, by the labelling page alone."""

import json
import time

import numpy as np
import pytest

from data_prep.products.product import random_product
from data_prep.worlds.timelines import Timeline
from tests.data_prep.test_label_page import av, jump, playwright, press, saved
from tests.support.guide import SMALL
from tests.support.label_page import LabelPage
from tests.support.own_data import PROCEDURE

pytest.importorskip("vtk")
FPS = int(PROCEDURE.fps)
FILMS = {f"bench{i}": [4 * FPS + i, 8 * FPS, 12 * FPS] for i in range(4)}  # when parts are in place
FLAGS = [f"--config.{key}={value}" for key, value in SMALL.items()]
LONG = 30 * 60_000  # milliseconds
# The page, which starts what it shows with a few steps of the smallest models.
PROGRAM = f"""
from data_prep.label import command, project
whole = project.training
def training(*given):
    (own, main), workdir = whole(*given)
    return [own, main + {FLAGS}], workdir
project.training = training
command.main()
"""


def film(path, frames, seed):
    from benchmarks.films.film import film

    states = np.tri(4, 3, -1, np.int8)
    timeline = Timeline(0, 16 * FPS, np.array([0, *frames]), states)
    product, rng = random_product(4, 3), np.random.default_rng(seed)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 96, 96, "yuv420p"
        for frame in film(product, timeline, FPS, 96, rng, box_every=10**6):
            picture = av.VideoFrame.from_ndarray(frame.picture, format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def wait_for(tab, name):
    playwright.expect(tab.locator("#recording")).to_have_text(name)
    tab.wait_for_selector("body.is-open")


def train(tab, page):
    """Trains by the page; returns when it recognised the next video."""
    press(tab, "Shift+T")
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
        film(tmp_path / f"videos/{name}.mp4", frames, i)
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
        playwright.expect(tab.locator("#commands")).to_contain_text("--remake=continue")
