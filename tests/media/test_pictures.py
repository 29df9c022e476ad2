"""Pictures as they come: geometry, repairs, and one clear error each."""

import io
import itertools
import math
import time

import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageOps

from stormpsr_jax.media import framing, pictures, sources
from stormpsr_jax.media.framing import Framing
from stormpsr_jax.media.sources import ahead
from tests.support.videos import HEIGHT, WIDTH, jpeg, photograph


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * math.log10(255**2 / max(np.mean((a.astype(float) - b) ** 2), 1e-9))


def fit(*files: bytes | np.ndarray, **framing) -> list[bytes]:
    named = [(f"{i:05d}.jpg", data) for i, data in enumerate(files)]
    return list(pictures.encode(named, Framing(**framing)))


def fit_one(data: bytes | np.ndarray, **framing) -> np.ndarray:
    return simplejpeg.decode_jpeg(fit(data, **framing)[0])


@pytest.mark.parametrize(("stored", "size"), [(640, 224), (637, 224), (96, 32), (100, 80)])
def test_decode_smaller_matches_pillow_on_the_whole_picture(stored, size):
    source = jpeg(photograph(height=stored, width=stored))
    with Image.open(io.BytesIO(source)) as image:
        plain = np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))
    found = np.zeros((size, size, 3), np.uint8)
    pictures.decode_smaller(source, found)
    assert psnr(found, plain) > 40


