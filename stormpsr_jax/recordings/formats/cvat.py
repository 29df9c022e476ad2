"""CVAT: XML 1.1 "for images" and "for video". Tags and tracks are steps by their labels.

A tag, or a shape of one image, is complete at its picture; a track at the last one of the task that
shows it.
"""

import dataclasses
import re
from collections.abc import Sequence

from stormpsr_jax.base.errors import for_each
from stormpsr_jax.recordings import csvfile
from stormpsr_jax.recordings.formats.sample import (
    Entry,
    Format,
    Sample,
    Unit,
    is_video,
    recordings_of,
)
from stormpsr_jax.recordings.formats.xml_tree import Node

_STEP = re.compile(r"\s*step\s*=\s*([0-9]{1,9})\s*", re.ASCII)
# What CVAT calls the pictures of a video.
_OF_VIDEO = re.compile(r"frame_([0-9]{1,9})(?:\.[A-Za-z]+)?", re.IGNORECASE | re.ASCII)


def _label(node: Node, sample: Sample, place: str) -> str:
    if not (label := node.attributes.get("label", "").strip()):
        raise sample.error(place, "label: is missing")
    return label


@dataclasses.dataclass(frozen=True)
class _Task:
    """A task: names of its video, and the numbers of its pictures in a project.

    A project numbers on from task to task of a subset: those of this one are offset … offset +
    end - 1. Both are None where the file does not say how many pictures tasks have. `step` is from
    a picture to the next one.
    """

    names: tuple[str, ...]
    offset: int | None
    end: int | None
    step: int


def _step(nodes: Sequence[Node]) -> int:
    filters = [text for node in nodes for text in node.of("frame_filter")]
    found = [match for text in filters if (match := _STEP.fullmatch(text.text))]
    return max([1, *(int(match[1]) for match in found)])


def _tasks(nodes: Sequence[Node], sample: Sample) -> dict[str, _Task]:
    """The tasks by their ids."""
    found: dict[str, _Task] = {}
    offset: int | None = 0
    subset = None
    for node in nodes:
        texts = {child.tag: child.text.strip() for child in node.children}
        if texts.get("subset") != subset:
            subset, offset = texts.get("subset"), 0
        called = [texts[tag] for tag in ("name", "source") if texts.get(tag)]
        stems = [stem for name in called for stem in recordings_of(name) if is_video(name)]
        end, step = None, _step([node])
        if "size" in texts:
            start = sample.whole(texts.get("start_frame", 0), node.place, "start_frame")
            end = start + step * sample.whole(texts["size"], node.place, "size")
        found[texts.get("id", "")] = _Task(
            tuple(dict.fromkeys([*called, *stems])), offset, end, step
        )
        offset = None if offset is None or end is None else offset + end
    return found


def _read(sample: Sample) -> list[Entry]:
    meta = [node for meta in sample.xml.of("meta") for node in meta.children]
    projects = [tasks for node in meta if node.tag == "project" for tasks in node.of("tasks")]
    nodes = [task for its in projects for task in its.of("task")]
    step = _step([*meta, *nodes])
    tasks = _tasks(nodes or [node for node in meta if node.tag == "task"], sample)
    several = len(nodes) > 1
    called = [task.names for task in tasks.values() if task.names]
    if several and len(set(called)) < len(called):
        raise sample.error("<meta>", "tasks of the project have the same name; rename them in CVAT")

    def parse(node: Node) -> list[Entry]:
        own = node.attributes.get("task_id", "") if several else next(iter(tasks), "")
        task = tasks.get(own, _Task((), None, None, step))
        return [placed(entry, task, node) for entry in read(node, task.step if several else step)]

    def placed(entry: Entry, task: _Task, node: Node) -> Entry:
        """The entry with the names and the numbers of its video."""
        at = entry.at
        if several and entry.unit is Unit.PICTURES:
            at = -1 if task.offset is None or task.end is None else at - task.offset
            if task.end is None or not 0 <= at < task.end:
                what = "is from a project of several videos, and the file does not say which"
                raise sample.error(node.place, f"{what}; export each task by itself")
        return dataclasses.replace(entry, at=at, recordings=entry.recordings or task.names)

    def read(node: Node, step: int) -> list[Entry]:
        if node.tag == "image":
            return _of_image(node, sample)
        if node.tag == "track":
            return _of_track(node, sample, step)
        frame = sample.whole(node.attributes.get("frame"), node.place, "frame")
        return [Entry(_label(node, sample, node.place), frame, Unit.PICTURES, node.place)]

    said = [(node,) for node in sample.xml.children if node.tag in ("image", "track", "tag")]
    return [entry for its in for_each(said, parse) for entry in its]


def _of_image(node: Node, sample: Sample) -> list[Entry]:
    if not node.children:
        return []
    name = node.attributes.get("name", "").replace("\\", "/")
    folder, _, last = name.rpartition("/")
    if match := _OF_VIDEO.fullmatch(last):
        at, unit = int(match[1]), Unit.PICTURES
    else:
        at, unit = csvfile.Line(sample.path, node.line).image(name), Unit.FRAMES
    of = (folder.rpartition("/")[2],) if folder else ()
    return [
        Entry(_label(child, sample, child.place), at, unit, child.place, of)
        for child in node.children
    ]


def _of_track(track: Node, sample: Sample, step: int) -> list[Entry]:
    """The completions of a track; `step` is from a picture of the task to its next one."""
    label = _label(track, sample, track.place)
    shapes = sorted(
        (sample.whole(shape.attributes.get("frame"), shape.place, "frame"), i)
        for i, shape in enumerate(track.children)
    )
    if not shapes:
        raise sample.error(track.place, "has no shapes")
    entries, last = [], None
    for frame, i in shapes:
        if track.children[i].attributes.get("outside") != "1":
            last = frame
        elif last is not None:
            # Between two keyframes a track is shown too, up to where it is outside.
            end = max(last, frame - step)
            entries.append(Entry(label, end, Unit.PICTURES, track.place))
            last = None
    if last is not None:
        entries.append(Entry(label, last, Unit.PICTURES, track.place))
    return entries


def _recognises(sample: Sample) -> bool:
    if sample.kind != "xml" or sample.xml.tag != "annotations":
        return False
    return [node.text.strip() for node in sample.xml.of("version")] == ["1.1"]


FORMAT = Format("CVAT (XML 1.1 for images or for video)", _recognises, _read)
