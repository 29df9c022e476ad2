"""What is refused, and remarked on, of ready-made embeddings."""

import json
import os
import pickle
import re
import zlib

import numpy as np
import pytest

from data_prep import embeddings
from tests.support.embeddings_data import RECORDINGS, D, N, features_of, write


def save(array):
    return lambda path: np.save(path, array)


class Harmful:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("a file was unpickled",))


def with_value(row, column, value, dtype=np.float32):
    array = features_of("a").astype(dtype)
    array[row, column] = value
    return array


def uneven(path):
    frames = np.arange(N)
    frames[7:] += 1
    path.unlink()
    np.savez(path.with_suffix(".npz"), features=features_of("a"), frames=frames)


def archive(**arrays):
    def change(path):
        path.unlink()
        np.savez(path.with_suffix(".npz"), **arrays)

    return change


def damaged_archive(path):
    path.unlink()
    path = path.with_suffix(".npz")
    np.savez(path, features_of("a"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def header(text):
    """A file of an .npy header that may say anything, and 960 bytes."""

    def change(path):
        content = text.encode()
        size = len(content).to_bytes(2, "little")
        path.write_bytes(b"\x93NUMPY\x01\x00" + size + content + bytes(960))

    return change


def shape(text):
    return header(f"{{'descr': '<f4', 'fortran_order': False, 'shape': {text}, }}")


def pipe(path):
    path.unlink()
    os.mkfifo(path)


def bomb(path):
    """An .npz file of 100 kB with an array of 100 MB."""
    path.unlink()
    np.savez_compressed(path.with_suffix(".npz"), np.zeros((2_000, 25_000), np.float16))


FEATURE_ERRORS = {
    "pipe": (pipe, r"a\.npy: is not a regular file; remove it"),
    "bomb": (bomb, r"arr_0\.npy has 100,000,128 bytes, more than 20 times as many as packed"),
    "header cut off": (header("{'descr': '<f4', 'shape': (3, 2"), "not an array as np.save writes"),
    "header of a list": (header("{[]: 1}"), r"a\.npy: not an array as np.save writes it \(unhash"),
    "header of mixed keys": (header("{1: 2, 'a': 3}"), "not an array as np.save writes it"),
    "header indented": (header("  x\n y"), r"a\.npy: not an array as np.save writes it"),
    "less than nothing": (shape("(-20, -12)"), r"shape \(-20, -12\); N frames × D"),
    "wide rows": (save(np.ones((2, 70_000), np.float16)), "rows of 70,000 numbers; at most 65,536"),
    "far apart": (
        archive(x=features_of("a")[:2], frames=np.array([0, 50_000_000])),
        "'frames' are 50,000,000 apart; at most 16,777,216",
    ),
    "nan": (save(with_value(30, 5, np.nan)), r"a\.npy: frame 31 has nan in column 5"),
    "infinite": (save(with_value(0, 0, -np.inf)), r"a\.npy: frame 1 has -inf in column 0"),
    "too large": (save(with_value(2, 0, 1e300, float)), r"frame 3 has 1e\+300"),
    "integers": (save(np.ones((N, D), int)), r"a\.npy: int64; float16, float32 or float64"),
    "one dimension": (save(np.ones(N, np.float32)), r"shape \(240,\); N frames × D"),
    "three dimensions": (save(np.ones((N, 1, D), np.float32)), r"shape \(240, 1, 12\)"),
    "no rows": (save(np.ones((0, D), np.float32)), r"shape \(0, 12\)"),
    "transposed": (save(np.ones((D, N), np.float32).T), "Fortran order.*ascontiguousarray"),
    "another width": (save(np.ones((N, D + 1), np.float32)), r"widths D: 12 \(b\), 13 \(a\)"),
    "pickled array": (save(np.array([Harmful()])), "pickled Python objects.*never read"),
    "pickle": (lambda p: p.write_bytes(pickle.dumps(Harmful())), "pickles are never read"),
    "pickle in npz": (archive(x=np.array([Harmful()])), "pickled Python objects"),
    "empty": (lambda p: p.write_bytes(b""), "not an array as np.save writes it"),
    "truncated": (lambda p: p.write_bytes(p.read_bytes()[:-1]), "does not fit: truncated"),
    "several arrays": (archive(x=np.ones(2), y=np.ones(2)), "holds x, y; name the .*'features'"),
    "no array": (archive(frames=np.arange(N)), "holds nothing"),
    "uneven frames": (uneven, r"'frames' has 8 after 6; .*ascend evenly \(0, 1, …\)"),
    "descending frames": (
        archive(x=features_of("a"), frames=np.arange(N)[::-1]), "'frames' has 238 after 239"
    ),
    "too few frames": (archive(x=features_of("a"), frames=np.arange(3)), "240 whole numbers"),
    "fractions": (archive(x=features_of("a"), frames=np.arange(N) / 2), "'frames' is float64"),
    "another stride": (
        archive(x=features_of("a"), frames=np.arange(0, 2 * N, 2)), r"strides: 1 \(b\), 2 \(a\)"
    ),
    "no zip": (lambda p: p.rename(p.with_suffix(".npz")), "cannot be read.*not a zip file"),
    "damaged zip": (damaged_archive, "Bad CRC-32"),
    "twice": (lambda p: np.savez(p.with_suffix(".npz"), features_of("a")), "'a' is there twice"),
    "in another split": (lambda p: p.rename(p.parents[1] / "val" / p.name), "'val', its labels in"),
}  # fmt: skip
LABEL_ERRORS = {
    "past the end": (
        "00241.jpg,3,x\n",
        r"line 1: .*frame 241 is not .* 1…240, which the 240 rows",
    ),
    "before the start": (
        "00000.jpg,3,x\n",
        r"line 1: .*frame 0 is not .*check --first_frame",
    ),
    "out of order": ("00100.jpg,3,x\n00099.jpg,0,x\n", "line 2: .*frame 99 comes after frame 100"),
    "unknown step": ("00100.jpg,12,x\n", "step id"),
    "no number": ("00100.jpg,one,x\n", "step id"),
}


def refused(words, capsys):
    """The lines that the command ends with, one for each mistake."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        embeddings.main(words)
    lines = [line for line in capsys.readouterr().err.splitlines() if "it/s" not in line]
    assert exit_.value.code == 2
    errors = [line for line in lines if line.startswith("error: ")]
    assert errors
    assert errors == lines[-len(errors) :]
    return "\n".join(errors)


@pytest.mark.parametrize("case", FEATURE_ERRORS)
def test_errors_features(tmp_path, capsys, case):
    change, message = FEATURE_ERRORS[case]
    words = write(tmp_path)
    change(tmp_path / "features" / "train" / "a.npy")
    assert re.search(message, refused(words, capsys))
    assert not (tmp_path / "out" / "embeddings.json").exists()


@pytest.mark.parametrize("case", LABEL_ERRORS)
def test_errors_labels(tmp_path, capsys, case):
    row, message = LABEL_ERRORS[case]
    words = write(tmp_path, raw=False)
    (tmp_path / "labels" / "train" / "a" / "PSR_labels.csv").write_text(row)
    line = refused(words, capsys)
    assert re.search(message, line)
    assert "a/PSR_labels.csv" in line


def test_errors_of_all_recordings_come_at_once(tmp_path, capsys):
    words = write(tmp_path)
    (tmp_path / "features" / "train" / "a.npy").unlink()
    (tmp_path / "features" / "val" / "i.npy").unlink()
    for path in (tmp_path / "labels" / "train" / "b").iterdir():
        path.unlink()
    np.save(tmp_path / "features" / "train" / "c.npy", np.ones(3, np.float32))
    raw = tmp_path / "labels" / "train" / "d" / "PSR_labels_raw.csv"
    raw.write_text(raw.read_text().replace("0,0,0,0", "0,0,0", 1))
    (tmp_path / "labels" / "test" / "k" / "PSR_labels.csv").unlink()
    said = refused(words, capsys)
    assert len(said.splitlines()) == 5
    for part in ("no features in", "for a, i", "no labels in", "for b", "c.npy", "d/PSR_labels_raw",
                 "k/PSR_labels.csv"):  # fmt: skip
        assert part in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--stride=0"], "--stride=0 is out of range"),
        (["--stride=16777217"], "--stride=16777217 is out of range"),
        (["--fps=0"], "--fps=0.0"),
        (["--fps=nan"], "--fps=nan"),
        (["--first_frame=-1"], "--first_frame=-1"),
        (["--workers=0"], "--workers: 0 is less than 1"),
        (["--normalise=l1"], "--normalise"),
        (["--split=train"], "not like train:GLOB"),
        (["--split=train:[a-d]"], "'e' is in none of them"),
        (["--split=train:*,val:*"], "'a' is in train and val"),
        (["--split=tr/ain:*"], "split 'tr/ain'"),
        (["--features=nowhere"], "--features=nowhere is not a folder"),
        (["--labels=nowhere"], "--labels=nowhere is not a folder"),
        (["--procedure=nothing"], "procedure 'nothing'"),
    ],
)
def test_errors_arguments(tmp_path, capsys, words, message):
    assert message in refused([*write(tmp_path), *words], capsys)


def test_errors_folder_made_from_something_else(tmp_path, capsys):
    words = write(tmp_path)
    embeddings.main(words)
    assert "settings.json: this folder was made with other arguments (fps was " + (
        "10.0, now 3.0)"
    ) in refused([*words, "--fps=3"], capsys)
    np.save(tmp_path / "features" / "train" / "a.npy", features_of("b"))
    assert "out: was made from other features or labels of train/a" in refused(words, capsys)


def test_folder_other_rows_in_the_middle_of_a_large_file_are_noticed(tmp_path, capsys):
    """And a folder of an earlier version, which knows the ends of files alone, stays valid."""
    rows = np.tile(features_of("a"), (1, 100))  # 1 MB
    words = write(tmp_path, change=lambda _: rows)
    embeddings.main(words)
    path, settings = tmp_path / "features/train/a.npy", tmp_path / "out/settings.json"
    rows[N // 2] += 1
    np.save(path, rows)
    assert "out: was made from other features or labels of train/a" in refused(words, capsys)
    rows[N // 2] -= 1
    np.save(path, rows)
    content = json.loads(settings.read_text())
    content["sources"] = {
        f"{split}/{name}": earlier_source(tmp_path, split, name)
        for split, names in RECORDINGS.items()
        for name in names
    }
    settings.write_text(json.dumps(content))
    assert embeddings.main(words) == 0
    rows[0] += 1
    np.save(path, rows)
    assert "made from other features or labels of train/a;" in refused(words, capsys)


def earlier_source(folder, split, name):
    """A checksum of a size, the first and last 64 KiB, and the label files."""
    content = (folder / "features" / split / f"{name}.npy").read_bytes()
    labels = [folder / "labels" / split / name / f"PSR_labels{end}.csv" for end in ("", "_raw")]
    parts = [str(len(content)).encode(), content[:65536], content[-65536:]]
    return zlib.crc32(b"".join([*parts, *(path.read_bytes() for path in labels)]))


def test_remarks_name_missing_splits_and_frames_that_do_not_meet(tmp_path, capsys):
    words = write(tmp_path)
    embeddings.main([*words[:-1], "--split=train:*"])  # without --first_frame
    printed = capsys.readouterr().err
    assert "no split 'val'" in printed
    assert "a at 1 and 0: is --first_frame right?" in printed
