import dataclasses

import jax
import numpy as np
import pytest

import stormpsr_jax
from stormpsr_jax.base import memory
from stormpsr_jax.networks import detection
from stormpsr_jax.psr import STREAMS
from stormpsr_jax.psr import streams as all_streams
from stormpsr_jax.psr.calibration import Calibration
from stormpsr_jax.recordings.scores import BOUND
from stormpsr_jax.serving.content import Window, functions_of
from stormpsr_jax.serving.frames import Frames, Views, chunks
from tests.support.model_data import (
    DETECT,
    EMBED,
    NETWORKS,
    PICTURES,
    TEMPORAL,
    video,
    write,
)
from tests.support.toy_stream import BOTH, Agreement


@pytest.fixture(scope="module")
def trained(trained):
    return stormpsr_jax.load_model(trained)


def test_networks_match_the_modules_applied_by_hand(trained):
    """The whole modules, as trained, on pictures normalised here."""
    images = np.stack([trained.preprocess(picture) for picture in video(64)])
    x = (images / 255 - np.array(PICTURES.mean)) / np.array(PICTURES.std)
    x = x.astype(np.float32)
    embeddings = EMBED(NETWORKS["encoder"].variables, x)
    np.testing.assert_allclose(trained.encode(images), embeddings, atol=1e-5)
    clips = np.asarray(embeddings).reshape(16, 4, 16)
    logits = np.asarray(TEMPORAL.apply(NETWORKS["temporal"].variables, clips))
    np.testing.assert_allclose(trained.temporal(clips), 1 / (1 + np.exp(-logits)), atol=1e-5)
    outputs = DETECT(NETWORKS["detector"].variables, x)
    boxes, classes, confidences = trained.detect(images)
    expected = jax.jit(detection.decode, static_argnums=1)(outputs, 2)
    assert boxes.shape == (64, 2, 4)
    np.testing.assert_allclose(boxes, expected[0], atol=1e-4)
    np.testing.assert_array_equal(classes, expected[1])
    np.testing.assert_allclose(confidences, expected[2], atol=1e-3)


def test_recognise_calibration_changes_confidences_alone(tmp_path, trained):
    calibration = Calibration(0.5, 1.0, 0.05, 0.95)
    write(tmp_path, calibration=calibration)
    calibrated = stormpsr_jax.load_model(tmp_path)
    assert calibrated.calibration("asd") == calibrated.calibration() == calibration
    assert trained.calibration("asd") is None
    images = video(60)
    for stream in STREAMS:
        plain = trained.recognise(images, variant="assembly", stream=stream)
        found = list(calibrated.recognise(images, variant="assembly", stream=stream))
        assert found == [e._replace(confidence=calibration(e.confidence)) for e in plain]
        assert found
        # With settings that it was not learnt with, it says nothing.
        other = dataclasses.replace(calibrated.settings(stream), decay=0.9)
        of_other = (
            list(model.recognise(images, variant="assembly", stream=stream, settings=other))
            for model in (trained, calibrated)
        )
        assert next(of_other) == next(of_other) != []


def test_model_two_sizes_of_pictures(trained, tmp_path):
    large = dataclasses.replace(PICTURES, size=(48, 48))
    write(tmp_path / "large", ["asd"], pictures=large, networks={"detector": NETWORKS["detector"]})
    write(tmp_path / "both", pictures=dataclasses.replace(PICTURES, detector_size=(48, 48)))
    alone, both = (stormpsr_jax.load_model(tmp_path / name) for name in ("large", "both"))
    images, options = video(60), {"variant": "assembly"}
    asd = list(both.recognise(images, stream="asd", **options))
    assert asd == list(alone.recognise(images, **options))
    assert asd != list(trained.recognise(images, stream="asd", **options))
    temporal = list(both.recognise([images[:25], images[25:]], stream="temporal", **options))
    assert temporal == list(trained.recognise(images, stream="temporal", **options))
    # Fused: what each says of its own pictures.
    rows = [np.stack([m.preprocess(p) for p in images]) for m in (trained, alone)]
    ((*frames,),) = both.frames(both.decoder("storm", "assembly")).over([(range(60), Views(*rows))])
    events = [event for frame in frames for event in frame.events]
    assert events == list(both.recognise(images, stream="storm", **options))
    assert {e.step_id for e in events}
    live = both.live("assembly", "storm", batch=both.batch)
    assert [e for i in range(60) for e in live.update(images[i], i / 10)] == events
    np.testing.assert_array_equal(both.detect(rows[1][:2])[0], alone.detect(rows[1][:2])[0])
    with pytest.raises(ValueError, match=r"uint8 \(B, 48, 48, 3\).*role='detector'"):
        both.detect(rows[0][:2])


