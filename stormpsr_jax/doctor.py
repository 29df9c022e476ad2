"""Tells what this machine has: ``python -m stormpsr_jax.doctor``.

A line each for versions, devices and how fast they multiply matrices, memory, video codecs and how
fast a small video is decoded, and for what is missing for which command. The exit status is 1 if
something is broken that every installation needs; what is optional may be missing.
"""

import importlib
import importlib.metadata
import importlib.util
import io
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from stormpsr_jax.base import hardware, installed, memory
from stormpsr_jax.base.errors import message_of
from stormpsr_jax.psr.cli import OneLineParser

# Modules of the packages that every installation needs.
BASE = {
    "absl-py": "absl",
    "array-record": "array_record.python.array_record_module",
    "clu": "clu.parameter_overview",
    "flax": "flax.linen",
    "grain": "grain",
    "jax": "jax",
    "jinja2": "jinja2",
    "matplotlib": "matplotlib",
    "ml-collections": "ml_collections",
    "msgspec": "msgspec",
    "numpy": "numpy",
    "optax": "optax",
    "orbax-checkpoint": "orbax.checkpoint",
    "pillow": "PIL.Image",
    "pyyaml": "yaml",
    "safetensors": "safetensors",
    "simplejpeg": "simplejpeg",
    "tensorboardX": "tensorboardX",
    "tensorflow-datasets": "tensorflow_datasets",
    "tqdm": "tqdm",
}
# Per extra: its modules, and the commands that need it.
EXTRAS = {
    "video": (["av"], "recognise and data own with videos, recognise --video"),
    "synthetic": (
        ["trimesh", "numba", "fcl", "scipy"],
        "data synthetic, data cad, main --config=synthetic, =cad",
    ),
    "step": (["cascadio"], "data cad with STEP files"),
    "3mf": (["lib3mf"], "data cad with 3MF files"),
    "labels": (["openpyxl"], "labels in a spreadsheet"),
    "export": (
        ["flatbuffers", "onnx", "onnx_ir", "onnxruntime"],
        "export, models in ONNX and StableHLO",
    ),
    "ray": (["ray"], "data and recognise with --ray"),
    "paper": (["sklearn.manifold"], "paper embeddings"),
    "wandb": (["wandb"], "main --config.metrics_to with wandb"),
    "live": (
        ["h11", "paho.mqtt", "sse_starlette", "starlette", "uvicorn"],
        "recognise --mqtt, recognise --serve",
    ),
    "opcua": (["asyncua"], "recognise --opcua"),
}
_DECODERS = ("h264", "hevc", "vp9", "av1", "mpeg4", "mjpeg")
_ENCODERS = ("libx264", "mpeg4")
_DEVICE_SECONDS = 60  # after which a device that does not answer counts as broken
_SIDES = {"cpu": 1024}  # of the matrices; elsewhere:
_SIDE = 4096
_FRAMES, _WIDTH, _HEIGHT = 48, 640, 480  # of the video


class Line(NamedTuple):
    """A line of the report: "ok", "missing" (optional) or "broken" (needed), and a text."""

    status: str
    text: str


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    OneLineParser(
        prog="python -m stormpsr_jax.doctor", description=__doc__.partition("\n")[0]
    ).parse_args(argv)
    broken = False
    for check in (versions, packages, devices, memories, video, extras):
        for line in check():
            print(f"{line.status:<8} {' '.join(line.text.split())}", flush=True)
            broken |= line.status == "broken"
    return int(broken)


def versions() -> Iterator[Line]:
    """Of this package, Python and the system."""
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    name = f"stormpsr-jax {_version('stormpsr-jax') or '(not installed)'}"
    yield Line(
        "ok", f"{name}, Python {platform.python_version()}, {system}, {os.cpu_count()} cores"
    )


def packages() -> Iterator[Line]:
    """Whether the packages that every installation needs can be imported, and are recent enough."""
    wanted = _wanted_versions()
    found = []
    for name, module in BASE.items():
        version = _version(name)
        try:
            importlib.import_module(module)
        except Exception as error:  # a library may fail in any way when it is loaded
            why = f"{type(error).__name__}: {error}"
            remedy = f"pip install '{name}{wanted.get(name, '')}'"
            yield Line("broken", f"{name} {version or ''}: {why}; {remedy}")
            continue
        if version and name in wanted and not wanted[name].contains(version, prereleases=True):
            yield Line("broken", f"{name} {version}: needs {wanted[name]}; pip install -U {name}")
        else:
            found.append(f"{name} {version or ''}".strip())
    if found:
        yield Line("ok", ", ".join(found))


