"""MP4 files of few bytes that say they are much, put together box by box (ISO 14496-12)."""

import struct

_MATRIX = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)


def box(kind: bytes, *content: bytes) -> bytes:
    """A box; all its content comes behind its size."""
    body = b"".join(content)
    return struct.pack(">I", 8 + len(body)) + kind + body


def full_box(kind: bytes, *content: bytes, flags: int = 0) -> bytes:
    """A box of version 0."""
    return box(kind, struct.pack(">I", flags), *content)


def mp4(
    samples: int,
    data: int,
    *,
    gap: int = 1,
    ticks: int = 25,
    size: int = 1,
    edits: int = 0,
    more: bytes = b"",
) -> bytes:
    """An MP4 file of MPEG-4 video whose samples, each of `size` bytes, lie one after the other.

    Of them there are `data` bytes. Each of the edits shows all of the video.
    """
    length = min(samples * gap, 2**32 - 1)
    entry = bytes(6) + struct.pack(">H16xHHIIIH32xHh", 1, 64, 48, 72 << 16, 72 << 16, 0, 1, 24, -1)
    shown = edits * struct.pack(">IiI", min(length, 2**31 - 1), 0, 1 << 16)
    of_edits = box(b"edts", full_box(b"elst", struct.pack(">I", edits), shown)) if edits else b""
    head = box(b"ftyp", b"isom", bytes(4), b"isom")

    def moov(offset: int) -> bytes:
        table = box(
            b"stbl",
            full_box(b"stsd", struct.pack(">I", 1), box(b"mp4v", entry)),
            full_box(b"stts", struct.pack(">III", 1, samples, gap)),
            full_box(b"stsc", struct.pack(">IIII", 1, 1, samples, 1)),
            full_box(b"stsz", struct.pack(">II", size, samples)),
            full_box(b"stco", struct.pack(">II", 1, offset)),
        )
        here = box(b"dinf", full_box(b"dref", struct.pack(">I", 1), full_box(b"url ", flags=1)))
        media = box(
            b"mdia",
            full_box(b"mdhd", struct.pack(">IIIIHH", 0, 0, ticks, length, 0x55C4, 0)),
            full_box(b"hdlr", bytes(4), b"vide", bytes(12), b"\0"),
            box(b"minf", full_box(b"vmhd", bytes(8), flags=1), here, table),
        )
        track = struct.pack(">IIIII16x", 0, 0, 1, 0, length)
        track = full_box(b"tkhd", track, _MATRIX, struct.pack(">II", 64 << 16, 48 << 16), flags=3)
        movie = struct.pack(">IIIIIH10x", 0, 0, ticks, length, 1 << 16, 256)
        movie = full_box(b"mvhd", movie, _MATRIX, bytes(24), struct.pack(">I", 2))
        return box(b"moov", movie, box(b"trak", track, of_edits, media), more)

    return head + moov(len(head) + len(moov(0)) + 8) + box(b"mdat", bytes(data))


def fragmented(samples: int) -> bytes:
    """An MP4 file of one fragment, whose samples all have the size and length that it says once."""
    head = full_box(b"tfhd", struct.pack(">III", 1, 1, 1), flags=0x18)
    run = full_box(b"trun", struct.pack(">I", samples))
    fragment = box(b"moof", full_box(b"mfhd", struct.pack(">I", 1)), box(b"traf", head, run))
    defaults = full_box(b"trex", struct.pack(">IIIII", 1, 1, 1, 1, 0))
    return mp4(1, 1000, more=box(b"mvex", defaults)) + fragment
