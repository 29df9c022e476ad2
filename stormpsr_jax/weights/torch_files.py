"""Reads foreign checkpoint files without PyTorch and without executing anything in them.

A `.pth` file is a zip archive: `<name>/data.pkl`, a pickle of the object with tensors replaced by
references, and `<name>/data/<key>`, the raw storages. Before PyTorch 1.6 it was five pickles (magic
number, version, system, object, keys of storages) and the storages in the order of the keys; the
weights of the extra `photos` are such a file. A pickle is a program for a small stack machine,
which calls whatever it names. Here the few names of checkpoints stand for markers that put together
dictionaries and arrays; any other name, and any other opcode, is an error.
"""

import io
import math
import pickle
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import safetensors

from stormpsr_jax.base import files, memory
from stormpsr_jax.base.errors import one_line

STORAGE_DTYPES = {
    "torch.DoubleStorage": np.float64,
    "torch.FloatStorage": np.float32,
    "torch.HalfStorage": np.float16,
    "torch.BFloat16Storage": ml_dtypes.bfloat16,
    "torch.LongStorage": np.int64,
    "torch.IntStorage": np.int32,
    "torch.ShortStorage": np.int16,
    "torch.CharStorage": np.int8,
    "torch.ByteStorage": np.uint8,
    "torch.BoolStorage": np.bool_,
}
# The names that a pickle may call, all carried out by `_Reader.call`.
CALLS = (
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_parameter",
    "collections.OrderedDict",
    "builtins.dict",
    "torch.Size",
)
# The opcodes that checkpoints are made of.
OPCODES = (
    "PROTO FRAME STOP BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE SHORT_BINUNICODE NONE "
    "NEWTRUE NEWFALSE MARK EMPTY_TUPLE TUPLE1 TUPLE2 TUPLE3 TUPLE EMPTY_LIST APPEND APPENDS "
    "EMPTY_DICT SETITEM SETITEMS BINPUT LONG_BINPUT MEMOIZE BINGET LONG_BINGET GLOBAL STACK_GLOBAL "
    "REDUCE BINPERSID BUILD"
).split()
# What data-parallel and compiled wrappers put before every name.
WRAPPERS = ("module.", "_orig_mod.", "model.")
# Keys under which training scripts keep the state dict.
NESTED = ("state_dict", "model", "model_state_dict")
MAX_AXES = 8
FREE_BYTES = 2**26  # of arrays that a small file may be packed from: those of zeros
# How files of PyTorch before 1.6 begin: pickles of a magic number and of version 1001.
OLD = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."
# What NumPy, with ml_dtypes, can hold of the types that a .safetensors file may name.
SAFETENSORS_DTYPES = {
    **{f"F{8 * n}": np.dtype(f"f{n}") for n in (8, 4, 2)},
    "BF16": np.dtype(ml_dtypes.bfloat16),
    **{f"{kind}{8 * n}": np.dtype(f"{kind.lower()}{n}") for kind in "IU" for n in (8, 4, 2, 1)},
    "BOOL": np.dtype(bool),
}
# A ViT's pickle has some 100 kB, with its optimizer three times as much. One byte of it can cost
# some 100 bytes of memory and a microsecond.
MAX_PICKLE = 2**21
# Numbers are keys where an optimizer numbers its parameters. Others, of 0 and of the multiples of
# 2^61 - 1 for one, can be chosen so that Python looks for each of them at the place of all others.
MAX_KEY = 2**20
# Tensors may share storages (tied weights), but not so that a small file unfolds into a huge model.
MAX_SHARING = 8
RESAVE = (
    "save the state dict alone: torch.save({'state_dict': model.state_dict()}, FILE) with "
    "PyTorch 1.6 or later"
)


def read_pth(path: str | Path) -> Any:
    """Reads a `.pth` file: the saved object, tensors as (possibly strided, read-only) arrays.

    ValueError if it is none, damaged, or holds anything that is not a tensor, number, string,
    tuple, list or dict; names what it is.
    """
    files.check_regular(path, "copy its content to one")
    try:
        with open(path, "rb") as file:
            if file.read(len(OLD)) == OLD:
                return _read_old(file, Path(path))
        with zipfile.ZipFile(path) as archive:
            return _ZipReader(archive, path).load()
    except _Refused as error:
        raise ValueError(one_line(f"{path}: {error}", 600)) from error
    # A hostile or damaged file can raise nearly anything, from EOFError to OverflowError.
    except Exception as error:
        raise ValueError(
            f"{path}: not a PyTorch file, damaged, or holds more than tensors and "
            f"containers ({type(error).__name__}: {one_line(str(error), 200)}); {RESAVE}"
        ) from error


