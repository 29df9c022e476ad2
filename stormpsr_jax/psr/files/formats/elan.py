"""ELAN: its files (.eaf) and its tab-separated export. A step is complete at its annotation's end.

Tiers whose names begin with "steps" are read, and all tiers if there are none. An empty annotation
stands for what its tier is called.
"""

import mimetypes
import pathlib
import re
import urllib.parse
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape, quoteattr

from stormpsr_jax.base import files
from stormpsr_jax.base.errors import for_each
from stormpsr_jax.psr.files import csvfile
from stormpsr_jax.psr.files.formats import form, tables
from stormpsr_jax.psr.files.formats.xml_tree import Node

_TIER = "steps"
_MAX = int(1000 * form.MAX_SECONDS)
# How many milliseconds they last: frames of television are allowed in the place of those.
_UNITS = {"milliseconds": 1.0, "PAL-frames": 40.0, "NTSC-frames": 1001 / 30}
_CLOCK = re.compile(r"[0-9]{1,4}:[0-5][0-9]:[0-5][0-9]\.[0-9]{1,3}", re.ASCII)
_POINT = re.compile(r"[0-9]{1,9}\.[0-9]{1,3}", re.ASCII)
# Columns of the export by what their headers begin with, in the order of preference.
_SHAPES = (" - hh:mm:ss.ms", " - ss.msec", " - msec", "")


def _chosen(tiers: Mapping[str, list]) -> dict[str, list]:
    named = {name: its for name, its in tiers.items() if name.strip().lower().startswith(_TIER)}
    return named or dict(tiers)


def _read_eaf(sample: form.Sample) -> list[form.Entry]:
    root = sample.xml
    header = (root.of("HEADER") or [Node("HEADER", {}, root.line)])[0]
    unit = header.attributes.get("TIME_UNITS", "milliseconds")
    if unit not in _UNITS:
        what = f"TIME_UNITS: {files.shorten(unit)} is none of {', '.join(_UNITS)}"
        raise sample.error(header.place, what)
    # The first medium is the one that is annotated; its origin is what ELAN calls time 0, in
    # milliseconds whatever the unit of the slots.
    media = header.of("MEDIA_DESCRIPTOR")[:1]
    origin = sum(
        sample.whole(node.attributes.get("TIME_ORIGIN", "0"), node.place, "TIME_ORIGIN", high=_MAX)
        for node in media
    )
    slots: dict[str, int] = {}
    for node in [slot for order in root.of("TIME_ORDER") for slot in order.of("TIME_SLOT")]:
        if "TIME_VALUE" in node.attributes:
            value = sample.whole(node.attributes["TIME_VALUE"], node.place, "TIME_VALUE", high=_MAX)
            slots[node.attributes.get("TIME_SLOT_ID", "")] = value
    tiers: dict[str, list[Node]] = {}
    for tier in root.of("TIER"):
        found = [its for annotation in tier.of("ANNOTATION") for its in annotation.children]
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

    def parse(tier: str, node: Node) -> form.Entry:
        place = f"{node.place} of tier {files.shorten(tier)}"
        aligned = node
        for _ in range(len(tiers) + 1):  # one tier may hang on another
            if aligned.tag != "REF_ANNOTATION":
                break
            if aligned.attributes.get("ANNOTATION_ID", "") in shares:
                what = "shares the time of another annotation, and has none of its own"
                raise sample.error(place, f"{what}; align it in ELAN")
            reference = aligned.attributes.get("ANNOTATION_REF", "")
            if reference not in by_id:
                what = f"ANNOTATION_REF: there is no annotation {files.shorten(reference)}"
                raise sample.error(place, what)
            aligned = by_id[reference]
        times = []
        for key in ("TIME_SLOT_REF1", "TIME_SLOT_REF2"):
            slot = aligned.attributes.get(key, "")
            if slot not in slots:
                what = f"{key}: time slot {files.shorten(slot)} has no time; align it in ELAN"
                raise sample.error(place, what)
            times.append(slots[slot] * _UNITS[unit] + origin)
        end = sample.ordered(times[0], times[1], place) / 1000
        text = "".join(value.text for value in node.of("ANNOTATION_VALUE")).strip()
        return form.Entry(text or tier.strip(), end, form.Unit.SECONDS, place)

    return for_each([(tier, node) for tier, its in _chosen(tiers).items() for node in its], parse)


