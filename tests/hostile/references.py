"""Sources that would lead to other files and addresses: playlists, descriptions, scripts."""

import functools
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

from tests.hostile.mp4 import box
from tests.hostile.sources import NO_VIDEO, Place, Source, file

TARGETS: dict[str, Callable[[Place], str]] = {
    "a file": lambda place: str(place.bait),
    "an address": lambda place: f"http://127.0.0.1:{place.port}/x.mp4",
    "a file beside": lambda place: place.beside.name,
    "a URL of a file": lambda place: f"file:{place.bait}",
    "an RTSP address": lambda place: f"rtsp://127.0.0.1:{place.port}/x",
    "an RTMP address": lambda place: f"rtmp://127.0.0.1:{place.port}/x",
    "a TCP address": lambda place: f"tcp://127.0.0.1:{place.port}",
    "files as one": lambda place: f"concat:{place.bait}|{place.bait}",
    "a part of a file": lambda place: f"subfile,,start,0,end,0,,:{place.bait}",
    "an encrypted file": lambda place: f"crypto:{place.bait}",
}


def playlist(target: str) -> str:
    """Of one file."""
    return (
        "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:5,\n"
        f"{target}\n#EXT-X-ENDLIST\n"
    )


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


def _refers(form: str, to: str, ending: str) -> Source:
    return Source(NO_VIDEO, file(ending, lambda p: FORMS[form](TARGETS[to](p)).encode()))


def _drawn(place: Place) -> Path:
    form, to = place.rng.choice(list(FORMS)), place.rng.choice(list(TARGETS))
    ending = place.rng.choice((".mp4", ".mov", ".avi", ".mkv", ".ts", ".wmv", ".flv"))
    return _refers(form, to, ending).make(place)


def _session(place: Place) -> bytes:
    return (
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
        f"m=video {place.port} RTP/AVP 96\na=rtpmap:96 H264/90000\n"
    ).encode()


def _reference_movie(to: str, place: Place) -> bytes:
    url = TARGETS[to](place).encode() + b"\0"
    reference = box(b"rdrf", bytes(4) + b"url " + struct.pack(">I", len(url)) + url)
    return box(b"moov", box(b"rmra", box(b"rmda", reference)))


def _elsewhere(place: Place) -> bytes:
    """A MOV file whose frames are said to be in another one (an alias in its `dref`)."""
    data, target = place.read("video.mov"), str(place.bait).encode()
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


def _avi_with_subtitles(place: Place) -> bytes:
    """An AVI file without pictures whose subtitles are a playlist, which FFmpeg once followed."""
    text = playlist(str(place.bait)).encode()

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


def _pattern(place: Place) -> Path:
    return Path(shutil.copy(place.media / "plain.jpg", place.path("%03d.mp4")))


NO_VIDEO_IN_IT, NO_FRAMES = "there is no video in it", "the video has no frames"
REFERENCES = {
    **{f"{f} of {to}": _refers(f, to, ".mp4") for f in FORMS for to in ("a file", "an address")},
    **{f"a playlist of {to}": _refers("a playlist", to, ".ts") for to in list(TARGETS)[2:]},
    "any reference": Source(NO_VIDEO, _drawn),
    "a description of a session": Source(NO_VIDEO, file(".mp4", _session)),
    "a reference movie": Source(
        NO_VIDEO_IN_IT, file(".mov", functools.partial(_reference_movie, "a file"))
    ),
    "a reference movie of an address": Source(
        NO_VIDEO_IN_IT, file(".mov", functools.partial(_reference_movie, "an address"))
    ),
    "frames in another file": Source(NO_FRAMES, file(".mov", _elsewhere)),
    "subtitles that are a playlist": Source(NO_FRAMES, file(".avi", _avi_with_subtitles)),
    "a pattern of pictures": Source(NO_VIDEO, _pattern),
}
NOTHING = "no such file or folder"
# Words of a command line that are no files.
WORDS = {
    "a pattern in place of a file": Source(NOTHING, lambda p: f"{p.folder}/beside%1d.dat"),
    "a protocol in place of a file": Source(NOTHING, TARGETS["files as one"]),
    "an address in place of a file": Source("addresses are rtsp://HOST", TARGETS["an address"]),
    "standard input in place of a file": Source(NOTHING, lambda place: "pipe:0"),
}
