"""Both decoders against a literal transcription of the definitions, and their invariants."""

import dataclasses
import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from stormpsr_jax.psr.accumulation import Settings, accumulate
from stormpsr_jax.psr.streams import Decoder, decode
from stormpsr_jax.recordings.predictions import Detections, TemporalPredictions
from stormpsr_jax.recordings.procedure import Procedure
from tests.support import toy

K = 3
CONTENT = toy.content("a, b, c", "100 110 111 011 000", variant="up")
CONTENT["variants"] |= {
    "down": {"initial_state": "111", "expected": [2, 5, 8, 0], "recordings": []},
    "mend": {"initial_state": "110", "expected": [6], "allowed": [5, 3, 8], "recordings": []},
}
PROCEDURE = Procedure.from_json(CONTENT)
# What may happen in each: where the file does not say, parts that can be there come off and on.
POSSIBLE = {"up": range(9), "down": range(9), "mend": [6, 5, 3, 8]}
CLASSES = range(len(PROCEDURE.states) + 2)
# Multiples of 1/8 as confidences are exact in binary; thresholds are no sums of decayed ones.
CONFIDENCE = st.integers(0, 8).map(lambda n: n / 8)
STREAM, VARIANT = st.sampled_from(["asd", "temporal", "storm"]), st.sampled_from(sorted(POSSIBLE))


@st.composite
def streams(draw):
    """{frame: rows}, {frame: probabilities} with gaps, repeats and runs, so that sums build up."""
    detections, temporal = {}, {}
    frame = draw(st.integers(0, 3))
    for _ in range(draw(st.integers(1, 8))):
        rows = draw(st.lists(st.tuples(st.sampled_from(CLASSES), CONFIDENCE), max_size=3))
        changed = draw(st.none() | st.lists(CONFIDENCE, min_size=K, max_size=K))
        for _ in range(draw(st.integers(1, 6))):
            if rows:
                detections[frame] = rows
            if changed is not None:
                temporal[frame] = changed
            frame += 1
        frame += draw(st.sampled_from([0, 0, 1, 5, 100]))
    return detections, temporal


def all_settings():
    return st.builds(
        Settings,
        decoder=st.sampled_from(["confidence", "expected"]),
        threshold=st.integers(0, 24).map(lambda n: n / 8 + 0.001),
        decay=st.sampled_from([0.0, 0.5, 0.75, 1.0]),
        weight=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
        window=st.sampled_from([0, 1, 4, 16]),
        confidence=st.sampled_from([0.0, 0.25, 0.5, 0.9]),
        removal=st.none() | st.integers(0, 24).map(lambda n: n / 8 + 0.001),
        gate=st.sampled_from([0.5, 0.5, 0.25, 0.8]),
        unseen_decay=st.sampled_from([None, 0.0, 0.9, 1.0]),
    )


def arrays(detections, temporal):
    rows = [(f, c, conf) for f, r in sorted(detections.items()) for c, conf in r]
    columns = np.array(rows, float).reshape(len(rows), 3)
    frames, classes = columns[:, :2].astype(int).T
    asd = Detections(frames, classes, columns[:, 2], np.zeros((len(rows), 4)))
    confidences = np.array([temporal[f] for f in sorted(temporal)], float).reshape(-1, K)
    zeros = np.zeros(confidences.shape, int)
    return asd, TemporalPredictions(np.array(sorted(temporal), int), zeros, zeros, confidences)


