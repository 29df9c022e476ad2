"""The learned fusion online: its inputs, its projection, its events, and its weights' files."""

import copy
import dataclasses
import itertools
import json

import numpy as np
import pytest

from stormpsr_jax.psr import learned_beliefs, learned_stream
from stormpsr_jax.psr.events import Event, Observation
from stormpsr_jax.psr.learned_beliefs import Belief
from stormpsr_jax.psr.learned_events import LearnedSettings, Reporter
from stormpsr_jax.recordings.procedure import Procedure
from stormpsr_jax.recordings.scores import FrameScores
from tests.support import toy
from tests.support.simulated_scores import PROCEDURE, VARIANT, simulate

K, S = PROCEDURE.num_components, PROCEDURE.num_states
WEIGHTS = learned_beliefs.default_weights("scores")
SETTINGS = learned_stream.LearnedSettings()
OFF = np.full(K, -2.0)  # logits of a removal
PUMP = toy.procedure("seal, cover, bolt", "100 110 111", name="pump", fps=10, variant="up")


def decoded(recording, settings=SETTINGS, weights=WEIGHTS):
    return learned_stream.LEARNED.decode(PROCEDURE, recording, settings, weights)


def online(decoder, rows):
    return [
        event for frame, row in rows for event in decoder.observe(frame, Observation(scores=row))
    ]


@pytest.fixture(scope="module")
def recording():
    return simulate(0)


# --- Inputs ---------------------------------------------------------------------------------------


def test_inputs_matches_the_definition_number_by_number():
    rng = np.random.default_rng(0)
    objectness = np.array([0.7, -2.0])
    states = np.log(rng.dirichlet(np.ones(4), 2))
    parts, temporal = rng.normal(0, 3, (2, 6)), rng.normal(0, 3, (2, 9))
    got = learned_beliefs.inputs(FrameScores(objectness, states, parts, temporal), PUMP.states)
    for n, k in itertools.product(range(2), range(3)):
        g = 1 / (1 + np.exp(-objectness[n]))
        p = np.exp(states[n])
        share = sum(p[c] * PUMP.states[c][k] for c in range(3)) / sum(p[:3])
        share = min(max(share, 0.001), 0.999)
        logit = np.log(share / (1 - share))
        z = temporal[n]
        expected = [
            *(logit * g / 3, logit * max(p[:3]) * g / 3, g),
            *(parts[n, k] * g / 3, parts[n, 3 + k] * g / 3, p[3] * g),
            *(z[k] / 4, max(z[j] for j in range(3) if j != k) / 4, z[3 + k] / 4, z[6 + k] / 4),
            *(parts[n, k] / 3, parts[n, 3 + k] / 3),
        ]
        np.testing.assert_allclose(got[n, k], expected, rtol=1e-10)


def test_averaged_matches_the_mean_over_frames_of_the_span():
    frames = np.array([0, 1, 2, 5, 6, 30])
    x = np.random.default_rng(0).normal(size=(6, 2))
    got = learned_beliefs.moving_average(frames, x, 3)
    for n, frame in enumerate(frames):
        own = [x[m] for m in range(n + 1) if frame - frames[m] < 3]
        np.testing.assert_allclose(got[n], np.mean(own, axis=0))


# --- Projection -----------------------------------------------------------------------------------


@pytest.mark.parametrize("rho", [0.0, 0.1, 1.0])
def test_projection_matches_all_assemblies_written_out(rho):
    catalogue, initial = PUMP.states, (0, 0, 1)
    known = {*map(tuple, catalogue.tolist()), initial}
    flips = {tuple(b ^ (j == k) for j, b in enumerate(v)) for v in known for k in range(3)}
    for seed in range(5):
        logits = np.random.default_rng(seed).normal(0, 4, 3)
        total, ones = 0.0, np.zeros(3)
        for v in known | flips:
            weight = (1 if v in known else rho) * np.exp(np.dot(v, logits))
            total, ones = total + weight, ones + weight * np.array(v)
        got = learned_beliefs.Projection(catalogue, initial, rho)(logits)
        expected = np.log(np.maximum(ones / total, 1e-12))
        expected -= np.log(np.maximum(1 - ones / total, 1e-12))
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)


# --- Beliefs and events ---------------------------------------------------------------------------


