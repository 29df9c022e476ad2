"""Stage `temporal`: the [CLS] transformer on clips of embeddings (arXiv 2510.12385, Sec. 3.3)."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import grain
import jax
import msgspec
import numpy as np

from stormpsr_jax.base import user_code
from stormpsr_jax.configs import default as sections
from stormpsr_jax.data import sampling
from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.data.pipelines import ENDLESS, Batches, batches
from stormpsr_jax.networks import architectures
from stormpsr_jax.networks.architectures import TEMPORAL
from stormpsr_jax.serving.content import Window
from stormpsr_jax.serving.functions import Batched
from stormpsr_jax.stages import learning
from stormpsr_jax.stages.data import SPLITS, Reads
from stormpsr_jax.stages.embed import Embedding
from stormpsr_jax.stages.stage import Run, Training
from stormpsr_jax.training import losses
from stormpsr_jax.training.optimizer import optimisation
from stormpsr_jax.training.step import Batch, Definition, Loss, Params


def embedded_clips(
    states: Mapping[str, np.ndarray],
    sampler: sampling.ClipSampler,
    *,
    frames: int,
    stride: int,
    batch: int,
    seed: int,
    workers: int = 0,
) -> Batches:
    """Batches for stage `temporal`.

    Args:
        states: {recording: (N, K)}, in the order in which the table has their embeddings.
        frames, stride: of a window, in rows of `states`.

    Yields:
        rows int32 (B, T) of the table, T = frames / stride + 1; label float32 (B, K);
        state int8 (B, K) in {-1, 0, 1}, of the last frame.
    """
    draw = functools.partial(_draw, {name: i for i, name in enumerate(states)}, sampler)
    drawn = grain.MapDataset.range(ENDLESS).seed(seed).random_map(draw)
    hosts = jax.process_count()
    dataset, single = (_Clips(drawn, states, frames, stride, size) for size in (batch, hosts))
    # Of one clip, as drawing a batch that is too large would take all the memory.
    row_bytes = sum(array.nbytes for array in single[0].values())
    return batches(dataset, workers, batch // hosts * row_bytes)


def _draw(
    numbers: Mapping[str, int], sampler: sampling.ClipSampler, _: int, rng: np.random.Generator
) -> tuple[int, int]:
    """Number of a recording, and row in it at which a clip ends."""
    name, last = sampler.draw(rng)
    return numbers[name], last


class _Clips(grain.MapDataset):
    """Draws → this host's rows of whole batches; one by one, Python takes four times as long."""

    def __init__(
        self,
        parent: grain.MapDataset,
        states: Mapping[str, np.ndarray],
        frames: int,
        stride: int,
        batch: int,
    ):
        super().__init__(parent)
        self._frames, self._stride, self._batch = frames, stride, batch
        self._rows = batch // jax.process_count()
        self._first = jax.process_index() * self._rows
        self._states = np.concatenate(list(states.values()))
        lengths = np.array([len(own) for own in states.values()])
        self._starts = np.cumsum(lengths) - lengths  # of a recording in the states and the table

    def __len__(self) -> int:
        return len(self._parent) // self._batch

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self.slice(index)
        first = index * self._batch + self._first
        drawn = [self._parent[i] for i in range(first, first + self._rows)]
        number, last = np.array(drawn).T
        start = self._starts[number]
        window = sampling.window_frames(last, frames=self._frames, stride=self._stride)
        state = self._states[start + last]
        before = self._states[start + np.maximum(last - self._frames, 0)]
        label = sampling.binarise(before) ^ sampling.binarise(state)
        rows = (start[:, None] + window).astype(np.int32)
        return {"rows": rows, "label": label.astype(np.float32), "state": state}


STEPS_PER_DISPATCH = 25
CLIPS = 256  # that are judged at once


