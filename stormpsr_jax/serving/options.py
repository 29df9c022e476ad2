"""What the command line of `recognise` says about the model, for files and live sources alike."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stormpsr_jax.base.errors import for_each, tell
from stormpsr_jax.psr import advice, cli, streams
from stormpsr_jax.psr.accumulation import Settings
from stormpsr_jax.serving.model import Model


def note_of_product(model: Model, folder: Path) -> None:
    """Says on stderr that a model cannot tell its product from others, and why, if it cannot.

    Nor can one of renders alone tell right from incorrect on film as it does on renders.
    """
    if streams.find(model.default_stream).fitted:
        for what in advice.untaught(model.fusion, model.procedure.components):
            tell("note", f"{folder}: {what}")
    if model.product_share().of_model is not None:
        return
    why = "it has no detector"
    if "asd" in model.streams:
        why = "no validation recording of a camera says how often its detector sees it"
    tell("note", f"{folder}: this model cannot tell whether pictures show its product: {why}")
    if "asd" in model.streams and model.right_level and not model.for_camera:
        what = (
            f"{folder}: not calibrated for this camera, so what is right or incorrect is less sure"
        )
        tell("note", f"{what}: stormpsr camera --model={folder} VIDEO… --out=DIR")


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
            what = streams.find(stream).look.threshold or "summed evidence"
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
