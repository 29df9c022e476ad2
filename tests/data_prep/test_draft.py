"""`procedure draft`: a procedure from meshes, and a page of it."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from stormpsr_jax import procedure as command
from stormpsr_jax.psr.procedure import load_procedure
from tests.support.boxes import box, shell
from tests.support.commands import refused

PARTS = {
    "lid": box((0, 0, 30), (40, 40, 40)),
    "cup": shell((0, 0, 0), (40, 40, 30), 10),
    "peg": box((10, 10, 10), (30, 30, 30)),
    "foot": box((40, 10, 0), (50, 30, 10)),
}
COLOURS = {"lid": "#2030c0", "cup": "#c03020", "peg": "#20a030", "foot": "#808080"}

pytestmark = pytest.mark.usefixtures("read_here")


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


def test_a_draft_is_a_procedure_that_is_told_to_be_one(meshes, tmp_path, capsys):
    out, page = tmp_path / "box.json", tmp_path / "box.html"
    command.main(["draft", f"--meshes={meshes}", f"--out={out}", f"--page={page}"])
    assert capsys.readouterr().out == f"{out}: a draft of 4 parts, 7 states\n"
    procedure = load_procedure(out)
    assert procedure.name == "box"
    assert sorted(procedure.components) == sorted(PARTS)
    variant = procedure.variants["assembly"]
    names = procedure.components
    rules = {tuple(names[step // 3] for step in pair) for pair in variant.precedence}
    assert rules == {("cup", "peg"), ("peg", "lid")}
    assert {step % 3 for step in variant.expected} == {0}
    assert {step // 3 for step in variant.possible if step % 3 == 2} == {0, 1, 2, 3}
    installed = {
        frozenset(name for name, bit in zip(names, row, strict=True) if bit)
        for row in procedure.states
    }
    alone = [set(), {"cup"}, {"cup", "peg"}, {"cup", "peg", "lid"}]
    assert installed == {frozenset(s | f) for s in alone for f in (set(), {"foot"})} - {frozenset()}
    command.main(["check", str(out)])
    said = capsys.readouterr().out
    assert "is a draft: check what it says, then remove the key 'draft'" in said
    text = page.read_text()
    shown = pictures(text)
    states = [image for alt, image in shown if alt.startswith("state ")]
    assert len(states) == 7
    assert sum(alt.endswith(", incorrect") for alt, _ in shown) == 4 * 6
    for row, image in zip(procedure.states, states, strict=True):
        blue = image[..., 2] > image[..., :2].max(-1) + 40
        assert (blue.sum() > 50) == bool(row[names.index("lid")])
    for name in names:
        right = next(image for alt, image in shown if alt == f"{name}, correct")
        wrong = [image for alt, image in shown if alt == f"{name}, incorrect"]
        assert min(np.abs(image - right).mean() for image in wrong) > 0.3
    assert "it lies on cup" in text
    assert "http" not in re.sub(r"base64,[^\"]+", "", text)


def test_what_is_doubtful_is_in_the_draft_and_on_the_page(meshes, tmp_path, capsys):
    """Steps in which the lid is there before the peg, and two feet that look the same."""
    PARTS["foot"].copy().apply_translation([-50, 0, 0]).export(meshes / "foot 2.obj")
    colours = {**COLOURS, "foot 2": COLOURS["foot"]}
    (meshes / "poses.json").write_text(json.dumps({"colors": colours}))
    steps = [["cup"], ["lid", "foot"], ["peg", "foot 2"]]
    (meshes / "order.json").write_text(json.dumps(steps))
    out, page = tmp_path / "box.json", tmp_path / "box.html"
    command.main(["draft", f"--meshes={meshes}", f"--out={out}", f"--page={page}", "--states=6"])
    warnings = [
        line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")
    ]
    content = json.loads(out.read_text())
    assert [f"warning: {line}" for line in content["draft"]] == warnings
    for expected in (
        "variant assembly: peg would have to pass through another part",
        "foot and foot 2 look the same",
        "of 7 states are catalogued, those of some orders",
    ):
        assert sum(expected in line for line in warnings) == 1
    assert content["components"][0] == "cup"
    assert set(content["components"][1:3]) == {"lid", "foot"}
    assert len(content["states"]) <= 6
    text = page.read_text()
    assert text.index('id="warnings"') < text.index("foot and foot 2 look the same")
    command.main(["check", str(out)])
    said = capsys.readouterr().out
    assert f"warning: {out}: draft: foot and foot 2 look the same" in said
    # Another look after the draft was put right.
    command.main(["show", str(out), f"--meshes={meshes}", f"--page={tmp_path / 'again.html'}"])
    said = capsys.readouterr().out
    assert "warning: foot and foot 2 look the same" in said
    assert "warning: states: peg would have to pass through another part" in said
    assert len(pictures((tmp_path / "again.html").read_text())) == 5 * 7 + len(content["states"])


@pytest.mark.parametrize(
    ("order", "flags", "expected"),
    [
        ("[1]", [], "order.json: is not a list of steps such as"),
        ('[["cup", "roof"]]', [], "order.json: 'roof' has no mesh; there are cup, foot, lid, peg"),
        ('[["cup", "cup"]]', [], "order.json: 'cup' is there twice"),
        ('[["cup"], ["peg"]]', [], "order.json: foot, lid are in no step"),
        (None, ["--meshes=nothing"], "--meshes=nothing: no such folder"),
        (None, ["--meshes=."], "holds no mesh (.stl, .obj"),
        (None, ["--states=3"], "--states=3: the order of 4 parts has as many states"),
        (None, ["--fps=0"], "fps: 0.0 is not in"),
        (None, ["--out=there.json"], "--out=there.json: is there already"),
    ],
)
def test_what_is_wrong_is_one_line(meshes, tmp_path, order, flags, expected, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.json").touch()
    if order:
        (meshes / "order.json").write_text(order)
    arguments = ["draft", "--out=x.json", "--meshes=box", *flags]
    assert expected in refused(capsys, command.main, arguments)
    assert not (tmp_path / "x.json").exists()
