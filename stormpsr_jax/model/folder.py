"""The model folder: `model.json` and `weights.safetensors`, written whole, read with suspicion.

docs/model.md describes every field. A model card, README.md, is written beside them and never read.
Nothing in the files is executed, and their sizes are checked before memory is taken. A folder that
is damaged, or whose two files come from different runs, is refused: `model.json` names the checksum
of the weights.

Dimension letters: B batch, T frames of a clip, H W image, D features, K components, S states.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors
from flax import traverse_util

import stormpsr_jax
from stormpsr_jax import demo
from stormpsr_jax.base import files, memory
from stormpsr_jax.base.mistakes import one_line, visible
from stormpsr_jax.model.card import CARD, card
from stormpsr_jax.model.content import (
    FORMAT,
    Content,
    Network,
    Pictures,
    StreamRecord,
    Window,
    parse,
)
from stormpsr_jax.model.fits import Fits
from stormpsr_jax.models import architectures
from stormpsr_jax.psr.procedure import Procedure
from stormpsr_jax.psr.streams.learned_weights import Weights
from stormpsr_jax.psr.streams.rules import plain
from stormpsr_jax.weights import parameters, torch_files

MODEL, WEIGHTS = "model.json", "weights.safetensors"
MAX_JSON = 2**23  # bytes of model.json


# --- Writing --------------------------------------------------------------------------------------


def write_model(
    folder: str | Path,
    *,
    procedure: Procedure,
    fps: float,
    pictures: Pictures | None,
    window: Window,
    networks: Mapping[str, Network],
    max_detections: int,
    streams: Mapping[str, StreamRecord],
    origin: Mapping[str, Any],
    batch: int = 64,
    fusion: Weights | None = None,
    dtype: str = "float32",
    fits: Fits | None = None,
) -> None:
    """Writes a model folder, or replaces the one that is there.

    Each file appears whole, the weights first and the model card last. Who reads in between finds
    weights that are not those that model.json names, which is an error.

    Args:
        folder: made if there is none.
        procedure: the product.
        fps: frames per second of the videos.
        pictures: what the networks see; None for a model on ready-made embeddings.
        window: what the temporal network sees.
        networks: by role: "encoder", "temporal", "detector".
        max_detections: M, rows of the detector per picture.
        streams: by name, of `streams.STREAMS`.
        origin: where the model comes from, plain values for JSON.
        batch: rows computed at once unless asked otherwise; with that of stage `predict` the
            networks round as they did there.
        fusion: weights of the learned fusion, if that is among the streams.
        dtype: that parameters are stored in: "float32", or "float16", which is half as large.
        fits: by what it tells pictures of its own kind from others; None cannot.

    Raises:
        ValueError: what `read_model` would refuse.
        OSError: it cannot be written; names the file.
    """
    path = Path(folder, MODEL)
    if unknown := [role for role in networks if role not in architectures.ROLES]:
        raise ValueError(f"networks: {unknown} are none of {', '.join(architectures.ROLES)}")
    modules = {role: network.module for role, network in networks.items()}
    data = {
        "format": FORMAT,
        "package_version": stormpsr_jax.__version__,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "procedure": procedure.to_json(),
        "fps": fps,
        "pictures": None if pictures is None else _plain(pictures),
        "embedding": None if pictures else _embedding(networks, window),
        "window": _plain(window),
        "max_detections": max_detections,
        "batch": batch,
        "networks": {role: architectures.describe(module) for role, module in modules.items()},
        "streams": {name: _plain(record) for name, record in streams.items()},
        "fusion": None if fusion is None else fusion.to_json(),
        "origin": dict(origin),
        "fits": None if fits is None else fits.to_json(),
    }
    try:
        data = json.loads(json.dumps(data, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: not plain values for JSON ({error})") from error
    _write(path, data, networks, dtype)


def copy_model(folder: str | Path, to: str | Path, *, dtype: str, fits: Fits | None = None) -> None:
    """Writes a copy of a model folder with its parameters stored in another type.

    Args:
        folder: of the model.
        to: of the copy; made if there is none.
        dtype: as in `write_model`. Half precision rounds parameters to 11 bits; what was rounded
            once stays so.
        fits: in place of the model's own; None keeps that.

    Raises:
        ValueError: `folder` is no model, or a parameter is too large for half precision.
        OSError: the copy cannot be written; names the file.
    """
    networks = read_model(folder).networks
    data = files.read_json(Path(folder, MODEL))
    data.pop("checksum", None)
    if fits is not None:
        data["fits"] = fits.to_json()
    _write(Path(to, MODEL), data, networks, dtype)


def _write(path: Path, data: dict[str, Any], networks: Mapping[str, Network], dtype: str) -> None:
    """Writes both files; `data` is the content of model.json without what is known of weights."""
    data["weights"] = {"sha256": "0" * 64, "size": 0, "dtype": dtype}
    wanted = _wanted_arrays(parse(data, str(path)), str(path))
    arrays: dict[str, Any] = {}
    for role, network in networks.items():
        flat = traverse_util.flatten_dict(dict(network.variables), sep="/")
        arrays |= {f"{role}/{name}": value for name, value in flat.items()}
    # What only training needs stays behind: the heads after the frame embedding.
    arrays = {name: np.asarray(jax.device_get(arrays[name])) for name in wanted if name in arrays}
    _check_arrays(path, {n: (a.dtype.name, a.shape) for n, a in arrays.items()}, wanted)
    _check_finite(path, arrays)
    with np.errstate(over="ignore"):  # becomes infinity, which is checked for
        arrays = {name: array.astype(_stored(name, dtype)) for name, array in arrays.items()}
    _check_finite(path, arrays, f" in {dtype}")
    path.parent.mkdir(parents=True, exist_ok=True)
    weights_path = path.with_name(WEIGHTS)
    parameters.write_safetensors(weights_path, arrays)
    data["weights"]["sha256"] = files.checksum(weights_path)
    data["weights"]["size"] = weights_path.stat().st_size
    files.write_json(path, {**data, "checksum": _checksum(data)})
    counts = dict.fromkeys(data["networks"], 0)
    for name, array in arrays.items():
        counts[name.split("/")[0]] += array.size if name.split("/")[1] == "params" else 0
    files.write_text(path.with_name(CARD), card(data, counts))


def _stored(name: str, dtype: str) -> np.dtype:
    """The type that an array is stored in: statistics, which are few, keep their precision."""
    return np.dtype(dtype if name.split("/")[1] == "params" else "float32")


def _checksum(data: Mapping[str, Any]) -> str:
    """The SHA-256 of the other fields of model.json."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _plain(value: Any) -> dict[str, Any]:
    """A dataclass as JSON has it."""
    return dataclasses.asdict(value, dict_factory=plain)


