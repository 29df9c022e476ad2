"""The server of the labelling page, by real HTTP: who may ask, and what is saved."""

import http.client
import json
import signal
import time
from concurrent import futures
from pathlib import Path

import pytest

from tests.data_prep.test_label import write_film
from tests.support.label_page import TOKEN, LabelPage, command
from tests.support.own_data import PROCEDURE
from tests.support.processes import finish, start, wait_until

pytest.importorskip("sse_starlette", reason="needs the extra live")
pytest.importorskip("uvicorn", reason="needs the extra live")


def serving(folder):
    return LabelPage(folder, folder / "pump.json")


def video(page, name):
    while (found := page.ask(f"/api/videos/{name}"))[2].get("frames", 0) is None:
        time.sleep(0.05)
    assert found[0] == (422 if name == "stranger" else 200), found
    return found[2]


def save(page, name, revision, steps, **more):
    labels = [{"frame": frame, "step_id": step} for frame, step in steps]
    return page.ask(
        f"/api/videos/{name}/labels", "PUT", {"revision": revision, "labels": labels, **more}
    )


@pytest.fixture
def product(tmp_path, system):
    (tmp_path / "videos").mkdir()
    write_film(tmp_path / "videos/bench1.mp4")
    write_film(tmp_path / "videos/bench2.mkv", variable=True)
    (tmp_path / "videos/stranger.mp4").write_bytes(b"no video")
    (tmp_path / "pump.json").write_text(json.dumps(PROCEDURE.to_json()))
    return tmp_path


def test_only_who_has_the_token_and_the_name_of_this_machine_may_ask(product):
    with serving(product) as page:
        assert page.url == f"http://127.0.0.1:{page.port}/?token={TOKEN}"
        for path in ("/", "/api/project", "/media/bench1", "/static/style.css", "/api/changes"):
            assert page.ask(path, authorization=None)[0] == 401
            assert page.ask(path, host="evil.example")[0] == 403
            assert page.ask(path, **{"sec-fetch-site": "cross-site"})[0] == 403
        for method, path in (("PUT", "/api/videos/bench1/labels"), ("POST", "/api/train")):
            for origin in (None, "http://evil.example", "null"):
                assert page.ask(path, method, {}, origin=origin)[0] == 403
        _, headers, _ = page.ask(f"/?video=bench1&token={TOKEN}", authorization=None)
        assert headers["location"] == "./?video=bench1"
        assert page.ask("/", authorization=f"Bearer {TOKEN}x")[0] == 401
        for name in ("..%2f..%2fpump.json", "%2e%2e", "pump.json", "stranger.mp4", "server.py"):
            for path in ("/media/", "/static/", "/api/videos/"):
                assert page.ask(path + name)[0] == 404
        assert "is writing to" in finish(start(command(product, product / "pump.json")), code=2)[0]