class _Refused(ValueError):
    """An error whose message is complete but for the file."""


# No opcode can change these two, as they are tuples: one that has attributes, or `__setstate__`, is
# given whatever a pickle holds by BUILD.


class _Storage(NamedTuple):
    """A flat array that tensors are views of. No tensor passes for one: it may be a view itself."""

    array: np.ndarray


class _Name(NamedTuple):
    """A class or function that the pickle names, which is compared and never looked up."""

    text: str
    reader: "_Reader"

    def __call__(self, *arguments: Any) -> Any:
        return self.reader.call(self.text, arguments)


class _Dict(dict):
    """A dictionary that a pickle fills."""

    __slots__ = ()

    def __setitem__(self, key: Any, value: Any) -> None:
        # Hashing a tuple descends into it without a limit, to the end of the C stack.
        if type(key) is not str and not (type(key) is int and 0 <= key < MAX_KEY):
            raise TypeError(f"a {type(key).__name__} as a key, not text or a small number")
        super().__setitem__(key, value)

    def __setstate__(self, state: Any) -> None:
        """The attribute _metadata of a state dict, which we have no use for."""


class _Opcodes(dict):
    def __missing__(self, code: int) -> None:
        raise _Refused(f"holds more than tensors and containers (opcode {code}); {RESAVE}")


class _Reader(pickle._Unpickler):
    """Python's unpickler (the one in Python, whose memo is a dictionary); it has no storages."""

    dispatch = _Opcodes(
        (code[0], pickle._Unpickler.dispatch[code[0]])
        for code in (getattr(pickle, name) for name in OPCODES)
    )
    further: tuple = ()  # what a reference to a storage has behind its number of elements

    def _empty_dict(self) -> None:
        self.append(_Dict())  # type: ignore[attr-defined]

    dispatch[pickle.EMPTY_DICT[0]] = _empty_dict

    def __init__(self, content: io.BytesIO, size: int):
        """Reads the next pickle of `content`, of a file of so many bytes."""
        self.tensor_bytes_left = MAX_SHARING * size
        super().__init__(content)

    def find_class(self, module: str, name: str) -> _Name:
        """One of the few names that a checkpoint is made of."""
        text = f"{module}.{name}"
        if text not in CALLS and text not in STORAGE_DTYPES:
            raise _Refused(
                f"refused to load {text[:120]}, which is neither a tensor nor a plain container; "
                f"{RESAVE}"
            )
        return _Name(text, self)

    def call(self, name: str, arguments: tuple) -> Any:
        """What calling one of CALLS gives."""
        match name.rpartition(".")[2], arguments:
            case "_rebuild_tensor_v2" | "_rebuild_tensor", (storage, offset, size, stride, *_):
                return self.tensor(storage, offset, size, stride)
            case "_rebuild_parameter", (np.ndarray() as data, *_):
                return data
            # With items it would copy them at every call; nothing but Python 2 wrote that.
            case "OrderedDict" | "dict", ():
                return _Dict()
            case "Size", (tuple() as sizes,):
                return sizes
        raise ValueError(f"{name} of {len(arguments)} arguments")

    def storage(self, key: str, dtype: np.dtype, numel: Any) -> np.ndarray:
        """The flat array that a reference names."""
        raise _Refused("holds tensors where none belong")

    def persistent_load(self, pid: Any) -> _Storage:
        """The flat array behind a reference ("storage", class, key, device, numel)."""
        match pid:
            case ("storage", _Name(kind), str() as key, _, numel, *further) if (
                kind in STORAGE_DTYPES and tuple(further) == self.further
            ):
                return _Storage(self.storage(key, np.dtype(STORAGE_DTYPES[kind]), numel))
        raise _Refused("the pickle refers to something that is no storage")

    def tensor(self, storage: Any, offset: Any, size: Any, stride: Any) -> np.ndarray:
        """A view of a storage; offset and strides count elements. Never reads outside of it."""
        if not (
            isinstance(storage, _Storage)
            and type(size) is type(stride) is tuple
            and len(size) == len(stride) <= MAX_AXES
            and all(isinstance(n, int) and 0 <= n < 2**48 for n in (*size, *stride, offset))
        ):
            raise _Refused("a tensor's size, stride or offset is malformed")
        array = storage.array
        numel = math.prod(size)
        last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
        # More elements than the storage has (a broadcast view) would let a small file ask for any
        # amount of memory.
        if numel and (last >= array.size or numel > array.size):
            raise _Refused(
                f"a tensor of size {size} does not fit its storage of {array.size} elements (a "
                "damaged file, or one with broadcast tensors)"
            )
        self.tensor_bytes_left -= numel * array.itemsize
        if self.tensor_bytes_left < 0:
            raise _Refused(
                "its tensors share their storages so often that together they are over "
                f"{MAX_SHARING} times as large as the file"
            )
        if not numel:
            return np.zeros(size, array.dtype)
        strides = [s * array.itemsize for s in stride]
        return np.lib.stride_tricks.as_strided(array[offset:], size, strides, writeable=False)


