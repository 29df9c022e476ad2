"""Holds what has been found of a download against what is known of it; a line each, for the log.

A recording in another split, a picture too few or a video that begins elsewhere shifts all labels
by a little, which no format tells.
"""

from collections.abc import Iterator, Sequence

from data_prep.reading.data_sets import Format, RecordingFiles
from data_prep.reading.remarks import some
from stormpsr_jax.media import containers
from stormpsr_jax.media.video import Video


def compare(form: Format, recordings: Sequence[RecordingFiles]) -> list[str]:
    """Returns lines about recordings as they were found: places, splits, frames and videos.

    Args:
        form: the data set, with what is known of its download.
        recordings: all of them.
    """
    return [
        *_outer_folders(recordings),
        _splits(form, recordings),
        *_frames(form, recordings),
        *_videos(form, recordings),
    ]


def _outer_folders(recordings: Sequence[RecordingFiles]) -> Iterator[str]:
    """Says where in zip files the label folders are, which nobody has described."""
    folders = [folder for tree, folder in (r.labels for r in recordings) if tree.is_zip]
    if not folders:
        return
    outer = sorted({folder.rpartition("/")[0] for folder in folders if "/" in folder})
    num_outer = sum("/" in folder for folder in folders)
    within = f" ({some(outer)})" if outer else ""
    yield (
        f"labels in zip files: of {len(folders) - num_outer} recordings at the top, of {num_outer} "
        f"in an outer folder{within}"
    )


def _splits(form: Format, recordings: Sequence[RecordingFiles]) -> str:
    known = {name: split for split, names in form.download.last_frames.items() for name in names}
    there = {recording.name: recording.split for recording in recordings}
    right = [name for name, split in there.items() if known.get(name) == split]
    line = f"{len(right)} of {len(there)} recordings are in the split that {form.title} has them in"
    others = [
        f"{name} in {split}" + (f" instead of {known[name]}" if name in known else ", not known")
        for name, split in there.items()
        if known.get(name) != split
    ]
    missing = [name for name in known if name not in there]
    if others:
        line += f"; others: {some(others)}"
    if missing:
        line += f"; {len(missing)} of its {len(known)} recordings are not there: {some(missing)}"
    return line


def _frames(form: Format, recordings: Sequence[RecordingFiles]) -> Iterator[str]:
    """Compares first and last frames, and the sums of the splits of which no more is known."""
    download = form.download
    last = {name: at for of_split in download.last_frames.values() for name, at in of_split.items()}
    known = {r.name for r in recordings if last.get(r.name) is not None}
    others = []
    for recording in recordings:
        if recording.name not in known:
            continue
        first = _first_number(form, recording)
        wanted = (first, last[recording.name])
        there = recording.pictures.first_frame, _last(recording)
        if there != wanted:
            others.append(
                f"{recording.name} has {there[0]}…{there[1]} instead of {wanted[0]}…{wanted[1]}"
            )
    if known:
        line = (
            f"{len(known) - len(others)} of {len(recordings)} recordings have the frame numbers "
            f"known of the download, of {len(recordings) - len(known)} they are not known"
        )
        yield line + (f"; others: {some(others)}" if others else "")
    for split, expected in download.split_frames.items():
        of_split = [r for r in recordings if r.split == split]
        if {r.name for r in of_split} == set(download.last_frames[split]):
            count = sum(r.pictures.num_frames for r in of_split)
            known_as = "as known" if count == expected else f"known are {expected:,}"
            yield f"split {split} has {count:,} frames in sum, {known_as}"


def _first_number(form: Format, recording: RecordingFiles) -> int:
    download, name = form.download, recording.name
    if isinstance(recording.pictures, Video):
        return download.video_starts.get(name, form.first_frame)
    return download.first_frames.get(name, form.first_frame)


def _last(recording: RecordingFiles) -> int:
    return recording.pictures.first_frame + recording.pictures.num_frames - 1


def _videos(form: Format, recordings: Sequence[RecordingFiles]) -> Iterator[str]:
    """Compares videos with the image files that are read instead of them."""
    both = [r for r in recordings if r.videos and not isinstance(r.pictures, Video)]
    if not both:
        return
    agreeing, others, unread = 0, [], []
    for recording in both:
        try:
            count = containers.count_frames(*recording.videos[0])
        except ValueError as error:  # it is not needed
            unread.append(str(error))
            continue
        start = form.download.video_starts.get(recording.name, form.first_frame)
        if start + count - 1 == _last(recording):
            agreeing += 1
        else:
            others.append(f"{recording.name} ({start}…{start + count - 1}, {_last(recording)})")
    line = (
        f"image files of {len(both)} recordings are read, and not their videos, {agreeing} of "
        "which end with the same frame"
    )
    if others:
        line += f"; others (frames of the video, last image): {some(others)}"
    if unread:
        line += f"; {len(unread)} could not be looked at: {unread[0]}"
    yield line