@dataclasses.dataclass(frozen=True)
class TemporalTraining(Training):
    """Trains the temporal encoder and keeps the one with the best clip F1 on validation.

    Which F1, `temporal.best` says.
    """

    name = "temporal"

    temporal: sections.Temporal
    temporal_model: sections.TemporalModel
    window: sections.Window
    attention: str
    embed: Embedding

    @property
    def clip(self) -> Window:
        """The clip in rows of the embeddings, one a frame."""
        return Window(self.window.frames, self.window.stride)

    def network(self, run: Run) -> nn.Module:
        """The [CLS] transformer, a baseline or a user's own; ValueError if that cannot be had."""
        section = msgspec.structs.asdict(self.temporal_model)
        section["head"] = "mlp"  # the paper's hidden layer
        name, place = section.pop("backbone"), "--config.temporal_model"
        values = user_code.values(section.pop("fields"), f"{place}.fields")
        T, seen = self.clip.num_frames, section["context_frames"]
        K, outputs = run.procedure.num_components, 3 if self.temporal.state_loss else 1
        if ":" in name:
            asked = {"num_components": K, "outputs": outputs, "context_frames": seen}.items()
            needed = dict(asked - {("outputs", 1), ("context_frames", 0)})
            kind = architectures.own(name, f"{place}.backbone")
            usual = {"num_frames": T, "dtype": run.activations}
            try:
                return learning.module_of(kind, usual, **needed, **values)
            except TypeError as error:  # of fields that it has not, or that are missing
                raise ValueError(f"{place}.backbone={name}: {error}") from error
        if values:
            raise ValueError(f"{place}.fields: is for a network of your own, MODULE:NAME")
        if name != "transformer":
            # Baselines have fields of their own, where 0 is the network's default.
            fields = {
                field.removeprefix(prefix): value
                for prefix in ("baseline_", f"{name}_")
                for field, value in section.items()
                if field.startswith(prefix) and value
            }
            section = {"context_frames": seen} | fields
        # Few have fields that follow from the frames of a clip but for their number.
        section |= getattr(TEMPORAL[name], "of_clips", lambda *_: {"num_frames": T})(T, seen)
        given = {"num_components": K, "outputs": outputs, "dtype": run.activations}
        return learning.module_of(TEMPORAL[name], section, **given)

    def logits(self, run: Run, params: Params) -> Batched:
        """Embeddings of clips (B, T, D) → logits of changes (B, K)."""
        function = _clip_logits(self.network(run), run.procedure.num_components)
        return Batched(function, params, CLIPS)

    def build(self, run: Run) -> Definition:
        """Returns what it trains; clips are put together on the devices, which have all rows."""
        config, data = self.temporal, run.data
        train, val = data.source("train"), data.source("val")
        val_embeddings = self.embed.read(run, "val")
        val_states = {name: r.states for name, r in val.recordings.items()}
        seed, every = run.config.seed, self.embed.embed.every
        model = learning.to_train(run, self.network(run), self.attention)
        width = next(iter(val_embeddings.values())).shape[1]
        shape = (1, self.clip.num_frames, width)
        loss_of = self.loss(run, config.batch)

        def init() -> tuple[Params, Params]:
            return learning.fresh(model, run.key("temporal/init"), shape)["params"], {}

        def loss_fn(params: Params, batch_stats: Params, batch: Batch, rng: jax.Array) -> Loss:
            # Behind a barrier the network is compiled as without the table, and rounds alike.
            x = jax.lax.optimization_barrier(batch["table"][batch["rows"]])
            predicted: Any = model.apply({"params": params}, x, train=True, rngs={"dropout": rng})
            return loss_of(predicted, batch, batch_stats)

        def held() -> dict[str, np.ndarray]:
            return {"table": np.concatenate(list(self.embed.read(run, "train").values()))}

        def evaluate(params: Params, _: Params) -> dict[str, float]:
            logits = self.logits(run, params)
            return learning.clip_scores(logits, val_embeddings, val_states, self.clip)

        return Definition(
            init=init,
            loss_fn=loss_fn,
            data=embedded_clips(
                {name: r.states for name, r in train.recordings.items()},
                **self.clip_options(run, train, config.batch, seed, every),
            ),
            **optimisation(config),
            evaluate=evaluate,
            best=config.best,
            unit="clips",
            steps_per_dispatch=STEPS_PER_DISPATCH,
            held=held,
        )

    def loss(self, run: Run, clips: int) -> Callable[[jax.Array, Batch, Params], Loss]:
        """Of logits and so many clips: XOR loss, and that of conditions at last frames if asked."""
        config, K = self.temporal, run.procedure.num_components
        of_changes = losses.find("temporal.loss", config.loss, (clips, K), (clips, K), (clips,))

        def loss_of(logits: jax.Array, batch: Batch, batch_stats: Params) -> Loss:
            loss = of_changes(logits[:, :K], batch["label"]).mean()
            metrics: dict[str, jax.Array] = {}
            if weight := config.state_loss:
                states, metrics = losses.condition_bce(logits[:, K:], batch["state"])
                loss = loss + weight * states
            return loss, (metrics, batch_stats)

        return loss_of

    def clip_options(
        self, run: Run, source: ClipSource, batch: int, seed: int, every: int = 1
    ) -> dict[str, Any]:
        """What the pipelines of training clips take; clips end at every `every`-th row."""
        config = self.temporal
        sampler = sampling.ClipSampler(
            source.recordings,
            wrong=config.state_loss > 0,
            every=every,
            sampling=config.sampling,
            delta=config.delta,
            sigma=config.sigma,
        )
        return {
            "sampler": sampler,
            "frames": self.window.frames,
            "stride": self.window.stride,
            "batch": batch,
            "seed": seed,
            "workers": run.workers,
        }

    def reads(self, run: Run) -> list[Reads]:
        """States: pictures are in the embeddings."""
        return [Reads(("states",), SPLITS)]

    def check(self, run: Run) -> list[str]:
        """Says whether windows, batches and the network can be made."""
        rows, T = self.temporal.batch, self.clip.num_frames
        self.loss(run, rows)
        model = learning.to_train(run, self.network(run), self.attention)
        width = self.embed.width(run)
        return [
            *self.window_errors(run),
            *learning.batch_errors(run, "temporal", rows),
            *(learning.network_errors("temporal_model", model, (rows, T, width)) if width else ()),
        ]

    def window_errors(self, run: Run) -> list[str]:
        """Says whether windows would look at frames that are not encoded, or none lies within.

        Of the latter all would repeat a first frame.
        """
        every, (frames, stride) = self.embed.embed.every, (self.window.frames, self.window.stride)
        errors = []
        if stride % every:
            errors.append(
                f"--config.embed.every={every}: does not divide window.stride={stride}, so that "
                "windows would look at frames that are not encoded; set it to a divisor of it"
            )
        if run.data.is_there:
            recordings = run.data.source(SPLITS[0]).recordings.values()
            longest = max((r.num_frames for r in recordings), default=0)
            if longest <= frames:
                errors.append(
                    f"window.frames={frames}, but the longest recording of split 'train' has "
                    f"{longest} frames, so no window lies within one; lower window.frames"
                )
        return errors


@functools.lru_cache(maxsize=4)  # compiled once for `temporal` and `finetune`
def _clip_logits(module: nn.Module, K: int) -> jax.stages.Wrapped:
    def clip_logits(params: Params, x: jax.Array, count: jax.Array) -> jax.Array:
        del count  # all are computed
        return architectures.apply(module, {"params": params}, x)[:, :K]

    return jax.jit(clip_logits)
