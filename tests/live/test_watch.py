import importlib.util
import json
import signal
import subprocess
import sys
import threading
import time
import types

import numpy as np
import pytest
import simplejpeg

import stormpsr_jax
from stormpsr_jax.live import capture, watch
from stormpsr_jax.psr.events import Event
from stormpsr_jax.serving import frames
from stormpsr_jax.serving.online import Live
from tests.support.live_data import Events, ask
from tests.support.made_once import made_once
from tests.support.model_data import PROCEDURE, video, write
from tests.support.processes import free_port, start, wait_until
from tests.support.receivers import Double, web_server
from tests.support.recognise_data import HEIGHT, WIDTH, decoded, run, write_video

SECONDS = 3
# The command, where no picture is dropped however busy the machine is.
PATIENT = """
import sys
from stormpsr_jax import recognise
from stormpsr_jax.live import watch
watch.BUFFER_SECONDS = 600
sys.exit(recognise.main())
"""


@pytest.fixture(autouse=True)
def _patient(monkeypatch):
    monkeypatch.setattr(watch, "BUFFER_SECONDS", 600)


@pytest.fixture
def hurried(monkeypatch):
    """Files play as fast as their pictures are read."""

    class Event(threading.Event):
        def wait(self, timeout=None):
            return self.is_set()

    monkeypatch.setattr(capture, "threading", types.SimpleNamespace(**vars(threading)))
    monkeypatch.setattr(capture.threading, "Event", Event)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return made_once(tmp_path_factory, "pump", write)


@pytest.fixture(scope="module")
def even(tmp_path_factory):
    pictures = video(SECONDS * 10, HEIGHT, WIDTH)
    times = np.arange(len(pictures)) / 10
    return write_video(tmp_path_factory.mktemp("even") / "a_up.mp4", pictures, times)


@pytest.fixture(scope="module")
def expected(trained, even) -> list[Event]:
    loaded = stormpsr_jax.load_model(trained)
    events = list(loaded.recognise(decoded(even), variant="assembly", batch=1))
    assert len(events) > 3
    return events


def lines_of(text):
    return [json.loads(line) for line in text.splitlines()]


def same(lines, events):
    """The lines say just these events, in order."""
    assert [(line["frame"], line["step_id"]) for line in lines] == [e[:2] for e in events]
    for line, event in zip(lines, events, strict=True):
        assert line["confidence"] == event.confidence
        assert (line["time_s"], line["step"]) == (event.time_s, event.name)
        assert line["evidence"] == event.evidence


def test_recognise_a_file_that_plays_has_the_events_of_its_pictures(
    trained, even, expected, capsys, tmp_path
):
    begin, clips = time.monotonic(), f"--alert-clips={tmp_path / 'clips'}"
    assert run(trained, even, "--realtime", "--variant=assembly", clips) == 0
    assert time.monotonic() - begin > SECONDS - 0.2
    lines = lines_of(capsys.readouterr().out)
    same([line for line in lines if line["type"] == "event"], expected)
    assert {line["dropped"] for line in lines} == {0}
    (unit,) = (line for line in lines if line["type"] == "unit")
    assert unit["ended"] == "end"
    assert len(unit["steps"]) == len(expected)
    assert lines[-1]["type"] == "status"
    assert lines[-1]["latency_p99_ms"] > 0
    alerts = [line for line in lines if line["type"] == "alert" and line["alert"] != "withdrawn"]
    alerted = sorted({line["frame"] for line in alerts})
    shown = sorted((tmp_path / "clips").iterdir(), key=lambda path: int(path.name.split("_")[1]))
    assert [int(path.name.split("_")[1]) for path in shown] == alerted != []
    assert len(decoded(shown[0])) == min(alerted[0] + 11, 10 * SECONDS)


def test_recognise_says_at_the_end_what_it_did_not_keep_up_with(
    hurried, trained, even, capsys, monkeypatch
):
    update = Live.update

    def slow(*arguments):
        time.sleep(0.05)
        return update(*arguments)

    monkeypatch.setattr(Live, "update", slow)
    monkeypatch.setattr(watch, "BUFFER_SECONDS", 0.1)
    assert run(trained, even, "--realtime", "--variant=assembly") == 0
    out, err = capsys.readouterr()
    text = "pictures were dropped: recognition did not keep up with 10 a second\n"
    assert f"warning: {lines_of(out)[-1]['dropped']} {text}" in err