# --- The tab-separated export ---------------------------------------------------------------------


def _times(fields: Sequence[str]) -> list[int]:
    """The columns of a row without a header that are times, those of one way of writing them."""
    for shape in (_CLOCK, _POINT):
        if len(found := [i for i, field in enumerate(fields) if shape.fullmatch(field)]) >= 2:
            return found
    return []


def _is_plain_export(sample: form.Sample) -> bool:
    rows = [row for _, row in sample.rows[:20]]
    return bool(rows) and all(
        len(row) >= 4 and _times(row) and not _times(row[-1:]) for row in rows
    )


def _read_plain_export(sample: form.Sample) -> list[form.Entry]:
    """An export without a header: tier, participant, times, annotation."""

    def parse(line: csvfile.Line, row: list[str]) -> tuple[str, form.Entry]:
        columns = _times(row)
        if not columns:
            raise sample.error(f"line {line}", "time: begin and end are missing")
        begin, end = (tables.parse_time(row[i], False, line, "time") for i in columns[:2])
        end = sample.ordered(begin, end, f"line {line}")
        tier = row[0].strip()
        return tier, form.Entry(row[-1].strip() or tier, end, form.Unit.SECONDS, f"line {line}")

    return _of_tiers(for_each(sample.rows, parse))


def _of_tiers(found: Sequence[tuple[str, form.Entry]]) -> list[form.Entry]:
    tiers: dict[str, list[form.Entry]] = {}
    for tier, entry in found:
        tiers.setdefault(tier, []).append(entry)
    return [entry for its in _chosen(tiers).values() for entry in its]


def _column(names: Sequence[str], of: str) -> tuple[int, bool] | None:
    """The column of begin or end times, and whether it counts milliseconds."""
    for shape in _SHAPES:
        if (name := f"{of} time{shape}") in names:
            return names.index(name), shape == " - msec"
    return None


def _has_header(sample: form.Sample) -> bool:
    return all(_column(sample.columns, of) is not None for of in ("begin", "end"))


def _read_export(sample: form.Sample) -> list[form.Entry]:
    """An export with a header: one column `Annotation` beside `Tier`, or a column for each tier."""
    names = [name.strip() for name in sample.rows[0][1]]
    low = form.lowered(names)
    begin, end = _column(low, "begin"), _column(low, "end")
    assert begin is not None
    assert end is not None
    one = low.index("annotation") if "annotation" in low else None
    tier_at = low.index("tier") if "tier" in low else None
    passed = ("begin time", "end time", "duration", "file")
    of_tiers = [i for i, name in enumerate(low) if name and not name.startswith(passed)]

    def time(row: Sequence[str], column: tuple[int, bool], line: csvfile.Line) -> float:
        at, in_milliseconds = column
        if in_milliseconds:
            return sample.whole(row[at], f"line {line}", "time", high=_MAX) / 1000
        return tables.parse_time(row[at], False, line, "time")

    def parse(line: csvfile.Line, row: list[str]) -> list[tuple[str, form.Entry]]:
        line.check_width(row[: len(names)], names)
        at = sample.ordered(time(row, begin, line), time(row, end, line), f"line {line}")

        def entry(tier: str, text: str) -> tuple[str, form.Entry]:
            return tier, form.Entry(text.strip() or tier, at, form.Unit.SECONDS, f"line {line}")

        if one is not None:
            return [entry(row[tier_at].strip() if tier_at is not None else "", row[one])]
        return [entry(names[i], row[i]) for i in of_tiers if row[i].strip()]

    found = for_each(sample.rows[1:], parse)
    return _of_tiers([pair for pairs in found for pair in pairs])


