"""Of sources that are broken, lie or lead elsewhere, a line names the file; nothing else is opened.

All go through one process, as they would through one command. What it opens is observed: every file
that nobody named is watched by the kernel (inotify), and the address that nobody named listens.
"""

import contextlib
import random
import re
import sys
import threading
import time

import av
import pytest

from stormpsr_jax.base import files
from tests.hostile import media
from tests.hostile.one_process import Runner
from tests.hostile.references import WORDS
from tests.hostile.sources import Place
from tests.support import model_data
from tests.support.made_once import made_once

SOURCES = media.SOURCES | WORDS
MEMORY = 2**10  # mebibytes, with JAX
pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(sys.platform != "linux", reason="watches files by inotify"),
]


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
