"""The evidence of a part itself, alone and in the decoder with the weights that ship."""

import dataclasses
import json

import numpy as np
import pytest

from stormpsr_jax.psr import evidence, learned_beliefs, learned_stream
from stormpsr_jax.psr.events import Observation
from stormpsr_jax.psr.evidence import CAP, LOOK, Evidence
from stormpsr_jax.recordings.scores import FrameScores
from tests.support import toy

FPS = 10
PUMP = toy.procedure("seal, cover, bolt", "100 110 111", name="pump", fps=FPS, variant="up")
WEIGHTS = learned_beliefs.default_weights("scores")
SETTINGS = learned_stream.LearnedSettings(sure=2.5)
OFF = np.full(3, -2.0)
CLEAR, HIDDEN = 0.95, 0.03  # P(the object is in view)


def picture(g, present, right, temporal=True):
    """A picture of part 0, the others absent; logits of its being there, and right."""
    parts = np.r_[present, -6.0, -6.0, right, -6.0, -6.0]
    right_p = evidence.sigmoid(np.float64(right)) if present > 0 else 1.0
    states = np.log([0.97 * right_p + 1e-3, 1e-3, 1e-3, 0.97 * (1 - right_p) + 1e-3])
    clip = np.r_[-5.0, -5.0, -5.0, parts] if temporal else None
    return FrameScores(np.log(g / (1 - g)), states - np.logaddexp.reduce(states), parts, clip)


class Film:
    """Pictures of part 0 for the decoder, each of some seconds."""

    def __init__(self, settings=SETTINGS, weights=WEIGHTS):
        self.decoder = learned_stream.LearnedDecoder(PUMP, PUMP.variants["up"], settings, weights)
        self.frame, self.events = -1, []

    def show(self, seconds, g, present, right, every=1):
        """Shows it for so long, in every so-manieth frame; returns the reports, by step id."""
        found = []
        for _ in range(round(seconds * FPS / every)):
            self.frame += every
            seen = Observation(scores=picture(g, present, right))
            found += self.decoder.observe(self.frame, seen, every)
        reports = [(e.frame / FPS, e.step_id) for e in found if e.kind == "report"]
        self.events += found
        return reports

    def until_right(self, g=CLEAR, limit=60):
        start = self.frame
        for _ in range(limit):
            for time, step in self.show(1, g, 5, 5):
                if step == 0:
                    return time - start / FPS
        return None


def sums(one, seconds, g, present=9.0, right=5.0, wrong=-9.0, time=10.0, dt=0.1):
    """Evidence of part 0 after so many seconds of the same picture."""
    rest = np.full(2, -9.0)
    said = None
    for _ in range(round(seconds / dt)):
        beliefs = (np.r_[x, rest] for x in (present, right, wrong))
        said = one.update(picture(g, present, right), *beliefs, time, dt)
    return float(said[0])


@pytest.mark.parametrize("g", [0.3, 0.99])
def test_a_look_says_no_more_than_some_seconds_of_news(g):
    rate = float(evidence.part_evidence(picture(g, 9.0, 2.0))[0])
    for length in (1, 10, 600):
        assert 0 < sums(Evidence((0, 0, 0), OFF), length, g, right=2.0) <= LOOK * rate * g * g
    one = Evidence((0, 0, 0), OFF)
    for _ in range(30):
        sums(one, 10, CLEAR)
        most = sums(one, 10, HIDDEN)
    assert most == pytest.approx(CAP)
    assert max(learned_stream.BARS) < CAP


def test_a_new_look_says_as_much_as_the_first():
    one = Evidence((0, 0, 0), OFF)
    first = sums(one, 5, CLEAR, right=1.5)
    second = sums(one, 5, CLEAR, right=1.5) - first
    hidden = sums(one, 10, HIDDEN, right=1.5)
    third = sums(one, 5, CLEAR, right=1.5) - hidden
    assert second < first / 4
    assert third > 0.8 * first


def test_no_other_part_speaks_for_a_part():
    rng = np.random.default_rng(0)
    lifted = 0.0
    for _ in range(2000):
        parts, states = rng.normal(0, 4, 6), np.log(rng.dirichlet(np.full(4, 0.3)))
        got = evidence.part_evidence(FrameScores(np.array(3.0), states, parts))
        alone = evidence.part_evidence(
            FrameScores(np.array(3.0), np.log([1 - 3e-9, 1e-9, 1e-9, 1e-9]), parts)
        )
        lifted = max(lifted, float((got - alone).max()))
        others = parts.copy()
        others[[1, 2]], others[[4, 5]] = 40.0, 40.0  # all others are surely right
        sure = evidence.part_evidence(FrameScores(np.array(3.0), states, others))
        assert sure[0] <= got[0] + 1e-12
    assert lifted < 1e-6  # an error in view speaks for nobody


