"""What a model's product looks like through the user's own camera, from unlabelled videos of it.

A model that has seen renders alone cannot tell whether a video shows its product: everything looks
foreign to it. A few videos that do show it are enough to learn that (`recognise --own`). Where
embeddings lie and how familiar pictures are is learnt from them, of each video by the others; what
the states look like stays as it was learnt in training, as nothing else knows the states.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from stormpsr_jax.base.progress import Bar
from stormpsr_jax.media.pictures import read_upright
from stormpsr_jax.media.sources import Source
from stormpsr_jax.serving import product_gate_learning as learning
from stormpsr_jax.serving.model import Model
from stormpsr_jax.serving.product_gate import Fits, Looks, Prototypes, joined
from stormpsr_jax.serving.product_gate_watch import Watch
from stormpsr_jax.serving.recogniser import stack

RATE = 1.0  # pictures a second that are looked at
FEWEST = 3  # videos: what is familiar in one is learnt from the others


def gate_of(model: Model, sources: Sequence[Source]) -> Fits:
    """Learns from videos of a model's product how to recognise pictures of it.

    Raises:
        ValueError: there are fewer than three, one cannot be read, the model has no detector, or
            its networks see too little of the product in them to tell it from others.
    """
    if len(sources) < FEWEST:
        raise ValueError(f"--own: {len(sources)} videos are too few; give at least {FEWEST}")
    if "asd" not in model.streams:
        raise ValueError(
            "--own: this model has no detector, and an encoder alone cannot tell products apart; "
            "leave --own out"
        )
    initial, looks = model.procedure.initial_classes, {}
    with Bar(total=len(sources), desc="own videos", unit="video") as bar:
        for source in sources:
            recogniser = model.recogniser()
            rows = (model.prepare(picture) for picture in read_upright(source.open(RATE)))
            parts = []
            while part := list(itertools.islice(rows, model.batch)):
                parts.append(Looks.of(recogniser(stack(part)), initial))
            looks[source.name] = joined(parts)
            bar.update(1)
    return learn(looks, RATE, None if model.gate is None else model.gate.prototypes)


def learn(videos: Mapping[str, Looks], rate: float, prototypes: Prototypes | None = None) -> Fits:
    """Learns it from what is said of each video.

    Args:
        videos: of the product, by name.
        rate: pictures per second of these.
        prototypes: of the states, from training; None learns them here.

    Raises:
        ValueError: a video would be refused by what the others teach, as such a rule would refuse
            further ones of the product; it names the video.
    """
    looks = list(videos.values())

    def without(i: int) -> Fits:
        """What all others teach."""
        rest = joined([*looks[:i], *looks[i + 1 :]])
        own = prototypes or learning.prototypes_of(rest)
        if rest.embeddings is None:
            return Fits({}, None)
        return Fits({}, learning.space_of(np.asarray(rest.embeddings)), own)

    others, whole, space = [without(i) for i in range(len(looks))], joined(looks), None
    if whole.embeddings is not None:
        spaces = [other.space for other in others]
        distances = [
            space.distances(np.asarray(one.embeddings))
            for one, space in zip(looks, spaces, strict=True)
            if space is not None
        ]
        typical = learning.typical_of(np.concatenate(distances), whole)
        space = dataclasses.replace(
            learning.space_of(np.asarray(whole.embeddings)), typical=typical
        )
        others = [
            dataclasses.replace(other, space=dataclasses.replace(other.space, typical=typical))
            for other in others
            if other.space is not None
        ]
    thresholds = learning.thresholds_of(list(zip(looks, others, strict=True)), rate)
    thresholds.setdefault("detector", learning.LEAST)
    unknown = []
    for name, one, other in zip(videos, looks, others, strict=True):
        watch = Watch(dataclasses.replace(other, thresholds=thresholds), rate, ())
        for view in watch.views(one, 0):
            watch.update(view)
        if not watch.finish():
            unknown.append(name)
    if unknown:
        raise ValueError(
            f"--own: the networks see too little of the product in {', '.join(unknown)} to tell it "
            "from others. Give videos that show it; or leave --own out, and nothing is refused"
        )
    return Fits(thresholds, space, prototypes or learning.prototypes_of(whole))
