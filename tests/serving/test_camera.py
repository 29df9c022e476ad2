"""A model for a camera, by films without labels."""

import shutil

import numpy as np
import pytest

from stormpsr_jax import camera, demo, recognise
from stormpsr_jax.base import files
from stormpsr_jax.serving.content import MODEL, with_checksum
from stormpsr_jax.serving.folder import load_model


@pytest.fixture(scope="module")
def model(system, tmp_path_factory):
    """The demo's model, as if it had seen renders alone and their correct parts lay at 9."""
    folder = shutil.copytree(demo.MODEL, tmp_path_factory.mktemp("models") / "model")
    data = files.read_json(folder / MODEL)
    data |= {"right_level": [9.0] * len(data["procedure"]["components"]), "product_share": None}
    files.write_json(folder / MODEL, with_checksum(data))
    return folder


def test_films_without_labels_fit_a_model_to_their_camera(model, tmp_path, capsys):
    out = tmp_path / "camera"
    camera.main([f"--model={model}", str(demo.VIDEO), f"--out={out}"])
    assert "wrote" in capsys.readouterr().out
    added = np.array(load_model(out).settings("learned").camera)
    assert (added > 0).sum() >= 6
    for folder in (model, out):
        events, made = tmp_path / f"{folder.name}_out/demo/events.jsonl", set()
        for _ in range(2):  # the second time it is there already
            argv = [str(demo.VIDEO), f"--model={folder}", f"--out={events.parents[1]}"]
            assert recognise.main(argv) == 0
            said = capsys.readouterr()
            made.add(events.stat().st_mtime_ns)
        assert ("not calibrated for this camera" in said.err) == (folder == model)
        assert len(made) == 1


@pytest.mark.parametrize(
    ("what", "words"),
    [("demo", "does not say where correct parts lie"), ("there", "is there already")],
)
def test_what_cannot_be_made_is_a_line(model, tmp_path, capsys, what, words):
    given = demo.MODEL if what == "demo" else model
    out = tmp_path if what == "there" else tmp_path / "out"
    with pytest.raises(SystemExit) as ended:
        camera.main([f"--model={given}", str(demo.VIDEO), f"--out={out}"])
    assert ended.value.code == 2
    assert words in capsys.readouterr().err
