import dataclasses
import functools
import json
import shutil
import types

import numpy as np
import pytest
import simplejpeg

from stormpsr_jax.configs import synthetic
from stormpsr_jax.data.folder import NOT_ANNOTATED, LabelledFrames
from stormpsr_jax.psr import learned_beliefs
from stormpsr_jax.recordings import labels, predictions, scores
from stormpsr_jax.recordings.predictions import Detections
from stormpsr_jax.serving.content import Window
from stormpsr_jax.stages import detector as detector_stage
from stormpsr_jax.stages import fuse, learning
from stormpsr_jax.stages.data import Data
from stormpsr_jax.training import learned_fusion
from tests.support.simulated_scores import PROCEDURE, simulate
from tests.support.tiny import opened, tiny_run

BOX = (0.5, 0.5, 0.4, 0.4)
# By frame: what is annotated (-1 empty, -2 not looked at), what is detected, and how surely.
TRUE = [1, 2, -1, -1, -1, -2, -2, 0]
CLASSES = [1, 2, 1, 0, 2, 1, 1, 1]
CONFIDENCES = [0.9, 0.8, 0.7, 0.0, 0.4, 0.99, 0.99, 0.99]


class Source:
    """Pictures that say which frame they are."""

    split, readers = "val", 2

    def __init__(self, classes):
        n = len(classes)
        boxes = np.where(np.array(classes)[:, None] >= 0, BOX, np.nan).astype(np.float32)
        unknown = np.full(n, np.nan, np.float32)
        states = np.zeros((n, 1), np.int8)
        labelled = LabelledFrames("a", 0, states, boxes, np.array(classes, np.int16), unknown)
        self.recordings = {"a": labelled}

    def rows(self, name, rows):
        del name
        return np.array(rows, np.uint8)[:, None, None, None] * np.ones((4, 4, 3), np.uint8)


def detector(images):
    """Boxes (B, 1, 4), classes (B, 1), confidences (B, 1) and what is left."""
    frames = images[:, 0, 0, 0]
    boxes = np.tile(np.float32(BOX), (len(frames), 1, 1))
    return boxes, np.array(CLASSES)[frames, None], np.array(CONFIDENCES)[frames, None], None


detector.batch = 3
detector.over = functools.partial(map, detector)


def test_macro_f1_is_the_mean_over_components_and_the_other_one_pools_them():
    """Against counts by a plain loop; component 2 never changes and is never said to."""
    rng = np.random.default_rng(0)
    states = rng.integers(0, 2, (50, 3))
    states[:, 2] = 1
    embeddings = rng.normal(size=(50, 4)).astype(np.float32)

    def says(x):
        return np.asarray(x)[:, -1, :3] - [0, 0.5, 99]

    says.batch = 7
    found = learning.clip_scores(says, {"a": embeddings}, {"a": states}, Window(8, 2))
    counts = np.zeros((3, 3))  # TP, FP, FN of each component
    for x in range(0, 50, 2):
        for k in range(3):
            truth = states[max(x - 8, 0), k] != states[x, k]
            said = embeddings[x, k] - [0, 0.5, 99][k] > 0
            counts[k] += [truth and said, said and not truth, truth and not said]
    each = [2 * tp / max(2 * tp + fp + fn, 1) for tp, fp, fn in counts]
    tp, fp, fn = counts.sum(axis=0)
    assert each[2] == 0
    assert found["f1_macro"] == pytest.approx(sum(each) / 3)
    assert found["f1"] == pytest.approx(2 * tp / (2 * tp + fp + fn))
    assert abs(found["f1"] - found["f1_macro"]) > 0.1


def test_detections_only_what_was_looked_at_counts():
    source = Source(TRUE)
    assert learning.mean_average_precision(detector, source) == pytest.approx(1)
    assert learning.false_alarms(detector, source) == {"false_alarms": pytest.approx(1 / 3)}
    assert learning.false_alarms(detector, Source([-1] * 8))["false_alarms"] == 6 / 8
    assert learning.false_alarms(detector, Source([1, 2, -2])) == {}


