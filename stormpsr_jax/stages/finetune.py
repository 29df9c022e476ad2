"""Stage `finetune`: both networks together, end to end (STORM-PSR, arXiv 2510.12385, Sec. 3.3)."""

import dataclasses
import zlib
from typing import Any

import jax

from stormpsr_jax.configs import default as sections
from stormpsr_jax.data import pipelines
from stormpsr_jax.stages import learning
from stormpsr_jax.stages.data import SPLITS, Reads
from stormpsr_jax.stages.pretrain import Pretraining
from stormpsr_jax.stages.stage import Run, Training
from stormpsr_jax.stages.temporal import TemporalTraining
from stormpsr_jax.training import checkpoint
from stormpsr_jax.training.optimizer import optimisation
from stormpsr_jax.training.step import Batch, Definition, Loss, Params


@dataclasses.dataclass(frozen=True)
class Finetuning(Training):
    """Trains both, with the encoder unfrozen.

    With finetune.batch_norm "train" its BatchNorm goes on as well: it normalises by all pictures of
    a batch of clips, and its running statistics, which recognition takes, follow. With "frozen" it
    keeps the statistics of `pretrain`.
    """

    name = "finetune"

    finetune: sections.Finetune
    augment: sections.Augment
    attention: str
    pretrain: Pretraining
    temporal: TemporalTraining

    def build(self, run: Run) -> Definition:
        """Returns what it trains."""
        config, clip, data = self.finetune, self.temporal.clip, run.data
        train, val = data.source("train"), data.source("val")
        spatial = self.pretrain.network_to_train(run)
        transformer = learning.to_train(run, self.temporal.network(run), self.attention)
        loss_of = self.temporal.loss(run, config.batch)
        val_states = {name: r.states for name, r in val.recordings.items()}

        def init() -> tuple[Params, Params]:
            spatial_params, batch_stats = checkpoint.load_best(run.workdir / "pretrain")
            temporal_params, _ = checkpoint.load_best(run.workdir / "temporal")
            return {"spatial": spatial_params, "temporal": temporal_params}, batch_stats

        def loss_fn(params: Params, batch_stats: Params, batch: Batch, rng: jax.Array) -> Loss:
            augment_key, dropout_key = jax.random.split(rng)
            pictures = learning.augmented(self.augment, augment_key, batch["image"])
            images = data.normalise(pictures)
            flat = images.reshape((-1, *images.shape[2:]))  # (B·T, H, W, 3)
            embeddings, updates = spatial.apply(
                {"params": params["spatial"], "batch_stats": batch_stats},
                flat,
                train=config.batch_norm == "train",
                method="embed",
                mutable=["batch_stats"],
            )
            predicted: Any = transformer.apply(
                {"params": params["temporal"]},
                embeddings.reshape((*images.shape[:2], -1)),
                train=True,
                rngs={"dropout": dropout_key},
            )
            return loss_of(predicted, batch, updates["batch_stats"])

        def evaluate(params: Params, batch_stats: Params) -> dict[str, float]:
            encode = self.pretrain.encode(run, params["spatial"], batch_stats, val)
            logits = self.temporal.logits(run, params["temporal"])
            return learning.clip_scores(logits, learning.embeddings(encode, val), val_states, clip)

        # Clips are drawn by another seed than those of stage `temporal`, or the very same would
        # come first; in 31 bits, as grain takes seeds.
        seed = (run.config.seed + zlib.crc32(b"finetune")) % 2**31
        options = self.temporal.clip_options(run, train, config.batch, seed)
        return Definition(
            init=init,
            loss_fn=loss_fn,
            data=pipelines.picture_clips(train, **options),
            **optimisation(config, {"spatial": config.encoder_lr_scale}),
            evaluate=evaluate,
            best=self.temporal.temporal.best,
            evaluate_start=True,
            unit="clips",
        )

    def reads(self, run: Run) -> list[Reads]:
        """Pictures and states."""
        return [Reads(("pictures", "states"), SPLITS)]

    def check(self, run: Run) -> list[str]:
        """Says whether windows, batches and the network can be made."""
        size, clips = learning.image_size(run), self.finetune.batch
        pictures = clips * self.temporal.clip.num_frames
        model = self.pretrain.network_to_train(run)
        return [
            *self.temporal.window_errors(run),
            *learning.batch_errors(run, "finetune", clips),
            *learning.network_errors("encoder", model, (pictures, *size, 3)),
        ]