def devices() -> Iterator[Line]:
    """What JAX computes on, how fast, and whether there is a GPU that it does not use.

    JAX runs in a process of its own, as a device that another program has may never answer.
    """
    words = [sys.executable, "-c", "from stormpsr_jax import doctor; doctor.measure_devices()"]
    quiet = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TF_CPP_MIN_LOG_LEVEL": "3"}
    try:
        done = subprocess.run(
            words,
            env=os.environ | quiet,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_DEVICE_SECONDS,
        )
        found = json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        yield Line("broken", f"devices: JAX has not answered within {_DEVICE_SECONDS} s")
        return
    except (OSError, ValueError, IndexError):
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        yield Line("broken", f"devices: JAX finds none: {last}")
        return
    for kind, number, size, rate, side, _ in found:
        text = f"devices: {number} × {kind}" + (
            f" with {size / 2**30:.0f} GiB each" if size else ""
        )
        yield Line(
            "ok", f"{text}, {rate / 1e9:,.0f} GFLOP/s (matmul of {side} × {side} in float32)"
        )
    for text in hardware.unused({row[-1] for row in found}):
        yield Line("missing", text)


def measure_devices() -> None:
    """Prints [kind, number, bytes of each, operations per second, side, platform], as JSON."""
    import jax

    kinds: dict[str, list] = {}
    for device in jax.local_devices():
        kinds.setdefault(device.device_kind, []).append(device)
    rows = []
    for kind, same in kinds.items():
        side = _SIDES.get(same[0].platform, _SIDE)
        rate = _matmul_rate(same[0], side)
        size = (same[0].memory_stats() or {}).get("bytes_limit")
        rows.append([kind, len(same), size, rate, side, same[0].platform])
    print(json.dumps(rows))


def _matmul_rate(device: Any, side: int) -> float:
    """Operations per second of a jax.Device."""
    import jax

    with jax.default_device(device):
        x = jax.random.normal(jax.random.key(0), (side, side))
        multiply = jax.jit(lambda a: a @ a)
        multiply(x).block_until_ready()
        times = []
        for _ in range(5):
            start = time.perf_counter()
            multiply(x).block_until_ready()
            times.append(time.perf_counter() - start)
    return 2 * side**3 / min(times)


def memories() -> Iterator[Line]:
    """Whether a run could begin, and what is free."""
    try:
        memory.check_start()
    except MemoryError as error:
        yield Line("broken", f"memory: {error}")
        return
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    free = memory.available_bytes()
    yield Line("ok", f"memory: {free / 2**30:.1f} GiB free of {total / 2**30:.1f} GiB")


def video() -> Iterator[Line]:
    """The codecs of PyAV, and how fast it decodes a small video to RGB; nothing without PyAV."""
    if _lacking("av"):
        return
    try:
        import av

        codecs = av.codecs_available
        reads = [name for name in _DECODERS if name in codecs]
        writes = [name for name in _ENCODERS if name in codecs]
        yield Line(
            "ok", f"video: PyAV {av.__version__} reads {_join(reads)}, writes {_join(writes)}"
        )
        if writes:
            rate = _decoding_rate(_make_video(writes[0]))
            yield Line("ok", f"decoding: {rate:,.0f} frames/s ({_WIDTH} × {_HEIGHT}, {writes[0]})")
    except Exception as error:  # as in `packages`
        yield Line("missing", f"video: PyAV fails: {type(error).__name__}: {message_of(error)}")


def _make_video(codec: str) -> bytes:
    import av
    import numpy as np

    file = io.BytesIO()
    columns = np.arange(_WIDTH, dtype=np.uint8)
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream(codec, rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = _WIDTH, _HEIGHT, "yuv420p"
        for i in range(_FRAMES):
            picture = np.broadcast_to((columns + 5 * i)[None, :, None], (_HEIGHT, _WIDTH, 3))
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()


def _decoding_rate(content: bytes) -> float:
    import av

    start = time.perf_counter()
    with av.open(io.BytesIO(content), "r") as container:
        frames = [frame.to_ndarray(format="rgb24").shape for frame in container.decode(video=0)]
    if frames != _FRAMES * [(_HEIGHT, _WIDTH, 3)]:
        raise ValueError(f"{len(frames)} of {_FRAMES} frames came back")
    return _FRAMES / (time.perf_counter() - start)


def extras() -> Iterator[Line]:
    """Which optional packages there are, and which commands need the others."""
    for extra, (modules, commands) in EXTRAS.items():
        lacking = [module for module in modules if _lacking(module)]
        if lacking:
            what = f"{_join(lacking)} for {commands}"
            yield Line("missing", f"{what}: {installed.extra(extra)}")
        else:
            yield Line("ok", f"{_join(modules)} for {commands}")


def _lacking(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is None
    except (ImportError, ValueError):  # of the package that it is in
        return True


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _wanted_versions() -> dict:
    """The versions that are needed, by package; none where this package is not installed."""
    try:
        from packaging.requirements import Requirement

        lines = importlib.metadata.requires("stormpsr-jax") or ()
    except ImportError:  # also what the metadata raises
        return {}
    wanted = [Requirement(line) for line in lines if "extra ==" not in line]
    return {one.name: one.specifier for one in wanted}


def _join(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"


if __name__ == "__main__":
    sys.exit(main())
