"""Both decoders against a literal transcription of the definitions, and their invariants."""

import dataclasses
import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stormpsr_jax.psr.files.predictions import Detections, TemporalPredictions
from stormpsr_jax.psr.procedure import Procedure, load_procedure
from stormpsr_jax.psr.streams.batch import decode, sweep
from stormpsr_jax.psr.streams.calibration import Calibration
from stormpsr_jax.psr.streams.decoding import Decoder
from stormpsr_jax.psr.streams.rules import STREAMS, Settings

K = 3
PROCEDURE = Procedure.from_json(
    {
        "name": "toy",
        "fps": 5,
        "components": ["a", "b", "c"],
        "states": ["100", "110", "111", "011", "000"],
        "variants": {
            "up": {"initial_state": "000", "expected": [0, 3, 6], "recordings": ["up*"]},
            "down": {"initial_state": "111", "expected": [2, 5, 8, 0], "recordings": ["down*"]},
            "mend": {
                "initial_state": "110",
                "expected": [6],
                "allowed": [5, 3, 8],
                "recordings": ["mend*"],
            },
        },
    }
)
# What may happen in each: where the file does not say, parts that can be there come off and on.
POSSIBLE = {"up": range(9), "down": range(9), "mend": [6, 5, 3, 8]}
CLASSES = range(len(PROCEDURE.states) + 2)
# Multiples of 1/8 as confidences are exact in binary; thresholds are no sums of decayed ones.
CONFIDENCE = st.integers(0, 8).map(lambda n: n / 8)


@st.composite
def streams(draw, min_frames=1, max_frames=40):
    """{frame: rows}, {frame: probabilities} with gaps, repeats and runs, so that sums build up."""
    detections, temporal = {}, {}
    frame = draw(st.integers(0, 3))
    for _ in range(draw(st.integers(min_frames, 8))):
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
    asd = Detections(
        columns[:, 0].astype(int),
        columns[:, 1].astype(int),
        columns[:, 2],
        np.zeros((len(rows), 4)),
    )
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


@settings(max_examples=150, deadline=None)
@given(
    streams(),
    all_settings(),
    st.sampled_from(["asd", "temporal", "storm"]),
    st.sampled_from(["up", "down", "mend"]),
)
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


@settings(max_examples=100, deadline=None)
@given(streams(), st.sampled_from([0.0, 0.5, 0.7]), st.sampled_from(["up", "down"]))
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


@settings(max_examples=80, deadline=None)
@given(
    streams(),
    all_settings(),
    st.sampled_from(["asd", "temporal", "storm"]),
    st.sampled_from(["up", "mend"]),
    st.integers(0, 60),
)
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


@settings(max_examples=100, deadline=None)
@given(
    streams(),
    all_settings(),
    st.lists(
        st.tuples(
            st.integers(0, 24).map(lambda n: n / 8),
            st.none() | st.integers(0, 24).map(lambda n: n / 8),
        ),
        max_size=6,
    ),
    st.sampled_from(["asd", "temporal", "storm"]),
    st.sampled_from(["down", "mend"]),
)
def test_sweep_is_decoding_with_each_threshold(data, s, pairs, stream, name):
    variant = PROCEDURE.variants[name]
    predictions = arrays(*data)
    thresholds, removals = [t for t, _ in pairs], [r for _, r in pairs]
    plain = sweep(PROCEDURE, variant, stream, s, thresholds, *predictions)
    both = sweep(PROCEDURE, variant, stream, s, thresholds, *predictions, removals=removals)
    for (threshold, removal), one, other in zip(pairs, plain, both, strict=True):
        s = dataclasses.replace(s, threshold=threshold)
        assert one == decode(PROCEDURE, variant, stream, s, *predictions)
        changed = dataclasses.replace(s, removal=removal)
        assert other == decode(PROCEDURE, variant, stream, changed, *predictions)


