"""What training at full size costs: hours and dollars of one run and of all tables, and memory.

    python benchmarks/cost.py [--config=meccano] [--seeds=3] [--utilisation=0.3]
        [--shortest_step=0.02] [--a100=3] [--h100=4] [--v5e=1.2]
    python benchmarks/cost.py --memory=a100 [--config=meccano] [--stages=finetune] [--sizes=S,B]
        [--remat=none,dots,full] [--attention=xla]

Nothing is trained. FLOPs are the compiler's count of one training step of each stage as
configs/<config>.py ships it, but with remat "none": what the model takes,
without anything computed twice; only of an LSTM they are counted by hand, 8 a weight and frame.
Evaluations during training count too: they go over the devices of all hosts. Each device has as
many cores that decode for it as the package starts loaders (`hosts.LOADERS`). Pictures are decoded
here as each stage asks for them: windows of a recording for `finetune`, one of a record for
`pretrain` and `detector`, all in order otherwise. Everything that is assumed and not counted is a
flag or a constant below; benchmarks/results/scale-cost.md discusses it.

Of all tables of the paper, stages and runs are those of `stormpsr_jax.paper`'s own plan. Runs go
side by side, each on a device of its own, as in the command.

--memory says what a step needs of a device that is not there, by its compiler (`step_memory.py`).
"""

import argparse
import dataclasses
import heapq
import importlib
import math
import os
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"  # what runs here; devices are only compiled for

import jax
import msgspec
import numpy as np
import stage_loops

from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.experiments import paper_plan
from stormpsr_jax.experiments.runs import Run, changed
from stormpsr_jax.networks import backbones
from stormpsr_jax.networks.temporal import TemporalLSTM
from stormpsr_jax.stages import config_flag, order
from stormpsr_jax.stages.learning import BOXED_FRAMES, EMPTY_FRAMES, KEY_FRAMES
from stormpsr_jax.training import hosts
from stormpsr_jax.training.devices import make_mesh

# MECCANO: 20 recordings, 6.9 h at 12 frames/s. IndustReal: 84 recordings, 5.8 h at 10 frames/s.
FRAMES = {"meccano": 299_376, "industreal": 209_000}
# Of the validation split: 2 recordings of MECCANO's; 16 of IndustReal's 84, by their share.
VALIDATION = {299_376: 32_600, 209_000: 39_800}
# Of the peak, model FLOPs only; the ViT's share is --utilisation. The temporal transformer is 128
# wide, less than a matrix unit, and the detector is 48 channels of convolutions.
UTILISATION = {"temporal": 0.2, "detector": 0.15}
# Threads that read in order hold Python's lock for a part of the time; more of them in a process
# would wait for each other.
READERS = 12
TRAINED = ("pretrain", "temporal", "finetune", "detector")
PARTS = ("pretrain", "embed", "temporal", "finetune", "detector", "predict")
# Of the tables: in so many places, each on such a device.
SIDE_BY_SIDE = (("1 A100", 1), ("1 H100", 1), ("1 H100", 8))
# What says how many steps there are and which rows are drawn, and not what a step computes.
SAME_STEP = {f"{name}.steps": 1 for name in TRAINED}
SAME_STEP |= {"pretrain.t_f": 2.0, "temporal.sampling": "kcas"}
# Rows that a stage asks for at once.
SINGLE, WINDOW, IN_ORDER = np.arange(1), 4 * np.arange(65), np.arange(64)


@dataclasses.dataclass(frozen=True)
class Platform:
    """Some accelerators.

    Attributes:
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
        steps: of the config; embed and predict have one, of all frames.
        rows: of a step: pictures, clips, frames.
        pictures: decoded a step.
        flops: of a step.
        parameters: how many.
        rate: pictures of its size that one core decodes a second.
        evaluations: all of them, as a stage of their own; None: they take no time worth the name.
    """

    name: str
    steps: int
    rows: int
    pictures: int
    flops: float
    parameters: int = 0
    rate: float = 0.0
    evaluations: "Stage | None" = None


