"""Pictures, videos and zip files as they come: geometry, repairs, and one clear error each."""

import builtins
import io
import math
import os
import struct
import zipfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_prep import pictures, video
from data_prep.pictures import Framing, ImageFiles
from data_prep.trees import MAX_FILE_BYTES, Tree, open_trees

HEIGHT, WIDTH = 54, 96


def photograph(seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Something with the spectrum of a photograph, and edges."""
    rng = np.random.default_rng(seed)
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    frequency = np.hypot(rows, columns)
    frequency[0, 0] = 1
    image = np.empty((height, width, 3))
    for c in range(3):
        spectrum = np.fft.rfft2(rng.normal(size=(height, width))) / frequency**1.2
        noise = np.fft.irfft2(spectrum, (height, width))
        image[..., c] = 120 + 40 * noise / noise.std()
    image[height // 3 : height // 2, width // 4 : width // 2] = rng.uniform(0, 255, 3)
    return np.clip(image, 0, 255).astype(np.uint8)


def jpeg(image: np.ndarray, **options) -> bytes:
    return simplejpeg.encode_jpeg(image, 95, "RGB", "444", **options)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * math.log10(255**2 / np.mean((a.astype(float) - b) ** 2))


def fit(*files: bytes | np.ndarray, **framing) -> list[bytes]:
    named = [(f"{i:05d}.jpg", data) for i, data in enumerate(files)]
    return list(pictures.encode(named, Framing(**framing)))


def fit_one(data: bytes | np.ndarray, **framing) -> np.ndarray:
    return simplejpeg.decode_jpeg(fit(data, **framing)[0])


def test_encode_matches_pillow_on_whole_pictures():
    """The bounds that the benchmark states, on a small picture: it is harder than a large one."""
    source = jpeg(photograph(height=540, width=960))
    with Image.open(io.BytesIO(source)) as image:
        resized = image.resize((112, 112), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    resized.save(buffer, "JPEG", quality=92, subsampling=0)
    plain = simplejpeg.decode_jpeg(buffer.getvalue())
    assert psnr(fit_one(source, size=(112, 112), quality=100), np.asarray(resized)) > 46
    assert psnr(fit_one(source, size=(112, 112)), plain) > 36


@pytest.mark.parametrize("size", [(24, 24), (16, 40), (200, 120)])
@pytest.mark.parametrize("shape", [(54, 96), (53, 97), (61, 45)])
def test_encode_property_dct_scaling_does_not_shift_the_picture(shape, size):
    """A picture that is linear in x and y says where each of its points went."""
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    image = np.stack([x / shape[1], y / shape[0], x * 0 + 0.5], axis=-1)
    result = fit_one(jpeg((image * 255).round().astype(np.uint8)), size=size, quality=100)
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    error = result[..., :2] / 255 - np.stack([x / size[1], y / size[0]], axis=-1)
    inner = error[size[0] // 8 : -size[0] // 8, size[1] // 8 : -size[1] // 8]
    assert np.abs(inner.mean(axis=(0, 1))).max() < 0.004  # a quarter of a source pixel
    assert np.abs(inner).max() < 0.03


BOX = np.array([[0.45, 0.4, 0.3, 0.5]])


@pytest.mark.parametrize("region", [pictures.WHOLE, (0.2, 0.05, 0.9, 0.8)])
@pytest.mark.parametrize("aspect", pictures.ASPECTS)
@pytest.mark.parametrize("size", [(64, 64), (40, 90)])
def test_map_boxes_property_box_stays_on_its_object(size, aspect, region):
    """A white object in a grey picture is found where the mapped box says."""
    image = np.full((216, 384, 3), 90, np.uint8)
    x0, x1 = (round((0.45 + s * 0.15) * 384) for s in (-1, 1))
    y0, y1 = (round((0.4 + s * 0.25) * 216) for s in (-1, 1))
    image[y0:y1, x0:x1] = 255
    framing = Framing(size, aspect, region)
    (box,) = framing.place(216, 384).map_boxes(BOX)
    white = fit_one(jpeg(image), size=size, aspect=aspect, region=region)[..., 1] > 172
    rows, columns = np.flatnonzero(white.any(axis=1)), np.flatnonzero(white.any(axis=0))
    found = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    corners = np.concatenate([box[:2] - box[2:] / 2, box[:2] + box[2:] / 2])
    np.testing.assert_allclose(corners * [*size[::-1], *size[::-1]], found, atol=1.01)


def test_map_boxes_golden_each_aspect():
    boxes = np.array([[0.5, 0.5, 0.2, 0.4], [np.nan] * 4])
    place = {a: Framing((100, 100), a).place(1080, 1920) for a in pictures.ASPECTS}
    np.testing.assert_allclose(place["stretch"].map_boxes(boxes), boxes)
    padded = place["pad"].map_boxes(boxes)  # 100 x 56 pixels between two black bars of 22
    assert place["pad"].inside == (0, 22, 100, 56)
    np.testing.assert_allclose(padded[0], [0.5, 0.5, 0.2, 0.4 * 0.56])
    cropped = place["crop"].map_boxes(boxes)  # the middle 1080 of 1920 columns
    np.testing.assert_allclose(cropped[0], [0.5, 0.5, 0.2 * 16 / 9, 0.4])
    assert np.isnan([padded[1], cropped[1]]).all()


def test_map_boxes_property_less_than_half_a_box_is_dropped():
    placement = Framing((50, 50), region=(0.5, 0, 1, 1)).place(100, 100)
    boxes = np.array([[0.51, 0.5, 0.2, 0.2], [0.49, 0.5, 0.2, 0.2], [0.5, 0.5, 0.2, 0.2]])
    mapped = placement.map_boxes(boxes)
    np.testing.assert_allclose(mapped[0], [0.11, 0.5, 0.22, 0.2])  # 0.11 of 0.2 is left
    assert np.isnan(mapped[1]).all()
    np.testing.assert_allclose(mapped[2], [0.1, 0.5, 0.2, 0.2])


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(*[st.floats(0, 1)] * 4),
    st.tuples(*[st.floats(0.02, 1)] * 4),
    st.sampled_from(pictures.ASPECTS),
    st.tuples(st.integers(8, 300), st.integers(8, 300)),
)
def test_map_boxes_property_result_lies_in_the_picture(corner, box, aspect, size):
    x0, y0 = corner[0] * 0.9, corner[1] * 0.9
    region = (x0, y0, x0 + (1 - x0) * max(corner[2], 0.05), y0 + (1 - y0) * max(corner[3], 0.05))
    placement = Framing(size, aspect, region).place(1080, 1920)
    mapped = placement.map_boxes(np.array([box]))[0]
    if not np.isnan(mapped).any():
        start, end = mapped[:2] - mapped[2:] / 2, mapped[:2] + mapped[2:] / 2
        assert (start > -1e-9).all()
        assert (end < 1 + 1e-9).all()
        assert (mapped >= 0).all()
    x, y, w, h = placement.inside
    assert x >= 0
    assert y >= 0
    assert x + w <= size[1]
    assert y + h <= size[0]


def test_encode_property_pad_is_black_and_crop_is_the_middle():
    image = np.full((90, 160, 3), 200, np.uint8)
    image[:, :30] = image[:, -30:] = 10
    padded = fit_one(image, size=(64, 64), aspect="pad")
    assert padded[:12].max() < 12
    assert padded[-12:].max() < 12
    assert padded[32, 32].min() > 190
    assert fit_one(image, size=(64, 64), aspect="crop")[:, 2:-2].min() > 180


def test_encode_property_jpeg_of_the_right_size_is_kept():
    source = jpeg(photograph())
    assert fit(source, size=(HEIGHT, WIDTH)) == [source]
    assert fit(source, size=(HEIGHT, WIDTH), region=(0, 0, 0.99, 1)) != [source]
    assert fit(source, size=(HEIGHT, WIDTH - 1)) != [source]
    with pytest.raises(ValueError, match=r"00001.jpg: the JPEG is damaged or cut off"):
        fit(source, source[:-200], size=(HEIGHT, WIDTH))


def exif(orientation: int) -> bytes:
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    body = b"Exif\0\0" + tiff
    return b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body


TURNED = {3: 2, 6: -1, 8: 1}  # EXIF orientation: quarter turns that make the picture upright


@pytest.mark.parametrize("orientation", [1, *TURNED])
def test_encode_property_exif_rotation_is_undone(orientation, caplog):
    source = photograph()
    data = jpeg(source)
    data = data[:2] + exif(orientation) + data[2:]
    upright = np.rot90(source, TURNED.get(orientation, 0))
    size = upright.shape[:2]
    assert psnr(fit_one(data, size=size), upright) > 28
    if orientation == 1:
        assert not caplog.records
    else:
        assert f"00000.jpg: rotated as EXIF says (orientation {orientation})" in caplog.text


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_encode_property_grey_and_cmyk_become_rgb(mode, caplog):
    source = Image.fromarray(photograph()).convert("L").convert("RGB")
    buffer = io.BytesIO()
    source.convert(mode).save(buffer, "JPEG", quality=95)
    results = fit(buffer.getvalue(), buffer.getvalue(), size=(HEIGHT, WIDTH))
    assert simplejpeg.decode_jpeg_header(results[0])[2] == "YCbCr"
    assert psnr(simplejpeg.decode_jpeg(results[0]), np.asarray(source)) > 28
    assert len(caplog.records) == 1  # once a recording
    assert f"{'Gray' if mode == 'L' else 'CMYK'} converted to RGB" in caplog.text


def test_encode_property_png():
    buffer = io.BytesIO()
    Image.fromarray(photograph()).convert("RGBA").save(buffer, "PNG")
    assert psnr(fit_one(buffer.getvalue(), size=(HEIGHT, WIDTH)), photograph()) > 30
    with pytest.raises(ValueError, match=r"00000.jpg: the picture is damaged or cut off"):
        fit(buffer.getvalue()[:-2000], size=(24, 24))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "00001.jpg: is empty"),
        (b"GIF89a" * 20, r"00001.jpg: is not a JPEG or PNG picture"),
        (jpeg(photograph())[:-300], r"00001.jpg: the JPEG is damaged or cut off \(Premature"),
        (jpeg(photograph())[:40], r"00001.jpg: "),
        (jpeg(photograph(height=53)), r"00001.jpg: is 53x96 \(HxW\), the first .* is 54x96"),
    ],
)
def test_encode_property_bad_pictures_are_named(data, message):
    with pytest.raises(ValueError, match=message):
        fit(jpeg(photograph()), data, size=(24, 24))


def test_encode_property_enormous_pictures_are_refused():
    data = bytearray(jpeg(photograph()))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", 60000, 60000)
    with pytest.raises(ValueError, match=r"00000.jpg: 60000x60000 .* is more than"):
        fit(bytes(data), size=(24, 24))


def test_encode_property_one_picture_at_a_time():
    taken = []

    def source():
        for i in range(1000):
            taken.append(i)
            yield f"{i}", jpeg(photograph())

    results = pictures.encode(source(), Framing((24, 24)))
    next(results), next(results)
    assert len(taken) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": (4, 4)}, "--size"),
        ({"aspect": "zoom"}, "--aspect=zoom is not one of stretch, pad, crop"),
        ({"region": (0.5, 0, 0.5, 1)}, "--crop=0.5,0,0.5,1 is not"),
        ({"region": (0, 0, 1.1, 1)}, "--crop=0,0,1.1,1 is not"),
        ({"region": (float("nan"), 0, 1, 1)}, "--crop=nan"),
        ({"quality": 0}, "--quality=0"),
    ],
)
def test_framing_property_impossible_ones_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Framing(**({"size": (24, 24)} | change))


def write_folder(folder: Path, names) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        (folder / name).write_bytes(jpeg(photograph(i)))


def as_zip(folder: Path) -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as file:
        for member in sorted(folder.rglob("*")):
            file.write(member, member.relative_to(folder))
    return path


def test_image_files_property_zip_is_read_like_the_folder(tmp_path):
    names = [f"{i:05d}.jpg" for i in range(7, 12)]
    write_folder(tmp_path / "data/RGB/0001", names)
    (tmp_path / "data/RGB/0001/notes.txt").write_text("hello")
    (tmp_path / "data/RGB/0001/._00007.jpg").write_bytes(b"of macOS")
    found = []
    for path in (tmp_path / "data", as_zip(tmp_path / "data")):
        (tree,) = open_trees(path)
        assert [folder for folder, _, _ in tree.walk()] == ["", "RGB", "RGB/0001"]
        files = pictures.number_images(tree, "RGB/0001", tree.entries("RGB/0001")[1])
        assert files == {i: f"{i:05d}.jpg" for i in range(7, 12)}
        read = list(ImageFiles(tree, "RGB/0001", 7, 5).read())
        assert read[0][0] == f"{path}/RGB/0001/00007.jpg"
        found.append([data for _, data in read])
    assert found[0] == found[1] == [jpeg(photograph(i)) for i in range(5)]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["1.jpg", "2.jpg", "4.jpg", "7.jpg"], r"frame 3 is missing \(3 of the frames 1…7 are\)"),
        (["00001.jpg", "1.png"], "00001.jpg and 1.png are the same frame"),
        (["00001.jpg", "cover 2.jpg"], "cover 2.jpg: not a frame's name"),
    ],
)
def test_number_images_property_gaps_and_strangers_are_errors(tmp_path, names, message):
    with pytest.raises(ValueError, match=message):
        pictures.number_images(Tree(str(tmp_path)), "rec", names)


@pytest.mark.parametrize("loop", ["itself", "above"])
def test_walk_property_symlink_loops_are_errors(tmp_path, loop):
    write_folder(tmp_path / "data/0001", ["1.jpg"])
    if loop == "above":
        (tmp_path / "data/0001/again").symlink_to(tmp_path / "data")
        message = r"data/0001/again: symlink loop"
    else:
        (tmp_path / "data/self").symlink_to(tmp_path / "data/self")
        message = "cannot be listed .*symbolic links"
    with pytest.raises(ValueError, match=message):
        list(open_trees(tmp_path / "data")[0].walk())


def test_walk_property_links_to_other_places_are_followed(tmp_path):
    write_folder(tmp_path / "elsewhere/0001", ["1.jpg"])
    (tmp_path / "data").mkdir()
    (tmp_path / "data/0001").symlink_to(tmp_path / "elsewhere/0001")
    (tree,) = open_trees(tmp_path / "data")
    assert list(tree.walk()) == [("", ["0001"], []), ("0001", [], ["1.jpg"])]


def test_walk_property_non_utf8_names_are_errors(tmp_path):
    os.mkdir(os.fsencode(tmp_path) + b"/caf\xe9")
    with pytest.raises(ValueError, match=r"the name b'caf\\xe9' is not UTF-8; rename it"):
        list(open_trees(tmp_path)[0].walk())


def raw_zip(path: Path, names: list[bytes]) -> Path:
    """A zip file with these names as they are; zipfile itself would clean them up."""
    stand_ins = [chr(ord("p") + i).encode() * len(name) for i, name in enumerate(names)]
    with zipfile.ZipFile(path, "w") as file:
        for stand_in in stand_ins:
            file.writestr(stand_in.decode(), b"content")
    data = path.read_bytes()
    for name, stand_in in zip(names, stand_ins, strict=True):
        assert data.count(stand_in) == 2
        data = data.replace(stand_in, name)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    "name", [b"../../etc/passwd", b"/etc/passwd", b"C:/windows/x", b"a/../../b", b"..\\..\\x.jpg"]
)
def test_zip_property_names_that_lead_out_are_errors(tmp_path, name):
    path = raw_zip(tmp_path / "a.zip", [b"good/00001.jpg", name])
    with pytest.raises(ValueError, match=r"a.zip: .* leads out of the zip file"):
        open_trees(path)


def test_zip_property_names_in_utf8_without_the_flag_are_repaired(tmp_path):
    path = raw_zip(tmp_path / "a.zip", ["caf\u00e9/00001.jpg".encode(), b"win\\0001\\00001.jpg"])
    (tree,) = open_trees(path)
    assert [folder for folder, _, _ in tree.walk()] == ["", "caf\u00e9", "win", "win/0001"]
    with pytest.raises(ValueError, match=r"b.zip: the name .* is not UTF-8"):
        open_trees(raw_zip(tmp_path / "b.zip", [b"caf\xe9/00001.jpg"]))


def test_zip_property_bomb_is_not_unpacked(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        with file.open("0001/00001.jpg", "w") as member:
            for _ in range(MAX_FILE_BYTES // 2**20 + 1):
                member.write(bytes(2**20))
    (tree,) = open_trees(path)
    with pytest.raises(ValueError, match=r"00001.jpg: has more than 128 MiB"):
        tree.read("0001/00001.jpg")
    # One that says that it is small ends where it says, and then its checksum is wrong.
    data, size = path.read_bytes(), MAX_FILE_BYTES + 2**20
    at = data.rindex(struct.pack("<I", size))
    lying = tmp_path / "lying.zip"
    lying.write_bytes(data[:at] + struct.pack("<I", 1000) + data[at + 4 :])
    with pytest.raises(ValueError, match=r"00001.jpg: cannot be unpacked \(Bad CRC"):
        open_trees(lying)[0].read("0001/00001.jpg")


def test_zip_property_unreadable_ones_are_errors(tmp_path):
    write_folder(tmp_path / "data/0001", ["1.jpg"])
    path = as_zip(tmp_path / "data")
    data = path.read_bytes()
    path.write_bytes(data[:-30])
    with pytest.raises(ValueError, match=r"data.zip: not a whole zip file .*download it again"):
        open_trees(path)
    damaged = tmp_path / "damaged.zip"
    damaged.write_bytes(data[:1000] + b"!!" + data[1002:])
    with pytest.raises(ValueError, match=r"damaged.zip/0001/1.jpg: cannot be unpacked"):
        open_trees(damaged)[0].read("0001/1.jpg")
    with pytest.raises(ValueError, match=r"nothing.zip: no such folder or zip file"):
        open_trees(tmp_path / "nothing.zip")


def write_video(path: Path, times=None, fps: float = 12, count: int = 20, codec="mpeg4") -> None:
    """A video whose i-th frame has a white bar at its i-th column pair."""
    av = pytest.importorskip("av")
    times = np.arange(count) / fps if times is None else times
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1000))
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.bit_rate = 4_000_000
        stream.codec_context.time_base = Fraction(1, 1200)
        for i, time in enumerate(times):
            image = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
            image[:, 4 * i : 4 * i + 4] = 255
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = round(time * 1200), Fraction(1, 1200)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.mark.parametrize("ending", ["mp4", "mkv", "avi"])
@pytest.mark.parametrize("zipped", [False, True])
def test_video_property_frames_come_in_order(tmp_path, ending, zipped):
    folder = tmp_path / "data"
    folder.mkdir()
    if ending == "avi":
        pytest.importorskip("av")
        write_avi(folder / "0001.avi")
    else:
        write_video(folder / f"0001.{ending}")
    (tree,) = open_trees(as_zip(folder) if zipped else folder)
    opened = video.open_constant_rate(tree, f"0001.{ending}", 1, 12)
    assert (opened.first_frame, opened.num_frames) == (1, 20)
    columns = [image.mean(axis=(0, 2)).argmax() // 4 for _, image in opened.read()]
    assert columns == list(range(20))
    np.testing.assert_allclose(np.diff(video.read_times(tree, f"0001.{ending}")), 1 / 12, atol=1e-3)


def write_avi(path: Path) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=12)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.bit_rate = 4_000_000
        for i in range(20):
            image = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
            image[:, 4 * i : 4 * i + 4] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


@pytest.mark.parametrize("turns", [-1, 2, 1])
def test_video_property_rotation_of_phones_is_applied(tmp_path, turns):
    """The matrix of a track (QuickTime format): x' = a x + c y, y' = b x + d y, y downwards."""
    write_video(tmp_path / "phone.mp4", count=1)
    data = (tmp_path / "phone.mp4").read_bytes()
    (before,) = video.decode(Tree(str(tmp_path)), "phone.mp4")
    one = 0x10000
    a, b, c, d = {-1: (0, one, -one, 0), 2: (-one, 0, 0, -one), 1: (0, -one, one, 0)}[turns]
    at = data.index(b"tkhd") + 4 + 40
    assert struct.unpack(">9i", data[at : at + 36]) == (one, 0, 0, 0, one, 0, 0, 0, 1 << 30)
    matrix = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    (tmp_path / "phone.mp4").write_bytes(data[:at] + matrix + data[at + 36 :])
    (after,) = video.decode(Tree(str(tmp_path)), "phone.mp4")
    np.testing.assert_array_equal(after, np.rot90(before, turns))


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
def test_video_property_other_frame_rates_are_errors(tmp_path, times, message):
    write_video(tmp_path / "0001.mp4", times)
    with pytest.raises(ValueError, match=rf"0001.mp4: .*{message}"):
        video.open_constant_rate(Tree(str(tmp_path)), "0001.mp4", 1, 12)


def test_video_property_small_jitter_is_no_matter(tmp_path):
    jitter = np.random.default_rng(0).uniform(-0.01, 0.01, 20)
    jitter[0] = 0
    write_video(tmp_path / "0001.mp4", EVEN + jitter)
    opened = video.open_constant_rate(Tree(str(tmp_path)), "0001.mp4", 1, 12)
    assert opened.num_frames == 20


def test_video_property_unreadable_ones_are_errors(tmp_path, monkeypatch):
    pytest.importorskip("av")
    tree = Tree(str(tmp_path))
    (tmp_path / "empty.mp4").write_bytes(b"")
    with pytest.raises(ValueError, match=r"empty.mp4: is empty \(0 bytes\)"):
        video.open_constant_rate(tree, "empty.mp4", 1, 12)
    (tmp_path / "text.mkv").write_bytes(b"no video at all " * 100)
    with pytest.raises(ValueError, match=r"text.mkv: is not a video that can be read"):
        video.open_constant_rate(tree, "text.mkv", 1, 12)
    write_video(tmp_path / "whole.mkv", count=20)
    data = (tmp_path / "whole.mkv").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 3])
    cut = video.Video(tree, "cut.mp4", 1, 20)
    with pytest.raises(ValueError, match=r"cut.mp4: "):
        list(cut.read())

    real_import = builtins.__import__

    def without_av(name, *args, **kwargs):
        if name == "av":
            raise ImportError("No module named 'av'")
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_av)
    with pytest.raises(ValueError, match=r"whole.mkv: .* pip install 'stormpsr-jax\[video\]'"):
        video.open_constant_rate(tree, "whole.mkv", 1, 12)
