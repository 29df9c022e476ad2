"""Tells what this machine has: ``python -m stormpsr_jax.doctor``.

A line each for versions, devices and how fast they multiply matrices, memory, video codecs and how
fast the demo's video is decoded, and for what is missing for which command. The exit status is 1 if
something is broken that every installation needs; what is optional may be missing.
"""

import importlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from stormpsr_jax import demo
from stormpsr_jax.base import hardware, installed, memory
from stormpsr_jax.base.errors import message_of
from stormpsr_jax.psr.cli import OneLineParser

# Of packages whose top loads little of them.
_MODULES = {
    "array-record": "array_record.python.array_record_module",
    "flax": "flax.linen",
    "orbax-checkpoint": "orbax.checkpoint",
}
# What needs an extra, where that says more than its name.
PURPOSES = {
    "video": "recognise and data own with videos, recognise --video",
    "synthetic": "data synthetic, data cad, main --config=synthetic, =cad",
    "step": "data cad with STEP files",
    "3mf": "data cad with 3MF files",
    "labels": "labels in a spreadsheet",
    "export": "export, models in ONNX",
    "photos": "main --config=own:photos",
    "ray": "data and recognise with --ray",
    "k8s": "main --distributed in pods of Kubernetes",
    "paper": "paper embeddings",
    "wandb": "main --config.metrics_to with wandb",
    "live": "recognise --mqtt, recognise --serve",
    "opcua": "recognise --opcua",
}
_FOR_DEVELOPERS = ("dev", "docs")
_DECODERS = ("h264", "hevc", "vp9", "av1", "mpeg4", "mjpeg")
_ENCODERS = ("libx264", "mpeg4")
_DEVICE_SECONDS = 60  # after which a device that does not answer counts as broken
_FRAMES = 48  # of the video


class Found(NamedTuple):
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


def versions() -> Iterator[Found]:
    """Of this package, Python and the system."""
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    name = f"stormpsr-jax {_version('stormpsr-jax') or '(not installed)'}"
    yield Found(
        "ok", f"{name}, Python {platform.python_version()}, {system}, {os.cpu_count()} cores"
    )


def packages() -> Iterator[Found]:
    """Whether the packages that every installation needs can be imported, and are recent enough."""
    modules = {
        owner.lower().replace("_", "-"): module
        for module, owners in importlib.metadata.packages_distributions().items()
        for owner in owners
        if not module.startswith("_")
    }
    found = []
    for name, wanted in installed.requirements()[""].items():
        version = _version(name) or ""
        remedy = f"pip install -U '{name}{wanted}'"
        try:
            importlib.import_module(_MODULES.get(name) or modules.get(name.lower(), name))
            from packaging.specifiers import SpecifierSet

            if not SpecifierSet(wanted).contains(version or "0", prereleases=True):
                yield Found("broken", f"{name} {version}: needs {wanted}; {remedy}")
                continue
        except Exception as error:  # a library may fail in any way when it is loaded
            yield Found("broken", f"{name} {version}: {type(error).__name__}: {error}; {remedy}")
            continue
        found.append(f"{name} {version}".strip())
    if found:
        yield Found("ok", ", ".join(found))


def devices() -> Iterator[Found]:
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
        yield Found("broken", f"devices: JAX has not answered within {_DEVICE_SECONDS} s")
        return
    except (OSError, ValueError, IndexError):
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        yield Found("broken", f"devices: JAX finds none: {last}")
        return
    for kind, number, size, rate, side, _ in found:
        memory_of_each = f" with {size / 2**30:.0f} GiB each" if size else ""
        rates = f"{rate / 1e9:,.0f} GFLOP/s (matmul of {side} × {side} in float32)"
        yield Found("ok", f"devices: {number} × {kind}{memory_of_each}, {rates}")
    for text in hardware.unused({row[-1] for row in found}):
        yield Found("missing", text)


def measure_devices() -> None:
    """Prints [kind, number, bytes of each, operations per second, side, platform], as JSON."""
    import jax

    rows = []
    there = jax.local_devices()
    for device in {device.device_kind: device for device in reversed(there)}.values():
        side = 1024 if device.platform == "cpu" else 4096
        with jax.default_device(device):
            x = jax.random.normal(jax.random.key(0), (side, side))
            multiply = jax.jit(lambda a: a @ a)
            times = []
            for _ in range(6):  # the first one compiles
                start = time.perf_counter()
                multiply(x).block_until_ready()
                times.append(time.perf_counter() - start)
        kind, size = device.device_kind, (device.memory_stats() or {}).get("bytes_limit")
        number = sum(other.device_kind == kind for other in there)
        rows.append([kind, number, size, 2 * side**3 / min(times), side, device.platform])
    print(json.dumps(rows))


def memories() -> Iterator[Found]:
    """Whether a run could begin, and what is free."""
    try:
        memory.check_start()
    except MemoryError as error:
        yield Found("broken", f"memory: {error}")
        return
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    free = memory.available_bytes()
    yield Found("ok", f"memory: {free / 2**30:.1f} GiB free of {total / 2**30:.1f} GiB")


def video() -> Iterator[Found]:
    """The codecs of PyAV, and how fast it decodes the demo to RGB; nothing without PyAV."""
    if _version("av") is None:
        return
    try:
        import av

        reads, writes = (
            ", ".join(name for name in names if name in av.codecs_available) or "none"
            for names in (_DECODERS, _ENCODERS)
        )
        yield Found("ok", f"video: PyAV {av.__version__} reads {reads}, writes {writes}")
        start, shape = time.perf_counter(), (0, 0)
        with av.open(str(demo.VIDEO)) as container:
            for _, frame in zip(range(_FRAMES), container.decode(video=0), strict=False):
                shape = frame.to_ndarray(format="rgb24").shape[:2]
        rate = _FRAMES / (time.perf_counter() - start)
        yield Found("ok", f"decoding: {rate:,.0f} frames/s ({shape[1]} × {shape[0]})")
    except Exception as error:  # as in `packages`
        yield Found("missing", f"video: PyAV fails: {type(error).__name__}: {message_of(error)}")


def extras() -> Iterator[Found]:
    """Which optional packages there are, and which commands need the others."""
    for extra, wanted in installed.requirements().items():
        names = [name for name in wanted if name not in installed.requirements()[""]]
        if not names or extra in ("", *_FOR_DEVELOPERS):
            continue
        purpose = PURPOSES.get(extra, f"the extra {extra}")
        if lacking := [name for name in names if _version(name) is None]:
            what = f"{', '.join(lacking)} for {purpose}"
            yield Found("missing", f"{what}: {installed.extra(extra)}")
        else:
            yield Found("ok", f"{', '.join(names)} for {purpose}")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    sys.exit(main())