def test_model_errors_arguments_that_do_not_fit(trained, monkeypatch):
    for call, message in (
        (lambda: trained.encode(video(2)), r"uint8 \(B, 32, 32, 3\), not uint8 \(2, 24, 40, 3\)"),
        (lambda: trained.temporal(np.zeros((2, 5, 16))), r"\(B, 4, 16\), not \(2, 5, 16\)"),
        (lambda: trained.preprocess(np.zeros((8, 8, 3))), r"in RGB, not float64 \(8, 8, 3\)"),
        (lambda: next(trained.recognise(video(1)[0], variant="assembly")), r"is \(B, H, W, 3\),"),
        (lambda: trained.recognise(video(1)), "has the variants assembly, disassembly; say which"),
        (lambda: trained.decoder(variant="repair"), "variant 'repair' is not in procedure"),
        (lambda: trained.decoder("fused", "assembly"), "stream 'fused' is not one of asd, temp"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    monkeypatch.setattr(memory, "available_bytes", lambda: 2**20)
    with pytest.raises(MemoryError, match=r"a batch of 4,096 \(give a smaller one\) needs"):
        trained.frames(batch=4096)


def test_a_fifth_stream_is_stored_and_decoded_in_files_and_live(tmp_path, monkeypatch):
    monkeypatch.setattr(all_streams, "STREAMS", (*all_streams.STREAMS, BOTH))
    write(tmp_path / "model", ("both",), Agreement(1.0))
    loaded = stormpsr_jax.load_model(tmp_path / "model")
    assert loaded.streams == ("both",)
    assert loaded.settings() == Agreement(1.0)
    shown = video(40)
    events = list(loaded.recognise(shown, variant="assembly"))
    assert {event.stream for event in events} == {"both"}
    live = loaded.live(variant="assembly", batch=loaded.batch)
    assert [e for i, picture in enumerate(shown) for e in live.update(picture, i / 10)] == events
    other = loaded.live(variant="assembly")
    other.restore(live.state())
    assert other.decoder.assembly == live.decoder.assembly
    assert "detect" in functions_of("both")
    with pytest.raises(ValueError, match="'both' is not one of"):
        stormpsr_jax.load_model("demo").settings("both")


def encode(images):
    return images.reshape(len(images), -1)[:, :5].astype(np.float32)


def temporal(windows):
    weights = np.arange(1, windows.shape[1] + 1, dtype=np.float32)
    probabilities = np.einsum("btd,t->bd", windows, weights)
    return probabilities, probabilities + 1


def detect(images):
    mean = images.reshape(len(images), -1).mean(1)
    said = mean / 3, np.stack([mean, -mean], 1), None
    boxes = np.tile(mean[:, None, None], (1, 1, 4))
    return boxes, np.ones((len(images), 1), int), mean[:, None], said


@pytest.mark.parametrize("chunk", [1, 4, 50])
@pytest.mark.parametrize("w", [0, 16])
def test_frames_that_are_missing_repeat_the_one_before(chunk, w):
    """Whatever is computed at once; gaps of a few frames, and one of more than the window."""
    images, numbers = video(30, 4, 4), np.cumsum(np.tile([1, 1, 4, 40, 1, 3], 5)).tolist()
    there = dict(zip(numbers, images, strict=True))
    whole = [there[max(n for n in numbers if n <= i)] for i in range(1, numbers[-1] + 1)]
    functions = {"encode": encode, "temporal": temporal}
    parts = chunks((Views(i, None) for i in whole), 16, 1)
    expected = [f for part in Frames(functions, Window(w, 4)).over(parts) for f in part]
    starts = range(0, 30, chunk)
    parts = [(numbers[i : i + chunk], Views(images[i : i + chunk], None)) for i in starts]
    for frame in (f for part in Frames(functions, Window(w, 4)).over(parts) for f in part):
        np.testing.assert_array_equal(frame.changed, expected[frame.number - 1].changed)


@pytest.mark.parametrize("chunk", [1, 3, 16, 50])
def test_frames_match_windows_cut_by_hand(chunk):
    images, w, stride = video(50, 4, 4), 16, 4
    seen = []
    counting = lambda shown: seen.append(len(shown)) or encode(shown)  # noqa: E731
    functions = {"encode": counting, "temporal": temporal, "detect": detect}
    frames = Frames(functions, Window(w, stride))
    got = [
        frame
        for part in frames.over(chunks((Views(i, i) for i in images), chunk))
        for frame in part
    ]
    assert (sum(seen), len(frames.window)) == (50, 16), "every frame once; one window is kept"
    embedded = encode(images)
    for x, row in enumerate(frame.changed for frame in got):
        window = [embedded[max(x - w + j, 0)] for j in range(0, w + 1, stride)]
        np.testing.assert_allclose(row, temporal(np.stack(window)[None])[0][0], rtol=1e-6)
    confidences = np.stack([frame.detected.confidences for frame in got])
    np.testing.assert_allclose(confidences, detect(images)[2])
    # As they are written: in half precision, and cut.
    objectness = np.stack([frame.scores.objectness for frame in got])
    np.testing.assert_allclose(objectness, np.minimum(detect(images)[3][0], BOUND), rtol=1e-3)
    states, logits = (np.stack([frame.scores[i] for frame in got]) for i in (1, 3))
    assert states.shape == (50, 2)
    np.testing.assert_array_equal(logits, np.full((50, 5), BOUND))
    assert got[0].scores.parts is None
