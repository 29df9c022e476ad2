import copy
import dataclasses

import jax
import numpy as np
import pytest
import simplejpeg

from data_prep.writing import shards
from stormpsr_jax.data import pipelines, sampling
from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.data.folder import EMPTY, NOT_ANNOTATED
from stormpsr_jax.recordings.procedure import load_procedure
from stormpsr_jax.stages import temporal

PROCEDURE = load_procedure("meccano")
SIZE = 16


def make(split, name):
    """A recording whose pictures say which recording and frame they are."""
    states = np.zeros((60, 17), np.int8)
    states[20:] = PROCEDURE.states[0]
    states[40:] = PROCEDURE.states[1]
    if name == "c1":
        states[20:, 0] = -1  # a part that all these renders show, incorrect
    boxes = np.full((60, 4), np.nan, np.float32)
    boxes[::2] = 0.5
    classes = np.full(60, -1, np.int16)
    classes[::2] = PROCEDURE.state_classes(states)[::2]
    if split == "train":
        classes[1::4] = NOT_ANNOTATED
    number = {"train": 0, "val": 100, "cad": 200}[split] + 10 * int(name[-1])

    def jpegs():
        for i in range(60):
            image = np.full((SIZE, SIZE, 3), (number, 4 * i, 0), np.uint8)
            yield simplejpeg.encode_jpeg(image, quality=100, colorsubsampling="444")

    visible = np.linspace(0, 1, 60, dtype=np.float32)
    return shards.RecordingData(name, 1, jpegs(), states, boxes, classes, visible)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    shards.build(
        folder,
        procedure=PROCEDURE.at(10.0),
        image_size=(SIZE, SIZE),
        splits={"train": ["t0", "t1", "t2"], "val": ["v0"], "cad": ["c0", "c1"]},
        make=make,
        workers=1,
    )
    return {s: ClipSource(folder, s, PROCEDURE) for s in ("train", "val", "cad")}


def take(batches, count, step=0):
    iterator = batches(step)
    taken = [next(iterator) for _ in range(count)]
    iterator.close()
    return taken


