"""What the table of a finished run says of its test recordings, beside what recognition gives."""

import json
from pathlib import Path

from stormpsr_jax import recognise
from stormpsr_jax.base import files
from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.psr.accumulation import Settings
from stormpsr_jax.psr.evaluation import evaluate_recordings
from stormpsr_jax.psr.learned_beliefs import read_weights
from stormpsr_jax.psr.learned_events import LearnedSettings
from stormpsr_jax.recordings.evaluation_set import load_recordings
from stormpsr_jax.recordings.procedure import load_procedure

Steps = list[tuple[int, int]]  # (frame, step id)
STREAM = "learned"


def pictures(data: Path, folder: Path) -> list[Path]:
    """Writes the stored pictures of the test recordings as folders of numbered ones."""
    source = ClipSource(data, "test", load_procedure(data / "procedure.json"))
    for name, recording in source.recordings.items():
        (folder / name).mkdir(parents=True)
        numbers = source.numbers(name)
        assert len(numbers) == recording.num_frames
        for number, jpeg in zip(numbers, source.jpegs(name, numbers), strict=True):
            (folder / name / f"{number:06d}.jpg").write_bytes(jpeg)
    return sorted(folder.iterdir())


def recognised(run: Path, sources: list[Path], out: Path, *words: str) -> dict[str, list[Steps]]:
    """By recording, what the command sees and what it reports, by stream `learned`."""
    flags = [f"--model={run}", f"--stream={STREAM}", f"--out={out}", *words]
    assert recognise.main([*map(str, sources), *flags]) == 0
    found = {}
    for source in sources:
        lines = [json.loads(line) for line in open(out / source.stem / "events.jsonl")]
        seen, told = (
            [(line["frame"], line["step_id"]) for line in lines if line["type"] == kind]
            for kind in ("seen", "event")
        )
        found[source.stem] = [told if "--risk=1" in words else seen, told]
    return found


def told(result: dict) -> dict[str, list[Steps]]:
    """The same as metrics.json of the run, or what `evaluate_recordings` returns, says it."""
    recordings = result["streams"][STREAM]["recordings"]
    return {
        name: [[(e[0], e[1]) for e in part["events"]] for part in (one["seen"], one)]
        for name, one in recordings.items()
    }


def check(run: Path, data: Path, out: Path) -> tuple[list[str], dict[str, list[Steps]]]:
    """Asserts that recognition of the stored pictures gives the run's table.

    By the run's own settings, and as networks of a few steps tell little, also by a threshold so
    low that steps are seen. Returns the flags of that, and what is told then.
    """
    stored = pictures(data, out / "pictures")
    assert recognised(run, stored, out / "own") == told(files.read_json(run / "metrics.json"))
    procedure = load_procedure(data / "procedure.json")
    recordings = load_recordings(
        procedure, data / "labels/test", scores_dir=run / "predictions/test/scores"
    )
    weights = read_weights(run / "fuse/fusion.json")
    fitted = files.read_json(run / "metrics.json")["streams"][STREAM]["settings"]
    for threshold in range(3, -9, -1):
        low = ["--risk=1", f"--threshold={STREAM}={threshold}"]
        settings = LearnedSettings(**fitted | {"install": threshold, "sure": None})
        of_all = {"asd": Settings(), STREAM: settings}
        result = evaluate_recordings(procedure, recordings, of_all, weights=weights)
        expected = told(result)
        if all(len(right) >= 2 for _, right in expected.values()):
            break
    assert all(len(right) >= 2 for _, right in expected.values())
    assert recognised(run, stored, out / "low", *low) == expected
    return low, expected
