"""Do models know others' renders? Videos that nothing of this package draws, and their figures.

    python -m benchmarks.outside make DIR --products=vtk:11,mitsuba:12 [--videos=7]
    python -m benchmarks.outside judge DIR/vtk_11=RUN DIR/mitsuba_12=RUN … [--record=outside]

`make` draws products, a plate with machine parts each (by a number), and gives each the folder
DIR/MAKER_NUMBER: `meshes` and procedure.json, as a user's CAD would give them, `videos`, `labels`,
and `truth`: the product's box, its place and the camera in each frame, and when hands are at work.
Half of the parts are put on incorrectly first: upside down, turned, in another part's place, beside
their own or not seated; half of these are corrected. Geometry, scenes, hands and cameras are of
this folder and of trimesh, pictures of VTK or of Mitsuba 3, a path tracer (`pip install mitsuba
vtk`, extras of nobody). What is there is not made again.

`judge` has the model of each RUN recognise its product's videos. In clear view, which are up to
five frames after hands have left, it prints the area under the ROC curve of the logit of *right*
between correct and incorrect installations, with an interval of 90 % by a bootstrap over videos,
and of *present*; then the figures of events. Numbers below 900 are for judging alone, and nothing
may be chosen with them; 901 and more serve for choosing.
"""

import argparse
import itertools
import statistics
import sys
import zlib
from pathlib import Path
from typing import Any

import av
import numpy as np

from benchmarks import record
from benchmarks.outside import renderers, scenes
from benchmarks.outside.parts import Component, product
from stormpsr_jax import load_model
from stormpsr_jax.base import files
from stormpsr_jax.base.progress import Bar
from stormpsr_jax.media import sources
from stormpsr_jax.psr import analysis, metrics, wrong_parts
from stormpsr_jax.recordings.label_file import LabelPlace
from stormpsr_jax.recordings.labels import Labels
from stormpsr_jax.serving.frames import Frame, chunks

CLEAR = 5  # frames of an installation in clear view
DRAWS = 2000  # of the bootstrap


# --- make -----------------------------------------------------------------------------------------


def procedure(parts: list[Component], name: str) -> dict[str, Any]:
    """The procedure file: any order in which no part comes before what it stands on."""
    states = [
        bits
        for bits in np.ndindex((2,) * len(parts))
        if all(
            part.below < 0 or bits[part.below] for part, bit in zip(parts, bits, strict=True) if bit
        )
    ]
    needed = [[3 * part.below, 3 * k] for k, part in enumerate(parts) if part.below >= 0]
    variant = {"initial_state": "0" * len(parts), "expected": [3 * k for k in range(len(parts))]}
    return {
        "name": name,
        "fps": scenes.FPS,
        "components": [part.name for part in parts],
        "states": ["".join(map(str, bits)) for bits in sorted(states, key=sum)[1:]],
        "variants": {"assembly": {**variant, "recordings": ["*"], "precedence": needed}},
    }


