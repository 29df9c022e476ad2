"""The claims, and the runs that they take."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from stormpsr_jax.experiments.runs import Run, changed, distinct
from stormpsr_jax.psr.streams.learned import LEARNED
from stormpsr_jax.stages import order, provenance

RECIPE = "recipe"
TOY = "toy"  # whose people are quick
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
        pace: of the recordings of world toy that it runs on. People in other worlds are as slow
            as real ones.
        rehearsals: whether there are as many as configured; else none.
    """

    text: str
    changes: Callable[[ConfigDict], Mapping[str, Any]] = lambda _: {}
    pace: float = 1.0
    rehearsals: bool = True

    def pace_in(self, world: str) -> float:
        """The factor on pauses between events."""
        return self.pace if world == TOY else 1.0

    def data(self, world: str) -> str:
        """Name of the folder of the recordings."""
        if not self.rehearsals:
            return "data_without_rehearsals"
        return "data" if self.pace_in(world) == 1 else "data_paced"


def _without_cad(config: ConfigDict) -> dict[str, Any]:
    """As many pictures of a state, all from recordings."""
    c = config.pretrain
    return {"pretrain.n_per_state": c.n_per_state + c.cad_per_state, "pretrain.cad_per_state": 0}


def _stages(config: ConfigDict, finetune: bool) -> dict[str, Any]:
    chosen = set(config.stages) - {"finetune"} | ({"finetune"} if finetune else set())
    return {"stages": tuple(sorted(chosen, key=order.names().index))}


_RANDOM = {"pretrain.key_frames": "random"}
_UNIFORM = {"temporal.sampling": "uniform"}
VARIANTS = {
    RECIPE: Variant("as configured"),
    "last_frame": Variant(
        "the temporal network sees a window's last frame alone",
        lambda _: {"temporal_model.context_frames": 1},
    ),
    "random_key_frames": Variant("key frames from all that a state lasts", lambda _: _RANDOM),
    "finetuned": Variant("with end-to-end fine-tuning", lambda c: _stages(c, True)),
    "not_finetuned": Variant("without it", lambda c: _stages(c, False)),
    "without_cad": Variant("no CAD renders in pre-training", _without_cad),
    # What the frames just before a completion show is no state yet (ISIL, arXiv 2408.11700).
    "transitions": Variant(
        "frames of transitions as negatives in pre-training",
        lambda _: {
            "pretrain.backgrounds": 12,
            "pretrain.background_gap": 0.5,
            "pretrain.background_span": 2.5,
        },
    ),
    "without_wrong": Variant(
        "no renders of wrong parts in the detector", lambda _: {"detector.cad_wrong": 0.0}
    ),
    "without_rehearsals": Variant(
        "no rehearsals in training",
        lambda _: {"data.synthetic.error_recordings": 0},
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
    "learned": Claim("learned fusion against ASD alone", (RECIPE, "asd"), (RECIPE, LEARNED.name)),
    "fusion": Claim("learned fusion against Eq. 9", (RECIPE, "storm"), (RECIPE, LEARNED.name)),
    "window": Claim(
        "window against its last frame", ("last_frame", "temporal"), (RECIPE, "temporal")
    ),
    "wrong": Claim(
        "renders of wrong parts against none",
        ("without_wrong", LEARNED.name),
        (RECIPE, LEARNED.name),
    ),
    "transitions": Claim(
        "transitions as negatives against none",
        (RECIPE, LEARNED.name),
        ("transitions", LEARNED.name),
    ),
    "rehearsals": Claim(
        "rehearsals against none",
        ("without_rehearsals", LEARNED.name),
        (RECIPE, LEARNED.name),
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
# One seed, default occlusion: minutes on 2 idle cores by `SECONDS`; --plan prints them.
QUICK = ("fused", "learned", "fusion", "window")
# Four that no recipe, network or weight of this project was made with.
SEEDS = ("612", "613", "614", "615")
OCCLUSIONS = ("default", "heavy")

# Seconds of the README's synthetic run on 2 idle cores (an AMD EPYC), `finetune` of an earlier
# recipe on a Xeon, and of starting a run and looking at what is there.
SECONDS = {
    **{"data": 62, "pretrain": 98, "embed": 25, "temporal": 41, "finetune": 142},
    **{"detector": 183, "detections": 8, "predict": 16, "product_gate": 12, "fuse": 13},
    **{"evaluate": 23},
}
_START = 10
# How many times as long recordings of a world are as those of toy: 655 s, means of 12.
LENGTHS = {TOY: 1.0, "bench": 5.3}
# These take as long as recordings are.
_BY_FRAME = ("data", "embed", "detections", "predict", "product_gate", "fuse", "evaluate")


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
    all_runs = {
        (name, occlusion, seed): Run(
            f"{name}, occlusion {occlusion}, seed {seed}",
            _config(base, name, occlusion, seed, root),
            root / f"{occlusion}_{seed}" / name,
        )
        for seed in seeds
        for occlusion in levels
        for name in variants
    }
    first = distinct(all_runs.values())
    return {key: first[run] for key, run in all_runs.items()}


def _config(base: ConfigDict, variant: str, occlusion: str, seed: str, root: Path) -> ConfigDict:
    world = base.data.synthetic.world
    folder = root / f"{occlusion}_{seed}" / VARIANTS[variant].data(world)
    return changed(
        base,
        {
            "seed": int(seed),
            "data.dir": str(folder),
            "data.synthetic.seed": int(seed),
            "data.synthetic.occlusion": occlusion,
            "data.synthetic.pace": VARIANTS[variant].pace_in(world),
            **VARIANTS[variant].changes(base),
        },
    )


def same_sides(claim: Claim, base: ConfigDict) -> bool:
    """Whether the config gives both sides of a claim the same network and stream."""
    sides = [
        (provenance.flat_config(_config(base, variant, "default", "0", Path())), stream)
        for variant, stream in (claim.baseline, claim.claimed)
    ]
    return sides[0] == sides[1]


# --- How long it takes ----------------------------------------------------------------------------


def weight(run: Run, stage: str) -> float:
    """How much longer a stage takes than with recordings of world toy at their usual pace."""
    config = run.config.data.synthetic
    return config.pace * LENGTHS[config.world] if stage in _BY_FRAME else 1.0


def seconds(expected: Mapping[Run, Sequence[str]]) -> float:
    """About how long what is left of all runs takes on 2 idle cores."""
    return sum(
        (_START if stages else 0) + sum(SECONDS[s] * weight(run, s) for s in stages)
        for run, stages in expected.items()
    )
