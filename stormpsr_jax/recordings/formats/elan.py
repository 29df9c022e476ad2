"""ELAN: its files (.eaf). A step is complete at its annotation's end.

Tiers whose names begin with "steps" are read, and all tiers if there are none. An empty annotation
stands for what its tier is called.
"""

from stormpsr_jax.base import files
from stormpsr_jax.base.errors import for_each
from stormpsr_jax.recordings.formats.sample import MAX_SECONDS, Entry, Format, Sample, Unit
from stormpsr_jax.recordings.formats.xml_tree import Node

_TIER = "steps"
_MAX = int(1000 * MAX_SECONDS)
# How many milliseconds they last: frames of television are allowed in the place of those.
_UNITS = {"milliseconds": 1.0, "PAL-frames": 40.0, "NTSC-frames": 1001 / 30}


def _read(sample: Sample) -> list[Entry]:
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

    def parse(tier: str, node: Node) -> Entry:
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
        return Entry(text or tier.strip(), end, Unit.SECONDS, place)

    named = {name: its for name, its in tiers.items() if name.strip().lower().startswith(_TIER)}
    return for_each([(tier, node) for tier, its in (named or tiers).items() for node in its], parse)


def _recognises(sample: Sample) -> bool:
    return sample.kind == "xml" and sample.xml.tag == "ANNOTATION_DOCUMENT"


FORMAT = Format("ELAN (.eaf)", _recognises, _read)
