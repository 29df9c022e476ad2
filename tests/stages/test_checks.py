import shutil

import jax
import numpy as np
import pytest

from data_prep.worlds import worlds
from stormpsr_jax import main
from stormpsr_jax.networks import architectures, vit
from stormpsr_jax.psr.accumulation import DECODERS
from stormpsr_jax.recordings.procedure import load_procedure
from stormpsr_jax.stages import config_flag, run
from tests.support import arrays, lantern
from tests.support.arrays import filled
from tests.support.tiny import TRAINED, tiny, tiny_run

NO_POSES, CAD_WRONG = {"detector.pose_loss": 0.0}, {"detector.cad_wrong": 0.0}
NO_RENDERS = {"detector.cad": 0.0, **NO_POSES, **CAD_WRONG}
ENCODER = ("pretrain", "embed", "temporal", "finetune")


def errors(rendered, folder, **changes):
    """Of a run in an empty work folder on a tiny run's pictures, but for other `data.dir`."""
    changes = {"stages": tiny().stages[1:], "data.dir": str(rendered / "data"), **changes}
    values = config_flag.typed(tiny(**changes))
    made, stages = tiny_run(folder, **changes)
    return run.find_errors(values, made, run.chosen(stages, values, made))


def test_find_errors_none_in_a_good_run(rendered, tmp_path):
    assert errors(rendered, tmp_path) == []
    assert errors(rendered, tmp_path, **{"stages": tiny().stages, "data.dir": ""}) == []


def test_what_is_wrong_with_fields_is_said_of_all_at_once():
    wrong = {
        "temporal.steps": 0,
        "window.stride": 0,
        "encoder.stem": (24, -1),
        "temporal.delta": float("nan"),
        "temporal.sigma": float("inf"),
        "pretrain.key_frames": "any",
        "detector.optimizer.name": "lamb",
        "data.std": (0.2, 0.0, 0.2),
        "mesh.fsdp": -2,
    }
    found = config_flag.find_errors(tiny(**wrong))
    assert len(found) == len(wrong)
    for field in wrong:
        assert any(text.startswith(f"--config.{field}=") for text in found), field


def test_ranges_every_number_of_the_config_has_one():
    without = [
        field
        for field, value in config_flag.flat(config_flag.typed(tiny())).items()
        if isinstance(value, int | float)
        and not isinstance(value, bool)
        and not config_flag.find_errors(tiny(**{field: type(value)(-(10.0**12))}))
    ]
    assert not without


def spoilt(rendered, tmp_path, split, **changes):
    """The data folder with other labels of a split."""
    folder = tmp_path / "data"
    shutil.copytree(rendered / "data", folder)
    arrays.rewrite(folder / f"labels/{split}.npz", **changes)
    return folder


PROCEDURE = load_procedure("synthetic")


def as_errors(old):
    return np.where(old > 0, PROCEDURE.error_class, old)


@pytest.mark.parametrize(
    ("split", "changes", "what", "without"),
    [
        ("cad", {"classes": filled(..., -1)}, "no render shows a state with all parts", NO_RENDERS),
        ("cad", {"states": np.abs}, "no render shows an incorrect installation", CAD_WRONG),
        ("cad", {"poses": filled(..., np.nan)}, "no render says how the product lies", NO_POSES),
        ("val", {"classes": filled(..., -1)}, "split 'val' has no box", {"stages": ENCODER}),
        ("train", {"classes": filled(..., -1)}, "training split has a box", {"stages": ENCODER}),
        (
            "cad",
            {"states": filled((slice(None), 0), -1), "classes": as_errors},
            "pretrain.cad_per_state=1, but the shards have no CAD renders",
            NO_RENDERS | {"pretrain.cad_per_state": 0},
        ),
    ],
)
def test_find_errors_labels_without_what_is_to_be_learnt(
    rendered, tmp_path, split, changes, what, without
):
    folder = {"data.dir": str(spoilt(rendered, tmp_path, split, **changes))}
    found = errors(rendered, tmp_path / "run", **folder)
    assert any(what in text for text in found), found
    assert errors(rendered, tmp_path / "run", **folder | without) == []


