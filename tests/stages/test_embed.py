import json
import pickle
import shutil

import numpy as np
import pytest

from stormpsr_jax import main
from stormpsr_jax.configs import own
from stormpsr_jax.recordings import predictions
from tests.support.digests import digests
from tests.support.embeddings_data import FIRST, PROCEDURE, D, N, W, config_for, states_of, write
from tests.support.tiny import tiny_run


def test_frames_that_are_not_encoded_repeat_the_one_before(finished, tmp_path):
    for every in (1, 4):
        folder = tmp_path / str(every)
        folder.mkdir()
        for name in ("data", "pretrain"):
            (folder / name).symlink_to(finished / name)
        run, stages = tiny_run(folder, **{"embed.every": every})
        stages["embed"].make(run)
    paths = sorted((tmp_path / "1" / "embed").rglob("*.npy"))
    assert paths
    for path in paths:
        each = np.load(path)
        held = np.load(tmp_path / "4" / path.relative_to(tmp_path / "1"))
        np.testing.assert_array_equal(held, each[np.arange(len(each)) // 4 * 4])


# --- Embeddings of another encoder ----------------------------------------------------------------


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    return write(tmp_path_factory.mktemp("embeddings"))


@pytest.mark.usefixtures("system")
def test_run_on_the_embeddings_of_another_encoder_scores_and_leaves_no_model(
    given, tmp_path, capsys
):
    features, workdir = tmp_path / "features", tmp_path / "run"
    shutil.copytree(given / "features", features)
    config = config_for(given, **{"embed.files": str(features)})
    main.run(config, workdir)
    result = json.loads((workdir / "metrics.json").read_text())
    assert set(result["streams"]) == {"temporal"}
    assert result["streams"]["temporal"]["f1"] > 0.85
    assert result["streams"]["temporal"]["delay_s"] < W / PROCEDURE.fps
    path = workdir / "predictions" / "test" / "temporal" / "k_results_pred.csv"
    predicted = predictions.read_temporal(path, PROCEDURE)
    np.testing.assert_array_equal(predicted.frames, np.arange(FIRST, FIRST + N))
    states = states_of("k")
    before = states[np.maximum(np.arange(N) - W, 0)]
    np.testing.assert_array_equal(predicted.labels, states ^ before)
    assert not (workdir / "model").exists()
    said = capsys.readouterr().out
    assert "No model folder is written: it would lack the encoder that made embed.files." in said
    assert "recognises by" not in said
    made = digests(workdir)
    main.run(config, workdir)
    assert digests(workdir) == made
    np.save(features / "k.npy", np.load(features / "k.npy") + 1)
    with pytest.raises(ValueError, match=r"temporal \(embed is made again\)"):
        main.run(config, workdir)


@pytest.mark.usefixtures("system")
def test_embeddings_of_elsewhere_tell_right_from_wrong_by_the_recipe_of_own(given, tmp_path):
    config = own.get_config("embeddings").unlock()
    its = config_for(given)
    config.update(window=its.window, temporal_model=its.temporal_model)
    config.update(temporal=its.temporal, data=its.data, embed=its.embed)
    config.temporal.state_loss = 1.0
    main.run(config, tmp_path)
    streams = json.loads((tmp_path / "metrics.json").read_text())["streams"]
    assert set(streams) == {"temporal", "learned"}
    assert streams["temporal"]["f1"] > 0.85
    assert streams["learned"]["settings"]["sure"] is not None


class Harmful:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("a file was unpickled",))


def value(row, column, number, dtype=np.float32):
    def change(path):
        rows = np.load(path).astype(dtype)
        rows[row, column] = number
        np.save(path, rows)

    return change


# What is done to the file of recording a or to the config, and what the line says.
ERRORS = {
    "missing": (lambda path: path.unlink(), r"a\.npy: is missing; --config\.embed\.files has"),
    "rows": (
        lambda path: np.save(path, np.ones((N - 1, D), np.float32)),
        rf"a\.npy: float32 of shape \(239, 12\); a row of numbers for each of the {N} frames",
    ),
    "width": (
        lambda path: np.save(path, np.ones((N, D + 1), np.float32)),
        r"different widths: .*[b-l]\.npy has D = 12, .*a\.npy has D = 13",
    ),
    "integers": (lambda path: np.save(path, np.ones((N, D), int)), r"a\.npy: int64 of shape"),
    "pickle": (lambda path: path.write_bytes(pickle.dumps(Harmful())), r"a\.npy: not an array"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-1]), r"a\.npy: not an array"),
    "nan": (value(30, 5, np.nan), r"a\.npy: row 30 has nan in column 5; finite numbers"),
    "too large": (value(2, 0, 1e300, float), r"a\.npy: row 2 has inf in column 0"),
    "encoder": ({"stages": ("pretrain", "embed", "temporal")}, "leave pretrain out of config"),
    "every": ({"embed.every": 4}, "has a row for each frame; set embed.every to 1"),
}


@pytest.mark.parametrize("what", ERRORS)
def test_embeddings_that_cannot_be_taken_are_a_line(given, tmp_path, what):
    change, message = ERRORS[what]
    features = tmp_path / "features"
    shutil.copytree(given / "features", features)
    fields = {"embed.files": str(features)}
    if callable(change):
        change(features / "a.npy")
    else:
        fields |= change
    with pytest.raises(ValueError, match=message) as caught:
        main.run(config_for(given, **fields), tmp_path / "run")
    assert len(str(caught.value).splitlines()) == 1
