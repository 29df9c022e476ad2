"""Stage `data`: renders recordings into clip shards, for runs that bring no data.

Of the synthetic assembly, of a product whose part meshes are given, or of one drawn at random.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from stormpsr_jax.base import files, installed
from stormpsr_jax.data.clips import ClipSource, list_splits, procedure_differences
from stormpsr_jax.psr.procedure import load_procedure
from stormpsr_jax.stages.context import Context
from stormpsr_jax.stages.stage import Reads, Stage, collect


def run(context: Context) -> dict:
    """Fills `config.data.dir` (WORKDIR/data); recordings that are already there are kept."""
    if jax.process_index() != 0:
        return {}
    from data_prep import synthetic  # rendering is an extra
    from data_prep.products import products
    from data_prep.worlds import worlds

    config = context.config.data.synthetic
    options = config.to_dict()
    objects, frames = options.pop("objects"), options.pop("frames_per_object")
    if objects["train"]:
        synthetic.make_objects(
            context.data_dir,
            seed=config.seed,
            objects=objects,
            frames_per_object=frames,
            size=config.size,
            num_components=context.procedure.num_components,
            workers=config.workers,
        )
    else:
        if config.timelines:
            options["recordings"] = None
        options["timelines"] = config.timelines or None
        drawn = {key: options.pop(key) for key in ("looks", "views", "backgrounds")}
        options["world"] = worlds.chosen(options["world"], size=config.size, **drawn)
        told = {name: options.pop(name) or None for name in ("meshes", "poses")}
        product_seed = options.pop("product_seed")
        of = products.find(
            **told,
            up=options.pop("up"),
            procedure=context.procedure if told["meshes"] else None,
            product_seed=None if product_seed < 0 else product_seed,
            seed=config.seed,
        )
        synthetic.make_dataset(context.data_dir, of=of, **options)
    return {}


def _product_mistakes(context: Context) -> list[str]:
    """What is wrong with a product of the user's, before its meshes are read."""
    config, fields = context.config.data.synthetic, "--config.data.synthetic."
    procedure = context.config.procedure
    if config.poses and not config.meshes:
        return [f"{fields}poses={config.poses}: are of meshes; give data.synthetic.meshes too"]
    if config.product_seed >= 0:
        which = f"{fields}product_seed={config.product_seed}: draws a product and its procedure"
        if config.meshes:
            return [f"{which}; leave data.synthetic.meshes out"]
        return [f"{which}; set --config.procedure=''"] if procedure else []
    if not config.meshes:
        if config.objects.train or (config.timelines and not procedure):
            return []
        if procedure:
            theirs = load_procedure("meccano" if config.timelines else "synthetic")
            if what := procedure_differences(context.procedure, theirs):
                return [
                    f"--config.procedure={procedure}: stage 'data' renders the toy of procedure "
                    f"{theirs.name!r}, with {what}; name that one, or give {fields}meshes of yours"
                ]
            return []
        return [
            "--config.procedure='': name the product to render, with --config.procedure=FILE and "
            f"{fields}meshes=DIR, or draw one with {fields}product_seed=N"
        ]
    if not procedure:
        return [f"{fields}meshes={config.meshes}: give --config.procedure=FILE, whose they are"]
    from data_prep.products import meshes  # rendering is an extra
    from data_prep.worlds import orders

    if not config.timelines:
        orders.check(context.procedure)
    meshes.read_inputs(config.meshes, context.procedure, config.poses or None)
    return []


def _seed_mistakes(context: Context) -> list[str]:
    """Says whether a seed of random objects is for recordings, or one of these for objects."""
    from data_prep.worlds.objects import FIRST_OBJECT_SEED  # rendering is an extra

    config = context.config.data.synthetic
    which = f"--config.data.synthetic.seed={config.seed}: "
    if config.objects.train and config.seed < FIRST_OBJECT_SEED:
        return [f"{which}random objects have seeds from {FIRST_OBJECT_SEED} on"]
    if not config.objects.train and config.seed >= FIRST_OBJECT_SEED:
        return [
            f"{which}recordings have seeds below {FIRST_OBJECT_SEED}, from which on are objects"
        ]
    return []


def _extra_mistakes(context: Context) -> list[str]:
    """What real recordings do not share with those that will be rendered."""
    config, extra = context.config.data.synthetic, context.extra
    if extra is None or config.product_seed >= 0:
        return []
    mistakes = []
    for split in extra.splits:
        source = ClipSource(extra.directory, split, context.procedure)
        own = (config.size, config.size)
        if source.stored_size != own:
            mistakes.append(
                f"--config.data.extra={extra.directory}: has pictures of {source.stored_size} "
                f"pixels (H, W), and {own} are rendered: make it again with --size={config.size}, "
                "or set data.synthetic.size"
            )
        if source.fps != config.fps:
            mistakes.append(
                f"--config.data.extra={extra.directory}: has {source.fps:g} frames a second: set "
                f"--config.data.synthetic.fps={source.fps:g}, or make it again with "
                f"--fps={config.fps:g}"
            )
    if not config.timelines:
        from data_prep.worlds.names import split_names  # rendering is an extra

        counts = config.recordings.to_dict()
        rendered = set(
            split_names(context.procedure, counts, config.error_recordings).get("train", ())
        )
        joining = {name for split in extra.joining("train") for name in extra.splits[split]}
        if both := sorted(rendered & joining):
            mistakes.append(
                f"--config.data.extra={extra.directory}: recordings that will be rendered are "
                f"called {', '.join(both[:5])}, too; rename its ones"
            )
    return list(dict.fromkeys(mistakes))


