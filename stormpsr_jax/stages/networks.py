"""The networks that the config describes, and those that a run has trained."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from stormpsr_jax.base import user_code
from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.networks import architectures, backbones
from stormpsr_jax.networks.architectures import TEMPORAL
from stormpsr_jax.networks.detector import Detector
from stormpsr_jax.networks.spatial import SpatialEncoder
from stormpsr_jax.serving.batched import Batched
from stormpsr_jax.serving.content import Pictures
from stormpsr_jax.serving.functions import Network, functions
from stormpsr_jax.stages.context import Context
from stormpsr_jax.training import checkpoint, choices
from stormpsr_jax.training.step import Params

MAX_DETECTIONS = 1  # rows a frame in the prediction files


def spatial_encoder(context: Context) -> SpatialEncoder:
    """The backbone with its projection head, not for training; see `encoder_to_train`."""
    auxiliary = context.config.pretrain.state_loss > 0
    section = dict(context.config.encoder) | {"remat": "none"}
    return _build(
        SpatialEncoder,
        section,
        encoder=backbones.build(section, dtype=context.dtype),
        num_components=context.procedure.num_components if auxiliary else 0,
    )


def encoder_to_train(
    context: Context, image_size: tuple[int, int], pictures: int, remat: str = ""
) -> SpatialEncoder:
    """`spatial_encoder` as the devices of a run train it best on batches of so many pictures.

    `remat`: what is recomputed; "" as the config asks, for which all processes come here.
    """
    model = spatial_encoder(context)
    backbone = to_train(context, model.encoder)
    asked = remat or context.config.encoder.remat
    remat = choices.remat(asked, backbone, image_size, pictures / context.devices.size)
    return model.clone(encoder=backbone.clone(remat=remat))


def to_train(context: Context, module: nn.Module) -> Any:
    """A network with the attention that the devices of a run train best, if it has ours."""
    if getattr(module, "attention", None) != "xla":
        return module
    device = context.devices.devices.flat[0]
    return module.clone(
        attention=choices.attention(context.config.attention, context.dtype, device)
    )


def temporal_encoder(context: Context) -> nn.Module:
    """The [CLS] transformer, a baseline or a user's own; ValueError if that cannot be had."""
    section = dict(context.config.temporal_model) | {"head": "mlp"}  # the paper's hidden layer
    name, place = section.pop("backbone"), "--config.temporal_model"
    values = user_code.values(section.pop("fields"), f"{place}.fields")
    T, seen = context.window.num_frames, section["context_frames"]
    K, outputs = context.procedure.num_components, 3 if context.config.temporal.state_loss else 1
    if ":" in name:
        given = {"num_components": K, "outputs": outputs, "context_frames": seen}.items()
        needed = dict(given - {("outputs", 1), ("context_frames", 0)})
        kind = architectures.own(name, f"{place}.backbone")
        try:
            return _build(kind, {"num_frames": T, "dtype": context.dtype}, **needed, **values)
        except TypeError as error:  # of fields that it has not, or that are missing
            raise ValueError(f"{place}.backbone={name}: {error}") from error
    if values:
        raise ValueError(f"{place}.fields: is for a network of your own, MODULE:NAME")
    if name != "transformer":
        # Baselines have fields of their own, where 0 is the network's default.
        own = {
            field.removeprefix(prefix): value
            for prefix in ("baseline_", f"{name}_")
            for field, value in section.items()
            if field.startswith(prefix) and value
        }
        section = {"context_frames": seen} | own
    # Few have fields that follow from the frames of a clip but for their number.
    section |= getattr(TEMPORAL[name], "of_clips", lambda *_: {"num_frames": T})(T, seen)
    return _build(TEMPORAL[name], section, num_components=K, outputs=outputs, dtype=context.dtype)


def detector(context: Context) -> Detector:
    """The assembly state detector."""
    config = context.config.detector
    # A start that knows how products lie serves where no render tells it.
    upright = config.pose_loss > 0 or bool(config.init_from)
    return _build(
        Detector,
        config,
        num_classes=context.procedure.num_states + 1,
        num_components=context.procedure.num_components if config.part_loss else 0,
        upright=upright,
        corrections=2 if upright else 0,  # a third gains little (benchmarks/results/bench.md)
        dtype=context.dtype,
    )


