"""Holds what has been found of a download against what is known of it; a line each, for the log.

A recording in another split, a picture too few or a video that begins elsewhere shifts all labels
by a little, which no format tells.
"""

from collections.abc import Iterator, Sequence

from data_prep.reading.data_sets import Download, Format, RecordingFiles
from data_prep.reading.notes import some
from stormpsr_jax.media.video import Video


def compare(form: Format, recordings: Sequence[RecordingFiles]) -> list[str]:
    """Lines about recordings as they were found: splits and frames."""
    return [_splits(form, recordings), *_frames(form, recordings)]


def _splits(form: Format, recordings: Sequence[RecordingFiles]) -> str:
    download, title = form.download or Download(), form.title
    known = {name: split for split, names in download.last_frames.items() for name in names}
    there = {recording.name: recording.split for recording in recordings}
    others = [
        f"{name} in {split} instead of {known.get(name, 'none that is known')}"
        for name, split in there.items()
        if known.get(name) != split
    ]
    missing = [name for name in known if name not in there]
    line = (
        f"{len(there) - len(others)} of {len(there)} recordings are in the split that {title} has "
        "them in"
    )
    if others:
        line += f"; others: {some(others)}"
    if missing:
        line += f"; {len(missing)} of its {len(known)} recordings are not there: {some(missing)}"
    return line


def _frames(form: Format, recordings: Sequence[RecordingFiles]) -> Iterator[str]:
    """Compares first and last frames, and the sums of the splits of which no more is known."""
    download = form.download or Download()
    last = {name: at for of_split in download.last_frames.values() for name, at in of_split.items()}
    known = [recording for recording in recordings if last.get(recording.name) is not None]
    others = []
    for recording in known:
        name, frames = recording.name, recording.pictures
        starts = download.video_starts if isinstance(frames, Video) else download.first_frames
        wanted = starts.get(name, form.first_frame), last[name]
        if (there := (frames.first_frame, _last(recording))) != wanted:
            others.append(f"{name} has {there[0]}…{there[1]} instead of {wanted[0]}…{wanted[1]}")
    if known:
        line = (
            f"{len(known) - len(others)} of {len(recordings)} recordings have the frame numbers "
            f"known of the download, of {len(recordings) - len(known)} they are not known"
        )
        yield line + (f"; others: {some(others)}" if others else "")
    for split, expected in download.split_frames.items():
        of_split = {r.name: r.pictures.num_frames for r in recordings if r.split == split}
        if of_split.keys() == download.last_frames[split].keys():
            count = sum(of_split.values())
            known_as = "as known" if count == expected else f"known are {expected:,}"
            yield f"split {split} has {count:,} frames in sum, {known_as}"


def _last(recording: RecordingFiles) -> int:
    return recording.pictures.first_frame + recording.pictures.num_frames - 1