def same(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


def pipeline(data, kind, workers=0, seed=0):
    train = data["train"]
    if kind == "pretrain":
        sampler = sampling.KeyFrameSampler(
            train.recordings, PROCEDURE, window=10, n_per_state=2, any_frames=3,
            cad=data["cad"].recordings, cad_per_state=1,
        )  # fmt: skip
        return pipelines.key_frame_batches(train, data["cad"], sampler, seed=seed, workers=workers)
    sampler = sampling.ClipSampler(train.recordings, delta=10, sigma=5)
    options = {"frames": 16, "stride": 4, "batch": 6, "seed": seed, "workers": workers}
    if kind == "finetune":
        return pipelines.picture_clips(train, sampler, **options)
    if kind == "temporal":
        states = {name: r.states for name, r in train.recordings.items()}
        return temporal.embedded_clips(states, sampler, **options)
    options = {"background": 0.4, "cad_share": 0.3, "cad_wrong": 0.4, "batch": 16}
    return pictures(train, data["cad"], seed=seed, workers=workers, **options)


def pictures(source, cad=None, **changes):
    """The detector's batches."""
    options = {"background": 0.0, "cad_share": 0.0, "cad_wrong": 0.0, "unboxed_share": 0.0}
    return pipelines.detector_pictures(source, cad, **options | {"seed": 0} | changes)


def changed(source, **fields):
    """A source with other fields of some recordings."""
    other = copy.copy(source)
    new = {n: dataclasses.replace(source.recordings[n], **f) for n, f in fields.items()}
    other.recordings = source.recordings | new
    return other


@pytest.mark.parametrize("kind", ["detector"])  # how loaders share out the elements is one code
@pytest.mark.usefixtures("system")  # workers
def test_pipelines_same_batches_for_any_number_of_workers(data, kind):
    alone, helped = (take(pipeline(data, kind, workers), 4) for workers in (0, 2))
    same(alone, helped)
    firsts = [next(iter(batch.values())).tobytes() for batch in alone]
    assert len(set(firsts)) == len(firsts), "a draw came twice"
    other = take(pipeline(data, kind, seed=1), 1)[0]
    assert any(not np.array_equal(other[name], alone[0][name]) for name in other)


@pytest.mark.parametrize("kind", ["pretrain", "temporal", "finetune", "detector"])
def test_pipelines_start_at_any_step_on_any_number_of_hosts(data, kind, monkeypatch):
    """Hosts hold the rows of the one global batch, in order, from whatever step they start at."""
    expected = take(pipeline(data, kind), 5)[3:]
    same(take(pipeline(data, kind), 2, step=3), expected)
    hosts = 3 if kind == "pretrain" else 2
    monkeypatch.setattr(jax, "process_count", lambda: hosts)
    parts = []
    for host in range(hosts):
        monkeypatch.setattr(jax, "process_index", lambda host=host: host)
        parts.append(take(pipeline(data, kind), 2, step=3))
    same(
        [{k: np.concatenate([p[k] for p in b]) for k in b[0]} for b in zip(*parts, strict=True)],
        expected,
    )


def test_key_frame_batches_labels_belong_to_the_pictures(data):
    for batch in take(pipeline(data, "pretrain"), 5):
        assert batch["image"].shape == (2 * 3 + 3, SIZE, SIZE, 3)
        assert (batch["image"][..., 0] < 250).all()
        where = np.round(batch["image"].mean((1, 2)))
        assert ((where[:, 0] > 190) == batch["cad"]).all()
        frames = where[:, 1] / 4
        expected = np.where(frames >= 39.5, 2, np.where(frames >= 19.5, 1, 0))
        keyed = batch["label"] != sampling.NO_CLASS
        assert keyed.sum() == 6
        assert not keyed[-3:].any()
        assert (batch["label"][keyed] == expected[keyed]).all()
        np.testing.assert_array_equal(batch["state"].sum(1), np.array([0, 3, 5])[expected])


def test_clips_pictures_and_embeddings_are_the_window_and_labels_the_net_change(data):
    for kind in ("finetune", "temporal"):
        for batch in take(pipeline(data, kind), 3):
            if kind == "finetune":
                frames = np.round(batch["image"].mean((2, 3))[..., 1] / 4).astype(int)  # (B, T)
                names = np.round(batch["image"].mean((1, 2, 3))[:, 0] / 10).astype(int)
            else:
                frames = batch["rows"] % 60
                names = batch["rows"][:, 0] // 60
            assert batch["state"].dtype == np.int8
            rows = zip(frames, names, batch["label"], batch["state"], strict=True)
            for clip, name, label, state in rows:
                np.testing.assert_array_equal(clip, np.maximum(clip[-1] - np.arange(16, -1, -4), 0))
                states = data["train"].recordings[f"t{name}"].states
                np.testing.assert_array_equal(
                    label, states[max(clip[-1] - 16, 0)] ^ states[clip[-1]]
                )
                np.testing.assert_array_equal(state, states[clip[-1]])


def test_detector_pictures_shares_boxes_and_states(data):
    batches = take(pipeline(data, "detector"), 60)
    whole = {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}
    classes, cad, error = whole["class"], whole["cad"], PROCEDURE.error_class
    boxed = np.isfinite(whole["box"]).all(1)
    assert set(classes.tolist()) == {-1, 1, 2, error}  # an uncatalogued state (0) is never drawn
    np.testing.assert_array_equal(boxed, classes > 0)
    assert 0.34 < (classes[~cad] == -1).sum() / len(classes) < 0.46
    assert 0.25 < cad.mean() < 0.35
    # Of the renders that share shows incorrect parts, and the rest shows none.
    assert set(classes[~cad].tolist()) == {-1, 1, 2}
    sits_wrong = (whole["state"] == -1).any(1)
    assert 0.32 < sits_wrong[cad].mean() < 0.48
    assert set(classes[sits_wrong].tolist()) == {-1, error}  # hidden ones too
    assert whole["state"].dtype == np.int8
    number, frame = np.round(whole["image"].mean((1, 2))[:, :2].T / [[10], [4]]).astype(int)
    np.testing.assert_array_equal(number >= 20, cad)
    for n, i, state in zip(number, frame, whole["state"], strict=True):
        recording = data["cad"].recordings[f"c{n - 20}"] if n >= 20 else None
        recording = recording or data["train"].recordings[f"t{n}"]
        np.testing.assert_array_equal(state, recording.states[i])
    assert not sits_wrong[~cad].any()
    # Of a frame that nobody has looked at it is not known whether it is empty.
    assert set((frame[~cad & (classes == EMPTY)] % 4).tolist()) == {3}


def test_detector_pictures_frames_from_anywhere_are_for_the_parts_alone(data):
    states = data["train"].recordings["t1"].states.copy()
    states[40:50, 0] = -1
    wrong = changed(data["train"], t1={"states": states})
    for source, share in ((data["train"], 0.0), (wrong, 0.55)):  # some of any show it, too
        (batch,) = take(pictures(source, unboxed_share=0.5, background=0.2, batch=256), 1)
        anywhere = batch["class"] == NOT_ANNOTATED
        assert 0.4 < anywhere.mean() < 0.6
        assert (batch["class"][~anywhere] != 0).all()
        assert abs((batch["state"][anywhere] == -1).any(1).mean() - share) <= 0.1 * bool(share)
        frame = np.round(batch["image"][anywhere].mean((1, 2))[:, 1] / 4).astype(int)
        number = np.round(batch["image"][anywhere].mean((1, 2))[:, 0] / 10).astype(int)
        for n, i, state in zip(number, frame, batch["state"][anywhere], strict=True):
            np.testing.assert_array_equal(state, source.recordings[f"t{n}"].states[i])
        assert len(set(frame.tolist())) > (20 if share else 40)


def test_detector_pictures_every_part_that_sits_wrong_is_drawn_as_often(data):
    """Though one does in forty frames of two recordings and one in a single frame."""
    before = data["cad"].recordings["c1"].states
    states = before.copy()
    states[30, 3], states[30, 0] = -1, 1  # part 0 alone before and after
    cad = changed(data["cad"], c1={"states": states}, c0={"states": before})
    (batch,) = take(pictures(data["train"], cad, cad_share=1.0, cad_wrong=1.0, batch=512), 1)
    wrong = batch["state"] == -1
    assert (wrong.sum(1) == 1).all()
    assert 0.44 < wrong[:, 3].mean() < 0.56
    number = np.round(batch["image"].mean((1, 2))[:, 0] / 10).astype(int)
    assert 0.4 < (number[wrong[:, 0]] == 20).mean() < 0.6  # of both recordings


def test_detector_pictures_nothing_is_empty_that_nobody_has_looked_at(data):
    recordings = data["train"].recordings.items()
    classes = {n: np.where(r.classes < 0, NOT_ANNOTATED, r.classes) for n, r in recordings}
    unseen = changed(data["train"], **{n: {"classes": c} for n, c in classes.items()})
    (batch,) = take(pictures(unseen, background=0.5, batch=64), 1)
    assert (batch["class"] > 0).all()
