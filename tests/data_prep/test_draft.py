"""`procedure draft` and `show --page`: a procedure from meshes, and a page of it."""

import base64
import io
import json
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from data_prep import draft
from stormpsr_jax import procedure as command
from stormpsr_jax.recordings.procedure import load_procedure
from tests.support.boxes import box, shell

PARTS = {
    "lid": box((0, 0, 30), (40, 40, 40)),
    "cup": shell((0, 0, 0), (40, 40, 30), 10),
    "peg": box((10, 10, 10), (30, 30, 30)),
    "foot": box((40, 10, 0), (50, 30, 10)),
}
COLOURS = {"lid": "#2030c0", "cup": "#c03020", "peg": "#20a030", "foot": "#808080"}


@pytest.fixture
def meshes(tmp_path):
    folder = tmp_path / "box"
    folder.mkdir()
    for name, mesh in PARTS.items():
        mesh.export(folder / f"{name}.obj")
    (folder / "poses.json").write_text(json.dumps({"colors": COLOURS}))
    return folder


def pictures(page):
    """Those of a page by what they show, as arrays (H, W, 3)."""
    found = re.findall(r'src="data:image/jpeg;base64,([^"]+)" alt="([^"]+)"', page)
    return [
        (alt, np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))).astype(int))
        for data, alt in found
    ]


def test_a_draft_has_parts_and_states_in_the_order_of_the_files_and_says_so(
    meshes, tmp_path, capsys
):
    out = tmp_path / "box.json"
    draft.main([f"--meshes={meshes}", f"--out={out}"])
    warning, said = capsys.readouterr().out.splitlines()
    assert warning.startswith("warning: the parts are built in the order of their files' names: ")
    assert said == f"{out}: a draft of 4 parts, 4 states"
    procedure = load_procedure(out)
    assert procedure.name == "box"
    assert procedure.components == ("cup", "foot", "lid", "peg")
    assert procedure.states.tolist() == np.tri(4, dtype=int).tolist()
    variant = procedure.variants["assembly"]
    assert variant.expected == (0, 3, 6, 9)
    assert variant.precedence == ()
    command.main(["check", str(out)])
    said = capsys.readouterr().out
    assert f"warning: {out}: draft: the parts are built in the order of" in said
    assert "is a draft: check what it says, then remove the key 'draft'" in said


def run(words, check):
    """As a process would."""
    del check
    assert words[:3] == [sys.executable, "-m", "data_prep.draft"]
    return SimpleNamespace(returncode=draft.main(words[3:]))


@pytest.mark.system
def test_a_page_shows_states_wrong_fittings_and_warnings(meshes, tmp_path, capsys, monkeypatch):
    """A draft that somebody has put in order, with another foot that looks the same."""
    PARTS["foot"].copy().apply_translation([-50, 0, 0]).export(meshes / "foot 2.obj")
    colours = {**COLOURS, "foot 2": COLOURS["foot"]}
    (meshes / "poses.json").write_text(json.dumps({"colors": colours}))
    out, page = tmp_path / "box.json", tmp_path / "box.html"
    draft.main([f"--meshes={meshes}", f"--out={out}"])
    names = ["cup", "peg", "lid", "foot", "foot 2"]
    out.write_text(json.dumps(json.loads(out.read_text()) | {"components": names}))
    capsys.readouterr()
    monkeypatch.setattr(subprocess, "run", run)
    command.main(["show", str(out), f"--meshes={meshes}", f"--page={page}"])
    warning, said = capsys.readouterr().out.splitlines()
    assert warning.startswith("warning: foot and foot 2 look the same")
    assert said == f"{page}: 5 parts, 5 states"
    text = page.read_text()
    assert text.index('id="warnings"') < text.index("foot and foot 2 look the same")
    shown = pictures(text)
    states = [image for alt, image in shown if alt.startswith("state ")]
    assert len(states) == 5
    assert sum(alt.endswith(", incorrect") for alt, _ in shown) == 5 * 6
    for number, image in enumerate(states):
        blue = image[..., 2] > image[..., :2].max(-1) + 40
        assert (blue.sum() > 50) == (number >= names.index("lid"))
    for name in names:
        right = next(image for alt, image in shown if alt == f"{name}, correct")
        wrong = [image for alt, image in shown if alt == f"{name}, incorrect"]
        assert min(np.abs(image - right).mean() for image in wrong) > 0.1
    assert "http" not in re.sub(r"base64,[^\"]+", "", text)