@pytest.mark.parametrize("before", [3, 10, 30, 60])
def test_a_steady_view_before_the_part_goes_on_does_not_delay_it(before):
    film = Film()
    film.show(1.5, CLEAR, -6, -6)
    first = film.until_right()
    film = Film()
    film.show(before, CLEAR, -6, -6)
    assert film.until_right() == pytest.approx(first, abs=0.5)
    assert first < 5


@pytest.mark.parametrize("g", [0.49, 0.51, 0.9])
def test_weak_evidence_for_an_incorrect_part_never_becomes_right_in_one_look(g):
    film = Film()
    film.show(2, CLEAR, -6, -6)
    assert film.show(120, g, 5, 1) == []


def test_looks_at_a_right_part_do_not_speak_for_the_incorrect_one_put_on_after_it():
    film = Film()
    film.show(2, CLEAR, -6, -6)
    reports = []
    for _ in range(6):
        reports += film.show(4, CLEAR, 5, 5) + film.show(3, HIDDEN, 0, 0)
    assert [step for _, step in reports] == [0]
    assert film.show(4, HIDDEN, 0, 0) == []  # under the hands it comes off, and goes on wrong
    for _ in range(4):
        reports += film.show(4, CLEAR, 5, -5) + film.show(8, HIDDEN, 0, 0)
    assert [step for _, step in reports] == [0, 1]


def test_a_camera_moves_what_is_believed_and_no_evidence():
    moved = dataclasses.replace(SETTINGS, camera=(3.0, 0.0, 0.0))
    one, other = (Film(settings) for settings in (SETTINGS, moved))
    for film in (one, other):
        film.show(2, CLEAR, -6, -6)
        film.show(3, CLEAR, 5, 0.2)
    told = [film.decoder.belief for film in (one, other)]
    assert told[1].right[0] > told[0].right[0] + 1
    assert told[1].wrong[0] < told[0].wrong[0] - 1
    assert told[1].own[0] == pytest.approx(told[0].own[0])
    again = learned_stream.LearnedDecoder(PUMP, PUMP.variants["up"], moved, WEIGHTS)
    again.restore(json.loads(json.dumps(other.decoder.state())))


def test_what_speaks_against_a_part_stays_until_it_is_off():
    one = Evidence((0, 0, 0), OFF)
    against = sums(one, 5, CLEAR, right=-5.0, wrong=5.0)
    assert -CAP <= against < -2
    assert sums(one, 0.1, HIDDEN, present=-1.0, right=0.0) == against  # one dip
    assert sums(one, 0.1, HIDDEN, present=-2.5, right=0.0) == 0.0
    # What speaks for it goes by the dip, and where it is believed to be incorrect.
    for change in ({"present": -1.0}, {"wrong": 0.1}):
        one = Evidence((0, 0, 0), OFF)
        assert sums(one, 5, CLEAR) > 2
        assert sums(one, 0.1, HIDDEN, **change) == 0.0


@pytest.mark.parametrize(("right", "seen"), [(True, -5), (False, 5)])
def test_a_word_of_a_person_stands_until_the_part_is_off(right, seen):
    film = Film()
    film.show(2, CLEAR, -6, -6)
    film.show(5, CLEAR, 5, seen)
    film.decoder.confirm(0, right)
    saved = json.loads(json.dumps(film.decoder.state()))
    film.events.clear()
    for _ in range(3):
        assert film.show(20, CLEAR, 5, seen) + film.show(5, HIDDEN, 0, 0) == []
    assert film.events == []
    assert film.decoder.assembly[0] == (1 if right else -1)
    # Nor is there an alert, which goes by what is believed.
    assert (film.decoder.belief.wrong[0] < 0) == right
    film.decoder.restore(saved)
    reports = film.show(5, CLEAR, -6, -6) + film.show(20, CLEAR, 5, seen)
    assert [step for _, step in reports] == [2, 1 if right else 0]


def test_a_part_that_training_never_saw_incorrect_is_right_by_a_persons_word_alone():
    film = Film(weights=dataclasses.replace(WEIGHTS, trust=(0.0, 1.0, 1.0)))
    film.show(4, CLEAR, -6, -6)
    assert film.show(60, CLEAR, 9, 9) == []
    assert {event.kind for event in film.events} == {"seen", "unsure"}
    film.decoder.confirm(0)
    assert film.decoder.assembly[0] == 1


def test_a_part_that_seems_to_be_there_from_the_first_picture_on_is_not_right():
    film = Film()
    assert film.show(60, CLEAR, 5, 5) == []
    assert any(e.kind == "seen" for e in film.events)
    film.show(4, CLEAR, -6, -6)  # not before a picture has shown it absent
    assert film.until_right() < 5


def test_the_first_second_calls_nothing_right_and_a_hidden_beginning_does_not_forbid_it():
    film = Film(learned_stream.LearnedSettings(sure=0.0))
    film.show(0.3, CLEAR, -6, -6)
    (first,) = film.show(10, CLEAR, 5, 5)
    assert first[0] >= evidence.FIRST
    film = Film()
    film.show(5, HIDDEN, 0, 0)
    assert film.until_right() is not None
