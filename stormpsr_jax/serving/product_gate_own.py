"""What a model's product looks like through the user's own camera, from unlabelled videos of it.

A model that has seen renders alone cannot tell whether a video shows its product: everything
looks foreign to it. A few videos that do show it are enough to learn that (`recognise --own`).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from stormpsr_jax.base.progress import Bar
from stormpsr_jax.media.pictures import read_upright
from stormpsr_jax.media.sources import Source
from stormpsr_jax.serving.model import Model
from stormpsr_jax.serving.product_gate import Fits, Looks, joined
from stormpsr_jax.serving.product_gate_learning import learn
from stormpsr_jax.serving.recogniser import stack

RATE = 1.0  # pictures a second that are looked at


def learn_own(model: Model, sources: Sequence[Source]) -> Fits:
    """Learns by what pictures of a model's kind are told, from videos of its product.

    The networks have not seen them, so the thresholds are of pictures that they were not trained
    on.

    Raises:
        ValueError: a source cannot be read, or in none is anything of the product to be seen.
    """
    initial, looks = model.procedure.initial_classes, []
    with Bar(total=len(sources), desc="own videos", unit="video") as bar:
        for source in sources:
            recogniser = model.recogniser()
            rows = (model.prepare(picture) for picture in read_upright(source.open(RATE)))
            parts = []
            while part := list(itertools.islice(rows, model.batch)):
                parts.append(Looks.of(recogniser(stack(part)), initial))
            looks.append(joined(parts))
            bar.update(1)
    found = learn(looks, looks, RATE)
    # An encoder finds anything familiar that it is shown; a detector has to see the product.
    if looks[0].confidences is not None and "detector" not in found.thresholds:
        raise ValueError(
            f"--own: in none of {len(sources)} videos do the networks see the model's product, "
            f"{model.procedure.name}; give videos of it, or leave --own out"
        )
    return found
