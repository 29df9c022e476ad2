"""Stage `pretrain`: supervised contrastive learning of key frames (arXiv 2510.12385, Sec. 3.2)."""

import dataclasses
from typing import Any

import jax
import msgspec
import numpy as np

from stormpsr_jax.base.errors import tell
from stormpsr_jax.configs import default as sections
from stormpsr_jax.data import pipelines, sampling
from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.networks import backbones
from stormpsr_jax.networks.spatial import SpatialEncoder
from stormpsr_jax.serving.functions import Batched, Network, functions
from stormpsr_jax.stages import learning
from stormpsr_jax.stages.data import CAD, FPS, SPLITS, Reads
from stormpsr_jax.stages.stage import Run, Training
from stormpsr_jax.training import losses
from stormpsr_jax.training.checkpoint import BEST
from stormpsr_jax.training.optimizer import layer_lr_scale, optimisation
from stormpsr_jax.training.step import Batch, Definition, Loss, Params
from stormpsr_jax.weights import parameters


@dataclasses.dataclass(frozen=True)
class Pretraining(Training):
    """Trains f·g and keeps the encoder with the best validation precision@1.

    Where no two validation recordings can be compared, it keeps the last one. With
    pretrain.steps=0, the ablation without KFS, it keeps what it starts from: the backbone then has
    the weights of `init_from`, and its head random ones.
    """

    name = "pretrain"
    start = "init_from"

    pretrain: sections.Pretrain
    encoder: sections.Encoder
    augment: sections.Augment
    attention: str
    init_from: sections.File

    @property
    def takes_renders(self) -> bool:
        """Whether there are clean renders in its batches."""
        return bool(self.pretrain.steps and self.pretrain.cad_per_state)

    # --- Networks ---------------------------------------------------------------------------------

    def network(self, run: Run) -> SpatialEncoder:
        """The backbone with its projection head, not for training; see `network_to_train`."""
        section = msgspec.structs.asdict(self.encoder) | {"remat": "none"}
        # With its weight 0, the encoder has no state head.
        K = run.procedure.num_components if self.pretrain.state_loss > 0 else 0
        backbone = backbones.build(section, dtype=run.activations)
        return learning.module_of(SpatialEncoder, section, encoder=backbone, num_components=K)

    def network_to_train(self, run: Run) -> SpatialEncoder:
        """`network` as the devices of a run train it."""
        model = self.network(run)
        backbone = learning.to_train(run, model.encoder, self.attention)
        return model.clone(encoder=backbone.clone(remat=self.encoder.remat))

    def encode(self, run: Run, params: Params, batch_stats: Params, source: ClipSource) -> Batched:
        """Pictures of a source, uint8 (B, H, W, 3) → embeddings (B, D), predict.batch at once."""
        network = Network(self.network(run), {"params": params, "batch_stats": batch_stats})
        pictures = run.data.pictures(source)
        return functions({"encoder": network}, pictures, 1, run.config.predict.batch)["encode"]

    def starting_point(self, run: Run, image_size: tuple[int, int]) -> tuple[dict, dict]:
        """(params, batch_stats) for pictures of (H, W) pixels: of `init_from`, else fresh ones.

        ValueError if the file does not fit the config's encoder.
        """
        model, key = self.network(run), run.key("pretrain/init")
        variables = learning.fresh(model, key, (2, *image_size, 3))
        params, batch_stats = variables["params"], variables.get("batch_stats", {})
        if path := self.start_file():
            params, batch_stats, number = parameters.initialise_from(
                path, params, batch_stats, image_size
            )
            print(f"pretrain: {number} arrays from {path}")
        else:
            print(
                "pretrain: init_from is '', so the encoder starts from random weights", flush=True
            )
        return params, batch_stats

    # --- Training ---------------------------------------------------------------------------------

    def make(self, run: Run) -> dict[str, Any]:
        """Trains the encoder."""
        if self.pretrain.steps:
            return super().make(run)
        params, batch_stats = self.starting_point(run, run.data.source("train").image_size)
        if jax.process_index() == 0:
            parameters.save_params(run.workdir / "pretrain" / BEST, params, batch_stats)
        return {"steps": 0, "best_step": 0, "metrics": {}}

    def build(self, run: Run) -> Definition:
        """Returns what it trains."""
        config, data = self.pretrain, run.data
        train, val = data.source("train"), data.source("val")
        sampler = self._sampler(run)
        model = self.network_to_train(run)
        share = self.augment.occluders if self.takes_renders else 0.0
        # Frames from anywhere stand last and are for the state loss alone.
        keyed = sampler.batch_size - config.any_frames
        contrast = self.loss(run, keyed)

        def loss_fn(params: Params, batch_stats: Params, batch: Batch, rng: jax.Array) -> Loss:
            # A number and no array where it is 0, so that no limbs are computed.
            limbs = share * batch["cad"] if share else 0.0
            pictures = learning.augmented(self.augment, rng, batch["image"], limbs)
            outputs, updates = model.apply(
                {"params": params, "batch_stats": batch_stats},
                data.normalise(pictures, batch["cad"]),
                train=True,
                mutable=["batch_stats"],
            )
            loss = contrast(outputs["projection"][:keyed], batch["label"][:keyed])
            metrics = {config.loss.rpartition(":")[2]: loss}
            if config.state_loss:
                bce = losses.multilabel_bce(outputs["state_logits"], batch["state"]).mean()
                metrics["state_bce"] = bce
                loss = loss + config.state_loss * bce
            return loss, (metrics, updates["batch_stats"])

        def evaluate(params: Params, batch_stats: Params) -> dict[str, float]:
            encode = self.encode(run, params, batch_stats, val)
            precision = learning.key_frame_precision(
                encode, val, run.procedure, self.window(val), config.initial_state
            )
            return {"precision_at_1": precision}

        judged = self._is_judged(run)
        if not judged and jax.process_index() == 0:
            tell(
                "warning",
                "no two recordings of split 'val' have key frames of the same state, so stage "
                "'pretrain' cannot choose its best weights and keeps the last ones",
            )
        scale = layer_lr_scale(
            "encoder", model.encoder.layers, config.encoder_lr_scale, config.layer_decay
        )
        return Definition(
            init=lambda: self.starting_point(run, train.image_size),
            loss_fn=loss_fn,
            data=self._batches(run, sampler, run.workers),
            **optimisation(config, scale),
            evaluate=evaluate if judged else None,
            best="precision_at_1" if judged else "",
            batch_field="n_per_state",
        )

    def loss(self, run: Run, keyed: int) -> losses.Of:
        """The loss of so many key frames."""
        width = self.network(run).projection
        return losses.find("pretrain.loss", self.pretrain.loss, (keyed, width), (keyed,), ())

    def window(self, source: ClipSource) -> int:
        """Frames after a completion that carry its state: t_f in frames."""
        return max(1, round(self.pretrain.t_f * source.fps))

    def _batches(
        self, run: Run, sampler: sampling.KeyFrameSampler, workers: int
    ) -> pipelines.Batches:
        renders = run.data.source(CAD) if self.takes_renders else None
        return pipelines.key_frame_batches(
            run.data.source("train"), renders, sampler, seed=run.config.seed, workers=workers
        )

    def _is_judged(self, run: Run) -> bool:
        """Whether precision@1 tells encoders apart, so that one can be the best."""
        val, initial = run.data.source("val"), self.pretrain.initial_state
        return learning.shares_key_frames(val, run.procedure, self.window(val), initial)

    def _sampler(self, run: Run) -> sampling.KeyFrameSampler:
        """What draws the batches; ValueError if the labels do not have what the config asks for."""
        config, train = self.pretrain, run.data.source("train")
        cad = run.data.source(CAD) if self.takes_renders else None
        return sampling.KeyFrameSampler(
            train.recordings,
            run.procedure,
            window=self.window(train),
            anywhere=config.key_frames == "random",
            initial=config.initial_state,
            n_per_state=config.n_per_state,
            cad=cad.recordings if cad else None,
            cad_per_state=config.cad_per_state,
            backgrounds=config.backgrounds,
            background_frames=config.background_frames,
            any_frames=config.any_frames,
        )

    # --- What it reads, and what may be wrong -----------------------------------------------------

    def reads(self, run: Run) -> list[Reads]:
        """Pictures and states."""
        splits = (*SPLITS, CAD) if self.takes_renders else SPLITS
        return [Reads(("pictures", "states"), splits), Reads((FPS,), SPLITS), Reads(("states",))]

    def check(self, run: Run) -> list[str]:
        """Says whether the batches and the network can be made."""
        config, path = self.pretrain, self.start_file()
        if path is not None and not path.is_file():
            return [
                f"--config.init_from={path}: no such file; give the backbone's weights as "
                "published, or of `python -m stormpsr_jax.weights import`, or '' to train it from "
                "random weights"
            ]
        size, rows, errors = learning.image_size(run), run.devices.size * 2, list[str]()
        if config.steps and run.data.is_there:
            sampler = self._sampler(run)
            self._batches(run, sampler, 0)
            self._is_judged(run)  # ValueError without any key frame
            rows, fields = sampler.batch_size, "n_per_state, .cad_per_state or .any_frames"
            errors += learning.batch_errors(run, "pretrain", rows, fields)
        self.loss(run, rows)
        model = self.network_to_train(run)
        errors += learning.network_errors("encoder", model, (rows, *size, 3))
        if path is not None and not errors:
            key, images = jax.random.key(0), jax.ShapeDtypeStruct((2, *size, 3), np.float32)
            fresh = jax.eval_shape(model.init, key, images)
            parameters.initialise_from(path, fresh["params"], fresh.get("batch_stats", {}), size)
        return errors
