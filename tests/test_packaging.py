import os
import subprocess
import sys
from pathlib import Path

from stormpsr_jax import __main__ as command

ROOT = Path(__file__).parents[1]


def run(unpacked, cwd, *words):
    return subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_wheel_holds_every_file_of_the_packages(unpacked):
    wanted = {
        path.relative_to(ROOT)
        for name in ("data_prep", "stormpsr_jax")
        for path in (ROOT / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    wanted |= {Path("stormpsr_jax") / p.relative_to(ROOT) for p in ROOT.glob("configs/*.py")}
    others = ("demo.webp", "conf.py", "api.rst")  # README's; the site's
    docs = {path for path in ROOT.glob("docs/*.*") if path.name not in others}
    wanted |= {Path("stormpsr_jax") / path.relative_to(ROOT) for path in docs}
    built = {p.relative_to(unpacked) for p in unpacked.rglob("*") if p.is_file()}
    # What Python and numba compile when a command runs lies beside the code, as in an installation.
    built = {p for p in built if p.suffix not in (".nbc", ".nbi") and "__pycache__" not in p.parts}
    assert {p for p in built if not p.parts[0].endswith(".dist-info")} == wanted


def test_wheel_configs_are_found_by_name_in_an_empty_folder(unpacked, tmp_path):
    code = (
        "from stormpsr_jax.stages import config_flag as c;"
        "[c.load(name) for name in c.shipped()]; print(c.resolve('own:boxes'))"
    )
    done = run(unpacked, tmp_path, "-c", code)
    assert done.stdout == f"{unpacked}/stormpsr_jax/configs/own.py:boxes\n", done.stderr


def test_wheel_command_lists_its_modules(unpacked, tmp_path):
    *lines, docs = run(unpacked, tmp_path, "-m", "stormpsr_jax", "--help").stdout.splitlines()
    assert all(any(line.startswith(f"  {name} ") for line in lines) for name in command.COMMANDS)
    assert docs == f"docs/, to which texts refer: {unpacked}/stormpsr_jax/docs"
    (entry,) = unpacked.glob("*.dist-info/entry_points.txt")
    assert "stormpsr = stormpsr_jax.__main__:main" in entry.read_text()
