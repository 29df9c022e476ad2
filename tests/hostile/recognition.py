"""The families of attempts on what recognition reads: scores and weights of the fusion, states.

A damaged number that the file's form lets pass is told by a checksum in scores (that of the zip
format) and in saved states. The weights in fusion.json have theirs in the run that made them, and
here it is enough that nothing breaks.
"""

import dataclasses
import functools
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from stormpsr_jax import evaluate, load_model
from stormpsr_jax.live import station
from stormpsr_jax.live.capture import Clock
from stormpsr_jax.psr.streams.stream import OnlineDecoder
from stormpsr_jax.serving.files.unit import Reset
from tests.hostile.damage import change_json, choose, craft_arrays, damage
from tests.hostile.processes import MEMORY, call, made_once, reported
from tests.hostile.runs import LIMIT, Found
from tests.support.live_data import Script

BEFORE, AFTER = 30, 30  # pictures before a state is saved, and after it was read


# --- Scores and weights of the learned fusion -----------------------------------------------------


def damaged_scores(rng: random.Random, place: Path, base: Path) -> Found:
    """The scores of a recording, of which `evaluate` makes the learned stream."""
    return _of_fusion(rng, place, base, "scores")


def damaged_fusion(rng: random.Random, place: Path, base: Path) -> Found:
    """The weights of the learned fusion, which `evaluate` is given."""
    return _of_fusion(rng, place, base, "fusion.json")


def _of_fusion(rng: random.Random, place: Path, base: Path, what: str) -> Found:
    run = base / "run"
    shutil.copytree(run / "predictions" / "test" / "scores", place / "scores")
    shutil.copy(run / "fuse" / "fusion.json", place)
    words = [f"--procedure={run / 'data' / 'procedure.json'}", f"--scores={place / 'scores'}"]
    words += [f"--labels={run / 'data' / 'labels' / 'test'}", f"--fusion={place / 'fusion.json'}"]
    whole = made_once(
        base / "fusion", lambda folder: evaluate.main([*words, f"--out={folder / 'out.json'}"])
    )
    path = place / what
    path = choose(rng, [path]) if path.is_dir() else path
    crafted = rng.random() < 0.4
    if not crafted:
        way = damage(rng, path, place.parent / "beside" / "file")
    elif path.suffix == ".json":
        way = change_json(rng, path)
    else:
        way = craft_arrays(rng, path)
    result = place / "out.json"
    function = functools.partial(evaluate.main, [*words, f"--out={result}"])
    outcome = call(function, place, LIMIT, 2 * MEMORY)
    has_checksum = what == "scores" and not crafted and not outcome.code
    sound = not has_checksum or result.read_bytes() == (whole / "out.json").read_bytes()
    return f"{path.name}: {way}", outcome.judged([path.stem], sound), outcome.output


# --- Saved states ---------------------------------------------------------------------------------


def damaged_state(rng: random.Random, place: Path, base: Path) -> Found:
    """A state that was saved in the middle of an assembly, from which recognition goes on."""
    saved = made_once(base / "state", lambda folder: _write_states(base, folder))
    stream = rng.choice(("temporal", "storm", "learned"))
    path = place / "state.json"
    shutil.copy(saved / f"{stream}.json", path)
    crafted = rng.random() < 0.5
    if crafted:
        way = change_json(rng, path)
        if rng.random() < 0.8:
            path.write_text(json.dumps(station.sealed(json.loads(path.read_text()))))
            way += ", sealed"
    else:
        way = damage(rng, path, place.parent / "beside" / "file")
    function = reported(lambda: print(_goes_on(base, stream, path)))
    outcome = call(function, place, LIMIT, 2 * MEMORY)
    sound = crafted or way in ("removed", "a broken link")  # it begins anew
    sound = sound or outcome.output.strip() == (saved / f"{stream}.txt").read_text().strip()
    return f"{stream}: {way}", outcome.judged([path.name], sound), outcome.output


def _write_states(base: Path, folder: Path) -> None:
    for stream in ("temporal", "storm", "learned"):
        path = folder / f"{stream}.json"
        _station(base, stream, path)(range(BEFORE))
        copy = folder / f"{stream}_copy.json"
        shutil.copy(path, copy)
        (folder / f"{stream}.txt").write_text(_goes_on(base, stream, copy))


def _goes_on(base: Path, stream: str, path: Path) -> str:
    """What is told of the pictures after those of the saved state."""
    lines = _station(base, stream, path)(range(BEFORE, BEFORE + AFTER))
    of_the_clock = ("wall_time", "latency_ms")
    timeless = [{k: v for k, v in line.items() if k not in of_the_clock} for line in lines]
    return "\n".join(json.dumps(line) for line in timeless if line["type"] != "status")


def _station(base: Path, stream: str, path: Path) -> Callable[[range], list[dict]]:
    """A function that takes pictures, and goes on from a saved state if there is one."""
    model = load_model(base / "run" / "model")
    variant = next(iter(model.procedure.variants))
    live = model.live(variant, stream, settings=_restless(model.decoder(stream, variant)))
    lines: list[dict] = []
    one = station.Station(
        live,
        "camera",
        clock=Clock(model.fps, 0.0),
        reset=Reset(),
        state=path,
        tell=lambda line: lines.append(json.loads(line)),
    )
    one.restore()
    rng = np.random.default_rng(0)
    size = (BEFORE + AFTER, 4, 4, 3)
    shown = rng.integers(0, 256, size, np.uint8).repeat(8, 1).repeat(8, 2)

    def run(numbers: range) -> list[dict]:
        # Stopped, as by a signal: the unit goes on at the next start.
        capture, stop = Script([(i / model.fps, shown[i]) for i in numbers]), []
        capture.before = lambda script: stop.append(1) if not script.shown[1:] else None
        one.run(capture, stop)
        return lines

    return run


def _restless(decoder: OnlineDecoder):
    """Settings with which even a network that has learned little finds steps."""
    changes = (
        {"install": -2.0, "remove": 2.0} if decoder.stream == "learned" else {"threshold": 0.1}
    )
    return dataclasses.replace(decoder.settings, **changes)
