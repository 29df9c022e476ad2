import csv
import json

import numpy as np

from stormpsr_jax.serving.files import overlay
from tests.support.recognise_data import decoded, found, rows_of, run


def test_clips_show_the_seconds_around_each_event(trained, clip, made, tmp_path):
    assert run(trained, clip, f"--out={tmp_path}", "--clips") == 0
    whole = decoded(made / "annotated.mp4").astype(int)
    folder = tmp_path / "a_up/clips"
    expected = {f"{frame:06d}_{step}.mp4" for frame, step in found(made)}
    assert {path.name for path in folder.iterdir()} == expected
    assert not (tmp_path / "a_up/annotated.mp4").exists()
    lengths = set()
    for frame, step in found(made):
        shown = decoded(folder / f"{frame:06d}_{step}.mp4").astype(int)
        start = max(0, frame - round(overlay.BEFORE * 10))
        end = min(len(whole), frame + round(overlay.AFTER * 10) + 1)
        assert len(shown) == end - start
        lengths.add(len(shown))
        here = np.abs(shown - whole[start:end]).mean()
        if start:
            assert here < 0.6 * np.abs(shown - whole[start - 1 : end - 1]).mean()
    assert max(lengths) == 51
    assert min(lengths) < 51  # cut short by the beginning or the end


def test_certain_less_sure_events_are_listed_apart(trained, clip, made, tmp_path):
    confidences = sorted(float(row["confidence"]) for row in rows_of(made))
    certain = (confidences[2] + confidences[3]) / 2
    assert run(trained, clip, f"--out={tmp_path}", f"--certain={certain}") == 0
    folder = tmp_path / "a_up"
    with open(folder / "uncertain.csv", encoding="utf-8", newline="") as file:
        unsure = list(csv.DictReader(file))
    assert len(unsure) == 3
    assert [row for row in rows_of(made) if float(row["confidence"]) < certain] == unsure
    assert [row for row in rows_of(made) if float(row["confidence"]) > certain] == rows_of(folder)
    before = (made / "events.jsonl").read_text(encoding="utf-8").splitlines()
    after = (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()
    for one, other in zip(map(json.loads, before), map(json.loads, after), strict=True):
        if one["type"] == "event" and one["confidence"] < certain:
            assert other == one | {"type": "uncertain"}
        else:
            assert other == one
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.count("(uncertain)") == 3
    assert "and 3 uncertain" in page
    assert "(uncertain)" not in (made / "report.html").read_text(encoding="utf-8")
    assert not (made / "uncertain.csv").exists()
