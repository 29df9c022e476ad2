"""Files that the tools themselves exported, with steps that are known.

`exported/label_studio*` are of Label Studio 1.23.2: the pre-labels of the demo, imported and taken
over; the second step was moved to frames 150 to 160 there. Task 2, `bench_02`, has the first three.
"""

import shutil
from pathlib import Path

import pytest

from stormpsr_jax.recordings import find
from stormpsr_jax.recordings.procedure import load_procedure

EXPORTED = Path(__file__).parent / "exported"
PROCEDURE = load_procedure("synthetic")
# Frames are numbered from 1 there.
NAMED = {101: "chassis", 147: "front wheels", 159: "rear wheels", 243: "cabin"}
CORRECTED = [(frame, 3 * PROCEDURE.components.index(part)) for frame, part in NAMED.items()]


@pytest.mark.parametrize("copies", [["project-1-at-2026"], ["demo", "bench_02"]])
def test_an_export_of_label_studio_has_the_corrected_steps_of_each_recording(tmp_path, copies):
    for copy in copies:
        shutil.copy(EXPORTED / "label_studio.json", tmp_path / f"{copy}.json")
    variant = PROCEDURE.variants["assembly"]
    steps = {
        name: place.read(PROCEDURE, variant, recording=name).steps
        for name, place in find.find(tmp_path).items()
    }
    assert steps["demo"][:4] == CORRECTED
    assert steps["bench_02"] == CORRECTED[:3]
    assert len(steps["demo"]) == 13
