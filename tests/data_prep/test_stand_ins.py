"""Layouts of the downloads, as ../shared/make_stand_ins.py writes them, with its own classes.

That script was written from what is known of the real files, and not by who wrote the readers.
"""

import functools
import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from data_prep import industreal
from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.recordings.procedure import load_procedure

SCRIPT = Path(__file__).parents[2] / "../shared/make_stand_ins.py"
pytestmark = pytest.mark.skipif(not SCRIPT.exists(), reason="needs ../shared/make_stand_ins.py")


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory) -> Path:
    spec = importlib.util.spec_from_file_location("make_stand_ins", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    picture, mp4 = script.picture, script.mp4
    # A quarter as wide and high, which changes no label; recordings have the same ones.
    script.picture = functools.cache(
        lambda size, *args, **kwargs: picture((size[0] // 4, size[1] // 4), *args, **kwargs)
    )
    script.mp4 = lambda jpegs, size, fps: mp4(jpegs, (size[0] // 4, size[1] // 4), fps)
    folder = tmp_path_factory.mktemp("stand_ins")
    script.make_industreal(folder)
    script.make_meccano(folder)
    for path in folder.glob("*/*.zip"):  # as docs/research.md says
        inside = path.parent / ("." if path.parent.name == "meccano" else path.stem)
        shutil.unpack_archive(path, inside)
    return folder


@pytest.mark.parametrize(
    "layout",
    ["industreal_zips", "industreal_zips_no11", "industreal_flat", "recordings"],
)
def test_every_box_of_industreal_has_the_expected_class(stand_ins, tmp_path, layout, caplog):
    caplog.set_level("INFO", logger="absl")
    expected = json.loads((stand_ins / "expected.json").read_text())
    if layout in ("industreal_zips_no11", "industreal_flat"):
        del expected["11_assy_0_1"]
    out = tmp_path / "out"
    flags = [f"--data={stand_ins / layout}", f"--out={out}", "--size=32", "--workers=1"]
    assert industreal.main(flags) == 0
    procedure = load_procedure("industreal")
    found, agreeing = {}, 0
    for split in ("train", "val", "test"):
        for name, recording in ClipSource(out, split, procedure).recordings.items():
            first = recording.first_frame
            boxed = np.flatnonzero(recording.classes >= 0)
            classes = {str(first + i): int(recording.classes[i]) for i in boxed}
            found[name] = {
                "first": first,
                "frames": recording.num_frames,
                "classes": classes,
                "split": split,
            }
            agreeing += len(classes) + (name == "03_assy_0_1")  # which has two in a frame
    assert found == expected
    assert f"{agreeing} of {agreeing} boxes agree with the step labels" in caplog.messages
