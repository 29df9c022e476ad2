"""Right files that do not belong together are said, and no score is given in silence."""

import json
import re

import pytest

from stormpsr_jax import evaluate
from tests.support.own_data import PROCEDURE

STEPS = {"bench1": (5.0, 16.0, 27.0), "bench2": (7.5, 14.0, 30.0)}  # seconds of installs


@pytest.fixture
def score(tmp_path, capsys):
    """Evaluates detections, whose states come a second late; gives F1 and warnings.

    They are of every so manieth frame, `repeat` times each.
    """

    def run(*flags, every=1, repeat=1, shift=0, labels=None):
        procedure = PROCEDURE.to_json() | {"fps": 5}
        (tmp_path / "pump.json").write_text(json.dumps(procedure))
        for folder in ("labels", "asd"):
            (tmp_path / folder).mkdir(exist_ok=True)
        for name, times in STEPS.items():
            rows = labels or "time,step\n" + "".join(f"{t},{3 * k}\n" for k, t in enumerate(times))
            (tmp_path / "labels" / f"{name}.csv").write_text(rows)
            rows = "name,frame,class,conf,x,y,w,h\n"
            for frame in range(0, 200, every):
                if state := sum(frame / 5 >= time + 1 for time in times):
                    for i in range(frame, frame + repeat):
                        rows += f"{name},{i},{state + shift},0.9,0,0,1,1\n"
            (tmp_path / "asd" / f"{name}_results_pred.csv").write_text(rows)
        words = [f"--{key}={tmp_path / key}" for key in ("labels", "asd")]
        words += [f"--procedure={tmp_path / 'pump.json'}", f"--out={tmp_path / 'o.json'}", *flags]
        evaluate.main(words)
        result = json.loads((tmp_path / "o.json").read_text())
        assert all(f"warning: {line}" in capsys.readouterr().err for line in result["warnings"])
        return result["streams"]["asd"]["f1"], result["warnings"]

    return run


def test_labels_that_count_frames_at_another_rate_are_read_with_labels_fps(score):
    rows = "frame,step\n" + "".join(f"{25 * t:.0f},{3 * k}\n" for k, t in enumerate((7, 16, 29)))
    _, (warning,) = score(labels=rows)
    assert "labels with a column frame count at another" in warning
    assert "--labels_fps" in warning
    assert score("--labels_fps=25", labels=rows)[1] == []


@pytest.mark.parametrize("every", [2, 10])
def test_detections_in_one_frame_of_many_are_named_and_what_is_said_of_them_helps(score, every):
    f1, (warning,) = score(every=every)
    assert f1 == 0
    assert f"--asd has detections in one frame of {every} alone, in all recordings" in warning
    assert score(every=every, repeat=every) == (1.0, [])
    assert score(*re.findall(r"--(?:decay|threshold)=\S+", warning), every=every) == (1.0, [])
    assert score("--decoder=naive", every=every)[1] == [], "it sums up nothing"


@pytest.mark.parametrize(("shift", "which"), [(-1, "1 as 2, 2 as 3"), (1, "2 as 1, 3 as 2")])
def test_classes_that_are_one_off_are_a_warning(score, shift, which):
    _, (warning,) = score(shift=shift)
    assert f"would if its classes were other ones ({which}): class 0 is background" in warning
