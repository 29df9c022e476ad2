"""The exports of labelling tools as entries: Label Studio, CVAT and ELAN."""

import enum
import re
import unicodedata
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from stormpsr_jax.base import files
from stormpsr_jax.base.errors import for_each
from stormpsr_jax.recordings import csvfile

MAX_SECONDS = 1e9
_LINE = ""  # key of an element's line among its attributes, which no attribute has
_VIDEO = re.compile(
    r"\.(mp4|m4v|mov|avi|mkv|webm|3gp|mpe?g|m?2?ts|wmv|flv|ogv)", re.IGNORECASE | re.ASCII
)
_UPLOADED = re.compile("^[0-9a-f]{8}-")


class Unit(enum.Enum):
    """What an entry's `at` counts, each from 0 at the first picture on."""

    SECONDS = "s"
    FRAMES = "frames"  # of the product's rate, as in PSR label files, or of --labels_fps
    PICTURES = "pictures"  # of the video, as they are stored
    TICKS = "ticks"  # of a rate that only the tool knows


class Entry(NamedTuple):
    """A label: `text`, a step or a word for one, is complete at `at`, counted in `unit`.

    `place` is where it stands in its file, such as "line 3". A time may be `tolerance` seconds too
    late: tools round times, most of them to milliseconds, as containers of videos do.
    """

    text: str
    at: float
    unit: Unit
    place: str
    tolerance: float = 1e-3


# The entries of each recording by the names that the tool has for it, () where it has none.
Entries = dict[tuple[str, ...], list[Entry]]
Content = str | list | dict | Element  # of a file, by its first character


class Tool(NamedTuple):
    """A labelling tool; `read` raises ValueError with all errors of a file that it recognises."""

    name: str
    recognises: Callable[[Any], bool]
    read: Callable[[Any, Path], Entries]


def _whole(value: Any, place: str, field: str, low: int = 0, high: int = csvfile.MAX_FRAME) -> int:
    if isinstance(value, str) and re.fullmatch("[0-9]{1,30}", value.strip(), re.ASCII):
        value = int(value)
    return files.whole(value, f"{place}: {field}", low, high)


def _end(start: float, end: float, place: str) -> float:
    if end < start:
        raise ValueError(f"{place}: end: {end:g} is before the start, {start:g}")
    return end


def _recordings_of(address: str) -> list[str]:
    """The names that a recording may have whose video a tool names by a path or address.

    Label Studio puts eight hexadecimal digits in front of what is uploaded to it, and names files
    on its own disk behind `?d=`. In an address, what is no plain letter is written as %C3%BC.
    """
    stem = _path_of(address).stem
    stems = [stem, unicodedata.normalize("NFC", urllib.parse.unquote(stem))]
    return [name for stem in stems for name in (stem, _UPLOADED.sub("", stem)) if name]


def _is_video(address: str) -> bool:
    return _VIDEO.fullmatch(_path_of(address).suffix) is not None


def _path_of(address: str) -> PurePosixPath:
    path = address.split("?d=")[-1].partition("?")[0]
    return PurePosixPath(path.replace("\\", "/"))


# --- Label Studio ---------------------------------------------------------------------------------
# Timeline labels of a video, as JSON; regions end with a step. Regions of TimelineLabels have
# frames, which the tool numbers from 1 at the rate that its tag `Video` says; with
# `frameRate="$fps"` that rate stands in the task. Regions of `Labels` on a sound that plays along
# have seconds. Other regions say no time and are not read.

# What else may be said of a region, beside its label.
_NOTES = {"choices", "text", "number", "rating", "taxonomy", "datetime"}


def _is_label_studio(content: Content) -> bool:
    tasks = content if isinstance(content, list) else [content]
    return bool(tasks) and all(
        isinstance(task, dict) and "data" in task and {"annotations", "predictions"} & task.keys()
        for task in tasks
    )