def literal(variant, stream, s, detections, temporal):
    """Eq. 9, accumulation and decay as they are written, on every frame, in exact fractions."""
    weight = {"asd": Fraction(0), "temporal": Fraction(1), "storm": Fraction(s.weight)}[stream]
    state = list(variant.initial_state)
    thresholds = [s.threshold] * (3 * K)
    if s.removal is not None:
        for step in set(range(2, 3 * K, 3)) - set(variant.expected):
            thresholds[step] = s.removal
    unseen_decay = s.decay if s.unseen_decay is None else s.unseen_decay
    steps = variant.expected if s.removal is None else POSSIBLE[variant.name]
    sums = [Fraction(0)] * (3 * K)
    event_frames = [[] for _ in range(K)]
    events = []
    for frame in range(max([*detections, *temporal], default=-1) + 1):
        evidence = [Fraction(0)] * (3 * K)
        top = None
        for row in detections.get(frame, []):
            if top is None or row[1] > top[1]:
                top = row
        if top is not None and 1 <= top[0] <= len(PROCEDURE.states) and top[1] > s.confidence:
            for k in range(K):
                detected = PROCEDURE.states[top[0] - 1][k]
                if state[k] == 0 and detected == 1:
                    evidence[3 * k] += (1 - weight) * Fraction(top[1])
                if state[k] == 1 and detected == 0:
                    evidence[3 * k + 2] += (1 - weight) * Fraction(top[1])
        seen = top is not None and top[0] > 0 and top[1] > s.confidence
        if weight == 1:
            seen = frame in temporal
        for k, confidence in enumerate(temporal.get(frame, [])):
            recent = any(frame - s.window <= e for e in event_frames[k])
            if confidence > s.gate and not recent:
                evidence[3 * k if state[k] == 0 else 3 * k + 2] += weight * Fraction(confidence)
        for step in range(3 * K):
            if evidence[step] > 0:
                sums[step] += evidence[step]
            else:
                sums[step] *= Fraction(s.decay if seen else unseen_decay)
        for step in set(range(3 * K)) - set(range(1, 3 * K, 3)):
            if sums[step] > Fraction(thresholds[step]) and (
                s.decoder == "confidence" or step in steps
            ):
                events.append((frame, step))
                sums[step] = Fraction(0)
                state[step // 3] = 1 if step % 3 == 0 else 0
                event_frames[step // 3].append(frame)
    return events


def steps(events):
    return [(e.frame, e.step_id) for e in events]


@settings(max_examples=80, deadline=None)
@given(streams(), all_settings(), STREAM, VARIANT)
def test_decode_matches_literal_transcription(data, s, stream, variant):
    variant = PROCEDURE.variants[variant]
    events = decode(PROCEDURE, variant, stream, s, *arrays(*data))
    assert steps(events) == literal(variant, stream, s, *data)
    assert all(0 <= e.confidence <= 1 and e.stream == stream for e in events)
    for e in events:
        removal = e.step_id % 3 == 2 and e.step_id not in variant.expected
        limit = s.removal if removal and s.removal is not None else s.threshold
        assert e.evidence["sum"] > limit
        assert e.evidence["asd"] + e.evidence["temporal"] == pytest.approx(e.evidence["sum"])
        assert e.evidence["since"] <= e.frame


@settings(max_examples=50, deadline=None)
@given(streams(), st.sampled_from([0.0, 0.5, 0.7]), VARIANT)
def test_naive_matches_literal_transcription(data, floor, name):
    detections, _ = data
    variant = PROCEDURE.variants[name]
    state, expected = list(variant.initial_state), []
    for frame in sorted(detections):
        c, confidence = max(detections[frame], key=lambda row: row[1])
        if 1 <= c <= len(PROCEDURE.states) and confidence > floor:
            detected = PROCEDURE.states[c - 1].tolist()
            for k in range(K):
                if detected[k] != state[k]:
                    expected.append((frame, 3 * k if detected[k] else 3 * k + 2, confidence))
            state = detected
    s = Settings(decoder="naive", confidence=floor, threshold=9.0)
    events = decode(PROCEDURE, variant, "asd", s, *arrays(*data))
    assert [(e.frame, e.step_id, e.confidence) for e in events] == expected


@settings(max_examples=50, deadline=None)
@given(streams(), all_settings(), STREAM, VARIANT, st.integers(0, 60))
def test_decoder_online_and_saved_and_batch_agree(data, s, stream, name, split):
    detections, temporal = data
    variant = PROCEDURE.variants[name]
    batch = decode(PROCEDURE, variant, stream, s, *arrays(*data))

    decoder = Decoder(PROCEDURE, variant, stream, s)
    online = []
    for frame in range(max([*detections, *temporal], default=-1) + 1):
        online += decoder.update(frame, detections.get(frame, []), temporal.get(frame))
        if frame == split:  # through JSON into a fresh decoder, as after a restart
            saved = json.loads(json.dumps(decoder.state()))
            decoder = Decoder(PROCEDURE, variant, stream, s)
            decoder.restore(saved)
    assert online == batch


@settings(max_examples=50, deadline=None)
@given(streams(), all_settings(), STREAM, VARIANT, st.booleans())
def test_arrays_without_a_procedure_give_what_predictions_give(data, s, stream, name, naive):
    (detections, temporal), variant = data, PROCEDURE.variants[name]
    s = dataclasses.replace(s, removal=None, unseen_decay=None)
    if naive and stream != "storm":
        s = dataclasses.replace(s, decoder="naive", threshold=0.0)
    frames = sorted({*detections, *temporal})
    assume(frames)
    tops = [max(detections.get(f, [(0, 0.0)]), key=lambda row: row[1]) for f in frames]
    shown = ["000", *PROCEDURE.to_json()["states"], (-1, 1, 1)]
    seen = [shown[c] for c, _ in tops], [sure if c else 0.0 for c, sure in tops]
    found = accumulate(
        variant.initial_state,
        frames,
        *((None, None) if stream == "temporal" else seen),
        None if stream == "asd" else [temporal.get(f, [0.0] * K) for f in frames],
        expected=variant.expected if s.decoder == "expected" else None,
        **{key: getattr(s, key) for key in ("threshold", "decay", "weight", "window", "gate")},
        floor=s.confidence,
    )
    events = decode(PROCEDURE, variant, stream, s, *arrays(*data))
    assert found == [event[:3] for event in events]
