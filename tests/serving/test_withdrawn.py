import json
import time

import pytest

from stormpsr_jax.serving import product_gate_watch
from stormpsr_jax.serving.product_gate import Fits
from tests.support.live_data import COVER, FPS, NOTHING, SCREW, SEAL, frames, scripted
from tests.support.played import Screen, play, steps_of

OWN, FOREIGN = Fits({"detector": 0.1}, None), Fits({"detector": 0.9}, None)
ALL = ((SEAL, 8), (COVER, 8), (SCREW, 8))
IDS = [0, 3, 6]
LONG = 700  # frames without a familiar picture, after which they are of another product


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """A minute instead of three, so that short recordings will do."""
    monkeypatch.setattr(product_gate_watch, "HELD", 60.0)


def fed(live, shown):
    return [event for at, picture in shown for event in live.update(picture, at)]


def played(fits, shown, **options):
    told = play(shown, live=scripted(fits=fits), **options)
    return [line for line in told if line["type"] != "status"]


def test_live_tells_at_once_what_a_model_without_a_gate_tells():
    shown = frames((NOTHING, 30), *ALL, (SCREW, 60))
    free, live = scripted(), scripted(fits=OWN)
    assert fed(live, shown) == fed(free, shown) != []
    assert (live.fits, free.fits, live.withdrawn) == (True, None, [])
    assert live.progress == free.progress


def test_live_withdraws_what_was_told_of_another_product_and_begins_anew():
    live = scripted(fits=FOREIGN)
    blank = live.progress
    told = fed(live, frames(*ALL))
    assert [(event.step_id, live.fits) for event in told] == [(step, None) for step in IDS]
    for at, picture in frames((NOTHING, LONG), start=24):
        assert live.update(picture, at) == []
        if live.withdrawn:
            break
    assert (live.fits, live.frame) == (False, 599)
    assert [one[:2] for one in live.withdrawn] == [event[:2] for event in told]
    assert [one[2:] for one in live.withdrawn] == [(e.name, e.time_s) for e in told]
    assert live.progress == blank
    assert fed(live, frames((COVER, 20), (SCREW, 20), start=live.frame + 1)) == []
    assert (live.withdrawn, live.alerts) == ([], [])


def test_live_withdraws_nothing_of_its_own_product_and_goes_on_with_it_after_a_restart_too():
    """What was done to it out of sight is reported when it is known again, at that time."""
    live = scripted(fits=OWN)
    assert [event.step_id for event in fed(live, frames((SEAL, 80)))] == IDS[:1]
    for at, picture in frames((NOTHING, 1500), start=80):
        assert (live.update(picture, at), live.withdrawn) == ([], [])
    again = scripted(fits=OWN)
    again.restore(json.loads(json.dumps(live.state())))
    assert (again.fits, again.withdrawn) == (False, [])
    assert [step.status for step in again.progress] == ["done", "next", "open"]
    known = []
    for at, picture in frames((COVER, 100), start=1580):
        known += [(at, event.step_id, again.fits) for event in again.update(picture, at)]
        assert again.fits or not known
    ((at, step, fits),) = known
    assert (at > 1580 / FPS + 1, step, fits) == (True, 3, True)
    assert [step.status for step in again.progress] == ["done", "done", "next"]


def test_live_the_verdict_and_what_is_unconfirmed_outlast_a_unit_and_a_saved_state():
    live = scripted(fits=FOREIGN)
    fed(live, frames(*ALL))
    live.reset()
    again = scripted(fits=FOREIGN)
    again.restore(json.loads(json.dumps(live.state())))
    fed(again, frames((NOTHING, LONG - 200), start=24))
    again.end()
    assert [one.step_id for one in again.withdrawn] == IDS
    assert fed(again, frames(*ALL, start=1000)) == []
    for shown, fits in ([[(SEAL, 80)], True], [[*ALL, (NOTHING, 100)], None]):
        live = scripted(fits=OWN)
        fed(live, frames(*shown))
        live.reset()
        assert live.fits is fits
        live.end()
        assert live.withdrawn == []


@pytest.mark.parametrize("stop_at", [20, 200, 600])
def test_station_withdraws_after_a_restart_too(tmp_path, stop_at):
    shown, state = frames(*ALL, (NOTHING, LONG)), {"state": tmp_path / "s.json"}
    told = played(FOREIGN, shown, stop_at=stop_at, **state)
    told += played(FOREIGN, shown[stop_at + 1 :], **state)
    assert steps_of(told, "event") == steps_of(told, "withdrawn") == IDS


@pytest.mark.parametrize(
    ("fits", "then", "verdict"),
    [(OWN, (SCREW, 60), True), (FOREIGN, (NOTHING, LONG), False), (None, (SCREW, 60), None)],
)
def test_hold_tells_no_step_before_the_verdict(fits, then, verdict):
    shown = frames(*ALL, then)
    screen = Screen()
    held = played(fits, shown, hold=True, screen=screen)
    assert steps_of(held, "withdrawn") == []
    assert steps_of(held, "event") == ([] if verdict is False else IDS)
    assert {line["fits"] for line in held if line["type"] == "event"} <= {verdict}
    early = screen.views[24]
    assert early["holding"] == early["checking"] == (fits is not None)
    done = [step["status"] for step in early["checklist"]].count("done")
    assert done == (0 if fits else 3)


def test_hold_keeps_what_waits_over_a_restart_and_tells_it_at_the_end(tmp_path):
    shown, state = frames(*ALL, (NOTHING, 50)), {"state": tmp_path / "s.json", "hold": True}
    assert played(OWN, shown, stop_at=40, **state) == []
    time.sleep(0.3)
    told = played(OWN, shown[41:], **state)
    assert steps_of(told, "event") == IDS
    assert all(line["latency_ms"] > 300 for line in told if line["type"] == "event")
    assert told[-1]["ended"] == "end"
