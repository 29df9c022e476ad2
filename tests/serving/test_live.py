"""Recognition picture by picture: the events of whole recordings, saved states, the clock."""

import copy
import ctypes
import dataclasses
import gc
import json
import sys

import jax
import numpy as np
import pytest

import stormpsr_jax
from stormpsr_jax.networks.temporal_baselines import TemporalMLP
from stormpsr_jax.psr.streams import learned
from stormpsr_jax.psr.streams.streams import names as stream_names
from stormpsr_jax.serving import functions, model
from stormpsr_jax.serving.flax_networks import FlaxNetworks
from stormpsr_jax.serving.live import LATE
from tests.support.model_data import NETWORKS, PROCEDURE, decode, on_embeddings, video, write

NUM_FRAMES = 150
IMAGES = video(NUM_FRAMES)
# With which the random model changes its mind often.
SETTINGS = {"learned": learned.Settings(install=3.0, wrong=-4.5)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "model"
    write(folder, stream_names())
    return stormpsr_jax.load_model(folder)


def feed(live, frames, fps=10.0):
    return [event for frame in frames for event in live.update(IMAGES[frame], frame / fps)]


def through_json(state):
    return json.loads(json.dumps(state, allow_nan=False))


@pytest.mark.parametrize("stream", stream_names())
def test_update_has_the_events_of_recognise(trained, stream):
    for variant in PROCEDURE.variants:
        options = {"variant": variant, "stream": stream, "settings": SETTINGS.get(stream)}
        expected = list(trained.recognise(IMAGES, **options))
        assert len(expected) > 3
        # To the last bit.
        assert feed(trained.live(**options), range(NUM_FRAMES)) == expected
        assert list(trained.recognise(IMAGES, batch=7, **options)) == expected


def test_update_of_large_networks_has_the_events_of_recognise(trained, monkeypatch):
    """Among others, or alone, a picture may come to other last bits."""
    monkeypatch.setattr(functions, "SMALL", 0)
    networks = trained._content.networks
    networks = FlaxNetworks(networks.of, networks.dtype)  # of which nothing was made yet
    trained = model.Model(dataclasses.replace(trained._content, networks=networks))
    expected = list(trained.recognise(IMAGES, variant="assembly"))
    for batch in (1, trained.batch):
        found = feed(trained.live("assembly", batch=batch), range(NUM_FRAMES))
        assert [e[:2] for e in found] == [e[:2] for e in expected]
        for one, other in zip(found, expected, strict=True):
            # Random weights are large, and so are their roundings.
            assert one.confidence == pytest.approx(other.confidence, abs=5e-3)
    made = trained._content.networks._made
    rows = {key: f["encode"]._num_rows for key, f in made.items()}
    assert sorted(rows.values()) == [1, trained.batch]


@pytest.mark.parametrize("stream", stream_names())
def test_restore_goes_on_at_any_frame(trained, stream):
    options = {"variant": "assembly", "stream": stream, "settings": SETTINGS.get(stream)}
    whole = trained.live(**options)
    cuts = {0, 1, *np.random.default_rng(len(stream)).integers(0, NUM_FRAMES, 6).tolist()}
    saved, told = {}, []  # told: (frame, event, alert or progress)
    for frame in range(NUM_FRAMES):
        if frame in cuts:
            saved[frame] = whole.state()
        told += [(frame, one) for one in whole.update(IMAGES[frame], frame / 10)]
        told += [(frame, one) for one in [*whole.alerts, whole.progress]]
    assert len(told) > NUM_FRAMES + 5
    for cut, state in saved.items():
        live = trained.live(**options)
        live.restore(through_json(state))
        assert live.state() == through_json(live.state()) == state
        again = []
        for frame in range(cut, NUM_FRAMES):
            again += [(frame, one) for one in live.update(IMAGES[frame], frame / 10)]
            again += [(frame, one) for one in [*live.alerts, live.progress]]
        assert again == [one for one in told if one[0] >= cut]
        assert live.finish() == whole.finish()


class Mallinfo(ctypes.Structure):
    """What glibc's malloc says of itself, mallinfo(3)."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def held():
    """Python's objects, arrays on devices, bytes of malloc (0 where it does not tell)."""
    gc.collect()
    mallinfo = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if mallinfo is not None:
        mallinfo.restype = Mallinfo
    num_bytes = mallinfo().uordblks if mallinfo else 0
    return np.array([sys.getallocatedblocks(), len(jax.live_arrays()), num_bytes])


def test_update_keeps_nothing_of_each_picture(trained):
    live, counts = trained.live("assembly", "storm"), []
    for frame in range(801):
        if frame % 200 == 0:
            counts.append(held())
        live.update(IMAGES[frame % NUM_FRAMES], frame / 10)
    # Caches that fill grow once; what each picture leaves would show in every difference.
    objects, arrays, num_bytes = np.diff(counts, axis=0).min(axis=0) / 200
    assert objects < 0.5
    assert arrays <= 0
    assert num_bytes < 100


def test_update_several_pictures_of_a_frame_and_late_ones(trained):
    expected = list(trained.recognise(IMAGES, variant="assembly", stream="storm", batch=1))
    live, found = trained.live("assembly", "storm"), []
    for frame, picture in enumerate(IMAGES):
        found += live.update(picture, frame / 10 - 0.049 * (frame > 0))
        assert live.update(IMAGES[0], frame / 10 + 0.049) == []
        assert live.update(IMAGES[3], max(0, frame / 10 - LATE / 2)) == []  # too late
    assert found == expected
    with pytest.raises(ValueError, match=r"time=3: the picture before was at 14.9; reset\(\)"):
        live.update(IMAGES[0], 3.0)
    for time in (-1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="is not a number of seconds from 0 up"):
            live.update(IMAGES[0], time)
    with pytest.raises(ValueError, match=r"a picture is uint8"):
        live.update(IMAGES[0].astype(float), 15.0)
    assert live.update(IMAGES[0], 15.0) is not None
    assert live.frame == 150


def test_update_a_missing_frame_is_one_without_evidence_and_time_stays(trained):
    """As if the window repeated the picture before, and the decoder left the frame out."""
    missing = {3, 10, 11, 12, *range(40, 80), 149}  # also longer than the window
    there = [frame for frame in range(NUM_FRAMES) if frame not in missing]
    found = feed(trained.live("assembly", "storm"), there)
    held = IMAGES[[max(f for f in there if f <= frame) for frame in range(NUM_FRAMES)]]
    rows = np.stack([trained.preprocess(picture) for picture in held])
    recogniser, decoder = trained.recogniser(batch=1), trained.decoder("storm", "assembly")
    expected = []
    for frame, row in enumerate(rows):
        said = recogniser(row[None])
        if frame not in missing:
            expected += decode(decoder, [frame], said)
    assert found == expected
    assert found
    assert not {event.frame for event in found} & missing


def test_beliefs_are_those_of_events_and_parts_sit_wrong(trained):
    live = trained.live("assembly", "learned", settings=SETTINGS["learned"])
    assert live.beliefs is None
    wrong = 0
    for frame in range(NUM_FRAMES):
        events = live.update(IMAGES[frame], frame / 10)
        parts = live.beliefs
        assert [part.component for part in parts] == list(PROCEDURE.components)
        for event in events:
            _, right, of_wrong = parts[event.step_id // 3]
            assert (event.evidence["right"], event.evidence["wrong"]) == (right, of_wrong)
            row = next(step for step in live.progress if step.step_id == event.step_id)
            assert (row.name, row.time_s) == (event.name, frame / 10)
            if event.step_id % 3 == 1:
                wrong += 1
                assert row.status == "wrong"
                assert live.decoder.assembly[event.step_id // 3] == -1
                assert event.step_id - 1 in [alert.step_id for alert in live.finish()]
    assert wrong
    feed(storm := trained.live("assembly", "storm"), range(3))
    assert storm.beliefs is None


def test_reset_is_a_new_one(trained):
    live = trained.live("assembly", "storm")
    first = feed(live, range(NUM_FRAMES))
    live.reset()
    assert live.decoder.assembly == (0, 0, 0)
    assert [step.status for step in live.progress] == ["next", "open", "open"]
    assert live.progress[0].name == "Install seal"
    assert feed(live, range(NUM_FRAMES)) == first  # the clock from 0 again
    live.reset()
    again = [e for f in range(NUM_FRAMES) for e in live.update(IMAGES[f], 1000 + f / 10)]
    assert [e.frame - 10_000 for e in again] == [e.frame for e in first]


def test_live_embeddings_with_a_stride(tmp_path):
    trained = stormpsr_jax.load_model(on_embeddings(tmp_path, TemporalMLP(3, depth=1, width=8)))
    rows = np.random.default_rng(0).normal(size=(NUM_FRAMES, 6)).astype(np.float32)
    expected = list(trained.recognise(rows, variant="assembly"))
    assert expected
    live = trained.live("assembly")
    found = [e for i, row in enumerate(rows) for e in live.update(row, 0.4 * i)]
    assert [e[:2] for e in found] == [e[:2] for e in expected]
    assert not live.detects
    with pytest.raises(ValueError, match=r"float \(B, 6\), not float32 \(1, 5\)"):
        live.update(rows[0, :5], 100.0)


def test_live_errors_streams_and_variants(trained):
    with pytest.raises(ValueError, match="has the variants assembly, disassembly; say which"):
        trained.live()
    with pytest.raises(ValueError, match="stream 'sound' is not one of"):
        trained.live("assembly", "sound")
    assert trained.live(recording="x_off").decoder.variant.name == "disassembly"


def damaged(state, path, value):
    state = copy.deepcopy(state)
    part = state
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    return state


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["format"], 1, "not a state of format 3"),
        (["model"], "other", "is of a model of 'other'"),
        (["frame"], "5", "frame: the saved state is damaged"),
        (["frame"], True, "frame: the saved state is damaged"),
        (["window"], None, "window: the saved state is damaged"),
        (["window", "shape"], [12, 10**9], "window: the saved state is damaged"),
        (["window", "float32"], "AAAA", "window: the saved state is damaged"),
        (["window", "float32"], "AADAfw==" * 144, "window: the saved state is damaged"),
        (["decoder"], [], "decoder: the saved state is damaged"),
        (["decoder", "stream"], "asd", "is of stream 'asd'"),
        (["decoder", "variant"], "disassembly", "is of variant 'disassembly'"),
        (["decoder", "settings", "decay"], 0.1, "is of settings"),
        (["decoder", "components"], [], "decoder: components: the saved"),
        (["decoder", "components", 0, 1], "1", "decoder: components: 0: 1: the saved"),
        (["decoder", "components", 0, 1], float("nan"), "decoder: components: 0: 1: the saved"),
        (["decoder", "components", 0, 0], 7, "components: 0: 7 is not a whole number in 0…1"),
        (["decoder", "components", 0], [0], "decoder: components: 0: the saved"),
        (["checklist", "done"], [99], "damaged"),
        (["checklist", "done"], [[99, 1]], "checklist: done: 99 is not a whole number in 0…"),
        (["checklist", "wrong"], [[99, 1]], "checklist: wrong: 99 is not a whole"),
        (["checklist", "done"], [[0, [1]]], "checklist: done: \\[1\\] is not a whole"),
        (["checklist", "monitor", "missed"], [3], "damaged"),
        (["checklist", "monitor", "missed"], [[0, ["x"]]], "damaged"),
    ],
)
def test_restore_errors_leave_everything_as_it_was(trained, path, value, message):
    refused(trained.live("assembly", "storm"), path, value, message)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["decoder", "weights"], "0", "is of weights '0'"),
        (["decoder", "reported"], [0, 0, 2], "decoder: reported: 2 is not a whole"),
        (["decoder", "reported"], [0, 0], "decoder: reported: the saved state is damaged"),
        (["decoder", "hidden", 0, 0], None, "decoder: hidden: 0: 0: the saved state is damaged"),
        (["decoder", "hidden", 0], [], "decoder: hidden: 0: the saved state is damaged"),
        (["decoder", "hidden", 0, 0], float("nan"), "decoder: hidden: 0: 0: the saved state is"),
        (["decoder", "recent"], [[1, [[0.0]]]], "does not fit this decoder"),
        (["decoder", "recent"], [1], "the saved state is damaged"),
        (["decoder", "recent"], [[1, "x"]], "decoder: recent: 0: 1: the saved state is damaged"),
    ],
)
def test_restore_errors_of_the_learned_fusion(trained, path, value, message):
    refused(trained.live("assembly", "learned"), path, value, message)


def refused(live, path, value, message):
    """A state with this value in it is, and changes nothing."""
    feed(live, range(20))
    before = live.state()
    with pytest.raises(ValueError, match=message):
        live.restore(damaged(before, path, value))
    assert live.state() == before
    with pytest.raises(ValueError, match="not a state"):
        live.restore(None)


def test_restore_errors_state_of_another_stream_has_no_window(trained, tmp_path):
    asd = trained.live("assembly", "asd")
    feed(asd, range(5))
    assert asd.state()["window"] is None
    with pytest.raises(ValueError, match="is of stream 'asd'"):
        trained.live("assembly", "storm").restore(asd.state())
    write(tmp_path, ["asd"], networks={"detector": NETWORKS["detector"]})
    other = stormpsr_jax.load_model(tmp_path).live("assembly")
    saved = asd.state() | {"model": other.state()["model"]}
    other.restore(saved)
    assert other.frame == 4