@pytest.mark.parametrize(
    ("settings", "changes", "share"),
    [
        ({}, {}, 0.5),
        ({"meshes": "0" * 64}, {}, None),  # renders of CAD files show no camera's pictures
        ({}, {"stages": ("data", "temporal", "evaluate")}, None),
    ],
)
def test_a_model_knows_how_often_validation_recordings_show_its_product(
    rendered, tmp_path, settings, changes, share
):
    shutil.copytree(rendered / "data", tmp_path / "data")
    path = tmp_path / "data" / "settings.json"
    made = json.loads(path.read_text())
    path.write_text(json.dumps(made | {"settings": made["settings"] | settings}))
    run, stages = tiny_run(tmp_path, **changes)
    val = {}
    recordings = run.data.source("val").recordings.items()
    for part, (name, recording) in zip((1.0, 0.5), recordings, strict=True):
        frames = np.arange(recording.num_frames)[: round(part * recording.num_frames)]
        sure = Detections(frames, np.full(len(frames), 2), np.full(len(frames), 0.9), None)
        val[name] = types.SimpleNamespace(detections=sure)
    assert stages["evaluate"]._product_share(run, val) == (share and pytest.approx(share, abs=0.02))


def test_each_part_is_cut_out_of_the_best_frame_in_which_it_was_put_on_last(rendered):
    run, _ = tiny_run(rendered)
    source = run.data.detector_source("train")
    name, labelled = next(iter(source.recordings.items()))
    states = np.zeros_like(labelled.states)
    states[4:, 0] = 1
    states[10:, 1] = 1
    states[14:, 2] = -1
    boxes = np.tile(np.float32([0.5, 0.5, 0.25, 0.5]), (len(states), 1))
    visible, classes = np.zeros(len(states), np.float32), np.ones(len(states), np.int16)
    visible[[2, 7, 8, 12, 15]] = 0.5, 0.8, 0.9, 0.9, 1
    classes[8] = NOT_ANNOTATED
    boxes[12] = 0.75, 0.5, 0.75, 1
    changed = dataclasses.replace(
        labelled, states=states, boxes=boxes, visible=visible, classes=classes
    )
    source.recordings = {name: changed}
    found = detector_stage.part_pictures(run.data)
    first, second, *others = [picture and simplejpeg.decode_jpeg(picture) for picture in found]
    assert others == [None] * (states.shape[1] - 2)
    assert source.image_size == (32, 32)
    seventh, twelfth = source.frames(name, labelled.first_frame + np.array([7, 12]))
    for picture, wanted in (first, seventh[6:26, 11:21]), (second, twelfth[:, 9:]):
        assert picture.shape == wanted.shape
        assert np.abs(np.float32(picture) - wanted).mean() < 10


# --- Stage fuse -----------------------------------------------------------------------------------

K = PROCEDURE.num_components


def write_split(folder, split, seeds, num=120):
    for seed in seeds:
        r = simulate(seed)
        place = folder / "data" / "labels" / split / r.name
        place.mkdir(parents=True)
        labels.write_states(place / "PSR_labels_raw.csv", r.frames, r.states)
        for kind in ("asd", "temporal", "scores"):
            (folder / "predictions" / split / kind).mkdir(parents=True, exist_ok=True)
        predicted = folder / "predictions" / split
        none = np.zeros((0, K), int)
        predictions.write_detections(
            predicted / "asd" / f"{r.name}{predictions.SUFFIX}",
            r.name,
            predictions.Detections(*np.zeros((3, 0), int), np.zeros((0, 4))),
        )
        predictions.write_temporal(
            predicted / "temporal" / f"{r.name}{predictions.SUFFIX}",
            r.name,
            predictions.TemporalPredictions(none[:, 0], none, none, none),
        )
        cut = (None if a is None else a[-num:] for a in r.scores.arrays)
        said = scores.Scores(r.scores.frames[-num:], *cut)
        scores.write_scores(predicted / "scores" / f"{r.name}.npz", said)