def _read_label_studio(content: list | dict, path: Path) -> Entries:
    entries: Entries = {}

    def read(number: int, task: dict[str, Any]) -> None:
        place = f"task {number}"
        where = f"{path}: {place}"
        data = files.field(task, "data", dict, where)
        given = files.field({"annotations": [], **task}, "annotations", list, where)
        done = [its for its in given if not (isinstance(its, dict) and its.get("was_cancelled"))]
        if len(done) > 1:
            raise ValueError(f"{where}: has {len(done)} annotations; keep one of them")
        if not done:  # nobody knows yet what is in it
            return
        texts = [text for text in data.values() if isinstance(text, str) and set(text) & {*"/."}]
        texts = [text for text in texts if _is_video(text)] or texts
        names = tuple(dict.fromkeys(name for text in texts for name in _recordings_of(text)))
        of_recording = entries.setdefault(names, [])
        regions = files.field(done[0], "result", list, f"{where}: annotations")

        def add(number: int, region: Any) -> None:
            part = f"{place}: region {number}"
            of_recording.extend(_of_region(region, data, f"{path}: {part}", part))

        for_each(enumerate(regions, start=1), add)

    for_each(enumerate(content if isinstance(content, list) else [content], start=1), read)
    if not entries:  # which is not to say that nothing was done
        what = "annotations: nobody has labelled it; submit an annotation"
        raise ValueError(f"{path}: task 1: {what}")
    return entries


def _of_region(region: Any, task: dict[str, Any], where: str, place: str) -> Iterator[Entry]:
    """The labels of a region that says when."""
    value = files.field(region, "value", dict, where)
    labels = {key: given for key, given in value.items() if key.endswith("labels")}
    if not ("ranges" in value or {"start", "end"} <= value.keys()) or "sequence" in value:
        return
    if not labels and value.keys() & _NOTES:
        return
    texts = [text for given in labels.values() if isinstance(given, list) for text in given]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{where}: labels: a region has no label; give it one, or remove it")
    rate = task.get("fps")
    for span in files.field({"ranges": [value], **value}, "ranges", list, where):
        start, end = (files.field(span, key, (int, float), where) for key in ("start", "end"))
        if "ranges" in value:
            first, last = _whole(start, where, "start", 1), _whole(end, where, "end", 1)
            at, unit = _end(first - 1, last - 1, where), Unit.TICKS
            if rate is not None:
                at /= files.number(rate, f"{where}: fps", files.MIN_FPS, files.MAX_FPS)
                unit = Unit.SECONDS
        else:
            low = files.number(start, f"{where}: start", 0, MAX_SECONDS)
            high = files.number(end, f"{where}: end", 0, MAX_SECONDS)
            at, unit = _end(low, high, where), Unit.SECONDS
        yield from (Entry(text.strip(), at, unit, place) for text in texts)


# --- XML ------------------------------------------------------------------------------------------


def parse_xml(text: str, path: Path) -> Element:
    """The root of an XML text, whose elements have their line as attribute `_LINE`.

    A document type is refused: no labelling tool writes one, and its entities can be made to fill
    any memory or to read other files.
    """
    parser, tree = expat.ParserCreate("utf-8"), TreeBuilder()
    parser.buffer_text = True

    def refuse(*_: object) -> None:
        raise ValueError(
            f"{path}: line {parser.CurrentLineNumber}: has a document type (<!DOCTYPE …>), which "
            "is not read, as it may hold entities; remove it"
        )

    def start(tag: str, attributes: dict[str, str]) -> None:
        tree.start(tag, {**attributes, _LINE: str(parser.CurrentLineNumber)})

    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    parser.StartElementHandler, parser.EndElementHandler = start, tree.end
    parser.CharacterDataHandler = tree.data
    try:
        parser.Parse(text.encode(), True)
    except expat.ExpatError as error:
        what = expat.ErrorString(error.code)
        raise ValueError(f"{path}: line {error.lineno}: not XML ({what})") from error
    return tree.close()


def _place(node: Element) -> str:
    return f"line {node.get(_LINE)}: <{node.tag}>"


# --- CVAT -----------------------------------------------------------------------------------------
# XML 1.1 "for images" and "for video". Tags and tracks are steps by their labels. A tag, or a shape
# of one image, is complete at its picture; a track at the last one of the task that shows it.

_STEP = re.compile(r"\s*step\s*=\s*([0-9]{1,9})\s*", re.ASCII)
# What CVAT calls the pictures of a video.
_OF_VIDEO = re.compile(r"frame_([0-9]{1,9})(?:\.[A-Za-z]+)?", re.IGNORECASE | re.ASCII)


