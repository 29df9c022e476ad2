"""The model folder: `model.json` and the files it names, read with suspicion.

Nothing in the files is executed but the networks, and their sizes are checked before memory is
taken. A folder that is damaged, or whose files come from different runs, is refused: `model.json`
names the checksums of the others.
"""

import dataclasses
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from stormpsr_jax import demo
from stormpsr_jax.base import files, installed
from stormpsr_jax.base.errors import for_each, one_line, tell
from stormpsr_jax.psr import advice, cli, streams
from stormpsr_jax.psr.accumulation import Settings
from stormpsr_jax.serving.content import (
    MODEL,
    Content,
    check_regular,
    networks_field,
    parse,
    with_checksum,
)
from stormpsr_jax.serving.model import Model

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


def load_model(folder: str | Path, modules: Collection[str] = ()) -> Model:
    """Loads the model that a run has left in its work folder; docs/recognise.md says how to use it.

    `folder` is that of the model, or the work folder that has it in `model`; the text "demo" is the
    one that ships with the package. Nothing in the folder is executed. `modules` are those that may
    be imported for a temporal network of your own: nothing else has code imported.

    Raises:
        ValueError: absent, damaged, of a newer format, or not what docs/recognise.md describes; one
            line that names the file. Or the text is "demo", and there is a model in a folder of
            that name.
    """
    return Model(read_model(model_folder(folder), modules))


# --- What the command line says of it, for files and live sources ---------------------------------


def note_of_product(model: Model, folder: Path) -> None:
    """Says on stderr that a model cannot tell its product from others, and why, if it cannot.

    Nor can one of renders alone tell right from incorrect on video as it does on renders.
    """
    if streams.find(model.default_stream).fitted:
        for line in advice.untaught(model.fusion, model.procedure.components):
            tell("note", f"{folder}: {line}")
    if model.product_share().of_model is not None:
        return
    why = "it has no detector"
    if "asd" in model.streams:
        why = "no validation recording of a camera says how often its detector sees it"
    tell("note", f"{folder}: this model cannot tell whether pictures show its product: {why}")
    if "asd" in model.streams and model.right_level and not model.for_camera:
        line = (
            f"{folder}: not calibrated for this camera, so what is right or incorrect is less sure"
        )
        tell("note", f"{line}: stormpsr camera --model={folder} VIDEO… --out=DIR")


def settings(
    model: Model,
    stream: str | None,
    threshold: Mapping[str, float] | None,
    risk: float | None = None,
) -> tuple[str, Any]:
    """The stream to decode and its settings with --threshold and --risk.

    A threshold without a risk is meant as it is: without a bar for installations.

    Raises:
        ValueError: it names the flag.
    """
    try:
        chosen = model.decide(stream, 1.0 if threshold is not None and risk is None else risk)
    except ValueError as error:
        raise ValueError(f"--stream: {error}") from error
    stream = stream or model.default_stream
    if risk is not None and risk < 1 and chosen.bound is None:
        tell("warning", f"--risk={risk:g}: {chosen.note(stream)}")
    settings = chosen.settings
    if threshold is not None:
        if stream not in threshold:
            alone = ", ".join(s.name for s in streams.STREAMS if s.settings is Settings)
            what = streams.find(stream).appearance.threshold or "summed evidence"
            raise ValueError(
                f"--threshold has none for stream {stream}, which is decoded: give --threshold="
                f"{stream}=T ({what}), or another --stream; a number alone is for {alone}"
            )
        if getattr(settings, "decoder", None) == "naive":
            raise ValueError("--threshold: the model is decoded by 'naive', which has none")
        own = streams.find(stream)
        settings = cli.apply_flags(own, settings, {own.threshold: threshold[stream]})
    return stream, settings


def variants(model: Model, names: Sequence[str], variant: str | None) -> list[str]:
    """The variant of each recording: the one given, the only one, or the one its name says.

    Raises:
        ValueError: there is none; a line for each recording.
    """
    procedure = model.procedure
    if variant is None and len(procedure.variants) == 1:
        (variant,) = procedure.variants
    if variant is not None:
        return [procedure.variant_for("", variant).name] * len(names)
    return [found.name for found in for_each([(name,) for name in names], procedure.variant_for)]
