"""VIA 3, the VGG video annotator: temporal segments, as its project (JSON) or CSV."""

import contextlib
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from stormpsr_jax.base import files
from stormpsr_jax.base.errors import for_each
from stormpsr_jax.psr.files import csvfile
from stormpsr_jax.psr.files.formats import form

_SEGMENTS = "TEMPORAL-SEGMENTS"  # the name that VIA itself gives the attribute
_CSV_HEADER = "# CSV_HEADER = "
_CSV_ATTRIBUTES = "# ATTRIBUTE = "
_COLUMNS = ("file_list", "temporal_coordinates", "metadata")
_SELECT, _VIDEO = 4, 4


def _end(times: Any, sample: form.Sample, place: str) -> float | None:
    """The end of a segment; None of what says no time, such as a region of the whole video."""
    if not isinstance(times, list):
        raise sample.error(place, f"z: {files.shorten(times)} is not a list of times")
    if not times:
        return None
    found = [sample.seconds(time, place, "z") for time in times]
    return sample.ordered(found[0], found[-1], place)


def _steps(
    said: Mapping[str, Any],
    attributes: Mapping[str, Any],
    sample: form.Sample,
    place: str,
    field: str,
) -> list[str]:
    """What a segment says: values by numbers of attributes, of a choice the number of an option."""
    texts = []
    for number, value in said.items():
        attribute = files.field(attributes, number, dict, f"{sample.path}: {place}: attribute")
        options, text = attribute.get("options"), value
        if isinstance(options, dict) and isinstance(value, str):
            text = options.get(value, value)
        if not isinstance(text, str):
            raise sample.error(place, f"{field}: {files.shorten(text)} is not a text")
        if text.strip():
            texts.append((attribute.get("aname"), text.strip()))
    # Other attributes of a segment, such as the hand, are not the step.
    own = [text for name, text in texts if name == _SEGMENTS] or [text for _, text in texts]
    if not own:
        raise sample.error(place, f"{field}: the segment has no step")
    return own


def _read_json(sample: form.Sample) -> list[form.Entry]:
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
        own = _steps(said, attributes, sample, place, "av")
        names_of = recordings(files.field(metadata, "vid", (str, int), f"{where}: {place}"), place)
        return [form.Entry(text, end, form.Unit.SECONDS, place, names_of) for text in own]

    for vid in views:
        with contextlib.suppress(ValueError):  # a view without segments may name no file
            sample.unlabelled += filter(None, [recordings(vid, f"view {vid}")])
    metadata = files.field(sample.json, "metadata", dict, where)
    return [entry for its in for_each(metadata.items(), parse) for entry in its]


# --- CSV ------------------------------------------------------------------------------------------


def _csv_rows(sample: form.Sample) -> tuple[list[str], list[csvfile.Row]]:
    """The columns, which stand in a comment, and the rows."""
    lines = sample.text.splitlines()
    names = next(line for line in lines if line.startswith(_CSV_HEADER)).removeprefix(_CSV_HEADER)
    kept = "\n".join("" if line.startswith("#") else line for line in lines) + "\n"
    return [name.strip() for name in names.split(",")], csvfile.rows_of(kept, sample.path)


def _has_csv_header(sample: form.Sample) -> bool:
    lines = [line for line in sample.text[:65536].splitlines() if line.startswith(_CSV_HEADER)]
    return bool(lines) and all(name in lines[0] for name in _COLUMNS)


def _csv_attributes(sample: form.Sample) -> Mapping[str, Any] | None:
    """The attributes by their numbers, which stand in a comment; None without it."""
    for number, line in enumerate(sample.text.splitlines(), start=1):
        if line.startswith(_CSV_ATTRIBUTES):
            text = line.removeprefix(_CSV_ATTRIBUTES)
            found = sample.json_of(text, f"line {number}", "ATTRIBUTE")
            if not isinstance(found, dict):
                raise sample.error(f"line {number}", "ATTRIBUTE: is not an object")
            return found
    return None


def _read_csv(sample: form.Sample) -> list[form.Entry]:
    names, rows = _csv_rows(sample)
    attributes = _csv_attributes(sample)

    def parse(line: csvfile.Line, row: list[str]) -> list[form.Entry]:
        line.check_width(row, names)
        place = f"line {line}"
        columns = zip(names, row, strict=True)
        fields = {n: sample.json_of(text, place, n) for n, text in columns if n in _COLUMNS}
        end = _end(fields["temporal_coordinates"], sample, place)
        if end is None:
            return []
        said = fields["metadata"]
        if not isinstance(said, Mapping):
            raise sample.error(place, f"metadata: {files.shorten(said)} is no object of texts")
        # Without that comment they are called by their names.
        known = {name: {"aname": name} for name in said} if attributes is None else attributes
        own = _steps(said, known, sample, place, "metadata")
        listed = fields["file_list"] if isinstance(fields["file_list"], list) else []
        of = tuple(n for its in listed if isinstance(its, str) for n in form.recordings_of(its))
        return [form.Entry(text, end, form.Unit.SECONDS, place, of) for text in own]

    return [entry for its in for_each(rows, parse) for entry in its]


# --- Written --------------------------------------------------------------------------------------


def _write(
    path: pathlib.Path, steps: Sequence[form.Written], video: pathlib.Path, fps: float
) -> None:
    """A project of one video, whose segments are the second before each step."""
    metadata = {}
    for number, step in enumerate(steps, start=1):
        end = step.frame / fps
        metadata[f"1_{number:08d}"] = {
            "vid": "1",
            "flg": 0,
            "z": [max(0.0, end - 1), end],
            "xy": [],
            "av": {"1": step.name},
        }
    names = dict.fromkeys(step.name for step in steps)
    attribute = {
        "aname": _SEGMENTS,
        "anchor_id": "FILE1_Z2_XY0",
        "type": _SELECT,
        "desc": "steps, complete at the end of their segment",
        "options": {name: name for name in names},
        "default_option_id": "",
    }
    file = {"fid": "1", "fname": video.name, "type": _VIDEO, "loc": 1, "src": ""}
    content = {
        "project": {
            "pid": "__VIA_PROJECT_ID__",
            "rev": "__VIA_PROJECT_REV_ID__",
            "rev_timestamp": "__VIA_PROJECT_REV_TIMESTAMP__",
            "pname": video.stem,
            "data_format_version": "3.1.1",
            "creator": "stormpsr_jax",
            "created": 0,
            "vid_list": ["1"],
        },
        "config": {"file": {"loc_prefix": {"1": "", "2": "", "3": "", "4": ""}}, "ui": {}},
        "attribute": {"1": attribute},
        "file": {"1": file},
        "metadata": metadata,
        "view": {"1": {"fid_list": ["1"]}},
    }
    files.write_json(path, content)


def _has_keys(sample: form.Sample) -> bool:
    keys = {"project", "attribute", "file", "metadata", "view"}
    return isinstance(sample.json, dict) and keys <= sample.json.keys()


_KEYS = form.Mark("the keys project, attribute, file, metadata and view", _has_keys)
_LINE = form.Mark(f"a line {_CSV_HEADER}…{','.join(_COLUMNS)}", _has_csv_header)
FORMAT = form.Format(
    key="via",
    name="VIA 3 (project or CSV)",
    clock="seconds of the video; a step is complete at the end of its segment, or at "
    "its time if it has only one",
    forms=(
        form.Form((form.IS_JSON, _KEYS), _read_json),
        form.Form((form.IS_TABLE, _LINE), _read_csv),
    ),
    ending=".via.json",
    write=_write,
)
