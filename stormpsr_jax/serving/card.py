"""The model card of a model folder: README.md, in the format that the Hugging Face Hub shows.

Everything on it comes from model.json: of where the model comes from what is on the list below, so
that no folder of the machine gets onto it; names of the procedure as plain text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

import msgspec

from stormpsr_jax.base import results
from stormpsr_jax.psr import advice, headline, risk, wrong_parts
from stormpsr_jax.psr import streams as all_streams
from stormpsr_jax.psr.learned_beliefs import Weights
from stormpsr_jax.report import pages

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
    origin, procedure, streams = _origin(data["origin"]), data["procedure"], data["streams"]
    config, names = origin.config, procedure["components"]
    rest = len(names) - MAX_NAMES
    # In a fenced block nothing is markup but what ends it.
    variant = json.dumps(_plain(next(iter(procedure["variants"]))), ensure_ascii=False)
    stages, start = config.get("stages"), config.get("init_from")
    stages = stages if isinstance(stages, list) else []
    by_changes = [stream.name for stream in all_streams.STREAMS if "windows" in stream.needs]
    values = {
        "text": _text,
        "origin": origin,
        "parameters": parameters,
        "exported": exported,
        "variant": variant.replace("`", "\\x60"),
        "components": ", ".join(map(_text, names[:MAX_NAMES]))
        + (f" and {rest} more" if rest > 0 else ""),
        "num_part_pictures": sum(p is not None for p in data.get("part_pictures") or ()),
        "product_share": data.get("product_share"),
        "untested": wrong_parts.UNTESTED if origin.data.untested else "",
        "never_wrong": ", ".join(map(_text, origin.data.never_wrong[:MAX_NAMES])),
        "figures": headline.figures_of(record["test"] for record in streams.values()),
        "summaries": {name: _summary(name, origin.fused) for name in streams},
        "recognises_by": recognises_by(data),
        "risks": dict(_risks(streams, data["fusion"])),
        "by_changes": by_changes if {*streams} & {*by_changes} else [],
        "stages": [_text(stage) for stage in stages],
        "fields": {
            field: config[field]
            for field, stage in _SHOWN.items()
            if isinstance(config.get(field), int | float | str) and (not stage or stage in stages)
        },
        "start": PurePath(start.replace("\\", "/")).name if isinstance(start, str) else None,
        "retrained": list(_retrained(origin)),
    }
    return pages.template("card.md.jinja").render({**data, **values}) + "\n"


def recognises_by(data: Mapping[str, Any]) -> str:
    """Says by which stream a model recognises, of the content of its model.json."""
    there = [name for name in all_streams.names() if name in data["streams"]]
    figures = {name: data["streams"][name] for name in there}
    val = _origin(data["origin"]).data.recordings.get("val")
    return advice.recognises_by(data.get("default"), figures, val)


def _summary(name: str, fused: int | None) -> str:
    """What a stream's events are made from; `fused`: recordings that its fusion was fitted on."""
    stream = all_streams.find(name)
    if not stream.fitted:
        return stream.look.summary
    fusion = f"a fusion fitted on {fused} validation recordings"
    if not fused:
        fusion = "a fusion" if fused is None else "the fusion that ships with the package"
    return f"all networks, by {fusion} (not in the paper)"


def _risks(streams: Mapping[str, Any], fusion: Any) -> Iterator[tuple[str, str]]:
    """Of streams with a bar for installations, what it stands for."""
    prior = fusion and Weights.from_json(fusion).prior
    for name, record in streams.items():
        if record.get("control") is not None:
            stream, control = all_streams.find(name), risk.Control(**record["control"])
            settings = stream.settings(**record["settings"])
            yield name, risk.decide(stream, settings, record["risk"], control, prior).note(name)


def _retrained(origin: _Origin) -> Iterator[tuple[str, list[str], int]]:
    """Stages with weights that were trained on when data had changed; names are in model.json."""
    for stage, known in origin.trained.items():
        if len(known) > 1:
            seen = [set().union(*one.recordings.values()) for one in known]
            parts = [
                f"{one.steps} steps on {len(names)} recordings"
                for one, names in zip(known, seen, strict=True)
            ]
            yield stage, parts, len(set().union(*seen[:-1]) - seen[-1])


class _Data(msgspec.Struct):
    rendered: bool = False
    scene: dict[str, Any] = {}
    recordings: dict[str, int] = {}  # by split
    untested: bool = False  # on an incorrect installation
    never_wrong: list[str] = []  # components of which training saw none


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


def _plain(value: Any) -> str:
    """One printable line, cut to a sensible length."""
    return "".join(c if c.isprintable() else "?" for c in str(value)[:200])


def _text(value: Any) -> str:
    """The same as text of Markdown, in which nothing is markup, and no address becomes a link."""
    return _MARKUP.sub(r"\\\g<0>", _plain(value))
