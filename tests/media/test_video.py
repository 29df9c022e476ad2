"""Videos: order, frame rates, rotation, and what cannot be read."""

import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from stormpsr_jax.media import video
from tests.support import videos
from tests.support.videos import HEIGHT, WIDTH


def write_video(path: Path, times=None, count: int = 20) -> None:
    """A video whose i-th frame has a white bar at its i-th column pair."""
    times = np.arange(count) / 12 if times is None else times
    shown = np.full((len(times), HEIGHT, WIDTH, 3), 40, np.uint8)
    for i, image in enumerate(shown):
        image[:, 4 * i : 4 * i + 4] = 255
    ticks = 12 if path.suffix == ".avi" else 1200
    videos.write(path, shown, times, ticks=ticks, bit_rate=4_000_000)


ONE = 0x10000
# The matrix of a track (QuickTime format): x' = a x + c y, y' = b x + d y, y downwards.
SEEN = {
    "turned clockwise": ((0, ONE, -ONE, 0), lambda picture: np.rot90(picture, -1)),
    "turned by half": ((-ONE, 0, 0, -ONE), lambda picture: np.rot90(picture, 2)),
    "turned anticlockwise": ((0, -ONE, ONE, 0), np.rot90),
    "mirrored": ((-ONE, 0, 0, ONE), lambda picture: picture[:, ::-1]),
    "upside down": ((ONE, 0, 0, -ONE), lambda picture: picture[::-1]),
    "turned and mirrored": ((0, ONE, ONE, 0), lambda picture: picture.transpose(1, 0, 2)),
}


@pytest.mark.parametrize("how", SEEN)
def test_video_rotation_of_phones_is_applied(tmp_path, how):
    (a, b, c, d), seen = SEEN[how]
    quarters = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    quarters[: HEIGHT // 2, : WIDTH // 2, 0] = quarters[: HEIGHT // 2, WIDTH // 2 :, 1] = 200
    quarters[HEIGHT // 2 :, : WIDTH // 2, 2] = 200
    path = videos.write(tmp_path / "phone.mp4", [quarters])
    data = path.read_bytes()
    (stored,) = video.decode(path)
    at = data.index(b"tkhd") + 4 + 40
    assert struct.unpack(">9i", data[at : at + 36]) == (ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30)
    written = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data[:at] + written + data[at + 36 :])
    (after,) = video.decode(path)
    np.testing.assert_array_equal(after, seen(stored))


@pytest.mark.parametrize(
    ("ending", "pixel", "size"),
    [
        ("mp4", Fraction(4, 3), (HEIGHT, round(WIDTH * 4 / 3))),  # of AVCHD, 1440x1080
        ("mkv", Fraction(8, 9), (round(HEIGHT * 9 / 8), WIDTH)),  # of DV, 720x480
        ("ts", Fraction(100, 101), (HEIGHT, WIDTH)),
        ("mp4", None, (HEIGHT, WIDTH)),
    ],
)
def test_a_square_is_seen_as_one_whatever_shape_pixels_have(tmp_path, ending, pixel, size):
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    width = round(HEIGHT / 2 / (pixel or 1))
    image[HEIGHT // 4 : HEIGHT // 4 + HEIGHT // 2, 8 : 8 + width] = 255
    videos.write(tmp_path / f"a.{ending}", [image], sample_aspect_ratio=pixel or Fraction(0, 1))
    (picture,) = video.decode(tmp_path / f"a.{ending}")
    assert picture.shape == (*size, 3)
    bright = picture[..., 0] > 127
    assert abs(int(bright.any(axis=0).sum()) - int(bright.any(axis=1).sum())) <= 1


EVEN = np.arange(20) / 12


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (np.where(EVEN > 1, EVEN + 0.4, EVEN), "frame rate is not constant.*data_prep.own"),
        (np.delete(np.arange(21) / 12, 10), "frame rate is not constant"),  # a dropped frame
        (EVEN**2 * 2, "frame rate is not constant"),
        (EVEN / 2, r"has 24.000 frames/s, not 12: .*data_prep.own"),
    ],
)
def test_video_other_frame_rates_are_errors(tmp_path, times, message):
    write_video(tmp_path / "0001.mp4", times)
    with pytest.raises(ValueError, match=rf"0001.mp4: .*{message}"):
        video.open_constant_rate(tmp_path / "0001.mp4", 1, 12)


CONTAINERS = {
    "avi": ("mjpeg", "yuvj420p"),
    "mp4": ("mpeg4", "yuv420p"),
    "mov": ("libx264", "yuv420p"),
    "mkv": ("mpeg4", "yuv420p"),
    "flv": ("flv", "yuv420p"),
}


@pytest.mark.parametrize("ending", CONTAINERS)
def test_read_times_errors_a_video_cut_off_by_seven_percent(tmp_path, ending):
    """Pictures that all take about as many bytes; the index is in front where it may be."""
    path, (codec, pixels) = tmp_path / f"a.{ending}", CONTAINERS[ending]
    noise = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    shown = (np.roll(noise, i, axis=(0, 1)).repeat(8, 0).repeat(8, 1) for i in range(120))
    videos.write(path, shown, codec=codec, pix_fmt=pixels, faststart=ending in ("mp4", "mov"))
    content = path.read_bytes()
    assert len(video.read_times(path)) == 120
    path.write_bytes(content[: int(len(content) * 0.93)])
    with pytest.raises(
        ValueError, match=rf"a.{ending}: is cut off: it ends at 9\.\d s, its head says 10\.0 s"
    ):
        video.read_times(path)


