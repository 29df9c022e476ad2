import numpy as np
import pytest

from stormpsr_jax.psr import advice
from stormpsr_jax.psr.events import Event
from stormpsr_jax.psr.streams import ASD, LEARNED
from stormpsr_jax.recordings.evaluation_set import LabelledPredictions
from tests.support import toy

PROCEDURE = toy.procedure("pin, wheel, lid", "100 110 111", fps=5, variant="up")
TRUTH = [[50, 0], [100, 3]]
SETTINGS = {"sure": 4.5}


def entry(events, *wrong):
    installations = [[k, 10, 90, accepted, None] for k, accepted in wrong]
    return {"truth": TRUTH, "events": events, "wrong": {"installations": installations}}


def result(of_validation, of_test):
    validation = {"asd": {"recordings": {"v": of_validation}}}
    streams = {"asd": {"recordings": {"t": of_test}}}
    more = {"fps": 5.0, "components": PROCEDURE.components, "default_stream": "asd"}
    return {"validation": validation, "streams": streams, **more}


def test_what_to_record_next_goes_by_validation_and_by_no_test_recording():
    validation = entry([[60, 0, 0.9]], (0, 20), (1, None))
    for of_test in (entry([[60, 0, 0.9], [110, 3, 0.9]]), entry([], (2, 20))):
        assert advice.record_next(result(validation, of_test)) == [
            "Steps of validation that asd finds worst: Install wheel (0 of 1 found).",
            "Incorrect installations of validation that asd accepted: pin 1 of 1.",
            "Never installed incorrectly in validation: lid.",
        ]


def test_what_a_result_without_validation_recordings_has_is_an_error():
    with pytest.raises(ValueError, match="a run of this version has them"):
        advice.record_next({"streams": {"asd": {"recordings": {}}}, "components": []})


def test_a_step_that_was_seen_is_found_and_one_that_was_called_right_may_be_accepted(monkeypatch):
    recording = LabelledPredictions(
        "v", PROCEDURE.variants["up"], TRUTH, np.array([[0, 0, 0], [-1, 0, 0]]), frames=[0, 40]
    )
    report = Event(60, 0, 0.9, "learned", {}, "Install pin", 12.0)
    events = [report._replace(frame=55, kind="seen"), report]
    monkeypatch.setattr(type(ASD), "decode", lambda *_: events)
    found = advice.score_recording(PROCEDURE, "asd", None, recording, None)
    assert found["events"] == [[55, 0, 0.9]]
    assert found["wrong"]["installations"] == [[0, 40, None, 60, None]]


@pytest.mark.parametrize("settings", [SETTINGS, None])
def test_a_model_that_called_nothing_right_in_validation_says_that_it_ticks_nothing_and_why(
    settings,
):
    def said(right, seen):
        own = {"validation": {"f1": right, "seen_f1": seen}}
        own |= {} if settings is None else {"settings": settings}
        other = {"validation": {"f1": 0.8, "seen_f1": None}}
        return advice.recognises_by(None, {"asd": other, LEARNED.name: own}, 12)

    text = said(0.0, 0.86)
    assert text.startswith("learned. In validation steps were seen (F1 0.860) and none was right: ")
    bar = "the bar" if settings is None else "the bar of 4.5"
    assert f"no part's own evidence passed {bar}. So a station cannot tick a step. Record " in text
    assert "give recognise a higher --risk (1 takes what is seen for right)" in text
    assert said(0.5, 0.86) == "learned"
