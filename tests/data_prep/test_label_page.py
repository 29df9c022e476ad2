"""The labelling page in a real Chromium: `data_prep.own` reads what was labelled, to the frame."""

import base64
import csv
import io
import json
import re
import shutil
import time

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from data_prep import matching, own
from stormpsr_jax import demo
from stormpsr_jax.media import video
from stormpsr_jax.recordings.label_file import LabelPlace
from stormpsr_jax.recordings.labels import steps_to_states
from stormpsr_jax.recordings.procedure import load_procedure
from tests.support import guide, own_data, videos
from tests.support.contrasts import CONTRASTS
from tests.support.label_page import LabelPage

av = pytest.importorskip("av", reason="needs the extra video")
pytest.importorskip("sse_starlette", reason="needs the extra live")
pytest.importorskip("uvicorn", reason="needs the extra live")
playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
PROCEDURE = load_procedure("synthetic")
VARIANT = PROCEDURE.variants["assembly"]
KEYS = dict(enumerate("123456789ab"))
COMMANDS = ("", "Shift+W", "Shift+R")
TRUTH = LabelPlace(demo.LABELS / "demo.csv").read(PROCEDURE, VARIANT).with_errors
IDS = {PROCEDURE.step_name(step): step for step in range(33)}
SECONDS, RATE = 110, 10


def film(path, codec, pts=lambda i: 100 * i):
    """Pictures that tell their number, by bright and dark blocks."""

    def shown(i):
        bits = [40 + 170 * (i >> bit & 1) for bit in range(11)]
        blocks = np.full((6, 10), 90, np.uint8)
        blocks[1, 1:7], blocks[4, 1:6] = bits[:6], bits[6:]
        return np.stack([blocks.repeat(16, 0).repeat(16, 1)] * 3, -1)

    count = range(SECONDS * RATE)
    times = [pts(i) / 1000 for i in count]
    return videos.write(path, map(shown, count), times, fps=RATE, gop_size=40, codec=codec)


def jitter(i):
    return 100 * i + 45 * np.sin(12.9898 * i)


FILMS = {  # test_label.py has many more, for what the server sends
    "demo": lambda path: shutil.copy(demo.VIDEO, path),
    "turned": lambda path: own_data.rotate(film(path, "libx264", jitter)),
    "part2": lambda path: film(path, "mpeg4"),
}


def serving(folder, *names, flags=()):
    (folder / "videos").mkdir(exist_ok=True)
    for name in names:
        if not (path := folder / "videos" / f"{name}.mp4").exists():
            FILMS[name](path)
    return LabelPage(folder, "synthetic", *flags)


def labels(page, name):
    """The file's rows as frames and step ids, whatever `own` says to them."""
    with open(page.folder / f"labels/{name}.csv") as file:
        return [(round(float(row["time"]) * 5), IDS[row["step"]]) for row in csv.DictReader(file)]


def opened(tab, server, name, frame=0):
    tab.goto(f"{server.url}&video={name}&frame={frame}")
    tab.wait_for_selector(f'#picture[data-shown="{frame}"]')


def press(tab, *keys):
    for key in keys:
        tab.keyboard.press(key)


def saved(tab):
    tab.wait_for_selector('[data-saved="true"]')


def jump(tab, frame):
    press(tab, "Shift+G", *str(frame), "Enter")
    tab.wait_for_selector(f'#picture[data-shown="{frame}"]')
    assert tab.locator("[data-frame]").inner_text() == str(frame)


def is_picture(data, pictures, frame):
    """Holds a picture of the browser against those that `data own` stores, around a frame."""
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(data.partition(",")[2]))))[..., :3]
    around = range(max(frame - 4, 0), min(frame + 5, len(pictures)))
    stored = {i: simplejpeg.decode_jpeg(pictures[i]).astype(np.float32) for i in around}
    away = {i: np.abs(shown - picture).mean() for i, picture in stored.items()}
    assert away[frame] < min(away.values()) + 0.01, f"frame {frame}: {away}"
    assert away[frame] < 6


