"""The package: worked examples and public names, and what functions on arrays refuse."""

import doctest
import inspect
import re
import sys

import numpy as np
import pytest

from stormpsr_jax import psr

FUNCTIONS = {name: f for name in psr.__all__ if inspect.isfunction(f := getattr(psr, name))}


MODULES = sorted({psr.__name__, *(f.__module__ for f in FUNCTIONS.values())})


@pytest.mark.parametrize("module", MODULES)
def test_worked_examples_golden(module):
    assert doctest.testmod(sys.modules[module]).failed == 0


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_public_function_has_an_example(name):
    text = psr.__doc__ + FUNCTIONS[name].__doc__
    assert re.search(rf"^ *(>>>|\.\.\.) .*\b{name}\(", text, re.M)


TRUTH, FOUND = [(100, 0), (200, 3), (300, 6)], [(112, 0), (190, 3), (300, 5), (301, 6)]
FRAMES, STATES = [0, 100, 200], [[0, 0], [-1, 0], [1, 0]]


@pytest.mark.parametrize(
    "score",
    [
        psr.match_steps,
        psr.order_similarity,
        psr.order_similarity_of_sets,
        lambda truth, found: psr.score_recording(truth, found, 10),
        lambda truth, found: psr.score_wrong_parts([0], [[0, 0, 0]], found, 10),
    ],
)
def test_arrays_and_events_score_as_lists_do(score):
    expected = score(TRUTH, FOUND)
    events = [(*step, 0.9) for step in FOUND]  # as `accumulate` returns them
    assert score(np.array(TRUTH), np.array(FOUND, float)) == expected
    assert score(np.array(TRUTH), events) == expected == score(TRUTH, np.array(events))
    assert score(np.zeros((0, 2)), np.zeros((0, 2))) == score([], [])


NO_STEPS = [
    ([(1.5, 0)], "row 0: frame 1.5 is not a whole number from 0 up"),
    ([(1, 0), (2, np.nan)], "row 1: step id nan is not a whole number from 0 up"),
    ([(-1, 0)], "row 0: frame -1 is not a whole number from 0 up"),
    ([(1, -3)], "row 0: step id -3 is not a whole number from 0 up"),
    (np.arange(4), ": rows are not \\(frame, step id\\)"),
    ([(1, 0), (2,)], ": rows are not \\(frame, step id\\)"),
    (["a0"], ": rows are not \\(frame, step id\\)"),
]


@pytest.mark.parametrize(("steps", "message"), NO_STEPS)
def test_what_are_no_steps_is_refused(steps, message):
    for score in (psr.match_steps, psr.order_similarity, psr.order_similarity_of_sets):
        with pytest.raises(ValueError, match="^truth.*" + message):
            score(steps, FOUND)
        with pytest.raises(ValueError, match="^predicted.*" + message):
            score(TRUTH, steps)
    with pytest.raises(ValueError, match="^predicted.*" + message):
        psr.score_recording(TRUTH, steps, 10)
    with pytest.raises(ValueError, match="^events.*" + message):
        psr.wrong_installations(FRAMES, STATES, steps)
    with pytest.raises(ValueError, match="^unsure.*" + message):
        psr.score_wrong_parts(FRAMES, STATES, [], 10, steps)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: psr.match_steps([(1, 0), (2, 0), (1, 0)], []), "truth: step 0 is given twice"),
        (
            lambda: psr.score_recording(TRUTH, [(0, 101), (3, 202), (6, 303)], 10),
            "predicted: .*columns look exchanged",
        ),
        (lambda: psr.score_recording(TRUTH, FOUND, 0), "fps=0 is not a positive number"),
        (lambda: psr.score_wrong_parts(FRAMES, STATES, [], np.nan), "fps=nan is not a positive"),
        (lambda: psr.wrong_installations(FRAMES, STATES, [(1, 6)]), "events: step id 6 is of no"),
        (
            lambda: psr.wrong_installations([0, 9, 5], STATES, []),
            "frames do not ascend: row 2 has 5 after 9",
        ),
        (
            lambda: psr.wrong_installations(FRAMES, [[0, 0], [0.7, 0], [1, 0]], []),
            "states, row 1: 0.7 is not 1 .*probabilities are no states",
        ),
        (lambda: psr.wrong_installations(FRAMES, [[0, 0]], []), r"not states of shape \(3, 2\)"),
        (lambda: psr.accumulate("0", [1.5], ["1"], [1.0]), "frames, row 0: 1.5 is not a whole"),
        (lambda: psr.accumulate("0", [2, 2], ["1"] * 2, [1.0] * 2), "frames do not ascend: row 1"),
        (lambda: psr.accumulate("0", [1], [[0.7]], [1.0]), "states, row 0: 0.7 is not 1"),
        (lambda: psr.accumulate("0", [1], ["11"], [1.0]), r"states are not states of shape \(1, 1"),
        (lambda: psr.accumulate([0.2], [1], ["1"], [1.0]), "initial_state, row 0: 0.2 is not 1"),
        (lambda: psr.accumulate([-1], [1], ["1"], [1.0]), "initial_state: -1 is an incorrect"),
        (lambda: psr.accumulate("0", [1], ["1"], [1.0], floor=2), "^floor=2 is not in 0…1"),
        (lambda: psr.Settings(gate=2), "^gate=2 is not in 0…1"),
        (lambda: psr.Settings("naive", removal=1), "^removal=1: decoder 'naive' has no thresholds"),
        (lambda: psr.accumulate("0", [1], ["1"], ["x"]), "confidences are not numbers in 0…1"),
        (lambda: psr.accumulate("0", [1], changes=[[np.nan]]), "changes are not numbers in 0…1"),
    ],
)
def test_an_argument_that_is_wrong_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