def vit_flops(config) -> float:
    """Forward FLOPs of one picture: 2 a weight and token, and attention's two products."""
    e = backbones.build(msgspec.structs.asdict(config.encoder))
    patches = (config.encoder.image_size // e.patch_size) ** 2
    tokens, matrices = 1 + e.registers + patches, 3 if e.mlp == "swiglu" else 2
    weights = 4 * e.width**2 + matrices * e.width * (e.mlp_dim or 4 * e.width)
    block = 2 * weights * tokens + 4 * tokens**2 * e.width
    return e.depth * block + 2 * patches * 3 * e.patch_size**2 * e.width


def clip_frames(config) -> int:
    """Frames of a clip that are encoded."""
    return config.window.frames // config.window.stride + 1


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
        data = self._opened(config)[0].data
        small, large = data.source("train"), data.detector_source("train")
        self._rates = {
            "pretrain": _decoding(small, SINGLE),
            "finetune": _decoding(small, WINDOW),
            "detector": _decoding(large, SINGLE),
            "in order": _decoding(small, IN_ORDER),
            "large, in order": _decoding(large, IN_ORDER),
        }
        self.stored = [(s.image_size[0], _mean_bytes(s)) for s in (small, large)]

    def _opened(self, config):
        """A config's stages without what would be computed twice, on the made-up data."""
        config = changed(config, {"encoder.remat": "none", "attention": "xla"})
        return stage_loops.opened(config, self._folder, self._mesh)

    def trained(self, config, name: str) -> Stage:
        """What a stage that trains takes."""
        definition = stage_loops.definitions(*self._opened(config), [name])[name]
        rows = len(next(iter(stage_loops.first_batch(definition).values())))
        flops = stage_loops.lower(definition, self._mesh).cost_analysis()["flops"]
        if name == "temporal" and config.temporal_model.backbone == "lstm":
            # The compiler counts one turn of its loop over frames.
            units = config.temporal_model.baseline_width or TemporalLSTM.width
            flops = 3 * rows * clip_frames(config) * 8 * units * (config.encoder.hidden + units)
        pictures = {"temporal": 0, "finetune": rows * clip_frames(config)}.get(name, rows)
        vit = vit_flops(config)
        judged = {  # pictures at each evaluation, and forward FLOPs of one
            "pretrain": (KEY_FRAMES, vit),
            "temporal": (0, 0.0),
            "finetune": (VALIDATION[self._frames], vit),
            "detector": (BOXED_FRAMES + EMPTY_FRAMES, flops / rows / 3),
        }[name]
        section = getattr(config, name)
        times = section.steps // section.eval_every + (name == "finetune")
        rate, seen = self._rates.get(name, 0.0), judged[0] * times
        again = self._rates["large, in order" if name == "detector" else "in order"]
        evaluations = Stage(f"{name}, judged", 1, seen, seen, seen * judged[1], rate=again)
        parameters = sum(a.size for a in jax.tree.leaves(definition.init()[0]))
        return Stage(
            *(name, getattr(config, name).steps, rows, pictures, flops, parameters, rate),
            evaluations if seen else None,
        )

    def every_frame(self, name: str, flops: float) -> Stage:
        """A stage of forward passes of so many FLOPs; an upper bound: some splits are left out."""
        rate = self._rates["in order"]
        if name == "predict":  # the detector sees pictures of its own size
            rate = 1 / (1 / rate + 1 / self._rates["large, in order"])
        return Stage(name, 1, self._frames, self._frames, self._frames * flops, rate=rate)


def _decoding(source: ClipSource, rows: np.ndarray, seconds: float = 2.0) -> float:
    """Pictures that one core reads and decodes a second, of rows that begin anywhere."""
    rng = np.random.default_rng(0)
    name, recording = next(iter(source.recordings.items()))
    last = recording.num_frames - rows[-1]
    done, start = 0, time.process_time()
    while time.process_time() - start < seconds:
        source.rows(name, int(rng.integers(last)) + rows)
        done += len(rows)
    return done / (time.process_time() - start)


def _mean_bytes(source: ClipSource) -> float:
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


class Costs:
    """The stages of runs; a step that computes the same is counted once."""

    def __init__(self, counter: Counter):
        self._counter, self._known = counter, {}

    def stage(self, config, name: str) -> Stage | None:
        """What one of `PARTS` takes; None if it is left out."""
        if name in TRAINED:
            return self._trained(config, name) if getattr(config, name).steps else None
        flops = vit_flops(config)
        for network in ("temporal", "detector") if name == "predict" else ():
            of = self._trained(config, network)
            flops += of.flops / of.rows / 3  # forwards is a third of a step
        return self._counter.every_frame(name, flops)

    def _trained(self, config, name: str) -> Stage:
        step = order.stages(changed(config, SAME_STEP))[name]
        if step not in self._known:
            self._known[step] = self._counter.trained(config, name)
        return dataclasses.replace(self._known[step], steps=getattr(config, name).steps)


class Plan:
    """Hours of runs, as `paper` makes them: each by itself, in the order of the command."""

    def __init__(self, runs: Iterable[Run], costs: Costs, args):
        """Takes the runs."""
        self._runs, self._costs, self._args = list(runs), costs, args

    def parts(self, platform: Platform) -> dict[str, float]:
        """Hours by stage, all runs one after the other; 0 of what takes none worth the name."""
        of_runs = [self._parts(run, platform) for run in self._runs]
        return {name: sum(parts[name] for parts in of_runs) for name in (*PARTS, "evaluations")}

    def _parts(self, run: Run, platform: Platform) -> dict[str, float]:
        parts = dict.fromkeys((*PARTS, "evaluations"), 0.0)
        for name in run.config.stages:
            stage = self._costs.stage(run.config, name) if name in PARTS else None
            if stage is not None:
                parts[name] = hours(stage, platform, self._args)
                if stage.evaluations:
                    parts["evaluations"] += hours(stage.evaluations, platform, self._args)
        return parts

    def side_by_side(self, platform: Platform, places: int) -> float:
        """Hours until all runs are made in so many places, each on a whole platform."""
        ends = [0.0] * places
        for run in self._runs:
            heapq.heapreplace(ends, ends[0] + sum(self._parts(run, platform).values()))
        return max(ends)


def parser() -> argparse.ArgumentParser:
    """Of what is assumed and not counted."""
    made = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add, split = made.add_argument, lambda text: text.split(",")
    add("--config", default="meccano", choices=FRAMES)
    add("--seeds", type=int, default=3, help="That every row of the tables is trained with.")
    add("--utilisation", type=float, default=0.3, help="The ViT's share of peak.")
    add("--shortest_step", type=float, default=0.02, help="Seconds; no step falls short of them.")
    for name, price in (("a100", 3.0), ("h100", 4.0), ("v5e", 1.2)):
        add(f"--{name}", type=float, default=price, help="Dollars an hour of one.")
    add("--memory", choices=("a100", "h100", "v5e"), help="Say what a step needs there, alone.")
    add("--stages", type=split, default=["finetune"], help="Of --memory, as all that follow.")
    add("--sizes", type=split, default=["S", "B"])
    add("--remat", type=split, default=["none", "dots", "full"])
    add("--attention", default="xla", choices=("auto", "xla", "cudnn"))
    return made


def platforms_of(args) -> dict[str, Platform]:
    """By name, with the prices of the flags."""
    peaks = {"A100": (312e12, args.a100), "H100": (989e12, args.h100), "v5e": (197e12, args.v5e)}
    names = [(1, "A100"), (8, "A100"), (1, "H100"), (8, "H100"), (16, "v5e"), (64, "A100")]
    return {f"{n} {name}": Platform(f"{n} {name}", n, *peaks[name]) for n, name in names}


def main() -> None:
    args = parser().parse_args()
    module = importlib.import_module(f"stormpsr_jax.configs.{args.config}")
    config = config_flag.typed(module.get_config())
    if args.memory:
        import step_memory  # here, as it sets what compilers do

        step_memory.table(config, args.memory, args)
        return
    platforms, frames = platforms_of(args), FRAMES[args.config]
    config = changed(config, {"data.dir": "data"})
    with tempfile.TemporaryDirectory() as folder:
        counter = Counter(config, frames, Path(folder))
        for pixels, size in counter.stored:
            print(f"{frames:,} pictures of {pixels} pixels: {frames * size / 1e9:.1f} GB of shards")
        costs = Costs(counter)
        one_run([costs.stage(config, name) for name in PARTS], list(platforms.values()), args)
        tables, root = list(paper_plan.TABLES), Path(folder, "runs")
        runs = paper_plan.runs_of(tables, config, root, range(args.seeds))
        plan = Plan(dict.fromkeys(runs.values()), costs, args)
        print(f"\nAll tables, {args.seeds} seeds, {len(set(runs.values()))} runs:\n")
        print("| side by side on | hours | dollars |\n|---|---|---|")
        for name, places in SIDE_BY_SIDE:
            needed = plan.side_by_side(platforms[name], places)
            dollars = needed * places * platforms[name].dollars
            print(f"| {places} {name[2:]} | {needed:.1f} | {dollars:,.0f} |", flush=True)
        in_turn = sum(plan.parts(platforms["8 H100"]).values())
        print(f"\nOne run after the other, each over 8 H100: {in_turn:.1f} hours")


def one_run(stages: list[Stage], platforms: list[Platform], args) -> None:
    """Prints hours and dollars of a run, and what loaders and network have to carry."""
    rates = ", ".join(f"{s.name} {s.rate:,.0f}" for s in stages if s.rate)
    print(f"One core decodes, pictures/s as each stage asks for them: {rates}")
    print(f"\n| one run, hours | {' | '.join(p.name for p in platforms)} |")
    print(f"|---{'|---' * len(platforms)}|")
    judged = [s.evaluations for s in stages if s.evaluations]
    rows = {s.name: [hours(s, p, args) for p in platforms] for s in stages}
    rows["evaluations"] = [sum(hours(s, p, args) for s in judged) for p in platforms]
    rows["all"] = [sum(column) for column in zip(*rows.values(), strict=True)]
    for title, found in rows.items():
        print(f"| {title} | {' | '.join(f'{value:.2f}' for value in found)} |")
    pairs = zip(rows["all"], platforms, strict=True)
    print(f"| all, dollars | {' | '.join(f'{h * p.devices * p.dollars:,.0f}' for h, p in pairs)} |")
    for s in stages:
        if s.name in TRAINED and s.pictures:
            cells = []
            for p in platforms:
                filled, _, seconds = schedule(s, p, args)
                cells.append(str(math.ceil(s.pictures * filled / s.rows / seconds / s.rate)))
            print(f"| {s.name}, cores that decode | {' | '.join(cells)} |")
    # Gradients in float32, sent and received once each.
    sent = ", ".join(f"{s.name} {8 * s.parameters / 1e6:.0f}" for s in stages if s.parameters)
    print(f"\nMB that each of n devices sends and receives a step, times (n − 1) / n: {sent}")


if __name__ == "__main__":
    main()
