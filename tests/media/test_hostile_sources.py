"""Of sources that are broken, lie or lead elsewhere, a line names the file; nothing else is opened.

All go through one process, as they would through one command. What it opens is observed: every file
that nobody named is watched by the kernel (inotify), and the address that nobody named listens.
"""

import contextlib
import json
import queue
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import av
import pytest

from tests.support.processes import ROOT, environment

sys.path.append(str(ROOT / "benchmarks"))
import fault_media

from stormpsr_jax.base import files
from tests.support.hostile_references import REFERENCES
from tests.support.hostile_sources import BROKEN, Place

SOURCES = BROKEN | REFERENCES
LIMIT = 20  # seconds of a source, before it counts as a hang
MEMORY = 2**10  # mebibytes, with JAX
RUNNER = ROOT / "tests" / "support" / "run_sources.py"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="watches files by inotify")


class Runner:
    """The process."""

    def __init__(self, model: Path, out: Path):
        self._process = subprocess.Popen(
            [sys.executable, RUNNER, model, out],
            env=environment(1),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._lines = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self._process.stdout:
            self._lines.put(json.loads(line))
        self._lines.put({"status": "crashed", "said": "", "seconds": 0, "mebibytes": 0})

    def run(self, name: str, word: str, limit: float) -> dict:
        self._process.stdin.write(json.dumps([name, word]) + "\n")
        self._process.stdin.flush()
        try:
            return self._lines.get(timeout=limit)
        except queue.Empty:
            return {"status": "hung", "said": "", "seconds": limit, "mebibytes": 0}

    def close(self):
        self._process.kill()
        self._process.wait()


def run_all(model: Path, root: Path) -> dict[str, dict]:
    """What each came to: that of `run_sources.py`, its "word", whether others were "opened"."""
    media = root / "media"
    media.mkdir()
    fault_media.write_media(media)
    baits = [root / "bait" / f"{i}.mp4" for i in range(len(SOURCES))]
    baits[0].parent.mkdir()
    folders = [root / f"source{i}" for i in range(len(SOURCES))]
    for folder in folders:
        folder.mkdir()
    beside = [folder / "beside1.dat" for folder in folders]
    found = {}
    with fault_media.watched([*baits, *beside], media / "video.mp4") as (port, touched):
        runner = Runner(model, root / "out")
        places = [
            Place(*of_it, port)
            for of_it in zip(folders, [media] * len(folders), baits, beside, strict=True)
        ]
        runner.run("warm", str(media / "one.mp4"), 120)
        assert not touched()
        for i, (name, (make, _)) in enumerate(SOURCES.items()):
            word = str(make(places[i]))
            touched()
            outcome = runner.run(f"out{i}", word, LIMIT)
            found[name] = outcome | {"word": word, "opened": touched()}
            if outcome["status"] in ("hung", "crashed"):
                runner.close()
                runner = Runner(model, root / "out")
                runner.run("warm", str(media / "one.mp4"), 120)
        runner.close()
    return found


@pytest.fixture(scope="session")
def outcomes(trained, tmp_path_factory):
    """Of all sources, made once for all test processes."""
    folder = tmp_path_factory.getbasetemp()
    if "popen-gw" in folder.name:  # one of several processes
        folder = folder.parent
    folder /= "hostile_sources"
    folder.mkdir(exist_ok=True)
    with files.open_locked(folder / "lock", wait=True):
        if not (folder / "outcomes.json").exists():
            found = run_all(trained, folder)
            (folder / "outcomes.json").write_text(json.dumps(found))
    return json.loads((folder / "outcomes.json").read_text())


def test_sources_there_are_enough_of_them():
    assert len(SOURCES) > 40


@pytest.mark.parametrize("name", SOURCES)
def test_recognise_of_a_bad_source(name, outcomes):
    found, text = outcomes[name], SOURCES[name][1]
    assert found["status"] in ((0,) if text == "" else (1, 2)), found
    assert not found["opened"]
    assert found["mebibytes"] < MEMORY
    lines = found["said"].splitlines()
    if text:
        errors = [line for line in lines if line.startswith("error: ")]
        assert len(errors) == 1
        assert text in errors[0]
        # Of an address the server alone, as the rest may be secret.
        shown = re.sub(r"(?<=\w)://([^/:]*).*", r"://\1", found["word"])
        assert (shown if shown.isprintable() else ascii(shown)) in errors[0]
        assert errors[0].isprintable()


CONTROLS = (
    "a playlist of a file",
    "a playlist of an address",
    "a list of files of a file",
    "a list of files of an address",
    "frames in another file",
)
# All that FFmpeg has to be told before it goes where a file says.
WILLING = {
    **{"safe": "0", "enable_drefs": "1", "use_absolute_path": "1", "extension_picky": "0"},
    **{"allowed_extensions": "ALL", "protocol_whitelist": "file,http,tcp"},
}


def test_control_ffmpeg_alone_opens_what_sources_refer_to(tmp_path):
    """Else the tests above would show nothing."""
    media = tmp_path / "media"
    media.mkdir()
    fault_media.write_media(media)
    baits = [tmp_path / "bait.mp4", tmp_path / "beside1.dat"]

    def read(path: str, form: str | None) -> None:
        with contextlib.suppress(av.error.FFmpegError, StopIteration):
            with av.open(path, format=form, options=WILLING, timeout=(10, 10)) as container:
                next(container.decode(video=0))

    with fault_media.watched(baits, media / "video.mp4") as (port, touched):
        for name in CONTROLS:
            path = str(SOURCES[name][0](Place(tmp_path, media, *baits, port)))
            touched()
            form = "hls" if name.startswith("a playlist") else None
            reader = threading.Thread(target=read, args=(path, form))
            reader.start()
            opened = False
            while reader.is_alive():
                opened |= touched()
                time.sleep(0.01)
            assert opened or touched(), name