@settings(max_examples=80, deadline=None)
@given(
    streams(),
    all_settings(),
    st.floats(0, 4),
    st.floats(0, 4),
    st.sampled_from(["asd", "temporal", "storm"]),
    st.sampled_from(["up", "down", "mend"]),
)
def test_removal_higher_is_never_earlier(data, s, a, b, stream, name):
    first = []
    for removal in sorted((a, b)):
        one = dataclasses.replace(s, removal=removal)
        events = decode(PROCEDURE, PROCEDURE.variants[name], stream, one, *arrays(*data))
        frames = [[e.frame for e in events if e.step_id == 3 * k + 2] for k in range(K)]
        first.append([min(of_component, default=np.inf) for of_component in frames])
    assert all(low <= high for low, high in zip(*first, strict=True))


@settings(max_examples=60, deadline=None)
@given(
    streams(),
    all_settings(),
    st.sampled_from(["asd", "temporal", "storm"]),
    st.sampled_from(["up", "down"]),
)
def test_removal_same_threshold_is_b2_and_out_of_reach_is_b3(data, s, stream, name):
    variant, predictions = PROCEDURE.variants[name], arrays(*data)

    def found(decoder, removal):
        one = dataclasses.replace(s, decoder=decoder, removal=removal)
        return decode(PROCEDURE, variant, stream, one, *predictions)

    # Every part of these variants may come off and go on again.
    assert found("expected", s.threshold) == found("confidence", None)
    # B3, once installations that are allowed alone are left out: a removal may be expected.
    if name == "up":
        assert found("expected", 1e9) == found("expected", None)


@pytest.mark.parametrize("removal", [None, 2.0])
@pytest.mark.parametrize("name", ["mend", "up"])
def test_removal_golden_part_comes_off_and_goes_on_again(removal, name):
    variant = PROCEDURE.variants[name]
    seen = {"mend": [2, 1, 2, 3, 4], "up": [1, 5, 1, 2, 3]}[name]
    frames = np.arange(50)
    asd = Detections(frames, np.repeat(seen, 10), np.full(50, 0.9), np.zeros((50, 4)))
    events = decode(PROCEDURE, variant, "asd", Settings(threshold=1.0, removal=removal), asd)
    expected = {
        ("mend", None): [(31, 6)],
        # That part 0 comes off at the end is not allowed.
        ("mend", 2.0): [(12, 5), (21, 3), (31, 6)],
        ("up", None): [(1, 0), (31, 3), (41, 6)],
        ("up", 2.0): [(1, 0), (12, 2), (21, 0), (31, 3), (41, 6)],
    }
    assert steps(events) == expected[name, removal]


@pytest.mark.parametrize("decoder", ["expected", "confidence"])
def test_a_removal_that_is_expected_needs_no_more_evidence_than_an_installation(decoder):
    frames = np.arange(20)
    # All three parts come off, which is expected; then two of them go on again.
    asd = Detections(frames, np.repeat([5, 4], 10), np.full(20, 0.9), np.zeros((20, 4)))
    s = Settings(decoder, threshold=1.0, removal=1e9)
    down = PROCEDURE.variants["down"]
    assert steps(decode(PROCEDURE, down, "asd", s, asd))[:3] == [(1, 2), (1, 5), (1, 8)]
    # Where the variant expects none, they stay on.
    up = dataclasses.replace(PROCEDURE.variants["up"], initial_state=(1, 1, 1))
    assert decode(PROCEDURE, up, "asd", s, asd) == []


@pytest.mark.parametrize(
    ("between", "kept"),
    [
        ([], True),
        ([(0, 0.9)], True),  # background
        ([(5, 0.5)], True),  # at the floor
        ([(5, 0.6)], False),  # another state
        ([(6, 0.6)], False),  # the error state
    ],
)
def test_a_sum_decays_only_on_frames_that_show_something_if_asked_to(between, kept):
    seen = {f: [(1, 0.75)] for f in (0, 1, 50, 51)} | {f: between for f in range(2, 50) if between}
    found = {}
    for unseen_decay in (None, 1.0):
        s = Settings(threshold=2.5, decay=0.5, confidence=0.5, unseen_decay=unseen_decay)
        up = PROCEDURE.variants["up"]
        found[unseen_decay] = steps(decode(PROCEDURE, up, "asd", s, arrays(seen, {})[0]))
        decoder = Decoder(PROCEDURE, up, "asd", s)
        online = [e for f in sorted(seen) for e in decoder.update(f, seen[f])]
        assert steps(online) == found[unseen_decay]
    assert found == {None: [], 1.0: [(51, 0)] if kept else []}