def test_encode_matches_pillow_on_whole_pictures():
    """On a small picture, which is harder than a large one."""
    source = jpeg(photograph(height=540, width=960))
    with Image.open(io.BytesIO(source)) as image:
        resized = image.resize((112, 112), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    resized.save(buffer, "JPEG", quality=92, subsampling=0)
    plain = simplejpeg.decode_jpeg(buffer.getvalue())
    assert psnr(fit_one(source, size=(112, 112)), plain) > 36


@pytest.mark.parametrize("region", [(0, 0, 1, 1), (0.2, 0.05, 0.9, 0.8)])
@pytest.mark.parametrize("aspect", framing.ASPECTS)
def test_prepare_matches_pillow_on_the_part_that_is_used(aspect, region):
    """The part cut out by hand at whole pixels, and black around it."""
    picture = np.random.default_rng(0).integers(0, 256, (100, 200, 3), dtype=np.uint8)
    left, top, right, bottom = (round(r * n) for r, n in zip(region, (200, 100) * 2, strict=True))
    prepared = Framing((40, 40), aspect, region).prepare(picture)
    assert prepared.shape == (40, 40, 3)
    assert prepared.dtype == np.uint8
    height, width = bottom - top, right - left
    rows = 40
    if aspect == "pad":
        rows = round(40 * height / width)
        black = (40 - rows) // 2
        assert not prepared[:black].any()
        assert not prepared[black + rows :].any()
        prepared = prepared[black : black + rows]
    if aspect == "crop":
        middle = (left + right) / 2
        left, right = middle - height / 2, middle + height / 2
    whole = Image.fromarray(picture)
    part = whole.resize((40, rows), Image.Resampling.BICUBIC, (left, top, right, bottom))
    np.testing.assert_array_equal(prepared, np.asarray(part))


@pytest.mark.parametrize("region", [framing.WHOLE, (0.2, 0.05, 0.9, 0.8)])
@pytest.mark.parametrize("aspect", framing.ASPECTS)
@pytest.mark.parametrize("size", [(64, 64), (40, 90)])
def test_map_boxes_box_stays_on_its_object(size, aspect, region):
    """A white object in a grey picture is found where the mapped box says."""
    image = np.full((216, 384, 3), 90, np.uint8)
    x0, x1 = (round((0.45 + s * 0.15) * 384) for s in (-1, 1))
    y0, y1 = (round((0.4 + s * 0.25) * 216) for s in (-1, 1))
    image[y0:y1, x0:x1] = 255
    framing = Framing(size, aspect, region)
    box, nothing = framing.place(216, 384).map_boxes(
        np.array([[0.45, 0.4, 0.3, 0.5], [np.nan] * 4])
    )
    assert np.isnan(nothing).all()
    white = fit_one(jpeg(image), size=size, aspect=aspect, region=region)[..., 1] > 172
    rows, columns = np.flatnonzero(white.any(axis=1)), np.flatnonzero(white.any(axis=0))
    found = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    corners = np.concatenate([box[:2] - box[2:] / 2, box[:2] + box[2:] / 2])
    np.testing.assert_allclose(corners * [*size[::-1], *size[::-1]], found, atol=1.01)


TURNED = {3: 2, 6: -1, 8: 1}  # EXIF orientation: quarter turns that make the picture upright


@pytest.mark.parametrize("orientation", [1, *TURNED])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_encode_exif_rotation_is_undone(kind, orientation):
    source = photograph()
    buffer, noted = io.BytesIO(), Image.Exif()
    noted[0x0112] = orientation
    Image.fromarray(source).save(buffer, kind, quality=95, subsampling=0, exif=noted)
    upright = np.rot90(source, TURNED.get(orientation, 0))
    size = upright.shape[:2]
    assert pictures.size_of("a", buffer.getvalue()) == size
    assert psnr(fit_one(buffer.getvalue(), size=size), upright) > 28


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_encode_grey_and_cmyk_become_rgb(mode):
    source = Image.fromarray(photograph()).convert("L").convert("RGB")
    buffer = io.BytesIO()
    source.convert(mode).save(buffer, "JPEG", quality=95)
    results = fit(buffer.getvalue(), buffer.getvalue(), size=(HEIGHT, WIDTH))
    assert simplejpeg.decode_jpeg_header(results[0])[2] == "YCbCr"
    assert psnr(simplejpeg.decode_jpeg(results[0]), np.asarray(source)) > 28


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "00001.jpg: is empty"),
        (b"GIF89a" * 20, r"00001.jpg: is not a JPEG or PNG picture"),
        (jpeg(photograph())[:-300], r"00001.jpg: the picture is damaged or cut off \(Premature"),
        (jpeg(photograph())[:40], r"00001.jpg: "),
        (jpeg(photograph(height=53)), r"00001.jpg: is 53x96 \(HxW\), the first .* is 54x96"),
    ],
)
def test_encode_bad_pictures_are_named(data, message):
    with pytest.raises(ValueError, match=message):
        fit(jpeg(photograph()), data, size=(24, 24))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_read_upright_matches_pillow(tmp_path, kind):
    """Whole and upright: a turned JPEG, a PNG with a palette, a plain one of each."""
    image = Image.fromarray(photograph())
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = {"exif": exif} if kind == "JPEG" else {}
    first = image if kind == "JPEG" else image.quantize(32)
    first.save(tmp_path / f"1.{kind.lower()}", **turned)
    plain = ImageOps.exif_transpose(Image.open(tmp_path / f"1.{kind.lower()}")).convert("RGB")
    plain.save(tmp_path / f"2.{kind.lower()}")
    opened = sources.open_recording(tmp_path, 10)
    assert (opened.first_frame, opened.num_frames) == (1, 2)
    for i, picture in enumerate(pictures.read_upright(opened), start=1):
        saved = ImageOps.exif_transpose(Image.open(tmp_path / f"{i}.{kind.lower()}"))
        np.testing.assert_array_equal(picture, np.asarray(saved.convert("RGB")))


def test_ahead_is_bounded_and_closes_what_it_takes_from():
    made, closed = [], []

    def endless():
        try:
            for i in itertools.count():
                made.append(i)
                yield i
        finally:
            closed.append(True)

    items = ahead(endless(), 3)
    assert [next(items), next(items)] == [0, 1]
    time.sleep(0.3)
    assert len(made) <= 2 + 3 + 1  # taken, waiting in the queue, and in the thread's hands
    items.close()
    assert closed == [True]
