"""What a station tells is the same whether steps were held back at first or not."""

import json

import pytest

from stormpsr_jax.live.capture import Clock
from stormpsr_jax.live.station import Station
from stormpsr_jax.serving.files.unit import parse_reset
from stormpsr_jax.serving.product_gate import Fits
from tests.support.live_data import COVER, FPS, NOTHING, SCREW, SEAL, Script, frames, scripted

DETECTOR = Fits({"detector": 0.1}, None)  # 6 s of familiar pictures in a minute
ALL = ((SEAL, 8), (COVER, 8), (SCREW, 8))


def station(fits, reset="key"):
    told = []
    tell = lambda line: told.append(json.loads(line))  # noqa: E731
    live = scripted(fits=fits)
    return Station(live, "x", clock=Clock(FPS, 0.0), reset=parse_reset(reset), tell=tell), told


def played(fits, shown, reset="key", key_at=None):
    """The lines, but for what says when they were told."""
    one, told = station(fits, reset)

    def before(script):
        if len(shown) - len(script.shown) == key_at:
            one.ask_reset()

    one.run(Script(list(shown), before=before), ())
    leave_out = ("wall_time", "latency_ms", "fits")
    return [
        {key: value for key, value in line.items() if key not in leave_out}
        for line in told
        if line["type"] != "status"
    ]


@pytest.mark.parametrize(
    ("runs", "reset", "key_at", "units"),
    [
        # Their frames are far apart, and all of them are told at once.
        (((SEAL, 10), (NOTHING, 100), (COVER, 10), (NOTHING, 100), (SCREW, 60)), "key", None, 1),
        (ALL, "key", None, 1),  # the file ends before it is known whether it fits
        ((*ALL, (NOTHING, 20), (SEAL, 80)), "key", 40, 2),
        ((*ALL, (NOTHING, 60), (SEAL, 60), (COVER, 8)), "complete", None, 2),
        (((SEAL, 8), (COVER, 8), (NOTHING, 60), (SEAL, 80)), "3", None, 2),
    ],
)
def test_station_tells_the_same_whether_steps_were_held_back_or_not(runs, reset, key_at, units):
    shown = frames(*runs)
    expected = played(None, shown, reset, key_at)
    told = played(DETECTOR, shown, reset, key_at)
    ended = [line for line in expected if line["type"] == "unit"]
    assert [line["unit"] for line in ended] == list(range(1, units + 1))
    for line in told + expected:
        if line["type"] == "unit":  # that it was told at another frame is right
            del line["frame"], line["time_s"]
    assert told == expected


def test_station_another_product_has_no_steps_and_its_units_are_not_told():
    """A key ends a unit among what is held back, and that goes with it."""
    one, told = station(Fits({"detector": 0.9}, None))
    script = Script(frames(*ALL, (NOTHING, 1900)))
    script.before = lambda s: one.ask_reset() if len(s.shown) == 1800 else None
    one.run(script, ())
    assert {line["type"] for line in told} == {"status"}
    assert told[-1]["fits"] is False


def test_station_the_last_picture_of_a_file_may_come_while_the_station_is_busy():
    class Late(Script):
        def get(self, seconds):
            waited, self.waited = self.__dict__.get("waited", False), True
            if not waited:  # for nothing: what is left comes just now
                self.ended = True
                return None
            return super().get(seconds)

    one, told = station(None)
    one.run(Late(frames((SEAL, 1))), ())
    assert told[-1]["frame"] == 0


def test_live_a_slow_source_is_judged_by_time():
    live = scripted(fits=Fits({"detector": 0.9}, None))
    shown = frames((NOTHING, 1900))[::5]  # two pictures a second
    for at, picture in shown:
        live.update(picture, at)
        assert (live.fits is False) == (at >= 180)
    live = scripted(fits=DETECTOR)
    events = [(at, e) for at, picture in frames((SEAL, 200))[::5] for e in live.update(picture, at)]
    assert events[0][0] == pytest.approx(6, abs=1)  # 6 s of a minute


def test_live_end_gives_what_is_held_back():
    live = scripted(fits=DETECTOR)
    assert not [e for at, picture in frames(*ALL) for e in live.update(picture, at)]
    assert [event.step_id for event in live.end()] == [0, 3, 6]
    assert live.end() == []
