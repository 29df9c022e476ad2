"""Reads foreign checkpoint files without PyTorch and without executing anything in them.

A `.pth` file is a zip archive: `<name>/data.pkl`, a pickle of the object with tensors replaced by
references, and `<name>/data/<key>`, the raw storages. A pickle may name any callable to be called
while it is loaded. The reader here resolves a fixed handful of names, all to functions of its own
that build dictionaries and arrays; every other name is refused before anything happens.
"""

import collections
import io
import math
import pickle
import pickletools
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors

STORAGE_DTYPES = {
    "DoubleStorage": np.dtype(np.float64),
    "FloatStorage": np.dtype(np.float32),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}
# What data-parallel and compiled wrappers put before every name.
WRAPPERS = ("module.", "_orig_mod.", "model.")
# Keys under which training scripts keep the state dict.
NESTED = ("state_dict", "model", "model_state_dict")
MAX_AXES = 8
RESAVE = (
    "save the state dict alone: torch.save({'state_dict': model.state_dict()}, FILE) with "
    "PyTorch 1.6 or later"
)


def read_pth(path: str | Path) -> Any:
    """Reads a `.pth` file: the saved object, tensors as (possibly strided, read-only) arrays.

    Raises:
      ValueError: not a zip `.pth`, damaged, or it contains anything that is not a tensor, number,
        string, tuple, list or dict; names what it is.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _Reader(archive, path).read()
    except zipfile.BadZipFile as error:
        raise ValueError(
            f"{path}: not a zip-based PyTorch file, or damaged ({error}); {RESAVE}"
        ) from error


class _Refused(ValueError):
    """An error whose message is complete."""


class _Reader:
    """One archive being read."""

    def __init__(self, archive: zipfile.ZipFile, path: str | Path):
        self.archive = archive
        self.path = path
        self.storages: dict[str, np.ndarray] = {}
        # Members that overlap in the archive could add up to far more than the file.
        self.bytes_left = Path(path).stat().st_size
        roots = [n[: -len("data.pkl")] for n in archive.namelist() if n.endswith("/data.pkl")]
        if len(roots) != 1:
            raise _Refused(f"{path}: a PyTorch file has one */data.pkl, this has {len(roots)}")
        self.root = roots[0]
        self.byteorder = "little"
        if f"{self.root}byteorder" in archive.namelist():
            self.byteorder = self.member("byteorder").decode("ascii", "replace").strip()
        if self.byteorder not in ("little", "big"):
            raise _Refused(f"{path}: unknown byte order {self.byteorder[:20]!r}")

    def member(self, name: str) -> bytes:
        """The bytes of a member. PyTorch never compresses, so a compressed one may be a bomb."""
        try:
            info = self.archive.getinfo(self.root + name)
        except KeyError as error:
            raise _Refused(f"{self.path}: member {name[:40]!r} is missing") from error
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise _Refused(f"{self.path}: member {name[:40]!r} is compressed or encrypted")
        self.bytes_left -= info.file_size
        if self.bytes_left < 0:
            raise _Refused(f"{self.path}: the members claim to be larger than the file")
        return self.archive.read(info)

    def read(self) -> Any:
        """Loads data.pkl."""

        # Functions made anew for each file: the BUILD opcode can set attributes on whatever
        # find_class returned, and must not reach an object that outlives this call.
        def rebuild_tensor(storage, offset, size, stride, *_unused):
            return self.tensor(storage, offset, size, stride)

        def rebuild_parameter(data, *_unused):
            return data

        def ordered_dict(*items):
            return collections.OrderedDict(*items)

        def torch_size(sizes=()):
            return tuple(sizes)

        allowed = {
            ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
            ("torch._utils", "_rebuild_tensor"): rebuild_tensor,
            ("torch._utils", "_rebuild_parameter"): rebuild_parameter,
            ("collections", "OrderedDict"): ordered_dict,
            ("torch", "Size"): torch_size,
        } | {("torch", name): dtype for name, dtype in STORAGE_DTYPES.items()}
        path, persistent_load = self.path, self.storage

        class Unpickler(pickle.Unpickler):
            def find_class(self, module: str, name: str) -> Any:
                if (module, name) not in allowed:
                    raise _Refused(
                        f"{path}: refused to load {module[:60]}.{name[:60]}, which is neither a "
                        f"tensor nor a plain container; {RESAVE}"
                    )
                return allowed[module, name]

            def persistent_load(self, pid: Any) -> np.ndarray:
                return persistent_load(pid)

        try:
            content = self.member("data.pkl")
            for opcode, argument, _ in pickletools.genops(content):
                # The memo is an array as long as the largest index in it.
                if opcode.name.endswith("PUT") and int(argument) > len(content):
                    raise _Refused(f"{path}: the pickle's memo is larger than the pickle")
            return Unpickler(io.BytesIO(content)).load()
        except _Refused:
            raise
        # A hostile or damaged pickle can raise nearly anything, from EOFError to AttributeError.
        except Exception as error:
            raise ValueError(
                f"{self.path}: the pickle is damaged or holds more than tensors and containers "
                f"({type(error).__name__}: {str(error)[:200]}); {RESAVE}"
            ) from error

    def storage(self, pid: Any) -> np.ndarray:
        """The flat array behind a reference ("storage", dtype, key, device, numel)."""
        if not (
            isinstance(pid, tuple)
            and len(pid) == 5
            and pid[0] == "storage"
            and isinstance(pid[1], np.dtype)
            and isinstance(pid[2], str)
        ):
            raise _Refused(f"{self.path}: the pickle refers to something that is no storage")
        _, dtype, key, _, _ = pid
        if key not in self.storages:
            raw = self.member(f"data/{key}")
            if len(raw) % dtype.itemsize:
                raise _Refused(f"{self.path}: storage {key} is no whole number of {dtype}")
            swapped = dtype if self.byteorder == "little" else dtype.newbyteorder(">")
            self.storages[key] = np.frombuffer(raw, swapped)
        return self.storages[key]

    def tensor(self, storage: Any, offset: Any, size: Any, stride: Any) -> np.ndarray:
        """A view of a storage; offset and strides count elements. Never reads outside of it."""
        if not (
            isinstance(storage, np.ndarray)
            and isinstance(size, tuple)
            and isinstance(stride, tuple)
            and len(size) == len(stride) <= MAX_AXES
            and all(isinstance(n, int) and 0 <= n < 2**48 for n in (*size, *stride, offset))
        ):
            raise _Refused(f"{self.path}: a tensor's size, stride or offset is malformed")
        numel = math.prod(size)
        last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
        # More elements than the storage has (a broadcast view) would let a small file ask for any
        # amount of memory.
        if numel and (last >= storage.size or numel > storage.size):
            raise _Refused(
                f"{self.path}: a tensor of size {size} does not fit its storage of {storage.size} "
                "elements (a damaged file, or one with broadcast tensors)"
            )
        if not numel:
            return np.zeros(size, storage.dtype)
        strides = [s * storage.itemsize for s in stride]
        return np.lib.stride_tricks.as_strided(storage[offset:], size, strides, writeable=False)


def read_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """Reads a PyTorch state dict from `.pth`/`.pt`/`.bin`, `.safetensors` or `.npz`.

    Wrappers' prefixes (`module.`) and the dictionary around it (`state_dict`) are taken off.

    Raises:
      ValueError: absent, unreadable, of another kind, or refused (see read_pth).
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"--checkpoint: there is no file {path}")
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
            f"{', '.join(key[:40] for key in keys if isinstance(key, str)) or 'none'}"
        )
    for wrapper in WRAPPERS:
        if all(name.startswith(wrapper) for name in state):
            state = {name.removeprefix(wrapper): value for name, value in state.items()}
    return dict(state)


def _is_state_dict(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(k, str) and isinstance(v, np.ndarray) for k, v in value.items())
    )


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` file by name; ValueError if it cannot be read without pickle."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:
        raise ValueError(f"{path} is not a readable .npz file: {error}") from error


def read_safetensors(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """(arrays by name, metadata) of a `.safetensors` file; ValueError if it cannot be read."""
    if not Path(path).is_file():
        raise ValueError(f"there is no file {path}")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a readable .safetensors file: {error}") from error
