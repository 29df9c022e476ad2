"""Stage `embed`: every frame of the training and validation split through the encoder, once.

With `embed.every`, frames between those that are encoded repeat the one before. With `embed.files`
nothing is encoded: the embeddings of another encoder are taken, of the splits that are predicted
too.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from stormpsr_jax.base import files, results
from stormpsr_jax.base.errors import gathering
from stormpsr_jax.configs import default as sections
from stormpsr_jax.stages.data import SPLITS, Reads
from stormpsr_jax.stages.pretrain import Pretraining
from stormpsr_jax.stages.stage import Run, Stage
from stormpsr_jax.training import checkpoint, loop


@dataclasses.dataclass(frozen=True)
class Embedding(Stage):
    """Writes WORKDIR/embed/<split>/<recording>.npy, float32 (N, D).

    `pretrain` has the encoder; with embed.files it is None, and `splits` are those predicted.
    """

    name = "embed"
    results = ("embed/**/*.npy",)

    embed: sections.Embed
    pretrain: Pretraining | None
    splits: tuple[str, ...] = ()

    def make(self, run: Run) -> dict[str, Any]:
        """Encodes; recordings are shared out over the hosts, and a finished one is kept.

        ValueError: a file of embed.files cannot be taken. MemoryError, OSError: of `explained`.
        """
        if self.pretrain is None:
            return self._take(run)
        params, batch_stats = checkpoint.load_best(run.workdir / "pretrain")
        first = run.data.source(SPLITS[0])
        encoder = self.pretrain.encode(run, params, batch_stats, first)
        batch, every = run.config.predict.batch, self.embed.every
        with loop.explained(run.workdir / "embed", "predict.batch"):
            for source, name, progress in self.recordings(run, SPLITS):
                path, left = path_of(run, source.split, name), source.recordings[name].num_frames
                if path.exists():  # of a run that was stopped; files come to be as a whole
                    progress.update(left)
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                # Written and not mapped: where the disk is full, a map ends the process.
                with files.replacing(path) as part, part.open("wb") as file:
                    shape = (left, self.pretrain.encoder.hidden)
                    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_1_0(file, header)
                    for found in encoder.over(source.chunks(name, batch, every)):
                        held = np.asarray(found, np.float32).repeat(every, axis=0)[:left]
                        file.write(held.tobytes())
                        progress.update(len(held))
                        left -= len(held)
        return {}

    def read(self, run: Run, split: str) -> dict[str, np.ndarray]:
        """{recording: (N, D)} of a split, as the stage left them."""
        names = run.data.source(split).recordings
        return {name: np.load(path_of(run, split, name)) for name in names}

    def width(self, run: Run) -> int:
        """D of the embeddings; 0 where a file of embed.files does not say it."""
        if self.pretrain is not None:
            return self.pretrain.encoder.hidden
        try:
            return _rows(run, *self._given(run)[0]).shape[1]
        except ValueError:  # which the check says
            return 0

    def reads(self, run: Run) -> list[Reads]:
        """Pictures."""
        return [Reads(("pictures",), SPLITS)]

    # --- Embeddings of another encoder ------------------------------------------------------------

    def _take(self, run: Run) -> dict[str, Any]:
        """Copies embed.files into WORKDIR/embed: float32 rows of length 1, as our encoder's are."""
        for split, name, path in self._given(run)[jax.process_index() :: jax.process_count()]:
            with np.errstate(over="ignore"):
                rows = np.ascontiguousarray(_rows(run, split, name, path), np.float32)
            if not (finite := np.isfinite(rows)).all():
                row, column = np.argwhere(~finite)[0]
                raise ValueError(
                    f"{path}: row {row} has {rows[row, column]} in column {column}; finite numbers "
                    "within float32 are needed"
                )
            length = np.linalg.norm(rows, axis=1, keepdims=True)
            to = path_of(run, split, name)
            to.parent.mkdir(parents=True, exist_ok=True)
            with files.replacing(to) as part, part.open("wb") as file:
                np.save(file, rows / np.where(length > 0, length, 1))
        return {}

    def _given(self, run: Run) -> list[tuple[str, str, Path]]:
        """Split, recording and file of all embeddings that are taken."""
        folder = Path(self.embed.files)
        return [
            (split, name, folder / f"{name}.npy")
            for split in dict.fromkeys((*SPLITS, *self.splits))
            for name in run.data.source(split).recordings
        ]

    def files(self, run: Run) -> dict[str, str]:
        """The checksums of the files that are taken."""
        given = () if self.pretrain else self._given(run)
        return {f"{path.name} of embed.files": results.of_input(path) for *_, path in given}

    def check(self, run: Run) -> list[str]:
        """Says whether embed.files can be taken."""
        if self.pretrain is not None:
            return []
        errors: list[str] = []
        widths: dict[int, Path] = {}
        which = f"--config.embed.files={self.embed.files}"
        if self.embed.every > 1:
            errors.append(f"{which}: has a row for each frame; set embed.every to 1")
        for split, name, path in self._given(run) if run.data.is_there else ():
            with gathering(errors):
                widths.setdefault(_rows(run, split, name, path).shape[1], path)
        if len(widths) > 1:
            shown = ", ".join(f"{path} has D = {D}" for D, path in sorted(widths.items()))
            errors.append(f"{which}: embeddings have different widths: {shown}")
        return errors


def path_of(run: Run, split: str, name: str) -> Path:
    """The file of a recording's embeddings."""
    return run.workdir / "embed" / split / f"{name}.npy"


def _rows(run: Run, split: str, name: str, path: Path) -> np.ndarray:
    """The embeddings (N, D) of a recording of N frames, mapped; ValueError if they are none."""
    if not path.exists():
        raise ValueError(f"{path}: is missing; --config.embed.files has a file a recording")
    files.check_regular(path, "remove it")
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False, max_header_size=files.MAX_HEADER)
    except files.UNREADABLE as error:
        raise ValueError(f"{path}: not an array of np.save ({files.reason(error)})") from error
    count = run.data.source(split).recordings[name].num_frames
    if rows.dtype.kind != "f" or rows.ndim != 2 or len(rows) != count or not rows.shape[1]:
        raise ValueError(
            f"{path}: {rows.dtype} of shape {rows.shape}; a row of numbers for each of the {count} "
            f"frames of recording {name!r} in {run.data.folder(split)} is needed"
        )
    return rows
