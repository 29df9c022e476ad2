import json
import shutil
import types

import numpy as np
import pytest

from stormpsr_jax import recognise
from stormpsr_jax.base import files
from stormpsr_jax.demo import MODEL, VIDEO
from stormpsr_jax.serving import options
from stormpsr_jax.serving.product_gate_own import gate_of
from tests.support import recognise_data
from tests.support.commands import refused

pytest.importorskip("av")


@pytest.fixture(scope="module")
def blind(system, tmp_path_factory):
    """The demo's model, as if it had seen renders alone: it tells nothing."""
    folder = tmp_path_factory.mktemp("models") / "blind"
    shutil.copytree(MODEL, folder)
    model = files.read_json(MODEL / "model.json")
    del model["checksum"]
    files.write_json(folder / "model.json", model | {"fits": None})
    return folder


def fits(out):
    return json.loads((out / "demo" / "record.json").read_text())["fits"]


def test_a_model_that_cannot_tell_refuses_nothing_until_it_has_seen_own_videos(
    blind, tmp_path, capsys
):
    own = tmp_path / "own"
    own.mkdir()
    for name in "abc":
        shutil.copy(VIDEO, own / f"{name}.mp4")
    out, words = tmp_path / "out", [f"--model={blind}", "demo", f"--out={tmp_path / 'out'}"]
    assert recognise.main(words) == 0
    assert "--own=VIDEOS teaches it" in capsys.readouterr().err
    assert fits(out) is None
    assert recognise.main([*words, f"--own={own}"]) == 0
    assert fits(out) is True
    assert recognise.main([*words, f"--own={own}"]) == 0
    assert "finished before" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("count", "copies", "said"),
    [
        (3, 0, "too little of the product in 0, 1, 2 to tell it"),
        (1, 2, "too little of the product in 0 to tell it"),  # it would refuse further ones, too
        (1, 0, "1 videos are too few; give at least 3"),
    ],
)
def test_own_videos_that_are_few_or_without_the_product_are_refused(
    blind, tmp_path, capsys, count, copies, said
):
    own = tmp_path / "own"
    for i in range(count):
        noise = np.random.default_rng(i).integers(0, 256, (60, 64, 64, 3), np.uint8)
        recognise_data.write_video(own / f"{i}.mp4", noise, np.arange(60) / 3)
    for name in "ab"[:copies]:
        shutil.copy(VIDEO, own / f"{name}.mp4")
    words = [f"--model={blind}", "demo", f"--out={tmp_path / 'out'}", f"--own={own}"]
    assert said in refused(capsys, recognise.main, words, lines=None)


def test_an_encoder_alone_is_not_asked_what_the_product_is(capsys):
    """It finds other products as familiar as its own."""
    model = types.SimpleNamespace(tells=False, streams=("temporal",))
    assert options.with_own(model, "runs/pump", None) is model
    assert "show its product, without a detector" in capsys.readouterr().err
    with pytest.raises(ValueError, match="no detector, and an encoder alone cannot tell"):
        gate_of(model, ["a", "b", "c"])