class _ZipReader(_Reader):
    """Of an archive, whose members are the storages."""

    def __init__(self, archive: zipfile.ZipFile, path: str | Path):
        self.archive = archive
        self.storages: dict[str, bytes] = {}
        # Members that overlap in the archive could add up to far more than the file.
        self.bytes_left = size = Path(path).stat().st_size
        roots = [n[: -len("data.pkl")] for n in archive.namelist() if n.endswith("/data.pkl")]
        if len(roots) != 1:
            raise _Refused(f"a PyTorch file has one */data.pkl, this has {len(roots)}")
        self.root = roots[0]
        if f"{self.root}byteorder" in archive.namelist():
            byteorder = self.member("byteorder").decode("ascii", "replace").strip()
            if byteorder != "little":
                raise _Refused(f"byte order {byteorder[:20]!r}, not 'little'")
        super().__init__(io.BytesIO(self.member("data.pkl", MAX_PICKLE)), size)

    def member(self, name: str, limit: int | None = None) -> bytes:
        """The bytes of a member. PyTorch never compresses, so a compressed one may be a bomb."""
        info = self.archive.getinfo(self.root + name)
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise _Refused(f"member {name[:40]!r} is compressed or encrypted")
        if limit is not None and info.file_size > limit:
            raise _Refused(f"member {name[:40]!r} has over {limit} bytes; {RESAVE}")
        self.bytes_left -= info.file_size
        if self.bytes_left < 0:
            raise _Refused("the members claim to be larger than the file")
        return self.archive.read(info)

    def storage(self, key: str, dtype: np.dtype, numel: Any) -> np.ndarray:
        """The flat array in a member of the archive."""
        if key not in self.storages:
            self.storages[key] = self.member(f"data/{key}")
        raw = self.storages[key]
        if len(raw) % dtype.itemsize:
            raise _Refused(f"storage {key[:40]!r} is no whole number of {dtype}")
        return np.frombuffer(raw, dtype)


class _OldReader(_Reader):
    """Of a file before PyTorch 1.6: its storages are filled when the pickle has been read."""

    further = (None,)  # no view of a part

    def __init__(self, content: io.BytesIO, size: int):
        super().__init__(content, size)
        self.storages: dict[str, np.ndarray] = {}
        self.bytes_left = size

    def storage(self, key: str, dtype: np.dtype, numel: Any) -> np.ndarray:
        """An array of zeros for now; all together are no larger than the file."""
        if type(numel) is not int or numel < 0:
            raise _Refused(f"storage {key[:40]!r} has no size")
        if key not in self.storages:
            self.bytes_left -= numel * dtype.itemsize
            if self.bytes_left < 0:
                raise _Refused("the storages claim to be larger than the file")
            self.storages[key] = np.zeros(numel, dtype)
        array = self.storages[key]
        if (array.dtype, array.size) != (dtype, numel):
            raise _Refused(f"storage {key[:40]!r} is of two sizes or types")
        return array


