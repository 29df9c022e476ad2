"""Sources that would lead to other files and addresses: playlists, descriptions, scripts."""

import shutil
import struct
from collections.abc import Callable

import fault_videos

from tests.support.hostile_sources import NO_VIDEO, Place, Sources, content_of, playlist

REFERENCES = Sources()


def _references(place: Place) -> dict[str, str]:
    """What nobody named, by how it is referred to."""
    return {
        "a file": str(place.bait),
        "a file beside": place.beside.name,
        "an address": f"http://127.0.0.1:{place.port}/x.mp4",
        "an RTSP address": f"rtsp://127.0.0.1:{place.port}/x",
        "a TCP address": f"tcp://127.0.0.1:{place.port}",
        "files as one": f"concat:{place.bait}|{place.bait}",
        "a part of a file": f"subfile,,start,0,end,0,,:{place.bait}",
        "an encrypted file": f"crypto:{place.bait}",
    }


FORMS: dict[str, Callable[[str], str]] = {
    "a playlist": playlist,
    "a list of files": lambda target: f"ffconcat version 1.0\nfile '{target}'\n",
    "a DASH description": lambda target: (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT5S"><Period><AdaptationSet mimeType="video/mp4">'
        f'<Representation id="1" bandwidth="1"><BaseURL>{target}</BaseURL></Representation>'
        "</AdaptationSet></Period></MPD>"
    ),
    "an ASX list": lambda target: f'<ASX version="3.0"><ENTRY><REF HREF="{target}"/></ENTRY></ASX>',
    "a Windows reference": lambda target: f"[Reference]\nRef1={target}\n",
    "a RAM list": lambda target: f"{target}\n",
    "a SMIL page": lambda target: f'<smil><body><video src="{target}"/></body></smil>',
    "subtitles by reference": lambda target: (
        f"# VobSub index file, v7 (do not modify this line!)\nid: en, index: 0\n{target}\n"
    ),
    "a filter": lambda target: f"movie={target}",
    "a script of AviSynth": lambda target: f'AVISource("{target}")\n',
    "a script of VapourSynth": lambda target: f"open({target!r}).read()\n",
}


def _add_references() -> None:
    for form, text in FORMS.items():
        for to in ("a file", "an address"):
            REFERENCES.file(
                f"{form} of {to}",
                NO_VIDEO,
                ".mp4",
                lambda place, text=text, to=to: text(_references(place)[to]).encode(),
            )
    for to in ("a file beside", "an RTSP address", "a TCP address", "files as one",
               "a part of a file", "an encrypted file"):  # fmt: skip
        REFERENCES.file(
            f"a playlist of {to}",
            NO_VIDEO,
            ".ts",
            lambda place, to=to: playlist(_references(place)[to]).encode(),
        )


_add_references()


@REFERENCES.add("a description of a session", NO_VIDEO)
def _(place):
    text = (
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
        f"m=video {place.port} RTP/AVP 96\na=rtpmap:96 H264/90000\n"
    )
    path = place.folder / "x.mp4"
    path.write_text(text)
    return path


def _reference_movie(target: str) -> bytes:
    url = target.encode() + b"\0"
    reference = fault_videos.box(b"rdrf", bytes(4) + b"url " + struct.pack(">I", len(url)) + url)
    return fault_videos.box(
        b"moov", fault_videos.box(b"rmra", fault_videos.box(b"rmda", reference))
    )


def _elsewhere(data: bytes, target: bytes) -> bytes:
    """A MOV file whose frames are said to be in another one (an alias in its `dref`)."""
    alias = bytes(150) + struct.pack(">hH", 2, len(target)) + target
    alias += bytes(len(target) % 2) + b"\xff\xff"
    entry = struct.pack(">I", 12 + len(alias)) + b"alis" + bytes(4) + alias
    at = data.index(b"dref") - 4
    (size,) = struct.unpack_from(">I", data, at)
    table = struct.pack(">I", 16 + len(entry)) + b"dref" + bytes(4) + struct.pack(">I", 1) + entry
    grown = bytearray(data[:at] + table + data[at + size :])
    for word in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):
        place = grown.index(word) - 4
        (size_of_box,) = struct.unpack_from(">I", grown, place)
        struct.pack_into(">I", grown, place, size_of_box + len(table) - size)
    return bytes(grown)


REFERENCES.file(
    "a reference movie", "there is no video in it", ".mov", lambda p: _reference_movie(str(p.bait))
)
REFERENCES.file(
    "a reference movie of an address",
    "there is no video in it",
    ".mov",
    lambda place: _reference_movie(f"http://127.0.0.1:{place.port}/x.mov"),
)
REFERENCES.file(
    "frames in another file",
    "the video has no frames",
    ".mov",
    lambda place: _elsewhere(content_of("video.mov")(place), str(place.bait).encode()),
)
REFERENCES.file(
    "subtitles that are a playlist",
    "the video has no frames",
    ".avi",
    lambda place: fault_videos.avi_with_subtitles(playlist(str(place.bait)).encode()),
)


@REFERENCES.add("a pattern of pictures", NO_VIDEO)
def _(place):
    shutil.copy(place.media / "plain.jpg", place.folder / "x%03d.mp4")
    return place.folder / "x%03d.mp4"


@REFERENCES.add("a pattern in place of a file", "no such file or folder")
def _(place):
    return f"{place.folder}/beside%1d.dat"


@REFERENCES.add("a protocol in place of a file", "no such file or folder")
def _(place):
    return f"concat:{place.bait}|{place.bait}"


@REFERENCES.add("an address in place of a file", "addresses are rtsp://HOST/PATH")
def _(place):
    return f"http://127.0.0.1:{place.port}/x.mp4"


@REFERENCES.add("standard input in place of a file", "no such file or folder")
def _(place):
    return "pipe:0"