def test_a_sum_of_windows_does_not_decay_between_their_rows_if_asked_to():
    _, rows = arrays({}, {f: [0.9, 0.1, 0.1] for f in range(0, 40, 4)})
    up = PROCEDURE.variants["up"]
    for unseen_decay, expected in ((None, []), (1.0, [(12, 0)])):
        s = Settings(threshold=3.0, unseen_decay=unseen_decay)
        assert steps(decode(PROCEDURE, up, "temporal", s, None, rows)) == expected


def test_a_saved_state_counts_frames_only_for_a_decay_of_their_own():
    up = PROCEDURE.variants["up"]
    assert not {"num_seen", "seen_at"} & Decoder(PROCEDURE, up, "asd", Settings()).state().keys()
    decoder = Decoder(PROCEDURE, up, "asd", Settings(unseen_decay=1.0))
    decoder.update(3, [(1, 0.9)])
    saved = decoder.state()
    assert (saved["num_seen"], saved["seen_at"]) == (1, [1, 0, 0])
    for change, message in (
        ({"num_seen": 9}, "num_seen: 9 is not a whole number in 0…4"),
        ({"num_seen": None}, "num_seen: None has the wrong type"),
        ({"seen_at": [1, 2, 0]}, "seen_at: 2 is not a whole number in 0…1"),
        ({"seen_at": [1]}, "seen_at: has 1 components"),
        ({"num_seen": 4}, "seen_at: 1 is not a whole number in 4…4"),
    ):
        with pytest.raises(ValueError, match=message):
            decoder.restore(saved | change)
    assert decoder.state() == saved


@settings(max_examples=80, deadline=None)
@given(streams(), all_settings(), st.integers(0, K - 1), st.integers(1, 4))
def test_temporal_more_confidence_is_never_later(data, s, k, rise):
    _, temporal = data
    raised = {
        f: [min(1.0, c + rise / 8) if i == k else c for i, c in enumerate(row)]
        for f, row in temporal.items()
    }
    first = []
    for rows in (temporal, raised):
        events = decode(PROCEDURE, PROCEDURE.variants["up"], "storm", s, *arrays(data[0], rows))
        first.append(min((e.frame for e in events if e.step_id == 3 * k), default=None))
    if first[0] is not None:
        assert first[1] is not None
        assert first[1] <= first[0]


@settings(max_examples=80, deadline=None)
@given(streams(), all_settings(), st.integers(1, 4))
def test_detection_more_confidence_is_never_later(data, s, rise):
    # A row that rises above the floor shows something, and other sums decay there.
    s = dataclasses.replace(s, unseen_decay=None)
    rows = {f: r[:1] for f, r in data[0].items()}  # one a frame, so that the top stays the top
    raised = {f: [(c, min(1.0, conf + rise / 8)) for c, conf in r] for f, r in rows.items()}
    first = []
    for detections in (rows, raised):
        events = decode(
            PROCEDURE, PROCEDURE.variants["up"], "storm", s, *arrays(detections, data[1])
        )
        first.append({k: [e.frame for e in events if e.step_id == 3 * k][:1] for k in range(K)})
    for k in range(K):
        if first[0][k]:
            assert first[1][k]
            assert first[1][k] <= first[0][k]