def test_the_page_is_told_what_is_there_and_what_has_changed(product):
    with serving(product) as page:
        first = video(page, "bench1")
        assert (first["frames"], first["initial_state"]) == (25, [0, 0, 0])
        assert "is not a video that can be read" in video(page, "stranger")["error"]
        status, _, jpeg = page.ask("/api/videos/bench1/frames/24.jpg?width=32")
        assert (status, jpeg[:2]) == (200, b"\xff\xd8")
        assert page.ask("/api/videos/bench1/frames/25.jpg")[0] == 422
        whole = (product / "videos/bench1.mp4").read_bytes()
        status, _, part = page.ask("/media/bench1", range="bytes=100-199")
        assert (status, part) == (206, whole[100:200])
        news = http.client.HTTPConnection("127.0.0.1", page.port, timeout=20)
        news.request("GET", "/api/changes", headers={"authorization": f"Bearer {TOKEN}"})
        changes = news.getresponse()
        status, _, saved = save(page, "bench1", first["revision"], [(3, 0), (9, 4)])
        assert status == 200
        told = iter(lambda: json.loads((changes.readline().partition(b": ")[2]) or b"{}"), None)
        assert next(told) == {"video": "bench1", "revision": saved["revision"]}
        status, _, other = save(page, "bench1", first["revision"], [])  # a second tab
        assert (status, other["revision"]) == (409, saved["revision"])
        assert [(e["frame"], e["step_id"]) for e in other["labels"]] == [(3, 0), (9, 4)]
        assert next(e for e in told if e)["revision"] == saved["revision"]  # it was seen on disk
        (product / "labels/bench1.csv").write_text("time,step\n2,Install seal\n")
        changed = next(e for e in told if e and e["revision"] != saved["revision"])
        assert changed["video"] == "bench1"
        assert save(page, "bench1", saved["revision"], [(3, 0)])[0] == 409
        assert save(page, "bench1", "", [(3, 99)])[0] == 409
        revision = video(page, "bench1")["revision"]
        assert save(page, "bench1", revision, [(3, 99)])[0] == 422
        revision = save(page, "bench1", revision, [], done=True)[2]["revision"]
        wanted = {"aspect": "", "splits": "100/0/0"}
        status, _, refused = page.ask("/api/train/plan", "POST", wanted)
        assert (status, "done, but without a step: bench1" in refused["error"]) == (422, True)
        assert save(page, "bench1", revision, [(10, 0)], done=True)[0] == 200
        assert next(e for e in told if e) != changed  # which was told once
        _, _, project = page.ask()
        found = {entry["name"]: entry["status"] for entry in project["videos"]}
        assert found == {"bench1": "done", "bench2": "unlabelled", "stranger": "unlabelled"}
        box = {"frame": 2, "x": 1.0, "y": 1.0, "w": 9.0, "h": 9.0}
        boxes = {"revision": video(page, "bench1")["boxes_revision"], "boxes": [box]}
        assert page.ask("/api/videos/bench1/boxes", "PUT", boxes)[2]["boxes"] == [box]
        assert page.ask("/api/videos/bench1/boxes", "PUT", boxes)[0] == 409
        told = page.ask("/api/train/plan", "POST", wanted)[2]
        assert told["shown"]["Boxes"] == "in 1 of these, but none in val: no detector"
        before = Path(told["shown"]["Model"])
        (before / "model").mkdir(parents=True)
        told = page.ask("/api/train/plan", "POST", wanted)[2]
        assert told["replaces"] == [f"{before}: what a training that did not end has made"]
        (before / "model/model.json").touch()
        (before / "metrics.json").write_text('{"streams": {"asd": 1}}')  # of another version
        told = page.ask("/api/train/plan", "POST", wanted)[2]
        assert told["replaces"] == []
        assert told["shown"]["Starts from"] == str(before)
        assert "is no result of this version" in told["shown"]["Record next"]
        for bad in ({"aspect": "../x"}, {"crop": "left"}, {"splits": "70/15/15"}):
            assert page.ask("/api/train/plan", "POST", bad)[0] == 422
        assert save(page, "bench2", video(page, "bench2")["revision"], [(3, 0)])[0] == 200
        status, _, told = page.ask("/api/train", "POST", wanted)
        assert (status, "bench2" in told["error"]) == (422, True)
        assert page.ask("/api/videos/bench2/frames/3.jpg")[0] == 200
        write_film(product / "videos/bench2.mkv", num=90)
        assert "has changed since" in page.ask("/api/videos/bench2")[2]["error"]
        assert page.ask("/api/videos/bench1/frames/3.jpg")[0] == 200
        page.process.send_signal(signal.SIGINT)
        assert page.process.wait(20) == 130


# The page, whose training does nothing for long.
IDLE = """
import time
from data_prep.label import __main__, project
def plan(*_):
    time.sleep(0.2)
    return {"replaces": []}, [["timeit", "-s", "import time", "time.sleep(60)"]], "runs"
project.Project.plan = plan
__main__.main()
"""


def test_two_clicks_start_one_training(product):
    with LabelPage(product, product / "pump.json", program=("-c", IDLE)) as page:
        with futures.ThreadPoolExecutor() as pool:
            asked = [pool.submit(page.ask, "/api/train", "POST", {"aspect": ""}) for _ in range(2)]
        assert sorted(one.result()[0] for one in asked) == [202, 409]
        assert page.ask("/api/train")[2]["state"] == "running"
        assert page.ask("/api/train/stop", "POST", {})[0] == 202
        wait_until(lambda: page.ask("/api/train")[2]["state"] == "idle")
