"""A trained model without the run that made it: its networks as functions, and recognition.

docs/recognise.md has the Python API with an example, and the fields of the files.

Dimension letters: B batch, T frames of a clip, N rows of a recording, H W image, D features,
K components, M detections of a picture.
"""

from __future__ import annotations

import functools
import itertools
import logging
import os
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from typing import Any

import numpy as np

from stormpsr_jax.media import sources
from stormpsr_jax.media.pictures import Pictures, read_upright
from stormpsr_jax.media.sources import ahead
from stormpsr_jax.psr import streams
from stormpsr_jax.psr.calibration import Calibration
from stormpsr_jax.psr.events import Event, OnlineDecoder
from stormpsr_jax.psr.risk import Decision, decide
from stormpsr_jax.serving.content import Content, Function, functions_of, recognises_by
from stormpsr_jax.serving.frames import Chunk, Frames, Locating, ProductShare, Views, chunks
from stormpsr_jax.serving.online import Live


class Model:
    """A trained model.

    Attributes:
        fps: frames per second of the videos it was trained on.
        pictures: what becomes of a picture.
        window: what the temporal network sees.
        streams: names, of those of `streams.STREAMS` that it has, in that order.
        default_stream: recognises unless another one is asked for: the last of them, unless the
            model says otherwise.
        recognises_by: that stream for people, and why, where it is not the last.
        figures: by stream, the "validation" and "test" figures of its run.
        right_level: by component, where its logit of "right" lies in validation (`psr.level`).
        fusion: weights of the learned fusion, None without it.
        part_pictures: by component a JPEG of it in its place, or None.
        batch: rows computed at once; with it the networks round as they did in the run.
        origin: where it comes from: the run's config, the checksums of its data.
        created, package_version: when and by which version it was written.
    """

    def __init__(self, content: Content):
        self.procedure, self.fps = content.procedure, content.fps
        self.pictures, self.window = content.pictures, content.window
        self.batch, self.origin = content.batch, content.origin
        self.created, self.package_version = content.created, content.package_version
        self.streams = tuple(name for name in streams.names() if name in content.streams)
        self.default_stream = content.default or self.streams[-1]
        self.figures = {
            name: {"validation": record.validation, "test": record.test}
            for name, record in content.streams.items()
        }
        self.recognises_by = recognises_by(
            {"default": content.default, "streams": self.figures, "origin": content.origin}
        )
        self.right_level, self.fusion = content.right_level, content.fusion
        none = (None,) * self.procedure.num_components
        self.part_pictures = content.part_pictures or none
        self._content = content

    def settings(self, stream: str | None = None) -> Any:
        """How a stream is decoded, as chosen on the validation split; None is the default one."""
        return self.decide(stream).settings

    def decide(self, stream: str | None = None, risk: float | None = None) -> Decision:
        """How installations are decided at a risk of accepting incorrect ones.

        Args:
            risk: in 0…1, 1 is without a bar; None is the one that the model was made with.

        Raises:
            ValueError: no such stream, or a risk that is not in 0…1.
        """
        name = self._stream(stream)
        of_stream, record = streams.find(name), self._content.streams[name]
        if risk is None:
            risk = 1.0 if record.risk is None else record.risk
        prior = None if self.fusion is None else self.fusion.prior
        return decide(of_stream, record.settings, risk, record.control, prior)

    @property
    def for_camera(self) -> bool:
        """Whether it was fitted to a camera that its training has not seen (`psr.level`)."""
        return any(getattr(r.settings, "camera", None) for r in self._content.streams.values())

    def calibration(self, stream: str | None = None) -> Calibration | None:
        """What makes probabilities of a stream's confidences, as learnt on the validation split."""
        return self._content.streams[self._stream(stream)].calibration

    def calibrated(self, stream: str | None = None, settings: Any | None = None) -> bool:
        """Whether confidences of events are probabilities.

        They are not with other settings than the chosen ones, nor where there were too few
        validation recordings to learn what they mean: one number for all of them tells nothing.
        """
        known = self.calibration(stream)
        own = settings is None or settings == self.settings(stream)
        return own and known is not None and not known.constant

    def _stream(self, name: str | None) -> str:
        if name is not None and name not in self.streams:
            raise ValueError(f"stream {name!r} is not one of {', '.join(self.streams)}")
        return name or self.default_stream

    # --- Networks ---------------------------------------------------------------------------------

    def preprocess(self, picture: np.ndarray, role: str = "encoder") -> np.ndarray:
        """Prepares a picture (H, W, 3) as the training data were: cut out, resized, padded.

        `role` is the network that looks at it, "encoder" or "detector"; returns uint8
        (`*self.pictures.size_of(role)`, 3). A model that looks for the product first looks for it
        in this picture alone.

        Raises:
            ValueError: it is no such array.
        """
        views = self._preparing({"encode", "detect"})(picture)
        view = views.detector if role == "detector" else views.encoder
        assert view is not None
        return view

    def preparing(self, stream: str | None = None) -> Callable[[np.ndarray], Views]:
        """What prepares the pictures of one source for `frames`, in order.

        For both networks, where they see different sizes; `stream` leaves out what it does not
        need. Errors as in `preprocess`.
        """
        return self._preparing(functions_of(self._stream(stream)))

    def _preparing(self, needed: Collection[str]) -> Callable[[np.ndarray], Views]:
        size = self.pictures.locator_size
        locating = Locating(self._function("locate"), size) if size else None
        encoder, detector = map(self.pictures.framing_of, ("encoder", "detector"))

        def prepare(picture: np.ndarray) -> Views:
            _check(picture := np.asarray(picture))
            region, cut = None, lambda framing: framing.prepare(picture)
            if locating is not None:
                locating.look(picture)
                region, cut = np.array(locating.region), functools.partial(locating.cut, picture)
            if encoder == detector:
                view = cut(encoder)
                return Views(view, view, region)
            view = cut(encoder) if "encode" in needed else None
            return Views(view, cut(detector) if "detect" in needed else None, region)

        return prepare

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Embeddings (B, D) of pictures uint8 (B, H, W, 3) that `preprocess` has prepared."""
        return self._function("encode")(self._checked_images(images, "encoder"))

    def temporal(self, embeddings: np.ndarray) -> np.ndarray:
        """Probabilities (B, K) that each component changed in the clips (B, T, D)."""
        function = self._function("temporal")
        clips = np.asarray(embeddings)
        _, T, D = self._content.input_shape("temporal", 1)
        if clips.ndim != 3 or clips.shape[1:] != (T, D):
            raise ValueError(f"clips are (B, {T}, {D}), not {clips.shape}")
        return function(clips.astype(np.float32, copy=False))[0]

    def detect(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Detections in pictures uint8 (B, H, W, 3), by `preprocess` with role="detector".

        Returns:
            boxes (B, M, 4) cx, cy, w, h in 0…1 of the prepared picture; classes (B, M), 1…S
            catalogued states, S + 1 the error state, 0 where there is no further detection;
            confidences (B, M).
        """
        return self._function("detect")(self._checked_images(images, "detector"))[:3]

    def _checked_images(self, images: np.ndarray, role: str) -> np.ndarray:
        images = np.asarray(images)
        wanted = self._content.input_shape(role, 1)[1:]
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != wanted:
            raise ValueError(
                f"prepared pictures are uint8 (B, {', '.join(map(str, wanted))}), not "
                f"{images.dtype} {images.shape}; model.preprocess makes them so, one by one "
                f"(role={role!r})"
            )
        return images

    def _function(self, name: str) -> Function:
        made = self._content.networks.functions(self._content, self.batch)
        if name not in made:
            raise ValueError(f"this model cannot {name}; it has {', '.join(made)}")
        return made[name]

    # --- Recognition ------------------------------------------------------------------------------

    def frames(
        self,
        decoder: OnlineDecoder | None = None,
        *,
        stream: str | None = None,
        batch: int | None = None,
    ) -> Frames:
        """Recognition of one recording, frame by frame.

        Args:
            decoder: makes the events; None makes none.
            stream: leaves out the networks that this stream does not need.
            batch: rows computed at once; None is the model's.

        Raises:
            ValueError: no such stream.
            MemoryError: no memory for the batch.
        """
        made = self._content.networks.functions(self._content, batch or self.batch)
        needed = set(made) if stream is None else functions_of(self._stream(stream))
        functions = {name: function for name, function in made.items() if name in needed}
        return Frames(functions, self.window, decoder)

    def decoder(
        self,
        stream: str | None = None,
        variant: str | None = None,
        recording: str | None = None,
        settings: Any | None = None,
    ) -> OnlineDecoder:
        """A decoder with the settings and the calibration of a stream.

        Args:
            variant: of the procedure. None is the one whose globs match `recording`, or without a
                recording the only one.
            settings: in place of the chosen ones. With others than these, confidences are not
                calibrated: that was learnt from what these find. See `calibrated`.

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
        calibration = self.calibration(name) if self.calibrated(name, settings) else None
        return streams.find(name).decoder(
            self.procedure.at(self.fps),
            chosen,
            settings,
            calibration=calibration,
            weights=self.fusion,
        )

    def product_share(self, station: bool = False) -> ProductShare:
        """Counts the pictures of a source that show the product; of a `station`, the last ones."""
        return ProductShare(self._content.product_share, self.fps, station)

    def recognise(
        self,
        source: str | os.PathLike | Iterable[np.ndarray] | np.ndarray,
        *,
        first_frame: int | None = None,
        variant: str | None = None,
        recording: str | None = None,
        stream: str | None = None,
        settings: Any | None = None,
        batch: int | None = None,
    ) -> Iterator[Event]:
        """Recognises the steps of one recording.

        They come when its last frame was looked at. If it does not show the model's product
        (`ProductShare`), a warning is logged in place of them.

        Args:
            source: the recording: the path of a video, which is resampled to the model's frames per
                second by its timestamps, or of a folder of numbered pictures; the text "demo",
                which is the video that ships with the package; or its frames in order,
                one array or any number of them, uint8 RGB (B, H, W, 3) of any size.
            first_frame: frame number of the first row; None is that in the name of a folder's first
                picture, and else 0.
            variant, recording, stream, settings: see `decoder`. Of a path, and of several variants,
                `recording` is its name.
            batch: rows computed at once; None is the model's.

        Returns:
            The events, by frame and step id.

        Raises:
            ValueError: no such source, stream or variant, at once; arrays that do not fit or what
                cannot be decoded, when they are reached.
            MemoryError: no memory for the batch.
        """
        name = self._stream(stream)
        batch = batch or self.batch
        rows: Iterator[Views]
        if isinstance(source, str | os.PathLike):
            found = sources.open_source(source)
            if recording is None and len(self.procedure.variants) > 1:
                recording = found.name
            opened = found.open(self.fps)
            rows = self.rows_of(opened, name, batch)
            first_frame = opened.first_frame if first_frame is None else first_frame
        else:
            rows = self._rows([source] if isinstance(source, np.ndarray) else source, name)
        decoder = self.decoder(name, variant, recording, settings)
        frames = self.frames(decoder, stream=name, batch=batch)
        return self._events(frames, chunks(rows, batch, first_frame or 0))

    def rows_of(self, pictures: Pictures, stream: str, batch: int) -> Generator[Views]:
        """The prepared pictures of a recording, some batches ahead; ValueError: one is damaged."""
        prepare = self.preparing(stream)
        return ahead((prepare(picture) for picture in read_upright(pictures)), 2 * batch)

    def live(
        self,
        variant: str | None = None,
        stream: str | None = None,
        *,
        recording: str | None = None,
        settings: Any | None = None,
        batch: int = 1,
    ) -> Live:
        """Recognition picture by picture, as they come from a camera.

        Args:
            variant, stream, recording, settings: see `decoder`.
            batch: rows computed at once, of which one is a picture. It makes no difference to small
                networks on a CPU (see `functions`), which round as they do in `recognise`. Others
                may round otherwise there, and change the last decimals of confidences; least with
                the batch of the model. 1 is as many times cheaper.

        Raises:
            ValueError: no such stream or variant.
            MemoryError: no memory for the batch.
        """
        name = self._stream(stream)
        return Live(
            prepare=self.preparing(name),
            frames=lambda decoder: self.frames(decoder, stream=name, batch=batch),
            decoder=lambda: self.decoder(name, variant, recording, settings),
            product=self.product_share(station=True),
            fps=self.fps,
            of_model=self.created,
        )

    def _events(self, frames: Frames, parts: Iterator[Chunk]) -> Iterator[Event]:
        share = self.product_share()
        events: list[Event] = []
        for frame in itertools.chain.from_iterable(frames.over(parts)):
            share.update(frame)
            events += frame.events
        if share.fits is False:
            what = "these pictures do not show the product of %r: %s"
            logging.getLogger(__name__).warning(what, self.procedure.name, share)
        else:
            yield from events

    def _rows(self, chunks: Iterable[np.ndarray], stream: str) -> Iterator[Views]:
        prepare = self.preparing(stream)
        for chunk in chunks:
            chunk = np.asarray(chunk)
            if chunk.ndim != 4:
                raise ValueError(f"a chunk of pictures is (B, H, W, 3), not {chunk.shape}")
            yield from map(prepare, chunk)


def _check(picture: np.ndarray) -> None:
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(
            f"a picture is uint8 (H, W, 3) in RGB, not {picture.dtype} {picture.shape}"
        )
    if 0 in picture.shape:
        raise ValueError(f"a picture of {picture.shape[0]}x{picture.shape[1]} pixels is empty")
