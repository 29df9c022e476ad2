"""Config files and fields of `stormpsr_jax.main`: either the run begins, or a line.

A config file is a Python program. What it raises is the mistake of whoever wrote it, and is to be
told with its line; what it returns has to be a config with the fields of ours.
"""

import os
import random
import sys
from collections.abc import Callable
from pathlib import Path

from stormpsr_jax import main as command
from stormpsr_jax.stages import provenance, run
from tests.hostile.damage import WORDS
from tests.hostile.processes import MEMORY, call
from tests.hostile.runs import STAGES, Found
from tests.support.tiny import TINY, flags_of, tiny

FIELDS = provenance.flat_config(tiny())
# fmt: off
VALUES = (
    *WORDS, "0", "True", "false", "()", "(1,)", "(1,'a')", "{}", "{'a': 1}", "'x'", "x", "../..",
    "/dev/null", "a,b", "1", "3", "(" * 90_000, "[" * 90_000, str(2**31), str(2**53), str(2**63),
    str(2**64), "100000", "(nan,nan,nan)", "(1e999, 0, 0)", "('data',)",
    "__import__('os').system('touch executed')",
)
# fmt: on
NO_NUMBERS = ("nan", "inf", "-inf", "1e400", "x", "", "é", "(1,)", "a,b", "None")

HEAD = "from stormpsr_jax.configs import synthetic\n\n\ndef get_config():\n"
BEGIN = HEAD + "    c = synthetic.get_config()\n"
# What a config file may hold, and what an error has to name.
# fmt: off
RAISES = (
    "raise ValueError('bang')", "raise TypeError('bang')", "raise KeyError('bang')",
    "raise AttributeError('bang')", "raise ImportError('bang')", "import no_such_module",
    "1 / 0", "len(1)", "open('nothing')", "raise OSError('bang')", "raise StopIteration",
    "raise AssertionError", "raise Exception('two\\nlines')", "raise RecursionError",
    "raise MemoryError", "raise UnicodeError('bang')", "b'\\xff'.decode()", "[][1]", "x = y",
    "raise ExceptionGroup('a', [ValueError()])", "exec('get_config()')", "raise EOFError",
    "raise NotImplementedError", "class E(Exception):\n        __str__ = None\n    raise E",
)
# fmt: on
WRONG = {
    "c.seeed = 1": "seeed",
    "c.unlock()\n    c.seeed = 1": "seeed",
    "c.unlock()\n    c.pretrain.stepz = 1": "stepz",
    "c.unlock()\n    del c.seed": "seed",
    "c.unlock()\n    del c.encoder": "encoder",
    "c.unlock()\n    del c.pretrain.optimizer": "optimizer",
    "c.seed = 'x'": "mine.py",
    "c.encoder = 5": "mine.py",
    "c.window.frames = 'many'": "mine.py",
    "c.window.frames = float('nan')": "mine.py",
    "c.temporal.sigma = float('nan')": "sigma",
    "c.temporal.sigma = float('inf')": "sigma",
    "with c.ignore_type():\n        c.seed = 'x'": "seed",
    "with c.ignore_type():\n        c.seed = None": "seed",
    "with c.ignore_type():\n        c.seed = 1.5": "seed",
    "with c.ignore_type():\n        c.window.frames = [8]": "frames",
    "with c.ignore_type():\n        c.encoder = 5": "encoder",
    "with c.ignore_type():\n        c.encoder = None": "encoder",
    "with c.ignore_type():\n        c.stages = 'evaluate'": "stages",
    "with c.ignore_type():\n        c.stages = 5": "stages",
    "with c.ignore_type():\n        c.dtype = len": "dtype",
    "with c.ignore_type():\n        c.data.dir = b'x'": "dir",
    "with c.ignore_type():\n        c.data.mean = 0.5": "mean",
    "c.data.mean = ('a', 'b', 'c')": "mean",
    "c.data.mean = (0.5, 0.5)": "mean",
    "c.data.mean = (None, None, None)": "mean",
    "c.encoder.stem = ('a',)": "stem",
    "c.encoder.stem = (8, 8, 8, 8, 8, 8, 8, 8)": "stem",
    "c.stages = ()": "stages",
    "c.stages = (1, 2)": "stages",
    "c.stages = ('data', 'data')": "stages",
    "c.stages = ('evaluate', 'data')": "stages",
    "c.predict.splits = ('nothing',)": "splits",
    "c.predict.splits = (1,)": "splits",
    "c.data.dir = 'x' * 10000": "too long",
    "c.data.dir = 'a\\0b'": "dir",
    "c.procedure = '/dev/zero'": "/dev/zero",
    "c.seed = 2**70": "seed",
    "c.seed = -1": "seed",
    "c.mesh.data = 7": "mesh",
    "c.mesh.fsdp = 2**40": "mesh",
}
RETURNS = ("None", "{}", "5", "synthetic", "'c'", "c.to_dict()", "[c]", "c.encoder")
TEXTS = {
    "empty": b"",
    "syntax": b"def get_config(:\n",
    "indentation": b"def get_config():\nreturn 1\n",
    "unclosed": (BEGIN + "    return (c\n").encode(),
    "nested": b"x = " + b"(" * 10**5,
    "latin-1": (BEGIN + "    return 'é'\n").encode("latin-1"),
    "UTF-16": (BEGIN + "    return c\n").encode("utf-16"),
    "NUL": (BEGIN + "    return c\0\n").encode(),
    "coding": b"# coding: nothing\n" + BEGIN.encode(),
    "garbage": bytes(range(256)) * 9,
    "no function": b"x = 1\n",
    "a number": b"get_config = 5\n",
    "an argument": b"def get_config(x):\n    return x\n",
    "a generator": b"def get_config():\n    yield 1\n",
}


