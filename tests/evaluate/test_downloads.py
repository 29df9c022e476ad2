"""`evaluate` on files as they come from a download: zip files, rows without a detection, splits."""

import shutil
import zipfile

import pytest

from stormpsr_jax.psr.files.recordings import load_recordings
from tests.support.evaluate_data import PROCEDURE, fails, run

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


def pack(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, text in members.items():
            file.writestr(name, text)
    return path


def published_zip(files, outer=OUTER):
    texts = as_published(files / "asd")
    truth = {name.replace("_pred", "_gt"): HEADER + "x,1,1,9,9,9,9,9\n" for name in texts}
    extra = {"__MACOSX/" + outer + "._01_assy_a_results_pred.csv": "\0"}
    members = {outer + name: text for name, text in {**texts, **truth}.items()}
    return pack(files / "detections.zip", members | extra)


def recording_zips(files, outer):
    """The labels in zip files of two splits, with pictures beside them."""
    folder = files / "downloads"
    folder.mkdir()
    for split, names in (("test_p1", ("01_assy_a", "02_assy_b")), ("test_p2", ("07_main_c",))):
        members = {}
        for name in names:
            for path in (files / "labels" / name).iterdir():
                members[f"{outer}{name}/{path.name}"] = path.read_text()
            members[f"{outer}{name}/rgb/000000.jpg"] = "picture"
        pack(folder / f"{split}.zip", members)
    pack(folder / "train_p1.zip", {f"{outer}03_assy_d/PSR_labels.csv": "damaged"})
    pack(folder / "part_geometries.zip", {"state1.3mf": ""})
    (folder / "README.md").write_text("")
    return folder


@pytest.mark.parametrize("outer", [OUTER, "", "a/b/"])
def test_published_detections_in_a_zip_file_score_as_the_same_files_in_a_folder(files, outer):
    expected = run(files, streams=("asd",))
    assert run(files, f"--asd={published_zip(files, outer)}", streams=()) == expected


@pytest.mark.parametrize("outer", ["", "recordings/", "recordings/test/"])
def test_labels_in_the_zip_files_of_recordings_are_those_in_folders(files, outer):
    expected = run(files, streams=("asd",))
    folder = recording_zips(files, outer)
    flags = (f"--labels={folder}", "--split=test")
    assert run(files, *flags, streams=("asd",)) == expected
    one = load_recordings(PROCEDURE, folder / "test_p2.zip")
    assert list(one) == ["07_main_c"]


def test_labels_of_other_splits_are_asked_for_unless_a_split_is_named(files, capsys):
    recordings = files / "all" / "recordings"
    shutil.copytree(files / "labels", recordings / "test")
    shutil.copytree(files / "labels" / "01_assy_a", recordings / "train" / "05_assy_x")
    expected = run(files, streams=("asd",))
    for folder in (recordings, recordings.parent, recordings / "test"):
        flags = (f"--labels={folder}", "--split=test")
        assert run(files, *flags, streams=("asd",)) == expected
    capsys.readouterr()
    said = fails(files, capsys, f"--labels={recordings}", streams=("asd",))
    assert "no 05_assy_x_results_pred.csv for the recording 05_assy_x" in said
    assert "--split leaves out other splits than one (this is of train)" in said
    assert "no labels of split val" in fails(files, capsys, f"--labels={recordings}", "--split=val")


def test_errors_in_a_zip_file_name_the_place_in_it(files, capsys):
    texts = as_published(files / "asd")
    texts["01_assy_a_results_pred.csv"] += "01_assy_a,999,77,.5,1,1,1,1\n"
    path = pack(files / "bad.zip", {OUTER + name: text for name, text in texts.items()})
    said = fails(files, capsys, f"--asd={path}")
    assert f"{path}/{OUTER}01_assy_a_results_pred.csv: line " in said
    assert "class: '77' is not in" in said
    folder = recording_zips(files, "")
    with pytest.raises(ValueError) as error:
        load_recordings(PROCEDURE, folder / "train_p1.zip")
    assert str(error.value).startswith(f"{folder}/train_p1.zip/03_assy_d/PSR_labels.csv: line 1")