WHOLE = {"stages": tiny().stages, "data.dir": ""}


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"data.dir": "/nowhere"}, "--config.data.dir=/nowhere: no such folder"),
        ({"window.frames": 17}, "window.frames=17 is not a multiple of window.stride=4"),
        ({"window.frames": 20_000}, "--config.temporal_model: num_frames: expected int <= 4096"),
        ({"window.frames": 4000}, "no window lies within one; lower window.frames"),
        ({"embed.every": 3}, "--config.embed.every=3: does not divide window.stride=4"),
        ({"encoder.patch_size": 12}, "--config.encoder: image size 32x32 is not a multiple of pa"),
        ({"detector.image_size": 30}, "--config.detector: the detector takes pictures whose sides"),
        ({"detector.image_size": 64}, "its pictures are 32x32 pixels (HxW), which --config.detec"),
        ({"encoder.image_size": 40}, "make the folder again with --size=40 or more, or set"),
        ({"encoder.num_heads": 3}, "--config.encoder: width 16 is not divisible by num_heads 3"),
        ({"encoder.depth": 2000}, "--config.encoder: depth: expected int <= 64"),
        ({"attention": "cudnn"}, "attention=cudnn with dtype float32 on"),
        ({"init_from": "/x.safetensors"}, "--config.init_from=/x.safetensors: no such file"),
        (
            {"pretrain.backgrounds": 2, "pretrain.background_frames": (500, 600)},
            "pretrain.backgrounds=2, but no frame lies 500 to 600 frames (pretrain.background_fr",
        ),
        ({"stages": ("predict", "evaluate")}, "neither 'detector' nor 'temporal'"),
        ({"stages": ("embed", "temporal")}, "stage 'embed' takes the result of 'pretrain'"),
        ({"stages": ("train",)}, "stages names ['train']; known are data, pretrain"),
        ({"stages": ("embed", "pretrain")}, "out of order, or given twice; write pretrain, embed"),
        ({"predict.splits": ("val",)}, "predict.splits lacks test"),
        ({"predict.splits": ()}, "--config.predict.splits=(): names no split to predict"),
        ({"detector.background": 0.9}, "are shares of a batch, and 1.3 is more than all of it"),
        ({"procedure": "meccano"}, "made for procedure 'synthetic', do not fit"),
        ({"procedure": "/no.json"}, "'/no.json' is neither a file nor a packaged procedure"),
        (WHOLE | {"detector.image_size": 48}, "=48: stage 'data' renders pictures of 32"),
        (WHOLE | {"procedure": "meccano"}, "stage 'data' renders the toy of procedure 'synthetic'"),
        (WHOLE | {"procedure": ""}, "--config.procedure='': name the product to render"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, str) else None,
)
def test_find_errors_says_what_and_what_to_do(rendered, tmp_path, changes, what):
    found = errors(rendered, tmp_path, **changes)
    assert any(what in text for text in found), found


def test_run_errors_come_before_anything_is_made(rendered, tmp_path):
    changes = {"data.dir": str(rendered / "data"), "stages": tiny().stages[1:]}
    with pytest.raises(ValueError, match="steps") as caught:
        main.run(tiny(**changes, **{f"{s}.steps": -1 for s in TRAINED}), tmp_path / "run")
    assert len(str(caught.value).splitlines()) == 4
    assert not (tmp_path / "run").exists()


def test_choices_are_those_that_the_code_knows():
    known = {
        "data.synthetic.world": worlds.WORLDS,
        "data.synthetic.occlusion": worlds.BENCH.hidden,
        "encoder.remat": vit.REMAT,
        "temporal_model.backbone": architectures.TEMPORAL,
        "evaluate.decoder": DECODERS,
    }
    for name, expected in known.items():
        assert set(config_flag.choices(config_flag.field_types()[name])) == set(expected), name


def test_compiled_programs_are_kept_for_the_user_unless_jax_was_told_where(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = jax.config.jax_compilation_cache_dir
    try:
        for told, kept in (("mine", "mine"), (None, str(tmp_path / "stormpsr_jax/compiled"))):
            jax.config.update("jax_compilation_cache_dir", told)
            run._keep_compiled()
            assert jax.config.jax_compilation_cache_dir == kept
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


@pytest.mark.usefixtures("system")
def test_what_is_wrong_with_what_is_to_be_rendered_ends_the_run_with_its_status(tmp_path, capfd):
    procedure = lantern.write(tmp_path)[1]
    (tmp_path / "empty").mkdir()
    words = ["--config=cad", f"--config.procedure={procedure}", f"--workdir={tmp_path / 'run'}"]
    with pytest.raises(SystemExit) as end:
        main.main([*words, f"--config.data.synthetic.meshes={tmp_path / 'empty'}"])
    assert end.value.code == 2
    assert f"error: {tmp_path / 'empty'}: no mesh for " in capfd.readouterr().err
