"""The labelling tools whose files are read: Label Studio, CVAT and ELAN."""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from stormpsr_jax.base import files
from stormpsr_jax.recordings import csvfile
from stormpsr_jax.recordings.label_entries import (
    MAX_SECONDS,
    Entry,
    Item,
    Source,
    Unit,
    each,
    is_video,
    recordings_of,
)
from stormpsr_jax.recordings.xml_tree import Node


class Tool(NamedTuple):
    """A labelling tool; ValueError where a file seems to be of it, and cannot be read."""

    name: str
    recognises: Callable[[Source], bool]
    read: Callable[[Source], list[Item]]


# --- Label Studio ---------------------------------------------------------------------------------
# Timeline labels of a video, as JSON; regions end with a step. Regions of TimelineLabels have
# frames, which the tool numbers from 1 at the rate that its tag `Video` says; with
# `frameRate="$fps"` that rate stands in the task. Regions of `Labels` on a sound that plays along
# have seconds. Other regions say no time and are not read.

_RATES = ("fps", "frame_rate", "frameRate", "framerate")  # fields of a task that are usual for it
# What else may be said of a region, beside its label.
_NOTES = {"choices", "text", "number", "rating", "taxonomy", "datetime"}


def _read_label_studio(source: Source) -> list[Item]:
    def parse(number: int, task: Any) -> list[Entry]:
        place = f"task {number}"
        where = f"{source.path}: {place}"
        data = files.field(task, "data", dict, where)
        of = {
            key: files.field(task, key, list, where) if key in task else []
            for key in ("annotations", "predictions")
        }
        found, what = of["annotations"], "annotation"
        found = [one for one in found if not (isinstance(one, dict) and one.get("was_cancelled"))]
        if not found:  # labels by a model, which nobody has looked at yet
            found, what = of["predictions"], "prediction"
        if found:  # of other tasks nobody knows yet what is in them
            source.labelled.append(_task_names(data))
        if len(found) > 1:
            raise source.error(place, f"has {len(found)} {what}s; keep one of them")
        entries = []
        for its in found:
            regions = files.field(its, "result", list, f"{where}: {what}")
            for n, region in enumerate(regions, start=1):
                part = f"{place}: region {n}"
                value = files.field(region, "value", dict, f"{source.path}: {part}")
                entries += _of_region(value, data, source, part)
        return entries

    found = each(enumerate(_tasks(source), start=1), parse)
    if not source.labelled and not any(isinstance(item, list) for item in found):
        # Which is not to say that nothing was done.
        raise source.error("task 1", "annotations: nobody has labelled it; submit an annotation")
    return found


def _tasks(source: Source) -> list[Any]:
    return source.json if isinstance(source.json, list) else [source.json]


def _task_names(task: Mapping[str, Any]) -> tuple[str, ...]:
    """The names that the recording of a task may have."""
    texts = [its for its in task.values() if isinstance(its, str) and ("/" in its or "." in its)]
    texts = [text for text in texts if is_video(text)] or texts
    return tuple(name for text in texts for name in recordings_of(text))


def _of_region(
    value: Mapping[str, Any], task: Mapping[str, Any], source: Source, place: str
) -> list[Entry]:
    """The labels of a region that says when."""
    labels = {key: its for key, its in value.items() if key.endswith("labels")}
    texts = [text for its in labels.values() if isinstance(its, list) for text in its]
    if not ("ranges" in value or {"start", "end"} <= value.keys()) or "sequence" in value:
        return []
    if _NOTES & value.keys() and not labels:
        return []
    if not texts or not all(isinstance(text, str) for text in texts):
        raise source.error(place, "labels: a region has no label; give it one, or remove it")
    spans = value.get("ranges", [value])
    if not isinstance(spans, list):
        raise source.error(place, f"ranges: {files.shorten(spans)} is not a list")
    rate = next((task[key] for key in _RATES if key in task), None)
    entries = []
    for span in spans:
        if not isinstance(span, dict):
            raise source.error(place, f"ranges: {files.shorten(span)} is not an object")
        unit, ends = Unit.SECONDS, (("start", span.get("start")), ("end", span.get("end")))
        if "ranges" in value:
            low, high = (source.whole(said, place, field, low=1) - 1 for field, said in ends)
            at: float = source.end_of_interval(low, high, place)
            unit = Unit.TICKS
            if rate is not None:
                where = f"{source.path}: {place}: fps"
                at /= files.number(rate, where, files.MIN_FPS, files.MAX_FPS)
                unit = Unit.SECONDS
        else:
            begun, ended = (source.seconds(said, place, field) for field, said in ends)
            at = source.end_of_interval(begun, ended, place)
        entries += [Entry(text.strip(), at, unit, place, _task_names(task)) for text in texts]
    return entries


