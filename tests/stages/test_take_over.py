"""Stages of another work folder: what would come out the same is taken over, and nothing else."""

import json
import os
import shutil

import pytest

from stormpsr_jax import main
from stormpsr_jax.stages import embed, order, pretrain, provenance, take_over
from stormpsr_jax.stages.context import Context
from tests.support.tiny import TRAINED, tiny

STAGES = ("pretrain", "embed", "temporal", "finetune", "detector", "predict")


@pytest.fixture
def other(finished, tmp_path):
    """A copy of a finished run that a test may damage."""
    shutil.copytree(finished, tmp_path / "other")
    return tmp_path / "other"


def taken(workdir, other, **changes):
    """The stages that a run of a changed config takes over."""
    workdir.mkdir()
    context = Context(tiny(**{"data.dir": str(other / "data"), **changes}), workdir, mesh=None)
    return [
        stage.name
        for stage in order.chosen(context.config)
        if take_over.take(context, stage, [workdir.parent / "absent", other]) == other
    ]


@pytest.mark.parametrize(
    ("changes", "stages"),
    [
        ({}, [*STAGES, "product_gate", "fuse"]),
        ({"temporal_model.context_frames": 1}, ["pretrain", "embed", "detector"]),
        ({"temporal.sampling": "uniform"}, ["pretrain", "embed", "detector"]),
        ({"detector.cad_wrong": 0.2}, ["pretrain", "embed", "temporal", "finetune"]),
        ({"pretrain.t_f": 9.0}, ["detector"]),
        ({"seed": 1}, []),
        (
            {"embed.batch": 32},
            [*STAGES, "product_gate", "fuse"],
        ),  # how it goes
    ],
)
def test_a_run_takes_over_the_stages_that_would_come_out_the_same(tmp_path, other, changes, stages):
    assert taken(tmp_path / "run", other, **changes) == stages


def test_a_stage_is_another_one_if_what_it_reads_is(tmp_path, other):
    path = other / "pretrain" / provenance.DONE
    record = json.loads(path.read_text())
    record["results"]["pretrain/best.safetensors"] = "0"
    path.write_text(json.dumps(record))
    assert taken(tmp_path / "run", other) == ["pretrain", "detector"]


def test_a_stage_that_the_run_has_begun_stays(tmp_path, other):
    (tmp_path / "run" / "pretrain").mkdir(parents=True)
    context = Context(tiny(**{"data.dir": str(other / "data")}), tmp_path / "run", mesh=None)
    assert take_over.take(context, pretrain.STAGE, [other]) is None
    # And what reads it does not come before it.
    assert take_over.take(context, embed.STAGE, [other]) is None


def test_a_later_run_does_not_spoil_what_was_taken_over(tmp_path, other):
    taken(tmp_path / "run", other)
    known = {path: path.read_bytes() for path in other.rglob("*") if path.is_file()}
    context = Context(tiny(**{"data.dir": str(other / "data")}), tmp_path / "run", mesh=None)
    for stage in order.chosen(context.config):
        provenance.clear(context, stage)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["checksums.json"]
    assert {path: path.read_bytes() for path in known} == known


def test_main_takes_over_what_it_would_make_and_makes_what_is_damaged(tmp_path, other, capfd):
    path = other / "embed" / "val"
    next(path.iterdir()).write_bytes(b"damaged")
    config = tiny(**{"data.dir": str(other / "data"), "stages": ("pretrain", "embed")})
    main.run(config, tmp_path / "run", others=[other])
    said = capfd.readouterr().out
    assert f"pretrain: taken over from {other}\npretrain: done before\n" in said
    assert f"embed: taken over from {other}\nembed: made again (embed/val/" in said
    made = {p.name: p.read_bytes() for p in (tmp_path / "run" / "embed" / "val").iterdir()}
    main.run(config, tmp_path / "alone", others=[])
    assert made == {p.name: p.read_bytes() for p in (tmp_path / "alone/embed/val").iterdir()}


@pytest.mark.parametrize("kind", ["loop", "pipe", "device", "nowhere", "deep"])
def test_a_stage_with_what_has_no_end_in_it_is_not_taken_over(tmp_path, other, kind):
    place = other / "pretrain" / "odd"
    if kind == "loop":
        place.symlink_to(".")
    elif kind == "pipe":
        os.mkfifo(place)
    elif kind == "device":
        place.symlink_to("/dev/zero")
    elif kind == "nowhere":
        place.symlink_to("nowhere")
    else:
        (place / "/".join("a" * 40)).mkdir(parents=True)
    with pytest.raises(ValueError, match=rf"^{place}.*: is a link to a folder, no regular file"):
        taken(tmp_path / "run", other)
    assert not list((tmp_path / "run").glob("pretrain*"))


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match="nowhere: no such work folder"):
        main.run(tiny(), tmp_path / "run", others=[tmp_path / "nowhere"])
    assert set(TRAINED) < set(tiny().stages)
