import json

import numpy as np
import pytest

from data_prep import embeddings
from stormpsr_jax import main
from stormpsr_jax.data.features import FeatureSource
from stormpsr_jax.psr.files import predictions
from stormpsr_jax.psr.procedure import load_procedure
from tests.support.digests import digests
from tests.support.embeddings_data import (
    FIRST,
    PROCEDURE,
    N,
    W,
    config_for,
    states_of,
    write,
)


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
