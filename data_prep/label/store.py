"""The files that the page changes: whole, in its folder alone, and what others wrote is kept.

In the folder of the labels, `.label/` has what is the page's own: `state/NAME.json` (whether a
video is done, which proposals were answered), and `before/NAME/N/` (files of others, as they were
before the page changed these labels).
"""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from stormpsr_jax.base import files
from stormpsr_jax.recordings.labels import PSR_FILES

OWN = ".label"


class State(msgspec.Struct, frozen=True):
    """What the page keeps of a recording."""

    done: bool | None = None  # somebody has said that its labels are complete, or not
    answered: tuple[tuple[int, int], ...] = ()  # proposals, (frame, step id)


class LabelStore:
    """Writes into one folder."""

    def __init__(self, folder: Path):
        self.folder, self.own = folder, folder / OWN

    def check_inside(self, path: Path) -> None:
        """Raises ValueError for a path that a link leads out of the folder."""
        if not path.parent.resolve().is_relative_to(self.folder.resolve()):
            raise ValueError(f"{path.parent}: is a link out of {self.folder}; nothing is written")

    def replace(self, name: str, target: Path, text: str | None, others: Sequence[Path]) -> None:
        """Writes a file, whole.

        Args:
            text: what it is to hold; None removes it.
            others: files of others whose place it takes, and which may be itself; they are copied
                to `before` first.
        """
        self.check_inside(target)
        if others:
            before = self.own / "before" / name
            count = len(list(before.glob("[0-9]*")))
            with files.replacing_folder(before / str(count + 1)) as part:
                for path in others:
                    shutil.copy2(path, part)
        if text is not None:
            target.parent.mkdir(exist_ok=True)
            files.write_text(target, text)
        for path in {target, *others}:
            if text is None or path != target:
                path.unlink(missing_ok=True)
                if path.name in PSR_FILES and not os.listdir(path.parent):
                    path.parent.rmdir()

    def state(self, name: str) -> State:
        """What the page keeps of a recording; ValueError if it cannot be read."""
        path = self._state(name)
        return files.fit(files.read_json(path), State, str(path)) if path.exists() else State()

    def write_state(self, name: str, state: State) -> None:
        """Writes that, whole; OSError if it cannot be written."""
        if state != self.state(name):
            files.write_json(self._state(name), msgspec.to_builtins(state))

    def _state(self, name: str) -> Path:
        return self.own / "state" / f"{name}.json"


@contextlib.contextmanager
def open_store(folder: Path) -> Iterator[LabelStore]:
    """Gives what writes into a folder, which is made if it is missing.

    Raises:
        ValueError: another process has it, or something in it is a link that leads elsewhere.
    """
    folder.mkdir(exist_ok=True)
    store = LabelStore(folder)
    store.check_inside(store.own / "lock")
    with files.only_writer(store.own / "lock", folder, "--labels"):
        store.check_inside(store.own / "state" / "NAME.json")
        (store.own / "state").mkdir(exist_ok=True)
        yield store


def revision(paths: Iterable[Path], *more: Any) -> str:
    """Returns a text that tells other content of files, or other values."""
    digest = hashlib.sha256(repr(more).encode())
    for path in paths:
        content = path.read_bytes()
        digest.update(f"\0{path}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]
