"""What is wrong with a run is said at once, all of it, each with its remedy."""

import json
import shutil
import time

import numpy as np
import pytest

from stormpsr_jax import main
from stormpsr_jax.configs import (
    general_encoder,
    industreal,
    meccano,
    synthetic,
    synthetic_full,
    synthetic_meccano,
)
from stormpsr_jax.psr.procedure import load_procedure
from stormpsr_jax.stages import checks, fields, provenance
from stormpsr_jax.stages.context import Context
from stormpsr_jax.training.sharding import make_mesh
from tests.support import arrays
from tests.support.arrays import filled
from tests.support.tiny import TRAINED, tiny

NO_RENDERS = {"detector.cad": 0.0, "detector.cad_wrong": 0.0, "detector.pose_loss": 0.0}


def mistakes(rendered, folder, **changes):
    """Of a run in an empty work folder on a tiny run's pictures, but for other `data.dir`."""
    changes = {"stages": tiny().stages[1:], "data.dir": str(rendered / "data"), **changes}
    return checks.find_mistakes(Context(tiny(**changes), folder, make_mesh(1, 1)))


def test_find_mistakes_none_in_a_good_run_within_seconds(rendered, tmp_path):
    start = time.monotonic()
    assert mistakes(rendered, tmp_path) == []
    assert time.monotonic() - start < 5
    assert mistakes(rendered, tmp_path, **{"stages": tiny().stages, "data.dir": ""}) == []


@pytest.mark.parametrize(
    ("config", "changes"),
    [
        (synthetic, {}),
        (synthetic_full, {}),
        (general_encoder, {}),
        (synthetic_meccano, {"data.synthetic.timelines": "labels"}),
    ],
)
def test_find_mistakes_none_in_the_configs_that_render(tmp_path, config, changes):
    config = config.get_config()
    config.update_from_flattened_dict(changes)
    assert checks.find_mistakes(Context(config, tmp_path, make_mesh(1, 1))) == []


def test_find_mistakes_all_fields_at_once(rendered, tmp_path):
    wrong = {
        "temporal.steps": 0,
        "pretrain.log_every": 0,
        "window.stride": 0,
        "embed.every": 0,
        "encoder.num_heads": -1,
        "encoder.depth": 2000,
        "encoder.stem": (24, -1),
        "data.workers": -5,
        "temporal.delta": float("nan"),
        "finetune.layer_decay": 0.0,
        "data.synthetic.cad_wrong": -1,
        "data.synthetic.pace": 0.5,
        "pretrain.key_frames": "any",
        "temporal_model.context_frames": -1,
        "temporal.state_loss": -0.5,
        "detector.background": 1.5,
        "detector.image_size": -1,
        "detector.grid": 0,
        "detector.cad_wrong": 1.01,
        "detector.part_loss": -1.0,
        "detector.pose_loss": float("inf"),
        "detector.optimizer.schedule": "linear",
        "temporal_model.dropout": 1.0,
        "evaluate.decay": -0.1,
        "evaluate.choose": "test",
        "evaluate.certain": 1.5,
        "dtype": "float16",
        "data.std": (0.2, 0.0, 0.2),
        "data.cad_std": (0.2, 0.0, 0.2),
        "temporal_model.baseline_width": -1,
        "pretrain.background_span": -2.0,
        "mesh.fsdp": 0,
    }
    found = mistakes(rendered, tmp_path, **wrong)
    assert len(found) == len(wrong)
    for field in wrong:
        assert any(text.startswith(f"--config.{field}=") for text in found), field
    wrong |= {"data.dir": str(tmp_path / "nothing"), "init_from": str(tmp_path / "no weights")}
    found = mistakes(rendered, tmp_path, **wrong)
    assert len(found) == len(wrong)
    assert any("nothing: no such folder" in text for text in found)
    assert any("no weights: no such file" in text for text in found)


@pytest.mark.parametrize("config", [meccano, industreal])
def test_find_mistakes_the_papers_configs_do_not_start_without_weights(tmp_path, config):
    context = Context(config.get_config(), tmp_path, make_mesh(1, 1))
    found = checks.find_mistakes(context)
    name = "vit_small_patch16_224.safetensors"
    assert [text for text in found if text.startswith(f"--config.init_from={name}: no such file")]
    from_scratch = config.get_config()
    from_scratch.init_from = ""
    found = checks.find_mistakes(Context(from_scratch, tmp_path, make_mesh(1, 1)))
    assert not [text for text in found if "init_from" in text]


