"""`data own --locate`: the product is found in films, and the pictures show it closely."""

import json

import numpy as np
import pytest

import stormpsr_jax
from stormpsr_jax.configs import default as sections
from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.data.folder import EMPTY
from stormpsr_jax.media import sources
from stormpsr_jax.media.framing import Framing
from stormpsr_jax.media.pictures import read_upright
from stormpsr_jax.serving import content
from stormpsr_jax.serving.frames import stack
from stormpsr_jax.stages.data import Data
from stormpsr_jax.training import locator
from stormpsr_jax.weights import parameters
from tests.support import model_data, videos
from tests.support.own_data import PROCEDURE, make, opened

HEIGHT, WIDTH, SIDE, FRAMES = 192, 320, 26, 24
NAMES = ("bench1", "bench2", "bench3")
GONE = range(8, 12)  # frames without the product
_TILES = np.random.default_rng(0).integers(80, 150, (HEIGHT // 16, WIDTH // 16, 3), np.uint8)
TABLE = _TILES.repeat(16, axis=0).repeat(16, axis=1)


def centre(name: str, i: int) -> np.ndarray:
    """Where the product is in a frame, x and y in pixels: it moves slowly."""
    start = {"bench1": 60, "bench2": 150, "bench3": 230}[name]
    return np.array([start + 2.0 * i, 60 + 3.0 * i])


def picture(name: str, i: int) -> np.ndarray:
    """A red square with a white one in it, on a table of tiles, or the table alone."""
    image = TABLE.copy()
    if i not in GONE:
        for half, colour in ((SIDE // 2, (220, 30, 20)), (SIDE // 4, (240, 240, 240))):
            x, y = centre(name, i).astype(int)
            image[y - half : y + half, x - half : x + half] = colour
    return image


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Videos, labels, boxes and splits of a user; the folder made of them lies in `out`."""
    folder = tmp_path_factory.mktemp("films")
    for kind in ("labels", "boxes"):
        (folder / kind).mkdir()
    for name in NAMES:
        shown = [picture(name, i) for i in range(FRAMES)]
        videos.write(folder / f"videos/{name}.mp4", shown, fps=5, options={"qscale": "2"})
        (folder / f"labels/{name}.csv").write_text("time,step\n1,0\n2.05,Install cover\n3.4,6\n")
        (folder / "boxes" / name).mkdir()
        for i in range(FRAMES):
            x, y = centre(name, i) / (WIDTH, HEIGHT)
            row = f"0 {x} {y} {SIDE / WIDTH} {SIDE / HEIGHT}\n"
            path = folder / f"boxes/{name}/{i:06d}.txt"
            path.write_text("" if i in GONE else row)
    (folder / "splits.csv").write_text("recording,split\nbench1,train\nbench2,val\nbench3,test\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(locator, "STEPS", 160)
        patch.setattr(locator, "BATCH", 8)
        make_of(folder, folder / "out")
    return folder


def make_of(folder, out, **changes) -> None:
    given = {"boxes": folder / "boxes", "splits": str(folder / "splits.csv"), "locate": "auto"}
    make(folder, out, **given | {"framing": Framing((32, 32))} | changes)


def test_a_small_product_fills_the_pictures_and_none_is_a_black_one(films):
    for name, (recording, source) in opened(films / "out").items():
        shown = source.rows(name, range(FRAMES))
        there = np.isfinite(recording.boxes[:, 0])
        assert not there[GONE].any()
        assert there.mean() > 0.7, name
        assert (recording.classes[~there] == EMPTY).all()
        black = shown.max(axis=(1, 2, 3)) < 8
        assert black[GONE].any(), name
        assert not black[there].any()
        # Its box is what the labels say of it, in the part that is shown: 1 / 1.3 of its sides.
        width = recording.boxes[there, 2]
        assert 0.55 < np.median(width) < 0.95, name
        for i in np.flatnonzero(there):
            x, y = (recording.boxes[i, :2] * 32).astype(int)
            assert shown[i, y, x].min() > 170, (name, i)  # white, where the box has its middle


def test_recognition_sees_what_networks_were_trained_on(films, tmp_path):
    """The pictures of a film that the model prepares are those that the folder has of it."""
    source = ClipSource(films / "out", "test", PROCEDURE)
    params, _ = parameters.load_params(films / "out" / "locator.safetensors")
    size = tuple(source.locator.size)
    found = {"locator": model_data.Network(locator.network(), {"params": params})}
    pictures = content.Pictures(
        (32, 32), (0.5,) * 3, (0.25,) * 3, source.aspect, source.region, None, size
    )
    networks = model_data.NETWORKS | found
    model_data.write(tmp_path / "model", networks=networks, pictures=pictures)
    model = stormpsr_jax.load_model(tmp_path / "model")
    opened_film = sources.open_source(films / "videos/bench3.mp4").open(PROCEDURE.fps)
    film = [*read_upright(opened_film)]
    views = [*map(model.preparing(), film)]
    stored = source.rows("bench3", range(FRAMES))
    for i, (view, one) in enumerate(zip(views, stored, strict=True)):
        assert np.abs(view.encoder.astype(int) - one).mean() < 4, i  # a JPEG file of it
    # A box on what networks see is drawn around the product in the film.
    frames = next(model.frames().over([(range(FRAMES), stack(views))]))
    for i in set(range(FRAMES)) - set(GONE):
        place = frames[i].framed(model.pictures.framing_of("detector")).place(HEIGHT, WIDTH)
        x0, y0, x1, y1 = place.source_box(np.array([0.5, 0.5, 1, 1]))
        x, y = centre("bench3", i) / (WIDTH, HEIGHT)
        assert x0 < x < x1, i
        assert y0 < y < y1, i
    live = model.live("assembly")
    for i, one in enumerate(film):
        live.update(one, i / model.fps)
        np.testing.assert_array_equal(live.shown.region, views[i].region)


def test_a_folder_keeps_its_locator(films, tmp_path, monkeypatch):
    monkeypatch.setattr(locator, "train", lambda *_: pytest.fail("is trained again"))
    make_of(films, films / "out")
    make_of(films, films / "out", locate="always")
    make_of(films, tmp_path / "whole", locate="never")
    whole = json.loads((tmp_path / "whole/settings.json").read_text())
    assert "locator" not in whole["settings"]
    make_of(films, tmp_path / "whole")  # and one that has none keeps that


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"framing": Framing((32, 32), region=(0, 0, 0.5, 1))}, r"leave out --crop"),
        ({"boxes": None}, r"no recording of split train has boxes to learn from"),
    ],
)
def test_what_cannot_be_located_is_said(films, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        make_of(films, tmp_path / "out", locate="always", **changes)
    assert not (tmp_path / "out").exists()


def test_another_locator_than_the_pictures_were_made_with_is_refused(films, tmp_path):
    data = Data(sections.Config(procedure="", data=sections.Data(dir=str(films / "out"))), tmp_path)
    source = data.source("test")
    assert data.pictures(source).locator_size == tuple(source.locator.size)
    assert set(data.locator(source)) == {"locator"}
    source.locator.sha256 = "0" * 64
    with pytest.raises(ValueError, match=r"locator\.safetensors: is missing, or not what"):
        data.locator(source)
