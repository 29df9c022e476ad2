"""What it costs each process to know what is in a zip file of a million members.

    python benchmarks/zip_index.py [--members=1000000] [--recordings=84]

The members are those of IndustReal: five camera streams a recording, of which one is wanted, and
label files. Measured are, each in a process of its own, seconds of processor time and the rise of
the peak of memory

* with the standard library: a zipfile.ZipFile, and its members by folder;
* in the first process here: all folders of all recordings are listed, once with the other streams
  left out and once with nothing left out;
* in the next process, which gets that index pickled: it lists one recording and reads a picture.
"""

import argparse
import pickle
import resource
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from stormpsr_jax.media.trees import open_trees

STREAMS = ("rgb", "depth", "ambient_light", "stereo_left", "stereo_right")
LABELS = ("PSR_labels.csv", "PSR_labels_raw.csv", "OD_labels.json", "gaze.csv")
LOCAL = struct.Struct("<4s5H3L2H")
ENTRY = struct.Struct("<4s6H3L5H2L")


def make(path: Path, members: int, recordings: int) -> None:
    """Writes the zip file; zipfile itself would take a minute."""
    frames = members // (recordings * len(STREAMS))
    entries = []
    with path.open("wb") as file:
        at = 0
        for recording in range(recordings):
            top = f"train_p1/{recording:02d}_assy_0_1"
            names = [f"{top}/{label}" for label in LABELS]
            names += [f"{top}/{s}/{i:06d}.jpg" for s in STREAMS for i in range(frames)]
            for name in map(str.encode, names):
                crc, size = zlib.crc32(name), len(name)  # the content is the name
                both = (20, 0, 0, 0, 0, crc, size, size, size, 0)
                file.write(LOCAL.pack(b"PK\3\4", *both) + name * 2)
                entries.append(ENTRY.pack(b"PK\1\2", 20, *both, 0, 0, 0, 0, at) + name)
                at += LOCAL.size + 2 * size
        length = sum(map(len, entries))
        file.writelines(entries)
        count = len(entries)
        file.write(struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, length, at))
        file.write(struct.pack("<4sLQL", b"PK\6\7", 0, at + length, 1))
        file.write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, *(0xFFFF,) * 2, *(0xFFFFFFFF,) * 2, 0))


def with_the_standard_library(path: Path) -> None:
    members, folders = {}, {}
    for info in zipfile.ZipFile(path).infolist():
        members[info.filename] = info
        folder, _, name = info.filename.rpartition("/")
        folders.setdefault(folder, []).append(name)


def first(path: Path, left_out: tuple[str, ...]) -> None:
    (tree,) = open_trees(path, left_out)
    count = sum(len(names) for _, _, names in tree.walk())
    pickled = pickle.dumps(tree)
    path.with_suffix(".pickle").write_bytes(pickled)
    print(f"{count} members listed, {len(pickled)} bytes pickled", file=sys.stderr)


def other(path: Path) -> None:
    tree = pickle.loads(path.with_suffix(".pickle").read_bytes())
    folder = "train_p1/01_assy_0_1/rgb"
    last = tree.entries(folder)[1][-1]
    assert tree.read(f"{folder}/{last}") == f"{folder}/{last}".encode()


WAYS: dict[str, Callable[[Path], None]] = {
    "standard library": with_the_standard_library,
    "first process, one stream": lambda path: first(path, STREAMS[1:]),
    "next process, one stream": other,
    "first process, all streams": lambda path: first(path, ()),
    "next process, all streams": other,
}


def measure(way: str, path: Path) -> None:
    """Prints seconds and MiB."""
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    WAYS[way](path)
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(seconds, (peak - before) / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--members", type=int, default=1_000_000)
    parser.add_argument("--recordings", type=int, default=84)
    parser.add_argument("--way", choices=("make", *WAYS), help=argparse.SUPPRESS)
    parser.add_argument("--zip", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way == "make":
        make(args.zip, args.members, args.recordings)
        return
    if args.way:
        measure(args.way, args.zip)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "train_p1.zip")
        words = [sys.executable, __file__, *sys.argv[1:], f"--zip={path}"]
        # Not here: the peak of a process begins with what the one has that starts it.
        subprocess.run([*words, "--way=make"], check=True)
        print("| process | s | MiB | s, standard library / this | MiB |\n|---|---|---|---|---|")
        whole = None
        for way in WAYS:
            done = subprocess.run(
                [*words, f"--way={way}"], check=True, stdout=subprocess.PIPE, text=True
            )
            seconds, mib = map(float, done.stdout.split())
            whole = whole or (seconds, mib)
            ratios = f"{whole[0] / seconds:.1f} | {whole[1] / max(mib, 0.1):.1f}"
            print(f"| {way} | {seconds:.2f} | {mib:.1f} | {ratios} |", flush=True)


if __name__ == "__main__":
    main()