def test_find_mistakes_renders_without_boxes(rendered, tmp_path):
    """As those of IndustReal in the layout that has none: the detector cannot learn from them."""
    folder = folder_without(rendered, tmp_path)
    arrays.rewrite(folder / "labels/cad.npz", classes=filled(..., -1))
    changes = {"data.dir": str(folder), "detector.cad": 0.5, "detector.cad_wrong": 0.5}
    (found,) = mistakes(rendered, tmp_path / "run", **changes)
    assert found.startswith(f"{folder}: no render shows a state with all parts right and a box")
    assert mistakes(rendered, tmp_path / "run", **changes | NO_RENDERS) == []


def test_ranges_every_number_of_the_config_has_one():
    without = [
        field
        for field, value in provenance.flat_config(tiny()).items()
        if isinstance(value, int | float)
        and not isinstance(value, bool)
        and not fields.wrong_with(field, -(10.0**12))
    ]
    assert not without


def folder_without(rendered, tmp_path, *splits):
    """The data folder, as if some splits had never been made."""
    folder = tmp_path / "data"
    shutil.copytree(rendered / "data", folder)
    settings = json.loads((folder / "settings.json").read_text())
    for split in splits:
        del settings["splits"][split]
        (folder / "labels" / f"{split}.npz").unlink()
        shutil.rmtree(folder / "labels" / split)
    (folder / "settings.json").write_text(json.dumps(settings))
    return folder


def test_find_mistakes_missing_splits_are_named_before_training(rendered, tmp_path):
    folder = folder_without(rendered, tmp_path, "test", "cad")
    found = mistakes(rendered, tmp_path / "run", **{"data.dir": str(folder)})
    assert any("no split 'test'" in text for text in found)
    assert any("has no split 'cad'" in text and "--config.data.cad_dir" in text for text in found)


def test_find_mistakes_missing_boxes(rendered, tmp_path):
    folder = folder_without(rendered, tmp_path)
    arrays.rewrite(folder / "labels/val.npz", classes=filled(..., -1))
    (found,) = mistakes(rendered, tmp_path / "run", **{"data.dir": str(folder)})
    assert "split 'val' has no box" in found
    assert "drop 'detector' from stages" in found


def test_find_mistakes_renders_of_parts_that_sit_wrong(rendered, tmp_path):
    """Where none shows any, the detector cannot learn from them."""
    folder = folder_without(rendered, tmp_path)
    arrays.rewrite(folder / "labels/cad.npz", states=np.abs)
    changes = {"data.dir": str(folder)}
    assert mistakes(rendered, tmp_path / "run", **changes, **{"detector.cad_wrong": 0.0}) == []
    (text,) = mistakes(rendered, tmp_path / "run", **changes)
    assert text.startswith(f"{folder}: no render shows a part that sits wrong")
    assert "data_prep.cad --wrong=N" in text
    # Without the detector nobody asks for them.
    stages = tuple(s for s in tiny().stages[1:] if s not in ("detector", "fuse"))
    assert mistakes(rendered, tmp_path / "run", **changes, stages=stages) == []


@pytest.mark.parametrize("known", ["none", "not stored"])
def test_find_mistakes_renders_that_do_not_tell_how_the_product_lies(rendered, tmp_path, known):
    """As those of earlier versions, and IndustReal's."""
    folder = folder_without(rendered, tmp_path)
    change = filled(..., np.nan) if known == "none" else None
    arrays.rewrite(folder / "labels/cad.npz", poses=change)
    changes = {"data.dir": str(folder)}
    (text,) = mistakes(rendered, tmp_path / "run", **changes)
    assert text.startswith(
        f"{folder}: no render tells how the product lies in it, which detector.p"
    )
    assert mistakes(rendered, tmp_path / "run", **changes, **{"detector.pose_loss": 0.0}) == []


def test_find_mistakes_renders_of_which_all_show_wrong_parts(rendered, tmp_path):
    """Where none is plain, neither the detector nor pre-training can draw a plain one."""
    folder = folder_without(rendered, tmp_path)
    error = load_procedure("synthetic").error_class
    classes = lambda old: np.where(old > 0, error, old)  # noqa: E731
    states = filled((slice(None), 0), -1)
    arrays.rewrite(folder / "labels/cad.npz", states=states, classes=classes)
    changes = {"data.dir": str(folder), "pretrain.cad_per_state": 0}
    (text,) = mistakes(rendered, tmp_path / "run", **changes)
    assert text.startswith(f"{folder}: no render shows a state with all parts right")
    assert "data_prep.cad --per_state=N" in text
    assert mistakes(rendered, tmp_path / "run", **changes, **{"detector.cad_wrong": 1.0}) == []
    assert mistakes(rendered, tmp_path / "run", **changes, **NO_RENDERS) == []
    both = mistakes(rendered, tmp_path / "run", **changes | {"pretrain.cad_per_state": 1})
    assert len(both) == 2
    assert any("pretrain.cad_per_state=1, but the shards have no CAD" in text for text in both)


