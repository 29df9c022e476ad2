"""Videos that lead elsewhere: of playlists, descriptions and references, nothing is opened.

That is observed: the kernel watches a file that nobody named (inotify), and an address listens.
"""

import contextlib
import ctypes
import os
import shutil
import socket
import struct
import sys
import threading
import time
from pathlib import Path

import av
import numpy as np
import pytest

from stormpsr_jax.media import video
from tests.support import videos

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="watches files by inotify")
IN_OPEN = 0x20  # of inotify
TARGETS = {"a file": "{bait}", "an address": "http://127.0.0.1:{port}/x.mp4"}
PLAYLIST = (
    "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:5,\n{}\n#EXT-X-ENDLIST\n"
)
FORMS = {"a playlist": PLAYLIST, "a list of files": "ffconcat version 1.0\nfile '{}'\n"}


class Place:
    """A folder with a video that nobody names, and a port that listens."""

    def __init__(self, folder: Path, server: socket.socket):
        noise = np.random.default_rng(0).integers(0, 256, (24, 48, 64, 3), np.uint8)
        for name, codec in (("video.mp4", "libx264"), ("video.mov", "mpeg4")):
            videos.write(folder / name, noise, codec=codec)
        self.folder, self._server = folder, server
        self.bait, self.port = folder / "bait.mp4", server.getsockname()[1]
        self._events = ctypes.CDLL(None).inotify_init1(os.O_NONBLOCK)
        shutil.copy(folder / "video.mp4", self.bait)
        ctypes.CDLL(None).inotify_add_watch(self._events, os.fsencode(self.bait), IN_OPEN)

    def filled(self, text: str) -> str:
        return text.format(bait=self.bait, port=self.port)

    def touched(self) -> bool:
        """Whether somebody has opened a file or called, since it was last asked."""
        found = False
        for look in (self._server.accept, lambda: os.read(self._events, 4096)):
            with contextlib.suppress(BlockingIOError):
                look()
                found = True
        return found


@pytest.fixture(scope="module")
def place(system, tmp_path_factory):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield Place(tmp_path_factory.mktemp("elsewhere"), server)


def elsewhere(place: Place) -> bytes:
    """A MOV file whose frames are said to be in another one (an alias in its `dref`)."""
    data, target = (place.folder / "video.mov").read_bytes(), str(place.bait).encode()
    alias = bytes(150) + struct.pack(">hH", 2, len(target)) + target
    alias += bytes(len(target) % 2) + b"\xff\xff"
    entry = struct.pack(">I", 12 + len(alias)) + b"alis" + bytes(4) + alias
    at = data.index(b"dref") - 4
    (size,) = struct.unpack_from(">I", data, at)
    table = struct.pack(">I", 16 + len(entry)) + b"dref" + bytes(4) + struct.pack(">I", 1) + entry
    grown = bytearray(data[:at] + table + data[at + size :])
    for word in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):
        start = grown.index(word) - 4
        (size_of_box,) = struct.unpack_from(">I", grown, start)
        struct.pack_into(">I", grown, start, size_of_box + len(table) - size)
    return bytes(grown)


def avi_with_subtitles(place: Place) -> bytes:
    """An AVI file without pictures whose subtitles are a playlist, which FFmpeg once followed."""
    text = PLAYLIST.format(place.bait).encode()

    def chunk(kind: bytes, content: bytes) -> bytes:
        return kind + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)

    main = struct.pack("<14I", 10**6, 0, 0, 0x10, 1, 0, 2, 0, 64, 48, 0, 0, 0, 0)
    streams = b""
    for kind, codec, form in (
        (b"vids", b"MJPG", struct.pack("<IiiHH4s5I", 40, 64, 48, 1, 24, b"MJPG", 0, 0, 0, 0, 0)),
        (b"txts", b"\0\0\0\0", b""),
    ):
        head = struct.pack("<4s4sIHHIIIIIIII", kind, codec, 0, 0, 0, 0, 1, 1, 0, 1, 0, 0, 0)
        streams += chunk(b"LIST", b"strl" + chunk(b"strh", head + bytes(8)) + chunk(b"strf", form))
    gab2 = b"GAB2\0\x02\0" + struct.pack("<I", 2) + b"a\0\x04\0"
    gab2 += struct.pack("<I", len(text)) + text
    body = chunk(b"LIST", b"hdrl" + chunk(b"avih", main) + streams)
    body += chunk(b"LIST", b"movi" + chunk(b"01tx", gab2))
    return chunk(b"RIFF", b"AVI " + body)


def text_of(form: str, to: str):
    return lambda place: FORMS[form].replace("{}", place.filled(TARGETS[to])).encode()


SOURCES = {
    **{f"{form} of {to}": text_of(form, to) for form in FORMS for to in TARGETS},
    "frames in another file": elsewhere,
    "subtitles that are a playlist": avi_with_subtitles,
}


@pytest.mark.parametrize("ending", [".mp4", ".avi", ".ts"])
def test_videos_open_nothing_else(place, ending):
    path = place.folder / f"x{ending}"
    for name, content in SOURCES.items():
        path.write_bytes(content(place))
        place.touched()
        with pytest.raises(ValueError, match=rf"x{ending}: ") as error:
            video.read_index(path)
        assert str(error.value).isprintable()
        assert not place.touched(), name


# All that FFmpeg has to be told before it goes where a file says.
WILLING = {
    "safe": "0",
    "enable_drefs": "1",
    "use_absolute_path": "1",
    "extension_picky": "0",
    "allowed_extensions": "ALL",
    "protocol_whitelist": "file,http,tcp",
}


@pytest.mark.parametrize("name", [*list(SOURCES)[:4], "frames in another file"])
def test_control_ffmpeg_alone_opens_what_sources_refer_to(place, name):
    """Else the test above would show nothing."""
    path = place.folder / ("x.mov" if name.startswith("frames") else "x.mp4")
    path.write_bytes(SOURCES[name](place))
    place.touched()

    def read() -> None:
        form = "hls" if name.startswith("a playlist") else None
        with contextlib.suppress(av.error.FFmpegError, StopIteration):
            with av.open(str(path), format=form, options=WILLING, timeout=(10, 10)) as container:
                next(container.decode(video=0))

    reader = threading.Thread(target=read)
    reader.start()
    opened = False
    while reader.is_alive():
        opened |= place.touched()
        time.sleep(0.01)
    assert opened or place.touched()
