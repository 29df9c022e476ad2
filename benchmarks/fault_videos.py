"""Videos that somebody made to do harm, for `fault_media.py`."""

import random
import shutil
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

from fault_files import NAMES, damage

FRAMES, SECONDS = 25, 5  # of a video of the base, resampled to 5 frames a second
CODECS = {
    **{"mp4": "libx264", "mov": "mpeg4", "avi": "mjpeg", "mkv": "mpeg4", "webm": "libvpx"},
    **{"flv": "flv", "ts": "mpeg2video", "mpg": "mpeg1video", "wmv": "wmv2", "3gp": "h263"},
}
SAYS_ITS_LENGTH = ("mp4", "mov", "avi", "mkv", "webm", "flv", "3gp")
NUMBERS = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x01000000)


class Way(NamedTuple):
    """What was done to the recording bench3.

    Attributes:
        what: was done.
        name: which has to be in the error, if there is one.
        has_to: "fail", "work", or "" where either is right.
        frames: that the recording has at least, if it works.
    """

    what: str
    name: str = "bench3"
    has_to: str = ""
    frames: int = 0


def hostile_video(rng: random.Random, media: Path, place: Path, port: int) -> Way:
    """Writes a video bench3.* that is not what it should be."""
    ending = rng.choice(list(CODECS))
    path = place / "videos" / f"bench3.{ending}"
    shutil.copy(media / f"video.{ending}", path)
    content = path.read_bytes()
    way = rng.choice(
        ("cut", "cut", "damage", "damage", "numbers", "numbers", "atoms", "atoms", "refers",
         "refers", "one", "uneven", "sound", "png", "renamed", "twice", "joined", "picture",
         "rate", "rotation", "name")
    )  # fmt: skip
    what = f"{ending}: {way}"
    if way == "cut":
        kept = rng.random() * 1.02
        path.write_bytes(content[: int(kept * len(content))])
        # Of what is said to be 5 s long, a quarter of a second and some may be missing.
        frames = FRAMES - 3 if ending in SAYS_ITS_LENGTH else 0
        return Way(f"{what} to {kept:.2f}", frames=frames)
    if way == "damage":
        how = damage(rng, path, media / "video.mp4")
        removed = how in ("removed", "empty", "garbage", "a pipe", "a folder", "a broken link")
        return Way(f"{what}: {how}", has_to="fail" if removed else "")
    if way == "numbers":
        data = bytearray(content)
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(min(len(data) - 4, rng.choice((400, 4000, 10**9))))
            struct.pack_into(rng.choice((">I", "<I")), data, at, rng.choice(NUMBERS))
        path.write_bytes(data)
        return Way(what)
    if way in ("atoms", "rate", "rotation"):
        path.unlink()
        return _patch_mp4(rng, way, media, place / "videos" / "bench3.mp4")
    if way == "refers":
        kind, text = _refers(rng, place / "secret" / "secret.mp4", port)
        path.write_bytes(text)
        return Way(f"{what}: {kind}", has_to="fail")
    path.unlink()
    if way == "twice":
        shutil.copy(media / "video.mp4", place / "videos" / "bench3.mov")
        shutil.copy(media / "video.mp4", place / "videos" / "bench3.mp4")
        return Way(what, has_to="fail")
    if way == "joined":
        path.write_bytes(2 * content)
        return Way(what)
    if way == "picture":
        other = rng.choice([*media.glob("*.jpg"), *media.glob("other.*"), *media.glob("*.png")])
        shutil.copy(other, path)
        return Way(f"{what}: {other.name}", has_to="fail")
    if way == "png":
        return _png_video(rng, media, place / "videos" / "bench3.mov")
    if way == "name":
        return _rename(rng, media, place)
    sources = {"one": "one.mp4", "uneven": "uneven.mkv", "sound": "sound.mp4"}
    shutil.copy(media / sources.get(way, "video.mkv"), path)
    has_to = "fail" if way == "sound" else "work"
    return Way(what, has_to=has_to, frames=1 if way == "one" else FRAMES - 1)


def _patch_mp4(rng: random.Random, way: str, media: Path, path: Path) -> Way:
    """Writes numbers of our making into an atom of an MP4 file."""
    data = bytearray((media / "video.mp4").read_bytes())
    atoms = ("mvhd", "tkhd", "elst", "mdhd", "hdlr", "stsd", "avc1", "avcC", "stts", "stss",
             "ctts", "stsc", "stsz", "stco", "dref", "moov", "trak", "mdat")  # fmt: skip
    atom = {"rate": "mdhd", "rotation": "tkhd"}.get(way) or rng.choice(atoms)
    at = data.find(atom.encode())
    if way == "rate":  # ticks of a second
        number = rng.choice((*NUMBERS, 10**6, 2))
        struct.pack_into(">I", data, at + 16, number)
        what = f"mp4: {number} ticks a second"
    elif way == "rotation":
        matrix = [rng.choice((0, 0x10000, -0x10000, 2**31 - 1, -(2**31))) for _ in range(9)]
        struct.pack_into(">9i", data, at + 44, *matrix)
        what = f"mp4: matrix {matrix}"
    else:
        for _ in range(rng.randrange(1, 4)):
            offset = rng.choice((-4, *range(0, 40, 4)))
            struct.pack_into(">I", data, max(0, at + offset), rng.choice(NUMBERS))
        what = f"mp4: numbers in {atom}"
    path.write_bytes(data)
    return Way(what)


