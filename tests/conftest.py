import atexit
import collections
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest

from tests.support.made_once import made_once

# Most of their time would be XLA optimising code that runs for milliseconds.
FASTER = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
    "--xla_cpu_use_fusion_emitters=false"
)
if FASTER not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FASTER}".strip()

# What one test has compiled, the others and the commands that they start need not compile again.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    compiled = tempfile.mkdtemp(prefix="compiled-")
    atexit.register(shutil.rmtree, compiled, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = compiled
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

# What a wheel is made of.
SOURCES = (
    "pyproject.toml",
    "setup.py",
    "README.md",
    "LICENSE",
    "configs",
    "docs",
    "data_prep",
    "stormpsr_jax",
)

# What is kept for the user, such as checksums of data; but not the fonts that Matplotlib has found.
if "XDG_CACHE_HOME" not in os.environ:
    os.environ.setdefault("MPLCONFIGDIR", str(Path.home() / ".cache" / "matplotlib"))
    kept = tempfile.mkdtemp(prefix="cache-")
    atexit.register(shutil.rmtree, kept, ignore_errors=True)
    os.environ["XDG_CACHE_HOME"] = kept

# A background job of a shell ignores Ctrl-C, and so would the commands that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config):
    config.option.loadscopereorder = False  # of xdist, which goes by the order below


@pytest.hookimpl(wrapper=True, tryfirst=True)  # before what is not asked for is left out
def pytest_collection_modifyitems(items):
    for item in items:
        if "system" in item.fixturenames:
            item.add_marker("system")
    yield
    # Files with few tests have the longest ones: no process is to wait for one of them at the end.
    count = collections.Counter(item.path for item in items)
    items.sort(key=lambda item: count[item.path])


@pytest.fixture(scope="session")
def system():
    """What a fixture asks for that starts processes or listens, so that its tests are marked."""


@pytest.fixture(scope="session")
def rendered(tmp_path_factory):
    """A folder with the pictures of a tiny run, in `data`; not to be changed."""
    from data_prep import synthetic  # here, as most tests need no JAX
    from tests.support.tiny import opened, tiny

    def make(folder):
        _, stages = opened(tiny(), folder)
        words = stages["data"].words(folder / "data")[2:]
        assert synthetic.main([*words, "--workers=1"]) == 0  # which takes no further process

    return made_once(tmp_path_factory, "rendered", make)


@pytest.fixture(scope="session")
def finished(system, tmp_path_factory):
    """The folder of a finished tiny run, made once for all test processes; not to be changed.

    While it was trained, what is in its data folder of the test split was in folder `hidden`.
    """
    from absl import flags  # here, as most tests need neither these nor JAX

    from stormpsr_jax import main
    from tests.support.tiny import tiny

    def make(folder):
        main.run(tiny(stages=("data",)), folder)
        data, hidden = folder / "data", folder / "hidden"
        hidden.mkdir()
        of_test = [*data.glob("clips-test*"), data / "labels/test", data / "labels/test.npz"]
        for path in of_test:
            path.rename(hidden / path.name)
        main.run(tiny(stages=tiny().stages[1:6]), folder)
        for path in of_test:
            (hidden / path.name).rename(path)
        main.run(tiny(), folder)

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    return made_once(tmp_path_factory, "finished", make)


@pytest.fixture(scope="session")
def unpacked(system, tmp_path_factory):
    """A folder with the content of the wheel, built from a copy: building leaves files behind."""
    pytest.importorskip("setuptools", minversion="77")  # pyproject.toml is written for it
    root = Path(__file__).parents[1]

    def make(folder):
        source = folder / "source"
        source.mkdir(parents=True)
        left_out = shutil.ignore_patterns("__pycache__")
        for name in SOURCES:
            if (root / name).is_dir():
                shutil.copytree(root / name, source / name, symlinks=True, ignore=left_out)
            else:
                shutil.copy(root / name, source)
        words = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
        subprocess.run(
            [sys.executable, "-m", "pip", *words, f"--wheel-dir={folder}", source], check=True
        )
        (wheel,) = folder.glob("*.whl")
        with zipfile.ZipFile(wheel) as file:
            file.extractall(folder / "unpacked")

    return made_once(tmp_path_factory, "wheel", make) / "unpacked"


@pytest.fixture(scope="module")
def browser(system):
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium (Debian: apt install it)")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def tab(browser):
    """A tab of a browser, in which no script may fail."""
    viewport = {"width": 1280, "height": 720}
    context = browser.new_context(viewport=viewport, reduced_motion="reduce")
    context.set_default_timeout(20_000)
    tab, errors = context.new_page(), []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    yield tab
    context.close()
    assert errors == []
