import json
import shutil
import types

import numpy as np
import pytest

from stormpsr_jax.recordings.predictions import Detections
from stormpsr_jax.stages import evaluate
from stormpsr_jax.stages.context import Context
from stormpsr_jax.training.sharding import make_mesh
from tests.support.tiny import tiny


@pytest.mark.parametrize(
    ("settings", "changes", "share"),
    [
        ({}, {}, 0.5),
        ({"product_seed": 7}, {}, None),  # renders of CAD files show no camera's pictures
        ({"meshes": "0" * 64}, {}, None),
        ({}, {"stages": ("data", "temporal", "evaluate")}, None),
    ],
)
def test_a_model_knows_how_often_validation_recordings_show_its_product(
    rendered, tmp_path, settings, changes, share
):
    shutil.copytree(rendered / "data", tmp_path / "data")
    path = tmp_path / "data" / "settings.json"
    made = json.loads(path.read_text())
    path.write_text(json.dumps(made | {"settings": made["settings"] | settings}))
    context = Context(tiny(**changes), tmp_path, make_mesh(1, 1))
    val = {}
    recordings = context.source("val").recordings.items()
    for part, (name, recording) in zip((1.0, 0.5), recordings, strict=True):
        frames = np.arange(recording.num_frames)[: round(part * recording.num_frames)]
        sure = Detections(frames, np.full(len(frames), 2), np.full(len(frames), 0.9), None)
        val[name] = types.SimpleNamespace(detections=sure)
    assert evaluate._product_share(context, val) == (share and pytest.approx(share, abs=0.02))
