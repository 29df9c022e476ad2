"""What a run reads: recordings by split, the procedure, and how pictures are normalised."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stormpsr_jax.base import files, results
from stormpsr_jax.base.progress import Bar
from stormpsr_jax.configs import default as sections
from stormpsr_jax.data import augment, clips
from stormpsr_jax.data import folder as data_folder
from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.data.folder import MARKER
from stormpsr_jax.psr.selection import MIN_RECORDINGS
from stormpsr_jax.recordings.procedure import Procedure, load_procedure
from stormpsr_jax.serving.content import Pictures
from stormpsr_jax.serving.functions import Network
from stormpsr_jax.training import locator
from stormpsr_jax.weights import parameters

SPLITS = ("train", "val")  # what learns reads these
CAD = "cad"  # the split of clean renders
# Parts of a split that are no arrays of a source.
LABEL_FILES, FPS = "label files", "frames per second"


@dataclasses.dataclass(frozen=True)
class Data:
    """The recordings of a run. Splits are opened once.

    Attributes:
        config: of the run; says where they are, how pictures are normalised, and their sizes.
        workdir: of the run, whose folder `data` is read where the config names none.
        readers: threads that read ahead where rows are asked for in order.
    """

    config: sections.Config
    workdir: Path
    readers: int = 1
    _opened: dict[tuple, ClipSource] = dataclasses.field(default_factory=dict, compare=False)

    @property
    def directory(self) -> Path:
        """Folder of the clip shards."""
        return Path(self.config.data.dir) if self.config.data.dir else self.workdir / "data"

    @property
    def is_there(self) -> bool:
        """Whether the data folder is there and finished."""
        return (self.directory / MARKER).is_file()

    @functools.cached_property
    def procedure(self) -> Procedure:
        """The procedure named in the config, or else the data folder's own."""
        return load_procedure(self.config.procedure or self.directory / "procedure.json")

    @functools.cached_property
    def extra(self) -> Extra | None:
        """The real recordings that join those of the data folder, if the config names any."""
        if not self.config.data.extra:
            return None
        settings = data_folder.read_settings(Path(self.config.data.extra))
        made, folder = settings.settings, Path(self.config.data.extra)
        return Extra(folder, settings.splits, made.aspect, made.crop, made.locator)

    def folder(self, split: str) -> Path:
        """The data folder that has the labels of a split."""
        if self.extra is not None and self.extra.replaces(split):
            return self.extra.directory
        return self.directory

    def label_files(self, split: str) -> Path:
        """The folder of a split's PSR label files."""
        return self.folder(split) / "labels" / split

    def recordings(self) -> dict[str, list[str]]:
        """The recordings of each split."""
        path = self.directory / "settings.json"
        splits = data_folder.load_settings(path, data_folder.Settings).splits
        return splits if self.extra is None else self.extra.all_of(splits)

    def source(self, split: str) -> ClipSource:
        """The recordings of a split in the encoder's size; ValueError if it cannot be read."""
        size = self.config.encoder.image_size
        return self._sized(self.directory, split).at(size, "encoder.image_size")

    def detector_source(self, split: str) -> ClipSource:
        """`source` with pictures of the detector's size; ValueError if its frames are others."""
        own = self.config.data.detector_dir and split != CAD
        folder = Path(self.config.data.detector_dir or self.directory)
        size = self.config.detector.image_size
        large = self._sized(folder, split).at(size, "detector.image_size")
        if own and (what := clips.difference(self.source(split), large)):
            raise ValueError(
                f"--config.data.detector_dir={folder}: split {split!r} has other {what} than "
                f"{self.directory}; both have to be made of the same recordings, by the same "
                "command but for --size"
            )
        return large

    def boxed_source(self, split: str) -> ClipSource:
        """What the detector learns from and is judged by: renders where real ones have no boxes."""
        source = self.detector_source(split)
        boxed = any((recording.classes > 0).any() for recording in source.recordings.values())
        if boxed or self.folder(split) == self.directory:
            return source
        rendered = self._open(Path(self.config.data.detector_dir or self.directory), split)
        return rendered.at(self.config.detector.image_size, "detector.image_size")

    @property
    def has_cad(self) -> bool:
        """Whether there is a finished folder with split 'cad'."""
        folder = Path(self.config.data.cad_dir or self.directory)
        return (folder / MARKER).is_file() and CAD in clips.list_splits(folder)

    def _sized(self, directory: Path, split: str) -> ClipSource:
        if split == CAD:
            directory = Path(self.config.data.cad_dir or self.directory)
            if not self.has_cad:
                raise ValueError(
                    f"{directory}: has no split 'cad' of clean renders, which "
                    "pretrain.cad_per_state and detector.cad ask for; make some with "
                    "data_prep.synthetic or data_prep.industreal_cad and give "
                    "--config.data.cad_dir, or set both to 0"
                )
        elif self.folder(split) != self.directory:
            directory = self.folder(split)
        source = self._open(directory, split)
        if extra := self.extra:
            for other in extra.joining(split):
                key = ("joined", directory, split, other)
                if key not in self._opened:
                    self._opened[key] = source.joined(self._open(extra.directory, other))
                source = self._opened[key]
        return source

    def _open(self, directory: Path, split: str) -> ClipSource:
        key = (directory, split)
        if key not in self._opened:
            self._opened[key] = source = ClipSource(directory, split, self.procedure)
            source.readers = self.readers
        return self._opened[key]

    @functools.cached_property
    def cad_statistics(self) -> tuple[Sequence[float], Sequence[float]]:
        """(mean, standard deviation) of clean renders: the config's, or else their folder's own.

        Those of recordings where there is no such folder, and so nothing to normalise.
        """
        mean, std = self.config.data.cad_mean, self.config.data.cad_std
        if (len(mean), len(std)) not in ((0, 0), (3, 3)):
            raise ValueError("--config.data.cad_mean, .cad_std: give both, or '()' for both")
        if mean:
            return mean, std
        if self.has_cad:
            return self.source(CAD).channel_statistics()
        return self.config.data.mean, self.config.data.std

    def normalise(self, images: jax.Array, cad: jax.Array | None = None) -> jax.Array:
        """Pictures in 0…255 → network input; `cad` (B,) marks the clean renders among them."""
        real = augment.normalise(images, self.config.data.mean, self.config.data.std)
        if cad is None:
            return real
        rendered = augment.normalise(images, *self.cad_statistics)
        return jnp.where(cad[:, None, None, None], rendered, real)

    def pictures(self, source: ClipSource, with_detector: bool = False) -> Pictures:
        """How pictures of a source become network input; the detector may see another size."""
        detector_size = None
        if with_detector:
            size = self.detector_source(source.split).image_size
            detector_size = size if size != source.image_size else None
        framed = self.extra or source  # renders are square whatever is made of a camera's pictures
        return Pictures(
            source.image_size,
            self.config.data.mean,
            self.config.data.std,
            framed.aspect,
            framed.region,
            detector_size,
            framed.locator.size if framed.locator else None,
        )

    def locator(self, source: ClipSource) -> dict[str, Network]:
        """By role, the network that found the product in a source's pictures, if one did.

        ValueError if its file is missing, or not the one that the folder was made with.
        """
        framed = self.extra or source
        if framed.locator is None:
            return {}
        path = framed.directory / data_folder.LOCATOR
        if not path.is_file() or files.checksum(path) != framed.locator.sha256:
            raise ValueError(
                f"{path}: is missing, or not what the pictures there were made with; make the "
                "folder again"
            )
        params, _ = parameters.load_params(path)
        return {"locator": Network(locator.network(), {"params": params})}


