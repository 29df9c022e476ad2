"""The wheel: what is in it, and that it works in an empty folder; and the command `stormpsr`."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from stormpsr_jax import __main__ as command
from stormpsr_jax.psr.cli import OneLineParser
from stormpsr_jax.stages import config_flag
from tests.support.commands import refused

ROOT = Path(__file__).parents[1]


def run(unpacked, cwd, *words):
    """Runs Python in an empty folder with the wheel's modules before any installed ones."""
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
    for name in (
        "stormpsr_jax/configs/synthetic.py",
        "stormpsr_jax/procedures/meccano.json",
        "stormpsr_jax/templates/report.html",
        "stormpsr_jax/pretrained/general_detector.safetensors",
        "stormpsr_jax/pretrained/general_encoder.safetensors",
        "stormpsr_jax/demo/demo.mp4",
        "stormpsr_jax/demo/labels/demo.csv",
        "stormpsr_jax/demo/model/weights.safetensors",
        "stormpsr_jax/py.typed",
    ):
        assert Path(name) in built


def test_wheel_configs_are_found_by_name_in_an_empty_folder(unpacked, tmp_path):
    """An unknown stage ends the run as soon as the config is read."""
    code = (
        "import importlib; from stormpsr_jax.stages import config_flag;"
        "find = lambda name: importlib.import_module(f'stormpsr_jax.configs.{name}');"
        "[find(name).get_config() for name in config_flag.shipped()];"
        "print(config_flag.resolve('own:boxes')); print(find('default').__file__)"
    )
    done = run(unpacked, tmp_path, "-c", code)
    folder = unpacked / "stormpsr_jax" / "configs"
    assert done.stdout == f"{folder}/own.py:boxes\n{folder}/default.py\n", done.stderr

    words = ("-m", "stormpsr_jax.main", "--config=synthetic", "--config.stages=('x',)")
    done = run(unpacked, tmp_path, *words, "--workdir=run")
    assert done.returncode == 2
    assert "error: stages names ['x']" in done.stderr


def test_wheel_has_the_configs_of_the_guide_and_the_pages_that_texts_refer_to(unpacked, tmp_path):
    """In an empty folder, by the names that docs/own-product.md has."""
    guide = (ROOT / "docs" / "own-product.md").read_text("utf-8")
    names = re.findall(r"stormpsr_jax\.main --config=(\S+)", guide)
    assert {name.partition(":")[0] for name in names} == {"cad", "own"}
    code = f"from stormpsr_jax.stages import config_flag as c; [c.load(n) for n in {names}]"
    done = run(unpacked, tmp_path, "-c", code)
    assert done.returncode == 0, done.stderr
    named = {
        page
        for path in [*unpacked.rglob("*.py"), *unpacked.rglob("*.html")]
        for page in re.findall(
            r"(?<![\w/])(?:docs|data_prep)/[\w-]+\.md\b", path.read_text("utf-8")
        )
    }
    assert {"docs/recognise.md", "docs/own-product.md"} <= named
    for page in named:
        folder = unpacked / "stormpsr_jax" if page.startswith("docs/") else unpacked
        assert (folder / page).is_file(), page
    said = run(unpacked, tmp_path, "-m", "stormpsr_jax").stdout
    assert said.splitlines()[-1] == f"docs/, to which texts refer: {unpacked}/stormpsr_jax/docs"


def test_wheel_links_of_pages_lead_to_what_is_in_it(unpacked):
    found = {
        (page, link)
        for page in unpacked.rglob("*.md")
        for link in re.findall(r"\]\((?!\w+:)([^)#\s]+)", page.read_text("utf-8"))
    }
    assert len(found) > 40
    assert {link for page, link in found if not (page.parent / link).exists()} == set()
    start = (unpacked / "stormpsr_jax/docs/start.md").read_text("utf-8")
    assert "](../configs/default.py)" in start
    assert "quickstart.ipynb (`notebooks/quickstart.ipynb` in the repository)" in start
    data = (unpacked / "data_prep/README.md").read_text("utf-8")
    assert "](../stormpsr_jax/docs/own-product.md" in data


def test_wheel_command_lists_its_modules_without_jax(unpacked, tmp_path):
    code = (
        "import sys; sys.argv[1:] = ['--help']; from stormpsr_jax import __main__ as command;"
        "command.main(); assert not {'jax', 'flax', 'grain'} & sys.modules.keys()"
    )
    done = run(unpacked, tmp_path, "-c", code)
    assert done.returncode == 0, done.stderr
    for name in command.COMMANDS:
        assert f"\n  {name} " in done.stdout
    assert max(map(len, done.stdout.splitlines()[:-1])) < 110
    (entry,) = unpacked.glob("*.dist-info/entry_points.txt")
    assert "stormpsr = stormpsr_jax.__main__:main" in entry.read_text()
    version = run(unpacked, tmp_path, "-m", "stormpsr_jax", "--version").stdout
    assert next(unpacked.glob("*.dist-info")).name == f"stormpsr_jax-{version.strip()}.dist-info"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--config=own:cages"], "only own:boxes and own:cad are known"),
        (["--config=synthetic:boxes"], "takes nothing after a colon"),
        (["--config=nope"], "unknown config 'nope'"),
        (["--config=synthetic", "--config.seed=x"], "--config.seed=x"),
        (["--config=synthetic", "--config.data.mean.x=1"], "no such field: data.mean.x: "),
        (["--config=synthetic", "--config.stages=(1,)"], "--config.stages=(1,): should be like"),
        (["--config=synthetic", "--confg=own"], "--confg=own; did you mean --config?"),
        (["--confg=own"], "unrecognized arguments: --confg; did you mean --config?"),
        (["--config=synthetic", "--config.seed", "1"], "unrecognized arguments: 1"),
        ([], "required: --config"),
    ],
)
def test_parse_errors_are_one_line_and_status_2(words, says, capsys):
    parser = OneLineParser(prog="command")
    config_flag.add_config(parser)
    error = refused(capsys, config_flag.parse, parser, words)
    assert says in error


MINE = (
    "from stormpsr_jax.configs import own\n\ndef get_config():\n    c = own.get_config()\n    {}\n"
)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("return len(1)", "mine.py: line 5: TypeError: object of type 'int' has no len()"),
        ("raise Exception('two\\nlines')", "mine.py: line 5: Exception: two lines"),
        ("return (c", "mine.py: line 5: SyntaxError: '(' was never closed"),
        ("c.seed = 1", "mine.py: get_config() returns None, not a ConfigDict"),
    ],
)
def test_load_errors_an_error_inside_a_config_names_its_place(line, says, tmp_path):
    (tmp_path / "mine.py").write_text(MINE.format(line))
    with pytest.raises(ValueError) as error:
        config_flag.load(str(tmp_path / "mine.py"))
    assert "\n" not in str(error.value)
    assert says in str(error.value)