class _Task(NamedTuple):
    """A task: names of its video, and the numbers of its pictures.

    `step` is from a picture to the next one. A project numbers on from task to task of a subset:
    the pictures of this one are offset … offset + end - 1, both None where the file does not say
    how many pictures tasks have.
    """

    names: tuple[str, ...] = ()
    step: int = 1
    offset: int | None = None
    end: int | None = None


def _picture_step(node: Element) -> int:
    matches = (_STEP.fullmatch(part.text or "") for part in node.iter("frame_filter"))
    return max([1, *(int(match[1]) for match in matches if match)])


def _cvat_tasks(nodes: Sequence[Element], path: Path) -> dict[str, _Task]:
    """The tasks by their ids."""
    tasks: dict[str, _Task] = {}
    offset: int | None = 0
    subset = None
    for node in nodes:
        texts = {child.tag: (child.text or "").strip() for child in node}
        if texts.get("subset") != subset:
            subset, offset = texts.get("subset"), 0
        called = [texts[tag] for tag in ("name", "source") if texts.get(tag)]
        stems = [stem for name in called if _is_video(name) for stem in _recordings_of(name)]
        end, step = None, _picture_step(node)
        if "size" in texts:
            where = f"{path}: {_place(node)}"
            end = _whole(texts.get("start_frame", 0), where, "start_frame")
            end += step * _whole(texts["size"], where, "size")
        names = tuple(dict.fromkeys([*called, *stems]))
        tasks[texts.get("id", "")] = _Task(names, step, offset, end)
        offset = None if offset is None or end is None else offset + end
    return tasks


def _is_cvat(content: Content) -> bool:
    if not isinstance(content, Element) or content.tag != "annotations":
        return False
    return [(node.text or "").strip() for node in content.findall("version")] == ["1.1"]


def _read_cvat(root: Element, path: Path) -> Entries:
    of_project = root.findall("meta/project/tasks/task")
    tasks = _cvat_tasks(of_project or root.findall("meta/task"), path)
    several = len(of_project) > 1
    called = [task.names for task in tasks.values() if task.names]
    if several and len(set(called)) < len(called):
        what = "tasks of the project have the same name; rename them in CVAT"
        raise ValueError(f"{path}: <meta>: {what}")
    step = max([1, *map(_picture_step, root.findall("meta"))])
    entries: Entries = {}

    def read(node: Element) -> None:
        key = node.get("task_id", "") if several else next(iter(tasks), "")
        task = tasks.get(key, _Task(step=step))
        names, unit = task.names, Unit.PICTURES
        if node.tag == "track":
            numbers = _of_track(node, path, task.step if several else step)
        elif node.tag == "tag":
            numbers = [_frame(node, path)]
        else:
            if not len(node):
                return
            name = node.get("name", "").replace("\\", "/")
            folder, _, last = name.rpartition("/")
            names = (folder.rpartition("/")[2],) if folder else names
            if match := _OF_VIDEO.fullmatch(last):
                numbers = [int(match[1])]
            else:
                line = csvfile.Line(path, int(node.attrib[_LINE]))
                numbers, unit = [line.image(name)], Unit.FRAMES
        if several and unit is Unit.PICTURES:
            numbers = [number - (task.offset or 0) for number in numbers]
            end = 0 if task.offset is None or task.end is None else task.end
            if not all(0 <= number < end for number in numbers):
                raise ValueError(
                    f"{path}: {_place(node)}: is from a project of several videos, and the file "
                    "does not say which; export each task by itself"
                )
        for labelled in node if node.tag == "image" else [node]:
            label = _label(labelled, path)
            for number in numbers:
                entry = Entry(label, number, unit, _place(labelled))
                entries.setdefault(names, []).append(entry)

    for_each([(node,) for node in root if node.tag in ("image", "track", "tag")], read)
    return entries


def _label(node: Element, path: Path) -> str:
    if not (label := node.get("label", "").strip()):
        raise ValueError(f"{path}: {_place(node)}: label: is missing")
    return label


def _frame(node: Element, path: Path) -> int:
    return _whole(node.get("frame"), f"{path}: {_place(node)}", "frame")