def configs(rng: random.Random, place: Path, base: Path) -> Found:
    """A command line whose config or fields are not right; it is stopped before its first stage."""
    make = rng.choice((_fields, _fields, _file, _file, _path))
    what, words, names, has_to_fail = make(rng, place, base)
    outcome = call(_command(place, words), place, 90, 2 * MEMORY)
    sound = not has_to_fail and "the run begins" in outcome.output
    wrong = outcome.judged(names, sound)
    if (place / "executed").exists():
        wrong |= {"outside"}
    return what[:200], wrong, outcome.output


def _command(place: Path, words: list[str]) -> Callable[[], None]:
    def begins(*_: object) -> None:
        print("the run begins")
        sys.exit(0)

    def function() -> None:
        run._run_stage = begins  # all that comes before it is checked
        command.main([f"--workdir={place / 'run'}", *words])

    return function


def _made_before(base: Path) -> list[str]:
    """Flags of the tiny run on the data of the undisturbed one, so that all is checked."""
    fields = {"data.dir": base / "run" / "data", "stages": STAGES[1:]}
    return flags_of({**TINY, **fields})


def _fields(rng: random.Random, place: Path, base: Path) -> tuple:
    del place
    words = ["--config=synthetic", *rng.choice((_made_before(base), flags_of(TINY)))]
    changes, fails = {}, False
    for _ in range(rng.choice((1, 1, 1, 2))):
        field, value = rng.choice(list(FIELDS)), rng.choice(VALUES)
        way = rng.choice(("value", "value", "value", "value", "unknown", "section", "empty"))
        if way == "unknown":
            field = rng.choice(
                (f"{field}x", f"x{field}", f"{field}.x", f"{field}.", "..", "__dict__")
            )
        elif way == "section" and "." in field:
            field = field.rpartition(".")[0]
        fails |= way == "unknown"
        if way == "value" and isinstance(FIELDS[field], int | float):
            fails |= value in NO_NUMBERS
        changes[field] = value
    words += [f"--config.{field}={value}" for field, value in changes.items()]
    shown = ", ".join(f"{field}={value[:40]!r}" for field, value in changes.items())
    names = {part for field in changes for part in (field, *field.split(".")[-2:]) if part}
    return shown, words, names | {"no such field"}, fails


def _file(rng: random.Random, place: Path, base: Path) -> tuple:
    path = place / "mine.py"
    words = [f"--config={path}"]
    way = rng.choice(("raises", "raises", "above", "wrong", "wrong", "wrong", "returns", "text"))
    if way == "raises":
        line = rng.choice(RAISES)
        path.write_text(f"{BEGIN}    {line}\n    return c\n")
        return f"in get_config: {line}", words, {"mine.py: line"}, True
    if way == "above":
        line = rng.choice([line for line in RAISES if "get_config" not in line])
        path.write_text(f"def f():\n    {line}\n\n\nf()\n{BEGIN}    return c\n")
        return f"above: {line}", words, {"mine.py: line"}, True
    if way == "wrong":
        line = rng.choice(list(WRONG))
        path.write_text(f"{BEGIN}    {line}\n    return c\n")
        fields = [word for word in _made_before(base) if not _sets(word, WRONG[line], line)]
        return line, words + fields, {WRONG[line]}, True
    if way == "returns":
        value = rng.choice(RETURNS)
        path.write_text(f"{BEGIN}    return {value}\n")
        return f"returns {value}", words, {"mine.py", "--config."}, True
    text = rng.choice(list(TEXTS))
    path.write_bytes(TEXTS[text])
    return f"text: {text}", words, {"mine.py"}, True


def _sets(word: str, name: str, line: str) -> bool:
    """Whether a flag would set what a line of a config file is wrong about."""
    field = word.removeprefix("--config.").partition("=")[0]
    section = field.partition(".")[0]
    return field.split(".")[-1] == name or f"c.{field} " in line or f"c.{section} " in line


def _path(rng: random.Random, place: Path, base: Path) -> tuple:
    del base
    way = rng.choice(("pipe", "folder", "broken link", "missing", "suffix", "long", "colons",
                      "nothing", "device", "twice", "above"))  # fmt: skip
    path = place / "mine.py"
    names = {"mine.py", "colon"}  # one that nothing follows is an empty word, taken or not
    words = [f"--config={path}"]
    if way == "pipe":
        os.mkfifo(path)
    elif way == "folder":
        path.mkdir()
    elif way == "broken link":
        path.symlink_to(place / "nothing.py")
    elif way != "missing":
        path.write_text(BEGIN + "    return c\n")
    if way == "suffix":
        path = path.rename(
            place / rng.choice(("mine.txt", "mine", "mine.pyc", "mine.py ", "mine.PY"))
        )
        words, names = [f"--config={path}"], {path.name.strip()}
    elif way == "long":
        words, names = [f"--config={place / ('x' * 300)}.py"], {"xxx"}
    elif way == "colons":
        words = [f"--config={path}:{rng.choice(('', ':', 'x', '../..'))}"]
    elif way == "nothing":
        words, names = [rng.choice(("--config=", "--config", "--config=.py", "--config=/"))], {""}
    elif way == "device":
        path = Path(rng.choice(("/dev/zero", "/dev/null", "/proc/self/mem")))
        words, names = [f"--config={path}"], {path.name}
    elif way == "twice":
        words, names = ["--config=synthetic", *words, "--config=nothing"], {"nothing"}
    elif way == "above":
        words, names = ["--config.seed=1", "--config=synthetic"], {"seed"}
    return f"path: {way}", words, names, True
