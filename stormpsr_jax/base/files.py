"""Files that are whole or not there, locks, and JSON that holds what it should.

Needs the standard library alone, and msgspec in `fit`: `stormpsr_jax.psr` and the checks before a
run use it.
"""

import collections
import contextlib
import errno
import fcntl
import hashlib
import json
import math
import os
import re
import reprlib
import secrets
import shutil
import socket
import stat
import tokenize
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

T = TypeVar("T")

# --- Whole files ----------------------------------------------------------------------------------


@contextlib.contextmanager
def replacing(final: str | os.PathLike, part: Path | None = None) -> Iterator[Path]:
    """Gives a path to write a file to, which becomes `final`; after an error it is removed.

    `part` is that path, on the same disk; None is `final` with `.part` behind it. OSError names
    `final`, which is never seen half-written.
    """
    final = Path(final)
    if final.exists() and not final.is_file():  # such as /dev/null, which would be a file then
        raise OSError(errno.EINVAL, "is not a regular file", str(final))
    part = part or final.with_name(final.name + ".part")
    if part.is_symlink():  # whose target would be written to
        part.unlink()
    try:
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())  # before it gets its name: a power cut must not truncate it
        os.replace(part, final)
    except OSError as error:
        if error.filename not in (None, str(part)):
            raise
        what = f"cannot be written ({error.strerror or error})"
        raise OSError(error.errno, what, str(final)) from error
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(final: Path, mark: str = "") -> Iterator[Path]:
    """Gives a folder to fill, which becomes `final`; after an error it is removed.

    Until then it is `.NAME.MARK.part` beside it, whose `mark` keeps several writers apart.
    """
    part = final.with_name(f".{final.name}{mark and '.'}{mark}.part")
    shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
    part.mkdir(parents=True)
    try:
        yield part
        remove(final)
        os.replace(part, final)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def remove(path: Path) -> None:
    """Removes a file or a folder, if it is there; interrupted, nothing is left under its name."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        gone = path.with_name(f".{path.name}.gone")
        shutil.rmtree(gone, ignore_errors=True)
        path.rename(gone)
        shutil.rmtree(gone)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a text file in UTF-8, whole; OSError names it."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike, content: Any) -> None:
    """Writes a JSON file, whole, without NaN and infinity; OSError names it."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def checksum(path: str | os.PathLike) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- Locks ----------------------------------------------------------------------------------------


def open_locked(path: Path) -> BinaryIO | None:
    """Opens a file (made if there is none) that one process, on any machine, has at a time.

    Its content stays as it was; closing it gives it back. None if another process has it. On a
    network disk without locks everybody gets it. OSError: it is a link, or cannot be opened.
    """
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = open(path, "ab+", opener=_without_links)  # closed by the caller
        except FileNotFoundError:
            continue  # another process has just removed the empty folder
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        except OSError:  # a network disk without locks
            return file
        with contextlib.suppress(FileNotFoundError):  # removed between opening and locking
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()


def _without_links(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)


@contextlib.contextmanager
def only_writer(lock: Path, folder: Path, flag: str = "--out") -> Iterator[None]:
    """Holds a lock file, so that no other process, on any machine, writes to `folder` too.

    Meanwhile the file says who has it, in a line that is never the same twice (`read_owner`): who
    reads another one, or none, looks at another folder. On a network disk without locks everybody
    gets it, and the last one is who has it. ValueError: another process has it.
    """
    file = open_locked(lock)
    if file is None:
        host, process = [*(read_owner(lock) or "").split(), "", ""][:2]
        who = f"another process ({process} on {host})" if process else "another process"
        raise ValueError(
            f"{who} is writing to {folder}; wait for its end, or give another folder with {flag}"
        )
    with file:
        try:
            file.truncate(0)
            file.write(f"{socket.gethostname()} {os.getpid()} {secrets.token_hex(8)}\n".encode())
            file.flush()
            os.fsync(file.fileno())  # other machines read it
        except OSError as error:
            what = f"cannot be written ({error.strerror or error})"
            raise OSError(error.errno, what, str(lock)) from error
        yield


