"""The model card of a model folder: README.md, in the format that the Hugging Face Hub shows.

Everything on it comes from model.json. Of where the model comes from it has what is on the list
below and nothing else, so that no folder of the machine gets onto it; names of the procedure stand
there as plain text, whatever characters they have.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

import msgspec

from stormpsr_jax.base import results
from stormpsr_jax.psr import advice, headline, risk, wrong_parts
from stormpsr_jax.psr import streams as all_streams

CARD = "README.md"
# Also of formulas, and of what pages of repositories make links of by themselves.
_MARKUP = re.compile(r"[\\`*_{}\[\]<>#|!~&$@]|:(?=//)|(?<=www)\.", re.IGNORECASE)
MAX_NAMES = 60  # of components that are listed
# Fields of the config that are shown, if they are numbers or words, and the stage that reads them.
_SHOWN = {
    "seed": "",
    "dtype": "",
    "pretrain.steps": "pretrain",
    "pretrain.key_frames": "pretrain",
    "temporal_model.backbone": "temporal",
    "temporal.steps": "temporal",
    "temporal.sampling": "temporal",
    "finetune.steps": "finetune",
    "detector.steps": "detector",
    "evaluate.decoder": "evaluate",
    "evaluate.threshold": "evaluate",
}


def card(
    data: Mapping[str, Any],
    parameters: Mapping[str, int],
    exported: Mapping[str, Any] | None = None,
) -> str:
    """Returns the text of the card, of checked content of model.json and numbers of parameters.

    Of an export, the content is that of its model, and `exported` what its own says of itself.
    """
    procedure, name = data["procedure"], _text(data["procedure"]["name"])
    origin = _origin(data["origin"])
    untested = [f"**{wrong_parts.UNTESTED}**"] if origin.data.untested else []
    sections: dict[str, Iterable[str]] = {
        "How to use it": _use(data),
        "Product": _product(data),
        "Figures": [_world(origin), *untested, "", *_figures(data["streams"], origin.fused)],
        "Decoding": [
            f"It recognises by {recognises_by(data)}.",
            "",
            *_settings(data["streams"], data["fusion"] and data["fusion"]["kind"]),
        ],
        "Networks": _networks(data, parameters, exported),
        "Limits": _limits(data),
        "Provenance": _provenance(data, origin),
    }
    lines = [
        *_head(),
        f"# Procedure step recognition of {name}",
        "",
        f"Recognises in video of an assembly which steps were completed correctly, and when. It "
        f"knows one product, {name}: {len(procedure['components'])} components, "
        f"{len(procedure['states'])} catalogued assembly states, at {data['fps']:g} frames/s.",
        "The method is STORM-PSR (arXiv 2510.12385), in stormpsr_jax.",
    ]
    for title, section in sections.items():
        lines += ["", f"## {title}", "", *section]
    return "\n".join(lines) + "\n"


def recognises_by(data: Mapping[str, Any]) -> str:
    """Says by which stream a model recognises, of the content of its model.json."""
    there = [name for name in all_streams.names() if name in data["streams"]]
    figures = {name: data["streams"][name] for name in there}
    val = _origin(data["origin"]).data.recordings.get("val")
    return advice.recognises_by(data.get("default"), figures, val)


def _product(data: Mapping[str, Any]) -> Iterator[str]:
    procedure = data["procedure"]
    yield f"* components: {_names(procedure['components'])}"
    for variant, entry in procedure["variants"].items():
        begins = f"begins as `{entry['initial_state']}`, {len(entry['expected'])} expected steps"
        yield f"* variant {_text(variant)}: {begins}"
    if pictures := sum(picture is not None for picture in data.get("part_pictures") or ()):
        yield f"* model.json has a picture of {pictures} components, cut out of training pictures"


def _head() -> Iterator[str]:
    """The YAML in front, by which the hub sorts models."""
    yield from ("---", "library_name: stormpsr_jax", "pipeline_tag: video-classification", "tags:")
    yield from (f"- {tag}" for tag in ("procedure-step-recognition", "assembly", "video", "jax"))
    yield from ("---", "")


def _use(data: Mapping[str, Any]) -> list[str]:
    variant = _plain(next(iter(data["procedure"]["variants"])))
    # In a fenced block nothing is markup but what ends it.
    variant = json.dumps(variant, ensure_ascii=False).replace("`", "\\x60")
    return [
        "```python",
        "import stormpsr_jax",
        "",
        'model = stormpsr_jax.load_model("FOLDER")  # the folder that this file is in',
        f'for event in model.recognise("video.mp4", variant={variant}):  '
        "# or uint8 RGB (N, H, W, 3)",
        "    print(event.frame, event.time_s, event.state, event.name)",
        "```",
        "",
        "As a command: `python -m stormpsr_jax.recognise --model=FOLDER video.mp4 "
        "--out=recognised`; with `camera:0` in place of the file, live.",
    ]


def _world(origin: _Origin) -> str:
    """Says what recordings the figures are from."""
    counts = origin.data.recordings
    number = f"{counts['test']} recordings of " if "test" in counts else "recordings of "
    if origin.data.rendered:
        scene = origin.data.scene
        said = "".join(f", {_text(key)} {_text(value)}" for key, value in scene.items())
        return (
            f"Of {number}split test of a **rendered** world (`data_prep.synthetic`{said}). They "
            "say nothing about real video."
        )
    if origin.made_from is None:
        return "As whoever wrote the model gives them; of which recordings is not known here."
    return (
        f"Of {number}split test of the data that it was trained on, which no stage of training has "
        "read. Other people, cameras and places may give others."
    )


def _figures(streams: Mapping[str, Any], fused: int | None) -> Iterator[str]:
    figures = headline.of(record["test"] for record in streams.values())
    yield "| stream | | " + " | ".join(f.heading for f in figures) + " |"
    yield "|---|---|" + "---|" * len(figures)
    for name, record in streams.items():
        shown = [_number(record["test"].get(f.key), f.decimals) for f in figures]
        yield f"| `{name}` | {_summary(name, fused)} | " + " | ".join(shown) + " |"
    yield ""
    yield from (f"* {figure.label}: {figure.meaning}" for figure in figures)


def _summary(name: str, fused: int | None) -> str:
    """What a stream's events are made from; `fused`: recordings that its fusion was fitted on."""
    stream = all_streams.find(name)
    if not stream.fitted:
        return stream.look.summary
    fusion = f"a fusion fitted on {fused} validation recordings"
    if not fused:
        fusion = "a fusion" if fused is None else "the fusion that ships with the package"
    return f"all networks, by {fusion} (not in the paper)"


