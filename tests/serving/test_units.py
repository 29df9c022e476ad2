import json

import numpy as np
import pytest
import simplejpeg

from stormpsr_jax.base import files
from stormpsr_jax.live.capture import Clock
from stormpsr_jax.live.station import Station
from stormpsr_jax.serving.content import with_checksum
from stormpsr_jax.serving.files import unit
from stormpsr_jax.serving.files.unit import Reset
from tests.support.live_data import (
    COVER,
    FPS,
    NOTHING,
    ONLY_COVER,
    SCREW,
    SEAL,
    Screen,
    Script,
    frames,
    ids,
    of,
    picture,
    play,
    scripted,
)
from tests.support.model_data import PICTURES

WHOLE = [(SEAL, 5), (COVER, 5), (SCREW, 5)]


def fields(unit, *keys):
    return tuple(ids(unit[key]) for key in keys)


def test_lines_have_every_field():
    told = play(frames(*WHOLE))
    events = of(told, "event")
    assert [line["step_id"] for line in events] == [0, 3, 6]
    first = events[0]
    assert set(first) == {
        *("type", "recording", "time_s", "wall_time", "frame", "step_id", "step", "component"),
        *("confidence", "stream", "evidence", "latency_ms", "dropped"),
        *("calibrated", "fits", "state"),
    }
    assert (first["frame"], first["time_s"], first["recording"]) == (1, 0.1, "x")
    assert (first["step"], first["component"], first["stream"]) == ("Install seal", "seal", "asd")
    assert first["evidence"]["frames"] == 2
    assert 0 <= first["latency_ms"] < 10_000
    assert first["wall_time"].endswith("+00:00")
    (done,) = of(told, "unit")
    assert done["ended"] == "end"
    assert fields(done, "done", "missing", "wrong", "late") == ([0, 3, 6], [], [], [])
    assert done["done"][0] == {"step_id": 0, "step": "Install seal"}
    assert (done["start_s"], done["duration_s"]) == (0.0, 1.4)
    assert done["duration_s"] > events[-1]["time_s"]  # to its last picture, not its last step
    assert [step["time_s"] for step in done["steps"]] == [line["time_s"] for line in events]
    status = of(told, "status")[-1]
    assert status["frame"] == 14
    assert status["connected"] is False
    assert 0 <= status["latency_p50_ms"] <= status["latency_p99_ms"]
    assert status["fps"] > 0


def test_alerts_and_the_unit_name_late_wrong_and_missing_steps():
    told = play(frames((ONLY_COVER, 5), (COVER, 5)))
    alerts = of(told, "alert")
    assert [(a["alert"], a["step_id"], a["other"]) for a in alerts] == [
        ("missed", 0, 3),
        ("out of order", 0, 3),
    ]
    assert alerts[0]["message"] == "Install seal is missing before Install cover"
    (done,) = of(told, "unit")
    assert fields(done, "late", "missing", "wrong") == ([0], [6], [])
    told = play(frames((SEAL, 5), (COVER, 5), (SEAL, 9)))  # the cover was taken off
    assert of(told, "alert")[-1]["alert"] == "unexpected"
    assert fields(of(told, "unit")[0], "wrong", "missing") == ([5], [3, 6])


def test_reset_complete_waits_until_the_assembly_is_taken_away():
    wait = int(unit.TAKEN_AWAY * FPS)
    hand = [(SCREW, 20), (NOTHING, wait - 1), (SCREW, 20)]  # before the camera, not long enough
    first = [*WHOLE, *hand, (NOTHING, wait)]
    told = play(frames(*first, *WHOLE, (SCREW, 10), (SEAL, wait), *WHOLE), "complete")
    assert [line["step_id"] for line in of(told, "event")] == [0, 3, 6] * 3
    units = of(told, "unit")
    assert [line["unit"] for line in units] == [1, 2, 3]
    assert {line["ended"] for line in units} == {"complete"}
    assert {len(line["missing"]) for line in units} == {0}
    assert [line["frame"] for line in units] == [e["frame"] for e in of(told, "event")[2::3]]
    assert units[1]["start_s"] == sum(count for _, count in first) / FPS
    # Unfinished, it never ends, though nothing is seen.
    (only,) = of(play(frames(*WHOLE[:2], (NOTHING, 200)), "complete"), "unit")
    assert (only["ended"], *fields(only, "missing")) == ("end", [6])


