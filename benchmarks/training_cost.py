"""What training at full size costs: FLOPs of every stage, hours, dollars, loader, checkpoints.

    python benchmarks/training_cost.py [--config=meccano] [--utilisation=0.3] [--shortest_step=0.02]
        [--a100=3] [--h100=4] [--v5e=1.2]

FLOPs are the compiler's count of one training step of each stage as configs/<config>.py ships it,
but with remat "none" and one microbatch: what the model takes, without anything computed twice.
Nothing is trained. Evaluations during training count too: they go over the devices of all hosts.
Each device has as many cores that decode for it as the package starts loaders (`hosts.LOADERS`).
Pictures are decoded here as each stage asks for them: windows of a recording for `finetune`, one of
a record for `pretrain` and `detector`, all in order otherwise. "By hand" is 6 FLOPs a parameter and
token plus attention. Everything that is assumed and not counted is a flag or a constant below;
benchmarks/results/scale-cost.md discusses it.
"""

import argparse
import dataclasses
import importlib
import math
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
import stage_loops
from accelerators import abstract_state, batch_rows, lower, state_bytes

from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.networks import backbones
from stormpsr_jax.networks.temporal_baselines import TemporalLSTM
from stormpsr_jax.stages.context import Context
from stormpsr_jax.stages.validation import BOXED_FRAMES, EMPTY_FRAMES, KEY_FRAMES
from stormpsr_jax.training import hosts
from stormpsr_jax.training.sharding import make_mesh

# MECCANO: 20 recordings, 6.9 h at 12 frames/s. IndustReal: 84 recordings, 5.8 h at 10 frames/s.
FRAMES = {"meccano": 299_376, "industreal": 209_000}
# Of the validation split: 2 recordings of MECCANO's; 16 of IndustReal's 84, by their share.
VALIDATION = {299_376: 32_600, 209_000: 39_800}
# Of the peak, model FLOPs only; the ViT's share is --utilisation. The temporal transformer is 128
# wide, less than a matrix unit, and the detector is 48 channels of convolutions.
UTILISATION = {"temporal": 0.2, "detector": 0.15, "detections": 0.15}
# Threads that read in order hold Python's lock for a part of the time; more of them in a process
# would wait for each other.
READERS = 12
TRAINED = ("pretrain", "temporal", "finetune", "detector")


@dataclasses.dataclass(frozen=True)
class Platform:
    """Some accelerators.

    Attributes:
        name: for the table.
        devices: how many.
        peak: FLOP/s of one, bfloat16, dense.
        dollars: an hour of one.
    """

    name: str
    devices: int
    peak: float
    dollars: float


@dataclasses.dataclass(frozen=True)
class Stage:
    """What one stage takes.

    Attributes:
        steps: of the config; embed and predict have none and count frames.
        rows: of a step: pictures, clips, frames.
        pictures: decoded a step.
        flops: of a step.
        by_hand: the same, from parameters and tokens; 0 = not counted.
        state: bytes of parameters and optimiser state.
        parameters: how many.
        rate: pictures of its size that one core decodes a second.
        evaluations: all of them, as a stage of their own; None: they take no time worth the name.
    """

    name: str
    steps: int
    rows: int
    pictures: int
    flops: float
    by_hand: float = 0.0
    state: int = 0
    parameters: int = 0
    rate: float = 0.0
    evaluations: "Stage | None" = None


