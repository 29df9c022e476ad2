"""The model folder: `model.json` and the files it names, read with suspicion.

docs/recognise.md lists the fields. A model card, README.md, is written beside them and never read.
Nothing in the files is executed but the networks, and their sizes are checked before memory is
taken. A folder that is damaged, or whose files come from different runs, is refused: `model.json`
names the checksums of the others.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec

from stormpsr_jax import demo
from stormpsr_jax.base import files, installed, memory
from stormpsr_jax.base.errors import one_line
from stormpsr_jax.serving.content import Content, networks_field, parse

MODEL = "model.json"
MAX_JSON = 2**23  # bytes of model.json


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
            docs/recognise.md says; one line that names the file.
    """
    path = Path(folder) / MODEL
    if not Path(folder).is_dir():
        raise ValueError(f"{folder}: there is no such folder; a run leaves one in WORKDIR/model")
    check_regular(path)
    if path.stat().st_size > MAX_JSON:
        raise ValueError(f"{path}: has over {MAX_JSON:,} bytes, which no model.json has")
    data = files.read_json(path)
    if isinstance(data, dict) and "checksum" in data:
        if with_checksum(data)["checksum"] != data.pop("checksum"):
            raise ValueError(
                f"{path}: was damaged or changed: it differs from its checksum; copy the folder "
                'again, or delete the field "checksum" if the change is meant'
            )
    try:
        form: Any  # only now, as each needs what the other does without
        if networks_field(data, str(path)) == "weights":
            what = f"{folder}: a model as a run leaves it (not an ONNX export, docs/recognise.md)"
            installed.check_extra("", ["jax", "flax", "optax", "safetensors"], what)
            from stormpsr_jax.serving import weights_file

            form = weights_file
        else:
            from stormpsr_jax.serving import onnx_networks

            form = onnx_networks
        content = parse(data, str(path), form.declared(data, str(path)))
    except ValueError as error:
        raise ValueError(one_line(str(error), 400)) from error
    return dataclasses.replace(content, networks=form.read(path, data, content))


# --- Its files ------------------------------------------------------------------------------------


class FileEntry(msgspec.Struct, forbid_unknown_fields=True):
    """What model.json says of a file: the SHA-256 of its content, and its size in bytes."""

    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    size: Annotated[int, msgspec.Meta(ge=0, le=2**48)]


def with_checksum(content: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with the checksum of its fields, in place of one that it may have."""
    rest = {key: value for key, value in content.items() if key != "checksum"}
    text = json.dumps(rest, sort_keys=True)
    return rest | {"checksum": hashlib.sha256(text.encode()).hexdigest()}


def check_checksum(state: Mapping[str, Any]) -> None:
    """Raises ValueError if a saved state is not as `with_checksum` has left it."""
    if state.get("checksum") != with_checksum(state)["checksum"]:
        raise ValueError("the saved state is damaged (its checksum is of another one)")


def check_regular(path: Path) -> None:
    """Raises ValueError unless this is a file itself, not a link to one, a pipe or a device."""
    if not os.path.lexists(path):
        raise ValueError(
            f"{path}: is missing; give the folder of a model, which a run leaves in WORKDIR/model"
        )
    files.check_regular(path, "copy the model's own file there", links=False)


def read_file(path: Path, declared: Mapping[str, Any], times: int = 1) -> bytes:
    """Returns the content of a file that model.json names, which takes `times` its size in memory.

    Raises:
        ValueError: it is not that file, or cannot be read.
    """
    check_regular(path)
    again = "copy the folder again, or run the same command again"
    size = path.stat().st_size
    if size != declared["size"]:
        raise ValueError(
            f"{path}: has {size:,} bytes, {MODEL} says {declared['size']:,}: it is damaged, or the "
            f"two come from different runs; {again}"
        )
    try:
        memory.check_fits(times * size, str(path))
        data = path.read_bytes()
    except (OSError, MemoryError) as error:
        raise ValueError(one_line(f"{path}: cannot be read ({error})")) from error
    if hashlib.sha256(data).hexdigest() != declared["sha256"]:
        raise ValueError(
            f"{path}: is not the file whose checksum {MODEL} names: it is damaged, or the two "
            f"come from different runs; {again}"
        )
    return data