def read_owner(lock: Path) -> str | None:
    """The line of who holds the lock file, or held it last; None without one."""
    try:
        return read_text(lock).strip() or None
    except ValueError:
        return None


# --- Names ----------------------------------------------------------------------------------------

MAX_NAME_BYTES = 200  # in UTF-8; what is added to a name (such as .part) has to fit into 255
_UNSEEN = ("Cc", "Cs", "Zl", "Zp")  # control characters, halves of characters, line ends
_TURNING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # the direction of writing


def name_error(name: str) -> str | None:
    """Says what is wrong with a name from outside: of a procedure, component, variant or recording.

    What is none of these things can be printed, written into a CSV file and read back.
    """
    if not name:
        return "is empty"
    if name != name.strip():
        return "has white space in front or behind"
    if any(unicodedata.category(c) in _UNSEEN or c in _TURNING for c in name):
        return "has control characters in it, or is not UTF-8"
    if (size := len(name.encode())) > MAX_NAME_BYTES:
        return f"has {size} bytes, more than {MAX_NAME_BYTES}"
    return None


def check_name(name: str, place: str) -> str:
    """Returns a name that came from outside, before it becomes that of a file or folder, in NFC.

    In that names are compared and stored: macOS writes "ü" as two characters (NFD). ValueError:
    `name_error`, or it begins with a dot, as "." and ".." do, or has a / or \\ in it.
    """
    name = unicodedata.normalize("NFC", name)
    problem = name_error(name)
    if name.startswith("."):
        problem = "begins with a dot"
    elif "/" in name or "\\" in name:
        problem = "has a / or \\ in it"
    if problem is None:
        return name
    raise ValueError(f"{place}: name {shorten(name)}: {problem}; rename it")


# --- Text and JSON --------------------------------------------------------------------------------


# Frames per second: of a time-lapse of weeks, and of what high-speed cameras are used for.
MIN_FPS, MAX_FPS = 1e-6, 1000.0
MAX_TEXT = 2**30  # bytes; detections of a day of video take a third of it
# Whole numbers that every program reads alike (RFC 8259). Larger ones could be chosen so that
# Python, where they are keys, looks for each of them at the place of all others.
MAX_WHOLE = 2**53
# Of a value that is shown: more than fits into a message, and little of one that holds others,
# which may hold others in turn.
_SHOWN = reprlib.Repr()
_SHOWN.maxlevel, _SHOWN.maxstring, _SHOWN.maxlong, _SHOWN.maxother = 3, 100, 100, 100
_SHOWN.maxlist = _SHOWN.maxtuple = _SHOWN.maxdict = 15


def check_regular(path: str | os.PathLike, advice: str, links: bool = True) -> os.stat_result:
    """Returns the status of a regular file, or with `links` of a link to one.

    ValueError names it where there is none, or another thing (a pipe or a device may never end),
    and ends with the advice then.
    """
    try:
        status = os.stat(path, follow_symlinks=links)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path}: is not a regular file; {advice}")
    return status


def read_text(path: str | os.PathLike) -> str:
    """Reads a text file, line ends as they are; errors as of `read_bytes` and `text_of`."""
    return text_of(read_bytes(path), path)


def read_bytes(path: str | os.PathLike) -> bytes:
    """Reads a file whole; ValueError: not a readable regular file, or larger than `MAX_TEXT`."""
    size = check_regular(path, "give a file on a disk").st_size
    try:
        with open(path, "rb") as file:
            # To be asked for more bytes than there are, Python would first make room for them.
            data = file.read(min(size, MAX_TEXT) + 1)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
    if len(data) > MAX_TEXT:
        raise ValueError(f"{path}: is larger than {MAX_TEXT} bytes, the most that is read")
    return data