def write_video(parts: list[Component], maker: str, name: str, folder: Path) -> None:
    """Draws a video, whose file comes last."""
    path = folder / "videos" / f"{name}.mp4"
    if path.exists():
        return
    rng = np.random.default_rng(zlib.crc32(f"{folder.name} {name}".encode()))
    spells, count = scenes.story(parts, rng)
    place = scenes.Place(parts, rng, worn=rng.random() < 0.5)
    draw = renderers.MAKERS[maker](place)
    rows = ["time,step"]
    for spell in spells:
        word = "Install" if spell.state > 0 else "Incorrectly installed"
        rows.append(f"{spell.done / scenes.FPS:.1f},{word} {parts[spell.k].name}")
    truth: dict[str, Any] = {"hidden": [[s.first, s.last] for s in spells], "worn": place.worn}
    truth |= {"turn": place.turn, "view": place.view, "boxes": [], "cameras": []}
    changes = {frame for spell in spells for frame in (spell.done, spell.last)}
    size, light = renderers.SIZE, np.zeros(0)
    with files.replacing(path) as part, av.open(str(part), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=scenes.FPS, options={"crf": "16"})
        stream.width, stream.height, stream.pix_fmt = size, size, "yuv420p"
        shots = scenes.frames(place, spells, count, rng)
        for i, (scene, box, camera) in enumerate(
            Bar(iterable=shots, total=count, desc=f"{folder.name} {name}")
        ):
            # A path tracer takes a tenth of a second and more: it draws every other frame.
            if scene is not None and (maker == "vtk" or i % 2 == 0 or i in changes):
                light = draw(scene, i)
            shown = 255 * np.clip(light * place.gain, 0, 1) ** (1 / 2.2)
            shown += place.noise * rng.standard_normal(shown.shape)
            pixels = np.clip(shown + 0.5, 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            truth["cameras"].append([round(float(value), 2) for value in camera])
            truth["boxes"].append([None if np.isnan(v) else round(float(v), 5) for v in box])
        container.mux(stream.encode())
        files.write_json(folder / "truth" / f"{name}.json", truth)
        files.write_text(folder / "labels" / f"{name}.csv", "\n".join([*rows, ""]))


def make(out: Path, drawn: list[str], videos: int) -> None:
    """Makes products and their videos."""
    for maker, number in (word.split(":") for word in drawn):
        folder, parts = out / f"{maker}_{number}", product(int(number))
        for name in ("videos", "labels", "truth", "meshes"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        for part in parts:
            part.solid.at(part.place).write(folder / "meshes" / f"{part.name}.ply")
        files.write_json(folder / "procedure.json", procedure(parts, folder.name))
        for i in range(videos):
            write_video(parts, maker, f"video_{i:02d}", folder)


# --- judge ----------------------------------------------------------------------------------------


def area(yes: list[float], no: list[float]) -> float | None:
    """Under the ROC curve."""
    if not yes or not no:
        return None
    a, b = np.asarray(yes)[:, None], np.asarray(no)
    return float(((a > b) + (a == b) / 2).mean())


def bootstrap(videos: list[dict[int, list[float]]]) -> tuple[float, float]:
    """The interval of 90 % of the area, over videos, of the logits by state (1, −1) of each."""
    rng = np.random.default_rng(0)
    areas = []
    for _ in range(DRAWS):
        drawn = [videos[i] for i in rng.integers(len(videos), size=len(videos))]
        value = area(*([z for video in drawn for z in video[state]] for state in (1, -1)))
        areas += [] if value is None else [value]
    low, high = np.quantile(areas, (0.05, 0.95)).tolist()
    return low, high


def judge(folder: Path, run: Path) -> dict[str, Any]:
    """The figures of a run's model on the videos of a folder."""
    model = load_model(run)
    variant = next(iter(model.procedure.variants.values()))
    rights: list[dict[int, list[float]]] = []
    there: dict[bool, list[float]] = {True: [], False: []}
    seen, right, wrong = [], [], []
    for path in Bar(
        iterable=sorted((folder / "videos").glob("*.mp4")), desc=folder.name, unit="video"
    ):
        labels = LabelPlace(folder / "labels" / f"{path.stem}.csv").read(model.procedure, variant)
        hidden = files.read_json(folder / "truth" / f"{path.stem}.json")["hidden"]
        rows = model.rows_of(
            sources.open_source(path).open(model.fps), model.default_stream, model.batch
        )
        parts = model.frames(model.decoder(variant=variant.name)).over(chunks(rows, model.batch))
        frames = list(itertools.chain.from_iterable(parts))
        rights.append(in_clear_view(frames, labels, hidden, there))
        events = [event for frame in frames for event in frame.events]
        of_kind = {
            kind: [event[:2] for event in events if event.kind == kind]
            for kind in ("seen", "report", "unsure")
        }
        for scores, kind in ((seen, "seen"), (right, "report")):
            steps = metrics.scored_steps(of_kind[kind])
            scores.append(metrics.score_recording(labels.steps, steps, model.fps))
        of = labels.frames, labels.states, of_kind["report"], model.fps, of_kind["unsure"]
        wrong.append(wrong_parts.score_recording(*of))
    both = [[z for video in rights for z in video[state]] for state in (1, -1)]
    low, high = bootstrap(rights)
    total = wrong_parts.summarise(wrong) or {}
    return {
        "product": folder.name,
        "videos": len(rights),
        "right": area(*both),
        "from": low,
        "to": high,
        "correct": len(both[0]),
        "incorrect": len(both[1]),
        "present": area(there[True], there[False]),
        "seen_f1": statistics.fmean(row["f1"] for row in seen),
        "right_f1": statistics.fmean(row["f1"] for row in right),
        "shown": total["shown"],
        "accepted": total["accepted"],
        "found": total["found"],
        "right_installations": total["right_installations"],
        "called_wrong": total["right_called_wrong"],
        "no_verdict": total["no_verdict"],
    }


def in_clear_view(
    frames: list[Frame], labels: Labels, hidden: list[list[int]], there: dict[bool, list[float]]
) -> dict[int, list[float]]:
    """Logits of *right* by state, one of each installation; adds those of *present* to `there`.

    `hidden` are the frames, first and end, in which hands work, one by one with the changes of the
    labels. A logit is a mean over up to CLEAR frames until the next ones.
    """
    installed: dict[int, list[float]] = {1: [], -1: []}
    ends = [first for first, _ in hidden[1:]] + [len(frames)]
    states = zip(labels.states[:-1], labels.states[1:], strict=True)
    for (_, begin), end, (before, after) in zip(hidden, ends, states, strict=True):
        rows = np.unique(np.linspace(begin + 1, end - 1, CLEAR).astype(int))
        if begin + 1 > end - 1:
            continue
        scores = np.mean([frames[i].scores.parts for i in rows], axis=0)
        present, right = np.split(scores, 2)
        for k in range(1, len(after)):  # the base is never incorrect
            there[bool(after[k])].append(float(present[k]))
            if after[k] != before[k]:
                installed[int(after[k])].append(float(right[k]))
    return installed


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    made = commands.add_parser("make", help="draw products and their videos")
    made.add_argument("out", type=Path, metavar="DIR")
    made.add_argument("--products", required=True, metavar="MAKER:NUMBER,…", help="vtk, mitsuba")
    made.add_argument("--videos", type=int, default=7, help="of each product (%(default)s)")
    judged = commands.add_parser("judge", help="what models say of these videos")
    judged.add_argument("pairs", nargs="+", metavar="DIR/PRODUCT=RUN")
    judged.add_argument("--record", metavar="NAME", help="keep the table in benchmarks/results")
    judged.add_argument("--notes", default="", help="beside it")
    args = parser.parse_args()
    if args.command == "make":
        make(args.out, args.products.split(","), args.videos)
        return
    rows = [judge(*map(Path, pair.split("="))) for pair in args.pairs]
    print(analysis.format_rows(rows))
    if args.record:
        record.save(args.record, {"products": rows}, args.notes)


if __name__ == "__main__":
    sys.exit(main())