@pytest.mark.parametrize(
    ("stream", "decoder"),
    [("temporal", "naive"), ("temporal", "confidence"), ("storm", "confidence")],
)
@pytest.mark.parametrize("window", [1, 16, 256])
@pytest.mark.parametrize("start", [0, 7])
def test_temporal_one_change_gives_one_event(stream, decoder, window, start):
    s = Settings(decoder=decoder, threshold=0.2, window=window)
    # The change lies inside the windows that end at these frames.
    temporal = {f: [0.1, 0.9, 0.1] for f in range(start, start + window)}
    _, predictions = arrays({}, temporal)
    events = decode(PROCEDURE, PROCEDURE.variants["up"], stream, s, None, predictions)
    assert steps(events) == [(start, 3)]


@pytest.mark.parametrize("name", ["meccano", "industreal"])
@pytest.mark.parametrize("stream", ["asd", "storm"])
def test_decode_perfect_detections_give_the_steps(name, stream):
    procedure = load_procedure(name)
    variant = next(iter(procedure.variants.values()))
    rng = np.random.default_rng(0)
    states = np.concatenate([[variant.initial_state], procedure.states])
    order = [0, *rng.permutation(np.arange(1, len(states)))]
    changes = 50 * np.arange(len(order))
    expected = []
    for m in range(1, len(order)):
        for k in np.flatnonzero(states[order[m]] != states[order[m - 1]]):
            expected.append((changes[m], 3 * k + (0 if states[order[m], k] else 2)))
    frames = np.arange(50 * len(order))
    classes = np.repeat(order, 50)
    detections = Detections(frames, classes, np.full(len(frames), 0.9), np.zeros((len(frames), 4)))
    s = Settings(decoder="confidence", threshold=0.1)
    assert steps(decode(procedure, variant, stream, s, detections)) == expected


@pytest.mark.parametrize("num_components", [1, 200])
def test_decode_any_number_of_parts(num_components):
    procedure = Procedure.from_json(
        {
            "name": "any",
            "fps": 1,
            "components": [f"part {k}" for k in range(num_components)],
            "states": ["0" * num_components],
            "variants": {
                "disassembly": {
                    "initial_state": "1" * num_components,
                    "expected": list(range(2, 3 * num_components, 3)),
                    "recordings": ["*"],
                }
            },
        }
    )
    detections = Detections(np.arange(9), np.ones(9, int), np.full(9, 0.9), np.zeros((9, 4)))
    variant = procedure.variants["disassembly"]
    events = decode(procedure, variant, "asd", Settings(threshold=2.0), detections)
    assert steps(events) == [(2, 3 * k + 2) for k in range(num_components)]


