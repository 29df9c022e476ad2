"""A trained model without the run that made it: its networks as functions, and recognition.

`stormpsr_jax.load_model(DIR)` loads one. docs/model.md has the Python API with an example, and
every field of the files.

Dimension letters: B batch, T frames of a clip, N rows of a recording, H W image, D features,
K components, M detections of a picture.
"""

from __future__ import annotations

import functools
import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
from flax import traverse_util

from data_prep.reading.pictures import read_upright
from stormpsr_jax import demo, memory
from stormpsr_jax.data import augment
from stormpsr_jax.live import Live
from stormpsr_jax.model_files import copy_model, read_model, write_model
from stormpsr_jax.model_json import Content, Network, Pictures, StreamRecord, Window
from stormpsr_jax.models import architectures, detection
from stormpsr_jax.psr import learned
from stormpsr_jax.psr.calibration import Calibration
from stormpsr_jax.psr.decoding import Decoder, Event, Settings
from stormpsr_jax.psr.streams import STREAMS
from stormpsr_jax.recognition import sources
from stormpsr_jax.recognition.ahead import ahead
from stormpsr_jax.stream import AnyDecoder, Batched, Recogniser, decode

__all__ = [
    "Model",
    "Network",
    "Pictures",
    "StreamRecord",
    "Window",
    "copy_model",
    "functions",
    "load_model",
    "write_model",
]
# Rows that a CPU computes at once of a network of so many operations a row, whatever the batch:
# together a hundredth of a second, on two cores.
AT_ONCE, SMALL = 8, 10**8
# Of a stream, the functions that it needs of those there are.
_NEEDS = {
    "asd": ("detect",),
    "temporal": ("encode", "temporal"),
    "storm": ("encode", "temporal", "detect"),
    "learned": ("encode", "temporal", "detect"),
}


def load_model(folder: str | Path) -> Model:
    """Loads the model that a run has left in WORKDIR/model; docs/model.md says how to use it.

    Nothing in the folder is executed.

    Args:
      folder: of the model; the text "demo" is the one that ships with the package.

    Raises:
      ValueError: absent, damaged, of a newer format, or not what docs/model.md describes; one line
        that names the file. Or the text is "demo", and there is a model in a folder of that name.
    """
    return Model(read_model(demo.model_folder(folder)))


def functions(
    networks: Mapping[str, Network], pictures: Pictures | None, max_detections: int, batch: int
) -> dict[str, Batched]:
    """The networks as functions of arrays, compiled for `batch` rows at a time.

    Stage `predict` and a loaded model call this, so that both compute the same.

    Args:
      networks: by role: "encoder", "temporal", "detector".
      pictures: normalise them; None without a network on pictures.
      max_detections: M.
      batch: rows computed at once. On a CPU, of networks of at most SMALL operations a row, it is
        AT_ONCE whatever the batch, so that they round alike whether many rows come or one.

    Returns:
      Of these what the networks can: "encode", pictures uint8 (B, H, W, 3) → embeddings (B, D);
      "temporal", embeddings (B, T, D) → probabilities (B, K) and logits; "detect", pictures →
      boxes (B, M, 4), classes (B, M), confidences (B, M) and `detection.best_scores`.
    """

    def normalise(images):
        return augment.normalise(images, pictures.mean, pictures.std)

    def encode(module, variables, images):
        return architectures.apply(module, variables, normalise(images))

    def temporal(module, variables, embeddings):
        logits = architectures.apply(module, variables, embeddings)
        return jax.nn.sigmoid(logits[:, : module.num_components]), logits

    def detect(module, variables, images):
        outputs = architectures.apply(module, variables, normalise(images))
        return *detection.decode(outputs, max_detections), detection.best_scores(outputs)

    bodies: dict[str, tuple[str, Callable]] = {
        "encoder": ("encode", encode),
        "temporal": ("temporal", temporal),
        "detector": ("detect", detect),
    }
    made = {}
    for role, network in networks.items():
        name, body = bodies[role]
        module = architectures.inference(network.module)
        variables = _needed(role, module, network.variables, pictures)
        at_once = functools.partial(_at_once, module, batch)
        made[name] = Batched(functools.partial(body, module), variables, batch, at_once)
    return made


