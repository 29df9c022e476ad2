"""Files that the tools themselves exported, with steps that are known.

`exported/label_studio*` are of Label Studio 1.23.2: the pre-labels of the demo, imported and taken
over; the second step was moved to frames 150 to 160 there. Task 2, `bench_02`, has the first three.
"""

import shutil
from pathlib import Path

import pytest

from stormpsr_jax.psr.files import label_files
from stormpsr_jax.psr.procedure import load_procedure

EXPORTED = Path(__file__).parent / "exported"
# Frames are numbered from 1 there.
CORRECTED = [
    (101, "Install chassis"),
    (147, "Install front wheels"),
    (159, "Install rear wheels"),
    (243, "Install cabin"),
]


@pytest.mark.parametrize("copies", [["project-1-at-2026"], ["demo", "bench_02"]])
def test_an_export_of_label_studio_has_the_corrected_steps_of_each_recording(tmp_path, copies):
    procedure = load_procedure("synthetic")
    for copy in copies:
        shutil.copy(EXPORTED / "label_studio.json", tmp_path / f"{copy}.json")
    read = {
        recording: label_files.read(
            path, procedure, procedure.variants["assembly"], recording=recording
        ).steps
        for recording, path in label_files.find(tmp_path).items()
    }
    named = {
        recording: [(frame, procedure.step_name(step)) for frame, step in steps]
        for recording, steps in read.items()
    }
    assert named["demo"][:4] == CORRECTED
    assert named["bench_02"] == CORRECTED[:3]
    assert len(named["demo"]) == 13
