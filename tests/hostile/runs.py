"""The tiny run that attempts start from and are compared with."""

import hashlib
import json
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from stormpsr_jax import main as command
from stormpsr_jax.base import interruption
from stormpsr_jax.base.results import RECORD
from stormpsr_jax.serving.card import CARD
from stormpsr_jax.stages import run as _run_of_stages  # noqa: F401 (imported before forks)
from tests.hostile.processes import call
from tests.support.processes import ROOT
from tests.support.tiny import TINY, flags_of

STAGES = TINY["stages"]
OF_EVALUATE = {"model", "metrics.json", "detections.json", "report.html"}
SECONDS = "seconds.json"
LIMIT = 180  # seconds; a stage of the tiny run takes up to 40 on a busy machine

Found = tuple[str, set[str], str]


def run(workdir: Path, *flags: str, **fields) -> Callable[[], None]:
    """The command of a tiny run, for a process of its own."""
    words = [f"--config={ROOT / 'configs' / 'synthetic.py'}", f"--workdir={workdir}"]
    words += flags_of({**TINY, **{name.replace("__", "."): v for name, v in fields.items()}})

    def function() -> None:
        interruption.install()
        command.main([*words, *flags])

    return function


def prepare(base: Path) -> None:
    """Makes the undisturbed run that the attempts start from and are compared with."""
    base.mkdir(parents=True, exist_ok=True)
    if not (base / "run" / "metrics.json").exists():
        outcome = call(run(base / "run"), base, 1800)
        if outcome.code:
            sys.exit(outcome.output)
        took = dict(re.findall(r"^(\w+): (\d+) s$", outcome.output, re.MULTILINE))
        # Of a stage that an earlier command has finished, as long as any.
        seconds = {stage: float(took.get(stage, 10)) for stage in STAGES}
        (base / SECONDS).write_text(json.dumps(seconds))


def results(folder: Path, stages: Sequence[str]) -> dict[str, str]:
    """Checksums of what stages have made, without what holds times and dates."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        top = "predict" if name.parts[0] == "predictions" else name.parts[0]
        top = "evaluate" if top in OF_EVALUATE else top
        # Only a stage that goes on looks at the recordings that it has completed.
        unlike = {"checkpoints", "tensorboard", "pace.jsonl", "completed"}
        skipped = unlike & set(name.parts)
        if top not in stages or skipped or not path.is_file():
            continue
        content = path.read_bytes()
        if path.name == "model.json" or name.parts == ("evaluate", RECORD):
            data = json.loads(content)
            for of_date in ("created", "results", "checksum"):
                data.pop(of_date, None)
            content = json.dumps(data).encode()
        if path.name == CARD:
            content = re.sub(rb"\* written .*", b"", content)
        found[str(name)] = hashlib.sha256(content).hexdigest()
    return found


def copy_before(base: Path, target: Path, stage: str) -> tuple[str, ...]:
    """Copies the run as it was before a stage; returns the stages up to it."""
    later = STAGES[STAGES.index(stage) :]
    gone = {*later, "lock", *OF_EVALUATE}
    gone |= {"predictions"} if "predict" in later else set()

    def ignored(folder: str, names: list[str]) -> set[str]:
        return gone if Path(folder) == base / "run" else set()

    shutil.copytree(base / "run", target, ignore=ignored, dirs_exist_ok=True)
    return STAGES[: STAGES.index(stage) + 1]


def same(base: Path, workdir: Path, stages: Sequence[str] = STAGES) -> bool:
    """Whether stages came to what they did in the undisturbed run."""
    return results(workdir, stages) == results(base / "run", stages)


def seconds_of(base: Path, stage: str) -> float:
    """How long a stage took in the undisturbed run, with what it compiled."""
    return json.loads((base / SECONDS).read_text())[stage]
