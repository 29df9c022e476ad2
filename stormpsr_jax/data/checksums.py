"""Checksums of what is in a data folder, part by part, so that a run knows what has changed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np

from stormpsr_jax.base import files
from stormpsr_jax.base.progress import Bar
from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.data.features import FeatureSource


class DataChecksums:
    """Checksums of the splits of a data folder.

    Those of pictures and embeddings are kept in a file of the work folder, and made again only for
    files whose size or time of change is another one.
    """

    def __init__(self, cache: Path):
        """`cache`: the JSON file that keeps them; made if there is none."""
        self._cache_path = cache
        self._cache = _read_cache(cache)

    def of_part(self, source: ClipSource | FeatureSource, part: str) -> str:
        """Returns the checksum of a part of a split.

        Args:
            source: the split.
            part: "pictures" (the JPEG files, or the embeddings in their place, and the numbers of
                their frames), "states", "boxes" (with their classes), "visible" (fractions),
                "poses" (of renders).

        Raises:
            ValueError: a file cannot be read; names it.
        """
        digest = hashlib.sha256()
        if part == "pictures":
            contents = self._of_files(source)
        for name, r in source.recordings.items():
            digest.update(f"{name}\0{r.first_frame}\0{r.num_frames}\0".encode())
            if part == "pictures":
                digest.update(contents[name].encode())
            elif part == "boxes":
                digest.update(np.ascontiguousarray(r.boxes).tobytes())
                digest.update(np.ascontiguousarray(r.classes).tobytes())
            else:
                digest.update(np.ascontiguousarray(getattr(r, part)).tobytes())
        return digest.hexdigest()

    def _of_files(self, source: ClipSource | FeatureSource) -> dict[str, str]:
        """The checksum of each recording's pictures or embeddings, read where need be."""
        found, new = {}, {}
        for name in source.recordings:
            path = source.path(name)
            status = os.stat(path)
            key = status.st_size, status.st_mtime_ns
            known = self._cache.get(str(path))
            if known is not None and known[:2] == key:
                found[name] = known[2]
            else:
                new[name] = (path, key)
        with Bar(total=len(new), desc=f"checksums {source.split}", unit="file", delay=2) as bar:
            for name, (path, key) in new.items():
                found[name] = source.content_checksum(name)
                self._cache[str(path)] = (*key, found[name])
                bar.update()
        if new:
            files.write_json(self._cache_path, self._cache)
        return found


def _read_cache(path: Path) -> dict[str, tuple[int, int, str]]:
    """Returns {file: (size, time of change, checksum)}; what is damaged is made again."""
    try:
        kind = dict[str, tuple[int, int, str]]
        return files.fit(files.read_json(path), kind, str(path))
    except ValueError:
        return {}


def of_labels(folder: Path) -> str:
    """The checksum of the label files of a split: `folder`/<recording>/PSR_labels*.csv."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*/PSR_labels*.csv")):
        digest.update(f"{path.relative_to(folder)}\0{files.checksum(path)}\0".encode())
    return digest.hexdigest()
