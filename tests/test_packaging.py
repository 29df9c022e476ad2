import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from benchmarks.exported import closure, groups
from stormpsr_jax.__main__ import COMMANDS
from stormpsr_jax.base.installed import check_extra
from stormpsr_jax.serving.exporting import export_model
from tests.support.evaluate_data import command, make_files
from tests.support.model_data import video, write
from tests.support.recognise_data import write_video


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
    env = os.environ | {"PYTHONPATH": str(unpacked)}
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.stdout == f"{unpacked}/stormpsr_jax/configs/own.py:boxes\n", done.stderr


# --- What each purpose needs: it runs where nothing else is installed -----------------------------


ROOT = Path(__file__).parents[1]
RECOGNISE = """
import json, sys
from stormpsr_jax import recognise
status = recognise.main(sys.argv[1:])
tops = {name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names)
print("LOADED", json.dumps(sorted(tops)), file=sys.stderr)
sys.exit(status)
"""
# What may be loaded beside the packages of a group: this one, and what compilers of them leave.
OURS = {"data_prep", "stormpsr_jax", "cython_runtime", "__main__", "__mp_main__"}


def bare(place: Path, group: str) -> Path:
    """A virtual environment with the packages of a purpose and this one; returns its Python.

    The packages are links to those that are installed here, so that no index is asked.
    """
    venv.create(place, with_pip=False, symlinks=True)
    (site,) = place.glob("lib/python*/site-packages")
    for package in closure(groups()[group]):
        for file in importlib.metadata.files(package) or []:
            top = file.parts[0]
            where = Path(file.locate()).parents[len(file.parts) - 1] / top
            if top not in ("..", "__pycache__") and not (site / top).exists():
                (site / top).symlink_to(where)
    for package in ("stormpsr_jax", "data_prep"):
        ignored = shutil.ignore_patterns("__pycache__", "demo.mp4")
        shutil.copytree(ROOT / package, site / package, ignore=ignored)
    return place / "bin" / "python"


def run(python: Path, *words, cwd: Path) -> subprocess.CompletedProcess:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "COVERAGE"))}
    return subprocess.run(
        [str(python), *map(str, words)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.system
def test_recognition_in_onnx_needs_no_more_than_its_packages(tmp_path):
    check_extra("video", ["av"], "this test")
    pytest.importorskip("jax2onnx")
    write(tmp_path / "flax")
    export_model(tmp_path / "flax", tmp_path / "onnx")
    video_path = write_video(tmp_path / "a_up.mp4", video(30, 48, 64), [i / 10 for i in range(30)])
    python = bare(tmp_path / "bare", "onnx")
    words = [f"--model={tmp_path / 'onnx'}", video_path, f"--out={tmp_path / 'out'}"]
    done = run(python, "-c", RECOGNISE, *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "a_up" / "events.csv").stat().st_size > 0
    assert "no report.html, which needs jinja2 and matplotlib: pip install" in done.stderr
    (line,) = re.findall("LOADED (.*)", done.stderr)
    tops = {name for name in json.loads(line) if not name.startswith("_")}
    wanted = {"PIL", "av", "msgspec", "numpy", "onnxruntime", "simplejpeg", "tqdm"}
    assert tops - OURS <= wanted
    refused = run(python, "-m", "stormpsr_jax.recognise", *words, "--video", cwd=tmp_path)
    assert refused.returncode == 2
    assert "--video needs jinja2 and matplotlib" in refused.stderr
    words[0] = f"--model={tmp_path / 'flax'}"
    refused = run(python, "-m", "stormpsr_jax.recognise", *words, cwd=tmp_path)
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()
    assert "flax: a model as a run leaves it (not an ONNX export, docs/recognise.md)" in line
    assert line.endswith("needs 'jax': pip install . in the clone")


@pytest.mark.system
def test_decoding_and_scoring_need_numpy_alone_and_others_say_what_to_install(tmp_path):
    python = bare(tmp_path / "bare", "decode")
    code = (
        "import stormpsr_jax.psr, stormpsr_jax.evaluate, sys;"
        "print(sorted({n.partition('.')[0] for n in sys.modules} - sys.stdlib_module_names))"
    )
    done = run(python, "-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {word for word in re.findall(r"'(\w+)'", done.stdout) if word[0] != "_"} == {
        "numpy",
        "stormpsr_jax",
    }
    procedure = ROOT / "stormpsr_jax" / "procedures" / "meccano.json"
    done = run(python, "-m", "stormpsr_jax.procedure", "check", procedure, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for module in (COMMANDS[name] for name in ("evaluate", "procedure", "convert")):
        done = run(python, "-m", module, "--help", cwd=tmp_path)
        assert done.returncode == 0, (module, done.stderr)
        assert done.stdout.startswith("usage: "), module
    for words in (
        ["-m", "stormpsr_jax", "data", "own", "--help"],
        ["-m", "stormpsr_jax", "main", "--config=synthetic", "--workdir=run"],
        ["-m", "data_prep.own", "--videos=a", "--labels=b", "--procedure=c", "--out=d"],
    ):
        done = run(python, *words, cwd=tmp_path)
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert re.match(r"error: '\w+' is not installed, and this needs it: pip install", line)


@pytest.mark.system
def test_evaluate_draws_with_its_libraries_alone_and_names_them_where_they_are_missing(tmp_path):
    python = bare(tmp_path / "bare", "decode")
    files = make_files(tmp_path / "files")
    flags = [f"--visibility={files / 'visibility'}", "--report=report.html"]
    words = command(files, *flags)
    done = run(python, "-m", "stormpsr_jax.evaluate", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert re.search(r"^asd +[01]\.\d+", done.stdout, re.MULTILINE)
    assert (files / "out.json").is_file()
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error")]
    assert "report.html is not written, all else is done: it needs jinja2 and matplotlib" in line
    assert "pip install jinja2" in line
    python = bare(tmp_path / "drawing", "report")
    done = run(python, "-m", "stormpsr_jax.evaluate", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "report.html").read_text("utf-8")
    for title in ("Delay", "Occlusion", "Outcome by step"):
        assert f"<h3>{title}</h3>" in text
    assert "Timeline of recording 07_main_c" in text