def _build(kind: type[nn.Module], section: Mapping[str, Any], **given: Any) -> Any:
    """A network whose other fields are those of a section of the config with the same names."""
    names = {field.name for field in dataclasses.fields(kind)} - given.keys()
    return kind(**{name: value for name, value in section.items() if name in names}, **given)


def pictures(context: Context, source: ClipSource, with_detector: bool = False) -> Pictures:
    """How the pictures of a source become network input.

    They are of the encoder's size; with_detector: the detector may see another one.
    """
    data, detector_size = context.config.data, None
    if with_detector:
        size = context.detector_source(source.split).image_size
        detector_size = size if size != source.image_size else None
    framed = context.extra or source  # renders are square whatever is made of a camera's pictures
    return Pictures(
        source.image_size,
        tuple(data.mean),
        tuple(data.std),
        framed.aspect,
        framed.region,
        detector_size,
    )


def frame_encoder(
    context: Context, params: Params, batch_stats: Params, source: ClipSource
) -> Batched:
    """Pictures of a source, uint8 (B, H, W, 3) → frame embeddings (B, D), predict.batch at once."""
    batch = context.config.predict.batch
    variables = {"params": params, "batch_stats": batch_stats}
    network = Network(spatial_encoder(context), variables)
    return functions({"encoder": network}, pictures(context, source), 1, batch)["encode"]


def detect(context: Context, params: Params, source: ClipSource) -> Batched:
    """Pictures of a source → boxes (B, M, 4), classes (B, M), confidences (B, M), and scores."""
    network = Network(detector(context), {"params": params})
    batch, of_pictures = context.config.detector.batch, pictures(context, source)
    return functions({"detector": network}, of_pictures, MAX_DETECTIONS, batch)["detect"]


CLIPS = 256  # that are judged at once


def clip_logits(context: Context, params: Params) -> Batched:
    """Embeddings of clips (B, T, D) → logits of changes (B, K)."""
    function = _clip_logits(temporal_encoder(context), context.procedure.num_components)
    return Batched(function, params, CLIPS)


@functools.lru_cache(maxsize=4)  # compiled once for `temporal` and `finetune`
def _clip_logits(module: nn.Module, K: int) -> jax.stages.Wrapped:
    def clip_logits(params: Params, x: jax.Array, count: jax.Array) -> jax.Array:
        del count  # all are computed
        return architectures.apply(module, {"params": params}, x)[:, :K]

    return jax.jit(clip_logits)


def fresh(module: nn.Module, key: jax.Array, shape: tuple[int, ...]) -> Params:
    """Random variables of a network for input of this shape, from one program.

    Without `jit`, each operation of the network would be compiled by itself.
    """

    def init(key: jax.Array) -> Params:
        return module.init(key, jnp.zeros(shape, jnp.float32), train=False)

    # Else XLA multiplies constants into each other, and the weights would not be those that the
    # initialisers give one operation after another, to the last bit.
    exact = {"xla_disable_hlo_passes": "algsimp"} if jax.default_backend() == "cpu" else None
    return jax.jit(init, compiler_options=exact)(key)


def trained(context: Context, stages: Sequence[str]) -> dict[str, Network]:
    """The networks that recognition takes, by name, with the best weights of the stages given."""
    known = ("pretrain", "temporal", "finetune", "detector")
    best = {s: checkpoint.load_best(context.workdir / s) for s in known if s in stages}
    found = {}
    if "detector" in best:
        found["detector"] = Network(detector(context), {"params": best["detector"][0]})
    if "finetune" in best:
        params, batch_stats = best["finetune"]
        best |= {"pretrain": (params["spatial"], batch_stats), "temporal": (params["temporal"], {})}
    if "pretrain" in best:
        params, batch_stats = best["pretrain"]
        variables = {"params": params, "batch_stats": batch_stats}
        found["encoder"] = Network(spatial_encoder(context), variables)
    if "temporal" in best:
        found["temporal"] = Network(temporal_encoder(context), {"params": best["temporal"][0]})
    return found
