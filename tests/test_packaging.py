import os
import re
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
    """Those of the guide too; an unknown stage ends the run as soon as the config is read."""
    guide = (ROOT / "docs" / "own-product.md").read_text("utf-8")
    names = re.findall(r"stormpsr_jax\.main --config=(\S+)", guide)
    assert {name.partition(":")[0] for name in names} == {"cad", "own"}
    code = (
        "from stormpsr_jax.stages import config_flag as c;"
        f"[c.load(name) for name in [*c.shipped(), *{names}]]; print(c.resolve('own:boxes'))"
    )
    done = run(unpacked, tmp_path, "-c", code)
    assert done.stdout == f"{unpacked}/stormpsr_jax/configs/own.py:boxes\n", done.stderr
    words = ("-m", "stormpsr_jax.main", "--config=synthetic", "--config.stages=('x',)")
    done = run(unpacked, tmp_path, *words, "--workdir=run")
    assert done.returncode == 2
    assert "error: stages names ['x']" in done.stderr


def test_wheel_has_the_pages_that_texts_refer_to_and_what_their_links_lead_to(unpacked):
    texts = [
        path.read_text("utf-8") for end in ("py", "html") for path in unpacked.rglob(f"*.{end}")
    ]
    pattern = r"(?<![\w/])(?:docs|data_prep)/[\w-]+\.md\b"
    named = {page for text in texts for page in re.findall(pattern, text)}
    assert {"docs/recognise.md", "docs/own-product.md"} <= named
    for page in named:
        folder = unpacked / "stormpsr_jax" if page.startswith("docs/") else unpacked
        assert (folder / page).is_file(), page
    found = {
        (page, link)
        for page in unpacked.rglob("*.md")
        for link in re.findall(r"\]\((?!\w+:)([^)#\s]+)", page.read_text("utf-8"))
    }
    assert len(found) > 40
    assert {link for page, link in found if not (page.parent / link).exists()} == set()
    start = (unpacked / "stormpsr_jax/docs/start.md").read_text("utf-8")
    assert "quickstart.ipynb (`notebooks/quickstart.ipynb` in the repository)" in start


def test_wheel_command_lists_its_modules(unpacked, tmp_path):
    *said, docs = run(unpacked, tmp_path, "-m", "stormpsr_jax", "--help").stdout.splitlines()
    for name in command.COMMANDS:
        assert any(line.startswith(f"  {name} ") for line in said)
    assert max(map(len, said)) < 110
    assert docs == f"docs/, to which texts refer: {unpacked}/stormpsr_jax/docs"
    (entry,) = unpacked.glob("*.dist-info/entry_points.txt")
    assert "stormpsr = stormpsr_jax.__main__:main" in entry.read_text()
    version = run(unpacked, tmp_path, "-m", "stormpsr_jax", "--version").stdout
    assert next(unpacked.glob("*.dist-info")).name == f"stormpsr_jax-{version.strip()}.dist-info"