def text_of(data: bytes, path: str | os.PathLike) -> str:
    """Returns the text of a file, without BOM; ValueError: not UTF-8, or with a NUL."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}: line {line}: not UTF-8 text; save the file as UTF-8") from error
    if (at := data.find(b"\0")) >= 0:
        line = data.count(b"\n", 0, at) + 1
        raise ValueError(f"{path}: line {line}: holds a NUL byte; the file is damaged, or no text")
    return text


def read_json(path: str | os.PathLike) -> Any:
    """Reads a JSON file in UTF-8; ValueError names it, and the line where it stops being JSON.

    A key given twice in one object is an error too.
    """
    return parse_json(read_text(path), path)


def parse_json(text: str, path: str | os.PathLike) -> Any:
    """Returns what the JSON text of a file says; errors as of `read_json`."""
    try:
        return json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: line {error.lineno}: not JSON ({error.msg})") from error
    except RecursionError as error:
        raise ValueError(f"{path}: not JSON that can be read (nested too deeply)") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) < len(pairs):
        ((key, _),) = collections.Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"key {shorten(key)} is given twice in one object")
    return unique


def _no_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not a number that JSON allows")


def fit(data: Any, kind: type[T], place: str) -> T:
    """Returns what was read from JSON as a value of a type, such as a msgspec.Struct.

    Nothing is converted: 1.0 is no int, and "1" no number. ValueError names the place and the field
    that does not fit.
    """
    import msgspec  # only here, as decoding and scoring do without

    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        message, _, where = str(error).partition(" - at `")
        names = [*re.findall(r"[^.\[\]]+|\[\d+\]", where.rstrip("`").removeprefix("$"))]
        form = "Object (missing required|contains unknown) field `(.*)`"
        if match := re.fullmatch(form, message, re.DOTALL):
            missing = match[1].startswith("missing")
            names.append(match[2] if missing else shorten(match[2]))
            message = "is missing" if missing else "is no field that is known"
        else:
            message = message[0].lower() + message[1:].replace("`", "")
        raise ValueError(": ".join([place, *filter("...".__ne__, names), message])) from error


def field(data: Any, key: str, kinds: type | tuple[type, ...], place: str) -> Any:
    """Returns data[key], which has one of these types; True and False are no int and no float.

    ValueError: it is missing, has another type, or is a whole number beyond `MAX_WHOLE`.
    """
    if not isinstance(data, Mapping):
        raise ValueError(f"{place}: {shorten(data)} is not an object")
    if key not in data:
        raise ValueError(f"{place}: {key}: is missing")
    kinds = kinds if isinstance(kinds, tuple) else (kinds,)
    value = data[key]
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise ValueError(f"{place}: {key}: {shorten(value)} has the wrong type")
    if isinstance(value, int) and float not in kinds and abs(value) > MAX_WHOLE:
        raise ValueError(f"{place}: {key}: {shorten(value)} is beyond ±2⁵³; number from 0 or 1 up")
    return value


def number(value: Any, place: str, low: float = -math.inf, high: float = math.inf) -> float:
    """Returns a finite number in low…high; ValueError names the place."""
    result = math.nan
    if isinstance(value, int | float) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):  # a whole number of JSON, larger than any float
            result = float(value)
    if not (math.isfinite(result) and low <= result <= high):
        what = "a number" if math.isinf(low) and math.isinf(high) else f"in {low:g}…{high:g}"
        raise ValueError(f"{place}: {shorten(value)} is not {what}")
    return result


def whole(value: Any, place: str, low: int, high: int) -> int:
    """Returns a whole number in low…high; ValueError names the place."""
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{place}: {shorten(value)} is not a whole number in {low}…{high}")
    return value


def shorten(value: Any) -> str:
    """Returns a value's repr, on one line, cut to a length that fits in a message."""
    text = value if isinstance(value, str) else _SHOWN.repr(value)
    cut = text if len(text) <= 40 else text[:37] + "…"
    return repr(cut) if isinstance(value, str) else cut


MAX_HEADER = 10_000  # characters of the header of an .npy file
# What NumPy, zipfile and the parser of a header raise for a damaged file.
UNREADABLE = (
    *(OSError, ValueError, TypeError, KeyError, EOFError, SyntaxError, RecursionError),
    *(MemoryError, NotImplementedError, RuntimeError),
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


def reason(error: BaseException) -> str:
    """The first line of an error, or its type where it says nothing."""
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__
