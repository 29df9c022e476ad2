"""Signs that the frames of predictions are counted at another rate than those of the labels.

Detections at the 25 frames a second of the video, scored against labels at 5, give high figures and
senseless delays. Nothing in the files says at which rate they count, so this goes by three signs:

* where visibility is known for every frame, the recording's end is known, and no prediction can be
  after it;
* the last predicted frame of every recording lies far behind its last label, or far before it;
* the times of the recognised steps grow much faster, or slower, than those of the true ones: a
  straight line through the two fits well, and its slope is not near 1. A slow recogniser, in
  contrast, moves the line and leaves its slope.

The first is certain, and so are the second and the third together. Each of these alone is a
warning; a slope near 1 shows that the rates are the same. Of fewer steps `agreement` says more.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from stormpsr_jax.psr.files.labels import Step
from stormpsr_jax.psr.files.recordings import KINDS, LabelledPredictions

# Golden runs and the MECCANO and IndustReal recordings have ends at 0.5 to 1.3 of the last label.
FAR_BEHIND, FAR_BEFORE = 1.8, 0.4
# Lines through fewer steps, or that fit worse, say nothing. Runs of the golden data on which a line
# fits that well have slopes of 0.98 to 1.01.
MIN_STEPS, MIN_FIT, MAX_SLOPE = 6, 0.99, 1.1


def check(
    recordings: Mapping[str, LabelledPredictions],
    stream: str,
    kind: str,
    events: Mapping[str, Sequence[Step]],
    fps: float,
) -> tuple[list[str], list[str]]:
    """Looks for the signs in one stream.

    `kind` is that of the predictions that it is decoded from, and `events` are (frame, step id)
    that it recognised, by recording. Returns errors, which are certain, and warnings; both say what
    to do.
    """
    flag = KINDS[kind].flag
    ratios, errors = _ends(recordings, kind), []
    for name, r in recordings.items():
        predictions = r.of_kind(kind)
        last_label = max((frame for frame, _ in r.truth), default=0)
        if not len(predictions.frames) or not last_label:
            continue
        last = int(predictions.frames[-1])
        end = _known_end(r)
        if end is not None and last > max(end, last_label) + fps:
            errors.append(
                f"recording {name}: --{flag} has frame {last}, but the recording ends at frame "
                f"{max(end, last_label)} by --visibility; {remedy(flag, last / end, fps)}"
            )
    slope = _slope(*_points(recordings, events))
    if slope is not None and abs(math.log(slope)) <= math.log(MAX_SLOPE):
        return errors, []  # the rates are the same, wherever the predictions end
    behind, before = min(ratios, default=1) > FAR_BEHIND, max(ratios, default=1) < FAR_BEFORE
    signs = []
    if behind or before:
        signs.append(f"the last frames of --{flag} are {_range(ratios)} times those of the labels")
    if slope is not None:
        signs.append(
            f"the frames of the steps that stream {stream} recognises grow {slope:.3g} times as "
            "fast as those of the labels"
        )
    if not signs:
        return errors, []
    ratio = slope if slope is not None else float(np.median(ratios))
    what = f"{', and '.join(signs)}; {remedy(flag, ratio, fps)}"
    if slope is not None and ((behind and slope > 1.5) or (before and slope < 1 / 1.5)):
        return [*errors, what], []
    return errors, [what]


def ends(recordings: Mapping[str, LabelledPredictions]) -> list[str]:
    """Returns a sentence per kind of prediction files: where they end, against the labels."""
    what = "the last frames are {} times those of the last labelled steps"
    kinds = {KINDS[kind].flag: _ends(recordings, kind) for kind in ("detections", "windows")}
    return [f"--{flag}: {what.format(_range(found))}" for flag, found in kinds.items() if found]


def _ends(recordings: Mapping[str, LabelledPredictions], kind: str) -> list[float]:
    """The last predicted frame over the last labelled one, of each recording that has both."""
    pairs = [
        (r.of_kind(kind), max((frame for frame, _ in r.truth), default=0))
        for r in recordings.values()
    ]
    return [int(p.frames[-1]) / last for p, last in pairs if p and len(p.frames) and last]


def _known_end(r: LabelledPredictions) -> int | None:
    """The last frame of a recording whose visibility file has every frame from 0 or 1 on."""
    if r.visibility is None or not len(r.visibility[0]):
        return None
    first, last = r.visibility[0][[0, -1]].tolist()
    return last if first <= 1 and last - first + 1 == len(r.visibility[0]) and last > 0 else None


def _points(
    recordings: Mapping[str, LabelledPredictions], events: Mapping[str, Sequence[Step]]
) -> tuple[np.ndarray, np.ndarray]:
    """The true and the recognised frames of all steps; of one that repeats the first counts."""
    points = []
    for name, r in recordings.items():
        found = _first(events[name])
        points += [(t, found[step]) for step, t in _first(r.truth).items() if step in found]
    true, recognised = np.array(points, np.float64).reshape(-1, 2).T
    return true, recognised


def _slope(true: np.ndarray, recognised: np.ndarray) -> float | None:
    """Slope of the line through the points, if there are enough and it fits."""
    if len(true) < MIN_STEPS or not np.ptp(true) or not np.ptp(recognised):
        return None
    if np.corrcoef(true, recognised)[0, 1] ** 2 < MIN_FIT:
        return None
    slope = float(np.polyfit(true, recognised, 1)[0])
    return slope if slope > 0 else None


def _first(steps: Sequence[Step]) -> dict[int, int]:
    found: dict[int, int] = {}
    for frame, step_id in sorted(steps):
        found.setdefault(step_id, frame)
    return found


def _range(ratios: Sequence[float]) -> str:
    low, high = f"{min(ratios):.2g}", f"{max(ratios):.2g}"
    return low if low == high else f"{low} to {high}"


def remedy(flag: str, ratio: float, fps: float) -> str:
    """Returns what to do where the predictions' frames are `ratio` times those of the labels."""
    return (
        f"do the frames of --{flag} count at another rate than those of --labels, "
        f"such as {ratio * fps:.3g} a second instead of {fps:g}? "
        "python -m stormpsr_jax.psr.convert frames --fps=FROM:TO converts them. Or do labels with "
        f"a column frame count at another, such as {fps / ratio:.3g}? Give it as --labels_fps"
    )