def _embedding(networks: Mapping[str, Network], window: Window) -> int:
    """D of ready-made embeddings, from the parameters of the temporal network."""
    if "temporal" not in networks:
        raise ValueError("networks: without pictures there has to be a temporal one")
    module, variables = networks["temporal"].module, networks["temporal"].variables
    try:
        return module.embedding_width(variables["params"], window.num_frames)
    except (KeyError, AttributeError) as error:
        raise ValueError(
            f"networks.temporal: the variables are not those of a {type(module).__name__}: no "
            f"{error}"
        ) from error


# --- Reading --------------------------------------------------------------------------------------


def model_folder(word: str | os.PathLike) -> Path:
    """Returns the folder of the model that is meant by a model folder, a work folder or "demo".

    Raises:
        ValueError: see `demo.model_folder`.
    """
    folder = demo.model_folder(word)
    inside = folder / "model"
    return inside if inside.is_dir() and not (folder / MODEL).exists() else folder


def read_model(folder: str | Path) -> Content:
    """Reads a model folder.

    Raises:
        ValueError: it is absent, damaged, of a newer format, or holds anything that is not as
            docs/model.md says; one line that names the file.
    """
    path = Path(folder) / MODEL
    if not Path(folder).is_dir():
        raise ValueError(f"{folder}: there is no such folder; a run leaves one in WORKDIR/model")
    _check_regular(path)
    if path.stat().st_size > MAX_JSON:
        raise ValueError(f"{path}: has over {MAX_JSON:,} bytes, which no model.json has")
    data = files.read_json(path)
    if isinstance(data, dict) and "checksum" in data:
        declared = data.pop("checksum")
        if declared != _checksum(data):
            raise ValueError(
                f"{path}: was damaged or changed: it differs from its checksum; copy the folder "
                'again, or delete the field "checksum" if the change is meant'
            )
    try:
        content = parse(data, str(path))
    except ValueError as error:
        raise ValueError(one_line(str(error), 400)) from error
    wanted = _wanted_arrays(content, str(path))
    arrays = _read_weights(Path(folder) / WEIGHTS, data["weights"], wanted, content.dtype)
    trees = traverse_util.unflatten_dict(arrays, sep="/")
    networks = {
        role: Network(network.module, trees[role]) for role, network in content.networks.items()
    }
    return dataclasses.replace(content, networks=networks)


