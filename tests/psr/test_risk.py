import dataclasses
import itertools

import numpy as np
import pytest

from stormpsr_jax.psr import learned_beliefs, learned_events, learned_stream, risk, wrong_parts
from stormpsr_jax.psr.accumulation import Settings
from stormpsr_jax.psr.events import reports
from stormpsr_jax.psr.evidence import CAP
from stormpsr_jax.psr.learned_stream import LEARNED
from stormpsr_jax.psr.streams import ASD
from stormpsr_jax.recordings.evaluation_set import LabelledPredictions
from stormpsr_jax.recordings.predictions import Detections
from stormpsr_jax.recordings.scores import KINDS
from tests.support import toy
from tests.support.simulated_scores import PROCEDURE, simulate

WEIGHTS = learned_beliefs.default_weights("scores")


def drawn_losses(rng, count):
    """Recordings (count, B) whose incorrect installations are accepted up to bars of their own."""
    bars = np.arange(12)
    return np.stack(
        [(rng.exponential(2.5, 1 + i % 3)[:, None] > bars).mean(0) for i in range(count)]
    )


def control(bars, losses, **further):
    """What recordings with these losses (B,) say."""
    return risk.control_of(bars, [risk.BarResults(np.asarray(one), **further) for one in losses])


@pytest.mark.parametrize("asked", [0.1, 0.2])
def test_control_without_a_prior_a_further_recording_accepts_no_more_than_asked(asked):
    rng, bars, found, bounds = np.random.default_rng(3), tuple(range(12)), [], []
    for _ in range(3000):
        *known, further = drawn_losses(rng, 16)[rng.permutation(16)]
        said = control(bars, known)
        bar = said.bar(asked)
        found.append(0.0 if bar is None else further[bar])
        if bar is not None:
            bounds.append(said.bound(bar))
            assert bar == 0 or said.bound(bar - 1) > asked
    assert len(bounds) > 1000
    assert max(bounds) <= asked + 1e-9
    assert asked / 4 < np.mean(found) <= asked  # and is not bought by accepting nothing


PRIOR = (0.5, 0.3, 0.12, 0.05, 0.02)
FIVE = (0.0, 1.0, 2.0, 3.0, 4.0)
SETTINGS = learned_stream.LearnedSettings()


@pytest.fixture
def five_bars(monkeypatch):
    """A stream of five bars, and what other products lost at them."""
    monkeypatch.setattr(learned_stream, "BARS", FIVE)
    monkeypatch.setitem(risk.priors(), "scores", PRIOR)


def test_decide_one_more_recording_moves_the_bar_by_a_step_at_most(five_bars):
    """Nothing accepted lowers it, one that is fooled throughout raises it."""
    found = []
    for fooled in (0, 1):
        bars = []
        for n in range(fooled, 60):
            losses = [np.ones(5)] * fooled + [np.zeros(5)] * (n - fooled)
            decision = risk.decide(LEARNED, SETTINGS, 0.1, control(FIVE, losses), "scores")
            assert decision.reached
            bars.append(FIVE.index(decision.settings.sure))
        assert set(np.diff(bars).tolist()) == {0, -1}
        assert (bars[0], bars[-1]) == (3, 1)
        found.append(bars[1 - fooled :])
    assert (np.array(found[1]) >= found[0]).all()
    assert found[1] != found[0]


@pytest.mark.parametrize(
    ("n", "accepted_up_to", "bar", "bound"),
    [
        (0, None, 3.0, None),
        (2, 4.0, 6.0, None),  # fooled at every bar: nothing is right
        (4, 1.0, 2.0, None),
        (9, None, 2.0, 0.1),
        (9, 1.0, 2.0, 0.1),
    ],
)
def test_decide_bound_is_there_only_where_it_holds(five_bars, n, accepted_up_to, bar, bound):
    up_to = -1.0 if accepted_up_to is None else accepted_up_to
    losses = [(np.array(FIVE) <= up_to).astype(float)] * n
    decision = risk.decide(LEARNED, SETTINGS, 0.1, control(FIVE, losses), "scores")
    assert (decision.settings.sure, decision.bound) == (bar, bound)
    assert decision.reached == (bar < CAP)
    said = decision.note("learned")
    assert ("mixed" in said) == (decision.reached and bound is None)
    assert ("nothing is called right" in said) == (not decision.reached)


def test_decide_says_where_most_correct_installations_get_no_verdict_and_what_risk_can_be_had(
    five_bars,
):
    silent = np.array([0, 2, 7, 8, 9])
    said = control(FIVE, [np.zeros(5)] * 2, right=10, silent=silent)
    decision = risk.decide(LEARNED, SETTINGS, 0.1, said, "scores")
    assert (decision.settings.sure, decision.silent, decision.possible) == (3.0, 0.8, 0.3)
    assert "80% of the correct installations get no verdict" in decision.note("learned")
    assert "a risk of 0.3 " in decision.note("learned")
    fine = risk.decide(LEARNED, SETTINGS, 0.3, said, "scores")
    assert (fine.silent, fine.possible) == (0.2, None)
    assert "no verdict" not in fine.note("learned")
    none = risk.decide(LEARNED, SETTINGS, 0.0, said, "scores")
    assert (none.settings.sure, none.silent, none.reached) == (CAP, 1.0, False)


