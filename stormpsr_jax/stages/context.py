"""What every stage is given: config, working directory and mesh, and what follows from them."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from stormpsr_jax.data import augment
from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.models.detector import Detector
from stormpsr_jax.models.spatial import SpatialEncoder
from stormpsr_jax.models.temporal import TemporalTransformer
from stormpsr_jax.psr.procedure import Procedure, load_procedure
from stormpsr_jax.stream import Batched


@dataclasses.dataclass(frozen=True)
class Context:
    """One run: config stops here and in the stages, models and data get plain arguments."""

    config: ConfigDict
    workdir: Path
    mesh: jax.sharding.Mesh

    @functools.cached_property
    def procedure(self) -> Procedure:
        """The procedure named in the config."""
        return load_procedure(self.config.procedure)

    @property
    def data_dir(self) -> Path:
        """Folder of the clip shards."""
        return Path(self.config.data.dir) if self.config.data.dir else self.workdir / "data"

    def source(self, split: str) -> ClipSource:
        """The clip shards of one split."""
        return ClipSource(self.data_dir, split, self.procedure)

    def key(self, name: str) -> jax.Array:
        """The random stream of this name: streams are independent, and fixed by the seed."""
        number = int.from_bytes(name.encode()[-4:].rjust(4), "big") % 2**31
        return jax.random.fold_in(jax.random.key(self.config.seed), number)

    @property
    def num_frames(self) -> int:
        """T, frames of a clip that are encoded."""
        window = self.config.window
        if window.frames % window.stride:
            raise ValueError(
                f"window.frames={window.frames} is not a multiple of window.stride={window.stride}"
            )
        return window.frames // window.stride + 1

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
            dtype=jnp.dtype(config.dtype),
            remat=config.encoder.remat,
        )

    def temporal_transformer(self) -> TemporalTransformer:
        """The [CLS] temporal transformer."""
        model = self.config.temporal_model
        return TemporalTransformer(
            num_components=self.procedure.num_components,
            num_frames=self.num_frames,
            depth=model.depth,
            num_heads=model.num_heads,
            dim_head=model.dim_head,
            mlp_dim=model.mlp_dim,
            dropout=model.dropout,
            head=model.head,
            dtype=jnp.dtype(self.config.dtype),
        )

    def detector(self) -> Detector:
        """The assembly state detector."""
        return Detector(
            num_classes=self.procedure.num_states + 1,
            width=self.config.detector.width,
            depth=self.config.detector.depth,
            levels=self.config.detector.levels,
            dtype=jnp.dtype(self.config.dtype),
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