def test_decoder_errors_name_the_value():
    variant = PROCEDURE.variants["up"]
    with pytest.raises(ValueError, match="--threshold=nan"):
        Settings(threshold=float("nan"))
    with pytest.raises(ValueError, match="--removal=-1"):
        Settings(removal=-1)
    with pytest.raises(ValueError, match="'naive' has no thresholds, and so no --removal"):
        Settings(decoder="naive", removal=1.0)
    with pytest.raises(ValueError, match=r"--unseen_decay=1\.5 is not in 0…1"):
        Settings(unseen_decay=1.5)
    with pytest.raises(ValueError, match="'naive' sums nothing up, and so has no --unseen_decay"):
        Settings(decoder="naive", unseen_decay=1.0)
    with pytest.raises(ValueError, match=r"--gate=1\.5"):
        Settings(gate=1.5)
    with pytest.raises(ValueError, match="--decay=2"):
        Settings(decay=2)
    with pytest.raises(ValueError, match="no fused stream"):
        Decoder(PROCEDURE, variant, "storm", Settings(decoder="naive"))
    decoder = Decoder(PROCEDURE, variant, "storm", Settings())
    decoder.update(5, [(1, 0.9)])
    with pytest.raises(ValueError, match="frame 5 does not come after frame 5"):
        decoder.update(5)
    with pytest.raises(ValueError, match="class 7"):
        decoder.update(6, [(7, 0.9)])
    with pytest.raises(ValueError, match="2 probabilities"):
        decoder.update(7, (), [0.1, 0.2])
    with pytest.raises(ValueError, match="'storm'"):
        Decoder(PROCEDURE, variant, "asd", Settings()).restore(decoder.state())


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([(1, 0.5), (2, 1.9)], "frame 7: confidence 1.9 is not in 0…1"),
        ([(1, float("nan")), (2, 0.6)], "frame 7: confidence nan is not in 0…1"),
        ([(1, 0.9), (7, 0.5)], "frame 7: class 7 is not in 0…6"),
        ([("2", 0.9)], "frame 7: a detection is"),
        ([(1.5, 0.9)], "frame 7: a detection is"),
        ([(1, "0.9")], "frame 7: a detection is"),
        ([3], "frame 7: a detection is"),
    ],
)
def test_decoder_errors_detections_that_cannot_be_name_frame_and_value(rows, message):
    decoder = Decoder(PROCEDURE, PROCEDURE.variants["up"], "asd", Settings(threshold=0.1))
    with pytest.raises(ValueError, match=message):
        decoder.update(7, rows)
    assert [e.step_id for e in decoder.update(7, [(1, 0.9)])] == [0]  # the frame was not taken


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.1, 1.9, 0.1], "frame 7: the probability 1.9 of component 1 is not in 0…1"),
        (np.array([0.1, 0.1, np.nan]), "frame 7: the probability nan of component 2"),
        ([-0.1, 0.1, 0.1], "frame 7: the probability -0.1 of component 0"),
        (["a", 0.1, 0.1], "frame 7: .* are not probabilities"),
    ],
)
def test_decoder_errors_probabilities_that_cannot_be_name_frame_and_value(values, message):
    decoder = Decoder(PROCEDURE, PROCEDURE.variants["up"], "temporal", Settings(threshold=0.1))
    with pytest.raises(ValueError, match=message):
        decoder.update(7, temporal=values)


def test_events_have_a_name_and_a_time():
    rows = [(f, [(1, 0.9)]) for f in range(10, 14)]
    s = Settings("expected", threshold=1.0)
    up = PROCEDURE.variants["up"]
    asd, _ = arrays(dict(rows), {})
    for fps, time_s in ((None, 11 / 5), (20, 11 / 20)):
        decoder = Decoder(PROCEDURE, up, "asd", s, fps=fps)
        (online,) = [e for frame, found in asd.per_frame() for e in decoder.update(frame, found)]
        assert (online.frame, online.step_id, online.name) == (11, 0, "Install a")
        assert online.time_s == time_s
        assert decode(PROCEDURE, up, "asd", s, asd, fps=fps) == [online]
    with pytest.raises(ValueError, match="--fps=0"):
        Decoder(PROCEDURE, up, "asd", s, fps=0)


@settings(max_examples=60, deadline=None)
@given(streams(), all_settings(), st.sampled_from(STREAMS))
def test_calibration_changes_confidences_alone_online_and_in_batch(data, s, stream):
    up, calibration = PROCEDURE.variants["up"], Calibration(0.7, -0.5, 0.05, 0.95)
    plain = decode(PROCEDURE, up, stream, s, *arrays(*data))
    found = decode(PROCEDURE, up, stream, s, *arrays(*data), calibration=calibration)
    assert found == [e._replace(confidence=calibration(e.confidence)) for e in plain]
    decoder = Decoder(PROCEDURE, up, stream, s, calibration=calibration)
    online = [
        event
        for frame in sorted(data[0].keys() | data[1].keys())
        for event in decoder.update(frame, data[0].get(frame, []), data[1].get(frame))
    ]
    assert [e.confidence for e in online] == pytest.approx([e.confidence for e in found])
    assert steps(online) == steps(found)


def test_per_frame_rows_by_frame_in_file_order():
    rows = {3: [(1, 0.5), (2, 0.25)], 8: [(0, 1.0)]}
    assert list(arrays(rows, {})[0].per_frame()) == list(rows.items())
    assert list(arrays({}, {})[0].per_frame()) == []