def _further(context: Context) -> dict[str, Any]:
    """What is in files that the config names."""
    config = context.config.data.synthetic
    found: dict[str, Any] = {
        name: _of_folder(Path(config[name]))
        for name in ("timelines", "backgrounds")
        if config[name]
    }
    if config.objects.train:
        found["number of components"] = context.procedure.num_components
    if not config.meshes:
        return found
    from data_prep.products import meshes  # rendering is an extra

    inputs = meshes.read_inputs(config.meshes, context.procedure, config.poses or None)
    content = json.dumps(context.procedure.to_json(), sort_keys=True)
    return found | {
        "meshes or poses": inputs.digest,
        "procedure": hashlib.sha256(content.encode()).hexdigest(),
    }


def _of_folder(folder: Path) -> str:
    """One checksum of the names and contents of all files in a folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(f"{path.relative_to(folder)}\0{files.checksum(path)}\0".encode())
    return digest.hexdigest()


def rendering_mistakes(context: Context, reads: Sequence[Reads]) -> list[str]:
    """What would come out wrong, given what other stages read."""
    mistakes = []
    config = context.config.data.synthetic
    for module in ("trimesh", "numba", "fcl"):
        if importlib.util.find_spec(module) is None:
            mistakes.append(
                f"stage 'data' renders pictures and needs {module!r}: "
                f"{installed.extra('synthetic')}"
            )
    mistakes = mistakes or collect(functools.partial(_product_mistakes, context))
    mistakes = mistakes or collect(functools.partial(_extra_mistakes, context))
    mistakes = mistakes or _seed_mistakes(context)
    if config.timelines and config.pace != 1:
        mistakes.append(
            f"--config.data.synthetic.pace={config.pace} is for made-up timelines; those of "
            "data.synthetic.timelines have .time_scale: set pace to 1"
        )
    if config.timelines and config.error_recordings:
        mistakes.append(
            f"--config.data.synthetic.error_recordings={config.error_recordings} are made up, and "
            "data.synthetic.timelines are played: set error_recordings to 0"
        )
    if config.objects.train or not config.timelines:
        kind = "objects" if config.objects.train else "recordings"
        mistakes += [
            f"--config.data.synthetic.{kind}.{split}=0: the stages need at least one"
            for split in sorted({split for read in reads for split in read.splits})
            if split in config[kind] and not config[kind][split]
        ]
    if not config.objects.train and not config.timelines:
        renders = {kind for read in reads for kind in read.renders}
        if "plain" in renders and not config.cad_per_state:
            mistakes.append(
                "--config.data.synthetic.cad_per_state=0: pretrain.cad_per_state and detector.cad "
                "need clean renders; set them to 0 too"
            )
        if "wrong" in renders and not config.cad_wrong:
            mistakes.append(
                "--config.data.synthetic.cad_wrong=0: detector.cad_wrong needs renders of parts "
                "that sit wrong; set it to 0 too"
            )
    if config.objects.train and (config.world != "toy" or config.backgrounds):
        mistakes.append(
            "--config.data.synthetic.objects are random products with the looks of world toy: set "
            "data.synthetic.world to toy, and backgrounds to ''"
        )
    if config.backgrounds and not os.path.isdir(config.backgrounds):
        mistakes.append(f"--config.data.synthetic.backgrounds={config.backgrounds}: no such folder")
    for section in ("encoder", "detector"):
        if (size := context.config[section].image_size) > config.size:
            mistakes.append(
                f"--config.{section}.image_size={size}: stage 'data' renders pictures of "
                f"{config.size}; raise --config.data.synthetic.size, or lower this"
            )
    return mistakes


def _damage(context: Context) -> list[str]:
    """Splits that cannot be opened: what the folder holds is compared part by part elsewhere."""
    try:
        own = load_procedure(context.data_dir / "procedure.json")
        for split in list_splits(context.data_dir):
            if own == context.procedure:
                context.source(split)
            else:  # random objects, whose parts are counted by a procedure of their own
                ClipSource(context.data_dir, split, own)
    except ValueError as error:
        return [str(error)]
    return []


STAGE = Stage(
    name="data",
    run=run,
    fields=("data.synthetic",),
    further=_further,
    taken_over=False,  # it belongs to the data folder
    rendering=rendering_mistakes,
    damage=_damage,
)
