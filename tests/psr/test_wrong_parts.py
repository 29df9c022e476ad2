"""Figures of incorrect installations, against a walk from frame to frame on their definitions."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stormpsr_jax.psr import wrong_parts

FPS = 4.0
INSTALL, WRONG = 0, 1  # of component 0


def walk(frames, states, events, unsure):
    """The figures, from frame to frame."""
    end = max([int(frames[-1]), *(frame for frame, _ in events + unsure)]) + 2
    installations, right, alarms = [], [], 0
    left = {"unsure": 0, "right_unsure": 0, "no_verdict": 0}

    def give_up(report, said):
        """What becomes of a correct installation that ends."""
        left["right_unsure"] += said == "unsure"
        left["no_verdict"] += report is None or report[0] != INSTALL

    for k in range(states.shape[1]):
        state = last_correct = report = wrong = good = said = None
        for frame in range(end):
            rows = [row for at, row in zip(frames, states, strict=True) if at <= frame]
            before, state = state, int(rows[-1][k]) if rows else None
            here = [s % 3 for f, s in events if f == frame and s // 3 == k]
            if state != before and wrong is not None:
                left["unsure"] += said == "unsure"
            if state != before and good is not None:
                give_up(report, said)
            if here:
                report = (here[-1], frame)
            if any(f == frame and s // 3 == k for f, s in unsure):
                said = "unsure"
            if here:
                said = "sure"
            if state != -1 and wrong is not None:
                wrong["end"], wrong = frame, None
            if state == -1 and wrong is None:
                wrong = {"k": k, "start": frame, "end": None, "accepted": None, "found": None}
                installations.append(wrong)
            if state == -1:
                stands = report is not None and report[0] == INSTALL
                if stands and (last_correct is None or report[1] > last_correct):
                    wrong["accepted"] = frame if wrong["accepted"] is None else wrong["accepted"]
                if WRONG in here and wrong["found"] is None:
                    wrong["found"] = frame
            else:
                alarms += here.count(WRONG)
            if state == 1:
                if before not in (1, None):
                    good = {"called": False}
                    right.append(good)
                last_correct = frame
                if good is not None and WRONG in here:
                    good["called"] = True
            else:
                good = None
        left["unsure"] += wrong is not None and said == "unsure"
        if good is not None:
            give_up(report, said)
    delays = [(w["found"] - w["start"]) / FPS for w in installations if w["found"] is not None]
    return {
        "shown": len(installations),
        "accepted": sum(w["accepted"] is not None for w in installations),
        "found": len(delays),
        "delay_s": pytest.approx(np.mean(delays)) if delays else None,
        "false_alarms": alarms,
        "right_called_wrong": sum(g["called"] for g in right),
        "right_installations": len(right),
        **left,
        "early": early(frames, states, events),
        "installations": [list(w.values()) for w in installations],
    }


def early(frames, states, events):
    """How many parts are ticked that are not there, nor were since the last report, nor soon."""
    count = 0
    for i, (frame, step) in enumerate(events):
        earlier = [f for f, s in events[:i] if s // 3 == step // 3]
        later = [f for f, s in events[i + 1 :] if s // 3 == step // 3]
        if step % 3 == INSTALL and frame not in later:
            since = max(earlier, default=0)
            seen = [
                rows[-1][step // 3]
                for at in range(since, int(frame + 2 * FPS) + 1)
                if (rows := [row for f, row in zip(frames, states, strict=True) if f <= at])
            ]
            count += not any(seen)
    return count


@st.composite
def recordings(draw):
    frames = draw(st.lists(st.integers(0, 25), min_size=1, max_size=10, unique=True))
    row = st.lists(st.sampled_from([-1, -1, 0, 1]), min_size=2, max_size=2)
    states = draw(st.lists(row, min_size=len(frames), max_size=len(frames)))
    event = st.tuples(st.integers(0, 28), st.integers(0, 5))
    events, unsure = (draw(st.lists(event, max_size=10)) for _ in range(2))
    return np.sort(frames), np.array(states, np.int8), events, unsure


@settings(max_examples=100, deadline=None)
@given(recordings())
def test_score_recording_matches_a_walk_over_frames(recording):
    frames, states, events, unsure = recording
    events.sort(key=lambda event: event[0])
    found = wrong_parts.score_recording(frames, states, events, FPS, unsure)
    assert found == walk(frames, states, events, unsure)
    json.dumps(found)  # no NumPy numbers
    alarms = wrong_parts.false_alarms(
        wrong_parts.wrong_installations(frames, states, events), events
    )
    assert len(alarms) == found["false_alarms"]


def test_how_many_were_accepted_is_said_without_a_word_on_what_chose_the_bar():
    said = wrong_parts.in_words({"shown": 20, "accepted": 1})
    assert said == "Of 20 incorrect installations here 1 were accepted: 1% to 24% (95 %)."


def test_tables_golden_values():
    frames, states, streams = [0, 10, 20], [[0, 0], [-1, 0], [1, 0]], {}
    for stream, events in (("asd", [(14, 0)]), ("storm", [(12, 1), (22, 0), (30, 4)])):
        rows = {"r1": wrong_parts.score_recording(frames, states, events, FPS), "r2": None}
        recordings = {name: {"wrong": row} for name, row in rows.items()}
        streams[stream] = {"wrong": wrong_parts.summarise(rows.values()), "recordings": recordings}
    result = {"fps": FPS, "components": ["a", "b"], "streams": streams}
    rows = {row["stream"]: row for row in wrong_parts.summary_table(result)}
    assert [rows["asd"][k] for k in ("shown", "accepted", "found")] == [1, 1, 0]
    figures = ("accepted", "found", "delay_s", "false_alarms")
    assert [rows["storm"][k] for k in figures] == [0, 1, 0.5, 1]
    first, second = wrong_parts.installations_table(result)
    assert list(first.values()) == ["asd", "r1", "a", 2.5, 5.0, 3.5, None]
    assert list(second.values()) == ["storm", "r1", "a", 2.5, 5.0, None, 3.0]
