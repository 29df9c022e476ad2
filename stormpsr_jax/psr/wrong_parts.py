"""Incorrect installations: which were reported as installed, and which as incorrect.

POS, F1 and delay go by the steps that were completed correctly, and do not see others. These
figures do, from the true states of K components (-1 incorrect, 0 absent, 1 correct), each from its
frame on, and from the events of a stream: 3k reports component k as installed, 3k+1 as incorrect,
3k+2 as absent. The report stands until the next one of k; of several in a frame the last stands.
All intervals hold their first frame and not their end.

* An incorrect installation is a longest interval in which a component is -1. It ends where the part
  is corrected or taken off, and without that never.
* It is accepted if in it a report as installed stands that was made since the component was last
  correct. So a true installation that was recognised does not count when the part is incorrect
  later; a report that came too early and still stands does.
* It is found if a report as incorrect comes in it; the delay is that of the first one.
* A false alarm is a report as incorrect while the component is not.
* A correct installation is a longest interval in which a component is 1, if something else came
  before; it is called wrong if a report as incorrect comes in it.
* It has no verdict if at its end, or that of the recording, no report as installed stands: nothing
  was said, or that the part is not sure, incorrect or off.
* An installation of either kind is left not sure if the last that is said of the component before
  its end is that it is not sure.
* A report as installed is early if the component is absent then, was absent since the report before
  it, and stays so for more than EARLY_S, or for good: a part that somebody forgot would be ticked.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from stormpsr_jax.psr import headline, metrics
from stormpsr_jax.psr.metrics import Step

Rows = list[dict[str, Any]]
EARLY_S = 2.0
UNTESTED = "Never tested on an incorrect installation: these recordings show none."


class WrongInstallation(NamedTuple):
    """A wrong installation and what a stream made of it; frames.

    Attributes:
        component: k.
        start, end: the interval; `end` is None if it lasts until the recording's end.
        accepted: the first frame in it at which the part is reported as installed, or None.
        found: the frame of the first report as wrong, or None.
    """

    component: int
    start: int
    end: int | None
    accepted: int | None
    found: int | None


def spans(frames: np.ndarray, states: np.ndarray, value: int) -> list[tuple[int, int, float]]:
    """Returns the longest intervals in which a component has a state, -1, 0 or 1.

    `frames` (M,) are ascending, `states` (M, K) each from its frame on. Each is (component, start,
    end), by component, then frame; inf is the end of the last state.
    """
    ends = [*np.asarray(frames).tolist(), math.inf]
    runs = []
    for k, there in enumerate((np.asarray(states) == value).T):
        changes = np.flatnonzero(np.diff(there, prepend=False, append=False))
        runs += [(k, ends[start], ends[end]) for start, end in changes.reshape(-1, 2)]
    return runs


def wrong_installations(
    frames: np.ndarray, states: np.ndarray, events: Iterable[Step]
) -> list[WrongInstallation]:
    """Returns the incorrect installations of a recording, and what was reported of each.

    An incorrect installation is a longest interval in which a component is -1. It is accepted if a
    report as installed (3k) stands in it, found if a report as incorrect (3k + 1) comes in it.

    >>> wrong_installations([0, 100, 200], [[0], [-1], [1]], [(112, 0), (150, 1)])
    [WrongInstallation(component=0, start=100, end=200, accepted=112, found=150)]

    Args:
        frames: (M,) ascending.
        states: (M, K) in {-1 incorrect, 0 absent, 1 correct}, each from its frame on.
        events: rows (frame, step id, …) of a stream, those of one frame in the order of reports.

    Returns:
        A `WrongInstallation` each, by component, then frame; all times are frames.

    Raises:
        ValueError: arguments that are no such thing (`metrics`), or a step of no component.
    """
    frames, states, (events,) = _checked(frames, states, events=events)
    reports = _standing(events)
    right = spans(frames, states, 1)
    installations = []
    for k, start, end in spans(frames, states, -1):
        of_k = reports.get(k, [])
        since = max((e for of, _, e in right if of == k and e <= start), default=-math.inf)
        accepted = [
            max(frame, start)
            for frame, step_id, until in of_k
            if step_id == 3 * k and frame >= since and max(frame, start) < min(until, end)
        ]
        called = [f for f, step_id, _ in of_k if step_id == 3 * k + 1 and start <= f < end]
        last = None if end == math.inf else int(end)
        installations.append(
            WrongInstallation(
                k, start, last, min(accepted, default=None), min(called, default=None)
            )
        )
    return installations


def _checked(
    frames: np.ndarray, states: np.ndarray, **steps: Iterable[Step]
) -> tuple[np.ndarray, np.ndarray, list[list[Step]]]:
    """Frames, states and each argument that is steps; ValueError as of `wrong_installations`."""
    at = metrics.frames("frames", frames)
    of_parts, checked = metrics.states("states", states, (len(at), None)), []
    num = of_parts.shape[1]
    for name, values in steps.items():
        checked.append(metrics.steps(name, values))
        if odd := [step_id for _, step_id in checked[-1] if step_id >= 3 * num]:
            raise ValueError(f"{name}: step id {odd[0]} is of no component: states have {num}")
    return at, of_parts, checked


def _early(
    frames: np.ndarray, states: np.ndarray, events: Iterable[Step], fps: float
) -> list[Step]:
    """The reports as installed that are early, by component, then frame."""
    there = [*spans(frames, states, 1), *spans(frames, states, -1)]
    early = []
    for k, of_k in sorted(_standing(events).items()):
        before = -math.inf
        for frame, step_id, until in of_k:
            near = (
                other == k and end > before and start <= frame + EARLY_S * fps
                for other, start, end in there
            )
            if step_id == 3 * k and frame < until and not any(near):
                early.append((frame, step_id))
            before = frame
    return early


def _standing(events: Iterable[Step]) -> dict[int, list[tuple[int, int, float]]]:
    """By component its reports: frame, step id, and the frame of the next one (inf without)."""
    standing: dict[int, list[tuple[int, int, float]]] = {}
    for frame, step_id in sorted(events, key=lambda event: event[0]):
        of_k = standing.setdefault(step_id // 3, [])
        if of_k:
            of_k[-1] = (*of_k[-1][:2], frame)
        of_k.append((frame, step_id, math.inf))
    return standing


def score_recording(
    frames: np.ndarray,
    states: np.ndarray,
    events: Sequence[Step],
    fps: float,
    unsure: Sequence[Step] = (),
) -> dict[str, Any] | None:
    """Scores what a stream reported of incorrect and of correct installations in one recording.

    POS and F1 do not see a part that is reported as installed while it is installed incorrectly, a
    false acceptance; "accepted" counts these. `help(stormpsr_jax.psr.wrong_parts)` has the
    definition of each figure.

    >>> from stormpsr_jax import psr
    >>> frames, states = [0, 100, 200], [[0, 0], [-1, 0], [1, 0]]
    >>> scores = psr.score_wrong_parts(frames, states, [(112, 0), (150, 1), (230, 4)], fps=10)
    >>> [scores[key] for key in ("shown", "accepted", "found", "delay_s", "false_alarms")]
    [1, 1, 1, 5.0, 1]

    Args:
        frames, states, events: as of `wrong_installations`.
        fps: frames per second.
        unsure: (frame, step id) of the events that are not sure.

    Returns:
        The counts of `headline.WRONG`; "delay_s", the mean in seconds over what is found, None if
        nothing is; "installations", the fields of each `WrongInstallation`. None without states.

    Raises:
        ValueError: as of `wrong_installations`, or a rate that is not positive.
    """
    if not len(frames):
        return None
    fps = metrics.rate(fps)
    frames, states, (events, unsure) = _checked(frames, states, events=events, unsure=unsure)
    wrong = wrong_installations(frames, states, events)
    correct = spans(frames, states, 1)
    right = [span for span in correct if span[1] > frames[0]]
    reports = _standing(events)
    called = [(f, step_id // 3) for f, step_id in events if step_id % 3 == 1]
    delays = [w.found - w.start for w in wrong if w.found is not None]
    reports_of: dict[int, list[tuple[int, bool]]] = {}
    for sure, steps in ((True, events), (False, unsure)):
        for frame, step_id in steps:
            reports_of.setdefault(step_id // 3, []).append((frame, sure))

    def left(k: int, start: float, end: float | None) -> bool:
        last = [one for one in reports_of.get(k, ()) if one[0] < (math.inf if end is None else end)]
        return bool(last) and not max(last)[1]

    def has_verdict(k: int, _: int, end: float) -> bool:
        of_k = reports.get(k, ())
        return any(step == 3 * k and frame < end <= until for frame, step, until in of_k)

    return {
        "shown": len(wrong),
        "accepted": sum(w.accepted is not None for w in wrong),
        "found": len(delays),
        "delay_s": sum(delays) / len(delays) / fps if delays else None,
        "false_alarms": len(false_alarms(wrong, events)),
        "right_called_wrong": sum(
            any(k == of and start <= f < end for f, of in called) for k, start, end in right
        ),
        "right_installations": len(right),
        "unsure": sum(left(w.component, w.start, w.end) for w in wrong),
        "right_unsure": sum(left(*span) for span in right),
        "no_verdict": sum(not has_verdict(*span) for span in right),
        "early": len(_early(frames, states, events, fps)),
        "installations": [list(w) for w in wrong],
    }


def false_alarms(wrong: Iterable[WrongInstallation], events: Iterable[Step]) -> list[Step]:
    """Returns the reports as incorrect that come while the component is not."""
    wrong = list(wrong)
    return [
        (frame, step_id)
        for frame, step_id in events
        if step_id % 3 == 1
        and not any(
            step_id == 3 * w.component + 1 and w.start <= frame < (w.end or math.inf) for w in wrong
        )
    ]


def summarise(recordings: Iterable[Mapping[str, Any] | None]) -> dict[str, Any] | None:
    """Returns the figures of a stream: sums, and the mean delay over all that is found.

    `recordings` are what `score_recording` returns; None if nothing is known of any.
    """
    counted = [row for row in recordings if row is not None]
    if not counted:
        return None
    result = {
        figure.key: sum(row[figure.key] for row in counted)
        for figure in headline.WRONG
        if not figure.mean
    }
    delays = [row["found"] * row["delay_s"] for row in counted if row["found"]]
    result["delay_s"] = math.fsum(delays) / result["found"] if delays else None
    return {figure.key: result[figure.key] for figure in headline.WRONG}


def interval(accepted: int, trials: int) -> tuple[float, float]:
    """Returns the 95 % interval of the share accepted (Wilson, 1927); `trials` is 1 or more."""
    share, z = accepted / trials, 1.96
    middle = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    spread = math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    half = z / (1 + z * z / trials) * spread
    return max(middle - half, 0.0), min(middle + half, 1.0)


def untested(result: Mapping[str, Any]) -> str:
    """UNTESTED, of a metrics.json whose tables are of 0 incorrect installations; otherwise ''."""
    known = [wrong for entry in result["streams"].values() if (wrong := entry.get("wrong"))]
    return UNTESTED if known and not any(wrong["shown"] for wrong in known) else ""


def in_words(summary: Mapping[str, Any] | None) -> str:
    """A sentence on how many were accepted, with the interval; '' where `untested` says it."""
    if summary is None or not summary["shown"]:
        return UNTESTED if summary is None else ""
    accepted, shown = summary["accepted"], summary["shown"]
    low, high = interval(accepted, shown)
    return (
        f"Of {shown} incorrect installations here {accepted} were accepted: {low:.0%} to "
        f"{high:.0%} (95 %)."
    )


def summary_table(result: Mapping[str, Any]) -> Rows:
    """A row per stream of metrics.json; none of a stream of which nothing is known."""
    return [
        {"stream": stream, **{figure.key: s["wrong"][figure.key] for figure in headline.WRONG}}
        for stream, s in headline.streams(result).items()
        if s.get("wrong") is not None
    ]


def installations_table(result: Mapping[str, Any]) -> Rows:
    """A row per stream and wrong installation; seconds from frame 0 on."""
    rows = []
    for stream, s in headline.streams(result).items():
        for name, r in s["recordings"].items():
            for k, *frames in (r.get("wrong") or {"installations": ()})["installations"]:
                seconds = [None if frame is None else frame / result["fps"] for frame in frames]
                columns = ("start_s", "end_s", "accepted_s", "found_s")
                rows.append(
                    {
                        "stream": stream,
                        "recording": name,
                        "part": result["components"][k],
                        **dict(zip(columns, seconds, strict=True)),
                    }
                )
    return rows
