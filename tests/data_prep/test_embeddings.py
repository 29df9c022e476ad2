"""Ready-made embeddings from files of every kind to a scored run, and what is refused."""

import hashlib
import importlib
import json
import pickle
import re
import tracemalloc
import zipfile

import numpy as np
import pytest
from absl import flags

from data_prep import embedding_files, embeddings
from stormpsr_jax import main
from stormpsr_jax.data import sampling
from stormpsr_jax.data.features import FeatureSource
from stormpsr_jax.psr import labels, predictions
from stormpsr_jax.psr.procedure import load_procedure
from stormpsr_jax.stages import temporal
from stormpsr_jax.stages.context import Context
from stormpsr_jax.training.sharding import make_mesh

K, D, N, FIRST, W = 4, 12, 240, 1, 16
RECORDINGS = {"train": "abcdefgh", "val": "ij", "test": "kl"}
PROCEDURE = {
    "name": "box",
    "fps": 10.0,
    "components": ["base", "wheel", "lid", "pin"],
    "states": ["1000", "1100", "1110", "1111"],
    "variants": {"any": {"initial_state": "0000", "expected": [0, 3, 6, 9], "recordings": ["*"]}},
}
SMALL = {
    "window.frames": W,
    "temporal_model.depth": 1,
    "temporal_model.num_heads": 2,
    "temporal_model.dim_head": 8,
    "temporal_model.mlp_dim": 32,
    "temporal.steps": 150,
    "temporal.batch": 64,
    "temporal.delta": 5.0,
    "temporal.sigma": 4.0,
    "temporal.eval_every": 50,
    "temporal.checkpoint_every": 150,
    "temporal.optimizer.name": "adamw",
    "temporal.optimizer.lr": 1e-2,
    "temporal.optimizer.warmup_steps": 10,
}


def steps_of(name):
    """Four installs at random frames, of which no two share a window."""
    rng = np.random.default_rng(ord(name))
    frames = FIRST + np.arange(20, 201, 50) + rng.integers(0, 30, K)
    return [(int(frame), 3 * k) for k, frame in enumerate(frames)]