def _is_label_studio(source: Source) -> bool:
    return (
        source.kind == "json"
        and bool(tasks := _tasks(source))
        and all(isinstance(task, dict) and "data" in task for task in tasks)
        and all({"annotations", "predictions"} & task.keys() for task in tasks)
    )


# --- CVAT -----------------------------------------------------------------------------------------
# XML 1.1 "for images" and "for video". Tags and tracks are steps by their labels. A tag, or a shape
# of one image, is complete at its picture; a track at the last one of the task that shows it.

_STEP = re.compile(r"\s*step\s*=\s*([0-9]{1,9})\s*", re.ASCII)
# What CVAT calls the pictures of a video.
_OF_VIDEO = re.compile(r"frame_([0-9]{1,9})(?:\.[A-Za-z]+)?", re.IGNORECASE | re.ASCII)


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


def _picture_step(nodes: Sequence[Node]) -> int:
    filters = [text for node in nodes for text in node.findall("frame_filter")]
    found = [match for text in filters if (match := _STEP.fullmatch(text.text))]
    return max([1, *(int(match[1]) for match in found)])


def _cvat_tasks(nodes: Sequence[Node], source: Source) -> dict[str, _Task]:
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
        end, step = None, _picture_step([node])
        if "size" in texts:
            start = source.whole(texts.get("start_frame", 0), node.place, "start_frame")
            end = start + step * source.whole(texts["size"], node.place, "size")
        names = tuple(dict.fromkeys([*called, *stems]))
        found[texts.get("id", "")] = _Task(names, offset, end, step)
        offset = None if offset is None or end is None else offset + end
    return found


def _read_cvat(source: Source) -> list[Item]:
    meta = [node for meta in source.xml.findall("meta") for node in meta.children]
    projects = [tasks for node in meta if node.tag == "project" for tasks in node.findall("tasks")]
    nodes = [task for its in projects for task in its.findall("task")]
    step = _picture_step([*meta, *nodes])
    tasks = _cvat_tasks(nodes or [node for node in meta if node.tag == "task"], source)
    several = len(nodes) > 1
    called = [task.names for task in tasks.values() if task.names]
    if several and len(set(called)) < len(called):
        raise source.error("<meta>", "tasks of the project have the same name; rename them in CVAT")

    def parse(node: Node) -> list[Entry]:
        own = node.attributes.get("task_id", "") if several else next(iter(tasks), "")
        task = tasks.get(own, _Task((), None, None, step))
        if node.tag == "image":
            found = _of_image(node, source)
        elif node.tag == "track":
            found = _of_track(node, source, task.step if several else step)
        else:
            at = _frame(node, source)
            found = [Entry(_label(node, source), at, Unit.PICTURES, node.place)]
        return [placed(entry, task, node) for entry in found]

    def placed(entry: Entry, task: _Task, node: Node) -> Entry:
        """The entry with the names and the numbers of its video."""
        at = entry.at
        if several and entry.unit is Unit.PICTURES:
            at = -1 if task.offset is None or task.end is None else at - task.offset
            if task.end is None or not 0 <= at < task.end:
                what = "is from a project of several videos, and the file does not say which"
                raise source.error(node.place, f"{what}; export each task by itself")
        return dataclasses.replace(entry, at=at, recordings=entry.recordings or task.names)

    said = [(node,) for node in source.xml.children if node.tag in ("image", "track", "tag")]
    return each(said, parse)


def _label(node: Node, source: Source) -> str:
    if not (label := node.attributes.get("label", "").strip()):
        raise source.error(node.place, "label: is missing")
    return label


def _frame(node: Node, source: Source) -> int:
    return source.whole(node.attributes.get("frame"), node.place, "frame")


def _of_image(node: Node, source: Source) -> list[Entry]:
    if not node.children:
        return []
    name = node.attributes.get("name", "").replace("\\", "/")
    folder, _, last = name.rpartition("/")
    if match := _OF_VIDEO.fullmatch(last):
        at, unit = int(match[1]), Unit.PICTURES
    else:
        at, unit = csvfile.Line(source.path, node.line).image(name), Unit.FRAMES
    of = (folder.rpartition("/")[2],) if folder else ()
    return [Entry(_label(child, source), at, unit, child.place, of) for child in node.children]


def _of_track(track: Node, source: Source, step: int) -> list[Entry]:
    """The completions of a track; `step` is from a picture of the task to its next one."""
    label = _label(track, source)
    shapes = sorted((_frame(shape, source), i) for i, shape in enumerate(track.children))
    if not shapes:
        raise source.error(track.place, "has no shapes")
    ends, last = [], None
    for frame, i in shapes:
        if track.children[i].attributes.get("outside") != "1":
            last = frame
        elif last is not None:
            # Between two keyframes a track is shown too, up to where it is outside.
            ends.append(max(last, frame - step))
            last = None
    ends += [] if last is None else [last]
    return [Entry(label, end, Unit.PICTURES, track.place) for end in ends]


