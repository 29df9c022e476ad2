"""What is scored: errors, incorrect installations, removals."""

import pytest

from stormpsr_jax import evaluate
from stormpsr_jax.recordings import labels, predictions
from tests.support.commands import refused
from tests.support.evaluate_data import PROCEDURE, command, put_wrong, run


def test_evaluate_scores_errors_only_if_asked(files):
    plain = run(files)
    folder = files / "labels" / "01_assy_a"
    for name in ("01_assy_a", "02_assy_b", "07_main_c"):
        folder = files / "labels" / name
        steps = labels.read_steps(folder / "PSR_labels.csv", PROCEDURE)
        labels.write_steps(folder / "PSR_labels_with_errors.csv", [*steps, (399, 4)], PROCEDURE)
    assert run(files) == plain
    scored = run(files, "--with_errors")
    for stream in plain["streams"]:
        assert scored["streams"][stream]["fn"] == plain["streams"][stream]["fn"] + 3


# The released code takes the first row of a frame, not the most confident one.
@pytest.mark.parametrize(("protocol", "delay"), [("paper", 11), ("released", 12)])
def test_evaluate_golden_wrong_parts(files, capsys, protocol, delay):
    k, start, end = put_wrong(files)
    # The detector takes the wrong part for a right one, ten frames after it was put on.
    path = files / "asd" / f"01_assy_a{predictions.SUFFIX}"
    header, *lines = path.read_text().splitlines()
    seen = [f"x,{frame},4,0.99,0,0,1,1" for frame in range(start + 10, end)]
    path.write_text("\n".join([header, *lines, *seen]) + "\n")
    result = run(files, f"--protocol={protocol}", "--threshold=asd=1.5,temporal=1,storm=9")
    asd = result["streams"]["asd"]
    (one,) = asd["recordings"]["01_assy_a"]["wrong"]["installations"]
    assert one == [k, start, end, start + delay, None]
    assert (asd["wrong"]["shown"], asd["wrong"]["accepted"], asd["wrong"]["found"]) == (1, 1, 0)
    assert result["streams"]["temporal"]["wrong"]["accepted"] == 0
    assert asd["recordings"]["02_assy_b"]["wrong"]["installations"] == []
    assert "incorrect installations\n" in capsys.readouterr().out
    evaluate.main(["tables", str(files / "out.json"), "--table=installations", "--format=csv"])
    assert f"asd,01_assy_a,{PROCEDURE.components[k]}," in capsys.readouterr().out


def test_evaluate_nothing_is_known_of_wrong_parts_without_states(files, capsys):
    for path in files.glob("labels/*/PSR_labels_raw.csv"):
        path.unlink()
    stream = run(files)["streams"]["asd"]
    assert stream["wrong"] is None
    assert all(r["wrong"] is None for r in stream["recordings"].values())
    assert "incorrect" not in capsys.readouterr().out


def test_evaluate_a_delay_counts_from_when_a_render_shows_the_step(files, capsys):
    assert "delay_visible_s" not in run(files)["streams"]["asd"]
    for folder in (files / "labels").iterdir():
        (folder / "PSR_labels_visible_from.csv").write_text("frame,step_id,visible_from\n")
    found = run(files)["streams"]["asd"]
    assert found["delay_visible_s"] == found["delay_s"]
    step, true, _ = found["recordings"]["02_assy_b"]["outcomes"]["correct"][0]
    path = files / "labels/02_assy_b/PSR_labels_visible_from.csv"
    never = f"frame,step_id,visible_from\n{true},{step + 1},\n"
    path.write_text(f"{never}{true},{step},{true + 30}\n")
    stream = run(files)["streams"]["asd"]
    one = stream["recordings"]["02_assy_b"]
    assert one["delay_visible_s"] == pytest.approx(one["delay_s"] - 3 / one["tp"])
    assert stream["delay_visible_s"] == pytest.approx(stream["delay_s"] - 1 / one["tp"])
    path.write_text(f"{never}{true},{step},{true - 1}\n{true},2,\n{true},{step + 1},9\n")
    said = refused(capsys, evaluate.main, command(files), lines=3)
    assert f"{path}: line 3: visible_from: '{true - 1}' is not in {true}…1000000000" in said
    assert f"{path}: line 4: step_id: 2 is no installation" in said
    assert f"{path}: line 5: step_id: {step + 1} is given twice at this frame" in said
