"""What the page shows: the recordings, their labels, and what is left to do, as plain values.

Nothing here waits for a network; the server calls it in threads, one at a time for a recording.
"""

import asyncio
import shlex
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import simplejpeg

from data_prep import command, matching
from data_prep.label.boxes import CARRIED, Box, BoxFolder
from data_prep.label.frames import Video
from data_prep.label.labels import LabelFolder, Snapshot
from data_prep.label.models import SIZE, Proposals, TrainingOptions, training, uncertainty
from data_prep.label.store import LabelStore, State
from data_prep.notes import ENOUGH_VIDEOS, ENOUGH_WRONG, product_size
from data_prep.writing.from_files import SAME_ASPECT
from data_prep.writing.locating import CLOSE
from stormpsr_jax.base import folders
from stormpsr_jax.base.errors import message_of
from stormpsr_jax.media import sources
from stormpsr_jax.media.video import is_video
from stormpsr_jax.psr import advice, analysis
from stormpsr_jax.recordings.find import SPLITS
from stormpsr_jax.recordings.labels import Step
from stormpsr_jax.recordings.procedure import Procedure
from stormpsr_jax.recordings.words import Terms

_KEYS = "123456789abcdefghijklmnopqrstuvwxyz"
_KINDS = ("install", "wrong", "remove")
_QUALITY = 90  # of JPEG
# By config: minutes that it takes besides those of each minute of video.
_COSTS = {"own": 3, "own:boxes": 7}
_OF_VIDEO = 0.1


class Conflict(ValueError):
    """What somebody wants to replace is not what they have seen; `now` is what there is."""

    def __init__(self, now: dict[str, Any]):
        super().__init__("changed elsewhere: in another tab, or by another program")
        self.now = now


class Recording:
    """A recording."""

    def __init__(self, name: str, place: Path):
        self.name, self.place = name, place
        self.video: Video | None = None  # while its index is built, or if it cannot be read
        self.error = ""  # why it cannot be read, as far as is known
        self.lock = asyncio.Lock()  # of who uses `video`

    def build(self, fps: float) -> None:
        """Makes `video`, or `error`."""
        try:
            if not is_video(self.place.name):
                what = "is a folder of pictures, and videos alone are labelled here"
                raise ValueError(f"{self.place}: {what}")
            self._stamp = self._stat()
            self.video = Video(self.place, fps)
        except (ValueError, OSError, RuntimeError, MemoryError) as error:
            self.error = message_of(error)

    def _stat(self) -> tuple[int, int]:
        status = self.place.stat()
        return status.st_mtime_ns, status.st_size

    def frames(self) -> Video:
        """Its `video`; ValueError if there is none, or the file is another one by now."""
        if self.video is None:
            raise ValueError(self.error or f"{self.name}: its index is not built yet")
        if self._stat() != self._stamp:
            what = "has changed since it was opened; start the command again"
            raise ValueError(f"{self.place}: {what}")
        return self.video

    def jpeg(self, frame: int, width: int) -> bytes:
        """A frame as JPEG, at most `width` wide; ValueError: it is not there, or damaged."""
        video = self.frames()
        if not 0 <= frame < video.num_frames:
            raise ValueError(f"{self.name}: frame {frame} is not in 0…{video.num_frames - 1}")
        picture = video.picture(frame, min(1.0, width / video.width))
        return simplejpeg.encode_jpeg(picture, _QUALITY, "RGB", "420")


def _find(videos: str) -> dict[str, Recording]:
    found = sources.find_pictures(folders.require(videos, "VIDEOS"))
    if not found:
        raise ValueError(f"{videos}: no videos and no folders of pictures are in it")
    places = matching.only_places(found, videos, "videos")
    return {name: Recording(name, place) for name, place in places.items()}


