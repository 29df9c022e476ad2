"""Labels of a user's own recordings: PSR files or a label format; boxes of COCO, CVAT or YOLO."""

import functools
import zlib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import numpy as np

from data_prep.reading import boxes, data_sets, recording_labels
from data_prep.reading.boxes import Boxes
from data_prep.reading.data_sets import RecordingFiles
from data_prep.reading.recording_labels import Labels
from stormpsr_jax.base import files, folders
from stormpsr_jax.base.errors import for_each, one_line
from stormpsr_jax.media import containers, finding, video
from stormpsr_jax.media.pictures import Pictures
from stormpsr_jax.recordings import box_forms, label_files, labels, timed_labels
from stormpsr_jax.recordings.boxes import Picture, by_frame
from stormpsr_jax.recordings.formats.sample import Unit
from stormpsr_jax.recordings.procedure import Procedure
from stormpsr_jax.recordings.timed_labels import Shown
from stormpsr_jax.recordings.words import Terms

_SAME_RATE = 0.01  # a video at 29.97 has the rate of a tool that counts 30
_SHARED = (".json", ".xml")  # COCO and CVAT, which may have the boxes of several recordings


def read_labels(
    recording: RecordingFiles, procedure: Procedure, terms: Terms | None = None
) -> Labels:
    """Labels (PSR files, or a label format) and boxes of a recording; ValueError has all errors."""

    def read_steps() -> Labels:
        procedure.variant_for(recording.name)  # which it has to have
        if recording.labels.path.is_file():
            return _read_timed(recording, procedure, terms or Terms())
        found = recording_labels.read_psr_labels(recording, procedure)
        if label_files.STATES not in found.files and len(found.states) == 1:
            raise ValueError(_unlabelled(recording.labels, recording.name))
        return found

    return recording_labels.with_boxes(recording, read_steps, read_boxes)


def _unlabelled(place: object, name: str) -> str:
    """What is wrong with labels without a step: hardly anybody films that nothing happens."""
    return (
        f"{place}: no step of {name} is labelled; label it, or take the labels away, so that its "
        f"video is left out (where nothing is to happen, {name}/{label_files.STATES} says so with "
        "the first state alone)"
    )


def _read_timed(recording: RecordingFiles, procedure: Procedure, terms: Terms) -> Labels:
    place, first = recording.labels, recording.pictures.first_frame
    initial = procedure.variant_for(recording.name).initial_state
    timed = label_files.read_times(place, procedure, terms, recording.name, with_pictures=True)
    if not timed:
        raise ValueError(_unlabelled(place, recording.name))
    first_state, steps = timed_labels.to_frames(
        place.path,
        timed,
        initial,
        procedure,
        first_frame=first,
        num_frames=recording.pictures.num_frames,
        shown=functools.partial(_shown, recording.pictures, procedure.fps),
    )
    said = place.path.read_bytes()
    if len(place.parsed.recordings) > 1:  # those of others may change
        said = repr([(step.at, step.unit.value, step.step_id) for step in timed]).encode()
    frames, states = labels.steps_to_states(steps, first_state, first)
    derived = labels.states_to_steps(frames, states)
    checksum = zlib.crc32(terms.fingerprint.encode(), zlib.crc32(said))
    return Labels(frames, states, derived, {}, checksum)


def other_rates(found: Iterable[RecordingFiles], labels_fps: float) -> list[str]:
    """Returns a warning if videos whose labels count frames have another rate than --labels_fps."""
    names: list[str] = []
    rates: list[float] = []
    for recording in found:
        pictures, place = recording.pictures, recording.labels
        if not (isinstance(pictures, video.Video) and place.path.is_file()):
            continue
        entries = place.parsed.entries
        counted = any(entry.unit is not Unit.SECONDS for entry in entries)
        times = containers.read_times(pictures.path)
        rate = (len(times) - 1) / float(times[-1] - times[0]) if counted and len(times) > 1 else 0
        if rate and abs(labels_fps / rate - 1) > _SAME_RATE:
            names.append(recording.name)
            rates.append(rate)
    if not names:
        return []
    those = ", ".join(sorted({f"{rate:.3g}" for rate in rates}))
    return [
        f"--labels_fps={labels_fps:g}, but the videos of {one_line(', '.join(names), 200)} have "
        f"{those} pictures a second: this is right only if the labelling tool counted "
        f"{labels_fps:g}, as tag Video of Label Studio says with frameRate. Numbers of a video's "
        "pictures, as CVAT has them, go by the video"
    ]


def _shown(pictures: Pictures, fps: float) -> Shown:
    """Returns which frames show the pictures of a recording, of a video by its timestamps."""
    if isinstance(pictures, video.Video):
        return shown_of(containers.read_times(pictures.path), fps)
    numbers = np.arange(pictures.num_frames)
    return Shown(numbers / fps, numbers)


def shown_of(times: np.ndarray, fps: float) -> Shown:
    """Returns which frames show the pictures of a video; `times` as of `containers.read_times`."""
    repeats = video.resample(times, fps)
    return Shown(times - times[0], np.cumsum(repeats) - repeats)


def read_boxes(path: Path) -> Boxes:
    """Reads the boxes of a recording: of a COCO or CVAT file, or of a folder of YOLO's."""
    if path.is_file():
        return boxes.of_one(box_forms.read(path), path.stem)

    def picture(name: str) -> Picture:
        return box_forms.yolo(files.read_text(path / name), str(path / name))

    there = filter(box_forms.is_of_picture, folders.entries(path)[1])
    pictures = for_each([(name,) for name in there], picture)
    return boxes.joined(by_frame(pictures).values())


def find_boxes(path: str | Path, names: Collection[str]) -> Mapping[str, Path | Boxes]:
    """Finds the boxes of each recording, of which labels have `names`.

    `path` is a folder with <recording>.json (COCO), <recording>.xml (CVAT) and folders <recording>/
    of .txt files (YOLO); or a COCO or CVAT file of all recordings, or a folder with that alone.
    ValueError: there are none, a recording has both, or a file of all recordings has mistakes.
    """
    top, places = folders.given(path, "--boxes", "or a COCO or CVAT file"), list[tuple[str, Path]]()
    for folder, _, there in folders.walk(top):
        places += [
            (file.rpartition(".")[0], folder / file)
            for file in there
            if file.lower().endswith(_SHARED)
        ]
        if folder != top and any(map(box_forms.is_of_picture, there)):
            places.append((folder.name, folder))
    found = finding.by_name(places)
    if not found:
        raise ValueError(
            f"--boxes={path}: has no <recording>.json (COCO), <recording>.xml (CVAT) or "
            "<recording>/*.txt (YOLO)"
        )
    (_, shared), *others = places
    if not others and (shared == top or not found.keys() & set(names)):
        if shared.is_file():
            return boxes.by_recording(box_forms.read(shared), names)
    return data_sets.only_places(found, "--boxes", "boxes")
