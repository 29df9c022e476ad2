"""The model folder: `model.json` and the files it names, read with suspicion.

Nothing in the files is executed but the networks, and their sizes are checked before memory is
taken. A folder that is damaged, or whose files come from different runs, is refused: `model.json`
names the checksums of the others.
"""

import dataclasses
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from stormpsr_jax import demo
from stormpsr_jax.base import files, installed
from stormpsr_jax.base.errors import one_line
from stormpsr_jax.serving.content import (
    MODEL,
    Content,
    check_regular,
    networks_field,
    parse,
    with_checksum,
)

MAX_JSON = 2**23  # bytes of model.json


def model_folder(word: str | os.PathLike) -> Path:
    """Returns the folder of the model that is meant by a model folder, a work folder or "demo".

    Raises:
        ValueError: see `demo.model_folder`.
    """
    folder = demo.model_folder(word)
    inside = folder / "model"
    return inside if inside.is_dir() and not (folder / MODEL).exists() else folder


def read_model(folder: str | Path, modules: Collection[str] = ()) -> Content:
    """Reads a model folder; `modules`: see `load_model`.

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
        named: tuple
        if networks_field(data, str(path)) == "weights":
            what = f"{folder}: a model as a run leaves it (not an ONNX export, docs/recognise.md)"
            installed.check_extra("", ["jax", "flax", "optax", "safetensors"], what)
            from stormpsr_jax.serving import functions

            form, named = functions, (modules,)
        else:
            from stormpsr_jax.serving import onnx_networks

            form, named = onnx_networks, ()
        content = parse(data, str(path), form.declared(data, str(path), *named))
    except ValueError as error:
        raise ValueError(one_line(str(error), 400)) from error
    return dataclasses.replace(content, networks=form.read(path, data, content))