def _is_cvat(source: Source) -> bool:
    if source.kind != "xml" or source.xml.tag != "annotations":
        return False
    return [node.text.strip() for node in source.xml.findall("version")] == ["1.1"]


# --- ELAN -----------------------------------------------------------------------------------------
# A step is complete at its annotation's end. Tiers whose names begin with "steps" are read, and all
# tiers if there are none. An empty annotation stands for what its tier is called.

_TIER = "steps"
# How many milliseconds they last: frames of television are allowed in the place of those.
_UNITS = {"milliseconds": 1.0, "PAL-frames": 40.0, "NTSC-frames": 1001 / 30}


def _read_elan(source: Source) -> list[Item]:
    def milliseconds(node: Node, key: str) -> int:
        return source.whole(
            node.attributes.get(key, "0"), node.place, key, high=int(1000 * MAX_SECONDS)
        )

    root = source.xml
    header = (root.findall("HEADER") or [Node("HEADER", {}, root.line)])[0]
    unit = header.attributes.get("TIME_UNITS", "milliseconds")
    if unit not in _UNITS:
        what = f"TIME_UNITS: {files.shorten(unit)} is none of {', '.join(_UNITS)}"
        raise source.error(header.place, what)
    # The first medium is the one that is annotated; its origin is what ELAN calls time 0, in
    # milliseconds whatever the unit of the slots.
    origin = sum(
        milliseconds(node, "TIME_ORIGIN") for node in header.findall("MEDIA_DESCRIPTOR")[:1]
    )
    slots = {
        slot.attributes.get("TIME_SLOT_ID", ""): milliseconds(slot, "TIME_VALUE")
        for order in root.findall("TIME_ORDER")
        for slot in order.findall("TIME_SLOT")
        if "TIME_VALUE" in slot.attributes
    }
    tiers: dict[str, list[Node]] = {}
    for tier in root.findall("TIER"):
        found = [its for annotation in tier.findall("ANNOTATION") for its in annotation.children]
        tiers.setdefault(tier.attributes.get("TIER_ID", ""), []).extend(found)
    by_id = {
        node.attributes.get("ANNOTATION_ID", ""): node for its in tiers.values() for node in its
    }
    # Several that hang on one and follow one another, each with a share of its time.
    shares = {
        node.attributes.get(key, "")
        for node in by_id.values()
        for key in ("ANNOTATION_ID", "PREVIOUS_ANNOTATION")
        if node.attributes.get("PREVIOUS_ANNOTATION")
    }

    def parse(tier: str, node: Node) -> list[Entry]:
        place = f"{node.place} of tier {files.shorten(tier)}"
        aligned = node
        for _ in range(len(tiers) + 1):  # one tier may hang on another
            if aligned.tag != "REF_ANNOTATION":
                break
            if aligned.attributes.get("ANNOTATION_ID", "") in shares:
                what = "shares the time of another annotation, and has none of its own"
                raise source.error(place, f"{what}; align it in ELAN")
            reference = aligned.attributes.get("ANNOTATION_REF", "")
            if reference not in by_id:
                what = f"ANNOTATION_REF: there is no annotation {files.shorten(reference)}"
                raise source.error(place, what)
            aligned = by_id[reference]
        times = []
        for key in ("TIME_SLOT_REF1", "TIME_SLOT_REF2"):
            slot = aligned.attributes.get(key, "")
            if slot not in slots:
                what = f"{key}: time slot {files.shorten(slot)} has no time; align it in ELAN"
                raise source.error(place, what)
            times.append(slots[slot] * _UNITS[unit] + origin)
        end = source.end_of_interval(times[0], times[1], place) / 1000
        text = "".join(value.text for value in node.findall("ANNOTATION_VALUE")).strip()
        return [Entry(text or tier.strip(), end, Unit.SECONDS, place)]

    named = {name: its for name, its in tiers.items() if name.strip().lower().startswith(_TIER)}
    return each([(tier, node) for tier, its in (named or tiers).items() for node in its], parse)


def _is_elan(source: Source) -> bool:
    return source.kind == "xml" and source.xml.tag == "ANNOTATION_DOCUMENT"


TOOLS = (
    Tool("Label Studio (JSON)", _is_label_studio, _read_label_studio),
    Tool("CVAT (XML 1.1 for images or for video)", _is_cvat, _read_cvat),
    Tool("ELAN (.eaf)", _is_elan, _read_elan),
)
