"""Checkpoints of others, `.pth` files, for `faults.py`: damaged, hostile, or of another model.

Members of a `.pth` file carry checksums. So damage to the file is an error or changes nothing; what
was packed with right checksums may be anything but must not be executed.
"""

import os
import pickle
import random
import resource
import shutil
import struct
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import numpy as np
from fault_files import damage
from fault_pictures import WAYS_OF_ZIPS, spoil_zip
from fault_processes import call, limited, made_once
from fault_runs import Found, verdicts

from stormpsr_jax.models.spatial import SpatialEncoder
from stormpsr_jax.models.temporal import TemporalTransformer
from stormpsr_jax.weights import command
from stormpsr_jax.weights.torch_layout import to_state_dict
from tests.support.pickles import (
    MARK,
    PERSISTENT,
    REDUCE,
    STOP,
    TUPLE,
    dict_of,
    integer,
    storage,
    tensor,
    text,
    tuple_of,
)
from tests.support.pickles import call as called

MEMORY = 2**33
KINDS = ("spatial", "temporal")
NUMBERS = (0, 1, -1, 7, 2**31, 2**47, 2**63, 2**64)


def prepare_checkpoints(base: Path) -> Path:
    """Makes a small checkpoint of each kind, once; returns their folder."""
    return made_once(base / "checkpoints", _write_base)


def _write_base(folder: Path) -> None:
    models = {
        "spatial": (
            SpatialEncoder(8, 16, 1, 2, 32, hidden=8, projection=8),
            (1, 16, 16, 3),
        ),
        "temporal": (TemporalTransformer(3, 4, 1, 2, 4, 16), (1, 4, 8)),
    }
    for kind, (model, shape) in models.items():
        variables = model.init(jax.random.key(0), np.zeros(shape, np.float32), train=False)
        stats = variables.get("batch_stats", {})
        state = to_state_dict(variables["params"], stats, kind)
        np.savez(folder / f"{kind}.npz", **state)
        write_pth(folder / f"{kind}.pth", state)
        if _import(kind, folder / f"{kind}.pth", folder / f"{kind}.safetensors"):
            sys.exit(f"{kind}: the undamaged checkpoint cannot be imported")


def _import(kind: str, path: Path, out: Path) -> int:
    return command.main(["import", f"--kind={kind}", f"--checkpoint={path}", f"--out={out}"])


