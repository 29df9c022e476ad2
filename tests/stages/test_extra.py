import dataclasses
import shutil

import numpy as np
import pytest

from data_prep import stage as rendering
from stormpsr_jax.base import results
from stormpsr_jax.configs import cad
from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.recordings.procedure import load_procedure
from stormpsr_jax.stages import checks, evaluate, pretrain, provenance
from stormpsr_jax.stages.context import Context
from stormpsr_jax.training.sharding import make_mesh
from tests.support import lantern, real_data
from tests.support.tiny import TINY, tiny

TOY = dataclasses.replace(load_procedure("synthetic"), fps=1.0)
ENOUGH, FEW = {"train": 3, "val": 4, "test": 1}, {"train": 2, "val": 1}
LEARNING = ("pretrain", "embed", "temporal", "detector", "predict", "evaluate")


def context_of(rendered, workdir, real, **changes):
    changes = {"data.dir": str(rendered / "data"), "stages": LEARNING, **changes}
    return Context(tiny(**changes, **{"data.extra": str(real)}), workdir, make_mesh(1, 1))


@pytest.fixture
def real(tmp_path):
    return real_data.write(tmp_path / "real", TOY, ENOUGH)


@pytest.fixture
def few(tmp_path):
    return real_data.write(tmp_path / "few", TOY, FEW, boxed=False)


def test_real_recordings_are_trained_on_beside_the_rendered_ones(rendered, real, tmp_path):
    context = context_of(rendered, tmp_path, real)
    plain = ClipSource(rendered / "data", "train", context.procedure)
    own = ClipSource(real, "train", context.procedure)
    train = context.source("train")
    assert list(train.recordings) == sorted([*plain.recordings, *own.recordings])
    for source in (plain, own):
        for name in source.recordings:
            np.testing.assert_array_equal(train.rows(name, [3, 0]), source.rows(name, [3, 0]))
            assert train.path(name) == source.path(name)
    assert context.detector_source("train") is train is context.source("train")
    small = context_of(rendered, tmp_path, real, **{"encoder.image_size": 24}).source("train")
    assert small.rows("bench_000", [0]).shape == (1, 24, 24, 3)
    batches = pretrain.build(context).data(0)
    pictures = np.concatenate([next(batches)["image"] for _ in range(8)])
    batches.close()
    flat = (pictures.std(axis=(1, 2, 3)) < 1).mean()
    assert 0.1 < flat < 0.9


def test_enough_real_recordings_choose_and_are_scored_instead_of_rendered_ones(
    rendered, real, tmp_path
):
    context = context_of(rendered, tmp_path, real)
    assert list(context.source("val").recordings) == [f"bench_00{i}" for i in (3, 4, 5, 6)]
    assert list(context.source("test").recordings) == ["bench_007"]
    assert context.folder("val") == context.folder("test") == real
    assert checks.find_errors(context) == []
    assert evaluate._data(context) == {
        "rendered": False,
        "recordings": {"train": 6, "val": 4, "test": 1},
    }
    assert str(context.extra) == (
        f"{real}: real recordings: 3 to train on, beside rendered ones; 4 for validation, which "
        "choose thresholds and confidences; 1 for testing: real ones are scored"
    )


def test_more_real_recordings_make_again_what_is_learnt_and_nothing_is_rendered(
    rendered, few, tmp_path
):
    without = Context(tiny(**{"data.dir": str(rendered / "data")}), tmp_path, make_mesh(1, 1))
    with_few = context_of(rendered, tmp_path, few)
    more = context_of(
        rendered, tmp_path, real_data.write(tmp_path / "more", TOY, ENOUGH | {"train": 5})
    )

    def changed(stage, one, two):
        return results.differences(*(provenance.made_from(each, stage) for each in (one, two)))

    for one, two in ((without, with_few), (with_few, more)):
        assert "other pictures of split train" in changed(pretrain.STAGE, one, two)
        assert changed(rendering.STAGE, one, two) == []
    assert "other label files of split test" in changed(evaluate.STAGE, with_few, more)


@pytest.mark.parametrize("splits", [FEW, {"val": 4, "test": 1}], ids=["join", "replace"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 40}, "it has pictures of (40, 40) pixels (HxW), 1 a second, they (32, 32), 1 a"),
        ({"fps": 2.0}, "it has pictures of (32, 32) pixels (HxW), 2 a second, they (32, 32), 1 a"),
    ],
)
def test_recordings_that_do_not_go_together_are_told(rendered, tmp_path, options, splits, message):
    procedure = dataclasses.replace(TOY, fps=options.get("fps", 1.0))
    size = options.get("size", 32)
    real = real_data.write(tmp_path / "real", procedure, splits, size=size)
    (found,) = checks.find_errors(context_of(rendered, tmp_path, real))
    assert found.startswith(f"--config.data.extra={real}: does not go with the other recordings")
    assert message in found


def config_of(files, **changes):
    config = cad.get_config()
    config.procedure = str(files[1])
    small = {**TINY, "stages": cad.get_config().stages, "data.synthetic.meshes": str(files[0])}
    config.update_from_flattened_dict({**small, **changes})
    return config


def test_the_data_are_made_again_where_a_mesh_a_pose_or_the_procedure_changes(tmp_path):
    files = lantern.write(tmp_path)

    def made_from():
        context = Context(config_of(files), tmp_path / "run", make_mesh(1, 1))
        return provenance.made_from(context, rendering.STAGE)

    before = made_from()
    assert results.differences(before, made_from()) == []
    poses = files[0] / "poses.json"
    poses.write_text('{"lid": {"translation": [0, 0, 1]}}')
    assert results.differences(before, made_from()) == ["other meshes or poses"]
    poses.unlink()
    files[1].write_text(files[1].read_text().replace('"11100", ', ""))
    assert results.differences(before, made_from()) == ["other procedure"]
    shutil.rmtree(files[0])
    with pytest.raises(ValueError, match="no such folder"):
        made_from()
