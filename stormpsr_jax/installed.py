"""What is installed, to tell whether machines that work together have the same."""

import functools
import hashlib
import importlib.metadata
import platform
from pathlib import Path

# The packages on which the bytes of data folders and results depend.
_LIBRARIES = (
    "array-record", "av", "embreex", "flax", "jax", "jaxlib", "numpy", "pillow", "protobuf",
    "simplejpeg", "tensorflow-datasets", "trimesh",
)  # fmt: skip
_ROOT = Path(__file__).parents[1]


def code_digest(*packages: Path) -> str:
    """Returns a checksum of the Python files of packages, given as folders."""
    digest = hashlib.sha256()
    for package in packages:
        for path in sorted(package.rglob("*.py")):
            name = path.relative_to(package.parent).as_posix()
            digest.update(f"{name}\0".encode() + path.read_bytes())
    return digest.hexdigest()


@functools.cache
def parts() -> dict[str, str]:
    """Returns Python's version, the code of this project, and the versions of its libraries."""
    code = code_digest(_ROOT / "stormpsr_jax", _ROOT / "data_prep")
    return {
        "Python": platform.python_version(),
        "stormpsr_jax": f"of code {code[:12]}",
        **{name: _version(name) for name in _LIBRARIES},
    }


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "missing"
