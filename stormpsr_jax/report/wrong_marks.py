"""Parts that sit wrong in a report: their marks in the timelines, and the same in words."""

from collections.abc import Mapping
from typing import Any

from stormpsr_jax.psr.procedure import Procedure
from stormpsr_jax.psr.scoring.wrong_parts import WrongInstallation

WRONG = "#b80f2a"  # the colour
# Reported as installed while it sits wrong, as wrong, as wrong without being so.
MARKERS = {"accepted": "s", "found": "v", "alarm": "v"}

Scores = Mapping[str, Any]
Interval = tuple[int, int, int | None]  # start, component, end


def clock(seconds: float) -> str:
    """Returns minutes and seconds, from an hour on hours too."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def installations(
    scores: Mapping[str, Scores],
) -> dict[Interval, dict[str, WrongInstallation]]:
    """Returns by wrong installation, in time order, what each stream made of it."""
    found: dict[Interval, dict[str, WrongInstallation]] = {}
    for stream, row in scores.items():
        for values in (row.get("wrong") or {"installations": ()})["installations"]:
            one = WrongInstallation(*values)
            found.setdefault((one.start, one.component, one.end), {})[stream] = one
    return dict(sorted(found.items(), key=lambda item: item[0][:2]))


def rows(
    found: Mapping[Interval, Mapping[str, WrongInstallation]], procedure: Procedure, fps: float
) -> list[dict[str, Any]]:
    """Returns the rows of the table of wrong installations, with times as text or None."""

    def at(frame: int | None) -> str | None:
        return None if frame is None else clock(frame / fps)

    return [
        {
            "part": procedure.components[k],
            "start": at(start),
            "end": at(end),
            "streams": {s: (at(one.accepted), at(one.found)) for s, one in of_streams.items()},
        }
        for (start, k, end), of_streams in found.items()
    ]
