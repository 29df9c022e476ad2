"""The claims, the runs that they take, and what these runs share."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from stormpsr_jax.configs import default
from stormpsr_jax.psr import learned
from stormpsr_jax.stages import provenance
from stormpsr_jax.stages.checks import STAGES
from stormpsr_jax.stages.context import Context

RECIPE = "recipe"
# With pauses so many times as long, the mean pause of made-up recordings is 3.7 windows, as in the
# 20 recordings of MECCANO (80 s, windows of 21 s), and KCAS draws 65 % of its clips elsewhere than
# uniform sampling would (MECCANO 68 %, made-up ones at their usual pace 22 %).
PACE = 5.0


@dataclasses.dataclass(frozen=True)
class Variant:
    """A change of the recipe.

    Attributes:
      text: for people.
      changes: of a config, as {field: value}.
      pace: of the recordings that it runs on.
      rehearsals: whether there are as many as configured; else none.
    """

    text: str
    changes: Callable[[ConfigDict], Mapping[str, Any]] = lambda _: {}
    pace: float = 1.0
    rehearsals: bool = True

    @property
    def data(self) -> str:
        """Name of the folder of the recordings."""
        if not self.rehearsals:
            return "data_without_rehearsals"
        return "data" if self.pace == 1 else "data_paced"


def _without_cad(config: ConfigDict) -> dict[str, Any]:
    """As many pictures of a state, all from recordings."""
    c = config.pretrain
    return {"pretrain.n_per_state": c.n_per_state + c.cad_per_state, "pretrain.cad_per_state": 0}


def _stages(config: ConfigDict, finetune: bool) -> dict[str, Any]:
    chosen = set(config.stages) - {"finetune"} | ({"finetune"} if finetune else set())
    return {"stages": tuple(sorted(chosen, key=STAGES.index))}


_RANDOM = {"pretrain.key_frames": "random"}
_UNIFORM = {"temporal.sampling": "uniform"}
VARIANTS = {
    RECIPE: Variant("as configured"),
    "last_frame": Variant(
        "the temporal network sees a window's last frame alone",
        lambda _: {"temporal_model.seen": 1},
    ),
    "random_key_frames": Variant("key frames from all that a state lasts", lambda _: _RANDOM),
    "finetuned": Variant("with end-to-end fine-tuning", lambda c: _stages(c, True)),
    "not_finetuned": Variant("without it", lambda c: _stages(c, False)),
    "without_cad": Variant("no CAD renders in pre-training", _without_cad),
    "without_wrong": Variant(
        "no renders of wrong parts in the detector", lambda _: {"detector.cad_wrong": 0.0}
    ),
    "without_rehearsals": Variant(
        "no rehearsals in training",
        lambda _: {"data.synthetic.rehearsals": 0},
        rehearsals=False,
    ),
    "scratch": Variant("an encoder from scratch", lambda _: {"init_from": ""}),
    "paced": Variant("at MECCANO's pace", pace=PACE),
    "paced_uniform": Variant("uniform clips, at MECCANO's pace", lambda _: _UNIFORM, PACE),
    "paced_random_key_frames": Variant(
        "key frames from all that a state lasts, at MECCANO's pace", lambda _: _RANDOM, PACE
    ),
}


@dataclasses.dataclass(frozen=True)
class Claim:
    """That one stream of one variant is better than another: (variant, stream) each."""

    text: str
    baseline: tuple[str, str]
    claimed: tuple[str, str]


CLAIMS = {
    "fused": Claim("Eq. 9 against ASD alone", (RECIPE, "asd"), (RECIPE, "storm")),
    "learned": Claim("learned fusion against ASD alone", (RECIPE, "asd"), (RECIPE, learned.STREAM)),
    "fusion": Claim("learned fusion against Eq. 9", (RECIPE, "storm"), (RECIPE, learned.STREAM)),
    "window": Claim(
        "window against its last frame", ("last_frame", "temporal"), (RECIPE, "temporal")
    ),
    "wrong": Claim(
        "renders of wrong parts against none",
        ("without_wrong", learned.STREAM),
        (RECIPE, learned.STREAM),
    ),
    "rehearsals": Claim(
        "rehearsals against none",
        ("without_rehearsals", learned.STREAM),
        (RECIPE, learned.STREAM),
    ),
    "finetune": Claim(
        "end-to-end fine-tuning against none",
        ("not_finetuned", "temporal"),
        ("finetuned", "temporal"),
    ),
    "cad": Claim(
        "CAD renders in pre-training against none",
        ("without_cad", "temporal"),
        (RECIPE, "temporal"),
    ),
    "kfs": Claim(
        "KFS against random key frames", ("random_key_frames", "temporal"), (RECIPE, "temporal")
    ),
    "start": Claim(
        "general encoder against scratch", ("scratch", "temporal"), (RECIPE, "temporal")
    ),
    "kcas": Claim(
        "KCAS against uniform, at MECCANO's pace",
        ("paced_uniform", "temporal"),
        ("paced", "temporal"),
    ),
    "kfs_paced": Claim(
        "KFS against random key frames, at MECCANO's pace",
        ("paced_random_key_frames", "temporal"),
        ("paced", "temporal"),
    ),
}
# One seed, default occlusion: 21 minutes on 2 idle cores of a slow machine (`_SECONDS`).
QUICK = ("fused", "learned", "fusion", "window")
# Four that no recipe, network or weight of this project was made with.
SEEDS = ("612", "613", "614", "615")
OCCLUSIONS = ("default", "heavy")

# Seconds of the README's synthetic run on 2 idle cores (Xeon, 2.5 GHz), `finetune` of an earlier
# recipe there, and of starting a run and looking at what is there.
_SECONDS = {
    **{"data": 354, "pretrain": 223, "embed": 94, "temporal": 81, "finetune": 142},
    **{"detector": 245, "predict": 39, "fuse": 19, "evaluate": 20},
}
_START = 10
_BY_FRAME = ("data", "embed", "predict", "fuse", "evaluate")  # take as long as recordings are
# Stages whose results lie in a folder of their own, which other runs can take over.
_SHARED = ("pretrain", "embed", "temporal", "finetune", "detector")


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """One run, in a work folder of its own.

    Attributes:
      variant, occlusion, seed: what it is.
      config: of it, which names the data folder that it shares with others.
      folder: the work folder.
    """

    variant: str
    occlusion: str
    seed: str
    config: ConfigDict
    folder: Path

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.variant}, occlusion {self.occlusion}, seed {self.seed}"

    @property
    def context(self) -> Context:
        """For looking at what is there, which takes no devices."""
        return Context(self.config, self.folder, mesh=None)

    def flags(self) -> list[str]:
        """The flags of stormpsr_jax.main that make the run."""
        usual = provenance.flat_config(default.get_config())
        return [f"--config={default.__file__}", f"--workdir={self.folder}"] + [
            f"--config.{field}={tuple(value) if isinstance(value, list) else value}"
            for field, value in provenance.flat_config(self.config).items()
            if value != usual[field]
        ]


def runs_of(
    claims: Iterable[str], base: ConfigDict, root: Path, seeds: Sequence[str], levels: Sequence[str]
) -> dict[tuple[str, str, str], Run]:
    """The runs that claims take, by (variant, occlusion, seed), in the order to make them in.

    Variants whose configs are the same share a run.
    """
    variants = dict.fromkeys([RECIPE])
    for name in claims:
        claim = CLAIMS[name]
        variants |= dict.fromkeys((claim.claimed[0], claim.baseline[0]))
    # Recordings at another pace after all others: they take longest.
    variants = sorted(variants, key=lambda name: VARIANTS[name].pace)
    found = {}
    for seed in seeds:
        for occlusion in levels:
            made: dict[str, Run] = {}
            for name in variants:
                config = _config(base, name, occlusion, seed, root)
                same = [run for run in made.values() if run.config == config]
                folder = root / f"{occlusion}_{seed}" / name
                made[name] = same[0] if same else Run(name, occlusion, seed, config, folder)
                found[name, occlusion, seed] = made[name]
    return found


def _config(base: ConfigDict, variant: str, occlusion: str, seed: str, root: Path) -> ConfigDict:
    config = base.copy_and_resolve_references()
    folder = root / f"{occlusion}_{seed}" / VARIANTS[variant].data
    config.update_from_flattened_dict(
        {
            "seed": int(seed),
            "data.dir": str(folder),
            "data.synthetic.seed": int(seed),
            "data.synthetic.occlusion": occlusion,
            "data.synthetic.pace": VARIANTS[variant].pace,
            **VARIANTS[variant].changes(base),
        }
    )
    return config


def same_sides(claim: Claim, base: ConfigDict) -> bool:
    """Whether the config gives both sides of a claim the same network and stream."""
    sides = [
        (provenance.flat_config(_config(base, variant, "default", "0", Path())), stream)
        for variant, stream in (claim.baseline, claim.claimed)
    ]
    return sides[0] == sides[1]


# --- What runs share ------------------------------------------------------------------------------


def stages_to_make(context: Context) -> list[str]:
    """The stages of a run that are not finished, or were made from something else."""
    return [name for name in context.config.stages if not _is_made(context, context, name)]


def _is_made(context: Context, where: Context, stage: str) -> bool:
    """Whether folder `where` holds what a stage of `context` would make."""
    record = provenance.read(where.workdir / stage)
    return (
        record is not None
        and "results" in record
        and not provenance.changes(record, provenance.made_from(context, stage))
    )


def take_over(run: Run, others: Iterable[Run]) -> list[str]:
    """Links finished stages of other runs into a run that would make the very same.

    A stage is the same if its record says so: the fields that it reads, the data, and the checksums
    of the results before it. The run itself compares all that again, and the checksums of the
    stage's own results, before it counts the stage as done.

    Returns:
      The stages.
    """
    context, taken = run.context, []
    if not context.has_data:
        return taken
    for stage in run.config.stages:
        before = provenance.stages_before(context, stage)
        if stage not in _SHARED or (run.folder / stage).exists():
            continue
        if not all((run.folder / name / provenance.DONE).exists() for name in before):
            continue
        for other in others:
            if _is_made(context, other.context, stage):
                _link(other.folder / stage, run.folder / stage)
                taken.append(stage)
                break
    return taken


def _link(source: Path, target: Path) -> None:
    """Copies a folder, with links for files: a run replaces files and never writes into them."""
    part = target.with_name(f"{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(source, part, copy_function=_link_or_copy)
    part.rename(target)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copy2(source, target)


# --- How long it takes ----------------------------------------------------------------------------


def expected_stages(runs: Sequence[Run]) -> dict[Run, list[str]]:
    """By run the stages that are left to make if all runs go well, one after the other."""
    made: set[tuple] = set()
    found = {}
    for run in runs:
        left = set(stages_to_make(run.context)) if run.folder.is_dir() else set(run.config.stages)
        identities = _identities(run)
        found[run] = [
            stage
            for stage in run.config.stages
            if stage in left and not (stage in ("data", *_SHARED) and identities[stage] in made)
        ]
        made |= set(identities.values())
    return found


def _identities(run: Run) -> dict[str, tuple]:
    """By stage what it is made from, without looking at anything on the disk."""
    config = run.config.copy_and_resolve_references()
    config.data.dir = ""
    context = Context(config, run.folder / "nothing", mesh=None)
    found: dict[str, tuple] = {}
    for stage in config.stages:
        fields = provenance.made_from(context, stage)["config"]
        before = tuple(found.get(name) for name in provenance.stages_before(context, stage))
        if stage == "pretrain":  # made_from has the checksum of the file instead
            before += (config.init_from,)
        found[stage] = (stage, run.config.data.dir, repr(sorted(fields.items())), before)
    return found


def seconds(run: Run, stages: Sequence[str]) -> float:
    """About how long some stages of a run take on 2 idle cores."""
    pace = run.config.data.synthetic.pace
    return sum(_SECONDS[stage] * (pace if stage in _BY_FRAME else 1) for stage in stages)


def seconds_of_run(run: Run, stages: Sequence[str]) -> float:
    """The same with the start of the run; nothing where no stage is left."""
    return _START + seconds(run, stages) if stages else 0.0
