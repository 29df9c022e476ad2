"""Which sources of this project can change a result: what its maker names, and what that names.

Found from the text, definition by definition, without importing anything. Left out are comments,
docstrings, what a message says, and the modules that only tell, draw or wait (`SILENT`).
"""

import ast
import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from stormpsr_jax.base import results

ROOT = Path(__file__).parents[2]
PACKAGES = ("stormpsr_jax", "data_prep")
_BASE = ("cluster", "errors", "hardware", "installed", "interruption", "memory", "progress")
SILENT = (
    *(f"stormpsr_jax.base.{name}" for name in _BASE),
    *(f"stormpsr_jax.training.{name}" for name in ("pace", "tensorboard")),
    *(f"stormpsr_jax.{name}" for name in ("report", "serving.card", "stages.provenance")),
)
_OTHER_STAGE = "STAGE"  # of whose results there are checksums
_TELLING = ("print", "tell", "warn")  # calls whose result nobody uses
# "defined": by name ("": what else runs when a module is imported) a checksum, and the names that
# it uses; "imported": by name [module, name in it] of all that it may be.
_Read = dict[str, dict[str, list]]
_FORM = 1  # of what is remembered


def commit() -> str | None:
    """The commit that is checked out, None if this is no clone; read without git."""
    git = ROOT / ".git"
    with contextlib.suppress(OSError, ValueError):
        if git.is_file():  # of a worktree
            git = ROOT / git.read_text().partition(": ")[2].strip()
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head
        name, common = head.removeprefix("ref: "), git / "commondir"
        shared = git / common.read_text().strip() if common.is_file() else git
        if (shared / name).is_file():
            return (shared / name).read_text().strip()
        for line in (shared / "packed-refs").read_text().splitlines():
            if line.endswith(f" {name}"):
                return line.partition(" ")[0]
    return None


@functools.cache
def of(*makers: Callable) -> dict[str, str]:
    """By file, relative to the clone, the checksum of what functions come to in it.

    It is remembered for the user, as reading all takes a second, until one of the files is another.
    """
    left = [(maker.__module__, maker.__qualname__.partition(".")[0]) for maker in makers]
    key = [_FORM, str(ROOT), *left]
    match results.recalled(key):
        case {"stamps": dict(stamps), "found": dict(known)}:
            if all(_stamp(place) == stamp for place, stamp in stamps.items()):
                return known
    found: dict[str, dict[str, str]] = {}
    while left:
        module, name = left.pop()
        path, silent = _path(module), any(f"{module}.".startswith(f"{one}.") for one in SILENT)
        if path is None or silent or name == _OTHER_STAGE:
            continue
        place = path.relative_to(ROOT).as_posix()
        read = _read(path)
        reached = found.setdefault(place, {})
        for one in [*read["defined"]] if name == "*" else [name, ""]:
            if one in read["defined"] and one not in reached:
                reached[one], names = read["defined"][one]
                left += [target for name in names for target in _targets(read, module, name)]
            elif one in read["imported"]:
                left += _targets(read, module, one)
    sums = {place: _checksum(reached) for place, reached in sorted(found.items()) if reached}
    results.remember(key, {"stamps": {place: _stamp(place) for place in found}, "found": sums})
    return sums


@functools.cache
def _stamp(place: str) -> list[int] | None:
    """The size and time of a file, None if it is gone."""
    with contextlib.suppress(OSError):
        status = os.stat(ROOT / place)
        return [status.st_size, status.st_mtime_ns]
    return None


def _checksum(content: Any) -> str:
    return results.of_json(content)[:16]


def _targets(read: _Read, module: str, dotted: str) -> Iterator[tuple[str, str]]:
    """Where the definitions are that `a.b.c` in a module may mean."""
    first, *rest = dotted.split(".")
    if first in read["defined"]:
        yield module, first
    for target, name in read["imported"].get(first, ()):
        parts = [name, *rest] if name else rest
        while parts and _path(f"{target}.{parts[0]}"):
            target = f"{target}.{parts.pop(0)}"
        yield target, parts[0] if parts else "*"


@functools.cache
def _path(module: str) -> Path | None:
    """The file of a module, None if it is none of this project."""
    if module.partition(".")[0] not in PACKAGES:
        return None
    path = ROOT.joinpath(*module.split("."))
    known = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in known if file.is_file()), None)


# --- Reading --------------------------------------------------------------------------------------


@functools.cache
def _read(path: Path) -> _Read:
    """What a file defines and imports."""
    read: _Read = {"defined": {}, "imported": {}}
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for one in node.names:
                target = [one.name, ""] if one.asname else [one.name.partition(".")[0], ""]
                read["imported"].setdefault(one.asname or target[0], []).append(target)
        elif isinstance(node, ast.ImportFrom):
            for one in node.names:
                bound = read["imported"].setdefault(one.asname or one.name, [])
                bound.append([node.module, one.name])
    parts: dict[str, list] = {}
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            continue
        names = [getattr(node, "name", "")]
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            named = [n for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)]
            names = [n.id for n in named] or [""]
        for name in names:
            parts.setdefault(name, []).append(node)
    for name, nodes in parts.items():
        used: dict[str, None] = {}
        read["defined"][name] = [_checksum(_plain(nodes, used)), [*used]]
    return read


def _plain(node: Any, used: dict[str, None]) -> Any:
    """What a syntax tree says, alike in all versions of Python; adds the names that it uses."""
    if isinstance(node, list):
        return [_plain(one, used) for one in node if not _is_told(one)]
    if not isinstance(node, ast.AST):
        return repr(node)
    if isinstance(node, ast.Raise):  # whatever it says
        return "raise"
    if (name := _dotted(node)) is not None:
        used[name] = None
        return name
    found = {key: value for key, value in ast.iter_fields(node) if value not in (None, [])}
    return [type(node).__name__, {k: _plain(v, used) for k, v in found.items() if k != "ctx"}]


def _is_told(node: Any) -> bool:
    """Whether a statement is a docstring, or tells people something."""
    value = node.value if isinstance(node, ast.Expr) else None
    if isinstance(value, ast.Call):
        name = _dotted(value.func) or ""
        return name.rpartition(".")[2] in _TELLING
    return isinstance(value, ast.Constant)


def _dotted(node: ast.AST) -> str | None:
    """`a.b.c` as a text, None if a node is something else."""
    if isinstance(node, ast.Attribute):
        before = _dotted(node.value)
        return before and f"{before}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else None
