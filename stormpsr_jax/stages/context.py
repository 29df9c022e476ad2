"""What every stage is given: config, working directory and mesh, and what follows from them."""

from __future__ import annotations

import dataclasses
import functools
import zlib
from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from stormpsr_jax.data import augment
from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.data.features import FeatureSource, holds_embeddings, read_settings
from stormpsr_jax.models.detector import Detector
from stormpsr_jax.models.spatial import SpatialEncoder
from stormpsr_jax.models.temporal import TemporalTransformer
from stormpsr_jax.models.temporal_baselines import TemporalLSTM, TemporalMLP, TemporalTCN
from stormpsr_jax.psr.procedure import Procedure, load_procedure
from stormpsr_jax.stream import Batched

# Stages that run on ready-made embeddings; the others need pictures.
_WITHOUT_PICTURES = ("temporal", "predict", "evaluate")
# temporal_model.backbone, other than the transformer.
ABLATION = {"mlp": TemporalMLP, "lstm": TemporalLSTM, "tcn": TemporalTCN}


class Window(NamedTuple):
    """A clip in rows of the embeddings: from `frames` rows before its last one, every stride-th."""

    frames: int
    stride: int


@dataclasses.dataclass(frozen=True)
class Context:
    """One run: config stops here and in the stages, models and data get plain arguments."""

    config: ConfigDict
    workdir: Path
    mesh: jax.sharding.Mesh
    profile_steps: tuple[int, int] | None = None  # of every trained stage

    @functools.cached_property
    def procedure(self) -> Procedure:
        """The procedure named in the config, or else the data folder's own."""
        return load_procedure(self.config.procedure or self.data_dir / "procedure.json")

    @property
    def data_dir(self) -> Path:
        """Folder of the clip shards, or of ready-made embeddings."""
        return Path(self.config.data.dir) if self.config.data.dir else self.workdir / "data"

    @property
    def ready_made(self) -> bool:
        """Whether the data are embeddings already (`data_prep.embeddings`), not pictures.

        Raises:
          ValueError: they are, and a stage of the config needs pictures.
        """
        if not holds_embeddings(self.data_dir):
            return False
        if pictures := [s for s in self.config.stages if s not in _WITHOUT_PICTURES]:
            raise ValueError(
                f"{self.data_dir} holds embeddings, and {', '.join(pictures)} in config.stages "
                f"cannot run without pictures; set it to {_WITHOUT_PICTURES}, as "
                "configs/embeddings.py does"
            )
        return True

    def source(self, split: str) -> ClipSource | FeatureSource:
        """The recordings of one split: clip shards, or ready-made embeddings."""
        if self.ready_made:
            return FeatureSource(self.data_dir, split, self.procedure)
        return ClipSource(self.data_dir, split, self.procedure)

    def cad_source(self, like: ClipSource) -> ClipSource:
        """The clean renders, split 'cad' of data.cad_dir or else of the data folder.

        Raises:
          ValueError: their pictures are not as large as those of `like`.
        """
        directory = Path(self.config.data.cad_dir or self.data_dir)
        source = ClipSource(directory, "cad", self.procedure)
        if source.image_size != like.image_size:
            raise ValueError(
                f"{directory}: the CAD pictures are {source.image_size} pixels (H, W), those of "
                f"the recordings {like.image_size}; render them anew with --size"
            )
        return source

    @property
    def frame_step(self) -> int:
        """Video frames from one row of the embeddings to the next: 1 unless they are ready-made."""
        return int(read_settings(self.data_dir)["stride"]) if self.ready_made else 1

    @property
    def window(self) -> Window:
        """The clip in rows of the embeddings.

        Row r is frame r · step of its recording, so a clip that ends there looks at the rows
        r − frames/step, …, r at intervals of stride/step: those of the very frames that the config
        asks for.

        Raises:
          ValueError: the config asks for frames between two rows, or for a part of a stride.
        """
        window, step = self.config.window, self.frame_step
        if window.frames % window.stride:
            raise ValueError(
                f"window.frames={window.frames} is not a multiple of window.stride={window.stride}"
            )
        if window.stride % step:
            raise ValueError(
                f"window.stride={window.stride}, but {self.data_dir} has embeddings of every "
                f"{step}-th frame: set window.stride to a multiple of {step} (and window.frames to "
                "one of window.stride), or prepare them at a smaller stride"
            )
        return Window(window.frames // step, window.stride // step)

    def key(self, name: str) -> jax.Array:
        """The random stream of this name, fixed by the seed."""
        number = zlib.crc32(name.encode()) % 2**31
        return jax.random.fold_in(jax.random.key(self.config.seed), number)

    @property
    def dtype(self) -> jnp.dtype:
        """Of activations. ValueError if it is none that trains without scaling the loss."""
        if self.config.dtype not in ("float32", "bfloat16"):
            raise ValueError(f"dtype={self.config.dtype!r} is not 'float32' or 'bfloat16'")
        return jnp.dtype(self.config.dtype)

    @property
    def num_frames(self) -> int:
        """T, frames of a clip that are encoded."""
        return self.window.frames // self.window.stride + 1

    def spatial_encoder(self) -> SpatialEncoder:
        """The ViT with its projection head."""
        config = self.config
        auxiliary = config.pretrain.state_loss > 0
        return SpatialEncoder(
            patch_size=config.encoder.patch_size,
            width=config.encoder.width,
            depth=config.encoder.depth,
            num_heads=config.encoder.num_heads,
            stem=tuple(config.encoder.stem),
            hidden=config.encoder.hidden,
            projection=config.encoder.projection,
            num_components=self.procedure.num_components if auxiliary else 0,
            dtype=self.dtype,
            remat=config.encoder.remat,
            microbatches=config.encoder.microbatches,
        )

    def temporal_encoder(self) -> nn.Module:
        """The [CLS] temporal transformer, or the ablation's back-end in its place."""
        model = self.config.temporal_model
        shared = {
            "num_components": self.procedure.num_components,
            "depth": model.depth,
            "dropout": model.dropout,
            "dtype": self.dtype,
        }
        if model.backbone in ABLATION:
            return ABLATION[model.backbone](width=model.mlp_dim, **shared)
        if model.backbone != "transformer":
            raise ValueError(
                f"temporal_model.backbone={model.backbone!r} is not one of "
                f"{', '.join(('transformer', *ABLATION))}"
            )
        return TemporalTransformer(
            num_frames=self.num_frames,
            num_heads=model.num_heads,
            dim_head=model.dim_head,
            mlp_dim=model.mlp_dim,
            head=model.head,
            **shared,
        )

    def detector(self) -> Detector:
        """The assembly state detector."""
        return Detector(
            num_classes=self.procedure.num_states + 1,
            width=self.config.detector.width,
            depth=self.config.detector.depth,
            levels=self.config.detector.levels,
            dtype=self.dtype,
        )

    def normalise(self, images: jax.Array, cad: jax.Array | None = None) -> jax.Array:
        """Pictures in 0…255 → network input; `cad` (B,) marks the clean renders among them."""
        data = self.config.data
        real = augment.normalise(images, data.mean, data.std)
        if cad is None:
            return real
        rendered = augment.normalise(images, data.cad_mean, data.cad_std)
        return jnp.where(cad[:, None, None, None], rendered, real)

    def augment(self, key: jax.Array, images: jax.Array, limbs=0.0, shift: bool = True):
        """Augments uint8 pictures (B, H, W, 3) or clips (B, T, H, W, 3) as the config says."""
        c = self.config.augment
        return augment.augment(
            key,
            images,
            brightness=c.brightness,
            contrast=c.contrast,
            saturation=c.saturation,
            blur_sigma=c.blur_sigma,
            shift=c.shift if shift else 0.0,
            limbs=limbs,
        )

    def frame_encoder(self, params, batch_stats, batch: int) -> Batched:
        """uint8 pictures (B, H, W, 3) → frame embeddings (B, D), `batch` pictures at once."""
        model = self.spatial_encoder()

        def embed(variables, images):
            return model.apply(variables, self.normalise(images), method="embed")

        return Batched(embed, {"params": params, "batch_stats": batch_stats}, batch)