def _settings(streams: Mapping[str, Any], kind: str | None) -> Iterator[str]:
    yield "Chosen on split validation, or those of the paper:"
    yield ""
    for name, record in streams.items():
        values = ", ".join(
            f"{key} {'–' if value is None else _text(value)}"
            for key, value in record["settings"].items()
        )
        # One number for all events, of slope 0, is left out; see `Model.calibrated`.
        learnt = record["calibration"] is not None and record["calibration"]["slope"] > 0
        known = "calibrated probabilities" if learnt else "no probabilities"
        yield f"* `{name}`: {values}; confidences are {known}"
        if record.get("control") is not None:
            stream, control = all_streams.find(name), risk.Control(**record["control"])
            settings = stream.settings(**record["settings"])
            asked = risk.decide(stream, settings, record["risk"], control, kind)
            yield f"  * {asked.note(name)}"


def _networks(
    data: Mapping[str, Any], parameters: Mapping[str, int], exported: Mapping[str, Any] | None
) -> Iterator[str]:
    for role, fields in data["networks"].items():
        count = f"{parameters[role]:,} parameters"
        sizes = [f"{key} {fields[key]}" for key in ("width", "depth") if key in fields]
        if "depths" in fields:
            sizes.append(f"depths {', '.join(map(str, fields['depths']))}")
        size = ", ".join([*sizes, count])
        yield f"* {role}: {fields['architecture']}, {size}, activations {fields['dtype']}"
    pictures, window = data["pictures"], data["window"]
    height, width = pictures["size"]
    seen = f"{height} × {width}"
    if pictures["detector_size"]:
        seen += ", for the detector {} × {}".format(*pictures["detector_size"])
    yield f"* pictures (height × width): {seen}, by `{pictures['aspect']}`"
    if "temporal" in data["networks"]:
        yield f"* window: {window['frames']} rows back, at a stride of {window['stride']}"
    if exported is None:
        yield f"* parameters are stored as {data['weights']['dtype']}"
        return
    int8 = ", products of matrices in int8: the figures above are those of float32"
    made_with = " ".join(f"{name} {version}" for name, version in exported["made_with"].items())
    yield (
        f"* exported as {exported['program']} with {made_with}{int8 if exported['int8'] else ''}; "
        "no flax is needed to run it"
    )