def _of_track(track: Element, path: Path, step: int) -> list[int]:
    """The last picture of each stretch in which a track is shown; `step` is to the next one."""
    shapes = sorted((_frame(shape, path), i, shape.get("outside")) for i, shape in enumerate(track))
    if not shapes:
        raise ValueError(f"{path}: {_place(track)}: has no shapes")
    ends, last = [], None
    for frame, _, outside in shapes:
        if outside != "1":
            last = frame
        elif last is not None:
            # Between two keyframes a track is shown too, up to where it is outside.
            ends.append(max(last, frame - step))
            last = None
    return ends if last is None else [*ends, last]


# --- ELAN -----------------------------------------------------------------------------------------
# A step is complete at its annotation's end. Tiers whose names begin with "steps" are read, and all
# tiers if there are none. An empty annotation stands for what its tier is called.


def _is_elan(content: Content) -> bool:
    return isinstance(content, Element) and content.tag == "ANNOTATION_DOCUMENT"


def _read_elan(root: Element, path: Path) -> Entries:
    def milliseconds(node: Element, key: str) -> int:
        where = f"{path}: {_place(node)}"
        return _whole(node.get(key, "0"), where, key, high=int(1000 * MAX_SECONDS))

    header = root.find("HEADER")
    origin = 0
    if header is not None:
        unit = header.get("TIME_UNITS", "milliseconds")
        if unit != "milliseconds":
            problem = f"{files.shorten(unit)} is not milliseconds"
            raise ValueError(f"{path}: {_place(header)}: TIME_UNITS: {problem}")
        # The first medium is the one that is annotated; its origin is what ELAN calls time 0.
        medium = header.find("MEDIA_DESCRIPTOR")
        origin = 0 if medium is None else milliseconds(medium, "TIME_ORIGIN")
    slots = {
        slot.get("TIME_SLOT_ID", ""): milliseconds(slot, "TIME_VALUE")
        for slot in root.iterfind("TIME_ORDER/TIME_SLOT[@TIME_VALUE]")
    }
    tiers = root.findall("TIER")
    by_id = {node.get("ANNOTATION_ID", ""): node for node in root.iterfind("TIER/ANNOTATION/*")}
    # Several that hang on one and follow one another, each with a share of its time.
    followers = [node for node in by_id.values() if node.get("PREVIOUS_ANNOTATION")]
    shares = {
        node.get(key) for node in followers for key in ("ANNOTATION_ID", "PREVIOUS_ANNOTATION")
    }

    def read(tier: str, node: Element) -> Entry:
        place = f"{_place(node)} of tier {files.shorten(tier)}"
        aligned = node
        for _ in range(len(tiers) + 1):  # one tier may hang on another
            if aligned.tag != "REF_ANNOTATION":
                break
            reference = aligned.get("ANNOTATION_REF", "")
            if aligned.get("ANNOTATION_ID") in shares:
                problem = "shares the time of another annotation, and has none of its own"
                raise ValueError(f"{path}: {place}: {problem}; align it in ELAN")
            if reference not in by_id:
                problem = f"ANNOTATION_REF: there is no annotation {files.shorten(reference)}"
                raise ValueError(f"{path}: {place}: {problem}")
            aligned = by_id[reference]
        keys = "TIME_SLOT_REF1", "TIME_SLOT_REF2"
        for key in keys:
            if (slot := aligned.get(key, "")) not in slots:
                problem = f"{key}: time slot {files.shorten(slot)} has no time; align it in ELAN"
                raise ValueError(f"{path}: {place}: {problem}")
        begun, ended = (slots[aligned.attrib[key]] + origin for key in keys)
        end = _end(begun, ended, f"{path}: {place}") / 1000
        text = "".join(value.text or "" for value in node.iterfind("ANNOTATION_VALUE")).strip()
        return Entry(text or tier, end, Unit.SECONDS, place)

    names = [tier.get("TIER_ID", "").strip() for tier in tiers]
    of_steps = [name for name in names if name.lower().startswith("steps")] or names
    nodes = [
        (name, node)
        for name, tier in zip(names, tiers, strict=True)
        if name in of_steps
        for node in tier.iterfind("ANNOTATION/*")
    ]
    return {(): for_each(nodes, read)}


TOOLS = (
    Tool("Label Studio (JSON)", _is_label_studio, _read_label_studio),
    Tool("CVAT (XML 1.1 for images or for video)", _is_cvat, _read_cvat),
    Tool("ELAN (.eaf)", _is_elan, _read_elan),
)
