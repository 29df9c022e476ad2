"""The labels and predictions of a set of recordings, found in their folders and read."""

import dataclasses
import os
import pathlib

import numpy as np

from stormpsr_jax.psr import labels, predictions
from stormpsr_jax.psr.procedure import Procedure, Variant

_SUFFIX = "_results_pred.csv"


@dataclasses.dataclass
class LabelledPredictions:
    """What is known of one recording.

    Attributes:
        name: of its label folder.
        variant: of the procedure.
        truth: (frame, step id) in file order.
        states: (M, K) of `PSR_labels_raw.csv`, with M = 0 where there is no such file.
        detections, temporal: predictions, None for a stream that was not asked for.
        visibility: frames (M,) and visible fractions (M,), None where unknown.
    """

    name: str
    variant: Variant
    truth: list[labels.Step]
    states: np.ndarray
    detections: predictions.Detections | None = None
    temporal: predictions.TemporalPredictions | None = None
    visibility: tuple[np.ndarray, np.ndarray] | None = None


def load_recordings(
    procedure: Procedure,
    labels_dir: str | os.PathLike,
    asd_dir: str | os.PathLike | None = None,
    temporal_dir: str | os.PathLike | None = None,
    *,
    visibility_dir: str | os.PathLike | None = None,
    variant: str | None = None,
    with_errors: bool = False,
) -> dict[str, LabelledPredictions]:
    """Reads `labels_dir/<rec>/PSR_labels.csv` and the predictions `<rec>_results_pred.csv`.

    Args:
        procedure: the product.
        labels_dir: a folder per recording.
        asd_dir, temporal_dir: prediction folders; None for a stream that is absent.
        visibility_dir: `<rec>.csv` per recording, where known.
        variant: of all recordings; None finds each one's by its name.
        with_errors: takes the truth from `PSR_labels_with_errors.csv`.

    Returns:
        By name, sorted.

    Raises:
        ValueError: a folder or file that cannot be read, a recording with labels but without
            predictions or the reverse, and all that the readers refuse.
    """
    root = _folder(labels_dir, "--labels")
    names = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not names:
        raise ValueError(f"{root}: no recordings; --labels holds a folder per recording")
    for flag, folder in (("--asd", asd_dir), ("--temporal", temporal_dir)):
        if folder is not None:
            _check_names(_folder(folder, flag), flag, root, names)
    if visibility_dir is not None:
        _folder(visibility_dir, "--visibility")
    recordings = {}
    for name in names:
        truth_file = "PSR_labels_with_errors.csv" if with_errors else "PSR_labels.csv"
        recording = LabelledPredictions(
            name,
            procedure.variant_for(name, variant),
            labels.read_steps(root / name / truth_file, procedure),
            np.zeros((0, procedure.num_components), np.int8),
        )
        raw = root / name / "PSR_labels_raw.csv"
        if raw.exists():
            recording.states = labels.read_states(raw, procedure)[1]
        if asd_dir is not None:
            path = pathlib.Path(asd_dir) / f"{name}{_SUFFIX}"
            recording.detections = predictions.read_detections(path, procedure)
        if temporal_dir is not None:
            path = pathlib.Path(temporal_dir) / f"{name}{_SUFFIX}"
            recording.temporal = predictions.read_temporal(path, procedure)
        if visibility_dir is not None:
            path = pathlib.Path(visibility_dir) / f"{name}.csv"
            if path.exists():
                recording.visibility = predictions.read_visibility(path)
        recordings[name] = recording
    return recordings


def _folder(path: str | os.PathLike, flag: str) -> pathlib.Path:
    path = pathlib.Path(path)
    if not path.is_dir():
        raise ValueError(f"{path}: is not a folder; {flag} takes one")
    return path


def _check_names(folder: pathlib.Path, flag: str, root: pathlib.Path, labelled: list[str]) -> None:
    predicted = {p.name.removesuffix(_SUFFIX) for p in folder.iterdir() if p.name.endswith(_SUFFIX)}
    for name in labelled:
        if name not in predicted:
            raise ValueError(
                f"{folder}: no {name}{_SUFFIX} for the recording {name} of --labels={root}; "
                f"a file with the header row alone says that nothing was predicted"
            )
    for name in sorted(predicted - set(labelled)):
        raise ValueError(
            f"{root}: no folder {name} with labels for {folder / (name + _SUFFIX)}; "
            f"give {flag} a folder that holds the recordings of --labels alone"
        )