def _read_old(file: io.BufferedReader, path: Path) -> Any:
    """The object of a file whose beginning, `OLD`, has been read."""
    size = path.stat().st_size
    memory.check_fits(size, str(path))
    pickles = io.BytesIO(file.read(3 * MAX_PICKLE))
    system = _Reader(pickles, size).load()
    reader = _OldReader(pickles, size)
    saved, keys = reader.load(), _Reader(pickles, size).load()
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise _Refused("not written by a little-endian machine")
    if not isinstance(keys, list) or sorted(keys) != sorted(reader.storages):
        raise _Refused("its list of storages is not that of its tensors")
    file.seek(len(OLD) + pickles.tell())
    for key in keys:
        array = reader.storages[key]
        numel = int.from_bytes(file.read(8), "little", signed=True)
        if numel != array.size:
            raise _Refused(f"storage {key[:40]!r} has {numel} elements, not {array.size}")
        if file.readinto(array.view(np.uint8).data) != array.nbytes:
            raise _Refused(f"ends within storage {key[:40]!r}")
    return saved


def read_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """Reads a PyTorch state dict from `.pth`/`.pt`/`.bin`, `.safetensors` or `.npz`.

    Wrappers' prefixes (`module.`) and the dictionary around it (`state_dict`) are taken off.
    ValueError: absent, unreadable, of another kind, or refused (see read_pth).
    """
    path = Path(path)
    files.check_regular(path, "copy its content to one")
    if path.suffix in (".pth", ".pt", ".bin"):
        content = read_pth(path)
    elif path.suffix == ".safetensors":
        content, _ = read_safetensors(path)
    elif path.suffix == ".npz":
        content = read_npz(path)
    else:
        raise ValueError(f"{path}: a checkpoint ends in .pth, .pt, .bin, .safetensors or .npz")
    state = content
    if isinstance(content, dict) and not _is_state_dict(content):
        found = [key for key in NESTED if _is_state_dict(content.get(key))]
        if len(found) == 1:
            state = content[found[0]]
    if not _is_state_dict(state):
        keys = list(content)[:20] if isinstance(content, dict) else []
        raise ValueError(
            f"{path}: holds no state dict, directly or under one of {', '.join(NESTED)}; its keys: "
            f"{', '.join(one_line(k, 40) for k in keys if isinstance(k, str)) or 'none'}"
        )
    for wrapper in WRAPPERS:
        if all(name.startswith(wrapper) for name in state):
            state = {name.removeprefix(wrapper): value for name, value in state.items()}
    return dict(state)


def _is_state_dict(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(
            isinstance(k, str) and k.isprintable() and isinstance(v, np.ndarray)
            for k, v in value.items()
        )
    )


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` file by name; ValueError if it cannot be read without pickle."""
    files.check_regular(path, "copy its content to one")
    try:
        with zipfile.ZipFile(path) as archive:  # compressed, little can be much
            size = sum(info.file_size for info in archive.infolist())
            memory.check_growth(Path(path).stat().st_size, size, FREE_BYTES, "what is in it")
            memory.check_fits(size, str(path))
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:
        raise ValueError(f"{path} is not a readable .npz file: {error}") from error


def read_safetensors(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """(arrays by name, metadata) of a `.safetensors` file; ValueError if it cannot be read."""
    files.check_regular(path, "copy its content to one")
    try:
        # The library refuses a header whose arrays do not fill the file exactly, so its size is
        # that of all arrays together.
        memory.check_fits(Path(path).stat().st_size, str(path))
        with safetensors.safe_open(path, framework="numpy") as file:
            for name in file.keys():
                check_dtype(name, file.get_slice(name).get_dtype())
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
    except (safetensors.SafetensorError, OSError, ValueError, MemoryError) as error:
        what = f"{path} is not a readable .safetensors file: {error}"
        raise ValueError(one_line(what, 600)) from error


def check_dtype(name: str, dtype: str) -> np.dtype:
    """The NumPy type of an array in a `.safetensors` file; ValueError if there is none."""
    if dtype not in SAFETENSORS_DTYPES:
        raise ValueError(
            f"array {one_line(name, 60)!r} is of type {dtype}, which cannot be read; convert it to "
            f"one of {', '.join(SAFETENSORS_DTYPES)}"
        )
    return SAFETENSORS_DTYPES[dtype]
