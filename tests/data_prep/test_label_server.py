"""The server of the labelling page, by real HTTP: who may ask, and what is saved."""

import contextlib
import http.client
import json
import random
import signal
import sys
import time
import urllib.parse

import pytest

from tests.data_prep.test_label import write_film
from tests.support.own_data import PROCEDURE
from tests.support.processes import environment, finish, start

pytest.importorskip("sse_starlette", reason="needs the extra live")
pytest.importorskip("uvicorn", reason="needs the extra live")

TOKEN = "a-token-of-24-characters"
STEPS = 3 * PROCEDURE.num_components


def command(folder):
    words = ["label", folder / "videos", f"--procedure={folder / 'pump.json'}"]
    return [sys.executable, "-m", "stormpsr_jax", *words, f"--labels={folder / 'labels'}"]


class Page:
    """A server, and what a tab sends to it."""

    def __init__(self, folder):
        self.process = start(command(folder), env=environment(STORMPSR_TOKEN=TOKEN))
        self.url = self.process.stdout.readline().split()[-1]
        self.port = urllib.parse.urlsplit(self.url).port
        self.host = f"127.0.0.1:{self.port}"

    def ask(self, path="/api/project", method="GET", body=None, **headers):
        """Returns status, headers and body; as JSON, where it is that."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        headers = {"authorization": f"Bearer {TOKEN}", "origin": f"http://{self.host}"} | headers
        headers = {name: value for name, value in headers.items() if value is not None}
        connection.request(method, path, body and json.dumps(body), headers)
        answer = connection.getresponse()
        found, content = dict(answer.getheaders()), answer.read()
        connection.close()
        if "json" in found.get("content-type", ""):
            content = json.loads(content)
        return answer.status, found, content

    def video(self, name):
        while (found := self.ask(f"/api/videos/{name}"))[2].get("frames", 0) is None:
            time.sleep(0.05)
        assert found[0] == (422 if name == "stranger" else 200), found
        return found[2]

    def save(self, name, revision, steps, **more):
        labels = [{"frame": frame, "step_id": step} for frame, step in steps]
        body = {"revision": revision, "labels": labels, **more}
        return self.ask(f"/api/videos/{name}/labels", "PUT", body)


@contextlib.contextmanager
def serving(folder):
    page = Page(folder)
    try:
        yield page
    finally:
        page.process.kill()
        page.process.communicate()


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
        status, headers, _ = page.ask(f"/?video=bench1&token={TOKEN}", authorization=None)
        assert (status, headers["location"]) == (303, "./?video=bench1")
        cookie = headers["set-cookie"].partition(";")[0]
        assert TOKEN not in cookie
        assert page.ask(authorization=None, cookie=cookie)[0] == 200
        assert page.ask("/", authorization=f"Bearer {TOKEN}x")[0] == 401
        for name in ("..%2f..%2fpump.json", "%2e%2e", "pump.json", "stranger.mp4", "server.py"):
            for path in ("/media/", "/static/", "/api/videos/"):
                assert page.ask(path + name)[0] == 404
        policy = page.ask("/static/style.css")[1]["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "is writing to" in finish(start(command(product)), code=2)[0]


def test_the_page_is_told_what_is_there_and_what_has_changed(product):
    with serving(product) as page:
        video = page.video("bench1")
        assert (video["frames"], video["initial_state"]) == (25, [0, 0, 0])
        assert "is not a video that can be read" in page.video("stranger")["error"]
        status, _, jpeg = page.ask("/api/videos/bench1/frames/24.jpg?width=32")
        assert (status, jpeg[:2]) == (200, b"\xff\xd8")
        assert page.ask("/api/videos/bench1/frames/25.jpg")[0] == 422
        whole = (product / "videos/bench1.mp4").read_bytes()
        status, _, part = page.ask("/media/bench1", range="bytes=100-199")
        assert (status, part) == (206, whole[100:200])
        news = http.client.HTTPConnection("127.0.0.1", page.port, timeout=20)
        news.request("GET", "/api/changes", headers={"authorization": f"Bearer {TOKEN}"})
        changes = news.getresponse()
        status, _, saved = page.save("bench1", video["revision"], [(3, 0), (9, 4)])
        assert status == 200
        told = iter(lambda: json.loads((changes.readline().partition(b": ")[2]) or b"{}"), None)
        assert next(told) == {"video": "bench1", "revision": saved["revision"]}
        status, _, other = page.save("bench1", video["revision"], [])  # a second tab
        assert (status, other["revision"]) == (409, saved["revision"])
        assert [(e["frame"], e["step_id"]) for e in other["labels"]] == [(3, 0), (9, 4)]
        (product / "labels/bench1.csv").write_text("time,step\n2,Install seal\n")
        assert (
            next(e for e in told if e and e["revision"] != saved["revision"])["video"] == "bench1"
        )
        assert page.save("bench1", saved["revision"], [(3, 0)])[0] == 409
        assert page.save("bench1", "", [(3, 99)])[0] == 409
        revision = page.video("bench1")["revision"]
        assert page.save("bench1", revision, [(3, 99)])[0] == 422
        assert page.save("bench1", revision, [(10, 0)], done=True)[0] == 200
        _, _, project = page.ask()
        found = {entry["name"]: entry["status"] for entry in project["videos"]}
        assert found == {"bench1": "done", "bench2": "unlabelled", "stranger": "unlabelled"}
        box = {"frame": 2, "x": 1.0, "y": 1.0, "w": 9.0, "h": 9.0}
        boxes = {"revision": page.video("bench1")["boxes_revision"], "boxes": [box]}
        assert page.ask("/api/videos/bench1/boxes", "PUT", boxes)[2]["boxes"] == [box]
        assert page.ask("/api/videos/bench1/boxes", "PUT", boxes)[0] == 409
        assert "--boxes=" in page.ask()[2]["commands"][0]
        assert page.save("bench2", page.video("bench2")["revision"], [(3, 0)])[0] == 200
        status, _, told = page.ask("/api/train", "POST", {})
        assert (status, "bench2" in told["error"]) == (409, True)
        write_film(product / "videos/bench2.mkv", num=90)
        assert "has changed since" in page.ask("/api/videos/bench2")[2]["error"]
        page.process.send_signal(signal.SIGINT)
        assert page.process.wait(20) == 130


def kill_while_saving(folder, actions, kills):
    """Saves at random, and compares the files after each kill with what was answered."""
    draw = random.Random(0)
    names = ("bench1", "bench2")
    shown, asked = {name: [] for name in names}, None
    at_kill = sorted(draw.sample(range(actions), kills))
    page, done = Page(folder), 0
    try:
        while done < actions:
            revisions = {name: page.video(name) for name in names}
            for name in names:
                steps = [(e["frame"], e["step_id"]) for e in revisions[name]["labels"]]
                assert steps in (shown[name], asked), name
                shown[name] = steps
            revisions = {name: found["revision"] for name, found in revisions.items()}
            asked = None
            while done < actions:
                done += 1
                name = draw.choice(names)
                every = [(frame, step) for frame in range(25) for step in range(STEPS)]
                asked = sorted(draw.sample(every, draw.randrange(9)))
                if at_kill and done > at_kill[0]:
                    at_kill.pop(0)
                    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=20)
                    labels = [{"frame": f, "step_id": s} for f, s in asked]
                    body = json.dumps({"revision": revisions[name], "labels": labels})
                    headers = {"authorization": f"Bearer {TOKEN}", "origin": f"http://{page.host}"}
                    connection.request("PUT", f"/api/videos/{name}/labels", body, headers)
                    time.sleep(draw.random() * 0.02)
                    page.process.kill()
                    page.process.communicate()
                    connection.close()
                    page = Page(folder)
                    break
                status, _, answer = page.save(name, revisions[name], asked)
                assert status == 200
                shown[name], revisions[name] = asked, answer["revision"]
    finally:
        page.process.kill()
        page.process.communicate()


def test_a_kill_loses_at_most_what_is_being_saved(product):
    kill_while_saving(product, 300, 6)


@pytest.mark.slow
def test_ten_thousand_saves_and_fifty_kills(product):
    kill_while_saving(product, 10_000, 50)
