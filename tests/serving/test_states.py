"""Saved states of live recognition that somebody has changed, with a checksum that fits."""

import copy
import json

import pytest

from stormpsr_jax.base import files
from stormpsr_jax.live import station
from stormpsr_jax.live.capture import Clock
from stormpsr_jax.serving.files.unit import Reset
from tests.support.live_data import COVER, FPS, SCREW, SEAL, Script, frames, scripted

# One and more of every type that JSON has; numbers that no list, frame or float can have, too.
VALUES = [
    None, True, 0, 1, -1, 2, 10**6, 2**53, 10**400, 0.5, -2.5, 1e308, "", "\ud800", [], [0], [None],
    [[0]], [[0, 0]], [[0, "x"]], [[0.5, 0]], {}, {"a": 0}, [[{}, 0]], [[0, [0.5]]], [[0, [99]]],
]  # fmt: skip


def paths(value, path=()):
    """The way to each value within this one."""
    yield path
    if isinstance(value, dict):
        inner = list(value.items())
    else:  # of long rows, the first ones do
        inner = list(enumerate(value))[:2] if isinstance(value, list) else []
    for key, one in inner:
        yield from paths(one, (*path, key))


def changed(value, path, new):
    """A copy with another value there."""
    if not path:
        return new
    copied = copy.copy(value)
    copied[path[0]] = changed(value[path[0]], path[1:], new)
    return copied


def made(live, path=None):
    return station.Station(
        live,
        "x",
        clock=Clock(FPS, 0.0),
        reset=Reset("complete"),
        state=path,
        tell=lambda line: json.loads(line),
    )


def in_the_middle(live, shown, path):
    """Saves the state in the middle of a unit."""
    stop = []
    script = Script(shown)
    script.before = lambda script: stop.append("stop") if len(script.shown) == 1 else None
    made(live, path).run(script, stop)
    assert files.read_json(path)["unit"]["num_steps"] > 0


def check(live, shown, path, monkeypatch):
    """Changes each value of the state in the file to each of `VALUES`.

    Each time, the state is refused in a line that names the file, or recognition goes on from it.
    """
    saved = files.read_json(path)
    places = [place for place in paths(saved) if place and place[0] != "checksum"]
    assert len(places) > 30
    # Thousands of states: without a disk.
    text = ""
    monkeypatch.setattr(files, "write_json", lambda *_: None)
    monkeypatch.setattr(files, "read_json", lambda _: json.loads(text))
    refused = 0
    for place in places:
        for value in VALUES:
            state = changed(saved, place, value)
            live.reset()
            one = made(live, path)
            text = json.dumps(station.sealed(state))
            try:
                one.restore()
            except ValueError as error:
                line = str(error)
                assert line.startswith(f"{path}: "), (place, value)
                assert "\n" not in line, (place, value)
                assert len(line) < 1000, (place, value)
                refused += 1
                continue
            try:
                start = 0 if live.frame is None else live.frame + 1
                one.run(Script([(start / FPS + t, picture) for t, picture in shown]), ())
                json.dumps(live.state(), allow_nan=False)
            except Exception as error:
                raise AssertionError((place, value)) from error
    assert refused > len(places) * len(VALUES) / 2


@pytest.mark.parametrize("stream", ["asd", "temporal", "learned"])
def test_a_changed_state_is_refused_in_a_line_or_gone_on_from(tmp_path, monkeypatch, stream):
    path = tmp_path / "s.json"
    live = scripted(stream)
    # The cover before the seal, and an event in the middle of things.
    runs = {"asd": [(COVER, 4), (SEAL, 4), (COVER, 2)], "learned": [(SEAL, 9), (COVER, 9)]}
    shown = frames(*runs.get(stream, [(SEAL, 8)]))
    in_the_middle(live, shown, path)
    check(live, frames((SEAL, 1), (SCREW, 2)), path, monkeypatch)