def write_cut(path: Path, skipped: int, options: dict[str, str], count: int = 61) -> None:
    """Ten pictures a second, the i-th of grey level 4 i, without the first packets of them."""
    import av

    whole = path.with_name(f"whole{path.suffix}")
    shown = (np.full((48, 64, 3), 4 * i, np.uint8) for i in range(count))
    videos.write(whole, shown, fps=10, codec="libx264", options=options)
    with av.open(str(whole)) as container, av.open(str(path), "w") as cut:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        stream = cut.add_stream_from_template(container.streams.video[0])
        for packet in packets[skipped:]:
            packet.stream = stream
            cut.mux(packet)


CUTS = {
    "in the middle of a group": (7, {"g": "20", "bf": "2", "x264-params": "scenecut=0"}),
    "at a key frame before whose time others come": (
        19,
        {"g": "20", "bf": "2", "x264-params": "scenecut=0:open-gop=1"},
    ),
}


@pytest.mark.parametrize("fps", [10, 3])
@pytest.mark.parametrize("how", CUTS)
def test_frames_come_at_their_times_though_the_first_ones_cannot_be_decoded(tmp_path, how, fps):
    skipped, options = CUTS[how]
    path = tmp_path / "cut.ts"
    write_cut(path, skipped, options)
    times = video.read_times(path)
    numbers = np.round(times / 0.1).astype(int) - round(times[-1] / 0.1) + 60
    first = next(video.decode(path)).mean() / 4
    assert numbers[0] < round(first) < 30  # some of them are hidden
    shown = np.repeat(np.maximum(numbers, round(first)), video.resample(times, fps))
    opened = video.open_resampled(path, fps)
    found = [picture.mean() / 4 for _, picture in opened.read()]
    np.testing.assert_allclose(found, shown, atol=0.5)


def test_read_times_errors_an_mp4_without_its_index_is_no_video(tmp_path):
    path = tmp_path / "a.mp4"
    write_video(path, [i / 12 for i in range(120)])
    path.write_bytes(path.read_bytes()[:1000])  # the index stands at the end
    with pytest.raises(ValueError, match=r"is not a video that can be read .*: if it is cut off"):
        video.read_times(path)


@pytest.mark.parametrize(
    ("ending", "late", "told"), [("mp4", 0.5, True), ("ts", 0.5, True), ("mkv", 0.0, False)]
)
def test_a_sound_that_begins_before_the_first_picture_is_told(tmp_path, caplog, ending, late, told):
    av = pytest.importorskip("av")

    with av.open(str(tmp_path / f"run.{ending}"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 10)
        sound = container.add_stream("aac", rate=8000)
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 24_000), np.float32), "fltp", "mono")
        samples.sample_rate, samples.pts, samples.time_base = 8000, 0, Fraction(1, 8000)
        container.mux([*sound.encode(samples), *sound.encode()])
        for i in range(20):
            frame = av.VideoFrame(64, 48, "yuv420p")
            frame.pts, frame.time_base = i + round(late * 10), Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    video.open_resampled(tmp_path / f"run.{ending}", 5.0)
    said = [message for message in caplog.messages if "after its beginning" in message]
    assert len(said) == told
    if told:
        assert float(said[0].partition("comes ")[2].split()[0]) == pytest.approx(late, abs=0.13)


# --- Videos that lead elsewhere -------------------------------------------------------------------

PLAYLIST = (
    "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:5,\n{}\n#EXT-X-ENDLIST\n"
)


def frames_elsewhere(other: Path) -> bytes:
    """A MOV file whose frames are said to be in another one (an alias in its `dref`)."""
    data, target = other.with_suffix(".mov").read_bytes(), str(other).encode()
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


def avi_with_subtitles(other: Path) -> bytes:
    """An AVI file without pictures whose subtitles are a playlist, which FFmpeg once followed."""
    text = PLAYLIST.format(other).encode()

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


LEADING = {
    "a playlist": lambda other: PLAYLIST.format(other).encode(),
    "a playlist of an address": lambda other: PLAYLIST.format("http://127.0.0.1:9/x.mp4").encode(),
    "a list of files": lambda other: f"ffconcat version 1.0\nfile '{other}'\n".encode(),
    "frames in another file": frames_elsewhere,
    "subtitles that are a playlist": avi_with_subtitles,
}


@pytest.mark.parametrize("ending", [".mp4", ".avi", ".ts"])
@pytest.mark.parametrize("how", LEADING)
def test_a_file_that_names_other_files_is_refused_under_any_name(tmp_path, how, ending):
    """The file that it names is a good video: if it were opened, there would be frames."""
    other, path = tmp_path / "other.mp4", tmp_path / f"x{ending}"
    noise = np.random.default_rng(0).integers(0, 256, (24, 48, 64, 3), np.uint8)
    videos.write(other, noise)
    videos.write(other.with_suffix(".mov"), noise)
    path.write_bytes(LEADING[how](other))
    with pytest.raises(ValueError, match=rf"x{ending}: ") as error:
        assert len(video.read_times(path)) == 0 or not list(video.decode(path))
    assert str(error.value).isprintable()
