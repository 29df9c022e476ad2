"""The files that the page changes: whole, in its folder alone, and what others wrote is kept.

In the folder of the labels, `.label/` has what is the page's own: `state/NAME.json` (whether a
video is done, which proposals were answered), `before/NAME/N/` (files of others, as they were
before the page changed these labels), and `moving.json` while a file takes the place of another.
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
        """Ends what a kill has interrupted; errors as of `open_store`."""
        self.folder, self.own = folder, folder / OWN
        self.check_inside(self.own / "state" / "NAME.json")
        (self.own / "state").mkdir(exist_ok=True)
        self._moving = self.own / "moving.json"
        if self._moving.exists():
            listed = files.fit(files.read_json(self._moving), list[str], str(self._moving))
            target, *others = map(Path, listed)
            for path in (target, *others):
                self.check_inside(path)
            if target.exists():
                _remove(others)
            self._moving.unlink()

    def check_inside(self, path: Path) -> None:
        """Raises ValueError for a path that a link leads out of the folder."""
        _check_inside(path, self.folder)

    def replace(self, name: str, target: Path, text: str | None, others: Sequence[Path]) -> None:
        """Writes a file, whole; a kill leaves it as it was, or as it is to be.

        Args:
            text: what it is to hold; None removes it.
            others: files of others whose place it takes, and which may be itself; they are copied
                to `before` first.
        """
        self.check_inside(target)
        gone = [path for path in {target, *others} if text is None or path != target]
        if others:
            self._copy(name, others)
        if text is not None:
            if gone:
                files.write_json(self._moving, [str(target), *map(str, gone)])
            target.parent.mkdir(exist_ok=True)
            files.write_text(target, text)
        _remove(gone)
        self._moving.unlink(missing_ok=True)

    def _copy(self, name: str, paths: Iterable[Path]) -> None:
        folder = self.own / "before" / name
        count = len(list(folder.glob("[0-9]*"))) if folder.is_dir() else 0
        with files.replacing_folder(folder / str(count + 1)) as part:
            for path in paths:
                shutil.copy2(path, part)

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
    _check_inside(folder / OWN / "lock", folder)
    with files.only_writer(folder / OWN / "lock", folder, "--labels"):
        yield LabelStore(folder)


def _check_inside(path: Path, folder: Path) -> None:
    if not path.parent.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{path.parent}: is a link out of {folder}; nothing is written")


def revision(paths: Iterable[Path], *more: Any) -> str:
    """Returns a text that tells other content of files, or other values."""
    digest = hashlib.sha256(repr(more).encode())
    for path in paths:
        content = path.read_bytes()
        digest.update(f"\0{path}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
        if path.name in PSR_FILES and not os.listdir(path.parent):
            path.parent.rmdir()
