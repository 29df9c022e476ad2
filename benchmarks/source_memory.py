"""Peak memory of data preparation: some recordings, ones ten times as long, and ten times as many.

    python benchmarks/source_memory.py [--frames=300] [--recordings=3] [--workers=1] [SOURCE …]

Prints the largest resident memory of a process of each command, for each of the three, that of one
which only imports the command's module, and the ratios to the first. One process does all the work,
unless --workers says otherwise. Pictures are small (32 x 32), so that nothing but the number of
frames and recordings can make a difference. What is rendered (cad, synthetic) has a tenth of the
frames.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import simplejpeg
import trimesh

from stormpsr_jax.psr.files import labels
from stormpsr_jax.psr.procedure import Procedure, Variant, load_procedure

SIZE = 32
SOURCES = ("meccano", "industreal", "own", "embeddings", "cad", "synthetic", "check")
SPLITS = ("train", "val", "test")
# A process counts the memory of the one that started it as its own, until it has replaced it; so
# a small one has to.
LAUNCHER = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


def peak_mib(words: list[str]) -> float:
    """Runs a command and returns the largest resident memory of its processes in MiB."""
    words = [sys.executable, "-S", "-c", LAUNCHER, *words]
    run = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
    if run.returncode:
        sys.exit(f"{' '.join(words[4:])} failed")
    return int(run.stdout) / 1024


def write_labels(folder: Path, procedure: Procedure, frames: range) -> None:
    """A component is installed every so often."""
    folder.mkdir(parents=True, exist_ok=True)
    states = np.tri(procedure.num_components + 1, procedure.num_components, -1, dtype=np.int8)
    at = np.linspace(frames.start, frames.stop - 1, len(states)).astype(int)
    labels.write_states(folder / "PSR_labels_raw.csv", at, states)
    labels.write_steps(folder / "PSR_labels.csv", labels.states_to_steps(at, states), procedure)


def write_images(folder: Path, frames: range, digits: int, seed: int) -> None:
    """One picture under many names; no two recordings have the same, which a check would find."""
    folder.mkdir(parents=True)
    noise = np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    first = folder / f"{frames.start:0{digits}d}.jpg"
    first.write_bytes(simplejpeg.encode_jpeg(noise))
    for frame in frames[1:]:
        os.link(first, folder / f"{frame:0{digits}d}.jpg")


def write_video(path: Path, count: int) -> None:
    import av

    picture = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = SIZE, SIZE, "yuv420p"
        for i in range(count):
            moved = np.roll(picture, i, axis=1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(moved, format="rgb24")))
        container.mux(stream.encode())


def coco(frames: range) -> str:
    return json.dumps(
        {
            "categories": [{"id": 1, "name": "10000000000"}],
            "images": [
                {"id": i, "file_name": f"{i:06d}.jpg", "width": SIZE, "height": SIZE}
                for i in frames
            ],
            "annotations": [
                {"id": i, "image_id": i, "category_id": 1, "bbox": [8, 8, 16, 16]} for i in frames
            ],
        }
    )


def make_inputs(source: str, root: Path, recordings: int, count: int) -> list[str]:
    """Writes the recordings in the layout of a source; returns the command's flags."""
    root.mkdir()
    flags = {f"--{flag}": root / flag for flag in ("data", "frames", "labels", "asd_labels")}
    names = [(SPLITS[i % 3], f"{i:04d}") for i in range(recordings)]
    if source == "synthetic":  # at 5 frames a second a recording has about 500
        counts = [f"--{split}={sum(s == split for s, _ in names)}" for split in SPLITS]
        return [*counts, f"--fps={count / 1000}", "--cad_per_state=0", f"--size={SIZE}"]
    if source == "cad":
        (root / "meshes").mkdir()
        for i in range(recordings):
            place = trimesh.transformations.translation_matrix((i % 5, i // 5, 0))
            trimesh.creation.box((1, 1, 1), place).export(root / "meshes" / f"{i}.stl")
        parts = tuple(f"part {i}" for i in range(recordings))
        states = np.tri(recordings, dtype=np.int8)
        variants = {"any": Variant("any", (0,) * recordings, (0,), ("*",))}
        procedure = Procedure("tower", 5.0, parts, states, variants)
        (root / "tower.json").write_text(json.dumps(procedure.to_json()))
        flags = {"--meshes": root / "meshes", "--procedure": root / "tower.json"}
        return [*(f"{flag}={path}" for flag, path in flags.items()), f"--per_state={count // 10}"]
    if source == "meccano":
        for split, name in names:
            frames = range(1, 1 + count)
            write_images(root / "frames" / name, frames, 5, int(name))
            write_labels(root / "labels" / split / name, load_procedure("meccano"), frames)
            (root / "asd_labels" / split).mkdir(parents=True, exist_ok=True)
            rows = "".join(f"{i},0,0,0.5,0.5,0.5,0.5\n" for i in frames)
            (root / "asd_labels" / split / f"{name}_GT.csv").write_text(rows)
        chosen = ("--frames", "--labels", "--asd_labels")
        return [*(f"{flag}={flags[flag]}" for flag in chosen), f"--size={SIZE}"]
    procedure, frames = load_procedure("industreal"), range(count)
    for split, name in ((split, f"{name}_assy") for split, name in names):
        if source == "industreal":
            write_images(root / "data" / split / name / "rgb", frames, 6, int(name[:4]))
            write_labels(root / "data" / split / name, procedure, frames)
            (root / "data" / split / name / "OD_labels.json").write_text(coco(frames))
            continue
        write_labels(root / "labels" / split / name, procedure, frames)
        (root / "data" / split).mkdir(parents=True, exist_ok=True)
        if source == "own":
            write_video(root / "data" / split / f"{name}.mp4", count)
        else:
            np.save(root / "data" / split / f"{name}.npy", np.ones((count, 384), np.float32))
    if source == "industreal":
        return [f"--data={root / 'data'}", f"--size={SIZE}"]
    data = "videos" if source == "own" else "features"
    size = [f"--size={SIZE}"] if source == "own" else []
    labelled = [f"--labels={root / 'labels'}", "--procedure=industreal"]
    return [f"--{data}={root / 'data'}", *labelled, *size]


def measure(source: str, root: Path, recordings: int, count: int, workers: int) -> float:
    """Peak in MiB of the processes of a command."""
    words = [sys.executable, "-m", "data_prep.industreal" if source == "check" else ""]
    flags = make_inputs("industreal" if source == "check" else source, root, recordings, count)
    flags += [f"--workers={workers}", f"--out={root / 'out'}"]
    if source == "check":
        peak_mib([*words, *flags])
        flags = [str(root / "out"), "--all"]
    words[2] = f"data_prep.{source}"
    return peak_mib([*words, *flags])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sources", nargs="*", metavar="SOURCE", default=SOURCES)
    parser.add_argument("--frames", type=int, default=300, help="of a recording")
    parser.add_argument("--recordings", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    frames, recordings = args.frames, args.recordings
    shapes = f"{recordings} recordings of {frames} frames | {recordings} of {10 * frames} | "
    shapes += f"{10 * recordings} of {frames}"
    print(f"| source | imports alone, MiB | {shapes} | ratios |")
    print("|---|---|---|---|---|---|")
    worst = 0.0
    for source in args.sources:
        imports = [sys.executable, "-c", f"import data_prep.{source}"]
        peaks = [peak_mib(imports)]
        for shape in ((recordings, frames), (recordings, 10 * frames), (10 * recordings, frames)):
            with tempfile.TemporaryDirectory() as root:
                peaks.append(measure(source, Path(root, "in"), *shape, args.workers))
        ratios = [peak / peaks[1] for peak in peaks[2:]]
        worst = max(worst, *ratios)
        shown = [*(f"{peak:.0f}" for peak in peaks), ", ".join(f"{r:.2f}" for r in ratios)]
        print(f"| {source} | {' | '.join(shown)} |", flush=True)
    print(json.dumps({"worst_ratio": worst}))


if __name__ == "__main__":
    main()