# --- Written --------------------------------------------------------------------------------------


def _write(
    path: pathlib.Path, steps: Sequence[form.Written], video: pathlib.Path, fps: float
) -> None:
    """Annotations of a tier may not overlap, so what would goes into a further tier.

    ELAN opens the video where it was, or beside the file, and else asks for it.
    """
    kind = mimetypes.guess_type(video.name)[0] or "unknown"
    beside = f"./{urllib.parse.quote(video.name)}"
    media = (
        f"<MEDIA_DESCRIPTOR MEDIA_URL={quoteattr(video.absolute().as_uri())} "
        f'RELATIVE_MEDIA_URL={quoteattr(beside)} MIME_TYPE="{kind}"/>'
    )
    ends: list[int] = []
    tiers: list[list[str]] = []
    slots = []
    for i, (start, end, step) in enumerate(form.spans(steps, fps)):
        end = max(end, 1)  # an annotation lasts; what is complete at 0 is so within a millisecond
        # Shorter than the second before where that makes it fit.
        free = [n for n, last in enumerate(ends) if max(start, last) < end]
        if not free:
            ends.append(0)
            tiers.append([])
        n = free[0] if free else len(ends) - 1
        start, ends[n] = max(start, ends[n]), end
        slots += [
            f'<TIME_SLOT TIME_SLOT_ID="ts{2 * i + k}" TIME_VALUE="{t}"/>'
            for k, t in ((1, start), (2, end))
        ]
        tiers[n].append(
            f'<ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a{i + 1}" '
            f'TIME_SLOT_REF1="ts{2 * i + 1}" TIME_SLOT_REF2="ts{2 * i + 2}">'
            f"<ANNOTATION_VALUE>{escape(step.name)}</ANNOTATION_VALUE>"
            "</ALIGNABLE_ANNOTATION></ANNOTATION>"
        )
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        '<ANNOTATION_DOCUMENT AUTHOR="" DATE="2000-01-01T00:00:00+00:00" FORMAT="3.0" '
        'VERSION="3.0">',
        '<HEADER MEDIA_FILE="" TIME_UNITS="milliseconds">',
        media if form.is_video(video.name) else "",
        "</HEADER>",
        f"<TIME_ORDER>{''.join(slots)}</TIME_ORDER>",
        *(
            f'<TIER LINGUISTIC_TYPE_REF="default-lt" TIER_ID={quoteattr(_tier_name(n))}>'
            f"{''.join(its)}</TIER>"
            for n, its in enumerate(tiers or [[]])
        ),
        '<LINGUISTIC_TYPE GRAPHIC_REFERENCES="false" LINGUISTIC_TYPE_ID="default-lt" '
        'TIME_ALIGNABLE="true"/>',
        "</ANNOTATION_DOCUMENT>",
    ]
    files.write_text(path, "\n".join(lines) + "\n")


def _tier_name(n: int) -> str:
    return _TIER if n == 0 else f"{_TIER} {n + 1}"


_ROOT = form.Mark("a root <ANNOTATION_DOCUMENT>", lambda s: s.xml.tag == "ANNOTATION_DOCUMENT")
_TABS = form.Mark("tabs", lambda s: s.delimiter == "\t")
_COLUMNS = form.Mark("columns 'Begin Time' and 'End Time'", _has_header)
_TIMES = form.Mark("begin and end as hh:mm:ss.ms or ss.msec in every row", _is_plain_export)
FORMAT = form.Format(
    key="elan",
    name="ELAN (.eaf and tab-separated text)",
    clock="milliseconds (or frames, by TIME_UNITS) of the first medium, its TIME_ORIGIN added; "
    "a step is complete at the end of its annotation",
    forms=(
        form.Form((form.IS_XML, _ROOT), _read_eaf),
        form.Form((form.IS_TABLE, _TABS, _COLUMNS), _read_export),
        form.Form((form.IS_TABLE, _TABS, _TIMES), _read_plain_export),
    ),
    ending=".eaf",
    write=_write,
)
