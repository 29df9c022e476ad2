"""Writes model folders: `model.json`, `weights.safetensors` and the model card.

Dimension letters: D features.
"""

import base64
import dataclasses
import datetime
import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util

import stormpsr_jax
from stormpsr_jax.base import files
from stormpsr_jax.networks import architectures
from stormpsr_jax.psr import headline, risk, streams, wrong_parts
from stormpsr_jax.psr.learned_beliefs import Weights
from stormpsr_jax.report import pages
from stormpsr_jax.serving.content import (
    MODEL,
    Content,
    origin_of,
    parse,
    recognises_by,
    with_checksum,
)
from stormpsr_jax.serving.folder import read_model
from stormpsr_jax.serving.functions import (
    WEIGHTS,
    FlaxNetworks,
    Network,
    check_arrays,
    check_finite,
    declared,
    stored,
    wanted_arrays,
)
from stormpsr_jax.weights import parameters

FORMAT = 3  # of a folder with weights
CARD = "README.md"  # for people, in the format that the Hugging Face Hub shows
# Also of formulas, and of what pages of repositories make links of by themselves.
_MARKUP = re.compile(r"[\\`*_{}\[\]<>#|!~&$@]|:(?=//)|(?<=www)\.", re.IGNORECASE)


def write_model(folder: str | Path, content: Content) -> None:
    """Writes a model folder, or replaces the one that is there.

    Each file appears whole, the weights first and the model card last. Who reads in between finds
    weights that are not those that model.json names, which is an error.

    Args:
        content: with `FlaxNetworks`. When it is written, and by which version, is set here.

    Raises:
        ValueError: what `read_model` would refuse.
        OSError: it cannot be written; names the file.
    """
    networks = content.networks
    assert isinstance(networks, FlaxNetworks)
    path = Path(folder, MODEL)
    described = {role: architectures.describe(n.module) for role, n in networks.of.items()}
    data = {
        "format": FORMAT,
        "package_version": stormpsr_jax.__version__,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "procedure": content.procedure.to_json(),
        "fps": content.fps,
        "pictures": dataclasses.asdict(content.pictures),
        "window": dataclasses.asdict(content.window),
        "max_detections": content.max_detections,
        "batch": content.batch,
        "networks": described,
        "streams": {name: dataclasses.asdict(record) for name, record in content.streams.items()},
        "fusion": content.fusion and content.fusion.to_json(),
        "origin": dict(content.origin),
        "product_share": content.product_share,
        "right_level": content.right_level,
        "default": content.default,
    }
    if any(part_pictures := content.part_pictures or ()):
        data["part_pictures"] = [p and base64.b64encode(p).decode() for p in part_pictures]
    try:
        data = json.loads(json.dumps(data, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: not plain values for JSON ({error})") from error
    _write(path, data, networks.of, "float32")


def copy_model(folder: str | Path, to: str | Path) -> None:
    """Writes a copy of a model folder, made if need be, with its parameters stored as float16.

    Parameters are rounded to 11 bits; what was rounded once stays so.

    Raises:
        ValueError: `folder` is no model, or a parameter is too large for half precision.
        OSError: the copy cannot be written; names the file.
    """
    networks = weights_of(folder).of
    data = files.read_json(Path(folder, MODEL))
    data.pop("checksum", None)
    _write(Path(to, MODEL), data, networks, "float16")


def _write(path: Path, data: dict[str, Any], networks: Mapping[str, Network], dtype: str) -> None:
    data["weights"] = {"sha256": "0" * 64, "size": 0, "dtype": dtype}
    modules = {type(network.module).__module__ for network in networks.values()}
    wanted = wanted_arrays(parse(data, str(path), declared(data, str(path), modules)), str(path))
    arrays: dict[str, Any] = {}
    for role, network in networks.items():
        flat = traverse_util.flatten_dict(dict(network.variables), sep="/")
        arrays |= {f"{role}/{name}": value for name, value in flat.items()}
    # What only training needs stays behind: the heads after the frame embedding.
    arrays = {name: np.asarray(jax.device_get(arrays[name])) for name in wanted if name in arrays}
    check_arrays(path, arrays, wanted)
    check_finite(path, arrays)
    with np.errstate(over="ignore"):  # becomes infinity, which is checked for
        arrays = {name: array.astype(stored(name, dtype)) for name, array in arrays.items()}
    check_finite(path, arrays, f" in {dtype}")
    path.parent.mkdir(parents=True, exist_ok=True)
    weights_path = path.with_name(WEIGHTS)
    parameters.write_safetensors(weights_path, arrays)
    data["weights"]["sha256"] = files.checksum(weights_path)
    data["weights"]["size"] = weights_path.stat().st_size
    files.write_json(path, with_checksum(data))
    counts = dict.fromkeys(data["networks"], 0)
    for name, array in arrays.items():
        counts[name.split("/")[0]] += array.size if name.split("/")[1] == "params" else 0
    files.write_text(path.with_name(CARD), card(data, counts))


def card(data: Mapping[str, Any], parameters: Mapping[str, int], exported: str = "") -> str:
    """The model card, of the checked content of model.json and numbers of parameters.

    No folder of the machine gets onto it, and what the model says is plain text in it.
    """
    origin, fusion = origin_of(data["origin"]), data["fusion"]
    prior = fusion and Weights.from_json(fusion).prior
    risks = []
    for name, record in data["streams"].items():
        if record.get("control") is not None:
            stream, control = streams.find(name), risk.Control(**record["control"])
            chosen = stream.settings(**record["settings"])
            risks.append(risk.decide(stream, chosen, record["risk"], control, prior).note(name))
    # In a fenced block nothing is markup but what ends it.
    variant = json.dumps(_plain(next(iter(data["procedure"]["variants"]))), ensure_ascii=False)
    values = {
        "text": _text,
        "origin": origin,
        "variant": variant.replace("`", "\\x60"),
        "components": ", ".join(map(_text, data["procedure"]["components"])),
        "untested": f"**{wrong_parts.UNTESTED}**" if origin.data.untested else "",
        "never_wrong": ", ".join(map(_text, origin.data.never_wrong)),
        "figures": headline.figures_of(record["test"] for record in data["streams"].values()),
        "recognises_by": recognises_by(data),
        "risks": risks,
        "networks": exported
        + ", ".join(f"{role} ({parameters[role]:,} parameters)" for role in data["networks"]),
    }
    return pages.template("card.md.jinja").render({**data, **values}) + "\n"


def _plain(value: Any) -> str:
    """One printable line, cut to a sensible length."""
    return "".join(c if c.isprintable() else "?" for c in str(value)[:200])


def _text(value: Any) -> str:
    """The same as text of Markdown, in which nothing is markup, and no address becomes a link."""
    return _MARKUP.sub(r"\\\g<0>", _plain(value))


def weights_of(folder: str | Path, modules: Collection[str] = ()) -> FlaxNetworks:
    """The networks of a model folder that holds weights; ValueError if it holds programs."""
    networks = read_model(folder, modules).networks
    if not isinstance(networks, FlaxNetworks):
        raise ValueError(f"{folder}: was exported and has no weights; give the model it came from")
    return networks
