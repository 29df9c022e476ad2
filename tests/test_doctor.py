import json
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from stormpsr_jax import doctor
from stormpsr_jax.base import hardware

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def names(lines):
    return {re.match(r"[\w-]+", line)[0].lower() for line in lines}


def test_checks_a_line_each_and_status_0():
    start = time.monotonic()
    words = [sys.executable, "-m", "stormpsr_jax.doctor"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    assert all(re.match(r"(ok|missing)\s+\S", line) for line in lines)
    patterns = (
        rf"stormpsr-jax .*Python {sys.version_info[0]}\.{sys.version_info[1]}",
        r"jax 0\.\d+.*numpy \d",
        r"devices: \d+ × .*[\d,]+ GFLOP/s \(matmul of 1024 × 1024 in float32\)",
        r"memory: [\d.]+ GiB free of [\d.]+ GiB",
    )
    for pattern in patterns:
        assert sum(bool(re.search(pattern, line)) for line in lines) == 1, pattern
    for extra, (_, commands) in doctor.EXTRAS.items():
        (line,) = [line for line in lines if commands in line]
        assert line.startswith("ok") or f"[{extra}]" in line
    assert time.monotonic() - start < 90, "15 s where nothing else runs"


def test_base_is_what_the_project_declares():
    assert {name.lower() for name in doctor.BASE} == names(PROJECT["dependencies"])
    for extra, (modules, _) in doctor.EXTRAS.items():
        packages = names(PROJECT["optional-dependencies"][extra]) - {"stormpsr-jax"}
        others = {"scikit-learn": "sklearn", "python-fcl": "fcl"}
        others |= {name: name.replace("-", "_") for name in ("onnx-ir", "sse-starlette")}
        named = {others.get(p, p.partition("-")[0]) for p in packages}
        assert {m.partition(".")[0] for m in modules} == named


def test_video_rate_and_codecs(monkeypatch):
    pytest.importorskip("av", reason="needs the extra video")
    codecs, rate = doctor.video()
    assert re.search(r"PyAV \d.*reads h264, .*writes (libx264|mpeg4)", codecs.text)
    assert int(re.search(r"([\d,]+) frames/s", rate.text)[1].replace(",", "")) > 5
    content = doctor._make_video("mpeg4")
    monkeypatch.setattr(doctor, "_FRAMES", 50)
    monkeypatch.setattr(doctor, "_make_video", lambda codec: content)
    assert list(doctor.video())[1] == (
        "missing",
        "video: PyAV fails: ValueError: 48 of 50 frames came back",
    )


def all_lines(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "devices", lambda: [doctor.Line("ok", "devices: none asked")])
    status = doctor.main([])
    return status, capsys.readouterr().out.splitlines()


def test_checks_what_is_optional_may_be_missing(monkeypatch, capsys):
    for modules, _ in doctor.EXTRAS.values():
        for module in modules:
            monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(doctor, "_lacking", lambda module: sys.modules.get(module, "") is None)
    status, lines = all_lines(monkeypatch, capsys)
    assert status == 0
    missing = [line for line in lines if line.startswith("missing")]
    assert len(missing) == len(doctor.EXTRAS)
    assert "missing  av for recognise and data own with videos" in missing[0]
    assert (
        "missing  h11, paho.mqtt, sse_starlette, starlette, uvicorn for recognise --mqtt"
        in missing[-2]
    )
    assert "missing  asyncua for recognise --opcua" in missing[-1]
    assert not any("decoding" in line for line in lines)


def test_checks_errors_a_package_that_every_installation_needs(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "optax", None)
    status, lines = all_lines(monkeypatch, capsys)
    assert status == 1
    (broken,) = [line for line in lines if line.startswith("broken")]
    assert re.match(r"broken   optax \S+: ModuleNotFoundError: import of optax halted", broken)


def test_checks_errors_a_version_that_is_too_old(monkeypatch, capsys):
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: "0.1" if name == "numpy" else real(name))
    status, lines = all_lines(monkeypatch, capsys)
    if not doctor._wanted_versions():
        pytest.skip("the package is not installed, so that it declares nothing")
    assert status == 1
    assert [line for line in lines if line.startswith("broken")] == [
        "broken   numpy 0.1: needs >=2.0; pip install -U numpy"
    ]


def test_checks_errors_memory_that_a_run_does_not_fit_in(monkeypatch):
    monkeypatch.setattr(doctor.memory, "MIN_MEMORY", 2**60)
    (line,) = doctor.memories()
    assert line.status == "broken"
    assert "a run needs" in line.text


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("import time; time.sleep(60)", "JAX has not answered within 0.5 s"),
        ("import os; os.abort()", "JAX finds none: exit status -6"),
        ("raise RuntimeError('no backend')", "JAX finds none: RuntimeError: no backend"),
        ("print('[]x')", "JAX finds none: exit status 0"),
    ],
)
def test_devices_errors_a_device_that_fails_is_a_line(monkeypatch, program, says):
    run = subprocess.run

    def other(words, **options):
        return run([sys.executable, "-c", program], **options)

    monkeypatch.setattr(doctor.subprocess, "run", other)
    monkeypatch.setattr(doctor, "_DEVICE_SECONDS", 0.5 if "sleep" in program else 60)
    (line,) = doctor.devices()
    assert line == ("broken", f"devices: {says}")


def test_devices_a_gpu_that_jax_does_not_use_is_told(monkeypatch):
    def found(*rows):
        done = subprocess.CompletedProcess([], 0, json.dumps(rows), "")
        monkeypatch.setattr(doctor.subprocess, "run", lambda *words, **options: done)
        return list(doctor.devices())

    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setattr(hardware, "_sign", lambda kind: "/dev/x" if kind.extra == "cuda" else "")
    lines = found(["cpu", 1, None, 2e10, 1024, "cpu"])
    assert [line.status for line in lines] == ["ok", "missing"]
    assert lines[1].text.startswith("this machine has an NVIDIA GPU (/dev/x), which JAX does not")
    (line,) = found(["NVIDIA H100", 2, 80 * 2**30, 5e13, 4096, "gpu"])
    assert line.text.startswith("devices: 2 × NVIDIA H100 with 80 GiB each, 50,000 GFLOP/s")
