"""VIA 3, the VGG video annotator: the temporal segments of its project (JSON)."""

import contextlib
from collections.abc import Mapping
from typing import Any

from stormpsr_jax.base import files
from stormpsr_jax.base.errors import for_each
from stormpsr_jax.psr.files.formats import form

_SEGMENTS = "TEMPORAL-SEGMENTS"  # the name that VIA itself gives the attribute


def _end(times: Any, sample: form.Sample, place: str) -> float | None:
    """The end of a segment; None of what says no time, such as a region of the whole video."""
    if not isinstance(times, list):
        raise sample.error(place, f"z: {files.shorten(times)} is not a list of times")
    if not times:
        return None
    found = [sample.seconds(time, place, "z") for time in times]
    return sample.ordered(found[0], found[-1], place)


def _steps(
    said: Mapping[str, Any], attributes: Mapping[str, Any], sample: form.Sample, place: str
) -> list[str]:
    """What a segment says: values by numbers of attributes, of a choice the number of an option."""
    texts = []
    for number, value in said.items():
        attribute = files.field(attributes, number, dict, f"{sample.path}: {place}: attribute")
        options, text = attribute.get("options"), value
        if isinstance(options, dict) and isinstance(value, str):
            text = options.get(value, value)
        if not isinstance(text, str):
            raise sample.error(place, f"av: {files.shorten(text)} is not a text")
        if text.strip():
            texts.append((attribute.get("aname"), text.strip()))
    # Other attributes of a segment, such as the hand, are not the step.
    own = [text for name, text in texts if name == _SEGMENTS] or [text for _, text in texts]
    if not own:
        raise sample.error(place, "av: the segment has no step")
    return own


def _read(sample: form.Sample) -> list[form.Entry]:
    where = str(sample.path)
    attributes, names, views = (
        files.field(sample.json, key, dict, where) for key in ("attribute", "file", "view")
    )

    def recordings(vid: Any, place: str) -> tuple[str, ...]:
        view = files.field(views, str(vid), dict, f"{where}: {place}: view")
        fids = files.field(view, "fid_list", list, f"{where}: {place}: view {vid}")
        found: list[str] = []
        for fid in fids:
            its = files.field(names, str(fid), dict, f"{where}: {place}: file")
            found += form.recordings_of(
                files.field(its, "fname", str, f"{where}: {place}: file {fid}")
            )
        return tuple(found)

    def parse(key: str, metadata: Any) -> list[form.Entry]:
        place = f"metadata {files.shorten(key)}"
        end = _end(files.field(metadata, "z", list, f"{where}: {place}"), sample, place)
        if end is None:
            return []
        said = files.field(metadata, "av", dict, f"{where}: {place}")
        own = _steps(said, attributes, sample, place)
        names_of = recordings(files.field(metadata, "vid", (str, int), f"{where}: {place}"), place)
        return [form.Entry(text, end, form.Unit.SECONDS, place, names_of) for text in own]

    for vid in views:
        with contextlib.suppress(ValueError):  # a view without segments may name no file
            sample.unlabelled += filter(None, [recordings(vid, f"view {vid}")])
    metadata = files.field(sample.json, "metadata", dict, where)
    return [entry for its in for_each(metadata.items(), parse) for entry in its]


def _has_keys(sample: form.Sample) -> bool:
    keys = {"project", "attribute", "file", "metadata", "view"}
    return isinstance(sample.json, dict) and keys <= sample.json.keys()


_KEYS = form.Mark("the keys project, attribute, file, metadata and view", _has_keys)
_LINE = form.Mark("a line # CSV_HEADER", lambda s: "\n# CSV_HEADER = " in f"\n{s.text[:65536]}")
FORMAT = form.Format(
    key="via",
    name="VIA 3 (project, JSON)",
    clock="seconds of the video; a step is complete at the end of its segment, or at "
    "its time if it has only one",
    forms=(form.Form((form.IS_JSON, _KEYS), _read),),
    others=(
        form.other(
            (form.IS_TABLE, _LINE),
            "a CSV of VIA; give the project instead, a .json file, which VIA saves by Save Project",
        ),
    ),
)
