"""Labelled real recordings that join rendered ones: what becomes of each of their splits."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from stormpsr_jax.data import folder
from stormpsr_jax.psr.streams.select import MIN_RECORDINGS


@dataclasses.dataclass(frozen=True)
class Extra:
    """A data folder of real recordings beside the rendered ones.

    With MIN_RECORDINGS of them for validation or more, these alone choose thresholds and say what
    confidences mean, as renders would tell of another world; fewer tell chance from merit no more,
    and are trained on. Real test recordings are the only ones that are scored.

    Attributes:
        directory: the folder.
        splits: its recordings, by split.
        aspect, region: what became of the original pictures, as becomes of those to recognise; see
            `media.framing`.
    """

    directory: Path
    splits: Mapping[str, Sequence[str]]
    aspect: str
    region: tuple[float, float, float, float]

    def replaces(self, split: str) -> bool:
        """Whether its recordings of a split stand in place of the rendered ones."""
        least = {"val": MIN_RECORDINGS, "test": 1}
        return split in least and len(self.splits.get(split, ())) >= least[split]

    def joining(self, split: str) -> list[str]:
        """Its splits whose recordings join the rendered ones of a split."""
        if split != "train":
            return []
        return [
            name for name in ("train", "val") if self.splits.get(name) and not self.replaces(name)
        ]

    def all_of(self, rendered: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
        """The recordings of each split, given the rendered ones."""
        found = {}
        for split, names in rendered.items():
            own = self.splits[split] if self.replaces(split) else names
            found[split] = [*own, *(n for other in self.joining(split) for n in self.splits[other])]
        return found

    def __str__(self) -> str:
        """What becomes of them, in a line."""
        counts = {split: len(self.splits.get(split, ())) for split in ("train", "val", "test")}
        trained = sum(len(self.splits[split]) for split in self.joining("train"))
        parts = [f"{trained} of its recordings are trained on, beside the rendered ones"]
        if self.replaces("val"):
            parts.append(f"its {counts['val']} for validation choose thresholds and confidences")
        else:
            parts.append(
                f"of its {counts['val']} for validation, {MIN_RECORDINGS} would choose thresholds "
                "and confidences: rendered ones do"
            )
        if self.replaces("test"):
            parts.append(f"its {counts['test']} for testing are scored")
        else:
            parts.append("none is for testing: rendered ones are scored")
        return f"{self.directory}: {'; '.join(parts)}"


def read(directory: Path) -> Extra:
    """Reads what a finished folder of clip shards has; ValueError if it is none."""
    marker = "dataset_info.json"
    settings = folder.read_settings(directory, folder.ClipSettings, marker, "data_prep command")
    return Extra(directory, settings.splits, settings.settings.aspect, settings.settings.crop)