@dataclasses.dataclass(frozen=True)
class Reads:
    """What a stage reads of some splits of the data, or of the procedure.

    Attributes:
        parts: "pictures", "states", "boxes", "visible", "poses", LABEL_FILES or FPS; of the
            procedure "states", "initial states", "variants of recordings" or "whole". A change of
            one of them makes the stage again. The number of components is read by all.
        splits: their names; none: of the procedure.
        source: what opens a split; ValueError if it cannot be read.
        owner: before the parts' names on record, where a stage reads a part from two sources.
    """

    parts: tuple[str, ...]
    splits: tuple[str, ...] = ()
    source: Callable[[Data, str], ClipSource] = Data.source
    owner: str = ""

    def checksums(self, data: Data) -> dict[str, Any]:
        """{what: checksum} of what is read; of the data "WHAT of split NAME"."""
        if not self.splits:
            content = data.procedure.to_json()
            variants = content["variants"].items()
            contents: dict[str, Any] = {
                "whole": content,
                "states": content["states"],
                "initial states": {name: v["initial_state"] for name, v in variants},
                # By which a recording has a variant, and so what it begins with.
                "variants of recordings": {name: v["recordings"] for name, v in variants},
            }
            return {part: results.of_json(contents[part]) for part in self.parts}
        digests: dict[str, Any] = {}
        for split in self.splits:
            for part in self.parts:
                name = f"{self.owner}{part} of split {split}"
                if part == LABEL_FILES:
                    digests[name] = results.of_folder(data.label_files(split), "*/PSR_labels*.csv")
                else:
                    digests[name] = _of_part(self.source(data, split), part)
        return digests


