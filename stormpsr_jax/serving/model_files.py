"""The files of a model folder, each of which `model.json` names with its size and checksum."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec

from stormpsr_jax.base import files, memory
from stormpsr_jax.base.errors import one_line

MODEL = "model.json"


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
