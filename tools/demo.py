"""Makes the model and the video that ship with the package as `demo`, and README's animation.

    python -m tools.demo runs/synthetic

WORKDIR is a finished run on the synthetic assembly that has rendered its data itself. Of it come

* stormpsr_jax/demo/model: its model folder, with the parameters in half precision. It has to find
  the steps that the original finds on the run's test recordings, all but one of a hundred, within
  a second;
* stormpsr_jax/demo/demo.mp4 and labels/demo.csv: a recording of the same product that the run has
  not seen. It is the first one, in the order of their numbers, that shows what `stories` asks for,
  whose incorrect part the model finds, and of whose steps it misses and invents none;
* stormpsr_jax/demo/provenance.json: of what all this was made, and how well the model does;
* docs/demo.webp: the moments of the video that matter, as `recognise --video` draws them.

The same run and versions give the same files. Takes some minutes on 2 CPU cores.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import importlib.metadata
import itertools
import json
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import simplejpeg
from PIL import Image

from data_prep import synthetic
from data_prep.products.product import toy_product
from data_prep.rendering import ranges
from data_prep.worlds.hiding import OCCLUSIONS
from data_prep.worlds.motion import plan_recording
from data_prep.worlds.timelines import Timeline, changes, draw_timeline
from data_prep.writing.recording_shard import RecordingData
from stormpsr_jax import demo, recognise
from stormpsr_jax.base import files
from stormpsr_jax.base.progress import Bar
from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.psr import metrics, wrong_parts
from stormpsr_jax.recordings.label_file import LabelPlace
from stormpsr_jax.recordings.labels import states_to_steps
from stormpsr_jax.recordings.procedure import Procedure
from stormpsr_jax.serving.files import recording as recognised
from stormpsr_jax.serving.files.results import label_time
from stormpsr_jax.serving.folder import load_model
from stormpsr_jax.serving.model import Model
from stormpsr_jax.serving.writing import CARD, copy_model
from stormpsr_jax.stages import config_flag

ROOT = Path(__file__).parents[1]
SPLIT = "demo"  # no split of a run, so its recordings are new to all of them
OCCLUSION = "heavy"
SIZE, FPS = 480, 5  # pixels, frames per second of the video
X264 = {"preset": "medium", "crf": "27", "threads": "1"}  # of one thread, for the same bytes
MAX_BYTES = 6_000_000  # of all that ships
# What the video has to show. A hand that reaches less than this is out of the way.
SECONDS = (60, 120)
AWAY, AWAY_SECONDS = 0.1, 2.0
CLEAR, HIDDEN = 0.9, 0.5  # above and below these shares of the product that can be seen
# The animation: of each moment so many seconds before and after, faster than life.
BEFORE, AFTER, SPEED = 1.6, 1.2, 2
WEBP = {"quality": 60, "method": 4}
MAX_WEBP = 3_000_000


class Story(NamedTuple):
    """What a recording shows besides parts that are put on right; frames from 0 on.

    Attributes:
        wrong: (component, first frame at which it is incorrect, first at which it no longer is).
        undone: (component, first frame at which it is off, first at which it is on again).
    """

    wrong: tuple[int, int, int]
    undone: tuple[int, int, int]


def read_run(workdir: Path) -> dict[str, Any]:
    """The fields of a finished run's config, by name joined by dots; ValueError: it does not fit.

    The fields are those in the model folder, which are those that the model was made with.
    """
    config = load_model(workdir / "model").origin["config"]
    if "data" not in config["stages"]:
        raise ValueError(f"{workdir}: the run has not rendered recordings of its own")
    return config


def command(config: Mapping[str, Any]) -> str:
    """The command line of a run: the config that is nearest, and the fields that differ."""
    words = []
    for name in config_flag.shipped():
        module = importlib.import_module(f"stormpsr_jax.configs.{name}")
        own = config_flag.flat(config_flag.typed(module.get_config()))
        differ = {key: value for key, value in config.items() if own.get(key) != value}
        fields = [f"--config.{key}={value}" for key, value in differ.items()]
        words.append([f"--config={name}", *fields])
    nearest = min(words, key=len)
    return " ".join(["python -m stormpsr_jax.main", *nearest, "--workdir=WORKDIR"])


# --- The model ------------------------------------------------------------------------------------


def compare(whole: Model, half: Model, source: ClipSource) -> dict[str, Any]:
    """What both models find on recordings.

    ValueError if more than one event of a hundred is of one of them alone, or over a second apart.
    """
    keys = ("recordings", "events", "by_one_alone", "over_a_second_apart", "at_another_frame")
    counts = dict.fromkeys((*keys, "largest_shift_frames"), 0)
    largest = 0.0
    for name in Bar(iterable=sorted(source.recordings), desc="compare", unit="recording"):
        whole_events, half_events = (
            sorted(
                model.recognise(source.chunks(name, 64), recording=name),
                key=lambda event: (event.step_id, event.kind, event.frame),
            )
            for model in (whole, half)
        )
        counts["recordings"] += 1
        counts["events"] += len(whole_events)
        rest = [(event.step_id, event.kind) for event in half_events]
        for one in whole_events:
            step = (one.step_id, one.kind)
            if step not in rest:
                counts["by_one_alone"] += 1
                continue
            other = half_events.pop(at := rest.index(step))
            del rest[at]
            shift = abs(one.frame - other.frame)
            counts["at_another_frame"] += shift > 0
            counts["over_a_second_apart"] += shift > source.fps
            counts["largest_shift_frames"] = max(counts["largest_shift_frames"], shift)
            largest = max(largest, abs(one.confidence - other.confidence))
        counts["by_one_alone"] += len(half_events)
    if counts["by_one_alone"] + counts["over_a_second_apart"] > 0.01 * counts["events"]:
        raise ValueError(f"in half precision the model finds other steps: {counts}")
    return counts | {"largest_difference_of_confidence": round(largest, 4)}


# --- The video ------------------------------------------------------------------------------------


def tell(timeline: Timeline) -> Story | None:
    """The story of a timeline, if it is one: one part wrong, another one undone, all on at last."""
    wrong, undone, since = [], [], {}
    for frame, changed in changes(timeline):
        for k, (old, new) in changed.items():
            if old == -1:
                wrong.append((k, since[k], frame))
            if (old, new) == (1, 0):
                undone.append((k, frame))
            since[k] = frame
    again = {
        k: f for f, c in changes(timeline) for k, (old, new) in c.items() if (old, new) == (0, 1)
    }
    if len(wrong) != 1 or len(undone) != 1 or not (timeline.states[-1] == 1).all():
        return None
    (k, off) = undone[0]
    if wrong[0][0] == k:
        return None
    return Story(wrong[0], (k, off, again[k]))


def plan(name: str, procedure: Procedure, seed: int) -> Timeline:
    """What happens in a recording."""
    return draw_timeline(procedure, ranges.streams(seed, "recording", SPLIT, name)[0])


def render(name: str, procedure: Procedure, seed: int, size: int) -> tuple[RecordingData, list]:
    """A recording and its pictures as JPEG files; the data are whole once those have been made."""
    product = toy_product(ranges.streams(seed, "product")[0])
    recipe = synthetic.Recipe(procedure, product, seed=seed, occlusion=OCCLUSION, size=size)
    data = recipe.make(SPLIT, name)
    return data, list(Bar(iterable=data.jpegs, total=len(data.states), desc=name, unit="frame"))


def stories(procedure: Procedure, seed: int) -> Iterator[tuple[str, Story]]:
    """The recordings that show what the demo is for, by number.

    Each is a minute or two long; one part is incorrect and put right later, another is taken off
    and put on again, and hands are out of the way for a while before each of the two is put right.
    """
    product = toy_product(ranges.streams(seed, "product")[0])
    places = np.array([part.right[:2, 3] for part in product.parts])
    for number in itertools.count():
        name = f"{SPLIT}_{number:04d}"
        timeline = plan(name, procedure, seed)
        story = tell(timeline)
        if story is None or not SECONDS[0] <= timeline.num_frames / procedure.fps <= SECONDS[1]:
            continue
        how = ranges.streams(seed, "recording", SPLIT, name)[1]
        motion = plan_recording(timeline, places, procedure.fps, OCCLUSIONS[OCCLUSION], how)
        away = (motion.reach < AWAY).all(1)
        spans = [away[start:end].sum() / procedure.fps for _, start, end in story]
        if min(spans) >= AWAY_SECONDS:
            yield name, story


def shown(story: Story, visible: np.ndarray, procedure: Procedure) -> dict[str, Any]:
    """The story in seconds, and how much of it can be seen; `visible` (N,) of the frames."""
    told = {
        role: {
            "component": procedure.components[k],
            "from_s": round(start / FPS, 2),
            "to_s": round(end / FPS, 2),
            "in_clear_view_s": round(float((visible[start:end] > CLEAR).sum() / FPS), 1),
        }
        for role, (k, start, end) in story._asdict().items()
    }
    return told | {"share_of_frames_mostly_hidden": round(float((visible < HIDDEN).mean()), 3)}


def write_video(path: Path, jpegs: Iterable[bytes]) -> None:
    """Writes pictures as H.264; AAC or anything else there is none."""
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=FPS, options=X264)
        stream.width = stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        for jpeg in jpegs:
            frame = av.VideoFrame.from_ndarray(simplejpeg.decode_jpeg(jpeg), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_labels(path: Path, states: np.ndarray, procedure: Procedure) -> None:
    """Writes labels by the clock; states (N, K) of the video's frames."""
    steps = states_to_steps(np.arange(len(states)), states, with_errors=True)
    rows = [f"{label_time(frame, FPS)},{procedure.step_name(step)}\n" for frame, step in steps]
    files.write_text(path, "".join(["time,step\n", *rows]))


