"""What stages that train have in common: how networks begin, and what has to fit."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import msgspec

from stormpsr_jax.configs import default as sections
from stormpsr_jax.configs.default import Section
from stormpsr_jax.data import augment
from stormpsr_jax.networks import architectures
from stormpsr_jax.stages.data import SPLITS
from stormpsr_jax.stages.stage import Run
from stormpsr_jax.training import choices
from stormpsr_jax.training.step import Params

BRIGHTNESS = CONTRAST = 0.1  # augmentation: factors drawn from 1 ± this, the paper's


def module_of(kind: type[nn.Module], section: Section | Mapping[str, Any], **given: Any) -> Any:
    """A network whose other fields are those of a section of the config with the same names."""
    values = msgspec.structs.asdict(section) if isinstance(section, Section) else section
    names = {field.name for field in dataclasses.fields(kind)} - given.keys()
    return kind(**{name: value for name, value in values.items() if name in names}, **given)


def to_train(run: Run, module: nn.Module, attention: str) -> Any:
    """A network with the attention that the devices of a run train best, if it has ours."""
    if getattr(module, "attention", None) != "xla":
        return module
    device = run.devices.devices.flat[0]
    return module.clone(attention=choices.attention(attention, run.activations, device))


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


def augmented(
    section: sections.Augment, key: jax.Array, images: jax.Array, occluders: float | jax.Array = 0.0
) -> jax.Array:
    """Augments uint8 pictures (B, H, W, 3) or clips (B, T, H, W, 3) as the config says."""
    fields = msgspec.structs.asdict(section) | {"occluders": occluders}
    return augment.augment(key, images, brightness=BRIGHTNESS, contrast=CONTRAST, **fields)


# --- Checks ---------------------------------------------------------------------------------------


def batch_errors(run: Run, name: str, rows: int, fields: str = "batch") -> list[str]:
    """Says whether devices cannot share the batches of a stage; `fields`: those that say `rows`."""
    devices, processes = run.devices.size, jax.process_count()
    if rows % devices == rows % processes == 0:
        return []
    return [
        f"stage {name!r} has batches of {rows}, which {devices} devices of {processes} "
        f"processes cannot share evenly; change --config.{name}.{fields}, or --config.mesh"
    ]


def image_size(run: Run, of: str = "encoder") -> tuple[int, int]:
    """Pixels (H, W) of what the encoder, or the detector, trains on, rendered yet or not."""
    data = run.data
    if data.is_there:
        source = data.source if of == "encoder" else data.boxed_source
        return source(SPLITS[0]).image_size
    side = data.encoder_size if of == "encoder" else data.detector_size
    return (side or data.config.synthetic.size,) * 2


def network_errors(section: str, module: nn.Module, shape: tuple[int, ...]) -> list[str]:
    """Says whether a network cannot be trained on a batch, or its model not be written at the end.

    Nothing is computed. `section` of the config describes it, `shape` is that of its input.
    """

    def step(key: jax.Array, x: jax.Array) -> Any:
        variables = module.init(key, x)
        rngs, mutable = {"dropout": key}, ["batch_stats"]
        return module.apply(variables, x, train=True, mutable=mutable, rngs=rngs)

    where = f"--config.{section}"
    try:
        architectures.check(module, where, shape)
        jax.eval_shape(step, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))
    except Exception as error:  # of fields that contradict each other, nearly anything
        what = (str(error).strip() or type(error).__name__).splitlines()[0].removeprefix(where)
        pictures = f"; see also {where}.image_size, and --size of the data" * (len(shape) == 4)
        return [f"{where}: {what.removeprefix(': ')}{pictures}"]
    return []
