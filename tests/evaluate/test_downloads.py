"""`evaluate` on files as they come from a download: rows without a detection, splits."""

import csv
import json
import pathlib
import shutil

import pytest

from stormpsr_jax import evaluate
from stormpsr_jax.psr.evaluation import rows
from tests.support.commands import refused
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


def test_labels_in_the_folders_of_unpacked_downloads_are_those_of_a_split(files):
    expected = run(files, streams=("asd",))
    names = {"01_assy_a": "test_p1", "02_assy_b": "test_p1", "07_main_c": "test_p2"}
    for name, split in names.items():
        shutil.copytree(files / "labels" / name, files / "all" / split / name)
    (files / "all/train_p1/03_assy_d").mkdir(parents=True)
    (files / "all/train_p1/03_assy_d/PSR_labels.csv").write_text("damaged")
    assert run(files, f"--labels={files / 'all'}", "--split=test", streams=("asd",)) == expected


@pytest.mark.parametrize("flag", ["asd", "labels"])
def test_an_archive_is_refused(files, capsys, flag):
    path = files / "downloaded.zip"
    path.write_bytes(b"PK")
    said = fails(files, capsys, f"--{flag}={path}")
    assert f"--{flag}={path}: archives are not read; unpack it, and give the folder" in said


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


def rows_of(files, capsys, *flags):
    evaluate.main(["rows", f"--asd={files / 'asd'}", "--format=csv", *flags])
    said = capsys.readouterr()
    header, *lines = [line.split(",") for line in said.out.splitlines()]
    return [dict(zip(header, line, strict=True)) for line in lines], said.err


def test_rows_prints_what_evaluate_scores_beside_the_published_figures(files, capsys):
    table, said = rows_of(files, capsys, f"--labels={files / 'labels'}")
    assert "3 recordings are here; the published figures are means over 32" in said
    *papers, seen, _, right, left_out = table
    assert [(r["row"], r["table"]) for r in papers[::3]] == [(r.name, r.source) for r in rows.ROWS]
    assert {r["of"] for r in papers} == {"all", "no errors", "errors"}
    assert (seen["row"], right["row"]) == ("learned (seen)", "learned (right)")
    assert (left_out["of"], left_out["recordings"]) == ("left out", "3")
    result = run(files, "--decoder=naive", streams=("asd",))["streams"]["asd"]
    ours = table[0]
    assert float(ours["POS"]) == pytest.approx(result["pos"])
    assert float(ours["F1"]) == pytest.approx(result["f1"])
    assert float(ours["delay"]) == pytest.approx(result["delay_s"])
    assert (ours["POS published"], ours["F1 published"]) == ("0.57", "0.779")
    errors = [r["contains_errors"] for r in result["recordings"].values()]
    counted = {r["of"]: int(r["recordings"]) for r in table[:3]}
    assert counted == {"all": 3, "no errors": 3 - sum(errors), "errors": sum(errors)}


REAL = pathlib.Path(__file__).parents[3] / "shared" / "data" / "industreal_real"


@pytest.mark.skipif(not REAL.is_dir(), reason="the real detections are not here")
def test_rows_of_real_detections_are_those_of_the_page(capsys):
    evaluate.main(["rows", f"--asd={REAL / 'asd'}", f"--labels={REAL / 'labels'}", "--format=csv"])
    table = [line.split(",") for line in capsys.readouterr().out.splitlines()]
    root = pathlib.Path(__file__).parents[2]
    page = (root / "benchmarks" / "results" / "research-rows.md").read_text()
    for line in table[1:]:
        if line[4] in ("all", "left out"):
            ours = " / ".join(
                f"{float(x):.{d}f}" for x, d in zip(line[6:9], (3, 3, 1), strict=True)
            )
            assert ours.replace("0.", ".", 2) in page, ours


def test_pictures_of_errors_say_how_often_one_is_taken_for_the_intended_state(tmp_path, capsys):
    """By kind, as IndustReal's pictures of error states have it."""
    folder = tmp_path / "download" / "assembly_state_errors"
    folder.mkdir(parents=True)
    asd = tmp_path / "asd"
    asd.mkdir()
    rows = ["name,frame,class,conf,x,y,w,h"]
    # Frame: (class said, confidence, above a floor of 0.5 or not); intended state, kind, clean.
    said = {5: (7, 0.9), 6: (23, 0.9), 7: (8, 0.9), 8: (7, 0.5), 9: (7, 0.9)}
    rows += [f"03_assy_0_1,{f},{c},{p},9,9,2,2" for f, (c, p) in said.items()]
    (asd / "03_assy_0_1_results_pred.csv").write_text("\n".join(rows) + "\n")
    labels = {
        "images": [f"03_assy_0_1_{frame:06d}.jpg" for frame in said] + ["99_assy_0_1_000001.jpg"],
        "labels": [23] * 6,
        "intended": [7] * 6,
        "error_cat": [2, 2, 3, 3, 1, 1],
        "clean": [1, 0, 1, 1, 1, 1],
    }
    (folder / "labels.json").write_text(json.dumps(labels))
    words = ["detections", "--procedure=industreal", f"--asd={asd}", "--format=csv"]
    for boxes in (folder, folder.parent):
        evaluate.main([*words, f"--boxes={boxes}", f"--out={tmp_path / 'errors.json'}"])
        printed = capsys.readouterr()
        kinds = {row["kind"]: row for row in csv.DictReader(printed.out.strip().splitlines())}
        assert [kinds["placement"][key] for key in ("pictures", "intended", "error")] == list("211")
        assert [kinds["orientation"][key] for key in ("another", "none")] == ["1", "1"]
        assert float(kinds["missing part"]["share"]) == 1
        assert kinds["wrong part"]["share"] == ""
        assert kinds["all"]["pictures"] == "5"
        assert kinds["all, whole object seen"]["intended"] == "2"
        assert "1 pictures are of recordings that --asd does not have" in printed.err
    assert json.loads((tmp_path / "errors.json").read_text())["left_out"] == 1
    labels["error_cat"][0] = "2"
    (folder / "labels.json").write_text(json.dumps(labels))
    said = refused(capsys, evaluate.main, [*words, f"--boxes={folder}"])
    assert "labels.json: [0]: " in said
    assert "is not <recording>_<frame> and whole numbers" in said
