import hashlib
import json
from pathlib import Path

import pytest

from stormpsr_jax.serving.content import with_checksum
from stormpsr_jax.serving.exporting import export_model
from tests.support.made_once import made_once

FORMS = ("onnx", "int8")


def export(model: Path, out: Path, form: str) -> Path:
    export_model(model, out, int8=form == "int8")
    return out


def in_form(factory: pytest.TempPathFactory, form: str) -> Path:
    """The folder of the tiny model in one of FORMS, or as a run leaves it ("weights").

    All are of the same model, made once for all test processes.
    """
    from tests.support.model_data import write  # here, as it starts a device of JAX

    model = made_once(factory, "pump", write)
    if form == "weights":
        return model
    pytest.importorskip("jax2onnx", reason="pip install --no-deps jax2onnx (docs/recognise.md)")
    return made_once(factory, f"pump_{form}", lambda folder: export(model, folder, form))


def declare(folder: Path, *roles: str) -> None:
    """Makes model.json name the files that are there, as whoever means harm would."""
    path = folder / "model.json"
    data = json.loads(path.read_text())
    for role in roles or data["networks"]:
        content = (folder / f"{role}.onnx").read_bytes()
        named = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        data["networks"][role] |= named
    path.write_text(json.dumps(with_checksum(data)))
