"""Checkpoints of others, `.pth` files: damaged, hostile, or of another model.

Members of a `.pth` file carry checksums. So damage to the file is an error or changes nothing; what
was packed with right checksums may be anything but must not be executed.
"""

import os
import pickle
import random
import shutil
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import numpy as np

from stormpsr_jax.networks.spatial import SpatialEncoder
from stormpsr_jax.networks.temporal import TemporalTransformer
from stormpsr_jax.networks.vit import ViT
from stormpsr_jax.weights import command
from stormpsr_jax.weights.torch_layout import to_state_dict
from tests.hostile import pickles
from tests.hostile.damage import damage
from tests.hostile.pickles import STOP, dict_of, entries, storage, tensor, text
from tests.hostile.processes import MEMORY, call, made_once
from tests.hostile.runs import Found
from tests.hostile.zips import WAYS_OF_ZIPS, spoil_zip

KINDS = ("spatial", "temporal")
NUMBERS = (0, 1, -1, 7, 2**31, 2**47, 2**63, 2**64)


def _write_base(folder: Path) -> None:
    models = {
        "spatial": (
            SpatialEncoder(ViT(8, 16, 1, 2, 32), hidden=8, projection=8),
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
    folder = made_once(base / "checkpoints", _write_base)
    kind = rng.choice(KINDS)
    path, marker = place / "theirs.pth", place / "executed"
    with np.load(folder / f"{kind}.npz") as file:
        state = dict(file)
    shutil.copy(folder / f"{kind}.pth", path)
    way = rng.choice(("damage", "damage", "zip", "state", "state", "ending", *PICKLES, *PICKLES))
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
        how, content = PICKLES[way](rng, state, marker)
        write_pth(path, state, content)
    out = place / "ours.safetensors"
    before = sorted(place.iterdir())
    outcome = call(lambda: sys.exit(_import(kind, path, out)), place, memory=MEMORY)
    sound = outcome.code != 0 or way not in ("exploit", "broken", "damage", "zip")
    if not sound and way in ("damage", "zip"):  # which have checksums
        sound = out.read_bytes() == (folder / f"{kind}.safetensors").read_bytes()
    wrong = outcome.judged([path.name], sound)
    if set(place.iterdir()) - {*before, out, place / "output"}:
        wrong |= {"outside"}
    return f"{kind}: {way}: {how}", wrong, outcome.output


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
    protocol = rng.choice((None, None, 0, 1, 2, 3, 4, 5))
    if protocol is not None:
        write = f"open({str(marker)!r}, 'w')"
        run = rng.choice(((os.system, f"touch '{marker}'"), (eval, write), (exec, write)))
        found = {name: _Call(*run) for name in state}
        return f"{run[0].__name__}, protocol {protocol}", pickle.dumps(found, protocol)
    module, function, arguments = rng.choice(pickles.CALLS)
    given = [text(argument.format(marker)) for argument in arguments]
    way, attack = rng.choice(list(pickles.ways_to_call(module, function, *given).items()))
    return f"{module}.{function} by {way}", _pickled(state, rng.choice(list(state)), attack)


def _broken(rng: random.Random, state: Mapping, marker: Path) -> tuple[str, bytes]:
    """One of those that are damaged, in place of a tensor."""
    del marker
    content, message = rng.choice(pickles.BROKEN)
    return message, _pickled(state, rng.choice(list(state)), content)


def _bomb(rng: random.Random, state: Mapping, marker: Path) -> tuple[str, bytes]:
    """A small pickle that asks for much."""
    del marker
    name = rng.choice(list(pickles.BOMBS))
    sound = b"" if name in ("number as a key", "shared") else dict_of(**entries(state))
    return name, b"\x80\x02" + pickles.BOMBS[name] + sound + STOP


def _pickled(state: Mapping[str, np.ndarray], name: str, attack: bytes) -> bytes:
    """A state dict with something else in place of a tensor."""
    return b"\x80\x02" + dict_of(**entries(state) | {name: attack}) + STOP


def _tensor(rng: random.Random, state: Mapping, marker: Path) -> tuple[str, bytes]:
    """One tensor with a size, a stride, an offset or a storage of our making."""
    del marker
    i, (name, array) = rng.choice(list(enumerate(state.items())))
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
        of = rng.choice((text("x"), b"N", b"}", pickles.tuple_of(text("storage")) + b"Q"))
    return f"{way} of {name}", _pickled(state, name, tensor(shape, steps, offset, of))


PICKLES = {
    "bytes": _bytes,
    "exploit": _exploit,
    "broken": _broken,
    "bomb": _bomb,
    "tensor": _tensor,
}


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
