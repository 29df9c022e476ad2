"""What is installed, to tell whether machines that work together have the same; what is missing."""

import functools
import hashlib
import importlib.metadata
import importlib.util
import platform
from collections.abc import Sequence
from pathlib import Path

# The packages on which the bytes of data folders and results depend.
_LIBRARIES = (
    "array-record", "av", "cascadio", "flax", "jax", "jaxlib", "lib3mf", "numba", "numpy",
    "onnxruntime", "pillow", "protobuf", "simplejpeg", "tensorflow-datasets", "trimesh",
)  # fmt: skip
_ROOT = Path(__file__).parents[2]


def code_digest(*packages: Path) -> str:
    """Returns a checksum of the Python files of packages, given as folders."""
    digest = hashlib.sha256()
    for package in packages:
        for path in sorted(package.rglob("*.py")):
            name = path.relative_to(package.parent).as_posix()
            digest.update(f"{name}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def extra(name: str) -> str:
    """Returns how to install an extra. By its name alone no index has this package.

    Whoever registered that name would have their code run by those who follow such a hint.
    """
    by_address = f"'stormpsr-jax[{name}] @ git+ADDRESS' with the repository's"
    return f"pip install '.[{name}]' in the clone, 'WHEEL[{name}]' with its file, or {by_address}"


def check_extra(name: str, modules: Sequence[str], what: str) -> None:
    """Raises ValueError if one of an extra's modules is missing, saying what needs it."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise ValueError(f"{what} needs {module!r}: {extra(name)}")


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