def entries(state: Mapping[str, np.ndarray]) -> dict[str, bytes]:
    """The pickles of tensors, each of a storage of its own."""
    return {
        name: tensor(
            array.shape,
            [step // array.itemsize for step in array.strides],
            of=storage(str(i), numel=array.size),
        )
        for i, (name, array) in enumerate(state.items())
    }


def write_pth(path: Path, state: Mapping[str, np.ndarray], content: bytes | None = None) -> None:
    """Writes a state dict as PyTorch does, or another pickle beside its storages."""
    pickled = b"\x80\x02" + dict_of(**entries(state)) + STOP if content is None else content
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        for i, array in enumerate(state.values()):
            archive.writestr(f"archive/data/{i}", array.tobytes())
        archive.writestr("archive/version", b"3\n")


def damaged_checkpoint(rng: random.Random, place: Path, base: Path) -> Found:
    """A `.pth` file, imported."""
    folder = prepare_checkpoints(base)
    kind = rng.choice(KINDS)
    path, marker = place / "theirs.pth", place / "executed"
    with np.load(folder / f"{kind}.npz") as file:
        state = dict(file)
    shutil.copy(folder / f"{kind}.pth", path)
    way = rng.choice(("damage", "damage", "zip", "bytes", "bytes", "exploit", "exploit", "bomb",
                      "tensor", "tensor", "state", "state", "ending"))  # fmt: skip
    has_to_fail, has_checksums = way == "exploit", way in ("damage", "zip")
    if way == "damage":
        how = damage(rng, path, place.parent / "beside" / "file")
    elif way == "zip":
        with zipfile.ZipFile(path) as archive:
            member = rng.choice(archive.namelist())
        spoil = rng.choice([w for w in WAYS_OF_ZIPS if w != "twice"])
        how = spoil_zip(rng, spoil, path, member, folder / f"{kind}.npz").what
    elif way == "ending":
        path = path.rename(path.with_suffix(rng.choice((".pt", ".bin", ".npz", ".safetensors"))))
        how = path.suffix
    elif way == "state":
        how = _other_model(rng, state)
        write_pth(path, state)
    else:
        change = {"bytes": _bytes, "exploit": _exploit, "bomb": _bomb, "tensor": _tensor}[way]
        how, content = change(rng, state, marker)
        write_pth(path, state, content)
    out = place / "ours.safetensors"
    before = sorted(place.iterdir())
    function = _exits(lambda: _import(kind, path, out))
    outcome = call(limited(resource.RLIMIT_AS, MEMORY, function), place)
    wrong = verdicts(outcome)
    if set(place.iterdir()) - {*before, out, place / "output"}:
        wrong.add("outside")
    if outcome.code:
        lines = [line for line in outcome.output.splitlines() if line.startswith("error: ")]
        wrong |= set() if lines else {"traceback"}
        # Of an array that does not fit the others, flax names the parameter.
        named = any(path.name in line for line in lines)
        wrong |= set() if named else {"silent"}
    elif has_to_fail or (
        has_checksums and out.read_bytes() != (folder / f"{kind}.safetensors").read_bytes()
    ):
        wrong.add("silent")
    return f"{kind}: {way}: {how}", wrong, outcome.output


def _exits(function: Callable[[], int]) -> Callable[[], None]:
    return lambda: sys.exit(function())


# --- Pickles --------------------------------------------------------------------------------------


def _bytes(rng: random.Random, state: Mapping, marker: Path) -> tuple[str, bytes]:
    """Bytes of the pickle replaced, moved or repeated; some by opcodes that matter."""
    data = bytearray(b"\x80\x02" + dict_of(**entries(state)) + STOP)
    count = rng.choice((1, 1, 2, 5, 50))
    attack = f"cos\nsystem\n(X\x00\x00\x00\x00touch {marker}tR".encode()
    for _ in range(count):
        at = rng.randrange(len(data))
        new = rng.choice((rng.randbytes(1), bytes([rng.choice(b"()tRQb.]}ueascoq\x85\x86\x93")])))
        new = rng.choice((new, new, new, data[at : at + rng.randrange(60)], attack, b""))
        data[at : at + rng.choice((0, 1, len(new)))] = new
    return f"{count}", bytes(data)


class _Call:
    """What pickle makes of it calls a function."""

    def __init__(self, function: Callable, *arguments: object):
        self.reduced = function, arguments

    def __reduce__(self) -> tuple:
        return self.reduced


def _exploit(rng: random.Random, state: Mapping, marker: Path) -> tuple[str, bytes]:
    """A pickle that makes a file, if any part of it is executed."""
    touch = f"touch '{marker}'"
    write = f"open({str(marker)!r}, 'w')"
    name, arguments = rng.choice(
        (("os system", [touch]), ("posix system", [touch]), ("builtins eval", [write]),
         ("builtins exec", [write]), ("subprocess getoutput", [touch]), ("os mkdir", [str(marker)]),
         ("pathlib Path.touch", [str(marker)]), ("builtins open", [str(marker), "w"]),
         ("torch._utils _rebuild_tensor_v2.__globals__", []), ("runpy run_path", [str(marker)]),
         ("torch.storage _load_from_bytes", [write]), ("numpy.core.multiarray _reconstruct", []))
    )  # fmt: skip
    module, function = name.split(" ")
    protocol = rng.choice((None, None, 0, 1, 2, 3, 4, 5))
    if protocol is not None:
        run = rng.choice(((os.system, touch), (eval, write), (exec, write)))
        found = {name: _Call(*run) for name in state}
        return f"{run[0].__name__}, protocol {protocol}", pickle.dumps(found, protocol)
    loaded = f"c{module}\n{function}\n".encode()
    stacked = text(module) + text(function) + b"\x93"
    given = b"".join(map(text, arguments))
    attack = rng.choice(
        (called(module, function, *map(text, arguments)), stacked + MARK + given + TUPLE + REDUCE,
         b"(" + loaded + given + b"o", loaded + MARK + given + TUPLE + b"\x81",
         f"({module}\n{function}\n".encode().replace(b"(", b"(i", 1),
         loaded + MARK + given + TUPLE + b"}\x92", stacked + PERSISTENT, loaded + b"}b")
    )  # fmt: skip
    found = entries(state)
    found[rng.choice(list(found))] = attack
    return name, b"\x80\x02" + dict_of(**found) + STOP


def _bomb(rng: random.Random, state: Mapping, marker: Path) -> tuple[str, bytes]:
    """A small pickle that asks for much."""
    del marker
    found = dict_of(**entries(state))
    bombs = {
        "nested tuples": b")" + b"\x85" * 10**6 + b"0" + found,
        "nested lists": b"]" + b"]a" * 10**6 + found,
        "nested marks": b"(" * 10**6 + found,
        "lists in a list": b"](" + b"]" * 10**6 + b"e" + found,
        "doubled": b")" + b"".join(b"q%ch%c\x86" % (i, i) for i in range(200)) + found,
        "far memo": b"]r\xff\xff\xff\x7f" + found,
        "memo": b"]" + b"".join(b"r" + struct.pack("<I", i) for i in range(10**6)) + found,
        "long text": b"X" + struct.pack("<I", 2**32 - 1) + found,
        "long number": b"\x8b" + struct.pack("<i", 2**31 - 1) + found,
        "large number": b"\x8b" + struct.pack("<i", 10**6) + b"\x7f" * 10**6 + found,
        "long digits": b"L" + b"9" * 10**6 + b"L\n" + found,
        "number as a key": b"}\x8a\xff" + b"\x7f" * 255 + b"Ns",
        "many calls": b"".join([called("collections", "OrderedDict")] * 10**5) + found,
        "itself": b"}q\x00" + text("a") + b"h\x00s" + found,
        "large": b"N0" * 2**23 + found,
        "shared": dict_of(**{f"w{i}": tensor((12,), (1,), of=storage()) for i in range(10**4)}),
    }
    name = rng.choice(list(bombs))
    return name, b"\x80\x02" + bombs[name] + STOP


def _tensor(rng: random.Random, state: Mapping, marker: Path) -> tuple[str, bytes]:
    """One tensor with a size, a stride, an offset or a storage of our making."""
    del marker
    found = entries(state)
    name = rng.choice(list(found))
    i, array = list(found).index(name), state[name]
    shape, steps, offset = list(array.shape), [s // 4 for s in array.strides], 0
    key, kind, numel = str(i), "FloatStorage", array.size
    way = rng.choice(("size", "stride", "offset", "key", "kind", "numel", "axes", "no storage"))
    if way == "size":
        shape[rng.randrange(len(shape))] = rng.choice(NUMBERS)
    elif way == "stride":
        steps[rng.randrange(len(steps))] = rng.choice(NUMBERS)
    elif way == "offset":
        offset = rng.choice(NUMBERS)
    elif way == "key":
        key = rng.choice(("9999", "", "../data.pkl", "0/../0", "/etc/passwd", "\0", "0"))
    elif way == "kind":
        kind = rng.choice(("DoubleStorage", "BFloat16Storage", "BoolStorage", "ComplexFloatStorage",
                           "LongStorage", "CharStorage", "QUInt8Storage", ""))  # fmt: skip
    elif way == "numel":
        numel = rng.choice(NUMBERS)
    elif way == "axes":
        shape, steps = rng.choice((([], []), ([1] * 65, [1] * 65), ([0], [0]), (shape, [1] * 9)))
    of = storage(key, kind, numel)
    if way == "no storage":
        of = rng.choice((text("x"), integer(1), tuple_of(text("storage")) + PERSISTENT, b"N", b"}"))
    found[name] = tensor(shape, steps, offset, of)
    return f"{way} of {name}", b"\x80\x02" + dict_of(**found) + STOP


def _other_model(rng: random.Random, state: dict[str, np.ndarray]) -> str:
    """Changes a state dict into that of a model that there cannot be, or not so."""
    name = rng.choice(list(state))
    array = state[name]
    way = rng.choice(("missing", "name", "shape", "fewer", "number", "extra", "nan", "wrapped"))
    if way == "missing":
        del state[name]
    elif way == "name":
        new = rng.choice(("", "\n", "a" * 10**5, "blocks.999999999.norm1.weight", "é", "../x",
                          "temporal_enc.layers.7.0.fn.norm.weight", "\x1b[2J"))  # fmt: skip
        state[new] = state.pop(name)
    elif way == "shape":
        shape = rng.choice(
            ((), (0,), (1,), array.shape[::-1], (*array.shape, 1), (1, *array.shape), (3, 5))
        )
        state[name] = np.zeros(shape, np.float32)
    elif way == "fewer":
        state[name] = np.ascontiguousarray(array[..., :1])
    elif way == "number":
        state[name] = np.full_like(array, rng.choice((np.inf, -np.inf, 1e38, 0)))
    elif way == "extra":
        state["epoch"] = np.zeros(1, np.float32)
    elif way == "nan":
        state[name] = np.full_like(array, np.nan)
    else:
        wrapper = rng.choice(("module.", "model.", "module.module.", "x."))
        for old in list(state):
            state[wrapper + old] = state.pop(old)
    return f"{way} of {name}"