def _limits(data: Mapping[str, Any]) -> Iterator[str]:
    cannot = (
        "" if data.get("product_share") else " It cannot tell whether pictures show this product."
    )
    yield f"* It knows only this product, its steps and its variants.{cannot}"
    yield "* Pictures should look like those of training: camera, light, hands, tools, background."
    if "detector" in data["networks"]:
        states = len(data["procedure"]["states"])
        yield f"* The detector distinguishes {states} states and an error state, and no others."
    else:
        yield "* It has no detector, so it finds steps only by the change that they make."
    by_changes = [stream.name for stream in all_streams.STREAMS if "windows" in stream.needs]
    if set(data["streams"]) & set(by_changes):
        yield (
            f"* {' and '.join(f'`{name}`' for name in by_changes)} report most "
            "incorrect installations as installed, as labels count these as absent."
        )
    yield (
        "* A step that is done and undone within one window is no change to the temporal network."
        if "temporal" in data["networks"]
        else "* It does not see what hands hide."
    )
    yield "* It is no safety device: nobody's safety may rest on a step that it reports."


def _provenance(data: Mapping[str, Any], origin: _Origin) -> Iterator[str]:
    config = origin.config
    yield f"* written {_text(data['created'])} by stormpsr_jax {_text(data['package_version'])}"
    stages = config.get("stages")
    if isinstance(stages, list) and stages:
        yield f"* stages: {', '.join(_text(stage) for stage in stages)}"
    else:
        stages = ()
    for field, stage in _SHOWN.items():
        if isinstance(config.get(field), int | float | str) and (not stage or stage in stages):
            yield f"* `{field}`: {_text(config[field])}"
    if isinstance(config.get("init_from"), str):
        start = PurePath(config["init_from"].replace("\\", "/")).name
        yield f"* encoder started from {_text(start) if start else 'random weights'}"
    if counts := origin.data.recordings:
        yield f"* recordings: {', '.join(f'{n} {_text(split)}' for split, n in counts.items())}"
    # What weights saw that were trained on when data had changed; names are in model.json.
    for stage, known in origin.trained.items():
        if len(known) > 1:
            seen = [set().union(*one.recordings.values()) for one in known]
            parts = [
                f"{one.steps} steps on {len(names)} recordings"
                for one, names in zip(known, seen, strict=True)
            ]
            gone = len(set().union(*seen[:-1]) - seen[-1])
            line = f"* {_text(stage)} was trained {', then '.join(parts)}"
            what = f"; of what its weights saw, {gone} recordings are not among the last ones"
            yield line + what * bool(gone)
    yield f"* weights: SHA-256 `{data['weights']['sha256']}`"
    yield (
        "* licence: none is stated here. Weights that training started from, and the data, have "
        "theirs; who publishes this model adds `license:` to the head of this file."
    )


class _Data(msgspec.Struct):
    rendered: bool = False
    scene: dict[str, Any] = {}
    recordings: dict[str, int] = {}  # by split
    untested: bool = False  # on an incorrect installation


class _Origin(msgspec.Struct):
    """What a run says of where its model comes from, as far as it is shown."""

    made_from: Any = None
    config: dict[str, Any] = {}
    data: _Data = msgspec.field(default_factory=_Data)
    trained: dict[str, list[results.Training]] = {}
    fused: int | None = None  # recordings that the learned fusion was fitted on; 0: it shipped


def _origin(data: Any) -> _Origin:
    try:
        return msgspec.convert(data, _Origin)
    except msgspec.ValidationError:  # whoever wrote the model has put there what they liked
        return _Origin()


def _names(names: Sequence[str]) -> str:
    rest = len(names) - MAX_NAMES
    shown = ", ".join(_text(name) for name in names[:MAX_NAMES])
    return shown + (f" and {rest} more" if rest > 0 else "")


def _number(value: Any, decimals: int) -> str:
    return f"{value:.{decimals}f}" if isinstance(value, int | float) else "–"


def _plain(value: Any) -> str:
    """One printable line, cut to a sensible length."""
    return "".join(c if c.isprintable() else "?" for c in str(value)[:200])


def _text(value: Any) -> str:
    """The same as text of Markdown, in which nothing is markup, and no address becomes a link."""
    return _MARKUP.sub(r"\\\g<0>", _plain(value))
