"""The settings that a stream is chosen from; `selection.py` has the rule."""

import abc
import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from stormpsr_jax.psr.accumulation import Settings
from stormpsr_jax.recordings.procedure import Procedure

THRESHOLDS = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0)
# Removals are rarer than installations, so a threshold below that of these is not looked at.
REMOVALS = (1.5, 3.0, 6.0, 12.0, 24.0)
CONFIDENCES = (0.3, 0.5, 0.7, 0.8, 0.9)
GATES = (0.5, 0.8)
WEIGHTS = (0.15, 0.3, 0.5, 0.7)


class Candidates(abc.ABC):
    """The settings of a stream that there are to choose from.

    Attributes:
        within: how many standard errors of the best the chosen ones may be.
    """

    within: float = 0.25

    @abc.abstractmethod
    def grid(self, base: Settings, chosen: Mapping[str, Any]) -> list[Any]:
        """Returns the settings that the stream is chosen from; only what matters to it varies.

        Args:
            base: all that does not vary.
            chosen: the settings of the streams that stand before it in the list, by name.
        """

    def refinements(self, settings: Any) -> list[Any]:
        """Returns settings to choose from in a second round, those of the first among them."""
        return []

    @abc.abstractmethod
    def fixed_settings(
        self, procedure: Procedure, base: Settings, threshold: float = 0.0, paper: bool = True
    ) -> list[Any]:
        """Returns settings that nobody chose; the first that finds a step counts.

        Args:
            base: has what is not fixed.
            threshold: if not 0 it is that one, of a stream whose threshold is a T of summed
                evidence.
            paper: those of the paper; otherwise those that hold best where nothing can be chosen.
        """

    def bars(self, settings: Any) -> tuple[float, ...]:
        """Returns bars for installations, ascending: the higher, the fewer are accepted.

        By itself they are multiples of the threshold T of summed evidence.
        """
        return tuple(max(settings.threshold, 0.5) * factor for factor in (1, 1.5, 2, 3, 5, 8, 20))

    def with_bar(self, settings: Any, bar: float | None) -> Any:
        """Returns the settings with a bar for installations; None leaves it out.

        ValueError if they are of the naive decoder, which has no threshold to raise.
        """
        if bar is None:
            return settings
        if settings.decoder == "naive":
            raise ValueError("decoder 'naive' has no thresholds, and so no bar for a risk")
        return dataclasses.replace(settings, threshold=bar)


@dataclasses.dataclass(frozen=True)
class SumCandidates(Candidates):
    """Of a stream that sums up evidence.

    Attributes:
        varied: by field of the settings, what it is chosen from besides the thresholds; the naive
            decoder, which has no thresholds, has its floor chosen instead.
        taken: by field of the settings, the stream whose chosen value it takes. So the fused stream
            searches no floor and gate of its own, which would be ten times as many settings to be
            lucky with.
        keeps: whether, where nothing can be chosen, its sums do not decay on frames that show
            nothing. Of detections alone that costs hardly anything in the worlds tried
            (benchmarks/results/noise.md); with windows it has more false acceptances.
    """

    varied: Mapping[str, Sequence[float]]
    taken: Mapping[str, str] = dataclasses.field(default_factory=dict)
    keeps: bool = False

    def grid(self, base: Settings, chosen: Mapping[str, Any]) -> list[Settings]:
        """Returns the settings that the stream is chosen from, all without removals."""
        varied: dict[str, Sequence[Any]] = {**self.varied, "threshold": THRESHOLDS}
        if base.decoder == "naive":
            varied = {"confidence": CONFIDENCES}
        taken = {field: getattr(chosen[name], field) for field, name in self.taken.items()}
        return [
            dataclasses.replace(base, **taken, **dict(zip(varied, values, strict=True)))
            for values in itertools.product(*varied.values())
        ]

    def refinements(self, settings: Settings) -> list[Settings]:
        """Returns the settings with every threshold, and every one of removals that is not lower.

        None for the naive decoder, which has none.
        """
        if settings.decoder == "naive":
            return []
        return [
            dataclasses.replace(settings, threshold=threshold, removal=removal)
            for threshold in THRESHOLDS
            for removal in (None, *(r for r in REMOVALS if r >= threshold))
        ]

    def fixed_settings(
        self, procedure: Procedure, base: Settings, threshold: float = 0.0, paper: bool = True
    ) -> list[Settings]:
        """Returns the settings with the paper's thresholds; the first that finds a step counts.

        With a `threshold` other than 0 it is that one: the released scripts have 8 where the paper
        has 6. The rest is that of `base`; the defaults of `Settings` are the paper's. Without
        `paper`, `keeps` counts too.
        """
        if self.keeps and not paper and base.decoder != "naive" and base.unseen_decay is None:
            base = dataclasses.replace(base, unseen_decay=1.0)
        # Of another procedure the higher, unless that is out of reach: with rows on every fourth
        # frame alone, no sum exceeds 1.8 at the paper's decay.
        of_paper = {"industreal": (6.0,), "meccano": (1.0,)}.get(procedure.name, (6.0, 1.0))
        thresholds = (threshold,) if threshold else of_paper
        return [dataclasses.replace(base, threshold=t, removal=None) for t in thresholds]
