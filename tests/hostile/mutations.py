"""Faults that there were, put back, and whether attempts find them: ``… mutations FOLDER``.

FOLDER is one of `python -m tests.hostile`. Each fault is put into a process of its own, in which
attempts of a family are made until one comes to the verdict that tells of it.
"""

import json
import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

from stormpsr_jax.base import files
from stormpsr_jax.weights import torch_files
from tests.hostile import processes
from tests.hostile.families import attempt

ATTEMPTS, SECONDS = 100, 200


def pickles_are_executed() -> None:
    def read_pth(path):
        with zipfile.ZipFile(path) as archive:
            return pickle.loads(archive.read("archive/data.pkl"))

    torch_files.read_pth = read_pth


def checksums_of_zip_files_are_not_looked_at() -> None:
    zipfile.ZipExtFile._update_crc = lambda self, data: None


def errors_in_json_do_not_name_the_file() -> None:
    files.read_json = lambda path: json.loads(Path(path).read_bytes())


# By what is put back, the family and the verdict that tell of it.
FAULTS: dict[Callable[[], None], tuple[str, str]] = {
    pickles_are_executed: ("checkpoints of others", "outside"),
    checksums_of_zip_files_are_not_looked_at: ("damaged scores", "silent"),
    errors_in_json_do_not_name_the_file: ("damaged input", "silent"),
}


def find(fault: Callable[[], None], folder: Path) -> None:
    """Prints the first attempt that finds a fault; this process keeps it."""
    family, verdict = FAULTS[fault]
    attempt(family, 0, 0, folder)  # which makes what attempts start from, while all is sound
    fault()
    for index in range(ATTEMPTS):
        row = attempt(family, 0, index, folder)
        if verdict in row["wrong"]:
            print(f"found by attempt {index}: {row['what']}: {row['wrong']}")
            return
    sys.exit(f"not found by {ATTEMPTS} attempts")


def main() -> None:
    folder = Path(sys.argv[1])
    for fault in FAULTS:
        outcome = processes.Process(lambda f=fault: find(f, folder), folder).wait(SECONDS)
        print(f"{fault.__name__}: {outcome.output.strip()}", flush=True)


if __name__ == "__main__":
    main()
