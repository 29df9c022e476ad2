"""The systemd unit and the container file of tools/station/, as far as they can be tried here."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from stormpsr_jax import recognise
from tests.conftest import SOURCES

ROOT = Path(__file__).parents[1]
UNIT = ROOT / "tools/station/stormpsr@.service"
CONTAINER = ROOT / "tools/station/Containerfile"


def setting(name):
    return re.findall(rf"(?m)^{name}=(.*)$", UNIT.read_text())


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd")
def test_the_unit_is_what_systemd_takes(system, tmp_path):
    """Verified as an instance, with this Python in place of the one in /opt."""
    copy = tmp_path / "stormpsr@bench7.service"
    copy.write_text(UNIT.read_text().replace("/opt/stormpsr/bin/python", sys.executable))
    done = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True)
    said = [line for line in done.stderr.splitlines() if "stormpsr@" in line]
    assert (done.returncode, said) == (0, [])


def test_the_command_of_the_unit_has_the_options_that_recognise_takes():
    (command,) = setting("ExecStart")
    options = "--reset=complete --serve=0.0.0.0:8765"
    assert options in UNIT.read_text()
    for name, value in (("MODEL", "m"), ("SOURCE", "camera:0")):
        assert f"#   {name}=" in UNIT.read_text()
        command = command.replace(f"${{{name}}}", value)
    words = (
        command.replace("$OPTIONS", options).replace("%S", "/var/lib").replace("%i", "b").split()
    )
    assert words[1:3] == ["-m", "stormpsr_jax.recognise"]
    args = recognise._parser().parse_intermixed_args(words[3:])
    assert (args.model, args.source, args.reset) == ("m", ["camera:0"], "complete")
    folder = setting("StateDirectory")[0].replace("%i", "b")
    assert Path(args.state).parent == Path("/var/lib") / folder


def test_the_container_builds_what_the_wheel_needs_has_known_extras_and_is_not_root():
    text = CONTAINER.read_text()
    copied = {name for line in re.findall(r"(?m)^COPY (.*) ", text) for name in line.split()}
    assert copied == set(SOURCES), "a wheel is made of these in conftest.unpacked"
    (extras,) = re.findall(r"\$wheel\[([\w,]+)\]", text)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(extras.split(",")) <= project["optional-dependencies"].keys()
    after = text.rpartition("\nUSER ")[2]
    assert after.startswith("station\n")
    assert 'ENTRYPOINT ["python", "-m", "stormpsr_jax.recognise"]' in after
    versions = set(re.findall(r"(?m)^FROM python:([\d.]+)", text))
    assert project["requires-python"] in {f">={version}" for version in versions}
