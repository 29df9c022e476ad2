"""Which frames a batch is made of: key-frame (KFS) and key-clip-aware (KCAS) sampling, XOR labels.

Everything here works on label arrays alone; no picture is opened. A draw is a function of the
generator it is given, so that a pipeline which seeds it by (seed, index) repeats no draw.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stormpsr_jax.data.folder import LabelledFrames
from stormpsr_jax.recordings.procedure import Procedure

NO_CLASS = -1  # label of a picture that belongs to no state: a hard background or a free frame


def binarise(states: np.ndarray) -> np.ndarray:
    """State vectors in {-1, 0, 1} → {0, 1}: an incorrectly installed component counts as absent."""
    return (np.asarray(states) == 1).astype(np.int8)


def change_frames(states: np.ndarray, wrong: bool = False) -> np.ndarray:
    """Indices (E,) of the frames of `states` (N, K) at which a state differs from the one before.

    Components that change in one frame are one event. States are compared after `binarise`, since
    only those changes are labels of a clip; with `wrong` as they are, so that a component that is
    installed wrong is an event too.
    """
    states = np.asarray(states) if wrong else binarise(states)
    return np.flatnonzero((states[1:] != states[:-1]).any(axis=1)) + 1


def window_frames(last: int | np.ndarray, *, frames: int, stride: int) -> np.ndarray:
    """Frame indices (…, frames / stride + 1) of the clip that ends at `last`: last − w, …, last.

    A window that begins before the recording (index 0) repeats its first frame.
    """
    offsets = np.arange(-frames, 1, stride)
    return np.maximum(np.asarray(last)[..., None] + offsets, 0)


def clip_labels(states: np.ndarray, last: int | np.ndarray, *, frames: int) -> np.ndarray:
    """XOR labels (…, K) of the clips that end at `last` (STORM-PSR, Sec. 3.3)."""
    last = np.asarray(last)
    return binarise(states[np.maximum(last - frames, 0)]) ^ binarise(states[last])


def clip_density(
    num_frames: int,
    events: np.ndarray,
    *,
    sampling: str = "kcas",
    delta: float = 80.0,
    sigma: float = 45.0,
) -> np.ndarray:
    """Probability (N,) of every frame to be the last one of a sampled clip.

    KCAS (STORM-PSR, Sec. 3.3): p(x) ∝ Σ_j N(x; t_j − δ, σ) + N(x; t_j + δ, σ) over the frames t_j
    of `events`, each with the same weight; δ and σ are in frames. `gaussian` has one mode, at t_j,
    and `uniform`, or a recording without events, none; both are the paper's ablation. Normalised
    over the frames of the recording, so that events near its ends, whose modes are cut off, keep
    the mass that lies inside.
    """
    events = np.asarray(events, np.float64)
    if sampling == "uniform" or events.size == 0:
        return np.full(num_frames, 1.0 / num_frames)
    modes = np.concatenate([events - delta, events + delta]) if sampling == "kcas" else events
    x = np.arange(num_frames)
    density = np.zeros(num_frames)
    for mode in modes:
        density += np.exp(-0.5 * ((x - mode) / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi))
    total = density.sum()
    if total <= 0:  # every mode lies far outside of the recording
        return np.full(num_frames, 1.0 / num_frames)
    return density / total


class ClipSampler:
    """Draws clips of a split: a recording uniformly, then its last frame by `clip_density`."""

    def __init__(
        self,
        recordings: Mapping[str, LabelledFrames],
        *,
        wrong: bool = False,
        every: int = 1,
        **density: Any,
    ):
        """Takes the recordings; `wrong` is of `change_frames`, `density` of `clip_density`.

        Clips end at every so-manieth frame, which has the probability of those up to the next one.
        """
        self.names, self._every = list(recordings), every
        self._cumulative = []
        for r in recordings.values():
            found = clip_density(r.num_frames, change_frames(r.states, wrong), **density)
            held = np.add.reduceat(found, np.arange(0, r.num_frames, every))
            self._cumulative.append(np.cumsum(held))

    def draw(self, rng: np.random.Generator) -> tuple[str, int]:
        """Returns (recording, index of the clip's last frame within it)."""
        i = int(rng.integers(len(self.names)))
        cumulative = self._cumulative[i]
        last = np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right")
        return self.names[i], int(min(last, len(cumulative) - 1)) * self._every


@dataclasses.dataclass(frozen=True)
class Picked:
    """One picture of a batch: a frame index of a recording of one of two sources, and its label."""

    recording: str
    index: int
    label: int  # catalogued state 1…S, or NO_CLASS
    cad: bool = False


def key_frames(
    recording: LabelledFrames, procedure: Procedure, window: int, *, initial: bool = False
) -> dict[int, np.ndarray]:
    """Frame indices after each completion that carry the catalogued state it reached (KFS).

    A completion's frames are the `window` ones from it on, or fewer where the state changes again
    before. Error states (a component at −1) and uncatalogued states give none. With `initial`, the
    first `window` frames of the recording carry the state it begins in, as in the released code:
    no completion reaches a state that all recordings begin in, such as IndustReal's first one.

    Returns:
        {state 1…S: (M,) frame indices, ascending}.
    """
    states = recording.states
    starts = change_frames(states, wrong=True)
    if initial:
        starts = np.append(0, starts)
    bounds = np.append(starts, len(states)).tolist()
    by_state: dict[int, list[np.ndarray]] = {}
    for start, end in itertools.pairwise(bounds):
        label = procedure.state_class(states[start])
        if 1 <= label <= procedure.num_states:
            by_state.setdefault(label, []).append(np.arange(start, min(end, start + window)))
    return {label: np.concatenate(frames) for label, frames in by_state.items()}


class KeyFrameSampler:
    """Draws whole batches for supervised contrastive learning on key frames.

    Source: STORM-PSR, Sec. 3.2. With `anywhere`, the control, a state's pictures are of all frames
    from a completion to the next change, however far from it.

    A batch holds, for each assembly state, `n_per_state` pictures from recordings and
    `cad_per_state` clean renders; then `backgrounds` hard backgrounds, of which `background_frames`
    says how many frames before a completion they lie, and `any_frames` frames from anywhere.
    `initial`: of `key_frames`.
    """

    def __init__(
        self,
        recordings: Mapping[str, LabelledFrames],
        procedure: Procedure,
        *,
        window: int,
        anywhere: bool = False,
        initial: bool = False,
        n_per_state: int = 16,
        cad: Mapping[str, LabelledFrames] | None = None,
        cad_per_state: int = 0,
        backgrounds: int = 0,
        background_frames: Sequence[int] = (102, 121),
        any_frames: int = 0,
    ):
        self._recordings = dict(recordings)
        self._n_per_state, self._cad_per_state = n_per_state, cad_per_state
        self._backgrounds, self._any_frames = backgrounds, any_frames
        self._real: dict[int, list[tuple[str, np.ndarray]]] = {}
        keyed: dict[str, np.ndarray] = {}
        for name, recording in self._recordings.items():
            reach = recording.num_frames if anywhere else window
            found = key_frames(recording, procedure, reach, initial=initial)
            keyed[name] = np.concatenate([np.zeros(0, int), *found.values()])
            for label, frames in found.items():
                self._real.setdefault(label, []).append((name, frames))
        self._cad: dict[int, list[tuple[str, np.ndarray]]] = {}
        if cad_per_state:
            for name, recording in (cad or {}).items():
                classes = procedure.state_classes(recording.states)
                for label in range(1, procedure.num_states + 1):
                    if len(frames := np.flatnonzero(classes == label)):
                        self._cad.setdefault(label, []).append((name, frames))
            if not self._cad:
                raise ValueError(
                    f"pretrain.cad_per_state={cad_per_state}, but the shards have no CAD renders "
                    "of a catalogued state (split 'cad'); render some, or set it to 0"
                )
        self.labels = sorted(set(self._cad) | set(self._real))
        if not self.labels:
            raise ValueError(
                "no completion of the training split reaches a catalogued state: KFS has no key "
                "frame to draw; check the procedure's states against the labels"
            )
        S = procedure.num_states
        self._background_frames = {}
        for name, r in self._recordings.items():
            begun = initial and 1 <= procedure.state_class(r.states[0]) <= S
            frames = frames_before(r, window, *background_frames, begun=begun)
            # With `anywhere`, key frames are those far from the completion too.
            if len(frames := np.setdiff1d(frames, keyed[name])):
                self._background_frames[name] = frames
        if backgrounds and not self._background_frames:
            first, last = background_frames
            raise ValueError(
                f"pretrain.backgrounds={backgrounds}, but no frame lies {first} to {last} frames "
                "(pretrain.background_frames) before a completion and after the key frames of the "
                "one before; lower these, or set pretrain.backgrounds to 0"
            )

    @property
    def batch_size(self) -> int:
        """Pictures in a batch."""
        per_state = self._n_per_state + self._cad_per_state
        return len(self.labels) * per_state + self._backgrounds + self._any_frames

    def draw(self, rng: np.random.Generator) -> list[Picked]:
        """Returns the pictures of one batch, `batch_size` of them."""
        picked = []
        for label in rng.permutation(self.labels).tolist():
            # A state that one source lacks takes its share from the other.
            cad = self._cad_per_state if label in self._cad else 0
            if label not in self._real:
                cad = self._n_per_state + self._cad_per_state
            real = self._n_per_state + self._cad_per_state - cad
            picked += _spread(self._real.get(label, []), real, label, False, rng)
            picked += _spread(self._cad.get(label, []), cad, label, True, rng)
        names = list(self._background_frames)
        for _ in range(self._backgrounds):
            name = names[rng.integers(len(names))]
            picked.append(Picked(name, int(rng.choice(self._background_frames[name])), NO_CLASS))
        names = list(self._recordings)
        for _ in range(self._any_frames):
            name = names[rng.integers(len(names))]
            index = int(rng.integers(self._recordings[name].num_frames))
            picked.append(Picked(name, index, NO_CLASS))
        return picked


def frames_before(
    recording: LabelledFrames, window: int, first: int, last: int, *, begun: bool = False
) -> np.ndarray:
    """Indices (M,) of frames `first` to `last` before a change and ≥ `window` after the one before.

    The frame of a change is a key frame, so that a `first` of 0 is one of 1. With `begun`, the
    recording begins with a change too: its first `window` frames are key frames of the state it
    begins in.
    """
    states = recording.states
    window = min(window, len(states))  # which fits into an array
    first = max(first, 1)
    starts = change_frames(states, wrong=True)
    previous = np.concatenate([[window if begun else 0], starts + window])
    return np.concatenate(
        [np.arange(max(a, b - last), b - first + 1) for a, b in zip(previous, starts, strict=False)]
        or [np.zeros(0, int)]
    ).astype(int)


def _spread(
    sources: Sequence[tuple[str, np.ndarray]],
    count: int,
    label: int,
    cad: bool,
    rng: np.random.Generator,
) -> list[Picked]:
    """`count` pictures of one state; no recording is used again before all have been."""
    picked: list[Picked] = []
    while len(picked) < count:
        for i in rng.permutation(len(sources))[: count - len(picked)]:
            name, frames = sources[i]
            picked.append(Picked(name, int(rng.choice(frames)), label, cad=cad))
    return picked