def vit_flops(config) -> float:
    """Forward FLOPs of one picture: 2 a weight and token, and attention's two products."""
    e = backbones.build(config.encoder)
    patches = (config.encoder.image_size // e.patch_size) ** 2
    tokens, matrices = 1 + e.registers + patches, 3 if e.mlp == "swiglu" else 2
    weights = 4 * e.width**2 + matrices * e.width * (e.mlp_dim or 4 * e.width)
    block = 2 * weights * tokens + 4 * tokens**2 * e.width
    return e.depth * block + 2 * patches * 3 * e.patch_size**2 * e.width


def clip_frames(config) -> int:
    """Frames of a clip that are encoded."""
    return config.window.frames // config.window.stride + 1


def temporal_flops(config) -> float:
    """Forward FLOPs of one clip of embeddings; 0 where nobody has done it by hand."""
    m, width = config.temporal_model, config.encoder.hidden
    if m.backbone == "lstm":
        units = m.baseline_width or TemporalLSTM.width
        return clip_frames(config) * 2 * 4 * units * (width + units)
    if m.backbone != "transformer":
        return 0.0
    tokens, inner = clip_frames(config) + 1, m.num_heads * m.dim_head
    weights = 4 * width * inner + 2 * width * m.mlp_dim
    return m.depth * (2 * weights * tokens + 4 * tokens**2 * inner)


class Counter:
    """Counts what the stages of configs take, on made-up data and without training.

    Attributes:
        stored: pixels and mean bytes of the pictures of each folder.
    """

    def __init__(self, config, frames: int, folder: Path):
        """Makes the data.

        Args:
            config: whose procedure and sizes of pictures those have that are counted.
            frames: of the real data set.
            folder: for the data.
        """
        self._frames, self._mesh, self._folder = frames, make_mesh(1, 1), folder
        context = self._context(config)
        stage_loops.make_folders(context)
        self._detector_dir = context.config.data.detector_dir
        small, large = context.source("train"), context.detector_source("train")
        self._rates = {
            "pretrain": decoding(small, SINGLE),
            "finetune": decoding(small, WINDOW),
            "detector": decoding(large, SINGLE),
            "in order": decoding(small, IN_ORDER),
            "detections": decoding(large, IN_ORDER),
        }
        self.stored = [(s.image_size[0], mean_bytes(s)) for s in (small, large)]

    def _context(self, config) -> Context:
        """Of a copy of a config: without what would be computed twice, and on the made-up data."""
        config = config.copy_and_resolve_references()
        config.encoder.remat, config.encoder.microbatches, config.data.workers = "none", 1, 0
        config.attention = "xla"
        config.data.dir = str(self._folder / "data")
        return Context(config, self._folder, self._mesh)

    def trained(self, config, name: str) -> Stage:
        """What a stage that trains takes."""
        context = self._context(config)
        context.config.data.detector_dir = self._detector_dir
        definition = stage_loops.definitions(context, [name])[name]
        rows, (state, _) = batch_rows(definition), abstract_state(definition)
        flops = lower(definition, self._mesh).cost_analysis()["flops"]
        vit, temporal, clip = vit_flops(config), temporal_flops(config), clip_frames(config)
        by_hand, pictures = {
            "pretrain": (3 * rows * vit, rows),
            "temporal": (3 * rows * temporal, 0),
            "finetune": (3 * rows * (clip * vit + temporal), rows * clip),
            "detector": (0.0, rows),
        }[name]
        if name == "temporal" and config.temporal_model.backbone == "lstm":
            flops = by_hand  # the compiler counts one turn of its loop over frames
        judged = {  # pictures at each evaluation, and forward FLOPs of one
            "pretrain": (KEY_FRAMES, vit),
            "temporal": (0, 0.0),
            "finetune": (VALIDATION[self._frames], vit),
            "detector": (BOXED_FRAMES + EMPTY_FRAMES, flops / rows / 3),
        }[name]
        times = config[name].steps // config[name].eval_every + (name == "finetune")
        rate, seen = self._rates.get(name, 0.0), judged[0] * times
        again = self._rates["detections" if name == "detector" else "in order"]
        return Stage(
            name, config[name].steps, rows, pictures, flops, by_hand,
            state_bytes(state), sum(a.size for a in jax.tree.leaves(state.params)),
            rate,
            Stage(f"{name}, judged", 1, seen, seen, seen * judged[1], rate=again) if seen else None,
        )  # fmt: skip

    def embed(self, config) -> Stage:
        """Every frame once, an upper bound: it takes train and val."""
        flops = self._frames * vit_flops(config)
        rate = self._rates["in order"]
        return Stage("embed", 1, self._frames, self._frames, flops, flops, rate=rate)

    def detections(self, detector: Stage) -> Stage:
        """Every frame through the detector once, an upper bound: it takes val and test."""
        flops = self._frames * detector.flops / detector.rows / 3  # forwards is a third of a step
        rate = self._rates["detections"]
        return Stage("detections", 1, self._frames, self._frames, flops, rate=rate)

    def predict(self, config, temporal: Stage) -> Stage:
        """The same through the encoder and the temporal network."""
        flops = self._frames * (vit_flops(config) + temporal.flops / temporal.rows / 3)
        rate = self._rates["in order"]
        return Stage("predict", 1, self._frames, self._frames, flops, rate=rate)


def count(config, frames: int) -> tuple[list[Stage], list[tuple[int, float]]]:
    """The stages of a run; then pixels and bytes of the pictures of each folder."""
    with tempfile.TemporaryDirectory() as folder:
        counter = Counter(config, frames, Path(folder))
        pretrain, temporal, finetune, detector = (counter.trained(config, n) for n in TRAINED)
    forwards = [counter.detections(detector), counter.predict(config, temporal)]
    return [
        *(pretrain, counter.embed(config), temporal, finetune, detector),
        *forwards,
    ], counter.stored


# Rows that a stage asks for at once.
SINGLE, WINDOW, IN_ORDER = np.arange(1), 4 * np.arange(65), np.arange(64)


def decoding(source: ClipSource, rows: np.ndarray, seconds: float = 2.0) -> float:
    """Pictures that one core reads and decodes a second, of rows that begin anywhere."""
    rng = np.random.default_rng(0)
    name, recording = next(iter(source.recordings.items()))
    last = recording.num_frames - rows[-1]
    done, start = 0, time.process_time()
    while time.process_time() - start < seconds:
        source.rows(name, int(rng.integers(last)) + rows)
        done += len(rows)
    return done / (time.process_time() - start)


def mean_bytes(source: ClipSource) -> float:
    """Of a JPEG file."""
    name = next(iter(source.recordings))
    return float(np.mean([len(jpeg) for jpeg in source.jpegs(name, source.numbers(name)[:64])]))


def schedule(stage: Stage, platform: Platform, args) -> tuple[int, float, float]:
    """Rows of a step, number of steps, and seconds of one, the loader left out.

    A batch that the devices cannot share evenly is filled up, and the steps become fewer, so that
    as many rows are seen: another recipe then, whose learning rate has to be found anew.
    """
    rows = math.ceil(stage.rows / platform.devices) * platform.devices
    share = UTILISATION.get(stage.name, args.utilisation)
    seconds = stage.flops * rows / stage.rows / (platform.devices * platform.peak * share)
    return rows, stage.steps * stage.rows / rows, max(seconds, args.shortest_step)


def hours(stage: Stage, platform: Platform, args) -> float:
    """What a stage takes, evaluations left out; what decodes may be slower than the devices."""
    _, steps, seconds = schedule(stage, platform, args)
    needed = steps * seconds
    if stage.rate:
        cores = hosts.LOADERS * platform.devices
        if stage.name not in TRAINED:
            cores = min(cores, READERS * math.ceil(platform.devices / 8))
        needed = max(needed, steps * stage.pictures / stage.rate / cores)
    return needed / 3600


def assumptions(description: str) -> argparse.ArgumentParser:
    """A parser of what is assumed and not counted."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--config", default="meccano", choices=FRAMES)
    parser.add_argument("--utilisation", type=float, default=0.3, help="The ViT's share of peak.")
    parser.add_argument(
        "--shortest_step", type=float, default=0.02, help="Seconds that no step falls short of."
    )
    parser.add_argument("--a100", type=float, default=3.0, help="Dollars an hour of one A100.")
    parser.add_argument("--h100", type=float, default=4.0, help="Dollars an hour of one H100.")
    parser.add_argument("--v5e", type=float, default=1.2, help="Dollars an hour of one v5e chip.")
    return parser


def platforms_of(args) -> dict[str, Platform]:
    """By name, with the prices of the flags."""
    found = [
        Platform("1 A100", 1, 312e12, args.a100),
        Platform("8 A100", 8, 312e12, args.a100),
        Platform("1 H100", 1, 989e12, args.h100),
        Platform("8 H100", 8, 989e12, args.h100),
        Platform("1 v5e", 1, 197e12, args.v5e),
        Platform("v5e-16", 16, 197e12, args.v5e),
        Platform("64 A100", 64, 312e12, args.a100),
    ]
    return {platform.name: platform for platform in found}


def config_of(args):
    """The config as it ships."""
    return importlib.import_module(f"stormpsr_jax.configs.{args.config}").get_config()


def main() -> None:
    args = assumptions(__doc__.split("\n")[0]).parse_args()
    stages, stored = count(config_of(args), FRAMES[args.config])
    platforms = list(platforms_of(args).values())
    for pixels, size in stored:
        print(
            f"{args.config}: {FRAMES[args.config]:,} frames, {size / 1e3:.1f} kB a picture of "
            f"{pixels} pixels, so {FRAMES[args.config] * size / 1e9:.1f} GB of shards"
        )
    rates = ", ".join(f"{s.name} {s.rate:,.0f}" for s in stages if s.pictures)
    print(f"One core decodes, pictures/s as each stage asks for them: {rates}\n")
    print(
        "| stage | steps | rows | GFLOP a row, compiler | by hand | PFLOP in all "
        "| million parameters | checkpoint, MB |\n|---|---|---|---|---|---|---|---|"
    )
    for s in stages:
        by_hand = f"{s.by_hand / s.rows / 1e9:.2f}" if s.by_hand else "–"
        print(
            f"| {s.name} | {s.steps:,} | {s.rows:,} | {s.flops / s.rows / 1e9:.2f} | {by_hand} "
            f"| {s.steps * s.flops / 1e15:,.0f} | {s.parameters / 1e6:.1f} | {s.state / 1e6:.0f} |"
        )
    table(stages, platforms, args)


def table(stages: list[Stage], platforms: list[Platform], args) -> None:
    """Prints hours, dollars and what loader and network have to carry."""
    print(f"\n| | {' | '.join(p.name for p in platforms)} |\n|---{'|---' * len(platforms)}|")
    total, judging = dict.fromkeys(platforms, 0.0), dict.fromkeys(platforms, 0.0)
    lines: dict[str, list[str]] = {}
    for s in stages:
        cells, batches, pictures, traffic = [], [], [], []
        for p in platforms:
            rows, _, seconds = schedule(s, p, args)
            total[p] += (needed := hours(s, p, args))
            judging[p] += hours(s.evaluations, p, args) if s.evaluations else 0.0
            cells.append(f"{needed:.2f}")
            batches.append(f"{rows // p.devices:,}")
            decoded = s.pictures * rows / s.rows / seconds
            pictures.append(f"{decoded:,.0f}; {math.ceil(decoded / (s.rate or 1))}")
            traffic.append(f"{8 * s.parameters * (1 - 1 / p.devices) / seconds / 1e9:.1f}")
        print(f"| {s.name}, hours | {' | '.join(cells)} |")
        if s.name in TRAINED:
            lines[f"{s.name}, rows a device"] = batches
            if s.pictures:
                lines[f"{s.name}, pictures/s; cores"] = pictures
            lines[f"{s.name}, all-reduce, GB/s a device"] = traffic
    print(f"| evaluations, hours | {' | '.join(f'{h:.2f}' for h in judging.values())} |")
    total = {p: total[p] + judging[p] for p in platforms}
    print(f"| all, hours | {' | '.join(f'{h:.2f}' for h in total.values())} |")
    dollars = " | ".join(f"{h * p.devices * p.dollars:,.0f}" for p, h in total.items())
    print(f"| all, dollars | {dollars} |")
    for kind in ("rows a device", "pictures/s; cores", "all-reduce, GB/s a device"):
        for title, cells in lines.items():
            if title.endswith(f", {kind}"):
                print(f"| {title} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
