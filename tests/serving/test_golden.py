"""The demo's events as they are pinned in tests/golden/demo_events.json.

A change that is meant to alter them remakes the file with `UPDATE_GOLDEN=1 pytest` on this test.
"""

import json
import os
from pathlib import Path

import pytest

from stormpsr_jax.media import sources
from stormpsr_jax.media.pictures import read_upright
from stormpsr_jax.serving.folder import load_model
from tests.support.recognise_data import rows_of, run

GOLDEN = Path(__file__).parents[1] / "golden/demo_events.json"
AT = 400  # frames, after which the state is saved


def played(live, pictures, start: int) -> list:
    """The events and alerts of pictures that come one by one."""
    rows = []
    for frame, picture in enumerate(pictures, start):
        events = live.update(picture, frame / live.fps)
        rows += [[e.kind, e.step_id, e.state, e.frame, round(e.confidence, 4)] for e in events]
        rows += [["alert", alert.step_id, alert.kind, alert.frame, 0] for alert in live.alerts]
    return rows


@pytest.mark.system
def test_the_demo_s_events_are_the_pinned_ones(tmp_path):
    """Another processor rounds otherwise, by which an event may be a frame earlier or later."""
    assert run("demo", "demo", f"--out={tmp_path}") == 0
    lines = (tmp_path / "demo/events.jsonl").read_text(encoding="utf-8").splitlines()
    files = []
    for r in map(json.loads, lines[:-1]):  # the last one is the status
        state, confidence = r.get("state", r.get("alert")), r.get("confidence", 0)
        files.append([r["type"], r["step_id"], state, r["frame"], round(confidence, 4)])
    model = load_model("demo")
    pictures = list(read_upright(sources.open_source("demo").open(model.fps)))
    live = model.live()
    rows = played(live, pictures[:AT], 0)
    state = json.loads(json.dumps(live.state()))
    rest = played(live, pictures[AT:], AT)
    again = model.live()
    again.restore(state)
    assert played(again, pictures[AT:], AT) == rest
    assert again.state() == live.state()
    table = rows_of(tmp_path / "demo")
    steps = [["event", int(r["step_id"]), r["step"], int(r["frame"]), 0] for r in table]
    events = {"files": files, "events.csv": steps, "live": rows + rest}
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(json.dumps(events) + "\n", encoding="utf-8")
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    for name, pinned in golden.items():
        rows = sorted(events[name], key=by_step)
        pinned = sorted(pinned, key=by_step)
        assert [row[:3] for row in rows] == [row[:3] for row in pinned]
        for column, margin in ((3, 2), (4, 0.03)):
            expected = [row[column] for row in pinned]
            assert [row[column] for row in rows] == pytest.approx(expected, abs=margin)


def by_step(row: list) -> tuple:
    return row[0], row[1], row[3]
