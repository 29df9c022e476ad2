import json
import os
import pickle
import re

import numpy as np
import pytest

from data_prep import embeddings
from stormpsr_jax import main
from stormpsr_jax.data.features import FeatureSource
from stormpsr_jax.psr.files import predictions
from stormpsr_jax.psr.procedure import load_procedure
from stormpsr_jax.stages.context import Context
from stormpsr_jax.training.sharding import make_mesh
from tests.support.commands import refused
from tests.support.digests import digests
from tests.support.embeddings_data import (
    FIRST,
    PROCEDURE,
    RECORDINGS,
    D,
    K,
    N,
    W,
    config_for,
    features_of,
    states_of,
    write,
)


@pytest.mark.parametrize(
    "kind", ["float16", "float64", "transposed", "npz", "named", "frames", "big-endian"]
)
def test_every_kind_of_file_gives_the_same_rows(tmp_path, kind):
    words = write(tmp_path)
    for path in (tmp_path / "features").glob("*/*.npy"):
        array = np.load(path)
        match kind:
            case "float16" | "float64":
                np.save(path, array.astype(kind))
                continue
            case "big-endian":
                np.save(path, array.astype(">f4"))
                continue
            case "transposed":  # column by column
                np.save(path, np.ascontiguousarray(array.T).T)
                continue
            case "npz":
                np.savez(path.with_suffix(".npz"), array)
            case "named":
                np.savez_compressed(path.with_suffix(".npz"), features=array, other=array[:1])
            case "frames":
                np.savez(path.with_suffix(".npz"), x=array[::2], frames=np.arange(7, 7 + N, 2))
        path.unlink()
    embeddings.main([*words, "--normalise=none"])
    source = FeatureSource(tmp_path / "out", "val", load_procedure(tmp_path / "box.json"))
    for name in RECORDINGS["val"]:
        if kind == "frames":
            assert (source.frame_step, source.recordings[name].first_frame) == (2, 7)
            np.testing.assert_array_equal(source.embeddings[name][:], features_of(name)[::2])
            states = np.concatenate([states_of(name), np.ones((10, K), np.int8)])
            expected = states[7 - FIRST : 7 - FIRST + N : 2]
        else:
            tolerance = 1e-3 if kind == "float16" else 0
            np.testing.assert_allclose(source.embeddings[name][:], features_of(name), tolerance)
            expected = states_of(name)
        np.testing.assert_array_equal(source.recordings[name].states, expected)


@pytest.mark.usefixtures("system")  # workers
def test_same_bytes_when_interrupted_and_for_any_workers(tmp_path, monkeypatch, capsys):
    words = write(tmp_path)
    embeddings.main(words)
    whole = digests(tmp_path / "out")
    embeddings.main([*words[:3], f"--out={tmp_path / 'two'}", words[4], "--workers=2"])
    assert digests(tmp_path / "two") == whole

    convert = embeddings._float32
    done = []

    def failing(values, job, frame):
        done.append(job.name)
        if len(done) == 5:
            raise OSError(28, "No space left on device")
        return convert(values, job, frame)

    other = [*words[:3], f"--out={tmp_path / 'three'}", words[4]]
    monkeypatch.setattr(embeddings, "_float32", failing)
    said = refused(capsys, embeddings.main, other, lines=None)  # after lines of progress
    assert "error: recording train/c: no space left" in said
    assert not (tmp_path / "three" / "embeddings.json").exists()
    with pytest.raises(ValueError, match="not finished"):
        Context(config_for(tmp_path / "three"), tmp_path, make_mesh(1, 1)).source("train")
    finished = {p: p.stat().st_ino for p in (tmp_path / "three" / "features").rglob("*.npy")}
    assert 4 <= len(finished) < 12  # those before c, and what was under way
    embeddings.main(other)
    assert digests(tmp_path / "three") == whole
    assert all(path.stat().st_ino == inode for path, inode in finished.items())


class Harmful:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("a file was unpickled",))


def save(array):
    return lambda path: np.save(path, array)


def with_value(row, column, value, dtype=np.float32):
    array = features_of("a").astype(dtype)
    array[row, column] = value
    return array


def archive(**arrays):
    def change(path):
        path.unlink()
        np.savez(path.with_suffix(".npz"), **arrays)

    return change


def pipe(path):
    path.unlink()
    os.mkfifo(path)


def bomb(path):
    """An .npz file of 100 kB with an array of 100 MB."""
    path.unlink()
    np.savez_compressed(path.with_suffix(".npz"), np.zeros((2_000, 25_000), np.float16))


def labels(text):
    return lambda path: (path.parents[2] / "labels/train/a/PSR_labels.csv").write_text(text)