# With which parts are asked for, and taken off before anybody is sure.
CAREFUL = dataclasses.replace(SETTINGS, sure=5.9, remove=0.0, install=0.0)


@pytest.mark.parametrize(("at", "settings"), [(1, SETTINGS), (333, SETTINGS), (333, CAREFUL)])
def test_decoder_restored_anywhere_it_goes_on_as_if_never_stopped(recording, at, settings):
    rows = list(recording.scores.per_frame())
    whole = learned_stream.LearnedDecoder(PROCEDURE, VARIANT, settings, WEIGHTS)
    expected = online(whole, rows)
    assert expected == decoded(recording, settings)
    assert len(expected) > 8
    first = learned_stream.LearnedDecoder(PROCEDURE, VARIANT, settings, WEIGHTS)
    events = online(first, rows[:at])
    saved = json.loads(json.dumps(first.state()))
    second = learned_stream.LearnedDecoder(PROCEDURE, VARIANT, settings, WEIGHTS)
    second.restore(saved)
    assert second.assembly == first.assembly
    assert events + online(second, rows[at:]) == expected
    assert second.state() == whole.state()


def test_decode_order_of_the_components_does_not_matter(recording):
    order = np.random.default_rng(1).permutation(K)
    data = PROCEDURE.to_json()
    data["components"] = [data["components"][k] for k in order]
    data["states"] = ["".join(state[k] for k in order) for state in data["states"]]
    variant = data["variants"]["assembly"]
    variant["initial_state"] = "".join(variant["initial_state"][k] for k in order)
    variant["precedence"] = []
    other = Procedure.from_json(data)
    said = recording.scores
    shuffled = dataclasses.replace(
        said,
        parts=said.parts[:, np.concatenate([order, K + order])],
        temporal=said.temporal[:, np.concatenate([order, K + order, 2 * K + order])],
    )
    turned = dataclasses.replace(recording, variant=other.variants["assembly"], scores=shuffled)
    events = learned_stream.LEARNED.decode(other, turned, SETTINGS, WEIGHTS)
    back = sorted((e.frame, 3 * order[e.step_id // 3] + e.step_id % 3) for e in events)
    assert back == sorted(e[:2] for e in decoded(recording))


# --- Weights --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["scores", "csv"])
def test_weights_the_files_that_ship_come_back(tmp_path, kind):
    weights = learned_beliefs.default_weights(kind)
    assert weights.kind == kind
    weights = dataclasses.replace(weights, world="bench", trust=(0.0, 0.5))
    learned_beliefs.write_weights(tmp_path / "w.json", weights)
    again = learned_beliefs.read_weights(tmp_path / "w.json")
    assert again.checksum == weights.checksum
    assert again.units == weights.units


def of_arrays(name, change):
    return lambda data: change(data["arrays"][name])


WRONG_WEIGHTS = [
    (lambda d: d.clear(), "format: is missing"),
    (lambda d: d.update(format=3), "format: 3"),
    (lambda d: d.update(kind="x"), "kind: 'x' is not one of"),
    (lambda d: d.update(average=-1), "average"),
    (lambda d: d.update(code=1), "'code': unknown key"),
    (lambda d: d.update(world="moon"), "world: 'moon' is not one of toy, bench"),
    (lambda d: d.update(trust=[2]), "trust: "),
    (lambda d: d["arrays"].pop("bias"), "bias: is missing"),
    (lambda d: d["arrays"].update(x=[]), "'x': unknown key"),
    (of_arrays("skip", list.pop), "skip: "),
    (lambda d: d["arrays"].update(start=[[0] * 65] * 2), "1…64 units"),
    (of_arrays("input", lambda rows: rows[3].pop()), "input: "),
    (of_arrays("offset", lambda row: row.__setitem__(0, "1")), "offset: "),
    (of_arrays("offset", lambda row: row.__setitem__(0, 1e4)), "offset: "),
]


@pytest.mark.parametrize("wrong", WRONG_WEIGHTS, ids=lambda row: row[1])
def test_weights_errors_name_the_file_and_the_place(tmp_path, wrong):
    change, what = wrong
    data, path = copy.deepcopy(WEIGHTS.to_json()), tmp_path / "w.json"
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(ValueError, match=what) as error:
        learned_beliefs.read_weights(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


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