def _refers(rng: random.Random, secret: Path, port: int) -> tuple[str, bytes]:
    """A file that asks its reader to open another one, or an address."""
    target = rng.choice(
        (str(secret), "../secret/secret.mp4", "beside.dat", "beside.dat", f"file:{secret}", f"http://127.0.0.1:{port}/x.mp4",
         f"tcp://127.0.0.1:{port}", f"rtmp://127.0.0.1:{port}/x", f"concat:{secret}|{secret}",
         f"crypto:{secret}", f"subfile,,start,0,end,0,,:{secret}", f"rtsp://127.0.0.1:{port}/x")
    )  # fmt: skip
    text = {
        "ffconcat": f"ffconcat version 1.0\nfile '{target}'\n",
        "m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:5,\n"
        f"{target}\n#EXT-X-ENDLIST\n",
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
        f"m=video {port} RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        "asx": f'<ASX version="3.0"><ENTRY><REF HREF="{target}"/></ENTRY></ASX>',
        "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT5S"><Period><AdaptationSet mimeType="video/mp4">'
        f'<Representation id="1" bandwidth="1"><BaseURL>{target}</BaseURL></Representation>'
        "</AdaptationSet></Period></MPD>",
        "rtsp": f"[Reference]\nRef1={target}\n",
        "link": f"{target}\n",
    }
    kind = rng.choice((*text, "quicktime", "gab2"))
    if kind == "quicktime":
        url = target.encode() + b"\0"
        reference = box(b"rdrf", b"\0\0\0\0url " + struct.pack(">I", len(url)) + url)
        return kind, box(b"moov", box(b"rmra", box(b"rmda", reference)))
    if kind == "gab2":
        return kind, avi_with_subtitles(text["m3u8"].encode())
    return kind, text[kind].encode()


def box(kind: bytes, content: bytes) -> bytes:
    """A box of a QuickTime or MP4 file."""
    return struct.pack(">I", 8 + len(content)) + kind + content


def avi_with_subtitles(text: bytes) -> bytes:
    """An AVI file without pictures whose subtitles are a playlist, which FFmpeg once followed."""

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
    gab2 = (
        b"GAB2\0\x02\0" + struct.pack("<I", 2) + b"a\0\x04\0" + struct.pack("<I", len(text)) + text
    )
    body = chunk(b"LIST", b"hdrl" + chunk(b"avih", main) + streams)
    body += chunk(b"LIST", b"movi" + chunk(b"01tx", gab2))
    return chunk(b"RIFF", b"AVI " + body)


def _png_video(rng: random.Random, media: Path, path: Path) -> Way:
    """A video whose PNG pictures declare another size than its head, or the head a huge one."""
    data = bytearray((media / "png.mov").read_bytes())
    size = rng.choice(((30_000, 30_000), (2**31 - 1, 1), (4_000, 5_000), (1, 2**24), (0, 0)))
    which = rng.choice(("pictures", "one picture", "head", "all"))
    if which != "head":
        at = data.find(b"IHDR")
        while at >= 0:
            struct.pack_into(">II", data, at + 4, *size)
            struct.pack_into(">I", data, at + 17, zlib.crc32(data[at : at + 17]))
            at = -1 if which == "one picture" else data.find(b"IHDR", at + 4)
    if which in ("head", "all"):
        at = data.find(b"stsd") + 12 + 4
        struct.pack_into(">HH", data, at + 24 + 4, *(min(side, 0xFFFF) for side in size))
    path.write_bytes(data)
    return Way(f"PNG in MOV: {which} of {size}")


def _rename(rng: random.Random, media: Path, place: Path) -> Way:
    """Gives the recording a name that no file should have."""
    name = rng.choice([n for n in NAMES if "\0" not in n])
    name = name.replace("/", "") or "."
    try:
        shutil.copy(media / "video.mp4", place / "videos" / f"{name}.mp4")
        (place / "labels" / "bench3").rename(place / "labels" / name)
    except OSError:  # longer than this disk allows
        return Way(f"name {name!r}", "videos")
    return Way(f"name {name!r}", "")
