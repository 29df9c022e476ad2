"""Alerts against a transcription that looks back over the whole history, and by example."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from stormpsr_jax.psr.monitor import Monitor
from stormpsr_jax.recordings.procedure import Procedure
from tests.support import toy

CONTENT = toy.content("base, wheel, cap", fps=10, variant="up")
CONTENT["variants"]["up"]["precedence"] = [[0, 3], [3, 6], [0, 6]]
CONTENT["variants"]["service"] = {
    "initial_state": "111",
    "expected": [8, 5, 3],
    "allowed": [2],
    "recordings": [],
    "precedence": [[8, 5], [5, 3]],
}
PROCEDURE = Procedure.from_json(CONTENT)
ERROR = PROCEDURE.error_class


def kinds(alerts):
    return [(a.kind, a.step_id, a.other) for a in alerts]


def literal(history, variant):
    """Alerts of steps in {frame: step ids}, each found by replaying all that came before."""

    def state_after(frame):
        state = list(variant.initial_state)
        for f in sorted(history):
            if f <= frame:
                for step in sorted(history[f]):
                    state[step // 3] = {0: 1, 1: -1, 2: 0}[step % 3]
        return state

    def holds(step, frame):
        return state_after(frame)[step // 3] == int(step % 3 == 0)

    found = set()
    for frame, steps in history.items():
        for step in steps:
            if step % 3 == 1:
                found.add((frame, "wrong part", step, None))
            elif step not in (*variant.expected, *(variant.allowed or ())):
                before = state_after(frame - 1)[step // 3]
                if not (step % 3 == 2 and (before < 0 or step - 1 in steps)):
                    found.add((frame, "unexpected", step, None))
            for before, after in variant.precedence:
                if after == step and not holds(before, frame):
                    found.add((frame, "missed", before, after))
                if before == step and holds(after, frame):
                    previous = max(
                        (f for f in history if f < frame and step in history[f]), default=-1
                    )
                    ahead = [
                        f
                        for f in history
                        if previous <= f < frame and after in history[f] and not holds(before, f)
                    ]
                    if ahead:
                        found.add((frame, "out of order", before, after))
    return found


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.integers(0, 30),
        # One step of each component at most: a frame has one state.
        st.lists(st.integers(0, 8), max_size=3, unique_by=lambda s: s // 3),
        max_size=8,
    ),
    st.sampled_from(["up", "service"]),
    st.integers(0, 30),
)
def test_monitor_matches_literal_transcription(history, name, split):
    variant = PROCEDURE.variants[name]
    monitor = Monitor(PROCEDURE, variant)
    found = set()
    for frame in range(31):
        for a in monitor.update(frame, history.get(frame, [])):
            found.add((a.frame, a.kind, a.step_id, a.other))
        if frame == split:
            saved = json.loads(json.dumps(monitor.state()))
            monitor = Monitor(PROCEDURE, variant)
            monitor.restore(saved)
    assert found == literal(history, variant)


def test_monitor_golden_error_state_is_told_once_and_survives_hidden_frames():
    monitor = Monitor(PROCEDURE.at(10 / 3), PROCEDURE.variants["up"])  # 10 views in 3 s
    told = []
    for frame in range(100):
        rows = [(ERROR, 0.9), (1, 0.3)]
        if 23 <= frame < 28:
            rows = []  # hidden
        if 28 <= frame < 30:
            rows = [(1, 0.4)]  # not a clear view
        if 41 <= frame < 51 or frame == 70:
            rows = [(2, 0.8)]  # a catalogued state, for long and for short
        if frame < 15 or 70 < frame < 75:
            rows = [(0, 0.9)]
        told += monitor.update(frame, (), rows)
    assert [(a.frame, a.kind, a.since) for a in told] == [
        (31, "error state", 15),
        (50, "withdrawn", 15),
        (60, "error state", 51),
    ]


def test_monitor_beliefs_name_the_part_once_they_last_and_take_it_back():
    monitor = Monitor(PROCEDURE, PROCEDURE.variants["up"])
    told = []
    for frame in range(60):
        wrong = [0.0, float(5 <= frame < 30 or frame in (2, 35)), 0.4]
        shown = [(ERROR, 0.99)]  # which the beliefs have weighed
        told += monitor.update(frame, (), shown, wrong)
        saved = json.loads(json.dumps(monitor.state()))
        monitor = Monitor(PROCEDURE, PROCEDURE.variants["up"])
        monitor.restore(saved)
    assert [(a.frame, a.kind, a.message, a.step_id, a.since) for a in told] == [
        (15, "wrong part", "wheel may be installed incorrectly: check", 4, 5),
        (46, "withdrawn", "wheel is not installed incorrectly", 4, 36),
    ]


def test_what_is_missing_at_the_end_and_what_comes_off_and_on_again_must_have_done_both():
    monitor = Monitor(PROCEDURE, PROCEDURE.variants["up"])
    assert [a.step_id for a in monitor.finish()] == [0, 3, 6]
    monitor.update(1, [0, 3])
    monitor.update(2, [5])  # the wheel comes off again
    alerts = monitor.finish()
    assert kinds(alerts) == [("missing", 3, None), ("missing", 6, None)]
    assert alerts[0].message == "Install wheel is missing at the end"
    assert alerts[0].frame == 2
    monitor.update(3, [3, 6])
    assert monitor.finish() == []
    # Service: the cap comes off; the wheel is removed and installed again.
    monitor = Monitor(PROCEDURE, PROCEDURE.variants["service"])
    assert [a.step_id for a in monitor.finish()] == [5, 8]
    monitor.update(1, [8])
    monitor.update(2, [5])
    assert [a.step_id for a in monitor.finish()] == [3]
    saved = json.loads(json.dumps(monitor.state()))
    monitor = Monitor(PROCEDURE, PROCEDURE.variants["service"])
    monitor.restore(saved)
    monitor.update(3, [3])
    assert monitor.finish() == []
