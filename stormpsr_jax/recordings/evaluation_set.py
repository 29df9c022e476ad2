"""The labels and predictions of a set of recordings, found in their folders and read."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from stormpsr_jax.base import folders
from stormpsr_jax.base.errors import first_of, raise_all
from stormpsr_jax.recordings import find, predictions
from stormpsr_jax.recordings import scores as score_files
from stormpsr_jax.recordings.label_file import LabelPlace
from stormpsr_jax.recordings.labels import STEPS, WITH_ERRORS, Step
from stormpsr_jax.recordings.procedure import Procedure, Variant
from stormpsr_jax.recordings.words import Terms

# By kind of predictions that streams need, the flag that gives it; "windows" is what the temporal
# network says of the clip that ends at a frame.
FLAGS = {"detections": "asd", "windows": "temporal", "scores": "scores"}
_ADVICE = "a file with the header row alone says that nothing was predicted"


@dataclasses.dataclass
class LabelledPredictions:
    """The labels of one recording, and what the streams predicted for it.

    Attributes:
        truth: (frame, step id) in file order.
        states: (M, K), with M = 0 where the labels give none.
        detections, temporal: predictions, None for a stream that was not asked for.
        visibility: frames (M,) and visible fractions (M,), None where unknown.
        visible_from: see `predictions.read_visible_from`; None where nobody knows it.
        frames: (M,) ascending, of the states, each of which holds from its frame on.
        with_errors: whether the truth has the incorrect installations too.
        scores: of the networks, for the learned fusion; None where there are none.
        believed: what a fitted stream made of the scores last, and with what.
    """

    name: str
    variant: Variant
    truth: list[Step]
    states: np.ndarray
    detections: predictions.Detections | None = None
    temporal: predictions.TemporalPredictions | None = None
    visibility: tuple[np.ndarray, np.ndarray] | None = None
    frames: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))
    with_errors: bool = False
    scores: score_files.Scores | None = None
    visible_from: Mapping[Step, int | None] | None = None
    believed: tuple[tuple, Any] | None = dataclasses.field(
        default=None, init=False, repr=False, compare=False
    )

    def of_kind(self, kind: str) -> Any:
        """Returns the predictions of a kind of `FLAGS`; None where there are none."""
        return getattr(self, "temporal" if kind == "windows" else kind)

    def states_at(self, frames: np.ndarray) -> np.ndarray:
        """Returns the true states (N, K) at frames (N,); the first also holds before its frame.

        ValueError where the labels give none.
        """
        if not len(self.frames):
            raise ValueError(f"recording {self.name}: its labels give no states")
        rows = np.searchsorted(self.frames, frames, "right") - 1
        return np.asarray(self.states, np.int8)[np.maximum(rows, 0)]


def load_recordings(
    procedure: Procedure,
    labels_dir: str | os.PathLike | None,
    asd_dir: str | os.PathLike | None = None,
    temporal_dir: str | os.PathLike | None = None,
    *,
    scores_dir: str | os.PathLike | None = None,
    visibility_dir: str | os.PathLike | None = None,
    variant: str | None = None,
    with_errors: bool = False,
    split: str | None = None,
    terms: Terms | None = None,
    label_fps: float | None = None,
) -> dict[str, LabelledPredictions]:
    """Reads the labels of recordings, and their predictions `<rec>_results_pred.csv`.

    Args:
        labels_dir: what `find.find` takes; None reads predictions alone.
        asd_dir, temporal_dir: folders of predictions (`predictions.find`); None for a
            stream that is absent.
        scores_dir: `<rec>.npz` per recording (`scores.read_scores`); None without them.
        visibility_dir: `<rec>.csv` per recording, where known.
        variant: of all recordings; None finds each one's by its name.
        with_errors: takes the truth from `PSR_labels_with_errors.csv`.
        split: of labels below folders of splits, only these.
        label_fps: rate at which PSR label files count, those of the procedure's file; None: as the
            procedure says.

    Returns:
        By name, sorted.

    Raises:
        ValueError: every error in every file, recordings that one folder has and another has not,
            and folders that are none.
    """
    for flag, folder in (("--scores", scores_dir), ("--visibility", visibility_dir)):
        if folder is not None:
            folders.require(folder, flag)
    if variant is not None:
        procedure.variant_for("", variant)  # says once that a name is wrong, not per recording
    errors: list[str] = []

    def attempt(place: Any, read: Callable[..., Any], *args: Any, **options: Any) -> Any:
        try:
            return read(*args, **options)
        except ValueError as error:
            errors.extend(first_of(error, place))
            return None

    both = {"--asd": asd_dir, "--temporal": temporal_dir}
    given = {flag: path for flag, path in both.items() if path is not None}
    places: Mapping[str, LabelPlace | None]
    streams = {flag: predictions.find(path, flag) for flag, path in given.items()}
    if labels_dir is None:
        places = _of_predictions(given, streams)
    else:
        content = {name for predicted in streams.values() for name in predicted}
        places = labelled = find.find(labels_dir, split, content)
        counted = [place for place in labelled.values() if not place.is_file]
        if counted and label_fps not in (None, procedure.fps):
            raise ValueError(
                f"{counted[0]}: counts {label_fps:g} frames a second, as procedure "
                f"{procedure.name!r} says, and not --fps={procedure.fps:g}; leave --fps out, or "
                'write this rate as "fps" in a procedure file of yours'
            )
        for flag, predicted in streams.items():
            errors += _name_errors(predicted, given[flag], flag, labels_dir, labelled)
    if scores_dir is not None:
        streams["--scores"] = predictions.find(scores_dir, "--scores", score_files.SUFFIX)
        errors += [
            f"{scores_dir}: no {name}{score_files.SUFFIX} for the recording {name} of "
            f"--labels={labels_dir}; stage predict writes it"
            for name in sorted(places.keys() - streams["--scores"].keys())
        ]
    raise_all(errors)
    recordings = {}
    needed = WITH_ERRORS if with_errors else STEPS
    for name, place in sorted(places.items()):
        of_recording = attempt(name, procedure.variant_for, name, variant)
        r = LabelledPredictions(
            name, of_recording, [], np.zeros((0, procedure.num_components), np.int8)
        )
        r.with_errors = with_errors
        if place is not None:
            options = {"needed": needed, "terms": terms, "recording": name}
            content = attempt(place, place.read, procedure, of_recording, **options)
            if content is not None:
                r.truth = content.with_errors if with_errors else content.steps
                r.frames, r.states = content.frames, content.states
            shown = place.path / predictions.VISIBLE_FROM
            if os.path.lexists(shown):
                r.visible_from = attempt(shown, predictions.read_visible_from, shown, procedure)
        own_files = {flag: paths[name] for flag, paths in streams.items() if name in paths}
        others = places.keys() - {name}
        if path := own_files.get("--asd"):
            r.detections = attempt(path, predictions.read_detections, path, procedure, others)
        if path := own_files.get("--temporal"):
            r.temporal = attempt(path, predictions.read_temporal, path, procedure, others)
        if path := own_files.get("--scores"):
            r.scores = attempt(path, score_files.read_scores, path, procedure)
        if visibility_dir is not None:
            table = pathlib.Path(visibility_dir) / f"{name}.csv"
            if os.path.lexists(table):
                r.visibility = attempt(table, predictions.read_visibility, table)
        recordings[name] = r
    raise_all(errors)
    return recordings


def _of_predictions(
    given: Mapping[str, str | os.PathLike], streams: Mapping[str, Mapping[str, pathlib.Path]]
) -> dict[str, None]:
    for flag, files_of in streams.items():
        if not files_of:
            problem = f"has no <recording>{predictions.SUFFIX}; {flag} needs some"
            raise ValueError(f"{given[flag]}: {problem}")
    names = sorted(set().union(*streams.values()))
    problem = f"which is in the other folder; {_ADVICE}"
    raise_all(
        [
            f"{given[flag]}: no {name}{predictions.SUFFIX}, {problem}"
            for flag, files_of in streams.items()
            for name in names
            if name not in files_of
        ]
    )
    return dict.fromkeys(names)


def _name_errors(
    predicted: Mapping[str, pathlib.Path],
    folder: str | os.PathLike,
    flag: str,
    root: str | os.PathLike,
    labelled: Mapping[str, LabelPlace],
) -> list[str]:
    errors, top = [], pathlib.Path(root)
    for name in sorted(labelled.keys() - predicted.keys()):
        advice = _ADVICE
        if split := find.split_of(labelled[name].path, top):
            advice += f", and --split leaves out other splits than one (this is of {split})"
        errors.append(
            f"{folder}: no {name}{predictions.SUFFIX} for the recording {name} of --labels={root}; "
            f"{advice}"
        )
    errors += [
        f"{root}: no labels of {name} for {predicted[name]}; "
        f"give {flag} a folder that holds the recordings of --labels alone"
        for name in sorted(predicted.keys() - set(labelled))
    ]
    return errors
