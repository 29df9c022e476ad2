"""Label Studio: timeline labels of a video, as JSON. Regions end with a step.

Regions of TimelineLabels have frames, which the tool numbers from 1 at the rate that its tag
`Video` says; with `frameRate="$fps"` that rate stands in the task. Regions of `Labels` on a sound
that plays along have seconds. Other regions say no time and are not read.
"""

from collections.abc import Mapping
from typing import Any

from stormpsr_jax.base import files
from stormpsr_jax.base.errors import for_each
from stormpsr_jax.recordings.formats.sample import (
    Entry,
    Format,
    Sample,
    Unit,
    is_video,
    recordings_of,
)

_RATES = ("fps", "frame_rate", "frameRate", "framerate")  # fields of a task that are usual for it
# What else may be said of a region, beside its label.
_NOTES = {"choices", "text", "number", "rating", "taxonomy", "datetime"}


def _names(task: Mapping[str, Any]) -> tuple[str, ...]:
    """The names that the recording of a task may have."""
    addresses = [
        its for its in task.values() if isinstance(its, str) and ("/" in its or "." in its)
    ]
    addresses = [address for address in addresses if is_video(address)] or addresses
    return tuple(name for address in addresses for name in recordings_of(address))


def _entries(
    value: Mapping[str, Any], task: Mapping[str, Any], sample: Sample, place: str
) -> list[Entry]:
    """The labels of a region that says when."""
    texts = [
        text
        for key, its in value.items()
        if key.endswith("labels") and isinstance(its, list)
        for text in its
    ]
    if not ("ranges" in value or {"start", "end"} <= value.keys()) or "sequence" in value:
        return []
    if _NOTES & value.keys() and not any(key.endswith("labels") for key in value):
        return []
    if not texts or not all(isinstance(text, str) for text in texts):
        raise sample.error(place, "labels: a region has no label; give it one, or remove it")
    spans = value.get("ranges", [value])
    if not isinstance(spans, list):
        raise sample.error(place, f"ranges: {files.shorten(spans)} is not a list")
    rate = next((task[key] for key in _RATES if key in task), None)
    names = _names(task)
    entries = []
    for span in spans:
        if not isinstance(span, dict):
            raise sample.error(place, f"ranges: {files.shorten(span)} is not an object")
        start, end = (span.get(key) for key in ("start", "end"))
        unit = Unit.SECONDS
        if "ranges" in value:
            # Numbered from 1.
            low, high = (
                sample.whole(v, place, f, low=1) - 1 for v, f in ((start, "start"), (end, "end"))
            )
            at: float = sample.ordered(low, high, place)
            unit = Unit.TICKS
            if rate is not None:
                where = f"{sample.path}: {place}: fps"
                at /= files.number(rate, where, files.MIN_FPS, files.MAX_FPS)
                unit = Unit.SECONDS
        else:
            begun = sample.seconds(start, place, "start")
            at = sample.ordered(begun, sample.seconds(end, place, "end"), place)
        entries += [Entry(text.strip(), at, unit, place, names) for text in texts]
    return entries


def _read(sample: Sample) -> list[Entry]:
    def parse(number: int, task: Any) -> list[Entry]:
        place = f"task {number}"
        where = f"{sample.path}: {place}"
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
            sample.recordings.append(_names(data))
        if len(found) > 1:
            raise sample.error(place, f"has {len(found)} {what}s; keep one of them")
        entries = []
        for its in found:
            for n, region in enumerate(
                files.field(its, "result", list, f"{where}: {what}"), start=1
            ):
                part = f"{place}: region {n}"
                value = files.field(region, "value", dict, f"{sample.path}: {part}")
                entries += _entries(value, data, sample, part)
        return entries

    found = for_each(enumerate(_tasks(sample), start=1), parse)
    if not sample.recordings:  # which is not to say that nothing was done
        raise sample.error("task 1", "annotations: nobody has labelled it; submit an annotation")
    return [entry for its in found for entry in its]


def _tasks(sample: Sample) -> list[Any]:
    return sample.json if isinstance(sample.json, list) else [sample.json]


def _recognises(sample: Sample) -> bool:
    return (
        sample.kind == "json"
        and bool(tasks := _tasks(sample))
        and all(isinstance(task, dict) and "data" in task for task in tasks)
        and all({"annotations", "predictions"} & task.keys() for task in tasks)
    )


FORMAT = Format("Label Studio (JSON)", _recognises, _read)