class Labels(Data):
    """Data without pictures."""

    procedure = PROCEDURE

    def source(self, split):
        states = np.ones((3, K), int)
        states[1, 0] = -1  # the first part alone was seen incorrect
        recordings = {"train": types.SimpleNamespace(states=states)}
        return types.SimpleNamespace(fps=PROCEDURE.fps, recordings=recordings)


@pytest.fixture
def fit(tmp_path):
    """A folder, and what fits in it by so many steps."""
    config = synthetic.get_config()
    run, _ = opened(config, tmp_path)
    run = dataclasses.replace(run, data=Labels(run.data.config, tmp_path, ""))

    def make(steps=3, **detector):
        config.fuse.steps = steps
        config.detector.update(detector)
        return opened(config, tmp_path)[1]["fuse"].make(run)

    return tmp_path, make


def test_fuse_fits_in_folds_and_comes_back(fit):
    folder, make = fit
    write_split(folder, "val", range(5))
    facts = make(20)
    assert facts["recordings"] == 5
    assert facts["loss_after"] < facts["loss_before"]
    found = fuse.read(folder / "fuse")
    shipped = learned_beliefs.default_weights("scores")
    assert found.weights.kind == "scores"
    assert found.weights.checksum != shipped.checksum
    assert len(found.folds) == 4
    assert found.recordings == {"r0": 0, "r1": 1, "r2": 2, "r3": 3, "r4": 0}
    assert found.held_out("r4") is found.folds[0]
    with pytest.raises(ValueError, match="does not have recording x"):
        found.held_out("x")
    # Close to where it started, after a few steps.
    for name, a in found.weights.arrays.items():
        np.testing.assert_allclose(a, shipped.arrays[name], atol=0.2)


def test_fuse_few_recordings_get_the_weights_that_ship(fit, capsys):
    folder, make = fit
    write_split(folder, "val", range(3))
    assert make() == {"recordings": 0}
    said = capsys.readouterr().out
    assert "3 validation recordings with labelled states are fewer than 4" in said
    found = fuse.read(folder / "fuse")
    assert found.weights.checksum == learned_beliefs.default_weights("scores").checksum
    assert found.held_out("r0") is found.weights


def test_fuse_without_renders_a_part_that_was_never_incorrect_is_not_trusted(fit):
    folder, make = fit
    write_split(folder, "val", range(3))
    make(cad=0.0, cad_wrong=0.0)
    trust = fuse.read(folder / "fuse").weights.trust
    assert 0 < trust[0] <= 1
    assert trust[1:] == (0.0,) * (K - 1)


def test_fuse_weights_that_are_no_better_are_not_kept(fit, monkeypatch, capsys):
    folder, make = fit
    write_split(folder, "val", range(4), num=30)
    shipped = learned_beliefs.default_weights("scores")
    fitted = learned_fusion.Fitted(shipped, [shipped] * 4, before=0.1, after=0.2)
    monkeypatch.setattr(learned_fusion, "fit", lambda *_, **__: fitted)
    facts = make()
    assert facts["recordings"] == 0
    assert facts["loss_after"] > facts["loss_before"]
    assert "no better on recordings that they have not seen" in capsys.readouterr().out
    found = fuse.read(folder / "fuse")
    assert found.weights.checksum == learned_beliefs.default_weights("scores").checksum
    assert not found.recordings


def test_fuse_errors_no_scores(fit):
    folder, make = fit
    write_split(folder, "val", range(3))
    (folder / "predictions/val/scores/r1.npz").unlink()
    with pytest.raises(ValueError, match=r"scores: no r1\.npz for the recording r1"):
        make()
