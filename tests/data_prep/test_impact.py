"""IMPACT: a part in transition is as before until that ends."""

from pathlib import Path

import numpy as np
import simplejpeg

from data_prep import impact
from stormpsr_jax.recordings.label_file import LabelPlace
from stormpsr_jax.recordings.procedure import load_procedure

PROCEDURE = load_procedure("impact")
ASSEMBLY = "20250407_1354_color_front_clipped"
DISASSEMBLY = "20250407_1345_color_front_clipped"
SPLITS = {ASSEMBLY: "train", DISASSEMBLY: "test"}
NUM_FRAMES = 12


def row(frame: int, rest: int, **others: int) -> str:
    """A line of PSR_labels_raw.csv: components k0, k1, … have values of their own."""
    state = [others.get(f"k{k}", rest) for k in range(PROCEDURE.num_components)]
    return f"{frame}.jpg,{','.join(map(str, state))}\n"


# A transition that ends, one that is broken off, a change without one, one that does not end.
RAW = {
    ASSEMBLY: row(0, 0, k3=-1)
    + row(2, 0, k1=-1, k3=-1)
    + row(4, 0, k1=1, k2=-1, k3=1)
    + row(6, 0, k1=1, k3=1)
    + row(8, 0, k1=1, k2=1, k3=1, k4=-1),
    DISASSEMBLY: row(0, 1) + row(3, 1, k0=-1) + row(7, 1, k0=0),
}
STEPS = {
    ASSEMBLY: "4.jpg,3,Install gearbox_housing\n",
    DISASSEMBLY: "3.jpg,2,Remove anti_vibration_handle\n",  # at its start, as shipped
}
WITH_ERRORS = {
    ASSEMBLY: "2.jpg,4,Incorrectly installed gearbox_housing\n" + STEPS[ASSEMBLY],
    DISASSEMBLY: "3.jpg,1,Incorrectly installed anti_vibration_handle\n",
}


def make_data(folder: Path) -> Path:
    """videos/<recording>/0.jpg … and psr/<split>/<recording>/PSR_labels*.csv."""
    for name, split in SPLITS.items():
        images = folder / "videos" / name
        images.mkdir(parents=True)
        for frame in range(NUM_FRAMES):
            grey = np.full((36, 64, 3), 20 * frame, np.uint8)
            (images / f"{frame}.jpg").write_bytes(simplejpeg.encode_jpeg(grey, 95))
        psr = folder / "psr" / split / name
        psr.mkdir(parents=True)
        (psr / "PSR_labels_raw.csv").write_text(RAW[name])
        (psr / "PSR_labels.csv").write_text(STEPS[name])
        (psr / "PSR_labels_with_errors.csv").write_text(WITH_ERRORS[name])
    return folder


def test_a_step_is_the_end_of_a_transition(tmp_path):
    data = make_data(tmp_path / "data")
    words = [f"--videos={data}/videos", f"--labels={data}/psr", f"--out={tmp_path}/out"]
    assert impact.main([*words, "--size=16", "--workers=1"]) == 0
    assert load_procedure(tmp_path / "out/procedure.json") == PROCEDURE
    stored = {
        name: LabelPlace(tmp_path / "out/labels" / split / name).read(
            PROCEDURE, PROCEDURE.variant_for(name)
        )
        for name, split in SPLITS.items()
    }
    assert stored[ASSEMBLY].steps == [(4, 3), (4, 9), (8, 6)]
    assert stored[DISASSEMBLY].steps == [(7, 2)]
    for name, known in stored.items():
        assert known.with_errors == known.steps, name  # no part is incorrect
        assert not (known.states == -1).any()
    assert stored[ASSEMBLY].frames.tolist() == [0, 4, 8]  # rows that change nothing are gone
