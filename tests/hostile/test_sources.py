"""Of sources that are broken, lie or lead elsewhere, a line names the file; nothing else is opened.

All go through one process, as they would through one command. What it opens is observed: every file
that nobody named is watched by the kernel (inotify), and the address that nobody named listens.
"""

import contextlib
import io
import multiprocessing
import random
import re
import resource
import sys
import threading
import time

import av
import pytest

from stormpsr_jax import recognise
from stormpsr_jax.base import files
from tests.hostile import media
from tests.hostile.references import WORDS
from tests.hostile.sources import Place
from tests.support import model_data
from tests.support.made_once import made_once

SOURCES = media.SOURCES | WORDS
LIMIT = 20  # seconds of a source, before it counts as a hang
MEMORY = 2**10  # mebibytes, with JAX
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="watches files by inotify")


def recognise_all(connection, model, out):
    """The process: recognises one source after the other."""
    while True:
        name, word = connection.recv()
        said = io.StringIO()
        words = [f"--model={model}", word, f"--out={out}/{name}"]
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            try:
                status = recognise.main([*words, "--variant=assembly", "--stream=asd"])
            except SystemExit as error:
                status = error.code
            except BaseException as error:
                status = f"{type(error).__name__}: {error}"
        mebibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        connection.send({"status": status, "said": said.getvalue(), "mebibytes": mebibytes})


class Runner:
    """That process, and another one where it hangs or crashes."""

    def __init__(self, *arguments):
        self._arguments, self._process = arguments, None

    def run(self, name, word, limit=LIMIT):
        if not self._process:
            context = multiprocessing.get_context("spawn")
            self._connection, theirs = context.Pipe()
            self._process = context.Process(target=recognise_all, args=(theirs, *self._arguments))
            self._process.start()
            theirs.close()
            self.run("warm", str(self._arguments[0].parent / "media" / "one.mp4"), 120)
        self._connection.send((name, word))
        try:
            if self._connection.poll(limit):
                return self._connection.recv()
            status = "hung"
        except EOFError:
            status = "crashed"
        self.close()
        return {"status": status, "said": "", "mebibytes": 0}

    def close(self):
        self._process.kill()
        self._process.join()
        self._process = None


def run_all(root):
    """Of each source, what it came to, its "word", and whether others were "opened"."""
    sound = root / "media"
    sound.mkdir(parents=True)
    media.write_media(sound)
    model_data.write(root / "model")
    (root / "bait").mkdir()
    baits = [root / "bait" / f"{i}.mp4" for i in range(len(SOURCES))]
    folders = [root / f"source{i}" for i in range(len(SOURCES))]
    for folder in folders:
        folder.mkdir()
    beside = [folder / "beside1.dat" for folder in folders]
    runner, found = Runner(root / "model", root / "out"), {}
    with media.watched([*baits, *beside], sound / "video.mp4") as (port, touched):
        for i, (name, source) in enumerate(SOURCES.items()):
            rng = random.Random(name)
            word = str(source.make(Place(folders[i], sound, baits[i], beside[i], port, rng)))
            touched()
            found[name] = runner.run(f"out{i}", word) | {"word": word, "opened": touched()}
    runner.close()
    files.write_json(root / "outcomes.json", found)


@pytest.fixture(scope="session")
def outcomes(tmp_path_factory):
    """Of all sources, made once for all test processes."""
    return files.read_json(made_once(tmp_path_factory, "hostile", run_all) / "outcomes.json")


@pytest.mark.parametrize("name", SOURCES)
def test_recognise_of_a_bad_source(name, outcomes):
    found, text = outcomes[name], SOURCES[name].text
    statuses = {"": (0,), None: (0, 1, 2)}.get(text, (1, 2))
    assert found["status"] in statuses, found
    assert not found["opened"]
    assert found["mebibytes"] < MEMORY
    errors = [line for line in found["said"].splitlines() if line.startswith("error: ")]
    if found["status"]:
        assert len(errors) == 1
        assert (text or "") in errors[0]
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
    "safe": "0",
    "enable_drefs": "1",
    "use_absolute_path": "1",
    "extension_picky": "0",
    "allowed_extensions": "ALL",
    "protocol_whitelist": "file,http,tcp",
}


def test_control_ffmpeg_alone_opens_what_sources_refer_to(tmp_path):
    """Else the tests above would show nothing."""
    sound = tmp_path / "media"
    sound.mkdir()
    media.write_media(sound)
    baits = [tmp_path / "bait.mp4", tmp_path / "beside1.dat"]

    def read(path: str, form: str | None) -> None:
        with contextlib.suppress(av.error.FFmpegError, StopIteration):
            with av.open(path, format=form, options=WILLING, timeout=(10, 10)) as container:
                next(container.decode(video=0))

    with media.watched(baits, sound / "video.mp4") as (port, touched):
        for name in CONTROLS:
            place = Place(tmp_path, sound, *baits, port, random.Random(name))
            path = str(SOURCES[name].make(place))
            touched()
            form = "hls" if name.startswith("a playlist") else None
            reader = threading.Thread(target=read, args=(path, form))
            reader.start()
            opened = False
            while reader.is_alive():
                opened |= touched()
                time.sleep(0.01)
            assert opened or touched(), name
