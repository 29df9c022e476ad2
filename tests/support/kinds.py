"""Plain tests and system tests: which is which follows from what a test uses.

A test is of the system that starts a process, listens, or has a fixture which does, or which says
that it is costly by asking for fixture `system`. Any other test is plain, and held to it.
"""

import functools
import inspect
import multiprocessing
import multiprocessing.process
import socket
import socketserver
import subprocess
import sys
import types
from collections.abc import Callable, Iterator

import pytest

from tests.support import processes

_STARTS = (subprocess, multiprocessing, socket, socketserver, processes)
_STARTS += tuple(vars(processes)[name] for name in ("environment", "free_address", "start"))
_EVENTS = {"subprocess.Popen", "os.fork", "os.posix_spawn", "os.system", "socket.bind"}
# A moment's process for each video that is read, as the product always does, and how matplotlib
# finds fonts where it never ran before.
_READERS = ("stormpsr_jax.media.containers", "fc-list")
_seen: list[str] = []  # of such events, what has happened since a test began


def is_system(item: pytest.Item) -> bool:
    """Returns whether a test has fixture `system`, or names what starts processes."""
    return "system" in item.fixturenames or _starts(inspect.unwrap(item.function))


@functools.cache
def _starts(function: types.FunctionType) -> bool:
    """Returns whether a test, or a function of the tests that it uses, names what starts some."""
    known, waiting = {function}, [function]
    while waiting:
        values = _values(waiting.pop())
        if any(value is start for value in values for start in _STARTS):
            return True
        used = [value for value in values if value not in known]
        known.update(used)
        waiting += used
    return False


def _values(function: types.FunctionType) -> list:
    """What starts processes and the tests' own functions among what a function names."""
    names = set(_names(function.__code__))
    values = [function.__globals__[name] for name in names if name in function.__globals__]
    for module in [value for value in values if _is_ours(value, inspect.ismodule)]:
        values += [getattr(module, name) for name in names if hasattr(module, name)]
    for cls in [value for value in values if _is_ours(value, inspect.isclass)]:
        values += vars(cls).values()
    starts = [value for value in values if any(value is start for start in _STARTS)]
    return starts + [value for value in values if _is_ours(value, inspect.isfunction)]


def _is_ours(value: object, is_one: Callable[[object], bool]) -> bool:
    name = "__name__" if inspect.ismodule(value) else "__module__"
    return is_one(value) and getattr(value, name).startswith("tests.")


def _names(code: types.CodeType) -> Iterator[str]:
    """The names that a function's code uses, and those of the functions inside it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def begin() -> None:
    _seen.clear()


def check(item: pytest.Item) -> None:
    """Fails a plain test in which a process was started, or something listened.

    It was not kept from that, which could leave it waiting for ever.
    """
    if _seen and item.get_closest_marker("system") is None:
        pytest.fail(
            f"a plain test, or a fixture of it, does what system tests do: {'; '.join(_seen)}\n"
            "let that fixture or the test ask for fixture `system`, or let it do without",
            pytrace=False,
        )


def _see(event: str, arguments: tuple) -> None:
    if event in _EVENTS and not any(reader in str(arguments) for reader in _READERS):
        _seen.append(f"{event}{arguments[:2]}")


def _start_process(process, start=multiprocessing.process.BaseProcess.start) -> None:
    _seen.append(f"multiprocessing: {process.name}")
    start(process)


def install() -> None:
    sys.addaudithook(_see)
    multiprocessing.process.BaseProcess.start = _start_process