class Project:
    """The videos and labels of a product; `recordings` are by name, sorted."""

    def __init__(
        self,
        videos: str,
        store: LabelStore,
        procedure_file: str,
        procedure: Procedure,
        terms: Terms,
        model: str | None,
    ):
        """Finds them; ValueError and OSError for what is wrong with them."""
        self.procedure, self.recordings = procedure, _find(videos)
        self._videos, self._procedure_file = videos, procedure_file
        self.labels = LabelFolder(store, procedure, terms, self.recordings)
        self.boxes = BoxFolder(store, procedure.fps)
        self.proposals = Proposals(model, store, procedure)

    def overview(self) -> dict[str, Any]:
        """What /api/project answers."""
        self.labels.find()
        entries = {name: self._look(recording) for name, recording in self.recordings.items()}
        read = [labels for _, labels in entries.values() if labels is not None]
        wrong = Counter(step // 3 for labels in read for _, step in labels.steps if step % 3 == 1)
        strangers = self.labels.errors.keys() - self.recordings.keys()
        components, parts = self.procedure.components, self.proposals.parts
        return {
            "procedure": {
                "name": self.procedure.name,
                "fps": self.procedure.fps,
                "components": components,
                "steps": [
                    {
                        "id": step,
                        "name": self.procedure.step_name(step),
                        "component": step // 3,
                        "kind": _KINDS[step % 3],
                        "key": _KEYS[step // 3 : step // 3 + 1],
                    }
                    for step in range(3 * len(components))
                ],
            },
            "model": self.proposals.model,
            "stream": self.proposals.stream,
            "carried": CARRIED,
            "parts": [part and f"/api/parts/{k}.jpg" for k, part in enumerate(parts)],
            "videos": [entry for entry, _ in entries.values()],
            "left": {
                "labelled": sum(entry["status"] == "done" for entry, _ in entries.values()),
                "suggested": ENOUGH_VIDEOS,
                "wrong": {name: wrong[k] for k, name in enumerate(components)},
                "wrong_suggested": ENOUGH_WRONG,
            },
            "errors": [line for name in strangers for line in self.labels.errors[name]]
            + self.labels.unread,
        }

    def plan(self, wanted: TrainingOptions) -> tuple[dict[str, Any], list[list[str]], Path]:
        """What a training does, for people, its commands and its work folder.

        Raises:
            ValueError: labels or boxes are not ready to be trained on, or `wanted` is no such plan.
        """
        command.framing_of(8, wanted.aspect or None, wanted.crop)
        entries = {entry["name"]: entry for entry in self.overview()["videos"]}
        if begun := [name for name, entry in entries.items() if entry["status"] == "begun"]:
            why = "a model would take what is not labelled yet for what did not happen"
            raise ValueError(f"begun, but not done: {', '.join(begun)}; {why}")
        done = {name: entry for name, entry in entries.items() if entry["status"] == "done"}
        if not done:
            raise ValueError("no video is done")
        if unread := [name for name, entry in done.items() if not entry["frames"]]:
            raise ValueError(f"not read yet, or not readable: {', '.join(unread)}")
        steps = {n: self.labels.read(n, self.recordings[n].frames()).steps for n in done}

        def kind(name: str) -> matching.Kind:
            wrong = any(step % 3 == 1 for _, step in steps[name])
            return wrong, self.procedure.variant_for(name).name

        if empty := [name for name in done if not steps[name]]:
            raise ValueError(f"done, but without a step: {', '.join(empty)}; label its steps first")
        folder, boxes, boxed = self.labels.store.folder, self.boxes.folder, set[str]()
        if boxes.is_dir() and any(path.is_file() for path in boxes.rglob("*")):
            boxed = done.keys() & matching.find_boxes(boxes, done)
        labelled = {name: self.labels.places[name] for name in done}
        pictured = {name: self.recordings[name].place for name in done}
        for drawn in (boxes, None):  # the detector needs some in both
            which = (self._videos, folder, drawn, self._procedure_file, wanted)
            commands, data, workdir, last = training(*which)
            before = matching.splits_of_folder(data)
            tops = folder, Path(self._videos)
            splits = matching.choose_splits(
                wanted.splits, 0, before, tops, labelled, pictured, kind
            )
            missing = {"train", "val"} - {splits[name] for name in boxed}
            if not missing:
                break
        lacking = f", but none in {' or '.join(sorted(missing))}: no detector" * bool(missing)
        rest = _COSTS["own" if missing else "own:boxes"]
        seconds = sum(entry["frames"] for entry in done.values()) / self.procedure.fps
        shapes = [entry["width"] / entry["height"] for entry in done.values()]
        mixed = max(shapes) / min(shapes) - 1 >= SAME_ASPECT
        gone = ", ".join(before.keys() - done.keys())
        replaces = [
            f"{data}: recordings whose labels have changed" * data.exists(),
            f"{data}: takes out {gone}" * bool(gone),
            f"{workdir}: what a training that did not end has made" * workdir.exists(),
        ]
        of_split = {split: [n for n in splits if splits[n] == split] for split in SPLITS}
        rows = {
            "Videos": f"{len(done)} of {len(entries)}, {seconds / 60:.1f} min",
            "Boxes": f"in {len(boxed)} of these{lacking}" if boxed else "none: no detector",
            "Product": self._product_size({name: done[name] for name in boxed}, wanted),
            "Splits": "; ".join(f"{split}: {', '.join(its)}" for split, its in of_split.items()),
            "Aspect": wanted.aspect or ("pad: the videos differ in shape" if mixed else "stretch"),
            "Takes": f"about {rest + _OF_VIDEO * seconds / 60:.0f} min on two cores",
            "Model": str(workdir),
        }
        if last is not None:
            rows["Starts from"] = str(last)
            result = last / "metrics.json"
            try:
                found = advice.record_next(analysis.load_result(result))
            except ValueError as error:  # of another version
                found = [message_of(error)]
            rows["Record next"] = " ".join(found) or "nothing stands out"
        told = {"shown": rows, "replaces": [line for line in replaces if line]}
        typed = [shlex.join(["python", "-m", *command]) for command in commands]
        return told | {"commands": typed}, commands, workdir

    def _product_size(self, boxed: Mapping[str, Any], wanted: TrainingOptions) -> str:
        """How large the product is in the pictures that networks see, and whether that is enough.

        `boxed`: the entries of `overview`, by name.
        """
        paths = {name: path for name in boxed if (path := self.boxes.path(name))}
        boxes = [matching.read_boxes(path).boxes for path in paths.values()]
        shapes = [(boxed[name]["height"], boxed[name]["width"]) for name in paths]
        framing = command.framing_of(SIZE, wanted.aspect or None, wanted.crop)
        line, small = product_size(boxes, shapes, framing)
        if small and not wanted.crop:
            return f"{line}; {CLOSE}"
        return small or line or "nobody has drawn a box that says how large it is"

    def recognising(self) -> list[str] | None:
        """The command that makes proposals for videos that are not done; None: there are none."""
        if self.proposals.model is None:
            return None
        videos = [video for video in self.overview()["videos"] if video["frames"]]
        todo = [self.recordings[v["name"]].place for v in videos if v["status"] != "done"]
        return self.proposals.command(todo) if todo else None

    def _look(self, recording: Recording) -> tuple[dict[str, Any], Snapshot | None]:
        video, labels, warnings, doubt = recording.video, None, [], None
        status = "begun" if recording.name in self.labels.places else "unlabelled"
        if recording.error:
            warnings.append(recording.error)
        try:
            if video is not None:
                labels = self.labels.read(recording.name, video)
                status = self._status(recording.name, labels)
                warnings += [t for _, t in self.labels.warnings(recording.name, labels.steps)]
                doubt = uncertainty(self.proposals.of(recording.name, video.num_frames))
        except (ValueError, OSError) as error:
            warnings.append(message_of(error))
        entry = {
            "name": recording.name,
            "frames": video and video.num_frames,
            "indexed": video is not None or bool(recording.error),
            "width": video and video.width,
            "height": video and video.height,
            "playable": video is not None and video.playable,
            "status": status,
            "uncertainty": doubt,
            "warnings": warnings,
        }
        return entry, labels

    def _status(self, name: str, labels: Snapshot) -> str:
        """Labels of others are done where they have every expected step."""
        if name not in self.labels.places:
            return "unlabelled"
        done = labels.state.done
        if done is None:
            expected = self.procedure.variant_for(name).expected
            done = set(expected) <= {step for _, step in labels.steps}
        return "done" if done else "begun"

    def video(self, recording: Recording) -> dict[str, Any]:
        """What /api/videos/NAME answers; ValueError for labels that cannot be read."""
        name = recording.name
        if recording.video is None and not recording.error:
            return {"name": name, "frames": None}
        video, variant = recording.frames(), self.procedure.variant_for(name)
        self.labels.find()
        labels = self.labels.read(name, video)
        before: dict[int, list[int]] = {}
        for first, then in variant.precedence:
            before.setdefault(then, []).append(first)
        return {
            "name": name,
            "frames": video.num_frames,
            "fps": self.procedure.fps,
            "times": np.round(video.times, 6).tolist(),
            "variant": variant.name,
            "initial_state": variant.initial_state,
            "before": before,
            **_boxes(*self.boxes.read(name, video)),
            "proposals": self.proposals.of(name, video.num_frames) or [],
            **self.shown(name, labels),
        }

    def shown(self, name: str, labels: Snapshot) -> dict[str, Any]:
        """What is told of labels when they are read, or have been written."""
        warnings = self.labels.warnings(name, labels.steps)
        return {
            "revision": labels.revision,
            "labels": [_entry(step) for step in labels.steps],
            "done": self._status(name, labels) == "done",
            "answered": [_entry(step) for step in labels.state.answered],
            "warnings": [{"frame": frame, "text": text} for frame, text in warnings],
        }

    def write(
        self, recording: Recording, revision: str, steps: list[Step], state: State
    ) -> dict[str, Any]:
        """Writes labels, and says what there is then; Conflict: they have another revision."""
        name, video = recording.name, recording.frames()
        self.labels.find()
        found = self.labels.read(name, video)
        if found.revision != revision:
            raise Conflict(self.shown(name, found))
        return self.shown(name, self.labels.write(name, video, found, steps, state))

    def write_boxes(self, recording: Recording, revision: str, boxes: list[Box]) -> dict[str, Any]:
        """Writes boxes, and says what there is then; Conflict: they have another revision."""
        name, video = recording.name, recording.frames()
        found = self.boxes.read(name, video)
        if found[1] != revision:
            raise Conflict(_boxes(*found))
        self.boxes.write(name, video, boxes)
        return _boxes(*self.boxes.read(name, video))


def _entry(step: Step) -> dict[str, int]:
    return {"frame": step[0], "step_id": step[1]}


def _boxes(boxes: list[Box], revision: str) -> dict[str, Any]:
    drawn = msgspec.to_builtins(boxes)
    return {"boxes": drawn, "boxes_revision": revision, "revision": revision}