def test_outputs_get_the_lines_and_a_screen_what_is_known():
    screen = Screen(every=3)

    def before(script, number):
        script.connected = number != 12
        script.trouble = "gone"

    shown = frames(*WHOLE, (SCREW, 5))
    shown[3] = (0.3, np.tile(picture(SEAL), (650, 325, 1)))
    told = play(
        shown,
        "complete",
        before=before,
        outputs=[screen],
        screen=screen,
        framing=PICTURES.framing_of("encoder"),
    )
    assert screen.records == told
    sizes = [jpeg and simplejpeg.decode_jpeg_header(jpeg)[:2] for jpeg in screen.pictures]
    assert sizes[:6] == [(4, 4), None, None, (867, 434), None, None]
    views = screen.views
    assert [view["time_s"] for view in views[:15]] == [i / 10 for i in range(15)]
    assert views[9]["box"] == {
        **{"x0": 0.25, "y0": 0.25, "x1": 0.75, "y1": 0.75},
        **{"label": "2 of 3 parts 0.90", "error": False},
    }
    rows = views[10]["checklist"]
    assert [row["name"] for row in rows] == ["Install seal", "Install cover", "Install screw"]
    assert [row["status"] for row in rows] == ["done", "done", "next"]
    assert [row["time_s"] for row in rows] == [0.1, 0.6, None]
    assert (views[10]["recording"], views[10]["fps"] > 0, views[10]["dropped"]) == ("x", True, 0)
    assert "beliefs" not in views[10]  # of the learned fusion alone
    sources = [view["source"] for view in views]
    assert (sources.count("lost"), sources[0], sources[-1]) == (1, "live", "ended")
    assert {line["connected"] for line in of(told, "status")} == {True, False}
    waiting = [view["waiting"] for view in views]
    assert waiting == sorted(waiting)
    assert sum(waiting) > 5
    assert {view["unit"] for view in views if view["waiting"]} == {2}


def test_the_units_of_today_have_pictures_and_stay_over_a_restart(tmp_path, monkeypatch):
    path, screen = tmp_path / "s.json", Screen()
    told = play(frames((COVER, 5), (SEAL, 5)), screen=screen, state=path)
    first, now = screen.units
    (unit,) = of(told, "unit")
    assert first == {k: v for k, v in unit.items() if k != "dropped"} | {"alerts": first["alerts"]}
    keys = ("step_id", "step", "time_s", "frame")
    steps, events = (
        [{k: e[k] for k in keys} for e in x] for x in (first["steps"], of(told, "event"))
    )
    assert steps == events != []
    assert all(step["wall_time"] <= unit["wall_time"] for step in first["steps"])
    messages = [line["message"] for line in of(told, "alert") if line["alert"] != "withdrawn"]
    assert [alert["message"] for alert in first["alerts"]] == messages != []
    assert (now["unit"], now["type"], now["steps"]) == (2, "now", [])
    pictured = [line["frame"] for line in told if line["type"] in ("event", "alert")]
    assert [frame for frame, _ in screen.snapshots] == pictured
    assert {simplejpeg.decode_jpeg(jpeg).shape for _, jpeg in screen.snapshots} == {(4, 4, 3)}

    again = Screen()
    play([], state=path, screen=again)
    assert again.units[0] == first
    monkeypatch.setattr("stormpsr_jax.serving.files.unit._day", lambda record: record["wall_time"])
    play(frames((SEAL, 5), start=40), state=path, screen=again)
    assert [unit["unit"] for unit in again.units] == [2, 3], "those of another day are left out"


def test_state_goes_on_after_any_frame(tmp_path):
    """Ended before each frame and started again: what is told together is told in one go."""
    runs = [(ONLY_COVER, 5), (COVER, 5), (SCREW, 5), (NOTHING, 40), *WHOLE, (NOTHING, 40)]
    shown = frames(*runs)
    kinds = ("event", "alert", "unit")
    varying = ("wall_time", "latency_ms")

    def fixed(told):
        kept = [line for line in told if line["type"] in kinds]
        for step in (step for line in kept for step in line.get("steps", ())):
            del step["wall_time"]
        return [{k: v for k, v in line.items() if k not in varying} for line in kept]

    expected = fixed(play(shown, "complete"))
    assert [line["ended"] for line in of(expected, "unit")] == ["complete", "complete"]
    path = tmp_path / "s.json"
    told = []
    for start in range(0, len(shown), 3):
        told += fixed(play(shown[start:], "complete", state=path, stop_at=2))
    assert told == expected
    assert not list(tmp_path.glob("*.part"))


def test_state_is_saved_before_a_line_is_told(tmp_path):
    path = tmp_path / "s.json"
    seen = []

    def tell(line):
        line = json.loads(line)
        if line["type"] == "event":
            seen.append((line["step_id"], files.read_json(path)["live"]["decoder"]["components"]))

    one = Station(scripted(), "x", clock=Clock(FPS, 0.0), reset=Reset(), state=path, tell=tell)
    one.run(Script(frames(*WHOLE)), ())
    assert [[row[0] for row in rows] for _, rows in seen] == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]


def test_restore_errors_name_the_file(tmp_path):
    path = tmp_path / "s.json"
    play(frames(*WHOLE[:2]), state=path)
    saved = files.read_json(path)
    for change, message in (
        ({"frame": 1.0}, "frame: expected int"),
        ({"source": "y"}, "is the state of another source, 'y'; this one is 'x'; remove it"),
        ({"format": 1}, "format: "),
        ({"live": {}}, "the saved state: format: is missing"),
        ({"unit": saved["unit"] | {"count": "1"}}, "unit: count: expected int, got str"),
        ({"more": 1}, "'more': is no field that is known"),
    ):
        files.write_json(path, with_checksum(saved | change))
        with pytest.raises(ValueError, match=message) as raised:
            play([], state=path)
        assert str(raised.value).startswith(f"{path}: ")
        assert "remove it to start anew" in str(raised.value)
    files.write_json(path, saved | {"start": saved["start"] + 1})
    with pytest.raises(ValueError, match=r"s.json: the saved state is damaged \(its checksum"):
        play([], state=path)
