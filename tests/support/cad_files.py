"""A product of three boxes as STL, OBJ and GLB, with colours in poses.json."""

import json

import numpy as np

from data_prep.products.meshes import load_product
from stormpsr_jax.recordings.procedure import Procedure
from tests.support import toy
from tests.support.boxes import box

CONTENT = toy.content("base, front wheel, lid", "000 100 110 111")
PROCEDURE = Procedure.from_json(CONTENT)
PARTS = {
    "base.stl": box((0, 0, 0), (40, 30, 5)),
    "Front_wheel.obj": box((0, 0, 5), (10, 30, 15)),
    "2.glb": box((20, 0, 5), (40, 30, 15)),
}
COLOURS = {"base": "#ff0000", "front wheel": "#00ff00", "lid": [0, 0, 1]}


def write(folder):
    folder.mkdir(parents=True)
    for name, mesh in PARTS.items():
        mesh.export(folder / name)
    (folder / "poses.json").write_text(json.dumps({"colors": COLOURS}))
    return folder


def make_data(folder):
    """Meshes and their procedure, as the commands are given them."""
    write(folder / "meshes")
    (folder / "toy.json").write_text(json.dumps(CONTENT))


def product(folder, y_up=False):
    """What the commands make of a folder; parts without colours are grey."""
    return load_product(folder, PROCEDURE, [np.full(3, 0.5)] * 3, y_up=y_up)[0]


def arguments(meshes, out):
    """Of data_prep.synthetic, for a picture of each state."""
    (meshes.parent / "toy.json").write_text(json.dumps(CONTENT))
    basic = [f"--meshes={meshes}", f"--procedure={meshes.parent / 'toy.json'}", f"--out={out}"]
    counts = ["--train=0", "--val=0", "--test=0", "--cad_per_state=1", "--error_recordings=0"]
    return [*basic, *counts, "--size=16", "--workers=1"]