def test_a_threshold_is_refused_where_thresholds_are_chosen(rendered, tmp_path):
    (text,) = mistakes(rendered, tmp_path, **{"evaluate.threshold": 8.0})
    assert text.startswith("--config.evaluate.threshold=8.0: with evaluate.choose='validation'")
    (text,) = mistakes(
        rendered, tmp_path, **{"evaluate.install_margin": 2, "evaluate.choose": "paper"}
    )
    assert text.startswith(
        "--config.evaluate.install_margin=2: is added to what validation chooses"
    )
    fixed = {"evaluate.threshold": 8.0, "evaluate.choose": "paper"}
    assert mistakes(rendered, tmp_path, **fixed) == []


def test_find_mistakes_renders_of_which_none_is_to_be_plain(rendered, tmp_path):
    whole = {"stages": tiny().stages, "data.dir": "", "data.synthetic.cad_per_state": 0}
    (text,) = mistakes(rendered, tmp_path, **whole)
    assert text.startswith("--config.data.synthetic.cad_per_state=0: pretrain.cad_per_state and")
    (text,) = mistakes(rendered, tmp_path, **whole, **{"detector.cad_wrong": 1.0})
    assert text.startswith("--config.data.synthetic.cad_per_state=0: pretrain.cad_per_state and")
    whole["pretrain.cad_per_state"] = 0
    assert len(mistakes(rendered, tmp_path, **whole)) == 1
    assert mistakes(rendered, tmp_path, **whole, **{"detector.cad_wrong": 1.0}) == []
    assert mistakes(rendered, tmp_path, **whole, **NO_RENDERS) == []


def test_find_mistakes_shares_of_the_detector_s_batch(rendered, tmp_path):
    fields = {"detector.background": 0.3, "detector.unboxed_share": 0.3, "detector.cad": 0.4}
    assert mistakes(rendered, tmp_path, **fields) == []
    (text,) = mistakes(rendered, tmp_path, **fields | {"detector.unboxed_share": 0.4})
    assert text.endswith("are shares of a batch, and 1.1 is more than all of it")
    (text,) = mistakes(rendered, tmp_path, **fields | {"detector.part_loss": 0.0})
    assert text.startswith(
        "--config.detector.part_loss=0.0: it alone learns from detector.unboxed_sh"
    )


def test_find_mistakes_shares_of_renders_that_there_are_none_of(rendered, tmp_path):
    cad, pose = mistakes(rendered, tmp_path, **{"detector.cad": 0.0})
    assert cad.startswith("--config.detector.cad=0.0: detector.cad_wrong is a share of the CAD")
    assert pose.startswith("--config.detector.pose_loss=5.0: how the product lies is learnt from")
    off = {"detector.cad_wrong": 0.0}
    assert mistakes(rendered, tmp_path, **off, **{"detector.cad": 0.0}) == [pose]
    assert mistakes(rendered, tmp_path, **NO_RENDERS) == []
    whole = {"stages": tiny().stages, "data.dir": "", "data.synthetic.cad_wrong": 0}
    (text,) = mistakes(rendered, tmp_path, **whole)
    assert text.startswith("--config.data.synthetic.cad_wrong=0: detector.cad_wrong needs renders")
    assert mistakes(rendered, tmp_path, **whole, **off) == []


def test_find_mistakes_a_control_that_sees_more_than_there_is(rendered, tmp_path):
    assert mistakes(rendered, tmp_path, **{"temporal_model.context_frames": 5}) == []
    (text,) = mistakes(rendered, tmp_path, **{"temporal_model.context_frames": 6})
    assert text.startswith(
        "--config.temporal_model.context_frames=6 is more than the 5 frames of a clip"
    )


def test_find_mistakes_a_pace_of_timelines_that_have_one(tmp_path):
    played = {"procedure": "meccano", "data.synthetic.timelines": "labels"}
    changes = {**played, "data.synthetic.pace": 2.0}
    (text,) = checks.find_mistakes(Context(tiny(**changes), tmp_path, make_mesh(1, 1)))
    assert text.startswith("--config.data.synthetic.pace=2.0 is for made-up timelines")
    changes = {**played, "data.synthetic.error_recordings": 2}
    (text,) = checks.find_mistakes(Context(tiny(**changes), tmp_path, make_mesh(1, 1)))
    assert text.startswith("--config.data.synthetic.error_recordings=2 are made up")


