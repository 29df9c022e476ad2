"""The benchmark of exports: what it compares, and that it goes on where it was ended."""

import numpy as np
import pytest

from benchmarks import exported_events
from stormpsr_jax.serving.model import load_model
from tests.support.exported import in_form
from tests.support.model_data import SIZE, video

ROWS = list(video(30, *SIZE))


@pytest.fixture(scope="module")
def models(system, tmp_path_factory):
    forms = {"jax": "weights", "onnx": "onnx", "int8": "int8"}
    return {name: load_model(in_form(tmp_path_factory, form)) for name, form in forms.items()}


def test_forms_are_compared_by_events_outputs_and_scores(models, tmp_path):
    truth = tmp_path / "a_up.csv"
    truth.write_text("time,step\n0.5,Install seal\n1.0,Install cover\n1.5,Install screw\n")
    done = {"a_up": exported_events.compare(models, "a_up", ROWS, truth)}
    ours, onnx, int8 = (done["a_up"][form] for form in models)
    assert ours["differs"] == 0 < onnx["differs"] < int8["differs"]
    events = [(e.frame, e.step_id) for e in models["jax"].recognise(iter([np.stack(ROWS)]),
                                                                   variant="assembly")]  # fmt: skip
    stream = models["jax"].default_stream
    assert ours["streams"][stream]["events"] == events != []
    assert onnx["streams"][stream]["f1"] == ours["streams"][stream]["f1"]
    rows = exported_events.table(done)
    assert len(rows) == 2 + len(models) * len(models["jax"].streams)


def test_what_differs_is_counted_and_said(models, tmp_path):
    """Another step, and the same one two frames later, are not what the model itself found."""
    ours = [(3, 0), (9, 3), (14, 6)]
    assert exported_events._apart(ours, ours) == (0, 0)
    assert exported_events._apart(ours, [(3, 0), (11, 3)]) == (1, 2)
    scores = {"pos": 0.9, "f1": 0.9, "delay_s": 1.0}
    same = {"events": ours, "others": 0, "frames": 0, **scores}
    done = {
        form: {"differs": differs, "streams": {"asd": same | change}}
        for form, differs, change in (
            ("jax", 0.0, {}),
            ("onnx", 2e-5, {}),
            ("int8", 0.1, {"frames": 2, "delay_s": 1.09}),
            ("stablehlo", 0.0, {"others": 1}),
        )
    }
    met = [row.split(" | ")[-1] for row in exported_events.table({"a": done})[2:]]
    assert met == [" |", "NO |", "yes |", "NO |"]
    done["int8"]["streams"]["asd"]["delay_s"] = 1.2
    assert exported_events.table({"a": done})[4].endswith("| NO |")
