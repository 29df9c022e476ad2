"""Metric writers: metrics.jsonl for programs, TensorBoard files for people."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import jax
from tensorboardX import SummaryWriter


class MetricWriter:
    """Appends rows to WORKDIR/metrics.jsonl and scalars to WORKDIR/tensorboard.

    Only process 0 writes. Rows beyond `step`, the step that training resumes from, are cut, so that
    the file of an interrupted run equals that of an undisturbed one. Timings differ from run to run
    and therefore go to TensorBoard alone.
    """

    def __init__(self, workdir: Path, step: int = 0):
        self._file = self._board = None
        if jax.process_index() != 0:
            return
        path = workdir / "metrics.jsonl"
        # A run from step 0 writes its row of step 0 again.
        rows = read_metrics(path) if step and path.exists() else []
        partial = path.with_suffix(".tmp")
        partial.write_text("".join(json.dumps(row) + "\n" for row in rows if row["step"] <= step))
        os.replace(partial, path)
        self._file = path.open("a")
        self._board = SummaryWriter(str(workdir / "tensorboard"), purge_step=step + 1)

    def write(
        self,
        step: int,
        scalars: Mapping[str, float],
        timings: Mapping[str, float] | None = None,
    ) -> None:
        """Writes one row {"step": step, **scalars}, and `timings` to TensorBoard."""
        if self._file is None:
            return
        self._file.write(json.dumps({"step": step, **scalars}) + "\n")
        # Rows reach the file before the checkpoint of the same step is made.
        self._file.flush()
        for name, value in {**scalars, **(timings or {})}.items():
            if value is not None:
                self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Flushes and closes both files."""
        if self._file is not None:
            self._file.close()
            self._board.close()


def read_metrics(path: Path) -> list[dict]:
    """Returns the rows of a metrics.jsonl; a last row cut short by a crash is left out."""
    lines = path.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]
