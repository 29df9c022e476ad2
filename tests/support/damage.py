"""What may be wrong with a folder of good data: each returns what makes it so."""

import shutil
from collections.abc import Callable
from pathlib import Path

Damage = Callable[[Path], object]


def written(file: str, content: str | bytes) -> Damage:
    def damage(data: Path) -> None:
        (data / file).parent.mkdir(parents=True, exist_ok=True)
        (data / file).write_bytes(content if isinstance(content, bytes) else content.encode())

    return damage


def edited(file: str, old: str, new: str) -> Damage:
    def damage(data: Path) -> None:
        (path,) = data.glob(file)
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new) if old else text + new)

    return damage


def removed(*globs: str) -> Damage:
    def damage(data: Path) -> None:
        for path in [path for glob in globs for path in data.glob(glob)]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return damage


def moved(*names: tuple[str, str]) -> Damage:
    def damage(data: Path) -> None:
        for old, new in names:
            (data / new).parent.mkdir(parents=True, exist_ok=True)
            (data / old).rename(data / new)

    return damage


def all_of(*damages: Damage) -> Damage:
    return lambda data: [damage(data) for damage in damages]