# --- What the model makes of it -------------------------------------------------------------------


def score(events: list[tuple[int, int]], path: Path, model: Model) -> dict[str, Any]:
    """Figures of (frame, step id) of the video's events; `path` is that of its labels."""
    (variant,) = model.procedure.variants.values()
    truth = LabelPlace(path).read(model.procedure.at(model.fps), variant)
    scores = metrics.score_recording(truth.steps, metrics.scored_steps(events), model.fps)
    wrong = wrong_parts.score_recording(truth.frames, truth.states, events, model.fps)
    kept = {key: scores[key] for key in ("pos", "f1", "delay_s", "tp", "fp", "fn")}
    return kept | {"wrong": wrong}


def moments(found: Sequence[tuple[int, int]], story: Story) -> list[int]:
    """The frames of the animation: the first events, those of both parts of the story, the last."""
    parts = {k for k, _, _ in story}
    picked = [*found[:2], *(event for event in found if event[1] // 3 in parts), found[-1]]
    return sorted({frame for frame, _ in picked})


def animate(annotated: Path, frames: Sequence[int], fps: float, path: Path) -> int:
    """Writes the animation of these frames and what is around them; returns its bytes."""
    wanted = {
        i
        for frame in frames
        for i in range(frame - round(BEFORE * fps), frame + round(AFTER * fps) + 1)
    }
    with av.open(str(annotated)) as container:
        pictures = [
            Image.fromarray(frame.to_ndarray(format="rgb24"))
            for i, frame in enumerate(container.decode(video=0))
            if i in wanted
        ]
    # The last picture stays for a while before it all begins again.
    milliseconds = [round(1000 / fps / SPEED)] * (len(pictures) - 1) + [2500]
    first, *rest = pictures
    first.save(path, append_images=rest, save_all=True, duration=milliseconds, loop=0, **WEBP)
    return path.stat().st_size


# --- All of it ------------------------------------------------------------------------------------


def versions() -> dict[str, str]:
    """Of Python and of what the files depend on."""
    names = ("stormpsr-jax", "jax", "flax", "numpy", "trimesh", "numba", "av", "pillow")
    of_packages = {name: importlib.metadata.version(name) for name in names}
    return {"python": platform.python_version(), **of_packages}


def make(workdir: Path, folder: Path, animation: Path) -> dict[str, Any]:
    """Makes all files, those that ship in `folder`; returns what provenance.json holds.

    Raises:
        ValueError: the run does not fit, or the files are too large.
    """
    config = read_run(workdir)
    seed = config["data.synthetic.seed"]
    model_folder, video = folder / demo.MODEL.name, folder / demo.VIDEO.name
    truth = folder / demo.LABELS.name / "demo.csv"
    copy_model(workdir / "model", model_folder)
    (model_folder / CARD).unlink()  # docs/recognise.md says what the model is
    whole, half = load_model(workdir / "model"), load_model(model_folder)
    procedure = half.procedure
    source = ClipSource(Path(config["data.dir"] or workdir / "data"), "test", procedure)
    compared = compare(whole, half, source)

    faster = dataclasses.replace(procedure, fps=FPS)
    truth.parent.mkdir()
    for number, (name, story) in enumerate(stories(faster, seed), start=1):
        data, jpegs = render(name, faster, seed, SIZE)
        write_video(video, jpegs)
        write_labels(truth, data.states, procedure)
        with tempfile.TemporaryDirectory() as out:
            if recognise.main([f"--model={model_folder}", str(video), f"--out={out}", "--video"]):
                raise ValueError(f"{video}: was not recognised")
            results = Path(out, video.stem)
            lines = (results / "events.jsonl").read_text(encoding="utf-8").splitlines()
            told = [(line["type"], line) for line in map(json.loads, lines)]
            seen, reported = (
                [(line["frame"], line["step_id"]) for kind, line in told if kind == of]
                for of in ("seen", "event")
            )
            figures, of_seen = score(reported, truth, half), score(seen, truth, half)
            wrong = figures["wrong"]
            if (wrong["found"], wrong["accepted"], of_seen["fp"], of_seen["fn"]) == (1, 0, 0, 0):
                animate(results / recognised.VIDEO, moments(reported, story), half.fps, animation)
                chosen = (
                    f"number {number} of those that show what tools/demo.py asks for: the first "
                    "whose incorrect part the model finds, and of whose steps it misses and "
                    "invents none"
                )
                break

    about = {
        "made_by": "python -m tools.demo WORKDIR",
        "versions": versions(),
        "licence": "Apache-2.0, like the rest of the repository; no outside data was used",
        "run": {
            "command": command(config),
            "seed": config["seed"],
            "data_seed": seed,
            "finished": half.created,
            "package_version": half.package_version,
        },
        "model": {
            "stored_as": "parameters in float16, statistics in float32",
            "compared_with_float32_on_the_test_split": compared,
            "test_figures_of_the_run": {s: half.figures[s]["test"] for s in half.streams},
        },
        "video": {
            "recording": {"data_seed": seed, "split": SPLIT, "name": name, "occlusion": OCCLUSION},
            "chosen": chosen,
            "pixels": SIZE,
            "fps": FPS,
            "seconds": round(len(jpegs) / FPS, 1),
            "shows": shown(story, data.visible, procedure),
            "stream": half.default_stream,
            "figures": figures,
        },
        "files": {
            path.relative_to(folder).as_posix(): {
                "bytes": path.stat().st_size,
                "sha256": files.checksum(path),
            }
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        },
    }
    files.write_json(folder / demo.PROVENANCE.name, about)
    total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    moving = animation.stat().st_size
    print(f"{total:,} bytes of {MAX_BYTES:,}; {animation.name} has {moving:,} of {MAX_WEBP:,}")
    if total > MAX_BYTES or moving > MAX_WEBP:
        raise ValueError("too large: lower the quality in X264 or WEBP")
    return about


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workdir", type=Path, metavar="WORKDIR", help="of a finished run")
    args = parser.parse_args(argv)
    package = demo.PROVENANCE.parent
    try:
        with tempfile.TemporaryDirectory() as made:
            folder, animation = Path(made, "demo"), Path(made, "demo.webp")
            folder.mkdir()
            about = make(args.workdir, folder, animation)
            for name in (demo.MODEL.name, demo.LABELS.name):
                shutil.rmtree(package / name, ignore_errors=True)
            for path in [*folder.iterdir(), animation]:
                to = ROOT / "docs" if path == animation else package
                shutil.move(path, to / path.name)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps({key: about[key] for key in ("run", "model", "video")}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