NOT_EVEN = np.arange(N) + (np.arange(N) > 6)
# By what is wrong: what is done to train/a.npy, and the message.
ERRORS = {
    "pipe": (pipe, r"a\.npy: is no regular file"),
    "bomb": (bomb, r"arr_0\.npy has 100,000,128 bytes, more than 20 times as many as packed"),
    "nan": (save(with_value(30, 5, np.nan)), r"a\.npy: frame 31 has nan in column 5"),
    "too large": (save(with_value(2, 0, 1e300, float)), r"frame 3 has 1e\+300"),
    "one dimension": (save(np.ones(N, np.float32)), r"shape \(240,\); N frames × D"),
    "another width": (save(np.ones((N, D + 1), np.float32)), r"widths D: 12 \(b\), 13 \(a\)"),
    "pickle": (lambda p: p.write_bytes(pickle.dumps(Harmful())), "pickles are never read"),
    "pickle in npz": (archive(x=np.array([Harmful()])), "pickles are never read"),
    "truncated": (lambda p: p.write_bytes(p.read_bytes()[:-1]), "not arrays as np.save .*mmap"),
    "several arrays": (archive(x=np.ones(2), y=np.ones(2)), "holds x, y; name the .*'features'"),
    "uneven": (archive(x=features_of("a"), frames=NOT_EVEN), "'frames' are 1, 2 apart; .*evenly"),
    "stride": (
        archive(x=features_of("a"), frames=np.arange(0, 2 * N, 2)),
        r"strides: 1 \(b\), 2 \(a\)",
    ),
    "twice": (
        lambda p: np.savez(p.with_suffix(".npz"), features_of("a")),
        "a: arrays in .*a.npy and .*a.npz; keep one",
    ),
    "split": (
        lambda p: p.rename(p.parents[1] / "val" / p.name),
        "a: frames in split val, labels in train",
    ),
    "past the end": (
        labels("00241.jpg,3,x\n"),
        r"a/PSR_labels.csv: line 1: .*frame 241 is not .* 1…240, which the 240 rows",
    ),
    "before the start": (labels("00000.jpg,3,x\n"), r"frame 0 is not .*check --first_frame"),
}


@pytest.mark.parametrize("what", ERRORS)
def test_errors_name_the_file(tmp_path, capsys, what):
    change, message = ERRORS[what]
    words = write(tmp_path, raw="PSR" not in message and "frame 0" not in message)
    change(tmp_path / "features/train/a.npy")
    said = refused(capsys, embeddings.main, words, lines=None)
    assert re.search(message, said)
    assert not (tmp_path / "out/embeddings.json").exists()


def test_errors_of_all_recordings_come_at_once(tmp_path, capsys):
    words = write(tmp_path)
    (tmp_path / "features/train/a.npy").unlink()
    for path in (tmp_path / "labels/train/b").iterdir():
        path.unlink()
    np.save(tmp_path / "features/train/c.npy", np.ones(3, np.float32))
    raw = tmp_path / "labels/train/d/PSR_labels_raw.csv"
    raw.write_text(raw.read_text().replace("0,0,0,0", "0,0,0", 1))
    (tmp_path / "labels/test/k/PSR_labels.csv").unlink()
    said = refused(capsys, embeddings.main, words, lines=4)
    for part in ("for a\n", "for b, k\n", "c.npy", "d/PSR_labels_raw"):
        assert part in said


def test_a_folder_made_from_something_else_is_refused(tmp_path, capsys):
    rows = np.tile(features_of("a"), (1, 100))  # 1 MB
    words = write(tmp_path, change=lambda _: rows)
    embeddings.main(words)
    said = refused(capsys, embeddings.main, [*words, "--fps=3"], lines=None)
    assert "settings.json: this folder was made with other arguments (fps 10.0 → 3.0)" in said
    rows[N // 2] += 1  # in the middle
    np.save(tmp_path / "features/train/a.npy", rows)
    said = refused(capsys, embeddings.main, words, lines=None)
    assert "was made from other features or labels of train/a" in said


@pytest.mark.usefixtures("system")
def test_run_learns_predicts_and_scores_without_a_picture(tmp_path):
    stride = 4
    words = write(tmp_path, change=lambda array: array[::stride])
    embeddings.main([*words, f"--stride={stride}"])
    workdir = tmp_path / "run"
    main.run(config_for(tmp_path / "out"), workdir)
    result = json.loads((workdir / "metrics.json").read_text())
    assert set(result["streams"]) == {"temporal"}
    assert result["streams"]["temporal"]["f1"] > 0.85
    assert result["streams"]["temporal"]["delay_s"] < W / PROCEDURE["fps"]
    assert result["fps"] == PROCEDURE["fps"]
    procedure = load_procedure(tmp_path / "box.json")
    path = workdir / "predictions" / "test" / "temporal" / "k_results_pred.csv"
    predicted = predictions.read_temporal(path, procedure)
    # A row of every frame, or one that stands for those up to the next.
    np.testing.assert_array_equal(predicted.frames, np.arange(FIRST, FIRST + N))
    at = (predicted.frames - FIRST) // stride * stride
    np.testing.assert_array_equal(predicted.confidences, predicted.confidences[at])
    states = states_of("k")
    np.testing.assert_array_equal(predicted.labels, states[at] ^ states[np.maximum(at - W, 0)])
    before = digests(workdir)
    main.run(config_for(tmp_path / "out"), workdir)
    assert digests(workdir) == before


def test_errors_of_a_run_on_embeddings(tmp_path):
    embeddings.main(write(tmp_path))
    out = tmp_path / "out"
    for stages in (("pretrain", "temporal"), ("detector",)):
        with pytest.raises(ValueError, match=f"{stages[0]} in config.stages cannot run without"):
            main.run(config_for(out, stages=stages), tmp_path / stages[0])
    with pytest.raises(ValueError, match="procedure 'meccano' asked for"):
        main.run(config_for(out, procedure="meccano"), tmp_path / "meccano")
    with pytest.raises(ValueError, match="no split 'cad'; it has test, train, val"):
        FeatureSource(out, "cad", load_procedure(tmp_path / "box.json"))
    path = out / "features" / "train" / "a.npy"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ValueError, match=r"a\.npy cannot be used.*truncated.*run data_prep"):
        main.run(config_for(out), tmp_path / "truncated")