def test_find_mistakes_classes_of_another_catalogue(rendered, tmp_path):
    folder = folder_without(rendered, tmp_path)
    arrays.rewrite(folder / "labels/train.npz", classes=filled(0, 99))
    (found,) = mistakes(rendered, tmp_path / "run", **{"data.dir": str(folder)})
    assert "classes up to 99" in found


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"data.dir": "/nowhere"}, "--config.data.dir=/nowhere: no such folder"),
        ({"window.frames": 17}, "window.frames=17 is not a multiple of window.stride=4"),
        ({"window.frames": 20_000}, "make clips of 5,001 frames, more than the 4,096 that a model"),
        ({"window.frames": 4000}, "no window lies within one; lower window.frames"),
        ({"encoder.patch_size": 12}, "the next sizes that fit are 24 and 36"),
        ({"encoder.image_size": 20}, "20x20 (HxW) do not divide by 8, as the encoder"),
        ({"detector.image_size": 30}, "30x30 (HxW) do not divide by 4, as the detector needs"),
        ({"detector.image_size": 64}, "its pictures are 32x32 pixels (HxW), which --config.detec"),
        ({"encoder.image_size": 40}, "make the folder again with --size=40 or more, or set"),
        ({"data.detector_dir": "/nowhere"}, "--config.data.detector_dir=/nowhere: is no finished"),
        (
            {"stages": tiny().stages, "data.dir": "", "detector.image_size": 48},
            "--config.detector.image_size=48: stage 'data' renders pictures of 32",
        ),
        ({"encoder.num_heads": 3}, "width 16 is not divisible by num_heads 3"),
        ({"encoder.microbatches": 7}, "cannot be cut into encoder.microbatches=7 equal parts"),
        ({"init_from": "/x.safetensors"}, "--config.init_from=/x.safetensors: no such file"),
        ({"init_from": "general_encoder"}, "general_encoder.safetensors"),
        ({"pretrain.n_states": 99}, "pretrain.n_states=99, but only"),
        ({"data.cad_mean": ()}, "--config.data.cad_mean=(), .cad_std=(0.25, 0.25, 0.25): give"),
        (
            {"pretrain.backgrounds": 2, "pretrain.background_gap": 500.0},
            "pretrain.backgrounds=2, but no frame lies pretrain.background_gap before",
        ),
        ({"stages": ("predict", "evaluate")}, "neither 'detector' nor 'temporal'"),
        ({"stages": ("embed", "temporal")}, "stage 'embed' takes the result of 'pretrain'"),
        ({"stages": ("train",)}, "stages names ['train']; known are data, general"),
        ({"stages": ("embed", "pretrain")}, "out of order, or given twice; write pretrain, embed"),
        ({"predict.splits": ("val",)}, "predict.splits lacks test"),
        (
            {"stages": tiny().stages, "data.dir": "", "procedure": "meccano"},
            "--config.procedure=meccano: stage 'data' renders the toy of procedure 'synthetic'",
        ),
        (
            {"stages": ("data", "general"), "data.dir": "", "data.synthetic.objects.train": 9},
            "--config.data.synthetic.objects.val=0: the stages need at least one",
        ),
        (
            {"stages": ("data", "general"), "data.dir": "", "data.synthetic.objects.train": 7},
            "--config.general.objects=8: a batch has so many different objects, and split 'train'",
        ),
        (
            {"stages": ("data", "general"), "data.dir": "", "data.synthetic.objects.train": 9},
            "--config.data.synthetic.seed=0: random objects have seeds from 1000000000 on",
        ),
        (
            {"stages": tiny().stages, "data.dir": "", "data.synthetic.seed": 10**9},
            "--config.data.synthetic.seed=1000000000: recordings have seeds below 1000000000",
        ),
        ({"stages": ("general",), "general.objects": 4}, "split 'train' has 3; lower it"),
        ({"predict.splits": ()}, "--config.predict.splits=(): names no split to predict"),
        ({"procedure": "meccano"}, "made for procedure 'synthetic', do not fit"),
        ({"procedure": "/no.json"}, "'/no.json' is neither a file nor a packaged procedure"),
        (
            {"temporal.optimizer.schedule": "restarts"},
            "--config.temporal.optimizer.schedule=restarts: set .restart_steps",
        ),
        (
            {"stages": tiny().stages, "data.dir": "", "data.synthetic.recordings.val": 0},
            "--config.data.synthetic.recordings.val=0",
        ),
        (
            {"stages": tiny().stages, "data.dir": "", "data.synthetic.size": 36},
            "the next sizes that fit are 32 and 40",
        ),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, str) else None,
)
def test_find_mistakes_says_what_and_what_to_do(rendered, tmp_path, changes, what):
    found = mistakes(rendered, tmp_path, **changes)
    assert any(what in text for text in found), found


def test_run_errors_come_before_anything_is_made(rendered, tmp_path):
    changes = {"data.dir": str(rendered / "data"), "stages": tiny().stages[1:]}
    with pytest.raises(ValueError, match="steps") as caught:
        main.run(tiny(**changes, **{f"{s}.steps": -1 for s in TRAINED}), tmp_path / "run")
    assert len(str(caught.value).splitlines()) == 4
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["lock"]