def _check_regular(path: Path) -> None:
    """Raises ValueError unless this is a file itself, not a link to one, a pipe or a device."""
    if not os.path.lexists(path):
        raise ValueError(
            f"{path}: is missing; give the folder of a model, which a run leaves in WORKDIR/model"
        )
    files.check_regular(path, "copy the model's own file there", links=False)


def _read_weights(
    path: Path, declared: Mapping[str, Any], wanted: Mapping[str, jax.ShapeDtypeStruct], dtype: str
) -> dict[str, np.ndarray]:
    """The arrays of a weights file, each as wanted; parameters are stored as `dtype`."""
    _check_regular(path)
    size = path.stat().st_size
    if size != declared["size"]:
        raise ValueError(
            f"{path}: has {size:,} bytes, {MODEL} says {declared['size']:,}: it is damaged, or the "
            "two come from different runs; copy the folder again, or run the same command again"
        )
    stored = {n: jax.ShapeDtypeStruct(a.shape, _stored(n, dtype)) for n, a in wanted.items()}
    needed = sum(a.size * a.dtype.itemsize for a in stored.values())
    if needed > size:
        raise ValueError(f"{path}: has {size:,} bytes, but the networks need {needed:,}")
    try:
        # The file, its arrays, and those that half precision becomes.
        memory.check_fits((2 if dtype == "float32" else 4) * size, str(path))
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != declared["sha256"]:
            raise ValueError(
                f"{path}: is not the file whose checksum {MODEL} names: it is damaged, or the two "
                "come from different runs; copy the folder again, or run the same command again"
            )
        found = dict(safetensors.deserialize(data))
    except (safetensors.SafetensorError, OSError, MemoryError) as error:
        raise ValueError(one_line(f"{path}: cannot be read ({error})")) from error
    for name, entry in found.items():
        entry["dtype"] = torch_files.check_dtype(path, name, entry["dtype"])
    _check_arrays(path, {n: (e["dtype"].name, e["shape"]) for n, e in found.items()}, stored)
    arrays = {
        name: np.frombuffer(entry["data"], entry["dtype"])
        .reshape(entry["shape"])
        .astype(wanted[name].dtype, copy=False)
        for name, entry in found.items()
    }
    _check_finite(path, arrays)
    return arrays


def _check_arrays(
    path: Path,
    found: Mapping[str, tuple[str, Any]],
    wanted: Mapping[str, jax.ShapeDtypeStruct],
) -> None:
    """Raises ValueError unless the arrays, by name (type, shape), are those wanted."""
    missing = [name for name in wanted if name not in found]
    unexpected = [visible(name[:80]) for name in found if name not in wanted]
    if missing or unexpected:
        what = [
            f"{word}: {', '.join(names[:5])}"
            + (f" and {len(names) - 5} more" if len(names) > 5 else "")
            for word, names in (("missing", missing), ("unexpected", unexpected))
            if names
        ]
        raise ValueError(f"{path}: the arrays do not fit the networks; {'; '.join(what)}")
    for name, array in wanted.items():
        have = (found[name][0], tuple(found[name][1]))
        if have != (array.dtype.name, array.shape):
            raise ValueError(
                f"{path}: {name} is {have[0]} {have[1]}, the network needs {array.dtype.name} "
                f"{array.shape}"
            )


def _check_finite(path: Path, arrays: Mapping[str, np.ndarray], where: str = "") -> None:
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ValueError(f"{path}: {name} holds numbers that are not finite{where}")


def _wanted_arrays(content: Content, place: str) -> dict[str, jax.ShapeDtypeStruct]:
    """The arrays that the networks need, by names such as encoder/params/first_head/dense/bias."""
    wanted: dict[str, jax.ShapeDtypeStruct] = {}
    for role, network in content.networks.items():
        try:
            shape = content.input_shape(role, 1)
            shapes = architectures.variable_shapes(network.module, shape)
            memory.check_fits(architectures.cost(network.module, shape).largest, "one row")
        except (ValueError, MemoryError) as error:
            raise ValueError(one_line(f"{place}: networks.{role}: {error}", 400)) from error
        wanted |= {f"{role}/{name}": array for name, array in shapes.items()}
    return wanted
