"""The embeddings of key frames on a plane, coloured by assembly state."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from stormpsr_jax.base import installed
from stormpsr_jax.experiments.runs import Run
from stormpsr_jax.stages import networks, pretrain, validation
from stormpsr_jax.training import checkpoint

HINT = f"the figure of embeddings needs scikit-learn: {installed.extra('paper')}"


def embed(run: Run) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The key frames of a run's test split; see `validation.embedded_key_frames`."""
    context = run.context
    source = context.source("test")
    window = pretrain.key_frame_window(context, source)
    params, batch_stats = checkpoint.load_best(run.folder / "pretrain")
    encoder = networks.frame_encoder(context, params, batch_stats, source)
    initial = run.config.pretrain.initial_state
    return validation.embedded_key_frames(encoder, source, context.procedure, window, initial)


def draw(runs: Mapping[str, Run], path: Path) -> dict[str, float]:
    """Draws the embeddings of some runs side by side, and says how well states are apart.

    Args:
        runs: by the text above each.

    Returns:
        By the same text, the share of key frames whose nearest one of another recording shows the
        same state.

    Raises:
        ValueError: scikit-learn is not installed, or there is no key frame.
    """
    try:
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise ValueError(HINT) from error
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * len(runs) + 1.5, 5), layout="constrained")
    axes = figure.subplots(1, len(runs), squeeze=False)[0]
    agreement, drawn = {}, []
    for axis, (text, run) in zip(axes, runs.items(), strict=True):
        z, labels, names = embed(run)
        apart = names[:, None] != names[None]
        agreement[text] = float(validation.nearest_agrees(z, labels, apart).mean())
        perplexity = max(1.0, min(30.0, (len(z) - 1) / 3))
        flat = TSNE(2, init="pca", perplexity=perplexity, random_state=0).fit_transform(z)
        most = run.context.procedure.num_states
        drawn.append(axis.scatter(*flat.T, c=labels, cmap="turbo", vmin=1, vmax=most, s=9))
        axis.set(title=f"{text}, precision@1 {agreement[text]:.2f}", xticks=[], yticks=[])
    figure.colorbar(drawn[-1], ax=axes.tolist(), label="assembly state")
    figure.savefig(path, dpi=150)
    return agreement