def test_decide_says_where_every_error_was_corrected_before_the_next_step():
    """Of the made-up recordings, in which part 0 is incorrect while part 1 goes on, or not."""
    procedure = toy.procedure("a, b", "10 11", fps=10, variant="up")
    for states, lasting in (
        ([[0, 0], [-1, 0], [1, 0], [1, 1]], 0),
        ([[0, 0], [-1, 0], [-1, 1], [1, 1]], 1),
    ):
        r = LabelledPredictions("r", procedure.variants["up"], [], np.array(states, np.int8))
        r.frames = np.array([0, 50, 100, 150])
        frames = np.arange(200)
        r.detections = Detections(frames, np.zeros(200, int), np.zeros(200), np.zeros((200, 4)))
        of_bars = risk.decode_bars(procedure, r, ASD, Settings(), None)
        said = risk.control_of(ASD.bars(Settings()), [of_bars])
        assert (said.recordings, said.lasting) == (1, lasting)
        assert said.silent == (1.0,) * len(said.bars)
        decision = risk.decide(ASD, Settings(), 0.5, said, None)
        assert ("corrected before the next step" in decision.note("asd")) == (not lasting)


def test_each_recording_is_decided_by_what_the_others_say(five_bars, monkeypatch):
    losses = {f"r{i}": np.full(5, float(i == 0)) for i in range(10)}  # the first is always fooled
    monkeypatch.setattr(risk, "decode_bars", lambda _, name, *how: risk.BarResults(losses[name]))
    names = {name: name for name in losses}
    found = risk.decide_each(PROCEDURE, names, LEARNED, SETTINGS, 0.1, WEIGHTS)
    assert [found[name].settings.sure for name in ("r0", "r1", "")] == [2.0, 3.0, 3.0]


def test_prior_falls_with_the_bar_and_is_never_nothing():
    of_worlds = {f"{kind}, {world}" for kind in KINDS for world in learned_beliefs.WORLDS}
    assert set(KINDS) <= risk.priors().keys() <= {*KINDS, *of_worlds}
    for curve in risk.priors().values():
        assert len(curve) == len(learned_stream.BARS)
        assert (np.diff(curve) <= 0).all()
        assert 0 < curve[-1] <= curve[0] < 1


@pytest.mark.parametrize(("kind", "world"), [("scores", "own"), ("csv", "toy"), ("csv", "own")])
def test_the_bar_goes_by_models_of_the_same_world_where_these_are_known(kind, world):
    weights = learned_beliefs.default_weights(kind, world)
    known = risk.priors()["scores, own" if (kind, world) == ("scores", "own") else kind]
    least = next((bar for bar, p in zip(learned_stream.BARS, known, strict=True) if p <= 0.4), CAP)
    assert risk.decide(LEARNED, SETTINGS, 0.4, None, weights.prior).settings.sure == least


@pytest.fixture(scope="module")
def recordings():
    return {r.name: r for r in map(simulate, range(6))}


def test_bars_the_higher_the_fewer_are_accepted_and_none_is_silent(recordings, monkeypatch):
    monkeypatch.setattr(learned_events, "PATIENCE", 2.0)  # what is soon taken off is not asked for
    settings = learned_stream.LearnedSettings()
    bars = LEARNED.bars(settings)
    each = [LEARNED.with_bar(settings, bar) for bar in bars]
    for r in recordings.values():
        at = risk.decode_bars(PROCEDURE, r, LEARNED, settings, WEIGHTS)
        found, losses = LEARNED.decode_each(PROCEDURE, r, each, WEIGHTS), at.losses
        installed = [{e.step_id for e in reports(events) if e.step_id % 3 == 0} for events in found]
        assert all(b <= a for a, b in itertools.pairwise(map(len, installed)))
        # What is right at the lowest bar and not at the highest, that one asks for, or calls wrong.
        asked = {e.step_id for e in found[-1] if e.kind == "unsure"}
        wrong = {e.step_id - 1 for e in reports(found[-1]) if e.step_id % 3 == 1}
        assert installed[0] - installed[-1] <= asked | wrong
        assert installed[0] > installed[-1]
        seen = [[e for e in events if e.kind == "seen"] for events in found]
        assert all(one == seen[0] for one in seen)  # by whatever bar
        assert losses is None or (np.diff(losses) <= 0).all()
        assert (np.diff(at.silent) >= 0).all()
    assert bars == tuple(sorted(bars))


def test_risk_of_1_is_decoding_without_a_bar(recordings):
    settings = learned_stream.LearnedSettings()
    decision = risk.decide(LEARNED, dataclasses.replace(settings, sure=9.0), 1, None, "scores")
    assert decision.settings == settings
    for r in recordings.values():
        events = LEARNED.decode(PROCEDURE, r, settings, WEIGHTS)
        assert reports(events) == events
        assert {event.state for event in events} <= {"right", "wrong", "absent"}
        one = wrong_parts.score_recording(r.frames, r.states, [e[:2] for e in events], 10.0)
        assert one["unsure"] == one["right_unsure"] == 0