@pytest.mark.parametrize("share", [None, 0.001, 1.0])
def test_recognise_says_whether_it_sees_its_product_and_holds_nothing_back(
    hurried, even, expected, tmp_path, capsys, monkeypatch, share
):
    monkeypatch.setattr(frames, "START", 1.0)
    monkeypatch.setattr(frames, "FAR_LESS", 0.9)
    monkeypatch.setattr(frames, "SURE", 0.37)
    write(tmp_path / "model", product_share=share)
    assert run(tmp_path / "model", even, "--realtime", "--variant=assembly") == 0
    lines = lines_of(capsys.readouterr().out)
    same([line for line in lines if line["type"] == "event"], expected)
    status = lines[-1]
    assert (status["type"], status["validation_share"]) == ("status", share)
    assert 0.001 < status["share"] < 0.9
    assert status["fits"] is (None if share is None else share < 1)


class Watching:
    def __init__(self, trained, source, folder, *options, **of_process):
        command = [sys.executable, "-c", PATIENT, f"--model={trained}"]
        command += [str(source), "--realtime", *map(str, options)]
        self.path = folder / "told.jsonl"
        with self.path.open("w") as file:
            self.process = start(command, stdout=file, stderr=subprocess.PIPE, **of_process)

    def lines(self):
        return lines_of(self.path.read_text(encoding="utf-8"))

    def wait_for(self, kind):
        wait_until(lambda: any(line["type"] == kind for line in self.lines()), self.process, 300)

    def end(self, code=0):
        _, errors = self.process.communicate(timeout=300)
        assert self.process.returncode == code, errors
        return self.lines()


@pytest.mark.system
def test_recognise_enter_ends_a_unit_and_sigterm_leaves_the_next_one_to_go_on(
    trained, even, tmp_path
):
    state = tmp_path / "s.json"
    options = ("--reset=key", f"--state={state}")
    watching = Watching(trained, even, tmp_path, *options, stdin=subprocess.PIPE)
    watching.wait_for("event")
    watching.process.stdin.write("\n")
    watching.process.stdin.flush()
    watching.wait_for("unit")
    watching.process.send_signal(signal.SIGTERM)
    lines = watching.end()
    units = [line for line in lines if line["type"] == "unit"]
    assert [(unit["unit"], unit["ended"]) for unit in units] == [(1, "key")]
    assert lines[-1]["type"] == "status"
    assert json.loads(state.read_text())["frame"] == lines[-1]["frame"] < SECONDS * 10 - 1


needs_live = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("starlette", "uvicorn", "paho")),
    reason="needs the extra live",
)


def view_of(port):
    with Events(port) as events:
        while (view := events.next("view")[2])["source"] != "playing":
            pass
        return view


@pytest.mark.system
@needs_live
def test_recognise_killed_and_started_again_tells_each_event_once_with_page_and_webhook(
    trained, even, expected, tmp_path
):
    receiver, port = Double(web_server()), free_port()
    options = [tmp_path, f"--state={tmp_path / 's.json'}", f"--serve={port}"]
    options.append(f"--webhook=http://127.0.0.1:{receiver.port}/line/7")
    try:
        watching = Watching(trained, even, *options)
        watching.wait_for("event")
        assert "pump · assembly" in ask(port)[2].decode()
        view = view_of(port)
        assert (view["recording"], view["unit"], view["waiting"]) == ("a_up", 1, False)
        assert [row["name"] for row in view["checklist"]][:3] == [
            PROCEDURE.step_name(step) for step in (0, 3, 6)
        ]
        assert view["latency_ms"] > 0
        _, headers, jpeg = ask(port, "/picture?after=")
        box = json.loads(headers["box"])
        assert box is None or 0 <= box["x0"] <= box["x1"] <= 1
        assert simplejpeg.decode_jpeg(jpeg).shape == (HEIGHT, WIDTH, 3)
        receiver.wait(3)
        watching.process.kill()
        before = watching.end(-signal.SIGKILL)

        watching = Watching(trained, even, *options)
        watching.wait_for("status")
        assert view_of(port)["time_s"] > before[-1]["time_s"]
        lines = watching.end()
    finally:
        receiver.close()
    same([line for line in before + lines if line["type"] == "event"], expected)
    assert {line["dropped"] for line in before + lines} == {0}
    (unit,) = (line for line in lines if line["type"] == "unit")
    assert len(unit["steps"]) == len(expected)
    posted = [body for body in receiver.records if body["type"] != "status"]
    # What waits in the process that is killed is lost, and nothing else.
    told = [line for line in before if line["type"] != "status"]
    number = len(posted) - len([line for line in lines if line["type"] != "status"])
    assert 2 <= number <= len(told)
    told[number:] = [line for line in lines if line["type"] != "status"]
    assert posted == told
    assert posted[-1]["type"] == "unit"