CANVAS = "document.querySelector('#picture').toDataURL()"
# What the browser's own player shows at the time of a frame.
PLAYED = """async ([name, frame]) => {
  const { times } = await (await fetch(`/api/videos/${name}`)).json();
  const player = document.querySelector("#player");
  const seen = new Promise((done) => player.requestVideoFrameCallback(done));
  player.currentTime = times[frame] + 0.0005;
  await seen;
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [player.videoWidth, player.videoHeight];
  canvas.getContext("2d").drawImage(player, 0, 0);
  return canvas.toDataURL();
}"""


@pytest.mark.parametrize(("name", "plays"), [("turned", True), ("part2", False)])
def test_steps_labelled_by_keys_alone_are_read_at_the_very_frames(tab, tmp_path, name, plays):
    with serving(tmp_path, name) as server:
        opened(tab, server, name)
        film = video.open_resampled(tmp_path / f"videos/{name}.mp4", PROCEDURE.fps)
        pictures = [simplejpeg.encode_jpeg(picture, 97) for _, picture in film.read()]
        steps = TRUTH if plays else TRUTH[:4]  # the keys are the same, the pictures are not
        for count, (frame, step) in enumerate(steps, 1):
            jump(tab, frame - 6)
            press(tab, "Shift+ArrowRight", "ArrowRight")
            tab.wait_for_selector(f'#picture[data-shown="{frame}"]')
            is_picture(tab.evaluate(CANVAS), pictures, frame)
            press(tab, *filter(None, [COMMANDS[step % 3], KEYS[step // 3]]))
            saved(tab)
            assert labels(server, name) == sorted(steps[:count])
        (recording,) = own.find_recordings(
            tmp_path / "videos", tmp_path / "labels", PROCEDURE, splits="100/0/0"
        )
        read = recording.labels
        frames, states = steps_to_states(steps, VARIANT.initial_state, 0)
        assert read.frames.tolist() == frames.tolist()
        assert read.states.tolist() == states.tolist()

        if plays:  # in Chromium
            for frame in (99, 301, len(pictures) - 1, 0):
                is_picture(tab.evaluate(PLAYED, [name, frame]), pictures, frame)
        jump(tab, 200)
        tab.locator("#speed").select_option("4")
        press(tab, "Space")
        playwright.expect(tab.locator("[data-frame]")).to_have_text(
            re.compile("^20[6-9]|[2-5][1-9].$")
        )
        assert (tab.locator("#player.is-shown").count() == 1) == plays
        assert not plays or tab.evaluate("document.querySelector('#player').playbackRate") == 4
        press(tab, "Space")
        frame = int(tab.locator("[data-frame]").inner_text())
        tab.wait_for_selector(f'#picture[data-shown="{frame}"]')
        playwright.expect(tab.locator("#player.is-shown")).to_have_count(0)
        is_picture(tab.evaluate(CANVAS), pictures, frame)


def rows(tab):
    return [" ".join(text.split()) for text in tab.locator("#rows li").all_inner_texts()]


def test_mouse_undo_grey_steps_and_order(tab, tmp_path):
    with serving(tmp_path, "part2") as server:
        opened(tab, server, "part2", 30)
        tab.locator('[data-step="Install chassis"]').click()
        saved(tab)
        assert labels(server, "part2") == [(30, 0)]
        grey = tab.locator('[data-step="Install chassis"]')
        press(tab, "ArrowRight", "1")
        playwright.expect(grey).to_have_attribute("aria-disabled", "true")
        reason = "chassis is installed already, since frame 30"
        assert grey.get_attribute("title") == reason
        playwright.expect(tab.locator("#say")).to_have_text(f"Not labelled: {reason}")

        tick = tab.locator(".tick.install").bounding_box()
        x, y = tick["x"] + tick["width"] / 2, tick["y"] + 8
        tab.mouse.move(x, y)
        tab.mouse.down()
        tab.mouse.move(x + 60, y, steps=4)
        moved = int(tab.locator("[data-frame]").inner_text())
        assert labels(server, "part2") == [(30, 0)], "it is not let go yet"
        tab.mouse.up()
        saved(tab)
        assert moved > 50
        for keys, frame in ((), moved), (["Control+z"], 30), (["Control+y"], moved):
            press(tab, *keys)
            saved(tab)
            assert labels(server, "part2") == [(frame, 0)]

        jump(tab, 20)
        press(tab, "4")
        saved(tab)
        said = "Install engine at frame 20, 0:04.0: Install front wheels, Install rear wheels"
        playwright.expect(tab.locator("#alert")).to_have_text(f"{said} should come first")
        press(tab, "Shift+R", "4")  # in the frame in which it was installed: that cannot be
        assert labels(server, "part2") == [(20, 9), (moved, 0)]
        press(tab, "Backspace")
        press(tab, "1")  # so that the label after it says nothing new, which own would refuse
        saved(tab)
        playwright.expect(tab.locator(".tick.bad")).to_have_count(1)
        assert "changes nothing" in rows(tab)[1]
        press(tab, "Shift+J")
        assert tab.locator("[data-frame]").inner_text() == str(moved)
        tab.locator("input[name=frame]").click()
        press(tab, "2", "Backspace", "7")
        assert labels(server, "part2") == [(20, 0), (moved, 0)], "keys of a field label nothing"


def test_two_tabs_other_programs_and_kills(tab, tmp_path):
    with serving(tmp_path, "part2") as server:
        opened(tab, server, "part2", 30)
        file = tmp_path / "labels/part2.csv"
        press(tab, "1")
        saved(tab)
        other = tab.context.new_page()
        opened(other, server, "part2", 40)
        press(other, "2")
        saved(other)
        tab.bring_to_front()
        dialog = tab.get_by_role("dialog")
        playwright.expect(dialog).to_contain_text("The file has 2 rows, this page 1")
        playwright.expect(tab.locator('[data-saved="false"]')).to_have_count(1)
        press(tab, "3")  # goes to the dialog, not to the page
        assert labels(server, "part2") == [(30, 0), (40, 3)], "nothing is overwritten"
        press(tab, "Enter")  # takes those of the file
        saved(tab)
        assert len(rows(tab)) == 2
        other.close()

        file.write_text("time,step\n1.0,Install cabin\n")
        playwright.expect(dialog).to_be_visible()
        dialog.get_by_role("button", name="Write those of this page").click()
        saved(tab)
        assert labels(server, "part2") == [(30, 0), (40, 3)]

        def lose(route):
            route.fetch()
            route.abort()

        for keys in ("End", "7"), ("8", "Backspace", "Backspace", "Shift+G", "3", "0", "Enter"):
            tab.route("**/labels", lose, times=1)  # written, and then the server ends
            press(tab, *keys)
            saved(tab)
        assert labels(server, "part2") == [(30, 0), (40, 3)], "that is no conflict"

        server.kill()
        press(tab, "Shift+ArrowRight", "3")
        playwright.expect(tab.locator("#saved")).to_have_text(
            "Not saved: no connection to the server"
        )
        assert labels(server, "part2") == [(30, 0), (40, 3)]
        with serving(tmp_path, flags=[f"--port={server.port}"]) as again:
            tab.wait_for_selector('[data-saved="true"]')
            assert labels(again, "part2") == [(30, 0), (35, 6), (40, 3)]


def test_contrast_and_room(tab, tmp_path):
    with serving(tmp_path, "part2") as server:
        opened(tab, server, "part2", 30)
        press(tab, "1", "2", "Shift+B", "Shift+W", "3", "4")
        saved(tab)
        for scheme in ("light", "dark"):
            tab.emulate_media(color_scheme=scheme)
            texts = tab.evaluate(CONTRASTS)
            press(tab, "Shift+?")
            texts += tab.evaluate(CONTRASTS)
            press(tab, "Escape")
            assert len(texts) > 100
            assert {text: contrast for text, contrast, _ in texts if contrast < 4.5} == {}
        assert not tab.evaluate("document.documentElement.scrollWidth > innerWidth")
        assert not tab.evaluate("document.documentElement.scrollHeight > innerHeight")
        unnamed = "[...document.querySelectorAll('button, input, summary')].filter((e) =>"
        unnamed += " !(e.ariaLabel || e.innerText || e.labels?.length)).length"
        assert tab.evaluate(unnamed) == 0, "for screen readers"


def test_boxes_by_two_clicks_and_by_keys_are_those_that_own_reads(tab, tmp_path):
    with serving(tmp_path, "part2") as server:
        opened(tab, server, "part2", 10)
        press(tab, "Shift+B")
        for frame, shift in (10, 0), (20, 0.2):
            jump(tab, frame)
            place = tab.locator("#overlay").bounding_box()
            for share in (0.25, 0.5):
                x, y = share + shift, share
                tab.mouse.click(place["x"] + x * place["width"], place["y"] + y * place["height"])
            playwright.expect(tab.locator("#box-count")).to_contain_text("drawn here")
        jump(tab, 15)
        playwright.expect(tab.locator("#box-count")).to_have_text("carried here, 2 drawn")
        for field, text in zip("xywh", ("50", "20", "40", "48"), strict=True):
            tab.locator(f"#box-{field}").fill(text)
        press(tab, "Enter")
        jump(tab, 30)
        press(tab, "Shift+E")
        saved(tab)
        tab.reload()
        playwright.expect(tab.locator(".span")).to_have_count(4)
        found = matching.read_boxes(tmp_path / "labels/boxes/part2.json")
        assert found.frames.tolist() == list(range(10, 21))
        corners = found.boxes[:, :2] - found.boxes[:, 2:] / 2  # in 0…1
        drawn = [[0.25, 0.25], [50 / 160, 20 / 96], [0.45, 0.25]]
        np.testing.assert_allclose(corners[[0, 5, 10]], drawn, atol=0.01)
        between = corners[5] + 0.6 * (corners[10] - corners[5])
        np.testing.assert_allclose(corners[8], between, atol=0.01)
        assert found.empty.tolist() == [30]


def test_proposals_are_accepted_rejected_and_answered_by_their_step(tab, tmp_path):
    with serving(tmp_path, "demo", flags=["--model=demo"]) as server:
        opened(tab, server, "demo")
        ghosts = tab.locator(".tick.proposal")
        playwright.expect(ghosts.first).to_be_attached(timeout=400_000)
        playwright.expect(tab.locator("#proposed-by")).to_have_text("Proposed by learned")
        press(tab, "Shift+J")
        first = int(tab.locator("[data-frame]").inner_text())
        press(tab, "Enter")
        saved(tab)
        assert labels(server, "demo") == [(first, 0)]
        count = ghosts.count()
        press(tab, "Shift+J")
        press(tab, "Delete")
        playwright.expect(ghosts).to_have_count(count - 1)
        press(tab, "Shift+J")
        before = ghosts.count()
        step = IDS[tab.locator("#rows .proposal.here .name").first.text_content()]
        press(tab, "ArrowLeft", *filter(None, [COMMANDS[step % 3], KEYS[step // 3]]))
        saved(tab)
        assert len(labels(server, "demo")) == 2
        count = ghosts.count()
        assert count < before
        tab.reload()
        playwright.expect(ghosts).to_have_count(count)


FPS = int(own_data.PROCEDURE.fps)
BENCH = {f"bench{i}": [4 * FPS + i, 8 * FPS, 12 * FPS] for i in range(4)}  # when parts are in place
FLAGS = [f"--config.{key}={value}" for key, value in guide.SMALL.items()]
LONG = 30 * 60_000  # milliseconds
# The page, which starts what it shows with a few steps of the smallest models.
PROGRAM = f"""
from data_prep.label import __main__, project
whole = project.training
def training(*given):
    words, *folders = whole(*given)
    return words + {FLAGS}, *folders
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
    for i, (name, frames) in enumerate(BENCH.items()):
        guide.film(
            tmp_path / f"videos/{name}.mp4", [frame / FPS for frame in frames], i, seconds=16
        )
    (tmp_path / "pump.json").write_text(json.dumps(own_data.PROCEDURE.to_json()))
    with LabelPage(tmp_path, tmp_path / "pump.json", program=("-c", PROGRAM)) as page:
        tab.goto(page.url)
        for name, frames in list(BENCH.items())[:3]:
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
        weights = f"--config.init_from={tmp_path}/runs/pump/pretrain/best."
        commands = f"{tmp_path}/runs/pump_2 --remake {weights}"
        playwright.expect(tab.locator("#commands")).to_contain_text(commands)
        playwright.expect(tab.locator("#train-replaces")).to_contain_text("labels have changed")
        start = tab.locator("#train-start")
        playwright.expect(start).to_be_disabled()
        tab.locator("#train-replace").check()
        playwright.expect(start).to_be_enabled()
