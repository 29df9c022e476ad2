"""The sentences that a run ends with; tests/test_main.py has its figures."""

import types

from stormpsr_jax.psr.selection import Choice
from stormpsr_jax.stages import evaluate


def test_fixed_thresholds_are_said_without_a_word_on_the_bar_which_has_its_own():
    own = Choice(None, 0.5, 0.5, 1.0, ())
    chosen = {"asd": own, "learned": Choice(None, 0.5, 0.5, 1.0, (), fixed=True)}
    assert evaluate._notes(chosen, None) == [
        "Thresholds, confidence floor, gate and fusion weight of asd were chosen on the validation "
        "split by one rule.",
        "The thresholds of learned are fixed ones.",
    ]


def test_a_run_warns_of_its_labels_and_names_no_flag_of_evaluate(monkeypatch):
    """Its detections and labels are of the same pictures: neither counts other frames."""
    of_labels = "the labels of a begin in another state than their variant"
    of_files = "3 of 9 frames in which --asd shows a state agree with the labels"
    result = {"warnings": [of_files, of_labels]}
    monkeypatch.setattr(evaluate, "_procedure", lambda context: None)
    monkeypatch.setattr(evaluate, "evaluate_recordings", lambda *_, **__: dict(result))
    how = types.SimpleNamespace(evaluate=types.SimpleNamespace(certain=0.0))
    context = types.SimpleNamespace(config=how)
    assert evaluate.scored(context, {}, {})["warnings"] == [of_labels]
