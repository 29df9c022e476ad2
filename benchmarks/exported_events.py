"""What the forms of a model recognise on the same pictures, compared with the model itself.

Part of `benchmarks.exported`. Dimension letters: N frames.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from stormpsr_jax import demo
from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.media import sources
from stormpsr_jax.media.pictures import read_upright
from stormpsr_jax.psr.files import label_files
from stormpsr_jax.psr.scoring import metrics
from stormpsr_jax.serving.content import Function
from stormpsr_jax.serving.model import Model, load_model
from stormpsr_jax.serving.recogniser import Recognised, Recogniser, decode_row, stack

OURS = "jax"  # the form that the others are compared with
FIGURES = {"pos": 0.005, "f1": 0.005, "delay_s": 0.1}  # and by how much those of int8 may differ
OUTPUTS = 1e-5  # by which those of float32 may differ, and logits by that share of the largest


def recordings(model: Model, workdir: Path | None) -> Iterator[tuple[str, list, Path]]:
    """(name, prepared pictures, truth of it) of the demo video, or of a run's test split."""
    if workdir is None:
        opened = sources.open_source(demo.VIDEO).open(model.fps)
        rows = [model.prepare(picture) for picture in read_upright(opened)]
        yield "demo", rows, demo.LABELS / "demo.csv"
        return
    folder = Path(model.origin["config"]["data.dir"] or workdir / "data")
    source = ClipSource(folder, "test", model.procedure)
    for name in sorted(source.recordings):
        rows = [model.prepare(one) for _, images in source.chunks(name, 64) for one in images]
        yield name, rows, folder / "labels" / "test" / name


def look(model: Model, rows: Sequence) -> tuple[list[Recognised], list[np.ndarray]]:
    """What a form says of prepared pictures, a batch at a time, and all outputs of its networks.

    Boxes are left out: which of two equal ones is the best may turn out either way.
    """
    outputs: list[np.ndarray] = []

    def kept(name: str, function: Function) -> Function:
        def run(x: np.ndarray) -> Any:
            found = function(x)
            outputs.extend(jax.tree.leaves(found[2:] if name == "detect" else found))
            return found

        return run

    made = model._functions_at(model.batch)
    functions = {name: kept(name, made[name]) for name in made}
    recogniser = Recogniser(
        encode=functions.get("encode"),
        temporal=functions.get("temporal"),
        detect=functions.get("detect"),
        frames=model.window.frames,
        stride=model.window.stride,
    )
    starts = range(0, len(rows), model.batch)
    return [recogniser(stack(rows[i : i + model.batch])) for i in starts], outputs


def _events(model: Model, found: Sequence[Recognised], stream: str, name: str) -> list:
    decoder = model.decoder(stream, recording=name)
    # Of a model with a temporal network.
    rows = ((chunk, i) for chunk in found for i in range(len(chunk.probabilities)))
    return sorted(
        event for frame, row in enumerate(rows) for event in decode_row(decoder, frame, *row)
    )


def _differ(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> float:
    """The largest difference of an output; of logits, which can be tens, that share of them."""
    apart = [
        float(np.abs(one.astype(np.float64) - other).max(initial=0))
        / max(1.0, float(np.abs(one).max(initial=0)))
        for one, other in zip(ours, theirs, strict=True)
    ]
    return max(apart)


def compare(models: Mapping[str, Model], name: str, rows: Sequence, truth: Path) -> dict[str, Any]:
    """What the forms make of a recording.

    Returns:
        By form: "differs", the largest difference of an output; "fits", whether the pictures are
        found to be of the product; and by stream the events (frame, step id), their number of
        "others" (in one list alone, by step and order), how many "frames" the same ones are apart
        at most, and the scores.
    """
    looked = {form: look(model, rows) for form, model in models.items()}
    ours = models[OURS]
    variant = ours.procedure.variant_for(name, None)
    said = label_files.read(truth, ours.procedure.at(ours.fps), variant)
    told: dict[str, Any] = {}
    for form, model in models.items():
        product = model.product_share()
        found, outputs = looked[form]
        for chunk in found:
            product.update(chunk)
        told[form] = entry = {"differs": _differ(looked[OURS][1], outputs), "fits": product.fits}
        entry["streams"] = {}
        for stream in model.streams:
            events = _events(model, found, stream, name)
            scores = metrics.score_recording(said.steps, metrics.scored(events), model.fps)
            plain = [(event.frame, event.step_id) for event in events]
            reference = told[OURS]["streams"][stream]["events"] if form != OURS else plain
            others, frames = _apart(reference, plain)
            entry["streams"][stream] = {
                "events": plain,
                "others": others,
                "frames": frames,
                **{key: scores[key] for key in FIGURES},
            }
    return told


def _apart(ours: Sequence, theirs: Sequence) -> tuple[int, int]:
    """How many events only one of two has, and by how many frames those of both differ at most."""
    frames: dict[int, list[list[int]]] = {}
    for side, events in enumerate((ours, theirs)):
        for frame, step in events:
            frames.setdefault(step, [[], []])[side].append(frame)
    others = sum(abs(len(a) - len(b)) for a, b in frames.values())
    both = (zip(a, b, strict=False) for a, b in frames.values())
    return others, max((abs(a - b) for pairs in both for a, b in pairs), default=0)


def of_recordings(
    folders: Mapping[str, Path],
    workdir: Path | None,
    done: dict[str, Any],
    save: Callable[[], None],
) -> None:
    """Adds each recording to `done`, by name, unless it is there; saves it and prints a line."""
    models = {form: load_model(folder) for form, folder in folders.items()}
    for name, rows, truth in recordings(models[OURS], workdir):
        if name not in done:
            done[name] = compare(models, name, rows, truth)
            save()
        parts = []
        for form, entry in done[name].items():
            streams = entry["streams"].values()
            others, frames = sum(s["others"] for s in streams), max(s["frames"] for s in streams)
            same = "the same" if not others and not frames else f"{others} others, {frames} frames"
            count = sum(len(stream["events"]) for stream in streams)
            parts.append(f"{form} {count} events" if form == OURS else f"{form} {same}")
        print(f"{name}: {'; '.join(parts)}", flush=True)


def table(done: Mapping[str, Any]) -> list[str]:
    """The rows of a table of what `of_recordings` has found, by form and stream."""
    lines = [
        "| form | stream | recordings, in how many other events | frames apart | POS | F1 "
        "| delay s | outputs differ by | met |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    some = next(iter(done.values()))

    def mean(form: str, stream: str, key: str) -> float:
        values = [entry[form]["streams"][stream][key] for entry in done.values()]
        return statistics.fmean([value for value in values if value is not None] or [0.0])

    for form in some:
        differs = max(entry[form]["differs"] for entry in done.values())
        for stream in some[form]["streams"]:
            rows = [entry[form]["streams"][stream] for entry in done.values()]
            changed = sum(bool(row["others"] or row["frames"]) for row in rows)
            means = {key: mean(form, stream, key) for key in FIGURES}
            met = "" if form == OURS else "yes"
            if form == "int8":
                near = [abs(means[k] - mean(OURS, stream, k)) <= FIGURES[k] for k in FIGURES]
                met = "yes" if all(near) else "NO"
            elif changed or differs > OUTPUTS:
                met = "NO"
            frames = max(row["frames"] for row in rows)
            figures = " | ".join(f"{value:.4f}" for value in means.values())
            lines.append(
                f"| {form} | {stream} | {len(rows)}, {changed} | {frames} | {figures} | "
                f"{differs:.1e} | {met} |"
            )
    return lines
