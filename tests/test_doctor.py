import re
import subprocess
import sys

import pytest

from stormpsr_jax import doctor
from stormpsr_jax.base import installed


@pytest.fixture
def diagnosed(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "devices", lambda: [doctor.Found("ok", "devices: none asked")])

    def diagnose():
        status = doctor.main([])
        return status, capsys.readouterr().out.splitlines()

    return diagnose


@pytest.mark.usefixtures("system")
def test_a_line_each_and_status_0():
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


def test_what_is_optional_may_be_missing_and_needs_no_entry_here(monkeypatch, diagnosed):
    needed = installed.requirements()[""]
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: real(name) if name in needed else None)
    declared = {**installed.requirements(), "sink": {"some-broker": ">=1"}}
    monkeypatch.setattr(installed, "requirements", lambda: declared)
    status, lines = diagnosed()
    assert status == 0
    missing = [line for line in lines if line.startswith("missing")]
    assert len(missing) == len(doctor.PURPOSES) + 1
    (line,) = [line for line in missing if "av for recognise and data own with videos" in line]
    assert "pip install '.[video]'" in line
    assert missing[-1].startswith("missing  some-broker for the extra sink: pip install '.[sink]'")
    assert not any("decoding" in line for line in lines)


def test_a_package_that_every_installation_needs_is_broken(monkeypatch, diagnosed):
    real = doctor._version
    monkeypatch.setitem(sys.modules, "optax", None)
    monkeypatch.setattr(doctor, "_version", lambda name: "0.1" if name == "numpy" else real(name))
    status, lines = diagnosed()
    assert status == 1
    old, broken = [line for line in lines if line.startswith("broken")]
    assert old == "broken   numpy 0.1: needs >=2.0; pip install -U 'numpy>=2.0'"
    assert re.match(r"broken   optax \S+: ModuleNotFoundError: import of optax halted", broken)


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("import time; time.sleep(60)", "JAX has not answered within 0.5 s"),
        ("import os; os.abort()", "JAX finds none: exit status -6"),
        ("raise RuntimeError('no backend')", "JAX finds none: RuntimeError: no backend"),
    ],
)
def test_a_device_that_fails_is_a_line(monkeypatch, program, says):
    run = subprocess.run

    def other(words, **options):
        return run([sys.executable, "-c", program], **options)

    monkeypatch.setattr(doctor.subprocess, "run", other)
    monkeypatch.setattr(doctor, "_DEVICE_SECONDS", 0.5 if "sleep" in program else 60)
    assert list(doctor.devices()) == [("broken", f"devices: {says}")]
