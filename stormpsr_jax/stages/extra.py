"""Labelled real recordings that join rendered ones: what becomes of each of their splits."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from stormpsr_jax.data import folder as data_folder
from stormpsr_jax.psr.selection import MIN_RECORDINGS


@dataclasses.dataclass(frozen=True)
class Extra:
    """A data folder of real recordings beside the rendered ones.

    With MIN_RECORDINGS of them for validation or more, these alone choose thresholds and say what
    confidences mean, as renders would tell of another world; fewer tell chance from merit no more,
    and are trained on. Real test recordings are the only ones that are scored.

    Attributes:
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


def read(directory: Path) -> Extra:
    """Reads what a finished folder of clip shards has; ValueError if it is none."""
    settings = data_folder.read_settings(directory)
    return Extra(directory, settings.splits, settings.settings.aspect, settings.settings.crop)
