"""`evaluate` on files as they come from a download: rows without a detection, splits."""

import shutil

import pytest

from tests.support.evaluate_data import fails, run

HEADER = "clip,framenr,bb_class,bb_conf,bb_x,bb_y,bb_w,bb_h\n"
OUTER = "ASD_results_IndustRealplusSynthetic_test/"


def as_published(folder):
    """The text of each prediction file as IndustReal publishes them: a row for every frame."""
    texts = {}
    for path in sorted(folder.iterdir()):
        found = {}
        for line in path.read_text().splitlines()[1:]:
            found.setdefault(int(line.split(",")[1]), []).append(line)
        name = path.name.removesuffix("_results_pred.csv")
        every = (found.get(i, [f"{name},{i},0"]) for i in range(420))
        texts[path.name] = HEADER + "\n".join(line for lines in every for line in lines) + "\n"
    return texts


@pytest.mark.parametrize("outer", [OUTER, "", "a/b/"])
def test_published_detections_score_as_ours_of_the_same(files, outer):
    expected = run(files, streams=("asd",))
    folder = files / "unpacked" / outer
    folder.mkdir(parents=True)
    for name, text in as_published(files / "asd").items():
        (folder / name).write_text(text)
        (folder / name.replace("_pred", "_gt")).write_text(HEADER + "x,1,1,9,9,9,9,9\n")
    assert run(files, f"--asd={files / 'unpacked'}", streams=()) == expected


def test_labels_of_other_splits_are_asked_for_unless_a_split_is_named(files, capsys):
    recordings = files / "all" / "recordings"
    shutil.copytree(files / "labels", recordings / "test")
    shutil.copytree(files / "labels" / "01_assy_a", recordings / "train" / "05_assy_x")
    expected = run(files, streams=("asd",))
    for folder in (recordings, recordings.parent, recordings / "test"):
        flags = (f"--labels={folder}", "--split=test")
        assert run(files, *flags, streams=("asd",)) == expected
    names = {"01_assy_a": "test_p1", "02_assy_b": "test_p1", "07_main_c": "test_p2"}
    for name, split in names.items():  # as downloads unpack
        shutil.copytree(files / "labels" / name, files / "unpacked" / split / name)
    (files / "unpacked/train_p1/03_assy_d").mkdir(parents=True)
    (files / "unpacked/train_p1/03_assy_d/PSR_labels.csv").write_text("damaged")
    flags = (f"--labels={files / 'unpacked'}", "--split=test")
    assert run(files, *flags, streams=("asd",)) == expected
    said = fails(files, capsys, f"--labels={recordings}", streams=("asd",))
    assert "no 05_assy_x_results_pred.csv for the recording 05_assy_x" in said
    assert "--split leaves out other splits than one (this is of train)" in said
    assert "no labels of split val" in fails(files, capsys, f"--labels={recordings}", "--split=val")
