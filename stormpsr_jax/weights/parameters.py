"""Parameters in files: our own format, published backbones and released PyTorch checkpoints."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors.numpy
from flax import traverse_util

from stormpsr_jax.base import files
from stormpsr_jax.networks.backbones import LABELS
from stormpsr_jax.weights import backbones, torch_files
from stormpsr_jax.weights.torch_layout import check_names, check_ours, from_state_dict

FORMAT = "stormpsr_jax"
_IMPORT = (
    "make such a file with `python -m stormpsr_jax.weights import --kind=… --checkpoint=… --out=…`"
)
# A module that the parameters of each kind have at their top, and no other kind has.
LANDMARKS = backbones.LANDMARKS | {
    "spatial": "encoder",
    "temporal": "pos_embedding",  # of all the back-ends only the transformer has it
    "storm": "temporal",
}
KINDS = tuple(LANDMARKS)


def save_params(
    path: str | Path,
    params: Mapping,
    batch_stats: Mapping | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Writes parameters (nested dicts of arrays) to a `.safetensors` file in our format, whole.

    `metadata` values are stored as JSON text. OSError names the file.
    """
    flat = _flat(params, batch_stats or {})
    arrays = {k: np.ascontiguousarray(jax.device_get(v)) for k, v in sorted(flat.items())}
    text = {k: json.dumps(v) for k, v in (metadata or {}).items()}
    text |= {"format": FORMAT, "sha256": _checksum(arrays)}
    write_safetensors(path, arrays, text)


def _checksum(arrays: Mapping[str, np.ndarray]) -> str:
    """The SHA-256 of arrays, with their names, types and shapes."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.name} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def write_safetensors(
    path: str | Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes a `.safetensors` file, whole and with the permissions of any new file.

    The same arrays and metadata give the same bytes. (The library's own writer leaves the file
    unreadable for everybody but its owner, and puts metadata into it in any order.) OSError names
    the file.
    """
    content = safetensors.numpy.save(dict(arrays), metadata=dict(metadata or {}) or None)
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    if "__metadata__" in header:
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # as the format wants the data aligned
    with files.replacing(path) as part:
        part.write_bytes(b"".join([len(text).to_bytes(8, "little"), text, content[end:]]))


def load_params(path: str | Path) -> tuple[dict, dict]:
    """Reads (params, batch_stats), nested dicts of NumPy arrays, from a file of `save_params`.

    ValueError if it is absent, damaged, or not in our format.
    """
    arrays, metadata = torch_files.read_safetensors(path)
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path} is not in this package's format; {_IMPORT}")
    return _trees(path, arrays, metadata)


def _trees(
    path: str | Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> tuple[dict, dict]:
    found = _checksum(arrays)
    if metadata.get("sha256", found) != found:
        raise ValueError(f"{path} is damaged: its arrays differ from their checksum; make it again")
    tree = traverse_util.unflatten_dict(arrays, sep="/")
    return tree.get("params", {}), tree.get("batch_stats", {})


def initialise_from(
    path: str | Path, params: Mapping, batch_stats: Mapping, size: tuple[int, int] | None = None
) -> tuple[dict, dict, int]:
    """Replaces freshly initialised values by those of a file (a config's `init_from`).

    Every value in the file must have its place, and every parameter must be in the file, with one
    exception: a file that holds only a backbone, of ours or as timm or transformers publish it,
    initialises the `encoder` of a SpatialEncoder and leaves its heads as they are. `size` is (H, W)
    of the pictures of `params`, to which a position embedding of another length is resized; None is
    a square.

    Returns (params, batch_stats, number): new dicts, and how many arrays are the file's. ValueError
    lists missing and unexpected names, or names a shape, and how backbones differ.
    """
    loaded_params, loaded_stats, library = load_any(Path(path))
    landmarks = backbones.LANDMARKS.values()
    backbone_only = "encoder" in params and not loaded_params.keys().isdisjoint(landmarks)
    if backbone_only:
        loaded_params = {"encoder": loaded_params}

    wanted = _flat(params, batch_stats)
    rows = _flat(loaded_params, loaded_stats)
    inside = "params/encoder/" if backbone_only else ""
    given, fresh = loaded_params.get("encoder", {}), params.get("encoder", {})
    why = backbones.differences(given, fresh)
    check_names(f"{path}{why}", [name for name in wanted if name.startswith(inside)], rows)
    if given and backbones.kind_of(given) == backbones.kind_of(fresh):
        given = backbones.fitted(given, fresh, size, library, "params/encoder/")
        loaded_params = {**loaded_params, "encoder": given}

    taken = _flat(loaded_params, loaded_stats)
    for name, value in taken.items():
        if not np.isfinite(np.asarray(value, np.float32)).all():
            raise ValueError(
                f"{path}: {name} holds numbers that are not finite; take weights of a training "
                "that did not diverge"
            )
        if value.shape != (shape := wanted[name].shape):
            raise ValueError(
                f"{path}{why}: {name} has shape {value.shape}, the model needs {shape}"
            )
        wanted[name] = value.astype(wanted[name].dtype)
    tree = traverse_util.unflatten_dict(wanted, sep="/")
    return tree.get("params", {}), tree.get("batch_stats", {}), len(taken)


def _flat(params: Mapping, batch_stats: Mapping) -> dict[str, np.ndarray]:
    tree = {"params": params, "batch_stats": batch_stats}
    return traverse_util.flatten_dict(tree, sep="/")


def load_any(path: Path, kind: str | None = None) -> tuple[dict, dict, str | None]:
    """(params, batch_stats, library) of a foreign checkpoint or of a file of ours.

    `kind` is what it has to hold; None is anything of ours, or a published backbone. The library,
    that of an import, is None of all but a published backbone.
    """
    if path.suffix == ".safetensors":
        arrays, metadata = torch_files.read_safetensors(path)
        if metadata.get("format") == FORMAT:
            if kind is not None:
                tops = sorted({n.split("/")[1] for n in arrays if n.startswith("params/")})
                if LANDMARKS[kind] not in tops:
                    only = " (only the transformer is one)" if kind == "temporal" else ""
                    held = f"it holds {', '.join(tops)}{only}"
                    raise ValueError(f"{path} is no --kind={kind}: {held}")
                check_ours(arrays, kind, path)
            known = {json.dumps(name): name for name in backbones.LIBRARIES}
            library = known.get(metadata.get("library", ""))
            return *_trees(path, arrays, metadata), library
    state, library = torch_files.read_state_dict(path), None
    if kind is None:
        kind = backbones.kind_published(state)
        if kind is None:
            names = " or a ".join(LABELS.values())
            raise ValueError(
                f"{path} is neither in this package's format nor a {names} as timm or transformers "
                f"publish it; {_IMPORT}"
            )
    if kind in backbones.MODULES:
        state, library = backbones.published(kind, state, path)
    return *from_state_dict(state, kind, path), library