def _at_once(module: nn.Module, batch: int, shape: tuple[int, ...]) -> int:
    """How many rows of this shape are computed at once, which decides how a network rounds.

    On a CPU a small network takes the same for each row of `AT_ONCE` as of any larger batch, and so
    little for all of them that a live picture may come with rows that fill them up.
    """
    if jax.default_backend() != "cpu":
        return batch
    operations = architectures.cost(module, (1, *shape)).operations
    return AT_ONCE if operations <= SMALL else batch


def _needed(role: str, module: nn.Module, variables: Mapping, pictures: Pictures | None) -> Mapping:
    """The variables that recognition needs: without the heads that only training has."""
    if role != "encoder":
        return variables
    wanted = architectures.variable_shapes(module, (1, *pictures.size, 3))
    flat = traverse_util.flatten_dict(dict(variables), sep="/")
    return traverse_util.unflatten_dict({name: flat[name] for name in wanted}, sep="/")


class Model:
    """A trained model.

    Attributes:
      procedure: the product.
      fps: frames per second of the videos it was trained on.
      pictures: what becomes of a picture; None for a model on ready-made embeddings.
      window: what the temporal network sees.
      streams: names, of "asd", "temporal", "storm" and "learned" those that it has.
      default_stream: the learned fusion, or else the fused one, or else the one that there is.
      figures: by stream, the "validation" and "test" figures of its run.
      batch: rows computed at once; with it the networks round as they did in the run.
      origin: where it comes from: the run's config, the checksums of its data.
      created, package_version: when and by which version it was written.
    """

    def __init__(self, content: Content):
        """Takes what `read_model` returns."""
        self.procedure, self.fps = content.procedure, content.fps
        self.pictures, self.window = content.pictures, content.window
        self.batch, self.origin = content.batch, content.origin
        self.created, self.package_version = content.created, content.package_version
        self.streams = tuple(name for name in STREAMS if name in content.streams)
        self.default_stream = self.streams[-1]
        self.figures = {
            name: {"validation": record.validation, "test": record.test}
            for name, record in content.streams.items()
        }
        self._content = content
        self._functions: dict[tuple[int, ...], dict[str, Batched]] = {}

    def settings(self, stream: str | None = None) -> Settings | learned.Settings:
        """How a stream is decoded, as chosen on the validation split; None is the default one."""
        return self._content.streams[self._stream(stream)].settings

    def calibration(self, stream: str | None = None) -> Calibration | None:
        """What makes probabilities of a stream's confidences, as learnt on the validation split."""
        return self._content.streams[self._stream(stream)].calibration

    def _stream(self, name: str | None) -> str:
        if name is not None and name not in self.streams:
            raise ValueError(f"stream {name!r} is not one of {', '.join(self.streams)}")
        return name or self.default_stream

    # --- Networks ---------------------------------------------------------------------------------

    def preprocess(self, picture: np.ndarray) -> np.ndarray:
        """Prepares a picture as the training data were: cut out, resized, padded.

        Args:
          picture: uint8 RGB (H, W, 3) of any size.

        Returns:
          uint8 (*self.pictures.size, 3).

        Raises:
          ValueError: it is no such array, or the model takes embeddings.
        """
        if self.pictures is None:
            raise ValueError("this model takes embeddings, not pictures")
        picture = np.asarray(picture)
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise ValueError(
                f"a picture is uint8 (H, W, 3) in RGB, not {picture.dtype} {picture.shape}"
            )
        if 0 in picture.shape:
            raise ValueError(f"a picture of {picture.shape[0]}x{picture.shape[1]} pixels is empty")
        return self.pictures.framing.prepare(picture)

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Embeddings (B, D) of pictures uint8 (B, H, W, 3) that `preprocess` has prepared."""
        return self._function("encode")(self._checked_images(images))

    def temporal(self, embeddings: np.ndarray) -> np.ndarray:
        """Probabilities (B, K) that each component changed in the clips (B, T, D)."""
        function = self._function("temporal")
        clips = np.asarray(embeddings)
        _, T, D = self._content.input_shape("temporal", 1)
        if clips.ndim != 3 or clips.shape[1:] != (T, D):
            raise ValueError(f"clips are (B, {T}, {D}), not {clips.shape}")
        return function(clips.astype(np.float32, copy=False))[0]

    def detect(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Detections in pictures uint8 (B, H, W, 3) that `preprocess` has prepared.

        Returns:
          boxes (B, M, 4) cx, cy, w, h in 0…1 of the prepared picture; classes (B, M), 1…S
          catalogued states, S + 1 the error state, 0 where there is no further detection;
          confidences (B, M).
        """
        return self._function("detect")(self._checked_images(images))[:3]

    def _checked_images(self, images: np.ndarray) -> np.ndarray:
        images = np.asarray(images)
        wanted = (*self.pictures.size, 3)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != wanted:
            raise ValueError(
                f"prepared pictures are uint8 (B, {', '.join(map(str, wanted))}), not "
                f"{images.dtype} {images.shape}; model.preprocess makes them so, one by one"
            )
        return images

    def _function(self, name: str) -> Batched:
        made = self._functions_at(self.batch)
        if name not in made:
            raise ValueError(f"this model cannot {name}; it has {', '.join(made)}")
        return made[name]

    def _functions_at(self, batch: int) -> dict[str, Batched]:
        content = self._content
        shapes = {role: content.input_shape(role, 1) for role in content.networks}
        # Of each network, rows at once: what different batches come to is compiled once.
        key = tuple(
            _at_once(network.module, batch, shapes[role][1:])
            for role, network in content.networks.items()
        )
        if jax.default_backend() == "cpu":
            for rows, (role, network) in zip(key, content.networks.items(), strict=True):
                largest = architectures.cost(network.module, shapes[role]).largest
                needed = batch * math.prod(shapes[role]) + rows * largest
                memory.check_fits(needed, f"a batch of {batch:,} (give a smaller one)")
        if key not in self._functions:
            self._functions[key] = functions(
                content.networks, content.pictures, content.max_detections, batch
            )
        return self._functions[key]

    # --- Recognition ------------------------------------------------------------------------------

    def recogniser(self, batch: int | None = None, stream: str | None = None) -> Recogniser:
        """The networks over one video, chunk by chunk.

        Args:
          batch: rows computed at once; None is the model's.
          stream: leaves out the networks that this stream does not need.

        Raises:
          ValueError: no such stream.
          MemoryError: no memory for the batch.
        """
        made = self._functions_at(batch or self.batch)
        if stream is not None:
            made = {name: made[name] for name in _NEEDS[self._stream(stream)] if name in made}
        return Recogniser(
            encode=made.get("encode"),
            temporal=made.get("temporal"),
            detect=made.get("detect"),
            frames=self.window.frames,
            stride=self.window.stride,
        )

    def decoder(
        self,
        stream: str | None = None,
        variant: str | None = None,
        recording: str | None = None,
        settings: Settings | learned.Settings | None = None,
    ) -> AnyDecoder:
        """A decoder with the settings and the calibration of a stream.

        Args:
          stream: None is the default one.
          variant: of the procedure. None is the one whose globs match `recording`, or without a
            recording the only one.
          recording: name of the recording.
          settings: in place of the chosen ones. With others than these, confidences are not
            calibrated: that was learnt from what these find.

        Raises:
          ValueError: no such stream or variant, or several variants that it could be.
        """
        if variant is None and recording is None:
            if len(self.procedure.variants) > 1:
                raise ValueError(
                    f"procedure {self.procedure.name!r} has the variants "
                    f"{', '.join(self.procedure.variants)}; say which with variant="
                )
            (variant,) = self.procedure.variants
        chosen = self.procedure.variant_for(recording or "", variant)
        name = self._stream(stream)
        own = self.settings(name)
        settings = settings or own
        calibration = self.calibration(name) if settings == own else None
        if name == learned.STREAM:
            weights = self._content.fusion
            return learned.Decoder(self.procedure, chosen, settings, weights, self.fps, calibration)
        return Decoder(self.procedure, chosen, name, settings, self.fps, calibration)

    def recognise(
        self,
        source: str | os.PathLike | Iterable[np.ndarray] | np.ndarray,
        *,
        first_frame: int | None = None,
        variant: str | None = None,
        recording: str | None = None,
        stream: str | None = None,
        settings: Settings | learned.Settings | None = None,
        batch: int | None = None,
    ) -> Iterator[Event]:
        """Recognises the steps of one recording, while it is iterated over.

        Memory is that of one batch and one window, whatever the recording's length.

        Args:
          source: the recording: the path of a video, which is resampled to the model's frames per
            second by its timestamps, or of a folder of numbered pictures; the text "demo", which is
            the video that ships with the package; or its frames in order,
            one array or any number of them: pictures uint8 RGB (B, H, W, 3) of any size, or, for a
            model on ready-made embeddings, rows (B, D).
          first_frame: frame number of the first row; None is that in the name of a folder's first
            picture, and else 0. With embeddings of every s-th frame (`window.frame_step`), row i is
            frame first_frame + i · s.
          variant, recording, stream, settings: see `decoder`. Of a path, and of several variants,
            `recording` is its name.
          batch: rows computed at once; None is the model's.

        Returns:
          The events, by frame and step id, each as soon as it is recognised.

        Raises:
          ValueError: no such source, stream or variant, at once; arrays that do not fit or what
            cannot be decoded, when they are reached.
          MemoryError: no memory for the batch.
        """
        name = self._stream(stream)
        batch = batch or self.batch
        if isinstance(source, str | os.PathLike):
            if self.pictures is None:
                raise ValueError(f"{source}: this model takes embeddings, not pictures")
            found = sources.open_source(source)
            if recording is None and len(self.procedure.variants) > 1:
                recording = found.name
            opened = found.open(self.fps)
            rows = ahead((self.preprocess(p) for p in read_upright(opened)), 2 * batch)
            first_frame = opened.first_frame if first_frame is None else first_frame
        else:
            rows = self._rows([source] if isinstance(source, np.ndarray) else source)
        decoder = self.decoder(name, variant, recording, settings)
        return self._events(rows, first_frame or 0, self.recogniser(batch, name), decoder, batch)

    def live(
        self,
        variant: str | None = None,
        stream: str | None = None,
        *,
        recording: str | None = None,
        settings: Settings | learned.Settings | None = None,
        batch: int = 1,
    ) -> Live:
        """Recognition picture by picture, as they come from a camera.

        Args:
          variant, stream, recording, settings: see `decoder`.
          batch: rows computed at once, of which one is a picture. It makes no difference to small
            networks on a CPU (see `functions`), which round as they do in `recognise`. Others do so
            with the batch of the model; with 1, which is as many times cheaper, the last bits of a
            float32 can differ, and so the last decimals of confidences.

        Raises:
          ValueError: no such stream or variant.
          MemoryError: no memory for the batch.
        """

        name = self._stream(stream)

        def prepare(picture: np.ndarray) -> np.ndarray:
            if self.pictures is not None:
                return self.preprocess(picture)
            return next(self._rows([np.asarray(picture)[None]]))

        width = None
        if "temporal" in _NEEDS[name]:
            width = self._content.input_shape("temporal", 1)[2]
        return Live(
            prepare=prepare,
            recogniser=lambda: self.recogniser(batch, name),
            decoder=lambda: self.decoder(name, variant, recording, settings),
            fps=self.fps,
            frame_step=self.window.frame_step,
            window=None if width is None else (self.window.frames, width),
            of_model=self.created,
        )

    def _events(
        self,
        rows: Iterator[np.ndarray],
        first_frame: int,
        recogniser: Recogniser,
        decoder: AnyDecoder,
        batch: int,
    ) -> Iterator[Event]:
        numbers = itertools.count(first_frame, self.window.frame_step)
        while part := list(itertools.islice(rows, batch)):
            recognised = recogniser(np.stack(part))
            yield from decode(decoder, itertools.islice(numbers, len(part)), recognised)

    def _rows(self, chunks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The rows of all chunks, checked and prepared, one at a time."""
        for chunk in chunks:
            chunk = np.asarray(chunk)
            if self.pictures is not None:
                if chunk.ndim != 4:
                    raise ValueError(f"a chunk of pictures is (B, H, W, 3), not {chunk.shape}")
                yield from map(self.preprocess, chunk)
                continue
            D = self._content.embedding
            if chunk.ndim != 2 or chunk.shape[1] != D or chunk.dtype.kind != "f":
                raise ValueError(
                    f"a chunk of embeddings is float (B, {D}), not {chunk.dtype} {chunk.shape}"
                )
            yield from chunk.astype(np.float32, copy=False)
