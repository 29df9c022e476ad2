import dataclasses
import types

import numpy as np
import pytest

from stormpsr_jax.configs import synthetic
from stormpsr_jax.psr import learned_beliefs
from stormpsr_jax.recordings import labels, predictions, scores
from stormpsr_jax.stages import fuse
from stormpsr_jax.stages.data import Data
from stormpsr_jax.training import learned_fusion
from tests.support.simulated_scores import PROCEDURE, simulate
from tests.support.tiny import opened

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
