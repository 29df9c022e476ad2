"""The paper's tables: their rows, the runs that these take, and the published figures beside them.

P is STORM-PSR (arXiv 2510.12385), I is IndustReal (WACV 2024). Figures are POS, F1 and delay in
seconds, of the test split.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stormpsr_jax.configs.default import Config
from stormpsr_jax.experiments.runs import Changes, Runs, changed, planned
from stormpsr_jax.psr import streams
from stormpsr_jax.psr.streams import ASD, STORM, TEMPORAL
from stormpsr_jax.stages import order

BASE = "base"
Figures = tuple[float | None, float | None, float | None]  # POS, F1, delay in seconds

KEY_FRAME_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0)  # P: t_f
WINDOWS = (4, 16, 64, 256)  # frames: temporal-F4 … F256 and no-temporal-F4 … F256 of the code
BACKBONES = ("mlp", "lstm", "tcn", "transformer")


def _stages(config: Config, without: Sequence[str] = (), also: Sequence[str] = ()) -> dict:
    chosen = (set(config.stages) | set(also)) - set(without)
    return {"stages": tuple(sorted(chosen, key=order.NAMES.index))}


def _backbone(name: str, frames: int = 0) -> Changes:
    """Every frame of a window (0: as long as the config's), on frozen embeddings."""
    return lambda config: {
        "temporal_model.backbone": name,
        "window.frames": frames or config.window.frames,
        "window.stride": 1,
        "embed.every": 1,
        **_stages(config, without=("finetune", "detector")),
    }


# Name of a run: what differs from the config. Runs that come out the same are made once.
VARIANTS: dict[str, Changes] = {
    BASE: {},
    "no_kfs_no_kcas": {"pretrain.steps": 0, "temporal.sampling": "uniform"},
    "uniform": {"temporal.sampling": "uniform"},
    "gaussian": {"temporal.sampling": "gaussian"},
    "kcas": {"temporal.sampling": "kcas"},
    **{f"t_f_{seconds:g}": {"pretrain.t_f": seconds} for seconds in KEY_FRAME_SECONDS},
    **{f"stride_1_{name}": _backbone(name) for name in BACKBONES},
    **{f"w{w}_{name}": _backbone(name, w) for w in WINDOWS for name in ("transformer", "mlp")},
    "frozen": lambda config: _stages(config, without=("finetune",)),
    "finetuned": lambda config: _stages(config, also=("finetune",)),
}


@dataclasses.dataclass(frozen=True)
class Entry:
    """A row of a table.

    Attributes:
        decoder: of predictions; '' is the config's.
        threshold: T; None is the one that the run chose.
        confidence: floor of detections; None is the one that the run chose.
        errors: of which recordings: with errors in them, without, or all (None).
        published: by procedure.
        only: the procedure whose table has the row; '' is every one.
    """

    text: str
    variant: str = BASE
    stream: str = STORM.name
    decoder: str = ""
    threshold: float | None = None
    confidence: float | None = None
    errors: bool | None = None
    published: Mapping[str, Figures] = dataclasses.field(default_factory=dict)
    only: str = ""


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of the paper.

    Attributes:
        rows: of POS, F1 and delay; a table without rows is measured by code of its own.
        runs: variants that it takes besides those of its rows.
    """

    title: str
    rows: tuple[Entry, ...] = ()
    runs: tuple[str, ...] = ()
    note: str = ""

    @property
    def variants(self) -> tuple[str, ...]:
        """Names of the runs that it takes."""
        return tuple(dict.fromkeys([*(row.variant for row in self.rows), *self.runs]))


def _by(industreal: Figures | None = None, meccano: Figures | None = None) -> dict[str, Figures]:
    by = {"industreal": industreal, "meccano": meccano}
    return {procedure: figures for procedure, figures in by.items() if figures}


def _f1(industreal: float, meccano: float) -> dict[str, Figures]:
    return _by((None, industreal, None), (None, meccano, None))


def _asd(text: str, decoder: str, published: dict[str, Figures], **settings: Any) -> Entry:
    return Entry(text, BASE, ASD.name, decoder, published=published, **settings)


# The T and the floor that come nearest to the figures of I (docs/research.md).
_NEAREST: dict[str, Any] = {"threshold": 8.0, "confidence": 0.25, "only": "industreal"}
_STORM = _by((0.812, 0.901, 15.5), (0.377, 0.497, 88.6))
_MOVING = _by((0.497, 0.506, 14.2), (0.206, 0.247, 120.3))
_B3 = _by((0.797, 0.891, 21.0), (0.354, 0.545, 99.8))
_MAIN = (
    _asd("ASD, B1 (naive)", "naive", _by((0.570, 0.779, 14.9))),
    _asd("ASD, B2 (accumulated)", "confidence", {}),
    _asd("ASD, B2, T = 8, floor .25", "confidence", _by((0.731, 0.860, 22.3)), **_NEAREST),
    _asd("ASD, B3 (expected)", "expected", _B3),
    _asd("ASD, B3, T = 8, floor .25", "expected", _by((0.797, 0.883, 22.4)), **_NEAREST),
    Entry("spatio-temporal stream", stream=TEMPORAL.name, published=_MOVING),
    Entry("STORM-PSR", published=_STORM),
)
_NONE = _by((0.467, 0.511, 62.6), (0.269, 0.358, 102.9))
_KFS = _by((0.766, 0.892, 30.0), (0.329, 0.459, 135.8))
TABLES = {
    "main": Table(
        "Both streams and their fusion (P, and B1 to B3 of I)",
        (
            *_MAIN,
            *(
                dataclasses.replace(row, text=f"{row.text}, {what}", errors=errors, published={})
                for errors, what in ((False, "recordings without errors"), (True, "with errors"))
                for row in _MAIN
            ),
        ),
        note="Rows that name no T and floor have the run's: by the papers T = 6 on IndustReal, 1 "
        "on MECCANO, and a floor of .5. P's figures of ASD, B3 are nearer to T = 8 and .25 too.",
    ),
    "sampling": Table(
        "Key-frame and key-clip-aware sampling (P)",
        (
            Entry("without KFS and KCAS", "no_kfs_no_kcas", published=_NONE),
            Entry("with KFS alone", "uniform", published=_KFS),
            Entry("with both: STORM-PSR", "kcas", published=_STORM),
        ),
        note="Without KFS the encoder keeps its starting weights until it is fine-tuned, and clips "
        "are drawn uniformly where KCAS is off.",
    ),
    "clips": Table(
        "Sampling of training clips, spatio-temporal stream (P)",
        (
            Entry("uniform", "uniform", TEMPORAL.name, published=_f1(0.419, 0.138)),
            Entry("Gaussian", "gaussian", TEMPORAL.name, published=_f1(0.382, 0.175)),
            Entry("KCAS", "kcas", TEMPORAL.name, published=_f1(0.506, 0.247)),
        ),
    ),
    "t_f": Table(
        "Seconds after a completion that KFS draws from, spatio-temporal stream (P)",
        tuple(Entry(f"t_f = {t:g} s", f"t_f_{t:g}", TEMPORAL.name) for t in KEY_FRAME_SECONDS),
    ),
    "window": Table(
        "Length of the window, spatio-temporal stream (P)",
        tuple(
            Entry(f"w = {w}, {text}", f"w{w}_{name}", TEMPORAL.name)
            for name, text in (("transformer", "temporal"), ("mlp", "no temporal"))
            for w in WINDOWS
        ),
        note="The released code has configs temporal-F4 to F256 and no-temporal-F4 to F256: the "
        "transformer, or its MLP, on every frame of windows of so many frames (here one more, the "
        "one that the window starts from), without fine-tuning.",
    ),
    "backbones": Table(
        "Temporal networks on every frame of a window, spatio-temporal stream (P)",
        (
            Entry("MLP", "stride_1_mlp", TEMPORAL.name, published=_f1(0.330, 0.156)),
            Entry("LSTM", "stride_1_lstm", TEMPORAL.name, published=_f1(0.470, 0.225)),
            Entry("TCN", "stride_1_tcn", TEMPORAL.name, published=_f1(0.502, 0.151)),
            Entry(
                "transformer", "stride_1_transformer", TEMPORAL.name, published=_f1(0.514, 0.163)
            ),
        ),
        note="window.stride=1, on embeddings of the pre-trained encoder: without fine-tuning, of "
        "which P does not say whether it was done here.",
    ),
    "finetune": Table(
        "Frozen encoder against end-to-end fine-tuning",
        tuple(
            Entry(f"{text}, {stream}", variant, stream)
            for variant, text in (("frozen", "frozen"), ("finetuned", "fine-tuned"))
            for stream in (TEMPORAL.name, STORM.name)
        ),
    ),
    "detector": Table("Assembly state detection: AP@50 on the test split (P, I)", runs=(BASE,)),
}
DETECTOR_PUBLISHED = {"industreal": 0.838, "meccano": 0.120}  # mAP@50, P


def missing_stages(table: Table, config: Config) -> list[str]:
    """The stages of the paper that a config lacks and a table needs."""
    needed = {"predict", "evaluate"}
    kinds = {kind for row in table.rows for kind in streams.find(row.stream).needs}
    if "detections" in kinds or table is TABLES["detector"]:
        needed |= {"detector"}
    if "windows" in kinds:
        needed |= {"pretrain", "embed", "temporal"}
    return sorted(needed - set(config.stages), key=order.NAMES.index)


def runs_of(tables: Sequence[str], config: Config, root: Path, seeds: Sequence[int]) -> Runs:
    """The runs that tables take, in the order to make them in.

    `config` is of the row of the whole method. Where it renders its own data, all runs share them.
    """
    base = changed(config, _stages(config, without=("fuse",)))  # the paper has it not
    wanted = {variant for table in tables for variant in TABLES[table].variants}
    variants = {name: changes for name, changes in VARIANTS.items() if name in wanted}
    return planned(base, variants, root, seeds)
