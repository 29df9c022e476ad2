"""Wrong input, and what is said of it, as the files of `tests/snapshots` have it.

In these a line `$` begins a case, with words for its test; `@` names a file, whose lines follow
after `|` (after `~` one without an end); `-` names files and folders to remove, by a glob, and `>`
moves one, from before ` -> ` to after it; `!` is in the next line of the errors.
"""

import pathlib
import shutil

import pytest

from tests.support.processes import refused

SNAPSHOTS = pathlib.Path(__file__).parents[1] / "snapshots"


def cases(name):
    """Those of a file: (words, {file: text, None of one to remove, path to move to}, messages)."""
    found = []
    for line in (SNAPSHOTS / name).read_text(encoding="utf-8").splitlines():
        kind, text = line[:1], line[2:]
        if kind == "$":
            found.append((text, {}, []))
        _, files, messages = found[-1]
        if kind == "@":
            files[text] = ""
        elif kind == "-":
            files[text] = None
        elif kind == ">":
            old, new = text.split(" -> ")
            files[old] = pathlib.PurePath(new)
        elif kind in ("|", "~"):
            files[next(reversed(files))] += text + "\n" * (kind == "|")
        elif kind == "!":
            messages.append(text)
    return [pytest.param(*case, id=f"{case[0][:30]} {case[2][0][:30]}") for case in found]


def write(files, folder):
    for name, text in files.items():
        if text is None:
            for path in list(folder.glob(name)):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            continue
        if isinstance(text, pathlib.PurePath):
            (folder / text).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).rename(folder / text)
            continue
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())


def check(capsys, messages, command, *arguments):
    """Runs a command that says these, each in a line of its own, and ends with status 2.

    Returns what it says.
    """
    said = refused(capsys, command, *arguments, lines=len(messages))
    for line, message in zip(said.splitlines(), messages, strict=True):
        assert message in line, said
        assert line.isprintable()
        assert len(line) < 1200
    return said
