"""Stage `data`: renders recordings into clip shards, for runs that bring no data.

Of the synthetic assembly, of a product whose part meshes are given, or of one drawn at random.
"""

from collections.abc import Iterator
from typing import Any

import jax

from stormpsr_jax.base import installed, results
from stormpsr_jax.data.folder import procedure_differences
from stormpsr_jax.recordings.procedure import load_procedure
from stormpsr_jax.stages.context import Context
from stormpsr_jax.stages.stage import Stage
from stormpsr_jax.training import hosts

WORKERS = min(hosts.cores(), 16)  # rendering processes


def run(context: Context) -> dict:
    """Fills `config.data.dir` (WORKDIR/data); recordings that are already there are kept."""
    if jax.process_index() != 0:
        return {}
    from data_prep import synthetic  # rendering is an extra

    config = context.config.data.synthetic
    options = config.to_dict() | {
        "recordings": dict(zip(synthetic.RECORDINGS, config.recordings, strict=True)),
        "procedure": context.procedure if config.meshes else None,
        "product_seed": None if config.product_seed < 0 else config.product_seed,
    }
    synthetic.make_dataset(context.data_dir, workers=WORKERS, **options)
    return {}


def check(context: Context) -> list[str]:
    """What would be noticed only when all is rendered; ValueError if the renderer is not there."""
    if context.has_data:
        return []
    installed.check_extra("synthetic", ("trimesh", "numba"), "stage 'data'")
    return [*_of_product(context), *_of_sizes(context)]


def _of_product(context: Context) -> Iterator[str]:
    """Says whether what would be rendered is not what the config's procedure is of."""
    config, procedure = context.config.data.synthetic, context.config.procedure
    fields = "--config.data.synthetic."
    if config.product_seed >= 0:
        if procedure:
            which = f"{fields}product_seed={config.product_seed}"
            yield f"{which}: draws a product and its procedure; set --config.procedure=''"
    elif not procedure:
        yield (
            "--config.procedure='': name the product to render, with --config.procedure=FILE and "
            f"{fields}meshes=DIR, or draw one with {fields}product_seed=N"
        )
    elif config.meshes:
        from data_prep.products import meshes  # rendering is an extra

        meshes.read_inputs(config.meshes, context.procedure, config.poses)
    else:
        toy = load_procedure("synthetic")
        if what := procedure_differences(context.procedure, toy):
            yield (
                f"--config.procedure={procedure}: stage 'data' renders the toy of procedure "
                f"{toy.name!r}, with {what}; name that one, or give {fields}meshes of yours"
            )


def _of_sizes(context: Context) -> Iterator[str]:
    """Says whether pictures would be smaller than a network looks at."""
    config = context.config.data.synthetic
    for section in ("encoder", "detector"):
        if (size := context.config[section].image_size) > config.size:
            yield (
                f"--config.{section}.image_size={size}: stage 'data' renders pictures of "
                f"{config.size}; raise --config.data.synthetic.size, or lower this"
            )


def _further(context: Context) -> dict[str, Any]:
    """What is in files that the config names."""
    config = context.config.data.synthetic
    if not config.meshes:
        return {}
    from data_prep.products import meshes  # rendering is an extra

    inputs = meshes.read_inputs(config.meshes, context.procedure, config.poses)
    return {
        "meshes or poses": inputs.digest,
        "procedure": results.of_json(context.procedure.to_json()),
    }


STAGE = Stage(
    name="data",
    run=run,
    fields=("data.synthetic",),
    makes_data=True,
    further=_further,
    check=check,
)
