"""The learned fusion's events: what beliefs lead to."""

import dataclasses

import numpy as np

from stormpsr_jax.psr import learned_stream
from stormpsr_jax.psr.events import Event
from stormpsr_jax.psr.learned_beliefs import Belief
from stormpsr_jax.psr.learned_events import LearnedSettings, Reporter
from tests.support import toy

SETTINGS = LearnedSettings()
PUMP = toy.procedure("seal, cover, bolt", "100 110 111", name="pump", fps=10, variant="up")
UP = PUMP.variants["up"]


def believed(present, right, wrong, own=None):
    """Of component 0, whose own evidence is that of being right unless given; others absent."""
    logits = present, right, wrong, right if own is None else own
    return Belief(*(np.array([x, -10.0, -10.0]) for x in logits))


def reports(variant, *rows, settings=SETTINGS):
    """Step ids by frame of the beliefs (present, right, wrong) of component 0, others absent."""
    reporter = Reporter(PUMP, variant, settings, None)
    beliefs = enumerate(believed(*logits) for logits in rows)
    return [[e.step_id for e in reporter.update(*each)] for each in beliefs]


RIGHT, WRONG, GONE, UNSURE = (9, 5, -5), (9, -5, 5), (-9, -9, -9), (-1, -4, -4)


def test_reporter_install_wrong_correction_and_removal():
    rows = (UNSURE, WRONG, WRONG, RIGHT, UNSURE, GONE, GONE, RIGHT, WRONG, GONE)
    assert reports(UP, *rows) == [[], [1], [], [0], [], [2], [], [0], [1], [2]]


def test_reporter_only_what_the_variant_allows():
    def variant(**changes):
        return dataclasses.replace(UP, **changes)

    rows = (WRONG, RIGHT, GONE)
    assert reports(variant(allowed=()), *rows) == [[1], [0], []]
    assert reports(variant(expected=(3,), allowed=()), *rows) == [[], [], []]
    assert reports(variant(expected=(3,), allowed=(1,)), *rows) == [[1], [], []]
    down = variant(expected=(2,), allowed=(), initial_state=(1, 0, 0))
    assert reports(down, *rows) == [[], [], [2]]


def test_reporter_of_two_beliefs_the_surer_is_reported():
    both, gone = (9, 6, 5), (-5, 4.5, -5)
    assert reports(UP, (9, 5, 6)) == [[1]]
    assert reports(UP, both) == [[0]]
    # Nor do the two take turns from then on.
    assert reports(UP, RIGHT, both, both, (9, 5, 6), both) == [[0], [], [], [1], [0]]
    assert reports(UP, RIGHT, gone, gone, (-4.4, 4.5, -5)) == [[0], [2], [], [0]]


def test_reporter_a_removal_that_is_not_expected_needs_its_own_logit():
    settings = LearnedSettings(unexpected=-6)
    down = dataclasses.replace(UP, expected=(2,), allowed=(), initial_state=(1, 0, 0))
    less, far = (-4, -4, -6), (-7, -7, -9)
    assert reports(UP, RIGHT, less, far, settings=settings) == [[0], [], [2]]
    assert reports(down, RIGHT, less, far, settings=settings) == [[], [2], []]
    assert reports(UP, RIGHT, less, far) == [[0], [2], []]


def test_grouped_what_is_seen_within_some_frames_is_reported_together_by_step_id():
    def event(frame, step):
        return Event(frame, step, 0.9, "learned", {}, "", frame / 10)

    events = [event(n, step) for n, step in ((3, 6), (10, 3), (12, 0), (20, 9), (31, 12))]
    found = learned_stream._in_groups(events, 10)
    assert [(e.frame, e.step_id) for e in found] == [(12, 0), (12, 3), (12, 6), (20, 9), (31, 12)]
    assert [e.time_s for e in found] == [1.2, 1.2, 1.2, 2.0, 3.1]
    assert learned_stream._in_groups(events, 0) == events


def test_reporter_asks_once_for_a_part_that_is_neither_surely_right_nor_wrong():
    settings = LearnedSettings(install=3.0, sure=6.0, unexpected=-6.0)
    reporter = Reporter(PUMP, UP, settings, None)
    there, right, sure, gone = (9, 2, -2), (9, 5, -5), (9, 5, -5, 7), (-9, -9, -9)

    def states(logits, first, last):
        found = []
        for frame in range(first, last):
            found += reporter.update(frame, believed(*logits))
        return [(e.frame, e.state, e.step_id) for e in found]

    # Seen to be there, then likely to be right: asked once, after eight seconds at ten frames each.
    assert states(there, 0, 15) + states(right, 15, 100) == [(80, "unsure", 0)]
    assert reporter.reported.tolist() == [0, 0, 0]
    assert states(sure, 100, 120) == [(100, "right", 0)]
    # Right and then less sure is no question; taken off and put on again is one.
    assert states(right, 120, 160) == []
    assert states(gone, 160, 161) == [(160, "absent", 2)]
    assert states(right, 161, 300) == [(241, "unsure", 0)]
    assert states((9, -5, 5), 300, 310) == [(300, "wrong", 1)]
    # A hand passes: what is gone within eight seconds was nothing.
    assert states(right, 310, 385) + states((9, 1, -1), 385, 390) == []
    # Taken off before anybody knew, it is no longer not sure.
    assert states(gone, 390, 391) == [(390, "absent", 2)]
    assert states(right, 391, 500) == [(471, "unsure", 0)]
    assert states((-3, -9, -9), 500, 540) == [(500, "absent", 2)]  # as one that is expected


def test_reporter_right_needs_evidence_of_the_part_itself():
    careful = LearnedSettings(sure=2.0)
    others_say_so, itself = (9, 9, -9, 1.5), (9, 9, -9, 2.5)
    assert reports(UP, others_say_so, itself, settings=careful) == [[], [0]]
    assert reports(UP, others_say_so, settings=LearnedSettings()) == [[0]]
    # The bar takes right out and does not make it incorrect.
    assert reports(UP, (9, 6, 0.1, 1.0), settings=careful) == [[]]
    assert reports(UP, (9, 0.05, 0.1, 1.0), settings=careful) == [[1]]
    # What was reported as incorrect does not become right because all else is.
    assert reports(UP, WRONG, others_say_so, itself, settings=careful) == [[1], [], [0]]