def states_of(name):
    """(N, K), written here without the package."""
    states = np.zeros((N, K), np.int8)
    for frame, step in steps_of(name):
        states[frame - FIRST :, step // 3] = 1
    return states


def features_of(name, width=D, scale=5.0):
    rng = np.random.default_rng(1000 + ord(name))
    mixing = np.random.default_rng(0).normal(size=(K, width))
    noise = rng.normal(size=(N, width))
    return (scale * (1 + states_of(name) @ mixing + 0.3 * noise)).astype(np.float32)


def write(folder, change=lambda array: array, raw=True):
    """Writes features, labels and the procedure file; returns the command's words."""
    (folder / "box.json").parent.mkdir(parents=True, exist_ok=True)
    (folder / "box.json").write_text(json.dumps(PROCEDURE))
    procedure = load_procedure(folder / "box.json")
    for split, names in RECORDINGS.items():
        (folder / "features" / split).mkdir(parents=True)
        for name in names:
            np.save(folder / "features" / split / f"{name}.npy", change(features_of(name)))
            to = folder / "labels" / split / name
            to.mkdir(parents=True)
            labels.write_steps(to / "PSR_labels.csv", steps_of(name), procedure)
            if raw:
                rows = [0, *(frame - FIRST for frame, _ in steps_of(name))]
                frames = FIRST + np.array(rows)
                labels.write_states(to / "PSR_labels_raw.csv", frames, states_of(name)[rows])
    return [
        f"--features={folder / 'features'}",
        f"--labels={folder / 'labels'}",
        f"--procedure={folder / 'box.json'}",
        f"--out={folder / 'out'}",
        f"--first_frame={FIRST}",
    ]


def config_for(folder, **changes):
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    config = importlib.import_module("configs.embeddings").get_config()
    config.update_from_flattened_dict({**SMALL, "data.dir": str(folder), **changes})
    return config


def contents(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("stride", [1, 4])
def test_run_property_learns_predicts_and_scores_without_a_picture(tmp_path, stride):
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
    np.testing.assert_array_equal(predicted.frames, np.arange(FIRST, FIRST + N, stride))
    at = predicted.frames - FIRST
    states = states_of("k")
    np.testing.assert_array_equal(predicted.labels, states[at] ^ states[np.maximum(at - W, 0)])
    before = contents(workdir)
    main.run(config_for(tmp_path / "out"), workdir)
    assert contents(workdir) == before


@pytest.mark.slow
def test_run_property_untrained_scores_low(tmp_path):
    """So that the threshold of the test above means that something was learnt."""
    embeddings.main(write(tmp_path))
    changes = {"temporal.steps": 1, "temporal.eval_every": 1, "temporal.optimizer.lr": 1e-6}
    main.run(config_for(tmp_path / "out", **changes), tmp_path / "run")
    result = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert result["streams"]["temporal"]["f1"] < 0.6


def contexts_for(folder, stride, **changes):
    """The same recordings with the embeddings of all frames, and with those of some."""
    for name, step in (("all", 1), ("some", stride)):
        words = write(folder / name, change=lambda array, step=step: array[::step])
        embeddings.main([*words, f"--stride={step}"])
        yield Context(config_for(folder / name / "out", **changes), folder, make_mesh(1, 1))


@pytest.mark.parametrize(("stride", "window_stride"), [(2, 4), (4, 4), (4, 8)])
def test_window_property_strided_rows_are_those_of_the_same_frames(tmp_path, stride, window_stride):
    """Windows cut from every stride-th row hold what the same windows of all rows hold."""
    dense, strided = contexts_for(tmp_path, stride, **{"window.stride": window_stride})
    assert dense.num_frames == strided.num_frames == W // window_stride + 1
    dense_rows = dense.source("val").embeddings["i"][:]
    strided_rows = strided.source("val").embeddings["i"][:]
    for row in range(len(strided_rows)):
        a = sampling.window_frames(row * stride, **dense.window._asdict())
        b = sampling.window_frames(row, **strided.window._asdict())
        np.testing.assert_array_equal(dense_rows[a], strided_rows[b])


@pytest.mark.parametrize("floor", [0.0, 0.01])
def test_clip_options_property_strided_clips_end_where_those_of_all_frames_do(tmp_path, floor):
    drawn = []
    for context in contexts_for(tmp_path, 4, **{"temporal.floor": floor}):
        sampler = temporal.clip_options(context, context.source("val"), 1)["sampler"]
        rng = np.random.default_rng(0)
        drawn.append([context.frame_step * sampler.draw(rng)[1] for _ in range(4000)])
    bins = np.arange(0, N + 1, 8)
    dense, strided = (np.histogram(frames, bins)[0].cumsum() / 4000 for frames in drawn)
    assert np.abs(dense - strided).max() < 0.05


def test_window_errors_stride_that_does_not_fit(tmp_path):
    embeddings.main([*write(tmp_path, change=lambda array: array[::3]), "--stride=3"])
    with pytest.raises(ValueError, match=r"window\.stride=4.*every 3-th frame.*multiple of 3"):
        main.run(config_for(tmp_path / "out"), tmp_path / "run")


@pytest.mark.parametrize("kind", ["float16", "float64", "npz", "named", "frames", "big-endian"])
def test_make_dataset_property_every_kind_of_file_gives_the_same_rows(tmp_path, kind):
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
            assert (source.stride, source.recordings[name].first_frame) == (2, 7)
            np.testing.assert_array_equal(source.embeddings[name][:], features_of(name)[::2])
            states = np.concatenate([states_of(name), np.ones((10, K), np.int8)])
            expected = states[7 - FIRST : 7 - FIRST + N : 2]
        else:
            tolerance = 1e-3 if kind == "float16" else 0
            np.testing.assert_allclose(source.embeddings[name][:], features_of(name), tolerance)
            expected = states_of(name)
        np.testing.assert_array_equal(source.recordings[name].states, expected)


def test_make_dataset_property_l2_rows_have_length_one_and_zeros_stay(tmp_path):
    def change(array):
        array[5] = 0
        return array

    embeddings.main(write(tmp_path, change))
    source = FeatureSource(tmp_path / "out", "test", load_procedure(tmp_path / "box.json"))
    rows = source.embeddings["k"][:]
    lengths = np.linalg.norm(rows, axis=1)
    assert lengths[5] == 0
    np.testing.assert_allclose(np.delete(lengths, 5), 1, atol=1e-6)
    expected = features_of("k")[0]
    np.testing.assert_allclose(rows[0], expected / np.sqrt((expected**2).sum()), rtol=1e-5)


def test_make_dataset_property_states_follow_from_steps_alone(tmp_path):
    with_raw, without = tmp_path / "a", tmp_path / "b"
    for folder in (with_raw, without):
        embeddings.main(write(folder, raw=folder is with_raw))
    ours, theirs = contents(with_raw / "out"), contents(without / "out")
    assert ours.pop("settings.json") != theirs.pop("settings.json")  # other label files
    assert ours == theirs


def test_make_dataset_property_splits_by_globs_and_fps(tmp_path):
    words = write(tmp_path)
    for path in list((tmp_path / "features").glob("*/*.npy")):
        path.rename(tmp_path / "features" / path.name)
    embeddings.main([*words, "--split=train:[a-d],val:[e-h],test:[i-z]", "--fps=25"])
    procedure = load_procedure(tmp_path / "box.json")
    for split, names in (("train", "abcd"), ("val", "efgh"), ("test", "ijkl")):
        source = FeatureSource(tmp_path / "out", split, procedure)
        assert (list(source.recordings), source.fps) == (list(names), 25.0)


def test_make_dataset_property_same_bytes_when_interrupted_and_for_any_workers(
    tmp_path, monkeypatch, capsys
):
    words = write(tmp_path)
    embeddings.main(words)
    whole = contents(tmp_path / "out")
    embeddings.main([*words[:3], f"--out={tmp_path / 'two'}", words[4], "--workers=2"])
    assert contents(tmp_path / "two") == whole

    convert = embeddings._float32
    done = []

    def failing(values, job, frame):
        done.append(job.name)
        if len(done) == 5:
            raise OSError(28, "No space left on device")
        return convert(values, job, frame)

    other = [*words[:3], f"--out={tmp_path / 'three'}", words[4]]
    monkeypatch.setattr(embeddings, "_float32", failing)
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        embeddings.main(other)
    assert exit_.value.code == 2
    assert "error: recording train/c: no space left" in capsys.readouterr().err
    assert not (tmp_path / "three" / "embeddings.json").exists()
    with pytest.raises(ValueError, match="not finished"):
        Context(config_for(tmp_path / "three"), tmp_path, make_mesh(1, 1)).source("train")
    finished = {p: p.stat().st_ino for p in (tmp_path / "three" / "features").rglob("*.npy")}
    assert 4 <= len(finished) < 12  # those before c, and what was under way
    embeddings.main(other)
    assert contents(tmp_path / "three") == whole
    assert all(path.stat().st_ino == inode for path, inode in finished.items())


def test_make_dataset_property_memory_does_not_grow_with_a_recording(tmp_path):
    peaks = []
    for rows in (20_000, 160_000):
        folder = tmp_path / str(rows)
        words = write(folder)
        for path in (folder / "features").glob("*/*.npy"):
            if path.stem != "a":
                path.unlink()
        for path in (folder / "labels").glob("*/[b-z]/*"):
            path.unlink()
        np.save(folder / "features" / "train" / "a.npy", np.ones((rows, 64), np.float16))
        tracemalloc.start()
        embeddings.main(words)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 160_000 * 64  # bytes: a quarter of what the rows take in float32


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


FEATURE_ERRORS = {
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
    "past the end": ("00241.jpg,3,x\n", r"a label at frame 241, but the 240 rows .* 1…240"),
    "before the start": ("00000.jpg,3,x\n", r"a label at frame 0, but"),
    "unknown step": ("00100.jpg,12,x\n", "step id"),
    "no number": ("00100.jpg,one,x\n", "step id"),
}


def refused(words, capsys):
    """The one line that the command ends with."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        embeddings.main(words)
    lines = [line for line in capsys.readouterr().err.splitlines() if "it/s" not in line]
    assert exit_.value.code == 2
    assert sum(line.startswith("error: ") for line in lines) == 1
    return lines[-1]


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
    line = refused(words, capsys)
    for part in ("no features in", "for a, i", "no labels in", "for b", "c.npy", "d/PSR_labels_raw",
                 "k/PSR_labels.csv"):  # fmt: skip
        assert part in line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--stride=0"], "--stride=0 is out of range"),
        (["--fps=0"], "--fps=0.0"),
        (["--fps=nan"], "--fps=nan"),
        (["--first_frame=-1"], "--first_frame=-1"),
        (["--workers=0"], "--workers=0"),
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
    assert "other fps" in refused([*words, "--fps=3"], capsys)
    np.save(tmp_path / "features" / "train" / "a.npy", features_of("b"))
    assert "other sources" in refused(words, capsys)


def test_errors_of_a_run_on_embeddings(tmp_path):
    embeddings.main(write(tmp_path))
    out = tmp_path / "out"
    for stages in (("pretrain", "temporal"), ("embed",), ("finetune",), ("detector",)):
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


def test_remarks_name_missing_splits_and_frames_that_do_not_meet(tmp_path, capsys):
    words = write(tmp_path)
    embeddings.main([*words[:-1], "--split=train:*"])  # without --first_frame
    printed = capsys.readouterr().err
    assert "no split 'val'" in printed
    assert "a at 1 and 0: is --first_frame right?" in printed


def test_read_rows_property_never_holds_more_than_a_piece(tmp_path, monkeypatch):
    monkeypatch.setattr(embedding_files, "_VALUES_AT_ONCE", 7 * D)
    path = tmp_path / "a.npz"
    np.savez_compressed(path, features_of("a"))
    with zipfile.ZipFile(path) as file:
        assert file.namelist() == ["arr_0.npy"]
    pieces = list(embedding_files.read_rows(path))
    assert max(map(len, pieces)) == 7
    np.testing.assert_array_equal(np.concatenate(pieces), features_of("a"))
