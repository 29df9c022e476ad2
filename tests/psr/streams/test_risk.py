import dataclasses
import itertools

import numpy as np
import pytest

from stormpsr_jax.psr.scoring import wrong_parts
from stormpsr_jax.psr.streams import learned, learned_beliefs, learned_events, risk
from stormpsr_jax.psr.streams.learned import LEARNED
from stormpsr_jax.psr.streams.stream import reported
from tests.support.simulated_scores import PROCEDURE, simulate

WEIGHTS = learned_beliefs.default_weights("scores")


def drawn_losses(rng, count):
    """Recordings (count, B) whose incorrect installations are accepted up to bars of their own."""
    bars = np.arange(12)
    return np.stack(
        [(rng.exponential(2.5, 1 + i % 3)[:, None] > bars).mean(0) for i in range(count)]
    )


@pytest.mark.parametrize("asked", [0.1, 0.2])
def test_control_a_further_recording_accepts_no_more_than_asked_on_average(asked):
    rng, bars, found, bounds = np.random.default_rng(3), tuple(range(12)), [], []
    for _ in range(3000):
        *known, further = drawn_losses(rng, 16)[rng.permutation(16)]
        control = risk.control_of(bars, known)
        bar = control.bar(asked)
        found.append(further[bar])
        bounds.append(control.bound(bar))
        assert bar == 11 or control.bound(bar) <= asked
        assert bar == 0 or control.bound(bar - 1) > asked
    assert np.mean(found) <= asked
    assert np.mean(found) > asked / 4  # and is not bought by accepting nothing


def test_control_of_too_few_recordings_chooses_nothing():
    assert [risk.needed(r) for r in (0.5, 0.1, 0.05, 0.01)] == [1, 9, 19, 99]
    none = np.zeros(2)
    assert risk.control_of((3.0, 4.0), [none] * 8 + [None] * 50).bar(0.1) is None
    nine = risk.control_of((3.0, 4.0), [none] * 9)
    assert (nine.bar(0.1), nine.bound(3.0), nine.bar(0.05)) == (3.0, 0.1, None)
    assert nine.bar(0.0) is None
    few = risk.decide(LEARNED, learned.LearnedSettings(), 0.1, None, WEIGHTS)
    assert few.default
    assert few.bound is None
    assert few.settings.sure == risk.default_bar("scores", 0.1)
    assert "needs 9 recordings" in few.note("learned")
    assert "can show a risk of 0" in dataclasses.replace(few, risk=0.0).note("learned")


def test_decide_few_recordings_raise_the_default_where_they_refute_it():
    settings = learned.LearnedSettings()
    bars, default = LEARNED.bars(settings), risk.default_bar("scores", 0.1)

    def bar(*up_to):
        """With a recording each that accepts its incorrect installation up to a bar."""
        losses = [np.array(bars) <= one for one in up_to]
        control = risk.control_of(bars, [loss.astype(float) for loss in losses])
        decision = risk.decide(LEARNED, settings, 0.1, control, WEIGHTS)
        assert (decision.bound, decision.default) == (None, True)
        return decision.settings.sure

    assert bar(-1.0, -1.0) == default
    assert bar(5.0) == default  # one of one is an accident in ten
    assert bar(5.0, 5.0) == bar(5.0, 5.0, -1.0) == 6.0  # two of three are none
    nine = risk.control_of(bars, [np.zeros(len(bars))] * 9)
    chosen = risk.decide(LEARNED, settings, 0.1, nine, WEIGHTS)
    assert (chosen.settings.sure, chosen.bound, chosen.default) == (bars[0], 0.1, False)


@pytest.fixture(scope="module")
def recordings():
    return {r.name: r for r in map(simulate, range(6))}


def test_bars_the_higher_the_fewer_are_accepted_and_none_is_silent(recordings, monkeypatch):
    monkeypatch.setattr(learned_events, "PATIENCE", 2.0)  # what is soon taken off is not asked for
    bars = LEARNED.bars(learned.LearnedSettings())
    for r in recordings.values():
        found, losses = risk.decode_bars(PROCEDURE, r, LEARNED, learned.LearnedSettings(), WEIGHTS)
        installed = [
            {e.step_id for e in reported(events) if e.step_id % 3 == 0} for events in found
        ]
        assert all(b <= a for a, b in itertools.pairwise(map(len, installed)))
        assert not installed[-1]
        # What is right at the lowest bar and not at the highest, that one asks for.
        asked = {e.step_id for e in found[-1] if e.kind == "unsure"}
        assert installed[0] <= asked
        seen = [[e for e in events if e.kind == "seen"] for events in found]
        assert all(one == seen[0] for one in seen)  # by whatever bar
        assert losses is None or (np.diff(losses) <= 0).all()
    assert bars == tuple(sorted(bars))


def test_risk_of_1_is_decoding_without_a_bar(recordings):
    settings = learned.LearnedSettings()
    decision = risk.decide(LEARNED, dataclasses.replace(settings, sure=9.0), 1, None, WEIGHTS)
    assert decision.settings == settings
    for r in recordings.values():
        events = LEARNED.decode(PROCEDURE, r, settings, WEIGHTS)
        assert reported(events) == events
        assert {event.state for event in events} <= {"right", "wrong", "absent"}
        one = wrong_parts.score_recording(r.frames, r.states, [e[:2] for e in events], 10.0)
        assert one["unsure"] == one["right_unsure"] == 0