def normalisation(data: sections.Data, reads: Sequence[Reads]) -> dict[str, Any]:
    """The fields that pictures are normalised by, of a stage that reads some."""
    splits = {split for read in reads if "pictures" in read.parts for split in read.splits}
    names = ["mean", "std"] * bool(splits) + ["cad_mean", "cad_std"] * (CAD in splits)
    return {f"data.{name}": list(getattr(data, name)) for name in names}


def _of_part(source: ClipSource, part: str) -> Any:
    """The checksum of a part of a split, or its frames per second."""
    if part == FPS:
        return source.fps
    digest = hashlib.sha256()
    total = len(source.recordings)
    with Bar(total=total, desc=f"checksums {source.split}", unit="file", delay=2) as bar:
        for name, r in source.recordings.items():
            digest.update(f"{name}\0{r.first_frame}\0{r.num_frames}\0".encode())
            if part == "pictures":
                compute = functools.partial(source.content_checksum, name)
                digest.update(results.of_input(source.path(name), compute).encode())
            else:
                for array in ("boxes", "classes") if part == "boxes" else (part,):
                    digest.update(np.ascontiguousarray(getattr(r, array)).tobytes())
            bar.update()
    return digest.hexdigest()


# --- Real recordings beside rendered ones ---------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Extra:
    """A data folder of labelled real recordings that join the rendered ones.

    With MIN_RECORDINGS of them for validation or more, these alone choose thresholds and say what
    confidences mean, as renders would tell of another world; fewer tell chance from merit no more,
    and are trained on. Real test recordings are the only ones that are scored.

    Attributes:
        aspect, region, locator: what became of the original pictures, as becomes of those to
            recognise; see `ClipSource`.
    """

    directory: Path
    splits: Mapping[str, Sequence[str]]
    aspect: str
    region: tuple[float, float, float, float]
    locator: data_folder.Locator | None = None

    def replaces(self, split: str) -> bool:
        """Whether its recordings of a split stand in place of the rendered ones."""
        least = {"val": MIN_RECORDINGS, "test": 1}
        return split in least and len(self.splits.get(split, ())) >= least[split]

    def joining(self, split: str) -> list[str]:
        """Its splits whose recordings join the rendered ones of a split."""
        if split != "train":
            return []
        return [n for n in ("train", "val") if self.splits.get(n) and not self.replaces(n)]

    def all_of(self, rendered: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
        """The recordings of each split, given the rendered ones."""
        recordings = {}
        for split, names in rendered.items():
            own = self.splits[split] if self.replaces(split) else names
            recordings[split] = [
                *own,
                *(n for other in self.joining(split) for n in self.splits[other]),
            ]
        return recordings

    def __str__(self) -> str:
        """What becomes of them, in a line."""
        val, test = (len(self.splits.get(split, ())) for split in ("val", "test"))
        trained = sum(len(self.splits[split]) for split in self.joining("train"))
        scored = "real" if self.replaces("test") else "rendered"
        parts = [
            f"{trained} to train on, beside rendered ones",
            f"{val} for validation, which choose thresholds and confidences"
            if self.replaces("val")
            else f"{val} for validation, which are trained on too: {MIN_RECORDINGS} would choose "
            "thresholds and confidences, so rendered ones do",
            f"{test} for testing: {scored} ones are scored",
        ]
        return f"{self.directory}: real recordings: {'; '.join(parts)}"
