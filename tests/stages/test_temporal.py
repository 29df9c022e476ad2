import numpy as np
import pytest

from stormpsr_jax.data import clip_rows
from stormpsr_jax.stages import embed, temporal
from stormpsr_jax.stages.context import Context
from stormpsr_jax.stages.stage import train_stage
from stormpsr_jax.training import sharding
from stormpsr_jax.training.metrics import read_metrics
from tests.support.embeddings_data import config_for, write

SHORT = {"temporal.steps": 8, "temporal.eval_every": 4, "log_every": 2}
SHORT |= {"temporal.batch": 8, "checkpoint_every": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("embeddings"))


def context_for(folder, workdir):
    """That of a run whose stage `embed` is done."""
    context = Context(config_for(folder, **SHORT), workdir, sharding.make_mesh(1, 1))
    embed.run(context)
    return context


@pytest.mark.usefixtures("system")
def test_temporal_losses_do_not_depend_on_where_embeddings_are(folder, tmp_path):
    found = []
    for on_device in (True, False):
        context = context_for(folder, tmp_path / str(on_device))
        train_stage(context, "temporal", temporal.build(context, on_device))
        rows = read_metrics(context.workdir / "temporal" / "metrics.jsonl")
        found.append([row["loss"] for row in rows if "loss" in row])
    np.testing.assert_allclose(*found, rtol=1e-5)


def test_temporal_the_rows_of_clips_are_those_that_the_loader_reads(folder, tmp_path):
    context = context_for(folder, tmp_path)
    source = context.source("train")
    states = {name: r.states for name, r in source.recordings.items()}
    embeddings, options = context.embeddings("train"), context.clip_options(source, 16, 3)
    read = clip_rows.embedded_clips(embeddings, states, **options)(5)
    picked = clip_rows.embedded_clips(embeddings, states, **options, held=True)(5)
    table = clip_rows.table(embeddings)
    assert table.nbytes == clip_rows.table_bytes(embeddings)
    for _ in range(3):
        clips, rows = next(read), next(picked)
        np.testing.assert_array_equal(table[rows.pop("rows")], clips.pop("embeddings"))
        for name in clips:
            np.testing.assert_array_equal(clips[name], rows[name])
