"""The streams of a recording by name, whatever decodes them."""

from collections.abc import Mapping

from stormpsr_jax.psr.files.recordings import LabelledPredictions
from stormpsr_jax.psr.procedure import Procedure
from stormpsr_jax.psr.streams import batch, decoding, learned
from stormpsr_jax.psr.streams.calibration import Calibration
from stormpsr_jax.psr.streams.learned_weights import Weights

STREAMS = (*decoding.STREAMS, learned.STREAM)


def available(recordings: Mapping[str, LabelledPredictions], decoder: str) -> list[str]:
    """Returns the streams that can be decoded.

    The naive decoder has no fused one. The learned one completes what a variant allows, as decoder
    "expected" does; the other decoders have none.
    """
    asd = all(r.detections is not None for r in recordings.values())
    temporal = all(r.temporal is not None for r in recordings.values())
    fused = asd and temporal and decoder != "naive"
    scores = all(r.scores is not None for r in recordings.values()) and decoder == "expected"
    present = zip(STREAMS, (asd, temporal, fused, scores), strict=True)
    return [stream for stream, there in present if there]


def decode(
    procedure: Procedure,
    recording: LabelledPredictions,
    stream: str,
    settings: decoding.Settings | learned.Settings,
    weights: Weights | None = None,
    *,
    fps: float | None = None,
    calibration: Calibration | None = None,
) -> list[decoding.Event]:
    """Decodes a stream of a whole recording.

    Args:
        procedure: the product.
        recording: its predictions.
        stream: of `STREAMS`.
        settings: of `learned.Settings` for "learned".
        weights: of "learned"; None for the others.
        fps: frames per second, None for the procedure's.
        calibration: of the events' confidences.

    Raises:
        ValueError: as the decoders.
    """
    options = {"fps": fps, "calibration": calibration}
    if stream == learned.STREAM:
        return learned.decode(
            procedure, recording.variant, recording.scores, settings, weights, **options
        )
    return batch.decode(
        procedure,
        recording.variant,
        stream,
        settings,
        recording.detections,
        recording.temporal,
        **options,
    )
